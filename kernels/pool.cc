// MaxPool and AvgPool with their gradients, MaxPoolV2 and MaxPoolGradV2 (whose windows are inputs),
// MaxPoolGradGrad; MaxPoolWithArgmax and MaxPoolGradWithArgmax. All of them see images with the
// channels innermost (PoolSizes).
//
// Of equal elements the first one, row by row, is a window's greatest. Means don't count padding.
#include <algorithm>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "kernels/window_checks.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

using gpu::PoolOp;

// ---- Arguments ----

// Inputs `first` and first + 1 of the ops with windows as inputs.
absl::Status ReadWindows(const KernelContext& c, int first, WindowAttrs* attrs) {
  for (int i = first; i < first + 2; ++i) {
    const bool ksize = i == first;
    FERRY_ASSIGN_OR_RETURN(const auto values, c.InputAsInts(i));
    if (c.input(i).rank() != 1 || values.size() != 4) {
      return InvalidArgument("Sliding window ", ksize ? "ksize" : "strides",
                             " field must specify 4 dimensions, got ",
                             c.input(i).shape().DebugString());
    }
    (ksize ? attrs->ksize : attrs->strides).assign(values.begin(), values.end());
  }
  return absl::OkStatus();
}

// Checks all arguments and finds the sizes and the output's shape. `v2`: the windows are the last
// two inputs.
absl::Status PoolArguments(const KernelContext& c, PoolOp op, bool v2, WindowAttrs attrs,
                           PoolSizes* sizes, TensorShape* output) {
  if (v2) {
    FERRY_RETURN_IF_ERROR(ReadWindows(c, c.num_inputs() - 2, &attrs));
    FERRY_RETURN_IF_ERROR(CheckPoolAttrs(attrs, op == PoolOp::kMax));
  }
  TensorShape input;
  if (op == PoolOp::kAvgGrad) {
    if (c.input(0).rank() != 1 || c.input(0).num_elements() != 4) {
      return InvalidArgument("orig_input_shape must be 1-dimensional and 4 elements, got ",
                             c.input(0).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(input, c.InputAsShape(0));
  } else {
    input = c.input(0).shape();
    if (input.rank() != 4) {
      return InvalidArgument("a pooling's input must be 4-dimensional, got ", input.DebugString());
    }
  }
  TensorShape pooled;
  FERRY_RETURN_IF_ERROR(PoolSizesOf(attrs, input, sizes, &pooled));
  *output = op == PoolOp::kMaxGrad || op == PoolOp::kAvgGrad ? input : pooled;
  auto expect = [&](int i, const char* what, const TensorShape& shape) -> absl::Status {
    if (c.input(i).shape() == shape) return absl::OkStatus();
    return InvalidArgument("Expected ", what, " shape to be ", shape.DebugString(), ", but got ",
                           c.input(i).shape().DebugString());
  };
  if (op == PoolOp::kAvgGrad) return expect(1, "grad", pooled);
  if (op == PoolOp::kMaxGrad || op == PoolOp::kMaxGradGrad) {
    FERRY_RETURN_IF_ERROR(expect(1, "orig_output", pooled));
    return expect(2, "grad", op == PoolOp::kMaxGrad ? pooled : input);
  }
  return absl::OkStatus();
}

// ---- Loops ----

// The part of window i that lies in the image.
std::pair<int64_t, int64_t> Cells(const WindowAxis& a, int64_t i) {
  const int64_t begin = i * a.stride - a.before;
  return {std::max<int64_t>(0, begin), std::min(a.in, begin + a.window)};
}

constexpr int64_t kGrain = 1 << 15;  // Elements that are read.
constexpr int64_t kChannels = 64;    // Worked on at a time.

// The most elements that a window covers.
int64_t Covered(const PoolSizes& s) {
  return std::min(s.y.window, s.y.in) * std::min(s.x.window, s.x.in);
}

// Calls fn(image, first channel, channels) for parts that share no element.
template <typename Fn>
void ForChannels(KernelContext* c, const PoolSizes& s, const Fn& fn) {
  const int64_t blocks = (s.depth + kChannels - 1) / kChannels;
  const int64_t work = s.y.out * s.x.out * Covered(s) * std::min(s.depth, kChannels);
  c->ParallelFor(s.batch * blocks, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t u = begin; u < end; ++u) {
                     const int64_t first = u % blocks * kChannels;
                     fn(u / blocks, first, std::min(kChannels, s.depth - first));
                   }
                 });
}

