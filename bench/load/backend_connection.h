// One client of the canned server: a stream, the conversation on it, and what happens between them
// in time.
//
// Made by its BackendCore in a slab, destroyed when the stream has closed. What arrives while a
// statement is not answered yet is kept; when much is kept, the receive is paused. With a piece
// size, answers wait here and leave piece by piece, the next when the last has gone.
// Its core's thread only.
#pragma once

#include <cstdint>
#include <vector>

#include "helios/net/outbox.h"
#include "helios/net/stream.h"
#include "helios/runtime/timer_wheel.h"
#include "load/answer_buffer.h"
#include "load/conversation.h"

namespace helios::bench {

class BackendConnection;

// What a connection has of its core.
class ConnectionHost {
 public:
  // The connection is closed; the host destroys it.
  virtual void on_connection_closed(BackendConnection& connection) noexcept = 0;
  virtual void on_cancel_request(const CancelTarget& target) noexcept = 0;

 protected:
  ~ConnectionHost() = default;
};

struct ConnectionContext {
  NetContext& net;
  TimerWheel& timers;
  Clock& clock;
  ConversationContext& conversations;
  uint32_t piece_size;  // 0: answers are sent whole.
};

class BackendConnection final : public StreamOwner, public AnswerSink {
 public:
  BackendConnection(const ConnectionContext& context, ConnectionHost& host) noexcept;

  // Takes over a client's descriptor. `pid` and `key` are what it may cancel its queries with.
  // Requires: once, first.
  void open(int fd, int family, uint32_t pid, const BackendKey& key) noexcept {
    conversation_.set_identity(pid, key);
    stream_.open(fd, family);
  }
  // Cancels the running statement if the request is meant for this connection.
  void cancel(const CancelTarget& target) noexcept;
  void terminate() noexcept { stream_.terminate(); }

  // Of AnswerSink.
  void send(ByteSpan bytes) noexcept override;
  [[nodiscard]] bool has_room() noexcept override {
    return stream_.unsent_size() + pieces_.size() <= Stream::high_mark;
  }

 private:
  void on_connected(Stream&) noexcept override {}
  void on_received(Stream&, ByteSpan bytes, BufferRef) noexcept override;
  void on_drained(Stream&) noexcept override;
  void on_ended(Stream&, StreamEnd end, int error) noexcept override;
  void on_closed(Stream&) noexcept override;
  void on_detachable(Stream&) noexcept override {}
  static void on_time(void* self) noexcept;

  void feed(ByteSpan& input) noexcept;
  void go_on() noexcept;
  void settle() noexcept;
  void finish() noexcept;
  void keep(ByteSpan bytes) noexcept;
  void send_piece() noexcept;

  const ConnectionContext& context_;
  ConnectionHost& host_;
  Stream stream_;
  Conversation conversation_;
  Timer timer_;
  Outbox pieces_;
  std::vector<uint8_t> kept_;  // Received, not yet read.
  bool is_finishing_ = false;

  static constexpr size_t kept_size_max = 64 * 1024;
};

}  // namespace helios::bench
