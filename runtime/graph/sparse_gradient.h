// Gradients that are rows of a larger tensor: what tf.gradients gives as tf.IndexedSlices for a
// table that was only looked up. They pass from a gather back to the variable as they are; other
// ops in between get tensors.
#ifndef FERRY_RUNTIME_GRAPH_SPARSE_GRADIENT_H_
#define FERRY_RUNTIME_GRAPH_SPARSE_GRADIENT_H_

#include <string>
#include <utility>
#include <vector>

#include "runtime/graph/gradients.h"

namespace ferry {

// A tensor, or rows of one that is zero elsewhere: row i of `values` is row indices[i]; rows that
// occur several times add up.
struct Gradient {
  Gradient() = default;
  Gradient(Output tensor) : values(tensor) {}  // NOLINT: either stands for itself.
  Gradient(Output values, Output indices, Output dense_shape)
      : values(values), indices(indices), dense_shape(dense_shape) {}
  bool empty() const { return values.node == nullptr; }
  bool is_sparse() const { return indices.node != nullptr; }

  Output values;       // The tensor, or the rows. Empty: there is no gradient.
  Output indices;      // A vector of integers; empty for a tensor.
  Output dense_shape;  // A vector of int32.
};

// The gradient as a tensor: tf.convert_to_tensor. The node that makes it is called `name`.
Output ToDense(const Scope& s, const Gradient& g, const std::string& name = "UnsortedSegmentSum");

// As AddSymbolicGradients in gradients.h, with the gradients of tables as rows.
absl::Status AddSymbolicGradients(const Scope& scope, const std::vector<Output>& ys,
                                  const std::vector<Output>& xs, std::vector<Gradient>* grads,
                                  const std::vector<Output>& grad_ys = {},
                                  const std::vector<Output>& stop_gradients = {},
                                  bool gate_gradients = false);

// For gradient functions that give rows: each context that one is called with is such a context.
class SparseGradientContext : public GradientContext {
 public:
  using GradientContext::GradientContext;
  static SparseGradientContext* Of(GradientContext* c) {
    return static_cast<SparseGradientContext*>(c);
  }
  // In place of set_input_grad.
  void set_input_rows(int i, Gradient g) { rows_.emplace_back(i, std::move(g)); }

  // What the gradient function gave for each input.
  std::vector<Gradient> TakeInputGradients() const {
    std::vector<Gradient> all(input_grads().begin(), input_grads().end());
    for (const auto& [i, g] : rows_) all[static_cast<size_t>(i)] = g;
    return all;
  }

 private:
  std::vector<std::pair<int, Gradient>> rows_;
};

// Of a vector: its first element, and what follows that, as Python's x[0] and x[1:] name them.
Output FirstElement(const Scope& s, Output x);
Output AllButFirst(const Scope& s, Output x);

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_SPARSE_GRADIENT_H_
