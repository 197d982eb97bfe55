#include "helios/runtime/ring.h"

#include <poll.h>
#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <cstring>
#include <new>

#include "helios/base/assert.h"
#include "helios/runtime/ring_waker.h"
#include "helios/runtime/socket_options.h"
#include "helios/runtime/uring_abi.h"
#include "runtime/ring_scratch.h"

namespace helios {
namespace {

// Kinds of our own ops, above those of OpKind.
constexpr uint8_t alarm_kind = 250;          // The alarm of a long wait (is_alarm_enough).
constexpr uint8_t close_kind = 251;          // A close that failed: of no interest.
constexpr uint8_t cancel_kind = 252;         // A cancel; ends only when it found nothing to cancel.
constexpr uint8_t wake_sent_kind = 253;      // A MSG_RING of ours that failed; slot is the core.
constexpr uint8_t wake_received_kind = 254;  // A MSG_RING of another core.
constexpr uint8_t wake_poll_kind = 255;      // The poll on our eventfd.

// The kernel delivers at most this much task work in one enter since 6.13.
constexpr uint32_t completions_per_enter = 20;
constexpr uint32_t enters_per_turn_max = 16;
// Busy turns for which starved receives wait for a quarter of the buffers before fewer are good
// enough.
constexpr uint32_t starved_turns_max = 8;
constexpr uint32_t flush_attempts_max = 10'000;
constexpr uint32_t cq_entries_max = 65'536;
constexpr uint32_t cq_entries_fallback = 4096;
constexpr Nanoseconds short_wait_max = seconds(1);
// Shorter waits have a limit of their own.
constexpr Nanoseconds alarm_min = milliseconds(100);
constexpr uint32_t wake_cqes_max = 256;
// Sockets that one poll(2) looks at.
constexpr size_t verify_batch_max = 64;

constexpr uint32_t setup_flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN |
                                 IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG |
                                 IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CLAMP | IORING_SETUP_CQSIZE;
// All older than 6.1.
constexpr uint32_t needed_features =
    IORING_FEAT_NODROP | IORING_FEAT_SUBMIT_STABLE | IORING_FEAT_EXT_ARG | IORING_FEAT_FAST_POLL;

constexpr uint8_t bit_of(OpKind kind) noexcept {
  return static_cast<uint8_t>(1U << static_cast<unsigned>(kind));
}

uint64_t own_ticket(uint8_t kind, CoreId core = 0) noexcept {
  return pack({0, core, kind});
}

uint32_t cq_entries_of(const RingOptions& options) noexcept {
  uint64_t entries = options.cq_entries;
  if (entries == 0) {
    entries = uint64_t{options.client_buffers.count} + options.backend_buffers.count +
              2 * uint64_t{options.targets_max} + wake_cqes_max;
  }
  return static_cast<uint32_t>(std::clamp<uint64_t>(entries, options.sq_entries,
                                                    std::max(cq_entries_max, options.sq_entries)));
}

}  // namespace

Result<std::unique_ptr<Ring>> Ring::create(const RingOptions& options) {
  std::unique_ptr<Ring> ring(new Ring(options));
  Result<bool> done = ring->set_up(options);
  if (!done.ok()) return Error{done.error()};
  return ring;
}

Ring::Ring(const RingOptions& options) noexcept
    : features_off_(options.features_off), targets_(options.targets_max) {}

Ring::~Ring() {
  ASSERT(!is_in_handler_);
  if (wake_table_ != nullptr) wake_table_->set_ring_fd(self_, -1);
  if (is_open_) io_uring_queue_exit(&ring_);
  for (const Group& group : groups_)
    ASSERT(group.buffers == nullptr || group.buffers->lent_count() == 0);
}

Result<bool> Ring::set_up(const RingOptions& options) {
  io_uring_params params{};
  int res = -ENOMEM;
  // Kernels before 6.10 need the queue's memory in one piece, which a machine that has run for long
  // may lack. A smaller queue is slower when it overflows, and nothing is lost.
  for (uint32_t entries = cq_entries_of(options); res == -ENOMEM; entries /= 2) {
    params = {};
    params.flags = setup_flags;
    params.cq_entries = entries;
    res = io_uring_queue_init_params(options.sq_entries, &ring_, &params);
    if (entries / 2 < std::max(cq_entries_fallback, options.sq_entries)) break;
  }
  if (res < 0) return Error{explain_refusal("io_uring_setup", -res)};
  is_open_ = true;
  if ((params.features & needed_features) != needed_features)
    return Error{explain_refusal("io_uring_setup (features missing)", EINVAL)};

  // A child of ours must not share the rings. Refused at worst.
  (void)io_uring_ring_dontfork(&ring_);
  // SQEs are used in order, so the kernel's table of indices never changes.
  for (uint32_t i = 0; i < params.sq_entries; ++i) ring_.sq.array[i] = i;
  scratch_.reset(new (std::nothrow) Scratch[params.sq_entries]);
  if (scratch_ == nullptr) return Error{explain_refusal("allocating the ring's scratch", ENOMEM)};
  silent_sends_.reserve(params.sq_entries);  // What one turn submits, as a rule.

  // Sockets never need a kernel worker thread; should one appear, few are enough. A refusal changes
  // nothing.
  unsigned workers_max[2] = {2, 2};
  (void)io_uring_register_iowq_max_workers(&ring_, workers_max);
  Result<bool> done = set_up_group(BufferGroup::client, options.client_buffers);
  if (!done.ok()) return done;
  done = set_up_group(BufferGroup::backend, options.backend_buffers);
  if (!done.ok()) return done;

  features_ = probe_features(ring_, params.features, features_off_);
  if (!features_off_.has(Feature::silent_send) && try_silent_send())
    features_.add(Feature::silent_send);
  // Last: liburing 2.4 cannot register anything else behind it on kernels below 6.3.
  if (!features_off_.has(Feature::registered_ring) && io_uring_register_ring_fd(&ring_) == 1)
    features_.add(Feature::registered_ring);
  counters_ = {};  // Without the trials.
  return true;
}

Result<bool> Ring::set_up_group(BufferGroup group, const BufferGroupOptions& options) {
  auto buffers =
      BufferRing::create(ring_, {static_cast<uint16_t>(group), options.count, options.buffer_size});
  if (!buffers.ok()) return Error{buffers.error()};
  group_at(group).buffers = std::move(buffers).value();
  return true;
}

// The order matters. Buffers are published before the enter, so that re-armed receives find them;
// starved receives are submitted before the kernel looks at armed ones, so that they are served
// first.
[[gnu::hot]] int Ring::turn(Nanoseconds timeout) noexcept {
  ASSERT(!is_in_handler_);
  // Only what was cancelled before this turn: an event never comes in the turn that asked for it.
  const size_t cancelled_count = cancelled_.size();
  bool would_sleep = timeout > 0 && cancelled_count == 0 && !is_notice_due_ && !has_work_ready();
  is_notice_due_ = false;
  if (serve_starved(would_sleep)) would_sleep = false;
  if ((sq_flags() & IORING_SQ_CQ_OVERFLOW) != 0) ++counters_.cq_overflows;

  (void)enter(would_sleep ? 1 : 0, timeout);
  enter_for_rest();
  // The kernel was short of memory: what it has not taken has not ended.
  if (unsubmitted_count() > 0) is_notice_due_ = true;
  uint32_t delivered = deliver_cancelled(cancelled_count);
  // Before what was received: a reply must not be seen before the end of the send that it answers.
  delivered += deliver_silent_sends();
  return static_cast<int>(delivered + deliver_cqes());
}

// A work-around. A multishot receive can deliver the last data of a connection and then wait for
// ever, though the end has come. Every kernel that has one (6.0 and newer) does, in one case or in
// both, with unix sockets and with resets on TCP (a TCP end of file counts as data to be read):
// - Data and end both come before we enter. Their wake-ups are merged; the receive delivers the
//   data and takes both as served. Mended by a68ed2df7213 ("io_uring/poll: fix multishot recv
//   missing EOF on wakeup race", CVE-2026-23473, liburing issue 1549; in stable kernels of spring
//   2026 and later).
// - Data and end are both there when the receive is armed with POLL_FIRST. That is one wake-up, and
//   the commit above looks again only when there were two. Seen on 6.18.44, which has it.
// So a receive that delivered data is suspect until its socket says that it has not ended; where it
// has, the receive is cancelled and armed again. It then reads before it polls, and meets the end.
// This can go when the tests of ring_verify_test.cc pass without it on every supported kernel.
void Ring::verify_receives() noexcept {
  ASSERT(!is_in_handler_);
  // What could not be looked at goes to the back, and the loop ends nevertheless.
  for (size_t left = unverified_.size(); left > 0;) {
    const size_t count = std::min(left, verify_batch_max);
    verify_batch(count);
    left -= count;
  }
}

void Ring::accept_wakes(WakeTable& table, CoreId self) noexcept {
  ASSERT(wake_table_ == nullptr);
  ASSERT(table.ok());
  ASSERT(self < table.cores_count());
  wake_table_ = &table;
  self_ = self;
  start_wake_poll();
  if (features_.has(Feature::msg_ring_wake)) table.set_ring_fd(self, ring_.ring_fd);
}

void Ring::wake(CoreId to) noexcept {
  ASSERT(wake_table_ != nullptr);
  ASSERT(to != self_);
  ++counters_.wakes_sent;
  const int fd = features_.has(Feature::msg_ring_wake) ? wake_table_->ring_fd(to) : -1;
  if (fd < 0) return wake_table_->wake_by_event(to);
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_msg_ring(sqe, fd, 0, own_ticket(wake_received_kind), 0);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = own_ticket(wake_sent_kind, to);
}

std::string Ring::describe() const {
  return helios::describe(features_, features_off_);
}

TargetId Ring::attach(IoTarget* target) noexcept {
  ASSERT(target != nullptr);
  Target* made = targets_.make(target);
  ASSERT(made != nullptr);
  return targets_.id_of(made);
}

void Ring::detach(TargetId id) noexcept {
  Target& target = target_at(id);
  ASSERT(target.ops_in_flight == 0);
  ASSERT(target.recv_state == RecvState::idle);
  targets_.free(&target);
}

void Ring::start_accept(TargetId id, int fd) noexcept {
  begin_op(target_at(id), OpKind::accept);
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_multishot_accept(sqe, fd, nullptr, nullptr, SOCK_NONBLOCK | SOCK_CLOEXEC);
  sqe->user_data = ticket_of(id, OpKind::accept);
}

void Ring::start_recv(TargetId id, int fd, BufferGroup group, bool expect_idle) noexcept {
  Target& target = target_at(id);
  begin_op(target, OpKind::recv);
  ASSERT(target.recv_state == RecvState::idle);
  target.recv_fd = fd;
  target.recv_group = group;
  arm_recv(target, expect_idle);
}

void Ring::start_connect(TargetId id, int fd, const sockaddr* address, socklen_t size) noexcept {
  ASSERT(size <= sizeof(sockaddr_storage));
  begin_op(target_at(id), OpKind::connect);
  io_uring_sqe* sqe = next_sqe();
  Scratch& scratch = scratch_of(sqe);
  std::memcpy(&scratch.address, address, size);
  io_uring_prep_connect(sqe, fd, reinterpret_cast<const sockaddr*>(&scratch.address), size);
  sqe->user_data = ticket_of(id, OpKind::connect);
}

void Ring::start_poll(TargetId id, int fd) noexcept {
  begin_op(target_at(id), OpKind::poll);
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_poll_multishot(sqe, fd, POLLIN);
  sqe->user_data = ticket_of(id, OpKind::poll);
}

// POLLHUP and POLLERR come by themselves.
void Ring::start_hangup_poll(TargetId id, int fd) noexcept {
  begin_op(target_at(id), OpKind::poll);
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_poll_add(sqe, fd, POLLRDHUP);
  sqe->user_data = ticket_of(id, OpKind::poll);
}

void Ring::start_cancel(TargetId id, OpKind kind) noexcept {
  Target& target = target_at(id);
  ASSERT((target.ops_in_flight & bit_of(kind)) != 0);
  if (is_cancelled(target, kind)) return;
  target.ops_cancelled = static_cast<uint8_t>(target.ops_cancelled | bit_of(kind));
  if (kind == OpKind::recv) {
    unmark_unverified(target);
    // The restart's cancel is on its way, and its end is now the target's.
    if (target.recv_state == RecvState::restarting) return;
    if (target.recv_state == RecvState::starved) {
      group_at(target.recv_group).starved.remove(target);
      target.recv_state = RecvState::cancelled;
      cancelled_.push_back(target);
      return;
    }
  }
  cancel_in_kernel(target, kind);
}

void Ring::keep_buffer(BufferRef buffer) noexcept {
  group_at(buffer.group).buffers->keep(buffer.index);
}

void Ring::release_buffer(BufferRef buffer) noexcept {
  group_at(buffer.group).buffers->release(buffer.index);
}

uint32_t Ring::lent_count(BufferGroup group) const noexcept {
  return group_at(group).buffers->lent_count();
}

uint32_t Ring::buffers_count(BufferGroup group) const noexcept {
  return group_at(group).buffers->count();
}

void Ring::trim_buffers() noexcept {
  for (const Group& group : groups_) group.buffers->trim();
}

int Ring::open_socket(int family) noexcept {
  const int fd = socket(family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  return fd < 0 ? -errno : fd;
}

void Ring::tune_socket(int fd, int family) noexcept {
  set_socket_options(fd, family);
}

void Ring::shutdown_write(int fd) noexcept {
  (void)shutdown(fd, SHUT_WR);
}

// An entry more in an enter that comes anyway is cheaper than a call. It never waits for a worker
// thread: only files with a flush of their own do.
void Ring::close_fd(int fd) noexcept {
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_close(sqe, fd);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = own_ticket(close_kind);
}

// Submission.

[[gnu::hot]] io_uring_sqe* Ring::next_sqe() noexcept {
  if (unsubmitted_count() == ring_.sq.ring_entries) flush_sq();
  io_uring_sqe* sqe = &ring_.sq.sqes[ring_.sq.sqe_tail & ring_.sq.ring_mask];
  std::memset(sqe, 0, sizeof(*sqe));
  ++ring_.sq.sqe_tail;
  return sqe;
}

Ring::Scratch& Ring::scratch_of(const io_uring_sqe* sqe) noexcept {
  return scratch_[static_cast<size_t>(sqe - ring_.sq.sqes)];
}

void Ring::begin_op(Target& target, OpKind kind) noexcept {
  ASSERT((target.ops_in_flight & bit_of(kind)) == 0);
  target.ops_in_flight = static_cast<uint8_t>(target.ops_in_flight | bit_of(kind));
}

void Ring::finish_op(Target& target, OpKind kind) noexcept {
  ASSERT((target.ops_in_flight & bit_of(kind)) != 0);
  target.ops_in_flight = static_cast<uint8_t>(target.ops_in_flight & ~bit_of(kind));
  target.ops_cancelled = static_cast<uint8_t>(target.ops_cancelled & ~bit_of(kind));
}

// Note: never MSG_WAITALL on a receive that selects buffers: two sockets could get the same buffer
// (kernels from 5.19 on without commit 41b70df5b38b).
void Ring::arm_recv(Target& target, bool expect_idle) noexcept {
  target.recv_state = RecvState::armed;
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_recv_multishot(sqe, target.recv_fd, nullptr, 0, 0);
  if (expect_idle) sqe->ioprio |= IORING_RECVSEND_POLL_FIRST;
  sqe->flags |= IOSQE_BUFFER_SELECT;
  sqe->buf_group = group_at(target.recv_group).buffers->group_id();
  sqe->user_data = ticket_of(targets_.id_of(&target), OpKind::recv);
}

// Its own completion tells nothing that the op's does not, so success makes none.
void Ring::cancel_in_kernel(const Target& target, OpKind kind) noexcept {
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_cancel64(sqe, ticket_of(targets_.id_of(&target), kind), 0);
  sqe->flags |= IOSQE_CQE_SKIP_SUCCESS;
  sqe->user_data = own_ticket(cancel_kind);
}

bool Ring::is_cancelled(const Target& target, OpKind kind) noexcept {
  return (target.ops_cancelled & bit_of(kind)) != 0;
}

uint32_t Ring::unsubmitted_count() const noexcept {
  return ring_.sq.sqe_tail - __atomic_load_n(ring_.sq.khead, __ATOMIC_ACQUIRE);
}

uint32_t Ring::sq_flags() const noexcept {
  return __atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED);
}

uint32_t Ring::cqes_count() const noexcept {
  return __atomic_load_n(ring_.cq.ktail, __ATOMIC_ACQUIRE) - *ring_.cq.khead;
}

bool Ring::has_work_ready() const noexcept {
  return cqes_count() > 0 || (sq_flags() & (IORING_SQ_TASKRUN | IORING_SQ_CQ_OVERFLOW)) != 0;
}

// The submission queue is full within a turn: hand it over without waiting. The kernel takes at
// least one unless it is out of memory or its list of overflown completions must drain first;
// asking for events helps the latter.
void Ring::flush_sq() noexcept {
  ++counters_.sq_flushes;
  for (uint32_t attempt = 0; attempt < flush_attempts_max; ++attempt) {
    if (attempt > 0) sched_yield();
    (void)enter_kernel(0, attempt > 0 ? IORING_ENTER_GETEVENTS : 0, nullptr);
    if (unsubmitted_count() < ring_.sq.ring_entries) return;
  }
  UNREACHABLE("the kernel has taken no request for a long time");
}

int Ring::enter(uint32_t wait_count, Nanoseconds timeout) noexcept {
  if (!features_.has(Feature::long_wait)) timeout = std::min(timeout, short_wait_max);
  __kernel_timespec limit{};
  limit.tv_sec = timeout / seconds(1);
  limit.tv_nsec = timeout % seconds(1);
  io_uring_getevents_arg argument{};
  argument.sigmask_sz = _NSIG / 8;
  if (wait_count > 0 && timeout != never && !is_alarm_enough(timeout))
    argument.ts = reinterpret_cast<uint64_t>(&limit);
  uint32_t flags = IORING_ENTER_GETEVENTS | IORING_ENTER_EXT_ARG;
  if (wait_count > 0 && features_.has(Feature::no_iowait)) flags |= IORING_ENTER_NO_IOWAIT;
  return enter_kernel(wait_count, flags, &argument);
}

// A wait with a limit sets and removes a timer in the kernel each time, which a core that sleeps
// twice for each query can feel (2 % with one client). So a long wait has none: a timeout op is
// left in flight that ends whatever wait it meets, and only when the next deadline is before it
// does the wait get a limit of its own. True: the alarm ends this wait in time.
bool Ring::is_alarm_enough(Nanoseconds timeout) noexcept {
  if (timeout < alarm_min) return false;
  const Nanoseconds now = clock_.now();
  if (alarm_at_ != never) return alarm_at_ <= now + timeout;
  alarm_at_ = now + timeout;
  io_uring_sqe* sqe = next_sqe();
  __kernel_timespec& time = scratch_of(sqe).time;
  time.tv_sec = timeout / seconds(1);
  time.tv_nsec = timeout % seconds(1);
  io_uring_prep_timeout(sqe, &time, 0, 0);
  sqe->user_data = own_ticket(alarm_kind);
  return true;
}

// The one place where the kernel is entered. What it did not take stays queued for the next time.
[[gnu::hot]] int Ring::enter_kernel(uint32_t wait_count, uint32_t flags,
                                    io_uring_getevents_arg* argument) noexcept {
  for (const Group& group : groups_) group.buffers->publish();
  const uint32_t count = unsubmitted_count();
  __atomic_store_n(ring_.sq.ktail, ring_.sq.sqe_tail, __ATOMIC_RELEASE);
  if (features_.has(Feature::registered_ring)) flags |= IORING_ENTER_REGISTERED_RING;
  const int res = io_uring_enter2(static_cast<unsigned>(ring_.enter_ring_fd), count, wait_count,
                                  flags, reinterpret_cast<sigset_t*>(argument),
                                  argument == nullptr ? _NSIG / 8 : sizeof(*argument));
  ++counters_.enters;
  counters_.sqes += count - unsubmitted_count();
  if (res >= 0 || res == -EINTR || res == -ETIME)
    return res;  // A signal and the deadline are no errors.
  // Out of memory for requests, or overflown completions must be collected first: the next turn
  // tries again.
  ASSERT(res == -EBUSY || res == -EAGAIN);
  ++counters_.busy_enters;
  return res;
}

// More is ready than one enter delivers: collect it now, so that handlers see a full batch. Never
// waits.
void Ring::enter_for_rest() noexcept {
  uint32_t seen = 0;
  for (uint32_t i = 1; i < enters_per_turn_max; ++i) {
    if ((sq_flags() & IORING_SQ_TASKRUN) == 0) return;
    const uint32_t count = cqes_count();
    // Fewer than the limit: what is flagged came only now and is the next turn's.
    if (count - seen < completions_per_enter) return;
    if (count >= ring_.cq.ring_entries) return;
    seen = count;
    ++counters_.extra_enters;
    (void)enter(0, 0);
  }
}

// Starved receives.

// Arms what can be armed. True: more can be armed next turn, so this one must not sleep.
bool Ring::serve_starved(bool would_sleep) noexcept {
  bool has_more = false;
  for (Group& group : groups_) {
    if (group.starved.empty()) continue;
    rearm_starved(group, would_sleep);
    if (!group.starved.empty() && group.buffers->available_count() > 0) has_more = true;
  }
  return has_more;
}

// A quarter of the buffers must be back: one at a time would cost an op and an ENOBUFS for each.
// But buffers may be kept for long, so a ring that has nothing else to do, or has put this off for
// some turns, takes what there is. No more receives than buffers: the rest could only fail. This
// cannot spin: a receive that starves again has seen another take a buffer.
void Ring::rearm_starved(Group& group, bool would_sleep) noexcept {
  const uint32_t available = group.buffers->available_count();
  if (available == 0) return;
  const bool is_enough = available >= std::max(1U, group.buffers->count() / 4);
  if (!is_enough && !would_sleep && ++group.turns_waited < starved_turns_max) return;
  group.turns_waited = 0;
  for (uint32_t i = 0; i < available && !group.starved.empty(); ++i) {
    Target* target = group.starved.pop_front();
    ASSERT(target->recv_state == RecvState::starved);
    ++counters_.rearms;
    arm_recv(*target, false);  // Data is waiting: no poll first.
  }
}

void Ring::on_recv_starved(Target& target, int res) noexcept {
  if (res == -ENOBUFS) {
    ++counters_.enobufs;
    const Group& group = group_at(target.recv_group);
    group.buffers->on_starved(group.starved.size() + 1);
  }
  if (is_cancelled(target, OpKind::recv)) return end_recv(target, -ECANCELED);
  // It will read first when it is armed again, as after a restart: nothing to verify.
  unmark_unverified(target);
  ++counters_.starved;
  target.recv_state = RecvState::starved;
  group_at(target.recv_group).starved.push_back(target);
}

// Verification of receives.

void Ring::mark_unverified(Target& target) noexcept {
  // One that ends or starts again anyway will see the end of the connection.
  if (target.recv_state != RecvState::armed || is_cancelled(target, OpKind::recv)) return;
  if (!static_cast<const ListNode<UnverifiedTag>&>(target).is_linked())
    unverified_.push_back(target);
}

void Ring::unmark_unverified(Target& target) noexcept {
  if (static_cast<const ListNode<UnverifiedTag>&>(target).is_linked()) unverified_.remove(target);
}

// Takes the first `count` off the list and looks at their sockets.
void Ring::verify_batch(size_t count) noexcept {
  ASSERT(count <= verify_batch_max);
  std::array<Target*, verify_batch_max> batch;
  std::array<pollfd, verify_batch_max> sockets;
  for (size_t i = 0; i < count; ++i) {
    batch[i] = unverified_.pop_front();
    ASSERT(batch[i] != nullptr);
    ASSERT(batch[i]->recv_state == RecvState::armed);
    ASSERT(!is_cancelled(*batch[i], OpKind::recv));
    sockets[i] = {batch[i]->recv_fd, POLLRDHUP, 0};  // POLLHUP and POLLERR come by themselves.
  }
  // Fails only when a signal comes or memory is short: the next time will do.
  const bool has_failed = poll(sockets.data(), count, 0) < 0;
  counters_.receives_verified += count;
  for (size_t i = 0; i < count; ++i) {
    if (has_failed) {
      unverified_.push_back(*batch[i]);
    } else if ((sockets[i].revents & (POLLRDHUP | POLLHUP | POLLERR)) != 0) {
      start_restart(*batch[i]);
    }
  }
}

// When the end was not missed but is on its way, the cancel finds nothing and the end is delivered
// as ever. Submission is in order, so this cancel can only meet the receive that is armed now.
void Ring::start_restart(Target& target) noexcept {
  ASSERT(target.recv_state == RecvState::armed);
  ASSERT((target.ops_in_flight & bit_of(OpKind::recv)) != 0);
  ++counters_.receives_restarted;
  target.recv_state = RecvState::restarting;
  cancel_in_kernel(target, OpKind::recv);
}

// Only a cancel that the target did not ask for is ours. Any other end is the receive's own: an
// error in particular, which the socket tells only once.
void Ring::on_restart_ready(Target& target, const io_uring_cqe& cqe) noexcept {
  ASSERT((target.ops_in_flight & bit_of(OpKind::recv)) != 0);
  arm_recv(target, false);  // Not by poll: reading comes first.
  if ((cqe.flags & IORING_CQE_F_BUFFER) == 0) return;
  const auto index = static_cast<uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT);
  BufferRing& buffers = *group_at(target.recv_group).buffers;
  (void)buffers.lend(index, 0);
  buffers.release(index);
}

