// Joining tensors along an axis and taking them apart: ConcatV2, Concat, ConcatOffset, Pack,
// Unpack, Split, SplitV.
#include <algorithm>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/array.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// How a tensor looks from one axis: `outer` blocks of `size` rows of `inner` elements.
struct AxisView {
  int64_t outer, size, inner;
};
AxisView ViewAt(const TensorShape& shape, int64_t axis) {
  const auto at = static_cast<size_t>(axis);
  return {Product(shape.dims().subspan(0, at)), shape.dim(static_cast<int>(axis)),
          Product(shape.dims().subspan(at + 1))};
}

// ---- ConcatV2, Concat ----

// kAxisFirst: Concat, whose axis is input 0 rather than the last one.
template <bool kAxisFirst>
class ConcatKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const int n = c->num_inputs() - 1;
    const int axis_at = kAxisFirst ? 0 : n, first = kAxisFirst ? 1 : 0;
    FERRY_ASSIGN_OR_RETURN(int64_t axis, c->InputAsInt(axis_at));
    const TensorShape& shape0 = c->input(first).shape();
    const int rank = shape0.rank();
    const int64_t asked = axis;
    if (!NormalizeAxis(rank, &axis)) {
      return InvalidArgument("ConcatOp : Expected concatenating dimensions in the range [", -rank,
                             ", ", rank, "), but got ", asked);
    }
    int64_t sum = 0;
    for (int i = 0; i < n; ++i) {
      const TensorShape& shape = c->input(first + i).shape();
      if (shape.rank() != rank) {
        return InvalidArgument("ConcatOp : Ranks of all input tensors should match: shape[0] = ",
                               shape0.DebugString(), " vs. shape[", i, "] = ", shape.DebugString());
      }
      for (int d = 0; d < rank; ++d) {
        if (d != axis && shape.dim(d) != shape0.dim(d)) {
          return InvalidArgument("ConcatOp : Dimension ", d,
                                 " in both shapes must be equal: shape[0] = ", shape0.DebugString(),
                                 " vs. shape[", i, "] = ", shape.DebugString());
        }
      }
      if (__builtin_add_overflow(sum, shape.dim(static_cast<int>(axis)), &sum)) {
        return InvalidArgument("ConcatOp : the sizes along dimension ", axis, " overflow");
      }
    }
    Ints dims(shape0.dims().begin(), shape0.dims().end());
    dims[static_cast<size_t>(axis)] = sum;
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    const AxisView whole = ViewAt(shape, axis);
    std::vector<CopyPart> parts;
    int64_t at = 0;
    for (int i = 0; i < n; ++i) {
      const Tensor& in = c->input(first + i);
      const int64_t run = in.dim(static_cast<int>(axis)) * whole.inner;
      parts.push_back({&in, 0, run, out, at, whole.size * whole.inner, run});
      at += run;
    }
    return CopyParts(c, whole.outer, parts);
  }
};

