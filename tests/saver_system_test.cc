// The Saver system as its users string it together: imported graphs that are extended and trained
// further, scopes that are copied between graphs, names and maps, checkpoints of objects.
#include <stdlib.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/status.h"
#include "runtime/graph/collections.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "saver/bundle_writer.h"
#include "saver/checkpoint_reader.h"
#include "saver/checkpoint_state.h"
#include "saver/init_from_checkpoint.h"
#include "saver/saver.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::UnorderedElementsAre;

#define ASSERT_OK(expr)             \
  do {                              \
    const absl::Status s_ = (expr); \
    ASSERT_TRUE(s_.ok()) << s_;     \
  } while (false)

class SaverSystemTest : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string pattern = ::testing::TempDir() + "/system-XXXXXX";
    dir_ = mkdtemp(pattern.data());
  }
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }
  static Tensor Fetch(Session* session, const std::string& name) {
    std::vector<Tensor> out;
    const absl::Status status = session->Run({}, {name}, {}, &out);
    EXPECT_TRUE(status.ok()) << status;
    return status.ok() ? out[0] : Tensor();
  }
  // A float variable of that name and value, saved under `path` with its meta graph.
  void SaveOne(const std::string& path, const std::string& name, const std::vector<float>& value) {
    Graph graph;
    Scope root(&graph);
    const VariableHandle v = MakeVariable(root, name, Tensor::Of<float>(value));
    ASSERT_OK(AddNodeToCollection(&graph, "mine", v.ref.node->name()));
    Node* init = GlobalVariablesInitializer(root);
    Session session(&graph);
    ASSERT_OK(session.Run({}, {}, {init->name()}, nullptr));
    auto saver = Saver::Create(&graph);
    ASSERT_OK(saver.status());
    ASSERT_OK((*saver)->Save(&session, path).status());
  }
  FileSystem* const fs_ = FileSystem::Posix();
  std::string dir_;
};

// A trunk that was trained elsewhere gets a new last layer; only that one is trained. Then all of
// it is saved, imported, and trained on.
TEST_F(SaverSystemTest, AnImportedGraphIsExtendedAndFineTuned) {
  {
    Graph graph;
    Scope root(&graph);
    const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1, 3});
    VariableOptions options;
    options.initializer = RandomNormalInitializer(0, 1, 5);
    const Scope fc = root.NewSubScope("fc7");
    const VariableHandle w = GetVariable(fc, "w", {3, 8}, DType::kFloat, options);
    const Output h = ops::Tanh(fc.WithOpName("out"), ops::MatMul(fc, x, w.read));
    const VariableHandle old = GetVariable(root, "old_head", {8, 1}, DType::kFloat, options);
    ops::MatMul(root.WithOpName("old_logits"), h, old.read);
    Node* init = GlobalVariablesInitializer(root);
    Session session(&graph);
    ASSERT_OK(session.Run({}, {}, {init->name()}, nullptr));
    auto saver = Saver::Create(&graph);
    ASSERT_OK((*saver)->Save(&session, Path("trunk")).status());
  }
  Graph graph;
  auto trunk = ImportMetaGraphFile(fs_, Path("trunk.meta"), {}, &graph);
  ASSERT_OK(trunk.status());
  Scope root(&graph);
  const Output h = ops::StopGradient(root, *graph.FindOutput("fc7/out:0"));
  VariableOptions options;
  options.initializer = TruncatedNormalInitializer(0, 0.1, 7);
  const VariableHandle w = GetVariable(root, "new_head", {8, 2}, DType::kFloat, options);
  const VariableHandle b = MakeVariable(root, "new_bias", Tensor::Of<float>({0, 0}));
  const Output logits = ops::BiasAdd(root, ops::MatMul(root, h, w.read), b.read);
  const Output labels = ops::Placeholder(root.WithOpName("labels"), DType::kInt64, {-1});
  const Output loss = ops::Mean(root.WithOpName("loss"),
                                ops::SparseSoftmaxCrossEntropyWithLogits(root, logits, labels).loss,
                                ops::ConstVector<int32_t>(root, {0}));
  GradientDescentOptimizer optimizer(0.5);
  MinimizeOptions minimize;
  minimize.var_list = {w, b};
  Node* train = optimizer.Minimize(root, loss, minimize);
  Node* init = VariablesInitializer(root.WithOpName("init_new"), {w, b});
  ASSERT_OK(root.status());

  Session session(&graph);
  ASSERT_OK((*trunk)->Restore(&session, Path("trunk")));
  ASSERT_OK(session.Run({}, {}, {init->name()}, nullptr));
  const Tensor before = Fetch(&session, "fc7/w");
  std::vector<float> x;
  std::vector<int64_t> y;
  for (int i = 0; i < 40; ++i) {
    for (int k = 0; k < 3; ++k) x.push_back(std::sin(static_cast<float>(i * 3 + k)));
    y.push_back(x[x.size() - 3] > 0 ? 1 : 0);
  }
  const std::vector<std::pair<std::string, Tensor>> feeds = {{"x", Tensor::Of<float>(x, {40, 3})},
                                                             {"labels", Tensor::Of<int64_t>(y)}};
  std::vector<Tensor> out;
  ASSERT_OK(session.Run(feeds, {"loss"}, {}, &out));
  const float first = out[0].scalar<float>();
  for (int i = 0; i < 60; ++i) ASSERT_OK(session.Run(feeds, {"loss"}, {train->name()}, &out));
  EXPECT_LT(out[0].scalar<float>(), first / 2);
  const Tensor after = Fetch(&session, "fc7/w");
  EXPECT_EQ(std::memcmp(before.raw(), after.raw(), before.bytes()), 0) << "the trunk stays";

  // The whole, again.
  auto all = Saver::Create(&graph);
  ASSERT_OK(all.status());
  EXPECT_EQ((*all)->items().size(), 4u);
  ASSERT_OK((*all)->Save(&session, Path("tuned")).status());
  Graph third;
  auto tuned = ImportMetaGraphFile(fs_, Path("tuned.meta"), {}, &third);
  ASSERT_OK(tuned.status());
  Session again(&third);
  ASSERT_OK((*tuned)->Restore(&again, Path("tuned")));
  std::vector<Tensor> here, there;
  ASSERT_OK(session.Run(feeds, {"loss"}, {}, &here));
  ASSERT_OK(again.Run(feeds, {"loss"}, {}, &there));
  EXPECT_EQ(here[0].scalar<float>(), there[0].scalar<float>());
  ASSERT_OK(again.Run(feeds, {}, {train->name()}, nullptr));
}

