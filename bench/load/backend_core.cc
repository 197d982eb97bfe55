#include "load/backend_core.h"

#include <cstring>
#include <utility>

#include "helios/base/assert.h"
#include "helios/wire/crypto.h"

namespace helios::bench {

BackendCore::BackendCore(CoreContext& context, BackendShared& shared,
                         std::vector<ListenSocket> sockets)
    : context_(context),
      shared_(shared),
      sockets_(std::move(sockets)),
      net_{context.ring, chunks_, flush_list_},
      buffer_(std::make_unique<AnswerBuffer>()),
      conversations_{shared.answers, *buffer_, shared.delay, shared.clients_count,
                     shared.clients_max},
      connections_context_{net_, context.timers, context.clock, conversations_, shared.piece_size},
      connections_(shared.clients_max + spare_connections) {}

BackendCore::~BackendCore() {
  shared_.queries_total.fetch_add(conversations_.queries_count, std::memory_order_relaxed);
}

void BackendCore::on_start() noexcept {
  for (const ListenSocket& socket : sockets_) {
    listeners_.push_back(
        std::make_unique<Listener>(context_.ring, context_.timers, context_.clock, *this));
    listeners_.back()->start(socket.fd, socket.family);
  }
  listening_count_ = listeners_.size();
}

bool BackendCore::on_turn_end(Nanoseconds) noexcept {
  flush_streams(net_);
  return !flush_list_.empty();
}

bool BackendCore::is_finished() noexcept {
  return is_stopping_ && listening_count_ == 0 && connections_.used_count() == 0;
}

// ---------------------------------------------------------------- clients

void BackendCore::on_accepted(Listener&, int fd, int family) noexcept {
  if (is_stopping_) return context_.ring.close_fd(fd);
  const CoreId to = least_loaded();
  shared_.loads[to].fetch_add(1, std::memory_order_relaxed);
  if (to == context_.id) return take_client(fd, family);
  Message message;
  message.kind = static_cast<uint16_t>(BackendMessage::client_socket);
  message.words[0] = static_cast<uint64_t>(fd);
  message.words[1] = static_cast<uint64_t>(family);
  context_.mailbox.send(to, message);
}

CoreId BackendCore::least_loaded() const noexcept {
  CoreId best = context_.id;
  uint32_t best_load = shared_.loads[best].load(std::memory_order_relaxed);
  for (CoreId core = 0; core < shared_.loads.size(); ++core) {
    const uint32_t load = shared_.loads[core].load(std::memory_order_relaxed);
    if (load >= best_load) continue;
    best = core;
    best_load = load;
  }
  return best;
}

void BackendCore::take_client(int fd, int family) noexcept {
  if (is_stopping_ || connections_.full()) {
    shared_.loads[context_.id].fetch_sub(1, std::memory_order_relaxed);
    return context_.ring.close_fd(fd);
  }
  shared_.connections_total.fetch_add(1, std::memory_order_relaxed);
  BackendConnection* connection = connections_.make(connections_context_, *this);
  BackendKey key;
  random_bytes(key);
  const uint32_t cores_count = context_.mailbox.cores_count();
  const uint32_t pid = 1 + context_.id + connections_.id_of(connection).index * cores_count;
  connection->open(fd, family, pid, key);
}

void BackendCore::on_stopped(Listener&) noexcept {
  ASSERT(listening_count_ > 0);
  --listening_count_;
}

void BackendCore::on_connection_closed(BackendConnection& connection) noexcept {
  connections_.free(&connection);
  shared_.loads[context_.id].fetch_sub(1, std::memory_order_relaxed);
}

// ---------------------------------------------------------------- cancel requests

// Who sent it is told nothing, whether or not somebody was found.
void BackendCore::on_cancel_request(const CancelTarget& target) noexcept {
  if (target.pid == 0) return;
  const auto core = static_cast<CoreId>((target.pid - 1) % context_.mailbox.cores_count());
  if (core == context_.id) return cancel_here(target);
  Message message;
  message.kind = static_cast<uint16_t>(BackendMessage::cancel);
  message.count = target.key_size;
  message.words[0] = target.pid;
  static_assert(sizeof(message.words) >= sizeof(uint64_t) + backend_key_size);
  std::memcpy(&message.words[1], target.key.data(), backend_key_size);
  context_.mailbox.send(core, message);
}

void BackendCore::cancel_here(const CancelTarget& target) noexcept {
  BackendConnection* found = connections_.at((target.pid - 1) / context_.mailbox.cores_count());
  if (found != nullptr) found->cancel(target);
}

// ---------------------------------------------------------------- messages

void BackendCore::on_message(const Message& message) noexcept {
  switch (static_cast<BackendMessage>(message.kind)) {
    case BackendMessage::client_socket:
      return take_client(static_cast<int>(message.words[0]), static_cast<int>(message.words[1]));
    case BackendMessage::cancel: {
      CancelTarget target;
      target.pid = static_cast<uint32_t>(message.words[0]);
      target.key_size = message.count;
      std::memcpy(target.key.data(), &message.words[1], backend_key_size);
      return cancel_here(target);
    }
    case BackendMessage::stop:
      return stop();
  }
  UNREACHABLE("a message that nobody sends");
}

void BackendCore::stop() noexcept {
  if (std::exchange(is_stopping_, true)) return;
  for (auto& listener : listeners_) listener->stop();
  connections_.for_each([](BackendConnection& connection) { connection.terminate(); });
}

}  // namespace helios::bench
