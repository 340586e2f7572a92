// Lgamma, Digamma, Polygamma, Zeta, Erfc, Erfinv, Ndtri, and Xdivy, Xlogy, Xlog1py, which are 0
// where x is.
#include <cmath>

#include "Eigen/Core"
#include "kernels/constants.h"
#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"
#include "unsupported/Eigen/SpecialFunctions"

namespace ferry {
namespace {

Output Op1(const Scope& s, const char* name, Output x) {
  return NodeBuilder(s, name).Input(x).BuildOutput();
}
Output Op2(const Scope& s, const char* name, Output x, Output y) {
  return NodeBuilder(s, name).Input(x).Input(y).BuildOutput();
}
absl::Status Set(GradientContext* c, Output slope) {
  c->set_input_grad(0, ops::Mul(c->scope(), c->grad(0), slope));
  return c->scope().status();
}

#define FERRY_FLOATS "T: {bfloat16, half, float, double}"

FERRY_OP("Lgamma")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_FLOATS)
    .Shape(UnchangedShape)
    // y = log |gamma(x)|:  dx = dy * digamma(x)
    .Gradient([](GradientContext* c) { return Set(c, Op1(c->scope(), "Digamma", c->input(0))); });

FERRY_OP("Digamma")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_FLOATS)
    .Shape(UnchangedShape)
    // y = the derivative of log gamma(x):  dx = dy * polygamma(1, x)
    .Gradient([](GradientContext* c) {
      const Scope& s = c->scope();
      return Set(c, Op2(s, "Polygamma", ConstLike(s, c->input(0), 1), c->input(0)));
    });

FERRY_OP("Polygamma")
    .Input("a: T")
    .Input("x: T")
    .Output("z: T")
    .Attr("T: {float, double}")
    .Shape(BroadcastShape)
    // z = the a-th derivative of digamma(x):  dx = dz * polygamma(a + 1, x); none for a
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output a = c->input(0), x = c->input(1);
      const Output next = Op2(s, "Polygamma", ops::Add(s, a, ConstLike(s, a, 1)), x);
      c->set_input_grad(
          1, UnbroadcastGradients(s, a, x, Output(), ops::Mul(s, c->grad(0), next)).second);
      return s.status();
    });

FERRY_OP("Zeta")
    .Input("x: T")
    .Input("q: T")
    .Output("z: T")
    .Attr("T: {float, double}")
    .Shape(BroadcastShape)
    // z = the sum over n of (n + q)^-x:  dq = dz * -x * zeta(x + 1, q); none for x
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output x = c->input(0), q = c->input(1);
      const Output next = Op2(s, "Zeta", ops::Add(s, x, ConstLike(s, x, 1)), q);
      const Output slope = ops::Mul(s, ops::Neg(s, x), next);
      c->set_input_grad(
          1, UnbroadcastGradients(s, x, q, Output(), ops::Mul(s, c->grad(0), slope)).second);
      return s.status();
    });

FERRY_OP("Erfc")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_FLOATS)
    .Shape(UnchangedShape)
    // y = 1 - erf(x):  dx = dy * -2 / sqrt(pi) * exp(-x^2)
    .Gradient([](GradientContext* c) {
      const Scope& s = c->scope();
      const Output x = c->input(0);
      return Set(c, ops::Mul(s, ConstLike(s, x, -1.1283791670955126),
                             ops::Exp(s, ops::Neg(s, ops::Square(s, x)))));
    });

FERRY_OP("Erfinv")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_FLOATS)
    .Shape(UnchangedShape)
    // x = erf(y):  dx = dy * sqrt(pi) / 2 * exp(y^2)
    .Gradient([](GradientContext* c) {
      const Scope& s = c->scope();
      const Output y = c->output(0);
      return Set(c,
                 ops::Mul(s, ConstLike(s, y, 0.88622692545275801), ops::Exp(s, ops::Square(s, y))));
    });

FERRY_OP("Ndtri")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_FLOATS)
    .Shape(UnchangedShape)
    // x = the standard normal distribution at y:  dx = dy * sqrt(2 pi) * exp(y^2 / 2)
    .Gradient([](GradientContext* c) {
      const Scope& s = c->scope();
      const Output y = c->output(0);
      const Output half_square = ops::Mul(s, ops::Square(s, y), ConstLike(s, y, 0.5));
      return Set(c, ops::Mul(s, ConstLike(s, y, 2.5066282746310002), ops::Exp(s, half_square)));
    });

