// What staging costs: host memory grows by the ring alone, and on the simulated clock copies,
// writes and training go on beside each other.
#include <stdlib.h>

#include <algorithm>
#include <atomic>
#include <fstream>
#include <map>
#include <sstream>
#include <thread>

#include "gtest/gtest.h"
#include "nlohmann/json.hpp"
#include "runtime/base/file_system.h"
#include "saver/staging.h"
#include "tests/gpu/gpu_model.h"
#include "tests/softgpu/control.h"

namespace ferry {
namespace {

#define ASSERT_OK(expr)             \
  do {                              \
    const absl::Status s_ = (expr); \
    ASSERT_TRUE(s_.ok()) << s_;     \
  } while (false)

bool LongTests() {
  const char* const all = getenv("FERRY_LONG_TESTS");
  return all && *all == '1';
}

// Of this process' own memory, which the software GPU's isn't (that is shared memory), in KiB.
int64_t ResidentKib() {
  std::ifstream status("/proc/self/status");
  for (std::string line; std::getline(status, line);) {
    if (line.rfind("RssAnon:", 0) == 0) return std::stoll(line.substr(8));
  }
  return -1;
}

// The most that is resident while it lives, beyond what was at the start.
class Growth {
 public:
  Growth()
      : before_(ResidentKib()), most_(before_), thread_([this] {
          while (!stop_) {
            most_ = std::max<int64_t>(most_, ResidentKib());
            std::this_thread::sleep_for(std::chrono::microseconds(500));
          }
        }) {}
  double Mib() {
    stop_ = true;
    thread_.join();
    return static_cast<double>(most_ - before_) / 1024;
  }

 private:
  const int64_t before_;
  std::atomic<int64_t> most_;
  std::atomic<bool> stop_{false};
  std::thread thread_;
};

std::string Dir() {
  std::string pattern = ::testing::TempDir() + "/gpu-staging-XXXXXX";
  return mkdtemp(pattern.data());
}

// The sanitizers' own memory comes on top.
#if defined(__SANITIZE_ADDRESS__) || defined(FERRY_TSAN)
constexpr double kMostMib = 1e9;
#else
constexpr double kMostMib = 64;
#endif

TEST(GpuStaging, HostMemoryGrowsByTheRingAlone) {
  const int64_t mib = LongTests() ? 1024 : 128;
  const std::vector<int64_t> sizes(8, (mib << 20) / 8 / 4);
  testing::GpuModel m(sizes, {"/gpu:0"});
  ASSERT_OK(m.Run("init"));
  ASSERT_OK(m.session->gpu()->SynchronizeAll());
  const std::string prefix = Dir() + "/m";
  {
    SaveOptions options;
    options.write_meta_graph = false;  // The graph holds the initial values.
    Growth growth;
    ASSERT_OK(m.saver->Save(m.session.get(), prefix, options).status());
    const double grown = growth.Mib();
    printf("saving %lld MiB: %.1f MiB of host memory more\n", static_cast<long long>(mib), grown);
    EXPECT_LE(grown, kMostMib);
  }
  {
    Growth growth;
    ASSERT_OK(m.saver->Restore(m.session.get(), prefix));
    const double grown = growth.Mib();
    printf("restoring it: %.1f MiB of host memory more\n", grown);
    EXPECT_LE(grown, kMostMib);
  }
  EXPECT_LE(StagingRing::kUsualSlots * StagingRing::kUsualSlotBytes, size_t{64} << 20);
}

// A disk that on the simulated clock takes 2 GB/s, and keeps nothing.
class SlowDisk : public ForwardingFileSystem {
 public:
  class Writer : public BlockWriter {
   public:
    explicit Writer(std::unique_ptr<BlockWriter> file) : file_(std::move(file)) {}
    size_t alignment() const override { return file_->alignment(); }
    absl::StatusOr<uint64_t> Write(const void* data, size_t n, uint64_t offset) override {
      softgpu::SpendHostTime("write", static_cast<double>(n) / 2000, n);
      return file_->Write(data, n, offset);
    }
    absl::Status Wait(uint64_t ticket) override { return file_->Wait(ticket); }
    absl::Status SetLength(uint64_t length) override { return file_->SetLength(length); }
    absl::Status Finish() override { return file_->Finish(); }
    const char* method() const override { return file_->method(); }

