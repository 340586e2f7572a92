// Resource variables: when a read is a copy and when it isn't, errors, sharing, gradients, training
// and checkpoints beside reference variables.
#include <stdlib.h>

#include <cstring>
#include <string>
#include <vector>

#include "absl/strings/match.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "saver/saver.h"
#include "tests/mlp.h"
#include "tools/dataset.h"

#ifndef FERRY_TEST_DEVICE
#define FERRY_TEST_DEVICE "cpu"
#endif

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
namespace testing = ::ferry::testing;

#define ASSERT_OK(expr)             \
  do {                              \
    const absl::Status s_ = (expr); \
    ASSERT_TRUE(s_.ok()) << s_;     \
  } while (false)

SessionOptions OnDevice() {
  SessionOptions options;
  options.device = FERRY_TEST_DEVICE;
  return options;
}

class ResourceVariableTest : public ::testing::Test {
 protected:
  VariableHandle Make(const std::string& name, const std::vector<float>& value) {
    VariableOptions options;
    options.use_resource = true;
    return MakeVariable(root, name, Tensor::Of<float>(value), options);
  }
  absl::Status Init() { return RunTarget(GlobalVariablesInitializer(root)); }
  absl::Status RunTarget(Node* n) {
    if (!root.ok()) return root.status();
    return session.Run(std::vector<std::pair<Output, Tensor>>(), {}, {n}, nullptr);
  }
  std::vector<float> Fetch(Output o, Node* target = nullptr) {
    EXPECT_TRUE(root.ok()) << root.status();
    std::vector<Tensor> out;
    std::vector<Node*> targets;
    if (target) targets.push_back(target);
    const absl::Status s = session.Run({}, {o}, targets, &out);
    EXPECT_TRUE(s.ok()) << s;
    if (!s.ok()) return {};
    return {out[0].span<float>().begin(), out[0].span<float>().end()};
  }

  Graph graph;
  Scope root{&graph};
  Session session{&graph, OnDevice()};
};

TEST_F(ResourceVariableTest, HasTensorFlowsNodes) {
  const VariableHandle v = Make("v", {1, 2});
  ASSERT_OK(root.status());
  EXPECT_TRUE(v.is_resource());
  EXPECT_EQ(v.dtype(), DType::kFloat);
  EXPECT_EQ(v.shape().DebugString(), "[2]");
  EXPECT_EQ(v.ref.name(), "v:0");
  EXPECT_EQ(v.read.name(), "v/Read/ReadVariableOp:0");
  EXPECT_EQ(v.read.shape().DebugString(), "[2]");
  EXPECT_EQ(v.initializer->name(), "v/Assign");
  EXPECT_NE(graph.FindNode("v/IsInitialized/VarIsInitializedOp"), nullptr);
  const proto::VariableDef def = ToProto(v);
  EXPECT_TRUE(def.is_resource());
  const absl::StatusOr<VariableHandle> again = FromProto(graph, def);
  ASSERT_OK(again.status());
  EXPECT_EQ(again->read, v.read);
}

// A value that was read stays what it was, whatever is written after it.
TEST_F(ResourceVariableTest, ReadsAreValues) {
  const VariableHandle v = Make("v", {1, 2});
  Node* const add = AssignAddTo(root, v, ops::Const(root, Tensor::Of<float>({10, 20})));
  const Scope after = root.WithControlDependencies({add});
  const Output old_and_new = ops::AddN(
      after, {ops::Identity(root, v.read), ReadValue(after.WithOpName("new"), v)});
  ASSERT_OK(Init());
  EXPECT_THAT(Fetch(old_and_new), ElementsAre(12, 24));   // 1 + 11, 2 + 22.
  EXPECT_THAT(Fetch(old_and_new), ElementsAre(32, 64));
  EXPECT_THAT(Fetch(v.read), ElementsAre(21, 42));
  // A fetched read, and an update of the same Run that nothing orders: reads come first.
  EXPECT_THAT(Fetch(v.read, add), ElementsAre(21, 42));
  EXPECT_THAT(Fetch(v.read), ElementsAre(31, 62));
  // Through nodes that pass the memory on.
  const Output seen = ops::Reshape(root, v.read, ops::ConstVector<int32_t>(root, {2, 1}));
  const Output sum = ops::AddN(after, {seen, seen});
  EXPECT_THAT(Fetch(sum), ElementsAre(62, 124));
}

