// Functions: the graphs that newer programs write call functions of the graph's library
// (PartitionedCall), choose among them (If, Case) and repeat them (While). Before a plan is made,
// the nodes that it needs are copied to a graph without such ops: a call becomes the function's
// nodes, an If becomes Switches and Merges, a While a loop of Enter … Exit, so that plans know one
// way to do each. Internal to the session.
#ifndef FERRY_RUNTIME_SESSION_FUNCTIONS_H_
#define FERRY_RUNTIME_SESSION_FUNCTIONS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "runtime/graph/graph.h"

namespace ferry {

// Whether the node may call a function of its graph's library: it is of such an op, or of one that
// isn't registered, which may be the name of a function.
bool MayCallFunctions(const Node* n);

// A graph's nodes with functions in place of their calls, as far as they were asked for. Not
// thread-safe.
class LoweredGraph {
 public:
  // `graph` must outlive it.
  explicit LoweredGraph(Graph* graph) : from_(graph) {}

  // What takes the output's, or the node's, place here; made at the first call, with all that it
  // depends on. InvalidArgument names a function that isn't in the library, that calls itself, or
  // whose body isn't well-formed; ResourceExhausted functions that come to more than 262144
  // nodes or 2 GiB. A call of a function with ops that aren't registered stays a call: see WhyNot.
  absl::StatusOr<Output> Find(const Output& o);
  absl::StatusOr<Node*> Find(Node* n);

  // Why a call stayed one; OK for other nodes.
  absl::Status WhyNot(const Node* n) const;
  const Graph* graph() const { return &graph_; }

 private:
  friend class FunctionLowering;
  // What functions' nodes come to.
  struct Size {
    int64_t nodes = 0;
    int64_t bytes = 0;
  };

  absl::Status Add(const Node* root);

  Graph* const from_;
  Graph graph_;
  absl::flat_hash_map<const Node*, Node*> nodes_;
  absl::flat_hash_map<const Node*, std::vector<Output>> outputs_;  // Of calls.
  absl::flat_hash_map<const Node*, absl::Status> why_not_;
  Size made_;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_SESSION_FUNCTIONS_H_
