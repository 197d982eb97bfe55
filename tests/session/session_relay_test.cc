// What passes between a client and its backend, and when the backend is free again.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

const std::string notice = frame('N', std::string("SNOTICE\0C00000\0Mhello\0\0", 23));

BenchOptions with_mode(LeaseMode mode) {
  BenchOptions options = with_backends(1);
  options.limits.mode = mode;
  return options;
}

bool is_idle(SessionBench& bench) {
  return bench.slice().idle_count() == 1;
}

// A batch of one unnamed statement.
std::string batch(std::string_view text) {
  return parse_message("", text) + bind_message("", "") + execute_message() + sync_message();
}

std::string echoed(std::string_view text) {
  return echo(text) + ready();
}

TEST_CASE("requests may be cut anywhere") {
  const std::string requests = query_message("first") + batch("second") + query_message("third");
  for (size_t cut = 0; cut <= requests.size(); ++cut) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    client.write(requests.substr(0, cut));
    client.write(requests.substr(cut));
    REQUIRE(client.take_tags() == "TDCZ12DCZTDCZ");
    REQUIRE(bench.server.only().tags() == "QPBESQ");
    REQUIRE(is_idle(bench));
  }
}

TEST_CASE("requests may come byte by byte") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  for (const char byte : query_message("first") + batch("second"))
    client.write(std::string(1, byte));
  CHECK(client.take_tags() == "TDCZ12DCZ");
  CHECK(is_idle(bench));
}

TEST_CASE("replies may be cut anywhere") {
  const std::string replies = frame('1', {}) + frame('2', {}) + notice + echoed("x");
  for (size_t cut = 0; cut <= replies.size(); ++cut) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    client.write(parse_message("", "x") + bind_message("", "") + frame('D', std::string("P\0", 2)) +
                 execute_message() + sync_message());
    server.write(replies.substr(0, cut));
    bench.settle();
    server.write(replies.substr(cut));
    bench.settle();
    REQUIRE(client.take_bytes() == replies);
    REQUIRE(is_idle(bench));
  }
}

TEST_CASE("a server's end within a reply: the client is told at a boundary, cut elsewhere") {
  const std::string replies = frame('1', {}) + frame('2', {}) + echo("x");
  std::vector<size_t> boundaries = {0};
  for (std::string rest = replies; !rest.empty();) {
    const size_t size = load_be32(as_bytes(rest).data() + 1) + 1;
    boundaries.push_back(boundaries.back() + size);
    rest.erase(0, size);
  }
  for (const bool bytewise : {false, true}) {
    for (size_t cut = 0; cut <= replies.size(); ++cut) {
      SessionBench bench;
      TestClient client(bench, 0, "me");
      TestClient other(bench, 0, "me");
      ServerSession& server = bench.server.only();
      server.is_silent = true;
      client.write(parse_message("", "x") + bind_message("", "") +
                   frame('D', std::string("P\0", 2)) + execute_message() + sync_message());
      CHECK(bench.node.limit.taken() == 1);
      if (bytewise) {
        for (const char byte : replies.substr(0, cut)) {
          server.write(std::string(1, byte));
          bench.settle();
        }
      } else {
        server.write(replies.substr(0, cut));
      }
      server.end();
      bench.settle();
      CHECK(bench.node.limit.taken() == 0);
      std::string got = client.take_bytes();
      // A header that has not come in full is not passed on.
      size_t boundary = 0;
      for (const size_t one : boundaries)
        if (one <= cut) boundary = one;
      const bool is_at_boundary = cut - boundary < 5;
      const size_t passed = is_at_boundary ? boundary : cut;
      CAPTURE(cut);
      CAPTURE(bytewise);
      REQUIRE(got.substr(0, passed) == replies.substr(0, passed));
      got.erase(0, passed);
      const auto last = take_messages(got);
      REQUIRE(got.empty());
      REQUIRE(tags_of(last) == (is_at_boundary ? "EZ" : ""));
      if (is_at_boundary) REQUIRE(field_of(last[0], 'C') == "08006");
      REQUIRE(client.is_closed() != is_at_boundary);
      other.query("mine");
      REQUIRE(other.take_tags() == "TDCZ");
    }
  }
}

