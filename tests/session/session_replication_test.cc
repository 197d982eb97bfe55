// Replication connections: each with a backend of its own, counted like others and shared by
// nobody.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

using Parameters = std::vector<std::pair<std::string, std::string>>;

const Parameters logical = {{"replication", "database"}};
const std::string stream_query = query_message("START_REPLICATION SLOT s LOGICAL 0/0");

std::string copy_data(std::string_view text) {
  return frame('d', text);
}

TestClient replica(SessionBench& bench, CoreId core = 0, const Parameters& parameters = logical) {
  return TestClient(bench, core, "me", parameters);
}

// The connections that are replication connections, in the order of their making.
std::vector<ServerSession*> walsenders(SessionBench& bench) {
  std::vector<ServerSession*> found = bench.server.open_sessions();
  std::erase_if(found, [](ServerSession* one) { return !one->startup().contains("replication"); });
  return found;
}

PoolFigures figures_of(SessionBench& bench) {
  PoolFigures all;
  for (CoreId id = 0; id < bench.options.cores_count; ++id)
    all.add(bench.core(id).pools.statistics().total);
  return all;
}

SharedLimit& connections_of(SessionBench& bench) {
  return *bench.slice().spec().shared->connections->limit;
}

bool has_terminate(const ServerSession& server) {
  return server.tags().find('X') != std::string::npos;
}

TEST_CASE("a replication connection has a backend of its own before its welcome, made for it") {
  SessionBench bench;
  TestClient ordinary(bench, 0, "me");
  bench.server.holds_logins = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db",
                              {{"replication", "database"},
                               {"application_name",
                                "s\xc3\xbc"
                                "b"},
                               {"DateStyle", "ISO"},
                               {"extra_float_digits", "3"}}));
  CHECK(client.take_tags() == "R");
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(client.take_tags() == "SSSSSSKZ");
  REQUIRE(bench.server.open_sessions().size() == 2);
  const ServerSession& server = *bench.server.open_sessions()[1];
  CHECK(server.user() == "me");
  CHECK(server.database() == "db");
  CHECK(server.startup() == std::map<std::string, std::string>{{"replication", "database"},
                                                               {"application_name",
                                                                "s\xc3\xbc"
                                                                "b"},
                                                               {"DateStyle", "ISO"},
                                                               {"extra_float_digits", "3"}});
  // Nothing was sent by the pooler itself.
  client.query("IDENTIFY_SYSTEM");
  CHECK(client.take_tags() == "TDCZ");
  CHECK(server.tags() == "Q");
}

TEST_CASE("every spelling of replication asks for it, and those for no are ordinary") {
  for (const char* yes : {"true", "on", "yes", "1", "TRUE"}) {
    SessionBench bench;
    TestClient client = replica(bench, 0, {{"replication", yes}});
    CHECK(bench.server.only().startup().at("replication") == "true");
    CHECK(bench.server.only().database() == "replication");
  }
  for (const char* no : {"false", "off", "no", "0"}) {
    SessionBench bench;
    TestClient client = replica(bench, 0, {{"replication", no}});
    CHECK_FALSE(bench.server.only().startup().contains("replication"));
    CHECK(bench.server.only().database() == "db");
  }
}

TEST_CASE("physical replication needs a database that is called replication, or any") {
  SessionBench bench;
  bench.directory.removed_databases.insert("replication");
  TestClient client(bench);
  client.write(startup_packet("me", "db", {{"replication", "true"}}));
  CHECK(client.take_error() == "3D000");
  CHECK(client.is_closed());
  TestClient stranger(bench);
  stranger.write(startup_packet("stranger", "db", {{"replication", "true"}}));
  CHECK(stranger.take_tags() == "R");
}

TEST_CASE("a backend of a replication connection ends with it and is used by nobody else") {
  for (const bool says_goodbye : {true, false}) {
    SessionBench bench(with_backends(3));
    TestClient client = replica(bench);
    ServerSession& first = bench.server.only();
    client.query("IDENTIFY_SYSTEM");
    CHECK(client.take_tags() == "TDCZ");
    if (says_goodbye) client.write(frame('X', {}));
    client.close();
    CHECK_FALSE(first.is_open());
    CHECK(first.tags() == "QX");  // No DISCARD ALL, no ROLLBACK.
    CHECK(bench.server.cancels().empty());
    CHECK(figures_of(bench).counters.closes[CloseReason::single_use] == 1);
    CHECK(figures_of(bench).gauges.total() == 0);
    TestClient next = replica(bench);
    CHECK(bench.server.sessions().size() == 2);
    // And an idle one of the pool is none of theirs.
    TestClient ordinary(bench, 0, "me");
    ordinary.query("a");
    CHECK(ordinary.take_tags() == "TDCZ");
    CHECK(bench.slice().idle_count() == 1);
    TestClient third = replica(bench);
    CHECK(walsenders(bench).size() == 2);
    CHECK(bench.slice().idle_count() == 1);
  }
}

