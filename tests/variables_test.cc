// Variables and collections: names, nodes and records as TensorFlow's compat.v1.get_variable makes
// them.
#include "runtime/graph/variables.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

class VariablesTest : public ::testing::Test {
 protected:
  // "name op inputs" of the nodes from `begin` on.
  std::vector<std::string> Nodes(int begin) const {
    std::vector<std::string> lines;
    for (int i = begin; i < g.num_nodes(); ++i) {
      proto::NodeDef def;
      g.nodes()[static_cast<size_t>(i)]->ToNodeDef(&def);
      lines.push_back(absl::StrCat(def.name(), " ", def.op()));
      for (const std::string& in : def.input()) absl::StrAppend(&lines.back(), " ", in);
    }
    return lines;
  }
  std::vector<std::string> Group(const std::string& node) const {
    auto groups = g.FindNode(node)->Attr<std::vector<std::string>>("_class");
    return groups.ok() ? *groups : std::vector<std::string>();
  }
  VariableHandle Make(const std::string& name, const TensorShape& shape, DType dtype,
                      Initializer initializer) {
    VariableOptions options;
    options.initializer = std::move(initializer);
    VariableHandle v = GetVariable(s, name, shape, dtype, options);
    EXPECT_TRUE(s.ok()) << s.status();
    return v;
  }
  Graph g;
  Scope s{&g};
};

// The expected nodes are TensorFlow 2.21's for the same calls.
TEST_F(VariablesTest, RandomUniform) {
  g.set_seed(7);
  Make("w", {2, 3}, DType::kFloat, RandomUniformInitializer(-1, 1));
  EXPECT_THAT(Nodes(0),
              ElementsAre("w/Initializer/random_uniform/shape Const",
                          "w/Initializer/random_uniform/min Const",
                          "w/Initializer/random_uniform/max Const",
                          "w/Initializer/random_uniform/RandomUniform RandomUniform "
                          "w/Initializer/random_uniform/shape",
                          "w/Initializer/random_uniform/sub Sub "
                          "w/Initializer/random_uniform/max w/Initializer/random_uniform/min",
                          "w/Initializer/random_uniform/mul Mul "
                          "w/Initializer/random_uniform/RandomUniform "
                          "w/Initializer/random_uniform/sub",
                          "w/Initializer/random_uniform AddV2 w/Initializer/random_uniform/mul "
                          "w/Initializer/random_uniform/min",
                          "w VariableV2", "w/Assign Assign w w/Initializer/random_uniform",
                          "w/read Identity w"));
  for (const auto& n : g.nodes()) EXPECT_THAT(Group(n->name()), ElementsAre("loc:@w"));
  EXPECT_TRUE(*g.FindNode("w/Assign")->Attr<bool>("use_locking"));
  EXPECT_TRUE(*g.FindNode("w/Assign")->Attr<bool>("validate_shape"));
}

TEST_F(VariablesTest, Normals) {
  Make("n", {2}, DType::kFloat, RandomNormalInitializer(1, 2, 5));
  EXPECT_EQ(absl::StrJoin(Nodes(0), ";")
                .find("n/Initializer/random_normal/shape Const;n/Initializer/random_normal/mean "
                      "Const;n/Initializer/random_normal/stddev Const;n/Initializer/random_normal/"
                      "RandomStandardNormal RandomStandardNormal n/Initializer/random_normal/shape;"
                      "n/Initializer/random_normal/mul Mul "),
            0u);
  Make("t", {2}, DType::kDouble, TruncatedNormalInitializer(0, 0.5));
  EXPECT_NE(g.FindNode("t/Initializer/truncated_normal/TruncatedNormal"), nullptr);
  // The op's seed with TensorFlow's default for the graph; then none at all.
  Node* n = g.FindNode("n/Initializer/random_normal/RandomStandardNormal");
  EXPECT_EQ(*n->Attr<int64_t>("seed"), 87654321);
  EXPECT_EQ(*n->Attr<int64_t>("seed2"), 5);
  n = g.FindNode("t/Initializer/truncated_normal/TruncatedNormal");
  EXPECT_EQ(*n->Attr<int64_t>("seed"), 0);
  EXPECT_EQ(*n->Attr<int64_t>("seed2"), 0);
}

