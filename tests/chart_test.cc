// Tests of the charts: well-formed, whole, and with their points at the right places.
#include "tools/chart.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <limits>
#include <string>

#include "tests/xml_check.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

TEST(XmlCheckTest, KnowsGoodFromBad) {
  EXPECT_EQ(WhatIsWrongWithXml("<?xml?><!-- c --><a b=\"1\"><c/>x &amp; y</a>\n"), "");
  for (const char* const bad :
       {"", "<a>", "<a></b>", "</a>", "<a/><b/>", "<a b=1/>", "<a b=\"1\" b=\"2\"/>", "<a b=\"1/>",
        "<a>&</a>", "<a>&nbsp;</a>", "<a>\x01</a>", "<a b=\"<\"/>", "x<a/>", "<a", "<!-- <a/>",
        "<a b=\"1\"c=\"2\"/>"}) {
    EXPECT_NE(WhatIsWrongWithXml(bad), "") << bad;
  }
}

TEST(ChartTest, DrawsPointsMarksTicksAndLegend) {
  Chart chart;
  chart.title = "A <run> & its \"curves\"\x01";
  chart.panels.push_back({"loss", {{"training", {{0, 2}, {50, 1}, {100, 0}}}}});
  chart.panels.push_back({"accuracy", {{"test", {{50, 0.5}, {100, 0.75}}}, {"all", {}}}});
  chart.marks = {50, 1000};  // The second is outside.
  chart.marks_label = "resumed";
  const std::string svg = ChartToSvg(chart);
  EXPECT_EQ(WhatIsWrongWithXml(svg), "");
  EXPECT_THAT(svg, HasSubstr("A &lt;run&gt; &amp; its &quot;curves&quot; "));
  // The plot is 68 to 792 pixels wide, and the first one 78 to 278 high.
  EXPECT_THAT(svg, HasSubstr("d=\"M68 78L430 178L792 278\""));
  EXPECT_THAT(svg, HasSubstr("<line x1=\"430\" y1=\"78\" x2=\"430\" y2=\"278\" class=\"mark\"/>"));
  EXPECT_EQ(Count(svg, "class=\"mark\""), 2 + 2);  // A line and a legend in each panel.
  EXPECT_THAT(svg, HasSubstr(">training 0<"));
  EXPECT_THAT(svg, HasSubstr(">test 0.75<"));
  EXPECT_THAT(svg, HasSubstr(">resumed<"));
  for (const char* const tick : {">1.5<", ">100<", ">20<", ">0.55<"}) {
    EXPECT_THAT(svg, HasSubstr(tick));
  }
  EXPECT_EQ(Count(svg, ">step<"), 1);
  EXPECT_THAT(svg, HasSubstr("prefers-color-scheme: dark"));
}

TEST(ChartTest, GapsAtWhatIsNoNumber) {
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  Chart chart;
  chart.panels.push_back({"loss", {{"a", {{0, 0}, {1, nan}, {2, 1}, {3, inf}, {4, 0}}}}});
  std::string svg = ChartToSvg(chart);
  EXPECT_EQ(WhatIsWrongWithXml(svg), "");
  EXPECT_THAT(svg, HasSubstr("d=\"M68 278M430 78M792 278\""));

  chart.panels[0].log_y = true;
  chart.panels[0].series[0].points = {{0, 1}, {1, -1}, {2, 0}, {4, 100}};
  svg = ChartToSvg(chart);
  EXPECT_THAT(svg, HasSubstr("d=\"M68 278M792 78\""));
  EXPECT_THAT(svg, HasSubstr(">10<"));
  EXPECT_THAT(svg, Not(HasSubstr("nan")));
  EXPECT_THAT(svg, Not(HasSubstr("inf")));
}

TEST(ChartTest, DrawsAnythingThatIsThere) {
  Chart chart;
  EXPECT_EQ(WhatIsWrongWithXml(ChartToSvg(chart)), "");
  chart.panels.push_back({"empty", {}});
  EXPECT_THAT(ChartToSvg(chart), HasSubstr(">no values<"));
  for (const double y : {0.0, 3.0, -1e300, 1e-300, 1e15}) {
    for (const bool log_y : {false, true}) {
      chart.panels = {{"one", {{"point", {{7, y}}}}, log_y}};
      const std::string svg = ChartToSvg(chart);
      EXPECT_EQ(WhatIsWrongWithXml(svg), "");
      EXPECT_EQ(Count(svg, "<circle"), log_y && y <= 0 ? 0 : 1) << y;
      EXPECT_THAT(svg, Not(HasSubstr("nan")));
      EXPECT_LT(Count(svg, "class=\"grid\""), 30);
    }
  }
}

TEST(ChartTest, ManyPointsStaySmallAndKeepExtremes) {
  ChartSeries series;
  for (int i = 0; i <= 1000000; ++i) {
    series.points.push_back({static_cast<double>(i), i == 500000 ? 10.0 : i % 2 * 1.0});
  }
  Chart chart;
  chart.panels.push_back({"loss", {series}});
  const std::string svg = ChartToSvg(chart);
  EXPECT_LT(svg.size(), 100000);
  EXPECT_THAT(svg, HasSubstr("L430 78L"));  // The one peak.
}

TEST(ChartTest, SmoothMeanLiesBetween) {
  Chart chart;
  ChartSeries series{"a", {}, /*smooth=*/true};
  for (int i = 0; i < 400; ++i) series.points.push_back({i * 1.0, i % 2 * 1.0});
  chart.panels.push_back({"loss", {series}});
  const std::string svg = ChartToSvg(chart);
  EXPECT_EQ(Count(svg, "class=\"line raw s0\""), 1);
  // The mean ends near a half, in the middle of the plot at 178.
  const size_t dot = svg.find("cy=\"");
  ASSERT_NE(dot, std::string::npos);
  EXPECT_NEAR(atof(svg.c_str() + dot + 4), 178, 12);
}

}  // namespace
}  // namespace ferry
