// How long backends live, and how they end.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <vector>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

// So many backends, idle at the end.
std::vector<TestClient> open_backends(SessionBench& bench, size_t count) {
  std::vector<TestClient> clients;
  for (size_t i = 0; i < count; ++i) clients.emplace_back(bench, 0, "me");
  for (TestClient& client : clients) client.query("BEGIN");
  for (TestClient& client : clients) client.query("COMMIT");
  REQUIRE(bench.slice().idle_count() == count);
  return clients;
}

bool said_terminate(const ServerSession& session) {
  return !session.log.empty() && session.log.back().tag == 'X';
}

TEST_CASE("a drain keeps count of backends that are out, and closes them when they come back") {
  SessionBench bench(with_ageless_backends(4));
  std::vector<TestClient> clients = open_backends(bench, 3);
  clients[0].query("BEGIN");
  bench.start_drain();
  const PoolGauges during = bench.pools().statistics().total.gauges;
  CHECK(during.leased == 1);
  CHECK(during.total() == 1);
  CHECK(bench.node.limit.taken() == 1);
  clients[0].query("COMMIT");
  const PoolGauges after = bench.pools().statistics().total.gauges;
  CHECK(after.leased == 0);
  CHECK(after.total() == 0);
  CHECK(bench.node.limit.taken() == 0);
  for (const auto& session : bench.server.sessions()) CHECK(said_terminate(*session));
}

TEST_CASE(
    "a drain begins nothing new: who waits and who comes is told, what comes back is closed") {
  SessionBench bench(with_ageless_backends(1));
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  holder.query("BEGIN");
  waiter.query("never");
  bench.start_drain();
  CHECK(waiter.take_error() == "57P01");
  TestClient newcomer(bench);
  newcomer.write(startup_packet("me", "db"));
  CHECK(newcomer.take_error() == "57P03");
  holder.query("COMMIT");
  CHECK(holder.take_tags() == "CZCZE");
  REQUIRE(bench.server.sessions().size() == 1);
  CHECK(said_terminate(*bench.server.sessions()[0]));
  CHECK(bench.is_empty());
}

TEST_CASE("an end that the pool decides on begins with Terminate") {
  const auto check = [](const BenchOptions& options,
                        const std::function<void(SessionBench&)>& act) {
    SessionBench bench(options);
    const std::vector<TestClient> clients = open_backends(bench, 2);
    act(bench);
    for (size_t i = 0; i < 2; ++i) {  // Successors come behind them.
      CHECK_FALSE(bench.server.sessions()[i]->is_open());
      CHECK(said_terminate(*bench.server.sessions()[i]));
    }
  };
  BenchOptions options = with_ageless_backends(2);
  SUBCASE("idle_timeout") {
    options.limits.idle_timeout = seconds(3);
    check(options, [](SessionBench& bench) { bench.advance_in_steps(seconds(5), seconds(1)); });
  }
  SUBCASE("max_lifetime") {
    options.limits.max_lifetime = seconds(3);
    check(options, [](SessionBench& bench) { bench.advance_in_steps(seconds(10), seconds(1)); });
  }
  SUBCASE("shutting down") {
    check(options, [](SessionBench& bench) { bench.start_drain(); });
  }
}

TEST_CASE("backends that were made together do not end together") {
  constexpr size_t count = 40;
  BenchOptions options = with_ageless_backends(count);
  options.limits.max_lifetime = seconds(100);
  SessionBench bench(options);
  // Nobody is there any more: a pool in use ends one after the other anyway.
  for (TestClient& client : open_backends(bench, count)) client.close();
  bench.settle();
  REQUIRE(bench.server.open_sessions().size() == count);
  bench.advance_in_steps(seconds(89), seconds(1));
  CHECK(bench.server.open_sessions().size() == count);
  // Over the last tenth of the lifetime, and a second until the pool looks.
  size_t most_at_once = 0;
  size_t seconds_count = 0;
  for (size_t open = count; open > 0 && seconds_count < 13; ++seconds_count) {
    bench.advance_in_steps(seconds(1), seconds(1));
    most_at_once = std::max(most_at_once, open - bench.server.open_sessions().size());
    open = bench.server.open_sessions().size();
    if (seconds_count == 6) CHECK((open > 0 && open < count));
  }
  CHECK(bench.server.open_sessions().empty());
  CHECK(bench.server.sessions().size() == count);  // No successors.
  CHECK(seconds_count <= 12);
  CHECK(most_at_once < count / 3);
}

TEST_CASE("backends made together are replaced in good time while their pool is in use") {
  BenchOptions options = with_ageless_backends(20);
  options.limits.max_lifetime = seconds(100);
  SessionBench bench(options);
  const std::vector<TestClient> clients = open_backends(bench, 20);
  const auto count_open = [&bench] {
    const auto& sessions = bench.server.sessions();
    return std::count_if(sessions.begin(), sessions.begin() + 20,
                         [](const auto& session) { return session->is_open(); });
  };
  ptrdiff_t most_at_once = 0;
  // A tenth of the lifetime, and the jitter, ahead.
  bench.advance_in_steps(seconds(79), seconds(1));
  CHECK(count_open() == 20);
  for (int i = 0; i < 40; ++i) {
    const ptrdiff_t before = count_open();
    bench.advance_in_steps(seconds(1), seconds(1));
    most_at_once = std::max(most_at_once, before - count_open());
  }
  CHECK(count_open() == 0);
  CHECK(most_at_once < 10);
}

