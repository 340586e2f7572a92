// SavedModels: TensorFlow's, our own, and what is refused.
#include "saver/saved_model.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status.h"
#include "runtime/graph/collections.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "saver/freeze.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

const std::string kTheirs = "tests/testdata/saved_models/";  // NOLINT(runtime/string)

Tensor Fetch(Session* session, const std::string& name,
             const std::vector<std::pair<std::string, Tensor>>& feeds = {}) {
  std::vector<Tensor> out;
  const absl::Status status = session->Run(feeds, {name}, {}, &out);
  EXPECT_TRUE(status.ok()) << status;
  return status.ok() ? out[0] : Tensor();
}

// Runs serving_default with input [1, 10] -> [2.5, 30.25].
void ExpectLinear(const SavedModelBundle& model) {
  const auto& signature = model.meta_graph.signature_def().at(kDefaultServingSignature);
  EXPECT_EQ(signature.method_name(), kPredictMethod);
  const Tensor y = Fetch(
      model.session.get(), signature.outputs().at("output").name(),
      {{signature.inputs().at("input").name(), Tensor::Of<float>({1, 10}, TensorShape({1, 2}))}});
  EXPECT_THAT(y.span<float>(), ElementsAre(2.5, 30.25));
}

TEST(SavedModelInterop, Linear) {
  for (const std::string name : {"plain", "resource", "two"}) {
    const auto model = LoadSavedModel({}, kTheirs + name, {kServe});
    ASSERT_TRUE(model.ok()) << model.status();
    ExpectLinear(*model);
  }
}

// Of TensorFlow 2: the signature calls a function with a loop and a conditional, and the variables
// are restored by another.
TEST(SavedModelInterop, Functions) {
  const auto model = LoadSavedModel({}, kTheirs + "functions", {kServe});
  ASSERT_TRUE(model.ok()) << model.status();
  const auto& signature = model->meta_graph.signature_def().at(kDefaultServingSignature);
  const std::string x = signature.inputs().at("x").name();
  const std::string y = signature.outputs().at("y").name();
  const std::string count = signature.outputs().at("count").name();
  Session* const session = model->session.get();
  std::vector<Tensor> out;
  absl::Status s = session->Run({{x, Tensor::Of<float>({1, 1}, TensorShape({1, 2}))}}, {y, count},
                                {}, &out);
  ASSERT_TRUE(s.ok()) << s;
  EXPECT_THAT(out[0].span<float>(), ElementsAre(11.5, 30.25));
  EXPECT_EQ(out[1].scalar<int64_t>(), 6);
  s = session->Run({{x, Tensor::Of<float>({1, 10}, TensorShape({1, 2}))}}, {y, count}, {}, &out);
  ASSERT_TRUE(s.ok()) << s;
  EXPECT_THAT(out[0].span<float>(), ElementsAre(-11.5, -273.25));
  EXPECT_EQ(out[1].scalar<int64_t>(), 7);
}

TEST(SavedModelInterop, TagsInAnyOrder) {
  const auto model = LoadSavedModel({}, kTheirs + "two", {"gpu", "train"});
  ASSERT_TRUE(model.ok()) << model.status();
  ExpectLinear(*model);
  const Tensor x = Tensor::Of<float>({1, 10}, TensorShape({1, 2}));
  EXPECT_EQ(Fetch(model->session.get(), "loss:0", {{"x:0", x}}).scalar<float>(), 32.75);
}

TEST(SavedModelInterop, ImportScope) {
  LoadOptions options;
  options.import_scope = "model";
  const auto model = LoadSavedModel({}, kTheirs + "plain", {kServe}, options);
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_THAT(Fetch(model->session.get(), "model/w:0").span<float>(), ElementsAre(2, 3));
  // Two models side by side.
  const auto again = LoadSavedModelInto(model->session.get(), kTheirs + "two", {kServe}, options);
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_THAT(Fetch(model->session.get(), "model_1/w:0").span<float>(), ElementsAre(2, 3));
}

