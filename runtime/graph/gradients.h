// Symbolic gradients: adds to a graph the nodes that compute the derivatives of its outputs.
#ifndef FERRY_RUNTIME_GRAPH_GRADIENTS_H_
#define FERRY_RUNTIME_GRAPH_GRADIENTS_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "runtime/graph/scope.h"

namespace ferry {

// What an op's gradient function sees: the node, the gradient that came for each of its outputs,
// and where to put that for each input. Registered with OpBuilder::Gradient:
//
//   // y = tanh(x):  dx = dy * (1 - y^2)
//   .Gradient([](GradientContext* c) -> absl::Status {
//     c->set_input_grad(0, NodeBuilder(c->scope(), "TanhGrad").Input(c->output(0))
//                              .Input(c->grad(0)).BuildOutput());
//     return c->scope().status();
//   })
class GradientContext {
 public:
  GradientContext(const Scope& scope, Node* node, std::vector<Output> output_grads)
      : scope_(scope), node_(node), output_grads_(std::move(output_grads)),
        input_grads_(static_cast<size_t>(node->num_inputs())) {}
  const Scope& scope() const { return scope_; }
  Node* node() const { return node_; }
  Output input(int i) const { return node_->input(i); }
  Output output(int i) const { return Output(node_, i); }
  // Empty (null node) when nothing flows back through output i. grad(0) of an op with one output
  // is never empty.
  Output grad(int i) const { return output_grads_[static_cast<size_t>(i)]; }
  // Left unset: no gradient flows to that input.
  void set_input_grad(int i, Output g) { input_grads_[static_cast<size_t>(i)] = g; }
  const std::vector<Output>& input_grads() const { return input_grads_; }
  template <typename T>
  absl::StatusOr<T> Attr(const std::string& name) const {
    return node_->Attr<T>(name);
  }

 private:
  Scope scope_;
  Node* node_;
  std::vector<Output> output_grads_, input_grads_;
};

// For each x, a value or the handle of a variable (VarHandleOp), the sum over all y of dy/dx, times
// grad_ys (ones where empty or shorter). An x that no y depends on gets an empty Output. Nodes are
// made under "<scope>/gradients". Gradients go through conditionals and loops; they don't pass
// integers, StopGradient, or `stop_gradients`. With `gate_gradients` an op's gradients may be used
// only when all of them are there (TensorFlow's GATE_OP: what its optimizers ask for, and what
// their graphs' names show). NotFound names an op on the way that has no gradient; Unimplemented a
// y that lies within a loop, a gradient of a loop's gradient, or the node of a loop that stands
// against going back through it; InvalidArgument nodes that make up no loops.
absl::Status AddSymbolicGradients(const Scope& scope, const std::vector<Output>& ys,
                                  const std::vector<Output>& xs, std::vector<Output>* grads,
                                  const std::vector<Output>& grad_ys = {},
                                  const std::vector<Output>& stop_gradients = {},
                                  bool gate_gradients = false);

// For ops with broadcasting: each gradient summed over the axes along which its input (x or y) was
// broadcast against the other, in that input's shape. When both shapes are known and equal they are
// the gradients that were given. An empty gradient stays empty.
std::pair<Output, Output> UnbroadcastGradients(const Scope& s, Output x, Output y, Output grad_x,
                                               Output grad_y);

// A tensor's shape as an int32 vector: a constant where it is known, a Shape node otherwise.
Output ShapeOf(const Scope& s, Output x);

// A scalar constant of a floating dtype, int32 or int64; InvalidArgument in the scope's status for
// others.
Output ScalarConst(const Scope& s, DType dtype, double value);

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_GRADIENTS_H_
