#include "saver/meta_graph.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/str_join.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "proto/variable.pb.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/scope.h"

namespace ferry {
namespace {

bool IsVariable(const Node* n) { return n && (n->op() == "VariableV2" || n->op() == "Variable"); }

Output Strings(const Scope& s, const std::vector<std::string>& values) {
  return ops::Const(s, Tensor::Of<std::string>(values));
}

// TensorFlow marks ops whose control edges the user's program made.
void MarkManualControl(Node* n) {
  if (n) n->SetAttr("_has_manual_control_dependencies", MakeAttr(true));
}

}  // namespace

absl::StatusOr<proto::SaverDef> AddSaveNodes(Graph* graph, const std::vector<SaveItem>& items,
                                             const SaveNodesOptions& options) {
  if (items.empty()) return InvalidArgument("No variables to save");
  absl::flat_hash_set<std::string> whole;
  std::vector<std::string> keys, slices;
  std::vector<Output> variables;
  std::vector<DType> dtypes;
  for (const SaveItem& item : items) {
    if (!IsVariable(item.variable.node) || item.variable.node->graph() != graph) {
      return InvalidArgument("'", item.key, "' is to be saved, but is no variable of this graph");
    }
    if (item.slice.empty() && !whole.insert(item.key).second) {
      return InvalidArgument("At least two variables have the same name: ", item.key);
    }
    keys.push_back(item.key);
    slices.push_back(item.slice);
    variables.push_back(item.variable);
    dtypes.push_back(BaseType(item.variable.dtype()));
  }

  const Scope root(graph);
  const Scope s = root.NewSubScope(options.name).WithNoControlDependencies();
  auto in = [&](const std::string& name) { return s.WithOpName(name); };
  auto inside = [&](const Scope& scope, const std::string& parent, const std::string& name) {
    return scope.WithPrefix(absl::StrCat(s.prefix(), "/", parent)).WithOpName(name);
  };
  const Output default_name =
      ops::Const(inside(s, "filename/", "input"), Tensor::Scalar<std::string>(options.filename));
  const Output filename =
      ops::PlaceholderWithDefault(in("filename"), default_name, PartialShape::Scalar());
  const Output prefix = ops::PlaceholderWithDefault(in("Const"), filename, PartialShape::Scalar());

  Node* save = NodeBuilder(in("SaveV2"), "SaveV2")
                   .Input(prefix)
                   .Input(Strings(inside(s, "SaveV2/", "tensor_names"), keys))
                   .Input(Strings(inside(s, "SaveV2/", "shape_and_slices"), slices))
                   .Input(variables)
                   .Build();
  FERRY_RETURN_IF_ERROR(s.status());
  MarkManualControl(save);
  const Output saved = ops::Identity(
      in("control_dependency").ColocateWith(prefix.node).WithControlDependencies({save}), prefix);

  const Scope host = s.WithDevice("/device:CPU:0");
  Node* restore = NodeBuilder(host.WithOpName("RestoreV2"), "RestoreV2")
                      .Input(prefix)
                      .Input(Strings(inside(host, "RestoreV2/", "tensor_names"), keys))
                      .Input(Strings(inside(host, "RestoreV2/", "shape_and_slices"), slices))
                      .Attr("dtypes", dtypes)
                      .Build();
  FERRY_RETURN_IF_ERROR(s.status());
  std::vector<Node*> assigns;
  for (size_t i = 0; i < items.size(); ++i) {
    Node* variable = variables[i].node;
    const Scope at = in("Assign").ColocateWith(variable);
    Output value(restore, static_cast<int>(i));
    const PartialShape& shape = variables[i].shape();
    if (options.reshape) {
      if (!shape.fully_defined()) {
        return InvalidArgument("variable '", variable->name(), "' has the shape ",
                               shape.DebugString(), "; reshape needs a known one");
      }
      std::vector<int32_t> dims(shape.dims().begin(), shape.dims().end());
      const std::string reshape = s.WithOpName("Reshape").UniqueOpName("Reshape");
      const Scope below = root.WithPrefix(reshape + "/").WithOpName("shape");
      const Output target = ops::ConstVector<int32_t>(below, dims);
      FERRY_RETURN_IF_ERROR(s.status());
      AttrMap attrs;
      attrs["T"] = MakeAttr(dtypes[i]);
      attrs["Tshape"] = MakeAttr(DType::kInt32);
      FERRY_ASSIGN_OR_RETURN(
          Node * reshaped, graph->AddNode(reshape, "Reshape", std::move(attrs), {value, target}));
      value = Output(reshaped, 0);
    }
    const Output assign = ops::Assign(at, variables[i], value, !options.reshape && shape.fully_defined());
    FERRY_RETURN_IF_ERROR(s.status());
    MarkManualControl(assign.node);
    assigns.push_back(assign.node);
  }
  Node* all = ops::NoOp(in("restore_all").WithControlDependencies(assigns));
  FERRY_RETURN_IF_ERROR(s.status());

  proto::SaverDef def;
  def.set_filename_tensor_name(prefix.name());
  def.set_save_tensor_name(saved.name());
  def.set_restore_op_name(all->name());
  def.set_version(proto::SaverDef::V2);
  return def;
}

absl::StatusOr<std::vector<SaveItem>> FindSaveItems(const Graph& graph,
                                                    const proto::SaverDef& def) {
  auto bad = [&](const auto&... what) {
    return FailedPrecondition("the saver of save tensor '", def.save_tensor_name(), "': ", what...);
  };
  absl::StatusOr<Output> saved = graph.FindOutput(def.save_tensor_name());
  if (!saved.ok()) return Annotate(saved.status(), "the saver's save tensor");
  // Back from the save tensor to all SaveV2 (or the older SaveSlices, Save) nodes.
  std::vector<Node*> stack = {saved->node}, saves;
  absl::flat_hash_set<Node*> seen = {saved->node};
  while (!stack.empty()) {
    Node* n = stack.back();
    stack.pop_back();
    if (n->op() == "SaveV2" || n->op() == "SaveSlices" || n->op() == "Save") {
      saves.push_back(n);
      continue;
    }
    auto visit = [&](Node* p) {
      if (seen.insert(p).second) stack.push_back(p);
    };
    for (const Output& in : n->inputs()) visit(in.node);
    for (Node* c : n->control_inputs()) visit(c);
  }
  if (saves.empty()) return bad("no SaveV2 node leads to it");
  std::sort(saves.begin(), saves.end(), [](Node* a, Node* b) { return a->id() < b->id(); });
  std::vector<SaveItem> items;
  for (Node* n : saves) {
    auto constant = [&](int i) -> absl::StatusOr<Tensor> {
      if (n->num_inputs() <= i || n->input(i).node->op() != "Const") {
        return bad("input ", i, " of '", n->name(), "' is not a constant");
      }
      FERRY_ASSIGN_OR_RETURN(Tensor t, n->input(i).node->Attr<Tensor>("value"));
      if (t.dtype() != DType::kString) {
        return bad("input ", i, " of '", n->name(), "' holds ", DTypeName(t.dtype()),
                   ", not strings");
      }
      return t;
    };
    FERRY_ASSIGN_OR_RETURN(Tensor keys, constant(1));
    const bool sliced = n->op() != "Save";
    Tensor slices;
    if (sliced) {
      FERRY_ASSIGN_OR_RETURN(slices, constant(2));
    }
    const int first = sliced ? 3 : 2;
    const int count = n->num_inputs() - first;
    if (keys.num_elements() != count || (sliced && slices.num_elements() != count)) {
      return bad("'", n->name(), "' saves ", count, " tensors under ", keys.num_elements(),
                 " names");
    }
    for (int i = 0; i < count; ++i) {
      // A variable may be read through Identity nodes.
      Output value = n->input(first + i);
      while (value.node->op() == "Identity") value = value.node->input(0);
      if (!IsVariable(value.node)) {
        return bad("'", n->name(), "' saves '", n->input(first + i).name(),
                   "', which is not a variable");
      }
      items.push_back({keys.data<std::string>()[i], value,
                       sliced ? slices.data<std::string>()[i] : std::string()});
    }
  }
  return items;
}

absl::StatusOr<proto::MetaGraphDef> ExportMetaGraph(const Graph& graph,
                                                    const ExportOptions& options) {
  proto::MetaGraphDef meta;
  graph.ToGraphDef(meta.mutable_graph_def());
  std::set<std::string> used;
  auto strip = [&](proto::NodeDef* n) {
    used.insert(n->op());
    if (options.clear_devices) n->clear_device();
    const OpInfo* info = FindOp(n->op());
    if (!options.strip_default_attrs || !info) return;
    for (const auto& attr : info->def.attr()) {
      auto it = n->mutable_attr()->find(attr.name());
      if (attr.has_default_value() && it != n->attr().end() &&
          google::protobuf::util::MessageDifferencer::Equals(it->second, attr.default_value())) {
        n->mutable_attr()->erase(it);
      }
    }
  };
  for (proto::NodeDef& n : *meta.mutable_graph_def()->mutable_node()) {
    // The shapes that are known, where TensorFlow's importers look for them.
    const Node* node = graph.FindNode(n.name());
    if (node && node->info() && node->num_outputs() > 0) {
      std::vector<PartialShape> shapes;
      for (int i = 0; i < node->num_outputs(); ++i) shapes.push_back(node->output_shape(i));
      (*n.mutable_attr())["_output_shapes"] = MakeAttr(shapes);
    }
    strip(&n);
  }
  for (proto::FunctionDef& f : *meta.mutable_graph_def()->mutable_library()->mutable_function()) {
    for (proto::NodeDef& n : *f.mutable_node_def()) strip(&n);
  }
  proto::MetaGraphDef::MetaInfoDef* info = meta.mutable_meta_info_def();
  for (const std::string& op : used) {
    if (const OpInfo* i = FindOp(op)) *info->mutable_stripped_op_list()->add_op() = i->def;
  }
  for (const std::string& tag : options.tags) info->add_tags(tag);
  info->set_stripped_default_attrs(options.strip_default_attrs);
  if (options.saver_def) *meta.mutable_saver_def() = *options.saver_def;
  for (const auto& [name, collection] : graph.collections()) {
    (*meta.mutable_collection_def())[name] = collection;
  }
  return meta;
}

namespace {

// "name:0" or "^name" or "loc:@name" under another scope.
std::string Prefixed(const std::string& scope, const std::string& name) {
  if (scope.empty() || name.empty()) return name;
  if (name[0] == '^') return absl::StrCat("^", scope, "/", name.substr(1));
  if (absl::StartsWith(name, "loc:@")) return absl::StrCat("loc:@", scope, "/", name.substr(5));
  return absl::StrCat(scope, "/", name);
}

bool HoldsVariables(const std::string& collection) {
  static const char* const kNames[] = {"variables",       "trainable_variables",
                                       "local_variables", "model_variables",
                                       "moving_average_variables", "global_step"};
  return std::find(std::begin(kNames), std::end(kNames), collection) != std::end(kNames);
}

}  // namespace

absl::StatusOr<ImportedMetaGraph> ImportMetaGraph(const proto::MetaGraphDef& meta,
                                                  const ImportMetaOptions& options, Graph* graph) {
  ImportedMetaGraph imported;
  proto::GraphDef def = meta.graph_def();
  // Shapes are inferred here; old ones would go stale.
  for (proto::NodeDef& n : *def.mutable_node()) n.mutable_attr()->erase("_output_shapes");
  ImportOptions import;
  import.prefix = options.import_scope;
  import.input_map = options.input_map;
  import.clear_devices = options.clear_devices;
  import.uniquify_names = true;
  FERRY_RETURN_IF_ERROR(ImportGraphDef(import, def, graph, &imported.nodes));

  const std::string& scope = options.import_scope;
  for (const auto& [name, collection] : meta.collection_def()) {
    proto::CollectionDef& to = (*graph->mutable_collections())[name];
    proto::CollectionDef from = collection;
    if (!scope.empty() && from.has_node_list()) {
      for (std::string& v : *from.mutable_node_list()->mutable_value()) v = Prefixed(scope, v);
    }
    if (!scope.empty() && from.has_bytes_list() && HoldsVariables(name)) {
      for (std::string& v : *from.mutable_bytes_list()->mutable_value()) {
        proto::VariableDef variable;
        if (!variable.ParseFromString(v)) {
          return DataLoss("collection '", name, "' holds an entry that is no VariableDef");
        }
        for (std::string* field :
             {variable.mutable_variable_name(), variable.mutable_initial_value_name(),
              variable.mutable_initializer_name(), variable.mutable_snapshot_name()}) {
          *field = Prefixed(scope, *field);
        }
        variable.SerializeToString(&v);
      }
    }
    if (to.kind_case() != proto::CollectionDef::KIND_NOT_SET && to.kind_case() != from.kind_case()) {
      return InvalidArgument("collection '", name, "' is of another kind in the graph than in the "
                             "meta graph");
    }
    // What a collection has already, it doesn't get twice.
    if (from.has_bytes_list() || from.has_node_list()) {
      const bool bytes = from.has_bytes_list();
      auto* have = bytes ? to.mutable_bytes_list()->mutable_value()
                         : to.mutable_node_list()->mutable_value();
      for (const std::string& v : bytes ? from.bytes_list().value() : from.node_list().value()) {
        if (std::find(have->begin(), have->end(), v) == have->end()) *have->Add() = v;
      }
    } else {
      to.MergeFrom(from);
    }
  }
  if (meta.has_saver_def()) {
    imported.has_saver_def = true;
    imported.saver_def = meta.saver_def();
    for (std::string* field : {imported.saver_def.mutable_filename_tensor_name(),
                               imported.saver_def.mutable_save_tensor_name(),
                               imported.saver_def.mutable_restore_op_name()}) {
      *field = Prefixed(scope, *field);
    }
  }
  return imported;
}

namespace {

// Field 15000 and 15001, fixed32: their tags as varints.
constexpr char kMarkTag[] = "\xc5\xa9\x07";
constexpr char kCrcTag[] = "\xcd\xa9\x07";
constexpr size_t kFieldSize = 3 + 4;
constexpr uint32_t kMark = 0x59525246;  // "FRRY".

void AppendField(const char* tag, uint32_t value, std::string* out) {
  out->append(tag, 3);
  for (int i = 0; i < 4; ++i) out->push_back(static_cast<char>(value >> (8 * i)));
}

}  // namespace

absl::StatusOr<std::string> SerializeMetaGraph(const proto::MetaGraphDef& meta) {
  const size_t size = meta.ByteSizeLong();
  if (size + 2 * kFieldSize > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return InvalidArgument("the meta graph takes ", size, " bytes; protocol buffers end at 2 GiB. "
                           "Keep large constants in variables, or save with write_meta_graph off");
  }
  std::string bytes;
  AppendField(kMarkTag, kMark, &bytes);
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    // Attributes are maps: in a fixed order, the same graph gives the same file.
    coded.SetSerializationDeterministic(true);
    if (!meta.SerializeToCodedStream(&coded)) return Internal("a meta graph can't be serialised");
  }
  AppendField(kCrcTag, MaskCrc32c(Crc32c(bytes)), &bytes);
  return bytes;
}