// Calls fn(image, out row, out column) for each output position.
template <typename Fn>
void ForWindows(KernelContext* c, const PoolSizes& s, const Fn& fn) {
  const int64_t work = s.x.out * Covered(s) * s.depth;
  c->ParallelFor(s.batch * s.y.out, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, work)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t u = begin; u < end; ++u) {
                     for (int64_t x = 0; x < s.x.out; ++x) fn(u / s.y.out, u % s.y.out, x);
                   }
                 });
}

template <typename T>
void MaxPool(KernelContext* c, const PoolSizes& s, const T* in, T* out) {
  ForWindows(c, s, [&](int64_t n, int64_t oy, int64_t ox) {
    const auto [y0, y1] = Cells(s.y, oy);
    const auto [x0, x1] = Cells(s.x, ox);
    T* const to = out + ((n * s.y.out + oy) * s.x.out + ox) * s.depth;
    // So NaN never is the greatest, and the least finite number is what's left of infinite ones.
    std::fill_n(to, s.depth, Eigen::NumTraits<T>::lowest());
    for (int64_t y = y0; y < y1; ++y) {
      const T* from = in + ((n * s.y.in + y) * s.x.in + x0) * s.depth;
      for (int64_t x = x0; x < x1; ++x, from += s.depth) {
        for (int64_t k = 0; k < s.depth; ++k) to[k] = from[k] > to[k] ? from[k] : to[k];
      }
    }
  });
}

// Channels whose greatest elements are sought together, in a vector register.
template <typename T>
inline constexpr int64_t kLanes = 32 / static_cast<int64_t>(sizeof(T));

// Looks at `lanes` channels of a window's cells, which begin at `cells`, the pixel number `pixel`.
template <typename T, typename At>
inline void FindGreatest(const PoolSizes& s, const T* cells, int64_t pixel, int64_t height,
                         int64_t width, int64_t lanes, T* best, At* at) {
  for (int64_t k = 0; k < lanes; ++k) best[k] = cells[k];
  for (int64_t k = 0; k < lanes; ++k) at[k] = static_cast<At>(pixel);
  for (int64_t y = 0; y < height; ++y) {
    for (int64_t x = 0; x < width; ++x) {
      const T* const from = cells + (y * s.x.in + x) * s.depth;
      const At here = static_cast<At>(pixel + y * s.x.in + x);
      for (int64_t k = 0; k < lanes; ++k) {
        const bool greater = from[k] > best[k];
        best[k] = greater ? from[k] : best[k];
        at[k] = greater ? here : at[k];
      }
    }
  }
}

// ForGreatest with pixels counted by At.
template <typename At, typename T, typename Fn>
void ForGreatestBy(const PoolSizes& s, const T* image, int64_t first, int64_t count, const Fn& fn) {
  const int64_t size = s.y.in * s.x.in * s.depth;
  for (int64_t oy = 0; oy < s.y.out; ++oy) {
    const auto [y0, y1] = Cells(s.y, oy);
    for (int64_t ox = 0; ox < s.x.out; ++ox) {
      const auto [x0, x1] = Cells(s.x, ox);
      const int64_t pixel = y0 * s.x.in + x0;
      const int64_t last = ((y1 - 1) * s.x.in + x1 - 1) * s.depth;
      for (int64_t k = first; k < first + count; k += kLanes<T>) {
        T best[kLanes<T>];
        At at[kLanes<T>];
        const int64_t lanes = std::min(kLanes<T>, first + count - k);
        const T* const cells = image + pixel * s.depth + k;
        if (last + k + kLanes<T> <= size) {
          // What follows the channels in memory is looked at too, which is quicker.
          FindGreatest(s, cells, pixel, y1 - y0, x1 - x0, kLanes<T>, best, at);
        } else {
          FindGreatest(s, cells, pixel, y1 - y0, x1 - x0, lanes, best, at);
        }
        fn(oy * s.x.out + ox, k, lanes, at);
      }
    }
  }
}

