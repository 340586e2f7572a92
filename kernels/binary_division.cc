// RealDiv, Div, FloorDiv, TruncateDiv, FloorMod, Mod, TruncateMod, DivNoNan, MulNoNan.
#include <cmath>
#include <type_traits>

#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

#define FERRY_DIV_TYPES                                                                    \
  "T: {bfloat16, half, float, double, uint8, int8, uint16, int16, int32, uint32, uint64, " \
  "int64, complex64, complex128}"

using BinaryOpFn = Output (*)(const Scope&, Output, Output);

// z = x / y:  dx = dz / y,  dy = dz * ((-x / y) / y)
template <BinaryOpFn kDivide>
absl::Status DivideGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output x = c->input(0), y = c->input(1), dz = c->grad(0);
  auto [dx, dy] = UnbroadcastGradients(
      s, x, y, kDivide(s, dz, y), ops::Mul(s, dz, kDivide(s, kDivide(s, ops::Neg(s, x), y), y)));
  c->set_input_grad(0, dx);
  c->set_input_grad(1, dy);
  return s.status();
}

FERRY_OP("RealDiv")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(FERRY_DIV_TYPES)
    .Shape(BroadcastShape)
    .Gradient(DivideGradient<ops::RealDiv>);

FERRY_OP("Div")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(FERRY_DIV_TYPES)
    .Shape(BroadcastShape)
    .Gradient(DivideGradient<ops::RealDiv>);

FERRY_OP("FloorDiv")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(FERRY_DIV_TYPES)
    .Shape(BroadcastShape)
    .NotDifferentiable();

FERRY_OP("TruncateDiv")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(FERRY_DIV_TYPES)
    .Shape(BroadcastShape)
    .NotDifferentiable();

FERRY_OP("FloorMod")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(
        "T: {int8, int16, int32, int64, uint8, uint16, uint32, uint64, bfloat16, half, float, "
        "double}")
    .Shape(BroadcastShape)
    // z = x - floor(x / y) * y:  dx = dz,  dy = dz * -floor(x / y)
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output x = c->input(0), y = c->input(1), dz = c->grad(0);
      auto [dx, dy] =
          UnbroadcastGradients(s, x, y, dz, ops::Mul(s, dz, ops::Neg(s, ops::FloorDiv(s, x, y))));
      c->set_input_grad(0, dx);
      c->set_input_grad(1, dy);
      return s.status();
    });

FERRY_OP("Mod")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr("T: {int32, int64, half, half, bfloat16, float, double}")
    .Shape(BroadcastShape);

FERRY_OP("TruncateMod")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr("T: {int32, int64, bfloat16, half, float, double}")
    .Shape(BroadcastShape);

FERRY_OP("DivNoNan")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr("T: {half, float, bfloat16, double, complex64, complex128}")
    .Shape(BroadcastShape)
    // As for RealDiv, with 0 wherever y is 0.
    .Gradient(DivideGradient<ops::DivNoNan>);

Output MulNoNan(const Scope& s, Output x, Output y) {
  return NodeBuilder(s, "MulNoNan").Input(x).Input(y).BuildOutput();
}

FERRY_OP("MulNoNan")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr("T: {bfloat16, half, float, double, complex64, complex128}")
    .Shape(BroadcastShape)
    // z = x * y:  dx = dz * y,  dy = x * dz, with 0 wherever the right factor is 0.
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      auto [dx, dy] =
          UnbroadcastGradients(s, c->input(0), c->input(1), MulNoNan(s, c->grad(0), c->input(1)),
                               MulNoNan(s, c->input(0), c->grad(0)));
      c->set_input_grad(0, dx);
      c->set_input_grad(1, dy);
      return s.status();
    });

struct DivF {
  template <typename T>
  static T Apply(T x, T y) {
    return x / y;
  }
};
struct DivNoNanF {
  template <typename T>
  static T Apply(T x, T y) {
    return y == T(0) ? T(0) : x / y;
  }
};
struct MulNoNanF {
  template <typename T>
  static T Apply(T x, T y) {
    return y == T(0) ? T(0) : x * y;
  }
};
struct FloorDivF {
  template <typename T>
  static T Apply(T x, T y) {
    return std::floor(x / y);
  }
};
struct TruncateDivF {
  template <typename T>
  static T Apply(T x, T y) {
    return std::trunc(x / y);
  }
};
// Of 16-bit floats the quotient is rounded to one before it loses its fraction: 2.996 becomes 3.
template <typename Narrow, typename F>
struct OfNarrowQuotient {
  static float Apply(float x, float y) {
    return F::Apply(static_cast<float>(static_cast<Narrow>(x / y)), 1.0f);
  }
};
struct FloorModF {
  template <typename T>
  static T Apply(T x, T y) {
    const T m = std::fmod(x, y);
    return m != T(0) && (m < T(0)) != (y < T(0)) ? m + y : m;
  }
};
struct TruncateModF {
  template <typename T>
  static T Apply(T x, T y) {
    return std::fmod(x, y);
  }
};

