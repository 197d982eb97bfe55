// The rows of the comparison: what is run, by how many clients, over which server.
//
// Plain data. A row is measured for all peers in turn before the next one begins.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "helios/base/result.h"
#include "load/load.h"

namespace helios::bench {

enum class RowServer : uint8_t {
  canned,    // Our own server that answers without working: the pooler's cost alone.
  postgres,  // A real server, because the canned one does not know the workload.
};

enum class RowKind : uint8_t {
  load,    // Transactions, one after the other.
  memory,  // Clients that have run one query and are idle: what they cost in memory.
};

// Memory is given for each client beyond these.
inline constexpr uint32_t memory_base_clients = 20;
// Memory that was needed for a moment (logins, all clients at once) takes seconds to go back.
inline constexpr Nanoseconds memory_wait_usual = seconds(4);

struct Row {
  std::string name;   // For --rows.
  std::string title;  // For the report.
  std::string script = "select-1";
  QueryMode mode = QueryMode::simple;
  uint32_t clients = 1;
  RowServer server = RowServer::canned;
  RowKind kind = RowKind::load;
  bool unix_sockets = false;  // Between pooler and server.
  bool scram = false;  // The client logs in at the pooler with a password; the server trusts.
  // Variants that are measured as well, when the peer that they vary is.
  std::vector<std::string> more_peers;
  bool is_quick = false;  // Part of --quick.
};

// The default matrix ("main").
[[nodiscard]] std::vector<Row> all_rows();
// Those of --quick.
[[nodiscard]] std::vector<Row> quick_rows();
// The rows of these names ("main" and "quick" stand for all of theirs), in this order.
[[nodiscard]] Result<std::vector<Row>> choose_rows(std::span<const std::string> names);
// One line for each row.
[[nodiscard]] std::string list_of_rows();

// "a,b" as its parts, without empty ones.
[[nodiscard]] std::vector<std::string> split_list(std::string_view text, char separator);

}  // namespace helios::bench
