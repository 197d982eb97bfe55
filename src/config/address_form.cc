#include "config/address_form.h"

#include <arpa/inet.h>
#include <sys/un.h>

#include <algorithm>
#include <optional>

#include "config/units.h"

namespace helios {
namespace {

constexpr std::string_view unix_prefix = "unix:";

// The longest directory whose socket name, "/.s.PGSQL.65535" and the final zero, still fits a
// sockaddr_un.
constexpr size_t socket_directory_size_max =
    sizeof(sockaddr_un::sun_path) - sizeof("/.s.PGSQL.65535");

bool is_address(int family, std::string_view text) {
  unsigned char address[sizeof(in6_addr)];
  return inet_pton(family, std::string(text).c_str(), address) == 1;
}

bool is_port(std::string_view text) noexcept {
  if (text.find_first_not_of("0123456789") != std::string_view::npos) return false;
  const std::optional<int64_t> port = parse_whole(text);
  return port.has_value() && *port >= 1 && *port <= 65535;
}

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

std::string directory_fault(std::string_view path) {
  if (!path.starts_with('/')) {
    return "\"" + std::string(path) +
           "\" is no absolute path: the directory of a unix socket begins with /";
  }
  if (path.size() <= socket_directory_size_max) return {};
  return "the path of a socket directory may have " + std::to_string(socket_directory_size_max) +
         " bytes, this one has " + std::to_string(path.size());
}

// `what` is the whole text, for the message.
std::string tcp_host_fault(std::string_view host, std::string_view what) {
  const bool is_numeric = host.find_first_not_of("0123456789.") == std::string_view::npos;
  if (is_numeric ? is_address(AF_INET, host) : is_host_name(host)) return {};
  return "\"" + std::string(what) + "\": \"" + std::string(host) + "\" is no " +
         (is_numeric ? "IPv4 address" : "host name or address");
}

}  // namespace

std::string listen_fault(std::string_view text) {
  if (text.starts_with(unix_prefix)) return directory_fault(text.substr(unix_prefix.size()));
  const std::string shown = "\"" + std::string(text) + "\"";
  const size_t colon = text.rfind(':');
  if (colon == std::string_view::npos) {
    return shown + " has no port: write host:port, [v6]:port, or unix:/path/to/dir";
  }
  const std::string_view host = text.substr(0, colon);
  if (!is_port(text.substr(colon + 1)))
    return shown + ": the port behind the last colon is out of range: 1 to 65535";
  if (host.empty() || host == "*")
    return shown + ": write 0.0.0.0 for every IPv4 address, or [::] for every address";
  if (host.starts_with('[') && host.ends_with(']')) {
    const std::string_view inner = host.substr(1, host.size() - 2);
    return is_address(AF_INET6, inner) ? "" : shown + ": no IPv6 address between the brackets";
  }
  if (host.find(':') != std::string_view::npos)
    return shown + ": an IPv6 address stands in brackets, [v6]:port";
  return tcp_host_fault(host, text);
}

std::string host_fault(std::string_view text) {
  if (text.starts_with('/')) return directory_fault(text);
  const std::string shown = "\"" + std::string(text) + "\"";
  if (text.starts_with(unix_prefix))
    return shown + ": the directory of a unix socket is written without \"unix:\" here";
  if (text.starts_with('[')) return shown + ": an IPv6 address is written without brackets here";
  const size_t colon_count = static_cast<size_t>(std::count(text.begin(), text.end(), ':'));
  if (colon_count == 1) return shown + ": the port has a key of its own, port";
  if (colon_count > 1) return is_address(AF_INET6, text) ? "" : shown + " is no IPv6 address";
  return tcp_host_fault(text, text);
}

}  // namespace helios
