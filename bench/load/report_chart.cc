#include "load/report_chart.h"

#include <algorithm>
#include <array>
#include <utility>

#include "helios/base/assert.h"
#include "load/report_text.h"

namespace helios::bench {
namespace {

// All in pixels.
constexpr double margin = 16;
constexpr double legend_top = 54;
constexpr double legend_line = 18;
constexpr double panel_title_height = 38;  // From the last line of the legend to the first bar.
constexpr double foot_height = 34;
constexpr double group_label_width = 130;
constexpr double one_panel_bars_width = 560;
constexpr double many_panels_bars_width = 330;
constexpr double value_width = 150;
constexpr double bar_height = 13;
constexpr double bar_gap = 2;
constexpr double group_gap = 14;
constexpr double letter_width = 6.6;  // Of the legend's font, on average.

// Told apart by brightness too, for readers who do not see every colour.
constexpr std::array<const char*, chart_series_max> light_colours = {
    "#7a8794", "#d1495b", "#3b7dd8", "#e0a100", "#4a9d5b", "#7d5ba6", "#3aa6a6", "#a0673c"};
constexpr std::array<const char*, chart_series_max> dark_colours = {
    "#9aa7b4", "#f0707f", "#6aa5f5", "#f2c14e", "#73c686", "#b08fd8", "#66cccc", "#cf9a6e"};

std::string number(double value) {
  return decimal(value, 1);
}

std::string text_at(double x, double y, const std::string& style, const std::string& text) {
  return "<text x=\"" + number(x) + "\" y=\"" + number(y) + "\" class=\"" + style + "\">" +
         xml_text(text) + "</text>\n";
}

std::string style_sheet() {
  std::string sheet =
      "<style>\ntext { font: 12px system-ui, 'DejaVu Sans', sans-serif; fill: #1f2328; }\n"
      ".title { font-size: 16px; font-weight: 600; }\n.panel { font-weight: 600; }\n"
      ".small { font-size: 11px; fill: #59636e; }\n.page { fill: #ffffff; }\n"
      ".line { stroke: #c5ccd3; stroke-width: 1; }\n"
      ".whisker { stroke: #1f2328; stroke-width: 1.2; }\n";
  for (size_t i = 0; i < chart_series_max; ++i)
    sheet += ".s" + std::to_string(i) + " { fill: " + light_colours.at(i) + "; }\n";
  sheet +=
      "@media (prefers-color-scheme: dark) {\ntext { fill: #e6edf3; }\n.small { fill: #9198a1; }\n"
      ".page { fill: #0d1117; }\n.line { stroke: #3d444d; }\n.whisker { stroke: #e6edf3; }\n";
  for (size_t i = 0; i < chart_series_max; ++i)
    sheet += ".s" + std::to_string(i) + " { fill: " + dark_colours.at(i) + "; }\n";
  return sheet + "}\n</style>\n";
}

class Drawing {
 public:
  explicit Drawing(const Chart& chart)
      : chart_(chart),
        bars_width_(chart.panels.size() > 1 ? many_panels_bars_width : one_panel_bars_width),
        width_(margin + left_of(std::max<size_t>(chart.panels.size(), 1))) {}

  std::string draw() {
    place_legend();
    const double height = place_groups() + foot_height;
    const std::string size = "width=\"" + number(width_) + "\" height=\"" + number(height) + "\"";
    svg_ = "<svg xmlns=\"http://www.w3.org/2000/svg\" " + size + " viewBox=\"0 0 " +
           number(width_) + " " + number(height) + "\" role=\"img\">\n<title>" +
           xml_text(chart_.title) + "</title>\n" + style_sheet() +
           "<rect class=\"page\" width=\"100%\" height=\"100%\"/>\n";
    svg_ += text_at(margin, 26, "title", chart_.title);
    svg_ += text_at(margin, 44, "small", chart_.subtitle);
    draw_legend();
    for (size_t group = 0; group < chart_.groups.size(); ++group)
      svg_ += text_at(margin, tops_[group] + bar_height - 2, "", chart_.groups[group]);
    for (size_t panel = 0; panel < chart_.panels.size(); ++panel)
      draw_panel(chart_.panels[panel], left_of(panel), height);
    return svg_ + "</svg>\n";
  }

 private:
  [[nodiscard]] double left_of(size_t panel) const {
    return margin + group_label_width + (bars_width_ + value_width) * static_cast<double>(panel);
  }

