// Kernels for the tests of the software GPU's runtime, behind functions that launch them.
#ifndef FERRY_TESTS_SOFTGPU_RUNTIME_KERNELS_H_
#define FERRY_TESTS_SOFTGPU_RUNTIME_KERNELS_H_

#include <cuda_runtime_api.h>

namespace softgpu_test {

// to[i] = from[i] + value, i < n. n > 0.
void Add(const float* from, float* to, int n, float value, cudaStream_t stream);
// The same, but for one element too many.
void AddBeyond(const float* from, float* to, int n, float value, cudaStream_t stream);
// Never ends.
void Spin(int* flag, cudaStream_t stream);
// to[i] = scale, which is a __constant__ variable, times i; counts the calls in a __device__ one.
void Scale(float* to, int n, cudaStream_t stream);
const void* ScaleVariable();
const void* CountVariable();
// The sum of i < n, by `threads` threads that share dynamic memory, to *to.
void SumInShared(int* to, int n, int threads, cudaStream_t stream);
// The stand-ins that the calls for functions take.
const void* AddFunction();
const void* SumFunction();

}  // namespace softgpu_test

#endif  // FERRY_TESTS_SOFTGPU_RUNTIME_KERNELS_H_
