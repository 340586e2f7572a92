// What the optimizers' ops on the CPU share, dense (apply.cc) and sparse (sparse_apply.cc): their
// definitions, their checks and the loop over elements. apply_rules.h has the formulas.
#ifndef FERRY_KERNELS_APPLY_H_
#define FERRY_KERNELS_APPLY_H_

#include <array>
#include <cstdint>
#include <iterator>
#include <string>
#include <type_traits>
#include <utility>

#include "absl/status/status.h"
#include "kernels/apply_rules.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/op/variable.h"

namespace ferry {

// The inputs of an op: of a rule's (see apply_rules.h), and of "SparseApply…", whose gradient is
// the rows for the indices that come behind it as an input of their own.
struct ApplyForm {
  const char* const* names;  // Of the rule's inputs.
  int count;                 // How many the rule has.
  int refs, grad;
  const char* flag = nullptr;
  int int64_input = -1;  // Of the rule.
  bool sparse = false;

  int num_inputs() const { return count + sparse; }
  // Where the op has the rule's input i.
  int At(int i) const { return i <= grad ? i : i + sparse; }
  // Input i of the op.
  const char* Name(int i) const {
    if (!sparse) return names[i];
    return i == grad ? "grad" : i < grad ? names[i] : i == grad + 1 ? "indices" : names[i - 1];
  }
  bool IsScalar(int i) const { return i >= refs && i != grad && !(sparse && i == grad + 1); }
};

template <template <typename, bool> class Rule>
ApplyForm FormOf(bool sparse) {
  using R = Rule<float, false>;
  return {R::kInputs,   static_cast<int>(std::size(R::kInputs)),
          R::kRefs,     R::kGrad,
          R::kFlagName, R::kInt64Input,
          sparse};
}

// Defines the op on references, or on handles if `resource`.
void DefineApply(const std::string& op, const ApplyForm& form, bool resource);

// Checks shapes, and on the CPU that indices lie in the variable. The variables' mutexes are held.
absl::Status CheckApplyInputs(const KernelContext& c, const ApplyForm& form);

// Elements [begin, end) of the gradient and of the variables.
template <typename T, typename C, typename Rule, size_t... kI>
void UpdateElements(const Rule& rule, int64_t begin, int64_t end, const T* grad,
                    const std::array<T*, sizeof...(kI)>& variables, std::index_sequence<kI...>) {
  const std::array<T*, sizeof...(kI)> p = {variables[kI]...};
  for (int64_t i = begin; i < end; ++i) {
    C x[] = {static_cast<C>(p[kI][i])...};
    rule(static_cast<C>(grad[i]), x[kI]...);
    ((p[kI][i] = static_cast<T>(x[kI])), ...);
  }
}

// An op's kernel. Loop::Run(c, rule, gradient, data of the variables) goes over the elements.
template <typename T, template <typename, bool> class Rule, bool kSparse, typename Loop>
class ApplyKernel : public Kernel {
  using C = std::conditional_t<sizeof(T) == 2, float, T>;
  using Plain = Rule<C, false>;

 public:
  absl::Status Init(const KernelConstruction& c) override {
    if (Plain::kFlagName != nullptr) {
      FERRY_ASSIGN_OR_RETURN(flag_, c.Attr<bool>(Plain::kFlagName));
    }
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    if constexpr (Plain::kFlagName != nullptr) {
      if (flag_) return Run<Rule<C, true>>(c);
    }
    return Run<Plain>(c);
  }

 private:
  template <typename R>
  absl::Status Run(KernelContext* c) const ABSL_NO_THREAD_SAFETY_ANALYSIS {
    const ApplyForm form = FormOf<Rule>(kSparse);
    std::array<Variable*, R::kRefs> variables;
    for (int i = 0; i < R::kRefs; ++i) variables[static_cast<size_t>(i)] = c->variable(i);
    std::array<Variable*, R::kRefs> locked = variables;
    const VariableLocks locks(absl::MakeSpan(locked));
    FERRY_RETURN_IF_ERROR(CheckApplyInputs(*c, form));
    auto scalar = [&](int i) {
      const Tensor& t = c->input(form.At(i));
      return i == R::kInt64Input ? static_cast<C>(*t.data<int64_t>())
                                 : static_cast<C>(*t.data<T>());
    };
    for (int i = R::kRefs; kSparse && i < form.count; ++i) {
      if (i == R::kGrad) continue;
      const double value = static_cast<double>(scalar(i));
      if (const char* lacks = R::Lacks(i, value)) {
        return InvalidArgument(R::kInputs[i], " is not a ", lacks, " scalar: ", value);
      }
    }
    const R rule(scalar);
    std::array<T*, R::kRefs> data;
    for (size_t i = 0; i < R::kRefs; ++i) {
      data[i] = variables[i]->MutableTensor()->template data<T>();
    }
    Loop::template Run<T, C>(c, rule, c->input(R::kGrad).template data<T>(), data);
    c->SetOutputVariable(0, variables[0]);
    return absl::OkStatus();
  }

  bool flag_ = false;
};

// The op of that name on references, unless the rule is only for handles, and "Resource…" on those.
template <template <typename, bool> class Rule, bool kSparse, typename Loop>
bool RegisterApply(const std::string& op, bool references = true) {
  for (const bool resource : {false, true}) {
    if (!resource && !references) continue;
    const std::string name = (resource ? "Resource" : "") + op;
    DefineApply(name, FormOf<Rule>(kSparse), resource);
    auto kernel = [&](auto zero) {
      using T = decltype(zero);
      KernelBuilder::Registrar registrar(KernelBuilder(name)
                                             .Device(DeviceType::kCpu)
                                             .template Type<T>("T")
                                             .template Make<ApplyKernel<T, Rule, kSparse, Loop>>());
      (void)registrar;
    };
    kernel(half());
    kernel(bfloat16());
    kernel(float());
    kernel(double());
  }
  return true;
}

}  // namespace ferry

#endif  // FERRY_KERNELS_APPLY_H_
