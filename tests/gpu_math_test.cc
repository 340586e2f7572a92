// GPU kernels of products, reductions, softmax, random numbers and updates of variables against the
// CPU's, at sizes around the widths of vectors, groups, blocks and chunks.
#include <cmath>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "kernels/types.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/session/session.h"
#include "tests/op_cases.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;

// Numbers in [-3, 3), integers in [-9, 9], that look random but are the same each time.
Tensor Values(DType dtype, const TensorShape& shape, uint32_t seed = 1) {
  Tensor t = *Tensor::Allocate(dtype, shape);
  uint32_t state = seed * 747796405u + 2891336453u;
  auto fill = [&](auto* data) {
    using T = std::remove_pointer_t<decltype(data)>;
    for (int64_t i = 0; i < t.num_elements(); ++i) {
      state = state * 1664525u + 1013904223u;
      const double v = static_cast<double>(state >> 8) / (1 << 24);
      if constexpr (std::is_same_v<T, bool>) {
        data[i] = v < 0.98;
      } else if constexpr (std::is_integral_v<T>) {
        data[i] = static_cast<T>(static_cast<int>(std::floor(v * 19)) - 9);
      } else {
        data[i] = static_cast<T>(v * 6 - 3);
      }
    }
  };
  switch (dtype) {
#define FERRY_CASE(E, T)            \
  case DType::E:                    \
    fill(static_cast<T*>(t.raw())); \
    break
    FERRY_CASE(kHalf, half);
    FERRY_CASE(kBfloat16, bfloat16);
    FERRY_CASE(kFloat, float);
    FERRY_CASE(kDouble, double);
    FERRY_CASE(kInt8, int8_t);
    FERRY_CASE(kInt16, int16_t);
    FERRY_CASE(kInt32, int32_t);
    FERRY_CASE(kInt64, int64_t);
    FERRY_CASE(kUint8, uint8_t);
    FERRY_CASE(kUint16, uint16_t);
    FERRY_CASE(kUint32, uint32_t);
    FERRY_CASE(kUint64, uint64_t);
    FERRY_CASE(kBool, bool);
#undef FERRY_CASE
    default:
      ADD_FAILURE() << DTypeName(dtype);
  }
  return t;
}

const std::vector<DType> kFloats = {DType::kFloat, DType::kDouble, DType::kHalf, DType::kBfloat16};
const std::vector<DType> kReduced = {DType::kFloat, DType::kDouble,   DType::kHalf,
                                     DType::kInt32, DType::kBfloat16, DType::kInt64};

// How far results may be from the CPU's, by the largest of them: a few roundings of the type that
// both compute in, and the one to T.
double Tolerance(DType t) {
  switch (t) {
    case DType::kHalf:
      return 1.0 / (1 << 10);
    case DType::kBfloat16:
      return 1.0 / (1 << 7);
    case DType::kFloat:
      return 4e-6;
    case DType::kDouble:
      return 1e-14;
    default:
      return 0;
  }
}

// One op. Its first `refs` inputs are variables, what it does to them is done `times` times, and
// their contents are its results; the others are fed.
struct Op {
  std::string name;
  std::vector<Tensor> inputs;
  std::function<void(NodeBuilder*)> attrs = nullptr;
  int refs = 0;
  int times = 1;

  std::string DebugString() const {
    return absl::StrCat(name, " ", absl::StrJoin(inputs, " ", [](std::string* s, const Tensor& t) {
                          absl::StrAppend(s, DTypeName(t.dtype()), t.shape().DebugString());
                        }));
  }

