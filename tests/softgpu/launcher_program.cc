// What launcher_test runs: does what its argument says.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>

int main(int argc, char** argv) {
  void* memory = nullptr;
  if (argc != 2 || cudaMalloc(&memory, 100) != cudaSuccess) return 1;
  if (std::strcmp(argv[1], "touch") == 0) std::memset(memory, 0, 100);
  if (std::strcmp(argv[1], "leak") == 0) return 0;
  if (std::strcmp(argv[1], "devices") == 0) {
    int count = 0;
    cudaGetDeviceCount(&count);
    std::printf("%d devices\n", count);
  }
  if (std::strcmp(argv[1], "work") == 0) cudaMemset(memory, 0, 100);
  if (cudaDeviceSynchronize() != cudaSuccess) return 2;
  return cudaFree(memory) == cudaSuccess ? 0 : 3;
}
