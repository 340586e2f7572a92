// Frames: the loops among nodes, as TensorFlow 1 writes them. Internal to the session and to
// gradients.
//
//   Enter ──▶ Merge ──▶ Switch ──▶ Exit          its values leave
//               ▲ │        │ └──▶ … body … ──▶ NextIteration ──┐
//               │ └▶ … ──▶ LoopCond                            │
//               └──────────────────────────────────────────────┘
//   Enter (is_constant) ──▶ …                    what is the same in every iteration
//
// What lies between the Enters of one frame_name and their Exits is a frame; frames nest. Between
// the Switch and the Exit there may be nodes too, which run when the loop ends.
#ifndef FERRY_RUNTIME_GRAPH_FRAMES_H_
#define FERRY_RUNTIME_GRAPH_FRAMES_H_

#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/status/statusor.h"
#include "runtime/graph/graph.h"

namespace ferry {

// For messages: "node 'a' (Add)".
std::string Describe(const Node* node);

bool IsEnter(const Node* n);          // Enter, RefEnter.
bool IsExit(const Node* n);           // Exit, RefExit.
bool IsNextIteration(const Node* n);  // NextIteration, RefNextIteration.
bool IsMerge(const Node* n);          // Merge, RefMerge.
bool IsSwitch(const Node* n);         // Switch, RefSwitch.

// Immutable.
class Frames {
 public:
  // One frame; the first of them stands for what lies in none.
  struct Loop {
    std::string name;
    int parent = -1;
    int depth = 0;
    // All in the order of making. A frame's Enters and Exits are its own: they take from, and give
    // to, the frame around it.
    std::vector<Node*> enters, exits;
    std::vector<Node*> nodes;  // All others that lie in this frame and in none within it.
    std::vector<int> inner;    // The frames within it.
    Node* condition = nullptr;  // Its LoopCond; null: it is passed through once.
  };

  using InputsOfNode = absl::FunctionRef<const std::vector<Output>&(const Node*)>;
  // `needed`: the nodes that run, with the inputs that `inputs` tells; an output in `fed` isn't
  // made by its node. Takes time and memory in proportion to them. InvalidArgument names the nodes
  // that make up no loops: an Exit in no frame, inputs from two frames, a Merge that closes a loop
  // with other inputs than an Enter and a NextIteration, a loop without a LoopCond, a cycle that no
  // NextIteration closes, frames nested deeper than 100.
  static absl::StatusOr<Frames> Find(const absl::flat_hash_set<Node*>& needed,
                                     const absl::flat_hash_map<Output, int>& fed,
                                     InputsOfNode inputs);

  const Loop& loop(int i) const { return loops_[static_cast<size_t>(i)]; }
  int size() const { return static_cast<int>(loops_.size()); }
  // The frame in which the node lies; of an Enter and of an Exit, that which it belongs to.
  int Of(const Node* n) const {
    auto it = frame_.find(n);
    return it == frame_.end() ? 0 : it->second;
  }
  // Whether it is a Merge that a NextIteration comes back to.
  static bool ClosesLoop(const Node* n);
  // Whether it is a Switch by the condition of its own frame.
  bool IsLoopSwitch(const Node* n) const;

 private:
  std::vector<Loop> loops_;
  absl::flat_hash_map<const Node*, int> frame_;  // Of nodes in none: nothing.
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_FRAMES_H_
