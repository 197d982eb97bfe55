// What PREPARE in SQL makes follows its client, under the client's own names.
#include <doctest/doctest.h>

#include "helios/session/statement_names.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

using Texts = std::vector<std::string>;

bool is_idle(SessionBench& bench) {
  return bench.slice().idle_count() == 1;
}

// What a query says: its row, or the SQLSTATE; else the tags.
std::string ask(TestClient& client, std::string_view text) {
  (void)client.take();
  client.query(text);
  const auto got = client.take();
  for (const WireMessage& message : got) {
    if (message.tag == 'E') return field_of(message, 'C');
    if (message.tag == 'D') return message.body.substr(6);
  }
  return tags_of(got);
}

BenchOptions following(uint32_t backends_count = 1) {
  BenchOptions options = with_backends(backends_count);
  options.limits.session_state = StatePolicy::follow;
  options.limits.max_prepared_statements = 200;
  return options;
}

struct Scene {
  explicit Scene(const BenchOptions& options = following()) : bench(options) {}
  ServerSession& server() { return bench.server.only(); }
  // Since the last call: what clients and pooler sent, but for questions about the session.
  Texts news() {
    Texts texts;
    for (const std::string& text : server().queries())
      if (!text.starts_with("SELECT 's'") && !text.starts_with("SELECT 'p'")) texts.push_back(text);
    server().log.clear();
    return texts;
  }
  SessionBench bench;
  TestClient one{bench, 0, "me"};
  TestClient two{bench, 0, "me"};
};

TEST_CASE("a text is one PREPARE, or it is not") {
  for (const char* const text :
       {"PREPARE a AS select 1", "prepare \"A\" (int, text) as select $1, ';', $$;$$ ; -- x",
        "/* x */ PREPARE a AS insert into t values ('\\'';')"})
    CHECK(is_single_prepare(text, true));
  for (const char* const text : {"PREPARE a AS select 1; select 2", "select 1", "",
                                 "select 0; PREPARE a AS select 1", "PREPARE a AS select 'x"})
    CHECK_FALSE(is_single_prepare(text, true));
  // Where a backslash escapes, the literal goes on.
  CHECK(is_single_prepare("PREPARE a AS select '\\'; select 2, '", false));
  CHECK_FALSE(is_single_prepare("PREPARE a AS select '\\'; select 2, '", true));
}

TEST_CASE("what PREPARE has made keeps no backend, and is there when it is needed") {
  Scene scene;
  scene.one.query("PREPARE s AS select x");
  CHECK(scene.one.take_tags() == "CZ");
  CHECK(is_idle(scene.bench));
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  // Where another client was meanwhile it is prepared again.
  CHECK(ask(scene.two, "select 1") == "select 1");
  CHECK(scene.news() ==
        Texts{"PREPARE s AS select x", "EXECUTE s", "DEALLOCATE \"s\"", "select 1"});
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  CHECK(scene.news() == Texts{"PREPARE s AS select x", "EXECUTE s", "EXECUTE s"});
  CHECK(is_idle(scene.bench));
}

TEST_CASE("nobody finds what another client has prepared") {
  Scene scene;
  scene.one.query("PREPARE s AS select x");
  CHECK(ask(scene.two, "EXECUTE s") == "26000");
  CHECK(ask(scene.two, "PREPARE s AS select y") == "CZ");
  CHECK(ask(scene.two, "EXECUTE s") == "select y");
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  scene.one.close();
  CHECK(ask(scene.two, "EXECUTE s") == "select y");
}

