// FusedBatchNorm, V2 and V3, and their gradients, on a GPU; batch_norm.cc has the formulas. x is
// [outer, channels, inner]. Sums over a channel: each is cut into chunks by sizes alone; blocks sum
// chunks in a fixed order, and another kernel adds those and finishes the channel's numbers.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "kernels/gpu.cuh"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_window.cuh"

namespace ferry {
namespace gpu {
namespace {

constexpr int kColumns = 32, kRows = kThreads / kColumns;
constexpr int64_t kChunk = 2048;  // Elements of a channel at least, if there are several chunks.
constexpr int64_t kMostChunks = 256;

// What is summed of each element: two numbers.
enum class Terms {
  kValues,   // x, 0
  kSquares,  // (x - mean)^2, x - mean
  kGradient  // dy, dy * (x - mean)
};

template <typename T, Terms kTerms>
__device__ void AddTerms(const T* x, const T* dy, float mean, int64_t i, float* a, float* b) {
  const float v = Widen(x[i]);
  if constexpr (kTerms == Terms::kValues) {
    *a += v;
  } else if constexpr (kTerms == Terms::kSquares) {
    *a += (v - mean) * (v - mean);
    *b += v - mean;
  } else {
    const float g = Widen(dy[i]);
    *a += g;
    *b += g * (v - mean);
  }
}

// `sums` is [chunks, 2, channels]. inner is 1: a block has kColumns channels side by side.
template <typename T, Terms kTerms>
__global__ void __launch_bounds__(kThreads)
    SumColumns(const T* x, const T* dy, const float* mean, float* sums, int64_t rows,
               int64_t channels, int64_t chunk) {
  __shared__ float partial[2][kRows][kColumns];
  const int tx = threadIdx.x % kColumns, ty = threadIdx.x / kColumns;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + tx;
  const int64_t begin = blockIdx.y * chunk;
  const int64_t end = begin + chunk < rows ? begin + chunk : rows;
  float a = 0, b = 0;
  if (column < channels) {
    const float m = kTerms == Terms::kValues ? 0.0f : mean[column];
    for (int64_t r = begin + ty; r < end; r += kRows) {
      AddTerms<T, kTerms>(x, dy, m, r * channels + column, &a, &b);
    }
  }
  partial[0][ty][tx] = a;
  partial[1][ty][tx] = b;
  __syncthreads();
  if (ty == 0 && column < channels) {
    for (int r = 1; r < kRows; ++r) {
      a += partial[0][r][tx];
      b += partial[1][r][tx];
    }
    sums[blockIdx.y * 2 * channels + column] = a;
    sums[(blockIdx.y * 2 + 1) * channels + column] = b;
  }
}

// A block has one channel, whose elements lie in runs of `inner`.
template <typename T, Terms kTerms>
__global__ void __launch_bounds__(kThreads)
    SumPlanes(const T* x, const T* dy, const float* mean, float* sums, int64_t n, int64_t channels,
              int64_t inner, int64_t chunk) {
  __shared__ float partial[2][kThreads];
  const int64_t channel = blockIdx.x;
  const int64_t begin = blockIdx.y * chunk;
  const int64_t end = begin + chunk < n ? begin + chunk : n;
  const float m = kTerms == Terms::kValues ? 0.0f : mean[channel];
  float a = 0, b = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int64_t run = Divide(i, inner);
    AddTerms<T, kTerms>(x, dy, m, (run * channels + channel) * inner + (i - run * inner), &a, &b);
  }
  partial[0][threadIdx.x] = a;
  partial[1][threadIdx.x] = b;
  for (int half_size = kThreads / 2; half_size > 0; half_size /= 2) {
    __syncthreads();
    if (threadIdx.x < half_size) {
      for (int k = 0; k < 2; ++k) {
        partial[k][threadIdx.x] += partial[k][threadIdx.x + half_size];
      }
    }
  }
  if (threadIdx.x == 0) {
    sums[blockIdx.y * 2 * channels + channel] = partial[0][0];
    sums[(blockIdx.y * 2 + 1) * channels + channel] = partial[1][0];
  }
}

struct Totals {
  double a = 0, b = 0;
  __device__ Totals(const float* sums, int64_t chunks, int64_t channels, int64_t k) {
    for (int64_t i = 0; i < chunks; ++i) {
      a += sums[i * 2 * channels + k];
      b += sums[(i * 2 + 1) * channels + k];
    }
  }
};

__global__ void __launch_bounds__(kThreads)
    FinishMean(const float* sums, int64_t chunks, int64_t channels, double count, float* mean) {
  for (int64_t k = First(); k < channels; k += Step()) {
    mean[k] = static_cast<float>(Totals(sums, chunks, channels, k).a / count);
  }
}

// Outputs 1 to 4 of the forward op, and y = (x - mean) * factor + shift.
struct Statistics {
  float *batch_mean, *batch_variance, *mean, *variance, *factor, *shift;
};

__global__ void __launch_bounds__(kThreads)
    FinishVariance(const float* sums, int64_t chunks, int64_t channels, double count,
                   const float* mean, const float* scale, const float* offset,
                   const float* old_mean, const float* old_variance, double f, float epsilon,
                   Statistics out) {
  for (int64_t k = First(); k < channels; k += Step()) {
    const Totals t(sums, chunks, channels, k);
    // What rounding the mean left out of it is taken out of the squares, and out of y.
    const double rest = t.b / count;
    double variance = t.a / count - rest * rest;
    if (variance < 0) variance = 0;
    const double unbiased = variance * count / (count > 1 ? count - 1 : 1.0);
    const double m = mean[k];
    out.batch_mean[k] = static_cast<float>(f == 1 ? m : (1 - f) * old_mean[k] + f * m);
    out.batch_variance[k] =
        static_cast<float>(f == 1 ? unbiased : (1 - f) * old_variance[k] + f * unbiased);
    out.mean[k] = mean[k];
    out.variance[k] = static_cast<float>(variance);
    out.factor[k] = scale[k] / sqrtf(static_cast<float>(variance) + epsilon);
    out.shift[k] = offset[k] - static_cast<float>(rest) * out.factor[k];
  }
}

// In inference.
__global__ void __launch_bounds__(kThreads)
    PassStatistics(const float* scale, const float* offset, const float* mean,
                   const float* variance, int64_t channels, float epsilon, Statistics out) {
  for (int64_t k = First(); k < channels; k += Step()) {
    out.batch_mean[k] = mean[k];
    out.batch_variance[k] = variance[k];
    out.mean[k] = 0;
    out.variance[k] = 0;
    out.factor[k] = scale[k] / sqrtf(variance[k] + epsilon);
    out.shift[k] = offset[k];
  }
}

// Without any element: no mean.
__global__ void __launch_bounds__(kThreads) NoStatistics(int64_t channels, Statistics out) {
  for (int64_t k = First(); k < channels; k += Step()) {
    out.batch_mean[k] = out.batch_variance[k] = nanf("");
    out.mean[k] = out.variance[k] = 0;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    Normalize(const T* x, const float* mean, const float* factor, const float* shift, T* y,
              int64_t n, int64_t channels, int64_t inner) {
  for (int64_t i = First(); i < n; i += Step()) {
    const int64_t plane = Divide(i, inner), k = plane - Divide(plane, channels) * channels;
    y[i] = Narrow<T>((Widen(x[i]) - mean[k]) * factor[k] + shift[k]);
  }
}

// The gradient's outputs a channel, and the numbers for dx.
struct ChannelGradients {
  float *dscale, *doffset, *factor, *shift, *slope;
};

__global__ void __launch_bounds__(kThreads)
    FinishGradient(const float* sums, int64_t chunks, int64_t channels, double count,
                   const float* scale, const float* variance, float epsilon, bool is_training,
                   ChannelGradients out) {
  for (int64_t k = First(); k < channels; k += Step()) {
    const Totals t(sums, chunks, channels, k);
    const double r = 1 / sqrt(static_cast<double>(variance[k] + epsilon));
    out.doffset[k] = static_cast<float>(t.a);
    out.dscale[k] = static_cast<float>(r * t.b);
    out.factor[k] = static_cast<float>(scale[k] * r);
    out.shift[k] = is_training ? static_cast<float>(t.a / count) : 0.0f;
    out.slope[k] = is_training ? static_cast<float>(r * r * t.b / count) : 0.0f;
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    NormalizeBack(const T* dy, const T* x, const float* mean, ChannelGradients g, T* dx, int64_t n,
                  int64_t channels, int64_t inner) {
  for (int64_t i = First(); i < n; i += Step()) {
    const int64_t plane = Divide(i, inner), k = plane - Divide(plane, channels) * channels;
    const float d = Widen(x[i]) - mean[k];
    dx[i] = Narrow<T>(g.factor[k] * (Widen(dy[i]) - g.shift[k] - d * g.slope[k]));
  }
}

// How a channel's elements are cut.
struct Chunks {
  explicit Chunks(const NormSizes& s) : n(s.outer * s.inner) {
    count = std::max<int64_t>(1, std::min(kMostChunks, (n + kChunk - 1) / kChunk));
    size = (n + count - 1) / count;
  }
  int64_t n, count, size;
};

template <Terms kTerms, typename T>
bool SumChannels(Call* c, const NormSizes& s, const T* x, const T* dy, const float* mean,
                 float* sums) {
  const Chunks chunks(s);
  const bool columns = s.inner == 1;
  const int64_t wide = columns ? (s.channels + kColumns - 1) / kColumns : s.channels;
  const dim3 blocks(static_cast<unsigned>(wide), static_cast<unsigned>(chunks.count));
  if (columns) {
    SumColumns<T, kTerms>
        <<<blocks, kThreads, 0, Stream(c)>>>(x, dy, mean, sums, chunks.n, s.channels, chunks.size);
  } else {
    SumPlanes<T, kTerms><<<blocks, kThreads, 0, Stream(c)>>>(x, dy, mean, sums, chunks.n,
                                                             s.channels, s.inner, chunks.size);
  }
  return c->Launched("SumChannels");
}

class NormKernel : public Kernel {
 protected:
  bool Init(Setup* setup) override {
    setup->Attr("exponential_avg_factor", &factor_);
    return (setup->Attr("data_format", &format_) && setup->Attr("epsilon", &epsilon_) &&
            setup->Attr("is_training", &is_training_)) ||
           setup->Fail(Error::kInvalidArgument, "attributes of a normalization are missing");
  }
  std::string format_;
  float epsilon_ = 0, factor_ = 1;
  bool is_training_ = true;
};

template <typename T>
class BatchNorm : public NormKernel {
  bool Run(Call* c) const override {
    NormSizes s;
    if (!CheckBatchNorm(c, false, format_, is_training_, factor_, &s)) return false;
    T* const y = static_cast<T*>(c->OutputLike(0, 0));
    if (!y) return false;
    float* out[4];
    for (int i = 0; i < 4; ++i) {
      out[i] = static_cast<float*>(c->Output(i + 1, &s.channels, 1));
      if (!out[i]) return false;
    }
    if (c->num_outputs() > 5) {
      void* const nothing = c->Output(5, nullptr, 0);
      if (!nothing || !c->Fill(nothing, 0, sizeof(float))) return false;
    }
    if (s.channels == 0) return true;
    const Chunks chunks(s);
    const unsigned channel_blocks = Blocks(c, s.channels);
    float* const mean = static_cast<float*>(
        c->Scratch((3 + 2 * chunks.count) * s.channels * static_cast<int64_t>(sizeof(float))));
    if (!mean) return false;
    float* const factor = mean + s.channels;
    float* const shift = factor + s.channels;
    float* const sums = shift + s.channels;
    const Statistics statistics = {out[0], out[1], out[2], out[3], factor, shift};
    if (chunks.n == 0) {
      NoStatistics<<<channel_blocks, kThreads, 0, Stream(c)>>>(s.channels, statistics);
      return c->Launched("NoStatistics");
    }
    const T* const x = c->input(0).as<T>();
    const float* const scale = c->input(1).as<float>();
    const float* const offset = c->input(2).as<float>();
    const float* const old_mean = c->input(3).as<float>();
    const float* const old_variance = c->input(4).as<float>();
    const double count = static_cast<double>(chunks.n);
    if (is_training_) {
      if (!SumChannels<Terms::kValues, T>(c, s, x, nullptr, nullptr, sums)) return false;
      FinishMean<<<channel_blocks, kThreads, 0, Stream(c)>>>(sums, chunks.count, s.channels, count,
                                                             mean);
      if (!c->Launched("FinishMean")) return false;
      if (!SumChannels<Terms::kSquares, T>(c, s, x, nullptr, mean, sums)) return false;
      FinishVariance<<<channel_blocks, kThreads, 0, Stream(c)>>>(
          sums, chunks.count, s.channels, count, mean, scale, offset, old_mean, old_variance,
          static_cast<double>(factor_), epsilon_, statistics);
      if (!c->Launched("FinishVariance")) return false;
    } else {
      PassStatistics<<<channel_blocks, kThreads, 0, Stream(c)>>>(
          scale, offset, old_mean, old_variance, s.channels, epsilon_, statistics);
      if (!c->Launched("PassStatistics")) return false;
    }
    const int64_t n = chunks.n * s.channels;
    Normalize<T><<<Blocks(c, n), kThreads, 0, Stream(c)>>>(
        x, is_training_ ? mean : old_mean, factor, shift, y, n, s.channels, s.inner);
    return c->Launched("Normalize");
  }
};

template <typename T>
class BatchNormGrad : public NormKernel {
  bool Run(Call* c) const override {
    NormSizes s;
    if (!CheckBatchNorm(c, true, format_, is_training_, factor_, &s)) return false;
    T* const dx = static_cast<T*>(c->OutputLike(0, 1));
    float* const dscale = static_cast<float*>(c->Output(1, &s.channels, 1));
    float* const doffset = static_cast<float*>(c->Output(2, &s.channels, 1));
    const int64_t none = 0;
    if (!dx || !dscale || !doffset || !c->Output(3, &none, 1) || !c->Output(4, &none, 1)) {
      return false;
    }
    if (s.channels == 0) return true;
    const Chunks chunks(s);
    const int64_t bytes = s.channels * static_cast<int64_t>(sizeof(float));
    if (chunks.n == 0) return c->Fill(dscale, 0, bytes) && c->Fill(doffset, 0, bytes);
    float* const factor = static_cast<float*>(c->Scratch((3 + 2 * chunks.count) * bytes));
    if (!factor) return false;
    float* const sums = factor + 3 * s.channels;
    const ChannelGradients g = {dscale, doffset, factor, factor + s.channels,
                                factor + 2 * s.channels};
    const T* const dy = c->input(0).as<T>();
    const T* const x = c->input(1).as<T>();
    const float* const mean = c->input(3).as<float>();
    if (!SumChannels<Terms::kGradient, T>(c, s, x, dy, mean, sums)) return false;
    FinishGradient<<<Blocks(c, s.channels), kThreads, 0, Stream(c)>>>(
        sums, chunks.count, s.channels, static_cast<double>(chunks.n), c->input(2).as<float>(),
        c->input(4).as<float>(), epsilon_, is_training_, g);
    if (!c->Launched("FinishGradient")) return false;
    const int64_t n = chunks.n * s.channels;
    NormalizeBack<T>
        <<<Blocks(c, n), kThreads, 0, Stream(c)>>>(dy, x, mean, g, dx, n, s.channels, s.inner);
    return c->Launched("NormalizeBack");
  }
};

// The statistics are float in all kernels.
template <template <typename> class K, typename... Ts>
bool RegisterNorm(const char* op) {
  (Register(Registration{op,
                         {{"T", {TypeNumber<Ts>::value}}, {"U", {DType::kFloat}}},
                         {},
                         {},
                         true,
                         &MakeKernel<K<Ts>>}),
   ...);
  return true;
}

[[maybe_unused]] const bool registered =
    Register<BatchNorm, float>("FusedBatchNorm", "T") &&
    Register<BatchNormGrad, float>("FusedBatchNormGrad", "T") &&
    RegisterNorm<BatchNorm, half, bfloat16, float>("FusedBatchNormV2") &&
    RegisterNorm<BatchNorm, half, bfloat16, float>("FusedBatchNormV3") &&
    RegisterNorm<BatchNormGrad, half, bfloat16, float>("FusedBatchNormGradV2") &&
    RegisterNorm<BatchNormGrad, half, bfloat16, float>("FusedBatchNormGradV3");

}  // namespace
}  // namespace gpu
}  // namespace ferry
