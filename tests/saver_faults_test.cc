// Tests the Saver when things go wrong: a save or restore that fails at any call, power loss at any
// moment, damaged files, what killed saves left, errors in the background.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <thread>

#include "absl/strings/match.h"
#include "absl/time/clock.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "saver/bundle_reader.h"
#include "saver/bundle_writer.h"
#include "saver/checkpoint_reader.h"
#include "saver/checkpoint_state.h"
#include "saver/saver.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::ElementsAreArray;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

using Feeds = std::vector<std::pair<Output, Tensor>>;

// A graph of a few variables, its session, and steps that change them all.
class Model {
 public:
  explicit Model(FileSystem* fs, int64_t size = 6, int64_t first = 1) : root(&graph) {
    std::vector<float> values(static_cast<size_t>(size), static_cast<float>(first));
    w = MakeVariable(root.WithDevice("/cpu:1"), "layer/w", Tensor::Of<float>(values));
    b = MakeVariable(root, "b", Tensor::Scalar<double>(static_cast<double>(first)));
    n = MakeVariable(root, "n", Tensor::Scalar<int64_t>(first));
    s = MakeVariable(root, "s", Tensor::Of<std::string>({"x", std::string(100, 'y')}));
    init = GlobalVariablesInitializer(root);
    const auto add = [&](const VariableHandle& v, const Tensor& one) {
      return ops::AssignAdd(root, v.ref, ops::Const(root, one)).node;
    };
    step =
        ops::Group(root, {add(w, Tensor::Of<float>(std::vector<float>(values.size(), 1))),
                          add(b, Tensor::Scalar<double>(1)), add(n, Tensor::Scalar<int64_t>(1))});
    SessionOptions options;
    options.file_system = fs;
    options.threads = 2;
    session = std::make_unique<Session>(&graph, options);
    EXPECT_TRUE(root.status().ok()) << root.status();
  }
  absl::Status Run(Node* target) {
    return session->Run(Feeds{}, {}, std::vector<Node*>{target}, nullptr);
  }
  void Init() { EXPECT_TRUE(Run(init).ok()); }
  void Step(int times = 1) {
    for (int i = 0; i < times; ++i) EXPECT_TRUE(Run(step).ok());
  }
  // The count that all variables agree on; -1 if one isn't initialised; -2 if they differ.
  int64_t State() {
    for (Variable* v : session->variables()->All()) {
      if (!v->initialized()) return -1;
    }
    std::vector<Tensor> out;
    const absl::Status status =
        session->Run(Feeds{}, {w.ref, b.ref, n.ref, s.ref}, std::vector<Node*>{}, &out);
    EXPECT_TRUE(status.ok()) << status;
    const int64_t count = out[2].scalar<int64_t>();
    for (const float x : out[0].span<float>()) {
      if (x != static_cast<float>(count)) return -2;
    }
    if (out[3].data<std::string>()[1] != std::string(100, 'y')) return -2;
    return out[1].scalar<double>() == static_cast<double>(count) ? count : -2;
  }

  Graph graph;
  Scope root;
  VariableHandle w, b, n, s;
  Node *init, *step;
  std::unique_ptr<Session> session;
};

std::unique_ptr<Saver> Make(Graph* graph, const SaverOptions& options = {}) {
  auto saver = Saver::Create(graph, options);
  EXPECT_TRUE(saver.ok()) << saver.status();
  return saver.ok() ? *std::move(saver) : nullptr;
}

SaveOptions AtStep(int64_t step) {
  SaveOptions options;
  options.global_step = step;
  return options;
}

// The value that the checkpoint holds, as Model::State().
int64_t Saved(FileSystem* fs, const std::string& prefix) {
  const auto reader = BundleReader::Open(fs, prefix);
  if (!reader.ok() || !(*reader)->Verify(nullptr).empty()) return -3;
  const Tensor n = *(*reader)->Read("n"), w = *(*reader)->Read("layer/w");
  for (const float x : w.span<float>()) {
    if (x != static_cast<float>(n.scalar<int64_t>())) return -2;
  }
  if ((*reader)->Read("b")->scalar<double>() != static_cast<double>(n.scalar<int64_t>())) return -2;
  return n.scalar<int64_t>();
}

std::string Words(const absl::Status& status, absl::StatusCode code) {
  EXPECT_EQ(status.code(), code) << status;
  return std::string(status.message());
}

