// Moving averages and tf.cond's graph, node for node beside TensorFlow's.
#include "runtime/graph/moving_averages.h"

#include <algorithm>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "gtest/gtest.h"
#include "proto/control_flow.pb.h"
#include "proto/meta_graph.pb.h"
#include "runtime/graph/cond.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"
#include "saver/saver.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Pair;

class MovingAveragesTest : public ::testing::Test {
 protected:
  // The nodes and collections of `graph` are those of tests/testdata/ema/NAME.pbtxt.
  void ExpectTensorFlows(const std::string& name) {
    ASSERT_TRUE(root.ok()) << root.status();
    std::ifstream in(absl::StrCat("tests/testdata/ema/", name, ".pbtxt"));
    std::stringstream text;
    text << in.rdbuf();
    proto::MetaGraphDef theirs;
    ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(text.str(), &theirs));
    proto::GraphDef ours;
    graph.ToGraphDef(&ours);
    std::map<std::string, const proto::NodeDef*> by_name;
    for (proto::NodeDef& n : *ours.mutable_node()) by_name[n.name()] = &n;
    for (proto::NodeDef n : theirs.graph_def().node()) {
      // What Python's own bookkeeping marks.
      n.mutable_attr()->erase("_has_manual_control_dependencies");
      n.clear_experimental_type();
      for (std::string& input : *n.mutable_input()) {
        if (input.size() > 2 && input.substr(input.size() - 2) == ":0") {
          input.resize(input.size() - 2);  // A redirected input: the same thing.
        }
      }
      ASSERT_EQ(by_name.count(n.name()), 1u) << n.name();
      std::string difference;
      google::protobuf::util::MessageDifferencer differencer;
      differencer.ReportDifferencesToString(&difference);
      EXPECT_TRUE(differencer.Compare(n, *by_name[n.name()])) << n.name() << "\n" << difference;
      by_name.erase(n.name());
    }
    for (const auto& [extra, n] : by_name) ADD_FAILURE() << extra << " isn't in TensorFlow's graph";
    for (const auto& [collection, def] : theirs.collection_def()) {
      ExpectCollection(collection, def);
    }
    EXPECT_EQ(graph.collections().size(), theirs.collection_def().size());
  }
  void ExpectCollection(const std::string& name, const proto::CollectionDef& theirs) {
    auto it = graph.collections().find(name);
    ASSERT_NE(it, graph.collections().end()) << name;
    ASSERT_EQ(it->second.bytes_list().value_size(), theirs.bytes_list().value_size()) << name;
    for (int i = 0; i < theirs.bytes_list().value_size(); ++i) {
      const std::string &a = it->second.bytes_list().value(i), &b = theirs.bytes_list().value(i);
      if (name == kCondContext) {
        EXPECT_EQ(Text<proto::CondContextDef>(a), Text<proto::CondContextDef>(b));
      } else {
        EXPECT_EQ(Text<proto::VariableDef>(a), Text<proto::VariableDef>(b));
      }
    }
  }
  template <typename M>
  static std::string Text(const std::string& bytes) {
    M message;
    EXPECT_TRUE(message.ParseFromString(bytes));
    return message.DebugString();  // Maps in the order of their keys.
  }
  std::vector<std::vector<float>> Fetch(Session* session, const std::vector<Output>& what) {
    std::vector<Tensor> out;
    const absl::Status s = session->Run({}, what, {}, &out);
    EXPECT_TRUE(s.ok()) << s;
    std::vector<std::vector<float>> values;
    for (const Tensor& t : out) values.emplace_back(t.span<float>().begin(), t.span<float>().end());
    return values;
  }
  Graph graph;
  Scope root{&graph};
};

using V = std::vector<std::vector<float>>;

