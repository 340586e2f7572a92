// MatMul, BatchMatMul and BatchMatMulV2.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "kernels/gemm.h"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

using MatMulTypes = Types<half, bfloat16, float, double, int32_t, int64_t>;

absl::Status SizesDiffer(const std::string& a, const std::string& b) {
  return InvalidArgument("Matrix size-incompatible: In[0]: ", a, ", In[1]: ", b);
}

absl::Status MatMulShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(bool ta, c->Attr<bool>("transpose_a"));
  FERRY_ASSIGN_OR_RETURN(bool tb, c->Attr<bool>("transpose_b"));
  for (int i = 0; i < 2; ++i) {
    absl::StatusOr<PartialShape> matrix = c->WithRank(c->input(i), 2);
    if (!matrix.ok()) return Annotate(matrix.status(), absl::StrCat("In[", i, "]"));
  }
  const PartialShape &a = c->input(0), &b = c->input(1);
  auto size = [](const PartialShape& s, int i) {
    return s.known_rank() ? s.dim(i) : PartialShape::kUnknown;
  };
  const int64_t inner_a = size(a, ta ? 0 : 1), inner_b = size(b, tb ? 1 : 0);
  if (inner_a >= 0 && inner_b >= 0 && inner_a != inner_b) {
    return SizesDiffer(a.DebugString(), b.DebugString());
  }
  c->set_output(0, PartialShape({size(a, ta ? 1 : 0), size(b, tb ? 0 : 1)}));
  return absl::OkStatus();
}

// c = op(a) op(b):
//   c = a b      da = dc b^T     db = a^T dc
//   c = a b^T    da = dc b       db = dc^T a
//   c = a^T b    da = b dc^T     db = a dc
//   c = a^T b^T  da = b^T dc^T   db = dc^T a^T
template <typename Multiply>
std::pair<Output, Output> ProductGradients(Output a, Output b, Output dc, bool ta, bool tb,
                                           const Multiply& multiply) {
  const Output da = ta ? multiply(b, dc, tb, true) : multiply(dc, b, false, !tb);
  const Output db = tb ? multiply(dc, a, true, ta) : multiply(a, dc, !ta, false);
  return {da, db};
}

absl::Status MatMulGradient(GradientContext* c) {
  FERRY_ASSIGN_OR_RETURN(bool ta, c->Attr<bool>("transpose_a"));
  FERRY_ASSIGN_OR_RETURN(bool tb, c->Attr<bool>("transpose_b"));
  auto [da, db] = ProductGradients(
      c->input(0), c->input(1), c->grad(0), ta, tb,
      [&](Output x, Output y, bool tx, bool ty) { return ops::MatMul(c->scope(), x, y, tx, ty); });
  c->set_input_grad(0, da);
  c->set_input_grad(1, db);
  return c->scope().status();
}

// Fills in the sizes of the product of inputs 0 and 1.
absl::Status MatMulSizes(const KernelContext& c, GemmShape* s) {
  const Tensor &a = c.input(0), &b = c.input(1);
  for (int i = 0; i < 2; ++i) {
    if (c.input(i).rank() != 2) {
      return InvalidArgument("In[", i, "] is not a matrix. Instead it has shape ",
                             c.input(i).shape().DebugString());
    }
  }
  s->m = a.dim(s->transpose_a ? 1 : 0);
  s->k = a.dim(s->transpose_a ? 0 : 1);
  s->n = b.dim(s->transpose_b ? 0 : 1);
  if (b.dim(s->transpose_b ? 1 : 0) != s->k) {
    return SizesDiffer(a.shape().DebugString(), b.shape().DebugString());
  }
  return absl::OkStatus();
}

template <typename T>
class MatMulKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(shape_.transpose_a, c.Attr<bool>("transpose_a"));
    FERRY_ASSIGN_OR_RETURN(shape_.transpose_b, c.Attr<bool>("transpose_b"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    GemmShape s = shape_;
    FERRY_RETURN_IF_ERROR(MatMulSizes(*c, &s));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape({s.m, s.n})));
    return Gemm<T>(c, s, c->input(0).data<T>(), c->input(1).data<T>(), out->data<T>());
  }

 private:
  GemmShape shape_;
};

// ---- Batches of matrices ----

absl::Status BatchMatMulShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(bool ta, c->Attr<bool>("adj_x"));
  FERRY_ASSIGN_OR_RETURN(bool tb, c->Attr<bool>("adj_y"));
  for (int i = 0; i < 2; ++i) {
    FERRY_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(i), 2).status());
  }
  const PartialShape &a = c->input(0), &b = c->input(1);
  if (!a.known_rank() || !b.known_rank()) return UnknownShape(c);
  const int64_t inner_a = a.dim(ta ? -2 : -1), inner_b = b.dim(tb ? -1 : -2);
  if (inner_a >= 0 && inner_b >= 0 && inner_a != inner_b) {
    return SizesDiffer(a.DebugString(), b.DebugString());
  }
  auto batch = [](const PartialShape& s) {
    return PartialShape(s.dims().subspan(0, static_cast<size_t>(s.rank() - 2)));
  };
  FERRY_ASSIGN_OR_RETURN(PartialShape out, BroadcastShapes(batch(a), batch(b)));
  out.AddDim(a.dim(ta ? -1 : -2));
  out.AddDim(b.dim(tb ? -2 : -1));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// Sums `grad`, as large as the broadcast product, over the batch dimensions along which `x` was