   private:
    const std::unique_ptr<BlockWriter> file_;
  };
  absl::StatusOr<std::unique_ptr<BlockWriter>> NewBlockWriter(
      const std::string& path, const BlockWriterOptions& options) override {
    FERRY_ASSIGN_OR_RETURN(std::unique_ptr<BlockWriter> file,
                           ForwardingFileSystem::NewBlockWriter(path, options));
    return std::unique_ptr<BlockWriter>(new Writer(std::move(file)));
  }
};

struct Span {
  double start, end;
};

TEST(GpuStaging, CopyWriteAndTrainingGoOnBesideEachOther) {
  if (!softgpu::Present()) GTEST_SKIP() << "a real GPU has no simulated clock";
  SlowDisk disk;
  SessionOptions options;
  options.file_system = &disk;
  const int64_t bytes = int64_t{64} << 20;
  testing::GpuModel m({bytes / 4 / 2, bytes / 4 / 2, 1000}, {"/gpu:0"}, options);
  ASSERT_OK(m.Run("init"));
  ASSERT_OK(m.Run("step"));
  const std::string dir = Dir();
  ASSERT_OK(m.saver->SaveAsync(m.session.get(), dir + "/first").status());  // Makes the pool.
  ASSERT_OK(m.saver->WaitForPending());

  const std::string path = dir + "/timeline";
  ASSERT_EQ(softgpu::Set("TIMELINE", path), "");
  ASSERT_OK(m.saver->SaveAsync(m.session.get(), dir + "/m").status());
  int steps = 0;
  while (m.saver->busy() || steps < 2) {
    ASSERT_OK(m.Run("step"));
    ++steps;
    ASSERT_OK(m.session->gpu()->SynchronizeAll());
  }
  ASSERT_OK(m.saver->WaitForPending());
  ASSERT_EQ(softgpu::Set("TIMELINE", ""), "");

  std::vector<Span> copies, writes, kernels;
  std::ifstream in(path);
  double copied_bytes = 0;
  for (std::string line; std::getline(in, line);) {
    const nlohmann::json j = nlohmann::json::parse(line);
    const Span span{j["start"], j["end"]};
    if (j["engine"] == "d2h") {
      copies.push_back(span);
      copied_bytes += j["bytes"].get<double>();
    } else if (j["engine"] == "host" && j["name"] == "write") {
      writes.push_back(span);
    } else if (j["engine"] == "compute") {
      kernels.push_back(span);
    }
  }
  ASSERT_GE(copied_bytes, static_cast<double>(bytes));
  ASSERT_FALSE(writes.empty());
  ASSERT_FALSE(kernels.empty());
  const auto total = [](const std::vector<Span>& spans) {
    double sum = 0;
    for (const Span& s : spans) sum += s.end - s.start;
    return sum;
  };
  const double begin = copies.front().start;
  double end = 0;
  for (const Span& s : writes) end = std::max(end, s.end);
  const double both = total(copies) + total(writes);
  printf("copies %.0f us, writes %.0f us, together in %.0f us; %d steps meanwhile\n", total(copies),
         total(writes), end - begin, steps);
  // Nearly all of the copying is hidden behind the writing.
  EXPECT_LT(end - begin, total(writes) + 0.25 * total(copies));
  EXPECT_LT(end - begin, both);
  // A kernel ran between the save's first copy and its last write.
  EXPECT_TRUE(std::any_of(kernels.begin(), kernels.end(),
                          [&](const Span& s) { return s.start >= begin && s.end <= end; }));
}

}  // namespace
}  // namespace ferry