TEST_CASE("the server's own FATAL is what a client gets that would miss its backend") {
  SessionBench bench(with_mode(LeaseMode::session));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("x");
  server.write(error_reply("FATAL", "57P01", "terminating"));
  server.end();
  bench.settle();
  const auto got = client.take();
  REQUIRE(tags_of(got) == "E");
  CHECK(field_of(got[0], 'C') == "57P01");
  CHECK(client.is_closed());
}

TEST_CASE("the permit comes back only with the server's end of file") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  bench.server.holds_ends = true;
  client.query("COPYIN");
  client.close();
  other.query("mine");
  CHECK(bench.node.limit.taken() == 1);
  CHECK(bench.slice().permits_free() == 0);
  CHECK(bench.server.open_sessions().size() == 1);
  CHECK(other.take_tags().empty());
  bench.server.holds_ends = false;
  bench.server.only().end();
  bench.settle();
  CHECK(other.take_tags() == "TDCZ");
}

TEST_CASE("a backend is free after the last of several Syncs only") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(sync_message() + batch("a") + batch("b"));
  CHECK(client.take_tags() == "Z");  // The first needs no server.
  server.write(frame('1', {}) + frame('2', {}) + complete("SELECT 0") + ready());
  bench.settle();
  CHECK_FALSE(is_idle(bench));
  server.write(frame('1', {}) + frame('2', {}) + complete("SELECT 0") + ready());
  bench.settle();
  CHECK(is_idle(bench));
}

TEST_CASE("an error in a batch skips to its Sync, wherever it happens") {
  for (const std::string& request :
       {parse_message("", "BADPARSE") + bind_message("", "") + execute_message(),
        parse_message("", "x") + bind_message("", "unknown") + execute_message(),
        parse_message("", "FAIL") + bind_message("", "") + execute_message(),
        parse_message("", "BADPARSE") + query_message("ignored")}) {
    for (const bool sync_comes_later : {false, true}) {
      SessionBench bench(with_backends(1));
      TestClient client(bench, 0, "me");
      if (sync_comes_later) {
        client.write(request);
        CHECK_FALSE(is_idle(bench));
        client.write(sync_message());
      } else {
        client.write(request + sync_message());
      }
      const std::string tags = client.take_tags();
      CHECK(tags.substr(tags.size() - 2) == "EZ");
      CHECK(is_idle(bench));
      client.write(batch("next"));
      CHECK(client.take_tags() == "12DCZ");
      CHECK(is_idle(bench));
    }
  }
}

TEST_CASE("a Flush brings the replies and keeps the backend") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.write(parse_message("", "x") + bind_message("", "") + execute_message() + flush_message());
  CHECK(client.take_tags() == "12DC");
  CHECK_FALSE(is_idle(bench));
  client.write(sync_message());
  CHECK(client.take_tags() == "Z");
  CHECK(is_idle(bench));
}

TEST_CASE("where no reply is due, the end of a send is told promptly: a release may wait for it") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  const auto notice_of_request = [&](const std::string& bytes) {
    client.write(bytes);
    return bench.core().io.last_notice();
  };
  client.query("BEGIN");
  bench.server.only().is_silent = true;
  CHECK(notice_of_request(flush_message()) == SendNotice::prompt);
  CHECK(notice_of_request(query_message("select 1")) == SendNotice::lazy);
}

