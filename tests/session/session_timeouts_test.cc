// query_timeout, idle_transaction_timeout, transaction_timeout and client_idle_timeout.
#include <doctest/doctest.h>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

using Texts = std::vector<std::string>;

// Backends on which time has no other effect, for clients with these limits.
BenchOptions with_limits(const TimeLimits& limits, uint32_t max_connections = 1) {
  BenchOptions options = with_ageless_backends(max_connections);
  options.limits.time_limits = limits;
  options.limits.acquire_timeout = 0;
  return options;
}

BenchOptions in_session_mode(BenchOptions options) {
  options.limits.mode = LeaseMode::session;
  return options;
}

void pass(SessionBench& bench, Nanoseconds time) {
  bench.advance_in_steps(time, milliseconds(100));
}

uint64_t overruns_count(SessionBench& bench, TimeLimit limit) {
  return bench.core().pools.statistics().total.counters.overruns[limit];
}

// The last thing that the client was told, before its connection was closed.
void check_told(TestClient& client, std::string_view code, std::string_view text) {
  const std::vector<WireMessage> messages = client.take();
  REQUIRE(!messages.empty());
  const WireMessage& last = messages.back();
  REQUIRE(last.tag == 'E');
  CHECK(field_of(last, 'V') == "FATAL");
  CHECK(field_of(last, 'C') == code);
  CHECK(field_of(last, 'M') == text);
  CHECK(client.is_closed());
}

Texts texts_of(const ServerSession& server) {
  Texts texts;
  for (const WireMessage& message : server.log)
    if (message.tag == 'Q') texts.push_back(message.body.substr(0, message.body.size() - 1));
  return texts;
}

const std::string cancelled = error_reply("ERROR", "57014", "canceling statement");

std::string open_batch() {
  return parse_message("", "x") + bind_message("", "") + execute_message() + flush_message();
}

// --- query_timeout

TEST_CASE("a query that takes too long is cancelled, and the session goes on with its backend") {
  for (const std::string& begin : {std::string(), std::string("BEGIN")}) {
    for (const bool is_batch : {false, true}) {
      SessionBench bench(with_limits({.query = seconds(3)}));
      TestClient client(bench, 0, "me");
      if (!begin.empty()) client.query(begin);
      pass(bench, seconds(10));
      (void)client.take();
      ServerSession& server = bench.server.only();
      server.is_silent = true;
      if (is_batch) {
        client.write(open_batch() + sync_message());
      } else {
        client.query("x");
      }
      pass(bench, milliseconds(2900));
      CHECK(bench.server.cancels().empty());
      pass(bench, milliseconds(200));
      REQUIRE(bench.server.cancels().size() == 1);
      CHECK(bench.server.cancels()[0]->cancelled_process_id == server.process_id());
      CHECK(client.take_tags().empty());
      server.write(cancelled + ready(begin.empty() ? 'I' : 'E'));
      server.is_silent = false;
      bench.settle();
      CHECK(client.take_tags() == "EZ");
      pass(bench, seconds(100));
      CHECK(bench.server.cancels().size() == 1);
      CHECK(overruns_count(bench, TimeLimit::query) == 1);
      client.query(begin.empty() ? "y" : "ROLLBACK");
      CHECK(client.take_tags() == (begin.empty() ? "TDCZ" : "CZ"));
      CHECK(bench.slice().idle_count() == 1);
      CHECK(bench.server.only().process_id() == server.process_id());
    }
  }
}

TEST_CASE("a query whose cancel is not answered in time costs both their connections") {
  for (BenchOptions options :
       {with_limits({.query = seconds(3)}), in_session_mode(with_limits({.query = seconds(3)}))}) {
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    client.query("x");
    pass(bench, milliseconds(7900));
    // It is asked again: a request may have come too early.
    CHECK(bench.server.cancels().size() == 10);
    CHECK(client.take_tags().empty());
    CHECK(server.is_open());
    pass(bench, milliseconds(200));
    check_told(client, "57014", "query timeout");
    CHECK_FALSE(server.is_open());
    CHECK(overruns_count(bench, TimeLimit::query) == 1);
    TestClient other(bench, 0, "me");
    other.query("mine");
    CHECK(other.take_tags() == "TDCZ");
  }
}

