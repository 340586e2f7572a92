// Picking and placing rows by index: GatherV2, Gather, GatherNd, ScatterNd, DynamicStitch,
// DynamicPartition.
//
// On a GPU indices can't be checked without waiting for it. There, as with TensorFlow's GPU
// kernels, those that point outside pick zeros and add to nothing.
#include <algorithm>
#include <cstring>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/accumulate.h"
#include "kernels/array.h"
#include "kernels/gpu_array.h"
#include "kernels/gpu_host.h"
#include "kernels/nd_index.h"
#include "kernels/row_ops.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/sparse_gradient.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

constexpr int64_t kTaskBytes = 64 << 10;

// Copies `n` elements of the dtype's width between element offsets.
class RunCopier {
 public:
  explicit RunCopier(DType dtype) : strings_(dtype == DType::kString), width_(ElementSize(dtype)) {}
  void Copy(const Tensor& from, int64_t from_at, Tensor* to, int64_t to_at, int64_t n) const {
    if (strings_) {
      std::copy_n(from.data<std::string>() + from_at, n, to->data<std::string>() + to_at);
    } else {
      std::memcpy(static_cast<char*>(to->raw()) + static_cast<size_t>(to_at) * width_,
                  static_cast<const char*>(from.raw()) + static_cast<size_t>(from_at) * width_,
                  static_cast<size_t>(n) * width_);
    }
  }

 private:
  bool strings_;
  size_t width_;
};

int64_t TaskRows(int64_t row_elements) {
  return std::max<int64_t>(1, kTaskBytes / 8 / std::max<int64_t>(1, row_elements));
}

template <typename T>
void Append(T* to, absl::Span<const int64_t> from) {
  to->insert(to->end(), from.begin(), from.end());
}

// ---- GPUs ----

int WidthOf(const Tensor& t) { return static_cast<int>(ElementSize(t.dtype())); }

absl::Status GatherOnGpu(KernelContext* c, const gpu::GatherRows& g) {
  return gpu::LaunchOnGpu(c, [&](gpu::Call* call) { return gpu::Array().gather(call, g); });
}

// ---- GatherV2, Gather ----

// Makes axis and batch_dims non-negative and checks them against the ranks.
absl::Status ResolveGather(int params_rank, int indices_rank, int64_t* axis, int64_t* batch) {
  if (*batch < -indices_rank || *batch > indices_rank) {
    return InvalidArgument("Expected batch_dims in the range [", -indices_rank, ", ", indices_rank,
                           "], but got ", *batch);
  }
  if (*batch < 0) *batch += indices_rank;
  const int64_t asked = *axis;
  if (!NormalizeAxis(params_rank, axis)) {
    return InvalidArgument("Expected axis in the range [", -params_rank, ", ", params_rank,
                           "), but got ", asked);
  }
  if (*batch >= params_rank || *batch > *axis) {
    return InvalidArgument("batch_dims (", *batch, ") must be less than or equal to axis (", *axis,
                           ") and less than rank(params) (", params_rank, ").");
  }
  return absl::OkStatus();
}

class GatherKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    if (c.op() == "Gather") return absl::OkStatus();
    FERRY_ASSIGN_OR_RETURN(batch_, c.Attr<int64_t>("batch_dims"));
    has_axis_ = c.op() == "GatherV2";
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& params = c->input(0);
    const Tensor& indices = c->input(1);
    if (params.rank() < 1) return InvalidArgument("params must be at least 1 dimensional");
    int64_t batch = batch_, axis = batch < 0 ? batch + indices.rank() : batch;
    if (has_axis_) {
      if (c->input(2).num_elements() != 1) return InvalidArgument("axis must be scalar");
      FERRY_ASSIGN_OR_RETURN(axis, c->InputAsInt(2));
    }
    FERRY_RETURN_IF_ERROR(ResolveGather(params.rank(), indices.rank(), &axis, &batch));
    for (int i = 0; i < batch; ++i) {
      if (params.dim(i) != indices.dim(i)) {
        return InvalidArgument("params.shape[", i, "]: ", params.dim(i),
                               " should be equal to indices.shape[", i, "]: ", indices.dim(i));
      }
    }
    const auto a = static_cast<size_t>(axis), b = static_cast<size_t>(batch);
    const absl::Span<const int64_t> p = params.shape().dims(), x = indices.shape().dims();
    const int64_t limit = p[a];
    if (!c->gpu()) FERRY_RETURN_IF_ERROR(CheckIndices(indices, limit));
    Ints dims(p.begin(), p.begin() + axis);
    Append(&dims, x.subspan(b));
    Append(&dims, p.subspan(a + 1));
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    const int64_t outer = Product(p.subspan(b, a - b)), n = Product(x.subspan(b)),
                  inner = Product(p.subspan(a + 1));
    const int64_t rows = out->num_elements() / inner;
    // Row r of the result is (batch, outer, index) taken as one number.
    if (c->gpu()) {
      return GatherOnGpu(c, {IndicesOf(indices, indices.num_elements(), 1, &limit), WidthOf(params),
                             params.raw(), out->raw(), rows, n, outer, limit, inner});
    }
    auto gather = [&](auto copy) {
      c->ParallelFor(rows, TaskRows(inner), [&](int64_t begin, int64_t end) {
        for (int64_t r = begin; r < end;) {
          const int64_t block = r / n, i = r % n;
          const int64_t base = block * limit, at = block / outer * n + i;
          const int64_t run = std::min(end - r, n - i);
          if (indices.dtype() == DType::kInt32) {
            const int32_t* index = indices.data<int32_t>() + at;
            for (int64_t k = 0; k < run; ++k) copy(base + index[k], r + k);
          } else {
            for (int64_t k = 0; k < run; ++k) copy(base + IntAt(indices, at + k), r + k);
          }
          r += run;
        }
      });
    };
    if (inner > 1) {
      const RunCopier copier(params.dtype());
      gather([&](int64_t from, int64_t to) {
        copier.Copy(params, from * inner, out, to * inner, inner);
      });
      return absl::OkStatus();
    }
    return ForWidth(params.dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = static_cast<const T*>(params.raw());
      T* to = static_cast<T*>(out->raw());
      gather([=](int64_t f, int64_t t) { to[t] = from[f]; });
    });
  }
  int64_t batch_ = 0;
  bool has_axis_ = false;
};

absl::Status GatherShape(InferenceContext* c, const PartialShape& from, std::optional<int64_t> axis,
                         int64_t batch) {
  FERRY_ASSIGN_OR_RETURN(PartialShape params, c->WithRankAtLeast(from, 1));
  const PartialShape& indices = c->input(1);
  if (!params.known_rank() || !indices.known_rank()) return absl::OkStatus();
  if (!axis) {
    if (batch < 0) batch += indices.rank();
    const int64_t rank = params.rank() - 1 + indices.rank() - batch;
    if (batch >= 0 && rank >= 0 && rank <= kMaxRank) {
      c->set_output(0, PartialShape::UnknownOfRank(static_cast<int>(rank)));
    }
    return absl::OkStatus();
  }
  FERRY_RETURN_IF_ERROR(ResolveGather(params.rank(), indices.rank(), &*axis, &batch));
  PartialShape out = PartialShape::Scalar();
  for (int i = 0; i < *axis; ++i) {
    int64_t dim = params.dim(i);
    if (i < batch) {
      if (dim == PartialShape::kUnknown) {
        dim = indices.dim(i);
      } else if (indices.dim(i) != PartialShape::kUnknown && indices.dim(i) != dim) {
        return InvalidArgument("params.shape[", i, "]: ", dim, " should be equal to indices.shape[",
                               i, "]: ", indices.dim(i));
      }
    }
    out.AddDim(dim);
  }
  for (int i = static_cast<int>(batch); i < indices.rank(); ++i) out.AddDim(indices.dim(i));
  for (int i = static_cast<int>(*axis) + 1; i < params.rank(); ++i) out.AddDim(params.dim(i));
  c->set_output(0, std::move(out));
  // One size picked from a shape.
  if (params.rank() == 1 && indices.rank() == 0) {
    std::optional<int64_t> at = KnownInt(c, 1);
    absl::StatusOr<PartialShape> value = c->ValueAsShape(0);
    if (at && value.ok() && value->known_rank() && *at >= 0 && *at < value->rank()) {
      c->set_output_value_as_shape(0, {value->dim(static_cast<int>(*at))});
    }
  }
  return absl::OkStatus();
}

