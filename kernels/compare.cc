// Equal, NotEqual, Less, LessEqual, Greater, GreaterEqual.
#include <string>

#include "kernels/elementwise.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// Shapes that don't broadcast make one scalar when the attribute allows them.
absl::Status EqualShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(bool must_fit, c->Attr<bool>("incompatible_shape_error"));
  if (must_fit) return BroadcastShape(c);
  absl::StatusOr<PartialShape> shape = BroadcastShapes(c->input(0), c->input(1));
  if (!shape.ok()) {
    c->set_output(0, PartialShape::Scalar());
  } else if (c->input(0).fully_defined() && c->input(1).fully_defined()) {
    c->set_output(0, *shape);
  } else {
    c->set_output(0, PartialShape());
  }
  return absl::OkStatus();
}

FERRY_OP("Equal")
    .Input("x: T")
    .Input("y: T")
    .Output("z: bool")
    .Attr("T: type")
    .Attr("incompatible_shape_error: bool = true")
    .Commutative()
    .Shape(EqualShape)
    .NotDifferentiable();

FERRY_OP("NotEqual")
    .Input("x: T")
    .Input("y: T")
    .Output("z: bool")
    .Attr("T: type")
    .Attr("incompatible_shape_error: bool = true")
    .Commutative()
    .Shape(EqualShape)
    .NotDifferentiable();

#define FERRY_COMPARE_OP(Name)                                                            \
  FERRY_OP(Name)                                                                          \
      .Input("x: T")                                                                      \
      .Input("y: T")                                                                      \
      .Output("z: bool")                                                                  \
      .Attr(                                                                              \
          "T: {float, double, int32, uint8, int16, int8, int64, bfloat16, uint16, half, " \
          "uint32, uint64}")                                                              \
      .Shape(BroadcastShape)                                                              \
      .NotDifferentiable()
FERRY_COMPARE_OP("Less");
FERRY_COMPARE_OP("LessEqual");
FERRY_COMPARE_OP("Greater");
FERRY_COMPARE_OP("GreaterEqual");

#define FERRY_COMPARE(Name, op)                 \
  struct Name {                                 \
    template <typename T>                       \
    static bool Apply(const T& x, const T& y) { \
      return x op y;                            \
    }                                           \
  }
FERRY_COMPARE(EqualF, ==);
FERRY_COMPARE(NotEqualF, !=);
FERRY_COMPARE(LessF, <);
FERRY_COMPARE(LessEqualF, <=);
FERRY_COMPARE(GreaterF, >);
FERRY_COMPARE(GreaterEqualF, >=);

using AnyTypes = Join<NumberTypes, Types<bool, std::string>>;
const bool registered =
    RegisterCompare<EqualF>(AnyTypes(), "Equal", BinaryShapes::kMayMisfit, false) &&
    RegisterCompare<NotEqualF>(AnyTypes(), "NotEqual", BinaryShapes::kMayMisfit, true) &&
    RegisterCompare<LessF>(NumberTypes(), "Less") &&
    RegisterCompare<LessEqualF>(NumberTypes(), "LessEqual") &&
    RegisterCompare<GreaterF>(NumberTypes(), "Greater") &&
    RegisterCompare<GreaterEqualF>(NumberTypes(), "GreaterEqual");

}  // namespace
}  // namespace ferry
