// Listen addresses: the one place that knows what [proxy] listen may say. The check of the
// configuration and the start ask here, so that what passes the first is understood by the second.
//
// Pure functions and values; any thread. Names are not resolved: a listen address is a literal,
// "localhost" or the directory of a unix socket.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "helios/base/address.h"
#include "helios/base/result.h"

namespace helios {

constexpr uint16_t default_listen_port = 6432;

// One socket to listen on.
struct ListenAddress {
  SocketAddress address;
  std::string text;       // As it was written, for messages.
  bool optional = false;  // The IPv6 half of "localhost": left out where there is no IPv6.
};

// For each of the texts why it cannot be a listen address (behind those before it), as a sentence
// that quotes it; empty when it can. Port 0 is wrong here: nobody would know where to connect.
[[nodiscard]] std::vector<std::string> listen_faults(std::span<const std::string> texts);

// Parses all of them: "127.0.0.1:6432", "[::1]:6432", "localhost:6432" (IPv4 and IPv6), "unix:/dir"
// (the port of the first TCP address, else 6432) and "unix:/dir:6433". The order is kept. Port 0 is
// any that is free, for tests. Error: the first fault.
Result<std::vector<ListenAddress>> parse_listen_addresses(std::span<const std::string> texts);

}  // namespace helios