TEST(SavedModelInterop, AssetsAndInitOps) {
  const auto assets = LoadSavedModel({}, kTheirs + "assets", {kServe});
  ASSERT_TRUE(assets.ok()) << assets.status();
  EXPECT_EQ(Fetch(assets->session.get(), "text:0").scalar<std::string>(),
            kTheirs + "assets/assets/first.txt");
  const auto legacy = LoadSavedModel({}, kTheirs + "legacy", {kServe});
  ASSERT_TRUE(legacy.ok()) << legacy.status();
  EXPECT_EQ(Fetch(legacy->session.get(), "count:0").scalar<int32_t>(), 42);
}

TEST(SavedModelInterop, SimpleAndWithoutVariables) {
  const auto simple = LoadSavedModel({}, kTheirs + "simple", {kServe});
  ASSERT_TRUE(simple.ok()) << simple.status();
  EXPECT_THAT(Fetch(simple->session.get(), "b:0").span<float>(), ElementsAre(0.5, 0.25));
  const auto constant = LoadSavedModel({}, kTheirs + "constant", {kServe});
  ASSERT_TRUE(constant.ok()) << constant.status();
  EXPECT_THAT(
      Fetch(constant->session.get(), "y:0", {{"x:0", Tensor::Of<float>({4})}}).span<float>(),
      ElementsAre(5));
}

// The program's own model: y = x * w + b.
class SavedModelTest : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "saved_model.XXXXXX";
    ASSERT_NE(mkdtemp(&dir_[0]), nullptr);
    Build(scope_);
    ASSERT_TRUE(scope_.ok()) << scope_.status();
    ASSERT_TRUE(session_.Run({}, {}, {init_->name()}, nullptr).ok());
  }
  void Build(const Scope& s) {
    x_ = ops::Placeholder(s.WithOpName("x"), DType::kFloat, PartialShape({-1, 2}));
    const VariableHandle w = MakeVariable(s, "w", Tensor::Of<float>({2, 3}));
    const VariableHandle b = MakeVariable(s, "b", Tensor::Of<float>({0.5, 0.25}));
    y_ = ops::Add(s.WithOpName("y"), ops::Mul(s, x_, w.read), b.read);
    init_ = GlobalVariablesInitializer(s);
  }
  SavedModelGraph Serving() const {
    SavedModelGraph g;
    g.tags = {kServe};
    g.signatures[kDefaultServingSignature] = PredictSignature({{"input", x_}}, {{"output", y_}});
    return g;
  }
  std::unique_ptr<SavedModelBuilder> Builder(const std::string& dir) {
    auto builder = SavedModelBuilder::Create(fs_, dir);
    EXPECT_TRUE(builder.ok()) << builder.status();
    return *std::move(builder);
  }

  FileSystem* const fs_ = FileSystem::Posix();
  std::string dir_;
  Graph graph_;
  Scope scope_{&graph_};
  Output x_, y_;
  Node* init_ = nullptr;
  Session session_{&graph_};
};

TEST_F(SavedModelTest, BinaryAndText) {
  for (const bool as_text : {false, true}) {
    const std::string dir = absl::StrCat(dir_, "/a/b/", as_text);
    EXPECT_FALSE(MaybeSavedModelDirectory(fs_, dir));
    const auto builder = Builder(dir);
    ASSERT_TRUE(builder->AddMetaGraphAndVariables(&session_, Serving()).ok());
    EXPECT_FALSE(MaybeSavedModelDirectory(fs_, dir));
    const auto path = builder->Save(as_text);
    ASSERT_TRUE(path.ok()) << path.status();
    EXPECT_EQ(*path, absl::StrCat(dir, as_text ? "/saved_model.pbtxt" : "/saved_model.pb"));
    EXPECT_TRUE(MaybeSavedModelDirectory(fs_, dir));
    EXPECT_THAT(fs_->List(dir + "/variables").value(),
                ElementsAre("variables.data-00000-of-00001", "variables.index"));
    const auto model = LoadSavedModel({}, dir, {kServe});
    ASSERT_TRUE(model.ok()) << model.status();
    ExpectLinear(*model);
  }
}

