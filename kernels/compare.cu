// Equal, NotEqual, Less, LessEqual, Greater and GreaterEqual with broadcasting, on a GPU.
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

#define FERRY_COMPARE(Name, op)              \
  struct Name {                              \
    template <typename T>                    \
    __device__ static bool Apply(T x, T y) { \
      return x op y;                         \
    }                                        \
  }
FERRY_COMPARE(EqualF, ==);
FERRY_COMPARE(NotEqualF, !=);
FERRY_COMPARE(LessF, <);
FERRY_COMPARE(LessEqualF, <=);
#undef FERRY_COMPARE

template <typename F, bool kMisfit, typename... Ts>
bool RegisterEqual(const char* op) {
  (RegisterBinaryAs<F, Ts, Ts, bool, Shapes::kMayMisfit, false, kMisfit>(op), ...);
  return true;
}
// Whether integers are equal has nothing to do with their signs.
template <typename F, bool kMisfit, typename... Ts>
bool RegisterEqualBits(const char* op) {
  (RegisterBinaryAs<F, Ts, Unsigned<Ts>, bool, Shapes::kMayMisfit, false, kMisfit>(op), ...);
  return true;
}
// x > y is y < x.
template <typename F, bool kSwap, typename... Ts>
bool RegisterOrder(const char* op) {
  (RegisterBinaryAs<F, Ts, Ts, bool, Shapes::kBroadcast, kSwap>(op), ...);
  return true;
}

[[maybe_unused]] const bool registered =
    RegisterEqual<EqualF, false, FERRY_GPU_FLOATS>("Equal") &&
    RegisterEqualBits<EqualF, false, FERRY_GPU_INTEGERS, bool>("Equal") &&
    RegisterEqual<NotEqualF, true, FERRY_GPU_FLOATS>("NotEqual") &&
    RegisterEqualBits<NotEqualF, true, FERRY_GPU_INTEGERS, bool>("NotEqual") &&
    RegisterOrder<LessF, false, FERRY_GPU_NUMBERS>("Less") &&
    RegisterOrder<LessF, true, FERRY_GPU_NUMBERS>("Greater") &&
    RegisterOrder<LessEqualF, false, FERRY_GPU_NUMBERS>("LessEqual") &&
    RegisterOrder<LessEqualF, true, FERRY_GPU_NUMBERS>("GreaterEqual");

}  // namespace
}  // namespace gpu
}  // namespace ferry
