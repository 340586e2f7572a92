// Floating-point arithmetic: double, float, half, bfloat16, and pairs of these.
#include <immintrin.h>

#include <cmath>
#include <tuple>

#include "tests/softgpu/program.h"
#include "tests/softgpu/small_floats.h"

namespace softgpu {
namespace {

struct Add {
  template <typename T>
  static T Of(T a, T b) {
    return a + b;
  }
};
struct Subtract {
  template <typename T>
  static T Of(T a, T b) {
    return a - b;
  }
};
struct Multiply {
  template <typename T>
  static T Of(T a, T b) {
    return a * b;
  }
};
struct Divide {
  template <typename T>
  static T Of(T a, T b) {
    return a / b;
  }
};
// Of a number and a NaN the number; -0 is less than +0.
struct Least {
  template <typename T>
  static T Of(T a, T b) {
    const T r = a < b || b != b ? a : b;
    return a == b ? (std::signbit(a) ? a : b) : r;
  }
};
struct Greatest {
  template <typename T>
  static T Of(T a, T b) {
    const T r = a > b || b != b ? a : b;
    return a == b ? (std::signbit(a) ? b : a) : r;
  }
};
struct LeastNan {
  template <typename T>
  static T Of(T a, T b) {
    return a != a || b != b ? static_cast<T>(NAN) : Least::Of(a, b);
  }
};
struct GreatestNan {
  template <typename T>
  static T Of(T a, T b) {
    return a != a || b != b ? static_cast<T>(NAN) : Greatest::Of(a, b);
  }
};

template <typename T, typename F>
T Apply2(T a, T b) {
  return FromFloat<T>(F::Of(ToFloat(a), ToFloat(b)));
}
template <>
double Apply2<double, Add>(double a, double b) {
  return a + b;
}
template <>
double Apply2<double, Subtract>(double a, double b) {
  return a - b;
}
template <>
double Apply2<double, Multiply>(double a, double b) {
  return a * b;
}
template <>
double Apply2<double, Divide>(double a, double b) {
  return a / b;
}
template <>
double Apply2<double, Least>(double a, double b) {
  return Least::Of(a, b);
}
template <>
double Apply2<double, Greatest>(double a, double b) {
  return Greatest::Of(a, b);
}

template <typename T>
T MultiplyAdd(T a, T b, T c) {
  if constexpr (sizeof(T) == 2) {
    // The product is exact in double, and so is nearly every sum.
    return FromDouble<T>(double{ToFloat(a)} * ToFloat(b) + ToFloat(c));
  } else {
    return std::fma(a, b, c);
  }
}
template <typename T>
T MultiplyAddRelu(T a, T b, T c) {
  const T r = MultiplyAdd<T>(a, b, c);
  return ToFloat(r) > 0 ? r : ToFloat(r) != ToFloat(r) ? T{0x7fff} : T{0};
}

template <typename T>
using Bits = std::conditional_t<sizeof(T) == 8, uint64_t,
                                std::conditional_t<sizeof(T) == 4, uint32_t, uint16_t>>;
template <typename T>
constexpr Bits<T> kSign = static_cast<Bits<T>>(Bits<T>{1} << (sizeof(T) * 8 - 1));

template <typename T>
T Negate(T a) {
  return BitCast<T>(static_cast<Bits<T>>(BitCast<Bits<T>>(a) ^ kSign<T>));
}
template <typename T>
T Absolute(T a) {
  return BitCast<T>(static_cast<Bits<T>>(BitCast<Bits<T>>(a) & ~kSign<T>));
}
template <typename T>
T CopySign(T sign, T a) {
  return BitCast<T>(static_cast<Bits<T>>((BitCast<Bits<T>>(a) & ~kSign<T>) |
                                         (BitCast<Bits<T>>(sign) & kSign<T>)));
}
template <typename T>
T Saturate(T a) {
  const auto f = ToFloat(a);
  return f > 0 ? (f < 1 ? a : FromFloat<T>(1.0f)) : FromFloat<T>(0.0f);
}

template <typename T, float (*F)(float)>
T Apply1(T a) {
  return FromFloat<T>(F(ToFloat(a)));
}
float SquareRoot(float x) { return std::sqrt(x); }
double SquareRootDouble(double x) { return std::sqrt(x); }
float Reciprocal(float x) { return 1 / x; }
double ReciprocalDouble(double x) { return 1 / x; }
// Only the upper half of the result is meant; it seeds Newton's iteration.
double ReciprocalCoarse(double x) {
  return BitCast<double>(BitCast<uint64_t>(1 / x) & 0xffffffff00000000);
}
float ReciprocalRoot(float x) { return 1 / std::sqrt(x); }
double ReciprocalRootDouble(double x) { return 1 / std::sqrt(x); }
float Exp2(float x) { return std::exp2(x); }
float Log2(float x) { return std::log2(x); }
float Sine(float x) { return std::sin(x); }
float Cosine(float x) { return std::cos(x); }
float HyperbolicTangent(float x) { return std::tanh(x); }

// Two halves (or bfloat16s) in 32 bits, two floats in 64.
template <typename T>
struct PairOf {
  using Both = std::conditional_t<sizeof(T) == 4, uint64_t, uint32_t>;
  static constexpr int kShift = sizeof(T) * 8;
  static T Low(Both both) { return BitCast<T>(static_cast<Bits<T>>(both)); }
  static T High(Both both) { return BitCast<T>(static_cast<Bits<T>>(both >> kShift)); }
  static Both Join(T low, T high) {
    return Both{BitCast<Bits<T>>(low)} | Both{BitCast<Bits<T>>(high)} << kShift;
  }
  template <T (*F)(T)>
  static Both One(Both a) {
    return Join(F(Low(a)), F(High(a)));
  }
  template <T (*F)(T, T)>
  static Both Two(Both a, Both b) {
    return Join(F(Low(a), Low(b)), F(High(a), High(b)));
  }
  template <T (*F)(T, T, T)>
  static Both Three(Both a, Both b, Both c) {
    return Join(F(Low(a), Low(b), Low(c)), F(High(a), High(b), High(c)));
  }
};

template <typename T>
void AddBasics(OperationTable& t, const std::string& type) {
  t["add." + type] = Each<&Apply2<T, Add>>();
  t["sub." + type] = Each<&Apply2<T, Subtract>>();
  t["mul." + type] = Each<&Apply2<T, Multiply>>();
  t["min." + type] = Each<&Apply2<T, Least>>();
  t["max." + type] = Each<&Apply2<T, Greatest>>();
  t["fma." + type] = Each<&MultiplyAdd<T>>();
  t["mad." + type] = Each<&MultiplyAdd<T>>();
  t["neg." + type] = Each<&Negate<T>>();
  t["abs." + type] = Each<&Absolute<T>>();
  t["saturate." + type] = Each<&Saturate<T>>();
  if constexpr (sizeof(T) < 8) {
    t["min.NaN." + type] = Each<&Apply2<T, LeastNan>>();
    t["max.NaN." + type] = Each<&Apply2<T, GreatestNan>>();
    t["ex2." + type] = Each<&Apply1<T, &Exp2>>();
    t["tanh." + type] = Each<&Apply1<T, &HyperbolicTangent>>();
  }
  if constexpr (sizeof(T) > 2) {
    t["div." + type] = Each<&Apply2<T, Divide>>();
    t["copysign." + type] = Each<&CopySign<T>>();
  } else {
    t["fma.relu." + type] = Each<&MultiplyAddRelu<T>>();
  }
}

template <typename T>
void AddPairs(OperationTable& t, const std::string& type) {
  using P = PairOf<T>;
  t["add." + type] = Each<&P::template Two<&Apply2<T, Add>>>();
  t["sub." + type] = Each<&P::template Two<&Apply2<T, Subtract>>>();
  t["mul." + type] = Each<&P::template Two<&Apply2<T, Multiply>>>();
  t["fma." + type] = Each<&P::template Three<&MultiplyAdd<T>>>();
  if constexpr (sizeof(T) == 2) {
    t["min." + type] = Each<&P::template Two<&Apply2<T, Least>>>();
    t["max." + type] = Each<&P::template Two<&Apply2<T, Greatest>>>();
    t["min.NaN." + type] = Each<&P::template Two<&Apply2<T, LeastNan>>>();
    t["max.NaN." + type] = Each<&P::template Two<&Apply2<T, GreatestNan>>>();
    t["fma.relu." + type] = Each<&P::template Three<&MultiplyAddRelu<T>>>();
    t["neg." + type] = Each<&P::template One<&Negate<T>>>();
    t["abs." + type] = Each<&P::template One<&Absolute<T>>>();
    t["ex2." + type] = Each<&P::template One<&Apply1<T, &Exp2>>>();
    t["tanh." + type] = Each<&P::template One<&Apply1<T, &HyperbolicTangent>>>();
    t["saturate." + type] = Each<&P::template One<&Saturate<T>>>();
  }
}

}  // namespace

void AddFloatOperations(OperationTable* table) {
  OperationTable& t = *table;
  AddBasics<float>(t, "f32");
  AddBasics<double>(t, "f64");
  AddBasics<Half>(t, "f16");
  AddBasics<Bfloat>(t, "bf16");
  AddPairs<Half>(t, "f16x2");
  AddPairs<Bfloat>(t, "bf16x2");
  AddPairs<float>(t, "f32x2");
  t["sqrt.f32"] = Each<&SquareRoot>();
  t["sqrt.f64"] = Each<&SquareRootDouble>();
  t["rcp.f32"] = Each<&Reciprocal>();
  t["rcp.f64"] = Each<&ReciprocalDouble>();
  t["rcp.approx.f64"] = Each<&ReciprocalCoarse>();
  t["rsqrt.f32"] = Each<&ReciprocalRoot>();
  t["rsqrt.f64"] = Each<&ReciprocalRootDouble>();
  t["lg2.f32"] = Each<&Log2>();
  t["sin.f32"] = Each<&Sine>();
  t["cos.f32"] = Each<&Cosine>();
}

void RunWithControl(Machine& m, const Instruction& in) {
  const unsigned saved = _mm_getcsr();
  _mm_setcsr(in.count);
  // Behind a pointer, so that no arithmetic moves out of here.
  const volatile Handler inner = in.inner;
  inner(m, in);
  _mm_setcsr(saved);
}

}  // namespace softgpu
