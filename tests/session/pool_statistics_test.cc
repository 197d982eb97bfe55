// Whatever happens to clients and backends is counted, once, and the counts agree with each other.
#include <doctest/doctest.h>

#include <algorithm>
#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "helios/wire/crypto.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

Statistics statistics_of(SessionBench& bench) {
  Statistics sum;
  for (CoreId core = 0; core < bench.options.cores_count; ++core)
    sum.merge(bench.core(core).pools.statistics());
  return sum;
}
PoolCounters counters_of(SessionBench& bench) {
  return statistics_of(bench).total.counters;
}
PoolGauges gauges_of(SessionBench& bench) {
  return statistics_of(bench).total.gauges;
}

void check_figures(const PoolFigures& figures) {
  const PoolGauges& now = figures.gauges;
  const PoolCounters& all = figures.counters;
  CHECK(all.at_once + all.wait_time.count() == all.use_time.count() + now.leased);
  CHECK(all.waited == all.wait_time.count() + all.failures.total() + now.waiters);
  CHECK(all.connects == all.connect_time.count() + all.connect_failures + now.connecting);
  CHECK(all.connect_time.count() + all.moves_in ==
        all.moves_out + all.closes.total() + now.idle + now.leased + now.settling);
  CHECK(all.moves_in == all.moves_out);
}

// Requires: nothing is on its way (settled).
void check_books(SessionBench& bench) {
  const Statistics statistics = statistics_of(bench);
  uint64_t total = 0;
  uint64_t moves_out = 0;
  for (const auto& [key, pool] : statistics.pools) moves_out += pool.figures.counters.moves_out;
  // What a core had counted for a pool that it has forgotten is in the total only.
  const bool is_complete = moves_out == statistics.total.counters.moves_out;
  for (const auto& [key, pool] : statistics.pools) {
    if (is_complete) check_figures(pool.figures);
    // Each core deals with its own share from the moment that it knows the pool.
    uint64_t held = 0;
    uint64_t dealt = 0;
    for (CoreId core = 0; core < bench.options.cores_count; ++core) {
      const Slice& slice = bench.slice(core, pool.user, pool.database);
      held += slice.backends_count() + slice.connecting_count();
      dealt += slice.backends_count() + slice.connecting_count() + slice.permits_free();
    }
    CHECK(pool.figures.gauges.total() == held);
    CHECK(dealt == pool.max_connections);
    total += held;
  }
  check_figures(statistics.total);
  CHECK(statistics.total.gauges.total() == total);
  CHECK(bench.node.limit.taken() == total);
  REQUIRE(statistics.nodes.size() <= 1);
  for (const auto& [name, node] : statistics.nodes) {
    CHECK(node.figures.gauges.total() == total);
    CHECK(node.figures.counters.acquires() == statistics.total.counters.acquires());
  }
}

TEST_CASE("an acquire is counted as served at once or as waited, and its times are kept") {
  SessionBench bench(with_ageless_backends(1));
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  const PoolCounters before = counters_of(bench);
  CHECK(before.waited == 1);  // The first login, for the pool's welcome.
  holder.query("BEGIN");
  waiter.query("mine");
  CHECK(gauges_of(bench).leased == 1);
  CHECK(gauges_of(bench).waiters == 1);
  check_books(bench);
  bench.advance(seconds(3));
  CHECK(gauges_of(bench).oldest_wait == seconds(3));
  CHECK(gauges_of(bench).oldest_backend == seconds(3));
  CHECK(gauges_of(bench).newest_backend == seconds(3));
  holder.query("COMMIT");
  holder.query("again");
  const PoolCounters after = counters_of(bench);
  CHECK(after.at_once == before.at_once + 2);
  CHECK(after.waited == before.waited + 1);
  CHECK(after.waiters_max == 1);
  CHECK(after.failures.total() == 0);
  CHECK(after.wait_time.count() == before.wait_time.count() + 1);
  CHECK(after.wait_time.max() == static_cast<uint64_t>(seconds(3)));
  CHECK(after.use_time.count() == before.use_time.count() + 3);
  CHECK(after.use_time.max() == static_cast<uint64_t>(seconds(3)));
  CHECK(gauges_of(bench).oldest_wait == 0);
  CHECK(gauges_of(bench).idle == 1);
  CHECK(gauges_of(bench).clients == 2);
  check_books(bench);
}

