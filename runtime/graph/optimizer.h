// Optimizers: they add to a graph the gradients of a loss and the ops that update its variables.
// Nodes, slots and their names are those of TensorFlow's compat.v1 optimizers, so checkpoints and
// meta graphs pass between the two.
//
//   MinimizeOptions options;
//   options.global_step = GetOrCreateGlobalStep(root);
//   AdamOptimizer optimizer(1e-3);
//   Node* train_op = optimizer.Minimize(root, loss, options);
//
// All take the first error into the scope's status, and return null or nothing after one.
#ifndef FERRY_RUNTIME_GRAPH_OPTIMIZER_H_
#define FERRY_RUNTIME_GRAPH_OPTIMIZER_H_

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "runtime/graph/clipping.h"
#include "runtime/graph/learning_rate.h"
#include "runtime/graph/scope.h"
#include "runtime/graph/sparse_gradient.h"
#include "runtime/graph/variables.h"

namespace ferry {

struct GradAndVar {
  Gradient grad;  // Empty: the loss doesn't depend on the variable.
  VariableHandle var;
};

// A number of the training, as it is set or as the graph computes it (a schedule).
class HyperParameter {
 public:
  HyperParameter(double value) : value_(value) {}     // NOLINT: either stands for itself.
  HyperParameter(Output tensor) : tensor_(tensor) {}  // NOLINT
  // The tensor, or a new float constant `name`.
  Output ToTensor(const Scope& s, const std::string& name) const;

 private:
  double value_ = 0;
  Output tensor_;
};

struct MinimizeOptions {
  std::vector<VariableHandle> var_list;  // Empty: all trainable ones.
  VariableHandle global_step;            // Incremented after the update, unless empty.
  std::string name;                      // Of the train op; "": the optimizer's.
};

// Thread-compatible. One optimizer serves one graph.
class Optimizer {
 public:
  virtual ~Optimizer() = default;
  Optimizer(const Optimizer&) = delete;
  Optimizer& operator=(const Optimizer&) = delete;

  // ComputeGradients, then ApplyGradients.
  Node* Minimize(const Scope& s, Output loss, const MinimizeOptions& options = {});

  // The gradient of `loss` for each variable (all trainable ones when `var_list` is empty), gated:
  // an op's gradients are used when all of them are there.
  std::vector<GradAndVar> ComputeGradients(const Scope& s, Output loss,
                                           std::vector<VariableHandle> var_list = {});

  // The op that runs one update; it joins the collection "train_op". Variables without a gradient
  // are left out; InvalidArgument "No gradients provided for any variable" when that's all.
  Node* ApplyGradients(const Scope& s, const std::vector<GradAndVar>& grads_and_vars,
                       const VariableHandle& global_step = {}, const std::string& name = "");

  const std::string& name() const { return name_; }
  virtual std::vector<std::string> SlotNames() const { return {}; }
  // Empty before ApplyGradients, or for a variable or slot that it hasn't.
  VariableHandle GetSlot(const VariableHandle& var, const std::string& slot) const;

 protected:
  explicit Optimizer(std::string name) : name_(std::move(name)) {}

  // Makes slots and other variables, under the caller's scope.
  virtual void CreateSlots(const Scope&, const std::vector<VariableHandle>&) {}
  // Makes the constants, under the optimizer's scope.
  virtual void Prepare(const Scope& s) = 0;
  // The update of one variable, under its own scope, colocated with it. A sparse gradient has each
  // row once, unless TakesDuplicates().
  virtual Node* Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) = 0;
  virtual bool TakesDuplicates() const { return false; }
  // Further updates after those of the variables.
  virtual std::vector<Node*> Finish(const Scope&, const std::vector<Node*>&) { return {}; }

  // The slot of `var`, made on the first call.
  VariableHandle Slot(const Scope& s, const VariableHandle& var, const std::string& slot,
                      const Initializer& initializer = ZerosInitializer());

 private:
  const std::string name_;
  std::map<std::pair<std::string, std::string>, VariableHandle> slots_;  // (Variable, slot).
};

// w -= lr * g.
class GradientDescentOptimizer : public Optimizer {
 public:
  explicit GradientDescentOptimizer(HyperParameter learning_rate,
                                    std::string name = "GradientDescent")
      : Optimizer(std::move(name)), learning_rate_(learning_rate) {}

 private:
  void Prepare(const Scope& s) override;
  Node* Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) override;
  bool TakesDuplicates() const override { return true; }
  const HyperParameter learning_rate_;
  Output lr_;
};

// a = momentum * a + g; w -= lr * a, or with Nesterov's w -= lr * (g + momentum * a). Slot
// "momentum" (a), the variable w/Momentum.
class MomentumOptimizer : public Optimizer {
 public:
  MomentumOptimizer(HyperParameter learning_rate, HyperParameter momentum,
                    bool use_nesterov = false, std::string name = "Momentum")
      : Optimizer(std::move(name)),
        learning_rate_(learning_rate),
        momentum_(momentum),
        use_nesterov_(use_nesterov) {}
  std::vector<std::string> SlotNames() const override { return {"momentum"}; }

 private:
  void CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) override;
  void Prepare(const Scope& s) override;
  Node* Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) override;
  const HyperParameter learning_rate_, momentum_;
  const bool use_nesterov_;
  Output lr_, m_;
};

