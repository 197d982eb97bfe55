#include "helios/pool/statistics.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <string>
#include <vector>

#include "helios/net/resolver.h"
#include "helios/pool/pool_spec.h"

namespace helios {
namespace {

struct Nodes {
  Resolver resolver;
  Node main{options("main", 40), resolver};
  Node spare{options("spare", 0), resolver};

  static NodeOptions options(const char* name, uint32_t max_connections) {
    NodeOptions options;
    options.name = name;
    options.hosts = {"127.0.0.1"};
    options.max_connections = max_connections;
    return options;
  }
};

PoolStatistics some_pool(const Node& node, const std::string& user, uint64_t at_once) {
  PoolStatistics pool;
  pool.user = user;
  pool.database = "db";
  pool.node = &node;
  pool.max_connections = 20;
  pool.figures.counters.at_once = at_once;
  pool.figures.gauges.idle = 1;
  return pool;
}

// Columns are two spaces apart at least.
std::vector<std::string> cells_of(const std::string& line) {
  std::vector<std::string> cells;
  for (size_t at = 0; at < line.size();) {
    const size_t end = std::min(line.find("  ", at), line.size());
    cells.push_back(line.substr(at, end - at));
    at = std::min(line.find_first_not_of(' ', end), line.size());
  }
  return cells;
}

std::string cell_of(const std::vector<std::string>& lines, size_t line, const std::string& column) {
  const auto names = cells_of(lines[1]);
  const auto cells = cells_of(lines[line]);
  REQUIRE(cells.size() == names.size());
  return cells[static_cast<size_t>(std::find(names.begin(), names.end(), column) - names.begin())];
}

TEST_CASE("figures are added by kind: counts and gauges, the largest of maxima and ages") {
  PoolFigures one;
  one.gauges.leased = 2;
  one.gauges.closing = 1;
  one.gauges.oldest_wait = 5;
  one.gauges.oldest_backend = 70;
  one.gauges.newest_backend = 60;
  one.counters.at_once = 10;
  one.counters.waiters_max = 3;
  one.counters.failures[WaitFailure::timed_out] = 4;
  one.counters.closes[CloseReason::idle] = 5;
  one.counters.wait_time.record(100);
  PoolFigures other;
  other.gauges.leased = 1;
  other.gauges.oldest_wait = 9;
  other.gauges.oldest_backend = 20;
  other.gauges.newest_backend = 10;
  other.counters.waited = 7;
  other.counters.waiters_max = 2;
  other.counters.failures[WaitFailure::client_left] = 1;
  other.counters.closes[CloseReason::idle] = 1;
  other.counters.wait_time.record(300);
  one.add(other);
  one.add(PoolFigures());
  CHECK(one.gauges.total() == 4);
  CHECK(one.gauges.leased == 3);
  CHECK(one.gauges.oldest_wait == 9);
  CHECK(one.gauges.oldest_backend == 70);
  CHECK(one.gauges.newest_backend == 10);
  CHECK(one.counters.acquires() == 17);
  CHECK(one.counters.waiters_max == 3);
  CHECK(one.counters.failures.total() == 5);
  CHECK(one.counters.closes[CloseReason::idle] == 6);
  CHECK(one.counters.wait_time.count() == 2);
  CHECK(one.counters.wait_time.max() == 300);
}

TEST_CASE("the statistics of two cores have each pool, each node and the total once") {
  const Nodes nodes;
  Statistics here;
  here.add("a", some_pool(nodes.main, "a", 5));
  here.add("b", some_pool(nodes.spare, "b", 7));
  Statistics there;
  there.add("a", some_pool(nodes.main, "a", 11));
  PoolCounters gone;
  gone.at_once = 100;
  there.add_gone(nodes.main, gone);
  here.merge(there);
  REQUIRE(here.pools.size() == 2);
  CHECK(here.pools.at("a").figures.counters.at_once == 16);
  CHECK(here.pools.at("b").figures.counters.at_once == 7);
  REQUIRE(here.nodes.size() == 2);
  CHECK(here.nodes.at("main").figures.counters.at_once == 116);
  CHECK(here.nodes.at("main").figures.gauges.total() == 2);
  CHECK(here.nodes.at("spare").figures.counters.at_once == 7);
  CHECK(here.total.counters.at_once == 123);
  CHECK(here.total.gauges.idle == 3);
}

TEST_CASE("durations have three digits and a unit") {
  CHECK(duration_text(0) == "0 ns");
  CHECK(duration_text(870) == "870 ns");
  CHECK(duration_text(microseconds(1)) == "1.00 us");
  CHECK(duration_text(12'345) == "12.3 us");
  CHECK(duration_text(milliseconds(250)) == "250 ms");
  CHECK(duration_text(1'250'000) == "1.25 ms");
  CHECK(duration_text(seconds(12)) == "12.0 s");
  CHECK(duration_text(seconds(3600)) == "3600 s");
}

TEST_CASE("the table has a line for each pool, each node and the total, whose cells can be found") {
  const Nodes nodes;
  Statistics statistics;
  PoolStatistics pool = some_pool(nodes.main, "app", 5);
  pool.figures.gauges.waiters = 2;
  pool.figures.gauges.oldest_wait = milliseconds(3);
  pool.figures.counters.closes[CloseReason::idle] = 2;
  pool.figures.counters.closes[CloseReason::made_room] = 1;
  for (int i = 0; i < 100; ++i) pool.figures.counters.wait_time.record(1'000'000);
  statistics.add("a", pool);
  PoolStatistics other = some_pool(nodes.spare, std::string(60, 'x'), 7);
  other.settings = "statement_timeout=5s,lock_timeout=5s";
  statistics.add("b", other);
  const auto lines = table_lines(statistics);
  REQUIRE(lines.size() == 7);
  CHECK(lines[0].starts_with("2 pools on 2 nodes"));
  CHECK(cell_of(lines, 2, "pool") == "app@db");
  CHECK(cell_of(lines, 2, "node") == "main");
  CHECK(cell_of(lines, 2, "backends") == "1/20");
  CHECK(cell_of(lines, 2, "waiting") == "2");
  CHECK(cell_of(lines, 2, "oldest") == "3.00 ms");
  CHECK(cell_of(lines, 2, "at once") == "5");
  CHECK(cell_of(lines, 2, "closed") == "3 (2 idle, 1 made room)");
  CHECK(cell_of(lines, 2, "wait") == "1.00 ms/1.00 ms/1.00 ms");
  CHECK(cell_of(lines, 2, "connect") == "-");
  CHECK(cell_of(lines, 3, "pool") == std::string(22, 'x') + "..@db statement_timeout=5s,l..");
  CHECK(cell_of(lines, 4, "pool") == "node");
  CHECK(cell_of(lines, 4, "node") == "main");
  CHECK(cell_of(lines, 4, "backends") == "1/40");
  CHECK(cell_of(lines, 5, "backends") == "1");  // No limit.
  CHECK(cell_of(lines, 6, "pool") == "total");
  CHECK(cell_of(lines, 6, "at once") == "12");
  for (const std::string& line : lines) CHECK(line.size() < 900);
}

TEST_CASE("the table says how many are pinned, by what, and for how long the oldest") {
  const Nodes nodes;
  Statistics here;
  PoolStatistics pool = some_pool(nodes.main, "app", 5);
  pool.figures.gauges.pinned = 2;
  pool.figures.gauges.oldest_pin = seconds(12);
  pool.figures.gauges.pins[PinReason::temporary] = 2;
  pool.figures.gauges.pins[PinReason::lock] = 1;
  here.add("a", pool);
  here.add("b", some_pool(nodes.main, "other", 5));
  Statistics there;
  pool.figures.gauges.oldest_pin = seconds(2);
  there.add("a", pool);
  here.merge(there);
  const auto lines = table_lines(here);
  for (const size_t line : {size_t{2}, size_t{4}, size_t{5}}) {  // The pool, its node, the total.
    CHECK(cell_of(lines, line, "pinned") == "4");
    CHECK(cell_of(lines, line, "longest pin") == "12.0 s");
    CHECK(cell_of(lines, line, "pinned by") == "4 temporary table, 2 advisory lock");
  }
  CHECK(cell_of(lines, 3, "pinned") == "0");
  CHECK(cell_of(lines, 3, "longest pin") == "-");
  CHECK(cell_of(lines, 3, "pinned by") == "-");
}

TEST_CASE("each pin has a line, the oldest first") {
  Statistics here;
  CHECK(pin_lines(here).empty());
  here.pins.push_back({7, "app", "db", 4711, seconds(3), "advisory lock for 3.00 s"});
  Statistics there;
  there.pins.push_back({8, "me", "other", 4712, seconds(5), "LISTEN for 5.00 s"});
  here.merge(there);
  const auto lines = pin_lines(here);
  REQUIRE(lines.size() == 2);
  CHECK(lines[0] == "pin: client 8 of me@other keeps server process 4712: LISTEN for 5.00 s");
  CHECK(lines[1] == "pin: client 7 of app@db keeps server process 4711: advisory lock for 3.00 s");
  for (uint32_t i = 0; i < 200; ++i) here.pins.push_back({i, "me", "db", i, i, "x"});
  const auto many = pin_lines(here);
  REQUIRE(many.size() == 101);
  CHECK(many[0] == lines[0]);
  CHECK(many[2] == "pin: client 199 of me@db keeps server process 199: x");
  CHECK(many[100] == "pin: and 102 others");
}

TEST_CASE("of very many pools the busiest are shown, and one line has the others") {
  const Nodes nodes;
  Statistics statistics;
  for (uint64_t i = 0; i < 250; ++i)
    statistics.add(std::to_string(1000 + i), some_pool(nodes.main, "u" + std::to_string(i), i));
  const auto lines = table_lines(statistics);
  REQUIRE(lines.size() == 2 + 100 + 1 + 1 + 1);
  CHECK(cell_of(lines, 2, "pool") == "u150@db");
  CHECK(cell_of(lines, 101, "pool") == "u249@db");
  CHECK(cell_of(lines, 102, "pool") == "(150 others)");
  CHECK(cell_of(lines, 102, "at once") == std::to_string(149 * 150 / 2));
  CHECK(cell_of(lines, 102, "idle") == "150");
  CHECK(cell_of(lines, 104, "at once") == std::to_string(249 * 250 / 2));
}

TEST_CASE("the summary names every reason that occurred") {
  const Nodes nodes;
  Statistics statistics;
  PoolStatistics pool = some_pool(nodes.main, "app", 5);
  for (size_t i = 0; i < EnumCounts<WaitFailure, WaitFailure::shutting_down>::size; ++i)
    pool.figures.counters.failures[static_cast<WaitFailure>(i)] = i + 1;
  for (size_t i = 0; i < EnumCounts<CloseReason, CloseReason::shutting_down>::size; ++i)
    pool.figures.counters.closes[static_cast<CloseReason>(i)] = i + 1;
  for (size_t i = 0; i < EnumCounts<TimeLimit, TimeLimit::client_idle>::size; ++i)
    pool.figures.counters.overruns[static_cast<TimeLimit>(i)] = i + 1;
  pool.figures.counters.client_parses = 7;
  pool.figures.counters.server_parses = 2;
  pool.figures.counters.binds = 30;
  statistics.add("a", pool);
  const auto lines = summary_lines(statistics);
  REQUIRE(lines.size() == 4);
  CHECK(lines[0].find("5 at once") != std::string::npos);
  CHECK(lines[0].find("21 (1 timed out, 2 node's error, 3 client left, 4 cancelled, 5 removed, 6 "
                      "shutting down)") != std::string::npos);
  CHECK(lines[1].find("closed 36 (1 idle, 2 lifetime, 3 failed, 4 dropped, 5 single use, 6 "
                      "made room, 7 reconfigured, 8 shutting down)") != std::string::npos);
  CHECK(lines[2] ==
        "time limits exceeded: 10 (1 query, 2 idle transaction, 3 transaction, 4 client idle)");
  CHECK(lines[3] == "prepared statements: 7 parses of clients, 2 sent to servers, 30 binds");
}

}  // namespace
}  // namespace helios
