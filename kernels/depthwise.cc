// DepthwiseConv2dNative and its gradients: each channel is convolved with filters of its own, which
// make `multiplier` channels of it. Definitions of the operands are in window.h: output channel q
// is channel q / multiplier's, and the filter is [y, x, in_depth, multiplier].
#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "kernels/conv_gradients.h"
#include "kernels/conv_loops.h"
#include "kernels/types.h"
#include "kernels/window_checks.h"
#include "runtime/base/status.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

enum class Part { kForward, kInput, kFilter };

const char* Name(Part part) {
  return part == Part::kForward ? "DepthwiseConv2dNative"
         : part == Part::kInput ? "DepthwiseConv2dNativeBackpropInput"
                                : "DepthwiseConv2dNativeBackpropFilter";
}

// ---- Shapes ----

absl::Status ForwardShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const WindowAttrs attrs, WindowAttrsOf(*c));
  FERRY_RETURN_IF_ERROR(CheckConvAttrs(Name(Part::kForward), attrs));
  FERRY_ASSIGN_OR_RETURN(const PartialShape input, c->WithRank(c->input(0), 4));
  FERRY_ASSIGN_OR_RETURN(const PartialShape filter, c->WithRank(c->input(1), 4));
  const ImageDims d = DimsOf(attrs);
  const auto of = [](const PartialShape& s, int i) {
    return s.known_rank() ? s.dim(i) : PartialShape::kUnknown;
  };
  const int64_t in_depth = of(input, d.c), filter_depth = of(filter, 2), per = of(filter, 3);
  if (in_depth >= 0 && filter_depth >= 0 && in_depth != filter_depth) {
    return InvalidArgument("Dimensions must be equal, but are ", in_depth, " and ", filter_depth);
  }
  const int64_t depth = std::max(in_depth, filter_depth);
  PartialShape out = PartialShape::UnknownOfRank(4);
  out.set_dim(d.n, of(input, d.n));
  if (depth >= 0 && per >= 0) {
    int64_t product = 0;
    if (__builtin_mul_overflow(depth, per, &product)) {
      return InvalidArgument("an output of ", depth, " times ", per, " channels is too large");
    }
    out.set_dim(d.c, product);
  }
  for (int i = 0; i < 2; ++i) {
    const int dim = i == 0 ? d.y : d.x;
    FERRY_ASSIGN_OR_RETURN(const int64_t size,
                           CountWindows(attrs, dim, of(input, dim), of(filter, i),
                                        attrs.strides[static_cast<size_t>(dim)],
                                        attrs.dilations[static_cast<size_t>(dim)]));
    out.set_dim(dim, size);
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// Of both gradients: the shape is the value of input `sizes`.
template <int sizes>
absl::Status GradientShape(InferenceContext* c) {
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(sizes), 1).status());
  FERRY_ASSIGN_OR_RETURN(const PartialShape out, c->ValueAsShape(sizes));
  FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->WithRank(out, 4));
  c->set_output(0, shape.known_rank() ? std::move(shape) : PartialShape::UnknownOfRank(4));
  return absl::OkStatus();
}

// ---- Sizes, from a kernel's arguments ----

