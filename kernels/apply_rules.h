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
// one.

template <typename C, bool kFlag>
struct GradientDescent {
  static constexpr const char* kInputs[] = {"var", "alpha", "delta"};
  static constexpr const char* kFlagName = nullptr;
  static constexpr int kRefs = 1, kGrad = 2;
  const C alpha;
  template <typename Scalars>
  FERRY_HOST_DEVICE explicit GradientDescent(const Scalars& s) : alpha(s(1)) {}
  FERRY_HOST_DEVICE void operator()(C g, C& var) const { var -= g * alpha; }
};

template <typename C, bool kNesterov>
struct Momentum {
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
struct Adam {
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
struct Adagrad {
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
struct AdagradV2 {
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
struct RmsProp {
  static constexpr const char* kInputs[] = {"var", "ms",       "mom",     "lr",
                                            "rho", "momentum", "epsilon", "grad"};
  static constexpr const char* kFlagName = nullptr;
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
struct CenteredRmsProp {
  static constexpr const char* kInputs[] = {"var", "mg",       "ms",      "mom", "lr",
                                            "rho", "momentum", "epsilon", "grad"};
  static constexpr const char* kFlagName = nullptr;
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

}  // namespace apply_rules
}  // namespace ferry

#endif  // FERRY_KERNELS_APPLY_RULES_H_
