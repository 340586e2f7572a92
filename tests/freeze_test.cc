// Freezing: the graphs that TensorFlow makes, from a checkpoint and from a session.
#include "saver/freeze.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <filesystem>

#include "absl/strings/str_cat.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "saver/log.h"
#include "saver/meta_graph.h"
#include "saver/saver.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

std::string Bytes(const proto::GraphDef& graph, const std::string& name) {
  const std::string path = absl::StrCat(::testing::TempDir(), "freeze_", name, ".pb");
  EXPECT_TRUE(WriteGraphDef(FileSystem::Posix(), path, graph).ok());
  return ReadFile(FileSystem::Posix(), path).value();
}

// As TensorFlow's graph is without a meta graph around it.
void ForgetShapes(proto::MetaGraphDef* meta) {
  for (auto& n : *meta->mutable_graph_def()->mutable_node()) {
    n.mutable_attr()->erase("_output_shapes");
  }
}

std::vector<std::string> Names(const proto::GraphDef& graph) {
  std::vector<std::string> names;
  for (const auto& n : graph.node()) names.push_back(n.name());
  return names;
}

// Collects the log's lines while it lives.
class Lines {
 public:
  Lines() {
    SetLogSink([this](LogLevel level, absl::string_view line) {
      lines.push_back(absl::StrCat(level == LogLevel::kInfo ? "I " : "W ", line));
    });
  }
  ~Lines() { SetLogSink({}); }
  std::vector<std::string> lines;
};

class FreezeGolden : public ::testing::TestWithParam<std::string> {};

INSTANTIATE_TEST_SUITE_P(All, FreezeGolden,
                         ::testing::Values("ref", "resource", "gather", "cond", "loop", "sliced"),
                         [](const auto& info) { return info.param; });

TEST_P(FreezeGolden, FromTheCheckpoint) {
  const std::string prefix = absl::StrCat("tests/testdata/models/", GetParam());
  auto meta = ReadMetaGraph(FileSystem::Posix(), prefix + ".meta");
  ASSERT_TRUE(meta.ok()) << meta.status();
  ForgetShapes(&*meta);
  const auto frozen = FreezeCheckpoint(FileSystem::Posix(), *meta, prefix, {"out"});
  ASSERT_TRUE(frozen.ok()) << frozen.status();
  // Maps lie in another order there.
  proto::GraphDef theirs;
  ASSERT_TRUE(theirs.ParseFromString(ReadFile(FileSystem::Posix(), prefix + ".frozen.pb").value()));
  EXPECT_EQ(Bytes(*frozen, GetParam()), Bytes(theirs, GetParam()));
}

class Freeze : public ::testing::Test {
 protected:
  void SetUp() override {
    const VariableHandle v1 = MakeVariable(scope_, "v1", Tensor::Of<float>({1}), VariableOptions());
    const VariableHandle v2 = MakeVariable(scope_, "v2", Tensor::Of<float>({2}), VariableOptions());
    MakeVariable(scope_, "unused", Tensor::Of<float>({3}), VariableOptions());
    ops::Add(scope_.WithOpName("add"), v1.read, v2.read);
    ops::AssignAdd(scope_.WithOpName("step"), v1.ref, v2.read);
    init_ = GlobalVariablesInitializer(scope_);
    ASSERT_TRUE(scope_.ok()) << scope_.status();
  }
  absl::Status Initialize() { return session_.Run({}, {}, {init_->name()}, nullptr); }

  Graph graph_;
  Scope scope_{&graph_};
  Session session_{&graph_};
  Node* init_ = nullptr;
};

TEST_F(Freeze, TheArticlesListing) {
  ASSERT_TRUE(Initialize().ok());
  Lines log;
  const auto frozen = ConvertVariablesToConstants(&session_, {"add"});
  ASSERT_TRUE(frozen.ok()) << frozen.status();
  EXPECT_THAT(log.lines,
              ElementsAre("I Froze 2 variables.", "I Converted 2 variables to const ops."));
  EXPECT_THAT(Names(*frozen), ElementsAre("v1", "v1/read", "v2", "v2/read", "add"));
  EXPECT_EQ(frozen->node(0).op(), "Const");

  Graph again;
  ImportOptions import;
  import.prefix = "import";
  import.return_elements = {"add:0"};
  ImportResults results;
  ASSERT_TRUE(ImportGraphDef(import, *frozen, &again, &results).ok());
  EXPECT_EQ(results.return_outputs[0].name(), "import/add:0");
  Session session(&again);
  std::vector<Tensor> out;
  ASSERT_TRUE(session.Run({}, {results.return_outputs[0].name()}, {}, &out).ok());
  EXPECT_THAT(out[0].span<float>(), ElementsAre(3));
}

TEST_F(Freeze, TheSessionsValuesNow) {
  ASSERT_TRUE(Initialize().ok());
  ASSERT_TRUE(session_.Run({}, {}, {"step"}, nullptr).ok());
  const auto frozen = ConvertVariablesToConstants(&session_, {"add"});
  ASSERT_TRUE(frozen.ok()) << frozen.status();
  // What is frozen doesn't change with the variable.
  ASSERT_TRUE(session_.Run({}, {}, {"step"}, nullptr).ok());
  EXPECT_EQ(FromProto(frozen->node(0).attr().at("value").tensor())->scalar<float>(), 3);
}