absl::StatusOr<ConvSizes> SizesOf(const KernelContext& c, Part part, const WindowAttrs& attrs) {
  TensorShape input = c.input(0).shape(), filter = c.input(1).shape();
  if (part != Part::kForward) {
    const int sizes = part == Part::kInput ? 0 : 1;
    if (c.input(sizes).rank() != 1 || c.input(sizes).num_elements() != 4) {
      return InvalidArgument(Name(part), ": the sizes must be 4 values, found ",
                             c.input(sizes).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN((part == Part::kInput ? input : filter), c.InputAsShape(sizes));
  }
  if (input.rank() != 4) {
    return InvalidArgument("input must be 4-dimensional", input.DebugString());
  }
  if (filter.rank() != 4) {
    return InvalidArgument("filter must be 4-dimensional: ", filter.DebugString());
  }
  const ImageDims d = DimsOf(attrs);
  ConvSizes s;
  s.channels_first = attrs.channels_first();
  s.batch = input.dim(d.n);
  s.in_depth = s.groups = input.dim(d.c);
  s.filter_depth = 1;
  if (filter.dim(2) != s.in_depth) {
    return InvalidArgument("input and filter must have the same depth: ", s.in_depth, " vs ",
                           filter.dim(2));
  }
  if (__builtin_mul_overflow(s.in_depth, filter.dim(3), &s.out_depth)) {
    return InvalidArgument("an output of ", s.in_depth, " times ", filter.dim(3),
                           " channels is too large");
  }
  for (int i = 0; i < 2; ++i) {
    const int dim = i == 0 ? d.y : d.x;
    WindowAxis* const a = i == 0 ? &s.y : &s.x;
    a->in = input.dim(dim);
    a->window = filter.dim(i);
    a->stride = attrs.strides[static_cast<size_t>(dim)];
    a->dilation = attrs.dilations[static_cast<size_t>(dim)];
    if (a->window == 0) {
      return InvalidArgument("filter must not have zero rows or columns: ", filter.DebugString());
    }
    FERRY_RETURN_IF_ERROR(PlaceWindows(attrs, dim, a));
  }
  if (part == Part::kForward) return s;
  const TensorShape expected = ImageShape(s.channels_first, s.batch, s.y.out, s.x.out, s.out_depth);
  if (c.input(2).shape() != expected) {
    return InvalidArgument(Name(part), ": out_backprop must have shape ", expected.DebugString(),
                           ", found ", c.input(2).shape().DebugString());
  }
  return s;
}

// ---- Loops, for channels that are the innermost dimension ----
//
// They know one channel for each output channel: where a channel of the input has several filters,
// it is repeated beforehand. They compute in floats at least.

template <typename S, int kWidth>
struct VectorOf {
  typedef S Type __attribute__((vector_size(kWidth * sizeof(S)), aligned(alignof(S)), may_alias));
};
template <typename S>
struct VectorOf<S, 1> {
  typedef S Type;
};
template <typename S>
constexpr int kLanes = 32 / static_cast<int>(sizeof(S));

// Those of the numbers k < all for which 0 <= start + k * step < limit; `step` is positive.
struct Run {
  int64_t begin, end;
  Run(int64_t start, int64_t step, int64_t limit, int64_t all) {
    const auto reaching = [&](int64_t value) {
      return value <= start ? 0 : std::min(all, (value - start + step - 1) / step);
    };
    begin = reaching(0);
    end = std::max(begin, reaching(limit));
  }
};

// An element of the filter, and what it is multiplied with: pixel j of a line, if it is among
// [begin, end), takes the values at in + j * (the line's step).
struct Tap {
  int64_t filter, in, begin, end;
};
using Taps = absl::InlinedVector<Tap, 32>;

// out[p][i] = the sum over taps of in[p][i] * filter[i], for kPixels pixels from number j on and
// kWidth * kVectors channels.
template <int kWidth, int kVectors, int kPixels, typename S>
void SumTaps(const Taps& taps, int64_t j, const S* in, int64_t step, const S* filter, S* out,
             int64_t out_step) {
  using Vector = typename VectorOf<S, kWidth>::Type;
  Vector sums[kPixels][kVectors] = {};
  for (const Tap& t : taps) {
    const S* const x = in + (t.in + j * step);
    const S* const f = filter + t.filter;
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vector w = *reinterpret_cast<const Vector*>(f + v * kWidth);
#pragma GCC unroll 8
      for (int p = 0; p < kPixels; ++p) {
        sums[p][v] += *reinterpret_cast<const Vector*>(x + p * step + v * kWidth) * w;
      }
    }
  }
#pragma GCC unroll 8
  for (int p = 0; p < kPixels; ++p) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      *reinterpret_cast<Vector*>(out + (j + p) * out_step + v * kWidth) = sums[p][v];
    }
  }
}

