// Kernels for the tests of the software GPU's runtime.
#include "tests/softgpu/runtime_kernels.h"

namespace softgpu_test {
namespace {

constexpr int kThreads = 128;

__constant__ float scale;
__device__ int count = 7;

__global__ void AddKernel(const float* from, float* to, int n, float value) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) to[i] = from[i] + value;
}

__global__ void AddBeyondKernel(const float* from, float* to, int n, float value) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i <= n) to[i] = from[i] + value;
}

__global__ void SpinKernel(volatile int* flag) {
  while (*flag == 0) {
  }
}

__global__ void ScaleKernel(float* to, int n) {
  const int i = blockIdx.x * blockDim.x + threadIdx.x;
  if (i < n) to[i] = scale * i;
  if (i == 0) atomicAdd(&count, 1);
}

__global__ void SumKernel(int* to, int n) {
  extern __shared__ int sums[];
  int sum = 0;
  for (int i = threadIdx.x; i < n; i += blockDim.x) sum += i;
  sums[threadIdx.x] = sum;
  __syncthreads();
  if (threadIdx.x == 0) {
    for (int i = 1; i < blockDim.x; ++i) sum += sums[i];
    *to = sum;
  }
}

int Blocks(int n) { return (n + kThreads - 1) / kThreads; }

}  // namespace

void Add(const float* from, float* to, int n, float value, cudaStream_t stream) {
  AddKernel<<<Blocks(n), kThreads, 0, stream>>>(from, to, n, value);
}

void AddBeyond(const float* from, float* to, int n, float value, cudaStream_t stream) {
  AddBeyondKernel<<<Blocks(n + 1), kThreads, 0, stream>>>(from, to, n, value);
}

void Spin(int* flag, cudaStream_t stream) { SpinKernel<<<1, 1, 0, stream>>>(flag); }

void Scale(float* to, int n, cudaStream_t stream) {
  ScaleKernel<<<Blocks(n), kThreads, 0, stream>>>(to, n);
}

const void* ScaleVariable() { return &scale; }
const void* CountVariable() { return &count; }

void SumInShared(int* to, int n, int threads, cudaStream_t stream) {
  SumKernel<<<1, threads, threads * sizeof(int), stream>>>(to, n);
}

const void* AddFunction() { return reinterpret_cast<const void*>(&AddKernel); }
const void* SumFunction() { return reinterpret_cast<const void*>(&SumKernel); }

}  // namespace softgpu_test
