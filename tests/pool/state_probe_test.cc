#include "helios/pool/state_probe.h"

#include <doctest/doctest.h>

#include <optional>
#include <string>

namespace helios {
namespace {

using Value = std::optional<std::string>;

std::string row(const std::vector<Value>& columns) {
  std::string body{'\0', static_cast<char>(columns.size())};
  for (const Value& column : columns) {
    const uint32_t size = column.has_value() ? static_cast<uint32_t>(column->size()) : 0xffffffff;
    for (int shift = 24; shift >= 0; shift -= 8) body += static_cast<char>(size >> shift);
    body += column.value_or("");
  }
  return body;
}

void add(StateProbe& probe, const std::vector<Value>& columns) {
  probe.add_row(as_bytes(row(columns)));
}

bool contains(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("only what may have changed is asked") {
  StateProbe probe;
  CHECK(contains(probe.statement(), "pg_catalog.pg_settings"));
  for (const std::string_view part : {"'c'", "'h'", "'r'", "BEGIN", "pg_locks"})
    CHECK(!contains(probe.statement(), part));
  probe.custom_names = {"app.x", "it's.y"};
  probe.asks_role = true;
  probe.asks_holdings = true;
  for (const std::string_view part :
       {"SELECT 'c','app.x',", "current_setting('it''s.y',true)", "'temporary'", "'cursor'",
        "'lock'", "'slot'", "pg_listening_channels()",
        ";BEGIN;RESET SESSION AUTHORIZATION;RESET ROLE;", ";ROLLBACK"})
    CHECK(contains(probe.statement(), part));
}

TEST_CASE("the settings of a session are those that its server does not report anyway") {
  StateProbe probe;
  add(probe, {"s", "work_mem", "3634"});
  add(probe, {"s", "TimeZone", "555443"});
  add(probe, {"s", "transaction_isolation", "78"});
  add(probe, {"s", "transaction_timeout", "39"});
  add(probe, {"c", "app.x", "c3a9"});
  add(probe, {"c", "app.y", std::nullopt});
  add(probe, {"c", "app.z", ""});
  CHECK(!probe.has_failed());
  CHECK(probe.settings({{"timezone", "UTC"}}) == ParameterList{{"app.x", "\xc3\xa9"},
                                                               {"app.z", ""},
                                                               {"transaction_timeout", "9"},
                                                               {"work_mem", "64"}});
  CHECK(probe.holdings() == 0);
}

TEST_CASE("behind a RESET, empty custom parameters are not set") {
  StateProbe probe;
  probe.has_reset = true;
  add(probe, {"c", "app.x", ""});
  add(probe, {"c", "app.y", "31"});
  add(probe, {"s", "search_path", ""});
  CHECK(probe.settings({}) == ParameterList{{"app.y", "1"}, {"search_path", ""}});
}

TEST_CASE("a custom parameter that a library has defined is told once") {
  StateProbe probe;
  add(probe, {"s", "auto_explain.log_nested_loops", "6f6e"});
  add(probe, {"d", "auto_explain.log_format", ""});
  add(probe, {"c", "auto_explain.log_nested_loops", "6f6e"});
  add(probe, {"c", "auto_explain.log_format", "74657874"});
  CHECK(probe.settings({}) == ParameterList{{"auto_explain.log_nested_loops", "on"}});
  CHECK(probe.is_set("auto_explain.log_nested_loops"));
  CHECK(!probe.is_set("auto_explain.log_format"));
}

TEST_CASE("a role counts when it is another than RESET leads to") {
  for (const bool is_other : {false, true}) {
    StateProbe probe;
    probe.asks_role = true;
    add(probe, {"r", "role", "6d65"});
    add(probe, {"b", "role", is_other ? "6e6f6e65" : "6d65"});
    CHECK(probe.settings({}) == (is_other ? ParameterList{{"role", "me"}} : ParameterList()));
  }
}

TEST_CASE("what is held is told by name") {
  StateProbe probe;
  add(probe, {"h", "lock", ""});
  add(probe, {"h", "temporary", ""});
  add(probe, {"h", "slot", ""});
  CHECK(probe.holdings() ==
        (pin_bit(PinReason::lock) | pin_bit(PinReason::temporary) | pin_bit(PinReason::slot)));
}

TEST_CASE("an answer that cannot be read is none") {
  const std::string good = row({"s", "work_mem", "3634"});
  for (size_t size = 0; size < good.size(); ++size) {
    StateProbe probe;
    probe.add_row(as_bytes(std::string_view(good).substr(0, size)));
    CHECK(probe.has_failed());
  }
  for (const std::vector<Value>& columns :
       {std::vector<Value>{"s", "work_mem"}, std::vector<Value>{"s", "a", "b", "c"},
        std::vector<Value>{"s", "work_mem", "3"}, std::vector<Value>{"s", "work_mem", "3G"},
        std::vector<Value>{"?", "work_mem", "34"}, std::vector<Value>{"ss", "work_mem", "34"},
        std::vector<Value>{"s", std::nullopt, "34"}}) {
    StateProbe probe;
    add(probe, columns);
    CHECK(probe.has_failed());
  }
}

}  // namespace helios
