// Neg, Abs, Sign, Square, Sqrt, Rsqrt, Reciprocal, Inv, Floor, Ceil, Rint, Round, IsNan, IsInf,
// IsFinite and the gradient ops of the roots and reciprocals, on a GPU.
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

struct NegF {
  template <typename T>
  __device__ static T Apply(T x) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(0u - x);
    } else {
      return -x;
    }
  }
};
struct AbsF {
  template <typename T>
  __device__ static T Apply(T x) {
    if constexpr (std::is_integral_v<T>) {
      return x < 0 ? static_cast<T>(Unsigned<T>(0) - static_cast<Unsigned<T>>(x)) : x;
    } else {
      return fabs(x);
    }
  }
};
struct SignF {
  template <typename T>
  __device__ static T Apply(T x) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>((x > 0) - (x < 0));
    } else {
      return x != x ? x : static_cast<T>((x > 0) - (x < 0));
    }
  }
};
struct SquareF {
  template <typename T>
  __device__ static T Apply(T x) {
    return static_cast<T>(static_cast<Sum<T>>(x) * static_cast<Sum<T>>(x));
  }
};
struct SqrtF {
  template <typename T>
  __device__ static T Apply(T x) {
    return sqrt(x);
  }
};
struct RsqrtF {
  template <typename T>
  __device__ static T Apply(T x) {
    return T(1) / sqrt(x);
  }
};
struct ReciprocalF {
  template <typename T>
  __device__ static T Apply(T x) {
    return T(1) / x;
  }
};
struct FloorF {
  template <typename T>
  __device__ static T Apply(T x) {
    return floor(x);
  }
};
struct CeilF {
  template <typename T>
  __device__ static T Apply(T x) {
    return ceil(x);
  }
};
// To the nearest integer, halves to the even one.
struct RoundF {
  template <typename T>
  __device__ static T Apply(T x) {
    if constexpr (std::is_integral_v<T>) {
      return x;
    } else {
      return rint(x);
    }
  }
};
struct IsNanF {
  template <typename T>
  __device__ static bool Apply(T x) {
    return x != x;
  }
};
struct IsInfF {
  template <typename T>
  __device__ static bool Apply(T x) {
    return isinf(x);
  }
};
struct IsFiniteF {
  template <typename T>
  __device__ static bool Apply(T x) {
    return isfinite(x);
  }
};

struct SqrtGradF {
  template <typename T>
  __device__ static T Apply(T y, T dy) {
    return T(0.5) * dy / y;
  }
};
struct RsqrtGradF {
  template <typename T>
  __device__ static T Apply(T y, T dy) {
    return T(-0.5) * (dy * y) * (y * y);
  }
};
struct ReciprocalGradF {
  template <typename T>
  __device__ static T Apply(T y, T dy) {
    return -dy * (y * y);
  }
};

[[maybe_unused]] const bool registered =
    RegisterWrappingUnary<NegF, FERRY_GPU_FLOATS, FERRY_GPU_SIGNED>("Neg") &&
    RegisterUnary<AbsF, FERRY_GPU_FLOATS, FERRY_GPU_SIGNED>("Abs") &&
    RegisterUnary<SignF, FERRY_GPU_FLOATS, FERRY_GPU_SIGNED>("Sign") &&
    RegisterWrappingUnary<SquareF, FERRY_GPU_NUMBERS>("Square") &&
    RegisterUnary<SqrtF, FERRY_GPU_FLOATS>("Sqrt") &&
    RegisterUnary<RsqrtF, FERRY_GPU_FLOATS>("Rsqrt") &&
    RegisterUnary<ReciprocalF, FERRY_GPU_FLOATS>("Reciprocal") &&
    RegisterUnary<ReciprocalF, FERRY_GPU_FLOATS>("Inv") &&
    RegisterUnary<FloorF, FERRY_GPU_FLOATS>("Floor") &&
    RegisterUnary<CeilF, FERRY_GPU_FLOATS>("Ceil") &&
    RegisterUnary<RoundF, float, double>("Rint") &&
    RegisterUnary<RoundF, FERRY_GPU_FLOATS, int32_t, int64_t>("Round") &&
    RegisterPredicate<IsNanF, FERRY_GPU_FLOATS>("IsNan") &&
    RegisterPredicate<IsInfF, FERRY_GPU_FLOATS>("IsInf") &&
    RegisterPredicate<IsFiniteF, FERRY_GPU_FLOATS>("IsFinite") &&
    RegisterSame<SqrtGradF, FERRY_GPU_FLOATS>("SqrtGrad") &&
    RegisterSame<RsqrtGradF, FERRY_GPU_FLOATS>("RsqrtGrad") &&
    RegisterSame<ReciprocalGradF, FERRY_GPU_FLOATS>("ReciprocalGrad") &&
    RegisterSame<ReciprocalGradF, FERRY_GPU_FLOATS>("InvGrad");

}  // namespace
}  // namespace gpu
}  // namespace ferry
