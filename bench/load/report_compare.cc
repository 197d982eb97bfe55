#include "load/report_compare.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "load/json_writer.h"
#include "load/report_text.h"

namespace helios::bench {
namespace {

// Behind a bar's figure.
const char* mark_of(const Row& row, const PeerResult& result) {
  return flaws_text(result, row).empty() ? "" : " *";
}

std::optional<ChartBar> bar_of(const Row& row, const PeerResult& result, Figure figure,
                               const char* unit) {
  const std::optional<Spread> spread = spread_over(result, figure);
  if (!spread) return std::nullopt;
  return ChartBar{spread->median, spread->min, spread->max,
                  rounded(spread->median) + unit + mark_of(row, result)};
}

// The bar is the median of p50, the whisker leads to that of p99.
std::optional<ChartBar> latency_bar(const Row& row, const PeerResult& result) {
  const std::optional<Spread> p50 = spread_over(result, p50_us);
  const std::optional<Spread> p99 = spread_over(result, p99_us);
  if (!p50 || !p99) return std::nullopt;
  return ChartBar{
      p50->median, p50->median, p99->median,
      rounded(p50->median) + " / " + rounded(p99->median) + " µs" + mark_of(row, result)};
}

template <typename MakeBar>
ChartPanel panel_of(const Comparison& comparison, const std::vector<std::string>& series,
                    MakeBar make_bar) {
  ChartPanel panel;
  for (const RowResult& row : comparison.rows) {
    if (row.row.kind != RowKind::load) continue;
    std::vector<std::optional<ChartBar>> bars;
    for (const std::string& name : series) {
      const PeerResult* result = row.find(name);
      bars.push_back(result == nullptr ? std::nullopt : make_bar(row.row, *result));
    }
    panel.bars.push_back(std::move(bars));
  }
  return panel;
}

Chart empty_chart(const Comparison& comparison, std::string title) {
  Chart chart;
  chart.title = std::move(title);
  for (const auto& [name, value] : comparison.facts)
    if (name == "placement") chart.subtitle = value;
  chart.subtitle += "; " + std::to_string(comparison.rounds) +
                    (comparison.rounds == 1 ? " round" : " rounds") +
                    "; every row has a scale of its own; *: not measured cleanly";
  chart.series = comparison.peers;
  // More peers than colours: the report's tables have them all.
  if (chart.series.size() > chart_series_max) chart.series.resize(chart_series_max);
  for (const RowResult& row : comparison.rows)
    if (row.row.kind == RowKind::load) chart.groups.push_back(row.row.name);
  return chart;
}

void add_optional(JsonWriter& json, std::string_view key, std::optional<double> value) {
  if (value) json.real(key, *value);
}

void add_usage(JsonWriter& json, const Measurement& measurement) {
  add_optional(json, "cpu_us", cpu_us(measurement));
  add_optional(json, "user_us", user_us(measurement));
  add_optional(json, "system_us", system_us(measurement));
  add_optional(json, "voluntary_switches", voluntary_switches(measurement));
  add_optional(json, "involuntary_switches", involuntary_switches(measurement));
  if (!measurement.has_pooler) return;
  json.number("rss", measurement.load.watched.rss);
  json.number("pss", measurement.load.watched.pss);
}

void add_load(JsonWriter& json, const LoadSummary& load) {
  json.number("transactions", load.transactions);
  json.number("failed", load.failed);
  json.number("wrong", load.wrong);
  json.real("seconds", static_cast<double>(load.span) / 1e9);
  json.number("p50_ns", load.latency.p50);
  json.number("p95_ns", load.latency.p95);
  json.number("p99_ns", load.latency.p99);
  json.number("max_ns", load.latency.max);
  json.number("connect_p50_ns", load.connect.p50);
  json.number("clients_connected", load.clients_connected);
}

void add_flaws(JsonWriter& json, const std::vector<FoundFlaw>& flaws) {
  json.boolean("clean", flaws.empty());
  json.begin_list("flaws");
  for (const FoundFlaw& flaw : flaws) {
    json.begin_item();
    json.text("flaw", name_of(flaw.flaw));
    json.real("amount", flaw.amount);
    json.end();
  }
  json.end();
}

std::string measurement_line(const Row& row, const PeerResult& result,
                             const Measurement& measurement) {
  JsonWriter json;
  json.text("kind", "measurement");
  json.text("row", row.name);
  json.number("clients", row.clients);
  json.text("peer", result.peer);
  json.number("round", measurement.round);
  json.number("position", measurement.position);
  if (!measurement.error.empty()) json.text("error", measurement.error);
  if (measurement.error.empty()) {
    add_usage(json, measurement);
    add_optional(json, "tps", transactions_per_second(measurement));
    add_load(json, measurement.load);
  }
  if (row.kind == RowKind::memory && measurement.error.empty()) {
    json.real("rss_per_client", measurement.rss_per_client);
    json.real("pss_per_client", measurement.pss_per_client);
  }
  json.real("load_average", measurement.load_average);
  json.real("runnable_before", measurement.idle.runnable);
  json.real("foreign_cpus_before", measurement.idle.foreign.cpus);
  json.real("foreign_cpus", measurement.foreign.cpus);
  json.real("steal", measurement.foreign.steal);
  json.real("idle_peers_cpus", measurement.idle_peers_cpus);
  add_flaws(json, flaws_of(measurement, row));
  return json.finish() + "\n";
}

std::string head_line(const Comparison& comparison) {
  JsonWriter json;
  json.text("kind", "comparison");
  json.text("base", comparison.base);
  json.number("rounds", comparison.rounds);
  json.boolean("interrupted", comparison.was_interrupted);
  json.begin_object("facts");
  for (const auto& [name, value] : comparison.facts) json.text(name, value);
  json.end();
  return json.finish() + "\n";
}

Result<bool> write_file(const std::string& path, const std::string& text) {
  std::ofstream file(path, std::ios::trunc);
  file << text;
  file.close();
  if (!file) return Error{path + " cannot be written: " + std::strerror(errno)};
  return true;
}

}  // namespace

Chart cpu_chart(const Comparison& comparison) {
  Chart chart = empty_chart(comparison, "CPU time of the pooler for each transaction");
  std::erase_if(chart.series, [&](const std::string& name) {
    return std::none_of(comparison.rows.begin(), comparison.rows.end(), [&](const RowResult& row) {
      const PeerResult* result = row.find(name);
      return result != nullptr && spread_over(*result, cpu_us);
    });
  });
  ChartPanel panel = panel_of(
      comparison, chart.series,
      [](const Row& row, const PeerResult& result) { return bar_of(row, result, cpu_us, " µs"); });
  panel.title = "CPU, user and system";
  panel.axis = "µs per transaction; whisker: smallest to largest round; shorter is better";
  chart.panels.push_back(std::move(panel));
  return chart;
}

Chart latency_chart(const Comparison& comparison) {
  Chart chart = empty_chart(comparison, "Throughput and latency");
  ChartPanel throughput =
      panel_of(comparison, chart.series, [](const Row& row, const PeerResult& result) {
        return bar_of(row, result, transactions_per_second, "/s");
      });
  throughput.title = "Throughput";
  throughput.axis = "transactions per second; whisker: smallest to largest round; longer is better";
  ChartPanel latency = panel_of(comparison, chart.series, latency_bar);
  latency.title = "Latency";
  latency.axis = "µs; bar: p50, whisker: to p99; shorter is better";
  chart.panels = {std::move(throughput), std::move(latency)};
  return chart;
}

std::string json_lines(const Comparison& comparison) {
  std::string text = head_line(comparison);
  for (const RowResult& row : comparison.rows)
    for (const PeerResult& result : row.peers)
      for (const Measurement& measurement : result.rounds)
        text += measurement_line(row.row, result, measurement);
  return text;
}

Result<bool> write_report(const Comparison& comparison, const std::string& directory) {
  std::error_code failure;
  std::filesystem::create_directories(directory, failure);
  if (failure) return Error{directory + " cannot be made: " + failure.message()};
  const std::string prefix = directory + "/";
  if (auto done = write_file(prefix + results_file, json_lines(comparison)); !done.ok())
    return done;
  if (auto done = write_file(prefix + cpu_chart_file, render_chart(cpu_chart(comparison)));
      !done.ok())
    return done;
  if (auto done = write_file(prefix + latency_chart_file, render_chart(latency_chart(comparison)));
      !done.ok())
    return done;
  return write_file(prefix + report_file, markdown_report(comparison));
}

}  // namespace helios::bench