TEST_F(SavedModelTest, WhatWasLoadedIsSavedAgain) {
  for (const std::string name : {"plain", "resource", "assets"}) {
    const auto model = LoadSavedModel({}, kTheirs + name, {kServe});
    ASSERT_TRUE(model.ok()) << model.status();
    const std::string dir = absl::StrCat(dir_, "/", name);
    const auto builder = Builder(dir);
    SavedModelGraph g;
    g.tags = {"again"};
    for (const auto& [key, s] : model->meta_graph.signature_def()) g.signatures[key] = s;
    if (name == "assets") {
      // What the graph holds as constants are the paths of the machine that exported it.
      g.main_op = model->graph->FindNode("main");
      EXPECT_THAT(builder->AddMetaGraphAndVariables(model->session.get(), g).message(),
                  HasSubstr("Graph already contains one or more main ops"));
      continue;
    }
    ASSERT_TRUE(builder->AddMetaGraphAndVariables(model->session.get(), g).ok());
    ASSERT_TRUE(builder->Save().ok());
    const auto again = LoadSavedModel({}, dir, {"again"});
    ASSERT_TRUE(again.ok()) << again.status();
    ExpectLinear(*again);
  }
}

TEST_F(SavedModelTest, SeveralGraphs) {
  const auto builder = Builder(dir_);
  EXPECT_THAT(builder->AddMetaGraph(&graph_, Serving()).message(),
              HasSubstr("has not been saved yet"));
  ASSERT_TRUE(builder->AddMetaGraphAndVariables(&session_, Serving()).ok());
  EXPECT_THAT(builder->AddMetaGraphAndVariables(&session_, Serving()).message(),
              HasSubstr("has already been saved"));
  Graph other;
  const Scope s(&other);
  Build(s);
  ops::ReduceSum(s.WithOpName("loss"), y_);
  ASSERT_TRUE(s.ok()) << s.status();
  SavedModelGraph training = Serving();
  training.tags = {kTrain, "gpu"};
  training.strip_default_attrs = true;
  ASSERT_TRUE(builder->AddMetaGraph(&other, training).ok());
  ASSERT_TRUE(builder->Save().ok());
  const auto model = LoadSavedModel({}, dir_, {"gpu", kTrain});
  ASSERT_TRUE(model.ok()) << model.status();
  ExpectLinear(*model);
  EXPECT_TRUE(model->meta_graph.meta_info_def().stripped_default_attrs());
  EXPECT_NE(model->graph->FindNode("loss"), nullptr);

  const absl::Status status = LoadSavedModel({}, dir_, {"serving"}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(),
              HasSubstr("MetaGraphDef associated with tags 'serving' could not be found in "
                        "SavedModel, with available tags '[{'serve'}, {'gpu', 'train'}]'"));
}

TEST_F(SavedModelTest, AssetsAndMainOp) {
  ASSERT_TRUE(fs_->CreateDir(dir_ + "/in").ok());
  ASSERT_TRUE(fs_->CreateDir(dir_ + "/other").ok());
  const auto write = [&](const std::string& name, const std::string& text) {
    EXPECT_TRUE(WriteFileAtomically(fs_, JoinPath(dir_, name), text).ok());
    return ops::Const(scope_, JoinPath(dir_, name).c_str());
  };
  SavedModelGraph g = Serving();
  g.assets = {write("in/words.txt", "one"), write("in/more.txt", std::string(3 << 20, 'x')),
              write("other/words.txt", "two"), write("other/more.txt", std::string(3 << 20, 'x'))};
  const VariableHandle path = MakeVariable(scope_, "path", Tensor::Scalar<std::string>(""));
  const Output assigned = ops::Assign(scope_, path.ref, g.assets[2]);
  g.main_op = ops::NoOp(scope_.WithOpName("main").WithControlDependencies({assigned.node}));
  ASSERT_TRUE(scope_.ok()) << scope_.status();
  ASSERT_TRUE(session_.Run({}, {}, {path.initializer->name()}, nullptr).ok());
  const auto builder = Builder(dir_ + "/out");
  const absl::Status added = builder->AddMetaGraphAndVariables(&session_, g);
  ASSERT_TRUE(added.ok()) << added;
  ASSERT_TRUE(builder->Save().ok());
  // Equal files are one; others of the same name get another.
  EXPECT_THAT(fs_->List(dir_ + "/out/assets").value(),
              ElementsAre("more.txt", "words.txt", "words.txt_1"));
  EXPECT_EQ(ReadFile(fs_, dir_ + "/out/assets/words.txt_1").value(), "two");
  EXPECT_EQ(ReadFile(fs_, dir_ + "/out/assets/more.txt").value().size(), size_t{3} << 20);
  // The program's graph stays as it was, and may be exported again.
  EXPECT_EQ(graph_.collections().count("saved_model_main_op"), 0u);

  ASSERT_TRUE(fs_->Rename(dir_ + "/out", dir_ + "/moved").ok());
  const auto model = LoadSavedModel({}, dir_ + "/moved", {kServe});
  ASSERT_TRUE(model.ok()) << model.status();
  EXPECT_EQ(Fetch(model->session.get(), "path:0").scalar<std::string>(),
            dir_ + "/moved/assets/words.txt_1");
}

