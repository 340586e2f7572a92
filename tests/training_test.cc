// The training loop: its hooks, and what happens when something goes wrong.
#include "saver/training.h"

#include <cmath>
#include <csignal>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/summary.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "saver/checkpoint_reader.h"
#include "saver/checkpoint_state.h"
#include "saver/event_writer.h"
#include "saver/hooks.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Not;

// Stands for a device that went away, once.
class LoseSessionKernel : public Kernel {
  absl::Status Compute(KernelContext*) const override {
    static bool lost = false;
    if (lost) return absl::OkStatus();
    lost = true;
    return absl::UnavailableError("the device went away");
  }
};
FERRY_OP("TestLoseSession").Stateful().Shape(NoOutputs);
FERRY_KERNEL("TestLoseSession").Device(DeviceType::kCpu).Make<LoseSessionKernel>();

// w counts the steps as the global step does; "value" is fed.
class TrainingTest : public ::testing::Test {
 protected:
  TrainingTest() {
    VariableHandle step = GetOrCreateGlobalStep(root);
    w = MakeVariable(root, "w", Tensor::Of<float>({0, 0, 0}));
    Output x = ops::PlaceholderWithDefault(root.WithOpName("x"),
                                           ops::Const(root, Tensor::Of<float>({1, 1, 1})), {3});
    Output add = ops::AssignAdd(root, w.ref, x);
    ops::AssignAdd(root.WithOpName("train").WithControlDependencies({add.node}), step.ref,
                   ops::Const<int64_t>(root, 1));
    ops::ReduceSum(root.WithOpName("total"), x);
    summary::Scalar(root, "loss", ops::ReduceMean(root.WithOpName("loss_value"), x));
    EXPECT_TRUE(root.ok()) << root.status();
    options.session.file_system = &fs;
    options.session.threads = 1;
    options.session.device = "cpu";
    options.checkpoint_dir = "/model";
    options.log = [this](const std::string& line) { log.push_back(line); };
  }
  std::unique_ptr<MonitoredSession> Create() {
    auto m = MonitoredSession::Create(&graph, options);
    EXPECT_TRUE(m.ok()) << m.status();
    return m.ok() ? *std::move(m) : nullptr;
  }
  // Adds a hook that saves into /model.
  std::shared_ptr<CheckpointSaverHook> SaveEvery(
      int64_t steps, std::vector<std::shared_ptr<CheckpointSaverListener>> listeners = {},
      std::function<void(CheckpointSaverOptions*)> change = nullptr) {
    CheckpointSaverOptions save;
    save.dir = "/model";
    save.every.steps = steps;
    save.listeners = std::move(listeners);
    if (change) change(&save);
    auto hook = std::make_shared<CheckpointSaverHook>(save);
    options.hooks.push_back(hook);
    return hook;
  }
  void StopAt(int64_t step) {
    options.hooks.push_back(std::make_shared<StopAtStepHook>(StopAtStepHook::LastStep(step)));
  }
  absl::Status Steps(MonitoredSession* m, int n = 1 << 20) {
    for (int i = 0; i < n && !m->should_stop(); ++i) {
      FERRY_RETURN_IF_ERROR(m->Run({}, {}, {"train"}));
    }
    return absl::OkStatus();
  }
  // A whole training; where it ends.
  absl::Status Train() {
    FERRY_ASSIGN_OR_RETURN(auto m, MonitoredSession::Create(&graph, options));
    FERRY_RETURN_IF_ERROR(Steps(m.get()));
    return m->Close();
  }
  std::vector<int64_t> SavedSteps() {
    std::vector<int64_t> steps;
    auto found = ListCheckpoints(&fs, "/model/model.ckpt");
    EXPECT_TRUE(found.ok()) << found.status();
    for (const std::string& p : *found) steps.push_back(std::stoll(p.substr(p.rfind('-') + 1)));
    return steps;
  }
  float Value(const std::string& prefix) {
    auto reader = CheckpointReader::Open(&fs, prefix);
    EXPECT_TRUE(reader.ok()) << reader.status();
    return reader.ok() ? (*reader)->GetTensor("w")->data<float>()[0] : -1;
  }
  void Damage(const std::string& prefix) {
    const std::string path = prefix + ".data-00000-of-00001";
    std::string bytes = *fs.Contents(path);
    bytes.back() = static_cast<char>(bytes.back() ^ 1);
    fs.SetContents(path, bytes);
  }
  std::vector<proto::Event> Events(const std::string& dir) {
    std::vector<proto::Event> all;
    auto files = ListEventFiles(&fs, dir);
    EXPECT_TRUE(files.ok()) << files.status();
    for (const std::string& f : *files) {
      auto contents = ReadEvents(&fs, f);
      EXPECT_TRUE(contents.ok()) << contents.status();
      for (auto& e : contents->events) all.push_back(std::move(e));
    }
    return all;
  }
  FaultFileSystem fs;
  Graph graph;
  Scope root{&graph};
  VariableHandle w;
  MonitoredSessionOptions options;
  std::vector<std::string> log;
};

TEST_F(TrainingTest, SavesAtTheFirstStepEverySoOftenAndAtTheEnd) {
  auto saves = SaveEvery(4);
  StopAt(10);
  ASSERT_EQ(Train(), absl::OkStatus());
  EXPECT_THAT(SavedSteps(), ElementsAre(0, 4, 8, 10));
  EXPECT_EQ(saves->saves(), 4);
  EXPECT_EQ(Value("/model/model.ckpt-10"), 10);
  EXPECT_EQ(*LatestCheckpoint(&fs, "/model"), "/model/model.ckpt-10");
  EXPECT_TRUE(fs.Contents("/model/graph.pbtxt").ok());
}

