// The optimizers' steps: ops that update a reference variable, and its slots, in place. Each is one
// pass over the elements.
//
// Writing g for the gradient, in TensorFlow's formulas:
//   GradientDescent  var -= alpha g
//   Momentum         accum = momentum accum + g
//                    var -= lr accum             (Nesterov: var -= lr g + lr momentum accum)
//   Adam             alpha = lr sqrt(1 - beta2_power) / (1 - beta1_power)
//                    m += (g - m) (1 - beta1);  v += (g^2 - v) (1 - beta2)
//                    var -= alpha m / (sqrt(v) + epsilon)
//                    (Nesterov: beta1 m + (1 - beta1) g in place of m)
//   Adagrad          accum += g^2;  var -= lr g / sqrt(accum)     (V2: / (sqrt(accum) + epsilon))
//   RMSProp          ms += (g^2 - ms) (1 - rho)
//                    mom = momentum mom + lr g / sqrt(ms + epsilon);  var -= mom
//   CenteredRMSProp  the same with mg += (g - mg) (1 - rho) and ms - mg^2 in place of ms
#include <array>
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>

#include "kernels/types.h"
#include "runtime/base/mutex.h"
#include "runtime/base/status.h"
#include "runtime/op/op_def.h"
#include "runtime/op/variable.h"

