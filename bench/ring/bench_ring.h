// The smallest ring that has the switches: submission queue, one enter, completions.
//
// Not the proxy's Ring (runtime/ring.h), which does one thing of each; the way it enters is copied
// from there. Made and used by one thread.
#pragma once

#include <liburing.h>

#include <cstdint>
#include <memory>

#include "helios/base/clock.h"
#include "helios/base/result.h"

namespace helios::bench {

struct BenchRingOptions {
  uint32_t sq_entries = 8;
  uint32_t cq_entries = 64;
  bool defer_taskrun = true;
  bool no_iowait = true;
  Nanoseconds spin = 0;
};

class BenchRing {
 public:
  // The error says why io_uring is refused, and the remedies.
  [[nodiscard]] static Result<std::unique_ptr<BenchRing>> create(const BenchRingOptions& options);
  BenchRing(const BenchRing&) = delete;
  BenchRing& operator=(const BenchRing&) = delete;
  ~BenchRing();

  // Requires: fewer than `sq_entries` were taken since the last wait.
  [[nodiscard]] io_uring_sqe* next_sqe() noexcept;
  // Submits everything and collects what has completed.
  void submit() noexcept;
  // The same, and waits until there is a completion, after spinning if so asked.
  void wait() noexcept;
  [[nodiscard]] uint32_t ready_count() const noexcept { return io_uring_cq_ready(&ring_); }

  // Calls `visit(const io_uring_cqe&)` for each completion that is there.
  template <typename Visit>
  void for_each_cqe(Visit visit) noexcept {
    const uint32_t count = ready_count();
    const uint32_t head = *ring_.cq.khead;
    for (uint32_t i = 0; i < count; ++i) visit(ring_.cq.cqes[(head + i) & ring_.cq.ring_mask]);
    io_uring_cq_advance(&ring_, count);
  }

  // Whether the kernel knows NO_IOWAIT; where it does not the option has no effect.
  [[nodiscard]] static bool knows_no_iowait() noexcept;

  // For registering buffers and files, before the first wait.
  [[nodiscard]] io_uring& raw() noexcept { return ring_; }
  [[nodiscard]] int fd() const noexcept { return ring_.ring_fd; }
  [[nodiscard]] uint64_t enters_count() const noexcept { return enters_count_; }

 private:
  explicit BenchRing(const BenchRingOptions& options) noexcept : options_(options) {}
  [[nodiscard]] Result<bool> set_up();
  [[nodiscard]] bool has_task_work() const noexcept;
  [[nodiscard]] bool spin() noexcept;
  void enter(uint32_t wait_count) noexcept;
  void enter_for_rest() noexcept;

  BenchRingOptions options_;
  io_uring ring_{};
  bool is_open_ = false;
  bool is_registered_ = false;
  uint64_t enters_count_ = 0;
};

}  // namespace helios::bench
