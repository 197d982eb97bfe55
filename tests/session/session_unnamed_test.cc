// The unnamed statement: it follows a client that parses it in one batch and binds it in others,
// and nobody else has it.
#include <doctest/doctest.h>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

const std::string use = bind_message("", "") + execute_message();

bool is_idle(SessionBench& bench) {
  return bench.slice().idle_count() == 1;
}

std::string describe_statement() {
  return frame('D', std::string("S\0", 2));
}

TEST_CASE("an unnamed statement is bound by later batches, on whatever backend") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  client.write(parse_message("", "x") + describe_statement() + sync_message());
  CHECK(client.take_tags() == "1tnZ");
  CHECK(is_idle(bench));
  ServerSession& server = bench.server.only();
  for (int i = 0; i < 3; ++i) {
    server.log.clear();
    other.query("in between");
    CHECK(other.take_tags() == "TDCZ");
    client.write(use + sync_message());
    CHECK(client.take_tags() == "2DCZ");
    CHECK(server.tags() == "QPBES");
    CHECK(is_idle(bench));
  }
  other.write(parse_message("", "theirs") + use + sync_message());
  CHECK(other.take_tags() == "12DCZ");
  client.write(describe_statement() + sync_message() + use + sync_message());
  CHECK(client.take_tags() == "tnZ2DCZ");
  // The other's was bound at once, and is gone.
  other.write(use + sync_message());
  CHECK(other.take_tags() == "EZ");
}

TEST_CASE("of several that are parsed at once the one is kept that the server has come to") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  const std::string skipped =
      bind_message("", "nothing") + parse_message("", "skipped") + sync_message();
  client.write(parse_message("", "x") + sync_message() + parse_message("", "y") + sync_message() +
               skipped + skipped);
  CHECK(client.take_tags() == "1Z1ZEZEZ");
  other.query("in between");
  client.write(use + sync_message());
  const auto got = client.take();
  CHECK(tags_of(got) == "2DCZ");
  CHECK(got[1].body.ends_with("y"));
}

TEST_CASE("while nobody else has the backend an unnamed statement is parsed once") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.write(parse_message("", "x") + sync_message());
  for (int i = 0; i < 3; ++i) client.write(use + sync_message());
  CHECK(client.take_tags() == "1Z2DCZ2DCZ2DCZ");
  CHECK(bench.server.only().tags() == "PSBESBESBES");
}

TEST_CASE("a statement of the pooler's own costs a client no unnamed statement") {
  BenchOptions options = with_backends(1);
  options.limits.session_state = StatePolicy::follow;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  other.query("SET work_mem='64'");
  client.write(parse_message("", "SELECT 1") + sync_message());
  other.query("SELECT 1");
  server.log.clear();
  client.write(use + sync_message());
  CHECK(client.take_tags() == "1Z2DCZ");
  // What the other has set is set back in front.
  CHECK(server.tags() == "QPBES");
  // The question what a statement has set, behind a transaction.
  client.write(parse_message("", "SELECT 2") + sync_message() + query_message("BEGIN"));
  client.write(parse_message("", "SELECT 3") + sync_message());
  client.write(parse_message("p", "SET work_mem='64'") + bind_message("", "p") + execute_message() +
               sync_message());
  CHECK(client.take_tags() == "1ZCZ1Z12CZ");
  client.query("ROLLBACK");
  client.write(parse_message("", "SELECT 1") + sync_message());
  client.write(bind_message("", "p") + execute_message() + sync_message());
  CHECK(client.take_tags() == "CZ1Z2CZ");
  server.log.clear();
  client.write(use + sync_message());
  CHECK(client.take_tags() == "2DCZ");
  CHECK(server.tags() == "PBES");
}

TEST_CASE("an unnamed statement may come in pieces") {
  const std::string text = parse_message("", "x") + sync_message();
  for (size_t cut = 1; cut < text.size(); ++cut) {
    CAPTURE(cut);
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    TestClient other(bench, 0, "me");
    client.write(text.substr(0, cut));
    client.write(text.substr(cut));
    CHECK(is_idle(bench));
    other.query("in between");
    client.write(use + sync_message());
    CHECK(client.take_tags() == "1Z2DCZ");
  }
}

TEST_CASE("an unnamed statement outlives its backend") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.write(parse_message("", "x") + sync_message());
  bench.server.only().reset();
  bench.settle();
  client.write(use + sync_message());
  CHECK(client.take_tags() == "1Z2DCZ");
}

TEST_CASE(
    "of an unnamed statement that is lost with its backend neither it nor the one before is left") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.write(parse_message("", "first") + sync_message());
  CHECK(client.take_tags() == "1Z");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(parse_message("", "second") + sync_message());
  server.reset();
  bench.settle();
  CHECK(client.take_tags() == "EZ");
  client.write(use + sync_message());
  CHECK(client.take_error() == "26000");
}

