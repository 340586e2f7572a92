// Rewiring: see rewiring.h.
#include "runtime/session/rewiring.h"

#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <utility>

#include "absl/algorithm/container.h"
#include "absl/hash/hash.h"
#include "absl/strings/match.h"
#include "runtime/op/variable.h"

namespace ferry {
namespace {

// A constant of more bytes isn't looked into.
constexpr size_t kSmallConstant = 256;

// Constants' results have no more bytes than this, each and all together: they stay in memory as
// long as the plan.
constexpr int64_t kSteadyBytes = 256 << 10, kAllSteadyBytes = 16 << 20;

// Each needed node after those that it depends on; an edge that closes a loop is left out. Empty if
// there is a cycle.
std::vector<Node*> InOrder(absl::Span<const Output> fetches, absl::Span<Node* const> targets,
                           const absl::flat_hash_map<Output, int>& fed,
                           const absl::flat_hash_set<Node*>& needed) {
  std::vector<Node*> order;
  absl::flat_hash_map<const Node*, bool> done;  // False: on the path.
  std::vector<std::pair<Node*, size_t>> path;
  bool cycle = false;
  const auto visit = [&](Node* n) {
    if (!needed.contains(n)) return;
    const auto [it, fresh] = done.emplace(n, false);
    if (fresh) {
      path.emplace_back(n, 0);
    } else if (!it->second) {
      cycle = true;
    }
  };
  const auto walk = [&](Node* root) {
    if (done.contains(root)) return;
    visit(root);
    while (!path.empty() && !cycle) {
      auto& [n, next] = path.back();
      const size_t inputs = n->inputs().size(), at = next++;
      if (at == inputs + n->control_inputs().size()) {
        order.push_back(n);
        done[n] = true;
        path.pop_back();
      } else if (at >= inputs) {
        visit(n->control_inputs()[at - inputs]);
      } else if (const Output& in = n->inputs()[at];
                 !fed.contains(in) && !absl::EndsWith(in.node->op(), "NextIteration")) {
        visit(in.node);
      }
    }
  };
  for (const Output& o : fetches) {
    if (!fed.contains(o)) walk(o.node);
  }
  for (Node* n : targets) walk(n);
  // What only the next iteration of a loop needs.
  std::vector<Node*> rest;
  for (Node* n : needed) {
    if (!done.contains(n) && absl::EndsWith(n->op(), "NextIteration")) rest.push_back(n);
  }
  std::sort(rest.begin(), rest.end(),
            [](const Node* a, const Node* b) { return a->id() < b->id(); });
  for (Node* n : rest) walk(n);
  if (cycle) order.clear();
  return order;
}

// The value of a constant scalar, as far as a double holds it.
std::optional<double> ScalarConstant(const Output& o) {
  if (o.node->op() != "Const" || !o.shape().fully_defined() || o.shape().rank() != 0) {
    return std::nullopt;
  }
  const absl::StatusOr<Tensor> value = o.node->Attr<Tensor>("value");
  if (!value.ok() || value->dtype() != o.dtype()) return std::nullopt;
  switch (value->dtype()) {
    case DType::kFloat:
      return value->scalar<float>();
    case DType::kDouble:
      return value->scalar<double>();
    case DType::kInt32:
      return value->scalar<int32_t>();
    default:
      return std::nullopt;
  }
}

// The input that the node's only output equals, or -1. An operand that is dropped with the node
// must be a constant in every Run, and nothing that runs on account of an order. `shapes`: whether
// static shapes are to be believed.
int PassesUnchanged(const Node* n, const std::vector<Output>& in,
                    const absl::flat_hash_map<Output, int>& fed, bool shapes) {
  const std::string& op = n->op();
  if (op == "Identity" || op == "StopGradient" || op == "PreventGradient") return 0;
  if (op == "Cast") return in[0].dtype() == n->output_type(0) ? 0 : -1;
  const auto can_drop = [&](const Output& o) {
    return o.node->op() == "Const" && o.node->control_inputs().empty() && !fed.contains(o);
  };
  if (op == "Reshape") {
    // Of another shape input only the kernel can tell that it is right.
    return shapes && can_drop(in[1]) && in[0].shape().fully_defined() &&
                   in[0].shape() == n->output_shape(0)
               ? 0
               : -1;
  }
  // These copy: what they give doesn't change with a variable.
  const auto leaves = [&](size_t kept, size_t dropped, double value) {
    if (!can_drop(in[dropped]) || Rewiring::MayLieInVariable(in[kept])) return false;
    const std::optional<double> v = ScalarConstant(in[dropped]);
    return v && *v == value;
  };
  if (op == "Mul") return leaves(0, 1, 1) ? 0 : leaves(1, 0, 1) ? 1 : -1;
  if (op == "RealDiv") return leaves(0, 1, 1) ? 0 : -1;
  if (op == "Sub") return leaves(0, 1, 0) ? 0 : -1;
  return -1;
}

// Whether the node is there for an error that says something of its input.
bool ChecksValue(const Node* n) { return n->op() == "CheckNumerics" || n->op() == "EnsureShape"; }

// Whether nothing but its values comes of running the node: no state, no error that says something
// of the values.
bool IsQuiet(const Node* n) {
  static const auto* reads = new absl::flat_hash_set<std::string>{
      "Variable", "VariableV2", "VarHandleOp", "ReadVariableOp"};
  return n->info() != nullptr && (!n->info()->def.is_stateful() || reads->contains(n->op())) &&
         !ChecksValue(n) &&
         absl::c_none_of(n->info()->def.input_arg(), [](const auto& arg) { return arg.is_ref(); });
}

// What tells the shape of a tensor whose shape is static, or nothing.
std::optional<std::vector<Tensor>> KnownShapes(const Node* n) {
  const std::string& op = n->op();
  const bool shapes = op == "Shape" || op == "ShapeN";
  if (!shapes && op != "Size" && op != "Rank") return std::nullopt;
  std::vector<Tensor> values;
  const bool wide = n->output_type(0) == DType::kInt64;
  for (const Output& in : n->inputs()) {
    const PartialShape& shape = in.shape();
    if (!shape.known_rank() || (op != "Rank" && !shape.fully_defined())) return std::nullopt;
    std::vector<int64_t> numbers;
    if (shapes) {
      for (int d = 0; d < shape.rank(); ++d) numbers.push_back(shape.dim(d));
    } else if (op == "Rank") {
      numbers.push_back(shape.rank());
    } else {
      const absl::StatusOr<TensorShape> full = shape.ToTensorShape();
      if (!full.ok()) return std::nullopt;
      numbers.push_back(full->num_elements());
    }
    if (!wide && std::any_of(numbers.begin(), numbers.end(),
                             [](int64_t v) { return v > std::numeric_limits<int32_t>::max(); })) {
      return std::nullopt;
    }
    absl::StatusOr<Tensor> value = Tensor::Allocate(
        n->output_type(0),
        shapes ? TensorShape({static_cast<int64_t>(numbers.size())}) : TensorShape());
    if (!value.ok()) return std::nullopt;
    for (size_t i = 0; i < numbers.size(); ++i) {
      if (wide) {
        value->data<int64_t>()[i] = numbers[i];
      } else {
        value->data<int32_t>()[i] = static_cast<int32_t>(numbers[i]);
      }
    }
    values.push_back(*std::move(value));
  }
  return values;
}

// The bytes of the node's outputs, if that is known and each is small enough to be kept; else -1.
int64_t SmallBytes(const Node* n) {
  int64_t all = 0;
  for (int o = 0; o < n->num_outputs(); ++o) {
    if (!n->output_shape(o).fully_defined()) return -1;
    const absl::StatusOr<TensorShape> shape = n->output_shape(o).ToTensorShape();
    const int64_t size = std::max<int64_t>(1, static_cast<int64_t>(ElementSize(n->output_type(o))));
    if (!shape.ok() || shape->num_elements() > kSteadyBytes / size) return -1;
    all += shape->num_elements() * size;
  }
  return all;
}

// What two nodes have in common when they compute the same. Large constants equal none.
class Expressions {
 public:
  // The first of the nodes that were given that compute what `n` does: `n` itself, if it is new.
  Node* First(Node* n, const std::vector<Output>& inputs) {
    std::string constant;
    if (n->op() == "Const") {
      const auto value = n->attrs().find("value");
      if (value == n->attrs().end() || value->second.ByteSizeLong() > kSmallConstant) return n;
      constant = value->second.SerializeAsString();
    }
    std::vector<Node*> control = n->control_inputs();
    std::sort(control.begin(), control.end());
    const size_t hash = absl::HashOf(n->op(), n->device(), inputs, control, constant);
    // Nodes that differ in attributes alone are few, or a graph's that was made to take long.
    constexpr size_t kMost = 100;
    std::vector<Seen>& all = by_hash_[hash];
    if (all.size() == kMost) return n;
    for (const Seen& s : all) {
      if (s.node->op() == n->op() && s.node->device() == n->device() && s.inputs == inputs &&
          s.control == control && SameAttrs(*s.node, *n)) {
        return s.node;
      }
    }
    all.push_back({n, inputs, std::move(control)});
    return n;
  }

