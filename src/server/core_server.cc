#include "server/core_server.h"

#include <cinttypes>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"

namespace helios {
namespace {

void log_statistics(void*, const Statistics& statistics) noexcept {
  for (const std::string& line : table_lines(statistics)) LOG(info, "statistics: %s", line.c_str());
  for (const std::string& line : pin_lines(statistics)) LOG(info, "%s", line.c_str());
}

}  // namespace

CoreServer::CoreServer(CoreContext& context, ServerShared& shared, CoreServerOptions options)
    : context_(context),
      shared_(shared),
      options_(std::move(options)),
      net_{context.ring, chunks_, flush_list_},
      keys_(random_),
      pools_(PoolsContext{net_, context.timers, context.clock, context.mailbox, keys_, random_,
                          shared.transfers_count},
             options_.backends_max),
      sessions_(shared.sessions, pools_, net_, options_.sessions_max),
      statistics_(pools_, context.mailbox) {
  sessions_.set_loads(shared_.loads);
}

// Everything is back where it was at the start: the members' destructors assert it for slots,
// chunks and timers.
CoreServer::~CoreServer() {
  log_counters();
  shared_.last_statistics[context_.id] = pools_.statistics();
  ASSERT(context_.ring.lent_count(BufferGroup::client) == 0);
  ASSERT(context_.ring.lent_count(BufferGroup::backend) == 0);
  ASSERT(chunks_.lent_count() == 0);
}

void CoreServer::log_counters() const noexcept {
  const SessionsCounters& clients = sessions_.counters();
  const RingCounters& ring = context_.ring.counters();
  LOG(info,
      "clients: %" PRIu64 " accepted, %" PRIu64 " logged in, %" PRIu64 " refused, %" PRIu64
      " moved to another core",
      clients.accepted, clients.logged_in, clients.refused, clients.moved);
  LOG(info,
      "ring: %" PRIu64 " enters, %" PRIu64 " turns, %" PRIu64 " sleeps, %" PRIu64
      " receives, %" PRIu64 " sends, %" PRIu64 " silent, %" PRIu64 " starved, %" PRIu64
      " restarted, %" PRIu64 " overflows",
      ring.enters, context_.counters.turns, context_.counters.sleeps, ring.receives, ring.sends,
      ring.silent_sends, ring.starved, ring.receives_restarted, ring.cq_overflows);
  const MailboxCounters& mail = context_.mailbox.counters();
  LOG(info,
      "mail: %" PRIu64 " sent, %" PRIu64 " received, %" PRIu64 " wakes, %" PRIu64 " overflowed",
      mail.sent, mail.received, mail.wakes, mail.overflowed);
}

void CoreServer::on_start() noexcept {
  if (context_.id == 0) LOG(info, "%s", context_.ring.describe().c_str());
  for (const ListenSocket& socket : options_.sockets) {
    listeners_.push_back(
        std::make_unique<Listener>(context_.ring, context_.timers, context_.clock, *this));
    listeners_.back()->start(socket.fd, socket.family);
  }
  listening_count_ = listeners_.size();
}

// The kernel's hash spreads few clients unevenly: a new one goes to the core that has fewest.
void CoreServer::on_accepted(Listener&, int fd, int family) noexcept {
  const CoreId to = draining_ ? context_.id : least_loaded();
  shared_.loads[to].fetch_add(1, std::memory_order_relaxed);
  if (to == context_.id) return sessions_.accept(fd, family);
  Message message = make_message(MessageKind::client_socket);
  message.words[0] = static_cast<uint64_t>(fd);
  message.words[1] = static_cast<uint64_t>(family);
  context_.mailbox.send(to, message);
}

CoreId CoreServer::least_loaded() noexcept {
  CoreId best = context_.id;
  uint32_t best_load = shared_.loads[best].load(std::memory_order_relaxed);
  for (CoreId core = 0; core < shared_.loads.size(); ++core) {
    const uint32_t load = shared_.loads[core].load(std::memory_order_relaxed);
    if (load < best_load) {
      best = core;
      best_load = load;
    }
  }
  return best;
}

void CoreServer::on_message(const Message& message) noexcept {
  if (pools_.on_message(message) || sessions_.on_message(message) ||
      statistics_.on_message(message))
    return;
  switch (static_cast<MessageKind>(message.kind)) {
    case MessageKind::client_socket:
      return sessions_.accept(static_cast<int>(message.words[0]),
                              static_cast<int>(message.words[1]));
    case MessageKind::drain:
      return start_drain();
    case MessageKind::stop:
      start_drain();
      sessions_.stop();
      pools_.stop();
      return;
    case MessageKind::settled:
      return;  // The turn that it caused looks again.
    case MessageKind::reload:
      return reload(message);
    case MessageKind::log_statistics:
      return statistics_.collect(&log_statistics, nullptr);
    case MessageKind::none:
    case MessageKind::want:
    case MessageKind::promise:
    case MessageKind::unpromise:
    case MessageKind::permits:
    case MessageKind::use:
    case MessageKind::backend:
    case MessageKind::limit_freed:
    case MessageKind::place:
    case MessageKind::welcome:
    case MessageKind::make_room:
    case MessageKind::node_failed:
    case MessageKind::node_returned:
    case MessageKind::statistics_wanted:
    case MessageKind::statistics:
    case MessageKind::cancel:
    case MessageKind::cancel_done:
    case MessageKind::session:
      UNREACHABLE("message that nobody took");
  }
}

[[gnu::hot]] bool CoreServer::on_turn_end(Nanoseconds now) noexcept {
  if (keys_.has_work()) keys_.run();
  sessions_.on_turn_end();
  pools_.on_turn_end(now);
  flush_streams(net_);
  return keys_.has_work() || pools_.has_work() || sessions_.has_work() || !flush_list_.empty();
}

void CoreServer::reload(const Message& message) noexcept {
  const std::unique_ptr<ConfigNews> news(reinterpret_cast<ConfigNews*>(message.words[0]));
  ASSERT(!draining_);  // Both come from the main thread, and this one is waited for.
  sessions_.reload(*news->directory);
  directory_ = std::move(news->directory);
  news->cores_left->fetch_sub(1);
  news->cores_left->notify_all();
}

void CoreServer::start_drain() noexcept {
  if (std::exchange(draining_, true)) return;
  for (auto& listener : listeners_) listener->stop();
  sessions_.start_drain();
  pools_.start_drain();
}

bool CoreServer::has_nothing_left() const noexcept {
  return draining_ && listening_count_ == 0 && sessions_.is_empty() && pools_.is_empty() &&
         !keys_.has_work();
}

// The process ends when no core has anything left and no backend is on its way between two.
[[gnu::hot]] bool CoreServer::is_finished() noexcept {
  if (!has_nothing_left()) return false;
  const CoreId cores = context_.mailbox.cores_count();
  if (!std::exchange(settled_, true) && shared_.settled_count.fetch_add(1) + 1 == cores)
    tell_all(MessageKind::settled);
  return shared_.settled_count.load() == cores && shared_.transfers_count.load() == 0 &&
         !context_.mailbox.has_unsent();
}

void CoreServer::tell_all(MessageKind kind) noexcept {
  context_.mailbox.send_to_others(make_message(kind));
}

}  // namespace helios
