// Element-wise kernels of one input: an op gives a function of an element.
//
//   struct SquareF {
//     template <typename T> __device__ static T Apply(T x) { return x * x; }
//   };
//   static const bool square = RegisterUnary<SquareF, float, half>("Square");
//
// 16-bit floats are computed as float and rounded once.
#ifndef FERRY_KERNELS_GPU_UNARY_CUH_
#define FERRY_KERNELS_GPU_UNARY_CUH_

#include "kernels/gpu.cuh"

namespace ferry {
namespace gpu {

// A function with attributes has a method bool Init(Setup*) and goes to the device by value.
template <typename F, typename = void>
struct HasInit : std::false_type {};
template <typename F>
struct HasInit<F, std::void_t<decltype(std::declval<F&>().Init(static_cast<Setup*>(nullptr)))>>
    : std::true_type {};
template <typename F>
bool InitFunction(F* f, Setup* setup) {
  if constexpr (HasInit<F>::value) {
    return f->Init(setup);
  } else {
    return true;
  }
}

template <typename F, typename In, typename Out>
__device__ inline Out ApplyUnary(const F& f, In x) {
  if constexpr (std::is_same_v<Out, In>) {
    return Narrow<In>(f.template Apply<Wide<In>>(Widen(x)));
  } else {
    return f.template Apply<Wide<In>>(Widen(x));
  }
}

// In whole vectors while there are any. y may be x.
template <typename F, typename In, typename Out>
__global__ void __launch_bounds__(kThreads)
    UnaryLoop(const F f, const In* x, Out* y, int64_t n, bool vectors) {
  constexpr int kN = kVectorOfBoth<In, Out>;
  int64_t done = 0;
  if (vectors) {
    const int64_t whole = n / kN;
    done = whole * kN;
    for (int64_t i = First(); i < whole; i += Step()) {
      const Elements<In, kN> in = reinterpret_cast<const Elements<In, kN>*>(x)[i];
      Elements<Out, kN> out;
#pragma unroll
      for (int k = 0; k < kN; ++k) out.v[k] = ApplyUnary<F, In, Out>(f, in.v[k]);
      reinterpret_cast<Elements<Out, kN>*>(y)[i] = out;
    }
  }
  for (int64_t i = done + First(); i < n; i += Step()) y[i] = ApplyUnary<F, In, Out>(f, x[i]);
}

template <typename F, typename In, typename Out>
class UnaryKernel : public Kernel {
  bool Init(Setup* setup) override { return InitFunction(&f_, setup); }
  bool Run(Call* c) const override {
    const Input x = c->input(0);
    Out* y = static_cast<Out*>(c->OutputLike(0, 0));
    if (!y) return false;
    if (x.elements == 0) return true;
    UnaryLoop<F, In, Out><<<Blocks(c, x.elements), kThreads, 0, Stream(c)>>>(
        f_, x.as<In>(), y, x.elements, Aligned(x.data, y));
    return c->Launched("UnaryLoop");
  }
  F f_;
};

// The kernel that computes as In -> Out, for elements of type T; `attr` may be "".
template <typename F, typename T, typename In, typename Out>
void RegisterUnaryAs(const char* op, const char* attr = "T") {
  Registration r;
  r.op = op;
  if (*attr) r.types = {{attr, {TypeNumber<T>::value}}};
  if (sizeof(In) == sizeof(Out)) r.in_place = {0};
  r.make = &MakeKernel<UnaryKernel<F, In, Out>>;
  Register(std::move(r));
}

// F::Apply(T) -> T.
template <typename F, typename... Ts>
bool RegisterUnary(const char* op) {
  (RegisterUnaryAs<F, Ts, Ts, Ts>(op), ...);
  return true;
}
// The same where the sign doesn't matter: integers are computed as unsigned ones.
template <typename F, typename... Ts>
bool RegisterWrappingUnary(const char* op) {
  (RegisterUnaryAs<F, Ts, Wrapping<Ts>, Wrapping<Ts>>(op), ...);
  return true;
}
// F::Apply(T) -> bool.
template <typename F, typename... Ts>
bool RegisterPredicate(const char* op) {
  (RegisterUnaryAs<F, Ts, Ts, bool>(op), ...);
  return true;
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_UNARY_CUH_
