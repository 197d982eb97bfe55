// Getting a backend: who gets one, which one, by when, and what a client that leaves leaves behind.
#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

// Clients that never pause, on a server that answers one query at a time, wherever it is asked.
class Crowd {
 public:
  explicit Crowd(size_t clients_count)
      : bench_(with_ageless_backends(4)), answers_(clients_count, 0) {
    bench_.server.new_is_silent = true;
    for (size_t i = 0; i < clients_count; ++i) clients_.emplace_back(bench_, 0, "me");
    for (size_t i = 0; i < clients_count; ++i) ask(i);
  }

  // The answer to what this server session runs; its client asks again at once.
  void answer(size_t session_index) {
    const auto sessions = bench_.server.open_sessions();
    if (session_index >= sessions.size()) return;
    const auto asked = sessions[session_index]->queries();
    if (asked.empty()) return;
    const size_t client = std::stoul(asked.back());
    sessions[session_index]->write(echo(asked.back()) + ready());
    bench_.settle();
    REQUIRE(clients_[client].take_tags() == "TDCZ");
    ++answers_[client];
    ask(client);
  }

  [[nodiscard]] const std::vector<size_t>& answers() const { return answers_; }

 private:
  void ask(size_t client) { clients_[client].query(std::to_string(client)); }

  SessionBench bench_;
  std::vector<TestClient> clients_;
  std::vector<size_t> answers_;
};

TEST_CASE("clients that ask again at once starve nobody") {
  constexpr size_t rounds = 5;
  for (const size_t clients_count : {8, 16, 64}) {
    Crowd crowd(clients_count);
    for (size_t i = 0; i < rounds * clients_count; ++i) crowd.answer(i % 4);
    const auto [fewest, most] = std::minmax_element(crowd.answers().begin(), crowd.answers().end());
    CHECK(*fewest + 1 >= *most);
    CHECK(*fewest >= rounds - 1);
  }
}

TEST_CASE("acquire_timeout covers the connect and the login, not the queue alone") {
  BenchOptions options = with_ageless_backends(1);
  options.limits.acquire_timeout = seconds(3);
  options.limits.connect_timeout = seconds(15);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  bench.server.only().end();
  bench.settle();
  bench.server.holds_logins = true;
  client.query("never");
  CHECK(bench.slice().connecting_count() == 1);
  bench.advance(seconds(2));
  CHECK(client.take_tags().empty());
  bench.advance(seconds(2));
  CHECK(client.take_error() == "53300");
  CHECK(client.is_closed());
}

TEST_CASE("a client that leaves while a connect is made for it leaves nothing counted behind") {
  SessionBench bench(with_ageless_backends(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  bench.server.only().end();
  bench.settle();
  bench.server.holds_logins = true;
  client.query("never");
  CHECK(bench.slice().connecting_count() == 1);
  client.close();
  CHECK(bench.slice().waiters_count() == 0);
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(bench.slice().connecting_count() == 0);
  CHECK(bench.slice().backends_count() == 1);
  CHECK(bench.slice().idle_count() == 1);
  CHECK(bench.node.limit.taken() == 1);
  other.query("mine");
  CHECK(other.take_tags() == "TDCZ");
  CHECK(bench.server.only().queries() == std::vector<std::string>{"mine"});
}

TEST_CASE("an idle backend that is too old does not cost a connect while a fresh one is there") {
  BenchOptions options = with_ageless_backends(3);
  options.limits.idle_timeout = 0;
  options.limits.max_lifetime = seconds(100);
  SessionBench bench(options);
  TestClient older(bench, 0, "me");
  TestClient newer(bench, 0, "me");
  older.query("BEGIN");
  bench.advance(seconds(50));
  newer.query("BEGIN");
  newer.query("COMMIT");
  older.query("COMMIT");  // Used last, and so the first to be looked at.
  REQUIRE(bench.slice().idle_count() == 2);
  // Not by advance(): the sweep would have closed it.
  bench.clock.advance(seconds(45));
  newer.query("mine");
  CHECK(newer.take_tags() == "CZCZTDCZ");
  CHECK(bench.server.sessions().size() == 2);
  CHECK(bench.slice().waiters_count() == 0);
}

TEST_CASE("a backend that was idle for too long is not handed out, even before the next sweep") {
  BenchOptions options = with_ageless_backends(2);
  options.limits.idle_timeout = seconds(5);
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  client.query("a");
  const uint32_t process_id = bench.server.only().process_id();
  bench.clock.advance(seconds(6));
  client.query("b");
  CHECK(client.take_tags() == "TDCZTDCZ");
  CHECK(bench.server.only().process_id() != process_id);
}

TEST_CASE("a backend goes back to the pool that it came from") {
  SessionBench bench(with_ageless_backends(2));
  TestClient mine(bench, 0, "me");
  TestClient yours(bench, 0, "you");
  mine.query("BEGIN");
  yours.query("BEGIN");
  yours.query("COMMIT");
  mine.query("COMMIT");
  for (const char* user : {"me", "you"}) {
    CHECK(bench.slice(0, user).idle_count() == 1);
    CHECK(bench.slice(0, user).backends_count() == 1);
  }
  CHECK(bench.server.open_sessions()[0]->queries() == bench.server.open_sessions()[1]->queries());
}

// Somebody who wants a backend and nothing else.
class Wisher final : public Lessee {
 public:
  void on_leased(Backend&) noexcept override { is_leased = true; }
  void on_wait_failed(const PoolError& failure) noexcept override { error = failure; }
  void on_pool_changed(PoolEntry&) noexcept override {}
  void on_reply(ByteSpan, BufferRef, bool) noexcept override {}
  void on_reply_copy(ByteSpan, bool) noexcept override {}
  void on_statement(uint8_t, uint64_t) noexcept override {}
  void on_command_complete(std::string_view) noexcept override {}
  void on_parameter(std::string_view, std::string_view) noexcept override {}
  void on_ready(uint8_t, bool) noexcept override {}
  void on_state(const StateProbe&) noexcept override {}
  void on_skipped_error(const ErrorFields&) noexcept override {}
  void on_input_end() noexcept override {}
  void on_backend_drained() noexcept override {}
  void on_cancel_ended() noexcept override {}
  void on_backend_lost(const PoolError&, bool) noexcept override {}

  bool is_leased = false;
  PoolError error;
};

TEST_CASE("a node that has no address is an error, never a backend without a connection") {
  SessionBench bench;
  NodeOptions options;
  options.name = "nowhere";
  options.hosts = {"nowhere.invalid"};
  Node nowhere(options, bench.resolver);
  const BenchDirectory directory(nowhere, {});
  Slice& slice = bench.pools().pool_of(directory.pool_of("db", "me", {})).slice;
  Wisher wisher;
  CHECK_FALSE(bench.pools().acquire(slice, wisher));
  bench.settle();
  bench.advance(milliseconds(1));
  CHECK_FALSE(wisher.is_leased);
  CHECK(wisher.error.sqlstate == "08006");
  CHECK(wisher.error.message.find("nowhere") != std::string::npos);
  CHECK(slice.backends_count() + slice.connecting_count() == 0);
  CHECK(nowhere.limit.taken() == 0);
  bench.finish();
}

}  // namespace
}  // namespace helios
