// One client and its session: login, leases, and the relay of what it sends.
//
// States, each with what ends it; a client that goes, or is told to, ends all of them:
// - login: start-up packets and authentication (session_login.cc). Ends in moving, welcome, ready.
// - moving: logged in; goes to a home core of its pool as soon as nothing of it is in flight here
//   (session_transfer.cc). There it begins anew, in welcome or ready.
// - welcome: waits for a backend of its pool: what the server reports goes into the welcome. Ready;
//   in session mode, and of a replication connection, leased until it ends.
// - ready: no lease; the client may be silent, in the middle of a message that needs no backend, or
//   in a transaction that has failed with the loss of its backend (session_lost.cc). Ends in
//   waiting or leased.
// - waiting: in the queue of its slice; bytes are kept in the inbox (session_waiting.cc). Leased,
//   or ready by a cancel request.
// - leased: holds a backend. Ready, or leaving.
// - leaving: the client said Terminate while the server still worked: the replies are dropped, then
//   the backend goes back.
// - ending: waits for its stream to close; destroyed by Sessions.
//
// Requests are forwarded in the pieces in which they come; a message is never held whole. What
// cannot be forwarded at once (no lease, a full backend outbox, a pause for fairness) is copied to
// the inbox; beyond a small size the client's receive is stopped. (Large pieces of a client that
// holds a backend are borrowed, as in an outbox: they leave as soon as the backend takes more.)
//
// Owned by the Sessions of its core; used by that core only.
// Invariants: a waiting session holds no receive buffer. A lease is given back only when the
// backend is quiet and no message is half forwarded.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "helios/net/stream.h"
#include "helios/pool/lessee.h"
#include "helios/pool/parameters.h"
#include "helios/pool/pools.h"
#include "helios/runtime/timer_wheel.h"
#include "helios/session/client_login.h"
#include "helios/session/session_state.h"
#include "helios/session/sql_effects.h"
#include "helios/session/statement_names.h"
#include "helios/wire/frame_reader.h"
#include "helios/wire/key_derivation.h"
#include "helios/wire/startup.h"

namespace helios {

class SessionListening;
class Sessions;
struct SessionLogin;
struct SessionLost;
struct SessionTimeouts;
struct SessionStatements;
struct SessionTransfer;
struct StatementHead;

class Session final : public Lessee, private StreamOwner, private KeyClient {
 public:
  enum class State : uint8_t { login, moving, welcome, ready, waiting, leased, leaving, ending };

  explicit Session(Sessions& sessions) noexcept;
  ~Session();

  // Takes over an accepted socket.
  void start(int fd, int family) noexcept;
  // Takes over a client of another core.
  void start(SessionTransfer& transfer) noexcept;

  [[nodiscard]] State state() const noexcept { return state_; }
  // The pool that serves this client; nullptr until it has logged in and is where it stays. Valid
  // until it is ending.
  [[nodiscard]] PoolEntry* pool() noexcept { return pool_; }
  [[nodiscard]] bool is_destroyable() const noexcept {
    return state_ == State::ending && backend_ == nullptr &&
           stream_.state() == Stream::State::closed;
  }
  // The process id that the client was told: its backend's where the two stay together, else one of
  // the pooler's own; 0 until its welcome.
  [[nodiscard]] uint32_t process_id() const noexcept { return process_id_; }
  // Bytes of the key that the client was told; 0 until its welcome.
  [[nodiscard]] size_t cancel_key_size() const noexcept { return cancel_key_size_; }
  // The backend that works for this client at the moment; nullptr when there is none.
  [[nodiscard]] Backend* backend() noexcept { return state_ == State::leased ? backend_ : nullptr; }

