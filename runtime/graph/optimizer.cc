// Optimizers, gradient clipping, learning rate schedules.
#include "runtime/graph/optimizer.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"

namespace ferry {
namespace {

Scope AsScope(const Scope& s) { return s.WithOpName(s.prefix() + "/"); }

Output CastTo(const Scope& s, Output x, DType dtype) {
  return x.node == nullptr || BaseType(x.dtype()) == dtype ? x : ops::Cast(s, x, dtype);
}

// A binary op with a constant operand that is named under it: "mul" with "mul/x".
Output WithConst(const Scope& s, Output (*op)(const Scope&, Output, Output), const char* name,
                 DType dtype, double x, Output y) {
  const Scope sub = s.NewSubScope(name);
  Output c = ScalarConst(sub.WithOpName("x"), dtype, x);
  return op(s.WithOpName(sub.prefix() + "/"), c, y);
}

// The op of that name for the variable's kind.
std::string ApplyOp(const char* op, const VariableHandle& var) {
  return absl::StrCat(var.is_resource() ? "Resource" : "", op);
}

}  // namespace

Output HyperParameter::ToTensor(const Scope& s, const std::string& name) const {
  return tensor_.node != nullptr ? tensor_
                                 : ops::Const(s.WithOpName(name), static_cast<float>(value_));
}

Node* Optimizer::Minimize(const Scope& s, Output loss, const MinimizeOptions& options) {
  return ApplyGradients(s, ComputeGradients(s, loss, options.var_list), options.global_step,
                        options.name);
}

std::vector<GradAndVar> Optimizer::ComputeGradients(const Scope& s, Output loss,
                                                    std::vector<VariableHandle> var_list) {
  std::vector<GradAndVar> result;
  if (!s.ok()) return result;
  if (var_list.empty()) {
    absl::StatusOr<std::vector<VariableHandle>> all = TrainableVariables(*s.graph());
    s.UpdateStatus(all.status());
    if (!all.ok()) return result;
    var_list = *std::move(all);
    if (var_list.empty()) s.UpdateStatus(InvalidArgument("No variables to optimize"));
  }
  std::vector<Output> xs, grads;
  for (const VariableHandle& v : var_list) xs.push_back(v.ref);
  s.UpdateStatus(AddSymbolicGradients(s, {loss}, xs, &grads, {}, {}, /*gate_gradients=*/true));
  for (size_t i = 0; s.ok() && i < var_list.size(); ++i) {
    result.push_back({grads[i], var_list[i]});
  }
  return result;
}

Node* Optimizer::ApplyGradients(const Scope& s, const std::vector<GradAndVar>& grads_and_vars,
                                const VariableHandle& global_step, const std::string& name) {
  if (!s.ok()) return nullptr;
  std::vector<VariableHandle> vars;
  for (const GradAndVar& gv : grads_and_vars) {
    if (gv.grad.node != nullptr) vars.push_back(gv.var);
  }
  if (vars.empty()) {
    s.UpdateStatus(InvalidArgument(
        "No gradients provided for any variable: ",
        absl::StrJoin(grads_and_vars, ", ", [](std::string* out, const GradAndVar& gv) {
          absl::StrAppend(out, gv.var ? gv.var.name() : "<none>");
        })));
    return nullptr;
  }
  CreateSlots(s.WithNoControlDependencies(), vars);

  const Scope scope = s.NewSubScope(name.empty() ? name_ : name);
  Prepare(scope);
  std::vector<Node*> updates;
  for (const GradAndVar& gv : grads_and_vars) {
    if (gv.grad.node == nullptr) continue;
    const Scope update =
        scope.NewSubScope(absl::StrCat("update_", gv.var.name())).ColocateWith(gv.var.ref.node);
    updates.push_back(ApplyDense(update, gv.var, gv.grad));
    if (!s.ok()) return nullptr;
  }
  std::vector<Node*> all = updates;
  const std::vector<Node*> more = Finish(scope, updates);
  all.insert(all.end(), more.begin(), more.end());

  Node* train_op = nullptr;
  if (!global_step) {
    train_op = ops::Group(AsScope(scope), all);
  } else {
    Node* update = ops::Group(scope.WithOpName("update"), all);
    const Scope step = scope.ColocateWith(global_step.ref.node);
    Output one = ScalarConst(step.WithOpName("value").WithControlDependencies({update}),
                             global_step.dtype(), 1);
    train_op = AssignAddTo(AsScope(step), global_step, one);
  }
  if (!s.ok()) return nullptr;
  s.UpdateStatus(AddNodeToCollection(s.graph(), kTrainOp, train_op->name()));
  return train_op;
}

VariableHandle Optimizer::GetSlot(const VariableHandle& var, const std::string& slot) const {
  auto it = slots_.find({var.name(), slot});
  return it == slots_.end() ? VariableHandle() : it->second;
}

VariableHandle Optimizer::Slot(const Scope& s, const VariableHandle& var, const std::string& slot) {
  VariableHandle& h = slots_[{var.name(), slot}];
  if (!h) h = MakeSlot(s, var, absl::StrCat(var.name(), "/", name_));
  return h;
}

void GradientDescentOptimizer::Prepare(const Scope& s) {
  lr_ = learning_rate_.ToTensor(s, "learning_rate");
}

Node* GradientDescentOptimizer::ApplyDense(const Scope& s, const VariableHandle& var, Output grad) {
  return NodeBuilder(s, ApplyOp("ApplyGradientDescent", var))
      .Input(var.ref)
      .Input(CastTo(s, lr_, var.dtype()))
      .Input(grad)
      .Build();
}

void MomentumOptimizer::CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) {
  for (const VariableHandle& v : vars) Slot(s, v, "momentum");
}

