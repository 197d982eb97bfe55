// Pools that a new configuration resizes, moves, removes and brings back, while they are in use.
#include <doctest/doctest.h>

#include <algorithm>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "helios/pool/pool_cores.h"
#include "helios/wire/error_response.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

BenchOptions with_cores(CoreId cores_count, uint32_t max_connections) {
  return with_ageless_backends(max_connections, cores_count);
}

// So many clients, each in a transaction of its own.
std::vector<TestClient> begin_transactions(SessionBench& bench, size_t count,
                                           std::string_view user = "me") {
  std::vector<TestClient> clients;
  for (size_t i = 0; i < count; ++i)
    clients.emplace_back(bench, static_cast<CoreId>(i % bench.options.cores_count), user);
  for (TestClient& client : clients) client.query("BEGIN");
  for (TestClient& client : clients) REQUIRE(client.take_tags() == "CZ");
  return clients;
}

void remove_database(BenchDirectory& next) {
  next.removed_databases.insert("db");
}

void restore_database(BenchDirectory& next) {
  next.removed_databases.clear();
}

PoolGauges total_gauges(SessionBench& bench) {
  PoolGauges sum;
  for (CoreId id = 0; id < bench.options.cores_count; ++id)
    sum.add(bench.core(id).pools.statistics().total.gauges);
  return sum;
}

PoolCounters total_counters(SessionBench& bench) {
  PoolCounters sum;
  for (CoreId id = 0; id < bench.options.cores_count; ++id)
    sum.add(bench.core(id).pools.statistics().total.counters);
  return sum;
}

TEST_CASE("a removed pool keeps count of what is out, and closes it when it comes back") {
  SessionBench bench(with_cores(1, 4));
  std::vector<TestClient> clients = begin_transactions(bench, 3);
  clients[2].query("COMMIT");
  REQUIRE(clients[2].take_tags() == "CZ");
  bench.reload(remove_database);
  CHECK(clients[2].take_error() == sqlstate::database_dropped);
  CHECK(clients[2].is_closed());
  CHECK(total_gauges(bench).leased == 2);
  CHECK(total_gauges(bench).total() == 2);
  CHECK(bench.node.limit.taken() == 2);
  clients[0].query("COMMIT");
  CHECK(clients[0].take_tags() == "CZE");
  CHECK(clients[0].is_closed());
  CHECK(total_gauges(bench).total() == 1);
  CHECK(bench.node.limit.taken() == 1);
  clients[1].query("COMMIT");
  CHECK(total_gauges(bench).total() == 0);
  CHECK(bench.node.limit.taken() == 0);
  // Said goodbye, each of them.
  for (const auto& session : bench.server.sessions()) CHECK(session->log.back().tag == 'X');
}

TEST_CASE("a pool that was removed and is back has its limit, old connections included") {
  for (const CoreId cores : {CoreId{1}, CoreId{2}}) {
    SessionBench bench(with_cores(cores, 2));
    std::vector<TestClient> old = begin_transactions(bench, 2);
    bench.reload(remove_database);
    bench.reload(restore_database);
    std::vector<TestClient> fresh;
    for (size_t i = 0; i < 2; ++i) {
      fresh.emplace_back(bench, static_cast<CoreId>(i % cores));
      fresh.back().write(startup_packet("me", "db") + query_message("mine"));
      const std::string tags = fresh.back().take_tags();
      CHECK(tags.find('D') == std::string::npos);  // It waits.
    }
    CHECK(bench.server.open_sessions().size() == 2);
    const auto before = bench.server.open_sessions();
    for (TestClient& client : old) {
      client.query("COMMIT");
      // The database is there again: this client may stay.
      CHECK(client.take_tags() == "CZ");
      CHECK(bench.server.open_sessions().size() <= 2);
    }
    for (TestClient& client : fresh) CHECK(client.take_tags().ends_with("TDCZ"));
    CHECK(total_gauges(bench).total() <= 2);
    CHECK(bench.slice().spec().shared->connections->limit->taken() <= 2);
  }
}