// The same for `depth` channels.
template <int kPixels, typename S>
void SumChannels(const Taps& taps, int64_t j, const S* in, int64_t step, const S* filter,
                 int64_t depth, S* out, int64_t out_step) {
  constexpr int kWidth = kLanes<S>;
  int64_t q = 0;
  for (; kPixels < 8 && q + 2 * kWidth <= depth; q += 2 * kWidth) {
    SumTaps<kWidth, 2, kPixels>(taps, j, in + q, step, filter + q, out + q, out_step);
  }
  for (; q + kWidth <= depth; q += kWidth) {
    SumTaps<kWidth, 1, kPixels>(taps, j, in + q, step, filter + q, out + q, out_step);
  }
  for (; q + kWidth / 2 <= depth; q += kWidth / 2) {
    SumTaps<kWidth / 2, 1, kPixels>(taps, j, in + q, step, filter + q, out + q, out_step);
  }
  for (; q < depth; ++q) {
    SumTaps<1, 1, kPixels>(taps, j, in + q, step, filter + q, out + q, out_step);
  }
}

// All pixels of a line: those in the middle, which have all taps, several at a time.
template <typename S>
void SumLine(const Taps& taps, int64_t pixels, const S* in, int64_t step, const S* filter,
             int64_t depth, S* out, int64_t out_step) {
  constexpr int kMany = 8, kSome = 3;
  int64_t begin = 0, end = pixels;
  for (const Tap& t : taps) {
    begin = std::max(begin, t.begin);
    end = std::min(end, t.end);
  }
  Taps some;
  for (int64_t j = 0; j < pixels;) {
    if (j >= begin && j + kMany <= end) {
      SumChannels<kMany>(taps, j, in, step, filter, depth, out, out_step);
      j += kMany;
      continue;
    }
    if (j >= begin && j + kSome <= end) {
      SumChannels<kSome>(taps, j, in, step, filter, depth, out, out_step);
      j += kSome;
      continue;
    }
    some.clear();
    for (const Tap& t : taps) {
      if (j >= t.begin && j < t.end) some.push_back(t);
    }
    SumChannels<1>(some, j, in, step, filter, depth, out, out_step);
    ++j;
  }
}

// Row `row` of all images' of y.
template <typename S>
void ForwardRow(const ConvSizes& s, int64_t row, const S* x, const S* filter, S* y, Taps* taps) {
  const int64_t n = row / s.y.out, oy = row % s.y.out, depth = s.out_depth;
  taps->clear();
  for (int64_t ky = 0; ky < s.y.window; ++ky) {
    const int64_t iy = oy * s.y.stride + ky * s.y.dilation - s.y.before;
    if (iy < 0 || iy >= s.y.in) continue;
    for (int64_t kx = 0; kx < s.x.window; ++kx) {
      const int64_t start = kx * s.x.dilation - s.x.before;
      const Run run(start, s.x.stride, s.x.in, s.x.out);
      if (run.begin == run.end) continue;
      taps->push_back({(ky * s.x.window + kx) * depth, ((n * s.y.in + iy) * s.x.in + start) * depth,
                       run.begin, run.end});
    }
  }
  SumLine(*taps, s.x.out, x, s.x.stride * depth, filter, depth, y, depth);
}

// Row `row` of all images' of dx. Of every stride-th pixel the same elements of the filter take
// part, and they are a line.
template <typename S>
void BackInputRow(const ConvSizes& s, int64_t row, const S* filter, const S* dy, S* dx,
                  Taps* taps) {
  const int64_t n = row / s.y.in, iy = row % s.y.in, depth = s.out_depth;
  for (int64_t first = 0; first < std::min(s.x.stride, s.x.in); ++first) {
    const int64_t pixels = (s.x.in - first + s.x.stride - 1) / s.x.stride;
    taps->clear();
    for (int64_t ky = 0; ky < s.y.window; ++ky) {
      const int64_t down = iy + s.y.before - ky * s.y.dilation;
      if (down < 0 || down % s.y.stride != 0 || down / s.y.stride >= s.y.out) continue;
      for (int64_t kx = 0; kx < s.x.window; ++kx) {
        const int64_t across = first + s.x.before - kx * s.x.dilation;
        if (across % s.x.stride != 0) continue;
        const int64_t start = across / s.x.stride;
        const Run run(start, 1, s.x.out, pixels);
        if (run.begin == run.end) continue;
        taps->push_back({(ky * s.x.window + kx) * depth,
                         ((n * s.y.out + down / s.y.stride) * s.x.out + start) * depth, run.begin,
                         run.end});
      }
    }
    SumLine(*taps, pixels, dy, depth, filter, depth, dx + first * depth, s.x.stride * depth);
  }
}

