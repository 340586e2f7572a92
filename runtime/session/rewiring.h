// Rewiring: what a plan computes in place of what the graph says, with the same results.
//
//   left out       nodes whose output is their input: Identity, a Cast to the same type, a Reshape
//                  to the same shape, x * 1, x - 0, x / 1
//   computed once  nodes with the same op, attributes, inputs, control inputs and device
//   known          Shape, ShapeN, Size and Rank of what has a static shape, outside of branches
//   steady         what only constants go into, outside of branches and loops, if it is small
//   expendable     what others only wait for, outside of loops: the gradient for the model's input
//                  is such a node, since tf.gradients makes all of a node's gradients wait for each
//                  other. Nobody looks at its values, so it isn't run, unless it is in a group
//                  (NoOp) that is a target; what it would have waited for is waited for. As in
//                  TensorFlow, an error that it would have had isn't seen then, and it needs no
//                  kernel. CheckNumerics and EnsureShape, which are there for an error, do run.
//
// Left alone: nodes with side effects or references, targets, and what is fed; but for being
// expendable, nodes that others are ordered by.
#ifndef FERRY_RUNTIME_SESSION_REWIRING_H_
#define FERRY_RUNTIME_SESSION_REWIRING_H_

#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/types/span.h"
#include "runtime/graph/graph.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

// Immutable.
class Rewiring {
 public:
  // For the nodes `needed` for `fetches` and `targets` when the outputs that `fed` says are fed. A
  // graph with a cycle that is no loop is left as it is.
  Rewiring(absl::Span<const Output> fetches, absl::Span<Node* const> targets,
           const absl::flat_hash_map<Output, int>& fed, const absl::flat_hash_set<Node*>& needed);

  // Whether the node's outputs follow from the values of its inputs alone.
  static bool IsPure(const Node* n);
  // Whether the value may be the memory of a variable itself, as far as can be told from its maker;
  // it may, when that takes long to find out.
  static bool MayLieInVariable(Output o);

  // What stands for the output.
  Output of(const Output& o) const {
    auto it = instead_.find(o);
    return it == instead_.end() ? o : it->second;
  }
  // What the node takes.
  const std::vector<Output>& inputs(const Node* n) const {
    auto it = inputs_.find(n);
    return it == inputs_.end() ? n->inputs() : it->second;
  }
  // The values of all outputs, when they are known without running the node; else null. Its
  // inputs() are none then.
  const std::vector<Tensor>* known(const Node* n) const {
    auto it = known_.find(n);
    return it == known_.end() ? nullptr : &it->second;
  }
  // Whether its values are the same in every Run, whenever they are computed.
  bool steady(const Node* n) const { return steady_.contains(n); }
  // Whether the node needn't run when nobody looks at its values. It is dead when one of its
  // inputs' makers or one that it waits for is.
  bool expendable(const Node* n) const { return expendable_.contains(n); }
  // Whether it is known that the node lies in no branch, which may be dead, and in no loop.
  bool alive(const Node* n) const { return alive_.contains(n); }

 private:
  absl::flat_hash_map<Output, Output> instead_;
  absl::flat_hash_map<const Node*, std::vector<Output>> inputs_;
  absl::flat_hash_map<const Node*, std::vector<Tensor>> known_;
  absl::flat_hash_set<const Node*> steady_, expendable_, alive_;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_SESSION_REWIRING_H_
