// What was measured, and what follows from it: medians, ratios round by round, and which
// measurements are not clean.
//
// Plain data and pure functions.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "load/compare_machine.h"
#include "load/compare_peer.h"
#include "load/compare_row.h"
#include "load/load.h"

namespace helios::bench {

// Above these, a measurement is marked.
inline constexpr double steal_cpus_max = 0.02;
inline constexpr double foreign_cpus_max = 0.05;
inline constexpr double idle_peer_cpus_max = 0.01;
inline constexpr double runnable_max = 0.5;
// Below this, what a transaction costs is not known well.
inline constexpr uint64_t transactions_min = 20;

// What makes a measurement unclean.
enum class Flaw : uint8_t {
  no_result,
  failed_transactions,
  wrong_answers,
  clients_missing,
  few_transactions,
  incomplete_usage,
  steal,
  foreign_cpu,
  foreign_runnable,
  idle_peers,
};
struct FoundFlaw {
  Flaw flaw;
  double amount = 0;  // As the flaw's text needs it.
};

// One run of one peer in one round of a row.
struct Measurement {
  uint32_t round = 0;       // From 1.
  uint32_t position = 0;    // Among the peers of the round, in the order of time; from 1.
  std::string error;        // Why there is nothing; empty: it was measured.
  bool has_pooler = false;  // `load.watched` is that of the pooler.
  LoadSummary load{};
  // Rows of kind memory: of the pooler's processes for each client, in bytes.
  double rss_per_client = 0;
  double pss_per_client = 0;
  // And what was wrong when the memory was read that is subtracted.
  std::vector<FoundFlaw> base_flaws;
  IdleLook idle;        // Just before.
  ForeignLoad foreign;  // Meanwhile.
  // A server that we did not start, if it runs here, is one of those whose CPU time is foreign:
  // then much of it says nothing.
  bool has_own_server = true;
  double load_average = 0;
  double idle_peers_cpus = 0;  // CPUs that the other peers used meanwhile.
};

struct PeerResult {
  std::string peer;
  std::string skipped;  // Why the peer did not take part in the row; empty: it did.
  std::vector<Measurement> rounds;
};

struct RowResult {
  Row row;
  std::vector<PeerResult> peers;
  [[nodiscard]] const PeerResult* find(const std::string& peer) const;
};

struct Comparison {
  Facts facts;                       // Machine, versions, placement.
  std::vector<std::string> peers;    // In the order of the tables.
  std::vector<std::string> remarks;  // Peers that are not installed, rows left out, ...
  std::string base;                  // Ratios are to this peer; empty: none.
  uint32_t rounds = 0;
  bool was_interrupted = false;
  bool has_own_server = true;   // All servers were started by us.
  Nanoseconds memory_wait = 0;  // Of rows of kind memory: clients idle so long first.
  std::vector<RowResult> rows;
};

struct Spread {
  double median = 0;
  double min = 0;
  double max = 0;
  size_t count = 0;
};
// Nothing for no values. The median of an even number is the mean of the middle two.
[[nodiscard]] std::optional<Spread> spread_of(std::vector<double> values);

// A figure of a measurement; nothing when it has none.
using Figure = std::optional<double> (*)(const Measurement& measurement);
// Microseconds of CPU time of the pooler for each transaction.
[[nodiscard]] std::optional<double> cpu_us(const Measurement& measurement);
[[nodiscard]] std::optional<double> user_us(const Measurement& measurement);
[[nodiscard]] std::optional<double> system_us(const Measurement& measurement);
// Context switches of the pooler for each transaction.
[[nodiscard]] std::optional<double> voluntary_switches(const Measurement& measurement);
[[nodiscard]] std::optional<double> involuntary_switches(const Measurement& measurement);
[[nodiscard]] std::optional<double> rss_bytes(const Measurement& measurement);
[[nodiscard]] std::optional<double> transactions_per_second(const Measurement& measurement);
[[nodiscard]] std::optional<double> p50_us(const Measurement& measurement);
[[nodiscard]] std::optional<double> p99_us(const Measurement& measurement);
[[nodiscard]] std::optional<double> rss_per_client(const Measurement& measurement);
[[nodiscard]] std::optional<double> pss_per_client(const Measurement& measurement);

[[nodiscard]] std::optional<Spread> spread_over(const PeerResult& result, Figure figure);
// Divided by the base's figure of the same round; rounds that miss either are left out.
[[nodiscard]] std::optional<Spread> ratios_over(const PeerResult& result, const PeerResult& base,
                                                Figure figure);

// Each flaw once, with the worst amount.
[[nodiscard]] std::vector<FoundFlaw> flaws_of(const Measurement& measurement, const Row& row);
// One word, for programs: "foreign_cpu".
[[nodiscard]] const char* name_of(Flaw flaw) noexcept;
// For a footnote: "rounds 1, 3: other processes used up to 37 % of a CPU; ...". Empty: all clean.
[[nodiscard]] std::string flaws_text(const PeerResult& result, const Row& row);

}  // namespace helios::bench
