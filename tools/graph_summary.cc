// Summaries of graphs: see graph_summary.h.
#include "tools/graph_summary.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/stubs/logging.h>
#include <google/protobuf/text_format.h>

#include <algorithm>
#include <cctype>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "proto/saved_model.pb.h"
#include "proto/variable.pb.h"
#include "runtime/base/status.h"
#include "saver/meta_graph.h"

namespace ferry {
namespace {

// Deeper ones come from no graph, and would exhaust the stack.
constexpr int kTextRecursionLimit = 200;

// Whether the nodes read like nodes: messages of one type often parse as another.
bool LooksRight(const proto::GraphDef& graph) {
  const auto is_word = [](const std::string& word) {
    return !word.empty() && std::all_of(word.begin(), word.end(), [](char c) {
      return isgraph(static_cast<unsigned char>(c)) != 0;
    });
  };
  for (const proto::NodeDef& node : graph.node()) {
    if (!is_word(node.name()) || !is_word(node.op())) return false;
  }
  return graph.node_size() > 0;
}

bool LooksRight(const proto::MetaGraphDef& meta_graph) {
  return LooksRight(meta_graph.graph_def());
}

bool LooksRight(const proto::SavedModel& model) {
  return model.meta_graphs_size() > 0 && LooksRight(model.meta_graphs(0));
}

struct FirstError : google::protobuf::io::ErrorCollector {
  void AddError(int at, int column, const std::string& what) override {
    if (line >= 0) return;
    line = at;
    message = absl::StrCat("line ", at + 1, ", column ", column + 1, ": ", what);
  }
  int line = -1;
  std::string message;
};

// Parses the whole text; on failure keeps in *error the message of the attempt that came furthest.
template <typename Message>
bool ParseText(const std::string& text, Message* message, std::pair<int, std::string>* error) {
  google::protobuf::TextFormat::Parser parser;
  FirstError errors;
  parser.RecordErrorsTo(&errors);
  parser.SetRecursionLimit(kTextRecursionLimit);
  const bool parsed = parser.ParseFromString(text, message);
  if (parsed && LooksRight(*message)) return true;
  const int line = parsed ? std::numeric_limits<int>::max() : errors.line;
  if (line > error->first) {
    *error = {line, absl::StrCat(message->GetTypeName().substr(sizeof("ferry.proto")),
                                 parsed ? " without nodes" : ", ", errors.message)};
  }
  return false;
}

bool IsText(const std::string& bytes) {
  const size_t n = std::min<size_t>(bytes.size(), 1024);
  return std::all_of(bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(n), [](char c) {
    const auto u = static_cast<unsigned char>(c);
    return u >= 0x20 || u == '\n' || u == '\r' || u == '\t';
  });
}

bool IsVariable(const proto::NodeDef& node) {
  return node.op() == "VariableV2" || node.op() == "Variable" || node.op() == "VarHandleOp";
}

bool IsSaverOp(const proto::NodeDef& node) {
  return node.op() == "SaveV2" || node.op() == "RestoreV2" || node.op() == "MergeV2Checkpoints";
}

// "a/b" of "a/b/c", "" of "c".
std::string ScopeOf(const std::string& name) {
  const size_t slash = name.rfind('/');
  return slash == std::string::npos ? "" : name.substr(0, slash);
}

bool IsPlaceholder(const proto::NodeDef& node) {
  return node.op() == "Placeholder" || node.op() == "PlaceholderV2" ||
         node.op() == "PlaceholderWithDefault";
}

const proto::AttrValue* FindAttr(const proto::NodeDef& node, const std::string& name) {
  const auto it = node.attr().find(name);
  return it == node.attr().end() ? nullptr : &it->second;
}

PartialShape ShapeAttr(const proto::NodeDef& node) {
  const proto::AttrValue* const attr = FindAttr(node, "shape");
  if (attr == nullptr || attr->shape().unknown_rank()) return PartialShape();
  PartialShape shape = PartialShape::UnknownOfRank(0);
  for (const auto& dim : attr->shape().dim()) shape.AddDim(dim.size());
  return shape;
}

DType DTypeAttr(const proto::NodeDef& node) {
  const proto::AttrValue* const attr = FindAttr(node, "dtype");
  return attr == nullptr ? DType::kInvalid : static_cast<DType>(attr->type());
}

std::string Words(DType dtype) { return IsKnown(dtype) ? DTypeName(dtype) : "?"; }

// 1234567 as "1,234,567".
std::string Grouped(int64_t value) {
  std::string digits = absl::StrCat(value);
  for (int at = static_cast<int>(digits.size()) - 3; at > (value < 0 ? 1 : 0); at -= 3) {
    digits.insert(static_cast<size_t>(at), ",");
  }
  return digits;
}

// The sum, or the greatest number there is: files may say anything.
int64_t SumUpTo(int64_t a, int64_t b) {
  int64_t sum;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}

std::string Bytes(double bytes) {
  for (const char* const unit : {"bytes", "KiB", "MiB", "GiB"}) {
    if (bytes < 1024) {
      return absl::StrFormat(unit[0] == 'b' ? "%.0f %s" : "%.1f %s", bytes, unit);
    }
    bytes /= 1024;
  }
  return absl::StrFormat("%.1f TiB", bytes);
}

std::string Plural(int64_t count, absl::string_view noun) {
  return absl::StrCat(Grouped(count), " ", noun, count == 1 ? "" : "s");
}

// Columns are as wide as their widest cell; the last one is ragged. Cells of the columns in `right`
// are aligned to the right.
void AppendTable(const std::vector<std::vector<std::string>>& rows, const std::set<size_t>& right,
                 std::string* out) {
  std::vector<size_t> widths;
  for (const auto& row : rows) {
    widths.resize(std::max(widths.size(), row.size()));
    for (size_t i = 0; i < row.size(); ++i) widths[i] = std::max(widths[i], row[i].size());
  }
  for (const auto& row : rows) {
    std::string line = " ";
    for (size_t i = 0; i < row.size(); ++i) {
      const std::string pad(widths[i] - row[i].size(), ' ');
      absl::StrAppend(&line, " ", right.count(i) ? pad + row[i] : row[i] + pad, " ");
    }
    line.resize(line.find_last_not_of(' ') + 1);
    absl::StrAppend(out, line, "\n");
  }
}

void AppendNames(absl::string_view title, const std::vector<std::string>& names, std::string* out) {
  if (names.empty()) return;
  constexpr size_t kMost = 12;
  absl::StrAppend(out, "\n", title, ":\n");
  for (size_t i = 0; i < std::min(names.size(), kMost); ++i) {
    absl::StrAppend(out, "  ", names[i], "\n");
  }
  if (names.size() > kMost) {
    absl::StrAppend(out, "  and ", names.size() - kMost, " more\n");
  }
}

std::string Describe(const proto::TensorInfo& info) {
  std::string shape = "<unknown>";
  if (!info.tensor_shape().unknown_rank()) {
    PartialShape partial = PartialShape::UnknownOfRank(0);
    for (const auto& dim : info.tensor_shape().dim()) partial.AddDim(dim.size());
    shape = partial.DebugString();
  }
  return absl::StrCat(info.name(), " ", Words(static_cast<DType>(info.dtype())), " ", shape);
}

template <typename Map>
std::vector<std::string> SortedKeys(const Map& map) {
  std::vector<std::string> keys;
  for (const auto& entry : map) keys.push_back(entry.first);
  std::sort(keys.begin(), keys.end());
  return keys;
}

void AppendSignatures(const proto::MetaGraphDef& meta_graph, std::string* out) {
  for (const std::string& key : SortedKeys(meta_graph.signature_def())) {
    const proto::SignatureDef& signature = meta_graph.signature_def().at(key);
    absl::StrAppend(out, "\nsignature ", key);
    if (!signature.method_name().empty()) absl::StrAppend(out, " (", signature.method_name(), ")");
    *out += ":\n";
    std::vector<std::vector<std::string>> rows;
    for (const std::string& name : SortedKeys(signature.inputs())) {
      rows.push_back({"input", name, Describe(signature.inputs().at(name))});
    }
    for (const std::string& name : SortedKeys(signature.outputs())) {
      rows.push_back({"output", name, Describe(signature.outputs().at(name))});
    }
    AppendTable(rows, {}, out);
  }
}

void AppendCollections(const proto::MetaGraphDef& meta_graph, std::string* out) {
  if (meta_graph.collection_def().empty()) return;
  *out += "\ncollections:\n";
  std::vector<std::vector<std::string>> rows;
  for (const std::string& key : SortedKeys(meta_graph.collection_def())) {
    const proto::CollectionDef& collection = meta_graph.collection_def().at(key);
    const int size = collection.node_list().value_size() + collection.bytes_list().value_size() +
                     collection.int64_list().value_size() + collection.float_list().value_size() +
                     collection.any_list().value_size();
    std::string names;
    if (collection.has_node_list() && size <= 4) {
      names = absl::StrJoin(collection.node_list().value(), ", ");
    }
    rows.push_back({Grouped(size), key, names});
  }
  AppendTable(rows, {0}, out);
}

}  // namespace

absl::StatusOr<GraphFile> ParseGraphFile(const std::string& path, const std::string& bytes) {
  if (bytes.empty()) {
    return DataLoss("'", path,
                    "': expected a GraphDef, a MetaGraphDef or a SavedModel, found an "
                    "empty file");
  }
  // Bytes of one type that don't parse as another are no news.
  google::protobuf::LogSilencer silencer;
  GraphFile file;
  file.path = path;
  file.is_text = IsText(bytes);
  const auto is_model = [&](proto::SavedModel* model) {
    if (!LooksRight(*model)) return false;
    file.kind = "SavedModel";
    file.other_meta_graphs = model->meta_graphs_size() - 1;
    file.meta_graph = std::move(*model->mutable_meta_graphs(0));
    return true;
  };
  proto::SavedModel model;
  proto::GraphDef graph;
  if (file.is_text) {
    std::pair<int, std::string> error(-1, "");
    if (ParseText(bytes, &graph, &error)) {
      file.kind = "GraphDef";
      *file.meta_graph.mutable_graph_def() = std::move(graph);
      return file;
    }
    if (ParseText(bytes, &file.meta_graph, &error)) {
      file.kind = "MetaGraphDef";
      return file;
    }
    if (ParseText(bytes, &model, &error) && is_model(&model)) return file;
    return DataLoss("'", path, "': expected a GraphDef, a MetaGraphDef or a SavedModel as text: ",
                    error.second);
  }
  // A file that Ferry wrote says itself that it is a meta graph, and is checked as such; so is one
  // by that name.
  absl::StatusOr<proto::MetaGraphDef> meta_graph = ParseMetaGraph(bytes, path);
  if (meta_graph.ok() && LooksRight(*meta_graph)) {
    file.kind = "MetaGraphDef";
    file.meta_graph = *std::move(meta_graph);
    return file;
  }
  if (graph.ParseFromString(bytes) && LooksRight(graph)) {
    file.kind = "GraphDef";
    *file.meta_graph.mutable_graph_def() = std::move(graph);
    return file;
  }
  if (model.ParseFromString(bytes) && is_model(&model)) return file;
  if (absl::EndsWith(path, ".meta") && !meta_graph.ok()) return meta_graph.status();
  return DataLoss("'", path, "': ", bytes.size(),
                  " bytes that are no GraphDef, MetaGraphDef or "
                  "SavedModel with nodes");
}

absl::StatusOr<GraphFile> ReadGraphFile(FileSystem* fs, const std::string& path) {
  FERRY_ASSIGN_OR_RETURN(const FileInfo info, fs->Stat(path));
  if (info.is_directory) {
    for (const char* const name : {"saved_model.pb", "saved_model.pbtxt"}) {
      const std::string inside = JoinPath(path, name);
      if (fs->Exists(inside)) return ReadGraphFile(fs, inside);
    }
    return NotFound("'", path, "' is a directory without a saved_model.pb or saved_model.pbtxt");
  }
  FERRY_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(fs, path));
  return ParseGraphFile(path, bytes);
}

