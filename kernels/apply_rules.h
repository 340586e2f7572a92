// How the optimizers' ops update an element of a variable and of its slots: the formulas, for every
// device.
//
// Writing g for the gradient, in TensorFlow's formulas:
//   GradientDescent  var -= alpha g
//   Momentum         accum = momentum accum + g
//                    var -= lr accum             (Nesterov: var -= lr g + lr momentum accum)
//   Adam             alpha = lr sqrt(1 - beta2_power) / (1 - beta1_power)
//                    m += (g - m) (1 - beta1);  v += (g^2 - v) (1 - beta2)
//                    var -= alpha m / (sqrt(v) + epsilon)
//                    (Nesterov: beta1 m + (1 - beta1) g in place of m)
//   Adagrad          accum += g^2;  var -= lr g / sqrt(accum)     (V2: / (sqrt(accum) + epsilon))
//   RMSProp          ms += (g^2 - ms) (1 - rho)
//                    mom = momentum mom + lr g / sqrt(ms + epsilon);  var -= mom
//   CenteredRMSProp  the same with mg += (g - mg) (1 - rho) and ms - mg^2 in place of ms
//   Adadelta         accum = rho accum + (1 - rho) g^2
//                    u = g sqrt(accum_update + epsilon) / sqrt(accum + epsilon);  var -= lr u
//                    accum_update = rho accum_update + (1 - rho) u^2
//   Ftrl             with p = -lr_power and a = accum + g^2:
//                    linear += g - (a^p - accum^p) / lr var;  accum = a
//                    var = (l1 sign(linear) - linear) / (a^p / lr + 2 l2) if |linear| > l1, else 0
//                    (multiply_linear_by_lr: linear, l1 and l2 times lr)
//   FtrlV2           the same with g + 2 l2_shrinkage var in linear's g
//   ProximalGradientDescent, ProximalAdagrad
//                    v = var - r g, with r = alpha, or lr / sqrt(accum) after accum += g^2
//                    var = sign(v) max(|v| - r l1, 0) / (1 + r l2)
//   AdagradDA        s += g;  q += g^2, with t = global_step:
//                    var = -lr sign(s) max(|s| - l1 t, 0) / (l2 t lr + sqrt(q))
//   AdaMax           m += (g - m) (1 - beta1);  v = max(beta2 v, |g|)
//                    var -= lr / (1 - beta1_power) m / (v + epsilon)
//   AddSign          m = beta m + (1 - beta) g;  var -= lr (alpha + sign_decay sign(g) sign(m)) g
//   PowerSign        the same m;  var -= lr exp(logbase sign_decay sign(g) sign(m)) g
//   KerasMomentum    accum = momentum accum - lr g
//                    var += accum                (Nesterov: var += momentum accum - lr g)
//   AdamWithAmsgrad  Adam's with vhat = max(vhat, v) in place of v in the step
#ifndef FERRY_KERNELS_APPLY_RULES_H_
#define FERRY_KERNELS_APPLY_RULES_H_

#include <cmath>

#include "kernels/host_device.h"

