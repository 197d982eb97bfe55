// What a client is told when its backend is lost, and how it goes on.
#include <doctest/doctest.h>

#include "helios/session/block_end.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

const std::string farewell =
    error_reply("FATAL", "57P01", "terminating connection due to administrator command");

// How a server goes.
enum class End : uint8_t { silent, reset, with_fatal, in_pieces };
constexpr End ends[] = {End::silent, End::reset, End::with_fatal, End::in_pieces};

void lose(SessionBench& bench, ServerSession& server, End end) {
  if (end == End::reset) {
    server.reset();
  } else if (end == End::silent) {
    server.end();
  } else {
    for (size_t i = 0; end == End::in_pieces && i + 1 < farewell.size(); ++i) {
      server.write(farewell.substr(i, 1));
      bench.settle();
    }
    server.write(end == End::in_pieces ? farewell.substr(farewell.size() - 1) : farewell);
    bench.settle();
    server.end();
  }
  bench.settle();
}

void lose(SessionBench& bench, End end) {
  lose(bench, bench.server.only(), end);
}

std::string code_of(End end) {
  return end == End::silent || end == End::reset ? "08006" : "57P01";
}

// The messages as text: errors by their SQLSTATE, ReadyForQuery with its status, CommandComplete
// with its tag.
std::string told(TestClient& client) {
  std::string text;
  for (const WireMessage& message : client.take()) {
    if (!text.empty()) text += ' ';
    if (message.tag == 'E') {
      CHECK(field_of(message, 'S') == field_of(message, 'V'));
      text += field_of(message, 'V') + " " + field_of(message, 'C');
    } else if (message.tag == 'C') {
      text += message.body.substr(0, message.body.size() - 1);
    } else if (message.tag == 'S') {
      text += message.body.substr(0, message.body.find('\0')) + "=" +
              message.body.substr(message.body.find('\0') + 1);
      text.pop_back();
    } else {
      text += message.tag;
      if (message.tag == 'Z') text += message.body;
    }
  }
  return text;
}

void begin_block(TestClient& client) {
  client.query("BEGIN");
  CHECK(told(client) == "BEGIN ZT");
}

std::string error(std::string_view code) {
  return "ERROR " + std::string(code);
}

std::string execute(std::string_view text) {
  return parse_message("", text) + bind_message("", "") + execute_message();
}

std::string batch(std::string_view text) {
  return execute(text) + sync_message();
}

// The texts of queries and Parses that any server has seen since the beginning.
size_t seen_count(SessionBench& bench, std::string_view text) {
  size_t count = 0;
  for (const auto& session : bench.server.sessions())
    for (const WireMessage& message : session->log)
      if (message.body.find(text) != std::string::npos) ++count;
  return count;
}

void check_served(SessionBench& bench, TestClient& client) {
  client.query("next");
  CHECK(told(client) == "T D SELECT 1 ZI");
  CHECK(bench.slice().idle_count() == 1);
}

// A block whose backend is gone, of a client that does not know it yet.
struct LostBlock {
  explicit LostBlock(End end = End::silent, BenchOptions options = with_backends(1))
      : bench(options), client(bench, 0, "me") {
    begin_block(client);
    lose(bench, end);
    CHECK(told(client).empty());
    CHECK_FALSE(client.is_closed());
  }
  // It knows now.
  void tell() {
    client.query("first");
    CHECK(told(client) == error("08006") + " ZE");
  }
  SessionBench bench;
  TestClient client;
};

// --- Outside of a transaction ---

TEST_CASE("a backend that is lost while its client is idle is replaced unseen") {
  for (const End end : ends) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    client.query("x");
    CHECK(told(client) == "T D SELECT 1 ZI");
    lose(bench, end);
    CHECK(told(client).empty());
    check_served(bench, client);
  }
}

TEST_CASE("a query in flight gets an error, and the client goes on with another backend") {
  for (const End end : ends) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    bench.server.only().is_silent = true;
    client.query("mine");
    lose(bench, end);
    CHECK(told(client) == error(code_of(end)) + " ZI");
    check_served(bench, client);
    CHECK(seen_count(bench, "mine") == 1);
  }
}

TEST_CASE("the words are the server's own, or say what happened") {
  for (const End end : {End::silent, End::with_fatal}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    bench.server.only().is_silent = true;
    client.query("x");
    lose(bench, end);
    const auto got = client.take();
    REQUIRE(tags_of(got) == "EZ");
    CHECK(field_of(got[0], 'M') == (end == End::silent
                                        ? "server closed the connection unexpectedly"
                                        : "terminating connection due to administrator command"));
  }
}

TEST_CASE("a server that says FATAL is gone, whether its connection ends or not") {
  SessionBench bench(with_backends(2));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  bench.server.holds_ends = true;
  client.query("x");
  server.write(farewell);
  bench.settle();
  CHECK(told(client) == error("57P01") + " ZI");
  // Its permit is free when the server has let go.
  CHECK(bench.node.limit.taken() == 1);
  CHECK(bench.server.cancels().empty());
  server.end();
  bench.settle();
  CHECK(bench.node.limit.taken() == 0);
  check_served(bench, client);
}

