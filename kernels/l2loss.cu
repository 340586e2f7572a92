// L2Loss on a GPU.
#include "kernels/gpu_reduce.cuh"

namespace ferry {
namespace gpu {
namespace {

template <typename T>
struct SquaresOf {
  using In = T;
  using Acc = Wide<T>;
  static constexpr bool kPlain = false;
  __device__ static Acc Identity() { return Acc(0); }
  __device__ static Acc Load(T x, int64_t) { return Widen(x) * Widen(x); }
  __device__ static Acc Combine(Acc x, Acc y) { return x + y; }
  struct Result {
    __device__ void Store(void* out, int64_t i, Acc acc) const {
      static_cast<T*>(out)[i] = Narrow<T>(acc / Acc(2));
    }
  };
};

template <typename T>
class L2Loss : public Kernel {
  bool Run(Call* c) const override {
    const Input x = c->input(0);
    void* const out = c->Output(0, {});
    return out && RunStages<SquaresOf<T>>(c, x.data, {{1, x.elements, 1}}, out, {});
  }
};

[[maybe_unused]] const bool registered = Register<L2Loss, FERRY_GPU_FLOATS>("L2Loss", "T");

}  // namespace
}  // namespace gpu
}  // namespace ferry
