// Prepared statements follow their clients from backend to backend.
#include <doctest/doctest.h>

#include <algorithm>

#include "helios/session/client_statements.h"
#include "helios/session/statement_names.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

using Texts = std::vector<std::string>;

std::string use(std::string_view statement) {
  return bind_message("", statement) + execute_message();
}

std::string batch(std::string_view messages) {
  return std::string(messages) + sync_message();
}

std::string prepare(std::string_view name, std::string_view text) {
  return batch(parse_message(name, text));
}

bool is_idle(SessionBench& bench) {
  return bench.slice().idle_count() == 1;
}

// The text of the only row among what has come.
std::string row_of(const std::vector<WireMessage>& messages) {
  for (const WireMessage& message : messages)
    if (message.tag == 'D') return message.body.substr(6);
  return {};
}

// What a statement says when it is executed; or the SQLSTATE. What came before is of no interest.
std::string run(TestClient& client, std::string_view statement) {
  (void)client.take();
  client.write(batch(use(statement)));
  const auto got = client.take();
  if (tags_of(got) == "EZ") return field_of(got[0], 'C');
  CHECK(tags_of(got) == "2DCZ");
  return row_of(got);
}

// Texts of the statements that a server has, in order.
Texts texts_of(const ServerSession& server) {
  Texts texts;
  for (const auto& [name, text] : server.statements()) texts.push_back(text);
  std::sort(texts.begin(), texts.end());
  return texts;
}

// Takes all that comes, however much that is.
std::vector<WireMessage> take_all(SessionBench& bench, TestClient& client) {
  std::string bytes;
  for (std::string piece = client.take_bytes(); !piece.empty(); piece = client.take_bytes()) {
    bytes += piece;
    bench.settle();
  }
  auto messages = take_messages(bytes);
  CHECK(bytes.empty());
  return messages;
}

struct Scene {
  explicit Scene(uint32_t backends_count = 1, uint32_t statements_max = 200)
      : bench(options(backends_count, statements_max)) {}
  explicit Scene(const BenchOptions& options) : bench(options) {}
  static BenchOptions options(uint32_t backends_count, uint32_t statements_max) {
    BenchOptions options = with_backends(backends_count);
    options.limits.max_prepared_statements = statements_max;
    return options;
  }
  ServerSession& server() { return bench.server.only(); }
  const PoolCounters& counters() { return bench.slice().counters; }
  // From here on: what the server gets.
  std::string new_tags() {
    std::string tags = server().tags();
    server().log.clear();
    return tags;
  }
  SessionBench bench;
  TestClient one{bench, 0, "me"};
  TestClient two{bench, 0, "me"};
};

BenchOptions following() {
  BenchOptions options = Scene::options(1, 200);
  options.limits.session_state = StatePolicy::follow;
  return options;
}

TEST_CASE("a named statement does not keep its backend") {
  Scene scene;
  scene.one.write(prepare("s", "x"));
  CHECK(scene.one.take_tags() == "1Z");
  CHECK(is_idle(scene.bench));
  CHECK(run(scene.one, "s") == "x");
  CHECK(is_idle(scene.bench));
}

TEST_CASE("a named statement survives a change of its server") {
  Scene scene(2);
  scene.one.write(prepare("s", "x"));
  CHECK(scene.one.take_tags() == "1Z");
  // The backend that has it is somebody else's.
  scene.two.query("BEGIN");
  CHECK(run(scene.one, "s") == "x");
  const auto servers = scene.bench.server.open_sessions();
  REQUIRE(servers.size() == 2);
  CHECK(texts_of(*servers[0]) == Texts{"x"});
  CHECK(texts_of(*servers[1]) == Texts{"x"});
  CHECK(servers[1]->tags() == "PBES");
  CHECK(scene.counters().client_parses == 1);
  CHECK(scene.counters().server_parses == 2);
  CHECK(scene.counters().binds == 1);
}

TEST_CASE("two clients with one text under different names: it is parsed once") {
  Scene scene;
  scene.one.write(prepare("a", "x"));
  scene.two.write(prepare("b", "x"));
  CHECK(scene.one.take_tags() == "1Z");
  CHECK(scene.two.take_tags() == "1Z");
  CHECK(scene.server().tags() == "PSS");
  CHECK(run(scene.one, "a") == "x");
  CHECK(run(scene.two, "b") == "x");
  CHECK(run(scene.one, "b") == "26000");
  CHECK(scene.counters().client_parses == 2);
  CHECK(scene.counters().server_parses == 1);
}

TEST_CASE("one name with different texts on two clients") {
  Scene scene;
  scene.one.write(prepare("s", "x"));
  scene.two.write(prepare("s", "y"));
  for (int i = 0; i < 3; ++i) {
    CHECK(run(scene.one, "s") == "x");
    CHECK(run(scene.two, "s") == "y");
  }
}

TEST_CASE("parameter types belong to a statement") {
  Scene scene;
  const std::string typed = frame('P', std::string("s\0x\0\0\1\0\0\0\x17", 10));
  scene.one.write(prepare("s", "x"));
  scene.two.write(batch(typed));
  CHECK(scene.two.take_tags() == "1Z");
  CHECK(texts_of(scene.server()) == Texts{"x", "x"});
}

TEST_CASE("Describe of a statement follows too") {
  Scene scene(2);
  scene.one.write(prepare("s", "x"));
  scene.two.query("BEGIN");
  scene.one.write(batch(describe_message("s")));
  CHECK(scene.one.take_tags() == "1ZtnZ");
  CHECK(scene.bench.server.open_sessions()[1]->tags() == "PDS");
}

TEST_CASE("a pipeline leaves in one send, with what is added to it") {
  Scene scene(2);
  scene.one.write(prepare("s", "x"));
  CHECK(scene.one.take_tags() == "1Z");
  scene.two.query("BEGIN");
  ServerSession& server = *scene.bench.server.open_sessions()[0];
  scene.one.query("wakes the second");
  ServerSession& second = *scene.bench.server.open_sessions()[1];
  CHECK(scene.one.take_tags() == "TDCZ");
  second.is_silent = true;
  second.log.clear();
  scene.one.write(batch(parse_message("t", "y") + use("s") + use("t")));
  CHECK(second.tags() == "PPBEBES");
  CHECK(server.tags() == "PSQ");
}

TEST_CASE("a statement that is about to be used is not evicted, whatever is not answered yet") {
  Scene scene(1, 1);
  scene.one.query("opens the backend");
  CHECK(scene.one.take_tags() == "TDCZ");
  scene.server().is_silent = true;
  scene.server().log.clear();
  scene.one.write(batch(parse_message("s", "x") + parse_message("t", "y")));
  scene.server().write(frame('1', {}));
  scene.bench.settle();
  CHECK(scene.one.take_tags() == "1");
  scene.one.write(batch(use("s")));
  CHECK(scene.new_tags() == "PPSBES");
  scene.server().write(frame('1', {}) + ready() + frame('2', {}) + complete("SELECT 0") + ready());
  scene.bench.settle();
  CHECK(scene.one.take_tags() == "1Z2CZ");
}