// Nodes get new names then, while collections and the SaverDef go on naming the first ones.
TEST_F(SaverSystemTest, ImportingNamesThatExist) {
  SaveOne(Path("m"), "w1", {1, 2});
  Graph graph;
  auto first = ImportMetaGraphFile(fs_, Path("m.meta"), {}, &graph);
  ASSERT_OK(first.status());
  auto second = ImportMetaGraphFile(fs_, Path("m.meta"), {}, &graph);
  ASSERT_OK(second.status());
  EXPECT_NE(graph.FindNode("w1_1"), nullptr);
  EXPECT_EQ((*second)->items()[0].variable.name(), "w1:0");
  EXPECT_EQ(Saver::Create(&graph).status().message(),
            "At least two variables have the same name: w1");
  // Collections have what they name twice, too.
  EXPECT_THAT(*GetNodeCollection(graph, "mine"), ElementsAre("w1", "w1"));
  // In a scope of its own it is a variable of its own.
  ImportMetaOptions options;
  options.import_scope = "imported";
  auto scoped = ImportMetaGraphFile(fs_, Path("m.meta"), options, &graph);
  ASSERT_OK(scoped.status());
  EXPECT_EQ((*scoped)->items()[0].variable.name(), "imported/w1:0");
  EXPECT_EQ((*scoped)->items()[0].key, "w1");
  Session session(&graph);
  ASSERT_OK((*scoped)->Restore(&session, Path("m")));
  EXPECT_EQ(Fetch(&session, "imported/w1").DebugString(), "float32 [2] 1 2");
}

