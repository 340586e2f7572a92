// The optimizers' steps on a GPU for gradients that are there for some rows of the variable only.
// Rows are updated as gpu_rows.cuh says: a thread has one column of one row, and takes the row's
// gradients one after the other.
#include "kernels/gpu_apply.cuh"
#include "kernels/gpu_rows.cuh"

namespace ferry {
namespace gpu {
namespace {

template <typename T, typename Rule>
__global__ void __launch_bounds__(kThreads)
    SparseApplyKernel(const ApplyArguments<T> a, const Rows r) {
  constexpr int kRefs = Rule::kRefs;
  const Rule rule(Scalars<T, Rule>{a.inputs});
  const T* const grad = a.inputs[Rule::kGrad];
  for (int64_t i = First(); i < r.n * r.size; i += Step()) {
    int64_t p = i / r.size;
    const int64_t column = i - p * r.size;
    if (!r.Starts(p)) continue;
    const uint32_t row = r.keys[p];
    T x[kRefs];
    T* at[kRefs];
#pragma unroll
    for (int k = 0; k < kRefs; ++k) {
      x[k] = a.refs[k][row * r.size + column];
      at[k] = &x[k];
    }
    do {
      UpdateElement<T>(rule, grad[r.From(p) * r.size + column], at,
                       std::make_index_sequence<kRefs>());
      ++p;
    } while (p < r.n && r.keys[p] == row);
#pragma unroll
    for (int k = 0; k < kRefs; ++k) a.refs[k][row * r.size + column] = x[k];
  }
}

struct Sparse {
  template <typename T, typename Rule>
  static bool Launch(Call* c, const ApplyArguments<T>& a, const Target& var) {
    const Input indices = c->input(Rule::kGrad + 1);
    if (indices.elements == 0) return true;
    const int64_t rows = var.dims[0];
    Rows sorted;
    if (!SortRows(c, {indices.data, indices.dtype, indices.elements, 1, &rows}, rows,
                  var.elements / rows, &sorted)) {
      return false;
    }
    SparseApplyKernel<T, Rule>
        <<<Blocks(c, sorted.n * sorted.size), kThreads, 0, Stream(c)>>>(a, sorted);
    return c->Launched("SparseApplyKernel");
  }
};

template <template <typename, bool> class Rule>
bool RegisterSparse(const std::string& op, bool references = true) {
  return RegisterApply<Rule, true, Sparse>(op, references);
}

[[maybe_unused]] const bool registered =
    RegisterSparse<apply_rules::Momentum>("SparseApplyMomentum") &&
    RegisterSparse<apply_rules::KerasMomentum>("SparseApplyKerasMomentum", false) &&
    RegisterSparse<apply_rules::Adagrad>("SparseApplyAdagrad") &&
    RegisterSparse<apply_rules::AdagradV2>("SparseApplyAdagradV2") &&
    RegisterSparse<apply_rules::AdagradDA>("SparseApplyAdagradDA") &&
    RegisterSparse<apply_rules::Adadelta>("SparseApplyAdadelta") &&
    RegisterSparse<apply_rules::RmsProp>("SparseApplyRMSProp") &&
    RegisterSparse<apply_rules::CenteredRmsProp>("SparseApplyCenteredRMSProp") &&
    RegisterSparse<apply_rules::Ftrl>("SparseApplyFtrl") &&
    RegisterSparse<apply_rules::FtrlV2>("SparseApplyFtrlV2") &&
    RegisterSparse<apply_rules::ProximalGradientDescent>("SparseApplyProximalGradientDescent") &&
    RegisterSparse<apply_rules::ProximalAdagrad>("SparseApplyProximalAdagrad");

}  // namespace
}  // namespace gpu
}  // namespace ferry
