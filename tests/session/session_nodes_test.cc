// Nodes that go, come back, have several addresses or change them.
#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

uint64_t connects_count(SessionBench& bench) {
  uint64_t count = 0;
  for (CoreId id = 0; id < bench.options.cores_count; ++id)
    count += bench.core(id).pools.statistics().total.counters.connects;
  return count;
}

void lose_node(SessionBench& bench) {
  bench.server.stop_listening();
  for (ServerSession* session : bench.server.open_sessions()) session->reset();
  bench.settle();
}

// The pooler has seen that it is down.
void bring_down(SessionBench& bench, TestClient& client) {
  lose_node(bench);
  client.query("q");
  REQUIRE(client.take_error() == "08006");
}

// It is down, and from now on drops what is sent to it.
void silence_node(SessionBench& bench, TestClient& client) {
  bring_down(bench, client);
  bench.server.start_listening();
  bench.network.set_answering(bench.options.node.port, false);
}

// What was sent to it until now is lost.
void end_silence(SessionBench& bench) {
  bench.network.lose_connects(bench.options.node.port);
  bench.network.set_answering(bench.options.node.port, true);
}

// It is down, and from now on accepts connections and says nothing.
void hang_node(SessionBench& bench, TestClient& client) {
  bring_down(bench, client);
  bench.server.holds_logins = true;
  bench.server.start_listening();
}

// It has forgotten what it accepted until now.
void end_hang(SessionBench& bench) {
  for (ServerSession* session : bench.server.fresh()) session->is_deaf = true;
  bench.server.holds_logins = false;
}

// A connect, and who waits, may take long.
BenchOptions patient_options() {
  BenchOptions options;
  options.limits.connect_timeout = seconds(15);
  options.limits.acquire_timeout = seconds(60);
  return options;
}

// Connections that the server has accepted and not answered, and that are not over.
size_t unanswered_count(SessionBench& bench) {
  size_t count = 0;
  for (const ServerSession* session : bench.server.fresh())
    count += bench.network.is_ended(session->fd()) ? 0 : 1;
  return count;
}

// Its trial hangs, and a probe is under way. Returns both, in this order.
std::vector<ServerSession*> wait_for_probe(SessionBench& bench) {
  bench.advance_in_steps(milliseconds(1200), milliseconds(10));
  const std::vector<ServerSession*> waiting = bench.server.fresh();
  REQUIRE(waiting.size() == 2);
  REQUIRE(unanswered_count(bench) == 2);
  return waiting;
}

bool is_served(TestClient& client) {
  return client.take_tags() == "TDCZ";
}

TEST_CASE("a dead node costs one connect at a time, over all pools and cores") {
  BenchOptions options;
  options.cores_count = 4;
  options.node.fail_fast = false;
  SessionBench bench(options);
  std::vector<TestClient> clients;
  for (int i = 0; i < 40; ++i)
    clients.emplace_back(bench, static_cast<CoreId>(i % 4), "user" + std::to_string(i % 5));
  lose_node(bench);
  for (TestClient& client : clients) client.query("q");
  CHECK(bench.node.health.is_down());
  // At first several may be under way when the first fails; after ten seconds the pause is one
  // second, less a quarter.
  bench.advance_in_steps(seconds(5), milliseconds(10));
  const uint64_t before = connects_count(bench);
  bench.advance_in_steps(seconds(10), milliseconds(10));
  CHECK(connects_count(bench) - before <= 14);
  CHECK(connects_count(bench) - before >= 9);
  bench.server.start_listening();
  bench.advance_in_steps(milliseconds(1100), milliseconds(10));
  for (TestClient& client : clients) CHECK(is_served(client));
}

