// AddN on a GPU.
#include "kernels/gpu.cuh"

namespace ferry {
namespace gpu {
namespace {

// As many inputs are added in one launch; their addresses are its arguments.
constexpr int kMost = 128;
struct Pointers {
  const void* p[kMost];
};

// From the first input to the last. out may be the first. In whole vectors while there are any.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    AddNLoop(const Pointers in, int count, T* out, int64_t n, bool vectors) {
  constexpr int kN = kVector<T>;
  int64_t done = 0;
  if (vectors) {
    const int64_t whole = n / kN;
    done = whole * kN;
    for (int64_t i = First(); i < whole; i += Step()) {
      Vector<T> v = static_cast<const Vector<T>*>(in.p[0])[i];
      Sum<T> sum[kN];
#pragma unroll
      for (int k = 0; k < kN; ++k) sum[k] = Widen(v.v[k]);
      for (int j = 1; j < count; ++j) {
        v = static_cast<const Vector<T>*>(in.p[j])[i];
#pragma unroll
        for (int k = 0; k < kN; ++k) sum[k] += Widen(v.v[k]);
      }
#pragma unroll
      for (int k = 0; k < kN; ++k) v.v[k] = Narrow<T>(sum[k]);
      reinterpret_cast<Vector<T>*>(out)[i] = v;
    }
  }
  for (int64_t i = done + First(); i < n; i += Step()) {
    Sum<T> sum = Widen(static_cast<const T*>(in.p[0])[i]);
    for (int j = 1; j < count; ++j) sum += Widen(static_cast<const T*>(in.p[j])[i]);
    out[i] = Narrow<T>(sum);
  }
}

// 16-bit floats are added in float and rounded once in kMost inputs.
template <typename T>
class AddNKernel : public Kernel {
  bool Init(Setup* setup) override {
    name_ = setup->node_name();
    return true;
  }
  bool Run(Call* c) const override {
    const Input first = c->input(0);
    for (int k = 1; k < c->num_inputs(); ++k) {
      const Input in = c->input(k);
      if (!SameShape(in, first)) {
        return c->Fail(Error::kInvalidArgument,
                       "Inputs to operation " + name_ +
                           " of type AddN must have the same size and shape. Input 0: " +
                           ShapeOf(first) + " != input " + std::to_string(k) + ": " + ShapeOf(in));
      }
    }
    T* out = static_cast<T*>(c->OutputLike(0, 0));
    if (!out) return false;
    const int64_t n = first.elements;
    if (n == 0) return true;
    int next = 0;
    do {
      Pointers in;
      int count = 0;
      if (next > 0) in.p[count++] = out;  // The sum so far.
      bool vectors = Aligned(out);
      while (count < kMost && next < c->num_inputs()) {
        const void* p = c->input(next++).data;
        vectors = vectors && Aligned(p);
        in.p[count++] = p;
      }
      AddNLoop<T><<<Blocks(c, n), kThreads, 0, Stream(c)>>>(in, count, out, n, vectors);
      if (!c->Launched("AddNLoop")) return false;
    } while (next < c->num_inputs());
    return true;
  }
  std::string name_;
};

template <typename T>
using WrappingAddN = AddNKernel<Wrapping<T>>;

[[maybe_unused]] const bool registered =
    Register<WrappingAddN, FERRY_GPU_NUMBERS>("AddN", "T", {{0}, {}, true});

}  // namespace
}  // namespace gpu
}  // namespace ferry
