// Partitioned variables: names, slices in checkpoints, restored whole, split otherwise or cut
// across; and variables that start from a checkpoint.
#include "runtime/graph/partitioned_variable.h"

#include <stdlib.h>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "runtime/session/session.h"
#include "saver/checkpoint_reader.h"
#include "saver/init_from_checkpoint.h"
#include "saver/saver.h"

namespace ferry {
namespace {

using ::testing::Each;
using ::testing::ElementsAre;
using ::testing::HasSubstr;

#define ASSERT_OK(expr)             \
  do {                              \
    const absl::Status s_ = (expr); \
    ASSERT_TRUE(s_.ok()) << s_;     \
  } while (false)

// 0, 1, 2, … in a variable of the shape.
Initializer Counting() {
  return [](const Scope& s, const TensorShape& shape, DType) {
    std::vector<float> values(static_cast<size_t>(shape.num_elements()));
    for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i);
    return ops::Const(s, Tensor::Of<float>(values, shape));
  };
}

struct Model {
  // "s/w" [5,3] in as many parts along each axis; one part: a plain variable.
  explicit Model(std::vector<int> partitions, Initializer initializer = Counting()) : root(&graph) {
    const Scope s = root.NewSubScope("s");
    VariableOptions options;
    options.initializer = std::move(initializer);
    if (partitions.empty()) {
      whole = GetVariable(s, "w", {5, 3}, DType::kFloat, options).read;
    } else {
      w = GetPartitionedVariable(s, "w", {5, 3}, DType::kFloat, partitions, options);
      whole = w.AsTensor(root);
    }
  }
  absl::Status Init() {
    Node* init = GlobalVariablesInitializer(root);
    FERRY_RETURN_IF_ERROR(root.status());
    return session()->Run({}, {}, {init->name()}, nullptr);
  }
  Session* session() {
    if (!session_) session_ = std::make_unique<Session>(&graph);
    return session_.get();
  }
  std::vector<float> Value() {
    std::vector<Tensor> out;
    const absl::Status status = session()->Run({}, {whole.name()}, {}, &out);
    EXPECT_TRUE(status.ok()) << status;
    if (!status.ok()) return {};
    return std::vector<float>(out[0].span<float>().begin(), out[0].span<float>().end());
  }
  std::unique_ptr<Saver> MakeSaver() {
    auto saver = Saver::Create(&graph);
    EXPECT_TRUE(saver.ok()) << saver.status();
    return saver.ok() ? *std::move(saver) : nullptr;
  }

  Graph graph;
  Scope root;
  PartitionedVariable w;
  Output whole;
  std::unique_ptr<Session> session_;
};

class PartitionedVariableTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/partitioned-XXXXXX";
    dir_ = mkdtemp(pattern.data());
  }
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }
  FileSystem* const fs_ = FileSystem::Posix();
  std::string dir_;
};