TEST_F(VariablesTest, SeedsCountTheCalls) {
  EXPECT_EQ(g.OpSeeds(), std::make_pair(int64_t{0}, int64_t{0}));
  g.set_seed(0);
  EXPECT_EQ(g.OpSeeds(), std::make_pair(int64_t{0}, int64_t{2147483647}));
  EXPECT_EQ(g.OpSeeds(9), std::make_pair(int64_t{0}, int64_t{9}));
  EXPECT_EQ(g.OpSeeds(), std::make_pair(int64_t{0}, int64_t{1}));
  g.set_seed(-1);
  EXPECT_EQ(g.OpSeeds(), std::make_pair(int64_t{2147483646}, int64_t{2}));
}

TEST_F(VariablesTest, GlorotLimits) {
  auto limit = [&](const std::string& name) {
    Node* n = g.FindNode(name + "/Initializer/random_uniform/max");
    return n->Attr<Tensor>("value")->scalar<float>();
  };
  Make("matrix", {2, 3}, DType::kFloat, nullptr);
  Make("vector", {3}, DType::kFloat, nullptr);
  Make("window", {3, 3, 2, 4}, DType::kFloat, nullptr);
  EXPECT_EQ(limit("matrix"), 1.09544516f);
  EXPECT_EQ(limit("vector"), 1.0f);
  EXPECT_EQ(limit("window"), 0.333333343f);
  Make("normal", {2, 3}, DType::kFloat, GlorotNormalInitializer());
  EXPECT_EQ(g.FindNode("normal/Initializer/truncated_normal/stddev")
                ->Attr<Tensor>("value")
                ->scalar<float>(),
            0.719005346f);
}

TEST_F(VariablesTest, ConstantsSmallAndLarge) {
  Make("z", {2, 3}, DType::kFloat, ZerosInitializer());
  Make("big", {100, 20}, DType::kInt64, OnesInitializer());
  Make("c", {1000}, DType::kHalf, ConstantInitializer(3));
  Make("i", TensorShape(), DType::kInt32, nullptr);
  EXPECT_THAT(
      Nodes(0),
      ElementsAre("z/Initializer/zeros Const", "z VariableV2",
                  "z/Assign Assign z z/Initializer/zeros", "z/read Identity z",
                  "big/Initializer/ones/shape_as_tensor Const", "big/Initializer/ones/Const Const",
                  "big/Initializer/ones Fill big/Initializer/ones/shape_as_tensor "
                  "big/Initializer/ones/Const",
                  "big VariableV2", "big/Assign Assign big big/Initializer/ones",
                  "big/read Identity big", "c/Initializer/Const Const", "c VariableV2",
                  "c/Assign Assign c c/Initializer/Const", "c/read Identity c",
                  "i/Initializer/zeros Const", "i VariableV2",
                  "i/Assign Assign i i/Initializer/zeros", "i/read Identity i"));
  Session session(&g);
  std::vector<Tensor> out;
  Node* init = GlobalVariablesInitializer(s);
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(init->name(), "init");
  ASSERT_TRUE(session.Run({}, std::vector<Output>(), {init}, &out).ok());
  ASSERT_TRUE(session.Run({}, {"z:0", "big", "c", "i"}, {}, &out).ok());
  EXPECT_EQ(out[0].data<float>()[5], 0);
  EXPECT_EQ(out[1].data<int64_t>()[1999], 1);
  EXPECT_EQ(HalfToFloat(static_cast<const Half*>(out[2].raw())[999]), 3);
  EXPECT_EQ(out[3].scalar<int32_t>(), 0);
}

