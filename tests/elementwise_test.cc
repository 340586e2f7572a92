// Element-wise kernels where TensorFlow's small cases don't reach: tensors that are split over
// threads, any broadcasting of random shapes, places in a vector, second derivatives, integers'
// edges.
#include <cmath>
#include <cstring>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/types.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"
#include "tests/op_cases.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;

Output Node2(const Scope& s, const std::string& op, const std::vector<Output>& in) {
  NodeBuilder b(s, op);
  if (op == "AddN") {
    b.Input(in);
  } else {
    for (const Output& x : in) b.Input(x);
  }
  return b.BuildOutput();
}

// Runs one op on tensors that are fed.
absl::StatusOr<Tensor> RunOp(const std::string& op, const std::vector<Tensor>& in,
                             int threads = 1) {
  Graph graph;
  const Scope root(&graph);
  std::vector<Output> inputs;
  std::vector<std::pair<Output, Tensor>> feeds;
  for (const Tensor& t : in) {
    inputs.push_back(ops::Placeholder(root, t.dtype()));
    feeds.emplace_back(inputs.back(), t);
  }
  const Output y = Node2(root, op, inputs);
  FERRY_RETURN_IF_ERROR(root.status());
  SessionOptions options;
  options.threads = threads;
  Session session(&graph, options);
  std::vector<Tensor> out;
  FERRY_RETURN_IF_ERROR(session.Run(feeds, {y}, {}, &out));
  return out[0];
}

template <typename T>
Tensor Random(const TensorShape& shape, std::mt19937* rng, double low = -3, double high = 3) {
  std::uniform_real_distribution<double> d(low, high);
  Tensor t = *Tensor::Allocate(DTypeOf<T>::value, shape);
  for (T& x : t.span<T>()) x = static_cast<T>(d(*rng));
  return t;
}

// The element of a tensor of shape `from`, broadcast to `to`, that stands at position `at`.
int64_t SourceOf(const TensorShape& from, const TensorShape& to, int64_t at) {
  int64_t source = 0, volume = 1;
  for (int d = to.rank() - 1; d >= 0; --d) {
    const int64_t index = at % to.dim(d);
    at /= to.dim(d);
    const int own = d - (to.rank() - from.rank());
    if (own < 0) continue;
    if (from.dim(own) != 1) source += index * volume;
    volume *= from.dim(own);
  }
  return source;
}

// Shapes that broadcast together: each dimension of each is the common size or 1, or not there.
std::vector<TensorShape> RandomShapes(int count, std::mt19937* rng, TensorShape* common) {
  auto below = [&](int n) { return static_cast<int>((*rng)() % static_cast<unsigned>(n)); };
  const int rank = below(7);
  std::vector<int64_t> sizes;
  const int64_t choices[] = {1, 2, 3, 5, 17, 64};
  for (int d = 0; d < rank; ++d) sizes.push_back(below(40) == 0 ? 0 : choices[below(6)]);
  std::vector<TensorShape> shapes;
  for (int k = 0; k < count; ++k) {
    TensorShape s;
    for (int d = below(rank + 1); d < rank; ++d) {
      s.AddDim(below(3) == 0 ? 1 : sizes[static_cast<size_t>(d)]);
    }
    shapes.push_back(s);
  }
  *common = shapes[0];
  for (const TensorShape& s : shapes) *common = *BroadcastShapes(*common, s);
  return shapes;
}

template <typename T>
void CheckSum(std::mt19937* rng) {
  TensorShape shape;
  const std::vector<TensorShape> shapes = RandomShapes(2, rng, &shape);
  if (shape.num_elements() > 400000) return;
  const Tensor x = Random<T>(shapes[0], rng), y = Random<T>(shapes[1], rng);
  Tensor expected = *Tensor::Allocate(x.dtype(), shape);
  for (int64_t i = 0; i < shape.num_elements(); ++i) {
    expected.data<T>()[i] = static_cast<T>(x.data<T>()[SourceOf(shapes[0], shape, i)] +
                                           y.data<T>()[SourceOf(shapes[1], shape, i)]);
  }
  for (int threads : {1, 3}) {
    absl::StatusOr<Tensor> sum = RunOp("AddV2", {x, y}, threads);
    ASSERT_TRUE(sum.ok()) << sum.status();
    const absl::Status same = CompareTensors(expected, *sum);
    EXPECT_TRUE(same.ok()) << shapes[0].DebugString() << " + " << shapes[1].DebugString() << ": "
                           << same.message();
  }
}