TEST_CASE("in the middle of a message nothing is said at the end of a query that is not answered") {
  SessionBench bench(with_limits({.query = seconds(3)}));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("x");
  server.write(echo("x").substr(0, 8));
  pass(bench, milliseconds(8100));
  CHECK(client.take_bytes() == echo("x").substr(0, 8));
  CHECK(client.is_closed());
}

TEST_CASE("of a pipeline each query has its own time") {
  SessionBench bench(with_limits({.query = seconds(3)}));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(query_message("a") + query_message("b") + query_message("c"));
  for (int i = 0; i < 2; ++i) {
    pass(bench, milliseconds(2900));
    server.write(echo("x") + ready());
    bench.settle();
  }
  pass(bench, milliseconds(2900));
  CHECK(bench.server.cancels().empty());
  pass(bench, milliseconds(200));
  CHECK(bench.server.cancels().size() == 1);
  server.write(cancelled + ready());
  bench.settle();
  CHECK(client.take_tags() == "TDCZTDCZEZ");
}

TEST_CASE("no query runs while a client is silent in a transaction, or in a batch") {
  for (const std::string& request :
       {query_message("BEGIN"), open_batch(), parse_message("", "BADPARSE") + flush_message()}) {
    SessionBench bench(with_limits({.query = seconds(3)}));
    TestClient client(bench, 0, "me");
    client.write(request);
    // Where a batch has failed, the server does not look at this.
    client.write(parse_message("", "x") + flush_message());
    pass(bench, seconds(20));
    CHECK(bench.server.cancels().empty());
    CHECK_FALSE(client.is_closed());
  }
}

TEST_CASE("the wait for a backend is no query, and makes none shorter") {
  SessionBench bench(with_limits({.query = seconds(3)}));
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  holder.query("BEGIN");
  waiter.query("x");
  pass(bench, seconds(20));
  CHECK_FALSE(waiter.is_closed());
  bench.server.only().is_silent = true;
  holder.query("COMMIT");
  bench.server.only().write(complete("COMMIT") + ready());
  bench.settle();
  pass(bench, milliseconds(2900));
  CHECK(bench.server.cancels().empty());
  pass(bench, milliseconds(200));
  CHECK(bench.server.cancels().size() == 1);
}

// It would be cancelled in its place.
TEST_CASE("while a cancel request of ours is under way the client's next query is held back") {
  SessionBench bench(with_limits({.query = seconds(3)}));
  TestClient client(bench, 0, "me");
  client.query("BEGIN");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  bench.server.holds_cancels = true;
  client.query("x");
  pass(bench, milliseconds(3100));
  REQUIRE(bench.server.cancels().size() == 1);
  server.write(echo("x") + ready('T'));
  client.query("next");
  CHECK(texts_of(server) == Texts{"BEGIN", "x"});
  server.is_silent = false;
  bench.server.cancels()[0]->end();
  bench.settle();
  CHECK(texts_of(server) == Texts{"BEGIN", "x", "next"});
  CHECK(client.take_tags() == "CZTDCZTDCZ");
}

TEST_CASE("a client that is silent in a COPY is cut off") {
  SessionBench bench(with_limits({.query = seconds(3)}));
  TestClient client(bench, 0, "me");
  client.query("COPYIN");
  CHECK(client.take_tags() == "G");
  pass(bench, seconds(2));
  client.write(frame('d', "row"));
  pass(bench, milliseconds(6100));
  check_told(client, "57014", "query timeout");
  CHECK(bench.slice().backends_count() == 0);
}

TEST_CASE("a query of a client that has said goodbye does not run for ever either") {
  SessionBench bench(with_limits({.query = seconds(3)}));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(query_message("x") + frame('X', {}));
  CHECK(bench.server.cancels().empty());
  pass(bench, milliseconds(3100));
  CHECK(bench.server.cancels().size() == 1);
  pass(bench, seconds(6));
  CHECK_FALSE(server.is_open());
  CHECK(bench.sessions().is_empty());
}

