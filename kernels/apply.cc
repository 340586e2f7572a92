// The optimizers' steps: ops that update a reference variable, and its slots, in place. Each is one
// pass over the elements. apply_rules.h has the formulas.
#include <array>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/apply_rules.h"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "runtime/base/mutex.h"
#include "runtime/base/status.h"
#include "runtime/op/op_def.h"
#include "runtime/op/variable.h"

namespace ferry {
namespace {

// Elements [begin, end) of the gradient and of the variables.
template <typename T, typename C, typename Rule, size_t... kI>
void Update(const Rule& rule, int64_t begin, int64_t end, const T* grad,
            const std::array<T*, sizeof...(kI)>& variables, std::index_sequence<kI...>) {
  const std::array<T*, sizeof...(kI)> p = {variables[kI]...};
  for (int64_t i = begin; i < end; ++i) {
    C x[] = {static_cast<C>(p[kI][i])...};
    rule(static_cast<C>(grad[i]), x[kI]...);
    ((p[kI][i] = static_cast<T>(x[kI])), ...);
  }
}

absl::Status NotAScalar(const char* input, const std::string& shape) {
  return InvalidArgument(input, " is not a scalar: ", shape);
}
absl::Status ShapesDiffer(const char* input, const std::string& var, const std::string& other) {
  return InvalidArgument("var and ", input, " do not have the same shape", var, " ", other);
}

// Of an op with `count` inputs of these names. The variables' mutexes are held.
absl::Status CheckInputs(const KernelContext& c, const char* const* names, int count, int refs,
                         int grad) {
  for (int i = refs; i < count; ++i) {
    if (i != grad && c.input(i).rank() != 0) {
      return NotAScalar(names[i], c.input(i).shape().DebugString());
    }
  }
  const TensorShape& shape = c.input(0).shape();
  for (int i = 1; i < count; ++i) {
    if ((i < refs || i == grad) && c.input(i).shape() != shape) {
      return Annotate(ShapesDiffer(names[i], shape.DebugString(), c.input(i).shape().DebugString()),
                      absl::StrCat("variable '", c.variable(0)->name(), "'"));
    }
  }
  return absl::OkStatus();
}

// How many elements a block of parallel work has.
constexpr int64_t kGrain = 1 << 15;

template <typename T, template <typename, bool> class Rule>
class ApplyKernel : public Kernel {
  using C = std::conditional_t<sizeof(T) == 2, float, T>;
  static constexpr int kRefs = Rule<C, false>::kRefs;
  static constexpr int kGrad = Rule<C, false>::kGrad;
  static constexpr int kCount = static_cast<int>(std::size(Rule<C, false>::kInputs));

 public:
  absl::Status Init(const KernelConstruction& c) override {
    if (Rule<C, false>::kFlagName != nullptr) {
      FERRY_ASSIGN_OR_RETURN(flag_, c.Attr<bool>(Rule<C, false>::kFlagName));
    }
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    return flag_ ? Run<Rule<C, true>>(c) : Run<Rule<C, false>>(c);
  }

 private:
  template <typename R>
  absl::Status Run(KernelContext* c) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    std::array<Variable*, kRefs> variables;
    for (int i = 0; i < kRefs; ++i) variables[static_cast<size_t>(i)] = c->variable(i);
    std::array<Variable*, kRefs> locked = variables;
    const VariableLocks locks(absl::MakeSpan(locked));
    FERRY_RETURN_IF_ERROR(CheckInputs(*c, R::kInputs, kCount, kRefs, kGrad));
    const TensorShape& shape = c->input(0).shape();
    const R rule([c](int i) { return static_cast<C>(c->input(i).template scalar<T>()); });
    std::array<T*, kRefs> data;
    for (size_t i = 0; i < kRefs; ++i) data[i] = variables[i]->MutableTensor()->template data<T>();
    const T* const grad = c->input(kGrad).template data<T>();
    c->ParallelFor(shape.num_elements(), kGrain, [&](int64_t begin, int64_t end) {
      Update<T, C>(rule, begin, end, grad, data, std::make_index_sequence<kRefs>());
    });
    c->SetOutputVariable(0, variables[0]);
    return absl::OkStatus();
  }