TEST_CASE("the name of a statement is cut as PostgreSQL cuts it") {
  Scene scene;
  const std::string name(63, 'n');
  scene.one.write(prepare(name + "one", "x"));
  CHECK(scene.one.take_tags() == "1Z");
  CHECK(run(scene.one, name) == "x");
  CHECK(run(scene.one, name + "two") == "x");
  CHECK(run(scene.one, name.substr(1)) == "26000");
}

TEST_CASE("a message may be cut anywhere") {
  const std::string requests = prepare("s", "x") + batch(use("s") + describe_message("s")) +
                               batch(close_message("s")) + prepare("s", "y") + batch(use("s"));
  for (size_t cut = 0; cut <= requests.size(); ++cut) {
    Scene scene;
    scene.one.write(requests.substr(0, cut));
    scene.one.write(requests.substr(cut));
    CAPTURE(cut);
    REQUIRE(scene.one.take_tags() == "1Z2DCtnZ3Z1Z2DCZ");
    REQUIRE(is_idle(scene.bench));
  }
}

TEST_CASE("messages may come byte by byte") {
  Scene scene;
  for (int i = 0; i < 2; ++i) {
    for (const char byte : prepare("s", "x") + batch(use("s") + describe_message("s")) +
                               query_message("DEALLOCATE s"))
      scene.one.write(std::string(1, byte));
    CHECK(scene.one.take_tags() == "1Z2DCtnZCZ");
    CHECK(is_idle(scene.bench));
  }
}

TEST_CASE("Parse and Bind of any size, whole or in pieces") {
  for (const size_t size : {100U, 1023U, 1024U, 8000U, 16384U, 20000U, 70000U, 1000000U}) {
    CAPTURE(size);
    Scene scene(2);
    const std::string text(size, 't');
    const std::string big_bind =
        frame('B', std::string("\0s\0", 3) + std::string(size, 'v')) + execute_message();
    scene.one.write(prepare("s", text));
    CHECK(scene.one.take_tags() == "1Z");
    scene.two.query("BEGIN");
    scene.one.write(batch(big_bind) + batch(big_bind));
    const auto got = take_all(scene.bench, scene.one);
    CHECK(tags_of(got) == "2DCZ2DCZ");
    CHECK(row_of(got) == text);
    CHECK(is_idle(scene.bench));
    scene.two.query("COMMIT");
  }
}

TEST_CASE("a name that goes on for ever is the server's to judge") {
  Scene scene;
  scene.bench.reload(
      [](BenchDirectory& directory) { directory.limits.max_prepared_statement_size = 2000; });
  const std::string name(5000, 'n');
  scene.one.write(batch(use(name)));
  CHECK(scene.one.take_error() == "26000");
  scene.one.write(batch(describe_message(name)));
  CHECK(scene.one.take_error() == "26000");
  CHECK(is_idle(scene.bench));
  // Without its end too.
  scene.one.write(batch(frame('B', std::string("\0nnn", 4))));
  CHECK(scene.one.take_error() == "26000");
}

// --- Names

TEST_CASE("unknown names are the server's error, and the connection lives on") {
  Scene scene;
  for (const std::string& message : {use("unknown"), describe_message("unknown")}) {
    scene.one.write(batch(message));
    const auto got = scene.one.take();
    REQUIRE(tags_of(got) == "EZ");
    CHECK(field_of(got[0], 'C') == "26000");
    CHECK(field_of(got[0], 'M') == "prepared statement \"unknown\" does not exist");
    CHECK(is_idle(scene.bench));
  }
  scene.one.query("x");
  CHECK(scene.one.take_tags() == "TDCZ");
}

TEST_CASE("what looks like a name of ours finds nobody's statement") {
  Scene scene;
  scene.one.write(prepare("s", "secret"));
  const std::string name = scene.server().statements().begin()->first;
  CHECK(run(scene.two, name) == "26000");
  scene.two.write(batch(describe_message(name)));
  CHECK(scene.two.take_error() == "26000");
  // As a client's own name it is as good as any other.
  scene.two.write(prepare(name, "mine"));
  CHECK(scene.two.take_tags() == "1Z");
  CHECK(run(scene.two, name) == "mine");
  CHECK(run(scene.one, "s") == "secret");
}

TEST_CASE("Close then Bind fails; Close of an unknown name succeeds; neither reaches the server") {
  Scene scene;
  scene.one.write(prepare("s", "x") + batch(close_message("s") + close_message("unknown")));
  CHECK(scene.one.take_tags() == "1Z33Z");
  CHECK(run(scene.one, "s") == "26000");
  CHECK(scene.server().tags() == "PSBES");
  // Without a lease no server is needed at all.
  scene.one.write(prepare("s", "x"));
  scene.new_tags();
  scene.one.write(batch(close_message("s")) + batch(close_message("s")));
  CHECK(scene.one.take_tags() == "1Z3Z3Z");
  CHECK(scene.new_tags().empty());
}

TEST_CASE("a name that is taken is the server's error, and the old statement stays") {
  Scene scene;
  scene.one.write(prepare("s", "x") + batch(parse_message("s", "y") + use("s")));
  const auto got = scene.one.take();
  REQUIRE(tags_of(got) == "1ZEZ");
  CHECK(field_of(got[2], 'C') == "42P05");
  CHECK(field_of(got[2], 'M') == "prepared statement \"s\" already exists");
  CHECK(run(scene.one, "s") == "x");
  // What was left for that is gone.
  CHECK(texts_of(scene.server()) == Texts{"x"});
  CHECK(run(scene.two, "s") == "26000");
  SUBCASE("again and again") {
    for (int i = 0; i < 3; ++i) {
      scene.one.write(prepare("s", "x"));
      CHECK(scene.one.take_error() == "42P05");
    }
  }
  SUBCASE("the server judges the text first") {
    scene.one.write(prepare("s", "BADPARSE"));
    CHECK(scene.one.take_error() == "22012");
  }
  SUBCASE("the next who names it unprepared does not find it") {
    scene.one.write(prepare("s", "x"));
    CHECK(scene.one.take_error() == "42P05");
    scene.two.write(batch(describe_message("s")));
    CHECK(scene.two.take_error() == "26000");
  }
}

TEST_CASE("Parse and Close mixed: replies come in order") {
  Scene scene;
  scene.one.write(batch(parse_message("a", "x") + close_message("a") + parse_message("a", "y") +
                        use("a") + close_message("b") + parse_message("b", "x") + use("b") +
                        close_message("a")));
  const auto got = scene.one.take();
  CHECK(tags_of(got) == "1312DC312DC3Z");
  CHECK(run(scene.one, "a") == "26000");
  CHECK(run(scene.one, "b") == "x");
}

