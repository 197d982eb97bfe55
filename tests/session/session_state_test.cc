#include "helios/session/session_state.h"

#include <doctest/doctest.h>

namespace helios {
namespace {

SqlEffects effects(uint32_t bits) {
  SqlEffects made;
  made.bits = bits;
  return made;
}

TEST_CASE("effects are asked about once, and only those that matter") {
  SessionState state;
  state.add(effects(0));
  state.add(effects(sql_effect::ends));
  state.add(effects(sql_effect::library));
  CHECK(!state.must_ask());
  state.add(effects(sql_effect::setting));
  CHECK(state.must_ask());
  CHECK(state.is_dirty());
  const auto probe = state.ask();
  CHECK(!state.must_ask());
  CHECK(state.is_asking());
  CHECK(!probe->asks_role);
  CHECK(!probe->asks_holdings);
  state.on_answer(*probe, false);
  CHECK(state.pins() == 0);
  CHECK(!state.is_dirty());
}

TEST_CASE("what may have changed meanwhile is asked about again") {
  SessionState state;
  state.add(effects(sql_effect::setting));
  const auto first = state.ask();
  state.add(effects(sql_effect::lock));
  state.on_answer(*first, false);
  CHECK(state.must_ask());
  CHECK(state.ask()->asks_holdings);
}

TEST_CASE("names are asked for in lower case, each once, up to a bound") {
  SessionState state;
  SqlEffects one = effects(sql_effect::setting);
  one.add_name("App.X");
  one.add_name("app.x");
  state.add(one);
  CHECK(state.ask()->custom_names == std::vector<std::string>{"app.x"});
  SessionState many;
  for (int i = 0; i < 64; ++i) {
    SqlEffects next = effects(sql_effect::setting);
    const std::string name = "a.x" + std::to_string(i);
    next.add_name(name);
    many.add(next);
  }
  const auto probe = many.ask();
  many.on_answer(*probe, false);
  CHECK(probe->custom_names.size() == 64);
  CHECK(!many.is_dirty());
  SqlEffects more = effects(0);
  more.add_name("one.more");
  many.add(more);
  CHECK(many.is_dirty());
}

TEST_CASE("statements are told apart by their names, up to a bound") {
  SessionState state;
  state.add_statement(7, effects(sql_effect::setting));
  state.on_bind(8);
  CHECK(!state.must_ask());
  state.on_bind(7);
  CHECK(state.must_ask());
  (void)state.ask();
  // It has another text now.
  state.add_statement(7, effects(0));
  CHECK(!state.has_statements());
  for (uint64_t name = 1; name <= 300; ++name) state.add_statement(name, effects(sql_effect::lock));
  state.on_bind(1);
  CHECK(state.must_ask());
}

TEST_CASE("a name that could not be read may be any") {
  SessionState state;
  state.add_statement(7, effects(sql_effect::setting));
  state.on_unknown_bind();
  CHECK(state.must_ask());
}

TEST_CASE("an answer that never comes leaves what may be held as a pin, and the backend dirty") {
  SessionState state;
  state.add(effects(sql_effect::lock));
  for (int i = 0; i < 2; ++i) {
    const auto probe = state.ask();
    probe->fail();
    state.on_answer(*probe, false);
    CHECK(state.pins() == 0);
    CHECK(state.must_ask());
  }
  const auto probe = state.ask();
  probe->fail();
  state.on_answer(*probe, false);
  CHECK(state.pins() == pin_bit(PinReason::lock));
  CHECK(!state.must_ask());
  CHECK(state.is_dirty());
  state.on_released();
  CHECK(state.pins() == 0);
  CHECK(!state.is_dirty());
}

// Of which the texts alone tell.
struct Told {
  uint32_t begin, end;
  PinReason reason;
};
constexpr Told all_told[] = {{sql_effect::origin, sql_effect::origin_end, PinReason::origin},
                             {sql_effect::backup, sql_effect::backup_end, PinReason::backup}};

// The next answer of the server: what it began to pin.
PinReasons settle(SessionState& state) {
  REQUIRE(state.must_ask());
  const PinReasons before = state.pins();
  state.on_answer(*state.ask(), 0);
  return static_cast<PinReasons>(state.pins() & ~before);
}

TEST_CASE("what no server tells pins from its beginning to its end, as the texts say") {
  for (const auto& [begin, end, reason] : all_told) {
    SessionState state;
    state.add(effects(begin));
    CHECK(state.must_end());
    CHECK(settle(state) == pin_bit(reason));
    state.add(effects(sql_effect::lock));
    CHECK(settle(state) == 0);
    CHECK(state.has_pin(reason));
    state.add(effects(end));
    CHECK(settle(state) == 0);
    CHECK(state.pins() == 0);
    CHECK(!state.must_end());
    // In one transaction.
    state.add(effects(begin));
    state.add(effects(end));
    CHECK(settle(state) == 0);
    CHECK(state.pins() == 0);
    state.add(effects(end));
    state.add(effects(begin));
    CHECK(settle(state) == pin_bit(reason));
    state.on_released();
    CHECK(!state.must_end());
  }
}

TEST_CASE("what no server tells stays a pin where it is not known to have ended") {
  for (const auto& [begin, end, reason] : all_told) {
    SessionState state;
    // Both in one text.
    state.add(effects(begin | end));
    CHECK(settle(state) == pin_bit(reason));
    // Something has failed.
    state.add(effects(end));
    state.on_error();
    (void)settle(state);
    CHECK(state.has_pin(reason));
    // While the server is asked about something else.
    state.add(effects(sql_effect::lock));
    const auto probe = state.ask();
    state.add(effects(end));
    state.on_answer(*probe, 0);
    CHECK(state.has_pin(reason));
    state.on_error();
    (void)settle(state);
    CHECK(state.has_pin(reason));
    state.add(effects(end));
    (void)settle(state);
    CHECK(state.pins() == 0);
    // Begun and ended, and one of them has failed.
    state.add(effects(begin));
    state.add(effects(end));
    state.on_error();
    CHECK(settle(state) == pin_bit(reason));
  }
}

TEST_CASE("what is prepared in SQL counts when it is executed") {
  SessionState state;
  state.add(effects(sql_effect::executes));
  CHECK(!state.must_ask());
  state.add(effects(sql_effect::prepares | sql_effect::setting));
  state.on_answer(*state.ask(), false);
  state.add(effects(sql_effect::executes));
  CHECK(state.must_ask());
  state.on_answer(*state.ask(), false);
  state.add_statement(0, effects(sql_effect::executes));
  state.on_bind(0);
  CHECK(state.must_ask());
}

}  // namespace
}  // namespace helios
