// Names of nodes to addresses, on one helper thread: getaddrinfo may take seconds and must not
// stall a core.
//
// Literals and unix directories are answered at once and never ask the thread. Names are asked
// again every refresh interval and on request; while a name cannot be resolved its last addresses
// stay. Answers are published under a small mutex, which only a connect takes: not on the path of a
// query. All functions may be called by any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "helios/base/address.h"
#include "helios/base/clock.h"
#include "helios/base/result.h"

namespace helios {

// What is known of one host. Immutable.
struct Resolution {
  std::vector<SocketAddress>
      addresses;      // In the order in which to try them; empty when none is known.
  std::string error;  // Of the last try; empty when it succeeded.
};

// Resolves one name. Called on the helper thread only; may block.
using Lookup =
    std::function<Result<std::vector<SocketAddress>>(const std::string& host, uint16_t port)>;
// getaddrinfo(3), stream sockets of IPv4 and IPv6.
Result<std::vector<SocketAddress>> lookup_by_getaddrinfo(const std::string& host, uint16_t port);

struct ResolverOptions {
  Nanoseconds refresh_interval = seconds(15);
  // A request to refresh is answered at most so often for each name.
  Nanoseconds request_interval = seconds(1);
  // start() waits so long for the first answers.
  Nanoseconds start_wait = seconds(2);
  // stop() waits so long for a lookup that is under way, then leaves the thread behind.
  Nanoseconds stop_wait = seconds(1);
  Lookup lookup = lookup_by_getaddrinfo;
};

class Resolver {
 public:
  explicit Resolver(ResolverOptions options = {});
  Resolver(const Resolver&) = delete;
  Resolver& operator=(const Resolver&) = delete;
  ~Resolver();  // Stops.

  // Adds a host and returns its id (the same for the same host and port). Also after start().
  [[nodiscard]] size_t add(const std::string& host, uint16_t port);
  // Starts the helper thread if there is a name, and waits for the first answers up to start_wait.
  // A name that fails is told by its resolution, not here.
  void start();
  // Waits for the first answers about names added since, up to start_wait.
  void await_answers();
  void stop();

  // Never null.
  [[nodiscard]] std::shared_ptr<const Resolution> snapshot(size_t id) const;
  // Grows with each answer that is published. Without a lock: to see that nothing is new.
  [[nodiscard]] uint64_t version() const noexcept;
  // A connect to all addresses has failed: look the name up soon. Cheap and idempotent.
  void refresh_soon(size_t id);

 private:
  struct State;  // Shared with the thread, which may outlive the resolver in a lookup that hangs.
  static void run(const std::shared_ptr<State>& state);
  void start_thread();

  std::shared_ptr<State> state_;
};

}  // namespace helios
