// ExponentialMovingAverage.
#include "runtime/graph/moving_averages.h"

#include <algorithm>
#include <set>

#include "absl/strings/str_cat.h"
#include "runtime/base/status.h"
#include "runtime/graph/collections.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"

namespace ferry {
namespace {

Scope AsScope(const Scope& s) { return s.WithOpName(s.prefix() + "/"); }

// x op y, with the constant x named under the op.
Output ConstWith(const Scope& s, Output (*op)(const Scope&, Output, Output), const char* name,
                 double x, Output y) {
  const Scope sub = s.NewSubScope(name);
  return op(AsScope(sub), ScalarConst(sub.WithOpName("x"), BaseType(y.dtype()), x), y);
}

// A variable beside `v`: "<v>/<name>", with a number behind it where there is one already.
VariableHandle Beside(const Scope& s, const VariableHandle& v, const char* name,
                      const TensorShape& shape) {
  VariableOptions options;
  options.trainable = false;
  options.initializer = ZerosInitializer();
  const std::string full =
      s.graph()->UniqueName(absl::StrCat(v.name(), "/", name), /*mark_as_used=*/false);
  return GetVariable(s.WithPrefix("").ClearColocation().ColocateWith(v.ref.node), full, shape,
                     v.dtype(), options);
}

}  // namespace

Node* AssignMovingAverage(const Scope& outer, const VariableHandle& variable, Output value,
                          Output decay, bool zero_debias) {
  if (!outer.ok()) return nullptr;
  const Scope s = outer.NewSubScope("AssignMovingAvg");
  Output rate = ConstWith(s, ops::Sub, "sub", 1, decay);
  if (BaseType(rate.dtype()) != variable.dtype()) rate = ops::Cast(s, rate, variable.dtype());
  const Scope near = s.ClearColocation().ColocateWith(variable.ref.node);
  if (!zero_debias) {
    Output delta =
        ops::Mul(s.WithOpName("mul"), ops::Sub(s.WithOpName("sub"), variable.read, value), rate);
    return AssignSubTo(AsScope(near), variable, delta);
  }
  absl::StatusOr<TensorShape> shape = variable.shape().ToTensorShape();
  s.UpdateStatus(shape.status());
  if (!s.ok()) return nullptr;
  const VariableHandle biased = Beside(s, variable, "biased", *shape);
  const VariableHandle steps = Beside(s, variable, "local_step", TensorShape());
  if (!s.ok()) return nullptr;
  Output delta =
      ops::Mul(s.WithOpName("mul"), ops::Sub(s.WithOpName("sub"), biased.read, value), rate);
  Output moved = ops::AssignSub(near, biased.ref, delta);
  const Scope add = near.NewSubScope("AssignAdd");
  Output count =
      ops::AssignAdd(AsScope(add), steps.ref,
                     ScalarConst(add.ClearColocation().WithOpName("value"), variable.dtype(), 1));
  // What the average of a constant 1 would have reached by now.
  Output reached =
      ConstWith(s, ops::Sub, "sub", 1, ops::Pow(s, ConstWith(s, ops::Sub, "sub", 1, rate), count));
  return ops::Assign(AsScope(near), variable.ref,
                     ops::RealDiv(s.WithOpName("truediv"), moved, reached))
      .node;
}

Node* ExponentialMovingAverage::Apply(const Scope& s, std::vector<VariableHandle> var_list) {
  if (!s.ok()) return nullptr;
  if (var_list.empty()) {
    absl::StatusOr<std::vector<VariableHandle>> all = TrainableVariables(*s.graph());
    s.UpdateStatus(all.status());
    if (!all.ok()) return nullptr;
    var_list = *std::move(all);
  }
  std::vector<Averaged> averaged;
  for (const VariableHandle& v : var_list) {
    if (!v) {
      s.UpdateStatus(InvalidArgument("a variable to be averaged is empty"));
      return nullptr;
    }
    if (!IsFloating(v.dtype())) {
      s.UpdateStatus(InvalidArgument("The variables must be half, float, or double: ", v.name(),
                                     " is ", DTypeName(v.dtype())));
      return nullptr;
    }
    VariableHandle& shadow = shadows_[v.ref];
    if (!shadow) {
      const Scope free = s.WithNoControlDependencies();
      const Output start = InitializedValue(free, v);
      VariableOptions options;
      options.trainable = false;
      options.use_resource = v.is_resource();
      shadow = MakeVariable(free.WithPrefix("").ClearColocation().ColocateWith(v.ref.node),
                            absl::StrCat(v.name(), "/", name_), start, options);
      if (!s.ok()) return nullptr;
      s.UpdateStatus(AddVariableToCollection(s.graph(), kMovingAverageVariables, ToProto(v)));
    }
    averaged.push_back({v.read, shadow});
  }
  return Update(s, averaged);
}

Node* ExponentialMovingAverage::ApplyToTensors(const Scope& s, const std::vector<Output>& tensors) {
  std::vector<Averaged> averaged;
  for (const Output& t : tensors) {
    if (t.node == nullptr) s.UpdateStatus(InvalidArgument("a tensor to be averaged is empty"));
    if (!s.ok()) return nullptr;
    absl::StatusOr<TensorShape> shape = t.shape().ToTensorShape();
    if (!shape.ok() || !IsFloating(t.dtype())) {
      s.UpdateStatus(InvalidArgument("the average of tensor ", t.name(), " of ",
                                     DTypeName(t.dtype()), t.shape().DebugString(),
                                     ": it must be half, float, or double, of a known shape"));
      return nullptr;
    }
    VariableHandle& shadow = shadows_[t];
    if (!shadow) {
      VariableOptions options;
      options.trainable = false;
      options.initializer = ZerosInitializer();
      const std::string full = s.graph()->UniqueName(absl::StrCat(t.node->name(), "/", name_),
                                                     /*mark_as_used=*/false);
      shadow = GetVariable(s.WithNoControlDependencies().WithPrefix("").ClearColocation(), full,
                           *shape, t.dtype(), options);
    }
    averaged.push_back({t, shadow, zero_debias_});
  }
  return Update(s, averaged);
}

Node* ExponentialMovingAverage::Update(const Scope& outer, const std::vector<Averaged>& all) const {
  if (!outer.ok()) return nullptr;
  const Scope s = outer.NewSubScope(name_);
  Output decay = decay_.ToTensor(s, "decay");
  if (num_updates_.node != nullptr) {
    Output n = num_updates_;
    if (BaseType(n.dtype()) != DType::kFloat) {
      n = ops::Cast(s.WithOpName("num_updates"), n, DType::kFloat);
    }
    Output above = ConstWith(s, ops::AddV2, "add", 1, n);
    Output below = ConstWith(s, ops::AddV2, "add", 10, n);
    decay = ops::Minimum(s, decay, ops::RealDiv(s.WithOpName("truediv"), above, below));
  }
  std::vector<Node*> updates;
  for (const Averaged& a : all) {
    updates.push_back(AssignMovingAverage(s, a.shadow, a.value, decay, a.debias));
  }
  return ops::Group(AsScope(s), updates);
}

VariableHandle ExponentialMovingAverage::average(Output tensor) const {
  auto it = shadows_.find(tensor);
  return it == shadows_.end() ? VariableHandle() : it->second;
}

std::string ExponentialMovingAverage::average_name(const VariableHandle& var) const {
  const VariableHandle shadow = average(var);
  return shadow ? shadow.name()
                : var.ref.node->graph()->UniqueName(absl::StrCat(var.name(), "/", name_),
                                                    /*mark_as_used=*/false);
}

absl::StatusOr<std::vector<std::pair<std::string, VariableHandle>>>
ExponentialMovingAverage::variables_to_restore(const Graph& graph,
                                               std::vector<VariableHandle> averaged) const {
  if (averaged.empty()) {
    FERRY_ASSIGN_OR_RETURN(averaged, TrainableVariables(graph));
    FERRY_ASSIGN_OR_RETURN(auto listed, VariablesOf(graph, kMovingAverageVariables));
    averaged.insert(averaged.end(), listed.begin(), listed.end());
  }
  FERRY_ASSIGN_OR_RETURN(auto global, GlobalVariables(graph));
  std::vector<std::pair<std::string, VariableHandle>> all;
  std::set<Output> seen;
  std::set<std::string> names;
  for (const VariableHandle& v : averaged) {
    if (!seen.insert(v.ref).second) continue;
    all.emplace_back(average_name(v), v);
    names.insert(all.back().first);
  }
  for (const VariableHandle& v : global) {
    if (seen.count(v.ref) > 0 || names.count(v.name()) > 0) continue;
    seen.insert(v.ref);
    all.emplace_back(v.name(), v);
  }
  return all;
}

}  // namespace ferry