// sums[k][i] += the sum over j < n of x[j][k][i] * dy[j][i], for kTaps elements of the filter's row
// and kWidth * kVectors channels; the steps are from one of these to the next.
template <int kWidth, int kVectors, int kTaps, typename S>
void AddProducts(int64_t n, const S* x, int64_t x_step, int64_t tap_step, const S* dy, S* sums,
                 int64_t depth) {
  using Vector = typename VectorOf<S, kWidth>::Type;
  Vector own[kTaps][kVectors] = {};
  for (int64_t j = 0; j < n; ++j, x += x_step, dy += depth) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      const Vector d = *reinterpret_cast<const Vector*>(dy + v * kWidth);
#pragma GCC unroll 8
      for (int k = 0; k < kTaps; ++k) {
        own[k][v] += *reinterpret_cast<const Vector*>(x + k * tap_step + v * kWidth) * d;
      }
    }
  }
#pragma GCC unroll 8
  for (int k = 0; k < kTaps; ++k) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      *reinterpret_cast<Vector*>(sums + k * depth + v * kWidth) += own[k][v];
    }
  }
}

// The same for `depth` channels.
template <int kTaps, typename S>
void AddChannels(int64_t n, const S* x, int64_t x_step, int64_t tap_step, const S* dy, S* sums,
                 int64_t depth) {
  constexpr int kWidth = kLanes<S>;
  if (n <= 0) return;
  int64_t q = 0;
  for (; q + 2 * kWidth <= depth; q += 2 * kWidth) {
    AddProducts<kWidth, 2, kTaps>(n, x + q, x_step, tap_step, dy + q, sums + q, depth);
  }
  for (; q + kWidth <= depth; q += kWidth) {
    AddProducts<kWidth, 1, kTaps>(n, x + q, x_step, tap_step, dy + q, sums + q, depth);
  }
  for (; q + kWidth / 2 <= depth; q += kWidth / 2) {
    AddProducts<kWidth / 2, 1, kTaps>(n, x + q, x_step, tap_step, dy + q, sums + q, depth);
  }
  for (; q < depth; ++q) {
    AddProducts<1, 1, kTaps>(n, x + q, x_step, tap_step, dy + q, sums + q, depth);
  }
}

// Adds what a row of x and one of dy give to a row of the filter's gradient.
template <typename S>
void AddRows(const ConvSizes& s, const S* x, const S* dy, S* sums) {
  const int64_t depth = s.out_depth, x_step = s.x.stride * depth;
  for (int64_t kx = 0; kx < s.x.window;) {
    // For as many elements as stay in registers: the pixels that have all of them together.
    const int64_t count = std::min<int64_t>(s.x.window - kx, 4);
    int64_t begin = 0, end = s.x.out;
    const auto run_of = [&](int64_t k) {
      return Run(k * s.x.dilation - s.x.before, s.x.stride, s.x.in, s.x.out);
    };
    for (int64_t k = kx; k < kx + count; ++k) {
      begin = std::max(begin, run_of(k).begin);
      end = std::min(end, run_of(k).end);
    }
    end = std::max(begin, end);
    const auto at = [&](int64_t k, int64_t j) {
      return x + (j * s.x.stride + k * s.x.dilation - s.x.before) * depth;
    };
    for (int64_t k = kx; k < kx + count; ++k) {
      const Run run = run_of(k);
      const int64_t before = std::min(run.end, begin), after = std::max(run.begin, end);
      AddChannels<1>(before - run.begin, at(k, run.begin), x_step, 0, dy + run.begin * depth,
                     sums + k * depth, depth);
      AddChannels<1>(run.end - after, at(k, after), x_step, 0, dy + after * depth, sums + k * depth,
                     depth);
    }
    const auto together = [&](auto taps) {
      AddChannels<decltype(taps)::value>(end - begin, at(kx, begin), x_step, s.x.dilation * depth,
                                         dy + begin * depth, sums + kx * depth, depth);
    };
    switch (count) {
      case 1:
        together(std::integral_constant<int, 1>());
        break;
      case 2:
        together(std::integral_constant<int, 2>());
        break;
      case 3:
        together(std::integral_constant<int, 3>());
        break;
      default:
        together(std::integral_constant<int, 4>());
        break;
    }
    kx += count;
  }
}