TEST_F(PartitionedVariableTest, PartsAreNamedAndListedAsTensorFlowDoes) {
  Model m({2, 1});
  ASSERT_OK(m.root.status());
  ASSERT_EQ(m.w.parts.size(), 2u);
  EXPECT_EQ(m.w.name, "s/w");
  EXPECT_EQ(m.w.parts[0].name(), "s/w/part_0");
  EXPECT_EQ(m.w.parts[0].shape().DebugString(), "[3,3]");
  EXPECT_EQ(m.w.parts[1].shape().DebugString(), "[2,3]");
  EXPECT_EQ(m.whole.name(), "s/w:0");
  EXPECT_EQ(m.whole.node->input(0).name(), "s/w/ConcatPartitions/concat:0");
  EXPECT_NE(m.graph.FindNode("s/w/ConcatPartitions/concat/axis"), nullptr);
  EXPECT_EQ(m.whole.shape().DebugString(), "[5,3]");
  auto defs = GetVariableCollection(m.graph, kTrainableVariables);
  ASSERT_OK(defs.status());
  ASSERT_EQ(defs->size(), 2u);
  const proto::SaveSliceInfoDef& slice = (*defs)[1].save_slice_info_def();
  EXPECT_EQ(slice.full_name(), "s/w");
  EXPECT_THAT(slice.full_shape(), ElementsAre(5, 3));
  EXPECT_THAT(slice.var_offset(), ElementsAre(3, 0));
  EXPECT_THAT(slice.var_shape(), ElementsAre(2, 3));
  // Those in the collections are as those that were made; so are they when asked for again.
  auto listed = GlobalVariables(m.graph);
  ASSERT_OK(listed.status());
  EXPECT_EQ((*listed)[1].slice->SerializeAsString(), slice.SerializeAsString());
  VariableOptions reuse;
  reuse.reuse = Reuse::kYes;
  const PartitionedVariable again =
      GetPartitionedVariable(m.root.WithPrefix("s"), "w", {5, 3}, DType::kFloat, {2, 1}, reuse);
  ASSERT_OK(m.root.status());
  EXPECT_EQ(again.parts[1].ref, m.w.parts[1].ref);
  EXPECT_EQ(again.parts[1].slice->SerializeAsString(), slice.SerializeAsString());
}

TEST_F(PartitionedVariableTest, PartitionsHaveToFit) {
  EXPECT_THAT(FixedSizePartitions({5, 3}, 8, 1), ElementsAre(1, 3));
  EXPECT_THAT(FixedSizePartitions({5, 3}, 2), ElementsAre(2, 1));
  EXPECT_THAT(FixedSizePartitions({}, 2), ElementsAre());
  for (const auto& [partitions, words] : std::vector<std::pair<std::vector<int>, std::string>>{
           {{2, 2}, "Can only slice a variable along one dimension"},
           {{2}, "1 numbers of partitions"},
           {{6, 1}, "6 partitions along axis 0"},
           {{0, 1}, "0 partitions"}}) {
    Graph graph;
    Scope root(&graph);
    EXPECT_TRUE(GetPartitionedVariable(root, "w", {5, 3}, DType::kFloat, partitions).parts.empty());
    EXPECT_THAT(std::string(root.status().message()), HasSubstr(words));
    EXPECT_EQ(graph.num_nodes(), 0);
  }
  Graph graph;
  Scope root(&graph);
  GetVariable(root, "w", {5, 3}, DType::kFloat);
  GetPartitionedVariable(root, "w", {5, 3}, DType::kFloat, {2, 1});
  EXPECT_THAT(std::string(root.status().message()), HasSubstr("an unpartitioned version"));
}

// Whatever the split was that was saved, any other is restored from it.
TEST_F(PartitionedVariableTest, RestoresWholeOrSplitOtherwise) {
  const std::vector<std::vector<int>> ways = {{}, {1, 1}, {2, 1}, {5, 1}, {1, 3}, {1, 2}, {3, 1}};
  std::vector<float> values(15);
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<float>(i) * 1.5f;
  for (size_t from = 0; from < ways.size(); ++from) {
    Model saved(ways[from]);
    ASSERT_OK(saved.Init());
    // The value of the whole, into each part: through a checkpoint of the whole.
    if (from == 0) {
      const Scope root(&saved.graph);
      const Output ref(saved.graph.FindNode("s/w"), 0);
      ops::Assign(root.WithOpName("set"), ref, ops::Const(root, Tensor::Of<float>(values, {5, 3})));
      ASSERT_OK(saved.session()->Run({}, {}, {"set"}, nullptr));
    } else {
      ASSERT_OK(saved.MakeSaver()->Restore(saved.session(), Path("0")));
    }
    EXPECT_EQ(saved.Value(), values) << from;
    ASSERT_OK(saved.MakeSaver()->Save(saved.session(), Path(std::to_string(from))).status());
    auto reader = CheckpointReader::Open(fs_, Path(std::to_string(from)));
    ASSERT_OK(reader.status());
    EXPECT_EQ((*reader)->DebugString(), "s/w (DT_FLOAT) [5,3]\n");
    EXPECT_TRUE(VerifyCheckpoint(fs_, Path(std::to_string(from))).damage.empty());
  }
  for (size_t from = 0; from < ways.size(); ++from) {
    for (size_t to = 0; to < ways.size(); ++to) {
      Model restored(ways[to]);
      ASSERT_OK(restored.MakeSaver()->Restore(restored.session(), Path(std::to_string(from))));
      EXPECT_EQ(restored.Value(), values) << from << " to " << to;
      // The graph's own nodes do the same.
      Model by_nodes(ways[to]);
      auto def = by_nodes.MakeSaver()->as_saver_def();
      ASSERT_OK(def.status());
      ASSERT_OK(by_nodes.session()->Run(
          {{def->filename_tensor_name(), Tensor::Scalar(Path(std::to_string(from)))}}, {},
          {def->restore_op_name()}, nullptr));
      EXPECT_EQ(by_nodes.Value(), values) << from << " to " << to;
    }
  }
}

