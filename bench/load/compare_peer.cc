#include "load/compare_peer.h"

#include <array>
#include <charconv>
#include <utility>

#include "helios/base/assert.h"
#include "helios/config/nearest.h"

namespace helios::bench {
namespace {

// pgpool-II has a process for each client: more than this is not what it is made for.
constexpr uint32_t pgpool_clients_max = 256;
constexpr uint32_t pgpool_spare_children = 8;

struct KindName {
  std::string_view name;
  PeerKind kind;
};
constexpr std::array<KindName, 5> kinds = {{{"heliosproxy", PeerKind::heliosproxy},
                                            {"pgbouncer", PeerKind::pgbouncer},
                                            {"pgpool2", PeerKind::pgpool2},
                                            {"haproxy", PeerKind::haproxy},
                                            {"direct", PeerKind::direct}}};

bool read_number(std::string_view text, uint32_t min, uint32_t max, uint32_t& target) {
  uint32_t number = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
  if (error != std::errc() || end != text.data() + text.size()) return false;
  if (number < min || number > max) return false;
  target = number;
  return true;
}

// Empty when the option was understood.
std::string read_option(Peer& peer, const std::string& option) {
  const size_t equals = option.find('=');
  const std::string key = option.substr(0, equals);
  const std::string value = equals == std::string::npos ? "" : option.substr(equals + 1);
  if (key == "unix" && equals == std::string::npos) {
    peer.unix_sockets = true;
    return {};
  }
  const bool may_have_unix_clients = peer.kind == PeerKind::heliosproxy ||
                                     peer.kind == PeerKind::pgbouncer ||
                                     peer.kind == PeerKind::haproxy;
  if (key == "unix-clients" && equals == std::string::npos && may_have_unix_clients) {
    peer.unix_clients = true;
    return {};
  }
  if (key == "cores" && peer.kind == PeerKind::heliosproxy)
    return read_number(value, 1, 256, peer.cores) ? "" : "cores needs a number from 1 to 256";
  if (key == "pkt_buf" && peer.kind == PeerKind::pgbouncer)
    return read_number(value, 256, 16 * 1024 * 1024, peer.pkt_buf)
               ? ""
               : "pkt_buf needs a number of bytes from 256 to 16777216";
  return "it has no option \"" + option +
         "\"; there are unix, unix-clients (heliosproxy, pgbouncer, haproxy), cores=N "
         "(heliosproxy) "
         "and pkt_buf=N (pgbouncer)";
}

// "PgBouncer 1.25.2". A version that cannot be read is taken for a new one.
bool pgbouncer_is_at_least(const Peer& peer, uint32_t major, uint32_t minor) {
  const size_t space = peer.version.find(' ');
  const size_t dot = peer.version.find('.', space == std::string::npos ? 0 : space);
  if (space == std::string::npos || dot == std::string::npos) return true;
  const char* const end = peer.version.data() + peer.version.size();
  uint32_t has_major = 0;
  uint32_t has_minor = 0;
  if (std::from_chars(peer.version.data() + space + 1, end, has_major).ec != std::errc() ||
      std::from_chars(peer.version.data() + dot + 1, end, has_minor).ec != std::errc())
    return true;
  return has_major > major || (has_major == major && has_minor >= minor);
}

// Some more than there are: connections of the last measurement may still be closing.
uint32_t connections_max(const PeerPlace& place) {
  return 2 * place.clients + 100;
}

// A TOML string for heliosproxy's configuration, where a dollar stands for a variable.
std::string toml_text(std::string_view text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"' || letter == '\\') result += '\\';
    if (letter == '$') result += '$';
    result += letter;
  }
  return result + "\"";
}

// For the list of users of pgbouncer, which doubles quotes.
std::string doubled(std::string_view text) {
  std::string result = "\"";
  for (const char letter : text) {
    if (letter == '"') result += '"';
    result += letter;
  }
  return result + "\"";
}

PeerSetup heliosproxy_setup(const Peer& peer, const PeerPlace& place) {
  std::string text =
      "[proxy]\nlisten = [\"127.0.0.1:" + std::to_string(place.port) + "\"" +
      (peer.unix_clients ? ", " + toml_text("unix:" + place.directory) : "") +
      "]\ncores = " + std::to_string(peer.cores) +
      "\nmax_clients = " + std::to_string(connections_max(place)) +
      "\nlog_level = \"error\"\n\n[pool]\nmax_connections = " + std::to_string(place.pool_size) +
      "\nidle_timeout = \"0s\"\nacquire_timeout = \"0s\"\n\n[[node]]\nname = "
      "\"main\"\nhost = " +
      toml_text(place.server.host) + "\nport = " + std::to_string(place.server.port) +
      "\n\n[[database]]\nname = \"*\"\nnode = \"main\"\n\n[[user]]\nname = " +
      toml_text(place.login.user) + "\n";
  // A verifier cannot log in anywhere, and need not: the server of such a row trusts.
  if (place.scram)
    text += "password = " + toml_text(place.scram_verifier) + "\n";
  else if (!place.login.password.empty())
    text += "auth = \"trust\"\npassword = " + toml_text(place.login.password) + "\n";
  else
    text += "auth = \"trust\"\n";
  return {{peer.program, "--config", place.directory + "/heliosproxy.toml"},
          {{"heliosproxy.toml", std::move(text)}}};
}

PeerSetup pgbouncer_setup(const Peer& peer, const PeerPlace& place) {
  std::string text =
      "[databases]\n* = host=" + place.server.host + " port=" + std::to_string(place.server.port) +
      "\n\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = " + std::to_string(place.port) +
      "\nunix_socket_dir = " + (peer.unix_clients ? place.directory : "") +
      "\npool_mode = transaction\ndefault_pool_size = " + std::to_string(place.pool_size) +
      "\nmax_client_conn = " + std::to_string(connections_max(place)) +
      "\nauth_type = " + (place.scram ? "scram-sha-256" : "trust") +
      "\nauth_file = " + place.directory + "/users.txt\nlogfile = " + place.directory +
      "/pgbouncer.log\nlog_connections = 0\nlog_disconnections = 0\nlog_stats = 0\n"
      "server_idle_timeout = 0\nserver_lifetime = 36000\n"
      "ignore_startup_parameters = extra_float_digits\n";
  // Statements by name are handed on since 1.21, and by default only since 1.24.
  if (pgbouncer_is_at_least(peer, 1, 21)) text += "max_prepared_statements = 200\n";
  if (peer.pkt_buf > 0) text += "pkt_buf = " + std::to_string(peer.pkt_buf) + "\n";
  const std::string& secret = place.scram ? place.scram_verifier : place.login.password;
  return {{peer.program, "-q", place.directory + "/pgbouncer.ini"},
          {{"pgbouncer.ini", std::move(text)},
           {"users.txt", doubled(place.login.user) + " " + doubled(secret) + "\n"}}};
}

PeerSetup pgpool_setup(const Peer& peer, const PeerPlace& place) {
  const std::string& directory = place.directory;
  const bool has_password = !place.login.password.empty();
  std::string text =
      "backend_clustering_mode = 'raw'\nlisten_addresses = '127.0.0.1'\nport = " +
      std::to_string(place.port) + "\nsocket_dir = '" + directory + "'\npcp_listen_addresses = ''" +
      "\npcp_socket_dir = '" + directory + "'\npid_file_name = '" + directory +
      "/pgpool.pid'\nlogdir = '" + directory + "'\nbackend_hostname0 = '" + place.server.host +
      "'\nbackend_port0 = " + std::to_string(place.server.port) +
      "\nbackend_flag0 = 'ALWAYS_PRIMARY'\nnum_init_children = " +
      std::to_string(place.clients + pgpool_spare_children) +
      "\nmax_pool = 1\nconnection_cache = on\nload_balance_mode = off\nhealth_check_period = 0\n"
      "sr_check_period = 0\ncheck_temp_table = none\ncheck_unlogged_table = off\n"
      "statement_level_load_balance = off\nchild_life_time = 0\nconnection_life_time = 0\n"
      "log_min_messages = error\nenable_pool_hba = " +
      (has_password ? "on\npool_passwd = 'pool_passwd'\n" : "off\n");
  const std::string method = place.scram ? "scram-sha-256" : "trust";
  return {{peer.program, "-n", "-f", directory + "/pgpool.conf", "-F", directory + "/pcp.conf",
           "-a", directory + "/pool_hba.conf"},
          {{"pgpool.conf", std::move(text)},
           {"pcp.conf", ""},
           {"pool_hba.conf", "host all all 127.0.0.1/32 " + method + "\n"},
           {"pool_passwd", place.login.user + ":TEXT" + place.login.password + "\n"}}};
}

PeerSetup haproxy_setup(const Peer& peer, const PeerPlace& place) {
  const std::string server =
      place.server.is_unix()
          ? "unix@" + place.server.host + "/.s.PGSQL." + std::to_string(place.server.port)
          : place.server.host + ":" + std::to_string(place.server.port);
  const std::string port = std::to_string(place.port);
  const std::string unix_bind =
      peer.unix_clients ? "  bind unix@" + place.directory + "/.s.PGSQL." + port + "\n" : "";
  std::string text =
      "global\n  nbthread 1\n  maxconn " + std::to_string(connections_max(place)) +
      "\ndefaults\n  mode tcp\n  timeout connect 5s\n"
      "  timeout client 1h\n  timeout server 1h\nlisten postgresql\n  bind 127.0.0.1:" +
      port + "\n" + unix_bind + "  server main " + server + "\n";
  return {{peer.program, "-db", "-f", place.directory + "/haproxy.cfg"},
          {{"haproxy.cfg", std::move(text)}}};
}

// Replaces each {name}; what is no known name stays as it is.
std::string filled(std::string_view text, const PeerPlace& place) {
  const std::array<std::pair<std::string_view, std::string>, 9> values = {
      {{"{port}", std::to_string(place.port)},
       {"{server_host}", place.server.host},
       {"{server_port}", std::to_string(place.server.port)},
       {"{dir}", place.directory},
       {"{config}", place.directory + "/peer.conf"},
       {"{pool_size}", std::to_string(place.pool_size)},
       {"{clients}", std::to_string(place.clients)},
       {"{user}", place.login.user},
       {"{database}", place.login.database}}};
  std::string result;
  while (!text.empty()) {
    bool was_replaced = false;
    for (const auto& [name, value] : values) {
      if (!text.starts_with(name)) continue;
      result += value;
      text.remove_prefix(name.size());
      was_replaced = true;
      break;
    }
    if (was_replaced) continue;
    result += text.front();
    text.remove_prefix(1);
  }
  return result;
}

PeerSetup custom_setup(const Peer& peer, const PeerPlace& place) {
  PeerSetup setup;
  for (const std::string& word : peer.custom.command) setup.command.push_back(filled(word, place));
  setup.command.front() = peer.program;
  if (!peer.custom.config.empty())
    setup.files.push_back({"peer.conf", filled(peer.custom.config, place)});
  return setup;
}

}  // namespace

