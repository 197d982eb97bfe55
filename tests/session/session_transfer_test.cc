// Clients of small pools go to a home core of their pool after login.
#include <doctest/doctest.h>

#include <string>
#include <vector>

#include "helios/pool/pool_cores.h"
#include "helios/wire/writer.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

BenchOptions placed(uint32_t max_connections, CoreId cores_count = 2) {
  BenchOptions options = with_ageless_backends(max_connections, cores_count);
  options.places_sessions = true;
  return options;
}

// Of the pool of "me", on two cores: the core where it lives, and the other one.
CoreId home() {
  return PoolCores(pool_key("db", "me", {}), 2).core_at(0);
}
CoreId elsewhere() {
  return static_cast<CoreId>(1 - home());
}

// A client that comes in elsewhere, some steps into its login and move, in an order that the steps
// decide.
struct Moving {
  explicit Moving(uint64_t steps) : bench(options_for(steps)), client(bench, elsewhere()) {
    client.write_later(startup_packet("me", "db"));
    for (uint64_t i = 0; i < steps; ++i) static_cast<void>(bench.step());
  }
  static BenchOptions options_for(uint64_t steps) {
    BenchOptions options = placed(1);
    options.network.seed = steps + 1;
    return options;
  }
  SessionBench bench;
  TestClient client;
};

// Sessions that have left the core.
uint64_t moved_count(SessionBench& bench, CoreId core) {
  return bench.core(core).sessions.counters().moved;
}

bool is_served(TestClient& client) {
  client.query("q");
  return client.take_tags() == "TDCZ";
}

TEST_CASE("a client of a small pool that comes in elsewhere is served on its home core") {
  for (const LeaseMode mode : {LeaseMode::transaction, LeaseMode::session, LeaseMode::statement}) {
    BenchOptions options = placed(2);
    options.limits.mode = mode;
    SessionBench bench(options);
    TestClient client(bench, elsewhere(), "me", {{"application_name", "mine"}});
    CHECK(is_served(client));
    CHECK(bench.server.only().parameters().at("application_name") == "mine");
    CHECK(bench.core(elsewhere()).sessions.count() == 0);
    CHECK(bench.core(home()).sessions.count() == 1);
    CHECK(moved_count(bench, elsewhere()) == 1);
    CHECK(bench.loads[elsewhere()] == 0);
    CHECK(bench.loads[home()] == 1);
    // At home already.
    TestClient other(bench, home(), "me");
    CHECK(bench.loads[home()] == 2);
    CHECK(moved_count(bench, home()) == 0);
  }
}

TEST_CASE("clients of a pool that has a home on each core stay where they came in") {
  SessionBench bench(placed(3));
  TestClient here(bench, 0, "me");
  TestClient there(bench, 1, "me");
  CHECK(bench.core(0).sessions.count() == 1);
  CHECK(bench.core(1).sessions.count() == 1);
}

TEST_CASE("of several home cores a client goes to the one with fewest clients") {
  constexpr CoreId cores_count = 8;
  const PoolCores cores(pool_key("db", "me", {}), cores_count);
  SessionBench bench(placed(4, cores_count));
  std::vector<TestClient> clients;
  for (int i = 0; i < 24; ++i)
    clients.emplace_back(bench, static_cast<CoreId>(i % cores_count), "me");
  CHECK(bench.core(cores.core_at(0)).sessions.count() == 12);
  CHECK(bench.core(cores.core_at(1)).sessions.count() == 12);
  for (TestClient& client : clients) CHECK(is_served(client));
}

TEST_CASE("a cancel request finds a client that has moved, from either core") {
  SessionBench bench(placed(1));
  TestClient client(bench, elsewhere());
  client.write(startup_packet("me", "db"));
  std::string key;
  for (const WireMessage& message : client.take())
    if (message.tag == 'K') key = message.body;
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("long");
  for (const CoreId core : {home(), elsewhere()}) {
    TestClient asker(bench, core);
    asker.write(cancel_request(key));
    CHECK(asker.is_closed());
  }
  REQUIRE(bench.server.cancels().size() == 2);
  CHECK(bench.server.cancels()[1]->cancelled_process_id == server.process_id());
}

