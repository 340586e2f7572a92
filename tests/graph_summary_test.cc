// Tests of reading graph files of every form, and of what is said about them.
#include "tools/graph_summary.h"

#include <gmock/gmock.h>
#include <google/protobuf/text_format.h>
#include <gtest/gtest.h>

#include <string>

#include "proto/saved_model.pb.h"
#include "runtime/base/file_system.h"
#include "saver/meta_graph.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

using ::testing::AllOf;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

const std::string kTestData = "tests/testdata/";

GraphFile MustRead(const std::string& path) {
  absl::StatusOr<GraphFile> file = ReadGraphFile(FileSystem::Posix(), kTestData + path);
  EXPECT_TRUE(file.ok()) << file.status();
  return file.ok() ? *std::move(file) : GraphFile();
}

TEST(GraphFileTest, KnowsEachForm) {
  const GraphFile text = MustRead("mlp/adam/graph.pbtxt");
  EXPECT_EQ(text.kind, "GraphDef");
  EXPECT_TRUE(text.is_text);
  const proto::GraphDef graph = text.meta_graph.graph_def();
  ASSERT_GT(graph.node_size(), 200);

  const GraphFile meta = MustRead("mlp/adam/model.ckpt-100.meta");
  EXPECT_EQ(meta.kind, "MetaGraphDef");
  EXPECT_FALSE(meta.is_text);
  EXPECT_EQ(meta.meta_graph.graph_def().node_size(), graph.node_size());
  EXPECT_EQ(MustRead("savers/options.pbtxt").kind, "MetaGraphDef");

  FaultFileSystem fs;
  fs.SetContents("/graph", graph.SerializeAsString());
  EXPECT_EQ(ReadGraphFile(&fs, "/graph")->kind, "GraphDef");
  fs.SetContents("/meta", *SerializeMetaGraph(meta.meta_graph));
  EXPECT_EQ(ReadGraphFile(&fs, "/meta")->kind, "MetaGraphDef");

  proto::SavedModel model;
  model.set_saved_model_schema_version(1);
  *model.add_meta_graphs() = meta.meta_graph;
  model.add_meta_graphs();
  ASSERT_TRUE(fs.CreateDir("/model").ok());
  fs.SetContents("/model/saved_model.pb", model.SerializeAsString());
  absl::StatusOr<GraphFile> saved = ReadGraphFile(&fs, "/model");
  ASSERT_TRUE(saved.ok()) << saved.status();
  EXPECT_EQ(saved->kind, "SavedModel");
  EXPECT_EQ(saved->other_meta_graphs, 1);
  EXPECT_EQ(saved->path, "/model/saved_model.pb");
  std::string model_text;
  ASSERT_TRUE(google::protobuf::TextFormat::PrintToString(model, &model_text));
  fs.SetContents("/model/saved_model.pb", model_text);
  EXPECT_EQ(ReadGraphFile(&fs, "/model")->kind, "SavedModel");
}

// A graph with a function parses as a MetaGraphDef too, and must not be taken for one.
TEST(GraphFileTest, GraphWithFunctionsIsNoMetaGraph) {
  proto::GraphDef graph;
  graph.add_node()->set_name("f");
  graph.mutable_node(0)->set_op("PartitionedCall");
  proto::OpDef* const signature = graph.mutable_library()->add_function()->mutable_signature();
  signature->set_name("body");
  const absl::StatusOr<GraphFile> file = ParseGraphFile("f.pb", graph.SerializeAsString());
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_EQ(file->kind, "GraphDef");
  EXPECT_THAT(SummarizeGraph(*file),
              AllOf(HasSubstr("1  PartitionedCall\n"), HasSubstr("and 1 function")));
}

TEST(GraphFileTest, SaysWhatIsWrong) {
  FaultFileSystem fs;
  const auto error = [&](const std::string& path, const std::string& bytes) {
    fs.SetContents(path, bytes);
    const absl::Status status = ReadGraphFile(&fs, path).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(path));
    return std::string(status.message());
  };
  EXPECT_THAT(error("/a", ""), HasSubstr("empty file"));
  EXPECT_THAT(error("/a", "node {\n  name: \"x\"\n  wrong: 1\n}\n"),
              AllOf(HasSubstr("GraphDef, line 3"), HasSubstr("wrong")));
  EXPECT_THAT(error("/a", "hello"), HasSubstr("line 1"));
  EXPECT_THAT(error("/a", "versions { producer: 1 }"), HasSubstr("GraphDef without nodes"));
  EXPECT_THAT(error("/a", std::string("\0\1\2\3", 4)), HasSubstr("4 bytes"));
  std::string deep;
  for (int i = 0; i < 100000; ++i) deep += "node { attr { value { func { ";
  EXPECT_THAT(error("/a", deep), HasSubstr("line 1"));

  const std::string good = *SerializeMetaGraph(MustRead("savers/options.pbtxt").meta_graph);
  std::string changed = good;
  changed[good.size() / 2] ^= 1;
  EXPECT_THAT(error("/a.meta", changed), HasSubstr("Checksum does not match"));
  error("/a.meta", good.substr(0, good.size() / 2));

  ASSERT_TRUE(fs.CreateDir("/empty").ok());
  EXPECT_EQ(ReadGraphFile(&fs, "/empty").status().code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(ReadGraphFile(&fs, "/none").status().code(), absl::StatusCode::kNotFound);
}

