// Tests of the software GPU's runtime: when queued work runs in each order, host memory, events,
// graphs, faults, reports and the clock. Those that look into the software GPU are left out on a
// real one.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <fstream>
#include <mutex>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "tests/softgpu/control.h"
#include "tests/softgpu/runtime_kernels.h"

namespace softgpu_test {
namespace {

using softgpu::Get;
using softgpu::Set;
using testing::HasSubstr;

constexpr int kN = 1000;
constexpr size_t kBytes = kN * sizeof(float);

#define EXPECT_CUDA(expected, call) EXPECT_EQ(cudaError_t{expected}, (call)) << #call
#define ASSERT_CUDA_OK(call) ASSERT_EQ(cudaSuccess, (call)) << #call

template <typename T>
void** Out(T** pointer) {
  return reinterpret_cast<void**>(pointer);
}

class RuntimeTest : public testing::Test {
 protected:
  void SetUp() override {
    Set("ORDER", "lazy");
    ASSERT_CUDA_OK(cudaStreamCreateWithFlags(&a_, cudaStreamNonBlocking));
    ASSERT_CUDA_OK(cudaStreamCreateWithFlags(&b_, cudaStreamNonBlocking));
    ASSERT_CUDA_OK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    for (float*& p : device_) ASSERT_CUDA_OK(cudaMalloc(Out(&p), kBytes));
    for (float*& p : pinned_) ASSERT_CUDA_OK(cudaMallocHost(Out(&p), kBytes));
  }

  void TearDown() override {
    Set("FAULT", "");
    Set("MODEL", "");
    cudaGetLastError();
    for (float* p : device_) EXPECT_CUDA(cudaSuccess, cudaFree(p));
    for (float* p : pinned_) EXPECT_CUDA(cudaSuccess, cudaFreeHost(p));
    EXPECT_CUDA(cudaSuccess, cudaEventDestroy(event_));
    EXPECT_CUDA(cudaSuccess, cudaStreamDestroy(a_));
    EXPECT_CUDA(cudaSuccess, cudaStreamDestroy(b_));
    EXPECT_CUDA(cudaSuccess, cudaDeviceSynchronize());
    EXPECT_EQ("", Get("leaks"));
    EXPECT_CUDA(cudaSuccess, cudaGetLastError());
  }

  // The device is lost; later tests get a new one.
  void Forget() {
    EXPECT_CUDA(cudaSuccess, cudaDeviceReset());
    for (float* p : pinned_) EXPECT_CUDA(cudaSuccess, cudaFreeHost(p));
    Set("FAULT", "");
    Set("ON_REPORT", "exit");
    Set("REPORTS", "");
    SetUp();
  }

  static void Fill(float* p, float value) { std::fill(p, p + kN, value); }
  // The first element, if all are like it.
  static float Same(const float* p) {
    for (int i = 1; i < kN; ++i) {
      if (!(p[i] == p[0])) return -1e9;
    }
    return p[0];
  }

  cudaStream_t a_, b_;
  cudaEvent_t event_;
  float* device_[3];
  float* pinned_[3];
};

// Tests of what a real GPU can't show.
class SoftwareGpuTest : public RuntimeTest {
 protected:
  void SetUp() override {
    if (!softgpu::Present()) GTEST_SKIP() << "this is a real GPU";
    RuntimeTest::SetUp();
  }
};

TEST_F(RuntimeTest, KernelsCopiesAndEventsGiveTheRightResultInEveryOrder) {
  for (const std::string order : {"lazy", "eager", "shuffle:1", "shuffle:2", "shuffle:3"}) {
    SCOPED_TRACE(order);
    ASSERT_EQ("", Set("ORDER", order));
    for (int step = 0; step < 20; ++step) {
      Fill(pinned_[0], step);
      ASSERT_CUDA_OK(cudaMemcpyAsync(device_[0], pinned_[0], kBytes, cudaMemcpyHostToDevice, a_));
      Add(device_[0], device_[1], kN, 1, a_);
      ASSERT_CUDA_OK(cudaEventRecord(event_, a_));
      ASSERT_CUDA_OK(cudaStreamWaitEvent(b_, event_, 0));
      Add(device_[1], device_[2], kN, 1, b_);
      ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[1], device_[2], kBytes, cudaMemcpyDeviceToHost, b_));
      ASSERT_CUDA_OK(cudaStreamSynchronize(b_));
      EXPECT_EQ(step + 2, Same(pinned_[1]));
    }
  }
}

