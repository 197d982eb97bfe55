// A pool of objects with stable addresses, indices and generations.
//
// Memory is reserved once for `capacity` objects and touched only when a slot is first used, so an
// unused slab costs address space and nothing else. It is divided into blocks of some pages. The
// first block with room gives the next slot (within it the one freed last), so that objects stay
// close together, and a block that has become empty gives its pages back to the kernel; one empty
// block is kept, so that a slab that breathes does not ask the kernel each time. One core's data.
// Invariant: a slot's generation changes each time it is freed, also when its page was given back
// meanwhile, so an (index, generation) pair never names two objects.
#pragma once

#include <sys/mman.h>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/pages.h"

namespace helios {

// Names one object of a slab for as long as it lives.
struct SlabId {
  uint32_t index = UINT32_MAX;
  uint32_t generation = 0;
  friend bool operator==(const SlabId&, const SlabId&) = default;
};

template <typename T>
class Slab {
 public:
  // Requires: 0 < capacity < 2^24 (an index must fit an op ticket).
  explicit Slab(uint32_t capacity) noexcept
      : capacity_(capacity),
        blocks_count_((capacity + block_slots - 1) / block_slots),
        blocks_(new Block[blocks_count_]()),
        roomy_(new uint64_t[(blocks_count_ + 63) / 64]()) {
    ASSERT(capacity > 0);
    ASSERT(capacity < (1U << 24));
    void* memory = mmap(nullptr, block_size * blocks_count_, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(memory != MAP_FAILED);
    memory_ = static_cast<unsigned char*>(memory);
    for (uint32_t i = 0; i < blocks_count_; ++i) set_roomy(i, true);
  }
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab() {
    ASSERT(used_count_ == 0);
    munmap(memory_, block_size * blocks_count_);
  }

  [[nodiscard]] uint32_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] uint32_t used_count() const noexcept { return used_count_; }
  [[nodiscard]] bool full() const noexcept { return used_count_ == capacity_; }

  // Makes an object in a free slot; nullptr when all are in use.
  template <typename... Arguments>
  [[nodiscard]] T* make(Arguments&&... arguments) noexcept {
    if (full()) return nullptr;
    const uint32_t number = first_roomy();
    Block& block = blocks_[number];
    if (number == spare_) spare_ = none;
    Slot* slot;
    if (block.free_head != 0) {
      slot = &slot_at(number, block.free_head - 1);
      block.free_head = slot->next_free;
    } else {
      slot = &slot_at(number, block.touched_count++);
      slot->generation = block.generation_floor;
    }
    slot->next_free = in_use;
    ++block.used_count;
    ++used_count_;
    if (block.used_count == slots_of(number)) set_roomy(number, false);
    return new (static_cast<void*>(slot->bytes)) T(std::forward<Arguments>(arguments)...);
  }

  // Destroys an object of this slab. Requires: it was made here and not freed since.
  void free(T* object) noexcept {
    const Place place = place_of(object);
    Slot& slot = slot_at(place.block, place.slot);
    Block& block = blocks_[place.block];
    ASSERT(slot.next_free == in_use);
    object->~T();
    ++slot.generation;
    slot.next_free = block.free_head;
    block.free_head = place.slot + 1;
    --block.used_count;
    --used_count_;
    set_roomy(place.block, true);
    if (block.used_count == 0) on_block_empty(place.block);
  }

  [[nodiscard]] SlabId id_of(const T* object) const noexcept {
    const Place place = place_of(object);
    return {place.block * block_slots + place.slot, slot_at(place.block, place.slot).generation};
  }

  // The object with this id; nullptr when it is gone.
  [[nodiscard]] T* find(SlabId id) noexcept {
    Slot* slot = used_slot(id.index);
    return slot == nullptr || slot->generation != id.generation ? nullptr : object_in(*slot);
  }

  // The object in this slot whatever its generation; nullptr when the slot is free.
  [[nodiscard]] T* at(uint32_t index) noexcept {
    Slot* slot = used_slot(index);
    return slot == nullptr ? nullptr : object_in(*slot);
  }

