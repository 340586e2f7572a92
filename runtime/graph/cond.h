// Conditionals as tf.cond of TF1 builds them: one branch runs, the other is dead.
//
//   Output y = Cond(root, ops::Less(root, a, b),
//                   [&](const Scope& s) { return ops::Mul(s, x, x); },
//                   [&](const Scope& s) { return ops::Neg(s, x); });
//
// In the graph: <name>/Switch of the predicate with itself, the pivots <name>/switch_t and
// switch_f, <name>/pred_id, a Switch (RefSwitch for a reference) for each tensor that a branch
// takes from outside, and a Merge for each result. The collection "cond_context" describes the
// branches, so that TensorFlow can import the graph and go on building.
#ifndef FERRY_RUNTIME_GRAPH_COND_H_
#define FERRY_RUNTIME_GRAPH_COND_H_

#include <functional>
#include <string>
#include <vector>

#include "runtime/graph/scope.h"

namespace ferry {

inline constexpr char kCondContext[] = "cond_context";

// A branch makes its ops with the scope that it is given, and no other: ops made with the outer
// scope run whichever branch is taken.
using CondBranch = std::function<Output(const Scope& s)>;
using CondBranches = std::function<std::vector<Output>(const Scope& s)>;

// `pred` is a bool scalar. The error of a branch, or InvalidArgument when the branches' results
// differ in number or type, is the scope's status, and the result empty. Branches may have
// conditionals of their own.
std::vector<Output> Cond(const Scope& s, Output pred, const CondBranches& true_fn,
                         const CondBranches& false_fn, const std::string& name = "cond");
Output Cond(const Scope& s, Output pred, const CondBranch& true_fn, const CondBranch& false_fn,
            const std::string& name = "cond");

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_COND_H_
