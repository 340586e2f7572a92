// The element-wise kernels of GPUs against the CPU's, at sizes around the width of a vector, the
// size of a block and that of a grid, with operands that stay, advance and are broadcast.
#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"
#include "kernels/types.h"
#include "runtime/graph/ops.h"
#include "runtime/op/attr.h"
#include "runtime/op/kernel.h"
#include "runtime/session/session.h"
#include "tests/op_cases.h"

namespace ferry {
namespace {

// Numbers that look random but are the same each time: small integers and, of floats, fractions.
// Bools are random.
Tensor Values(DType dtype, const TensorShape& shape, uint32_t seed) {
  Tensor t = *Tensor::Allocate(dtype, shape);
  uint32_t state = seed * 747796405u + 2891336453u;
  auto fill = [&](auto* data) {
    using T = std::remove_pointer_t<decltype(data)>;
    for (int64_t i = 0; i < t.num_elements(); ++i) {
      state = state * 1664525u + 1013904223u;
      const double v = static_cast<double>(state >> 8) / (1 << 24);
      if constexpr (std::is_same_v<T, bool>) {
        data[i] = v < 0.5;
      } else if constexpr (std::is_integral_v<T>) {
        data[i] = static_cast<T>(std::floor(v * 200) - (std::is_signed_v<T> ? 100 : 0));
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

// How far a result may be from the CPU's, relatively: of functions that both compute to a few units
// in the last place of the float or double that they compute in, rounded once to T.
double FunctionTolerance(DType t) {
  switch (t) {
    case DType::kHalf:
      return 1.0 / (1 << 10);
    case DType::kBfloat16:
      return 1.0 / (1 << 7);
    case DType::kFloat:
      return 2e-6;
    default:
      return 1e-14;
  }
}

// One op on placeholders without shapes, on the CPU and on a GPU; and again on memory of the run,
// which it may work in place on.
class OnBoth {
 public:
  OnBoth(const std::string& op, const std::vector<DType>& inputs,
         const std::vector<std::pair<std::string, proto::AttrValue>>& attrs = {})
      : op_(op) {
    const Scope s = Scope(&graph_).WithDevice("/gpu:0");
    CallableOptions call;
    std::vector<Output> fed, owned;
    const Output yes = ops::Const(s, true);
    for (size_t i = 0; i < inputs.size(); ++i) {
      const std::string name = absl::StrCat("in", i);
      fed.push_back(ops::Placeholder(s.WithOpName(name), inputs[i], PartialShape()));
      owned.push_back(ops::SelectV2(s, yes, fed.back(), fed.back()));
      call.feeds.push_back(name);
    }
    Node* node = nullptr;
    for (const std::vector<Output>& in : {fed, owned}) {
      NodeBuilder b(s.WithOpName(node ? "in_place" : "op"), op);
      if (op == "AddN") {
        b.Input(in);
      } else {
        for (const Output& x : in) b.Input(x);
      }
      for (const auto& [name, value] : attrs) b.AttrValue(name, value);
      node = b.Build();
      EXPECT_TRUE(s.ok()) << s.status();
      if (!node) return;
    }
    const absl::Status kernel = FindKernel(op, DeviceType::kGpu, node->attrs()).status();
    EXPECT_TRUE(kernel.ok()) << kernel;
    call.fetches = {"op:0", "in_place:0"};
    for (int k = 0; k < 2; ++k) {
      SessionOptions options;
      options.threads = 1;
      options.device = k == 0 ? "cpu" : "gpu";
      sessions_[k] = std::make_unique<Session>(&graph_, options);
      absl::StatusOr<Session::Callable> callable = sessions_[k]->MakeCallable(call);
      EXPECT_TRUE(callable.ok()) << callable.status();
      if (callable.ok()) run_[k] = *std::move(callable);
    }
  }

  // Whether both give the same, or the same error; tolerances as for CompareTensors.
  void Check(const std::vector<Tensor>& inputs, double rtol, double tol = 0) {
    std::string what = op_;
    for (const Tensor& t : inputs) {
      absl::StrAppend(&what, " ", DTypeName(t.dtype()), t.shape().DebugString());
    }
    std::vector<Tensor> out[2];
    absl::Status s[2];
    for (int k = 0; k < 2; ++k) s[k] = run_[k].Run(inputs, &out[k]);
    EXPECT_EQ(s[0], s[1]) << what;
    if (!s[0].ok() || !s[1].ok()) return;
    for (size_t i = 0; i < 2; ++i) {
      const absl::Status same = CompareTensors(out[0][i], out[1][i], tol, rtol);
      EXPECT_TRUE(same.ok()) << what << (i ? " in place: " : ": ") << same;
    }
  }

 private:
  const std::string op_;
  Graph graph_;
  std::unique_ptr<Session> sessions_[2];
  Session::Callable run_[2];
};

// Around the elements of a vector (2 to 16), a warp, a block and a block's vectors.
const std::vector<int64_t> kSizes = {0,  1,  2,  3,  4,  5,   7,   8,   9,    15,   16,   17,
                                     31, 32, 33, 63, 65, 255, 256, 257, 1023, 1024, 1025, 4099};

const std::vector<DType> kFloats = {DType::kHalf, DType::kBfloat16, DType::kFloat, DType::kDouble};
const std::vector<DType> kIntegers = {DType::kInt8,   DType::kInt16, DType::kInt32,
                                      DType::kInt64,  DType::kUint8, DType::kUint16,
                                      DType::kUint32, DType::kUint64};
std::vector<DType> Numbers() {
  std::vector<DType> all = kFloats;
  all.insert(all.end(), kIntegers.begin(), kIntegers.end());
  return all;
}

TEST(GpuElementwiseTest, OneInput) {
  for (const char* op : {"Square", "Relu"}) {
    for (DType t : Numbers()) {
      OnBoth both(op, {t});
      for (int64_t n : kSizes) both.Check({Values(t, TensorShape({n}), 1)}, 0);
    }
  }
  for (const char* op : {"Neg", "Abs", "Sqrt", "Reciprocal", "Floor", "IsFinite", "LeakyRelu"}) {
    for (DType t : kFloats) {
      OnBoth both(op, {t});
      for (int64_t n : kSizes) both.Check({Values(t, TensorShape({n}), 2)}, 0);
    }
  }
  for (const char* op : {"Exp", "Expm1", "Log", "Log1p", "Sin", "Cos", "Erf", "Tanh", "Sigmoid",
                         "Elu", "Selu", "Softplus", "Softsign"}) {
    for (DType t : kFloats) {
      OnBoth both(op, {t});
      // Near their zeros sines differ by more, relatively.
      const double tolerance = FunctionTolerance(t) * (op[0] == 'S' || op[0] == 'C' ? 8 : 1);
      for (int64_t n : {0, 1, 3, 17, 257, 1025}) {
        both.Check({Values(t, TensorShape({n}), 3)}, tolerance);
      }
    }
  }
}

TEST(GpuElementwiseTest, TwoInputs) {
  for (const char* op : {"AddV2", "Mul", "Maximum", "Less", "Equal"}) {
    for (DType t : Numbers()) {
      OnBoth both(op, {t, t});
      for (int64_t n : kSizes) {
        const Tensor many = Values(t, TensorShape({n}), 4), one = Values(t, TensorShape(), 5);
        both.Check({many, Values(t, TensorShape({n}), 6)}, 0);
        both.Check({many, one}, 0);
        both.Check({one, many}, 0);
      }
    }
  }
}

TEST(GpuElementwiseTest, Broadcast) {
  const std::vector<std::pair<TensorShape, TensorShape>> shapes = {
      {{5, 17}, {17}},
      {{5, 17}, {5, 1}},
      {{5, 1}, {1, 17}},
      {{1, 257}, {33, 1}},
      {{2, 3, 4}, {3, 1}},
      {{2, 1, 4, 1}, {3, 1, 5}},
      {{0, 3}, {3}},
      {{2, 0}, {1}},
      {{1}, {1, 1, 1}},
      {{1, 1}, {4, 3}},
      {{2, 1, 2, 1, 2}, {1, 3, 1, 3, 1}},
      {{1, 3, 1, 3, 1, 3, 1, 3}, {2, 1, 2, 1, 2, 1, 2, 1}},
      {{2, 3}, {4, 3}},
      {{3}, {4}},
      {{2, 2}, {3, 2, 2}}};
  for (const char* op : {"Sub", "RealDiv", "GreaterEqual", "NotEqual"}) {
    for (DType t : kFloats) {
      OnBoth both(op, {t, t});
      for (const auto& [a, b] : shapes) {
        both.Check({Values(t, a, 7), Values(t, b, 8)}, 0);
        both.Check({Values(t, b, 9), Values(t, a, 10)}, 0);
      }
    }
  }
  OnBoth any("Equal", {DType::kFloat, DType::kFloat},
             {{"incompatible_shape_error", MakeAttr(false)}});
  for (const auto& [a, b] : shapes) {
    any.Check({Values(DType::kFloat, a, 7), Values(DType::kFloat, b, 8)}, 0);
  }
}

TEST(GpuElementwiseTest, OneShape) {
  for (const char* op : {"ReluGrad", "SqrtGrad", "TanhGrad", "SigmoidGrad", "EluGrad"}) {
    for (DType t : kFloats) {
      OnBoth both(op, {t, t});
      for (int64_t n : {0, 1, 9, 257}) {
        both.Check({Values(t, TensorShape({n}), 11), Values(t, TensorShape({n}), 12)},
                   4 * FunctionTolerance(t));
      }
      both.Check({Values(t, {2, 3}, 11), Values(t, {3, 2}, 12)}, 0);
    }
  }
}

TEST(GpuElementwiseTest, Choices) {
  const std::vector<std::vector<TensorShape>> v2 = {{{1025}, {1025}, {1025}},
                                                    {TensorShape(), {17}, {17}},
                                                    {{17}, TensorShape(), {17}},
                                                    {{17}, {17}, {1}},
                                                    {{1}, {1}, {1}},
                                                    {{5, 1}, {7}, {5, 7}},
                                                    {{3, 1, 2}, {4, 1}, {2}},
                                                    {{0}, {0}, {0}},
                                                    {{2}, {3}, {3}},
                                                    {{3}, {2}, {3}},
                                                    {TensorShape(), {33}, TensorShape()}};
  const std::vector<std::vector<TensorShape>> v1 = {
      {{1025}, {1025}, {1025}}, {TensorShape(), {17}, {17}},
      {{5}, {5, 7}, {5, 7}},    {{3}, {3, 0}, {3, 0}},
      {{2}, {3}, {3}},          {{3}, {3}, {2}},
      {{3, 1}, {3, 2}, {3, 2}}};
  std::vector<DType> types = Numbers();
  types.push_back(DType::kBool);
  for (const auto& [op, shapes] : {std::make_pair("SelectV2", v2), std::make_pair("Select", v1)}) {
    for (DType t : types) {
      OnBoth both(op, {DType::kBool, t, t});
      for (const std::vector<TensorShape>& s : shapes) {
        both.Check({Values(DType::kBool, s[0], 13), Values(t, s[1], 14), Values(t, s[2], 15)}, 0);
      }
    }
  }
  for (DType t : Numbers()) {
    OnBoth both("ClipByValue", {t, t, t});
    for (int64_t n : kSizes) {
      const Tensor x = Values(t, TensorShape({n}), 16), least = Values(t, TensorShape(), 17);
      both.Check({x, least, Values(t, TensorShape({1}), 18)}, 0);
      both.Check({x, Values(t, TensorShape({n}), 19), least}, 0);
    }
    both.Check({Values(t, {4}, 16), Values(t, {3}, 17), Values(t, {4}, 18)}, 0);
  }
}

TEST(GpuElementwiseTest, Casts) {
  std::vector<DType> types = Numbers();
  types.push_back(DType::kBool);
  for (DType from : types) {
    for (DType to : types) {
      for (bool truncate : {false, true}) {
        OnBoth both("Cast", {from}, {{"DstT", MakeAttr(to)}, {"Truncate", MakeAttr(truncate)}});
        for (int64_t n : {0, 1, 2, 7, 17, 259}) both.Check({Values(from, TensorShape({n}), 20)}, 0);
      }
    }
  }
}

TEST(GpuElementwiseTest, SumsOfMany) {
  for (DType t : Numbers()) {
    for (int inputs : {1, 2, 3, 9, 128, 129}) {
      OnBoth both("AddN", std::vector<DType>(static_cast<size_t>(inputs), t));
      for (int64_t n : {0, 1, 5, 16, 17, 1025}) {
        std::vector<Tensor> values;
        for (int k = 0; k < inputs; ++k) {
          values.push_back(Values(t, TensorShape({n}), static_cast<uint32_t>(30 + k)));
        }
        // Sums of more than 128 half or bfloat16 are rounded twice.
        both.Check(values, 0, inputs > 128 && ElementSize(t) == 2 ? FunctionTolerance(t) : 0);
      }
    }
    OnBoth two("AddN", {t, t});
    two.Check({Values(t, {2}, 1), Values(t, {3}, 2)}, 0);
  }
}

TEST(GpuElementwiseTest, Biases) {
  const std::vector<TensorShape> shapes = {
      {1, 1}, {3, 8},    {3, 16},      {257, 33},      {5000, 3},      {2, 5, 32},  {0, 4},
      {4, 0}, {2, 3, 4}, {2, 3, 5, 7}, {2, 2, 32, 16}, {3, 2, 41, 67}, {1, 7, 2, 2}};
  for (const char* format : {"NHWC", "NCHW"}) {
    for (DType t : Numbers()) {
      const std::vector<std::pair<std::string, proto::AttrValue>> attrs = {
          {"data_format", MakeAttr(std::string(format))}};
      OnBoth add("BiasAdd", {t, t}, attrs), grad("BiasAddGrad", {t}, attrs);
      for (const TensorShape& s : shapes) {
        const int64_t channels = s.dim(format[1] == 'C' ? 1 : s.rank() - 1);
        const Tensor x = Values(t, s, 21);
        add.Check({x, Values(t, TensorShape({channels}), 22)}, 0);
        grad.Check({x}, IsFloating(t) ? 1000 * FunctionTolerance(t) : 0);
      }
      add.Check({Values(t, {3}, 1), Values(t, {3}, 2)}, 0);
      add.Check({Values(t, {2, 3}, 1), Values(t, {4}, 2)}, 0);
      add.Check({Values(t, {2, 3}, 1), Values(t, {3, 1}, 2)}, 0);
      grad.Check({Values(t, {3}, 1)}, 0);
    }
  }
}

TEST(GpuElementwiseTest, Copies) {
  std::vector<DType> types = Numbers();
  types.push_back(DType::kBool);
  for (DType t : types) {
    for (const char* op : {"ZerosLike", "OnesLike"}) {
      OnBoth both(op, {t});
      for (int64_t n : kSizes) both.Check({Values(t, TensorShape({n}), 23)}, 0);
    }
    OnBoth to("BroadcastTo", {t, DType::kInt32});
    auto check = [&](const TensorShape& from, const std::vector<int32_t>& shape) {
      Tensor dims = *Tensor::Allocate(DType::kInt32, {static_cast<int64_t>(shape.size())});
      std::copy(shape.begin(), shape.end(), dims.data<int32_t>());
      to.Check({Values(t, from, 24), dims}, 0);
    };
    check({}, {});
    check({}, {257});
    check({17}, {17});
    check({17}, {3, 17});
    check({5, 1}, {5, 9});
    check({2, 1, 3}, {4, 2, 7, 3});
    check({1}, {0});
    check({3}, {2});
    check({2, 3}, {3});
    check({2}, {-2});
  }
}

// More elements than a grid has threads, so that loops go round.
TEST(GpuElementwiseTest, LargerThanAGrid) {
  const TensorShape n({6000003});
  OnBoth add("AddV2", {DType::kFloat, DType::kFloat});
  add.Check({Values(DType::kFloat, n, 25), Values(DType::kFloat, n, 26)}, 0);
  OnBoth neg("Neg", {DType::kDouble});
  neg.Check({Values(DType::kDouble, n, 27)}, 0);
  OnBoth broadcast("Mul", {DType::kHalf, DType::kHalf});
  broadcast.Check({Values(DType::kHalf, {2003, 3001}, 28), Values(DType::kHalf, {3001}, 29)}, 0);
}

}  // namespace
}  // namespace ferry
