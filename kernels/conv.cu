// Conv2D, Conv2DBackpropInput and Conv2DBackpropFilter on a GPU: windows are written out side by
// side as the rows of a matrix, a bounded number of them at a time, and cuBLAS multiplies that with
// the filter. Sums are float for half, bfloat16 and float elements (TF32 isn't used), double for
// double.
#include <cublas_v2.h>

#include <algorithm>
#include <limits>
#include <string>
#include <vector>

#include "kernels/gpu.cuh"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_window.cuh"

namespace ferry {
namespace gpu {
namespace {

template <typename T>
constexpr cudaDataType kBlasType = std::is_same_v<T, half>       ? CUDA_R_16F
                                   : std::is_same_v<T, bfloat16> ? CUDA_R_16BF
                                   : std::is_same_v<T, float>    ? CUDA_R_32F
                                                                 : CUDA_R_64F;

// The rows of matrices of windows are kept to about this size.
constexpr int64_t kWindowBytes = 64 << 20;

// How image tensors lie: elements from one image, row, column and channel to the next.
struct Strides {
  int64_t n, y, x, c;
};
inline Strides StridesOf(bool channels_first, int64_t rows, int64_t columns, int64_t depth) {
  const int64_t n = rows * columns * depth;
  if (channels_first) return {n, columns, 1, rows * columns};
  return {n, columns * depth, depth, 1};
}

// Windows [first, first + rows) of all images, in their order, for the channels of one group.
struct Windows {
  WindowAxis y, x;
  int64_t first, rows, channel, channels;
  Strides in;
};

// out[row, (ky, kx, channel)]: the element that the window has there, or 0.
template <typename T>
__global__ void __launch_bounds__(kThreads) GatherWindows(const T* x, T* out, Windows w) {
  const int64_t depth = w.y.window * w.x.window * w.channels;
  for (int64_t i = First(); i < w.rows * depth; i += Step()) {
    const int64_t row = Divide(i, depth), at = i - row * depth;
    const int64_t tap = Divide(at, w.channels), channel = at - tap * w.channels;
    const int64_t window = w.first + row, line = Divide(window, w.x.out);
    const int64_t n = Divide(line, w.y.out);
    const int64_t ky = Divide(tap, w.x.window);
    const int64_t iy = (line - n * w.y.out) * w.y.stride + ky * w.y.dilation - w.y.before;
    const int64_t ix = (window - line * w.x.out) * w.x.stride +
                       (tap - ky * w.x.window) * w.x.dilation - w.x.before;
    const bool inside = iy >= 0 && iy < w.y.in && ix >= 0 && ix < w.x.in;
    out[i] = inside ? x[n * w.in.n + iy * w.in.y + ix * w.in.x + (w.channel + channel) * w.in.c]
                    : Narrow<T>(0);
  }
}

// The other way round: images [first_image, first_image + images) of dx, each element the sum of
// those of `windows` that came from it, in the taps' order. The windows are all of those images'.
template <typename T, typename From>
__global__ void __launch_bounds__(kThreads)
    SumWindows(const From* windows, T* dx, Windows w, int64_t first_image, int64_t images) {
  const int64_t depth = w.y.window * w.x.window * w.channels;
  const int64_t pixels = w.y.in * w.x.in;
  for (int64_t i = First(); i < images * pixels * w.channels; i += Step()) {
    const int64_t pixel = Divide(i, w.channels), channel = i - pixel * w.channels;
    const int64_t n = Divide(pixel, pixels), in_image = pixel - n * pixels;
    const int64_t iy = Divide(in_image, w.x.in), ix = in_image - iy * w.x.in;
    From sum = 0;
    for (int64_t ky = 0; ky < w.y.window; ++ky) {
      const int64_t at_y = iy + w.y.before - ky * w.y.dilation;
      if (at_y < 0) break;
      const int64_t oy = Divide(at_y, w.y.stride);
      if (oy * w.y.stride != at_y || oy >= w.y.out) continue;
      for (int64_t kx = 0; kx < w.x.window; ++kx) {
        const int64_t at_x = ix + w.x.before - kx * w.x.dilation;
        if (at_x < 0) break;
        const int64_t ox = Divide(at_x, w.x.stride);
        if (ox * w.x.stride != at_x || ox >= w.x.out) continue;
        const int64_t row = (n * w.y.out + oy) * w.x.out + ox;
        sum += windows[row * depth + (ky * w.x.window + kx) * w.channels + channel];
      }
    }
    dx[(first_image + n) * w.in.n + iy * w.in.y + ix * w.in.x + (w.channel + channel) * w.in.c] =
        Narrow<T>(sum);
  }
}

template <typename T>
__global__ void __launch_bounds__(kThreads) Round(const Wide<T>* from, T* to, int64_t n) {
  for (int64_t i = First(); i < n; i += Step()) to[i] = Narrow<T>(from[i]);
}

// A matrix by rows: `ld` elements from one to the next.
struct Matrix {
  const void* data;
  cudaDataType type;
  int64_t ld;
  bool transposed = false;
};

template <typename T, ConvOp kOp>
class Conv : public Kernel {
  using W = Wide<T>;