  absl::StatusOr<std::vector<Tensor>> On(const std::string& device) const {
    Graph graph;
    const Scope s = Scope(&graph).WithDevice(absl::StrCat("/", device, ":0"));
    NodeBuilder builder(s.WithOpName("op"), name);
    std::vector<Output> variables, init;
    std::vector<std::pair<Output, Tensor>> feeds;
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Output fed = ops::Placeholder(s, inputs[i].dtype());
      feeds.emplace_back(fed, inputs[i]);
      if (static_cast<int>(i) < refs) {
        variables.push_back(ops::VariableV2(s, inputs[i].shape(), inputs[i].dtype()));
        init.push_back(ops::Assign(s, variables.back(), fed));
        builder.Input(variables.back());
      } else {
        builder.Input(fed);
      }
    }
    if (attrs) attrs(&builder);
    Node* const node = builder.Build();
    FERRY_RETURN_IF_ERROR(s.status());
    if (device == "gpu") {
      FERRY_RETURN_IF_ERROR(FindKernel(name, DeviceType::kGpu, node->attrs()).status());
    }
    SessionOptions options;
    options.device = device;
    Session session(&graph, options);
    std::vector<Tensor> out;
    if (refs > 0) {
      FERRY_RETURN_IF_ERROR(session.Run(feeds, init, {}, &out));
      for (int i = 0; i < times; ++i) {
        FERRY_RETURN_IF_ERROR(session.Run(feeds, {}, {node}, &out));
      }
      FERRY_RETURN_IF_ERROR(session.Run(feeds, variables, {}, &out));
      return out;
    }
    std::vector<Output> outputs, all;
    for (int i = 0; i < node->num_outputs(); ++i) outputs.emplace_back(node, i);
    std::vector<Tensor> results;
    for (int i = 0; i < times; ++i) {
      FERRY_RETURN_IF_ERROR(session.Run(feeds, outputs, {}, &out));
      results.insert(results.end(), out.begin(), out.end());
    }
    return results;
  }

  // Whether both devices give the same, or the same error. Returns the GPU's.
  std::vector<Tensor> Check(double tol, double rtol = 0) const {
    const auto expected = On("cpu"), found = On("gpu");
    EXPECT_EQ(expected.status(), found.status()) << DebugString();
    if (!expected.ok() || !found.ok()) return {};
    for (size_t i = 0; i < expected->size(); ++i) {
      const absl::Status same = CompareTensors((*expected)[i], (*found)[i], tol, rtol);
      EXPECT_TRUE(same.ok()) << DebugString() << ", result " << i << ": " << same;
    }
    return *found;
  }
};

// ---- Products ----

TEST(GpuMatMulTest, BothTransposes) {
  const int64_t sizes[][3] = {{1, 1, 1}, {2, 3, 4}, {17, 33, 5}, {64, 16, 32},
                              {0, 3, 4}, {3, 0, 4}, {3, 4, 0},   {1, 70, 1}};
  for (DType t : kFloats) {
    for (const auto& [m, k, n] : sizes) {
      for (int transposes = 0; transposes < 4; ++transposes) {
        const bool ta = transposes & 1, tb = transposes & 2;
        const TensorShape a = ta ? TensorShape({k, m}) : TensorShape({m, k});
        const TensorShape b = tb ? TensorShape({n, k}) : TensorShape({k, n});
        Op{"MatMul",
           {Values(t, a, 1), Values(t, b, 2)},
           [&](NodeBuilder* o) { o->Attr("transpose_a", ta).Attr("transpose_b", tb); }}
            .Check(Tolerance(t));
      }
    }
  }
  const Tensor x = Values(DType::kFloat, {2, 3});
  Op{"MatMul", {x, x}}.Check(0);
  Op{"MatMul", {x, Values(DType::kFloat, {3})}}.Check(0);
}

TEST(GpuMatMulTest, BatchesAreBroadcast) {
  const std::vector<std::pair<std::vector<int64_t>, std::vector<int64_t>>> batches = {
      {{}, {}},
      {{5}, {5}},
      {{5}, {}},
      {{}, {5}},
      {{1}, {5}},
      {{2, 3}, {3}},
      {{2, 1}, {1, 3}},
      {{2, 1, 3}, {4, 1}},
      {{2, 3}, {2, 3}},
      {{0}, {1}},
      {{2, 1, 2}, {2, 3, 2}},
      {{2}, {3}}};
  for (DType t : {DType::kFloat, DType::kDouble, DType::kHalf}) {
    for (auto [a, b] : batches) {
      for (bool ta : {false, true}) {
        std::vector<int64_t> x = a, y = b;
        x.insert(x.end(), {ta ? 3 : 2, ta ? 2 : 3});
        y.insert(y.end(), {5, 3});
        Op{"BatchMatMulV2",
           {Values(t, TensorShape(x), 1), Values(t, TensorShape(y), 2)},
           [&](NodeBuilder* o) { o->Attr("adj_x", ta).Attr("adj_y", true); }}
            .Check(Tolerance(t));
      }
    }
  }
  Op{"BatchMatMul", {Values(DType::kFloat, {2, 2, 3}), Values(DType::kFloat, {2, 3, 4})}}.Check(
      Tolerance(DType::kFloat));
  Op{"BatchMatMul", {Values(DType::kFloat, {2, 2, 3}), Values(DType::kFloat, {1, 3, 4})}}.Check(0);
}

