// One server connection: connect, login, leases, moves between cores, and its end.
//
// State     | waits for                         | ends by
// connecting| the connect op                    | login, ended
// login     | the server's login messages       | preparing; idle or leased (by the slice), ended
// preparing | the replies of connect_query      | idle or leased (by the slice), closing
// idle      | a lessee; unasked messages        | leased, testing, moving, closing
// leased    | the lessee                        | give_back, recover, close, the server's end
// recovering| replies to a client that has gone, | as give_back, closing
//           | then to ROLLBACK                  |
// cleaning  | the replies of what cleans it     | idle or leased, closing
// testing   | the replies of a ping             | idle or leased, closing
// held      | cancel requests aimed at it       | as give_back
// moving    | the last event of its receive     | gone to another core, closing
// closing   | the server's end of file          | ended
// ended     | on_closed of its stream           | destroyed by Pools
//
// A backend holds a permit of its pool (and one of each shared limit) from connect until the server
// has let go: it counts as gone when the server's end of file has come, not when Terminate was
// sent.
//
// Owned by the Pools of its core; used by that core only.
// Invariant: idle, testing, recovering, cleaning and moving have no lessee; leased has one. Bytes
// go to a lessee only while it holds the lease.
#pragma once

#include <algorithm>
#include <atomic>
#include <memory>
#include <string>
#include <vector>

#include "helios/base/address.h"
#include "helios/net/stream.h"
#include "helios/pool/backend_login.h"
#include "helios/pool/backend_statements.h"
#include "helios/pool/ledger.h"
#include "helios/pool/lessee.h"
#include "helios/pool/parameters.h"
#include "helios/pool/pins.h"
#include "helios/pool/sent_batch.h"
#include "helios/pool/slice.h"
#include "helios/pool/state_probe.h"
#include "helios/runtime/timer_wheel.h"
#include "helios/wire/frame_reader.h"
#include "helios/wire/key_derivation.h"

namespace helios {

class Pools;

// What comes between two leases, for what the first one left in the server's session.
enum class Cleaning : uint8_t {
  none,
  state,  // Everything but prepared statements goes.
  all,    // DISCARD ALL.
};

// A backend on its way to another core: its whole state. Owned by the message that carries it.
struct BackendTransfer {
  PoolSpecRef spec;
  CoreId permit_home = 0;  // See slice.h.
  int fd = -1;
  int family = 0;
  SocketAddress address;
  uint32_t process_id = 0;
  std::string cancel_key;
  ParameterList parameters;
  ParameterList settings;
  SqlStatements sql_statements;
  BackendStatements::List statements;
  std::vector<std::string> strays;
  Welcome welcome;  // The other core may not know it yet.
  Nanoseconds created_at = 0;
  Nanoseconds expires_at = never;
  Nanoseconds idle_since = 0;
};

// Whether a cancel request may be sent now.
enum class CancelDue : uint8_t {
  now,
  later,    // A statement of the pooler's own comes first.
  nothing,  // There is nothing to cancel.
};

class Backend final : public PooledBackend, private StreamOwner, private KeyClient {
 public:
  enum class State : uint8_t {
    connecting,
    login,
    preparing,
    idle,
    leased,
    recovering,
    cleaning,
    testing,
    held,
    moving,
    closing,
    ended,
  };

  Backend(Pools& pools, Slice& slice) noexcept;
  ~Backend();