TEST_F(SoftwareGpuTest, AMissingWaitGivesAWrongResultInLazyOrder) {
  Fill(pinned_[0], 1);
  ASSERT_CUDA_OK(cudaMemset(device_[1], 0, kBytes));
  ASSERT_CUDA_OK(cudaDeviceSynchronize());
  ASSERT_CUDA_OK(cudaMemcpyAsync(device_[0], pinned_[0], kBytes, cudaMemcpyHostToDevice, a_));
  Add(device_[0], device_[1], kN, 1, a_);
  Add(device_[1], device_[2], kN, 1, b_);  // Doesn't wait for `a_`.
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[1], device_[2], kBytes, cudaMemcpyDeviceToHost, b_));
  ASSERT_CUDA_OK(cudaDeviceSynchronize());
  EXPECT_EQ(1, Same(pinned_[1]));

  ASSERT_EQ("", Set("ORDER", "eager"));
  Add(device_[0], device_[1], kN, 1, a_);
  Add(device_[1], device_[2], kN, 1, b_);
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[1], device_[2], kBytes, cudaMemcpyDeviceToHost, b_));
  ASSERT_CUDA_OK(cudaDeviceSynchronize());
  EXPECT_EQ(3, Same(pinned_[1]));
}

TEST_F(SoftwareGpuTest, ShuffledOrderShowsAMissingWaitWithSomeSeeds) {
  int wrong = 0;
  for (int seed = 0; seed < 20; ++seed) {
    ASSERT_EQ("", Set("ORDER", "shuffle:" + std::to_string(seed)));
    ASSERT_CUDA_OK(cudaMemset(device_[0], 0, kBytes));
    ASSERT_CUDA_OK(cudaMemset(device_[1], 0, kBytes));
    ASSERT_CUDA_OK(cudaDeviceSynchronize());
    Add(device_[0], device_[1], kN, 1, a_);
    Add(device_[1], device_[2], kN, 1, b_);
    ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[1], device_[2], kBytes, cudaMemcpyDeviceToHost, b_));
    ASSERT_CUDA_OK(cudaDeviceSynchronize());
    wrong += Same(pinned_[1]) != 2;
  }
  EXPECT_GT(wrong, 2);
  EXPECT_LT(wrong, 18);
}

TEST_F(SoftwareGpuTest, PinnedMemoryIsReadWhenTheQueueRuns) {
  Fill(pinned_[0], 1);
  ASSERT_CUDA_OK(cudaMemcpyAsync(device_[0], pinned_[0], kBytes, cudaMemcpyHostToDevice, a_));
  Fill(pinned_[0], 2);  // Too early.
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[1], device_[0], kBytes, cudaMemcpyDeviceToHost, a_));
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  EXPECT_EQ(2, Same(pinned_[1]));
}

TEST_F(RuntimeTest, PageableMemoryIsReadAtTheCall) {
  std::vector<float> host(kN, 1);
  ASSERT_CUDA_OK(cudaMemcpyAsync(device_[0], host.data(), kBytes, cudaMemcpyHostToDevice, a_));
  Fill(host.data(), 2);
  ASSERT_CUDA_OK(cudaMemcpyAsync(host.data(), device_[0], kBytes, cudaMemcpyDeviceToHost, a_));
  EXPECT_EQ(1, Same(host.data()));
}

TEST_F(SoftwareGpuTest, PinnedMemoryThatACopyWillFillIsRubbishBefore) {
  ASSERT_CUDA_OK(cudaMemset(device_[0], 0, kBytes));
  ASSERT_CUDA_OK(cudaDeviceSynchronize());
  Fill(pinned_[0], 5);
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[0], device_[0], kBytes, cudaMemcpyDeviceToHost, a_));
  EXPECT_NE(5, pinned_[0][3]);
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  EXPECT_EQ(0, Same(pinned_[0]));
  // What a queued copy still has to read stays.
  Fill(pinned_[0], 6);
  ASSERT_CUDA_OK(cudaMemcpyAsync(device_[1], pinned_[0], kBytes, cudaMemcpyHostToDevice, a_));
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[0], device_[0], kBytes, cudaMemcpyDeviceToHost, a_));
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[1], device_[1], kBytes, cudaMemcpyDeviceToHost, a_));
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  EXPECT_EQ(0, Same(pinned_[0]));
  EXPECT_EQ(6, Same(pinned_[1]));
}