TEST_CASE("the return of a node is seen within a second, without traffic") {
  BenchOptions options;
  options.cores_count = 2;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  lose_node(bench);
  client.query("q");
  CHECK(client.take_error() == "08006");
  bench.advance_in_steps(seconds(60), milliseconds(10));
  CHECK(bench.node.health.is_down());
  bench.server.start_listening();
  bench.advance_in_steps(seconds(1), milliseconds(10));
  CHECK(!bench.node.health.is_down());
  CHECK(bench.server.open_sessions().size() == 1);
}

TEST_CASE("the return of a node that drops packets is seen within a second, whenever it comes") {
  // From the first trials, whose pauses are short, to those with the longest.
  for (int after_ms = 40; after_ms < 6000; after_ms += after_ms < 3000 ? 370 : 130) {
    CAPTURE(after_ms);
    BenchOptions options;
    options.cores_count = 2;
    options.limits.connect_timeout = seconds(15);
    options.limits.max_connections = 1;  // What a trial held is free again for the next one.
    options.network.seed = static_cast<uint64_t>(after_ms);
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    silence_node(bench, client);
    bench.advance_in_steps(milliseconds(after_ms), milliseconds(10));
    CHECK(bench.node.health.is_down());
    end_silence(bench);
    bench.advance_in_steps(seconds(1), milliseconds(10));
    CHECK(!bench.node.health.is_down());
  }
}

TEST_CASE("a trial at an address that drops packets does not last for connect_timeout") {
  BenchOptions options;
  options.limits.connect_timeout = seconds(15);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  silence_node(bench, client);
  const uint64_t before = connects_count(bench);
  bench.advance_in_steps(seconds(10), milliseconds(10));
  // Each takes a second, less what the random part of the pause leaves.
  CHECK(connects_count(bench) - before >= 10);
  CHECK(connects_count(bench) - before <= 13);
  CHECK(bench.node.health.is_down());
}

TEST_CASE("a node is tried again when its trial ended between login and first use") {
  const std::string notice = frame('N', std::string("SNOTICE\0C00000\0Mhello\0\0", 23));
  for (const bool is_told : {false, true}) {
    SessionBench bench;
    TestClient client(bench, 0, "me");
    lose_node(bench);
    client.query("q");
    CHECK(client.take_error() == "08006");
    bench.server.after_login = notice.substr(0, 7);  // The rest does not come: it is never ready.
    bench.server.start_listening();
    bench.advance_in_steps(milliseconds(500), milliseconds(10));
    CHECK(bench.node.health.is_down());
    ServerSession& trial = bench.server.only();
    bench.server.after_login.clear();
    if (is_told) {
      trial.write(notice.substr(7) + error_reply("FATAL", "57P01", "terminating") +
                  ready().substr(0, 2));
      bench.settle();
    }
    trial.end();
    bench.advance_in_steps(seconds(3), milliseconds(10));
    CHECK(!bench.node.health.is_down());
  }
}

TEST_CASE("a node that fails is no error for who can still get a connection of another core") {
  BenchOptions options;
  options.cores_count = 2;
  options.limits.max_connections = 2;
  SessionBench bench(options);
  TestClient here(bench, 0, "me");
  TestClient there(bench, 1, "me");
  here.query("BEGIN");
  CHECK(here.take_tags() == "CZ");
  ServerSession* held = nullptr;
  for (ServerSession* session : bench.server.open_sessions())
    if (session->status() == 'T') held = session;
  REQUIRE(held != nullptr);
  bench.server.stop_listening();
  for (ServerSession* session : bench.server.open_sessions())
    if (session != held) session->reset();
  bench.settle();
  there.query("q");
  bench.advance_in_steps(milliseconds(300), milliseconds(10));
  CHECK(bench.node.health.is_down());
  CHECK(there.take_tags().empty());
  here.query("COMMIT");
  CHECK(here.take_tags() == "CZ");
  CHECK(is_served(there));
  // It was the last one: now there is nothing to hope for.
  held->reset();
  bench.settle();
  there.query("q");
  bench.advance_in_steps(seconds(2), milliseconds(10));
  CHECK(there.take_error() == "08006");
}