// broadcast against `other`.
std::pair<Output, Output> UnbroadcastBatches(const Scope& s, Output x, Output y, Output dx,
                                             Output dy) {
  const PartialShape &sx = x.shape(), &sy = y.shape();
  if (sx.known_rank() && sy.known_rank() && sx.rank() == sy.rank()) {
    bool same = true;
    for (int i = 0; i + 2 < sx.rank(); ++i) {
      same = same && sx.dim(i) >= 0 && sx.dim(i) == sy.dim(i);
    }
    if (same) return {dx, dy};
  }
  auto batch_of = [&](Output shape) {
    ops::StridedSliceMasks masks;
    masks.begin = 1;
    return ops::StridedSlice(s, shape, ops::ConstVector<int32_t>(s, {0}),
                             ops::ConstVector<int32_t>(s, {-2}), ops::ConstVector<int32_t>(s, {1}),
                             masks);
  };
  const Output shape_x = ops::Shape(s, x), shape_y = ops::Shape(s, y);
  Node* axes = NodeBuilder(s, "BroadcastGradientArgs")
                   .Input(batch_of(shape_x))
                   .Input(batch_of(shape_y))
                   .Build();
  if (axes == nullptr) return {};
  return {ops::Reshape(s, ops::Sum(s, dx, Output(axes, 0)), shape_x),
          ops::Reshape(s, ops::Sum(s, dy, Output(axes, 1)), shape_y)};
}

// As for MatMul, with x and y in place of a and b.
absl::Status BatchMatMulGradient(GradientContext* c) {
  FERRY_ASSIGN_OR_RETURN(bool ta, c->Attr<bool>("adj_x"));
  FERRY_ASSIGN_OR_RETURN(bool tb, c->Attr<bool>("adj_y"));
  auto multiply = [&](Output x, Output y, bool tx, bool ty) {
    return NodeBuilder(c->scope(), c->node()->op())
        .Input(x)
        .Input(y)
        .Attr("adj_x", tx)
        .Attr("adj_y", ty)
        .BuildOutput();
  };
  auto [dx, dy] = ProductGradients(c->input(0), c->input(1), c->grad(0), ta, tb, multiply);
  if (c->node()->op() != "BatchMatMul") {
    std::tie(dx, dy) = UnbroadcastBatches(c->scope(), c->input(0), c->input(1), dx, dy);
  }
  c->set_input_grad(0, dx);
  c->set_input_grad(1, dy);
  return c->scope().status();
}

// For each matrix of a batch of shape `out` the number of the matrix of shape `in`, broadcast to
// it, that it takes.
void BroadcastIndex(absl::Span<const int64_t> in, const TensorShape& out,
                    std::vector<int64_t>* index) {
  index->resize(static_cast<size_t>(out.num_elements()));
  const int skip = out.rank() - static_cast<int>(in.size());
  for (int64_t i = 0; i < out.num_elements(); ++i) {
    int64_t rest = i, stride = 1, at = 0;
    for (int d = out.rank() - 1; d >= skip; --d) {
      const int64_t size = in[static_cast<size_t>(d - skip)];
      if (size != 1) at += rest % out.dim(d) * stride;
      rest /= out.dim(d);
      stride *= size;
    }
    (*index)[static_cast<size_t>(i)] = at;
  }
}

// The shapes of the batches of inputs 0 and 1 and of their product.
struct Batches {
  TensorShape a, b, both;
  TensorShape out;  // With the matrices' dimensions.
};

