// Statistics as people read them.
#include <algorithm>
#include <cstdio>
#include <utility>

#include "helios/pool/pool_spec.h"
#include "helios/pool/statistics.h"

namespace helios {
namespace {

// More lines than this at once could overflow the log.
constexpr size_t pools_shown_max = 100;
constexpr size_t pins_shown_max = 100;
// A name, or a pool's settings, are cut to this in the table.
constexpr size_t name_size_max = 24;

using Row = std::vector<std::string>;

const Row column_names = {
    "pool",        "node",          "backends",     "leased",         "pinned",
    "longest pin", "pinned by",     "idle",         "connecting",     "settling",
    "closing",     "free",          "clients",      "waiting",        "most",
    "oldest",      "at once",       "waited",       "refused",        "failed",
    "wait",        "connect",       "in use",       "connects",       "failed connects",
    "closed",      "tests",         "failed tests", "recovered",      "resets",
    "pins",        "state probes",  "moved in",     "moved out",      "overruns",
    "parses",      "server parses", "binds",        "oldest backend", "newest backend"};

std::string text_of(uint64_t number) {
  return std::to_string(number);
}

std::string count_text(size_t count, const std::string& what) {
  return std::to_string(count) + " " + what + (count == 1 ? "" : "s");
}

std::string cut(const std::string& name) {
  return name.size() <= name_size_max ? name : name.substr(0, name_size_max - 2) + "..";
}

std::string limit_text(uint32_t limit) {
  return limit == 0 ? "" : "/" + std::to_string(limit);
}

// "3 idle, 2 failed": those that are not 0.
template <typename Enum, Enum last>
std::string parts_text(const EnumCounts<Enum, last>& counts) {
  std::string reasons;
  for (size_t i = 0; i < counts.size; ++i) {
    const Enum value = static_cast<Enum>(i);
    if (counts[value] == 0) continue;
    reasons += (reasons.empty() ? "" : ", ") + text_of(counts[value]) + " " + to_text(value);
  }
  return reasons;
}

// "5 (3 idle, 2 failed)".
template <typename Enum, Enum last>
std::string reasons_text(const EnumCounts<Enum, last>& counts) {
  const std::string reasons = parts_text(counts);
  return text_of(counts.total()) + (reasons.empty() ? "" : " (" + reasons + ")");
}

std::string percentile_text(const CoarseHistogram& histogram, double percent) {
  return duration_text(static_cast<Nanoseconds>(histogram.percentile(percent)));
}

std::string histogram_text(const CoarseHistogram& histogram) {
  if (histogram.count() == 0) return "-";
  return percentile_text(histogram, 50) + "/" + percentile_text(histogram, 99) + "/" +
         percentile_text(histogram, 100);
}

std::string age_text(uint64_t count, Nanoseconds age) {
  return count == 0 ? "-" : duration_text(age);
}

Row row_of(std::string name, std::string node, const std::string& limit,
           const PoolFigures& figures) {
  const PoolGauges& gauges = figures.gauges;
  const PoolCounters& counters = figures.counters;
  return {std::move(name),
          std::move(node),
          text_of(gauges.total()) + limit,
          text_of(gauges.leased),
          text_of(gauges.pinned),
          age_text(gauges.pinned, gauges.oldest_pin),
          gauges.pinned == 0 ? "-" : parts_text(gauges.pins),
          text_of(gauges.idle),
          text_of(gauges.connecting),
          text_of(gauges.settling),
          text_of(gauges.closing),
          text_of(gauges.permits_free),
          text_of(gauges.clients),
          text_of(gauges.waiters),
          text_of(counters.waiters_max),
          age_text(gauges.waiters, gauges.oldest_wait),
          text_of(counters.at_once),
          text_of(counters.waited),
          text_of(counters.waits_refused),
          reasons_text(counters.failures),
          histogram_text(counters.wait_time),
          histogram_text(counters.connect_time),
          histogram_text(counters.use_time),
          text_of(counters.connects),
          text_of(counters.connect_failures),
          reasons_text(counters.closes),
          text_of(counters.tests),
          text_of(counters.tests_failed),
          text_of(counters.recoveries),
          text_of(counters.resets),
          reasons_text(counters.pins),
          text_of(counters.state_probes),
          text_of(counters.moves_in),
          text_of(counters.moves_out),
          reasons_text(counters.overruns),
          text_of(counters.client_parses),
          text_of(counters.server_parses),
          text_of(counters.binds),
          age_text(gauges.total(), gauges.oldest_backend),
          age_text(gauges.total(), gauges.newest_backend)};
}

Row row_of(const PoolStatistics& pool) {
  const std::string name = cut(pool.user) + "@" + cut(pool.database) +
                           (pool.settings.empty() ? "" : " " + cut(pool.settings));
  return row_of(name, cut(pool.node->name), limit_text(pool.max_connections), pool.figures);
}

using Place = std::pair<size_t, const PoolStatistics*>;

bool is_busier(const Place& a, const Place& b) {
  return a.second->figures.counters.acquires() > b.second->figures.counters.acquires();
}

// The busiest ones, in the order of their keys; `others` gets the rest.
std::vector<Place> choose_pools(const Statistics& statistics, PoolFigures& others) {
  std::vector<Place> places;
  for (const auto& [key, pool] : statistics.pools) places.emplace_back(places.size(), &pool);
  if (places.size() <= pools_shown_max) return places;
  const auto end = places.begin() + pools_shown_max;
  std::nth_element(places.begin(), end, places.end(), is_busier);
  for (auto place = end; place != places.end(); ++place) others.add(place->second->figures);
  places.erase(end, places.end());
  std::sort(places.begin(), places.end());
  return places;
}

// The cells of a column begin at one place.
std::vector<std::string> aligned(const std::vector<Row>& rows) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const Row& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  std::vector<std::string> lines;
  for (const Row& row : rows) {
    std::string line;
    for (size_t i = 0; i + 1 < row.size(); ++i)
      line += row[i] + std::string(widths[i] - row[i].size() + 2, ' ');
    lines.push_back(line + row.back());
  }
  return lines;
}

}  // namespace