TEST_CASE("a wait that ends without a backend is counted by its reason") {
  BenchOptions options = with_ageless_backends(1);
  options.limits.acquire_timeout = seconds(5);
  SessionBench bench(options);
  TestClient holder(bench, 0, "me");
  TestClient leaver(bench, 0, "me");
  TestClient patient(bench, 0, "me");
  TestClient last(bench, 0, "me");
  holder.query("BEGIN");
  leaver.query("never");
  leaver.close();
  patient.query("never");
  bench.advance(seconds(6));
  CHECK(patient.take_error() == "53300");
  last.query("never");
  bench.start_drain();
  const PoolCounters counters = counters_of(bench);
  CHECK(counters.failures[WaitFailure::client_left] == 1);
  CHECK(counters.failures[WaitFailure::timed_out] == 1);
  CHECK(counters.failures[WaitFailure::shutting_down] == 1);
  CHECK(counters.failures.total() == 3);
  CHECK(counters.waiters_max == 1);
  check_books(bench);
}

TEST_CASE("connects that fail are counted, with those whom they fail") {
  SessionBench bench(with_ageless_backends(1));
  bench.server.stop_listening();
  for (int i = 1; i <= 6; ++i) {
    TestClient client(bench);
    client.write(startup_packet("me", "db"));
    bench.advance(seconds(2));
    CHECK(client.take_error() == "08006");
    const PoolCounters counters = counters_of(bench);
    CHECK(counters.connects >= static_cast<uint64_t>(i));
    CHECK(counters.connects == counters.connect_failures);
    CHECK(counters.failures[WaitFailure::node_error] == static_cast<uint64_t>(i));
    check_books(bench);
  }
}

TEST_CASE("connect and login have their time") {
  SessionBench bench(with_ageless_backends(1));
  bench.server.holds_logins = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  CHECK(gauges_of(bench).connecting == 1);
  check_books(bench);
  bench.advance(seconds(2));
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(counters_of(bench).connect_time.count() == 1);
  CHECK(counters_of(bench).connect_time.max() == static_cast<uint64_t>(seconds(2)));
  check_books(bench);
}

TEST_CASE("every end of a backend is counted by its reason") {
  BenchOptions options = with_ageless_backends(2);
  CloseReason reason = CloseReason::idle;
  std::function<void(SessionBench&, TestClient&)> act;
  SUBCASE("idle") {
    options.limits.idle_timeout = seconds(3);
    act = [](SessionBench& bench, TestClient&) { bench.advance(seconds(5)); };
  }
  SUBCASE("lifetime") {
    options.limits.max_lifetime = seconds(3);
    reason = CloseReason::lifetime;
    act = [](SessionBench& bench, TestClient&) { bench.advance(seconds(5)); };
  }
  SUBCASE("lifetime, seen when it comes back") {
    options.limits.max_lifetime = seconds(3);
    reason = CloseReason::lifetime;
    act = [](SessionBench& bench, TestClient& client) {
      client.query("BEGIN");
      bench.advance(seconds(5));
      client.query("COMMIT");
    };
  }
  SUBCASE("failed while idle") {
    reason = CloseReason::failed;
    act = [](SessionBench& bench, TestClient&) {
      bench.server.only().reset();
      bench.settle();
    };
  }
  SUBCASE("failed while leased") {
    reason = CloseReason::failed;
    act = [](SessionBench& bench, TestClient& client) {
      client.query("BEGIN");
      bench.server.only().end();
      bench.settle();
    };
  }
  SUBCASE("failed by breaking the protocol") {
    reason = CloseReason::failed;
    act = [](SessionBench& bench, TestClient&) {
      bench.server.only().write(frame('D', "row"));
      bench.settle();
      CHECK(counters_of(bench).violations == 1);
    };
  }
  SUBCASE("dropped") {
    reason = CloseReason::dropped;
    act = [](SessionBench&, TestClient& client) {
      client.query("COPYIN");  // Only a client can end it.
      client.close();
    };
  }
  SUBCASE("made room") {
    options.node.max_connections = 1;
    reason = CloseReason::made_room;
    act = [](SessionBench& bench, TestClient&) {
      TestClient other(bench);
      other.write(startup_packet("you", "db"));
      CHECK(other.take_tags() == "RSSSSSSKZ");
    };
  }
  SUBCASE("shutting down") {
    reason = CloseReason::shutting_down;
    act = [](SessionBench& bench, TestClient&) { bench.start_drain(); };
  }
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  act(bench, client);
  const PoolCounters counters = counters_of(bench);
  CHECK(counters.closes[reason] == 1);
  CHECK(counters.closes.total() == 1);
  check_books(bench);
}

