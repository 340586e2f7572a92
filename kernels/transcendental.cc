// Exp, Expm1, Log, Log1p, Sin, Cos, Erf, Tanh, Sigmoid, and the gradient ops TanhGrad and
// SigmoidGrad.
#include <cmath>

#include "kernels/constants.h"
#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

Output Op1(GradientContext* c, const char* name, Output a) {
  return NodeBuilder(c->scope(), name).Input(a).BuildOutput();
}
Output Op2(GradientContext* c, const char* name, Output a, Output b) {
  return NodeBuilder(c->scope(), name).Input(a).Input(b).BuildOutput();
}
absl::Status Set(GradientContext* c, Output dx) {
  c->set_input_grad(0, dx);
  return c->scope().status();
}

#define FERRY_COMPLEX_TYPES "T: {bfloat16, half, float, double, complex64, complex128}"

FERRY_OP("Exp")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // y = exp(x):  dx = dy * y
    .Gradient([](GradientContext* c) {
      return Set(c, ops::Mul(c->scope(), c->grad(0), c->output(0)));
    });

FERRY_OP("Expm1")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // y = exp(x) - 1:  dx = dy * exp(x)
    .Gradient([](GradientContext* c) {
      return Set(c, ops::Mul(c->scope(), c->grad(0), ops::Exp(c->scope(), c->input(0))));
    });

FERRY_OP("Log")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // y = log(x):  dx = dy * (1 / x)
    .Gradient([](GradientContext* c) {
      return Set(c, ops::Mul(c->scope(), c->grad(0), ops::Reciprocal(c->scope(), c->input(0))));
    });

FERRY_OP("Log1p")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // y = log(1 + x):  dx = dy * (1 / (1 + x))
    .Gradient([](GradientContext* c) {
      const Scope& s = c->scope();
      const Output x = c->input(0);
      return Set(c,
                 ops::Mul(s, c->grad(0), ops::Reciprocal(s, ops::AddV2(s, ConstLike(s, x, 1), x))));
    });

FERRY_OP("Sin")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // y = sin(x):  dx = dy * cos(x)
    .Gradient([](GradientContext* c) {
      return Set(c, ops::Mul(c->scope(), c->grad(0), Op1(c, "Cos", c->input(0))));
    });

FERRY_OP("Cos")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // y = cos(x):  dx = -dy * sin(x)
    .Gradient([](GradientContext* c) {
      const Scope& s = c->scope();
      return Set(c, ops::Mul(s, ops::Neg(s, c->grad(0)), Op1(c, "Sin", c->input(0))));
    });

FERRY_OP("Erf")
    .Input("x: T")
    .Output("y: T")
    .Attr("T: {bfloat16, half, float, double}")
    .Shape(UnchangedShape)
    // y = erf(x):  dx = dy * 2 / sqrt(pi) * exp(-x^2)
    .Gradient([](GradientContext* c) {
      const Scope& s = c->scope();
      const Output x = c->input(0);
      const Output slope = ops::Mul(s, ConstLike(s, x, 1.1283791670955126),
                                    ops::Exp(s, ops::Neg(s, ops::Square(s, x))));
      return Set(c, ops::Mul(s, c->grad(0), slope));
    });

FERRY_OP("Tanh")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // y = tanh(x):  dx = dy * (1 - y^2)
    .Gradient([](GradientContext* c) {
      return Set(c, Op2(c, "TanhGrad", c->output(0), c->grad(0)));
    });

FERRY_OP("Sigmoid")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // y = 1 / (1 + exp(-x)):  dx = dy * y * (1 - y)
    .Gradient([](GradientContext* c) {
      return Set(c, Op2(c, "SigmoidGrad", c->output(0), c->grad(0)));
    });

FERRY_OP("TanhGrad")
    .Input("y: T")
    .Input("dy: T")
    .Output("z: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // z = dy * (1 - y^2):  d(y) = dz * -2 * dy * y,  d(dy) = dz * (1 - y^2)
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output y = c->input(0), dz = c->grad(0);
      const Output product = ops::Mul(s, ops::Mul(s, dz, ConstLike(s, dz, -2)), c->input(1));
      c->set_input_grad(0, ops::Mul(s, product, y));
      c->set_input_grad(1, Op2(c, "TanhGrad", y, dz));
      return s.status();
    });

FERRY_OP("SigmoidGrad")
    .Input("y: T")
    .Input("dy: T")
    .Output("z: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // z = dy * y * (1 - y):  d(y) = dz * dy - 2 * dz * dy * y,  d(dy) = dz * y * (1 - y)
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output y = c->input(0), dz = c->grad(0);
      const Output g = ops::Mul(s, dz, c->input(1));
      c->set_input_grad(0, ops::Sub(s, g, ops::Mul(s, ops::Mul(s, ConstLike(s, g, 2), g), y)));
      c->set_input_grad(1, Op2(c, "SigmoidGrad", y, dz));
      return s.status();
    });

struct ExpF {
  template <typename P>
  static P Apply(const P& x) {
    return PackExp(x);
  }
};
struct Expm1F {
  template <typename P>
  static P Apply(const P& x) {
    return x.expm1();
  }
};
struct LogF {
  template <typename P>
  static P Apply(const P& x) {
    return x.log();
  }
};
struct Log1pF {
  template <typename P>
  static P Apply(const P& x) {
    return x.log1p();
  }
};
struct SinF {
  template <typename P>
  static P Apply(const P& x) {
    return x.sin();
  }
};
struct CosF {
  template <typename P>
  static P Apply(const P& x) {
    return x.cos();
  }
};
struct TanhF {
  template <typename P>
  static P Apply(const P& x) {
    return x.tanh();
  }
};
struct SigmoidF {
  template <typename P>
  static P Apply(const P& x) {
    using T = typename P::Scalar;
    return ((-x).exp() + T(1)).inverse();
  }
};
struct ErfF {
  template <typename T>
  static T Apply(T x) {
    return std::erf(x);
  }
};

struct TanhGradF {
  template <typename T>
  static T Apply(T y, T dy) {
    return dy * (T(1) - y * y);
  }
};
struct SigmoidGradF {
  template <typename T>
  static T Apply(T y, T dy) {
    return dy * y * (T(1) - y);
  }
};

const bool registered =
    RegisterPacked<ExpF>(FloatTypes(), "Exp") && RegisterPacked<Expm1F>(FloatTypes(), "Expm1") &&
    RegisterPacked<LogF>(FloatTypes(), "Log") && RegisterPacked<Log1pF>(FloatTypes(), "Log1p") &&
    RegisterPacked<SinF>(FloatTypes(), "Sin") && RegisterPacked<CosF>(FloatTypes(), "Cos") &&
    RegisterPacked<TanhF>(FloatTypes(), "Tanh") &&
    RegisterPacked<SigmoidF>(FloatTypes(), "Sigmoid") &&
    RegisterUnary<ErfF>(FloatTypes(), "Erf", kCostlyGrain) &&
    RegisterBinary<TanhGradF>(FloatTypes(), "TanhGrad", kCheapGrain, BinaryShapes::kSame) &&
    RegisterBinary<SigmoidGradF>(FloatTypes(), "SigmoidGrad", kCheapGrain, BinaryShapes::kSame);

}  // namespace
}  // namespace ferry
