// Metrics that add up over batches, in local variables: tf.compat.v1.metrics.
//
//   Metric accuracy = metrics::Accuracy(root, labels, predictions);
//   … Run accuracy.update_op for each batch, then fetch accuracy.value.
#ifndef FERRY_RUNTIME_GRAPH_METRICS_H_
#define FERRY_RUNTIME_GRAPH_METRICS_H_

#include <string>

#include "runtime/graph/scope.h"

namespace ferry {

// Float scalars. Both are 0 before the first update.
struct Metric {
  Output value;      // Over what was added so far; reads the variables only.
  Output update_op;  // Adds this batch; its value is the metric after that.
};

namespace metrics {

// The collection of the variables <name>/total and <name>/count, besides "local_variables".
inline constexpr char kMetricVariables[] = "metric_variables";

// Of all elements of `values` (numbers of any type).
Metric Mean(const Scope& s, Output values, const std::string& name = "mean");
// How many of `predictions` equal their label. They have one shape; predictions are cast to the
// labels' type.
Metric Accuracy(const Scope& s, Output labels, Output predictions,
                const std::string& name = "accuracy");

}  // namespace metrics
}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_METRICS_H_