TEST_F(MovingAveragesTest, OfAVariable) {
  VariableHandle v = MakeVariable(root, "v", Tensor::Scalar(0.0f));
  ExponentialMovingAverage ema(0.99);
  EXPECT_EQ(ema.average_name(v), "v/ExponentialMovingAverage");
  EXPECT_FALSE(ema.average(v));
  Node* update = ema.Apply(root, {v});
  ExpectTensorFlows("article");
  EXPECT_EQ(update->name(), "ExponentialMovingAverage");
  EXPECT_EQ(ema.average(v).name(), "v/ExponentialMovingAverage");
  EXPECT_EQ(ema.average_name(v), "v/ExponentialMovingAverage");
  EXPECT_FALSE(ema.average(v).trainable);
  auto restore = ema.variables_to_restore(graph);
  ASSERT_TRUE(restore.ok()) << restore.status();
  ASSERT_EQ(restore->size(), 1u);
  EXPECT_EQ((*restore)[0].first, "v/ExponentialMovingAverage");
  EXPECT_EQ((*restore)[0].second.name(), "v");

  Output set = ops::Assign(root, v.ref, ops::Const<float>(root, 10));
  Node* init = GlobalVariablesInitializer(root);
  Session session(&graph);
  std::vector<Tensor> out;
  ASSERT_EQ(session.Run({}, {}, {init}, &out), absl::OkStatus());
  Fetch(&session, {set});
  ASSERT_EQ(session.Run({}, {}, {update}, &out), absl::OkStatus());
  EXPECT_EQ(Fetch(&session, {v.ref, ema.average(v).ref}), (V{{10}, {0.099999905f}}));
  ASSERT_EQ(session.Run({}, {}, {update}, &out), absl::OkStatus());
  EXPECT_EQ(Fetch(&session, {ema.average(v).ref}), (V{{0.1989998072385788f}}));
}

TEST_F(MovingAveragesTest, OfAResourceVariable) {
  VariableOptions options;
  options.use_resource = true;
  VariableHandle v = MakeVariable(root, "v", Tensor::Scalar(0.0f), options);
  ExponentialMovingAverage ema(0.99);
  Node* update = ema.Apply(root, {v});
  ASSERT_TRUE(root.ok()) << root.status();
  VariableHandle shadow = ema.average(v);
  EXPECT_TRUE(shadow.is_resource());
  Node* set = AssignTo(root, v, ops::Const<float>(root, 10));
  Node* init = GlobalVariablesInitializer(root);
  Session session(&graph);
  std::vector<Tensor> out;
  ASSERT_EQ(session.Run({}, {}, {init}, &out), absl::OkStatus());
  ASSERT_EQ(session.Run({}, {}, {set}, &out), absl::OkStatus());
  ASSERT_EQ(session.Run({}, {}, {update}, &out), absl::OkStatus());
  EXPECT_EQ(Fetch(&session, {v.read, shadow.read}), (V{{10}, {0.099999905f}}));
}

TEST_F(MovingAveragesTest, ShadowsStartWithTheVariableWhateverIsInitializedFirst) {
  VariableHandle v = MakeVariable(root, "v", Tensor::Scalar(3.0f));
  ExponentialMovingAverage ema(0.99);
  ema.Apply(root);
  VariableHandle shadow = ema.average(v);
  Output five = ops::Assign(root, v.ref, ops::Const<float>(root, 5));
  ASSERT_TRUE(root.ok()) << root.status();
  std::vector<Tensor> out;
  {
    Session session(&graph);
    ASSERT_EQ(session.Run({}, absl::Span<const Output>(), {shadow.initializer}, &out),
              absl::OkStatus());
    EXPECT_EQ(Fetch(&session, {shadow.ref}), (V{{3}}));  // v has no value yet.
  }
  Session session(&graph);
  Fetch(&session, {five});
  ASSERT_EQ(session.Run({}, absl::Span<const Output>(), {shadow.initializer}, &out),
            absl::OkStatus());
  EXPECT_EQ(Fetch(&session, {shadow.ref}), (V{{5}}));
}

TEST_F(MovingAveragesTest, NumUpdatesBoundTheDecay) {
  VariableHandle step = GetOrCreateGlobalStep(root);
  VariableHandle w = MakeVariable(root, "w", ops::Const(root, Tensor::Of<float>({1, 2})));
  VariableOptions zeros;
  zeros.initializer = ZerosInitializer();
  GetVariable(root.NewSubScope("layer"), "b", {3}, DType::kDouble, zeros);
  ExponentialMovingAverage ema(0.999, step.read, false, "avg");
  Node* update = ema.Apply(root);
  ExpectTensorFlows("num_updates");

  Node* init = GlobalVariablesInitializer(root);
  Output set = ops::Assign(root, w.ref, ops::Const(root, Tensor::Of<float>({10, 20})));
  Session session(&graph);
  std::vector<Tensor> out;
  ASSERT_EQ(session.Run({}, {}, {init}, &out), absl::OkStatus());
  Fetch(&session, {set});
  ASSERT_EQ(session.Run({}, {}, {update}, &out), absl::OkStatus());
  // Decay 1/10: a tenth of the old value stays.
  const std::vector<float> got = Fetch(&session, {ema.average(w).ref})[0];
  EXPECT_NEAR(got[0], 0.1 * 1 + 0.9 * 10, 1e-5);
  EXPECT_NEAR(got[1], 0.1 * 2 + 0.9 * 20, 1e-5);
}

