// Runs test_kernels.cu, as compiled for an old and for new architectures, on the software GPU:
// results against the host's, and each planted mistake against its report.
#include "tests/softgpu/executor.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <functional>
#include <limits>
#include <numeric>
#include <random>
#include <sstream>

#include "tests/softgpu/memory.h"
#include "tests/softgpu/small_floats.h"

namespace softgpu {
namespace {

using ::testing::HasSubstr;

std::unique_ptr<Module> LoadModule(const std::string& architecture) {
  std::ifstream file("tests/softgpu/test_kernels_" + architecture + ".ptx");
  std::stringstream text;
  text << file.rdbuf();
  std::string error;
  std::unique_ptr<Module> module = Module::Parse(text.str(), &error);
  EXPECT_TRUE(module) << error;
  return module;
}

class ExecutorTest : public testing::TestWithParam<const char*> {
 protected:
  ExecutorTest() : module_(LoadModule(GetParam())), memory_({}), stream_(1, "stream 1") {
    memory_.SetActor(1, &stream_);
  }

  template <typename T>
  T* Allocate(size_t count) {
    return reinterpret_cast<T*>(memory_.Allocate(0, count * sizeof(T)));
  }
  template <typename T>
  T* Upload(const std::vector<T>& values) {
    T* p = Allocate<T>(values.size());
    const Report report = memory_.Copy(stream_, Address(p), Address(values.data()),
                                       values.size() * sizeof(T), "upload");
    EXPECT_TRUE(report.ok()) << report.text;
    return p;
  }
  template <typename T>
  std::vector<T> Download(const T* p, size_t count) {
    std::vector<T> values(count);
    const Report report =
        memory_.Copy(stream_, Address(values.data()), Address(p), count * sizeof(T), "download");
    EXPECT_TRUE(report.ok()) << report.text;
    return values;
  }
  static uint64_t Address(const void* p) { return reinterpret_cast<uint64_t>(p); }

  template <typename... A>
  Report Launch(const std::string& name, Dim3 grid, Dim3 block, A... arguments) {
    softgpu::Launch launch;
    std::string error;
    launch.module = module_.get();
    launch.kernel = module_->FindKernel(name, &error);
    if (!launch.kernel) return {Report::kUnsupported, error};
    std::vector<char> params(launch.kernel->param_bytes);
    size_t i = 0;
    const auto put = [&](const auto& a) {
      EXPECT_EQ(sizeof(a), launch.kernel->params[i].bytes) << name << " parameter " << i;
      std::memcpy(&params[launch.kernel->params[i++].offset], &a, sizeof(a));
    };
    (put(arguments), ...);
    EXPECT_EQ(i, launch.kernel->params.size()) << name;
    launch.grid = grid;
    launch.block = block;
    launch.params = params.data();
    launch.dynamic_shared_bytes = dynamic_shared_;
    launch.budget = budget_;
    stream_.Begin("kernel " + name);
    return Execute(&memory_, stream_, launch, &counts_);
  }
  template <typename... A>
  void Run(const std::string& name, Dim3 grid, Dim3 block, A... arguments) {
    const Report report = Launch(name, grid, block, arguments...);
    ASSERT_TRUE(report.ok()) << report.text;
  }

  std::vector<float> Floats(size_t count, float low = -4, float high = 4) {
    std::vector<float> values(count);
    std::uniform_real_distribution<float> draw(low, high);
    for (float& v : values) v = draw(random_);
    return values;
  }

  template <typename T>
  void CheckTransform(const std::string& name) {
    std::vector<T> x(300);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(int64_t(i * 2654435761u) - 77);
    T* const y = Allocate<T>(x.size());
    Run(name, {5}, {64}, Upload(x), y, 300);
    const std::vector<T> got = Download(y, x.size());
    for (size_t i = 0; i < x.size(); ++i) {
      T want;
      if constexpr (std::is_integral_v<T>) {
        want = static_cast<T>(static_cast<uint64_t>(x[i]) * static_cast<uint64_t>(x[i]) + 3);
      } else {
        want = x[i] * x[i] + 3;
      }
      ASSERT_EQ(got[i], want) << name << " " << i;
    }
  }

  const std::unique_ptr<Module> module_;
  Memory memory_;
  Actor stream_;
  Counts counts_;
  uint32_t dynamic_shared_ = 0;
  uint64_t budget_ = uint64_t{1} << 40;
  std::mt19937 random_{42};
};

// Relative to 1 where numbers are small.
void ExpectNear(double got, double want, double tolerance, const std::string& what) {
  if (std::isnan(want)) {
    EXPECT_TRUE(std::isnan(got)) << what << " " << got;
  } else if (std::isinf(want)) {
    EXPECT_EQ(got, want) << what;
  } else {
    EXPECT_NEAR(got, want, tolerance * std::max(1.0, std::fabs(want))) << what;
  }
}

TEST_P(ExecutorTest, ElementWise) {
  for (int n : {1, 31, 32, 33, 255, 1000}) {
    const std::vector<float> x = Floats(n), y = Floats(n);
    float* const out = Upload(y);
    Run("Saxpy", {uint32_t(n + 127) / 128}, {128}, 2.0f, Upload(x), out, n);
    float* const out2 = Upload(y);
    Run("SaxpyGridStride", {2}, {64}, 2.0f, Upload(x), out2, int64_t{n});
    const std::vector<float> got = Download(out, n);
    for (int i = 0; i < n; ++i) ASSERT_EQ(got[i], std::fma(2.0f, x[i], y[i])) << n << " " << i;
    EXPECT_EQ(Download(out2, n), got);
  }
  EXPECT_GE(counts_.bytes_read, 8000u);
  EXPECT_EQ(counts_.bytes_written, 4000u);
}

TEST_P(ExecutorTest, Vectors) {
  const std::vector<float> x = Floats(400), y = Floats(400);
  float* const z = Allocate<float>(400);
  Run("AddFloat4", {4}, {32}, Upload(x), Upload(y), z, 100);
  const std::vector<float> got = Download(z, 400);
  for (int i = 0; i < 400; ++i) ASSERT_EQ(got[i], x[i] + y[i]);
}

TEST_P(ExecutorTest, Templates) {
  CheckTransform<int>("TransformInt");
  CheckTransform<double>("TransformDouble");
  CheckTransform<int8_t>("TransformInt8");
  CheckTransform<uint8_t>("TransformUint8");
  CheckTransform<int16_t>("TransformInt16");
  CheckTransform<int64_t>("TransformInt64");
  CheckTransform<uint64_t>("TransformUint64");
}

TEST_P(ExecutorTest, Reductions) {
  const int n = 5000;
  const std::vector<float> x = Floats(n);
  const double want = std::accumulate(x.begin(), x.end(), 0.0);
  float* const sums = Allocate<float>(7);
  Run("BlockSum", {7}, {256}, Upload(x), sums, n);
  const std::vector<float> parts = Download(sums, 7);
  EXPECT_NEAR(std::accumulate(parts.begin(), parts.end(), 0.0), want, 1e-2);
  float* const total = Allocate<float>(1);
  for (int round = 0; round < 2; ++round) {
    Run("LastBlockSum", {5}, {128}, Upload(x), Allocate<float>(5), total, n);
    EXPECT_NEAR(Download(total, 1)[0], want, 1e-2);
  }
}

TEST_P(ExecutorTest, Softmax) {
  const int rows = 5, columns = 77;
  const std::vector<float> x = Floats(rows * columns);
  float* const y = Allocate<float>(x.size());
  Run("Softmax", {2}, {128}, Upload(x), y, rows, columns);
  const std::vector<float> got = Download(y, x.size());
  for (int r = 0; r < rows; ++r) {
    double sum = 0;
    for (int c = 0; c < columns; ++c) sum += std::exp(x[r * columns + c]);
    for (int c = 0; c < columns; ++c) {
      ASSERT_NEAR(got[r * columns + c], std::exp(x[r * columns + c]) / sum, 1e-6);
    }
  }
}

TEST_P(ExecutorTest, Transpose) {
  const int rows = 50, columns = 70;
  const std::vector<float> x = Floats(rows * columns);
  float* const y = Allocate<float>(x.size());
  Run("Transpose", {3, 2}, {32, 8}, Upload(x), y, rows, columns);
  const std::vector<float> got = Download(y, x.size());
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) ASSERT_EQ(got[c * rows + r], x[r * columns + c]);
  }
}