TEST_CASE("clients that have prepared the same cost each other nothing") {
  Scene scene;
  for (TestClient* client : {&scene.one, &scene.two})
    for (const char* const text : {"PREPARE a AS select x", "PREPARE b AS select y"})
      client->query(text);
  (void)scene.news();
  for (int i = 0; i < 3; ++i)
    for (TestClient* client : {&scene.one, &scene.two})
      CHECK(ask(*client, "EXECUTE b") == "select y");
  CHECK(scene.news() == Texts(6, "EXECUTE b"));
  // But for those who read literals in another way.
  scene.two.query("SET TimeZone='Europe/Rome'");
  CHECK(ask(scene.one, "EXECUTE b") == "select y");
  (void)scene.news();
  CHECK(ask(scene.two, "EXECUTE b") == "select y");
  CHECK(scene.news() == Texts{"DEALLOCATE \"a\"", "DEALLOCATE \"b\"", "PREPARE a AS select x",
                              "PREPARE b AS select y", "EXECUTE b"});
}

TEST_CASE("what is deallocated is gone, wherever that was done") {
  for (const std::string& end :
       {query_message("DEALLOCATE s"), query_message("DEALLOCATE ALL"),
        query_message("DISCARD ALL"), close_message("s") + sync_message(),
        query_message("BEGIN") + query_message("DEALLOCATE s") + query_message("ROLLBACK"),
        query_message("BEGIN") + close_message("s") + sync_message() + query_message("COMMIT")}) {
    CAPTURE(end);
    Scene scene;
    scene.one.query("PREPARE s AS select x");
    CHECK(ask(scene.two, "select 1") == "select 1");
    scene.one.write(end);
    CHECK(is_idle(scene.bench));
    CHECK(ask(scene.one, "EXECUTE s") == "26000");
    CHECK(ask(scene.two, "select 1") == "select 1");
    CHECK(ask(scene.one, "EXECUTE s") == "26000");
    CHECK(ask(scene.one, "PREPARE s AS select x") == "CZ");
  }
}

TEST_CASE("messages of the protocol find what PREPARE has made") {
  Scene scene;
  scene.one.query("PREPARE s AS select x");
  CHECK(ask(scene.two, "select 1") == "select 1");
  (void)scene.one.take();
  scene.one.write(bind_message("", "s") + execute_message() + sync_message());
  CHECK(scene.one.take_tags() == "2DCZ");
  scene.one.write(parse_message("s", "y") + sync_message());
  CHECK(scene.one.take_error() == "42P05");
  CHECK(is_idle(scene.bench));
}

TEST_CASE("commands in SQL find what Parse has made") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message());
  CHECK(scene.one.take_tags() == "1Z");
  // EXECUTE runs it, as often as it likes and on any backend; the copy is nobody else's.
  for (int i = 0; i < 3; ++i) {
    CHECK(ask(scene.one, "EXECUTE s") == "select x");
    CHECK(is_idle(scene.bench));
  }
  CHECK(ask(scene.two, "EXECUTE s") == "26000");
  CHECK(ask(scene.one, "/* longer than is looked at */ EXECUTE \"s\"" + std::string(300, ' ')) !=
        "select x");  // The scripted server knows no comments, but the statement goes ahead.
  CHECK(scene.server().statements().contains("s"));
  // PREPARE finds the name taken.
  CHECK(ask(scene.one, "PREPARE s AS select z") == "42P05");
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  // Another client's is its own.
  scene.two.write(parse_message("s", "select y") + sync_message());
  CHECK(scene.two.take_tags() == "1Z");
  CHECK(ask(scene.two, "EXECUTE s") == "select y");
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  CHECK(ask(scene.one, "DEALLOCATE s") == "CZ");
  CHECK(ask(scene.one, "EXECUTE s") == "26000");
  CHECK(ask(scene.one, "PREPARE s AS select z") == "CZ");
  CHECK(ask(scene.one, "EXECUTE s") == "select z");
  CHECK(ask(scene.two, "EXECUTE s") == "select y");
  CHECK(is_idle(scene.bench));
}

// A statement in one batch, without Sync.
std::string run_unnamed(std::string_view text) {
  return parse_message("", text) + bind_message("", "") + execute_message();
}