// Integer division. The lowest number divided by -1 wraps around (the processor would trap).
struct Divisor {
  template <typename T>
  static bool Valid(T, T y) {
    return y != 0;
  }
  template <typename T>
  static T Quotient(T x, T y) {
    if constexpr (std::is_signed_v<T>) {
      if (y == -1) return static_cast<T>(Wrap<T>(0) - static_cast<Wrap<T>>(x));
    }
    return static_cast<T>(x / y);
  }
  template <typename T>
  static T Remainder(T x, T y) {
    if constexpr (std::is_signed_v<T>) {
      if (y == -1) return 0;
    }
    return static_cast<T>(x % y);
  }
};
struct IntDivF : Divisor {
  template <typename T>
  static T Apply(T x, T y) {
    return Quotient(x, y);
  }
};
struct IntModF : Divisor {
  template <typename T>
  static T Apply(T x, T y) {
    return Remainder(x, y);
  }
};
struct IntFloorDivF : Divisor {
  template <typename T>
  static T Apply(T x, T y) {
    const T q = Quotient(x, y);
    if constexpr (std::is_signed_v<T>) {
      if ((x < 0) != (y < 0) && Remainder(x, y) != 0) return static_cast<T>(q - 1);
    }
    return q;
  }
};
struct IntFloorModF : Divisor {
  template <typename T>
  static T Apply(T x, T y) {
    const T m = Remainder(x, y);
    if constexpr (std::is_signed_v<T>) {
      if (m != 0 && (m < 0) != (y < 0)) return static_cast<T>(m + y);
    }
    return m;
  }
};

constexpr char kZero[] = "Integer division by zero";
const bool registered =
    RegisterBinary<DivF>(FloatTypes(), "RealDiv") && RegisterBinary<DivF>(FloatTypes(), "Div") &&
    RegisterChecked<IntDivF>(IntTypes(), "Div", kZero) &&
    RegisterBinary<FloorDivF>(Types<float, double>(), "FloorDiv") &&
    RegisterBinary<OfNarrowQuotient<half, FloorDivF>>(Types<half>(), "FloorDiv") &&
    RegisterBinary<OfNarrowQuotient<bfloat16, FloorDivF>>(Types<bfloat16>(), "FloorDiv") &&
    RegisterChecked<IntFloorDivF>(IntTypes(), "FloorDiv", kZero) &&
    RegisterBinary<TruncateDivF>(Types<float, double>(), "TruncateDiv") &&
    RegisterBinary<OfNarrowQuotient<half, TruncateDivF>>(Types<half>(), "TruncateDiv") &&
    RegisterBinary<OfNarrowQuotient<bfloat16, TruncateDivF>>(Types<bfloat16>(), "TruncateDiv") &&
    RegisterChecked<IntDivF>(IntTypes(), "TruncateDiv", kZero) &&
    RegisterBinary<FloorModF>(FloatTypes(), "FloorMod", kCostlyGrain) &&
    RegisterChecked<IntFloorModF>(IntTypes(), "FloorMod", kZero) &&
    RegisterBinary<TruncateModF>(Types<float, double>(), "Mod", kCostlyGrain) &&
    RegisterChecked<IntModF>(Types<int32_t, int64_t>(), "Mod", kZero) &&
    RegisterBinary<TruncateModF>(Types<float, double>(), "TruncateMod", kCostlyGrain) &&
    RegisterChecked<IntModF>(Types<int32_t, int64_t>(), "TruncateMod", kZero) &&
    RegisterBinary<DivNoNanF>(FloatTypes(), "DivNoNan") &&
    RegisterBinary<MulNoNanF>(FloatTypes(), "MulNoNan");

}  // namespace
}  // namespace ferry