TEST_F(SavedModelTest, RefusedAssets) {
  int number = 0;
  const auto refuse = [&](const Output& asset, absl::StatusCode code, const std::string& words) {
    const std::string dir = absl::StrCat(dir_, "/", ++number);
    SavedModelGraph g = Serving();
    g.assets = {asset};
    const absl::Status status = Builder(dir)->AddMetaGraphAndVariables(&session_, g);
    EXPECT_EQ(status.code(), code) << status;
    EXPECT_THAT(status.message(), HasSubstr(words));
    EXPECT_TRUE(fs_->List(dir).value().empty());  // Another try may follow.
  };
  refuse(ops::Const(scope_, (dir_ + "/none").c_str()), absl::StatusCode::kNotFound, "none");
  refuse(ops::Const(scope_, 1.0f), absl::StatusCode::kInvalidArgument, "must be a string Const");
  refuse(ops::ConstVector<std::string>(scope_, {"a", "b"}), absl::StatusCode::kInvalidArgument,
         "must hold one path");
  refuse(x_, absl::StatusCode::kInvalidArgument, "it is a Placeholder");
}

TEST_F(SavedModelTest, DirectoriesThatAreNotEmpty) {
  ASSERT_TRUE(SimpleSave(&session_, dir_ + "/m", {{"input", x_}}, {{"output", y_}}).ok());
  const auto model = LoadSavedModel({}, dir_ + "/m", {kServe});
  ASSERT_TRUE(model.ok()) << model.status();
  ExpectLinear(*model);
  const absl::Status status = SimpleSave(&session_, dir_ + "/m", {{"input", x_}}, {{"output", y_}});
  EXPECT_EQ(status.code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(status.message(), HasSubstr("already exists, and isn't empty"));
  ASSERT_TRUE(WriteFileAtomically(fs_, dir_ + "/file", "").ok());
  EXPECT_FALSE(SavedModelBuilder::Create(fs_, dir_ + "/file").ok());
}

TEST_F(SavedModelTest, Signatures) {
  const Output strings = ops::Placeholder(scope_.WithOpName("examples"), DType::kString);
  const proto::TensorInfo info = BuildTensorInfo(x_);
  EXPECT_EQ(info.name(), "x:0");
  EXPECT_EQ(info.dtype(), proto::DT_FLOAT);
  EXPECT_EQ(info.tensor_shape().dim(0).size(), -1);
  EXPECT_EQ(info.tensor_shape().dim(1).size(), 2);
  EXPECT_TRUE(BuildTensorInfo(strings).tensor_shape().unknown_rank());

  const auto classify = ClassificationSignature(strings, strings, y_);
  ASSERT_TRUE(classify.ok());
  EXPECT_EQ(classify->method_name(), "tensorflow/serving/classify");
  EXPECT_EQ(classify->inputs().at("inputs").name(), "examples:0");
  EXPECT_EQ(classify->outputs().at("classes").name(), "examples:0");
  EXPECT_EQ(classify->outputs().at("scores").name(), "y:0");
  EXPECT_EQ(ClassificationSignature(strings, {}, y_)->outputs_size(), 1);
  EXPECT_FALSE(ClassificationSignature(strings, {}, {}).ok());
  EXPECT_FALSE(ClassificationSignature(x_, strings, y_).ok());
  EXPECT_FALSE(ClassificationSignature(strings, y_, y_).ok());
  const auto regress = RegressionSignature(strings, y_);
  ASSERT_TRUE(regress.ok());
  EXPECT_EQ(regress->method_name(), "tensorflow/serving/regress");
  EXPECT_EQ(regress->outputs().at("outputs").name(), "y:0");
  EXPECT_FALSE(RegressionSignature(strings, strings).ok());

  const auto refuse = [&](const std::string& key, const proto::TensorInfo& tensor) {
    SavedModelGraph g = Serving();
    (*g.signatures[key].mutable_inputs())["in"] = tensor;
    const absl::Status status = Builder(dir_)->AddMetaGraphAndVariables(&session_, g);
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument) << status;
    return std::string(status.message());
  };
  EXPECT_THAT(refuse("__saved_model_init_op", info), HasSubstr("is reserved"));
  EXPECT_THAT(refuse("a", proto::TensorInfo()), HasSubstr("it has no name"));
  proto::TensorInfo untyped = info;
  untyped.clear_dtype();
  EXPECT_THAT(refuse("a", untyped), HasSubstr("it has no dtype"));
}

