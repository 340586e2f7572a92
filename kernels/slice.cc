// Taking part of a tensor: Slice, StridedSlice with all its masks, and the latter's gradient.
#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/array.h"
#include "runtime/base/mutex.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "runtime/op/variable.h"

namespace ferry {
namespace {

// ---- Slice ----

class SliceKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    const size_t rank = static_cast<size_t>(in.rank());
    if (c->input(1).rank() != 1 || c->input(2).rank() != 1 ||
        c->input(1).num_elements() != in.rank() || c->input(2).num_elements() != in.rank()) {
      return InvalidArgument("Expected begin and size arguments to be 1-D tensors of size ", rank,
                             ", but got shapes ", c->input(1).shape().DebugString(), " and ",
                             c->input(2).shape().DebugString(), " instead.");
    }
    FERRY_ASSIGN_OR_RETURN(Ints begin, c->InputAsInts(1));
    FERRY_ASSIGN_OR_RETURN(Ints size, c->InputAsInts(2));
    const Ints strides = Strides(in.shape().dims());
    for (size_t d = 0; d < rank; ++d) {
      const int64_t dim = in.dim(static_cast<int>(d));
      if (begin[d] < 0 || begin[d] > dim) {
        return InvalidArgument("Expected begin[", d, "] in [0, ", dim, "], but got ", begin[d]);
      }
      if (size[d] == -1) size[d] = dim - begin[d];
      if (size[d] < 0 || size[d] > dim - begin[d]) {
        return InvalidArgument("Expected size[", d, "] in [0, ", dim - begin[d], "], but got ",
                               size[d]);
      }
    }
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(size));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    const Ints to = Strides(shape.dims());
    absl::InlinedVector<CopyDim, 8> dims(rank);
    int64_t offset = 0;
    for (size_t d = 0; d < rank; ++d) {
      dims[d] = {size[d], strides[d], to[d]};
      offset += begin[d] * strides[d];
    }
    return StridedCopy(c, in, offset, out, 0, dims);
  }
};