TEST_P(ExecutorTest, ArgMaxWithDynamicShared) {
  const int rows = 4, columns = 333;
  std::vector<float> x = Floats(rows * columns);
  x[100] = x[200] = 9;
  int64_t* const y = Allocate<int64_t>(rows);
  dynamic_shared_ = 64 * 8;
  Run("ArgMax", {rows}, {64}, Upload(x), y, columns);
  const std::vector<int64_t> got = Download(y, rows);
  for (int r = 0; r < rows; ++r) {
    const auto row = x.begin() + r * columns;
    EXPECT_EQ(got[r], std::max_element(row, row + columns) - row);
  }
  dynamic_shared_ -= 4;
  EXPECT_EQ(Launch("ArgMax", {rows}, {64}, Upload(x), y, columns).kind, Report::kOutOfBounds);
}

TEST_P(ExecutorTest, Gather) {
  const std::vector<float> x = Floats(10 * 7);
  const std::vector<int64_t> indices = {3, 9, -1, 0, 10, 3};
  float* const y = Allocate<float>(6 * 7);
  Run("Gather", {1}, {32}, Upload(x), Upload(indices), y, 10, 7, 6);
  const std::vector<float> got = Download(y, 6 * 7);
  for (int i = 0; i < 6 * 7; ++i) {
    const int64_t row = indices[i / 7];
    ASSERT_EQ(got[i], row >= 0 && row < 10 ? x[row * 7 + i % 7] : 0);
  }
}

struct AdamStep {
  float rate, beta1, beta2, epsilon;
  bool nesterov;
};

TEST_P(ExecutorTest, AdamWithStructParameter) {
  const int n = 100;
  const std::vector<float> v = Floats(n), m = Floats(n), s = Floats(n, 0, 1), g = Floats(n);
  for (bool nesterov : {false, true}) {
    const AdamStep step = {0.1f, 0.9f, 0.99f, 1e-7f, nesterov};
    float* const out = Upload(v);
    Run("Adam", {1}, {128}, step, out, Upload(m), Upload(s), Upload(g), n);
    const std::vector<float> got = Download(out, n);
    for (int i = 0; i < n; ++i) {
      const double mi = 0.9 * m[i] + 0.1 * g[i], si = 0.99 * s[i] + 0.01 * g[i] * g[i];
      const double move = nesterov ? 0.9 * mi + 0.1 * g[i] : mi;
      ExpectNear(got[i], v[i] - 0.1 * move / (std::sqrt(si) + 1e-7), 1e-5, "Adam");
    }
  }
}

TEST_P(ExecutorTest, Philox) {
  struct Bits {
    uint32_t v[4];
  };
  Bits* const out = Allocate<Bits>(40);
  Run("Philox", {2}, {32}, out, 11u, 22u, 40);
  const std::vector<Bits> got = Download(out, 40);
  for (uint32_t i = 0; i < 40; ++i) {
    uint32_t c[4] = {i, 0, 7, 9}, k0 = 11, k1 = 22;
    for (int round = 0; round < 10; ++round) {
      const uint64_t p0 = uint64_t{0xD2511F53u} * c[0], p1 = uint64_t{0xCD9E8D57u} * c[2];
      const uint32_t next[4] = {uint32_t(p1 >> 32) ^ c[1] ^ k0, uint32_t(p1),
                                uint32_t(p0 >> 32) ^ c[3] ^ k1, uint32_t(p0)};
      std::copy(next, next + 4, c);
      k0 += 0x9E3779B9u;
      k1 += 0xBB67AE85u;
    }
    for (int j = 0; j < 4; ++j) ASSERT_EQ(got[i].v[j], c[j]);
  }
}

TEST_P(ExecutorTest, BoxMuller) {
  std::vector<uint32_t> bits(200);
  for (uint32_t& b : bits) b = random_();
  float* const out = Allocate<float>(200);
  Run("BoxMuller", {1}, {128}, Upload(bits), out, 100);
  const std::vector<float> got = Download(out, 200);
  for (int i = 0; i < 100; ++i) {
    const double u = std::max((bits[2 * i] >> 9) * 0x1p-23, 1e-7);
    const double angle = 6.2831853f * ((bits[2 * i + 1] >> 9) * 0x1p-23);
    ExpectNear(got[2 * i], std::sqrt(-2 * std::log(u)) * std::sin(angle), 2e-6, "sin");
    ExpectNear(got[2 * i + 1], std::sqrt(-2 * std::log(u)) * std::cos(angle), 2e-6, "cos");
  }
}