TEST_F(SavedModelTest, DamagedOnes) {
  absl::Status status = LoadSavedModel({}, dir_ + "/none", {kServe}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(),
              HasSubstr(absl::StrCat("SavedModel file does not exist at: ", dir_,
                                     "/none/{saved_model.pbtxt|saved_model.pb}")));
  for (const std::string name : {"saved_model.pb", "saved_model.pbtxt"}) {
    for (const std::string contents : {"", "\xff\xff\xff", "meta_graphs {"}) {
      ASSERT_TRUE(WriteFileAtomically(fs_, JoinPath(dir_, name), contents).ok());
      status = LoadSavedModel({}, dir_, {kServe}).status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
      EXPECT_THAT(status.message(), HasSubstr("Cannot parse file " + JoinPath(dir_, name)));
    }
    ASSERT_TRUE(fs_->Unlink(JoinPath(dir_, name)).ok());
  }

  ASSERT_TRUE(SimpleSave(&session_, dir_ + "/m", {{"input", x_}}, {{"output", y_}}).ok());
  ASSERT_TRUE(fs_->Unlink(dir_ + "/m/variables/variables.index").ok());
  status = LoadSavedModel({}, dir_ + "/m", {kServe}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(status.message(), HasSubstr("m/variables/variables"));

  // Assets that lead out of the folder, init ops that can't be.
  auto model = ReadSavedModel(fs_, kTheirs + "assets").value();
  auto* const collections = model.mutable_meta_graphs(0)->mutable_collection_def();
  const auto save = [&] {
    ASSERT_TRUE(
        WriteFileAtomically(fs_, dir_ + "/bad/saved_model.pb", model.SerializeAsString()).ok());
  };
  ASSERT_TRUE(fs_->CreateDir(dir_ + "/bad").ok());
  ASSERT_TRUE(fs_->CreateDir(dir_ + "/bad/variables").ok());
  for (const char* const file : {"variables.index", "variables.data-00000-of-00001"}) {
    ASSERT_TRUE(
        WriteFileAtomically(fs_, absl::StrCat(dir_, "/bad/variables/", file),
                            ReadFile(fs_, absl::StrCat(kTheirs, "assets/variables/", file)).value())
            .ok());
  }
  proto::AssetFileDef asset;
  asset.mutable_tensor_info()->set_name("first:0");
  asset.set_filename("../../etc/passwd");
  auto* const any = (*collections)["saved_model_assets"].mutable_any_list()->mutable_value(0);
  any->set_value(asset.SerializeAsString());
  save();
  status = LoadSavedModel({}, dir_ + "/bad", {kServe}).status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(status.message(), HasSubstr("etc/passwd"));
  any->set_type_url("type.googleapis.com/tensorflow.Other");
  save();
  EXPECT_THAT(LoadSavedModel({}, dir_ + "/bad", {kServe}).status().message(),
              HasSubstr("no AssetFileDef"));
  (*collections)["saved_model_main_op"].mutable_node_list()->add_value("first");
  save();
  EXPECT_THAT(LoadSavedModel({}, dir_ + "/bad", {kServe}).status().message(),
              HasSubstr("Expected exactly one SavedModel init op. Found 2: [main, first]"));
}

TEST_F(SavedModelTest, EveryChangedByteIsNoticed) {
  for (const bool as_text : {false, true}) {
    FaultFileSystem memory;
    const std::string dir = absl::StrCat(dir_, "/", as_text);
    const auto builder = Builder(dir);
    ASSERT_TRUE(builder->AddMetaGraphAndVariables(&session_, Serving()).ok());
    const std::string path = builder->Save(as_text).value();
    const std::string good = ReadFile(fs_, path).value();
    const std::string file = "/" + BaseName(path);
    memory.SetContents(file, good);
    ASSERT_TRUE(ReadSavedModel(&memory, "/").ok());
    // The mark and what the file begins with, and then some.
    for (size_t i = 0; i < good.size(); i += i < 64 || i + 64 > good.size() ? 1 : 37) {
      std::string bad = good;
      bad[i] = static_cast<char>(bad[i] ^ 4);
      memory.SetContents(file, bad);
      const absl::Status status = ReadSavedModel(&memory, "/").status();
      EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss) << i;
      memory.SetContents(file, good.substr(0, i));
      EXPECT_FALSE(ReadSavedModel(&memory, "/").ok()) << i;
    }
  }
}