TEST_F(RuntimeTest, TheDefaultStreamAndBlockingStreamsWaitForEachOther) {
  cudaStream_t blocking;
  ASSERT_CUDA_OK(cudaStreamCreate(&blocking));
  ASSERT_CUDA_OK(cudaMemset(device_[0], 0, kBytes));
  Add(device_[0], device_[1], kN, 1, blocking);
  Add(device_[1], device_[2], kN, 1, nullptr);
  std::vector<float> host(kN);
  ASSERT_CUDA_OK(cudaMemcpy(host.data(), device_[2], kBytes, cudaMemcpyDeviceToHost));
  EXPECT_EQ(2, Same(host.data()));
  ASSERT_CUDA_OK(cudaStreamDestroy(blocking));
}

TEST_F(SoftwareGpuTest, TheDefaultStreamDoesNotWaitForOthers) {
  ASSERT_CUDA_OK(cudaMemset(device_[0], 0, kBytes));
  ASSERT_CUDA_OK(cudaMemset(device_[1], 0, kBytes));
  ASSERT_CUDA_OK(cudaDeviceSynchronize());
  Add(device_[0], device_[1], kN, 1, a_);
  std::vector<float> host(kN);
  ASSERT_CUDA_OK(cudaMemcpy(host.data(), device_[1], kBytes, cudaMemcpyDeviceToHost));
  EXPECT_EQ(0, Same(host.data()));
}

TEST_F(RuntimeTest, EventsBecomeReadyWhenAsked) {
  EXPECT_CUDA(cudaSuccess, cudaEventQuery(event_));  // Never recorded.
  ASSERT_CUDA_OK(cudaMemsetAsync(device_[0], 0, kBytes, a_));
  ASSERT_CUDA_OK(cudaEventRecord(event_, a_));
  int queries = 0;
  cudaError_t error;
  while ((error = cudaEventQuery(event_)) == cudaErrorNotReady) ++queries;
  EXPECT_CUDA(cudaSuccess, error);
  if (softgpu::Present()) {
    EXPECT_GT(queries, 0);
  }
  cudaGetLastError();
}

TEST_F(RuntimeTest, HostFunctionsRunInOrderEvenIfNobodyWaits) {
  for (const char* order : {"lazy", "eager", "shuffle:4"}) {
    SCOPED_TRACE(order);
    ASSERT_EQ("", Set("ORDER", order));
    struct State {
      std::mutex mu;
      std::condition_variable changed;
      const float* result;
      float seen = -1;
    } state;
    state.result = pinned_[0];
    ASSERT_CUDA_OK(cudaMemsetAsync(device_[0], 0, kBytes, a_));
    Add(device_[0], device_[0], kN, 3, a_);
    ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[0], device_[0], kBytes, cudaMemcpyDeviceToHost, a_));
    // The lock is held when it is queued: it must not run within the call.
    std::unique_lock<std::mutex> lock(state.mu);
    ASSERT_CUDA_OK(cudaLaunchHostFunc(
        a_,
        [](void* p) {
          State* s = static_cast<State*>(p);
          std::lock_guard<std::mutex> held(s->mu);
          s->seen = s->result[7];
          s->changed.notify_one();
        },
        &state));
    state.changed.wait(lock, [&] { return state.seen >= 0; });
    EXPECT_EQ(3, state.seen);
  }
}

TEST_F(RuntimeTest, ManyThreadsUseTheirOwnStreams) {
  std::vector<std::thread> threads;
  std::atomic<int> right{0};
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&right, t] {
      cudaStream_t stream;
      float* device;
      float* host;
      if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess ||
          cudaMalloc(Out(&device), kBytes) != cudaSuccess ||
          cudaMallocHost(Out(&host), kBytes) != cudaSuccess) {
        return;
      }
      for (int i = 0; i < 50; ++i) {
        Fill(host, t);
        cudaMemcpyAsync(device, host, kBytes, cudaMemcpyDefault, stream);
        Add(device, device, kN, i, stream);
        cudaMemcpyAsync(host, device, kBytes, cudaMemcpyDefault, stream);
        cudaStreamSynchronize(stream);
        right += Same(host) == t + i;
      }
      cudaFree(device);
      cudaFreeHost(host);
      cudaStreamDestroy(stream);
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(200, right);
}

