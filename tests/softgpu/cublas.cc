// The stand-in for libcublas: the calls for matrix products that this project uses.
//
// They queue their work like kernels. Products of float, half and bfloat16 elements are summed in
// float, those of double in double, in the order of the inner dimension; where TF32 is allowed, the
// float factors are rounded to it. What isn't read (C where beta is 0, A and B where alpha is 0)
// may be uninitialised.
#include <cublas_v2.h>

#include <algorithm>
#include <cstring>
#include <mutex>
#include <set>
#include <string>
#include <utility>
#include <vector>

#include "tests/softgpu/blas_hook.h"
#include "tests/softgpu/small_floats.h"

struct cublasContext {
  cudaStream_t stream = nullptr;
  cublasMath_t math = CUBLAS_DEFAULT_MATH;
};

namespace softgpu {
namespace {

std::mutex mu;
// Handles that live; never destroyed, as programs use them in their own destructors.
std::set<cublasHandle_t>& Contexts() {
  static auto* const contexts = new std::set<cublasHandle_t>;
  return *contexts;
}

// What every call does first.
cublasStatus_t Enter(const char* function, cublasHandle_t handle) {
  {
    std::lock_guard<std::mutex> lock(mu);
    if (Contexts().count(handle) == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  return __cudaSoftgpuBlasCall(function) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                        : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t Refuse(const std::string& what) {
  __cudaSoftgpuRefuse(what.c_str());
  return CUBLAS_STATUS_NOT_SUPPORTED;
}

size_t SizeOf(cudaDataType type) {
  switch (type) {
    case CUDA_R_64F:
      return 8;
    case CUDA_R_32F:
      return 4;
    case CUDA_R_16F:
    case CUDA_R_16BF:
      return 2;
    default:
      return 0;
  }
}

// C[m,n] = alpha op(A)[m,k] op(B)[k,n] + beta C, `batch` times; matrices are stored by columns,
// `ld` elements from one to the next.
struct Product {
  bool transpose_a, transpose_b;
  int64_t m, n, k;
  double alpha, beta;
  const void* a;
  const void* b;
  void* c;
  cudaDataType ab_type, c_type;
  int64_t lda, ldb, ldc;
  int64_t stride_a = 0, stride_b = 0, stride_c = 0;  // In elements.
  int64_t batch = 1;
  bool pointers = false;  // a, b, c are arrays of pointers, on the device.
  bool tf32 = false;
};

float RoundToTf32(float x) {
  const uint32_t bits = BitCast<uint32_t>(x);
  if ((bits & 0x7f800000) == 0x7f800000) return x;
  // The nearest with ten bits of fraction; ties away from zero.
  return BitCast<float>((bits + 0x1000) & 0xffffe000);
}
double RoundToTf32(double x) { return x; }

// op(A) as rows x columns by columns without gaps.
template <typename T, typename Sum>
std::vector<Sum> Pack(const T* from, bool transpose, int64_t rows, int64_t columns, int64_t ld,
                      bool tf32) {
  std::vector<Sum> packed(rows * columns);
  for (int64_t j = 0; j < columns; ++j) {
    for (int64_t i = 0; i < rows; ++i) {
      const Sum value = ToFloat(transpose ? from[j + i * ld] : from[i + j * ld]);
      packed[i + j * rows] = tf32 ? RoundToTf32(value) : value;
    }
  }
  return packed;
}

template <typename To, typename Sum>
To Round(Sum value) {
  if constexpr (sizeof(Sum) == 8) {
    return FromDouble<To>(value);
  } else {
    return FromFloat<To>(value);
  }
}

// One product; null factors count as zero.
template <typename T, typename C, typename Sum>
void Multiply(const Product& p, const T* a, const T* b, C* c) {
  std::vector<Sum> packed_a;
  std::vector<Sum> packed_b;
  if (a != nullptr) {
    packed_a = Pack<T, Sum>(a, p.transpose_a, p.m, p.k, p.lda, p.tf32);
    packed_b = Pack<T, Sum>(b, p.transpose_b, p.k, p.n, p.ldb, p.tf32);
  }
  constexpr int64_t kColumns = 4;  // That are summed at a time.
  std::vector<Sum> sums(kColumns * p.m);
  for (int64_t j0 = 0; j0 < p.n; j0 += kColumns) {
    const int64_t columns = std::min(kColumns, p.n - j0);
    std::fill(sums.begin(), sums.end(), Sum(0));
    for (int64_t l = 0; a != nullptr && l < p.k; ++l) {
      const Sum* const column = &packed_a[l * p.m];
      for (int64_t j = 0; j < columns; ++j) {
        const Sum factor = packed_b[l + (j0 + j) * p.k];
        Sum* const sum = &sums[j * p.m];
        for (int64_t i = 0; i < p.m; ++i) sum[i] += column[i] * factor;
      }
    }
    for (int64_t j = 0; j < columns; ++j) {
      for (int64_t i = 0; i < p.m; ++i) {
        C& out = c[i + (j0 + j) * p.ldc];
        Sum value = static_cast<Sum>(p.alpha) * sums[j * p.m + i];
        if (p.beta != 0) value += static_cast<Sum>(p.beta) * static_cast<Sum>(ToFloat(out));
        out = Round<C, Sum>(value);
      }
    }
  }
}

void RunOne(const Product& p, DeviceAccess* access, const void* a, const void* b, void* c) {
  const size_t size = SizeOf(p.ab_type);
  const size_t c_size = SizeOf(p.c_type);
  const void* host_a = nullptr;
  const void* host_b = nullptr;
  if (p.alpha != 0 && p.k != 0) {
    const int64_t rows_a = p.transpose_a ? p.k : p.m;
    const int64_t rows_b = p.transpose_b ? p.n : p.k;
    host_a = access->Read(a, rows_a * size, p.transpose_a ? p.m : p.k, p.lda * size);
    if (host_a == nullptr) return;
    host_b = access->Read(b, rows_b * size, p.transpose_b ? p.k : p.n, p.ldb * size);
    if (host_b == nullptr) return;
  }
  void* const host_c = access->Write(c, p.m * c_size, p.n, p.ldc * c_size, p.beta != 0);
  if (host_c == nullptr) return;
  const auto multiply = [&](auto ab, auto out, auto sum) {
    using T = decltype(ab);
    using C = decltype(out);
    Multiply<T, C, decltype(sum)>(p, static_cast<const T*>(host_a), static_cast<const T*>(host_b),
                                  static_cast<C*>(host_c));
  };
  const bool to_float = p.c_type == CUDA_R_32F;
  switch (p.ab_type) {
    case CUDA_R_64F:
      multiply(double(), double(), double());
      break;
    case CUDA_R_32F:
      multiply(float(), float(), float());
      break;
    case CUDA_R_16F:
      to_float ? multiply(Half(), float(), float()) : multiply(Half(), Half(), float());
      break;
    default:
      to_float ? multiply(Bfloat(), float(), float()) : multiply(Bfloat(), Bfloat(), float());
  }
}

void RunAll(const Product& p, DeviceAccess* access) {
  if (!p.pointers) {
    for (int64_t i = 0; i < p.batch; ++i) {
      const size_t size = SizeOf(p.ab_type);
      RunOne(p, access, static_cast<const char*>(p.a) + i * p.stride_a * size,
             static_cast<const char*>(p.b) + i * p.stride_b * size,
             static_cast<char*>(p.c) + i * p.stride_c * SizeOf(p.c_type));
    }
    return;
  }
  const size_t bytes = p.batch * sizeof(void*);
  const auto* a = static_cast<const void* const*>(access->Read(p.a, bytes));
  const auto* b = static_cast<const void* const*>(access->Read(p.b, bytes));
  const auto* c = static_cast<void* const*>(access->Read(p.c, bytes));
  if (a == nullptr || b == nullptr || c == nullptr) return;
  for (int64_t i = 0; i < p.batch; ++i) RunOne(p, access, a[i], b[i], c[i]);
}

cublasStatus_t Queue(const char* function, cublasHandle_t handle, const Product& p) {
  const int64_t rows_a = p.transpose_a ? p.k : p.m;
  const int64_t rows_b = p.transpose_b ? p.n : p.k;
  if (p.m < 0 || p.n < 0 || p.k < 0 || p.batch < 0 || p.lda < std::max<int64_t>(1, rows_a) ||
      p.ldb < std::max<int64_t>(1, rows_b) || p.ldc < std::max<int64_t>(1, p.m)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  if (p.m == 0 || p.n == 0 || p.batch == 0) return CUBLAS_STATUS_SUCCESS;
  BlasWork work;
  work.name = std::string(function) + " of " + std::to_string(p.m) + " x " + std::to_string(p.n) +
              " x " + std::to_string(p.k);
  if (p.batch != 1) work.name += ", " + std::to_string(p.batch) + " times";
  work.tflop = 2e-12 * p.m * p.n * p.k * p.batch;
  work.element_bytes = static_cast<int>(SizeOf(p.ab_type));
  work.bytes =
      p.batch * ((p.m * p.k + p.k * p.n) * SizeOf(p.ab_type) + p.m * p.n * SizeOf(p.c_type));
  work.run = [p](DeviceAccess* access) { RunAll(p, access); };
  return __cudaSoftgpuBlas(handle->stream, work) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                : CUBLAS_STATUS_EXECUTION_FAILED;
}

// Fills in what cublasGemmEx and its like say of types; else the error.
cublasStatus_t SetTypes(const char* function, cublasHandle_t handle, cudaDataType a, cudaDataType b,
                        cudaDataType c, cublasComputeType_t compute, const void* alpha,
                        const void* beta, Product* p) {
  const bool by_double = compute == CUBLAS_COMPUTE_64F || compute == CUBLAS_COMPUTE_64F_PEDANTIC;
  const bool by_float = compute == CUBLAS_COMPUTE_32F || compute == CUBLAS_COMPUTE_32F_PEDANTIC ||
                        compute == CUBLAS_COMPUTE_32F_FAST_TF32;
  const bool known = (by_double && a == CUDA_R_64F && c == a) ||
                     (by_float && (a == CUDA_R_32F || a == CUDA_R_16F || a == CUDA_R_16BF) &&
                      (c == a || c == CUDA_R_32F));
  if (a != b || !known) {
    return Refuse(std::string(function) + " of types " + std::to_string(a) + ", " +
                  std::to_string(b) + " and " + std::to_string(c) + ", computed in " +
                  std::to_string(compute));
  }
  p->ab_type = a;
  p->c_type = c;
  p->alpha = by_double ? *static_cast<const double*>(alpha) : *static_cast<const float*>(alpha);
  p->beta = by_double ? *static_cast<const double*>(beta) : *static_cast<const float*>(beta);
  p->tf32 = a == CUDA_R_32F && compute != CUBLAS_COMPUTE_32F_PEDANTIC &&
            (compute == CUBLAS_COMPUTE_32F_FAST_TF32 ||
             (handle->math & 0xf) == CUBLAS_TF32_TENSOR_OP_MATH);
  return CUBLAS_STATUS_SUCCESS;
}

bool SetOps(cublasOperation_t a, cublasOperation_t b, Product* p) {
  p->transpose_a = a != CUBLAS_OP_N;
  p->transpose_b = b != CUBLAS_OP_N;
  return a <= CUBLAS_OP_C && b <= CUBLAS_OP_C;
}

struct Sizes {
  int64_t m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c, batch;
};

cublasStatus_t Gemm(const char* function, cublasHandle_t handle, cublasOperation_t op_a,
                    cublasOperation_t op_b, const Sizes& sizes, const void* alpha, const void* a,
                    cudaDataType a_type, const void* b, cudaDataType b_type, const void* beta,
                    void* c, cudaDataType c_type, cublasComputeType_t compute,
                    bool pointers = false) {
  cublasStatus_t status = Enter(function, handle);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  Product p = {};
  if (alpha == nullptr || beta == nullptr || !SetOps(op_a, op_b, &p)) {
    return CUBLAS_STATUS_INVALID_VALUE;
  }
  status = SetTypes(function, handle, a_type, b_type, c_type, compute, alpha, beta, &p);
  if (status != CUBLAS_STATUS_SUCCESS) return status;
  p.m = sizes.m;
  p.n = sizes.n;
  p.k = sizes.k;
  p.a = a;
  p.b = b;
  p.c = c;
  p.lda = sizes.lda;
  p.ldb = sizes.ldb;
  p.ldc = sizes.ldc;
  p.stride_a = sizes.stride_a;
  p.stride_b = sizes.stride_b;
  p.stride_c = sizes.stride_c;
  p.batch = sizes.batch;
  p.pointers = pointers;
  return Queue(function, handle, p);
}

template <typename T>
constexpr cudaDataType kType = sizeof(T) == 8 ? CUDA_R_64F : CUDA_R_32F;
template <typename T>
constexpr cublasComputeType_t kCompute = sizeof(T) == 8 ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;

// y = alpha op(A) x + beta y, as the product of the row x by op(A) transposed.
template <typename T>
cublasStatus_t Gemv(const char* function, cublasHandle_t handle, cublasOperation_t op, int m, int n,
                    const T* alpha, const T* a, int lda, const T* x, int incx, const T* beta, T* y,
                    int incy) {
  if (incx <= 0 || incy <= 0) return Refuse(std::string(function) + " with negative increments");
  const bool transpose = op != CUBLAS_OP_N;
  const Sizes sizes = {1, transpose ? n : m, transpose ? m : n, incx, lda, incy, 0, 0, 0, 1};
  return Gemm(function, handle, CUBLAS_OP_N, transpose ? CUBLAS_OP_N : CUBLAS_OP_T, sizes, alpha, x,
              kType<T>, a, kType<T>, beta, y, kType<T>, kCompute<T>);
}

template <typename T>
cublasStatus_t Scale(const char* function, cublasHandle_t handle, int n, const T* alpha, T* x,
                     int incx) {
  const cublasStatus_t status = Enter(function, handle);
  if (status != CUBLAS_STATUS_SUCCESS || n <= 0 || incx <= 0) return status;
  BlasWork work;
  work.name = std::string(function) + " of " + std::to_string(n);
  work.bytes = 2 * n * sizeof(T);
  work.run = [n, factor = *alpha, x, incx](DeviceAccess* access) {
    T* const at = static_cast<T*>(access->Write(x, sizeof(T), n, incx * sizeof(T), true));
    for (int64_t i = 0; at != nullptr && i < n; ++i) at[i * incx] *= factor;
  };
  return __cudaSoftgpuBlas(handle->stream, work) == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                : CUBLAS_STATUS_EXECUTION_FAILED;
}

}  // namespace

extern "C" {

cublasStatus_t cublasCreate_v2(cublasHandle_t* handle) {
  const cudaError_t error = __cudaSoftgpuBlasCall("cublasCreate_v2");
  if (error != cudaSuccess) {
    return error == cudaErrorMemoryAllocation ? CUBLAS_STATUS_ALLOC_FAILED
                                              : CUBLAS_STATUS_NOT_INITIALIZED;
  }
  *handle = new cublasContext;
  __cudaSoftgpuBlasHandles(1);
  std::lock_guard<std::mutex> lock(mu);
  Contexts().insert(*handle);
  return CUBLAS_STATUS_SUCCESS;
}

cublasStatus_t cublasDestroy_v2(cublasHandle_t handle) {
  {
    std::lock_guard<std::mutex> lock(mu);
    if (Contexts().erase(handle) == 0) return CUBLAS_STATUS_NOT_INITIALIZED;
  }
  delete handle;
  __cudaSoftgpuBlasHandles(-1);
  return __cudaSoftgpuBlasCall("cublasDestroy_v2") == cudaSuccess ? CUBLAS_STATUS_SUCCESS
                                                                  : CUBLAS_STATUS_EXECUTION_FAILED;
}

cublasStatus_t cublasSetStream_v2(cublasHandle_t handle, cudaStream_t stream) {
  const cublasStatus_t status = Enter("cublasSetStream_v2", handle);
  if (status == CUBLAS_STATUS_SUCCESS) handle->stream = stream;
  return status;
}

cublasStatus_t cublasGetStream_v2(cublasHandle_t handle, cudaStream_t* stream) {
  const cublasStatus_t status = Enter("cublasGetStream_v2", handle);
  if (status == CUBLAS_STATUS_SUCCESS) *stream = handle->stream;
  return status;
}

// The stand-in needs none.
cublasStatus_t cublasSetWorkspace_v2(cublasHandle_t handle, void*, size_t) {
  return Enter("cublasSetWorkspace_v2", handle);
}

cublasStatus_t cublasSetMathMode(cublasHandle_t handle, cublasMath_t mode) {
  const cublasStatus_t status = Enter("cublasSetMathMode", handle);
  if (status == CUBLAS_STATUS_SUCCESS) handle->math = mode;
  return status;
}

cublasStatus_t cublasGetMathMode(cublasHandle_t handle, cublasMath_t* mode) {
  const cublasStatus_t status = Enter("cublasGetMathMode", handle);
  if (status == CUBLAS_STATUS_SUCCESS) *mode = handle->math;
  return status;
}

cublasStatus_t cublasSetPointerMode_v2(cublasHandle_t handle, cublasPointerMode_t mode) {
  if (mode != CUBLAS_POINTER_MODE_HOST) return Refuse("alpha and beta in device memory");
  return Enter("cublasSetPointerMode_v2", handle);
}

cublasStatus_t cublasSetAtomicsMode(cublasHandle_t handle, cublasAtomicsMode_t) {
  return Enter("cublasSetAtomicsMode", handle);
}

cublasStatus_t cublasGetVersion_v2(cublasHandle_t, int* version) {
  *version = CUBLAS_VERSION;
  return CUBLAS_STATUS_SUCCESS;
}

const char* cublasGetStatusName(cublasStatus_t status) {
  switch (status) {
    case CUBLAS_STATUS_SUCCESS:
      return "CUBLAS_STATUS_SUCCESS";
    case CUBLAS_STATUS_NOT_INITIALIZED:
      return "CUBLAS_STATUS_NOT_INITIALIZED";
    case CUBLAS_STATUS_ALLOC_FAILED:
      return "CUBLAS_STATUS_ALLOC_FAILED";
    case CUBLAS_STATUS_INVALID_VALUE:
      return "CUBLAS_STATUS_INVALID_VALUE";
    case CUBLAS_STATUS_ARCH_MISMATCH:
      return "CUBLAS_STATUS_ARCH_MISMATCH";
    case CUBLAS_STATUS_MAPPING_ERROR:
      return "CUBLAS_STATUS_MAPPING_ERROR";
    case CUBLAS_STATUS_EXECUTION_FAILED:
      return "CUBLAS_STATUS_EXECUTION_FAILED";
    case CUBLAS_STATUS_INTERNAL_ERROR:
      return "CUBLAS_STATUS_INTERNAL_ERROR";
    case CUBLAS_STATUS_NOT_SUPPORTED:
      return "CUBLAS_STATUS_NOT_SUPPORTED";
    case CUBLAS_STATUS_LICENSE_ERROR:
      return "CUBLAS_STATUS_LICENSE_ERROR";
  }
  return "an unknown cublasStatus_t";
}

const char* cublasGetStatusString(cublasStatus_t status) { return cublasGetStatusName(status); }

cublasStatus_t cublasSgemm_v2(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                              int m, int n, int k, const float* alpha, const float* a, int lda,
                              const float* b, int ldb, const float* beta, float* c, int ldc) {
  return Gemm("cublasSgemm_v2", handle, op_a, op_b, {m, n, k, lda, ldb, ldc, 0, 0, 0, 1}, alpha, a,
              CUDA_R_32F, b, CUDA_R_32F, beta, c, CUDA_R_32F, CUBLAS_COMPUTE_32F);
}

cublasStatus_t cublasDgemm_v2(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                              int m, int n, int k, const double* alpha, const double* a, int lda,
                              const double* b, int ldb, const double* beta, double* c, int ldc) {
  return Gemm("cublasDgemm_v2", handle, op_a, op_b, {m, n, k, lda, ldb, ldc, 0, 0, 0, 1}, alpha, a,
              CUDA_R_64F, b, CUDA_R_64F, beta, c, CUDA_R_64F, CUBLAS_COMPUTE_64F);
}

cublasStatus_t cublasGemmEx(cublasHandle_t handle, cublasOperation_t op_a, cublasOperation_t op_b,
                            int m, int n, int k, const void* alpha, const void* a,
                            cudaDataType a_type, int lda, const void* b, cudaDataType b_type,
                            int ldb, const void* beta, void* c, cudaDataType c_type, int ldc,
                            cublasComputeType_t compute, cublasGemmAlgo_t) {
  return Gemm("cublasGemmEx", handle, op_a, op_b, {m, n, k, lda, ldb, ldc, 0, 0, 0, 1}, alpha, a,
              a_type, b, b_type, beta, c, c_type, compute);
}

cublasStatus_t cublasSgemmStridedBatched(cublasHandle_t handle, cublasOperation_t op_a,
                                         cublasOperation_t op_b, int m, int n, int k,
                                         const float* alpha, const float* a, int lda,
                                         long long stride_a, const float* b, int ldb,
                                         long long stride_b, const float* beta, float* c, int ldc,
                                         long long stride_c, int batch) {
  return Gemm("cublasSgemmStridedBatched", handle, op_a, op_b,
              {m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c, batch}, alpha, a, CUDA_R_32F,
              b, CUDA_R_32F, beta, c, CUDA_R_32F, CUBLAS_COMPUTE_32F);
}

cublasStatus_t cublasDgemmStridedBatched(cublasHandle_t handle, cublasOperation_t op_a,
                                         cublasOperation_t op_b, int m, int n, int k,
                                         const double* alpha, const double* a, int lda,
                                         long long stride_a, const double* b, int ldb,
                                         long long stride_b, const double* beta, double* c, int ldc,
                                         long long stride_c, int batch) {
  return Gemm("cublasDgemmStridedBatched", handle, op_a, op_b,
              {m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c, batch}, alpha, a, CUDA_R_64F,
              b, CUDA_R_64F, beta, c, CUDA_R_64F, CUBLAS_COMPUTE_64F);
}

cublasStatus_t cublasGemmStridedBatchedEx(cublasHandle_t handle, cublasOperation_t op_a,
                                          cublasOperation_t op_b, int m, int n, int k,
                                          const void* alpha, const void* a, cudaDataType a_type,
                                          int lda, long long stride_a, const void* b,
                                          cudaDataType b_type, int ldb, long long stride_b,
                                          const void* beta, void* c, cudaDataType c_type, int ldc,
                                          long long stride_c, int batch,
                                          cublasComputeType_t compute, cublasGemmAlgo_t) {
  return Gemm("cublasGemmStridedBatchedEx", handle, op_a, op_b,
              {m, n, k, lda, ldb, ldc, stride_a, stride_b, stride_c, batch}, alpha, a, a_type, b,
              b_type, beta, c, c_type, compute);
}

cublasStatus_t cublasGemmBatchedEx(cublasHandle_t handle, cublasOperation_t op_a,
                                   cublasOperation_t op_b, int m, int n, int k, const void* alpha,
                                   const void* const a[], cudaDataType a_type, int lda,
                                   const void* const b[], cudaDataType b_type, int ldb,
                                   const void* beta, void* const c[], cudaDataType c_type, int ldc,
                                   int batch, cublasComputeType_t compute, cublasGemmAlgo_t) {
  return Gemm("cublasGemmBatchedEx", handle, op_a, op_b, {m, n, k, lda, ldb, ldc, 0, 0, 0, batch},
              alpha, a, a_type, b, b_type, beta, const_cast<void**>(c), c_type, compute,
              /*pointers=*/true);
}

cublasStatus_t cublasSgemv_v2(cublasHandle_t handle, cublasOperation_t op, int m, int n,
                              const float* alpha, const float* a, int lda, const float* x, int incx,
                              const float* beta, float* y, int incy) {
  return Gemv("cublasSgemv_v2", handle, op, m, n, alpha, a, lda, x, incx, beta, y, incy);
}

cublasStatus_t cublasDgemv_v2(cublasHandle_t handle, cublasOperation_t op, int m, int n,
                              const double* alpha, const double* a, int lda, const double* x,
                              int incx, const double* beta, double* y, int incy) {
  return Gemv("cublasDgemv_v2", handle, op, m, n, alpha, a, lda, x, incx, beta, y, incy);
}

cublasStatus_t cublasSscal_v2(cublasHandle_t handle, int n, const float* alpha, float* x,
                              int incx) {
  return Scale("cublasSscal_v2", handle, n, alpha, x, incx);
}

cublasStatus_t cublasDscal_v2(cublasHandle_t handle, int n, const double* alpha, double* x,
                              int incx) {
  return Scale("cublasDscal_v2", handle, n, alpha, x, incx);
}

}  // extern "C"
}  // namespace softgpu
