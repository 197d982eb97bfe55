#include "helios/runtime/buffer_ring.h"

#include <sys/mman.h>

#include <bit>
#include <new>

#include "helios/base/assert.h"
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

  for (uint32_t i = 0; i < options.count; ++i) buffers->give_back(static_cast<uint16_t>(i));
  buffers->publish();
  return buffers;
}

BufferRing::~BufferRing() {
  if (ring_ != nullptr) munmap(ring_, sizeof(io_uring_buf) * options_.count);
  if (memory_ != nullptr) munmap(memory_, size_t{options_.buffer_size} * options_.count);
}

ByteSpan BufferRing::lend(uint16_t index, uint32_t size) noexcept {
  ASSERT(index < options_.count);
  ASSERT(size <= options_.buffer_size);
  ASSERT(references_[index] == 0);
  ASSERT(available_count_ > 0);
  references_[index] = 1;
  --available_count_;
  ++lent_count_;
  return {buffer_at(index), size};
}

void BufferRing::keep(uint16_t index) noexcept {
  ASSERT(index < options_.count);
  ASSERT(references_[index] > 0);
  ++references_[index];
}

void BufferRing::release(uint16_t index) noexcept {
  ASSERT(index < options_.count);
  ASSERT(references_[index] > 0);
  if (--references_[index] > 0) return;
  ASSERT(lent_count_ > 0);
  --lent_count_;
  give_back(index);
}

void BufferRing::publish() noexcept {
  if (tail_ == published_tail_) return;
  published_tail_ = tail_;
  __atomic_store_n(&ring_->tail, tail_, __ATOMIC_RELEASE);
}

bool BufferRing::map() noexcept {
  ring_ = static_cast<io_uring_buf_ring*>(map_memory(sizeof(io_uring_buf) * options_.count));
  memory_ = static_cast<uint8_t*>(map_memory(size_t{options_.buffer_size} * options_.count));
  references_.reset(new (std::nothrow) uint32_t[options_.count]());
  return ring_ != nullptr && memory_ != nullptr && references_ != nullptr;
}

uint8_t* BufferRing::buffer_at(uint16_t index) const noexcept {
  return memory_ + size_t{options_.buffer_size} * index;
}

void BufferRing::give_back(uint16_t index) noexcept {
  // Field by field: the ring's tail lives in the last two bytes of the first entry.
  io_uring_buf& entry = ring_->bufs[tail_ & (options_.count - 1)];
  entry.addr = reinterpret_cast<uint64_t>(buffer_at(index));
  entry.len = options_.buffer_size;
  entry.bid = index;
  ++tail_;
  ++available_count_;
  ASSERT(lent_count_ + available_count_ <= options_.count);
}

}  // namespace helios