// ---- Reductions ----

// Without signs, so that sums of floats don't cancel out and tolerances mean something.
Tensor Magnitudes(const Tensor& x) { return (*Op{"Abs", {x}}.On("cpu"))[0]; }

void CheckReductions(const std::vector<std::string>& names, DType t, const TensorShape& shape,
                     const std::vector<int32_t>& axes, bool keep_dims = false) {
  for (const std::string& name : names) {
    const bool ones = name == "Prod" && Tolerance(t) > 0;
    Tensor x = Values(t, shape);
    if (Tolerance(t) > 0 && (name == "Sum" || name == "Mean")) x = Magnitudes(x);
    // Products of many numbers that neither overflow nor vanish.
    if (ones && t == DType::kFloat) {
      for (float& v : x.span<float>()) v = 1 + v / 1024;
    }
    if (ones && t == DType::kDouble) {
      for (double& v : x.span<double>()) v = 1 + v / 1024;
    }
    if (ones && t != DType::kFloat && t != DType::kDouble && shape.num_elements() > 64) continue;
    Op{name,
       {x, Tensor::Of<int32_t>(axes)},
       [&](NodeBuilder* o) { o->Attr("keep_dims", keep_dims); }}
        .Check(Tolerance(t), ones ? 2e-4 : 0);
  }
}

TEST(GpuReduceTest, AllOfARow) {
  for (DType t : kReduced) {
    for (int64_t n :
         {0,  1,  2,   3,   4,   5,   7,    8,    9,    15,   17,   31,   32,   33,
          63, 65, 127, 129, 255, 257, 1023, 1025, 2047, 2049, 4097, 8191, 8193, 30000}) {
      CheckReductions({"Sum", "Mean", "Prod", "Max", "Min"}, t, {n}, {0});
    }
  }
}

TEST(GpuReduceTest, AnyAxes) {
  struct Case {
    std::vector<int64_t> shape;
    std::vector<int32_t> axes;
  };
  const std::vector<Case> cases = {
      {{7, 5}, {0}},        {{7, 5}, {1}},          {{64, 33}, {0}},
      {{64, 33}, {1}},      {{300, 4}, {0}},        {{300, 4}, {-1}},
      {{5, 1000}, {0}},     {{5, 1000}, {1}},       {{1, 300}, {0}},
      {{3, 17, 65}, {1}},   {{2, 600, 3}, {1}},     {{2, 3, 4}, {0, 2}},
      {{9, 8, 70}, {0, 2}}, {{3, 4, 5, 6}, {1, 3}}, {{3, 4, 5, 6}, {0, 2}},
      {{3, 4, 5, 6}, {}},   {{3, 1, 5}, {1}},       {{2, 2, 2, 2, 2, 2, 2}, {0, 2, 4, 6}},
      {{0, 3}, {0}},        {{0, 3}, {1}},          {{2, 0, 3}, {1, 2}},
      {{3, 0}, {0, 1}},     {{2000, 3}, {0}},       {{4, 9000}, {1}},
      {{20000, 1}, {0}},    {{2, 257}, {0}},        {{2, 3}, {2}},
      {{2, 3}, {0, 0}}};
  for (DType t : {DType::kFloat, DType::kHalf, DType::kInt32}) {
    for (const Case& c : cases) {
      const std::vector<std::string> names = {"Sum", "Mean", "Max", "Min"};
      CheckReductions(names, t, TensorShape(c.shape), c.axes, false);
      if (t == DType::kFloat) CheckReductions(names, t, TensorShape(c.shape), c.axes, true);
    }
  }
  for (const Case& c : cases) {
    CheckReductions({"All", "Any"}, DType::kBool, TensorShape(c.shape), c.axes);
  }
}