TEST_CASE("each query and each batch of a pipeline gets an error of its own") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(query_message("a") + batch("b") + query_message("c") + sync_message() +
               frame('F', std::string(10, '\0')));
  server.write(echo("a") + ready() + frame('1', {}) + frame('2', {}));
  bench.settle();
  lose(bench, End::silent);
  const std::string lost = error("08006") + " ZI";
  CHECK(told(client) == "T D SELECT 1 ZI 1 2 " + lost + " " + lost + " " + lost + " " + lost);
  check_served(bench, client);
}

TEST_CASE("an error that was told is not told again") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(query_message("a") + query_message("b"));
  server.write(error_reply("ERROR", "22012", "no"));
  bench.settle();
  lose(bench, End::silent);
  CHECK(told(client) == "ERROR 22012 ZI " + error("08006") + " ZI");

  ServerSession& next = [&]() -> ServerSession& {
    client.query("x");
    CHECK(told(client) == "T D SELECT 1 ZI");
    return bench.server.only();
  }();
  next.is_silent = true;
  client.write(batch("a") + batch("b"));
  next.write(frame('1', {}) + error_reply("ERROR", "22012", "no"));
  bench.settle();
  lose(bench, End::with_fatal);
  CHECK(told(client) == "1 ERROR 22012 ZI " + error("57P01") + " ZI");
  check_served(bench, client);
}

TEST_CASE("a batch without its Sync is skipped up to there") {
  for (const bool is_answered : {false, true}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    bench.server.only().is_silent = !is_answered;
    client.write(execute("a") + flush_message());
    CHECK(told(client) == (is_answered ? "1 2 D SELECT 1" : ""));
    lose(bench, End::silent);
    // What was done of it is undone: it must not go on as if it had just begun. Who has got every
    // answer is told with the next one.
    CHECK(told(client) == (is_answered ? "" : error("08006")));
    client.write(execute("b") + frame('d', "x"));
    CHECK(told(client) == (is_answered ? error("08006") : ""));
    client.write(query_message("c") + close_message("s") + sync_message());
    CHECK(told(client) == "ZI");
    CHECK(seen_count(bench, "b") == 0);
    check_served(bench, client);
  }
}

TEST_CASE("a batch that waits for its Sync only is told with that, or with a query") {
  for (const bool is_query : {false, true}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    client.write(execute("a") + flush_message());
    CHECK(told(client) == "1 2 D SELECT 1");
    lose(bench, End::silent);
    client.write(is_query ? query_message("b") : sync_message());
    CHECK(told(client) == error("08006") + " ZI");
    CHECK(seen_count(bench, "b") == 0);
    check_served(bench, client);
  }
}

TEST_CASE("a batch that has failed already ends with its Sync") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.write(parse_message("", "BADPARSE") + flush_message());
  CHECK(told(client) == "ERROR 22012");
  lose(bench, End::with_fatal);
  CHECK(told(client).empty());
  client.write(execute("b"));
  CHECK(told(client).empty());
  client.write(sync_message());
  CHECK(told(client) == "ZI");
  check_served(bench, client);
}

TEST_CASE("the rest of a message that was half sent is swallowed") {
  for (const std::string& message :
       {query_message("half a query"), parse_message("", "half a parse"),
        bind_message("portal", "statement"), frame('F', std::string(30, '\0'))}) {
    for (size_t size = 5; size < message.size(); ++size) {
      BenchOptions options = with_backends(1);
      options.limits.max_prepared_statements = 0;  // What names a statement is not looked at.
      SessionBench bench(options);
      TestClient client(bench, 0, "me");
      client.write(message.substr(0, size));
      lose(bench, End::silent);
      const bool is_simple = message[0] == 'Q' || message[0] == 'F';
      std::string got = told(client);
      client.write(message.substr(size) + (is_simple ? "" : sync_message()));
      got += " " + told(client);
      REQUIRE(got == error("08006") + " ZI");
      check_served(bench, client);
    }
  }
}

TEST_CASE("a SET of the pooler's own that a FATAL hits is none of the client's business") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.query("SET application_name='mine'");
  CHECK(told(client) == "application_name=mine SET ZI");
  TestClient other(bench, 0, "me");
  bench.server.only().is_silent = true;
  other.query("x");
  CHECK(bench.server.only().tags() == "QQQ");
  lose(bench, End::with_fatal);
  CHECK(told(other) == error("57P01") + " ZI");
  client.query("WHO");
  check_served(bench, other);
}