// A meta graph without a SaverDef: a Saver comes of it where there are variables in its scope.
TEST_F(SaverSystemTest, ImportingAGraphWithoutVariables) {
  {
    Graph graph;
    ops::Const(Scope(&graph).WithOpName("x"), 1.0f);
    Session session(&graph);
    SaverOptions options;
    options.allow_empty = true;
    ASSERT_OK((*Saver::Create(&graph, options))->Save(&session, Path("none")).status());
  }
  Graph graph;
  ImportMetaOptions options;
  for (const bool other_variables : {false, true}) {
    if (other_variables) MakeVariable(Scope(&graph), "my_scope/v", Tensor::Scalar(1.0f));
    options.import_scope = "sub";
    auto saver = ImportMetaGraphFile(fs_, Path("none.meta"), options, &graph);
    ASSERT_OK(saver.status());
    EXPECT_EQ(*saver, nullptr) << other_variables;
  }
  options.import_scope = "my_scope";
  auto saver = ImportMetaGraphFile(fs_, Path("none.meta"), options, &graph);
  ASSERT_OK(saver.status());
  ASSERT_NE(*saver, nullptr);
  EXPECT_EQ((*saver)->items()[0].key, "my_scope/v");
}

// In an imported graph, too, Savers share nodes, and others get nodes of their own.
TEST_F(SaverSystemTest, SaversOfAnImportedGraphShareItsNodes) {
  SaveOne(Path("m"), "w1", {1, 2});
  Graph graph;
  auto saver = ImportMetaGraphFile(fs_, Path("m.meta"), {}, &graph);
  ASSERT_OK(saver.status());
  Session session(&graph);
  ASSERT_OK((*saver)->Restore(&session, Path("m")));
  const int nodes = graph.num_nodes();
  auto same = Saver::Create(&graph);
  ASSERT_OK(same.status());
  EXPECT_EQ((*same)->as_saver_def()->restore_op_name(), "save/restore_all");
  EXPECT_EQ(graph.num_nodes(), nodes);
  SaverOptions options;
  options.var_map = {{"renamed", (*GlobalVariables(graph))[0]}};
  int more = 0;
  for (int i = 0; i < 3; ++i) {
    auto other = Saver::Create(&graph, options);
    // In a copy first, then in the graph.
    ASSERT_OK((*other)->Save(&session, Path("renamed")).status());
    Graph again;
    auto its = ImportMetaGraphFile(fs_, Path("renamed.meta"), {}, &again);
    ASSERT_OK(its.status());
    EXPECT_EQ((*its)->items()[0].key, "renamed");
    auto def = (*other)->as_saver_def();
    ASSERT_OK(def.status());
    EXPECT_EQ(def->restore_op_name(), "save/restore_all_1");
    ASSERT_OK(session.Run({{def->filename_tensor_name(), Tensor::Scalar(Path("renamed"))}}, {},
                          {def->restore_op_name()}, nullptr));
    if (i == 0) more = graph.num_nodes();
    EXPECT_EQ(graph.num_nodes(), more);
  }
  EXPECT_GT(more, nodes);
}

TEST_F(SaverSystemTest, APartAndAWholeOfOneNameAreTwo) {
  Graph graph;
  Scope root(&graph);
  SaverOptions options;
  options.var_list = {MakeVariable(root, "v1", Tensor::Of<float>({1})),
                      MakeVariable(root, "v2", Tensor::Of<float>({2}))};
  auto slice = std::make_shared<proto::SaveSliceInfoDef>();
  slice->set_full_name("v1");
  slice->add_full_shape(1);
  slice->add_var_offset(0);
  slice->add_var_shape(1);
  options.var_list[1].slice = slice;
  EXPECT_EQ(Saver::Create(&graph, options).status().message(),
            "At least two variables have the same name: v1");
  // The same part twice.
  options.var_list[0].slice = slice;
  EXPECT_EQ(Saver::Create(&graph, options).status().message(),
            "At least two variables have the same name: v1");
  options.var_list[0].slice = nullptr;
  options.var_map = {{"vee1", options.var_list[0]}, {"other", options.var_list[1]}};
  options.var_list.clear();
  EXPECT_TRUE(Saver::Create(&graph, options).ok());
}

TEST_F(SaverSystemTest, AMapOfOtherShapesIsRefusedUnlessReshaped) {
  SaveOne(Path("m"), "v", {1, 2, 3, 4});
  for (const bool resource : {false, true}) {
    Graph graph;
    Scope root(&graph);
    VariableOptions options;
    options.use_resource = resource;
    const VariableHandle v = GetVariable(root, "other", {2, 2}, DType::kFloat, options);
    ASSERT_OK(root.status());
    Session session(&graph);
    SaverOptions map;
    map.var_map = {{"v", v}};
    const absl::Status status = (*Saver::Create(&graph, map))->Restore(&session, Path("m"));
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()),
                HasSubstr("Assign requires shapes of both tensors to match. lhs shape= [2,2] rhs "
                          "shape= [4] (variable 'other'"));
    map.reshape = true;
    ASSERT_OK((*Saver::Create(&graph, map))->Restore(&session, Path("m")));
    EXPECT_EQ(Fetch(&session, v.read.name()).DebugString(), "float32 [2,2] 1 2 3 4");
  }
}

