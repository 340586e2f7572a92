// Goes on from TensorFlow's checkpoints of the digits network: with the graph of TensorFlow's meta
// graph and with the same network made here, each beside the numbers that TensorFlow got.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <map>
#include <sstream>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "runtime/base/file_system.h"
#include "runtime/session/session.h"
#include "saver/checkpoint_reader.h"
#include "saver/checkpoint_state.h"
#include "saver/meta_graph.h"
#include "saver/saver.h"
#include "tests/mlp.h"
#include "tools/dataset.h"

namespace ferry {
namespace {

using ::ferry::testing::MakeMlpOptimizer;
using ::ferry::testing::Mlp;
using ::ferry::testing::MlpBatch;
using ::ferry::testing::MlpFeeds;
using ::ferry::testing::MlpRows;

// The sums of TensorFlow's kernels are in another order.
constexpr double kTolerance = 1e-4;

void ExpectNear(double ours, double theirs, const std::string& what) {
  EXPECT_NEAR(ours, theirs, kTolerance * std::max(1e-2, std::abs(theirs))) << what;
}

// The lines of expected.txt, whose form make_mlp.py gives: the words after the first, which is the
// key ("loss 100" and "logits 3" are keys too).
std::map<std::string, std::vector<double>> ReadExpected(const std::string& path) {
  const auto text = ReadFile(FileSystem::Posix(), path);
  EXPECT_TRUE(text.ok()) << text.status();
  std::map<std::string, std::vector<double>> expected;
  for (absl::string_view line : absl::StrSplit(*text, '\n', absl::SkipEmpty())) {
    std::istringstream words{std::string(line)};
    std::string key, index;
    words >> key;
    if (key == "loss" || key == "logits") {
      words >> index;
      absl::StrAppend(&key, " ", index);
    }
    for (double v; words >> v;) expected[key].push_back(v);
  }
  return expected;
}

SaveOptions AtStep(int64_t step) {
  SaveOptions options;
  options.global_step = step;
  return options;
}

class MlpInterop : public ::testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    dir_ = absl::StrCat("tests/testdata/mlp/", GetParam());
    expected_ = ReadExpected(absl::StrCat(dir_, "/expected.txt"));
    auto data = BuiltInDigits();
    ASSERT_TRUE(data.ok()) << data.status();
    data_ = *std::move(data);
    ASSERT_EQ(data_.train.size(), 1438);
    const auto latest = LatestCheckpoint(fs_, dir_);
    ASSERT_TRUE(latest.ok()) << latest.status();
    checkpoint_ = *latest;
    ASSERT_EQ(checkpoint_, dir_ + "/model.ckpt-100");
  }

  std::string TempDir() {
    std::string path = ::testing::TempDir() + "mlp_interop.XXXXXX";
    EXPECT_NE(mkdtemp(&path[0]), nullptr);
    return path;
  }

  Tensor Fetch(Session* session, const MlpFeeds& feeds, const std::string& name) {
    std::vector<Tensor> out;
    const absl::Status status = session->Run(feeds, {name}, {}, &out);
    EXPECT_TRUE(status.ok()) << status;
    return status.ok() ? out[0] : Tensor::Scalar<float>(NAN);
  }

  // What the session holds is TensorFlow's state after 100 steps.
  void ExpectStateOfCheckpoint(Session* session) {
    ASSERT_EQ(Fetch(session, {}, "global_step:0").scalar<int64_t>(), 100);
    const Tensor logits = Fetch(session, MlpRows(data_.test, 0, 8), "logits/BiasAdd:0");
    ASSERT_EQ(logits.shape(), (TensorShape{8, 10}));
    for (size_t row = 0; row < 8; ++row) {
      const std::vector<double>& theirs = expected_.at(absl::StrCat("logits ", row));
      for (size_t i = 0; i < 10; ++i) {
        ExpectNear(logits.data<float>()[row * 10 + i], theirs.at(i), absl::StrCat("logits ", row));
      }
    }
    ExpectNear(
        Fetch(session, MlpRows(data_.test, 0, data_.test.size()), "accuracy:0").scalar<float>(),
        expected_.at("accuracy").at(0), "accuracy");
  }

