// Cancel requests on their way to a server: for which query, by how many connections, and who waits
// for them.
#include <doctest/doctest.h>

#include <algorithm>

#include "helios/wire/message.h"
#include "helios/wire/writer.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

// One who asks, and is still there.
TestClient ask(SessionBench& bench, const std::string& request, CoreId core = 0) {
  TestClient asker(bench, core);
  asker.write(request);
  return asker;
}

size_t open_cancels_count(SessionBench& bench) {
  const auto cancels = bench.server.cancels();
  return static_cast<size_t>(std::count_if(cancels.begin(), cancels.end(),
                                           [](ServerSession* one) { return one->is_open(); }));
}

PoolCounters counters_of(SessionBench& bench) {
  PoolCounters all;
  for (CoreId id = 0; id < bench.options.cores_count; ++id)
    all.add(bench.core(id).pools.statistics().total.counters);
  return all;
}

// A client whose query runs, and the request that cancels it.
struct Busy {
  explicit Busy(SessionBench& bench, CoreId core = 0) : Busy(bench, core, bench.server) {}
  // Its connection is to this server.
  Busy(SessionBench& bench, CoreId core, ScriptedServer& at) : client(bench, core), request() {
    request = cancel_request(log_in(client).body);
    client.query("BEGIN");
    CHECK(client.take_tags() == "CZ");
    server = at.open_sessions().back();
    server->is_silent = true;
    client.query("long");
  }
  TestClient client;
  std::string request;
  ServerSession* server = nullptr;
};

BenchOptions in_session_mode(BenchOptions options) {
  options.limits.mode = LeaseMode::session;
  return options;
}

// The process id that a request is for.
uint32_t process_id_in(const std::string& request) {
  return load_be32(as_bytes(request).data() + 8);
}

const std::string cancelled = error_reply("ERROR", "57014", "canceling statement") + ready('E');

TEST_CASE("a second request for a query joins the first, and both end with it") {
  SessionBench bench(with_backends(2, 2));
  bench.server.holds_cancels = true;
  Busy busy(bench);
  std::vector<TestClient> askers;
  for (CoreId i = 0; i < 5; ++i) askers.push_back(ask(bench, busy.request, i % 2));
  CHECK(bench.server.cancels().size() == 1);
  for (TestClient& asker : askers) CHECK_FALSE(asker.is_closed());
  bench.server.cancels()[0]->end();
  bench.settle();
  for (TestClient& asker : askers) CHECK(asker.is_closed());
  // It has not helped: the next one is another.
  TestClient again = ask(bench, busy.request);
  CHECK(bench.server.cancels().size() == 2);
  CHECK(counters_of(bench).cancels == 2);
  busy.server->write(cancelled);
  bench.settle();
  CHECK(busy.client.take_tags() == "EZ");
}

TEST_CASE("a storm of requests for one query costs one connection, and keeps few askers") {
  SessionBench bench;
  bench.server.holds_cancels = true;
  Busy busy(bench);
  std::vector<TestClient> askers;
  for (int i = 0; i < 500; ++i) askers.push_back(ask(bench, busy.request));
  CHECK(bench.server.cancels().size() == 1);
  const auto waiting = std::count_if(askers.begin(), askers.end(),
                                     [](TestClient& asker) { return !asker.is_closed(); });
  CHECK(waiting == Canceller::askers_max);
  CHECK(bench.sessions().count() == 1 + Canceller::askers_max);
  CHECK(counters_of(bench).cancels_dropped == 0);
}