// Calls fn(output position, channel, lanes, pixels) for each window of an image and the channels
// from `first` on, up to kLanes at a time: where their greatest elements lie.
template <typename T, typename Fn>
void ForGreatest(const PoolSizes& s, const T* image, int64_t first, int64_t count, const Fn& fn) {
  // As wide as T where that will do: vectors of both then have as many elements.
  if (sizeof(T) <= 4 && s.y.in * s.x.in <= std::numeric_limits<int32_t>::max()) {
    ForGreatestBy<int32_t>(s, image, first, count, fn);
  } else {
    ForGreatestBy<int64_t>(s, image, first, count, fn);
  }
}

template <typename T>
void FillChannels(const PoolSizes& s, T* image, int64_t first, int64_t count) {
  const int64_t pixels = s.y.in * s.x.in;
  if (count == s.depth) {
    std::fill_n(image, pixels * count, T(0));
    return;
  }
  for (int64_t i = 0; i < pixels; ++i) std::fill_n(image + i * s.depth + first, count, T(0));
}

template <typename T>
void MaxPoolGrad(KernelContext* c, const PoolSizes& s, const T* in, const T* dy, T* dx) {
  const int64_t pixels = s.y.in * s.x.in * s.depth, windows = s.y.out * s.x.out * s.depth;
  ForChannels(c, s, [&](int64_t n, int64_t first, int64_t count) {
    T* const image = dx + n * pixels;
    FillChannels(s, image, first, count);
    ForGreatest(s, in + n * pixels, first, count,
                [&](int64_t window, int64_t channel, int64_t lanes, const auto* at) {
                  const T* const from = dy + n * windows + window * s.depth + channel;
                  T* const to = image + channel;
                  for (int64_t k = 0; k < lanes; ++k) {
                    T* const cell = to + static_cast<int64_t>(at[k]) * s.depth + k;
                    *cell = static_cast<T>(*cell + from[k]);
                  }
                });
  });
}

template <typename T>
void MaxPoolGradGrad(KernelContext* c, const PoolSizes& s, const T* in, const T* grad, T* out) {
  const int64_t pixels = s.y.in * s.x.in * s.depth, windows = s.y.out * s.x.out * s.depth;
  ForChannels(c, s, [&](int64_t n, int64_t first, int64_t count) {
    ForGreatest(s, in + n * pixels, first, count,
                [&](int64_t window, int64_t channel, int64_t lanes, const auto* at) {
                  const T* const from = grad + n * pixels + channel;
                  T* const to = out + n * windows + window * s.depth + channel;
                  for (int64_t k = 0; k < lanes; ++k) {
                    to[k] = from[static_cast<int64_t>(at[k]) * s.depth + k];
                  }
                });
  });
}

template <typename T>
void AvgPool(KernelContext* c, const PoolSizes& s, const T* in, T* out) {
  using W = Wide<T>;
  ForWindows(c, s, [&](int64_t n, int64_t oy, int64_t ox) {
    const auto [y0, y1] = Cells(s.y, oy);
    const auto [x0, x1] = Cells(s.x, ox);
    const W count = static_cast<W>((y1 - y0) * (x1 - x0));
    T* const to = out + ((n * s.y.out + oy) * s.x.out + ox) * s.depth;
    for (int64_t first = 0; first < s.depth; first += kChannels) {
      const int64_t channels = std::min(kChannels, s.depth - first);
      W sums[kChannels] = {};
      for (int64_t y = y0; y < y1; ++y) {
        const T* from = in + ((n * s.y.in + y) * s.x.in + x0) * s.depth + first;
        for (int64_t x = x0; x < x1; ++x, from += s.depth) {
          for (int64_t k = 0; k < channels; ++k) sums[k] += static_cast<W>(from[k]);
        }
      }
      for (int64_t k = 0; k < channels; ++k) to[first + k] = static_cast<T>(sums[k] / count);
    }
  });
}

