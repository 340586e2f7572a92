// DepthwiseConv2dNative and its gradients: each channel is convolved with filters of its own, which
// make `multiplier` channels of it. Definitions of the operands are in window.h: output channel q
// is channel q / multiplier's, and the filter is [y, x, in_depth, multiplier].
#include <algorithm>
#include <array>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/conv_loops.h"
#include "kernels/types.h"
#include "kernels/window_checks.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
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

// Sums are made in floats at least.
template <typename T>
using SumType = std::conditional_t<std::is_same_v<T, double>, double, float>;

constexpr int64_t kBlock = 64;  // Channels whose sums are made at once.

// The windows' elements that hold position `at` of an axis; calls fn(window number, element).
template <typename Fn>
void ForWindowsAt(const WindowAxis& a, int64_t at, Fn fn) {
  for (int64_t k = 0; k < a.window; ++k) {
    const int64_t from = at + a.before - k * a.dilation;
    if (from < 0 || from % a.stride != 0 || from / a.stride >= a.out) continue;
    fn(from / a.stride, k);
  }
}

// The elements of window `o` that lie in the image; calls fn(position, element).
template <typename Fn>
void ForPositions(const WindowAxis& a, int64_t o, Fn fn) {
  for (int64_t k = 0; k < a.window; ++k) {
    const int64_t at = o * a.stride + k * a.dilation - a.before;
    if (at >= 0 && at < a.in) fn(at, k);
  }
}

// What the three have in common: sums[i] += one[i] * other[i], where `one` has an element for each
// `per` of the others, of output channels q, q + 1, ... of which there are n.
template <typename S, typename T>
void AddProducts(int64_t q, int64_t n, int64_t per, const T* one, const T* other, S* sums) {
  if (per == 1) {
    for (int64_t i = 0; i < n; ++i) {
      sums[i] += static_cast<S>(one[q + i]) * static_cast<S>(other[q + i]);
    }
    return;
  }
  int64_t channel = q / per, left = per - q % per;
  for (int64_t i = 0; i < n; ++i) {
    sums[i] += static_cast<S>(one[channel]) * static_cast<S>(other[q + i]);
    if (--left == 0) {
      ++channel;
      left = per;
    }
  }
}

// As many channels of floats or doubles as stay in registers; other types have none.
template <typename T>
constexpr int64_t kWide = std::is_same_v<T, SumType<T>> ? 128 / static_cast<int64_t>(sizeof(T)) : 0;

// sums[i] += the sum over k < n of one[k * one_step + i] * other[k * other_step + i], of kWide<T>
// channels.
template <typename T>
void AddRun(int64_t n, const T* one, int64_t one_step, const T* other, int64_t other_step,
            T* sums) {
  typedef T Vector __attribute__((vector_size(32), aligned(alignof(T)), may_alias));
  Vector* const to = reinterpret_cast<Vector*>(sums);
  Vector a = to[0], b = to[1], c = to[2], d = to[3];
  for (int64_t k = 0; k < n; ++k) {
    const Vector* const x = reinterpret_cast<const Vector*>(one + k * one_step);
    const Vector* const y = reinterpret_cast<const Vector*>(other + k * other_step);
    a += x[0] * y[0];
    b += x[1] * y[1];
    c += x[2] * y[2];
    d += x[3] * y[3];
  }
  to[0] = a;
  to[1] = b;
  to[2] = c;
  to[3] = d;
}

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

int64_t Grain(const ConvSizes& s, int64_t pixels) {
  const int64_t work = std::max<int64_t>(1, s.y.window * s.x.window * s.out_depth * pixels);
  return std::max<int64_t>(1, 16384 / work);
}