// Delivery. Handlers only queue; `is_in_handler_` guards against a turn within a turn.

uint32_t Ring::deliver_cancelled(size_t count) noexcept {
  for (size_t i = 0; i < count; ++i) {
    Target* target = cancelled_.pop_front();
    ASSERT(target != nullptr);
    ASSERT(target->recv_state == RecvState::cancelled);
    end_recv(*target, -ECANCELED);
  }
  return static_cast<uint32_t>(count);
}

uint32_t Ring::deliver_cqes() noexcept {
  // Only what is there now: a flush within a handler may complete more, and a turn must end.
  const uint32_t count = cqes_count();
  const uint64_t alarms_before = counters_.alarms;
  for (uint32_t i = 0; i < count; ++i) {
    const uint32_t head = *ring_.cq.khead;
    const io_uring_cqe cqe = ring_.cq.cqes[head & ring_.cq.ring_mask];
    // Consumed before the handler runs, so that a flush in it finds room.
    __atomic_store_n(ring_.cq.khead, head + 1, __ATOMIC_RELEASE);
    deliver(cqe);
  }
  counters_.cqes += count;
  return count - static_cast<uint32_t>(counters_.alarms - alarms_before);
}

void Ring::deliver(const io_uring_cqe& cqe) noexcept {
  const OpTicket ticket = unpack_ticket(cqe.user_data);
  if (ticket.kind >= alarm_kind) return deliver_own(cqe);
  const auto kind = static_cast<OpKind>(ticket.kind);
  // A completion for a target that is gone would be a bug of ours: detach requires that nothing is
  // in flight.
  Target& target = target_at({ticket.slot, ticket.generation});
  ASSERT((target.ops_in_flight & bit_of(kind)) != 0);
  if (kind == OpKind::recv) return deliver_recv(target, cqe);
  if (kind == OpKind::send) return deliver_send(target, cqe.res, false);

  IoEvent event;
  event.kind = kind;
  event.res = cqe.res;
  event.more = (cqe.flags & IORING_CQE_F_MORE) != 0;
  if (!event.more) finish_op(target, kind);
  call(target, event);
}