TEST_F(PartitionedVariableTest, AMapGivesAllPartsOneName) {
  Model m({2, 1});
  ASSERT_OK(m.Init());
  SaverOptions options;
  for (const VariableHandle& part : m.w.parts) options.var_map.push_back({"other", part});
  auto saver = Saver::Create(&m.graph, options);
  ASSERT_OK(saver.status());
  ASSERT_OK((*saver)->Save(m.session(), Path("m")).status());
  EXPECT_EQ((*CheckpointReader::Open(fs_, Path("m")))->DebugString(), "other (DT_FLOAT) [5,3]\n");
  options.var_map.clear();
  options.var_list = m.w.parts;
  ASSERT_OK((*Saver::Create(&m.graph, options))->Save(m.session(), Path("list")).status());
  EXPECT_EQ((*CheckpointReader::Open(fs_, Path("list")))->DebugString(), "s/w (DT_FLOAT) [5,3]\n");
  // Of another full shape it can't be restored.
  Graph graph;
  Scope root(&graph);
  GetPartitionedVariable(root.NewSubScope("s"), "w", {6, 3}, DType::kFloat, {2, 1});
  Session session(&graph);
  EXPECT_THAT(std::string((*Saver::Create(&graph))->Restore(&session, Path("list")).message()),
              HasSubstr("does not match the shape stored in checkpoint"));
}

// The slots of an optimizer are split as their variable is, and are one in the checkpoint.
TEST_F(PartitionedVariableTest, SlotsArePartsToo) {
  Model m({2, 1});
  AdamOptimizer adam(0.1f);
  const Output loss =
      ops::Sum(m.root.WithOpName("loss"), m.whole, ops::ConstVector<int32_t>(m.root, {0, 1}));
  adam.Minimize(m.root, loss);
  ASSERT_OK(m.Init());
  ASSERT_OK(m.MakeSaver()->Save(m.session(), Path("m")).status());
  EXPECT_EQ((*CheckpointReader::Open(fs_, Path("m")))->DebugString(),
            "beta1_power (DT_FLOAT) []\nbeta2_power (DT_FLOAT) []\ns/w (DT_FLOAT) [5,3]\n"
            "s/w/Adam (DT_FLOAT) [5,3]\ns/w/Adam_1 (DT_FLOAT) [5,3]\n");
}

TEST_F(PartitionedVariableTest, TheDefaultInitializerSuitsTheWhole) {
  Model m({5, 1}, nullptr);
  ASSERT_OK(m.Init());
  const float limit = static_cast<float>(GlorotUniformLimit({5, 3}));
  const std::vector<float> values = m.Value();
  EXPECT_THAT(values, Each(::testing::AllOf(::testing::Ge(-limit), ::testing::Le(limit))));
}

