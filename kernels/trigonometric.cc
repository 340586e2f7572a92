// Tan, Sinh, Cosh, their inverses with those of Sin, Cos and Tanh, and Atan2.
#include <cmath>

#include "kernels/constants.h"
#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

Output Op1(const Scope& s, const char* name, Output x) {
  return NodeBuilder(s, name).Input(x).BuildOutput();
}

// y = f(x):  dx = dy * slope(scope, x, y), or dy / slope where `divide`.
template <Output (*kSlope)(const Scope& s, Output x, Output y), bool kDivide>
absl::Status SlopeGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output slope = kSlope(s, c->input(0), c->output(0));
  c->set_input_grad(0,
                    kDivide ? ops::RealDiv(s, c->grad(0), slope) : ops::Mul(s, c->grad(0), slope));
  return s.status();
}

Output SquareOfCos(const Scope& s, Output x, Output) { return ops::Square(s, Op1(s, "Cos", x)); }
Output SinhOfX(const Scope& s, Output x, Output) { return Op1(s, "Sinh", x); }
Output CoshOfX(const Scope& s, Output x, Output) { return Op1(s, "Cosh", x); }
Output SinhOfY(const Scope& s, Output, Output y) { return Op1(s, "Sinh", y); }
Output CoshOfY(const Scope& s, Output, Output y) { return Op1(s, "Cosh", y); }
Output OneMinusSquare(const Scope& s, Output x, Output) {
  return ops::Sub(s, ConstLike(s, x, 1), ops::Square(s, x));
}
Output OnePlusSquare(const Scope& s, Output x, Output) {
  return ops::Add(s, ConstLike(s, x, 1), ops::Square(s, x));
}
Output RootOfOneMinusSquare(const Scope& s, Output x, Output y) {
  return ops::Sqrt(s, OneMinusSquare(s, x, y));
}
Output MinusRootOfOneMinusSquare(const Scope& s, Output x, Output y) {
  return ops::Neg(s, RootOfOneMinusSquare(s, x, y));
}

bool Define(const char* op, GradientFn gradient) {
  OpBuilder b(op);
  b.Input("x: T")
      .Output("y: T")
      .Attr("T: {bfloat16, half, float, double, complex64, complex128}")
      .Shape(UnchangedShape)
      .Gradient(std::move(gradient));
  const OpBuilder::Registrar registrar(b);
  return true;
}

const bool defined = Define("Tan", SlopeGradient<SquareOfCos, true>) &&
                     Define("Sinh", SlopeGradient<CoshOfX, false>) &&
                     Define("Cosh", SlopeGradient<SinhOfX, false>) &&
                     Define("Asin", SlopeGradient<RootOfOneMinusSquare, true>) &&
                     Define("Acos", SlopeGradient<MinusRootOfOneMinusSquare, true>) &&
                     Define("Atan", SlopeGradient<OnePlusSquare, true>) &&
                     Define("Asinh", SlopeGradient<CoshOfY, true>) &&
                     Define("Acosh", SlopeGradient<SinhOfY, true>) &&
                     Define("Atanh", SlopeGradient<OneMinusSquare, true>);

FERRY_OP("Atan2")
    .Input("y: T")
    .Input("x: T")
    .Output("z: T")
    .Attr("T: {bfloat16, half, float, double}")
    .Shape(BroadcastShape)
    // z = the angle of (x, y):  dy = dz * x / (x^2 + y^2),  dx = dz * -y / (x^2 + y^2)
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output y = c->input(0), x = c->input(1);
      const Output g =
          ops::RealDiv(s, c->grad(0), ops::Add(s, ops::Square(s, x), ops::Square(s, y)));
      auto [dy, dx] =
          UnbroadcastGradients(s, y, x, ops::Mul(s, x, g), ops::Mul(s, ops::Neg(s, y), g));
      c->set_input_grad(0, dy);
      c->set_input_grad(1, dx);
      return s.status();
    });

#define FERRY_FUNCTION(Name, function) \
  struct Name {                        \
    template <typename T>              \
    static T Apply(T x) {              \
      return std::function(x);         \
    }                                  \
  }
FERRY_FUNCTION(TanF, tan);
FERRY_FUNCTION(SinhF, sinh);
FERRY_FUNCTION(CoshF, cosh);
FERRY_FUNCTION(AsinF, asin);
FERRY_FUNCTION(AcosF, acos);
FERRY_FUNCTION(AtanF, atan);
FERRY_FUNCTION(AsinhF, asinh);
FERRY_FUNCTION(AcoshF, acosh);
FERRY_FUNCTION(AtanhF, atanh);
#undef FERRY_FUNCTION
struct Atan2F {
  template <typename T>
  static T Apply(T y, T x) {
    return std::atan2(y, x);
  }
};

const bool registered = RegisterUnary<TanF>(FloatTypes(), "Tan", kCostlyGrain) &&
                        RegisterUnary<SinhF>(FloatTypes(), "Sinh", kCostlyGrain) &&
                        RegisterUnary<CoshF>(FloatTypes(), "Cosh", kCostlyGrain) &&
                        RegisterUnary<AsinF>(FloatTypes(), "Asin", kCostlyGrain) &&
                        RegisterUnary<AcosF>(FloatTypes(), "Acos", kCostlyGrain) &&
                        RegisterUnary<AtanF>(FloatTypes(), "Atan", kCostlyGrain) &&
                        RegisterUnary<AsinhF>(FloatTypes(), "Asinh", kCostlyGrain) &&
                        RegisterUnary<AcoshF>(FloatTypes(), "Acosh", kCostlyGrain) &&
                        RegisterUnary<AtanhF>(FloatTypes(), "Atanh", kCostlyGrain) &&
                        RegisterBinary<Atan2F>(FloatTypes(), "Atan2", kCostlyGrain);

}  // namespace
}  // namespace ferry
