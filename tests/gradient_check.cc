// Central differences against symbolic gradients.
#include "tests/gradient_check.h"

#include <algorithm>
#include <cmath>

#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/session/session.h"

namespace ferry::testing {

Tensor TestValues(const TensorShape& shape, double low, double high, uint32_t seed) {
  Tensor t = *Tensor::Allocate(DType::kDouble, shape);
  uint32_t state = seed * 747796405u + 2891336453u;
  for (double& v : t.span<double>()) {
    state = state * 1664525u + 1013904223u;
    v = low + (high - low) * (static_cast<double>(state >> 8) / (1 << 24));
  }
  return t;
}

absl::StatusOr<double> MaxGradientError(const Scope& s, Output y, const std::vector<Output>& xs,
                                        const std::vector<Tensor>& x_values, double step,
                                        const std::string& device) {
  FERRY_RETURN_IF_ERROR(s.status());
  SessionOptions options;
  options.device = device;
  Session session(s.graph(), options);
  std::vector<std::pair<Output, Tensor>> feeds;
  for (size_t i = 0; i < xs.size(); ++i) feeds.emplace_back(xs[i], x_values[i].DeepCopy().value());
  std::vector<Tensor> out;
  FERRY_RETURN_IF_ERROR(session.Run(feeds, std::vector<Output>{y}, {}, &out));
  const Tensor weights = TestValues(out[0].shape(), 0.5, 1.5, 99);

  std::vector<Output> grads;
  FERRY_RETURN_IF_ERROR(AddSymbolicGradients(s, {y}, xs, &grads, {ops::Const(s, weights)}));
  auto loss = [&]() -> absl::StatusOr<double> {
    FERRY_RETURN_IF_ERROR(session.Run(feeds, std::vector<Output>{y}, {}, &out));
    double sum = 0;
    for (int64_t i = 0; i < weights.num_elements(); ++i) {
      sum += weights.data<double>()[i] * out[0].data<double>()[i];
    }
    return sum;
  };
  double worst = 0;
  for (size_t x = 0; x < xs.size(); ++x) {
    Tensor symbolic;
    if (grads[x].node != nullptr) {
      FERRY_RETURN_IF_ERROR(session.Run(feeds, {grads[x]}, {}, &out));
      symbolic = out[0];
      if (symbolic.shape() != x_values[x].shape()) {
        return Internal("the gradient for ", xs[x].name(), " has shape ",
                        symbolic.shape().DebugString(), ", expected ",
                        x_values[x].shape().DebugString());
      }
      out.clear();
    }
    for (int64_t i = 0; i < x_values[x].num_elements(); ++i) {
      double& element = feeds[x].second.data<double>()[i];
      const double at = element;
      element = at + step;
      FERRY_ASSIGN_OR_RETURN(const double above, loss());
      element = at - step;
      FERRY_ASSIGN_OR_RETURN(const double below, loss());
      element = at;
      const double numeric = (above - below) / (2 * step);
      const double got = symbolic.initialized() ? symbolic.data<double>()[i] : 0;
      const double error = std::abs(got - numeric) / std::max(1.0, std::abs(numeric));
      if (std::isnan(error)) return Internal("the gradient for ", xs[x].name(), " is NaN");
      worst = std::max(worst, error);
    }
  }
  return worst;
}

}  // namespace ferry::testing
