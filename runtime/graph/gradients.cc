// Reverse-mode differentiation over the graph: nodes between the xs and the ys are visited when all
// that they feed (of those nodes) was; what came for one output is added up.
#include "runtime/graph/gradients.h"

#include <algorithm>
#include <deque>
#include <limits>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"

namespace ferry {
namespace {

// Variables' handles are, as what is read from them.
bool IsTrainable(DType t) {
  t = BaseType(t);
  if (t == DType::kResource) return true;
  return IsFloating(t) || t == DType::kComplex64 || t == DType::kComplex128;
}

// An Identity of each gradient that waits for all of them.
void GateGradients(const Scope& scope, std::vector<Output>* grads) {
  std::vector<Node*> producers;
  for (const Output& g : *grads) {
    if (g.node != nullptr) producers.push_back(g.node);
  }
  if (producers.size() < 2) return;
  const Scope tuple = scope.NewSubScope("tuple");
  Node* gate = ops::Group(tuple.WithOpName("group_deps"), producers);
  for (Output& g : *grads) {
    if (g.node == nullptr) continue;
    g = ops::Identity(
        tuple.WithOpName("control_dependency").ColocateWith(g.node).WithControlDependencies({gate}),
        g);
  }
}

// One call of AddSymbolicGradients.
class Differentiator {
 public:
  Differentiator(const Scope& scope, const std::vector<Output>& xs, bool gate)
      : scope_(scope), gate_(gate) {
    for (const Output& x : xs) from_.push_back(x.node);
  }

  void MarkBetween(const std::vector<Output>& ys);
  void Stop(const std::vector<Output>& stop_gradients);
  void AddGrad(const Output& o, const Output& grad) { grads_[o].push_back(grad); }
  absl::Status Backpropagate(const std::vector<Output>& ys);
  Output Grad(const Output& o) { return Sum(o); }

 private:
  bool Between(Node* n) const { return pending_.contains(n); }
  absl::Status Visit(Node* node);
  Output Sum(const Output& o);

