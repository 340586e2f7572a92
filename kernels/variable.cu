// Updates of variables, references and handles alike, on a GPU: AssignAdd, AssignSub. Those of
// single rows are in scatter.cc.
#include "kernels/gpu_binary.cuh"
#include "kernels/gpu_checks.h"

namespace ferry {
namespace gpu {
namespace {

struct AddF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return static_cast<T>(x + y);
  }
};
struct SubF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return static_cast<T>(x - y);
  }
};

template <typename T, typename F>
class Accumulate : public Kernel {
  bool Run(Call* c) const override {
    using W = Wrapping<T>;
    Target v;
    if (!c->Variables({0}, &v) || !CheckAccumulate(c)) return false;
    c->OutputVariable(0, 0);
    if (v.elements == 0) return true;
    W* const to = v.as<W>();
    const W* const by = c->input(1).as<W>();
    BinaryLoop<F, W, W><<<Blocks(c, v.elements), kThreads, 0, Stream(c)>>>(
        F(), to, 1, by, 1, to, v.elements, Aligned(to, by));
    return c->Launched("BinaryLoop");
  }
};
template <typename T>
using AssignAdd = Accumulate<T, AddF>;
template <typename T>
using AssignSub = Accumulate<T, SubF>;

[[maybe_unused]] const bool registered =
    Register<AssignAdd, FERRY_GPU_NUMBERS>("AssignAdd", "T") &&
    Register<AssignSub, FERRY_GPU_NUMBERS>("AssignSub", "T") &&
    Register<AssignAdd, FERRY_GPU_NUMBERS>("AssignAddVariableOp", "dtype") &&
    Register<AssignSub, FERRY_GPU_NUMBERS>("AssignSubVariableOp", "dtype");

}  // namespace
}  // namespace gpu
}  // namespace ferry