// ---- Over whole images ----

// Rows that make a block of work: by its multiplications.
int64_t Grain(const ConvSizes& s, int64_t pixels) {
  const int64_t work = std::max<int64_t>(1, s.y.window * s.x.window * s.out_depth * pixels);
  return std::max<int64_t>(1, 65536 / work);
}

// Each of `n` numbers `times` times.
template <typename S, typename T>
void Repeat(KernelContext* c, int64_t n, int64_t times, const T* from, S* to) {
  c->ParallelFor(n, std::max<int64_t>(1, 16384 / times), [&](int64_t begin, int64_t end) {
    if (times == 1) {
      for (int64_t i = begin; i < end; ++i) to[i] = static_cast<S>(from[i]);
      return;
    }
    for (int64_t i = begin; i < end; ++i) std::fill_n(to + i * times, times, S(from[i]));
  });
}

// Memory for several arrays in the context's scratch memory.
template <typename S>
class Arrays {
 public:
  // The place of an array of n elements, which there is after Allocate.
  size_t Add(int64_t n) {
    const size_t at = size_;
    size_ += (static_cast<size_t>(n) + 15) / 16 * 16;
    return at;
  }
  absl::Status Allocate(KernelContext* c) {
    FERRY_ASSIGN_OR_RETURN(void* const memory, c->Scratch(size_ * sizeof(S)));
    base_ = static_cast<S*>(memory);
    return absl::OkStatus();
  }
  S* operator[](size_t at) const { return base_ + at; }

 private:
  size_t size_ = 0;
  S* base_ = nullptr;
};

int64_t XElements(const ConvSizes& s) { return s.batch * s.y.in * s.x.in * s.in_depth; }
int64_t YElements(const ConvSizes& s) { return s.batch * s.y.out * s.x.out * s.out_depth; }
int64_t FilterElements(const ConvSizes& s) { return s.y.window * s.x.window * s.out_depth; }

template <typename T>
absl::Status Forward(KernelContext* c, const ConvSizes& s, const T* x, const T* filter, T* y) {
  using S = Wide<T>;
  constexpr bool kSame = std::is_same_v<T, S>;
  const int64_t per = s.out_depth / s.in_depth;
  Arrays<S> arrays;
  const bool repeats = !kSame || per > 1;
  const size_t xs = repeats ? arrays.Add(XElements(s) * per) : 0;
  const size_t filters = kSame ? 0 : arrays.Add(FilterElements(s));
  [[maybe_unused]] const size_t ys = kSame ? 0 : arrays.Add(YElements(s));
  if (repeats) FERRY_RETURN_IF_ERROR(arrays.Allocate(c));
  if (repeats) Repeat(c, XElements(s), per, x, arrays[xs]);
  if (!kSame) Repeat(c, FilterElements(s), 1, filter, arrays[filters]);
  const int64_t line = s.x.out * s.out_depth;
  c->ParallelFor(s.batch * s.y.out, Grain(s, s.x.out), [&](int64_t begin, int64_t end) {
    Taps taps;
    for (int64_t row = begin; row < end; ++row) {
      if constexpr (kSame) {
        ForwardRow(s, row, repeats ? arrays[xs] : x, filter, y + row * line, &taps);
      } else {
        S* const own = arrays[ys] + row * line;
        ForwardRow(s, row, arrays[xs], arrays[filters], own, &taps);
        for (int64_t i = 0; i < line; ++i) y[row * line + i] = static_cast<T>(own[i]);
      }
    }
  });
  return absl::OkStatus();
}

