// The life of backends: what is done with a new one, how many are made at once, how many are kept,
// and when they are replaced.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

using Texts = std::vector<std::string>;

// Texts of all queries that came, the pooler's own too.
Texts texts_of(const ServerSession& server) {
  Texts texts;
  for (const WireMessage& message : server.log)
    if (message.tag == 'Q') texts.push_back(message.body.substr(0, message.body.size() - 1));
  return texts;
}

// --- connect_query

BenchOptions with_connect_query(std::string text) {
  BenchOptions options;
  options.limits.max_connections = 1;
  options.limits.connect_query = std::move(text);
  return options;
}

// The text of the error that ends a login.
std::string login_error(SessionBench& bench, std::string_view code) {
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  bench.advance(seconds(16));
  for (const WireMessage& message : client.take()) {
    if (message.tag != 'E') continue;
    CHECK(field_of(message, 'C') == code);
    CHECK(client.is_closed());
    return field_of(message, 'M');
  }
  return {};
}

TEST_CASE("connect_query runs on each new backend before anybody gets it, and nobody sees it") {
  SessionBench bench(with_connect_query("one long statement, or many"));
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  client.write(query_message("x"));
  CHECK(client.take_tags() == "RSSSSSSKZTDCZ");
  CHECK(texts_of(bench.server.only()) == Texts{"one long statement, or many", "x"});
  bench.server.only().end();
  bench.settle();
  client.query("y");
  CHECK(client.take_tags() == "TDCZ");
  CHECK(texts_of(bench.server.only()) == Texts{"one long statement, or many", "y"});
}

TEST_CASE("what connect_query sets is what clients find, and start from") {
  SessionBench bench(with_connect_query("SET TimeZone='cet';SET application_name='pool'"));
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  std::string welcome;
  for (const WireMessage& message : client.take())
    if (message.tag == 'S') welcome += message.body;
  CHECK(welcome.find(std::string("TimeZone\0CET\0", 13)) != std::string::npos);
  CHECK(welcome.find(std::string("application_name\0pool\0", 22)) != std::string::npos);
  client.query("x");
  TestClient other(bench, 0, "me", {{"application_name", "own"}});
  other.query("y");
  client.query("z");
  CHECK(texts_of(bench.server.only()) == Texts{"SET TimeZone='cet';SET application_name='pool'",
                                               "x", "SET application_name='own'", "y",
                                               "SET application_name='pool'", "z"});
}

TEST_CASE("connect_query runs again behind DISCARD ALL") {
  BenchOptions options = with_connect_query("hello");
  options.limits.max_prepared_statements = 0;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.write(parse_message("p", "x") + sync_message());
  client.close();
  CHECK(texts_of(bench.server.only()) == Texts{"hello", "DISCARD ALL", "hello"});
  CHECK(bench.slice().idle_count() == 1);
}

TEST_CASE("a connect_query that fails fails the login with the server's code, and names itself") {
  SessionBench bench(with_connect_query("FAIL"));
  const std::string text = login_error(bench, "22012");
  CHECK(text.find("connect_query failed: division by zero") != std::string::npos);
  CHECK(bench.server.open_sessions().empty());
  CHECK(bench.node.limit.taken() == 0);
  CHECK(bench.server.sessions()[0]->tags() == "QX");
}

TEST_CASE("a connect_query that leaves something open fails") {
  for (const bool is_copy : {true, false}) {
    SessionBench bench(with_connect_query(is_copy ? "COPYIN" : "BEGIN"));
    const std::string text = login_error(bench, is_copy ? "0A000" : "25001");
    CHECK(text.find("connect_query") != std::string::npos);
    CHECK(bench.node.limit.taken() == 0);
  }
}

TEST_CASE("a connect_query counts under connect_timeout") {
  SessionBench bench(with_connect_query("hello"));
  bench.server.new_is_silent = true;
  const std::string text = login_error(bench, "08006");
  CHECK(text.find("connect_query took longer than connect_timeout") != std::string::npos);
  CHECK(bench.server.cancels().size() == 1);
  CHECK(bench.server.open_sessions().size() <= 1);  // The next attempt.
}

TEST_CASE("a server that goes or breaks the protocol in connect_query fails the login") {
  for (const char* bytes : {"", "1\0\0\0\4", "Z\0\0\0\5X"}) {
    SessionBench bench(with_connect_query("hello"));
    bench.server.new_is_silent = true;
    TestClient client(bench);
    client.write(startup_packet("me", "db"));
    ServerSession& server = bench.server.only();
    if (*bytes == '\0') {
      server.end();
    } else {
      server.write(std::string(bytes, *bytes == '1' ? 5 : 6));
    }
    bench.settle();
    CHECK(client.take_error() == (*bytes == '\0' ? "08006" : "08P01"));
    CHECK(client.is_closed());
  }
}