// The same for batches of matrices, which may have different shapes if `broadcasts`.
absl::Status BatchMatMulSizes(const KernelContext& c, bool broadcasts, GemmShape* s,
                              Batches* batches) {
  const Tensor &a = c.input(0), &b = c.input(1);
  for (int i = 0; i < 2; ++i) {
    if (c.input(i).rank() < 2) {
      return InvalidArgument("In[", i, "] ndims must be >= 2: ", c.input(i).rank());
    }
  }
  s->m = a.dim(a.rank() - (s->transpose_a ? 1 : 2));
  s->k = a.dim(a.rank() - (s->transpose_a ? 2 : 1));
  s->n = b.dim(b.rank() - (s->transpose_b ? 2 : 1));
  if (b.dim(b.rank() - (s->transpose_b ? 1 : 2)) != s->k) {
    return SizesDiffer(a.shape().DebugString(), b.shape().DebugString());
  }
  auto batch_of = [](const Tensor& t) {
    return TensorShape::Make(t.shape().dims().subspan(0, static_cast<size_t>(t.rank() - 2)));
  };
  FERRY_ASSIGN_OR_RETURN(batches->a, batch_of(a));
  FERRY_ASSIGN_OR_RETURN(batches->b, batch_of(b));
  batches->both = batches->a;
  if (batches->a != batches->b) {
    absl::StatusOr<TensorShape> both = BroadcastShapes(batches->a, batches->b);
    if (!both.ok() || !broadcasts) {
      return InvalidArgument("In[0] and In[1] must have compatible batch dimensions: ",
                             a.shape().DebugString(), " vs. ", b.shape().DebugString());
    }
    batches->both = *std::move(both);
  }
  absl::InlinedVector<int64_t, 4> dims(batches->both.dims().begin(), batches->both.dims().end());
  dims.push_back(s->m);
  dims.push_back(s->n);
  FERRY_ASSIGN_OR_RETURN(batches->out, TensorShape::Make(dims));
  return absl::OkStatus();
}

template <typename T>
class BatchMatMulKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(shape_.transpose_a, c.Attr<bool>("adj_x"));
    FERRY_ASSIGN_OR_RETURN(shape_.transpose_b, c.Attr<bool>("adj_y"));
    broadcasts_ = c.op() != "BatchMatMul";
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    GemmShape s = shape_;
    Batches batches;
    FERRY_RETURN_IF_ERROR(BatchMatMulSizes(*c, broadcasts_, &s, &batches));
    std::vector<int64_t> index_a, index_b;
    if (batches.a != batches.b) {
      BroadcastIndex(batches.a.dims(), batches.both, &index_a);
      BroadcastIndex(batches.b.dims(), batches.both, &index_b);
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, batches.out));
    const bool indexed = !index_a.empty();
    return BatchGemm<T>(c, s, batches.both.num_elements(), indexed ? index_a.data() : nullptr,
                        indexed ? index_b.data() : nullptr, c->input(0).data<T>(),
                        c->input(1).data<T>(), out->data<T>());
  }

 private:
  GemmShape shape_;
  bool broadcasts_ = false;
};

}  // namespace

FERRY_OP("MatMul")
    .Input("a: T")
    .Input("b: T")
    .Output("product: T")
    .Attr("transpose_a: bool = false")
    .Attr("transpose_b: bool = false")
    .Attr(
        "T: {bfloat16, half, float, double, int32, int64, uint8, uint16, uint32, uint64, "
        "complex64, complex128}")
    .Attr("grad_a: bool = false")
    .Attr("grad_b: bool = false")
    .Shape(MatMulShape)
    .Gradient(MatMulGradient);

FERRY_OP("BatchMatMul")
    .Input("x: T")
    .Input("y: T")
    .Output("output: T")
    .Attr("T: {bfloat16, half, float, double, int32, int64, complex64, complex128}")
    .Attr("adj_x: bool = false")
    .Attr("adj_y: bool = false")
    .Attr("grad_x: bool = false")
    .Attr("grad_y: bool = false")
    .Shape(BatchMatMulShape)
    .Gradient(BatchMatMulGradient);

FERRY_OP("BatchMatMulV2")
    .Input("x: T")
    .Input("y: T")
    .Output("output: T")
    .Attr(
        "T: {bfloat16, half, float, double, int16, int32, int64, uint8, uint16, uint32, uint64, "
        "complex64, complex128}")
    .Attr("adj_x: bool = false")
    .Attr("adj_y: bool = false")
    .Attr("grad_x: bool = false")
    .Attr("grad_y: bool = false")
    .Shape(BatchMatMulShape)
    .Gradient(BatchMatMulGradient);

static const bool kMatMulRegistered =
    RegisterCpu<MatMulKernel>(MatMulTypes(), "MatMul") &&
    RegisterCpu<BatchMatMulKernel>(MatMulTypes(), "BatchMatMul") &&
    RegisterCpu<BatchMatMulKernel>(Join<MatMulTypes, Types<int16_t>>(), "BatchMatMulV2");

// ---- For matmul.cu ----

namespace gpu {

bool CheckMatMul(Call* c, bool transpose_a, bool transpose_b, ProductSizes* out) {
  GemmShape s{transpose_a, transpose_b};
  if (!HostSide::Note(c, MatMulSizes(*HostSide::Context(c), &s))) return false;
  *out = {s.m, s.n, s.k, {s.m, s.n}};
  return true;
}

bool CheckBatchMatMul(Call* c, bool transpose_a, bool transpose_b, bool broadcasts,
                      ProductSizes* out) {
  GemmShape s{transpose_a, transpose_b};
  Batches b;
  if (!HostSide::Note(c, BatchMatMulSizes(*HostSide::Context(c), broadcasts, &s, &b))) return false;
  *out = {s.m, s.n, s.k, {b.out.dims().begin(), b.out.dims().end()}};
  return true;
}

}  // namespace gpu
}  // namespace ferry
