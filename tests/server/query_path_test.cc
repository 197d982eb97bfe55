// The path of a query takes no allocation and no lock, and does not ask what time it is by the wall
// clock: each case warms up, then counts what the core's thread asks for while the same goes on.
#include <doctest/doctest.h>

#include <time.h>

#include <chrono>
#include <cstdlib>
#include <deque>
#include <functional>
#include <string>
#include <thread>

#include "helios/wire/message.h"
#include "server/call_counter.h"
#include "server/proxy_bench.h"

namespace helios::test {
namespace {

constexpr int warm_up_rounds = 30;
constexpr int counted_rounds = 100;

// Each round is the same work, answered when it returns.
CoreCalls calls_of(int rounds, const std::function<void()>& round) {
  const CoreCalls before = core_calls();
  for (int i = 0; i < rounds; ++i) round();
  return core_calls_since(before);
}

// How many chunks a core holds at its peak depends on what meets, so that the peak may still grow
// once after the warm-up: counted anew then. What takes something for each query takes it each
// time.
void check_takes_nothing(const std::function<void()>& round) {
  constexpr int attempts_max = 3;
  (void)calls_of(warm_up_rounds, round);
  CoreCalls calls = calls_of(counted_rounds, round);
  for (int i = 1; i < attempts_max && calls != CoreCalls(); ++i)
    calls = calls_of(counted_rounds, round);
  CHECK(calls.allocations == 0);
  CHECK(calls.locks == 0);
  CHECK(calls.wall_clock_reads == 0);
}

// The same for work whose need of memory depends on what meets: its peak may grow a little now and
// then.
void check_takes_little(const std::function<void()>& round) {
  (void)calls_of(warm_up_rounds, round);
  const CoreCalls calls = calls_of(counted_rounds, round);
  CHECK(calls.allocations < 4 * counted_rounds);
  CHECK(calls.locks == 0);
  CHECK(calls.wall_clock_reads == 0);
}

// A pool with its clients, which leave first.
struct Scene {
  Scene(PoolMode mode, uint32_t backends_count, size_t clients_count)
      : proxy(mode, backends_count) {
    for (size_t i = 0; i < clients_count; ++i) clients.emplace_back(proxy.port());
  }

  // Each client sends, then each reads.
  void query_all(std::string_view text, std::string_view expected) {
    for (Client& client : clients) client.write_query(text);
    for (Client& client : clients) CHECK(client.read().tags == expected);
  }

