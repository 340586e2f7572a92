// Variables as programs make them: a VariableV2 with its initial value, the Assign that sets it and
// the Identity that reads it, named as tf.compat.v1.get_variable names them, and listed in the
// graph's collections. With use_resource it is a VarHandleOp, AssignVariableOp and ReadVariableOp.
//
//   Scope hidden = root.NewSubScope("hidden1");
//   VariableHandle w = GetVariable(hidden, "weights", {64, 128}, DType::kFloat,
//                                  {TruncatedNormalInitializer(0, 0.125)});
//   Output y = ops::MatMul(hidden, x, w.read);
//   Node* init = GlobalVariablesInitializer(root);
#ifndef FERRY_RUNTIME_GRAPH_VARIABLES_H_
#define FERRY_RUNTIME_GRAPH_VARIABLES_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "proto/variable.pb.h"
#include "runtime/graph/collections.h"
#include "runtime/graph/scope.h"
#include "runtime/tensor/shape.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

// The parts of one variable. Cheap to copy; the nodes belong to the graph.
struct VariableHandle {
  Output ref;                   // "w:0": a reference, or the handle of a resource variable.
  Output read;                  // "w/read:0", "w/Read/ReadVariableOp:0".
  Output initial_value;         // Empty when a meta graph doesn't say.
  Node* initializer = nullptr;  // "w/Assign".
  bool trainable = false;
  // Of a part of a larger variable: of which, and where it lies in there. Null for a whole one.
  std::shared_ptr<const proto::SaveSliceInfoDef> slice = nullptr;

  explicit operator bool() const { return ref.node != nullptr; }
  const std::string& name() const { return ref.node->name(); }  // "w". REQUIRES: not empty.
  bool is_resource() const { return ref.dtype() == DType::kResource; }
  DType dtype() const { return is_resource() ? read.dtype() : BaseType(ref.dtype()); }
  const PartialShape& shape() const {
    return is_resource() ? ref.node->handle_shape() : ref.shape();
  }
};

// The same for both kinds of variables: a read of its own, which control dependencies order (a
// resource variable's is a copy when the variable changes while it is in use; a reference's isn't),
// whether it was initialised, and assignments.
Output ReadValue(const Scope& s, const VariableHandle& v);
Output IsInitialized(const Scope& s, const VariableHandle& v);
Node* AssignTo(const Scope& s, const VariableHandle& v, Output value);
Node* AssignAddTo(const Scope& s, const VariableHandle& v, Output value);
Node* AssignSubTo(const Scope& s, const VariableHandle& v, Output value);

// Makes the initial value of a variable, under the scope "<variable>/Initializer". Null stands for
// the default: GlorotUniform for floating types, zeros for integers and bool.
using Initializer = std::function<Output(const Scope& s, const TensorShape& shape, DType dtype)>;

Initializer ZerosInitializer();
Initializer OnesInitializer();
Initializer ConstantInitializer(double value);
// In [min, max). The seed is the op's own; without one it derives from the graph's.
Initializer RandomUniformInitializer(double min, double max,
                                     std::optional<int64_t> seed = std::nullopt);
Initializer RandomNormalInitializer(double mean, double stddev,
                                    std::optional<int64_t> seed = std::nullopt);
// Values beyond two standard deviations are drawn again.
Initializer TruncatedNormalInitializer(double mean, double stddev,
                                       std::optional<int64_t> seed = std::nullopt);
// Uniform within +-sqrt(6 / (fan_in + fan_out)), and normal with stddev
// sqrt(2 / (fan_in + fan_out)) after truncation: Glorot and Bengio, "Understanding the difficulty
// of training deep feedforward neural networks" (2010).
double GlorotUniformLimit(const TensorShape& shape);
Initializer GlorotUniformInitializer(std::optional<int64_t> seed = std::nullopt);
Initializer GlorotNormalInitializer(std::optional<int64_t> seed = std::nullopt);

enum class Reuse {
  kNo,    // The variable must not exist.
  kYes,   // It must.
  kAuto,  // It is made where it doesn't.
};

// What a variable's values add to the loss, a scalar, under the scope "<variable>/Regularizer".
using Regularizer = std::function<Output(const Scope& s, Output weights)>;