TEST_CASE("a cancel request goes to the address of its backend, whatever others its node has") {
  for (const CoreId cores : {CoreId{1}, CoreId{2}}) {
    CAPTURE(cores);
    BenchOptions options = with_backends(2, cores);
    options.node.hosts = {"127.0.0.2", "127.0.0.1"};
    SessionBench bench(options);
    const CoreId elsewhere = static_cast<CoreId>(cores - 1);
    // Nobody listens at the first address yet.
    Busy one(bench);
    CHECK(ask(bench, one.request, elsewhere).is_closed());
    REQUIRE(bench.server.cancels().size() == 1);
    CHECK(bench.server.cancels()[0]->cancelled_process_id == one.server->process_id());
    // Another server, with a session of the same process id and key.
    ScriptedServer other(bench.network, options.node.port, "127.0.0.2");
    bench.others.push_back(&other);
    bench.pass(options.node.health.passed_over_for);
    Busy two(bench, elsewhere, other);
    REQUIRE(two.server->process_id() == one.server->process_id());
    REQUIRE(two.server->cancel_key() == one.server->cancel_key());
    CHECK(ask(bench, two.request).is_closed());
    CHECK(other.cancels().size() == 1);
    CHECK(ask(bench, one.request, elsewhere).is_closed());
    CHECK(bench.server.cancels().size() == 2);
    // Where nobody takes it, it is for nobody.
    bench.server.stop_listening();
    CHECK(ask(bench, one.request).is_closed());
    CHECK(bench.server.cancels().size() == 2);
    CHECK(other.cancels().size() == 1);
    for (Busy* busy : {&one, &two}) {
      busy->server->write(cancelled);
      bench.settle();
      CHECK(busy->client.take_tags() == "EZ");
      busy->client.close();
    }
    bench.finish();
  }
}

TEST_CASE("few cancel requests at once are on their way to a node, the others in their order") {
  constexpr size_t count = 3 * Cancels::connections_max;
  SessionBench bench(with_backends(count));
  bench.server.holds_cancels = true;
  std::vector<Busy> busy;
  busy.reserve(count);
  for (size_t i = 0; i < count; ++i) busy.emplace_back(bench);
  std::vector<TestClient> askers;
  for (const Busy& one : busy) askers.push_back(ask(bench, one.request));
  std::vector<uint32_t> order;
  while (order.size() < count) {
    REQUIRE(open_cancels_count(bench) == std::min(Cancels::connections_max, count - order.size()));
    for (ServerSession* cancel : bench.server.cancels()) {
      if (!cancel->is_open()) continue;
      order.push_back(cancel->cancelled_process_id);
      cancel->end();
      break;
    }
    bench.settle();
  }
  for (size_t i = 0; i < count; ++i) CHECK(order[i] == busy[i].server->process_id());
  for (TestClient& asker : askers) CHECK(asker.is_closed());
}

TEST_CASE("beyond the end of the queue cancel requests are dropped, counted, and harm nobody") {
  constexpr size_t fit = Cancels::connections_max + Cancels::waiting_max;
  SessionBench bench(with_backends(fit + 10));
  bench.server.holds_cancels = true;
  // The node allows no more than a hundred.
  bench.node.limit.set_max(0);
  std::vector<Busy> busy;
  busy.reserve(fit + 10);
  for (size_t i = 0; i < fit + 10; ++i) busy.emplace_back(bench);
  std::vector<TestClient> askers;
  for (const Busy& one : busy) askers.push_back(ask(bench, one.request));
  CHECK(open_cancels_count(bench) == Cancels::connections_max);
  for (size_t i = 0; i < askers.size(); ++i) CHECK(askers[i].is_closed() == (i >= fit));
  CHECK(counters_of(bench).cancels_dropped == 10);
  // Those that wait in vain are given up.
  bench.advance_in_steps(seconds(11), seconds(1));
  for (TestClient& asker : askers) CHECK(asker.is_closed());
  for (Busy& one : busy) one.server->write(cancelled);
  bench.settle();
  for (Busy& one : busy) CHECK(one.client.take_tags() == "EZ");
}

