// Making tensors larger or marking places in them: Pad, PadV2, OneHot.
#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/array.h"
#include "kernels/gpu_array.h"
#include "kernels/gpu_host.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// ---- Pad, PadV2 ----

class PadKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    const Tensor& paddings = c->input(1);
    if (paddings.rank() != 2 || paddings.dim(1) != 2) {
      return InvalidArgument("paddings must be a matrix with 2 columns: ",
                             paddings.shape().DebugString());
    }
    if (paddings.dim(0) != in.rank()) {
      return InvalidArgument("The first dimension of paddings must be the rank of inputs",
                             paddings.shape().DebugString(), " ", in.shape().DebugString());
    }
    if (c->num_inputs() > 2 && c->input(2).num_elements() != 1) {
      return InvalidArgument("constant_values must be a scalar. Found: ",
                             c->input(2).shape().DebugString());
    }
    Ints sizes;
    for (int d = 0; d < in.rank(); ++d) {
      const int64_t before = IntAt(paddings, 2 * d), after = IntAt(paddings, 2 * d + 1);
      if (before < 0 || after < 0) {
        return InvalidArgument("Paddings must be non-negative: ", before, " ", after);
      }
      int64_t size;
      if (__builtin_add_overflow(before, after, &size) ||
          __builtin_add_overflow(size, in.dim(d), &size)) {
        return InvalidArgument("dimension ", d, " padded by ", before, " and ", after,
                               " overflows");
      }
      sizes.push_back(size);
    }
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(sizes));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() > in.num_elements()) {
      if (c->num_inputs() > 2) {
        FERRY_RETURN_IF_ERROR(FillWith(c, c->input(2), out));
      } else {
        FERRY_RETURN_IF_ERROR(FillZero(c, out));
      }
    }
    const Ints from = Strides(in.shape().dims()), to = Strides(sizes);
    absl::InlinedVector<CopyDim, 8> dims;
    int64_t offset = 0;
    for (int d = 0; d < in.rank(); ++d) {
      const auto i = static_cast<size_t>(d);
      dims.push_back({in.dim(d), from[i], to[i]});
      offset += IntAt(paddings, 2 * d) * to[i];
    }
    return StridedCopy(c, in, 0, out, offset, dims);
  }
};