TEST_CASE("EXECUTE by messages, and not in the first place, finds what Parse has made") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message());
  CHECK(scene.one.take_tags() == "1Z");
  scene.one.write(run_unnamed("EXECUTE s") + sync_message());
  CHECK(scene.one.take_tags() == "12DCZ");
  // In the middle of a batch.
  scene.one.write(run_unnamed("select 1") + run_unnamed("EXECUTE s") + sync_message());
  CHECK(scene.one.take_tags() == "12DC12DCZ");
  // Parsed in one batch, bound in others.
  scene.one.write(parse_message("", "EXECUTE s") + sync_message());
  for (int i = 0; i < 2; ++i) {
    CHECK(ask(scene.two, "select 3") == "select 3");
    scene.one.write(bind_message("", "") + execute_message() + sync_message());
  }
  CHECK(scene.one.take_tags() == "1Z2DCZ2DCZ");
  CHECK(is_idle(scene.bench));
  CHECK(ask(scene.two, "EXECUTE s") == "26000");
}

TEST_CASE("a statement with a name that executes others keeps its backend until it is closed") {
  Scene scene(following(2));
  scene.one.write(parse_message("s", "select x") + sync_message());
  scene.one.write(parse_message("e", "EXECUTE s") + sync_message());
  CHECK(scene.one.take_tags() == "1Z1Z");
  CHECK(scene.bench.slice().idle_count() == 0);
  for (int i = 0; i < 2; ++i) {
    scene.one.write(bind_message("", "e") + execute_message() + sync_message());
    CHECK(scene.one.take_tags() == "2DCZ");
  }
  // Another client's are its own.
  scene.two.write(parse_message("e", "EXECUTE s") + bind_message("", "e") + execute_message() +
                  sync_message());
  CHECK(scene.two.take_tags() == "12EZ");
  for (TestClient* client : {&scene.one, &scene.two}) {
    client->write(close_message("e") + sync_message());
    CHECK(client->take_tags() == "3Z");
  }
  CHECK(scene.bench.slice().idle_count() == 2);
}

TEST_CASE("a text names statements wherever EXECUTE stands, others where a statement begins") {
  using Kind = NamedCommand::Kind;
  const auto read = [](std::string_view text) {
    std::string found;
    for (const NamedCommand& command : read_named_commands(text)) {
      const char* const kinds = "depa";
      found += kinds[static_cast<int>(command.kind)];
      found += ':' + command.name + ' ';
    }
    CHECK(may_have_commands(text) >= !found.empty());
    return found;
  };
  static_assert(static_cast<int>(Kind::deallocate_all) == 3);
  CHECK(read("EXECUTE a") == "e:a ");
  CHECK(read("explain (costs off) eXecute \"A b\" (1)") == "e:A b ");
  CHECK(read("create table t as execute b; /* x */ Deallocate prepare C;deallocate prepare") ==
        "e:b d:c d:prepare ");
  CHECK(read("begin; prepare p as select 1; execute p; deallocate all") == "p:p e:p a: ");
  CHECK(read("Deallocate all; prepare a as select 1") == "a: p:a ");
  CHECK(read("deallocate prepare all") == "a: ");
  CHECK(read("deallocate prepare \"all\"") == "d:all ");
  for (const char* const text : {"", ";", "select 1;", "select 'EXECUTE a'", "-- execute a",
                                 "select deallocate, prepare", "select $$; deallocate a $$ ; "})
    CHECK(read(text).empty());
  for (const char* const text : {"", "select 1; \n", "select x, xxx from executors", ";"})
    CHECK_FALSE(may_have_commands(text));
}

TEST_CASE("several commands in one text, each with its own statement") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + parse_message("t", "select y") + sync_message());
  CHECK(scene.one.take_tags() == "11Z");
  CHECK(ask(scene.one, "DEALLOCATE s;DEALLOCATE t") == "CCZ");
  CHECK(ask(scene.one, "EXECUTE s") == "26000");
  CHECK(ask(scene.one, "EXECUTE t") == "26000");
  scene.one.write(parse_message("s", "select x") + sync_message());
  CHECK(scene.one.take_tags().ends_with("1Z"));
}