 private:
  struct Seen {
    Node* node;
    std::vector<Output> inputs;
    std::vector<Node*> control;
  };

  // Attributes that begin with "_" say nothing about what is computed.
  static bool SameAttrs(const Node& a, const Node& b) {
    const auto covers = [](const Node& x, const Node& y) {
      return absl::c_all_of(x.attrs(), [&y](const auto& attr) {
        if (absl::StartsWith(attr.first, "_")) return true;
        const auto other = y.attrs().find(attr.first);
        return other != y.attrs().end() &&
               attr.second.SerializeAsString() == other->second.SerializeAsString();
      });
    };
    return covers(a, b) && covers(b, a);
  }

  absl::flat_hash_map<size_t, std::vector<Seen>> by_hash_;
};

}  // namespace

bool Rewiring::MayLieInVariable(Output o) {
  static const auto* unknown = new absl::flat_hash_set<std::string>{
      "ReadVariableOp", "Merge", "Enter", "Exit", "RefMerge", "RefEnter", "RefExit"};
  for (int i = 0; i < 100; ++i) {
    const Node* n = o.node;
    if (HoldsVariable(o.dtype()) || unknown->contains(n->op())) return true;
    const int from = absl::EndsWith(n->op(), "Switch") ? 0
                     : n->info() != nullptr            ? n->info()->aliases_input
                                                       : -1;
    if (from < 0 || from >= n->num_inputs()) return false;
    o = n->input(from);
  }
  return true;
}

bool Rewiring::IsPure(const Node* n) {
  if (n->info() == nullptr || n->info()->def.is_stateful() || n->num_outputs() == 0) return false;
  for (const DType t : n->output_types()) {
    if (IsRef(t) || t == DType::kResource || t == DType::kVariant) return false;
  }
  for (const Output& in : n->inputs()) {
    if (IsRef(in.dtype()) || in.dtype() == DType::kResource || in.dtype() == DType::kVariant) {
      return false;
    }
  }
  static const auto* control_flow = new absl::flat_hash_set<std::string>{
      "Switch", "Merge", "Enter", "Exit", "NextIteration", "LoopCond", "ControlTrigger"};
  return !control_flow->contains(n->op()) && !absl::StartsWith(n->op(), "Placeholder");
}

Rewiring::Rewiring(absl::Span<const Output> fetches, absl::Span<Node* const> targets,
                   const absl::flat_hash_map<Output, int>& fed,
                   const absl::flat_hash_set<Node*>& needed) {
  absl::flat_hash_set<const Node*> fixed(targets.begin(), targets.end());
  for (const Node* n : needed) {
    fixed.insert(n->control_inputs().begin(), n->control_inputs().end());
  }
  absl::flat_hash_set<const Node*> fed_nodes;
  for (const auto& [o, index] : fed) fed_nodes.insert(o.node);
  fixed.insert(fed_nodes.begin(), fed_nodes.end());
  // How many loops nodes lie in, of those that lie in any.
  absl::flat_hash_map<const Node*, int> loops;
  const auto depth_of = [&](const Node* n) {
    int depth = 0;
    const auto within = [&](const Node* p) {
      if (const auto it = loops.find(p); it != loops.end()) depth = std::max(depth, it->second);
    };
    for (const Output& in : n->inputs()) {
      if (!fed.contains(in)) within(in.node);
    }
    for (const Node* c : n->control_inputs()) within(c);
    return depth + absl::EndsWith(n->op(), "Enter") - absl::EndsWith(n->op(), "Exit");
  };
  // Whether a node that lies in no loop runs whatever the predicates of conditionals are. The shape
  // of another's output may be known, but whether there is one isn't.
  const auto is_alive = [&](const Node* n) {
    return absl::c_all_of(n->inputs(),
                          [&](const Output& in) {
                            return fed.contains(in) || (alive_.contains(in.node) &&
                                                        !absl::EndsWith(in.node->op(), "Switch"));
                          }) &&
           absl::c_all_of(n->control_inputs(),
                          [&](const Node* c) { return !needed.contains(c) || alive_.contains(c); });
  };
  // Of a branch's values, only what takes them tells which are dead.
  const auto is_switched = [](const Output& in) { return absl::EndsWith(in.node->op(), "Switch"); };
  // Nodes of which nothing is lost when neither they nor what they depend on run.
  absl::flat_hash_set<const Node*> quiet;
  const auto is_quiet = [&](const Output& in) {
    return fed.contains(in) || quiet.contains(in.node);
  };
  // What is fed for another node than a placeholder may have another shape than was inferred from
  // that node's value.
  const bool shapes = absl::c_all_of(
      fed_nodes, [](const Node* n) { return absl::StartsWith(n->op(), "Placeholder"); });
  int64_t steady_bytes = 0;
  Expressions expressions;
  for (Node* n : InOrder(fetches, targets, fed, needed)) {
    if (const int depth = depth_of(n); depth > 0) {
      loops[n] = depth;
    } else if (is_alive(n)) {
      alive_.insert(n);
    }
    if (IsQuiet(n) && absl::c_all_of(n->inputs(), is_quiet) &&
        absl::c_all_of(n->control_inputs(),
                       [&](Node* c) { return !needed.contains(c) || quiet.contains(c); })) {
      quiet.insert(n);
    }
    if (!instead_.empty()) {
      std::vector<Output> taken;
      for (const Output& in : n->inputs()) taken.push_back(of(in));
      if (taken != n->inputs()) inputs_[n] = std::move(taken);
    }
    if (n->op() == "Const" && alive_.contains(n)) steady_.insert(n);
    if (!IsPure(n)) continue;
    if (!loops.contains(n) && !ChecksValue(n) && !fed_nodes.contains(n) &&
        absl::c_none_of(inputs(n), is_switched)) {
      expendable_.insert(n);
    }
    if (alive_.contains(n) && !n->inputs().empty() && !fed_nodes.contains(n) &&
        absl::c_all_of(inputs(n), [&](const Output& in) {
          return !fed.contains(in) && steady_.contains(in.node);
        })) {
      const int64_t bytes = SmallBytes(n);
      if (bytes >= 0 && steady_bytes + bytes <= kAllSteadyBytes) {
        steady_bytes += bytes;
        steady_.insert(n);
      }
    }
    if (fixed.contains(n)) continue;
    const bool ordered = !n->control_inputs().empty();
    if (!ordered) {
      const int same = PassesUnchanged(n, inputs(n), fed, shapes);
      if (same >= 0) {
        instead_[Output(n, 0)] = inputs(n)[static_cast<size_t>(same)];
        continue;
      }
      std::optional<std::vector<Tensor>> values;
      if (shapes && alive_.contains(n) && absl::c_all_of(inputs(n), is_quiet)) {
        values = KnownShapes(n);
      }
      if (values) {
        known_[n] = *std::move(values);
        steady_.insert(n);
        inputs_[n].clear();
        continue;
      }
    }
    Node* const first = expressions.First(n, inputs(n));
    if (first == n) continue;
    for (int i = 0; i < n->num_outputs(); ++i) instead_[Output(n, i)] = Output(first, i);
  }
}

}  // namespace ferry