std::string duration_text(Nanoseconds duration) {
  if (duration < microseconds(1)) return std::to_string(duration) + " ns";
  struct Unit {
    Nanoseconds size;
    const char* name;
  };
  constexpr Unit units[] = {{seconds(1), "s"}, {milliseconds(1), "ms"}, {microseconds(1), "us"}};
  const Unit* unit = units;
  while (duration < unit->size) ++unit;
  const double value = static_cast<double>(duration) / static_cast<double>(unit->size);
  char text[32];
  std::snprintf(text, sizeof(text), "%.*f %s",
                value < 9.995   ? 2
                : value < 99.95 ? 1
                                : 0,
                value, unit->name);
  return text;
}

std::vector<std::string> table_lines(const Statistics& statistics) {
  std::vector<Row> rows = {column_names};
  PoolFigures others;
  const auto shown = choose_pools(statistics, others);
  for (const auto& [place, pool] : shown) rows.push_back(row_of(*pool));
  if (shown.size() < statistics.pools.size())
    rows.push_back(row_of("(" + std::to_string(statistics.pools.size() - shown.size()) + " others)",
                          "-", "", others));
  for (const auto& [name, node] : statistics.nodes)
    rows.push_back(row_of("node", cut(name), limit_text(node.node->limit.max()), node.figures));
  rows.push_back(row_of("total", "-", "", statistics.total));
  std::vector<std::string> lines = aligned(rows);
  lines.insert(lines.begin(), count_text(statistics.pools.size(), "pool") + " on " +
                                  count_text(statistics.nodes.size(), "node") +
                                  "; durations: median/99 of 100/longest");
  return lines;
}

std::vector<std::string> pin_lines(const Statistics& statistics) {
  std::vector<const PinStatistics*> pins;
  for (const PinStatistics& pin : statistics.pins) pins.push_back(&pin);
  const auto is_longer = [](const PinStatistics* a, const PinStatistics* b) {
    return a->longest > b->longest;
  };
  std::stable_sort(pins.begin(), pins.end(), is_longer);
  const size_t shown_count = std::min(pins.size(), pins_shown_max);
  std::vector<std::string> lines;
  for (size_t i = 0; i < shown_count; ++i) {
    const PinStatistics& pin = *pins[i];
    lines.push_back("pin: client " + text_of(pin.client) + " of " + pin.user + "@" + pin.database +
                    " keeps server process " + text_of(pin.process_id) + ": " + pin.reasons);
  }
  if (shown_count < pins.size())
    lines.push_back("pin: and " + count_text(pins.size() - shown_count, "other"));
  return lines;
}

std::vector<std::string> summary_lines(const Statistics& statistics) {
  const PoolCounters& counters = statistics.total.counters;
  return {"acquires: " + text_of(counters.at_once) + " at once, " + text_of(counters.waited) +
              " waited, at most " + text_of(counters.waiters_max) + " on one core, " +
              text_of(counters.waits_refused) + " refused, failed " +
              reasons_text(counters.failures) + ", wait " + histogram_text(counters.wait_time) +
              ", in use " + histogram_text(counters.use_time),
          "backends: " + text_of(counters.connects) + " connects, " +
              text_of(counters.connect_failures) + " failed, " + text_of(counters.trials) +
              " trials, connect " + histogram_text(counters.connect_time) + ", closed " +
              reasons_text(counters.closes) + ", " + text_of(counters.moves_out) +
              " moved between cores, " + text_of(counters.tests) + " tests, " +
              text_of(counters.tests_failed) + " failed, " + text_of(counters.recoveries) +
              " recovered, " + text_of(counters.resets) + " resets, pins " +
              reasons_text(counters.pins) + ", " + text_of(counters.state_probes) +
              " state probes, " + text_of(counters.cancels) + " cancel requests, " +
              text_of(counters.cancels_dropped) + " dropped, " + text_of(counters.violations) +
              " violations, " + text_of(counters.late_ends) + " late ends",
          "time limits exceeded: " + reasons_text(counters.overruns),
          "prepared statements: " + text_of(counters.client_parses) + " parses of clients, " +
              text_of(counters.server_parses) + " sent to servers, " + text_of(counters.binds) +
              " binds"};
}

}  // namespace helios
