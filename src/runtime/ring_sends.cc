// Sends, and how a send ends without a completion.
//
// A small send to a socket with room ends while it is submitted. Its completion would only say so,
// and cost: with one busy client the enter that submits the send would return at once because of
// it, and a second enter would have to wait for the answer. So a send is first tried with
// MSG_DONTWAIT and CQE_SKIP_SUCCESS: when the kernel has taken the entry and no completion is
// there, everything was sent. MSG_WAITALL is what makes a short send count as a failure, which has
// a completion (kernel 5.19). Only then is there something to wait for, and the next send of that
// socket is an ordinary one, which waits for room in the kernel.
//
// That the kernel keeps to this is tried out when the ring is made (try_silent_send): a kernel that
// swallowed a short send would lose bytes.
#include <fcntl.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>

#include "helios/base/assert.h"
#include "helios/runtime/uring_abi.h"
#include "runtime/ring_scratch.h"

namespace helios {

[[gnu::hot]] void Ring::start_send(TargetId id, int fd, std::span<const iovec> parts,
                                   SendNotice notice) noexcept {
  ASSERT(!parts.empty());
  ASSERT(parts.size() <= send_parts_max);
  Target& target = target_at(id);
  begin_op(target, OpKind::send);
  target.send_size = 0;
  for (const iovec& part : parts) target.send_size += static_cast<uint32_t>(part.iov_len);
  target.is_send_silent = features_.has(Feature::silent_send) && !target.is_send_blocked;

  const int flags = MSG_NOSIGNAL | MSG_WAITALL | (target.is_send_silent ? MSG_DONTWAIT : 0);
  io_uring_sqe* sqe = next_sqe();
  if (parts.size() == 1) {
    io_uring_prep_send(sqe, fd, parts[0].iov_base, parts[0].iov_len, flags);
  } else {
    Scratch& scratch = scratch_of(sqe);
    scratch.message = {};
    std::copy(parts.begin(), parts.end(), scratch.parts);
    scratch.message.msg_iov = scratch.parts;
    scratch.message.msg_iovlen = parts.size();
    io_uring_prep_sendmsg(sqe, fd, &scratch.message, static_cast<unsigned>(flags));
  }
  sqe->user_data = ticket_of(id, OpKind::send);
  if (!target.is_send_silent) return;
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  target.send_position = ring_.sq.sqe_tail - 1;
  silent_sends_.push_back({id, target.send_position});
  if (notice == SendNotice::prompt) is_notice_due_ = true;
}

// Delivers the end of the silent sends that the kernel has taken and that did not fail.
uint32_t Ring::deliver_silent_sends() noexcept {
  if (silent_sends_.empty()) return 0;
  // A failure may be on the list of overflown completions, where we do not see it.
  if ((sq_flags() & IORING_SQ_CQ_OVERFLOW) != 0) return 0;
  note_failed_sends();
  const uint32_t submitted = __atomic_load_n(ring_.sq.khead, __ATOMIC_ACQUIRE);
  size_t taken_count = 0;
  while (taken_count < silent_sends_.size() &&
         static_cast<int32_t>(silent_sends_[taken_count].position - submitted) < 0)
    ++taken_count;

  uint32_t delivered_count = 0;
  for (size_t i = 0; i < taken_count; ++i) {
    const SilentSend send = silent_sends_[i];  // A copy: handlers may start others.
    Target* target = targets_.find(send.target);
    // Its failure has been delivered, or is about to be.
    if (target == nullptr || !target->is_send_silent || target->send_position != send.position)
      continue;
    deliver_send(*target, static_cast<int>(target->send_size), true);
    ++delivered_count;
  }
  silent_sends_.erase(silent_sends_.begin(),
                      silent_sends_.begin() + static_cast<ptrdiff_t>(taken_count));
  return delivered_count;
}

// A completion that is there tells that its send was not silent after all.
void Ring::note_failed_sends() noexcept {
  const uint32_t count = cqes_count();
  const uint32_t head = *ring_.cq.khead;
  for (uint32_t i = 0; i < count; ++i) {
    const io_uring_cqe& cqe = ring_.cq.cqes[(head + i) & ring_.cq.ring_mask];
    const OpTicket ticket = unpack_ticket(cqe.user_data);
    if (ticket.kind == static_cast<uint8_t>(OpKind::send))
      target_at({ticket.slot, ticket.generation}).is_send_silent = false;
  }
}

[[gnu::hot]] void Ring::deliver_send(Target& target, int res, bool is_silent) noexcept {
  target.is_send_silent = false;
  finish_op(target, OpKind::send);
  ++counters_.sends;
  if (is_silent) ++counters_.silent_sends;
  IoEvent event;
  event.kind = OpKind::send;
  event.res = res == -EAGAIN ? 0 : res;
  target.is_send_blocked = event.res >= 0 && static_cast<uint32_t>(event.res) < target.send_size;
  if (target.is_send_blocked) ++counters_.short_sends;
  call(target, event);
}

// One send that fits and one that does not: does the kernel tell of the second, and only of it?
bool Ring::try_silent_send() noexcept {
  int fds[2];
  if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0) return false;
  static constexpr std::array<char, 256 * 1024> bytes{};
  const int room = 1;  // As little as the kernel allows.
  (void)setsockopt(fds[0], SOL_SOCKET, SO_SNDBUF, &room, sizeof(room));
  const size_t sizes[] = {1, bytes.size()};
  uint32_t completions_count = 0;
  int last_res = 0;
  bool is_submitted = true;
  for (uint64_t i = 0; i < std::size(sizes); ++i) {
    io_uring_sqe* sqe = next_sqe();
    io_uring_prep_send(sqe, fds[0], bytes.data(), sizes[i],
                       MSG_NOSIGNAL | MSG_WAITALL | MSG_DONTWAIT);
    sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
    sqe->user_data = i;
    is_submitted = is_submitted && enter_kernel(0, IORING_ENTER_GETEVENTS, nullptr) == 1;
    for (; cqes_count() > 0; ++completions_count) {
      const uint32_t head = *ring_.cq.khead;
      const io_uring_cqe& cqe = ring_.cq.cqes[head & ring_.cq.ring_mask];
      last_res = cqe.user_data == 1 ? cqe.res : -EINVAL;
      __atomic_store_n(ring_.cq.khead, head + 1, __ATOMIC_RELEASE);
    }
  }
  char received[2];
  const bool is_there = recv(fds[1], received, sizeof(received), MSG_DONTWAIT) > 0;
  close(fds[0]);
  close(fds[1]);
  return is_submitted && is_there && completions_count == 1 && last_res > 0 &&
         static_cast<size_t>(last_res) < bytes.size();
}

}  // namespace helios