TEST_P(ExecutorTest, ModuleVariables) {
  float* const out = Allocate<float>(32);
  Run("Constants", {1}, {32}, out);
  const std::vector<float> got = Download(out, 32);
  for (int i = 0; i < 32; ++i) ASSERT_EQ(got[i], (1 << i % 8) * 2.5f + 2.5f);
  uint64_t address, bytes;
  std::string error;
  ASSERT_TRUE(module_->FindVariable("scale_factor", &memory_, 0, &address, &bytes, &error));
  EXPECT_EQ(bytes, 4u);
  const float ten = 10;
  ASSERT_TRUE(memory_.Copy(stream_, address, Address(&ten), 4, "to symbol").ok());
  Run("Constants", {1}, {32}, out);
  EXPECT_EQ(Download(out, 32)[1], 30);
  EXPECT_FALSE(module_->FindVariable("nothing", &memory_, 0, &address, &bytes, &error));
  EXPECT_THAT(error, HasSubstr("nothing"));
  EXPECT_EQ(memory_.used(0), 128u);
}

TEST_P(ExecutorTest, Bools) {
  const float nan = std::nanf("");
  const std::vector<float> x = {-5, -3, -1, 0, 1, 2, nan, INFINITY};
  bool* const y = Allocate<bool>(8);
  Run("Bools", {1}, {32}, Upload(x), y, 8);
  std::vector<char> got = Download(reinterpret_cast<char*>(y), 8);
  EXPECT_EQ(got, (std::vector<char>{1, 0, 0, 0, 0, 1, 1, 1}));
  const std::vector<double> a = {1, 2, 3, 4, 5, 6, 7, 8}, b(8, -1.5);
  double* const out = Allocate<double>(8);
  Run("SelectBool", {1}, {8}, y, Upload(a), Upload(b), out, 8);
  EXPECT_EQ(Download(out, 8), (std::vector<double>{1, -1.5, -1.5, -1.5, -1.5, 6, 7, 8}));
}

TEST_P(ExecutorTest, DivergentControlFlow) {
  std::vector<int> x(200);
  for (int i = 0; i < 200; ++i) x[i] = i % 10;
  int* const y = Allocate<int>(200);
  Run("Switch", {2}, {128}, Upload(x), y, 200);
  const std::vector<int> got = Download(y, 200);
  const int want[10] = {1,  1093, 2 ^ 0x55, __builtin_popcount(231), 29 * 3, int(0xa0000000u), 6,
                        -7, 0,    0};
  for (int i = 0; i < 200; ++i) ASSERT_EQ(got[i], want[i % 10]) << i % 10;

  for (int i = 0; i < 200; ++i) x[i] = i + 1;
  Run("Divergent", {2}, {128}, Upload(x), y, 200);
  const std::vector<int> steps = Download(y, 200);
  for (int i = 0; i < 200; ++i) {
    int history[16], v = x[i], count = 0;
    std::iota(history, history + 16, 0);
    while (v != 1) {
      v = v % 2 ? 3 * v + 1 : v / 2;
      history[v & 15] += ++count;
    }
    ASSERT_EQ(steps[i], history[x[i] & 15] + history[count & 15]) << i;
  }
}

TEST_P(ExecutorTest, Integers) {
  std::vector<int64_t> a, b;
  for (int i = 0; i < 100; ++i) {
    const int64_t x = int64_t(uint64_t(random_()) << 32 | random_()),
                  y = int64_t(uint64_t(x) * 6364136223846793005);
    a.push_back(i % 3 == 0 ? x >> (i % 60) : x);
    b.push_back((i % 2 ? y >> (i % 50) : y) | 1);
  }
  int64_t* const out = Allocate<int64_t>(1600);
  Run("Integers", {1}, {128}, Upload(a), Upload(b), out, 100);
  const std::vector<int64_t> got = Download(out, 1600);
  for (int i = 0; i < 100; ++i) {
    const int64_t x = a[i], y = b[i];
    const uint64_t ux = x, uy = y;
    const int32_t p = int32_t(x), q = int32_t(y);
    const int64_t* o = &got[16 * i];
    EXPECT_EQ(o[0], x / y);
    EXPECT_EQ(o[1], x % y);
    EXPECT_EQ(o[2], int64_t(ux / uy));
    EXPECT_EQ(o[3], int64_t(ux % uy));
    EXPECT_EQ(o[4], p / (q | 1));
    EXPECT_EQ(o[5], uint32_t(p) % uint32_t(q | 1));
    EXPECT_EQ(o[6], x >> (y & 63));
    EXPECT_EQ(o[7], int64_t(ux >> (y & 63)));
    EXPECT_EQ(o[8], int64_t(ux << (y & 63)));
    EXPECT_EQ(o[9], int64_t((__int128{x} * y) >> 64));
    EXPECT_EQ(o[10], int32_t((int64_t{p} * q) >> 32));
    EXPECT_EQ(o[11], std::min(x, y) ^ std::max(p, q));
    EXPECT_EQ(o[12], __builtin_popcountll(x) + 100 * (y ? __builtin_clzll(y) : 64) +
                         10000 * __builtin_ffsll(x));
    const int n = q & 31;
    EXPECT_EQ(o[13], int64_t(uint32_t(((uint64_t(uint32_t(q)) << 32 | uint32_t(p)) << n) >> 32)));
    int64_t reversed = 0;
    for (int k = 0; k < 64; ++k) reversed |= int64_t(ux >> k & 1) << (63 - k);
    uint32_t selected = 0;
    const uint64_t both = uint64_t(uint32_t(q)) << 32 | uint32_t(p);
    for (int k = 0; k < 4; ++k)
      selected |= uint32_t(both >> (8 * (0x5140 >> 4 * k & 7)) & 0xff) << 8 * k;
    EXPECT_EQ(o[14], int64_t(uint64_t(reversed) + selected));
    int32_t dot = 5;
    for (int k = 0; k < 4; ++k) dot += int8_t(p >> 8 * k) * int8_t(q >> 8 * k);
    EXPECT_EQ(o[15], std::llabs(x) + std::abs(q) + dot + int8_t(p) * int16_t(q));
  }
}