absl::Status SliceShape(InferenceContext* c) {
  const PartialShape& in = c->input(0);
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(2), 1).status());
  int64_t rank = in.rank();
  for (int i = 1; i < 3 && rank < 0; ++i) rank = c->input(i).dim(0);
  if (rank < 0 || rank > kMaxRank) return absl::OkStatus();
  for (int i = 1; i < 3; ++i) {
    const int64_t n = c->input(i).dim(0);
    if (n != PartialShape::kUnknown && n != rank) {
      return InvalidArgument("Expected begin and size arguments to be 1-D tensors of size ", rank,
                             ", but got shapes ", c->input(1).DebugString(), " and ",
                             c->input(2).DebugString(), " instead.");
    }
  }
  const std::optional<Ints> begin = KnownInts(c, 1), size = KnownInts(c, 2);
  // A -1 in a size whose value isn't all known may mean "unknown" or "the rest": unknown both.
  absl::StatusOr<PartialShape> partial = c->ValueAsShape(2);
  PartialShape out = PartialShape::UnknownOfRank(static_cast<int>(rank));
  for (int d = 0; d < static_cast<int>(rank); ++d) {
    const auto k = static_cast<size_t>(d);
    const int64_t dim = in.dim(d);
    if (begin && dim != PartialShape::kUnknown && ((*begin)[k] < 0 || (*begin)[k] > dim)) {
      return InvalidArgument("Expected begin[", d, "] in [0, ", dim, "], but got ", (*begin)[k]);
    }
    if (size && (*size)[k] == -1) {
      if (begin && dim != PartialShape::kUnknown) out.set_dim(d, dim - (*begin)[k]);
    } else if (size) {
      if ((*size)[k] < 0) {
        return InvalidArgument("Expected size[", d, "] >= 0, but got ", (*size)[k]);
      }
      if (begin && dim != PartialShape::kUnknown && (*size)[k] > dim - (*begin)[k]) {
        return InvalidArgument("Expected size[", d, "] in [0, ", dim - (*begin)[k], "], but got ",
                               (*size)[k]);
      }
      out.set_dim(d, (*size)[k]);
    } else if (partial.ok() && partial->known_rank()) {
      out.set_dim(d, partial->dim(d));
    }
  }
  if (rank == 1 && begin && out.dim(0) != PartialShape::kUnknown) {
    absl::StatusOr<PartialShape> value = c->ValueAsShape(0);
    if (value.ok() && value->known_rank()) {
      const auto at = static_cast<size_t>((*begin)[0]), n = static_cast<size_t>(out.dim(0));
      if (at + n <= value->dims().size()) {
        c->set_output_value_as_shape(0, PartialShape(value->dims().subspan(at, n)));
      }
    }
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

FERRY_OP("Slice")
    .Input("input: T")
    .Input("begin: Index")
    .Input("size: Index")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Index: {int32, int64}")
    .Shape(SliceShape)
    .Gradient([](GradientContext* c) -> absl::Status {
      // The part gets dy, the rest zeros: what the gradient of a StridedSlice of the same part is.
      const Scope& s = c->scope();
      FERRY_ASSIGN_OR_RETURN(const DType index, c->Attr<DType>("Index"));
      Output end = ops::AddV2(s, c->input(1), ops::Shape(s, c->output(0), index));
      c->set_input_grad(0, NodeBuilder(s, "StridedSliceGrad")
                               .Input(ops::Shape(s, c->input(0), index))
                               .Input(c->input(1))
                               .Input(end)
                               .Input(ops::OnesLike(s, c->input(1)))
                               .Input(c->grad(0))
                               .BuildOutput());
      return s.status();
    });
[[maybe_unused]] const bool slice = RegisterArrayKernel<SliceKernel>("Slice", {"begin", "size"});

// ---- StridedSlice ----

struct Masks {
  int64_t begin = 0, end = 0, ellipsis = 0, new_axis = 0, shrink_axis = 0;
};

template <typename Context>
absl::StatusOr<Masks> ReadMasks(const Context& c) {
  Masks m;
  FERRY_ASSIGN_OR_RETURN(m.begin, c.template Attr<int64_t>("begin_mask"));
  FERRY_ASSIGN_OR_RETURN(m.end, c.template Attr<int64_t>("end_mask"));
  FERRY_ASSIGN_OR_RETURN(m.ellipsis, c.template Attr<int64_t>("ellipsis_mask"));
  FERRY_ASSIGN_OR_RETURN(m.new_axis, c.template Attr<int64_t>("new_axis_mask"));
  FERRY_ASSIGN_OR_RETURN(m.shrink_axis, c.template Attr<int64_t>("shrink_axis_mask"));
  return m;
}

bool Bit(int64_t mask, size_t i) { return i < 63 && (mask >> i & 1); }

// What a slice takes along each dimension of the input, and the shape of the result (in which
// dimensions were added and removed).
struct StridedSpec {
  // size -1: not known. result: which dimension of the result it is, -1 if removed.
  struct Dim {
    int64_t begin = 0, stride = 1, size = PartialShape::kUnknown;
    int result = -1;
  };
  absl::InlinedVector<Dim, 8> dims;
  PartialShape result;
};

// One dimension, of size `dim`, by Python's rules.
StridedSpec::Dim ResolveRange(int64_t dim, int64_t begin, int64_t end, int64_t stride,
                              bool begin_mask, bool end_mask) {
  const int64_t first = stride > 0 ? 0 : dim - 1;  // Where a masked begin and end lie.
  const int64_t past = stride > 0 ? dim : -1;
  const int64_t low = stride > 0 ? 0 : -1, high = stride > 0 ? dim : dim - 1;
  auto place = [&](int64_t x) { return std::clamp(x < 0 ? dim + x : x, low, high); };
  StridedSpec::Dim out;
  out.begin = begin_mask ? first : place(begin);
  const int64_t length = (end_mask ? past : place(end)) - out.begin;
  out.stride = stride;
  out.size =
      length == 0 || (length < 0) != (stride < 0) ? 0 : length / stride + (length % stride != 0);
  return out;
}

// `begin` and `end` may be unknown; `input` may be partial. `count`: how many entries they have.
absl::StatusOr<StridedSpec> ResolveStrided(const PartialShape& input, size_t count,
                                           const Ints* begin, const Ints* end, const Ints& strides,
                                           const Masks& m) {
  // The ellipsis, an implied one at the end if there is none, stands for all dimensions that the
  // other entries don't name.
  size_t ellipsis = count, named = 0;
  for (size_t i = 0; i < count; ++i) {
    if (Bit(m.ellipsis, i)) {
      if (ellipsis != count) {
        return InvalidArgument("Multiple ellipses in slice spec not allowed");
      }
      ellipsis = i;
    } else if (!Bit(m.new_axis, i)) {
      ++named;
    }
  }
  const size_t rank = static_cast<size_t>(input.rank());
  if (named > rank) {
    return InvalidArgument("Index out of range using input dim ", rank, "; input has only ", rank,
                           " dims");
  }
  StridedSpec spec;
  PartialShape result = PartialShape::Scalar();
  auto take_whole = [&](size_t n) {
    for (; n > 0; --n) {
      const int64_t dim = input.dim(static_cast<int>(spec.dims.size()));
      spec.dims.push_back({0, 1, dim, result.rank()});
      result.AddDim(dim);
    }
  };
  for (size_t i = 0; i < count; ++i) {
    if (i == ellipsis) {
      take_whole(rank - named);
      continue;
    }
    if (Bit(m.new_axis, i)) {
      result.AddDim(1);
      continue;
    }
    const size_t d = spec.dims.size();
    const int64_t dim = input.dim(static_cast<int>(d));
    const int64_t stride = strides[i];
    const bool shrink = Bit(m.shrink_axis, i);
    if (stride == 0) return InvalidArgument("strides[", i, "] must be non-zero");
    if (shrink) {
      if (stride < 0) return InvalidArgument("only stride 1 allowed on non-range indexing.");
      StridedSpec::Dim one{0, 1, 1, -1};
      if (begin && dim != PartialShape::kUnknown) {
        const int64_t at = (*begin)[i];
        one.begin = at < 0 ? at + dim : at;
        if (one.begin < 0 || one.begin >= dim) {
          return InvalidArgument("slice index ", at, " of dimension ", d, " out of bounds.");
        }
      } else if (begin) {
        one.begin = (*begin)[i];
      }
      spec.dims.push_back(one);
      continue;
    }
    const bool begin_mask = Bit(m.begin, i), end_mask = Bit(m.end, i);
    StridedSpec::Dim range{0, stride, PartialShape::kUnknown, -1};
    if (dim != PartialShape::kUnknown && (begin || begin_mask) && (end || end_mask)) {
      range = ResolveRange(dim, begin_mask ? 0 : (*begin)[i], end_mask ? 0 : (*end)[i], stride,
                           begin_mask, end_mask);
    }
    range.result = result.rank();
    spec.dims.push_back(range);
    result.AddDim(range.size);
  }
  take_whole(rank - spec.dims.size());
  spec.result = std::move(result);
  return spec;
}

// For kernels: everything is known. The index inputs begin with `at`.
absl::StatusOr<StridedSpec> ResolveStrided(KernelContext* c, int at, const TensorShape& input,
                                           const Masks& m) {
  const Tensor &b = c->input(at), &e = c->input(at + 1), &s = c->input(at + 2);
  if (b.rank() != 1 || b.shape() != e.shape() || b.shape() != s.shape()) {
    return InvalidArgument(
        "Expected begin, end, and strides to be 1D equal size tensors, but got shapes ",
        b.shape().DebugString(), ", ", e.shape().DebugString(), ", and ", s.shape().DebugString(),
        " instead.");
  }
  FERRY_ASSIGN_OR_RETURN(Ints begin, c->InputAsInts(at));
  FERRY_ASSIGN_OR_RETURN(Ints end, c->InputAsInts(at + 1));
  FERRY_ASSIGN_OR_RETURN(Ints strides, c->InputAsInts(at + 2));
  return ResolveStrided(input, begin.size(), &begin, &end, strides, m);
}

// The dimensions of a copy between a whole tensor of shape `whole` and the dense slice, and where
// in the whole it begins. `whole_to`: the slice is copied into the whole.
absl::InlinedVector<CopyDim, 8> CopyDims(const StridedSpec& spec, const TensorShape& whole,
                                         bool whole_to, int64_t* offset) {
  const Ints strides = Strides(whole.dims());
  Ints sizes;
  for (const StridedSpec::Dim& d : spec.dims) sizes.push_back(d.size);
  const Ints dense = Strides(sizes);
  absl::InlinedVector<CopyDim, 8> dims;
  *offset = 0;
  for (size_t i = 0; i < spec.dims.size(); ++i) {
    // A stride is only used between two elements that both exist; a lone one's may be anything.
    const int64_t step = sizes[i] > 1 ? strides[i] * spec.dims[i].stride : 0;
    *offset += sizes[i] > 0 ? spec.dims[i].begin * strides[i] : 0;
    dims.push_back(whole_to ? CopyDim{sizes[i], dense[i], step}
                            : CopyDim{sizes[i], step, dense[i]});
  }
  return dims;
}

class StridedSliceKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(masks_, ReadMasks(c));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(StridedSpec spec, ResolveStrided(c, 1, in.shape(), masks_));
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, spec.result.ToTensorShape());
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    int64_t offset;
    const auto dims = CopyDims(spec, in.shape(), false, &offset);
    return StridedCopy(c, in, offset, out, 0, dims);
  }
  Masks masks_;
};

class StridedSliceGradKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(masks_, ReadMasks(c));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& dy = c->input(4);
    if (c->input(0).rank() != 1) {
      return InvalidArgument("shape must be 1-D, got shape.shape = ",
                             c->input(0).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(TensorShape whole, c->InputAsShape(0));
    FERRY_ASSIGN_OR_RETURN(StridedSpec spec, ResolveStrided(c, 1, whole, masks_));
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, spec.result.ToTensorShape());
    if (dy.shape() != shape) {
      return InvalidArgument("shape of dy was ", dy.shape().DebugString(), " instead of ",
                             shape.DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, whole));
    if (dy.num_elements() < out->num_elements()) FERRY_RETURN_IF_ERROR(FillZero(c, out));
    int64_t offset;
    const auto dims = CopyDims(spec, whole, true, &offset);
    return StridedCopy(c, dy, 0, out, offset, dims);
  }
  Masks masks_;
};

// Writes into part of a variable; the value is broadcast to that part's shape.
class StridedSliceAssignKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(masks_, ReadMasks(c));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    Variable* v = c->variable(0);
    MutexLock lock(&v->mu());
    const TensorShape whole = v->tensor().shape();
    FERRY_ASSIGN_OR_RETURN(StridedSpec spec, ResolveStrided(c, 1, whole, masks_));
    FERRY_ASSIGN_OR_RETURN(TensorShape part, spec.result.ToTensorShape());
    Tensor value = c->input(4);
    absl::StatusOr<TensorShape> both = BroadcastShapes(part, value.shape());
    if (!both.ok() || *both != part) {
      return InvalidArgument("a value of shape ", value.shape().DebugString(),
                             " can't be assigned to a slice of shape ", part.DebugString(),
                             " of variable '", v->name(), "'");
    }
    if (value.SharesBufferWith(v->tensor())) {
      const Tensor shared = value;
      FERRY_ASSIGN_OR_RETURN(
          value, Tensor::Allocate(shared.dtype(), shared.shape(),
                                  c->gpu() ? c->gpu()->allocator() : HostAllocator::Get()));
      FERRY_RETURN_IF_ERROR(c->Copy(shared, &value));
    }
    int64_t offset;
    absl::InlinedVector<CopyDim, 8> dims = CopyDims(spec, whole, true, &offset);
    const Ints strides = Strides(value.shape().dims());
    for (size_t i = 0; i < dims.size(); ++i) {
      // Where the slice's dimension is in the value, whose shape may lack the first ones.
      const int d = spec.dims[i].result - (part.rank() - value.rank());
      dims[i].from = spec.dims[i].result < 0 || d < 0 || value.dim(d) == 1
                         ? 0
                         : strides[static_cast<size_t>(d)];
    }
    FERRY_RETURN_IF_ERROR(StridedCopy(c, value, 0, v->MutableTensor(), offset, dims));
    c->SetOutputVariable(0, v);
    return absl::OkStatus();
  }
  Masks masks_;
};