  // The loss before each step, and the weights after the last one, are TensorFlow's.
  void ExpectNextSteps(Session* session, const std::string& train_op, int64_t first = 100) {
    for (int64_t step = first; step < 120; ++step) {
      std::vector<Tensor> out;
      const absl::Status status =
          session->Run(MlpBatch(data_.train, step), {"loss:0"}, {train_op}, &out);
      ASSERT_TRUE(status.ok()) << status;
      ExpectNear(out[0].scalar<float>(), expected_.at(absl::StrCat("loss ", step)).at(0),
                 absl::StrCat("loss ", step));
    }
    EXPECT_EQ(Fetch(session, {}, "global_step:0").scalar<int64_t>(), 120);
    const Tensor weights = Fetch(session, {}, "hidden1/weights:0");
    for (size_t i = 0; i < 8; ++i) {
      ExpectNear(weights.data<float>()[20 * 128 + i], expected_.at("final").at(i), "final weights");
    }
  }

  // Both hold the same tensors with the same bytes.
  void ExpectEqualCheckpoints(const std::string& ours, const std::string& theirs) {
    const auto a = CheckpointReader::Open(fs_, ours), b = CheckpointReader::Open(fs_, theirs);
    ASSERT_TRUE(a.ok()) << a.status();
    ASSERT_TRUE(b.ok()) << b.status();
    EXPECT_EQ((*a)->DebugString(), (*b)->DebugString());
    for (const CheckpointReader::TensorInfo& info : (*b)->Tensors()) {
      const auto x = (*a)->GetTensor(info.name), y = (*b)->GetTensor(info.name);
      ASSERT_TRUE(x.ok() && y.ok()) << x.status() << y.status();
      ASSERT_EQ(x->bytes(), y->bytes());
      EXPECT_EQ(std::memcmp(x->raw(), y->raw(), x->bytes()), 0) << info.name;
    }
  }

  FileSystem* const fs_ = FileSystem::Posix();
  std::string dir_, checkpoint_;
  std::map<std::string, std::vector<double>> expected_;
  Dataset data_;
};

INSTANTIATE_TEST_SUITE_P(Optimizers, MlpInterop, ::testing::Values("adam", "momentum", "sgd"),
                         [](const auto& info) { return info.param; });

// The train op has the optimizer's name.
std::string TrainOp(const std::string& folder) {
  return folder == "adam" ? "Adam" : folder == "momentum" ? "Momentum" : "GradientDescent";
}

TEST_P(MlpInterop, GoesOnWithTheImportedGraph) {
  Graph graph;
  const auto meta = ReadMetaGraph(fs_, checkpoint_ + ".meta");
  ASSERT_TRUE(meta.ok()) << meta.status();
  const auto imported = ImportMetaGraph(*meta, {}, &graph);
  ASSERT_TRUE(imported.ok()) << imported.status();
  ASSERT_TRUE(imported->has_saver_def);
  const auto saver = Saver::FromProto(&graph, imported->saver_def);
  ASSERT_TRUE(saver.ok()) << saver.status();
  Session session(&graph);
  const absl::Status restored = (*saver)->Restore(&session, checkpoint_);
  ASSERT_TRUE(restored.ok()) << restored;
  ExpectStateOfCheckpoint(&session);

  // Saved before it goes on, the files of the variables are TensorFlow's, byte for byte.
  const std::string dir = TempDir();
  const auto saved = (*saver)->Save(&session, dir + "/model.ckpt", AtStep(100));
  ASSERT_TRUE(saved.ok()) << saved.status();
  for (const char* file : {".index", ".data-00000-of-00001"}) {
    const auto ours = ReadFile(fs_, *saved + file), theirs = ReadFile(fs_, checkpoint_ + file);
    ASSERT_TRUE(ours.ok() && theirs.ok()) << ours.status() << theirs.status();
    EXPECT_TRUE(*ours == *theirs) << file;
  }
  ExpectNextSteps(&session, TrainOp(GetParam()));
}

// The graph's own nodes save/… restore too, as TensorFlow runs them.
TEST_P(MlpInterop, SaveNodesOfTheImportedGraphRun) {
  Graph graph;
  const auto meta = ReadMetaGraph(fs_, checkpoint_ + ".meta");
  ASSERT_TRUE(meta.ok()) << meta.status();
  const auto imported = ImportMetaGraph(*meta, {}, &graph);
  ASSERT_TRUE(imported.ok()) << imported.status();
  const proto::SaverDef& def = imported->saver_def;
  Session session(&graph);
  absl::Status status =
      session.Run({{def.filename_tensor_name(), Tensor::Scalar<std::string>(checkpoint_)}}, {},
                  {def.restore_op_name()}, nullptr);
  ASSERT_TRUE(status.ok()) << status;
  ExpectStateOfCheckpoint(&session);
  const std::string prefix = TempDir() + "/again";
  std::vector<Tensor> out;
  status = session.Run({{def.filename_tensor_name(), Tensor::Scalar<std::string>(prefix)}},
                       {def.save_tensor_name()}, {}, &out);
  ASSERT_TRUE(status.ok()) << status;
  EXPECT_EQ(out[0].scalar<std::string>(), prefix);
  ExpectEqualCheckpoints(prefix, checkpoint_);
}

