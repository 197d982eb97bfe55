// Messages that name a prepared statement: how the statements of a client follow it from backend to
// backend.
//
// A client's name stands for a Statement (client_statements.h), which has a name of its own on
// every server (statement.h). The proxy answers a Parse itself where the backend has the statement,
// and sends one ahead of a Bind or Describe where it lacks it. A Close never reaches a server:
// others may use the statement. What a client says of names that it does not have goes to the
// server as it is, so that the errors are the server's own and come in the right place.
//
// Statements that are too large to be held pin instead: they exist under the client's name on its
// backend only (statement_names.h). Those of PREPARE in SQL are no names of this kind: they go with
// the parameters (session_follow.cc). What commands in SQL do with names of this kind is in
// session_sql_statements.cc.
#include "session/session_statements.h"

#include <algorithm>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/statement_messages.h"
#include "helios/wire/writer.h"

namespace helios {

using Presence = BackendStatements::State;

[[gnu::hot]] SessionStatements& Session::own_statements() noexcept {
  if (statements_ == nullptr) statements_ = std::make_unique<SessionStatements>();
  return *statements_;
}

// A client that has names keeps them, whatever a new configuration says.
void Session::choose_following() noexcept {
  if (statements_ != nullptr && !statements_->names.empty()) return;
  follows_statements_ =
      mode() != LeaseMode::session && pool_->slice.spec().limits.max_prepared_statements > 0;
}

// --- Taking messages in ---

// The body of the message whose header is pending, as far as it is here.
ByteSpan Session::seen_body(ByteSpan rest) const noexcept {
  if (has_collected()) return statements_->collected;
  return rest.first(std::min<size_t>(rest.size(), reader_.body_left()));
}

// Only with names of its own, or what is left of them, a client's queries are looked at.
bool Session::must_look(uint8_t tag) const noexcept {
  if (!follows_statements_ || (backend_ == nullptr && has_lost_transaction())) return false;
  if (tag != frontend_tag::query) return may_name_statement(tag);
  if (statements_ == nullptr) return false;
  return !statements_->names.empty() ||
         (backend_ != nullptr && !backend_->statements().strays().empty());
}

bool Session::has_collected() const noexcept {
  return statements_ != nullptr && !statements_->collected.empty();
}

void Session::collect(ByteSpan& rest) noexcept {
  const ByteSpan body = reader_.take_body(rest);
  if (body.empty()) return;
  std::vector<uint8_t>& collected = own_statements().collected;
  collected.insert(collected.end(), body.begin(), body.end());
}

// Keeps no memory that only a large message needed.
void Session::drop_collected() noexcept {
  if (statements_ != nullptr) std::vector<uint8_t>().swap(statements_->collected);
}

// A header is complete: does the message name a statement, and is enough of it here to begin it? If
// not, what is here is taken out of `rest` and kept.
Session::Look Session::look(ByteSpan& rest) noexcept {
  const FrameHeader header = reader_.header();
  if (has_collected()) collect(rest);
  const ByteSpan seen = seen_body(rest);
  const bool is_whole = seen.size() == header.body_size;
  if (statements_ != nullptr && header.tag == frontend_tag::parse && !seen.empty() && seen[0] == 0)
    statements_->unnamed_commands = {};
  if (may_be_command(header, seen)) return look_at_command(rest, seen, is_whole);
  if (is_plainly_unnamed(header.tag, seen)) {
    // What is kept of it has to be whole.
    const bool may_be_kept =
        header.tag == frontend_tag::parse && header.body_size <= unnamed_size_max();
    if (is_whole || !may_be_kept) return Look::plain;
    if (!has_collected()) collect(rest);
    return Look::need_more;
  }
  const StatementHead head = read_statement_head(header.tag, seen);
  if (head.kind == StatementHead::Kind::unnamed) return Look::plain;
  const bool is_bind = header.tag == frontend_tag::bind;
  const bool is_named = head.kind == StatementHead::Kind::named;
  if (is_bind && is_named) return Look::named;
  // Of a Bind only the names have to be here.
  const size_t needed_size = is_bind ? seen.size() : header.body_size;
  const size_t size_max = pool_->slice.spec().limits.max_prepared_statement_size;
  if (!seen.empty() && needed_size > size_max) return Look::plain;
  // What lacks its zero byte is for the server to refuse.
  if (is_whole) return is_named ? Look::named : Look::plain;
  if (!has_collected()) collect(rest);
  return Look::need_more;
}

// --- Beginning messages ---

// A message that names a statement (look). False: it cannot be begun now, or the session has ended.
bool Session::begin_named(ByteSpan& rest) noexcept {
  const uint8_t tag = reader_.header().tag;
  const ByteSpan body = seen_body(rest);
  StatementHead head;
  if (may_name_statement(tag)) head = read_statement_head(tag, body);
  forwarding_ = inspecting_ = is_reading_text_ = false;
  Begun begun = Begun::dropped;
  if (tag == frontend_tag::close && backend_ == nullptr && skip_ == Skip::none) {
    close_without_backend(head.name);
  } else if (tag == frontend_tag::parse && backend_ == nullptr && skip_ == Skip::none &&
             !head.name.empty() && parse_without_backend(head, body)) {
    // Answered.
  } else {
    const Prepared prepared = prepare(tag, body);
    if (prepared == Prepared::no) return false;
    if (prepared == Prepared::yes) {
      const uint8_t status = backend_->transaction_status();
      begun = begin_statement(head, body);
      if (state_ != State::leased) return false;
      if (timeouts_ != nullptr) note_request(status);
    }
  }
  if (begun == Begun::held) {
    held_ = true;
    return false;
  }
  // Of a Bind the values follow.
  size_t used_size = body.size();
  if (begun == Begun::as_it_is) {
    announce(tag);
    backend_->send(reader_.raw_header());
    used_size = 0;
  } else if (tag == frontend_tag::bind) {
    used_size = head.size;
    forwarding_ = begun == Begun::sent;
  }
  if (has_collected()) {
    in_message_ = true;  // For whoever ends it now.
    if (forwarding_) pass_on_collected(used_size);
    if (state_ == State::ending) return false;
  } else {
    ByteSpan used = rest.first(used_size);
    (void)reader_.take_body(used);
    rest = rest.subspan(used_size);
  }
  return true;
}

// The message whose body was collected is being forwarded.
void Session::pass_on_collected(size_t from) noexcept {
  const ByteSpan body = ByteSpan(statements_->collected).subspan(from);
  if (is_reading_text_) read_text(body);
  if (state_ == State::ending) return drop_collected();
  if (reader_.body_left() == 0) is_reading_text_ = false;  // All of it was read.
  if (inspecting_) inspect(body);
  backend_->send(body);
  drop_collected();
}

// A Parse or Close of a statement that does not follow went to the server as it is.
void Session::note_pinned() noexcept {
  own_statements().has_pinned = true;
}

// Without a backend nothing of this client is on its way that the Close could come too early for.
void Session::close_without_backend(std::string_view name) noexcept {
  name = name.substr(0, ClientStatements::name_size_max);
  if (statements_ != nullptr) statements_->names.forget_settled(name);
  if (is_sql_name(name)) {
    SqlStatements left = parameters_->statements();
    std::erase_if(left, [&](const SqlStatement& one) { return one.name == name; });
    parameters_ = sessions_.pools().parameters().with_statements(parameters_, left);
  }
  if (timeouts_ != nullptr) note_sign_of_life();
  send_answer(backend_tag::close_complete);
}

// A Parse that is answered without a backend: servers of this pool have accepted the same. True: it
// was.
bool Session::parse_without_backend(const StatementHead& head, ByteSpan body) noexcept {
  const std::string_view name = head.name.substr(0, ClientStatements::name_size_max);
  ClientStatements& names = own_statements().names;
  if (names.find(name) != nullptr || is_sql_name(name)) return false;  // The server says so.
  if (!find_named_commands(as_text(body.subspan(head.size))).empty()) return false;
  const StatementRef statement = hold_statement(name, body.subspan(head.size));
  if (statement.is_null() || !pool_->slice.accepted_statements.contains(statement->key()))
    return false;
  const bool is_read = reads_text(frontend_tag::parse);
  if (is_read && effects_of_statement(statement->text()).bits != 0) return false;
  if (is_read && session_state_.has_statements()) session_state_.add_statement(hash_name(name), {});
  note_sequences(frontend_tag::parse, body);
  if (timeouts_ != nullptr) note_sign_of_life();
  ++pool_->slice.counters.client_parses;
  names.set_settled(name, statement);
  send_answer(backend_tag::parse_complete);
  return true;
}

Session::Begun Session::begin_statement(const StatementHead& head, ByteSpan body) noexcept {
  ASSERT(state_ == State::leased);
  // What the server skips changes nothing.
  if (backend_->ledger().is_skipping_to_sync()) return Begun::as_it_is;
  const uint8_t tag = reader_.header().tag;
  if (tag == frontend_tag::query || head.kind == StatementHead::Kind::unnamed)
    return begin_commands(body);
  const std::string_view name = head.name.substr(0, ClientStatements::name_size_max);
  if (must_settle(name)) return Begun::held;
  deallocated_name_ = 0;
  switch (tag) {
    case frontend_tag::parse:
      return begin_parse(name, body.subspan(head.size), body);
    case frontend_tag::close:
      return begin_close(name);
    default:
      return begin_use(head, name);
  }
}

// What the name means is not known before what was sent has been answered.
bool Session::must_settle(std::string_view name) noexcept {
  return own_statements().names.is_unsettled_before(name, backend_->ledger().batch()) ||
         awaits_forgetting();
}

Session::Begun Session::begin_parse(std::string_view name, ByteSpan content,
                                    ByteSpan body) noexcept {
  if (find_statement(name) != nullptr) {
    send_duplicate(name, body);
    return Begun::sent;
  }
  if (is_own_name(name)) return begin_pinned(name);
  NamedCommands commands = find_named_commands(as_text(content));
  if (commands.size() > 1) commands.clear();  // Several: the server refuses them.
  if (executes(commands)) return begin_executing(name, std::move(commands));
  const StatementRef statement = hold_statement(name, content);
  if (statement.is_null()) return begin_pinned(name);
  Ledger& ledger = backend_->ledger();
  BackendStatements& there = backend_->statements();
  if (there.is_pending_before(statement->key(), ledger.batch())) return Begun::held;
  // The server may forget what this batch has parsed before it comes to this one.
  if (is_forgetting_here() && there.state_of(statement->key()) == Presence::pending)
    return begin_pinned(name);
  if (reads_text(frontend_tag::parse)) note_parsed(name, statement->text());
  if (state_ != State::leased) return Begun::dropped;  // It was refused.
  note_commands(name, std::move(commands));
  if (session_state_.may_have_unknown_names()) make_sure_free(name, *statement);
  PoolCounters& counters = pool_->slice.counters;
  ++counters.client_parses;
  statements_->names.set(name, statement, ledger.batch());
  // In a failed transaction the server refuses it, unless it ends the transaction; and what is not
  // answered yet may make it fail. (With one of the same that is on its way in this batch it stands
  // and falls: behind an error it is skipped.)
  const bool may_fail = (backend_->transaction_status() == transaction_status::failed ||
                         ledger.ready_due_count() > 0) &&
                        there.state_of(statement->key()) != Presence::pending;
  if (may_fail || !is_provided(*statement)) {
    send_parse(*statement, LedgerAction::forward, ledger_mark::renames);
    return Begun::sent;
  }
  there.touch(statement->key());
  backend_->on_request({{}, frontend_tag::parse, LedgerAction::fake, ledger_mark::renames});
  backend_->answer_fakes();
  return Begun::sent;
}

// The server gets it under the client's own name.
Session::Begun Session::begin_pinned(std::string_view name) noexcept {
  forget_stray(name);
  return Begun::as_it_is;
}

Session::Begun Session::begin_close(std::string_view name) noexcept {
  note_commands(name, {});
  const bool is_known = find_statement(name) != nullptr;
  if (!is_known && may_be_own_name(name)) {
    SqlEffects effects;
    effects.bits = sql_effect::ends;
    session_state_.add(effects);
    return Begun::as_it_is;
  }
  uint16_t marks = 0;
  if (is_known) {
    if (backend_->statements().has_stray(name)) send_close(name);
    statements_->names.remove(name, backend_->ledger().batch());
    marks = ledger_mark::renames;
  }
  backend_->on_request({{}, frontend_tag::close, LedgerAction::fake, marks});
  backend_->answer_fakes();
  return Begun::sent;
}

// Bind or Describe.
Session::Begun Session::begin_use(const StatementHead& head, std::string_view name) noexcept {
  const Statement* statement = find_statement(name);
  if (statement == nullptr) {
    if (may_be_own_name(name)) return begin_own(head, name);
    send_unknown(head);
    return Begun::sent;
  }
  const NamedCommands commands = commands_of(name, *statement);
  if (must_settle(commands)) return Begun::held;
  // Whoever has changed a parameter meanwhile has it parsed anew with that: what others use under
  // its name must not be. (In a failed transaction nothing is parsed.)
  StatementRef in_context;
  const bool may_parse = backend_->transaction_status() != transaction_status::failed;
  if (may_parse && statement->context() != parse_context()) {
    in_context =
        sessions_.pools().statements().intern(statement->content(), parse_context(), SIZE_MAX);
    statement = &*in_context;
  }
  Ledger& ledger = backend_->ledger();
  BackendStatements& there = backend_->statements();
  if (there.is_pending_before(statement->key(), ledger.batch())) return Begun::held;
  if (is_provided(*statement)) {
    const bool is_old = there.state_of(statement->key()) == Presence::present;
    there.touch(statement->key());
    make_room(0);
    if (is_old) backend_->keep_batch(*statement);
  } else {
    send_parse(*statement, LedgerAction::inject, 0);
  }
  use_commands(commands, head.portal);
  foresee(statement->text());
  if (reader_.header().tag == frontend_tag::bind && reads_text(frontend_tag::bind))
    note_bound(name);
  send_use(head, statement->name(),
           {statement->key(), reader_.header().tag, LedgerAction::forward, ledger_mark::uses});
  return Begun::sent;
}

// --- What there is ---

// The statement behind a client's name, as the server will see it when it comes to the message that
// is being begun.
[[gnu::hot]] const Statement* Session::find_statement(std::string_view name) const noexcept {
  const ClientStatements& names = statements_->names;
  return is_forgetting_here() ? names.find_unsettled(name) : names.find(name);
}

// In which the server parses a text that it gets now.
const ParseContext& Session::parse_context() const noexcept {
  const ParseContext* own = session_state_.own_parse_context();
  return own != nullptr ? *own : parameters_->parse_context();
}

// The backend has the statement then, as far as we know.
[[gnu::hot]] bool Session::is_provided(const Statement& statement) noexcept {
  const Presence presence = backend_->statements().state_of(statement.key());
  return presence == Presence::pending || (presence == Presence::present && !is_forgetting_here());
}

// Was made by PREPARE.
bool Session::is_sql_name(std::string_view name) const noexcept {
  const SqlStatements& statements = parameters_->statements();
  return std::any_of(statements.begin(), statements.end(),
                     [&](const SqlStatement& one) { return one.name == name; });
}

// Exists on the backend under this very name, or may do so by a Parse that is on its way.
bool Session::is_own_name(std::string_view name) const noexcept {
  if (names_.contains(hash_name(name)) || is_sql_name(name)) return true;
  return statements_->has_pinned && backend_->ledger().has_marked(ledger_mark::pins);
}

// Or by a PREPARE in this transaction.
bool Session::may_be_own_name(std::string_view name) const noexcept {
  return is_own_name(name) || (session_state_.may_have_prepared() && !looks_like_ours(name));
}

// Null: there is no room for it.
StatementRef Session::hold_statement(std::string_view name, ByteSpan content) noexcept {
  const size_t own_size_max = pool_->slice.spec().limits.max_client_statements_size;
  const size_t size = ClientStatements::size_of(name, content.size());
  StatementRef statement;
  if (statements_->names.bytes() + size <= own_size_max)
    statement = sessions_.pools().statements().intern(
        content, parse_context(),
        sessions_.shared().statements_size_max.load(std::memory_order_relaxed));
  if (statement.is_null())
    LOG_LIMITED(warning,
                "client %u of %s@%s has prepared statements beyond max_client_statements_size or "
                "max_statements_size: it keeps its server connection",
                sessions_.process_id_of(*this), pool_->slice.spec().user.c_str(),
                pool_->slice.spec().database.c_str());
  return statement;
}

// --- What is sent ---

void Session::send_close(std::string_view name, uint16_t marks) noexcept {
  MessageWriter& writer = sessions_.pools().writer();
  write_close_statement(writer, name);
  backend_->on_request({{}, frontend_tag::close, LedgerAction::inject, marks});
  backend_->send(writer.bytes());
}

// Closes what is left on the backend and what was not used for longest, until `wanted` more are
// within the limit. When none is wanted the one that was used last stays: it is about to be used,
// and those that are not answered yet cannot go instead of it. Only between two batches: a Close
// that an error before it makes the server skip would leave it unknown what is there. So one batch
// may go beyond the limit.
[[gnu::hot]] void Session::make_room(size_t wanted) noexcept {
  if (!backend_->is_between_batches()) return;
  close_strays();
  BackendStatements& there = backend_->statements();
  const size_t count_max = std::max(pool_->slice.spec().limits.max_prepared_statements, 1U);
  StatementKey key;
  while (there.size() + wanted > count_max && there.evict(key, wanted == 0)) {
    const StatementName name = name_of(key);
    send_close({name.data(), name.size()});
  }
}

void Session::send_parse(const Statement& statement, LedgerAction action, uint16_t marks) noexcept {
  BackendStatements& there = backend_->statements();
  marks |= ledger_mark::parses;
  if (there.state_of(statement.key()) == Presence::absent) {
    make_room(1);
  } else {
    send_close(statement.name());
    marks |= ledger_mark::replaces;
  }
  there.add(statement.key(), backend_->ledger().batch());
  ++pool_->slice.counters.server_parses;
  MessageWriter& writer = sessions_.pools().writer();
  write_parse_head(writer, statement.name(), statement.content().size());
  backend_->on_request({statement.key(), frontend_tag::parse, action, marks});
  backend_->send(writer.bytes());
  backend_->send(statement.content());
}

// The message that names a statement, under the name that it has on the server.
[[gnu::hot]] void Session::send_use(const StatementHead& head, std::string_view name,
                                    const LedgerEntry& entry) noexcept {
  MessageWriter& writer = sessions_.pools().writer();
  if (entry.tag == frontend_tag::bind) {
    ++pool_->slice.counters.binds;
    write_bind_head(writer, head.portal, name, reader_.header().body_size - head.size);
  } else {
    write_describe_statement(writer, name);
  }
  backend_->on_request(entry);
  backend_->send(writer.bytes());
}

// The server is to say that there is no such statement.
void Session::send_unknown(const StatementHead& head) noexcept {
  std::string name(head.name);
  if (backend_->statements().has_stray(name)) send_close(name);
  // Never somebody else's.
  if (looks_like_ours(name)) name += '_';
  send_use(head, name, {{}, reader_.header().tag, LedgerAction::forward, 0});
}

// Everything is settled when a lease ends, and another backend counts other batches.
void Session::start_statements_lease() noexcept {
  ASSERT(!statements_->names.has_unsettled());
  statements_->forgetting = Forgetting::no;
  statements_->deallocating_batch = statements_->commands_batch = SessionStatements::no_batch;
  statements_->unnamed.start_lease(*backend_);
}

void Session::on_name_settled() noexcept {
  statements_->names.settle();
}

void Session::on_names_undone(size_t count) noexcept {
  statements_->names.undo(count);
}

}  // namespace helios