TEST_CASE("DEALLOCATE by messages counts for what comes behind it") {
  const auto run_named = [] { return bind_message("", "s") + execute_message(); };
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message());
  (void)scene.one.take();
  SUBCASE("in the same batch") {
    scene.one.write(run_unnamed("DEALLOCATE s") + parse_message("s", "select y") + run_named() +
                    sync_message());
    CHECK(scene.one.take_tags() == "12C12DCZ");
  }
  SUBCASE("in the same batch, where nothing follows it") {
    scene.one.write(run_unnamed("DEALLOCATE s") + run_named() + sync_message());
    CHECK(scene.one.take_tags() == "12CEZ");
    scene.one.write(parse_message("s", "select y") + sync_message());
    CHECK(scene.one.take_tags() == "1Z");
  }
  SUBCASE("in batches that are sent at once") {
    scene.one.write(query_message("select 2") + run_unnamed("DEALLOCATE s") + sync_message() +
                    parse_message("s", "select y") + run_named() + sync_message());
    CHECK(scene.one.take_tags() == "TDCZ12CZ12DCZ");
  }
  SUBCASE("from a statement with a name") {
    scene.one.write(parse_message("d", "DEALLOCATE s") + sync_message());
    scene.one.write(bind_message("", "d") + execute_message() + parse_message("s", "select y") +
                    sync_message());
    CHECK(scene.one.take_tags() == "1Z2C1Z");
  }
  SUBCASE("bound while it is open what the name means") {
    scene.one.write(parse_message("", "DEALLOCATE s") + sync_message() + close_message("s") +
                    sync_message() + parse_message("s", "select y") + sync_message() +
                    bind_message("", "") + execute_message() + sync_message() + run_named() +
                    sync_message());
    CHECK(scene.one.take_tags() == "1Z3Z1Z2CZEZ");
  }
  SUBCASE("from a statement with a name, twice") {
    scene.one.write(parse_message("d", "DEALLOCATE s") + bind_message("", "d") + execute_message() +
                    parse_message("s", "select y") + sync_message() + bind_message("", "d") +
                    execute_message() + run_named() + sync_message());
    CHECK(scene.one.take_tags() == "12C1Z2CEZ");
  }
  SUBCASE("not where it is only bound") {
    scene.one.write(parse_message("", "DEALLOCATE s") + bind_message("", "") + run_named() +
                    sync_message());
    CHECK(scene.one.take_tags() == "122DCZ");
  }
  SUBCASE("not where it is skipped") {
    scene.one.write(parse_message("", "DEALLOCATE s") + bind_message("", "nothing") +
                    execute_message() + sync_message());
    CHECK(scene.one.take_tags() == "1EZ");
    scene.one.write(run_named() + sync_message());
    CHECK(scene.one.take_tags() == "2DCZ");
  }
  CHECK(is_idle(scene.bench));
}

TEST_CASE("an Execute of another portal deallocates nothing") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message());
  (void)scene.one.take();
  const auto portal = [](std::string_view name) { return bind_message(name, ""); };
  for (const std::string& batch :
       {parse_message("", "DEALLOCATE s") + portal("") + parse_message("", "select 1") +
            portal("") + execute_message(),
        parse_message("", "select 1") + portal("p") + parse_message("", "DEALLOCATE s") +
            portal("q") + frame('E', std::string("p\0\0\0\0\0", 6))}) {
    scene.one.write(batch + sync_message());
    (void)scene.one.take();
    scene.one.write(bind_message("", "s") + execute_message() + sync_message());
    CHECK(scene.one.take_tags() == "2DCZ");
  }
}

TEST_CASE("a stand-in comes behind what was sent before it") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message() + parse_message("", "EXECUTE s") +
                  sync_message());
  CHECK(scene.one.take_tags() == "1Z1Z");
  const std::string use = bind_message("", "") + execute_message() + sync_message();
  scene.one.query("BEGIN");
  scene.one.write(parse_message("", "EXECUTE s") + sync_message());
  CHECK(scene.one.take_tags() == "CZ1Z");
  scene.one.write(use + use + use);
  CHECK(scene.one.take_tags() == "2DCZ2DCZ2DCZ");
}

