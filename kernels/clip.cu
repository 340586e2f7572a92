// ClipByValue on a GPU.
#include "kernels/gpu_binary.cuh"

namespace ferry {
namespace gpu {
namespace {

// NaN stays NaN.
template <typename T>
__device__ T Clip(T x, T least, T most) {
  const T y = Widen(x) < Widen(least) ? least : x;
  return Widen(most) < Widen(y) ? most : y;
}

// Limits advance by their steps, 0 or 1. In whole vectors while there are any, if the limits stay.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    ClipLoop(const T* x, const T* low, int low_step, const T* high, int high_step, T* y, int64_t n,
             bool vectors) {
  int64_t done = 0;
  if (vectors) {
    const int64_t whole = n / kVector<T>;
    done = whole * kVector<T>;
    const T least = *low, most = *high;
    for (int64_t i = First(); i < whole; i += Step()) {
      Vector<T> v = reinterpret_cast<const Vector<T>*>(x)[i];
#pragma unroll
      for (int k = 0; k < kVector<T>; ++k) v.v[k] = Clip(v.v[k], least, most);
      reinterpret_cast<Vector<T>*>(y)[i] = v;
    }
  }
  for (int64_t i = done + First(); i < n; i += Step()) {
    y[i] = Clip(x[i], low[low_step ? i : 0], high[high_step ? i : 0]);
  }
}

template <typename T>
class ClipKernel : public Kernel {
  bool Run(Call* c) const override {
    const Input x = c->input(0);
    int step[3] = {1, 0, 0};
    for (int k = 1; k < 3; ++k) {
      const Input limit = c->input(k);
      if (SameShape(limit, x)) {
        step[k] = 1;
      } else if (limit.elements != 1) {
        return c->Fail(Error::kInvalidArgument,
                       "clip_value_min and clip_value_max must be either of the same shape as "
                       "input, or a scalar. input shape: " +
                           ShapeOf(x) + ", " + (k == 1 ? "clip_value_min" : "clip_value_max") +
                           " shape: " + ShapeOf(limit));
      }
    }
    T* y = static_cast<T*>(c->OutputLike(0, 0));
    if (!y) return false;
    if (x.elements == 0) return true;
    const bool vectors = step[1] == 0 && step[2] == 0 && Aligned(x.data, y);
    ClipLoop<T><<<Blocks(c, x.elements), kThreads, 0, Stream(c)>>>(x.as<T>(), c->input(1).as<T>(),
                                                                   step[1], c->input(2).as<T>(),
                                                                   step[2], y, x.elements, vectors);
    return c->Launched("ClipLoop");
  }
};

[[maybe_unused]] const bool registered =
    Register<ClipKernel, FERRY_GPU_NUMBERS>("ClipByValue", "T", {{0}, {}, true});

}  // namespace
}  // namespace gpu
}  // namespace ferry