TEST_CASE("a backend past max_lifetime ends when it comes back, and by itself while it is idle") {
  for (const bool is_leased : {false, true}) {
    BenchOptions options = with_ageless_backends(1);
    options.limits.max_lifetime = seconds(100);
    SessionBench bench(options);
    std::vector<TestClient> clients = open_backends(bench, 1);
    const ServerSession& server = bench.server.only();
    if (is_leased) clients[0].query("BEGIN");
    bench.advance_in_steps(seconds(89), seconds(1));
    CHECK(server.is_open());
    bench.advance_in_steps(seconds(12), seconds(1));
    CHECK(server.is_open() == is_leased);
    if (is_leased) clients[0].query("COMMIT");
    CHECK_FALSE(server.is_open());
  }
}

TEST_CASE("idle backends are closed by the pool itself, though nobody comes any more") {
  BenchOptions options = with_ageless_backends(3);
  options.limits.idle_timeout = seconds(5);
  SessionBench bench(options);
  (void)open_backends(bench, 3);
  bench.advance_in_steps(seconds(4), seconds(1));
  CHECK(bench.slice().backends_count() == 3);
  bench.advance_in_steps(seconds(4), seconds(1));
  CHECK(bench.slice().backends_count() == 0);
  CHECK(bench.server.open_sessions().empty());
}

TEST_CASE("while servers are slow to close what was idle, others are served") {
  BenchOptions options = with_ageless_backends(4);
  options.limits.idle_timeout = seconds(5);
  SessionBench bench(options);
  std::vector<TestClient> clients = open_backends(bench, 4);
  clients[0].query("BEGIN");
  bench.server.holds_ends = true;
  bench.advance_in_steps(seconds(8), seconds(1));
  CHECK(bench.pools().statistics().total.gauges.closing == 3);
  clients[0].query("COMMIT");
  clients[1].query("mine");
  CHECK(clients[1].take_tags() == "CZCZTDCZ");
}

TEST_CASE("a backend that ends, breaks or grows too old in a client's hands is not given back") {
  for (const char* how : {"end", "reset", "garbage", "age"}) {
    const std::string what = how;
    CAPTURE(what);
    BenchOptions options = with_ageless_backends(1);
    options.limits.max_lifetime = seconds(100);
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    TestClient other(bench, 0, "me");
    client.query("BEGIN");
    other.query("mine");
    ServerSession& server = bench.server.only();
    if (what == "end") server.end();
    if (what == "reset") server.reset();
    if (what == "garbage") server.write(frame('D', "nobody asked"));
    if (what == "age") {
      bench.clock.advance(seconds(101));
      client.query("COMMIT");
    }
    bench.settle();
    CHECK(other.take_tags() == "TDCZ");
    CHECK(bench.server.only().process_id() != server.process_id());
    CHECK(bench.server.only().queries() == std::vector<std::string>{"mine"});
  }
}

TEST_CASE("a timeout of 0 is off: nothing is closed, however long it was idle") {
  SessionBench bench(with_ageless_backends(3));
  std::vector<TestClient> clients = open_backends(bench, 3);
  bench.advance(seconds(86'400));
  bench.advance_in_steps(seconds(3), seconds(1));
  CHECK(bench.slice().idle_count() == 3);
  clients[0].query("mine");
  CHECK(clients[0].take_tags() == "CZCZTDCZ");
  CHECK(bench.server.sessions().size() == 3);
}

TEST_CASE("the minimum is made, kept when others are closed, and replaced when it is lost") {
  BenchOptions options = with_ageless_backends(5);
  options.limits.min_connections = 2;
  options.limits.idle_timeout = seconds(5);
  SessionBench bench(options);
  {
    TestClient first(bench, 0, "me");
    bench.advance_in_steps(seconds(2), seconds(1));
    CHECK(bench.slice().idle_count() == 2);
  }
  std::vector<TestClient> clients = open_backends(bench, 4);
  bench.advance_in_steps(seconds(10), seconds(1));
  CHECK(bench.slice().idle_count() == 2);
  bench.server.open_sessions()[0]->reset();
  bench.settle();
  bench.advance_in_steps(seconds(2), seconds(1));
  CHECK(bench.slice().idle_count() == 2);
}

TEST_CASE("a backend whose server has gone while it was idle is never handed out") {
  for (const bool by_reset : {false, true}) {
    SessionBench bench(with_ageless_backends(1));
    TestClient client(bench, 0, "me");
    ServerSession& gone = bench.server.only();
    by_reset ? gone.reset() : gone.end();
    bench.settle();
    CHECK(bench.slice().idle_count() == 0);
    CHECK(bench.node.limit.taken() == 0);
    client.query("mine");
    CHECK(client.take_tags() == "TDCZ");
    CHECK(bench.server.sessions().size() == 2);
  }
}

TEST_CASE("a reset that fails, or is not answered, closes the backend") {
  for (const bool is_answered : {false, true}) {
    BenchOptions options = with_ageless_backends(1);
    options.limits.mode = LeaseMode::session;
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    client.query("a");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    client.write(frame('X', {}));
    REQUIRE(server.log.back().body == std::string("DISCARD ALL\0", 12));
    if (is_answered) {
      server.write(error_reply("ERROR", "53200", "out of memory") + ready());
      bench.settle();
    } else {
      bench.advance_in_steps(seconds(31), seconds(1));
    }
    CHECK(bench.slice().idle_count() == 0);
    CHECK_FALSE(server.is_open());
    TestClient other(bench, 0, "me");
    other.query("mine");
    CHECK(other.take_tags() == "TDCZ");
    CHECK(bench.server.only().process_id() != server.process_id());
  }
}

}  // namespace
}  // namespace helios