std::vector<GraphInput> ListVariables(const proto::GraphDef& graph) {
  std::vector<GraphInput> variables;
  for (const proto::NodeDef& node : graph.node()) {
    if (IsVariable(node)) variables.push_back({node.name(), DTypeAttr(node), ShapeAttr(node)});
  }
  return variables;
}

std::vector<GraphInput> ListPlaceholders(const proto::GraphDef& graph) {
  std::set<std::string> savers;  // Scopes.
  for (const proto::NodeDef& node : graph.node()) {
    if (IsSaverOp(node)) savers.insert(ScopeOf(node.name()));
  }
  std::vector<GraphInput> placeholders;
  for (const proto::NodeDef& node : graph.node()) {
    if (!IsPlaceholder(node)) continue;
    const bool has_default = node.op() == "PlaceholderWithDefault";
    const DType dtype = DTypeAttr(node);
    if (has_default && dtype == DType::kString && savers.count(ScopeOf(node.name()))) continue;
    placeholders.push_back({node.name(), dtype, ShapeAttr(node), has_default});
  }
  return placeholders;
}

std::map<std::string, std::vector<PartialShape>> InferShapes(const proto::GraphDef& graph_def) {
  std::map<std::string, std::vector<PartialShape>> shapes;
  Graph graph;
  if (!ImportGraphDef({}, graph_def, &graph).ok()) return shapes;
  for (const auto& node : graph.nodes()) {
    std::vector<PartialShape>& outputs = shapes[node->name()];
    for (int i = 0; i < node->num_outputs(); ++i) outputs.push_back(node->output_shape(i));
  }
  return shapes;
}