TEST_F(VariablesTest, FromAValue) {
  VariableHandle a = MakeVariable(s, "V", Tensor::Of<float>({1, 2}));
  VariableHandle b = MakeVariable(s, "V", Tensor::Scalar<std::string>("x"));
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_THAT(
      Nodes(0),
      ElementsAre("V/initial_value Const", "V VariableV2", "V/Assign Assign V V/initial_value",
                  "V/read Identity V", "V_1/initial_value Const", "V_1 VariableV2",
                  "V_1/Assign Assign V_1 V_1/initial_value", "V_1/read Identity V_1"));
  EXPECT_THAT(Group("V"), ElementsAre());
  EXPECT_THAT(Group("V/initial_value"), ElementsAre());
  EXPECT_THAT(Group("V/Assign"), ElementsAre("loc:@V"));
  EXPECT_EQ(a.shape(), PartialShape({2}));
  EXPECT_EQ(b.dtype(), DType::kString);
}

TEST_F(VariablesTest, DevicesControlAndScopes) {
  Node* before = ops::NoOp(s);
  Scope in = s.NewSubScope("a").WithDevice("/device:CPU:0").WithControlDependencies({before});
  VariableOptions options;
  options.initializer = ZerosInitializer();
  VariableHandle v = GetVariable(in, "v", {1}, DType::kFloat, options);
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(v.name(), "a/v");
  EXPECT_EQ(v.ref.node->device(), "/device:CPU:0");
  EXPECT_EQ(v.initializer->device(), "/device:CPU:0");
  EXPECT_EQ(v.initial_value.node->device(), "");
  for (Node* n : {v.ref.node, v.initializer, v.read.node, v.initial_value.node}) {
    EXPECT_TRUE(n->control_inputs().empty()) << n->name();
  }
  // One device among others: tf.group's nodes.
  GetVariable(s, "w", {1}, DType::kFloat, options);
  const int begin = g.num_nodes();
  Node* init = GlobalVariablesInitializer(s);
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_THAT(Nodes(begin), ElementsAre("init/NoOp NoOp ^w/Assign", "init/NoOp_1 NoOp ^a/v/Assign",
                                        "init NoOp ^init/NoOp ^init/NoOp_1"));
  EXPECT_EQ(g.FindNode("init/NoOp_1")->device(), "/device:CPU:0");
  EXPECT_EQ(init->device(), "");
}

TEST_F(VariablesTest, Reuse) {
  VariableOptions options;
  options.trainable = false;
  VariableHandle w = GetVariable(s.NewSubScope("a"), "w", {1}, DType::kFloat);
  const Scope a = s.WithPrefix("a");
  options.reuse = Reuse::kYes;
  VariableHandle again = GetVariable(a, "w", {1}, DType::kFloat, options);
  options.reuse = Reuse::kAuto;
  VariableHandle once_more = GetVariable(a, "w", {1}, DType::kFloat, options);
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(again.ref, w.ref);
  EXPECT_EQ(again.read, w.read);
  EXPECT_EQ(again.initializer, w.initializer);
  EXPECT_EQ(again.initial_value, w.initial_value);
  EXPECT_TRUE(again.trainable);
  EXPECT_EQ(once_more.ref, w.ref);

  auto error = [&](const std::string& name, const TensorShape& shape, DType dtype, Reuse reuse) {
    Scope fresh(&g);
    VariableOptions o;
    o.reuse = reuse;
    EXPECT_FALSE(GetVariable(fresh.WithPrefix("a"), name, shape, dtype, o));
    return std::string(fresh.status().message());
  };
  EXPECT_THAT(error("w", {1}, DType::kFloat, Reuse::kNo), HasSubstr("Variable a/w already exists"));
  EXPECT_THAT(error("q", {1}, DType::kFloat, Reuse::kYes),
              HasSubstr("Variable a/q does not exist"));
  EXPECT_THAT(error("w", {2}, DType::kFloat, Reuse::kAuto),
              HasSubstr("specified shape [2] and found shape [1]"));
  EXPECT_THAT(error("w", {1}, DType::kInt32, Reuse::kAuto),
              HasSubstr("specified dtype int32 and found dtype float32"));
  EXPECT_THAT(error("s", {1}, DType::kString, Reuse::kNo),
              HasSubstr("An initializer for variable a/s of string is required"));
  EXPECT_THAT(error("no good", {1}, DType::kFloat, Reuse::kNo), HasSubstr("no good"));
}