  bool Init(Setup* setup) override {
    if (!ReadWindowAttrs(setup, &attrs_)) {
      return setup->Fail(Error::kInvalidArgument, "the attributes of a convolution are missing");
    }
    return CheckConvAttrs(setup, kOp, attrs_);
  }

  bool Run(Call* c) const override {
    ConvSizes s;
    std::vector<int64_t> shape;
    if (!CheckConv(c, kOp, attrs_, &s, &shape)) return false;
    T* const out = static_cast<T*>(c->Output(0, shape));
    if (!out) return false;
    int64_t n = 1;
    for (int64_t d : shape) n *= d;
    if (n == 0) return true;
    const Input a = c->input(kOp == ConvOp::kInput ? 1 : 0);
    const Input b = c->input(kOp == ConvOp::kForward ? 1 : 2);
    if (a.elements == 0 || b.elements == 0) {
      return c->Fill(out, 0, n * static_cast<int64_t>(sizeof(T)));
    }
    const int64_t in_image = s.y.out * s.x.out;  // Windows.
    const int64_t depth = s.y.window * s.x.window * s.filter_depth;
    if (std::max({in_image, depth, s.in_depth, s.out_depth}) > std::numeric_limits<int>::max()) {
      return c->Fail(Error::kInvalidArgument, "sizes of a convolution must be below 2^31");
    }
    const auto blas = static_cast<cublasHandle_t>(c->BlasHandle());
    if (!blas) return false;
    if (kOp == ConvOp::kForward) return Forward(c, blas, s, a.as<T>(), b.as<T>(), out, depth);
    if (kOp == ConvOp::kInput) return Back(c, blas, s, a.as<T>(), b.as<T>(), out, depth);
    return Filter(c, blas, s, a.as<T>(), b.as<T>(), out, depth);
  }

  // How many windows are written out at a time, at most; each `bytes` large.
  static int64_t Chunk(int64_t bytes) { return std::max<int64_t>(1, kWindowBytes / bytes); }

  static Windows WindowsOf(const ConvSizes& s, int64_t group) {
    Windows w;
    w.y = s.y;
    w.x = s.x;
    w.first = w.rows = 0;
    w.channel = group * s.filter_depth;
    w.channels = s.filter_depth;
    w.in = StridesOf(s.channels_first, s.y.in, s.x.in, s.in_depth);
    return w;
  }

  // A convolution by single pixels reads its input as it is.
  static bool IsProduct(const ConvSizes& s) {
    return s.y.window == 1 && s.x.window == 1 && s.y.stride == 1 && s.x.stride == 1 &&
           s.y.in == s.y.out && s.x.in == s.x.out && !s.channels_first;
  }

  bool Gather(Call* c, const T* x, T* to, const Windows& w, int64_t depth) const {
    GatherWindows<T><<<Blocks(c, w.rows * depth), kThreads, 0, Stream(c)>>>(x, to, w);
    return c->Launched("GatherWindows");
  }

  // Calls fn(first window, windows) for pieces of at most `most` windows, which lie in one image
  // each where channels come first, so that a piece of y or dy is one matrix.
  template <typename Fn>
  static bool Pieces(const ConvSizes& s, int64_t most, const Fn& fn) {
    const int64_t in_image = s.y.out * s.x.out;
    const int64_t run = s.channels_first ? in_image : s.batch * in_image;
    most = std::min<int64_t>(most, std::numeric_limits<int>::max() / 2);
    for (int64_t begin = 0; begin < s.batch * in_image; begin += run) {
      for (int64_t i = 0; i < run; i += most) {
        if (!fn(begin + i, std::min(most, run - i))) return false;
      }
    }
    return true;
  }