TEST_P(ExecutorTest, FloatMath) {
  std::vector<float> x = Floats(100), y = Floats(100);
  x[0] = 30000, x[1] = 0, x[2] = -0.0f, x[3] = 1e-42f, x[4] = 88, y[5] = 1e30f, x[6] = 2.5f;
  float* const out = Allocate<float>(2400);
  Run("FloatMath", {1}, {128}, Upload(x), Upload(y), out, 100);
  const std::vector<float> got = Download(out, 2400);
  for (int i = 0; i < 100; ++i) {
    const double a = x[i], b = y[i], m = std::fabs(a);
    const double want[24] = {std::exp(a),
                             std::log(m),
                             std::pow(m, b),
                             std::tanh(a),
                             std::erf(a),
                             std::sin(a),
                             std::cos(b),
                             1 / std::sqrt(m),
                             std::sqrt(std::fabs(b)),
                             a / b,
                             std::log1p(m),
                             std::expm1(a),
                             std::floor(a) + std::ceil(b) * 16,
                             std::nearbyint(a) + std::trunc(b) * 16 + std::round(a) * 256,
                             std::fmod(a, b),
                             std::fmin(a, b) + 2 * std::fmax(a, 0.0),
                             std::atan2(a, b),
                             std::lgamma(m + 1),
                             std::copysign(a, b),
                             a / b,
                             std::exp(a),
                             std::cbrt(a),
                             std::exp2(a),
                             a * b + 1};
    for (int k = 0; k < 24; ++k) {
      const float limit = static_cast<float>(want[k]);
      if (k == 19 && std::fabs(b) > 1e30) continue;
      if (k == 20 && a > 20) continue;  // the fast exponential is coarse there
      ExpectNear(
          got[24 * i + k], limit, k == 20 || k == 2 || k == 17 ? 4e-5 : 1e-6,
          "function " + std::to_string(k) + " of " + std::to_string(a) + ", " + std::to_string(b));
    }
  }
}

TEST_P(ExecutorTest, DoubleMath) {
  std::vector<double> x, y;
  for (float f : Floats(100)) x.push_back(f * 1.0000001);
  for (float f : Floats(100)) y.push_back(f * 1.0000001);
  x[0] = 1e5, x[1] = 0, x[2] = -0.5, x[3] = 700, x[4] = 1e300, y[5] = 1e9;
  double* const out = Allocate<double>(2000);
  Run("DoubleMath", {1}, {128}, Upload(x), Upload(y), out, 100);
  const std::vector<double> got = Download(out, 2000);
  for (int i = 0; i < 100; ++i) {
    const double a = x[i], b = y[i], m = std::fabs(a);
    const double want[20] = {std::exp(a),
                             std::log(m),
                             std::pow(m, b),
                             std::tanh(a),
                             std::erf(a),
                             std::sin(a),
                             std::cos(b),
                             1 / std::sqrt(m),
                             std::sqrt(std::fabs(b)),
                             a / b,
                             std::log1p(m),
                             std::expm1(a),
                             std::floor(a) + std::ceil(b) * 16,
                             std::nearbyint(a) + std::trunc(b) * 16,
                             std::fmod(a, b),
                             std::fmin(a, b) + 2 * std::fmax(a, 0.0),
                             std::atan2(a, b),
                             std::lgamma(m + 1),
                             double(float(a)) + int(std::min(b, 2147483647.0)),
                             std::fma(a, b, 1.0)};
    for (int k = 0; k < 20; ++k) {
      ExpectNear(
          got[20 * i + k], want[k], k == 17 ? 1e-12 : 1e-14,
          "function " + std::to_string(k) + " of " + std::to_string(a) + ", " + std::to_string(b));
    }
  }
}

template <typename T>
double Truncated(double x) {
  if (std::isnan(x)) return 0;
  x = std::trunc(x);
  if (x <= double(std::numeric_limits<T>::min())) return double(std::numeric_limits<T>::min());
  if (x >= double(std::numeric_limits<T>::max())) return double(std::numeric_limits<T>::max());
  return double(T(x));
}

TEST_P(ExecutorTest, Conversions) {
  const std::vector<double> x = {0,   1,    -1,      2.5,  -2.5,     100.99,
                                 127, -128, 30000.7, -3.9, 16777217, 65504};
  const int n = static_cast<int>(x.size());
  double* const out = Allocate<double>(32 * n);
  Run("Convert", {1}, {32}, Upload(x), out, n);
  const std::vector<double> got = Download(out, 32 * n);
  for (int i = 0; i < n; ++i) {
    const double* o = &got[32 * i];
    EXPECT_EQ(o[0], double(int8_t(int(x[i])))) << x[i];
    EXPECT_EQ(o[4], double(uint8_t(int(x[i])))) << x[i];
    EXPECT_EQ(o[8], double(int16_t(int(x[i])))) << x[i];
    EXPECT_EQ(o[12], double(uint16_t(int(x[i])))) << x[i];
    EXPECT_EQ(o[16], Truncated<int32_t>(x[i])) << x[i];
    EXPECT_EQ(o[17], Truncated<int32_t>(float(x[i]))) << x[i];
    EXPECT_EQ(o[19], float(Truncated<int32_t>(x[i]))) << x[i];
    EXPECT_EQ(o[22], Truncated<uint32_t>(x[i])) << x[i];
    EXPECT_EQ(o[25], Truncated<int64_t>(float(x[i]))) << x[i];
    EXPECT_EQ(o[26], Truncated<int64_t>(x[i])) << x[i];
    EXPECT_EQ(o[27], float(Truncated<int64_t>(x[i]))) << x[i];
    EXPECT_EQ(o[30], Truncated<uint64_t>(x[i])) << x[i];
  }
}

// All 65536 values of a 16-bit type to float and back, and the roundings between.
TEST(SmallFloatTest, ConvertsExactly) {
  for (uint32_t bits = 0; bits < 65536; ++bits) {
    const float h = ToFloat(Half{uint16_t(bits)});
    const int exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float sign = bits & 0x8000 ? -1 : 1;
    if (exponent == 31 && fraction) {
      EXPECT_TRUE(std::isnan(h));
      EXPECT_EQ(FromFloat<Half>(h).bits, 0x7fff);
    } else {
      EXPECT_EQ(h, exponent == 31  ? sign * INFINITY
                   : exponent == 0 ? sign * std::ldexp(float(fraction), -24)
                                   : sign * std::ldexp(float(1024 + fraction), exponent - 25));
      EXPECT_EQ(FromFloat<Half>(h).bits, bits);
      EXPECT_EQ(FromDouble<Half>(h).bits, bits);
    }
    const float b = ToFloat(Bfloat{uint16_t(bits)});
    EXPECT_EQ(FromFloat<Bfloat>(b).bits, std::isnan(b) ? 0x7fff : bits);
    if (exponent < 30 && bits < 0x8000) {
      // Halfway goes to the even one, and a little more to the upper.
      const float next = ToFloat(Half{uint16_t(bits + 1)}), middle = (h + next) / 2;
      EXPECT_EQ(FromFloat<Half>(middle).bits, bits + (bits & 1));
      EXPECT_EQ(FromFloat<Half>(std::nextafter(middle, INFINITY)).bits, bits + 1);
      EXPECT_EQ(FromDouble<Half>(std::nextafter(double{middle}, double{INFINITY})).bits, bits + 1);
      EXPECT_EQ(FromDouble<Half>(std::nextafter(double{middle}, 0.0)).bits, bits);
    }
  }
  EXPECT_EQ(FromFloat<Half>(65520).bits, 0x7c00);
  EXPECT_EQ(FromFloat<Half>(65519.99f).bits, 0x7bff);
  EXPECT_EQ(FromFloat<Bfloat>(1.00390625f).bits, 0x3f80);
}