TEST_CASE("a stream goes both ways until both sides have ended it, and the next command follows") {
  SessionBench bench;
  TestClient client = replica(bench);
  ServerSession& server = bench.server.only();
  client.write(stream_query);
  CHECK(client.take_tags() == "W");
  for (int i = 0; i < 3; ++i) {
    server.write(copy_data("wal") + copy_data("more wal"));
    client.write(copy_data("feedback"));
    CHECK(client.take_tags() == "dd");
  }
  CHECK(server.tags() == "Qddd");
  // The server sends what it has on its way behind the client's end.
  client.write_later(copy_data("last") + frame('c', {}));
  server.write(copy_data("late"));
  bench.settle();
  CHECK(client.take_tags() == "dcCZ");
  CHECK(server.tags() == "Qddddc");
  client.query("IDENTIFY_SYSTEM");
  CHECK(client.take_tags() == "TDCZ");

  // The server ends first, as at the end of a timeline; a row tells where it goes on.
  client.write(stream_query);
  CHECK(client.take_tags() == "W");
  server.is_silent = true;
  server.write(copy_data("wal") + frame('c', {}));
  bench.settle();
  CHECK(client.take_tags() == "dc");
  client.write(copy_data("feedback") + frame('c', {}));
  server.write(echo("2") + complete("START_REPLICATION") + ready());
  bench.settle();
  CHECK(client.take_tags() == "TDCCZ");
  server.is_silent = false;
  CHECK(server.tags().ends_with("Qdc"));
}

TEST_CASE("an error ends a stream, and what the client had on its way is dropped") {
  SessionBench bench;
  TestClient client = replica(bench);
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(stream_query);
  server.write(frame('W', std::string(3, '\0')) + copy_data("wal"));
  bench.settle();
  CHECK(client.take_tags() == "Wd");
  server.write(error_reply("ERROR", "58P01", "segment has been removed") + ready());
  bench.settle();
  CHECK(client.take_error() == "58P01");
  client.write(copy_data("feedback") + frame('c', {}));
  server.is_silent = false;
  client.query("IDENTIFY_SYSTEM");
  CHECK(client.take_tags() == "TDCZ");
  CHECK(server.tags() == "QQ");
}

TEST_CASE(
    "a client that goes in a stream costs its server a Terminate, in a command a cancel too") {
  for (const bool is_streaming : {true, false}) {
    SessionBench bench;
    TestClient client = replica(bench);
    ServerSession& server = bench.server.only();
    if (is_streaming) {
      client.write(stream_query);
      server.write(copy_data("wal"));
    } else {
      server.is_silent = true;
      client.query("BASE_BACKUP");
      server.write(frame('H', std::string(3, '\0')) + copy_data("file"));
    }
    bench.settle();
    client.close();
    CHECK(bench.server.cancels().size() == (is_streaming ? 0 : 1));
    CHECK(has_terminate(server));
    server.end();
    bench.settle();
    CHECK(bench.node.limit.taken() == 0);
  }
}

TEST_CASE("a client that sends in a stream is read although it does not read itself") {
  SessionBench bench;
  TestClient client = replica(bench);
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(stream_query);
  std::string sent = frame('W', std::string(3, '\0'));
  for (int i = 0; i < 500; ++i) sent += copy_data(std::string(8000, 'w'));
  server.write(sent);
  bench.settle();
  // The client has not read: what is kept here is bounded.
  CHECK(bench.core().chunks.lent_count() < 300);
  CHECK_FALSE(bench.core().io.is_in_flight(server.fd(), OpKind::recv));
  for (int i = 0; i < 20; ++i) client.write(copy_data("feedback"));
  CHECK(server.tags() == "Q" + std::string(20, 'd'));
  std::string got;
  for (int i = 0; i < 1000 && got.size() < sent.size(); ++i) {
    got += client.take_bytes();
    bench.settle();
  }
  CHECK(got == sent);
}