  // Shutting down: a session without a transaction ends now, the others when theirs has ended.
  void drain() noexcept;
  // There is a new configuration: a session whose pool is superseded goes to its next generation,
  // at once or when its lease ends; one whose pool was removed ends then.
  void on_reload() noexcept;
  // Ends now, whatever goes on.
  void cut() noexcept;
  // Ends the session with a FATAL error, if the client is at a message boundary. `reason` is for
  // the log.
  [[gnu::cold]] void fail(std::string_view sqlstate, std::string_view message,
                          std::string_view detail = {}, std::string_view hint = {}) noexcept;
  [[gnu::cold]] void fail(const PoolError& error) noexcept {
    fail(error.sqlstate, error.message, error.detail, error.hint);
  }
  // A cancel request while the client waits for a backend: what it asked for is answered with an
  // error, never sent to a server, and the session goes on. Requires: state() is waiting.
  void cancel_wait() noexcept;
  // A cancel request that this connection brought has been dealt with.
  void on_cancel_finished() noexcept;

 private:
  friend class SessionListening;

  // --- Lessee ---
  void on_leased(Backend& backend) noexcept override;
  void on_wait_failed(const PoolError& error) noexcept override;
  void on_pool_changed(PoolEntry& next) noexcept override;
  void on_reply(ByteSpan bytes, BufferRef buffer, bool at_boundary) noexcept override;
  void on_reply_copy(ByteSpan bytes, bool at_boundary) noexcept override;
  void on_statement(uint8_t tag, uint64_t name) noexcept override;
  void on_name_settled() noexcept override;
  void on_names_undone(size_t count) noexcept override;
  void on_command_complete(std::string_view tag) noexcept override;
  void on_error() noexcept override;
  [[nodiscard]] bool tells_parameters() const noexcept override;
  void on_parameter(std::string_view name, std::string_view value, bool tells) noexcept override;
  void on_notification(const Notification& notification) noexcept override;
  void on_ready(uint8_t status, bool skipped) noexcept override;
  void on_state(const StateProbe& probe) noexcept override;
  void on_skipped_error(const ErrorFields& fields) noexcept override;
  void on_input_end() noexcept override;
  void on_backend_drained() noexcept override;
  void on_cancel_ended() noexcept override {
    if (session_state_.must_ask()) try_release();
    resume();
  }
  void on_backend_lost(const PoolError& error, Loss loss) noexcept override;

  // --- StreamOwner ---
  void on_connected(Stream&) noexcept override {}
  void on_received(Stream& stream, ByteSpan bytes, BufferRef buffer) noexcept override;
  void on_drained(Stream& stream) noexcept override;
  void on_ended(Stream& stream, StreamEnd end, int error) noexcept override;
  void on_closed(Stream& stream) noexcept override;
  void on_detachable(Stream& stream) noexcept override;

  void on_key(const Sha256Digest& salted_password) noexcept override;

  void set_state(State next) noexcept;

  // Login (session_login.cc).
  void on_login_bytes(ByteSpan& input) noexcept;
  void on_startup_packet(ByteSpan& input) noexcept;
  void on_startup_message(StartupMessage& startup) noexcept;
  [[nodiscard]] bool take_settings(StartupMessage& startup) noexcept;
  void refuse_welcome(PoolError error) noexcept;
  // Sends what the step wrote to `output`, and goes on.
  void on_login_step(ClientLoginStep step, MessageWriter& output) noexcept;
  void send_output(MessageWriter& output) noexcept;
  void forget_login() noexcept;
  void set_login_deadline(Nanoseconds deadline) noexcept;
  void on_logged_in() noexcept;
  void enter(PoolEntry& pool) noexcept;
  [[nodiscard]] bool count_client() noexcept;
  void start_welcome() noexcept;
  [[nodiscard]] bool know_welcome() noexcept;
  void ask_welcome() noexcept;
  void learn_spellings() noexcept;
  [[nodiscard]] bool welcome_failed() noexcept;
  void finish_welcome() noexcept;
  void send_welcome() noexcept;

  // To another core (session_transfer.cc).
  void start_move(const PoolSpecRef& spec, CoreId to) noexcept;