TEST_CASE("an error that is not FATAL is relayed as it is, in pieces of any size") {
  for (const size_t size : {10, 1000, 16'000, 17'000, 60'000}) {
    const std::string reply =
        error_reply("ERROR", "22012", "no " + std::string(size, 'x')) + ready();
    for (const size_t piece : {1, 4, 5, 6, 700, 5000, 100'000}) {
      if (reply.size() / piece > 2000) continue;
      SessionBench bench(with_backends(1));
      TestClient client(bench, 0, "me");
      ServerSession& server = bench.server.only();
      server.is_silent = true;
      client.query("x");
      for (size_t at = 0; at < reply.size(); at += piece) {
        server.write(reply.substr(at, piece));
        bench.settle();
      }
      std::string got;
      // More than its socket takes at once.
      for (std::string part = client.take_bytes(); !part.empty(); part = client.take_bytes()) {
        got += part;
        bench.settle();
      }
      CAPTURE(size);
      CAPTURE(piece);
      REQUIRE(got == reply);
      REQUIRE(bench.slice().idle_count() == 1);
    }
  }
}

TEST_CASE("a FATAL that is longer than what is held back is not relayed either") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("x");
  const std::string reply = error_reply("FATAL", "57P01", std::string(40'000, 'x'));
  for (size_t at = 0; at < reply.size(); at += 1000) {
    if (server.is_open()) server.write(reply.substr(at, 1000));
    bench.settle();
  }
  CHECK(told(client) == error("57P01") + " ZI");
}

TEST_CASE("a server that ends within its FATAL is lost as any other") {
  for (const size_t size : {1, 5, 20}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    client.query("x");
    server.write(farewell.substr(0, size));
    bench.settle();
    lose(bench, End::silent);
    CHECK(told(client) == error("08006") + " ZI");
    check_served(bench, client);
  }
}

TEST_CASE("a client that leaves while an error is held back costs nothing") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("x");
  const std::string reply = error_reply("ERROR", "22012", "no") + ready();
  server.write(reply.substr(0, 12));
  bench.settle();
  client.close();
  bench.settle();
  server.is_silent = false;
  server.write(reply.substr(12));
  bench.settle();
  other.query("mine");
  CHECK(told(other) == "T D SELECT 1 ZI");
  CHECK(bench.server.sessions().size() == 2);  // And one of a cancel request.
}

// --- In a transaction ---

TEST_CASE("a query in flight in a block fails it, until ROLLBACK") {
  for (const End end : ends) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    begin_block(client);
    bench.server.only().is_silent = true;
    client.query("x");
    lose(bench, end);
    CHECK(told(client) == error(code_of(end)) + " ZE");
    for (int i = 0; i < 3; ++i) {
      client.query("more");
      CHECK(told(client) == error("25P02") + " ZE");
    }
    client.write(batch("more"));
    CHECK(told(client) == error("25P02") + " ZE");
    CHECK(bench.server.open_sessions().empty());
    client.query("ROLLBACK");
    CHECK(told(client) == "ROLLBACK ZI");
    CHECK(bench.server.open_sessions().empty());
    check_served(bench, client);
    CHECK(seen_count(bench, "more") == 0);
  }
}

TEST_CASE("a client that is silent in its block is told with what it asks next, once") {
  for (const End end : ends) {
    LostBlock lost(end);
    lost.client.query("more");
    CHECK(told(lost.client) == error(code_of(end)) + " ZE");
    lost.client.query("more");
    CHECK(told(lost.client) == error("25P02") + " ZE");
    lost.client.query("ROLLBACK");
    CHECK(told(lost.client) == "ROLLBACK ZI");
    check_served(lost.bench, lost.client);
    CHECK(seen_count(lost.bench, "more") == 0);
  }
}

TEST_CASE("who asks for ROLLBACK gets what it asks for") {
  for (const char* text : {"ROLLBACK", "rollback work;", "ABORT",
                           " /* so */ Rollback Transaction ;", "ROLLBACK AND NO CHAIN"}) {
    for (const bool knows : {false, true}) {
      LostBlock lost;
      if (knows) lost.tell();
      lost.client.query(text);
      CHECK(told(lost.client) == "ROLLBACK ZI");
      check_served(lost.bench, lost.client);
    }
  }
}

TEST_CASE("a COMMIT is never taken for one that was done") {
  for (const char* text : {"COMMIT", "end", "COMMIT WORK", "PREPARE TRANSACTION 'x'"}) {
    LostBlock lost;
    lost.client.query(text);
    // It has ended the block, as one that fails on a server.
    CHECK(told(lost.client) == error("08006") + " ZI");
    check_served(lost.bench, lost.client);

    LostBlock known;
    known.tell();
    known.client.query(text);
    CHECK(told(known.client) == "ROLLBACK ZI");
    check_served(known.bench, known.client);
  }
}

TEST_CASE("the end of a block that is lost in flight ends it") {
  for (const char* text : {"COMMIT", "END", "rollback", "ABORT"}) {
    for (const bool is_piped : {false, true}) {
      SessionBench bench(with_backends(1));
      TestClient client(bench, 0, "me");
      begin_block(client);
      bench.server.only().is_silent = true;
      client.write((is_piped ? query_message("x") : "") + query_message(text));
      lose(bench, End::silent);
      CHECK(told(client) ==
            (is_piped ? error("08006") + " ZE " + error("25P02") : error("08006")) + " ZI");
      check_served(bench, client);
    }
  }
  // Others do not.
  for (const char* text : {"ROLLBACK TO a", "COMMIT AND CHAIN", "ANALYZE", "EXPLAIN x"}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    begin_block(client);
    bench.server.only().is_silent = true;
    client.query(text);
    lose(bench, End::silent);
    CHECK(told(client) == error("08006") + " ZE");
  }
}

TEST_CASE("what begins with the end of a block and is not that alone is refused") {
  for (const char* text :
       {"ROLLBACK TO a", "ROLLBACK TO SAVEPOINT a", "ROLLBACK AND CHAIN", "COMMIT AND CHAIN",
        "ROLLBACK; SELECT 1", "ROLLBACK PREPARED 'x'", "COMMIT PREPARED 'x'", "ROLLBACKS",
        "SAVEPOINT a", "SELECT 1; ROLLBACK", "BEGIN", "PREPARE a AS SELECT 1", "ROLLBACK /* "}) {
    for (const bool knows : {false, true}) {
      LostBlock lost;
      if (knows) lost.tell();
      lost.client.query(text);
      CHECK(told(lost.client) == error(knows ? "25P02" : "08006") + " ZE");
      lost.client.query("ROLLBACK");
      CHECK(told(lost.client) == "ROLLBACK ZI");
    }
  }
}

TEST_CASE("an empty query in a lost block is as empty as anywhere, once the client knows") {
  LostBlock lost;
  lost.client.query("");
  CHECK(told(lost.client) == error("08006") + " ZE");
  lost.client.query(" -- nothing");
  CHECK(told(lost.client) == "I ZE");
}

TEST_CASE("a block that had failed before needs to be told nothing but its end") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.query("BEGIN");
  client.query("FAIL");
  CHECK(told(client) == "BEGIN ZT ERROR 22012 ZE");
  lose(bench, End::silent);
  client.write(sync_message());
  CHECK(told(client) == "ZE");
  client.query("COMMIT");
  CHECK(told(client) == "ROLLBACK ZI");
  check_served(bench, client);
}