TEST_CASE("a failed attempt is an error for those who wait, on every core") {
  BenchOptions options;
  options.cores_count = 3;
  SessionBench bench(options);
  std::vector<TestClient> clients;
  for (CoreId core = 0; core < 3; ++core) clients.emplace_back(bench, core, "me");
  lose_node(bench);
  clients[0].query("q");
  CHECK(clients[0].take_error() == "08006");
  // The next attempt is not due yet: these wait for it, on cores that do not make it.
  clients[1].query("q");
  clients[2].query("q");
  CHECK(clients[1].take_tags().empty());
  bench.advance_in_steps(milliseconds(100), milliseconds(10));
  CHECK(clients[1].take_error() == "08006");
  CHECK(clients[2].take_error() == "08006");
}

TEST_CASE(
    "without fail_fast clients wait for the node, and get its error when their time is over") {
  BenchOptions options;
  options.node.fail_fast = false;
  options.limits.acquire_timeout = seconds(20);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  lose_node(bench);
  client.query("q");
  bench.advance_in_steps(seconds(10), milliseconds(10));
  CHECK(client.take_tags().empty());
  bench.server.start_listening();
  bench.advance_in_steps(seconds(1), milliseconds(10));
  CHECK(is_served(client));

  lose_node(bench);
  other.query("q");
  bench.advance_in_steps(seconds(20), milliseconds(10));
  CHECK(other.take_error() == "08006");
}

TEST_CASE("who cannot be served before the node is tried again gets its error at once") {
  for (const bool fail_fast : {true, false}) {
    BenchOptions options;
    options.cores_count = 2;
    options.node.fail_fast = fail_fast;
    options.limits.acquire_timeout = milliseconds(20);  // The first pause is longer.
    SessionBench bench(options);
    TestClient first(bench, 0, "me");
    TestClient second(bench, 1, "me");
    lose_node(bench);
    first.query("q");
    second.query("q");
    CHECK(first.take_error() == (fail_fast ? "08006" : ""));
    CHECK(second.take_error() == (fail_fast ? "08006" : ""));
    CHECK(second.is_closed() == fail_fast);
    bench.advance(milliseconds(25));
    CHECK(second.is_closed());
  }
}

TEST_CASE("a waiter whom no connection can help any more is told when the last one ends") {
  BenchOptions options = with_backends(2);
  options.limits.acquire_timeout = milliseconds(20);
  SessionBench bench(options);
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  holder.query("BEGIN");
  bench.server.stop_listening();
  waiter.query("q");
  CHECK(bench.node.health.is_down());
  // The connection that there is may come free.
  CHECK(waiter.take_tags().empty());
  CHECK(bench.slice().waiters_count() == 1);
  bench.server.only().reset();
  bench.settle();
  CHECK(waiter.take_error() == "08006");
  CHECK(bench.pools().statistics().total.counters.failures[WaitFailure::node_error] == 1);
}

TEST_CASE("a server that ends a session right behind its login has answered a trial") {
  SessionBench bench;
  TestClient client(bench, 0, "me");
  TestClient next(bench, 0, "me");
  lose_node(bench);
  client.query("q");
  CHECK(client.take_error() == "08006");
  bench.server.start_listening();
  bench.server.after_login = error_reply("FATAL", "57P01", "terminating connection");
  bench.advance_in_steps(seconds(2), milliseconds(10));
  CHECK(!bench.node.health.is_down());
  // A connect that failed, with the server's words.
  next.query("q");
  CHECK(next.take_error() == "57P01");
  const Statistics statistics = bench.pools().statistics();
  CHECK(statistics.total.counters.connect_failures == statistics.total.counters.connects - 1);
  bench.server.after_login.clear();
  bench.advance_in_steps(seconds(2), milliseconds(10));
  TestClient last(bench, 0, "me");
  last.query("q");
  CHECK(is_served(last));
}