TEST_F(TrainingTest, AResumedRunSavesWhereAnUninterruptedOneWould) {
  SaveEvery(4);
  StopAt(6);
  ASSERT_EQ(Train(), absl::OkStatus());
  options.hooks.clear();
  options.scaffold.saver = nullptr;
  SaveEvery(4);
  StopAt(13);
  auto m = Create();
  EXPECT_EQ(m->restored_from(), "/model/model.ckpt-6");
  EXPECT_EQ(*m->GlobalStep(), 6);
  ASSERT_EQ(Steps(m.get()), absl::OkStatus());
  ASSERT_EQ(m->Close(), absl::OkStatus());
  EXPECT_THAT(SavedSteps(), ElementsAre(4, 6, 8, 12, 13));
  EXPECT_EQ(Value("/model/model.ckpt-13"), 13);
  // TensorBoard is told that what follows step 6 is done again.
  int starts = 0;
  for (const proto::Event& e : Events("/model")) {
    if (e.session_log().status() == proto::SessionLog::START) {
      ++starts;
      EXPECT_EQ(e.step(), 7);
    }
  }
  EXPECT_EQ(starts, 1);
}

TEST_F(TrainingTest, AModelThatIsThereAlreadyDoesNoStep) {
  SaveEvery(100);
  StopAt(5);
  ASSERT_EQ(Train(), absl::OkStatus());
  auto m = Create();
  EXPECT_TRUE(m->should_stop());
  ASSERT_EQ(m->Close(), absl::OkStatus());
  EXPECT_THAT(SavedSteps(), ElementsAre(0, 5));
}

TEST_F(TrainingTest, StopsAfterSomeSteps) {
  options.hooks = {std::make_shared<StopAtStepHook>(StopAtStepHook::NumSteps(3))};
  SaveEvery(100);
  ASSERT_EQ(Train(), absl::OkStatus());
  options.hooks[0] = std::make_shared<StopAtStepHook>(StopAtStepHook::NumSteps(3));
  ASSERT_EQ(Train(), absl::OkStatus());
  EXPECT_EQ(*LatestCheckpoint(&fs, "/model"), "/model/model.ckpt-6");
}

TEST_F(TrainingTest, SavesBySeconds) {
  SaveEvery(0, {}, [](CheckpointSaverOptions* save) { save->every.secs = 0.05; });
  auto m = Create();
  ASSERT_EQ(Steps(m.get(), 3), absl::OkStatus());
  absl::SleepFor(absl::Milliseconds(60));
  ASSERT_EQ(Steps(m.get(), 1), absl::OkStatus());
  ASSERT_EQ((*m->saver())->WaitForPending(), absl::OkStatus());
  EXPECT_THAT(SavedSteps(), ::testing::Contains(4));
  ASSERT_EQ(m->Close(), absl::OkStatus());
}

// ---- Recovery ----

TEST_F(TrainingTest, GoesOnFromTheCheckpointBeforeADamagedOne) {
  SaveEvery(4);
  StopAt(10);
  ASSERT_EQ(Train(), absl::OkStatus());
  Damage("/model/model.ckpt-10");
  const std::string damaged = *fs.Contents("/model/model.ckpt-10.data-00000-of-00001");
  options.hooks.clear();
  options.scaffold.saver = nullptr;
  SaveEvery(4);
  StopAt(9);
  auto m = Create();
  EXPECT_EQ(m->restored_from(), "/model/model.ckpt-8");
  EXPECT_TRUE(m->fell_back());
  ASSERT_EQ(log.size(), 2u);
  EXPECT_THAT(log[0], HasSubstr("checkpoint /model/model.ckpt-10 is damaged, and left as it is"));
  EXPECT_THAT(log[1], HasSubstr("resuming from the checkpoint before: /model/model.ckpt-8"));
  ASSERT_EQ(Steps(m.get()), absl::OkStatus());
  ASSERT_EQ(m->Close(), absl::OkStatus());
  EXPECT_EQ(*fs.Contents("/model/model.ckpt-10.data-00000-of-00001"), damaged);
  EXPECT_EQ(*LatestCheckpoint(&fs, "/model"), "/model/model.ckpt-9");
  EXPECT_EQ(Value("/model/model.ckpt-9"), 9);
}

TEST_F(TrainingTest, ADamagedStateFileIsNoMoreThanALine) {
  SaveEvery(4);
  StopAt(6);
  ASSERT_EQ(Train(), absl::OkStatus());
  fs.SetContents("/model/checkpoint", "model_checkpoint_path: \"");
  auto m = Create();
  EXPECT_EQ(m->restored_from(), "/model/model.ckpt-6");
  ASSERT_EQ(log.size(), 1u);
  EXPECT_THAT(log[0], HasSubstr("/model/checkpoint"));
}

TEST_F(TrainingTest, NeverStartsOverBesideDamagedCheckpoints) {
  SaveEvery(4);
  StopAt(4);
  ASSERT_EQ(Train(), absl::OkStatus());
  Damage("/model/model.ckpt-0");
  Damage("/model/model.ckpt-4");
  auto m = MonitoredSession::Create(&graph, options);
  EXPECT_TRUE(absl::IsDataLoss(m.status())) << m.status();
  EXPECT_THAT(std::string(m.status().message()),
              HasSubstr("no checkpoint in '/model' can be restored"));
}

TEST_F(TrainingTest, ASoundCheckpointOfAnotherModelIsAnError) {
  SaveEvery(4);
  StopAt(4);
  ASSERT_EQ(Train(), absl::OkStatus());
  options.scaffold.saver = nullptr;
  MakeVariable(root, "more", Tensor::Scalar(1.0f));
  auto m = MonitoredSession::Create(&graph, options);
  EXPECT_THAT(m.status().ToString(), HasSubstr("Key more not found in checkpoint"));
  EXPECT_THAT(m.status().ToString(), HasSubstr("is it of another model?"));
}