TEST(GpuReduceTest, NotANumberSpreads) {
  Tensor x = Values(DType::kFloat, {5, 100});
  x.data<float>()[3 * 100 + 77] = std::numeric_limits<float>::quiet_NaN();
  x.data<float>()[100 + 1] = std::numeric_limits<float>::infinity();
  for (const char* name : {"Sum", "Max", "Min", "Prod"}) {
    Op{name, {x, Tensor::Of<int32_t>({1})}}.Check(1e-5);
  }
}

TEST(GpuReduceTest, L2Loss) {
  for (DType t : kFloats) {
    for (int64_t n : {0, 1, 5, 8, 31, 257, 5000, 20001}) {
      if (t == DType::kHalf && n > 10000) continue;  // Beyond its range.
      Op{"L2Loss", {Values(t, {n})}}.Check(Tolerance(t));
    }
  }
}

TEST(GpuArgTest, FirstOfTheBest) {
  struct Case {
    std::vector<int64_t> shape;
    int axis;
  };
  for (DType t : kReduced) {
    for (const Case& c : std::vector<Case>{{{1}, 0},
                                           {{9}, 0},
                                           {{10000}, 0},
                                           {{6, 10}, 1},
                                           {{6, 10}, 0},
                                           {{3, 500, 7}, 1},
                                           {{40, 33}, -1},
                                           {{20000, 3}, 0},
                                           {{0, 3}, 1},
                                           {{0, 3}, 0}}) {
      for (const char* name : {"ArgMax", "ArgMin"}) {
        for (DType to : {DType::kInt64, DType::kInt32}) {
          Op{name,
             {Values(t, TensorShape(c.shape)), Tensor::Scalar<int32_t>(c.axis)},
             [&](NodeBuilder* o) { o->Attr("output_type", to); }}
              .Check(0);
        }
      }
    }
  }
  const float nan = std::numeric_limits<float>::quiet_NaN(),
              inf = std::numeric_limits<float>::infinity();
  for (const char* name : {"ArgMax", "ArgMin"}) {
    for (const Tensor& x :
         {Tensor::Of<float>({nan, 1, nan, 1}), Tensor::Of<float>({nan, nan}),
          Tensor::Of<float>({-inf, -inf}), Tensor::Of<float>({inf, nan, inf, -inf})}) {
      Op{name, {x, Tensor::Scalar<int32_t>(0)}}.Check(0);
    }
  }
}

// ---- Softmax and its kin ----

TEST(GpuSoftmaxTest, Rows) {
  for (DType t : kFloats) {
    for (const auto& [rows, columns] : std::vector<std::pair<int64_t, int64_t>>{{1, 1},
                                                                                {3, 2},
                                                                                {7, 5},
                                                                                {300, 10},
                                                                                {2, 31},
                                                                                {2, 32},
                                                                                {5, 33},
                                                                                {3, 129},
                                                                                {2, 2048},
                                                                                {2, 2049},
                                                                                {3, 5000},
                                                                                {0, 3},
                                                                                {3, 0}}) {
      const Tensor x = Values(t, {rows, columns});
      for (const char* name : {"Softmax", "LogSoftmax"}) Op{name, {x}}.Check(Tolerance(t));
      Op{"SoftmaxCrossEntropyWithLogits", {x, Magnitudes(Values(t, {rows, columns}, 2))}}.Check(
          Tolerance(t));
      Tensor labels = *Tensor::Allocate(DType::kInt32, TensorShape({rows}));
      for (int64_t r = 0; r < rows; ++r) {
        labels.data<int32_t>()[r] = static_cast<int32_t>(r * 7 % std::max<int64_t>(columns, 1));
      }
      Op{"SparseSoftmaxCrossEntropyWithLogits", {x, labels}}.Check(Tolerance(t));
    }
  }
  Op{"Softmax", {Values(DType::kFloat, {2, 3, 4})}}.Check(4e-6);
  Op{"Softmax", {Values(DType::kFloat, {})}}.Check(0);
}

TEST(GpuSoftmaxTest, LabelsAreBroadcast) {
  const TensorShape shapes[][2] = {{{3, 5}, {1, 5}}, {{3, 5}, {3, 1}}, {{1, 5}, {3, 5}},
                                   {{3, 1}, {3, 5}}, {{3, 5}, {5}},    {{3, 5}, {}},
                                   {{3, 1}, {1, 5}}, {{3, 5}, {4, 5}}, {{2, 3, 5}, {3, 5}}};
  for (const auto& [logits, labels] : shapes) {
    Op{"SoftmaxCrossEntropyWithLogits",
       {Values(DType::kFloat, logits), Magnitudes(Values(DType::kFloat, labels, 2))}}
        .Check(4e-6);
  }
}

