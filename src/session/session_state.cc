#include "helios/session/session_state.h"

#include <algorithm>

#include "helios/base/assert.h"
#include "helios/wire/crypto.h"

namespace helios {
namespace {

// What a server is asked about when it may have changed.
constexpr uint32_t asked_effects =
    sql_effect::setting | sql_effect::role | sql_effect::temporary | sql_effect::cursor |
    sql_effect::lock | sql_effect::listening | sql_effect::unseen | sql_effect::reset |
    sql_effect::reported | sql_effect::prepares | sql_effect::ends | sql_effect::slot |
    sql_effect::origin | sql_effect::origin_end | sql_effect::backup | sql_effect::backup_end |
    sql_effect::seed | sql_effect::dblink;
constexpr uint32_t holding_effects = sql_effect::temporary | sql_effect::cursor | sql_effect::lock |
                                     sql_effect::listening | sql_effect::unseen | sql_effect::slot;

// What a rollback does not undo.
constexpr uint32_t staying_effects = sql_effect::lock | sql_effect::unseen | sql_effect::prepares |
                                     sql_effect::slot | sql_effect::origin | sql_effect::backup |
                                     sql_effect::seed | sql_effect::dblink;

constexpr PinReasons held_reasons = pin_bit(PinReason::temporary) | pin_bit(PinReason::cursor) |
                                    pin_bit(PinReason::lock) | pin_bit(PinReason::listening) |
                                    pin_bit(PinReason::slot);

// Those of which no server tells.
constexpr uint32_t told_effects = sql_effect::origin | sql_effect::origin_end | sql_effect::backup |
                                  sql_effect::backup_end | sql_effect::seed | sql_effect::dblink;
constexpr PinReasons told_reasons = pin_bit(PinReason::origin) | pin_bit(PinReason::backup) |
                                    pin_bit(PinReason::seed) | pin_bit(PinReason::dblink);

PinReasons pins_of(uint32_t effects) {
  PinReasons pins = 0;
  const auto add = [&](uint32_t bit, PinReason reason) {
    if ((effects & (bit | sql_effect::unseen)) != 0) pins |= pin_bit(reason);
  };
  add(sql_effect::temporary, PinReason::temporary);
  add(sql_effect::cursor, PinReason::cursor);
  add(sql_effect::lock, PinReason::lock);
  add(sql_effect::listening, PinReason::listening);
  if ((effects & sql_effect::slot) != 0) pins |= pin_bit(PinReason::slot);
  return pins;
}

// Names of parameters are compared without case.
std::string lower_case(std::string_view name) {
  std::string lower(name);
  for (char& c : lower)
    if (c >= 'A' && c <= 'Z') c = static_cast<char>(c - 'A' + 'a');
  return lower;
}

}  // namespace

SessionState::Details& SessionState::details() {
  if (details_ == nullptr) details_ = std::make_unique<Details>();
  return *details_;
}

void SessionState::add(const SqlEffects& effects, bool is_executed) {
  if (effects.has(sql_effect::prepares)) details().prepared_effects |= effects.bits;
  add_names(effects);
  add_bits(effects.bits);
  if (is_executed) note_literals(effects.bits);
}

void SessionState::add_bits(uint32_t bits) {
  if (bits == 0) return;
  Details& own = details();
  if ((bits & sql_effect::executes) != 0) bits |= own.prepared_effects & ~sql_effect::prepares;
  if ((bits & sql_effect::unseen) != 0) own.is_dirty = true;
  // Without anything that is held nothing can end.
  if (!may_hold()) bits &= ~sql_effect::ends;
  note_told(bits);
  own.pending |= bits & asked_effects;
}

void SessionState::note_error() {
  // PostgreSQL drops a session's temporary slots then.
  if (has_pin(PinReason::slot)) details_->pending |= sql_effect::ends;
  if (must_ask()) details_->has_failed = true;
}

// Of a text that begins and ends it the order is not known: it may be there.
void SessionState::note_told(uint32_t bits) {
  const auto note = [&](uint32_t begin, uint32_t end, PinReason reason) {
    if ((bits & begin) != 0) {
      details_->told_pins |= pin_bit(reason);
      details_->begun_pins |= pin_bit(reason);
    } else if ((bits & end) != 0) {
      details_->told_pins &= static_cast<PinReasons>(~pin_bit(reason));
    }
  };
  note(sql_effect::origin, sql_effect::origin_end, PinReason::origin);
  note(sql_effect::backup, sql_effect::backup_end, PinReason::backup);
  // These have no end: a seed leaves random() as it is, and of connections there may be several.
  note(sql_effect::seed, 0, PinReason::seed);
  note(sql_effect::dblink, 0, PinReason::dblink);
}

// Where something has failed it is not known what has ended.
void SessionState::settle_told() {
  Details& own = *details_;
  if (std::exchange(own.has_failed, false))
    own.told_pins |= own.begun_pins | (own.pins & told_reasons);
  own.begun_pins = 0;
}

void SessionState::note_literals(uint32_t bits) {
  if ((bits & sql_effect::hidden) != 0) {
    start_own_context(Known::when_settled);
  } else if ((bits & (sql_effect::literals | sql_effect::unseen | sql_effect::executes)) != 0) {
    start_own_context(Known::when_reported);
  }
}

// With each change another one: nobody has parsed anything in it.
void SessionState::start_own_context(Known until) {
  random_bytes(details().own_context);
  details_->own_context_until = std::max(details_->own_context_until, until);
}

void SessionState::add_names(const SqlEffects& effects) {
  for (size_t i = 0; i < effects.names_count; ++i) {
    std::vector<std::string>& names = details().custom_names;
    std::string name = lower_case(effects.names[i]);
    if (std::find(names.begin(), names.end(), name) != names.end()) continue;
    if (names.size() == names_max) {
      details().is_dirty = true;  // It is cleaned away instead.
      return;
    }
    names.push_back(std::move(name));
  }
}

void SessionState::add_statement(uint64_t name, const SqlEffects& effects) {
  const auto is_it = [&](const auto& statement) { return statement.first == name; };
  if (details_ != nullptr) std::erase_if(details_->statements, is_it);
  if (effects.bits == 0) return;
  auto& statements = details().statements;
  if (statements.size() == statements_max) {
    for (const auto& [other, bits] : statements) details_->any_effects |= bits;
    statements.clear();
  }
  statements.emplace_back(name, effects.bits);
}

void SessionState::on_bind(uint64_t name) {
  ASSERT(details_ != nullptr);
  execute(details_->any_effects);
  for (const auto& [statement, bits] : details_->statements)
    if (statement == name) execute(bits);
}

void SessionState::on_unknown_bind() {
  ASSERT(details_ != nullptr);
  execute(details_->any_effects);
  for (const auto& [statement, bits] : details_->statements) execute(bits);
}

void SessionState::execute(uint32_t bits) {
  add_bits(bits);
  note_literals(bits);
}

std::unique_ptr<StateProbe> SessionState::ask() {
  ASSERT(must_ask());
  ASSERT(!is_asking());
  Details& own = *details_;
  own.asked = std::exchange(own.pending, uint32_t{0});
  own.is_asking = true;
  own.has_stayed = false;
  auto probe = std::make_unique<StateProbe>();
  probe->custom_names = own.custom_names;
  probe->asks_settings = (own.asked & ~(sql_effect::prepares | sql_effect::ends)) != 0 ||
                         (own.pins & held_reasons) != 0;
  probe->asks_role = (own.asked & (sql_effect::role | sql_effect::unseen)) != 0;
  probe->asks_holdings = (own.asked & holding_effects) != 0 || (own.pins & held_reasons) != 0;
  probe->asks_statements = own.may_prepare(own.asked);
  probe->has_reset = (own.asked & sql_effect::reset) != 0;
  return probe;
}

bool SessionState::may_have_prepared() const noexcept {
  return has_pin(PinReason::statement) ||
         (details_ != nullptr && details_->may_prepare(details_->open_effects()));
}

void SessionState::on_answer(const StateProbe& probe, PinReasons reasons) noexcept {
  ASSERT(is_asking());
  Details& own = *details_;
  own.is_asking = false;
  if (probe.has_failed() && ++own.attempts_count < attempts_max) {
    own.pending |= own.asked;
    own.has_stayed = true;
    return;
  }
  own.attempts_count = 0;
  PinReasons asked_pins = pin_bit(PinReason::setting);
  if (probe.asks_statements) asked_pins |= pin_bit(PinReason::statement);
  PinReasons pins = own.pins & static_cast<PinReasons>(~asked_pins);
  if (probe.asks_statements && !probe.has_failed()) own.has_prepared = !probe.statements().empty();
  if (probe.has_failed()) {
    own.is_dirty = own.is_unknown = true;
    start_own_context(Known::when_settled);
    pins |= pins_of(own.asked);
    if (probe.asks_statements) pins |= pin_bit(PinReason::statement);
  } else if (probe.asks_holdings) {
    pins = static_cast<PinReasons>((pins & ~held_reasons) | probe.holdings());
  }
  // Not before everything is answered.
  if ((own.pending & told_effects) != 0) {
    reasons |= own.pins & told_reasons;
  } else {
    settle_told();
  }
  pins = static_cast<PinReasons>((pins & ~told_reasons) | own.told_pins | reasons);
  own.pins = pins;
}

void SessionState::on_released() noexcept {
  if (details_ == nullptr) return;
  details_->pending = 0;
  details_->pins = details_->told_pins = details_->begun_pins = 0;
  details_->attempts_count = 0;
  details_->own_context_until = Known::now;
  details_->has_failed = false;
  details_->is_asking = false;
  details_->is_dirty = false;
  details_->is_unknown = false;
  details_->has_stayed = false;
}

bool SessionState::outlives_rollback(bool is_block) const noexcept {
  if (details_ == nullptr) return false;
  if (details_->is_asking || (details_->has_stayed && details_->pending != 0)) return true;
  if ((details_->pending & sql_effect::ends) != 0 && details_->has_prepared) return true;
  return is_block && (details_->pending & staying_effects) != 0;
}

}  // namespace helios