absl::Status ConcatShape(InferenceContext* c, int first, int axis_at) {
  const int n = c->num_inputs() - 1;
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(axis_at), 0).status());
  int rank = -1;
  for (int i = 0; i < n; ++i) {
    const PartialShape& in = c->input(first + i);
    if (!in.known_rank()) continue;
    if (rank >= 0 && in.rank() != rank) {
      return InvalidArgument(
          "Ranks of all input tensors should match: shape[0] = ", c->input(first).DebugString(),
          " vs. shape[", i, "] = ", in.DebugString());
    }
    rank = in.rank();
  }
  if (rank < 0) return absl::OkStatus();
  std::optional<int64_t> axis = KnownInt(c, axis_at);
  if (!axis) {
    c->set_output(0, PartialShape::UnknownOfRank(rank));
    return absl::OkStatus();
  }
  const int64_t asked = *axis;
  if (!NormalizeAxis(rank, &*axis)) {
    return InvalidArgument("Expected concatenating dimensions in the range [", -rank, ", ", rank,
                           "), but got ", asked);
  }
  PartialShape out = PartialShape::UnknownOfRank(rank);
  int64_t sum = 0;
  for (int i = 0; i < n; ++i) {
    const PartialShape& in = c->input(first + i);
    for (int d = 0; d < rank; ++d) {
      const int64_t size = in.dim(d);
      if (d == *axis) {
        if (size == PartialShape::kUnknown || sum == PartialShape::kUnknown ||
            __builtin_add_overflow(sum, size, &sum)) {
          sum = PartialShape::kUnknown;
        }
      } else if (size != PartialShape::kUnknown) {
        if (out.dim(d) != PartialShape::kUnknown && out.dim(d) != size) {
          return InvalidArgument("Dimension ", d, " in both shapes must be equal, but are ",
                                 out.dim(d), " and ", size, ". Shapes are ",
                                 c->input(first).DebugString(), " and ", in.DebugString(), ".");
        }
        out.set_dim(d, size);
      }
    }
  }
  out.set_dim(static_cast<int>(*axis), sum);
  c->set_output(0, std::move(out));
  // Vectors of sizes joined are sizes.
  if (rank == 1) {
    PartialShape value = PartialShape::Scalar();
    for (int i = 0; i < n; ++i) {
      absl::StatusOr<PartialShape> part = c->ValueAsShape(first + i);
      if (!part.ok() || !part->known_rank()) return absl::OkStatus();
      for (int64_t d : part->dims()) value.AddDim(d);
    }
    c->set_output_value_as_shape(0, std::move(value));
  }
  return absl::OkStatus();
}

// Each input's part of the gradient is the slice of its shape at its offset.
absl::Status ConcatGradient(GradientContext* c, int first, int axis_at) {
  const Scope& s = c->scope();
  const int n = c->node()->num_inputs() - 1;
  std::vector<Output> inputs;
  for (int i = 0; i < n; ++i) inputs.push_back(c->input(first + i));
  Output axis = c->input(axis_at);
  if (axis.dtype() == DType::kInt64) axis = ops::Cast(s, axis, DType::kInt32);
  Node* shapes = NodeBuilder(s, "ShapeN").Input(inputs).Build();
  if (!shapes) return s.status();
  std::vector<Output> sizes;
  for (int i = 0; i < n; ++i) sizes.emplace_back(shapes, i);
  Node* offsets = NodeBuilder(s, "ConcatOffset").Input(axis).Input(sizes).Build();
  if (!offsets) return s.status();
  for (int i = 0; i < n; ++i) {
    c->set_input_grad(first + i, ops::Slice(s, c->grad(0), Output(offsets, i), sizes[i]));
  }
  return s.status();
}

