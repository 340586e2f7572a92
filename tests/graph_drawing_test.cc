// Tests of the drawings of graphs: what is shown, what is folded away, and that dot can read it.
#include "tools/graph_drawing.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <string>

#include "absl/strings/str_cat.h"
#include "runtime/base/file_system.h"
#include "tests/xml_check.h"
#include "tools/graph_summary.h"

namespace ferry {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;
using ::testing::Not;

size_t Count(const std::string& text, const std::string& part) {
  size_t count = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++count;
  return count;
}

proto::GraphDef ReadGraph(const std::string& path) {
  absl::StatusOr<GraphFile> file = ReadGraphFile(FileSystem::Posix(), "tests/testdata/" + path);
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? file->meta_graph.graph_def() : proto::GraphDef();
}

proto::NodeDef* AddNode(const std::string& name, const std::string& op,
                        const std::vector<std::string>& inputs, proto::GraphDef* graph) {
  proto::NodeDef* const node = graph->add_node();
  node->set_name(name);
  node->set_op(op);
  for (const std::string& input : inputs) node->add_input(input);
  return node;
}

// Draws it as SVG, which must be well-formed.
std::string MustDraw(const std::string& dot) {
  const absl::StatusOr<std::string> svg = DotToSvg(dot);
  EXPECT_TRUE(svg.ok()) << svg.status();
  if (!svg.ok()) return "";
  EXPECT_EQ(WhatIsWrongWithXml(*svg), "");
  return *svg;
}

TEST(GraphDrawingTest, SmallGraphsAreWhole) {
  proto::GraphDef graph;
  proto::NodeDef* const x = AddNode("x", "Placeholder", {}, &graph);
  (*x->mutable_attr())["dtype"].set_type(proto::DT_FLOAT);
  (*x->mutable_attr())["shape"].mutable_shape()->add_dim()->set_size(-1);
  (*x->mutable_attr())["shape"].mutable_shape()->add_dim()->set_size(3);
  AddNode("layer/c", "Const", {}, &graph);
  AddNode("layer/MatMul_1", "MatMul", {"x", "layer/c:0"}, &graph);
  AddNode("twice", "AddV2", {"layer/MatMul_1", "layer/MatMul_1"}, &graph);
  AddNode("end", "NoOp", {"^twice", "nowhere"}, &graph);
  const std::string dot = GraphToDot(graph);
  EXPECT_THAT(
      dot, AllOf(HasSubstr("<B>x</B><BR/><FONT POINT-SIZE=\"9\" COLOR=\"#57606a\">[?,3]<"),
                 HasSubstr("label=<layer/>"), HasSubstr("<B>c</B>"), HasSubstr("<B>MatMul_1</B>>"),
                 HasSubstr(">AddV2<"), HasSubstr("[label=\" ×2\"]"), HasSubstr("[style=dashed")));
  EXPECT_EQ(Count(dot, " -> "), 4);
  const std::string svg = MustDraw(dot);
  EXPECT_THAT(svg, AllOf(HasSubstr(">MatMul_1<"), HasSubstr(">layer/<")));
}

TEST(GraphDrawingTest, TheDigitsNetworkIsSimplified) {
  const std::string dot = GraphToDot(ReadGraph("mlp/adam/graph.pbtxt"));
  for (const char* const shown :
       {"<B>x</B>", "[?,64]", "label=<hidden1/>", "label=<hidden2/>", "label=<logits/>",
        "<B>weights</B>", "[64,128]", "<B>biases</B>", "<B>Relu</B>", "<B>loss</B>",
        "<B>accuracy</B>", "<B>gradients</B>", "<B>Adam</B>", "<B>save</B>", "<B>init</B>"}) {
    EXPECT_THAT(dot, HasSubstr(shown));
  }
  for (const char* const hidden : {"Initializer", "truncated_normal", "read", "Assign", "Adam_1",
                                   "ApplyAdam", "RestoreV2", "beta1_power", "Const"}) {
    EXPECT_THAT(dot, Not(HasSubstr(hidden)));
  }
  EXPECT_EQ(Count(dot, "<B>gradients</B>"), 1);
  EXPECT_EQ(Count(dot, "<B>Adam</B>"), 1);
  EXPECT_THAT(dot, HasSubstr("updates 6 variables"));
  MustDraw(dot);
}

TEST(GraphDrawingTest, LargeGraphsKeepToTheBudget) {
  proto::GraphDef graph;
  for (int block = 0; block < 30; ++block) {
    const std::string scope = absl::StrCat("block", block);
    std::string last = block == 0 ? "x" : absl::StrCat("block", block - 1, "/inner/op19");
    for (int i = 0; i < 20; ++i) {
      const std::string name = absl::StrCat(scope, "/inner/op", i);
      AddNode(name, absl::StrCat("Op", i), {last}, &graph);
      last = name;
    }
  }
  std::string dot = GraphToDot(graph);
  EXPECT_EQ(Count(dot, "[fillcolor=\"#eaeef2\""), 30);  // Each block is one node.
  EXPECT_EQ(Count(dot, " -> "), 29);
  EXPECT_THAT(dot, HasSubstr("20 ops"));
  DrawingOptions options;
  options.budget = 30 + 19;  // As many as it takes to open one of them.
  dot = GraphToDot(graph, options);
  EXPECT_EQ(Count(dot, "[fillcolor=\"#eaeef2\""), 29);
  EXPECT_THAT(dot, HasSubstr("<B>op7</B>"));
}

TEST(GraphDrawingTest, SeriesAreOneNode) {
  proto::GraphDef graph;
  AddNode("add", "AddV2", {}, &graph);
  for (int i = 1; i < 1000; ++i) {
    const std::string input = i == 1 ? "add" : absl::StrCat("add_", i - 1);
    AddNode(absl::StrCat("add_", i), "AddV2", {input, input}, &graph);
  }
  AddNode("result", "Identity", {"add_999"}, &graph);
  const std::string dot = GraphToDot(graph);
  EXPECT_THAT(dot, AllOf(HasSubstr("<B>add …</B>"), HasSubstr("1000 × AddV2")));
  EXPECT_EQ(Count(dot, " -> "), 1);
}

TEST(GraphDrawingTest, AnyGraphCanBeDrawn) {
  EXPECT_THAT(MustDraw(GraphToDot({})), HasSubstr("<svg"));
  proto::GraphDef graph;
  AddNode("a<b>&\"'\\", "Op<x>", {"loop", "a<b>&\"'\\"}, &graph);
  AddNode("loop", "NextIteration", {"a<b>&\"'\\"}, &graph);
  AddNode("loop", "Twice", {"^loop"}, &graph);
  AddNode("", "", {"", "^", ":0"}, &graph);
  AddNode("/", "//", {"/"}, &graph);
  AddNode("é/" + std::string(200, 'x') + "é", "Long", {}, &graph);
  AddNode("a//b", "Empty", {"/"}, &graph);
  AddNode("gradients", "Leaf", {}, &graph);
  AddNode("/update_", "ApplyAdam", {}, &graph);
  AddNode("SaveV2", "SaveV2", {}, &graph);
  DrawingOptions options;
  MustDraw(GraphToDot(graph, options));
  options.whole_limit = 0;
  MustDraw(GraphToDot(graph, options));
  options.budget = 0;
  MustDraw(GraphToDot(graph, options));
}

TEST(GraphDrawingTest, EveryGraphOfTheTestDataCanBeDrawn) {
  for (const char* const name :
       {"cond", "map", "partitioned", "resource", "sharded", "sequential", "v1"}) {
    MustDraw(GraphToDot(ReadGraph(absl::StrCat("savers/", name, ".meta"))));
  }
}

TEST(DotTest, ErrorsAreStatuses) {
  const absl::Status status = DotToSvg("digraph { a -> ").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kInternal);
  EXPECT_THAT(std::string(status.message()), HasSubstr("syntax error"));
  EXPECT_EQ(DotToSvg("digraph {}", absl::ZeroDuration()).status().code(),
            absl::StatusCode::kDeadlineExceeded);