TEST_F(MovingAveragesTest, OfATensorWithoutBias) {
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {2});
  ExponentialMovingAverage ema(0.9, {}, /*zero_debias=*/true);
  Node* update = ema.ApplyToTensors(root, {x});
  ExpectTensorFlows("debias");
  Node* init = GlobalVariablesInitializer(root);
  Session session(&graph);
  std::vector<Tensor> out;
  ASSERT_EQ(session.Run({}, {}, {init}, &out), absl::OkStatus());
  // From debias.json.
  const V expected = {{1, 2}, {1.5263158f, 2}, {2.07011f, 2}};
  for (int k = 0; k < 3; ++k) {
    ASSERT_EQ(session.Run({{"x", Tensor::Of<float>({1.0f + static_cast<float>(k), 2})}}, {},
                          {update->name()}, &out),
              absl::OkStatus());
    const std::vector<float> got = Fetch(&session, {ema.average(x).ref})[0];
    EXPECT_NEAR(got[0], expected[k][0], 2e-6);
    EXPECT_NEAR(got[1], expected[k][1], 2e-6);
  }
}

TEST_F(MovingAveragesTest, OfATensor) {
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {2});
  const Scope y = root.NewSubScope("y");
  Output two = ops::Const<float>(y.WithOpName("y"), 2);
  ExponentialMovingAverage ema(0.5);
  ema.ApplyToTensors(root, {ops::Mul(root.WithOpName("y/"), x, two)});
  ExpectTensorFlows("tensor");
}

TEST_F(MovingAveragesTest, CondIsTensorFlows) {
  Output p = ops::Placeholder(root.WithOpName("p"), DType::kBool, PartialShape::Scalar());
  Output q = ops::Placeholder(root.WithOpName("q"), DType::kBool, PartialShape::Scalar());
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {2});
  Output first = Cond(
      root, p, [&](const Scope& s) { return ops::Square(s, x); },
      [&](const Scope& s) {
        return ops::Const(s, Tensor::Of<float>({5, 6}));
      },
      "first");
  Output second = Cond(
      root, p,
      [&](const Scope& s) {
        return Cond(
            s, q, [&](const Scope& t) { return ops::Neg(t, x); },
            [&](const Scope& t) { return ops::AddV2(t.WithOpName("Add"), x, x); });
      },
      [&](const Scope&) { return x; });
  ExpectTensorFlows("cond");
  std::vector<Output> grads;
  ASSERT_EQ(AddSymbolicGradients(root, {second}, {x}, &grads), absl::OkStatus());
  Session session(&graph);
  for (bool pv : {false, true}) {
    for (bool qv : {false, true}) {
      std::vector<Tensor> out;
      const absl::Status s = session.Run(
          {{p, Tensor::Scalar(pv)}, {q, Tensor::Scalar(qv)}, {x, Tensor::Of<float>({2, 3})}},
          {first, second, grads[0]}, {}, &out);
      ASSERT_TRUE(s.ok()) << s;
      EXPECT_EQ(out[0].data<float>()[0], pv ? 4 : 5);
      EXPECT_EQ(out[1].data<float>()[1], !pv ? 3 : qv ? -3 : 6);
      EXPECT_EQ(out[2].data<float>()[0], !pv ? 1 : qv ? -1 : 2);
    }
  }
}

TEST_F(MovingAveragesTest, BranchesMustAgree) {
  Output p = ops::Placeholder(root.WithOpName("p"), DType::kBool, PartialShape::Scalar());
  Cond(
      root, p, [&](const Scope& s) { return ops::Const<float>(s, 1); },
      [&](const Scope& s) { return ops::Const<int32_t>(s, 1); });
  EXPECT_THAT(std::string(root.status().message()),
              HasSubstr("Outputs of true_fn and false_fn must have the same type: float32, int32"));
}

