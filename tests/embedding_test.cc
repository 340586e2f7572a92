// Tables of rows that lookups share: the graph, the losses and the slots beside TensorFlow's for
// each optimizer (testdata/make_embedding.py), with references and handles; sparse gradients;
// parts.
#include "runtime/graph/embedding.h"

#include <cmath>
#include <fstream>
#include <map>
#include <memory>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/sparse_gradient.h"
#include "runtime/session/session.h"
#include "tests/graph_compare.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::FloatEq;
using ::testing::HasSubstr;

std::unique_ptr<Optimizer> MakeOptimizer(const std::string& name) {
  if (name == "sgd") return std::make_unique<GradientDescentOptimizer>(0.1);
  if (name == "momentum") return std::make_unique<MomentumOptimizer>(0.05, 0.9, true);
  if (name == "adam") return std::make_unique<AdamOptimizer>(0.05);
  if (name == "adagrad") return std::make_unique<AdagradOptimizer>(0.1, 0.2);
  if (name == "adadelta") return std::make_unique<AdadeltaOptimizer>(0.5, 0.9, 1e-6);
  if (name == "rmsprop") return std::make_unique<RMSPropOptimizer>(0.01, 0.8, 0.5);
  if (name == "centered") {
    return std::make_unique<RMSPropOptimizer>(0.01, 0.9, 0.0, 1e-3, /*centered=*/true);
  }
  FtrlOptions options;
  if (name == "ftrl") {
    options.l1_regularization_strength = 0.01;
    options.l2_regularization_strength = 0.02;
    options.beta = 0.1;
  } else {
    options.learning_rate_power = -0.6;
    options.l2_shrinkage_regularization_strength = 0.1;
  }
  return std::make_unique<FtrlOptimizer>(0.1, options);
}

// The network of make_embedding.py.
struct Model {
  explicit Model(Optimizer* optimizer, bool use_resource = false) {
    graph.set_seed(42);
    Output first = ops::Placeholder(s.WithOpName("first"), DType::kInt32, {PartialShape::kUnknown});
    Output second =
        ops::Placeholder(s.WithOpName("second"), DType::kInt64, {PartialShape::kUnknown});
    Output y = ops::Placeholder(s.WithOpName("y"), DType::kFloat, {PartialShape::kUnknown, 1});
    VariableOptions options;
    options.initializer = RandomUniformInitializer(-1, 1);
    options.use_resource = use_resource;
    table = GetVariable(s, "table", {11, 4}, DType::kFloat, options);
    VariableHandle w = GetVariable(s, "w", {4, 1}, DType::kFloat, options);
    Output e1 = EmbeddingLookup(s.WithOpName("e1"), table, first);
    Output e2 = EmbeddingLookup(s.WithOpName("e2"), table, second);
    Output out = ops::MatMul(s.WithOpName("out"), ops::Mul(s.WithOpName("both"), e1, e2), w.read);
    loss = ops::L2Loss(s.WithOpName("loss"), ops::Sub(s.WithOpName("error"), out, y));
    MinimizeOptions minimize;
    minimize.global_step = GetOrCreateGlobalStep(s);
    train_op = optimizer->Minimize(s, loss, minimize);
    init = GlobalVariablesInitializer(s);
  }

  static std::vector<std::pair<std::string, Tensor>> Feeds(int64_t step) {
    std::vector<int32_t> first;
    std::vector<int64_t> second;
    Tensor y = *Tensor::Allocate(DType::kFloat, {6, 1});
    for (int64_t i = 0; i < 6; ++i) {
      first.push_back(static_cast<int32_t>((3 * step + i * i) % 11));
      second.push_back((step + 2 * i) % 11);
      y.data<float>()[i] = static_cast<float>((step + i) % 5 - 2) / 2;
    }
    return {
        {"first", Tensor::Of<int32_t>(first)}, {"second", Tensor::Of<int64_t>(second)}, {"y", y}};
  }