TEST_CASE("a statement of ours is never cancelled, and does not hold up the client for ever") {
  SessionBench bench(with_limits({.query = seconds(3)}));
  TestClient one(bench, 0, "me", {{"application_name", "one"}});
  TestClient two(bench, 0, "me", {{"application_name", "two"}});
  two.query("x");
  bench.server.only().is_silent = true;
  one.query("x");
  pass(bench, milliseconds(7900));
  CHECK(bench.server.cancels().empty());
  pass(bench, milliseconds(200));
  check_told(one, "57014", "query timeout");
}

// --- idle_transaction_timeout

TEST_CASE("a client that is silent in a transaction is told once, and its backend rolled back") {
  for (BenchOptions options : {with_limits({.idle_transaction = seconds(3)}),
                               in_session_mode(with_limits({.idle_transaction = seconds(3)}))}) {
    for (const bool has_failed : {false, true}) {
      SessionBench bench(options);
      TestClient client(bench, 0, "me");
      client.query("BEGIN");
      if (has_failed) client.query("FAIL");
      TestClient other(bench);
      other.write(startup_packet("me", "db") + query_message("mine"));
      pass(bench, milliseconds(2900));
      client.query("x");
      pass(bench, milliseconds(2900));
      CHECK_FALSE(client.is_closed());
      pass(bench, milliseconds(200));
      check_told(client, "25P03", "idle transaction timeout");
      CHECK(overruns_count(bench, TimeLimit::idle_transaction) == 1);
      CHECK(other.take_tags().ends_with("TDCZ"));
      const Texts texts = texts_of(bench.server.only());
      CHECK(std::find(texts.begin(), texts.end(), "ROLLBACK") != texts.end());
      CHECK(bench.server.sessions().size() == 1);
    }
  }
}

TEST_CASE("a batch that is left open is an idle transaction too") {
  SessionBench bench(with_limits({.idle_transaction = seconds(3)}));
  TestClient client(bench, 0, "me");
  bench.server.only().is_silent = true;
  client.write(open_batch());
  // Its execution does not count.
  pass(bench, seconds(2));
  bench.server.only().write(frame('1', {}) + frame('2', {}) + complete("SELECT 0"));
  bench.server.only().is_silent = false;
  pass(bench, milliseconds(2900));
  CHECK_FALSE(client.is_closed());
  pass(bench, milliseconds(200));
  check_told(client, "25P03", "idle transaction timeout");
}

TEST_CASE("neither what runs in a transaction nor a client without one is an idle transaction") {
  for (BenchOptions options : {with_limits({.idle_transaction = seconds(3)}),
                               in_session_mode(with_limits({.idle_transaction = seconds(3)}))}) {
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    client.query("BEGIN");
    bench.server.only().is_silent = true;
    client.query("x");
    pass(bench, seconds(20));
    bench.server.only().write(echo("x") + ready('T'));
    bench.server.only().is_silent = false;
    bench.settle();
    client.query("COMMIT");
    client.write(parse_message("pinned", "x") + sync_message());
    pass(bench, seconds(20));
    CHECK(client.take_tags() == "CZTDCZCZ1Z");
    CHECK_FALSE(client.is_closed());
  }
}

BenchOptions sparing(uint32_t max_connections) {
  return with_limits({.idle_transaction = seconds(3), .idle_transaction_if_waited_for = true},
                     max_connections);
}

TEST_CASE("an idle transaction that nobody waits for is spared, and then no more than are needed") {
  for (const CoreId core : {CoreId{0}, CoreId{1}}) {
    BenchOptions options = sparing(3);
    options.cores_count = 2;
    SessionBench bench(options);
    std::vector<TestClient> holders;
    for (int i = 0; i < 3; ++i) {
      holders.emplace_back(bench, 0, "me");
      holders.back().query("BEGIN");
      REQUIRE(holders.back().take_tags() == "CZ");
    }
    pass(bench, seconds(20));
    for (TestClient& holder : holders) CHECK_FALSE(holder.is_closed());
    TestClient waiter(bench, core, "me");
    waiter.query("mine");
    pass(bench, milliseconds(300));
    CHECK(waiter.take_tags() == "TDCZ");
    pass(bench, seconds(20));
    size_t ended_count = 0;
    for (TestClient& holder : holders) ended_count += holder.is_closed() ? 1 : 0;
    CHECK(ended_count == 1);
    CHECK(overruns_count(bench, TimeLimit::idle_transaction) == 1);
  }
}

