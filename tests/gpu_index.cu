// Runs Locate on a list of elements; see the header.
#include "kernels/gpu.cuh"
#include "tests/gpu_index.h"

namespace ferry::testing {
namespace {

template <typename Index>
__global__ void LocateEach(const gpu::BroadcastView b, const int64_t* elements, int64_t* at,
                           int n) {
  for (int i = static_cast<int>(gpu::First()); i < n; i += static_cast<int>(gpu::Step())) {
    Index found[2];
    gpu::Locate<2, Index>(b, static_cast<Index>(elements[i]), found);
    at[2 * i] = found[0];
    at[2 * i + 1] = found[1];
  }
}

}  // namespace

std::string LocateOnGpu(const std::vector<int64_t>& dims, const std::vector<int64_t>& x_strides,
                        const std::vector<int64_t>& y_strides, bool wide,
                        const std::vector<int64_t>& elements, std::vector<int64_t>* at) {
  gpu::BroadcastView b = {};
  b.rank = static_cast<int>(dims.size());
  for (size_t d = 0; d < dims.size(); ++d) {
    b.dims[d] = dims[d];
    b.strides[0][d] = x_strides[d];
    b.strides[1][d] = y_strides[d];
  }
  const size_t bytes = elements.size() * sizeof(int64_t);
  at->resize(2 * elements.size());
  int64_t* in = nullptr;
  int64_t* out = nullptr;
  cudaError_t error = cudaMalloc(&in, bytes);
  if (error == cudaSuccess) error = cudaMalloc(&out, 2 * bytes);
  if (error == cudaSuccess) error = cudaMemcpy(in, elements.data(), bytes, cudaMemcpyHostToDevice);
  if (error == cudaSuccess) {
    const int n = static_cast<int>(elements.size());
    if (wide) {
      LocateEach<int64_t><<<1, 32>>>(b, in, out, n);
    } else {
      LocateEach<int32_t><<<1, 32>>>(b, in, out, n);
    }
    error = cudaGetLastError();
  }
  if (error == cudaSuccess) error = cudaMemcpy(at->data(), out, 2 * bytes, cudaMemcpyDeviceToHost);
  cudaFree(in);
  cudaFree(out);
  return error == cudaSuccess ? "" : cudaGetErrorString(error);
}

}  // namespace ferry::testing
