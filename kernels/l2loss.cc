// L2Loss: half the sum of squares.
#include <algorithm>
#include <type_traits>

#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

template <typename T>
class L2LossKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    using C = std::conditional_t<sizeof(T) == 2, float, T>;
    constexpr int64_t kBlock = 1 << 15;
    const int64_t n = c->input(0).num_elements();
    const T* const x = c->input(0).data<T>();
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape()));
    // Each block has its own sum, whatever thread it runs on.
    const int64_t blocks = (n + kBlock - 1) / kBlock;
    FERRY_ASSIGN_OR_RETURN(void* space, c->Scratch(static_cast<size_t>(blocks + 1) * sizeof(C)));
    C* const sums = static_cast<C*>(space);
    c->ParallelFor(blocks, 1, [&](int64_t begin, int64_t end) {
      for (int64_t b = begin; b < end; ++b) {
        const int64_t first = b * kBlock, count = std::min(kBlock, n - first);
        sums[b] = ConstArray<T>(x + first, count).template cast<C>().square().sum();
      }
    });
    C sum = C(0);
    for (int64_t b = 0; b < blocks; ++b) sum += sums[b];
    out->data<T>()[0] = static_cast<T>(sum / C(2));
    return absl::OkStatus();
  }
};

FERRY_OP("L2Loss")
    .Input("t: T")
    .Output("output: T")
    .Attr("T: {half, bfloat16, float, double}")
    .Shape(ScalarShape)
    .Gradient([](GradientContext* c) -> absl::Status {
      // y = (sum x^2) / 2:  dx = dy x
      c->set_input_grad(0, ops::Mul(c->scope(), c->input(0), c->grad(0)));
      return c->scope().status();
    });

const bool kRegistered = RegisterCpu<L2LossKernel>(FloatTypes(), "L2Loss");

}  // namespace
}  // namespace ferry