template <typename T>
void AvgPoolGrad(KernelContext* c, const PoolSizes& s, const T* dy, T* dx) {
  using W = Wide<T>;
  const int64_t pixels = s.y.in * s.x.in * s.depth, windows = s.y.out * s.x.out * s.depth;
  ForChannels(c, s, [&](int64_t n, int64_t first, int64_t count) {
    T* const image = dx + n * pixels;
    FillChannels(s, image, first, count);
    for (int64_t oy = 0; oy < s.y.out; ++oy) {
      const auto [y0, y1] = Cells(s.y, oy);
      for (int64_t ox = 0; ox < s.x.out; ++ox) {
        const auto [x0, x1] = Cells(s.x, ox);
        const W part = W(1) / static_cast<W>((y1 - y0) * (x1 - x0));
        const T* const from = dy + n * windows + (oy * s.x.out + ox) * s.depth + first;
        W shares[kChannels];
        for (int64_t k = 0; k < count; ++k) shares[k] = static_cast<W>(from[k]) * part;
        for (int64_t y = y0; y < y1; ++y) {
          T* to = image + (y * s.x.in + x0) * s.depth + first;
          for (int64_t x = x0; x < x1; ++x, to += s.depth) {
            for (int64_t k = 0; k < count; ++k) {
              to[k] = static_cast<T>(static_cast<W>(to[k]) + shares[k]);
            }
          }
        }
      }
    }
  });
}

template <typename T, PoolOp kOp, bool kV2 = false>
class PoolKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(attrs_, WindowAttrsOf(c));
    return kV2 ? absl::OkStatus() : CheckPoolAttrs(attrs_, kOp == PoolOp::kMax);
  }

  absl::Status Compute(KernelContext* c) const override {
    PoolSizes s;
    TensorShape shape;
    FERRY_RETURN_IF_ERROR(PoolArguments(*c, kOp, kV2, attrs_, &s, &shape));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (shape.num_elements() == 0) return absl::OkStatus();
    T* const to = out->data<T>();
    if constexpr (kOp == PoolOp::kMax) MaxPool(c, s, c->input(0).data<T>(), to);
    if constexpr (kOp == PoolOp::kAvg) AvgPool(c, s, c->input(0).data<T>(), to);
    if constexpr (kOp == PoolOp::kAvgGrad) AvgPoolGrad(c, s, c->input(1).data<T>(), to);
    if constexpr (kOp == PoolOp::kMaxGrad) {
      MaxPoolGrad(c, s, c->input(0).data<T>(), c->input(2).data<T>(), to);
    }
    if constexpr (kOp == PoolOp::kMaxGradGrad) {
      MaxPoolGradGrad(c, s, c->input(0).data<T>(), c->input(2).data<T>(), to);
    }
    return absl::OkStatus();
  }

 private:
  WindowAttrs attrs_;
};
template <typename T>
using MaxPoolKernel = PoolKernel<T, PoolOp::kMax>;
template <typename T>
using MaxPoolGradKernel = PoolKernel<T, PoolOp::kMaxGrad>;
template <typename T>
using MaxPoolGradGradKernel = PoolKernel<T, PoolOp::kMaxGradGrad>;
template <typename T>
using MaxPoolV2Kernel = PoolKernel<T, PoolOp::kMax, true>;
template <typename T>
using MaxPoolGradV2Kernel = PoolKernel<T, PoolOp::kMaxGrad, true>;
template <typename T>
using AvgPoolKernel = PoolKernel<T, PoolOp::kAvg>;
template <typename T>
using AvgPoolGradKernel = PoolKernel<T, PoolOp::kAvgGrad>;

// ---- Shapes ----

absl::Status PoolShape(InferenceContext* c, bool over_channels) {
  FERRY_ASSIGN_OR_RETURN(const WindowAttrs attrs, WindowAttrsOf(*c));
  FERRY_RETURN_IF_ERROR(CheckPoolAttrs(attrs, over_channels));
  FERRY_ASSIGN_OR_RETURN(PartialShape input, c->WithRank(c->input(0), 4));
  FERRY_ASSIGN_OR_RETURN(PartialShape out, PooledShape(attrs, input));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}