TEST_CASE("a cancel request whose query has ended before it was sent is not sent, for no other") {
  for (const bool is_pipelined : {false, true}) {
    // All places are taken by others.
    SessionBench bench(with_backends(Cancels::connections_max + 1));
    bench.server.holds_cancels = true;
    std::vector<Busy> others;
    others.reserve(Cancels::connections_max);
    for (size_t i = 0; i < Cancels::connections_max; ++i) others.emplace_back(bench);
    Busy busy(bench);
    std::vector<TestClient> askers;
    for (const Busy& one : others) askers.push_back(ask(bench, one.request));
    if (is_pipelined) busy.client.query("next");
    TestClient asker = ask(bench, busy.request);
    CHECK_FALSE(asker.is_closed());
    busy.server->write(echo("long") + ready('T'));
    bench.settle();
    CHECK(busy.client.take_tags() == "TDCZ");
    CHECK(asker.is_closed());
    // Nothing keeps the backend.
    if (!is_pipelined) busy.client.query("next");
    CHECK(busy.server->queries().back() == "next");
    for (ServerSession* cancel : bench.server.cancels()) cancel->end();
    bench.settle();
    CHECK(bench.server.cancels().size() == Cancels::connections_max);
    busy.server->write(echo("next") + ready('T'));
    bench.settle();
    CHECK(busy.client.take_tags() == "TDCZ");
  }
}

TEST_CASE(
    "in session mode the client is told its server's process id, and cancels with it anywhere") {
  for (CoreId core = 0; core < 3; ++core) {
    SessionBench bench(in_session_mode(with_backends(3, 3)));
    Busy busy(bench, core);
    CHECK(process_id_in(busy.request) == busy.server->process_id());
    TestClient asker = ask(bench, busy.request);
    CHECK(asker.is_closed());
    REQUIRE(bench.server.cancels().size() == 1);
    CHECK(bench.server.cancels()[0]->cancelled_process_id == busy.server->process_id());
    CHECK(bench.server.cancels()[0]->cancelled_key == busy.server->cancel_key());
    // Who knows the process id only cancels nothing, and is told nothing.
    std::string guess = busy.request;
    guess.back() = static_cast<char>(guess.back() ^ 1);
    CHECK(ask(bench, guess).is_closed());
    CHECK(bench.server.cancels().size() == 1);
    busy.server->write(cancelled);
    bench.settle();
    CHECK(busy.client.take_tags() == "EZ");
    // Behind its end nobody is found.
    busy.client.close();
    busy.server->is_silent = false;
    CHECK(ask(bench, busy.request).is_closed());
    CHECK(bench.server.cancels().size() == 1);
  }
}

TEST_CASE("a server without a process id, or with one that is the pooler's, is not told as it is") {
  for (const uint32_t process_id : {0U, 1U << 22, (2U << 22) + 1}) {
    SessionBench bench(in_session_mode(with_backends(1)));
    bench.server.next_process_id = process_id;
    TestClient client(bench);
    const std::string request = cancel_request(log_in(client).body);
    CHECK(process_id_in(request) == (1U << 22) + 1);
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    client.query("long");
    CHECK(ask(bench, request).is_closed());
    // Without one the server cannot be asked.
    CHECK(bench.server.cancels().size() == (process_id == 0 ? 0 : 1));
    server.write(error_reply("ERROR", "57014", "canceling statement") + ready('I'));
    bench.settle();
    CHECK(client.take_tags() == "EZ");
  }
}

TEST_CASE("the next query waits until a cancel request for the one before has landed") {
  for (const bool is_extended : {false, true}) {
    SessionBench bench(with_backends(1));
    bench.server.holds_cancels = true;
    Busy busy(bench);
    TestClient asker = ask(bench, busy.request);
    REQUIRE(bench.server.cancels().size() == 1);
    busy.server->write(echo("long") + ready('T'));
    bench.settle();
    CHECK(busy.client.take_tags() == "TDCZ");
    busy.server->is_silent = false;
    if (is_extended) {
      busy.client.write(parse_message("", "next") + bind_message("", "") + execute_message() +
                        sync_message());
    } else {
      busy.client.query("next");
    }
    CHECK(busy.client.take_tags().empty());
    CHECK(busy.server->queries().back() == "long");
    CHECK_FALSE(asker.is_closed());
    bench.server.cancels()[0]->end();
    bench.settle();
    CHECK(asker.is_closed());
    CHECK(busy.client.take_tags() == (is_extended ? "12DCZ" : "TDCZ"));
    busy.client.query("COMMIT");
    CHECK(busy.client.take_tags() == "CZ");
    CHECK(bench.slice().idle_count() == 1);
  }
}

