// MatMul, BatchMatMul and BatchMatMulV2 on a GPU, through cuBLAS. Sums are float for half, bfloat16
// and float elements (TF32 isn't used), double for double.
#include <cublas_v2.h>

#include <algorithm>
#include <limits>
#include <string>

#include "kernels/gpu.cuh"
#include "kernels/gpu_checks.h"

namespace ferry {
namespace gpu {
namespace {

template <typename T>
constexpr cudaDataType kBlasType = std::is_same_v<T, half>       ? CUDA_R_16F
                                   : std::is_same_v<T, bfloat16> ? CUDA_R_16BF
                                   : std::is_same_v<T, float>    ? CUDA_R_32F
                                                                 : CUDA_R_64F;

template <typename T>
class MatMul : public Kernel {
  bool Init(Setup* setup) override {
    batches_ = setup->op() != "MatMul";
    broadcasts_ = setup->op() == "BatchMatMulV2";
    if (!setup->Attr(batches_ ? "adj_x" : "transpose_a", &transpose_a_) ||
        !setup->Attr(batches_ ? "adj_y" : "transpose_b", &transpose_b_)) {
      return setup->Fail(Error::kInvalidArgument, "the attributes for transposition are missing");
    }
    return true;
  }

  bool Run(Call* c) const override {
    ProductSizes s;
    if (batches_ ? !CheckBatchMatMul(c, transpose_a_, transpose_b_, broadcasts_, &s)
                 : !CheckMatMul(c, transpose_a_, transpose_b_, &s)) {
      return false;
    }
    Input a = c->input(0), b = c->input(1);
    T* const out = static_cast<T*>(c->Output(0, s.out));
    if (!out) return false;
    a.rank -= 2;  // From here on the batches' shapes.
    b.rank -= 2;
    Broadcast batches;
    if (!MakeBroadcast(c, {a, b}, &batches)) return false;
    const int64_t elements = batches.elements * s.m * s.n;
    if (elements == 0) return true;
    if (s.k == 0) return c->Fill(out, 0, elements * static_cast<int64_t>(sizeof(T)));
    const int inner = batches.rank - 1;  // The dimension that one call of cuBLAS runs through.
    const int64_t count = inner < 0 ? 1 : batches.dims[inner];
    if (std::max({s.m, s.n, s.k, count}) > std::numeric_limits<int>::max()) {
      return c->Fail(Error::kInvalidArgument,
                     "a product of matrices of " + std::to_string(s.m) + " x " +
                         std::to_string(s.k) + " and " + std::to_string(s.k) + " x " +
                         std::to_string(s.n) + " elements is too large: sizes must be below 2^31");
    }
    const auto handle = static_cast<cublasHandle_t>(c->BlasHandle());
    if (!handle) return false;
    for (int64_t i = 0; i < batches.elements / count; ++i) {
      // Where the factors of this call begin, in matrices.
      int64_t at[2] = {0, 0};
      int64_t rest = i;
      for (int d = inner - 1; d >= 0; --d) {
        for (int k = 0; k < 2; ++k) at[k] += rest % batches.dims[d] * batches.strides[k][d];
        rest /= batches.dims[d];
      }
      if (!Multiply(c, handle, s, a.as<T>() + at[0] * s.m * s.k, b.as<T>() + at[1] * s.k * s.n,
                    out + i * count * s.m * s.n, static_cast<int>(count),
                    inner < 0 ? 0 : batches.strides[0][inner] * s.m * s.k,
                    inner < 0 ? 0 : batches.strides[1][inner] * s.k * s.n)) {
        return false;
      }
    }
    return true;
  }

  // cuBLAS stores matrices by columns: what lies by rows is to it the transposed matrix, and the
  // transposed product is that of the transposed factors in the other order.
  bool Multiply(Call* c, cublasHandle_t handle, const ProductSizes& s, const T* a, const T* b,
                T* out, int count, int64_t stride_a, int64_t stride_b) const {
    using Scale = std::conditional_t<std::is_same_v<T, double>, double, float>;
    constexpr cudaDataType kType = kBlasType<T>;
    constexpr cublasComputeType_t kCompute =
        std::is_same_v<T, double> ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
    const Scale one = 1, zero = 0;
    const cublasOperation_t op_a = transpose_a_ ? CUBLAS_OP_T : CUBLAS_OP_N;
    const cublasOperation_t op_b = transpose_b_ ? CUBLAS_OP_T : CUBLAS_OP_N;
    const int m = static_cast<int>(s.m), n = static_cast<int>(s.n), k = static_cast<int>(s.k);
    const int row_a = transpose_a_ ? m : k, row_b = transpose_b_ ? k : n;
    if (count == 1) {
      return c->Blas(cublasGemmEx(handle, op_b, op_a, n, m, k, &one, b, kType, row_b, a, kType,
                                  row_a, &zero, out, kType, n, kCompute, CUBLAS_GEMM_DEFAULT),
                     "cublasGemmEx");
    }
    return c->Blas(
        cublasGemmStridedBatchedEx(handle, op_b, op_a, n, m, k, &one, b, kType, row_b, stride_b, a,
                                   kType, row_a, stride_a, &zero, out, kType, n, s.m * s.n, count,
                                   kCompute, CUBLAS_GEMM_DEFAULT),
        "cublasGemmStridedBatchedEx");
  }

  bool batches_ = false, broadcasts_ = false, transpose_a_ = false, transpose_b_ = false;
};

[[maybe_unused]] const bool registered = Register<MatMul, FERRY_GPU_FLOATS>("MatMul", "T") &&
                                         Register<MatMul, FERRY_GPU_FLOATS>("BatchMatMul", "T") &&
                                         Register<MatMul, FERRY_GPU_FLOATS>("BatchMatMulV2", "T");

}  // namespace
}  // namespace gpu
}  // namespace ferry
