#include "bench/ring/relay.h"

#include <sys/uio.h>
#include <unistd.h>

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>
#include <memory>
#include <string>

#include "bench/ring/bench_ring.h"
#include "helios/runtime/buffer_ring.h"

namespace helios::bench {
namespace {

enum class Kind : uint8_t { recv, send, skipped_send };

// Received bytes on their way to a socket.
struct Piece {
  const uint8_t* bytes = nullptr;
  uint32_t size = 0;
  uint16_t buffer = 0;
  bool is_copied = false;  // Lies in no receive buffer.
};

// One socket of a pair.
struct Side {
  int fd = -1;
  uint32_t index = 0;  // Of pair n: 2n is the client's, 2n + 1 the server's.
  bool is_sending = false;
  bool has_ended = false;      // Nothing more will come from this socket.
  bool was_refused = false;    // The last MSG_DONTWAIT found no room.
  std::vector<Piece> waiting;  // To be sent to this socket; from `waiting_head` on.
  size_t waiting_head = 0;
  std::unique_ptr<uint8_t[]> received;  // Receive::own_buffer.
  std::unique_ptr<uint8_t[]> copied;    // Send::skip_success.
  Piece skipped;                        // Of `copied`: not known to be sent.
  msghdr message{};
  iovec part{};

  [[nodiscard]] bool has_waiting() const noexcept { return waiting_head < waiting.size(); }
};

class Relay {
 public:
  Relay(const Switches& switches, RelayCounters& counters) noexcept
      : switches_(switches), counters_(counters) {}

  [[nodiscard]] Result<bool> connect_pairs(uint32_t count, int listener, const Address& target);
  [[nodiscard]] Result<bool> set_up_ring();
  [[nodiscard]] Result<bool> relay();

 private:
  [[nodiscard]] Side& peer_of(const Side& side) noexcept { return sides_[side.index ^ 1U]; }
  [[nodiscard]] bool has_own_buffers() const noexcept {
    return switches_.receive == Receive::own_buffer;
  }
  void finish_sqe(io_uring_sqe& sqe, const Side& side, Kind kind) const noexcept;

  void arm_recv(Side& side) noexcept;
  void on_recv(Side& side, const io_uring_cqe& cqe) noexcept;
  void on_end(Side& side) noexcept;
  void rearm_starved() noexcept;

  void forward(Side& to, Piece piece) noexcept;
  [[nodiscard]] bool send_now(Side& to, Piece& piece) noexcept;
  void send_copy(Side& to, const Piece& piece) noexcept;
  void start_send(Side& to) noexcept;
  void on_sent(Side& to, int res) noexcept;
  void on_skipped_send_failed(Side& to, int res) noexcept;
  void confirm_skipped() noexcept;
  void send_next(Side& to) noexcept;
  void release(Side& to, const Piece& piece) noexcept;

  void enter() noexcept;
  void deliver(const io_uring_cqe& cqe) noexcept;
  void publish_counters() noexcept;