absl::Status WriteMetaGraph(FileSystem* fs, const std::string& path,
                            const proto::MetaGraphDef& meta) {
  FERRY_ASSIGN_OR_RETURN(std::string bytes, SerializeMetaGraph(meta));
  return WriteFileAtomically(fs, path, bytes);
}

absl::StatusOr<proto::MetaGraphDef> ParseMetaGraph(const std::string& bytes,
                                                   absl::string_view file_name) {
  std::string mark;
  AppendField(kMarkTag, kMark, &mark);
  const bool begins = absl::StartsWith(bytes, mark);
  const size_t body = bytes.size() < kFieldSize ? 0 : bytes.size() - kFieldSize;
  const bool ends = bytes.size() >= 2 * kFieldSize && bytes.compare(body, 3, kCrcTag, 3) == 0;
  if (begins || ends) {
    if (!begins || !ends) {
      return DataLoss(file_name, ": damaged: one of its two marks is gone (truncated?)");
    }
    uint32_t stored;
    std::memcpy(&stored, bytes.data() + body + 3, 4);
    const uint32_t found = MaskCrc32c(Crc32c(absl::string_view(bytes).substr(0, body)));
    if (stored != found) {
      return DataLoss(file_name, ": Checksum does not match: stored ", stored,
                      " vs. calculated on the bytes ", found);
    }
  }
  proto::MetaGraphDef meta;
  // An empty message parses from no bytes at all; a file of none is no meta graph.
  if (!bytes.empty() && meta.ParseFromString(bytes)) return meta;
  // Text: a binary file would have failed at its first bytes here.
  struct Quiet : google::protobuf::io::ErrorCollector {
    void AddError(int line, google::protobuf::io::ColumnNumber column,
                  const std::string& message) override {
      if (first.empty()) first = absl::StrCat("line ", line + 1, ":", column + 1, ": ", message);
    }
    std::string first;
  } errors;
  google::protobuf::TextFormat::Parser parser;
  parser.RecordErrorsTo(&errors);
  meta.Clear();
  if (!bytes.empty() && parser.ParseFromString(bytes, &meta)) return meta;
  return DataLoss(file_name, ": neither a binary nor a text MetaGraphDef (",
                  bytes.empty() ? "the file is empty" : errors.first, ")");
}

absl::StatusOr<proto::MetaGraphDef> ReadMetaGraph(FileSystem* fs, const std::string& path) {
  FERRY_ASSIGN_OR_RETURN(std::string bytes, ReadFile(fs, path));
  return ParseMetaGraph(bytes, path);
}

}  // namespace ferry
