// Moving averages of variables, for evaluation with smoother weights: the graph of TensorFlow's
// compat.v1 ExponentialMovingAverage, node for node.
//
//   Node* train_op = optimizer.Minimize(root, loss, {.global_step = step});
//   ExponentialMovingAverage ema(0.999, step.read);
//   Node* train_and_average = ema.Apply(root.WithControlDependencies({train_op}));
//
// and where the model is used, a Saver that puts the averages into the variables themselves:
//
//   SaverOptions options;
//   FERRY_ASSIGN_OR_RETURN(options.var_map, ema.variables_to_restore(graph));
#ifndef FERRY_RUNTIME_GRAPH_MOVING_AVERAGES_H_
#define FERRY_RUNTIME_GRAPH_MOVING_AVERAGES_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/scope.h"
#include "runtime/graph/variables.h"

namespace ferry {

// Thread-compatible. One serves one graph. After an error, which the scope's status holds, Apply
// returns null.
class ExponentialMovingAverage {
 public:
  // The average moves by (1 - decay) of its distance to the value. With `num_updates` (a scalar of
  // any number type) the decay is at most (1 + num_updates) / (10 + num_updates), so that early
  // averages follow faster. `zero_debias` divides the averages of tensors, which start at zero, by
  // what they lack for it: Kingma and Ba, "Adam" (2015), section 3.
  explicit ExponentialMovingAverage(HyperParameter decay, Output num_updates = {},
                                    bool zero_debias = false,
                                    std::string name = "ExponentialMovingAverage")
      : decay_(decay),
        num_updates_(num_updates),
        zero_debias_(zero_debias),
        name_(std::move(name)) {}

  // Makes a shadow variable `<variable>/<name>` for each of `var_list` (all trainable ones when it
  // is empty) at the first call: not trainable, with the variable's initial value, in the
  // collection "variables". The variables join "moving_average_variables". Returns the op that
  // updates the averages; control dependencies of `s` order it, not the shadow variables.
  // InvalidArgument for variables that aren't floating.
  Node* Apply(const Scope& s, std::vector<VariableHandle> var_list = {});
  // The same for tensors, whose averages start at zero. Their shapes must be known.
  Node* ApplyToTensors(const Scope& s, const std::vector<Output>& tensors);

  // The shadow variable; empty where there is none.
  VariableHandle average(const VariableHandle& var) const { return average(var.ref); }
  VariableHandle average(Output tensor) const;
  // Its name; before Apply, the one that it will get.
  std::string average_name(const VariableHandle& var) const;

  // What a Saver's var_map takes to restore averages into the variables that they are of, and all
  // other variables of `graph` as they are. Averages are expected of `averaged`, or when it is
  // empty of the trainable variables and those in "moving_average_variables". Works without Apply,
  // too.
  absl::StatusOr<std::vector<std::pair<std::string, VariableHandle>>> variables_to_restore(
      const Graph& graph, std::vector<VariableHandle> averaged = {}) const;

  const std::string& name() const { return name_; }

 private:
  struct Averaged {
    Output value;  // What is averaged.
    VariableHandle shadow;
    bool debias = false;
  };
  Node* Update(const Scope& s, const std::vector<Averaged>& all) const;

  const HyperParameter decay_;
  const Output num_updates_;
  const bool zero_debias_;
  const std::string name_;
  std::map<Output, VariableHandle> shadows_;  // By the variable's reference, or the tensor.
};

// Updates `variable` by (1 - decay) of its distance to `value`: moving_averages
// .assign_moving_average. `decay` is a float scalar. With `zero_debias` the variable is taken to
// start at zero, and has the variables biased and local_step beside it.
Node* AssignMovingAverage(const Scope& s, const VariableHandle& variable, Output value,
                          Output decay, bool zero_debias = true);

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_MOVING_AVERAGES_H_