TEST_CASE("what PREPARE makes behind DEALLOCATE ALL in one text is the client's own") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message());
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  CHECK(ask(scene.one, "DEALLOCATE ALL;PREPARE s AS select y") == "CCZ");
  CHECK(ask(scene.one, "EXECUTE s") == "select y");
  scene.one.write(parse_message("t", "select z") + sync_message());
  CHECK(ask(scene.one, "EXECUTE s") == "select y");
}

TEST_CASE("a stand-in that a failed batch leaves is closed all the same") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message());
  scene.one.write(parse_message("", "EXECUTE s") + bind_message("", "nothing") +
                  close_message("s") + parse_message("", "PREPARE s AS select y") + sync_message());
  (void)scene.one.take();
  CHECK(ask(scene.two, "PREPARE s AS select z") == "CZ");
  CHECK(ask(scene.two, "EXECUTE s") == "select z");
}

TEST_CASE("a name that has just been parsed is deallocated in the same bytes") {
  // The lease begins with a statement of the pooler's own, and the server has the text already.
  Scene scene;
  scene.one.query("SET work_mem='64'");
  scene.one.write(parse_message("d", "DEALLOCATE s") + parse_message("s", "SET x='1'") +
                  sync_message() + close_message("s") + sync_message());
  scene.two.query("SET work_mem='32'");
  (void)scene.one.take();
  scene.one.write(parse_message("s", "SET x='1'") + bind_message("", "d") + execute_message() +
                  sync_message());
  CHECK(scene.one.take_tags() == "12CZ");
  CHECK(ask(scene.one, "EXECUTE s") == "26000");
}

TEST_CASE("names of statements that deallocate take no memory for ever") {
  Scene scene;
  for (int i = 0; i < 1000; ++i) {
    const std::string name = "d" + std::to_string(i);
    scene.one.write(parse_message(name, "DEALLOCATE s") + sync_message() + close_message(name) +
                    sync_message());
    CHECK(scene.one.take_tags() == "1Z3Z");
  }
  for (int i = 0; i < 1000; ++i)
    scene.one.write(parse_message("e" + std::to_string(i), "DEALLOCATE s") + sync_message());
  CHECK(scene.one.take_tags().size() == 2000);
}

TEST_CASE("a Parse in the transaction of a PREPARE finds the name taken") {
  Scene scene;
  CHECK(ask(scene.one, "BEGIN") == "CZ");
  CHECK(ask(scene.one, "PREPARE s AS select x") == "CZ");
  scene.one.write(parse_message("t", "select y") + sync_message());
  CHECK(scene.one.take_tags().ends_with("1Z"));
  scene.one.write(parse_message("s", "select y") + sync_message());
  CHECK(scene.one.take_error() == "42P05");
  CHECK(ask(scene.one, "ROLLBACK") == "CZ");
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  scene.one.write(bind_message("", "t") + execute_message() + sync_message());
  CHECK(scene.one.take_tags().ends_with("2DCZ"));
  CHECK(is_idle(scene.bench));
}

TEST_CASE("copies of what Parse has made are not taken for what PREPARE makes") {
  const auto check_own = [](Scene& scene) {
    for (int i = 0; i < 2; ++i) {
      CHECK(ask(scene.one, "EXECUTE s") == "select z");
      CHECK(ask(scene.two, "select 1") == "select 1");
      CHECK(ask(scene.one, "select 2") == "select 2");
    }
  };
  SUBCASE("behind DEALLOCATE") {
    Scene scene;
    scene.one.write(parse_message("s", "select x") + sync_message());
    for (const char* const text : {"BEGIN", "DEALLOCATE s", "PREPARE s AS select z", "COMMIT"})
      CHECK(ask(scene.one, text) == "CZ");
    check_own(scene);
  }
  SUBCASE("behind DEALLOCATE ALL") {
    Scene scene;
    scene.one.write(parse_message("s", "select x") + sync_message());
    CHECK(ask(scene.one, "BEGIN") == "CZ");
    CHECK(ask(scene.one, "EXECUTE s") == "select x");
    for (const char* const text : {"DEALLOCATE ALL", "PREPARE s AS select z", "COMMIT"})
      CHECK(ask(scene.one, text) == "CZ");
    check_own(scene);
  }
  SUBCASE("behind Close") {
    Scene scene;
    scene.one.write(parse_message("s", "select x") + sync_message());
    CHECK(ask(scene.one, "BEGIN") == "CZ");
    CHECK(ask(scene.one, "EXECUTE s") == "select x");
    scene.one.write(close_message("s") + sync_message());
    SUBCASE("") {
      CHECK(ask(scene.one, "EXECUTE s") == "26000");
    }
    SUBCASE("") {
      CHECK(ask(scene.one, "PREPARE s AS select z") == "CZ");
      CHECK(ask(scene.one, "COMMIT") == "CZ");
      check_own(scene);
    }
  }
}

