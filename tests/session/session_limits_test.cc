// Limits on clients and on waiting.
#include <doctest/doctest.h>

#include <algorithm>

#include "tests/support/session_bench.h"

namespace helios {
namespace {

using namespace test;

// The one error among what a client was sent.
WireMessage error_of(TestClient& client) {
  WireMessage found;
  for (WireMessage& message : client.take()) {
    if (message.tag != 'E') continue;
    CHECK(found.tag == 0);
    found = std::move(message);
  }
  return found;
}

bool is_refused(TestClient& client, std::string_view words) {
  const WireMessage error = error_of(client);
  CHECK(field_of(error, 'S') == "FATAL");
  CHECK(field_of(error, 'C') == "53300");
  CHECK(field_of(error, 'M') == words);
  return client.is_closed();
}

void knock(TestClient& client, std::string_view user, std::string_view database) {
  client.write(startup_packet(user, database));
}

// ---------------------------------------------------------------- max_clients

constexpr std::string_view database_is_full =
    "too many clients of database \"db\" (max_clients in [[database]])";
constexpr std::string_view user_is_full =
    "too many clients of user \"me\" (max_clients in [[user]])";

TEST_CASE("clients of a database or user above its max_clients are refused, over all cores") {
  for (const bool is_user : {false, true}) {
    SessionBench bench(with_backends(10, 3));
    auto limit = std::make_shared<Limit>(3);
    (is_user ? bench.directory.user_clients : bench.directory.database_clients) = limit;
    std::vector<TestClient> clients;
    for (CoreId id = 0; id < 3; ++id) clients.emplace_back(bench, id, "me");
    for (CoreId id = 0; id < 3; ++id) {
      TestClient refused(bench, id);
      knock(refused, "me", "db");
      CHECK(is_refused(refused, is_user ? user_is_full : database_is_full));
    }
    CHECK(limit->taken() == 3);
    clients[1].query("select 1");
    CHECK(clients[1].take_tags() == "TDCZ");
    clients[2].close();
    CHECK(limit->taken() == 2);
    TestClient next(bench, 0, "me");
    CHECK(limit->taken() == 3);
    bench.finish();
    CHECK(limit->taken() == 0);
  }
}

TEST_CASE("a client that finds its user's limit full leaves its database's place to others") {
  SessionBench bench;
  bench.directory.database_clients = std::make_shared<Limit>(2);
  bench.directory.user_clients = std::make_shared<Limit>(1);
  TestClient first(bench, 0, "me");
  TestClient second(bench);
  knock(second, "me", "db");
  CHECK(is_refused(second, user_is_full));
  CHECK(bench.directory.database_clients->taken() == 1);
}

TEST_CASE("many clients that come at once never exceed max_clients, however they meet") {
  for (uint64_t seed = 1; seed <= 30; ++seed) {
    BenchOptions options = with_backends(2, 3);
    options.network.seed = seed;
    SessionBench bench(options);
    bench.directory.database_clients = std::make_shared<Limit>(4);
    std::vector<TestClient> clients;
    for (int i = 0; i < 12; ++i) {
      clients.emplace_back(bench, static_cast<CoreId>(i % 3));
      clients.back().write_later(startup_packet("me", "db"));
    }
    bench.settle();
    size_t welcome_count = 0;
    for (TestClient& client : clients) {
      const std::string tags = client.take_tags();
      CHECK((tags.back() == 'Z' || tags.back() == 'E'));
      welcome_count += tags.back() == 'Z' ? 1 : 0;
    }
    CHECK(welcome_count == 4);
    CHECK(bench.directory.database_clients->taken() == 4);
  }
}

TEST_CASE("who has not proved who it is neither uses max_clients up nor learns of it") {
  SessionBench bench;
  auto limit = std::make_shared<Limit>(1);
  bench.directory.database_clients = limit;
  TestClient in_login(bench);
  knock(in_login, "typist", "db");  // Asked for its password.
  TestClient stranger(bench);
  knock(stranger, "stranger", "db");
  TestClient astray(bench);
  knock(astray, "me", "missing");
  CHECK(astray.take_error() == "3D000");
  CHECK(limit->taken() == 0);
  TestClient first(bench, 0, "me");
  // The limit is full now: strangers are asked as ever.
  TestClient other(bench);
  knock(other, "typist2", "db");
  CHECK(other.take_tags() == "R");
  TestClient another(bench);
  knock(another, "stranger", "db");
  CHECK(another.take_tags() == "R");
  CHECK(limit->taken() == 1);
}

TEST_CASE("a client counts once, however its session ends") {
  enum class End { close, reset, terminate, garbage, server_lost, leaving, drain, stop };
  for (const End end : {End::close, End::reset, End::terminate, End::garbage, End::server_lost,
                        End::leaving, End::drain, End::stop}) {
    for (const std::string work : {"", "BEGIN", "LONG 100", "waiting"}) {
      CAPTURE(static_cast<int>(end));
      CAPTURE(work);
      SessionBench bench(with_backends(1));
      auto limit = std::make_shared<Limit>(2);
      bench.directory.user_clients = limit;
      TestClient holder(bench, 0, "me");
      TestClient client(bench, 0, "me");
      CHECK(limit->taken() == 2);
      if (work == "waiting") holder.query("BEGIN");
      if (work == "LONG 100" || end == End::leaving) bench.server.only().is_silent = true;
      if (!work.empty()) client.query(work);
      switch (end) {
        case End::close:
          client.close();
          break;
        case End::reset:
          client.reset();
          break;
        case End::terminate:
          client.write(frame('X', {}));
          client.close();
          break;
        case End::garbage:
          client.write(frame('!', {}));
          client.close();
          break;
        case End::server_lost:
          bench.server.only().reset();
          bench.settle();
          client.close();
          break;
        case End::leaving:
          // What it asked for still runs on the server.
          client.query("last");
          client.write(frame('X', {}));
          client.close();
          break;
        case End::drain:
          bench.start_drain();
          client.close();
          break;
        case End::stop:
          bench.sessions().stop();
          bench.settle();
          break;
      }
      CHECK(limit->taken() <= 1);
      bench.finish();
      CHECK(limit->taken() == 0);
    }
  }
}

// ---------------------------------------------------------------- max_waiters

constexpr std::string_view queue_is_full =
    "too many clients wait for a server connection of this pool (max_waiters = 2)";

std::shared_ptr<PoolShared> shared_of(SessionBench& bench) {
  return bench.slice().spec().shared;
}

TEST_CASE("one waiter more than max_waiters is refused at once, on whatever core") {
  for (const CoreId cores_count : {CoreId{1}, CoreId{2}}) {
    BenchOptions options = with_backends(1, cores_count);
    options.limits.max_waiters = 2;
    SessionBench bench(options);
    TestClient holder(bench, 0, "me");
    std::vector<TestClient> waiters;
    for (int i = 0; i < 2; ++i)
      waiters.emplace_back(bench, static_cast<CoreId>(i % cores_count), "me");
    TestClient third(bench, 0, "me");
    TestClient fourth(bench, static_cast<CoreId>(cores_count - 1), "me");
    holder.query("BEGIN");
    for (TestClient& waiter : waiters) waiter.query("mine");
    CHECK(shared_of(bench)->waiters.taken() == 2);
    third.query("never");
    CHECK(is_refused(third, queue_is_full));
    fourth.query("never");
    CHECK(is_refused(fourth, queue_is_full));
    CHECK(shared_of(bench)->waiters.taken() == 2);
    holder.query("COMMIT");
    for (TestClient& waiter : waiters) CHECK(waiter.take_tags() == "TDCZ");
    CHECK(shared_of(bench)->waiters.taken() == 0);
    CHECK(bench.pools().statistics().total.counters.waits_refused >= 1);
  }
}

TEST_CASE(
    "a waiter that is served, leaves, times out or is told an error makes room in the queue") {
  enum class Way { served, left, timed_out, told, drained };
  for (const Way way : {Way::served, Way::left, Way::timed_out, Way::told, Way::drained}) {
    CAPTURE(static_cast<int>(way));
    BenchOptions options = with_backends(1);
    options.limits.max_waiters = 2;
    options.limits.acquire_timeout = seconds(3);
    SessionBench bench(options);
    const auto shared = shared_of(bench);
    TestClient holder(bench, 0, "me");
    std::vector<TestClient> waiters;
    for (int i = 0; i < 2; ++i) waiters.emplace_back(bench, 0, "me");
    holder.query("BEGIN");
    for (TestClient& waiter : waiters) waiter.query("mine");
    CHECK(shared->waiters.taken() == 2);
    switch (way) {
      case Way::served:
        holder.query("COMMIT");
        break;
      case Way::left:
        for (TestClient& waiter : waiters) waiter.close();
        break;
      case Way::timed_out:
        bench.advance(seconds(4));
        break;
      case Way::told:
        // The only backend dies, and the node refuses the next.
        bench.server.login_error = error_reply("FATAL", "28000", "no");
        bench.server.only().reset();
        bench.advance(seconds(1));
        break;
      case Way::drained:
        bench.start_drain();
        break;
    }
    CHECK(shared->waiters.taken() == 0);
  }
}

TEST_CASE("a client that finds the queue full in its login is refused there") {
  BenchOptions options = with_backends(5);
  options.limits.max_waiters = 2;
  SessionBench bench(options);
  bench.server.holds_logins = true;
  std::vector<TestClient> clients;
  for (int i = 0; i < 3; ++i) {
    clients.emplace_back(bench);
    knock(clients.back(), "me", "db");
  }
  CHECK(is_refused(clients[2], queue_is_full));
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(clients[0].take_tags() == "RSSSSSSKZ");
  CHECK(clients[1].take_tags() == "RSSSSSSKZ");
  CHECK(shared_of(bench)->waiters.taken() == 0);
}

TEST_CASE("a client that finds an idle backend needs no place in the queue") {
  BenchOptions options = with_backends(1);
  options.limits.max_waiters = 1;
  SessionBench bench(options);
  TestClient client(bench, 0, "me");
  const auto shared = shared_of(bench);
  REQUIRE(shared->waiters.try_take());  // As if somebody waited on another core.
  client.query("select 1");
  CHECK(client.take_tags() == "TDCZ");
  CHECK_FALSE(shared->waiters.give_back());
}

// ---------------------------------------------------------------- the reserve

BenchOptions with_reserve(uint32_t max_connections, uint32_t reserve, CoreId cores_count = 1) {
  BenchOptions options = with_backends(max_connections, cores_count);
  options.limits.reserve_connections = reserve;
  options.limits.reserve_after = seconds(2);
  return options;
}

TEST_CASE("who waits for longer than reserve_after gets a connection of the reserve, for as long") {
  SessionBench bench(with_reserve(1, 1));
  TestClient holder(bench, 0, "me");
  std::vector<TestClient> waiters;
  for (int i = 0; i < 3; ++i) waiters.emplace_back(bench, 0, "me");
  holder.query("BEGIN");
  for (TestClient& waiter : waiters) waiter.query("mine");
  bench.advance(milliseconds(1900));
  CHECK(bench.server.open_sessions().size() == 1);
  CHECK(waiters[0].take_tags().empty());
  bench.advance(milliseconds(200));
  // All three were served by it, one after the other; then it was closed.
  CHECK(bench.server.sessions().size() == 2);
  for (TestClient& waiter : waiters) CHECK(waiter.take_tags() == "TDCZ");
  CHECK(bench.server.open_sessions().size() == 1);
  CHECK(shared_of(bench)->reserve.taken() == 0);
  holder.query("COMMIT");
  CHECK(holder.take_tags() == "CZCZ");
  holder.query("next");
  CHECK(holder.take_tags() == "TDCZ");
}

TEST_CASE("with its reserve a pool never exceeds both together, over all cores") {
  for (uint64_t seed = 1; seed <= 20; ++seed) {
    CAPTURE(seed);
    BenchOptions options = with_reserve(2, 2, 3);
    options.network.seed = seed;
    SessionBench bench(options);
    bench.server.holds_ends = seed % 2 == 0;
    std::vector<TestClient> clients;
    for (int i = 0; i < 9; ++i) clients.emplace_back(bench, static_cast<CoreId>(i % 3), "me");
    for (TestClient& client : clients) client.write_later(query_message("BEGIN"));
    bench.settle();
    CHECK(bench.server.open_sessions().size() == 2);
    const auto settle_within = [&] {
      while (bench.step()) REQUIRE(bench.server.open_sessions().size() <= 4);
      bench.settle();
    };
    bench.pass(seconds(3));
    settle_within();
    CHECK(bench.server.open_sessions().size() == 4);
    CHECK(shared_of(bench)->reserve.taken() == 2);
    size_t begun_count = 0;
    for (int round = 0; round < 9; ++round) {
      for (TestClient& client : clients) {
        if (client.take_tags() != "CZ") continue;
        ++begun_count;
        client.write_later(query_message("COMMIT"));
        settle_within();
        CHECK(client.take_tags().substr(0, 2) == "CZ");
      }
    }
    CHECK(begun_count == clients.size());
    // The servers let go at last.
    bench.server.holds_ends = false;
    bench.settle();
    CHECK(shared_of(bench)->reserve.taken() == 0);
    CHECK(bench.server.open_sessions().size() <= 2);
  }
}

TEST_CASE("the node's limit holds for the reserve") {
  BenchOptions options = with_reserve(1, 1);
  options.node.max_connections = 1;
  SessionBench bench(options);
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  holder.query("BEGIN");
  waiter.query("mine");
  bench.advance(seconds(3));
  CHECK(bench.server.sessions().size() == 1);
  CHECK(shared_of(bench)->reserve.taken() == 0);
  holder.query("COMMIT");
  CHECK(waiter.take_tags() == "TDCZ");
}

TEST_CASE("a connection of the reserve that nobody waits for any more is closed once it is there") {
  SessionBench bench(with_reserve(1, 1));
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  holder.query("BEGIN");
  waiter.query("mine");
  bench.server.holds_logins = true;
  bench.advance(seconds(3));
  CHECK(shared_of(bench)->reserve.taken() == 1);
  waiter.close();
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(bench.server.sessions().size() == 2);
  CHECK(bench.server.open_sessions().size() == 1);
  CHECK(shared_of(bench)->reserve.taken() == 0);
}

TEST_CASE("a drain leaves the reserve whole") {
  SessionBench bench(with_reserve(1, 2, 2));
  const auto shared = shared_of(bench);
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  TestClient other(bench, 1, "me");
  holder.query("BEGIN");
  waiter.query("BEGIN");
  other.query("BEGIN");
  bench.advance(seconds(3));
  CHECK(shared->reserve.taken() == 2);
  bench.start_drain();
  for (TestClient* client : {&holder, &waiter, &other}) client->query("COMMIT");
  CHECK(bench.is_empty());
  bench.finish();
  CHECK(bench.node.limit.taken() == 0);
}

// ---------------------------------------------------------------- wait_notice

BenchOptions with_notice(uint32_t max_connections, CoreId cores_count = 1) {
  BenchOptions options = with_backends(max_connections, cores_count);
  options.limits.wait_notice = seconds(1);
  options.limits.acquire_timeout = seconds(3);
  return options;
}

// The text of the only message that has come, which is a notice.
std::string take_notice(TestClient& client) {
  const std::vector<WireMessage> messages = client.take();
  if (tags_of(messages) != "N") return "(" + tags_of(messages) + ")";
  CHECK(field_of(messages[0], 'S') == "NOTICE");
  CHECK(field_of(messages[0], 'V') == "NOTICE");
  CHECK(field_of(messages[0], 'C') == "00000");
  return field_of(messages[0], 'M');
}

constexpr std::string_view one_of_one =
    "waiting for a server connection of user \"me\" to database \"db\": 1 of 1 are in use";

TEST_CASE("a client that waits is told after wait_notice, once in each wait") {
  SessionBench bench(with_notice(1));
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  for (int round = 0; round < 2; ++round) {
    holder.query("BEGIN");
    waiter.query("mine");
    bench.advance(milliseconds(900));
    CHECK(waiter.take_tags().empty());
    bench.advance(milliseconds(200));
    CHECK(take_notice(waiter) == one_of_one);
    bench.advance(milliseconds(1500));
    CHECK(waiter.take_tags().empty());
    holder.query("COMMIT");
    CHECK(waiter.take_tags() == "TDCZ");
    bench.advance(seconds(5));
    CHECK(waiter.take_tags().empty());
  }
}

TEST_CASE("a notice does not make a wait longer, nor end one without limit") {
  BenchOptions options = with_notice(1);
  SUBCASE("with a limit") {}
  SUBCASE("without") {
    options.limits.acquire_timeout = 0;
  }
  SUBCASE("the limit comes first") {
    options.limits.wait_notice = seconds(4);
  }
  SessionBench bench(options);
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  holder.query("BEGIN");
  waiter.query("mine");
  bench.advance(milliseconds(2900));
  CHECK(waiter.take_tags() == (options.limits.wait_notice == seconds(1) ? "N" : ""));
  bench.advance(milliseconds(200));
  if (options.limits.acquire_timeout == 0) {
    CHECK(waiter.take_tags().empty());
    holder.query("COMMIT");
    CHECK(waiter.take_tags() == "TDCZ");
  } else {
    CHECK(waiter.take_error() == "53300");
    CHECK(waiter.is_closed());
  }
}

TEST_CASE("a client that waits in its login is not told") {
  SessionBench bench(with_notice(1));
  bench.server.holds_logins = true;
  TestClient client(bench);
  knock(client, "me", "db");
  bench.advance(seconds(2));
  CHECK(client.take_tags() == "R");
  bench.server.holds_logins = false;
  bench.settle();
  CHECK(client.take_tags() == "SSSSSSKZ");
}

TEST_CASE("a notice stands between two replies") {
  SessionBench bench(with_notice(1));
  TestClient client(bench, 0, "me");
  TestClient other(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_deaf = true;
  client.query("first");
  other.query("BEGIN");
  client.query("second");  // Held until the first is answered, as somebody waits.
  bench.advance(seconds(2));
  CHECK(client.take_tags().empty());
  CHECK(take_notice(other) == one_of_one);
  server.is_deaf = false;
  bench.settle();
  CHECK(client.take_tags() == "TDCZ");
  bench.advance(milliseconds(1100));
  CHECK(take_notice(client) == one_of_one);
  other.query("COMMIT");
  CHECK(client.take_tags() == "TDCZ");
}

TEST_CASE("a notice counts the connections of all cores, and those of the reserve") {
  BenchOptions options = with_notice(2, 2);
  options.limits.reserve_connections = 1;
  options.limits.reserve_after = milliseconds(500);
  SessionBench bench(options);
  std::vector<TestClient> clients;
  for (int i = 0; i < 4; ++i) clients.emplace_back(bench, static_cast<CoreId>(i % 2), "me");
  for (TestClient& client : clients) client.query("BEGIN");
  bench.advance(milliseconds(600));
  bench.advance(milliseconds(500));
  std::string tags;
  std::string notice;
  for (TestClient& client : clients) {
    const std::vector<WireMessage> messages = client.take();
    tags += tags_of(messages);
    if (tags_of(messages) == "N") notice = field_of(messages[0], 'M');
  }
  // Two by the limit, one by the reserve, and one who waits.
  CHECK(std::count(tags.begin(), tags.end(), 'Z') == 3);
  CHECK(std::count(tags.begin(), tags.end(), 'N') == 1);
  CHECK(notice ==
        "waiting for a server connection of user \"me\" to database \"db\": 3 of 3 are in use");
}

// ---------------------------------------------------------------- a waiter that leaves unread

TEST_CASE("a waiter that has sent more than is kept and leaves is gone at once") {
  for (const bool by_reset : {false, true}) {
    for (const bool in_login : {false, true}) {
      CAPTURE(by_reset);
      CAPTURE(in_login);
      SessionBench bench(with_backends(1));
      TestClient holder(bench, 0, "me");
      holder.query("BEGIN");
      // A parameter that the pool's server must spell makes the login wait as well.
      std::vector<std::pair<std::string, std::string>> parameters;
      if (in_login) parameters.emplace_back("TimeZone", "cet");
      TestClient waiter(bench);
      waiter.write(startup_packet("me", "db", parameters));
      waiter.write(query_message(std::string(100'000, 'q')));
      CHECK(bench.slice().waiters_count() == 1);
      by_reset ? waiter.reset() : waiter.close();
      CHECK(bench.slice().waiters_count() == 0);
      CHECK(bench.sessions().count() == 1);
      holder.query("COMMIT");
      CHECK(bench.server.only().queries() == std::vector<std::string>{"BEGIN", "COMMIT"});
    }
  }
}

TEST_CASE("a client that is not read from because its server is slow may have said its last word") {
  SessionBench bench(with_backends(1));
  TestClient client(bench, 0, "me");
  ServerSession& server = bench.server.only();
  server.is_deaf = true;
  const std::string text(1'000'000, 'q');
  client.query(text);
  bench.network.shutdown_write(client.fd());
  bench.settle();
  CHECK(bench.sessions().count() == 1);
  server.is_deaf = false;
  bench.settle();
  CHECK(server.queries() == std::vector<std::string>{text});
}

TEST_CASE("a waiter that was not read from goes on being read when it is served") {
  SessionBench bench(with_backends(1));
  TestClient holder(bench, 0, "me");
  TestClient waiter(bench, 0, "me");
  const std::string text(100'000, 'q');
  for (int round = 0; round < 3; ++round) {
    holder.query("BEGIN");
    waiter.query(text);
    holder.query("COMMIT");
    CHECK(holder.take_tags() == "CZCZ");
    std::string got;
    for (int i = 0; i < 100 && got.size() < text.size(); ++i) {
      got += waiter.take_bytes();
      bench.settle();
    }
    CHECK(got == echo(text) + ready());
  }
  holder.query("BEGIN");
  waiter.query(text);
  waiter.close();
  CHECK(bench.slice().waiters_count() == 0);
}

}  // namespace
}  // namespace helios