// --- Errors

TEST_CASE("a Parse that fails leaves no trace") {
  Scene scene;
  SUBCASE("alone") {
    scene.one.write(prepare("s", "BADPARSE"));
  }
  SUBCASE("in a pipeline") {
    scene.one.write(batch(parse_message("s", "BADPARSE") + use("s") + parse_message("t", "y") +
                          close_message("u")));
  }
  CHECK(scene.one.take_tags() == "EZ");
  CHECK(run(scene.one, "s") == "26000");
  CHECK(run(scene.one, "t") == "26000");
  CHECK(texts_of(scene.server()).empty());
  for (const char* const name : {"s", "t"}) {
    scene.one.write(prepare(name, "y"));
    CHECK(scene.one.take_tags() == "1Z");
    CHECK(run(scene.one, name) == "y");
  }
}

TEST_CASE("what is skipped behind an error did not happen, wherever the error is") {
  const std::string fails = parse_message("", "FAIL") + use("");
  for (const bool in_pieces : {false, true}) {
    CAPTURE(in_pieces);
    Scene scene;
    scene.one.write(prepare("kept", "k") + prepare("known", "n"));
    CHECK(scene.one.take_tags() == "1Z1Z");
    const std::string messages = parse_message("before", "b") + fails + close_message("kept") +
                                 parse_message("new", "n") + parse_message("other", "o") +
                                 parse_message("kept", "again");
    if (in_pieces) {
      for (const char byte : messages) scene.one.write(std::string(1, byte));
      scene.one.write(sync_message());
    } else {
      scene.one.write(batch(messages));
    }
    CHECK(scene.one.take_tags() == "112EZ");
    CHECK(run(scene.one, "kept") == "k");
    CHECK(run(scene.one, "before") == "b");
    CHECK(run(scene.one, "new") == "26000");
    CHECK(run(scene.one, "other") == "26000");
    CHECK(texts_of(scene.server()) == Texts{"FAIL", "b", "k", "n"});
    scene.one.write(prepare("other", "o"));
    CHECK(scene.one.take_tags() == "1Z");
    CHECK(run(scene.one, "other") == "o");
  }
}

TEST_CASE("a later batch does not rely on what an earlier one may not have done") {
  Scene scene;
  const std::string fails = parse_message("", "FAIL") + use("");
  SUBCASE("a name") {
    scene.one.write(batch(fails + parse_message("s", "x")) + batch(use("s")) +
                    batch(parse_message("s", "y")) + batch(use("s")));
    const auto got = scene.one.take();
    CHECK(tags_of(got) == "12EZEZ1Z2DCZ");
    CHECK(field_of(got[4], 'M') == "prepared statement \"s\" does not exist");
    CHECK(row_of(got) == "y");
  }
  SUBCASE("a closed name") {
    scene.one.write(prepare("s", "x") + batch(fails + close_message("s")) + batch(use("s")));
    CHECK(scene.one.take_tags() == "1Z12EZ2DCZ");
  }
  SUBCASE("a statement of the backend") {
    scene.one.write(batch(fails + parse_message("s", "x")) + batch(parse_message("t", "x")) +
                    batch(use("t")));
    CHECK(scene.one.take_tags() == "12EZ1Z2DCZ");
  }
  SUBCASE("a statement that was to be put there for a Bind") {
    Scene other(2);
    other.one.write(prepare("s", "x"));
    CHECK(other.one.take_tags() == "1Z");
    other.two.query("BEGIN");
    other.one.write(batch(fails + use("s")) + batch(use("s")));
    CHECK(other.one.take_tags() == "12EZ2DCZ");
  }
  CHECK(is_idle(scene.bench));
}

TEST_CASE("an error in what is sent ahead of a Bind is the client's") {
  Scene scene(2);
  scene.one.write(prepare("s", "x"));
  scene.two.query("BEGIN");
  scene.one.query("wakes the second");
  CHECK(scene.one.take_tags() == "1ZTDCZ");
  ServerSession& server = *scene.bench.server.open_sessions()[1];
  server.is_silent = true;
  scene.one.write(batch(use("s")) + batch(use("s")));
  CHECK(server.tags() == "QPBES");
  server.write(error_reply("ERROR", "42P01", "no such table") + ready());
  scene.bench.settle();
  CHECK(scene.one.take_tags() == "EZ");
  // It is tried again.
  CHECK(server.tags() == "QPBESPBES");
  server.write(frame('1', {}) + frame('2', {}) + complete("SELECT 0") + ready());
  scene.bench.settle();
  CHECK(scene.one.take_tags() == "2CZ");
}

TEST_CASE("in a failed transaction a Parse is refused, unless it ends the transaction") {
  Scene scene;
  scene.two.write(prepare("a", "x") + prepare("b", "ROLLBACK"));
  scene.one.query("BEGIN");
  scene.one.query("FAIL");
  CHECK(scene.one.take_tags() == "CZEZ");
  scene.one.write(prepare("s", "x"));
  CHECK(scene.one.take_error() == "25P02");
  scene.one.write(batch(parse_message("t", "ROLLBACK") + use("t")));
  CHECK(scene.one.take_tags() == "12CZ");
  CHECK(run(scene.one, "s") == "26000");
  CHECK(run(scene.two, "a") == "x");
  CHECK(texts_of(scene.server()) == Texts{"ROLLBACK", "x"});
}

TEST_CASE("replies do not wait for the end of a pipeline, nor fall into a half received one") {
  Scene scene;
  scene.two.write(prepare("a", "x"));
  ServerSession& server = scene.server();
  server.is_silent = true;
  scene.one.write(parse_message("", "y") + use(""));
  scene.one.write(parse_message("s", "x"));
  server.write(frame('1', {}) + frame('2', {}));
  scene.bench.settle();
  CHECK(scene.one.take_tags() == "12");
  const std::string done = complete("SELECT 0");
  server.write(done.substr(0, 8));
  scene.bench.settle();
  scene.one.write(close_message("unknown"));
  CHECK(scene.one.take_bytes() == done.substr(0, 8));
  server.write(done.substr(8));
  scene.bench.settle();
  CHECK(scene.one.take_bytes() == done.substr(8) + frame('1', {}) + frame('3', {}));
  scene.one.write(sync_message());
  server.write(ready());
  scene.bench.settle();
  CHECK(scene.one.take_tags() == "Z");
  CHECK(is_idle(scene.bench));
}

// --- Eviction