TEST_F(TrainingTest, AnErrorOfOnesOwnForACheckpointThatCantBeRestored) {
  SaveEvery(4);
  StopAt(4);
  ASSERT_EQ(Train(), absl::OkStatus());
  Damage("/model/model.ckpt-4");
  std::string seen;
  options.on_restore_error = [&](const absl::Status& error, const std::string& prefix) {
    seen = prefix;
    return Annotate(error, "mine");
  };
  EXPECT_THAT(MonitoredSession::Create(&graph, options).status().ToString(), HasSubstr("mine: "));
  EXPECT_EQ(seen, "/model/model.ckpt-4");
  options.on_restore_error = [](const absl::Status&, const std::string&) {
    return absl::OkStatus();
  };
  EXPECT_EQ(Create()->restored_from(), "/model/model.ckpt-0");
}

TEST_F(TrainingTest, FindsTheLatestGoodCheckpoint) {
  EXPECT_EQ(*FindLatestGoodCheckpoint(&fs, "/"), "");
  SaveEvery(4);
  StopAt(10);
  ASSERT_EQ(Train(), absl::OkStatus());
  EXPECT_EQ(*FindLatestGoodCheckpoint(&fs, "/model"), "/model/model.ckpt-10");
  Damage("/model/model.ckpt-10");
  Damage("/model/model.ckpt-8");
  std::vector<std::pair<std::string, absl::Status>> skipped;
  EXPECT_EQ(*FindLatestGoodCheckpoint(&fs, "/model", "model.ckpt", &skipped),
            "/model/model.ckpt-4");
  ASSERT_EQ(skipped.size(), 2u);
  EXPECT_EQ(skipped[0].first, "/model/model.ckpt-10");
  EXPECT_TRUE(absl::IsDataLoss(skipped[0].second)) << skipped[0].second;
}

// Whatever is damaged of the newest checkpoint, training goes on from it or from the one before.
TEST_F(TrainingTest, GoesOnWhateverIsDamaged) {
  const std::string newest = "/model/model.ckpt-10";
  const struct {
    std::string name, contents;
    bool exists;
    int64_t step;  // At which it goes on.
  } cases[] = {
      {newest + ".index", "", true, 8},
      {newest + ".index", "nonsense", true, 8},
      {newest + ".index", "", false, 8},
      {newest + ".data-00000-of-00001", "", true, 8},
      {newest + ".data-00000-of-00001", "", false, 8},
      {newest + ".meta", "nonsense", true, 10},
      {newest + ".meta", "", false, 10},
      {"/model/checkpoint", "", true, 10},
      {"/model/checkpoint", "", false, 10},
      {"/model/checkpoint", "model_checkpoint_path: \"elsewhere\"\n", true, 10},
      {"/model/checkpoint", std::string(100, '\0'), true, 10},
      {"/model/graph.pbtxt", "nonsense", true, 10},
  };
  for (const auto& c : cases) {
    SCOPED_TRACE(c.name + ": " + c.contents);
    FaultFileSystem disk;
    options.session.file_system = &disk;
    options.hooks.clear();
    options.scaffold.saver = nullptr;
    SaveEvery(4);
    StopAt(10);
    ASSERT_EQ(Train(), absl::OkStatus());
    if (c.exists) {
      disk.SetContents(c.name, c.contents);
    } else {
      ASSERT_EQ(disk.Unlink(c.name), absl::OkStatus());
    }
    options.hooks.clear();
    options.scaffold.saver = nullptr;
    SaveEvery(4);
    StopAt(13);
    auto m = Create();
    ASSERT_NE(m, nullptr);
    EXPECT_EQ(*m->GlobalStep(), c.step);
    ASSERT_EQ(Steps(m.get()), absl::OkStatus());
    ASSERT_EQ(m->Close(), absl::OkStatus());
    EXPECT_EQ(*LatestCheckpoint(&disk, "/model"), "/model/model.ckpt-13");
    auto reader = CheckpointReader::Open(&disk, "/model/model.ckpt-13");
    ASSERT_EQ(reader.status(), absl::OkStatus());
    EXPECT_EQ((*reader)->GetTensor("w")->data<float>()[0], 13);
  }
}

// Counts sessions.
class SessionsHook : public SessionRunHook {
 public:
  absl::Status AfterCreateSession(MonitoredSession*) override {
    ++sessions;
    return absl::OkStatus();
  }
  int sessions = 0;
};

// ---- NaN ----

TEST_F(TrainingTest, NanEndsTheTrainingBeforeItIsSaved) {
  options.hooks = {std::make_shared<NanTensorHook>("total")};
  SaveEvery(1);
  auto m = Create();
  ASSERT_EQ(Steps(m.get(), 3), absl::OkStatus());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const absl::Status s = m->Run({{"x", Tensor::Of<float>({1, nan, 1})}}, {}, {"train"});
  EXPECT_TRUE(absl::IsInvalidArgument(s)) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("NaN loss during training."));
  EXPECT_THAT(std::string(s.message()), HasSubstr("'total' at step 4"));
  EXPECT_TRUE(m->should_stop());
  EXPECT_EQ(m->Close(), absl::OkStatus());
  EXPECT_EQ(*LatestCheckpoint(&fs, "/model"), "/model/model.ckpt-3");
  EXPECT_TRUE(absl::IsFailedPrecondition(m->Run({}, {}, {"train"})));
}

TEST_F(TrainingTest, NanMayJustStopTheTraining) {
  options.hooks = {std::make_shared<NanTensorHook>("total", /*fail=*/false)};
  SaveEvery(1);
  auto m = Create();
  ASSERT_EQ(Steps(m.get(), 3), absl::OkStatus());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ASSERT_EQ(m->Run({{"x", Tensor::Of<float>({1, nan, 1})}}, {}, {"train"}), absl::OkStatus());
  EXPECT_TRUE(m->should_stop());
  EXPECT_EQ(m->Close(), absl::OkStatus());
  EXPECT_EQ(*LatestCheckpoint(&fs, "/model"), "/model/model.ckpt-3");
  EXPECT_THAT(log, ::testing::Contains(HasSubstr("Model diverged with loss = NaN")));
}

