// Learning rate schedules at steps around their edges, beside their formulas, and the names of
// their nodes.
#include "runtime/graph/learning_rate.h"

#include <cmath>
#include <functional>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;

// Expects the schedule to be `formula` of the step, fed as int64, int32 and float.
void ExpectRates(const std::function<Output(const Scope&, Output)>& schedule,
                 const std::function<double(double)>& formula, const std::string& name) {
  for (const DType dtype : {DType::kInt64, DType::kInt32, DType::kFloat}) {
    Graph graph;
    Scope s(&graph);
    Output step = ops::Placeholder(s.WithOpName("step"), DType::kInt64, PartialShape::Scalar());
    Output rate =
        schedule(s, dtype == DType::kInt64 ? step : ops::Cast(s.WithOpName("as"), step, dtype));
    ASSERT_TRUE(s.ok()) << s.status();
    EXPECT_EQ(rate.name(), name);
    Session session(&graph);
    for (const int64_t at : {0, 1, 4, 5, 6, 9, 10, 11, 19, 20, 21, 35}) {
      std::vector<Tensor> out;
      const absl::Status run =
          session.Run({{"step", Tensor::Scalar<int64_t>(at)}}, {rate.name()}, {}, &out);
      ASSERT_TRUE(run.ok()) << run;
      EXPECT_NEAR(out[0].scalar<float>(), formula(static_cast<double>(at)), 1e-6)
          << name << " at " << at;
    }
  }
}

TEST(LearningRateTest, Exponential) {
  for (const bool staircase : {false, true}) {
    auto passed = [=](double t) { return staircase ? std::floor(t / 10) : t / 10; };
    ExpectRates(
        [=](const Scope& s, Output t) { return ExponentialDecay(s, 0.5, t, 10, 0.9, staircase); },
        [=](double t) { return 0.5 * std::pow(0.9, passed(t)); }, "ExponentialDecay:0");
    ExpectRates(
        [=](const Scope& s, Output t) { return NaturalExpDecay(s, 0.5, t, 10, 0.9, staircase); },
        [=](double t) { return 0.5 * std::exp(-0.9 * passed(t)); }, "ExponentialDecay:0");
    ExpectRates(
        [=](const Scope& s, Output t) { return InverseTimeDecay(s, 0.5, t, 10, 0.9, staircase); },
        [=](double t) { return 0.5 / (1 + 0.9 * passed(t)); }, "InverseTimeDecay:0");
  }
}

TEST(LearningRateTest, Polynomial) {
  ExpectRates([](const Scope& s, Output t) { return PolynomialDecay(s, 0.5, t, 10, 0.1, 2); },
              [](double t) { return 0.4 * std::pow(1 - std::min(t, 10.0) / 10, 2) + 0.1; },
              "PolynomialDecay:0");
  // With cycles the rate starts again, lower each time.
  ExpectRates([](const Scope& s, Output t) { return PolynomialDecay(s, 0.5, t, 10, 0.1, 1, true); },
              [](double t) {
                const double steps = 10 * (t == 0 ? 1 : std::ceil(t / 10));
                return 0.4 * (1 - t / steps) + 0.1;
              },
              "PolynomialDecay:0");
}

TEST(LearningRateTest, Cosine) {
  ExpectRates([](const Scope& s, Output t) { return CosineDecay(s, 0.5, t, 20, 0.1); },
              [](double t) {
                const double half = 0.5 * (1 + std::cos(std::acos(-1) * std::min(t, 20.0) / 20));
                return 0.5 * (0.9 * half + 0.1);
              },
              "CosineDecay/Mul_3:0");
}

TEST(LearningRateTest, Piecewise) {
  ExpectRates(
      [](const Scope& s, Output t) {
        return ops::Identity(s.WithOpName("rate"),
                             PiecewiseConstant(s, t, {5, 20}, {0.5, 0.25, 0.125}));
      },
      [](double t) { return t <= 5    ? 0.5
                            : t <= 20 ? 0.25
                                      : 0.125; }, "rate:0");
}

TEST(LearningRateTest, WrongArguments) {
  for (const auto& [boundaries, values, words] :
       std::vector<std::tuple<std::vector<double>, std::vector<double>, std::string>>{
           {{5}, {1}, "1 less than the length of values"},
           {{5, 5}, {1, 2, 3}, "boundaries must increase"}}) {
    Graph graph;
    Scope s(&graph);
    PiecewiseConstant(s, ops::Const<int32_t>(s, 1), boundaries, values);
    EXPECT_THAT(std::string(s.status().message()), HasSubstr(words));
  }
  Graph graph;
  Scope s(&graph);
  CosineDecay(s, 1, Output(), 10);
  EXPECT_THAT(std::string(s.status().message()), HasSubstr("global_step is required"));
}

}  // namespace
}  // namespace ferry