TEST(ElementwiseTest, TwoOperandsBroadcastLikeIndexing) {
  std::mt19937 rng(1);
  for (int i = 0; i < 150; ++i) {
    CheckSum<float>(&rng);
    CheckSum<int8_t>(&rng);
    CheckSum<half>(&rng);
  }
}

TEST(ElementwiseTest, ThreeOperandsBroadcastLikeIndexing) {
  std::mt19937 rng(2);
  for (int i = 0; i < 150; ++i) {
    TensorShape shape;
    const std::vector<TensorShape> shapes = RandomShapes(3, &rng, &shape);
    if (shape.num_elements() > 400000) continue;
    const Tensor c = Random<bool>(shapes[0], &rng, 0, 2);
    const Tensor t = Random<int16_t>(shapes[1], &rng, -999, 999);
    const Tensor e = Random<int16_t>(shapes[2], &rng, -999, 999);
    Tensor expected = *Tensor::Allocate(t.dtype(), shape);
    for (int64_t k = 0; k < shape.num_elements(); ++k) {
      expected.data<int16_t>()[k] = c.data<bool>()[SourceOf(shapes[0], shape, k)]
                                        ? t.data<int16_t>()[SourceOf(shapes[1], shape, k)]
                                        : e.data<int16_t>()[SourceOf(shapes[2], shape, k)];
    }
    absl::StatusOr<Tensor> found = RunOp("SelectV2", {c, t, e}, 2);
    ASSERT_TRUE(found.ok()) << found.status();
    const absl::Status same = CompareTensors(expected, *found);
    EXPECT_TRUE(same.ok()) << shapes[0].DebugString() << shapes[1].DebugString()
                           << shapes[2].DebugString() << ": " << same.message();
  }
}

// An element's result doesn't depend on its place, its neighbours or the number of threads.
template <typename T>
void CheckPlaces(const std::string& op) {
  std::mt19937 rng(3);
  constexpr int64_t kCount = 100003, kShift = 5;
  const Tensor x = Random<T>({kCount}, &rng, 0.01, 9);
  std::vector<T> shifted(x.data<T>() + kShift, x.data<T>() + kCount);
  absl::StatusOr<Tensor> y = RunOp(op, {x}), z = RunOp(op, {Tensor::Of<T>(shifted)}, 3);
  ASSERT_TRUE(y.ok() && z.ok()) << y.status() << z.status();
  EXPECT_EQ(0, std::memcmp(y->data<T>() + kShift, z->data<T>(), z->bytes())) << op;
}

TEST(ElementwiseTest, PlacesDontMatter) {
  for (const char* op : {"Exp", "Expm1", "Log", "Log1p", "Sin", "Cos", "Tanh", "Sigmoid", "Elu",
                         "Softplus", "Erf", "Sqrt", "Rsqrt", "Square", "Relu"}) {
    CheckPlaces<float>(op);
    CheckPlaces<double>(op);
    CheckPlaces<half>(op);
    CheckPlaces<bfloat16>(op);
  }
}

TEST(ElementwiseTest, AnErrorInAnyBlockIsReported) {
  std::vector<int32_t> ones(200000, 1);
  const Tensor x = Tensor::Of<int32_t>(ones);
  for (size_t zero : {size_t{0}, size_t{100000}, ones.size() - 1}) {
    std::vector<int32_t> y = ones;
    y[zero] = 0;
    const absl::Status s = RunOp("FloorDiv", {x, Tensor::Of<int32_t>(y)}, 2).status();
    EXPECT_EQ(s.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(s.message()), HasSubstr("Integer division by zero"));
    // Broadcast by rows.
    const Tensor rows = Tensor::Of<int32_t>(ones, {2, 100000}),
                 column = Tensor::Of<int32_t>({1, 0});
    EXPECT_FALSE(RunOp("FloorMod", {rows, column.WithShape({2, 1})}, 2).ok());
  }
  EXPECT_TRUE(RunOp("FloorDiv", {x, x}, 2).ok());
  // No element, no error.
  EXPECT_TRUE(RunOp("FloorDiv", {Tensor::Of<int32_t>({}), Tensor::Scalar<int32_t>(0)}).ok());
}