void MomentumOptimizer::Prepare(const Scope& s) {
  lr_ = learning_rate_.ToTensor(s, "learning_rate");
  m_ = momentum_.ToTensor(s, "momentum");
}

Node* MomentumOptimizer::ApplyDense(const Scope& s, const VariableHandle& var, Output grad) {
  Output lr = CastTo(s, lr_, var.dtype()), momentum = CastTo(s, m_, var.dtype());
  return NodeBuilder(s, ApplyOp("ApplyMomentum", var))
      .Input(var.ref)
      .Input(GetSlot(var, "momentum").ref)
      .Input(lr)
      .Input(grad)
      .Input(momentum)
      .Attr("use_nesterov", use_nesterov_)
      .Build();
}

void AdamOptimizer::CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) {
  if (!beta1_power_) {
    // The powers go with the variable that comes first by name, whatever the order of the list.
    const VariableHandle& first = *std::min_element(
        vars.begin(), vars.end(), [](const VariableHandle& a, const VariableHandle& b) {
          return a.ref.name() < b.ref.name();
        });
    const Scope near = s.ColocateWith(first.ref.node);
    VariableOptions options;
    options.trainable = false;
    options.use_resource = first.is_resource();
    auto power = [&](const char* name, double beta) {
      return MakeVariable(near, name, Tensor::Scalar(static_cast<float>(beta)), options);
    };
    beta1_power_ = power("beta1_power", beta1_);
    beta2_power_ = power("beta2_power", beta2_);
  }
  for (const VariableHandle& v : vars) {
    for (const std::string& slot : SlotNames()) Slot(s, v, slot);
  }
}

void AdamOptimizer::Prepare(const Scope& s) {
  lr_ = learning_rate_.ToTensor(s, "learning_rate");
  beta1_t_ = HyperParameter(beta1_).ToTensor(s, "beta1");
  beta2_t_ = HyperParameter(beta2_).ToTensor(s, "beta2");
  epsilon_t_ = HyperParameter(epsilon_).ToTensor(s, "epsilon");
}

Node* AdamOptimizer::ApplyDense(const Scope& s, const VariableHandle& var, Output grad) {
  NodeBuilder b(s, ApplyOp("ApplyAdam", var));
  b.Input(var.ref).Input(GetSlot(var, "m").ref).Input(GetSlot(var, "v").ref);
  for (const Output& o :
       {beta1_power_.read, beta2_power_.read, lr_, beta1_t_, beta2_t_, epsilon_t_}) {
    b.Input(CastTo(s, o, var.dtype()));
  }
  return b.Input(grad).Build();
}

