#include "helios/net/address.h"

#include <arpa/inet.h>
#include <net/if.h>
#include <netinet/in.h>
#include <sys/un.h>

#include <algorithm>
#include <charconv>
#include <cstddef>
#include <cstring>
#include <optional>

#include "helios/base/assert.h"

namespace helios {

namespace {

// Decimal digits only, 0 to 65535.
std::optional<uint16_t> parse_port(std::string_view text) {
  uint16_t port = 0;
  auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return port;
}

std::optional<SocketAddress> parse_ipv4(std::string_view host, uint16_t port) {
  sockaddr_in inet{};
  inet.sin_family = AF_INET;
  inet.sin_port = htons(port);
  if (inet_pton(AF_INET, std::string(host).c_str(), &inet.sin_addr) != 1) return std::nullopt;
  return SocketAddress(reinterpret_cast<const sockaddr*>(&inet), sizeof(inet));
}

// A scope is allowed, by name or number: fe80::1%eth0.
std::optional<SocketAddress> parse_ipv6(std::string_view host, uint16_t port) {
  sockaddr_in6 inet{};
  inet.sin6_family = AF_INET6;
  inet.sin6_port = htons(port);
  size_t percent = host.find('%');
  if (percent != std::string_view::npos) {
    std::string scope(host.substr(percent + 1));
    inet.sin6_scope_id = if_nametoindex(scope.c_str());
    if (inet.sin6_scope_id == 0) inet.sin6_scope_id = parse_port(scope).value_or(0);
    if (inet.sin6_scope_id == 0) return std::nullopt;
  }
  std::string address(host.substr(0, percent));
  if (inet_pton(AF_INET6, address.c_str(), &inet.sin6_addr) != 1) return std::nullopt;
  return SocketAddress(reinterpret_cast<const sockaddr*>(&inet), sizeof(inet));
}

Error bad_listen(const std::string& text, const std::string& why) {
  return Error{"listen address \"" + text + "\": " + why};
}

constexpr std::string_view unix_prefix = "unix:";
constexpr const char* listen_forms =
    "write it as 127.0.0.1:6432, [::1]:6432, *:6432, localhost:6432 or unix:/path/to/dir";

bool is_unix(std::string_view text) {
  return text.substr(0, unix_prefix.size()) == unix_prefix;
}

struct HostPort {
  std::string_view host;
  std::string_view port;
};

// "[v6]:port" or "host:port"; host without colons.
std::optional<HostPort> split_host_port(std::string_view text) {
  if (text.substr(0, 1) == "[") {
    size_t end = text.find("]:");
    if (end == std::string_view::npos) return std::nullopt;
    return HostPort{text.substr(1, end - 1), text.substr(end + 2)};
  }
  size_t colon = text.find(':');
  if (colon == std::string_view::npos || text.rfind(':') != colon) return std::nullopt;
  return HostPort{text.substr(0, colon), text.substr(colon + 1)};
}

using ListenAddresses = std::vector<ListenAddress>;

Result<ListenAddresses> parse_tcp_listen(const std::string& text) {
  std::optional<HostPort> parts = split_host_port(text);
  if (!parts) return bad_listen(text, listen_forms);
  std::optional<uint16_t> port = parse_port(parts->port);
  if (!port) return bad_listen(text, "the port must be a number from 0 to 65535");

  bool bracketed = text[0] == '[';
  ListenAddresses addresses;
  if (!bracketed && (parts->host == "*" || parts->host == "localhost")) {
    bool any = parts->host == "*";
    addresses.push_back({*parse_ipv4(any ? "0.0.0.0" : "127.0.0.1", *port), text, false});
    // An ephemeral port would be another one: only a test asks for it.
    if (*port != 0) addresses.push_back({*parse_ipv6(any ? "::" : "::1", *port), text, true});
    return addresses;
  }
  std::optional<SocketAddress> address =
      bracketed ? parse_ipv6(parts->host, *port) : parse_ipv4(parts->host, *port);
  if (!address)
    return bad_listen(text, std::string("\"") + std::string(parts->host) +
                                "\" is not an IP address; " + listen_forms);
  addresses.push_back({*address, text, false});
  return addresses;
}

Result<ListenAddresses> parse_unix_listen(const std::string& text, uint16_t default_port) {
  std::string_view directory = std::string_view(text).substr(unix_prefix.size());
  uint16_t port = default_port;
  size_t colon = directory.rfind(':');
  if (colon != std::string_view::npos) {
    std::optional<uint16_t> given = parse_port(directory.substr(colon + 1));
    if (!given || *given == 0)
      return bad_listen(text, "behind the directory there must be a port from 1 to 65535");
    port = *given;
    directory = directory.substr(0, colon);
  }
  if (directory.empty() || directory[0] != '/')
    return bad_listen(text, "the directory must be an absolute path");
  Result<SocketAddress> address = unix_socket_address(directory, port);
  if (!address.ok()) return bad_listen(text, address.error());
  return ListenAddresses{{address.value(), text, false}};
}

uint16_t first_tcp_port(std::span<const std::string> texts) {
  for (const std::string& text : texts) {
    if (is_unix(text)) continue;
    std::optional<HostPort> parts = split_host_port(text);
    uint16_t port = parts ? parse_port(parts->port).value_or(0) : 0;
    if (port != 0) return port;
  }
  return default_listen_port;
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

Result<std::vector<ListenAddress>> parse_listen_addresses(std::span<const std::string> texts) {
  ListenAddresses all;
  uint16_t default_port = first_tcp_port(texts);
  for (const std::string& text : texts) {
    Result<ListenAddresses> some =
        is_unix(text) ? parse_unix_listen(text, default_port) : parse_tcp_listen(text);
    if (!some.ok()) return Error{some.error()};
    for (const ListenAddress& address : some.value()) {
      bool given = address.address.port() != 0 || address.address.family() == AF_UNIX;
      for (const ListenAddress& other : all)
        if (given && other.address == address.address)
          return bad_listen(text, "it is listed twice (see \"" + other.text + "\")");
      all.push_back(address);
    }
  }
  return all;
}

HostKind host_kind(std::string_view host) noexcept {
  if (host.substr(0, 1) == "/") return HostKind::directory;
  if (parse_ipv4(host, 0) || parse_ipv6(host, 0)) return HostKind::literal;
  return HostKind::name;
}

std::string host_problem(std::string_view host) {
  if (host.empty()) return "a host must not be empty";
  switch (host_kind(host)) {
    case HostKind::literal:
      return "";
    case HostKind::directory: {
      Result<SocketAddress> address = unix_socket_address(host, 65535);
      return address.ok() ? "" : address.error();
    }
    case HostKind::name:
      break;
  }
  if (host.size() > 253) return "a host name has at most 253 bytes";
  auto is_name_byte = [](char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
           c == '_' || c == '.';
  };
  if (!std::all_of(host.begin(), host.end(), is_name_byte))
    return "\"" + std::string(host) +
           "\" is neither a host name nor an address nor a directory that begins with /; the port "
           "has a key of its own";
  return "";
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