TEST(GpuSoftmaxTest, ALabelOutOfRangeMakesItsRowNaN) {
  const Op op{"SparseSoftmaxCrossEntropyWithLogits",
              {Values(DType::kFloat, {3, 4}), Tensor::Of<int64_t>({1, 4, -1})}};
  EXPECT_FALSE(op.On("cpu").ok());
  const auto found = op.On("gpu");
  ASSERT_TRUE(found.ok()) << found.status();
  for (int64_t r = 0; r < 3; ++r) {
    EXPECT_EQ(std::isnan((*found)[0].data<float>()[r]), r > 0);
    for (int64_t j = 0; j < 4; ++j)
      EXPECT_EQ(std::isnan((*found)[1].data<float>()[r * 4 + j]), r > 0);
  }
}

TEST(GpuInTopKTest, RowsOfAnyKind) {
  Tensor x = Values(DType::kFloat, {6, 50});
  x.data<float>()[2 * 50 + 3] = std::numeric_limits<float>::infinity();
  x.data<float>()[3 * 50 + 3] = std::numeric_limits<float>::quiet_NaN();
  for (int64_t k : {0, 1, 10, 25, 40, 50, 100}) {
    Op{"InTopK",
       {x, Tensor::Of<int32_t>({0, 49, 5, 6, 50, -1})},
       [&](NodeBuilder* o) { o->Attr("k", k); }}
        .Check(0);
    Op{"InTopKV2", {x, Tensor::Of<int64_t>({0, 49, 5, 6, 50, -1}), Tensor::Scalar<int64_t>(k)}}
        .Check(0);
  }
  Op{"InTopKV2", {x, Tensor::Of<int32_t>({0}), Tensor::Scalar<int32_t>(1)}}.Check(0);
}

// ---- Random numbers ----

TEST(GpuRandomTest, TheCpusNumbersRunByRun) {
  for (DType t : kFloats) {
    for (int64_t n : {0, 1, 3, 4, 5, 255, 1023, 1025, 5000}) {
      auto attrs = [&](NodeBuilder* o) { o->Attr("dtype", t).Attr("seed", 87).Attr("seed2", 5); };
      const Tensor shape = Tensor::Of<int32_t>({static_cast<int32_t>(n)});
      Op{"RandomUniform", {shape}, attrs, 0, 3}.Check(0);
      // Whose sin, cos and log round otherwise.
      Op{"RandomStandardNormal", {shape}, attrs, 0, 3}.Check(t == DType::kFloat ? 1e-6
                                                                                : Tolerance(t));
      Op{"TruncatedNormal", {shape}, attrs, 0, 3}.Check(t == DType::kFloat ? 1e-6 : Tolerance(t));
    }
  }
  auto attrs = [](NodeBuilder* o) { o->Attr("seed", -3).Attr("seed2", 1); };
  for (int64_t n : {1, 5, 2000}) {
    const Tensor shape = Tensor::Of<int64_t>({n, 3});
    Op{"RandomUniformInt",
       {shape, Tensor::Scalar<int32_t>(-7), Tensor::Scalar<int32_t>(100)},
       attrs,
       0,
       3}
        .Check(0);
    Op{"RandomUniformInt",
       {shape, Tensor::Scalar<int64_t>(std::numeric_limits<int64_t>::min()),
        Tensor::Scalar<int64_t>(std::numeric_limits<int64_t>::max())},
       attrs,
       0,
       3}
        .Check(0);
    Op{"RandomUniformInt", {shape, Tensor::Scalar<int32_t>(5), Tensor::Scalar<int32_t>(5)}, attrs}
        .Check(0);
  }
}

// ---- Updates of variables ----

Tensor ScalarOf(DType t, double value) {
  Tensor out = *Tensor::Allocate(t, TensorShape());
  switch (t) {
    case DType::kHalf:
      *out.data<half>() = static_cast<half>(value);
      break;
    case DType::kBfloat16:
      *out.data<bfloat16>() = static_cast<bfloat16>(value);
      break;
    case DType::kFloat:
      *out.data<float>() = static_cast<float>(value);
      break;
    default:
      *out.data<double>() = value;
  }
  return out;
}

