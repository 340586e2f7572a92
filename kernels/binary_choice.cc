// Maximum, Minimum, Pow.
#include <cmath>
#include <type_traits>

#include "kernels/constants.h"
#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

using BinaryOpFn = Output (*)(const Scope&, Output, Output);

// z = max(x, y):  dx = x >= y ? dz : 0,  dy = x >= y ? 0 : dz; for min with x <= y.
template <BinaryOpFn kTakesX>
absl::Status ChoiceGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output x = c->input(0), y = c->input(1), dz = c->grad(0);
  const Output takes_x = kTakesX(s, x, y);
  const Output zero = ConstLike(s, dz, 0);
  auto [dx, dy] = UnbroadcastGradients(s, x, y, ops::SelectV2(s, takes_x, dz, zero),
                                       ops::SelectV2(s, takes_x, zero, dz));
  c->set_input_grad(0, dx);
  c->set_input_grad(1, dy);
  return s.status();
}

#define FERRY_CHOICE_TYPES \
  "T: {bfloat16, half, float, double, int8, uint8, int16, uint16, int32, uint32, int64, uint64}"

FERRY_OP("Maximum")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(FERRY_CHOICE_TYPES)
    .Shape(BroadcastShape)
    .Gradient(ChoiceGradient<ops::GreaterEqual>);

FERRY_OP("Minimum")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(FERRY_CHOICE_TYPES)
    .Shape(BroadcastShape)
    .Gradient(ChoiceGradient<ops::LessEqual>);

FERRY_OP("Pow")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr("T: {bfloat16, float, half, double, int8, int16, int32, int64, complex64, complex128}")
    .Shape(BroadcastShape)
    // z = x^y:  dx = dz * y * x^(y-1),  dy = dz * z * log(x), taken as 0 where x <= 0
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output x = c->input(0), y = c->input(1), z = c->output(0), dz = c->grad(0);
      const Output gx =
          ops::Mul(s, ops::Mul(s, dz, y), ops::Pow(s, x, ops::Sub(s, y, ConstLike(s, y, 1))));
      const Output positive = ops::Greater(s, x, ConstLike(s, x, 0));
      const Output safe_x = ops::SelectV2(s, positive, x, ConstLike(s, x, 1));
      const Output log_x = ops::SelectV2(s, positive, ops::Log(s, safe_x), ConstLike(s, x, 0));
      const Output gy = ops::Mul(s, ops::Mul(s, dz, z), log_x);
      auto [dx, dy] = UnbroadcastGradients(s, x, y, gx, gy);
      c->set_input_grad(0, dx);
      c->set_input_grad(1, dy);
      return s.status();
    });

// Where either is NaN, so is the result.
template <typename T>
T Choose(bool takes_x, T x, T y) {
  if constexpr (std::is_floating_point_v<T>) {
    const T z = takes_x ? x : y;
    return (x != x) | (y != y) ? x + y : z;
  } else {
    return takes_x ? x : y;
  }
}
struct MaximumF {
  template <typename T>
  static T Apply(T x, T y) {
    return Choose(x > y, x, y);
  }
};
struct MinimumF {
  template <typename T>
  static T Apply(T x, T y) {
    return Choose(x < y, x, y);
  }
};
struct PowF {
  template <typename T>
  static T Apply(T x, T y) {
    return std::pow(x, y);
  }
};
struct IntPowF {
  template <typename T>
  static bool Valid(T, T y) {
    return y >= 0;
  }
  template <typename T>
  static T Apply(T x, T y) {
    Wrap<T> base = static_cast<Wrap<T>>(x), result = 1;
    for (Wrap<T> e = static_cast<Wrap<T>>(y); e != 0; e >>= 1) {
      if (e & 1) result *= base;
      base *= base;
    }
    return static_cast<T>(result);
  }
};

const bool registered =
    RegisterBinary<MaximumF>(NumberTypes(), "Maximum") &&
    RegisterBinary<MinimumF>(NumberTypes(), "Minimum") &&
    RegisterBinary<PowF>(FloatTypes(), "Pow", kCostlyGrain) &&
    RegisterChecked<IntPowF>(SignedTypes(), "Pow",
                             "Integers to negative integer powers are not allowed");

}  // namespace
}  // namespace ferry
