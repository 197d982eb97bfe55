// A pooler that the comparison does not know, described by a small TOML file:
//
//   [peer]
//   name = "odyssey"
//   command = ["/usr/bin/odyssey", "{config}"]
//   version_command = ["/usr/bin/odyssey", "--version"]   # optional
//   config = """..."""        # optional: a template, written to {config}
//   user = "postgres"         # optional: who it runs as when the comparison runs as root
//   clients_max = 256         # optional: rows with more clients are left out
//   unix_sockets = true       # optional: {server_host} may be the directory of a unix socket
//
// In command and config: {port} {server_host} {server_port} {dir} {config} {pool_size} {clients}
// {user} {database}. It must listen on 127.0.0.1 and stay in the foreground. As in heliosproxy's
// own file, ${NAME} is an environment variable and $$ a dollar.
#pragma once

#include <string>
#include <string_view>

#include "load/compare_peer.h"

namespace helios::bench {

// The error has a line for each mistake, with file, line and column.
[[nodiscard]] Result<Peer> parse_peer_file(std::string_view text, const std::string& file_name);
[[nodiscard]] Result<Peer> read_peer_file(const std::string& path);

}  // namespace helios::bench