TEST_CASE("who holds a lease of session mode when its pool is back goes on holding it") {
  BenchOptions options = with_cores(2, 2);
  options.limits.mode = LeaseMode::session;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  ServerSession& server = *bench.server.open_sessions().front();
  client.write(parse_message("", "x") + sync_message());
  server.is_silent = true;
  client.write(sync_message());
  bench.reload(remove_database);
  bench.reload(restore_database);
  server.is_silent = false;
  server.write(ready());
  bench.settle();
  client.write(bind_message("", "") + execute_message() + sync_message());
  CHECK(client.take_tags() == "1ZZ2DCZ");
  CHECK(server.tags() == "PSSBES");
}

TEST_CASE("what a removed pool gets back does not join the one that has come in its place") {
  SessionBench bench(with_cores(1, 2));
  std::vector<TestClient> old = begin_transactions(bench, 2);
  ServerSession* former = bench.server.open_sessions()[0];
  bench.reload(remove_database);
  bench.reload([](BenchDirectory& next) {
    restore_database(next);
    next.password = "another";
  });
  old[0].query("COMMIT");
  CHECK(old[0].take_tags() == "CZ");
  CHECK_FALSE(former->is_open());
  CHECK(former->log.back().tag == 'X');
  old[0].query("a");
  CHECK(old[0].take_tags() == "TDCZ");
  CHECK(bench.server.open_sessions().size() == 2);
}

TEST_CASE("a node that has moved hands out no connection to the old host") {
  for (const CoreId cores : {CoreId{1}, CoreId{2}}) {
    SessionBench bench(with_cores(cores, 3));
    NodeOptions elsewhere = scripted_node();
    elsewhere.port = 6000;
    elsewhere.cores_count = cores;
    Node moved(elsewhere, bench.resolver);
    ScriptedServer other(bench.network, 6000);
    std::vector<TestClient> clients = begin_transactions(bench, 3);
    clients[2].query("COMMIT");
    bench.others.push_back(&other);
    bench.reload([&](BenchDirectory& next) { next.node = &moved; });
    // The idle one has gone, those in use stay.
    CHECK(bench.server.open_sessions().size() == 2);
    clients[0].query("still here");
    CHECK(clients[0].take_tags() == "TDCZ");
    CHECK(other.open_sessions().empty());
    clients[2].query("there");
    CHECK(clients[2].take_tags().ends_with("TDCZ"));
    CHECK(other.open_sessions().size() == 1);
    for (size_t i = 0; i < 2; ++i) clients[i].query("COMMIT");
    CHECK(bench.server.open_sessions().empty());
    for (TestClient& client : clients) client.query("and now");
    for (TestClient& client : clients) CHECK(client.take_tags().ends_with("TDCZ"));
    CHECK(bench.node.limit.taken() == 0);
    CHECK(moved.limit.taken() >= 1);
    clients.clear();
    bench.finish();
  }
}

// The second node of a test and its server.
struct SecondNode {
  SecondNode(SessionBench& bench, CoreId cores_count)
      : node(options_of(cores_count), bench.resolver), server(bench.network, port) {
    bench.others.push_back(&server);
  }
  static NodeOptions options_of(CoreId cores_count) {
    NodeOptions options = scripted_node();
    options.port = port;
    options.cores_count = cores_count;
    return options;
  }
  static constexpr uint16_t port = 6000;
  Node node;
  ScriptedServer server;
};

// One client on each core, which has had an answer.
std::vector<TestClient> use_database(SessionBench& bench, std::string_view database) {
  std::vector<TestClient> clients;
  for (CoreId core = 0; core < bench.options.cores_count; ++core) {
    clients.emplace_back(bench, core);
    clients.back().write(startup_packet("me", database) + query_message("q"));
    REQUIRE(clients.back().take_tags().ends_with("ZTDCZ"));
  }
  return clients;
}

