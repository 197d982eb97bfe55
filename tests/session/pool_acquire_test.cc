// Getting a backend: who gets one, which one, by when, and what a client that leaves leaves behind.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

// Clients that never pause, on a server that answers one query at a time, wherever it is asked.
class Crowd {
 public:
  explicit Crowd(size_t clients_count)
      : bench_(with_ageless_backends(4)), answers_(clients_count, 0) {
    bench_.server.new_is_silent = true;
    for (size_t i = 0; i < clients_count; ++i) clients_.emplace_back(bench_, 0, "me");
    for (size_t i = 0; i < clients_count; ++i) ask(i);
  }

  // The answer to what this server session runs; its client asks again at once.
  void answer(size_t session_index) {
    const auto sessions = bench_.server.open_sessions();
    if (session_index >= sessions.size()) return;
    const auto asked = sessions[session_index]->queries();
    if (asked.empty()) return;
    const size_t client = std::stoul(asked.back());
    sessions[session_index]->write(echo(asked.back()) + ready());
    bench_.settle();
    REQUIRE(clients_[client].take_tags() == "TDCZ");
    ++answers_[client];
    ask(client);
  }

  [[nodiscard]] const std::vector<size_t>& answers() const { return answers_; }

 private:
  void ask(size_t client) { clients_[client].query(std::to_string(client)); }

  SessionBench bench_;
  std::vector<TestClient> clients_;
  std::vector<size_t> answers_;
};

TEST_CASE("a waiter gets the backend that comes back, at once and wherever it waits") {
  for (const CoreId core : {CoreId{0}, CoreId{1}}) {
    BenchOptions options = with_ageless_backends(1, 2);
    options.limits.acquire_timeout = milliseconds(800);
    SessionBench bench(options);
    TestClient holder(bench, 0, "me");
    TestClient waiter(bench, core, "me");
    holder.query("BEGIN");
    waiter.query("mine");
    bench.advance(milliseconds(100));
    CHECK(waiter.take_tags().empty());
    holder.query("COMMIT");
    CHECK(waiter.take_tags() == "TDCZ");
    CHECK(bench.server.sessions().size() == 1);
  }
}

TEST_CASE("clients that ask again at once starve nobody") {
  constexpr size_t rounds = 5;
  for (const size_t clients_count : {8, 16, 64}) {
    Crowd crowd(clients_count);
    for (size_t i = 0; i < rounds * clients_count; ++i) crowd.answer(i % 4);
    const auto [fewest, most] = std::minmax_element(crowd.answers().begin(), crowd.answers().end());
    CHECK(*fewest + 1 >= *most);
    CHECK(*fewest >= rounds - 1);
  }
}

TEST_CASE("acquire_timeout covers the connect and the login, not the queue alone") {
  BenchOptions options = with_ageless_backends(1);
  options.limits.acquire_timeout = seconds(3);
  options.limits.connect_timeout = seconds(15);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  bench.server.only().end();
  bench.settle();
  bench.server.holds_logins = true;
  client.query("never");
  CHECK(bench.slice().connecting_count() == 1);
  bench.advance(seconds(2));
  CHECK(client.take_tags().empty());
  bench.advance(seconds(2));
  CHECK(client.take_error() == "53300");
  CHECK(client.is_closed());
}

TEST_CASE("a client that leaves while a connect is made for it leaves nothing counted behind") {
  SessionBench bench(with_ageless_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  bench.server.only().end();
  bench.settle();
  bench.server.holds_logins = true;
  client.query("never");
  CHECK(bench.slice().connecting_count() == 1);
  client.close();
  CHECK(bench.slice().waiters_count() == 0);
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(bench.slice().connecting_count() == 0);
  CHECK(bench.slice().backends_count() == 1);
  CHECK(bench.slice().idle_count() == 1);
  CHECK(bench.node.limit.taken() == 1);
  other.query("mine");
  CHECK(other.take_tags() == "TDCZ");
  CHECK(bench.server.only().queries() == std::vector<std::string>{"mine"});
}

PoolGauges gauges_of(SessionBench& bench) {
  PoolGauges sum;
  for (CoreId core = 0; core < bench.options.cores_count; ++core)
    sum.add(bench.core(core).pools.statistics().total.gauges);
  return sum;
}

// A backend comes back from one client and is handed to another that waits, on one core or on two;
// after some steps of that one of both vanishes. The other goes on, and nothing of the first
// counts.
void vanish(uint64_t steps, CoreId core, bool is_holder, bool by_reset) {
  BenchOptions options = with_ageless_backends(1, 2);
  options.network.seed = steps + 1;
  SessionBench bench(options);
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, core, "me");
  holder.query("BEGIN");
  waiter.query("mine");
  REQUIRE(gauges_of(bench).waiters == 1);
  holder.write_later(query_message("COMMIT"));
  for (uint64_t i = 0; i < steps; ++i) (void)bench.step();
  TestClient& leaver = is_holder ? holder : waiter;
  by_reset ? leaver.reset() : leaver.close();
  bench.advance(seconds(1));
  const PoolGauges gauges = gauges_of(bench);
  CHECK(gauges.leased == 0);
  CHECK(gauges.waiters == 0);
  CHECK(gauges.clients == 1);
  CHECK(gauges.total() <= 1);
  CHECK(gauges.total() + gauges.permits_free == 1);
  CHECK(bench.node.limit.taken() == gauges.total());
  TestClient& other = is_holder ? waiter : holder;
  (void)other.take();
  other.query("after");
  CHECK(other.take_tags() == "TDCZ");
}