FERRY_OP("ConcatV2")
    .Input("values: N * T")
    .Input("axis: Tidx")
    .Output("output: T")
    .Attr("N: int >= 2")
    .Attr("T: type")
    .Attr("Tidx: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) { return ConcatShape(c, 0, c->num_inputs() - 1); })
    .Gradient([](GradientContext* c) { return ConcatGradient(c, 0, c->node()->num_inputs() - 1); });
FERRY_OP("Concat")
    .Input("concat_dim: int32")
    .Input("values: N * T")
    .Output("output: T")
    .Attr("N: int >= 2")
    .Attr("T: type")
    .Shape([](InferenceContext* c) { return ConcatShape(c, 1, 0); })
    .Gradient([](GradientContext* c) { return ConcatGradient(c, 1, 0); });
[[maybe_unused]] const bool concat =
    RegisterArrayKernel<ConcatKernel<false>>("ConcatV2", {"axis"}) &&
    RegisterArrayKernel<ConcatKernel<true>>("Concat", {"concat_dim"});

// ---- ConcatOffset ----

class ConcatOffsetKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(int64_t axis, c->InputAsInt(0));
    const int64_t asked = axis;
    FERRY_ASSIGN_OR_RETURN(Ints shape0, c->InputAsInts(1));
    if (!NormalizeAxis(static_cast<int64_t>(shape0.size()), &axis)) {
      return InvalidArgument("Concat dim is out of range: ", asked, " vs. ", shape0.size());
    }
    int64_t offset = 0;
    for (int i = 1; i < c->num_inputs(); ++i) {
      if (c->input(i).rank() != 1) {
        return InvalidArgument("input ", i, " should be a vector, found shape ",
                               c->input(i).shape().DebugString());
      }
      FERRY_ASSIGN_OR_RETURN(Ints shape, c->InputAsInts(i));
      if (shape.size() != shape0.size()) {
        return InvalidArgument("input ", i, " should contain ", shape0.size(),
                               " elements, but got ", shape.size());
      }
      for (size_t d = 0; d < shape.size(); ++d) {
        if (d != static_cast<size_t>(axis) && shape[d] != shape0[d]) {
          return InvalidArgument("All dimensions except ", axis, " must match. Input ", i - 1,
                                 " has shape [", absl::StrJoin(shape, " "),
                                 "] and doesn't match input 0 with shape [",
                                 absl::StrJoin(shape0, " "), "].");
        }
      }
      FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(i - 1, c->input(i).shape()));
      FERRY_RETURN_IF_ERROR(FillZero(c, out));
      if (out->dtype() == DType::kInt64) {
        out->data<int64_t>()[axis] = offset;
      } else {
        out->data<int32_t>()[axis] = static_cast<int32_t>(offset);
      }
      if (__builtin_add_overflow(offset, shape[static_cast<size_t>(axis)], &offset)) {
        return InvalidArgument("the sizes along dimension ", axis, " overflow");
      }
    }
    return absl::OkStatus();
  }
};

FERRY_OP("ConcatOffset")
    .Input("concat_dim: int32")
    .Input("shape: N * shape_type")
    .Output("offset: N * shape_type")
    .Attr("N: int >= 2")
    .Attr("shape_type: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, c->input(i + 1));
      return absl::OkStatus();
    })
    .NotDifferentiable();
[[maybe_unused]] const bool concat_offset = RegisterArrayKernel<ConcatOffsetKernel>(
    "ConcatOffset", {"concat_dim", "shape", "offset"}, "shape_type");

// ---- Pack, Unpack ----

absl::StatusOr<int64_t> AxisAttr(int64_t axis, int64_t rank) {
  const int64_t asked = axis;
  if (!NormalizeAxis(rank, &axis)) {
    return InvalidArgument("axis = ", asked, " not in [", -rank, ", ", rank, ")");
  }
  return axis;
}

class PackKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(axis_, c.Attr<int64_t>("axis"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const int n = c->num_inputs();
    const TensorShape& shape0 = c->input(0).shape();
    FERRY_ASSIGN_OR_RETURN(const int64_t axis, AxisAttr(axis_, shape0.rank() + 1));
    for (int i = 1; i < n; ++i) {
      if (c->input(i).shape() != shape0) {
        return InvalidArgument(
            "Shapes of all inputs must match: values[0].shape = ", shape0.DebugString(),
            " != values[", i, "].shape = ", c->input(i).shape().DebugString());
      }
    }
    Ints dims(shape0.dims().begin(), shape0.dims().end());
    dims.insert(dims.begin() + axis, n);
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    const AxisView whole = ViewAt(shape, axis);
    std::vector<CopyPart> parts;
    for (int i = 0; i < n; ++i) {
      parts.push_back({&c->input(i), 0, whole.inner, out, i * whole.inner, n * whole.inner,
                       whole.inner});
    }
    return CopyParts(c, whole.outer, parts);
  }
  int64_t axis_ = 0;
};