template <typename T>
absl::Status BackInput(KernelContext* c, const ConvSizes& s, const T* filter, const T* dy, T* dx) {
  using S = Wide<T>;
  constexpr bool kSame = std::is_same_v<T, S>;
  const int64_t per = s.out_depth / s.in_depth;
  Arrays<S> arrays;
  const size_t filters = kSame ? 0 : arrays.Add(FilterElements(s));
  const size_t dys = kSame ? 0 : arrays.Add(YElements(s));
  const bool sums = !kSame || per > 1;
  const size_t dxs = sums ? arrays.Add(XElements(s) * per) : 0;
  if (sums) FERRY_RETURN_IF_ERROR(arrays.Allocate(c));
  if (!kSame) Repeat(c, FilterElements(s), 1, filter, arrays[filters]);
  if (!kSame) Repeat(c, YElements(s), 1, dy, arrays[dys]);
  const int64_t line = s.x.in * s.in_depth;
  c->ParallelFor(s.batch * s.y.in, Grain(s, s.x.in), [&](int64_t begin, int64_t end) {
    Taps taps;
    for (int64_t row = begin; row < end; ++row) {
      T* const to = dx + row * line;
      S* const own = sums ? arrays[dxs] + row * line * per : nullptr;
      if constexpr (kSame) {
        BackInputRow(s, row, filter, dy, sums ? own : to, &taps);
      } else {
        BackInputRow<S>(s, row, arrays[filters], arrays[dys], own, &taps);
      }
      if (!sums) continue;
      for (int64_t i = 0; i < line; ++i) {
        S sum = own[i * per];
        for (int64_t m = 1; m < per; ++m) sum += own[i * per + m];
        to[i] = static_cast<T>(sum);
      }
    }
  });
  return absl::OkStatus();
}

// Parts of the rows of dy are summed up for themselves, and then their sums; how many parts there
// are depends on the sizes alone.
template <typename T>
absl::Status BackFilter(KernelContext* c, const ConvSizes& s, const T* x, const T* dy, T* dfilter) {
  using S = Wide<T>;
  constexpr bool kSame = std::is_same_v<T, S>;
  const int64_t per = s.out_depth / s.in_depth, size = FilterElements(s);
  const int64_t rows = s.batch * s.y.out;
  // Enough work each, and all of them together no larger than the image.
  const int64_t most = std::min({int64_t{16}, rows / Grain(s, s.x.out), XElements(s) / size});
  const int64_t parts = std::max<int64_t>(1, most);
  Arrays<S> arrays;
  const size_t sums = arrays.Add(size * parts);
  const bool repeats = !kSame || per > 1;
  const size_t xs = repeats ? arrays.Add(XElements(s) * per) : 0;
  const size_t dys = kSame ? 0 : arrays.Add(YElements(s));
  FERRY_RETURN_IF_ERROR(arrays.Allocate(c));
  if (repeats) Repeat(c, XElements(s), per, x, arrays[xs]);
  if (!kSame) Repeat(c, YElements(s), 1, dy, arrays[dys]);
  c->ParallelFor(parts, 1, [&](int64_t begin, int64_t end) {
    const S *from = arrays[xs], *grad = arrays[dys];
    if constexpr (kSame) {
      if (!repeats) from = x;
      grad = dy;
    }
    for (int64_t part = begin; part < end; ++part) {
      S* const to = arrays[sums] + part * size;
      std::fill_n(to, size, S(0));
      for (int64_t row = rows * part / parts; row < rows * (part + 1) / parts; ++row) {
        const int64_t n = row / s.y.out, oy = row % s.y.out;
        for (int64_t ky = 0; ky < s.y.window; ++ky) {
          const int64_t iy = oy * s.y.stride + ky * s.y.dilation - s.y.before;
          if (iy < 0 || iy >= s.y.in) continue;
          AddRows(s, from + (n * s.y.in + iy) * s.x.in * s.out_depth,
                  grad + row * s.x.out * s.out_depth, to + ky * s.x.window * s.out_depth);
        }
      }
    }
  });
  const S* const all = arrays[sums];
  c->ParallelFor(size, 16384, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      S sum = all[i];
      for (int64_t part = 1; part < parts; ++part) sum += all[part * size + i];
      dfilter[i] = static_cast<T>(sum);
    }
  });
  return absl::OkStatus();
}