template <typename T>
void Forward(KernelContext* c, const ConvSizes& s, const T* x, const T* filter, T* y) {
  using S = SumType<T>;
  const int64_t per = s.out_depth / s.in_depth;
  c->ParallelFor(s.batch * s.y.out, Grain(s, s.x.out), [&](int64_t begin, int64_t end) {
    std::array<S, kBlock> sums;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / s.y.out, oy = row % s.y.out;
      for (int64_t ox = 0; ox < s.x.out; ++ox) {
        T* const to = y + (row * s.x.out + ox) * s.out_depth;
        int64_t q = 0;
        if constexpr (kWide < T >> 0) {
          const int64_t start = ox * s.x.stride - s.x.before;
          const Run run(start, s.x.dilation, s.x.in, s.x.window);
          const int64_t ix = start + run.begin * s.x.dilation;
          for (; per == 1 && q + kWide<T> <= s.in_depth; q += kWide<T>) {
            std::fill_n(sums.begin(), kWide<T>, T(0));
            ForPositions(s.y, oy, [&](int64_t iy, int64_t ky) {
              AddRun(run.end - run.begin, x + ((n * s.y.in + iy) * s.x.in + ix) * s.in_depth + q,
                     s.x.dilation * s.in_depth,
                     filter + (ky * s.x.window + run.begin) * s.in_depth + q, s.in_depth,
                     sums.data());
            });
            std::copy_n(sums.begin(), kWide<T>, to + q);
          }
        }
        for (; q < s.out_depth; q += kBlock) {
          const int64_t count = std::min(kBlock, s.out_depth - q);
          std::fill_n(sums.begin(), count, S(0));
          ForPositions(s.y, oy, [&](int64_t iy, int64_t ky) {
            ForPositions(s.x, ox, [&](int64_t ix, int64_t kx) {
              AddProducts(q, count, per, x + ((n * s.y.in + iy) * s.x.in + ix) * s.in_depth,
                          filter + (ky * s.x.window + kx) * s.out_depth, sums.data());
            });
          });
          for (int64_t i = 0; i < count; ++i) to[q + i] = static_cast<T>(sums[i]);
        }
      }
    }
  });
}

template <typename T>
void BackInput(KernelContext* c, const ConvSizes& s, const T* filter, const T* dy, T* dx) {
  using S = SumType<T>;
  const int64_t per = s.out_depth / s.in_depth;
  c->ParallelFor(s.batch * s.y.in, Grain(s, s.x.in), [&](int64_t begin, int64_t end) {
    std::array<S, kBlock> sums;
    for (int64_t row = begin; row < end; ++row) {
      const int64_t n = row / s.y.in, iy = row % s.y.in;
      for (int64_t ix = 0; ix < s.x.in; ++ix) {
        T* const to = dx + (row * s.x.in + ix) * s.in_depth;
        int64_t channel = 0;
        if constexpr (kWide < T >> 0) {
          // A window further on holds the pixel by an element further back: those are counted down.
          const int64_t last = s.x.window - 1;
          const int64_t start = ix + s.x.before - last * s.x.dilation;
          const Run run(start, s.x.dilation, s.x.out, s.x.window);
          const int64_t ox = start + run.begin * s.x.dilation;
          for (; per == 1 && s.x.stride == 1 && channel + kWide<T> <= s.in_depth;
               channel += kWide<T>) {
            std::fill_n(sums.begin(), kWide<T>, T(0));
            ForWindowsAt(s.y, iy, [&](int64_t oy, int64_t ky) {
              AddRun(run.end - run.begin,
                     dy + ((n * s.y.out + oy) * s.x.out + ox) * s.in_depth + channel,
                     s.x.dilation * s.in_depth,
                     filter + (ky * s.x.window + last - run.begin) * s.in_depth + channel,
                     -s.in_depth, sums.data());
            });
            std::copy_n(sums.begin(), kWide<T>, to + channel);
          }
        }
        for (; channel < s.in_depth; channel += kBlock) {
          const int64_t count = std::min(kBlock, s.in_depth - channel);
          std::fill_n(sums.begin(), count, S(0));
          ForWindowsAt(s.y, iy, [&](int64_t oy, int64_t ky) {
            ForWindowsAt(s.x, ix, [&](int64_t ox, int64_t kx) {
              const T* const d = dy + ((n * s.y.out + oy) * s.x.out + ox) * s.out_depth;
              const T* const f = filter + (ky * s.x.window + kx) * s.out_depth;
              if (per == 1) {
                AddProducts(channel, count, 1, d, f, sums.data());
                return;
              }
              for (int64_t i = 0; i < count; ++i) {
                const int64_t q = (channel + i) * per;
                for (int64_t m = 0; m < per; ++m) {
                  sums[static_cast<size_t>(i)] +=
                      static_cast<S>(d[q + m]) * static_cast<S>(f[q + m]);
                }
              }
            });
          });
          for (int64_t i = 0; i < count; ++i) to[channel + i] = static_cast<T>(sums[i]);
        }
      }
    }
  });
}

