#include "load/report_compare.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "load/compare_row.h"
#include "load/report_text.h"
#include "tests/bench/compare_fixtures.h"

namespace helios::bench {
namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

size_t count_of(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST_CASE("numbers have three digits and separated thousands") {
  CHECK(rounded(0) == "0");
  CHECK(rounded(12.345) == "12.3");
  CHECK(rounded(0.01234) == "0.0123");
  CHECK(rounded(123.4) == "123");
  CHECK(rounded(45'678) == "45,700");
  CHECK(rounded(1'234'567) == "1,230,000");
  CHECK(rounded(-1234) == "-1,230");
  CHECK(size_text(1536) == "1.50 KiB");
  CHECK(minutes_text(187) == "3:07");
}

TEST_CASE("texts are escaped for where they go") {
  CHECK(markdown_cell("a|b\nc") == "a\\|b c");
  CHECK(xml_text("<a & \"b\">") == "&lt;a &amp; &quot;b&quot;&gt;");
}

TEST_CASE("the main table has medians and ratios round by round") {
  const std::string text = markdown_report(made_comparison());
  CHECK(has(text, "| row | pgbouncer µs | heliosproxy µs |\n"));
  CHECK(has(text, "| simple query, 16 clients | 20.0 | 16.0 (0.90, 0.80–1.00) |\n"));
  CHECK(has(text, "Nothing: every measurement was clean."));
  CHECK(has(text, "- direct: no reason (simple-16)\n"));
  CHECK(has(text, "Fewer than 5 rounds"));
  CHECK(has(text, "| CPU | a \\| b |"));
  CHECK(has(text, std::string("](") + cpu_chart_file + ")"));
}

TEST_CASE("every row of a table has as many cells as its head") {
  const std::string text = markdown_report(made_comparison());
  size_t cells = 0;
  for (const std::string& line : split_list(text, '\n')) {
    if (!line.starts_with('|')) {
      cells = 0;
      continue;
    }
    const size_t here = count_of(line, "|") - count_of(line, "\\|");
    if (cells > 0) CHECK_MESSAGE(here == cells, line);
    cells = here;
  }
}

TEST_CASE("what is not clean is marked with a footnote, once") {
  Comparison comparison = made_comparison();
  comparison.rows[0].peers[1].rounds[0].foreign.cpus = 0.5;
  const std::string text = markdown_report(comparison);
  CHECK(has(text, "16.0 (0.90, 0.80–1.00) <sup>1</sup> |"));
  CHECK(has(text, "1. simple-16, heliosproxy: round 1: other processes used up to 50 % of a CPU"));
  CHECK_FALSE(has(text, "\n2. "));
}

TEST_CASE("a ratio to a base that is not clean has the base's footnote") {
  Comparison comparison = made_comparison();
  comparison.rows[0].peers[0].rounds[0].foreign.cpus = 0.5;
  std::string text = markdown_report(comparison);
  CHECK(has(text, "| 20.0 <sup>1</sup> | 16.0 (0.90, 0.80–1.00 <sup>1</sup>) |"));
  comparison.rows[0].peers[1].rounds[0].foreign.cpus = 0.5;
  text = markdown_report(comparison);
  CHECK(has(text, "16.0 (0.90, 0.80–1.00 <sup>1</sup>) <sup>2</sup> |"));
}

TEST_CASE("a bar that is not clean has an asterisk") {
  Comparison comparison = made_comparison();
  comparison.rows[0].peers[1].rounds[0].foreign.cpus = 0.5;
  for (const Chart& chart : {cpu_chart(comparison), latency_chart(comparison)}) {
    for (const ChartPanel& panel : chart.panels) {
      CHECK_FALSE(panel.bars[0][0]->label.ends_with(" *"));
      CHECK(panel.bars[0][1]->label.ends_with(" *"));
    }
    CHECK(has(chart.subtitle, "*: not measured cleanly"));
  }
}

TEST_CASE("a peer that gave nothing has an empty cell and a reason") {
  Comparison comparison = made_comparison();
  for (Measurement& measurement : comparison.rows[0].peers[1].rounds) measurement.error = "it died";
  comparison.was_interrupted = true;
  const std::string text = markdown_report(comparison);
  CHECK(has(text, "| row | pgbouncer µs |\n"));
  CHECK(has(text, "simple-16, heliosproxy: all rounds: no result (it died)"));
  CHECK(has(text, "**Interrupted"));
}

TEST_CASE("the report says when the server's work cannot be told from that of others") {
  Comparison comparison = made_comparison();
  const char* sentence = "what other processes used is no reason for a mark here";
  CHECK_FALSE(has(markdown_report(comparison), sentence));
  comparison.has_own_server = false;
  CHECK(has(markdown_report(comparison), sentence));
}

TEST_CASE("memory has a table of its own") {
  Comparison comparison = made_comparison();
  RowResult row;
  row.row.name = "idle-16";
  row.row.title = "memory, idle, 16 clients";
  row.row.kind = RowKind::memory;
  row.row.clients = 16;
  row.peers = {made_result("pgbouncer", {1})};
  row.peers[0].rounds[0].pss_per_client = 2048;
  comparison.rows.push_back(row);
  comparison.memory_wait = milliseconds(500);
  const std::string text = markdown_report(comparison);
  CHECK(has(text, "| memory, idle, 16 clients | pgbouncer | 2.00 KiB (2.00 KiB–2.00 KiB) |"));
  CHECK(has(text, "have been idle for 0.5 s. **That is short"));
  comparison.memory_wait = memory_wait_usual;
  CHECK(has(markdown_report(comparison), "have been idle for 4.0 s.\n"));
  CHECK(cpu_chart(comparison).groups == std::vector<std::string>{"simple-16"});
}

TEST_CASE("charts have a bar for each figure, units and a legend") {
  const Comparison comparison = made_comparison();
  const Chart cpu = cpu_chart(comparison);
  CHECK(cpu.series == std::vector<std::string>{"pgbouncer", "heliosproxy"});
  REQUIRE(cpu.panels.size() == 1);
  REQUIRE(cpu.panels[0].bars.size() == 1);
  CHECK(cpu.panels[0].bars[0][0]->value == doctest::Approx(20));
  CHECK(cpu.panels[0].bars[0][1]->low == doctest::Approx(9));
  const Chart latency = latency_chart(comparison);
  REQUIRE(latency.panels.size() == 2);
  CHECK_FALSE(latency.panels[0].bars[0][2].has_value());
  CHECK(latency.panels[1].bars[0][0]->high == doctest::Approx(900));

  const std::string svg = render_chart(cpu);
  CHECK(svg.starts_with("<svg "));
  CHECK(svg.ends_with("</svg>\n"));
  CHECK(has(svg, ">pgbouncer</text>"));
  CHECK(has(svg, "20.0 µs"));
  CHECK(has(svg, "prefers-color-scheme: dark"));
  CHECK(count_of(svg, "class=\"whisker\"") == 2);
}

TEST_CASE("the longest bar of a group fills the width, the others in proportion") {
  Chart chart;
  chart.series = {"a", "b"};
  chart.groups = {"one", "two"};
  chart.panels = {{"",
                   "",
                   {{ChartBar{10, 0, 0, ""}, ChartBar{5, 0, 0, ""}},
                    {std::nullopt, ChartBar{1000, 0, 0, ""}}}}};
  const std::string svg = render_chart(chart);
  CHECK(count_of(svg, "width=\"560.0\"") == 2);
  CHECK(count_of(svg, "width=\"280.0\"") == 1);
}

TEST_CASE("a legend that is too long for the page goes on in the next line") {
  Chart chart;
  chart.panels = {{}};
  for (int i = 0; i < 8; ++i) chart.series.emplace_back("a peer with quite a long name");
  const std::string svg = render_chart(chart);
  CHECK(has(svg, "x=\"16.0\" y=\"54.0\""));
  CHECK(has(svg, "x=\"16.0\" y=\"72.0\""));
}

TEST_CASE("names in a chart cannot break it") {
  Chart chart;
  chart.title = "<script>";
  CHECK_FALSE(has(render_chart(chart), "<script>"));
}

TEST_CASE("more peers than colours leave the last ones out of the charts only") {
  Comparison comparison = made_comparison();
  for (int i = 0; i < 10; ++i) comparison.peers.push_back("peer" + std::to_string(i));
  CHECK(latency_chart(comparison).series.size() == chart_series_max);
  CHECK_FALSE(render_chart(latency_chart(comparison)).empty());
}

TEST_CASE("the JSON lines are the comparison and each measurement") {
  const std::string text = json_lines(made_comparison());
  const std::vector<std::string> lines = split_list(text, '\n');
  REQUIRE(lines.size() == 7);
  CHECK(has(lines[0], "\"kind\": \"comparison\""));
  CHECK(has(lines[0], "\"base\": \"pgbouncer\""));
  CHECK(has(lines[1], "\"peer\": \"pgbouncer\""));
  CHECK(has(lines[1], "\"cpu_us\": 10"));
  CHECK(has(lines[6], "\"round\": 3"));
  CHECK(has(lines[6], "\"clean\": true"));
  CHECK(has(lines[6], "\"flaws\": []"));
}

TEST_CASE("a JSON line has its position in the round and what is wrong with it") {
  Comparison comparison = made_comparison();
  comparison.rows[0].peers[1].rounds[0].position = 2;
  comparison.rows[0].peers[1].rounds[0].foreign.cpus = 0.5;
  const std::string line = split_list(json_lines(comparison), '\n')[4];
  CHECK(has(line, "\"position\": 2"));
  CHECK(has(line, "\"clean\": false, \"flaws\": [{\"flaw\": \"foreign_cpu\", \"amount\": 0.5}]"));
}

}  // namespace
}  // namespace helios::bench
