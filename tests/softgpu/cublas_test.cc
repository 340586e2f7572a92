// Tests of the calls of cuBLAS that this project uses, on the software GPU's stand-in or the real
// one: every type and transposition against products computed here in double.
#include <cublas_v2.h>
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

#include "tests/softgpu/control.h"

namespace softgpu_test {
namespace {

using softgpu::Get;
using softgpu::Set;
using testing::HasSubstr;

#define ASSERT_CUDA_OK(call) ASSERT_EQ(cudaSuccess, (call)) << #call
#define ASSERT_BLAS_OK(call) ASSERT_EQ(CUBLAS_STATUS_SUCCESS, (call)) << #call

template <typename T>
cudaDataType TypeOf();
template <>
cudaDataType TypeOf<double>() {
  return CUDA_R_64F;
}
template <>
cudaDataType TypeOf<float>() {
  return CUDA_R_32F;
}
template <>
cudaDataType TypeOf<__half>() {
  return CUDA_R_16F;
}
template <>
cudaDataType TypeOf<__nv_bfloat16>() {
  return CUDA_R_16BF;
}

double ToDouble(double x) { return x; }
double ToDouble(float x) { return x; }
double ToDouble(__half x) { return __half2float(x); }
double ToDouble(__nv_bfloat16 x) { return __bfloat162float(x); }

template <typename T>
T FromDouble(double x) {
  return static_cast<T>(x);
}
template <>
__half FromDouble(double x) {
  return __float2half(static_cast<float>(x));
}
template <>
__nv_bfloat16 FromDouble(double x) {
  return __float2bfloat16(static_cast<float>(x));
}

class CublasTest : public testing::Test {
 protected:
  void SetUp() override {
    ASSERT_CUDA_OK(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
    ASSERT_BLAS_OK(cublasCreate(&handle_));
    ASSERT_BLAS_OK(cublasSetStream(handle_, stream_));
  }

  void TearDown() override {
    EXPECT_EQ(CUBLAS_STATUS_SUCCESS, cublasDestroy(handle_));
    for (void* p : allocated_) EXPECT_EQ(cudaSuccess, cudaFree(p));
    EXPECT_EQ(cudaSuccess, cudaStreamDestroy(stream_));
    EXPECT_EQ("", Get("leaks"));
  }

  template <typename T>
  T* ToDevice(const std::vector<T>& host) {
    void* device = nullptr;
    EXPECT_EQ(cudaSuccess, cudaMalloc(&device, host.size() * sizeof(T)));
    EXPECT_EQ(cudaSuccess, cudaMemcpyAsync(device, host.data(), host.size() * sizeof(T),
                                           cudaMemcpyHostToDevice, stream_));
    allocated_.push_back(device);
    return static_cast<T*>(device);
  }

  template <typename T>
  std::vector<T> ToHost(const T* device, size_t n) {
    std::vector<T> host(n);
    EXPECT_EQ(cudaSuccess,
              cudaMemcpyAsync(host.data(), device, n * sizeof(T), cudaMemcpyDeviceToHost, stream_));
    EXPECT_EQ(cudaSuccess, cudaStreamSynchronize(stream_));
    return host;
  }

  // Numbers between -1 and 1 that each type has exactly.
  template <typename T>
  std::vector<T> Numbers(size_t n) {
    std::vector<T> numbers(n);
    for (T& x : numbers) {
      seed_ = seed_ * 6364136223846793005u + 1442695040888963407u;
      x = FromDouble<T>(static_cast<int>(seed_ >> 60) / 8.0 - 1);
    }
    return numbers;
  }

  cudaStream_t stream_;
  cublasHandle_t handle_;
  std::vector<void*> allocated_;
  uint64_t seed_ = 1;
};

template <typename AB, typename OfC>
struct Types {
  using T = AB;
  using C = OfC;
};

template <typename T>
class CublasGemmTest : public CublasTest {};
using AllTypes = testing::Types<Types<float, float>, Types<double, double>, Types<__half, __half>,
                                Types<__half, float>, Types<__nv_bfloat16, __nv_bfloat16>,
                                Types<__nv_bfloat16, float>>;
TYPED_TEST_SUITE(CublasGemmTest, AllTypes);

TYPED_TEST(CublasGemmTest, EveryTranspositionSizeAndScale) {
  using T = typename TypeParam::T;
  using C = typename TypeParam::C;
  constexpr bool kDouble = sizeof(T) == 8;
  struct {
    int m, n, k, pad;
    double alpha, beta;
  } cases[] = {{1, 1, 1, 0, 1, 0},
               {3, 5, 7, 2, 0.5, 2},
               {17, 4, 33, 0, 1, 1},
               {8, 9, 16, 1, 0, 1},
               {5, 6, 0, 0, 1, 0.5}};
  for (const auto& test : cases) {
    for (int ops = 0; ops < 4; ++ops) {
      const bool ta = ops & 1;
      const bool tb = ops & 2;
      SCOPED_TRACE(testing::Message()
                   << test.m << " x " << test.n << " x " << test.k << ", ops " << ops);
      constexpr int kBatch = 3;
      const int lda = std::max(1, (ta ? test.k : test.m) + test.pad);
      const int ldb = std::max(1, (tb ? test.n : test.k) + test.pad);
      const int ldc = test.m + test.pad;
      const int64_t stride_a = lda * (ta ? test.m : test.k) + 4;
      const int64_t stride_b = ldb * (tb ? test.k : test.n) + 4;
      const int64_t stride_c = ldc * test.n + 4;
      const std::vector<T> a = this->template Numbers<T>(kBatch * stride_a);
      const std::vector<T> b = this->template Numbers<T>(kBatch * stride_b);
      const std::vector<C> c = this->template Numbers<C>(kBatch * stride_c);
      T* const device_a = this->ToDevice(a);
      T* const device_b = this->ToDevice(b);
      C* const device_c = this->ToDevice(c);
      const float alpha_f = test.alpha, beta_f = test.beta;
      const void* alpha = kDouble ? static_cast<const void*>(&test.alpha) : &alpha_f;
      const void* beta = kDouble ? static_cast<const void*>(&test.beta) : &beta_f;
      ASSERT_BLAS_OK(cublasGemmStridedBatchedEx(
          this->handle_, ta ? CUBLAS_OP_T : CUBLAS_OP_N, tb ? CUBLAS_OP_T : CUBLAS_OP_N, test.m,
          test.n, test.k, alpha, device_a, TypeOf<T>(), lda, stride_a, device_b, TypeOf<T>(), ldb,
          stride_b, beta, device_c, TypeOf<C>(), ldc, stride_c, kBatch,
          kDouble ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
      const std::vector<C> result = this->ToHost(device_c, c.size());
      std::vector<double> expected(c.size());
      for (size_t i = 0; i < c.size(); ++i) expected[i] = ToDouble(c[i]);
      for (int batch = 0; batch < kBatch; ++batch) {
        for (int j = 0; j < test.n; ++j) {
          for (int i = 0; i < test.m; ++i) {
            double sum = 0;
            for (int l = 0; l < test.k; ++l) {
              sum += ToDouble(a[batch * stride_a + (ta ? l + i * lda : i + l * lda)]) *
                     ToDouble(b[batch * stride_b + (tb ? j + l * ldb : l + j * ldb)]);
            }
            double& out = expected[batch * stride_c + i + j * ldc];
            out = test.alpha * sum + test.beta * out;
          }
        }
      }
      // All sums are exact; only the result is rounded.
      const double step = sizeof(C) == 2 ? (TypeOf<C>() == CUDA_R_16F ? 0x1p-11 : 0x1p-8) : 1e-6;
      for (size_t i = 0; i < c.size(); ++i) {
        EXPECT_NEAR(expected[i], ToDouble(result[i]), step * std::abs(expected[i])) << i;
      }
    }
  }
}

TEST_F(CublasTest, TheCallsForFloatAndDouble) {
  const std::vector<float> a = {1, 2, 3, 4, 5, 6};  // 2 x 3, by columns.
  const std::vector<float> x = {1, 10, 100};
  float* const device_a = ToDevice(a);
  float* const device_x = ToDevice(x);
  float* const y = ToDevice(std::vector<float>(4, 1));
  const float one = 1, zero = 0, two = 2;
  ASSERT_BLAS_OK(cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 2, 1, 3, &one, device_a, 2,
                             device_x, 3, &zero, y, 2));
  EXPECT_THAT(ToHost(y, 4), testing::ElementsAre(531, 642, 1, 1));
  ASSERT_BLAS_OK(
      cublasSgemv(handle_, CUBLAS_OP_N, 2, 3, &one, device_a, 2, device_x, 1, &two, y, 2));
  EXPECT_THAT(ToHost(y, 4), testing::ElementsAre(3 * 531, 642, 2 + 642, 1));
  ASSERT_BLAS_OK(
      cublasSgemv(handle_, CUBLAS_OP_T, 2, 3, &one, device_a, 2, device_x, 2, &zero, y, 1));
  EXPECT_THAT(ToHost(y, 4), testing::ElementsAre(201, 403, 605, 1));
  ASSERT_BLAS_OK(cublasSscal(handle_, 2, &two, y, 2));
  EXPECT_THAT(ToHost(y, 4), testing::ElementsAre(402, 403, 1210, 1));
  ASSERT_BLAS_OK(cublasSgemmStridedBatched(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 3, &one,
                                           device_a, 1, 3, device_x, 3, 0, &zero, y, 1, 1, 2));
  EXPECT_THAT(ToHost(y, 4), testing::ElementsAre(321, 654, 1210, 1));

  const std::vector<double> d = {1, 2, 3, 4};
  double* const device_d = ToDevice(d);
  double* const product = ToDevice(std::vector<double>(4));
  const double half = 0.5, none = 0;
  ASSERT_BLAS_OK(cublasDgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_T, 2, 2, 2, &half, device_d, 2,
                             device_d, 2, &none, product, 2));
  EXPECT_THAT(ToHost(product, 4), testing::ElementsAre(5, 7, 7, 10));
  ASSERT_BLAS_OK(cublasGemmEx(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &half, device_d,
                              CUDA_R_64F, 2, device_d, CUDA_R_64F, 2, &none, product, CUDA_R_64F, 2,
                              CUBLAS_COMPUTE_64F, CUBLAS_GEMM_DEFAULT));
  EXPECT_THAT(ToHost(product, 4), testing::ElementsAre(3.5, 5, 7.5, 11));
}

TEST_F(CublasTest, ProductsOfListsOfMatrices) {
  float* const x = ToDevice(std::vector<float>{1, 2, 3, 4});
  float* const y = ToDevice(std::vector<float>(2, 0));
  const void* const* as = ToDevice(std::vector<const void*>{x, x + 2});
  const void* const* bs = ToDevice(std::vector<const void*>{x + 2, x});
  void* const* cs = ToDevice(std::vector<void*>{y + 1, y});
  const float one = 1, zero = 0;
  ASSERT_BLAS_OK(cublasGemmBatchedEx(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 2, &one, as,
                                     CUDA_R_32F, 1, bs, CUDA_R_32F, 2, &zero, cs, CUDA_R_32F, 1, 2,
                                     CUBLAS_COMPUTE_32F, CUBLAS_GEMM_DEFAULT));
  EXPECT_THAT(ToHost(y, 2), testing::ElementsAre(11, 11));
}

TEST_F(CublasTest, ScalesAreReadAtTheCallAndWorkWhenTheStreamRuns) {
  float* const x = ToDevice(std::vector<float>{2});
  float* const y = ToDevice(std::vector<float>{0});
  float alpha = 3, beta = 0;
  ASSERT_BLAS_OK(
      cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &alpha, x, 1, x, 1, &beta, y, 1));
  alpha = 100;
  EXPECT_THAT(ToHost(y, 1), testing::ElementsAre(12));
}

TEST_F(CublasTest, IsCapturedIntoGraphs) {
  float* const x = ToDevice(std::vector<float>{2});
  float* const y = ToDevice(std::vector<float>{1});
  const float one = 1;
  ASSERT_BLAS_OK(
      cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, x, 1, x, 1, &one, y, 1));
  ASSERT_CUDA_OK(cudaStreamSynchronize(stream_));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  ASSERT_CUDA_OK(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  ASSERT_BLAS_OK(
      cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, x, 1, x, 1, &one, y, 1));
  ASSERT_CUDA_OK(cudaStreamEndCapture(stream_, &graph));
  ASSERT_CUDA_OK(cudaGraphInstantiate(&exec, graph, 0));
  for (int i = 0; i < 3; ++i) ASSERT_CUDA_OK(cudaGraphLaunch(exec, stream_));
  EXPECT_THAT(ToHost(y, 1), testing::ElementsAre(1 + 4 * 4));
  ASSERT_CUDA_OK(cudaGraphExecDestroy(exec));
  ASSERT_CUDA_OK(cudaGraphDestroy(graph));
}

TEST_F(CublasTest, WrongSizesAreErrors) {
  float* const x = ToDevice(std::vector<float>(4));
  const float one = 1;
  EXPECT_EQ(CUBLAS_STATUS_INVALID_VALUE,
            cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 2, 1, 1, &one, x, 1, x, 1, &one, x, 2));
  EXPECT_EQ(CUBLAS_STATUS_INVALID_VALUE,
            cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, -1, 1, 1, &one, x, 1, x, 1, &one, x, 2));
}