TEST_F(RuntimeTest, VariablesAndAttributesOfFunctions) {
  const float scale = 3;
  ASSERT_CUDA_OK(
      cudaMemcpyToSymbol(ScaleVariable(), &scale, sizeof(scale), 0, cudaMemcpyHostToDevice));
  ASSERT_CUDA_OK(cudaDeviceSynchronize());
  int before = 0;
  ASSERT_CUDA_OK(
      cudaMemcpyFromSymbol(&before, CountVariable(), sizeof(before), 0, cudaMemcpyDeviceToHost));
  EXPECT_EQ(7, before);
  Scale(device_[0], kN, a_);
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[0], device_[0], kBytes, cudaMemcpyDeviceToHost, a_));
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  EXPECT_EQ(30, pinned_[0][10]);
  int after = 0;
  ASSERT_CUDA_OK(
      cudaMemcpyFromSymbol(&after, CountVariable(), sizeof(after), 0, cudaMemcpyDeviceToHost));
  EXPECT_EQ(8, after);

  cudaFuncAttributes attributes;
  ASSERT_CUDA_OK(cudaFuncGetAttributes(&attributes, AddFunction()));
  EXPECT_EQ(0u, attributes.sharedSizeBytes);
  EXPECT_EQ(1024, attributes.maxThreadsPerBlock);
  int blocks = 0;
  ASSERT_CUDA_OK(cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, AddFunction(), 256, 0));
  EXPECT_GE(blocks, 4);
}

TEST_F(RuntimeTest, DynamicSharedMemoryBeyond48KMustBeAskedFor) {
  int* sum = reinterpret_cast<int*>(device_[0]);
  SumInShared(sum, 100, 32, a_);
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[0], sum, sizeof(int), cudaMemcpyDeviceToHost, a_));
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  EXPECT_EQ(4950, *reinterpret_cast<int*>(pinned_[0]));

  void* arguments[] = {&sum, const_cast<int*>(&kN)};
  EXPECT_CUDA(
      cudaErrorInvalidValue,
      cudaFuncSetAttribute(SumFunction(), cudaFuncAttributeMaxDynamicSharedMemorySize, 1 << 20));
  EXPECT_NE(cudaSuccess,
            cudaLaunchKernel(SumFunction(), dim3(1), dim3(32), arguments, 64 << 10, a_));
  ASSERT_CUDA_OK(
      cudaFuncSetAttribute(SumFunction(), cudaFuncAttributeMaxDynamicSharedMemorySize, 64 << 10));
  EXPECT_CUDA(cudaSuccess,
              cudaLaunchKernel(SumFunction(), dim3(1), dim3(32), arguments, 64 << 10, a_));
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  cudaGetLastError();
}

TEST_F(RuntimeTest, LaunchesThatNoGpuRunsAreErrors) {
  int n = kN;
  float value = 1;
  void* arguments[] = {&device_[0], &device_[1], &n, &value};
  EXPECT_CUDA(cudaErrorInvalidConfiguration,
              cudaLaunchKernel(AddFunction(), dim3(1), dim3(2048), arguments, 0, a_));
  EXPECT_CUDA(cudaErrorInvalidConfiguration,
              cudaLaunchKernel(AddFunction(), dim3(0), dim3(32), arguments, 0, a_));
  EXPECT_CUDA(cudaErrorInvalidConfiguration, cudaGetLastError());
  EXPECT_CUDA(cudaSuccess, cudaGetLastError());
  EXPECT_CUDA(cudaErrorInvalidDeviceFunction,
              cudaLaunchKernel(&n, dim3(1), dim3(32), arguments, 0, a_));
  EXPECT_CUDA(cudaErrorInvalidDevice, cudaSetDevice(100));
  cudaGetLastError();
}

// Graphs.

