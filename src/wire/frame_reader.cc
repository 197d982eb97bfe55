#include "helios/wire/frame_reader.h"

namespace helios {

MessageAssembler::MessageAssembler(uint32_t body_size_max) noexcept {
  reader_.set_body_size_max(body_size_max);
}

FrameStatus MessageAssembler::feed(ByteSpan& input) {
  body_ = {};
  if (is_malformed_) return FrameStatus::malformed;
  if (!in_message_) {
    std::vector<uint8_t>().swap(held_);  // The previous message's body.
    const FrameStatus status = reader_.read_header(input);
    is_malformed_ = status == FrameStatus::malformed;
    if (status != FrameStatus::message) return status;
    if (input.size() >= reader_.body_left()) {
      body_ = reader_.take_body(input);
      return FrameStatus::message;
    }
    in_message_ = true;
  }
  const ByteSpan part = reader_.take_body(input);
  held_.insert(held_.end(), part.begin(), part.end());
  if (reader_.body_left() > 0) return FrameStatus::need_more;
  in_message_ = false;
  body_ = held_;
  return FrameStatus::message;
}

}  // namespace helios