TEST_F(ResourceVariableTest, AssignsAndUpdates) {
  const VariableHandle v = Make("v", {1, 2, 3});
  const Output is_set = IsInitialized(root, v);
  std::vector<Tensor> out;
  ASSERT_OK(session.Run({}, {is_set.name()}, {}, &out));
  EXPECT_FALSE(out[0].scalar<bool>());
  ASSERT_OK(Init());
  ASSERT_OK(session.Run({}, {is_set.name()}, {}, &out));
  EXPECT_TRUE(out[0].scalar<bool>());
  const auto vector = [&](std::vector<float> x) { return ops::Const(root, Tensor::Of<float>(x)); };
  ASSERT_OK(RunTarget(AssignAddTo(root, v, vector({1, 1, 1}))));
  ASSERT_OK(RunTarget(AssignSubTo(root, v, vector({0, 1, 2}))));
  EXPECT_THAT(Fetch(v.read), ElementsAre(2, 2, 2));
  const Output indices = ops::ConstVector<int32_t>(root, {2, 0, 2});
  for (const char* op : {"ResourceScatterAdd", "ResourceScatterUpdate", "ResourceScatterSub"}) {
    Node* const n =
        NodeBuilder(root, op).Input(v.ref).Input(indices).Input(vector({5, 6, 7})).Build();
    ASSERT_OK(RunTarget(n));
    const std::vector<float> now = Fetch(v.read);
    const std::vector<float> expected = absl::EndsWith(op, "Add") ? std::vector<float>{8, 2, 14}
                                        : absl::EndsWith(op, "Update")
                                            ? std::vector<float>{6, 2, 7}
                                            : std::vector<float>{0, 2, -5};
    EXPECT_EQ(now, expected) << op;
  }
  const Output gathered = NodeBuilder(root, "ResourceGather")
                              .Input(v.ref)
                              .Input(ops::ConstVector<int64_t>(root, {2, 2, 1}))
                              .Attr("dtype", DType::kFloat)
                              .BuildOutput();
  EXPECT_THAT(Fetch(gathered), ElementsAre(-5, -5, 2));
  const Output shape = NodeBuilder(root, "VariableShape").Input(v.ref).BuildOutput();
  ASSERT_OK(session.Run({}, {shape.name()}, {}, &out));
  EXPECT_THAT(out[0].span<int32_t>(), ElementsAre(3));
  ASSERT_OK(RunTarget(NodeBuilder(root, "DestroyResourceOp").Input(v.ref).Build()));
  EXPECT_THAT(std::string(session.Run({}, {v.read.name()}, {}, &out).message()),
              HasSubstr("Attempting to use uninitialized value v"));
}

TEST_F(ResourceVariableTest, ErrorsNameTheVariable) {
  const VariableHandle v = Make("v", {1, 2});
  std::vector<Tensor> out;
  absl::Status s = session.Run({}, {v.read.name()}, {}, &out);
  EXPECT_TRUE(absl::IsFailedPrecondition(s)) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("Attempting to use uninitialized value v"));
  s = session.Run({}, {"v:0"}, {}, &out);
  EXPECT_TRUE(absl::IsInvalidArgument(s)) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("v:0 is the handle of a resource"));
  ASSERT_OK(Init());
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat);
  Node* const assign = AssignTo(root, v, x);
  ASSERT_OK(root.status());
  s = session.Run({{"x", Tensor::Of<float>({1, 2, 3})}}, {}, {assign->name()}, nullptr);
  EXPECT_THAT(std::string(s.message()),
              HasSubstr("lhs shape= [2] rhs shape= [3] (variable 'v')"));
  EXPECT_THAT(Fetch(v.read), ElementsAre(1, 2));
  const Output as_int = ops::ReadVariableOp(root, v.ref, DType::kInt32);
  s = session.Run({}, {as_int.name()}, {}, &out);
  EXPECT_THAT(std::string(s.message()), HasSubstr("Trying to read variable with wrong dtype"));
  const Scope apart(&graph);
  ops::AssignVariableOp(apart, v.ref, ops::Const(apart, Tensor::Of<float>({1, 2, 3})));
  EXPECT_TRUE(absl::IsInvalidArgument(apart.status())) << apart.status();
}