TEST(GpuApplyTest, EveryRule) {
  for (DType t : kFloats) {
    for (int64_t n : {0, 1, 3, 4, 5, 8, 9, 257, 2051}) {
      const TensorShape shape({n});
      auto tensor = [&](uint32_t seed) { return Values(t, shape, seed); };
      // Of which roots are drawn; greater than the squares of what is in the other slots.
      auto square = [&](uint32_t seed) {
        return (*Op{"AddV2", {Magnitudes(tensor(seed)), ScalarOf(t, 10)}}.On("cpu"))[0];
      };
      auto scalar = [&](double v) { return ScalarOf(t, v); };
      const double tol = Tolerance(t);
      Op{"ApplyGradientDescent", {tensor(1), scalar(0.1), tensor(2)}, {}, 1, 2}.Check(tol);
      for (bool flag : {false, true}) {
        auto nesterov = [&](NodeBuilder* o) { o->Attr("use_nesterov", flag); };
        auto slots = [&](NodeBuilder* o) { o->Attr("update_slots", flag); };
        Op{"ApplyMomentum",
           {tensor(1), tensor(2), scalar(0.1), tensor(3), scalar(0.9)},
           nesterov,
           2,
           2}
            .Check(tol);
        Op{"ApplyAdam",
           {tensor(1), tensor(2), square(3), scalar(0.81), scalar(0.5), scalar(0.01), scalar(0.9),
            scalar(0.99), scalar(0.01), tensor(4)},
           nesterov,
           3,
           2}
            .Check(tol);
        Op{"ApplyAdagrad", {tensor(1), square(2), scalar(0.1), tensor(3)}, slots, 2, 2}.Check(tol);
        Op{"ApplyAdagradV2",
           {tensor(1), square(2), scalar(0.1), scalar(0.01), tensor(3)},
           slots,
           2,
           2}
            .Check(tol);
      }
      Op{"ApplyRMSProp",
         {tensor(1), square(2), tensor(3), scalar(0.1), scalar(0.9), scalar(0.5), scalar(0.01),
          tensor(4)},
         {},
         3,
         2}
          .Check(tol);
      Op{"ApplyCenteredRMSProp",
         {tensor(1), tensor(2), square(3), tensor(4), scalar(0.1), scalar(0.9), scalar(0.5),
          scalar(0.01), tensor(5)},
         {},
         4,
         2}
          .Check(4 * tol);
    }
  }
  const Tensor x = Values(DType::kFloat, {3});
  Op{"ApplyGradientDescent", {x, x, x}, {}, 1}.Check(0);
  Op{"ApplyGradientDescent", {x, ScalarOf(DType::kFloat, 1), Values(DType::kFloat, {4})}, {}, 1}
      .Check(0);
}