  const Switches& switches_;
  RelayCounters& counters_;
  std::vector<Side> sides_;
  std::unique_ptr<BufferRing> buffers_;
  std::unique_ptr<BenchRing> ring_;
  std::vector<Side*> starved_;
  std::vector<Side*> unconfirmed_;  // Their `skipped` goes out with the next enter.
  std::vector<Side*> submitted_;    // It went out with the last one.
  size_t open_count_ = 0;           // Sides whose end has not been seen.
  bool is_single_completion_ = false;
  int send_error_ = 0;
  uint64_t starved_count_ = 0;
  uint64_t direct_sends_count_ = 0;
  uint64_t skipped_sends_count_ = 0;
  uint64_t repeated_sends_count_ = 0;
};

Result<bool> Relay::connect_pairs(uint32_t count, int listener, const Address& target) {
  sides_ = std::vector<Side>(size_t{count} * 2);
  for (size_t i = 0; i < sides_.size(); ++i) {
    Result<int> fd = i % 2 == 0 ? accept_from(listener) : connect_to(target);
    if (!fd.ok()) return Error{fd.error()};
    Side& side = sides_[i];
    side.fd = fd.value();
    side.index = static_cast<uint32_t>(i);
    if (has_own_buffers()) side.received.reset(new uint8_t[switches_.buffer_size]);
    if (switches_.send == Send::skip_success) side.copied.reset(new uint8_t[switches_.buffer_size]);
  }
  open_count_ = sides_.size();
  return true;
}

Result<bool> Relay::set_up_ring() {
  // A turn queues at most one receive and one send for each side, and ends as many.
  const auto ops_max = static_cast<uint32_t>(sides_.size() * 2);
  auto ring = BenchRing::create({
      .sq_entries = std::bit_ceil(ops_max),
      .cq_entries = std::bit_ceil(ops_max + switches_.buffers_count),
      .defer_taskrun = switches_.defer_taskrun,
      .no_iowait = switches_.no_iowait,
      .spin = microseconds(switches_.spin_us),
  });
  if (!ring.ok()) return Error{ring.error()};
  ring_ = std::move(ring).value();
  if (!has_own_buffers()) {
    auto buffers =
        BufferRing::create(ring_->raw(), {0, switches_.buffers_count, switches_.buffer_size});
    if (!buffers.ok()) return Error{buffers.error()};
    buffers_ = std::move(buffers).value();
  }
  if (!switches_.fixed_files) return true;
  std::vector<int> fds;
  for (const Side& side : sides_) fds.push_back(side.fd);
  const int res =
      io_uring_register_files(&ring_->raw(), fds.data(), static_cast<unsigned>(fds.size()));
  if (res < 0) return Error{std::string("io_uring_register_files: ") + std::strerror(-res)};
  return true;
}

Result<bool> Relay::relay() {
  for (Side& side : sides_) arm_recv(side);
  while (open_count_ > 0) {
    if (buffers_ != nullptr) buffers_->publish();
    enter();
    is_single_completion_ = ring_->ready_count() == 1;
    ring_->for_each_cqe([this](const io_uring_cqe& cqe) noexcept { deliver(cqe); });
    if (send_error_ != 0) return Error{std::string("a send: ") + std::strerror(send_error_)};
    confirm_skipped();
    rearm_starved();
    publish_counters();
  }
  if (buffers_ != nullptr && buffers_->lent_count() > 0)
    return Error{"buffers were not given back"};
  for (const Side& side : sides_) close(side.fd);
  return true;
}

void Relay::enter() noexcept {
  submitted_.swap(unconfirmed_);
  // A send without a completion ends no sleep: with something to do behind it there must be none.
  const bool has_successors =
      std::any_of(submitted_.begin(), submitted_.end(),
                  [this](const Side* to) { return to->has_waiting() || peer_of(*to).has_ended; });
  if (has_successors) return ring_->submit();
  ring_->wait();
}

void Relay::finish_sqe(io_uring_sqe& sqe, const Side& side, Kind kind) const noexcept {
  if (switches_.fixed_files) {
    sqe.fd = static_cast<int>(side.index);
    sqe.flags |= IOSQE_FIXED_FILE;
  }
  sqe.user_data = uint64_t{side.index} << 8 | static_cast<uint64_t>(kind);
}

void Relay::deliver(const io_uring_cqe& cqe) noexcept {
  Side& side = sides_[cqe.user_data >> 8];
  switch (static_cast<Kind>(cqe.user_data & 0xFF)) {
    case Kind::recv:
      return on_recv(side, cqe);
    case Kind::send:
      return on_sent(side, cqe.res);
    case Kind::skipped_send:
      return on_skipped_send_failed(side, cqe.res);
  }
}

// Receives.

void Relay::arm_recv(Side& side) noexcept {
  io_uring_sqe* sqe = ring_->next_sqe();
  if (switches_.receive == Receive::multishot) {
    io_uring_prep_recv_multishot(sqe, side.fd, nullptr, 0, 0);
  } else {
    io_uring_prep_recv(sqe, side.fd, side.received.get(), switches_.buffer_size, 0);
  }
  if (!has_own_buffers()) {
    sqe->flags |= IOSQE_BUFFER_SELECT;
    sqe->buf_group = buffers_->group_id();
  }
  if (switches_.poll_first) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
  finish_sqe(*sqe, side, Kind::recv);
}

void Relay::on_recv(Side& side, const io_uring_cqe& cqe) noexcept {
  if (cqe.res == -ENOBUFS) {
    ++starved_count_;
    starved_.push_back(&side);
    return;
  }
  if (cqe.res <= 0) return on_end(side);
  const auto size = static_cast<uint32_t>(cqe.res);
  // Into a buffer of its own it is armed again when that was sent.
  if (has_own_buffers()) return forward(peer_of(side), {side.received.get(), size, 0, false});
  const auto buffer = static_cast<uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
  const ByteSpan bytes = buffers_->lend(buffer, size);
  if ((cqe.flags & IORING_CQE_F_MORE) == 0) arm_recv(side);
  forward(peer_of(side), {bytes.data(), size, buffer, false});
}

void Relay::on_end(Side& side) noexcept {
  side.has_ended = true;
  --open_count_;
  Side& peer = peer_of(side);
  if (!peer.is_sending) shutdown(peer.fd, SHUT_WR);
}

// As many as there are buffers: each of them has data waiting, and takes one.
void Relay::rearm_starved() noexcept {
  for (uint32_t left = starved_.empty() ? 0 : buffers_->available_count();
       left > 0 && !starved_.empty(); --left) {
    arm_recv(*starved_.back());
    starved_.pop_back();
  }
}

// Sends. At most one op of a socket is in flight: the kernel keeps no order between two.

void Relay::forward(Side& to, Piece piece) noexcept {
  if (!to.is_sending) {
    const bool sends_now = switches_.send == Send::at_once ||
                           (switches_.send == Send::adaptive && is_single_completion_);
    if (sends_now && send_now(to, piece)) return;
    if (switches_.send == Send::skip_success) return send_copy(to, piece);
  }
  to.waiting.push_back(piece);
  if (!to.is_sending) start_send(to);
}

// True when the socket took everything. An error is left to the op that sends the rest.
bool Relay::send_now(Side& to, Piece& piece) noexcept {
  const ssize_t size = send(to.fd, piece.bytes, piece.size, MSG_NOSIGNAL | MSG_DONTWAIT);
  if (size == static_cast<ssize_t>(piece.size)) {
    ++direct_sends_count_;
    release(to, piece);
    return true;
  }
  ++repeated_sends_count_;
  if (size > 0) {
    piece.bytes += size;
    piece.size -= static_cast<uint32_t>(size);
  }
  return false;
}

void Relay::send_copy(Side& to, const Piece& piece) noexcept {
  std::memcpy(to.copied.get(), piece.bytes, piece.size);
  to.skipped = {to.copied.get(), piece.size, 0, true};
  to.is_sending = true;
  io_uring_sqe* sqe = ring_->next_sqe();
  io_uring_prep_send(sqe, to.fd, to.skipped.bytes, to.skipped.size,
                     MSG_NOSIGNAL | MSG_DONTWAIT | MSG_WAITALL);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  finish_sqe(*sqe, to, Kind::skipped_send);
  unconfirmed_.push_back(&to);
  ++skipped_sends_count_;
  release(to, piece);
}

// The socket took less than everything: the rest goes by an op that may wait.
void Relay::on_skipped_send_failed(Side& to, int res) noexcept {
  if (res < 0 && res != -EAGAIN) {
    send_error_ = -res;
    return;
  }
  const auto sent_size = static_cast<uint32_t>(res < 0 ? 0 : res);
  to.skipped.bytes += sent_size;
  to.skipped.size -= sent_size;
  to.was_refused = true;
}

// What the last enter submitted has ended in it, and what failed has said so.
void Relay::confirm_skipped() noexcept {
  for (Side* to : submitted_) {
    if (to->was_refused) {
      ++repeated_sends_count_;
      const auto front = to->waiting.begin() + static_cast<ptrdiff_t>(to->waiting_head);
      to->waiting.insert(front, to->skipped);
    }
    send_next(*to);
  }
  submitted_.clear();
}

void Relay::start_send(Side& to) noexcept {
  const Piece& piece = to.waiting[to.waiting_head];
  const bool may_wait = !switches_.may_not_wait || to.was_refused;
  const int flags = MSG_NOSIGNAL | (may_wait ? MSG_WAITALL : MSG_DONTWAIT);
  io_uring_sqe* sqe = ring_->next_sqe();
  if (switches_.uses_sendmsg) {
    to.part = {const_cast<uint8_t*>(piece.bytes), piece.size};
    to.message.msg_iov = &to.part;
    to.message.msg_iovlen = 1;
    io_uring_prep_sendmsg(sqe, to.fd, &to.message, static_cast<unsigned>(flags));
  } else {
    io_uring_prep_send(sqe, to.fd, piece.bytes, piece.size, flags);
  }
  to.is_sending = true;
  finish_sqe(*sqe, to, Kind::send);
}

void Relay::on_sent(Side& to, int res) noexcept {
  to.was_refused = res == -EAGAIN;
  if (res < 0 && !to.was_refused) {
    send_error_ = -res;
    return;
  }
  Piece& piece = to.waiting[to.waiting_head];
  const auto sent_size = static_cast<uint32_t>(res < 0 ? 0 : res);
  if (sent_size < piece.size) {
    ++repeated_sends_count_;
    piece.bytes += sent_size;
    piece.size -= sent_size;
    return start_send(to);
  }
  const Piece done = piece;
  ++to.waiting_head;
  release(to, done);
  send_next(to);
}

void Relay::send_next(Side& to) noexcept {
  to.is_sending = false;
  if (to.has_waiting()) return start_send(to);
  to.waiting.clear();
  to.waiting_head = 0;
  if (peer_of(to).has_ended) shutdown(to.fd, SHUT_WR);
}

// The bytes of a piece are not needed any more.
void Relay::release(Side& to, const Piece& piece) noexcept {
  if (piece.is_copied) return;
  if (has_own_buffers()) return arm_recv(peer_of(to));
  buffers_->release(piece.buffer);
}

// Each has one writer, so a plain store does.
void Relay::publish_counters() noexcept {
  counters_.enters.store(ring_->enters_count(), std::memory_order_relaxed);
  counters_.starved.store(starved_count_, std::memory_order_relaxed);
  counters_.direct_sends.store(direct_sends_count_, std::memory_order_relaxed);
  counters_.skipped_sends.store(skipped_sends_count_, std::memory_order_relaxed);
  counters_.repeated_sends.store(repeated_sends_count_, std::memory_order_relaxed);
}

}  // namespace

Result<bool> run_relay(const RunOptions& options, int listener, const Address& target,
                       RelayCounters& counters) {
  Relay relay(options.switches, counters);
  Result<bool> done = relay.connect_pairs(options.connections, listener, target);
  if (done.ok()) done = relay.set_up_ring();
  if (done.ok()) done = relay.relay();
  return done;
}

}  // namespace helios::bench
