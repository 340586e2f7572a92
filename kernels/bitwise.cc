// Ops on the bits of integers: BitwiseAnd, BitwiseOr, BitwiseXor, Invert, LeftShift, RightShift.
#include <algorithm>

#include "kernels/elementwise.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

#define FERRY_INTEGERS "T: {int8, int16, int32, int64, uint8, uint16, uint32, uint64}"

FERRY_OP("Invert")
    .Input("x: T")
    .Output("y: T")
    .Attr(FERRY_INTEGERS)
    .Shape(UnchangedShape)
    .NotDifferentiable();

bool Define(const char* op) {
  OpBuilder b(op);
  b.Input("x: T").Input("y: T").Output("z: T").Attr(FERRY_INTEGERS).Shape(BroadcastShape);
  b.NotDifferentiable();
  const OpBuilder::Registrar registrar(b);
  return true;
}
const bool defined = Define("BitwiseAnd") && Define("BitwiseOr") && Define("BitwiseXor") &&
                     Define("LeftShift") && Define("RightShift");

struct InvertF {
  template <typename T>
  static T Apply(T x) {
    return static_cast<T>(~x);
  }
};
struct AndF {
  template <typename T>
  static T Apply(T x, T y) {
    return static_cast<T>(x & y);
  }
};
struct OrF {
  template <typename T>
  static T Apply(T x, T y) {
    return static_cast<T>(x | y);
  }
};
struct XorF {
  template <typename T>
  static T Apply(T x, T y) {
    return static_cast<T>(x ^ y);
  }
};
// Shifts by less than 0 are by 0, those by more than there are bits by one less than that.
template <typename T>
int Distance(T y) {
  constexpr T kMost = sizeof(T) * 8 - 1;
  return static_cast<int>(std::clamp(y, T(0), kMost));
}
struct LeftShiftF {
  template <typename T>
  static T Apply(T x, T y) {
    return static_cast<T>(static_cast<uint64_t>(x) << Distance(y));
  }
};
struct RightShiftF {
  template <typename T>
  static T Apply(T x, T y) {
    return static_cast<T>(x >> Distance(y));
  }
};

const bool registered = RegisterUnary<InvertF>(IntTypes(), "Invert") &&
                        RegisterBinary<AndF>(IntTypes(), "BitwiseAnd") &&
                        RegisterBinary<OrF>(IntTypes(), "BitwiseOr") &&
                        RegisterBinary<XorF>(IntTypes(), "BitwiseXor") &&
                        RegisterBinary<LeftShiftF>(IntTypes(), "LeftShift") &&
                        RegisterBinary<RightShiftF>(IntTypes(), "RightShift");

}  // namespace
}  // namespace ferry
