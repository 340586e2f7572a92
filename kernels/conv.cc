// Conv2D, Conv2DBackpropInput and Conv2DBackpropFilter. Definitions of the operands are in
// window.h; the loops are in conv_loops.h.
#include <string>
#include <utility>

#include "kernels/conv_gradients.h"
#include "kernels/conv_loops.h"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "kernels/window_checks.h"
#include "runtime/base/status.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

using gpu::ConvOp;

const char* Name(ConvOp op) {
  return op == ConvOp::kForward ? "Conv2D"
         : op == ConvOp::kInput ? "Conv2DBackpropInput"
                                : "Conv2DBackpropFilter";
}

// ---- Shapes ----

// How many groups the channels fall into, from the depths, each of which may be unknown (then 0).
absl::StatusOr<int64_t> Groups(int64_t in_depth, int64_t filter_depth, int64_t out_depth) {
  if (filter_depth == 0) return InvalidArgument("filter depth must be stricly positive, got 0");
  if (in_depth < 0 || filter_depth < 0) return 0;
  if (in_depth % filter_depth != 0 || in_depth == 0) {
    return InvalidArgument("input depth must be evenly divisible by filter depth: ", in_depth,
                           " vs ", filter_depth);
  }
  const int64_t groups = in_depth / filter_depth;
  if (out_depth >= 0 && out_depth % groups != 0) {
    return InvalidArgument("output depth must be evenly divisible by number of groups: ", out_depth,
                           " vs ", groups);
  }
  return groups;
}

// The shape of y, as far as it is known.
absl::StatusOr<PartialShape> OutputShape(const WindowAttrs& attrs, const PartialShape& input,
                                         const PartialShape& filter) {
  const ImageDims d = DimsOf(attrs);
  auto of = [](const PartialShape& s, int i) {
    return s.known_rank() ? s.dim(i) : PartialShape::kUnknown;
  };
  FERRY_RETURN_IF_ERROR(Groups(of(input, d.c), of(filter, 2), of(filter, 3)).status());
  PartialShape out = PartialShape::UnknownOfRank(4);
  out.set_dim(d.n, of(input, d.n));
  out.set_dim(d.c, of(filter, 3));
  for (int i = 0; i < 2; ++i) {
    const int dim = i == 0 ? d.y : d.x;
    FERRY_ASSIGN_OR_RETURN(int64_t size, CountWindows(attrs, dim, of(input, dim), of(filter, i),
                                                      attrs.strides[static_cast<size_t>(dim)],
                                                      attrs.dilations[static_cast<size_t>(dim)]));
    out.set_dim(dim, size);
  }
  return out;
}

absl::Status Conv2DShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const WindowAttrs attrs, WindowAttrsOf(*c));
  FERRY_RETURN_IF_ERROR(CheckConvAttrs("Conv2D", attrs));
  FERRY_ASSIGN_OR_RETURN(PartialShape input, c->WithRank(c->input(0), 4));
  FERRY_ASSIGN_OR_RETURN(PartialShape filter, c->WithRank(c->input(1), 4));
  FERRY_ASSIGN_OR_RETURN(PartialShape out, OutputShape(attrs, input, filter));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// Of both gradients: the shape is the value of input `sizes`.
absl::Status GradientShape(InferenceContext* c, ConvOp op, int sizes) {
  FERRY_ASSIGN_OR_RETURN(const WindowAttrs attrs, WindowAttrsOf(*c));
  FERRY_RETURN_IF_ERROR(CheckConvAttrs(Name(op), attrs));
  for (int i = 0; i < 3; ++i) {
    if (i != sizes) FERRY_RETURN_IF_ERROR(c->WithRank(c->input(i), 4).status());
  }
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(sizes), 1).status());
  FERRY_ASSIGN_OR_RETURN(PartialShape out, c->ValueAsShape(sizes));
  if (!out.known_rank() || (op == ConvOp::kInput && out.rank() == 2)) {
    c->set_output(0, PartialShape::UnknownOfRank(4));
    return absl::OkStatus();
  }
  FERRY_RETURN_IF_ERROR(c->WithRank(out, 4).status());
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}
absl::Status BackpropInputShape(InferenceContext* c) { return GradientShape(c, ConvOp::kInput, 0); }
absl::Status BackpropFilterShape(InferenceContext* c) {
  return GradientShape(c, ConvOp::kFilter, 1);
}

// ---- Sizes, from a kernel's arguments ----

absl::Status NotFourDimensional(ConvOp op, const char* what, const TensorShape& shape) {
  if (op == ConvOp::kForward) {
    return InvalidArgument("convolution ", what, " must be 4-dimensional: ", shape.DebugString());
  }
  return InvalidArgument(Name(op), ": ", what, " must be 4-dimensional, got ", shape.DebugString());
}