// Rows picked from the first dimension: a sparse gradient, with dy as the rows. `shape`: the
// params'.
absl::Status RowsGradient(GradientContext* c, Output shape) {
  const Scope& s = c->scope();
  Output indices = c->input(1);
  const PartialShape& picked = indices.shape();
  Output n = picked.fully_defined()
                 ? ops::Const(s.WithOpName("Size"), static_cast<int32_t>(Product(picked.dims())))
                 : ops::Size(s, indices);
  const Scope expand = s.NewSubScope("ExpandDims"), concat = s.NewSubScope("concat");
  Output dim = ops::Const<int32_t>(expand.WithOpName("dim"), 0);
  Output size = ops::ExpandDims(s.WithOpName(expand.prefix() + "/"), n, dim);
  Output row = AllButFirst(s, shape);
  Output axis = ops::Const<int32_t>(concat.WithOpName("axis"), 0);
  Output rows = ops::ConcatV2(s.WithOpName(concat.prefix() + "/"), {size, row}, axis);
  Output values = ops::Reshape(s, c->grad(0), rows);
  SparseGradientContext::Of(c)->set_input_rows(0, {values, ops::Reshape(s, indices, size), shape});
  return s.status();
}

// Each row of dy is added to the row that it was taken from. UnsortedSegmentSum does that along the
// first dimension, so dy is first turned to have the batch, then the indices' dimensions in front;
// the batches are laid one behind the other.
absl::Status GatherGradient(GradientContext* c, std::optional<int64_t> axis, int64_t batch) {
  const Scope& s = c->scope();
  if (axis == 0 && batch == 0) {
    return RowsGradient(c, ShapeOf(s.ColocateWith(c->input(0).node), c->input(0)));
  }
  Output params = c->input(0), indices = c->input(1), dy = c->grad(0);
  const int p = params.shape().rank(), x = indices.shape().rank();
  if (!axis || p < 0 || x < 0) {
    return InvalidArgument("the gradient of node '", c->node()->name(),
                           "' (GatherV2) needs a constant axis and params and indices of known "
                           "rank, unless axis is 0");
  }
  FERRY_RETURN_IF_ERROR(ResolveGather(p, x, &*axis, &batch));
  const int a = static_cast<int>(*axis), b = static_cast<int>(batch);
  const int n = x - b, outer = a - b;  // Dimensions that come from the indices; between.
  std::vector<int32_t> perm, back;
  for (int i = 0; i < b; ++i) perm.push_back(i);
  for (int i = 0; i < n; ++i) perm.push_back(a + i);
  for (int i = 0; i < outer; ++i) perm.push_back(b + i);
  for (int i = a + n; i < p - 1 + n; ++i) perm.push_back(i);
  // What comes out has dimensions (batch, picked, outer, inner); params (batch, outer, picked,
  // inner).
  for (int i = 0; i < b; ++i) back.push_back(i);
  for (int i = 0; i < outer; ++i) back.push_back(b + 1 + i);
  back.push_back(b);
  for (int i = a + 1; i < p; ++i) back.push_back(i);
  Output rows = ops::Transpose(s, dy, ops::ConstVector(s, perm));
  Output shape = ops::Shape(s, params);
  auto part = [&](int from, int to) {  // Of `shape`.
    return ops::Slice(s, shape, ops::ConstVector<int32_t>(s, {from}),
                      ops::ConstVector<int32_t>(s, {to - from}));
  };
  Output zero = ops::ConstVector<int32_t>(s, {0});
  Output picked = ops::Prod(s, part(a, a + 1), zero), batches = ops::Prod(s, part(0, b), zero);
  if (indices.dtype() == DType::kInt16) indices = ops::Cast(s, indices, DType::kInt32);
  if (b > 0) {
    // Index i of batch k is row k * picked + i of all batches.
    Output starts = ops::Mul(
        s, ops::Range(s, ops::Const<int32_t>(s, 0), batches, ops::Const<int32_t>(s, 1)), picked);
    starts = ops::Reshape(s, ops::Cast(s, starts, indices.dtype()),
                          ops::ConstVector<int32_t>(s, {-1, 1}));
    Output flat = ops::Reshape(s, indices, ops::Pack(s, {batches, ops::Const<int32_t>(s, -1)}));
    indices = ops::Reshape(s, ops::AddV2(s, flat, starts), ops::Shape(s, indices));
  }
  Output sum = NodeBuilder(s, "UnsortedSegmentSum")
                   .Input(rows)
                   .Input(indices)
                   .Input(ops::Mul(s, batches, picked))
                   .BuildOutput();
  Output whole =
      ops::Reshape(s, sum,
                   ops::ConcatV2(s, {part(0, b), part(a, a + 1), part(b, a), part(a + 1, p)},
                                 ops::Const<int32_t>(s, 0)));
  c->set_input_grad(0, ops::Transpose(s, whole, ops::ConstVector(s, back)));
  return s.status();
}