  const std::string path = getenv("PATH");
  setenv("PATH", "/nonexistent", 1);
  const absl::Status missing = DotToSvg("digraph {}").status();
  setenv("PATH", path.c_str(), 1);
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()), HasSubstr("apt-get install graphviz"));
}

// Graphs that no program writes take no more time and memory than their size tells.
TEST(GraphDrawingTest, ScopesWithinScopes) {
  proto::GraphDef graph;
  for (const char* const scope : {"a", "gradients"}) {
    std::string name = scope;
    for (int i = 0; i < 100000; ++i) absl::StrAppend(&name, "/", scope);
    AddNode(name, "Foo", {}, &graph);
  }
  DrawingOptions simple;
  simple.whole_limit = 0;
  for (const DrawingOptions& options : {DrawingOptions(), simple}) {
    const std::string dot = GraphToDot(graph, options);
    EXPECT_THAT(dot, HasSubstr("Foo"));
    EXPECT_LT(dot.size(), 100000);
  }
}

TEST(GraphDrawingTest, LongChainsOfInitializersAndConstants) {
  proto::GraphDef graph;
  constexpr int kLength = 50000;
  AddNode("v", "VariableV2", {}, &graph);
  AddNode("op", "Foo", {"c0", absl::StrCat("d", kLength - 1), "v"}, &graph);
  for (int i = 0; i < kLength; ++i) {
    const bool last = i + 1 == kLength;
    AddNode(absl::StrCat("init", i), "NoOp", {last ? "^v" : absl::StrCat("^init", i + 1)}, &graph);
    AddNode(absl::StrCat("c", i), "Const", {absl::StrCat("c", i + 1)}, &graph);
    AddNode(absl::StrCat("d", i), "Const", {absl::StrCat("d", i - 1)}, &graph);
  }
  const std::string dot = GraphToDot(graph);
  EXPECT_THAT(dot, AllOf(HasSubstr("beside the graph"), HasSubstr("Foo")));
}

}  // namespace
}  // namespace ferry