  // Windows from `first` on of y or dy, for a group: a matrix of windows by channels.
  template <typename U>
  static U* Side(U* data, const ConvSizes& s, int64_t first, int64_t group) {
    const int64_t channel = group * (s.out_depth / s.groups);
    if (!s.channels_first) return data + first * s.out_depth + channel;
    const int64_t in_image = s.y.out * s.x.out;
    return data + (first / in_image * s.out_depth + channel) * in_image + first % in_image;
  }
  static int64_t SideStep(const ConvSizes& s) {
    return s.channels_first ? s.y.out * s.x.out : s.out_depth;
  }

  bool Forward(Call* c, cublasHandle_t blas, const ConvSizes& s, const T* x, const T* filter, T* y,
               int64_t depth) const {
    const bool direct = IsProduct(s);
    const int64_t most = direct ? std::numeric_limits<int64_t>::max()
                                : Chunk(depth * static_cast<int64_t>(sizeof(T)));
    T* space = nullptr;
    if (!direct) {
      const int64_t rows = std::min(most, s.batch * s.y.out * s.x.out);
      space = static_cast<T*>(c->Scratch(rows * depth * static_cast<int64_t>(sizeof(T))));
      if (!space) return false;
    }
    const int64_t out_group = s.out_depth / s.groups;
    const int64_t ld = SideStep(s);
    return Pieces(s, most, [&](int64_t first, int64_t rows) {
      for (int64_t g = 0; g < s.groups; ++g) {
        Matrix windows = {space, kBlasType<T>, depth};
        if (direct) {
          windows = {x + first * s.in_depth + g * s.filter_depth, kBlasType<T>, s.in_depth};
        } else {
          Windows w = WindowsOf(s, g);
          w.first = first;
          w.rows = rows;
          if (!Gather(c, x, space, w, depth)) return false;
        }
        const Matrix f = {filter + g * out_group, kBlasType<T>, s.out_depth};
        T* const to = Side(y, s, first, g);
        const bool ok = s.channels_first ? Product(c, blas, out_group, rows, depth, Transpose(f),
                                                   Transpose(windows), to, kBlasType<T>, ld, false)
                                         : Product(c, blas, rows, out_group, depth, windows, f, to,
                                                   kBlasType<T>, ld, false);
        if (!ok) return false;
      }
      return true;
    });
  }

  // dx: the windows' gradients, for whole images, then each pixel's sum of them. Should one image
  // have too many windows, they are all written all the same.
  bool Back(Call* c, cublasHandle_t blas, const ConvSizes& s, const T* filter, const T* dy, T* dx,
            int64_t depth) const {
    constexpr cudaDataType kWide = kBlasType<W>;
    const int64_t in_image = s.y.out * s.x.out;
    const int64_t images = std::min(
        s.batch, std::max<int64_t>(1, Chunk(depth * static_cast<int64_t>(sizeof(W))) / in_image));
    W* const space =
        static_cast<W*>(c->Scratch(images * in_image * depth * static_cast<int64_t>(sizeof(W))));
    if (!space) return false;
    const int64_t out_group = s.out_depth / s.groups, ld = SideStep(s);
    for (int64_t n = 0; n < s.batch; n += images) {
      const int64_t count = std::min(images, s.batch - n);
      for (int64_t g = 0; g < s.groups; ++g) {
        const Matrix f = {filter + g * out_group, kBlasType<T>, s.out_depth};
        const int64_t step = s.channels_first ? 1 : count;  // Images in one product.
        for (int64_t k = 0; k < count; k += step) {
          Matrix side = {Side(dy, s, (n + k) * in_image, g), kBlasType<T>, ld};
          side.transposed = s.channels_first;
          if (!Product(c, blas, step * in_image, depth, out_group, side, Transpose(f),
                       space + k * in_image * depth, kWide, depth, false)) {
            return false;
          }
        }
        const Windows w = WindowsOf(s, g);
        const int64_t elements = count * s.y.in * s.x.in * s.filter_depth;
        SumWindows<T, W><<<Blocks(c, elements), kThreads, 0, Stream(c)>>>(space, dx, w, n, count);
        if (!c->Launched("SumWindows")) return false;
      }
    }
    return true;
  }

