// Line charts as SVG: see chart.h.
#include "tools/chart.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "tools/xml.h"

namespace ferry {
namespace {

// All in pixels.
constexpr double kWidth = 820, kLeft = 68, kRight = 28;
constexpr double kTitleHeight = 48;    // Above the first panel's heading.
constexpr double kHeadingHeight = 30;  // A panel's heading with its legend.
constexpr double kPlotHeight = 200;
constexpr double kPanelGap = 22;
constexpr double kAxisHeight = 54;  // Below the last panel.
constexpr double kPlotWidth = kWidth - kLeft - kRight;
// The mean width of a character of 12 pixels' height, for placing legends.
constexpr double kCharWidth = 6.6;
constexpr int kNumColors = 4;

// Okabe and Ito's palette, which colour-blind people can tell apart; brighter ones on dark ground.
constexpr char kStyle[] = R"(<style>
text { font-family: system-ui, -apple-system, "Segoe UI", "DejaVu Sans", sans-serif; font-size: 12px; fill: #57606a; }
.title { font-size: 17px; font-weight: 600; fill: #1f2328; }
.heading { font-size: 13px; font-weight: 600; fill: #1f2328; }
.ground { fill: #ffffff; }
.grid { stroke: #d8dee4; stroke-width: 1; }
.axis { stroke: #8c959f; stroke-width: 1; }
.mark { stroke: #8c959f; stroke-width: 1; stroke-dasharray: 3 3; }
.line { fill: none; stroke-width: 2; stroke-linejoin: round; stroke-linecap: round; }
.raw { stroke-width: 1; stroke-opacity: 0.3; }
.s0 { stroke: #0072b2; } .d0 { fill: #0072b2; }
.s1 { stroke: #d55e00; } .d1 { fill: #d55e00; }
.s2 { stroke: #009e73; } .d2 { fill: #009e73; }
.s3 { stroke: #cc79a7; } .d3 { fill: #cc79a7; }
@media (prefers-color-scheme: dark) {
text { fill: #9198a1; }
.title, .heading { fill: #f0f6fc; }
.ground { fill: #0d1117; }
.grid { stroke: #262c36; }
.axis, .mark { stroke: #6e7681; }
.s0 { stroke: #58a6ff; } .d0 { fill: #58a6ff; }
.s1 { stroke: #ff9b4a; } .d1 { fill: #ff9b4a; }
.s2 { stroke: #3fc99b; } .d2 { fill: #3fc99b; }
.s3 { stroke: #e59ac4; } .d3 { fill: #e59ac4; }
}
</style>
)";

std::string Number(double value) { return absl::StrFormat("%.6g", value); }
std::string Pixel(double value) { return absl::StrFormat("%.5g", std::round(value * 10) / 10); }

// A range of values, its ticks, and where it lies on the screen.
struct Axis {
  double low = 0, high = 1;
  double from = 0, to = 1;  // In pixels.
  bool log = false;
  std::vector<double> ticks;

  double Place(double value) const {
    const double share =
        log ? std::log(value / low) / std::log(high / low) : (value - low) / (high - low);
    return from + share * (to - from);
  }
  // Whether the value has a place at all.
  bool Has(double value) const { return std::isfinite(value) && (!log || value > 0); }
};

// 1, 2 or 5 times a power of ten, at least `least`.
double RoundStep(double least) {
  const double power = std::pow(10, std::floor(std::log10(least)));
  for (const double factor : {1.0, 2.0, 5.0}) {
    if (factor * power >= least * (1 - 1e-9)) return factor * power;
  }
  return 10 * power;
}

// Sets ticks at round numbers, about `count` of them; `widen` ends the range at ticks.
void SetLinearTicks(int count, bool widen, Axis* axis) {
  double span = axis->high - axis->low;
  // Values that are (almost) all one get a range around them.
  const double least = std::max({std::abs(axis->low), std::abs(axis->high), 1e-30}) * 1e-9;
  if (!(span > least)) {
    const double pad = axis->low == 0 ? 0.5 : std::abs(axis->low) * 0.1;
    axis->low -= pad;
    axis->high += pad;
    span = 2 * pad;
  }
  const double step = RoundStep(span / count);
  if (widen) {
    axis->low = std::floor(axis->low / step + 1e-9) * step;
    axis->high = std::ceil(axis->high / step - 1e-9) * step;
  }
  for (double i = std::ceil(axis->low / step - 1e-9); i * step <= axis->high + step * 1e-9; ++i) {
    axis->ticks.push_back(i * step + 0.0);  // Adding 0 makes -0 one.
  }
}

void SetLogTicks(Axis* axis) {
  const double low = std::floor(std::log10(axis->low) + 1e-9);
  const double high = std::max(std::ceil(std::log10(axis->high) - 1e-9), low + 1);
  // Few decades show 2 and 5 too, and the range needn't end at a decade.
  const bool fine = high - low <= 2;
  const double stride = fine ? 1 : std::ceil((high - low) / 6);
  for (double decade = low; decade < high + stride; decade += stride) {
    for (const double factor : {1.0, 2.0, 5.0}) {
      if (factor == 1 || fine) axis->ticks.push_back(factor * std::pow(10, decade));
    }
  }
  // The range begins and ends at the ticks next to it.
  std::vector<double>& ticks = axis->ticks;
  while (ticks.size() > 2 && ticks[1] <= axis->low * (1 + 1e-9)) ticks.erase(ticks.begin());
  while (ticks.size() > 2 && ticks[ticks.size() - 2] >= axis->high * (1 - 1e-9)) ticks.pop_back();
  axis->low = ticks.front();
  axis->high = ticks.back();
}

// Each point replaced by the mean of those around it, about a fortieth of all; a gap stays one, and
// no mean goes across it.
std::vector<ChartPoint> Smooth(std::vector<ChartPoint> points, const Axis& y) {
  const size_t reach = points.size() / 80;
  size_t begin = 0;
  while (begin < points.size()) {
    size_t end = begin;
    std::vector<double> sums = {0};
    while (end < points.size() && y.Has(points[end].y)) {
      sums.push_back(sums.back() + points[end++].y);
    }
    const size_t count = end - begin;
    for (size_t i = 0; i < count; ++i) {
      const size_t from = i - std::min(i, reach), to = std::min(i + reach + 1, count);
      points[begin + i].y = (sums[to] - sums[from]) / static_cast<double>(to - from);
    }
    begin = end + 1;
  }
  return points;
}

// Points on the screen; a gap is a NaN. Of the points that fall into one column of half a pixel,
// the first, the lowest, the highest and the last are kept, which draws the same picture.
std::vector<ChartPoint> Place(const std::vector<ChartPoint>& points, const Axis& x, const Axis& y) {
  std::vector<ChartPoint> placed;
  const auto column = [](const ChartPoint& p) { return std::floor(p.x * 2); };
  std::vector<ChartPoint> run;
  const auto flush = [&] {
    size_t low = 0, high = 0;
    for (size_t i = 0; i < run.size(); ++i) {
      if (run[i].y < run[low].y) low = i;
      if (run[i].y > run[high].y) high = i;
    }
    for (size_t i = 0; i < run.size(); ++i) {
      if (i == 0 || i == low || i == high || i + 1 == run.size()) placed.push_back(run[i]);
    }
    run.clear();
  };
  for (const ChartPoint& p : points) {
    if (!std::isfinite(p.x) || !y.Has(p.y)) {
      flush();
      placed.push_back({0, std::numeric_limits<double>::quiet_NaN()});
      continue;
    }
    const ChartPoint on_screen{x.Place(p.x), y.Place(p.y)};
    if (!run.empty() && column(run.front()) != column(on_screen)) flush();
    run.push_back(on_screen);
  }
  flush();
  return placed;
}

std::string PathData(const std::vector<ChartPoint>& placed) {
  std::string data;
  bool pen_down = false;
  for (const ChartPoint& p : placed) {
    if (std::isnan(p.y)) {
      pen_down = false;
      continue;
    }
    absl::StrAppend(&data, pen_down ? "L" : "M", Pixel(p.x), " ", Pixel(p.y));
    pen_down = true;
  }
  return data;
}

void AppendText(double x, double y, const char* attributes, const std::string& text,
                std::string* out) {
  absl::StrAppend(out, "<text x=\"", Pixel(x), "\" y=\"", Pixel(y), "\"", attributes, ">",
                  EscapeXml(text), "</text>\n");
}

void AppendLine(double x1, double y1, double x2, double y2, const std::string& type,
                std::string* out) {
  absl::StrAppend(out, "<line x1=\"", Pixel(x1), "\" y1=\"", Pixel(y1), "\" x2=\"", Pixel(x2),
                  "\" y2=\"", Pixel(y2), "\" class=\"", type, "\"/>\n");
}

// The entries, each with the last value of its line, stand right-aligned in the heading's line.
void AppendLegend(const ChartPanel& panel, const std::vector<std::vector<ChartPoint>>& lines,
                  const std::string& marks_label, double y, std::string* out) {
  struct Entry {
    std::string type, text;
  };
  std::vector<Entry> entries;
  for (size_t i = 0; i < panel.series.size(); ++i) {
    std::string text = panel.series[i].label;
    const auto last = std::find_if(lines[i].rbegin(), lines[i].rend(),
                                   [](const ChartPoint& p) { return std::isfinite(p.y); });
    if (last != lines[i].rend()) absl::StrAppend(&text, " ", absl::StrFormat("%.4g", last->y));
    entries.push_back({absl::StrCat("line s", i % kNumColors), text});
  }
  if (!marks_label.empty()) entries.push_back({"mark", marks_label});
  double x = kWidth - kRight;
  for (const Entry& entry : entries) x -= 28 + static_cast<double>(entry.text.size()) * kCharWidth;
  x += 8;
  for (const Entry& entry : entries) {
    AppendLine(x - 8, y - 4, x + 8, y - 4, entry.type, out);
    AppendText(x + 13, y, "", entry.text, out);
    x += 28 + static_cast<double>(entry.text.size()) * kCharWidth;
  }
}

void AppendPanel(const Chart& chart, const ChartPanel& panel, const Axis& x, double top, bool last,
                 std::string* out) {
  AppendText(kLeft, top + 18, " class=\"heading\"", panel.title, out);
  Axis y;
  y.log = panel.log_y;
  std::vector<std::vector<ChartPoint>> lines;
  for (const ChartSeries& series : panel.series) {
    lines.push_back(series.smooth ? Smooth(series.points, y) : series.points);
  }
  AppendLegend(panel, lines, chart.marks.empty() ? "" : chart.marks_label, top + 18, out);

  y.from = top + kHeadingHeight + kPlotHeight;
  y.to = top + kHeadingHeight;
  y.low = std::numeric_limits<double>::infinity();
  y.high = -y.low;
  for (const ChartSeries& series : panel.series) {
    for (const ChartPoint& p : series.points) {
      if (!std::isfinite(p.x) || !y.Has(p.y)) continue;
      y.low = std::min(y.low, p.y);
      y.high = std::max(y.high, p.y);
    }
  }
  const bool empty = y.low > y.high;
  if (empty) {
    y.log = false;
    y.low = 0;
    y.high = 1;
  }
  if (y.log) {
    SetLogTicks(&y);
  } else {
    SetLinearTicks(5, /*widen=*/true, &y);
  }

  for (const double tick : y.ticks) {
    AppendLine(kLeft, y.Place(tick), kWidth - kRight, y.Place(tick), "grid", out);
    AppendText(kLeft - 8, y.Place(tick) + 4, " text-anchor=\"end\"", Number(tick), out);
  }
  for (const double tick : x.ticks) {
    AppendLine(x.Place(tick), y.from, x.Place(tick), y.from + 4, "axis", out);
    if (last) {
      AppendText(x.Place(tick), y.from + 19, " text-anchor=\"middle\"", Number(tick), out);
    }
  }
  AppendLine(kLeft, y.from, kWidth - kRight, y.from, "axis", out);
  if (last) {
    AppendText(kLeft + kPlotWidth / 2, y.from + 40, " text-anchor=\"middle\"", chart.x_label, out);
  }
  for (const double mark : chart.marks) {
    if (!(mark >= x.low && mark <= x.high)) continue;
    AppendLine(x.Place(mark), y.to, x.Place(mark), y.from, "mark", out);
  }
  if (empty) {
    AppendText(kLeft + kPlotWidth / 2, (y.from + y.to) / 2, " text-anchor=\"middle\"", "no values",
               out);
    return;
  }
  for (size_t i = 0; i < panel.series.size(); ++i) {
    const ChartSeries& series = panel.series[i];
    const int color = static_cast<int>(i) % kNumColors;
    if (series.smooth) {
      absl::StrAppend(out, "<path class=\"line raw s", color, "\" d=\"",
                      PathData(Place(series.points, x, y)), "\"/>\n");
    }
    const std::vector<ChartPoint> placed = Place(lines[i], x, y);
    absl::StrAppend(out, "<path class=\"line s", color, "\" d=\"", PathData(placed), "\"/>\n");
    const auto end = std::find_if(placed.rbegin(), placed.rend(),
                                  [](const ChartPoint& p) { return !std::isnan(p.y); });
    if (end != placed.rend()) {
      absl::StrAppend(out, "<circle class=\"d", color, "\" cx=\"", Pixel(end->x), "\" cy=\"",
                      Pixel(end->y), "\" r=\"3.5\"/>\n");
    }
  }
}

}  // namespace

std::string ChartToSvg(const Chart& chart) {
  Axis x;
  x.from = kLeft;
  x.to = kWidth - kRight;
  x.low = std::numeric_limits<double>::infinity();
  x.high = -x.low;
  for (const ChartPanel& panel : chart.panels) {
    for (const ChartSeries& series : panel.series) {
      for (const ChartPoint& p : series.points) {
        if (!std::isfinite(p.x)) continue;
        x.low = std::min(x.low, p.x);
        x.high = std::max(x.high, p.x);
      }
    }
  }
  if (x.low > x.high) {
    x.low = 0;
    x.high = 1;
  }
  // A run that begins near 0 is shown from 0.
  if (x.low > 0 && x.low < 0.1 * x.high) x.low = 0;
  SetLinearTicks(10, /*widen=*/false, &x);

  const double panel_height = kHeadingHeight + kPlotHeight;
  const double count = static_cast<double>(chart.panels.size());
  const double height =
      kTitleHeight + count * panel_height + std::max(0.0, count - 1) * kPanelGap + kAxisHeight;
  std::string out =
      absl::StrCat("<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"", Pixel(kWidth),
                   "\" height=\"", Pixel(height), "\" viewBox=\"0 0 ", Pixel(kWidth), " ",
                   Pixel(height), "\" role=\"img\">\n<title>", EscapeXml(chart.title), "</title>\n",
                   kStyle, "<rect class=\"ground\" width=\"100%\" height=\"100%\"/>\n");
  AppendText(kLeft, 32, " class=\"title\"", chart.title, &out);
  double top = kTitleHeight;
  for (size_t i = 0; i < chart.panels.size(); ++i) {
    AppendPanel(chart, chart.panels[i], x, top, i + 1 == chart.panels.size(), &out);
    top += panel_height + kPanelGap;
  }
  out += "</svg>\n";
  return out;
}

}  // namespace ferry