TEST_F(RuntimeTest, AGraphWithBranchesReplays) {
  for (const char* order : {"lazy", "eager", "shuffle:5"}) {
    SCOPED_TRACE(order);
    ASSERT_EQ("", Set("ORDER", order));
    cudaEvent_t joined;
    ASSERT_CUDA_OK(cudaEventCreateWithFlags(&joined, cudaEventDisableTiming));
    ASSERT_CUDA_OK(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal));
    ASSERT_CUDA_OK(cudaMemcpyAsync(device_[0], pinned_[0], kBytes, cudaMemcpyHostToDevice, a_));
    ASSERT_CUDA_OK(cudaEventRecord(event_, a_));
    ASSERT_CUDA_OK(cudaStreamWaitEvent(b_, event_, 0));
    Add(device_[0], device_[1], kN, 1, a_);
    Add(device_[0], device_[2], kN, 2, b_);
    ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[2], device_[2], kBytes, cudaMemcpyDeviceToHost, b_));
    ASSERT_CUDA_OK(cudaEventRecord(joined, b_));
    ASSERT_CUDA_OK(cudaStreamWaitEvent(a_, joined, 0));
    ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_[1], device_[1], kBytes, cudaMemcpyDeviceToHost, a_));
    cudaStreamCaptureStatus status;
    ASSERT_CUDA_OK(cudaStreamIsCapturing(b_, &status));
    EXPECT_EQ(cudaStreamCaptureStatusActive, status);
    cudaGraph_t graph;
    ASSERT_CUDA_OK(cudaStreamEndCapture(a_, &graph));
    ASSERT_CUDA_OK(cudaStreamIsCapturing(b_, &status));
    EXPECT_EQ(cudaStreamCaptureStatusNone, status);
    size_t nodes = 0;
    ASSERT_CUDA_OK(cudaGraphGetNodes(graph, nullptr, &nodes));
    EXPECT_EQ(5u, nodes);
    cudaGraphExec_t exec;
    ASSERT_CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
    ASSERT_CUDA_OK(cudaGraphDestroy(graph));
    for (int i = 0; i < 5; ++i) {
      Fill(pinned_[0], i);
      ASSERT_CUDA_OK(cudaGraphLaunch(exec, a_));
      ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
      EXPECT_EQ(i + 1, Same(pinned_[1]));
      EXPECT_EQ(i + 2, Same(pinned_[2]));
    }
    ASSERT_CUDA_OK(cudaGraphExecDestroy(exec));
    ASSERT_CUDA_OK(cudaEventDestroy(joined));
  }
}

TEST_F(RuntimeTest, WhatCannotBeCapturedBreaksTheCapture) {
  cudaGraph_t graph;
  float* pointer;
  // An allocation under the strictest mode, by any thread.
  ASSERT_CUDA_OK(cudaStreamBeginCapture(a_, cudaStreamCaptureModeGlobal));
  EXPECT_CUDA(cudaErrorStreamCaptureUnsupported, cudaMalloc(Out(&pointer), 4));
  EXPECT_CUDA(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(a_, &graph));
  // A wait for the stream that is captured.
  ASSERT_CUDA_OK(cudaStreamBeginCapture(a_, cudaStreamCaptureModeRelaxed));
  EXPECT_CUDA(cudaErrorStreamCaptureUnsupported, cudaStreamSynchronize(a_));
  EXPECT_CUDA(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(a_, &graph));
  // A branch that isn't joined.
  ASSERT_CUDA_OK(cudaStreamBeginCapture(a_, cudaStreamCaptureModeRelaxed));
  ASSERT_CUDA_OK(cudaEventRecord(event_, a_));
  ASSERT_CUDA_OK(cudaStreamWaitEvent(b_, event_, 0));
  Add(device_[0], device_[1], kN, 1, b_);
  EXPECT_CUDA(cudaErrorStreamCaptureUnjoined, cudaStreamEndCapture(a_, &graph));
  // Work outside the graph.
  ASSERT_CUDA_OK(cudaEventRecord(event_, b_));
  ASSERT_CUDA_OK(cudaStreamBeginCapture(a_, cudaStreamCaptureModeRelaxed));
  EXPECT_CUDA(cudaErrorStreamCaptureIsolation, cudaStreamWaitEvent(a_, event_, 0));
  EXPECT_CUDA(cudaErrorStreamCaptureInvalidated, cudaStreamEndCapture(a_, &graph));
  // Relaxed, allocations are fine.
  ASSERT_CUDA_OK(cudaStreamBeginCapture(a_, cudaStreamCaptureModeRelaxed));
  EXPECT_CUDA(cudaSuccess, cudaMalloc(Out(&pointer), 4));
  EXPECT_CUDA(cudaSuccess, cudaStreamEndCapture(a_, &graph));
  EXPECT_CUDA(cudaSuccess, cudaGraphDestroy(graph));
  EXPECT_CUDA(cudaSuccess, cudaFree(pointer));
  cudaGetLastError();
}

// Faults.