TEST_P(MlpInterop, GoesOnWithTheNetworkMadeHere) {
  const std::unique_ptr<Optimizer> optimizer = MakeMlpOptimizer(GetParam());
  Mlp mlp(optimizer.get());
  ASSERT_TRUE(mlp.s.ok()) << mlp.s.status();
  auto saver = Saver::Create(&mlp.graph);
  ASSERT_TRUE(saver.ok()) << saver.status();
  Session session(&mlp.graph);
  absl::Status status = (*saver)->Restore(&session, checkpoint_);
  ASSERT_TRUE(status.ok()) << status;
  ExpectStateOfCheckpoint(&session);

  // Half of the way, then from a save of ours in a new session, from the meta graph that it wrote.
  for (int64_t step = 100; step < 110; ++step) {
    status = session.Run(MlpBatch(data_.train, step), {}, {mlp.train_op->name()}, nullptr);
    ASSERT_TRUE(status.ok()) << status;
  }
  const std::string dir = TempDir();
  const auto saved = (*saver)->Save(&session, dir + "/model.ckpt", AtStep(110));
  ASSERT_TRUE(saved.ok()) << saved.status();
  ASSERT_EQ(*saved, dir + "/model.ckpt-110");
  const VerifyReport report = VerifyCheckpoint(fs_, dir);
  for (const absl::Status& damage : report.damage) ADD_FAILURE() << damage;
  EXPECT_EQ(report.prefix, *saved);

  Graph graph;
  const auto meta = ReadMetaGraph(fs_, *saved + ".meta");
  ASSERT_TRUE(meta.ok()) << meta.status();
  const auto imported = ImportMetaGraph(*meta, {}, &graph);
  ASSERT_TRUE(imported.ok()) << imported.status();
  const auto saver2 = Saver::FromProto(&graph, imported->saver_def);
  ASSERT_TRUE(saver2.ok()) << saver2.status();
  Session session2(&graph);
  status = (*saver2)->Restore(&session2, *saved);
  ASSERT_TRUE(status.ok()) << status;
  const auto again = (*saver2)->Save(&session2, dir + "/again");
  ASSERT_TRUE(again.ok()) << again.status();
  ExpectEqualCheckpoints(*again, *saved);
  ExpectNextSteps(&session2, mlp.train_op->name(), 110);
}

// Adam's checkpoint has all that plain gradient descent needs, and nothing of what Momentum needs
// besides; a restore that fails leaves the variables as they were.
TEST_P(MlpInterop, AnothersCheckpointIsEnoughOrNothing) {
  const std::string other = absl::StrCat(
      "tests/testdata/mlp/", GetParam() == "adam" ? "momentum" : "adam", "/model.ckpt-100");
  const std::unique_ptr<Optimizer> optimizer = MakeMlpOptimizer(GetParam());
  Mlp mlp(optimizer.get());
  ASSERT_TRUE(mlp.s.ok()) << mlp.s.status();
  const auto saver = Saver::Create(&mlp.graph);
  ASSERT_TRUE(saver.ok()) << saver.status();
  Session session(&mlp.graph);
  ASSERT_TRUE(session.Run({}, {}, {mlp.init->name()}, nullptr).ok());
  const absl::Status status = (*saver)->Restore(&session, other);
  const bool enough = GetParam() == "sgd";
  EXPECT_EQ(status.ok(), enough) << status;
  if (!enough) {
    EXPECT_EQ(status.code(), absl::StatusCode::kNotFound) << status;
    EXPECT_THAT(std::string(status.message()), ::testing::HasSubstr("not found in checkpoint"));
  }
  EXPECT_EQ(Fetch(&session, {}, "global_step:0").scalar<int64_t>(), enough ? 100 : 0);
}

}  // namespace
}  // namespace ferry