template <typename T>
void CheckSmallFloats(const std::vector<T>& x, const std::vector<T>& y, const std::vector<T>& got,
                      const std::vector<float>& wide, double unit) {
  for (size_t i = 0; i < x.size(); ++i) {
    const double a = ToFloat(x[i]), b = ToFloat(y[i]);
    const double want[16] = {a + b,
                             a - b,
                             a * b,
                             a / b,
                             a * b + a,
                             -a,
                             std::fmax(a, b),
                             std::fmin(a, b),
                             std::exp(a),
                             std::log(std::fabs(b)),
                             std::sqrt(std::fabs(a)),
                             a < b ? a : 1.5,
                             a * 3,
                             double(i),
                             std::tanh(a),
                             std::fabs(a) == b || std::isnan(b) ? 1.0 : 0.0};
    for (int k = 0; k < 16; ++k) {
      // The elementary functions may be off by a unit in the last place or two.
      const double tolerance = (k >= 8 && k <= 10) || k == 3 || k == 14 ? 4 * unit : unit;
      ExpectNear(
          ToFloat(got[16 * i + k]), want[k], tolerance,
          "operation " + std::to_string(k) + " of " + std::to_string(a) + ", " + std::to_string(b));
    }
    EXPECT_EQ(wide[i], float(a) + float(b));
  }
}

TEST_P(ExecutorTest, HalfAndBfloat16) {
  std::vector<Half> hx, hy;
  std::vector<Bfloat> bx, by;
  for (float f : Floats(64)) hx.push_back(FromFloat<Half>(f)), bx.push_back(FromFloat<Bfloat>(f));
  for (float f : Floats(64)) hy.push_back(FromFloat<Half>(f)), by.push_back(FromFloat<Bfloat>(f));
  hx[3] = hy[3], bx[3] = by[3];
  Half* const halfs = Allocate<Half>(64 * 16);
  Bfloat* const bfloats = Allocate<Bfloat>(64 * 16);
  float* const wide = Allocate<float>(64);
  Run("Halfs", {2}, {32}, Upload(hx), Upload(hy), halfs, wide);
  CheckSmallFloats(hx, hy, Download(halfs, 64 * 16), Download(wide, 64), 0x1p-11);
  Run("Bfloats", {2}, {32}, Upload(bx), Upload(by), bfloats, wide);
  CheckSmallFloats(bx, by, Download(bfloats, 64 * 16), Download(wide, 64), 0x1p-8);

  const auto pairs = [](const auto& x, const auto& y, const auto& got, double unit) {
    for (int i = 0; i < 64; ++i) {
      const double a = ToFloat(x[i]), b = ToFloat(y[i]);
      ExpectNear(ToFloat(got[i]), a * b + a + 2 * b, 4 * unit, "pair");
    }
  };
  Run("Half2s", {1}, {32}, Upload(hx), Upload(hy), halfs);
  pairs(hx, hy, Download(halfs, 64), 0x1p-11);
  const std::vector<Half> compared = Download(halfs + 64, 64);
  for (int i = 0; i < 64; ++i) {
    const double a = ToFloat(hx[i]), b = ToFloat(hy[i]);
    ExpectNear(ToFloat(compared[i]), (a < b) + std::exp(a), 0x1p-9, "pair");
  }
  if (module_->HasKernel("Bfloat2s")) {
    Run("Bfloat2s", {1}, {32}, Upload(bx), Upload(by), bfloats);
    pairs(bx, by, Download(bfloats, 64), 0x1p-8);
  }
}

TEST_P(ExecutorTest, Atomics) {
  const int n = 100;
  std::vector<int> x(n);
  for (int& v : x) v = int(random_() % 1000) - 500;
  int* const ints = Upload(std::vector<int>{0, -9999, 9999, 0, -1, 0, 0, 0, 1});
  auto* const longs = Upload(std::vector<uint64_t>(4));
  float* const floats = Upload(std::vector<float>(1));
  double* const doubles = Upload(std::vector<double>(1));
  Half* const halfs = Upload(std::vector<Half>(2));
  Bfloat* const bfloats = Upload(std::vector<Bfloat>(2));
  Run("Atomics", {2}, {64}, Upload(x), ints, longs, floats, doubles, halfs, bfloats, n);
  int want[9] = {0, -9999, 9999, 0, -1, 0, 0, 0, 1};
  uint64_t most = 0, total = 0;
  for (int v : x) {
    want[0] += v;
    want[1] = std::max(want[1], v);
    want[2] = std::min(want[2], v);
    want[3] |= v;
    want[4] &= v;
    want[5] ^= v;
    want[6] = want[6] >= 10 ? 0 : want[6] + 1;
    want[7] -= v;
    want[8] = int(uint32_t(want[8]) * uint32_t(v | 1));
    most = std::max(most, uint64_t(int64_t{v}));
    total += uint64_t(int64_t{v}) << 20;
  }
  EXPECT_EQ(Download(ints, 9), std::vector<int>(want, want + 9));
  EXPECT_EQ(Download(longs, 4), (std::vector<uint64_t>{total, most, 1, 1}));
  EXPECT_EQ(Download(floats, 1)[0], float(want[0]));
  EXPECT_EQ(Download(doubles, 1)[0], want[0]);
  EXPECT_EQ(ToFloat(Download(halfs, 2)[1]), 100);
  EXPECT_EQ(ToFloat(Download(bfloats, 2)[1]), 100);

  std::vector<uint8_t> bytes(1000);
  std::vector<int> bins(16);
  for (uint8_t& b : bytes) bins[(b = random_()) & 15]++;
  int* const counts = Upload(std::vector<int>(16));
  Run("SharedHistogram", {1}, {128}, Upload(bytes), counts, 1000);
  EXPECT_EQ(Download(counts, 16), bins);
}