TEST_CASE("a backend whose server is slow to close is closing, holds its permit, and is counted") {
  BenchOptions options = with_ageless_backends(1);
  options.limits.idle_timeout = seconds(3);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  bench.server.holds_ends = true;
  bench.advance(seconds(5));
  CHECK(gauges_of(bench).closing == 1);
  CHECK(gauges_of(bench).permits_free == 0);
  CHECK(counters_of(bench).late_ends == 0);
  check_books(bench);
  bench.advance(seconds(61));
  CHECK(gauges_of(bench).total() == 0);
  CHECK(counters_of(bench).late_ends == 1);
  check_books(bench);
}

TEST_CASE("a backend that is lost while it recovers is not one whose server is slow to close") {
  SessionBench bench(with_ageless_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("long");
  client.close();
  bench.settle();
  server.reset();
  // In the turn in which the loss is seen the next cancel request is due.
  while (bench.network.step() != nullptr) {
  }
  bench.advance(milliseconds(500));
  CHECK(counters_of(bench).late_ends == 0);
  CHECK(gauges_of(bench).total() == 0);
}

TEST_CASE("tests before use and those that fail are counted") {
  BenchOptions options = with_ageless_backends(1);
  options.limits.test_after = seconds(30);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  bench.advance(seconds(31));
  client.query("a");
  CHECK(counters_of(bench).tests == 1);
  CHECK(counters_of(bench).tests_failed == 0);
  bench.advance(seconds(31));
  bench.server.only().is_deaf = true;
  client.query("b");
  CHECK(gauges_of(bench).settling == 1);
  check_books(bench);
  bench.advance(seconds(6));
  CHECK(client.take_tags() == "TDCZTDCZ");
  CHECK(counters_of(bench).tests == 2);
  CHECK(counters_of(bench).tests_failed == 1);
  CHECK(counters_of(bench).closes[CloseReason::failed] == 1);
  check_books(bench);
}

TEST_CASE("resets between two leases are counted") {
  BenchOptions options = with_ageless_backends(1);
  options.limits.mode = LeaseMode::session;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.query("a");
  client.close();
  CHECK(counters_of(bench).resets == 1);
  check_books(bench);
}

TEST_CASE("cancel requests are counted at the pool whose server gets them") {
  SessionBench bench(with_ageless_backends(1));
  TestClient client(bench, 0, "me");
  bench.server.only().is_silent = true;
  client.query("long");
  client.reset();
  CHECK(counters_of(bench).cancels == 1);
}

TEST_CASE("moves between cores are counted on both, and the sums agree") {
  SessionBench bench(with_ageless_backends(1, 2));
  TestClient here(bench, 0, "me");
  here.query("a");
  TestClient there(bench, 1, "me");
  there.query("b");
  CHECK(there.take_tags() == "TDCZ");
  CHECK(bench.core(0).pools.statistics().total.counters.moves_out == 1);
  CHECK(bench.core(1).pools.statistics().total.counters.moves_in == 1);
  CHECK(counters_of(bench).connects == 1);
  CHECK(gauges_of(bench).total() == 1);
  check_books(bench);
}

TEST_CASE("pools of one user and database that differ in their settings are told apart") {
  SessionBench bench(with_ageless_backends(2));
  TestClient plain(bench, 0, "me");
  TestClient special(bench, 0, "me", {{"statement_timeout", "5s"}});
  const Statistics statistics = statistics_of(bench);
  REQUIRE(statistics.pools.size() == 2);
  std::vector<std::string> settings;
  for (const auto& [key, pool] : statistics.pools) settings.push_back(pool.settings);
  std::sort(settings.begin(), settings.end());
  CHECK(settings == std::vector<std::string>{"", "statement_timeout=5s"});
  CHECK(statistics.nodes.at("main").figures.gauges.total() == 2);
}

TEST_CASE("a pool that nobody uses is forgotten, its counts are not") {
  BenchOptions options = with_ageless_backends(1);
  options.limits.idle_timeout = seconds(5);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.query("a");
  client.close();
  const PoolCounters before = counters_of(bench);
  for (int i = 0; i < 80; ++i) bench.advance(seconds(1));
  const Statistics after = statistics_of(bench);
  CHECK(after.pools.empty());
  CHECK(after.total.counters.acquires() == before.acquires());
  CHECK(after.total.counters.use_time.count() == before.use_time.count());
  CHECK(after.nodes.at("main").figures.counters.acquires() == before.acquires());
  CHECK(after.total.counters.closes[CloseReason::idle] == 1);
  CHECK(after.total.gauges.total() == 0);
  check_figures(after.total);
}

// Clients that come, work, wait and go, servers that break, and time: after each step the books are
// right.
void live_at_random(uint64_t seed) {
  BenchOptions options = with_ageless_backends(3, static_cast<CoreId>(1 + seed % 3));
  options.network.seed = seed;
  options.node.max_connections = 4;
  options.limits.acquire_timeout = seconds(9);
  options.limits.idle_timeout = seconds(20);
  options.limits.max_lifetime = seconds(40);
  options.limits.test_after = seconds(10);
  options.limits.min_connections = seed % 2;
  SessionBench bench(options);
  SeededRandom random(seed);
  const auto below = [&](uint8_t bound) {
    uint8_t byte = 0;
    random.fill({&byte, 1});
    return static_cast<uint8_t>(byte % bound);
  };
  constexpr size_t clients_count = 12;
  std::vector<TestClient> clients;
  for (size_t i = 0; i < clients_count; ++i) {
    clients.emplace_back(bench, static_cast<CoreId>(i % options.cores_count));
    clients.back().write(startup_packet(i % 4 == 0 ? "you" : "me", "db"));
  }
  for (int step = 0; step < 150; ++step) {
    TestClient& client = clients[below(clients_count)];
    switch (below(10)) {
      case 0:
      case 1:
      case 2:
        client.query("select");
        break;
      case 3:
      case 4:
        client.query("BEGIN");
        break;
      case 5:
      case 6:
        client.query("COMMIT");
        break;
      case 7:
        below(4) == 0 ? client.close() : client.query("PREPARE s AS x");
        break;
      case 8:
        bench.advance(seconds(1 + below(8)));
        break;
      default: {
        const auto open = bench.server.open_sessions();
        if (open.empty() || below(3) != 0) break;
        open[below(static_cast<uint8_t>(open.size()))]->reset();
        bench.settle();
        break;
      }
    }
    check_books(bench);
  }
  bench.start_drain();
  check_books(bench);
}

TEST_CASE("whatever happens, the books are right") {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    CAPTURE(seed);
    live_at_random(seed);
  }
}