  // Requests (session_requests.cc).
  [[nodiscard]] size_t consume(ByteSpan input, const BufferRef* buffer) noexcept;
  enum class Prepared : uint8_t { no, drop, yes };
  [[nodiscard]] Prepared prepare(uint8_t tag, ByteSpan seen) noexcept;
  [[nodiscard]] bool begin_message(ByteSpan seen) noexcept;
  void announce(uint8_t tag, bool deallocates = false) noexcept;
  [[nodiscard]] bool begin_without_backend(uint8_t tag) noexcept;
  void inspect(ByteSpan body) noexcept;
  void finish_message() noexcept;
  [[nodiscard]] bool must_hold(uint8_t tag) noexcept;
  [[nodiscard]] bool is_blocked() const noexcept;
  void end_skip() noexcept;
  void send_answer(uint8_t tag) noexcept;
  void keep(ByteSpan bytes, BufferRef buffer) noexcept;
  void run_inbox() noexcept;
  void resume() noexcept;

  // Prepared statements (session_statements.cc).
  enum class Look : uint8_t {
    need_more,
    plain,  // Goes on as it is.
    named,  // Names a statement, and can be begun.
  };
  enum class Begun : uint8_t {
    held,      // Not yet.
    as_it_is,  // To be forwarded as it came.
    sent,      // What there was to send.
    dropped,   // Nothing is sent.
  };
  [[nodiscard]] SessionStatements& own_statements() noexcept;
  void choose_following() noexcept;
  [[nodiscard]] ByteSpan seen_body(ByteSpan rest) const noexcept;
  [[nodiscard]] bool has_collected() const noexcept;
  void collect(ByteSpan& rest) noexcept;
  void drop_collected() noexcept;
  [[nodiscard]] bool must_look(uint8_t tag) const noexcept;
  [[nodiscard]] Look look(ByteSpan& rest) noexcept;
  [[nodiscard]] bool begin_named(ByteSpan& rest) noexcept;
  void pass_on_collected(size_t from) noexcept;
  void note_pinned() noexcept;
  void close_without_backend(std::string_view name) noexcept;
  [[nodiscard]] bool parse_without_backend(const StatementHead& head, ByteSpan body) noexcept;
  [[nodiscard]] Begun begin_statement(const StatementHead& head, ByteSpan body) noexcept;
  [[nodiscard]] bool must_settle(std::string_view name) noexcept;
  [[nodiscard]] bool must_settle(const NamedCommands& commands) noexcept;
  [[nodiscard]] Begun begin_parse(std::string_view name, ByteSpan content, ByteSpan body) noexcept;
  [[nodiscard]] Begun begin_pinned(std::string_view name) noexcept;
  [[nodiscard]] Begun begin_close(std::string_view name) noexcept;
  [[nodiscard]] Begun begin_use(const StatementHead& head, std::string_view name) noexcept;
  [[nodiscard]] const Statement* find_statement(std::string_view name) const noexcept;
  [[nodiscard]] const ParseContext& parse_context() const noexcept;
  [[nodiscard]] bool is_provided(const Statement& statement) noexcept;
  [[nodiscard]] bool is_sql_name(std::string_view name) const noexcept;
  [[nodiscard]] bool is_own_name(std::string_view name) const noexcept;
  [[nodiscard]] bool may_be_own_name(std::string_view name) const noexcept;
  [[nodiscard]] StatementRef hold_statement(std::string_view name, ByteSpan content) noexcept;
  void send_close(std::string_view name, uint16_t marks = 0) noexcept;
  void make_room(size_t wanted) noexcept;
  void send_parse(const Statement& statement, LedgerAction action, uint16_t marks) noexcept;
  void send_use(const StatementHead& head, std::string_view name,
                const LedgerEntry& entry) noexcept;
  void send_unknown(const StatementHead& head) noexcept;
  void start_statements_lease() noexcept;

