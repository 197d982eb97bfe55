// Sessions that share backends: waiting, leaving, cancelling, draining.
#include <doctest/doctest.h>

#include <algorithm>

#include "helios/wire/writer.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

bool is_idle(SessionBench& bench) {
  return bench.slice().idle_count() == 1;
}

uint32_t lent_count(SessionBench& bench) {
  return bench.core().io.lent_count(BufferGroup::client);
}

TEST_CASE("who waits longest is served first") {
  SessionBench bench(with_backends(1));
  TestClient holder(bench, 0, "me");
  std::vector<TestClient> waiters;
  for (int i = 0; i < 5; ++i) waiters.emplace_back(bench, 0, "me");
  holder.query("BEGIN");
  for (int i = 0; i < 5; ++i) waiters[static_cast<size_t>(i)].query("w" + std::to_string(i));
  CHECK(bench.slice().waiters_count() == 5);
  holder.query("COMMIT");
  CHECK(bench.server.only().queries() ==
        std::vector<std::string>{"BEGIN", "COMMIT", "w0", "w1", "w2", "w3", "w4"});
  for (TestClient& waiter : waiters) CHECK(waiter.take_tags() == "TDCZ");
}

TEST_CASE("a waiter whose client leaves is gone at once, and its query is never run") {
  for (const bool by_reset : {false, true}) {
    SessionBench bench(with_backends(1));
    TestClient holder(bench, 0, "me");
    TestClient waiter(bench, 0, "me");
    holder.query("BEGIN");
    waiter.query("never");
    CHECK(bench.slice().waiters_count() == 1);
    by_reset ? waiter.reset() : waiter.close();
    CHECK(bench.slice().waiters_count() == 0);
    CHECK(bench.sessions().count() == 1);
    holder.query("COMMIT");
    CHECK(bench.server.only().queries() == std::vector<std::string>{"BEGIN", "COMMIT"});
  }
}

TEST_CASE("a wait ends after acquire_timeout") {
  BenchOptions options = with_backends(1);
  options.limits.acquire_timeout = seconds(3);
  SessionBench bench(options);
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  holder.query("BEGIN");
  waiter.query("never");
  bench.advance(seconds(2));
  CHECK(waiter.take_tags().empty());
  bench.advance(seconds(2));
  CHECK(waiter.take_error() == "53300");
  CHECK(waiter.is_closed());
  CHECK(bench.slice().waiters_count() == 0);
  holder.query("COMMIT");
  CHECK(holder.take_tags() == "CZCZ");
  CHECK(bench.server.only().queries().size() == 2);
}

TEST_CASE("a waiter holds no receive buffer, and a large query of it arrives complete") {
  BenchOptions options = with_backends(1);
  options.buffers_count = 8;
  SessionBench bench(options);
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  holder.query("BEGIN");
  const std::string text(1'000'000, 'q');
  const size_t chunks_count = bench.core().chunks.lent_count();
  waiter.query(text);
  CHECK(lent_count(bench) == 0);
  // Its receive is stopped: little of it is kept.
  CHECK(bench.core().chunks.lent_count() - chunks_count < 16);
  CHECK(bench.server.only().queries() == std::vector<std::string>{"BEGIN"});
  holder.query("COMMIT");
  std::string got;
  for (int i = 0; i < 1000 && got.size() < text.size() + 50; ++i) {
    got += waiter.take_bytes();
    bench.settle();
  }
  CHECK(is_idle(bench));
  CHECK(bench.server.only().queries().back() == text);
  CHECK(got == echo(text) + ready());
}

