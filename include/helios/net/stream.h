// One connected (or connecting) socket: its receive, its send, and its end.
//
// States: closed -> connecting -> open -> terminating -> closed; accepted sockets start in open.
// Receive: armed or not, with pause and resume (back-pressure). A multishot receive cannot be
// paused, so pause cancels it; what arrives until its terminal event is still delivered. While it
// is paused the peer's end goes unseen, unless the owner has it watched (watch_hangup). Send: one
// op in flight, everything queued meanwhile goes out with the next. Termination: cancel what is in
// flight, wait for its end, close, on_closed. The owner may destroy or reuse the stream only
// from on_closed on.
//
// Owned by a session or backend, on one core. Handlers are called from the core's loop.
#pragma once

#include <cstdint>

#include "helios/base/intrusive_list.h"
#include "helios/net/outbox.h"
#include "helios/runtime/io.h"

namespace helios {

class Stream;

// Why a stream ended. `error` carries an errno.
enum class StreamEnd : uint8_t { peer_closed, error, connect_failed };

class StreamOwner {
 public:
  // The connection is made (start_connect only).
  virtual void on_connected(Stream& stream) noexcept = 0;
  // Bytes came. They are gone when this returns, unless copied or taken by append_received.
  virtual void on_received(Stream& stream, ByteSpan bytes, BufferRef buffer) noexcept = 0;
  // The outbox has shrunk to the low mark or less after it was above the high mark; or it is empty
  // after a send, when the owner wants to know that (want_drained).
  virtual void on_drained(Stream& stream) noexcept = 0;
  // End of file or an error. Called at most once, never after terminate(). The owner decides what
  // follows (usually terminate). Note: after peer_closed the sending side still works, and no bytes
  // are received after any on_ended. When a send fails after on_ended, the stream terminates by
  // itself (on_closed follows), so that nobody waits for on_drained in vain.
  virtual void on_ended(Stream& stream, StreamEnd end, int error) noexcept = 0;
  // The descriptor is closed and nothing is in flight.
  virtual void on_closed(Stream& stream) noexcept = 0;
  // The receive was cancelled for release_fd() and the stream is quiet: the descriptor can move
  // (see start_detach).
  virtual void on_detachable(Stream& stream) noexcept = 0;

 protected:
  ~StreamOwner() = default;
};

struct FlushTag;

// What every stream of a core shares.
struct NetContext {
  Io& io;
  ChunkPool& chunks;
  // Streams with bytes to send that are not sending: sent together at the end of the turn.
  IntrusiveList<Stream, FlushTag>& flush_list;
};

// Starts a send on every stream of the list, and delivers what streams have to tell without an
// event of the kernel (a connect that failed at once, a termination or a detach with nothing in
// flight). Called once per turn, last.
void flush_streams(NetContext& net) noexcept;

class Stream final : public IoTarget, public ListNode<FlushTag> {
 public:
  enum class State : uint8_t {
    closed,       // No descriptor.
    connecting,   // The connect op is in flight.
    open,         // Receive armed or paused; at most one send in flight.
    terminating,  // Waits for the last op, then closes.
  };

  Stream(NetContext& net, StreamOwner& owner, BufferGroup group) noexcept;
  ~Stream();  // Requires: closed.

  // Takes over a connected descriptor and arms the receive. Requires: closed.
  void open(int fd, int family) noexcept;
  // Opens a socket and connects. Failure (also an immediate one) is told by
  // on_ended(connect_failed), always from the loop. The owner then calls terminate(); from
  // on_closed it may try another address with the same stream. Requires: closed.
  void start_connect(const sockaddr* address, socklen_t size) noexcept;
  // The same with a socket that the caller has made (and bound to a local address, say). A negative
  // errno in place of a descriptor is told as the failure.
  void start_connect(int fd, const sockaddr* address, socklen_t size) noexcept;

  // Queues bytes; they leave at the end of the turn. Ignored unless open, after finish_sending() or
  // terminate_after_flush(), and after a failed send. Note: ends a detach that has begun, as
  // cancel_detach() does.
  void send(ByteSpan bytes) noexcept;
  // The same for bytes that lie in a lent buffer.
  void send_received(ByteSpan bytes, BufferRef buffer) noexcept;
  // The same for everything in `from` (a byte queue of the same core), without copying. `from` is
  // empty afterwards.
  void send_all(Outbox& from) noexcept;

  // Whether on_drained tells, without delay, that everything has been sent. Nobody needs that while
  // an answer is due that comes later. False at first, and for each new descriptor. Note: takes
  // effect also for a send in flight, whose end may then wait for the core's next event.
  void want_drained(bool wanted) noexcept { drained_wanted_ = wanted; }

  // Stops and restarts the receive.
  void pause_receive() noexcept;
  void resume_receive() noexcept;
  [[nodiscard]] bool is_receive_paused() const noexcept { return paused_; }

