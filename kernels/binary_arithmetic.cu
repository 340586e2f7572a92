// Add, AddV2, Sub, Mul and SquaredDifference with broadcasting, on a GPU.
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

// Small integers would be promoted to int, whose overflow is undefined.
template <typename T>
using Wrap = std::conditional_t<std::is_integral_v<T> && sizeof(T) < 4, uint32_t, T>;

struct AddF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return static_cast<T>(static_cast<Wrap<T>>(x) + static_cast<Wrap<T>>(y));
  }
};
struct SubF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return static_cast<T>(static_cast<Wrap<T>>(x) - static_cast<Wrap<T>>(y));
  }
};
struct MulF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return static_cast<T>(static_cast<Wrap<T>>(x) * static_cast<Wrap<T>>(y));
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
    RegisterBinary<AddF, FERRY_GPU_FLOATS>("Add") &&
    RegisterWrappingBinary<AddF, FERRY_GPU_SIGNED, uint8_t>("Add") &&
    RegisterBinary<AddF, FERRY_GPU_FLOATS>("AddV2") &&
    RegisterWrappingBinary<AddF, FERRY_GPU_INTEGERS>("AddV2") &&
    RegisterBinary<SubF, FERRY_GPU_FLOATS>("Sub") &&
    RegisterWrappingBinary<SubF, FERRY_GPU_INTEGERS>("Sub") &&
    RegisterBinary<MulF, FERRY_GPU_FLOATS>("Mul") &&
    RegisterWrappingBinary<MulF, FERRY_GPU_INTEGERS>("Mul") &&
    RegisterBinary<SquaredDifferenceF, FERRY_GPU_FLOATS>("SquaredDifference") &&
    RegisterWrappingBinary<SquaredDifferenceF, int32_t, int64_t>("SquaredDifference");

}  // namespace
}  // namespace gpu
}  // namespace ferry
