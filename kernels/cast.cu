// Cast on a GPU, between all numbers and bool.
#include "kernels/gpu_unary.cuh"

namespace ferry {
namespace gpu {
namespace {

// Bits of the fraction that are stored; 0 for other types.
template <typename T>
constexpr int kFractionBits = 0;
template <>
constexpr int kFractionBits<half> = 10;
template <>
constexpr int kFractionBits<bfloat16> = 7;
template <>
constexpr int kFractionBits<float> = 23;
template <>
constexpr int kFractionBits<double> = 52;

// Whether the attribute Truncate makes a difference: to bfloat16 TensorFlow truncates from float
// only, and rounds from the others.
template <typename From, typename To>
constexpr bool kMayTruncate = kFractionBits<To> != 0 && kFractionBits<From> > kFractionBits<To> &&
                              (!std::is_same_v<To, bfloat16> || std::is_same_v<From, float>);

// A number in another type. Negative floats wrap around in unsigned types as on the CPU, and those
// too large for a type of less than 32 bits are cut; others that don't fit are the nearest that do.
template <typename To, typename From>
__device__ To Convert(From x) {
  if constexpr (std::is_same_v<To, bool>) {
    return x != From(0);
  } else if constexpr (std::is_same_v<To, half> || std::is_same_v<To, bfloat16>) {
    return Narrow<To>(static_cast<float>(x));
  } else if constexpr (std::is_floating_point_v<From> && std::is_integral_v<To> && sizeof(To) < 4) {
    return static_cast<To>(static_cast<int32_t>(x));
  } else if constexpr (std::is_floating_point_v<From> && std::is_same_v<To, uint32_t>) {
    return static_cast<To>(static_cast<int64_t>(x));
  } else if constexpr (std::is_floating_point_v<From> && std::is_same_v<To, uint64_t>) {
    return x < From(0) ? static_cast<To>(static_cast<int64_t>(x)) : static_cast<To>(x);
  } else {
    return static_cast<To>(x);
  }
}

template <typename To>
struct CastF {
  template <typename T>
  __device__ static To Apply(T x) {
    return Convert<To>(x);
  }
};

// Bits are cleared first where the result is to be cut off instead of rounded.
template <typename From, typename To>
struct TruncatingCastF {
  bool Init(Setup* setup) {
    bool truncate;
    if (!setup->Attr("Truncate", &truncate)) {
      return setup->Fail(Error::kInvalidArgument, "there is no attribute Truncate");
    }
    mask = truncate ? ~Bits(0) << (kFractionBits<From> - kFractionBits<To>) : ~Bits(0);
    return true;
  }
  template <typename T>
  __device__ To Apply(T x) const {
    if constexpr (sizeof(T) == 8) {
      return Convert<To>(__longlong_as_double(__double_as_longlong(x) & mask));
    } else {
      return Convert<To>(__uint_as_float(__float_as_uint(x) & mask));
    }
  }
  using Bits = Unsigned<From>;
  Bits mask;
};

// For types of the same bits.
template <typename S>
class CastSame : public Kernel {
  bool Run(Call* c) const override {
    const Input x = c->input(0);
    void* y = c->OutputLike(0, 0);
    return y && (y == x.data || c->Copy(y, x.data, x.elements * static_cast<int64_t>(sizeof(S))));
  }
};

// Integers of one size from floats that fit are the same bits with and without a sign; and a sign
// matters only in what a number is made from.
template <typename From, typename To>
struct StoredType {
  static constexpr bool kShared = std::is_integral_v<To> && !std::is_same_v<To, bool> &&
                                  (std::is_integral_v<From> || sizeof(To) < 4);
  using type = typename std::conditional_t<kShared, StorageType<sizeof(To)>, Same<To>>::type;
};

template <typename From, typename To>
void RegisterPair() {
  Registration r;
  r.op = "Cast";
  r.types = {{"SrcT", {TypeNumber<From>::value}}, {"DstT", {TypeNumber<To>::value}}};
  if (sizeof(From) == sizeof(To)) r.in_place = {0};
  // A bool is a byte that is 0 or 1.
  using In = std::conditional_t<std::is_same_v<From, bool>, uint8_t, From>;
  using Out = typename StoredType<In, To>::type;
  if constexpr (std::is_same_v<From, To> ||
                (std::is_integral_v<In> && std::is_integral_v<Out> && sizeof(In) == sizeof(Out) &&
                 !std::is_same_v<Out, bool>)) {
    r.make = &MakeKernel<CastSame<Unsigned<From>>>;
  } else if constexpr (kMayTruncate<From, To>) {
    r.make = &MakeKernel<UnaryKernel<TruncatingCastF<From, To>, From, To>>;
  } else {
    r.make = &MakeKernel<UnaryKernel<CastF<Out>, In, Out>>;
  }
  Register(std::move(r));
}
template <typename From, typename... Tos>
void RegisterFrom() {
  (RegisterPair<From, Tos>(), ...);
}
template <typename... Ts>
bool RegisterAll() {
  (RegisterFrom<Ts, Ts...>(), ...);
  return true;
}

[[maybe_unused]] const bool registered = RegisterAll<FERRY_GPU_NUMBERS, bool>();

}  // namespace
}  // namespace gpu
}  // namespace ferry
