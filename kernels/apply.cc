// The optimizers' steps: ops that update a variable, and its slots, in place. Each is one pass over
// the elements. apply_rules.h has the formulas, sparse_apply.cc the steps that touch some rows
// only.
#include "kernels/apply.h"

#include "absl/strings/str_cat.h"
#include "kernels/array.h"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

absl::Status NotAScalar(const char* input, const std::string& shape) {
  return InvalidArgument(input, " is not a scalar: ", shape);
}
absl::Status ShapesDiffer(const char* input, const std::string& var, const std::string& other) {
  return InvalidArgument("var and ", input, " do not have the same shape", var, " ", other);
}

// Of "SparseApply…": whether the gradient has a row of the variable for each index.
absl::Status CheckRows(const KernelContext& c, const ApplyForm& form) {
  const TensorShape& var = c.input(0).shape();
  const Tensor& grad = c.input(form.grad);
  const Tensor& indices = c.input(form.grad + 1);
  if (var.rank() < 1) return InvalidArgument("var must be at least 1 dimensional");
  if (indices.rank() != 1) {
    return InvalidArgument("indices must be one-dimensional, found shape ",
                           indices.shape().DebugString());
  }
  if (grad.rank() != var.rank()) {
    return InvalidArgument("grad must have the same number of dimensions as var: ", grad.rank(),
                           " instead of ", var.rank());
  }
  for (int i = 1; i < var.rank(); ++i) {
    if (grad.dim(i) != var.dim(i)) {
      return InvalidArgument("var and grad must match in dimension ", i, ": ", var.DebugString(),
                             " and ", grad.shape().DebugString());
    }
  }
  if (grad.dim(0) != indices.dim(0)) {
    return InvalidArgument("grad must be the same size as indices in the first dimension: ",
                           grad.dim(0), " and ", indices.dim(0));
  }
  for (int64_t i = 0; c.gpu() == nullptr && i < indices.num_elements(); ++i) {
    const int64_t at = IntAt(indices, i);
    if (at < 0 || at >= var.dim(0)) {
      return InvalidArgument("Index ", at, " at offset ", i, " in indices is out of range [0, ",
                             var.dim(0), ")");
    }
  }
  return absl::OkStatus();
}

// A loop over all elements.
struct Dense {
  // How many elements a block of parallel work has.
  static constexpr int64_t kGrain = 1 << 15;

  template <typename T, typename C, typename Rule>
  static void Run(KernelContext* c, const Rule& rule, const T* grad,
                  const std::array<T*, Rule::kRefs>& data) {
    c->ParallelFor(c->input(0).num_elements(), kGrain, [&](int64_t begin, int64_t end) {
      UpdateElements<T, C>(rule, begin, end, grad, data, std::make_index_sequence<Rule::kRefs>());
    });
  }
};

absl::Status ApplyShape(InferenceContext* c, const ApplyForm& form) {
  const auto of = [c, &form](int i) {
    return c->num_outputs() == 0 && i < form.refs ? c->input_handle_shape(i) : c->input(i);
  };
  PartialShape shape = of(0);
  for (int i = 1; i < c->num_inputs(); ++i) {
    if (form.IsScalar(i)) {
      if (c->input(i).known_rank() && c->input(i).rank() != 0) {
        return NotAScalar(form.Name(i), c->input(i).DebugString());
      }
      continue;
    }
    if (i > form.grad) {
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(i), 1).status());
      continue;
    }
    PartialShape other = of(i);
    if (form.sparse && i == form.grad && other.known_rank() && other.rank() > 0) {
      PartialShape rows = {PartialShape::kUnknown};
      for (int d = 1; d < other.rank(); ++d) rows.AddDim(other.dim(d));
      other = std::move(rows);
    }
    absl::StatusOr<PartialShape> both = PartialShape::Merge(shape, other);
    if (!both.ok()) {
      return ShapesDiffer(form.Name(i), of(0).DebugString(), of(i).DebugString());
    }
    shape = *std::move(both);
  }
  if (c->num_outputs() > 0) c->set_output(0, std::move(shape));
  return absl::OkStatus();
}

}  // namespace