TEST_CASE("a statement that is there unseen keeps no command from its end") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message());
  CHECK(scene.one.take_tags() == "1Z");
  // As a function of another client might do.
  scene.two.query("PREPARE s AS select y");
  scene.two.query("BEGIN");
  CHECK(ask(scene.two, "PREPARE t AS select y") == "CZ");
  (void)scene.two.take();
  scene.two.write(parse_message("t", "select z") + sync_message());
  CHECK(scene.two.take_error() == "42P05");
  scene.two.query("ROLLBACK");
  CHECK(ask(scene.two, "DEALLOCATE t") == "CZ");
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  CHECK(ask(scene.one, "DEALLOCATE s") == "CZ");
  CHECK(ask(scene.one, "EXECUTE s") == "26000");
}

TEST_CASE("names are deallocated in the encoding in which they were made") {
  Scene scene;
  scene.one.query("SET client_encoding='LATIN1'");
  scene.one.query("PREPARE s AS select x");
  (void)scene.server().log.size();
  (void)scene.news();
  std::vector<WireMessage>& log = scene.server().log;
  CHECK(ask(scene.two, "select 1") == "select 1");
  std::string order;
  for (const WireMessage& message : log) {
    if (message.body.starts_with("DEALLOCATE")) order += 'D';
    if (message.body.starts_with("SET client_encoding")) order += 'S';
  }
  CHECK(order == "DS");
}

TEST_CASE("EXECUTE of what Parse has made in a transaction, pipelined, and in a failed one") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message());
  CHECK(scene.one.take_tags() == "1Z");
  scene.one.write(query_message("BEGIN") + query_message("EXECUTE s") + query_message("EXECUTE s") +
                  query_message("COMMIT"));
  CHECK(scene.one.take_tags() == "CZTDCZTDCZCZ");
  scene.one.query("BEGIN");
  scene.one.query("FAIL");
  CHECK(ask(scene.one, "EXECUTE s") == "25P02");
  scene.one.query("ROLLBACK");
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  CHECK(is_idle(scene.bench));
}

TEST_CASE("EXECUTE of a statement that the server does not take any more finds none") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message());
  CHECK(scene.one.take_tags() == "1Z");
  scene.server().refuses_parse = true;
  CHECK(ask(scene.one, "EXECUTE s") == "26000");
  scene.server().refuses_parse = false;
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
  CHECK(is_idle(scene.bench));
}

TEST_CASE("PREPARE finds no name that the pooler has left") {
  Scene scene;
  scene.one.write(parse_message("s", "select x") + sync_message());
  scene.one.write(parse_message("s", "select y") + sync_message());
  CHECK(scene.one.take_tags() == "1ZEZ");
  REQUIRE(scene.server().statements().contains("s"));
  CHECK(ask(scene.two, "PREPARE s AS select z") == "CZ");
  CHECK(ask(scene.two, "EXECUTE s") == "select z");
}

TEST_CASE("what was prepared in a transaction follows, in one that is rolled back even") {
  Scene scene;
  scene.one.query("BEGIN");
  scene.one.query("PREPARE s AS select x");
  scene.one.query("ROLLBACK");
  CHECK(ask(scene.two, "select 1") == "select 1");
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
}

