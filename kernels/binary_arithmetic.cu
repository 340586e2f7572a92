// Add, AddV2, Sub, Mul and SquaredDifference with broadcasting, on a GPU.
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

struct AddF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return static_cast<T>(static_cast<Sum<T>>(x) + static_cast<Sum<T>>(y));
  }
};
struct SubF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return static_cast<T>(static_cast<Sum<T>>(x) - static_cast<Sum<T>>(y));
  }
};
struct MulF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return static_cast<T>(static_cast<Sum<T>>(x) * static_cast<Sum<T>>(y));
  }
};
struct SquaredDifferenceF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    const T d = x - y;
    return d * d;
  }
};

[[maybe_unused]] const bool registered =
    RegisterWrappingBinary<AddF, FERRY_GPU_FLOATS, FERRY_GPU_SIGNED, uint8_t>("Add") &&
    RegisterWrappingBinary<AddF, FERRY_GPU_NUMBERS>("AddV2") &&
    RegisterWrappingBinary<SubF, FERRY_GPU_NUMBERS>("Sub") &&
    RegisterWrappingBinary<MulF, FERRY_GPU_NUMBERS>("Mul") &&
    RegisterWrappingBinary<SquaredDifferenceF, FERRY_GPU_FLOATS, int32_t, int64_t>(
        "SquaredDifference");

}  // namespace
}  // namespace gpu
}  // namespace ferry