absl::Status CheckApplyInputs(const KernelContext& c, const ApplyForm& form) {
  for (int i = form.refs; i < form.num_inputs(); ++i) {
    if (form.IsScalar(i) && c.input(i).rank() != 0) {
      return NotAScalar(form.Name(i), c.input(i).shape().DebugString());
    }
  }
  const TensorShape& shape = c.input(0).shape();
  const std::string variable = absl::StrCat("variable '", c.variable(0)->name(), "'");
  for (int i = 1; i <= form.grad; ++i) {
    if (form.IsScalar(i) || (form.sparse && i == form.grad)) continue;
    if (c.input(i).shape() != shape) {
      return Annotate(
          ShapesDiffer(form.Name(i), shape.DebugString(), c.input(i).shape().DebugString()),
          variable);
    }
  }
  return form.sparse ? Annotate(CheckRows(c, form), variable) : absl::OkStatus();
}

void DefineApply(const std::string& op, const ApplyForm& form, bool resource) {
  OpBuilder b(op);
  for (int i = 0; i < form.num_inputs(); ++i) {
    std::string type = "T";
    if (i < form.refs) {
      type = resource ? "resource" : "Ref(T)";
    } else if (form.sparse && i == form.grad + 1) {
      type = "Tindices";
    } else if (form.int64_input >= 0 && i == form.At(form.int64_input)) {
      type = "int64";
    }
    b.Input(absl::StrCat(form.Name(i), ": ", type));
  }
  if (resource) {
    b.Stateful();
  } else {
    b.Output("out: Ref(T)");
  }
  b.Attr("T: numbertype");
  if (form.sparse) b.Attr("Tindices: {int32, int64}");
  b.Attr("use_locking: bool = false");
  if (form.flag != nullptr) {
    const bool on = form.flag == absl::string_view("update_slots");
    b.Attr(absl::StrCat(form.flag, ": bool = ", on ? "true" : "false"));
  }
  b.Shape([form](InferenceContext* c) { return ApplyShape(c, form); });
  b.NotDifferentiable();
  const OpBuilder::Registrar registrar(b);
}

template <template <typename, bool> class Rule>
static bool RegisterDense(const std::string& op, bool references = true) {
  return RegisterApply<Rule, false, Dense>(op, references);
}
[[maybe_unused]] static const bool kApplyRegistered =
    RegisterDense<apply_rules::GradientDescent>("ApplyGradientDescent") &&
    RegisterDense<apply_rules::Momentum>("ApplyMomentum") &&
    RegisterDense<apply_rules::KerasMomentum>("ApplyKerasMomentum", false) &&
    RegisterDense<apply_rules::Adam>("ApplyAdam") &&
    RegisterDense<apply_rules::AdamWithAmsgrad>("ApplyAdamWithAmsgrad", false) &&
    RegisterDense<apply_rules::AdaMax>("ApplyAdaMax") &&
    RegisterDense<apply_rules::Adagrad>("ApplyAdagrad") &&
    RegisterDense<apply_rules::AdagradV2>("ApplyAdagradV2") &&
    RegisterDense<apply_rules::AdagradDA>("ApplyAdagradDA") &&
    RegisterDense<apply_rules::Adadelta>("ApplyAdadelta") &&
    RegisterDense<apply_rules::RmsProp>("ApplyRMSProp") &&
    RegisterDense<apply_rules::CenteredRmsProp>("ApplyCenteredRMSProp") &&
    RegisterDense<apply_rules::Ftrl>("ApplyFtrl") &&
    RegisterDense<apply_rules::FtrlV2>("ApplyFtrlV2") &&
    RegisterDense<apply_rules::ProximalGradientDescent>("ApplyProximalGradientDescent") &&
    RegisterDense<apply_rules::ProximalAdagrad>("ApplyProximalAdagrad") &&
    RegisterDense<apply_rules::AddSign>("ApplyAddSign") &&
    RegisterDense<apply_rules::PowerSign>("ApplyPowerSign");

// For apply.cu and sparse_apply.cu.
bool gpu::CheckApply(Call* c, const char* const* names, int count, int refs, int grad,
                     bool sparse) {
  const ApplyForm form = {names, count, refs, grad, nullptr, -1, sparse};
  return HostSide::Note(c, CheckApplyInputs(*HostSide::Context(c), form));
}

}  // namespace ferry