TEST_CASE("a refused login is no fault of the node") {
  SessionBench bench;
  TestClient client(bench, 0, "me");
  for (ServerSession* session : bench.server.open_sessions()) session->reset();
  bench.settle();
  bench.server.login_error = error_reply("FATAL", "53300", "too many clients already");
  client.query("q");
  CHECK(client.take_error() == "53300");
  CHECK(!bench.node.health.is_down());
}

TEST_CASE("a node that is starting up makes clients wait") {
  BenchOptions options;
  options.cores_count = 2;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  TestClient other(bench, 1, "me");
  lose_node(bench);
  bench.server.start_listening();
  bench.server.login_error = error_reply("FATAL", "57P03", "the database system is starting up");
  client.query("q");
  other.query("q");
  bench.advance_in_steps(seconds(5), milliseconds(10));
  CHECK(client.take_tags().empty());
  CHECK(other.take_tags().empty());
  bench.server.login_error.clear();
  bench.advance_in_steps(seconds(1), milliseconds(10));
  CHECK(is_served(client));
  CHECK(is_served(other));
}

TEST_CASE("a login may take its time, also in a trial") {
  BenchOptions options;
  options.limits.connect_timeout = seconds(15);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  lose_node(bench);
  client.query("q");
  CHECK(client.take_error() == "08006");
  bench.server.start_listening();
  bench.server.holds_logins = true;
  bench.advance_in_steps(seconds(5), milliseconds(10));
  CHECK(bench.node.health.is_down());
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(!bench.node.health.is_down());
}

TEST_CASE("the return of a node that hangs is seen within a second, whenever it comes") {
  // From before the first trial is overdue to beyond its end.
  for (int after_ms = 40; after_ms < 18'000; after_ms += after_ms < 3000 ? 370 : 1130) {
    CAPTURE(after_ms);
    BenchOptions options;
    options.cores_count = 2;
    options.limits.connect_timeout = seconds(15);
    options.network.seed = static_cast<uint64_t>(after_ms);
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    hang_node(bench, client);
    bench.advance_in_steps(milliseconds(after_ms), milliseconds(10));
    CHECK(bench.node.health.is_down());
    end_hang(bench);
    bench.advance_in_steps(seconds(1), milliseconds(10));
    CHECK(!bench.node.health.is_down());
  }
}

TEST_CASE("the return of a node that hangs is seen by a pool whose only permit its trial has") {
  for (const CoreId cores : {CoreId{1}, CoreId{2}}) {
    for (int after_ms = 40; after_ms < 12'000; after_ms += after_ms < 3000 ? 370 : 1130) {
      CAPTURE(cores);
      CAPTURE(after_ms);
      BenchOptions options = with_backends(1, cores);
      options.limits.connect_timeout = seconds(60);
      options.network.seed = static_cast<uint64_t>(after_ms);
      SessionBench bench(options);
      TestClient client(bench, 0, "me");
      TestClient other(bench, static_cast<CoreId>(cores - 1), "me");
      hang_node(bench, client);
      bench.advance_in_steps(milliseconds(after_ms), milliseconds(10));
      CHECK(bench.node.health.is_down());
      end_hang(bench);
      bench.advance_in_steps(seconds(1), milliseconds(10));
      CHECK(!bench.node.health.is_down());
      // What hangs is given up, and serves nobody. (A server that does not know of it ends it.)
      other.query("q");
      bench.advance_in_steps(milliseconds(300), milliseconds(10));
      for (const auto& session : bench.server.sessions())
        if (session->is_deaf && session->is_open()) session->end();
      bench.settle();
      CHECK(is_served(other));
      CHECK(bench.server.open_sessions().size() == 1);
      bench.finish();
    }
  }
}