  // Sums of 16-bit floats go on in float from piece to piece.
  bool Filter(Call* c, cublasHandle_t blas, const ConvSizes& s, const T* x, const T* dy, T* dfilter,
              int64_t depth) const {
    const bool direct = IsProduct(s);
    constexpr bool kRound = sizeof(T) == 2;
    const int64_t elements = depth * s.out_depth;
    const int64_t windows = s.batch * s.y.out * s.x.out;
    const int64_t most = direct ? windows : Chunk(depth * static_cast<int64_t>(sizeof(T)));
    // 256-byte aligned, as what cuBLAS reads should be.
    const int64_t rounded =
        kRound ? (elements * static_cast<int64_t>(sizeof(W)) + 255) / 256 * 256 : 0;
    const int64_t bytes =
        direct ? 0 : std::min(most, windows) * depth * static_cast<int64_t>(sizeof(T));
    char* space = nullptr;
    if (rounded + bytes > 0) {
      space = static_cast<char*>(c->Scratch(rounded + bytes));
      if (!space) return false;
    }
    W* const sums = kRound ? reinterpret_cast<W*>(space) : reinterpret_cast<W*>(dfilter);
    T* const written = reinterpret_cast<T*>(space + rounded);
    const int64_t out_group = s.out_depth / s.groups, ld = SideStep(s);
    const bool ok = Pieces(s, most, [&](int64_t first, int64_t rows) {
      for (int64_t g = 0; g < s.groups; ++g) {
        Matrix a = {written, kBlasType<T>, depth};
        if (direct) {
          a = {x + first * s.in_depth + g * s.filter_depth, kBlasType<T>, s.in_depth};
        } else {
          Windows w = WindowsOf(s, g);
          w.first = first;
          w.rows = rows;
          if (!Gather(c, x, written, w, depth)) return false;
        }
        Matrix side = {Side(dy, s, first, g), kBlasType<T>, ld};
        side.transposed = s.channels_first;
        if (!Product(c, blas, depth, out_group, rows, Transpose(a), side, sums + g * out_group,
                     kBlasType<W>, s.out_depth, first > 0)) {
          return false;
        }
      }
      return true;
    });
    if (!ok || !kRound) return ok;
    Round<T><<<Blocks(c, elements), kThreads, 0, Stream(c)>>>(sums, dfilter, elements);
    return c->Launched("Round");
  }

  static Matrix Transpose(Matrix m) {
    m.transposed = !m.transposed;
    return m;
  }

  // out = a b, m x k and k x n, or that added to `out`. cuBLAS stores matrices by columns, so to it
  // this is the product of b and a.
  bool Product(Call* c, cublasHandle_t blas, int64_t m, int64_t n, int64_t k, const Matrix& a,
               const Matrix& b, void* out, cudaDataType out_type, int64_t out_ld, bool add) const {
    using Scale = std::conditional_t<std::is_same_v<T, double>, double, float>;
    constexpr cublasComputeType_t kCompute =
        std::is_same_v<T, double> ? CUBLAS_COMPUTE_64F : CUBLAS_COMPUTE_32F;
    const Scale one = 1, beta = add ? 1 : 0;
    auto op = [](const Matrix& x) { return x.transposed ? CUBLAS_OP_T : CUBLAS_OP_N; };
    return c->Blas(cublasGemmEx(blas, op(b), op(a), static_cast<int>(n), static_cast<int>(m),
                                static_cast<int>(k), &one, b.data, b.type, static_cast<int>(b.ld),
                                a.data, a.type, static_cast<int>(a.ld), &beta, out, out_type,
                                static_cast<int>(out_ld), kCompute, CUBLAS_GEMM_DEFAULT),
                   "cublasGemmEx");
  }

  WindowAttrs attrs_;
};

template <typename T>
using ConvForward = Conv<T, ConvOp::kForward>;
template <typename T>
using ConvBackInput = Conv<T, ConvOp::kInput>;
template <typename T>
using ConvBackFilter = Conv<T, ConvOp::kFilter>;

[[maybe_unused]] const bool registered =
    Register<ConvForward, FERRY_GPU_FLOATS>("Conv2D", "T") &&
    Register<ConvBackInput, FERRY_GPU_FLOATS>("Conv2DBackpropInput", "T", {{}, {"input_sizes"}}) &&
    Register<ConvBackFilter, FERRY_GPU_FLOATS>("Conv2DBackpropFilter", "T", {{}, {"filter_sizes"}});

}  // namespace
}  // namespace gpu
}  // namespace ferry
