// Neg, Abs, Sign, Square, Sqrt, Rsqrt, Reciprocal, Inv, Floor, Ceil, Round, Rint, IsNan, IsInf,
// IsFinite, and the gradient ops SqrtGrad, RsqrtGrad, ReciprocalGrad, InvGrad.
#include <cmath>
#include <limits>
#include <type_traits>

#include "kernels/constants.h"
#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// A node of op `name` with inputs a and b.
Output Op2(GradientContext* c, const char* name, Output a, Output b) {
  return NodeBuilder(c->scope(), name).Input(a).Input(b).BuildOutput();
}
absl::Status Set(GradientContext* c, Output dx) {
  c->set_input_grad(0, dx);
  return c->scope().status();
}

#define FERRY_SIGNED_TYPES \
  "T: {bfloat16, half, float, double, int8, int16, int32, int64, complex64, complex128}"
#define FERRY_FLOAT_TYPES "T: {bfloat16, half, float, double}"
#define FERRY_COMPLEX_TYPES "T: {bfloat16, half, float, double, complex64, complex128}"

FERRY_OP("Neg")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_SIGNED_TYPES)
    .Shape(UnchangedShape)
    // y = -x:  dx = -dy
    .Gradient([](GradientContext* c) { return Set(c, ops::Neg(c->scope(), c->grad(0))); });

FERRY_OP("Abs")
    .Input("x: T")
    .Output("y: T")
    .Attr("T: {bfloat16, half, float, double, int8, int16, int32, int64}")
    .Shape(UnchangedShape)
    // y = |x|:  dx = dy * sign(x)
    .Gradient([](GradientContext* c) {
      return Set(c, ops::Mul(c->scope(), c->grad(0), ops::Sign(c->scope(), c->input(0))));
    });

FERRY_OP("Sign")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_SIGNED_TYPES)
    .Shape(UnchangedShape)
    // y = sign(x):  dx = 0
    .Gradient([](GradientContext* c) { return Set(c, ops::ZerosLike(c->scope(), c->input(0))); });

FERRY_OP("Square")
    .Input("x: T")
    .Output("y: T")
    .Attr(
        "T: {bfloat16, half, float, double, int8, int16, int32, int64, uint8, uint16, uint32, "
        "uint64, complex64, complex128}")
    .Shape(UnchangedShape)
    // y = x^2:  dx = dy * (2 * x)
    .Gradient([](GradientContext* c) {
      const Scope& s = c->scope();
      const Output x = c->input(0);
      return Set(c, ops::Mul(s, c->grad(0), ops::Mul(s, x, ConstLike(s, x, 2))));
    });

FERRY_OP("Sqrt")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // y = sqrt(x):  dx = dy / (2 * y)
    .Gradient([](GradientContext* c) {
      return Set(c, Op2(c, "SqrtGrad", c->output(0), c->grad(0)));
    });

FERRY_OP("Rsqrt")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // y = 1 / sqrt(x):  dx = dy * -y^3 / 2
    .Gradient([](GradientContext* c) {
      return Set(c, Op2(c, "RsqrtGrad", c->output(0), c->grad(0)));
    });

// y = 1 / x:  dx = -dy * y^2
absl::Status ReciprocalGradient(GradientContext* c) {
  return Set(c, Op2(c, "ReciprocalGrad", c->output(0), c->grad(0)));
}
FERRY_OP("Reciprocal")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_SIGNED_TYPES)
    .Shape(UnchangedShape)
    .Gradient(ReciprocalGradient);
FERRY_OP("Inv")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_SIGNED_TYPES)
    .Shape(UnchangedShape)
    .Gradient(ReciprocalGradient);

FERRY_OP("SqrtGrad")
    .Input("y: T")
    .Input("dy: T")
    .Output("z: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // z = dy / (2 * y):  with g = dz / y,  d(y) = -g * z,  d(dy) = g / 2
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output g = ops::RealDiv(s, c->grad(0), c->input(0));
      c->set_input_grad(0, ops::Mul(s, ops::Neg(s, g), c->output(0)));
      c->set_input_grad(1, ops::Mul(s, ConstLike(s, g, 0.5), g));
      return s.status();
    });

FERRY_OP("RsqrtGrad")
    .Input("y: T")
    .Input("dy: T")
    .Output("z: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    // z = dy * -y^3 / 2:  d(y) = dz * dy * -3/2 * y^2,  d(dy) = dz * -y^3 / 2
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output y = c->input(0), dz = c->grad(0);
      const Output product = ops::Mul(s, ops::Mul(s, ConstLike(s, dz, -1.5), dz), c->input(1));
      c->set_input_grad(0, ops::Mul(s, product, ops::Square(s, y)));
      c->set_input_grad(1, Op2(c, "RsqrtGrad", y, dz));
      return s.status();
    });