TEST_F(TrainingTest, ANanInAVariableIsNotSaved) {
  SaveEvery(1);
  auto m = Create();
  ASSERT_EQ(Steps(m.get(), 2), absl::OkStatus());
  const float nan = std::numeric_limits<float>::quiet_NaN();
  // The save fails in the background: the Run says so, or one that follows.
  absl::Status s = m->Run({{"x", Tensor::Of<float>({1, 1, nan})}}, {}, {"train"});
  for (int i = 0; i < 1000 && s.ok(); ++i) s = m->Run({}, {}, {"train"});
  EXPECT_TRUE(absl::IsFailedPrecondition(s)) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("variable 'w' has a NaN, at element 2"));
  EXPECT_EQ(m->Close(), absl::OkStatus());
  EXPECT_EQ(*LatestCheckpoint(&fs, "/model"), "/model/model.ckpt-2");
  EXPECT_THAT(SavedSteps(), Not(::testing::Contains(3)));
}

TEST_F(TrainingTest, UnlessThatIsWanted) {
  SaveEvery(1, {}, [](CheckpointSaverOptions* save) { save->allow_nan = true; });
  auto m = Create();
  const float nan = std::numeric_limits<float>::quiet_NaN();
  ASSERT_EQ(m->Run({{"x", Tensor::Of<float>({nan, 1, 1})}}, {}, {"train"}), absl::OkStatus());
  ASSERT_EQ(m->Close(), absl::OkStatus());
  EXPECT_TRUE(std::isnan(Value("/model/model.ckpt-1")));
}

// ---- Errors of saves and listeners ----

TEST_F(TrainingTest, ADiskThatIsFullDuringABackgroundSave) {
  SaveEvery(5);
  auto m = Create();
  ASSERT_EQ(Steps(m.get(), 3), absl::OkStatus());
  ASSERT_EQ((*m->saver())->WaitForPending(), absl::OkStatus());
  fs.FailCall(0, absl::ResourceExhaustedError("No space left on device"), /*all_later=*/true);
  absl::Status s;
  for (int i = 0; i < 100000 && s.ok(); ++i) s = Steps(m.get(), 1);
  EXPECT_THAT(s.ToString(), HasSubstr("No space left on device"));
  EXPECT_TRUE(m->should_stop());
  fs.StopFailing();
  m.reset();
  // Room again: it goes on from what there was.
  m = Create();
  EXPECT_EQ(m->restored_from(), "/model/model.ckpt-0");
}

// A disk that fails at any one call, or from any call on: training ends with an error that says so,
// or doesn't need the call; and it can be gone on with from what is there.
TEST_F(TrainingTest, AnyCallMayFail) {
  TrainingDefaults defaults;
  defaults.save_summaries.steps = 2;
  defaults.log_step_count_steps = 2;
  defaults.save_checkpoint.steps = 2;
  const auto train = [&](FaultFileSystem* disk, int64_t last_step) -> absl::Status {
    options.session.file_system = disk;
    options.scaffold.saver = nullptr;
    options.hooks = {std::make_shared<StopAtStepHook>(StopAtStepHook::LastStep(last_step))};
    FERRY_ASSIGN_OR_RETURN(auto m, MonitoredTrainingSession(&graph, options, defaults));
    absl::Status status = Steps(m.get());
    KeepFirst(&status, m->Close());
    return status;
  };
  for (const bool all_later : {false, true}) {
    int errors = 0;
    for (int64_t n = 0;; ++n) {
      ASSERT_LT(n, 2000);
      FaultFileSystem disk;
      ASSERT_EQ(train(&disk, 2), absl::OkStatus());
      const int64_t before = disk.calls();
      disk.FailCall(n, absl::ResourceExhaustedError("No space left on device"), all_later);
      const absl::Status status = train(&disk, 6);
      const bool reached = disk.calls() > before + n;
      const std::string failed = disk.LastFailure();
      disk.StopFailing();
      if (!status.ok()) {
        ++errors;
        EXPECT_THAT(status.ToString(), HasSubstr("No space left on device")) << failed;
      } else {
        EXPECT_EQ(*LatestCheckpoint(&disk, "/model"), "/model/model.ckpt-6") << failed;
      }
      ASSERT_EQ(train(&disk, 9), absl::OkStatus()) << failed;
      auto reader = CheckpointReader::Open(&disk, "/model/model.ckpt-9");
      ASSERT_EQ(reader.status(), absl::OkStatus());
      EXPECT_EQ((*reader)->GetTensor("w")->data<float>()[0], 9) << failed;
      if (!reached) break;
    }
    EXPECT_GT(errors, 20);
  }
}

// Fails at the call of that name.
class FailingHook : public SessionRunHook {
 public:
  explicit FailingHook(std::string at) : at_(std::move(at)) {}
  absl::Status Begin(MonitoredSession*) override { return Call("Begin"); }
  absl::Status AfterCreateSession(MonitoredSession*) override { return Call("AfterCreateSession"); }
  absl::StatusOr<RunArgs> BeforeRun(MonitoredSession*) override {
    FERRY_RETURN_IF_ERROR(++runs_ > 3 ? Call("BeforeRun") : absl::OkStatus());
    RunArgs args;
    if (at_ == "fetch") args.fetches = {"nowhere:0"};
    return args;
  }
  absl::Status AfterRun(MonitoredSession*, absl::Span<const Tensor>) override {
    return runs_ > 3 ? Call("AfterRun") : absl::OkStatus();
  }
  absl::Status End(MonitoredSession*) override { return Call("End"); }
  void SessionEnds(MonitoredSession*) override { ended = true; }
  bool ended = false;

 private:
  absl::Status Call(const std::string& name) const {
    return name == at_ ? absl::InternalError("the hook's own, at " + name) : absl::OkStatus();
  }
  const std::string at_;
  int runs_ = 0;
};

