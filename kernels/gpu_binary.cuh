// Element-wise kernels of two inputs, with broadcasting: an op gives a function of two elements.
//
//   struct AddF {
//     template <typename T> __device__ static T Apply(T x, T y) { return x + y; }
//   };
//   static const bool add = RegisterBinary<AddF, float, half>("Add");
//
// 16-bit floats are computed as float and rounded once.
#ifndef FERRY_KERNELS_GPU_BINARY_CUH_
#define FERRY_KERNELS_GPU_BINARY_CUH_

#include "kernels/gpu.cuh"
#include "kernels/gpu_unary.cuh"

namespace ferry {
namespace gpu {

enum class Shapes {
  kBroadcast,
  kSame,      // The shapes must be equal: gradients of activations.
  kMayMisfit  // The attribute incompatible_shape_error says what happens if they don't fit.
};

template <typename F, typename T, typename Out>
__device__ inline Out ApplyBinary(const F& f, T x, T y) {
  if constexpr (std::is_same_v<Out, T>) {
    return Narrow<T>(f.template Apply<Wide<T>>(Widen(x), Widen(y)));
  } else {
    return f.template Apply<Wide<T>>(Widen(x), Widen(y));
  }
}

// z[i] = f(x[i * x_step], y[i * y_step]); steps are 0 or 1. In whole vectors while there are any.
// z may be x or y where the step is 1.
template <typename F, typename T, typename Out>
__global__ void __launch_bounds__(kThreads)
    BinaryLoop(const F f, const T* x, int x_step, const T* y, int y_step, Out* z, int64_t n,
               bool vectors) {
  constexpr int kN = kVectorOfBoth<T, Out>;
  using V = Elements<T, kN>;
  int64_t done = 0;
  if (vectors) {
    const int64_t whole = n / kN;
    done = whole * kN;
    V a, b;
#pragma unroll
    for (int k = 0; k < kN; ++k) {
      if (x_step == 0) a.v[k] = *x;
      if (y_step == 0) b.v[k] = *y;
    }
    for (int64_t i = First(); i < whole; i += Step()) {
      if (x_step) a = reinterpret_cast<const V*>(x)[i];
      if (y_step) b = reinterpret_cast<const V*>(y)[i];
      Elements<Out, kN> out;
#pragma unroll
      for (int k = 0; k < kN; ++k) out.v[k] = ApplyBinary<F, T, Out>(f, a.v[k], b.v[k]);
      reinterpret_cast<Elements<Out, kN>*>(z)[i] = out;
    }
  }
  for (int64_t i = done + First(); i < n; i += Step()) {
    z[i] = ApplyBinary<F, T, Out>(f, x[x_step ? i : 0], y[y_step ? i : 0]);
  }
}

template <typename F, typename T, typename Out, typename Index>
__global__ void __launch_bounds__(kThreads)
    BinaryBroadcastLoop(const F f, const T* x, const T* y, Out* z, int64_t n,
                        const BroadcastView b) {
  for (int64_t i = First(); i < n; i += Step()) {
    Index at[2];
    Locate<2, Index>(b, static_cast<Index>(i), at);
    z[i] = ApplyBinary<F, T, Out>(f, x[at[0]], y[at[1]]);
  }
}

// Enqueues z = f(x, y) for operands that broadcast as `b` says.
template <typename F, typename T, typename Out>
bool LaunchBinary(Call* c, const F& f, const Input& x, const Input& y, const Broadcast& b, Out* z) {
  const int64_t n = b.elements;
  if (n == 0) return true;
  const unsigned blocks = Blocks(c, n);
  const T* xp = x.as<T>();
  const T* yp = y.as<T>();
  const int x_step = x.elements == n, y_step = y.elements == n;
  if ((x_step || x.elements == 1) && (y_step || y.elements == 1)) {
    // Inputs that are part of another tensor may not be aligned.
    const bool vectors = Aligned(x_step ? xp : nullptr, y_step ? yp : nullptr, z);
    BinaryLoop<F, T, Out>
        <<<blocks, kThreads, 0, Stream(c)>>>(f, xp, x_step, yp, y_step, z, n, vectors);
  } else if (n <= std::numeric_limits<int32_t>::max()) {
    BinaryBroadcastLoop<F, T, Out, int32_t>
        <<<blocks, kThreads, 0, Stream(c)>>>(f, xp, yp, z, n, View(b));
  } else {
    BinaryBroadcastLoop<F, T, Out, int64_t>
        <<<blocks, kThreads, 0, Stream(c)>>>(f, xp, yp, z, n, View(b));
  }
  return c->Launched("BinaryLoop");
}

inline bool Fit(const Input& x, const Input& y) {
  for (int i = 1; i <= std::min(x.rank, y.rank); ++i) {
    const int64_t a = x.dims[x.rank - i], b = y.dims[y.rank - i];
    if (a != b && a != 1 && b != 1) return false;
  }
  return true;
}

// kSwap: computes f(y, x). kMisfit: with kMayMisfit, the result, one scalar, for shapes that don't
// fit and needn't.
template <typename F, typename T, typename Out, Shapes kShapes, bool kSwap, bool kMisfit>
class BinaryKernel : public Kernel {
  bool Init(Setup* setup) override {
    if (kShapes == Shapes::kMayMisfit && !setup->Attr("incompatible_shape_error", &must_fit_)) {
      return setup->Fail(Error::kInvalidArgument, "there is no attribute incompatible_shape_error");
    }
    return InitFunction(&f_, setup);
  }
  bool Run(Call* c) const override {
    const Input x = c->input(kSwap), y = c->input(!kSwap);
    if (kShapes == Shapes::kSame && !SameShape(x, y)) {
      return c->Fail(Error::kInvalidArgument, "Inputs must have the same size and shape: " +
                                                  ShapeOf(x) + " vs. " + ShapeOf(y));
    }
    if (!must_fit_ && !Fit(x, y)) {
      void* z = c->Output(0, nullptr, 0);
      return z && c->Fill(z, kMisfit, 1);
    }
    Broadcast b;
    if (!MakeBroadcast(c, {c->input(0), c->input(1)}, &b)) return false;
    if (kSwap) {
      for (int d = 0; d < b.rank; ++d) std::swap(b.strides[0][d], b.strides[1][d]);
    }
    Out* z = static_cast<Out*>(c->Output(0, b.out));
    return z && LaunchBinary<F, T, Out>(c, f_, x, y, b, z);
  }
  bool must_fit_ = true;
  F f_;
};

// The kernel that computes as In, In -> Out, for elements of type T; `attr` may be "".
template <typename F, typename T, typename In, typename Out, Shapes kShapes = Shapes::kBroadcast,
          bool kSwap = false, bool kMisfit = false>
void RegisterBinaryAs(const char* op, const char* attr = "T") {
  Registration r;
  r.op = op;
  if (*attr) r.types = {{attr, {TypeNumber<T>::value}}};
  if (sizeof(In) == sizeof(Out)) r.in_place = {0, 1};
  r.make = &MakeKernel<BinaryKernel<F, In, Out, kShapes, kSwap, kMisfit>>;
  Register(std::move(r));
}

// F::Apply(T, T) -> T.
template <typename F, typename... Ts>
bool RegisterBinary(const char* op) {
  (RegisterBinaryAs<F, Ts, Ts, Ts>(op), ...);
  return true;
}
// The same where the sign doesn't matter: integers are computed as unsigned ones.
template <typename F, typename... Ts>
bool RegisterWrappingBinary(const char* op) {
  (RegisterBinaryAs<F, Ts, Wrapping<Ts>, Wrapping<Ts>>(op), ...);
  return true;
}
// For inputs of one shape.
template <typename F, typename... Ts>
bool RegisterSame(const char* op) {
  (RegisterBinaryAs<F, Ts, Ts, Ts, Shapes::kSame>(op), ...);
  return true;
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_BINARY_CUH_
