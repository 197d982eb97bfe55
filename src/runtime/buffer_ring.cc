#include "helios/runtime/buffer_ring.h"

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <new>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/pages.h"
#include "helios/runtime/features.h"
#include "helios/runtime/uring_abi.h"

namespace helios {
namespace {

constexpr uint32_t count_max = 32'768;  // The kernel's limit.

// Anonymous memory, which the kernel fills page by page as it is used; nullptr when there is none.
void* map_memory(size_t size) noexcept {
  void* memory = mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  return memory == MAP_FAILED ? nullptr : memory;
}

}  // namespace

Result<std::unique_ptr<BufferRing>> BufferRing::create(io_uring& ring, const Options& options) {
  ASSERT(std::has_single_bit(options.count));
  ASSERT(options.count <= count_max);
  ASSERT(options.buffer_size > 0);
  std::unique_ptr<BufferRing> buffers(new BufferRing(options));
  if (!buffers->map()) return Error{explain_refusal("mmap of receive buffers", ENOMEM)};

  io_uring_buf_reg registration{};
  registration.ring_addr = reinterpret_cast<uint64_t>(buffers->ring_);
  registration.ring_entries = options.count;
  registration.bgid = options.group_id;
  const int res = io_uring_register_buf_ring(&ring, &registration, 0);
  if (res < 0) return Error{explain_refusal("io_uring_register(PBUF_RING)", -res)};

  // The first one on top.
  for (uint32_t i = options.count; i > 0; --i)
    buffers->free_[buffers->free_count_++] = static_cast<uint16_t>(i - 1);
  buffers->published_target_ = buffers->published_min();
  buffers->publish();
  return buffers;
}

BufferRing::~BufferRing() {
  if (ring_ != nullptr) munmap(ring_, sizeof(io_uring_buf) * options_.count);
  if (memory_ != nullptr) munmap(memory_, size_t{options_.buffer_size} * options_.count);
}

[[gnu::hot]] ByteSpan BufferRing::lend(uint16_t index, uint32_t size) noexcept {
  ASSERT(index < options_.count);
  ASSERT(size <= options_.buffer_size);
  ASSERT(references_[index] == 0);
  ASSERT(published_count_ > 0);
  references_[index] = 1;
  pages_[index] = Pages::used;
  --published_count_;
  ++lent_count_;
  ++taken_count_;
  taken_size_ += size;
  published_least_ = std::min(published_least_, published_count_);
  return {buffer_at(index), size};
}

void BufferRing::keep(uint16_t index) noexcept {
  ASSERT(index < options_.count);
  ASSERT(references_[index] > 0);
  ++references_[index];
}

[[gnu::hot]] void BufferRing::release(uint16_t index) noexcept {
  ASSERT(index < options_.count);
  ASSERT(references_[index] > 0);
  if (--references_[index] > 0) return;
  ASSERT(lent_count_ > 0);
  --lent_count_;
  free_[free_count_++] = index;
}

// Large messages of a few sockets may as well come in several turns. But many sockets should not
// wait because of them.
void BufferRing::on_starved(size_t starved_count) noexcept {
  const bool is_well_filled = taken_size_ * 2 > uint64_t{taken_count_} * options_.buffer_size;
  if (!is_well_filled || starved_count > published_target_) is_short_ = true;
}

[[gnu::hot]] void BufferRing::publish() noexcept {
  taken_count_ = 0;
  taken_size_ = 0;
  if (is_short_ || --calls_to_review_ == 0) review();
  if (published_count_ >= published_target_ || free_count_ == 0) return;
  while (published_count_ < published_target_ && free_count_ > 0)
    hand_to_kernel(free_[--free_count_]);
  __atomic_store_n(&ring_->tail, tail_, __ATOMIC_RELEASE);
  ASSERT(lent_count_ + free_count_ + published_count_ == options_.count);
}

// When more than three quarters were left at every moment, half are enough. What the kernel has
// already goes on being used; fewer come after it.
void BufferRing::review() noexcept {
  if (std::exchange(is_short_, false)) {
    published_target_ = std::min(published_target_ * 2, options_.count);
  } else if (published_least_ > published_target_ / 4 * 3) {
    published_target_ = std::max(published_target_ / 2, published_min());
  }
  calls_to_review_ = review_interval;
  published_least_ = published_target_;
}

void BufferRing::trim() noexcept {
  if (options_.buffer_size % page_size != 0) return;
  for (uint32_t i = 0; i < free_count_; ++i) {
    Pages& pages = pages_[free_[i]];
    if (pages == Pages::unused) release_pages(buffer_at(free_[i]), options_.buffer_size);
    pages = pages == Pages::used ? Pages::unused : Pages::none;
  }
}

bool BufferRing::map() noexcept {
  ring_ = static_cast<io_uring_buf_ring*>(map_memory(sizeof(io_uring_buf) * options_.count));
  memory_ = static_cast<uint8_t*>(map_memory(size_t{options_.buffer_size} * options_.count));
  references_.reset(new (std::nothrow) uint32_t[options_.count]());
  pages_.reset(new (std::nothrow) Pages[options_.count]());
  free_.reset(new (std::nothrow) uint16_t[options_.count]);
  return ring_ != nullptr && memory_ != nullptr && references_ != nullptr && pages_ != nullptr &&
         free_ != nullptr;
}

uint8_t* BufferRing::buffer_at(uint16_t index) const noexcept {
  return memory_ + size_t{options_.buffer_size} * index;
}

void BufferRing::hand_to_kernel(uint16_t index) noexcept {
  // Field by field: the ring's tail lives in the last two bytes of the first entry.
  io_uring_buf& entry = ring_->bufs[tail_ & (options_.count - 1)];
  entry.addr = reinterpret_cast<uint64_t>(buffer_at(index));
  entry.len = options_.buffer_size;
  entry.bid = index;
  ++tail_;
  ++published_count_;
}

}  // namespace helios
