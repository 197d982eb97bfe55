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
#include "helios/net/chunk_pool.h"
#include "helios/runtime/io.h"

namespace helios {

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
  // Calls visit(ByteSpan) for each piece, in order, until it answers false.
  template <typename Visit>
  void walk(Visit visit) const noexcept {
    for (const Chunk* chunk = head_; chunk != nullptr; chunk = chunk->next)
      if (!visit(ByteSpan(chunk->begin, chunk->size))) return;
  }
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
