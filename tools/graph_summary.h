// Reads a file that holds a graph, whatever its form, and says in words what is in it.
#ifndef FERRY_TOOLS_GRAPH_SUMMARY_H_
#define FERRY_TOOLS_GRAPH_SUMMARY_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/meta_graph.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/graph/graph.h"

namespace ferry {

struct GraphFile {
  std::string path;
  std::string kind;  // "GraphDef", "MetaGraphDef" or "SavedModel".
  bool is_text = false;
  // Of a GraphDef: with nothing but graph_def. Of a SavedModel: the first, and how many more.
  proto::MetaGraphDef meta_graph;
  int other_meta_graphs = 0;
};

// Reads a GraphDef (.pb, .pbtxt), a MetaGraphDef (.meta) or a SavedModel (saved_model.pb), binary
// or text, told apart by content; of a directory, the saved_model.pb or .pbtxt in it. DataLoss,
// naming the file, when it is none of these or damaged.
absl::StatusOr<GraphFile> ReadGraphFile(FileSystem* fs, const std::string& path);
absl::StatusOr<GraphFile> ParseGraphFile(const std::string& path, const std::string& bytes);

// A variable or a placeholder.
struct GraphInput {
  std::string name;
  DType dtype = DType::kInvalid;
  PartialShape shape;
  bool has_default = false;
};

// The variables (VariableV2, Variable, VarHandleOp), and the placeholders but for a Saver's file
// name, in the order of the nodes.
std::vector<GraphInput> ListVariables(const proto::GraphDef& graph);
std::vector<GraphInput> ListPlaceholders(const proto::GraphDef& graph);

// The shape of every output whose node's op is registered, by inference, as
// [node's name][output's index]; what can't be inferred has an unknown rank. When the graph can't
// be imported (an edge from nowhere, a wrong type), the result is empty.
std::map<std::string, std::vector<PartialShape>> InferShapes(const proto::GraphDef& graph);

// Several lines: the ops by how often they occur, the variables with their types, shapes and
// numbers of parameters, the placeholders, what nothing consumes, and what a meta graph adds
// (signatures, collections, the saver).
std::string SummarizeGraph(const GraphFile& file);

// Nodes that nothing consumes, as SummarizeGraph lists them: those that yield a value, and those
// that are run for what they do (NoOp, assignments, optimizers' steps, saving).
struct GraphSinks {
  std::vector<std::string> outputs, targets;
};
GraphSinks FindSinks(const proto::GraphDef& graph);

}  // namespace ferry

#endif  // FERRY_TOOLS_GRAPH_SUMMARY_H_