// The optimizers that TensorFlow has besides, and the ops that take rows: n updates of a variable
// of 5 rows, so that rows come several times and in any order.
TEST(GpuApplyTest, RowsAndRarerRules) {
  for (DType t : kFloats) {
    const double tol = 4 * Tolerance(t);
    auto scalar = [&](double v) { return ScalarOf(t, v); };
    for (int64_t n : {0, 1, 7, 300}) {
      for (int64_t width : {1, 3, 8}) {
        const TensorShape shape({5, width}), rows({n, width});
        Tensor indices = *Tensor::Allocate(DType::kInt32, TensorShape({n}));
        for (int64_t i = 0; i < n; ++i) {
          indices.data<int32_t>()[i] = static_cast<int32_t>(i * 7 % 11 % 5);
        }
        auto tensor = [&](uint32_t seed) { return Values(t, shape, seed); };
        auto square = [&](uint32_t seed) {
          return (*Op{"AddV2", {Magnitudes(tensor(seed)), scalar(10)}}.On("cpu"))[0];
        };
        // Small, so that many of them don't run away.
        auto small = [&](const TensorShape& s) {
          return (*Op{"Mul", {Values(t, s, 9), scalar(0.01)}}.On("cpu"))[0];
        };
        for (const bool sparse : {false, true}) {
          if (!sparse && n != 7) continue;
          auto check = [&](const std::string& name, std::vector<Tensor> refs,
                           std::vector<Tensor> before, std::vector<Tensor> after,
                           const std::function<void(NodeBuilder*)>& attrs) {
            const int count = static_cast<int>(refs.size());
            std::vector<Tensor> inputs = std::move(refs);
            inputs.insert(inputs.end(), before.begin(), before.end());
            inputs.push_back(small(sparse ? rows : shape));
            if (sparse) inputs.push_back(indices);
            inputs.insert(inputs.end(), after.begin(), after.end());
            Op{(sparse ? "SparseApply" : "Apply") + name, inputs, attrs, count, 2}.Check(tol);
          };
          const std::vector<Tensor> none;
          const Tensor lr = scalar(0.1), small_l1 = scalar(0.01);
          for (const bool flag : {false, true}) {
            auto nesterov = [&](NodeBuilder* o) { o->Attr("use_nesterov", flag); };
            auto slots = [&](NodeBuilder* o) { o->Attr("update_slots", flag); };
            auto multiply = [&](NodeBuilder* o) { o->Attr("multiply_linear_by_lr", flag); };
            check("Momentum", {tensor(1), tensor(2)}, {lr}, {scalar(0.9)}, nesterov);
            check("Adagrad", {tensor(1), square(2)}, {lr}, none, slots);
            check("AdagradV2", {tensor(1), square(2)}, {lr, small_l1}, none, slots);
            check("Ftrl", {tensor(1), square(2), tensor(3)}, none,
                  {lr, small_l1, small_l1, scalar(-0.5)}, multiply);
            check("FtrlV2", {tensor(1), square(2), tensor(3)}, none,
                  {lr, small_l1, small_l1, small_l1, scalar(-0.75)}, multiply);
          }
          check("Adadelta", {tensor(1), square(2), square(3)}, {lr, scalar(0.9), scalar(0.01)},
                none, {});
          check("RMSProp", {tensor(1), square(2), tensor(3)},
                {lr, scalar(0.9), scalar(0.5), scalar(0.01)}, none, {});
          check("CenteredRMSProp", {tensor(1), small(shape), square(3), tensor(4)},
                {lr, scalar(0.9), scalar(0.5), scalar(0.01)}, none, {});
          check("ProximalGradientDescent", {tensor(1)}, {lr, small_l1, small_l1}, none, {});
          check("ProximalAdagrad", {tensor(1), square(2)}, {lr, small_l1, small_l1}, none, {});
          check("AdagradDA", {tensor(1), tensor(2), square(3)}, none,
                {lr, small_l1, small_l1, Tensor::Scalar<int64_t>(3)}, {});
          if (sparse) continue;
          check("AdaMax", {tensor(1), tensor(2), square(3)},
                {scalar(0.5), lr, scalar(0.9), scalar(0.99), scalar(0.01)}, none, {});
          check("AddSign", {tensor(1), tensor(2)}, {lr, scalar(1), scalar(0.9), scalar(0.9)}, none,
                {});
          check("PowerSign", {tensor(1), tensor(2)}, {lr, scalar(1), scalar(0.9), scalar(0.9)},
                none, {});
        }
      }
    }
  }
  // Rows out of range are left out, as all of what can't be told of from the device.
  Tensor indices = Tensor::Of<int32_t>({1, 9, -1});
  const Tensor ones = Tensor::Of<float>({1, 1, 1});
  const Tensor one = Tensor::Scalar<float>(1);
  const auto found =
      Op{"SparseApplyProximalGradientDescent",
         {ones, one, Tensor::Scalar<float>(0), Tensor::Scalar<float>(0), ones, indices},
         {},
         1}
          .On("gpu");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_TRUE(CompareTensors(Tensor::Of<float>({1, 0, 1}), (*found)[0]).ok());
}

const std::vector<DType> kNumbers = {
    DType::kHalf,  DType::kBfloat16, DType::kFloat, DType::kDouble, DType::kInt8,   DType::kInt16,
    DType::kInt32, DType::kInt64,    DType::kUint8, DType::kUint16, DType::kUint32, DType::kUint64};

TEST(GpuAssignTest, AddsAndSubtracts) {
  for (DType t : kNumbers) {
    for (int64_t n : {0, 1, 7, 8, 17, 300, 2049}) {
      for (const char* name : {"AssignAdd", "AssignSub"}) {
        Op{name, {Values(t, {n}, 1), Values(t, {n}, 2)}, {}, 1, 2}.Check(0);
      }
    }
  }
  Op{"AssignAdd", {Values(DType::kFloat, {3}), Values(DType::kFloat, {4})}, {}, 1}.Check(0);
}

