// Bytes waiting to be sent on one socket: copied bytes in chunks, and borrowed receive buffers.
//
// Small pieces are copied into chunks of the core's ChunkPool; large ones keep the receive buffer
// they came in and are sent from there. An empty outbox holds no memory. One core's data.
// Invariant: size() is the sum of the pieces; every borrowed buffer is released exactly once, when
// its bytes are consumed or cleared.
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

// Free chunks of one core. Grows by need (a handful of chunks at once); keeps what it has until
// trim(), so that a load that needs many of them again and again does not ask the allocator each
// time. A chunk that only borrows a buffer is a header without bytes.
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
  // Frees chunks that nobody has needed since the last call, but for kept_count of a kind; at most
  // trim_max of them at once. Now and then (Pools does).
  void trim() noexcept;
  [[nodiscard]] size_t lent_count() const noexcept { return lent_count_; }
  [[nodiscard]] size_t free_count() const noexcept { return full_.count + headers_.count; }

  // Receive buffers of a group that all outboxes of this core borrow together (a buffer counts once
  // for each piece). When this would exceed half the group, bytes are copied instead (nobody may
  // pin the ring).
  uint32_t borrowed_count[buffer_group_count] = {0, 0};

  static constexpr size_t kept_count = 256;
  static constexpr size_t trim_max = 1024;

 private:
  struct FreeList {
    Chunk* head = nullptr;
    size_t count = 0;
    size_t count_min = 0;  // Since the last trim.
  };
  [[nodiscard]] Chunk* take_from(FreeList& list, size_t block_size) noexcept;
  void free_one(FreeList& list) noexcept;

  FreeList full_;
  FreeList headers_;
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
  // Adds bytes that lie in a lent receive buffer: copied when small or when too many buffers are
  // borrowed already, borrowed otherwise.
  void append_received(ByteSpan bytes, BufferRef buffer) noexcept;
  // Moves everything from another outbox of the same core to the end of this one, without copying.
  void append_all(Outbox& from) noexcept;
  // Fills `parts` with the first pieces; returns how many.
  [[nodiscard]] size_t gather(std::span<iovec> parts) const noexcept;
  // Drops the first `count` bytes. Requires: count <= size().
  void consume(size_t count) noexcept;
  void clear() noexcept;
  // The first piece as a span (empty when the outbox is), and the lent buffer that it lies in
  // (nullptr when it was copied): for reading a byte queue in place.
  [[nodiscard]] ByteSpan front() const noexcept;
  [[nodiscard]] const BufferRef* front_buffer() const noexcept;
  // Copies what lies in lent buffers and gives them back.
  void copy_borrowed() noexcept;

  // Received pieces smaller than this are copied: a buffer of the ring must not be held for a few
  // bytes.
  static constexpr size_t copied_size_max = 1024;

 private:
  void push(Chunk* chunk) noexcept;
  void drop_head() noexcept;
  // Adds to the last piece what fits there; returns how many bytes that were.
  [[nodiscard]] size_t fill_tail(ByteSpan bytes) noexcept;
  [[nodiscard]] bool extends_tail(ByteSpan bytes, BufferRef buffer) const noexcept;

  ChunkPool& chunks_;
  Io& io_;
  Chunk* head_ = nullptr;
  Chunk* tail_ = nullptr;
  size_t size_ = 0;
};

}  // namespace helios