  Graph graph;
  Scope s{&graph};
  VariableHandle table;
  Output loss;
  Node* train_op = nullptr;
  Node* init = nullptr;
};

class EmbeddingTest : public ::testing::TestWithParam<std::string> {
 protected:
  // The loss before each step, then the values of the table and its slots; what is in the file.
  void ExpectTensorFlowsNumbers(bool use_resource) {
    std::unique_ptr<Optimizer> optimizer = MakeOptimizer(GetParam());
    Model model(optimizer.get(), use_resource);
    ASSERT_TRUE(model.s.ok()) << model.s.status();
    Session session(&model.graph);
    ASSERT_TRUE(session.Run({}, std::vector<std::string>(), {model.init->name()}, nullptr).ok());
    std::ifstream in(absl::StrCat("tests/testdata/embedding/", GetParam(), ".txt"));
    ASSERT_TRUE(in);
    int losses = 0, variables = 0;
    for (std::string line; std::getline(in, line);) {
      std::istringstream words(line);
      std::string key;
      words >> key;
      if (key == "loss") {
        int64_t step = 0;
        double expected = 0;
        words >> step >> expected;
        std::vector<Tensor> out;
        const absl::Status run =
            session.Run(Model::Feeds(step), {model.loss.name()}, {model.train_op->name()}, &out);
        ASSERT_TRUE(run.ok()) << run;
        EXPECT_NEAR(out[0].scalar<float>(), expected, 1e-4 * expected) << "step " << step;
        ++losses;
        continue;
      }
      VariableHandle v = model.table;
      if (key == "slot") {
        std::string name;
        words >> name;
        v = optimizer->GetSlot(model.table, name);
        ASSERT_TRUE(v) << name;
      }
      std::vector<Tensor> out;
      const absl::Status run = session.Run({}, {v.read.name()}, {}, &out);
      ASSERT_TRUE(run.ok()) << run;
      ASSERT_EQ(out[0].shape(), (TensorShape{11, 4}));
      for (int i = 0; i < 44; ++i) {
        double expected = 0;
        ASSERT_TRUE(words >> expected);
        EXPECT_NEAR(out[0].data<float>()[i], expected, 1e-4 * std::max(0.1, std::abs(expected)))
            << line.substr(0, 20) << i;
      }
      ++variables;
    }
    EXPECT_EQ(losses, 20);
    EXPECT_EQ(variables, 1 + static_cast<int>(optimizer->SlotNames().size()));
  }
};

INSTANTIATE_TEST_SUITE_P(Optimizers, EmbeddingTest,
                         ::testing::Values("sgd", "momentum", "adam", "adagrad", "adadelta",
                                           "rmsprop", "centered", "ftrl", "ftrl_v2"),
                         [](const auto& info) { return info.param; });

TEST_P(EmbeddingTest, GraphIsTensorFlows) {
  std::ifstream in(absl::StrCat("tests/testdata/embedding/", GetParam(), ".pb"), std::ios::binary);
  proto::GraphDef theirs;
  ASSERT_TRUE(theirs.ParseFromIstream(&in));
  std::unique_ptr<Optimizer> optimizer = MakeOptimizer(GetParam());
  Model model(optimizer.get());
  ASSERT_TRUE(model.s.ok()) << model.s.status();
  EXPECT_GT(ferry::testing::ExpectSameGraph(theirs, model.graph), 90);
}

TEST_P(EmbeddingTest, TrainsAsTensorFlow) { ExpectTensorFlowsNumbers(/*use_resource=*/false); }
TEST_P(EmbeddingTest, TrainsHandlesAsTensorFlow) {
  ExpectTensorFlowsNumbers(/*use_resource=*/true);
}