  Scope scope_;
  const bool gate_;
  std::vector<Node*> from_;
  // The nodes between, with how many of their edges to others of them are still to be visited.
  absl::flat_hash_map<Node*, int> pending_;
  absl::flat_hash_set<Node*> stop_;
  absl::flat_hash_map<Output, std::vector<Output>> grads_;
};

void Differentiator::MarkBetween(const std::vector<Output>& ys) {
  absl::flat_hash_set<Node*> reached;
  std::vector<Node*> stack(from_.begin(), from_.end());
  while (!stack.empty()) {
    Node* n = stack.back();
    stack.pop_back();
    if (!reached.insert(n).second) continue;
    for (Node* c : n->consumers()) {
      const auto& in = c->inputs();
      if (std::any_of(in.begin(), in.end(),
                      [n](const Output& o) { return o.node == n && IsTrainable(o.dtype()); })) {
        stack.push_back(c);
      }
    }
  }
  for (const Output& y : ys) stack.push_back(y.node);
  std::vector<Node*> between;
  while (!stack.empty()) {
    Node* n = stack.back();
    stack.pop_back();
    if (!reached.contains(n) || !pending_.try_emplace(n, 0).second) continue;
    between.push_back(n);
    for (const Output& in : n->inputs()) stack.push_back(in.node);
  }
  for (Node* n : between) {
    for (const Output& in : n->inputs()) {
      if (auto it = pending_.find(in.node); it != pending_.end()) ++it->second;
    }
  }
  // An x that depends on no other x needs no going back further.
  for (Node* n : from_) {
    const auto& in = n->inputs();
    if (std::none_of(in.begin(), in.end(), [this](const Output& o) {
          auto it = pending_.find(o.node);
          return it != pending_.end() && it->second > 0;
        })) {
      stop_.insert(n);
    }
  }
}

void Differentiator::Stop(const std::vector<Output>& stop_gradients) {
  for (const Output& o : stop_gradients) stop_.insert(o.node);
}

Output Differentiator::Sum(const Output& o) {
  auto it = grads_.find(o);
  if (it == grads_.end()) return Output();
  if (it->second.size() > 1) it->second = {ops::AddN(scope_, it->second)};
  return it->second[0];
}

absl::Status Differentiator::Visit(Node* node) {
  std::vector<Output> out_grads;
  bool any = false;
  for (int i = 0; i < node->num_outputs(); ++i) {
    out_grads.push_back(Sum(Output(node, i)));
    any |= out_grads.back().node != nullptr;
  }
  FERRY_RETURN_IF_ERROR(scope_.status());
  if (!any || stop_.contains(node)) return absl::OkStatus();
  const OpInfo* info = node->info();
  if (info != nullptr && info->not_differentiable) return absl::OkStatus();
  if (info == nullptr || !info->gradient) {
    return NotFound("No gradient defined for operation '", node->name(), "' (op type: ", node->op(),
                    ")");
  }
  const std::string what = absl::StrCat("gradient of node '", node->name(), "' (", node->op(), ")");
  const Scope scope = scope_.NewSubScope(absl::StrCat(node->name(), "_grad"));
  GradientContext context(scope, node, std::move(out_grads));
  FERRY_RETURN_IF_ERROR(Annotate(info->gradient(&context), what));
  FERRY_RETURN_IF_ERROR(Annotate(scope.status(), what));
  std::vector<Output> in_grads = context.input_grads();
  if (gate_) GateGradients(scope, &in_grads);
  FERRY_RETURN_IF_ERROR(scope.status());
  for (int i = 0; i < node->num_inputs(); ++i) {
    const Output& g = in_grads[static_cast<size_t>(i)];
    if (g.node == nullptr) continue;
    const Output& x = node->input(i);
    const bool handle = x.dtype() == DType::kResource;
    const PartialShape& shape = handle ? x.node->handle_shape() : x.shape();
    if ((!handle && BaseType(g.dtype()) != BaseType(x.dtype())) ||
        !g.shape().CompatibleWith(shape)) {
      return Internal(what, ": for input ", i, ", ", DTypeName(x.dtype()), " of shape ",
                      shape.DebugString(), ", it made ", DTypeName(g.dtype()), " of shape ",
                      g.shape().DebugString());
    }
    AddGrad(x, g);
  }
  return absl::OkStatus();
}

absl::Status Differentiator::Backpropagate(const std::vector<Output>& ys) {
  std::deque<Node*> queue;
  absl::flat_hash_set<Node*> queued;
  for (const Output& y : ys) {
    auto it = pending_.find(y.node);
    if (it != pending_.end() && it->second == 0 && queued.insert(y.node).second) {
      queue.push_back(y.node);
    }
  }
  size_t visited = 0;
  while (!queue.empty()) {
    Node* node = queue.front();
    queue.pop_front();
    ++visited;
    FERRY_RETURN_IF_ERROR(Visit(node));
    for (const Output& in : node->inputs()) {
      auto it = pending_.find(in.node);
      if (it != pending_.end() && --it->second == 0) queue.push_back(in.node);
    }
  }
  if (visited == pending_.size()) return absl::OkStatus();
  // Only a loop leaves nodes that wait for each other.
  Node* first = nullptr;
  for (const auto& [node, count] : pending_) {
    if (count > 0 && (first == nullptr || node->id() < first->id())) first = node;
  }
  return Unimplemented("no gradients through loops: node '", first->name(), "' (", first->op(),
                       ") is part of one, or feeds one");
}

// The axes along which x (with `rank` dimensions after broadcasting) was stretched, and those of y.
// False when only running can tell.
bool KnownReductionAxes(const PartialShape& x, const PartialShape& y, std::vector<int32_t>* x_axes,
                        std::vector<int32_t>* y_axes) {
  if (!x.known_rank() || !y.known_rank()) return false;
  const int rank = std::max(x.rank(), y.rank());
  for (int axis = 0; axis < rank; ++axis) {
    const int x_at = axis - (rank - x.rank()), y_at = axis - (rank - y.rank());
    const int64_t dx = x_at < 0 ? 1 : x.dim(x_at), dy = y_at < 0 ? 1 : y.dim(y_at);
    if (dx == 1 && dy != 1) {
      x_axes->push_back(axis);
    } else if (dy == 1 && dx != 1) {
      y_axes->push_back(axis);
    } else if (dx == PartialShape::kUnknown || dy == PartialShape::kUnknown) {
      return false;
    }
  }
  return true;
}

Output SumTo(const Scope& s, Output grad, Output axes, Output shape) {
  return ops::Reshape(s, ops::Sum(s, grad, axes, /*keep_dims=*/true), shape);
}

Output SumTo(const Scope& s, Output grad, const std::vector<int32_t>& axes, Output shape) {
  const Scope sum = s.NewSubScope("Sum");
  Output indices = ops::ConstVector(sum.WithOpName("reduction_indices"), axes);
  grad = ops::Sum(s.WithOpName(sum.prefix() + "/"), grad, indices, /*keep_dims=*/true);
  return ops::Reshape(s, grad, shape);
}

}  // namespace

Output ShapeOf(const Scope& s, Output x) {
  if (x.node == nullptr || !x.shape().fully_defined()) return ops::Shape(s, x);
  std::vector<int32_t> dims;
  for (int64_t d : x.shape().dims()) {
    if (d > std::numeric_limits<int32_t>::max()) return ops::Shape(s, x);
    dims.push_back(static_cast<int32_t>(d));
  }
  return ops::ConstVector(s.WithOpName("Shape"), dims);
}

Output ScalarConst(const Scope& s, DType dtype, double value) {
  switch (dtype) {
    case DType::kHalf:
      return ops::Const(s, FloatToHalf(static_cast<float>(value)));
    case DType::kBfloat16:
      return ops::Const(s, FloatToBfloat16(static_cast<float>(value)));
    case DType::kFloat:
      return ops::Const(s, static_cast<float>(value));
    case DType::kDouble:
      return ops::Const(s, value);
    case DType::kInt32:
      return ops::Const(s, static_cast<int32_t>(value));
    case DType::kInt64:
      return ops::Const(s, static_cast<int64_t>(value));
    default:
      s.UpdateStatus(InvalidArgument("no scalar constant of type ", DTypeName(dtype)));
      return Output();
  }
}

std::pair<Output, Output> UnbroadcastGradients(const Scope& s, Output x, Output y, Output grad_x,
                                               Output grad_y) {
  const bool equal = x.shape().fully_defined() && x.shape() == y.shape();
  if (equal || (grad_x.node == nullptr && grad_y.node == nullptr)) return {grad_x, grad_y};
  Output x_shape = ShapeOf(s, x), y_shape = ShapeOf(s, y);
  std::vector<int32_t> x_axes, y_axes;
  if (KnownReductionAxes(x.shape(), y.shape(), &x_axes, &y_axes)) {
    if (grad_x.node != nullptr && !x_axes.empty()) grad_x = SumTo(s, grad_x, x_axes, x_shape);
    if (grad_y.node != nullptr && !y_axes.empty()) grad_y = SumTo(s, grad_y, y_axes, y_shape);
    return {grad_x, grad_y};
  }
  Node* axes = NodeBuilder(s, "BroadcastGradientArgs").Input(x_shape).Input(y_shape).Build();
  if (axes == nullptr) return {};
  if (grad_x.node != nullptr) grad_x = SumTo(s, grad_x, Output(axes, 0), x_shape);
  if (grad_y.node != nullptr) grad_y = SumTo(s, grad_y, Output(axes, 1), y_shape);
  return {grad_x, grad_y};
}

absl::Status AddSymbolicGradients(const Scope& scope, const std::vector<Output>& ys,
                                  const std::vector<Output>& xs, std::vector<Output>* grads,
                                  const std::vector<Output>& grad_ys,
                                  const std::vector<Output>& stop_gradients, bool gate_gradients) {
  grads->clear();
  FERRY_RETURN_IF_ERROR(scope.status());
  if (grad_ys.size() > ys.size()) {
    return InvalidArgument("there are ", grad_ys.size(), " grad_ys for ", ys.size(), " ys");
  }
  for (const auto* list : {&ys, &xs, &stop_gradients}) {
    for (const Output& o : *list) {
      if (o.node == nullptr || o.node->graph() != scope.graph() || o.index < 0 ||
          o.index >= o.node->num_outputs()) {
        return InvalidArgument("'", o.name(), "' is not an output of a node of this graph");
      }
    }
  }
  const Scope sub = scope.NewSubScope("gradients");
  Differentiator d(sub, xs, gate_gradients);
  for (size_t i = 0; i < ys.size(); ++i) {
    Output grad = i < grad_ys.size() ? grad_ys[i] : Output();
    if (grad.node != nullptr) {
      if (BaseType(grad.dtype()) != BaseType(ys[i].dtype())) {
        return InvalidArgument("grad_ys[", i, "] '", grad.name(), "' is ", DTypeName(grad.dtype()),
                               ", but '", ys[i].name(), "' is ", DTypeName(ys[i].dtype()));
      }
    } else if (!IsFloating(BaseType(ys[i].dtype()))) {
      return InvalidArgument("'", ys[i].name(), "' of type ", DTypeName(ys[i].dtype()),
                             " needs a value in grad_ys to be differentiated");
    } else {
      Output shape = ShapeOf(sub, ys[i]);
      const Scope ones = sub.NewSubScope(absl::StrCat("grad_ys_", i));
      Output one = ScalarConst(ones, BaseType(ys[i].dtype()), 1);
      grad = ops::Fill(ones.WithOpName(ones.prefix() + "/"), shape, one);
    }
    d.AddGrad(ys[i], grad);
  }
  FERRY_RETURN_IF_ERROR(sub.status());
  d.MarkBetween(ys);
  d.Stop(stop_gradients);
  FERRY_RETURN_IF_ERROR(d.Backpropagate(ys));
  for (const Output& x : xs) grads->push_back(d.Grad(x));
  return sub.status();
}

}  // namespace ferry
