#include "load/targets.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <fstream>
#include <optional>

#include "helios/net/resolver.h"

namespace helios::bench {
namespace {

std::optional<uint16_t> read_port(std::string_view text) {
  uint16_t port = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), port);
  if (error != std::errc() || end != text.data() + text.size() || port == 0) return std::nullopt;
  return port;
}

bool is_loopback(const SocketAddress& address) {
  if (address.family() != AF_INET) return false;
  const auto* ip = reinterpret_cast<const sockaddr_in*>(address.get());
  return ntohl(ip->sin_addr.s_addr) >> 24 == 127;
}

std::string wrong_form(const std::string& text) {
  return "\"" + text + "\" is no address: host:port, [IPv6]:port or unix:/directory:port is needed";
}

// A host, a directory or "" (with the reason), and a port.
struct Place {
  std::string host;
  uint16_t port = 0;
  std::string problem;
};

Place parse_place(const std::string& text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return {"", 0, wrong_form(text)};
  std::string host = text.substr(0, colon);
  const std::optional<uint16_t> port = read_port(std::string_view(text).substr(colon + 1));
  if (host.starts_with("unix:")) {
    host = host.substr(5);
    if (!host.starts_with('/')) host.clear();
  } else if (host.starts_with('[') && host.ends_with(']')) {
    host = host.substr(1, host.size() - 2);
  }
  if (!port || host.empty()) return {"", 0, wrong_form(text)};
  const std::string problem = host_fault(host);
  if (!problem.empty()) return {"", 0, "\"" + text + "\": " + problem};
  return {host, *port, ""};
}

Result<SocketAddress> address_of(const std::string& text) {
  const Place place = parse_place(text);
  if (!place.problem.empty()) return Error{place.problem};
  if (host_kind(place.host) != HostKind::name) return literal_address(place.host, place.port);
  Result<std::vector<SocketAddress>> found = lookup_by_getaddrinfo(place.host, place.port);
  if (!found.ok()) return Error{found.error()};
  if (found.value().empty()) return Error{"\"" + place.host + "\" has no address"};
  return found.value().front();
}

}  // namespace

std::string target_problem(std::span<const std::string> texts) {
  for (const std::string& text : texts) {
    std::string problem = parse_place(text).problem;
    if (!problem.empty()) return problem;
  }
  return {};
}

Result<std::vector<Target>> find_targets(std::span<const std::string> texts) {
  std::vector<Target> targets;
  for (const std::string& text : texts) {
    Result<SocketAddress> address = address_of(text);
    if (!address.ok()) return Error{address.error()};
    targets.push_back({address.value(), is_loopback(address.value())});
  }
  return targets;
}

uint32_t local_ports_count() {
  std::ifstream file("/proc/sys/net/ipv4/ip_local_port_range");
  uint32_t first = 0;
  uint32_t last = 0;
  if (!(file >> first >> last) || last < first) return 28'232;  // The kernel's default range.
  return last - first + 1;
}

int open_socket_for(const Target& target, uint32_t local_index) noexcept {
  const int fd = socket(target.address.family(), SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
  if (fd < 0) return -errno;
  if (!target.is_loopback || local_index == 0) return fd;
  // The port is chosen by connect(2), when the peer is known: the same port may then serve several
  // peers.
  const int on = 1;
  setsockopt(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &on, sizeof(on));
  sockaddr_in local{};
  local.sin_family = AF_INET;
  local.sin_addr.s_addr = htonl(INADDR_LOOPBACK + local_index);
  if (bind(fd, reinterpret_cast<const sockaddr*>(&local), sizeof(local)) == 0) return fd;
  const int error = errno;
  close(fd);
  return -error;
}

}  // namespace helios::bench
