// Conditionals and loops as TF1 builds them.
#ifndef FERRY_RUNTIME_GRAPH_COND_H_
#define FERRY_RUNTIME_GRAPH_COND_H_

#include <functional>
#include <string>
#include <vector>

#include "runtime/graph/scope.h"

namespace ferry {

// ---- tf.cond: one branch runs, the other is dead ----
//
//   Output y = Cond(root, ops::Less(root, a, b),
//                   [&](const Scope& s) { return ops::Mul(s, x, x); },
//                   [&](const Scope& s) { return ops::Neg(s, x); });
//
// In the graph: <name>/Switch of the predicate with itself, the pivots <name>/switch_t and
// switch_f, <name>/pred_id, a Switch (RefSwitch for a reference) for each tensor that a branch
// takes from outside, and a Merge for each result. The collection "cond_context" describes the
// branches, so that TensorFlow can import the graph and go on building.

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

// ---- tf.while_loop: values that go round until a condition is false ----
//
//   // The sum of the squares below n.
//   std::vector<Output> out = WhileLoop(
//       root, {ops::Const<int32_t>(root, 0), ops::Const<float>(root, 0)},
//       [&](const Scope& s, const std::vector<Output>& v) { return ops::Less(s, v[0], n); },
//       [&](const Scope& s, const std::vector<Output>& v) {
//         const Output x = ops::Cast(s, v[0], DType::kFloat);
//         return std::vector<Output>{ops::AddV2(s, v[0], ops::Const<int32_t>(s, 1)),
//                                    ops::AddV2(s, v[1], ops::Square(s, x))};
//       });
//
// In the graph, for each variable: Enter, Merge, Switch by <name>/LoopCond, Identity, NextIteration
// and Exit, of the frame <name>/while_context; an Enter for each tensor that is taken from outside.
// The collection "while_context" describes the loop, so that TensorFlow can import the graph and
// take gradients through it. AddSymbolicGradients (gradients.h) does here.

inline constexpr char kWhileContext[] = "while_context";

// Both make their ops with the scope that they are given, and no other. `variables` have unknown
// shapes: they may differ from one iteration to the next.
using WhileCondition =
    std::function<Output(const Scope& s, const std::vector<Output>& variables)>;  // A bool scalar.
using WhileBody = std::function<std::vector<Output>(const Scope& s,
                                                    const std::vector<Output>& variables)>;

struct WhileOptions {
  // For TensorFlow: how many iterations may run at once, and whether what the gradients need may
  // go to the host's memory meanwhile. Here iterations follow each other.
  int64_t parallel_iterations = 10;
  bool swap_memory = false;
};

// while (condition(variables)) variables = body(variables): the values in the end. An error of the
// functions is the scope's status, and so is InvalidArgument when there is no variable, the
// condition is no bool, or the body gives other numbers or types of values; the result is empty
// then. Loops and conditionals nest.
std::vector<Output> WhileLoop(const Scope& s, const std::vector<Output>& variables,
                              const WhileCondition& condition, const WhileBody& body,
                              const std::string& name = "while", const WhileOptions& options = {});

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_COND_H_
