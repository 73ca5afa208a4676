#pragma once
// Curves as inline SVG. Colours are classes s0 to s7 of the page (html_page.h), so that they follow its light or dark theme.
#include <optional>
#include <string>
#include <vector>

namespace sheaf {

struct ChartSeries {
  std::string name;
  std::vector<double> x, y;    // a y that is no number is a gap
  int color = 0;
  bool dashed = false;
  bool thick = false;          // drawn below the others
  bool points = false;         // a mark at every place
  std::vector<bool> hollow;    // which marks are; missing: none
};

struct ChartAxis {
  std::string label;
  bool log = false;
  std::optional<double> low, high;    // else those of the data
  std::vector<double> ticks;          // else round numbers
};

struct Chart {
  std::string title;
  ChartAxis x, y;
  std::vector<ChartSeries> series;
  std::optional<double> limit;    // a horizontal line
  std::optional<double> until;    // a vertical line, up to which the limit holds
};

std::string svg(const Chart& chart);    // in a <figure> with its title

}    // namespace sheaf
