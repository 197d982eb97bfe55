// The loss of a backend under its client, and how the session goes on.
//
// Everything that the server owes is answered with an error instead, as a server would that cannot
// execute it: an ErrorResponse for each query and each batch, its ReadyForQuery, nothing of a batch
// up to its Sync. Behind that the client is served by another backend. Not so when it is in a
// transaction: the rest of that must not be executed as if it had just begun. The transaction has
// failed then, the client is told why with its next answer, and everything but the command that
// ends the block is refused (LostTransaction) as by PostgreSQL. It takes no backend.
//
// Savepoints are gone with the backend: ROLLBACK TO is refused with 25P02 like any other command,
// since nothing but the end of the block leads on. AND CHAIN is refused too.
//
// The session ends, with a FATAL error, where the client would miss what it had on the backend: in
// session mode and replication, with whatever pins, and with state that the server was not asked
// about yet. A client that has received a part of a message is cut off without a word.
#include "session/session_lost.h"

#include <algorithm>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/session/block_end.h"
#include "helios/session/session.h"
#include "helios/session/sessions.h"
#include "helios/wire/body_reader.h"
#include "helios/wire/error_response.h"
#include "helios/wire/message.h"
#include "helios/wire/statement_messages.h"
#include "helios/wire/writer.h"
#include "session/session_login.h"
#include "session/session_statements.h"