TEST_CASE("a pipeline in a block: the loss once, then refusals") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  begin_block(client);
  bench.server.only().is_silent = true;
  client.write(query_message("a") + batch("b") + query_message("SAVEPOINT"));
  lose(bench, End::silent);
  CHECK(told(client) == error("08006") + " ZE " + error("25P02") + " ZE " + error("25P02") + " ZE");
  client.write(query_message("BEGIN") + query_message("c") + query_message("COMMIT"));
  CHECK(told(client) == error("25P02") + " ZE " + error("25P02") + " ZE ROLLBACK ZI");
  check_served(bench, client);
  CHECK(seen_count(bench, "COMMIT") == 0);
}

TEST_CASE("a batch in a block is skipped up to its Sync") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  begin_block(client);
  client.write(execute("a") + flush_message());
  CHECK(told(client) == "1 2 D SELECT 1");
  lose(bench, End::with_fatal);
  client.write(execute("b"));
  CHECK(told(client) == error("57P01"));
  client.write(execute("ROLLBACK"));  // Skipped too.
  CHECK(told(client).empty());
  client.write(sync_message());
  CHECK(told(client) == "ZE");
  client.query("ROLLBACK");
  CHECK(told(client) == "ROLLBACK ZI");
  check_served(bench, client);
}

TEST_CASE("a Sync alone tells, as a flush does not") {
  LostBlock lost;
  lost.client.write(flush_message());
  CHECK(told(lost.client).empty());
  lost.client.write(sync_message());
  CHECK(told(lost.client) == error("08006") + " ZE");
  lost.client.write(sync_message());
  CHECK(told(lost.client) == "ZE");
}

TEST_CASE("the extended protocol ends a lost block as PostgreSQL ends a failed one") {
  const std::string describe_portal = frame('D', std::string("P\0", 2));
  for (const bool is_whole : {true, false}) {
    LostBlock lost;
    const std::string bytes = parse_message("", "ROLLBACK") + describe_message("") +
                              bind_message("", "") + describe_portal + execute_message() +
                              sync_message();
    if (is_whole) {
      lost.client.write(bytes);
    } else {
      for (const char byte : bytes) lost.client.write(std::string(1, byte));
    }
    CHECK(told(lost.client) == "1 t n 2 n ROLLBACK ZI");
    check_served(lost.bench, lost.client);
  }
}

TEST_CASE("behind the end of a lost block the rest of its batch is executed") {
  LostBlock lost;
  lost.client.write(execute("ROLLBACK") + execute("a") + sync_message());
  CHECK(told(lost.client) == "1 2 ROLLBACK 1 2 D SELECT 1 ZI");
  check_served(lost.bench, lost.client);
}

