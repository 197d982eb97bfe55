#include "load/statistics.h"

#include <algorithm>

#include "helios/base/assert.h"

namespace helios::bench {
namespace {

// Copies as much as fits, and a zero.
template <size_t size>
void copy_text(std::string_view from, std::array<char, size>& to) {
  const size_t count = std::min(from.size(), size - 1);
  std::copy_n(from.begin(), count, to.begin());
  to[count] = '\0';
}

}  // namespace

void ErrorCounts::add(std::string_view code, std::string_view message, uint64_t count) {
  // As it is stored: a longer one would be another each time.
  code = code.substr(0, std::tuple_size_v<decltype(ErrorCount::sqlstate)> - 1);
  for (ErrorCount& entry : entries_) {
    if (code != entry.sqlstate.data()) continue;
    entry.count += count;
    return;
  }
  ErrorCount entry;
  copy_text(code, entry.sqlstate);
  copy_text(message, entry.example);
  entry.count = count;
  entries_.push_back(entry);
}

void ErrorCounts::merge(const ErrorCounts& other) {
  for (const ErrorCount& entry : other.entries_)
    add(entry.sqlstate.data(), entry.example.data(), entry.count);
}

void ErrorCounts::write_to(LoadSummary& summary) const {
  std::vector<ErrorCount> sorted = entries_;
  std::stable_sort(sorted.begin(), sorted.end(),
                   [](const ErrorCount& a, const ErrorCount& b) { return a.count > b.count; });
  const size_t count = std::min(sorted.size(), summary.errors.size());
  std::copy_n(sorted.begin(), count, summary.errors.begin());
  summary.errors_count = static_cast<uint32_t>(count);
}

uint64_t median_of(std::span<const uint64_t> sorted) {
  ASSERT(!sorted.empty());
  const uint64_t upper = sorted[sorted.size() / 2];
  const uint64_t lower = sorted[(sorted.size() - 1) / 2];
  return lower + (upper - lower) / 2;
}

ScriptSummary summary_of(std::string_view script, const Histogram& latency) {
  ScriptSummary summary;
  copy_text(script, summary.name);
  summary.latency = summary_of(latency);
  return summary;
}

LatencySummary summary_of(const Histogram& histogram) {
  LatencySummary summary;
  summary.count = histogram.count();
  summary.min = histogram.min();
  summary.mean = histogram.mean();
  summary.p50 = histogram.percentile(50);
  summary.p90 = histogram.percentile(90);
  summary.p95 = histogram.percentile(95);
  summary.p99 = histogram.percentile(99);
  summary.p999 = histogram.percentile(99.9);
  summary.p9999 = histogram.percentile(99.99);
  summary.max = histogram.max();
  return summary;
}

}  // namespace helios::bench
