// Cumsum on a GPU.
#include "kernels/gpu.cuh"
#include "kernels/gpu_array.h"

namespace ferry {
namespace gpu {
namespace {

constexpr int64_t kShort = 64;

// x and y are [outer, n, inner], summed along the middle.
struct Lines {
  int64_t outer, n, inner;
  bool exclusive, reverse;

  // Of element i in the order of summation.
  __device__ int64_t At(int64_t line, int64_t i) const {
    const int64_t block = line / inner;
    return (block * n + (reverse ? n - 1 - i : i)) * inner + (line - block * inner);
  }
};

// A thread a line, whose sums are rounded to T one by one.
template <typename T>
__global__ void __launch_bounds__(kThreads) LineSumsKernel(const T* x, T* y, const Lines s) {
  for (int64_t line = First(); line < s.outer * s.inner; line += Step()) {
    T sum = Narrow<T>(0);
    for (int64_t i = 0; i < s.n; ++i) {
      const int64_t at = s.At(line, i);
      const T next = Narrow<T>(static_cast<Wide<T>>(Widen(sum) + Widen(x[at])));
      y[at] = s.exclusive ? sum : next;
      sum = next;
    }
  }
}

// A block a line: kThreads elements at a time, each thread's sum being those of the threads before.
template <typename T>
__global__ void __launch_bounds__(kThreads) BlockSumsKernel(const T* x, T* y, const Lines s) {
  __shared__ Wide<T> sums[kThreads];
  const int t = static_cast<int>(threadIdx.x);
  for (int64_t line = blockIdx.x; line < s.outer * s.inner; line += gridDim.x) {
    Wide<T> before = 0;
    for (int64_t base = 0; base < s.n; base += kThreads) {
      const int64_t i = base + t;
      const Wide<T> own = i < s.n ? Widen(x[s.At(line, i)]) : Wide<T>(0);
      sums[t] = own;
      __syncthreads();
      for (int step = 1; step < kThreads; step *= 2) {
        const Wide<T> left = t >= step ? sums[t - step] : Wide<T>(0);
        __syncthreads();
        sums[t] = static_cast<Wide<T>>(sums[t] + left);
        __syncthreads();
      }
      if (i < s.n) {
        const Wide<T> sum = s.exclusive ? (t == 0 ? Wide<T>(0) : sums[t - 1]) : sums[t];
        y[s.At(line, i)] = Narrow<T>(static_cast<Wide<T>>(before + sum));
      }
      before = static_cast<Wide<T>>(before + sums[kThreads - 1]);
      __syncthreads();
    }
  }
}

template <typename T>
bool Launch(Call* c, const void* x, void* y, const Lines& s) {
  const T* const from = static_cast<const T*>(x);
  T* const to = static_cast<T*>(y);
  const int64_t lines = s.outer * s.inner;
  // Many neighbouring lines are read together; few long ones are better read by a block each.
  if (s.n <= kShort || (s.inner >= 32 && lines >= 8192)) {
    LineSumsKernel<T><<<Blocks(c, lines), kThreads, 0, Stream(c)>>>(from, to, s);
    return c->Launched("LineSumsKernel");
  }
  BlockSumsKernel<T><<<Blocks(c, lines * kThreads), kThreads, 0, Stream(c)>>>(from, to, s);
  return c->Launched("BlockSumsKernel");
}

bool RunningSums(Call* c, DType dtype, const void* x, int64_t outer, int64_t n, int64_t inner,
                 bool exclusive, bool reverse, void* y) {
  const Lines s = {outer, n, inner, exclusive, reverse};
  switch (dtype) {
    case DType::kHalf:
      return Launch<half>(c, x, y, s);
    case DType::kBfloat16:
      return Launch<bfloat16>(c, x, y, s);
    case DType::kFloat:
      return Launch<float>(c, x, y, s);
    case DType::kDouble:
      return Launch<double>(c, x, y, s);
    case DType::kInt8:
    case DType::kUint8:
      return Launch<uint8_t>(c, x, y, s);
    case DType::kInt16:
    case DType::kUint16:
      return Launch<uint16_t>(c, x, y, s);
    case DType::kInt32:
    case DType::kUint32:
      return Launch<uint32_t>(c, x, y, s);
    case DType::kInt64:
    case DType::kUint64:
      return Launch<uint64_t>(c, x, y, s);
    default:
      return c->Fail(Error::kUnimplemented, "running sums of this type, on a GPU");
  }
}

[[maybe_unused]] const bool registered = [] {
  Array().running_sums = &RunningSums;
  return true;
}();

}  // namespace
}  // namespace gpu
}  // namespace ferry
