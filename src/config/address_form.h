// The form of addresses: whether the text of a host or listen address can be one at all. No name is
// resolved; `net` parses the same texts again when it uses them. Pure.
#pragma once

#include <string>
#include <string_view>

namespace helios {

// What is wrong with the text, as a sentence; empty when nothing is.
//
// host:port, [v6]:port, or unix:/path/to/dir (perhaps with :port behind it).
[[nodiscard]] std::string listen_fault(std::string_view text);
// An address, a host name, or the absolute path of the directory of a unix socket.
[[nodiscard]] std::string host_fault(std::string_view text);

}  // namespace helios
