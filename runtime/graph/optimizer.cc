// Optimizers: gradients of a loss, and the ops that apply them.
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

// The update that is called `name`, for the variable's kind and the gradient's.
std::string ApplyOp(const char* name, const VariableHandle& var, const Gradient& grad) {
  return absl::StrCat(var.is_resource() ? "Resource" : "", grad.is_sparse() ? "Sparse" : "",
                      "Apply", name);
}

// The gradient as such ops take it: with the indices behind the rows.
void AddGradient(NodeBuilder* b, const Gradient& grad) {
  b->Input(grad.values);
  if (grad.is_sparse()) b->Input(grad.indices);
}

// With rows of the same index added up.
Gradient WithoutDuplicates(const Scope& s, const Gradient& grad) {
  Node* unique = NodeBuilder(s, "Unique").Input(grad.indices).Build();
  if (unique == nullptr) return {};
  Output rows = FirstElement(s, ops::Shape(s, Output(unique, 0)));
  Output sums = NodeBuilder(s, "UnsortedSegmentSum")
                    .Input(grad.values)
                    .Input(Output(unique, 1))
                    .Input(rows)
                    .BuildOutput();
  return {sums, Output(unique, 0), grad.dense_shape};
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
  std::vector<Output> xs;
  std::vector<Gradient> grads;
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
    if (!gv.grad.empty()) vars.push_back(gv.var);
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
    if (gv.grad.empty()) continue;
    const Scope update =
        scope.NewSubScope(absl::StrCat("update_", gv.var.name())).ColocateWith(gv.var.ref.node);
    Gradient grad = gv.grad;
    if (grad.is_sparse() && !TakesDuplicates()) grad = WithoutDuplicates(update, grad);
    if (!s.ok()) return nullptr;
    updates.push_back(Apply(update, gv.var, grad));
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

VariableHandle Optimizer::Slot(const Scope& s, const VariableHandle& var, const std::string& slot,
                               const Initializer& initializer) {
  VariableHandle& h = slots_[{var.name(), slot}];
  if (!h) h = MakeSlot(s, var, absl::StrCat(var.name(), "/", name_), initializer);
  return h;
}

void GradientDescentOptimizer::Prepare(const Scope& s) {
  lr_ = learning_rate_.ToTensor(s, "learning_rate");
}

Node* GradientDescentOptimizer::Apply(const Scope& s, const VariableHandle& var,
                                      const Gradient& grad) {
  Output lr = CastTo(s, lr_, var.dtype());
  if (!grad.is_sparse()) {
    return NodeBuilder(s, ApplyOp("GradientDescent", var, grad))
        .Input(var.ref)
        .Input(lr)
        .Input(grad.values)
        .Build();
  }
  const bool resource = var.is_resource();
  Output values = resource ? ops::Neg(s, grad.values) : grad.values;
  return NodeBuilder(s, resource ? "ResourceScatterAdd" : "ScatterSub")
      .Input(var.ref)
      .Input(grad.indices)
      .Input(ops::Mul(s.WithOpName("mul"), values, lr))
      .Build();
}

void MomentumOptimizer::CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) {
  for (const VariableHandle& v : vars) Slot(s, v, "momentum");
}

void MomentumOptimizer::Prepare(const Scope& s) {
  lr_ = learning_rate_.ToTensor(s, "learning_rate");
  m_ = momentum_.ToTensor(s, "momentum");
}

Node* MomentumOptimizer::Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) {
  Output lr = CastTo(s, lr_, var.dtype()), momentum = CastTo(s, m_, var.dtype());
  NodeBuilder b(s, ApplyOp("Momentum", var, grad));
  b.Input(var.ref).Input(GetSlot(var, "momentum").ref).Input(lr);
  AddGradient(&b, grad);
  return b.Input(momentum).Attr("use_nesterov", use_nesterov_).Build();
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

Node* AdamOptimizer::Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) {
  if (grad.is_sparse()) return ApplySparse(s, var, grad);
  NodeBuilder b(s, ApplyOp("Adam", var, grad));
  b.Input(var.ref).Input(GetSlot(var, "m").ref).Input(GetSlot(var, "v").ref);
  for (const Output& o :
       {beta1_power_.read, beta2_power_.read, lr_, beta1_t_, beta2_t_, epsilon_t_}) {
    b.Input(CastTo(s, o, var.dtype()));
  }
  return b.Input(grad.values).Build();
}