Tensor Indices(DType t, int64_t n, int64_t rows) {
  const Tensor random = Values(DType::kDouble, {n}, 9);
  Tensor out = *Tensor::Allocate(t, TensorShape({n}));
  for (int64_t i = 0; i < n; ++i) {
    const auto row = static_cast<int64_t>((random.data<double>()[i] + 3) / 6 * rows);
    if (t == DType::kInt32) {
      out.data<int32_t>()[i] = static_cast<int32_t>(row);
    } else {
      out.data<int64_t>()[i] = row;
    }
  }
  return out;
}

// Equal bit for bit: rows take their updates in the order of the indices.
TEST(GpuScatterTest, RowsInOrder) {
  struct Case {
    int64_t rows, size, n;
  };
  for (DType t : kNumbers) {
    for (const auto& [rows, size, n] :
         std::vector<Case>{{1, 1, 1}, {5, 3, 4}, {3, 4, 100}, {300, 16, 257}, {70000, 1, 600}}) {
      for (const std::string name : {"ScatterAdd", "ScatterSub", "ScatterUpdate", "ScatterMul",
                                     "ScatterDiv", "ScatterMin", "ScatterMax"}) {
        const bool ordered = name == "ScatterMin" || name == "ScatterMax";
        if (ordered && !IsFloating(t) && t != DType::kInt32 && t != DType::kInt64) continue;
        if (name == "ScatterDiv" && !IsFloating(t)) continue;
        const DType index = size % 2 ? DType::kInt32 : DType::kInt64;
        const Tensor x = Values(t, {rows, size}, 1), at = Indices(index, n, rows);
        Op{name, {x, at, Values(t, {n, size}, 2)}, {}, 1, 2}.Check(0);
        Op{name, {x, at, Values(t, {}, 2)}, {}, 1}.Check(0);
      }
    }
  }
  const Tensor x = Values(DType::kFloat, {4, 3});
  Op{"ScatterAdd", {x, Tensor::Of<int32_t>({1, 2}), Values(DType::kFloat, {2, 4})}, {}, 1}.Check(0);
  Op{"ScatterUpdate", {x, Tensor::Scalar<int32_t>(1), Values(DType::kFloat, {3}, 2)}, {}, 1}.Check(
      0);
  Op{"ScatterUpdate", {x, Indices(DType::kInt32, 0, 4), Values(DType::kFloat, {0, 3})}, {}, 1}
      .Check(0);
  Op{"ScatterUpdate",
     {Values(DType::kBool, {4, 3}), Tensor::Of<int32_t>({1, 1}), Values(DType::kBool, {2, 3}, 2)},
     {},
     1}
      .Check(0);
}

TEST(GpuScatterTest, IndicesOutOfRangeAreLeftOut) {
  const Tensor x = Values(DType::kFloat, {4, 3}), by = Values(DType::kFloat, {4, 3}, 2);
  for (const char* name : {"ScatterAdd", "ScatterSub", "ScatterMul", "ScatterDiv", "ScatterMin",
                           "ScatterMax", "ScatterUpdate"}) {
    const Op bad{name, {x, Tensor::Of<int32_t>({1, 4, -1, 3}), by}, {}, 1};
    EXPECT_THAT(std::string(bad.On("cpu").status().message()), HasSubstr("is not in [0, 4)"));
    const auto found = bad.On("gpu");
    ASSERT_TRUE(found.ok()) << found.status();
    Tensor kept = *Tensor::Allocate(DType::kFloat, TensorShape({2, 3}));
    for (int64_t j = 0; j < 3; ++j) {
      kept.data<float>()[j] = by.data<float>()[j];
      kept.data<float>()[3 + j] = by.data<float>()[9 + j];
    }
    const auto expected = Op{name, {x, Tensor::Of<int32_t>({1, 3}), kept}, {}, 1}.On("cpu");
    ASSERT_TRUE(expected.ok()) << expected.status();
    const absl::Status same = CompareTensors((*expected)[0], (*found)[0]);
    EXPECT_TRUE(same.ok()) << name << ": " << same;
  }
}

}  // namespace
}  // namespace ferry