// It keeps large pieces in the buffers they came in while it has a backend that takes no more.
TEST_CASE("a client that loses its backend with input left holds no receive buffer as a waiter") {
  BenchOptions options = with_backends(1);
  options.buffers_count = 16;
  SessionBench bench(options);
  TestClient pipeliner(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_deaf = true;
  pipeliner.query("SELECT 1");
  waiter.query("BEGIN");
  // The second is held behind the first, because somebody waits.
  const std::string text(9000, 'p');
  pipeliner.query(text);
  server.is_deaf = false;
  bench.settle();
  CHECK(waiter.take_tags() == "CZ");
  CHECK(lent_count(bench) == 0);
  waiter.query("COMMIT");
  std::string got;
  for (int i = 0; i < 100 && !is_idle(bench); ++i) {
    got += pipeliner.take_bytes();
    bench.settle();
  }
  CHECK(is_idle(bench));
  CHECK(server.queries().back() == text);
}

TEST_CASE("many waiters with long queries do not starve anybody of buffers") {
  BenchOptions options = with_backends(1);
  options.buffers_count = 4;
  SessionBench bench(options);
  TestClient holder(bench, 0, "me");
  holder.query("BEGIN");
  std::vector<TestClient> waiters;
  for (int i = 0; i < 20; ++i) {
    waiters.emplace_back(bench, 0, "me");
    waiters.back().query(std::string(3000, 'w') + std::to_string(i));
  }
  CHECK(lent_count(bench) == 0);
  holder.query("COMMIT");
  for (TestClient& waiter : waiters) CHECK(waiter.take_tags() == "TDCZ");
}

TEST_CASE("a client that pipelines gives its backend back while others wait") {
  SessionBench bench(with_backends(1));
  TestClient greedy(bench, 0, "me");
  TestClient modest(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  greedy.query("g0");
  modest.query("m");
  greedy.write(query_message("g1") + query_message("g2"));
  CHECK(server.queries() == std::vector<std::string>{"g0"});
  server.write(echo("g0") + ready());
  server.is_silent = false;
  bench.settle();
  CHECK(modest.take_tags() == "TDCZ");
  CHECK(greedy.take_tags() == "TDCZTDCZTDCZ");
  CHECK(server.queries() == std::vector<std::string>{"g0", "m", "g1", "g2"});
}

// --- Clients that go

TEST_CASE("a client that goes while idle leaves its backend to the others") {
  for (const bool by_reset : {false, true}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    client.query("x");
    by_reset ? client.reset() : client.close();
    CHECK(bench.sessions().is_empty());
    CHECK(is_idle(bench));
  }
}

// Texts of all queries that came, the pooler's own too.
std::vector<std::string> texts_of(const ServerSession& server) {
  std::vector<std::string> texts;
  for (const WireMessage& message : server.log)
    if (message.tag == 'Q') texts.push_back(message.body.substr(0, message.body.size() - 1));
  return texts;
}

using Texts = std::vector<std::string>;

enum class Goodbye : uint8_t { terminate, close, reset };

void go(TestClient& client, Goodbye goodbye) {
  if (goodbye == Goodbye::terminate) client.write(frame('X', {}));
  goodbye == Goodbye::reset ? client.reset() : client.close();
}

constexpr Goodbye goodbyes[] = {Goodbye::terminate, Goodbye::close, Goodbye::reset};

const std::string cancelled = error_reply("ERROR", "57014", "canceling statement");

TEST_CASE("a client that goes in a transaction costs a ROLLBACK, not the backend") {
  for (const Goodbye goodbye : goodbyes) {
    for (const bool has_failed : {false, true}) {
      SessionBench bench(with_backends(1));
      TestClient client(bench, 0, "me");
      TestClient other(bench, 0, "me");
      client.query("BEGIN");
      if (has_failed) client.query("FAIL");
      other.query("mine");
      go(client, goodbye);
      CHECK(other.take_tags() == "TDCZ");
      CHECK(bench.sessions().count() == 1);
      CHECK(bench.server.sessions().size() == 1);
      CHECK(bench.server.cancels().empty());
      CHECK(texts_of(bench.server.only()) == (has_failed
                                                  ? Texts{"BEGIN", "FAIL", "ROLLBACK", "mine"}
                                                  : Texts{"BEGIN", "ROLLBACK", "mine"}));
    }
  }
}

TEST_CASE("what a client pinned goes after its transaction, before the next client comes") {
  BenchOptions options = with_backends(1);
  options.limits.max_prepared_statements = 0;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  client.query("BEGIN");
  client.write(parse_message("p", "x") + sync_message());
  other.query("mine");
  client.close();
  CHECK(other.take_tags() == "TDCZ");
  CHECK(texts_of(bench.server.only()) == Texts{"BEGIN", "ROLLBACK", "DISCARD ALL", "mine"});
}

TEST_CASE("a server that works for a client that goes is cancelled, and its replies reach nobody") {
  for (const size_t seen_size : {size_t{0}, size_t{3}, size_t{12}, echo("x").size()}) {
    for (const char status : {'I', 'T', 'E'}) {
      SessionBench bench(with_backends(1));
      TestClient client(bench, 0, "me");
      TestClient other(bench, 0, "me");
      if (status != 'I') client.query("BEGIN");
      ServerSession& server = bench.server.only();
      server.is_silent = true;
      client.query("x");
      server.write(echo("x").substr(0, seen_size));
      bench.settle();
      other.query("mine");
      client.reset();
      REQUIRE(bench.server.cancels().size() == 1);
      CHECK(bench.server.cancels()[0]->cancelled_process_id == server.process_id());
      CHECK(bench.server.cancels()[0]->cancelled_key == server.cancel_key());
      CHECK(other.take_tags().empty());
      server.write(echo("x").substr(seen_size) + cancelled);
      bench.settle();
      server.is_silent = false;
      server.write(ready(status));
      bench.settle();
      CHECK(other.take_tags() == "TDCZ");
      CHECK(bench.server.open_sessions().size() == 1);
      Texts texts = {"x", "DISCARD ALL", "mine"};
      if (status != 'I') texts = {"BEGIN", "x", "ROLLBACK", "DISCARD ALL", "mine"};
      CHECK(texts_of(server) == texts);
    }
  }
}

TEST_CASE("nothing is sent while a cancel request for a client that has gone may still arrive") {
  for (const bool is_lost : {false, true}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    TestClient other(bench, 0, "me");
    client.query("BEGIN");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    bench.server.holds_cancels = true;
    client.query("x");
    other.query("mine");
    client.reset();
    server.write(echo("x") + ready('T'));
    server.is_silent = false;
    bench.settle();
    CHECK(texts_of(server) == Texts{"BEGIN", "x"});
    // Whether a request that broke off has come through, nobody knows.
    is_lost ? bench.server.cancels()[0]->reset() : bench.server.cancels()[0]->end();
    bench.settle();
    CHECK(other.take_tags() == "TDCZ");
    CHECK(server.is_open() == !is_lost);
    CHECK(bench.server.only().queries().back() == "mine");
  }
}

// It may have come before the query.
TEST_CASE("a cancel request that ends nothing is repeated, but never meets a statement of ours") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("BEGIN");
  server.write(complete("BEGIN") + ready('T'));
  client.write(query_message("x") + query_message("y"));
  client.close();
  CHECK(bench.server.cancels().size() == 1);
  server.write(cancelled + ready('E'));
  bench.advance(milliseconds(600));
  CHECK(bench.server.cancels().size() == 2);
  server.write(cancelled + ready('E'));
  bench.settle();
  CHECK(texts_of(server).back() == "ROLLBACK");
  for (int i = 0; i < 5; ++i) bench.advance(milliseconds(600));
  CHECK(bench.server.cancels().size() == 2);
  server.is_silent = false;
  server.write(complete("ROLLBACK") + ready());
  bench.settle();
  CHECK(is_idle(bench));
}

TEST_CASE("a server that does not end what a client left is closed after a while") {
  for (const char* where : {"x", "ROLLBACK"}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    TestClient other(bench, 0, "me");
    client.query("BEGIN");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    if (where == std::string("x")) client.query("x");
    other.query("mine");
    client.close();
    CHECK(texts_of(server).back() == where);
    bench.advance(seconds(4));
    CHECK(server.is_open());
    bench.advance(seconds(2));
    CHECK_FALSE(server.is_open());
    CHECK(other.take_tags() == "TDCZ");
  }
}

TEST_CASE("a ROLLBACK that fails, or that leaves a transaction, closes the backend") {
  for (const std::string& answer :
       {error_reply("ERROR", "XX000", "no") + ready('E'), complete("ROLLBACK") + ready('T'),
        error_reply("FATAL", "57P01", "terminating"), frame('G', std::string(3, '\0'))}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    TestClient other(bench, 0, "me");
    client.query("BEGIN");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    client.close();
    server.write(answer);
    bench.settle();
    CHECK_FALSE(server.is_open());
    other.query("mine");
    CHECK(other.take_tags() == "TDCZ");
  }
}

TEST_CASE("half a message to the server costs the backend") {
  for (const Goodbye goodbye : {Goodbye::close, Goodbye::reset}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    TestClient other(bench, 0, "me");
    ServerSession& server = bench.server.only();
    client.write(query_message("never").substr(0, 8));
    other.query("mine");
    go(client, goodbye);
    // The server reads our end of file, and lets go.
    CHECK(other.take_tags() == "TDCZ");
    CHECK_FALSE(server.is_open());
    CHECK(bench.server.only().queries() == Texts{"mine"});
  }
}

TEST_CASE(
    "a COPY that reads from a client that goes costs the backend, also one that begins then") {
  for (const bool has_begun : {true, false}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    TestClient other(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = !has_begun;
    client.query("COPYIN");
    other.query("mine");
    client.close();
    if (!has_begun) {
      CHECK(server.is_open());
      server.write(frame('G', std::string(3, '\0')));
      bench.settle();
    }
    CHECK_FALSE(server.is_open());
    CHECK(other.take_tags() == "TDCZ");
  }
}

// A Sync alone would commit what the batch has done so far, which nobody asked for.
TEST_CASE("a batch without Sync is rolled back, then ended by a Sync") {
  const std::string batch = parse_message("", "x") + bind_message("", "") + execute_message();
  for (const Goodbye goodbye : goodbyes) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    client.write(batch);
    CHECK(client.take_tags() == "12DC");
    go(client, goodbye);
    CHECK(is_idle(bench));
    CHECK(bench.server.only().tags() == "PBEQS");
    CHECK(texts_of(bench.server.only()) == Texts{"ROLLBACK"});
  }
  // It works on it: the cancel request fails the batch, and then it ignores the ROLLBACK.
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(batch);
  client.close();
  CHECK(bench.server.cancels().size() == 1);
  CHECK(server.tags() == "PBEQS");
  server.write(frame('1', {}) + frame('2', {}) + cancelled);
  bench.settle();
  CHECK_FALSE(is_idle(bench));
  server.is_silent = false;
  server.write(ready());
  bench.settle();
  CHECK(is_idle(bench));
  CHECK(texts_of(server).back() == "DISCARD ALL");
}

TEST_CASE("a batch that has failed is ended by a Sync, and its transaction by a ROLLBACK") {
  for (const bool in_transaction : {false, true}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    if (in_transaction) client.query("BEGIN");
    client.write(parse_message("", "BADPARSE"));
    client.close();
    CHECK(is_idle(bench));
    CHECK(bench.server.only().tags() == (in_transaction ? "QPSQ" : "PS"));
    CHECK(bench.server.only().status() == 'I');
  }
}

// The server has ignored the query behind the failed message.
TEST_CASE("a failed batch that a query follows is ended by a Sync of ours") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(parse_message("", "BADPARSE") + query_message("x"));
  client.close();
  CHECK(server.tags() == "PQ");
  server.write(error_reply("ERROR", "42601", "no"));
  bench.settle();
  CHECK(server.tags() == "PQS");
  server.is_silent = false;
  server.write(ready());
  bench.settle();
  CHECK(is_idle(bench));
}