absl::Status PadShape(InferenceContext* c) {
  const PartialShape& in = c->input(0);
  FERRY_ASSIGN_OR_RETURN(PartialShape matrix, c->WithRank(c->input(1), 2));
  if (matrix.dim(1) != PartialShape::kUnknown && matrix.dim(1) != 2) {
    return InvalidArgument("paddings must be a matrix with 2 columns: ", matrix.DebugString());
  }
  const int64_t rank = in.known_rank() ? in.rank() : matrix.dim(0);
  if (rank < 0 || rank > kMaxRank) return absl::OkStatus();
  if (matrix.dim(0) != PartialShape::kUnknown && matrix.dim(0) != rank) {
    return InvalidArgument("The first dimension of paddings must be the rank of inputs",
                           matrix.DebugString(), " ", in.DebugString());
  }
  PartialShape out = PartialShape::UnknownOfRank(static_cast<int>(rank));
  const Tensor* paddings = c->value(1);
  for (int d = 0; paddings && d < out.rank(); ++d) {
    const int64_t before = IntAt(*paddings, 2 * d), after = IntAt(*paddings, 2 * d + 1);
    if (before < 0 || after < 0) {
      return InvalidArgument("Paddings must be non-negative: ", before, " ", after);
    }
    int64_t size;
    if (in.dim(d) != PartialShape::kUnknown && !__builtin_add_overflow(before, after, &size) &&
        !__builtin_add_overflow(size, in.dim(d), &size)) {
      out.set_dim(d, size);
    }
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// The part of dy where the input lies.
absl::Status PadGradient(GradientContext* c) {
  const Scope& s = c->scope();
  FERRY_ASSIGN_OR_RETURN(const DType index, c->Attr<DType>("Tpaddings"));
  Output begin = ops::StridedSlice(
      s, c->input(1), ops::ConstVector<int32_t>(s, {0, 0}), ops::ConstVector<int32_t>(s, {0, 1}),
      ops::ConstVector<int32_t>(s, {1, 1}),
      {/*begin=*/1, /*end=*/1, /*ellipsis=*/0, /*new_axis=*/0, /*shrink_axis=*/2});
  c->set_input_grad(0, ops::Slice(s, c->grad(0), begin, ops::Shape(s, c->input(0), index)));
  return s.status();
}

FERRY_OP("Pad")
    .Input("input: T")
    .Input("paddings: Tpaddings")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Tpaddings: {int32, int64} = DT_INT32")
    .Shape(PadShape)
    .Gradient(PadGradient);
FERRY_OP("PadV2")
    .Input("input: T")
    .Input("paddings: Tpaddings")
    .Input("constant_values: T")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Tpaddings: {int32, int64} = DT_INT32")
    .Shape(PadShape)
    .Gradient(PadGradient);
[[maybe_unused]] const bool pad = RegisterArrayKernel<PadKernel>("Pad", {"paddings"}) &&
                                  RegisterArrayKernel<PadKernel>("PadV2", {"paddings"});

// ---- OneHot ----

absl::StatusOr<int64_t> OneHotAxis(int64_t axis, int64_t indices_rank) {
  if (axis < -1 || axis > indices_rank) {
    return InvalidArgument("Expected axis to be -1 or between [0, ", indices_rank + 1,
                           ").  But received: ", axis);
  }
  return axis < 0 ? indices_rank : axis;
}

int64_t SmallIntAt(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::kUint8:
      return t.data<uint8_t>()[i];
    case DType::kInt8:
      return t.data<int8_t>()[i];
    default:
      return IntAt(t, i);
  }
}

class OneHotKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(axis_, c.Attr<int64_t>("axis"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    static const char* const kNames[] = {"indices", "depth", "on_value", "off_value"};
    const Tensor& indices = c->input(0);
    FERRY_ASSIGN_OR_RETURN(const int64_t axis, OneHotAxis(axis_, indices.rank()));
    for (int i = 1; i < 4; ++i) {
      if (c->input(i).rank() != 0) {
        return InvalidArgument(kNames[i],
                               " must be a scalar, but got: ", c->input(i).shape().DebugString());
      }
    }
    FERRY_ASSIGN_OR_RETURN(const int64_t depth, c->InputAsInt(1));
    if (depth < 0) return InvalidArgument("depth must be non-negative, got: ", depth);
    const auto x = indices.shape().dims();
    Ints dims(x.begin(), x.end());
    dims.insert(dims.begin() + axis, depth);
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    FERRY_RETURN_IF_ERROR(FillWith(c, c->input(3), out));
    const int64_t inner = Product(x.subspan(static_cast<size_t>(axis)));
    if (c->gpu()) {
      const gpu::NdIndices at = {indices.raw(), indices.dtype(), indices.num_elements(), 1, &depth};
      return gpu::LaunchOnGpu(c, [&](gpu::Call* call) {
        return gpu::Array().mark(call, static_cast<int>(ElementSize(out->dtype())), at, inner,
                                 c->input(2).raw(), out->raw());
      });
    }
    return ForWidth(out->dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T& on = *static_cast<const T*>(c->input(2).raw());
      T* to = static_cast<T*>(out->raw());
      for (int64_t i = 0; i < indices.num_elements(); ++i) {
        const int64_t at = SmallIntAt(indices, i);
        // An index outside marks nothing.
        if (at >= 0 && at < depth) to[(i / inner * depth + at) * inner + i % inner] = on;
      }
    });
  }
  int64_t axis_ = -1;
};

FERRY_OP("OneHot")
    .Input("indices: TI")
    .Input("depth: int32")
    .Input("on_value: T")
    .Input("off_value: T")
    .Output("output: T")
    .Attr("axis: int = -1")
    .Attr("T: type")
    .Attr("TI: {uint8, int8, int32, int64} = DT_INT64")
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape& indices = c->input(0);
      for (int i = 1; i < 4; ++i) FERRY_RETURN_IF_ERROR(c->WithRank(c->input(i), 0).status());
      std::optional<int64_t> depth = KnownInt(c, 1);
      if (depth && *depth < 0) {
        return InvalidArgument("depth must be non-negative, got: ", *depth);
      }
      if (!indices.known_rank()) return absl::OkStatus();
      FERRY_ASSIGN_OR_RETURN(int64_t axis, c->Attr<int64_t>("axis"));
      FERRY_ASSIGN_OR_RETURN(axis, OneHotAxis(axis, indices.rank()));
      Ints dims(indices.dims().begin(), indices.dims().end());
      dims.insert(dims.begin() + axis, c->ValueAsInt(1));
      c->set_output(0, PartialShape(dims));
      return absl::OkStatus();
    })
    .NotDifferentiable();
[[maybe_unused]] const bool one_hot = RegisterArrayKernel<OneHotKernel>("OneHot", {"depth"});

}  // namespace
}  // namespace ferry
