// Sum, Mean, Prod, Max, Min, All and Any.
#include "kernels/reduce.h"

#include <algorithm>
#include <optional>
#include <string>

#include "absl/container/inlined_vector.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

using Axes = absl::InlinedVector<int64_t, 8>;
using Flags = absl::InlinedVector<bool, 8>;

// Which of `rank` dimensions the axes name; negative ones count from the end.
absl::Status FlagAxes(absl::Span<const int64_t> axes, int rank, Flags* reduced) {
  reduced->assign(static_cast<size_t>(rank), false);
  for (int64_t axis : axes) {
    const int64_t d = axis < 0 ? axis + rank : axis;
    if (d < 0 || d >= rank) {
      return InvalidArgument("Invalid reduction dimension (", axis, " for input with ", rank,
                             " dimension(s))");
    }
    if ((*reduced)[static_cast<size_t>(d)]) {
      return InvalidArgument("Invalid reduction arguments: Axes contains duplicate dimension: ", d);
    }
    (*reduced)[static_cast<size_t>(d)] = true;
  }
  return absl::OkStatus();
}

absl::Status ReductionShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(bool keep_dims, c->Attr<bool>("keep_dims"));
  const PartialShape& x = c->input(0);
  const Tensor* value = c->value(1);
  if (!x.known_rank()) return UnknownShape(c);
  if (value == nullptr) {
    c->set_output(0, keep_dims ? PartialShape::UnknownOfRank(x.rank()) : PartialShape());
    return absl::OkStatus();
  }
  Axes axes;
  for (int64_t i = 0; i < value->num_elements(); ++i) {
    axes.push_back(value->dtype() == DType::kInt32 ? value->data<int32_t>()[i]
                                                   : value->data<int64_t>()[i]);
  }
  Flags reduced;
  FERRY_RETURN_IF_ERROR(FlagAxes(axes, x.rank(), &reduced));
  PartialShape out = PartialShape::Scalar();
  for (int d = 0; d < x.rank(); ++d) {
    if (!reduced[static_cast<size_t>(d)]) {
      out.AddDim(x.dim(d));
    } else if (keep_dims) {
      out.AddDim(1);
    }
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

template <typename T, Reduction kKind>
class ReduceKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(keep_dims_, c.Attr<bool>("keep_dims"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    FERRY_ASSIGN_OR_RETURN(const Axes axes, c->InputAsInts(1));
    Flags reduced;
    FERRY_RETURN_IF_ERROR(FlagAxes(axes, x.rank(), &reduced));
    Axes dims;
    for (int d = 0; d < x.rank(); ++d) {
      if (!reduced[static_cast<size_t>(d)]) {
        dims.push_back(x.dim(d));
      } else if (keep_dims_) {
        dims.push_back(1);
      }
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    return Reduce<T>(c, kKind, x.shape().dims(), reduced, x.data<T>(), out->data<T>());
  }

 private:
  bool keep_dims_ = false;
};

// ---- Gradients ----

// The axes of a reduction where they are constant and the input's rank is known, from 0 up.
std::optional<Axes> ConstantAxes(GradientContext* c) {
  const int rank = c->input(0).shape().rank();
  if (rank < 0 || c->input(1).node->op() != "Const") return std::nullopt;
  absl::StatusOr<Tensor> value = c->input(1).node->Attr<Tensor>("value");
  if (!value.ok()) return std::nullopt;
  Axes axes;
  for (int64_t i = 0; i < value->num_elements(); ++i) {
    const int64_t axis =
        value->dtype() == DType::kInt32 ? value->data<int32_t>()[i] : value->data<int64_t>()[i];
    axes.push_back(axis < 0 ? axis + rank : axis);
  }
  std::sort(axes.begin(), axes.end());
  return axes;
}

// `v`, shaped as the node's output, with the reduced dimensions put back as 1.
Output KeepDims(GradientContext* c, Output v) {
  const Scope& s = c->scope();
  absl::StatusOr<bool> kept = c->Attr<bool>("keep_dims");
  if (kept.ok() && *kept) return v;
  if (c->output(0).shape().rank() == 0) return v;  // A scalar broadcasts as it is.
  if (const std::optional<Axes> axes = ConstantAxes(c)) {
    for (int64_t axis : *axes) {
      v = ops::ExpandDims(s, v, ops::Const<int32_t>(s, static_cast<int32_t>(axis)));
    }
    return v;
  }
  const Output again = NodeBuilder(s, c->node()->op())
                           .Input(c->input(0))
                           .Input(c->input(1))
                           .Attr("keep_dims", true)
                           .BuildOutput();
  return ops::Reshape(s, v, ops::Shape(s, again));
}

// y = sum x:  dx = dy, once for each x
absl::Status SumGradient(GradientContext* c) {
  const Scope& s = c->scope();
  c->set_input_grad(0, ops::BroadcastTo(s, KeepDims(c, c->grad(0)), ShapeOf(s, c->input(0))));
  return s.status();
}

// y = (sum x) / n:  dx = dy / n, once for each x
absl::Status MeanGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output x = c->input(0), y = c->output(0);
  Output n;
  if (x.shape().fully_defined() && y.shape().fully_defined()) {
    const int64_t outputs = std::max<int64_t>(1, y.shape().num_elements());
    n = ops::Const<double>(s, static_cast<double>(x.shape().num_elements() / outputs));
  } else {
    n = ops::FloorDiv(s, ops::Size(s, x),
                      ops::Maximum(s, ops::Size(s, y), ops::Const<int32_t>(s, 1)));
  }
  const Output dy = ops::RealDiv(s, c->grad(0), ops::Cast(s, n, BaseType(x.dtype())));
  c->set_input_grad(0, ops::BroadcastTo(s, KeepDims(c, dy), ShapeOf(s, x)));
  return s.status();
}

// y = max x:  dy goes in equal parts to the x that equal y.
absl::Status MaxMinGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output x = c->input(0);
  const Output chosen =
      ops::Cast(s, ops::Equal(s, x, KeepDims(c, c->output(0))), BaseType(x.dtype()));
  const Output count = ops::Sum(s, chosen, c->input(1), /*keep_dims=*/true);
  c->set_input_grad(0, ops::Mul(s, ops::RealDiv(s, chosen, count), KeepDims(c, c->grad(0))));
  return s.status();
}

