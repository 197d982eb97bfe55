#include "bench/ring/sockets.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

namespace helios::bench {
namespace {

constexpr int backlog = 4096;

Error error_of(const char* call) {
  return Error{std::string(call) + ": " + std::strerror(errno)};
}

int domain_of(const Address& address) noexcept {
  return address.storage.ss_family;
}

void tune(int fd, int domain) noexcept {
  const int one = 1;
  if (domain == AF_INET) (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
  (void)fcntl(fd, F_SETFL, O_NONBLOCK);
}

}  // namespace

Result<ListenSocket> listen_anywhere(Family family) {
  ListenSocket made;
  Address& address = made.address;
  auto* generic = reinterpret_cast<sockaddr*>(&address.storage);
  if (family == Family::tcp) {
    auto* inet = reinterpret_cast<sockaddr_in*>(&address.storage);
    inet->sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    generic->sa_family = AF_INET;
    address.size = sizeof(sockaddr_in);
  } else {
    generic->sa_family = AF_UNIX;
    address.size = sizeof(sa_family_t);  // The kernel picks an abstract name: no file is left.
  }
  made.fd = socket(domain_of(address), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (made.fd < 0) return error_of("socket");
  if (bind(made.fd, generic, address.size) != 0) return error_of("bind");
  if (listen(made.fd, backlog) != 0) return error_of("listen");
  address.size = sizeof(address.storage);
  if (getsockname(made.fd, generic, &address.size) != 0) return error_of("getsockname");
  return made;
}

Result<int> connect_to(const Address& address) {
  const int fd = socket(domain_of(address), SOCK_STREAM | SOCK_CLOEXEC, 0);
  if (fd < 0) return error_of("socket");
  if (connect(fd, reinterpret_cast<const sockaddr*>(&address.storage), address.size) != 0)
    return error_of("connect");
  tune(fd, domain_of(address));
  return fd;
}

Result<int> accept_from(int listener) {
  Address peer;
  peer.size = sizeof(peer.storage);
  const int fd =
      accept4(listener, reinterpret_cast<sockaddr*>(&peer.storage), &peer.size, SOCK_CLOEXEC);
  if (fd < 0) return error_of("accept");
  tune(fd, domain_of(peer));
  return fd;
}

Result<std::vector<int>> accept_many(int listener, uint32_t count) {
  std::vector<int> fds;
  for (uint32_t i = 0; i < count; ++i) {
    Result<int> fd = accept_from(listener);
    if (!fd.ok()) return Error{fd.error()};
    fds.push_back(fd.value());
  }
  return fds;
}

}  // namespace helios::bench