  // What commands in SQL do with them (session_sql_statements.cc).
  [[nodiscard]] bool may_be_command(FrameHeader header, ByteSpan seen) const noexcept;
  [[nodiscard]] Look look_at_command(ByteSpan& rest, ByteSpan seen, bool is_whole) noexcept;
  [[nodiscard]] Begun begin_commands(ByteSpan body) noexcept;
  void note_commands(std::string_view name, NamedCommands commands) noexcept;
  [[nodiscard]] Begun begin_executing(std::string_view name, NamedCommands commands) noexcept;
  [[nodiscard]] NamedCommands commands_of(std::string_view name,
                                          const Statement& statement) noexcept;
  [[nodiscard]] Begun begin_own(const StatementHead& head, std::string_view name) noexcept;
  void use_commands(const NamedCommands& commands, std::string_view portal) noexcept;
  [[nodiscard]] bool has_unnamed_commands() const noexcept;
  [[nodiscard]] bool use_unnamed_commands(uint8_t tag, ByteSpan seen) noexcept;
  void note_portal(const NamedCommands& commands, std::string_view portal) noexcept;
  [[nodiscard]] bool is_deallocating(ByteSpan execute) const noexcept;
  void announce_deallocate() noexcept;
  void on_deallocated() noexcept;
  void stand_in(const NamedCommands& commands) noexcept;
  void send_stand_in(std::string_view name, ByteSpan content) noexcept;
  void send_duplicate(std::string_view name, ByteSpan body) noexcept;
  void make_sure_free(std::string_view name, const Statement& statement) noexcept;
  void close_strays() noexcept;
  void start_stray(std::string_view name) noexcept;
  void forget_stray(std::string_view name) noexcept;
  void foresee(std::string_view text) noexcept;
  [[nodiscard]] bool is_forgetting_here() const noexcept;
  [[nodiscard]] bool awaits_forgetting() noexcept;

  // The unnamed statement (session_unnamed.cc).
  void keep_unnamed(ByteSpan body, ByteSpan rest) noexcept;
  void drop_unnamed(uint8_t tag, ByteSpan seen) noexcept;
  [[nodiscard]] size_t unnamed_size_max() const noexcept;
  [[nodiscard]] bool has_kept_unnamed(const Ledger& ledger) const noexcept;
  [[nodiscard]] bool may_lack_unnamed(uint8_t tag) const noexcept;
  void provide_unnamed() noexcept;

  // Leases.
  [[nodiscard]] bool acquire() noexcept;
  void start_lease() noexcept;
  void try_release() noexcept;
  [[nodiscard]] bool is_pinned() const noexcept;
  [[gnu::cold]] void drop_backend(const char* reason) noexcept;
  [[gnu::cold]] void abandon_backend(const char* reason) noexcept;
  void try_leave() noexcept;
  [[gnu::cold]] void drop_ambiguous() noexcept;
  void end(const char* reason) noexcept;
  void leave_queue(WaitFailure reason) noexcept;
  void start_leaving() noexcept;
  void stop_counting() noexcept;
  [[nodiscard]] LeaseMode mode() const noexcept { return pool_->slice.spec().limits.mode; }
  [[nodiscard]] StatePolicy policy() const noexcept {
    return pool_->slice.spec().limits.session_state;
  }
  [[nodiscard]] HarmlessFunctions harmless_functions() const noexcept {
    return pool_->slice.spec().limits.harmless_functions;
  }
  // Replication: a backend is made for it, and ends with it.
  [[nodiscard]] bool has_own_backend() const noexcept {
    return pool_->slice.spec().limits.is_single_use;
  }
  // Leases a backend before its welcome, which tells the backend's process id, and keeps it to the
  // end.
  [[nodiscard]] bool leases_at_login() const noexcept { return mode() == LeaseMode::session; }
  [[nodiscard]] bool is_streaming() const noexcept {
    return backend_ != nullptr && backend_->ledger().is_streaming();
  }
  void end_stream() noexcept;
  void heed_return() noexcept;
  void leave_pool() noexcept;
  void join(PoolEntry& next) noexcept;
  void after_lease() noexcept;
  void schedule_wait() noexcept;