TEST_CASE("a client that vanishes while it gets or gives back a backend leaves nothing counted") {
  for (uint64_t steps = 0; steps < 20; ++steps) {
    CAPTURE(steps);
    for (const CoreId core : {CoreId{0}, CoreId{1}})
      for (const bool is_holder : {false, true})
        for (const bool by_reset : {false, true}) vanish(steps, core, is_holder, by_reset);
  }
}

TEST_CASE("an idle backend that is too old does not cost a connect while a fresh one is there") {
  BenchOptions options = with_ageless_backends(3);
  options.limits.idle_timeout = 0;
  options.limits.max_lifetime = seconds(100);
  SessionBench bench(options);
  TestClient older(bench, 0, "me");
  TestClient newer(bench, 0, "me");
  older.query("BEGIN");
  bench.advance(seconds(50));
  newer.query("BEGIN");
  newer.query("COMMIT");
  older.query("COMMIT");  // Used last, and so the first to be looked at.
  REQUIRE(bench.slice().idle_count() == 2);
  // Not by advance(): the sweep would have closed it.
  bench.clock.advance(seconds(45));
  newer.query("mine");
  CHECK(newer.take_tags() == "CZCZTDCZ");
  CHECK(bench.server.sessions().size() == 2);
  CHECK(bench.slice().waiters_count() == 0);
}

TEST_CASE("a backend that was idle for too long is not handed out, even before the next sweep") {
  BenchOptions options = with_ageless_backends(2);
  options.limits.idle_timeout = seconds(5);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.query("a");
  const uint32_t process_id = bench.server.only().process_id();
  bench.clock.advance(seconds(6));
  client.query("b");
  CHECK(client.take_tags() == "TDCZTDCZ");
  CHECK(bench.server.only().process_id() != process_id);
}

TEST_CASE("a backend goes back to the pool that it came from") {
  SessionBench bench(with_ageless_backends(2));
  TestClient mine(bench, 0, "me");
  TestClient yours(bench, 0, "you");
  mine.query("BEGIN");
  yours.query("BEGIN");
  yours.query("COMMIT");
  mine.query("COMMIT");
  for (const char* user : {"me", "you"}) {
    CHECK(bench.slice(0, user).idle_count() == 1);
    CHECK(bench.slice(0, user).backends_count() == 1);
  }
  CHECK(bench.server.open_sessions()[0]->queries() == bench.server.open_sessions()[1]->queries());
}

TEST_CASE("users, databases and settings have connections of their own, logged in as asked") {
  struct Identity {
    const char* user;
    const char* database;
    std::vector<std::pair<std::string, std::string>> settings;
  };
  const Identity identities[] = {
      {"me", "db", {}}, {"you", "db", {}}, {"me", "db2", {}}, {"me", "db", {{"jit", "off"}}}};
  SessionBench bench(with_ageless_backends(2));
  std::vector<TestClient> clients;
  for (const auto& [user, database, settings] : identities) {
    clients.emplace_back(bench).write(startup_packet(user, database, settings));
    REQUIRE(clients.back().take_tags().ends_with("KZ"));
  }
  for (int round = 0; round < 3; ++round)
    for (size_t i = 0; i < clients.size(); ++i) clients[i].query(std::to_string(i));
  const std::vector<ServerSession*> sessions = bench.server.open_sessions();
  REQUIRE(sessions.size() == clients.size());
  for (size_t i = 0; i < sessions.size(); ++i) {
    CHECK(sessions[i]->user() == identities[i].user);
    CHECK(sessions[i]->database() == identities[i].database);
    CHECK(sessions[i]->queries() == std::vector<std::string>(3, std::to_string(i)));
  }
}

TEST_CASE("getting an idle backend and giving it back draws no random number") {
  SessionBench bench(with_ageless_backends(1));
  TestClient client(bench, 0, "me");
  SeededRandom before = bench.core().random;
  for (int i = 0; i < 10; ++i) client.query("a");
  SeededRandom after = bench.core().random;
  uint64_t expected = 0;
  uint64_t number = 1;
  before.fill({reinterpret_cast<uint8_t*>(&expected), sizeof(expected)});
  after.fill({reinterpret_cast<uint8_t*>(&number), sizeof(number)});
  CHECK(number == expected);
}

// Somebody who wants a backend and nothing else.
class Wisher final : public ClientlessLessee {
 public:
  void on_leased(Backend&) noexcept override { is_leased = true; }
  void on_wait_failed(const PoolError& failure) noexcept override { error = failure; }
  void on_pool_changed(PoolEntry&) noexcept override {}
  void on_notification(const Notification&) noexcept override {}
  void on_ready(uint8_t, bool) noexcept override {}
  void on_skipped_error(const ErrorFields&) noexcept override {}
  void on_backend_lost(const PoolError&, Loss) noexcept override {}

  bool is_leased = false;
  PoolError error;
};

TEST_CASE("a node that has no address is an error, never a backend without a connection") {
  SessionBench bench;
  NodeOptions options;
  options.name = "nowhere";
  options.hosts = {"nowhere.invalid"};
  Node nowhere(options, bench.resolver);
  const BenchDirectory directory(nowhere, {});
  Slice& slice = bench.pools().pool_of(directory.pool_of("db", "me", {})).slice;
  Wisher wisher;
  CHECK_FALSE(bench.pools().acquire(slice, wisher));
  bench.settle();
  bench.advance(milliseconds(1));
  CHECK_FALSE(wisher.is_leased);
  CHECK(wisher.error.sqlstate == "08006");
  CHECK(wisher.error.message.find("nowhere") != std::string::npos);
  CHECK(slice.backends_count() + slice.connecting_count() == 0);
  CHECK(nowhere.limit.taken() == 0);
  bench.finish();
}

}  // namespace
}  // namespace helios