Result<Peer> parse_peer(std::string_view text) {
  const std::vector<std::string> parts = split_list(text, ':');
  if (parts.empty()) return Error{"a peer has no name"};
  Peer peer;
  peer.name = text;
  std::vector<std::string_view> names;
  bool is_known = false;
  for (const KindName& kind : kinds) {
    names.push_back(kind.name);
    if (kind.name != parts.front()) continue;
    peer.kind = kind.kind;
    is_known = true;
  }
  if (!is_known)
    return Error{"\"" + parts.front() + "\" is no peer (others: --peer FILE)" +
                 suggestion(parts.front(), names)};
  for (size_t i = 1; i < parts.size(); ++i) {
    const std::string problem = read_option(peer, parts[i]);
    if (!problem.empty()) return Error{"peer \"" + peer.name + "\": " + problem};
  }
  return peer;
}

PeerSetup make_setup(const Peer& peer, const PeerPlace& place) {
  switch (peer.kind) {
    case PeerKind::heliosproxy:
      return heliosproxy_setup(peer, place);
    case PeerKind::pgbouncer:
      return pgbouncer_setup(peer, place);
    case PeerKind::pgpool2:
      return pgpool_setup(peer, place);
    case PeerKind::haproxy:
      return haproxy_setup(peer, place);
    case PeerKind::custom:
      return custom_setup(peer, place);
    case PeerKind::direct:
      break;
  }
  UNREACHABLE("a direct peer has no setup");
}

std::string obstacle_of(const Peer& peer, const Row& row) {
  const bool is_direct = peer.kind == PeerKind::direct;
  if (row.kind == RowKind::memory && is_direct) return "no pooler, so no memory of one";
  if (row.scram && (is_direct || peer.kind == PeerKind::haproxy))
    return "does not check passwords itself";
  if (row.scram && peer.kind == PeerKind::custom)
    return "peers from a file are measured without passwords";
  if (row.mode == QueryMode::prepared && peer.kind == PeerKind::pgbouncer &&
      !pgbouncer_is_at_least(peer, 1, 21))
    return "knows no prepared statements by name before its version 1.21";
  if (peer.kind == PeerKind::pgpool2 && row.clients > pgpool_clients_max)
    return "has a process for each client; not run above " + std::to_string(pgpool_clients_max);
  const uint32_t clients_max = peer.custom.clients_max;
  if (clients_max > 0 && row.clients > clients_max)
    return "its file allows " + std::to_string(clients_max) + " clients";
  if (row.unix_sockets && peer.kind == PeerKind::custom && !peer.custom.unix_sockets)
    return "its file has unix_sockets = false";
  return {};
}

}  // namespace helios::bench