GraphSinks FindSinks(const proto::GraphDef& graph) {
  std::set<std::string> consumed;
  for (const proto::NodeDef& node : graph.node()) {
    for (const std::string& input : node.input()) {
      const size_t begin = absl::StartsWith(input, "^") ? 1 : 0;
      consumed.insert(input.substr(begin, input.rfind(':') - begin));
    }
  }
  GraphSinks sinks;
  for (const proto::NodeDef& node : graph.node()) {
    if (consumed.count(node.name()) || IsVariable(node) || node.op() == "Const") continue;
    const std::string& op = node.op();
    const bool acts = op == "NoOp" || absl::StartsWith(op, "Assign") ||
                      absl::StartsWith(op, "Scatter") || absl::StrContains(op, "Apply") ||
                      absl::StartsWith(op, "Save") || absl::StartsWith(op, "Restore") ||
                      op == "MergeV2Checkpoints" || op == "Assert" || op == "ControlTrigger";
    // What variables, losses and a Saver bring along is nobody's result.
    const std::string last = node.name().substr(node.name().rfind('/') + 1);
    const bool incidental = last == "read" || last == "control_dependency" || op == "Shape" ||
                            op == "ShapeN" || absl::StrContains(node.name(), "gradients/");
    if (acts) {
      sinks.targets.push_back(node.name());
    } else if (!incidental) {
      sinks.outputs.push_back(node.name());
    }
  }
  return sinks;
}