// z = -dy * y^2:  d(y) = dz * -2 * dy * y,  d(dy) = -dz * y^2
absl::Status ReciprocalGradGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output y = c->input(0), dz = c->grad(0);
  const Output product = ops::Mul(s, ops::Mul(s, dz, ConstLike(s, dz, -2)), c->input(1));
  c->set_input_grad(0, ops::Mul(s, product, y));
  c->set_input_grad(1, Op2(c, "ReciprocalGrad", y, dz));
  return s.status();
}
FERRY_OP("ReciprocalGrad")
    .Input("y: T")
    .Input("dy: T")
    .Output("z: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    .Gradient(ReciprocalGradGradient);
FERRY_OP("InvGrad")
    .Input("y: T")
    .Input("dy: T")
    .Output("z: T")
    .Attr(FERRY_COMPLEX_TYPES)
    .Shape(UnchangedShape)
    .Gradient(ReciprocalGradGradient);

// Steps have no slope.
#define FERRY_STEP_OP(Name, types) \
  FERRY_OP(Name).Input("x: T").Output("y: T").Attr(types).Shape(UnchangedShape).NotDifferentiable()
FERRY_STEP_OP("Floor", FERRY_FLOAT_TYPES);
FERRY_STEP_OP("Ceil", FERRY_FLOAT_TYPES);
FERRY_STEP_OP("Rint", FERRY_FLOAT_TYPES);
FERRY_STEP_OP("Round", FERRY_SIGNED_TYPES);

#define FERRY_PREDICATE_OP(Name) \
  FERRY_OP(Name)                 \
      .Input("x: T")             \
      .Output("y: bool")         \
      .Attr(FERRY_FLOAT_TYPES)   \
      .Shape(UnchangedShape)     \
      .NotDifferentiable()
FERRY_PREDICATE_OP("IsNan");
FERRY_PREDICATE_OP("IsInf");
FERRY_PREDICATE_OP("IsFinite");

struct NegF {
  template <typename T>
  static T Apply(T x) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>(Wrap<T>(0) - static_cast<Wrap<T>>(x));
    } else {
      return -x;
    }
  }
};
struct AbsF {
  template <typename T>
  static T Apply(T x) {
    if constexpr (std::is_integral_v<T>) {
      return x < 0 ? NegF::Apply(x) : x;
    } else {
      return std::fabs(x);
    }
  }
};
struct SignF {
  template <typename T>
  static T Apply(T x) {
    if constexpr (std::is_integral_v<T>) {
      return static_cast<T>((x > 0) - (x < 0));
    } else {
      return x != x ? x : static_cast<T>(x > 0) - static_cast<T>(x < 0);
    }
  }
};
struct SquareF {
  template <typename T>
  static T Apply(T x) {
    return static_cast<T>(static_cast<Wrap<T>>(x) * static_cast<Wrap<T>>(x));
  }
};
struct SqrtF {
  template <typename T>
  static T Apply(T x) {
    return std::sqrt(x);
  }
};
struct RsqrtF {
  template <typename T>
  static T Apply(T x) {
    return T(1) / std::sqrt(x);
  }
};
struct ReciprocalF {
  template <typename T>
  static T Apply(T x) {
    return T(1) / x;
  }
};
struct FloorF {
  template <typename T>
  static T Apply(T x) {
    return std::floor(x);
  }
};
struct CeilF {
  template <typename T>
  static T Apply(T x) {
    return std::ceil(x);
  }
};
// To the nearest integer, halves to the even one.
struct RoundF {
  template <typename T>
  static T Apply(T x) {
    if constexpr (std::is_integral_v<T>) {
      return x;
    } else {
      return std::nearbyint(x);
    }
  }
};
struct IsNanF {
  template <typename T>
  static bool Apply(T x) {
    return x != x;
  }
};
struct IsInfF {
  template <typename T>
  static bool Apply(T x) {
    return std::fabs(x) == std::numeric_limits<T>::infinity();
  }
};
struct IsFiniteF {
  template <typename T>
  static bool Apply(T x) {
    return std::fabs(x) <= std::numeric_limits<T>::max();
  }
};

struct SqrtGradF {
  template <typename T>
  static T Apply(T y, T dy) {
    return T(0.5) * dy / y;
  }
};
struct RsqrtGradF {
  template <typename T>
  static T Apply(T y, T dy) {
    return T(-0.5) * (dy * y) * (y * y);
  }
};
struct ReciprocalGradF {
  template <typename T>
  static T Apply(T y, T dy) {
    return -dy * (y * y);
  }
};

const bool registered =
    RegisterUnary<NegF>(Join<FloatTypes, SignedTypes>(), "Neg") &&
    RegisterUnary<AbsF>(Join<FloatTypes, SignedTypes>(), "Abs") &&
    RegisterUnary<SignF>(Join<FloatTypes, SignedTypes>(), "Sign") &&
    RegisterUnary<SquareF>(NumberTypes(), "Square") && RegisterUnary<SqrtF>(FloatTypes(), "Sqrt") &&
    RegisterUnary<RsqrtF>(FloatTypes(), "Rsqrt") &&
    RegisterUnary<ReciprocalF>(FloatTypes(), "Reciprocal") &&
    RegisterUnary<ReciprocalF>(FloatTypes(), "Inv") &&
    RegisterUnary<FloorF>(FloatTypes(), "Floor") && RegisterUnary<CeilF>(FloatTypes(), "Ceil") &&
    RegisterUnary<RoundF>(Types<float, double>(), "Rint") &&
    RegisterUnary<RoundF>(Join<FloatTypes, Types<int32_t, int64_t>>(), "Round") &&
    RegisterPredicate<IsNanF>(FloatTypes(), "IsNan") &&
    RegisterPredicate<IsInfF>(FloatTypes(), "IsInf") &&
    RegisterPredicate<IsFiniteF>(FloatTypes(), "IsFinite") &&
    RegisterBinary<SqrtGradF>(FloatTypes(), "SqrtGrad", kCheapGrain, BinaryShapes::kSame) &&
    RegisterBinary<RsqrtGradF>(FloatTypes(), "RsqrtGrad", kCheapGrain, BinaryShapes::kSame) &&
    RegisterBinary<ReciprocalGradF>(FloatTypes(), "ReciprocalGrad", kCheapGrain,
                                    BinaryShapes::kSame) &&
    RegisterBinary<ReciprocalGradF>(FloatTypes(), "InvGrad", kCheapGrain, BinaryShapes::kSame);

}  // namespace
}  // namespace ferry