TEST_CASE("who waits does not make idle_transaction_timeout shorter") {
  SessionBench bench(sparing(1));
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  holder.query("BEGIN");
  waiter.query("mine");
  pass(bench, milliseconds(2900));
  CHECK_FALSE(holder.is_closed());
  pass(bench, milliseconds(200));
  check_told(holder, "25P03", "idle transaction timeout");
  CHECK(waiter.take_tags() == "TDCZ");
}

// --- transaction_timeout

TEST_CASE("a transaction that takes too long ends its session, silent or not") {
  for (BenchOptions options : {with_limits({.transaction = seconds(3)}),
                               in_session_mode(with_limits({.transaction = seconds(3)}))}) {
    for (const bool is_running : {false, true}) {
      SessionBench bench(options);
      TestClient client(bench, 0, "me");
      // In session mode the lease is older than the transaction.
      client.query("x");
      pass(bench, seconds(10));
      client.query("BEGIN");
      pass(bench, milliseconds(2500));
      client.query("y");
      ServerSession& server = bench.server.only();
      server.is_silent = is_running;
      if (is_running) client.query("z");
      pass(bench, milliseconds(400));
      CHECK_FALSE(client.is_closed());
      pass(bench, milliseconds(200));
      check_told(client, "25P04", "transaction timeout");
      CHECK(overruns_count(bench, TimeLimit::transaction) == 1);
      CHECK(bench.server.cancels().size() == (is_running ? 1 : 0));
      server.is_silent = false;
      if (is_running) server.write(cancelled + ready('E'));
      bench.settle();
      const Texts texts = texts_of(server);
      CHECK(std::find(texts.begin(), texts.end(), "ROLLBACK") != texts.end());
      CHECK(bench.slice().idle_count() == 1);
    }
  }
}

TEST_CASE("a single query is a transaction, and each of a pipeline is one of its own") {
  SessionBench bench(with_limits({.transaction = seconds(3)}));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(query_message("a") + query_message("b"));
  pass(bench, milliseconds(2900));
  server.write(echo("a") + ready());
  bench.settle();
  pass(bench, milliseconds(2900));
  CHECK(client.take_tags() == "TDCZ");
  CHECK_FALSE(client.is_closed());
  pass(bench, milliseconds(200));
  check_told(client, "25P04", "transaction timeout");
}