TEST_CASE("of unnamed statements the newest counts that the server has come to") {
  struct Case {
    const char* what;
    std::string then;
    const char* tags;
    const char* text;  // Of what is bound in the end. Empty: there is none.
  };
  const std::string sync = sync_message();
  const std::string second = parse_message("", "second");
  const std::string bad = parse_message("", "BADPARSE");
  const Case cases[] = {
      {"another one", second + sync, "1Z", "second"},
      {"one that fails", bad + sync, "EZ", ""},
      {"one behind a failure", query_message("FAIL") + second + sync, "EZ1Z", "second"},
      {"one that is skipped", parse_message("s", "BADPARSE") + second + sync, "EZ", "first"},
      {"one that fails, and one", bad + sync + second + sync, "EZ1Z", "second"},
      {"one behind one that is skipped",
       parse_message("s", "BADPARSE") + parse_message("", "skipped") + sync + second + sync, "EZ1Z",
       "second"},
      {"one, and one that fails", second + sync + bad + sync, "1ZEZ", ""},
      {"one that is bound at once", second + use + sync, "12DCZ", ""},
      {"a simple query", query_message("q"), "TDCZ", ""},
      {"one that fails", query_message("FAIL"), "EZ", ""},
      {"Close", close_message("") + sync, "3Z", ""},
      {"Close of another", close_message("p") + sync, "3Z", "first"},
      {"a portal", frame('D', std::string("Px\0", 3)) + sync, "nZ", "first"},
  };
  for (const Case& one : cases) {
    CAPTURE(one.what);
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    TestClient other(bench, 0, "me");
    client.write(parse_message("", "first") + sync);
    other.query("in between");
    client.write(one.then);
    CHECK(client.take_tags() == std::string("1Z") + one.tags);
    CHECK(is_idle(bench));
    other.write(parse_message("", "theirs") + use + sync);
    bench.server.only().log.clear();
    client.write(use + sync);
    CHECK(client.take_tags() == (*one.text == '\0' ? "EZ" : "2DCZ"));
    const WireMessage& first = bench.server.only().log.front();
    CHECK(first.tag == (*one.text == '\0' ? 'C' : 'P'));
    if (*one.text != '\0') CHECK(first.body.substr(1, strlen(one.text)) == one.text);
  }
}

TEST_CASE("what fails without a server drops the unnamed statement as a server would") {
  struct Case {
    std::string request;
    bool is_dropped;
  };
  const Case cases[] = {{parse_message("", "second"), true},
                        {query_message("SELECT 1"), true},
                        {use, false},
                        {describe_statement(), false}};
  for (const Case& one : cases) {
    CAPTURE(one.request);
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0);
    const std::string cancel = cancel_request(log_in(client).body);
    TestClient other(bench, 0, "me");
    client.write(parse_message("", "first") + sync_message());
    other.query("BEGIN");
    client.write(one.request + sync_message());
    CHECK(client.take_tags() == "1Z");
    TestClient(bench, 0).write(cancel);
    CHECK(client.take_error() == "57014");
    other.query("COMMIT");
    client.write(use + sync_message());
    CHECK((client.take_error() == "26000") == one.is_dropped);
  }
}

TEST_CASE("an unnamed statement follows its client into session mode") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  client.write(parse_message("", "x") + sync_message());
  other.query("in between");
  bench.reload([](BenchDirectory& directory) { directory.limits.mode = LeaseMode::session; });
  client.write(use + sync_message() + use + sync_message());
  CHECK(client.take_tags() == "1Z2DCZ2DCZ");
  client.write(parse_message("", "y") + sync_message() + use + sync_message());
  CHECK(client.take_tags() == "1Z2DCZ");
}

TEST_CASE("what fails without a server is not there, on the backend of the one before it either") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0);
  const std::string cancel = cancel_request(log_in(client).body);
  client.write(parse_message("", "first") + sync_message());
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(use + sync_message());
  bench.server.holds_cancels = true;
  TestClient(bench, 0).write(cancel);
  server.is_silent = false;
  server.write(frame('2', {}) + complete("SELECT 0") + ready());
  bench.settle();
  CHECK(client.take_tags() == "1Z2CZ");
  // The request may still come: the backend waits for it, idle and in nobody's hands.
  client.write(parse_message("", "second") + sync_message());
  CHECK(client.take_tags().empty());
  TestClient(bench, 0).write(cancel);
  CHECK(client.take_error() == "57014");
  for (ServerSession* request : bench.server.cancels()) request->end();
  bench.settle();
  client.write(use + sync_message());
  CHECK(client.take_error() == "26000");
}