TEST_CASE(
    "a COPY that failed in the middle of a message gives its backend back with the message's end") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.query("COPYIN");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  const std::string data = frame('d', std::string(100, 'x'));
  client.write(data.substr(0, 50));
  server.write(error_reply("ERROR", "22P02", "no") + ready());
  bench.settle();
  CHECK(client.take_tags() == "GEZ");
  CHECK_FALSE(is_idle(bench));
  client.write(data.substr(50) + frame('c', {}));
  CHECK(is_idle(bench));
}

TEST_CASE("a transaction keeps its backend to the end, a failed one too") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.query("BEGIN");
  CHECK_FALSE(is_idle(bench));
  client.query("FAIL");
  CHECK_FALSE(is_idle(bench));
  client.query("ROLLBACK");
  CHECK(client.take_tags() == "CZEZCZ");
  CHECK(is_idle(bench));
}

TEST_CASE("COPY by a simple query") {
  for (const std::string& end : {frame('c', {}), frame('f', std::string("no\0", 3))}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    client.query("COPYIN");
    CHECK(client.take_tags() == "G");
    client.write(frame('d', "row") + frame('d', "row"));
    CHECK_FALSE(is_idle(bench));
    client.write(end);
    CHECK(client.take_tags() == (end[0] == 'c' ? "CZ" : "EZ"));
    CHECK(is_idle(bench));
  }
}

TEST_CASE("COPY by an extended batch whose Sync comes right behind Execute") {
  for (const bool fails : {false, true}) {
    for (const bool in_one_piece : {false, true}) {
      SessionBench bench(with_backends(1));
      TestClient client(bench, 0, "me");
      const std::string beginning =
          parse_message("", "COPYIN") + bind_message("", "") + execute_message() + sync_message();
      const std::string end = frame('d', "row") +
                              (fails ? frame('f', std::string("no\0", 3)) : frame('c', {})) +
                              sync_message();
      if (in_one_piece) {
        client.write(beginning + end);
      } else {
        client.write(beginning);
        CHECK_FALSE(is_idle(bench));
        client.write(end);
      }
      CHECK(client.take_tags() == (fails ? "12GEZ" : "12GCZ"));
      client.query("next");
      CHECK(client.take_tags() == "TDCZ");
      // A backend whose replies cannot be counted may be replaced, never kept.
      CHECK(bench.slice().idle_count() == 1);
    }
  }
}

TEST_CASE("CopyData behind a COPY that the server ended takes no backend") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("COPYIN");
  server.write(frame('G', std::string(3, '\0')));
  bench.settle();
  client.write(frame('d', "row"));
  server.write(error_reply("ERROR", "22P04", "bad row") + ready());
  bench.settle();
  CHECK(client.take_tags() == "GEZ");
  CHECK(is_idle(bench));
  client.write(frame('d', "row") + frame('c', {}));
  CHECK(is_idle(bench));
  CHECK(client.take_tags().empty());
  server.is_silent = false;
  other.query("mine");
  CHECK(other.take_tags() == "TDCZ");
  client.query("mine");
  CHECK(client.take_tags() == "TDCZ");
}

TEST_CASE("a failed Parse keeps no backend") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.write(parse_message("s", "BADPARSE") + sync_message());
  CHECK(is_idle(bench));
}

