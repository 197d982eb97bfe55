// Reads the fields of one message's body, front to back.
//
// Every read checks what is left and answers false when that does not suffice; nothing is read past
// the end whatever the lengths in the body claim. Texts and bytes are views into the body. Pure;
// any thread.
#pragma once

#include <cstdint>
#include <cstring>
#include <string_view>

#include "helios/base/bytes.h"

namespace helios {

class BodyReader {
 public:
  explicit BodyReader(ByteSpan body) noexcept : left_(body) {}

  [[nodiscard]] bool read_byte(uint8_t& value) noexcept {
    if (left_.empty()) return false;
    value = left_[0];
    left_ = left_.subspan(1);
    return true;
  }

  [[nodiscard]] bool read_int32(uint32_t& value) noexcept {
    if (left_.size() < 4) return false;
    value = load_be32(left_.data());
    left_ = left_.subspan(4);
    return true;
  }

  // A text up to its NUL, which is dropped. False when there is no NUL.
  [[nodiscard]] bool read_text(std::string_view& text) noexcept {
    if (left_.empty()) return false;
    const void* end = std::memchr(left_.data(), 0, left_.size());
    if (end == nullptr) return false;
    const auto size = static_cast<size_t>(static_cast<const uint8_t*>(end) - left_.data());
    text = as_text(left_.first(size));
    left_ = left_.subspan(size + 1);
    return true;
  }

  [[nodiscard]] ByteSpan left() const noexcept { return left_; }
  [[nodiscard]] bool at_end() const noexcept { return left_.empty(); }

 private:
  ByteSpan left_;
};

}  // namespace helios
