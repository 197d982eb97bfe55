// Waits that end without a backend: by a cancel request, or because the client says Terminate.
#include <doctest/doctest.h>

#include "helios/wire/writer.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

void send_cancel(SessionBench& bench, const std::string& request, CoreId core = 0) {
  TestClient asker(bench, core);
  asker.write(request);
  CHECK(asker.take_bytes().empty());
  CHECK(asker.is_closed());
}

void check_cancelled(const std::vector<WireMessage>& messages, std::string_view tags) {
  CHECK(tags_of(messages) == tags);
  REQUIRE(!messages.empty());
  CHECK(field_of(messages[0], 'V') == "ERROR");
  CHECK(field_of(messages[0], 'C') == "57014");
  CHECK(field_of(messages[0], 'M') == "canceling statement due to user request");
}

uint64_t failures_count(SessionBench& bench, WaitFailure reason, CoreId core = 0) {
  return bench.core(core).pools.statistics().total.counters.failures[reason];
}

std::string batch_message(std::string_view text) {
  return parse_message("", text) + bind_message("", "") + execute_message();
}

std::string function_call() {
  return frame('F', std::string("\0\0\0\1\0\0\0\0\0\0", 10));
}

TEST_CASE("a cancel request ends a wait at once, the connection lives on, no server hears of it") {
  for (const CoreId core : {CoreId{0}, CoreId{1}}) {
    BenchOptions options = with_backends(1, 2);
    options.limits.max_waiters = 1;
    SessionBench bench(options);
    TestClient holder(bench, 0, "me");
    TestClient waiter(bench, core);
    const std::string request = cancel_request(log_in(waiter).body);
    holder.query("BEGIN");
    waiter.query("never");
    CHECK(bench.slice(core).waiters_count() == 1);
    CHECK(waiter.take_tags().empty());
    send_cancel(bench, request);
    check_cancelled(waiter.take(), "EZ");
    CHECK(bench.slice(core).waiters_count() == 0);
    CHECK(failures_count(bench, WaitFailure::cancelled, core) == 1);
    CHECK(bench.server.cancels().empty());

    // Its place in the queue is free, and the next wait is a wait like any other.
    waiter.query("mine");
    CHECK(bench.slice(core).waiters_count() == 1);
    holder.query("COMMIT");
    CHECK(waiter.take_tags() == "TDCZ");
    CHECK(bench.server.only().queries() == std::vector<std::string>{"BEGIN", "COMMIT", "mine"});
    // Late requests find nothing that waits or runs.
    send_cancel(bench, request);
    CHECK(waiter.take_tags().empty());
  }
}

TEST_CASE("of a batch that is cancelled while it waits everything is skipped up to its Sync") {
  SessionBench bench(with_backends(1));
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench);
  const std::string request = cancel_request(log_in(waiter).body);
  holder.query("BEGIN");
  waiter.write(batch_message("a") + flush_message());
  send_cancel(bench, request);
  check_cancelled(waiter.take(), "E");
  // As in a server, a query that stands before the Sync belongs to the batch.
  waiter.write(batch_message("b") + query_message("c") + frame('d', "d"));
  CHECK(waiter.take_tags().empty());
  CHECK(bench.slice().waiters_count() == 0);
  waiter.write(sync_message());
  CHECK(waiter.take_tags() == "Z");
  waiter.write(sync_message());
  CHECK(waiter.take_tags() == "Z");
  waiter.write(batch_message("e") + sync_message());
  CHECK(bench.slice().waiters_count() == 1);
  holder.query("COMMIT");
  CHECK(waiter.take_tags() == "12DCZ");
  CHECK(bench.server.only().queries() == std::vector<std::string>{"BEGIN", "COMMIT"});
}

TEST_CASE("a cancel request ends one wait: what was sent behind it waits on its own") {
  for (const std::string& first :
       {query_message("a"), function_call(), batch_message("a") + sync_message()}) {
    SessionBench bench(with_backends(1));
    TestClient holder(bench, 0, "me");
    TestClient waiter(bench);
    const std::string request = cancel_request(log_in(waiter).body);
    holder.query("BEGIN");
    waiter.write(first + query_message("b") + query_message("c"));
    send_cancel(bench, request);
    check_cancelled(waiter.take(), "EZ");
    CHECK(bench.slice().waiters_count() == 1);
    send_cancel(bench, request);
    check_cancelled(waiter.take(), "EZ");
    CHECK(bench.slice().waiters_count() == 1);
    holder.query("COMMIT");
    CHECK(waiter.take_tags() == "TDCZ");
    CHECK(bench.server.only().queries() == std::vector<std::string>{"BEGIN", "COMMIT", "c"});
  }
}

