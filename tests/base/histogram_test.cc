#include "helios/base/histogram.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <random>
#include <vector>

namespace helios {
namespace {

// Whether `value` is within 1 % of `exact`.
bool is_near(uint64_t value, uint64_t exact) {
  const uint64_t difference = value > exact ? value - exact : exact - value;
  return difference * 100 <= exact;
}

uint64_t exact_percentile(std::vector<uint64_t>& sorted, double percent) {
  const auto rank =
      static_cast<size_t>(percent / 100.0 * static_cast<double>(sorted.size()) - 1e-6);
  return sorted[std::min(rank, sorted.size() - 1)];
}

}  // namespace

TEST_CASE("an empty histogram answers zero to everything") {
  const Histogram histogram;
  CHECK(histogram.count() == 0);
  CHECK(histogram.min() == 0);
  CHECK(histogram.max() == 0);
  CHECK(histogram.mean() == 0);
  CHECK(histogram.percentile(50) == 0);
}

TEST_CASE("small values are exact") {
  Histogram histogram;
  for (uint64_t value = 1; value <= 100; ++value) histogram.record(value);
  CHECK(histogram.count() == 100);
  CHECK(histogram.min() == 1);
  CHECK(histogram.max() == 100);
  CHECK(histogram.mean() == 50);
  CHECK(histogram.percentile(0) == 1);
  CHECK(histogram.percentile(50) == 50);
  CHECK(histogram.percentile(99) == 99);
  CHECK(histogram.percentile(100) == 100);
}

TEST_CASE("a single value comes back within 1 %, whatever its size") {
  std::mt19937_64 random(1);
  for (uint64_t size = 1; size < Histogram::value_max; size *= 2) {
    for (int i = 0; i < 20; ++i) {
      const uint64_t value = size + random() % size;
      Histogram histogram;
      histogram.record(value);
      histogram.record(1);
      histogram.record(Histogram::value_max);
      // The neighbours keep the answer from being clamped to the value itself.
      REQUIRE(is_near(histogram.percentile(60), value));
    }
  }
}

TEST_CASE("percentiles of many values agree with sorting them") {
  std::mt19937_64 random(2);
  std::exponential_distribution<double> latency(1e-6);
  Histogram histogram;
  std::vector<uint64_t> values;
  for (int i = 0; i < 100'000; ++i) {
    values.push_back(static_cast<uint64_t>(latency(random)) + 1);
    histogram.record(values.back());
  }
  std::sort(values.begin(), values.end());
  for (const double percent : {1.0, 50.0, 90.0, 95.0, 99.0, 99.9, 99.99})
    CHECK(is_near(histogram.percentile(percent), exact_percentile(values, percent)));
  CHECK(histogram.min() == values.front());
  CHECK(histogram.max() == values.back());
}

TEST_CASE("merging is the same as recording into one") {
  std::mt19937_64 random(3);
  Histogram one;
  Histogram left;
  Histogram right;
  for (int i = 0; i < 10'000; ++i) {
    const uint64_t value = random() % 1'000'000;
    one.record(value);
    (i % 3 == 0 ? left : right).record(value);
  }
  left.merge(right);
  left.merge(Histogram());
  CHECK(left.count() == one.count());
  CHECK(left.mean() == one.mean());
  CHECK(left.min() == one.min());
  CHECK(left.max() == one.max());
  for (const double percent : {0.0, 10.0, 50.0, 99.0, 100.0})
    CHECK(left.percentile(percent) == one.percentile(percent));
}

TEST_CASE("a coarse histogram is off by 7 % at the most") {
  std::mt19937_64 random(4);
  for (int i = 0; i < 1000; ++i) {
    const uint64_t value = 1 + random() % (1ULL << (1 + i % 40));
    CoarseHistogram histogram;
    histogram.record(value);
    // The neighbours keep the answer from being clamped to the value itself.
    histogram.record(0);
    histogram.record(Histogram::value_max);
    const uint64_t answer = histogram.percentile(60);
    const uint64_t difference = answer > value ? answer - value : value - answer;
    REQUIRE(difference * 100 <= value * 7);
  }
  static_assert(sizeof(CoarseHistogram) < 3000);
}

TEST_CASE("values beyond the last bucket are counted in it, and the largest is exact") {
  Histogram histogram;
  histogram.record(Histogram::value_max * 3);
  histogram.record(5);
  CHECK(histogram.count() == 2);
  CHECK(histogram.max() == Histogram::value_max * 3);
  CHECK(histogram.percentile(100) >= Histogram::value_max / 2);
  histogram.clear();
  CHECK(histogram.count() == 0);
  CHECK(histogram.max() == 0);
}

}  // namespace helios
