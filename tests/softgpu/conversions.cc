// cvt between all types. Keys are "cvt.<to>.<from>", with "sat." or the rounding to an integer
// (rni, rzi, rmi, rpi) before the types where that matters.
#include <algorithm>
#include <cmath>
#include <limits>
#include <tuple>

#include "tests/softgpu/program.h"
#include "tests/softgpu/small_floats.h"

namespace softgpu {
namespace {

template <typename D, typename S>
D Cast(S s) {
  return static_cast<D>(s);
}

template <typename D, typename S>
D CastSaturated(S s) {
  const __int128 wide = s;
  return static_cast<D>(std::min<__int128>(std::max<__int128>(wide, std::numeric_limits<D>::min()),
                                           std::numeric_limits<D>::max()));
}

enum Rounding { kNearest, kZero, kDown, kUp };

template <Rounding mode, typename F>
F RoundToInteger(F x) {
  switch (mode) {
    case kNearest:
      return std::nearbyint(x);
    case kZero:
      return std::trunc(x);
    case kDown:
      return std::floor(x);
    case kUp:
      return std::ceil(x);
  }
}

// Out of range gives the nearest, NaN zero.
template <Rounding mode, typename D, typename S>
D FloatToInteger(S s) {
  const auto x = RoundToInteger<mode>(ToFloat(s));
  using F = decltype(ToFloat(s));
  // Powers of two, which a float can hold where it can't hold the greatest integer.
  const F low = static_cast<F>(std::numeric_limits<D>::min());
  const F end = static_cast<F>(std::numeric_limits<D>::max() / 2 + 1) * 2;
  if (!(x > low)) return x == x ? std::numeric_limits<D>::min() : D{0};
  return x < end ? static_cast<D>(x) : std::numeric_limits<D>::max();
}
template <Rounding mode, typename T>
T FloatToWholeFloat(T x) {
  return FromFloat<T>(RoundToInteger<mode>(ToFloat(x)));
}
template <Rounding mode>
double DoubleToWhole(double x) {
  return RoundToInteger<mode>(x);
}

template <typename D, typename S>
D IntegerToFloat(S s) {
  if constexpr (sizeof(D) >= 4) {
    return static_cast<D>(s);
  } else {
    return FromDouble<D>(static_cast<double>(s));
  }
}
template <typename D, typename S>
D FloatToFloat(S s) {
  if constexpr (std::is_same_v<S, double>) {
    return FromDouble<D>(s);
  } else {
    return FromFloat<D>(ToFloat(s));
  }
}

// The upper half comes from the first source.
template <typename T>
uint32_t JoinFloats(float high, float low) {
  return uint32_t{FromFloat<T>(high).bits} << 16 | FromFloat<T>(low).bits;
}
template <typename T>
uint32_t JoinFloatsRelu(float high, float low) {
  return JoinFloats<T>(high > 0 || high != high ? high : 0, low > 0 || low != low ? low : 0);
}

// To 16 bits in another direction than to the nearest: one step back where that went too far.
template <Rounding mode, typename D, typename S>
D ToSmallFloat(S s) {
  double x;
  if constexpr (std::is_integral_v<S>) {
    x = static_cast<double>(s);
  } else {
    x = ToFloat(s);
  }
  D d = FromDouble<D>(x);
  const double v = ToFloat(d);
  const bool far = mode == kZero ? std::fabs(v) > std::fabs(x) : mode == kDown ? v > x : v < x;
  if (!far) return d;
  // The bits are a sign and a magnitude.
  const bool back = mode == kZero || (mode == kDown) == (v > 0);
  if (v == 0) return {static_cast<uint16_t>(mode == kDown ? 0x8001 : 0x0001)};
  d.bits = static_cast<uint16_t>(back ? d.bits - 1 : d.bits + 1);
  return d;
}

template <typename... T>
struct Types {};
template <typename F, typename... T>
void ForTypes(Types<T...>, F f) {
  (f(T{}), ...);
}

using Integers = Types<int8_t, uint8_t, int16_t, uint16_t, int32_t, uint32_t, int64_t, uint64_t>;
using Floats = Types<Half, Bfloat, float, double>;

const char* Name(int8_t) { return "s8"; }
const char* Name(uint8_t) { return "u8"; }
const char* Name(int16_t) { return "s16"; }
const char* Name(uint16_t) { return "u16"; }
const char* Name(int32_t) { return "s32"; }
const char* Name(uint32_t) { return "u32"; }
const char* Name(int64_t) { return "s64"; }
const char* Name(uint64_t) { return "u64"; }
const char* Name(Half) { return "f16"; }
const char* Name(Bfloat) { return "bf16"; }
const char* Name(float) { return "f32"; }
const char* Name(double) { return "f64"; }

}  // namespace

void AddConversions(OperationTable* table) {
  OperationTable& t = *table;
  const auto key = [](const char* rounding, const char* to, const char* from) {
    return std::string("cvt.") + rounding + to + "." + from;
  };
  ForTypes(Integers{}, [&](auto d) {
    using D = decltype(d);
    ForTypes(Integers{}, [&](auto s) {
      using S = decltype(s);
      t[key("", Name(d), Name(s))] = Each<&Cast<D, S>>();
      t[key("sat.", Name(d), Name(s))] = Each<&CastSaturated<D, S>>();
    });
    ForTypes(Floats{}, [&](auto s) {
      using S = decltype(s);
      t[key("rni.", Name(d), Name(s))] = Each<&FloatToInteger<kNearest, D, S>>();
      t[key("rzi.", Name(d), Name(s))] = Each<&FloatToInteger<kZero, D, S>>();
      t[key("rmi.", Name(d), Name(s))] = Each<&FloatToInteger<kDown, D, S>>();
      t[key("rpi.", Name(d), Name(s))] = Each<&FloatToInteger<kUp, D, S>>();
      t[key("", Name(s), Name(d))] = Each<&IntegerToFloat<S, D>>();
    });
  });
  ForTypes(Floats{}, [&](auto d) {
    using D = decltype(d);
    ForTypes(Floats{}, [&](auto s) {
      using S = decltype(s);
      t[key("", Name(d), Name(s))] = Each<&FloatToFloat<D, S>>();
    });
  });
  ForTypes(Types<Half, Bfloat, float>{}, [&](auto f) {
    using F = decltype(f);
    t[key("rni.", Name(f), Name(f))] = Each<&FloatToWholeFloat<kNearest, F>>();
    t[key("rzi.", Name(f), Name(f))] = Each<&FloatToWholeFloat<kZero, F>>();
    t[key("rmi.", Name(f), Name(f))] = Each<&FloatToWholeFloat<kDown, F>>();
    t[key("rpi.", Name(f), Name(f))] = Each<&FloatToWholeFloat<kUp, F>>();
  });
  t["cvt.rni.f64.f64"] = Each<&DoubleToWhole<kNearest>>();
  t["cvt.rzi.f64.f64"] = Each<&DoubleToWhole<kZero>>();
  t["cvt.rmi.f64.f64"] = Each<&DoubleToWhole<kDown>>();
  t["cvt.rpi.f64.f64"] = Each<&DoubleToWhole<kUp>>();
  t["cvt.f16x2.f32"] = Each<&JoinFloats<Half>>();
  t["cvt.bf16x2.f32"] = Each<&JoinFloats<Bfloat>>();
  t["cvt.relu.f16x2.f32"] = Each<&JoinFloatsRelu<Half>>();
  t["cvt.relu.bf16x2.f32"] = Each<&JoinFloatsRelu<Bfloat>>();
  ForTypes(Types<Half, Bfloat>{}, [&](auto d) {
    using D = decltype(d);
    const auto add = [&](auto s) {
      using S = decltype(s);
      t[key("rz.", Name(d), Name(s))] = Each<&ToSmallFloat<kZero, D, S>>();
      t[key("rm.", Name(d), Name(s))] = Each<&ToSmallFloat<kDown, D, S>>();
      t[key("rp.", Name(d), Name(s))] = Each<&ToSmallFloat<kUp, D, S>>();
    };
    ForTypes(Integers{}, add);
    ForTypes(Types<float, double>{}, add);
  });
}

}  // namespace softgpu