namespace ferry {
namespace {

// A rule says how one op updates its variables. Its op's inputs are kRefs references (the variable,
// then its slots), scalars, and the gradient (number kGrad), named kInputs. A rule is made from the
// scalars (s(i) is the value of input i) and called with an element of the gradient and of each
// variable. C is the type to compute in; kFlag is the op's boolean attribute kFlagName, if it has
// one.

template <typename C, bool kFlag>
struct GradientDescent {
  static constexpr const char* kInputs[] = {"var", "alpha", "delta"};
  static constexpr const char* kFlagName = nullptr;
  static constexpr int kRefs = 1, kGrad = 2;
  const C alpha;
  template <typename Scalars>
  explicit GradientDescent(const Scalars& s) : alpha(s(1)) {}
  void operator()(C g, C& var) const { var -= g * alpha; }
};

template <typename C, bool kNesterov>
struct Momentum {
  static constexpr const char* kInputs[] = {"var", "accum", "lr", "grad", "momentum"};
  static constexpr const char* kFlagName = "use_nesterov";
  static constexpr int kRefs = 2, kGrad = 3;
  const C lr, momentum;
  template <typename Scalars>
  explicit Momentum(const Scalars& s) : lr(s(2)), momentum(s(4)) {}
  void operator()(C g, C& var, C& accum) const {
    accum = accum * momentum + g;
    var -= kNesterov ? g * lr + accum * momentum * lr : accum * lr;
  }
};

template <typename C, bool kNesterov>
struct Adam {
  static constexpr const char* kInputs[] = {"var", "m",     "v",     "beta1_power", "beta2_power",
                                            "lr",  "beta1", "beta2", "epsilon",     "grad"};
  static constexpr const char* kFlagName = "use_nesterov";
  static constexpr int kRefs = 3, kGrad = 9;
  const C alpha, beta1, beta2, epsilon;
  template <typename Scalars>
  explicit Adam(const Scalars& s)
      : alpha(s(5) * std::sqrt(C(1) - s(4)) / (C(1) - s(3))),
        beta1(s(6)),
        beta2(s(7)),
        epsilon(s(8)) {}
  void operator()(C g, C& var, C& m, C& v) const {
    m += (g - m) * (C(1) - beta1);
    v += (g * g - v) * (C(1) - beta2);
    const C step = kNesterov ? g * (C(1) - beta1) + beta1 * m : m;
    var -= step * alpha / (std::sqrt(v) + epsilon);
  }
};

template <typename C, bool kUpdateSlots>
struct Adagrad {
  static constexpr const char* kInputs[] = {"var", "accum", "lr", "grad"};
  static constexpr const char* kFlagName = "update_slots";
  static constexpr int kRefs = 2, kGrad = 3;
  const C lr;
  template <typename Scalars>
  explicit Adagrad(const Scalars& s) : lr(s(2)) {}
  void operator()(C g, C& var, C& accum) const {
    if (kUpdateSlots) accum += g * g;
    var -= g * lr / std::sqrt(accum);
  }
};

template <typename C, bool kUpdateSlots>
struct AdagradV2 {
  static constexpr const char* kInputs[] = {"var", "accum", "lr", "epsilon", "grad"};
  static constexpr const char* kFlagName = "update_slots";
  static constexpr int kRefs = 2, kGrad = 4;
  const C lr, epsilon;
  template <typename Scalars>
  explicit AdagradV2(const Scalars& s) : lr(s(2)), epsilon(s(3)) {}
  void operator()(C g, C& var, C& accum) const {
    if (kUpdateSlots) accum += g * g;
    var -= g * lr / (std::sqrt(accum) + epsilon);
  }
};

template <typename C, bool kFlag>
struct RmsProp {
  static constexpr const char* kInputs[] = {"var", "ms",       "mom",     "lr",
                                            "rho", "momentum", "epsilon", "grad"};
  static constexpr const char* kFlagName = nullptr;
  static constexpr int kRefs = 3, kGrad = 7;
  const C lr, rho, momentum, epsilon;
  template <typename Scalars>
  explicit RmsProp(const Scalars& s) : lr(s(3)), rho(s(4)), momentum(s(5)), epsilon(s(6)) {}
  void operator()(C g, C& var, C& ms, C& mom) const {
    ms += (g * g - ms) * (C(1) - rho);
    mom = mom * momentum + g * lr / std::sqrt(ms + epsilon);
    var -= mom;
  }
};

template <typename C, bool kFlag>
struct CenteredRmsProp {
  static constexpr const char* kInputs[] = {"var", "mg",       "ms",      "mom", "lr",
                                            "rho", "momentum", "epsilon", "grad"};
  static constexpr const char* kFlagName = nullptr;
  static constexpr int kRefs = 4, kGrad = 8;
  const C lr, rho, momentum, epsilon;
  template <typename Scalars>
  explicit CenteredRmsProp(const Scalars& s) : lr(s(4)), rho(s(5)), momentum(s(6)), epsilon(s(7)) {}
  void operator()(C g, C& var, C& mg, C& ms, C& mom) const {
    ms += (g * g - ms) * (C(1) - rho);
    mg += (g - mg) * (C(1) - rho);
    mom = mom * momentum + g * lr / std::sqrt(ms - mg * mg + epsilon);
    var -= mom;
  }
};

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
    for (int i = kRefs; i < kCount; ++i) {
      if (i != kGrad && c->input(i).rank() != 0) {
        return InvalidArgument(R::kInputs[i],
                               " is not a scalar: ", c->input(i).shape().DebugString());
      }
    }
    const TensorShape& shape = c->input(0).shape();
    for (int i = 1; i < kCount; ++i) {
      if ((i < kRefs || i == kGrad) && c->input(i).shape() != shape) {
        return Annotate(
            ShapesDiffer(R::kInputs[i], shape.DebugString(), c->input(i).shape().DebugString()),
            absl::StrCat("variable '", variables[0]->name(), "'"));
      }
    }
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

// Defines and registers the op "Apply…" of a rule.
template <template <typename, bool> class Rule>
bool RegisterApply(const std::string& op) {
  using R = Rule<float, false>;
  OpBuilder b(op);
  for (int i = 0; i < static_cast<int>(std::size(R::kInputs)); ++i) {
    b.Input(absl::StrCat(R::kInputs[i], i < R::kRefs ? ": Ref(T)" : ": T"));
  }
  b.Output("out: Ref(T)")
      .Attr(
          "T: {float, double, int32, uint8, int16, int8, complex64, int64, qint8, quint8, qint32, "
          "bfloat16, qint16, quint16, uint16, complex128, half, uint32, uint64}")
      .Attr("use_locking: bool = false");
  const std::string flag = R::kFlagName == nullptr ? "" : R::kFlagName;
  if (!flag.empty()) {
    b.Attr(absl::StrCat(flag, ": bool = ", flag == "update_slots" ? "true" : "false"));
  }
  b.Shape([](InferenceContext* c) -> absl::Status {
    PartialShape shape = c->input(0);
    for (int i = 1; i < c->num_inputs(); ++i) {
      const bool scalar = i >= R::kRefs && i != R::kGrad;
      if (scalar) {
        if (c->input(i).known_rank() && c->input(i).rank() != 0) {
          return NotAScalar(R::kInputs[i], c->input(i).DebugString());
        }
        continue;
      }
      absl::StatusOr<PartialShape> both = PartialShape::Merge(shape, c->input(i));
      if (!both.ok()) {
        return ShapesDiffer(R::kInputs[i], c->input(0).DebugString(), c->input(i).DebugString());
      }
      shape = *std::move(both);
    }
    c->set_output(0, std::move(shape));
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

}  // namespace

static const bool kApplyRegistered =
    RegisterApply<GradientDescent>("ApplyGradientDescent") &&
    RegisterApply<Momentum>("ApplyMomentum") && RegisterApply<Adam>("ApplyAdam") &&
    RegisterApply<Adagrad>("ApplyAdagrad") && RegisterApply<AdagradV2>("ApplyAdagradV2") &&
    RegisterApply<RmsProp>("ApplyRMSProp") &&
    RegisterApply<CenteredRmsProp>("ApplyCenteredRMSProp");

}  // namespace ferry
