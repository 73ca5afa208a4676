#include "engine/bench/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "base/text.h"
#include "engine/bench/html_page.h"

namespace sheaf {
namespace {

constexpr double kWidth = 440, kHeight = 260, kLeft = 62, kRight = 14, kTop = 10, kBottom = 40;

// A number's place between the ends of an axis, from 0 to 1, and the numbers that are written beside it.
class Scale {
 public:
  Scale(const ChartAxis& axis, const std::vector<ChartSeries>& series, std::vector<double> ChartSeries::*values) : log_(axis.log) {
    double low = std::numeric_limits<double>::infinity(), high = -low;
    for (const ChartSeries& s : series)
      for (const double v : s.*values)
        if (std::isfinite(v) && (!log_ || v > 0)) low = std::min(low, v), high = std::max(high, v);
    if (low > high) low = log_ ? 1e-6 : 0, high = 1;
    low_ = axis.low.value_or(low), high_ = axis.high.value_or(high);
    if (high_ <= low_) high_ = log_ ? low_ * 2 : low_ + std::max(1e-6, std::abs(low_) * 0.1);
    ticks_ = !axis.ticks.empty() ? axis.ticks : log_ ? decades() : round_numbers();
  }
  double at(double v) const {
    return std::clamp(log_ ? std::log(std::max(v, low_) / low_) / std::log(high_ / low_) : (v - low_) / (high_ - low_), 0.0, 1.0);
  }
  const std::vector<double>& ticks() const { return ticks_; }

 private:
  std::vector<double> decades() {
    const int first = static_cast<int>(std::floor(std::log10(low_) + 1e-9)), last = static_cast<int>(std::ceil(std::log10(high_) - 1e-9));
    low_ = std::pow(10, first), high_ = std::pow(10, last);
    std::vector<double> out;
    for (int d = first; d <= last; d += std::max(1, (last - first) / 6)) out.push_back(std::pow(10, d));
    return out;
  }
  // Steps of 1, 2 or 5 times a power of ten.
  std::vector<double> round_numbers() const {
    const double rough = (high_ - low_) / 5, power = std::pow(10, std::floor(std::log10(rough)));
    const double step = power * (rough / power < 1.5 ? 1 : rough / power < 3.5 ? 2 : rough / power < 7.5 ? 5 : 10);
    std::vector<double> out;
    for (double v = std::ceil(low_ / step - 1e-9) * step; v <= high_ + 1e-9 * step; v += step)
      out.push_back(std::abs(v) < 1e-9 * step ? 0 : v);
    return out;
  }

  bool log_;
  double low_ = 0, high_ = 1;
  std::vector<double> ticks_;
};

std::string number(double v) { return std::abs(v) >= 1e4 ? human_count(v) : fmt::format("{:.4g}", v); }
double across(double share) { return kLeft + share * (kWidth - kLeft - kRight); }
double down(double share) { return kTop + (1 - share) * (kHeight - kTop - kBottom); }

std::string line(double x1, double y1, double x2, double y2, const char* style) {
  return fmt::format("<line x1=\"{:.1f}\" y1=\"{:.1f}\" x2=\"{:.1f}\" y2=\"{:.1f}\" class=\"{}\"/>\n", x1, y1, x2, y2, style);
}

std::string frame(const Chart& chart, const Scale& x, const Scale& y) {
  std::string out;
  for (const double v : y.ticks()) {
    out += line(kLeft, down(y.at(v)), kWidth - kRight, down(y.at(v)), "grid");
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>\n", kLeft - 6, down(y.at(v)) + 4, number(v));
  }
  for (const double v : x.ticks()) {
    out += line(across(x.at(v)), down(0), across(x.at(v)), down(0) + 4, "axis");
    out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", across(x.at(v)), down(0) + 16, number(v));
  }
  out += line(kLeft, down(0), kWidth - kRight, down(0), "axis");
  out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"middle\">{}</text>\n", across(0.5), kHeight - 6,
                     html_escape(chart.x.label));
  out += fmt::format("<text transform=\"translate(12 {:.1f}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n", down(0.5),
                     html_escape(chart.y.label));
  if (chart.limit)
    out += line(kLeft, down(y.at(*chart.limit)), chart.until ? across(x.at(*chart.until)) : kWidth - kRight, down(y.at(*chart.limit)),
                "limit");
  if (chart.until)
    out += line(across(x.at(*chart.until)), down(y.at(chart.limit.value_or(0))), across(x.at(*chart.until)), down(0), "limit");
  return out;
}

std::string curve(const ChartSeries& s, const Scale& x, const Scale& y) {
  std::string path, marks;
  bool pen = false;
  for (std::size_t i = 0; i < s.y.size(); ++i) {
    if (!std::isfinite(s.y[i])) {
      pen = false;
      continue;
    }
    const double px = across(x.at(s.x[i])), py = down(y.at(s.y[i]));
    path += fmt::format("{}{:.1f} {:.1f}", pen ? "L" : "M", px, py);
    pen = true;
    if (s.points)
      marks += fmt::format("<circle cx=\"{:.1f}\" cy=\"{:.1f}\" r=\"4\" class=\"{}\"><title>{}: {} at {}</title></circle>\n", px, py,
                           i < s.hollow.size() && s.hollow[i] ? "hollow" : "mark", html_escape(s.name), number(s.y[i]), number(s.x[i]));
  }
  if (path.empty()) return "";
  return fmt::format("<g class=\"s{}\"><path d=\"{}\" class=\"curve{}{}\"><title>{}</title></path>\n{}</g>\n", s.color, path,
                     s.thick ? " thick" : "", s.dashed ? " dashed" : "", html_escape(s.name), marks);
}

}    // namespace

std::string svg(const Chart& chart) {
  const Scale x(chart.x, chart.series, &ChartSeries::x), y(chart.y, chart.series, &ChartSeries::y);
  std::string out = fmt::format("<figure><figcaption>{0}</figcaption>\n<svg viewBox=\"0 0 {1} {2}\" role=\"img\" aria-label=\"{0}\">\n",
                                html_escape(chart.title), kWidth, kHeight);
  out += frame(chart, x, y);
  for (const bool thick : {true, false})
    for (const ChartSeries& s : chart.series)
      if (s.thick == thick) out += curve(s, x, y);
  return out + "</svg></figure>\n";
}

}    // namespace sheaf