FERRY_OP("Pack")
    .Input("values: N * T")
    .Output("output: T")
    .Attr("N: int >= 1")
    .Attr("T: type")
    .Attr("axis: int = 0")
    .Shape([](InferenceContext* c) -> absl::Status {
      PartialShape all;
      for (int i = 0; i < c->num_inputs(); ++i) {
        absl::StatusOr<PartialShape> both = PartialShape::Merge(all, c->input(i));
        if (!both.ok()) {
          return InvalidArgument(
              "Shapes of all inputs must match: values[0].shape = ", c->input(0).DebugString(),
              " != values[", i, "].shape = ", c->input(i).DebugString());
        }
        all = *std::move(both);
      }
      if (!all.known_rank()) return absl::OkStatus();
      FERRY_ASSIGN_OR_RETURN(int64_t axis, c->Attr<int64_t>("axis"));
      FERRY_ASSIGN_OR_RETURN(axis, AxisAttr(axis, all.rank() + 1));
      Ints dims(all.dims().begin(), all.dims().end());
      dims.insert(dims.begin() + axis, c->num_inputs());
      c->set_output(0, PartialShape(dims));
      if (all.rank() == 0) {  // Sizes, perhaps.
        PartialShape value = PartialShape::Scalar();
        for (int i = 0; i < c->num_inputs(); ++i) value.AddDim(c->ValueAsInt(i));
        c->set_output_value_as_shape(0, std::move(value));
      }
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(int64_t axis, c->Attr<int64_t>("axis"));
      const int n = c->node()->num_inputs();
      std::vector<Output> parts = ops::Unpack(c->scope(), c->grad(0), n, static_cast<int>(axis));
      for (size_t i = 0; i < parts.size(); ++i) c->set_input_grad(static_cast<int>(i), parts[i]);
      return c->scope().status();
    });
[[maybe_unused]] const bool pack = RegisterArrayKernel<PackKernel>("Pack");

class UnpackKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(axis_, c.Attr<int64_t>("axis"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    const int n = c->num_outputs();
    FERRY_ASSIGN_OR_RETURN(const int64_t axis, AxisAttr(axis_, in.rank()));
    if (in.dim(static_cast<int>(axis)) != n) {
      return InvalidArgument("Input shape axis ", axis, " must equal ", n, ", got shape ",
                             in.shape().DebugString());
    }
    Ints dims(in.shape().dims().begin(), in.shape().dims().end());
    dims.erase(dims.begin() + axis);
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    const AxisView whole = ViewAt(in.shape(), axis);
    std::vector<CopyPart> parts;
    for (int i = 0; i < n; ++i) {
      FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(i, shape));
      parts.push_back({&in, i * whole.inner, n * whole.inner, out, 0, whole.inner, whole.inner});
    }
    return CopyParts(c, whole.outer, parts);
  }
  int64_t axis_ = 0;
};

// The gradients of a node's outputs, zeros where none flows.
std::vector<Output> GradsOrZeros(GradientContext* c) {
  std::vector<Output> grads;
  for (int i = 0; i < c->node()->num_outputs(); ++i) {
    grads.push_back(c->grad(i).node ? c->grad(i) : ops::ZerosLike(c->scope(), c->output(i)));
  }
  return grads;
}

FERRY_OP("Unpack")
    .Input("value: T")
    .Output("output: num * T")
    .Attr("num: int >= 0")
    .Attr("T: type")
    .Attr("axis: int = 0")
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape& in = c->input(0);
      if (!in.known_rank()) return absl::OkStatus();
      FERRY_ASSIGN_OR_RETURN(int64_t axis, c->Attr<int64_t>("axis"));
      FERRY_ASSIGN_OR_RETURN(axis, AxisAttr(axis, in.rank()));
      const int64_t size = in.dim(static_cast<int>(axis));
      if (size != PartialShape::kUnknown && size != c->num_outputs()) {
        return InvalidArgument("Input shape axis ", axis, " must equal ", c->num_outputs(),
                               ", got shape ", in.DebugString());
      }
      Ints dims(in.dims().begin(), in.dims().end());
      dims.erase(dims.begin() + axis);
      for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, PartialShape(dims));
      // Sizes taken out of a shape.
      if (in.rank() == 1) {
        absl::StatusOr<PartialShape> value = c->ValueAsShape(0);
        if (value.ok() && value->known_rank()) {
          for (int i = 0; i < c->num_outputs(); ++i) {
            c->set_output_value_as_shape(i, {value->dim(i)});
          }
        }
      }
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(int64_t axis, c->Attr<int64_t>("axis"));
      c->set_input_grad(0, ops::Pack(c->scope(), GradsOrZeros(c), static_cast<int>(axis)));
      return c->scope().status();
    });