// Saved over: what was there is forgotten, its names too.
TEST_F(SaverSystemTest, APrefixIsReadAnew) {
  SaveOne(Path("m"), "var0", {0});
  auto reader = CheckpointReader::Open(fs_, Path("m"));
  ASSERT_OK(reader.status());
  EXPECT_FALSE((*reader)->Changed());
  SaveOne(Path("m"), "var1", {1.5});
  EXPECT_TRUE((*reader)->Changed());
  auto again = CheckpointReader::Open(fs_, Path("m"));
  EXPECT_EQ((*again)->DebugString(), "var1 (DT_FLOAT) [1]\n");
  EXPECT_EQ((*again)->GetTensor("var1")->data<float>()[0], 1.5f);
}

// A scope of one graph becomes a scope of another, with its values.
TEST_F(SaverSystemTest, AScopeIsCopiedBetweenGraphs) {
  Graph graph;
  Scope root(&graph);
  const Output x = ops::Const(root.WithOpName("x"), Tensor::Of<float>({1, 2}, {1, 2}));
  for (const char* name : {"hidden1", "hidden2"}) {
    const Scope s = root.NewSubScope(name);
    VariableOptions options;
    options.initializer = ConstantInitializer(name[6] - '0');
    const VariableHandle w = GetVariable(s, "weights", {2, 2}, DType::kFloat, options);
    ops::MatMul(s.WithOpName("out"), x, w.read);
  }
  Node* init = GlobalVariablesInitializer(root);
  Session session(&graph);
  ASSERT_OK(session.Run({}, {}, {init->name()}, nullptr));
  // A saver of the scope's variables, by their names within it.
  SaverOptions options;
  options.var_map = {{"weights", (*GlobalVariables(graph))[1]}};
  auto saver = Saver::Create(&graph, options);
  ASSERT_OK(saver.status());
  ASSERT_OK((*saver)->Save(&session, Path("hidden")).status());
  ExportOptions exporting;
  exporting.export_scope = "hidden2";
  auto meta = ExportMetaGraph(graph, exporting);
  ASSERT_OK(meta.status());
  EXPECT_FALSE(meta->has_saver_def());
  ASSERT_OK(WriteMetaGraph(fs_, Path("scope.meta"), *meta));

  Graph other;
  const Output y = ops::Const(Scope(&other).WithOpName("y"), Tensor::Of<float>({10, 20}, {1, 2}));
  ImportMetaOptions importing;
  importing.import_scope = "new_hidden";
  importing.input_map["$unbound_inputs_x"] = y;
  ImportedMetaGraph imported;
  auto without = ImportMetaGraphFile(fs_, Path("scope.meta"), importing, &other, &imported);
  ASSERT_OK(without.status());
  EXPECT_EQ((*without)->items()[0].key, "new_hidden/weights");
  SaverOptions map;
  map.var_map = {{"weights", (*GlobalVariables(other))[0]}};
  auto restorer = Saver::Create(&other, map);
  Session second(&other);
  ASSERT_OK((*restorer)->Restore(&second, Path("hidden")));
  EXPECT_EQ(Fetch(&second, "new_hidden/out").DebugString(), "float32 [1,2] 60 60");
}

