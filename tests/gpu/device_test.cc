// The CUDA device itself: memory and its cache, copies, streams and events, peers, captured graphs.
#include <cstring>
#include <numeric>
#include <thread>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "runtime/device/gpu_device.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;

#define ASSERT_OK(expr)             \
  do {                              \
    const absl::Status s_ = (expr); \
    ASSERT_TRUE(s_.ok()) << s_;     \
  } while (false)

std::vector<GpuDevice*> Devices() {
  absl::StatusOr<std::vector<GpuDevice*>> devices = GpuDevices();
  EXPECT_TRUE(devices.ok()) << devices.status();
  return devices.ok() ? *devices : std::vector<GpuDevice*>();
}

class DeviceTest : public ::testing::Test {
 protected:
  void SetUp() override {
    const std::vector<GpuDevice*> devices = Devices();
    ASSERT_FALSE(devices.empty());
    gpu = devices[0];
  }
  void TearDown() override {
    if (!gpu) return;
    gpu->set_memory_limit(0);
    EXPECT_EQ(gpu->memory_stats().in_use, 0);
    ASSERT_OK(gpu->FreeCache());
  }
  BufferRef OnDevice(size_t n) {
    absl::StatusOr<BufferRef> b = gpu->allocator()->Allocate(n);
    EXPECT_TRUE(b.ok()) << b.status();
    return *std::move(b);
  }
  BufferRef Pinned(size_t n) {
    absl::StatusOr<BufferRef> b = PinnedAllocator()->Allocate(n);
    EXPECT_TRUE(b.ok()) << b.status();
    return *std::move(b);
  }
  GpuDevice* gpu = nullptr;
};

TEST_F(DeviceTest, SaysWhatItIs) {
  EXPECT_EQ(gpu->name(), "/job:localhost/replica:0/task:0/device:GPU:0");
  EXPECT_THAT(gpu->description(), HasSubstr("compute capability"));
  EXPECT_GT(gpu->total_memory(), 0);
  ASSERT_OK(gpu->status());
}

TEST_F(DeviceTest, BytesGoThereAndBack) {
  for (const size_t n : {size_t{1}, size_t{3}, size_t{4096}, size_t{1} << 20}) {
    const BufferRef from = Pinned(n), to = Pinned(n), there = OnDevice(n), beside = OnDevice(n);
    EXPECT_EQ(there->gpu(), gpu);
    EXPECT_EQ(from->gpu(), nullptr);
    for (size_t i = 0; i < n; ++i) static_cast<uint8_t*>(from->data())[i] = uint8_t(i * 7 + 1);
    // Over all three streams, ordered by events alone.
    ASSERT_OK(gpu->Order(GpuStream::kCompute, GpuStream::kToDevice));
    ASSERT_OK(gpu->CopyToDevice(GpuStream::kToDevice, there->data(), from->data(), n));
    ASSERT_OK(gpu->Order(GpuStream::kToDevice, GpuStream::kCompute));
    ASSERT_OK(gpu->CopyOnDevice(GpuStream::kCompute, beside->data(), there->data(), n));
    ASSERT_OK(gpu->Order(GpuStream::kCompute, GpuStream::kToHost));
    ASSERT_OK(gpu->CopyToHost(GpuStream::kToHost, to->data(), beside->data(), n));
    GpuEvent done;
    ASSERT_OK(gpu->Record(GpuStream::kToHost, &done));
    ASSERT_OK(gpu->Synchronize(done));
    EXPECT_EQ(std::memcmp(from->data(), to->data(), n), 0) << n;
    absl::StatusOr<bool> passed = gpu->Passed(done);
    ASSERT_TRUE(passed.ok() && *passed);
    ASSERT_OK(gpu->Order(GpuStream::kToHost, GpuStream::kCompute));
  }
}

TEST_F(DeviceTest, ManyPiecesInOneLaunch) {
  // Sizes and places around what a thread copies at once, and more pieces than one launch takes.
  constexpr size_t kBytes = size_t{1} << 20;
  const BufferRef host = Pinned(kBytes), from = OnDevice(kBytes), to = OnDevice(kBytes);
  auto* bytes = static_cast<uint8_t*>(host->data());
  for (size_t i = 0; i < kBytes; ++i) bytes[i] = uint8_t(i % 251);
  std::vector<uint8_t> expected(kBytes, 0xee);
  ASSERT_OK(gpu->CopyToDevice(GpuStream::kCompute, from->data(), bytes, kBytes));
  ASSERT_OK(gpu->Fill(gpu->native_stream(GpuStream::kCompute), to->data(), 0xee, kBytes));
  std::vector<GpuDevice::Piece> pieces;
  size_t at = 0, source = 0;
  const size_t sizes[] = {1, 3, 4, 15, 16, 17, 64, 255, 256, 1000, 4096, 20000};
  for (int i = 0; i < 400; ++i) {
    const size_t n = sizes[i % 12];
    if (at + n > kBytes || source + n > kBytes) break;
    pieces.push_back({static_cast<char*>(to->data()) + at,
                      static_cast<const char*>(from->data()) + source, n});
    std::memcpy(expected.data() + at, bytes + source, n);
    at += n + static_cast<size_t>(i % 5);
    source += n + static_cast<size_t>(i % 3) * 4;
  }
  ASSERT_GT(pieces.size(), 320u);
  ASSERT_OK(gpu->CopyPieces(GpuStream::kCompute, pieces));
  const BufferRef back = Pinned(kBytes);
  ASSERT_OK(gpu->CopyToHost(GpuStream::kCompute, back->data(), to->data(), kBytes));
  ASSERT_OK(gpu->SynchronizeAll());
  EXPECT_EQ(std::memcmp(back->data(), expected.data(), kBytes), 0);
}

