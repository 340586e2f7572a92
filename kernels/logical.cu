// LogicalAnd, LogicalOr and LogicalNot on a GPU, on bools as numbers.
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

struct AndF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return x & y;
  }
};
struct OrF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return x | y;
  }
};
struct NotF {
  template <typename T>
  __device__ static T Apply(T x) {
    return x ^ 1;
  }
};

bool RegisterLogical() {
  RegisterBinaryAs<AndF, bool, uint8_t, uint8_t>("LogicalAnd", "");
  RegisterBinaryAs<OrF, bool, uint8_t, uint8_t>("LogicalOr", "");
  RegisterUnaryAs<NotF, bool, uint8_t, uint8_t>("LogicalNot", "");
  return true;
}
[[maybe_unused]] const bool registered = RegisterLogical();

}  // namespace
}  // namespace gpu
}  // namespace ferry