namespace helios {
namespace {

bool is_simple(uint8_t tag) {
  return tag == frontend_tag::query || tag == frontend_tag::function_call;
}

bool is_copy_end(uint8_t tag) {
  return tag == frontend_tag::copy_done || tag == frontend_tag::copy_fail;
}

// The loss the first time, then what PostgreSQL says in a failed block.
void write_refusal(MessageWriter& writer, LostTransaction& lost) {
  if (!std::exchange(lost.is_told, true))
    return write_error(writer, Severity::error, lost.error.sqlstate, lost.error.message);
  write_error(writer, Severity::error, sqlstate::in_failed_sql_transaction,
              "current transaction is aborted, commands ignored until end of transaction block");
}

// Whether the command is answered with ROLLBACK. A COMMIT of which the client does not know that it
// can only fail is not: it would take the answer for that of one that was done.
bool is_end(const LostTransaction& lost, std::string_view text) {
  const BlockEnd end = read_block_end(text);
  return end == BlockEnd::rollback || (end == BlockEnd::commit && lost.is_known);
}

}  // namespace

SessionLost& Session::own_lost() noexcept {
  if (lost_ == nullptr) lost_ = std::make_unique<SessionLost>();
  return *lost_;
}

bool Session::has_lost_transaction() const noexcept {
  return lost_ != nullptr && lost_->transaction != nullptr;
}

// --- The loss ---

void Session::on_backend_lost(const PoolError& error, Loss loss) noexcept {
  const Backend& backend = *std::exchange(backend_, nullptr);
  if (state_ == State::leaving) {
    set_state(State::ending);
    if (is_destroyable()) sessions_.on_session_destroyable(*this);
    return;
  }
  if (state_ == State::welcome && login_->refusal) {
    // Its last words were the answer to our own statement: the client has not seen them.
    const PoolError last_words = std::move(*login_->refusal);
    return fail(last_words);
  }
  const bool goes_on = state_ == State::leased && loss == Loss::connection && client_at_boundary_ &&
                       !is_bound_to(backend);
  if (!goes_on) return fail(error);
  outlive(backend, error);
}

// The client would miss this backend.
bool Session::is_bound_to(const Backend& backend) const noexcept {
  const bool is_in_block = backend.last_status() != transaction_status::idle;
  // How many replies are due is not known.
  if (backend.ledger().is_ambiguous()) return true;
  // It comes back to bind the unnamed statement.
  const Ledger& ledger = backend.ledger();
  if (ledger.empty() && ledger.has_unbound() && !has_kept_unnamed(ledger)) return true;
  return is_pinned() || has_own_backend() || session_state_.outlives_rollback(is_in_block);
}

void Session::outlive(const Backend& backend, const PoolError& error) noexcept {
  const bool is_block = backend.last_status() != transaction_status::idle;
  LOG_LIMITED(info, "client %u of %s@%s goes on without its server connection%s: %s",
              sessions_.process_id_of(*this), pool_->slice.spec().user.c_str(),
              pool_->slice.spec().database.c_str(), is_block ? ", in a failed transaction" : "",
              error.message.c_str());
  session_state_.on_released();
  if (statements_ != nullptr) lose_statements(backend.ledger());
  deallocated_name_ = 0;
  held_ = false;
  if (is_block || backend.is_batch_waiting()) {
    auto lost = std::make_unique<LostTransaction>();
    lost->error = error;
    lost->is_block = is_block;
    lost->is_known = backend.last_status() == transaction_status::failed ||
                     backend.ledger().is_skipping_to_sync() || backend.ledger().is_head_failed();
    own_lost().transaction = std::move(lost);
  }
  restore_parameters();
  answer_owed(backend.ledger(), error);
  // What is still to come of the message that was being forwarded is dropped.
  forwarding_ = inspecting_ = is_reading_text_ = false;
  query_text_.clear();
  if (std::exchange(is_in_text_, false)) (void)session_state_.take_text();
  set_state(State::ready);
  after_lease();
  resume();
}

void Session::lose_statements(const Ledger& ledger) noexcept {
  statements_->unnamed.lose(ledger);
  statements_->names.undo_all();
  statements_->forgetting = Forgetting::no;
  statements_->deallocated.clear();
  statements_->has_pinned = false;
}

// A parameter is about to change.
void Session::note_parameters() noexcept {
  SessionLost& lost = own_lost();
  if (lost.parameters_before.is_null()) lost.parameters_before = parameters_;
}

void Session::forget_parameters_before() noexcept {
  lost_->parameters_before = ParameterSetRef();
}

// Parameters that the transaction has set have again the values that they had before it, and the
// client is told so.
void Session::restore_parameters() noexcept {
  if (lost_ == nullptr || lost_->parameters_before.is_null()) return;
  const ParameterSetRef changed = std::exchange(parameters_, std::move(lost_->parameters_before));
  lost_->parameters_before = ParameterSetRef();
  tell_changed(*changed);
}

// The newest request is a query that ends the block, whether it succeeds or not: so does one that
// fails on a server, and there are clients that rely on it instead of the status that they are told
// (psycopg2 sends no ROLLBACK behind a COMMIT that has failed).
bool Session::has_asked_for_end(const Ledger& ledger) const noexcept {
  if (in_message_ || ledger.ready_due_count() == 0 || query_text_.empty()) return false;
  uint8_t newest = 0;
  ledger.walk([&](const LedgerEntry& entry) { newest = entry.tag; });
  if (newest != frontend_tag::query) return false;
  const BlockEnd end = read_block_end(query_text_);
  return end == BlockEnd::rollback || end == BlockEnd::commit;
}

// Errors in the place of all answers that are due.
void Session::answer_owed(const Ledger& ledger, const PoolError& error) noexcept {
  LostTransaction* lost = lost_ == nullptr ? nullptr : lost_->transaction.get();
  uint8_t status =
      lost != nullptr && lost->is_block ? transaction_status::failed : transaction_status::idle;
  MessageWriter& writer = sessions_.pools().writer();
  const auto write_failure = [&] {
    if (lost == nullptr) return write_error(writer, Severity::error, error.sqlstate, error.message);
    write_refusal(writer, *lost);
    lost->is_known = true;
  };
  // Of one that is half received the ReadyForQuery has to wait.
  size_t ready_count = ledger.ready_due_count();
  const bool is_half = in_message_ && forwarding_ && is_simple(reader_.header().tag) &&
                       !ledger.is_skipping_to_sync();
  const bool is_over = lost != nullptr && has_asked_for_end(ledger);
  bool is_failed = ledger.is_head_failed();  // The error of this batch, or query, was said.
  bool is_batch = false;
  // A Sync within a COPY is ignored.
  bool is_copying = ledger.is_copying_in();
  bool is_first = true;
  ledger.walk([&](const LedgerEntry& entry) {
    const bool is_within_copy = is_copying && !std::exchange(is_first, false);
    if (is_within_copy) is_copying = !is_copy_end(entry.tag);
    const bool is_own = entry.action == LedgerAction::skip || entry.action == LedgerAction::inject;
    if (is_own || is_copy_end(entry.tag)) return;
    const bool is_ready_request = is_simple(entry.tag) || entry.tag == frontend_tag::sync;
    if (is_ready_request) --ready_count;
    if (is_within_copy) return;
    if (!is_ready_request) {
      is_batch = true;
      return;
    }
    if (!std::exchange(is_failed, false)) write_failure();
    if (entry.tag == frontend_tag::sync) is_batch = false;
    if (is_half && ready_count == 0) return;
    if (is_over && ready_count == 0) {
      lost_->transaction.reset();
      lost = nullptr;
      status = transaction_status::idle;
    }
    write_ready_for_query(writer, status);
  });
  if (is_batch) write_failure();
  if (!writer.empty()) stream_.send(writer.bytes());
  ASSERT(skip_ == Skip::none);
  if (is_half) {
    skip_ = Skip::query;
  } else if (is_batch || ledger.is_skipping_to_sync()) {
    skip_ = Skip::batch;
  }
}

// --- What comes behind it ---

// A message of a client whose transaction is lost. What it says is dealt with when all of it is
// here (finish_lost); it goes nowhere.
void Session::begin_lost(uint8_t tag) noexcept {
  LostTransaction& lost = *lost_->transaction;
  drop_unnamed(tag, seen_body({}));
  switch (tag) {
    case frontend_tag::flush:
    case frontend_tag::copy_data:
    case frontend_tag::copy_done:
    case frontend_tag::copy_fail:
      return;
    default:
      break;
  }
  if (tag == frontend_tag::sync) {
    if (!lost.is_known) refuse_lost();
    return end_skip();
  }
  if (!lost.is_block) {
    refuse_lost();
    skip_ = is_simple(tag) ? Skip::query : Skip::batch;
    return;
  }
  inspecting_ = true;
  lost.body.clear();
  if (has_collected()) keep_lost(statements_->collected);
}

void Session::keep_lost(ByteSpan piece) noexcept {
  std::vector<uint8_t>& body = lost_->transaction->body;
  // One byte more shows that it is longer.
  const size_t room = LostTransaction::body_size_max + 1 - body.size();
  const ByteSpan kept = piece.first(std::min(piece.size(), room));
  body.insert(body.end(), kept.begin(), kept.end());
}

// Writes the error, and leaves it to the caller what is skipped. The transaction of a batch is over
// with that.
void Session::refuse_lost() noexcept {
  LostTransaction& lost = *lost_->transaction;
  MessageWriter& writer = sessions_.pools().writer();
  write_refusal(writer, lost);
  lost.is_known = true;
  stream_.send(writer.bytes());
  if (!lost.is_block) lost_->transaction.reset();
}

void Session::finish_lost() noexcept {
  LostTransaction& lost = *lost_->transaction;
  ASSERT(lost.is_block);
  if (timeouts_ != nullptr) note_sign_of_life();
  const uint8_t tag = reader_.header().tag;
  inspecting_ = false;
  const ByteSpan body = lost.body;
  const bool is_kept = body.size() == reader_.header().body_size;
  bool is_answered = false;
  switch (is_kept ? tag : 0) {
    case frontend_tag::query:
      is_answered = answer_lost_query(as_text(body));
      break;
    case frontend_tag::parse:
      is_answered = answer_lost_parse(body);
      break;
    case frontend_tag::bind:
      is_answered = answer_lost_bind(body);
      break;
    case frontend_tag::describe:
      is_answered = answer_lost_describe(body);
      break;
    case frontend_tag::execute:
      is_answered = answer_lost_execute(body);
      break;
    case frontend_tag::close:
      is_answered = answer_lost_close(body);
      break;
    default:
      break;
  }
  if (is_answered) return;
  refuse_lost();
  // As PostgreSQL's own, a COMMIT that has failed leaves no block behind.
  if (tag == frontend_tag::query && is_kept && read_block_end(as_text(body)) == BlockEnd::commit)
    end_lost();
  if (is_simple(tag)) return end_skip();
  skip_ = Skip::batch;
}

void Session::end_lost() noexcept {
  lost_->transaction.reset();
}

void Session::send_tag(std::string_view tag) noexcept {
  MessageWriter& writer = sessions_.pools().writer();
  writer.begin(backend_tag::command_complete);
  writer.add_text(tag);
  writer.end();
  stream_.send(writer.bytes());
}

bool Session::answer_lost_query(std::string_view text) noexcept {
  LostTransaction& lost = *lost_->transaction;
  if (read_block_end(text) == BlockEnd::nothing && lost.is_known) {
    send_answer(backend_tag::empty_query_response);
    end_skip();
    return true;
  }
  if (!is_end(lost, text)) return false;
  end_lost();
  send_tag("ROLLBACK");
  end_skip();
  return true;
}

// The client's statement of this name, if it is one that ends the block.
std::optional<std::string> Session::find_lost_end(std::string_view name) const noexcept {
  const LostTransaction& lost = *lost_->transaction;
  std::optional<std::string> text = lost.unnamed;
  if (!name.empty()) {
    name = name.substr(0, ClientStatements::name_size_max);
    const Statement* statement = statements_ == nullptr ? nullptr : statements_->names.find(name);
    text = statement == nullptr ? std::nullopt : std::optional<std::string>(statement->text());
  }
  if (text && !is_end(lost, *text)) text.reset();
  return text;
}

bool Session::answer_lost_parse(ByteSpan body) noexcept {
  LostTransaction& lost = *lost_->transaction;
  BodyReader reader(body);
  std::string_view name, text;
  if (!reader.read_text(name)) return false;
  const ByteSpan content = reader.left();
  if (!reader.read_text(text) || !is_end(lost, text)) return false;
  if (name.empty()) {
    lost.unnamed = text;
  } else if (!keep_statement(name.substr(0, ClientStatements::name_size_max), content)) {
    return false;
  }
  send_answer(backend_tag::parse_complete);
  return true;
}

// Without a backend a name is settled at once. False: it is taken, or cannot be held.
bool Session::keep_statement(std::string_view name, ByteSpan content) noexcept {
  if (!follows_statements_ || own_statements().names.find(name) != nullptr) return false;
  const StatementRef statement = hold_statement(name, content);
  if (statement.is_null()) return false;
  statements_->names.set_settled(name, statement);
  return true;
}

bool Session::answer_lost_bind(ByteSpan body) noexcept {
  LostTransaction& lost = *lost_->transaction;
  BodyReader reader(body);
  std::string_view portal, name;
  if (!reader.read_text(portal) || !reader.read_text(name)) return false;
  std::optional<std::string> text = find_lost_end(name);
  if (!text) return false;
  lost.portal = portal;
  lost.bound = std::move(text);
  send_answer(backend_tag::bind_complete);
  return true;
}

bool Session::answer_lost_describe(ByteSpan body) noexcept {
  const LostTransaction& lost = *lost_->transaction;
  BodyReader reader(body);
  uint8_t kind = 0;
  std::string_view name;
  if (!reader.read_byte(kind) || !reader.read_text(name)) return false;
  const bool is_statement = kind == 'S';
  const bool is_there =
      is_statement ? find_lost_end(name).has_value() : lost.bound && lost.portal == name;
  if (!is_there) return false;
  MessageWriter& writer = sessions_.pools().writer();
  if (is_statement) {
    writer.begin(backend_tag::parameter_description);
    writer.add_int16(0);
    writer.end();
  }
  write_empty_message(writer, backend_tag::no_data);
  stream_.send(writer.bytes());
  return true;
}

bool Session::answer_lost_execute(ByteSpan body) noexcept {
  const LostTransaction& lost = *lost_->transaction;
  BodyReader reader(body);
  std::string_view portal;
  if (!reader.read_text(portal) || !lost.bound || lost.portal != portal) return false;
  end_lost();
  send_tag("ROLLBACK");
  return true;
}

// Closes what is there and what is not, as a server does.
bool Session::answer_lost_close(ByteSpan body) noexcept {
  LostTransaction& lost = *lost_->transaction;
  BodyReader reader(body);
  uint8_t kind = 0;
  std::string_view name;
  if (!reader.read_byte(kind) || !reader.read_text(name)) return false;
  if (kind == 'P') {
    if (lost.portal == name) lost.bound.reset();
  } else if (name.empty()) {
    lost.unnamed.reset();
    drop_unnamed(frontend_tag::parse, body.subspan(1));
  } else if (statements_ != nullptr) {
    statements_->names.forget_settled(name.substr(0, ClientStatements::name_size_max));
  }
  send_answer(backend_tag::close_complete);
  return true;
}

}  // namespace helios