TEST(GraphSummaryTest, OfTheDigitsNetwork) {
  const std::string summary = SummarizeGraph(MustRead("mlp/adam/model.ckpt-100.meta"));
  EXPECT_THAT(summary, HasSubstr("model.ckpt-100.meta: a MetaGraphDef"));
  EXPECT_THAT(summary, HasSubstr("written by TensorFlow 2.21"));
  EXPECT_THAT(summary, HasSubstr("  VariableV2\n"));
  // 64*128+128 + 128*64+64 + 64*10+10 parameters, thrice with Adam's slots, and three scalars.
  EXPECT_THAT(summary, HasSubstr("21 variables, 51,681 parameters (201.9 KiB), 17,226 of them "
                                 "trainable:\n"));
  EXPECT_THAT(summary, HasSubstr("  hidden1/weights         float32  [64,128]       8,192  "
                                 "trainable\n"));
  EXPECT_THAT(summary, HasSubstr("  hidden1/weights/Adam_1  float32  [64,128]       8,192\n"));
  EXPECT_THAT(summary, HasSubstr("2 placeholders:\n  x  float32  [?,64]\n  y  int64    [?]\n"));
  EXPECT_THAT(summary, HasSubstr("saver: file name save/Const:0, save save/control_dependency:0"));
  EXPECT_THAT(summary, HasSubstr("train_op"));
}

TEST(GraphSummaryTest, TellsFunctionsFromOpsThatAreUnknown) {
  const absl::StatusOr<GraphFile> file = ParseGraphFile("/a", R"(
      node { name: "x" op: "Foo" }
      node { name: "y" op: "Bar" }
      library { function { signature { name: "Foo" } } }
  )");
  ASSERT_TRUE(file.ok()) << file.status();
  const std::string summary = SummarizeGraph(*file);
  EXPECT_THAT(summary, HasSubstr("1  Foo  (a function)\n"));
  EXPECT_THAT(summary, HasSubstr("1  Bar  (unknown here)\n"));
}

TEST(GraphSummaryTest, FindsOutputsAndTargets) {
  const GraphSinks sinks = FindSinks(MustRead("mlp/adam/graph.pbtxt").meta_graph.graph_def());
  EXPECT_THAT(sinks.outputs, ElementsAre("loss", "accuracy"));
  EXPECT_THAT(sinks.targets, ElementsAre("Adam", "init", "save/restore_all"));
}

TEST(GraphSummaryTest, InfersShapes) {
  const auto shapes = InferShapes(MustRead("mlp/adam/graph.pbtxt").meta_graph.graph_def());
  ASSERT_EQ(shapes.count("x"), 1);
  EXPECT_EQ(shapes.at("x")[0].DebugString(), "[?,64]");
  proto::GraphDef broken;
  broken.add_node()->set_name("a");
  broken.mutable_node(0)->set_op("Identity");
  broken.mutable_node(0)->add_input("nowhere");
  EXPECT_TRUE(InferShapes(broken).empty());
}

TEST(GraphSummaryTest, SignaturesAndHugeVariables) {
  GraphFile file;
  file.path = "m.pb";
  file.kind = "SavedModel";
  ASSERT_TRUE(google::protobuf::TextFormat::ParseFromString(
      R"pb(
        meta_info_def { tags: "serve" }
        graph_def {
          node {
            name: "v"
            op: "VarHandleOp"
            attr {
              key: "dtype"
              value { type: DT_FLOAT }
            }
            attr {
              key: "shape"
              value { shape { dim { size: 4611686018427387904 } } }
            }
          }
          node {
            name: "w"
            op: "VariableV2"
            attr {
              key: "dtype"
              value { type: DT_DOUBLE }
            }
            attr {
              key: "shape"
              value { shape { dim { size: 4611686018427387904 } } }
            }
          }
          node {
            name: "u"
            op: "VariableV2"
            attr {
              key: "dtype"
              value { type: 77 }
            }
            attr {
              key: "shape"
              value { shape { unknown_rank: true } }
            }
          }
        }
        signature_def {
          key: "serving_default"
          value {
            inputs {
              key: "image"
              value {
                name: "x:0"
                dtype: DT_FLOAT
                tensor_shape {
                  dim { size: -1 }
                  dim { size: 64 }
                }
              }
            }
            outputs {
              key: "scores"
              value {
                name: "s:0"
                dtype: DT_FLOAT
                tensor_shape { unknown_rank: true }
              }
            }
            method_name: "tensorflow/serving/predict"
          }
        })pb",
      &file.meta_graph));
  const std::string summary = SummarizeGraph(file);
  EXPECT_THAT(summary, HasSubstr("tags serve"));
  EXPECT_THAT(summary, HasSubstr("9,223,372,036,854,775,807 parameters"));
  EXPECT_THAT(summary, HasSubstr("u     ?        <unknown>"));
  EXPECT_THAT(summary, HasSubstr("signature serving_default (tensorflow/serving/predict):\n"
                                 "  input   image   x:0 float32 [?,64]\n"
                                 "  output  scores  s:0 float32 <unknown>\n"));
  EXPECT_THAT(summary, Not(HasSubstr("placeholder")));
}

}  // namespace
}  // namespace ferry