TEST_CASE("what the server does not prepare again is not there, and nothing else is lost") {
  Scene scene;
  scene.one.query("PREPARE s AS select x");
  scene.one.query("PREPARE t AS select y");
  CHECK(ask(scene.two, "select 1") == "select 1");
  scene.server().refuses_prepare = true;
  CHECK(ask(scene.one, "EXECUTE s") == "26000");
  scene.server().refuses_prepare = false;
  CHECK_FALSE(scene.one.is_closed());
  CHECK(ask(scene.two, "select 1") == "select 1");
  CHECK(ask(scene.one, "EXECUTE t") == "select y");
  CHECK(ask(scene.one, "EXECUTE s") == "select x");
}

TEST_CASE("what cannot be prepared again keeps its backend until it is deallocated") {
  BenchOptions options = following();
  std::string text = "PREPARE s AS select x";
  SUBCASE("with another statement in its text") {
    text += "; select y";
  }
  SUBCASE("where statements do not follow") {
    options.limits.max_prepared_statements = 0;
  }
  SUBCASE("where the pool says so") {
    options.limits.session_state = StatePolicy::pin;
  }
  SUBCASE("beyond the memory of a client") {
    options.limits.max_client_statements_size = 4;
  }
  Scene scene(options);
  scene.one.query(text);
  CHECK_FALSE(is_idle(scene.bench));
  CHECK(ask(scene.one, "EXECUTE s") == text.substr(text.find("select")));
  scene.one.query("DEALLOCATE s");
  CHECK(is_idle(scene.bench));
  scene.one.query(text);
  CHECK_FALSE(is_idle(scene.bench));
  scene.one.close();
  CHECK(is_idle(scene.bench));
  CHECK(ask(scene.two, "EXECUTE s") == "26000");
}

TEST_CASE("what PREPARE has made follows where the rest is only warned of") {
  BenchOptions options = following();
  options.limits.session_state = StatePolicy::warn;
  Scene scene(options);
  for (int i = 0; i < 2; ++i) {
    scene.one.query("SET work_mem='1MB'");
    scene.one.query("PREPARE s AS x");
    CHECK(ask(scene.two, "EXECUTE s") == "26000");
    CHECK(ask(scene.one, "EXECUTE s") == "x");
    scene.one.query("DEALLOCATE s");
  }
  CHECK(scene.server().state.settings.contains("work_mem"));
  CHECK(is_idle(scene.bench));
}

TEST_CASE("what ends while the server is asked about it has ended") {
  Scene scene;
  scene.one.write(query_message("PREPARE s AS select x") + query_message("DEALLOCATE s"));
  CHECK(scene.one.take_tags() == "CZCZ");
  CHECK(is_idle(scene.bench));
  CHECK(ask(scene.two, "EXECUTE s") == "26000");
  CHECK_FALSE(scene.two.is_closed());
  scene.one.write(query_message("LISTEN x") + query_message("UNLISTEN x"));
  CHECK(is_idle(scene.bench));
}

TEST_CASE("a client that goes before the server was asked leaves nothing") {
  Scene scene;
  scene.one.query("BEGIN");
  scene.one.query("PREPARE s AS select x");
  scene.one.close();
  CHECK(ask(scene.two, "EXECUTE s") == "26000");
}

TEST_CASE("what PREPARE has made goes with its backend to another core") {
  BenchOptions options = following();
  options.cores_count = 2;
  SessionBench bench(options);
  TestClient here(bench, 0, "me");
  TestClient there(bench, 1, "me");
  here.query("PREPARE s AS select x");
  CHECK(ask(there, "EXECUTE s") == "26000");
  CHECK(ask(there, "PREPARE s AS select x") == "CZ");
  bench.server.only().log.clear();
  CHECK(ask(here, "EXECUTE s") == "select x");
  CHECK(bench.server.only().queries() == Texts{"EXECUTE s"});
}

}  // namespace
}  // namespace helios