  bool flag_ = false;
};

// Defines and registers the op "Apply…" of a rule, or the one on handles, "ResourceApply…".
template <template <typename, bool> class Rule>
bool RegisterOne(const std::string& op, bool resource) {
  using R = Rule<float, false>;
  OpBuilder b(op);
  for (int i = 0; i < static_cast<int>(std::size(R::kInputs)); ++i) {
    const char* const type = i >= R::kRefs ? ": T" : resource ? ": resource" : ": Ref(T)";
    b.Input(absl::StrCat(R::kInputs[i], type));
  }
  if (resource) {
    b.Stateful();
  } else {
    b.Output("out: Ref(T)");
  }
  b.Attr(
       "T: {float, double, int32, uint8, int16, int8, complex64, int64, qint8, quint8, qint32, "
       "bfloat16, qint16, quint16, uint16, complex128, half, uint32, uint64}")
      .Attr("use_locking: bool = false");
  const std::string flag = R::kFlagName == nullptr ? "" : R::kFlagName;
  if (!flag.empty()) {
    b.Attr(absl::StrCat(flag, ": bool = ", flag == "update_slots" ? "true" : "false"));
  }
  b.Shape([](InferenceContext* c) -> absl::Status {
    const auto of = [c](int i) {
      return c->num_outputs() == 0 && i < R::kRefs ? c->input_handle_shape(i) : c->input(i);
    };
    PartialShape shape = of(0);
    for (int i = 1; i < c->num_inputs(); ++i) {
      const bool scalar = i >= R::kRefs && i != R::kGrad;
      if (scalar) {
        if (c->input(i).known_rank() && c->input(i).rank() != 0) {
          return NotAScalar(R::kInputs[i], c->input(i).DebugString());
        }
        continue;
      }
      absl::StatusOr<PartialShape> both = PartialShape::Merge(shape, of(i));
      if (!both.ok()) {
        return ShapesDiffer(R::kInputs[i], of(0).DebugString(), of(i).DebugString());
      }
      shape = *std::move(both);
    }
    if (c->num_outputs() > 0) c->set_output(0, std::move(shape));
    return absl::OkStatus();
  });
  b.NotDifferentiable();
  OpBuilder::Registrar op_registrar(b);
  (void)op_registrar;
  auto kernel = [&](auto zero) {
    using T = decltype(zero);
    KernelBuilder::Registrar registrar(KernelBuilder(op)
                                           .Device(DeviceType::kCpu)
                                           .template Type<T>("T")
                                           .template Make<ApplyKernel<T, Rule>>());
    (void)registrar;
  };
  kernel(half());
  kernel(bfloat16());
  kernel(float());
  kernel(double());
  return true;
}

template <template <typename, bool> class Rule>
bool RegisterApply(const std::string& op) {
  return RegisterOne<Rule>(op, false) && RegisterOne<Rule>("Resource" + op, true);
}

}  // namespace

static const bool kApplyRegistered =
    RegisterApply<apply_rules::GradientDescent>("ApplyGradientDescent") &&
    RegisterApply<apply_rules::Momentum>("ApplyMomentum") &&
    RegisterApply<apply_rules::Adam>("ApplyAdam") &&
    RegisterApply<apply_rules::Adagrad>("ApplyAdagrad") &&
    RegisterApply<apply_rules::AdagradV2>("ApplyAdagradV2") &&
    RegisterApply<apply_rules::RmsProp>("ApplyRMSProp") &&
    RegisterApply<apply_rules::CenteredRmsProp>("ApplyCenteredRMSProp");

// For apply.cu.
bool gpu::CheckApply(Call* c, const char* const* names, int count, int refs, int grad) {
  return HostSide::Note(c, CheckInputs(*HostSide::Context(c), names, count, refs, grad));
}

}  // namespace ferry