TEST_CASE("a drain closes what a client leaves instead of rolling it back") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.query("BEGIN");
  bench.start_drain();
  client.close();
  CHECK(texts_of(*bench.server.sessions()[0]) == Texts{"BEGIN"});
  CHECK(bench.is_empty());
}

TEST_CASE("a Terminate right behind a query: the query is finished and the backend kept") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(query_message("x") + frame('X', {}));
  CHECK(client.is_closed());
  client.close();
  CHECK(bench.sessions().count() == 1);
  server.write(echo("x") + ready());
  bench.settle();
  CHECK(bench.sessions().is_empty());
  CHECK(is_idle(bench));
  CHECK(bench.server.cancels().empty());
  TestClient other(bench, 0, "me");
  server.is_silent = false;
  other.query("mine");
  CHECK(other.take_tags() == "TDCZ");
}

TEST_CASE("a Terminate behind work that never ends by itself ends it") {
  for (const std::string& request :
       {query_message("BEGIN"), query_message("COPYIN"), parse_message("", "x"),
        parse_message("", "BADPARSE"), parse_message("", "x") + flush_message()}) {
    for (const bool in_one_piece : {false, true}) {
      SessionBench bench(with_backends(1));
      TestClient client(bench, 0, "me");
      if (in_one_piece) {
        client.write(request + frame('X', {}));
      } else {
        client.write(request);
        client.write(frame('X', {}));
      }
      CHECK(client.is_closed());
      CHECK(bench.sessions().is_empty());
      const bool is_copy = request == query_message("COPYIN");
      CHECK(bench.slice().idle_count() == (is_copy ? 0 : 1));
      CHECK(bench.node.limit.taken() == (is_copy ? 0 : 1));
    }
  }
}

