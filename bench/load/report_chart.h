// A bar chart as SVG: groups of horizontal bars, one colour for each series, in one or more panels
// side by side.
//
// Each group has a scale of its own (its longest bar fills the width), because rows differ by
// orders of magnitude; the figure itself stands behind each bar. Readable on light and on dark
// pages: the colours follow the reader's preference where the viewer knows it. Pure.
#pragma once

#include <optional>
#include <string>
#include <vector>

namespace helios::bench {

struct ChartBar {
  double value = 0;
  double low = 0;  // The whisker; low == high: none.
  double high = 0;
  std::string label;  // Behind the bar.
};

struct ChartPanel {
  std::string title;
  std::string axis;  // What the bars show, with the unit.
  // By group, then by series; nothing where a series is not in a group.
  std::vector<std::vector<std::optional<ChartBar>>> bars;
};

struct Chart {
  std::string title;
  std::string subtitle;
  std::vector<std::string> series;  // At most chart_series_max.
  std::vector<std::string> groups;
  std::vector<ChartPanel> panels;
};

inline constexpr size_t chart_series_max = 8;

// The whole document.
[[nodiscard]] std::string render_chart(const Chart& chart);

}  // namespace helios::bench