TEST_F(TrainingTest, AHookThatFailsEndsTheTraining) {
  for (const std::string at : {"Begin", "AfterCreateSession", "BeforeRun", "AfterRun", "End"}) {
    SCOPED_TRACE(at);
    FaultFileSystem disk;
    options.session.file_system = &disk;
    options.scaffold.saver = nullptr;
    auto failing = std::make_shared<FailingHook>(at);
    options.hooks = {failing};
    SaveEvery(2);
    StopAt(7);
    auto m = MonitoredSession::Create(&graph, options);
    absl::Status status = m.status();
    if (m.ok()) {
      status = Steps(m->get());
      EXPECT_TRUE((*m)->should_stop());
      EXPECT_EQ(status.ok(), at == "End") << status;
      KeepFirst(&status, (*m)->Close());
      EXPECT_EQ((*m)->Close(), absl::OkStatus());
    }
    EXPECT_THAT(status.ToString(), HasSubstr("the hook's own, at " + at));
    EXPECT_EQ(failing->ended, at != "Begin");  // There was no session yet.
    if (m.ok()) {
      // What was saved until then is sound; an End that fails loses no state.
      EXPECT_EQ(*FindLatestGoodCheckpoint(&disk, "/model"),
                at == "End" ? "/model/model.ckpt-7" : "/model/model.ckpt-2");
    }
  }
  options.session.file_system = &fs;
  options.hooks = {std::make_shared<FailingHook>("fetch")};
  EXPECT_THAT(Train().ToString(), HasSubstr("nowhere"));
  options.hooks = {nullptr};
  EXPECT_THAT(Train().ToString(), HasSubstr("a hook of the training is null"));
}

class RecordingListener : public CheckpointSaverListener {
 public:
  absl::Status Begin() override {
    calls.push_back("begin");
    return absl::OkStatus();
  }
  absl::Status BeforeSave(Session*, int64_t step) override {
    calls.push_back(absl::StrCat("before ", step));
    return step == fail_before ? absl::InternalError("the listener's own") : absl::OkStatus();
  }
  absl::StatusOr<bool> AfterSave(Session*, int64_t step) override {
    calls.push_back(absl::StrCat("after ", step));
    return step == stop_at;
  }
  absl::Status End(Session*, int64_t step) override {
    calls.push_back(absl::StrCat("end ", step));
    return absl::OkStatus();
  }
  std::vector<std::string> calls;
  int64_t fail_before = -1, stop_at = -1;
};

TEST_F(TrainingTest, ListenersSeeEachSave) {
  auto listener = std::make_shared<RecordingListener>();
  SaveEvery(2, {listener}, [](CheckpointSaverOptions* save) { save->in_background = false; });
  StopAt(3);
  ASSERT_EQ(Train(), absl::OkStatus());
  EXPECT_THAT(listener->calls, ElementsAre("begin", "before 0", "after 0", "before 2", "after 2",
                                           "before 3", "after 3", "end 3"));
}

TEST_F(TrainingTest, ListenersOfBackgroundSavesAreToldWhenTheyAreDurable) {
  class Checks : public CheckpointSaverListener {
   public:
    explicit Checks(FileSystem* fs) : fs_(fs) {}
    absl::StatusOr<bool> AfterSave(Session*, int64_t step) override {
      ++saves;
      const std::string prefix = absl::StrCat("/model/model.ckpt-", step);
      auto latest = LatestCheckpoint(fs_, "/model");
      if (!latest.ok() || *latest != prefix) return absl::InternalError("not there: " + prefix);
      return false;
    }
    int saves = 0;
    FileSystem* const fs_;
  };
  auto listener = std::make_shared<Checks>(&fs);
  SaveEvery(2, {listener});
  StopAt(7);
  ASSERT_EQ(Train(), absl::OkStatus());
  EXPECT_EQ(listener->saves, 5);
}

TEST_F(TrainingTest, AListenerCanStopTheTraining) {
  auto listener = std::make_shared<RecordingListener>();
  listener->stop_at = 4;
  SaveEvery(2, {listener}, [](CheckpointSaverOptions* save) { save->in_background = false; });
  ASSERT_EQ(Train(), absl::OkStatus());
  EXPECT_EQ(listener->calls.back(), "end 4");
}

TEST_F(TrainingTest, AFailingListenerEndsTheTraining) {
  auto listener = std::make_shared<RecordingListener>();
  listener->fail_before = 2;
  SaveEvery(2, {listener});
  const absl::Status s = Train();
  EXPECT_THAT(s.ToString(), HasSubstr("the listener's own"));
  EXPECT_EQ(*LatestCheckpoint(&fs, "/model"), "/model/model.ckpt-0");
}

// ---- Signals ----

TEST_F(TrainingTest, ASignalSavesAndEnds) {
  for (const int number : {SIGTERM, SIGINT}) {
    const StopSignals signals;
    options.stop = signals.flag();
    options.hooks.clear();
    options.scaffold.saver = nullptr;
    SaveEvery(1 << 20);
    auto m = Create();
    const int64_t from = *m->GlobalStep();
    ASSERT_EQ(Steps(m.get(), 3), absl::OkStatus());
    EXPECT_FALSE(m->should_stop());
    raise(number);
    EXPECT_TRUE(m->should_stop());
    ASSERT_EQ(m->Close(), absl::OkStatus());
    EXPECT_EQ(*LatestCheckpoint(&fs, "/model"), absl::StrCat("/model/model.ckpt-", from + 3));
  }
}