TEST_CASE("in the middle of a message of its answer a transaction is cancelled before it ends") {
  for (const bool is_answered : {false, true}) {
    SessionBench bench(with_limits({.transaction = seconds(3)}));
    TestClient client(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    client.query("x");
    server.write(echo("x").substr(0, 8));
    pass(bench, milliseconds(3100));
    CHECK(bench.server.cancels().size() == 1);
    CHECK(client.take_bytes() == echo("x").substr(0, 8));
    CHECK_FALSE(client.is_closed());
    if (is_answered) {
      server.write(echo("x").substr(8));
      pass(bench, milliseconds(600));
      CHECK(client.take_bytes().find("transaction timeout") != std::string::npos);
    } else {
      pass(bench, milliseconds(4800));
      CHECK_FALSE(client.is_closed());
      pass(bench, milliseconds(200));
      CHECK(client.take_bytes().empty());
    }
    CHECK(client.is_closed());
    CHECK(overruns_count(bench, TimeLimit::transaction) == 1);
  }
}

// --- client_idle_timeout

TEST_CASE("a client that asks nothing is told so, whether it holds a backend or not") {
  for (BenchOptions options : {with_limits({.client_idle = seconds(3)}),
                               in_session_mode(with_limits({.client_idle = seconds(3)}))}) {
    for (const bool is_pinned : {false, true}) {
      SessionBench bench(options);
      TestClient client(bench, 0, "me");
      pass(bench, milliseconds(2900));
      client.query("x");
      if (is_pinned) client.write(parse_message("pinned", "x") + sync_message());
      (void)client.take();
      pass(bench, milliseconds(2900));
      // Without a backend it needs none either.
      client.write(sync_message());
      CHECK(client.take_tags() == "Z");
      pass(bench, milliseconds(2900));
      CHECK_FALSE(client.is_closed());
      pass(bench, milliseconds(200));
      check_told(client, "57P05", "client_idle_timeout");
      CHECK(overruns_count(bench, TimeLimit::client_idle) == 1);
      CHECK(bench.slice().idle_count() == 1);
    }
  }
}

TEST_CASE("who waits, works or is in a transaction is not idle") {
  SessionBench bench(with_limits({.client_idle = seconds(3)}));
  TestClient client(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  client.query("BEGIN");
  waiter.query("mine");
  pass(bench, seconds(20));
  bench.server.only().is_silent = true;
  client.query("x");
  pass(bench, seconds(20));
  CHECK_FALSE(client.is_closed());
  CHECK_FALSE(waiter.is_closed());
}

// --- All of them

TEST_CASE("a client in its login has none of these limits") {
  SessionBench bench(with_limits({seconds(1), seconds(1), seconds(1), seconds(1)}));
  bench.server.holds_logins = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  pass(bench, seconds(10));
  CHECK_FALSE(client.is_closed());
}

TEST_CASE("a reload brings limits and takes them away, for clients that are there") {
  SessionBench bench(with_limits({}, 2));
  TestClient idle(bench, 0, "me");
  TestClient busy(bench, 0, "me");
  busy.query("BEGIN");
  pass(bench, seconds(20));
  bench.reload([](BenchDirectory& next) { next.limits.time_limits.client_idle = seconds(3); });
  pass(bench, milliseconds(2900));
  CHECK_FALSE(idle.is_closed());
  pass(bench, milliseconds(200));
  check_told(idle, "57P05", "client_idle_timeout");
  // When its transaction has ended.
  busy.query("COMMIT");
  pass(bench, seconds(2));
  CHECK_FALSE(busy.is_closed());
  bench.reload([](BenchDirectory& next) { next.limits.time_limits = {}; });
  pass(bench, seconds(20));
  CHECK_FALSE(busy.is_closed());
}

TEST_CASE("a user has limits of its own") {
  SessionBench bench(with_limits({.client_idle = seconds(3)}, 2));
  bench.directory.adapt = [](PoolSpec& spec) {
    if (spec.user == "patient") spec.limits.time_limits = {};
    if (spec.user == "hasty") spec.limits.time_limits.client_idle = seconds(1);
  };
  TestClient me(bench, 0, "me");
  TestClient patient(bench, 0, "patient");
  TestClient hasty(bench, 0, "hasty");
  pass(bench, seconds(2));
  CHECK(hasty.is_closed());
  CHECK_FALSE(me.is_closed());
  pass(bench, seconds(2));
  CHECK(me.is_closed());
  CHECK_FALSE(patient.is_closed());
}

TEST_CASE(
    "a client that works costs no timer for its queries, and one without limits none at all") {
  for (const bool is_limited : {false, true}) {
    TimeLimits limits;
    if (is_limited) limits = {seconds(3), seconds(3), seconds(3), seconds(30)};
    SessionBench bench(with_limits(limits));
    TestClient client(bench, 0, "me");
    client.query("first");
    const size_t timers_count = bench.core().timers_count();
    const Nanoseconds wakeup = bench.core().timers.next_wakeup();
    for (int i = 0; i < 10; ++i) {
      bench.clock.advance(milliseconds(50));
      client.query("BEGIN");
      client.query("x");
      client.query("COMMIT");
      CHECK(bench.core().timers_count() == timers_count);
      CHECK(bench.core().timers.next_wakeup() == wakeup);
    }
    TestClient other(bench, 0, "me");
    CHECK(bench.core().timers_count() == timers_count + (is_limited ? 1 : 0));
  }
}

}  // namespace
}  // namespace helios