absl::Status StridedSliceShape(InferenceContext* c) {
  const PartialShape& in = c->input(0);
  FERRY_ASSIGN_OR_RETURN(const Masks masks, ReadMasks(*c));
  PartialShape entries;
  for (int i = 1; i < 4; ++i) {
    FERRY_ASSIGN_OR_RETURN(PartialShape one, c->WithRank(c->input(i), 1));
    FERRY_ASSIGN_OR_RETURN(entries, PartialShape::Merge(entries, one));
  }
  const std::optional<Ints> begin = KnownInts(c, 1), end = KnownInts(c, 2);
  std::optional<Ints> strides = KnownInts(c, 3);
  if (!in.known_rank() || !strides) return absl::OkStatus();
  if ((begin && begin->size() != strides->size()) || (end && end->size() != strides->size())) {
    return InvalidArgument(
        "Expected begin, end, and strides to be 1D equal size tensors, but got shapes ",
        c->input(1).DebugString(), ", ", c->input(2).DebugString(), ", and ",
        c->input(3).DebugString(), " instead.");
  }
  FERRY_ASSIGN_OR_RETURN(StridedSpec spec,
                         ResolveStrided(in, strides->size(), begin ? &*begin : nullptr,
                                        end ? &*end : nullptr, *strides, masks));
  // One size, or a run of sizes, out of a shape.
  if (in.rank() == 1 && begin && (end || spec.result.rank() == 0) && masks.new_axis == 0) {
    absl::StatusOr<PartialShape> value = c->ValueAsShape(0);
    const StridedSpec::Dim& d = spec.dims[0];
    if (value.ok() && value->known_rank() && d.size != PartialShape::kUnknown) {
      PartialShape taken = PartialShape::Scalar();
      for (int64_t i = 0; i < d.size; ++i) {
        taken.AddDim(value->dim(static_cast<int>(d.begin + i * d.stride)));
      }
      c->set_output_value_as_shape(0, std::move(taken));
    }
  }
  c->set_output(0, std::move(spec.result));
  return absl::OkStatus();
}