// Adds to sums[i] the products of a row of x, from the pixel that its window's element kx takes
// first, with a row of dy, of `count` output channels from q on.
template <typename T, typename S>
void AddRow(const ConvSizes& s, int64_t kx, int64_t q, int64_t count, const T* x, const T* dy,
            S* sums) {
  const int64_t per = s.out_depth / s.in_depth, step = s.x.stride * s.in_depth;
  const int64_t start = kx * s.x.dilation - s.x.before;
  const Run run(start, s.x.stride, s.x.in, s.x.out);
  const T* from = x + (start + run.begin * s.x.stride) * s.in_depth;
  const T* grad = dy + run.begin * s.out_depth;
  int64_t done = 0;
  if constexpr (kWide < T >> 0) {
    for (; per == 1 && done + kWide<T> <= count; done += kWide<T>) {
      AddRun(run.end - run.begin, from + q + done, step, grad + q + done, s.in_depth, sums + done);
    }
  }
  if (done == count) return;
  for (int64_t k = run.begin; k < run.end; ++k, from += step, grad += s.out_depth) {
    AddProducts(q + done, count - done, per, from, grad, sums + done);
  }
}

constexpr int64_t kFilterBlock = 32;  // Channels of a task: few, for the threads' sake.

// Each element is summed up by one thread: rows first, then over them. A thread has a row of the
// filter, so that rows of x and dy are read for all of its columns while they are at hand.
template <typename T>
void BackFilter(KernelContext* c, const ConvSizes& s, const T* x, const T* dy, T* dfilter) {
  using S = SumType<T>;
  const int64_t blocks = (s.out_depth + kFilterBlock - 1) / kFilterBlock;
  const int64_t work =
      std::max<int64_t>(1, s.batch * s.y.out * s.x.out * s.x.window * kFilterBlock);
  c->ParallelFor(s.y.window * blocks, std::max<int64_t>(1, 16384 / work),
                 [&](int64_t begin, int64_t end) {
                   std::array<S, kFilterBlock> row;
                   std::vector<S> sums(static_cast<size_t>(s.x.window * kFilterBlock));
                   for (int64_t task = begin; task < end; ++task) {
                     const int64_t ky = task / blocks, q = task % blocks * kFilterBlock;
                     const int64_t count = std::min(kFilterBlock, s.out_depth - q);
                     std::fill(sums.begin(), sums.end(), S(0));
                     for (int64_t n = 0; n < s.batch; ++n) {
                       for (int64_t oy = 0; oy < s.y.out; ++oy) {
                         const int64_t iy = oy * s.y.stride + ky * s.y.dilation - s.y.before;
                         if (iy < 0 || iy >= s.y.in) continue;
                         for (int64_t kx = 0; kx < s.x.window; ++kx) {
                           std::fill_n(row.begin(), count, S(0));
                           AddRow(s, kx, q, count, x + (n * s.y.in + iy) * s.x.in * s.in_depth,
                                  dy + (n * s.y.out + oy) * s.x.out * s.out_depth, row.data());
                           S* const to = sums.data() + kx * kFilterBlock;
                           for (int64_t i = 0; i < count; ++i) to[i] += row[static_cast<size_t>(i)];
                         }
                       }
                     }
                     for (int64_t kx = 0; kx < s.x.window; ++kx) {
                       T* const to = dfilter + (ky * s.x.window + kx) * s.out_depth + q;
                       for (int64_t i = 0; i < count; ++i) {
                         to[i] = static_cast<T>(sums[static_cast<size_t>(kx * kFilterBlock + i)]);
                       }
                     }
                   }
                 });
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
    if constexpr (kPart == Part::kForward) Forward(c, s, a, b, to);
    if constexpr (kPart == Part::kInput) BackInput(c, s, a, b, to);
    if constexpr (kPart == Part::kFilter) BackFilter(c, s, a, b, to);
    return absl::OkStatus();
  }

  WindowAttrs attrs_;
};
template <typename T>
using ForwardKernel = DepthwiseKernel<T, Part::kForward>;
template <typename T>
using InputKernel = DepthwiseKernel<T, Part::kInput>;
template <typename T>
using FilterKernel = DepthwiseKernel<T, Part::kFilter>;