TEST_F(Freeze, TheCheckpointsValues) {
  ASSERT_TRUE(Initialize().ok());
  auto saver = Saver::Create(&graph_).value();
  const std::string prefix = saver->Save(&session_, ::testing::TempDir() + "freeze").value();
  const auto meta = saver->export_meta_graph().value();
  FreezeOptions options;
  const auto straight = FreezeCheckpoint(FileSystem::Posix(), meta, prefix, {"v1/read"}, options);
  ASSERT_TRUE(straight.ok()) << straight.status();
  EXPECT_THAT(Names(*straight), ElementsAre("v1", "v1/read"));
  // Without a saver in the graph the variables' own names count.
  proto::MetaGraphDef bare;
  graph_.ToGraphDef(bare.mutable_graph_def());
  EXPECT_TRUE(FreezeCheckpoint(FileSystem::Posix(), bare, prefix, {"add"}).ok());
}

TEST_F(Freeze, SomeVariables) {
  ASSERT_TRUE(Initialize().ok());
  FreezeOptions only, except, none;
  only.variable_names_whitelist = {"v1"};
  except.variable_names_blacklist = {"v1"};
  none.variable_names_whitelist.emplace();
  const auto op_of = [&](const FreezeOptions& options, int node) {
    const auto frozen = ConvertVariablesToConstants(&session_, {"add"}, options);
    EXPECT_TRUE(frozen.ok()) << frozen.status();
    return frozen->node(node).op();
  };
  EXPECT_EQ(op_of(only, 0), "Const");
  EXPECT_EQ(op_of(only, 2), "VariableV2");
  EXPECT_EQ(op_of(except, 0), "VariableV2");
  EXPECT_EQ(op_of(except, 2), "Const");
  EXPECT_EQ(op_of(none, 0), "VariableV2");
}

TEST_F(Freeze, Errors) {
  absl::Status status = ConvertVariablesToConstants(&session_, {"add"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("Attempting to use uninitialized value v1"));
  ASSERT_TRUE(Initialize().ok());
  status = ConvertVariablesToConstants(&session_, {"add", "sum"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(status.message(), "sum is not in graph");
  status = ConvertVariablesToConstants(&session_, {"step"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("'step' (AssignAdd) writes the variable 'v1'"));
}

TEST_F(Freeze, BeyondTwoGibibytes) {
  // Refused by its shape, before anything is read.
  ops::Identity(scope_.WithOpName("out"),
                ops::VariableV2(scope_.WithOpName("large"), PartialShape(TensorShape({1 << 30})),
                                DType::kFloat));
  ASSERT_TRUE(scope_.ok()) << scope_.status();
  const absl::Status status = ConvertVariablesToConstants(&session_, {"out"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(status.message(), HasSubstr("4294967296 bytes"));
  EXPECT_THAT(status.message(), HasSubstr("Keep the variables in a checkpoint"));
}

TEST_F(Freeze, GraphsAreWrittenIntoDirectoriesThatAreMade) {
  proto::GraphDef graph;
  graph_.ToGraphDef(&graph);
  const std::string dir = ::testing::TempDir() + "/write_graph/l1/l2";
  std::filesystem::remove_all(::testing::TempDir() + "/write_graph");
  for (const bool as_text : {false, true}) {
    const std::string name = as_text ? "graph.pbtxt" : "graph.pb";
    const auto path = WriteGraph(FileSystem::Posix(), graph, dir, name, as_text);
    ASSERT_TRUE(path.ok()) << path.status();
    EXPECT_EQ(*path, dir + "/" + name);
    const std::string bytes = *ReadFile(FileSystem::Posix(), *path);
    proto::GraphDef back;
    ASSERT_TRUE(as_text ? google::protobuf::TextFormat::ParseFromString(bytes, &back)
                        : back.ParseFromString(bytes));
    EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(back, graph));
    EXPECT_EQ(bytes.find("node {") != std::string::npos, as_text);
  }
}

TEST_F(Freeze, SubGraphs) {
  proto::GraphDef graph;
  graph_.ToGraphDef(&graph);
  const auto part = ExtractSubGraph(graph, {"v2/read"});
  ASSERT_TRUE(part.ok()) << part.status();
  EXPECT_THAT(Names(*part), ElementsAre("v2", "v2/read"));
  EXPECT_EQ(part->versions().producer(), graph.versions().producer());
  EXPECT_EQ(ExtractSubGraph(graph, {"no"}).status().message(), "no is not in graph");
}

TEST(RemoveTrainingNodes, SplicesThemOut) {
  Graph graph;
  Scope s(&graph);
  const Output x = ops::Placeholder(s.WithOpName("x"), DType::kFloat);
  const Output a = ops::Identity(s.WithOpName("a"), x);
  const Output b = ops::StopGradient(s.WithOpName("b"), a);
  const Output held = ops::Identity(s.WithOpName("held"), x);  // By a control edge.
  const Output after = ops::Identity(s.WithOpName("after").WithControlDependencies({held.node}), b);
  const Output out = ops::Relu(s.WithOpName("y"), b);
  ops::Add(s.WithOpName("z"), after, out);
  ops::Identity(s.WithOpName("kept"), b);
  ASSERT_TRUE(s.ok()) << s.status();
  proto::GraphDef def;
  graph.ToGraphDef(&def);
  proto::NodeDef* const check = def.add_node();
  check->set_name("check");
  check->set_op("CheckNumerics");
  check->add_input("a");
  proto::NodeDef* const user = def.add_node();
  user->set_name("user");
  user->set_op("Relu");
  user->add_input("check:0");
  user->add_input("^check");

  const proto::GraphDef less = RemoveTrainingNodes(def, {"kept"});
  EXPECT_THAT(Names(less), ElementsAre("x", "held", "after", "y", "z", "kept", "user"));
  EXPECT_THAT(less.node(2).input(), ElementsAre("x", "^held"));
  EXPECT_THAT(less.node(3).input(), ElementsAre("x"));
  EXPECT_THAT(less.node(5).input(), ElementsAre("x"));
  EXPECT_THAT(less.node(6).input(), ElementsAre("x"));
}

}  // namespace
}  // namespace ferry
