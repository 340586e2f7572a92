// Updates of slices that indices into several dimensions name: of references (ScatterNdUpdate,
// -Add, -Sub, -Min, -Max), of handles (ResourceScatterNd…), and of a tensor's copy (TensorScatter…,
// ScatterNdNonAliasingAdd). A slice that is named several times takes its updates in their order.
#include <cstring>
#include <string>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/accumulate.h"
#include "kernels/nd_index.h"
#include "kernels/row_ops.h"
#include "kernels/types.h"
#include "runtime/base/mutex.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "runtime/op/variable.h"

namespace ferry {
namespace {

// to[indices[i]] = F(to[indices[i]], updates[i]), of inputs 1 and 2, once every index was checked;
// a GPU leaves out those that lie outside. `open` gives the tensor of `shape` to write to.
template <typename T, typename F, typename OpenFn>
absl::Status UpdateSlices(KernelContext* c, const TensorShape& shape, bool ignore_bad,
                          OpenFn open) {
  const Tensor& indices = c->input(1);
  const Tensor& updates = c->input(2);
  FERRY_ASSIGN_OR_RETURN(const NdUpdates sizes, CheckNdUpdates(indices, updates, shape));
  if (updates.num_elements() == 0) return absl::OkStatus();
  if (c->gpu()) {
    const auto dims = shape.dims();
    const int64_t depth = indices.dim(indices.rank() - 1);
    return CombineRowsOnGpu(c, RowOpOf<F>(), IndicesOf(indices, sizes.n, depth, dims.data()),
                            updates, /*scalar=*/false,
                            Product(dims.subspan(0, static_cast<size_t>(depth))), open());
  }
  const NdIndex index(indices, shape, ignore_bad);
  for (int64_t i = 0; i < sizes.n; ++i) FERRY_RETURN_IF_ERROR(index.At(i).status());
  T* const to = open()->template data<T>();
  const T* const from = updates.data<T>();
  for (int64_t i = 0; i < sizes.n; ++i) {
    const int64_t at = *index.At(i);
    if (at < 0) continue;
    accumulate::Run<F>(to + at * sizes.inner, from + i * sizes.inner, sizes.inner);
  }
  return absl::OkStatus();
}

// Of a variable.
template <typename T, typename F>
class ScatterNdVariableKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(ignore_bad_, IgnoresBadIndices(c));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    Variable* v = c->variable(0);
    MutexLock lock(&v->mu());
    const auto open = [v]() ABSL_NO_THREAD_SAFETY_ANALYSIS { return v->MutableTensor(); };
    FERRY_RETURN_IF_ERROR(Annotate(UpdateSlices<T, F>(c, v->tensor().shape(), ignore_bad_, open),
                                   absl::StrCat("variable '", v->name(), "'")));
    c->SetOutputVariable(0, v);
    return absl::OkStatus();
  }
  bool ignore_bad_ = false;
};

// Of a tensor, in place where it ends here.
template <typename T, typename F>
class ScatterNdTensorKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(ignore_bad_, IgnoresBadIndices(c));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& from = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, from.shape()));
    if (out->raw() != from.raw()) FERRY_RETURN_IF_ERROR(c->Copy(from, out));
    return UpdateSlices<T, F>(c, out->shape(), ignore_bad_, [out] { return out; });
  }
  bool ignore_bad_ = false;
};

template <typename F>
struct Scatter {
  template <typename T>
  using OfVariable = ScatterNdVariableKernel<T, F>;
  template <typename T>
  using OfTensor = ScatterNdTensorKernel<T, F>;
};

absl::Status CheckShapes(InferenceContext* c, const PartialShape& shape) {
  const PartialShape &indices = c->input(1), &updates = c->input(2);
  if (indices.known_rank() && indices.rank() < 1) {
    return InvalidArgument("indices must be at least a vector");
  }
  if (!shape.known_rank() || !indices.known_rank() || indices.dim(-1) == PartialShape::kUnknown) {
    return absl::OkStatus();
  }
  const int64_t depth = indices.dim(-1);
  if (depth > shape.rank()) {
    return InvalidArgument("index innermost dimension length must be <= rank of shape; saw: ",
                           depth, " vs. ", shape.rank());
  }
  PartialShape expected = PartialShape::Scalar();
  for (int i = 0; i + 1 < indices.rank(); ++i) expected.AddDim(indices.dim(i));
  for (int i = static_cast<int>(depth); i < shape.rank(); ++i) expected.AddDim(shape.dim(i));
  if (!PartialShape::Merge(expected, updates).ok()) {
    return InvalidArgument("Must have updates.shape = indices.shape[:-1] + shape[depth:], ",
                           expected.DebugString(), ", got ", updates.DebugString());
  }
  return absl::OkStatus();
}

absl::Status VariableShape(InferenceContext* c) {
  if (c->num_outputs() == 0) return CheckShapes(c, c->input_handle_shape(0));
  c->set_output(0, c->input(0));
  return CheckShapes(c, c->input(0));
}
absl::Status TensorShapeFn(InferenceContext* c) {
  c->set_output(0, c->input(0));
  return CheckShapes(c, c->input(0));
}

using Numbers = Join<NumberTypes, Types<bool>>;
using All = Join<Numbers, Types<std::string>>;
// Of those of F. Sums of bool are the CPU's.
template <typename F>
using OnGpu = std::conditional_t<std::is_same_v<F, accumulate::Replace>, Numbers, NumberTypes>;