TEST_F(ResourceVariableTest, SharesByName) {
  const Output a = ops::VarHandleOp(root.WithOpName("a"), {2}, DType::kFloat, "both");
  const Output b = ops::VarHandleOp(root.WithOpName("b"), {2}, DType::kFloat, "both");
  ASSERT_OK(RunTarget(
      ops::AssignVariableOp(root, a, ops::Const(root, Tensor::Of<float>({3, 4})))));
  const Output read = ops::ReadVariableOp(root, b, DType::kFloat);
  EXPECT_THAT(Fetch(read), ElementsAre(3, 4));
  // An update through the one is seen by a read through the other, not by an earlier one.
  Node* const add =
      ops::AssignAddVariableOp(root, a, ops::Const(root, Tensor::Of<float>({1, 1})));
  const Output twice = ops::AddN(root.WithControlDependencies({add}), {read, read});
  EXPECT_THAT(Fetch(twice), ElementsAre(6, 8));
  EXPECT_THAT(Fetch(read), ElementsAre(4, 5));
}

TEST_F(ResourceVariableTest, GradientsGoToTheHandle) {
  const VariableHandle v = Make("v", {1, 2, 3});
  const Output rows = NodeBuilder(root, "ResourceGather")
                          .Input(v.ref)
                          .Input(ops::ConstVector<int32_t>(root, {0, 2, 2}))
                          .Attr("dtype", DType::kFloat)
                          .BuildOutput();
  const Output loss = ops::AddN(
      root, {ops::ReduceSum(root, ops::Square(root, v.read)), ops::ReduceSum(root, rows)});
  std::vector<Output> grads;
  ASSERT_OK(AddSymbolicGradients(root, {loss}, {v.ref}, &grads));
  ASSERT_OK(Init());
  EXPECT_THAT(Fetch(grads[0]), ElementsAre(3, 4, 8));
}

class Training : public ::testing::TestWithParam<std::string> {};
INSTANTIATE_TEST_SUITE_P(Optimizers, Training, ::testing::Values("adam", "momentum", "sgd"));

