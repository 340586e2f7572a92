// Starts variables from a checkpoint instead of from their initializers: warm starts, fine-tuning.
//
//   FERRY_RETURN_IF_ERROR(InitFromCheckpoint(fs, "pretrained_dir", {{"trunk/", "model/trunk/"},
//                                                                   {"old_bias", bias}}, &graph));
//   Node* init = GlobalVariablesInitializer(root);   // reads those two from the checkpoint
#ifndef FERRY_SAVER_INIT_FROM_CHECKPOINT_H_
#define FERRY_SAVER_INIT_FROM_CHECKPOINT_H_

#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "runtime/base/file_system.h"
#include "runtime/graph/variables.h"

namespace ferry {

// From what is in the checkpoint to what is in the graph, as tf.train.init_from_checkpoint takes
// it:
//
//   "scope/" -> "other/"    every variable below other/ from the same name below scope/; "/" is the
//                           root, on either side
//   "name" -> "name2"       one variable, a partitioned one by its whole's name
//   "name" -> a handle      likewise
using AssignmentMap =
    std::vector<std::pair<std::string, std::variant<std::string, VariableHandle>>>;

// Replaces what the variables' initializers assign by what RestoreV2 reads, under
// "checkpoint_initializer"; every initializer and init op that there is does it from then on, and
// the VariableDefs name the new initial value. Handles' initial_value stays as it was. To be called
// before a session runs the graph. `checkpoint` is a prefix or a directory, whose latest is taken.
// Parts of partitioned variables read their slices.
//
// All of the map is checked before anything changes. NotFound: a tensor that isn't in the
// checkpoint, a variable that isn't in the graph; InvalidArgument: shapes or dtypes that differ, a
// scope mapped to a name.
absl::Status InitFromCheckpoint(FileSystem* fs, const std::string& checkpoint,
                                const AssignmentMap& map, Graph* graph);

}  // namespace ferry

#endif  // FERRY_SAVER_INIT_FROM_CHECKPOINT_H_
