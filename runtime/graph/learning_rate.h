// Schedules: learning rates, float scalars, that depend on the global step. Nodes are named as
// those of tf.compat.v1.train's functions. `decay_steps` is positive.
#ifndef FERRY_RUNTIME_GRAPH_LEARNING_RATE_H_
#define FERRY_RUNTIME_GRAPH_LEARNING_RATE_H_

#include <cstdint>
#include <vector>

#include "runtime/graph/scope.h"

namespace ferry {

// learning_rate * decay_rate ^ (global_step / decay_steps), the exponent rounded down with
// `staircase`.
Output ExponentialDecay(const Scope& s, double learning_rate, Output global_step,
                        int64_t decay_steps, double decay_rate, bool staircase = false);
// The same with e ^ -decay_rate as the rate.
Output NaturalExpDecay(const Scope& s, double learning_rate, Output global_step,
                       int64_t decay_steps, double decay_rate, bool staircase = false);
// learning_rate / (1 + decay_rate * global_step / decay_steps), the quotient rounded down with
// `staircase`.
Output InverseTimeDecay(const Scope& s, double learning_rate, Output global_step,
                        int64_t decay_steps, double decay_rate, bool staircase = false);
// (learning_rate - end) * (1 - global_step / decay_steps) ^ power + end, until decay_steps; with
// `cycle` decay_steps grows to its next multiple instead.
Output PolynomialDecay(const Scope& s, double learning_rate, Output global_step,
                       int64_t decay_steps, double end_learning_rate = 0.0001, double power = 1,
                       bool cycle = false);
// From learning_rate to alpha * learning_rate along half a cosine: Loshchilov and Hutter, "SGDR:
// stochastic gradient descent with warm restarts" (2017), without restarts.
Output CosineDecay(const Scope& s, double learning_rate, Output global_step, int64_t decay_steps,
                   double alpha = 0);
// values[i] for the first i with x <= boundaries[i], the last value beyond. InvalidArgument unless
// there is one value more than boundaries, which increase.
Output PiecewiseConstant(const Scope& s, Output x, const std::vector<double>& boundaries,
                         const std::vector<double>& values);

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_LEARNING_RATE_H_