// scale * the sum of all magnitudes.
Regularizer L1Regularizer(double scale);
// scale * half the sum of all squares.
Regularizer L2Regularizer(double scale);
// Both.
Regularizer L1L2Regularizer(double scale_l1, double scale_l2);

struct VariableOptions {
  Initializer initializer;
  // Its term joins the collection kRegularizationLosses when the variable is made.
  Regularizer regularizer = nullptr;
  bool trainable = true;
  // Besides kTrainableVariables, which `trainable` decides.
  std::vector<std::string> collections = {kGlobalVariables};
  Reuse reuse = Reuse::kNo;
  bool use_resource = false;
  std::shared_ptr<const proto::SaveSliceInfoDef> slice = nullptr;  // For GetPartitionedVariable.
};

// tf.get_variable: the variable "<scope's prefix>/name". An error is the scope's status, and the
// handle empty: AlreadyExists / InvalidArgument, with TensorFlow's words, for a variable that is
// there and shouldn't be, isn't and should, or has another shape or dtype. To come back into a
// scope use Scope::WithPrefix; NewSubScope gives a new one each time.
// The variable follows the scope's device and colocation; its initial value has no device. Control
// dependencies don't apply.
VariableHandle GetVariable(const Scope& s, const std::string& name, const TensorShape& shape,
                           DType dtype, const VariableOptions& options = {});

// tf.Variable: with this initial value, and a name that is made unique.
VariableHandle MakeVariable(const Scope& s, const std::string& name, const Tensor& initial_value,
                            const VariableOptions& options = {});

// The same with a value that the graph computes, of a known shape. Where it depends on other
// variables, what initialises this one takes their InitializedValue instead, so that the order in
// which variables are initialised doesn't matter.
VariableHandle MakeVariable(const Scope& s, const std::string& name, Output initial_value,
                            const VariableOptions& options = {});

// Variable.initialized_value(): the variable's value, or its initial value while it has none. A
// tf.cond in `s`.
Output InitializedValue(const Scope& s, const VariableHandle& v);

// What tf.train's slots are: a variable of `name` (a full one, made unique), with the shape and
// dtype of `primary` and colocated with it. Not trainable.
VariableHandle MakeSlot(const Scope& s, const VariableHandle& primary, const std::string& name,
                        const Initializer& initializer = ZerosInitializer());

// The sum of the collection kRegularizationLosses, "total_regularization_loss"; a constant 0 when
// there are none. To be added to the loss that is minimised.
Output RegularizationLoss(const Scope& s);

// The variables of a collection, in their order; InvalidArgument / NotFound when an entry doesn't
// fit the graph.
absl::StatusOr<std::vector<VariableHandle>> VariablesOf(const Graph& graph,
                                                        const std::string& collection);
inline absl::StatusOr<std::vector<VariableHandle>> GlobalVariables(const Graph& graph) {
  return VariablesOf(graph, kGlobalVariables);
}
inline absl::StatusOr<std::vector<VariableHandle>> TrainableVariables(const Graph& graph) {
  return VariablesOf(graph, kTrainableVariables);
}

proto::VariableDef ToProto(const VariableHandle& v);
absl::StatusOr<VariableHandle> FromProto(const Graph& graph, const proto::VariableDef& def);

// The initializers of `variables` as one node, "init" unless the scope names it.
Node* VariablesInitializer(const Scope& s, const std::vector<VariableHandle>& variables);
Node* GlobalVariablesInitializer(const Scope& s);
Node* LocalVariablesInitializer(const Scope& s);

// tf.report_uninitialized_variables: a tensor with the names of those that aren't initialised when
// it is fetched, under the scope "report_uninitialized_variables". Without a list: the global and
// local variables.
Output ReportUninitializedVariables(const Scope& s, const std::vector<VariableHandle>& variables);
Output ReportUninitializedVariables(const Scope& s);

// The int64 scalar "global_step" that counts training steps; made where there is none yet, outside
// of any scope. FailedPrecondition when there are several.
VariableHandle GetOrCreateGlobalStep(const Scope& s);
// Empty if there is none.
absl::StatusOr<VariableHandle> GetGlobalStep(const Graph& graph);

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_VARIABLES_H_