  // Begins to connect. `resolve_error`: what the connect fails with where there is no address.
  void start(const NodeAttempt& attempt, const std::string& resolve_error) noexcept;
  // Takes over a connection of another core.
  void start(BackendTransfer& transfer) noexcept;

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] Slice& slice() const noexcept { return *slice_; }
  // Requires: moving.
  [[nodiscard]] CoreId moving_to() const noexcept { return moving_to_; }
  [[nodiscard]] const SocketAddress& address() const noexcept { return address_; }
  [[nodiscard]] uint32_t process_id() const noexcept { return process_id_; }
  [[nodiscard]] const std::string& cancel_key() const noexcept { return cancel_key_; }
  [[nodiscard]] const ParameterSetRef& parameters() const noexcept { return parameters_; }
  [[nodiscard]] Ledger& ledger() noexcept { return ledger_; }
  [[nodiscard]] const Ledger& ledger() const noexcept { return ledger_; }
  [[nodiscard]] uint8_t transaction_status() const noexcept { return transaction_status_; }
  // As the last ReadyForQuery has told it, whatever was sent since.
  [[nodiscard]] uint8_t last_status() const noexcept { return last_status_; }
  // Something was sent since the last Sync or simple query and is answered, as far as it is in the
  // ledger; only a Sync ends it.
  [[nodiscard]] bool is_batch_waiting() const noexcept {
    return ledger_.empty() && transaction_status_ == 0 && !ledger_.is_skipping_to_sync();
  }

  // --- For the lessee ---

  // Makes the session's parameters, and what PREPARE has made in it, those of `wanted`, with
  // statements whose replies are swallowed. Returns false when they are already.
  bool apply_parameters(const ParameterSetRef& wanted) noexcept;
  // Sets these to what they are in `values`, as above, unless the session has surely set them: a
  // value that it merely began with cannot be told from one that RESET has led to.
  void set_surely(const ParameterSet& values, ReportedNames names) noexcept;
  // What PREPARE has made here, as the server told (StateProbe::asks_statements).
  void set_sql_statements(const SqlStatements& statements) noexcept;
  // Asks the server about the state of its session; Lessee::on_state tells when the answer is here.
  // Custom parameters that are known to be set, and the role, need not be named. Requires: leased,
  // is_quiet(), transaction status idle.
  void ask_state(std::unique_ptr<StateProbe> probe) noexcept;
  // Sends a statement of the pooler's own: its replies are swallowed, and Lessee::on_ready or
  // on_skipped_error tells of its end.
  void start_statement(std::string_view text) noexcept;
  // Why the lessee keeps it beyond its transaction, as of now; `client`: its number, for the log.
  // With the lease they end. Requires: leased.
  void set_pins(PinReasons reasons, uint32_t client) noexcept {
    if (reasons == pins_.reasons()) return;
    pinning_client_ = client;
    change_pins(reasons);
  }
  [[nodiscard]] const Pins& pins() const noexcept { return pins_; }
  // Whose they are. Requires: there are some.
  [[nodiscard]] uint32_t pinning_client() const noexcept { return pinning_client_; }
  // Announces a message (Ledger::on_sent), then sends its bytes in pieces.
  void on_request(uint8_t tag) noexcept {
    if (batch_.is_kept()) batch_.add({{}, tag, LedgerAction::forward, 0});
    ledger_.on_sent(tag, LedgerAction::forward);
    transaction_status_ = 0;
  }
  // The same for a message with marks. What is FAKE is answered by answer_fakes().
  void on_request(const LedgerEntry& entry) noexcept {
    if (batch_.is_kept()) batch_.add(entry);
    ledger_.on_sent(entry);
    if (entry.action != LedgerAction::fake) transaction_status_ = 0;
  }
  // A Sync of the pooler's own, behind messages of its own.
  void start_sync() noexcept;
  // Makes sure that the client's next message finds no other client's unnamed statement: the server
  // then says that there is none.
  void drop_foreign_statement() noexcept;
  // The number of this lease among those of the core, and of the one before it; 0: there was none
  // on this core.
  [[nodiscard]] uint64_t lease() const noexcept { return lease_; }
  [[nodiscard]] uint64_t last_lease() const noexcept { return last_lease_; }
  // The server sends the replies that it has.
  void send_flush() noexcept;
  // Writes the replies whose turn has come. Behind on_request(), and whenever a reply has passed.
  void answer_fakes() noexcept;
  [[nodiscard]] BackendStatements& statements() noexcept { return statements_; }
  // Nothing of the batch that comes next has been sent: what is sent now is not skipped for
  // anything that was sent before.
  [[nodiscard]] bool is_between_batches() const noexcept {
    return !ledger_.may_skip_next() && !is_batch_waiting();
  }
  void send(ByteSpan bytes) noexcept {
    if (batch_.is_kept()) batch_.add(bytes);
    choose_drained();
    stream_.send(bytes);
  }
  void send_received(ByteSpan bytes, BufferRef buffer) noexcept {
    if (batch_.is_kept()) batch_.add(bytes);
    choose_drained();
    stream_.send_received(bytes, buffer);
  }
  // The message that is announced next uses a statement that the backend has. If it begins a batch
  // outside of a transaction, and the statement turns out to be out of date, the statement is
  // prepared anew and the batch sent again (sent_batch.h).
  void keep_batch(const Statement& statement) noexcept;
  // That is going to happen: nothing may be sent before.
  [[nodiscard]] bool is_sending_again() const noexcept { return batch_.is_due(); }
  [[nodiscard]] bool is_above_high_mark() const noexcept { return stream_.is_above_high_mark(); }
  [[nodiscard]] bool has_unsent() const noexcept { return stream_.unsent_size() > 0; }
  // During this lease each ReadyForQuery is shown to the lessee before it is forwarded; a lessee
  // that closes the backend then keeps it from the client.
  void hold_ready() noexcept { is_ready_held_ = true; }
  // The lessee's client reads too slowly, or again.
  void pause_receive() noexcept { stream_.pause_receive(); }
  void resume_receive() noexcept { stream_.resume_receive(); }