// ScatterNd… and ResourceScatterNd… of that name.
template <typename F, typename T>
bool RegisterVariable(const std::string& name) {
  const bool update = name == "Update";
  for (const bool resource : {false, true}) {
    const std::string op = absl::StrCat(resource ? "Resource" : "", "ScatterNd", name);
    OpBuilder b(op);
    b.Input(resource ? "ref: resource" : "ref: Ref(T)")
        .Input("indices: Tindices")
        .Input("updates: T");
    if (!resource) b.Output("output_ref: Ref(T)");
    b.Attr(update || resource ? "T: type" : "T: numbertype")
        .Attr("Tindices: {int32, int64}")
        .Attr(absl::StrCat("use_locking: bool = ", update || resource ? "true" : "false"))
        .Attr("bad_indices_policy: string = ''");
    if (resource) b.Stateful();
    b.Shape(VariableShape).NotDifferentiable();
    const OpBuilder::Registrar registrar(b);
    RegisterCpu<Scatter<F>::template OfVariable>(T(), op);
    RegisterGpu<Scatter<F>::template OfVariable>(OnGpu<F>(), op);
  }
  return true;
}

// What flows back to the updates: the slices of dy that they went to.
Output SlicesOf(GradientContext* c) {
  return NodeBuilder(c->scope(), "GatherNd").Input(c->grad(0)).Input(c->input(1)).BuildOutput();
}
absl::Status UpdateGradient(GradientContext* c) {
  c->set_input_grad(0, NodeBuilder(c->scope(), "TensorScatterUpdate")
                           .Input(c->grad(0))
                           .Input(c->input(1))
                           .Input(ops::ZerosLike(c->scope(), c->input(2)))
                           .BuildOutput());
  c->set_input_grad(2, SlicesOf(c));
  return c->scope().status();
}
absl::Status AddGradient(GradientContext* c) {
  c->set_input_grad(0, c->grad(0));
  c->set_input_grad(2, SlicesOf(c));
  return c->scope().status();
}
absl::Status SubGradient(GradientContext* c) {
  c->set_input_grad(0, c->grad(0));
  c->set_input_grad(2, ops::Neg(c->scope(), SlicesOf(c)));
  return c->scope().status();
}
// The largest (smallest) of what was there and the updates share its gradient.
absl::Status ChoiceGradient(GradientContext* c) {
  const Scope& s = c->scope();
  Output indices = c->input(1), updates = c->input(2), y = c->output(0), dy = c->grad(0);
  auto count = [&](Output equal) { return ops::Cast(s, equal, BaseType(dy.dtype())); };
  auto gather = [&](Output x) {
    return NodeBuilder(s, "GatherNd").Input(x).Input(indices).BuildOutput();
  };
  Output kept = count(ops::Equal(s, c->input(0), y));
  Output given = count(ops::Equal(s, updates, gather(y)));
  Output shares =
      NodeBuilder(s, "TensorScatterAdd").Input(kept).Input(indices).Input(given).BuildOutput();
  Output share = ops::DivNoNan(s, dy, shares);
  c->set_input_grad(0, ops::Mul(s, kept, share));
  c->set_input_grad(2, ops::Mul(s, given, gather(share)));
  return s.status();
}

template <typename F, typename T>
bool RegisterTensor(const std::string& op, GradientFn gradient) {
  const bool old = op == "ScatterNdNonAliasingAdd";
  OpBuilder b(op);
  b.Input(old ? "input: T" : "tensor: T")
      .Input("indices: Tindices")
      .Input("updates: T")
      .Output("output: T")
      .Attr(old ? "T: {float, double, int32, uint8, int16, int8, complex64, int64, qint8, quint8, "
                  "qint32, bfloat16, qint16, quint16, uint16, complex128, half, uint32, uint64, "
                  "bool}"
                : "T: type")
      .Attr(op == "TensorScatterUpdate" ? "Tindices: {int16, int32, int64, uint16}"
                                        : "Tindices: {int32, int64}")
      .Attr("bad_indices_policy: string = ''")
      .Shape(TensorShapeFn)
      .Gradient(std::move(gradient));
  const OpBuilder::Registrar registrar(b);
  return RegisterCpu<Scatter<F>::template OfTensor>(T(), op, "T", /*in_place=*/{0}) &&
         RegisterGpu<Scatter<F>::template OfTensor>(OnGpu<F>(), op, "T", /*in_place=*/{0});
}

[[maybe_unused]] const bool registered =
    RegisterVariable<accumulate::Replace, All>("Update") &&
    RegisterVariable<accumulate::Add, Numbers>("Add") &&
    RegisterVariable<accumulate::Sub, Numbers>("Sub") &&
    RegisterVariable<accumulate::Min, NumberTypes>("Min") &&
    RegisterVariable<accumulate::Max, NumberTypes>("Max") &&
    RegisterTensor<accumulate::Replace, All>("TensorScatterUpdate", UpdateGradient) &&
    RegisterTensor<accumulate::Add, NumberTypes>("TensorScatterAdd", AddGradient) &&
    RegisterTensor<accumulate::Sub, NumberTypes>("TensorScatterSub", SubGradient) &&
    RegisterTensor<accumulate::Min, NumberTypes>("TensorScatterMin", ChoiceGradient) &&
    RegisterTensor<accumulate::Max, NumberTypes>("TensorScatterMax", ChoiceGradient) &&
    RegisterTensor<accumulate::Add, Numbers>("ScatterNdNonAliasingAdd", AddGradient);

}  // namespace
}  // namespace ferry