TEST_P(ExecutorTest, WarpInstructions) {
  std::vector<int> x(64);
  for (int i = 0; i < 64; ++i) x[i] = i * 7 % 13;
  uint32_t* const out = Allocate<uint32_t>(64 * 12);
  Run("Warps", {1}, {64}, Upload(x), out);
  const std::vector<uint32_t> got = Download(out, 64 * 12);
  for (int i = 0; i < 64; ++i) {
    const uint32_t* o = &got[12 * i];
    const int lane = i % 32, first = i - lane;
    uint32_t ballot = 0, same = 0;
    bool any = false;
    int count = 0;
    for (int j = 0; j < 32; ++j) {
      ballot |= uint32_t{x[first + j] > 5} << j;
      same |= uint32_t{x[first + j] % 4 == x[i] % 4} << j;
      any |= x[first + j] == 7;
    }
    for (int v : x) count += v > 5;
    EXPECT_EQ(o[0], ballot);
    EXPECT_EQ(o[1], any + 2u);
    EXPECT_EQ(o[2], uint32_t(x[i / 8 * 8 + 3]));
    EXPECT_EQ(o[3], uint32_t(lane < 2 ? x[i] : x[i - 2]));
    EXPECT_EQ(o[4], uint32_t(i % 16 + 5 < 16 ? x[i + 5] : x[i]));
    EXPECT_EQ(o[5], uint32_t(x[first + (lane ^ 9)]));
    EXPECT_EQ(o[6], same);
    EXPECT_EQ(o[7], ~0u + 1);
    EXPECT_EQ(o[8], uint32_t(count));
    EXPECT_EQ(o[9], 3u);
    EXPECT_EQ(o[10], lane < 16 ? x[i ^ 1] + 0xffffu : x[i ^ 2]);
    EXPECT_EQ(o[11], uint32_t(lane == 31 ? x[i] : x[i + 1]));
  }
  if (!module_->HasKernel("Reductions")) return;
  Run("Reductions", {1}, {32}, Upload(x), out);
  const std::vector<uint32_t> r = Download(out, 4);
  EXPECT_EQ(r[0], uint32_t(std::accumulate(x.begin(), x.begin() + 32, 0)));
  EXPECT_EQ(r[1], 12u);
  EXPECT_EQ(r[2], 0u);
  EXPECT_EQ(r[3], 15u);
}

TEST_P(ExecutorTest, Printf) {
  testing::internal::CaptureStdout();
  Run("Prints", {1}, {32}, 42, 1.5f);
  EXPECT_EQ(testing::internal::GetCapturedStdout(), "n=42 f=1.50 text 1099511627776%\n");
}

TEST_P(ExecutorTest, CallsOfFunctions) {
  const std::vector<float> x = Floats(64, 1, 2);
  float* const y = Allocate<float>(64);
  Run("Calls", {1}, {64}, Upload(x), y);
  const std::vector<float> got = Download(y, 64);
  const auto series = [](float x, int n) {
    float sum = 0;
    for (int i = 1; i <= n; ++i) {
      if (i % 7 == 6) return sum;
      sum += x / i;
    }
    return -sum;
  };
  for (int i = 0; i < 64; ++i) {
    float v = series(x[i], i % 9);
    if (i % 3 == 0) v += series(v, i % 4);
    ExpectNear(got[i], v, 1e-6, "thread " + std::to_string(i));
  }
}

struct Large {
  int numbers[40];
  short small;
  double big;
};

TEST_P(ExecutorTest, LargeParameter) {
  Large large = {};
  std::iota(large.numbers, large.numbers + 40, 100);
  large.small = -5;
  large.big = 0.25;
  double* const y = Allocate<double>(32);
  Run("LargeParameter", {1}, {32}, large, y, 3);
  const std::vector<double> got = Download(y, 32);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(got[i], 103 + i - 5 + 0.25);
}

TEST_P(ExecutorTest, GroupsAndNamedBarriers) {
  std::vector<int> x(128);
  for (int& v : x) v = int(random_() % 1000);
  int* const y = Upload(std::vector<int>(128));
  Run("Groups", {1}, {128}, Upload(x), y, 70);
  std::vector<int> got = Download(y, 128);
  for (int i = 0; i < 128; ++i) {
    const auto tile = x.begin() + i % 16 * 8;
    const int lanes = i < 64 ? 32 : 6;
    EXPECT_EQ(got[i], i < 70 ? std::accumulate(tile, tile + 8, 0) + lanes * 1000 : 0) << i;
  }
  Run("NamedBarriers", {1}, {128}, Upload(x), y);
  got = Download(y, 64);
  for (int i = 0; i < 64; ++i) EXPECT_EQ(got[i], x[63 - i] * 2);
}

// -- planted mistakes: each is reported with kernel, line and thread --

TEST_P(ExecutorTest, ReportsOffByOne) {
  const Report report = Launch("OffByOne", {2}, {64}, Allocate<float>(100), 100);
  EXPECT_EQ(report.kind, Report::kOutOfBounds);
  for (const char* part : {"kernel OffByOne, line ", "st.global", "block (1,0,0), thread (36,0,0)",
                           "writes 4 bytes", "at the end of allocation 1 (400 bytes"}) {
    EXPECT_THAT(report.text, HasSubstr(part));
  }
}

TEST_P(ExecutorTest, ReportsUninitialisedReads) {
  float* const x = Allocate<float>(64);
  ASSERT_TRUE(memory_.Fill(stream_, Address(x), 0, 63 * 4, "fill").ok());
  const Report report = Launch("Saxpy", {1}, {64}, 1.0f, x, Upload(std::vector<float>(64)), 64);
  EXPECT_EQ(report.kind, Report::kUninitialised);
  EXPECT_THAT(report.text, HasSubstr("kernel Saxpy, line "));
  EXPECT_THAT(report.text, HasSubstr("thread (63,0,0)"));
  // Copies between devices carry the state along, and copies to the host don't.
  float* const copy = Allocate<float>(64);
  EXPECT_TRUE(memory_.Copy(stream_, Address(copy), Address(x), 256, "copy").ok());
  EXPECT_TRUE(memory_.Copy(stream_, Address(copy), Address(x), 252, "copy").ok());
  std::vector<float> host(64);
  EXPECT_TRUE(memory_.Copy(stream_, Address(host.data()), Address(copy), 252, "copy").ok());
  EXPECT_EQ(memory_.Copy(stream_, Address(host.data()), Address(copy), 256, "copy").kind,
            Report::kUninitialised);

  const Report shared = Launch("SharedUninitialised", {1}, {64}, Upload(std::vector<float>(64)));
  EXPECT_EQ(shared.kind, Report::kUninitialised);
  EXPECT_THAT(shared.text, HasSubstr("thread (5,0,0)"));
  EXPECT_THAT(shared.text, HasSubstr("shared memory"));
}

