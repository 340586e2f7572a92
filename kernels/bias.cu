// BiasAdd, BiasAddV1 and BiasAddGrad on a GPU. A tensor is seen as [outer, channels, inner]; with
// the channels last inner is 1.
#include "kernels/gpu.cuh"

namespace ferry {
namespace gpu {
namespace {

template <typename T>
__device__ T Add(T x, T y) {
  return Narrow<T>(static_cast<Sum<T>>(Widen(x)) + static_cast<Sum<T>>(Widen(y)));
}

enum class Vectors {
  kNone,
  kAlongChannels,  // inner is 1 and the channels make whole vectors.
  kAlongInner      // inner makes whole vectors.
};

// y may be x.
template <typename T, typename Index>
__global__ void __launch_bounds__(kThreads)
    BiasAddLoop(const T* x, const T* bias, T* y, int64_t n, Index channels, Index inner,
                Vectors vectors) {
  constexpr int kN = kVector<T>;
  if (vectors == Vectors::kNone) {
    for (int64_t i = First(); i < n; i += Step()) {
      y[i] = Add(x[i], bias[static_cast<Index>(i) / inner % channels]);
    }
    return;
  }
  for (int64_t i = First(); i < n / kN; i += Step()) {
    Vector<T> v = reinterpret_cast<const Vector<T>*>(x)[i];
    const Index at = static_cast<Index>(i * kN) / inner % channels;
    Vector<T> b;
    if (vectors == Vectors::kAlongChannels) {
      b = *reinterpret_cast<const Vector<T>*>(bias + at);
    } else {
#pragma unroll
      for (int k = 0; k < kN; ++k) b.v[k] = bias[at];
    }
#pragma unroll
    for (int k = 0; k < kN; ++k) v.v[k] = Add(v.v[k], b.v[k]);
    reinterpret_cast<Vector<T>*>(y)[i] = v;
  }
}

struct Layout {
  int64_t outer = 1, channels = 0, inner = 1;
};

class BiasKernel : public Kernel {
 protected:
  bool Init(Setup* setup) override {
    std::string format;  // BiasAddV1 has none.
    channels_first_ = setup->Attr("data_format", &format) && format == "NCHW";
    return true;
  }
  bool LayoutOf(Call* c, const Input& x, Layout* out) const {
    if (x.rank < 2) {
      return c->Fail(Error::kInvalidArgument, "Input tensor must be at least 2D: " + ShapeOf(x));
    }
    const int d = channels_first_ ? 1 : x.rank - 1;
    out->channels = x.dims[d];
    for (int i = 0; i < d; ++i) out->outer *= x.dims[i];
    for (int i = d + 1; i < x.rank; ++i) out->inner *= x.dims[i];
    return true;
  }
  bool channels_first_ = false;
};

template <typename T>
class BiasAddKernel : public BiasKernel {
  bool Run(Call* c) const override {
    const Input x = c->input(0), bias = c->input(1);
    Layout layout;
    if (!LayoutOf(c, x, &layout)) return false;
    if (bias.rank != 1) {
      return c->Fail(Error::kInvalidArgument, "Biases must be 1D: " + ShapeOf(bias));
    }
    if (bias.dims[0] != layout.channels) {
      return c->Fail(Error::kInvalidArgument,
                     std::string("Must provide as many biases as the ") +
                         (channels_first_ ? "channel" : "last") +
                         " dimension of the input tensor: " + ShapeOf(bias) + " vs. " + ShapeOf(x));
    }
    T* y = static_cast<T*>(c->OutputLike(0, 0));
    if (!y) return false;
    const int64_t n = x.elements;
    if (n == 0) return true;
    Vectors vectors = Vectors::kNone;
    if (Aligned(x.data, y)) {
      if (layout.inner == 1 && layout.channels % kVector<T> == 0 && Aligned(bias.data)) {
        vectors = Vectors::kAlongChannels;
      } else if (layout.inner % kVector<T> == 0) {
        vectors = Vectors::kAlongInner;
      }
    }
    const int64_t items = vectors == Vectors::kNone ? n : n / kVector<T>;
    const unsigned blocks = Blocks(c, items);
    if (n <= std::numeric_limits<int32_t>::max()) {
      BiasAddLoop<T, uint32_t><<<blocks, kThreads, 0, Stream(c)>>>(
          x.as<T>(), bias.as<T>(), y, n, static_cast<uint32_t>(layout.channels),
          static_cast<uint32_t>(layout.inner), vectors);
    } else {
      BiasAddLoop<T, int64_t><<<blocks, kThreads, 0, Stream(c)>>>(
          x.as<T>(), bias.as<T>(), y, n, layout.channels, layout.inner, vectors);
    }
    return c->Launched("BiasAddLoop");
  }
};

// ---- The gradient: sums over outer and inner ----
//
// Each channel's elements are cut into chunks, by sizes alone; a block sums one chunk of a channel
// (or of 32 channels, where those lie side by side) in a fixed order, and where there are several
// chunks another kernel adds their sums.

constexpr int kColumns = 32, kRows = kThreads / kColumns;
constexpr int64_t kChunk = 2048;  // Elements of a channel at least, if there are several chunks.
constexpr int64_t kMostChunks = 256;

// `sums` is [chunks, channels]. inner is 1: a block has kColumns channels side by side.
template <typename T, typename To>
__global__ void __launch_bounds__(kThreads)
    BiasColumns(const T* dy, To* sums, int64_t rows, int64_t channels, int64_t chunk) {
  __shared__ Sum<T> partial[kRows][kColumns];
  const int tx = threadIdx.x % kColumns, ty = threadIdx.x / kColumns;
  const int64_t column = static_cast<int64_t>(blockIdx.x) * kColumns + tx;
  const int64_t begin = blockIdx.y * chunk;
  const int64_t end = begin + chunk < rows ? begin + chunk : rows;
  Sum<T> sum = 0;
  if (column < channels) {
    for (int64_t r = begin + ty; r < end; r += kRows) sum += Widen(dy[r * channels + column]);
  }
  partial[ty][tx] = sum;
  __syncthreads();
  if (ty == 0 && column < channels) {
    for (int r = 1; r < kRows; ++r) sum += partial[r][tx];
    sums[blockIdx.y * channels + column] = Narrow<To>(sum);
  }
}

// A block has one channel, whose elements lie in `outer` runs of `inner`.
template <typename T, typename To>
__global__ void __launch_bounds__(kThreads)
    BiasPlanes(const T* dy, To* sums, int64_t outer, int64_t channels, int64_t inner,
               int64_t chunk) {
  __shared__ Sum<T> partial[kThreads];
  const int64_t channel = blockIdx.x, n = outer * inner;
  const int64_t begin = blockIdx.y * chunk;
  const int64_t end = begin + chunk < n ? begin + chunk : n;
  Sum<T> sum = 0;
  for (int64_t i = begin + threadIdx.x; i < end; i += kThreads) {
    const int64_t run = i / inner;
    sum += Widen(dy[(run * channels + channel) * inner + (i - run * inner)]);
  }
  partial[threadIdx.x] = sum;
  for (int half_size = kThreads / 2; half_size > 0; half_size /= 2) {
    __syncthreads();
    if (threadIdx.x < half_size) partial[threadIdx.x] += partial[threadIdx.x + half_size];
  }
  if (threadIdx.x == 0) sums[blockIdx.y * channels + channel] = Narrow<To>(partial[0]);
}

template <typename T>
__global__ void __launch_bounds__(kThreads)
    BiasChunks(const Sum<T>* sums, T* out, int64_t channels, int chunks) {
  for (int64_t i = First(); i < channels; i += Step()) {
    Sum<T> sum = sums[i];
    for (int k = 1; k < chunks; ++k) sum += sums[k * channels + i];
    out[i] = Narrow<T>(sum);
  }
}

template <typename T>
class BiasAddGradKernel : public BiasKernel {
  bool Run(Call* c) const override {
    const Input dy = c->input(0);
    Layout layout;
    if (!LayoutOf(c, dy, &layout)) return false;
    T* out = static_cast<T*>(c->Output(0, &layout.channels, 1));
    if (!out) return false;
    if (layout.channels == 0) return true;
    const int64_t n = layout.outer * layout.inner;
    if (n == 0) return c->Fill(out, 0, layout.channels * static_cast<int64_t>(sizeof(T)));
    const int64_t chunks = std::min(kMostChunks, (n + kChunk - 1) / kChunk);
    if (chunks == 1) return Chunks<T>(c, dy.as<T>(), layout, 1, out);
    auto* sums = static_cast<Sum<T>*>(
        c->Scratch(chunks * layout.channels * static_cast<int64_t>(sizeof(Sum<T>))));
    if (!sums || !Chunks<Sum<T>>(c, dy.as<T>(), layout, chunks, sums)) return false;
    BiasChunks<T><<<Blocks(c, layout.channels), kThreads, 0, Stream(c)>>>(
        sums, out, layout.channels, static_cast<int>(chunks));
    return c->Launched("BiasChunks");
  }