TEST_CASE("a drain does not wait for connect_query") {
  SessionBench bench(with_connect_query("hello"));
  bench.server.new_is_silent = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  bench.start_drain();
  CHECK(client.take_error() == "57P01");
  CHECK(bench.is_empty());
}

// --- connecting_max

// Connections that were accepted and wait for the end of their login.
size_t fresh_count(SessionBench& bench) {
  size_t count = 0;
  for (const auto& session : bench.server.sessions())
    if (session->is_open() && session->kind() == ServerSession::Kind::fresh) ++count;
  return count;
}

// Clients of `user` that have asked for a transaction. They stay silent until they are served.
std::vector<TestClient> askers(SessionBench& bench, CoreId core, std::string_view user, int count) {
  std::vector<TestClient> clients;
  for (int i = 0; i < count; ++i) clients.emplace_back(bench, core);
  for (TestClient& client : clients)
    client.write_later(startup_packet(user, "db") + query_message("BEGIN"));
  return clients;
}

TEST_CASE("no more connects than connecting_max are under way, on all cores and in all pools") {
  for (const uint32_t max : {1U, 3U}) {
    for (uint64_t seed = 1; seed <= 20; ++seed) {
      BenchOptions options;
      options.cores_count = 3;
      options.node.connecting_max = max;
      options.network.seed = seed;
      SessionBench bench(options);
      bench.server.logins_left = 0;
      std::vector<std::vector<TestClient>> groups;
      for (CoreId core = 0; core < 3; ++core)
        for (const char* user : {"ann", "bob"}) groups.push_back(askers(bench, core, user, 4));
      bench.settle();
      for (int logins_count = 0; logins_count < 20; ++logins_count) {
        // At the first all want one; later a permit may lie with a core that has no use for it yet.
        if (logins_count == 0) CHECK(fresh_count(bench) == max);
        CHECK(fresh_count(bench) >= 1);
        CHECK(fresh_count(bench) <= max);
        CHECK(bench.node.gate.taken() == fresh_count(bench));
        // The next begins as soon as one has ended.
        bench.server.logins_left = 1;
        while (bench.step()) CHECK(fresh_count(bench) <= max);
        bench.settle();
      }
      // Ten of each pool: its limit.
      CHECK(fresh_count(bench) == 0);
      CHECK(bench.server.open_sessions().size() == 20);
      CHECK(bench.node.gate.taken() == 0);
    }
  }
}

TEST_CASE("a pool that wants many connects does not keep another one from its first") {
  BenchOptions options;
  options.cores_count = 2;
  options.node.connecting_max = 1;
  SessionBench bench(options);
  bench.server.logins_left = 0;
  auto many = askers(bench, 0, "many", 8);
  bench.settle();
  auto here = askers(bench, 0, "here", 1);
  bench.settle();
  bench.clock.advance(milliseconds(1));
  auto there = askers(bench, 1, "there", 1);
  bench.settle();
  // The one under way is of the first pool, and so is the next, which has waited for longer.
  for (int i = 0; i < 4; ++i) {
    bench.clock.advance(milliseconds(1));
    bench.server.logins_left = 1;
    bench.settle();
  }
  CHECK(tags_of(here[0].take()).back() == 'Z');
  CHECK(tags_of(there[0].take()).back() == 'Z');
}

TEST_CASE("a connect that fails lets the next one begin, of another pool and core too") {
  BenchOptions options;
  options.cores_count = 2;
  options.node.connecting_max = 1;
  SessionBench bench(options);
  bench.server.logins_left = 0;
  auto first = askers(bench, 0, "first", 1);
  bench.settle();
  auto second = askers(bench, 1, "second", 1);
  bench.settle();
  CHECK(bench.server.sessions().size() == 1);
  bench.server.sessions()[0]->end();
  bench.settle();
  CHECK(first[0].take_error() == "08006");
  CHECK(bench.server.sessions().size() == 2);
  bench.server.logins_left = 1;
  bench.settle();
  CHECK(second[0].take_tags().back() == 'Z');
}

