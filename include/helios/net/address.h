// Socket addresses: what [proxy] listen and [[node]] host say, as the kernel wants it.
//
// Pure functions and values; any thread. Names are not resolved here (see resolver.h): a listen
// address is a literal, "localhost", "*" or a unix directory.
//
// Unix sockets follow PostgreSQL's rule: a directory DIR and a port N make the socket file
// DIR/.s.PGSQL.N, so that clients find it by host=DIR port=N.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/result.h"

namespace helios {

constexpr uint16_t default_listen_port = 6432;

// An address for bind(2) or connect(2): IPv4, IPv6 or a unix path.
class SocketAddress {
 public:
  SocketAddress() noexcept = default;  // Of no family.
  SocketAddress(const sockaddr* address, socklen_t size) noexcept;

  [[nodiscard]] const sockaddr* get() const noexcept {
    return reinterpret_cast<const sockaddr*>(&storage_);
  }
  [[nodiscard]] socklen_t size() const noexcept { return size_; }
  [[nodiscard]] int family() const noexcept { return storage_.ss_family; }
  // 0 for a unix socket.
  [[nodiscard]] uint16_t port() const noexcept;
  // The path of a unix socket's file, empty for others.
  [[nodiscard]] std::string path() const;
  // "127.0.0.1:5432", "[::1]:5432" or "unix:/run/postgresql/.s.PGSQL.5432".
  [[nodiscard]] std::string text() const;

  friend bool operator==(const SocketAddress& a, const SocketAddress& b) noexcept;

 private:
  sockaddr_storage storage_{};
  socklen_t size_ = 0;
};

// DIR/.s.PGSQL.PORT. Error: the path is too long for a unix socket (107 bytes).
Result<SocketAddress> unix_socket_address(std::string_view directory, uint16_t port);

// One socket to listen on.
struct ListenAddress {
  SocketAddress address;
  std::string text;       // As it was written, for messages.
  bool optional = false;  // The IPv6 half of "*" and "localhost": left out where there is no IPv6.
};

// Parses all of [proxy] listen: "127.0.0.1:6432", "[::1]:6432", "*:6432" (IPv4 and IPv6),
// "localhost:6432", "unix:/dir" (the port of the first TCP address, else 6432) and
// "unix:/dir:6433". The order is kept. Errors: a sentence that quotes the address.
Result<std::vector<ListenAddress>> parse_listen_addresses(std::span<const std::string> texts);

// What [[node]] host is.
enum class HostKind : uint8_t {
  name,       // To be resolved.
  literal,    // An IPv4 or IPv6 address.
  directory,  // Begins with '/': the directory of a unix socket.
};
[[nodiscard]] HostKind host_kind(std::string_view host) noexcept;
// Why this cannot be a host: "" when it can.
[[nodiscard]] std::string host_problem(std::string_view host);
// The address of a literal or a directory. Requires: not a name.
Result<SocketAddress> literal_address(std::string_view host, uint16_t port);

}  // namespace helios
