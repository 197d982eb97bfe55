// What follows a client from backend to backend, and what pins one to it.
#include <doctest/doctest.h>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

using Texts = std::vector<std::string>;
using Settings = std::map<std::string, std::string>;

BenchOptions with_policy(StatePolicy policy, uint32_t max_connections = 1) {
  BenchOptions options = with_ageless_backends(max_connections);
  options.limits.session_state = policy;
  return options;
}

BenchOptions following(uint32_t max_connections = 1) {
  return with_policy(StatePolicy::follow, max_connections);
}

const std::string question = "(question)";
const std::string cleaning = "(cleaning)";

// Texts of the simple queries that came; those of the pooler's own that are long by a short name.
Texts texts_of(const ServerSession& server) {
  Texts texts;
  for (const WireMessage& message : server.log) {
    if (message.tag != 'Q') continue;
    std::string text = message.body.substr(0, message.body.size() - 1);
    if (text.starts_with("SELECT 's',")) text = question;
    if (text.starts_with("RESET SESSION AUTHORIZATION;RESET ROLE;RESET ALL;")) text = cleaning;
    texts.push_back(text);
  }
  return texts;
}

Texts take_texts(ServerSession& server) {
  Texts texts = texts_of(server);
  server.log.clear();
  return texts;
}

TEST_CASE("ordinary queries are not asked about") {
  SessionBench bench(following());
  TestClient client(bench, 0, "me");
  for (const std::string_view text : {"SELECT 1", "BEGIN", "UPDATE t SET x=1", "COMMIT",
                                      "SELECT 'temp'; SELECT 2", "SET application_name='x'"})
    client.query(text);
  CHECK(bench.slice().counters.state_probes == 0);
  CHECK(texts_of(bench.server.only()).size() == 6);
}

TEST_CASE("a parameter that the server does not report follows its client") {
  SessionBench bench(following());
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  one.query("SET work_mem='64'");
  CHECK(one.take_tags() == "CZ");
  CHECK(bench.slice().idle_count() == 1);
  CHECK(take_texts(server) == Texts{"SET work_mem='64'", question});
  // Its own backend again: nothing to do.
  one.query("SELECT 1");
  CHECK(take_texts(server) == Texts{"SELECT 1"});
  other.query("SELECT 2");
  CHECK(other.take_tags() == "TDCZ");
  CHECK(take_texts(server) == Texts{"RESET \"work_mem\"", "SELECT 2"});
  CHECK(server.state.settings.empty());
  one.query("SELECT 3");
  CHECK(one.take_tags() == "TDCZTDCZ");
  CHECK(take_texts(server) ==
        Texts{"SELECT FROM pg_catalog.set_config('work_mem','64',false)", "SELECT 3"});
  CHECK(server.state.settings == Settings{{"work_mem", "64"}});
}

TEST_CASE("clients that have set the same cause nothing between them") {
  SessionBench bench(following());
  std::vector<TestClient> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back(bench, 0, "me");
    clients.back().query("SET work_mem='64'");
  }
  ServerSession& server = bench.server.only();
  server.log.clear();
  for (TestClient& client : clients) client.query("SELECT 1");
  CHECK(texts_of(server) == Texts{"SELECT 1", "SELECT 1", "SELECT 1"});
}

TEST_CASE("only what is left of a transaction follows") {
  SessionBench bench(following());
  TestClient one(bench, 0, "me");
  ServerSession& server = bench.server.only();
  SUBCASE("rolled back") {
    one.query("BEGIN");
    one.query("SET work_mem='64'");
    one.query("ROLLBACK");
    CHECK(take_texts(server).back() == question);
  }
  SUBCASE("for the transaction only") {
    one.query("BEGIN");
    one.query("SET LOCAL work_mem='64'");
    one.query("COMMIT");
    CHECK(take_texts(server).back() == "COMMIT");
  }
  TestClient other(bench, 0, "me");
  other.query("SELECT 1");
  CHECK(take_texts(server) == Texts{"SELECT 1"});
}

