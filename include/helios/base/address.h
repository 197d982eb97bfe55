// Socket addresses: what [[node]] host says, as the kernel wants it.
//
// Pure functions and values; any thread. Names are not resolved here (see net/resolver.h).
//
// Unix sockets follow PostgreSQL's rule: a directory DIR and a port N make the socket file
// DIR/.s.PGSQL.N, so that clients find it by host=DIR port=N.
#pragma once

#include <sys/socket.h>

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "helios/base/result.h"

namespace helios {

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

// How a text that names a unix socket begins where addresses of other kinds may stand.
constexpr std::string_view unix_prefix = "unix:";

// DIR/.s.PGSQL.PORT. Error: the path is too long for a unix socket (107 bytes).
Result<SocketAddress> unix_socket_address(std::string_view directory, uint16_t port);
// Decimal digits only, 0 to 65535.
[[nodiscard]] std::optional<uint16_t> parse_port(std::string_view text) noexcept;
// Nothing when the text is no such address. IPv6 is without brackets; a scope is allowed, by name
// or number: fe80::1%eth0.
[[nodiscard]] std::optional<SocketAddress> parse_ipv4(std::string_view text, uint16_t port);
[[nodiscard]] std::optional<SocketAddress> parse_ipv6(std::string_view text, uint16_t port);

// What [[node]] host is.
enum class HostKind : uint8_t {
  name,       // To be resolved.
  literal,    // An IPv4 or IPv6 address.
  directory,  // Begins with '/': the directory of a unix socket.
};
[[nodiscard]] HostKind host_kind(std::string_view host) noexcept;
// Why this cannot be a host, as a sentence; empty when it can.
[[nodiscard]] std::string host_fault(std::string_view host);
// The address of a literal or a directory. Requires: not a name.
Result<SocketAddress> literal_address(std::string_view host, uint16_t port);

}  // namespace helios