// There is no op for it: m and v decay as a whole and get the rows added, then all of the variable
// moves.
Node* AdamOptimizer::ApplySparse(const Scope& s, const VariableHandle& var, const Gradient& grad) {
  const DType dtype = var.dtype();
  const auto number = [&](Output o) { return CastTo(s, o, dtype); };
  const auto power = [&](const VariableHandle& v) {
    return number(v.is_resource() ? ReadValue(s, v) : v.read);
  };
  const auto one_minus = [&](Output x) { return WithConst(s, ops::Sub, "sub", dtype, 1, x); };
  const auto mul = [&](Output x, Output y) { return ops::Mul(s.WithOpName("mul"), x, y); };
  Output beta1_power, lr;
  if (beta1_power_.is_resource()) {
    Output root = ops::Sqrt(s, one_minus(power(beta2_power_)));
    lr = mul(number(lr_), root);
    beta1_power = power(beta1_power_);
  } else {
    beta1_power = power(beta1_power_);
    Output beta2_power = power(beta2_power_);
    lr = mul(number(lr_), ops::Sqrt(s, one_minus(beta2_power)));
  }
  lr = ops::RealDiv(s.WithOpName("truediv"), lr, one_minus(beta1_power));
  Output beta1 = number(beta1_t_), beta2 = number(beta2_t_);
  std::vector<Node*> done;
  // The slot becomes decay * slot, plus `rows`; what it is then.
  const auto advance = [&](const char* name, Output rows, Output decay) -> Output {
    const VariableHandle slot = GetSlot(var, name);
    if (!slot.is_resource()) {
      Output now = mul(slot.read, decay);
      Node* assign = ops::Assign(s, slot.ref, now, /*validate_shape=*/true,
                                 /*use_locking=*/false)
                         .node;
      Output sum = NodeBuilder(s.WithControlDependencies({assign}), "ScatterAdd")
                       .Input(slot.ref)
                       .Input(grad.indices)
                       .Input(rows)
                       .BuildOutput();
      done.push_back(sum.node);
      return sum;
    }
    Node* assign = AssignTo(s, slot, mul(ReadValue(s, slot), decay));
    Node* add = NodeBuilder(s.WithControlDependencies({assign}), "ResourceScatterAdd")
                    .Input(slot.ref)
                    .Input(grad.indices)
                    .Input(rows)
                    .Build();
    if (add == nullptr) return Output();
    Output now = ReadValue(s.WithControlDependencies({assign, add}), slot);
    done.push_back(now.node);
    return now;
  };
  Output m = advance("m", mul(grad.values, one_minus(beta1)), beta1);
  Output squares = mul(grad.values, grad.values);
  Output v = advance("v", mul(squares, one_minus(beta2)), beta2);
  if (!s.ok()) return nullptr;
  Output root = ops::Sqrt(s, v);
  Output step = mul(lr, m);
  Output below = ops::AddV2(s.WithOpName("add"), root, number(epsilon_t_));
  step = ops::RealDiv(s.WithOpName("truediv"), step, below);
  done.insert(done.begin(), var.is_resource() ? AssignSubTo(s, var, step)
                                              : ops::AssignSub(s, var.ref, step).node);
  return s.ok() ? ops::Group(s, done) : nullptr;
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

void AdagradOptimizer::CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) {
  if (initial_accumulator_value_ <= 0) {
    s.UpdateStatus(InvalidArgument("initial_accumulator_value must be positive: ",
                                   initial_accumulator_value_));
    return;
  }
  for (const VariableHandle& v : vars) {
    Slot(s, v, "accumulator", ConstantInitializer(initial_accumulator_value_));
  }
}

void AdagradOptimizer::Prepare(const Scope& s) {
  lr_ = learning_rate_.ToTensor(s, "learning_rate");
}

Node* AdagradOptimizer::Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) {
  NodeBuilder b(s, ApplyOp("Adagrad", var, grad));
  b.Input(var.ref).Input(GetSlot(var, "accumulator").ref).Input(CastTo(s, lr_, var.dtype()));
  AddGradient(&b, grad);
  return b.Build();
}

void AdadeltaOptimizer::CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) {
  for (const VariableHandle& v : vars) {
    for (const std::string& slot : SlotNames()) Slot(s, v, slot);
  }
}

void AdadeltaOptimizer::Prepare(const Scope& s) {
  lr_ = learning_rate_.ToTensor(s, "lr");
  rho_t_ = HyperParameter(rho_).ToTensor(s, "rho");
  epsilon_t_ = HyperParameter(epsilon_).ToTensor(s, "epsilon");
}

Node* AdadeltaOptimizer::Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) {
  NodeBuilder b(s, ApplyOp("Adadelta", var, grad));
  b.Input(var.ref).Input(GetSlot(var, "accum").ref).Input(GetSlot(var, "accum_update").ref);
  for (const Output& o : {lr_, rho_t_, epsilon_t_}) b.Input(CastTo(s, o, var.dtype()));
  AddGradient(&b, grad);
  return b.Build();
}