TEST_CASE("an unnamed statement that is too long to be kept keeps its backend until it is bound") {
  BenchOptions options = with_backends(1);
  options.limits.max_client_statements_size = 20;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  client.write(parse_message("", std::string(30, 'x')) + describe_statement() + sync_message());
  CHECK_FALSE(is_idle(bench));
  other.query("waits");
  CHECK(other.take_tags().empty());
  client.write(use + sync_message());
  CHECK(other.take_tags() == "TDCZ");
  CHECK(is_idle(bench));
  CHECK(bench.server.only().tags() == "PDSBESQ");
}

TEST_CASE("the error of an unnamed statement that is parsed once more is that of its Bind") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  client.write(parse_message("", "x") + sync_message());
  other.query("in between");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  client.write(use + sync_message());
  server.write(error_reply("ERROR", "42P01", "gone") + ready());
  bench.settle();
  CHECK(client.take_tags() == "1ZEZ");
  CHECK(is_idle(bench));
  server.is_silent = false;
  client.write(use + sync_message());
  CHECK(client.take_tags() == "2DCZ");
}

TEST_CASE("nobody binds the unnamed statement of another client") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  client.write(parse_message("", "x") + bind_message("", "") + execute_message() + sync_message());
  CHECK(client.take_tags() == "12DCZ");
  // The server is told to forget it, and what it says to that stays here.
  server.is_silent = true;
  server.log.clear();
  other.write(frame('C', std::string("Pp\0", 3)) + bind_message("", "") + execute_message() +
              sync_message());
  CHECK(server.tags() == "CCBES");
  CHECK(server.log[1].body == std::string("S\0", 2));
  server.write(frame('3', {}) + frame('3', {}) + error_reply("ERROR", "26000", "none") + ready());
  bench.settle();
  CHECK(other.take_tags() == "3EZ");
  CHECK(is_idle(bench));
  // With one of its own nothing is added.
  server.is_silent = false;
  server.log.clear();
  other.write(parse_message("", "y") + bind_message("", "") + execute_message() + sync_message());
  CHECK(server.tags() == "PBES");
}

TEST_CASE("an unnamed statement that failed, or is gone by a simple query, keeps no backend") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  client.write(parse_message("", "BADPARSE") + sync_message());
  CHECK(is_idle(bench));
  client.write(parse_message("", "x") + sync_message());
  client.query("y");
  CHECK(is_idle(bench));
  // What one client has left does not bind the next.
  client.write(parse_message("", "x") + sync_message());
  client.close();
  CHECK(is_idle(bench));
  TestClient other(bench, 0, "me");
  other.write(frame('C', std::string("Pp\0", 3)) + sync_message());
  CHECK(other.take_tags() == "3Z");
  CHECK(is_idle(bench));
}

TEST_CASE("an unnamed statement that its client closes keeps no backend") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  const std::string portal = frame('C', std::string("P\0", 2));
  const std::string statement = frame('C', std::string("S\0", 2));
  client.write(parse_message("", "x") + sync_message());
  client.write(portal + sync_message());
  CHECK(client.take_tags() == "1Z3Z");
  client.write(statement + sync_message());
  CHECK(client.take_tags() == "3Z");
  CHECK(is_idle(bench));
  client.write(parse_message("", "x") + statement.substr(0, 6));
  client.write(statement.substr(6) + sync_message());
  CHECK(client.take_tags() == "13Z");
  CHECK(is_idle(bench));
}

TEST_CASE("nobody binds it either behind messages that the server skips or refuses") {
  const std::string bind = bind_message("", "") + execute_message();
  const std::string bad = parse_message("s", "BADPARSE");
  struct Case {
    std::string first, then;
    const char* tags;
  };
  const Case cases[] = {
      {bad + bind + sync_message() + bind + sync_message(), "", "EZEZ"},
      {bad + flush_message(), bind + sync_message() + bind + sync_message(), "EZEZ"},
      {bad + parse_message("", "mine") + sync_message() + bind + sync_message(), "", "EZEZ"},
      {parse_message("", "BADPARSE") + sync_message() + bind + sync_message(), "", "EZEZ"},
      {parse_message("", "mine") + sync_message() + bind + sync_message(), "", "1Z2DCZ"},
      {query_message("FAIL") + bind + sync_message(), "", "EZEZ"},
      {query_message("fine") + bind + sync_message(), "", "TDCZEZ"},
  };
  for (const Case& one : cases) {
    CAPTURE(one.first);
    SessionBench bench(with_backends(1));
    TestClient client(bench, 0, "me");
    client.write(parse_message("", "theirs") + bind_message("", "") + execute_message() +
                 sync_message());
    CHECK(client.take_tags() == "12DCZ");
    TestClient other(bench, 0, "me");
    other.write(one.first);
    other.write(one.then);
    CHECK(other.take_tags() == one.tags);
    CHECK(is_idle(bench));
  }
}

}  // namespace
}  // namespace helios