  // The loss of a backend (session_lost.cc).
  [[nodiscard]] SessionLost& own_lost() noexcept;
  [[nodiscard]] bool has_lost_transaction() const noexcept;
  [[nodiscard]] bool is_bound_to(const Backend& backend) const noexcept;
  void outlive(const Backend& backend, const PoolError& error) noexcept;
  void lose_statements(const Ledger& ledger) noexcept;
  void note_parameters() noexcept;
  void forget_parameters_before() noexcept;
  void restore_parameters() noexcept;
  [[nodiscard]] bool has_asked_for_end(const Ledger& ledger) const noexcept;
  void answer_owed(const Ledger& ledger, const PoolError& error) noexcept;
  void begin_lost(uint8_t tag) noexcept;
  void keep_lost(ByteSpan piece) noexcept;
  void refuse_lost() noexcept;
  void finish_lost() noexcept;
  void end_lost() noexcept;
  void send_tag(std::string_view tag) noexcept;
  [[nodiscard]] bool answer_lost_query(std::string_view text) noexcept;
  [[nodiscard]] bool answer_lost_parse(ByteSpan body) noexcept;
  [[nodiscard]] bool answer_lost_bind(ByteSpan body) noexcept;
  [[nodiscard]] bool answer_lost_describe(ByteSpan body) noexcept;
  [[nodiscard]] bool answer_lost_execute(ByteSpan body) noexcept;
  [[nodiscard]] bool answer_lost_close(ByteSpan body) noexcept;
  [[nodiscard]] std::optional<std::string> find_lost_end(std::string_view name) const noexcept;
  [[nodiscard]] bool keep_statement(std::string_view name, ByteSpan content) noexcept;

  // State that follows or pins (session_follow.cc).
  [[nodiscard]] bool reads_text(uint8_t tag) const noexcept;
  void note_sequences(uint8_t tag, ByteSpan seen) noexcept;
  void read_text(ByteSpan piece) noexcept;
  void screen_text(std::string_view piece, bool is_first, bool is_last) noexcept;
  void read_body(std::string_view body) noexcept;
  [[nodiscard]] bool makes_temporary() const noexcept;
  [[nodiscard]] bool is_harmless(std::string_view text) const noexcept;
  [[nodiscard]] SqlEffects effects_of_text(std::string_view text) const noexcept;
  [[nodiscard]] SqlEffects effects_of_statement(std::string_view text) const noexcept;
  [[nodiscard]] bool has_standard_strings() const noexcept;
  void note_statement(uint64_t name, const SqlEffects& effects) noexcept;
  void note_parsed(std::string_view name, std::string_view text) noexcept;
  void note_bound(std::string_view name) noexcept;
  void note_effects(const SqlEffects& effects, bool is_executed = true) noexcept;
  [[nodiscard]] bool refuse(uint8_t tag, ByteSpan seen) noexcept;
  [[nodiscard]] bool ask_state() noexcept;
  void restore_first(const StateProbe& probe) noexcept;
  [[nodiscard]] std::string_view value_behind_reset(std::string_view name,
                                                    std::string_view value) const noexcept;
  void tell_changed(const ParameterSet& told) noexcept;
  [[nodiscard]] bool follow_sql_statements(const StateProbe& probe) noexcept;
  void note_pins() noexcept;
  [[nodiscard]] Cleaning cleaning_needed() const noexcept;
  void warn_unfollowed(const char* what) noexcept;

  // Notifications (session_listen.cc).
  [[nodiscard]] uint32_t told_process_id(const Notification& notification) noexcept;
  void deliver(ByteSpan messages) noexcept;
  void check_unread(size_t kept_size) noexcept;
  void note_channels(const StateProbe& probe) noexcept;
  void advance_listening() noexcept;
  [[nodiscard]] bool can_hand_over() noexcept;
  [[nodiscard]] NotificationHub* hub_of_pool() noexcept;
  void hand_over() noexcept;
  void take_over() noexcept;
  void on_backend_taken_over() noexcept;
  [[nodiscard]] bool is_heard_in(const PoolEntry& pool) const noexcept;
  void fail_unheard() noexcept;
  [[nodiscard]] bool is_changing_over() const noexcept;
  void note_unheard() noexcept;

