// Every CUDA call of a run, a save and a restore fails once, and the device is lost at every piece
// of work: each time there is a Status, nothing leaks or hangs, the checkpoint from before is
// whole, and unless the device is lost everything goes on.
//
// Each failure has a process of its own, since a lost device stays lost.
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>
#include <string>

#include "gtest/gtest.h"
#include "saver/checkpoint_reader.h"
#include "tests/gpu/gpu_model.h"
#include "tests/softgpu/control.h"

namespace ferry {
namespace {

// One small variable, one that is copied on streams of its own, and one of several slots.
const std::vector<int64_t>& Sizes() {
  static const auto* const sizes = new std::vector<int64_t>{3, 30000, 1100000};
  return *sizes;
}

// What the child process says is wrong; it ends with the first.
#define CHECK_THAT(condition, ...)                                           \
  do {                                                                       \
    if (!(condition)) {                                                      \
      fprintf(stderr, "%s: %s\n", #condition, std::string(__VA_ARGS__).c_str()); \
      _exit(1);                                                              \
    }                                                                        \
  } while (false)

struct World {
  explicit World(const std::string& dir) : dir(dir) {
    const Scope root(&model.graph);
    x = ops::Placeholder(root.WithOpName("x").WithDevice("/gpu:0"), DType::kFloat, {-1, 200});
    const Scope on = root.WithDevice("/gpu:0");
    ops::AddV2(on.WithOpName("y"), ops::MatMul(on, x, x, false, true),
               ops::Const<float>(on, 1));
    // What a peer copy takes part in.
    ops::Mul(root.WithOpName("z").WithDevice("/gpu:1"), Output(model.graph.FindNode("y"), 0),
             ops::Const<float>(root.WithDevice("/gpu:1"), 2));
    CHECK_THAT(root.ok(), root.status().ToString());
    CHECK_THAT(model.Run("init").ok(), "init");
    absl::StatusOr<std::string> saved = model.saver->Save(model.session.get(), dir + "/before");
    CHECK_THAT(saved.ok(), saved.status().ToString());
    CHECK_THAT(model.Run("step").ok(), "step");
  }
  absl::Status RunAndFetch() {
    absl::StatusOr<Tensor> value = Tensor::Allocate(DType::kFloat, {90, 200});
    if (!value.ok()) return value.status();
    for (int64_t i = 0; i < value->num_elements(); ++i) value->data<float>()[i] = 0.5f;
    std::vector<Tensor> out;
    for (int i = 0; i < 4; ++i) {  // Captured and replayed in the end.
      absl::Status status = model.session->Run({{"x", *value}}, {"y", "z", "v001"}, {"step"}, &out);
      if (!status.ok()) return status;
      CHECK_THAT(out[0].data<float>()[0] == 51.f, "a wrong result without an error");
      CHECK_THAT(out[1].data<float>()[8099] == 102.f, "a wrong result without an error");
    }
    return absl::OkStatus();
  }
  absl::Status Save() { return model.saver->Save(model.session.get(), dir + "/new").status(); }
  absl::Status SaveWhileTraining() {
    SaveOptions options;
    absl::StatusOr<bool> started =
        model.saver->SaveAsync(model.session.get(), dir + "/new", options);
    if (!started.ok()) return started.status();
    const absl::Status stepped = model.Run("step");
    const absl::Status saved = model.saver->WaitForPending();
    return saved.ok() ? stepped : saved;
  }
  absl::Status Restore() { return model.saver->Restore(model.session.get(), dir + "/before"); }

  // Whether the checkpoint at `prefix` is whole, with its variables `steps` steps on.
  void CheckWhole(const std::string& prefix, float steps) {
    absl::StatusOr<std::unique_ptr<CheckpointReader>> reader =
        CheckpointReader::Open(FileSystem::Posix(), prefix);
    CHECK_THAT(reader.ok(), reader.status().ToString());
    float next = 0;
    for (const std::string& name : model.names) {
      absl::StatusOr<Tensor> t = (*reader)->GetTensor(name);
      CHECK_THAT(t.ok(), t.status().ToString());
      for (const float f : t->span<float>()) CHECK_THAT(f == next++ + steps, prefix + " " + name);
    }
  }

  const std::string dir;
  testing::GpuModel model{Sizes(), {"/gpu:0", "/gpu:1", "/gpu:0"}};
  Output x;
};

using Phase = absl::Status (World::*)();

// Runs `phase` with the fault and checks what is promised. Ends the process.
std::vector<GpuDevice*> Gpus() {
  absl::StatusOr<std::vector<GpuDevice*>> gpus = GpuDevices();
  CHECK_THAT(gpus.ok(), gpus.status().ToString());
  return *std::move(gpus);
}

[[noreturn]] void Child(const std::string& dir, Phase phase, const std::string& fault) {
  alarm(60);
  {
    World world(dir);
    CHECK_THAT(softgpu::Set("FAULT", fault).empty(), fault);
    const absl::Status status = (world.*phase)();
    const bool struck = softgpu::Get("strikes") != "0";
    softgpu::Set("FAULT", "");
    // What was lost in work that nobody has waited for yet.
    for (GpuDevice* gpu : Gpus()) gpu->SynchronizeAll().IgnoreError();
    CHECK_THAT(struck || status.ok(), "an error without a fault: " + status.ToString());
    world.CheckWhole(dir + "/before", 0);
    if (FileSystem::Posix()->Exists(dir + "/new.index")) {
      world.CheckWhole(dir + "/new", 1);
    } else {
      CHECK_THAT(!status.ok() || (phase != &World::Save && phase != &World::SaveWhileTraining),
                 "a save returned OK and made no checkpoint");
    }
    bool lost = false;
    for (GpuDevice* gpu : Gpus()) lost = lost || !gpu->status().ok();
    if (!lost) {
      absl::Status again = world.Restore();
      CHECK_THAT(again.ok(), again.ToString());
      again = world.RunAndFetch();
      CHECK_THAT(again.ok(), again.ToString());
      again = world.Save();
      CHECK_THAT(again.ok(), again.ToString());
      world.CheckWhole(dir + "/new", 4);
    } else {
      // The process goes on, with errors that say so.
      const absl::Status after = world.RunAndFetch();
      CHECK_THAT(!after.ok(), "a lost device was used");
      CHECK_THAT(std::string(after.message()).find("lost") != std::string::npos,
                 after.ToString());
      CHECK_THAT(!world.Save().ok(), "a lost device was saved");
      world.CheckWhole(dir + "/before", 0);
    }
  }
  // What cuBLAS works in is the device's for good.
  for (GpuDevice* gpu : Gpus()) {
    CHECK_THAT(gpu->memory_stats().in_use <= (int64_t{8} << 20),
               absl::StrFormat("%d bytes leak", gpu->memory_stats().in_use));
  }
  _exit(0);
}

// Runs fn in a process of its own; its exit status, or -signal.
int InChild(const std::function<void()>& fn) {
  const pid_t pid = fork();
  if (pid == 0) {
    fn();
    _exit(0);
  }
  int status = 0;
  waitpid(pid, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

class GpuFaultsTest : public ::testing::Test {
 protected:
  std::string Dir() {
    std::string pattern = ::testing::TempDir() + "/gpu-faults-XXXXXX";
    return mkdtemp(pattern.data());
  }
  // How many calls and pieces of work the phase takes.
  void Count(Phase phase, int* calls, int* works) {
    int fds[2];
    ASSERT_EQ(pipe(fds), 0);
    const std::string dir = Dir();
    ASSERT_EQ(InChild([&] {
                World world(dir);
                softgpu::Set("FAULT", "");
                const absl::Status status = (world.*phase)();
                CHECK_THAT(status.ok(), status.ToString());
                const int n[2] = {std::stoi(softgpu::Get("calls")),
                                  std::stoi(softgpu::Get("works"))};
                CHECK_THAT(write(fds[1], n, sizeof(n)) == sizeof(n), "pipe");
              }),
              0);
    int n[2];
    ASSERT_EQ(read(fds[0], n, sizeof(n)), static_cast<ssize_t>(sizeof(n)));
    close(fds[0]);
    close(fds[1]);
    *calls = n[0];
    *works = n[1];
  }
  void Walk(Phase phase) {
    if (!softgpu::Present()) GTEST_SKIP() << "a real GPU doesn't fail on demand";
    int calls = 0, works = 0;
    ASSERT_NO_FATAL_FAILURE(Count(phase, &calls, &works));
    ASSERT_GT(calls, 10);
    ASSERT_GT(works, 2);
    // All of them, or a share that differs from case to case.
    const char* const all = getenv("FERRY_LONG_TESTS");
#ifdef FERRY_TSAN
    constexpr int kShare = 64;  // A child takes seconds.
#else
    constexpr int kShare = 8;
#endif
    const int stride = all && *all == '1' ? 1 : kShare;
    int walked = 0;
    for (const auto& [kind, n] : {std::make_pair(std::string("call"), calls + 2),
                                  std::make_pair(std::string("lost"), works + 1)}) {
      // An error that the device gets over: an invalid value, or no memory.
      for (const char* error : {"=1", "=2"}) {
        if (kind == "lost" && error[1] == '2') continue;
        for (int i = 1 + (walked % stride); i <= n; i += stride) {
          const std::string fault =
              kind + ":" + std::to_string(i) + (kind == "call" ? error : "");
          const std::string dir = Dir();
          EXPECT_EQ(InChild([&] { Child(dir, phase, fault); }), 0) << fault;
          ++walked;
          if (HasFailure()) return;
        }
      }
    }
    printf("%d calls and %d pieces of work; %d failures walked\n", calls, works, walked);
  }
};

TEST_F(GpuFaultsTest, Runs) { Walk(&World::RunAndFetch); }
TEST_F(GpuFaultsTest, Saves) { Walk(&World::Save); }
TEST_F(GpuFaultsTest, SavesWhileTraining) { Walk(&World::SaveWhileTraining); }
TEST_F(GpuFaultsTest, Restores) { Walk(&World::Restore); }

}  // namespace
}  // namespace ferry
