#include "helios/net/outbox.h"

#include <algorithm>

#include "helios/base/assert.h"

namespace helios {

namespace {

size_t index_of(BufferGroup group) noexcept {
  return static_cast<size_t>(group);
}

}  // namespace

[[gnu::hot]] void Outbox::append(ByteSpan bytes) noexcept {
  size_ += bytes.size();
  bytes = bytes.subspan(fill_tail(bytes));
  while (!bytes.empty()) {
    push(chunks_.take());
    bytes = bytes.subspan(fill_tail(bytes));
  }
}

[[gnu::hot]] void Outbox::append_received(ByteSpan bytes, BufferRef buffer) noexcept {
  if (bytes.empty()) return;
  if (extends_tail(bytes, buffer)) {
    tail_->size += static_cast<uint32_t>(bytes.size());
    size_ += bytes.size();
    return;
  }
  if (bytes.size() < copied_size_max) return append(bytes);
  uint32_t& borrowed = chunks_.borrowed_count[index_of(buffer.group)];
  const bool pins_too_much = (borrowed + 1) * 2 > io_.buffers_count(buffer.group);
  if (pins_too_much) return append(bytes);

  io_.keep_buffer(buffer);
  ++borrowed;
  Chunk* chunk = chunks_.take_borrower();
  chunk->buffer = buffer;
  chunk->begin = bytes.data();
  chunk->size = static_cast<uint32_t>(bytes.size());
  push(chunk);
  size_ += bytes.size();
}

void Outbox::append_all(Outbox& from) noexcept {
  ASSERT(&from != this);
  ASSERT(&from.chunks_ == &chunks_);
  if (from.head_ == nullptr) return;
  if (head_ == nullptr) {
    head_ = from.head_;
  } else {
    tail_->next = from.head_;
  }
  tail_ = from.tail_;
  size_ += from.size_;
  from.head_ = from.tail_ = nullptr;
  from.size_ = 0;
}

size_t Outbox::gather(std::span<iovec> parts) const noexcept {
  size_t count = 0;
  for (const Chunk* chunk = head_; chunk != nullptr && count < parts.size(); chunk = chunk->next) {
    parts[count].iov_base = const_cast<uint8_t*>(chunk->begin);
    parts[count].iov_len = chunk->size;
    ++count;
  }
  return count;
}

void Outbox::consume(size_t count) noexcept {
  ASSERT(count <= size_);
  size_ -= count;
  while (count > 0) {
    size_t taken = std::min<size_t>(count, head_->size);
    head_->begin += taken;
    head_->size -= static_cast<uint32_t>(taken);
    count -= taken;
    if (head_->size == 0) drop_head();
  }
}

void Outbox::clear() noexcept {
  while (head_ != nullptr) drop_head();
  size_ = 0;
}

ByteSpan Outbox::front() const noexcept {
  if (head_ == nullptr) return {};
  return {head_->begin, head_->size};
}

const BufferRef* Outbox::front_buffer() const noexcept {
  return head_ != nullptr && head_->borrowed ? &head_->buffer : nullptr;
}

void Outbox::copy_borrowed() noexcept {
  bool has_borrowed = false;
  for (const Chunk* chunk = head_; chunk != nullptr; chunk = chunk->next)
    has_borrowed = has_borrowed || chunk->borrowed;
  if (!has_borrowed) return;
  Outbox copy(chunks_, io_);
  for (; head_ != nullptr; drop_head()) copy.append(front());
  size_ = 0;
  append_all(copy);
}

void Outbox::push(Chunk* chunk) noexcept {
  if (head_ == nullptr) {
    head_ = chunk;
  } else {
    tail_->next = chunk;
  }
  tail_ = chunk;
}

[[gnu::hot]] void Outbox::drop_head() noexcept {
  Chunk* chunk = head_;
  head_ = chunk->next;
  if (head_ == nullptr) tail_ = nullptr;
  if (chunk->borrowed) {
    uint32_t& borrowed = chunks_.borrowed_count[index_of(chunk->buffer.group)];
    ASSERT(borrowed > 0);
    --borrowed;
    io_.release_buffer(chunk->buffer);
  }
  chunks_.give_back(chunk);
}

// Note: the last piece may be in the kernel's hands. Bytes behind those that were offered are ours.
size_t Outbox::fill_tail(ByteSpan bytes) noexcept {
  if (tail_ == nullptr || tail_->borrowed || bytes.empty()) return 0;
  size_t used = static_cast<size_t>(tail_->begin - tail_->bytes()) + tail_->size;
  size_t count = std::min(bytes.size(), chunk_capacity - used);
  std::memcpy(tail_->bytes() + used, bytes.data(), count);
  tail_->size += static_cast<uint32_t>(count);
  return count;
}

// Messages are often forwarded one by one from the same buffer: one piece holds them all.
bool Outbox::extends_tail(ByteSpan bytes, BufferRef buffer) const noexcept {
  return tail_ != nullptr && tail_->borrowed && tail_->buffer.index == buffer.index &&
         tail_->buffer.group == buffer.group && tail_->begin + tail_->size == bytes.data();
}

}  // namespace helios