// y = prod x:  dx_i = dy times the product of the others. With p the product of those x that aren't
// 0, that is p / x_i (or p where x_i is 0), if no other x is 0.
absl::Status ProdGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output x = c->input(0), axes = c->input(1);
  const Output zero = ops::ZerosLike(s, x);
  const Output is_zero = ops::Equal(s, x, zero);
  const Output count = ops::Cast(s, is_zero, BaseType(x.dtype()));
  const Output other_zeros = ops::Sub(s, ops::Sum(s, count, axes, /*keep_dims=*/true), count);
  const Output divisor = ops::SelectV2(s, is_zero, ops::OnesLike(s, x), x);
  const Output others = ops::RealDiv(s, ops::Prod(s, divisor, axes, /*keep_dims=*/true), divisor);
  const Output dydx = ops::SelectV2(s, ops::Equal(s, other_zeros, zero), others, zero);
  c->set_input_grad(0, ops::Mul(s, KeepDims(c, c->grad(0)), dydx));
  return s.status();
}

// ---- Registration ----

constexpr const char* kSumTypes =
    "T: {float, double, int32, uint8, int16, int8, complex64, int64, qint8, quint8, qint32, "
    "bfloat16, qint16, quint16, uint16, complex128, half, uint32, uint64}";
constexpr const char* kMaxTypes =
    "T: {float, double, int32, uint8, int16, int8, int64, bfloat16, uint16, half, uint32, uint64, "
    "qint8, quint8, qint32, qint16, quint16}";

OpBuilder ReductionOp(const char* name, const std::string& type) {
  OpBuilder b(name);
  b.Input(absl::StrCat("input: ", type))
      .Input("reduction_indices: Tidx")
      .Output(absl::StrCat("output: ", type))
      .Attr("keep_dims: bool = false");
  return b;
}

OpBuilder NumberReductionOp(const char* name, const char* types, GradientFn gradient) {
  OpBuilder b = ReductionOp(name, "T");
  b.Attr(types)
      .Attr("Tidx: {int32, int64} = DT_INT32")
      .Shape(ReductionShape)
      .Gradient(std::move(gradient));
  return b;
}

OpBuilder LogicReductionOp(const char* name) {
  OpBuilder b = ReductionOp(name, "bool");
  b.Attr("Tidx: {int32, int64} = DT_INT32").Shape(ReductionShape).NotDifferentiable();
  return b;
}

const OpBuilder::Registrar kSumOp(NumberReductionOp("Sum", kSumTypes, SumGradient));
const OpBuilder::Registrar kMeanOp(NumberReductionOp("Mean", kSumTypes, MeanGradient));
const OpBuilder::Registrar kProdOp(NumberReductionOp("Prod", kSumTypes, ProdGradient));
const OpBuilder::Registrar kMaxOp(NumberReductionOp("Max", kMaxTypes, MaxMinGradient));
const OpBuilder::Registrar kMinOp(NumberReductionOp("Min", kMaxTypes, MaxMinGradient));
const OpBuilder::Registrar kAllOp(LogicReductionOp("All"));
const OpBuilder::Registrar kAnyOp(LogicReductionOp("Any"));

template <typename T>
using SumKernel = ReduceKernel<T, Reduction::kSum>;
template <typename T>
using MeanKernel = ReduceKernel<T, Reduction::kMean>;
template <typename T>
using ProdKernel = ReduceKernel<T, Reduction::kProd>;
template <typename T>
using MaxKernel = ReduceKernel<T, Reduction::kMax>;
template <typename T>
using MinKernel = ReduceKernel<T, Reduction::kMin>;

const bool kRegistered =
    RegisterCpu<SumKernel>(NumberTypes(), "Sum", "T", {}, {"reduction_indices"}) &&
    RegisterCpu<MeanKernel>(NumberTypes(), "Mean", "T", {}, {"reduction_indices"}) &&
    RegisterCpu<ProdKernel>(NumberTypes(), "Prod", "T", {}, {"reduction_indices"}) &&
    RegisterCpu<MaxKernel>(NumberTypes(), "Max", "T", {}, {"reduction_indices"}) &&
    RegisterCpu<MinKernel>(NumberTypes(), "Min", "T", {}, {"reduction_indices"});

FERRY_KERNEL("All").HostMemory("reduction_indices").Make<ReduceKernel<bool, Reduction::kAll>>();
FERRY_KERNEL("Any").HostMemory("reduction_indices").Make<ReduceKernel<bool, Reduction::kAny>>();

}  // namespace
}  // namespace ferry
