// The optimizers' steps on a GPU: the formulas of apply_rules.h in one pass over the elements.
#include "kernels/gpu_apply.cuh"

namespace ferry {
namespace gpu {
namespace {

// In whole vectors while there are any, if `vectors`.
template <typename T, typename Rule>
__global__ void __launch_bounds__(kThreads)
    DenseApplyKernel(const ApplyArguments<T> a, int64_t n, bool vectors) {
  constexpr int kN = kVector<T>, kRefs = Rule::kRefs;
  const Rule rule(Scalars<T, Rule>{a.inputs});
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

struct Dense {
  template <typename T, typename Rule>
  static bool Launch(Call* c, const ApplyArguments<T>& a, const Target& var) {
    bool vectors = Aligned(a.inputs[Rule::kGrad]);
    for (int i = 0; i < Rule::kRefs; ++i) vectors = vectors && Aligned(a.refs[i]);
    const int64_t n = var.elements;
    DenseApplyKernel<T, Rule>
        <<<Blocks(c, vectors ? n / kVector<T> + 1 : n), kThreads, 0, Stream(c)>>>(a, n, vectors);
    return c->Launched("DenseApplyKernel");
  }
};

template <template <typename, bool> class Rule>
bool RegisterDense(const std::string& op, bool references = true) {
  return RegisterApply<Rule, false, Dense>(op, references);
}

[[maybe_unused]] const bool registered =
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

}  // namespace
}  // namespace gpu
}  // namespace ferry
