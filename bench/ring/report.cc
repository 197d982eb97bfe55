#include "bench/ring/report.h"

#include <algorithm>
#include <cstdio>

#include "bench/ring/machine.h"
#include "helios/base/assert.h"

namespace helios::bench {
namespace {

using Row = std::vector<std::string>;

std::string number(double value) {
  char text[32];
  (void)std::snprintf(text, sizeof(text),
                      value < 10     ? "%.2f"
                      : value < 1000 ? "%.1f"
                                     : "%.0f",
                      value);
  return text;
}

// Of an odd number of values the middle one, else the mean of the two in the middle.
double median_of(std::vector<double> values) {
  ASSERT(!values.empty());
  std::sort(values.begin(), values.end());
  const size_t middle = values.size() / 2;
  return values.size() % 2 == 1 ? values[middle] : (values[middle - 1] + values[middle]) / 2;
}

// "12.3 (11.9–14.0)".
std::string with_range(const std::vector<double>& values) {
  const auto [min, max] = std::minmax_element(values.begin(), values.end());
  return number(median_of(values)) + " (" + number(*min) + "–" + number(*max) + ")";
}

std::vector<double> ratios_of(const std::vector<double>& own, const std::vector<double>& base) {
  ASSERT(own.size() == base.size());
  std::vector<double> ratios;
  for (size_t i = 0; i < own.size(); ++i) ratios.push_back(own[i] / base[i]);
  return ratios;
}

template <typename Value>
std::vector<double> each(const std::vector<RunResult>& runs, Value value) {
  std::vector<double> values;
  for (const RunResult& run : runs) values.push_back(value(run));
  return values;
}

double microseconds_of(Nanoseconds time) {
  return static_cast<double>(time) / 1000;
}
double per_round_trip(uint64_t count, const RunResult& run) {
  return static_cast<double>(count) / static_cast<double>(run.round_trips);
}
double cpu_of(const RunResult& run) {
  return microseconds_of(run.relay_cpu) / static_cast<double>(run.round_trips);
}
double p50_of(const RunResult& run) {
  return microseconds_of(run.p50);
}
double p99_of(const RunResult& run) {
  return microseconds_of(run.p99);
}
double enters_of(const RunResult& run) {
  return per_round_trip(run.enters, run);
}
double starved_of(const RunResult& run) {
  return per_round_trip(run.starved, run);
}

// "12.3 / 11.9": the variant's median, and the base's.
template <typename Value>
std::string both(const Comparison& comparison, Value value) {
  return number(median_of(each(comparison.own_runs, value))) + " / " +
         number(median_of(each(comparison.base_runs, value)));
}

Row row_of(const Comparison& comparison) {
  const std::vector<double> own = each(comparison.own_runs, cpu_of);
  const std::vector<double> base = each(comparison.base_runs, cpu_of);
  return {comparison.variant->name,
          std::to_string(comparison.connections),
          with_range(own),
          with_range(base),
          with_range(ratios_of(own, base)),
          both(comparison, p50_of),
          both(comparison, p99_of),
          both(comparison, enters_of),
          both(comparison, starved_of)};
}

// Characters, not bytes.
size_t width_of(const std::string& text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), [](char c) { return (c & 0xC0) != 0x80; }));
}

std::string print_table(const std::vector<Row>& rows, Style style) {
  std::vector<size_t> widths(rows.front().size(), 0);
  for (const Row& row : rows)
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], width_of(row[i]));
  std::string text;
  for (size_t line = 0; line < rows.size(); ++line) {
    for (size_t i = 0; i < widths.size(); ++i) {
      const std::string& cell = rows[line][i];
      const bool is_markdown = style == Style::markdown;
      text += (is_markdown ? "| " : "") + cell;
      text += is_markdown ? " " : std::string(widths[i] - width_of(cell) + 2, ' ');
    }
    text += style == Style::markdown ? "|\n" : "\n";
    if (line > 0 || style == Style::plain) continue;
    for (size_t i = 0; i < widths.size(); ++i) text += "|---";
    text += "|\n";
  }
  return text;
}