namespace ferry {
namespace apply_rules {

// A rule says how one op updates its variables. Its op's inputs are kRefs references (the variable,
// then its slots), scalars, and the gradient (number kGrad), named kInputs. A rule is made from the
// scalars (s(i) is the value of input i) and called with an element of the gradient and of each
// variable. C is the type to compute in; kFlag is the op's boolean attribute kFlagName, if it has
// one. The op "SparseApply…" has its indices as an input of their own behind the gradient.

struct RuleBase {
  static constexpr const char* kFlagName = nullptr;
  static constexpr int kInt64Input = -1;  // The one scalar that is an int64.
  // What the value of the scalar input i of the sparse op has to be and isn't ("positive"), or
  // null.
  static constexpr const char* Lacks(int, double) { return nullptr; }
};

template <typename C>
FERRY_HOST_DEVICE C SignOf(C x) {
  return static_cast<C>((x > C(0)) - (x < C(0)));
}
template <typename C>
FERRY_HOST_DEVICE C MagnitudeOf(C x) {
  return x < C(0) ? -x : x;
}
// What soft-thresholding by `by` leaves of x.
template <typename C>
FERRY_HOST_DEVICE C Shrunk(C x, C by) {
  const C left = MagnitudeOf(x) - by;
  return left > C(0) ? SignOf(x) * left : C(0);
}

template <typename C, bool kFlag>
struct GradientDescent : RuleBase {
  static constexpr const char* kInputs[] = {"var", "alpha", "delta"};
  static constexpr int kRefs = 1, kGrad = 2;
  const C alpha;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit GradientDescent(const Scalars& s) : alpha(s(1)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var) const { var -= g * alpha; }
};

template <typename C, bool kNesterov>
struct Momentum : RuleBase {
  static constexpr const char* kInputs[] = {"var", "accum", "lr", "grad", "momentum"};
  static constexpr const char* kFlagName = "use_nesterov";
  static constexpr int kRefs = 2, kGrad = 3;
  const C lr, momentum;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit Momentum(const Scalars& s) : lr(s(2)), momentum(s(4)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& accum) const {
    accum = accum * momentum + g;
    var -= kNesterov ? g * lr + accum * momentum * lr : accum * lr;
  }
};

template <typename C, bool kNesterov>
struct Adam : RuleBase {
  static constexpr const char* kInputs[] = {"var", "m",     "v",     "beta1_power", "beta2_power",
                                            "lr",  "beta1", "beta2", "epsilon",     "grad"};
  static constexpr const char* kFlagName = "use_nesterov";
  static constexpr int kRefs = 3, kGrad = 9;
  const C alpha, beta1, beta2, epsilon;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit Adam(const Scalars& s)
      : alpha(s(5) * std::sqrt(C(1) - s(4)) / (C(1) - s(3))),
        beta1(s(6)),
        beta2(s(7)),
        epsilon(s(8)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& m, C& v) const {
    m += (g - m) * (C(1) - beta1);
    v += (g * g - v) * (C(1) - beta2);
    const C step = kNesterov ? g * (C(1) - beta1) + beta1 * m : m;
    var -= step * alpha / (std::sqrt(v) + epsilon);
  }
};

template <typename C, bool kUpdateSlots>
struct Adagrad : RuleBase {
  static constexpr const char* kInputs[] = {"var", "accum", "lr", "grad"};
  static constexpr const char* kFlagName = "update_slots";
  static constexpr int kRefs = 2, kGrad = 3;
  const C lr;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit Adagrad(const Scalars& s) : lr(s(2)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& accum) const {
    if (kUpdateSlots) accum += g * g;
    var -= g * lr / std::sqrt(accum);
  }
};

template <typename C, bool kUpdateSlots>
struct AdagradV2 : RuleBase {
  static constexpr const char* kInputs[] = {"var", "accum", "lr", "epsilon", "grad"};
  static constexpr const char* kFlagName = "update_slots";
  static constexpr int kRefs = 2, kGrad = 4;
  const C lr, epsilon;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit AdagradV2(const Scalars& s) : lr(s(2)), epsilon(s(3)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& accum) const {
    if (kUpdateSlots) accum += g * g;
    var -= g * lr / (std::sqrt(accum) + epsilon);
  }
};

template <typename C, bool kFlag>
struct RmsProp : RuleBase {
  static constexpr const char* kInputs[] = {"var", "ms",       "mom",     "lr",
                                            "rho", "momentum", "epsilon", "grad"};
  static constexpr int kRefs = 3, kGrad = 7;
  const C lr, rho, momentum, epsilon;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit RmsProp(const Scalars& s)
      : lr(s(3)), rho(s(4)), momentum(s(5)), epsilon(s(6)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& ms, C& mom) const {
    ms += (g * g - ms) * (C(1) - rho);
    mom = mom * momentum + g * lr / std::sqrt(ms + epsilon);
    var -= mom;
  }
};

template <typename C, bool kFlag>
struct CenteredRmsProp : RuleBase {
  static constexpr const char* kInputs[] = {"var", "mg",       "ms",      "mom", "lr",
                                            "rho", "momentum", "epsilon", "grad"};
  static constexpr int kRefs = 4, kGrad = 8;
  const C lr, rho, momentum, epsilon;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit CenteredRmsProp(const Scalars& s)
      : lr(s(4)), rho(s(5)), momentum(s(6)), epsilon(s(7)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& mg, C& ms, C& mom) const {
    ms += (g * g - ms) * (C(1) - rho);
    mg += (g - mg) * (C(1) - rho);
    mom = mom * momentum + g * lr / std::sqrt(ms - mg * mg + epsilon);
    var -= mom;
  }
};

template <typename C, bool kFlag>
struct Adadelta : RuleBase {
  static constexpr const char* kInputs[] = {"var", "accum",   "accum_update", "lr",
                                            "rho", "epsilon", "grad"};
  static constexpr int kRefs = 3, kGrad = 6;
  const C lr, rho, epsilon;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit Adadelta(const Scalars& s) : lr(s(3)), rho(s(4)), epsilon(s(5)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& accum, C& accum_update) const {
    accum = accum * rho + g * g * (C(1) - rho);
    const C update = std::sqrt(accum_update + epsilon) / std::sqrt(accum + epsilon) * g;
    var -= update * lr;
    accum_update = accum_update * rho + update * update * (C(1) - rho);
  }
};

// What both forms of Ftrl do once the gradient is known.
template <typename C, bool kMultiply>
struct FtrlStep : RuleBase {
  static constexpr const char* kFlagName = "multiply_linear_by_lr";
  static constexpr int kRefs = 3, kGrad = 3;
  const C lr, l1, l2, power;
  const bool root;
  FERRY_HOST_DEVICE FtrlStep(C lr, C l1, C l2, C lr_power)
      : lr(lr), l1(l1), l2(l2), power(-lr_power), root(lr_power == C(-0.5)) {}
  FERRY_HOST_DEVICE C Power(C x) const { return root ? std::sqrt(x) : std::pow(x, power); }
  // `pull`: the gradient that moves `linear`.
  FERRY_HOST_DEVICE void Step(C g, C pull, C& var, C& accum, C& linear) const {
    const C sum = accum + g * g;
    const C now = Power(sum), sigma = now - Power(accum);
    const C most = kMultiply ? l1 * lr : l1;
    linear += kMultiply ? pull * lr - sigma * var : pull - sigma / lr * var;
    const C below = kMultiply ? now + C(2) * l2 * lr : now / lr + C(2) * l2;
    var = MagnitudeOf(linear) > most ? (most * SignOf(linear) - linear) / below : C(0);
    accum = sum;
  }
  // `first`: the number of the learning rate, which l1, l2 (and l2_shrinkage) and lr_power follow.
  static constexpr const char* Misses(int i, int first, int last, double value) {
    if (i == first) {
      return value > 0 || (kMultiply && value == 0) ? nullptr : "positive";
    }
    if (i == last) return value <= 0 ? nullptr : "non-positive";
    return value >= 0 ? nullptr : "non-negative";
  }
};

template <typename C, bool kMultiply>
struct Ftrl : FtrlStep<C, kMultiply> {
  static constexpr const char* kInputs[] = {"var", "accum", "linear", "grad",
                                            "lr",  "l1",    "l2",     "lr_power"};
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit Ftrl(const Scalars& s)
      : FtrlStep<C, kMultiply>(s(4), s(5), s(6), s(7)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& accum, C& linear) const {
    this->Step(g, g, var, accum, linear);
  }
  static constexpr const char* Lacks(int i, double value) {
    return FtrlStep<C, kMultiply>::Misses(i, 4, 7, value);
  }
};

template <typename C, bool kMultiply>
struct FtrlV2 : FtrlStep<C, kMultiply> {
  static constexpr const char* kInputs[] = {"var", "accum", "linear",       "grad",    "lr",
                                            "l1",  "l2",    "l2_shrinkage", "lr_power"};
  const C shrinkage;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit FtrlV2(const Scalars& s)
      : FtrlStep<C, kMultiply>(s(4), s(5), s(6), s(8)), shrinkage(s(7)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& accum, C& linear) const {
    this->Step(g, g + C(2) * shrinkage * var, var, accum, linear);
  }
  static constexpr const char* Lacks(int i, double value) {
    return FtrlStep<C, kMultiply>::Misses(i, 4, 8, value);
  }
};

template <typename C, bool kFlag>
struct ProximalGradientDescent : RuleBase {
  static constexpr const char* kInputs[] = {"var", "alpha", "l1", "l2", "delta"};
  static constexpr int kRefs = 1, kGrad = 4;
  const C alpha, l1, l2;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit ProximalGradientDescent(const Scalars& s)
      : alpha(s(1)), l1(s(2)), l2(s(3)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var) const {
    const C moved = var - g * alpha;
    var = (l1 > C(0) ? Shrunk(moved, alpha * l1) : moved) / (C(1) + l2 * alpha);
  }
};

template <typename C, bool kFlag>
struct ProximalAdagrad : RuleBase {
  static constexpr const char* kInputs[] = {"var", "accum", "lr", "l1", "l2", "grad"};
  static constexpr int kRefs = 2, kGrad = 5;
  const C lr, l1, l2;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit ProximalAdagrad(const Scalars& s) : lr(s(2)), l1(s(3)), l2(s(4)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& accum) const {
    accum += g * g;
    const C rate = lr / std::sqrt(accum);
    const C moved = var - g * rate;
    var = (l1 > C(0) ? Shrunk(moved, rate * l1) : moved) / (C(1) + l2 * rate);
  }
};

template <typename C, bool kFlag>
struct AdagradDA : RuleBase {
  static constexpr const char* kInputs[] = {
      "var", "gradient_accumulator", "gradient_squared_accumulator", "grad", "lr", "l1",
      "l2",  "global_step"};
  static constexpr int kRefs = 3, kGrad = 3, kInt64Input = 7;
  const C lr, l1, l2, step;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit AdagradDA(const Scalars& s)
      : lr(s(4)), l1(s(5)), l2(s(6)), step(s(7)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& sum, C& squares) const {
    sum += g;
    squares += g * g;
    const C pull = l1 > C(0) ? Shrunk(sum, l1 * step) : sum;
    var = -lr * pull / (l2 * step * lr + std::sqrt(squares));
  }
};

template <typename C, bool kFlag>
struct AdaMax : RuleBase {
  static constexpr const char* kInputs[] = {"var",   "m",     "v",       "beta1_power", "lr",
                                            "beta1", "beta2", "epsilon", "grad"};
  static constexpr int kRefs = 3, kGrad = 8;
  const C rate, beta1, beta2, epsilon;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit AdaMax(const Scalars& s)
      : rate(s(4) / (C(1) - s(3))), beta1(s(5)), beta2(s(6)), epsilon(s(7)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& m, C& v) const {
    m += (g - m) * (C(1) - beta1);
    const C decayed = beta2 * v, size = MagnitudeOf(g);
    v = decayed > size ? decayed : size;
    var -= rate * m / (v + epsilon);
  }
};

template <typename C, bool kFlag>
struct AddSign : RuleBase {
  static constexpr const char* kInputs[] = {"var",        "m",    "lr",  "alpha",
                                            "sign_decay", "beta", "grad"};
  static constexpr int kRefs = 2, kGrad = 6;
  const C lr, alpha, decay, beta;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit AddSign(const Scalars& s)
      : lr(s(2)), alpha(s(3)), decay(s(4)), beta(s(5)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& m) const {
    m = m * beta + g * (C(1) - beta);
    var -= lr * (alpha + decay * (SignOf(g) * SignOf(m))) * g;
  }
};

template <typename C, bool kFlag>
struct PowerSign : RuleBase {
  static constexpr const char* kInputs[] = {"var",        "m",    "lr",  "logbase",
                                            "sign_decay", "beta", "grad"};
  static constexpr int kRefs = 2, kGrad = 6;
  const C lr, power, beta;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit PowerSign(const Scalars& s)
      : lr(s(2)), power(s(3) * s(4)), beta(s(5)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& m) const {
    m = m * beta + g * (C(1) - beta);
    var -= lr * std::exp(power * (SignOf(g) * SignOf(m))) * g;
  }
};

template <typename C, bool kNesterov>
struct KerasMomentum : RuleBase {
  static constexpr const char* kInputs[] = {"var", "accum", "lr", "grad", "momentum"};
  static constexpr const char* kFlagName = "use_nesterov";
  static constexpr int kRefs = 2, kGrad = 3;
  const C lr, momentum;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit KerasMomentum(const Scalars& s) : lr(s(2)), momentum(s(4)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& accum) const {
    accum = accum * momentum - g * lr;
    var += kNesterov ? accum * momentum - g * lr : accum;
  }
};

template <typename C, bool kFlag>
struct AdamWithAmsgrad : RuleBase {
  static constexpr const char* kInputs[] = {"var",         "m",           "v",   "vhat",
                                            "beta1_power", "beta2_power", "lr",  "beta1",
                                            "beta2",       "epsilon",     "grad"};
  static constexpr int kRefs = 4, kGrad = 10;
  const C alpha, beta1, beta2, epsilon;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit AdamWithAmsgrad(const Scalars& s)
      : alpha(s(6) * std::sqrt(C(1) - s(5)) / (C(1) - s(4))),
        beta1(s(7)),
        beta2(s(8)),
        epsilon(s(9)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var, C& m, C& v, C& vhat) const {
    m += (g - m) * (C(1) - beta1);
    v += (g * g - v) * (C(1) - beta2);
    vhat = vhat > v ? vhat : v;
    var -= m * alpha / (std::sqrt(vhat) + epsilon);
  }
};

}  // namespace apply_rules
}  // namespace ferry

#endif  // FERRY_KERNELS_APPLY_RULES_H_