TEST_CASE("what a server would refuse when the backend is another client's does not go there") {
  const std::string long_body(10'000, '\0');
  for (const std::string& message :
       {frame('H', "x"), frame('H', long_body), frame('c', long_body), frame('f', long_body),
        frame('E', long_body), frame('D', 'S' + long_body), frame('C', 'S' + long_body),
        frame('S', long_body), std::string("B\x7f\xff\xff\xff\0s\0", 8),
        std::string("Q\x40\0\0\0select", 11)}) {
    CAPTURE(message);
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    TestClient other(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    client.write(parse_message("s", "x") + sync_message());
    other.write_later(query_message("waits"));
    client.write(query_message("first") + message);
    server.is_silent = false;
    server.write(frame('1', {}) + ready() + echoed("first") + ready());
    bench.settle();
    CHECK(client.is_closed());
    const std::vector<WireMessage> told = client.take();
    REQUIRE(!told.empty());
    CHECK(field_of(told.back(), 'C') == "08P01");
    CHECK(other.take_tags() == "TDCZ");
    for (const ServerSession* one : bench.server.open_sessions())
      CHECK(one->tags().find_first_of("HcfEDCB") == std::string::npos);
  }
}

TEST_CASE("a server that keeps its replies is asked for them when too many are owed") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  std::string batch = parse_message("", "x");
  for (size_t i = 0; i < Ledger::entries_max; ++i) batch += close_message("none");
  client.write(batch + sync_message());
  CHECK(server.tags() == "PH");
  server.write(frame('1', {}));
  bench.settle();
  CHECK(server.tags() == "PHS");
  size_t bytes_count = 0;
  for (std::string got = client.take_bytes(); !got.empty(); got = client.take_bytes()) {
    bytes_count += got.size();
    bench.settle();
  }
  CHECK(bytes_count == 5 * (1 + Ledger::entries_max));
}

TEST_CASE("an error while nothing is owed ends the batch that is open") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(parse_message("", "x") + flush_message());
  server.write(frame('1', {}));
  bench.settle();
  server.write(error_reply("ERROR", "57014", "canceling statement due to statement timeout"));
  bench.settle();
  CHECK(client.take_tags() == "1E");
  client.write(bind_message("", "") + execute_message() + sync_message());
  server.write(ready());
  bench.settle();
  CHECK(client.take_tags() == "Z");
  server.is_silent = false;
  client.query("x");
  CHECK(client.take_tags() == "TDCZ");
}

TEST_CASE("a Sync that is none is the server's to refuse") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.write(sync_message());
  CHECK(client.take_tags() == "Z");
  CHECK(bench.server.only().tags().empty());
  client.write(frame('S', "body"));
  CHECK(client.take_tags() == "Z");
  CHECK(bench.server.only().tags() == "S");
}

TEST_CASE("an unknown message is refused when what was asked before is answered") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(query_message("x") + frame('z', "what"));
  CHECK(client.take_tags().empty());
  server.write(echoed("x"));
  bench.settle();
  CHECK(client.take_tags() == "TDCZE");
  CHECK(client.is_closed());
}

TEST_CASE("an unknown message is refused at once where nothing would be answered") {
  for (const std::string& before :
       {std::string(), parse_message("", "x"), query_message("COPYIN")}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    client.write(before);
    client.write(frame('z', "what"));
    CHECK(client.take_error() == "08P01");
    CHECK(client.is_closed());
  }
}

TEST_CASE("a client that leaves its statements behind costs a DISCARD ALL") {
  BenchOptions options = with_backends(1);
  options.limits.max_prepared_statements = 0;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.write(parse_message("s", "x") + sync_message());
  CHECK_FALSE(is_idle(bench));
  client.write(frame('X', {}));
  CHECK(is_idle(bench));
  const auto& last = bench.server.only().log.back();
  CHECK(last.body == std::string("DISCARD ALL\0", 12));
}

TEST_CASE("session mode keeps the backend until the client leaves, then cleans it") {
  SessionBench bench(with_mode(LeaseMode::session));
  {
    TestClient client(bench, 0, "me");
    client.query("a");
    client.query("b");
    CHECK(client.take_tags() == "TDCZTDCZ");
    CHECK_FALSE(is_idle(bench));
    TestClient other(bench);
    other.write(startup_packet("me", "db") + query_message("mine"));
    CHECK(other.take_tags() == "R");
    client.close();
    CHECK(other.take_tags().ends_with("KZTDCZ"));
    CHECK(bench.server.only().tags() == "QQQQ");
    other.close();
  }
  CHECK(is_idle(bench));
}