TEST_CASE("a parameter that is reset is at its default everywhere") {
  for (const std::string reset : {"RESET work_mem", "RESET ALL", "DISCARD ALL"}) {
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    one.query("SET work_mem='64'");
    one.query(reset);
    ServerSession& server = bench.server.only();
    CHECK(take_texts(server).back() == question);
    TestClient other(bench, 0, "me");
    other.query("SELECT 1");
    one.query("SELECT 2");
    CHECK(take_texts(server) == Texts{"SELECT 1", "SELECT 2"});
  }
}

TEST_CASE("custom parameters follow by the names that the texts tell") {
  SessionBench bench(following());
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  one.query("SELECT FROM pg_catalog.set_config('app.x','it''s',false)");
  other.query("SELECT 1");
  CHECK(server.state.settings.empty());
  one.query("SELECT 2");
  CHECK(server.state.settings == Settings{{"app.x", "it's"}});
  // A name in another case is the same.
  one.query("SET APP.X='2'");
  server.state.settings = {{"app.x", "2"}};
  one.query("RESET ALL");
  other.query("SELECT 3");
  CHECK(server.state.settings.empty());
}

TEST_CASE("a role follows, and is taken after everything else") {
  SessionBench bench(following());
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  one.query("SET ROLE boss");
  one.query("SET work_mem='64'");
  CHECK(take_texts(server) == Texts{"SET ROLE boss", question, "SET work_mem='64'", question});
  other.query("SELECT 1");
  CHECK(take_texts(server) == Texts{"RESET ROLE;RESET \"work_mem\"", "SELECT 1"});
  one.query("SELECT 2");
  CHECK(take_texts(server) == Texts{"SELECT FROM pg_catalog.set_config('work_mem','64',false);"
                                    "SELECT FROM pg_catalog.set_config('role','boss',false)",
                                    "SELECT 2"});
}

TEST_CASE("the answer to the question reaches nobody, wherever it is cut") {
  BenchOptions options = following();
  options.network.short_recv_percent = 80;
  options.network.short_send_percent = 80;
  for (uint64_t seed = 1; seed < 30; ++seed) {
    options.network.seed = seed;
    SessionBench bench(options);
    TestClient one(bench, 0, "me");
    TestClient other(bench, 0, "me");
    one.query("SET work_mem='64'");
    one.query("SELECT FROM pg_catalog.set_config('app.x','" + std::string(300, 'v') + "',false)");
    other.query("SELECT 1");
    one.query("SELECT 2");
    CHECK(one.take_tags() == "CZTDCZTDCZ");
    CHECK(other.take_tags() == "TDCZ");
    CHECK(bench.server.only().state.settings ==
          Settings{{"app.x", std::string(300, 'v')}, {"work_mem", "64"}});
  }
}

TEST_CASE("what a prepared statement does counts each time it is bound") {
  const std::string text = "SELECT FROM pg_catalog.set_config('app.x','1',false)";
  for (const std::string name : {"", "p"}) {
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    ServerSession& server = bench.server.only();
    one.write(parse_message(name, text) + sync_message());
    CHECK(texts_of(server) == Texts(1, question));
    one.write(bind_message("", name) + execute_message() + sync_message());
    CHECK(texts_of(server) == Texts(2, question));
    one.write(parse_message("q", "SELECT 1") + bind_message("", "q") + sync_message());
    CHECK(texts_of(server) == Texts(2, question));
    CHECK(one.take_tags() == "1Z2DCZ12Z");
  }
}

TEST_CASE("a long statement that is not known to be harmless counts each time it is bound") {
  // One with a name is read whole, because it has to be kept.
  const std::string text = "SELECT f('" + std::string(70'000, 'x') + "'); -- config";
  SessionBench bench(following());
  TestClient one(bench, 0, "me");
  const std::string message = parse_message("", text);
  one.write(message.substr(0, 30));
  one.write(message.substr(30) + sync_message());
  CHECK(bench.slice().counters.state_probes == 1);
  for (int i = 0; i < 2; ++i) {
    const uint64_t asked = bench.slice().counters.state_probes;
    one.write(bind_message("", "") + sync_message());
    CHECK(bench.slice().counters.state_probes == asked + 1);
    one.write(sync_message());
    CHECK(bench.slice().counters.state_probes == asked + 1);
  }
}