TEST_CASE("whatever a node answers to a probe, it is back, and nothing of the probe is left") {
  for (const char answer : {'N', 'S', 'E'}) {
    CAPTURE(answer);
    SessionBench bench(patient_options());
    bench.server.tls_answer = answer;
    TestClient client(bench, 0, "me");
    TestClient other(bench, 0, "me");
    hang_node(bench, client);
    wait_for_probe(bench)[0]->is_deaf = true;
    bench.server.holds_logins = false;
    bench.settle();
    CHECK(!bench.node.health.is_down());
    // Nobody counts on the trial, which may still be answered.
    other.query("q");
    CHECK(is_served(other));
    CHECK(bench.server.fresh().size() == 1);
    CHECK(unanswered_count(bench) == 1);
    CHECK(bench.server.open_sessions().size() == 1);
    bench.advance(milliseconds(200));
    bench.advance(seconds(5));  // For the server's end of it.
    CHECK(unanswered_count(bench) == 0);
    CHECK(bench.node.gate.taken() == 0);
    const Statistics statistics = bench.pools().statistics();
    CHECK(statistics.total.counters.trials == 1);
  }
}

TEST_CASE("a trial that is answered late goes on, however long its login takes then") {
  BenchOptions options = with_backends(1);
  options.limits.connect_timeout = seconds(15);
  options.limits.acquire_timeout = seconds(60);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  hang_node(bench, client);
  ServerSession& trial = *wait_for_probe(bench)[0];
  trial.is_deaf = true;  // The test answers it.
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(!bench.node.health.is_down());
  bench.advance(milliseconds(190));
  trial.write(frame('R', std::string(4, '\0')));
  bench.settle();
  bench.advance_in_steps(seconds(3), milliseconds(10));
  other.query("q");
  CHECK(other.take_tags().empty());
  trial.write(ready());
  bench.settle();
  CHECK(bench.slice().backends_count() == 1);
  CHECK(bench.network.peek(trial.fd()).ends_with(query_message("q")));
  CHECK(bench.pools().statistics().total.counters.connect_failures == 1);  // The first of all.
}

TEST_CASE("a trial that is cut when its node has come back is no error for who waits") {
  BenchOptions options = with_backends(1);
  options.limits.connect_timeout = seconds(15);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  hang_node(bench, client);
  ServerSession& trial = *wait_for_probe(bench)[0];
  trial.is_deaf = true;
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(!bench.node.health.is_down());
  other.query("q");
  CHECK(other.take_tags().empty());
  trial.reset();  // A machine that was started anew does not know it.
  bench.settle();
  CHECK(is_served(other));
}

TEST_CASE("a node that ends one connection without a word may still hang: others go on") {
  BenchOptions options;
  options.limits.connect_timeout = seconds(15);
  SessionBench bench(options);
  bench.server.holds_logins = true;
  TestClient first(bench);
  first.write(startup_packet("first", "db"));
  REQUIRE(bench.server.fresh().size() == 1);
  const int patient = bench.server.fresh()[0]->fd();
  bench.server.stop_listening();
  TestClient second(bench);
  second.write(startup_packet("second", "db"));
  CHECK(second.take_error() == "08006");
  CHECK(bench.node.health.is_down());
  bench.server.start_listening();
  bench.advance_in_steps(milliseconds(100), milliseconds(10));
  REQUIRE(bench.server.fresh().size() == 2);
  bench.server.fresh()[1]->end();
  bench.settle();
  CHECK(!bench.node.health.is_down());
  bench.advance_in_steps(seconds(1), milliseconds(10));
  CHECK(!bench.network.is_ended(patient));
}

TEST_CASE("a probe that is refused is an error for who waits in a pool without the trial") {
  SessionBench bench(patient_options());
  TestClient client(bench, 0, "me");
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "you");
  hang_node(bench, client);
  bench.advance_in_steps(milliseconds(500), milliseconds(10));
  one.query("q");
  other.query("q");
  bench.server.stop_listening();
  bench.advance_in_steps(milliseconds(1000), milliseconds(10));
  CHECK(one.take_error() + other.take_error() == "08006");
  CHECK(bench.node.health.is_down());
}

