// RealDiv, Div, FloorDiv, TruncateDiv, FloorMod, Mod, TruncateMod, DivNoNan and MulNoNan of floats
// with broadcasting, on a GPU. Division of integers, which fails for divisors of 0, stays on the
// CPU: a kernel on the device can't report errors.
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

struct DivF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return x / y;
  }
};
struct DivNoNanF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return y == T(0) ? T(0) : x / y;
  }
};
struct MulNoNanF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return y == T(0) ? T(0) : x * y;
  }
};
struct FloorDivF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return floor(x / y);
  }
};
struct TruncateDivF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return trunc(x / y);
  }
};
// Of 16-bit floats the quotient is rounded to one before it loses its fraction: 2.996 becomes 3.
template <typename Small, typename F>
struct OfNarrowQuotient {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return F::Apply(Widen(Narrow<Small>(x / y)), T(1));
  }
};
struct FloorModF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    const T m = fmod(x, y);
    return m != T(0) && (m < T(0)) != (y < T(0)) ? m + y : m;
  }
};
struct TruncateModF {
  template <typename T>
  __device__ static T Apply(T x, T y) {
    return fmod(x, y);
  }
};

[[maybe_unused]] const bool registered =
    RegisterBinary<DivF, FERRY_GPU_FLOATS>("RealDiv") &&
    RegisterBinary<DivF, FERRY_GPU_FLOATS>("Div") &&
    RegisterBinary<FloorDivF, float, double>("FloorDiv") &&
    RegisterBinary<OfNarrowQuotient<half, FloorDivF>, half>("FloorDiv") &&
    RegisterBinary<OfNarrowQuotient<bfloat16, FloorDivF>, bfloat16>("FloorDiv") &&
    RegisterBinary<TruncateDivF, float, double>("TruncateDiv") &&
    RegisterBinary<OfNarrowQuotient<half, TruncateDivF>, half>("TruncateDiv") &&
    RegisterBinary<OfNarrowQuotient<bfloat16, TruncateDivF>, bfloat16>("TruncateDiv") &&
    RegisterBinary<FloorModF, FERRY_GPU_FLOATS>("FloorMod") &&
    RegisterBinary<TruncateModF, float, double>("Mod") &&
    RegisterBinary<TruncateModF, float, double>("TruncateMod") &&
    RegisterBinary<DivNoNanF, FERRY_GPU_FLOATS>("DivNoNan") &&
    RegisterBinary<MulNoNanF, FERRY_GPU_FLOATS>("MulNoNan");

}  // namespace
}  // namespace gpu
}  // namespace ferry