TEST_CASE("extended messages that do not end a lost block are refused one by one") {
  for (const std::string& message :
       {parse_message("", "x"), parse_message("", "COMMIT"), parse_message("s", "x"),
        bind_message("", ""), bind_message("", "s"), execute_message(), execute_message("p"),
        describe_message("s"), describe_message(""), frame('D', std::string("P\0", 2)),
        parse_message("", std::string(10'000, ' ') + "ROLLBACK"), frame('P', "x")}) {
    LostBlock lost;
    lost.client.write(message);
    CHECK(told(lost.client) == error("08006"));
    lost.client.write(batch("ROLLBACK"));
    CHECK(told(lost.client) == "ZE");
    lost.client.write(batch("ROLLBACK"));
    CHECK(told(lost.client) == "1 2 ROLLBACK ZI");
    CHECK(lost.bench.server.open_sessions().empty());
  }
}

TEST_CASE("a function call in a lost block is refused") {
  LostBlock lost;
  const std::string call = frame('F', std::string(10, '\0'));
  lost.client.write(call.substr(0, 8));
  CHECK(told(lost.client).empty());
  lost.client.write(call.substr(8));
  CHECK(told(lost.client) == error("08006") + " ZE");
  lost.client.write(call);
  CHECK(told(lost.client) == error("25P02") + " ZE");
}

TEST_CASE("portals and the unnamed statement of a lost block can be closed") {
  LostBlock lost;
  lost.client.write(parse_message("", "ROLLBACK") + bind_message("p", "") +
                    frame('C', std::string("Pp\0", 3)) + execute_message("p") + sync_message());
  CHECK(told(lost.client) == "1 2 3 " + error("08006") + " ZE");
  lost.client.write(close_message("") + bind_message("p", "") + sync_message());
  CHECK(told(lost.client) == "3 " + error("25P02") + " ZE");
}

TEST_CASE("a half received message in a lost block is answered when it is whole") {
  for (const char* text : {"more", "ROLLBACK"}) {
    const std::string message = query_message(text);
    for (size_t size = 1; size < message.size(); ++size) {
      SessionBench bench(with_backends(1));
      TestClient client(bench, 0, "me");
      client.query("BEGIN");
      client.write(message.substr(0, size));
      CHECK(told(client) == "BEGIN ZT");
      lose(bench, End::silent);
      std::string got = told(client);
      client.write(message.substr(size));
      got += told(client);
      // What has begun to go to the server was not understood.
      const bool is_begun = size >= 5;
      const bool is_end = text == std::string("ROLLBACK") && !is_begun;
      if (is_end) {
        REQUIRE(got == "ROLLBACK ZI");
      } else {
        REQUIRE(got == error("08006") + (is_begun ? "ZE" : " ZE"));
      }
    }
  }
}

// --- COPY ---

TEST_CASE("a COPY that reads from the client ends with an error, and the data are swallowed") {
  for (const bool is_block : {false, true}) {
    for (const bool is_extended : {false, true}) {
      SessionBench bench(with_backends(1));
      TestClient client(bench, 0, "me");
      if (is_block) client.query("BEGIN");
      client.write(is_extended ? execute("COPYIN") + flush_message() : query_message("COPYIN"));
      client.write(frame('d', "one") + frame('d', "two").substr(0, 6));
      static_cast<void>(client.take());
      lose(bench, End::with_fatal);
      const std::string status = is_block ? "ZE" : "ZI";
      CHECK(told(client) == error("57P01") + (is_extended ? "" : " " + status));
      client.write(frame('d', "two").substr(6) + frame('d', "three") + frame('c', {}));
      CHECK(told(client).empty());
      if (is_extended) {
        client.write(sync_message());
        CHECK(told(client) == status);
      }
      if (is_block) client.query("ROLLBACK");
      CHECK(told(client) == (is_block ? "ROLLBACK ZI" : ""));
      check_served(bench, client);
      CHECK(seen_count(bench, "three") == 0);
    }
  }
}

TEST_CASE("a Sync within a COPY is ignored, and one behind its end is answered") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.write(execute("COPYIN") + sync_message() + frame('d', "one"));
  CHECK(told(client) == "1 2 G");
  lose(bench, End::silent);
  CHECK(told(client) == error("08006"));
  client.write(frame('d', "two") + frame('c', {}) + sync_message());
  CHECK(told(client) == "ZI");
  check_served(bench, client);
}

TEST_CASE("a COPY whose end was sent, with more behind it") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  client.write(query_message("COPYIN"));
  CHECK(told(client) == "G");
  server.is_silent = true;
  client.write(frame('d', "one") + frame('c', {}) + query_message("a") + batch("b"));
  lose(bench, End::silent);
  const std::string lost = error("08006") + " ZI";
  CHECK(told(client) == lost + " " + lost + " " + lost);
  check_served(bench, client);
}

TEST_CASE("a COPY that the client reads ends with an error between two of its messages") {
  for (const size_t cut : {0, 3}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    client.query("COPYOUT");
    server.write(frame('H', std::string(3, '\0')) + frame('d', "row") +
                 frame('d', "row").substr(0, cut == 0 ? 0 : 5 + cut - 1));
    bench.settle();
    lose(bench, End::silent);
    if (cut == 0) {
      CHECK(told(client) == "H d " + error("08006") + " ZI");
      check_served(bench, client);
    } else {
      static_cast<void>(client.take_bytes());
      CHECK(client.is_closed());
    }
  }
}

// --- What a client has ---

TEST_CASE("parameters that a lost transaction has set are what they were before it") {
  for (const bool is_in_flight : {false, true}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    client.query("SET application_name='old'");
    client.query("BEGIN");
    client.query("SET application_name='new'");
    client.query("SET application_name='newer'");
    CHECK(told(client) ==
          "application_name=old SET ZI BEGIN ZT application_name=new SET ZT "
          "application_name=newer SET ZT");
    if (is_in_flight) {
      bench.server.only().is_silent = true;
      client.query("x");
    }
    lose(bench, End::silent);
    CHECK(told(client) ==
          "application_name=old" + (is_in_flight ? " " + error("08006") + " ZE" : ""));
    client.query("ROLLBACK");
    client.query("SHOW");
    CHECK(told(client) == "ROLLBACK ZI T D SELECT 1 ZI");
    CHECK(bench.server.only().parameters().at("application_name") == "old");
  }
}

TEST_CASE("parameters of a transaction that has ended stay") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  for (const char* text : {"BEGIN", "SET application_name='kept'", "COMMIT", "BEGIN"})
    client.query(text);
  static_cast<void>(client.take());
  lose(bench, End::silent);
  client.query("x");
  CHECK(told(client) == error("08006") + " ZE");
  client.query("ROLLBACK");
  client.query("x");
  CHECK(told(client) == "ROLLBACK ZI T D SELECT 1 ZI");
  CHECK(bench.server.only().parameters().at("application_name") == "kept");
}