TEST_CASE("a pool that needs nothing any more passes its place on") {
  BenchOptions options;
  options.cores_count = 2;
  options.node.connecting_max = 1;
  SessionBench bench(options);
  bench.server.logins_left = 0;
  auto first = askers(bench, 0, "first", 1);
  bench.settle();
  auto gone = askers(bench, 1, "gone", 1);
  bench.settle();
  bench.clock.advance(milliseconds(1));
  auto last = askers(bench, 0, "last", 1);
  bench.settle();
  gone[0].close();
  bench.server.logins_left = 1;
  bench.settle();
  CHECK(first[0].take_tags().back() == 'Z');
  CHECK(fresh_count(bench) == 1);
  bench.server.logins_left = 1;
  bench.settle();
  CHECK(last[0].take_tags().back() == 'Z');
  CHECK(bench.node.gate.taken() == 0);
}

// --- min_connections

BenchOptions with_minimum(uint32_t minimum, CoreId cores_count) {
  BenchOptions options;
  options.cores_count = cores_count;
  options.limits.min_connections = minimum;
  return options;
}

TEST_CASE("every core keeps its share of the minimum from the pool's first client on, anywhere") {
  for (const CoreId cores_count : {CoreId{1}, CoreId{2}, CoreId{3}}) {
    SessionBench bench(with_minimum(4, cores_count));
    TestClient client(bench, static_cast<CoreId>(cores_count - 1), "me");
    CHECK(bench.server.open_sessions().size() == 4);
    for (CoreId id = 0; id < cores_count; ++id)
      CHECK(bench.slice(id).backends_count() == bench.slice(id).minimum());
    // And no more, whatever time passes.
    bench.advance_in_steps(seconds(10), seconds(1));
    CHECK(bench.server.sessions().size() == 4);
  }
}

TEST_CASE("what the minimum has lost is replaced at once, on every core") {
  SessionBench bench(with_minimum(4, 2));
  TestClient client(bench, 0, "me");
  for (ServerSession* session : bench.server.open_sessions()) session->end();
  bench.settle();
  CHECK(bench.server.open_sessions().size() == 4);
  CHECK(bench.server.sessions().size() == 8);
}

TEST_CASE("what the minimum has lent is not opened again") {
  SessionBench bench(with_minimum(2, 2));
  TestClient first(bench, 0, "me");
  CHECK(bench.server.open_sessions().size() == 2);
  // One more than the core has permits.
  auto clients = askers(bench, 0, "me", 6);
  bench.settle();
  for (TestClient& client : clients) CHECK(client.take_tags().back() == 'Z');
  bench.advance_in_steps(seconds(5), seconds(1));
  CHECK(bench.server.sessions().size() == 6);
}

TEST_CASE("a minimum that fails is tried again in the node's own time, one at a time") {
  SessionBench bench(with_minimum(4, 2));
  TestClient client(bench, 0, "me");
  bench.server.stop_listening();
  for (ServerSession* session : bench.server.open_sessions()) session->end();
  bench.settle();
  const uint64_t before = bench.core(0).pools.statistics().total.counters.connects;
  bench.advance_in_steps(seconds(10), milliseconds(10));
  const uint64_t attempts = bench.core(0).pools.statistics().total.counters.connects - before;
  CHECK(attempts >= 9);
  CHECK(attempts <= 20);
  bench.server.start_listening();
  bench.advance_in_steps(seconds(2), milliseconds(10));
  CHECK(bench.server.open_sessions().size() == 4);
}

TEST_CASE("a minimum for which there is no room takes none from others") {
  BenchOptions options = with_minimum(4, 2);
  options.node.max_connections = 3;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  bench.advance_in_steps(seconds(3), seconds(1));
  CHECK(bench.server.open_sessions().size() == 3);
  CHECK_FALSE(bench.node.limit.is_starved());
}

TEST_CASE("the minimum of a pool whose last client has gone ends after idle_timeout") {
  BenchOptions options = with_minimum(4, 2);
  options.limits.idle_timeout = seconds(5);
  options.limits.test_after = never;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  bench.advance_in_steps(seconds(10), seconds(1));
  CHECK(bench.server.open_sessions().size() == 4);
  client.close();
  bench.advance_in_steps(seconds(3), seconds(1));
  CHECK(bench.server.open_sessions().size() == 4);
  bench.advance_in_steps(seconds(5), seconds(1));
  CHECK(bench.server.open_sessions().empty());
  bench.advance_in_steps(seconds(100), seconds(1));
  for (CoreId id = 0; id < 2; ++id) CHECK(bench.slice(id).is_pristine());
}

// --- Replacement

BenchOptions with_lifetime(uint32_t max_connections) {
  BenchOptions options;
  options.limits.max_connections = max_connections;
  options.limits.max_lifetime = seconds(100);  // 90 to 100; successors come 10 earlier.
  options.limits.idle_timeout = 0;
  options.limits.test_after = never;
  return options;
}