[[maybe_unused]] const bool unpack = RegisterArrayKernel<UnpackKernel>("Unpack");

// ---- Split, SplitV ----

absl::StatusOr<int64_t> SplitAxis(int64_t axis, int64_t rank) {
  const int64_t asked = axis;
  if (!NormalizeAxis(rank, &axis)) {
    return InvalidArgument("-input rank(-", rank, ") <= split_dim < input rank (", rank,
                           "), but got ", asked);
  }
  return axis;
}

// Output i gets sizes[i] rows along `axis`. REQUIRES: they add up.
absl::Status SplitInto(KernelContext* c, const Tensor& in, int64_t axis,
                       absl::Span<const int64_t> sizes) {
  const AxisView whole = ViewAt(in.shape(), axis);
  Ints dims(in.shape().dims().begin(), in.shape().dims().end());
  std::vector<CopyPart> parts;
  int64_t at = 0;
  for (size_t i = 0; i < sizes.size(); ++i) {
    dims[static_cast<size_t>(axis)] = sizes[i];
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(static_cast<int>(i), shape));
    const int64_t run = sizes[i] * whole.inner;
    parts.push_back({&in, at, whole.size * whole.inner, out, 0, run, run});
    at += run;
  }
  return CopyParts(c, whole.outer, parts);
}

class SplitKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(1);
    const int n = c->num_outputs();
    FERRY_ASSIGN_OR_RETURN(int64_t axis, c->InputAsInt(0));
    FERRY_ASSIGN_OR_RETURN(axis, SplitAxis(axis, in.rank()));
    const int64_t size = in.dim(static_cast<int>(axis));
    if (size % n != 0) {
      return InvalidArgument(
          "Number of ways to split should evenly divide the split dimension, "
          "but got split_dim ",
          axis, " (size = ", size, ") and num_split ", n);
    }
    return SplitInto(c, in, axis, Ints(static_cast<size_t>(n), size / n));
  }
};

absl::Status SplitGradient(GradientContext* c, int value_at, Output axis) {
  std::vector<Output> grads = GradsOrZeros(c);
  c->set_input_grad(value_at,
                    grads.size() == 1 ? grads[0] : ops::ConcatV2(c->scope(), grads, axis));
  return c->scope().status();
}

FERRY_OP("Split")
    .Input("split_dim: int32")
    .Input("value: T")
    .Output("output: num_split * T")
    .Attr("num_split: int >= 1")
    .Attr("T: type")
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape& in = c->input(1);
      if (!in.known_rank()) return absl::OkStatus();
      PartialShape out = PartialShape::UnknownOfRank(in.rank());
      if (std::optional<int64_t> axis = KnownInt(c, 0)) {
        FERRY_ASSIGN_OR_RETURN(axis, SplitAxis(*axis, in.rank()));
        out = in;
        const int64_t size = in.dim(static_cast<int>(*axis));
        if (size != PartialShape::kUnknown) {
          if (size % c->num_outputs() != 0) {
            return InvalidArgument(
                "Number of ways to split should evenly divide the split "
                "dimension, but got split_dim ",
                *axis, " (size = ", size, ") and num_split ", c->num_outputs());
          }
          out.set_dim(static_cast<int>(*axis), size / c->num_outputs());
        }
      }
      for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, out);
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) { return SplitGradient(c, 1, c->input(0)); });
[[maybe_unused]] const bool split = RegisterArrayKernel<SplitKernel>("Split", {"split_dim"});