// Input 0 of Conv2DBackpropInput: x's shape, or its rows and columns alone.
absl::StatusOr<TensorShape> InputSizes(const KernelContext& c, const WindowAttrs& attrs,
                                       const TensorShape& filter, const TensorShape& dy) {
  FERRY_ASSIGN_OR_RETURN(const auto sizes, c.InputAsInts(0));
  if (c.input(0).rank() != 1 || (sizes.size() != 4 && sizes.size() != 2)) {
    return InvalidArgument(
        "Conv2DBackpropInput requires input_sizes to contain 4 values or 2 values, but got: ",
        c.input(0).num_elements());
  }
  if (sizes.size() == 4) return c.InputAsShape(0);
  const int64_t n = dy.dim(0), depth = filter.dim(2);
  const int64_t full[] = {n, attrs.channels_first() ? depth : sizes[0],
                          attrs.channels_first() ? sizes[0] : sizes[1],
                          attrs.channels_first() ? sizes[1] : depth};
  return TensorShape::Make(full);
}

absl::StatusOr<ConvSizes> SizesOf(const KernelContext& c, ConvOp op, const WindowAttrs& attrs) {
  const ImageDims d = DimsOf(attrs);
  TensorShape input, filter;
  if (op != ConvOp::kForward && c.input(2).rank() != 4) {
    return NotFourDimensional(op, "out_backprop", c.input(2).shape());
  }
  if (op == ConvOp::kInput) {
    filter = c.input(1).shape();
    if (filter.rank() != 4) return NotFourDimensional(op, "filter", filter);
    FERRY_ASSIGN_OR_RETURN(input, InputSizes(c, attrs, filter, c.input(2).shape()));
  } else {
    input = c.input(0).shape();
    if (input.rank() != 4) return NotFourDimensional(op, "input", input);
    if (op == ConvOp::kForward) {
      filter = c.input(1).shape();
    } else {
      FERRY_ASSIGN_OR_RETURN(filter, c.InputAsShape(1));
    }
    if (filter.rank() != 4) return NotFourDimensional(op, "filter", filter);
  }
  ConvSizes s;
  s.channels_first = attrs.channels_first();
  s.batch = input.dim(d.n);
  s.in_depth = input.dim(d.c);
  s.filter_depth = filter.dim(2);
  s.out_depth = filter.dim(3);
  FERRY_ASSIGN_OR_RETURN(s.groups, Groups(s.in_depth, s.filter_depth, s.out_depth));
  for (int i = 0; i < 2; ++i) {
    const int dim = i == 0 ? d.y : d.x;
    WindowAxis* const a = i == 0 ? &s.y : &s.x;
    a->in = input.dim(dim);
    a->window = filter.dim(i);
    a->stride = attrs.strides[static_cast<size_t>(dim)];
    a->dilation = attrs.dilations[static_cast<size_t>(dim)];
    if (a->window == 0) {
      return InvalidArgument(
          "filter must not have zero elements (i.e. all dimensions must be non-zero)");
    }
    FERRY_RETURN_IF_ERROR(PlaceWindows(attrs, dim, a));
  }
  if (op == ConvOp::kForward) return s;
  const TensorShape& dy = c.input(2).shape();
  if (dy.dim(d.n) != s.batch) {
    return InvalidArgument(
        Name(op), ": input and out_backprop must have the same batch size. Input batch: ", s.batch,
        ", outbackprop batch: ", dy.dim(d.n));
  }
  if (dy.dim(d.c) != s.out_depth) {
    return InvalidArgument(Name(op),
                           ": filter and out_backprop must have the same out_depth: ", s.out_depth,
                           " vs ", dy.dim(d.c));
  }
  for (int dim : {d.y, d.x}) {
    const WindowAxis& a = dim == d.y ? s.y : s.x;
    if (dy.dim(dim) == a.out) continue;
    return InvalidArgument(Name(op),
                           ": Size of out_backprop doesn't match computed: actual = ", dy.dim(dim),
                           ", computed = ", a.out, " spatial_dim: ", dim, " input: ", a.in,
                           " filter: ", a.window, " stride: ", a.stride, " dilation: ", a.dilation);
  }
  return s;
}

// The shape of the op's output.
absl::StatusOr<TensorShape> ResultShape(ConvOp op, const ConvSizes& s) {
  int64_t dims[4];
  if (op == ConvOp::kFilter) {
    return TensorShape::Make({s.y.window, s.x.window, s.filter_depth, s.out_depth});
  }
  const bool forward = op == ConvOp::kForward;
  const int64_t y = forward ? s.y.out : s.y.in, x = forward ? s.x.out : s.x.in;
  const int64_t depth = forward ? s.out_depth : s.in_depth;
  dims[0] = s.batch;
  dims[s.channels_first ? 1 : 3] = depth;
  dims[s.channels_first ? 2 : 1] = y;
  dims[s.channels_first ? 3 : 2] = x;
  return TensorShape::Make(dims);
}

