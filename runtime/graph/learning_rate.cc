// Learning rate schedules; see the header.
#include "runtime/graph/learning_rate.h"

#include <limits>

#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"

namespace ferry {
namespace {

Scope AsScope(const Scope& s) { return s.WithOpName(s.prefix() + "/"); }

// A binary op with a constant operand that is named under it: "mul" with "mul/x".
Output WithConst(const Scope& s, Output (*op)(const Scope&, Output, Output), const char* name,
                 DType dtype, double x, Output y) {
  const Scope sub = s.NewSubScope(name);
  Output c = ScalarConst(sub.WithOpName("x"), dtype, x);
  return op(s.WithOpName(sub.prefix() + "/"), c, y);
}

Output InitialRate(const Scope& s, double learning_rate) {
  return ops::Const(s.WithOpName("initial_learning_rate"), static_cast<float>(learning_rate));
}

// A number that is cast to float: the constant "Cast/x", and "Cast" for a whole number.
Output Number(const Scope& s, double value) {
  return ops::Const(s.NewSubScope("Cast").WithOpName("x"), static_cast<float>(value));
}
Output WholeNumber(const Scope& s, int64_t value) {
  const Scope sub = s.NewSubScope("Cast");
  Output x = value <= std::numeric_limits<int32_t>::max()
                 ? ops::Const(sub.WithOpName("x"), static_cast<int32_t>(value))
                 : ops::Const(sub.WithOpName("x"), value);
  return ops::Cast(AsScope(sub), x, DType::kFloat);
}
Output Step(const Scope& s, Output global_step) {
  if (global_step.node == nullptr) {
    s.UpdateStatus(InvalidArgument("global_step is required for a learning rate schedule"));
    return Output();
  }
  return BaseType(global_step.dtype()) == DType::kFloat ? global_step
                                                        : ops::Cast(s, global_step, DType::kFloat);
}

// `rate`: a tensor, or empty, and then decay_rate's constant.
Output Exponential(const Scope& scope, double learning_rate, Output global_step,
                   int64_t decay_steps, Output rate, double decay_rate, bool staircase) {
  const Scope s = scope.NewSubScope("ExponentialDecay");
  Output initial = InitialRate(s, learning_rate);
  Output steps = WholeNumber(s, decay_steps);
  if (rate.node == nullptr) rate = Number(s, decay_rate);
  Output step = Step(s, global_step);
  Output power = ops::RealDiv(s.WithOpName("truediv"), step, steps);
  if (staircase) power = ops::Floor(s, power);
  return ops::Mul(AsScope(s), initial, ops::Pow(s, rate, power));
}

}  // namespace

Output ExponentialDecay(const Scope& s, double learning_rate, Output global_step,
                        int64_t decay_steps, double decay_rate, bool staircase) {
  return Exponential(s, learning_rate, global_step, decay_steps, Output(), decay_rate, staircase);
}

Output NaturalExpDecay(const Scope& s, double learning_rate, Output global_step,
                       int64_t decay_steps, double decay_rate, bool staircase) {
  const Scope neg = s.NewSubScope("Neg");
  Output x = ops::Const(neg.WithOpName("x"), static_cast<float>(decay_rate));
  Output rate = ops::Exp(s, ops::Neg(AsScope(neg), x));
  return Exponential(s, learning_rate, global_step, decay_steps, rate, 0, staircase);
}

Output InverseTimeDecay(const Scope& scope, double learning_rate, Output global_step,
                        int64_t decay_steps, double decay_rate, bool staircase) {
  const Scope s = scope.NewSubScope("InverseTimeDecay");
  Output initial = InitialRate(s, learning_rate);
  Output steps = WholeNumber(s, decay_steps);
  Output rate = Number(s, decay_rate);
  Output passed = ops::RealDiv(s.WithOpName("truediv"), Step(s, global_step), steps);
  if (staircase) passed = ops::Floor(s, passed);
  Output one = ops::Cast(s, ops::Const<int32_t>(s, 1), DType::kFloat);
  Output below = ops::AddV2(s.WithOpName("Add"), one, ops::Mul(s, rate, passed));
  return ops::RealDiv(AsScope(s), initial, below);
}

Output PolynomialDecay(const Scope& scope, double learning_rate, Output global_step,
                       int64_t decay_steps, double end_learning_rate, double power, bool cycle) {
  const Scope s = scope.NewSubScope("PolynomialDecay");
  Output initial = InitialRate(s, learning_rate);
  Output end = Number(s, end_learning_rate), exponent = Number(s, power);
  Output step = Step(s, global_step);
  Output steps = WholeNumber(s, decay_steps);
  if (cycle) {
    const Scope zero = s.NewSubScope("Equal"), div = s.NewSubScope("truediv");
    Output first = ops::Equal(AsScope(zero), step, ops::Const<float>(zero.WithOpName("y"), 0));
    Output by = ops::Const(div.WithOpName("y"), static_cast<float>(decay_steps));
    Output cycles =
        NodeBuilder(s, "Ceil").Input(ops::RealDiv(AsScope(div), step, by)).BuildOutput();
    const Scope select = s.NewSubScope("SelectV2");
    Output once = ops::Const<float>(select.WithOpName("t"), 1);
    steps = ops::Mul(s, steps, ops::SelectV2(AsScope(select), first, once, cycles));
  } else {
    step = ops::Minimum(s, step, steps);
  }
  Output passed = ops::RealDiv(s.WithOpName("truediv"), step, steps);
  Output span = ops::Sub(s.WithOpName("sub"), initial, end);
  Output left = WithConst(s, ops::Sub, "sub", DType::kFloat, 1, passed);
  return ops::AddV2(AsScope(s), ops::Mul(s, span, ops::Pow(s, left, exponent)), end);
}

Output CosineDecay(const Scope& scope, double learning_rate, Output global_step,
                   int64_t decay_steps, double alpha) {
  constexpr double kPi = 3.14159265358979323846;
  const Scope s = scope.NewSubScope("CosineDecay");
  Output initial = InitialRate(s, learning_rate);
  Output steps = WholeNumber(s, decay_steps);
  Output step = ops::Minimum(s, Step(s, global_step), steps);
  Output passed = ops::RealDiv(s.WithOpName("truediv"), step, steps);
  Output pi = ops::Const(s, static_cast<float>(kPi));
  Output cosine =
      NodeBuilder(s, "Cos").Input(ops::Mul(s.WithOpName("mul"), pi, passed)).BuildOutput();
  Output half = WithConst(s, ops::Mul, "mul", DType::kFloat, 0.5,
                          WithConst(s, ops::AddV2, "add", DType::kFloat, 1, cosine));
  Output share = WithConst(s, ops::Mul, "mul", DType::kFloat, 1 - alpha, half);
  const Scope add = s.NewSubScope("add");
  Output floor = ops::Const(add.WithOpName("y"), static_cast<float>(alpha));
  return ops::Mul(s, initial, ops::AddV2(AsScope(add), share, floor));
}

Output PiecewiseConstant(const Scope& scope, Output x, const std::vector<double>& boundaries,
                         const std::vector<double>& values) {
  if (boundaries.size() + 1 != values.size()) {
    scope.UpdateStatus(InvalidArgument(
        "The length of boundaries should be 1 less than the length of values, found ",
        boundaries.size(), " and ", values.size()));
    return Output();
  }
  for (size_t i = 1; i < boundaries.size(); ++i) {
    if (boundaries[i] <= boundaries[i - 1]) {
      scope.UpdateStatus(InvalidArgument("boundaries must increase, found ", boundaries[i],
                                         " after ", boundaries[i - 1]));
      return Output();
    }
  }
  const Scope s = scope.NewSubScope("PiecewiseConstant");
  Output rate = ops::Const(s, static_cast<float>(values.back()));
  for (size_t i = boundaries.size(); i-- > 0;) {
    if (!s.ok()) return Output();
    Output up_to = ScalarConst(s, BaseType(x.dtype()), boundaries[i]);
    Output value = ops::Const(s, static_cast<float>(values[i]));
    rate = ops::SelectV2(s, ops::LessEqual(s, x, up_to), value, rate);
  }
  return rate;
}

}  // namespace ferry