TEST_CASE("a server that goes while its client has left already ends both") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(query_message("x") + frame('X', {}));
  client.close();
  server.end();
  bench.settle();
  CHECK(bench.is_empty());
}

TEST_CASE("a stop does not wait for a server that works for a client that has left") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  bench.server.only().is_silent = true;
  client.write(query_message("x") + frame('X', {}));
  client.close();
  CHECK_FALSE(bench.is_empty());
  bench.finish();
  CHECK(bench.is_empty());
}

TEST_CASE("parameters that a server refuses after the client has left end its session") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me", {{"application_name", "one"}});
  TestClient other(bench, 0, "me", {{"application_name", "two"}});
  other.query("x");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(query_message("x") + frame('X', {}));
  client.close();
  server.write(error_reply("ERROR", "22023", "no") + ready());
  bench.settle();
  CHECK(bench.sessions().count() == 1);
}

TEST_CASE("parameters that a server refuses later are the client's FATAL") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me", {{"application_name", "one"}});
  TestClient other(bench, 0, "me", {{"application_name", "two"}});
  other.query("x");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("x");
  server.write(error_reply("ERROR", "22023", "no") + ready());
  bench.settle();
  CHECK(client.take_error() == "22023");
  CHECK(client.is_closed());
  other.query("mine");
  CHECK(other.take_tags() == "TDCZTDCZ");
}