TEST_CASE("a node that is added serves, and one that is removed goes, without a word to others") {
  for (const CoreId cores : {CoreId{1}, CoreId{3}}) {
    CAPTURE(cores);
    SessionBench bench(with_cores(cores, 6));
    SecondNode second(bench, cores);
    std::vector<TestClient> leaving = begin_transactions(bench, 3);
    for (size_t i = 1; i < 3; ++i) leaving[i].query("COMMIT");
    bench.reload([&](BenchDirectory& next) {
      next.adapt = [&second](PoolSpec& spec) {
        if (spec.database == "new") spec.node = &second.node;
      };
    });
    std::vector<TestClient> staying = use_database(bench, "new");
    const uint64_t logins = second.server.logins_count;
    CHECK(logins >= 1);
    CHECK(second.node.limit.taken() == logins);
    CHECK(bench.node.limit.taken() == 3);
    bench.reload(remove_database);
    CHECK(bench.server.open_sessions().size() == 1);
    leaving[0].query("COMMIT");
    CHECK(bench.server.open_sessions().empty());
    CHECK(bench.node.limit.taken() == 0);
    for (TestClient& client : leaving) CHECK(client.is_closed());
    for (TestClient& client : staying) client.query("q");
    for (TestClient& client : staying) CHECK(client.take_tags() == "TDCZ");
    CHECK(second.server.logins_count == logins);
    staying.clear();
    bench.finish();
  }
}

TEST_CASE("a node that is down is tried no more once no pool has it") {
  for (const CoreId cores : {CoreId{1}, CoreId{3}}) {
    CAPTURE(cores);
    SessionBench bench(with_cores(cores, 6));
    std::vector<TestClient> clients = use_database(bench, "db");
    bench.server.stop_listening();
    for (ServerSession* session : bench.server.open_sessions()) session->reset();
    bench.settle();
    for (TestClient& client : clients) client.query("q");
    REQUIRE(bench.node.health.is_down());
    const auto connects_in = [&](Nanoseconds time) {
      const uint64_t before = total_counters(bench).connects;
      bench.advance_in_steps(time, milliseconds(10));
      return total_counters(bench).connects - before;
    };
    CHECK(connects_in(seconds(5)) > 0);
    bench.reload(remove_database);
    CHECK(connects_in(seconds(30)) == 0);
    // It is tried at once, or after its pause, where a pool has it again.
    bench.reload(restore_database);
    bench.server.start_listening();
    TestClient back(bench, static_cast<CoreId>(cores - 1));
    back.write(startup_packet("me", "db") + query_message("q"));
    bench.advance_in_steps(seconds(2), milliseconds(10));
    CHECK(back.take_tags().ends_with("ZTDCZ"));
  }
}

TEST_CASE("a connect to a host that the node has left does not hold up the new one") {
  SessionBench bench(with_cores(1, 1));
  NodeOptions elsewhere = scripted_node();
  elsewhere.port = 6000;
  Node moved(elsewhere, bench.resolver);
  ScriptedServer other(bench.network, 6000);
  bench.others.push_back(&other);
  bench.server.holds_logins = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db") + query_message("a"));
  CHECK(client.take_tags() == "R");
  bench.reload([&](BenchDirectory& next) { next.node = &moved; });
  // Its connect_timeout is 15 s.
  bench.advance(seconds(6));
  CHECK(client.take_tags().ends_with("ZTDCZ"));
  CHECK(bench.node.limit.taken() == 0);
  client.close();
  bench.finish();
}

TEST_CASE("a connect that a reload overtakes still tells what its server reports") {
  SessionBench bench(with_cores(1, 1));
  bench.server.holds_logins = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db", {{"application_name", "mine"}}));
  CHECK(client.take_tags() == "R");
  bench.reload([](BenchDirectory& next) { next.limits.idle_timeout = seconds(77); });
  bench.server.holds_logins = false;
  bench.settle();
  const std::vector<WireMessage> welcome = client.take();
  const auto has = [&](const std::string& body) {
    return std::any_of(welcome.begin(), welcome.end(),
                       [&](const WireMessage& message) { return message.body == body; });
  };
  CHECK(tags_of(welcome) == "SSSSSSKZ");
  CHECK(has(std::string("application_name\0mine\0", 22)));
  CHECK(bench.server.sessions().size() == 1);
}

