// One client of the load: its connection, its login, and the transactions that it has under way.
//
// A client is dealt its login and target once. It connects when its core lets it (not all at once),
// runs the transactions that the core begins on it, checks the answers, and connects again when the
// connection broke. Statements of a transaction go out one by one, each when the last is answered;
// with a pipeline the statements of several transactions are sent without waiting. Answers come in
// the order of the statements, so two queues say what each belongs to.
//
// Owned by its core; that thread only. Invariant: an answer is queued for each ReadyForQuery that
// the server owes.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string_view>
#include <vector>

#include "helios/base/intrusive_list.h"
#include "helios/net/stream.h"
#include "helios/pool/backend_login.h"
#include "helios/runtime/timer_wheel.h"
#include "helios/wire/frame_reader.h"
#include "helios/wire/key_derivation.h"
#include "load/fixed_queue.h"
#include "load/script.h"
#include "load/targets.h"

namespace helios::bench {

class LoadCore;
class Client;

struct ReadyTag;
struct ConnectTag;

class Client final : public StreamOwner,
                     public KeyClient,
                     public ListNode<ReadyTag>,
                     public ListNode<ConnectTag> {
 public:
  enum class State : uint8_t {
    waiting,  // Without a connection: in the core's connect queue, or its timer runs before that.
    resting,  // Without a connection, until a transaction needs one (reconnecting only).
    connecting,  // connect() is under way.
    login,       // Connected; the dialogue with the server.
    running,     // Logged in.
    closing,     // Closes; on_closed says what follows.
    ended,       // The run is over for it.
  };

  // `index`: among all clients of the run, from 0.
  Client(LoadCore& core, uint32_t index);
  ~Client();

  void start_connect(Nanoseconds now) noexcept;
  // A transaction could begin now, as far as the client is concerned.
  [[nodiscard]] bool can_begin() const noexcept;
  // Begins a transaction; its latency counts from `due`. Requires: can_begin().
  void begin(Nanoseconds due, Nanoseconds now) noexcept;
  // Fails what waits for an answer since before `sent_before`, or for a login.
  void fail_if_late(Nanoseconds sent_before) noexcept;
  // Leaves as soon as nothing is under way; may be called again.
  void leave() noexcept;
  // Whoever waits for an answer has failed; closes at once.
  void give_up() noexcept;

  [[nodiscard]] bool has_ended() const noexcept { return state_ == State::ended; }
  [[nodiscard]] uint64_t begun_count() const noexcept { return begun_count_; }
  [[nodiscard]] uint64_t counted_transactions() const noexcept { return counted_transactions_; }

  void on_connected(Stream& stream) noexcept override;
  void on_received(Stream& stream, ByteSpan bytes, BufferRef buffer) noexcept override;
  void on_drained(Stream& stream) noexcept override;
  void on_ended(Stream& stream, StreamEnd end, int error) noexcept override;
  void on_closed(Stream& stream) noexcept override;
  void on_detachable(Stream& stream) noexcept override;
  void on_key(const Sha256Digest& salted_password) noexcept override;

 private:
  struct Transaction {
    Nanoseconds due = 0;
    Nanoseconds sent_at = 0;
    uint32_t script = 0;
    uint32_t step = 0;  // The next one to do.
    bool has_failed = false;
    bool is_wrong = false;
  };
  // What the server owes.
  struct Answer {
    uint32_t statement = 0;
    int64_t expected = 0;      // By the check of the statement.
    uint32_t rows_count = 0;   // And messages of data that is copied out.
    bool has_tag = false;      // The expected one.
    bool parses = false;       // A Parse of the named statement went with it and is not answered.
    bool is_last = false;      // Of its transaction.
    bool is_rollback = false;  // Of a transaction that has failed.
  };
  struct Login;

  // What to do when the connection is closed.
  enum class AfterClose : uint8_t { connect_now, connect_later, rest, end };

  void close(AfterClose after) noexcept;
  static void on_timer(void* self) noexcept;

  void consume_login(ByteSpan input) noexcept;
  void on_login_step(LoginStep step) noexcept;
  void on_logged_in() noexcept;
  [[nodiscard]] bool try_next_address(int error) noexcept;
  void fail_login(std::string_view code, std::string_view message, bool is_hopeless) noexcept;

  void consume_answers(ByteSpan input, Nanoseconds now) noexcept;
  void on_message(uint8_t tag, ByteSpan body, Nanoseconds now) noexcept;
  [[nodiscard]] const ScriptStatement* expectation() noexcept;
  void on_row(ByteSpan body) noexcept;
  void on_copied() noexcept;
  void on_complete(ByteSpan body) noexcept;
  void on_error(ByteSpan body) noexcept;
  void on_copy_in() noexcept;
  void on_ready(ByteSpan body, Nanoseconds now) noexcept;
  void hold(ByteSpan body) noexcept;
  [[nodiscard]] bool is_held(uint8_t tag) const noexcept;
  void check_whole(const ScriptStatement& expected) noexcept;
  void mark_wrong(const std::string& what) noexcept;
  void fail_connection(std::string_view message) noexcept;
  void break_off(std::string_view code, std::string_view message) noexcept;

  [[nodiscard]] bool is_pipelined() const noexcept;
  void run_steps(Transaction& transaction) noexcept;
  void send_statement(uint32_t index, bool is_last) noexcept;
  void send_rollback() noexcept;
  void finish(Nanoseconds now) noexcept;
  void pause_or_ready(Nanoseconds now) noexcept;
  void end_run() noexcept;

  LoadCore& core_;
  Stream stream_;
  Timer timer_;  // The pause before a connect, or between transactions.
  FrameReader reader_;
  FixedQueue<Transaction> transactions_;
  FixedQueue<Answer> answers_;
  std::vector<uint8_t> held_;  // The body of a message that came in pieces, as far as it is wanted.
  std::unique_ptr<Login> login_;  // In the state `login` only.
  std::span<int64_t> variables_;  // The core's memory.
  std::span<uint64_t> prepared_;  // One bit for each statement: the server knows it. Likewise.
  const Target& target_;
  const BackendLoginOptions& login_options_;
  Nanoseconds connect_began_ = 0;
  uint64_t begun_count_ = 0;
  uint64_t counted_transactions_ = 0;
  uint32_t local_index_;          // See open_socket_for.
  uint32_t failures_in_row_ = 0;  // Of connects.
  State state_ = State::waiting;
  AfterClose after_close_ = AfterClose::connect_later;
  bool in_body_ = false;     // Of the reader's message.
  bool is_pausing_ = false;  // Between two transactions.
};

}  // namespace helios::bench