void Ring::deliver_recv(Target& target, const io_uring_cqe& cqe) noexcept {
  IoEvent event;
  event.kind = OpKind::recv;
  event.res = cqe.res;
  event.more = (cqe.flags & IORING_CQE_F_MORE) != 0;
  // -EAGAIN is what a full completion queue or want of memory may make of a receive: try again.
  if ((cqe.res == -ENOBUFS || cqe.res == -EAGAIN) && !event.more)
    return on_recv_starved(target, cqe.res);
  if (cqe.res == -ECANCELED && !event.more && target.recv_state == RecvState::restarting &&
      !is_cancelled(target, OpKind::recv))
    return on_restart_ready(target, cqe);
  if (event.more) {
    if (cqe.res > 0) mark_unverified(target);
  } else {
    unmark_unverified(target);
    target.recv_state = RecvState::idle;
    finish_op(target, OpKind::recv);
  }
  if ((cqe.flags & IORING_CQE_F_BUFFER) == 0) return call(target, event);

  BufferRing& buffers = *group_at(target.recv_group).buffers;
  event.buffer = {static_cast<uint16_t>(cqe.flags >> IORING_CQE_BUFFER_SHIFT), target.recv_group};
  event.data = buffers.lend(event.buffer.index, static_cast<uint32_t>(std::max(cqe.res, 0)));
  if (cqe.res > 0) ++counters_.receives;
  call(target, event);  // Note: the target may be gone behind this.
  buffers.release(event.buffer.index);
}

