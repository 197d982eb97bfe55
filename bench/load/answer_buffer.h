// Where answers are written before they are sent: a fixed buffer of a core, lent to one connection
// at a time, so that all that a connection says in one go leaves in one piece and nothing is
// allocated.
//
// Large pieces pass by it. One core's data. Invariant: what was added goes to the sink in order.
#pragma once

#include <array>
#include <cstring>

#include "helios/base/assert.h"
#include "helios/base/bytes.h"
#include "helios/wire/writer.h"

namespace helios::bench {

class AnswerSink {
 public:
  // Takes the bytes. They are gone when this returns.
  virtual void send(ByteSpan bytes) noexcept = 0;
  // False: so much waits to be sent that no more should be made.
  [[nodiscard]] virtual bool has_room() noexcept = 0;

 protected:
  ~AnswerSink() = default;
};

class AnswerBuffer {
 public:
  // From now on answers go to `sink`. Requires: flushed.
  void begin(AnswerSink& sink) noexcept {
    ASSERT(size_ == 0);
    sink_ = &sink;
  }

  void add(ByteSpan bytes) noexcept {
    if (bytes.size() > bytes_.size() - size_) [[unlikely]]
      return add_large(bytes);
    std::memcpy(bytes_.data() + size_, bytes.data(), bytes.size());
    size_ += bytes.size();
  }

  // For what has no canned form: write messages to it, then call add_written.
  [[nodiscard]] MessageWriter& writer() noexcept { return writer_; }
  void add_written() noexcept {
    add(writer_.bytes());
    writer_.clear();
  }

  void flush() noexcept {
    if (size_ > 0) sink_->send({bytes_.data(), size_});
    size_ = 0;
  }

  [[nodiscard]] bool has_room() const noexcept { return sink_->has_room(); }

  static constexpr size_t capacity = 16 * 1024;

 private:
  void add_large(ByteSpan bytes) noexcept {
    flush();
    sink_->send(bytes);
  }

  std::array<uint8_t, capacity> bytes_;
  size_t size_ = 0;
  AnswerSink* sink_ = nullptr;
  MessageWriter writer_;
};

}  // namespace helios::bench