TEST_P(ExecutorTest, ReportsUseAfterFree) {
  float* const x = Upload(std::vector<float>(64));
  float* const y = Upload(std::vector<float>(64));
  ASSERT_TRUE(memory_.Free(Address(x)));
  EXPECT_FALSE(memory_.Free(Address(x)));
  const Report report = Launch("Saxpy", {1}, {64}, 1.0f, x, y, 64);
  EXPECT_EQ(report.kind, Report::kUseAfterFree);
  EXPECT_THAT(report.text, HasSubstr("allocation 1 (256 bytes"));
  EXPECT_THAT(report.text, HasSubstr("freed"));
}

TEST_P(ExecutorTest, ReportsSharedMemoryMistakes) {
  const Report bounds = Launch("SharedOffByOne", {1}, {64}, Upload(std::vector<float>(64)));
  EXPECT_EQ(bounds.kind, Report::kOutOfBounds);
  EXPECT_THAT(bounds.text, HasSubstr("offset 256 of the block's 256 bytes of shared memory"));
  // Without a barrier another warp's value may not be there yet, or a former one.
  const Report early = Launch("MissingBarrier", {1}, {64}, Upload(std::vector<float>(64)));
  EXPECT_EQ(early.kind, Report::kUninitialised);
  const Report race = Launch("SharedRace", {1}, {64}, Upload(std::vector<float>(64)));
  EXPECT_EQ(race.kind, Report::kRace);
  EXPECT_THAT(race.text, HasSubstr("since the last __syncthreads"));
}

TEST_P(ExecutorTest, ReportsDivergentBarrier) {
  const Report report = Launch("DivergentBarrier", {1}, {64}, Upload(std::vector<float>(64)));
  EXPECT_EQ(report.kind, Report::kBarrier);
  EXPECT_THAT(report.text, HasSubstr("bar.sync"));
  const Report lone = Launch("LoneShuffle", {1}, {32}, Upload(std::vector<int>(32)));
  EXPECT_EQ(lone.kind, Report::kBarrier);
}

TEST_P(ExecutorTest, ReportsEndlessLoops) {
  budget_ = 10'000'000;
  const Report report = Launch("Endless", {1}, {64}, Upload(std::vector<int>(1)));
  EXPECT_EQ(report.kind, Report::kBudget);
  EXPECT_THAT(report.text, HasSubstr("kernel Endless, line "));
}

TEST_P(ExecutorTest, ReportsMisalignedAccess) {
  const Report report = Launch("Misaligned", {1}, {1}, Upload(std::vector<char>(64)));
  EXPECT_EQ(report.kind, Report::kMisaligned);
}

TEST_P(ExecutorTest, ReportsAssertions) {
  Run("Asserts", {1}, {1}, 4);
  const Report report = Launch("Asserts", {1}, {1}, 5);
  EXPECT_EQ(report.kind, Report::kAssert);
  EXPECT_THAT(report.text, HasSubstr("`n < 5` at "));
  EXPECT_THAT(report.text, HasSubstr("test_kernels.cu"));
}

TEST_P(ExecutorTest, ReportsRacesBetweenStreams) {
  float* const x = Upload(std::vector<float>(64));
  float* const y = Upload(std::vector<float>(64));
  Actor other(2, "stream 2");
  memory_.SetActor(2, &other);
  // A missing wait for an event.
  other.Begin("copy to the host");
  std::vector<float> host(64);
  Report report = memory_.Copy(other, Address(host.data()), Address(y), 256, "the copy");
  EXPECT_EQ(report.kind, Report::kRace);
  EXPECT_THAT(report.text, HasSubstr("stream 1 wrote"));
  // With the wait; then the kernel writes what the copy reads.
  other.Acquire(stream_.clock());
  other.Begin("copy to the host");
  EXPECT_TRUE(memory_.Copy(other, Address(host.data()), Address(y), 256, "the copy").ok());
  report = Launch("Saxpy", {1}, {64}, 1.0f, x, y, 64);
  EXPECT_EQ(report.kind, Report::kRace);
  EXPECT_THAT(report.text, HasSubstr("stream 2 read in copy to the host"));
  EXPECT_THAT(report.text, HasSubstr("before this on stream 1"));
  stream_.Acquire(other.clock());
  Run("Saxpy", {1}, {64}, 1.0f, x, y, 64);
}

TEST_P(ExecutorTest, ReportsLaunchesThatNoGpuTakes) {
  float* const x = Allocate<float>(1);
  EXPECT_EQ(Launch("OffByOne", {1}, {1025}, x, 0).kind, Report::kLaunch);
  EXPECT_EQ(Launch("OffByOne", {1, 65536}, {1}, x, 0).kind, Report::kLaunch);
  EXPECT_EQ(Launch("BlockSum", {1}, {512}, x, x, 0).kind, Report::kLaunch);
  dynamic_shared_ = 1 << 20;
  EXPECT_EQ(Launch("OffByOne", {1}, {1}, x, 0).kind, Report::kLaunch);
}

INSTANTIATE_TEST_SUITE_P(Architectures, ExecutorTest, testing::Values("75", "90", "120"),
                         [](const auto& info) { return std::string("sm_") + info.param; });

// -- PTX that is not known --

Report RunText(const std::string& body) {
  std::string error;
  const auto module = Module::Parse(
      ".version 8.8\n.target sm_90\n.address_size 64\n.visible .entry K()\n{\n"
      ".reg .b16 %rs<3>;\n.reg .b32 %r<5>;\n.reg .b64 %rd<5>;\n.reg .pred %p<3>;\n" +
          body + "\nret;\n}\n",
      &error);
  if (!module) return {Report::kUnsupported, error};
  Launch launch;
  launch.module = module.get();
  launch.kernel = module->FindKernel("K", &error);
  if (!launch.kernel) return {Report::kUnsupported, error};
  launch.block = {32};
  Memory memory({});
  Counts counts;
  return Execute(&memory, Actor(1, "stream 1"), launch, &counts);
}

