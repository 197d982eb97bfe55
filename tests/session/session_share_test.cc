// Pools that want more than a limit that they share allows.
#include <doctest/doctest.h>

#include <deque>
#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

// Clients that never stop asking, before a server that answers each connection once in a round.
class BusyNode {
 public:
  explicit BusyNode(BenchOptions options) : bench(std::move(options)) {
    bench.server.new_is_silent = true;
  }

  void add_clients(int count, std::string_view user) {
    for (int i = 0; i < count; ++i) {
      const CoreId core = static_cast<CoreId>(i) % bench.options.cores_count;
      clients_.push_back({TestClient(bench, core), std::string(user)});
      clients_.back().client.write_later(startup_packet(user, "db"));
    }
  }

  void rounds(int count) {
    for (int i = 0; i < count; ++i) round();
  }

  [[nodiscard]] uint32_t backends(std::string_view user) {
    uint32_t count = 0;
    for (CoreId core = 0; core < bench.options.cores_count; ++core)
      count += bench.slice(core, user).backends_count();
    return count;
  }
  // Of the client that was answered least.
  [[nodiscard]] int answers_min(std::string_view user) const {
    int least = INT32_MAX;
    for (const Client& each : clients_)
      if (each.user == user) least = std::min(least, each.answers_count);
    return least;
  }

  SessionBench bench;

 private:
  struct Client {
    TestClient client;
    std::string user;
    int answers_count = 0;
  };

  void round() {
    for (Client& each : clients_) {
      for (const WireMessage& message : each.client.take()) {
        REQUIRE(message.tag != 'E');
        if (message.tag != 'Z') continue;
        ++each.answers_count;
        each.client.write_later(query_message("q"));
      }
    }
    bench.settle();
    for (ServerSession* session : bench.server.open_sessions()) {
      size_t& answered = answered_[session];
      if (answered == session->log.size()) continue;
      ++answered;
      session->write(echo("q") + ready());
    }
    bench.advance(milliseconds(1));
    CHECK(bench.node.limit.taken() <= bench.options.node.max_connections);
  }

  std::vector<Client> clients_;
  std::map<ServerSession*, size_t> answered_;
};

BenchOptions with_node_of(uint32_t node_max, CoreId cores_count) {
  BenchOptions options;
  options.cores_count = cores_count;
  options.node.max_connections = node_max;
  return options;
}

TEST_CASE("a pool that is always busy leaves another its part of a full node") {
  for (const CoreId cores_count : {CoreId{1}, CoreId{2}}) {
    CAPTURE(cores_count);
    BusyNode node(with_node_of(4, cores_count));
    node.add_clients(12, "greedy");
    node.rounds(50);
    CHECK(node.backends("greedy") == 4);
    node.add_clients(4, "late");
    node.rounds(1000);
    CHECK(node.backends("greedy") == 2);
    CHECK(node.backends("late") == 2);
    CHECK(node.answers_min("late") > 100);
    CHECK(node.answers_min("greedy") > 100);
  }
}

TEST_CASE("a pool keeps its minimum of a full node, busy or not, but from one that has nothing") {
  for (const CoreId cores_count : {CoreId{1}, CoreId{2}}) {
    CAPTURE(cores_count);
    BusyNode node(with_node_of(4, cores_count));
    node.bench.directory.adapt = [](PoolSpec& spec) {
      if (spec.user == "calm") spec.limits.min_connections = 2;
    };
    TestClient calm(node.bench, 0, "calm");
    node.bench.advance_in_steps(seconds(3), milliseconds(500));
    CHECK(node.backends("calm") == 2);
    node.add_clients(12, "greedy");
    for (int i = 0; i < 10; ++i) {
      node.rounds(100);
      CHECK(node.backends("calm") == 2);
      CHECK(node.backends("greedy") == 2);
    }
    node.add_clients(4, "late");
    node.rounds(2000);
    CHECK(node.answers_min("late") > 20);
  }
}

// A node whose connections are all taken, and most of them idle.
struct FullNode {
  FullNode(uint32_t node_max, CoreId cores_count) : bench(options_of(node_max, cores_count)) {}
  static BenchOptions options_of(uint32_t node_max, CoreId cores_count) {
    BenchOptions options = with_ageless_backends(node_max, cores_count);
    options.node.max_connections = node_max;
    return options;
  }
  // Its transaction begins, and is over a second later.
  TestClient& use(std::string_view user, CoreId core = 0) {
    TestClient& client = begin(user, core);
    end(client);
    return client;
  }
  TestClient& begin(std::string_view user, CoreId core = 0) {
    TestClient& client = clients.emplace_back(bench, core, user);
    client.query("BEGIN");
    CHECK(client.take_tags() == "CZ");
    return client;
  }
  void end(TestClient& client) {
    bench.advance(seconds(1));
    client.query("COMMIT");
    CHECK(client.take_tags() == "CZ");
  }
  [[nodiscard]] ServerSession* newest() { return bench.server.open_sessions().back(); }
  [[nodiscard]] uint64_t made_room_count() {
    uint64_t count = 0;
    for (CoreId id = 0; id < bench.options.cores_count; ++id)
      count += bench.core(id).pools.statistics().total.counters.closes[CloseReason::made_room];
    return count;
  }

