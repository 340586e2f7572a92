// Tests of the race checks: work of two streams, or of a stream and the host's pinned memory, that
// nothing orders. Run with CHECKS=all.
#include <cuda_runtime_api.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <string>

#include "tests/softgpu/control.h"
#include "tests/softgpu/runtime_kernels.h"

namespace softgpu_test {
namespace {

using softgpu::Get;
using softgpu::Set;
using testing::HasSubstr;

constexpr int kN = 300;
constexpr size_t kBytes = kN * sizeof(float);

#define ASSERT_CUDA_OK(call) ASSERT_EQ(cudaSuccess, (call)) << #call

class RaceTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!softgpu::Present()) GTEST_SKIP() << "this is a real GPU";
    Set("ON_REPORT", "error");
    for (cudaStream_t* s : {&a_, &b_, &c_}) {
      ASSERT_CUDA_OK(cudaStreamCreateWithFlags(s, cudaStreamNonBlocking));
    }
    ASSERT_CUDA_OK(cudaEventCreateWithFlags(&event_, cudaEventDisableTiming));
    for (float*& p : device_) {
      ASSERT_CUDA_OK(cudaMalloc(reinterpret_cast<void**>(&p), kBytes));
      ASSERT_CUDA_OK(cudaMemset(p, 0, kBytes));
    }
    ASSERT_CUDA_OK(cudaMallocHost(reinterpret_cast<void**>(&pinned_), kBytes));
    ASSERT_CUDA_OK(cudaDeviceSynchronize());
  }

  void TearDown() override {
    Set("REPORTS", "");
    if (pinned_ == nullptr) return;
    cudaFreeHost(pinned_);
    ASSERT_CUDA_OK(cudaDeviceReset());
    cudaGetLastError();
    EXPECT_EQ("", Get("leaks"));
  }

  void ExpectRace(const std::string& first, const std::string& second) {
    EXPECT_EQ(cudaErrorIllegalAddress, cudaDeviceSynchronize());
    EXPECT_THAT(Get("reports"), HasSubstr(first));
    EXPECT_THAT(Get("reports"), HasSubstr(second));
  }
  void ExpectNone() {
    EXPECT_EQ(cudaSuccess, cudaDeviceSynchronize());
    EXPECT_EQ("", Get("reports"));
  }

  cudaStream_t a_, b_, c_;
  cudaEvent_t event_;
  float* device_[3];
  float* pinned_ = nullptr;
};

// In each order, whichever side runs first.
class RaceInOrderTest : public RaceTest, public testing::WithParamInterface<const char*> {
 protected:
  void SetUp() override {
    RaceTest::SetUp();
    Set("ORDER", GetParam());
  }
};
INSTANTIATE_TEST_SUITE_P(Orders, RaceInOrderTest,
                         testing::Values("lazy", "eager", "shuffle:1", "shuffle:2"));

TEST_P(RaceInOrderTest, AReadThatDoesNotWaitForTheWrite) {
  Add(device_[0], device_[1], kN, 1, a_);
  Add(device_[1], device_[2], kN, 1, b_);
  ExpectRace("stream", "AddKernel");
}

TEST_P(RaceInOrderTest, AWriteThatDoesNotWaitForTheRead) {
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_, device_[0], kBytes, cudaMemcpyDeviceToHost, a_));
  ASSERT_CUDA_OK(cudaMemsetAsync(device_[0], 0, kBytes, b_));
  ExpectRace("cudaMemcpyAsync", "cudaMemsetAsync");
}

TEST_P(RaceInOrderTest, TwoCopiesIntoOnePinnedSlot) {
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_, device_[0], kBytes, cudaMemcpyDeviceToHost, a_));
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_, device_[1], kBytes, cudaMemcpyDeviceToHost, b_));
  ExpectRace("cudaMemcpyAsync", "stream");
}

TEST_P(RaceInOrderTest, ReadsSideBySideAreFine) {
  Add(device_[0], device_[1], kN, 1, a_);
  Add(device_[0], device_[2], kN, 1, b_);
  ExpectNone();
}