// Asks to stop at its n-th call.
class StoppingHook : public SessionRunHook {
 public:
  StoppingHook(int n, std::atomic<bool>* stop) : left_(n), stop_(stop) {}
  absl::Status Begin(MonitoredSession*) override { return Call(); }
  absl::Status AfterCreateSession(MonitoredSession*) override { return Call(); }
  absl::StatusOr<RunArgs> BeforeRun(MonitoredSession*) override {
    FERRY_RETURN_IF_ERROR(Call());
    return RunArgs();
  }
  absl::Status AfterRun(MonitoredSession*, absl::Span<const Tensor>) override {
    ++steps;
    return Call();
  }
  absl::Status End(MonitoredSession*) override { return Call(); }
  int64_t steps = 0;

 private:
  absl::Status Call() {
    if (left_-- == 0) *stop_ = true;
    return absl::OkStatus();
  }
  int left_;
  std::atomic<bool>* const stop_;
};

TEST_F(TrainingTest, StoppedAtAnyMomentItSavesWhatItDid) {
  for (int n = 0; n < 14; ++n) {
    for (const bool before : {false, true}) {
      FaultFileSystem disk;
      std::atomic<bool> stop{false};
      options.session.file_system = &disk;
      options.scaffold.saver = nullptr;
      options.stop = &stop;
      options.hooks.clear();
      auto hook = std::make_shared<StoppingHook>(n, &stop);
      if (before) options.hooks.push_back(hook);
      SaveEvery(2);
      if (!before) options.hooks.push_back(hook);
      StopAt(5);
      ASSERT_EQ(Train(), absl::OkStatus());
      EXPECT_EQ(*LatestCheckpoint(&disk, "/model"),
                absl::StrCat("/model/model.ckpt-", hook->steps));
      EXPECT_EQ(hook->steps, std::min(5, std::max(0, n / 2)));
    }
  }
}

TEST(StopSignalsDeathTest, ASecondSignalEndsAtOnce) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        const StopSignals signals;
        raise(SIGTERM);
        raise(SIGTERM);
        _exit(0);
      },
      ::testing::KilledBySignal(SIGTERM), "");
}

TEST(StopSignalsTest, PutsBackWhatWasThere) {
  signal(SIGTERM, SIG_IGN);
  { const StopSignals signals; }
  EXPECT_EQ(signal(SIGTERM, SIG_DFL), SIG_IGN);
}

// ---- Other hooks ----

TEST_F(TrainingTest, SummariesAndStepRateAreRecorded) {
  TrainingDefaults defaults;
  defaults.save_summaries.steps = 5;
  defaults.log_step_count_steps = 4;
  defaults.save_checkpoint.steps = 10;
  StopAt(11);
  auto m = MonitoredTrainingSession(&graph, options, defaults);
  ASSERT_TRUE(m.ok()) << m.status();
  ASSERT_EQ(Steps(m->get()), absl::OkStatus());
  ASSERT_EQ((*m)->Close(), absl::OkStatus());
  std::vector<int64_t> loss, rate, saved;
  for (const proto::Event& e : Events("/model")) {
    for (const auto& v : e.summary().value()) {
      if (v.tag() == "loss") {
        loss.push_back(e.step());
        EXPECT_EQ(v.simple_value(), 1);
      }
      if (v.tag() == "global_step/sec") rate.push_back(e.step());
    }
    if (e.session_log().status() == proto::SessionLog::CHECKPOINT) saved.push_back(e.step());
  }
  EXPECT_THAT(loss, ElementsAre(1, 6, 11));
  EXPECT_THAT(rate, ElementsAre(5, 9));
  EXPECT_THAT(saved, ElementsAre(0, 10, 11));
  EXPECT_THAT(log, ::testing::Contains(HasSubstr("global_step/sec: ")));
}

TEST_F(TrainingTest, LogsTensors) {
  options.checkpoint_dir.clear();
  options.hooks = {
      std::make_shared<LoggingTensorHook>(
          std::vector<std::pair<std::string, std::string>>{{"sum", "total"}, {"w", "w/read"}},
          Every{2, 0}, /*at_end=*/true),
      std::make_shared<StopAtStepHook>(StopAtStepHook::NumSteps(3))};
  ASSERT_EQ(Train(), absl::OkStatus());
  ASSERT_EQ(log.size(), 3u);
  EXPECT_EQ(log[0], "sum = 3, w = [1 1 1]");
  EXPECT_THAT(log[1], ::testing::MatchesRegex("sum = 3, w = \\[3 3 3\\] \\([0-9.]+ sec\\)"));
  EXPECT_THAT(log[2], HasSubstr("w = [3 3 3]"));
  options.hooks = {std::make_shared<LoggingTensorHook>(
      std::vector<std::pair<std::string, std::string>>{}, Every{})};
  EXPECT_THAT(Train().ToString(), HasSubstr("exactly one of every_n_iter and every_n_secs"));
}

TEST_F(TrainingTest, FeedsAndFetchesOfHooksJoinTheCallers) {
  options.checkpoint_dir.clear();
  auto feed = std::make_shared<FeedFnHook>(
      []() -> absl::StatusOr<std::vector<std::pair<std::string, Tensor>>> {
        return std::vector<std::pair<std::string, Tensor>>{{"x", Tensor::Of<float>({2, 2, 2})}};
      });
  auto last = std::make_shared<FinalOpsHook>(RunArgs{{}, {"w/read"}, {}});
  options.hooks = {feed, std::make_shared<NanTensorHook>("total"), last};
  auto m = Create();
  std::vector<Tensor> out;
  ASSERT_EQ(m->Run({}, {"total", "loss_value"}, {"train"}, &out), absl::OkStatus());
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].scalar<float>(), 6);
  EXPECT_EQ(out[1].scalar<float>(), 2);
  ASSERT_EQ(m->Run({}, {"total"}, {"train"}, &out), absl::OkStatus());
  EXPECT_EQ(out.size(), 1u);
  ASSERT_EQ(m->Close(), absl::OkStatus());
  EXPECT_EQ(last->values()[0].data<float>()[0], 4);

  m = Create();
  EXPECT_THAT(m->Run({{"x", Tensor::Of<float>({1, 1, 1})}}, {}, {"train"}).ToString(),
              HasSubstr("Same tensor is fed by two: 'x'"));
}