absl::Status MaxPoolShape(InferenceContext* c) { return PoolShape(c, true); }
absl::Status SpatialPoolShape(InferenceContext* c) { return PoolShape(c, false); }

absl::Status MaxPoolV2Shape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(WindowAttrs attrs, WindowAttrsOf(*c));
  FERRY_ASSIGN_OR_RETURN(PartialShape input, c->WithRank(c->input(0), 4));
  PartialShape out = PartialShape::UnknownOfRank(4);
  bool known = true;
  for (int i = 1; i < 3; ++i) {
    FERRY_RETURN_IF_ERROR(c->WithRank(c->input(i), 1).status());
    const Tensor* const value = c->value(i);
    known = known && value != nullptr && value->num_elements() == 4;
    if (!known) break;
    const auto span = value->span<int32_t>();
    (i == 1 ? attrs.ksize : attrs.strides).assign(span.begin(), span.end());
  }
  if (known) {
    FERRY_RETURN_IF_ERROR(CheckPoolAttrs(attrs, true));
    FERRY_ASSIGN_OR_RETURN(out, PooledShape(attrs, input));
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// As the input that was pooled.
absl::Status MaxPoolGradShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(PartialShape input, c->WithRank(c->input(0), 4));
  c->set_output(0, std::move(input));
  return absl::OkStatus();
}
absl::Status AvgPoolGradShape(InferenceContext* c) {
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(0), 1).status());
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 4).status());
  FERRY_ASSIGN_OR_RETURN(PartialShape out, c->ValueAsShape(0));
  if (out.known_rank()) FERRY_RETURN_IF_ERROR(c->WithRank(out, 4).status());
  c->set_output(0, out.known_rank() ? std::move(out) : PartialShape::UnknownOfRank(4));
  return absl::OkStatus();
}

// ---- Gradients ----

// Another pooling op with the node's attributes, as far as it has them.
Output Related(GradientContext* c, const char* op, const std::vector<Output>& inputs) {
  NodeBuilder builder(c->scope(), op);
  for (const Output& in : inputs) builder.Input(in);
  const OpInfo* const info = FindOp(op);
  for (const auto& [name, value] : c->node()->attrs()) {
    const auto& attrs = info->def.attr();
    const bool has = std::any_of(attrs.begin(), attrs.end(),
                                 [&name = name](const auto& a) { return a.name() == name; });
    if (has && name != "T") builder.AttrValue(name, value);
  }
  return builder.BuildOutput();
}

absl::Status MaxPoolGradient(GradientContext* c) {
  c->set_input_grad(0, Related(c, "MaxPoolGrad", {c->input(0), c->output(0), c->grad(0)}));
  return c->scope().status();
}
absl::Status MaxPoolV2Gradient(GradientContext* c) {
  c->set_input_grad(0, Related(c, "MaxPoolGradV2",
                               {c->input(0), c->output(0), c->grad(0), c->input(1), c->input(2)}));
  return c->scope().status();
}
// Which elements are the greatest doesn't change with them.
absl::Status SelectionGradient(GradientContext* c, const char* op) {
  const Scope& s = c->scope();
  FERRY_ASSIGN_OR_RETURN(const WindowAttrs attrs, WindowAttrsOf(*c));
  if (attrs.padding == "EXPLICIT") {
    return Unimplemented("MaxPoolGradGrad, the gradient of MaxPoolGrad, has no explicit padding");
  }
  c->set_input_grad(0, ops::ZerosLike(s, c->input(0)));
  c->set_input_grad(1, ops::ZerosLike(s, c->input(1)));
  c->set_input_grad(2, Related(c, op, {c->input(0), c->input(1), c->grad(0)}));
  return s.status();
}
absl::Status MaxPoolGradGradient(GradientContext* c) {
  return SelectionGradient(c, "MaxPoolGradGrad");
}
absl::Status MaxPoolGradGradGradient(GradientContext* c) {
  return SelectionGradient(c, "MaxPoolGrad");
}
absl::Status AvgPoolGradient(GradientContext* c) {
  c->set_input_grad(0, Related(c, "AvgPoolGrad", {ShapeOf(c->scope(), c->input(0)), c->grad(0)}));
  return c->scope().status();
}
absl::Status AvgPoolGradGradient(GradientContext* c) {
  c->set_input_grad(1, Related(c, "AvgPool", {c->grad(0)}));
  return c->scope().status();
}