TEST_CASE("a probe keeps nothing from ending") {
  for (const bool is_cut : {false, true}) {
    SessionBench bench;
    TestClient client(bench, 0, "me");
    hang_node(bench, client);
    const ServerSession& probe = *wait_for_probe(bench)[1];
    if (!is_cut) bench.start_drain();
    if (is_cut) bench.finish();
    CHECK(bench.network.is_ended(probe.fd()));
    // The trial has some time to be ended by its server.
    if (!is_cut) bench.advance_in_steps(seconds(6), milliseconds(10));
    CHECK(bench.is_empty());
    CHECK(bench.server.fresh().size() == 2);
  }
}

TEST_CASE("a node that is removed is not asked any more") {
  for (const CoreId cores : {CoreId{1}, CoreId{2}}) {
    BenchOptions options;
    options.cores_count = cores;
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    hang_node(bench, client);
    const ServerSession& probe = *wait_for_probe(bench)[1];
    NodeOptions elsewhere = options.node;
    elsewhere.port = 5433;
    Node other(elsewhere, bench.resolver);
    bench.reload([&](BenchDirectory& next) { next.node = &other; });
    CHECK(bench.network.is_ended(probe.fd()));
    const size_t before = bench.server.fresh().size();
    bench.advance_in_steps(seconds(6), milliseconds(10));
    CHECK(bench.server.fresh().size() == before);
    bench.finish();
  }
}

TEST_CASE("probes that a node finds when it wakes up make no sessions") {
  BenchOptions options;
  options.limits.connect_timeout = seconds(15);
  options.limits.max_connections = 1;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  hang_node(bench, client);
  const uint64_t logins = bench.server.logins_count;
  bench.advance_in_steps(seconds(10), milliseconds(10));
  CHECK(bench.server.fresh().size() >= 9);
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(!bench.node.health.is_down());
  CHECK(bench.server.logins_count - logins == 1);
  bench.advance_in_steps(seconds(1), milliseconds(10));
  CHECK(bench.server.open_sessions().size() == 1);
}

TEST_CASE("a node that hangs has one connect and one probe at most, over all pools and cores") {
  BenchOptions options;
  options.cores_count = 4;
  options.limits.connect_timeout = seconds(15);
  options.limits.acquire_timeout = seconds(60);
  options.node.fail_fast = false;
  SessionBench bench(options);
  std::vector<TestClient> clients;
  for (int i = 0; i < 40; ++i)
    clients.emplace_back(bench, static_cast<CoreId>(i % 4), "user" + std::to_string(i % 5));
  lose_node(bench);
  for (TestClient& client : clients) client.query("q");
  bench.server.holds_logins = true;
  bench.server.start_listening();
  const uint64_t before = connects_count(bench);
  for (int i = 0; i < 1000; ++i) {
    bench.advance(milliseconds(10));
    CHECK(bench.node.gate.taken() <= 1);
    CHECK(unanswered_count(bench) <= 2);
  }
  CHECK(connects_count(bench) - before <= 2);
  end_hang(bench);
  bench.advance_in_steps(milliseconds(1100), milliseconds(10));
  for (TestClient& client : clients) CHECK(is_served(client));
}

TEST_CASE("probes that are given up are no error for who waits") {
  SessionBench bench(patient_options());
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  hang_node(bench, client);
  bench.advance_in_steps(milliseconds(500), milliseconds(10));
  REQUIRE(bench.server.fresh().size() == 1);
  const ServerSession* patient = bench.server.fresh()[0];
  other.query("q");
  const uint64_t before = connects_count(bench);
  bench.advance_in_steps(seconds(10), milliseconds(10));
  CHECK(bench.server.fresh().size() >= 10);
  CHECK(connects_count(bench) == before);
  CHECK(!other.is_closed());
  // The server is slow, no more: the first answers all the same.
  for (ServerSession* session : bench.server.fresh()) session->is_deaf = session != patient;
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(!bench.node.health.is_down());
  CHECK(is_served(other));
}

