// Tests that kernels run whichever way nvcc stored their PTX.
#include <cuda_runtime_api.h>
#include <gtest/gtest.h>

void LaunchPlain(int* to, int value);
void LaunchForSize(int* to, int value);
void LaunchForSpeed(int* to, int value);
void LaunchBalanced(int* to, int value);

namespace {

TEST(FatbinTest, EveryCompression) {
  void* memory;
  ASSERT_EQ(cudaSuccess, cudaMalloc(&memory, sizeof(int)));
  int* const device = static_cast<int*>(memory);
  int value = 1;
  for (auto* launch : {LaunchPlain, LaunchForSize, LaunchForSpeed, LaunchBalanced}) {
    launch(device, ++value);
    ASSERT_EQ(cudaSuccess, cudaGetLastError()) << value;
    int host = 0;
    ASSERT_EQ(cudaSuccess, cudaMemcpy(&host, device, sizeof(int), cudaMemcpyDeviceToHost));
    EXPECT_EQ(value, host);
  }
  EXPECT_EQ(cudaSuccess, cudaFree(memory));
}

}  // namespace
