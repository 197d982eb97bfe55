// Listening, connecting and accepting on loopback TCP or unix sockets, for the processes of a run.
//
// Blocking, because nothing is measured yet while connections are made; the sockets that come out
// are non-blocking. Descriptors belong to the caller. Errors are sentences.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <vector>

#include "helios/base/result.h"

namespace helios::bench {

enum class Family : uint8_t { tcp, unix_socket };

// Where a listening socket can be reached.
struct Address {
  sockaddr_storage storage{};
  socklen_t size = 0;
};

// A listening socket on any free port of 127.0.0.1, or on a name that the kernel picks.
struct ListenSocket {
  int fd = -1;
  Address address;
};
[[nodiscard]] Result<ListenSocket> listen_anywhere(Family family);

[[nodiscard]] Result<int> connect_to(const Address& address);
[[nodiscard]] Result<int> accept_from(int listener);
[[nodiscard]] Result<std::vector<int>> accept_many(int listener, uint32_t count);

}  // namespace helios::bench