// ---- InitFromCheckpoint ----

TEST_F(PartitionedVariableTest, VariablesStartFromACheckpoint) {
  {
    Graph graph;
    Scope root(&graph);
    const Scope old = root.NewSubScope("old");
    for (const char* name : {"a", "b"}) {
      VariableOptions options;
      options.initializer = ConstantInitializer(name[0]);
      GetVariable(old.NewSubScope(name), "w", {2}, DType::kFloat, options);
    }
    VariableOptions options;
    options.initializer = Counting();
    GetPartitionedVariable(root, "split", {4, 2}, DType::kFloat, {2, 1}, options);
    MakeVariable(root, "n", Tensor::Scalar<int64_t>(9));
    Node* init = GlobalVariablesInitializer(root);
    Session session(&graph);
    ASSERT_OK(session.Run({}, {}, {init->name()}, nullptr));
    ASSERT_OK((*Saver::Create(&graph))->Save(&session, Path("m")).status());
  }
  Graph graph;
  Scope root(&graph);
  const Scope fresh = root.NewSubScope("fresh");
  GetVariable(fresh.NewSubScope("a"), "w", {2}, DType::kFloat);
  GetVariable(fresh.NewSubScope("b"), "w", {2}, DType::kFloat);
  VariableOptions ones;
  ones.initializer = OnesInitializer();
  GetVariable(root, "kept", {2}, DType::kFloat, ones);
  const VariableHandle n = MakeVariable(root, "count", Tensor::Scalar<int64_t>(0));
  const PartitionedVariable split =
      GetPartitionedVariable(root, "parts", {4, 2}, DType::kFloat, {1, 2});
  const Output parts = split.AsTensor(root.WithPrefix(""));
  Node* init = GlobalVariablesInitializer(root);  // One that is there already does it, too.
  ASSERT_OK(root.status());

  // The directory's latest; nothing changes when anything is wrong.
  const auto message = [&](const AssignmentMap& map) {
    const int nodes = graph.num_nodes();
    const absl::Status status = InitFromCheckpoint(fs_, dir_, map, &graph);
    EXPECT_FALSE(status.ok());
    EXPECT_EQ(graph.num_nodes(), nodes);
    return std::string(status.message());
  };
  EXPECT_THAT(message({{"old/", "fresh/"}, {"nothing", "kept"}}),
              HasSubstr("Key nothing not found in checkpoint"));
  EXPECT_THAT(message({{"old/a/w", "none"}}), HasSubstr("variable 'none'"));
  EXPECT_THAT(message({{"old/", "none/"}}), HasSubstr("scope 'none/'"));
  EXPECT_THAT(message({{"old", "fresh/"}}), HasSubstr("Should be 'scope/': 'other_scope/'"));
  EXPECT_THAT(message({{"split", "kept"}}),
              HasSubstr("Shape of variable kept ([2]) doesn't match with shape of tensor split"));
  EXPECT_THAT(message({{"n", n}, {"/", "fresh/"}}), HasSubstr("Key a/w not found"));
  EXPECT_THAT(message({{"old/a/w", n}}), HasSubstr("Shape of variable count"));

  ASSERT_OK(
      InitFromCheckpoint(fs_, dir_, {{"old/", "fresh/"}, {"n", n}, {"split", "parts"}}, &graph));
  auto def = GetVariableCollection(graph, kGlobalVariables);
  EXPECT_EQ((*def)[0].initial_value_name(), "checkpoint_initializer:0");
  Session session(&graph);
  ASSERT_OK(session.Run({}, {}, {init->name()}, nullptr));
  std::vector<Tensor> out;
  ASSERT_OK(session.Run({}, {"fresh/a/w", "fresh/b/w", "kept", "count", parts.name()}, {}, &out));
  EXPECT_THAT(out[0].span<float>(), Each('a'));
  EXPECT_THAT(out[1].span<float>(), Each('b'));
  EXPECT_THAT(out[2].span<float>(), Each(1));
  EXPECT_EQ(out[3].scalar<int64_t>(), 9);
  EXPECT_THAT(out[4].span<float>(), ElementsAre(0, 1, 2, 3, 0, 1, 2, 3));
  // From the root to the root.
  Graph same;
  Scope all(&same);
  GetVariable(all.NewSubScope("old").NewSubScope("a"), "w", {2}, DType::kFloat);
  ASSERT_OK(InitFromCheckpoint(fs_, Path("m"), {{"/", "/"}}, &same));
  Node* start = GlobalVariablesInitializer(all);
  Session other(&same);
  ASSERT_OK(other.Run({}, {}, {start->name()}, nullptr));
  ASSERT_OK(other.Run({}, {"old/a/w"}, {}, &out));
  EXPECT_THAT(out[0].span<float>(), Each('a'));
}