TEST_CASE("a query that waits behind a statement of the pooler's own is cancelled behind it") {
  SessionBench bench(with_backends(1));
  TestClient other(bench, 0, "me", {{"application_name", "other"}});
  other.query("a");
  TestClient client(bench);
  const std::string request = cancel_request(log_in(client).body);
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("long");
  REQUIRE(server.log.size() >= 2);
  CHECK(server.log.back().body == std::string("long\0", 5));
  TestClient asker = ask(bench, request);
  bench.advance_in_steps(milliseconds(50), milliseconds(5));
  CHECK(counters_of(bench).cancels == 0);
  CHECK_FALSE(asker.is_closed());
  server.write(frame('S', std::string("application_name\0\0", 18)) + complete("SET") + ready());
  bench.settle();
  bench.advance(milliseconds(10));
  CHECK(counters_of(bench).cancels == 1);
  CHECK(asker.is_closed());
  server.write(error_reply("ERROR", "57014", "canceling statement") + ready());
  bench.settle();
  CHECK(client.take_tags() == "EZ");
}

TEST_CASE("a key counts in the length in which it was given, and only until its client has gone") {
  SessionBench bench(with_backends(1));
  std::string startup = startup_packet("me", "db");
  startup[7] = 2;  // Protocol 3.2.
  TestClient client(bench);
  const std::string request = cancel_request(log_in(client, startup).body);
  REQUIRE(request.size() == 12 + 32);
  bench.server.only().is_silent = true;
  client.query("long");
  const std::string_view whole = request;
  for (const size_t size : {size_t{4}, size_t{31}}) {
    TestClient asker = ask(bench, cancel_request(whole.substr(8, 4 + size)));
    CHECK(asker.is_closed());
  }
  CHECK(bench.server.cancels().empty());
  TestClient asker = ask(bench, request);
  CHECK(asker.is_closed());
  CHECK(bench.server.cancels().size() == 1);
  client.reset();
  TestClient late = ask(bench, request);
  CHECK(late.is_closed());
}

TEST_CASE("a process that stops keeps no cancel request") {
  SessionBench bench(with_backends(20));
  bench.server.holds_cancels = true;
  std::vector<Busy> busy;
  busy.reserve(20);
  for (int i = 0; i < 20; ++i) busy.emplace_back(bench);
  std::vector<TestClient> askers;
  for (const Busy& one : busy) askers.push_back(ask(bench, one.request));
  CHECK(bench.pools().cancels().waiting_count() == 20 - Cancels::connections_max);
  bench.finish();
}

TEST_CASE("a server is not asked about its state while a cancel request may hit the question") {
  BenchOptions options = with_backends(1);
  options.limits.session_state = StatePolicy::follow;
  SessionBench bench(options);
  bench.server.holds_cancels = true;
  TestClient client(bench);
  const std::string request = cancel_request(log_in(client).body);
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("SET work_mem='64'");
  TestClient asker = ask(bench, request);
  server.write(complete("SET") + ready());
  bench.settle();
  CHECK(client.take_tags() == "CZ");
  CHECK(server.tags() == "Q");
  bench.server.cancels()[0]->end();
  bench.settle();
  CHECK(server.tags() == "QQ");
  CHECK(server.log.back().body.starts_with("SELECT 's',"));
  server.write(ready());
  bench.settle();
  CHECK(bench.slice().idle_count() == 1);
}

}  // namespace
}  // namespace helios
