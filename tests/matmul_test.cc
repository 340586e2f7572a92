// Matrix products against a plain triple loop, at sizes around those where the kernels change their
// ways: vector widths, blocks, tiles of the parallel split.
#include <cmath>
#include <random>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/scope.h"
#include "runtime/session/session.h"

namespace ferry {
namespace {

template <typename T>
Tensor Random(int64_t rows, int64_t columns, int seed) {
  std::mt19937 random(static_cast<uint32_t>(seed));
  Tensor t = *Tensor::Allocate(DTypeOf<T>::value, TensorShape({rows, columns}));
  for (T& x : t.span<T>()) {
    const auto bits = static_cast<int32_t>(random() % 2001) - 1000;
    if constexpr (std::is_integral_v<T>) {
      x = static_cast<T>(bits);
    } else {
      x = static_cast<T>(static_cast<float>(bits) / 1000);
    }
  }
  return t;
}

// One graph and session for all sizes of a dtype and a pair of transpositions.
class Product {
 public:
  Product(DType dtype, bool ta, bool tb, int threads) {
    Scope root(&graph_);
    const Output a = ops::Placeholder(root.WithOpName("a"), dtype);
    const Output b = ops::Placeholder(root.WithOpName("b"), dtype);
    ops::MatMul(root.WithOpName("c"), a, b, ta, tb);
    SessionOptions options;
    options.threads = threads;
    session_ = std::make_unique<Session>(&graph_, options);
  }
  absl::StatusOr<Tensor> Run(const Tensor& a, const Tensor& b) {
    std::vector<Tensor> out;
    FERRY_RETURN_IF_ERROR(session_->Run({{"a", a}, {"b", b}}, {"c"}, {}, &out));
    return out[0];
  }

 private:
  Graph graph_;
  std::unique_ptr<Session> session_;
};

// Each element of `c` lies within the rounding of its sum. `epsilon` of the accumulator and of the
// result: half a unit in the last place of 1.
template <typename T>
void ExpectProduct(const Tensor& a, const Tensor& b, bool ta, bool tb, const Tensor& c,
                   double accumulator_epsilon, double result_epsilon) {
  const int64_t m = a.dim(ta ? 1 : 0), k = a.dim(ta ? 0 : 1), n = b.dim(tb ? 0 : 1);
  ASSERT_EQ(c.shape(), TensorShape({m, n}));
  const T* const pa = a.data<T>();
  const T* const pb = b.data<T>();
  const T* const pc = c.data<T>();
  for (int64_t i = 0; i < m; ++i) {
    for (int64_t j = 0; j < n; ++j) {
      double sum = 0, magnitude = 0;
      for (int64_t p = 0; p < k; ++p) {
        const double x = static_cast<double>(pa[ta ? p * m + i : i * k + p]) *
                         static_cast<double>(pb[tb ? j * k + p : p * n + j]);
        sum += x;
        magnitude += std::fabs(x);
      }
      const double found = static_cast<double>(pc[i * n + j]);
      ASSERT_NEAR(found, sum,
                  accumulator_epsilon * static_cast<double>(k + 1) * magnitude +
                      result_epsilon * std::fabs(sum))
          << m << "x" << n << "x" << k << (ta ? " ta" : "") << (tb ? " tb" : "") << " at " << i
          << "," << j;
    }
  }
}

template <typename T>
void CheckSizes(const std::vector<int64_t>& sizes, double accumulator_epsilon,
                double result_epsilon) {
  for (bool ta : {false, true}) {
    for (bool tb : {false, true}) {
      Product product(DTypeOf<T>::value, ta, tb, 2);
      for (int64_t m : sizes) {
        for (int64_t n : sizes) {
          for (int64_t k : sizes) {
            const Tensor a = ta ? Random<T>(k, m, 1) : Random<T>(m, k, 1);
            const Tensor b = tb ? Random<T>(n, k, 2) : Random<T>(k, n, 2);
            absl::StatusOr<Tensor> c = product.Run(a, b);
            ASSERT_TRUE(c.ok()) << c.status();
            ExpectProduct<T>(a, b, ta, tb, *c, accumulator_epsilon, result_epsilon);
          }
        }
      }
    }
  }
}

const std::vector<int64_t> kSizes = {1, 2, 7, 8, 9, 15, 16, 17, 31, 33, 65};
const std::vector<int64_t> kFewSizes = {1, 3, 8, 17, 33};

TEST(MatMulTest, FloatSizes) { CheckSizes<float>(kSizes, 6e-8, 6e-8); }
TEST(MatMulTest, DoubleSizes) { CheckSizes<double>(kSizes, 2e-16, 2e-16); }
TEST(MatMulTest, HalfSizes) { CheckSizes<half>(kFewSizes, 6e-8, 5e-4); }
TEST(MatMulTest, Bfloat16Sizes) { CheckSizes<bfloat16>(kFewSizes, 6e-8, 4e-3); }
TEST(MatMulTest, Int32Sizes) { CheckSizes<int32_t>(kFewSizes, 0, 0); }
TEST(MatMulTest, Int64Sizes) { CheckSizes<int64_t>(kFewSizes, 0, 0); }

TEST(MatMulTest, IntegersWrapAround) {
  Product product(DType::kInt32, false, false, 1);
  absl::StatusOr<Tensor> c = product.Run(Tensor::Of<int32_t>({1 << 30, 1 << 30}, {1, 2}),
                                         Tensor::Of<int32_t>({2, 3}, {2, 1}));
  ASSERT_TRUE(c.ok()) << c.status();
  EXPECT_EQ(c->scalar<int32_t>(), 1 << 30);
}

// Large enough to be split into tiles, with edges that no tile size divides; and a matrix times a
// vector, which isn't.
TEST(MatMulTest, TilesGiveTheSameBitsOnAnyNumberOfThreads) {
  struct Size {
    int64_t m, n, k;
  };
  for (const Size& s : {Size{300, 700, 65}, Size{1030, 33, 300}, Size{17, 1100, 500},
                        Size{1, 1500, 700}, Size{1500, 1, 700}}) {
    for (bool ta : {false, true}) {
      for (bool tb : {false, true}) {
        const Tensor a = ta ? Random<float>(s.k, s.m, 3) : Random<float>(s.m, s.k, 3);
        const Tensor b = tb ? Random<float>(s.n, s.k, 4) : Random<float>(s.k, s.n, 4);
        std::vector<Tensor> results;
        for (int threads : {1, 2, 3}) {
          absl::StatusOr<Tensor> c = Product(DType::kFloat, ta, tb, threads).Run(a, b);
          ASSERT_TRUE(c.ok()) << c.status();
          results.push_back(*std::move(c));
        }
        ExpectProduct<float>(a, b, ta, tb, results[0], 6e-8, 6e-8);
        for (size_t i = 1; i < results.size(); ++i) {
          EXPECT_EQ(0, std::memcmp(results[0].raw(), results[i].raw(), results[0].bytes()));
        }
      }
    }
  }
}

}  // namespace
}  // namespace ferry