TEST_CASE("a client in a stream whose server does not read is paused, and loses nothing") {
  SessionBench bench;
  TestClient client = replica(bench);
  ServerSession& server = bench.server.only();
  client.write(stream_query);
  CHECK(client.take_tags() == "W");
  server.is_deaf = true;
  const std::string block = copy_data(std::string(8000, 'f'));
  for (int i = 0; i < 500; ++i) client.write_later(block);
  bench.settle();
  CHECK(bench.core().chunks.lent_count() < 300);
  // What the server sends comes all the same.
  server.write(copy_data("wal"));
  bench.settle();
  CHECK(client.take_tags() == "d");
  server.is_deaf = false;
  bench.settle();
  CHECK(server.tags() == "Q" + std::string(500, 'd'));
}

TEST_CASE("replication counts in the pool's limit, and an idle connection makes room for it") {
  for (const CoreId cores : {CoreId{1}, CoreId{3}}) {
    SessionBench bench(with_backends(2, cores));
    std::vector<TestClient> ordinary;
    for (int i = 0; i < 2; ++i) ordinary.emplace_back(bench, static_cast<CoreId>(i % cores), "me");
    for (TestClient& client : ordinary) client.query("BEGIN");
    for (TestClient& client : ordinary) client.query("COMMIT");
    CHECK(bench.server.open_sessions().size() == 2);
    TestClient first = replica(bench, static_cast<CoreId>(cores - 1));
    CHECK(figures_of(bench).counters.closes[CloseReason::made_room] == 1);
    CHECK(bench.server.open_sessions().size() == 2);
    TestClient second = replica(bench);
    CHECK(walsenders(bench).size() == 2);
    CHECK(bench.server.open_sessions().size() == 2);
    CHECK(connections_of(bench).taken() == 2);
    CHECK(figures_of(bench).counters.closes[CloseReason::made_room] == 2);
    // The pool is full of them: everybody waits, for as long as others would.
    TestClient third(bench);
    third.write(startup_packet("me", "db", logical));
    ordinary[0].query("a");
    bench.advance_in_steps(seconds(5), milliseconds(100));
    CHECK(third.take_tags() == "R");
    CHECK(ordinary[0].take_tags() == "CZCZ");
    first.close();
    bench.advance_in_steps(seconds(1), milliseconds(100));
    second.close();
    bench.advance_in_steps(seconds(1), milliseconds(100));
    CHECK(third.take_tags() == "SSSSSSKZ");
    CHECK(ordinary[0].take_tags() == "TDCZ");
    CHECK(connections_of(bench).taken() <= 2);
    CHECK(connections_of(bench).taken() == bench.server.open_sessions().size());
  }
}

TEST_CASE("a client that finds the pool full of replication is told so after acquire_timeout") {
  SessionBench bench(with_backends(1));
  TestClient first = replica(bench);
  TestClient second(bench);
  second.write(startup_packet("me", "db", logical));
  TestClient ordinary(bench);
  ordinary.write(startup_packet("me", "db"));
  bench.advance_in_steps(seconds(31), seconds(1));
  CHECK(second.take_error() == "53300");
  CHECK(ordinary.take_error() == "53300");
  CHECK(second.is_closed());
}

TEST_CASE("replication gets its connection of a pool that is busy without pause") {
  for (const CoreId cores : {CoreId{1}, CoreId{2}}) {
    SessionBench bench(with_backends(2, cores));
    std::vector<TestClient> busy;
    for (int i = 0; i < 6; ++i) busy.emplace_back(bench, static_cast<CoreId>(i % cores), "me");
    for (TestClient& client : busy) client.query("BEGIN");
    TestClient client(bench, static_cast<CoreId>(cores - 1));
    client.write_later(startup_packet("me", "db", logical));
    std::string welcome;
    for (int round = 0; round < 100 && welcome.size() < 9; ++round) {
      for (TestClient& one : busy)
        if (!one.take_tags().empty()) one.write(query_message("COMMIT") + query_message("BEGIN"));
      bench.advance(milliseconds(10));
      CHECK(bench.server.open_sessions().size() <= 2);
      welcome += client.take_tags();
    }
    CHECK(welcome == "RSSSSSSKZ");
    CHECK(bench.slice().spec().shared->connections->limit->taken() <= 2);
    for (TestClient& one : busy) one.close();
    bench.advance_in_steps(seconds(1), milliseconds(100));
    CHECK(walsenders(bench).size() == 1);
  }
}

