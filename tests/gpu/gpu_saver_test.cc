// The Saver with variables in GPUs' memory: the same files as from the host, restores into other
// placements, snapshots while variables change, and what becomes of errors.
#include <stdlib.h>

#include <cstring>
#include <fstream>
#include <iterator>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "saver/checkpoint_reader.h"
#include "saver/saver.h"
#include "tests/gpu/gpu_model.h"

#ifdef FERRY_TSAN
// An update of many variables holds all their mutexes; the thread sanitizer's detector of deadlocks
// can't count more than 64.
extern "C" const char* __tsan_default_options();
extern "C" const char* __tsan_default_options() { return "detect_deadlocks=0"; }
#endif

namespace ferry {
namespace {

using ::testing::HasSubstr;

#define ASSERT_OK(expr)             \
  do {                              \
    const absl::Status s_ = (expr); \
    ASSERT_TRUE(s_.ok()) << s_;     \
  } while (false)

int NumGpus() {
  absl::StatusOr<std::vector<GpuDevice*>> gpus = GpuDevices();
  return gpus.ok() ? static_cast<int>(gpus->size()) : 0;
}

std::string Contents(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  EXPECT_TRUE(in.good()) << path;
  return {std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
}

using Model = testing::GpuModel;

class GpuSaverTest : public ::testing::Test {
 protected:
  void SetUp() override {
    ASSERT_GT(NumGpus(), 0);
    std::string pattern = ::testing::TempDir() + "/gpu-saver-XXXXXX";
    dir = mkdtemp(pattern.data());
    for (int i = 0; i < NumGpus() && i < 2; ++i) gpus.push_back("/gpu:" + std::to_string(i));
  }
  std::string dir;
  std::vector<std::string> gpus;
  const std::vector<std::string> cpu{"/cpu:0"};
};

// Around a slot (2 MiB), what is gathered on the device (64 KiB), and vectors.
const std::vector<int64_t>& Sizes() {
  static const auto* const sizes = new std::vector<int64_t>{
      1, 0, 3, 4, 5, 1023, 16383, 16384, 16385, 524287, 524288, 524289, 7, 1500000, 2};
  return *sizes;
}

TEST_F(GpuSaverTest, TheFilesAreThoseOfTheHost) {
  Model on_gpu(Sizes(), gpus), on_cpu(Sizes(), cpu);
  ASSERT_OK(on_gpu.Run("init"));
  ASSERT_OK(on_cpu.Run("init"));
  ASSERT_OK(on_gpu.saver->Save(on_gpu.session.get(), dir + "/gpu").status());
  ASSERT_OK(on_cpu.saver->Save(on_cpu.session.get(), dir + "/cpu").status());
  for (const char* file : {".index", ".data-00000-of-00001"}) {
    EXPECT_EQ(Contents(dir + "/gpu" + file), Contents(dir + "/cpu" + file)) << file;
  }
}

// One data file and one thread for each device.
TEST_F(GpuSaverTest, ShardedSaves) {
  std::vector<std::string> devices = gpus;
  devices.push_back("/cpu:0");
  SaverOptions sharded;
  sharded.sharded = true;
  Model m(Sizes(), devices, {}, sharded);
  ASSERT_OK(m.Run("init"));
  for (int i = 1; i <= 4; ++i) {
    ASSERT_OK(m.Run("step"));
    SaveOptions at;
    at.global_step = i;
    ASSERT_OK(m.saver->SaveAsync(m.session.get(), dir + "/m", at).status());
    ASSERT_OK(m.Run("step"));
    ASSERT_OK(m.saver->WaitForPending());
    const std::string path = dir + "/m-" + std::to_string(i);
    EXPECT_TRUE(VerifyCheckpoint(FileSystem::Posix(), path).damage.empty());
    EXPECT_EQ((*CheckpointReader::Open(FileSystem::Posix(), path))->num_shards(),
              static_cast<int>(devices.size()));
    for (const auto& placement : {cpu, gpus}) {
      Model to(Sizes(), placement);
      ASSERT_OK(to.saver->Restore(to.session.get(), path));
      to.ExpectSteps(static_cast<float>(2 * i - 1));
    }
  }
}

TEST_F(GpuSaverTest, RestoresIntoAnyPlacement) {
  Model from(Sizes(), gpus);
  ASSERT_OK(from.Run("init"));
  ASSERT_OK(from.Run("step"));
  ASSERT_OK(from.saver->Save(from.session.get(), dir + "/m").status());
  const std::vector<std::string> other{gpus.back(), "/cpu:0", gpus.front()};
  for (const auto& devices : {cpu, gpus, other}) {
    Model to(Sizes(), devices);
    // Into variables that have no memory yet, and over contents.
    ASSERT_OK(to.saver->Restore(to.session.get(), dir + "/m"));
    to.ExpectSteps(1);
    ASSERT_OK(to.Run("step"));
    to.ExpectSteps(2);
    ASSERT_OK(to.saver->Restore(to.session.get(), dir + "/m"));
    to.ExpectSteps(1);
  }
}

TEST_F(GpuSaverTest, ManySmallVariables) {
  std::vector<int64_t> sizes;
  for (int i = 0; i < 700; ++i) sizes.push_back(1 + i * 7 % 1200);
  Model from(sizes, gpus), to(sizes, gpus);
  ASSERT_OK(from.Run("init"));
  ASSERT_OK(from.saver->Save(from.session.get(), dir + "/m").status());
  absl::StatusOr<std::unique_ptr<CheckpointReader>> reader =
      CheckpointReader::Open(FileSystem::Posix(), dir + "/m");
  ASSERT_OK(reader.status());
  float next = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    absl::StatusOr<Tensor> t = (*reader)->GetTensor(from.names[i]);
    ASSERT_OK(t.status());
    for (const float f : t->span<float>()) ASSERT_EQ(f, next++);
  }
  ASSERT_OK(to.saver->Restore(to.session.get(), dir + "/m"));
  to.ExpectSteps(0);
}

TEST_F(GpuSaverTest, TheGraphsOwnNodesSaveAndRestore) {
  Model m({5, 100000, 7}, gpus);
  absl::StatusOr<proto::SaverDef> def = m.saver->as_saver_def();
  ASSERT_OK(def.status());
  ASSERT_OK(m.Run("init"));
  const std::vector<std::pair<std::string, Tensor>> feed{
      {def->filename_tensor_name(), Tensor::Scalar<std::string>(dir + "/m")}};
  std::vector<Tensor> out;
  ASSERT_OK(m.session->Run(feed, {def->save_tensor_name()}, {}, &out));
  ASSERT_OK(m.Run("step"));
  ASSERT_OK(m.session->Run(feed, {}, {def->restore_op_name()}, nullptr));
  m.ExpectSteps(0);
}

TEST_F(GpuSaverTest, ACheckpointIsOneMomentWhileVariablesChange) {
  for (const int64_t pool : {int64_t{-1}, int64_t{200000}, int64_t{0}}) {
    SaverOptions options;
    options.shadow_pool_bytes = pool;
    Model m({300000, 10, 50000, 3, 600000, 20000}, gpus, {}, options);
    Model check({300000, 10, 50000, 3, 600000, 20000}, cpu);
    ASSERT_OK(m.Run("init"));
    float steps = 0;
    for (int round = 0; round < 6; ++round) {
      SaveOptions save;
      save.global_step = round;
      absl::StatusOr<bool> started = m.saver->SaveAsync(m.session.get(), dir + "/m", save);
      ASSERT_OK(started.status());
      ASSERT_TRUE(*started);
      const float at_cut = steps;
      for (int i = 0; i < 3; ++i, ++steps) ASSERT_OK(m.Run("step"));
      ASSERT_OK(m.saver->WaitForPending());
      ASSERT_OK(check.saver->Restore(check.session.get(), dir + "/m-" + std::to_string(round)));
      check.ExpectSteps(at_cut);
      m.ExpectSteps(steps);
    }
  }
}

TEST_F(GpuSaverTest, ADamagedCheckpointChangesNothing) {
  Model m(Sizes(), gpus);
  ASSERT_OK(m.Run("init"));
  ASSERT_OK(m.saver->Save(m.session.get(), dir + "/m").status());
  ASSERT_OK(m.Run("step"));
  const std::string data = dir + "/m.data-00000-of-00001";
  const std::string sound = Contents(data);
  for (const size_t at : {size_t{0}, sound.size() / 2, sound.size() - 1}) {
    std::string bad = sound;
    bad[at] = static_cast<char>(bad[at] ^ 1);
    std::ofstream(data, std::ios::binary) << bad;
    EXPECT_EQ(m.saver->Restore(m.session.get(), dir + "/m").code(), absl::StatusCode::kDataLoss);
    m.ExpectSteps(1);
  }
  std::ofstream(data, std::ios::binary) << sound;
  ASSERT_OK(m.saver->Restore(m.session.get(), dir + "/m"));
  m.ExpectSteps(0);
}

TEST_F(GpuSaverTest, WithoutMemoryForASecondCopyARestoreIsInPlace) {
  GpuDevice* const gpu = (*GpuDevices())[0];
  Model m({1000000, 1000000}, {"/gpu:0"});
  ASSERT_OK(m.Run("init"));
  ASSERT_OK(m.saver->Save(m.session.get(), dir + "/m").status());
  ASSERT_OK(m.Run("step"));
  ASSERT_OK(gpu->FreeCache());
  gpu->set_memory_limit(gpu->memory_stats().in_use + (1 << 20));
  const absl::Status restored = m.saver->Restore(m.session.get(), dir + "/m");
  gpu->set_memory_limit(0);
  ASSERT_OK(restored);
  m.ExpectSteps(0);
}

}  // namespace
}  // namespace ferry
