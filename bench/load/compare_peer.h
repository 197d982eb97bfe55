// The peers of the comparison: which poolers there are, in which variants, and how each is
// configured so that all do the same work.
//
// Everything here is plain data and text: nothing is started (see compare_process.h) and only
// find_peer() looks at the machine.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "helios/base/result.h"
#include "load/compare_row.h"

namespace helios::bench {

enum class PeerKind : uint8_t { heliosproxy, pgbouncer, pgpool2, haproxy, direct, custom };

// What a peer's file (--peer FILE) says: see peer_file.h.
struct CustomPeer {
  std::vector<std::string> command;
  std::vector<std::string> version_command;  // May be empty.
  std::string config;                        // Template; empty: none.
  std::string user;           // Who it runs as when we are root; empty: as the others.
  uint32_t clients_max = 0;   // 0: without limit.
  bool unix_sockets = false;  // {server_host} may be a directory.
};

struct Peer {
  std::string name;  // As the user wrote it: "pgbouncer:pkt_buf=65536".
  PeerKind kind = PeerKind::direct;
  uint32_t cores = 1;         // heliosproxy only.
  uint32_t pkt_buf = 0;       // pgbouncer only. Bytes; 0: its default.
  bool unix_sockets = false;  // To the server, in every row.
  bool unix_clients = false;  // From the clients, in every row: not direct, pgpool2 or custom.
  std::string program;        // Path; empty when it was not found.
  std::string version;        // First line of what it says.
  CustomPeer custom;
};

// "kind[:option]...": options are unix, unix-clients, cores=N (heliosproxy), pkt_buf=N (pgbouncer).
[[nodiscard]] Result<Peer> parse_peer(std::string_view text);

// Names and passwords of the clients.
struct Login {
  std::string user = "postgres";
  std::string password;  // Empty: none.
  std::string database = "postgres";
};

struct ServerPlace {
  std::string host;  // Or the directory of a unix socket.
  uint16_t port = 0;
  [[nodiscard]] bool is_unix() const noexcept { return host.starts_with('/'); }
};

// Where and for whom a peer is started.
struct PeerPlace {
  std::string directory;  // Its own, for its files.
  uint16_t port = 0;      // On 127.0.0.1; with unix_clients of a socket in `directory` too.
  ServerPlace server;
  Login login;
  bool scram = false;          // Clients must log in with SCRAM.
  std::string scram_verifier;  // Of `login.password`, when `scram`.
  uint32_t pool_size = 20;
  uint32_t clients = 1;  // Of the row.
};

struct PeerFile {
  std::string name;  // In `directory`.
  std::string text;
};

struct PeerSetup {
  std::vector<std::string> command;
  std::vector<PeerFile> files;
};

// Requires: the kind is not `direct`.
[[nodiscard]] PeerSetup make_setup(const Peer& peer, const PeerPlace& place);

// Why the peer does not take part in the row; empty when it does.
[[nodiscard]] std::string obstacle_of(const Peer& peer, const Row& row);

}  // namespace helios::bench
