// ZerosLike and OnesLike on a GPU.
#include "kernels/gpu.cuh"

namespace ferry {
namespace gpu {
namespace {

// All bits zero are 0 and false.
template <typename S>
class ZerosLike : public Kernel {
  bool Run(Call* c) const override {
    void* y = c->OutputLike(0, 0);
    return y && c->Fill(y, 0, c->input(0).elements * static_cast<int64_t>(sizeof(S)));
  }
};

template <typename S>
__global__ void __launch_bounds__(kThreads) FillLoop(S value, S* y, int64_t n, bool vectors) {
  constexpr int kN = kVector<S>;
  Vector<S> v;
#pragma unroll
  for (int k = 0; k < kN; ++k) v.v[k] = value;
  const int64_t whole = vectors ? n / kN : 0;
  for (int64_t i = First(); i < whole; i += Step()) reinterpret_cast<Vector<S>*>(y)[i] = v;
  for (int64_t i = whole * kN + First(); i < n; i += Step()) y[i] = value;
}

// S has the bits of T.
template <typename T, typename S>
class OnesLike : public Kernel {
  bool Run(Call* c) const override {
    const Input x = c->input(0);
    S* y = static_cast<S*>(c->OutputLike(0, 0));
    if (!y) return false;
    if (x.elements == 0) return true;
    union Bits {
      Bits() : value(Narrow<T>(1)) {}
      T value;
      S bits;
    };
    const Bits one;
    FillLoop<S>
        <<<Blocks(c, x.elements), kThreads, 0, Stream(c)>>>(one.bits, y, x.elements, Aligned(y));
    return c->Launched("FillLoop");
  }
};

template <typename... Ts>
bool RegisterLike() {
  (Register(Registration{"ZerosLike",
                         {{"T", {TypeNumber<Ts>::value}}},
                         {},
                         {0},
                         true,
                         &MakeKernel<ZerosLike<Unsigned<Ts>>>}),
   ...);
  (Register(Registration{"OnesLike",
                         {{"T", {TypeNumber<Ts>::value}}},
                         {},
                         {0},
                         true,
                         &MakeKernel<OnesLike<Ts, Unsigned<Ts>>>}),
   ...);
  return true;
}

[[maybe_unused]] const bool registered = RegisterLike<FERRY_GPU_NUMBERS, bool>();

}  // namespace
}  // namespace gpu
}  // namespace ferry