std::vector<std::string> Indices(FileSystem* fs, const std::string& dir) {
  std::vector<std::string> out;
  const auto files = fs->List(dir);
  EXPECT_TRUE(files.ok()) << files.status();
  for (const std::string& file : *files) {
    if (absl::EndsWith(file, ".index")) out.push_back(file.substr(0, file.size() - 6));
  }
  return out;
}

TEST(SaverFaults, ClearsWhatKilledSavesLeftAndNothingElse) {
  FaultFileSystem fs;
  Model m(&fs);
  m.Init();
  ASSERT_TRUE(fs.CreateDir("/d").ok());
  const std::vector<std::string> rubbish = {"/d/a-3.data-00000-of-00001.ferry-tmp",
                                            "/d/a-3.index.ferry-tmp", "/d/a-4.data-00000-of-00001",
                                            "/d/a-4.meta", "/d/a-5.meta.ferry-tmp"};
  const std::vector<std::string> others = {
      "/d/b-4.data-00000-of-00001",
      "/d/a.txt",
      "/d/graph.meta",
      "/d/a-best.meta",
      "/d/other.index",
      "/d/a-9",
      "/d/a-9.meta"};  // The last two: a checkpoint of the V1 format.
  for (const std::string& file : rubbish) fs.SetContents(file, "x");
  for (const std::string& file : others) fs.SetContents(file, "x");
  ASSERT_TRUE(Make(&m.graph)->Save(m.session.get(), "/d/a", AtStep(6)).ok());
  for (const std::string& file : rubbish) EXPECT_FALSE(fs.Exists(file)) << file;
  for (const std::string& file : others) EXPECT_TRUE(fs.Exists(file)) << file;
}

TEST(SaverFaults, FailedRestoresLeaveEveryVariableAsItWas) {
  FaultFileSystem fs;
  Model m(&fs);
  m.Init();
  const auto saver = Make(&m.graph);
  ASSERT_TRUE(saver->Save(m.session.get(), "/a").ok());
  m.Step(3);
  const auto restore = [&](const std::string& prefix) {
    const absl::Status status = saver->Restore(m.session.get(), prefix);
    EXPECT_EQ(m.State(), 4) << status;
    return status;
  };
  EXPECT_THAT(Words(restore("/none"), absl::StatusCode::kInvalidArgument),
              HasSubstr("The passed save_path is not a valid checkpoint: /none"));
  EXPECT_THAT(Words(restore("/a.index"), absl::StatusCode::kInvalidArgument),
              HasSubstr("pass the prefix '/a'"));

  // Checkpoints of other models.
  const auto write = [&](const std::string& prefix, const std::string& name, const Tensor& t) {
    auto writer = BundleWriter::Open(&fs, prefix);
    for (const auto& [key, tensor] : std::vector<std::pair<std::string, Tensor>>{
             {"b", Tensor::Scalar<double>(9)},
             {"layer/w", Tensor::Of<float>({9, 9, 9, 9, 9, 9})},
             {"n", Tensor::Scalar<int64_t>(9)},
             {"s", Tensor::Of<std::string>({"x", "z"})}}) {
      if (key == name) continue;
      EXPECT_TRUE((*writer)->Add(key, tensor).ok());
    }
    if (t.initialized()) {
      EXPECT_TRUE((*writer)->Add(name, t).ok());
    }
    EXPECT_TRUE((*writer)->Commit().ok());
  };
  write("/lacks", "n", Tensor());
  EXPECT_THAT(Words(restore("/lacks"), absl::StatusCode::kNotFound),
              HasSubstr("Key n not found in checkpoint"));
  write("/dtype", "n", Tensor::Scalar<float>(9));
  EXPECT_THAT(
      Words(restore("/dtype"), absl::StatusCode::kInvalidArgument),
      HasSubstr("tensor_name = n; expected dtype int64 does not equal original dtype float"));
  write("/shape", "layer/w", Tensor::Of<float>({9, 9, 9, 9, 9}));
  const std::string shape = Words(restore("/shape"), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(shape, HasSubstr("Assign requires shapes of both tensors to match. "
                               "lhs shape= [6] rhs shape= [5]"));
  EXPECT_THAT(shape, HasSubstr("'layer/w'"));

  // Damage in any byte of the data, and files that are cut or gone.
  const std::string data = DataFileName("/a", 0, 1), good = *fs.Contents(data);
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] ^= 0x10;
    fs.SetContents(data, bad);
    EXPECT_EQ(restore("/a").code(), absl::StatusCode::kDataLoss) << i;
  }
  fs.SetContents(data, good.substr(0, good.size() - 1));
  EXPECT_THAT(Words(restore("/a"), absl::StatusCode::kDataLoss), HasSubstr(data));
  ASSERT_TRUE(fs.Unlink(data).ok());
  EXPECT_THAT(Words(restore("/a"), absl::StatusCode::kNotFound), HasSubstr(data));
  fs.SetContents(data, good);
  ASSERT_TRUE(saver->Restore(m.session.get(), "/a").ok());
  EXPECT_EQ(m.State(), 1);

  // The failure of any call.
  m.Step(3);
  int64_t failed = 0;
  for (int64_t call = 0;; ++call) {
    const int64_t before = fs.calls();
    fs.FailCall(call, absl::UnavailableError("input/output error"));
    const absl::Status status = saver->Restore(m.session.get(), "/a");
    fs.StopFailing();
    if (fs.calls() <= before + call) break;
    ++failed;
    EXPECT_FALSE(status.ok()) << fs.LastFailure();
    EXPECT_EQ(m.State(), 4) << fs.LastFailure();
  }
  EXPECT_GE(failed, 5);
  EXPECT_EQ(m.State(), 1);
}