// The value of a scalar integer constant.
std::optional<int64_t> ConstInt(const Output& o) {
  if (o.node->op() != "Const") return std::nullopt;
  absl::StatusOr<Tensor> v = o.node->Attr<Tensor>("value");
  if (!v.ok() || v->num_elements() != 1) return std::nullopt;
  return IntAt(*v, 0);
}

FERRY_OP("GatherV2")
    .Input("params: Tparams")
    .Input("indices: Tindices")
    .Input("axis: Taxis")
    .Output("output: Tparams")
    .Attr("batch_dims: int = 0")
    .Attr("Tparams: type")
    .Attr("Tindices: {int16, int32, int64}")
    .Attr("Taxis: {int32, int64}")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const int64_t batch, c->Attr<int64_t>("batch_dims"));
      return GatherShape(c, c->input(0), KnownInt(c, 2), batch);
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const int64_t batch, c->Attr<int64_t>("batch_dims"));
      return GatherGradient(c, ConstInt(c->input(2)), batch);
    });
FERRY_OP("Gather")
    .Input("params: Tparams")
    .Input("indices: Tindices")
    .Output("output: Tparams")
    .Attr("validate_indices: bool = true")
    .Attr("Tparams: type")
    .Attr("Tindices: {int32, int64}")
    .Shape([](InferenceContext* c) { return GatherShape(c, c->input(0), 0, 0); })
    .Gradient([](GradientContext* c) { return GatherGradient(c, 0, 0); });
// From a variable, along the dimension after the batch's.
FERRY_OP("ResourceGather")
    .Input("resource: resource")
    .Input("indices: Tindices")
    .Output("output: dtype")
    .Attr("batch_dims: int = 0")
    .Attr("validate_indices: bool = true")
    .Attr("dtype: type")
    .Attr("Tindices: {int32, int64}")
    .Stateful()
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const int64_t batch, c->Attr<int64_t>("batch_dims"));
      return GatherShape(c, c->input_handle_shape(0), batch, batch);
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const int64_t batch, c->Attr<int64_t>("batch_dims"));
      if (batch != 0) {
        return Unimplemented("the gradient of ResourceGather with batch_dims ", batch);
      }
      const Scope& s = c->scope();
      const PartialShape& known = c->input(0).node->handle_shape();
      Output shape;
      if (known.fully_defined()) {
        const std::vector<int32_t> dims(known.dims().begin(), known.dims().end());
        shape = ops::ConstVector(s, dims);
      } else {
        shape = NodeBuilder(s, "VariableShape").Input(c->input(0)).BuildOutput();
      }
      return RowsGradient(c, shape);
    });
[[maybe_unused]] const bool gather =
    RegisterArrayKernel<GatherKernel>("GatherV2", {"axis"}, "Tparams") &&
    RegisterArrayKernel<GatherKernel>("Gather", {}, "Tparams") &&
    RegisterArrayKernel<GatherKernel>("ResourceGather", {}, "dtype");

// ---- GatherNd, ScatterNd ----

class GatherNdKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    if (c.op() == "ResourceGatherNd") return absl::OkStatus();
    FERRY_ASSIGN_OR_RETURN(ignore_bad_, IgnoresBadIndices(c));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& params = c->input(0);
    const Tensor& indices = c->input(1);
    if (params.rank() < 1) return InvalidArgument("params must be at least a vector");
    if (indices.rank() < 1) return InvalidArgument("indices must be at least a vector");
    const int64_t depth = indices.dim(indices.rank() - 1);
    if (depth > params.rank()) {
      return InvalidArgument("index innermost dimension length must be <= params rank; saw: ",
                             depth, " vs. ", params.rank());
    }
    const auto prefix = indices.shape().dims().subspan(0, static_cast<size_t>(indices.rank() - 1));
    const auto slice = params.shape().dims().subspan(static_cast<size_t>(depth));
    const int64_t inner = Product(slice), n = Product(prefix);
    if (n > 0 && params.num_elements() == 0) {
      return InvalidArgument("Requested more than 0 entries, but params is empty.  Params shape: ",
                             params.shape().DebugString());
    }
    Ints dims(prefix.begin(), prefix.end());
    Append(&dims, slice);
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    if (c->gpu()) {
      const auto sizes = params.shape().dims();
      return GatherOnGpu(
          c, {IndicesOf(indices, n, depth, sizes.data()), WidthOf(params), params.raw(), out->raw(),
              n, n, 1, Product(sizes.subspan(0, static_cast<size_t>(depth))), inner});
    }
    const NdIndex index(indices, params.shape(), ignore_bad_);
    const RunCopier copier(params.dtype());
    if (ignore_bad_) FERRY_RETURN_IF_ERROR(FillZero(c, out));
    for (int64_t i = 0; i < n; ++i) {
      FERRY_ASSIGN_OR_RETURN(const int64_t at, index.At(i));
      if (at >= 0) copier.Copy(params, at * inner, out, i * inner, inner);
    }
    return absl::OkStatus();
  }
  bool ignore_bad_ = false;
};