TEST(DecoderTest, NamesWhatItDoesNotKnow) {
  EXPECT_TRUE(RunText("add.s32 %r1, %r2, 5;").ok());
  for (const char* line :
       {"wgmma.fence.sync.aligned;", "add.s32 %r1, %r2, %nothing;", "bra NOWHERE;",
        "cvt.rz.e4m3.f32 %r1, %r2;", "mov.u64 %rd1, %clock64;", "ld.global.b128 %rd1, [%rd2];"}) {
    const Report report = RunText(line);
    EXPECT_EQ(report.kind, Report::kUnsupported) << line;
    EXPECT_THAT(report.text, HasSubstr("kernel K, line "));
  }
  EXPECT_THAT(RunText("frobnicate.s32 %r1, %r2;").text, HasSubstr("\"frobnicate.s32\""));
  std::string error;
  EXPECT_FALSE(Module::Parse("nonsense", &error));
  EXPECT_THAT(error, HasSubstr("nonsense"));
}

// Each line checks itself: it traps where the result differs.
TEST(ExecutorTextTest, RareInstructions) {
  const auto check = [](const std::string& code, const std::string& type, const std::string& want) {
    const bool wide = type.find("64") != std::string::npos;
    const std::string d = wide ? "%rd1" : "%r1";
    const Report report = RunText(code + "\nsetp.ne." + (wide ? "b64 " : "b32 ") + "%p1, " + d +
                                  ", " + want + ";\n@%p1 trap;");
    EXPECT_TRUE(report.ok()) << code << "\n" << report.text;
  };
  check("lop3.b32 %r1, 0xf0f0, 0xcccc, 0xaaaa, 0x96;", "b32", "0x9696");
  check("bfe.s32 %r1, 0xf0, 4, 4;", "b32", "-1");
  check("bfe.u32 %r1, 0xf0, 4, 8;", "b32", "15");
  check("bfe.s32 %r1, 0x80000000, 28, 8;", "b32", "-8");
  check("bfi.b32 %r1, 0xff, 0, 8, 4;", "b32", "0xf00");
  check("sad.s32 %r1, -5, 7, 100;", "b32", "112");
  check("shf.r.wrap.b32 %r1, 0x11223344, 0x55667788, 8;", "b32", "0x88112233");
  check("bfind.s32 %r1, -8;", "b32", "2");
  check("add.sat.s32 %r1, 0x7fffffff, 5;", "b32", "0x7fffffff");
  check("cvt.sat.u8.s32 %r1, 300;", "b32", "255");
  check("cvt.sat.s8.s32 %r1, -300;", "b32", "-128");
  check("add.cc.u32 %r2, 0xffffffff, 1;\naddc.u32 %r1, 5, 0;", "b32", "6");
  check("sub.cc.u32 %r2, 0, 1;\nsubc.u32 %r1, 5, 0;", "b32", "4");
  check("mad.hi.u32 %r1, 0x80000000, 6, 1;", "b32", "4");
  check("mul.hi.s64 %rd1, -1, 1;", "b64", "-1");
  check("add.rm.f32 %r1, 0f3F800000, 0fA0000000;", "b32", "0f3F7FFFFF");
  check("add.rz.ftz.f32 %r1, 0f00000001, 0f00000001;", "b32", "0");
  check("fma.rn.sat.f32 %r1, 0f40000000, 0f40000000, 0f3F800000;", "b32", "0f3F800000");
  check("min.f32 %r1, 0f80000000, 0f00000000;", "b32", "0f80000000");
  check("max.f32 %r1, 0f7FC00000, 0f3F800000;", "b32", "0f3F800000");
  check("cvt.rni.s32.f32 %r1, 0f40200000;", "b32", "2");
  check("cvt.rpi.s32.f32 %r1, 0f40200000;", "b32", "3");
  check("cvt.rzi.u32.f32 %r1, 0fC0200000;", "b32", "0");
  check("cvt.rzi.s32.f32 %r1, 0f7FC00000;", "b32", "0");
  check("cvt.rz.f32.s32 %r1, 16777217;", "b32", "0f4B800000");
  check("cvt.rp.f32.s32 %r1, 16777217;", "b32", "0f4B800001");
  check("cvt.rn.f16x2.f32 %r1, 0f3F800000, 0f40000000;", "b32", "0x3c004000");
  check("cvt.rp.f16.f32 %rs1, 0f3F801000;\ncvt.u32.u16 %r1, %rs1;", "b32", "0x3c01");
  check("cvt.rm.f16.f32 %rs1, 0fBF801000;\ncvt.u32.u16 %r1, %rs1;", "b32", "0xbc01");
  check("cvt.rz.f16.f32 %rs1, 0f7149F2CA;\ncvt.u32.u16 %r1, %rs1;", "b32", "0x7bff");
  check("cvt.rm.f16.f32 %rs1, 0f80000001;\ncvt.u32.u16 %r1, %rs1;", "b32", "0x8001");
  check("cvt.rp.bf16.f32 %rs1, 0f00000001;\ncvt.u32.u16 %r1, %rs1;", "b32", "1");
  check("cvt.rz.f16.s32 %rs1, 4099;\ncvt.u32.u16 %r1, %rs1;", "b32", "0x6c00");
  check("set.lt.u32.s32 %r1, -1, 1;", "b32", "-1");
  check("slct.s32.s32 %r1, 7, 8, -1;", "b32", "8");
  check("mov.b64 %rd1, {1, 2};", "b64", "0x200000001");
  check("mov.b64 {_, %r1}, 0x300000002;", "b32", "3");
  check("cvt.u64.u8 %rd1, 0x1ff;", "b64", "0xff");
  check("cvt.s64.s8 %rd1, 0x80;", "b64", "-128");
  check("mov.u32 %r1, %laneid;\nsub.u32 %r1, %r1, %tid.x;", "b32", "0");
  check("mov.u32 %r1, 7;\nsetp.eq.u32 %p2, %r1, 7;\n@!%p2 mov.u32 %r1, 9;", "b32", "7");
  // Two branch tables' entries meet again.
  check(
      "mov.u32 %r2, %tid.x;\nand.b32 %r2, %r2, 1;\nT: .branchtargets A, B;\n"
      "brx.idx %r2, T;\nA: mov.u32 %r1, 1;\nbra.uni C;\nB: mov.u32 %r1, 0;\n"
      "C: xor.b32 %r1, %r1, %r2;",
      "b32", "1");
}

}  // namespace
}  // namespace softgpu