TEST_CASE(
    "in session mode a backend is the client's from its login on, asked for anything or not") {
  SessionBench bench(with_mode(LeaseMode::session));
  TestClient client(bench, 0, "me", {{"application_name", "mine"}});
  CHECK_FALSE(is_idle(bench));
  ServerSession& server = bench.server.only();
  CHECK(server.parameters().at("application_name") == "mine");
  client.close();
  CHECK(is_idle(bench));
  CHECK(server.log.back().body == std::string("DISCARD ALL\0", 12));
}

TEST_CASE("a client in session mode that nobody has a backend for is told when its wait is over") {
  BenchOptions options = with_mode(LeaseMode::session);
  options.limits.acquire_timeout = seconds(100);
  REQUIRE(options.login_timeout < options.limits.acquire_timeout);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  TestClient other(bench);
  other.write(startup_packet("me", "db"));
  bench.advance_in_steps(seconds(99), seconds(1));
  CHECK(other.take_tags() == "R");
  bench.advance_in_steps(seconds(2), seconds(1));
  CHECK(other.take_error() == "53300");
  CHECK(other.is_closed());
  client.query("still");
  CHECK(client.take_tags() == "TDCZ");
}

TEST_CASE("statement mode refuses transaction blocks") {
  SessionBench bench(with_mode(LeaseMode::statement));
  TestClient client(bench, 0, "me");
  client.query("single");
  CHECK(client.take_tags() == "TDCZ");
  CHECK(is_idle(bench));
  client.query("BEGIN");
  CHECK(client.take_error() == "0A000");
  CHECK(client.is_closed());
  TestClient other(bench, 0, "me");
  other.query("mine");
  CHECK(other.take_tags() == "TDCZ");
  CHECK(bench.server.only().status() == 'I');
  CHECK(bench.server.sessions().size() == 1);  // It was rolled back.
}

TEST_CASE("parameters follow a client, in one send with its own request") {
  SessionBench bench(with_backends(1));
  TestClient one(bench, 0, "me", {{"application_name", "one"}});
  TestClient two(bench, 0, "me", {{"application_name", "two"}});
  ServerSession& server = bench.server.only();
  for (int i = 0; i < 3; ++i) {
    one.query("a");
    CHECK(one.take_tags() == "TDCZ");
    CHECK(server.parameters().at("application_name") == "one");
    two.query("b");
    CHECK(two.take_tags() == "TDCZ");
    CHECK(server.parameters().at("application_name") == "two");
  }
  // Both messages came before the server could answer the first.
  server.is_silent = true;
  server.log.clear();
  one.query("c");
  CHECK(server.tags() == "QQ");
  CHECK(server.log[0].body == std::string("SET application_name='one'\0", 27));
  // A SET by the client itself is known too.
  server.write(frame('S', std::string("application_name\0one\0", 21)) + complete("SET") + ready() +
               echo("c") + ready());
  bench.settle();
  CHECK(one.take_tags() == "TDCZ");
  server.is_silent = false;
  one.query("SET application_name='three'");
  CHECK(one.take_tags() == "SCZ");
  two.query("d");
  CHECK(two.take_tags() == "TDCZ");
  one.query("e");
  CHECK(one.take_tags() == "TDCZ");
  CHECK(server.parameters().at("application_name") == "three");
}

TEST_CASE("replies to the pooler's SET stay here, wherever they are cut") {
  const std::string replies = frame('S', std::string("application_name\0one\0", 21)) +
                              complete("SET") + ready() + notice + echoed("c");
  const size_t own_size = replies.size() - notice.size() - echoed("c").size();
  for (size_t cut = 1; cut < replies.size(); ++cut) {
    SessionBench bench(with_backends(1));
    TestClient one(bench, 0, "me", {{"application_name", "one"}});
    TestClient two(bench, 0, "me", {{"application_name", "two"}});
    two.query("x");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    one.query("c");
    server.write(replies.substr(0, cut));
    bench.settle();
    server.write(replies.substr(cut));
    bench.settle();
    REQUIRE(one.take_bytes() == replies.substr(own_size));
    REQUIRE(is_idle(bench));
  }
}