TEST_CASE("a SET in flight is not done") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("SET application_name='new'");
  server.write(frame('S', std::string("application_name\0new\0", 21)));
  bench.settle();
  lose(bench, End::silent);
  CHECK(told(client) == "application_name=new application_name= " + error("08006") + " ZI");
  client.query("x");
  CHECK(bench.server.only().parameters().at("application_name").empty());
}

TEST_CASE("statements that follow their client survive, those on their way do not") {
  BenchOptions options = with_backends(1);
  options.limits.max_prepared_statements = 10;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.query("BEGIN");
  client.write(parse_message("kept", "keep") + sync_message());
  CHECK(told(client) == "BEGIN ZT 1 ZT");
  bench.server.only().is_silent = true;
  client.write(parse_message("gone", "go") + parse_message("gone2", "keep") +
               close_message("kept") + sync_message());
  lose(bench, End::silent);
  CHECK(told(client) == error("08006") + " ZE");
  client.query("ROLLBACK");
  const auto use = [](std::string_view name) {
    return bind_message("", name) + execute_message() + sync_message();
  };
  client.write(use("kept") + use("gone") + use("gone2"));
  CHECK(told(client) == "ROLLBACK ZI 2 D SELECT 1 ZI ERROR 26000 ZI ERROR 26000 ZI");
  client.write(parse_message("gone", "go on") + use("gone"));
  CHECK(told(client) == "1 2 D SELECT 1 ZI");
}

TEST_CASE("a lost block may be ended by a statement of the client's") {
  BenchOptions options = with_backends(1);
  options.limits.max_prepared_statements = 10;
  const auto use = [](std::string_view name) {
    return bind_message("", name) + execute_message() + sync_message();
  };
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.write(parse_message("r", "ROLLBACK") + parse_message("c", "COMMIT") + sync_message());
  client.query("BEGIN");
  CHECK(told(client) == "1 1 ZI BEGIN ZT");
  lose(bench, End::silent);
  client.write(use("c"));
  CHECK(told(client) == error("08006") + " ZE");
  client.write(describe_message("c") + use("c"));
  CHECK(told(client) == "t n 2 ROLLBACK ZI");

  begin_block(client);
  lose(bench, End::silent);
  // One that is made there is there afterwards, and one that is closed is not.
  client.write(parse_message("r2", "ROLLBACK") + parse_message("r", "ROLLBACK") + sync_message());
  CHECK(told(client) == "1 " + error("08006") + " ZE");  // The name is taken.
  client.write(close_message("r") + use("r2"));
  CHECK(told(client) == "3 2 ROLLBACK ZI");
  client.write(use("r2") + use("r"));
  CHECK(told(client) == "2 ROLLBACK ZI ERROR 26000 ZI");
}