TEST_F(CublasTest, ItsMemoryIsChecked) {
  if (!softgpu::Present()) GTEST_SKIP() << "this is a real GPU";
  ASSERT_EQ("", Set("ON_REPORT", "error"));
  float* const x = ToDevice(std::vector<float>(4));
  const float one = 1, zero = 0;
  // C isn't read where beta is 0.
  void* fresh;
  ASSERT_CUDA_OK(cudaMalloc(&fresh, 16));
  allocated_.push_back(fresh);
  float* const c = static_cast<float*>(fresh);
  ASSERT_BLAS_OK(
      cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 2, 1, 2, &one, x, 2, x, 2, &zero, c, 2));
  ASSERT_CUDA_OK(cudaStreamSynchronize(stream_));
  // Here it is, and two of its elements aren't there.
  ASSERT_BLAS_OK(
      cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 2, 2, 2, &one, x, 2, x, 2, &one, c, 2));
  EXPECT_NE(cudaSuccess, cudaStreamSynchronize(stream_));
  EXPECT_THAT(Get("reports"), HasSubstr("cublasSgemm_v2 of 2 x 2 x 2"));
  EXPECT_EQ(CUBLAS_STATUS_EXECUTION_FAILED, cublasSetStream(handle_, stream_));
  EXPECT_EQ(CUBLAS_STATUS_EXECUTION_FAILED, cublasDestroy(handle_));
  ASSERT_CUDA_OK(cudaDeviceReset());
  allocated_.clear();
  Set("ON_REPORT", "exit");
  SetUp();
}