TEST_CASE("a backend that nears its end gets its successor first, and ends when it is idle") {
  for (const bool is_busy : {false, true}) {
    SessionBench bench(with_lifetime(2));
    TestClient client(bench, 0, "me");
    if (is_busy) client.query("BEGIN");
    ServerSession& old = bench.server.only();
    size_t both_count = 0;
    for (int i = 0; i < 100; ++i) {
      bench.advance(seconds(1));
      REQUIRE(bench.server.open_sessions().size() >= 1);
      both_count += bench.server.open_sessions().size() - 1;
      if (i < 75) REQUIRE(bench.server.sessions().size() == 1);
    }
    CHECK(bench.server.sessions().size() == 2);
    CHECK(old.is_open() == is_busy);
    CHECK((both_count > 0) == is_busy);
    if (is_busy) client.query("COMMIT");
    CHECK_FALSE(old.is_open());
    client.query("x");
    CHECK(bench.server.only().queries() == Texts{"x"});
    CHECK(bench.server.sessions().size() == 2);
  }
}

TEST_CASE("at its limit a pool closes the old one first, while it is idle, and replaces it then") {
  for (const bool is_busy : {false, true}) {
    for (const bool is_node_full : {false, true}) {
      BenchOptions options = with_lifetime(is_node_full ? 2 : 1);
      if (is_node_full) options.node.max_connections = 1;
      SessionBench bench(options);
      TestClient client(bench, 0, "me");
      if (is_busy) client.query("BEGIN");
      ServerSession& old = bench.server.only();
      for (int i = 0; i < 100; ++i) {
        bench.advance(seconds(1));
        if (i < 85 || is_busy) REQUIRE(old.is_open());
      }
      CHECK(bench.server.sessions().size() == (is_busy ? 1 : 2));
      if (is_busy) client.query("COMMIT");
      CHECK_FALSE(old.is_open());
      CHECK(bench.server.open_sessions().size() == 1);
      CHECK_FALSE(bench.node.limit.is_starved());
    }
  }
}

TEST_CASE("a pool that nobody uses replaces nothing") {
  SessionBench bench(with_lifetime(2));
  TestClient client(bench, 0, "me");
  client.close();
  bench.advance_in_steps(seconds(110), seconds(1));
  CHECK(bench.server.sessions().size() == 1);
  CHECK(bench.server.open_sessions().empty());
}

TEST_CASE("a backend whose successor cannot come serves to its end") {
  SessionBench bench(with_lifetime(2));
  TestClient client(bench, 0, "me");
  client.query("BEGIN");
  ServerSession& old = bench.server.only();
  bench.server.stop_listening();
  bench.advance_in_steps(seconds(95), seconds(1));
  CHECK(bench.core().pools.statistics().total.counters.connect_failures > 0);
  CHECK(bench.core().pools.statistics().total.counters.connect_failures <= 16);
  CHECK(old.is_open());
  bench.server.start_listening();
  bench.advance_in_steps(seconds(5), seconds(1));
  client.query("COMMIT");
  CHECK(client.take_tags() == "CZCZ");
  bench.advance_in_steps(seconds(15), seconds(1));
  CHECK_FALSE(old.is_open());
  // The successor, and what the attempt that found the node back has made.
  CHECK(bench.server.open_sessions().size() == 2);
}

TEST_CASE("many backends that near their end together are replaced one at a time") {
  for (const uint32_t max : {5U, 6U, 20U}) {
    SessionBench bench(with_lifetime(max));
    auto clients = askers(bench, 0, "me", 5);
    bench.settle();
    CHECK(bench.server.open_sessions().size() == 5);
    for (TestClient& client : clients) client.query("COMMIT");
    size_t made_count = 5;
    for (int i = 0; i < 120; ++i) {
      bench.advance(seconds(1));
      const size_t open_count = bench.server.open_sessions().size();
      CHECK(open_count >= 4);
      CHECK(open_count <= 6);
      CHECK(bench.server.sessions().size() <= made_count + 1);
      made_count = bench.server.sessions().size();
    }
    CHECK(made_count == 10);
    CHECK(bench.server.open_sessions().size() == 5);
  }
}

TEST_CASE("in session mode a backend that a client holds gets no successor") {
  BenchOptions options = with_lifetime(3);
  options.limits.mode = LeaseMode::session;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.query("x");
  bench.advance_in_steps(seconds(110), seconds(1));
  CHECK(bench.server.sessions().size() == 1);
  client.query("y");
  CHECK(client.take_tags() == "TDCZTDCZ");
}

}  // namespace
}  // namespace helios