// ---- Coming up ----

TEST_F(TrainingTest, TheScaffoldInitializes) {
  options.checkpoint_dir.clear();
  VariableOptions local;
  local.trainable = false;
  local.collections = {kLocalVariables};
  MakeVariable(root, "n", Tensor::Scalar(7.0f), local);
  ops::Assign(root.WithOpName("set"), w.ref, ops::Const(root, Tensor::Of<float>({5, 5, 5})));
  ASSERT_TRUE(root.ok());
  int calls = 0;
  options.scaffold.init_fn = [&](Session* session) {
    ++calls;
    return session->Run({}, {}, {"set"}, nullptr);
  };
  auto m = Create();
  std::vector<Tensor> out;
  ASSERT_EQ(m->Run({}, {"w/read", "n/read"}, {}, &out), absl::OkStatus());
  EXPECT_EQ(out[0].data<float>()[0], 5);
  EXPECT_EQ(out[1].scalar<float>(), 7);
  EXPECT_EQ(calls, 1);
}

TEST_F(TrainingTest, AModelThatIsntReadyIsAnError) {
  options.checkpoint_dir.clear();
  options.scaffold.init_op = "global_step/Assign";
  const absl::Status s = MonitoredSession::Create(&graph, options).status();
  EXPECT_TRUE(absl::IsFailedPrecondition(s)) << s;
  EXPECT_THAT(std::string(s.message()), HasSubstr("Variables not initialized: w"));
  options.scaffold.init_op = "";
  ops::ConstVector<std::string>(root.WithOpName("not_ready"), {"something"});
  options.scaffold.ready_op = "not_ready";
  EXPECT_THAT(MonitoredSession::Create(&graph, options).status().ToString(),
              HasSubstr("not initialized: something"));
}

TEST_F(TrainingTest, AScaffoldOfWrongNames) {
  for (const int which : {0, 1, 2}) {
    options.scaffold = Scaffold();
    (which == 0   ? options.scaffold.init_op
     : which == 1 ? options.scaffold.local_init_op
                  : options.scaffold.ready_op) = "no_such_node";
    const absl::Status s = MonitoredSession::Create(&graph, options).status();
    EXPECT_TRUE(absl::IsNotFound(s)) << s;
    EXPECT_THAT(std::string(s.message()), HasSubstr("no_such_node"));
  }
  options.scaffold = Scaffold();
  options.scaffold.ready_op = "total";
  EXPECT_THAT(MonitoredSession::Create(&graph, options).status().ToString(),
              HasSubstr("ready_op 'total' gives float32; expected strings"));
}

// Without counting there may still be checkpoints, of a Saver of one's own.
TEST_F(TrainingTest, AModelWithoutAGlobalStep) {
  Graph plain;
  Scope s(&plain);
  VariableHandle v = MakeVariable(s, "v", Tensor::Scalar(1.0f));
  ops::AssignAdd(s.WithOpName("train"), v.ref, ops::Const(s, 1.0f));
  ASSERT_TRUE(s.ok());
  for (const float start : {1.0f, 4.0f}) {
    options.scaffold.saver = nullptr;
    auto m = MonitoredSession::Create(&plain, options);
    ASSERT_EQ(m.status(), absl::OkStatus());
    EXPECT_TRUE(absl::IsFailedPrecondition((*m)->GlobalStep().status()));
    std::vector<Tensor> out;
    ASSERT_EQ((*m)->Run({}, {"v/read"}, {}, &out), absl::OkStatus());
    EXPECT_EQ(out[0].scalar<float>(), start);
    ASSERT_EQ(Steps(m->get(), 3), absl::OkStatus());
    ASSERT_EQ((*(*m)->saver())->Save((*m)->session(), "/model/mine").status(), absl::OkStatus());
    ASSERT_EQ((*m)->Close(), absl::OkStatus());
  }
}

TEST_F(TrainingTest, GlobalStepsOfOtherKinds) {
  const auto with_step = [&](Graph* g, const Tensor& zero, const char* name) {
    Scope s(g);
    VariableOptions step;
    step.trainable = false;
    step.collections = {kGlobalVariables, kGlobalStep};
    VariableHandle v = MakeVariable(s, name, zero, step);
    EXPECT_TRUE(s.ok()) << s.status();
    return v;
  };
  // The 32 bits of old models, of any name.
  Graph narrow;
  VariableHandle v = with_step(&narrow, Tensor::Scalar<int32_t>(0), "training/step");
  Scope s(&narrow);
  ops::AssignAdd(s.WithOpName("train"), v.ref, ops::Const<int32_t>(s, 1));
  ASSERT_TRUE(s.ok());
  for (const int64_t last : {3, 7}) {
    options.hooks.clear();
    options.scaffold.saver = nullptr;
    SaveEvery(2);
    StopAt(last);
    auto m = MonitoredSession::Create(&narrow, options);
    ASSERT_EQ(m.status(), absl::OkStatus());
    ASSERT_EQ(Steps(m->get()), absl::OkStatus());
    EXPECT_EQ(*(*m)->GlobalStep(), last);
    ASSERT_EQ((*m)->Close(), absl::OkStatus());
  }
  EXPECT_THAT(SavedSteps(), ElementsAre(2, 3, 4, 6, 7));

  options.checkpoint_dir.clear();
  Graph real, several;
  with_step(&real, Tensor::Scalar<float>(0), "global_step");
  absl::Status status = MonitoredSession::Create(&real, options).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("Existing \"global_step\" does not have integer type"));
  with_step(&several, Tensor::Of<int64_t>({0, 0}), "global_step");
  status = MonitoredSession::Create(&several, options).status();
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_THAT(std::string(status.message()), HasSubstr("Existing \"global_step\" is not scalar"));
}