// --- Cancel requests

TEST_CASE("a cancel request with the right key reaches the client's server process") {
  SessionBench bench;
  TestClient client(bench);
  const WireMessage key = log_in(client);
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("x");
  TestClient asker(bench);
  asker.write(cancel_request(key.body));
  CHECK(asker.take_bytes().empty());
  CHECK(asker.is_closed());
  REQUIRE(bench.server.cancels().size() == 1);
  CHECK(bench.server.cancels()[0]->cancelled_process_id == server.process_id());
  CHECK(bench.server.cancels()[0]->cancelled_key == server.cancel_key());
  server.write(error_reply("ERROR", "57014", "canceling statement") + ready());
  bench.settle();
  CHECK(client.take_tags() == "EZ");
}

TEST_CASE("a cancel request with a wrong key, or while nothing runs, reaches nobody") {
  SessionBench bench;
  TestClient client(bench);
  const WireMessage key = log_in(client);
  {
    TestClient asker(bench);
    asker.write(cancel_request(key.body));  // Nothing runs.
    CHECK(asker.is_closed());
  }
  bench.server.only().is_silent = true;
  client.query("x");
  std::vector<WireMessage> wrong(4, key);
  wrong[0].body[4] = static_cast<char>(wrong[0].body[4] ^ 1);
  wrong[1].body[3] = static_cast<char>(wrong[1].body[3] + 1);  // Another process.
  wrong[2].body[0] = '\x7f';                                   // A core that is not there.
  wrong[3].body += "longer";
  for (const WireMessage& one : wrong) {
    TestClient asker(bench);
    asker.write(cancel_request(one.body));
    CHECK(asker.take_bytes().empty());
    CHECK(asker.is_closed());
  }
  CHECK(bench.server.cancels().empty());
}