// ---- Kernels ----

template <typename T, ConvOp kOp>
class ConvKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(attrs_, WindowAttrsOf(c));
    return CheckConvAttrs(Name(kOp), attrs_);
  }

  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const ConvSizes s, SizesOf(*c, kOp, attrs_));
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, ResultShape(kOp, s));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    T* const to = out->data<T>();
    const int64_t n = shape.num_elements();
    const Tensor& first = c->input(kOp == ConvOp::kInput ? 1 : 0);
    const Tensor& second = c->input(kOp == ConvOp::kForward ? 1 : 2);
    if (n == 0) return absl::OkStatus();
    if (first.num_elements() == 0 || second.num_elements() == 0) {
      std::fill_n(to, n, T(0));
      return absl::OkStatus();
    }
    const T *a = first.data<T>(), *b = second.data<T>();
    if constexpr (kOp == ConvOp::kForward) return Convolve(c, s, a, b, to);
    if constexpr (kOp == ConvOp::kInput) return ConvolveBack(c, s, a, b, to);
    if constexpr (kOp == ConvOp::kFilter) return ConvolveFilter(c, s, a, b, to);
  }

 private:
  WindowAttrs attrs_;
};
template <typename T>
using ConvForwardKernel = ConvKernel<T, ConvOp::kForward>;
template <typename T>
using ConvInputKernel = ConvKernel<T, ConvOp::kInput>;
template <typename T>
using ConvFilterKernel = ConvKernel<T, ConvOp::kFilter>;

// ---- Ops ----

#define FERRY_CONV_ATTRS                              \
  Attr("strides: list(int)")                          \
      .Attr("use_cudnn_on_gpu: bool = true")          \
      .Attr("padding: {'SAME', 'VALID', 'EXPLICIT'}") \
      .Attr("explicit_paddings: list(int) = []")      \
      .Attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'") \
      .Attr("dilations: list(int) = [1, 1, 1, 1]")

FERRY_OP("Conv2D")
    .Input("input: T")
    .Input("filter: T")
    .Output("output: T")
    .Attr("T: {half, bfloat16, float, double, int32}")
    .FERRY_CONV_ATTRS.Shape(Conv2DShape)
    .Gradient(ConvGradient);

FERRY_OP("Conv2DBackpropInput")
    .Input("input_sizes: int32")
    .Input("filter: T")
    .Input("out_backprop: T")
    .Output("output: T")
    .Attr("T: {half, bfloat16, float, double, int32}")
    .FERRY_CONV_ATTRS.Shape(BackpropInputShape)
    .Gradient(ConvBackpropInputGradient);

FERRY_OP("Conv2DBackpropFilter")
    .Input("input: T")
    .Input("filter_sizes: int32")
    .Input("out_backprop: T")
    .Output("output: T")
    .Attr("T: {half, bfloat16, float, double}")
    .FERRY_CONV_ATTRS.Shape(BackpropFilterShape)
    .Gradient(ConvBackpropFilterGradient);

using ConvTypes = Join<FloatTypes, Types<int32_t>>;
const bool registered = RegisterCpu<ConvForwardKernel>(ConvTypes(), "Conv2D") &&
                        RegisterCpu<ConvInputKernel>(ConvTypes(), "Conv2DBackpropInput") &&
                        RegisterCpu<ConvFilterKernel>(FloatTypes(), "Conv2DBackpropFilter");

}  // namespace

// ---- For conv.cu ----

namespace gpu {

bool CheckConvAttrs(Setup* setup, ConvOp op, const WindowAttrs& attrs) {
  const absl::Status s = ferry::CheckConvAttrs(Name(op), attrs);
  if (s.ok()) return true;
  return setup->Fail(absl::IsUnimplemented(s) ? Error::kUnimplemented : Error::kInvalidArgument,
                     std::string(s.message()));
}

bool CheckConv(Call* c, ConvOp op, const WindowAttrs& attrs, ConvSizes* out,
               std::vector<int64_t>* shape) {
  absl::StatusOr<ConvSizes> s = SizesOf(*HostSide::Context(c), op, attrs);
  if (!HostSide::Note(c, s.status())) return false;
  absl::StatusOr<TensorShape> result = ResultShape(op, *s);
  if (!HostSide::Note(c, result.status())) return false;
  *out = *s;
  shape->assign(result->dims().begin(), result->dims().end());
  return true;
}

}  // namespace gpu
}  // namespace ferry