  ProxyBench proxy;
  std::deque<Client> clients;
};

void write_text_message(MessageWriter& writer, uint8_t tag, std::string_view body) {
  writer.begin(tag);
  writer.add_bytes(as_bytes(body));
  writer.end();
}

// Bind, Describe and Execute of a statement without parameters, its portal unnamed, and Sync.
void write_execution(MessageWriter& writer, std::string_view statement) {
  writer.begin(frontend_tag::bind);
  writer.add_text("");
  writer.add_text(statement);
  for (int i = 0; i < 3; ++i) writer.add_int16(0);
  writer.end();
  write_text_message(writer, frontend_tag::describe, std::string_view("P\0", 2));
  write_text_message(writer, frontend_tag::execute, std::string_view("\0\0\0\0\0", 5));
  write_sync(writer);
}

void write_parse(MessageWriter& writer, std::string_view statement, std::string_view text) {
  writer.begin(frontend_tag::parse);
  writer.add_text(statement);
  writer.add_text(text);
  writer.add_int16(0);
  writer.end();
}

void check_extended(Client& client) {
  MessageWriter batch;
  write_parse(batch, "", "select 7");
  write_execution(batch, "");
  check_takes_nothing([&] {
    client.write(batch);
    CHECK(client.read().tags == "12TDCZ");
  });
}

void check_copy_in(Client& client) {
  MessageWriter data;
  write_text_message(data, frontend_tag::copy_data, std::string(5000, 'x') + "\n");
  write_text_message(data, frontend_tag::copy_done, "");
  check_takes_nothing([&] {
    client.write_query("copy t from stdin");
    CHECK(client.read_to(backend_tag::copy_in_response).tags == "G");
    client.write(data);
    CHECK(client.read().tags == "CZ");
  });
}

// What every pool mode has.
void check_common(Scene& scene) {
  Client& client = scene.clients.front();
  SUBCASE("simple queries") {
    check_takes_nothing([&] { scene.query_all("select 1", "TDCZ"); });
  }
  SUBCASE("a pipeline of simple queries") {
    MessageWriter queries;
    for (int i = 0; i < 20; ++i) write_query(queries, "select 1");
    check_takes_nothing([&] {
      client.write(queries);
      (void)client.read(20);
    });
  }
  SUBCASE("extended batches") {
    check_extended(client);
  }
  SUBCASE("a result of 1 MB") {
    check_takes_nothing([&] {
      const Answers answers = client.query("select big");
      CHECK(answers.tags == "TDCZ");
      CHECK(answers.size > 1'000'000);
    });
  }
  SUBCASE("a query of 1 MB") {
    const std::string text = "select '" + std::string(1'000'000, 'x') + "'";
    check_takes_nothing([&] { CHECK(client.query(text).tags == "TDCZ"); });
  }
  SUBCASE("COPY FROM STDIN") {
    check_copy_in(client);
  }
  SUBCASE("COPY TO STDOUT") {
    check_takes_nothing([&] { CHECK(client.query("copy t to stdout").tags == "HdcCZ"); });
  }
  SUBCASE("an error of the server") {
    check_takes_nothing([&] {
      CHECK(client.query("select 1/0").tags == "EZ");
      CHECK(client.query("select 1").tags == "TDCZ");
    });
  }
  SUBCASE("a Sync of its own") {
    MessageWriter sync;
    write_sync(sync);
    check_takes_nothing([&] {
      client.write(sync);
      CHECK(client.read().tags == "Z");
    });
  }
}

// Every query waits: the only backend is another client's until all have asked.
void check_waiters(Scene& scene, std::string_view begin, std::string_view commit) {
  Client& holder = scene.clients.front();
  check_takes_nothing([&] {
    CHECK(holder.query(begin).tags == "CZ");
    for (size_t i = 1; i < scene.clients.size(); ++i) scene.clients[i].write_query("select 1");
    CHECK(holder.query(commit).tags == "CZ");
    for (size_t i = 1; i < scene.clients.size(); ++i) CHECK(scene.clients[i].read().tags == "TDCZ");
  });
}

}  // namespace

TEST_CASE("the counters count: a login allocates, the first connect of a pool locks, a log dates") {
  const ProxyBench proxy(PoolMode::transaction, 2);
  const CoreCalls before = core_calls();
  Client first(proxy.port());
  MessageWriter unknown;
  write_text_message(unknown, '?', "");
  first.write(unknown);
  CHECK(first.read_to(backend_tag::error_response).tags == "E");
  const CoreCalls calls = core_calls_since(before);
  CHECK(calls.allocations > 0);
  if (!counts_everything()) return;
  CHECK(calls.locks > 0);
  CHECK(calls.wall_clock_reads > 0);
}

TEST_CASE("getting a backend and giving it back takes no lock") {
  SUBCASE("at once, for a query") {
    Scene scene(PoolMode::statement, 4, 4);
    check_takes_nothing([&] { scene.query_all("select 1", "TDCZ"); });
  }
  SUBCASE("at once, for a block") {
    Scene scene(PoolMode::transaction, 4, 4);
    check_takes_nothing([&] {
      scene.query_all("begin", "CZ");
      scene.query_all("commit", "CZ");
    });
  }
  SUBCASE("after a wait") {
    Scene scene(PoolMode::transaction, 1, 8);
    check_waiters(scene, "begin", "commit");
  }
}

// Beyond idle_timeout and max_lifetime, or before the beginning of everything.
TEST_CASE("the age of a backend goes by the monotonic clock: the wall clock may jump") {
  if (!counts_everything()) return;
  constexpr int64_t two_days = 2 * 86'400;
  Scene scene(PoolMode::transaction, 2, 2);
  scene.query_all("begin", "CZ");
  scene.query_all("commit", "CZ");
  const uint32_t before = scene.proxy.server_connections_count();
  for (const int64_t jump : {two_days, -2 * two_days, two_days}) {
    const time_t shown = time(nullptr);
    move_wall_clock(jump);
    CHECK(std::abs(time(nullptr) - shown - jump) < 60);
    // The pool looks at what is idle every second.
    std::this_thread::sleep_for(std::chrono::milliseconds(1200));
    scene.query_all("begin", "CZ");
    scene.query_all("commit", "CZ");
    CHECK(scene.proxy.server_connections_count() == before);
  }
}

TEST_CASE("transaction mode") {
  Scene scene(PoolMode::transaction, 4, 4);
  check_common(scene);
  SUBCASE("a transaction block") {
    check_takes_nothing([&] {
      scene.query_all("begin", "CZ");
      scene.query_all("select 1", "TDCZ");
      scene.query_all("insert into t values (1)", "CZ");
      scene.query_all("commit", "CZ");
    });
  }
  SUBCASE("a prepared statement, executed again and again") {
    Client& client = scene.clients.front();
    MessageWriter preparation;
    write_parse(preparation, "mine", "select 7");
    write_sync(preparation);
    client.write(preparation);
    CHECK(client.read().tags == "1Z");
    MessageWriter execution;
    write_execution(execution, "mine");
    check_takes_nothing([&] {
      client.write(execution);
      CHECK(client.read().tags == "2TDCZ");
    });
  }
}

TEST_CASE("prepared statements of many clients on few backends") {
  Scene scene(PoolMode::transaction, 2, 16);
  for (size_t i = 0; i < scene.clients.size(); ++i) {
    MessageWriter preparation;
    write_parse(preparation, "mine", "select " + std::to_string(i % 3));
    write_sync(preparation);
    scene.clients[i].write(preparation);
    CHECK(scene.clients[i].read().tags == "1Z");
  }
  MessageWriter execution;
  write_execution(execution, "mine");
  check_takes_nothing([&] {
    for (Client& client : scene.clients) client.write(execution);
    for (Client& client : scene.clients) CHECK(client.read().tags == "2TDCZ");
  });
}

TEST_CASE("statement mode") {
  Scene scene(PoolMode::statement, 4, 4);
  check_common(scene);
}

TEST_CASE("session mode") {
  Scene scene(PoolMode::session, 4, 4);
  check_common(scene);
}

TEST_CASE("more clients than backends") {
  SUBCASE("transaction mode, every query waits") {
    Scene scene(PoolMode::transaction, 1, 8);
    check_waiters(scene, "begin", "commit");
  }
  SUBCASE("transaction mode") {
    Scene scene(PoolMode::transaction, 2, 16);
    check_takes_nothing([&] { scene.query_all("select 1", "TDCZ"); });
  }
  SUBCASE("statement mode") {
    Scene scene(PoolMode::statement, 2, 16);
    check_takes_nothing([&] { scene.query_all("select 1", "TDCZ"); });
  }
}

// More chunks than a core keeps without need.
TEST_CASE("much is buffered at once") {
  SUBCASE("results of 1 MB for many clients") {
    Scene scene(PoolMode::transaction, 16, 16);
    check_takes_little([&] { scene.query_all("select big", "TDCZ"); });
  }
  SUBCASE("hundreds of waiting clients") {
    Scene scene(PoolMode::transaction, 2, 320);
    check_takes_little([&] { scene.query_all("select 1", "TDCZ"); });
  }
}

TEST_CASE("parameters are set anew when a backend changes hands") {
  const ProxyBench proxy(PoolMode::transaction, 1);
  const std::vector<std::string> values = {"GMT", "UTC", "Zulu"};
  std::deque<Client> clients;
  const auto add_client = [&](const std::vector<TextPair>& parameters) {
    clients.emplace_back(proxy.port(), parameters);
  };
  const auto ask_all = [&](std::string_view text) {
    for (size_t i = 0; i < clients.size(); ++i)
      CHECK(clients[i].query(text).row.ends_with(values[i]));
  };
  SUBCASE("one that differs") {
    for (const std::string& value : values) add_client({{"application_name", value}});
    check_takes_nothing([&] { ask_all("show application_name"); });
  }
  SUBCASE("two that differ") {
    for (const std::string& value : values)
      add_client({{"application_name", value}, {"TimeZone", value}});
    check_takes_nothing([&] { ask_all("show timezone"); });
  }
}

}  // namespace helios::test
