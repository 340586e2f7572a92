// Add, AddV2, Sub, Mul, SquaredDifference.
#include <string>

#include "kernels/constants.h"
#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// z = x + y:  dx = dz,  dy = dz
absl::Status AddGradient(GradientContext* c) {
  auto [dx, dy] =
      UnbroadcastGradients(c->scope(), c->input(0), c->input(1), c->grad(0), c->grad(0));
  c->set_input_grad(0, dx);
  c->set_input_grad(1, dy);
  return c->scope().status();
}

FERRY_OP("Add")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(
        "T: {bfloat16, half, float, double, uint8, int8, int16, int32, int64, complex64, "
        "complex128, string}")
    .Shape(BroadcastShape)
    .Gradient(AddGradient);

FERRY_OP("AddV2")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(
        "T: {bfloat16, half, float, double, uint8, uint16, uint32, uint64, int8, int16, int32, "
        "int64, complex64, complex128}")
    .Commutative()
    .Aggregate()
    .Shape(BroadcastShape)
    .Gradient(AddGradient);

FERRY_OP("Sub")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(
        "T: {bfloat16, half, float, double, uint8, int8, uint16, int16, int32, int64, "
        "complex64, complex128, uint32, uint64}")
    .Shape(BroadcastShape)
    // z = x - y:  dx = dz,  dy = -dz
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      auto [dx, dy] =
          UnbroadcastGradients(s, c->input(0), c->input(1), c->grad(0), ops::Neg(s, c->grad(0)));
      c->set_input_grad(0, dx);
      c->set_input_grad(1, dy);
      return s.status();
    });

FERRY_OP("Mul")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr(
        "T: {bfloat16, half, float, double, uint8, int8, uint16, int16, int32, uint32, uint64, "
        "int64, complex64, complex128}")
    .Commutative()
    .Shape(BroadcastShape)
    // z = x * y:  dx = dz * y,  dy = x * dz
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output by_y = ops::Mul(s, c->grad(0), c->input(1));
      const Output by_x = ops::Mul(s, c->input(0), c->grad(0));
      auto [dx, dy] = UnbroadcastGradients(s, c->input(0), c->input(1), by_y, by_x);
      c->set_input_grad(0, dx);
      c->set_input_grad(1, dy);
      return s.status();
    });

FERRY_OP("SquaredDifference")
    .Input("x: T")
    .Input("y: T")
    .Output("z: T")
    .Attr("T: {bfloat16, half, float, double, int32, int64, complex64, complex128}")
    .Commutative()
    .Shape(BroadcastShape)
    // z = (x - y)^2:  dx = 2 * dz * (x - y),  dy = -dx
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output twice = ops::Mul(s, ConstLike(s, c->grad(0), 2), c->grad(0));
      const Output d = ops::Mul(s, twice, ops::Sub(s, c->input(0), c->input(1)));
      auto [dx, dy] = UnbroadcastGradients(s, c->input(0), c->input(1), d, ops::Neg(s, d));
      c->set_input_grad(0, dx);
      c->set_input_grad(1, dy);
      return s.status();
    });

struct AddF {
  template <typename T>
  static T Apply(T x, T y) {
    return static_cast<T>(static_cast<Wrap<T>>(x) + static_cast<Wrap<T>>(y));
  }
};
struct SubF {
  template <typename T>
  static T Apply(T x, T y) {
    return static_cast<T>(static_cast<Wrap<T>>(x) - static_cast<Wrap<T>>(y));
  }
};
struct MulF {
  template <typename T>
  static T Apply(T x, T y) {
    return static_cast<T>(static_cast<Wrap<T>>(x) * static_cast<Wrap<T>>(y));
  }
};
struct SquaredDifferenceF {
  template <typename T>
  static T Apply(T x, T y) {
    const T d = SubF::Apply(x, y);
    return MulF::Apply(d, d);
  }
};
struct JoinF {
  static std::string Apply(const std::string& x, const std::string& y) { return x + y; }
};

const bool registered =
    RegisterBinary<AddF>(Join<Join<FloatTypes, SignedTypes>, Types<uint8_t>>(), "Add") &&
    RegisterBinary<JoinF>(Types<std::string>(), "Add") &&
    RegisterBinary<AddF>(NumberTypes(), "AddV2") && RegisterBinary<SubF>(NumberTypes(), "Sub") &&
    RegisterBinary<MulF>(NumberTypes(), "Mul") &&
    RegisterBinary<SquaredDifferenceF>(Join<FloatTypes, Types<int32_t, int64_t>>(),
                                       "SquaredDifference");

}  // namespace
}  // namespace ferry
