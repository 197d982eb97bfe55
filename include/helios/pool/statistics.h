// What the pools count, and how the counts of several cores become one picture.
//
// PoolCounters belong to one slice: plain numbers that its core alone changes, where the turn's
// time is known already. Gauges are not kept at all: they are read off the state of each backend
// when somebody asks, so that nothing can make them drift. A Statistics is a copy and belongs to
// whoever has it (statistics_collector.h brings those of all cores together).
//
// What holds in total, and for each pool that no core has forgotten, over all cores, while no
// backend is on its way between two:
//   leases    at_once + wait_time.count() = use_time.count() + leased
//   waits     waited = wait_time.count() + failures + waiters
//   connects  connects = connect_time.count() + connect_failures + connecting
//   backends  connect_time.count() + moves_in = moves_out + closes + idle + leased + settling
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/enum_counts.h"
#include "helios/base/histogram.h"
#include "helios/pool/pins.h"

namespace helios {

struct Node;

// Why a wait ended without a backend.
enum class WaitFailure : uint8_t {
  timed_out,      // acquire_timeout.
  node_error,     // The connect for it failed: it was told the node's error.
  client_left,    // Nobody is there any more.
  cancelled,      // By a cancel request; the client lives on.
  removed,        // A new configuration has no such database or user any more.
  shutting_down,  // The process stops.
};
[[nodiscard]] const char* to_text(WaitFailure failure) noexcept;

// Why a server connection was ended. (One that was never ready is a failed connect instead.)
enum class CloseReason : uint8_t {
  idle,           // idle_timeout.
  lifetime,       // max_lifetime.
  failed,         // It broke, or did what it should not.
  dropped,        // Its session ended in a state in which nobody else can use it.
  single_use,     // A replication connection whose client has left.
  made_room,      // A limit that pools share has become smaller, or another pool waited for it.
  reconfigured,   // Its pool was changed or removed by a new configuration.
  shutting_down,  // The process stops.
};
[[nodiscard]] const char* to_text(CloseReason reason) noexcept;

// What a client did for longer than its pool allows (TimeLimits).
enum class TimeLimit : uint8_t { query, idle_transaction, transaction, client_idle };
[[nodiscard]] const char* to_text(TimeLimit limit) noexcept;

// Since the slice was made. Durations in nanoseconds.
struct PoolCounters {
  uint64_t at_once = 0;        // Acquires that found an idle backend.
  uint64_t waited = 0;         // Acquires that had to queue.
  uint64_t waiters_max = 0;    // The most that waited at a time on one core.
  uint64_t waits_refused = 0;  // Acquires that found max_waiters waiting: they did not queue.
  EnumCounts<WaitFailure, WaitFailure::shutting_down> failures;
  uint64_t connects = 0;          // Begun.
  uint64_t connect_failures = 0;  // Also those given up because the process stops.
  EnumCounts<CloseReason, CloseReason::shutting_down> closes;
  uint64_t tests = 0;  // Pings of backends that were idle for long.
  uint64_t tests_failed = 0;
  uint64_t trials = 0;      // Connects that tried whether a node is back. Counted as connects, too.
  uint64_t recoveries = 0;  // Backends whose client went in the middle of something.
  uint64_t resets = 0;      // Cleaned between two leases.
  PinCounts pins;           // Reasons for which sessions began to keep their backend.
  uint64_t state_probes = 0;     // Questions to servers about the state of a session.
  uint64_t moves_in = 0;         // Backends that came from another core.
  uint64_t moves_out = 0;        // Backends that went to one.
  uint64_t cancels = 0;          // Cancel requests sent to servers.
  uint64_t cancels_dropped = 0;  // Not sent because too many were on their way.
  // Prepared statements that follow their clients.
  uint64_t client_parses = 0;  // That clients asked for.
  uint64_t server_parses = 0;  // That were sent to servers.
  uint64_t binds = 0;
  uint64_t violations = 0;
  EnumCounts<TimeLimit, TimeLimit::client_idle> overruns;
  uint64_t late_ends = 0;        // Servers that did not close in time.
  CoarseHistogram wait_time;     // In the queue, of those who got a backend.
  CoarseHistogram connect_time;  // Connect and login, of those that succeeded.
  CoarseHistogram use_time;      // Leases that have ended.

  [[nodiscard]] uint64_t acquires() const noexcept { return at_once + waited; }
  void add(const PoolCounters& other) noexcept;
};

// At one moment.
struct PoolGauges {
  uint64_t connecting = 0;  // To the end of the login.
  uint64_t leased = 0;
  uint64_t pinned = 0;  // Of these: kept by their session beyond its transaction.
  PinCounts pins;       // Why; there may be several reasons for one.
  uint64_t idle = 0;
  uint64_t settling =
      0;                 // Between two leases: reset, tested, held back, or moving to another core.
  uint64_t closing = 0;  // The server has not let go yet.
  uint64_t permits_free = 0;
  uint64_t waiters = 0;
  uint64_t clients = 0;
  Nanoseconds oldest_wait = 0;         // 0: nobody waits.
  Nanoseconds oldest_pin = 0;          // 0: none is pinned.
  Nanoseconds oldest_backend = 0;      // Age; 0: there is none.
  Nanoseconds newest_backend = never;  // Age; `never`: there is none.

  // Server connections: each holds a permit.
  [[nodiscard]] uint64_t total() const noexcept {
    return connecting + leased + idle + settling + closing;
  }
  void add(const PoolGauges& other) noexcept;
};

struct PoolFigures {
  PoolGauges gauges;
  PoolCounters counters;
  void add(const PoolFigures& other) noexcept {
    gauges.add(other.gauges);
    counters.add(other.counters);
  }
};

struct PoolStatistics {
  std::string user;
  std::string database;
  std::string settings;  // The start-up parameters that belong to it: "name=value,name=value".
  const Node* node = nullptr;
  uint32_t max_connections = 0;
  PoolFigures figures;
};

struct NodeStatistics {
  const Node* node = nullptr;
  PoolFigures figures;
};

// A backend that is kept by its session.
struct PinStatistics {
  uint32_t client = 0;  // The process id that it was told.
  std::string user;
  std::string database;
  uint32_t process_id = 0;  // Of the server.
  Nanoseconds longest = 0;  // Of its reasons.
  std::string reasons;      // With how long each has lasted.
};

// Of one core, or of several.
struct Statistics {
  std::map<std::string, PoolStatistics> pools;  // By their key.
  std::map<std::string, NodeStatistics> nodes;  // By name; with those of pools that have gone.
  PoolFigures total;
  std::vector<PinStatistics> pins;

  // Counts a pool also for its node and in total.
  void add(const std::string& key, const PoolStatistics& pool);
  // Counts a pool that is forgotten for its node and in total only.
  void add_gone(const Node& node, const PoolCounters& counters);
  void merge(const Statistics& other);
};

// Three digits and a unit: "870 ns", "1.25 ms", "12.0 s".
[[nodiscard]] std::string duration_text(Nanoseconds duration);

// A table for people: a title, the names of the columns, a line for each pool (of very many the
// busiest, and one line for the others), each node, and the total. Columns are at least two spaces
// apart and never empty.
[[nodiscard]] std::vector<std::string> table_lines(const Statistics& statistics);
// A line for each pin, those that have lasted longest first; of very many, these, and a line for
// the others.
[[nodiscard]] std::vector<std::string> pin_lines(const Statistics& statistics);
// The total in few lines.
[[nodiscard]] std::vector<std::string> summary_lines(const Statistics& statistics);

}  // namespace helios
