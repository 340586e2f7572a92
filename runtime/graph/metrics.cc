// Streaming metrics.
#include "runtime/graph/metrics.h"

#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"

namespace ferry::metrics {
namespace {

Output AsFloat(const Scope& s, Output x) {
  return BaseType(x.dtype()) == DType::kFloat ? x : ops::Cast(s, x, DType::kFloat);
}

// Their mean, in the scope of its own that `s` is.
Metric MeanIn(const Scope& s, Output values) {
  values = AsFloat(s, values);
  VariableOptions local;
  local.trainable = false;
  local.initializer = ZerosInitializer();
  local.collections = {kLocalVariables, kMetricVariables};
  const VariableHandle total = GetVariable(s, "total", TensorShape(), DType::kFloat, local);
  const VariableHandle count = GetVariable(s, "count", TensorShape(), DType::kFloat, local);
  Output number = AsFloat(s, ops::Size(s, values));
  if (!s.ok()) return Metric();
  Output total_now =
      ops::AssignAdd(s.ColocateWith(total.ref.node), total.ref, ops::ReduceSum(s, values));
  Output count_now = ops::AssignAdd(
      s.ColocateWith(count.ref.node).WithControlDependencies({values.node}), count.ref, number);
  Metric m;
  m.value = ops::DivNoNan(s.WithOpName("value"), total.read, count.read);
  m.update_op = ops::DivNoNan(s.WithOpName("update_op"), total_now, count_now);
  return m;
}

}  // namespace

Metric Mean(const Scope& s, Output values, const std::string& name) {
  return MeanIn(s.NewSubScope(name), values);
}

Metric Accuracy(const Scope& outer, Output labels, Output predictions, const std::string& name) {
  const Scope s = outer.NewSubScope(name);
  if (!s.ok()) return Metric();
  const DType type = BaseType(labels.dtype());
  if (BaseType(predictions.dtype()) != type) predictions = ops::Cast(s, predictions, type);
  return MeanIn(s, AsFloat(s, ops::Equal(s, labels, predictions)));
}

}  // namespace ferry::metrics