  // The server owes nothing, nothing is buffered either way, and no COPY goes on: the lease may end
  // if the transaction status allows it.
  [[nodiscard]] bool is_quiet() const noexcept;
  // No message of the server is half received.
  [[nodiscard]] bool is_at_boundary() const noexcept { return reader_.at_boundary(); }
  // Ends the lease of a quiet backend; it is cleaned before the next lessee gets it. (Of a
  // single-use pool it ends, here and below.) Requires: leased, is_quiet(), transaction status
  // idle. Note: may lease it at once to another.
  void give_back(Cleaning cleaning) noexcept;
  // Ends the lease of a client that goes, whatever it leaves: a server that is busy gets a cancel
  // request, what it still answers is swallowed, an open transaction is rolled back; then as
  // give_back. Where that cannot be done, or not in time, the connection ends instead. Requires:
  // leased, no message sent in part only. Note: on_backend_lost is not called; may lease it at once
  // to another.
  void recover(const char* reason, Cleaning cleaning) noexcept;
  // Ends the lease and the connection. A server that is busy gets a cancel request first. Note:
  // on_backend_lost is not called. `text`: for the log. `mid_message`: the last message to the
  // server was sent in part only.
  [[gnu::cold]] void close(const char* text, CloseReason reason = CloseReason::failed,
                           bool mid_message = false) noexcept;

  // --- For Pools ---

