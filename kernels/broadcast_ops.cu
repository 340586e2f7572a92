// BroadcastTo on a GPU, by the elements' width.
#include "kernels/gpu.cuh"

namespace ferry {
namespace gpu {
namespace {

template <typename S, typename Index>
__global__ void __launch_bounds__(kThreads)
    BroadcastToLoop(const S* x, S* y, int64_t n, const BroadcastView b) {
  for (int64_t i = First(); i < n; i += Step()) {
    Index at[1];
    Locate<1, Index>(b, static_cast<Index>(i), at);
    y[i] = x[at[0]];
  }
}

template <typename S>
class BroadcastToKernel : public Kernel {
  bool Run(Call* c) const override {
    const Input x = c->input(0);
    std::vector<int64_t> dims;
    if (!c->HostShape(1, &dims)) return false;
    Input shape;
    shape.rank = static_cast<int>(dims.size());
    shape.dims = dims.data();
    Broadcast b;
    if (!MakeBroadcast(c, {x, shape}, &b)) return false;
    if (b.out != dims) {
      return c->Fail(Error::kInvalidArgument,
                     "Incompatible shapes: " + ShapeOf(x) + " vs. " + ShapeOf(shape));
    }
    S* y = static_cast<S*>(c->Output(0, dims));
    if (!y) return false;
    const int64_t n = b.elements;
    if (n == 0) return true;
    if (x.elements == n) return c->Copy(y, x.data, n * static_cast<int64_t>(sizeof(S)));
    if (n <= std::numeric_limits<int32_t>::max()) {
      BroadcastToLoop<S, int32_t>
          <<<Blocks(c, n), kThreads, 0, Stream(c)>>>(x.as<S>(), y, n, View(b));
    } else {
      BroadcastToLoop<S, int64_t>
          <<<Blocks(c, n), kThreads, 0, Stream(c)>>>(x.as<S>(), y, n, View(b));
    }
    return c->Launched("BroadcastToLoop");
  }
};

template <typename... Ts>
bool RegisterBroadcastTo() {
  (Register(Registration{"BroadcastTo",
                         {{"T", {TypeNumber<Ts>::value}}},
                         {"shape"},
                         {},
                         true,
                         &MakeKernel<BroadcastToKernel<Unsigned<Ts>>>}),
   ...);
  return true;
}

[[maybe_unused]] const bool registered = RegisterBroadcastTo<FERRY_GPU_NUMBERS, bool>();

}  // namespace
}  // namespace gpu
}  // namespace ferry
