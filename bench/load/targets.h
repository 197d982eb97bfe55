// Where the clients connect to, and from which local address.
//
// From one local address an address and port can be reached about 28,000 times at once (the
// kernel's ip_local_port_range); on the loopback net every address 127.x.y.z is ours, so further
// clients come from 127.0.0.2, 127.0.0.3 and so on. Made once at start; then read by every core.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/address.h"
#include "helios/base/result.h"

namespace helios::bench {

struct Target {
  SocketAddress address;
  bool is_loopback = false;  // IPv4, 127.0.0.0/8.
};

// What is wrong with the form of the addresses: empty when nothing is. Resolves no names.
[[nodiscard]] std::string target_problem(std::span<const std::string> texts);

// "host:port", "[v6]:port" or "unix:/dir:port" each; names are resolved, to their first address.
[[nodiscard]] Result<std::vector<Target>> find_targets(std::span<const std::string> texts);

// Local ports that the kernel gives to outgoing connections of one address.
[[nodiscard]] uint32_t local_ports_count();

// Of the clients of one loopback target, how many connect from each local address: with few clients
// the kernel chooses the address, as for everybody else.
[[nodiscard]] constexpr uint32_t clients_per_address(uint32_t ports_count) {
  return ports_count - ports_count / 8;  // Some are taken by others.
}

// A stream socket of the target's family, non-blocking and close-on-exec, bound to the loopback
// address with this number: 0 none in particular, n 127.0.0.(n + 1). A negative errno on failure.
[[nodiscard]] int open_socket_for(const Target& target, uint32_t local_index) noexcept;

constexpr uint32_t local_addresses_max = 250;

}  // namespace helios::bench