TEST_CASE("a pool that grows serves its waiters, and keeps its connections") {
  for (const CoreId cores : {CoreId{1}, CoreId{2}, CoreId{3}}) {
    SessionBench bench(with_cores(cores, 2));
    std::vector<TestClient> clients = begin_transactions(bench, 2);
    std::vector<TestClient> waiting;
    for (size_t i = 0; i < 3; ++i) {
      waiting.emplace_back(bench, static_cast<CoreId>(i % cores), "me");
      waiting.back().query("BEGIN");
      CHECK(waiting.back().take_tags().empty());
    }
    bench.reload([](BenchDirectory& next) { next.limits.max_connections = 5; });
    for (TestClient& client : waiting) CHECK(client.take_tags() == "CZ");
    CHECK(bench.server.sessions().size() == 5);
    for (TestClient& client : clients) client.query("COMMIT");
    for (TestClient& client : waiting) client.query("COMMIT");
    for (TestClient& client : clients) CHECK(client.take_tags() == "CZ");
    CHECK(bench.slice().spec().shared->connections->limit->max() == 5);
  }
  SUBCASE("on one core none is made anew") {
    SessionBench bench(with_cores(1, 2));
    std::vector<TestClient> clients = begin_transactions(bench, 2);
    bench.reload([](BenchDirectory& next) { next.limits.max_connections = 5; });
    for (TestClient& client : clients) client.query("COMMIT");
    CHECK(bench.server.sessions().size() == 2);
    CHECK(bench.slice().idle_count() == 2);
  }
}

TEST_CASE("a pool that shrinks closes what is idle at once, what is in use when it comes back") {
  for (const CoreId cores : {CoreId{1}, CoreId{2}}) {
    SessionBench bench(with_cores(cores, 6));
    std::vector<TestClient> clients = begin_transactions(bench, 6);
    for (size_t i = 4; i < 6; ++i) clients[i].query("COMMIT");
    bench.reload([](BenchDirectory& next) { next.limits.max_connections = 2; });
    CHECK(bench.server.open_sessions().size() <= 6);
    const size_t still_open = bench.server.open_sessions().size();
    std::vector<TestClient> waiting;
    for (size_t i = 0; i < 4; ++i) {
      waiting.emplace_back(bench, static_cast<CoreId>(i % cores), "me");
      waiting.back().query("mine");
      CHECK(bench.server.open_sessions().size() <= still_open);
    }
    for (size_t i = 0; i < 4; ++i) clients[i].query("COMMIT");
    CHECK(bench.server.open_sessions().size() <= 2);
    for (TestClient& client : waiting) CHECK(client.take_tags() == "TDCZ");
    CHECK(bench.node.limit.taken() <= 2);
  }
}

TEST_CASE("a node that shrinks closes what is idle at once, what is in use when it comes back") {
  SessionBench bench(with_cores(2, 6));
  std::vector<TestClient> clients = begin_transactions(bench, 6);
  for (size_t i = 3; i < 6; ++i) clients[i].query("COMMIT");
  REQUIRE(bench.node.limit.taken() == 6);
  NodeOptions smaller = bench.options.node;
  smaller.max_connections = 2;
  bench.node.update(smaller);
  bench.reload([](BenchDirectory&) {});
  CHECK(bench.node.limit.taken() == 3);
  CHECK(bench.server.open_sessions().size() == 3);
  clients[0].query("COMMIT");
  CHECK(bench.node.limit.taken() == 2);
  for (size_t i = 1; i < 3; ++i) clients[i].query("COMMIT");
  CHECK(bench.node.limit.taken() == 2);
  smaller.max_connections = 6;
  bench.node.update(smaller);
  bench.reload([](BenchDirectory&) {});
  for (TestClient& client : clients) (void)client.take();
  for (TestClient& client : clients) client.query("BEGIN");
  for (TestClient& client : clients) CHECK(client.take_tags() == "CZ");
}

TEST_CASE("waiters of a removed database or user are told at once") {
  const auto check = [](const std::function<void(BenchDirectory&)>& change, std::string_view code,
                        std::string_view name) {
    SessionBench bench(with_cores(2, 1));
    std::vector<TestClient> owner = begin_transactions(bench, 1);
    TestClient here(bench, 0, "me");
    TestClient there(bench, 1, "me");
    here.query("a");
    there.query("b");
    bench.reload(change);
    for (TestClient* client : {&here, &there}) {
      const std::vector<WireMessage> told = client->take();
      REQUIRE(tags_of(told) == "E");
      CHECK(field_of(told[0], 'C') == code);
      CHECK(field_of(told[0], 'M').find(name) != std::string::npos);
      CHECK(client->is_closed());
    }
    owner[0].query("COMMIT");
    CHECK(owner[0].take_tags() == "CZE");
  };
  check(remove_database, sqlstate::database_dropped, "database \"db\" was removed");
  check([](BenchDirectory& next) { next.removed_users.insert("me"); }, sqlstate::admin_shutdown,
        "user \"me\" was removed");
}