TEST_CASE("the key of a client that has gone cancels nobody") {
  SessionBench bench(with_backends(1));
  WireMessage key;
  {
    TestClient client(bench);
    key = log_in(client);
    client.close();
  }
  TestClient next(bench, 0, "me");  // In the same slot.
  bench.server.only().is_silent = true;
  next.query("x");
  TestClient asker(bench);
  asker.write(cancel_request(key.body));
  CHECK(asker.is_closed());
  CHECK(bench.server.cancels().empty());
}

TEST_CASE("a backend is not handed on while a cancel request for it is under way") {
  SessionBench bench(with_backends(1));
  TestClient client(bench);
  const WireMessage key = log_in(client);
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  bench.server.holds_cancels = true;
  client.query("x");
  TestClient asker(bench);
  asker.write(cancel_request(key.body));
  other.query("mine");
  server.write(echo("x") + ready());
  server.is_silent = false;
  bench.settle();
  CHECK(client.take_tags() == "TDCZ");
  CHECK(server.queries() == std::vector<std::string>{"x"});
  CHECK(other.take_tags().empty());
  CHECK_FALSE(asker.is_closed());
  bench.server.cancels()[0]->end();
  bench.settle();
  CHECK(asker.is_closed());
  CHECK(other.take_tags() == "TDCZ");
  CHECK(bench.server.sessions().size() == 2);
}

TEST_CASE("a server that dies while a cancel request for it is under way is forgotten in the end") {
  SessionBench bench(with_backends(1));
  TestClient client(bench);
  const WireMessage key = log_in(client);
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  bench.server.holds_cancels = true;
  client.query("x");
  TestClient asker(bench);
  asker.write(cancel_request(key.body));
  server.reset();
  bench.settle();
  CHECK(client.take_tags() == "EZ");
  client.close();
  bench.advance(seconds(11));  // The cancel request is given up.
  CHECK(asker.is_closed());
  CHECK(bench.is_empty());
}

// --- The end of the process

TEST_CASE("a drain tells idle clients, and lets transactions end") {
  BenchOptions options;
  options.limits.max_prepared_statements = 0;
  SessionBench bench(options);
  TestClient idle(bench, 0, "me");
  TestClient busy(bench, 0, "me");
  TestClient pinned(bench, 0, "me");
  TestClient unknown(bench);
  busy.query("BEGIN");
  pinned.write(parse_message("s", "x") + sync_message());
  CHECK(busy.take_tags() == "CZ");
  CHECK(pinned.take_tags() == "1Z");
  bench.start_drain();
  CHECK(idle.take_error() == "57P01");
  CHECK(pinned.take_error() == "57P01");
  CHECK(unknown.take_error() == "57P01");
  CHECK_FALSE(busy.is_closed());
  busy.query("still here");
  CHECK(busy.take_tags() == "TDCZ");
  busy.query("COMMIT");
  const auto last = busy.take();
  CHECK(tags_of(last) == "CZE");
  CHECK(field_of(last.back(), 'C') == "57P01");
  CHECK(busy.is_closed());
  CHECK(bench.is_empty());
  CHECK(bench.server.open_sessions().empty());
}

TEST_CASE("a drain while a backend is being made ends") {
  SessionBench bench;
  bench.server.holds_logins = true;
  TestClient client(bench);
  client.write(startup_packet("me", "db"));
  bench.start_drain();
  CHECK(client.take_error() == "57P01");
  CHECK_FALSE(bench.is_empty());
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(bench.is_empty());
}