TEST_F(SoftwareGpuTest, TheNthCallFails) {
  ASSERT_EQ("", Set("FAULT", "cudaMalloc:2"));
  float* p[3];
  EXPECT_CUDA(cudaSuccess, cudaMalloc(Out(&p[0]), 4));
  EXPECT_CUDA(cudaErrorMemoryAllocation, cudaMalloc(Out(&p[1]), 4));
  EXPECT_CUDA(cudaErrorMemoryAllocation, cudaGetLastError());
  EXPECT_CUDA(cudaSuccess, cudaGetLastError());
  EXPECT_CUDA(cudaSuccess, cudaMalloc(Out(&p[2]), 4));
  EXPECT_EQ("1", Get("strikes"));
  EXPECT_EQ("3", Get("calls"));

  ASSERT_EQ("", Set("FAULT", "call:2+=719"));
  EXPECT_CUDA(cudaSuccess, cudaMemsetAsync(device_[0], 0, 4, a_));
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaMemsetAsync(device_[0], 0, 4, a_));
  // What is to be released is released even so.
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaFree(p[0]));
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaFree(p[2]));
  EXPECT_NE("", Set("FAULT", "nonsense"));
  EXPECT_NE("", Set("FAULT", "cudaMalloc:0"));
}

TEST_F(SoftwareGpuTest, ALostDeviceStaysLost) {
  ASSERT_EQ("", Set("FAULT", "lost-launch:2"));
  ASSERT_CUDA_OK(cudaMemsetAsync(device_[0], 0, kBytes, a_));
  Add(device_[0], device_[1], kN, 1, a_);
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  Add(device_[0], device_[1], kN, 1, a_);
  EXPECT_CUDA(cudaSuccess, cudaGetLastError());
  bool called = false;
  EXPECT_CUDA(cudaSuccess, cudaLaunchHostFunc(
                               a_, [](void* p) { *static_cast<bool*>(p) = true; }, &called));
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaStreamSynchronize(a_));
  EXPECT_FALSE(called);
  float* p;
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaMalloc(Out(&p), 4));
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaMemsetAsync(device_[0], 0, kBytes, a_));
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaEventRecord(event_, a_));
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaGetLastError());
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaGetLastError());
  // A program cleans up as ever, and nothing is left.
  for (float* d : device_) EXPECT_CUDA(cudaErrorLaunchFailure, cudaFree(d));
  for (float* h : pinned_) EXPECT_CUDA(cudaErrorLaunchFailure, cudaFreeHost(h));
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaEventDestroy(event_));
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaStreamDestroy(a_));
  EXPECT_CUDA(cudaErrorLaunchFailure, cudaStreamDestroy(b_));
  EXPECT_EQ("", Get("leaks"));
  Set("FAULT", "");
  EXPECT_CUDA(cudaSuccess, cudaDeviceReset());
  SetUp();
}

TEST_F(SoftwareGpuTest, LeaksAreTold) {
  float* p;
  cudaStream_t stream;
  ASSERT_CUDA_OK(cudaMalloc(Out(&p), 1234));
  ASSERT_CUDA_OK(cudaStreamCreate(&stream));
  const std::string leaks = Get("leaks");
  EXPECT_THAT(leaks, HasSubstr("1234 bytes on device 0"));
  EXPECT_THAT(leaks, HasSubstr("3 streams"));
  ASSERT_CUDA_OK(cudaFree(p));
  ASSERT_CUDA_OK(cudaStreamDestroy(stream));
}

// Reports.

TEST_F(SoftwareGpuTest, AReportEndsTheProcess) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  EXPECT_EXIT(cudaStreamSynchronize(reinterpret_cast<cudaStream_t>(0x7770)),
              testing::ExitedWithCode(97), "a stream is used that was destroyed");
  EXPECT_EXIT(cudaFree(device_[0] + 64), testing::ExitedWithCode(97), "where no allocation begins");
  Add(device_[0], device_[1], kN, 1, a_);  // Of memory that nobody wrote.
  EXPECT_EXIT(cudaStreamSynchronize(a_), testing::ExitedWithCode(97), "AddKernel");
  ASSERT_EQ("", Set("ON_REPORT", "error"));
  EXPECT_CUDA(cudaErrorIllegalAddress, cudaStreamSynchronize(a_));
  Forget();
}

TEST_F(SoftwareGpuTest, AnOffByOneIsReported) {
  ASSERT_EQ("", Set("ON_REPORT", "error"));
  float* exact;
  ASSERT_CUDA_OK(cudaMalloc(Out(&exact), 256 * sizeof(float)));
  ASSERT_CUDA_OK(cudaMemsetAsync(exact, 0, 256 * sizeof(float), a_));
  AddBeyond(exact, exact, 256, 1, a_);
  EXPECT_CUDA(cudaErrorIllegalAddress, cudaStreamSynchronize(a_));
  EXPECT_THAT(Get("reports"), HasSubstr("AddBeyondKernel(float const*, float*, int, float), line"));
  EXPECT_CUDA(cudaErrorIllegalAddress, cudaStreamSynchronize(b_));
  Forget();
}