TEST_CASE("waiters keep their time and their order when their pool changes") {
  SessionBench bench(with_cores(1, 1));
  std::vector<TestClient> owner = begin_transactions(bench, 1);
  std::vector<TestClient> waiting;
  for (int i = 0; i < 3; ++i) {
    waiting.emplace_back(bench, 0, "me");
    waiting.back().query("BEGIN");
    bench.advance(seconds(1));
  }
  bench.reload([](BenchDirectory& next) { next.limits.acquire_timeout = seconds(5); });
  owner[0].query("COMMIT");
  CHECK(waiting[0].take_tags() == "CZ");
  bench.advance(seconds(3));
  CHECK(waiting[1].take_error() == sqlstate::too_many_connections);
  CHECK(waiting[2].take_tags().empty());
  waiting[0].query("COMMIT");
  CHECK(waiting[2].take_tags() == "CZ");
}

// A waiter on the home core of its pool, and an idle backend on the other core, which knows the
// next configuration already: behind the reload the waiter comes over to it.
struct ComingOver {
  explicit ComingOver(BenchOptions options = with_cores(2, 1)) : bench(placed(options)) {
    holder.query("BEGIN");
    waiter.query("mine");
    next = &bench.reconfigure([](BenchDirectory& changed) {
      changed.limits.max_connections = 2;
      changed.password = "another";
    });
    // A client that comes in by a core that knows goes to one that does not know yet.
    bench.core(elsewhere).sessions.reload(*next);
    newcomer.emplace(bench, elsewhere, "me");
    newcomer->query("a");
    CHECK(newcomer->take_tags() == "TDCZ");
  }
  static BenchOptions placed(BenchOptions options) {
    options.places_sessions = true;
    return options;
  }
  void reload_home() {
    bench.core(home).sessions.reload(*next);
    bench.settle();
  }

  SessionBench bench;
  const CoreId home = PoolCores(pool_key("db", "me", {}), 2).core_at(0);
  const CoreId elsewhere = static_cast<CoreId>(1 - home);
  TestClient holder{bench, home, "me"};
  TestClient waiter{bench, home, "me"};
  std::optional<TestClient> newcomer;
  const BenchDirectory* next = nullptr;
};

TEST_CASE("a waiter that comes over to where a backend is idle gets it at once") {
  ComingOver scene;
  CHECK(scene.waiter.take_tags().empty());
  scene.reload_home();
  CHECK(scene.waiter.take_tags() == "TDCZ");
  CHECK(scene.bench.server.sessions().size() == 2);
}

TEST_CASE("a backend that was idle for long is tested before a waiter that comes over gets it") {
  BenchOptions options = with_cores(2, 1);
  options.limits.test_after = seconds(30);
  options.limits.idle_timeout = 0;
  ComingOver scene(options);
  REQUIRE(scene.bench.server.sessions().size() == 2);
  ServerSession& server = *scene.bench.server.sessions().back();
  server.log.clear();
  scene.bench.clock.advance(seconds(40));
  scene.reload_home();
  CHECK(scene.waiter.take_tags() == "TDCZ");
  CHECK(server.tags() == "QQ");
  CHECK(server.queries() == std::vector<std::string>{"mine"});
}

TEST_CASE("a waiter is told once that it waits, whatever its pool becomes meanwhile") {
  BenchOptions options = with_cores(1, 1);
  options.limits.wait_notice = seconds(5);
  SessionBench bench(options);
  std::vector<TestClient> holder = begin_transactions(bench, 1);
  TestClient waiter(bench, 0, "me");
  waiter.query("a");
  bench.advance(seconds(5));
  CHECK(waiter.take_tags() == "N");
  bench.reload([](BenchDirectory& next) { next.limits.idle_timeout = seconds(77); });
  bench.advance_in_steps(seconds(10), seconds(1));
  CHECK(waiter.take_tags().empty());
  holder[0].query("COMMIT");
  CHECK(waiter.take_tags() == "TDCZ");
  // The next wait is another one.
  holder[0].query("BEGIN");
  CHECK(holder[0].take_tags() == "CZCZ");
  waiter.query("b");
  bench.advance(seconds(5));
  CHECK(waiter.take_tags() == "N");
}

