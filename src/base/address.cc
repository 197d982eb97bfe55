#include "helios/base/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>

#include "helios/base/assert.h"

namespace helios {

namespace {

// RFC 1123, and the underscore that container networks use.
bool is_host_name(std::string_view text) noexcept {
  constexpr size_t name_size_max = 253;
  constexpr size_t label_size_max = 63;
  if (text.empty() || text.size() > name_size_max) return false;
  size_t label_size = 0;
  for (const char letter : text) {
    const bool is_letter = (letter >= 'A' && letter <= 'Z') || (letter >= 'a' && letter <= 'z');
    const bool is_digit = letter >= '0' && letter <= '9';
    if (letter == '.') {
      if (label_size == 0) return false;
      label_size = 0;
    } else if (is_letter || is_digit || letter == '_' || (letter == '-' && label_size > 0)) {
      if (++label_size > label_size_max) return false;
    } else {
      return false;
    }
  }
  return true;
}

}  // namespace

SocketAddress::SocketAddress(const sockaddr* address, socklen_t size) noexcept : size_(size) {
  ASSERT(size <= sizeof(storage_));
  std::memcpy(&storage_, address, size);
}

uint16_t SocketAddress::port() const noexcept {
  if (family() == AF_INET) {
    sockaddr_in inet;
    std::memcpy(&inet, &storage_, sizeof(inet));
    return ntohs(inet.sin_port);
  }
  if (family() == AF_INET6) {
    sockaddr_in6 inet;
    std::memcpy(&inet, &storage_, sizeof(inet));
    return ntohs(inet.sin6_port);
  }
  return 0;
}

std::string SocketAddress::path() const {
  if (family() != AF_UNIX || size_ <= offsetof(sockaddr_un, sun_path)) return {};
  const char* bytes = reinterpret_cast<const char*>(&storage_) + offsetof(sockaddr_un, sun_path);
  return std::string(bytes, strnlen(bytes, size_ - offsetof(sockaddr_un, sun_path)));
}

std::string SocketAddress::text() const {
  char host[INET6_ADDRSTRLEN] = "";
  switch (family()) {
    case AF_INET: {
      sockaddr_in inet;
      std::memcpy(&inet, &storage_, sizeof(inet));
      inet_ntop(AF_INET, &inet.sin_addr, host, sizeof(host));
      return std::string(host) + ":" + std::to_string(port());
    }
    case AF_INET6: {
      sockaddr_in6 inet;
      std::memcpy(&inet, &storage_, sizeof(inet));
      inet_ntop(AF_INET6, &inet.sin6_addr, host, sizeof(host));
      std::string scope = inet.sin6_scope_id == 0 ? "" : "%" + std::to_string(inet.sin6_scope_id);
      return "[" + std::string(host) + scope + "]:" + std::to_string(port());
    }
    case AF_UNIX:
      return "unix:" + path();
    default:
      return "no address";
  }
}

bool operator==(const SocketAddress& a, const SocketAddress& b) noexcept {
  return a.size_ == b.size_ && std::memcmp(&a.storage_, &b.storage_, a.size_) == 0;
}

Result<SocketAddress> unix_socket_address(std::string_view directory, uint16_t port) {
  while (directory.size() > 1 && directory.back() == '/') directory.remove_suffix(1);
  std::string path(directory == "/" ? "" : directory);
  path += "/.s.PGSQL." + std::to_string(port);
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  if (path.size() >= sizeof(address.sun_path))
    return Error{"the socket's path " + path + " is longer than the " +
                 std::to_string(sizeof(address.sun_path) - 1) +
                 " bytes that the kernel allows; choose a shorter directory"};
  if (path.find('\0') != std::string::npos) return Error{"the path contains a zero byte"};
  std::memcpy(address.sun_path, path.c_str(), path.size() + 1);
  size_t size = offsetof(sockaddr_un, sun_path) + path.size() + 1;
  return SocketAddress(reinterpret_cast<const sockaddr*>(&address), static_cast<socklen_t>(size));
}

std::optional<uint16_t> parse_port(std::string_view text) noexcept {
  uint16_t port = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return port;
}

std::optional<SocketAddress> parse_ipv4(std::string_view text, uint16_t port) {
  // Behind it inet_pton would see nothing.
  if (text.find('\0') != std::string_view::npos) return std::nullopt;
  sockaddr_in inet{};
  inet.sin_family = AF_INET;
  inet.sin_port = htons(port);
  if (inet_pton(AF_INET, std::string(text).c_str(), &inet.sin_addr) != 1) return std::nullopt;
  return SocketAddress(reinterpret_cast<const sockaddr*>(&inet), sizeof(inet));
}

std::optional<SocketAddress> parse_ipv6(std::string_view text, uint16_t port) {
  if (text.find('\0') != std::string_view::npos) return std::nullopt;
  sockaddr_in6 inet{};
  inet.sin6_family = AF_INET6;
  inet.sin6_port = htons(port);
  size_t percent = text.find('%');
  if (percent != std::string_view::npos) {
    std::string scope(text.substr(percent + 1));
    inet.sin6_scope_id = if_nametoindex(scope.c_str());
    if (inet.sin6_scope_id == 0) inet.sin6_scope_id = parse_port(scope).value_or(0);
    if (inet.sin6_scope_id == 0) return std::nullopt;
  }
  std::string address(text.substr(0, percent));
  if (inet_pton(AF_INET6, address.c_str(), &inet.sin6_addr) != 1) return std::nullopt;
  return SocketAddress(reinterpret_cast<const sockaddr*>(&inet), sizeof(inet));
}

HostKind host_kind(std::string_view host) noexcept {
  if (host.substr(0, 1) == "/") return HostKind::directory;
  if (parse_ipv4(host, 0) || parse_ipv6(host, 0)) return HostKind::literal;
  return HostKind::name;
}

std::string host_fault(std::string_view host) {
  const std::string shown = "\"" + std::string(host) + "\"";
  switch (host_kind(host)) {
    case HostKind::literal:
      return {};
    case HostKind::directory: {
      Result<SocketAddress> address = unix_socket_address(host, UINT16_MAX);
      return address.ok() ? "" : address.error();
    }
    case HostKind::name:
      break;
  }
  if (host.starts_with(unix_prefix))
    return shown + ": the directory of a unix socket is written without \"unix:\" here";
  if (host.starts_with('[')) return shown + ": an IPv6 address is written without brackets here";
  const auto colons = std::count(host.begin(), host.end(), ':');
  if (colons == 1) return shown + ": the port has a key of its own, port";
  if (colons > 1) return shown + " is no IPv6 address";
  const bool is_numeric = host.find_first_not_of("0123456789.") == std::string_view::npos;
  if (is_numeric) return shown + " is no IPv4 address";
  return is_host_name(host) ? "" : shown + " is no host name or address";
}

Result<SocketAddress> literal_address(std::string_view host, uint16_t port) {
  switch (host_kind(host)) {
    case HostKind::directory:
      return unix_socket_address(host, port);
    case HostKind::literal: {
      std::optional<SocketAddress> address = parse_ipv4(host, port);
      return address ? *address : *parse_ipv6(host, port);
    }
    case HostKind::name:
      break;
  }
  UNREACHABLE("a name has no literal address");
}

}  // namespace helios