// ---- Gradients ----

// Another of the three ops, with the node's attributes.
Output Related(GradientContext* c, Part part, Output a, Output b, Output third = {}) {
  NodeBuilder builder(c->scope(), Name(part));
  builder.Input(a).Input(b);
  if (part != Part::kForward) builder.Input(third);
  for (const char* name : {"strides", "padding", "explicit_paddings", "data_format", "dilations"}) {
    auto it = c->node()->attrs().find(name);
    if (it != c->node()->attrs().end()) builder.AttrValue(name, it->second);
  }
  return builder.BuildOutput();
}

absl::Status ForwardGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output x = c->input(0), w = c->input(1), dy = c->grad(0);
  c->set_input_grad(0, Related(c, Part::kInput, ops::Shape(s, x), w, dy));
  c->set_input_grad(1, Related(c, Part::kFilter, x, ops::Shape(s, w), dy));
  return s.status();
}
// dx is linear in w and in dy.
absl::Status BackInputGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output w = c->input(1), dy = c->input(2), g = c->grad(0);
  c->set_input_grad(1, Related(c, Part::kFilter, g, ops::Shape(s, w), dy));
  c->set_input_grad(2, Related(c, Part::kForward, g, w));
  return s.status();
}
// dw is linear in x and in dy.
absl::Status BackFilterGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output x = c->input(0), dy = c->input(2), g = c->grad(0);
  c->set_input_grad(0, Related(c, Part::kInput, ops::Shape(s, x), g, dy));
  c->set_input_grad(2, Related(c, Part::kForward, x, g));
  return s.status();
}

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
    .Gradient(ForwardGradient);

FERRY_OP("DepthwiseConv2dNativeBackpropInput")
    .Input("input_sizes: int32")
    .Input("filter: T")
    .Input("out_backprop: T")
    .FERRY_DEPTHWISE_ATTRS.Shape(GradientShape<0>)
    .Gradient(BackInputGradient);

FERRY_OP("DepthwiseConv2dNativeBackpropFilter")
    .Input("input: T")
    .Input("filter_sizes: int32")
    .Input("out_backprop: T")
    .FERRY_DEPTHWISE_ATTRS.Shape(GradientShape<1>)
    .Gradient(BackFilterGradient);

const bool registered =
    RegisterCpu<ForwardKernel>(FloatTypes(), "DepthwiseConv2dNative") &&
    RegisterCpu<InputKernel>(FloatTypes(), "DepthwiseConv2dNativeBackpropInput") &&
    RegisterCpu<FilterKernel>(FloatTypes(), "DepthwiseConv2dNativeBackpropFilter");

}  // namespace
}  // namespace ferry