// Beyond which nothing can be counted.
TEST_F(TrainingTest, StepsWithoutEnd) {
  constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
  TrainingDefaults defaults;
  defaults.save_summaries.steps = kMost;
  defaults.log_step_count_steps = kMost;
  defaults.save_checkpoint.steps = kMost;
  for (int start = 0; start < 2; ++start) {
    options.scaffold.saver = nullptr;
    options.hooks = {
        std::make_shared<StopAtStepHook>(StopAtStepHook::NumSteps(kMost)),
        std::make_shared<LoggingTensorHook>(
            std::vector<std::pair<std::string, std::string>>{{"sum", "total"}}, Every{kMost, 0})};
    auto m = MonitoredTrainingSession(&graph, options, defaults);
    ASSERT_TRUE(m.ok()) << m.status();
    ASSERT_EQ(Steps(m->get(), 3), absl::OkStatus());
    EXPECT_FALSE((*m)->should_stop());
    ASSERT_EQ((*m)->Close(), absl::OkStatus());
  }
  EXPECT_THAT(SavedSteps(), ElementsAre(0, 3, 6));
  // A step that can't be counted on from.
  options.hooks.clear();
  ops::Assign(root.WithOpName("far"), *graph.FindOutput("global_step:0"),
              ops::Const<int64_t>(root, kMost));
  auto m = Create();
  ASSERT_EQ(m->session()->Run({}, {}, {"far"}, nullptr), absl::OkStatus());
  ASSERT_EQ((*m->saver())->Save(m->session(), "/model/model.ckpt-9").status(), absl::OkStatus());
  m.reset();
  EXPECT_TRUE(absl::IsDataLoss(MonitoredSession::Create(&graph, options).status()));
}

// Two programs that train in one directory by mistake: whatever comes of it, what is there is
// sound.
TEST_F(TrainingTest, TwoInOneDirectory) {
  std::vector<std::thread> programs;
  std::vector<absl::Status> ends(2);
  for (size_t i = 0; i < ends.size(); ++i) {
    programs.emplace_back([&, i] {
      Graph own;
      Scope s(&own);
      VariableHandle step = GetOrCreateGlobalStep(s);
      VariableHandle v = MakeVariable(s, "w", Tensor::Of<float>({0, 0, 0}));
      Output add = ops::AssignAdd(s, v.ref, ops::Const(s, Tensor::Of<float>({1, 1, 1})));
      ops::AssignAdd(s.WithOpName("train").WithControlDependencies({add.node}), step.ref,
                     ops::Const<int64_t>(s, 1));
      MonitoredSessionOptions its = options;
      its.log = nullptr;
      // What the one has read of, the other doesn't evict.
      SaverOptions keep;
      keep.max_to_keep = 0;
      its.scaffold.saver = *Saver::Create(&own, keep);
      CheckpointSaverOptions save;
      save.dir = "/model";
      save.every.steps = 3;
      its.hooks = {std::make_shared<CheckpointSaverHook>(save),
                   std::make_shared<StopAtStepHook>(StopAtStepHook::NumSteps(60))};
      auto m = MonitoredSession::Create(&own, its);
      ends[i] = m.status();
      while (ends[i].ok() && !(*m)->should_stop()) ends[i] = (*m)->Run({}, {}, {"train"});
      if (ends[i].ok()) ends[i] = (*m)->Close();
    });
  }
  for (std::thread& p : programs) p.join();
  for (const absl::Status& end : ends) EXPECT_EQ(end, absl::OkStatus());
  auto state = GetCheckpointState(&fs, "/model");
  ASSERT_EQ(state.status(), absl::OkStatus());
  auto found = ListCheckpoints(&fs, "/model/model.ckpt");
  ASSERT_EQ(found.status(), absl::OkStatus());
  EXPECT_FALSE(found->empty());
  for (const std::string& prefix : *found) {
    EXPECT_THAT(VerifyCheckpoint(&fs, prefix).damage, IsEmpty()) << prefix;
    EXPECT_EQ(Value(prefix), std::stof(prefix.substr(prefix.rfind('-') + 1)));
  }
  EXPECT_EQ(*LatestCheckpoint(&fs, "/model"), state->model_checkpoint_path());
}

TEST_F(TrainingTest, HooksThatCountStepsNeedThem) {
  Graph plain;
  MakeVariable(Scope(&plain), "v", Tensor::Scalar(1.0f));
  options.checkpoint_dir.clear();
  StopAt(3);
  EXPECT_THAT(MonitoredSession::Create(&plain, options).status().ToString(),
              HasSubstr("Global step should be created"));
}

TEST_F(TrainingTest, ALostSessionIsMadeAnewFromTheLatestCheckpoint) {
  auto sessions = std::make_shared<SessionsHook>();
  SaveEvery(2);
  options.hooks.push_back(sessions);
  Node* lost = NodeBuilder(root.WithOpName("lost"), "TestLoseSession").Build();
  ASSERT_NE(lost, nullptr) << root.status();
  auto m = Create();
  ASSERT_EQ(Steps(m.get(), 5), absl::OkStatus());
  ASSERT_EQ(m->Run({}, {}, {"lost", "train"}), absl::OkStatus());
  EXPECT_EQ(sessions->sessions, 2);
  EXPECT_EQ(m->restored_from(), "/model/model.ckpt-4");
  EXPECT_EQ(*m->GlobalStep(), 5);  // Step 5 is gone, this one is it again.
  EXPECT_THAT(log, ::testing::Contains(HasSubstr("the session is lost")));
  ASSERT_EQ(m->Close(), absl::OkStatus());
  // TensorBoard forgets what was recorded from step 5 on.
  std::vector<int64_t> starts;
  for (const proto::Event& e : Events("/model")) {
    if (e.session_log().status() == proto::SessionLog::START) starts.push_back(e.step());
  }
  EXPECT_THAT(starts, ElementsAre(5));
}

}  // namespace
}  // namespace ferry