  void lease_to(Lessee& lessee) noexcept;
  void start_test() noexcept;
  void start_move(CoreId to) noexcept;
  // Its pool has another generation, and it goes there. Requires: idle.
  void set_slice(Slice& slice) noexcept;
  [[nodiscard]] CancelDue cancel_due() const noexcept;
  void on_cancel_started() noexcept { ++cancels_in_flight_; }
  // One that was not sent is not sent any more. Note: does nothing else; the caller looks what
  // follows from it.
  void on_cancel_withdrawn() noexcept { --cancels_in_flight_; }
  // `uncertain`: the request may still arrive at the server.
  void on_cancel_ended(bool uncertain) noexcept;
  [[nodiscard]] uint32_t cancels_in_flight() const noexcept { return cancels_in_flight_; }
  [[nodiscard]] bool is_destroyable() const noexcept {
    return state_ == State::ended && stream_.state() == Stream::State::closed &&
           cancels_in_flight_ == 0;
  }
  // Between two leases: it is made fit for the next one.
  [[nodiscard]] bool is_settling() const noexcept {
    return state_ == State::recovering || state_ == State::cleaning || state_ == State::testing ||
           state_ == State::held;
  }
  [[nodiscard]] bool was_ready() const noexcept { return was_ready_; }
  // The server has said something, if only by ending the connection that it had accepted.
  [[nodiscard]] bool is_answered() const noexcept { return is_answered_; }
  // What it was begun with.
  [[nodiscard]] NodeAttempt attempt() const noexcept {
    return {address_, attempt_kind_, created_at};
  }
  // Its node has answered others since it was begun: nobody counts on it any more, and when its
  // server has said nothing until then it is given up. One that is answered, or ready, goes on.
  void doubt(Nanoseconds until) noexcept;
  // For a login that failed: when its slice may try again. Kept by Pools.
  Nanoseconds retry_at = 0;
  // Its lifetime ends then at the latest.
  void expire_by(Nanoseconds time) noexcept {
    if (!is_single_use()) expires_at_ = std::min(expires_at_, time);
  }
  [[nodiscard]] bool is_expired(Nanoseconds now) const noexcept { return now >= expires_at_; }
  // It was idle for so long that it is tested before it is used (test_after).
  [[nodiscard]] bool is_stale(Nanoseconds now) const noexcept {
    return now - idle_since >= slice_->spec().limits.test_after;
  }
  // The end of its lifetime is so near that its successor should come: ready, in use or idle, and
  // without one.
  [[nodiscard]] bool is_near_its_end(Nanoseconds now) const noexcept;
  // Its successor is there: ends now if it is idle, else when it would become so.
  void retire() noexcept;
  [[nodiscard]] bool is_retired() const noexcept { return is_retired_; }
  // Nobody could have leased it yet.
  [[nodiscard]] bool is_being_made() const noexcept {
    return !was_ready_ && state_ != State::closing && state_ != State::ended;
  }
  // Ends the connection at once, without a word to the server.
  void cut() noexcept;

 private:
  // While a reply is due it comes after the end of what is sent. When none is, the end itself may
  // be what the backend's release waits for.
  void choose_drained() noexcept { stream_.want_drained(ledger_.empty()); }
  void on_connected(Stream& stream) noexcept override;
  void on_received(Stream& stream, ByteSpan bytes, BufferRef buffer) noexcept override;
  void on_drained(Stream& stream) noexcept override;
  void on_ended(Stream& stream, StreamEnd end, int error) noexcept override;
  void on_closed(Stream& stream) noexcept override;
  void on_detachable(Stream& stream) noexcept override;
  void on_key(const Sha256Digest& salted_password) noexcept override;

  void set_state(State next) noexcept;
  // Of its pool (PoolConnections).
  [[nodiscard]] std::atomic<uint32_t>& alive_count() noexcept;
  void on_login_bytes(ByteSpan input) noexcept;
  void on_login_step(LoginStep step) noexcept;
  void on_logged_in() noexcept;
  void finish_preparing() noexcept;
  void become_ready() noexcept;
  void fail_login(PoolError error) noexcept;
  void end_login() noexcept;
  void schedule_login_timeout() noexcept;
  void trust() noexcept;
  void give_up() noexcept;
  static void on_timeout(void* self) noexcept;

  // Reading replies (backend_replies.cc).
  void relay(ByteSpan input, BufferRef buffer) noexcept;
  void begin_message() noexcept;
  void begin_reply(uint8_t tag) noexcept;
  [[nodiscard]] bool is_held_back(uint8_t tag) const noexcept;
  [[nodiscard]] bool note_answer(uint8_t tag) noexcept;
  void take_held(ByteSpan body) noexcept;
  void take_error(ByteSpan body) noexcept;
  void lose_to(const ErrorFields& fields) noexcept;
  void collect(ByteSpan body) noexcept;
  void finish_message(ByteSpan last) noexcept;
  void apply_message(ByteSpan body) noexcept;
  void note_statements(uint8_t tag, const Reply& reply) noexcept;
  void judge_statement(std::string_view sqlstate) noexcept;
  [[nodiscard]] bool is_worth_another_try(std::string_view code) noexcept;
  void send_again() noexcept;
  void finish_ready(ByteSpan body) noexcept;
  void finish_notification(ByteSpan body) noexcept;
  void finish_probe() noexcept;
  void finish_error(ByteSpan body) noexcept;
  void fail_after_login(const ErrorFields& fields) noexcept;
  void finish_parameter(ByteSpan body) noexcept;
  void note_reported(std::string_view name, std::string_view value) noexcept;
  void on_end_of_input() noexcept;
  [[gnu::cold]] void violate(const char* what) noexcept;