TEST_CASE("a message of a statement that was held back when the backend was lost goes on") {
  BenchOptions options = with_backends(1);
  options.limits.max_prepared_statements = 10;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  bench.server.only().is_silent = true;
  // The second batch has to wait for what comes of the name in the first.
  client.write(parse_message("s", "a") + sync_message() + bind_message("", "s") +
               execute_message() + sync_message());
  CHECK(bench.server.only().tags() == "PS");
  lose(bench, End::silent);
  CHECK(told(client) == error("08006") + " ZI ERROR 26000 ZI");
  // The same in a block, in pieces.
  client.query("BEGIN");
  static_cast<void>(client.take());
  bench.server.only().is_silent = true;
  const std::string next = parse_message("s", "ROLLBACK");
  client.write(parse_message("s", "a") + sync_message() + next.substr(0, 8));
  client.write(next.substr(8));
  lose(bench, End::silent);
  CHECK(told(client) == error("08006") + " ZE 1");
  client.write(bind_message("", "s") + execute_message() + sync_message());
  CHECK(told(client) == "2 ROLLBACK ZI");
}

TEST_CASE("a client that would miss what it had on its backend gets FATAL") {
  struct Case {
    LeaseMode mode;
    StatePolicy policy;
    std::vector<const char*> texts;
  };
  for (const Case& one : {
           Case{LeaseMode::session, StatePolicy::warn, {"x"}},
           Case{LeaseMode::transaction, StatePolicy::warn, {"PREPARE s AS x"}},
           Case{LeaseMode::transaction, StatePolicy::warn, {"BEGIN", "PREPARE s AS x"}},
           Case{LeaseMode::transaction, StatePolicy::follow, {"CREATE TEMP TABLE t"}},
           Case{LeaseMode::transaction, StatePolicy::follow, {"BEGIN", "DO 'x'"}},
           Case{LeaseMode::transaction,
                StatePolicy::follow,
                {"BEGIN", "SELECT pg_advisory_lock(1)"}},
       }) {
    BenchOptions options = with_backends(1);
    options.limits.mode = one.mode;
    options.limits.session_state = one.policy;
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    for (const char* text : one.texts) client.query(text);
    static_cast<void>(client.take());
    if (bench.slice().idle_count() == 1) continue;  // Nothing was left.
    lose(bench, End::with_fatal);
    CAPTURE(one.texts.back());
    CHECK(told(client) == "FATAL 57P01");
    CHECK(client.is_closed());
  }
}

TEST_CASE("what a rollback undoes is not missed") {
  for (const char* text : {"SET work_mem='1MB'", "LISTEN a", "CREATE TEMP TABLE t"}) {
    BenchOptions options = with_backends(1);
    options.limits.session_state = StatePolicy::follow;
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    client.query("BEGIN");
    client.query(text);
    static_cast<void>(client.take());
    lose(bench, End::silent);
    client.query("x");
    CHECK(told(client) == error("08006") + " ZE");
    client.query("ROLLBACK");
    client.query("SELECT 1");
    CHECK(told(client) == "ROLLBACK ZI T D SELECT 1 ZI");
    CHECK(bench.slice().counters.state_probes == 0);
    CHECK(bench.slice().idle_count() == 1);
  }
}

TEST_CASE("what was not asked about when its transaction had ended is missed") {
  BenchOptions options = with_backends(1);
  options.limits.session_state = StatePolicy::follow;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(query_message("SET work_mem='1MB'") + query_message("x"));
  server.write(complete("SET") + ready());
  bench.settle();
  CHECK(told(client) == "SET ZI");
  lose(bench, End::silent);
  CHECK(told(client) == "FATAL 08006");
  CHECK(client.is_closed());
}

TEST_CASE("a server that violates the protocol ends the session") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  bench.server.only().is_silent = true;
  client.query("x");
  bench.server.only().write(frame('2', {}));
  bench.settle();
  CHECK(told(client) == "FATAL 08P01");
}

// --- The rest of the pooler ---

TEST_CASE("statement mode has no block that could fail") {
  for (const End end : ends) {
    BenchOptions options = with_backends(1);
    options.limits.mode = LeaseMode::statement;
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    bench.server.only().is_silent = true;
    client.query("BEGIN");
    lose(bench, end);
    CHECK(told(client) == error(code_of(end)) + " ZI");
    check_served(bench, client);
  }
}

TEST_CASE("in statement mode a ReadyForQuery that has come in part has not come") {
  const std::string reply = echo("x") + ready();
  for (size_t size = 0; size < reply.size(); ++size) {
    BenchOptions options = with_backends(1);
    options.limits.mode = LeaseMode::statement;
    SessionBench bench(options);
    TestClient client(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    client.query("x");
    server.write(reply.substr(0, size));
    bench.settle();
    lose(bench, End::silent);
    if (client.is_closed()) continue;  // It has received a part of a message.
    const std::string got = told(client);
    CAPTURE(size);
    REQUIRE(got.substr(got.find("ERROR")) == error("08006") + " ZI");
    check_served(bench, client);
  }
}

TEST_CASE("a drain does not wait for a lost block") {
  LostBlock lost;
  lost.tell();
  lost.bench.start_drain();
  lost.bench.advance(milliseconds(1));
  CHECK(told(lost.client) == "FATAL 57P01");
  CHECK(lost.client.is_closed());
}

TEST_CASE("a backend that is lost in a drain ends the drain of its client") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.query("BEGIN");
  static_cast<void>(client.take());
  bench.start_drain();
  CHECK(told(client).empty());
  lose(bench, End::silent);
  CHECK(told(client) == "FATAL 57P01");
}

