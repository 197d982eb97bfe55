// Bytes waiting to be sent on one socket: copied bytes in chunks, and borrowed receive buffers.
//
// Small pieces are copied into chunks of the core's ChunkPool; large ones keep the receive buffer they came in and are
// sent from there. An empty outbox holds no memory. One core's data.
// Invariant: size() is the sum of the pieces; every borrowed buffer is released exactly once, when its bytes are consumed or cleared.
#pragma once

#include <sys/uio.h>

#include <cstdint>
#include <span>

#include "helios/base/bytes.h"
#include "helios/runtime/io.h"

namespace helios {

constexpr size_t chunk_size = 4096;

// A piece of an outbox or byte queue. The header and the bytes share one block of `chunk_size`.
struct Chunk {
  Chunk* next;
  const uint8_t* begin;  // First byte not yet consumed: in `bytes`, or in a borrowed buffer.
  uint32_t size;         // Bytes not yet consumed.
  bool borrowed;
  BufferRef buffer;      // When borrowed.
  uint8_t bytes[];       // When not: chunk_capacity bytes.
};
constexpr size_t chunk_capacity = chunk_size - sizeof(Chunk);

// Free chunks of one core. Grows by need (a handful of chunks at once); keeps what it has up to a bound.
class ChunkPool {
 public:
  ChunkPool() noexcept;
  ~ChunkPool();  // Requires: every chunk is back.
  [[nodiscard]] Chunk* take() noexcept;
  void give_back(Chunk* chunk) noexcept;
  [[nodiscard]] size_t lent_count() const noexcept { return lent_count_; }

  // Receive buffers of a group that all outboxes of this core borrow together.
  // When this exceeds half the group, bytes are copied instead (DESIGN: nobody may pin the ring).
  uint32_t borrowed_count[buffer_group_count] = {0, 0};

 private:
  Chunk* free_ = nullptr;
  size_t free_count_ = 0;
  size_t lent_count_ = 0;
};

class Outbox {
 public:
  Outbox(ChunkPool& chunks, Io& io) noexcept : chunks_(chunks), io_(io) {}
  Outbox(const Outbox&) = delete;
  Outbox& operator=(const Outbox&) = delete;
  ~Outbox() { clear(); }

  [[nodiscard]] size_t size() const noexcept { return size_; }
  [[nodiscard]] bool empty() const noexcept { return size_ == 0; }

  // Adds a copy of the bytes.
  void append(ByteSpan bytes) noexcept;
  // Adds bytes that lie in a lent receive buffer: copied when small or when too many buffers are borrowed already, borrowed otherwise.
  void append_received(ByteSpan bytes, BufferRef buffer) noexcept;
  // Fills `parts` with the first pieces; returns how many.
  [[nodiscard]] size_t gather(std::span<iovec> parts) const noexcept;
  // Drops the first `count` bytes. Requires: count <= size().
  void consume(size_t count) noexcept;
  void clear() noexcept;
  // The first piece as a span (empty when the outbox is): for reading a byte queue in place.
  [[nodiscard]] ByteSpan front() const noexcept;

 private:
  ChunkPool& chunks_;
  Io& io_;
  Chunk* head_ = nullptr;
  Chunk* tail_ = nullptr;
  size_t size_ = 0;
};

}  // namespace helios
