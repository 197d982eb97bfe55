// Pieces of memory for bytes that wait: in outboxes, and in what clients sent ahead.
//
// Full chunks are pages of regions that the pool maps. Free ones are used again last in, first out;
// what has not been needed for a while is cold: its page goes back to the kernel, and only its
// address is kept. So ten thousand clients that waited at once leave nothing behind, whatever the
// allocator does. One core's data.
// Invariant: a chunk is lent, free (warm), or cold.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "helios/runtime/io.h"

namespace helios {

constexpr size_t chunk_size = 4096;

// A piece of an outbox or byte queue. The header and the bytes share one block of `chunk_size`.
struct Chunk {
  Chunk* next = nullptr;
  const uint8_t* begin =
      nullptr;        // First byte not yet consumed: in bytes(), or in a borrowed buffer.
  uint32_t size = 0;  // Bytes not yet consumed.
  bool borrowed = false;
  BufferRef buffer;  // When borrowed.

  // When not: chunk_capacity bytes behind this header.
  [[nodiscard]] uint8_t* bytes() noexcept { return reinterpret_cast<uint8_t*>(this + 1); }
};
constexpr size_t chunk_capacity = chunk_size - sizeof(Chunk);

// The chunks of one core. Grows by need (a region at once); keeps what it has until trim(), so that
// a load that needs many of them again and again does not ask the kernel each time. A chunk that
// only borrows a buffer is a header without bytes, from the allocator.
class ChunkPool {
 public:
  ChunkPool() noexcept;
  ~ChunkPool();  // Requires: every chunk is back.
  ChunkPool(const ChunkPool&) = delete;
  ChunkPool& operator=(const ChunkPool&) = delete;

  // An empty chunk with chunk_capacity bytes, or a header for a borrowed buffer.
  [[nodiscard]] Chunk* take() noexcept;
  [[nodiscard]] Chunk* take_borrower() noexcept;
  void give_back(Chunk* chunk) noexcept;
  // Gives up chunks that nobody has needed since the last call, but for kept_count of a kind; at
  // most trim_max of them at once. Now and then (Pools does).
  void trim() noexcept;
  [[nodiscard]] size_t lent_count() const noexcept { return lent_count_; }
  [[nodiscard]] size_t free_count() const noexcept { return warm_.count + headers_.count; }
  [[nodiscard]] size_t cold_count() const noexcept { return cold_.size(); }

  // Receive buffers of a group that all outboxes of this core borrow together (a buffer counts once
  // for each piece). When this would exceed half the group, bytes are copied instead (nobody may
  // pin the ring).
  uint32_t borrowed_count[buffer_group_count] = {0, 0};

  static constexpr size_t kept_count = 64;
  static constexpr size_t trim_max = 8192;
  static constexpr size_t region_chunks = 64;

 private:
  struct FreeList {
    Chunk* head = nullptr;
    size_t count = 0;
    size_t count_min = 0;  // Since the last trim.
  };
  void grow() noexcept;
  [[nodiscard]] Chunk* warm_up() noexcept;
  [[nodiscard]] static Chunk* make_header() noexcept;
  [[nodiscard]] static size_t unneeded_of(const FreeList& list) noexcept;
  void cool_down(size_t count) noexcept;
  [[nodiscard]] static Chunk* pop(FreeList& list) noexcept;
  static void push(FreeList& list, Chunk* chunk) noexcept;

  FreeList warm_;
  FreeList headers_;
  std::vector<uint8_t*> cold_;     // The next to be used is last. Has room for all chunks.
  std::vector<uint8_t*> regions_;  // Of region_chunks chunks each.
  size_t lent_count_ = 0;
};

}  // namespace helios
