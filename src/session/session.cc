#include "helios/session/session.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/session/sessions.h"
#include "helios/wire/backend_messages.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"
#include "session/session_listening.h"
#include "session/session_login.h"
#include "session/session_lost.h"
#include "session/session_statements.h"
#include "session/session_timeouts.h"

namespace helios {
namespace {

// How long a client may take to receive its last message.
constexpr Nanoseconds last_flush_timeout = seconds(5);
// The same when the process stops at once.
constexpr Nanoseconds cut_flush_timeout = milliseconds(200);
// How long a client that comes while the process stops may take to say who it is.
constexpr Nanoseconds drain_login_timeout = seconds(1);

}  // namespace

const char* to_text(Session::State state) noexcept {
  switch (state) {
    case Session::State::login:
      return "login";
    case Session::State::moving:
      return "moving";
    case Session::State::welcome:
      return "welcome";
    case Session::State::ready:
      return "ready";
    case Session::State::waiting:
      return "waiting";
    case Session::State::leased:
      return "leased";
    case Session::State::leaving:
      return "leaving";
    case Session::State::ending:
      return "ending";
  }
  UNREACHABLE("session state");
}

Session::Session(Sessions& sessions) noexcept
    : sessions_(sessions),
      stream_(sessions.net(), *this, BufferGroup::client),
      inbox_(sessions.net().chunks, sessions.net().io),
      timer_(&Session::on_timeout, this) {
  reader_.set_body_size_max(client_body_size_max);
}

Session::~Session() {
  ASSERT(backend_ == nullptr);
  ASSERT(login_ == nullptr);
  ASSERT(timeouts_ == nullptr);
  sessions_.timers().cancel(timer_);
}

void Session::start(int fd, int family) noexcept {
  login_ = sessions_.make_login();
  Nanoseconds patience = sessions_.shared().login_timeout;
  // It will only be told that it is too late.
  if (sessions_.is_draining()) patience = drain_login_timeout;
  set_login_deadline(patience > 0 ? sessions_.now() + patience : never);
  stream_.open(fd, family);
}

// Every change of state passes here.
[[gnu::hot]] void Session::set_state(State next) noexcept {
  ASSERT(state_ != State::ending);
  ASSERT(next != State::moving || state_ == State::login);
  ASSERT(next != State::waiting || state_ == State::ready);
  ASSERT(next != State::leaving || state_ == State::leased);
  state_ = next;
  // Who waits and has sent much is not read from: its end must not be found out by a time-out.
  stream_.watch_hangup(next == State::waiting || next == State::welcome);
  if (timeouts_ != nullptr) note_state();
}

// --- The client's stream ---

[[gnu::hot]] void Session::on_received(Stream&, ByteSpan bytes, BufferRef buffer) noexcept {
  switch (state_) {
    case State::ending:
    case State::leaving:
      return;
    case State::login:
      on_login_bytes(bytes);
      if (state_ == State::ending || bytes.empty()) return;
      break;
    case State::moving:
    case State::welcome:
    case State::ready:
    case State::waiting:
    case State::leased:
      break;
  }
  if (is_blocked() || !inbox_.empty()) {
    keep(bytes, buffer);
    return heed_goodbye();
  }
  const size_t consumed = consume(bytes, &buffer);
  if (state_ == State::ending || state_ == State::leaving) return;
  if (consumed == bytes.size()) return;
  keep(bytes.subspan(consumed), buffer);
  heed_goodbye();
}

void Session::on_drained(Stream&) noexcept {
  if (state_ == State::moving) return stream_.start_detach();
  if (stream_.is_above_high_mark()) return;
  if (backend_ != nullptr) backend_->resume_receive();
  resume();
}

void Session::on_ended(Stream&, StreamEnd end_kind, int error) noexcept {
  if (state_ == State::ending || state_ == State::leaving) return;
  end(end_kind == StreamEnd::peer_closed ? "client closed the connection" : strerror(error));
}

void Session::on_closed(Stream&) noexcept {
  if (is_destroyable()) sessions_.on_session_destroyable(*this);
}

// --- The lease ---

bool Session::acquire() noexcept {
  ASSERT(backend_ == nullptr);
  is_acquiring_ = true;
  const bool leased = sessions_.pools().acquire(pool_->slice, *this);
  is_acquiring_ = false;
  if (leased) return true;
  if (state_ == State::ending) {  // Too many wait.
    ++pool_->slice.counters.waits_refused;
    return false;
  }
  if (state_ == State::ready) set_state(State::waiting);
  was_noticed_ = false;
  schedule_wait();
  return false;
}

[[gnu::hot]] void Session::schedule_wait() noexcept {
  Nanoseconds due = wait_end();
  // Not before the login is done.
  const Nanoseconds notice_after = pool_->slice.spec().limits.wait_notice;
  if (state_ == State::waiting && notice_after > 0 && !was_noticed_)
    due = std::min(due, waiting_since + notice_after);
  if (state_ == State::welcome) {
    // The deadline of the login stands too, but in session mode: there the client has done its
    // part.
    if (!leases_at_login()) due = std::min(due, login_->deadline);
    sessions_.timers().cancel(timer_);
  }
  if (due != never && (!timer_.is_scheduled() || due < timer_.deadline()))
    sessions_.timers().schedule(timer_, due);
}

[[gnu::hot]] void Session::on_leased(Backend& backend) noexcept {
  ASSERT(backend_ == nullptr);
  backend_ = &backend;
  if (state_ == State::welcome) {
    if (!is_acquiring_) start_welcome();
    return;
  }
  ASSERT(state_ == State::ready || state_ == State::waiting);
  if (state_ == State::waiting) sessions_.timers().cancel(timer_);
  start_lease();
  if (!is_acquiring_) resume();
}

[[gnu::hot]] void Session::start_lease() noexcept {
  set_state(State::leased);
  if (statements_ != nullptr) start_statements_lease();
  // Leaves together with the client's own first message; its replies are swallowed.
  parameters_ = sessions_.pools().parameters().in_own_context(parameters_);
  backend_->apply_parameters(parameters_);
  // Behind a RESET only what is not set has its first value (restore_first).
  if (first_parameters_ != parameters_ && first_parameters_ != pool_->welcome_set) [[unlikely]]
    backend_->set_surely(*parameters_, changed_names(*first_parameters_, *parameters_));
  if (session_state_.asks_sequences()) backend_->start_statement("DISCARD SEQUENCES");
  close_strays();
  if (mode() == LeaseMode::statement) backend_->hold_ready();
  if (listening_ != nullptr) take_over();
}

void Session::on_wait_failed(const PoolError& error) noexcept {
  fail(error);
}

void Session::on_pool_changed(PoolEntry& next) noexcept {
  ASSERT(state_ == State::waiting || state_ == State::welcome);
  join(next);
  // The deadline of the login stands; that of the wait is the new pool's.
  if (state_ == State::waiting) sessions_.timers().cancel(timer_);
  schedule_wait();
}

[[gnu::hot]] void Session::on_reply(ByteSpan bytes, BufferRef buffer, bool at_boundary) noexcept {
  client_at_boundary_ = at_boundary;
  if (state_ == State::leaving) return;
  stream_.send_received(bytes, buffer);
  if (stream_.is_above_high_mark() && backend_ != nullptr) backend_->pause_receive();
}

void Session::on_reply_copy(ByteSpan bytes, bool at_boundary) noexcept {
  client_at_boundary_ = at_boundary;
  if (state_ != State::leaving) stream_.send(bytes);
}

void Session::on_statement(uint8_t tag, uint64_t name) noexcept {
  if (mode() == LeaseMode::session) return;  // Its backend is cleaned in any case.
  if (tag == frontend_tag::parse) {
    names_.add(name);
  } else {
    names_.remove(name);
  }
}

void Session::on_command_complete(std::string_view tag) noexcept {
  if (tag == "DEALLOCATE") {
    // Of a name that could not be read: one of those that are kept, so all of them are. (The name
    // belongs to one command only.)
    if (deallocated_name_ != 0) names_.remove(std::exchange(deallocated_name_, 0));
    if (statements_ != nullptr) on_deallocated();
  } else if (drops_statements(tag)) {
    names_.clear();
    if (statements_ != nullptr) statements_->names.forget_settled();
    parameters_ = sessions_.pools().parameters().with_statements(parameters_, {});
  } else if (tag == "LOAD" && pool_->slice.spec().limits.follows_state() &&
             !session_state_.has_pin(PinReason::library)) {
    session_state_.on_library();
  }
}

void Session::on_error() noexcept {
  session_state_.on_error();
  // The unnamed statement may not be that which was sent last.
  if (statements_ != nullptr) statements_->unnamed_commands.clear();
}

void Session::on_parameter(std::string_view name, std::string_view value, bool tells) noexcept {
  ParameterStore& store = sessions_.pools().parameters();
  const std::string_view own = tells ? value_behind_reset(name, value) : value;
  ParameterSetRef changed = store.with(parameters_, name, own);
  if (tells && (changed != parameters_ || !is_followed_parameter(name))) {
    MessageWriter& writer = sessions_.pools().writer();
    write_parameter_status(writer, name, own);
    stream_.send(writer.bytes());
  }
  if (changed == parameters_) return;
  note_parameters();
  parameters_ = std::move(changed);
}

[[gnu::hot]] void Session::on_ready(uint8_t status, bool skipped) noexcept {
  if (timeouts_ != nullptr) note_ready(status);
  if (skipped || state_ != State::leased) return;
  if (backend_->ledger().ready_due_count() == 0) session_state_.on_reported();
  if (status == transaction_status::idle) {
    if (lost_ != nullptr) forget_parameters_before();
    session_state_.on_transaction_end();
  }
  if (statements_ != nullptr) statements_->deallocated.clear();
  if (mode() == LeaseMode::statement && status != transaction_status::idle) {
    // Decided by the status, not by the text: BEGIN may hide in a function or behind a comment.
    abandon_backend("transaction block in statement mode");
    fail(sqlstate::feature_not_supported,
         "transaction blocks not allowed in statement pooling mode");
  }
}

void Session::on_skipped_error(const ErrorFields& fields) noexcept {
  PoolError error{
      std::string(fields.sqlstate.size() == 5 ? fields.sqlstate : sqlstate::internal_error),
      std::string(fields.message), std::string(fields.detail), std::string(fields.hint)};
  if (state_ == State::welcome) {
    // The client has sent nothing yet: the backend is as before, and fit for others once it is
    // quiet.
    return refuse_welcome(std::move(error));
  }
  // The client's own message may have run with other settings than it asked for.
  drop_backend("parameters refused");
  fail(error);
}

[[gnu::hot]] void Session::on_input_end() noexcept {
  if (backend_ == nullptr) return;
  if (state_ == State::welcome) {
    if (!backend_->is_quiet()) return;
    if (welcome_failed()) return;
    learn_spellings();
    return finish_welcome();
  }
  try_release();
  if (timeouts_ != nullptr) note_answered();
  if (held_ || backend_ == nullptr) resume();
}

void Session::on_backend_drained() noexcept {
  if (state_ == State::welcome) return on_input_end();
  try_release();
  resume();
}

[[gnu::hot]] bool Session::is_pinned() const noexcept {
  return mode() == LeaseMode::session || !names_.empty() || session_state_.pins() != 0;
}

// Gives the backend back when nothing stands against it.
[[gnu::hot]] void Session::try_release() noexcept {
  if (backend_ == nullptr || (state_ != State::leased && state_ != State::leaving)) return;
  if (draining_) [[unlikely]]
    heed_return();
  Backend& backend = *backend_;
  const bool mid_message = in_message_ && forwarding_;
  if (backend.ledger().is_ambiguous() && backend.ledger().empty() && !mid_message &&
      state_ == State::leased && client_at_boundary_ &&
      backend.transaction_status() == transaction_status::idle)
    return drop_ambiguous();
  if (state_ == State::leaving) return try_leave();
  if (!backend.is_quiet() || mid_message) {
    if (draining_) end_stream();
    return;
  }
  if (backend.transaction_status() != transaction_status::idle) return;
  // The client comes back to bind what it has parsed; a query of ours would drop it.
  if (backend.ledger().has_unbound() && !draining_ && !has_kept_unnamed(backend.ledger())) return;
  if (ask_state()) return;
  session_state_.on_settled();
  // In session mode it keeps the backend that hears for it.
  if (listening_ != nullptr && !draining_ && mode() != LeaseMode::session) advance_listening();
  if (backend_ == nullptr) return;
  if (is_pinned() && !draining_) {
    note_pins();
    // Behind a RESET, in session mode.
    if (backend.cancels_in_flight() == 0) backend.apply_parameters(parameters_);
    return;
  }
  if (statements_ != nullptr) statements_->unnamed.settle(backend.ledger());
  const Cleaning cleaning = cleaning_needed();
  if (is_pinned()) names_.clear();
  if (session_state_.must_end()) {
    drop_backend("what its client has there ends only with it");
  } else {
    backend_ = nullptr;
    session_state_.on_released();
    backend.give_back(cleaning);
  }
  held_ = false;
  set_state(State::ready);
  after_lease();
}

[[gnu::hot]] void Session::after_lease() noexcept {
  if (state_ != State::ready) return;
  if (draining_) return drain();
  if (pool_->slice.is_superseded()) leave_pool();
}

// What ends for others behind a transaction goes on for ever in a stream of replication: it ends
// behind the next message.
void Session::end_stream() noexcept {
  if (!is_streaming() || !client_at_boundary_) return;
  abandon_backend("its stream has to end");
  set_state(State::ready);
  after_lease();
}

// A COPY failed, and how many replies are still to come is not known: nobody else may get them.
void Session::drop_ambiguous() noexcept {
  const bool was_pinned = is_pinned();
  drop_backend("a COPY failed while more was on its way");
  // With the backend goes what the client has there.
  if (was_pinned && !draining_)
    return fail(sqlstate::connection_failure,
                "the server connection was closed after a failed COPY");
  set_state(State::ready);
  after_lease();
}

// The client is gone in good order: what it asked for is finished first, then the backend is free.
void Session::try_leave() noexcept {
  const Ledger& ledger = backend_->ledger();
  const bool is_answered = ledger.empty() && !backend_->has_unsent();
  // What only the client could end: a COPY, a batch without Sync.
  const bool is_stuck = ledger.is_copying_in() || ledger.is_skipping_to_sync() ||
                        (is_answered && backend_->is_at_boundary() && !backend_->is_quiet()) ||
                        (!ledger.empty() && !ledger.ends_with_ready_request());
  if (!is_stuck && !backend_->is_quiet()) return;
  set_state(State::ending);
  abandon_backend("the client left in a transaction");
  if (is_destroyable()) sessions_.on_session_destroyable(*this);
}

// Ends the lease of a client that goes, wherever it stands. Half a message to the server can only
// be ended with the connection.
void Session::abandon_backend(const char* reason) noexcept {
  if (backend_ == nullptr) return;
  if (in_message_ && forwarding_) return drop_backend(reason);
  if (session_state_.must_end()) return drop_backend(reason);
  const Cleaning cleaning = cleaning_needed();
  session_state_.on_released();
  std::exchange(backend_, nullptr)->recover(reason, cleaning);
}

void Session::drop_backend(const char* reason) noexcept {
  if (backend_ == nullptr) return;
  Backend& backend = *std::exchange(backend_, nullptr);
  if (statements_ != nullptr) statements_->unnamed.lose(backend.ledger());
  names_.clear();
  session_state_.on_released();
  held_ = false;
  backend.close(reason, CloseReason::dropped, in_message_ && forwarding_);
}

void Session::leave_queue(WaitFailure reason) noexcept {
  if (!static_cast<ListNode<WaiterTag>&>(*this).is_linked()) return;
  ++pool_->slice.counters.failures[reason];
  pool_->slice.remove(*this);
}

// --- The end ---

// What the client was told last decides: an error may stand only between two messages.
void Session::fail(std::string_view code, std::string_view message, std::string_view detail,
                   std::string_view hint) noexcept {
  if (state_ == State::ending) return;
  if (state_ == State::leaving || !client_at_boundary_)
    return end("failed in the middle of a reply");
  if (login_ != nullptr) ++sessions_.counters().refused;
  // That we stop is no failure.
  if (sessions_.is_draining()) {
    LOG_LIMITED(info, "client %u is told FATAL %.*s: %.*s", sessions_.process_id_of(*this),
                static_cast<int>(code.size()), code.data(), static_cast<int>(message.size()),
                message.data());
  } else {
    LOG_LIMITED(warning, "client %u is told FATAL %.*s: %.*s", sessions_.process_id_of(*this),
                static_cast<int>(code.size()), code.data(), static_cast<int>(message.size()),
                message.data());
  }
  MessageWriter& writer = sessions_.pools().writer();
  write_error(writer, Severity::fatal, code, message, detail, hint);
  stream_.send(writer.bytes());
  end("failed");
}

void Session::end(const char* reason) noexcept {
  if (state_ == State::ending) return;
  LOG(debug, "client %u ends (%s): %s", sessions_.process_id_of(*this), to_text(state_), reason);
  leave_queue(sessions_.is_draining() ? WaitFailure::shutting_down : WaitFailure::client_left);
  sessions_.pools().context().keys.cancel(*this);
  if (state_ == State::moving) sessions_.uncount(login_->moving_to);
  forget_login();
  inbox_.clear();
  listening_.reset();
  abandon_backend(reason);
  statements_.reset();
  lost_.reset();
  stop_counting();
  set_state(State::ending);
  parameters_ = ParameterSetRef();
  first_parameters_ = ParameterSetRef();
  sessions_.timers().cancel(timer_);
  if (stream_.unsent_size() > 0 && stream_.is_open()) {
    sessions_.timers().schedule(timer_, sessions_.now() + last_flush_timeout);
    stream_.terminate_after_flush();
  } else {
    stream_.terminate();
  }
  if (is_destroyable()) sessions_.on_session_destroyable(*this);
}

// The client has gone in good order while the server still works for it.
void Session::start_leaving() noexcept {
  LOG(debug, "client %u ends (%s): said goodbye while the server still works for it",
      sessions_.process_id_of(*this), to_text(state_));
  set_state(State::leaving);
  inbox_.clear();
  listening_.reset();
  stop_counting();
  stream_.terminate();
  backend_->resume_receive();
  try_leave();
}

void Session::stop_counting() noexcept {
  if (std::exchange(uses_pool_, false)) {
    const PoolSpec& spec = pool_->slice.spec();
    // Nobody waits for room among the clients: those who find none are refused.
    if (spec.user_clients != nullptr) (void)spec.user_clients->give_back();
    if (spec.database_clients != nullptr) (void)spec.database_clients->give_back();
    --pool_->slice.sessions_count;
  }
  if (std::exchange(counted_, false))
    sessions_.shared().clients_count.fetch_sub(1, std::memory_order_relaxed);
}

void Session::cut() noexcept {
  if (state_ == State::leaving) {
    drop_backend("stopped");
    set_state(State::ending);
    if (is_destroyable()) sessions_.on_session_destroyable(*this);
    return;
  }
  fail(sqlstate::admin_shutdown, "the pooler is shutting down");
  if (state_ == State::ending && timer_.is_scheduled())
    sessions_.timers().schedule(timer_, sessions_.now() + cut_flush_timeout);
}

void Session::drain() noexcept {
  draining_ = true;
  switch (state_) {
    case State::leased:
      try_release();
      return;
    case State::leaving:
    case State::ending:
      return;
    case State::login:
    case State::moving:
    case State::welcome:
    case State::ready:
    case State::waiting:
      if (!sessions_.is_draining()) return leave_pool();
      return fail(sqlstate::admin_shutdown, "the pooler is shutting down");
  }
}

// Its pool was removed, and may be back before the lease has ended: what holds the lease goes on
// holding it.
void Session::heed_return() noexcept {
  if (sessions_.is_draining()) return;
  if (sessions_.pools().successor_of(*pool_) != nullptr) draining_ = false;
}

void Session::on_reload() noexcept {
  // Before the login is done it has no pool; waiters were moved by the pools.
  if (pool_ == nullptr || !pool_->slice.is_superseded()) return;
  if (state_ == State::ready) return leave_pool();
  // The transaction ends in the pool that it began in, and so does a lease in session mode.
  if (state_ != State::leased) return;
  if (sessions_.pools().successor_of(*pool_) == nullptr) return drain();
  heed_return();
}

// Its pool is superseded, and it holds no backend.
void Session::leave_pool() noexcept {
  ASSERT(state_ == State::ready);
  ASSERT(pool_->slice.is_superseded());
  Pools& pools = sessions_.pools();
  draining_ = false;
  if (PoolEntry* next = pools.successor_of(*pool_)) {
    if (listening_ != nullptr && !is_heard_in(*next)) return fail_unheard();
    return join(*next);
  }
  const PoolSpec& spec = pool_->slice.spec();
  fail(pools.why_removed(spec.database, spec.user));
}

// Counts where it goes. It is in already: no limit on clients turns it away.
void Session::join(PoolEntry& next) noexcept {
  ASSERT(backend_ == nullptr);
  const PoolSpec& from = pool_->slice.spec();
  const PoolSpec& to = next.slice.spec();
  const auto move = [](const std::shared_ptr<Limit>& old, const std::shared_ptr<Limit>& other) {
    if (old == other) return;
    if (other != nullptr) other->take_regardless();
    if (old != nullptr) (void)old->give_back();
  };
  if (uses_pool_) {
    move(from.database_clients, to.database_clients);
    move(from.user_clients, to.user_clients);
    --pool_->slice.sessions_count;
    if (++next.slice.sessions_count == 1) sessions_.pools().activate(next.slice);
  }
  pool_ = &next;
  follow_time_limits();
  choose_following();
}

void Session::on_timeout(void* self) noexcept {
  Session& session = *static_cast<Session*>(self);
  switch (session.state_) {
    case State::ending:
      return session.stream_.terminate();
    case State::welcome:
      return session.fail_login();
    case State::waiting:
      return session.on_wait_due();
    case State::login:
    case State::moving:
      return session.fail(sqlstate::query_canceled, "client_login_timeout");
    case State::ready:
    case State::leased:
    case State::leaving:
      UNREACHABLE("timer in a state without one");
  }
}

}  // namespace helios
