// Symbolic gradients: their values against central differences, what stops them, what they name.
// Built once for the CPU and once for a GPU.
#include "runtime/graph/gradients.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"
#include "tests/gradient_check.h"

#ifndef FERRY_TEST_DEVICE
#define FERRY_TEST_DEVICE "cpu"
#endif

namespace ferry {
namespace {

using ::ferry::testing::MaxGradientError;
using ::ferry::testing::TestValues;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr double kTolerance = 1e-6, kStep = 1e-5;
constexpr char kDevice[] = FERRY_TEST_DEVICE;

FERRY_OP("TestNoGradient").Input("x: T").Output("y: T").Attr("T: type").Shape(UnchangedShape);

using OneInput = Output (*)(const Scope&, Output);
using TwoInputs = Output (*)(const Scope&, Output, Output);

Output DoublePlaceholder(const Scope& s, const PartialShape& shape) {
  return ops::Placeholder(s, DType::kDouble, shape);
}

// Checks y = f(x...) at these values, with the shapes known to the graph and without.
void Check(const std::string& what, const std::vector<Tensor>& values,
           const std::function<Output(const Scope&, const std::vector<Output>&)>& f) {
  for (bool known : {true, false}) {
    SCOPED_TRACE(absl::StrCat(what, known ? " of known shape" : " of unknown shape"));
    Graph g;
    Scope s(&g);
    std::vector<Output> xs;
    for (const Tensor& v : values) {
      xs.push_back(DoublePlaceholder(s, known ? PartialShape(v.shape()) : PartialShape()));
    }
    Output y = f(s, xs);
    absl::StatusOr<double> error = MaxGradientError(s, y, xs, values, kStep, kDevice);
    ASSERT_TRUE(error.ok()) << error.status();
    EXPECT_LT(*error, kTolerance);
  }
}

TEST(GradientValues, Unary) {
  const std::vector<std::pair<const char*, OneInput>> anywhere = {
      {"Neg", ops::Neg},           {"Square", ops::Square},     {"Exp", ops::Exp},
      {"Abs", ops::Abs},           {"Relu", ops::Relu},         {"Relu6", ops::Relu6},
      {"Sigmoid", ops::Sigmoid},   {"Tanh", ops::Tanh},         {"Elu", ops::Elu},
      {"Softplus", ops::Softplus}, {"Identity", ops::Identity}, {"L2Loss", ops::L2Loss},
      {"Sign", ops::Sign},         {"Softmax", ops::Softmax},   {"LogSoftmax", ops::LogSoftmax}};
  for (const auto& [name, op] : anywhere) {
    Check(name, {TestValues({2, 3})},
          [op = op](const Scope& s, const std::vector<Output>& x) { return op(s, x[0]); });
  }
  const std::vector<std::pair<const char*, OneInput>> positive = {{"Sqrt", ops::Sqrt},
                                                                  {"Rsqrt", ops::Rsqrt},
                                                                  {"Log", ops::Log},
                                                                  {"Reciprocal", ops::Reciprocal}};
  for (const auto& [name, op] : positive) {
    Check(name, {TestValues({2, 3}, 0.5, 2)},
          [op = op](const Scope& s, const std::vector<Output>& x) { return op(s, x[0]); });
  }
}

TEST(GradientValues, BinaryWithBroadcasting) {
  const std::vector<std::pair<const char*, TwoInputs>> functions = {
      {"Add", ops::Add},
      {"AddV2", ops::AddV2},
      {"Sub", ops::Sub},
      {"Mul", ops::Mul},
      {"RealDiv", ops::RealDiv},
      {"Div", ops::Div},
      {"Pow", ops::Pow},
      {"Maximum", ops::Maximum},
      {"Minimum", ops::Minimum},
      {"DivNoNan", ops::DivNoNan},
      {"SquaredDifference", ops::SquaredDifference}};
  const std::vector<std::pair<TensorShape, TensorShape>> shapes = {{{2, 3}, {2, 3}},
                                                                   {{2, 3}, {3}},
                                                                   {{2, 1}, {1, 3}},
                                                                   {TensorShape(), {2, 2}},
                                                                   {{3, 1, 2}, {4, 1}}};
  for (const auto& [name, op] : functions) {
    for (const auto& [a, b] : shapes) {
      Check(absl::StrCat(name, a.DebugString(), b.DebugString()),
            {TestValues(a, 0.5, 2, 1), TestValues(b, 0.5, 2, 2)},
            [op = op](const Scope& s, const std::vector<Output>& x) { return op(s, x[0], x[1]); });
    }
  }
}

TEST(GradientValues, MatMul) {
  for (bool ta : {false, true}) {
    for (bool tb : {false, true}) {
      Check(absl::StrCat("MatMul ", ta, tb),
            {TestValues(ta ? TensorShape({3, 2}) : TensorShape({2, 3}), -2, 2, 1),
             TestValues(tb ? TensorShape({4, 3}) : TensorShape({3, 4}), -2, 2, 2)},
            [=](const Scope& s, const std::vector<Output>& x) {
              return ops::MatMul(s, x[0], x[1], ta, tb);
            });
    }
  }
}

TEST(GradientValues, Reductions) {
  using Reduce = Output (*)(const Scope&, Output, Output, bool);
  const std::vector<std::pair<const char*, Reduce>> functions = {{"Sum", ops::Sum},
                                                                 {"Mean", ops::Mean},
                                                                 {"Max", ops::Max},
                                                                 {"Min", ops::Min},
                                                                 {"Prod", ops::Prod}};
  for (const auto& [name, op] : functions) {
    for (const std::vector<int32_t>& axes :
         std::vector<std::vector<int32_t>>{{0}, {1}, {-1, 0}, {}, {0, 1, 2}}) {
      for (bool keep : {false, true}) {
        Check(absl::StrCat(name, " ", axes.size(), keep), {TestValues({2, 3, 2}, 0.5, 2)},
              [&, op = op](const Scope& s, const std::vector<Output>& x) {
                return op(s, x[0], ops::ConstVector(s, axes), keep);
              });
      }
    }
  }
}

TEST(GradientValues, Shapes) {
  auto ints = [](const Scope& s, std::vector<int32_t> v) { return ops::ConstVector(s, v); };
  const Tensor x = TestValues({2, 3, 4});
  using Outputs = std::vector<Output>;
  Check("Reshape", {x}, [&](const Scope& s, const Outputs& v) {
    return ops::Reshape(s, v[0], ints(s, {4, -1}));
  });
  Check("Transpose", {x}, [&](const Scope& s, const Outputs& v) {
    return ops::Transpose(s, v[0], ints(s, {2, 0, 1}));
  });
  Check("ExpandDims", {x}, [&](const Scope& s, const Outputs& v) {
    return ops::ExpandDims(s, v[0], ops::Const<int32_t>(s, 1));
  });
  Check("Squeeze", {TestValues({2, 1, 3})},
        [&](const Scope& s, const Outputs& v) { return ops::Squeeze(s, v[0], {1}); });
  Check("Slice", {x}, [&](const Scope& s, const Outputs& v) {
    return ops::Slice(s, v[0], ints(s, {0, 1, 2}), ints(s, {2, 1, 2}));
  });
  Check("StridedSlice", {x}, [&](const Scope& s, const Outputs& v) {
    ops::StridedSliceMasks masks;
    masks.shrink_axis = 1;
    masks.end = 4;
    return ops::StridedSlice(s, v[0], ints(s, {1, 0, 3}), ints(s, {2, 2, 0}), ints(s, {1, 2, -2}),
                             masks);
  });
  Check("Pack", {x, TestValues({2, 3, 4}, -2, 2, 5)},
        [&](const Scope& s, const Outputs& v) { return ops::Pack(s, v, 1); });
  Check("Unpack", {x}, [&](const Scope& s, const Outputs& v) {
    Outputs parts = ops::Unpack(s, v[0], 3, 1);
    return ops::AddV2(s, parts[0], ops::Square(s, parts[2]));
  });
  Check("ConcatV2", {x, TestValues({2, 1, 4}, -2, 2, 5)}, [&](const Scope& s, const Outputs& v) {
    return ops::ConcatV2(s, v, ops::Const<int32_t>(s, 1));
  });
  Check("Tile", {TestValues({2, 3})}, [&](const Scope& s, const Outputs& v) {
    return ops::Tile(s, v[0], ints(s, {2, 3}));
  });
  Check("BroadcastTo", {TestValues({2, 1})}, [&](const Scope& s, const Outputs& v) {
    return ops::BroadcastTo(s, v[0], ints(s, {3, 2, 4}));
  });
  for (int32_t axis : {0, 1}) {
    Check(absl::StrCat("GatherV2 axis ", axis), {x}, [&](const Scope& s, const Outputs& v) {
      // Along other axes than the first the gradient needs to know the shape.
      Output in = axis == 0 ? v[0] : ops::Reshape(s, v[0], ints(s, {2, 3, 4}));
      return ops::GatherV2(s, in, ints(s, {0, 1, 1, 0}), ops::Const<int32_t>(s, axis));
    });
  }
  Check("Fill", {TestValues(TensorShape())}, [&](const Scope& s, const Outputs& v) {
    return ops::Fill(s, ints(s, {2, 3}), v[0]);
  });
  Check("AddN", {x, x}, [&](const Scope& s, const Outputs& v) { return ops::AddN(s, v); });
  Check("Select", {x, TestValues({2, 3, 4}, -2, 2, 5)}, [&](const Scope& s, const Outputs& v) {
    return ops::Select(s, ops::Less(s, v[0], v[1]), v[0], v[1]);
  });
  Check("SelectV2", {x, TestValues({3, 1}, -2, 2, 5)}, [&](const Scope& s, const Outputs& v) {
    return ops::SelectV2(s, ops::Less(s, v[0], v[1]), ops::Square(s, v[0]), v[1]);
  });
}

TEST(GradientValues, LossesAndBias) {
  Check("BiasAdd", {TestValues({2, 3}), TestValues({3})},
        [](const Scope& s, const std::vector<Output>& x) { return ops::BiasAdd(s, x[0], x[1]); });
  Check("SparseSoftmaxCrossEntropyWithLogits", {TestValues({3, 4})},
        [](const Scope& s, const std::vector<Output>& x) {
          Output labels = ops::ConstVector<int64_t>(s, {3, 0, 2});
          return ops::SparseSoftmaxCrossEntropyWithLogits(s, x[0], labels).loss;
        });
  Check("SoftmaxCrossEntropyWithLogits", {TestValues({2, 4}), TestValues({2, 4}, 0, 1, 3)},
        [](const Scope& s, const std::vector<Output>& x) {
          Output labels = ops::Softmax(s, x[1]);
          return ops::SoftmaxCrossEntropyWithLogits(s, x[0], labels).loss;
        });
}

// Also those that TensorFlow's CPU kernels don't have: channels first, dilations, groups.
TEST(GradientValues, Images) {
  struct Window {
    TensorShape x, w;
    std::vector<int64_t> strides;
    std::string padding;
    ops::Conv2DAttrs attrs;
  };
  const Window windows[] = {
      {{2, 4, 5, 2}, {3, 2, 2, 3}, {1, 2, 1, 1}, "SAME", {}},
      {{1, 2, 5, 4}, {2, 3, 2, 3}, {1, 1, 2, 1}, "VALID", {"NCHW", {1, 1, 1, 1}, {}}},
      {{1, 5, 6, 2}, {2, 3, 2, 2}, {1, 2, 1, 1}, "SAME", {"NHWC", {1, 3, 2, 1}, {}}},
      {{1, 4, 4, 4}, {3, 3, 2, 4}, {1, 1, 1, 1}, "EXPLICIT",
       {"NHWC", {1, 1, 1, 1}, {0, 0, 2, 0, 1, 1, 0, 0}}}};
  for (const Window& w : windows) {
    auto conv = [&w](const Scope& s, const std::vector<Output>& in) {
      return ops::Conv2D(s, in[0], in[1], w.strides, w.padding, w.attrs);
    };
    Check("Conv2D", {TestValues(w.x), TestValues(w.w, -2, 2, 2)}, conv);
    // Second derivatives: by way of the gradient's own gradient.
    Check("gradient of Conv2D", {TestValues(w.x), TestValues(w.w, -2, 2, 2)},
          [&](const Scope& s, const std::vector<Output>& in) {
            std::vector<Output> grads;
            const Output y = ops::Square(s, conv(s, in));
            if (!AddSymbolicGradients(s, {y}, in, &grads).ok()) return Output();
            return ops::ConcatV2(s,
                                 {ops::Reshape(s, grads[0], ops::ConstVector<int32_t>(s, {-1})),
                                  ops::Reshape(s, grads[1], ops::ConstVector<int32_t>(s, {-1}))},
                                 ops::Const<int32_t>(s, 0));
          });
  }
  for (const char* padding : {"SAME", "VALID"}) {
    const Tensor x = TestValues({1, 5, 4, 2});
    for (bool first : {false, true}) {
      const std::vector<int64_t> ksize = first ? std::vector<int64_t>{1, 1, 3, 2}
                                               : std::vector<int64_t>{1, 3, 2, 1};
      const std::vector<int64_t> strides = first ? std::vector<int64_t>{1, 1, 2, 1}
                                                 : std::vector<int64_t>{1, 2, 1, 1};
      const char* const format = first ? "NCHW" : "NHWC";
      Check("MaxPool", {x}, [&](const Scope& s, const std::vector<Output>& in) {
        return ops::MaxPool(s, in[0], ksize, strides, padding, format);
      });
      Check("AvgPool", {x}, [&](const Scope& s, const std::vector<Output>& in) {
        return ops::AvgPool(s, in[0], ksize, strides, padding, format);
      });
    }
  }
}

TEST(GradientValues, SharedSubexpressionsAddUp) {
  Check("x^2 * x + x + exp(x^2)", {TestValues({3}, -1, 1)},
        [](const Scope& s, const std::vector<Output>& x) {
          Output square = ops::Mul(s, x[0], x[0]);
          Output sum = ops::AddV2(s, ops::Mul(s, square, x[0]), x[0]);
          return ops::AddV2(s, sum, ops::Exp(s, square));
        });
}

TEST(GradientValues, OfGradients) {
  Check("d/dx of d(x^3)/dx", {TestValues({2, 3})},
        [](const Scope& s, const std::vector<Output>& x) {
          std::vector<Output> grads;
          Output cube = ops::Mul(s, ops::Square(s, x[0]), x[0]);
          s.UpdateStatus(AddSymbolicGradients(s, {cube}, {x[0]}, &grads));
          return s.ok() ? grads[0] : Output();
        });
  Check("d/dx of d tanh(w x)/dw", {TestValues({2, 3}), TestValues({3, 2})},
        [](const Scope& s, const std::vector<Output>& x) {
          std::vector<Output> grads;
          Output y = ops::Tanh(s, ops::MatMul(s, x[0], x[1]));
          s.UpdateStatus(AddSymbolicGradients(s, {y}, {x[1]}, &grads));
          return s.ok() ? grads[0] : Output();
        });
}

TEST(GradientValues, Conditionals) {
  for (bool taken : {false, true}) {
    Check(absl::StrCat("cond ", taken), {TestValues({2}), TestValues({2}, -2, 2, 7)},
          [=](const Scope& s, const std::vector<Output>& x) {
            Output pred = ops::Const(s, taken);
            auto a = ops::Switch(s, x[0], pred);
            auto b = ops::Switch(s, x[1], pred);
            // b matters in one branch only.
            Output yes = ops::Mul(s, a.output_true, b.output_true);
            Output no = ops::Square(s, a.output_false);
            return ops::Mul(s, ops::Merge(s, {no, yes}).output, x[0]);
          });
  }
}

class GradientsTest : public ::testing::Test {
 protected:
  std::vector<Output> Gradients(const std::vector<Output>& ys, const std::vector<Output>& xs) {
    std::vector<Output> grads;
    absl::Status status = AddSymbolicGradients(s, ys, xs, &grads);
    EXPECT_TRUE(status.ok()) << status;
    return grads;
  }
  std::vector<float> Run(Output y) {
    Session session(&g);
    std::vector<Tensor> out;
    absl::Status status = session.Run({}, std::vector<Output>{y}, {}, &out);
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) return {};
    return std::vector<float>(out[0].span<float>().begin(), out[0].span<float>().end());
  }
  Graph g;
  Scope s{&g};
};

TEST_F(GradientsTest, NamesAreTensorFlows) {
  Output x = ops::Placeholder(s.WithOpName("x"), DType::kFloat, {-1, 3});
  Output b = ops::Placeholder(s.WithOpName("b"), DType::kFloat, {3});
  Output y = ops::AddV2(s.WithOpName("layer/add"), x, b);
  std::vector<Output> grads;
  const int before = g.num_nodes();
  ASSERT_TRUE(AddSymbolicGradients(s, {y}, {x, b}, &grads, {}, {}, /*gate_gradients=*/true).ok());
  std::vector<std::string> names;
  for (int i = before; i < g.num_nodes(); ++i) names.push_back(g.nodes()[i]->name());
  // From tf.gradients of the same graph, gated.
  EXPECT_THAT(
      names,
      ElementsAre("gradients/Shape", "gradients/grad_ys_0/Const", "gradients/grad_ys_0",
                  "gradients/layer/add_grad/Shape", "gradients/layer/add_grad/Shape_1",
                  "gradients/layer/add_grad/Sum/reduction_indices", "gradients/layer/add_grad/Sum",
                  "gradients/layer/add_grad/Reshape", "gradients/layer/add_grad/tuple/group_deps",
                  "gradients/layer/add_grad/tuple/control_dependency",
                  "gradients/layer/add_grad/tuple/control_dependency_1"));
  EXPECT_EQ(grads[1].name(), "gradients/layer/add_grad/tuple/control_dependency_1:0");
  EXPECT_EQ(grads[1].shape(), PartialShape({3}));
}

TEST_F(GradientsTest, SeveralYsAndGradYs) {
  Output x = ops::Const(s, 3.0f);
  Output y = ops::Square(s, x), z = ops::Neg(s, x);
  EXPECT_THAT(Run(Gradients({y, z}, {x})[0]), ElementsAre(5));
  std::vector<Output> grads;
  ASSERT_TRUE(AddSymbolicGradients(s, {y, z}, {x}, &grads, {ops::Const(s, 10.0f)}).ok());
  EXPECT_THAT(Run(grads[0]), ElementsAre(59));
}

TEST_F(GradientsTest, BetweenXsAndWithYAsX) {
  Output x = ops::Const(s, 3.0f);
  Output y = ops::Square(s, x), z = ops::Square(s, y);
  auto grads = Gradients({z}, {x, y, z});
  EXPECT_THAT(Run(grads[0]), ElementsAre(108));
  EXPECT_THAT(Run(grads[1]), ElementsAre(18));
  EXPECT_THAT(Run(grads[2]), ElementsAre(1));
}

TEST_F(GradientsTest, VariablesByReferenceAndByRead) {
  Output v = ops::VariableV2(s.WithOpName("v"), TensorShape(), DType::kFloat);
  Output read = ops::Identity(s, v), again = ops::Identity(s, v);
  Node* init = ops::Assign(s, v, ops::Const(s, 2.0f)).node;
  Output y = ops::AddV2(s, ops::Square(s, read), again);
  auto grads = Gradients({y}, {v, read});
  ASSERT_NE(grads[0].node, nullptr);
  Session session(&g);
  std::vector<Tensor> out;
  ASSERT_TRUE(session.Run({}, std::vector<Output>(), {init}, &out).ok());
  ASSERT_TRUE(session.Run({}, grads, {}, &out).ok());
  EXPECT_EQ(out[0].scalar<float>(), 5);
  EXPECT_EQ(out[1].scalar<float>(), 4);
}

TEST_F(GradientsTest, WhatStopsThem) {
  Output x = ops::Const(s, 3.0f), other = ops::Const(s, 1.0f);
  Output y = ops::Mul(s, x, ops::StopGradient(s, ops::Square(s, x)));
  EXPECT_THAT(Run(Gradients({y}, {x})[0]), ElementsAre(9));
  EXPECT_EQ(Gradients({y}, {other})[0], Output());

  Output integer = ops::Cast(s, ops::Cast(s, x, DType::kInt32), DType::kFloat);
  EXPECT_EQ(Gradients({integer}, {x})[0], Output());

  Output square = ops::Square(s, x);
  Output z = ops::Mul(s, square, x);
  std::vector<Output> grads;
  ASSERT_TRUE(AddSymbolicGradients(s, {z}, {x}, &grads, {}, {square}).ok());
  EXPECT_THAT(Run(grads[0]), ElementsAre(9));
}

TEST_F(GradientsTest, Errors) {
  Output x = ops::Const(s, 3.0f);
  Output none = NodeBuilder(s.WithOpName("mine"), "TestNoGradient").Input(x).BuildOutput();
  std::vector<Output> grads;
  absl::Status status = AddSymbolicGradients(s, {ops::Neg(s, none)}, {x}, &grads);
  EXPECT_TRUE(absl::IsNotFound(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("No gradient defined for operation 'mine' (op type: TestNoGradient)"));
  // Where nothing depends on x it isn't needed.
  EXPECT_TRUE(AddSymbolicGradients(s, {none}, {ops::Const(s, 1.0f)}, &grads).ok());

  Output i = ops::Const(s, 3);
  EXPECT_THAT(std::string(AddSymbolicGradients(s, {i}, {x}, &grads).message()),
              HasSubstr("of type int32 needs a value in grad_ys"));
  EXPECT_TRUE(absl::IsInvalidArgument(AddSymbolicGradients(s, {Output()}, {x}, &grads)));
  EXPECT_TRUE(absl::IsInvalidArgument(AddSymbolicGradients(s, {x}, {Output(x.node, 7)}, &grads)));
  EXPECT_THAT(std::string(AddSymbolicGradients(s, {x}, {x}, &grads, {i}).message()),
              HasSubstr("is int32, but 'Const:0' is float32"));
}

TEST_F(GradientsTest, LoopsAreRefused) {
  proto::GraphDef def;
  auto add = [&](const char* name, const char* op, std::vector<std::string> inputs) {
    proto::NodeDef* n = def.add_node();
    n->set_name(name);
    n->set_op(op);
    for (auto& in : inputs) n->add_input(in);
    (*n->mutable_attr())["T"] = MakeAttr(DType::kFloat);
    return n;
  };
  Output x = ops::Const(s.WithOpName("x"), 1.0f);
  (*add("merge", "Merge", {"x", "next"})->mutable_attr())["N"] = MakeAttr(2);
  add("body", "Square", {"merge"});
  add("next", "NextIteration", {"body"});
  ImportOptions options;
  options.input_map = {{"x", x}};
  ASSERT_TRUE(ImportGraphDef(options, def, &g).ok());
  std::vector<Output> grads;
  absl::Status status = AddSymbolicGradients(s, {*g.FindOutput("body")}, {x}, &grads);
  EXPECT_FALSE(status.ok());
  EXPECT_THAT(std::string(status.message()), HasSubstr("loop"));
}

TEST_F(GradientsTest, LongChain) {
  Output x = ops::Const(s, 2.0f), y = x;
  for (int i = 0; i < 20000; ++i) y = ops::Neg(s, y);
  EXPECT_THAT(Run(Gradients({y}, {x})[0]), ElementsAre(1));
}

}  // namespace
}  // namespace ferry
