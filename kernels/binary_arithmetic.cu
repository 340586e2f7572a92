// Add, AddV2, Sub and Mul with broadcasting, on a GPU.
#include "kernels/gpu.cuh"
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

struct AddF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return x + y;
  }
};
struct SubF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return x - y;
  }
};
struct MulF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return x * y;
  }
};

#define FERRY_ALL_NUMBERS                                                                    \
  half, bfloat16, float, double, int8_t, int16_t, int32_t, int64_t, uint8_t, uint16_t, uint32_t, \
      uint64_t
[[maybe_unused]] const bool registered =
    RegisterBinary<AddF, FERRY_ALL_NUMBERS>("Add") &&
    RegisterBinary<AddF, FERRY_ALL_NUMBERS>("AddV2") &&
    RegisterBinary<SubF, FERRY_ALL_NUMBERS>("Sub") &&
    RegisterBinary<MulF, FERRY_ALL_NUMBERS>("Mul");

}  // namespace
}  // namespace gpu
}  // namespace ferry