struct Collected {
  int times = 0;
  Statistics statistics;
  static void on_done(void* self, const Statistics& statistics) noexcept {
    ++static_cast<Collected*>(self)->times;
    static_cast<Collected*>(self)->statistics = statistics;
  }
};

TEST_CASE("any core collects the statistics of all, and several may at the same time") {
  for (const CoreId cores_count : {CoreId{1}, CoreId{2}, CoreId{5}}) {
    SessionBench bench(with_ageless_backends(10, cores_count));
    std::vector<TestClient> clients;
    for (CoreId core = 0; core < cores_count; ++core) {
      clients.emplace_back(bench, core, "me");
      clients.back().query("a");
    }
    const Statistics expected = statistics_of(bench);
    Collected first;
    Collected second;
    bench.core(0).collector.collect(&Collected::on_done, &first);
    bench.core(static_cast<CoreId>(cores_count - 1))
        .collector.collect(&Collected::on_done, &second);
    bench.settle();
    for (const Collected* collected : {&first, &second}) {
      CHECK(collected->times == 1);
      CHECK(collected->statistics.pools.size() == 1);
      CHECK(table_lines(collected->statistics) == table_lines(expected));
      CHECK(collected->statistics.total.counters.acquires() == expected.total.counters.acquires());
    }
  }
}

}  // namespace
}  // namespace helios