void RMSPropOptimizer::CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) {
  for (const VariableHandle& v : vars) {
    for (const std::string& slot : SlotNames()) {
      Slot(s, v, slot, slot == "rms" ? OnesInitializer() : ZerosInitializer());
    }
  }
}

void RMSPropOptimizer::Prepare(const Scope& s) {
  lr_ = learning_rate_.ToTensor(s, "learning_rate");
  decay_t_ = HyperParameter(decay_).ToTensor(s, "decay");
  momentum_t_ = momentum_.ToTensor(s, "momentum");
  epsilon_t_ = HyperParameter(epsilon_).ToTensor(s, "epsilon");
}

Node* RMSPropOptimizer::Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) {
  NodeBuilder b(s, ApplyOp(centered_ ? "CenteredRMSProp" : "RMSProp", var, grad));
  b.Input(var.ref);
  if (centered_) b.Input(GetSlot(var, "mg").ref);
  b.Input(GetSlot(var, "rms").ref).Input(GetSlot(var, "momentum").ref);
  for (const Output& o : {lr_, decay_t_, momentum_t_, epsilon_t_}) {
    b.Input(CastTo(s, o, var.dtype()));
  }
  AddGradient(&b, grad);
  return b.Build();
}

void FtrlOptimizer::CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) {
  const auto check = [&](const char* name, double value, bool fits, const char* demand) {
    if (!fits) s.UpdateStatus(InvalidArgument(name, " ", value, " needs to be ", demand));
  };
  const FtrlOptions& o = options_;
  check("initial_accumulator_value", o.initial_accumulator_value, o.initial_accumulator_value >= 0,
        "positive or zero");
  check("learning_rate_power", o.learning_rate_power, o.learning_rate_power <= 0,
        "negative or zero");
  check("l1_regularization_strength", o.l1_regularization_strength,
        o.l1_regularization_strength >= 0, "positive or zero");
  check("l2_regularization_strength", o.l2_regularization_strength,
        o.l2_regularization_strength >= 0, "positive or zero");
  check("l2_shrinkage_regularization_strength", o.l2_shrinkage_regularization_strength,
        o.l2_shrinkage_regularization_strength >= 0, "positive or zero");
  if (!s.ok()) return;
  const Initializer filled = [this](const Scope& in, const TensorShape& shape, DType dtype) {
    Output ones = OnesInitializer()(in, shape, dtype);
    const Scope mul = in.NewSubScope("mul");
    Output y = ScalarConst(mul.WithOpName("y"), dtype, options_.initial_accumulator_value);
    return ops::Mul(in.WithOpName(mul.prefix() + "/"), ones, y);
  };
  for (const VariableHandle& v : vars) {
    Slot(s, v, "accum", filled);
    Slot(s, v, "linear");
  }
}

void FtrlOptimizer::Prepare(const Scope& s) {
  const auto number = [&s](const char* name, double value) {
    return HyperParameter(value).ToTensor(s, name);
  };
  lr_ = learning_rate_.ToTensor(s, "learning_rate");
  l1_ = number("l1_regularization_strength", options_.l1_regularization_strength);
  // l2 + beta / (2 * lr), for a rate that may be 0.
  const Scope most = s.NewSubScope("Maximum");
  Output rate = learning_rate_.ToTensor(most, "x");
  const DType dtype = BaseType(rate.dtype());
  Output least = ScalarConst(most.WithOpName("y"), dtype, 1e-36);
  Output twice = WithConst(s, ops::Mul, "mul", dtype, 2, ops::Maximum(AsScope(most), rate, least));
  Output smoothing = WithConst(s, ops::RealDiv, "truediv", dtype, options_.beta, twice);
  l2_ = WithConst(s, ops::AddV2, "add", dtype, options_.l2_regularization_strength, smoothing);
  number("beta", options_.beta);
  shrinkage_ =
      number("l2_shrinkage_regularization_strength", options_.l2_shrinkage_regularization_strength);
  power_ = number("learning_rate_power", options_.learning_rate_power);
}

Node* FtrlOptimizer::Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) {
  const bool shrinks = options_.l2_shrinkage_regularization_strength > 0;
  NodeBuilder b(s, ApplyOp(shrinks ? "FtrlV2" : "Ftrl", var, grad));
  b.Input(var.ref).Input(GetSlot(var, "accum").ref).Input(GetSlot(var, "linear").ref);
  AddGradient(&b, grad);
  b.Input(CastTo(s, lr_, var.dtype())).Input(CastTo(s, l1_, var.dtype()));
  b.Input(CastTo(s, l2_, var.dtype()));
  if (shrinks) b.Input(CastTo(s, shrinkage_, var.dtype()));
  return b.Input(CastTo(s, power_, var.dtype())).Build();
}

}  // namespace ferry