std::vector<Node*> AdamOptimizer::Finish(const Scope& scope, const std::vector<Node*>& updates) {
  const Scope s = scope.ColocateWith(beta1_power_.ref.node);
  auto advance = [&](const VariableHandle& power, Output beta) {
    Output next = ops::Mul(s.WithOpName("mul").WithControlDependencies(updates), power.read, beta);
    if (power.is_resource()) return AssignTo(s, power, next);
    return ops::Assign(s, power.ref, next, /*validate_shape=*/true, /*use_locking=*/false).node;
  };
  Node* first = advance(beta1_power_, beta1_t_);
  return {first, advance(beta2_power_, beta2_t_)};
}

Output GlobalNorm(const Scope& s, const std::vector<Output>& grads) {
  const Scope sub = s.NewSubScope("global_norm");
  std::vector<Output> halves;
  DType dtype = DType::kFloat;
  for (const Output& g : grads) {
    if (g.node == nullptr) continue;
    dtype = BaseType(g.dtype());
    halves.push_back(ops::L2Loss(sub.ColocateWith(g.node), g));
  }
  if (halves.empty()) {
    s.UpdateStatus(InvalidArgument("the global norm of no gradients"));
    return Output();
  }
  Output sum = ops::ReduceSum(sub, ops::Pack(sub.WithOpName("stack"), halves));
  Output two = ScalarConst(sub, dtype, 2);
  return ops::Sqrt(sub.WithOpName("global_norm"), ops::Mul(sub.WithOpName("mul"), sum, two));
}

ClippedGradients ClipByGlobalNorm(const Scope& s, const std::vector<Output>& grads,
                                  double clip_norm) {
  ClippedGradients result;
  result.norm = GlobalNorm(s, grads);
  if (!s.ok()) return result;
  const DType dtype = BaseType(result.norm.dtype());
  const Scope clip = s.NewSubScope("clip_by_global_norm");
  // clip_norm * min(1 / norm, 1 / clip_norm), plus norm - norm, which is 0 or NaN.
  Output inverse = WithConst(clip, ops::RealDiv, "truediv", dtype, 1, result.norm);
  Output one = ScalarConst(clip, dtype, 1);
  const Scope most = clip.NewSubScope("truediv");
  Output bound =
      ops::RealDiv(AsScope(most), one, ScalarConst(most.WithOpName("y"), dtype, clip_norm));
  Output scale =
      WithConst(clip, ops::Mul, "mul", dtype, clip_norm, ops::Minimum(clip, inverse, bound));
  Output nan = ops::Sub(clip.WithOpName("sub"), result.norm, result.norm);
  scale = ops::AddV2(clip.WithOpName("add"), scale, nan);
  for (size_t i = 0; i < grads.size(); ++i) {
    if (grads[i].node == nullptr) {
      result.grads.emplace_back();
      continue;
    }
    const Scope near = clip.ColocateWith(grads[i].node);
    Output scaled = ops::Mul(near.WithOpName("mul"), grads[i], scale);
    result.grads.push_back(
        ops::Identity(near.WithOpName(absl::StrCat("clip_by_global_norm/_", i)), scaled));
  }
  return result;
}

Output ExponentialDecay(const Scope& s, double learning_rate, Output global_step,
                        int64_t decay_steps, double decay_rate, bool staircase) {
  const Scope sub = s.NewSubScope("ExponentialDecay");
  Output initial =
      ops::Const(sub.WithOpName("initial_learning_rate"), static_cast<float>(learning_rate));
  const Scope steps = sub.NewSubScope("Cast"), rate = sub.NewSubScope("Cast");
  Output n = decay_steps <= std::numeric_limits<int32_t>::max()
                 ? ops::Const(steps.WithOpName("x"), static_cast<int32_t>(decay_steps))
                 : ops::Const(steps.WithOpName("x"), decay_steps);
  Output decay = ops::Cast(AsScope(steps), n, DType::kFloat);
  Output base = ops::Const(rate.WithOpName("x"), static_cast<float>(decay_rate));
  Output step = CastTo(sub, global_step, DType::kFloat);
  Output power = ops::RealDiv(sub.WithOpName("truediv"), step, decay);
  if (staircase) power = ops::Floor(sub, power);
  return ops::Mul(AsScope(sub), initial, ops::Pow(sub, base, power));
}

}  // namespace ferry