// Savers that a graph keeps in its collection go with their scopes.
TEST_F(SaverSystemTest, SaversGoWithTheirScopes) {
  Graph graph;
  Scope root(&graph);
  Session session(&graph);
  auto* savers = (*graph.mutable_collections())["savers"].mutable_bytes_list();
  for (const char* name : {"hidden1", "hidden2"}) {
    const VariableHandle v =
        MakeVariable(root.NewSubScope(name), "v", Tensor::Of<float>({static_cast<float>(name[6])}));
    ASSERT_OK(session.Run({}, {}, {v.initializer->name()}, nullptr));
    SaverOptions options;
    options.var_list = {v};
    options.name = std::string(name) + "/save";
    auto saver = Saver::Create(&graph, options);
    ASSERT_OK(saver.status());
    auto def = (*saver)->as_saver_def();
    ASSERT_OK(def.status());
    EXPECT_EQ(def->restore_op_name(), std::string(name) + "/save/restore_all");
    savers->add_value(def->SerializeAsString());
    ASSERT_OK((*saver)->Save(&session, Path(name)).status());
  }
  ExportOptions exporting;
  exporting.export_scope = "hidden2";
  auto meta = ExportMetaGraph(graph, exporting);
  ASSERT_OK(meta.status());
  Graph other;
  ImportMetaOptions importing;
  importing.import_scope = "new";
  ASSERT_OK(ImportMetaGraph(*meta, importing, &other).status());
  const auto& kept = other.collections().at("savers").bytes_list();
  ASSERT_EQ(kept.value_size(), 1);
  proto::SaverDef def;
  ASSERT_TRUE(def.ParseFromString(kept.value(0)));
  auto saver = Saver::FromProto(&other, def);
  ASSERT_OK(saver.status());
  Session second(&other);
  ASSERT_OK((*saver)->Restore(&second, Path("hidden2")));
  EXPECT_EQ(Fetch(&second, "new/v").data<float>()[0], static_cast<float>('2'));
  // The same from a SaverDef without the scope.
  proto::SaverDef bare = def;
  for (std::string* field : {bare.mutable_filename_tensor_name(), bare.mutable_save_tensor_name(),
                             bare.mutable_restore_op_name()}) {
    *field = field->substr(4);
  }
  EXPECT_TRUE(Saver::FromProto(&other, bare, "new").ok());
  EXPECT_FALSE(Saver::FromProto(&other, bare).ok());
}

// The folder is copied and the original deleted; state files with relative paths don't mind, nor do
// others, whose checkpoints are found beside them.
TEST_F(SaverSystemTest, FoldersAreCopied) {
  for (const bool relative : {false, true}) {
    const std::string from = Path(relative ? "relative" : "absolute"), to = from + "_copy";
    Graph graph;
    Scope root(&graph);
    MakeVariable(root, "v", Tensor::Of<float>({1, 2}));
    Node* init = GlobalVariablesInitializer(root);
    Session session(&graph);
    ASSERT_OK(session.Run({}, {}, {init->name()}, nullptr));
    SaverOptions options;
    options.save_relative_paths = relative;
    auto saver = Saver::Create(&graph, options);
    ASSERT_OK((*saver)->Save(&session, from + "/m").status());
    std::filesystem::copy(from, to);
    std::filesystem::remove_all(from);
    const auto latest = LatestCheckpoint(fs_, to);
    ASSERT_OK(latest.status());
    EXPECT_EQ(*latest, to + "/m");
    ASSERT_OK((*saver)->Restore(&session, *latest));
  }
}

// The state file's own name is none for a checkpoint, unless a number follows.
TEST_F(SaverSystemTest, TheStateFilesNameAsAPrefix) {
  Graph graph;
  Scope root(&graph);
  MakeVariable(root, "v", Tensor::Of<float>({1, 2}));
  Node* init = GlobalVariablesInitializer(root);
  Session session(&graph);
  ASSERT_OK(session.Run({}, {}, {init->name()}, nullptr));
  SaveOptions numbered;
  numbered.global_step = 1;
  for (const bool sharded : {false, true}) {
    SaverOptions options;
    options.sharded = sharded;
    auto saver = Saver::Create(&graph, options);
    const absl::Status status = (*saver)->Save(&session, Path("checkpoint")).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(std::string(status.message()), HasSubstr("collides with"));
    ASSERT_OK((*saver)->Save(&session, Path("checkpoint"), numbered).status());
    EXPECT_EQ(*LatestCheckpoint(fs_, dir_), Path("checkpoint-1"));
  }
}