TEST_CASE("the limits of node and user hold for replication") {
  BenchOptions options = with_backends(5);
  options.node.max_connections = 2;
  SessionBench bench(options);
  TestClient first = replica(bench);
  TestClient second(bench, 0, "other", logical);
  TestClient third(bench);
  third.write(startup_packet("me", "db", logical));
  bench.advance_in_steps(seconds(2), milliseconds(100));
  CHECK(third.take_tags() == "R");
  CHECK(bench.node.limit.taken() == 2);
  second.close();
  bench.advance_in_steps(seconds(1), milliseconds(100));
  CHECK(third.take_tags() == "SSSSSSKZ");
}

TEST_CASE("nothing that is idle or old for others is so in replication") {
  SessionBench bench;
  TestClient quiet = replica(bench);
  TestClient streaming = replica(bench);
  streaming.write(stream_query);
  CHECK(streaming.take_tags() == "W");
  bench.advance_in_steps(seconds(20'000), seconds(100));
  CHECK(walsenders(bench).size() == 2);
  CHECK(bench.server.sessions().size() == 2);
  quiet.query("IDENTIFY_SYSTEM");
  CHECK(quiet.take_tags() == "TDCZ");
}

TEST_CASE("what a pool does for its other connections it does not do for replication") {
  BenchOptions options;
  options.limits.connect_query = "SET TimeZone='cet'";
  options.limits.min_connections = 2;
  SessionBench bench(options);
  TestClient client = replica(bench);
  bench.advance_in_steps(seconds(5), seconds(1));
  CHECK(bench.server.sessions().size() == 1);
  CHECK(bench.server.only().log.empty());
}

TEST_CASE("a replication client that leaves before its backend is ready leaves none behind") {
  for (const bool resets : {false, true}) {
    SessionBench bench(with_backends(2));
    bench.server.holds_logins = true;
    TestClient client(bench);
    client.write(startup_packet("me", "db", logical));
    if (resets) {
      client.reset();
    } else {
      client.close();
    }
    bench.server.holds_logins = false;
    bench.settle();
    CHECK(bench.server.open_sessions().empty());
    CHECK(bench.node.limit.taken() == 0);
    CHECK(connections_of(bench).taken() == 0);
    TestClient next = replica(bench);
    CHECK(walsenders(bench).size() == 1);
  }
}

TEST_CASE("a backend that was made for a replication client does not go to another core") {
  BenchOptions options = with_backends(2, 2);
  SessionBench bench(options);
  bench.server.holds_logins = true;
  std::vector<TestClient> clients;
  for (CoreId core : {CoreId{0}, CoreId{1}, CoreId{0}, CoreId{1}}) {
    clients.emplace_back(bench, core);
    clients.back().write_later(startup_packet("me", "db", logical));
    bench.pass(milliseconds(10));
  }
  bench.settle();
  bench.server.holds_logins = false;
  bench.settle();
  size_t served = 0;
  for (int round = 0; round < 20 && served < 4; ++round) {
    bench.advance_in_steps(seconds(1), milliseconds(100));
    CHECK(walsenders(bench).size() <= 2);
    for (TestClient& client : clients) {
      if (!client.take_tags().ends_with("Z")) continue;
      ++served;
      client.close();
    }
  }
  CHECK(served == 4);
  CHECK(figures_of(bench).counters.moves_out == 0);
}

TEST_CASE("a cancel request of a replication client reaches its server") {
  SessionBench bench;
  TestClient client(bench);
  client.write(startup_packet("me", "db", logical));
  std::string key;
  for (const WireMessage& message : client.take())
    if (message.tag == 'K') key = message.body;
  REQUIRE(key.size() == 8);
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("BASE_BACKUP");
  TestClient canceller(bench);
  canceller.write(frame('\0', std::string("\x04\xd2\x16\x2e", 4) + key).substr(1));
  CHECK(canceller.is_closed());
  REQUIRE(bench.server.cancels().size() == 1);
  CHECK(bench.server.cancels()[0]->cancelled_process_id == server.process_id());
}

TEST_CASE("when the process stops streams end at once, between two messages, backups when done") {
  SessionBench bench;
  TestClient quiet = replica(bench);
  TestClient streaming = replica(bench);
  TestClient halfway = replica(bench);
  TestClient backup = replica(bench);
  const auto servers = walsenders(bench);
  streaming.write(stream_query);
  halfway.write(stream_query);
  servers[2]->write(copy_data("whole").substr(0, 7));
  servers[3]->is_silent = true;
  backup.query("BASE_BACKUP");
  servers[3]->write(frame('H', std::string(3, '\0')) + copy_data("file"));
  bench.settle();
  CHECK(halfway.take_bytes().size() == frame('W', std::string(3, '\0')).size() + 7);
  CHECK(backup.take_tags() == "Hd");
  bench.start_drain();
  for (TestClient* client : {&quiet, &streaming}) {
    CHECK(client->take_error() == "57P01");
    CHECK(client->is_closed());
  }
  CHECK(halfway.take_bytes().empty());
  CHECK_FALSE(halfway.is_closed());
  servers[2]->write(copy_data("whole").substr(7));
  bench.settle();
  const std::string rest = halfway.take_bytes();
  CHECK(rest.substr(0, 3) == "ole");
  CHECK(rest.find("C57P01") != std::string::npos);
  CHECK(halfway.is_closed());
  CHECK_FALSE(backup.is_closed());
  servers[3]->write(copy_data("end") + frame('c', {}) + complete("SELECT") + ready());
  bench.settle();
  const auto last = backup.take();
  CHECK(tags_of(last) == "dcCZE");
  CHECK(field_of(last.back(), 'C') == "57P01");
  CHECK(backup.is_closed());
}

TEST_CASE("a reload that removes the user ends its streams, one that changes terms does not") {
  SessionBench bench(with_backends(2));
  TestClient streaming = replica(bench);
  streaming.write(stream_query);
  CHECK(streaming.take_tags() == "W");
  bench.reload([](BenchDirectory& next) { next.limits.max_connections = 1; });
  bench.server.only().write(copy_data("wal"));
  bench.settle();
  CHECK(streaming.take_tags() == "d");
  // The new limit counts the old stream.
  TestClient waiting(bench);
  waiting.write(startup_packet("me", "db", logical));
  bench.advance_in_steps(seconds(1), milliseconds(100));
  CHECK(waiting.take_tags() == "R");
  bench.reload([](BenchDirectory& next) { next.limits.max_connections = 3; });
  CHECK(waiting.take_tags() == "SSSSSSKZ");
  CHECK(connections_of(bench).taken() == 2);
  bench.reload([](BenchDirectory& next) { next.removed_users.insert("me"); });
  for (TestClient* client : {&streaming, &waiting}) {
    CHECK(client->take_error() == "57P01");
    CHECK(client->is_closed());
  }
  CHECK(bench.server.open_sessions().empty());
}

TEST_CASE("a connect that a reload overtakes serves the replication client that waits for it") {
  SessionBench bench(with_backends(2));
  bench.server.holds_logins = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db", logical));
  TestClient gone(bench);
  gone.write(startup_packet("me", "db", logical));
  bench.reload([](BenchDirectory& next) { next.limits.max_connections = 4; });
  gone.close();
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(client.take_tags() == "RSSSSSSKZ");
  CHECK(walsenders(bench).size() == 1);
  CHECK(connections_of(bench).taken() == 1);
}

TEST_CASE("a server that ends a replication connection is heard, and its place is free") {
  SessionBench bench(with_backends(1));
  TestClient client = replica(bench);
  client.write(stream_query);
  CHECK(client.take_tags() == "W");
  bench.server.only().write(error_reply("FATAL", "57P01", "terminating connection"));
  bench.server.only().end();
  bench.settle();
  CHECK(client.take_error() == "57P01");
  CHECK(client.is_closed());
  CHECK(bench.node.limit.taken() == 0);
  TestClient next = replica(bench);
}

TEST_CASE("a login that the node refuses reaches a replication client in the node's words") {
  SessionBench bench;
  bench.server.login_error =
      error_reply("FATAL", "42501", "must be superuser or replication role to start walsender");
  TestClient client(bench);
  client.write(startup_packet("me", "db", logical));
  CHECK(client.take_error() == "42501");
  CHECK(client.is_closed());
  bench.server.login_error.clear();
  TestClient ordinary(bench, 0, "me");
}

}  // namespace
}  // namespace helios