TEST_P(RaceInOrderTest, AnEventOrdersThem) {
  Add(device_[0], device_[1], kN, 1, a_);
  ASSERT_CUDA_OK(cudaEventRecord(event_, a_));
  ASSERT_CUDA_OK(cudaStreamWaitEvent(b_, event_, 0));
  Add(device_[1], device_[2], kN, 1, b_);
  // And by way of a third.
  ASSERT_CUDA_OK(cudaEventRecord(event_, b_));
  ASSERT_CUDA_OK(cudaStreamWaitEvent(c_, event_, 0));
  Add(device_[2], device_[1], kN, 1, c_);
  ExpectNone();
}

TEST_P(RaceInOrderTest, TheHostsWaitOrdersThem) {
  Add(device_[0], device_[1], kN, 1, a_);
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  Add(device_[1], device_[2], kN, 1, b_);
  ASSERT_CUDA_OK(cudaEventRecord(event_, b_));
  ASSERT_CUDA_OK(cudaEventSynchronize(event_));
  ASSERT_CUDA_OK(cudaMemcpyAsync(pinned_, device_[2], kBytes, cudaMemcpyDeviceToHost, c_));
  ExpectNone();
}

TEST_P(RaceInOrderTest, AnEventThatWasRecordedTooEarlyDoesNot) {
  ASSERT_CUDA_OK(cudaEventRecord(event_, a_));
  Add(device_[0], device_[1], kN, 1, a_);
  ASSERT_CUDA_OK(cudaStreamWaitEvent(b_, event_, 0));
  Add(device_[1], device_[2], kN, 1, b_);
  ExpectRace("stream", "AddKernel");
}

TEST_P(RaceInOrderTest, AHostFunctionTellsTheHost) {
  Add(device_[0], device_[1], kN, 1, a_);
  volatile bool called = false;
  ASSERT_CUDA_OK(cudaLaunchHostFunc(
      a_, [](void* p) { *static_cast<volatile bool*>(p) = true; }, const_cast<bool*>(&called)));
  ASSERT_CUDA_OK(cudaStreamSynchronize(a_));
  EXPECT_TRUE(called);
  Add(device_[1], device_[2], kN, 1, b_);
  ExpectNone();
}

// Captures a fork into two branches, joined again.
TEST_P(RaceInOrderTest, BranchesOfAGraphRaceUnlessTheyWait) {
  for (const bool waits : {true, false}) {
    cudaEvent_t joined;
    ASSERT_CUDA_OK(cudaEventCreateWithFlags(&joined, cudaEventDisableTiming));
    ASSERT_CUDA_OK(cudaStreamBeginCapture(a_, cudaStreamCaptureModeThreadLocal));
    ASSERT_CUDA_OK(cudaEventRecord(event_, a_));
    Add(device_[0], device_[1], kN, 1, a_);
    ASSERT_CUDA_OK(cudaEventRecord(waits ? event_ : joined, a_));
    ASSERT_CUDA_OK(cudaStreamWaitEvent(b_, event_, 0));
    Add(device_[1], device_[2], kN, 1, b_);
    ASSERT_CUDA_OK(cudaEventRecord(joined, b_));
    ASSERT_CUDA_OK(cudaStreamWaitEvent(a_, joined, 0));
    cudaGraph_t graph;
    cudaGraphExec_t exec;
    ASSERT_CUDA_OK(cudaStreamEndCapture(a_, &graph));
    ASSERT_CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
    ASSERT_CUDA_OK(cudaGraphLaunch(exec, c_));
    if (waits) {
      ASSERT_CUDA_OK(cudaGraphLaunch(exec, c_));
      ExpectNone();
    } else {
      ExpectRace("branch", "AddKernel");
    }
    cudaGraphExecDestroy(exec);
    cudaGraphDestroy(graph);
    cudaEventDestroy(joined);
  }
}

TEST_F(RaceTest, StreamsThatComeAndGoAreNotTakenForOneAnother) {
  for (int i = 0; i < 600; ++i) {
    cudaStream_t stream;
    ASSERT_CUDA_OK(cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking));
    Add(device_[0], device_[1], kN, 1, stream);
    ASSERT_CUDA_OK(cudaStreamSynchronize(stream));
    ASSERT_CUDA_OK(cudaStreamDestroy(stream));
  }
  ExpectNone();
  Add(device_[0], device_[1], kN, 1, a_);
  Add(device_[1], device_[2], kN, 1, b_);
  ExpectRace("stream", "AddKernel");
}

}  // namespace
}  // namespace softgpu_test