TEST_CASE("a lost block goes over to the next generation of its pool, or ends with the pool") {
  for (const bool is_removed : {false, true}) {
    LostBlock lost;
    lost.tell();
    lost.bench.reload([&](BenchDirectory& changed) {
      changed.limits.max_connections = 2;
      if (is_removed) changed.removed_databases.insert("db");
    });
    if (is_removed) {
      CHECK(told(lost.client) == "FATAL 57P04");
      continue;
    }
    lost.client.query("x");
    CHECK(told(lost.client) == error("25P02") + " ZE");
    lost.client.query("ROLLBACK");
    CHECK(told(lost.client) == "ROLLBACK ZI");
    lost.client.query("x");
    CHECK(told(lost.client) == "T D SELECT 1 ZI");
  }
}

TEST_CASE("a lost block holds no backend, and has the time of a client that is idle") {
  BenchOptions options = with_backends(1);
  options.limits.time_limits.transaction = seconds(1);
  options.limits.time_limits.idle_transaction = seconds(1);
  options.limits.time_limits.query = seconds(1);
  options.limits.time_limits.client_idle = seconds(10);
  LostBlock lost(End::silent, options);
  lost.bench.advance(seconds(5));
  lost.tell();
  TestClient other(lost.bench, 0, "me");
  check_served(lost.bench, other);
  other.close();
  lost.bench.advance_in_steps(seconds(9), milliseconds(100));
  lost.client.write(batch("x"));
  CHECK(told(lost.client) == error("25P02") + " ZE");
  lost.bench.advance_in_steps(seconds(9), milliseconds(100));
  CHECK_FALSE(lost.client.is_closed());
  lost.bench.advance_in_steps(seconds(2), milliseconds(100));
  CHECK(told(lost.client) == "FATAL 57P05");
}

TEST_CASE("a client in a lost block may leave in any way") {
  for (const bool with_goodbye : {false, true}) {
    LostBlock lost;
    lost.tell();
    if (with_goodbye) {
      lost.client.write(frame('X', {}));
      CHECK(lost.client.is_closed());
    } else {
      lost.client.reset();
    }
    lost.bench.settle();
    CHECK(lost.bench.sessions().is_empty());
  }
}

TEST_CASE("the place of a lost backend is counted once") {
  LostBlock lost(End::with_fatal);
  const PoolCounters& counters = lost.bench.slice().counters;
  CHECK(counters.closes[CloseReason::failed] == 1);
  CHECK(lost.bench.node.limit.taken() == 0);
  CHECK(lost.bench.slice().backends_count() == 0);
}

TEST_CASE("what waits behind a fairness pause goes on when the backend is lost") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  bench.server.only().is_silent = true;
  client.query("a");
  waiter.query("w");
  client.query("b");  // Held: others wait.
  CHECK(bench.server.only().tags() == "Q");
  lose(bench, End::silent);
  CHECK(told(client) == error("08006") + " ZI T D SELECT 1 ZI");
  CHECK(told(waiter) == "T D SELECT 1 ZI");
}

// --- The texts ---

TEST_CASE("commands that end a block are told by their text") {
  CHECK(read_block_end("ROLLBACK") == BlockEnd::rollback);
  CHECK(read_block_end("abort transaction;;") == BlockEnd::rollback);
  CHECK(read_block_end(";rollback") == BlockEnd::rollback);
  CHECK(read_block_end("rollback and no chain") == BlockEnd::rollback);
  CHECK(read_block_end("COMMIT") == BlockEnd::commit);
  CHECK(read_block_end("End Work") == BlockEnd::commit);
  CHECK(read_block_end("PREPARE TRANSACTION 'x' ;") == BlockEnd::commit);
  for (const char* nothing : {"", " ", ";", "; ;", "-- x", "/* ROLLBACK */"})
    CHECK(read_block_end(nothing) == BlockEnd::nothing);
  for (const char* none :
       {"ROLLBACK TO x", "rollback work to savepoint x", "COMMIT AND CHAIN", "COMMIT PREPARED 'x'",
        "ROLLBACK PREPARED 'x'", "\"rollback\"", "'rollback'", "rollback$", "END x", "/* ROLLBACK",
        "ROLLBACK; x", "PREPARE TRANSACTION x", "PREPARE transaction AS x", "commit and no",
        "SAVEPOINT x", "RELEASE x", "START TRANSACTION"})
    CHECK(read_block_end(none) == BlockEnd::none);
}

}  // namespace
}  // namespace helios
