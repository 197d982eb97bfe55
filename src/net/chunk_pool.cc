#include "helios/net/chunk_pool.h"

#include <sys/mman.h>

#include <algorithm>
#include <cstdlib>
#include <functional>
#include <new>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/pages.h"

#if defined(__SANITIZE_ADDRESS__)
#define HELIOS_POISON 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define HELIOS_POISON 1
#endif
#endif
#ifdef HELIOS_POISON
#include <sanitizer/asan_interface.h>
#endif

namespace helios {
namespace {

constexpr size_t region_size = ChunkPool::region_chunks * chunk_size;

// A free chunk's bytes must not be touched: the address sanitizer tells who does.
void set_poisoned([[maybe_unused]] const void* memory, [[maybe_unused]] size_t size,
                  [[maybe_unused]] bool poisoned) noexcept {
#ifdef HELIOS_POISON
  if (poisoned) {
    __asan_poison_memory_region(memory, size);
  } else {
    __asan_unpoison_memory_region(memory, size);
  }
#endif
}

// Gives back each run of neighbours at once. They are sorted, the highest first.
void release_runs(const uint8_t* const* begin, const uint8_t* const* end) noexcept {
  while (begin != end) {
    const uint8_t* const top = *begin;
    const uint8_t* lowest = top;
    while (++begin != end && *begin + chunk_size == lowest) lowest = *begin;
    release_pages(const_cast<uint8_t*>(lowest), static_cast<size_t>(top - lowest) + chunk_size);
  }
}

}  // namespace

ChunkPool::ChunkPool() noexcept = default;

ChunkPool::~ChunkPool() {
  ASSERT(lent_count_ == 0);
  while (headers_.count > 0) std::free(pop(headers_));
  for (uint8_t* region : regions_) {
    set_poisoned(region, region_size, false);
    munmap(region, region_size);
  }
}

Chunk* ChunkPool::pop(FreeList& list) noexcept {
  Chunk* chunk = list.head;
  list.head = chunk->next;
  --list.count;
  list.count_min = std::min(list.count_min, list.count);
  chunk->next = nullptr;
  return chunk;
}

void ChunkPool::push(FreeList& list, Chunk* chunk) noexcept {
  chunk->next = list.head;
  list.head = chunk;
  ++list.count;
}

size_t ChunkPool::unneeded_of(const FreeList& list) noexcept {
  const size_t above_kept = list.count - std::min(list.count, kept_count);
  return std::min({list.count_min, above_kept, trim_max});
}

void ChunkPool::trim() noexcept {
  cool_down(unneeded_of(warm_));
  for (size_t i = unneeded_of(headers_); i > 0; --i) std::free(pop(headers_));
  for (FreeList* list : {&warm_, &headers_}) list->count_min = list->count;
}

void ChunkPool::cool_down(size_t count) noexcept {
  const size_t cold_before = cold_.size();
  for (size_t i = 0; i < count; ++i) {
    Chunk* chunk = pop(warm_);
    set_poisoned(chunk, chunk_size, true);
    cold_.push_back(reinterpret_cast<uint8_t*>(chunk));
  }
  const auto begin = cold_.begin() + static_cast<ptrdiff_t>(cold_before);
  std::sort(begin, cold_.end(), std::greater<>());
  release_runs(cold_.data() + cold_before, cold_.data() + cold_.size());
}

void ChunkPool::grow() noexcept {
  void* memory =
      mmap(nullptr, region_size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  ASSERT(memory != MAP_FAILED);  // Out of memory.
  auto* region = static_cast<uint8_t*>(memory);
  regions_.push_back(region);
  cold_.reserve(regions_.capacity() * region_chunks);
  for (size_t i = region_chunks; i > 0; --i) cold_.push_back(region + (i - 1) * chunk_size);
  set_poisoned(region, region_size, true);
}

Chunk* ChunkPool::warm_up() noexcept {
  if (cold_.empty()) grow();
  uint8_t* memory = cold_.back();
  cold_.pop_back();
  set_poisoned(memory, chunk_size, false);
  return new (memory) Chunk;
}

Chunk* ChunkPool::make_header() noexcept {
  void* memory = std::malloc(sizeof(Chunk));
  ASSERT(memory != nullptr);  // Out of memory.
  return new (memory) Chunk;
}

Chunk* ChunkPool::take() noexcept {
  Chunk* chunk = warm_.head != nullptr ? pop(warm_) : warm_up();
  set_poisoned(chunk->bytes(), chunk_capacity, false);
  ++lent_count_;
  chunk->size = 0;
  chunk->borrowed = false;
  chunk->begin = chunk->bytes();
  return chunk;
}

Chunk* ChunkPool::take_borrower() noexcept {
  Chunk* chunk = headers_.head != nullptr ? pop(headers_) : make_header();
  ++lent_count_;
  chunk->size = 0;
  chunk->borrowed = true;
  return chunk;
}

void ChunkPool::give_back(Chunk* chunk) noexcept {
  ASSERT(lent_count_ > 0);
  --lent_count_;
  if (chunk->borrowed) return push(headers_, chunk);
  set_poisoned(chunk->bytes(), chunk_capacity, true);
  push(warm_, chunk);
}

}  // namespace helios
