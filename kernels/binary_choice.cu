// Maximum, Minimum and Pow with broadcasting, on a GPU. Pow of integers, which fails for negative
// exponents, stays on the CPU: a kernel on the device can't report errors.
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

// Where either is NaN, so is the result.
template <typename T>
__device__ T Choose(bool takes_x, T x, T y) {
  const T z = takes_x ? x : y;
  if constexpr (std::is_floating_point_v<T>) {
    return x != x || y != y ? x + y : z;
  } else {
    return z;
  }
}
struct MaximumF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return Choose(x > y, x, y);
  }
};
struct MinimumF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return Choose(x < y, x, y);
  }
};
struct PowF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return pow(x, y);
  }
};

[[maybe_unused]] const bool registered = RegisterBinary<MaximumF, FERRY_GPU_NUMBERS>("Maximum") &&
                                         RegisterBinary<MinimumF, FERRY_GPU_NUMBERS>("Minimum") &&
                                         RegisterBinary<PowF, FERRY_GPU_FLOATS>("Pow");

}  // namespace
}  // namespace gpu
}  // namespace ferry