  template <typename To>
  bool Chunks(Call* c, const T* dy, const Layout& layout, int64_t chunks, To* sums) const {
    const int64_t n = layout.outer * layout.inner;
    const int64_t chunk = (n + chunks - 1) / chunks;
    const bool columns = layout.inner == 1;
    const int64_t wide = columns ? (layout.channels + kColumns - 1) / kColumns : layout.channels;
    const dim3 blocks(static_cast<unsigned>(wide), static_cast<unsigned>(chunks));
    if (columns) {
      BiasColumns<T, To><<<blocks, kThreads, 0, Stream(c)>>>(dy, sums, n, layout.channels, chunk);
    } else {
      BiasPlanes<T, To><<<blocks, kThreads, 0, Stream(c)>>>(dy, sums, layout.outer, layout.channels,
                                                            layout.inner, chunk);
    }
    return c->Launched("BiasAddGrad");
  }
};

template <typename T>
using WrappingBiasAdd = BiasAddKernel<Wrapping<T>>;
template <typename T>
using WrappingBiasAddGrad = BiasAddGradKernel<Wrapping<T>>;

[[maybe_unused]] const bool registered =
    Register<WrappingBiasAdd, FERRY_GPU_NUMBERS>("BiasAdd", "T", {{0}, {}, true}) &&
    Register<WrappingBiasAdd, FERRY_GPU_NUMBERS>("BiasAddV1", "T", {{0}, {}, true}) &&
    Register<WrappingBiasAddGrad, FERRY_GPU_NUMBERS>("BiasAddGrad", "T");

}  // namespace
}  // namespace gpu
}  // namespace ferry
