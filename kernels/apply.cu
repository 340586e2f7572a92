// The optimizers' steps on a GPU: the formulas of apply_rules.h in one pass over the elements.
// Scalars such as the learning rate are read by the kernel, so that a captured graph takes what
// they are when it is replayed.
#include <iterator>
#include <string>
#include <utility>
#include <vector>

#include "kernels/apply_rules.h"
#include "kernels/gpu.cuh"
#include "kernels/gpu_checks.h"

namespace ferry {
namespace gpu {
namespace {

inline constexpr int kMostRefs = 4, kMostInputs = 10;

template <typename T>
struct ApplyArguments {
  T* refs[kMostRefs];
  const T* inputs[kMostInputs];  // All but the references.
};

template <typename T>
struct Scalars {
  const T* const* inputs;
  __host__ __device__ Wide<T> operator()(int i) const { return Widen(*inputs[i]); }
};

template <typename T, typename Rule, size_t... kI>
__device__ void UpdateElement(const Rule& rule, T grad, T* const (&p)[sizeof...(kI)],
                              std::index_sequence<kI...>) {
  Wide<T> x[] = {Widen(*p[kI])...};
  rule(Widen(grad), x[kI]...);
  ((*p[kI] = Narrow<T>(x[kI])), ...);
}

// In whole vectors while there are any, if `vectors`.
template <typename T, typename Rule>
__global__ void __launch_bounds__(kThreads)
    ApplyKernel(const ApplyArguments<T> a, int64_t n, bool vectors) {
  constexpr int kN = kVector<T>, kRefs = Rule::kRefs;
  const Rule rule(Scalars<T>{a.inputs});
  const T* const grad = a.inputs[Rule::kGrad];
  int64_t done = 0;
  if (vectors) {
    done = n / kN * kN;
    for (int64_t i = First(); i < n / kN; i += Step()) {
      Vector<T> g = reinterpret_cast<const Vector<T>*>(grad)[i];
      Vector<T> x[kRefs];
#pragma unroll
      for (int r = 0; r < kRefs; ++r) x[r] = reinterpret_cast<Vector<T>*>(a.refs[r])[i];
#pragma unroll
      for (int k = 0; k < kN; ++k) {
        T* p[kRefs];
#pragma unroll
        for (int r = 0; r < kRefs; ++r) p[r] = &x[r].v[k];
        UpdateElement<T>(rule, g.v[k], p, std::make_index_sequence<kRefs>());
      }
#pragma unroll
      for (int r = 0; r < kRefs; ++r) reinterpret_cast<Vector<T>*>(a.refs[r])[i] = x[r];
    }
  }
  for (int64_t i = done + First(); i < n; i += Step()) {
    T* p[kRefs];
#pragma unroll
    for (int r = 0; r < kRefs; ++r) p[r] = a.refs[r] + i;
    UpdateElement<T>(rule, grad[i], p, std::make_index_sequence<kRefs>());
  }
}

template <typename T, template <typename, bool> class Rule>
class Apply : public Kernel {
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
    if (!c->Variables(refs, targets) || !CheckApply(c, Plain::kInputs, kCount, kRefs, kGrad)) {
      return false;
    }
    ApplyArguments<T> a = {};
    const int64_t n = targets[0].elements;
    bool vectors = true;
    for (int i = 0; i < kRefs; ++i) {
      a.refs[i] = targets[i].template as<T>();
      vectors = vectors && Aligned(targets[i].data);
    }
    for (int i = kRefs; i < kCount; ++i) a.inputs[i] = c->input(i).as<T>();
    vectors = vectors && Aligned(a.inputs[kGrad]);
    c->OutputVariable(0, 0);
    if (n == 0) return true;
    const unsigned blocks = Blocks(c, vectors ? n / kVector<T> + 1 : n);
    if constexpr (Plain::kFlagName != nullptr) {
      if (flag_) {
        ApplyKernel<T, Rule<Wide<T>, true>><<<blocks, kThreads, 0, Stream(c)>>>(a, n, vectors);
        return c->Launched("ApplyKernel");
      }
    }
    ApplyKernel<T, Plain><<<blocks, kThreads, 0, Stream(c)>>>(a, n, vectors);
    return c->Launched("ApplyKernel");
  }

  bool flag_ = false;
};

template <template <typename, bool> class Rule>
struct ApplyOf {
  template <typename T>
  using Kernel = Apply<T, Rule>;
};
template <template <typename, bool> class Rule>
bool RegisterApply(const std::string& op) {
  const std::string on_handles = "Resource" + op;
  return Register<ApplyOf<Rule>::template Kernel, FERRY_GPU_FLOATS>(op.c_str(), "T") &&
         Register<ApplyOf<Rule>::template Kernel, FERRY_GPU_FLOATS>(on_handles.c_str(), "T");
}

[[maybe_unused]] const bool registered =
    RegisterApply<apply_rules::GradientDescent>("ApplyGradientDescent") &&
    RegisterApply<apply_rules::Momentum>("ApplyMomentum") &&
    RegisterApply<apply_rules::Adam>("ApplyAdam") &&
    RegisterApply<apply_rules::Adagrad>("ApplyAdagrad") &&
    RegisterApply<apply_rules::AdagradV2>("ApplyAdagradV2") &&
    RegisterApply<apply_rules::RmsProp>("ApplyRMSProp") &&
    RegisterApply<apply_rules::CenteredRmsProp>("ApplyCenteredRMSProp");

}  // namespace
}  // namespace gpu
}  // namespace ferry