TEST_CASE("beyond the limit the statement that was not used for longest is closed") {
  Scene scene(1, 2);
  for (const char* const name : {"a", "b"}) scene.one.write(prepare(name, name));
  CHECK(run(scene.one, "a") == "a");
  scene.new_tags();
  scene.one.write(prepare("c", "c"));
  CHECK(scene.new_tags() == "CPS");
  CHECK(texts_of(scene.server()) == Texts{"a", "c"});
  CHECK(run(scene.one, "b") == "b");
  CHECK(texts_of(scene.server()) == Texts{"b", "c"});
  for (const char* const name : {"a", "b", "c"}) CHECK(run(scene.one, name) == name);
}

TEST_CASE("a batch may need more than the limit, with an error in it too") {
  Scene scene(1, 2);
  std::string all;
  for (const char* const name : {"a", "b", "c", "d", "e"}) {
    scene.one.write(prepare(name, name));
    all += use(name);
  }
  (void)scene.one.take();
  scene.one.write(batch(all));
  CHECK(scene.one.take_tags() == "2DC2DC2DC2DC2DCZ");
  scene.one.write(batch(use("a")));
  CHECK(scene.one.take_tags() == "2DCZ");
  CHECK(texts_of(scene.server()).size() == 2);
  scene.one.write(batch(use("e") + parse_message("", "FAIL") + use("") + all));
  CHECK(scene.one.take_tags() == "2DC12EZ");
  scene.one.write(batch(all));
  CHECK(scene.one.take_tags() == "2DC2DC2DC2DC2DCZ");
  CHECK(run(scene.one, "a") == "a");
  CHECK(texts_of(scene.server()) == Texts{"FAIL", "a", "e"});
}

// --- What the server forgets

TEST_CASE("commands that take statements away are told by their text") {
  for (const char* const text :
       {"DISCARD ALL", "discard  all;", " \n Deallocate ALL", "deallocate prepare all",
        "DISCARD ALL; select 1", "/* all of them */ DEALLOCATE -- really\n ALL"})
    CHECK(read_dropping(text) == Dropping::all);
  for (const char* const text : {"DEALLOCATE a", "deallocate prepare \"A\"", "DEALLOCATE"})
    CHECK(read_dropping(text) == Dropping::one);
  for (const char* const text :
       {"", "delete from t", "DISCARD PLANS", "discard", "select 'DISCARD ALL'", "discardall"})
    CHECK(read_dropping(text) == Dropping::none);
}

TEST_CASE("the name of a DEALLOCATE is read where it stands alone") {
  CHECK(read_deallocated_name(std::string_view("DEALLOCATE a\0", 13)) == "a");
  CHECK(read_deallocated_name("deallocate PREPARE My_Name;") == "my_name");
  CHECK(read_deallocated_name("DEALLOCATE \"My \"\"Name\"\"\"") == "My \"Name\"");
  CHECK(read_deallocated_name("/* x */ DEALLOCATE prepare") == "prepare");
  CHECK(read_deallocated_name("deallocate prepare \"all\" -- y") == "all");
  for (const char* const text :
       {"DEALLOCATE ALL", "DEALLOCATE PREPARE ALL", "DEALLOCATE a; select 1",
        "PREPARE a AS select 1", "DEALLOCATE", "DEALLOCATE \"a"})
    CHECK(read_deallocated_name(text).empty());
}

TEST_CASE("DISCARD ALL and DEALLOCATE ALL drop the client's statements, and only those") {
  for (const char* const command : {"DISCARD ALL", "DEALLOCATE ALL"}) {
    for (const bool is_extended : {false, true}) {
      Scene scene;
      scene.one.write(prepare("s", "x"));
      scene.two.write(prepare("s", "y"));
      CHECK(scene.one.take_tags() == "1Z");
      if (is_extended) {
        scene.one.write(batch(parse_message("", command) + use("")));
        CHECK(scene.one.take_tags() == "12CZ");
      } else {
        scene.one.query(command);
        CHECK(scene.one.take_tags() == "CZ");
      }
      CHECK(texts_of(scene.server()).empty());
      CHECK(run(scene.one, "s") == "26000");
      CHECK(scene.two.take_tags() == "1Z");
      CHECK(run(scene.two, "s") == "y");
    }
  }
}

TEST_CASE("what is pipelined behind a DISCARD ALL survives it") {
  const std::string query = query_message("DISCARD ALL");
  for (const std::string& discard :
       {query, query_message("DEALLOCATE ALL"), batch(parse_message("", "DISCARD ALL") + use("")),
        parse_message("", "DISCARD ALL") + use("")}) {
    CAPTURE(discard);
    for (const bool is_known : {false, true}) {
      Scene scene;
      if (is_known) scene.two.write(prepare("t", "x") + prepare("u", "y"));
      scene.one.write(prepare("s", "old") + prepare("gone", "y"));
      CHECK(scene.one.take_tags() == "1Z1Z");
      scene.one.write(discard + batch(parse_message("s", "x") + use("s")) + batch(use("s")) +
                      batch(use("gone")));
      const auto got = scene.one.take();
      const std::string tags = tags_of(got);
      CHECK(tags.substr(tags.find('C') + 1) ==
            (tags.find("Z") < tags.find("D") ? "Z12DCZ2DCZEZ" : "12DCZ2DCZEZ"));
      CHECK(row_of(got) == "x");
      CHECK(run(scene.one, "s") == "x");
      CHECK(run(scene.one, "gone") == "26000");
    }
  }
}

TEST_CASE("what is parsed in front of a DISCARD ALL in its batch is parsed again behind it") {
  Scene scene;
  scene.one.write(batch(parse_message("s", "x") + parse_message("", "DEALLOCATE ALL") + use("") +
                        parse_message("t", "x") + use("t")));
  CHECK(scene.one.take_tags() == "112C12DCZ");
  CHECK(run(scene.one, "t") == "x");
  CHECK(run(scene.one, "s") == "26000");
  scene.one.write(batch(close_message("t")));
  CHECK(scene.one.take_tags() == "3Z");
  CHECK(is_idle(scene.bench));
}

TEST_CASE("a discard that fails takes nothing") {
  Scene scene;
  scene.one.write(prepare("s", "x") + prepare("d", "DISCARD ALL"));
  CHECK(scene.one.take_tags() == "1Z1Z");
  scene.one.query("BEGIN");
  scene.one.query("FAIL");
  scene.one.write(query_message("DISCARD ALL") + batch(use("s")));
  CHECK(scene.one.take_tags() == "CZEZEZEZ");
  scene.one.query("ROLLBACK");
  CHECK(scene.one.take_tags() == "CZ");
  CHECK(run(scene.one, "s") == "x");
}

TEST_CASE("the pooler's own DISCARD ALL takes what the backend has") {
  Scene scene;
  scene.one.write(prepare("s", "x"));
  scene.two.write(prepare("p", std::string(2'000'000, 'x')));
  scene.two.close();
  CHECK(texts_of(scene.server()).empty());
  CHECK(scene.one.take_tags() == "1Z");
  CHECK(run(scene.one, "s") == "x");
}