TEST_F(SoftwareGpuTest, UseAfterFreeOfAQueuedCopyIsReported) {
  ASSERT_EQ("", Set("ON_REPORT", "error"));
  float* p;
  ASSERT_CUDA_OK(cudaMalloc(Out(&p), kBytes));
  ASSERT_CUDA_OK(cudaFree(p));
  EXPECT_CUDA(cudaSuccess, cudaMemcpyAsync(p, pinned_[0], kBytes, cudaMemcpyHostToDevice, a_));
  EXPECT_CUDA(cudaErrorIllegalAddress, cudaStreamSynchronize(a_));
  EXPECT_THAT(Get("reports"), HasSubstr("freed"));
  Forget();
}

TEST_F(SoftwareGpuTest, AProgramsAllocatorTellsWhatItHandsOut) {
  ASSERT_EQ("", Set("ON_REPORT", "error"));
  float* const block = device_[0];
  EXPECT_FALSE(softgpu::Narrow(block + 64, 4, a_));
  EXPECT_FALSE(softgpu::Narrow(block, kBytes + 1, a_));
  // In the order of the stream: work before it still has the whole block.
  ASSERT_CUDA_OK(cudaMemsetAsync(block, 0, kBytes, a_));
  Add(block, device_[1], kN, 1, a_);
  ASSERT_TRUE(softgpu::Narrow(block, 100 * sizeof(float), a_));
  ASSERT_CUDA_OK(cudaMemsetAsync(block, 0, 100 * sizeof(float), a_));
  Add(block, device_[1], 100, 1, a_);
  EXPECT_CUDA(cudaSuccess, cudaStreamSynchronize(a_));
  AddBeyond(block, device_[1], 100, 1, a_);
  EXPECT_CUDA(cudaErrorIllegalAddress, cudaStreamSynchronize(a_));
  EXPECT_THAT(Get("reports"), HasSubstr("handed out 400 bytes"));
  Forget();
  ASSERT_EQ("", Set("ON_REPORT", "error"));
  // Handed out anew, the old contents are gone; let go, it can't be used at all.
  ASSERT_CUDA_OK(cudaMemsetAsync(device_[0], 0, kBytes, a_));
  ASSERT_TRUE(softgpu::Narrow(device_[0], kBytes, a_));
  Add(device_[0], device_[1], kN, 1, a_);
  EXPECT_CUDA(cudaErrorIllegalAddress, cudaStreamSynchronize(a_));
  EXPECT_THAT(Get("reports"), HasSubstr("nothing wrote to it"));
  Forget();
  ASSERT_EQ("", Set("ON_REPORT", "error"));
  ASSERT_TRUE(softgpu::Narrow(device_[0], 0, a_));
  ASSERT_CUDA_OK(cudaMemsetAsync(device_[0], 0, kBytes, a_));
  EXPECT_CUDA(cudaErrorIllegalAddress, cudaStreamSynchronize(a_));
  Forget();
}

TEST_F(SoftwareGpuTest, ALaunchThatNeverEndsIsReported) {
  ASSERT_EQ("", Set("ON_REPORT", "error"));
  ASSERT_EQ("", Set("BUDGET", "100000"));
  ASSERT_CUDA_OK(cudaMemsetAsync(device_[0], 0, kBytes, a_));
  Spin(reinterpret_cast<int*>(device_[0]), a_);
  EXPECT_CUDA(cudaErrorLaunchTimeout, cudaStreamSynchronize(a_));
  EXPECT_THAT(Get("reports"), HasSubstr("SpinKernel"));
  ASSERT_EQ("", Set("BUDGET", "1000000000"));
  Forget();
}

TEST_F(SoftwareGpuTest, WhatIsNotKnownIsRefusedByName) {
  ASSERT_EQ("", Set("ON_REPORT", "error"));
  int value;
  EXPECT_CUDA(cudaErrorNotSupported,
              cudaDeviceGetAttribute(&value, cudaDevAttrMaxTexture1DWidth, 0));
  EXPECT_THAT(Get("reports"), HasSubstr("cudaDeviceGetAttribute of number 21"));
  EXPECT_CUDA(cudaErrorNotSupported, cudaEventCreateWithFlags(&event_, cudaEventInterprocess));
  EXPECT_THAT(Get("reports"), HasSubstr("cudaEventCreateWithFlags with flags 4"));
  EXPECT_THAT(Set("CHEKCS", "all"), HasSubstr("there is no setting FERRY_SOFTGPU_CHEKCS"));
  EXPECT_THAT(Set("ORDER", "random"), HasSubstr("can't be \"random\""));
  Set("ON_REPORT", "exit");
  Set("REPORTS", "");
}