TEST_CASE("what a client sends before it is welcome moves with it, whole messages or not") {
  const std::string bytes = startup_packet("me", "db") + query_message("a") + query_message("b");
  for (size_t first = startup_packet("me", "db").size(); first <= bytes.size(); ++first) {
    for (int steps = 0; steps < 6; ++steps) {
      SessionBench bench(placed(1));
      TestClient client(bench, elsewhere());
      client.write_later(bytes.substr(0, first));
      for (int i = 0; i < steps; ++i) static_cast<void>(bench.step());
      client.write(bytes.substr(first));
      const std::string tags = client.take_tags();
      REQUIRE(tags.size() > 8);
      CHECK(tags.substr(tags.size() - 9) == "ZTDCZTDCZ");
      CHECK(moved_count(bench, elsewhere()) == 1);
    }
  }
}

TEST_CASE("a client that vanishes at any moment of its move leaves nothing behind") {
  for (const bool by_reset : {false, true}) {
    for (uint64_t steps = 0; steps < 16; ++steps) {
      Moving moving(steps);
      auto& [bench, client] = moving;
      if (by_reset) {
        client.reset();
      } else {
        client.close();
      }
      CHECK(bench.shared.clients_count == 0);
      CHECK(bench.loads[0] + bench.loads[1] == 0);
      bench.finish();
    }
  }
}

TEST_CASE("a process that stops at any moment of a move tells the client") {
  for (uint64_t steps = 0; steps < 16; ++steps) {
    for (const bool one_core_first : {false, true}) {
      Moving moving(steps);
      auto& [bench, client] = moving;
      if (one_core_first) {
        const CoreId first = steps % 2 == 0 ? home() : elsewhere();
        bench.core(first).sessions.start_drain();
        bench.core(first).pools.start_drain();
        bench.settle();
      }
      bench.start_drain();
      const std::string code = client.take_error();
      CAPTURE(steps);
      CHECK((code == "57P01" || code == "57P03"));
      bench.advance(seconds(6));
      CHECK(bench.is_empty());
    }
  }
}

TEST_CASE("the time for the login goes on where the client has moved") {
  BenchOptions options = placed(1);
  options.limits.acquire_timeout = 0;
  options.limits.connect_timeout = 2 * options.login_timeout;
  SessionBench bench(options);
  bench.server.holds_logins = true;
  TestClient client(bench, elsewhere());
  bench.advance(options.login_timeout - seconds(20));
  client.write(startup_packet("me", "db"));
  CHECK(moved_count(bench, elsewhere()) == 1);
  bench.advance(seconds(19));
  CHECK(client.take_error().empty());
  bench.advance(seconds(1));
  CHECK(!client.take_error().empty());
  CHECK(client.is_closed());
}

TEST_CASE("clients that move are counted once, against max_clients of all and of the database") {
  BenchOptions options = placed(1);
  options.clients_max = 2;
  SessionBench bench(options);
  bench.directory.database_clients = std::make_shared<Limit>(1);
  TestClient first(bench, elsewhere(), "me");
  TestClient second(bench, elsewhere());
  second.write(startup_packet("me", "db"));
  CHECK(second.take_error() == "53300");
  CHECK(bench.shared.clients_count == 1);
  first.close();
  CHECK(bench.shared.clients_count == 0);
  TestClient third(bench, elsewhere(), "me");
  CHECK(bench.directory.database_clients->taken() == 1);
}

TEST_CASE("a client for whom its home core has no room is let go, and counted nowhere") {
  BenchOptions options = placed(1);
  options.sessions_max = 1;
  SessionBench bench(options);
  TestClient first(bench, home(), "me");
  TestClient second(bench, elsewhere());
  second.write(startup_packet("me", "db"));
  CHECK(second.is_closed());
  CHECK(bench.shared.clients_count == 1);
  CHECK(bench.loads[home()] == 1);
  CHECK(bench.loads[elsewhere()] == 0);
  CHECK(is_served(first));
}

TEST_CASE("once a small pool is at home no core sends another a message for its transactions") {
  for (const uint32_t max_connections : {1U, 2U}) {
    SessionBench bench(placed(max_connections));
    std::vector<TestClient> clients;
    for (int i = 0; i < 8; ++i) clients.emplace_back(bench, static_cast<CoreId>(i % 2), "me");
    const auto ask_all = [&] {
      for (TestClient& client : clients) client.write_later(query_message("q"));
      bench.settle();
      for (TestClient& client : clients) CHECK(client.take_tags() == "TDCZ");
    };
    ask_all();
    size_t messages_count = 0;
    bench.on_sent = [&](CoreId, const Message&) { ++messages_count; };
    for (int round = 0; round < 20; ++round) ask_all();
    CHECK(messages_count == 0);
  }
}

}  // namespace
}  // namespace helios
