// A PostgreSQL server without PostgreSQL: it accepts every login and answers any query with a
// canned row, so that what a pooler costs can be measured alone.
//
// It knows just enough of SQL to keep a pooler honest: BEGIN, COMMIT, ROLLBACK and SET set the
// transaction status and reported parameters, DISCARD, DEALLOCATE and the empty query have their
// tags. `SELECT <number>` answers that number (so that a load can check whose row it got), and
// pgbench's one-row lookup answers with the aid that was asked for.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "helios/base/clock.h"
#include "helios/base/result.h"

namespace helios::bench {

// Since the start.
struct BackendTotals {
  uint64_t connections = 0;  // Accepted; cancel requests are among them.
  uint64_t queries = 0;      // Statements: of a simple query each, else each Execute.
};

// A row is made at once: larger ones would not leave room for back-pressure.
inline constexpr uint32_t backend_row_size_max = 256 * 1024;

struct BackendOptions {
  // "host:port" (port 0: any free one, printed) or "unix:/dir:port". One or more.
  std::vector<std::string> listen{"127.0.0.1:7432"};
  uint32_t cores = 1;
  // Clients that may be logged in at the same time. 0: as many as the limit of open descriptors
  // allows, at most 20,000.
  uint32_t connections_max = 0;
  // What a query costs on request: a pause before each answer (of whole milliseconds, rounded up);
  // answers cut into pieces of so many bytes, sent one by one (0: whole); rows and bytes of each
  // row of every result that is not a number lookup (0: one small row; COPY TO: about 1 MB). A
  // SELECT whose text begins with "SELECT big" or contains the comment "big" gets about 1 MB
  // whatever these say.
  Nanoseconds delay = 0;
  uint32_t piece_size = 0;
  uint32_t rows = 0;
  uint32_t row_size = 0;  // At most backend_row_size_max.
  std::vector<int> cpus;
  bool batch_policy = false;
  // Called once everything listens, with the addresses as clients can use them.
  void (*on_ready)(const std::vector<std::string>& addresses, void* context) = nullptr;
  void* on_ready_context = nullptr;
  // Filled in at the end. May be null.
  BackendTotals* totals = nullptr;
};

// Serves until SIGTERM or SIGINT, which it blocks in the calling thread. An error when it could not
// begin. Requires: called in the main thread, before the process has others.
[[nodiscard]] Result<bool> run_backend(const BackendOptions& options);

}  // namespace helios::bench