  [[nodiscard]] bool is_single_use() const noexcept { return slice_->spec().limits.is_single_use; }
  void settle() noexcept;
  void clean() noexcept;
  void forget_settings() noexcept;
  [[nodiscard]] bool ask_base_state() noexcept;
  void hold() noexcept;
  void place() noexcept;
  void send_query(std::string_view text) noexcept;
  void send_own(ByteSpan bytes) noexcept;
  void deallocate_all_but(const SqlStatements& wanted) noexcept;
  void prepare_as(const SqlStatements& wanted) noexcept;
  void on_not_prepared(const StatementKey& key) noexcept;
  [[nodiscard]] bool is_recoverable() const noexcept;
  [[nodiscard]] bool is_batch_open() const noexcept;
  void go_on_recovering() noexcept;
  void start_closing(CloseReason reason, bool mid_message) noexcept;
  Lessee* end_lease() noexcept;
  [[gnu::cold]] void change_pins(PinReasons reasons) noexcept;
  void count_end(CloseReason reason) noexcept;
  void cancel_what_runs() noexcept;
  void end() noexcept;

  Pools& pools_;
  Slice* slice_;
  Stream stream_;
  FrameReader reader_;
  Ledger ledger_;
  BackendStatements statements_;
  SentBatch batch_;
  LedgerEntry failed_;  // While its ErrorResponse is being read; with marks or none.
  Lessee* lessee_ = nullptr;
  State state_ = State::connecting;
  uint8_t transaction_status_ = 0;  // 0: not known (a message came since the last ReadyForQuery).
  uint8_t last_status_ = 'I';
  bool forwarding_ = false;  // The current message goes to the lessee.
  bool is_told_ = false;     // It is a ParameterStatus of which the lessee tells its client.
  bool is_held_ = false;     // It counts when all of it is here (is_held_back).
  bool skipping_ = false;    // The current message answers a statement of the pooler's own.
  uint8_t traits_ = 0;       // Of the current message's kind (backend_replies.cc).
  bool is_ready_held_ = false;
  Cleaning cleaning_ = Cleaning::none;
  bool is_state_known_ = true;    // parameters_ has what the session has set; not so behind
                                  // connect_query, until the server has told.
  bool is_rolling_back_ = false;  // ROLLBACK was sent, and nothing lies behind it.
  bool fatal_seen_ = false;
  bool is_unsafe_ = false;  // A cancel request may still arrive: never lease it again.
  bool was_ready_ = false;
  NodeAttempt::Kind attempt_kind_ = NodeAttempt::Kind::plain;
  bool is_answered_ = false;
  bool is_doubted_ = false;
  bool is_retired_ = false;
  std::string resolve_error_;
  CoreId moving_to_ = 0;
  uint32_t cancels_in_flight_ = 0;
  uint32_t pinning_client_ = 0;
  Pins pins_;
  Nanoseconds expires_at_ = never;
  Nanoseconds leased_at_ = 0;
  uint64_t lease_ = 0;
  uint64_t last_lease_ = 0;
  Nanoseconds recovery_ends_at_ = 0;
  std::vector<uint8_t> collected_;  // Of a body that came in pieces. Keeps its capacity.
  ParameterSetRef parameters_;
  // Of the reported ones those that the session has surely set: they are not what RESET leads to.
  ReportedNames set_names_ = 0;
  std::unique_ptr<StateProbe> probe_;  // While its answer is due.
  SocketAddress address_;
  uint32_t process_id_ = 0;
  std::string cancel_key_;
  Timer timer_;  // Connect and login; test; recovery; cleaning; the server's end of file.
  // Only during the login.
  struct Login;
  std::unique_ptr<Login> login_;
};

[[nodiscard]] const char* to_text(Backend::State state) noexcept;

}  // namespace helios
