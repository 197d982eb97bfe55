#include "load/backend_connection.h"

#include <algorithm>

#include "helios/base/assert.h"

namespace helios::bench {

BackendConnection::BackendConnection(const ConnectionContext& context,
                                     ConnectionHost& host) noexcept
    : context_(context),
      host_(host),
      stream_(context.net, *this, BufferGroup::client),
      conversation_(context.conversations),
      timer_(on_time, this),
      pieces_(context.net.chunks, context.net.io) {}

// ---------------------------------------------------------------- receive

void BackendConnection::on_received(Stream&, ByteSpan bytes, BufferRef) noexcept {
  if (is_finishing_) return;
  if (kept_.empty()) feed(bytes);
  if (!bytes.empty()) keep(bytes);
}

// Lets the conversation take what it takes now.
void BackendConnection::feed(ByteSpan& input) noexcept {
  context_.conversations.buffer.begin(*this);
  conversation_.feed(input);
  settle();
}

void BackendConnection::keep(ByteSpan bytes) noexcept {
  if (is_finishing_) return;
  kept_.insert(kept_.end(), bytes.begin(), bytes.end());
  stream_.want_drained(true);
  if (kept_.size() > kept_size_max && !stream_.is_receive_paused()) stream_.pause_receive();
}

// Goes on where the conversation stopped, if what it waited for is there.
void BackendConnection::go_on() noexcept {
  if (is_finishing_ || !has_room()) return;
  if (conversation_.state() == Conversation::State::streaming) {
    context_.conversations.buffer.begin(*this);
    conversation_.on_room();
    settle();
  }
  if (kept_.empty() || !conversation_.takes_input()) return;
  ByteSpan input = kept_;
  feed(input);
  kept_.erase(kept_.begin(), kept_.end() - static_cast<ptrdiff_t>(input.size()));
  if (kept_.size() <= kept_size_max && stream_.is_receive_paused()) stream_.resume_receive();
}

// What was said leaves; what comes next is arranged.
void BackendConnection::settle() noexcept {
  context_.conversations.buffer.flush();
  const bool has_more =
      !pieces_.empty() || !kept_.empty() || conversation_.state() == Conversation::State::streaming;
  stream_.want_drained(has_more);
  if (conversation_.state() == Conversation::State::ended) return finish();
  if (conversation_.state() != Conversation::State::waiting || timer_.is_scheduled()) return;
  context_.timers.schedule(timer_, context_.clock.now() + conversation_.pause());
}

void BackendConnection::on_time(void* self) noexcept {
  auto& connection = *static_cast<BackendConnection*>(self);
  connection.context_.conversations.buffer.begin(connection);
  connection.conversation_.on_time();
  connection.settle();
  connection.go_on();
}

void BackendConnection::cancel(const CancelTarget& target) noexcept {
  if (is_finishing_ || !conversation_.is_target(target)) return;
  context_.timers.cancel(timer_);
  context_.conversations.buffer.begin(*this);
  conversation_.cancel();
  settle();
  go_on();
}

// ---------------------------------------------------------------- send

void BackendConnection::send(ByteSpan bytes) noexcept {
  if (context_.piece_size == 0) return stream_.send(bytes);
  pieces_.append(bytes);
  if (stream_.unsent_size() == 0) send_piece();
}

void BackendConnection::send_piece() noexcept {
  size_t left = context_.piece_size;
  while (left > 0 && !pieces_.empty()) {
    ByteSpan part = pieces_.front();
    part = part.first(std::min(part.size(), left));
    stream_.send(part);
    left -= part.size();
    pieces_.consume(part.size());
  }
}

void BackendConnection::on_drained(Stream&) noexcept {
  if (!pieces_.empty() && stream_.unsent_size() == 0) send_piece();
  if (!is_finishing_) return go_on();
  if (pieces_.empty()) finish();
}

// ---------------------------------------------------------------- the end

void BackendConnection::finish() noexcept {
  if (!is_finishing_ && conversation_.cancel_target().has_value())
    host_.on_cancel_request(*conversation_.cancel_target());
  is_finishing_ = true;
  context_.timers.cancel(timer_);
  kept_.clear();
  if (pieces_.empty()) stream_.terminate_after_flush();
}

void BackendConnection::on_ended(Stream&, StreamEnd end, int) noexcept {
  // A client that only closed its writing side still gets what was answered.
  if (end == StreamEnd::peer_closed) return finish();
  pieces_.clear();
  is_finishing_ = true;
  stream_.terminate();
}

void BackendConnection::on_closed(Stream&) noexcept {
  context_.timers.cancel(timer_);
  host_.on_connection_closed(*this);
}

}  // namespace helios::bench