std::string heading(const std::string& text, int level, Style style) {
  if (style == Style::plain) return "\n" + text + "\n\n";
  return "\n" + std::string(static_cast<size_t>(level), '#') + " " + text + "\n\n";
}

std::string print_item(const std::string& text, Style style) {
  return (style == Style::markdown ? "- " : "  ") + text + "\n";
}

// What the names of one experiment's variants mean.
std::string print_meanings(const Report& report, int row, Style style) {
  std::string text;
  const Variant* last = nullptr;
  for (const Comparison& comparison : report.comparisons) {
    if (comparison.variant->row != row || comparison.variant == last) continue;
    last = comparison.variant;
    text += print_item(std::string(last->name) + ": " + last->what + "; against " +
                           comparison.base->name + " (" + comparison.base->what + ")",
                       style);
  }
  return text;
}

std::string print_experiment(const Report& report, int row, Style style) {
  std::vector<Row> rows = {{"variant", "connections", "CPU µs / round trip", "its base",
                            "ratio of the rounds", "p50 µs / base", "p99 µs / base",
                            "enters / base", "ENOBUFS / base"}};
  for (const Comparison& comparison : report.comparisons)
    if (comparison.variant->row == row) rows.push_back(row_of(comparison));
  if (rows.size() == 1) return "";
  return heading(std::to_string(row) + ". " + title_of(row), 3, style) +
         print_meanings(report, row, style) + "\n" + print_table(rows, style);
}

std::string print_wakes(const Report& report, Style style) {
  if (report.wakes.empty()) return "";
  std::vector<Row> rows = {
      {"threads", "MSG_RING, ns / round trip", "eventfd, ns / round trip", "ratio of the rounds"}};
  for (const WakeComparison& wake : report.wakes)
    rows.push_back({wake.place, with_range(wake.msg_ring), with_range(wake.event_fd),
                    with_range(ratios_of(wake.msg_ring, wake.event_fd))});
  return heading(std::to_string(wake_row) + ". " + title_of(wake_row), 3, style) +
         print_table(rows, style);
}

constexpr const char* explanation =
    "A relay passes messages between a load and an echo server, one connection on either side for\n"
    "each. One switch of the relay is turned at a time and compared with its base in the same "
    "round;\n"
    "the order alternates from round to round. CPU is the relay process's own, user and system, "
    "over\n"
    "the counted time; a round trip is two receives and two sends of the relay. Every byte is\n"
    "checked. Figures are medians of the rounds with (minimum–maximum); a ratio below 1 is "
    "better.\n";

}  // namespace

std::string print_report(const Report& report, Style style) {
  std::string text = heading("io_uring: one switch at a time", 2, style) + explanation + "\n";
  for (const std::string& fact : machine_facts()) text += print_item(fact, style);
  text += print_item("Load average before and after: " + report.load_before + "; " + load_average(),
                     style);
  text += print_item(report.method, style);
  const char* quote = style == Style::markdown ? "`" : "";
  text += print_item(std::string("To repeat: ") + quote + report.command + quote, style);
  for (const std::string& note : report.notes) text += print_item(note, style);
  for (int row = 1; row <= rows_count; ++row)
    text += row == wake_row ? print_wakes(report, style) : print_experiment(report, row, style);
  return text;
}

std::string counted(uint64_t count, const char* thing) {
  return std::to_string(count) + " " + thing + (count == 1 ? "" : "s");
}

std::string summary_of(const Comparison& comparison) {
  const std::vector<double> own = each(comparison.own_runs, cpu_of);
  const std::vector<double> base = each(comparison.base_runs, cpu_of);
  return std::string(comparison.variant->name) + ", " +
         counted(comparison.connections, "connection") + ": " + number(median_of(own)) + " µs, " +
         number(median_of(ratios_of(own, base))) + " of " + comparison.base->name;
}

}  // namespace helios::bench
