#include "bench/ring/bench_ring.h"

#include <cerrno>
#include <csignal>

#include "helios/base/assert.h"
#include "helios/runtime/features.h"
#include "helios/runtime/uring_abi.h"

namespace helios::bench {
namespace {

// The kernel delivers at most this much task work in one enter since 6.13.
constexpr uint32_t completions_per_enter = 20;
constexpr uint32_t enters_per_turn_max = 64;

}  // namespace

Result<std::unique_ptr<BenchRing>> BenchRing::create(const BenchRingOptions& options) {
  std::unique_ptr<BenchRing> ring(new BenchRing(options));
  Result<bool> done = ring->set_up();
  if (!done.ok()) return Error{done.error()};
  return ring;
}

bool BenchRing::knows_no_iowait() noexcept {
  io_uring ring{};
  io_uring_params params{};
  if (io_uring_queue_init_params(1, &ring, &params) < 0) return false;
  io_uring_queue_exit(&ring);
  return (params.features & IORING_FEAT_NO_IOWAIT) != 0;
}

BenchRing::~BenchRing() {
  if (is_open_) io_uring_queue_exit(&ring_);
}

Result<bool> BenchRing::set_up() {
  io_uring_params params{};
  params.flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_COOP_TASKRUN |
                 IORING_SETUP_TASKRUN_FLAG | IORING_SETUP_SUBMIT_ALL | IORING_SETUP_CQSIZE;
  if (options_.defer_taskrun) params.flags |= IORING_SETUP_DEFER_TASKRUN;
  params.cq_entries = options_.cq_entries;
  const int res = io_uring_queue_init_params(options_.sq_entries, &ring_, &params);
  if (res < 0) return Error{explain_refusal("io_uring_setup", -res)};
  is_open_ = true;
  // SQEs are used in order, so the kernel's table of indices never changes.
  for (uint32_t i = 0; i < params.sq_entries; ++i) ring_.sq.array[i] = i;
  if ((params.features & IORING_FEAT_NO_IOWAIT) == 0) options_.no_iowait = false;
  is_registered_ = io_uring_register_ring_fd(&ring_) == 1;
  return true;
}

io_uring_sqe* BenchRing::next_sqe() noexcept {
  io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
  ASSERT(sqe != nullptr);
  return sqe;
}

void BenchRing::submit() noexcept {
  enter(0);
  enter_for_rest();
}

void BenchRing::wait() noexcept {
  // Before spinning, what was queued must be on its way.
  if (options_.spin > 0) enter(0);
  if (options_.spin == 0 || !spin()) enter(1);
  enter_for_rest();
}

// More is ready than one enter delivers: collect it, so that the batch is whole.
void BenchRing::enter_for_rest() noexcept {
  uint32_t seen_count = 0;
  for (uint32_t i = 0; i < enters_per_turn_max && has_task_work(); ++i) {
    if (ready_count() - seen_count < completions_per_enter) return;
    seen_count = ready_count();
    enter(0);
  }
}

bool BenchRing::has_task_work() const noexcept {
  return (__atomic_load_n(ring_.sq.kflags, __ATOMIC_RELAXED) & IORING_SQ_TASKRUN) != 0;
}

// True when a completion came in time.
bool BenchRing::spin() noexcept {
  MonotonicClock clock;
  const Nanoseconds deadline = clock.now() + options_.spin;
  while (ready_count() == 0) {
    if (has_task_work()) {
      enter(0);
    } else if (clock.now() >= deadline) {
      return false;
    }
  }
  return true;
}

// No submission may be left behind: nobody would miss it before everything stands still.
void BenchRing::enter(uint32_t wait_count) noexcept {
  uint32_t flags = IORING_ENTER_GETEVENTS;
  if (wait_count > 0 && options_.no_iowait) flags |= IORING_ENTER_NO_IOWAIT;
  if (is_registered_) flags |= IORING_ENTER_REGISTERED_RING;
  __atomic_store_n(ring_.sq.ktail, ring_.sq.sqe_tail, __ATOMIC_RELEASE);
  for (;;) {
    const uint32_t count = ring_.sq.sqe_tail - __atomic_load_n(ring_.sq.khead, __ATOMIC_ACQUIRE);
    const int res = io_uring_enter2(static_cast<unsigned>(ring_.enter_ring_fd), count, wait_count,
                                    flags, nullptr, _NSIG / 8);
    ++enters_count_;
    ASSERT(res >= 0 || res == -EINTR || res == -EAGAIN || res == -EBUSY);
    if (res >= 0 && static_cast<uint32_t>(res) >= count) return;
    if (ready_count() > 0) return;  // Completions first; the rest next time.
  }
}

}  // namespace helios::bench