TEST_CASE("pools that a new configuration does not change notice nothing") {
  SessionBench bench(with_cores(2, 3));
  std::vector<TestClient> clients = begin_transactions(bench, 3);
  clients[0].query("COMMIT");
  const uint64_t logins = bench.server.logins_count;
  const PoolEntry* entry = bench.core(0).pools.find_pool(bench.slice().spec().key);
  bench.reload([](BenchDirectory& next) { next.removed_databases.insert("other"); });
  CHECK(bench.core(0).pools.find_pool(bench.slice().spec().key) == entry);
  CHECK_FALSE(bench.slice().is_superseded());
  for (TestClient& client : clients) client.query("go on");
  CHECK(bench.server.logins_count == logins);
}

TEST_CASE("a client in session mode keeps its connection while its pool changes, until it leaves") {
  BenchOptions options = with_cores(1, 2);
  options.limits.mode = LeaseMode::session;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.query("mine");
  ServerSession& server = bench.server.only();
  bench.reload([](BenchDirectory& next) {
    next.limits.mode = LeaseMode::transaction;
    next.password = "another";
  });
  client.query("still mine");
  CHECK(server.queries() == std::vector<std::string>{"mine", "still mine"});
  client.close();
  CHECK_FALSE(server.is_open());
}

TEST_CASE("a client that is told of its start-up parameters meanwhile goes on in the new pool") {
  SessionBench bench(with_cores(1, 1));
  bench.server.new_is_silent = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db", {{"datestyle", "german"}}) + query_message("a"));
  REQUIRE(bench.server.open_sessions().size() == 1);
  ServerSession& server = bench.server.only();
  REQUIRE(server.log.size() == 1);
  bench.server.new_is_silent = false;
  bench.reload([](BenchDirectory& next) { next.password = "another"; });
  CHECK(server.is_open());
  server.write(frame('S', std::string("DateStyle\0German, DMY\0", 22)) + complete("SET") + ready());
  bench.settle();
  CHECK(client.take_tags().ends_with("TDCZ"));
  CHECK_FALSE(server.is_open());
}

TEST_CASE("messages of a core that does not know yet find the right generation") {
  SessionBench bench(with_cores(2, 2));
  // All connections on core 0, and core 1 asks for one.
  std::vector<TestClient> here;
  for (int i = 0; i < 2; ++i) here.emplace_back(bench, 0, "me");
  for (TestClient& client : here) client.query("BEGIN");
  const BenchDirectory& next =
      bench.reconfigure([](BenchDirectory& changed) { changed.password = "another"; });
  TestClient there(bench, 1, "me");
  there.query("BEGIN");
  CHECK(there.take_tags().empty());
  bench.core(0).sessions.reload(next);
  bench.settle();
  // A connection of the old generation comes back where it has ended; the other core waits in it.
  here[0].query("COMMIT");
  CHECK(bench.server.open_sessions().size() == 1);
  CHECK(there.take_tags().empty());
  bench.core(1).sessions.reload(next);
  bench.settle();
  CHECK(there.take_tags() == "CZ");
  CHECK(bench.server.open_sessions().size() == 2);
  here[1].query("COMMIT");
  for (TestClient& client : here) client.query("again");
  CHECK(bench.server.open_sessions().size() <= 2);
  there.query("COMMIT");
  for (TestClient& client : here) CHECK(client.take_tags().ends_with("TDCZ"));
}

// What is open at any time, by what the pool says and by what the server sees.
void check_limits(SessionBench& bench, uint32_t limit) {
  CHECK(bench.server.open_sessions().size() <= limit);
  CHECK(bench.node.limit.taken() <= limit);
}