TEST_F(CublasTest, Tf32RoundsWhereItIsAllowedOnly) {
  if (!softgpu::Present()) GTEST_SKIP() << "real GPUs differ";
  float* const x = ToDevice(std::vector<float>{1 + 0x1p-12f});
  float* const y = ToDevice(std::vector<float>{1});
  const float one = 1, zero = 0;
  ASSERT_BLAS_OK(
      cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, x, 1, y, 1, &zero, y, 1));
  EXPECT_THAT(ToHost(y, 1), testing::ElementsAre(1 + 0x1p-12f));
  ASSERT_BLAS_OK(cublasSetMathMode(handle_, CUBLAS_TF32_TENSOR_OP_MATH));
  ASSERT_BLAS_OK(
      cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, x, 1, y, 1, &zero, y, 1));
  EXPECT_THAT(ToHost(y, 1), testing::ElementsAre(1));
}

TEST_F(CublasTest, FaultsAndUnknownTypesAreErrors) {
  if (!softgpu::Present()) GTEST_SKIP() << "this is a real GPU";
  float* const x = ToDevice(std::vector<float>(4));
  const float one = 1;
  ASSERT_EQ("", Set("FAULT", "cublasSgemm_v2:1"));
  EXPECT_EQ(CUBLAS_STATUS_EXECUTION_FAILED,
            cublasSgemm(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, x, 1, x, 1, &one, x, 1));
  ASSERT_EQ("", Set("FAULT", ""));
  ASSERT_EQ("", Set("ON_REPORT", "error"));
  EXPECT_EQ(
      CUBLAS_STATUS_NOT_SUPPORTED,
      cublasGemmEx(handle_, CUBLAS_OP_N, CUBLAS_OP_N, 1, 1, 1, &one, x, CUDA_R_8I, 1, x, CUDA_R_8I,
                   1, &one, x, CUDA_R_32I, 1, CUBLAS_COMPUTE_32I, CUBLAS_GEMM_DEFAULT));
  EXPECT_THAT(Get("reports"), HasSubstr("cublasGemmEx of types"));
  Set("ON_REPORT", "exit");
}

}  // namespace
}  // namespace softgpu_test