void Ring::end_recv(Target& target, int res) noexcept {
  ASSERT(!static_cast<const ListNode<UnverifiedTag>&>(target).is_linked());
  target.recv_state = RecvState::idle;
  finish_op(target, OpKind::recv);
  IoEvent event;
  event.kind = OpKind::recv;
  event.res = res;
  call(target, event);
}

void Ring::call(Target& target, const IoEvent& event) noexcept {
  is_in_handler_ = true;
  target.handler->on_io(event);
  is_in_handler_ = false;
}

void Ring::deliver_own(const io_uring_cqe& cqe) noexcept {
  const OpTicket ticket = unpack_ticket(cqe.user_data);
  switch (ticket.kind) {
    case alarm_kind:
      alarm_at_ = never;
      ++counters_.alarms;
      return;
    case close_kind:
      return;
    case cancel_kind:
      return;  // It found nothing: the op's own end is on its way.
    case wake_received_kind:
      ++counters_.wakes_received;
      return;
    case wake_sent_kind:
      return wake_table_->wake_by_event(static_cast<CoreId>(ticket.slot));
    case wake_poll_kind:
      return on_wake_poll(cqe);
    default:
      UNREACHABLE("kind of op");
  }
}

void Ring::start_wake_poll() noexcept {
  io_uring_sqe* sqe = next_sqe();
  io_uring_prep_poll_multishot(sqe, wake_table_->event_fd(self_), POLLIN);
  sqe->user_data = own_ticket(wake_poll_kind);
}

void Ring::on_wake_poll(const io_uring_cqe& cqe) noexcept {
  uint64_t count;
  if (read(wake_table_->event_fd(self_), &count, sizeof(count)) > 0) ++counters_.wakes_received;
  if ((cqe.flags & IORING_CQE_F_MORE) == 0) start_wake_poll();
}

Ring::Target& Ring::target_at(TargetId id) noexcept {
  Target* target = targets_.find(id);
  ASSERT(target != nullptr);
  return *target;
}

Ring::Group& Ring::group_at(BufferGroup group) noexcept {
  return groups_[static_cast<size_t>(group)];
}

const Ring::Group& Ring::group_at(BufferGroup group) const noexcept {
  return groups_[static_cast<size_t>(group)];
}

}  // namespace helios
