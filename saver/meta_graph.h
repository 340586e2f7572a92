// Meta graphs (`.meta` files): a graph with its collections and the nodes by which TensorFlow saves
// and restores its variables. Also what a Saver adds to a graph to make such a file.
//
//   FERRY_ASSIGN_OR_RETURN(proto::SaverDef def, AddSaveNodes(&graph, items, {}));
//   FERRY_ASSIGN_OR_RETURN(proto::MetaGraphDef meta, ExportMetaGraph(graph, {.saver_def = &def}));
//   FERRY_RETURN_IF_ERROR(WriteMetaGraph(fs, "model.ckpt-100.meta", meta));
//
// Files that WriteMetaGraph wrote carry their own crc where TensorFlow doesn't look: the first
// field is number 15000 (fixed32, a mark), the last is number 15001 (fixed32, the masked crc32c of
// all bytes before it). TensorFlow's MetaGraphDef has no such fields and skips them. Either of the
// two tells that the other must be there. Text files have a comment line: see text_crc.h.
#ifndef FERRY_SAVER_META_GRAPH_H_
#define FERRY_SAVER_META_GRAPH_H_

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/meta_graph.pb.h"
#include "proto/saver.pb.h"
#include "proto/variable.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/graph/graph.h"

namespace ferry {

// One variable as a Saver knows it.
struct SaveItem {
  std::string key;    // Its name in the checkpoint.
  Output variable;    // The reference: output 0 of a VariableV2 or Variable.
  std::string slice;  // Shape and slice ("5 3 0,3:-"), "" for a whole tensor.
};

// "5 3 0,3:0,3": the slice that a VariableDef tells of.
std::string SliceSpec(const proto::SaveSliceInfoDef& slice);

struct SaveNodesOptions {
  std::string name = "save";       // The scope's, made unique (save_1, …).
  std::string filename = "model";  // The default of save/filename.
  bool reshape = false;            // Restored values take the variables' shapes.
  bool sharded = false;            // One SaveV2 and RestoreV2 a device, and a merge.
};

// Adds the nodes save/… for `items`, in their order, as TensorFlow's Saver names and connects them.
// The SaverDef names them; retention isn't filled in. InvalidArgument: no items ("No variables to
// save"), two of one key, a variable that is none.
//
// Sharded, each device's SaveV2 writes a checkpoint PREFIX_temp/part-0000i-of-0000N of its own, and
// MergeV2Checkpoints makes one of them, with a data file a device.
absl::StatusOr<proto::SaverDef> AddSaveNodes(Graph* graph, const std::vector<SaveItem>& items,
                                             const SaveNodesOptions& options);

// The SaverDef of nodes that are in `graph` already and do what AddSaveNodes's with these arguments
// would; none if there are no such.
std::optional<proto::SaverDef> FindSaveNodes(const Graph& graph, const std::vector<SaveItem>& items,
                                             const SaveNodesOptions& options);

// The positions of the items by the device that their variables ask for ("/device:GPU:0", "" for
// none), which is how a sharded save splits them: shard i holds the i-th group.
std::map<std::string, std::vector<size_t>> ItemsByDevice(const std::vector<SaveItem>& items);

// The items that a SaverDef's save nodes in `graph` name: the inverse of AddSaveNodes, for graphs
// that were imported (sharded ones too). FailedPrecondition when the nodes aren't such.
absl::StatusOr<std::vector<SaveItem>> FindSaveItems(const Graph& graph,
                                                    const proto::SaverDef& def);

struct ExportOptions {
  const proto::SaverDef* saver_def = nullptr;  // None: without one.
  std::vector<std::string> tags;
  bool strip_default_attrs = false;  // Leave out attributes that have their op's default.
  bool clear_devices = false;
  // Only the nodes of this scope, and what collections hold of them, named without it. An input x
  // from elsewhere becomes "$unbound_inputs_x", listed in the collection "unbound_inputs": who
  // imports has to map it.
  std::string export_scope;
  std::optional<std::vector<std::string>> collection_list;  // Which collections; none: all.
  // Leave out the nodes of other Savers than saver_def's, unless what stays needs them, and the
  // other SaverDefs in the collection "savers".
  bool clear_extraneous_savers = false;
};
// Ops that aren't registered here are left out of the list of ops.
absl::StatusOr<proto::MetaGraphDef> ExportMetaGraph(const Graph& graph,
                                                    const ExportOptions& options);

struct ImportMetaOptions {
  bool clear_devices = false;
  // Put before every name, those in collections and SaverDef too; made unique.
  std::string import_scope;
  std::map<std::string, Output> input_map;
  std::vector<std::string> return_elements;  // "name" or "name:0": in nodes.return_outputs.
};
struct ImportedMetaGraph {
  bool has_saver_def = false;
  proto::SaverDef saver_def;
  std::string scope;  // What import_scope has become.
  ImportResults nodes;
};
// Adds the nodes and the collections to `graph`. Names that exist already become name_1 … for the
// nodes alone, as in TensorFlow (use import_scope).
absl::StatusOr<ImportedMetaGraph> ImportMetaGraph(const proto::MetaGraphDef& meta,
                                                  const ImportMetaOptions& options, Graph* graph);

// Puts the scope before the names in a SaverDef.
void PrefixSaverDef(const std::string& scope, proto::SaverDef* def);

// Binary or text, with a crc, written atomically and synced. InvalidArgument from 2 GiB on.
absl::Status WriteMetaGraph(FileSystem* fs, const std::string& path,
                            const proto::MetaGraphDef& meta, bool as_text = false);
// The bytes that WriteMetaGraph writes, in binary form.
absl::StatusOr<std::string> SerializeMetaGraph(const proto::MetaGraphDef& meta);
// Binary or text, told apart by content. DataLoss names the file when its crc doesn't match or it
// can't be parsed.
absl::StatusOr<proto::MetaGraphDef> ReadMetaGraph(FileSystem* fs, const std::string& path);
absl::StatusOr<proto::MetaGraphDef> ParseMetaGraph(const std::string& bytes,
                                                   absl::string_view file_name);

}  // namespace ferry

#endif  // FERRY_SAVER_META_GRAPH_H_
