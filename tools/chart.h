// Line charts as SVG pictures: the curves of a training run.
//
//   Chart chart;
//   chart.title = "Digits";
//   chart.panels.push_back({"loss", {{"training", losses, /*smooth=*/true}}});
//   chart.panels.push_back({"accuracy", {{"test", accuracies}}});
//   chart.marks = {120, 480};  // Steps at which the run was resumed.
//   WriteFileAtomically(fs, "curves.svg", ChartToSvg(chart));
#ifndef FERRY_TOOLS_CHART_H_
#define FERRY_TOOLS_CHART_H_

#include <string>
#include <vector>

namespace ferry {

struct ChartPoint {
  double x = 0, y = 0;
};

struct ChartSeries {
  std::string label;
  // In the order of drawing. A y that isn't finite (or, on a logarithmic axis, isn't positive)
  // leaves a gap.
  std::vector<ChartPoint> points;
  // Draws the points faintly and their running mean over that: for values that jump.
  bool smooth = false;
};

struct ChartPanel {
  std::string title;
  std::vector<ChartSeries> series;
  bool log_y = false;
};

// Panels stand one below the other and share the x axis.
struct Chart {
  std::string title;
  std::string x_label = "step";
  std::vector<ChartPanel> panels;
  std::vector<double> marks;  // Where thin vertical lines stand,
  std::string marks_label;    // … and what they say in the legend, such as "resumed".
};

// A whole SVG file of 820 pixels' width, in colours for a light or a dark screen as the viewer
// prefers. Of more points than there are pixels it keeps those that show, extremes among them.
std::string ChartToSvg(const Chart& chart);

}  // namespace ferry

#endif  // FERRY_TOOLS_CHART_H_
