// A pool of objects with stable addresses, indices and generations.
//
// Memory is reserved once for `capacity` objects and touched only when a slot is first used, so an
// unused slab costs address space and nothing else. The slot freed last is used first. One core's
// data. Invariant: a slot's generation changes each time it is freed, so an (index, generation)
// pair never names two objects.
#pragma once

#include <sys/mman.h>

#include <cstdint>
#include <new>
#include <utility>

#include "helios/base/assert.h"

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
  explicit Slab(uint32_t capacity) noexcept : capacity_(capacity) {
    ASSERT(capacity > 0);
    ASSERT(capacity < (1U << 24));
    void* memory = mmap(nullptr, sizeof(Slot) * capacity, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    ASSERT(memory != MAP_FAILED);
    slots_ = static_cast<Slot*>(memory);
  }
  Slab(const Slab&) = delete;
  Slab& operator=(const Slab&) = delete;
  ~Slab() {
    ASSERT(used_count_ == 0);
    munmap(slots_, sizeof(Slot) * capacity_);
  }

  [[nodiscard]] uint32_t capacity() const noexcept { return capacity_; }
  [[nodiscard]] uint32_t used_count() const noexcept { return used_count_; }
  [[nodiscard]] bool full() const noexcept { return used_count_ == capacity_; }

  // Makes an object in a free slot; nullptr when all are in use.
  template <typename... Arguments>
  [[nodiscard]] T* make(Arguments&&... arguments) noexcept {
    if (full()) return nullptr;
    Slot* slot;
    if (free_head_ != 0) {
      slot = &slots_[free_head_ - 1];
      free_head_ = slot->next_free;
    } else {
      slot = &slots_[touched_count_++];
    }
    slot->next_free = in_use;
    ++used_count_;
    return new (static_cast<void*>(slot->bytes)) T(std::forward<Arguments>(arguments)...);
  }

  // Destroys an object of this slab. Requires: it was made here and not freed since.
  void free(T* object) noexcept {
    Slot& slot = slot_of(object);
    ASSERT(slot.next_free == in_use);
    object->~T();
    ++slot.generation;
    slot.next_free = free_head_;
    free_head_ = static_cast<uint32_t>(&slot - slots_) + 1;
    --used_count_;
  }

  [[nodiscard]] SlabId id_of(const T* object) const noexcept {
    const Slot& slot = const_cast<Slab*>(this)->slot_of(const_cast<T*>(object));
    return {static_cast<uint32_t>(&slot - slots_), slot.generation};
  }

  // The object with this id; nullptr when it is gone.
  [[nodiscard]] T* find(SlabId id) noexcept {
    if (id.index >= touched_count_) return nullptr;
    Slot& slot = slots_[id.index];
    if (slot.next_free != in_use || slot.generation != id.generation) return nullptr;
    return object_in(slot);
  }

  // The object in this slot whatever its generation; nullptr when the slot is free.
  [[nodiscard]] T* at(uint32_t index) noexcept {
    if (index >= touched_count_ || slots_[index].next_free != in_use) return nullptr;
    return object_in(slots_[index]);
  }

  // Calls `visit(T&)` for each object, in slot order. The visitor may free the object that it is
  // given.
  template <typename Visit>
  void for_each(Visit visit) noexcept {
    for (uint32_t i = 0; i < touched_count_; ++i)
      if (slots_[i].next_free == in_use) visit(*object_in(slots_[i]));
  }

 private:
  static constexpr uint32_t in_use = UINT32_MAX;
  struct Slot {
    alignas(T) unsigned char bytes[sizeof(T)];
    uint32_t generation;
    uint32_t next_free;  // Index + 1 of the next free slot, 0 at the end, `in_use` when not free.
  };

  static T* object_in(Slot& slot) noexcept {
    return std::launder(reinterpret_cast<T*>(slot.bytes));
  }
  Slot& slot_of(T* object) noexcept {
    Slot* slot = reinterpret_cast<Slot*>(object);  // `bytes` is the first member.
    ASSERT(slot >= slots_);
    ASSERT(slot < slots_ + touched_count_);
    return *slot;
  }

  Slot* slots_ = nullptr;
  uint32_t capacity_;
  uint32_t touched_count_ = 0;
  uint32_t used_count_ = 0;
  uint32_t free_head_ = 0;
};

}  // namespace helios
