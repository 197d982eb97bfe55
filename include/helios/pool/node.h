// A PostgreSQL server, as all cores share it. Lives as long as the process; any thread.
//
// It is known by its name, hosts and port: where one of them changes it is another node. Everything
// else may change (update), and a node that was removed and comes back is the same object: what is
// still open of it counts.
#pragma once

#include <atomic>
#include <string>
#include <utility>
#include <vector>

#include "helios/net/resolver.h"
#include "helios/pool/connect_gate.h"
#include "helios/pool/node_health.h"
#include "helios/pool/shared_limit.h"

namespace helios {

struct NodeOptions {
  std::string name;
  std::string label;  // host:port, for messages.
  // In the order of preference. Each with the node's port.
  std::vector<std::string> hosts;
  uint16_t port = 5432;
  uint32_t max_connections = 0;  // 0: no limit.
  uint32_t connecting_max = 16;  // Connects under way; 0: no cap.
  CoreId cores_count = 1;
  // Who waits for a connection gets the node's error as soon as an attempt has failed; otherwise
  // only at the end of its wait.
  bool fail_fast = true;
  NodeHealthOptions health;
};

struct Node {
  Node(NodeOptions options, Resolver& node_resolver);

  // Takes over what may change: limits and manners. Who waits has to try again afterwards.
  // Requires: the same name, hosts and port.
  void update(const NodeOptions& options);

  // What the hosts stand for now, as one list. Where there is no address: one without a family, and
  // the reason in `error`. Allocates; for connects and sweeps.
  [[nodiscard]] Resolution addresses() const;
  // As long as it stays the same addresses() does. Takes no lock.
  [[nodiscard]] uint64_t addresses_version() const noexcept { return resolver_.version(); }
  // Look the names up again: connects fail.
  void refresh_soon() const;

  const std::string name;
  const std::string label;
  std::atomic<bool> fail_fast;  // Relaxed.
  SharedLimit limit;
  ConnectGate gate;
  NodeHealth health;

 private:
  Resolver& resolver_;
  std::vector<size_t> resolver_ids_;
};

}  // namespace helios