TEST_F(MovingAveragesTest, BothBranchesMustBeThere) {
  Output p = ops::Placeholder(root.WithOpName("p"), DType::kBool, PartialShape::Scalar());
  const int nodes = graph.num_nodes();
  EXPECT_EQ(Cond(
                root, p, [](const Scope& s) { return ops::Const<float>(s, 1); }, nullptr)
                .node,
            nullptr);
  EXPECT_THAT(std::string(root.status().message()),
              HasSubstr("true_fn and false_fn must be callable"));
  EXPECT_EQ(graph.num_nodes(), nodes);
}

TEST_F(MovingAveragesTest, RestoresShadowsIntoVariables) {
  VariableHandle v = MakeVariable(root, "v", Tensor::Scalar(0.0f));
  GetOrCreateGlobalStep(root);
  ExponentialMovingAverage ema(0.99);
  Node* update = ema.Apply(root, {v});
  Output set = ops::Assign(root, v.ref, ops::Const<float>(root, 10));
  Node* init = GlobalVariablesInitializer(root);
  ASSERT_TRUE(root.ok()) << root.status();
  const std::string prefix = ::testing::TempDir() + "/shadow/model.ckpt";
  {
    Session session(&graph);
    std::vector<Tensor> out;
    ASSERT_EQ(session.Run({}, {}, {init}, &out), absl::OkStatus());
    Fetch(&session, {set});
    ASSERT_EQ(session.Run({}, {}, {update}, &out), absl::OkStatus());
    auto saver = Saver::Create(&graph);
    ASSERT_TRUE(saver.ok()) << saver.status();
    ASSERT_TRUE((*saver)->Save(&session, prefix).ok());
  }
  // A graph for evaluation, without averages.
  Graph other;
  Scope s(&other);
  VariableHandle w = MakeVariable(s, "v", Tensor::Scalar(0.0f));
  MakeVariable(s, "local", Tensor::Scalar(1.0f), {nullptr, nullptr, false, {kLocalVariables}});
  GetOrCreateGlobalStep(s);
  SaverOptions options;
  auto map = ExponentialMovingAverage(0.99).variables_to_restore(other);
  ASSERT_TRUE(map.ok()) << map.status();
  std::vector<std::pair<std::string, std::string>> names;
  for (const auto& [name, variable] : *map) names.emplace_back(name, variable.name());
  EXPECT_THAT(names, ElementsAre(Pair("v/ExponentialMovingAverage", "v"),
                                 Pair("global_step", "global_step")));
  options.var_map = *map;
  auto saver = Saver::Create(&other, options);
  ASSERT_TRUE(saver.ok()) << saver.status();
  Session session(&other);
  ASSERT_EQ((*saver)->Restore(&session, prefix), absl::OkStatus());
  EXPECT_EQ(Fetch(&session, {w.ref}), (V{{0.099999905f}}));
}

TEST_F(MovingAveragesTest, RefusesWhatHasNoAverage) {
  VariableHandle n = MakeVariable(root, "n", Tensor::Scalar<int64_t>(1));
  EXPECT_EQ(ExponentialMovingAverage(0.9).Apply(root, {n}), nullptr);
  EXPECT_THAT(std::string(root.status().message()),
              HasSubstr("The variables must be half, float, or double: n"));
  for (const bool tensors : {false, true}) {
    const Scope s(&graph);
    ExponentialMovingAverage ema(0.9);
    EXPECT_EQ(tensors ? ema.ApplyToTensors(s, {Output()}) : ema.Apply(s, {VariableHandle()}),
              nullptr);
    EXPECT_THAT(std::string(s.status().message()), HasSubstr("to be averaged is empty"));
  }
}

TEST_F(MovingAveragesTest, AVariableThatDependsOnOthersIsInitializedInAnyOrder) {
  VariableHandle a = MakeVariable(root, "a", Tensor::Scalar(2.0f));
  VariableHandle b = MakeVariable(root, "b", ops::Mul(root, a.read, ops::Const<float>(root, 3)));
  ASSERT_TRUE(root.ok()) << root.status();
  Session session(&graph);
  std::vector<Tensor> out;
  ASSERT_EQ(session.Run({}, absl::Span<const Output>(), {b.initializer}, &out), absl::OkStatus());
  EXPECT_EQ(Fetch(&session, {b.ref}), (V{{6}}));
}

}  // namespace
}  // namespace ferry
