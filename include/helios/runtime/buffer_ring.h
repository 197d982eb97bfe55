// One group of provided receive buffers: memory that we lend from the kernel and give back.
//
// A buffer belongs to the kernel until a completion names it; then it is lent to us and counted:
// one for the handler that runs and one for each keep. At zero it is free, and `publish` shows the
// kernel free ones, with one store.
//
// The kernel takes buffers in the order in which it got them, so with all of them in the ring each
// receive would touch memory that has been cold for longest, and in the end every page of all of
// them. So only some are published, and those that came back last are published first: what a core
// works with stays in its caches, and the rest is never touched. That holds for large results too:
// what is received in a turn is sent at its end, so it should fit the second-level cache (with 2
// MiB in a turn instead of 256 KiB, 1 MB results cost 1.3 to 1.5 times as much). When receives find
// the ring empty, more are published from then on, unless it was emptied by a few large messages
// (on_starved); after a while with enough, fewer. What has not been used for a while gives its
// pages back (trim).
//
// Owned by one Ring; that core's thread only. Invariant: lent + free + published == count.
// Kernel 5.19; liburing 2.3 has no helper for set-up, so memory is mapped and registered by hand.
#pragma once

#include <algorithm>
#include <cstdint>
#include <memory>

#include "helios/base/bytes.h"
#include "helios/base/result.h"

struct io_uring;
struct io_uring_buf_ring;

namespace helios {

class BufferRing {
 public:
  struct Options {
    uint16_t group_id = 0;
    uint32_t count = 256;         // A power of two, 1 to 32,768.
    uint32_t buffer_size = 8192;  // Bytes.
  };

  // Maps the memory and registers the group. Errors: no memory, or the kernel refuses the
  // registration.
  [[nodiscard]] static Result<std::unique_ptr<BufferRing>> create(io_uring& ring,
                                                                  const Options& options);
  BufferRing(const BufferRing&) = delete;
  BufferRing& operator=(const BufferRing&) = delete;
  // Requires: the io_uring is gone, or nothing is in flight on this group.
  ~BufferRing();

  // The kernel has handed over this buffer: it is lent, with a count of one. `size` bytes of it are
  // filled.
  [[nodiscard]] ByteSpan lend(uint16_t index, uint32_t size) noexcept;
  // Requires of both: the buffer is lent.
  void keep(uint16_t index) noexcept;
  void release(uint16_t index) noexcept;
  // Shows the kernel as many free buffers as it should have. Call it before each enter.
  void publish() noexcept;
  // A receive found no buffer, one of `starved_count` that wait now. Call it after the lend of what
  // the kernel has handed over.
  void on_starved(size_t starved_count) noexcept;
  // Gives back the pages of free buffers that nothing was received in since the last call. Now and
  // then.
  void trim() noexcept;

  [[nodiscard]] uint16_t group_id() const noexcept { return options_.group_id; }
  [[nodiscard]] uint32_t count() const noexcept { return options_.count; }
  [[nodiscard]] uint32_t lent_count() const noexcept { return lent_count_; }
  // Buffers that are not lent, as far as we know: the kernel may have filled some whose completion
  // we have not seen.
  [[nodiscard]] uint32_t available_count() const noexcept { return options_.count - lent_count_; }
  // How many of these the kernel should have.
  [[nodiscard]] uint32_t published_target() const noexcept { return published_target_; }

  // As many as hold what one send takes, or a few where buffers are larger than that.
  static constexpr uint32_t published_size_min = 256 * 1024;  // Bytes.
  static constexpr uint32_t published_count_min = 4;
  [[nodiscard]] uint32_t published_min() const noexcept {
    const uint32_t count = published_size_min / options_.buffer_size;
    return std::min(options_.count, std::max(published_count_min, count));
  }
  // Publishing looks once in so many calls whether fewer would do.
  static constexpr uint32_t review_interval = 4096;

 private:
  // What of a buffer's pages there may be.
  enum class Pages : uint8_t { none, unused, used };

  explicit BufferRing(const Options& options) noexcept : options_(options) {}
  [[nodiscard]] bool map() noexcept;
  [[nodiscard]] uint8_t* buffer_at(uint16_t index) const noexcept;
  void hand_to_kernel(uint16_t index) noexcept;
  void review() noexcept;

  Options options_;
  io_uring_buf_ring* ring_ = nullptr;
  uint8_t* memory_ = nullptr;
  std::unique_ptr<uint32_t[]> references_;  // Zero: free or published.
  std::unique_ptr<Pages[]> pages_;          // `used` since the last trim.
  std::unique_ptr<uint16_t[]> free_;        // A stack: the last one back is the first to go.
  uint32_t free_count_ = 0;
  uint32_t lent_count_ = 0;
  uint32_t published_count_ = 0;
  uint32_t published_target_ = 0;
  uint32_t published_least_ = 0;  // Since the last review: the fewest that were left to the kernel.
  // Of the buffers that came from the kernel since the last publish.
  uint32_t taken_count_ = 0;
  uint64_t taken_size_ = 0;  // Bytes in them.
  uint32_t calls_to_review_ = review_interval;
  uint16_t tail_ = 0;  // Ours; the kernel's copy follows at publish.
  bool is_short_ = false;
};

}  // namespace helios
