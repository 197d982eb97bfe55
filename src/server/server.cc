#include "server/server.h"

#include <unistd.h>

#include <algorithm>
#include <memory>
#include <utility>

#include "helios/base/assert.h"
#include "helios/base/log.h"
#include "helios/net/descriptor_limit.h"
#include "helios/net/listen_sockets.h"
#include "helios/runtime/cpu_set.h"
#include "helios/runtime/mailbox.h"
#include "helios/runtime/ring_waker.h"
#include "helios/runtime/signals.h"
#include "helios/wire/crypto.h"
#include "server/config_directory.h"
#include "server/core_server.h"
#include "server/reload.h"

namespace helios {
namespace {

// Server connections of one core at the most; the limits of the configuration are below.
constexpr uint32_t backends_max = 16'384;
// Of nodes without a limit of their own, for the number of descriptors.
constexpr uint32_t node_connections_guess = 500;
// A predecessor that was killed may hold its sockets for so long.
constexpr Nanoseconds listen_patience = seconds(2);
constexpr Nanoseconds signal_poll_interval = milliseconds(50);

// Connections of one core: its clients, those that are still logging in or will be told that there
// is no room, and cancel requests.
uint32_t sessions_max(const Config& config) {
  return config.proxy.max_clients + config.proxy.max_clients / 4 + 128;
}

uint64_t descriptors_needed(const Config& config, size_t cores) {
  uint64_t needed = sessions_max(config) + 64 + 16 * cores;
  for (const NodeConfig& node : config.nodes)
    needed += node.max_connections > 0 ? node.max_connections : node_connections_guess;
  return needed;
}

// What the cores did not read before they ended holds references and descriptors.
class DeadLetters final : public MessageHandler {
 public:
  void on_message(const Message& message) noexcept override {
    switch (static_cast<MessageKind>(message.kind)) {
      case MessageKind::want:
      case MessageKind::promise:
      case MessageKind::unpromise:
      case MessageKind::permits:
      case MessageKind::use:
        (void)PoolSpecRef::take_word(message.words[0]);
        return;
      case MessageKind::cancel:
        delete reinterpret_cast<CancelJob*>(message.words[0]);
        return;
      case MessageKind::welcome:
        delete reinterpret_cast<WelcomeNews*>(message.words[0]);
        return;
      case MessageKind::reload:
        delete reinterpret_cast<ConfigNews*>(message.words[0]);
        return;
      case MessageKind::client_socket:
        ::close(static_cast<int>(message.words[0]));
        return;
      case MessageKind::statistics:
        delete reinterpret_cast<Statistics*>(message.words[1]);
        return;
      case MessageKind::backend:
        UNREACHABLE("a backend was left behind");
      case MessageKind::session:
        UNREACHABLE("a session was left behind");
      case MessageKind::none:
      case MessageKind::limit_freed:
      case MessageKind::place:
      case MessageKind::make_room:
      case MessageKind::node_failed:
      case MessageKind::node_returned:
      case MessageKind::statistics_wanted:
      case MessageKind::cancel_done:
      case MessageKind::drain:
      case MessageKind::stop:
      case MessageKind::settled:
      case MessageKind::log_statistics:
        return;
    }
  }
};

// One core asks the others and writes the table.
void ask_for_statistics(Mailbox& mailbox) {
  mailbox.send(0, make_message(MessageKind::log_statistics));
  mailbox.flush();
}

void log_summary(const std::vector<Statistics>& parts) {
  Statistics sum;
  for (const Statistics& part : parts) sum.merge(part);
  for (const std::string& line : summary_lines(sum)) LOG(info, "%s", line.c_str());
}

void send_to_all(Mailbox& mailbox, MessageKind kind) {
  for (CoreId core = 0; core < mailbox.cores_count(); ++core)
    mailbox.send(core, make_message(kind));
  mailbox.flush();
}

bool all_ended(const std::vector<std::unique_ptr<Core>>& cores) {
  return std::all_of(cores.begin(), cores.end(),
                     [](const auto& core) { return core->has_ended(); });
}

// Until every core has ended. First signal: drain; second, or the end of the patience: stop.
void wait_for_end(const std::vector<std::unique_ptr<Core>>& cores, Mailbox& mailbox,
                  ListenSockets& sockets, Reload& reload) {
  MonotonicClock clock;
  Nanoseconds stop_at = never;
  bool draining = false;
  bool stopped = false;
  while (!all_ended(cores)) {
    const auto signal = wait_for_signal(draining ? signal_poll_interval : never);
    if (signal == Signal::hangup) {
      if (draining) {
        LOG(info, "SIGHUP: not while stopping");
      } else {
        reload.run();
      }
    } else if (signal == Signal::statistics) {
      ask_for_statistics(mailbox);
    } else if (signal.has_value() && !draining) {
      draining = true;
      LOG(info,
          "stopping: running transactions are finished, new clients are refused; a second signal "
          "stops at once");
      sockets.remove_files();
      send_to_all(mailbox, MessageKind::drain);
      const Nanoseconds drain_timeout = reload.config().proxy.drain_timeout;
      if (drain_timeout > 0) stop_at = clock.now() + drain_timeout;
    } else if (!stopped && (signal.has_value() || (draining && clock.now() >= stop_at))) {
      stopped = true;
      LOG(info, "%s",
          signal.has_value() ? "stopping at once"
                             : "stopping: transactions took longer than drain_timeout");
      send_to_all(mailbox, MessageKind::stop);
    }
  }
}

RingOptions ring_options(const Config& config, FeatureMask features_off) {
  const ProxyConfig& proxy = config.proxy;
  RingOptions options;
  options.targets_max = sessions_max(config) + backends_max + 256;
  options.client_buffers = {proxy.client_buffers, proxy.client_buffer_size};
  options.backend_buffers = {proxy.backend_buffers, proxy.backend_buffer_size};
  options.features_off = features_off;
  return options;
}

}  // namespace

Result<bool> run_server(const Config& config, const std::vector<std::string>& io_features_off,
                        const std::function<LoadResult()>& read) {
  std::string names;
  for (const std::string& name : io_features_off) names += (names.empty() ? "" : ",") + name;
  const auto features_off = parse_feature_mask(names);
  if (!features_off.ok()) return Error{features_off.error()};

  std::vector<int> cpus = usable_cpus();
  const size_t cores_count = config.proxy.cores == 0 ? cpus.size() : config.proxy.cores;
  const auto make_room = [cores_count](const Config& wanted) {
    return raise_descriptor_limit(descriptors_needed(wanted, cores_count));
  };
  if (auto limit = make_room(config); !limit.ok()) return Error{limit.error()};

  auto addresses = parse_listen_addresses(config.proxy.listen);
  if (!addresses.ok()) return Error{addresses.error()};
  auto sockets =
      ListenSockets::listen(addresses.value(), static_cast<int>(cores_count), listen_patience);
  if (!sockets.ok()) return Error{sockets.error()};

  ResolverOptions resolver_options;
  resolver_options.refresh_interval =
      config.proxy.dns_refresh > 0 ? config.proxy.dns_refresh : never;
  Resolver resolver(resolver_options);
  ConfigCatalog catalog(resolver, static_cast<CoreId>(cores_count));
  const ConfigDirectory directory(config, catalog, 0);
  resolver.start();

  ServerShared shared(directory, config.proxy.max_clients, config.proxy.client_login_timeout,
                      static_cast<CoreId>(cores_count));
  shared.sessions.statements_size_max = config.proxy.max_statements_size;
  random_bytes(shared.sessions.login_secret);
  random_bytes(shared.sessions.cancel_secret);
  MailboxSystem mailboxes(static_cast<CoreId>(cores_count));
  WakeTable wakes(static_cast<CoreId>(cores_count));
  if (!wakes.ok()) return Error{"cannot create an eventfd: too many open files"};
  EventWaker waker(wakes);
  Mailbox mailbox(mailboxes, mailboxes.main_id(), waker);

  std::vector<std::unique_ptr<Core>> cores;
  std::string failure;
  for (size_t id = 0; id < cores_count && failure.empty(); ++id) {
    CoreOptions options;
    options.id = static_cast<CoreId>(id);
    // More cores than CPUs (tests): they share them.
    options.cpu = cpus[id % cpus.size()];
    options.ring = ring_options(config, features_off.value());
    auto core = Core::start(
        options, {mailboxes, wakes},
        [&, id](CoreContext& context) -> Result<std::unique_ptr<CoreApplication>> {
          CoreServerOptions own{sockets.value().take(static_cast<int>(id)), sessions_max(config),
                                backends_max};
          return std::unique_ptr<CoreApplication>(new CoreServer(context, shared, std::move(own)));
        });
    if (core.ok()) {
      cores.push_back(std::move(core).value());
    } else {
      failure = core.error();
    }
  }
  if (is_slow_cryptography())
    LOG(warning,
        "linked with the installed wolfSSL, which has no assembly: logins cost several times the "
        "CPU (see tools/setup)");
  if (failure.empty()) {
    for (const SocketAddress& address : sockets.value().addresses())
      LOG(info, "listening on %s", address.text().c_str());
    LOG(info, "ready: %zu core%s", cores_count, cores_count == 1 ? "" : "s");
    Reload reload({catalog, shared, mailbox, read, make_room}, config);
    wait_for_end(cores, mailbox, sockets.value(), reload);
  } else {
    // Those that never started will never settle.
    shared.settled_count.fetch_add(static_cast<uint32_t>(cores_count - cores.size()));
    send_to_all(mailbox, MessageKind::stop);
  }
  for (auto& core : cores) core->join();
  DeadLetters dead_letters;
  for (size_t id = 0; id < cores_count; ++id) {
    Mailbox rest(mailboxes, static_cast<CoreId>(id), waker);
    while (rest.drain(dead_letters) > 0) {
    }
  }
  resolver.stop();
  if (!failure.empty()) return Error{failure};
  log_summary(shared.last_statistics);
  LOG(info, "stopped");
  LOG(debug, "leaks: none");
  return true;
}

}  // namespace helios
