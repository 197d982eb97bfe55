#include "load/backend.h"

#include <sched.h>
#include <sys/resource.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <memory>
#include <utility>

#include "helios/net/descriptor_limit.h"
#include "helios/net/listen_sockets.h"
#include "helios/runtime/mailbox.h"
#include "helios/runtime/ring_waker.h"
#include "helios/runtime/signals.h"
#include "load/backend_core.h"

namespace helios::bench {
namespace {

// A predecessor that was killed may hold its sockets for so long.
constexpr Nanoseconds listen_patience = seconds(2);

constexpr uint32_t default_clients_max = 20'000;

// Raises the limit of descriptors to what the clients need. How many clients there may be, or why
// that is not possible.
Result<uint32_t> find_clients_max(const BackendOptions& options) {
  const uint64_t beside = spare_connections + 64 + uint64_t{16} * options.cores;
  const uint32_t wanted =
      options.connections_max > 0 ? options.connections_max : default_clients_max;
  if (raise_descriptor_limit(wanted + beside).ok()) return wanted;
  rlimit limit{};
  getrlimit(RLIMIT_NOFILE, &limit);
  if (options.connections_max == 0 && limit.rlim_cur > beside)
    return static_cast<uint32_t>(limit.rlim_cur - beside);
  return Error{std::to_string(wanted) + " connections need " + std::to_string(wanted + beside) +
               " open descriptors, the limit is " + std::to_string(limit.rlim_cur) +
               ": raise it (ulimit -Hn) or allow fewer connections (--connections)"};
}

RingOptions ring_options(uint32_t clients_max) {
  RingOptions ring;
  ring.targets_max = clients_max + spare_connections + 64;  // Listeners too.
  // Nothing is received from servers.
  ring.backend_buffers = {16, 4096};
  return ring;
}

// SCHED_BATCH for this thread and those that it makes from now on.
Result<bool> set_batch_policy() {
  const sched_param parameters{};
  if (sched_setscheduler(0, SCHED_BATCH, &parameters) == 0) return true;
  return Error{std::string("the scheduling policy SCHED_BATCH was refused: ") + strerror(errno)};
}

// "unix:DIR:PORT" for the socket file DIR/.s.PGSQL.PORT.
std::string client_address(const SocketAddress& address) {
  std::string text = address.text();
  constexpr std::string_view file_name = "/.s.PGSQL.";
  const size_t at = text.rfind(file_name);
  if (address.family() == AF_UNIX && at != std::string::npos)
    text.replace(at, file_name.size(), ":");
  return text;
}

std::vector<std::string> client_addresses(const ListenSockets& sockets) {
  std::vector<std::string> texts;
  for (const SocketAddress& address : sockets.addresses()) texts.push_back(client_address(address));
  return texts;
}

void send_stop(Mailbox& mailbox) {
  Message message;
  message.kind = static_cast<uint16_t>(BackendMessage::stop);
  for (CoreId core = 0; core < mailbox.cores_count(); ++core) mailbox.send(core, message);
  mailbox.flush();
}

// Clients that were on their way to a core that has ended.
class DeadLetters final : public MessageHandler {
 public:
  void on_message(const Message& message) noexcept override {
    if (message.kind == static_cast<uint16_t>(BackendMessage::client_socket))
      ::close(static_cast<int>(message.words[0]));
  }
};

// The process's cores and what they share, for as long as they run.
class Backend {
 public:
  Backend(const BackendOptions& options, uint32_t clients_max, ListenSockets& sockets)
      : options_(options),
        sockets_(sockets),
        cores_count_(static_cast<CoreId>(options.cores)),
        shared_(options.rows, options.row_size, cores_count_),
        mailboxes_(cores_count_),
        wakes_(cores_count_),
        waker_(wakes_),
        mailbox_(mailboxes_, mailboxes_.main_id(), waker_) {
    shared_.delay = options.delay;
    shared_.piece_size = options.piece_size;
    shared_.clients_max = clients_max;
  }

  Result<bool> start() {
    if (!wakes_.ok())
      return Error{"cannot create an eventfd: too many open files; raise the limit (ulimit -n)"};
    for (CoreId id = 0; id < cores_count_; ++id) {
      Result<bool> started = start_core(id);
      if (!started.ok()) return started;
    }
    return true;
  }

  BackendTotals stop() {
    send_stop(mailbox_);
    for (const auto& core : cores_) core->join();
    DeadLetters dead_letters;
    for (CoreId id = 0; id < cores_count_; ++id) {
      Mailbox rest(mailboxes_, id, waker_);
      while (rest.drain(dead_letters) > 0) {
      }
    }
    return {shared_.connections_total.load(), shared_.queries_total.load()};
  }

 private:
  Result<bool> start_core(CoreId id) {
    CoreOptions core_options;
    core_options.id = id;
    if (!options_.cpus.empty()) core_options.cpu = options_.cpus[id % options_.cpus.size()];
    core_options.ring = ring_options(shared_.clients_max);
    auto core =
        Core::start(core_options, {mailboxes_, wakes_},
                    [this, id](CoreContext& context) -> Result<std::unique_ptr<CoreApplication>> {
                      return std::unique_ptr<CoreApplication>(
                          new BackendCore(context, shared_, sockets_.take(id)));
                    });
    if (!core.ok()) return Error{core.error()};
    cores_.push_back(std::move(core).value());
    return true;
  }

  const BackendOptions& options_;
  ListenSockets& sockets_;
  const CoreId cores_count_;
  BackendShared shared_;
  MailboxSystem mailboxes_;
  WakeTable wakes_;
  EventWaker waker_;
  Mailbox mailbox_;
  std::vector<std::unique_ptr<Core>> cores_;
};

void wait_for_stop() {
  while (!is_stop(*wait_for_signal(never))) {
  }
}

}  // namespace

Result<bool> run_backend(const BackendOptions& options) {
  block_signals();
  const Result<uint32_t> clients_max = find_clients_max(options);
  if (!clients_max.ok()) return Error{clients_max.error()};
  if (options.batch_policy)
    if (auto set = set_batch_policy(); !set.ok()) return set;
  auto addresses = parse_listen_addresses(options.listen);
  if (!addresses.ok()) return Error{addresses.error()};
  auto sockets =
      ListenSockets::listen(addresses.value(), static_cast<int>(options.cores), listen_patience);
  if (!sockets.ok()) return Error{sockets.error()};

  Backend backend(options, clients_max.value(), sockets.value());
  Result<bool> started = backend.start();
  if (started.ok()) {
    if (options.on_ready != nullptr)
      options.on_ready(client_addresses(sockets.value()), options.on_ready_context);
    wait_for_stop();
  }
  const BackendTotals totals = backend.stop();
  if (options.totals != nullptr) *options.totals = totals;
  return started;
}

}  // namespace helios::bench