absl::Status GatherNdShape(InferenceContext* c, const PartialShape& params) {
  const PartialShape& indices = c->input(1);
  if (!params.known_rank() || !indices.known_rank() || indices.rank() < 1) {
    return absl::OkStatus();
  }
  const int64_t depth = indices.dim(-1);
  if (depth == PartialShape::kUnknown) return absl::OkStatus();
  if (depth > params.rank()) {
    return InvalidArgument("index innermost dimension length must be <= params rank; saw: ", depth,
                           " vs. ", params.rank());
  }
  PartialShape out = PartialShape::Scalar();
  for (int i = 0; i + 1 < indices.rank(); ++i) out.AddDim(indices.dim(i));
  for (int i = static_cast<int>(depth); i < params.rank(); ++i) out.AddDim(params.dim(i));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// Each slice of dy is added to where it was taken from; `shape` is that of the params.
Output GatherNdGradient(GradientContext* c, Output indices, Output shape) {
  return NodeBuilder(c->scope(), "ScatterNd")
      .Input(indices)
      .Input(c->grad(0))
      .Input(shape)
      .BuildOutput();
}

FERRY_OP("GatherNd")
    .Input("params: Tparams")
    .Input("indices: Tindices")
    .Output("output: Tparams")
    .Attr("Tparams: type")
    .Attr("Tindices: {int16, int32, int64}")
    .Attr("bad_indices_policy: string = ''")
    .Shape([](InferenceContext* c) { return GatherNdShape(c, c->input(0)); })
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      FERRY_ASSIGN_OR_RETURN(DType index, c->Attr<DType>("Tindices"));
      Output indices = c->input(1);
      if (index == DType::kInt16) {
        index = DType::kInt32;
        indices = ops::Cast(s, indices, index);
      }
      c->set_input_grad(0, GatherNdGradient(c, indices, ops::Shape(s, c->input(0), index)));
      return s.status();
    });
FERRY_OP("ResourceGatherNd")
    .Input("resource: resource")
    .Input("indices: Tindices")
    .Output("output: dtype")
    .Attr("dtype: type")
    .Attr("Tindices: {int32, int64}")
    .Stateful()
    .Shape([](InferenceContext* c) { return GatherNdShape(c, c->input_handle_shape(0)); })
    .Gradient([](GradientContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(DType index, c->Attr<DType>("Tindices"));
      Output shape = NodeBuilder(c->scope(), "VariableShape")
                         .Input(c->input(0))
                         .Attr("out_type", index)
                         .BuildOutput();
      c->set_input_grad(0, GatherNdGradient(c, c->input(1), shape));
      return c->scope().status();
    });
[[maybe_unused]] const bool gather_nd =
    RegisterArrayKernel<GatherNdKernel>("GatherNd", {}, "Tparams") &&
    RegisterArrayKernel<GatherNdKernel>("ResourceGatherNd", {}, "dtype");