// Freezing and restoring by hand work on what a SavedModel holds.
TEST_F(SavedModelTest, Freezes) {
  const auto model = ReadSavedModel(fs_, kTheirs + "resource").value();
  const auto frozen =
      FreezeCheckpoint(fs_, model.meta_graphs(0), SavedModelVariables(kTheirs + "resource"), {"y"});
  ASSERT_TRUE(frozen.ok()) << frozen.status();
  EXPECT_EQ(frozen->node(1).op(), "Const");
}

// A power loss at any moment leaves a whole SavedModel or none.
TEST(SavedModelFaults, TheSavedModelFileComesLast) {
  FaultFileSystem fs;
  Graph graph;
  const Scope s(&graph);
  const VariableHandle v = MakeVariable(s, "v", Tensor::Of<float>({1, 2, 3}));
  Node* const init = GlobalVariablesInitializer(s);
  ASSERT_TRUE(s.ok()) << s.status();
  SessionOptions options;
  options.file_system = &fs;
  Session session(&graph, options);
  ASSERT_TRUE(session.Run({}, {}, {init->name()}, nullptr).ok());
  ASSERT_TRUE(SimpleSave(&session, "/export/1", {}, {{"v", v.read}}).ok());
  int found = 0;
  for (size_t n = 0; n <= fs.num_ops(); ++n) {
    for (const Surviving what :
         {Surviving::kSynced, Surviving::kNames, Surviving::kBytes, Surviving::kAll}) {
      const auto after = fs.AfterCrash(n, what);
      if (!MaybeSavedModelDirectory(after.get(), "/export/1")) continue;
      ++found;
      SessionOptions then;
      then.file_system = after.get();
      const auto model = LoadSavedModel(then, "/export/1", {kServe});
      ASSERT_TRUE(model.ok()) << n << " " << fs.OpName(n - 1) << model.status();
      EXPECT_THAT(Fetch(model->session.get(), "v:0").span<float>(), ElementsAre(1, 2, 3));
    }
  }
  EXPECT_GE(found, 4);  // At least after the last operation.
}

}  // namespace
}  // namespace ferry