TEST_CASE("a core that is two configurations behind knows of both and takes them over in order") {
  SessionBench bench(with_cores(2, 2));
  std::vector<TestClient> here;
  for (int i = 0; i < 2; ++i) here.emplace_back(bench, 0, "me");
  for (TestClient& client : here) client.query("BEGIN");
  TestClient there(bench, 1, "me");
  there.query("BEGIN");
  std::vector<const BenchDirectory*> news;
  for (const char* password : {"another", "a third"})
    news.push_back(&bench.reconfigure([&](BenchDirectory& next) { next.password = password; }));
  for (const CoreId core : {CoreId{1}, CoreId{0}}) {
    for (const BenchDirectory* next : news) {
      bench.core(core).sessions.reload(*next);
      bench.settle();
    }
  }
  for (TestClient& client : here) client.query("COMMIT");
  for (TestClient& client : here) CHECK(client.take_tags() == "CZCZ");
  CHECK(there.take_tags() == "CZ");
  CHECK(bench.slice(0).spec().shared == bench.slice(1).spec().shared);
  there.query("COMMIT");
  CHECK(bench.server.open_sessions().size() <= 2);
}

// The cores take it over one after the other, with some steps after each; `check` is called after
// each of these.
template <typename Check>
void reload_by_core(SessionBench& bench, const BenchDirectory& next, SimRandom& random,
                    Check check) {
  for (CoreId core = 0; core < bench.options.cores_count; ++core) {
    bench.core(core).sessions.reload(next);
    for (uint64_t steps = random.below(20); steps > 0 && bench.step(); --steps) check();
  }
}

TEST_CASE("whatever is configured in whatever order, limits hold and everybody is served") {
  for (uint64_t seed = 1; seed <= 60; ++seed) {
    CAPTURE(seed);
    BenchOptions options = with_cores(static_cast<CoreId>(1 + seed % 3), 4);
    options.network.seed = seed;
    SessionBench bench(options);
    SimRandom random(seed);
    std::vector<TestClient> clients;
    for (size_t i = 0; i < 9; ++i)
      clients.emplace_back(bench, static_cast<CoreId>(i % options.cores_count), "me");
    std::vector<bool> is_open(clients.size(), false);
    std::vector<bool> is_asking(clients.size(), false);
    uint32_t limit = 4;
    for (int round = 0; round < 60; ++round) {
      const size_t who = random.below(clients.size());
      if (!is_asking[who]) {
        is_open[who] = !is_open[who];
        clients[who].write_later(query_message(is_open[who] ? "BEGIN" : "COMMIT"));
        is_asking[who] = true;
      }
      if (random.below(6) == 0) {
        const BenchDirectory& next = bench.reconfigure([&](BenchDirectory& changed) {
          limit = static_cast<uint32_t>(1 + random.below(6));
          changed.limits.max_connections = limit;
          if (random.below(3) == 0) changed.password = std::to_string(round);
        });
        const uint32_t open = bench.node.limit.taken();
        // From the first core on nothing is opened beyond the new limit.
        reload_by_core(bench, next, random, [&] { check_limits(bench, std::max(limit, open)); });
      } else {
        for (uint64_t steps = random.below(40); steps > 0 && bench.step(); --steps) {
        }
      }
      for (size_t i = 0; i < clients.size(); ++i)
        if (is_asking[i] && clients[i].take_bytes().size() > 0) is_asking[i] = false;
    }
    // Everybody ends what it began; then as many are open as may be, and no more.
    for (int turn = 0; turn < 40; ++turn) {
      bench.settle();
      for (size_t i = 0; i < clients.size(); ++i) {
        if (is_asking[i] && clients[i].take_bytes().size() > 0) is_asking[i] = false;
        if (is_asking[i] || !is_open[i]) continue;
        is_open[i] = false;
        is_asking[i] = true;
        clients[i].write_later(query_message("COMMIT"));
      }
    }
    bench.settle();
    for (size_t i = 0; i < clients.size(); ++i) CHECK_FALSE(is_open[i]);
    check_limits(bench, limit);
    CHECK(bench.slice().spec().shared->connections->limit->taken() ==
          bench.server.open_sessions().size());
    for (TestClient& client : clients) {
      (void)client.take_bytes();
      client.query("last");
      CHECK(client.take_bytes().find("last") != std::string::npos);
    }
    check_limits(bench, limit);
  }
}