// With all in one data file, and in two, written by two threads.
class SaverShards : public ::testing::TestWithParam<bool> {};
INSTANTIATE_TEST_SUITE_P(All, SaverShards, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Sharded" : "Whole"; });

TEST_P(SaverShards, ASaveThatFailsAtAnyCallLeavesTheLastCheckpoint) {
  std::vector<std::string> files = {"a-3.data-00000-of-00001", "a-3.index", "a-3.meta",
                                    "checkpoint"};
  if (GetParam()) {
    files[0] = "a-3.data-00000-of-00002";
    files.insert(files.begin() + 1, "a-3.data-00001-of-00002");
  }
  for (const bool all_later : {false, true}) {
    int64_t failed = 0;
    for (int64_t call = 0;; ++call) {
      FaultFileSystem fs;
      Model m(&fs);
      m.Init();
      SaverOptions options;
      options.max_to_keep = 1;
      options.sharded = GetParam();
      const auto saver = Make(&m.graph, options);
      ASSERT_TRUE(saver->Save(m.session.get(), "/d/a", AtStep(1)).ok());
      m.Step();
      const int64_t before = fs.calls();
      fs.FailCall(call, absl::ResourceExhaustedError("no space left on device"), all_later);
      const auto path = saver->Save(m.session.get(), "/d/a", AtStep(2));
      const bool reached = fs.calls() > before + call;
      fs.StopFailing();
      const std::string when = absl::StrCat("call ", call, " failing (", fs.LastFailure(), ")");
      const auto latest = LatestCheckpoint(&fs, "/d");
      ASSERT_TRUE(latest.ok()) << latest.status() << when;
      if (path.ok()) {
        EXPECT_EQ(*latest, "/d/a-2") << when;
        EXPECT_EQ(Saved(&fs, "/d/a-2"), 2) << when;
      } else {
        ++failed;
        EXPECT_EQ(path.status().code(), absl::StatusCode::kResourceExhausted) << when;
        EXPECT_EQ(Saved(&fs, "/d/a-1"), 1) << when;
        EXPECT_EQ(Saved(&fs, *latest), *latest == "/d/a-1" ? 1 : 2) << when;
      }
      // The next save that goes well leaves nothing but itself.
      m.Step();
      ASSERT_TRUE(saver->Save(m.session.get(), "/d/a", AtStep(3)).ok()) << when;
      EXPECT_EQ(Saved(&fs, "/d/a-3"), 3) << when;
      EXPECT_THAT(*fs.List("/d"), ElementsAreArray(files)) << when;
      if (!reached) break;
      if (HasFailure()) return;
    }
    EXPECT_GT(failed, 15);
  }
}

TEST_P(SaverShards, PowerLossAtAnyMomentLeavesACheckpointThatTheStateNames) {
  for (const bool same_prefix : {false, true}) {
    FaultFileSystem fs;
    Model m(&fs);
    m.Init();
    SaverOptions options;
    options.max_to_keep = 1;
    options.sharded = GetParam();
    const auto saver = Make(&m.graph, options);
    const SaveOptions first = same_prefix ? SaveOptions() : AtStep(1);
    const SaveOptions second = same_prefix ? SaveOptions() : AtStep(2);
    ASSERT_TRUE(saver->Save(m.session.get(), "/d/a", first).ok());
    m.Step();
    const size_t begin = fs.num_ops();
    ASSERT_TRUE(saver->Save(m.session.get(), "/d/a", second).ok());
    const size_t end = fs.num_ops();
    // What the returned save made durable ends before the eviction and the clean-up.
    for (size_t n = begin; n <= end; ++n) {
      for (uint32_t seed = 0; seed < 12; ++seed) {
        const auto way = static_cast<Surviving>(std::min<uint32_t>(seed, 4));
        const auto after = fs.AfterCrash(n, way, seed);
        const std::string when = absl::StrCat("after ", n - begin, " of ", end - begin,
                                              " operations (the last: ", fs.OpName(n - 1),
                                              "), way ", seed, same_prefix ? ", same prefix" : "");
        const auto latest = LatestCheckpoint(after.get(), "/d");
        ASSERT_TRUE(latest.ok()) << latest.status() << when;
        ASSERT_FALSE(latest->empty()) << when;
        const int64_t found = Saved(after.get(), *latest);
        EXPECT_TRUE(found == 1 || found == 2) << found << when;
        EXPECT_TRUE(VerifyCheckpoint(after.get(), *latest).damage.empty()) << when;
        if (n == end) {
          EXPECT_EQ(found, 2) << when;
        }
        if (HasFailure()) return;
      }
    }
  }
}

TEST(SaverFaults, SkipsWaitsAndTellsErrorsOnce) {
  FaultFileSystem fs;
  Model m(&fs);
  m.Init();
  const auto saver = Make(&m.graph);
  ASSERT_TRUE(fs.CreateDir("/d").ok());
  AsyncSaveOptions skip;
  skip.when_busy = WhenBusy::kSkip;
  {
    // The save can't begin to write while another holds the directory.
    const auto lock = fs.Lock("/d");
    ASSERT_TRUE(*saver->SaveAsync(m.session.get(), "/d/a", AtStep(1)));
    EXPECT_TRUE(saver->busy());
    const auto skipped = saver->SaveAsync(m.session.get(), "/d/a", AtStep(2), skip);
    ASSERT_TRUE(skipped.ok());
    EXPECT_FALSE(*skipped);
  }
  ASSERT_TRUE(*saver->SaveAsync(m.session.get(), "/d/a", AtStep(3)));  // Waits.
  ASSERT_TRUE(saver->WaitForPending().ok());
  EXPECT_THAT(Indices(&fs, "/d"), ElementsAre("a-1", "a-3"));

  fs.FailCall(3, absl::ResourceExhaustedError("no space left on device"), true);
  ASSERT_TRUE(saver->SaveAsync(m.session.get(), "/d/a", AtStep(4)).ok());
  EXPECT_TRUE(absl::IsResourceExhausted(saver->WaitForPending()));
  EXPECT_TRUE(saver->WaitForPending().ok()) << "told once";
  m.Step();  // The variables are free again.
  ASSERT_TRUE(saver->SaveAsync(m.session.get(), "/d/a", AtStep(5)).ok());
  while (saver->busy()) std::this_thread::yield();
  EXPECT_TRUE(
      absl::IsResourceExhausted(saver->SaveAsync(m.session.get(), "/d/a", AtStep(6)).status()));
  fs.StopFailing();
  EXPECT_TRUE(saver->SaveAsync(m.session.get(), "/d/a", AtStep(7)).ok());
  EXPECT_TRUE(saver->WaitForPending().ok());
  EXPECT_EQ(Saved(&fs, "/d/a-7"), 2);
}

TEST(SaverFaults, WithoutAShadowPoolTrainingWaitsButIsNotTorn) {
  FaultFileSystem fs;
  Model m(&fs, 100000);
  m.Init();
  SaverOptions options;
  options.shadow_pool_bytes = 0;
  const auto saver = Make(&m.graph, options);
  for (int i = 0; i < 5; ++i) {
    ASSERT_TRUE(saver->SaveAsync(m.session.get(), "/d/a", AtStep(i)).ok());
    m.Step(3);
    ASSERT_TRUE(saver->WaitForPending().ok());
    EXPECT_EQ(Saved(&fs, absl::StrCat("/d/a-", i)), 1 + 3 * i);
  }
}

}  // namespace
}  // namespace ferry