// The same numbers, bit for bit, and checkpoints that move between the kinds.
TEST_P(Training, IsAsWithReferences) {
  const auto data = BuiltInDigits();
  ASSERT_OK(data.status());
  const auto o1 = testing::MakeMlpOptimizer(GetParam()), o2 = testing::MakeMlpOptimizer(GetParam());
  testing::Mlp ref(o1.get()), resource(o2.get(), /*use_resource=*/true);
  ASSERT_OK(ref.s.status());
  ASSERT_OK(resource.s.status());
  Session a(&ref.graph, OnDevice()), b(&resource.graph, OnDevice());
  auto saver_a = Saver::Create(&ref.graph), saver_b = Saver::Create(&resource.graph);
  ASSERT_OK(saver_a.status());
  ASSERT_OK(saver_b.status());
  std::string dir = ::testing::TempDir() + "resource.XXXXXX";
  ASSERT_NE(mkdtemp(&dir[0]), nullptr);
  // The operations' seeds differ with the graphs' sizes, so they start from one checkpoint.
  ASSERT_OK(a.Run({}, {}, {ref.init->name()}, nullptr));
  ASSERT_OK((*saver_a)->Save(&a, dir + "/first").status());
  ASSERT_OK((*saver_b)->Restore(&b, dir + "/first"));
  for (int step = 0; step < 20; ++step) {
    const testing::MlpFeeds feeds = testing::MlpBatch(data->train, step);
    std::vector<Tensor> x, y;
    ASSERT_OK(a.Run(feeds, {"loss"}, {ref.train_op->name()}, &x));
    ASSERT_OK(b.Run(feeds, {"loss"}, {resource.train_op->name()}, &y));
    ASSERT_EQ(x[0].scalar<float>(), y[0].scalar<float>()) << step;
  }
  const auto path_a = (*saver_a)->Save(&a, dir + "/a"), path_b = (*saver_b)->Save(&b, dir + "/b");
  ASSERT_OK(path_a.status());
  ASSERT_OK(path_b.status());
  for (const char* file : {".index", ".data-00000-of-00001"}) {
    EXPECT_EQ(*ReadFile(FileSystem::Posix(), *path_a + file),
              *ReadFile(FileSystem::Posix(), *path_b + file))
        << file;
  }
  // Through the graph's own nodes, too.
  const auto meta = ReadMetaGraph(FileSystem::Posix(), *path_b + ".meta");
  ASSERT_OK(meta.status());
  Graph imported;
  const auto nodes = ImportMetaGraph(*meta, {}, &imported);
  ASSERT_OK(nodes.status());
  Session c(&imported, OnDevice());
  ASSERT_OK(c.Run({{nodes->saver_def.filename_tensor_name(),
                    Tensor::Scalar<std::string>(dir + "/first")}},
                  {}, {nodes->saver_def.restore_op_name()}, nullptr));
  std::vector<Tensor> x, y;
  ASSERT_OK((*saver_a)->Restore(&a, dir + "/first"));
  const testing::MlpFeeds feeds = testing::MlpBatch(data->train, 0);
  ASSERT_OK(a.Run(feeds, {"loss"}, {}, &x));
  ASSERT_OK(c.Run(feeds, {"loss"}, {}, &y));
  EXPECT_EQ(x[0].scalar<float>(), y[0].scalar<float>());
}

TEST(ResourceCheckpoint, ShapesAndTypesMustFit) {
  std::string dir = ::testing::TempDir() + "resource_shape.XXXXXX";
  ASSERT_NE(mkdtemp(&dir[0]), nullptr);
  VariableOptions options;
  options.use_resource = true;
  Graph two, three;
  const Scope s2(&two), s3(&three);
  MakeVariable(s2, "v", Tensor::Of<float>({1, 2}), options);
  MakeVariable(s3, "v", Tensor::Of<float>({1, 2, 3}), options);
  Session a(&two, OnDevice()), b(&three, OnDevice());
  ASSERT_OK(a.Run({}, {}, {GlobalVariablesInitializer(s2)->name()}, nullptr));
  ASSERT_OK(b.Run({}, {}, {GlobalVariablesInitializer(s3)->name()}, nullptr));
  auto save = Saver::Create(&two), restore = Saver::Create(&three);
  ASSERT_OK(save.status());
  ASSERT_OK(restore.status());
  ASSERT_OK((*save)->Save(&a, dir + "/m").status());
  const absl::Status direct = (*restore)->Restore(&b, dir + "/m");
  EXPECT_THAT(std::string(direct.message()),
              HasSubstr("Assign requires shapes of both tensors to match. lhs shape= [3] rhs "
                        "shape= [2]"));
  const auto def = (*restore)->as_saver_def();
  ASSERT_OK(def.status());
  const absl::Status nodes =
      b.Run({{def->filename_tensor_name(), Tensor::Scalar<std::string>(dir + "/m")}}, {},
            {def->restore_op_name()}, nullptr);
  EXPECT_THAT(std::string(nodes.message()), HasSubstr("lhs shape= [3] rhs shape= [2]"));
  std::vector<Tensor> out;
  ASSERT_OK(b.Run({}, {"v/Read/ReadVariableOp"}, {}, &out));
  EXPECT_THAT(out[0].span<float>(), ElementsAre(1, 2, 3));
}

}  // namespace
}  // namespace ferry
