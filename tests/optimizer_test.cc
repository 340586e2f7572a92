// Optimizers: graphs beside TensorFlow's for the same network, and the arithmetic of updates.
#include "runtime/graph/optimizer.h"

#include <cmath>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"
#include "tests/graph_compare.h"
#include "tests/mlp.h"

namespace ferry {
namespace {

using ::ferry::testing::MakeMlpOptimizer;
using ::ferry::testing::Mlp;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string ReadText(const std::string& path) {
  std::ifstream in(path);
  EXPECT_TRUE(in) << path;
  std::stringstream text;
  text << in.rdbuf();
  return text.str();
}

class MlpTest : public ::testing::TestWithParam<std::string> {
 protected:
  std::string Path(const std::string& file) const {
    return absl::StrCat("tests/testdata/mlp/", GetParam(), "/", file);
  }
};

INSTANTIATE_TEST_SUITE_P(Optimizers, MlpTest, ::testing::Values("adam", "momentum", "sgd"));

// TensorFlow's graph, node for node, but for its Saver, the inside of the mean's gradient, and the
// zeros that it makes (and never uses) for outputs without a gradient.
TEST_P(MlpTest, GraphIsTensorFlows) {
  proto::GraphDef theirs;
  ASSERT_TRUE(
      google::protobuf::TextFormat::ParseFromString(ReadText(Path("graph.pbtxt")), &theirs));
  std::unique_ptr<Optimizer> optimizer = MakeMlpOptimizer(GetParam());
  Mlp mlp(optimizer.get());
  ASSERT_TRUE(mlp.s.ok()) << mlp.s.status();
  EXPECT_GT(ferry::testing::ExpectSameGraph(theirs, mlp.graph), 100);
}

TEST_P(MlpTest, InitialValuesAreTensorFlows) {
  std::unique_ptr<Optimizer> optimizer = MakeMlpOptimizer(GetParam());
  Mlp mlp(optimizer.get());
  ASSERT_TRUE(mlp.s.ok()) << mlp.s.status();
  std::istringstream in(ReadText(Path("expected.txt")));
  std::string line, key;
  while (std::getline(in, line) && !absl::StartsWith(line, "initial ")) {
  }
  std::istringstream words(line);
  words >> key;
  ASSERT_EQ(key, "initial");
  Session session(&mlp.graph);
  std::vector<Tensor> out;
  ASSERT_TRUE(session.Run({}, std::vector<Output>(), {mlp.init}, &out).ok());
  ASSERT_TRUE(session.Run({}, {"hidden1/weights:0"}, {}, &out).ok());
  for (int i = 0; i < 8; ++i) {
    float expected = 0;
    ASSERT_TRUE(words >> expected);
    EXPECT_EQ(out[0].data<float>()[i], expected) << i;
  }
}

class OptimizerTest : public ::testing::Test {
 protected:
  VariableHandle Variable(const std::string& name, const std::vector<float>& value) {
    return MakeVariable(s, name, Tensor::Of<float>(value));
  }
  void Init() {
    Node* init = GlobalVariablesInitializer(s);
    ASSERT_TRUE(s.ok()) << s.status();
    session = std::make_unique<Session>(&g);
    RunNode(init);
  }
  void RunNode(Node* n) {
    std::vector<Tensor> out;
    absl::Status status = session->Run({}, std::vector<Output>(), {n}, &out);
    ASSERT_TRUE(status.ok()) << status;
  }
  std::vector<float> Get(Output o) {
    std::vector<Tensor> out;
    absl::Status status = session->Run({}, std::vector<Output>{o}, {}, &out);
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) return {};
    return std::vector<float>(out[0].span<float>().begin(), out[0].span<float>().end());
  }
  Graph g;
  Scope s{&g};
  std::unique_ptr<Session> session;
};

TEST_F(OptimizerTest, GradientDescent) {
  VariableHandle w = Variable("w", {1, -2});
  GradientDescentOptimizer optimizer(0.25);
  Node* train = optimizer.Minimize(s, ops::L2Loss(s, w.read));  // The gradient is w.
  Init();
  EXPECT_EQ(train->name(), "GradientDescent");
  EXPECT_THAT(*GetNodeCollection(g, "train_op"), ElementsAre("GradientDescent"));
  RunNode(train);
  EXPECT_THAT(Get(w.ref), ElementsAre(0.75f, -1.5f));
  EXPECT_TRUE(optimizer.SlotNames().empty());
}

TEST_F(OptimizerTest, Momentum) {
  for (bool nesterov : {false, true}) {
    Graph graph;
    Scope scope(&graph);
    VariableHandle w = MakeVariable(scope, "w", Tensor::Scalar<float>(1));
    MomentumOptimizer optimizer(0.5, 0.5, nesterov);
    Node* train = optimizer.Minimize(scope, ops::L2Loss(scope, w.read));
    Node* init = GlobalVariablesInitializer(scope);
    ASSERT_TRUE(scope.ok()) << scope.status();
    VariableHandle a = optimizer.GetSlot(w, "momentum");
    EXPECT_EQ(a.name(), "w/Momentum");
    EXPECT_FALSE(optimizer.GetSlot(w, "m"));
    Session run(&graph);
    std::vector<Tensor> out;
    ASSERT_TRUE(run.Run({}, std::vector<Output>(), {init}, &out).ok());
    double value = 1, sum = 0;
    for (int step = 0; step < 5; ++step) {
      ASSERT_TRUE(run.Run({}, std::vector<Output>(), {train}, &out).ok());
      const double grad = value;
      sum = 0.5 * sum + grad;
      value -= 0.5 * (nesterov ? grad + 0.5 * sum : sum);
    }
    ASSERT_TRUE(run.Run({}, std::vector<Output>{w.ref, a.ref}, {}, &out).ok());
    EXPECT_NEAR(out[0].scalar<float>(), value, 1e-6);
    EXPECT_NEAR(out[1].scalar<float>(), sum, 1e-6);
  }
}

TEST_F(OptimizerTest, AdamWithStep) {
  VariableHandle w = Variable("w", {1}), z = Variable("a", {3});
  AdamOptimizer optimizer(0.1);
  MinimizeOptions options;
  options.global_step = GetOrCreateGlobalStep(s);
  options.name = "train";
  Node* train =
      optimizer.Minimize(s, ops::AddV2(s, ops::L2Loss(s, w.read), ops::L2Loss(s, z.read)), options);
  Init();
  EXPECT_EQ(train->name(), "train");
  EXPECT_EQ(optimizer.GetSlot(w, "m").name(), "w/Adam");
  EXPECT_EQ(optimizer.GetSlot(w, "v").name(), "w/Adam_1");
  EXPECT_THAT(*optimizer.beta1_power().ref.node->Attr<std::vector<std::string>>("_class"),
              ElementsAre("loc:@a"));
  double value = 1, m = 0, v = 0;
  for (int step = 1; step <= 4; ++step) {
    RunNode(train);
    const double grad = value;
    m = 0.9 * m + 0.1 * grad;
    v = 0.999 * v + 0.001 * grad * grad;
    const double lr = 0.1 * std::sqrt(1 - std::pow(0.999, step)) / (1 - std::pow(0.9, step));
    value -= lr * m / (std::sqrt(v) + 1e-8);
  }
  EXPECT_NEAR(Get(w.ref)[0], value, 1e-5);
  EXPECT_NEAR(Get(optimizer.GetSlot(w, "v").ref)[0], v, 1e-6);
  EXPECT_NEAR(Get(optimizer.beta1_power().ref)[0], std::pow(0.9, 5), 1e-6);
  std::vector<Tensor> out;
  ASSERT_TRUE(session->Run({}, {"global_step:0"}, {}, &out).ok());
  EXPECT_EQ(out[0].scalar<int64_t>(), 4);
}

// Expected names: TensorFlow's for the same calls.
TEST_F(OptimizerTest, ScopesDtypesAndASecondOne) {
  VariableHandle w = Variable("w", {1});
  VariableHandle d = MakeVariable(s, "d", Tensor::Of<double>({1}));
  Output loss = ops::ReduceSum(s, ops::Mul(s, w.read, ops::Cast(s, d.read, DType::kFloat)));
  AdamOptimizer first, second;
  Node* train = first.Minimize(s.NewSubScope("train"), loss);
  MinimizeOptions options;
  options.name = "foo";
  Node* foo = second.Minimize(s, loss, options);
  Init();
  EXPECT_EQ(train->name(), "train/Adam");
  EXPECT_EQ(train->op(), "NoOp");
  EXPECT_EQ(first.beta1_power().name(), "train/beta1_power");
  EXPECT_EQ(second.beta1_power().name(), "beta1_power");
  EXPECT_EQ(second.GetSlot(w, "m").name(), "w/Adam_2");
  EXPECT_EQ(second.GetSlot(w, "v").name(), "w/Adam_3");
  EXPECT_EQ(second.GetSlot(d, "v").dtype(), DType::kDouble);
  EXPECT_NE(g.FindNode("foo/update_d/Cast_5"), nullptr);
  EXPECT_EQ(g.FindNode("foo/update_w/Cast"), nullptr);
  EXPECT_EQ(g.FindNode("train/Adam/update_w/ApplyAdam")->input(3).name(),
            "train/beta1_power/read:0");
  RunNode(train);
  RunNode(foo);
  EXPECT_LT(Get(w.ref)[0], 1);
}

TEST_F(OptimizerTest, VarListAndErrors) {
  VariableHandle w = Variable("w", {1}), other = Variable("other", {1});
  Output loss = ops::L2Loss(s, w.read);
  GradientDescentOptimizer optimizer(0.5);
  std::vector<GradAndVar> all = optimizer.ComputeGradients(s, loss);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_NE(all[0].grad.values.node, nullptr);
  EXPECT_TRUE(all[1].grad.empty());
  EXPECT_NE(optimizer.ApplyGradients(s, all), nullptr);
  EXPECT_EQ(g.FindNode("GradientDescent/update_other/ApplyGradientDescent"), nullptr);
  EXPECT_EQ(optimizer.ApplyGradients(s, optimizer.ComputeGradients(s, loss, {other})), nullptr);
  EXPECT_THAT(std::string(s.status().message()),
              HasSubstr("No gradients provided for any variable: other"));
  Graph empty;
  Scope es(&empty);
  EXPECT_EQ(optimizer.Minimize(es, ops::Const(es, 1.0f)), nullptr);
  EXPECT_THAT(std::string(es.status().message()), HasSubstr("No variables to optimize"));
}

TEST_F(OptimizerTest, ClipByGlobalNorm) {
  Output a = ops::ConstVector<float>(s, {3, 0}), b = ops::ConstVector<float>(s, {0, 4});
  ClippedGradients clipped = ClipByGlobalNorm(s, {a, Gradient(), b}, 2.5);
  ClippedGradients untouched = ClipByGlobalNorm(s, {a, b}, 10);
  Output inf = ops::ConstVector<float>(s, {INFINITY});
  ClippedGradients bad = ClipByGlobalNorm(s, {inf}, 1);
  Init();
  EXPECT_THAT(Get(clipped.norm), ElementsAre(5));
  EXPECT_THAT(Get(clipped.grads[0].values), ElementsAre(1.5, 0));
  EXPECT_TRUE(clipped.grads[1].empty());
  EXPECT_THAT(Get(clipped.grads[2].values), ElementsAre(0, 2));
  EXPECT_THAT(Get(untouched.grads[0].values), ElementsAre(3, 0));
  EXPECT_TRUE(std::isnan(Get(bad.grads[0].values)[0]));
  // TensorFlow's names.
  EXPECT_EQ(clipped.norm.name(), "global_norm/global_norm:0");
  EXPECT_EQ(clipped.grads[0].values.name(), "clip_by_global_norm/clip_by_global_norm/_0:0");
  for (const char* name :
       {"global_norm/L2Loss_1", "global_norm/stack", "global_norm/Const", "global_norm/Sum",
        "global_norm/Const_1", "global_norm/mul", "clip_by_global_norm/truediv/x",
        "clip_by_global_norm/truediv", "clip_by_global_norm/Const",
        "clip_by_global_norm/truediv_1/y", "clip_by_global_norm/truediv_1",
        "clip_by_global_norm/Minimum", "clip_by_global_norm/mul/x", "clip_by_global_norm/mul",
        "clip_by_global_norm/sub", "clip_by_global_norm/add", "clip_by_global_norm/mul_2"}) {
    EXPECT_NE(g.FindNode(name), nullptr) << name;
  }
}

TEST_F(OptimizerTest, ExponentialDecay) {
  VariableHandle step = GetOrCreateGlobalStep(s);
  Output smooth = ExponentialDecay(s, 0.5, step.read, 10, 0.25);
  Output stairs = ExponentialDecay(s, 0.5, step.read, 10, 0.25, /*staircase=*/true);
  Node* advance = ops::AssignAdd(s, step.ref, ops::Const<int64_t>(s.WithOpName("five"), 5)).node;
  GradientDescentOptimizer optimizer(stairs);
  VariableHandle w = Variable("w", {1});
  Node* train = optimizer.Minimize(s, ops::L2Loss(s, w.read));
  Init();
  EXPECT_EQ(smooth.name(), "ExponentialDecay:0");
  for (const char* name :
       {"initial_learning_rate", "Cast/x", "Cast", "Cast_1/x", "Cast_2", "truediv", "Pow"}) {
    EXPECT_NE(g.FindNode(absl::StrCat("ExponentialDecay/", name)), nullptr) << name;
  }
  EXPECT_NE(g.FindNode("ExponentialDecay_1/Floor"), nullptr);
  EXPECT_NEAR(Get(smooth)[0], 0.5, 1e-6);
  RunNode(advance);
  EXPECT_NEAR(Get(smooth)[0], 0.25, 1e-6);
  EXPECT_NEAR(Get(stairs)[0], 0.5, 1e-6);
  RunNode(advance);
  EXPECT_NEAR(Get(stairs)[0], 0.125, 1e-6);
  RunNode(train);
  EXPECT_NEAR(Get(w.ref)[0], 1 - 0.125, 1e-6);
}

TEST_F(OptimizerTest, ClipByNormAndByValue) {
  Output x = ops::ConstVector<float>(s, {3, -4});
  Output zero = ops::ConstVector<float>(s, {0, 0});
  Gradient clipped = ClipByNorm(s, x, 2.5), untouched = ClipByNorm(s, x, 10);
  Gradient of_zero = ClipByNorm(s, zero, 1);
  Gradient average = ClipByAverageNorm(s, x, 1);  // The norm is 5 / 2.
  Gradient by_value = ClipByValue(s, x, -1, 2);
  EXPECT_TRUE(ClipByNorm(s, Gradient(), 1).empty());
  // Nor does the gradient of clipping nothing become NaN.
  std::vector<Output> grads;
  const absl::Status status = AddSymbolicGradients(s, {of_zero.values}, {zero}, &grads);
  ASSERT_TRUE(status.ok()) << status;
  Init();
  EXPECT_THAT(Get(clipped.values), ElementsAre(1.5, -2));
  EXPECT_THAT(Get(untouched.values), ElementsAre(3, -4));
  EXPECT_THAT(Get(of_zero.values), ElementsAre(0, 0));
  EXPECT_THAT(Get(grads[0]), ElementsAre(1, 1));
  EXPECT_NEAR(Get(average.values)[0], 3 * std::min(2 / 5.0, 1.0), 1e-6);
  EXPECT_THAT(Get(by_value.values), ElementsAre(2, -1));
  EXPECT_EQ(clipped.values.name(), "clip_by_norm:0");
  EXPECT_EQ(average.values.name(), "clip_by_average_norm:0");
  EXPECT_EQ(by_value.values.name(), "clip_by_value:0");
  for (const char* name :
       {"clip_by_norm/mul", "clip_by_norm/Const", "clip_by_norm/Sum", "clip_by_norm/Greater/y",
        "clip_by_norm/Greater", "clip_by_norm/ones_like/Shape/shape_as_tensor",
        "clip_by_norm/ones_like", "clip_by_norm/Select_1", "clip_by_norm/mul_1/y",
        "clip_by_norm/Maximum", "clip_by_norm/truediv", "clip_by_average_norm/mul_3",
        "clip_by_average_norm/truediv/y", "clip_by_value/Minimum/y"}) {
    EXPECT_NE(g.FindNode(name), nullptr) << name;
  }
}

TEST_F(OptimizerTest, Regularizers) {
  VariableOptions l1, l2, both;
  for (VariableOptions* o : {&l1, &l2, &both}) o->initializer = ConstantInitializer(-2);
  l1.regularizer = L1Regularizer(0.5);
  l2.regularizer = L2Regularizer(0.25);
  both.regularizer = L1L2Regularizer(0.5, 0.25);
  VariableHandle a = GetVariable(s, "a", {3}, DType::kFloat, l1);
  GetVariable(s, "b", {3}, DType::kFloat, l2);
  GetVariable(s, "c", {3}, DType::kFloat, both);
  // Variables that are used again don't count twice.
  l1.reuse = Reuse::kYes;
  GetVariable(s, "a", {3}, DType::kFloat, l1);
  Output total = RegularizationLoss(s);
  std::vector<Output> grads;
  ASSERT_TRUE(AddSymbolicGradients(s, {total}, {a.ref}, &grads).ok());
  Init();
  EXPECT_THAT(*GetNodeCollection(g, kRegularizationLosses),
              ElementsAre("a/Regularizer/l1_regularizer:0", "b/Regularizer/l2_regularizer:0",
                          "c/Regularizer/l1_l2_regularizer:0"));
  EXPECT_EQ(total.name(), "total_regularization_loss:0");
  EXPECT_THAT(Get(total), ElementsAre(3 + 1.5 + 4.5));
  EXPECT_THAT(Get(grads[0]), ElementsAre(-0.5, -0.5, -0.5));
  Graph none;
  Scope empty(&none);
  EXPECT_EQ(RegularizationLoss(empty).node->op(), "Const");
}

TEST_F(OptimizerTest, OptionsOutOfRange) {
  VariableHandle w = Variable("w", {1});
  Output loss = ops::L2Loss(s, w.read);
  AdagradOptimizer(0.1, 0).Minimize(s, loss);
  EXPECT_THAT(std::string(s.status().message()),
              HasSubstr("initial_accumulator_value must be positive: 0"));
  Graph other;
  Scope o(&other);
  VariableHandle v = MakeVariable(o, "v", Tensor::Scalar<float>(1));
  FtrlOptions options;
  options.l1_regularization_strength = -1;
  FtrlOptimizer(0.1, options).Minimize(o, ops::L2Loss(o, v.read));
  EXPECT_THAT(std::string(o.status().message()),
              HasSubstr("l1_regularization_strength -1 needs to be positive or zero"));
}

}  // namespace
}  // namespace ferry
