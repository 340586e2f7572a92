// Checks symbolic gradients against central differences.
#ifndef FERRY_TESTS_GRADIENT_CHECK_H_
#define FERRY_TESTS_GRADIENT_CHECK_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/graph/scope.h"
#include "runtime/tensor/tensor.h"

namespace ferry::testing {

// With L = sum(w * y) for fixed weights w, the largest of |symbolic - numeric| / max(1, |numeric|)
// over all elements of all dL/dx. `y` and the placeholders `xs` are double; `x_values` are where
// they are differentiated. An x that gets no symbolic gradient counts as having zeros. `device` as
// in SessionOptions.
absl::StatusOr<double> MaxGradientError(const Scope& s, Output y, const std::vector<Output>& xs,
                                        const std::vector<Tensor>& x_values, double step = 1e-5,
                                        const std::string& device = "cpu");

// Doubles that look random but are the same each time, in [low, high).
Tensor TestValues(const TensorShape& shape, double low = -2, double high = 2, uint32_t seed = 1);

}  // namespace ferry::testing

#endif  // FERRY_TESTS_GRADIENT_CHECK_H_