TEST_F(SaverSystemTest, MetaGraphsAreWrittenOnlyWhenWanted) {
  Graph graph;
  Scope root(&graph);
  MakeVariable(root, "v", Tensor::Of<float>({1, 2}));
  Node* init = GlobalVariablesInitializer(root);
  Session session(&graph);
  ASSERT_OK(session.Run({}, {}, {init->name()}, nullptr));
  auto saver = Saver::Create(&graph);
  SaveOptions options;
  options.write_meta_graph = false;
  options.write_state = false;
  ASSERT_OK((*saver)->Save(&session, Path("m"), options).status());
  EXPECT_THAT(*fs_->List(dir_), UnorderedElementsAre("m.data-00000-of-00001", "m.index"));
  EXPECT_THAT((*saver)->last_checkpoints(), ElementsAre());
  options.write_meta_graph = true;
  options.meta_graph_suffix = "graph";
  options.latest_filename = "newest";
  options.write_state = true;
  ASSERT_OK((*saver)->Save(&session, Path("n"), options).status());
  EXPECT_TRUE(fs_->Exists(Path("n.graph")));
  EXPECT_EQ(*LatestCheckpoint(fs_, dir_, "newest"), Path("n"));
}

// ---- Checkpoints of TensorFlow 2's objects ----

TEST_F(SaverSystemTest, ObjectsAreReadByTheirNames) {
  const std::string prefix = "tests/testdata/objects/ckpt-1";
  auto reader = CheckpointReader::Open(fs_, prefix);
  ASSERT_OK(reader.status());
  EXPECT_TRUE(VerifyCheckpoint(fs_, prefix).damage.empty());
  EXPECT_THAT((*reader)->DebugString(),
              HasSubstr("net/kernel/.ATTRIBUTES/VARIABLE_VALUE (DT_FLOAT) [2,2]\n"));
  EXPECT_TRUE((*reader)->HasTensor("w"));
  EXPECT_TRUE((*reader)->HasTensor("net/bias/.ATTRIBUTES/VARIABLE_VALUE"));
  EXPECT_FALSE((*reader)->HasTensor("bias"));
  EXPECT_EQ((*reader)->GetTensor("layer/bias")->DebugString(), "float32 [2] 5 6");
  EXPECT_EQ((*reader)->GetTensor("step")->DebugString(), "int64 [] 7");
  EXPECT_THAT(std::string((*reader)->GetTensor("bias").status().message()),
              HasSubstr("Key bias not found in checkpoint"));

  Graph graph;
  Scope root(&graph);
  MakeVariable(root, "w", Tensor::Of<float>({0, 0, 0, 0}, {2, 2}));
  MakeVariable(root.NewSubScope("layer"), "bias", Tensor::Of<float>({0, 0}));
  const VariableHandle count = MakeVariable(root, "count", Tensor::Scalar<int64_t>(0));
  Session session(&graph);
  SaverOptions options;
  options.var_list = *GlobalVariables(graph);
  options.var_list.pop_back();
  auto saver = Saver::Create(&graph, options);
  ASSERT_OK((*saver)->Restore(&session, prefix));
  EXPECT_EQ(Fetch(&session, "w").DebugString(), "float32 [2,2] 1 2 3 4");
  // The nodes know the names too, and so does a start from there.
  Session by_nodes(&graph);
  auto def = (*saver)->as_saver_def();
  ASSERT_OK(by_nodes.Run({{def->filename_tensor_name(), Tensor::Scalar(prefix)}}, {},
                         {def->restore_op_name()}, nullptr));
  EXPECT_EQ(Fetch(&by_nodes, "layer/bias").DebugString(), "float32 [2] 5 6");
  ASSERT_OK(InitFromCheckpoint(fs_, prefix, {{"step", count}}, &graph));
  Session started(&graph);
  ASSERT_OK(started.Run({}, {}, {"count/Assign"}, nullptr));
  EXPECT_EQ(Fetch(&started, "count").scalar<int64_t>(), 7);
}

TEST_F(SaverSystemTest, ADamagedTableOfObjectsIsSaid) {
  auto writer = BundleWriter::Open(fs_, Path("m"));
  ASSERT_OK(writer.status());
  ASSERT_OK((*writer)->Add("_CHECKPOINTABLE_OBJECT_GRAPH",
                           Tensor::Scalar<std::string>("\xff\xff no message")));
  ASSERT_OK((*writer)->Add("w", Tensor::Of<float>({1})));
  ASSERT_OK((*writer)->Commit());
  auto reader = CheckpointReader::Open(fs_, Path("m"));
  ASSERT_OK(reader.status());
  EXPECT_TRUE((*reader)->GetTensor("w").ok());
  EXPECT_FALSE((*reader)->HasTensor("x"));
  const absl::Status status = (*reader)->GetTensor("x").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()), HasSubstr(Path("m")));
}

}  // namespace
}  // namespace ferry