TEST_CASE("garbage from a server costs that server, its client and nobody else") {
  for (const std::string& garbage :
       {frame('D', "row"), frame('?', {}), std::string("Z\0\0\0\1", 5), ready('?'), frame('Z', {}),
        frame('1', {}), frame('R', std::string(4, '\0'))}) {
    // While idle.
    {
      SessionBench bench(with_backends(1));
      TestClient client(bench, 0, "me");
      bench.server.only().write(garbage);
      bench.settle();
      CHECK(bench.slice().idle_count() == 0);
      CHECK(bench.node.limit.taken() == 0);
      client.query("mine");
      CHECK(client.take_tags() == "TDCZ");
    }
    // While leased, in a transaction.
    {
      SessionBench bench;
      TestClient client(bench, 0, "me");
      client.query("BEGIN");
      CHECK(client.take_tags() == "CZ");
      bench.server.only().write(garbage);
      bench.settle();
      CHECK(client.is_closed());
      TestClient other(bench, 0, "me");
      other.query("mine");
      CHECK(other.take_tags() == "TDCZ");
    }
  }
}

TEST_CASE("a notice or a parameter on an idle backend does not cost it") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.write(notice + frame('A', std::string("\0\0\0\1c\0\0", 7)) +
               frame('S', std::string("TimeZone\0CET\0", 13)));
  bench.settle();
  CHECK(is_idle(bench));
  CHECK(client.take_tags().empty());
  client.query("mine");
  CHECK(client.take_tags() == "TDCZ");
  CHECK(bench.server.sessions().size() == 1);
  CHECK(server.tags() == "QQ");  // The parameter is set back first.
}

TEST_CASE("a FATAL on an idle backend closes it and harms nobody") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  bench.server.only().write(error_reply("FATAL", "57P01", "terminating"));
  bench.settle();
  CHECK(bench.slice().idle_count() == 0);
  client.query("mine");
  CHECK(client.take_tags() == "TDCZ");
}

TEST_CASE("a message of no known type ends the session that sent it") {
  for (const char tag : {'p', '?', 'Z', '\0'}) {
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    client.write(query_message("x") + frame(tag, "y"));
    CHECK(client.is_closed());
    TestClient other(bench, 0, "me");
    other.query("mine");
    CHECK(other.take_tags() == "TDCZ");
  }
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.write(std::string("Q\0\0\0\3", 5));
  CHECK(client.take_error() == "08P01");
  CHECK(client.is_closed());
}

TEST_CASE("a slow client pauses its backend, and gets everything in the end") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.query("x");
  const std::string row = echo(std::string(4'000'000, 'x')) + ready();
  server.write(row);
  bench.settle();
  // The client has not read: what is kept here is bounded.
  CHECK(bench.core().chunks.lent_count() < 300);
  CHECK_FALSE(bench.core().io.is_in_flight(server.fd(), OpKind::recv));
  std::string got;
  for (int i = 0; i < 1000 && got.size() < row.size(); ++i) {
    got += client.take_bytes();
    bench.settle();
  }
  CHECK(got.size() == row.size());
  CHECK(got == row);
  CHECK(is_idle(bench));
}

TEST_CASE("a slow server pauses its client, and gets everything in the end") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_deaf = true;
  const std::string text(4'000'000, 'q');
  client.query(text);
  CHECK(bench.core().chunks.lent_count() < 300);
  server.is_deaf = false;
  bench.settle();
  CHECK(server.queries() == std::vector<std::string>{text});
  std::string got;
  for (int i = 0; i < 1000 && !is_idle(bench); ++i) {
    got += client.take_bytes();
    bench.settle();
  }
  CHECK(is_idle(bench));
}

}  // namespace
}  // namespace helios