// Anything may change; who is told to go comes back later.
void change_anything(BenchDirectory& next, SimRandom& random, int round) {
  switch (random.below(8)) {
    case 0:
      if (next.removed_databases.empty())
        next.removed_databases.insert("db");
      else
        next.removed_databases.clear();
      break;
    case 1:
      if (next.removed_users.empty())
        next.removed_users.insert("me");
      else
        next.removed_users.clear();
      break;
    case 2:
      next.password = std::to_string(round);
      break;
    case 3:
      next.limits.mode = static_cast<LeaseMode>(random.below(3));
      break;
    case 4:
      next.limits.min_connections = static_cast<uint32_t>(random.below(3));
      break;
    case 5:
      next.limits.reserve_connections = static_cast<uint32_t>(random.below(3));
      next.limits.reserve_after = milliseconds(1);
      break;
    case 6:
      next.limits.max_waiters = static_cast<uint32_t>(random.below(3));
      break;
    default:
      next.limits.max_connections = static_cast<uint32_t>(1 + random.below(6));
      break;
  }
  next.limits.min_connections = std::min(next.limits.min_connections, next.limits.max_connections);
}

// A client of its own, for as long as it is let in.
struct Visitor {
  std::unique_ptr<TestClient> client;
  void act(SessionBench& bench, CoreId core, SimRandom& random) {
    if (client == nullptr || client->is_closed()) {
      if (client != nullptr) client->close();
      client = std::make_unique<TestClient>(bench, core);
      client->write_later(startup_packet("me", "db"));
    } else if (random.below(10) == 0) {
      client->reset();
      client = nullptr;
    } else {
      (void)client->take_bytes();
      const char* texts[] = {"BEGIN", "COMMIT", "a", "FAIL"};
      client->write_later(query_message(texts[random.below(4)]));
    }
  }
};

TEST_CASE("whatever is configured while clients come and go, limits hold and nothing is left") {
  for (uint64_t seed = 1; seed <= 80; ++seed) {
    CAPTURE(seed);
    BenchOptions options = with_cores(static_cast<CoreId>(1 + seed % 4), 4);
    options.network.seed = seed;
    SessionBench bench(options);
    SimRandom random(seed);
    NodeOptions node = options.node;
    std::vector<Visitor> visitors(8);
    for (int round = 0; round < 80; ++round) {
      const size_t who = random.below(visitors.size());
      visitors[who].act(bench, static_cast<CoreId>(who % options.cores_count), random);
      if (random.below(5) == 0) {
        const BenchDirectory& next = bench.reconfigure(
            [&](BenchDirectory& changed) { change_anything(changed, random, round); });
        if (random.below(3) == 0) {
          node.max_connections = static_cast<uint32_t>(1 + random.below(6));
          bench.node.update(node);
        }
        const uint32_t open = bench.node.limit.taken();
        reload_by_core(bench, next, random, [&] {
          CHECK(bench.node.limit.taken() <= std::max(node.max_connections, open));
        });
      }
      for (uint64_t steps = random.below(60); steps > 0 && bench.step(); --steps) {
      }
      if (random.below(10) == 0) bench.pass(milliseconds(random.up_to(2000)));
    }
    // At the end everybody leaves; then a new client of each core is served.
    for (Visitor& visitor : visitors)
      if (visitor.client != nullptr) visitor.client->close();
    bench.reload([](BenchDirectory& next) {
      next.removed_databases.clear();
      next.removed_users.clear();
    });
    for (CoreId core = 0; core < options.cores_count; ++core) {
      TestClient client(bench, core);
      client.write(startup_packet("me", "db"));
      bench.advance_in_steps(seconds(8), milliseconds(500));
      client.query("served");
      bench.advance_in_steps(seconds(8), milliseconds(500));
      CHECK(client.take_bytes().find("served") != std::string::npos);
      client.close();
    }
    CHECK(bench.node.limit.taken() <= node.max_connections);
    CHECK(bench.slice().spec().shared->connections->limit->taken() == bench.node.limit.taken());
    CHECK(total_gauges(bench).total() == bench.node.limit.taken());
    // What ended is forgotten after a minute, on every core.
    bench.advance_in_steps(seconds(150), seconds(1));
    for (CoreId core = 0; core < options.cores_count; ++core)
      bench.core(core).pools.for_each_pool(
          [](PoolEntry& pool) { CHECK_FALSE(pool.slice.is_superseded()); });
  }
}

}  // namespace
}  // namespace helios