TEST_CASE("a trial that fails when the node has long returned does not bring it down again") {
  BenchOptions options;
  options.limits.connect_timeout = seconds(15);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  hang_node(bench, client);
  bench.advance_in_steps(seconds(2), milliseconds(10));
  end_hang(bench);
  bench.advance_in_steps(seconds(1), milliseconds(10));
  for (int i = 0; i < 2000; ++i) {
    bench.advance(milliseconds(10));
    CHECK(!bench.node.health.is_down());
  }
  other.query("q");
  CHECK(is_served(other));
}

TEST_CASE("of several hosts the first that answers is used") {
  BenchOptions options;
  options.node.hosts = {"127.0.0.2", "127.0.0.1"};  // Nobody listens at the first.
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.query("q");
  CHECK(is_served(client));
  CHECK(!bench.node.health.is_down());
  CHECK(connects_count(bench) == 2);
  // The bad one is remembered.
  bench.server.only().reset();
  bench.settle();
  client.query("q");
  CHECK(is_served(client));
  CHECK(connects_count(bench) == 3);
}

// What a name stands for; null: it cannot be resolved. It is looked up again only when somebody
// asks for that.
using Answer = std::atomic<const char*>;

BenchOptions with_name(const std::shared_ptr<Answer>& answer) {
  BenchOptions options;
  options.node.hosts = {"db.example"};
  options.resolver.refresh_interval = never;
  options.resolver.request_interval = 0;
  options.resolver.start_wait = seconds(60);
  options.resolver.lookup = [answer](const std::string&,
                                     uint16_t port) -> Result<std::vector<SocketAddress>> {
    const char* host = answer->load();
    if (host == nullptr) return Error{"no such host"};
    return std::vector<SocketAddress>{literal_address(host, port).value()};
  };
  return options;
}

// The look-ups run beside the time of the bench.
bool becomes_known(SessionBench& bench, const SocketAddress& address) {
  for (int i = 0; i < 3000; ++i) {
    if (bench.node.addresses().addresses.front() == address) return true;
    bench.advance(milliseconds(10));
    std::this_thread::sleep_for(std::chrono::milliseconds(1));
  }
  return false;
}

TEST_CASE("a name whose address fails, or that has none, is looked up again by who waits for it") {
  for (const char* first : {"127.0.0.2", static_cast<const char*>(nullptr)}) {
    for (const CoreId cores : {CoreId{1}, CoreId{2}}) {
      for (const bool fail_fast : {false, true}) {
        CAPTURE(cores);
        CAPTURE(fail_fast);
        auto answer = std::make_shared<Answer>(first);
        BenchOptions options = with_name(answer);
        options.cores_count = cores;
        options.node.fail_fast = fail_fast;
        SessionBench bench(options);
        TestClient client(bench, static_cast<CoreId>(cores - 1));
        client.write(startup_packet("me", "db") + query_message("q"));
        bench.advance_in_steps(seconds(2), milliseconds(10));
        CHECK(client.is_closed() == fail_fast);
        *answer = "127.0.0.1";
        CHECK(becomes_known(bench, literal_address("127.0.0.1", 5432).value()));
        TestClient next(bench);
        next.write(startup_packet("me", "db") + query_message("q"));
        bench.advance_in_steps(seconds(1), milliseconds(10));
        CHECK(next.take_tags().ends_with("ZTDCZ"));
        if (!fail_fast) CHECK(client.take_tags().ends_with("ZTDCZ"));
        CHECK_FALSE(bench.node.health.is_down());
      }
    }
  }
}

