#include "load/compare_row.h"

#include <algorithm>
#include <utility>

#include "helios/config/nearest.h"

namespace helios::bench {
namespace {

std::string clients_text(uint32_t clients) {
  return std::to_string(clients) + (clients == 1 ? " client" : " clients");
}

// As rows are named; as their titles begin.
const char* mode_name(QueryMode mode) {
  if (mode == QueryMode::simple) return "simple";
  return mode == QueryMode::prepared ? "prepared" : "extended";
}

const char* mode_title(QueryMode mode) {
  if (mode == QueryMode::simple) return "simple query, ";
  return mode == QueryMode::prepared ? "prepared statement, " : "extended query, ";
}

Row query_row(QueryMode mode, uint32_t clients) {
  Row row;
  row.name = mode_name(mode) + ("-" + std::to_string(clients));
  row.title = mode_title(mode) + clients_text(clients);
  row.mode = mode;
  row.clients = clients;
  return row;
}

Row unix_row(uint32_t clients) {
  Row row = query_row(QueryMode::simple, clients);
  row.name = "unix-" + std::to_string(clients);
  row.title = "simple query, unix sockets to the server, " + clients_text(clients);
  row.unix_sockets = true;
  return row;
}

Row script_row(std::string name, std::string title, std::string script, uint32_t clients) {
  Row row;
  row.name = std::move(name);
  row.title = std::move(title) + ", " + clients_text(clients);
  row.script = std::move(script);
  row.clients = clients;
  return row;
}

Row on_postgres(Row row) {
  row.server = RowServer::postgres;
  return row;
}

Row big_row() {
  Row row = script_row("result-1mb", "result of 1 MB", "result-1mb", 4);
  row.more_peers = {"pgbouncer:pkt_buf=65536"};
  return row;
}

Row scram_row() {
  Row row = script_row("connect-scram", "connect with SCRAM, query, disconnect", "connect", 8);
  row.scram = true;
  return row;
}

Row memory_row(uint32_t clients) {
  Row row = script_row("idle-" + std::to_string(clients), "memory, idle", "select-1", clients);
  row.kind = RowKind::memory;
  return row;
}

bool is_in_quick(const Row& row) {
  static const std::vector<std::string> names = {"simple-1",    "simple-16", "simple-64",
                                                 "extended-64", "connect",   "lookup-64"};
  return std::find(names.begin(), names.end(), row.name) != names.end();
}

}  // namespace

std::vector<Row> all_rows() {
  std::vector<Row> rows;
  for (const uint32_t clients : {1U, 16U, 64U, 256U, 1000U})
    rows.push_back(query_row(QueryMode::simple, clients));
  for (const uint32_t clients : {16U, 64U, 256U})
    rows.push_back(query_row(QueryMode::extended, clients));
  for (const uint32_t clients : {1U, 16U, 64U, 256U, 1000U})
    rows.push_back(query_row(QueryMode::prepared, clients));
  for (const uint32_t clients : {16U, 64U, 256U}) rows.push_back(unix_row(clients));
  rows.push_back(big_row());
  rows.push_back(script_row("connect", "connect, query, disconnect", "connect", 8));
  rows.push_back(scram_row());
  rows.push_back(on_postgres(script_row("copy-out", "COPY TO STDOUT, 1 MB each", "copy-out", 4)));
  rows.push_back(on_postgres(script_row("copy-in", "COPY FROM STDIN, 1 MB each", "copy-in", 4)));
  for (const uint32_t clients : {1U, 64U})
    rows.push_back(on_postgres(script_row("lookup-" + std::to_string(clients),
                                          "pgbench -S, PostgreSQL", "pgbench-select", clients)));
  rows.push_back(memory_row(1000));
  for (Row& row : rows) row.is_quick = is_in_quick(row);
  return rows;
}

std::vector<Row> quick_rows() {
  std::vector<Row> rows = all_rows();
  std::erase_if(rows, [](const Row& row) { return !row.is_quick; });
  return rows;
}

Result<std::vector<Row>> choose_rows(std::span<const std::string> names) {
  const std::vector<Row> known = all_rows();
  std::vector<std::string_view> known_names = {"main", "quick"};
  for (const Row& row : known) known_names.emplace_back(row.name);
  std::vector<Row> chosen;
  for (const std::string& name : names) {
    const size_t before = chosen.size();
    for (const Row& row : known) {
      if (row.name == name || name == "main" || (name == "quick" && row.is_quick))
        chosen.push_back(row);
    }
    if (chosen.size() == before)
      return Error{"\"" + name + "\" is no row (--list-rows shows them)" +
                   suggestion(name, known_names)};
  }
  if (chosen.empty()) return Error{"no row is named"};
  return chosen;
}

std::string list_of_rows() {
  std::string text;
  for (const Row& row : all_rows()) {
    std::string line = row.name;
    line.resize(16, ' ');
    text += line + row.title + (row.server == RowServer::postgres ? " (PostgreSQL)" : "") +
            (row.is_quick ? " [quick]" : "") + "\n";
  }
  return text;
}

std::vector<std::string> split_list(std::string_view text, char separator) {
  std::vector<std::string> parts;
  while (!text.empty()) {
    const size_t size = std::min(text.find(separator), text.size());
    if (size > 0) parts.emplace_back(text.substr(0, size));
    text.remove_prefix(std::min(size + 1, text.size()));
  }
  return parts;
}

}  // namespace helios::bench
