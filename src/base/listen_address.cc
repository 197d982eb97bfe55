#include "helios/base/listen_address.h"

#include <optional>
#include <string_view>

namespace helios {
namespace {

using ListenAddresses = std::vector<ListenAddress>;

constexpr std::string_view listen_forms =
    "127.0.0.1:6432, [::1]:6432, localhost:6432 or unix:/path/to/dir";

// The address and the port of a text; both views into it. No port: there is no colon.
struct HostPort {
  std::string_view host;
  std::optional<std::string_view> port;
};

HostPort split_at_last_colon(std::string_view text) {
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) return {text, std::nullopt};
  return {text.substr(0, colon), text.substr(colon + 1)};
}

// Parses one listen address behind another. Lives for one call of the functions below.
class ListenParser {
 public:
  // A unix socket without a port of its own has that of the first TCP address.
  ListenParser(std::span<const std::string> texts, uint16_t port_min) : port_min_(port_min) {
    for (const std::string& text : texts) {
      if (text.starts_with(unix_prefix)) continue;
      const uint16_t port = parse_port(split_at_last_colon(text).port.value_or("")).value_or(0);
      if (port == 0) continue;
      unix_port_ = port;
      return;
    }
  }

  // Adds its addresses. What is wrong with it, behind its quotation; empty when nothing is.
  [[nodiscard]] std::string add(const std::string& text) {
    return text.starts_with(unix_prefix) ? add_unix(text) : add_tcp(text);
  }
  [[nodiscard]] ListenAddresses take() { return std::move(all_); }

 private:
  [[nodiscard]] std::string add_tcp(const std::string& text);
  [[nodiscard]] std::string add_unix(const std::string& text);
  [[nodiscard]] std::string add_one(ListenAddress address);
  [[nodiscard]] std::string wrong_port() const {
    return ": the port behind the last colon is out of range: " + std::to_string(port_min_) +
           " to 65535";
  }

  const uint16_t port_min_;
  uint16_t unix_port_ = default_listen_port;
  ListenAddresses all_;
};

std::string ListenParser::add_tcp(const std::string& text) {
  const auto [host, port_text] = split_at_last_colon(text);
  if (!port_text) return " has no port: write " + std::string(listen_forms);
  const std::optional<uint16_t> port = parse_port(*port_text);
  if (!port || *port < port_min_) return wrong_port();
  if (host.empty() || host == "*") {
    return ": write 0.0.0.0 for every IPv4 address, [::] for every IPv6 address (list both for "
           "all)";
  }
  if (host == "localhost") {
    std::string fault = add_one({*parse_ipv4("127.0.0.1", *port), text, false});
    // A port that the kernel chooses would be another one.
    if (fault.empty() && *port != 0) fault = add_one({*parse_ipv6("::1", *port), text, true});
    return fault;
  }
  if (host.starts_with('[') && host.ends_with(']')) {
    const std::optional<SocketAddress> address = parse_ipv6(host.substr(1, host.size() - 2), *port);
    return address ? add_one({*address, text, false})
                   : ": no IPv6 address between the brackets (a scope must be an interface)";
  }
  if (host.find(':') != std::string_view::npos)
    return ": an IPv6 address stands in brackets, [v6]:port";
  const std::optional<SocketAddress> address = parse_ipv4(host, *port);
  if (address) return add_one({*address, text, false});
  return ": \"" + std::string(host) + "\" is no IPv4 address, and no name but localhost is known " +
         "here: write " + std::string(listen_forms);
}

std::string ListenParser::add_unix(const std::string& text) {
  auto [directory, port_text] =
      split_at_last_colon(std::string_view(text).substr(unix_prefix.size()));
  if (!directory.starts_with('/'))
    return ": no absolute path: the directory of a unix socket begins with /";
  uint16_t port = unix_port_;
  if (port_text) {
    port = parse_port(*port_text).value_or(0);
    if (port == 0) return ": behind the directory there must be a port from 1 to 65535, or nothing";
  }
  const Result<SocketAddress> address = unix_socket_address(directory, port);
  return address.ok() ? add_one({address.value(), text, false}) : ": " + address.error();
}

std::string ListenParser::add_one(ListenAddress address) {
  const bool is_chosen_by_kernel =
      address.address.port() == 0 && address.address.family() != AF_UNIX;
  for (const ListenAddress& other : all_) {
    if (is_chosen_by_kernel || other.address != address.address) continue;
    return " is given twice" +
           (other.text == address.text ? std::string() : ", first as \"" + other.text + "\"");
  }
  all_.push_back(std::move(address));
  return {};
}

// Behind the quotation.
std::string with_text(const std::string& text, const std::string& fault) {
  return "\"" + text + "\"" + fault;
}

}  // namespace

std::vector<std::string> listen_faults(std::span<const std::string> texts) {
  ListenParser parser(texts, 1);
  std::vector<std::string> faults;
  for (const std::string& text : texts) {
    const std::string fault = parser.add(text);
    faults.push_back(fault.empty() ? "" : with_text(text, fault));
  }
  return faults;
}

Result<std::vector<ListenAddress>> parse_listen_addresses(std::span<const std::string> texts) {
  ListenParser parser(texts, 0);
  for (const std::string& text : texts) {
    const std::string fault = parser.add(text);
    if (!fault.empty()) return Error{"listen address " + with_text(text, fault)};
  }
  return parser.take();
}

}  // namespace helios