template <typename T>
class ScatterNdKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(ignore_bad_, IgnoresBadIndices(c));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& indices = c->input(0);
    const Tensor& updates = c->input(1);
    if (c->input(2).rank() != 1) {
      return InvalidArgument("Shape must be a vector, found shape ",
                             c->input(2).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, c->InputAsShape(2));
    FERRY_ASSIGN_OR_RETURN(const NdUpdates sizes, CheckNdUpdates(indices, updates, shape));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (c->gpu()) {
      const auto dims = shape.dims();
      const int64_t depth = indices.dim(indices.rank() - 1);
      return ReduceRowsOnGpu(c, gpu::RowOp::kAdd, IndicesOf(indices, sizes.n, depth, dims.data()),
                             updates, Product(dims.subspan(0, static_cast<size_t>(depth))), out);
    }
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    if (updates.num_elements() == 0) return absl::OkStatus();
    const NdIndex index(indices, shape, ignore_bad_);
    for (int64_t i = 0; i < sizes.n; ++i) {
      FERRY_ASSIGN_OR_RETURN(const int64_t at, index.At(i));
      if (at < 0) continue;
      accumulate::Run<accumulate::Add>(out->data<T>() + at * sizes.inner,
                                       updates.data<T>() + i * sizes.inner, sizes.inner);
    }
    return absl::OkStatus();
  }
  bool ignore_bad_ = false;
};

FERRY_OP("ScatterNd")
    .Input("indices: Tindices")
    .Input("updates: T")
    .Input("shape: Tindices")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Tindices: {int16, int32, int64}")
    .Attr("bad_indices_policy: string = ''")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->ValueAsShape(2));
      c->set_output(0, std::move(shape));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(
          1,
          NodeBuilder(c->scope(), "GatherNd").Input(c->grad(0)).Input(c->input(0)).BuildOutput());
      return c->scope().status();
    });

[[maybe_unused]] const bool scatter_nd =
    RegisterForBoth<ScatterNdKernel>(NumberTypes(), "ScatterNd", "T", {}, {"shape"}) &&
    RegisterCpu<ScatterNdKernel>(Types<bool, std::string>(), "ScatterNd");

// ---- DynamicStitch, DynamicPartition ----

class DynamicStitchKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const int n = c->num_inputs() / 2;
    int64_t rows = 0;
    absl::Span<const int64_t> row;
    for (int i = 0; i < n; ++i) {
      const Tensor& indices = c->input(i);
      const Tensor& data = c->input(n + i);
      const auto k = indices.shape().dims(), d = data.shape().dims();
      if (k.size() > d.size() || d.subspan(0, k.size()) != k) {
        return InvalidArgument("data[", i, "].shape = ", data.shape().DebugString(),
                               " does not start with indices[", i,
                               "].shape = ", indices.shape().DebugString());
      }
      if (i == 0) row = d.subspan(k.size());
      if (d.subspan(k.size()) != row) {
        return InvalidArgument("Need data[0].shape[", c->input(0).rank(), ":] = data[", i,
                               "].shape[", indices.rank(),
                               ":], got data[0].shape = ", c->input(n).shape().DebugString(),
                               ", data[", i, "].shape = ", data.shape().DebugString());
      }
      for (int64_t e = 0; e < indices.num_elements(); ++e) {
        const int64_t at = IntAt(indices, e);
        if (at < 0) {
          return InvalidArgument(ElementName("indices", indices.shape(), e), " = ", at,
                                 " is negative");
        }
        rows = std::max(rows, at + 1);
      }
    }
    Ints dims = {rows};
    Append(&dims, row);
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    FERRY_RETURN_IF_ERROR(FillZero(c, out));  // Rows that no index names.
    const int64_t inner = Product(row);
    if (c->gpu()) return StitchOnGpu(c, n, rows, inner, out);
    const RunCopier copier(out->dtype());
    for (int i = 0; i < n; ++i) {
      const Tensor& indices = c->input(i);
      for (int64_t e = 0; e < indices.num_elements(); ++e) {
        copier.Copy(c->input(n + i), e * inner, out, IntAt(indices, e) * inner, inner);
      }
    }
    return absl::OkStatus();
  }

  // Indices lie in host memory. Of rows that go to one place only the last one is sent there.
  static absl::Status StitchOnGpu(KernelContext* c, int n, int64_t rows, int64_t inner,
                                  Tensor* out) {
    if (out->num_elements() == 0) return absl::OkStatus();
    constexpr uint32_t kNowhere = 0xffffffffu;
    if (rows > kNowhere) return Unimplemented("stitching ", rows, " rows on a GPU");
    std::vector<bool> taken(static_cast<size_t>(rows), false);
    std::vector<uint32_t> to;
    for (int i = n; i-- > 0;) {
      const Tensor& indices = c->input(i);
      for (int64_t e = indices.num_elements(); e-- > 0;) {
        const auto at = static_cast<size_t>(IntAt(indices, e));
        to.push_back(taken[at] ? kNowhere : static_cast<uint32_t>(at));
        taken[at] = true;
      }
    }
    std::reverse(to.begin(), to.end());
    return gpu::LaunchOnGpu(c, [&](gpu::Call* call) {
      const auto count = static_cast<int64_t>(to.size());
      auto* at = static_cast<uint32_t*>(call->Scratch(count * int64_t{sizeof(uint32_t)}));
      if (!at || !gpu::Array().send(call, to.data(), count, at)) return false;
      for (int i = 0; i < n; ++i) {
        const int64_t k = c->input(i).num_elements();
        if (!gpu::Array().place_rows(call, WidthOf(*out), at, k, inner, c->input(n + i).raw(),
                                     out->raw())) {
          return false;
        }
        at += k;
      }
      return true;
    });
  }
};

