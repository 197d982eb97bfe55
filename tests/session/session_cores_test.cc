// Sessions of several cores that share one pool.
#include <doctest/doctest.h>

#include "helios/wire/writer.h"
#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

BenchOptions on_two_cores(uint32_t max_connections) {
  BenchOptions options;
  options.cores_count = 2;
  options.limits.max_connections = max_connections;
  return options;
}

TEST_CASE("one connection serves both cores, with its parameters, process and cancel key") {
  SessionBench bench(on_two_cores(1));
  TestClient here(bench, 0, "me", {{"application_name", "here"}});
  here.query("a");
  CHECK(here.take_tags() == "TDCZ");
  ServerSession& server = bench.server.only();
  TestClient there(bench, 1);
  const WireMessage key = log_in(there);
  there.query("b");
  CHECK(there.take_tags() == "TDCZ");
  CHECK(bench.server.sessions().size() == 1);
  CHECK(bench.core(0).pools.backends_count() == 0);
  CHECK(bench.core(1).pools.backends_count() == 1);
  // The other core knows what the session is set to: it sets it back.
  CHECK(server.parameters().at("application_name").empty());

  server.is_silent = true;
  there.query("long");
  TestClient asker(bench, 0);  // On the other core than its session.
  asker.write(cancel_request(key.body));
  CHECK(asker.is_closed());
  REQUIRE(bench.server.cancels().size() == 1);
  CHECK(bench.server.cancels()[0]->cancelled_process_id == server.process_id());
  CHECK(bench.server.cancels()[0]->cancelled_key == server.cancel_key());
}

TEST_CASE("a backend that was idle for long is tested on the core that borrows it, too") {
  BenchOptions options = on_two_cores(1);
  options.limits.test_after = seconds(30);
  options.limits.idle_timeout = 0;
  SessionBench bench(options);
  TestClient here(bench, 0, "me");
  TestClient there(bench, 1, "me");
  here.query("a");
  CHECK(here.take_tags() == "TDCZ");
  ServerSession& server = bench.server.only();
  bench.advance(seconds(10));
  server.log.clear();
  there.query("b");
  CHECK(there.take_tags() == "TDCZ");
  CHECK(server.tags() == "Q");
  bench.advance(seconds(40));
  server.log.clear();
  here.query("c");
  CHECK(here.take_tags() == "TDCZ");
  CHECK(server.tags() == "QQ");
  CHECK(server.queries() == std::vector<std::string>{"c"});
}

TEST_CASE("a wrong key for another core's session reaches nobody") {
  SessionBench bench(on_two_cores(2));
  TestClient client(bench, 1);
  WireMessage key = log_in(client);
  bench.server.open_sessions().back()->is_silent = true;
  client.query("long");
  key.body[5] = static_cast<char>(key.body[5] ^ 1);
  TestClient asker(bench, 0);
  asker.write(cancel_request(key.body));
  CHECK(asker.is_closed());
  CHECK(bench.server.cancels().empty());
}

TEST_CASE("the limit holds over both cores, and waiters of both are served") {
  SessionBench bench(on_two_cores(2));
  std::vector<TestClient> clients;
  for (int i = 0; i < 12; ++i) clients.emplace_back(bench, static_cast<CoreId>(i % 2), "me");
  for (TestClient& client : clients) client.write_later(query_message("BEGIN"));
  bench.settle();
  CHECK(bench.server.open_sessions().size() == 2);
  size_t begun_count = 0;
  for (int round = 0; round < 12; ++round) {
    for (TestClient& client : clients) {
      if (client.take_tags() != "CZ") continue;
      ++begun_count;
      client.query("COMMIT");
      CHECK(client.take_tags().substr(0, 2) == "CZ");
      CHECK(bench.server.open_sessions().size() <= 2);
    }
  }
  CHECK(begun_count == clients.size());
}

TEST_CASE("bytes that race with a move are found on one core or the other") {
  const std::string notice = frame('N', std::string("SNOTICE\0C00000\0Mhello\0\0", 23));
  const std::string fatal = error_reply("FATAL", "57P01", "terminating");
  for (const std::string& bytes : {notice, notice.substr(0, 7), fatal, frame('D', "row"),
                                   frame('S', std::string("TimeZone\0CET\0", 13))}) {
    for (uint64_t seed = 1; seed <= 40; ++seed) {
      BenchOptions options = on_two_cores(1);
      options.network.seed = seed;
      SessionBench bench(options);
      TestClient here(bench, 0, "me");
      TestClient there(bench, 1, "me");
      here.query("a");
      CHECK(here.take_tags() == "TDCZ");
      there.write_later(query_message("mine"));
      for (uint64_t i = 0; i < seed % 8; ++i) static_cast<void>(bench.step());
      ServerSession& server = bench.server.only();
      server.is_silent = server.is_silent || bytes == fatal;  // It answers nothing more.
      server.write(bytes);
      for (uint64_t i = 0; i < seed % 5; ++i) static_cast<void>(bench.step());
      if (bytes == notice.substr(0, 7)) server.write(notice.substr(7));
      bench.settle();
      if (bytes == fatal) server.end();
      bench.settle();
      bench.advance(seconds(2));
      // Either the move won and the client's own backend said this, or it was seen before.
      std::string tags;
      for (const char tag : there.take_tags())
        if (tag != 'N' && tag != 'S') tags += tag;
      const bool is_served = tags == "TDCZ" || tags == "DTDCZ" || tags == "TDCZE";
      const bool is_told = tags == "E" || tags == "EE" || tags == "DE" || tags == "TDCZE";
      const bool is_lost = bytes == fatal && tags == "EZ";  // It goes on with another.
      CAPTURE(seed);
      CAPTURE(tags);
      CHECK((is_served || is_told || is_lost));
      CHECK(there.is_closed() == is_told);
      TestClient next(bench, 0, "me");
      next.query("next");
      CHECK(next.take_tags() == "TDCZ");
    }
  }
}

TEST_CASE("a drain of two cores ends, with backends between them") {
  for (uint64_t seed = 1; seed <= 50; ++seed) {
    BenchOptions options = on_two_cores(1);
    options.network.seed = seed;
    SessionBench bench(options);
    TestClient here(bench, 0, "me");
    TestClient there(bench, 1, "me");
    here.query("a");
    there.write_later(query_message("b"));
    here.write_later(query_message("c"));
    for (uint64_t i = 0; i < seed % 16; ++i) static_cast<void>(bench.step());
    bench.start_drain();
    bench.advance(seconds(61));
    CHECK(bench.is_empty());
  }
}

}  // namespace
}  // namespace helios
