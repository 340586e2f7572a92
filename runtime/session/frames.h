// The loops of a plan: those of the graph as its Rewiring says. Internal to the session.
#ifndef FERRY_RUNTIME_SESSION_FRAMES_H_
#define FERRY_RUNTIME_SESSION_FRAMES_H_

#include "runtime/graph/cond.h"
#include "runtime/session/rewiring.h"

namespace ferry {

// As Frames::Find.
inline absl::StatusOr<Frames> FramesOf(const absl::flat_hash_set<Node*>& needed,
                                       const absl::flat_hash_map<Output, int>& fed,
                                       const Rewiring& rewiring) {
  return Frames::Find(needed, fed, [&rewiring](const Node* n) -> const std::vector<Output>& {
    return rewiring.inputs(n);
  });
}

}  // namespace ferry

#endif  // FERRY_RUNTIME_SESSION_FRAMES_H_