TEST_CASE("the same text twice in a batch behind one that is not answered yet") {
  for (const bool fails : {false, true}) {
    CAPTURE(fails);
    Scene scene;
    const std::string twice =
        batch(parse_message("s", "x") + parse_message("t", "x") + use("t") + use("s"));
    if (fails) scene.one.query("BEGIN");
    (void)scene.one.take();
    scene.one.write(query_message(fails ? "FAIL" : "select 1") + twice);
    CHECK(scene.one.take_tags() == (fails ? "EZEZ" : "TDCZ112DC2DCZ"));
    if (fails) scene.one.query("ROLLBACK");
    (void)scene.one.take();
    CHECK(run(scene.one, "s") == (fails ? "26000" : "x"));
    CHECK(run(scene.one, "t") == (fails ? "26000" : "x"));
    CHECK(is_idle(scene.bench));
  }
}

TEST_CASE("DEALLOCATE by messages reaches statements of the protocol") {
  const std::string deallocate = parse_message("", "DEALLOCATE s") + use("");
  for (const std::string& text :
       {batch(deallocate), batch(parse_message("", "select 1") + use("") + deallocate)}) {
    Scene scene;
    scene.one.write(prepare("s", "x") + prepare("t", "x"));
    scene.two.write(prepare("s", "x"));
    (void)scene.one.take();
    SUBCASE("at once") {
      scene.one.write(text);
    }
    SUBCASE("in pieces") {
      for (const char c : text) scene.one.write(std::string(1, c));
    }
    SUBCASE("behind what is not answered yet") {
      scene.one.write(query_message("select 2") + text);
    }
    CHECK(scene.one.take_tags().ends_with("12CZ"));
    CHECK(run(scene.one, "s") == "26000");
    CHECK(run(scene.one, "t") == "x");
    CHECK(run(scene.two, "s") == "x");
    scene.one.write(text);
    CHECK(scene.one.take_tags().ends_with("EZ"));
    CHECK(is_idle(scene.bench));
  }
}

TEST_CASE("what may be a DEALLOCATE by messages and is none is the server's to read") {
  for (const std::string& body :
       {std::string(), std::string(1, '\0'), std::string("\0DEALLOCATE s", 13),
        std::string("\0DEALLOCATE\0", 12), std::string("\0DEALLOCATE u\0\0\0", 16)}) {
    Scene scene;
    scene.one.write(prepare("s", "x"));
    CHECK(scene.one.take_tags() == "1Z");
    (void)scene.new_tags();
    scene.server().is_silent = true;
    scene.one.write(frame('P', body) + sync_message());
    CHECK(scene.new_tags() == "PS");
    scene.server().write(error_reply("ERROR", "08P01", "not so") + ready());
    scene.bench.settle();
    CHECK(scene.one.take_tags() == "EZ");
    scene.server().is_silent = false;
    CHECK(run(scene.one, "s") == "x");
  }
}

TEST_CASE("DEALLOCATE in SQL reaches statements of the protocol") {
  Scene scene;
  scene.one.write(prepare("s", "x") + prepare("t", "y"));
  scene.one.query("DEALLOCATE s");
  CHECK(scene.one.take_tags() == "1Z1ZCZ");
  CHECK(run(scene.one, "s") == "26000");
  CHECK(run(scene.one, "t") == "y");
  scene.one.query("DEALLOCATE s");
  CHECK(scene.one.take_error() == "26000");
  SUBCASE("pipelined") {
    scene.one.write(query_message("DEALLOCATE t") + batch(parse_message("t", "z") + use("t")));
    CHECK(scene.one.take_tags() == "CZ12DCZ");
  }
  SUBCASE("in a failed transaction it does not") {
    scene.one.query("BEGIN");
    scene.one.query("FAIL");
    scene.one.query("DEALLOCATE t");
    scene.one.query("ROLLBACK");
    CHECK(scene.one.take_tags() == "CZEZEZCZ");
    CHECK(run(scene.one, "t") == "y");
  }
  CHECK(is_idle(scene.bench));
}

TEST_CASE("a statement that somebody dropped behind our back is put there again") {
  Scene scene;
  scene.one.write(prepare("s", "x"));
  CHECK(scene.one.take_tags() == "1Z");
  // As a function might do: no tag tells of it.
  scene.two.query("DEALLOCATE " + scene.server().statements().begin()->first);
  CHECK(run(scene.one, "s") == "26000");
  CHECK(run(scene.one, "s") == "x");
}

TEST_CASE("a statement that somebody made behind our back is replaced") {
  Scene scene;
  scene.one.write(prepare("s", "x"));
  CHECK(scene.one.take_tags() == "1Z");
  const std::string name = scene.server().statements().begin()->first;
  scene.two.query("DEALLOCATE ALL");
  scene.two.query("BEGIN");
  scene.two.query("PREPARE " + name + " AS something else");
  scene.two.write(prepare("t", "x"));
  CHECK(scene.two.take_tags() == "CZCZCZEZ");
  scene.two.query("ROLLBACK");
  scene.two.write(prepare("t", "x"));
  CHECK(scene.two.take_tags() == "CZ1Z");
  CHECK(run(scene.two, "t") == "x");
}

// --- Stale plans

struct StaleScene : Scene {
  explicit StaleScene(const BenchOptions& options = Scene::options(1, 200)) : Scene(options) {
    one.write(prepare("s", "select 1"));
    two.write(prepare("t", "select 1"));
    CHECK(one.take_tags() == "1Z");
    CHECK(two.take_tags() == "1Z");
    server().make_stale();
    (void)new_tags();
  }
};

TEST_CASE("a statement whose plan is out of date is prepared anew, and its batch sent again") {
  StaleScene scene;
  SUBCASE("bound") {
    CHECK(run(scene.one, "s") == "select 1");
    CHECK(scene.new_tags() == "BESCPBES");
  }
  SUBCASE("bound twice, a portal described, closed and flushed") {
    scene.one.write(bind_message("p", "s") + frame('D', std::string("Pp\0", 3)) +
                    frame('E', std::string("p\0\0\0\0\0", 6)) + frame('H', {}) +
                    frame('C', std::string("Pp\0", 3)) + batch(use("s")));
    CHECK(scene.one.take_tags() == "2nDC32DCZ");
  }
  SUBCASE("by a client that has just prepared it") {
    scene.one.write(batch(close_message("s") + parse_message("s", "select 1") + use("s")));
    CHECK(scene.one.take_tags() == "312DCZ");
  }
  SUBCASE("in pieces") {
    for (const char c : batch(use("s"))) scene.one.write(std::string(1, c));
    CHECK(scene.one.take_tags() == (scene.new_tags() == "BESCPBES" ? "2DCZ" : "EZ"));
  }
  SUBCASE("behind parameters that follow") {
    scene.two.query("SET application_name='two'");
    scene.one.query("SET application_name='one'");
    scene.server().make_stale();
    CHECK(run(scene.one, "s") == "select 1");
  }
  SUBCASE("behind names of no use that are closed first") {
    scene.two.query("EXECUTE t");
    scene.server().make_stale();
    (void)scene.new_tags();
    CHECK(run(scene.one, "s") == "select 1");
    CHECK(scene.new_tags() == "CBESCPBES");
  }
  CHECK(run(scene.two, "t") == "select 1");
  CHECK(run(scene.one, "s") == "select 1");
  CHECK(texts_of(scene.server()) == Texts{"select 1"});
  CHECK(is_idle(scene.bench));
}