absl::Status DynamicStitchShape(InferenceContext* c) {
  const int n = c->num_inputs() / 2;
  PartialShape row;
  int64_t rows = 0;  // Known only while all indices are.
  for (int i = 0; i < n; ++i) {
    const PartialShape &indices = c->input(i), &data = c->input(n + i);
    const Tensor* value = c->value(i);
    if (!value) {
      rows = PartialShape::kUnknown;
    } else if (rows != PartialShape::kUnknown) {
      for (int64_t e = 0; e < value->num_elements(); ++e) {
        rows = std::max(rows, IntAt(*value, e) + 1);
      }
    }
    if (!indices.known_rank() || !data.known_rank()) continue;
    if (indices.rank() > data.rank()) {
      return InvalidArgument("data[", i, "].shape = ", data.DebugString(),
                             " does not start with indices[", i,
                             "].shape = ", indices.DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(
        row, PartialShape::Merge(
                 row, PartialShape(data.dims().subspan(static_cast<size_t>(indices.rank())))));
  }
  if (!row.known_rank()) return absl::OkStatus();
  PartialShape out = {rows};
  for (int64_t d : row.dims()) out.AddDim(d);
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

absl::Status DynamicStitchGradient(GradientContext* c) {
  const int n = c->node()->num_inputs() / 2;
  for (int i = 0; i < n; ++i) {
    c->set_input_grad(n + i, ops::GatherV2(c->scope(), c->grad(0), c->input(i),
                                           ops::Const<int32_t>(c->scope(), 0)));
  }
  return c->scope().status();
}

FERRY_OP("DynamicStitch")
    .Input("indices: N * int32")
    .Input("data: N * T")
    .Output("merged: T")
    .Attr("N: int >= 1")
    .Attr("T: type")
    .Shape(DynamicStitchShape)
    .Gradient(DynamicStitchGradient);
FERRY_OP("ParallelDynamicStitch")
    .Input("indices: N * int32")
    .Input("data: N * T")
    .Output("merged: T")
    .Attr("N: int >= 1")
    .Attr("T: type")
    .Shape(DynamicStitchShape)
    .Gradient(DynamicStitchGradient);
[[maybe_unused]] const bool dynamic_stitch =
    RegisterArrayKernel<DynamicStitchKernel>("DynamicStitch", {"indices"}) &&
    RegisterArrayKernel<DynamicStitchKernel>("ParallelDynamicStitch", {"indices"});

class DynamicPartitionKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& data = c->input(0);
    const Tensor& parts = c->input(1);
    const auto d = data.shape().dims(), k = parts.shape().dims();
    if (k.size() > d.size() || d.subspan(0, k.size()) != k) {
      return InvalidArgument("data.shape must start with partitions.shape, got data.shape = ",
                             data.shape().DebugString(),
                             ", partitions.shape = ", parts.shape().DebugString());
    }
    const int n = c->num_outputs();
    std::vector<int64_t> counts(static_cast<size_t>(n), 0);
    for (int64_t i = 0; i < parts.num_elements(); ++i) {
      const int64_t p = IntAt(parts, i);
      if (p < 0 || p >= n) {
        return InvalidArgument(ElementName("partitions", parts.shape(), i), " = ", p,
                               " is not in [0, ", n, ")");
      }
      ++counts[static_cast<size_t>(p)];
    }
    std::vector<Tensor*> outs;
    for (int i = 0; i < n; ++i) {
      Ints dims = {counts[static_cast<size_t>(i)]};
      Append(&dims, d.subspan(k.size()));
      FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
      FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(i, shape));
      outs.push_back(out);
    }
    const int64_t inner = Product(d.subspan(k.size()));
    if (c->gpu()) return PartitionOnGpu(c, counts, inner, outs);
    const RunCopier copier(data.dtype());
    std::fill(counts.begin(), counts.end(), 0);
    for (int64_t i = 0; i < parts.num_elements(); ++i) {
      const auto p = static_cast<size_t>(IntAt(parts, i));
      copier.Copy(data, i * inner, outs[p], counts[p]++ * inner, inner);
    }
    return absl::OkStatus();
  }

  // `partitions` lies in host memory: what rows each output is made of is known there.
  static absl::Status PartitionOnGpu(KernelContext* c, const std::vector<int64_t>& counts,
                                     int64_t inner, const std::vector<Tensor*>& outs) {
    const Tensor& data = c->input(0);
    const Tensor& parts = c->input(1);
    const int64_t n = parts.num_elements();
    if (data.num_elements() == 0) return absl::OkStatus();
    if (n > std::numeric_limits<int32_t>::max()) {
      return Unimplemented("partitioning ", n, " rows on a GPU");
    }
    std::vector<int64_t> ends(counts.size(), 0);  // Of each output's rows so far.
    for (size_t p = 1; p < ends.size(); ++p) ends[p] = ends[p - 1] + counts[p - 1];
    std::vector<uint32_t> from(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) {
      from[static_cast<size_t>(ends[static_cast<size_t>(IntAt(parts, i))]++)] =
          static_cast<uint32_t>(i);
    }
    return gpu::LaunchOnGpu(c, [&](gpu::Call* call) {
      auto* at = static_cast<uint32_t*>(call->Scratch(n * int64_t{sizeof(uint32_t)}));
      if (!at || !gpu::Array().send(call, from.data(), n, at)) return false;
      for (size_t p = 0; p < outs.size(); ++p) {
        const gpu::NdIndices rows = {at, DType::kInt32, counts[p], 1, &n};
        if (counts[p] > 0 &&
            !gpu::Array().gather(call, {rows, WidthOf(data), data.raw(), outs[p]->raw(), counts[p],
                                        counts[p], 1, n, inner})) {
          return false;
        }
        at += counts[p];
      }
      return true;
    });
  }
};

