// Exp, Expm1, Log, Log1p, Sin, Cos, Erf, Tanh, Sigmoid, TanhGrad and SigmoidGrad on a GPU.
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

#define FERRY_FUNCTION(Name, expression) \
  struct Name {                          \
    template <typename T>                \
    __device__ static T Apply(T x) {     \
      return expression;                 \
    }                                    \
  }
FERRY_FUNCTION(ExpF, exp(x));
FERRY_FUNCTION(Expm1F, expm1(x));
FERRY_FUNCTION(LogF, log(x));
FERRY_FUNCTION(Log1pF, log1p(x));
FERRY_FUNCTION(SinF, sin(x));
FERRY_FUNCTION(CosF, cos(x));
FERRY_FUNCTION(ErfF, erf(x));
FERRY_FUNCTION(TanhF, tanh(x));
FERRY_FUNCTION(SigmoidF, T(1) / (T(1) + exp(-x)));
#undef FERRY_FUNCTION

struct TanhGradF {
  template <typename T>
  __device__ static T Apply(T y, T dy) {
    return dy * (T(1) - y * y);
  }
};
struct SigmoidGradF {
  template <typename T>
  __device__ static T Apply(T y, T dy) {
    return dy * y * (T(1) - y);
  }
};

[[maybe_unused]] const bool registered =
    RegisterUnary<ExpF, FERRY_GPU_FLOATS>("Exp") &&
    RegisterUnary<Expm1F, FERRY_GPU_FLOATS>("Expm1") &&
    RegisterUnary<LogF, FERRY_GPU_FLOATS>("Log") &&
    RegisterUnary<Log1pF, FERRY_GPU_FLOATS>("Log1p") &&
    RegisterUnary<SinF, FERRY_GPU_FLOATS>("Sin") && RegisterUnary<CosF, FERRY_GPU_FLOATS>("Cos") &&
    RegisterUnary<ErfF, FERRY_GPU_FLOATS>("Erf") &&
    RegisterUnary<TanhF, FERRY_GPU_FLOATS>("Tanh") &&
    RegisterUnary<SigmoidF, FERRY_GPU_FLOATS>("Sigmoid") &&
    RegisterSame<TanhGradF, FERRY_GPU_FLOATS>("TanhGrad") &&
    RegisterSame<SigmoidGradF, FERRY_GPU_FLOATS>("SigmoidGrad");

}  // namespace
}  // namespace gpu
}  // namespace ferry