// Kingma and Ba, "Adam: a method for stochastic optimization" (2015), in the form that corrects the
// bias in the step size. Slots "m" and "v", the variables w/Adam and w/Adam_1; beta1_power and
// beta2_power hold the betas to the power of the number of updates plus one. A sparse gradient
// updates all rows, as a dense one with zeros would.
class AdamOptimizer : public Optimizer {
 public:
  explicit AdamOptimizer(HyperParameter learning_rate = 0.001, double beta1 = 0.9,
                         double beta2 = 0.999, double epsilon = 1e-8, std::string name = "Adam")
      : Optimizer(std::move(name)),
        learning_rate_(learning_rate),
        beta1_(beta1),
        beta2_(beta2),
        epsilon_(epsilon) {}
  std::vector<std::string> SlotNames() const override { return {"m", "v"}; }
  const VariableHandle& beta1_power() const { return beta1_power_; }
  const VariableHandle& beta2_power() const { return beta2_power_; }

 private:
  void CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) override;
  void Prepare(const Scope& s) override;
  Node* Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) override;
  Node* ApplySparse(const Scope& s, const VariableHandle& var, const Gradient& grad);
  std::vector<Node*> Finish(const Scope& s, const std::vector<Node*>& updates) override;
  const HyperParameter learning_rate_;
  const double beta1_, beta2_, epsilon_;
  VariableHandle beta1_power_, beta2_power_;
  Output lr_, beta1_t_, beta2_t_, epsilon_t_;
};

// Duchi, Hazan and Singer, "Adaptive subgradient methods for online learning and stochastic
// optimization" (2011): a += g^2; w -= lr * g / sqrt(a). Slot "accumulator" (a), the variable
// w/Adagrad, which starts with initial_accumulator_value.
class AdagradOptimizer : public Optimizer {
 public:
  explicit AdagradOptimizer(HyperParameter learning_rate, double initial_accumulator_value = 0.1,
                            std::string name = "Adagrad")
      : Optimizer(std::move(name)),
        learning_rate_(learning_rate),
        initial_accumulator_value_(initial_accumulator_value) {}
  std::vector<std::string> SlotNames() const override { return {"accumulator"}; }

 private:
  void CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) override;
  void Prepare(const Scope& s) override;
  Node* Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) override;
  const HyperParameter learning_rate_;
  const double initial_accumulator_value_;
  Output lr_;
};

// Zeiler, "ADADELTA: an adaptive learning rate method" (2012). Slots "accum" and "accum_update",
// the variables w/Adadelta and w/Adadelta_1.
class AdadeltaOptimizer : public Optimizer {
 public:
  explicit AdadeltaOptimizer(HyperParameter learning_rate = 0.001, double rho = 0.95,
                             double epsilon = 1e-8, std::string name = "Adadelta")
      : Optimizer(std::move(name)), learning_rate_(learning_rate), rho_(rho), epsilon_(epsilon) {}
  std::vector<std::string> SlotNames() const override { return {"accum", "accum_update"}; }

 private:
  void CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) override;
  void Prepare(const Scope& s) override;
  Node* Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) override;
  const HyperParameter learning_rate_;
  const double rho_, epsilon_;
  Output lr_, rho_t_, epsilon_t_;
};

// Hinton's RMSProp, with momentum: r is a running mean of g^2, with the weight `decay` for what it
// was; m = momentum * m + lr * g / sqrt(r + epsilon); w -= m. `centered`: r less the square of a
// running mean of g. Slots "rms" (ones at first), "mg" if centered, and "momentum": the variables
// w/RMSProp, w/RMSProp_1 and so on.
class RMSPropOptimizer : public Optimizer {
 public:
  explicit RMSPropOptimizer(HyperParameter learning_rate, double decay = 0.9,
                            HyperParameter momentum = 0.0, double epsilon = 1e-10,
                            bool centered = false, std::string name = "RMSProp")
      : Optimizer(std::move(name)),
        learning_rate_(learning_rate),
        momentum_(momentum),
        decay_(decay),
        epsilon_(epsilon),
        centered_(centered) {}
  std::vector<std::string> SlotNames() const override {
    if (centered_) return {"rms", "mg", "momentum"};
    return {"rms", "momentum"};
  }

 private:
  void CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) override;
  void Prepare(const Scope& s) override;
  Node* Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) override;
  const HyperParameter learning_rate_, momentum_;
  const double decay_, epsilon_;
  const bool centered_;
  Output lr_, decay_t_, momentum_t_, epsilon_t_;
};

// What FtrlOptimizer takes besides the learning rate.
struct FtrlOptions {
  double learning_rate_power = -0.5;  // At most 0; 0 keeps the rate as it is.
  double initial_accumulator_value = 0.1;
  double l1_regularization_strength = 0, l2_regularization_strength = 0;
  double l2_shrinkage_regularization_strength = 0;  // Of the gradient alone.
  double beta = 0;
};
// McMahan et al., "Ad click prediction: a view from the trenches" (2013). Slots "accum" and
// "linear", the variables w/Ftrl and w/Ftrl_1.
class FtrlOptimizer : public Optimizer {
 public:
  explicit FtrlOptimizer(HyperParameter learning_rate, const FtrlOptions& options = {},
                         std::string name = "Ftrl")
      : Optimizer(std::move(name)), learning_rate_(learning_rate), options_(options) {}
  std::vector<std::string> SlotNames() const override { return {"accum", "linear"}; }

 private:
  void CreateSlots(const Scope& s, const std::vector<VariableHandle>& vars) override;
  void Prepare(const Scope& s) override;
  Node* Apply(const Scope& s, const VariableHandle& var, const Gradient& grad) override;
  const HyperParameter learning_rate_;
  const FtrlOptions options_;
  Output lr_, l1_, l2_, shrinkage_, power_;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_OPTIMIZER_H_