#define FERRY_POOL_WINDOWS Attr("ksize: list(int) >= 4").Attr("strides: list(int) >= 4")
#define FERRY_FORMAT Attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
#define FERRY_FORMAT_VECT Attr("data_format: {'NHWC', 'NCHW', 'NCHW_VECT_C'} = 'NHWC'")
#define FERRY_PADDING Attr("padding: {'SAME', 'VALID'}")
#define FERRY_PADDING_EXPLICIT \
  Attr("padding: {'SAME', 'VALID', 'EXPLICIT'}").Attr("explicit_paddings: list(int) = []")
#define FERRY_MAX_TYPES                                                                    \
  "T: {half, bfloat16, float, double, int32, int64, uint8, int16, int8, uint16, qint8} = " \
  "DT_FLOAT"

FERRY_OP("MaxPool")
    .Attr(FERRY_MAX_TYPES)
    .FERRY_POOL_WINDOWS.FERRY_PADDING_EXPLICIT.FERRY_FORMAT_VECT.Input("input: T")
    .Output("output: T")
    .Shape(MaxPoolShape)
    .Gradient(MaxPoolGradient);

FERRY_OP("MaxPoolGrad")
    .FERRY_POOL_WINDOWS.FERRY_PADDING_EXPLICIT.FERRY_FORMAT.Input("orig_input: T")
    .Input("orig_output: T")
    .Input("grad: T")
    .Output("output: T")
    .Attr("T: realnumbertype = DT_FLOAT")
    .Shape(MaxPoolGradShape)
    .Gradient(MaxPoolGradGradient);

FERRY_OP("MaxPoolGradGrad")
    .FERRY_POOL_WINDOWS.FERRY_PADDING.FERRY_FORMAT.Input("orig_input: T")
    .Input("orig_output: T")
    .Input("grad: T")
    .Output("output: T")
    .Attr("T: realnumbertype")
    .Shape(SpatialPoolShape)
    .Gradient(MaxPoolGradGradGradient);

FERRY_OP("MaxPoolV2")
    .Attr(FERRY_MAX_TYPES)
    .FERRY_PADDING.FERRY_FORMAT_VECT.Input("input: T")
    .Input("ksize: int32")
    .Input("strides: int32")
    .Output("output: T")
    .Shape(MaxPoolV2Shape)
    .Gradient(MaxPoolV2Gradient);

FERRY_OP("MaxPoolGradV2")
    .FERRY_PADDING.FERRY_FORMAT.Input("orig_input: T")
    .Input("orig_output: T")
    .Input("grad: T")
    .Input("ksize: int32")
    .Input("strides: int32")
    .Output("output: T")
    .Attr("T: realnumbertype = DT_FLOAT")
    .Shape(MaxPoolGradShape);

FERRY_OP("AvgPool")
    .Input("value: T")
    .Output("output: T")
    .FERRY_POOL_WINDOWS.FERRY_PADDING.FERRY_FORMAT.Attr("T: {half, bfloat16, float, double}")
    .Shape(SpatialPoolShape)
    .Gradient(AvgPoolGradient);

FERRY_OP("AvgPoolGrad")
    .Input("orig_input_shape: int32")
    .Input("grad: T")
    .Output("output: T")
    .FERRY_POOL_WINDOWS.FERRY_PADDING.FERRY_FORMAT.Attr("T: {half, bfloat16, float, double}")
    .Shape(AvgPoolGradShape)
    .Gradient(AvgPoolGradGradient);

