// What the optimizers' steps on a GPU share, dense (apply.cu) and sparse (sparse_apply.cu): their
// kernels but for the loop over elements. apply_rules.h has the formulas.
//
// Scalars such as the learning rate are read by the device, so that a captured graph takes what
// they are when it is replayed.
#ifndef FERRY_KERNELS_GPU_APPLY_CUH_
#define FERRY_KERNELS_GPU_APPLY_CUH_

#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "kernels/apply_rules.h"
#include "kernels/gpu.cuh"
#include "kernels/gpu_checks.h"

namespace ferry {
namespace gpu {

inline constexpr int kMostRefs = 4, kMostInputs = 11;

// By the numbers of the rule's inputs.
template <typename T>
struct ApplyArguments {
  T* refs[kMostRefs];
  const T* inputs[kMostInputs];  // All but the references. One may be an int64's address.
};

template <typename T, typename Rule>
struct Scalars {
  const T* const* inputs;
  __device__ Wide<T> operator()(int i) const {
    if (i == Rule::kInt64Input) {
      return static_cast<Wide<T>>(*reinterpret_cast<const int64_t*>(inputs[i]));
    }
    return Widen(*inputs[i]);
  }
};

template <typename T, typename Rule, size_t... kI>
__device__ void UpdateElement(const Rule& rule, T grad, T* const (&p)[sizeof...(kI)],
                              std::index_sequence<kI...>) {
  Wide<T> x[] = {Widen(*p[kI])...};
  rule(Widen(grad), x[kI]...);
  ((*p[kI] = Narrow<T>(x[kI])), ...);
}

// The kernel of "Apply…", or of "SparseApply…" if kSparse. Loop::Launch<T, R>(c, arguments, var)
// enqueues the updates by rule R of a variable that isn't empty.
template <typename T, template <typename, bool> class Rule, bool kSparse, typename Loop>
class ApplyKernel : public Kernel {
  using Plain = Rule<Wide<T>, false>;
  static constexpr int kRefs = Plain::kRefs, kGrad = Plain::kGrad;
  static constexpr int kCount = static_cast<int>(std::size(Plain::kInputs));
  static_assert(kRefs <= kMostRefs && kCount <= kMostInputs, "they fit the kernel's parameter");

  bool Init(Setup* setup) override {
    return Plain::kFlagName == nullptr || setup->Attr(Plain::kFlagName, &flag_) ||
           setup->Fail(Error::kInvalidArgument,
                       std::string("the attribute ") + Plain::kFlagName + " is missing");
  }

  bool Run(Call* c) const override {
    std::vector<int> refs;
    for (int i = 0; i < kRefs; ++i) refs.push_back(i);
    Target targets[kRefs];
    if (!c->Variables(refs, targets) ||
        !CheckApply(c, Plain::kInputs, kCount, kRefs, kGrad, kSparse)) {
      return false;
    }
    ApplyArguments<T> a = {};
    for (int i = 0; i < kRefs; ++i) a.refs[i] = targets[i].template as<T>();
    for (int i = kRefs; i < kCount; ++i) {
      a.inputs[i] = c->input(kSparse && i > kGrad ? i + 1 : i).template as<T>();
    }
    c->OutputVariable(0, 0);
    if (targets[0].elements == 0) return true;
    if constexpr (Plain::kFlagName != nullptr) {
      if (flag_) return Loop::template Launch<T, Rule<Wide<T>, true>>(c, a, targets[0]);
    }
    return Loop::template Launch<T, Plain>(c, a, targets[0]);
  }

  bool flag_ = false;
};

template <template <typename, bool> class Rule, bool kSparse, typename Loop>
struct ApplyOf {
  template <typename T>
  using Kernel = ApplyKernel<T, Rule, kSparse, Loop>;
};

// The op of that name on references, unless the rule is only for handles, and "Resource…" on those.
template <template <typename, bool> class Rule, bool kSparse, typename Loop>
bool RegisterApply(const std::string& op, bool references = true) {
  const std::string on_handles = "Resource" + op;
  return (!references || Register<ApplyOf<Rule, kSparse, Loop>::template Kernel, FERRY_GPU_FLOATS>(
                             op.c_str(), "T")) &&
         Register<ApplyOf<Rule, kSparse, Loop>::template Kernel, FERRY_GPU_FLOATS>(
             on_handles.c_str(), "T");
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_APPLY_CUH_