// z = x * f(y), 0 where x is 0:  dx = dz * f(y) there where x isn't 0,  dy = dz * x * f'(y).
// `slope` makes the latter's x * f'(y).
template <Output (*kSlope)(const Scope& s, Output x, Output y)>
absl::Status ZeroOfXGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output x = c->input(0), y = c->input(1), dz = c->grad(0);
  const Output not_zero =
      ops::Cast(s, ops::NotEqual(s, x, ConstLike(s, x, 0)), BaseType(x.dtype()));
  auto [dx, dy] =
      UnbroadcastGradients(s, x, y, ops::Mul(s, Op2(s, c->node()->op().c_str(), not_zero, y), dz),
                           ops::Mul(s, kSlope(s, x, y), dz));
  c->set_input_grad(0, dx);
  c->set_input_grad(1, dy);
  return s.status();
}
Output XdivySlope(const Scope& s, Output x, Output y) {
  return Op2(s, "Xdivy", ops::Neg(s, x), ops::Square(s, y));
}
Output XlogySlope(const Scope& s, Output x, Output y) { return Op2(s, "Xdivy", x, y); }
Output Xlog1pySlope(const Scope& s, Output x, Output y) {
  return Op2(s, "Xdivy", x, ops::Add(s, y, ConstLike(s, y, 1)));
}

bool DefineZeroOfX(const char* op, GradientFn gradient) {
  OpBuilder b(op);
  b.Input("x: T")
      .Input("y: T")
      .Output("z: T")
      .Attr("T: {half, bfloat16, float, double, complex64, complex128}")
      .Shape(BroadcastShape)
      .Gradient(std::move(gradient));
  const OpBuilder::Registrar registrar(b);
  return true;
}
const bool defined = DefineZeroOfX("Xdivy", ZeroOfXGradient<XdivySlope>) &&
                     DefineZeroOfX("Xlogy", ZeroOfXGradient<XlogySlope>) &&
                     DefineZeroOfX("Xlog1py", ZeroOfXGradient<Xlog1pySlope>);

struct LgammaF {
  template <typename T>
  static T Apply(T x) {
    return Eigen::numext::lgamma(x);
  }
};
struct DigammaF {
  template <typename T>
  static T Apply(T x) {
    return Eigen::numext::digamma(x);
  }
};
struct PolygammaF {
  template <typename T>
  static T Apply(T a, T x) {
    return Eigen::numext::polygamma(a, x);
  }
};
struct ZetaF {
  template <typename T>
  static T Apply(T x, T q) {
    return Eigen::numext::zeta(x, q);
  }
};
struct ErfcF {
  template <typename T>
  static T Apply(T x) {
    return std::erfc(x);
  }
};
struct NdtriF {
  template <typename T>
  static T Apply(T x) {
    return Eigen::numext::ndtri(x);
  }
};
struct ErfinvF {
  template <typename T>
  static T Apply(T x) {
    constexpr T kRootOfHalf = T(0.70710678118654752440);
    return Eigen::numext::ndtri((x + T(1)) / T(2)) * kRootOfHalf;
  }
};
struct XdivyF {
  template <typename T>
  static T Apply(T x, T y) {
    return x == T(0) ? T(0) : x / y;
  }
};
struct XlogyF {
  template <typename T>
  static T Apply(T x, T y) {
    return x == T(0) ? T(0) : x * std::log(y);
  }
};
struct Xlog1pyF {
  template <typename T>
  static T Apply(T x, T y) {
    return x == T(0) ? T(0) : x * std::log1p(y);
  }
};

using Large = Types<float, double>;
const bool registered =
    RegisterUnary<LgammaF>(Types<half, float, double>(), "Lgamma", kCostlyGrain) &&
    RegisterUnary<DigammaF>(Types<half, float, double>(), "Digamma", kCostlyGrain) &&
    RegisterBinary<PolygammaF>(Large(), "Polygamma", kCostlyGrain) &&
    RegisterBinary<ZetaF>(Large(), "Zeta", kCostlyGrain) &&
    RegisterUnary<ErfcF>(FloatTypes(), "Erfc", kCostlyGrain) &&
    RegisterUnary<ErfinvF>(Large(), "Erfinv", kCostlyGrain) &&
    RegisterUnary<NdtriF>(Large(), "Ndtri", kCostlyGrain) &&
    RegisterBinary<XdivyF>(FloatTypes(), "Xdivy") &&
    RegisterBinary<XlogyF>(FloatTypes(), "Xlogy", kCostlyGrain) &&
    RegisterBinary<Xlog1pyF>(FloatTypes(), "Xlog1py", kCostlyGrain);

}  // namespace
}  // namespace ferry