const bool registered = RegisterCpu<MaxPoolKernel>(NumberTypes(), "MaxPool") &&
                        RegisterCpu<MaxPoolGradKernel>(NumberTypes(), "MaxPoolGrad") &&
                        RegisterCpu<MaxPoolGradGradKernel>(NumberTypes(), "MaxPoolGradGrad") &&
                        RegisterCpu<MaxPoolV2Kernel>(NumberTypes(), "MaxPoolV2") &&
                        RegisterCpu<MaxPoolGradV2Kernel>(NumberTypes(), "MaxPoolGradV2") &&
                        RegisterCpu<AvgPoolKernel>(FloatTypes(), "AvgPool") &&
                        RegisterCpu<AvgPoolGradKernel>(FloatTypes(), "AvgPoolGrad");

// ---- MaxPoolWithArgmax, MaxPoolGradWithArgmax ----

// Their images have the channels innermost, and no attribute for that.
template <typename Context>
absl::StatusOr<WindowAttrs> ArgmaxAttrs(const Context& c) {
  WindowAttrs attrs;
  attrs.data_format = "NHWC";
  FERRY_ASSIGN_OR_RETURN(attrs.padding, c.template Attr<std::string>("padding"));
  FERRY_ASSIGN_OR_RETURN(attrs.ksize, c.template Attr<std::vector<int64_t>>("ksize"));
  FERRY_ASSIGN_OR_RETURN(attrs.strides, c.template Attr<std::vector<int64_t>>("strides"));
  FERRY_RETURN_IF_ERROR(CheckPoolAttrs(attrs, false));
  return attrs;
}

// The greatest elements, and where they lie in the image's memory, or in that of all images.
template <typename T>
class MaxPoolWithArgmaxKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(attrs_, ArgmaxAttrs(c));
    FERRY_ASSIGN_OR_RETURN(all_, c.Attr<bool>("include_batch_in_index"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    if (in.rank() != 4) {
      return InvalidArgument("tensor_in must be 4-dimensional, got ", in.shape().DebugString());
    }
    PoolSizes s;
    TensorShape shape;
    FERRY_RETURN_IF_ERROR(PoolSizesOf(attrs_, in.shape(), &s, &shape));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    FERRY_ASSIGN_OR_RETURN(Tensor * argmax, c->AllocateOutput(1, shape));
    if (shape.num_elements() == 0) return absl::OkStatus();
    if (argmax->dtype() == DType::kInt32) {
      Find(c, s, in.data<T>(), out->data<T>(), argmax->data<int32_t>());
    } else {
      Find(c, s, in.data<T>(), out->data<T>(), argmax->data<int64_t>());
    }
    return absl::OkStatus();
  }

  template <typename Place>
  void Find(KernelContext* c, const PoolSizes& s, const T* in, T* out, Place* places) const {
    const int64_t pixels = s.y.in * s.x.in * s.depth, windows = s.y.out * s.x.out * s.depth;
    ForChannels(c, s, [&](int64_t n, int64_t first, int64_t count) {
      ForGreatest(s, in + n * pixels, first, count,
                  [&](int64_t window, int64_t channel, int64_t lanes, const auto* at) {
                    const int64_t to = n * windows + window * s.depth + channel;
                    for (int64_t k = 0; k < lanes; ++k) {
                      const int64_t place = static_cast<int64_t>(at[k]) * s.depth + channel + k;
                      out[to + k] = in[n * pixels + place];
                      places[to + k] = static_cast<Place>(place + (all_ ? n * pixels : 0));
                    }
                  });
    });
  }

  WindowAttrs attrs_;
  bool all_ = false;
};