TEST_CASE("texts are read however they come") {
  for (const size_t size : {size_t{100}, size_t{70'000}}) {
    for (const size_t cut : {size_t{5}, size_t{9}, size_t{40}, size - 10}) {
      SessionBench bench(following());
      TestClient one(bench, 0, "me");
      const std::string plain = "SELECT '" + std::string(size, 'x') + "'";
      const auto write_in_two = [&](const std::string& message) {
        one.write(message.substr(0, cut));
        one.write(message.substr(cut));
      };
      write_in_two(query_message(plain));
      write_in_two(parse_message("", plain) + sync_message());
      CHECK(bench.slice().counters.state_probes == 0);
      write_in_two(query_message("SET work_mem='" + std::string(size, '1') + "'"));
      // A value longer than what is read of a row is asked for again, in vain.
      CHECK(bench.slice().counters.state_probes == (size > 10'000 ? 3 : 1));
    }
  }
}

TEST_CASE("who waits is not passed over by a client whose backend is asked about") {
  SessionBench bench(following());
  TestClient greedy(bench, 0, "me");
  TestClient modest(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  greedy.query("SET work_mem='64'");
  modest.query("SELECT 1");
  server.write(complete("SET") + ready());
  bench.settle();
  CHECK(texts_of(server).back() == question);
  greedy.query("SELECT 2");
  CHECK(texts_of(server).back() == question);
  server.write(ready());
  bench.settle();
  CHECK(texts_of(server).back() == "SELECT 1");
  server.write(complete("SELECT") + ready());
  server.is_silent = false;
  bench.settle();
  CHECK(modest.take_tags() == "CZ");
  CHECK(texts_of(server).back() == "SELECT 2");
}

TEST_CASE("a question that is refused is put again, then the backend is cleaned") {
  SessionBench bench(following());
  TestClient one(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.state.refusals_left = 1;
  one.query("SET work_mem='64'");
  CHECK(take_texts(server) == Texts{"SET work_mem='64'", question, question});
  server.state.refusals_left = 3;
  one.query("SET work_mem='65'");
  CHECK(take_texts(server) == Texts{"SET work_mem='65'", question, question, question, cleaning});
  CHECK(one.take_tags() == "CZCZ");
  CHECK(bench.slice().idle_count() == 1);
  // The last that is known of it.
  one.query("SELECT 1");
  CHECK(server.state.settings == Settings{{"work_mem", "64"}});
}

TEST_CASE("a client that goes while its backend is asked about leaves it clean") {
  for (const bool by_reset : {false, true}) {
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    TestClient other(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    one.query("SET work_mem='64'");
    server.write(complete("SET") + ready());
    bench.settle();
    CHECK(texts_of(server).back() == question);
    other.query("SELECT 1");
    by_reset ? one.reset() : one.close();
    server.write(ready());
    server.is_silent = false;
    bench.settle();
    CHECK(other.take_tags() == "TDCZ");
    CHECK(take_texts(server) == Texts{"SET work_mem='64'", question, cleaning, "SELECT 1"});
  }
}

TEST_CASE("what a client leaves behind with known settings is reset by the next one") {
  SessionBench bench(following());
  {
    TestClient one(bench, 0, "me");
    one.query("SET work_mem='64'");
    one.close();
  }
  TestClient other(bench, 0, "me");
  other.query("SELECT 1");
  CHECK(texts_of(bench.server.only()) ==
        Texts{"SET work_mem='64'", question, "RESET \"work_mem\"", "SELECT 1"});
}

TEST_CASE("a SET in a transaction that its client leaves is cleaned away") {
  SessionBench bench(following());
  TestClient one(bench, 0, "me");
  one.query("BEGIN");
  one.query("SET work_mem='64'");
  one.close();
  CHECK(texts_of(bench.server.only()) == Texts{"BEGIN", "SET work_mem='64'", "ROLLBACK", cleaning});
  CHECK(bench.slice().idle_count() == 1);
}

TEST_CASE("what connect_query has set is what all clients begin with") {
  BenchOptions options = following();
  options.limits.connect_query = "SET work_mem='64'";
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  CHECK(take_texts(server) == Texts{"SET work_mem='64'", question});
  other.query("SELECT 1");
  CHECK(take_texts(server) == Texts{"SELECT 1"});
  one.query("SET lock_timeout='5'");
  other.query("SELECT 2");
  CHECK(take_texts(server) ==
        Texts{"SET lock_timeout='5'", question, "RESET \"lock_timeout\"", "SELECT 2"});
  CHECK(server.state.settings == Settings{{"work_mem", "64"}});
  one.query("RESET ALL");
  CHECK(server.state.settings.empty());
  other.query("SELECT 3");
  CHECK(server.state.settings == Settings{{"work_mem", "64"}});
  other.query("DO ''");
  CHECK(take_texts(server).back() == question);
  CHECK(server.state.settings == Settings{{"work_mem", "64"}});
}

TEST_CASE("parameters of a start-up packet that are not reported are those of the pool") {
  SessionBench bench(following());
  TestClient one(bench, 0, "me", {{"work_mem", "64"}});
  one.query("SELECT 1");
  CHECK(texts_of(bench.server.only()) == Texts{"SELECT 1"});
}

// Why a client keeps its backend.
enum class Stay : uint8_t { none, pinned, session };

BenchOptions staying(uint32_t backends_count, Stay stay) {
  BenchOptions options = following(backends_count);
  if (stay == Stay::session) options.limits.mode = LeaseMode::session;
  return options;
}

TEST_CASE("RESET leads to what the client has started with, and it is told so") {
  for (const std::string reset : {"RESET application_name", "RESET ALL", "DISCARD ALL"}) {
    for (const Stay stay : {Stay::none, Stay::pinned, Stay::session}) {
      const bool is_pinned = stay == Stay::pinned;
      SessionBench bench(staying(2, stay));
      TestClient one(bench, 0, "me", {{"application_name", "mine"}});
      TestClient other(bench, 0, "me");
      if (is_pinned) one.query("SELECT pg_advisory_lock(1)");
      one.query("SET application_name='x'");
      static_cast<void>(one.take());
      one.query(reset);
      // Of nothing else: the server's own value is none of the client's business.
      std::vector<std::string> told;
      for (const WireMessage& message : one.take())
        if (message.tag == 'S') told.push_back(message.body);
      CHECK(told == std::vector{std::string("application_name\0mine\0", 22)});
      one.query(reset);
      CHECK(one.take_tags() == "CZ");
      other.query("WHO other");
      one.query("WHO one");
      bool is_named = false;
      for (const WireMessage& message : one.take())
        if (message.tag == 'D') is_named = message.body.ends_with("WHO one is mine");
      CHECK(is_named);
    }
  }
}

TEST_CASE("a client that goes within the ParameterStatus of its RESET disturbs nobody") {
  for (const bool by_reset : {false, true}) {
    SessionBench bench(staying(1, Stay::none));
    TestClient one(bench, 0, "me", {{"application_name", "mine"}});
    TestClient other(bench, 0, "me");
    ServerSession& server = bench.server.only();
    one.query("SET application_name='x'");
    server.is_silent = true;
    one.query("RESET application_name");
    const std::string status = frame('S', std::string("application_name\0\0", 18));
    server.write(status.substr(0, 12));
    bench.settle();
    by_reset ? one.reset() : one.close();
    server.is_silent = false;
    server.write(status.substr(12) + complete("RESET") + ready());
    bench.settle();
    other.query("WHO other");
    CHECK(other.take_tags().ends_with("TDCZ"));
  }
}

TEST_CASE("a ParameterStatus that has begun before a RESET is not broken by it") {
  SessionBench bench(staying(1, Stay::none));
  TestClient one(bench, 0, "me", {{"application_name", "mine"}});
  one.query("SELECT 1");
  (void)one.take();
  ServerSession& server = bench.server.only();
  server.is_silent = true;
  one.query("SET application_name='x'");
  const std::string status = frame('S', std::string("application_name\0x\0", 19));
  server.write(status.substr(0, 12));
  bench.settle();
  one.query("RESET application_name");
  server.write(status.substr(12) + complete("SET") + ready());
  bench.settle();
  CHECK(one.take_bytes().starts_with(status));
}

TEST_CASE("what is pipelined behind a RESET finds what the client has started with") {
  for (const std::string reset : {"RESET application_name", "RESET ALL", "DISCARD ALL"}) {
    for (const Stay stay : {Stay::none, Stay::pinned, Stay::session}) {
      const bool is_pinned = stay == Stay::pinned;
      SessionBench bench(staying(1, stay));
      TestClient one(bench, 0, "me", {{"application_name", "mine"}});
      if (is_pinned && reset != "DISCARD ALL") one.query("SELECT pg_advisory_lock(1)");
      one.query("SET application_name='x'");
      one.query("BEGIN");
      static_cast<void>(one.take());
      one.write(query_message("COMMIT") + query_message(reset) + query_message("WHO one") +
                query_message("BEGIN") + query_message("WHO one") + query_message("COMMIT"));
      size_t named_count = 0;
      for (const WireMessage& message : one.take())
        if (message.tag == 'D') named_count += message.body.ends_with("WHO one is mine") ? 1 : 0;
      CHECK(named_count == 2);
      // Within a transaction nothing is held up.
      one.write(query_message("BEGIN") + query_message(reset) + query_message("SELECT 1"));
      CHECK(one.take_tags().ends_with("TDCZ"));
    }
  }
}

// --- Pins

struct Held {
  const char* begin;
  const char* end;
  PinReason reason;
};
constexpr Held all_held[] = {
    {"CREATE TEMP TABLE t (x int)", "DROP TABLE t", PinReason::temporary},
    {"DECLARE c CURSOR WITH HOLD FOR SELECT 1", "CLOSE c", PinReason::cursor},
    {"SELECT pg_advisory_lock(1)", "SELECT pg_advisory_unlock(1)", PinReason::lock},
};

TEST_CASE("what cannot follow keeps the backend until it is gone") {
  for (const Held& held : all_held) {
    CAPTURE(held.begin);
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    TestClient other(bench, 0, "me");
    ServerSession& server = bench.server.only();
    one.query(held.begin);
    other.query("SELECT 1");
    CHECK(bench.slice().waiters_count() == 1);
    one.query("SELECT 2");
    CHECK(take_texts(server) == Texts{held.begin, question, "SELECT 2"});
    CHECK(bench.slice().counters.pins[held.reason] == 1);
    bench.pass(seconds(2));
    const PoolGauges gauges = bench.pools().statistics().total.gauges;
    CHECK(gauges.pinned == 1);
    CHECK(gauges.oldest_pin == seconds(2));
    one.query(held.end);
    CHECK(other.take_tags() == "TDCZ");
    CHECK(take_texts(server) == Texts{held.end, question, "SELECT 1"});
    CHECK(bench.pools().statistics().total.gauges.pinned == 0);
  }
}

TEST_CASE("why a backend is pinned, and since when, is known as long as it is") {
  for (const bool is_lost : {false, true}) {
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    ServerSession& server = bench.server.only();
    const auto pins = [&] { return bench.pools().statistics().pins; };
    one.query("BEGIN");
    one.query("CREATE TEMP TABLE t (x int)");
    CHECK(pins().empty());  // It is not beyond its transaction.
    one.query("COMMIT");
    bench.pass(seconds(2));
    one.query("SELECT pg_advisory_lock(1)");
    bench.pass(seconds(3));
    one.query("SELECT 1");
    REQUIRE(pins().size() == 1);
    CHECK(pins()[0].user == "me");
    CHECK(pins()[0].database == "db");
    CHECK(pins()[0].process_id == server.process_id());
    CHECK(pins()[0].longest == seconds(5));
    CHECK(pins()[0].reasons == "temporary table for 5.00 s, advisory lock for 3.00 s");
    PoolGauges gauges = bench.pools().statistics().total.gauges;
    CHECK(gauges.pinned == 1);
    CHECK(gauges.pins[PinReason::temporary] == 1);
    CHECK(gauges.pins[PinReason::lock] == 1);
    one.query("DROP TABLE t");
    CHECK(pins()[0].reasons == "advisory lock for 3.00 s");
    // Again is anew.
    one.query("CREATE TEMP TABLE t (x int)");
    CHECK(pins()[0].reasons == "temporary table for 0 ns, advisory lock for 3.00 s");
    CHECK(bench.slice().counters.pins[PinReason::temporary] == 2);
    CHECK(bench.slice().counters.pins[PinReason::lock] == 1);
    if (is_lost) {
      server.reset();
      bench.settle();
    } else {
      one.close();
    }
    CHECK(pins().empty());
    gauges = bench.pools().statistics().total.gauges;
    CHECK(gauges.pinned == 0);
    CHECK(gauges.pins.total() == 0);
  }
}

TEST_CASE("in session mode a backend is kept, and not pinned") {
  BenchOptions options = following();
  options.limits.mode = LeaseMode::session;
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  one.query("CREATE TEMP TABLE t (x int)");
  one.query("LOAD 'x'");
  one.write(parse_message("s", "x") + sync_message());
  CHECK(bench.pools().statistics().total.gauges.pinned == 0);
  CHECK(bench.slice().counters.pins.total() == 0);
}

TEST_CASE("what is gone with the transaction keeps nothing") {
  SessionBench bench(following());
  TestClient one(bench, 0, "me");
  one.query("BEGIN");
  one.query("CREATE TEMP TABLE t (x int)");
  one.query("DROP TABLE t");
  one.query("COMMIT");
  CHECK(bench.slice().idle_count() == 1);
  CHECK(bench.slice().counters.pins.total() == 0);
}

TEST_CASE("a pinned backend is cleaned when its client goes, and keeps its statements") {
  for (const Held& held : all_held) {
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    one.query(held.begin);
    one.close();
    CHECK(texts_of(bench.server.only()) == Texts{held.begin, question, cleaning});
    CHECK(bench.server.only().state.held.empty());
    CHECK(bench.slice().idle_count() == 1);
  }
}

TEST_CASE("LOAD keeps the backend to the client's end, and ends it") {
  SessionBench bench(following());
  TestClient one(bench, 0, "me");
  TestClient other(bench, 0, "me");
  one.query("LOAD 'x'");
  one.query("DISCARD ALL");
  CHECK(bench.slice().counters.pins[PinReason::library] == 1);
  CHECK(bench.slice().idle_count() == 0);
  other.query("SELECT 1");
  CHECK(bench.slice().waiters_count() == 1);
  one.close();
  CHECK(other.take_tags() == "TDCZ");
  CHECK(bench.server.sessions().size() == 2);
}

TEST_CASE("what cannot be seen through is asked about, and the backend cleaned") {
  for (const std::string text :
       {"DO ''", "CALL p()", "REFURBISH", "SELECT set_config(x,y,false)", "SELECT f(1)",
        "SELECT * FROM app.f(1)", "INSERT INTO t (a) VALUES (\"F\"(1))"}) {
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    TestClient other(bench, 0, "me");
    one.query("SET work_mem='64'");
    one.query(text);
    ServerSession& server = bench.server.only();
    CHECK(texts_of(server) == Texts{"SET work_mem='64'", question, text, question, cleaning});
    CHECK(server.state.settings.empty());
    one.query("SELECT 1");
    CHECK(server.state.settings == Settings{{"work_mem", "64"}});
  }
}

TEST_CASE("a function that is known to be harmless costs nothing") {
  BenchOptions options = following();
  options.limits.harmless_functions = {"f", "app.g"};
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  one.query("SELECT f(1), app.g(2)");
  one.query("INSERT INTO t (a) VALUES (F(1))");
  CHECK(bench.slice().counters.state_probes == 0);
  one.query("SELECT g(1)");
  CHECK(bench.slice().counters.state_probes == 1);
}

TEST_CASE("a prepared statement that calls an unknown function cleans each time it is bound") {
  const std::string text = "SELECT f($1)";
  for (const std::string name : {"", "p"}) {
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    ServerSession& server = bench.server.only();
    one.write(parse_message(name, text) + sync_message());
    server.log.clear();
    for (int i = 0; i < 2; ++i) {
      one.write(bind_message("", name) + execute_message() + sync_message());
      CHECK(take_texts(server) == Texts{question, cleaning});
      if (name.empty()) one.write(parse_message(name, text) + sync_message());
      server.log.clear();
    }
  }
}

TEST_CASE("what ends only with its backend keeps it, and ends it when its client goes") {
  struct Lasting {
    const char* begin;
    const char* end;
    PinReason reason;
  };
  constexpr Lasting all[] = {
      {"SELECT pg_create_physical_replication_slot('s',false,true)",
       "SELECT pg_drop_replication_slot('s')", PinReason::slot},
      {"SELECT pg_replication_origin_session_setup('o')",
       "SELECT pg_replication_origin_session_reset()", PinReason::origin},
      {"SELECT pg_backup_start('b')", "SELECT * FROM pg_backup_stop()", PinReason::backup}};
  for (const auto& [begin, end, reason] : all) {
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    TestClient other(bench, 0, "me");
    one.query(begin);
    CHECK(bench.slice().counters.pins[reason] == 1);
    other.query("SELECT 1");
    CHECK(bench.slice().waiters_count() == 1);
    one.query(end);
    CHECK(other.take_tags() == "TDCZ");
    CHECK(bench.server.sessions().size() == 1);
    one.query(begin);
    other.query("SELECT 1");
    CHECK(bench.slice().waiters_count() == 1);
    one.close();
    CHECK(other.take_tags() == "TDCZ");
    CHECK(bench.server.sessions().size() == 2);
    CHECK(bench.slice().counters.pins[reason] == 2);
  }
}

TEST_CASE("a seed of random() and a connection of dblink keep the backend to their client's end") {
  for (const auto& [text, reason] : {std::pair{"SELECT setseed(0.5)", PinReason::seed},
                                     {"SET seed = 0.5", PinReason::seed},
                                     {"BEGIN; SELECT setseed(0.5); ROLLBACK", PinReason::seed},
                                     {"SELECT dblink_connect('c','')", PinReason::dblink}}) {
    const char* const what = text;
    CAPTURE(what);
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    TestClient other(bench, 0, "me");
    one.query(text);
    CHECK(bench.slice().counters.pins[reason] == 1);
    one.query("SELECT 1");
    other.query("SELECT 1");
    CHECK(bench.slice().waiters_count() == 1);
    one.close();
    CHECK(other.take_tags() == "TDCZ");
    CHECK(bench.server.sessions().size() == 2);
  }
}

TEST_CASE("a function call by number is looked into, but for large objects") {
  for (const bool is_known : {false, true}) {
    SessionBench bench(following());
    TestClient one(bench, 0, "me");
    ServerSession& server = bench.server.only();
    server.is_silent = true;
    const uint8_t number[] = {0, 0, is_known ? uint8_t{3} : uint8_t{4}, 0xb8};  // lo_open is 952.
    one.write(frame('F', std::string(as_text(number)) + std::string(6, '\0')));
    server.write(frame('V', std::string(4, '\0')) + ready());
    server.is_silent = false;
    bench.settle();
    CHECK(bench.slice().counters.state_probes == (is_known ? 0 : 1));
  }
}

// --- Policies

TEST_CASE("strict cleans each backend that is given back, and parameters follow all the same") {
  SessionBench bench(with_policy(StatePolicy::strict));
  TestClient one(bench, 0, "me");
  one.query("SELECT 1");
  one.query("SET work_mem='64'");
  one.query("SELECT 2");
  CHECK(texts_of(bench.server.only()) ==
        Texts{"SELECT 1", cleaning, "SET work_mem='64'", question, cleaning,
              "SELECT FROM pg_catalog.set_config('work_mem','64',false)", "SELECT 2", cleaning});
}

TEST_CASE("pin keeps the backend of a client that sets a parameter") {
  SessionBench bench(with_policy(StatePolicy::pin));
  TestClient one(bench, 0, "me");
  one.query("SET application_name='x'");
  CHECK(bench.slice().idle_count() == 1);
  one.query("SET work_mem='64'");
  CHECK(bench.slice().idle_count() == 0);
  CHECK(bench.slice().counters.pins[PinReason::setting] == 1);
  one.query("RESET work_mem");
  CHECK(bench.slice().idle_count() == 1);
}

TEST_CASE("warn asks nothing and keeps nothing") {
  SessionBench bench(with_policy(StatePolicy::warn));
  TestClient one(bench, 0, "me");
  for (const Held& held : all_held) one.query(held.begin);
  one.query("SET work_mem='64'");
  one.query("LISTEN a");
  one.query("DO ''");
  CHECK(bench.slice().idle_count() == 1);
  CHECK(texts_of(bench.server.only()).size() == 6);
  CHECK(bench.slice().counters.state_probes == 0);
}

TEST_CASE("refuse answers what would keep a backend with an error, and the client goes on") {
  for (const Held& held : all_held) {
    SessionBench bench(with_policy(StatePolicy::refuse));
    TestClient one(bench, 0, "me");
    one.query(held.begin);
    const std::vector<WireMessage> answer = one.take();
    CHECK(tags_of(answer) == "EZ");
    CHECK(field_of(answer[0], 'S') == "ERROR");
    CHECK(field_of(answer[0], 'C') == "0A000");
    CHECK(answer[1].body == "I");
    one.write(parse_message("", held.begin) + bind_message("", "") + execute_message() +
              sync_message());
    CHECK(one.take_tags() == "EZ");
    CHECK(bench.server.only().log.empty());
    one.query("SET work_mem='64'");
    one.query(held.end);
    CHECK(one.take_tags().find('E') == std::string::npos);
  }
}

TEST_CASE("refuse answers a named statement that comes in pieces as one that comes whole") {
  const std::string batch =
      parse_message("s", "LISTEN a") + bind_message("", "s") + execute_message() + sync_message();
  SessionBench bench(with_policy(StatePolicy::refuse));
  TestClient one(bench, 0, "me");
  for (const size_t cut : {size_t{0}, size_t{5}, size_t{7}}) {
    one.write(batch.substr(0, cut));
    one.write(batch.substr(cut));
    const std::vector<WireMessage> answer = one.take();
    CAPTURE(cut);
    REQUIRE(tags_of(answer) == "EZ");
    CHECK(field_of(answer[0], 'S') == "ERROR");
  }
  CHECK(bench.server.only().log.empty());
}

TEST_CASE("refuse leaves no backend with a part of what it refuses") {
  BenchOptions options = with_policy(StatePolicy::refuse);
  options.limits.max_prepared_statements = 200;
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  one.write(parse_message("s", "select 1") + sync_message());
  one.query("BEGIN");
  CHECK(one.take_tags() == "1ZCZ");
  const std::string text = query_message("PREPARE s AS SELECT pg_advisory_lock(1)");
  one.write(text.substr(0, 12));
  one.write(text.substr(12));
  CHECK(one.take_error() == "0A000");
  CHECK(one.is_closed());
  TestClient other(bench, 0, "me");
  other.query("select 1");
  CHECK(other.take_tags() == "TDCZ");
}

TEST_CASE("refuse ends a client that asks for it within a transaction") {
  SessionBench bench(with_policy(StatePolicy::refuse));
  TestClient one(bench, 0, "me");
  one.query("BEGIN");
  one.query("LISTEN a");
  const std::vector<WireMessage> answer = one.take();
  CHECK(tags_of(answer) == "CZE");
  CHECK(field_of(answer[2], 'S') == "FATAL");
  CHECK(field_of(answer[2], 'C') == "0A000");
  CHECK(one.is_closed());
  CHECK(bench.server.sessions().front()->queries() == Texts{"BEGIN"});
}

TEST_CASE("session mode asks nothing") {
  BenchOptions options = following(2);
  options.limits.mode = LeaseMode::session;
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  one.query("SET work_mem='64'");
  one.query("CREATE TEMP TABLE t (x int)");
  CHECK(bench.slice().counters.state_probes == 0);
  CHECK(bench.slice().counters.pins.total() == 0);
  one.close();
  CHECK(texts_of(bench.server.only()).back() == "DISCARD ALL");
}

TEST_CASE("settings go with a backend to another core") {
  BenchOptions options = with_ageless_backends(1, 2);
  options.limits.session_state = StatePolicy::follow;
  SessionBench bench(options);
  TestClient one(bench, 0, "me");
  TestClient other(bench, 1, "me");
  one.query("SET work_mem='64'");
  other.query("SELECT 1");
  CHECK(other.take_tags() == "TDCZ");
  CHECK(texts_of(bench.server.only()) ==
        Texts{"SET work_mem='64'", question, "RESET \"work_mem\"", "SELECT 1"});
}

TEST_CASE("a pool that begins to follow takes over no connection of unknown state") {
  SessionBench bench(with_policy(StatePolicy::warn));
  TestClient one(bench, 0, "me");
  one.query("SET work_mem='64'");
  bench.reload([](BenchDirectory& next) { next.limits.session_state = StatePolicy::follow; });
  one.query("SELECT 1");
  CHECK(bench.server.only().queries() == Texts{"SELECT 1"});
  CHECK(bench.server.sessions().size() == 2);
}

}  // namespace
}  // namespace helios