TEST_F(DeviceTest, MemoryIsCachedAndLimited) {
  const GpuMemoryStats before = gpu->memory_stats();
  { const BufferRef a = OnDevice(1000); }
  { const BufferRef b = OnDevice(1020); }
  const GpuMemoryStats after = gpu->memory_stats();
  EXPECT_EQ(after.allocations - before.allocations, 2);
  EXPECT_EQ(after.device_allocations - before.device_allocations, 1);
  EXPECT_EQ(after.in_use, 0);
  EXPECT_EQ(after.cached, 1024);

  gpu->set_memory_limit(1 << 20);
  const std::string tag = "node 'hidden1/MatMul'";
  BufferRef held;
  {
    const MemoryTag named(&tag);
    held = OnDevice(700 << 10);
  }
  const std::string asking = "node 'loss' (Sum)";
  const MemoryTag named(&asking);
  const absl::StatusOr<BufferRef> more = gpu->allocator()->Allocate(500 << 10);
  ASSERT_EQ(more.status().code(), absl::StatusCode::kResourceExhausted);
  for (const char* part : {"512000 bytes", "node 'loss' (Sum)", "device:GPU:0", "1048576",
                           "node 'hidden1/MatMul' (720896)"}) {
    EXPECT_THAT(std::string(more.status().message()), HasSubstr(part));
  }
  // What is cached makes room.
  held.reset();
  EXPECT_GT(gpu->memory_stats().cached, 0);
  const int64_t flushes = gpu->memory_stats().cache_flushes;
  held = OnDevice(900 << 10);
  EXPECT_EQ(gpu->memory_stats().cache_flushes, flushes + 1);
}

TEST_F(DeviceTest, PeersCopy) {
  const std::vector<GpuDevice*> devices = Devices();
  if (devices.size() < 2) GTEST_SKIP() << "this machine has one GPU";
  constexpr size_t kBytes = 100000;
  const BufferRef host = Pinned(kBytes), back = Pinned(kBytes), a = OnDevice(kBytes);
  absl::StatusOr<BufferRef> b = devices[1]->allocator()->Allocate(kBytes);
  ASSERT_OK(b.status());
  std::memset(host->data(), 42, kBytes);
  ASSERT_OK(gpu->CopyToDevice(GpuStream::kCompute, a->data(), host->data(), kBytes));
  ASSERT_OK(devices[1]->CopyFromPeer((*b)->data(), gpu, a->data(), kBytes));
  // The source may be written at once.
  ASSERT_OK(gpu->Fill(gpu->native_stream(GpuStream::kCompute), a->data(), 1, kBytes));
  ASSERT_OK(devices[1]->CopyToHost(GpuStream::kCompute, back->data(), (*b)->data(), kBytes));
  ASSERT_OK(gpu->SynchronizeAll());
  ASSERT_OK(devices[1]->SynchronizeAll());
  EXPECT_EQ(std::memcmp(host->data(), back->data(), kBytes), 0);
  b->reset();
  ASSERT_OK(devices[1]->FreeCache());
}

TEST_F(DeviceTest, GraphsAreCapturedAndReplayed) {
  constexpr size_t kBytes = 4096;
  const BufferRef a = OnDevice(kBytes), b = OnDevice(kBytes), host = Pinned(kBytes);
  ASSERT_OK(gpu->Fill(gpu->native_stream(GpuStream::kCompute), a->data(), 5, kBytes));
  void* stream = nullptr;
  ASSERT_OK(gpu->BeginCapture(&stream));
  void* other = nullptr;
  EXPECT_EQ(gpu->BeginCapture(&other).code(), absl::StatusCode::kFailedPrecondition);
  ASSERT_OK(gpu->CopyOnDevice(stream, b->data(), a->data(), kBytes));
  absl::StatusOr<std::unique_ptr<GpuGraph>> graph = gpu->EndCapture();
  ASSERT_OK(graph.status());
  EXPECT_EQ((*graph)->num_nodes(), 1);
  for (const int byte : {5, 6, 7}) {
    ASSERT_OK(gpu->Fill(gpu->native_stream(GpuStream::kCompute), a->data(), byte, kBytes));
    ASSERT_OK(gpu->Launch(graph->get()));
    ASSERT_OK(gpu->CopyToHost(GpuStream::kCompute, host->data(), b->data(), kBytes));
    ASSERT_OK(gpu->SynchronizeAll());
    EXPECT_EQ(static_cast<uint8_t*>(host->data())[kBytes - 1], byte);
  }
  ASSERT_OK(gpu->BeginCapture(&stream));
  gpu->AbandonCapture();
  ASSERT_OK(gpu->status());
}

TEST_F(DeviceTest, ManyThreadsAtOnce) {
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([this, t] {
      for (int i = 0; i < 20; ++i) {
        const size_t n = 1000 + static_cast<size_t>(t * 100 + i);
        const BufferRef host = Pinned(n), back = Pinned(n), there = OnDevice(n);
        std::memset(host->data(), t * 20 + i, n);
        EXPECT_TRUE(
            gpu->CopyToDevice(GpuStream::kCompute, there->data(), host->data(), n).ok());
        EXPECT_TRUE(gpu->CopyToHost(GpuStream::kCompute, back->data(), there->data(), n).ok());
        GpuEvent done;
        EXPECT_TRUE(gpu->Record(GpuStream::kCompute, &done).ok());
        EXPECT_TRUE(gpu->Synchronize(done).ok());
        EXPECT_EQ(std::memcmp(host->data(), back->data(), n), 0);
      }
    });
  }
  for (std::thread& t : threads) t.join();
}

}  // namespace
}  // namespace ferry
