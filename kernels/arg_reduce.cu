// ArgMax and ArgMin on a GPU.
#include "kernels/gpu_checks.h"
#include "kernels/gpu_reduce.cuh"

namespace ferry {
namespace gpu {

// A value and where it stands.
template <typename C>
struct Placed {
  C value;
  int64_t at;
};

template <typename C>
__device__ Placed<C> ShuffleXor(Placed<C> v, int mask) {
  return {ShuffleXor(v.value, mask), ShuffleXor(v.at, mask)};
}

namespace {

// What no value is better than at first: NaN never is, and where none is, the place is 0.
template <typename C, bool kMax>
__device__ C Worst() {
  if constexpr (std::is_same_v<C, float>) return __int_as_float(kMax ? 0xff800000 : 0x7f800000);
  if constexpr (std::is_same_v<C, double>) {
    return __longlong_as_double(kMax ? 0xfff0000000000000 : 0x7ff0000000000000);
  }
  if constexpr (std::is_same_v<C, int32_t>) return kMax ? INT32_MIN : INT32_MAX;
  if constexpr (std::is_same_v<C, int64_t>) return kMax ? INT64_MIN : INT64_MAX;
}

template <typename T, bool kMax>
struct BestOf {
  using In = T;
  using C = Wide<T>;
  using Acc = Placed<C>;
  static constexpr bool kPlain = false;
  __device__ static Acc Identity() { return {Worst<C, kMax>(), 0}; }
  __device__ static Acc Load(T x, int64_t r) {
    const C v = Widen(x), worst = Worst<C, kMax>();
    return (kMax ? v > worst : v < worst) ? Acc{v, r} : Identity();
  }
  // The first of equal ones.
  __device__ static Acc Combine(Acc x, Acc y) {
    const bool second = kMax ? y.value > x.value : y.value < x.value;
    return second || (y.value == x.value && y.at < x.at) ? y : x;
  }
  struct Result {
    DType type;
    __device__ void Store(void* out, int64_t i, Acc acc) const {
      switch (type) {
        case DType::kInt64:
          static_cast<int64_t*>(out)[i] = acc.at;
          break;
        case DType::kInt32:
          static_cast<int32_t*>(out)[i] = static_cast<int32_t>(acc.at);
          break;
        default:  // int16 and uint16.
          static_cast<uint16_t*>(out)[i] = static_cast<uint16_t>(acc.at);
      }
    }
  };
};

template <typename T, bool kMax>
class ArgReduce : public Kernel {
  bool Run(Call* c) const override {
    ArgSizes s;
    if (!CheckArgReduce(c, &s)) return false;
    void* const out = c->Output(0, s.out);
    if (!out) return false;
    if (s.before == 0 || s.after == 0) return true;
    return RunStages<BestOf<T, kMax>>(c, c->input(0).data, {{s.before, s.reduced, s.after}}, out,
                                      {c->output_type(0)});
  }
};

template <typename T>
using ArgMax = ArgReduce<T, true>;
template <typename T>
using ArgMin = ArgReduce<T, false>;

const Options kDimension = {{}, {"dimension"}};
[[maybe_unused]] const bool registered =
    Register<ArgMax, FERRY_GPU_FLOATS, int32_t, int64_t>("ArgMax", "T", kDimension) &&
    Register<ArgMin, FERRY_GPU_FLOATS, int32_t, int64_t>("ArgMin", "T", kDimension);

}  // namespace
}  // namespace gpu
}  // namespace ferry