TEST_CASE("a query that is cancelled while it waits is ready when all of it has come") {
  SessionBench bench(with_backends(1));
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench);
  const std::string request = cancel_request(log_in(waiter).body);
  holder.query("BEGIN");
  // More than is kept: reading was stopped, and goes on.
  const std::string query = query_message(std::string(100'000, 'q'));
  waiter.write(query.substr(0, 60'000));
  send_cancel(bench, request);
  check_cancelled(waiter.take(), "E");
  waiter.write(query.substr(60'000, 39'000));
  CHECK(waiter.take_tags().empty());
  waiter.write(query.substr(99'000) + query_message("mine"));
  CHECK(waiter.take_tags() == "Z");
  holder.query("COMMIT");
  CHECK(waiter.take_tags() == "TDCZ");
  CHECK(bench.core().io.lent_count(BufferGroup::client) == 0);
}

TEST_CASE("a wrong key ends no wait, and neither the time-out nor the notice of a cancelled one") {
  BenchOptions options = with_backends(1);
  options.limits.acquire_timeout = seconds(10);
  options.limits.wait_notice = seconds(5);
  SessionBench bench(options);
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench);
  const std::string request = cancel_request(log_in(waiter).body);
  std::string wrong = request;
  wrong.back() = static_cast<char>(wrong.back() ^ 1);
  holder.query("BEGIN");
  waiter.query("a");
  send_cancel(bench, wrong);
  CHECK(bench.slice().waiters_count() == 1);
  CHECK(waiter.take_tags().empty());
  send_cancel(bench, request);
  check_cancelled(waiter.take(), "EZ");
  bench.advance_in_steps(seconds(30), seconds(1));
  CHECK(waiter.take_tags().empty());
  CHECK_FALSE(waiter.is_closed());
}

// --- Terminate

TEST_CASE("a waiter that says Terminate and stays connected leaves the queue at once") {
  const std::string goodbye = frame('X', {});
  struct Case {
    std::string before, behind;
  };
  const std::vector<Case> cases = {
      {query_message("never"), goodbye},
      {query_message("never") + goodbye, {}},
      {query_message("never"), goodbye + "and anything behind it"},
      {batch_message("never") + sync_message() + query_message("nor this"), goodbye},
      {batch_message("never"), goodbye},
      // In pieces: half a header, the rest.
      {query_message("never") + goodbye.substr(0, 2), goodbye.substr(2)},
      {query_message("never").substr(0, 8), query_message("never").substr(8) + goodbye},
  };
  for (const Case& one : cases) {
    SessionBench bench(with_backends(1));
    TestClient holder(bench, 0, "me");
    TestClient waiter(bench, 0, "me");
    holder.query("BEGIN");
    waiter.write(one.before);
    if (!one.behind.empty()) {
      CHECK(bench.slice().waiters_count() == 1);
      waiter.write(one.behind);
    }
    CHECK(bench.slice().waiters_count() == 0);
    CHECK(bench.sessions().count() == 1);
    CHECK(waiter.is_closed());
    CHECK(failures_count(bench, WaitFailure::client_left) == 1);
    holder.query("COMMIT");
    CHECK(bench.server.only().queries() == std::vector<std::string>{"BEGIN", "COMMIT"});
    CHECK(bench.server.only().tags() == "QQ");
  }
}

TEST_CASE("a text that looks like Terminate is none") {
  SessionBench bench(with_backends(1));
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  holder.query("BEGIN");
  waiter.write(query_message(frame('X', {}) + frame('X', {})));
  CHECK(bench.slice().waiters_count() == 1);
  holder.query("COMMIT");
  CHECK(waiter.take_tags().back() == 'Z');
}

TEST_CASE("a client that says Terminate behind its first work, or in its login, does not wait on") {
  SessionBench bench(with_backends(1));
  TestClient holder(bench, 0, "me");
  TestClient other(bench, 0, "me");
  holder.query("BEGIN");
  // What it has begun is answered; the rest of the same flight finds it waiting.
  TestClient pipeliner(bench, 0, "me");
  TestClient newcomer(bench);
  newcomer.write(startup_packet("me", "db", {{"TimeZone", "cet"}}) + frame('X', {}));
  CHECK(bench.slice().waiters_count() == 0);
  CHECK(newcomer.is_closed());
  other.query("first");
  pipeliner.write(query_message("second") + query_message("third") + frame('X', {}));
  CHECK(bench.slice().waiters_count() == 1);
  holder.query("COMMIT");
  CHECK(other.take_tags() == "TDCZ");
  CHECK(bench.server.only().queries() == std::vector<std::string>{"BEGIN", "COMMIT", "first"});
}

TEST_CASE("what a server has begun for a client that says Terminate is finished, the rest is not") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("a");
  other.query("mine");
  // The other waits: nothing new is begun for the first behind its query.
  client.write(query_message("b") + frame('X', {}));
  server.write(echo("a") + ready());
  bench.settle();
  CHECK(client.is_closed());
  server.write(echo("mine") + ready());
  bench.settle();
  CHECK(other.take_tags() == "TDCZ");
  CHECK(server.queries() == std::vector<std::string>{"a", "mine"});
}

}  // namespace
}  // namespace helios
