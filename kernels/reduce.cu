// Sum, Mean, Prod, Max, Min, All and Any on a GPU. Results are those of reduce.h: half and bfloat16
// are reduced as float, integers as 64-bit numbers.
#include <vector>

#include "kernels/gpu_reduce.cuh"

namespace ferry {
namespace gpu {
namespace {

template <typename T>
using AccOf =
    std::conditional_t<std::is_integral_v<T>,
                       std::conditional_t<std::is_same_v<T, bool>, int32_t, int64_t>, Wide<T>>;

// Infinity, where there is one.
template <typename A>
__device__ A Greatest() {
  if constexpr (std::is_same_v<A, float>) {
    return __int_as_float(0x7f800000);
  } else if constexpr (std::is_same_v<A, double>) {
    return __longlong_as_double(0x7ff0000000000000);
  } else {
    static_assert(std::is_integral_v<A>);
    const int bits = 8 * static_cast<int>(sizeof(A)) - (std::is_signed_v<A> ? 1 : 0);
    return static_cast<A>(~uint64_t{0} >> (64 - bits));
  }
}
template <typename A>
__device__ A Least() {
  if constexpr (std::is_integral_v<A>) {
    return std::is_signed_v<A> ? static_cast<A>(-Greatest<A>() - 1) : A(0);
  } else {
    return -Greatest<A>();
  }
}

template <typename T>
struct ReductionOf {
  using In = T;
  using Acc = AccOf<T>;
  static constexpr bool kPlain = std::is_same_v<Acc, T>;
  __device__ static Acc Load(T x, int64_t) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<Acc>(x);
    } else {
      return Widen(x);
    }
  }
  struct Result {
    bool mean;
    int64_t count;  // Elements in one result.
    __device__ void Store(void* out, int64_t i, Acc acc) const {
      T* const to = static_cast<T*>(out) + i;
      if constexpr (std::is_integral_v<T>) {
        if (mean) acc = count == 0 ? 0 : acc / static_cast<Acc>(count);
        *to = static_cast<T>(acc);
      } else {
        *to = Narrow<T>(mean ? acc / static_cast<Acc>(count) : acc);
      }
    }
  };
};

// Integers wrap around.
template <typename T>
struct SumOf : ReductionOf<T> {
  using Acc = AccOf<T>;
  __device__ static Acc Identity() { return Acc(0); }
  __device__ static Acc Combine(Acc x, Acc y) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<Acc>(static_cast<uint64_t>(x) + static_cast<uint64_t>(y));
    } else {
      return x + y;
    }
  }
};
template <typename T>
struct ProductOf : ReductionOf<T> {
  using Acc = AccOf<T>;
  __device__ static Acc Identity() { return Acc(1); }
  __device__ static Acc Combine(Acc x, Acc y) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<Acc>(static_cast<uint64_t>(x) * static_cast<uint64_t>(y));
    } else {
      return x * y;
    }
  }
};
// NaN if either is.
template <typename T>
struct MaxOf : ReductionOf<T> {
  using Acc = AccOf<T>;
  // What Max of nothing is: an integer of type T.
  using Of = std::conditional_t<std::is_integral_v<T>, T, Acc>;
  __device__ static Acc Identity() { return static_cast<Acc>(Least<Of>()); }
  __device__ static Acc Combine(Acc x, Acc y) {
    const Acc most = x > y ? x : y;
    return x != x ? x : most;
  }
};
template <typename T>
struct MinOf : ReductionOf<T> {
  using Acc = AccOf<T>;
  using Of = std::conditional_t<std::is_integral_v<T>, T, Acc>;
  __device__ static Acc Identity() { return static_cast<Acc>(Greatest<Of>()); }
  __device__ static Acc Combine(Acc x, Acc y) {
    const Acc least = x < y ? x : y;
    return x != x ? x : least;
  }
};
template <typename T>
struct AllOf : ReductionOf<T> {
  __device__ static int32_t Identity() { return 1; }
  __device__ static int32_t Combine(int32_t x, int32_t y) { return x & y; }
};
template <typename T>
struct AnyOf : ReductionOf<T> {
  __device__ static int32_t Identity() { return 0; }
  __device__ static int32_t Combine(int32_t x, int32_t y) { return x | y; }
};

// The stages from the last reduced dimension to the first.
std::vector<Stage> Stages(const Reduction& r) {
  std::vector<Stage> stages;
  if (r.reduced_elements == 0) {
    stages.push_back({r.out_elements, 0, 1});
    return stages;
  }
  struct Dim {
    int64_t size;
    bool kept;
  };
  std::vector<Dim> dims;
  for (int i = 0; i < r.rank; ++i) dims.push_back({r.dims[i], r.kept[i]});
  for (size_t last = dims.size(); last-- > 0;) {
    if (dims[last].kept) continue;
    Stage s = {1, dims[last].size, 1};
    for (size_t i = 0; i < last; ++i) s.before *= dims[i].size;
    for (size_t i = last + 1; i < dims.size(); ++i) s.after *= dims[i].size;
    stages.push_back(s);
    dims.erase(dims.begin() + static_cast<std::ptrdiff_t>(last));
  }
  if (stages.empty()) stages.push_back({r.out_elements, 1, 1});
  return stages;
}

template <typename Op, bool kMean>
class Reduce : public Kernel {
  bool Init(Setup* setup) override {
    return setup->Attr("keep_dims", &keep_dims_) ||
           setup->Fail(Error::kInvalidArgument, "the attribute keep_dims is missing");
  }
  bool Run(Call* c) const override {
    const Input x = c->input(0);
    std::vector<int64_t> axes;
    Reduction r;
    if (!c->HostInts(1, &axes) || !MakeReduction(c, x, axes, keep_dims_, &r)) return false;
    void* const out = c->Output(0, r.out);
    if (!out) return false;
    return r.out_elements == 0 ||
           RunStages<Op>(c, x.data, Stages(r), out, {kMean, r.reduced_elements});
  }
  bool keep_dims_ = false;
};

template <typename T>
using ReduceSum = Reduce<SumOf<T>, false>;
template <typename T>
using ReduceMean = Reduce<SumOf<T>, true>;
template <typename T>
using ReduceProd = Reduce<ProductOf<T>, false>;
template <typename T>
using ReduceMax = Reduce<MaxOf<T>, false>;
template <typename T>
using ReduceMin = Reduce<MinOf<T>, false>;

#define FERRY_REDUCED FERRY_GPU_FLOATS, int32_t, int64_t
const Options kAxes = {{}, {"reduction_indices"}};
[[maybe_unused]] const bool registered =
    Register<ReduceSum, FERRY_REDUCED>("Sum", "T", kAxes) &&
    Register<ReduceMean, FERRY_REDUCED>("Mean", "T", kAxes) &&
    Register<ReduceProd, FERRY_REDUCED>("Prod", "T", kAxes) &&
    Register<ReduceMax, FERRY_REDUCED>("Max", "T", kAxes) &&
    Register<ReduceMin, FERRY_REDUCED>("Min", "T", kAxes) &&
    Register({"All", {}, kAxes.host_memory, {}, true, &MakeKernel<Reduce<AllOf<bool>, false>>}) &&
    Register({"Any", {}, kAxes.host_memory, {}, true, &MakeKernel<Reduce<AnyOf<bool>, false>>});

}  // namespace
}  // namespace gpu
}  // namespace ferry
