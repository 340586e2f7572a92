// Typed views of a graph's collections: the named lists that a MetaGraphDef carries, in the form in
// which TensorFlow writes them.
#ifndef FERRY_RUNTIME_GRAPH_COLLECTIONS_H_
#define FERRY_RUNTIME_GRAPH_COLLECTIONS_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/variable.pb.h"
#include "runtime/graph/graph.h"

namespace ferry {

// TensorFlow's names of the standard collections.
inline constexpr char kGlobalVariables[] = "variables";
inline constexpr char kLocalVariables[] = "local_variables";
inline constexpr char kModelVariables[] = "model_variables";
inline constexpr char kTrainableVariables[] = "trainable_variables";
inline constexpr char kMovingAverageVariables[] = "moving_average_variables";
inline constexpr char kGlobalStep[] = "global_step";
inline constexpr char kTrainOp[] = "train_op";
inline constexpr char kRegularizationLosses[] = "regularization_losses";

// Whether TensorFlow writes the variables of this collection as VariableDefs. In any other, of the
// user's own, they stand by their tensors' names, as nodes do.
bool HoldsVariableDefs(absl::string_view collection);

// A collection of variables. Adding doesn't look for duplicates. FailedPrecondition when the
// collection holds something else; Get, which is for those that hold VariableDefs (VariablesOf
// reads all), also gives InvalidArgument for bytes that are none. A collection that isn't there is
// empty.
absl::Status AddVariableToCollection(Graph* graph, const std::string& collection,
                                     const proto::VariableDef& def);
absl::StatusOr<std::vector<proto::VariableDef>> GetVariableCollection(
    const Graph& graph, const std::string& collection);

// A collection of nodes or tensors, by name. Adding a name that is there does nothing.
absl::Status AddNodeToCollection(Graph* graph, const std::string& collection,
                                 const std::string& name);
absl::StatusOr<std::vector<std::string>> GetNodeCollection(const Graph& graph,
                                                           const std::string& collection);

}  // namespace ferry

#endif  // FERRY_RUNTIME_GRAPH_COLLECTIONS_H_