TEST_CASE("a drain ends for waiters, for those who leave and for cancel requests") {
  SessionBench bench(with_backends(1));
  TestClient client(bench);
  const WireMessage key = log_in(client);
  TestClient waiter(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("x");
  waiter.query("y");
  bench.server.holds_cancels = true;
  TestClient asker(bench);
  asker.write(cancel_request(key.body));
  bench.start_drain();
  CHECK(waiter.take_error() == "57P01");
  client.write(frame('X', {}));
  server.write(echo("x") + ready());
  bench.settle();
  bench.server.cancels()[0]->end();
  bench.settle();
  server.is_silent = false;
  bench.settle();
  bench.advance(seconds(61));
  CHECK(bench.is_empty());
}

TEST_CASE("a backend that was idle for long is tested before it is used") {
  BenchOptions options = with_backends(1);
  options.limits.idle_timeout = 0;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.query("a");
  bench.advance(seconds(31));
  client.query("b");
  CHECK(client.take_tags() == "TDCZTDCZ");
  CHECK(bench.server.only().tags() == "QQQ");
  // One that is dead without a word is replaced.
  bench.advance(seconds(31));
  bench.server.only().is_deaf = true;
  client.query("c");
  CHECK(client.take_tags().empty());
  bench.advance(seconds(6));
  CHECK(client.take_tags() == "TDCZ");
}

TEST_CASE("with test_after 0 a backend is tested before each use, with never before none") {
  for (const Nanoseconds test_after : {Nanoseconds{0}, never}) {
    BenchOptions options = with_backends(1);
    options.limits.idle_timeout = 0;
    options.limits.test_after = test_after;
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    const size_t before = bench.server.only().log.size();
    client.query("a");
    bench.advance(seconds(100));
    client.query("b");
    CHECK(client.take_tags() == "TDCZTDCZ");
    const size_t tests_count = test_after == 0 ? 2 : 0;
    CHECK(bench.server.only().log.size() - before == 2 + tests_count);
    CHECK(bench.server.only().queries() == std::vector<std::string>{"a", "b"});
  }
}

TEST_CASE("a backend past its lifetime is not handed out, here or on another core") {
  for (const CoreId asker : {CoreId{0}, CoreId{1}}) {
    BenchOptions options = with_backends(1);
    options.cores_count = 2;
    options.limits.max_lifetime = seconds(10);
    options.limits.test_after = never;
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    TestClient other(bench, asker, "me");
    client.query("a");
    bench.clock.advance(seconds(8));
    client.query("b");
    CHECK(bench.server.sessions().size() == 1);
    bench.clock.advance(seconds(3));  // No timer has run.
    other.query("mine");
    CHECK(other.take_tags() == "TDCZ");
    CHECK(bench.server.sessions().size() == 2);
    CHECK(bench.server.only().queries() == Texts{"mine"});
  }
}

TEST_CASE("who waits for a server in the login is told which of the two took too long") {
  for (const bool is_login : {false, true}) {
    BenchOptions options = with_backends(1);
    options.login_timeout = seconds(is_login ? 5 : 60);
    options.limits.acquire_timeout = seconds(is_login ? 60 : 5);
    options.limits.connect_timeout = seconds(100);
    SessionBench bench(options);
    bench.server.holds_logins = true;
    TestClient client(bench);
    client.write(startup_packet("me", "db"));
    bench.advance_in_steps(seconds(4), seconds(1));
    CHECK_FALSE(client.is_closed());
    bench.advance_in_steps(seconds(2), seconds(1));
    const auto got = client.take();
    REQUIRE(tags_of(got) == "RE");
    CHECK(field_of(got[1], 'C') == (is_login ? "57014" : "53300"));
    CHECK(field_of(got[1], 'M')
              .starts_with(is_login ? "client_login_timeout" : "query_wait_timeout"));
    CHECK(client.is_closed());
  }
}

}  // namespace
}  // namespace helios
