#include "helios/pool/state_probe.h"

#include <algorithm>
#include <array>
#include <optional>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/hex.h"

namespace helios {
namespace {

// Every name has its schema: the session's search_path is the client's. Values come in the encoding
// of the database, as digits: client_encoding is the client's, too.
constexpr std::string_view hex_begin = "pg_catalog.encode(pg_catalog.convert_to(";
constexpr std::string_view hex_end = ",pg_catalog.getdatabaseencoding()),'hex')";
// A statement is sent again as it was sent: in the encoding of the client.
constexpr std::string_view statements_query =
    "SELECT 'p',pg_catalog.encode(pg_catalog.convert_to(name,"
    "pg_catalog.pg_client_encoding()),'hex'),pg_catalog.encode(pg_catalog.convert_to(statement,"
    "pg_catalog.pg_client_encoding()),'hex') FROM pg_catalog.pg_prepared_statements WHERE from_sql";

// The kinds of rows: a letter, a name, a value.
constexpr char is_setting = 's';
constexpr char is_defined = 'd';  // By a library, and not set: no custom one any more.
constexpr char is_custom = 'c';
constexpr char is_role = 'r';
constexpr char is_base_role = 'b';
constexpr char is_held = 'h';
constexpr char is_prepared = 'p';  // Its name is in digits, too.
constexpr char is_channel = 'l';

struct Holding {
  PinReason reason;
  std::string_view name;
  std::string_view exists;  // A query that has a row where it is held.
};

constexpr Holding all_holdings[] = {
    // Whatever is in a schema depends on it; by that the server itself finds what to drop.
    {PinReason::temporary, "temporary",
     "FROM pg_catalog.pg_depend WHERE refclassid OPERATOR(pg_catalog.=) 2615 AND refobjid "
     "OPERATOR(pg_catalog.=) pg_catalog.pg_my_temp_schema()"},
    {PinReason::cursor, "cursor", "FROM pg_catalog.pg_cursors WHERE is_holdable"},
    {PinReason::lock, "lock",
     "FROM pg_catalog.pg_locks WHERE locktype OPERATOR(pg_catalog.=) 'advisory' AND pid "
     "OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"},
    {PinReason::slot, "slot",
     "FROM pg_catalog.pg_get_replication_slots() WHERE temporary AND active_pid "
     "OPERATOR(pg_catalog.=) pg_catalog.pg_backend_pid()"},
};

void append_role(std::string& out, char kind) {
  out += "SELECT '";
  out += kind;
  out += "','role',";
  out += hex_begin;
  out += "pg_catalog.current_setting('role')";
  out += hex_end;
}

// A column of a DataRow, taken off its front; nothing: the row is malformed. NULL is `is_null`.
struct Column {
  std::string_view text;
  bool is_null = false;
};
std::optional<Column> take_column(ByteSpan& row) {
  if (row.size() < 4) return std::nullopt;
  const uint32_t size = load_be32(row.data());
  row = row.subspan(4);
  if (size == 0xffffffff) return Column{{}, true};
  if (size > row.size()) return std::nullopt;
  const Column column{as_text(row.first(size)), false};
  row = row.subspan(size);
  return column;
}

// Those of a transaction have no value between two.
bool is_of_transaction(std::string_view name) {
  return name == "transaction_isolation" || name == "transaction_read_only" ||
         name == "transaction_deferrable";
}

}  // namespace

std::string StateProbe::statement() const {
  if (!asks_settings) return std::string(statements_query);
  std::string text = "SELECT 's',name,";
  text += hex_begin;
  text += "setting";
  text += hex_end;
  text += " FROM pg_catalog.pg_settings WHERE source OPERATOR(pg_catalog.=) 'session'";
  if (!custom_names.empty())
    text +=
        " UNION ALL SELECT 'd',name,'' FROM pg_catalog.pg_settings WHERE name "
        "OPERATOR(pg_catalog.~~) '%.%' AND source OPERATOR(pg_catalog.<>) 'session'";
  for (const std::string& name : custom_names) {
    text += " UNION ALL SELECT 'c',";
    append_literal(text, name);
    text += ',';
    text += hex_begin;
    text += "pg_catalog.current_setting(";
    append_literal(text, name);
    text += ",true)";
    text += hex_end;
  }
  for (const Holding& holding : all_holdings) {
    if (!asks_holdings) break;
    text += " UNION ALL SELECT 'h','";
    text += holding.name;
    text += "','' WHERE EXISTS (SELECT ";
    text += holding.exists;
    text += ')';
  }
  if (asks_statements) {
    text += " UNION ALL ";
    text += statements_query;
  }
  if (asks_holdings)
    text +=
        " UNION ALL SELECT 'l',channel,'' FROM pg_catalog.pg_listening_channels() AS l(channel)";
  if (!asks_role) return text;
  text += " UNION ALL ";
  append_role(text, is_role);
  // What RESET leads to is seen by doing it.
  text += ";BEGIN;RESET SESSION AUTHORIZATION;RESET ROLE;";
  append_role(text, is_base_role);
  text += ";ROLLBACK";
  return text;
}

void StateProbe::add_row(ByteSpan body) {
  if (body.size() < 2 || load_be16(body.data()) != 3) return fail();
  body = body.subspan(2);
  std::array<Column, 3> columns;
  for (Column& column : columns) {
    const std::optional<Column> taken = take_column(body);
    if (!taken.has_value()) return fail();
    column = *taken;
  }
  const auto& [kind, name, value] = columns;
  std::optional<std::string> bytes = from_hex(value.text);
  if (kind.text.size() != 1 || name.is_null || !bytes.has_value()) return fail();
  if (!value.is_null) add(kind.text.front(), name.text, *std::move(bytes));
}

void StateProbe::add(char kind, std::string_view name, std::string value) {
  switch (kind) {
    case is_setting:
      if (!is_of_transaction(name)) found_.emplace_back(name, std::move(value));
      return;
    case is_defined:
      defined_.emplace_back(name, std::string());
      return;
    case is_custom:
      if (value.empty() && has_reset) return;
      // A library that defines it makes it one of the others.
      if (find_parameter(found_, name) == nullptr && find_parameter(defined_, name) == nullptr)
        found_.emplace_back(name, std::move(value));
      return;
    case is_role:
      role_ = std::move(value);
      return;
    case is_base_role:
      base_role_ = std::move(value);
      return;
    case is_prepared: {
      std::optional<std::string> bytes = from_hex(name);
      if (!bytes.has_value()) return fail();
      const auto is_before = [](const SqlStatement& one, const std::string& other) {
        return one.name < other;
      };
      const auto place =
          std::lower_bound(statements_.begin(), statements_.end(), *bytes, is_before);
      statements_.insert(place, {*bytes, std::move(value), {}});
      return;
    }
    case is_held:
      for (const Holding& holding : all_holdings)
        if (name == holding.name) holdings_ |= pin_bit(holding.reason);
      return;
    case is_channel:
      holdings_ |= pin_bit(PinReason::listening);
      channels_.emplace_back(name);
      return;
    default:
      return fail();
  }
}

ParameterList StateProbe::settings(const ParameterList& reported) const {
  ParameterList settings;
  for (const auto& parameter : found_)
    if (find_parameter(reported, parameter.first) == nullptr) settings.push_back(parameter);
  if (asks_role && role_ != base_role_) settings.emplace_back("role", role_);
  std::sort(settings.begin(), settings.end());
  return settings;
}

}  // namespace helios
