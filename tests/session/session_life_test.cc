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

// Time passes in small steps, as it does.
void wait(SessionBench& bench, Nanoseconds time, Nanoseconds step = seconds(1)) {
  for (Nanoseconds passed = 0; passed < time; passed += step) bench.advance(step);
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
  SessionBench bench(with_connect_query("hello"));
  TestClient client(bench, 0, "me");
  client.query("PREPARE p AS x");
  client.close();
  CHECK(texts_of(bench.server.only()) == Texts{"hello", "PREPARE p AS x", "DISCARD ALL", "hello"});
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
      options.connecting_max = max;
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
  options.connecting_max = 1;
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
  options.connecting_max = 1;
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
  options.connecting_max = 1;
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
    wait(bench, seconds(10));
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

TEST_CASE("lending does not add to the minimum") {
  BenchOptions options = with_minimum(4, 2);
  options.limits.idle_timeout = 0;
  SessionBench bench(options);
  auto clients = askers(bench, 0, "me", 4);
  wait(bench, seconds(5));
  CHECK(bench.server.open_sessions().size() <= 5);
  for (TestClient& client : clients) client.query("COMMIT");
  wait(bench, seconds(5));
  CHECK(bench.server.open_sessions().size() <= 5);
}

TEST_CASE("a minimum that fails is tried again in the node's own time, one at a time") {
  SessionBench bench(with_minimum(4, 2));
  TestClient client(bench, 0, "me");
  bench.server.stop_listening();
  for (ServerSession* session : bench.server.open_sessions()) session->end();
  bench.settle();
  const uint64_t before = bench.core(0).pools.counters().connects;
  wait(bench, seconds(10), milliseconds(10));
  const uint64_t attempts = bench.core(0).pools.counters().connects - before;
  CHECK(attempts >= 9);
  CHECK(attempts <= 20);
  bench.server.start_listening();
  wait(bench, seconds(1), milliseconds(10));
  CHECK(bench.server.open_sessions().size() == 4);
}

TEST_CASE("a minimum for which there is no room takes none from others") {
  BenchOptions options = with_minimum(4, 2);
  options.node_max = 3;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  wait(bench, seconds(3));
  CHECK(bench.server.open_sessions().size() == 3);
  CHECK_FALSE(bench.node.limit.is_starved());
}

TEST_CASE("the minimum of a pool whose last client has gone ends after idle_timeout") {
  BenchOptions options = with_minimum(4, 2);
  options.limits.idle_timeout = seconds(5);
  options.limits.test_after = 0;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  wait(bench, seconds(10));
  CHECK(bench.server.open_sessions().size() == 4);
  client.close();
  wait(bench, seconds(3));
  CHECK(bench.server.open_sessions().size() == 4);
  wait(bench, seconds(5));
  CHECK(bench.server.open_sessions().empty());
  wait(bench, seconds(100));
  for (CoreId id = 0; id < 2; ++id) CHECK(bench.slice(id).is_pristine());
}

}  // namespace
}  // namespace helios
