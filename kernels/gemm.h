// Products of matrices, for the kernels that need them. Row-major throughout.
#ifndef FERRY_KERNELS_GEMM_H_
#define FERRY_KERNELS_GEMM_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/types.h"
#include "runtime/op/kernel.h"

namespace ferry {

// Products of an m x k matrix with a k x n matrix. A transposed factor lies in memory as k x m, or
// n x k.
struct GemmShape {
  bool transpose_a = false, transpose_b = false;
  int64_t m = 0, n = 0, k = 0;
};

// Computes `batch` products one after the other in `out`, each m x n and dense; product i takes
// factors number a_index[i] of `a` and b_index[i] of `b` (null: number i). `out` overlaps neither.
// An empty sum (k = 0) is zero.
//
// float uses oneDNN (OpenBLAS for very small products and other processors than x86-64), double
// OpenBLAS; half and bfloat16 multiply as float and round once at the end, integers wrap around.
// Large products are split over the pool's threads, by shapes and the number of threads alone.
//
// Uses the context's scratch memory. InvalidArgument when a size is beyond BLAS's (2^31 - 1).
template <typename T>
absl::Status BatchGemm(KernelContext* c, const GemmShape& s, int64_t batch, const int64_t* a_index,
                       const int64_t* b_index, const T* a, const T* b, T* out);

template <typename T>
absl::Status Gemm(KernelContext* c, const GemmShape& s, const T* a, const T* b, T* out) {
  return BatchGemm<T>(c, s, 1, nullptr, nullptr, a, b, out);
}

}  // namespace ferry

#endif  // FERRY_KERNELS_GEMM_H_
