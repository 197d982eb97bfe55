#include "load/compare_row.h"

#include <doctest/doctest.h>

#include <set>

#include "load/compare_peer.h"
#include "load/compare_placement.h"
#include "load/compare_run.h"
#include "load/script.h"

namespace helios::bench {
namespace {

TEST_CASE("rows have names of their own and scripts that exist") {
  std::set<std::string> names;
  for (const Row& row : all_rows()) {
    CHECK_MESSAGE(names.insert(row.name).second, row.name);
    const std::vector<ScriptChoice> choices = {{row.script, 1}};
    CHECK_MESSAGE(load_scripts(choices).ok(), row.name);
    for (const std::string& peer : row.more_peers) CHECK_MESSAGE(parse_peer(peer).ok(), peer);
  }
}

TEST_CASE("rows are chosen by name, in the order asked for") {
  const std::vector<std::string> names = {"unix-16", "simple-1"};
  const Result<std::vector<Row>> rows = choose_rows(names);
  REQUIRE(rows.ok());
  REQUIRE(rows.value().size() == 2);
  CHECK(rows.value()[0].unix_sockets);
  CHECK(rows.value()[1].clients == 1);
  CHECK(choose_rows(std::vector<std::string>{"main"}).value().size() == all_rows().size());
  CHECK(choose_rows(std::vector<std::string>{"quick"}).value().size() == quick_rows().size());
}

TEST_CASE("an unknown row is refused with the nearest name") {
  const Result<std::vector<Row>> rows = choose_rows(std::vector<std::string>{"simpel-16"});
  REQUIRE_FALSE(rows.ok());
  CHECK(rows.error().find("did you mean \"simple-16\"?") != std::string::npos);
  CHECK_FALSE(choose_rows({}).ok());
}

TEST_CASE("the quick rows are few and the list names every row") {
  CHECK(quick_rows().size() >= 3);
  CHECK(quick_rows().size() <= 8);
  const std::string list = list_of_rows();
  for (const Row& row : all_rows()) CHECK(list.find(row.name) != std::string::npos);
}

TEST_CASE("lists are split and empty parts dropped") {
  CHECK(split_list("a,b,,c,", ',') == std::vector<std::string>{"a", "b", "c"});
  CHECK(split_list("", ',').empty());
}

TEST_CASE("the order of the peers is reversed from round to round") {
  CHECK(order_of_round(0, 3) == std::vector<size_t>{0, 1, 2});
  CHECK(order_of_round(1, 3) == std::vector<size_t>{2, 1, 0});
  CHECK(order_of_round(2, 3) == std::vector<size_t>{0, 1, 2});
}

TEST_CASE("the whole default comparison is estimated at less than 40 minutes") {
  CompareOptions options;
  options.rows = all_rows();
  for (const char* name : {"pgbouncer", "heliosproxy", "haproxy", "pgpool2", "direct"})
    options.peers.push_back(parse_peer(name).value());
  CHECK(estimated_seconds(options) < 2400);
  options.rows = quick_rows();
  options.rounds = 3;
  options.duration = milliseconds(500);
  CHECK(estimated_seconds(options) < 180);
}

TEST_CASE("placements pin as they say") {
  Place place = Place::free;
  CHECK(read_place("two", place).empty());
  CHECK(place == Place::two);
  CHECK(read_place("tow", place).find("did you mean \"two\"?") != std::string::npos);

  const Placement one = make_placement(Place::one, {2, 5}).value();
  CHECK(one.pooler_cpus == std::vector<int>{5});
  CHECK(one.load_cpus == one.pooler_cpus);
  CHECK(one.batch_policy);
  const Placement two = make_placement(Place::two, {2, 5}).value();
  CHECK(two.pooler_cpus != two.load_cpus);
  CHECK_FALSE(two.batch_policy);
  CHECK_FALSE(make_placement(Place::two, {2}).ok());
  CHECK(make_placement(Place::free, {2}).value().pooler_cpus.empty());
  CHECK(placement_text(one).find("SCHED_BATCH") != std::string::npos);
}

TEST_CASE("load and server have as many threads as the largest pooler, where nothing is pinned") {
  Placement free = make_placement(Place::free, {2, 5}).value();
  CHECK(free.load_cores == 1);
  give_load_cores(free, 4);
  CHECK(free.load_cores == 4);
  Placement one = make_placement(Place::one, {2, 5}).value();
  give_load_cores(one, 4);
  CHECK(one.load_cores == 1);
}

}  // namespace
}  // namespace helios::bench