class SparseGradientTest : public ::testing::TestWithParam<bool> {
 protected:
  VariableHandle Table() {
    VariableOptions options;
    options.use_resource = GetParam();
    return MakeVariable(s, "table", Rows(), options);
  }
  static Tensor Rows() {
    Tensor t = *Tensor::Allocate(DType::kFloat, {4, 2});
    for (int i = 0; i < 8; ++i) t.data<float>()[i] = static_cast<float>(i);
    return t;
  }
  std::vector<float> Get(Output o, const std::vector<Node*>& first = {}) {
    if (session == nullptr) {
      Node* init = GlobalVariablesInitializer(s);
      EXPECT_TRUE(s.ok()) << s.status();
      session = std::make_unique<Session>(&graph);
      EXPECT_TRUE(session->Run({}, std::vector<Output>(), {init}, nullptr).ok());
    }
    std::vector<Tensor> out;
    absl::Status status = session->Run({}, std::vector<Output>(), first, nullptr);
    if (status.ok()) status = session->Run({}, std::vector<Output>{o}, {}, &out);
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) return {};
    return {out[0].span<float>().begin(), out[0].span<float>().end()};
  }
  Graph graph;
  Scope s{&graph};
  std::unique_ptr<Session> session;
};

INSTANTIATE_TEST_SUITE_P(Kinds, SparseGradientTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Resource" : "Reference"; });

TEST_P(SparseGradientTest, RowsStayRows) {
  VariableHandle table = Table();
  Output rows = EmbeddingLookup(s, table, ops::ConstVector<int32_t>(s, {3, 1, 3}));
  Output loss = ops::ReduceSum(s, ops::Square(s, rows));
  std::vector<Gradient> grads;
  absl::Status status = AddSymbolicGradients(s, {loss}, {table.ref}, &grads);
  ASSERT_TRUE(status.ok()) << status;
  ASSERT_TRUE(grads[0].is_sparse());
  Output dense = ToDense(s, grads[0]);
  EXPECT_THAT(Get(grads[0].values), ElementsAre(12, 14, 4, 6, 12, 14));
  EXPECT_THAT(Get(dense), ElementsAre(0, 0, 4, 6, 0, 0, 24, 28));
}

TEST_P(SparseGradientTest, AddUpToATensorWithATensor) {
  VariableHandle table = Table();
  Output rows = EmbeddingLookup(s, table, ops::ConstVector<int32_t>(s, {0, 0}));
  Output loss = ops::AddV2(s, ops::ReduceSum(s, rows), ops::ReduceSum(s, table.read));
  std::vector<Gradient> grads;
  absl::Status status = AddSymbolicGradients(s, {loss}, {table.ref}, &grads);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_FALSE(grads[0].is_sparse());
  EXPECT_EQ(grads[0].values.name(), "gradients/AddN:0");
  // Only the rows are converted.
  EXPECT_NE(graph.FindNode("gradients/AddN/inputs_0") == nullptr,
            graph.FindNode("gradients/AddN/inputs_1") == nullptr);
  EXPECT_THAT(Get(grads[0].values), ElementsAre(3, 3, 1, 1, 1, 1, 1, 1));
}

// Ops between the table and the lookup get a tensor.
TEST_P(SparseGradientTest, OpsGetTensors) {
  VariableHandle table = Table();
  Output rows = ops::GatherV2(s, ops::Square(s, table.read), ops::ConstVector<int64_t>(s, {2, 2}),
                              ops::Const<int32_t>(s, 0));
  std::vector<Gradient> grads;
  absl::Status status = AddSymbolicGradients(s, {ops::ReduceSum(s, rows)}, {table.ref}, &grads);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_FALSE(grads[0].is_sparse());
  EXPECT_THAT(Get(grads[0].values), ElementsAre(0, 0, 0, 0, 16, 20, 0, 0));
}

TEST_P(SparseGradientTest, AreClipped) {
  VariableHandle table = Table();
  Output rows = EmbeddingLookup(s, table, ops::ConstVector<int32_t>(s, {1}));  // [2, 3]
  Output loss = ops::L2Loss(s, rows);
  std::vector<Gradient> grads;
  absl::Status status = AddSymbolicGradients(s, {loss}, {table.ref}, &grads);
  ASSERT_TRUE(status.ok()) << status;
  const double norm = std::sqrt(13);
  ClippedGradients clipped = ClipByGlobalNorm(s, grads, norm / 2);
  Gradient by_norm = ClipByNorm(s, grads[0], norm / 4);
  Gradient by_value = ClipByValue(s, grads[0], -1, 2.5);
  for (const Gradient& g : {clipped.grads[0], by_norm, by_value}) {
    EXPECT_TRUE(g.is_sparse());
    EXPECT_EQ(g.indices, grads[0].indices);
  }
  EXPECT_THAT(Get(clipped.grads[0].values), ElementsAre(FloatEq(1), FloatEq(1.5)));
  EXPECT_THAT(Get(by_norm.values), ElementsAre(FloatEq(0.5), FloatEq(0.75)));
  EXPECT_THAT(Get(by_value.values), ElementsAre(2, 2.5));
}

TEST(PartitionedEmbeddingTest, FindsRowsByEitherStrategy) {
  for (const bool use_resource : {false, true}) {
    for (const PartitionStrategy strategy : {PartitionStrategy::kMod, PartitionStrategy::kDiv}) {
      for (const DType dtype : {DType::kInt32, DType::kInt64}) {
        Graph graph;
        Scope s(&graph);
        // Part p, row r holds 10 p + r.
        std::vector<VariableHandle> parts;
        for (int p = 0; p < 3; ++p) {
          Tensor t = *Tensor::Allocate(DType::kFloat, {p == 2 ? 2 : 3, 1});
          for (int r = 0; r < t.dim(0); ++r) t.data<float>()[r] = static_cast<float>(10 * p + r);
          VariableOptions options;
          options.use_resource = use_resource;
          parts.push_back(MakeVariable(s, absl::StrCat("part_", p), t, options));
        }
        Output ids =
            ops::Cast(s, ops::Const(s, Tensor::Of<int32_t>({0, 1, 2, 3, 4, 5, 6, 7})), dtype);
        ids = ops::Reshape(s, ids, ops::ConstVector<int32_t>(s, {4, 2}));
        Output rows = EmbeddingLookup(s, parts, ids, strategy);
        std::vector<Gradient> grads;
        ASSERT_TRUE(AddSymbolicGradients(s, {ops::ReduceSum(s, ops::Square(s, rows))},
                                         {parts[1].ref}, &grads)
                        .ok());
        Node* init = GlobalVariablesInitializer(s);
        ASSERT_TRUE(s.ok()) << s.status();
        EXPECT_TRUE(grads[0].is_sparse());
        Output dense = ToDense(s, grads[0]);
        Session session(&graph);
        ASSERT_TRUE(session.Run({}, std::vector<Output>(), {init}, nullptr).ok());
        std::vector<Tensor> out;
        const absl::Status run = session.Run({}, std::vector<Output>{rows, dense}, {}, &out);
        ASSERT_TRUE(run.ok()) << run;
        EXPECT_EQ(out[0].shape(), (TensorShape{4, 2, 1}));
        if (strategy == PartitionStrategy::kMod) {
          EXPECT_THAT(out[0].span<float>(), ElementsAre(0, 10, 20, 1, 11, 21, 2, 12));
        } else {
          EXPECT_THAT(out[0].span<float>(), ElementsAre(0, 1, 2, 10, 11, 12, 20, 21));
        }
        EXPECT_THAT(out[1].span<float>(), ElementsAre(20, 22, 24));
      }
    }
  }
}

TEST(PartitionedEmbeddingTest, NeedsParts) {
  Graph graph;
  Scope s(&graph);
  EmbeddingLookup(s, std::vector<VariableHandle>(), ops::Const<int32_t>(s, 0));
  EXPECT_THAT(std::string(s.status().message()), HasSubstr("at least one"));
}

}  // namespace
}  // namespace ferry