TEST_CASE("what libpq sends for a prepared statement costs nothing more") {
  Scene scene;
  scene.one.write(prepare("s", "select 1"));
  scene.two.write(batch(parse_message("", "select 2") + use("")));
  (void)scene.new_tags();
  scene.one.write(
      batch(bind_message("", "s") + frame('D', std::string("P\0", 2)) + execute_message()));
  CHECK(scene.new_tags() == "BDES");
  // But who describes the unnamed statement finds nobody else's.
  scene.one.write(batch(frame('D', std::string("S\0", 2))));
  CHECK(scene.new_tags() == "CDS");
}

TEST_CASE("in statement mode a batch is sent again as well") {
  BenchOptions options = Scene::options(1, 200);
  options.limits.mode = LeaseMode::statement;
  StaleScene scene(options);
  CHECK(run(scene.one, "s") == "select 1");
}

TEST_CASE(
    "where a batch cannot be sent again the error is the client's, and its next use is good") {
  StaleScene scene;
  SUBCASE("in a transaction block") {
    scene.one.query("BEGIN");
    CHECK(run(scene.one, "s") == "0A000");
    scene.one.query("ROLLBACK");
  }
  SUBCASE("with more behind it") {
    scene.one.write(batch(use("s")) + batch(use("s")));
    CHECK(scene.one.take_tags() == "EZEZ");
  }
  SUBCASE("behind something else in its batch") {
    scene.one.write(batch(parse_message("", "select 2") + use("") + use("s")));
    CHECK(scene.one.take_tags() == "12DCEZ");
  }
  SUBCASE("with a Parse in it") {
    scene.one.write(batch(use("s") + parse_message("", "select 2")));
    CHECK(scene.one.take_tags() == "EZ");
  }
  SUBCASE("when its end has not come yet") {
    scene.one.write(use("s"));
    CHECK(scene.one.take_tags() == "E");
    scene.one.write(sync_message());
    CHECK(scene.one.take_tags() == "Z");
  }
  SUBCASE("larger than what is kept") {
    std::string large = bind_message("", "s");
    // One value of no length that is announced.
    large = frame('B', std::string("\0s\0\0\0\0\1", 7) + std::string("\0\0\x27\x10", 4) +
                           std::string(10'000, 'v') + std::string(2, '\0'));
    scene.one.write(batch(large + execute_message()));
    CHECK(scene.one.take_tags() == "EZ");
  }
  CHECK(run(scene.one, "s") == "select 1");
  CHECK(run(scene.two, "t") == "select 1");
}

TEST_CASE("a batch that has done something already is not sent again: that would be lost") {
  StaleScene scene;
  scene.one.write(parse_message("", "insert") + use("") + flush_message());
  CHECK(scene.one.take_tags() == "12DC");
  scene.one.write(batch(use("s")));
  CHECK(scene.one.take_error() == "0A000");
  CHECK(run(scene.one, "s") == "select 1");
}

TEST_CASE("an error that was kept from the client is said when its server is lost") {
  StaleScene scene;
  scene.server().is_silent = true;
  scene.one.write(batch(use("s")));
  scene.server().write(error_reply("ERROR", "0A000", "cached plan must not change result type"));
  scene.bench.settle();
  CHECK(scene.one.take_tags().empty());
  scene.server().reset();
  scene.bench.settle();
  CHECK(scene.one.take_tags() == "EZ");
}

TEST_CASE("a batch is sent again once only") {
  StaleScene scene;
  scene.server().stays_stale = true;
  CHECK(run(scene.one, "s") == "0A000");
  scene.server().stays_stale = false;
  CHECK(run(scene.one, "s") == "select 1");
}

TEST_CASE("what comes while a batch is about to be sent again comes behind it") {
  StaleScene scene;
  scene.server().is_silent = true;
  scene.one.write(batch(use("s")));
  scene.server().write(error_reply("ERROR", "0A000", "cached plan must not change result type"));
  scene.bench.settle();
  scene.one.write(sync_message() + query_message("select 2"));
  CHECK(scene.one.take_tags().empty());
  scene.server().log.clear();
  scene.server().write(ready('I'));
  scene.bench.settle();
  CHECK(scene.server().tags() == "CPBESSQ");
}

TEST_CASE("a client that leaves while its batch is about to be sent again leaves nothing") {
  StaleScene scene;
  scene.server().is_silent = true;
  scene.one.write(batch(use("s")));
  scene.server().write(error_reply("ERROR", "0A000", "cached plan must not change result type"));
  scene.bench.settle();
  scene.one.close();
  scene.server().is_silent = false;
  scene.server().write(ready('I'));
  scene.bench.settle();
  CHECK(run(scene.two, "t") == "select 1");
}

TEST_CASE("a Parse behind what fails its transaction is refused, though the backend has it") {
  Scene scene;
  scene.one.write(prepare("s", "x"));
  CHECK(scene.one.take_tags() == "1Z");
  scene.one.write(query_message("BEGIN") + query_message("FAIL") + prepare("t", "x") +
                  query_message("ROLLBACK") + batch(use("s")));
  CHECK(scene.one.take_tags() == "CZEZEZCZ2DCZ");
  CHECK(run(scene.one, "t") == "26000");
  scene.one.write(prepare("t", "x"));
  CHECK(scene.one.take_tags() == "1Z");
}

// --- What else a text depends on

TEST_CASE("a text is parsed apart for sessions that read literals in another way") {
  Scene scene;
  scene.one.query("SET TimeZone='UTC'");
  scene.one.write(prepare("s", "select 1"));
  scene.two.query("SET TimeZone='Europe/Rome'");
  scene.two.write(prepare("s", "select 1"));
  CHECK(texts_of(scene.server()) == Texts{"select 1", "select 1"});
  // Others share it, whatever else they have set.
  scene.one.query("SET TimeZone='Europe/Rome'");
  scene.one.query("SET application_name='one'");
  scene.one.write(prepare("t", "select 1"));
  CHECK(scene.counters().server_parses == 2);
  CHECK(run(scene.one, "t") == "select 1");
  CHECK(run(scene.two, "s") == "select 1");
  CHECK(scene.counters().server_parses == 2);
}

TEST_CASE(
    "a client that reads literals in another way than before has its statements parsed anew") {
  Scene scene;
  scene.one.write(prepare("s", "select 1"));
  scene.one.query("SET TimeZone='Europe/Rome'");
  CHECK(run(scene.one, "s") == "select 1");
  CHECK(texts_of(scene.server()) == Texts{"select 1", "select 1"});
  scene.two.write(prepare("s", "select 1"));
  CHECK(run(scene.two, "s") == "select 1");
  CHECK(scene.counters().server_parses == 2);
}

TEST_CASE("while it is open how literals are read, a statement is nobody else's") {
  Scene scene(following());
  scene.one.write(prepare("s", "select 1"));
  for (const std::string& change :
       {query_message("SET LOCAL xmloption='content'"),
        batch(parse_message("", "SET LOCAL array_nulls=off") + use(""))}) {
    CAPTURE(change);
    const uint64_t before = scene.counters().server_parses;
    scene.two.query("BEGIN");
    scene.two.write(change);
    scene.two.write(prepare("t", "select 1"));
    CHECK(run(scene.two, "t") == "select 1");
    CHECK(scene.counters().server_parses == before + 1);
    scene.two.write(change);
    CHECK(run(scene.two, "t") == "select 1");
    CHECK(scene.counters().server_parses == before + 2);
    scene.two.query("COMMIT");
    // What it has prepared is one of the others from now on.
    CHECK(run(scene.two, "t") == "select 1");
    CHECK(run(scene.one, "s") == "select 1");
    CHECK(scene.counters().server_parses == before + 2);
    scene.two.write(batch(close_message("t")));
  }
}

// --- Without a backend

TEST_CASE("a Parse that servers have accepted is answered while all backends are in use") {
  Scene scene;
  scene.one.write(prepare("s", "select 1"));
  scene.one.query("BEGIN");
  (void)scene.one.take();
  scene.two.write(prepare("t", "select 1"));
  CHECK(scene.two.take_tags() == "1Z");
  // Its errors are the server's, and so is what nobody has accepted.
  for (const std::string& other : {prepare("t", "select 1"), prepare("u", "select 2")}) {
    TestClient client(scene.bench, 0, "me");
    if (other == prepare("t", "select 1")) client.write(prepare("t", "select 1"));
    CHECK(client.take_tags() == (other == prepare("t", "select 1") ? "1Z" : ""));
    client.write(other);
    CHECK(client.take_tags().empty());
  }
  scene.two.write(batch(use("t")));
  CHECK(scene.two.take_tags().empty());
  scene.one.query("COMMIT");
  CHECK(scene.two.take_tags() == "2DCZ");
}

TEST_CASE("a Parse that is answered without a backend is one of its batch") {
  Scene scene;
  scene.one.write(prepare("s", "select 1"));
  scene.two.write(batch(parse_message("t", "select 1") + use("t") + parse_message("u", "BADPARSE") +
                        parse_message("v", "select 1")));
  CHECK(scene.two.take_tags() == "12DCEZ");
  CHECK(run(scene.two, "t") == "select 1");
  CHECK(run(scene.two, "v") == "26000");
  scene.two.write(prepare("u", "BADPARSE"));
  CHECK(scene.two.take_tags() == "EZ");
}

TEST_CASE("a statement that a server refuses is not taken for accepted any more") {
  Scene scene(2);
  scene.one.write(prepare("s", "select 1"));
  scene.server().make_stale();
  scene.one.query("BEGIN");
  CHECK(run(scene.one, "s") == "0A000");
  scene.one.query("ROLLBACK");
  for (TestClient* client : {&scene.one, &scene.two}) client->query("BEGIN");
  TestClient third(scene.bench, 0, "me");
  third.write(prepare("t", "select 1"));
  CHECK(third.take_tags().empty());
}

TEST_CASE("a Parse whose text changes the session is left to a server") {
  Scene scene;
  scene.one.write(prepare("s", "DO x"));
  CHECK(scene.one.take_tags() == "1Z");
  scene.one.query("BEGIN");
  scene.two.write(prepare("t", "DO x"));
  CHECK(scene.two.take_tags().empty());
}

TEST_CASE("in a failed transaction a statement stays what it was") {
  Scene scene(following());
  scene.one.write(prepare("s", "select 1"));
  scene.one.query("BEGIN");
  scene.one.query("SET LOCAL xmloption='content'");
  scene.one.query("FAIL");
  (void)scene.one.take();
  (void)scene.new_tags();
  scene.one.write(batch(use("s")));
  CHECK(scene.one.take_tags() == "EZ");
  CHECK(scene.new_tags() == "BES");
}

TEST_CASE("behind a change that the server reports statements are shared again") {
  Scene scene(following());
  scene.one.write(prepare("s", "select 1"));
  scene.two.query("BEGIN");
  for (const std::string& change :
       {query_message("SET LOCAL TimeZone='UTC'"), query_message("DO x"),
        batch(parse_message("", "CALL x") + use(""))}) {
    scene.two.write(change);
    scene.two.write(prepare("t", "select 1") + batch(use("t")) + batch(close_message("t")));
    CHECK(scene.counters().server_parses == 1);
    // But not in what is sent together with it.
    scene.two.write(change + prepare("t", "select 1") + batch(use("t")) +
                    batch(close_message("t")));
    CHECK(scene.counters().server_parses == 2);
    --scene.bench.slice().counters.server_parses;
  }
  (void)take_all(scene.bench, scene.two);
}

// --- Statements that do not follow

TEST_CASE("where nothing follows, a named statement keeps its backend until it is closed") {
  for (const std::string& release :
       {batch(close_message("s")), query_message("DEALLOCATE s"), query_message("DISCARD ALL"),
        query_message("DEALLOCATE ALL")}) {
    Scene scene(1, 0);
    scene.one.write(prepare("s", "x"));
    CHECK_FALSE(is_idle(scene.bench));
    CHECK(scene.one.take_tags() == "1Z");
    CHECK(run(scene.one, "s") == "x");
    CHECK(scene.server().statements().contains("s"));
    CHECK_FALSE(is_idle(scene.bench));
    scene.one.write(release);
    CHECK(is_idle(scene.bench));
  }
}

TEST_CASE("in session mode nothing is rewritten") {
  BenchOptions options = with_backends(1);
  options.limits.mode = LeaseMode::session;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.write(prepare("s", "x") + batch(use("s")) + batch(close_message("s")));
  CHECK(client.take_tags() == "1Z2DCZ3Z");
  CHECK(bench.server.only().tags() == "PSBESCS");
}

TEST_CASE("in statement mode statements follow as well") {
  BenchOptions options = with_backends(2);
  options.limits.mode = LeaseMode::statement;
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  TestClient two(bench, 0, "me");
  one.write(prepare("s", "x"));
  CHECK(one.take_tags() == "1Z");
  bench.server.only().is_silent = true;
  two.query("long");
  CHECK(run(one, "s") == "x");
  CHECK(bench.server.open_sessions()[1]->tags() == "PBES");
}

TEST_CASE("what is too large to be held pins, until it is closed") {
  Scene scene;
  scene.bench.reload(
      [](BenchDirectory& directory) { directory.limits.max_prepared_statement_size = 2000; });
  const std::string text(3000, 't');
  scene.one.write(prepare("small", "x"));
  scene.one.write(prepare("big", text));
  CHECK(scene.one.take_tags() == "1Z1Z");
  CHECK_FALSE(is_idle(scene.bench));
  CHECK(run(scene.one, "big") == text);
  CHECK(run(scene.one, "small") == "x");
  scene.one.write(prepare("big", "x"));
  CHECK(scene.one.take_error() == "42P05");
  scene.one.write(batch(close_message("small")));
  CHECK(scene.one.take_tags() == "3Z");
  CHECK_FALSE(is_idle(scene.bench));
  SUBCASE("by Close") {
    scene.one.write(batch(close_message("big")));
    CHECK(scene.one.take_tags() == "3Z");
  }
  SUBCASE("by DEALLOCATE") {
    scene.one.query("DEALLOCATE big");
    CHECK(scene.one.take_tags() == "CZ");
  }
  CHECK(is_idle(scene.bench));
  CHECK(run(scene.one, "big") == "26000");
  // In one batch too.
  scene.one.write(batch(parse_message("big", text) + use("big") + close_message("big")));
  CHECK(scene.one.take_tags() == "12DC3Z");
  CHECK(is_idle(scene.bench));
}

TEST_CASE("beyond its memory a client's statements pin") {
  Scene scene;
  const size_t size = ClientStatements::size_of("a", std::string_view("x").size() + 3);
  scene.bench.reload(
      [&](BenchDirectory& directory) { directory.limits.max_client_statements_size = 2 * size; });
  for (const char* const name : {"a", "b"}) scene.one.write(prepare(name, "x"));
  CHECK(is_idle(scene.bench));
  scene.one.write(prepare("c", "x"));
  CHECK(scene.one.take_tags() == "1Z1Z1Z");
  CHECK_FALSE(is_idle(scene.bench));
  for (const char* const name : {"a", "b", "c"}) CHECK(run(scene.one, name) == "x");
  scene.one.write(batch(close_message("c") + close_message("a")));
  CHECK(is_idle(scene.bench));
  scene.one.write(prepare("c", "x"));
  CHECK(scene.one.take_tags() == "33Z1Z");
  CHECK(is_idle(scene.bench));
}

TEST_CASE("beyond a core's memory statements that it does not know pin") {
  Scene scene;
  scene.bench.shared.statements_size_max = Statement::size_of(4);
  scene.one.write(prepare("a", "x"));
  CHECK(is_idle(scene.bench));
  scene.one.write(prepare("b", "x"));
  CHECK(is_idle(scene.bench));
  scene.two.write(prepare("c", "y"));
  CHECK_FALSE(is_idle(scene.bench));
  scene.two.close();
  CHECK(run(scene.one, "b").ends_with("x"));
}

// --- Life

TEST_CASE("nothing is held for clients that have gone") {
  SessionBench bench(with_backends(1));
  {
    TestClient client(bench, 0, "me");
    client.write(prepare("s", "x"));
    CHECK(bench.pools().statements().count() == 1);
    client.close();
  }
  CHECK(bench.pools().statements().count() == 0);
  // The backend still has it, for whoever comes.
  TestClient other(bench, 0, "me");
  other.write(prepare("t", "x"));
  CHECK(bench.server.only().tags() == "PSS");
}

TEST_CASE("a client that goes in the middle leaves the books right") {
  const std::string messages = parse_message("a", "x") + use("a") + close_message("a") +
                               parse_message("a", "FAIL") + use("a") + parse_message("b", "y");
  for (size_t cut = 0; cut <= messages.size(); ++cut) {
    Scene scene;
    scene.one.write(messages.substr(0, cut));
    scene.one.close();
    scene.two.write(prepare("s", "x") + prepare("t", "y") + batch(use("s") + use("t")));
    REQUIRE(scene.two.take_tags() == "1Z1Z2DC2DCZ");
  }
}

TEST_CASE("statements go with a backend to another core") {
  BenchOptions options = with_backends(1, 2);
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  TestClient two(bench, 1, "me");
  one.write(prepare("s", "x"));
  CHECK(one.take_tags() == "1Z");
  two.write(prepare("t", "x") + batch(use("t")));
  CHECK(two.take_tags() == "1Z2DCZ");
  CHECK(bench.server.sessions().size() == 1);
  CHECK(bench.server.only().tags() == "PSSBES");
  CHECK(run(one, "s") == "x");
}

TEST_CASE("a client keeps its statements when its pool is changed") {
  Scene scene;
  scene.one.write(prepare("s", "x"));
  CHECK(scene.one.take_tags() == "1Z");
  SUBCASE("in its size") {
    scene.bench.reload([](BenchDirectory& directory) { directory.limits.max_connections = 3; });
  }
  SUBCASE("to one where nothing follows") {
    scene.bench.reload(
        [](BenchDirectory& directory) { directory.limits.max_prepared_statements = 0; });
  }
  SUBCASE("to session mode") {
    scene.bench.reload(
        [](BenchDirectory& directory) { directory.limits.mode = LeaseMode::session; });
  }
  CHECK(run(scene.one, "s") == "x");
  scene.one.write(prepare("t", "y"));
  CHECK(scene.one.take_tags() == "1Z");
  CHECK(run(scene.one, "t") == "y");
  CHECK(run(scene.one, "s") == "x");
}

TEST_CASE("a client that waits keeps what it has sent") {
  Scene scene;
  scene.one.query("BEGIN");
  const std::string text(30000, 't');
  scene.two.write(batch(parse_message("s", text) + use("s")));
  CHECK(scene.two.take_tags().empty());
  scene.one.query("COMMIT");
  const auto got = take_all(scene.bench, scene.two);
  CHECK(tags_of(got) == "12DCZ");
  CHECK(row_of(got) == text);
}

TEST_CASE("the settings of a client come before its statements") {
  SessionBench bench(with_backends(1));
  TestClient one(bench, 0, "me", {{"application_name", "one"}});
  TestClient two(bench, 0, "me", {{"application_name", "two"}});
  const std::string text = "WHO " + std::string(5000, 't');
  one.write(prepare("s", text));
  two.write(prepare("s", text));
  for (int i = 0; i < 2; ++i) {
    CHECK(run(one, "s") == text + " is one");
    CHECK(run(two, "s") == text + " is two");
  }
}

}  // namespace
}  // namespace helios
