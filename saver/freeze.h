// Freezing: a graph with its variables' values as constants, so that one file holds all that a
// program needs to compute its outputs; and cutting a graph down to what outputs need.
//
//   FERRY_ASSIGN_OR_RETURN(proto::GraphDef frozen,
//                          ConvertVariablesToConstants(&session, {"add"}));
//   FERRY_RETURN_IF_ERROR(WriteGraphDef(fs, "combined_model.pb", frozen));
//
// As tf.compat.v1.graph_util makes them: a variable becomes a Const of its name; what reads it,
// such as `v/read`, stays where it was. A resource variable's handle becomes the Const, its
// ReadVariableOps become Identities, its ResourceGathers GatherV2s (with a Const `NAME/axis`) and
// its ResourceGatherNds GatherNds. Identity, Switch, Merge and loops' nodes between them take the
// type of the value; those for references (RefSwitch …), of which constants have none, become the
// plain ones.
#ifndef FERRY_SAVER_FREEZE_H_
#define FERRY_SAVER_FREEZE_H_

#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/graph.pb.h"
#include "proto/meta_graph.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/session/session.h"

namespace ferry {

struct FreezeOptions {
  // Only these variables become constants; none given: all.
  std::optional<std::vector<std::string>> variable_names_whitelist;
  // These stay variables.
  std::vector<std::string> variable_names_blacklist;
};

// The part of `graph` that `output_names` (of nodes) need, with the values that the variables have
// in the session, read in one Run. Logs "Froze 2 variables." and "Converted 2 variables to const
// ops.". InvalidArgument "X is not in graph" for an output; an output that needs a node which
// writes a variable that is frozen; a result beyond 2 GiB, where protocol buffers end.
// FailedPrecondition "Attempting to use uninitialized value v".
absl::StatusOr<proto::GraphDef> ConvertVariablesToConstants(
    Session* session, const proto::GraphDef& graph, const std::vector<std::string>& output_names,
    const FreezeOptions& options = {});
// The session's whole graph.
absl::StatusOr<proto::GraphDef> ConvertVariablesToConstants(
    Session* session, const std::vector<std::string>& output_names,
    const FreezeOptions& options = {});

// The same with values straight from a checkpoint: nothing is run, so the graph's ops needn't be
// known here. The nodes that the meta graph's SaverDef names tell under which name (or slice) each
// variable was saved; a variable that they don't restore is looked up by its own name. NotFound
// "Key v not found in checkpoint".
absl::StatusOr<proto::GraphDef> FreezeCheckpoint(FileSystem* fs, const proto::MetaGraphDef& meta,
                                                 const std::string& prefix,
                                                 const std::vector<std::string>& output_names,
                                                 const FreezeOptions& options = {});

// The nodes that `output_names` need, in their order, with those that they are colocated with; the
// library and the versions too. InvalidArgument "X is not in graph".
absl::StatusOr<proto::GraphDef> ExtractSubGraph(const proto::GraphDef& graph,
                                                const std::vector<std::string>& output_names);

// Without the nodes that only training needs: CheckNumerics, and Identity and StopGradient where no
// control edge and no colocation needs them. Those in `protected_nodes` stay.
proto::GraphDef RemoveTrainingNodes(const proto::GraphDef& graph,
                                    const std::vector<std::string>& protected_nodes = {});

// Binary, the same bytes for the same graph, written atomically and synced. InvalidArgument from
// 2 GiB on, which says what to do.
absl::Status WriteGraphDef(FileSystem* fs, const std::string& path, const proto::GraphDef& graph);
// tf.train.write_graph: the file `name` in `dir`, which is made where it is missing; its path.
absl::StatusOr<std::string> WriteGraph(FileSystem* fs, const proto::GraphDef& graph,
                                       const std::string& dir, const std::string& name,
                                       bool as_text = true);

}  // namespace ferry

#endif  // FERRY_SAVER_FREEZE_H_