// The clock.

// The operations that a run writes.
std::vector<nlohmann::json> ReadTimeline(const std::string& path) {
  Set("TIMELINE", "");
  std::ifstream file(path);
  std::vector<nlohmann::json> spans;
  for (std::string line; std::getline(file, line);) spans.push_back(nlohmann::json::parse(line));
  return spans;
}

TEST_F(SoftwareGpuTest, CopiesBothWaysAndKernelsOverlap) {
  constexpr size_t kLarge = 24000000;  // A millisecond at 24 GB/s.
  float* device[3];
  char* host[2];
  for (float*& p : device) ASSERT_CUDA_OK(cudaMalloc(Out(&p), kLarge));
  for (char*& p : host) ASSERT_CUDA_OK(cudaMallocHost(Out(&p), kLarge));
  cudaEvent_t begin, end;
  ASSERT_CUDA_OK(cudaEventCreate(&begin));
  ASSERT_CUDA_OK(cudaEventCreate(&end));
  ASSERT_CUDA_OK(cudaMemset(device[1], 0, kLarge));
  ASSERT_CUDA_OK(cudaDeviceSynchronize());

  const std::string path = testing::TempDir() + "/timeline.json";
  ASSERT_EQ("", Set("TIMELINE", path));
  ASSERT_CUDA_OK(cudaEventRecord(begin, a_));
  ASSERT_CUDA_OK(cudaMemcpyAsync(device[0], host[0], kLarge, cudaMemcpyHostToDevice, a_));
  ASSERT_CUDA_OK(cudaMemcpyAsync(host[1], device[1], kLarge, cudaMemcpyDeviceToHost, b_));
  ASSERT_CUDA_OK(cudaEventRecord(event_, b_));
  ASSERT_CUDA_OK(cudaStreamWaitEvent(a_, event_, 0));
  ASSERT_CUDA_OK(cudaEventRecord(end, a_));
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  float ms = 0;
  ASSERT_CUDA_OK(cudaEventElapsedTime(&ms, begin, end));
  EXPECT_NEAR(1.0, ms, 0.1);  // Side by side.

  ASSERT_CUDA_OK(cudaEventRecord(begin, a_));
  ASSERT_CUDA_OK(cudaMemcpyAsync(device[0], host[0], kLarge, cudaMemcpyHostToDevice, a_));
  ASSERT_CUDA_OK(cudaMemcpyAsync(device[2], host[0], kLarge, cudaMemcpyHostToDevice, b_));
  ASSERT_CUDA_OK(cudaEventRecord(event_, b_));
  ASSERT_CUDA_OK(cudaStreamWaitEvent(a_, event_, 0));
  ASSERT_CUDA_OK(cudaEventRecord(end, a_));
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  ASSERT_CUDA_OK(cudaEventElapsedTime(&ms, begin, end));
  EXPECT_NEAR(2.0, ms, 0.1);  // One copy engine for each direction.

  const double host_time = std::stod(Get("host_time"));
  softgpu::SpendHostTime("crc", 123, 456);
  EXPECT_NEAR(host_time + 123, std::stod(Get("host_time")), 1);

  const std::vector<nlohmann::json> spans = ReadTimeline(path);
  std::vector<nlohmann::json> copies;
  for (const nlohmann::json& span : spans) {
    if (span["engine"] == "h2d" || span["engine"] == "d2h") copies.push_back(span);
    EXPECT_LE(span["start"], span["end"]);
  }
  ASSERT_EQ(4u, copies.size());
  EXPECT_EQ(kLarge, copies[0]["bytes"]);
  EXPECT_EQ("crc", spans.back()["name"]);
  for (float* p : device) ASSERT_CUDA_OK(cudaFree(p));
  for (char* p : host) ASSERT_CUDA_OK(cudaFreeHost(p));
  ASSERT_CUDA_OK(cudaEventDestroy(begin));
  ASSERT_CUDA_OK(cudaEventDestroy(end));
}

}  // namespace
}  // namespace softgpu_test