  // Waiting (session_waiting.cc).
  [[nodiscard]] Nanoseconds wait_end() const noexcept;
  void on_wait_due() noexcept;
  void send_wait_notice() noexcept;
  void fail_late(const std::string& deadline, const PoolError& otherwise) noexcept;
  void fail_wait() noexcept;
  void fail_login() noexcept;
  [[nodiscard]] bool has_said_goodbye() const noexcept;
  void heed_goodbye() noexcept;

  // What the client does for too long (session_timeouts.cc).
  struct Due;
  void follow_time_limits() noexcept;
  void forget_time_limits() noexcept;
  void note_state() noexcept;
  void note_request(uint8_t status_before) noexcept;
  void note_ready(uint8_t status) noexcept;
  void note_answered() noexcept;
  void note_sign_of_life() noexcept;
  [[nodiscard]] Due next_due() const noexcept;
  void schedule_time_limit() noexcept;
  void check_time_limits() noexcept;
  void end_query(const Due& due) noexcept;
  void end_transaction(const Due& due) noexcept;
  void end_idle_transaction() noexcept;
  [[nodiscard]] bool cancel_overrun(const Due& due) noexcept;
  void count_overrun(TimeLimit limit) noexcept;

  static void on_timeout(void* self) noexcept;

  Sessions& sessions_;
  Stream stream_;
  Outbox inbox_;  // Received and not yet consumed.
  FrameReader reader_;
  PoolEntry* pool_ = nullptr;
  Backend* backend_ = nullptr;
  ParameterSetRef parameters_;
  ParameterSetRef first_parameters_;  // When it was welcome: what RESET leads to.
  Timer timer_;                       // Login; wait for a backend; the last flush.
  NameReader name_reader_;
  StatementNames names_;  // Of statements that pin.
  std::unique_ptr<SessionStatements>
      statements_;                     // Of those that follow; null until there was one.
  std::unique_ptr<SessionLost> lost_;  // Null until there was something to lose.
  SessionState session_state_;
  std::unique_ptr<SessionListening> listening_;  // Null: it listens to nothing.
  // The beginning of a simple query that may be DEALLOCATE or DISCARD.
  std::string query_text_;
  // Hash of what the DEALLOCATE names that is being executed; 0: none, or it could not be read.
  uint64_t deallocated_name_ = 0;
  uint32_t process_id_ = 0;
  State state_ = State::login;
  uint8_t cancel_key_size_ = 0;
  // What is dropped of a wait that was cancelled: the query that waited, or everything up to the
  // Sync. Then ReadyForQuery is due.
  enum class Skip : uint8_t { none, query, batch };
  Skip skip_ = Skip::none;
  bool in_message_ = false;      // A header was begun (begin_message) and its body is not complete.
  bool header_pending_ = false;  // A header is complete and not begun: no lease yet, or held.
  bool follows_statements_ = false;  // Prepared statements follow this client.
  bool forwarding_ = false;          // The current message goes to the backend.
  bool inspecting_ = false;
  bool is_reading_text_ = false;  // Of the current message.
  bool is_in_text_ = false;       // A part of it was read.
  bool held_ = false;             // Waits for a ReadyForQuery before more work is begun.
  bool is_acquiring_ = false;
  bool was_noticed_ = false;  // Was told that it waits, in this wait.
  bool client_at_boundary_ = true;
  bool draining_ = false;
  bool warned_ = false;
  bool counted_ = false;    // Counts against max_clients.
  bool uses_pool_ = false;  // Counts in its slice's sessions_count, and against the limits on the
                            // clients of its database and user.
  SessionLogin* login_ = nullptr;              // Until the client is welcome.
  std::unique_ptr<SessionTimeouts> timeouts_;  // Where the pool has time limits.
};

[[nodiscard]] const char* to_text(Session::State state) noexcept;

}  // namespace helios