// ---- Kernels ----

template <typename T, Part kPart>
class DepthwiseKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(attrs_, WindowAttrsOf(c));
    return CheckConvAttrs(Name(kPart), attrs_);
  }

  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const ConvSizes s, SizesOf(*c, kPart, attrs_));
    TensorShape shape;
    if (kPart == Part::kForward) {
      shape = ImageShape(s.channels_first, s.batch, s.y.out, s.x.out, s.out_depth);
    } else {
      FERRY_ASSIGN_OR_RETURN(shape, c->InputAsShape(kPart == Part::kInput ? 0 : 1));
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    T* const to = out->data<T>();
    const Tensor& first = c->input(kPart == Part::kInput ? 1 : 0);
    const Tensor& second = c->input(kPart == Part::kForward ? 1 : 2);
    if (shape.num_elements() == 0) return absl::OkStatus();
    if (first.num_elements() == 0 || second.num_elements() == 0) {
      std::fill_n(to, shape.num_elements(), T(0));
      return absl::OkStatus();
    }
    const T *a = first.data<T>(), *b = second.data<T>();
    if (s.channels_first) {  // A convolution of as many groups; the filter lies in the same order.
      if constexpr (kPart == Part::kForward) return Convolve(c, s, a, b, to);
      if constexpr (kPart == Part::kInput) return ConvolveBack(c, s, a, b, to);
      if constexpr (kPart == Part::kFilter) return ConvolveFilter(c, s, a, b, to);
    }
    if constexpr (kPart == Part::kForward) return Forward(c, s, a, b, to);
    if constexpr (kPart == Part::kInput) return BackInput(c, s, a, b, to);
    if constexpr (kPart == Part::kFilter) return BackFilter(c, s, a, b, to);
  }

  WindowAttrs attrs_;
};
template <typename T>
using ForwardKernel = DepthwiseKernel<T, Part::kForward>;
template <typename T>
using InputKernel = DepthwiseKernel<T, Part::kInput>;
template <typename T>
using FilterKernel = DepthwiseKernel<T, Part::kFilter>;

// ---- Ops ----

#define FERRY_DEPTHWISE_ATTRS                         \
  Output("output: T")                                 \
      .Attr("T: {half, bfloat16, float, double}")     \
      .Attr("strides: list(int)")                     \
      .Attr("padding: {'SAME', 'VALID', 'EXPLICIT'}") \
      .Attr("explicit_paddings: list(int) = []")      \
      .Attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'") \
      .Attr("dilations: list(int) = [1, 1, 1, 1]")

FERRY_OP("DepthwiseConv2dNative")
    .Input("input: T")
    .Input("filter: T")
    .FERRY_DEPTHWISE_ATTRS.Shape(ForwardShape)
    .Gradient(ConvGradient);

FERRY_OP("DepthwiseConv2dNativeBackpropInput")
    .Input("input_sizes: int32")
    .Input("filter: T")
    .Input("out_backprop: T")
    .FERRY_DEPTHWISE_ATTRS.Shape(GradientShape<0>)
    .Gradient(ConvBackpropInputGradient);

FERRY_OP("DepthwiseConv2dNativeBackpropFilter")
    .Input("input: T")
    .Input("filter_sizes: int32")
    .Input("out_backprop: T")
    .FERRY_DEPTHWISE_ATTRS.Shape(GradientShape<1>)
    .Gradient(ConvBackpropFilterGradient);

const bool registered =
    RegisterCpu<ForwardKernel>(FloatTypes(), "DepthwiseConv2dNative") &&
    RegisterCpu<InputKernel>(FloatTypes(), "DepthwiseConv2dNativeBackpropInput") &&
    RegisterCpu<FilterKernel>(FloatTypes(), "DepthwiseConv2dNativeBackpropFilter");

}  // namespace
}  // namespace ferry
