// LogicalAnd, LogicalOr, LogicalNot.
#include "kernels/elementwise.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

FERRY_OP("LogicalAnd")
    .Input("x: bool")
    .Input("y: bool")
    .Output("z: bool")
    .Commutative()
    .Shape(BroadcastShape)
    .NotDifferentiable();

FERRY_OP("LogicalOr")
    .Input("x: bool")
    .Input("y: bool")
    .Output("z: bool")
    .Commutative()
    .Shape(BroadcastShape)
    .NotDifferentiable();

FERRY_OP("LogicalNot").Input("x: bool").Output("y: bool").Shape(UnchangedShape).NotDifferentiable();

// With & and | on the numbers, for loops without branches.
struct AndF {
  static bool Apply(bool x, bool y) { return static_cast<unsigned>(x) & static_cast<unsigned>(y); }
};
struct OrF {
  static bool Apply(bool x, bool y) { return static_cast<unsigned>(x) | static_cast<unsigned>(y); }
};
struct NotF {
  static bool Apply(bool x) { return !x; }
};

bool Register() {
  const DType b = DType::kBool;
  RegisterBinaryFn("LogicalAnd", {&BinaryLoop<AndF, bool, bool>, b, b, kCheapGrain}, "");
  RegisterBinaryFn("LogicalOr", {&BinaryLoop<OrF, bool, bool>, b, b, kCheapGrain}, "");
  RegisterUnaryFn("LogicalNot", {&UnaryLoop<NotF, bool, bool>, b, b, kCheapGrain}, "");
  return true;
}
const bool registered = Register();

}  // namespace
}  // namespace ferry
