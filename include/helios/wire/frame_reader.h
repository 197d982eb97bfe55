// Where messages begin and end: the only place that looks at a message's length.
//
// FrameReader walks a stream of tagged messages without copying or keeping it. It can stop after
// any byte, even inside the five bytes of a header, and go on with the next buffer: all that it
// holds between two calls is the incomplete header and the number of body bytes that are still to
// come.
//
//   while (!input.empty()) {
//     if (reader.body_left() == 0 && reader.read_header(input) != FrameStatus::message) break;
//     forward(reader.take_body(input));
//   }
//
// MessageAssembler collects whole messages up to a bound, for logins.
//
// Both belong to the session or backend whose stream they read; used by its core only. No errors
// but `malformed`, after which the stream cannot be read on. Source: PostgreSQL manual, "Messaging
// Overview".
#pragma once

#include <algorithm>
#include <cstdint>
#include <cstring>
#include <vector>

#include "helios/base/assert.h"
#include "helios/base/bytes.h"

namespace helios {

enum class FrameStatus : uint8_t {
  need_more,  // The input is used up; call again with more.
  message,    // One is there.
  malformed,  // A length that cannot be, or above the limit. The stream is lost.
};

struct FrameHeader {
  uint8_t tag = 0;
  uint32_t body_size = 0;  // Without the four bytes of the length.
};

inline constexpr uint32_t frame_header_size = 5;
// The length field ends here. What a server sends may have as much.
inline constexpr uint32_t frame_body_size_limit = 0x7fffffff - 4;
// What a server takes from a client ends here (PQ_LARGE_MESSAGE_LIMIT of PostgreSQL 14 and later).
// There is room for another statement's name beyond.
inline constexpr uint32_t client_body_size_max = 0x3ffffffe - 4;

class FrameReader {
 public:
  // Reads towards the next header from the front of `input` and drops what it took from it.
  // need_more: input is used up and fewer than five header bytes are held. message: header() is
  // complete and body_left() is its body's size. malformed: length below 4 or body above the limit;
  // only reset() may follow. Requires: body_left() == 0.
  [[nodiscard]] FrameStatus read_header(ByteSpan& input) noexcept {
    DEBUG_ASSERT(body_left_ == 0);
    if (held_ == frame_header_size) held_ = 0;  // The previous message's header.
    if (held_ == 0 && input.size() >= frame_header_size) [[likely]] {
      const uint8_t* const header = input.data();
      std::memcpy(raw_, header, frame_header_size);
      input = input.subspan(frame_header_size);
      // Not from raw_: a load that takes from two stores has to wait for both.
      return finish_header(header[0], load_be32(header + 1));
    }
    return continue_header(input);
  }

  // The header read last. Requires: read_header() has answered `message`.
  [[nodiscard]] const FrameHeader& header() const noexcept { return header_; }

  // The five bytes of header() as they came. Valid until the next read_header().
  [[nodiscard]] ByteSpan raw_header() const noexcept { return {raw_, frame_header_size}; }

  // Bytes of the current body that have not been taken.
  [[nodiscard]] uint32_t body_left() const noexcept { return body_left_; }

  // Takes up to body_left() bytes from the front of `input` and returns them; empty when there are
  // none.
  [[nodiscard]] ByteSpan take_body(ByteSpan& input) noexcept {
    const auto size = std::min<size_t>(input.size(), body_left_);
    const ByteSpan taken = input.first(size);
    input = input.subspan(size);
    body_left_ -= static_cast<uint32_t>(size);
    return taken;
  }

  // Drops whole messages with the tag of header() from the front of `input`, as if each had been
  // read and taken: rows come in thousands, and one look at each is enough. header() stays that of
  // the first. Stops at another tag, an incomplete message or a bad length. Requires: read_header()
  // has answered `message`, body_left() == 0.
  void skip_alike(ByteSpan& input) noexcept {
    DEBUG_ASSERT(held_ == frame_header_size);
    DEBUG_ASSERT(body_left_ == 0);
    const uint8_t* next = input.data();
    size_t left = input.size();
    while (left >= frame_header_size && next[0] == header_.tag) {
      const uint32_t length = load_be32(next + 1);
      // A length below 4 wraps to a number above every limit.
      if (length - 4 > body_size_max_ || length >= left) break;
      next += length + 1;
      left -= length + 1;
    }
    input = {next, left};
  }

  // Between two messages: no byte of a header held and no body left.
  [[nodiscard]] bool at_boundary() const noexcept {
    return body_left_ == 0 && held_header_size() == 0;
  }

  // Bytes of an incomplete header that are held, 0 to 4.
  [[nodiscard]] uint32_t held_header_size() const noexcept {
    return held_ == frame_header_size ? 0 : held_;
  }

  // Forgets everything but the limit.
  void reset() noexcept {
    held_ = 0;
    body_left_ = 0;
    header_ = {};
  }

  // Bodies above `size` are malformed. Applies to the headers read from now on.
  void set_body_size_max(uint32_t size) noexcept {
    body_size_max_ = std::min(size, frame_body_size_limit);
  }

 private:
  FrameStatus continue_header(ByteSpan& input) noexcept {
    const auto size = std::min<size_t>(input.size(), frame_header_size - held_);
    if (size > 0) std::memcpy(raw_ + held_, input.data(), size);
    input = input.subspan(size);
    held_ = static_cast<uint8_t>(held_ + size);
    if (held_ < frame_header_size) return FrameStatus::need_more;
    return finish_header(raw_[0], load_be32(raw_ + 1));
  }

  FrameStatus finish_header(uint8_t tag, uint32_t length) noexcept {
    held_ = frame_header_size;
    header_ = {tag, 0};
    // A length below 4 wraps to a number above every limit.
    if (length - 4 > body_size_max_) [[unlikely]]
      return FrameStatus::malformed;
    header_.body_size = length - 4;
    body_left_ = header_.body_size;
    return FrameStatus::message;
  }

  FrameHeader header_;
  uint32_t body_left_ = 0;
  uint32_t body_size_max_ = frame_body_size_limit;
  uint8_t held_ = 0;  // 5: header_ is complete.
  uint8_t raw_[frame_header_size] = {};
};

// Whole messages of at most `body_size_max` bytes. A message that lies in one input is not copied;
// memory is held only while one is incomplete.
class MessageAssembler {
 public:
  explicit MessageAssembler(uint32_t body_size_max) noexcept;

  // Takes bytes from the front of `input` up to the end of the next message and drops them from it.
  // message: tag() and body() are valid until the next feed(), or until the input's memory goes.
  // malformed: bad length or a body above the bound; stays malformed.
  // Note: allocates as bytes come, never by a length that a peer only claims.
  [[nodiscard]] FrameStatus feed(ByteSpan& input);

  // Requires: feed() has just answered `message`.
  [[nodiscard]] uint8_t tag() const noexcept { return reader_.header().tag; }
  [[nodiscard]] ByteSpan body() const noexcept { return body_; }

  // No byte of an incomplete message is held.
  [[nodiscard]] bool at_boundary() const noexcept { return !in_message_ && reader_.at_boundary(); }

 private:
  FrameReader reader_;
  ByteSpan body_;
  std::vector<uint8_t> held_;
  bool in_message_ = false;
  bool is_malformed_ = false;
};

}  // namespace helios
