// A client on the other side of one conversation: bytes in, messages out, without a socket.
#pragma once

#include <doctest/doctest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "helios/wire/error_response.h"
#include "helios/wire/frame_reader.h"
#include "helios/wire/message.h"
#include "helios/wire/writer.h"
#include "load/conversation.h"

namespace helios::bench::test {

struct TestMessage {
  uint8_t tag = 0;
  std::string body;
};

struct TestOptions {
  uint32_t rows = 0;
  uint32_t row_size = 0;
  Nanoseconds delay = 0;
  uint32_t clients_max = 10;
  bool logs_in = false;
};

class ConversationBench final : public AnswerSink {
 public:
  explicit ConversationBench(const TestOptions& options = {})
      : answers_(options.rows, options.row_size),
        buffer_(std::make_unique<AnswerBuffer>()),
        context_{answers_, *buffer_, options.delay, clients_count, options.clients_max},
        conversation(std::make_unique<Conversation>(context_)) {
    conversation->set_identity(77, key);
    if (options.logs_in) log_in_quietly();
  }

  void send(ByteSpan bytes) noexcept override {
    ++sends_count;
    written_.insert(written_.end(), bytes.begin(), bytes.end());
  }
  bool has_room() noexcept override { return written_.size() < room; }

  // What the conversation did not take is returned.
  std::string write(std::string_view bytes) {
    ByteSpan input = as_bytes(bytes);
    buffer_->begin(*this);
    conversation->feed(input);
    buffer_->flush();
    return std::string(as_text(input));
  }
  std::string write(const MessageWriter& writer) { return write(as_text(writer.bytes())); }
  void on_time() {
    buffer_->begin(*this);
    conversation->on_time();
    buffer_->flush();
  }
  void on_room() {
    buffer_->begin(*this);
    conversation->on_room();
    buffer_->flush();
  }
  void cancel() {
    buffer_->begin(*this);
    conversation->cancel();
    buffer_->flush();
  }

  void log_in(uint16_t minor = 0, std::vector<TextPair> more = {}) {
    more.emplace_back("user", "me");
    MessageWriter writer;
    write_startup(writer, protocol_version(3, minor), more);
    CHECK(write(writer).empty());
  }
  void log_in_quietly() {
    log_in();
    (void)take();
  }
  std::string query(std::string_view text) {
    MessageWriter writer;
    write_query(writer, text);
    return write(writer);
  }

  // All messages since the last call.
  std::vector<TestMessage> take() {
    std::vector<TestMessage> found;
    const std::vector<uint8_t> written = std::exchange(written_, {});
    sends_count = 0;
    ByteSpan left = written;
    MessageAssembler messages(1U << 20U);
    while (messages.feed(left) == FrameStatus::message)
      found.push_back({messages.tag(), std::string(as_text(messages.body()))});
    CHECK(messages.at_boundary());
    return found;
  }
  std::string take_bytes() {
    const std::vector<uint8_t> written = std::exchange(written_, {});
    return std::string(as_text(written));
  }
  // Their tags; behind an error its SQLSTATE, behind a completion its text, behind a row its last
  // value, behind a ReadyForQuery its status.
  std::string take_story() {
    std::string story;
    for (const TestMessage& message : take()) {
      if (!story.empty()) story += ' ';
      story += static_cast<char>(message.tag);
      const ByteSpan body = as_bytes(message.body);
      if (message.tag == 'E') story += ":" + std::string(read_error(body).sqlstate);
      if (message.tag == 'C') story += ":" + message.body.substr(0, message.body.size() - 1);
      if (message.tag == 'D') story += ":" + last_value(message.body);
      if (message.tag == 'Z') story += ":" + message.body;
    }
    return story;
  }
  std::string story_of(std::string_view text) {
    CHECK(query(text).empty());
    return take_story();
  }

  static std::string last_value(const std::string& row) {
    ByteSpan left = as_bytes(row).subspan(2);
    std::string value;
    while (!left.empty()) {
      const uint32_t size = load_be32(left.data());
      left = left.subspan(4);
      value = size == UINT32_MAX ? "null" : std::string(as_text(left.first(size)));
      if (size != UINT32_MAX) left = left.subspan(size);
    }
    return value;
  }

  static constexpr BackendKey key{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16};
  std::atomic<uint32_t> clients_count{0};
  size_t room = ~size_t{0};  // Bytes that may wait until they are taken.
  int sends_count = 0;

 private:
  const CannedAnswers answers_;
  std::unique_ptr<AnswerBuffer> buffer_;
  ConversationContext context_;
  std::vector<uint8_t> written_;

 public:
  std::unique_ptr<Conversation> conversation;
};

}  // namespace helios::bench::test
