#include "helios/pool/backend.h"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/pool/pools.h"
#include "helios/wire/backend_messages.h"
#include "helios/wire/writer.h"

namespace helios {
namespace {

// How long a server may take to close after Terminate before we cut the connection and count it.
constexpr Nanoseconds server_end_timeout = seconds(60);
// The same where the login had not ended.
constexpr Nanoseconds login_end_timeout = seconds(5);
// A successor is made so long before the end of a lifetime, or a tenth of it.
constexpr Nanoseconds replacement_lead_max = seconds(30);
// How long a server may take to end what a client has left: the cancel request, the rest of the
// replies and ROLLBACK together. Longer than any of these takes, and short for those who wait.
constexpr Nanoseconds recovery_timeout = seconds(5);
// A cancel request may come before the query that it is for, and ends one of several only: another
// one follows after this time.
constexpr Nanoseconds cancel_interval = milliseconds(500);
// How long cleaning may take before the backend is closed instead.
constexpr Nanoseconds cleaning_timeout = seconds(30);

// Stands for the name among those that one session has.
StatementKey name_key(const SqlStatement& statement) {
  return {0, std::hash<std::string>()(statement.name)};
}

bool contains(const SqlStatements& all, const SqlStatement& one) {
  return std::find(all.begin(), all.end(), one) != all.end();
}

}  // namespace

struct Backend::Login {
  Login(const BackendLoginOptions& options, Random& random)
      : dialogue(options, random), assembler(BackendLogin::message_size_max) {}
  BackendLogin dialogue;
  MessageAssembler assembler;
  bool waits_for_key = false;
  std::vector<uint8_t> early;  // Bytes that came while the key was derived.
  ParameterList reported;      // What the server has said of itself until it is ready.
};

const char* to_text(Backend::State state) noexcept {
  switch (state) {
    case Backend::State::connecting:
      return "connecting";
    case Backend::State::login:
      return "login";
    case Backend::State::preparing:
      return "preparing";
    case Backend::State::idle:
      return "idle";
    case Backend::State::leased:
      return "leased";
    case Backend::State::recovering:
      return "recovering";
    case Backend::State::cleaning:
      return "cleaning";
    case Backend::State::testing:
      return "testing";
    case Backend::State::held:
      return "held";
    case Backend::State::moving:
      return "moving";
    case Backend::State::closing:
      return "closing";
    case Backend::State::ended:
      return "ended";
  }
  UNREACHABLE("backend state");
}

Backend::Backend(Pools& pools, Slice& slice) noexcept
    : pools_(pools),
      slice_(&slice),
      stream_(pools.context().net, *this, BufferGroup::backend),
      timer_(&Backend::on_timeout, this) {}

Backend::~Backend() {
  ASSERT(lessee_ == nullptr);
  ASSERT(cancels_in_flight_ == 0);
  pools_.context().timers.cancel(timer_);
}

void Backend::start(const NodeAttempt& attempt, const std::string& resolve_error) noexcept {
  const PoolSpec& spec = slice_->spec();
  address_ = attempt.address;
  attempt_kind_ = attempt.kind;
  created_at = pools_.now();
  alive_count().fetch_add(1, std::memory_order_relaxed);
  if (address_.family() == AF_UNSPEC) {
    resolve_error_ = resolve_error;
    // The slice has not counted this connect yet: it hears of the failure from the loop.
    return pools_.context().timers.schedule(timer_, created_at);
  }
  expires_at_ = pools_.expiry(spec);
  login_ = std::make_unique<Login>(spec.login, pools_.context().random);
  schedule_login_timeout();
  stream_.start_connect(address_.get(), address_.size());
}

void Backend::start(BackendTransfer& transfer) noexcept {
  address_ = transfer.address;
  process_id_ = transfer.process_id;
  cancel_key_ = std::move(transfer.cancel_key);
  parameters_ =
      pools_.parameters().intern(transfer.parameters, transfer.settings, transfer.sql_statements);
  statements_.restore(transfer.statements);
  statements_.strays() = std::move(transfer.strays);
  created_at = transfer.created_at;
  expires_at_ = transfer.expires_at;
  idle_since = transfer.idle_since;
  transaction_status_ = 'I';
  was_ready_ = true;
  set_state(State::idle);
  stream_.open(transfer.fd, transfer.family);
}

// Every change of state passes here.
[[gnu::hot]] void Backend::set_state(State next) noexcept {
  ASSERT(state_ != State::ended);
  ASSERT(next != State::leased || state_ == State::idle);
  ASSERT(next != State::moving || state_ == State::idle);
  ASSERT(state_ != State::closing || next == State::ended);
  if (next == State::closing) alive_count().fetch_sub(1, std::memory_order_relaxed);
  state_ = next;
}

std::atomic<uint32_t>& Backend::alive_count() noexcept {
  return slice_->spec().shared->connections->alive_count;
}

// --- Connect and login ---

void Backend::on_connected(Stream&) noexcept {
  ASSERT(state_ == State::connecting);
  set_state(State::login);
  if (!is_doubted_) schedule_login_timeout();
  on_login_step(login_->dialogue.start());
}

// While a trial waits for a dead machine nobody would see that the node is back.
void Backend::schedule_login_timeout() noexcept {
  const PoolSpec& spec = slice_->spec();
  const bool is_short = attempt_kind_ == NodeAttempt::Kind::trial && state_ == State::connecting;
  const Nanoseconds timeout = spec.limits.connect_timeout;
  const Nanoseconds patience =
      is_short ? std::min(timeout, spec.node->health.trial_time()) : timeout;
  pools_.context().timers.schedule(timer_, created_at + patience);
}

void Backend::on_login_bytes(ByteSpan input) noexcept {
  is_answered_ = true;
  if (is_doubted_) [[unlikely]] {
    trust();
    schedule_login_timeout();
  }
  while (state_ == State::login && !input.empty()) {
    if (login_->waits_for_key) {
      // A well-behaved server is silent now; what comes is bounded by its own timeout and ours.
      if (login_->early.size() + input.size() > BackendLogin::message_size_max)
        return fail_login({std::string(sqlstate::protocol_violation),
                           "the server sent more than its login allows"});
      login_->early.insert(login_->early.end(), input.begin(), input.end());
      return;
    }
    const FrameStatus status = login_->assembler.feed(input);
    if (status == FrameStatus::need_more) return;
    if (status == FrameStatus::malformed)
      return fail_login({std::string(sqlstate::protocol_violation),
                         "the server sent a malformed message in the login"});
    on_login_step(login_->dialogue.on_message(login_->assembler.tag(), login_->assembler.body()));
    if (state_ == State::idle || state_ == State::preparing) {
      // Messages behind the first ReadyForQuery (a notice, say) come before anybody leases it.
      if (input.empty()) return on_end_of_input();
      return relay(input, BufferRef{});
    }
  }
}

void Backend::on_login_step(LoginStep step) noexcept {
  BackendLogin& dialogue = login_->dialogue;
  if (dialogue.has_output()) {
    std::string output = dialogue.take_output();
    stream_.send(as_bytes(output));
    wipe(output);
  }
  switch (step) {
    case LoginStep::more:
      return;
    case LoginStep::need_key:
      login_->waits_for_key = true;
      pools_.context().keys.request(dialogue.password(), as_bytes(dialogue.salt()),
                                    dialogue.rounds(), *this);
      return;
    case LoginStep::done:
      return on_logged_in();
    case LoginStep::failed:
      return fail_login(dialogue.error());
  }
}

void Backend::on_key(const Sha256Digest& salted_password) noexcept {
  ASSERT(state_ == State::login);
  login_->waits_for_key = false;
  on_login_step(login_->dialogue.on_key(salted_password));
  if (state_ != State::login) return;
  const std::vector<uint8_t> early = std::move(login_->early);
  login_->early.clear();
  on_login_bytes(early);
}

void Backend::on_logged_in() noexcept {
  process_id_ = login_->dialogue.process_id();
  cancel_key_ = login_->dialogue.cancel_key();
  login_->reported = login_->dialogue.parameters();
  parameters_ = pools_.parameters().intern(login_->reported);
  transaction_status_ = 'I';
  const std::string& connect_query = slice_->spec().limits.connect_query;
  if (connect_query.empty()) return set_state(State::idle);
  set_state(State::preparing);
  schedule_login_timeout();
  is_state_known_ = false;
  start_statement(connect_query);
}

// The answer to connect_query, as far as it is here.
void Backend::finish_preparing() noexcept {
  if (ledger_.is_copying_in())
    return fail_login(
        {std::string(sqlstate::feature_not_supported), "connect_query cannot feed a COPY"});
  if (!is_quiet()) return;
  if (transaction_status_ != 'I')
    return fail_login(
        {std::string(sqlstate::active_sql_transaction), "connect_query leaves a transaction open"});
  if (ask_base_state()) return;
  set_state(State::idle);
  become_ready();
}

// connect_query has changed it.
void Backend::note_reported(std::string_view name, std::string_view value) noexcept {
  for (auto& [known, old_value] : login_->reported) {
    if (!equal_names(known, name)) continue;
    old_value = value;
    return;
  }
  login_->reported.emplace_back(name, value);
}

// Logged in, and everything sent and received: the slice gets it. Called until then.
void Backend::become_ready() noexcept {
  ASSERT(state_ == State::idle);
  ASSERT(login_ != nullptr);
  choose_drained();
  if (!is_quiet()) return;
  pools_.context().timers.cancel(timer_);
  const std::unique_ptr<Login> login = std::move(login_);
  was_ready_ = true;
  slice_->counters.connect_time.record(static_cast<uint64_t>(pools_.now() - created_at));
  LOG(debug, "backend pid=%u of %s@%s on %s is ready", process_id_, slice_->spec().user.c_str(),
      slice_->spec().database.c_str(), address_.text().c_str());
  pools_.on_backend_ready(*this, {login->reported, parameters_->settings()});
}

void Backend::fail_login(PoolError error) noexcept {
  pools_.context().keys.cancel(*this);
  pools_.context().timers.cancel(timer_);
  // Also when the server ends it right behind its ReadyForQuery: it is idle, and nobody had it.
  if (state_ == State::preparing || state_ == State::idle) {
    start_closing(CloseReason::failed, false);
    return pools_.on_login_failed(*this, error);
  }
  ASSERT(state_ == State::connecting || state_ == State::login);
  count_end(CloseReason::failed);
  set_state(State::closing);
  pools_.on_login_failed(*this, error);
  end_login();
}

// As with any other, its permit is free when the server has let go of it.
void Backend::end_login() noexcept {
  if (stream_.is_open()) {
    stream_.finish_sending();
    pools_.context().timers.schedule(timer_, pools_.now() + login_end_timeout);
  } else if (stream_.state() == Stream::State::closed) {
    end();
  } else {
    stream_.terminate();
  }
}

// Where the server has only been asleep it finds this one first, and answers. Where it was started
// anew, or what stood before it forgot the connection, nobody ever will.
void Backend::doubt(Nanoseconds until) noexcept {
  if (!is_being_made() || is_answered_ || is_doubted_ || address_.family() == AF_UNSPEC) return;
  is_doubted_ = true;
  slice_->on_connect_doubted();
  if (until < timer_.deadline()) pools_.context().timers.schedule(timer_, until);
}

void Backend::trust() noexcept {
  if (std::exchange(is_doubted_, false)) slice_->on_connect_trusted();
}

// A server that does not know of the connection any more says so at once.
void Backend::give_up() noexcept {
  LOG(debug, "a connect to %s that was not answered is given up", address_.text().c_str());
  pools_.on_connect_given_up(*this);
  count_end(CloseReason::failed);
  set_state(State::closing);
  end_login();
}

// --- Leases ---

[[gnu::hot]] void Backend::lease_to(Lessee& lessee) noexcept {
  ASSERT(lessee_ == nullptr);
  ASSERT(ledger_.empty());
  ASSERT(transaction_status_ == 'I');
  ASSERT(stream_.unsent_size() == 0);
  set_state(State::leased);
  is_ready_held_ = false;
  ledger_.disown_unnamed();
  // DISCARD ALL has come between two clients.
  if (slice_->spec().limits.mode == LeaseMode::session) ledger_.lack_unnamed();
  leased_at_ = pools_.now();
  last_lease_ = std::exchange(lease_, pools_.next_lease());
  lessee_ = &lessee;
  lessee.on_leased(*this);
}

[[gnu::hot]] bool Backend::apply_parameters(const ParameterSetRef& wanted) noexcept {
  ASSERT(state_ == State::leased);
  if (wanted == parameters_ || wanted.is_null()) return false;
  ParameterStore& store = pools_.parameters();
  const bool prepares = parameters_->statements() != wanted->statements();
  // Names are in the encoding that still holds, and texts in the next.
  if (prepares) deallocate_all_but(wanted->statements());
  const std::string_view statement =
      store.set_statement(*parameters_, *wanted, slice_->spec().login.user);
  if (!statement.empty()) {
    start_statement(statement);
    set_names_ |= changed_names(*parameters_, *wanted);
  }
  // The others are reported. When the server refuses one, nobody uses this backend any more.
  parameters_ = store.with_settings(parameters_, wanted->settings());
  if (prepares) prepare_as(wanted->statements());
  return !statement.empty() || prepares;
}

void Backend::set_surely(const ParameterSet& values, ReportedNames names) noexcept {
  ASSERT(state_ == State::leased);
  names &= static_cast<ReportedNames>(~set_names_);
  const std::string_view statement = pools_.parameters().set_again_statement(values, names);
  if (statement.empty()) return;
  start_statement(statement);
  set_names_ |= names;
}

// What PREPARE has made here becomes what it has made of `wanted`: first what is of no use goes,
// then comes what is missing.
void Backend::deallocate_all_but(const SqlStatements& wanted) noexcept {
  for (const SqlStatement& statement : parameters_->statements()) {
    if (contains(wanted, statement)) continue;
    std::string text = "DEALLOCATE ";
    append_quoted_name(text, statement.name);
    start_statement(text);
  }
}

void Backend::prepare_as(const SqlStatements& wanted) noexcept {
  for (const SqlStatement& statement : wanted) {
    if (contains(parameters_->statements(), statement)) continue;
    ledger_.on_sent({name_key(statement), 'Q', LedgerAction::skip, ledger_mark::prepares});
    send_query(statement.text);
  }
  set_sql_statements(wanted);
}

void Backend::set_sql_statements(const SqlStatements& statements) noexcept {
  parameters_ = pools_.parameters().with_statements(parameters_, statements);
}

// A server may not take again what it took once: the table is gone, say. Whoever uses the statement
// is told that it does not exist.
void Backend::on_not_prepared(const StatementKey& key) noexcept {
  SqlStatements left = parameters_->statements();
  std::erase_if(left, [&](const SqlStatement& one) { return name_key(one) == key; });
  set_sql_statements(left);
}

void Backend::ask_state(std::unique_ptr<StateProbe> probe) noexcept {
  ASSERT(is_quiet());
  ASSERT(transaction_status_ == 'I');
  ASSERT(probe_ == nullptr);
  for (const auto& [name, value] : parameters_->settings()) {
    if (name == "role") probe->asks_role = true;
    if (name.find('.') == std::string::npos) continue;
    std::vector<std::string>& names = probe->custom_names;
    if (std::find(names.begin(), names.end(), name) == names.end()) names.push_back(name);
  }
  probe_ = std::move(probe);
  ++slice_->counters.state_probes;
  start_statement(probe_->statement());
}

// True: what connect_query has set is not known yet, and the server is asked.
bool Backend::ask_base_state() noexcept {
  if (is_state_known_ || !slice_->spec().limits.follows_state()) return false;
  auto probe = std::make_unique<StateProbe>();
  probe->asks_role = true;
  ask_state(std::move(probe));
  return true;
}

// It has gone back to what a new session of this server has.
void Backend::forget_settings() noexcept {
  parameters_ = pools_.parameters().with_settings(parameters_, {});
  set_names_ = 0;
}

void Backend::start_statement(std::string_view text) noexcept {
  ledger_.on_sent('Q', LedgerAction::skip);
  send_query(text);
}

void Backend::send_query(std::string_view text) noexcept {
  MessageWriter& writer = pools_.writer();
  write_query(writer, text);
  transaction_status_ = 0;
  send_own(writer.bytes());
}

// What no client has sent: it is no part of a batch that could be sent again.
void Backend::send_own(ByteSpan bytes) noexcept {
  batch_.forget();
  send(bytes);
}

void Backend::start_sync() noexcept {
  MessageWriter& writer = pools_.writer();
  write_sync(writer);
  ledger_.on_sent('S', LedgerAction::skip);
  transaction_status_ = 0;
  send_own(writer.bytes());
}

void Backend::drop_foreign_statement() noexcept {
  constexpr uint8_t close_unnamed[] = {'C', 0, 0, 0, 6, 'S', 0};
  ledger_.on_sent('C', LedgerAction::skip);
  send_own(close_unnamed);
}

void Backend::send_flush() noexcept {
  constexpr uint8_t flush[] = {'H', 0, 0, 0, 4};
  send_own(flush);
}

[[gnu::hot]] bool Backend::is_quiet() const noexcept {
  return ledger_.empty() && !ledger_.is_copying_in() && !ledger_.is_skipping_to_sync() &&
         !ledger_.is_ambiguous() && transaction_status_ != 0 && reader_.at_boundary() &&
         stream_.unsent_size() == 0 && !fatal_seen_;
}

[[gnu::hot]] void Backend::give_back(Cleaning cleaning) noexcept {
  ASSERT(state_ == State::leased);
  ASSERT(is_quiet());
  ASSERT(transaction_status_ == 'I');
  (void)end_lease();
  cleaning_ = cleaning;
  if (stream_.is_receive_paused()) stream_.resume_receive();
  settle();
}

void Backend::recover(const char* reason, Cleaning cleaning) noexcept {
  ASSERT(state_ == State::leased);
  if (is_single_use()) return close(reason, CloseReason::single_use);
  if (!is_recoverable()) return close(reason, CloseReason::dropped);
  LOG(debug, "backend pid=%u of %s@%s recovers: %s", process_id_, slice_->spec().user.c_str(),
      slice_->spec().database.c_str(), reason);
  if (!is_quiet() || transaction_status_ != 'I') ++slice_->counters.recoveries;
  (void)end_lease();
  forwarding_ = false;
  is_rolling_back_ = false;
  // A statement of ours alone ends by itself.
  const bool is_busy = ledger_.size() > (ledger_.is_head_skipped() ? 1 : 0);
  // Nobody sees the answers that are still to come; they may tell of state that stays behind.
  cleaning_ = is_busy ? Cleaning::all : cleaning;
  set_state(State::recovering);
  recovery_ends_at_ = pools_.now() + recovery_timeout;
  if (stream_.is_receive_paused()) stream_.resume_receive();
  cancel_what_runs();
  if (is_batch_open()) {
    // A Sync alone would commit what the server has done of it, as no client that goes has asked
    // for. After an error the server ignores this ROLLBACK: then nothing is left to undo.
    start_statement("ROLLBACK");
    start_sync();
  }
  choose_drained();
  go_on_recovering();
}

// Until the server has got to the end of what the client asked for.
void Backend::cancel_what_runs() noexcept {
  const Nanoseconds now = pools_.now();
  if (now >= recovery_ends_at_) return close("what a client left did not end in time");
  pools_.context().timers.schedule(timer_, std::min(now + cancel_interval, recovery_ends_at_));
  // A statement of ours is to go on.
  const bool is_of_client = !ledger_.empty() && !ledger_.is_head_skipped();
  if (is_of_client && cancels_in_flight_ == 0 && process_id_ != 0)
    pools_.cancels().start(*this, CancelAim::all, {});
}

// What is still to come is known, and the server can be brought to its end.
bool Backend::is_recoverable() const noexcept {
  // Only a client can end a COPY that reads from it. When the process stops, the end is near
  // anyway.
  return stream_.is_open() && !fatal_seen_ && !is_unsafe_ && !ledger_.is_copying_in() &&
         !ledger_.is_ambiguous() && !pools_.is_draining();
}

// The Sync is missing that ends what the client began.
bool Backend::is_batch_open() const noexcept {
  if (ledger_.empty()) return is_batch_waiting();
  return !ledger_.ends_with_ready_request();
}

void Backend::go_on_recovering() noexcept {
  if (is_unsafe_) return close("a cancel request may still arrive", CloseReason::dropped);
  if (ledger_.is_copying_in() || ledger_.is_ambiguous())
    return close("a client that has gone left a COPY", CloseReason::dropped);
  // Its batch has failed, and so is rolled back.
  if (ledger_.is_skipping_to_sync()) return start_sync();
  // A cancel request in flight could hit what we send.
  if (!is_quiet() || cancels_in_flight_ > 0) return;
  if (transaction_status_ == 'I') return settle();
  if (std::exchange(is_rolling_back_, true))
    return close("in a transaction after ROLLBACK", CloseReason::dropped);
  start_statement("ROLLBACK");
}

// Nobody holds it any more. Returns who did, if anybody.
[[gnu::hot]] Lessee* Backend::end_lease() noexcept {
  batch_.forget();
  if (!pins_.is_empty()) [[unlikely]]
    change_pins(0);
  if (lessee_ != nullptr)
    slice_->counters.use_time.record(static_cast<uint64_t>(pools_.now() - leased_at_));
  return std::exchange(lessee_, nullptr);
}

// A lease has ended and the backend is quiet (or unsafe); makes it fit for the next.
[[gnu::hot]] void Backend::settle() noexcept {
  if (is_single_use()) return close("its client has left", CloseReason::single_use);
  if (is_unsafe_) return close("a cancel request may still arrive", CloseReason::dropped);
  // A cancel request in flight could hit the next lessee's query.
  if (cancels_in_flight_ > 0) return hold();
  if (cleaning_ != Cleaning::none) return clean();
  place();
}

void Backend::clean() noexcept {
  set_state(State::cleaning);
  pools_.context().timers.schedule(timer_, pools_.now() + cleaning_timeout);
  ++slice_->counters.resets;
  if (cleaning_ == Cleaning::all) {
    start_statement("DISCARD ALL");
    statements_.clear();
    set_sql_statements({});
    // It leaves no role, even where the session began with one.
    if (find_parameter(slice_->spec().login.parameters, "role") != nullptr)
      start_statement("RESET ROLE");
  } else {
    start_statement(
        "RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;CLOSE ALL;UNLISTEN *;"
        "SELECT pg_catalog.pg_advisory_unlock_all();DISCARD TEMP;DISCARD SEQUENCES");
  }
  cleaning_ = Cleaning::none;
  forget_settings();
  // What connect_query has set is gone with it.
  const std::string& connect_query = slice_->spec().limits.connect_query;
  if (connect_query.empty()) return;
  start_statement(connect_query);
  is_state_known_ = false;
}

void Backend::hold() noexcept {
  if (state_ != State::held) set_state(State::held);
  pools_.context().timers.schedule(timer_, pools_.now() + cleaning_timeout);
}

void Backend::place() noexcept {
  pools_.context().timers.cancel(timer_);
  set_state(State::idle);
  const Nanoseconds now = pools_.now();
  if (pools_.is_draining()) return start_closing(CloseReason::shutting_down, false);
  if (now >= expires_at_) return start_closing(CloseReason::lifetime, false);
  if (pools_.must_make_room(*slice_)) return start_closing(CloseReason::made_room, false);
  slice_->release(*this, now);
  if (slice_->is_superseded()) pools_.leave_superseded(*this);
}

void Backend::start_test() noexcept {
  ASSERT(state_ == State::idle);
  set_state(State::testing);
  ++slice_->counters.tests;
  pools_.context().timers.schedule(timer_, pools_.now() + seconds(5));
  start_statement("");
}

CancelDue Backend::cancel_due() const noexcept {
  if (ledger_.empty() || process_id_ == 0 || state_ == State::ended) return CancelDue::nothing;
  const bool is_own = ledger_.is_head_skipped() && state_ != State::closing;
  return is_own ? CancelDue::later : CancelDue::now;
}

void Backend::on_cancel_ended(bool uncertain) noexcept {
  ASSERT(cancels_in_flight_ > 0);
  --cancels_in_flight_;
  is_unsafe_ = is_unsafe_ || uncertain;
  if (cancels_in_flight_ > 0) return;
  // Half a message would be cut: then the rest of it settles.
  if (state_ == State::held && (is_unsafe_ || is_quiet())) settle();
  if (state_ == State::recovering) go_on_recovering();
  if (lessee_ != nullptr) lessee_->on_cancel_ended();
  if (is_destroyable()) pools_.on_backend_destroyable(*this);
}

// --- Moving to another core ---

void Backend::start_move(CoreId to) noexcept {
  ASSERT(cancels_in_flight_ == 0);
  ASSERT(is_quiet());
  set_state(State::moving);
  moving_to_ = to;
  stream_.start_detach();
}

void Backend::set_slice(Slice& slice) noexcept {
  ASSERT(state_ == State::idle);
  slice_ = &slice;
}

void Backend::on_detachable(Stream& stream) noexcept {
  ASSERT(state_ == State::moving);
  if (!is_quiet()) {
    violate("bytes while idle");
    return;
  }
  auto transfer = std::make_unique<BackendTransfer>();
  transfer->spec = slice_->spec_ref();
  transfer->family = address_.family();
  transfer->address = address_;
  transfer->process_id = process_id_;
  transfer->cancel_key = cancel_key_;
  transfer->parameters = parameters_->list();
  transfer->settings = parameters_->settings();
  transfer->sql_statements = parameters_->statements();
  transfer->statements = statements_.list();
  transfer->strays = std::move(statements_.strays());
  transfer->created_at = created_at;
  transfer->expires_at = expires_at_;
  transfer->idle_since = idle_since;
  transfer->fd = stream.release_fd();
  set_state(State::ended);
  transfer->permit_home = slice_->on_moved(moving_to_);
  pools_.send_backend(*slice_, moving_to_, std::move(transfer));
  pools_.on_backend_destroyable(*this);
}

// --- The end ---

bool Backend::is_near_its_end(Nanoseconds now) const noexcept {
  if (expires_at_ == never || is_retired_) return false;
  const PoolLimits& limits = slice_->spec().limits;
  // A session keeps its backend for as long as it likes: a successor would wait for nothing.
  const bool is_kept =
      state_ == State::leased && (limits.mode == LeaseMode::session || !pins_.is_empty());
  if ((state_ != State::idle && state_ != State::leased) || is_kept) return false;
  return now >= expires_at_ - std::min(limits.max_lifetime / 10, replacement_lead_max);
}

void Backend::retire() noexcept {
  if (state_ == State::closing || state_ == State::ended) return;
  is_retired_ = true;
  expires_at_ = pools_.now();
  if (state_ == State::idle) close("its successor is there", CloseReason::lifetime);
}

void Backend::close(const char* text, CloseReason reason, bool mid_message) noexcept {
  if (state_ == State::closing || state_ == State::ended) return;
  LOG(debug, "backend pid=%u of %s@%s closes (%s): %s", process_id_, slice_->spec().user.c_str(),
      slice_->spec().database.c_str(), to_text(state_), text);
  (void)end_lease();
  if (is_being_made()) return fail_login({std::string(sqlstate::admin_shutdown), text});
  if (state_ == State::idle && is_linked()) slice_->take_idle(*this);
  if (state_ == State::moving) slice_->on_move_failed(moving_to_);
  start_closing(reason, mid_message);
}

// The end begins, for whatever reason.
void Backend::count_end(CloseReason reason) noexcept {
  PoolCounters& counters = slice_->counters;
  if (state_ == State::testing && reason == CloseReason::failed) ++counters.tests_failed;
  ++(was_ready_ ? counters.closes[reason] : counters.connect_failures);
}

// Terminate, our end of file, then the server's: only then is the permit free.
void Backend::start_closing(CloseReason reason, bool mid_message) noexcept {
  count_end(reason);
  // In a stream of replication the server reads, and ends on Terminate.
  const bool is_busy =
      !ledger_.empty() && !ledger_.is_streaming() && stream_.is_open() && !fatal_seen_;
  set_state(State::closing);
  // A busy server reads nothing until its query has ended.
  if (is_busy && process_id_ != 0 && !pools_.is_draining())
    pools_.cancels().start(*this, CancelAim::all, {});
  if (!stream_.is_open() || pools_.is_stopped()) return stream_.terminate();
  if (stream_.is_receive_paused()) stream_.resume_receive();
  if (!mid_message) {
    MessageWriter& writer = pools_.writer();
    write_terminate(writer);
    stream_.send(writer.bytes());
  }
  stream_.finish_sending();
  pools_.context().timers.schedule(timer_, pools_.now() + server_end_timeout);
}

void Backend::cut() noexcept {
  Lessee* lessee = end_lease();
  if (state_ != State::closing && state_ != State::ended)
    close("stopped", CloseReason::shutting_down);
  if (lessee != nullptr)
    lessee->on_backend_lost({std::string(sqlstate::admin_shutdown), "the pooler is shutting down"},
                            Loss::connection);
  stream_.terminate();
}

void Backend::on_timeout(void* self) noexcept {
  Backend& backend = *static_cast<Backend*>(self);
  if (backend.is_doubted_ && backend.is_being_made()) return backend.give_up();
  switch (backend.state_) {
    case State::connecting:
      return backend.fail_login(
          {std::string(sqlstate::connection_failure),
           backend.resolve_error_.empty() ? "connect timeout" : backend.resolve_error_});
    case State::login:
      return backend.fail_login({std::string(sqlstate::connection_failure), "login timeout"});
    case State::preparing:
      return backend.fail_login({std::string(sqlstate::connection_failure),
                                 "connect_query took longer than connect_timeout"});
    case State::recovering:
      return backend.cancel_what_runs();
    case State::cleaning:
      return backend.close("its cleaning took too long");
    case State::testing:
      // Whoever waits must not wait for its end of file too.
      backend.close("no answer to the test before use");
      return backend.stream_.terminate();
    case State::closing:
      ++backend.slice_->counters.late_ends;
      LOG_LIMITED(warning, "server process %u on %s did not close in time; its connection is cut",
                  backend.process_id_, backend.address_.text().c_str());
      return backend.stream_.terminate();
    case State::idle:
      return backend.close("login timeout");
    case State::held:
      return backend.close("a cancel request or half a message took too long");
    case State::leased:
    case State::moving:
    case State::ended:
      UNREACHABLE("timer in a state without one");
  }
}

void Backend::on_ended(Stream& stream, StreamEnd end, int error) noexcept {
  const char* text =
      end == StreamEnd::peer_closed ? "the server closed the connection" : strerror(error);
  if (is_being_made()) {
    if (is_doubted_) {
      give_up();
    } else {
      is_answered_ = state_ != State::connecting;
      fail_login({std::string(sqlstate::connection_failure), text});
    }
    stream.terminate();
    return;
  }
  if (state_ != State::closing) {
    pools_.context().timers.cancel(timer_);  // What it was for has ended.
    Lessee* lessee = end_lease();
    count_end(CloseReason::failed);
    if (state_ == State::idle && is_linked()) slice_->take_idle(*this);
    if (state_ == State::moving) slice_->on_move_failed(moving_to_);
    if (lessee != nullptr || !fatal_seen_)
      LOG_LIMITED(warning, "server process %u on %s: connection lost while %s: %s", process_id_,
                  address_.text().c_str(), to_text(state_), text);
    set_state(State::closing);
    if (lessee != nullptr)
      lessee->on_backend_lost(
          {std::string(sqlstate::connection_failure), "server closed the connection unexpectedly"},
          Loss::connection);
  }
  stream.terminate();
}

void Backend::on_closed(Stream&) noexcept {
  ASSERT(state_ == State::closing);
  end();
}

void Backend::end() noexcept {
  pools_.context().timers.cancel(timer_);
  pools_.context().keys.cancel(*this);
  trust();
  set_state(State::ended);
  if (cancels_in_flight_ > 0) pools_.cancels().withdraw(*this);
  pools_.on_backend_gone(*this);
  if (is_destroyable()) pools_.on_backend_destroyable(*this);
}

void Backend::on_drained(Stream&) noexcept {
  if (state_ == State::leased && lessee_ != nullptr) lessee_->on_backend_drained();
  if (state_ == State::preparing || state_ == State::idle || is_settling()) on_end_of_input();
}

}  // namespace helios
