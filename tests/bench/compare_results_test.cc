#include "load/compare_results.h"

#include <doctest/doctest.h>

#include "tests/bench/compare_fixtures.h"

namespace helios::bench {
namespace {

Row row_of(uint32_t clients) {
  Row row;
  row.clients = clients;
  return row;
}

std::vector<Flaw> flaws(const Measurement& measurement) {
  std::vector<Flaw> kinds;
  for (const FoundFlaw& found : flaws_of(measurement, row_of(16))) kinds.push_back(found.flaw);
  return kinds;
}

TEST_CASE("a spread is median, smallest and largest, whatever the order") {
  CHECK_FALSE(spread_of({}).has_value());
  const std::optional<Spread> odd = spread_of({3, 1, 2});
  REQUIRE(odd.has_value());
  CHECK(odd->median == 2);
  CHECK(odd->min == 1);
  CHECK(odd->max == 3);
  CHECK(odd->count == 3);
  CHECK(spread_of({4, 1, 3, 2})->median == 2.5);
}

TEST_CASE("ratios are taken round by round, not from the medians") {
  const PeerResult base = made_result("base", {10, 20, 40});
  const PeerResult peer = made_result("peer", {5, 20, 10});
  const std::optional<Spread> ratios = ratios_over(peer, base, cpu_us);
  REQUIRE(ratios.has_value());
  CHECK(ratios->median == doctest::Approx(0.5));
  CHECK(ratios->min == doctest::Approx(0.25));
  CHECK(ratios->max == doctest::Approx(1.0));
}

TEST_CASE("a round that one of the two has not is left out of the ratios") {
  PeerResult base = made_result("base", {10, 20, 40});
  const PeerResult peer = made_result("peer", {5, 20, 10});
  base.rounds[1].error = "it ended";
  base.rounds.pop_back();
  const std::optional<Spread> ratios = ratios_over(peer, base, cpu_us);
  REQUIRE(ratios.has_value());
  CHECK(ratios->count == 1);
  CHECK(ratios->median == doctest::Approx(0.5));
}

TEST_CASE("a measurement without a pooler has throughput but no CPU time") {
  Measurement measurement = made_measurement(1, 10);
  measurement.has_pooler = false;
  CHECK_FALSE(cpu_us(measurement).has_value());
  CHECK_FALSE(rss_bytes(measurement).has_value());
  CHECK(transactions_per_second(measurement) == doctest::Approx(1000));
  CHECK(p99_us(measurement) == doctest::Approx(900));
}

TEST_CASE("a measurement that failed has no figure") {
  Measurement measurement = made_measurement(1, 10);
  measurement.error = "no result";
  for (const Figure figure : {cpu_us, user_us, system_us, voluntary_switches, rss_bytes,
                              transactions_per_second, p50_us, rss_per_client})
    CHECK_FALSE(figure(measurement).has_value());
}

TEST_CASE("what is clean has no flaw") {
  CHECK(flaws(made_measurement(1, 10)).empty());
  CHECK(flaws_text(made_result("peer", {1, 2}), row_of(16)).empty());
}

TEST_CASE("everything that makes a measurement unclean is found") {
  const auto with = [](auto change) {
    Measurement measurement = made_measurement(1, 10);
    change(measurement);
    return flaws(measurement);
  };
  using Flaws = std::vector<Flaw>;
  CHECK(with([](Measurement& m) { m.error = "x"; }) == Flaws{Flaw::no_result});
  CHECK(with([](Measurement& m) { m.load.failed = 1; }) == Flaws{Flaw::failed_transactions});
  CHECK(with([](Measurement& m) { m.load.wrong = 1; }) == Flaws{Flaw::wrong_answers});
  CHECK(with([](Measurement& m) { m.load.clients_connected = 15; }) ==
        Flaws{Flaw::clients_missing});
  CHECK(with([](Measurement& m) { m.load.transactions = 19; }) == Flaws{Flaw::few_transactions});
  CHECK(with([](Measurement& m) { m.load.transactions = 20; }).empty());
  CHECK(with([](Measurement& m) { m.load.watched.is_complete = false; }) ==
        Flaws{Flaw::incomplete_usage});
  CHECK(with([](Measurement& m) { m.foreign.steal = 0.021; }) == Flaws{Flaw::steal});
  CHECK(with([](Measurement& m) { m.foreign.steal = 0.02; }).empty());
  CHECK(with([](Measurement& m) { m.foreign.cpus = 0.051; }) == Flaws{Flaw::foreign_cpu});
  CHECK(with([](Measurement& m) { m.foreign.cpus = 0.05; }).empty());
  CHECK(with([](Measurement& m) { m.idle.runnable = 0.6; }) == Flaws{Flaw::foreign_runnable});
  CHECK(with([](Measurement& m) { m.idle_peers_cpus = 0.02; }) == Flaws{Flaw::idle_peers});
}

TEST_CASE("a server that we did not start may work, but nobody else may") {
  Measurement measurement = made_measurement(1, 10);
  measurement.has_own_server = false;
  measurement.foreign.cpus = 0.9;
  CHECK(flaws(measurement).empty());
  measurement.idle.runnable = 0.6;
  measurement.foreign.steal = 0.1;
  CHECK(flaws(measurement) == std::vector<Flaw>{Flaw::steal, Flaw::foreign_runnable});
}

TEST_CASE("idle clients need no transactions") {
  Measurement measurement = made_measurement(1, 10);
  measurement.load.transactions = 0;
  Row row = row_of(16);
  row.kind = RowKind::memory;
  CHECK(flaws_of(measurement, row).empty());
}

TEST_CASE("flaws of the memory that is subtracted count too, each with the worst amount") {
  Measurement measurement = made_measurement(1, 10);
  measurement.foreign.cpus = 0.2;
  measurement.base_flaws = {{Flaw::foreign_cpu, 0.3}, {Flaw::steal, 0.1}};
  const std::vector<FoundFlaw> found = flaws_of(measurement, row_of(16));
  REQUIRE(found.size() == 2);
  CHECK(found[0].flaw == Flaw::foreign_cpu);
  CHECK(found[0].amount == 0.3);
  CHECK(found[1].flaw == Flaw::steal);
}

TEST_CASE("a load average that our own processes raise is no flaw") {
  Measurement measurement = made_measurement(1, 10);
  measurement.load_average = 9;
  CHECK(flaws(measurement).empty());
}

TEST_CASE("a footnote names the rounds and the worst of them") {
  PeerResult result = made_result("peer", {1, 2, 3});
  result.rounds[0].foreign.cpus = 0.2;
  result.rounds[2].foreign.cpus = 0.37;
  result.rounds[1].error = "the pooler has ended";
  CHECK(flaws_text(result, row_of(16)) ==
        "round 2: no result (the pooler has ended); rounds 1, 3: other processes used up to 37 % "
        "of a CPU");
  for (Measurement& measurement : result.rounds) measurement.foreign.cpus = 0.5;
  CHECK(flaws_text(made_result("peer", {1}), row_of(15)).empty());
}

TEST_CASE("failed transactions come with the first error") {
  PeerResult result = made_result("peer", {1});
  LoadSummary& load = result.rounds[0].load;
  load.failed = 3;
  load.errors_count = 1;
  load.errors[0].sqlstate = {'5', '3', '3', '0', '0'};
  load.errors[0].example = {'f', 'u', 'l', 'l'};
  CHECK(flaws_text(result, row_of(16)) == "round 1: up to 3 transactions failed (53300 full)");
}

}  // namespace
}  // namespace helios::bench
