// The load test: clients that run transactions through a pooler (or a server) and check every
// answer.
//
// `run_load` drives everything from rings of its own (runtime/ring.h), one thread for each of
// `cores`, and returns when the time is over or every client has done its share. Plain data in,
// plain data out: `compare` runs it in a child process and takes the summary over a pipe.
#pragma once

#include <sys/types.h>

#include <array>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/result.h"

namespace helios::bench {

// How a query is sent.
enum class QueryMode : uint8_t {
  simple,    // Query.
  extended,  // Parse, Bind, Describe, Execute, Sync, with the unnamed statement.
  prepared,  // The statement is prepared once under a name; then Bind, Execute, Sync.
};

// What clients run. `name` is a built-in script (--list-scripts) or a path to an SQL file; weights
// choose between several, one choice for each transaction.
struct ScriptChoice {
  std::string name;
  uint32_t weight = 1;
};

struct LoadOptions {
  // Where to connect: "host:port", "[v6]:port" or "unix:/dir:port" (/dir/.s.PGSQL.port). Clients
  // are dealt over several. From one local address about 28,000 clients can reach one address and
  // port; to the loopback net the engine takes further local addresses (127.0.0.2, ...) by itself.
  std::vector<std::string> targets{"127.0.0.1:6432"};
  // Clients are dealt over all users and databases in turn, at each target. "user%d" counts from 1
  // to `users_count`; without %d there can be one only.
  std::string user = "postgres";
  std::string password;  // Empty: none.
  std::string database = "postgres";
  uint32_t users_count = 1;
  uint32_t databases_count = 1;

  uint32_t clients = 1;
  uint32_t cores = 1;  // Threads of the load itself.
  // Transactions per second over all clients; 0: closed loop, each client begins when its last one
  // has ended. In an open loop a latency counts from the moment that the transaction was due.
  double rate = 0;
  Nanoseconds warm_up = seconds(1);    // Not counted; begins when every client is connected.
  Nanoseconds duration = seconds(10);  // Counted.
  uint64_t transactions = 0;           // For each client; 0: until the time is over.
  Nanoseconds think_time = 0;          // Mean pause of a client between two transactions.
  QueryMode mode = QueryMode::simple;
  uint32_t pipeline = 1;  // Transactions that a client has under way at the same time.
  std::vector<ScriptChoice> scripts{{"select-1", 1}};
  uint32_t scale = 1;      // Of pgbench's tables.
  bool reconnect = false;  // A connection for each transaction.
  bool checks = true;      // Answers are compared with what was asked.
  uint64_t seed = 1;
  Nanoseconds connect_timeout = seconds(30);  // For all clients together.
  bool has_connect_timeout = false;  // Somebody asked for it: a server may come up in that time.
  Nanoseconds answer_timeout = seconds(60);  // A transaction that takes longer has failed.
  // CPUs for the threads, and SCHED_BATCH for them (compare sets both; empty: as they come).
  std::vector<int> cpus;
  bool batch_policy = false;
  // Processes (with their children) whose CPU time, switches and memory are read at the very
  // beginning and end of the counted time.
  std::vector<pid_t> watched;
  bool shows_progress = true;  // A line on stderr each second.
};

// CPU time and memory of a set of processes between two moments.
struct ProcessUsage {
  uint64_t cpu = 0;  // Nanoseconds, by the processes' CPU clocks.
  // Shares of `cpu` (the kernel counts them in ticks, so they are scaled to it).
  uint64_t cpu_user = 0;
  uint64_t cpu_system = 0;
  uint64_t voluntary_switches = 0;
  uint64_t involuntary_switches = 0;
  uint64_t rss = 0;  // Bytes, at the end.
  uint64_t pss = 0;
  bool has_pss = false;      // Else it could not be read.
  bool is_complete = false;  // Every process was there at both moments.
};

// All latencies in nanoseconds.
struct LatencySummary {
  uint64_t count = 0;
  uint64_t min = 0;
  uint64_t mean = 0;
  uint64_t p50 = 0;
  uint64_t p90 = 0;
  uint64_t p95 = 0;
  uint64_t p99 = 0;
  uint64_t p999 = 0;
  uint64_t p9999 = 0;
  uint64_t max = 0;
};

struct ErrorCount {
  std::array<char, 8> sqlstate{};  // Zero-terminated; "io" for a broken connection, "timeout".
  uint64_t count = 0;
  std::array<char, 160> example{};  // The first message.
};

// What the transactions of one script got. Parts of a built-in script count as scripts.
struct ScriptSummary {
  std::array<char, 48> name{};  // Zero-terminated.
  LatencySummary latency;
};

struct LoadSummary {
  // Good ones that ended in the counted time; in an open loop those that were due in it, whenever
  // they ended.
  uint64_t transactions = 0;
  // At any time, the warm-up included: ended in an error; got an answer that was not the asker's
  // (must be 0).
  uint64_t failed = 0;
  uint64_t wrong = 0;
  // Open loop: due in the counted time, but no client was free until its end. In `latency` each is
  // there with the time that it had waited by then, which is less than it would have taken.
  uint64_t unserved = 0;
  uint64_t bytes_received = 0;
  Nanoseconds span = 0;  // The counted time as it really was.
  LatencySummary latency;
  LatencySummary connect;  // From connect() to ReadyForQuery.
  // Transactions of the client that had fewest, the median client, and the one that had most.
  uint64_t client_min = 0;
  uint64_t client_median = 0;
  uint64_t client_max = 0;
  uint32_t clients_connected = 0;
  bool is_interrupted = false;          // By a signal, before its end.
  std::array<ErrorCount, 16> errors{};  // The first `errors_count` are used.
  uint32_t errors_count = 0;
  std::array<ScriptSummary, 8> scripts{};  // The first `scripts_count` are used; more are left out.
  uint32_t scripts_count = 0;
  ProcessUsage watched;
  ProcessUsage own;  // The load itself: its children are not counted.
};
static_assert(std::is_trivially_copyable_v<LoadSummary>);

// What is wrong with the options, scripts included: empty when nothing is. Needs no server.
[[nodiscard]] std::string load_problem(const LoadOptions& options);

// Runs it. An error when it could not begin (address, login, limits); failures later are counted in
// the summary. Requires: no other run_load in this process at the same time.
[[nodiscard]] Result<LoadSummary> run_load(const LoadOptions& options);

}  // namespace helios::bench