// ---- Collections and what isn't initialised ----

TEST_F(PartitionedVariableTest, CollectionsOfAllKinds) {
  Graph graph;
  Scope root(&graph);
  const auto make = [&](const char* name, const char* collection, bool trainable) {
    VariableOptions options;
    options.collections = {collection};
    options.trainable = trainable;
    options.initializer = OnesInitializer();
    return GetVariable(root, name, {}, DType::kFloat, options);
  };
  make("g", kGlobalVariables, true);
  make("l", kLocalVariables, true);
  make("m", kModelVariables, false);
  make("e", kMovingAverageVariables, false);
  make("own", "my_own", false);
  ASSERT_OK(root.status());
  const auto names = [&](const char* collection) {
    std::vector<std::string> all;
    const auto variables = VariablesOf(graph, collection);
    EXPECT_TRUE(variables.ok()) << variables.status();
    for (const VariableHandle& v : *variables) all.push_back(v.name());
    return all;
  };
  EXPECT_THAT(names(kGlobalVariables), ElementsAre("g"));
  EXPECT_THAT(names(kLocalVariables), ElementsAre("l"));
  EXPECT_THAT(names(kModelVariables), ElementsAre("m"));
  EXPECT_THAT(names(kMovingAverageVariables), ElementsAre("e"));
  EXPECT_THAT(names("my_own"), ElementsAre("own"));
  EXPECT_THAT(names(kTrainableVariables), ElementsAre("g", "l"));

  const Output report = ReportUninitializedVariables(root);
  Node* global = GlobalVariablesInitializer(root.WithOpName("init_global"));
  Node* local = LocalVariablesInitializer(root.WithOpName("init_local"));
  Node* list = VariablesInitializer(root, *VariablesOf(graph, "my_own"));
  const Output one = ReportUninitializedVariables(root, *VariablesOf(graph, "my_own"));
  const Output none = ReportUninitializedVariables(root, {});
  ASSERT_OK(root.status());
  Session session(&graph);
  std::vector<Tensor> out;
  const auto missing = [&](const Output& of) {
    const absl::Status status = session.Run({}, {of.name()}, {}, &out);
    EXPECT_TRUE(status.ok()) << status;
    return std::vector<std::string>(out[0].span<std::string>().begin(),
                                    out[0].span<std::string>().end());
  };
  EXPECT_THAT(missing(report), ElementsAre("g", "l"));
  EXPECT_THAT(missing(none), ElementsAre());
  ASSERT_OK(session.Run({}, {}, {local->name()}, nullptr));
  EXPECT_THAT(missing(report), ElementsAre("g"));
  ASSERT_OK(session.Run({}, {}, {global->name()}, nullptr));
  EXPECT_THAT(missing(report), ElementsAre());
  EXPECT_THAT(missing(one), ElementsAre("own"));
  ASSERT_OK(session.Run({}, {}, {list->name()}, nullptr));
  EXPECT_THAT(missing(one), ElementsAre());
}

}  // namespace
}  // namespace ferry
