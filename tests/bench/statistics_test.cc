#include "load/statistics.h"

#include <doctest/doctest.h>

#include <string>
#include <vector>

namespace helios::bench {

TEST_CASE("errors are counted by code, the most frequent first, with the first message") {
  ErrorCounts errors;
  errors.add("22012", "division by zero");
  errors.add("io", "gone");
  errors.add("io", "gone again");
  ErrorCounts others;
  others.add("io", "elsewhere", 3);
  errors.merge(others);
  LoadSummary summary;
  errors.write_to(summary);
  REQUIRE(summary.errors_count == 2);
  CHECK(std::string(summary.errors[0].sqlstate.data()) == "io");
  CHECK(summary.errors[0].count == 5);
  CHECK(std::string(summary.errors[0].example.data()) == "gone");
  CHECK(std::string(summary.errors[1].sqlstate.data()) == "22012");
}

TEST_CASE("long messages are cut, and no more codes are told than fit") {
  ErrorCounts errors;
  for (int i = 0; i < 40; ++i) errors.add(std::to_string(10'000 + i), std::string(1000, 'x'));
  LoadSummary summary;
  errors.write_to(summary);
  CHECK(summary.errors_count == summary.errors.size());
  const std::string example = summary.errors[0].example.data();
  CHECK(example == std::string(summary.errors[0].example.size() - 1, 'x'));
}

TEST_CASE("a code that is too long is one code all the same") {
  ErrorCounts errors;
  errors.add("123456789", "first");
  errors.add("123456789", "second");
  errors.add("1234567", "as it is stored");
  LoadSummary summary;
  errors.write_to(summary);
  REQUIRE(summary.errors_count == 1);
  CHECK(summary.errors[0].count == 3);
  CHECK(std::string(summary.errors[0].sqlstate.data()) == "1234567");
}

TEST_CASE("a median is the one in the middle, or lies between two") {
  CHECK(median_of(std::vector<uint64_t>{7}) == 7);
  CHECK(median_of(std::vector<uint64_t>{2, 9}) == 5);
  CHECK(median_of(std::vector<uint64_t>{1, 4, 100}) == 4);
  CHECK(median_of(std::vector<uint64_t>{1, 4, 6, 100}) == 5);
}

TEST_CASE("a summary of a histogram has its percentiles in their places") {
  Histogram histogram;
  for (uint64_t i = 1; i <= 200; ++i) histogram.record(i);
  const LatencySummary summary = summary_of(histogram);
  CHECK(summary.count == 200);
  CHECK(summary.min == 1);
  CHECK(summary.p50 == 100);
  CHECK(summary.p90 == 180);
  CHECK(summary.p95 == 190);
  CHECK(summary.p99 == 198);
  CHECK(summary.p999 == 200);
  CHECK(summary.p9999 == 200);
  CHECK(summary.max == 200);
}

TEST_CASE("the summary of a script has its name, cut to size, and its latencies") {
  Histogram histogram;
  histogram.record(7);
  CHECK(std::string(summary_of("mixed 1 ms", histogram).name.data()) == "mixed 1 ms");
  const ScriptSummary summary = summary_of(std::string(1000, 'x'), histogram);
  CHECK(summary.name.back() == '\0');
  CHECK(std::string(summary.name.data()).size() == summary.name.size() - 1);
  CHECK(summary.latency.count == 1);
  CHECK(summary.latency.max == 7);
}

TEST_CASE("a report is added to, and taken from") {
  CoreReport report;
  CoreReport::add(report.connected, 2U);
  CoreReport::add(report.connected, UINT32_MAX);
  CHECK(report.connected.load() == 1);
}

}  // namespace helios::bench
