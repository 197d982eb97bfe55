#include "load/compare_peer.h"

#include <doctest/doctest.h>

#include "helios/config/loader.h"
#include "load/peer_file.h"

namespace helios::bench {
namespace {

Peer peer_of(std::string_view text) {
  Result<Peer> peer = parse_peer(text);
  REQUIRE_MESSAGE(peer.ok(), text);
  peer.value().program = "/bin/program";
  return peer.value();
}

std::string error_of(std::string_view text) {
  const Result<Peer> peer = parse_peer(text);
  REQUIRE_FALSE(peer.ok());
  return peer.error();
}

PeerPlace place_of(const std::string& host) {
  PeerPlace place;
  place.directory = "/dir";
  place.port = 6543;
  place.server = {host, 7654};
  place.clients = 64;
  return place;
}

const std::string& file_of(const PeerSetup& setup, const std::string& name) {
  for (const PeerFile& file : setup.files)
    if (file.name == name) return file.text;
  FAIL("no file " << name);
  return setup.files.front().text;
}

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Config loaded(const std::string& text) {
  const LoadResult result = load_config_text(text, "heliosproxy.toml", process_environment);
  for (const std::string& error : result.errors) MESSAGE(error);
  REQUIRE(result.config.has_value());
  return *result.config;
}

TEST_CASE("a peer is a name and options") {
  CHECK(peer_of("haproxy").kind == PeerKind::haproxy);
  CHECK(peer_of("heliosproxy:cores=3:unix").cores == 3);
  CHECK(peer_of("heliosproxy:cores=3:unix").unix_sockets);
  CHECK(peer_of("pgbouncer:pkt_buf=65536").pkt_buf == 65536);
  CHECK(peer_of("pgbouncer:pkt_buf=65536").name == "pgbouncer:pkt_buf=65536");
}

TEST_CASE("a wrong peer is refused with the reason") {
  CHECK(has(error_of("pgbounser"), "did you mean \"pgbouncer\"?"));
  CHECK(has(error_of("haproxy:cores=2"), "no option \"cores=2\""));
  CHECK(has(error_of("heliosproxy:cores=0"), "from 1 to 256"));
  CHECK(has(error_of("pgbouncer:pkt_buf=4k"), "pkt_buf needs a number"));
  CHECK(has(error_of("pgbouncer:unix=yes"), "no option \"unix=yes\""));
  CHECK(has(error_of(""), "no name"));
}

TEST_CASE("heliosproxy's configuration is one that it accepts") {
  PeerPlace place = place_of("127.0.0.1");
  const PeerSetup setup = make_setup(peer_of("heliosproxy:cores=2"), place);
  CHECK(setup.command ==
        std::vector<std::string>{"/bin/program", "--config", "/dir/heliosproxy.toml"});
  const Config config = loaded(file_of(setup, "heliosproxy.toml"));
  CHECK(config.proxy.cores == 2);
  CHECK(config.proxy.max_clients > 64);
  CHECK(config.pool.max_connections == 20);
  CHECK(config.nodes.front().port == 7654);
  CHECK(config.users.front().auth == ClientAuth::trust);
}

TEST_CASE("heliosproxy's configuration holds odd names and passwords") {
  PeerPlace place = place_of("/run/a socket");
  place.login.user = "a\"b\\c$d";
  place.login.password = "${HOME}$";
  const Config config =
      loaded(file_of(make_setup(peer_of("heliosproxy"), place), "heliosproxy.toml"));
  CHECK(config.nodes.front().host == "/run/a socket");
  CHECK(config.users.front().name == "a\"b\\c$d");
  CHECK(config.users.front().password == "${HOME}$");
  CHECK(config.users.front().auth == ClientAuth::trust);
}

TEST_CASE("where clients log in with SCRAM, poolers have the verifier") {
  PeerPlace place = place_of("127.0.0.1");
  place.scram = true;
  place.login.password = "secret";
  place.scram_verifier =
      "SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$WG5d8oPm3OtcPnkdi4Uo7BkeZkBFzpcXkuLmtbsT4qY=:"
      "wfPLwcE6nTWhTAmQ7tl2KeoiWGPlZqQxSrmfPwDl2dU=";
  const Config config =
      loaded(file_of(make_setup(peer_of("heliosproxy"), place), "heliosproxy.toml"));
  CHECK(config.users.front().auth == ClientAuth::scram_sha_256);
  CHECK(config.users.front().password == place.scram_verifier);
  const PeerSetup pgbouncer = make_setup(peer_of("pgbouncer"), place);
  CHECK(has(file_of(pgbouncer, "pgbouncer.ini"), "auth_type = scram-sha-256\n"));
  CHECK(file_of(pgbouncer, "users.txt") == "\"postgres\" \"" + place.scram_verifier + "\"\n");
  const PeerSetup pgpool = make_setup(peer_of("pgpool2"), place);
  CHECK(has(file_of(pgpool, "pool_hba.conf"), "scram-sha-256"));
  CHECK(file_of(pgpool, "pool_passwd") == "postgres:TEXTsecret\n");
}

TEST_CASE("pgbouncer gets the pool, the packet size and the address") {
  const PeerSetup setup = make_setup(peer_of("pgbouncer:pkt_buf=65536"), place_of("/sockets"));
  const std::string& text = file_of(setup, "pgbouncer.ini");
  CHECK(has(text, "* = host=/sockets port=7654\n"));
  CHECK(has(text, "listen_port = 6543\n"));
  CHECK(has(text, "default_pool_size = 20\n"));
  CHECK(has(text, "pkt_buf = 65536\n"));
  CHECK_FALSE(
      has(file_of(make_setup(peer_of("pgbouncer"), place_of("h")), "pgbouncer.ini"), "pkt_buf"));
}

TEST_CASE("haproxy reaches unix sockets by the name that PostgreSQL gives them") {
  const std::string by_unix =
      file_of(make_setup(peer_of("haproxy"), place_of("/sockets")), "haproxy.cfg");
  CHECK(has(by_unix, "server main unix@/sockets/.s.PGSQL.7654\n"));
  const std::string by_tcp =
      file_of(make_setup(peer_of("haproxy"), place_of("10.0.0.1")), "haproxy.cfg");
  CHECK(has(by_tcp, "server main 10.0.0.1:7654\n"));
}

TEST_CASE("clients may come by a unix socket, named as PostgreSQL names them") {
  const Peer heliosproxy = peer_of("heliosproxy:unix-clients");
  CHECK_FALSE(heliosproxy.unix_sockets);
  const Config config =
      loaded(file_of(make_setup(heliosproxy, place_of("127.0.0.1")), "heliosproxy.toml"));
  CHECK(config.proxy.listen == std::vector<std::string>{"127.0.0.1:6543", "unix:/dir"});
  const PeerSetup pgbouncer = make_setup(peer_of("pgbouncer:unix-clients"), place_of("127.0.0.1"));
  CHECK(has(file_of(pgbouncer, "pgbouncer.ini"), "unix_socket_dir = /dir\n"));
  const PeerSetup haproxy = make_setup(peer_of("haproxy:unix-clients"), place_of("127.0.0.1"));
  CHECK(has(file_of(haproxy, "haproxy.cfg"), "bind unix@/dir/.s.PGSQL.6543\n"));
  CHECK(has(error_of("direct:unix-clients"), "no option \"unix-clients\""));
}

TEST_CASE("pgpool-II has a process for each client of the row") {
  const PeerSetup setup = make_setup(peer_of("pgpool2"), place_of("127.0.0.1"));
  CHECK(has(file_of(setup, "pgpool.conf"), "num_init_children = 72\n"));
}

TEST_CASE("rows that a peer cannot do are left out with the reason") {
  Row row;
  row.clients = 1000;
  CHECK(has(obstacle_of(peer_of("pgpool2"), row), "not run above 256"));
  CHECK(obstacle_of(peer_of("pgbouncer"), row).empty());
  row.scram = true;
  CHECK_FALSE(obstacle_of(peer_of("haproxy"), row).empty());
  CHECK_FALSE(obstacle_of(peer_of("direct"), row).empty());
  CHECK(obstacle_of(peer_of("heliosproxy"), row).empty());
  row = {};
  row.kind = RowKind::memory;
  CHECK_FALSE(obstacle_of(peer_of("direct"), row).empty());
}

TEST_CASE("PgBouncer takes part in prepared statements from the version that knows them") {
  Row row;
  row.mode = QueryMode::prepared;
  Peer peer = peer_of("pgbouncer");
  for (const char* version : {"PgBouncer 1.18.0", "PgBouncer 1.20.1", "PgBouncer 0.99"}) {
    peer.version = version;
    CHECK(has(obstacle_of(peer, row), "before its version 1.21"));
    const PeerSetup setup = make_setup(peer, place_of("127.0.0.1"));
    CHECK_FALSE(has(file_of(setup, "pgbouncer.ini"), "max_prepared_statements"));
  }
  for (const char* version : {"PgBouncer 1.21.0", "PgBouncer 1.25.2", "PgBouncer 2.0", "", "odd"}) {
    peer.version = version;
    CHECK(obstacle_of(peer, row).empty());
    const PeerSetup setup = make_setup(peer, place_of("127.0.0.1"));
    CHECK(has(file_of(setup, "pgbouncer.ini"), "max_prepared_statements = 200\n"));
  }
  row.mode = QueryMode::extended;
  peer.version = "PgBouncer 1.18.0";
  CHECK(obstacle_of(peer, row).empty());
}

// ---------------------------------------------------------------- files of peers

constexpr const char* good_file = R"(
[peer]
name = "other"
command = ["/bin/other", "-c", "{config}", "{port}"]
config = """
listen {port} server {server_host}:{server_port} in {dir}
pool {pool_size} for {clients} as {user}@{database}, {unknown} {"""
user = "nobody"
clients_max = 100
)";

TEST_CASE("a peer's file becomes a command and a configuration") {
  const Result<Peer> read = parse_peer_file(good_file, "other.toml");
  REQUIRE(read.ok());
  Peer peer = read.value();
  CHECK(peer.name == "other");
  CHECK(peer.custom.user == "nobody");
  peer.program = "/usr/bin/other";
  const PeerSetup setup = make_setup(peer, place_of("127.0.0.1"));
  CHECK(setup.command ==
        std::vector<std::string>{"/usr/bin/other", "-c", "/dir/peer.conf", "6543"});
  CHECK(file_of(setup, "peer.conf") ==
        "listen 6543 server 127.0.0.1:7654 in /dir\n"
        "pool 20 for 64 as postgres@postgres, {unknown} {");
}

TEST_CASE("a peer's file limits its rows") {
  const Result<Peer> peer = parse_peer_file(good_file, "other.toml");
  REQUIRE(peer.ok());
  Row row;
  row.clients = 100;
  CHECK(obstacle_of(peer.value(), row).empty());
  row.clients = 101;
  CHECK(has(obstacle_of(peer.value(), row), "100 clients"));
  row.clients = 1;
  row.unix_sockets = true;
  CHECK(has(obstacle_of(peer.value(), row), "unix_sockets"));
}

TEST_CASE("mistakes in a peer's file are told with their place") {
  const auto error = [](std::string_view text) {
    const Result<Peer> peer = parse_peer_file(text, "p.toml");
    REQUIRE_FALSE(peer.ok());
    return peer.error();
  };
  CHECK(has(error("[peer]\nname = \"a\"\n"), "peer.command: is missing"));
  CHECK(has(error("[peer]\ncommand = [\"a\"]\n"), "peer.name: is missing"));
  CHECK(has(error("[peer]\nname = \"a/b\"\ncommand = [\"a\"]\n"), "p.toml:2:"));
  CHECK(has(error("[peer]\nname = \"a\"\ncommand = [\"a\"]\nuzer = \"x\"\n"), "p.toml:4:"));
  CHECK(has(error("[peer]\nname = \"a\"\ncommand = \"a\"\n"), "peer.command"));
  CHECK(has(error("[pear]\nname = \"a\"\n"), "pear: is unknown"));
  CHECK(has(error(""), "is missing"));
  CHECK(has(error("[peer\n"), "p.toml:1:"));
  CHECK(has(read_peer_file("/nonexistent/p.toml").error(), "/nonexistent/p.toml"));
}

}  // namespace
}  // namespace helios::bench