// `op` (StridedSlice or its gradient) with the masks of the node.
NodeBuilder WithMasks(GradientContext* c, const char* op) {
  NodeBuilder b(c->scope(), op);
  for (const char* mask :
       {"begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask"}) {
    b.AttrValue(mask, c->node()->attrs().at(mask));
  }
  return b;
}

FERRY_OP("StridedSlice")
    .Input("input: T")
    .Input("begin: Index")
    .Input("end: Index")
    .Input("strides: Index")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Index: {int16, int32, int64}")
    .Attr("begin_mask: int = 0")
    .Attr("end_mask: int = 0")
    .Attr("ellipsis_mask: int = 0")
    .Attr("new_axis_mask: int = 0")
    .Attr("shrink_axis_mask: int = 0")
    .Shape(StridedSliceShape)
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      FERRY_ASSIGN_OR_RETURN(DType index, c->Attr<DType>("Index"));
      std::vector<Output> at = {c->input(1), c->input(2), c->input(3)};
      if (index == DType::kInt16) {  // The gradient op takes none.
        index = DType::kInt32;
        for (Output& o : at) o = ops::Cast(s, o, index);
      }
      c->set_input_grad(0, WithMasks(c, "StridedSliceGrad")
                               .Input(ops::Shape(s, c->input(0), index))
                               .Input(at[0])
                               .Input(at[1])
                               .Input(at[2])
                               .Input(c->grad(0))
                               .BuildOutput());
      return s.status();
    });
FERRY_OP("StridedSliceGrad")
    .Input("shape: Index")
    .Input("begin: Index")
    .Input("end: Index")
    .Input("strides: Index")
    .Input("dy: T")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Index: {int32, int64}")
    .Attr("begin_mask: int = 0")
    .Attr("end_mask: int = 0")
    .Attr("ellipsis_mask: int = 0")
    .Attr("new_axis_mask: int = 0")
    .Attr("shrink_axis_mask: int = 0")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->ValueAsShape(0));
      c->set_output(0, std::move(shape));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(4, WithMasks(c, "StridedSlice")
                               .Input(c->grad(0))
                               .Input(c->input(1))
                               .Input(c->input(2))
                               .Input(c->input(3))
                               .BuildOutput());
      return c->scope().status();
    });
// "ref: Ref(T)", or a handle.
OpBuilder AssignOp(const char* name, bool resource) {
  OpBuilder b(name);
  b.Input(resource ? "ref: resource" : "ref: Ref(T)")
      .Input("begin: Index")
      .Input("end: Index")
      .Input("strides: Index")
      .Input("value: T");
  if (!resource) b.Output("output_ref: Ref(T)");
  b.Attr("T: type")
      .Attr("Index: {int32, int64}")
      .Attr("begin_mask: int = 0")
      .Attr("end_mask: int = 0")
      .Attr("ellipsis_mask: int = 0")
      .Attr("new_axis_mask: int = 0")
      .Attr("shrink_axis_mask: int = 0");
  if (resource) {
    b.Stateful().Shape(NoOutputs);
  } else {
    b.Shape(UnchangedShape).NotDifferentiable();
  }
  return b;
}
const OpBuilder::Registrar slice_assign(AssignOp("StridedSliceAssign", false));
const OpBuilder::Registrar resource_slice_assign(AssignOp("ResourceStridedSliceAssign", true));
[[maybe_unused]] const bool strided =
    RegisterArrayKernel<StridedSliceKernel>("StridedSlice", {"begin", "end", "strides"}) &&
    RegisterArrayKernel<StridedSliceGradKernel>("StridedSliceGrad",
                                                {"shape", "begin", "end", "strides"}) &&
    RegisterArrayKernel<StridedSliceAssignKernel>("StridedSliceAssign", {"begin", "end", "strides"},
                                                  "T",
                                                  /*replayable=*/false) &&  // It may allocate.
    RegisterArrayKernel<StridedSliceAssignKernel>("ResourceStridedSliceAssign",
                                                  {"begin", "end", "strides"}, "T",
                                                  /*replayable=*/false);

}  // namespace
}  // namespace ferry
