// The optimizers' steps for gradients that are there for some rows of the variable only:
// SparseApplyMomentum, SparseApplyAdagrad and so on, and the same on handles. A row that the
// indices name several times takes its gradients one after the other, in the order of the indices.
// apply_rules.h has the formulas.
#include <algorithm>

#include "kernels/apply.h"
#include "kernels/array.h"

namespace ferry {
namespace {

constexpr int64_t kTaskBytes = 64 << 10;

struct Sparse {
  template <typename T, typename C, typename Rule>
  static void Run(KernelContext* c, const Rule& rule, const T* grad,
                  const std::array<T*, Rule::kRefs>& data) {
    const Tensor& indices = c->input(Rule::kGrad + 1);
    const TensorShape& shape = c->input(0).shape();
    const int64_t n = indices.num_elements(), rows = shape.dim(0);
    if (n == 0 || shape.num_elements() == 0) return;
    const int64_t inner = shape.num_elements() / rows;
    // Split by rows of the variable, so that each keeps the order of its gradients.
    const int64_t tasks = std::min<int64_t>(16, n * inner * int64_t{sizeof(T)} / kTaskBytes + 1);
    c->ParallelFor(rows, (rows + tasks - 1) / tasks, [&](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t row = IntAt(indices, i);
        if (row < begin || row >= end) continue;
        std::array<T*, Rule::kRefs> at;
        for (size_t k = 0; k < Rule::kRefs; ++k) at[k] = data[k] + row * inner;
        UpdateElements<T, C>(rule, 0, inner, grad + i * inner, at,
                             std::make_index_sequence<Rule::kRefs>());
      }
    });
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
}  // namespace ferry
