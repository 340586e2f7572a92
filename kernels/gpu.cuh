// What .cu files share: CUDA's 16-bit floats as element types, launch sizes, vectors of elements,
// and reading operands that are broadcast.
#ifndef FERRY_KERNELS_GPU_CUH_
#define FERRY_KERNELS_GPU_CUH_

#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <cuda_runtime.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <type_traits>

#include "kernels/gpu.h"

namespace ferry {
namespace gpu {

using half = __half;
using bfloat16 = __nv_bfloat16;
FERRY_TYPE_NUMBER(half, kHalf);
FERRY_TYPE_NUMBER(bfloat16, kBfloat16);

// Lists of element types for registration.
#define FERRY_GPU_FLOATS half, bfloat16, float, double
#define FERRY_GPU_SIGNED int8_t, int16_t, int32_t, int64_t
#define FERRY_GPU_INTEGERS FERRY_GPU_SIGNED, uint8_t, uint16_t, uint32_t, uint64_t
#define FERRY_GPU_NUMBERS FERRY_GPU_FLOATS, FERRY_GPU_INTEGERS

inline cudaStream_t Stream(const Call* c) { return static_cast<cudaStream_t>(c->stream()); }

// ---- Grid-stride loops ----

inline constexpr int kThreads = 256;

// Blocks for a loop over n items, n > 0: enough to fill the device a few times over.
inline unsigned Blocks(const Call* c, int64_t n, int threads = kThreads) {
  const int64_t most = int64_t{c->multiprocessors()} * 2048 / threads * 4;
  return static_cast<unsigned>(
      std::max<int64_t>(1, std::min<int64_t>((n + threads - 1) / threads, most)));
}
// The thread's first item, and the way to its next.
__device__ inline int64_t First() {
  return static_cast<int64_t>(blockIdx.x) * blockDim.x + threadIdx.x;
}
__device__ inline int64_t Step() { return static_cast<int64_t>(gridDim.x) * blockDim.x; }

// ---- Arithmetic ----

// What arithmetic on T is done in: 16-bit floats in float.
template <typename T>
struct WideType {
  using type = T;
};
template <>
struct WideType<half> {
  using type = float;
};
template <>
struct WideType<bfloat16> {
  using type = float;
};
template <typename T>
using Wide = typename WideType<T>::type;

// What holds the bits of any element of `kBytes` bytes, for kernels that only move them.
template <int kBytes>
struct StorageType;
template <>
struct StorageType<1> {
  using type = uint8_t;
};
template <>
struct StorageType<2> {
  using type = uint16_t;
};
template <>
struct StorageType<4> {
  using type = uint32_t;
};
template <>
struct StorageType<8> {
  using type = uint64_t;
};
// The unsigned integer of T's size.
template <typename T>
using Unsigned = typename StorageType<sizeof(T)>::type;

template <typename T>
struct Same {
  using type = T;
};
// Integers should wrap around, which is undefined of signed ones: T, or for those the unsigned one.
template <typename T>
using Wrapping =
    typename std::conditional_t<std::is_integral_v<T>, StorageType<sizeof(T)>, Same<T>>::type;
// What sums and products of such a type are computed in. Small integers would be promoted to int.
template <typename T>
using Sum = std::conditional_t<std::is_integral_v<T> && sizeof(T) < 4, uint32_t, Wide<T>>;

template <typename T>
__host__ __device__ inline Wide<T> Widen(T x) {
  return x;
}
template <>
__host__ __device__ inline float Widen<half>(half x) {
  return __half2float(x);
}
template <>
__host__ __device__ inline float Widen<bfloat16>(bfloat16 x) {
  return __bfloat162float(x);
}
// Rounds to the nearest, ties to even.
template <typename T>
__host__ __device__ inline T Narrow(Wide<T> x) {
  return x;
}
template <>
__host__ __device__ inline half Narrow<half>(float x) {
  return __float2half_rn(x);
}
template <>
__host__ __device__ inline bfloat16 Narrow<bfloat16>(float x) {
  return __float2bfloat16_rn(x);
}

// ---- Vectors: kVector elements of T in 16 bytes ----

template <typename T>
inline constexpr int kVector = 16 / static_cast<int>(sizeof(T));

// As many elements as make 16 bytes of the larger one of two types.
template <typename A, typename B>
inline constexpr int kVectorOfBoth =
    16 / static_cast<int>(sizeof(A) > sizeof(B) ? sizeof(A) : sizeof(B));

template <typename T, int kN>
struct alignas(sizeof(T) * kN) Elements {
  T v[kN];
};
template <typename T>
using Vector = Elements<T, kVector<T>>;

// Whether all these may be read and written as vectors.
inline bool Aligned(const void* a, const void* b = nullptr, const void* c = nullptr) {
  return ((reinterpret_cast<uintptr_t>(a) | reinterpret_cast<uintptr_t>(b) |
           reinterpret_cast<uintptr_t>(c)) &
          15) == 0;
}

// ---- Broadcast operands ----

// As Broadcast, as a kernel's parameter.
struct BroadcastView {
  int rank;
  int64_t dims[kMaxDims];
  int64_t strides[3][kMaxDims];
};
inline BroadcastView View(const Broadcast& b) {
  BroadcastView v;
  v.rank = b.rank;
  for (int i = 0; i < b.rank; ++i) {
    v.dims[i] = b.dims[i];
    for (int k = 0; k < 3; ++k) v.strides[k][i] = b.strides[k][i];
  }
  return v;
}
// Where each of K operands' element for output element `i` lies. Index: int32_t where the output
// has fewer than 2^31 elements, else int64_t.
template <int K, typename Index>
__device__ inline void Locate(const BroadcastView& b, Index i, Index* at) {
#pragma unroll
  for (int k = 0; k < K; ++k) at[k] = 0;
  for (int d = b.rank - 1; d > 0; --d) {
    const Index size = static_cast<Index>(b.dims[d]);
    const Index q = i / size;
    const Index r = i - q * size;
#pragma unroll
    for (int k = 0; k < K; ++k) at[k] += r * static_cast<Index>(b.strides[k][d]);
    i = q;
  }
  if (b.rank > 0) {
#pragma unroll
    for (int k = 0; k < K; ++k) at[k] += i * static_cast<Index>(b.strides[k][0]);
  }
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_CUH_
