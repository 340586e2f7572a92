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
#include "runtime/graph/sparse_gradient.h"

namespace ferry {
namespace {

// Variables' handles are, as what is read from them.
bool IsTrainable(DType t) {
  t = BaseType(t);
  if (t == DType::kResource) return true;
  return IsFloating(t) || t == DType::kComplex64 || t == DType::kComplex128;
}

// Ops whose gradient is that of their output, rows or not: what variables are read through.
bool PassesGradientOn(const Node* node) {
  return node->op() == "Identity" || node->op() == "ReadVariableOp";
}

// An Identity of each gradient that waits for all of them.
void GateGradients(const Scope& scope, std::vector<Gradient>* grads) {
  std::vector<Node*> producers;
  for (const Gradient& g : *grads) {
    if (!g.empty()) producers.push_back(g.values.node);
  }
  if (producers.size() < 2) return;
  const Scope tuple = scope.NewSubScope("tuple");
  Node* gate = ops::Group(tuple.WithOpName("group_deps"), producers);
  for (Gradient& g : *grads) {
    if (g.empty()) continue;
    const Scope near = tuple.ColocateWith(g.values.node).WithControlDependencies({gate});
    g.values = ops::Identity(near.WithOpName("control_dependency"), g.values);
    if (g.is_sparse()) g.indices = ops::Identity(near.WithOpName("indices"), g.indices);
  }
}

// The sum of several: rows one behind the other while all are sparse, a tensor otherwise.
Gradient AddUp(const Scope& s, const std::vector<Gradient>& grads) {
  const auto sparse = [](const Gradient& g) { return g.is_sparse(); };
  if (!std::all_of(grads.begin(), grads.end(), sparse)) {
    const Scope sub = s.NewSubScope("AddN");
    std::vector<Output> all;
    for (size_t i = 0; i < grads.size(); ++i) {
      all.push_back(ToDense(sub, grads[i], absl::StrCat("inputs_", i)));
    }
    return ops::AddN(s.WithOpName(sub.prefix() + "/"), all);
  }
  const bool wide = std::any_of(grads.begin(), grads.end(), [](const Gradient& g) {
    return g.indices.dtype() == DType::kInt64;
  });
  std::vector<Output> values, indices;
  for (const Gradient& g : grads) {
    values.push_back(g.values);
    const bool fits = !wide || g.indices.dtype() == DType::kInt64;
    indices.push_back(fits ? g.indices : ops::Cast(s, g.indices, DType::kInt64));
  }
  auto concat = [&s](const std::vector<Output>& parts) {
    const Scope sub = s.NewSubScope("concat");
    Output axis = ops::Const<int32_t>(sub.WithOpName("axis"), 0);
    return ops::ConcatV2(s.WithOpName(sub.prefix() + "/"), parts, axis);
  };
  Output rows = concat(values);
  return {rows, concat(indices), grads[0].dense_shape};
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
  void AddGrad(const Output& o, const Gradient& grad) { grads_[o].push_back(grad); }
  absl::Status Backpropagate(const std::vector<Output>& ys);
  Gradient Grad(const Output& o) { return Sum(o); }

 private:
  bool Between(Node* n) const { return pending_.contains(n); }
  absl::Status Visit(Node* node);
  Gradient Sum(const Output& o);

  Scope scope_;
  const bool gate_;
  std::vector<Node*> from_;
  // The nodes between, with how many of their edges to others of them are still to be visited.
  absl::flat_hash_map<Node*, int> pending_;
  absl::flat_hash_set<Node*> stop_;
  absl::flat_hash_map<Output, std::vector<Gradient>> grads_;
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

Gradient Differentiator::Sum(const Output& o) {
  auto it = grads_.find(o);
  if (it == grads_.end()) return {};
  if (it->second.size() > 1) it->second = {AddUp(scope_, it->second)};
  return it->second[0];
}

absl::Status Differentiator::Visit(Node* node) {
  std::vector<Gradient> out_grads;
  bool any = false;
  for (int i = 0; i < node->num_outputs(); ++i) {
    out_grads.push_back(Sum(Output(node, i)));
    any |= !out_grads.back().empty();
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
  std::vector<Gradient> in_grads;
  if (PassesGradientOn(node)) {
    in_grads = std::move(out_grads);
  } else {
    std::vector<Output> tensors;
    for (const Gradient& g : out_grads) tensors.push_back(ToDense(scope, g));
    SparseGradientContext context(scope, node, std::move(tensors));
    FERRY_RETURN_IF_ERROR(Annotate(info->gradient(&context), what));
    FERRY_RETURN_IF_ERROR(Annotate(scope.status(), what));
    in_grads = context.TakeInputGradients();
  }
  if (gate_) GateGradients(scope, &in_grads);
  FERRY_RETURN_IF_ERROR(scope.status());
  for (int i = 0; i < node->num_inputs(); ++i) {
    const Gradient& gradient = in_grads[static_cast<size_t>(i)];
    if (gradient.empty()) continue;
    const Output& g = gradient.values;
    const Output& x = node->input(i);
    const bool handle = x.dtype() == DType::kResource;
    const PartialShape& shape = handle ? x.node->handle_shape() : x.shape();
    if ((!handle && BaseType(g.dtype()) != BaseType(x.dtype())) ||
        (!gradient.is_sparse() && !g.shape().CompatibleWith(shape))) {
      return Internal(what, ": for input ", i, ", ", DTypeName(x.dtype()), " of shape ",
                      shape.DebugString(), ", it made ", DTypeName(g.dtype()), " of shape ",
                      g.shape().DebugString());
    }
    AddGrad(x, gradient);
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

namespace {
Output SliceVector(const Scope& s, Output x, int32_t begin, int32_t end,
                   const ops::StridedSliceMasks& masks) {
  const Scope sub = s.NewSubScope("strided_slice");
  const auto one = [&](int32_t value) {
    return ops::ConstVector<int32_t>(sub.WithOpName("stack"), {value});
  };
  Output from = one(begin), to = one(end), step = one(1);
  return ops::StridedSlice(s.WithOpName(sub.prefix() + "/"), x, from, to, step, masks);
}
}  // namespace

Output FirstElement(const Scope& s, Output x) {
  ops::StridedSliceMasks masks;
  masks.shrink_axis = 1;
  return SliceVector(s, x, 0, 1, masks);
}

Output AllButFirst(const Scope& s, Output x) {
  ops::StridedSliceMasks masks;
  masks.end = 1;
  return SliceVector(s, x, 1, 0, masks);
}

Output ToDense(const Scope& s, const Gradient& g, const std::string& name) {
  if (!g.is_sparse()) return g.values;
  const Scope sub = s.NewSubScope(name);
  return NodeBuilder(s.WithOpName(sub.prefix() + "/"), "UnsortedSegmentSum")
      .Input(g.values)
      .Input(g.indices)
      .Input(FirstElement(sub, g.dense_shape))
      .BuildOutput();
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
    const int rank = std::max(x.shape().rank(), y.shape().rank());
    const auto reduce = [&](Output grad, Output to, const std::vector<int32_t>& axes,
                            Output shape) {
      if (grad.node == nullptr) return grad;
      if (!axes.empty()) return SumTo(s, grad, axes, shape);
      // Only dimensions of 1 came in front.
      return to.shape().rank() < rank ? ops::Reshape(s, grad, shape) : grad;
    };
    grad_x = reduce(grad_x, x, x_axes, x_shape);
    return {grad_x, reduce(grad_y, y, y_axes, y_shape)};
  }
  Node* axes = NodeBuilder(s, "BroadcastGradientArgs").Input(x_shape).Input(y_shape).Build();
  if (axes == nullptr) return {};
  if (grad_x.node != nullptr) grad_x = SumTo(s, grad_x, Output(axes, 0), x_shape);
  if (grad_y.node != nullptr) grad_y = SumTo(s, grad_y, Output(axes, 1), y_shape);
  return {grad_x, grad_y};
}

absl::Status AddSymbolicGradients(const Scope& scope, const std::vector<Output>& ys,
                                  const std::vector<Output>& xs, std::vector<Gradient>* grads,
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

absl::Status AddSymbolicGradients(const Scope& scope, const std::vector<Output>& ys,
                                  const std::vector<Output>& xs, std::vector<Output>* grads,
                                  const std::vector<Output>& grad_ys,
                                  const std::vector<Output>& stop_gradients, bool gate_gradients) {
  grads->clear();
  std::vector<Gradient> all;
  FERRY_RETURN_IF_ERROR(
      AddSymbolicGradients(scope, ys, xs, &all, grad_ys, stop_gradients, gate_gradients));
  for (const Gradient& g : all) grads->push_back(ToDense(scope, g));
  return scope.status();
}

}  // namespace ferry
