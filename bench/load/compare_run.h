// The whole comparison: finds the peers, starts servers and poolers, measures row after row in
// alternating order, and returns what came out.
//
// Everything it starts is stopped and everything it writes is removed before run() returns, also
// after an interrupt or a failure. Main thread only.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "helios/base/result.h"
#include "load/compare_measure.h"
#include "load/compare_placement.h"
#include "load/compare_results.h"
#include "load/compare_row.h"
#include "load/compare_server.h"

namespace helios::bench {

enum class ServerChoice : uint8_t { automatic, canned, postgres, existing };

struct CompareOptions {
  std::vector<Row> rows;
  std::vector<Peer> peers;         // Without `program` and `version`: they are looked up.
  bool peers_were_chosen = false;  // By the user: then a missing one is an error.
  std::string base = "pgbouncer";
  bool base_was_chosen = false;
  std::string heliosproxy;  // Paths; empty: looked up.
  std::string pgbouncer;
  ServerChoice server = ServerChoice::automatic;
  std::string server_address;  // Of an existing one.
  Login login;
  uint32_t scale = 10;  // Of pgbench's tables: those of a private cluster are made so.
  Place place = Place::one;
  uint32_t rounds = 9;
  uint32_t pool_size = 20;
  Nanoseconds warm_up = milliseconds(200);
  Nanoseconds duration = seconds(1);
  Nanoseconds memory_wait = memory_wait_usual;
  Nanoseconds settle_time = seconds(2);  // Longest wait for quiet before each round.
};

// In which order round `round` (from 0) measures so many peers: A B C, C B A, A B C, ...
[[nodiscard]] std::vector<size_t> order_of_round(uint32_t round, size_t peers_count);
// How long the whole will take, in seconds, if the machine is quiet.
[[nodiscard]] double estimated_seconds(const CompareOptions& options);

class CompareRun {
 public:
  explicit CompareRun(const CompareOptions& options) : options_(options) {}
  CompareRun(const CompareRun&) = delete;
  CompareRun& operator=(const CompareRun&) = delete;
  ~CompareRun();

  // The error is one of the start; what fails later is part of the result.
  [[nodiscard]] Result<Comparison> run();

 private:
  struct Entrant {
    const Peer* peer;
    RunningPeer running;
    size_t result;  // Index in the row's results.
  };

  [[nodiscard]] Result<bool> prepare();
  [[nodiscard]] Result<bool> find_peers();
  [[nodiscard]] std::string chosen_program(PeerKind kind) const;
  [[nodiscard]] Result<bool> check_cores() const;
  // Of Row::more_peers: those whose peer takes part.
  [[nodiscard]] Result<bool> find_variants();
  [[nodiscard]] std::string find_base();
  void add_facts();
  void run_row(const Row& row);
  [[nodiscard]] std::vector<const Peer*> peers_of(const Row& row) const;
  [[nodiscard]] std::string server_problem(const Row& row);
  [[nodiscard]] Result<bool> need_server(BenchServer& server, RowServer kind);
  [[nodiscard]] BenchServer& server_of(const Row& row);
  [[nodiscard]] std::string obstacle(const Peer& peer, const Row& row);
  [[nodiscard]] PeerPlace place_for(const Peer& peer, const Row& row);
  [[nodiscard]] std::vector<Entrant> start_entrants(const Row& row, RowResult& result);
  void run_round(const Row& row, uint32_t round, std::vector<Entrant>& entrants, RowResult& result);
  [[nodiscard]] Measurement measure(const Row& row, Entrant& entrant,
                                    const std::vector<Entrant>& entrants);
  void settle() const;
  void show_round(const RowResult& result, uint32_t round) const;
  [[nodiscard]] MeasureOptions measure_options(const Row& row) const;
  [[nodiscard]] ServerSettings server_settings() const;

  CompareOptions options_;
  Comparison comparison_;
  Placement placement_;
  std::optional<Account> account_;
  std::string directory_;  // Of all files; removed at the end.
  std::string scram_verifier_;
  BenchServer canned_;
  BenchServer postgres_;
  BenchServer existing_;
  std::map<std::string, Peer> variants_;  // Of Row::more_peers, by name.
  uint32_t started_count_ = 0;            // Gives each start a directory of its own.
  Nanoseconds began_ = 0;
  double estimate_ = 0;
  size_t rounds_done_ = 0;
};

}  // namespace helios::bench