TEST_CASE("what answers a probe at an address that the name has left is not the node") {
  auto answer = std::make_shared<Answer>("127.0.0.1");
  BenchOptions options = with_name(answer);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  hang_node(bench, client);
  wait_for_probe(bench)[0]->is_deaf = true;
  *answer = "127.0.0.2";  // Nobody listens there.
  const SocketAddress next = literal_address("127.0.0.2", 5432).value();
  bench.node.refresh_soon();
  while (bench.node.addresses().addresses.front() != next) std::this_thread::yield();
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(unanswered_count(bench) == 1);  // The trial.
  CHECK(bench.node.health.is_down());
  bench.advance_in_steps(seconds(2), milliseconds(10));
  CHECK(bench.node.health.is_down());
}

TEST_CASE("when a name stands for another address idle connections are replaced one by one") {
  for (const CoreId cores : {CoreId{1}, CoreId{2}}) {
    CAPTURE(cores);
    constexpr size_t count = 16;
    auto answer = std::make_shared<Answer>("127.0.0.1");
    BenchOptions options = with_name(answer);
    options.cores_count = cores;
    options.limits = with_ageless_backends(count).limits;
    SessionBench bench(options);
    std::vector<TestClient> clients;
    for (size_t i = 0; i < count; ++i)
      clients.emplace_back(bench, static_cast<CoreId>(i % cores), "me");
    for (TestClient& client : clients) client.query("BEGIN");
    for (TestClient& client : clients) client.query("COMMIT");
    REQUIRE(bench.server.open_sessions().size() == count);
    bench.advance_in_steps(seconds(2), milliseconds(10));  // The addresses are known to the sweep.
    ScriptedServer other(bench.network, options.node.port, "127.0.0.3");
    bench.others.push_back(&other);
    *answer = "127.0.0.3";
    bench.node.refresh_soon();
    REQUIRE(becomes_known(bench, literal_address("127.0.0.3", 5432).value()));
    size_t before = bench.server.open_sessions().size();
    size_t most = 0;
    for (size_t i = 0; i < count + 12; ++i) {
      bench.advance_in_steps(seconds(1), milliseconds(10));
      const size_t left = bench.server.open_sessions().size();
      most = std::max(most, before - left);
      before = left;
    }
    CHECK(before == 0);
    CHECK(most < count / 2);
    for (TestClient& client : clients) {
      (void)client.take();
      client.query("q");
      CHECK(client.take_tags() == "TDCZ");
    }
    CHECK_FALSE(other.open_sessions().empty());
    CHECK(bench.server.open_sessions().empty());
    clients.clear();
    bench.finish();
  }
}

TEST_CASE("when a name stands for another address its connections are replaced while idle") {
  auto host = std::make_shared<std::atomic<const char*>>("127.0.0.1");
  BenchOptions options;
  options.node.hosts = {"db.example"};
  options.limits.max_connections = 1;
  options.resolver.request_interval = 0;
  options.resolver.start_wait = seconds(60);
  options.resolver.lookup = [host](const std::string&,
                                   uint16_t port) -> Result<std::vector<SocketAddress>> {
    return std::vector<SocketAddress>{literal_address(host->load(), port).value()};
  };
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.query("BEGIN");
  CHECK(client.take_tags() == "CZ");
  bench.advance_in_steps(seconds(2), milliseconds(10));  // The addresses are known to the sweep.

  *host = "127.0.0.3";
  const SocketAddress other = literal_address("127.0.0.3", 5432).value();
  const int listener = bench.network.listen(other.get(), other.size());
  while (bench.node.addresses().addresses.front() != other) {
    bench.node.refresh_soon();
    std::this_thread::yield();
  }
  bench.advance_in_steps(seconds(15), milliseconds(10));
  CHECK(bench.server.open_sessions().size() == 1);  // It is in use.
  client.query("COMMIT");
  CHECK(client.take_tags() == "CZ");
  CHECK(bench.server.open_sessions().empty());
  client.query("q");
  CHECK(bench.network.accept(listener) >= 0);
  client.close();
}

}  // namespace
}  // namespace helios