TEST_F(VariablesTest, WhatCanNotBeMadeLeavesNothingBehind) {
  for (const auto& [name, shape] : std::vector<std::pair<std::string, TensorShape>>{
           {"", TensorShape({2})}, {"a b", TensorShape({2})}, {"v", TensorShape({2, -1})}}) {
    const Scope s(&g);
    GetVariable(s, name, shape, DType::kFloat);
    EXPECT_EQ(s.status().code(), absl::StatusCode::kInvalidArgument) << s.status();
    EXPECT_THAT(std::string(s.status().message()), HasSubstr("'" + name + "'"));
    EXPECT_EQ(g.num_nodes(), 0) << name;
  }
}

TEST_F(VariablesTest, Collections) {
  VariableOptions local;
  local.trainable = false;
  local.collections = {kLocalVariables, "mine"};
  GetVariable(s, "w", {1}, DType::kFloat);
  VariableHandle l = GetVariable(s, "l", {1}, DType::kFloat, local);
  VariableHandle step = GetOrCreateGlobalStep(s.NewSubScope("inside"));
  ASSERT_TRUE(s.ok()) << s.status();
  EXPECT_EQ(step.name(), "global_step");
  EXPECT_EQ(step.dtype(), DType::kInt64);
  EXPECT_EQ(GetOrCreateGlobalStep(s).ref, step.ref);
  EXPECT_EQ(GetGlobalStep(g)->ref, step.ref);

  // As in the collections of TensorFlow's meta graph.
  EXPECT_THAT(
      g.collections().at("global_step").bytes_list().value(),
      ElementsAre(std::string("\n\rglobal_step:0\022\022global_step/Assign\032\022global_step/"
                              "read:02\037global_step/Initializer/zeros:0H\003")));
  EXPECT_THAT(g.collections().at("trainable_variables").bytes_list().value(),
              ElementsAre(std::string("\n\003w:0\022\010w/Assign\032\010w/read:02\036w/Initializer/"
                                      "random_uniform:08\001")));
  EXPECT_EQ(GlobalVariables(g)->size(), 2u);
  EXPECT_EQ(TrainableVariables(g)->size(), 1u);
  EXPECT_EQ((*VariablesOf(g, "mine"))[0].ref, l.ref);
  EXPECT_EQ((*VariablesOf(g, kLocalVariables))[0].initializer, l.initializer);
  EXPECT_TRUE(VariablesOf(g, "nothing")->empty());

  (*g.mutable_collections())["bad"].mutable_bytes_list()->add_value("\xff");
  EXPECT_THAT(std::string(VariablesOf(g, "bad").status().message()), HasSubstr("'bad'"));
  proto::VariableDef gone;
  gone.set_variable_name("gone:0");
  ASSERT_TRUE(AddVariableToCollection(&g, "lost", gone).ok());
  EXPECT_THAT(std::string(VariablesOf(g, "lost").status().message()), HasSubstr("gone:0"));
  EXPECT_TRUE(absl::IsFailedPrecondition(AddNodeToCollection(&g, kGlobalVariables, "w")));
  // The user's own name their variables, as TensorFlow writes them; they may be tensors, too.
  EXPECT_THAT(*GetNodeCollection(g, "mine"), ElementsAre("l:0"));
  ASSERT_TRUE(AddNodeToCollection(&g, "nodes", "w").ok());
  ASSERT_TRUE(AddNodeToCollection(&g, "nodes", "w").ok());
  EXPECT_THAT(*GetNodeCollection(g, "nodes"), ElementsAre("w"));
  EXPECT_EQ((*VariablesOf(g, "nodes"))[0].initializer->name(), "w/Assign");
  ASSERT_TRUE(AddNodeToCollection(&g, "nodes", "w/read:0").ok());
  EXPECT_TRUE(absl::IsFailedPrecondition(VariablesOf(g, "nodes").status()));
}

}  // namespace
}  // namespace ferry
