// Relu, Relu6, LeakyRelu, Elu, Selu, Softplus, Softsign and their gradient ops, on a GPU.
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

// "Self-Normalizing Neural Networks" (Klambauer et al., 2017), equation 14.
constexpr double kSeluScale = 1.0507009873554804934193349852946;
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;

// max(x, 0); NaN stays NaN.
template <typename T>
__device__ T NotBelowZero(T x) {
  if constexpr (std::is_unsigned_v<T>) {
    return x;
  } else {
    return x < T(0) ? T(0) : x;
  }
}
struct ReluF {
  template <typename T>
  __device__ static T Apply(T x) {
    return NotBelowZero(x);
  }
};
struct Relu6F {
  template <typename T>
  __device__ static T Apply(T x) {
    const T y = NotBelowZero(x);
    return y > T(6) ? T(6) : y;
  }
};
struct EluF {
  template <typename T>
  __device__ static T Apply(T x) {
    return x < T(0) ? expm1(x) : x;
  }
};
struct SeluF {
  template <typename T>
  __device__ static T Apply(T x) {
    return x < T(0) ? expm1(x) * T(kSeluScale * kSeluAlpha) : x * T(kSeluScale);
  }
};
// log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which neither overflows nor cancels.
struct SoftplusF {
  template <typename T>
  __device__ static T Apply(T x) {
    return NotBelowZero(x) + log1p(exp(-fabs(x)));
  }
};
struct SoftsignF {
  template <typename T>
  __device__ static T Apply(T x) {
    return x / (T(1) + fabs(x));
  }
};

struct ReluGradF {
  template <typename T>
  __device__ static T Apply(T dy, T x) {
    return x > T(0) ? dy : T(0);
  }
};
struct Relu6GradF {
  template <typename T>
  __device__ static T Apply(T dy, T x) {
    return x > T(0) && x < T(6) ? dy : T(0);
  }
};
struct EluGradF {
  template <typename T>
  __device__ static T Apply(T dy, T y) {
    return y < T(0) ? (y + T(1)) * dy : dy;
  }
};
struct SeluGradF {
  template <typename T>
  __device__ static T Apply(T dy, T y) {
    return dy * (y < T(0) ? y + T(kSeluScale * kSeluAlpha) : T(kSeluScale));
  }
};
struct SoftplusGradF {
  template <typename T>
  __device__ static T Apply(T dy, T x) {
    return dy / (exp(-x) + T(1));
  }
};
struct SoftsignGradF {
  template <typename T>
  __device__ static T Apply(T dy, T x) {
    const T d = T(1) + fabs(x);
    return dy / (d * d);
  }
};

// `from` where the feature is positive, alpha * from elsewhere; alpha has the tensors' precision.
template <typename Element>
struct LeakyF {
  bool Init(Setup* setup) {
    float value;
    if (!setup->Attr("alpha", &value)) {
      return setup->Fail(Error::kInvalidArgument, "there is no attribute alpha");
    }
    alpha = Widen(Narrow<Element>(value));
    return true;
  }
  template <typename T>
  __device__ T Apply(T x) const {
    return Apply(x, x);
  }
  template <typename T>
  __device__ T Apply(T from, T x) const {
    return x > T(0) ? from : from * alpha;
  }
  Wide<Element> alpha;
};
template <typename... Ts>
bool RegisterLeaky() {
  (RegisterUnaryAs<LeakyF<Ts>, Ts, Ts, Ts>("LeakyRelu"), ...);
  (RegisterBinaryAs<LeakyF<Ts>, Ts, Ts, Ts, Shapes::kSame>("LeakyReluGrad"), ...);
  return true;
}

[[maybe_unused]] const bool registered =
    RegisterUnary<ReluF, FERRY_GPU_NUMBERS>("Relu") &&
    RegisterUnary<Relu6F, FERRY_GPU_NUMBERS>("Relu6") &&
    RegisterUnary<EluF, FERRY_GPU_FLOATS>("Elu") &&
    RegisterUnary<SeluF, FERRY_GPU_FLOATS>("Selu") &&
    RegisterUnary<SoftplusF, FERRY_GPU_FLOATS>("Softplus") &&
    RegisterUnary<SoftsignF, FERRY_GPU_FLOATS>("Softsign") && RegisterLeaky<FERRY_GPU_FLOATS>() &&
    RegisterSame<ReluGradF, FERRY_GPU_NUMBERS>("ReluGrad") &&
    RegisterSame<Relu6GradF, FERRY_GPU_NUMBERS>("Relu6Grad") &&
    RegisterSame<EluGradF, FERRY_GPU_FLOATS>("EluGrad") &&
    RegisterSame<SeluGradF, FERRY_GPU_FLOATS>("SeluGrad") &&
    RegisterSame<SoftplusGradF, FERRY_GPU_FLOATS>("SoftplusGrad") &&
    RegisterSame<SoftsignGradF, FERRY_GPU_FLOATS>("SoftsignGrad");

}  // namespace
}  // namespace gpu
}  // namespace ferry
