#include "helios/pool/node.h"

#include <algorithm>

namespace helios {

Node::Node(NodeOptions options, Resolver& node_resolver)
    : name(std::move(options.name)),
      label(std::move(options.label)),
      fail_fast(options.fail_fast),
      limit(options.max_connections),
      gate(options.connecting_max, options.cores_count),
      health(options.health),
      resolver_(node_resolver) {
  for (const std::string& host : options.hosts)
    resolver_ids_.push_back(resolver_.add(host, options.port));
}

void Node::update(const NodeOptions& options) {
  fail_fast.store(options.fail_fast, std::memory_order_relaxed);
  limit.set_max(options.max_connections);
  gate.set_max(options.connecting_max);
  health.set_retry_max(options.health.retry_max);
}

Resolution Node::addresses() const {
  Resolution all;
  for (const size_t id : resolver_ids_) {
    const auto found = resolver_.snapshot(id);
    for (const SocketAddress& address : found->addresses) {
      const bool is_known =
          std::find(all.addresses.begin(), all.addresses.end(), address) != all.addresses.end();
      if (!is_known) all.addresses.push_back(address);
    }
    if (all.error.empty()) all.error = found->error;
  }
  if (all.addresses.empty()) all.addresses.emplace_back();
  return all;
}

void Node::refresh_soon() const {
  for (const size_t id : resolver_ids_) resolver_.refresh_soon(id);
}

}  // namespace helios
