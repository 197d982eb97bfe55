// The report of a comparison: Markdown with two charts, and the measurements as JSON lines.
//
// The texts are pure; write_report() puts them into a directory.
#pragma once

#include <string>

#include "helios/base/result.h"
#include "load/compare_results.h"
#include "load/report_chart.h"

namespace helios::bench {

inline constexpr const char* report_file = "report.md";
inline constexpr const char* results_file = "results.jsonl";
inline constexpr const char* cpu_chart_file = "cpu.svg";
inline constexpr const char* latency_chart_file = "latency.svg";

[[nodiscard]] std::string markdown_report(const Comparison& comparison);
[[nodiscard]] Chart cpu_chart(const Comparison& comparison);
[[nodiscard]] Chart latency_chart(const Comparison& comparison);
// One object a line: first the comparison itself, then each measurement.
[[nodiscard]] std::string json_lines(const Comparison& comparison);

// Makes the directory when it is missing, and overwrites the four files.
[[nodiscard]] Result<bool> write_report(const Comparison& comparison, const std::string& directory);

}  // namespace helios::bench