template <typename T>
class MaxPoolGradWithArgmaxKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(attrs_, ArgmaxAttrs(c));
    FERRY_ASSIGN_OR_RETURN(all_, c.Attr<bool>("include_batch_in_index"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor &in = c->input(0), &grad = c->input(1), &argmax = c->input(2);
    if (in.rank() != 4) {
      return InvalidArgument("tensor_in must be 4-dimensional, got ", in.shape().DebugString());
    }
    PoolSizes s;
    TensorShape shape;
    FERRY_RETURN_IF_ERROR(PoolSizesOf(attrs_, in.shape(), &s, &shape));
    for (const int i : {1, 2}) {
      if (c->input(i).shape() == shape) continue;
      return InvalidArgument("Expected ", i == 1 ? "grad" : "argmax", " shape to be ",
                             shape.DebugString(), ", but got ", c->input(i).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    T* const to = out->data<T>();
    std::fill_n(to, out->num_elements(), T(0));
    if (shape.num_elements() == 0) return absl::OkStatus();
    const int64_t pixels = s.y.in * s.x.in * s.depth, windows = s.y.out * s.x.out * s.depth;
    for (int64_t i = 0; i < argmax.num_elements(); ++i) {
      int64_t place = argmax.dtype() == DType::kInt32 ? int64_t{argmax.data<int32_t>()[i]}
                                                      : argmax.data<int64_t>()[i];
      const int64_t limit = all_ ? s.batch * pixels : pixels;
      if (place < 0 || place >= limit) {
        return InvalidArgument("Invalid input backprop index: ", place, ", ", limit);
      }
      if (!all_) place += i / windows * pixels;
      to[place] = static_cast<T>(to[place] + grad.data<T>()[i]);
    }
    return absl::OkStatus();
  }

  WindowAttrs attrs_;
  bool all_ = false;
};

#define FERRY_ARGMAX_ATTRS                                        \
  FERRY_POOL_WINDOWS.Attr("Targmax: {int32, int64} = DT_INT64")   \
      .FERRY_PADDING.Attr("include_batch_in_index: bool = false") \
      .Attr("T: realnumbertype")

FERRY_OP("MaxPoolWithArgmax")
    .Input("input: T")
    .Output("output: T")
    .Output("argmax: Targmax")
    .FERRY_ARGMAX_ATTRS
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const WindowAttrs attrs, ArgmaxAttrs(*c));
      FERRY_ASSIGN_OR_RETURN(const PartialShape input, c->WithRank(c->input(0), 4));
      FERRY_ASSIGN_OR_RETURN(const PartialShape out, PooledShape(attrs, input));
      c->set_output(0, out);
      c->set_output(1, out);
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      NodeBuilder b(c->scope(), "MaxPoolGradWithArgmax");
      b.Input(c->input(0)).Input(c->grad(0)).Input(c->output(1));
      for (const char* const name : {"ksize", "strides", "padding", "include_batch_in_index"}) {
        const auto it = c->node()->attrs().find(name);
        if (it != c->node()->attrs().end()) b.AttrValue(name, it->second);
      }
      c->set_input_grad(0, b.BuildOutput());
      return c->scope().status();
    });

FERRY_OP("MaxPoolGradWithArgmax")
    .Input("input: T")
    .Input("grad: T")
    .Input("argmax: Targmax")
    .Output("output: T")
    .FERRY_ARGMAX_ATTRS.Shape(UnchangedShape);

[[maybe_unused]] const bool argmax =
    RegisterCpu<MaxPoolWithArgmaxKernel>(NumberTypes(), "MaxPoolWithArgmax") &&
    RegisterCpu<MaxPoolGradWithArgmaxKernel>(NumberTypes(), "MaxPoolGradWithArgmax");

}  // namespace

// ---- For pool.cu ----

namespace gpu {

bool CheckPoolAttrs(Setup* setup, PoolOp op, const WindowAttrs& attrs) {
  const absl::Status s = ferry::CheckPoolAttrs(attrs, op == PoolOp::kMax);
  if (s.ok()) return true;
  return setup->Fail(absl::IsUnimplemented(s) ? Error::kUnimplemented : Error::kInvalidArgument,
                     std::string(s.message()));
}

bool CheckPool(Call* c, PoolOp op, bool v2, const WindowAttrs& attrs, PoolSizes* out,
               std::vector<int64_t>* shape) {
  TensorShape result;
  if (!HostSide::Note(c, PoolArguments(*HostSide::Context(c), op, v2, attrs, out, &result))) {
    return false;
  }
  shape->assign(result.dims().begin(), result.dims().end());
  return true;
}

}  // namespace gpu
}  // namespace ferry