  // Entries go to the next line where the page ends.
  void place_legend() {
    double x = margin;
    double y = legend_top;
    for (const std::string& name : chart_.series) {
      const double size = 16 + letter_width * static_cast<double>(name.size()) + 22;
      if (x > margin && x + size > width_) {
        x = margin;
        y += legend_line;
      }
      legend_.emplace_back(x, y);
      x += size;
    }
    head_height_ = y + panel_title_height;
  }

  // A series takes room in a group only when some panel has a bar of it.
  [[nodiscard]] bool is_shown(size_t group, size_t series) const {
    return std::any_of(chart_.panels.begin(), chart_.panels.end(), [&](const ChartPanel& panel) {
      return panel.bars[group][series].has_value();
    });
  }

  // Returns where the last group ends.
  double place_groups() {
    double y = head_height_;
    for (size_t group = 0; group < chart_.groups.size(); ++group) {
      tops_.push_back(y);
      size_t bars = 0;
      for (size_t series = 0; series < chart_.series.size(); ++series)
        bars += is_shown(group, series) ? 1 : 0;
      y += static_cast<double>(std::max<size_t>(bars, 1)) * (bar_height + bar_gap) + group_gap;
    }
    return y;
  }

  void draw_legend() {
    for (size_t series = 0; series < chart_.series.size(); ++series) {
      const auto [x, y] = legend_[series];
      svg_ += "<rect class=\"s" + std::to_string(series) + "\" x=\"" + number(x) + "\" y=\"" +
              number(y) + "\" width=\"11\" height=\"11\"/>\n";
      svg_ += text_at(x + 16, y + 10, "", chart_.series[series]);
    }
  }

  void draw_panel(const ChartPanel& panel, double left, double height) {
    svg_ += text_at(left, head_height_ - 8, "panel", panel.title);
    svg_ += "<line class=\"line\" x1=\"" + number(left) + "\" y1=\"" + number(head_height_ - 2) +
            "\" x2=\"" + number(left) + "\" y2=\"" + number(height - foot_height) + "\"/>\n";
    svg_ += text_at(left, height - foot_height + 16, "small", panel.axis);
    for (size_t group = 0; group < chart_.groups.size(); ++group)
      draw_group(panel.bars[group], group, left);
  }

  void draw_group(const std::vector<std::optional<ChartBar>>& bars, size_t group, double left) {
    double longest = 0;
    for (const std::optional<ChartBar>& bar : bars)
      if (bar) longest = std::max({longest, bar->value, bar->high});
    const double scale = longest > 0 ? bars_width_ / longest : 0;
    double y = tops_[group];
    for (size_t series = 0; series < bars.size(); ++series) {
      if (bars[series]) draw_bar(*bars[series], series, {left, y, scale});
      if (is_shown(group, series)) y += bar_height + bar_gap;
    }
  }

  struct Spot {
    double x;
    double y;
    double scale;
  };

  void draw_bar(const ChartBar& bar, size_t series, Spot spot) {
    const double width = std::max(bar.value * spot.scale, 1.0);
    svg_ += "<rect class=\"s" + std::to_string(series) + "\" x=\"" + number(spot.x) + "\" y=\"" +
            number(spot.y) + "\" width=\"" + number(width) + "\" height=\"" + number(bar_height) +
            "\"/>\n";
    const double middle = spot.y + bar_height / 2;
    double end = spot.x + width;
    if (bar.high > bar.low) {
      end = std::max(end, spot.x + bar.high * spot.scale);
      svg_ += "<line class=\"whisker\" x1=\"" + number(spot.x + bar.low * spot.scale) + "\" y1=\"" +
              number(middle) + "\" x2=\"" + number(spot.x + bar.high * spot.scale) + "\" y2=\"" +
              number(middle) + "\"/>\n";
    }
    svg_ += text_at(end + 6, spot.y + bar_height - 2, "small", bar.label);
  }

  const Chart& chart_;
  double bars_width_;
  double width_;
  double head_height_ = 0;
  std::vector<std::pair<double, double>> legend_;  // Left and top of each entry.
  std::vector<double> tops_;                       // Of the groups.
  std::string svg_;
};

}  // namespace

std::string render_chart(const Chart& chart) {
  ASSERT(chart.series.size() <= chart_series_max);
  for (const ChartPanel& panel : chart.panels) ASSERT(panel.bars.size() == chart.groups.size());
  return Drawing(chart).draw();
}

}  // namespace helios::bench