template <typename T>
void CheckLowest() {
  constexpr T kLow = std::numeric_limits<T>::min();
  const Tensor low = Tensor::Of<T>({kLow, 7}), minus = Tensor::Of<T>({-1, -1});
  for (const auto& [op, first] : std::vector<std::pair<std::string, T>>{
           {"FloorDiv", kLow}, {"TruncateDiv", kLow}, {"FloorMod", 0}, {"Mul", kLow}}) {
    absl::StatusOr<Tensor> y = RunOp(op, {low, minus});
    ASSERT_TRUE(y.ok()) << y.status();
    EXPECT_EQ(y->data<T>()[0], first) << op;
  }
  EXPECT_EQ(RunOp("Neg", {low})->template data<T>()[0], kLow);
  EXPECT_EQ(RunOp("Abs", {low})->template data<T>()[0], kLow);
}

TEST(ElementwiseTest, TheLowestIntegerWrapsAround) {
  CheckLowest<int8_t>();
  CheckLowest<int16_t>();
  CheckLowest<int32_t>();
  CheckLowest<int64_t>();
}

// Sums of one tensor with itself, whose memory the kernel may take for the output.
TEST(ElementwiseTest, AddNTakesATensorSeveralTimes) {
  std::mt19937 rng(4);
  const Tensor x = Random<float>({70001}, &rng);
  for (size_t n : {1, 2, 3, 9}) {
    Graph graph;
    const Scope root(&graph);
    const Output fed = ops::Placeholder(root, DType::kFloat);
    const Output own = ops::Neg(root, fed);
    const Output y = ops::AddN(root, std::vector<Output>(n, own));
    Session session(&graph);
    std::vector<Tensor> out;
    ASSERT_TRUE(root.ok() && session.Run({{fed, x}}, {y}, {}, &out).ok());
    for (int64_t i = 0; i < x.num_elements(); ++i) {
      float sum = 0;
      for (size_t k = 0; k < n; ++k) sum += -x.data<float>()[i];
      ASSERT_EQ(out[0].data<float>()[i], sum) << n << " times, element " << i;
    }
  }
}

// The gradient's gradient against differences of the gradient.
TEST(ElementwiseTest, SecondDerivatives) {
  const std::vector<double> at = {-2.3, -0.7, -0.2, 0.3, 0.9, 2.6};
  const double h = 1e-5;
  for (const std::string op :
       {"Tanh", "Sigmoid", "Sqrt",     "Rsqrt", "Reciprocal", "Inv",      "Square",
        "Exp",  "Log",     "Log1p",    "Sin",   "Cos",        "Erf",      "Expm1",
        "Elu",  "Selu",    "Softplus", "Relu",  "Relu6",      "LeakyRelu"}) {
    Graph graph;
    const Scope root(&graph);
    const Output x = ops::Placeholder(root, DType::kDouble);
    std::vector<Output> first, second;
    const absl::Status built = [&] {
      FERRY_RETURN_IF_ERROR(AddSymbolicGradients(root, {Node2(root, op, {x})}, {x}, &first));
      return AddSymbolicGradients(root, first, {x}, &second);
    }();
    ASSERT_TRUE(built.ok()) << op << ": " << built;
    Session session(&graph);
    auto gradient = [&](Output g, double v) {
      std::vector<Tensor> out;
      const absl::Status s = session.Run({{x, Tensor::Scalar<double>(v)}}, {g}, {}, &out);
      EXPECT_TRUE(s.ok()) << op << ": " << s;
      return s.ok() ? out[0].scalar<double>() : NAN;
    };
    const bool positive = op == "Sqrt" || op == "Rsqrt" || op == "Log" || op == "Log1p";
    for (double v : at) {
      if (positive) v = std::fabs(v);
      const double slope = (gradient(first[0], v + h) - gradient(first[0], v - h)) / (2 * h);
      const double found = second[0].node == nullptr ? 0 : gradient(second[0], v);
      EXPECT_NEAR(found, slope, 1e-6 * std::max(1.0, std::fabs(slope))) << op << " at " << v;
    }
  }
}

}  // namespace
}  // namespace ferry
