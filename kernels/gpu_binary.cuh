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

namespace ferry {
namespace gpu {

template <typename F, typename T, typename Out>
__device__ inline Out ApplyBinary(T x, T y) {
  if constexpr (std::is_same_v<Out, T>) {
    return Narrow<T>(F::template Apply<Wide<T>>(Widen(x), Widen(y)));
  } else {
    return F::template Apply<Wide<T>>(Widen(x), Widen(y));
  }
}

// Both operands have the output's shape (kSteps 3), or one of them is a single element (1: only x
// advances, 2: only y). In whole vectors while there are any.
template <typename F, typename T, typename Out, int kSteps>
__global__ void __launch_bounds__(kThreads)
    BinaryFlatKernel(const T* x, const T* y, Out* z, int64_t n, bool vectors) {
  constexpr int kN = kVector<T>;
  int64_t done = 0;
  if (vectors) {
    done = n / kN * kN;
    for (int64_t i = First(); i < n / kN; i += Step()) {
      Vector<T> a, b;
      if (kSteps & 1) a = reinterpret_cast<const Vector<T>*>(x)[i];
      if (kSteps & 2) b = reinterpret_cast<const Vector<T>*>(y)[i];
      const T x0 = *x, y0 = *y;
      struct alignas(sizeof(Out) * kN) {
        Out v[kN];
      } out;
#pragma unroll
      for (int k = 0; k < kN; ++k) {
        out.v[k] = ApplyBinary<F, T, Out>(kSteps & 1 ? a.v[k] : x0, kSteps & 2 ? b.v[k] : y0);
      }
      reinterpret_cast<decltype(out)*>(z)[i] = out;
    }
  }
  for (int64_t i = done + First(); i < n; i += Step()) {
    z[i] = ApplyBinary<F, T, Out>(x[kSteps & 1 ? i : 0], y[kSteps & 2 ? i : 0]);
  }
}

template <typename F, typename T, typename Out, typename Index>
__global__ void __launch_bounds__(kThreads)
    BinaryBroadcastKernel(const T* x, const T* y, Out* z, int64_t n, const BroadcastView b) {
  for (int64_t i = First(); i < n; i += Step()) {
    Index at[2];
    Locate<2, Index>(b, static_cast<Index>(i), at);
    z[i] = ApplyBinary<F, T, Out>(x[at[0]], y[at[1]]);
  }
}

// Out: T, or bool for comparisons.
template <typename F, typename T, typename Out>
class BinaryKernel : public Kernel {
  bool Run(Call* c) const override {
    const Input x = c->input(0), y = c->input(1);
    Broadcast b;
    if (!MakeBroadcast(c, {x, y}, &b)) return false;
    Out* z = static_cast<Out*>(c->Output(0, b.out));
    if (!z) return false;
    if (b.elements == 0) return true;
    const unsigned blocks = Blocks(c, b.elements);
    const T* xp = x.as<T>();
    const T* yp = y.as<T>();
    const bool x_steps = x.elements == b.elements, y_steps = y.elements == b.elements;
    // Outputs are aligned as the allocator aligns; inputs that are part of another tensor may not be.
    const bool vectors = Aligned(x_steps ? xp : nullptr, y_steps ? yp : nullptr, z);
    if (x_steps && y_steps) {
      BinaryFlatKernel<F, T, Out, 3>
          <<<blocks, kThreads, 0, Stream(c)>>>(xp, yp, z, b.elements, vectors);
    } else if (x_steps && y.elements == 1) {
      BinaryFlatKernel<F, T, Out, 1>
          <<<blocks, kThreads, 0, Stream(c)>>>(xp, yp, z, b.elements, vectors);
    } else if (y_steps && x.elements == 1) {
      BinaryFlatKernel<F, T, Out, 2>
          <<<blocks, kThreads, 0, Stream(c)>>>(xp, yp, z, b.elements, vectors);
    } else if (b.elements <= std::numeric_limits<int32_t>::max()) {
      BinaryBroadcastKernel<F, T, Out, int32_t>
          <<<blocks, kThreads, 0, Stream(c)>>>(xp, yp, z, b.elements, View(b));
    } else {
      BinaryBroadcastKernel<F, T, Out, int64_t>
          <<<blocks, kThreads, 0, Stream(c)>>>(xp, yp, z, b.elements, View(b));
    }
    return c->Launched("BinaryKernel");
  }
};

// Out: T, or bool for comparisons.
template <typename F, typename Out, typename... Ts>
bool RegisterBinaryTo(const char* op, const char* attr = "T") {
  (Register(Registration{op,
                         {{attr, {TypeNumber<Ts>::value}}},
                         {},
                         {0, 1},
                         true,
                         &MakeKernel<BinaryKernel<F, Ts, Out>>}),
   ...);
  return true;
}

template <typename F, typename... Ts>
bool RegisterBinary(const char* op, const char* attr = "T") {
  (Register(Registration{op,
                         {{attr, {TypeNumber<Ts>::value}}},
                         {},
                         {0, 1},
                         true,
                         &MakeKernel<BinaryKernel<F, Ts, Ts>>}),
   ...);
  return true;
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_BINARY_CUH_
