// Tests of several devices: each with its memory, streams and errors, and copies between them.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <vector>

#include "tests/softgpu/control.h"
#include "tests/softgpu/runtime_kernels.h"

namespace softgpu_test {
namespace {

using softgpu::Get;
using softgpu::Set;
using testing::HasSubstr;

constexpr int kN = 200;
constexpr size_t kBytes = kN * sizeof(float);

#define ASSERT_CUDA_OK(call) ASSERT_EQ(cudaSuccess, (call)) << #call

class DevicesTest : public testing::Test {
 protected:
  void SetUp() override {
    int count = 0;
    ASSERT_CUDA_OK(cudaGetDeviceCount(&count));
    if (count < 2) GTEST_SKIP() << "this machine has one GPU";
    for (int i : {1, 0}) {
      ASSERT_CUDA_OK(cudaSetDevice(i));
      ASSERT_CUDA_OK(cudaStreamCreateWithFlags(&stream_[i], cudaStreamNonBlocking));
      ASSERT_CUDA_OK(cudaEventCreateWithFlags(&event_[i], cudaEventDisableTiming));
      ASSERT_CUDA_OK(cudaMalloc(reinterpret_cast<void**>(&memory_[i]), kBytes));
      ASSERT_CUDA_OK(cudaMemsetAsync(memory_[i], 0, kBytes, stream_[i]));
    }
  }

  void TearDown() override {
    for (int i : {1, 0}) {
      ASSERT_CUDA_OK(cudaSetDevice(i));
      ASSERT_CUDA_OK(cudaDeviceReset());
    }
    Set("REPORTS", "");
    Set("ON_REPORT", "exit");
    Set("FAULT", "");
    cudaGetLastError();
  }

  std::vector<float> ToHost(int i) {
    std::vector<float> host(kN);
    EXPECT_EQ(cudaSuccess,
              cudaMemcpyAsync(host.data(), memory_[i], kBytes, cudaMemcpyDefault, stream_[i]));
    return host;
  }

  cudaStream_t stream_[2];
  cudaEvent_t event_[2];
  float* memory_[2];
};

TEST_F(DevicesTest, PeerCopiesBehindEvents) {
  Add(memory_[0], memory_[0], kN, 5, stream_[0]);
  ASSERT_CUDA_OK(cudaEventRecord(event_[0], stream_[0]));
  ASSERT_CUDA_OK(cudaSetDevice(1));
  ASSERT_CUDA_OK(cudaStreamWaitEvent(stream_[1], event_[0], 0));
  ASSERT_CUDA_OK(cudaMemcpyPeerAsync(memory_[1], 1, memory_[0], 0, kBytes, stream_[1]));
  Add(memory_[1], memory_[1], kN, 1, stream_[1]);
  EXPECT_THAT(ToHost(1), testing::Each(6));
  EXPECT_EQ(cudaErrorInvalidResourceHandle, cudaEventRecord(event_[0], stream_[1]));
  cudaPointerAttributes attributes;
  ASSERT_CUDA_OK(cudaPointerGetAttributes(&attributes, memory_[1]));
  EXPECT_EQ(cudaMemoryTypeDevice, attributes.type);
  EXPECT_EQ(1, attributes.device);
}

TEST_F(DevicesTest, AStreamOfAnotherDeviceCannotLaunch) {
  Add(memory_[1], memory_[1], kN, 5, stream_[1]);
  EXPECT_EQ(cudaErrorInvalidResourceHandle, cudaGetLastError());
}

TEST_F(DevicesTest, AKernelNeedsPeerAccessToOthersMemory) {
  int can = 0;
  ASSERT_CUDA_OK(cudaDeviceCanAccessPeer(&can, 0, 1));
  if (!can) GTEST_SKIP() << "these GPUs can't use each other's memory";
  if (softgpu::Present()) {
    Set("ON_REPORT", "error");
    Add(memory_[1], memory_[0], kN, 1, stream_[0]);
    EXPECT_EQ(cudaErrorIllegalAddress, cudaStreamSynchronize(stream_[0]));
    EXPECT_THAT(Get("reports"), HasSubstr("peer"));
    TearDown();
    SetUp();
  }
  ASSERT_CUDA_OK(cudaDeviceEnablePeerAccess(1, 0));
  EXPECT_EQ(cudaErrorPeerAccessAlreadyEnabled, cudaDeviceEnablePeerAccess(1, 0));
  ASSERT_CUDA_OK(cudaStreamSynchronize(stream_[1]));
  Add(memory_[1], memory_[0], kN, 1, stream_[0]);
  EXPECT_THAT(ToHost(0), testing::Each(1));
}

TEST_F(DevicesTest, OneIsLostTheOtherIsNot) {
  if (!softgpu::Present()) GTEST_SKIP() << "this is a real GPU";
  ASSERT_CUDA_OK(cudaSetDevice(1));
  ASSERT_EQ("", Set("FAULT", "lost:1"));
  ASSERT_CUDA_OK(cudaMemsetAsync(memory_[1], 0, kBytes, stream_[1]));
  EXPECT_EQ(cudaErrorLaunchFailure, cudaStreamSynchronize(stream_[1]));
  void* p;
  EXPECT_EQ(cudaErrorLaunchFailure, cudaMalloc(&p, 4));
  ASSERT_CUDA_OK(cudaSetDevice(0));
  Add(memory_[0], memory_[0], kN, 1, stream_[0]);
  EXPECT_THAT(ToHost(0), testing::Each(1));
  // Until it depends on the other's memory.
  ASSERT_CUDA_OK(cudaMemcpyPeerAsync(memory_[0], 0, memory_[1], 1, kBytes, stream_[0]));
  EXPECT_EQ(cudaErrorLaunchFailure, cudaStreamSynchronize(stream_[0]));
}

}  // namespace
}  // namespace softgpu_test
