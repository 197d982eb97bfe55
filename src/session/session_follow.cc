// What follows a client to another backend, and what keeps its backend with it: the texts that it
// sends, the questions to the server, and what they lead to (session_state.h).
#include <algorithm>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"
#include "session/session_listening.h"
#include "session/session_statements.h"

namespace helios {
namespace {

// Functions that a FunctionCall may name without a second look, by their fixed numbers (pg_proc):
// those of large objects, which end with their transaction.
bool is_harmless_function(uint32_t number) {
  constexpr uint32_t harmless[] = {715, 764, 767, 952,  953,  954,  955, 956,
                                   957, 958, 964, 1004, 3170, 3171, 3172};
  for (const uint32_t known : harmless)
    if (known == number) return true;
  return false;
}

// So much of a long text is looked at together, at least.
constexpr size_t text_begin_min = 1024;

// What is looked after where the rest is only warned of: the names of statements are the client's
// own, and so are its literals.
constexpr uint32_t warned_effects =
    sql_effect::prepares | sql_effect::ends | sql_effect::literals | sql_effect::hidden;

constexpr SqlEffects unknown_effects() {
  SqlEffects effects;
  effects.bits = sql_effect::unseen;
  return effects;
}

// For the log, and for who is refused. Null: nothing of that kind.
const char* name_of(const SqlEffects& effects, bool with_settings) {
  if (effects.has(sql_effect::temporary)) return "a temporary table";
  if (effects.has(sql_effect::cursor)) return "a cursor WITH HOLD";
  if (effects.has(sql_effect::lock)) return "an advisory lock of the session";
  if (effects.has(sql_effect::listening)) return "LISTEN";
  if (effects.has(sql_effect::library)) return "LOAD";
  if (effects.has(sql_effect::origin)) return "a replication origin of the session";
  if (effects.has(sql_effect::backup)) return "a backup";
  if (effects.has(sql_effect::seed)) return "a seed of random()";
  if (effects.has(sql_effect::dblink)) return "a connection of dblink";
  if (!with_settings) return nullptr;
  if (effects.has(sql_effect::role)) return "SET of a role";
  const bool is_set = effects.has(sql_effect::setting) && !effects.has(sql_effect::reset);
  return is_set ? "SET of a parameter that the server does not report" : nullptr;
}

// What matters in session mode, where everything else stays on the backend.
SqlEffects of_reset(const SqlEffects& effects) {
  SqlEffects heeded;
  if (effects.has(sql_effect::reset))
    heeded.bits = effects.bits & (sql_effect::reset | sql_effect::reported);
  return heeded;
}

std::string refusal(const char* what) {
  return std::string(what) +
         " would keep a server connection, which this pool does not allow (session_state = "
         "\"refuse\")";
}

}  // namespace

// The texts of this message tell something that matters here.
bool Session::reads_text(uint8_t tag) const noexcept {
  // There only RESET matters, and only to who has not begun with what the server resets to.
  if (mode() == LeaseMode::session && first_parameters_ == pool_->welcome_set) return false;
  return tag == frontend_tag::query || tag == frontend_tag::parse ||
         tag == frontend_tag::function_call ||
         (tag == frontend_tag::bind && session_state_.has_statements());
}

// `seen`: the body of the message that is about to begin, or its beginning.
[[gnu::hot]] void Session::note_sequences(uint8_t tag, ByteSpan seen) noexcept {
  const bool is_text = tag == frontend_tag::query || tag == frontend_tag::parse;
  if (!is_text || mode() == LeaseMode::session || !may_ask_sequences(as_text(seen))) return;
  if (pool_->slice.spec().limits.follows_state()) session_state_.on_sequences();
}

// A piece of the body of such a message, also an empty one.
[[gnu::hot]] void Session::read_text(ByteSpan piece) noexcept {
  const FrameHeader& header = reader_.header();
  const bool is_last = reader_.body_left() == 0;
  if (piece.empty() && !is_last) return;
  const bool is_first = !std::exchange(is_in_text_, !is_last);
  if (is_first && is_last) return read_body(as_text(piece));
  // Behind the names in a Bind follow its values, which may be long.
  if (is_first && header.tag == frontend_tag::bind) {
    is_reading_text_ = is_in_text_ = false;
    return read_body(as_text(piece));
  }
  if (header.body_size > SessionState::text_size_max)
    return screen_text(as_text(piece), is_first, is_last);
  session_state_.keep_text(as_text(piece));
  if (is_last) read_body(session_state_.take_text());
}

// Of a text that is too long to be kept.
void Session::screen_text(std::string_view piece, bool is_first, bool is_last) noexcept {
  TextScreen& screen = session_state_.screen();
  if (is_first) screen.start();
  std::string begin;
  if (!screen.has_begun()) {
    // Its first word has to be seen whole, behind the name in a Parse: as a rule it is.
    if (session_state_.text_size() > 0 || piece.size() < text_begin_min) {
      session_state_.keep_text(piece);
      if (session_state_.text_size() < text_begin_min && !is_last) return;
      begin = session_state_.take_text();
      piece = begin;
    }
    if (reader_.header().tag == frontend_tag::parse)
      piece.remove_prefix(std::min(piece.find('\0') + 1, piece.size()));
  }
  screen.add(piece, is_last, harmless_functions());
  if (!is_last || screen.is_harmless()) return;
  if (reader_.header().tag == frontend_tag::parse)
    return note_statement(name_reader_.name(), unknown_effects());
  note_effects(unknown_effects());
}

[[gnu::hot]] void Session::read_body(std::string_view body) noexcept {
  switch (reader_.header().tag) {
    case frontend_tag::query:
      if (!is_harmless(body)) note_effects(effects_of_text(body));
      return;
    case frontend_tag::parse: {
      const size_t end = body.find('\0');
      if (end == std::string_view::npos) return;  // The server refuses it.
      const uint64_t name = end == 0 ? 0 : hash_name(body.substr(0, end));
      const std::string_view text = body.substr(end + 1);
      const std::string_view statement = text.substr(0, text.find('\0'));
      return note_statement(
          name, name == 0 ? effects_of_text(statement) : effects_of_statement(statement));
    }
    case frontend_tag::bind: {
      const size_t end = body.find('\0');
      const size_t begin = end == std::string_view::npos ? end : end + 1;
      const size_t name_end = begin > body.size() ? begin : body.find('\0', begin);
      if (name_end == std::string_view::npos) return session_state_.on_unknown_bind();
      return session_state_.on_bind(
          name_end == begin ? 0 : hash_name(body.substr(begin, name_end - begin)));
    }
    case frontend_tag::function_call:
      if (body.size() < 4 || is_harmless_function(load_be32(as_bytes(body).data()))) return;
      return note_effects(unknown_effects());
    default:
      UNREACHABLE("a message whose text is not read");
  }
}

// Whatever makes a table makes it there.
[[gnu::hot]] bool Session::makes_temporary() const noexcept {
  const std::string* path = find_parameter(parameters_->settings(), "search_path");
  return path != nullptr && path->starts_with("pg_temp");
}

// As a rule a quick look at the text tells that it has no effect here.
bool Session::is_harmless(std::string_view text) const noexcept {
  return !session_state_.may_hold() && is_plainly_harmless(text, harmless_functions()) &&
         !makes_temporary();
}

[[gnu::hot]] SqlEffects Session::effects_of_text(std::string_view text) const noexcept {
  if (is_harmless(text)) return {};
  return effects_of_statement(text);
}

// Of one that is bound at another time, when there may be something that it ends.
SqlEffects Session::effects_of_statement(std::string_view text) const noexcept {
  SqlEffects effects = effects_of(text, has_standard_strings(), harmless_functions());
  if (makes_temporary()) effects.bits |= sql_effect::temporary;
  return effects;
}

bool Session::has_standard_strings() const noexcept {
  const std::string* standard = find_parameter(parameters_->list(), "standard_conforming_strings");
  return standard == nullptr || *standard != "off";
}

// The same for statements that follow their clients, whose messages do not go to the server as they
// are (session_statements.cc).
void Session::note_parsed(std::string_view name, std::string_view text) noexcept {
  note_statement(hash_name(name), effects_of_statement(text));
}

void Session::note_bound(std::string_view name) noexcept {
  session_state_.on_bind(hash_name(name));
}

[[gnu::hot]] void Session::note_statement(uint64_t name, const SqlEffects& effects) noexcept {
  const bool is_session_mode = mode() == LeaseMode::session;
  const SqlEffects heeded = is_session_mode ? of_reset(effects) : effects;
  if ((is_session_mode || policy() != StatePolicy::warn) &&
      (heeded.bits != 0 || session_state_.has_statements()))
    session_state_.add_statement(name, heeded);
  note_effects(effects, false);
}

void Session::note_effects(const SqlEffects& effects, bool is_executed) noexcept {
  if (effects.bits == 0) return;
  if (mode() == LeaseMode::session) return session_state_.add(of_reset(effects), is_executed);
  if (policy() == StatePolicy::warn) {
    if (const char* what = name_of(effects, true); what != nullptr) warn_unfollowed(what);
    SqlEffects heeded;
    heeded.bits = effects.bits & warned_effects;
    return session_state_.add(heeded, is_executed);
  }
  const char* what = name_of(effects, false);
  if (policy() == StatePolicy::refuse && what != nullptr) {
    // Within a transaction, or behind others of its batch: what was done has to be undone.
    abandon_backend("refused");
    return fail(sqlstate::feature_not_supported, refusal(what));
  }
  session_state_.add(effects, is_executed);
}

// A message of a client without a backend that is answered with an error, and dropped. `seen`: what
// has come of its body.
bool Session::refuse(uint8_t tag, ByteSpan seen) noexcept {
  ASSERT(backend_ == nullptr);
  if (policy() != StatePolicy::refuse || mode() == LeaseMode::session) return false;
  if (tag != frontend_tag::query && tag != frontend_tag::parse) return false;
  if (seen.size() < reader_.header().body_size) return false;  // note_effects sees all of it.
  std::string_view text = as_text(seen);
  if (tag == frontend_tag::parse) text.remove_prefix(std::min(text.find('\0') + 1, text.size()));
  const char* what = name_of(effects_of_text(text), false);
  if (what == nullptr) return false;
  MessageWriter& writer = sessions_.pools().writer();
  write_error(writer, Severity::error, sqlstate::feature_not_supported, refusal(what));
  stream_.send(writer.bytes());
  skip_ = tag == frontend_tag::query ? Skip::query : Skip::batch;
  drop_unnamed(tag, seen);
  return true;
}

// The transaction is over. True: the server is asked what it has left.
bool Session::ask_state() noexcept {
  if (!session_state_.must_ask() || draining_) return false;
  // A cancel request that may still arrive must not hit the question.
  if (backend_->cancels_in_flight() == 0) backend_->ask_state(session_state_.ask());
  return true;
}

void Session::on_state(const StateProbe& probe) noexcept {
  const bool is_known = !probe.has_failed();
  const ParameterSetRef told = parameters_;
  if (is_known) parameters_ = backend_->parameters();
  PinReasons pins = 0;
  if (is_known && probe.asks_statements && !follow_sql_statements(probe))
    pins |= pin_bit(PinReason::statement);
  if (is_known && probe.has_reset && state_ == State::leased) {
    restore_first(probe);
    tell_changed(*told);
  }
  if (mode() != LeaseMode::session && policy() == StatePolicy::pin &&
      parameters_->settings() != pool_->welcome.settings)
    pins |= pin_bit(PinReason::setting);
  session_state_.on_answer(probe, pins);
  note_channels(probe);
}

// RESET leads to what the session began with. On a backend that is what its own login said; it is
// set to the client's own with the next lease, or at once where it stays.
void Session::restore_first(const StateProbe& probe) noexcept {
  ParameterStore& store = sessions_.pools().parameters();
  ParameterList settings = parameters_->settings();
  for (const auto& [name, value] : first_parameters_->settings())
    if (find_parameter(settings, name) == nullptr) settings.emplace_back(name, value);
  std::sort(settings.begin(), settings.end());
  parameters_ = store.with_settings(parameters_, settings);
  if (!session_state_.has_reset_reported()) return;
  for (const auto& [name, value] : first_parameters_->list()) {
    const std::string* current = find_parameter(parameters_->list(), name);
    if (current == nullptr || *current == value || probe.is_set(name)) continue;
    if (equal_names(name, "session_authorization")) continue;
    parameters_ = store.with(parameters_, name, value);
  }
}

// While it is not known what a RESET has done: the server tells of what its session began with, and
// there are drivers that end when they hear of a client_encoding or DateStyle other than their own.
bool Session::tells_parameters() const noexcept {
  return session_state_.awaits_reset() && state_ == State::leased &&
         first_parameters_ != pool_->welcome_set;
}

// What the client is told of a value that the server reports then: where it looks like that of
// RESET, what RESET leads to for the client.
std::string_view Session::value_behind_reset(std::string_view name,
                                             std::string_view value) const noexcept {
  const std::string* first = find_parameter(first_parameters_->list(), name);
  const std::string* initial = find_parameter(pool_->welcome_set->list(), name);
  return first != nullptr && initial != nullptr && value == *initial ? *first : value;
}

// The client is told what its parameters are where that differs from what it has been `told`.
void Session::tell_changed(const ParameterSet& told) noexcept {
  MessageWriter& writer = sessions_.pools().writer();
  for (const auto& [name, value] : parameters_->list()) {
    const std::string* old = find_parameter(told.list(), name);
    if (old != nullptr && *old != value) write_parameter_status(writer, name, value);
  }
  stream_.send(writer.bytes());
}

// What PREPARE has made follows the client by being sent again. False: there is something that
// cannot be, and so has to stay where it is, with all the others.
bool Session::follow_sql_statements(const StateProbe& probe) noexcept {
  const SqlStatements& known = parameters_->statements();
  SqlStatements statements = probe.statements();
  size_t size = statements_ == nullptr ? 0 : statements_->names.bytes();
  bool can_follow = follows_statements_ && policy() != StatePolicy::pin;
  for (SqlStatement& statement : statements) {
    const auto is_same = [&](const SqlStatement& other) {
      return other.name == statement.name && other.text == statement.text;
    };
    const auto old = std::find_if(known.begin(), known.end(), is_same);
    statement.context = old == known.end() ? parse_context() : old->context;
    size += statement.name.size() + statement.text.size();
    if (!is_single_prepare(statement.text, has_standard_strings())) can_follow = false;
  }
  if (size > pool_->slice.spec().limits.max_client_statements_size) can_follow = false;
  const bool is_pinned = !can_follow && !statements.empty();
  if (is_pinned) statements.clear();
  backend_->set_sql_statements(statements);
  parameters_ = sessions_.pools().parameters().with_statements(parameters_, statements);
  return !is_pinned;
}

// The backend stays: why, as far as that is known.
[[gnu::hot]] void Session::note_pins() noexcept {
  if (mode() == LeaseMode::session) return;
  PinReasons reasons = session_state_.pins();
  if (!names_.empty()) reasons |= pin_bit(PinReason::statement);
  // What it listens to is a reason when no hub can take it.
  if (listening_ != nullptr && listening_->is_known && !listening_->is_late)
    reasons &= static_cast<PinReasons>(~pin_bit(PinReason::listening));
  backend_->set_pins(reasons, sessions_.process_id_of(*this));
}

[[gnu::hot]] Cleaning Session::cleaning_needed() const noexcept {
  if (mode() == LeaseMode::session || !names_.empty() || session_state_.may_have_prepared())
    return Cleaning::all;
  const bool is_clean =
      session_state_.pins() == 0 && !session_state_.is_dirty() && policy() != StatePolicy::strict;
  return is_clean ? Cleaning::none : Cleaning::state;
}

void Session::warn_unfollowed(const char* what) noexcept {
  if (warned_) return;
  warned_ = true;
  LOG_LIMITED(warning,
              "client %u of %s@%s: %s does not follow it to other server connections in this pool "
              "(told once per session)",
              sessions_.process_id_of(*this), pool_->slice.spec().user.c_str(),
              pool_->slice.spec().database.c_str(), what);
}

}  // namespace helios