// The sizes with a -1 among them replaced by what is left of `size`.
absl::Status ResolveSplitSizes(int64_t size, Ints* sizes) {
  int unknown = -1;
  int64_t sum = 0;
  for (size_t i = 0; i < sizes->size(); ++i) {
    const int64_t n = (*sizes)[i];
    if (n == -1) {
      if (unknown >= 0) return InvalidArgument("There can only be one -1 in the input.");
      unknown = static_cast<int>(i);
    } else if (n < 0) {
      return InvalidArgument("Split size at index ", i, " must be >= 0. Got: ", n);
    } else if (__builtin_add_overflow(sum, n, &sum)) {
      return InvalidArgument("the split sizes overflow");
    }
  }
  if (unknown >= 0 ? sum > size : sum != size) {
    return InvalidArgument(
        "Determined shape must either match input shape along split_dim exactly if fully "
        "specified, or be less than the size of the input along split_dim if not fully "
        "specified.  Got: ",
        sum);
  }
  if (unknown >= 0) (*sizes)[static_cast<size_t>(unknown)] = size - sum;
  return absl::OkStatus();
}

class SplitVKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Ints sizes, c->InputAsInts(1));
    if (c->input(1).rank() != 1 || sizes.size() != static_cast<size_t>(c->num_outputs())) {
      return InvalidArgument("size_splits must be 1-D with one element per output, ",
                             c->num_outputs(), "; got shape ", c->input(1).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(int64_t axis, c->InputAsInt(2));
    FERRY_ASSIGN_OR_RETURN(axis, SplitAxis(axis, in.rank()));
    const int64_t size = in.dim(static_cast<int>(axis));
    if (sizes.size() == 1 && sizes[0] != size) {  // Not even -1 will do.
      return InvalidArgument(
          "If there is only one output, it must have the same size as the input. Input size: ",
          size, ", output size: ", sizes[0]);
    }
    FERRY_RETURN_IF_ERROR(ResolveSplitSizes(size, &sizes));
    return SplitInto(c, in, axis, sizes);
  }
};

FERRY_OP("SplitV")
    .Input("value: T")
    .Input("size_splits: Tlen")
    .Input("split_dim: int32")
    .Output("output: num_split * T")
    .Attr("num_split: int >= 1")
    .Attr("T: type")
    .Attr("Tlen: {int8, int32, int64} = DT_INT64")
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape& in = c->input(0);
      if (!in.known_rank()) return absl::OkStatus();
      std::optional<int64_t> axis = KnownInt(c, 2);
      std::optional<Ints> sizes = KnownInts(c, 1);
      PartialShape out = PartialShape::UnknownOfRank(in.rank());
      if (axis) {
        FERRY_ASSIGN_OR_RETURN(axis, SplitAxis(*axis, in.rank()));
        out = in;
        const int64_t size = in.dim(static_cast<int>(*axis));
        if (sizes && size != PartialShape::kUnknown) {
          FERRY_RETURN_IF_ERROR(ResolveSplitSizes(size, &*sizes));
        }
      }
      for (int i = 0; i < c->num_outputs(); ++i) {
        if (axis) {
          out.set_dim(static_cast<int>(*axis), sizes && static_cast<size_t>(i) < sizes->size()
                                                   ? (*sizes)[static_cast<size_t>(i)]
                                                   : PartialShape::kUnknown);
        }
        c->set_output(i, out);
      }
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) { return SplitGradient(c, 0, c->input(2)); });
[[maybe_unused]] const bool split_v =
    RegisterArrayKernel<SplitVKernel>("SplitV", {"size_splits", "split_dim"});

}  // namespace
}  // namespace ferry
