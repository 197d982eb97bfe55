#include "helios/net/stream.h"

#include <algorithm>
#include <array>
#include <cerrno>
#include <utility>

#include "helios/base/assert.h"

namespace helios {

namespace {

// The moves of the table in stream.h. open -> closed is release_fd().
constexpr bool is_legal(Stream::State from, Stream::State to) noexcept {
  using State = Stream::State;
  switch (from) {
    case State::closed:
      return to == State::connecting || to == State::open;
    case State::connecting:
      return to == State::open || to == State::terminating;
    case State::open:
      return to == State::terminating || to == State::closed;
    case State::terminating:
      return to == State::closed;
  }
  return false;
}

}  // namespace

void flush_streams(NetContext& net) noexcept {
  // A stream's turn may link others (an owner sends elsewhere in on_closed): until none is left.
  while (Stream* stream = net.flush_list.pop_front()) stream->end_turn();
}

Stream::Stream(NetContext& net, StreamOwner& owner, BufferGroup group) noexcept
    : net_(net), owner_(owner), outbox_(net.chunks, net.io), group_(group) {}

Stream::~Stream() {
  ASSERT(state_ == State::closed);
}

// ---------------------------------------------------------------- begin and end

void Stream::open(int fd, int family) noexcept {
  ASSERT(fd >= 0);
  begin(State::open, fd, family);
  // A client speaks first, often before we look. Read, then polled: an end that comes with its
  // first bytes is seen (Ring::verify_receives tells why it would not be).
  arm_receive(false);
}

void Stream::start_connect(const sockaddr* address, socklen_t size) noexcept {
  start_connect(net_.io.open_socket(address->sa_family), address, size);
}

void Stream::start_connect(int fd, const sockaddr* address, socklen_t size) noexcept {
  if (fd >= 0) net_.io.tune_socket(fd, address->sa_family);
  begin(State::connecting, fd, address->sa_family);
  if (fd < 0) {
    fd_ = -1;
    open_error_ = -fd;
    return want_flush();
  }
  net_.io.start_connect(target_, fd_, address, size);
  connect_in_flight_ = true;
}

// Everything from a former life goes: a stream is used again for the next descriptor.
void Stream::begin(State first, int fd, int family) noexcept {
  ASSERT(state_ == State::closed);
  ASSERT(outbox_.empty());
  ASSERT(!is_linked());
  ASSERT(!has_op_in_flight());
  fd_ = fd;
  family_ = family;
  receive_cancelling_ = receive_over_ = send_over_ = false;
  paused_ = hangup_wanted_ = poll_cancelling_ = was_above_high_mark_ = ended_ = false;
  finish_sending_ = terminate_after_flush_ = detaching_ = detachable_told_ = false;
  drained_wanted_ = false;
  open_error_ = 0;
  target_ = net_.io.attach(this);
  set_state(first);
}

void Stream::set_state(State next) noexcept {
  ASSERT(is_legal(state_, next));
  state_ = next;
}

void Stream::terminate() noexcept {
  if (state_ == State::closed || state_ == State::terminating) return;
  set_state(State::terminating);
  // Bytes that the kernel was given stay until its last event.
  if (!send_in_flight_) outbox_.clear();
  want_flush();
}

// At the end of the turn and not at once: a client that leaves says so and closes, so the end of
// its receive is often among the events of this turn, and there is nothing to cancel.
// No shutdown(2): closing does the same for the peer, and comes once these have ended.
void Stream::cancel_all() noexcept {
  ASSERT(state_ == State::terminating);
  if (receive_in_flight_) cancel_receive();
  if (send_in_flight_) net_.io.start_cancel(target_, OpKind::send);
  if (connect_in_flight_) net_.io.start_cancel(target_, OpKind::connect);
  update_hangup_poll();
}

void Stream::terminate_after_flush() noexcept {
  if (!is_open() || outbox_.empty()) return terminate();
  terminate_after_flush_ = true;
  // A peer that waits for us to read would never read what we flush.
  detaching_ = paused_ = false;
  arm_receive(false);
  update_hangup_poll();
}

void Stream::finish_sending() noexcept {
  if (!is_open() || finish_sending_) return;
  cancel_detach();
  finish_sending_ = true;
  if (outbox_.empty()) net_.io.shutdown_write(fd_);
}

bool Stream::has_op_in_flight() const noexcept {
  return receive_in_flight_ || send_in_flight_ || connect_in_flight_ || poll_in_flight_;
}

// Closes once the last op has ended. Nothing may touch the stream after this: the owner may destroy
// it.
void Stream::join() noexcept {
  ASSERT(state_ == State::terminating);
  if (has_op_in_flight()) return;
  outbox_.clear();
  if (fd_ >= 0) net_.io.close_fd(fd_);
  leave();
  owner_.on_closed(*this);
}

void Stream::leave() noexcept {
  if (is_linked()) net_.flush_list.remove(*this);
  net_.io.detach(target_);
  fd_ = -1;
  set_state(State::closed);
}

// Tells the owner that the stream will receive no more, once.
void Stream::end(StreamEnd reason, int error) noexcept {
  detaching_ = false;
  if (ended_) return;
  ended_ = true;
  update_hangup_poll();
  owner_.on_ended(*this, reason, error);
}

// ---------------------------------------------------------------- events

[[gnu::hot]] void Stream::on_io(const IoEvent& event) noexcept {
  switch (event.kind) {
    case OpKind::recv:
      return on_recv_event(event);
    case OpKind::send:
      return on_send_event(event.res);
    case OpKind::connect:
      return on_connect_event(event.res);
    case OpKind::poll:
      return on_poll_event(event.res);
    case OpKind::none:
    case OpKind::accept:
      break;
  }
  UNREACHABLE("an event of an op that a stream never starts");
}

// The end of a turn: what was asked for during the turn and needs no event of the kernel first.
void Stream::end_turn() noexcept {
  switch (state_) {
    case State::closed:
      UNREACHABLE("a closed stream in the flush list");
    case State::terminating:
      cancel_all();
      return join();
    case State::connecting:
      ASSERT(open_error_ != 0);
      return end(StreamEnd::connect_failed, open_error_);
    case State::open:
      if (can_detach()) {
        detachable_told_ = true;
        return owner_.on_detachable(*this);
      }
      if (!send_in_flight_ && !outbox_.empty()) start_send();
      return;
  }
}

void Stream::on_connect_event(int res) noexcept {
  ASSERT(connect_in_flight_);
  connect_in_flight_ = false;
  if (state_ == State::terminating) return join();
  ASSERT(state_ == State::connecting);
  if (res < 0) return end(StreamEnd::connect_failed, -res);

  set_state(State::open);
  owner_.on_connected(*this);
  arm_receive(true);
}

void Stream::want_flush() noexcept {
  if (!is_linked()) net_.flush_list.push_back(*this);
}

// ---------------------------------------------------------------- receive

void Stream::on_recv_event(const IoEvent& event) noexcept {
  ASSERT(receive_in_flight_);
  if (!event.more) receive_in_flight_ = receive_cancelling_ = false;
  if (state_ == State::terminating) return join();
  ASSERT(state_ == State::open);

  bool expect_idle = false;
  if (event.res > 0) {
    // After on_ended (a send failed) or terminate_after_flush nobody wants them.
    if (!ended_ && !terminate_after_flush_) owner_.on_received(*this, event.data, event.buffer);
  } else if (event.res == -ECANCELED || event.res == -EINTR || event.res == -EAGAIN) {
    expect_idle = event.res == -EAGAIN;  // Polling first, it cannot spin.
  } else {
    receive_over_ = true;
    if (terminate_after_flush_) {
      if (event.res < 0) terminate();
      return;
    }
    StreamEnd reason = event.res == 0 ? StreamEnd::peer_closed : StreamEnd::error;
    return end(reason, -event.res);
  }

  arm_receive(expect_idle);
  update_hangup_poll();
  if (!can_detach()) return;
  detachable_told_ = true;
  owner_.on_detachable(*this);
}

// Arms the receive if it is wanted and not armed.
[[gnu::hot]] void Stream::arm_receive(bool expect_idle) noexcept {
  if (state_ != State::open || receive_in_flight_ || receive_over_) return;
  if (paused_ || detaching_ || ended_) return;
  net_.io.start_recv(target_, fd_, group_, expect_idle);
  receive_in_flight_ = true;
}

void Stream::cancel_receive() noexcept {
  ASSERT(receive_in_flight_);
  if (receive_cancelling_) return;
  receive_cancelling_ = true;
  net_.io.start_cancel(target_, OpKind::recv);
}

void Stream::pause_receive() noexcept {
  paused_ = true;
  if (state_ == State::open && receive_in_flight_) cancel_receive();
  update_hangup_poll();
}

void Stream::resume_receive() noexcept {
  paused_ = false;
  // While a cancel is under way its terminal event arms again.
  arm_receive(false);
  update_hangup_poll();
}

// ---------------------------------------------------------------- the peer's hang-up

// While a receive is in flight it tells of the end itself.
bool Stream::wants_hangup_poll() const noexcept {
  return hangup_wanted_ && paused_ && state_ == State::open && !ended_ && !receive_over_ &&
         !receive_in_flight_ && !terminate_after_flush_;
}

// Called whenever what it depends on has changed. A poll that is being cancelled ends first.
[[gnu::hot]] void Stream::update_hangup_poll() noexcept {
  if (wants_hangup_poll() == poll_in_flight_ || poll_cancelling_) return;
  if (poll_in_flight_) {
    poll_cancelling_ = true;
    return net_.io.start_cancel(target_, OpKind::poll);
  }
  poll_in_flight_ = true;
  net_.io.start_hangup_poll(target_, fd_);
}

void Stream::on_poll_event(int res) noexcept {
  ASSERT(poll_in_flight_);
  poll_in_flight_ = poll_cancelling_ = false;
  if (state_ == State::terminating) return join();
  // What the owner does not want to know any more the receive will meet when it is armed.
  if (res > 0 && wants_hangup_poll()) return end(StreamEnd::peer_closed, 0);
  // Another failure (memory is short): without the poll the owner only hears of it later.
  if (res == -ECANCELED) update_hangup_poll();
}

// ---------------------------------------------------------------- send

bool Stream::can_send() const noexcept {
  return is_open() && !send_over_ && !finish_sending_ && !terminate_after_flush_;
}

[[gnu::hot]] void Stream::send(ByteSpan bytes) noexcept {
  if (!can_send() || bytes.empty()) return;
  outbox_.append(bytes);
  after_append();
}

void Stream::send_received(ByteSpan bytes, BufferRef buffer) noexcept {
  if (!can_send() || bytes.empty()) return;
  outbox_.append_received(bytes, buffer);
  after_append();
}

void Stream::send_all(Outbox& from) noexcept {
  if (!can_send()) return from.clear();
  if (from.empty()) return;
  outbox_.append_all(from);
  after_append();
}

void Stream::after_append() noexcept {
  cancel_detach();
  if (is_above_high_mark()) was_above_high_mark_ = true;
  if (!send_in_flight_) want_flush();
}

[[gnu::hot]] void Stream::start_send() noexcept {
  ASSERT(!send_in_flight_);
  std::array<iovec, send_parts_max> parts;
  size_t count = outbox_.gather(parts);
  size_t size = 0;
  for (size_t i = 0; i < count; ++i) {
    parts[i].iov_len = std::min(parts[i].iov_len, send_size_max - size);
    size += parts[i].iov_len;
    if (size == send_size_max) count = i + 1;
  }
  // Where nothing follows the end of the send, it need not end the core's sleep.
  const bool is_followed = size < outbox_.size() || finish_sending_ || terminate_after_flush_ ||
                           was_above_high_mark_ || drained_wanted_;
  net_.io.start_send(target_, fd_, {parts.data(), count},
                     is_followed ? SendNotice::prompt : SendNotice::lazy);
  send_in_flight_ = true;
}

void Stream::on_send_event(int res) noexcept {
  ASSERT(send_in_flight_);
  send_in_flight_ = false;
  if (state_ == State::terminating) return join();
  ASSERT(state_ == State::open);
  if (res == -EINTR || res == -EAGAIN) return want_flush();
  if (res < 0) return fail_send(-res);

  // The kernel may have taken less than we offered, even with MSG_WAITALL.
  outbox_.consume(static_cast<size_t>(res));
  if (outbox_.empty()) return on_outbox_empty();
  // At the end of the turn, together with what is queued until then.
  want_flush();
  if (!was_above_high_mark_ || outbox_.size() > low_mark) return;
  was_above_high_mark_ = false;
  if (!terminate_after_flush_) owner_.on_drained(*this);
}

void Stream::on_outbox_empty() noexcept {
  const bool was_above_high_mark = std::exchange(was_above_high_mark_, false);
  if (terminate_after_flush_) return terminate();
  if (finish_sending_) net_.io.shutdown_write(fd_);
  if (drained_wanted_ || was_above_high_mark) owner_.on_drained(*this);
}

void Stream::fail_send(int error) noexcept {
  send_over_ = true;
  outbox_.clear();
  // The owner knows already, or does not want to know: nothing else would end the stream.
  if (ended_ || terminate_after_flush_) return terminate();
  end(StreamEnd::error, error);
}

// ---------------------------------------------------------------- detach

void Stream::start_detach() noexcept {
  ASSERT(is_open());
  ASSERT(!hangup_wanted_);
  ASSERT(outbox_.empty());
  ASSERT(!send_in_flight_);
  ASSERT(!finish_sending_);
  if (detaching_ || ended_) return;  // After the end nothing can be given away.
  detaching_ = true;
  detachable_told_ = false;
  if (receive_in_flight_) return cancel_receive();
  want_flush();
}

void Stream::cancel_detach() noexcept {
  if (!detaching_) return;
  detaching_ = false;
  // While the cancel is under way its terminal event arms again.
  arm_receive(false);
}

bool Stream::can_detach() const noexcept {
  return detaching_ && !detachable_told_ && state_ == State::open && !has_op_in_flight();
}

int Stream::release_fd() noexcept {
  ASSERT(detaching_);
  ASSERT(detachable_told_);
  ASSERT(!has_op_in_flight());
  ASSERT(outbox_.empty());
  int fd = fd_;
  leave();
  return fd;
}

}  // namespace helios