  // Calls `visit(T&)` for each object, in slot order. The visitor may free the object that it is
  // given.
  template <typename Visit>
  void for_each(Visit visit) noexcept {
    for (uint32_t number = 0; number < blocks_count_; ++number)
      for (uint32_t i = 0; i < blocks_[number].touched_count; ++i)
        if (Slot& slot = slot_at(number, i); slot.next_free == in_use) visit(*object_in(slot));
  }

 private:
  static constexpr uint32_t in_use = UINT32_MAX;
  static constexpr uint32_t none = UINT32_MAX;
  struct Slot {
    alignas(T) unsigned char bytes[sizeof(T)];
    uint32_t generation;
    uint32_t next_free;  // In its block: slot + 1; 0 at the end; `in_use` when not free.
  };
  // Whole pages, with room for at least 8 KiB of slots; a power of two of them.
  static constexpr uint32_t block_slots =
      static_cast<uint32_t>(std::bit_ceil((2 * page_size + sizeof(Slot) - 1) / sizeof(Slot)));
  static constexpr size_t block_size =
      (block_slots * sizeof(Slot) + page_size - 1) / page_size * page_size;
  struct Block {
    uint32_t used_count;
    uint32_t touched_count;     // Slots from here on were never used since the pages came.
    uint32_t free_head;         // Slot + 1 of the slot freed last, 0 when there is none.
    uint32_t generation_floor;  // Of untouched slots: above all that were here before.
  };
  struct Place {
    uint32_t block;
    uint32_t slot;
  };

  static T* object_in(Slot& slot) noexcept {
    return std::launder(reinterpret_cast<T*>(slot.bytes));
  }
  [[nodiscard]] Slot& slot_at(uint32_t block, uint32_t slot) const noexcept {
    return *reinterpret_cast<Slot*>(memory_ + block * block_size + slot * sizeof(Slot));
  }
  [[nodiscard]] Place place_of(const T* object) const noexcept {
    // `bytes` is the first member.
    const auto offset =
        static_cast<size_t>(reinterpret_cast<const unsigned char*>(object) - memory_);
    ASSERT(offset < block_size * blocks_count_);
    const Place place{static_cast<uint32_t>(offset / block_size),
                      static_cast<uint32_t>(offset % block_size / sizeof(Slot))};
    ASSERT(place.slot < blocks_[place.block].touched_count);
    return place;
  }
  [[nodiscard]] Slot* used_slot(uint32_t index) noexcept {
    if (index >= capacity_) return nullptr;
    const uint32_t number = index / block_slots;
    if (index % block_slots >= blocks_[number].touched_count) return nullptr;
    Slot& slot = slot_at(number, index % block_slots);
    return slot.next_free == in_use ? &slot : nullptr;
  }
  // The last block may be cut short by the capacity.
  [[nodiscard]] uint32_t slots_of(uint32_t block) const noexcept {
    return std::min(block_slots, capacity_ - block * block_slots);
  }

  void set_roomy(uint32_t block, bool roomy) noexcept {
    const uint64_t bit = uint64_t{1} << (block % 64);
    roomy_[block / 64] = roomy ? roomy_[block / 64] | bit : roomy_[block / 64] & ~bit;
  }
  // Requires: not full.
  [[nodiscard]] uint32_t first_roomy() const noexcept {
    uint32_t word = 0;
    while (roomy_[word] == 0) ++word;
    return word * 64 + static_cast<uint32_t>(std::countr_zero(roomy_[word]));
  }

  void on_block_empty(uint32_t block) noexcept {
    if (spare_ != none) give_back(std::max(spare_, block));
    spare_ = std::min(spare_, block);
  }
  void give_back(uint32_t number) noexcept {
    Block& block = blocks_[number];
    for (uint32_t i = 0; i < block.touched_count; ++i)
      block.generation_floor = std::max(block.generation_floor, slot_at(number, i).generation + 1);
    block.touched_count = 0;
    block.free_head = 0;
    release_pages(memory_ + number * block_size, block_size);
  }

  uint32_t capacity_;
  uint32_t blocks_count_;
  uint32_t used_count_ = 0;
  uint32_t spare_ = none;  // An empty block that has kept its pages.
  unsigned char* memory_ = nullptr;
  std::unique_ptr<Block[]> blocks_;
  std::unique_ptr<uint64_t[]> roomy_;  // A bit for each block: has a free slot.
};

}  // namespace helios