std::string SummarizeGraph(const GraphFile& file) {
  const proto::MetaGraphDef& meta_graph = file.meta_graph;
  const proto::GraphDef& graph = meta_graph.graph_def();
  std::string out = absl::StrCat(file.path, ": a ", file.kind, file.is_text ? " as text" : "");
  const auto& info = meta_graph.meta_info_def();
  if (info.tags_size() > 0) absl::StrAppend(&out, ", tags ", absl::StrJoin(info.tags(), ", "));
  if (file.other_meta_graphs > 0) {
    absl::StrAppend(&out, " (the first of ", file.other_meta_graphs + 1, " meta graphs)");
  }
  if (!info.tensorflow_version().empty()) {
    absl::StrAppend(&out, ", written by TensorFlow ", info.tensorflow_version());
  }
  if (graph.versions().producer() != 0) {
    absl::StrAppend(&out, ", graph version ", graph.versions().producer());
  }
  out += "\n";

  std::map<std::string, int64_t> ops;
  for (const proto::NodeDef& node : graph.node()) ++ops[node.op()];
  std::vector<std::pair<std::string, int64_t>> by_count(ops.begin(), ops.end());
  std::stable_sort(by_count.begin(), by_count.end(),
                   [](const auto& a, const auto& b) { return a.second > b.second; });
  absl::StrAppend(&out, "\n", Plural(graph.node_size(), "node"), " of ",
                  Plural(static_cast<int64_t>(ops.size()), "op"), ":\n");
  std::set<std::string> functions;
  for (const proto::FunctionDef& f : graph.library().function()) {
    functions.insert(f.signature().name());
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [op, count] : by_count) {
    rows.push_back({Grouped(count), op,
                    FindOp(op) != nullptr      ? ""
                    : functions.count(op) > 0 ? "(a function)"
                                              : "(unknown here)"});
  }
  AppendTable(rows, {0}, &out);
  if (graph.library().function_size() > 0) {
    absl::StrAppend(&out, "and ", Plural(graph.library().function_size(), "function"), "\n");
  }

  std::set<std::string> trainable;
  const auto collection = meta_graph.collection_def().find("trainable_variables");
  if (collection != meta_graph.collection_def().end()) {
    for (const std::string& bytes : collection->second.bytes_list().value()) {
      proto::VariableDef variable;
      if (!variable.ParseFromString(bytes)) continue;
      const std::string& name = variable.variable_name();
      trainable.insert(name.substr(0, name.rfind(':')));
    }
  }
  const std::vector<GraphInput> variables = ListVariables(graph);
  int64_t parameters = 0, trainable_parameters = 0;
  double bytes = 0;
  rows = {{"name", "dtype", "shape", "parameters"}};
  for (const GraphInput& variable : variables) {
    const int64_t count = variable.shape.num_elements();
    const bool is_trainable = trainable.count(variable.name) > 0;
    rows.push_back({variable.name, Words(variable.dtype), variable.shape.DebugString(),
                    count < 0 ? "?" : Grouped(count), is_trainable ? "trainable" : ""});
    if (count < 0) continue;
    parameters = SumUpTo(parameters, count);
    if (is_trainable) trainable_parameters = SumUpTo(trainable_parameters, count);
    bytes += static_cast<double>(count) * static_cast<double>(ElementSize(variable.dtype));
  }
  if (!variables.empty()) {
    absl::StrAppend(&out, "\n", Plural(static_cast<int64_t>(variables.size()), "variable"), ", ",
                    Plural(parameters, "parameter"), " (", Bytes(bytes), ")");
    if (!trainable.empty()) {
      absl::StrAppend(&out, ", ", Grouped(trainable_parameters), " of them trainable");
    }
    out += ":\n";
    AppendTable(rows, {3}, &out);
  }

  rows.clear();
  for (const GraphInput& placeholder : ListPlaceholders(graph)) {
    rows.push_back({placeholder.name, Words(placeholder.dtype), placeholder.shape.DebugString(),
                    placeholder.has_default ? "has a default" : ""});
  }
  if (!rows.empty()) {
    absl::StrAppend(&out, "\n", Plural(static_cast<int64_t>(rows.size()), "placeholder"), ":\n");
    AppendTable(rows, {}, &out);
  }
  const GraphSinks sinks = FindSinks(graph);
  AppendNames("outputs that nothing consumes", sinks.outputs, &out);
  AppendNames("targets to run", sinks.targets, &out);
  AppendSignatures(meta_graph, &out);
  AppendCollections(meta_graph, &out);
  if (meta_graph.has_saver_def()) {
    const proto::SaverDef& saver = meta_graph.saver_def();
    absl::StrAppend(&out, "\nsaver: file name ", saver.filename_tensor_name(), ", save ",
                    saver.save_tensor_name(), ", restore ", saver.restore_op_name(),
                    saver.sharded() ? ", sharded" : "", "\n");
  }
  return out;
}

}  // namespace ferry