FERRY_OP("DynamicPartition")
    .Input("data: T")
    .Input("partitions: int32")
    .Output("outputs: num_partitions * T")
    .Attr("num_partitions: int >= 1")
    .Attr("T: type")
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape &data = c->input(0), &parts = c->input(1);
      if (!data.known_rank() || !parts.known_rank()) return absl::OkStatus();
      if (parts.rank() > data.rank()) {
        return InvalidArgument("data.shape must start with partitions.shape, got data.shape = ",
                               data.DebugString(), ", partitions.shape = ", parts.DebugString());
      }
      PartialShape out = {PartialShape::kUnknown};
      for (int i = parts.rank(); i < data.rank(); ++i) out.AddDim(data.dim(i));
      for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, out);
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      // The rows' own numbers, partitioned alike, say where each row of the gradients goes.
      const Scope& s = c->scope();
      const int n = c->node()->num_outputs();
      Output numbers =
          ops::Reshape(s,
                       ops::Range(s, ops::Const<int32_t>(s, 0), ops::Size(s, c->input(1)),
                                  ops::Const<int32_t>(s, 1)),
                       ops::Shape(s, c->input(1)));
      Node* parts = NodeBuilder(s, "DynamicPartition")
                        .Input(numbers)
                        .Input(c->input(1))
                        .Attr("num_partitions", n)
                        .Build();
      if (!parts) return s.status();
      std::vector<Output> indices, grads;
      for (int i = 0; i < n; ++i) {
        indices.emplace_back(parts, i);
        grads.push_back(c->grad(i).node ? c->grad(i) : ops::ZerosLike(s, c->output(i)));
      }
      Output rows =
          NodeBuilder(s, "ParallelDynamicStitch").Input(indices).Input(grads).BuildOutput();
      c->set_input_grad(0, ops::Reshape(s, rows, ops::Shape(s, c->input(0))));
      return s.status();
    });
[[maybe_unused]] const bool dynamic_partition =
    RegisterArrayKernel<DynamicPartitionKernel>("DynamicPartition", {"partitions"});

}  // namespace
}  // namespace ferry