  SessionBench bench;
  std::deque<TestClient> clients;
};

TEST_CASE("to make room the connection that is idle for longest is closed, one for each request") {
  for (const CoreId cores_count : {CoreId{1}, CoreId{2}}) {
    CAPTURE(cores_count);
    FullNode node(5, cores_count);
    TestClient& first = node.begin("a");
    ServerSession* const longest = node.newest();
    TestClient& second = node.begin("a");
    ServerSession* const latest = node.newest();
    node.end(first);
    node.end(second);
    node.use("b");
    ServerSession* const middle = node.newest();
    node.use("c");
    ServerSession* const later = node.newest();
    node.begin("busy");
    ServerSession* const busy = node.newest();
    // The one that was used last.
    first.query("a");
    REQUIRE(latest->queries().back() == "a");
    REQUIRE(node.bench.server.open_sessions().size() == 5);
    uint64_t count = 0;
    for (ServerSession* victim : {longest, middle, later, latest}) {
      CHECK(victim->is_open());
      node.begin("asks", static_cast<CoreId>(cores_count - 1));
      CHECK_FALSE(victim->is_open());
      CHECK(node.made_room_count() == ++count);
      CHECK(node.bench.server.open_sessions().size() == 5);
    }
    CHECK(busy->is_open());
  }
}

TEST_CASE("of a minimum nothing makes room for who has a connection, however long it is idle") {
  for (const CoreId cores_count : {CoreId{1}, CoreId{2}}) {
    CAPTURE(cores_count);
    FullNode node(4, cores_count);
    node.bench.directory.adapt = [](PoolSpec& spec) {
      if (spec.user == "kept") spec.limits.min_connections = 2;
    };
    std::vector<TestClient*> owners;
    for (int i = 0; i < 3; ++i) owners.push_back(&node.begin("kept"));
    auto kept = node.bench.server.open_sessions();
    for (TestClient* owner : owners) node.end(*owner);
    node.use("other");
    ServerSession* const other = node.newest();
    const CoreId core = static_cast<CoreId>(cores_count - 1);
    TestClient& asking = node.begin("asks", core);
    std::erase_if(kept, [](const ServerSession* each) { return !each->is_open(); });
    CHECK(kept.size() == 2);
    node.begin("asks", core);
    CHECK_FALSE(other->is_open());
    TestClient& waiting = node.clients.emplace_back(node.bench, core, "asks");
    waiting.query("q");
    node.bench.advance_in_steps(seconds(3), milliseconds(100));
    CHECK(waiting.take_tags().empty());
    // Nor when it has been in use.
    owners.front()->query("q");
    CHECK(owners.front()->take_tags() == "TDCZ");
    for (ServerSession* each : kept) CHECK(each->is_open());
    CHECK(node.made_room_count() == 2);
    asking.query("COMMIT");
    CHECK(waiting.take_tags() == "TDCZ");
  }
}

TEST_CASE("of several cores that could make room for a request one does") {
  FullNode node(4, 3);
  for (const CoreId core : {CoreId{0}, CoreId{1}})
    for (const char* user : {"a", "b"}) node.use(user + std::to_string(core), core);
  REQUIRE(node.bench.server.open_sessions().size() == 4);
  for (uint64_t count = 1; count <= 4; ++count) {
    node.begin("asks", 2);
    CHECK(node.made_room_count() == count);
    CHECK(node.bench.server.open_sessions().size() == 4);
  }
}

TEST_CASE("more pools than connections take turns, and nobody starves") {
  BusyNode node(with_node_of(2, 2));
  for (const char* user : {"a", "b", "c", "d", "e"}) node.add_clients(2, user);
  node.rounds(6000);
  for (const char* user : {"a", "b", "c", "d", "e"}) {
    CAPTURE(user);
    CHECK(node.answers_min(user) > 50);
  }
}

TEST_CASE("what is free is not kept for a pool whose clients have given up") {
  SessionBench bench(with_node_of(1, 1));
  std::vector<TestClient> clients;
  for (const char* user : {"holder", "first", "second"}) {
    clients.emplace_back(bench, 0, user);
    bench.advance(seconds(1));  // Its welcome costs the one before it its backend.
  }
  clients[0].query("BEGIN");
  bench.advance(seconds(1));
  REQUIRE(clients[0].take_tags() == "CZ");
  clients[1].query("q");
  bench.advance(milliseconds(1));
  clients[2].query("q");
  bench.advance(milliseconds(1));
  clients[1].close();
  clients[0].query("COMMIT");
  CHECK(clients[2].take_tags() == "TDCZ");
}

}  // namespace
}  // namespace helios