  // Whether the owner wants to hear at once, by on_ended(peer_closed), that the peer has hung up
  // while the receive is paused. False at first. Note: a peer that has only shut down its writing
  // side has hung up too, and what it sent before and nobody has received is lost by on_ended.
  // Requires: not detached while it is watched.
  void watch_hangup(bool wanted) noexcept {
    if (wanted == hangup_wanted_) return;
    hangup_wanted_ = wanted;
    update_hangup_poll();
  }

  // Bytes queued or in flight. Above the high mark the source of these bytes should pause.
  [[nodiscard]] size_t unsent_size() const noexcept { return outbox_.size(); }
  [[nodiscard]] bool is_above_high_mark() const noexcept { return outbox_.size() > high_mark; }

  // Sends what is queued, then shuts down the writing side; the peer's end of file is told by
  // on_ended as always. What arrives meanwhile is still delivered.
  void finish_sending() noexcept;
  // Ends the connection at once: queued bytes are dropped. Idempotent. on_closed follows from the
  // loop.
  void terminate() noexcept;
  // Sends what is queued (until the owner's own deadline calls terminate), then terminates.
  // Received bytes are dropped from now on.
  void terminate_after_flush() noexcept;

  // Begins to give the descriptor away: cancels the receive; what arrives is still delivered; then
  // on_detachable (unless the stream ended before). Requires: open, nothing unsent. Note: nothing
  // is received between on_detachable and release_fd or cancel_detach.
  void start_detach() noexcept;
  // The owner wants to go on with the stream: no on_detachable; the receive is armed again. Does
  // nothing when not detaching.
  void cancel_detach() noexcept;
  [[nodiscard]] bool is_detaching() const noexcept { return detaching_; }
  // Takes the descriptor out; the stream is closed without close(2) and without on_closed, and may
  // be destroyed at once. Requires: on_detachable was called for this detach.
  [[nodiscard]] int release_fd() noexcept;

  [[nodiscard]] State state() const noexcept { return state_; }
  [[nodiscard]] bool is_open() const noexcept { return state_ == State::open; }
  [[nodiscard]] int fd() const noexcept { return fd_; }
  [[nodiscard]] int family() const noexcept { return family_; }

  void on_io(const IoEvent& event) noexcept override;

  static constexpr size_t high_mark = 256 * 1024;
  static constexpr size_t low_mark = 64 * 1024;
  // Bytes offered to the kernel in one send op at the most.
  static constexpr size_t send_size_max = 256 * 1024;

 private:
  friend void flush_streams(NetContext& net) noexcept;

  void begin(State first, int fd, int family) noexcept;
  void set_state(State next) noexcept;
  void end_turn() noexcept;

  void on_connect_event(int res) noexcept;
  void on_recv_event(const IoEvent& event) noexcept;
  void on_send_event(int res) noexcept;
  void on_poll_event(int res) noexcept;

  void arm_receive(bool expect_idle) noexcept;
  void cancel_all() noexcept;
  void cancel_receive() noexcept;
  [[nodiscard]] bool wants_hangup_poll() const noexcept;
  void update_hangup_poll() noexcept;
  void start_send() noexcept;
  void on_outbox_empty() noexcept;
  void fail_send(int error) noexcept;
  void after_append() noexcept;
  [[nodiscard]] bool can_send() const noexcept;
  [[nodiscard]] bool can_detach() const noexcept;

  void end(StreamEnd reason, int error) noexcept;
  [[nodiscard]] bool has_op_in_flight() const noexcept;
  void join() noexcept;
  void leave() noexcept;
  void want_flush() noexcept;

  NetContext& net_;
  StreamOwner& owner_;
  Outbox outbox_;
  TargetId target_;
  int fd_ = -1;
  int family_ = 0;
  BufferGroup group_;
  State state_ = State::closed;
  bool drained_wanted_ = false;
  bool receive_in_flight_ = false;
  bool receive_cancelling_ = false;  // start_cancel was called; the terminal event has not come.
  bool receive_over_ = false;        // End of file or an error: never armed again.
  bool send_in_flight_ = false;
  bool send_over_ = false;  // A send failed.
  bool connect_in_flight_ = false;
  bool paused_ = false;
  bool hangup_wanted_ = false;
  bool poll_in_flight_ = false;  // For the hang-up.
  bool poll_cancelling_ = false;
  bool was_above_high_mark_ = false;
  bool ended_ = false;           // on_ended was called.
  bool finish_sending_ = false;  // Shut down our writing side once the outbox is empty.
  bool terminate_after_flush_ =
      false;  // Received bytes are dropped; terminate once the outbox is empty.
  bool detaching_ = false;
  bool detachable_told_ = false;  // on_detachable was called.
  int open_error_ = 0;            // The socket could not be made: told at the end of the turn.
};

}  // namespace helios
