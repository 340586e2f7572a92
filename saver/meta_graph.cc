// Meta graphs: see meta_graph.h.
#include "saver/meta_graph.h"

#include <algorithm>
#include <limits>
#include <set>
#include <tuple>
#include <type_traits>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_join.h"
#include "absl/strings/strip.h"
#include "google/protobuf/io/tokenizer.h"
#include "google/protobuf/text_format.h"
#include "google/protobuf/util/message_differencer.h"
#include "proto/control_flow.pb.h"
#include "proto/variable.pb.h"
#include "runtime/base/status.h"
#include "runtime/device/device.h"
#include "runtime/graph/collections.h"
#include "runtime/graph/cond.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/scope.h"
#include "saver/atomic_file.h"
#include "saver/message_crc.h"
#include "saver/text_crc.h"

namespace ferry {
namespace {

bool IsVariable(const Node* n) {
  return n && (n->op() == "VariableV2" || n->op() == "Variable" || n->op() == "VarHandleOp");
}

bool IsResource(const Output& variable) { return variable.dtype() == DType::kResource; }

// What a save reads of a resource variable: the read that was made with it, or else any.
Output ReadOf(const Scope& s, const Output& handle, DType dtype) {
  Node* read = s.graph()->FindNode(absl::StrCat(handle.node->name(), "/Read/ReadVariableOp"));
  if (read && read->op() == "ReadVariableOp" && read->input(0) == handle) return Output(read, 0);
  for (Node* n : handle.node->consumers()) {
    if (n->op() == "ReadVariableOp") return Output(n, 0);
  }
  return ops::ReadVariableOp(s, handle, dtype);
}

Output Strings(const Scope& s, const std::vector<std::string>& values) {
  return ops::Const(s, Tensor::Of<std::string>(values));
}

// The canonical form of a device's name, by which TensorFlow groups: "/gpu:0" is "/device:GPU:0".
std::string DeviceString(const DeviceSpec& d) {
  std::string name;
  if (!d.job.empty()) absl::StrAppend(&name, "/job:", d.job);
  if (d.replica >= 0) absl::StrAppend(&name, "/replica:", d.replica);
  if (d.task >= 0) absl::StrAppend(&name, "/task:", d.task);
  if (d.has_type) absl::StrAppend(&name, "/device:", DeviceTypeName(d.type), ":");
  if (d.has_type) name += d.index < 0 ? "*" : absl::StrCat(d.index);
  return name;
}

// The first CPU of the machine that `device` belongs to.
std::string HostBeside(const std::string& device) {
  DeviceSpec spec = ParseDevice(device).value_or(DeviceSpec());
  spec.has_type = true;
  spec.type = DeviceType::kCpu;
  spec.index = 0;
  return DeviceString(spec);
}

// TensorFlow marks ops whose control edges the user's program made.
void MarkManualControl(Node* n) {
  if (n) n->SetAttr("_has_manual_control_dependencies", MakeAttr(true));
}

}  // namespace

std::string SliceSpec(const proto::SaveSliceInfoDef& slice) {
  std::string spec;
  for (const int64_t n : slice.full_shape()) absl::StrAppend(&spec, n, " ");
  for (int i = 0; i < slice.var_offset_size() && i < slice.var_shape_size(); ++i) {
    absl::StrAppend(&spec, i ? ":" : "", slice.var_offset(i), ",", slice.var_shape(i));
  }
  return spec;
}

std::map<std::string, std::vector<size_t>> ItemsByDevice(const std::vector<SaveItem>& items) {
  std::map<std::string, std::vector<size_t>> groups;
  for (size_t i = 0; i < items.size(); ++i) {
    const std::string& device = items[i].variable.node->device();
    const absl::StatusOr<DeviceSpec> spec = ParseDevice(device);
    groups[spec.ok() ? DeviceString(*spec) : device].push_back(i);
  }
  return groups;
}

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
    DType dtype = BaseType(item.variable.dtype());
    if (IsResource(item.variable)) {
      FERRY_ASSIGN_OR_RETURN(dtype, item.variable.node->Attr<DType>("dtype"));
    }
    dtypes.push_back(dtype);
  }

  const Scope root(graph);
  const Scope s = root.NewSubScope(options.name).WithNoControlDependencies();
  const auto in = [&](const std::string& name) { return s.WithOpName(name); };
  // A node of exactly this name.
  const auto exactly = [](const Scope& scope, const std::string& name) {
    return scope.WithOpName(name + "/");
  };
  const auto text = [](const Scope& scope, const std::string& value) {
    return ops::Const(scope, Tensor::Scalar<std::string>(value));
  };
  // In a graph that was imported the scope may hold another Saver's nodes.
  const std::string filename_name = s.WithOpName("filename").UniqueOpName("filename");
  const Output default_name = text(exactly(s, filename_name + "/input"), options.filename);
  const Output filename =
      ops::PlaceholderWithDefault(exactly(s, filename_name), default_name, PartialShape::Scalar());
  const Output prefix = ops::PlaceholderWithDefault(in("Const"), filename, PartialShape::Scalar());

  std::map<std::string, std::vector<size_t>> shards;
  if (options.sharded) {
    shards = ItemsByDevice(items);
  } else {
    for (size_t i = 0; i < items.size(); ++i) shards[""].push_back(i);
  }
  struct Lists {
    Output keys, slices;
  };
  const auto lists = [&](const Scope& scope, const std::string& name,
                         const std::vector<size_t>& members) {
    std::vector<std::string> k, l;
    for (const size_t i : members) {
      k.push_back(keys[i]);
      l.push_back(slices[i]);
    }
    return Lists{Strings(exactly(scope, name + "/tensor_names"), k),
                 Strings(exactly(scope, name + "/shape_and_slices"), l)};
  };

  // Saves some items to `to`; gives the same name once that is done.
  const auto save = [&](const Scope& at, Output to, const std::vector<size_t>& members) {
    const std::string name = at.UniqueOpName("SaveV2");
    const Lists l = lists(at, name, members);
    std::vector<Output> values;
    for (const size_t i : members) {
      if (IsResource(variables[i])) {
        values.push_back(ReadOf(at, variables[i], dtypes[i]));
        continue;
      }
      // TensorFlow's Saver takes what was read of a part.
      Node* read = slices[i].empty()
                       ? nullptr
                       : graph->FindNode(absl::StrCat(variables[i].node->name(), "/read"));
      const bool reads = read && read->op() == "Identity" && read->input(0) == variables[i];
      values.push_back(reads ? Output(read, 0) : variables[i]);
    }
    Node* node = NodeBuilder(exactly(at, name), "SaveV2")
                     .Input(to)
                     .Input(l.keys)
                     .Input(l.slices)
                     .Input(values)
                     .Build();
    MarkManualControl(node);
    return ops::Identity(
        at.WithOpName("control_dependency").ColocateWith(to.node).WithControlDependencies({node}),
        to);
  };
  Output saved;
  if (!options.sharded) {
    saved = save(s, prefix, shards.begin()->second);
  } else {
    const Scope cpu = s.WithDevice("/device:CPU:*");
    const Output is_s3 = NodeBuilder(cpu, "StaticRegexFullMatch")
                             .Input(prefix)
                             .Attr("pattern", std::string("^s3://.*"))
                             .BuildOutput();
    const Output part = text(cpu.WithOpName("Const"), ".part");
    const Output temporary = text(cpu.WithOpName("Const"), "_temp/part");
    const Output suffix = ops::Select(cpu, is_s3, part, temporary);
    const Output base =
        NodeBuilder(cpu, "StringJoin").Input(std::vector<Output>{prefix, suffix}).BuildOutput();
    const Output count = ops::Const<int32_t>(in("num_shards"), static_cast<int32_t>(shards.size()));
    std::vector<Output> names;
    std::vector<Node*> done;
    Scope host = s;
    for (const auto& [device, members] : shards) {
      host = s.WithDevice(HostBeside(device));
      const std::string name = host.UniqueOpName("ShardedFilename");
      const Output shard =
          ops::Const<int32_t>(exactly(host, name + "/shard"), static_cast<int32_t>(names.size()));
      names.push_back(NodeBuilder(exactly(host, name), "ShardedFilename")
                          .Input(base)
                          .Input(shard)
                          .Input(count)
                          .BuildOutput());
      done.push_back(save(host, names.back(), members).node);
      MarkManualControl(done.back());
    }
    FERRY_RETURN_IF_ERROR(s.status());
    const std::string name = host.UniqueOpName("MergeV2Checkpoints");
    const Output parts = ops::Pack(
        exactly(host, name + "/checkpoint_prefixes").WithControlDependencies(done), names);
    Node* merge =
        NodeBuilder(exactly(host, name), "MergeV2Checkpoints").Input(parts).Input(prefix).Build();
    MarkManualControl(merge);
    saved =
        ops::Identity(host.WithControlDependencies({merge}).WithControlDependencies(done), prefix);
  }
  FERRY_RETURN_IF_ERROR(s.status());

  // A group, whose members TensorFlow marks as those of the user's control edges.
  const auto group = [](const Scope& at, const std::vector<Node*>& members) {
    Node* all = ops::Group(at, members);
    for (Node* n : members) MarkManualControl(n);
    if (all) {
      for (Node* n : all->control_inputs()) MarkManualControl(n);
    }
    return all;
  };
  std::vector<Node*> restored;  // The shards' groups, or, unsharded, the Assigns.
  for (const auto& [device, members] : shards) {
    const Scope host = s.WithDevice(HostBeside(device));
    const std::string restore_name = host.UniqueOpName("RestoreV2");
    const Lists l = lists(host, restore_name, members);
    std::vector<DType> types;
    for (const size_t i : members) types.push_back(dtypes[i]);
    Node* restore = NodeBuilder(exactly(host, restore_name), "RestoreV2")
                        .Input(prefix)
                        .Input(l.keys)
                        .Input(l.slices)
                        .Attr("dtypes", types)
                        .Build();
    FERRY_RETURN_IF_ERROR(s.status());
    std::vector<Node*> assigns;
    for (const size_t i : members) {
      Node* variable = variables[i].node;
      const Scope at = in("Assign").WithDevice(device).ColocateWith(variable);
      Output value(restore, static_cast<int>(assigns.size()));
      const bool resource = IsResource(variables[i]);
      const PartialShape& shape = resource ? variable->handle_shape() : variables[i].shape();
      if (options.reshape) {
        if (!shape.fully_defined()) {
          return InvalidArgument("variable '", variable->name(), "' has the shape ",
                                 shape.DebugString(), "; reshape needs a known one");
        }
        const std::vector<int32_t> dims(shape.dims().begin(), shape.dims().end());
        const Scope by = s.WithDevice(device);
        const std::string name = by.UniqueOpName("Reshape");
        const Output target = ops::ConstVector<int32_t>(exactly(by, name + "/shape"), dims);
        value = ops::Reshape(exactly(by, name), value, target);
      }
      if (resource) {
        // TensorFlow brings the value to the variable's device first.
        const Scope beside = s.WithDevice(variable->device());
        value = ops::Identity(beside.WithOpName("Identity"), value);
        assigns.push_back(ops::AssignVariableOp(beside, variables[i], value));
        FERRY_RETURN_IF_ERROR(s.status());
        continue;
      }
      const Output assign =
          ops::Assign(at, variables[i], value, !options.reshape && shape.fully_defined());
      FERRY_RETURN_IF_ERROR(s.status());
      assigns.push_back(assign.node);
    }
    if (options.sharded) {
      restored.push_back(group(in("restore_shard"), assigns));
    } else {
      restored = assigns;
    }
  }
  Node* all = group(in("restore_all"), restored);
  FERRY_RETURN_IF_ERROR(s.status());

  proto::SaverDef def;
  def.set_filename_tensor_name(prefix.name());
  def.set_save_tensor_name(saved.name());
  def.set_restore_op_name(all->name());
  def.set_sharded(options.sharded);
  def.set_version(proto::SaverDef::V2);
  return def;
}

namespace {

// Whether `name` is `base`, or that with a number: base_1.
bool IsNumbered(absl::string_view name, absl::string_view base) {
  int number;
  return absl::ConsumePrefix(&name, base) &&
         (name.empty() || (absl::ConsumePrefix(&name, "_") && absl::SimpleAtoi(name, &number)));
}

// The Saver whose restore op this is, if its nodes are as AddSaveNodes makes them with these
// options.
std::optional<proto::SaverDef> SaverOf(const Node& restore_all, const SaveNodesOptions& options) {
  // Back to the file's name, by which RestoreV2 reads.
  std::vector<const Node*> stack = {&restore_all};
  std::set<const Node*> seen = {&restore_all};
  Node* prefix = nullptr;
  bool reshape = false;
  while (!stack.empty()) {
    const Node* n = stack.back();
    stack.pop_back();
    reshape = reshape || n->op() == "Reshape";
    if (n->op() == "RestoreV2") {
      prefix = n->input(0).node;
      continue;
    }
    const auto visit = [&](const Node* p) {
      if (seen.insert(p).second) stack.push_back(p);
    };
    for (const Output& in : n->inputs()) visit(in.node);
    for (const Node* c : n->control_inputs()) visit(c);
  }
  if (!prefix || reshape != options.reshape || prefix->op() != "PlaceholderWithDefault") {
    return std::nullopt;
  }
  const Node* filename = prefix->input(0).node;
  if (filename->op() != "PlaceholderWithDefault") return std::nullopt;
  const absl::StatusOr<Tensor> name = filename->input(0).node->Attr<Tensor>("value");
  if (!name.ok() || name->dtype() != DType::kString || name->num_elements() != 1 ||
      name->data<std::string>()[0] != options.filename) {
    return std::nullopt;
  }
  // And on to what gives that name once all is saved.
  for (Node* n : prefix->consumers()) {
    if (n->op() != "Identity") continue;
    for (const Node* c : n->control_inputs()) {
      if (c->op() != (options.sharded ? "MergeV2Checkpoints" : "SaveV2")) continue;
      proto::SaverDef def;
      def.set_filename_tensor_name(absl::StrCat(prefix->name(), ":0"));
      def.set_save_tensor_name(absl::StrCat(n->name(), ":0"));
      def.set_restore_op_name(restore_all.name());
      def.set_sharded(options.sharded);
      def.set_version(proto::SaverDef::V2);
      return def;
    }
  }
  return std::nullopt;
}

}  // namespace

std::optional<proto::SaverDef> FindSaveNodes(const Graph& graph, const std::vector<SaveItem>& items,
                                             const SaveNodesOptions& options) {
  const auto sorted = [](std::vector<SaveItem> list) {
    std::sort(list.begin(), list.end(), [](const SaveItem& a, const SaveItem& b) {
      return std::tie(a.key, a.slice) < std::tie(b.key, b.slice);
    });
    return list;
  };
  const std::vector<SaveItem> wanted = sorted(items);
  for (const auto& node : graph.nodes()) {
    // "save/restore_all", "save_1/restore_all_2".
    const size_t slash = node->name().rfind('/');
    if (node->op() != "NoOp" || slash == std::string::npos ||
        !IsNumbered(node->name().substr(slash + 1), "restore_all") ||
        !IsNumbered(node->name().substr(0, slash), options.name)) {
      continue;
    }
    const std::optional<proto::SaverDef> def = SaverOf(*node, options);
    if (!def) continue;
    const absl::StatusOr<std::vector<SaveItem>> found = FindSaveItems(graph, *def);
    if (!found.ok() || found->size() != wanted.size()) continue;
    const std::vector<SaveItem> there = sorted(*found);
    if (std::equal(there.begin(), there.end(), wanted.begin(),
                   [](const SaveItem& a, const SaveItem& b) {
                     return a.key == b.key && a.slice == b.slice && a.variable == b.variable;
                   })) {
      return def;
    }
  }
  return std::nullopt;
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
      while (value.node->op() == "Identity" || value.node->op() == "ReadVariableOp") {
        value = value.node->input(0);
      }
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

namespace {

// The collection of a graph's SaverDefs.
constexpr char kSavers[] = "savers";

// What stands before the name in "name:0", "^name" or "loc:@name".
absl::string_view Mark(absl::string_view name) {
  if (absl::StartsWith(name, "^")) return name.substr(0, 1);
  if (absl::StartsWith(name, "loc:@")) return name.substr(0, 5);
  return name.substr(0, 0);
}

// The name under another scope.
std::string Prefixed(const std::string& scope, const std::string& name) {
  if (scope.empty() || name.empty()) return name;
  const absl::string_view mark = Mark(name);
  return absl::StrCat(mark, scope, "/", absl::string_view(name).substr(mark.size()));
}

// Takes the scope off the name; false when it isn't in there.
bool Strip(const std::string& scope, std::string* name) {
  if (scope.empty() || name->empty()) return true;
  const absl::string_view mark = Mark(*name);
  absl::string_view rest = absl::string_view(*name).substr(mark.size());
  if (!absl::ConsumePrefix(&rest, scope + "/")) return false;
  *name = absl::StrCat(mark, rest);
  return true;
}

std::vector<std::string*> NamesIn(proto::VariableDef* v) {
  return {v->mutable_variable_name(), v->mutable_initial_value_name(),
          v->mutable_initializer_name(), v->mutable_snapshot_name()};
}

std::vector<std::string*> NamesIn(proto::SaverDef* def) {
  return {def->mutable_filename_tensor_name(), def->mutable_save_tensor_name(),
          def->mutable_restore_op_name()};
}

// The names in a context of conditionals or loops, through `change`, which says whether a name
// belongs here. Tensors from elsewhere may not; the context does by its own name.
template <typename Change>
void ChangeNames(proto::ValuesDef* values, const Change& change) {
  for (std::string& v : *values->mutable_values()) change(&v);
  std::map<std::string, std::string> external;
  for (const auto& entry : values->external_values()) {
    std::string outside = entry.first, inside = entry.second;
    change(&outside);
    change(&inside);
    external[outside] = inside;
  }
  values->mutable_external_values()->clear();
  values->mutable_external_values()->insert(external.begin(), external.end());
}
template <typename Change>
bool ChangeNames(proto::CondContextDef* c, const Change& change);
template <typename Change>
bool ChangeNames(proto::WhileContextDef* w, const Change& change);
template <typename Change>
void ChangeNames(google::protobuf::RepeatedPtrField<proto::ControlFlowContextDef>* nested,
                 const Change& change) {
  for (proto::ControlFlowContextDef& c : *nested) {
    if (c.has_cond_ctxt()) ChangeNames(c.mutable_cond_ctxt(), change);
    if (c.has_while_ctxt()) ChangeNames(c.mutable_while_ctxt(), change);
  }
}
template <typename Change>
bool ChangeNames(proto::CondContextDef* c, const Change& change) {
  change(c->mutable_pred_name());
  change(c->mutable_pivot_name());
  ChangeNames(c->mutable_values_def(), change);
  ChangeNames(c->mutable_nested_contexts(), change);
  return change(c->mutable_context_name());
}
template <typename Change>
bool ChangeNames(proto::WhileContextDef* w, const Change& change) {
  for (auto* list : {w->mutable_loop_exit_names(), w->mutable_loop_enter_names()}) {
    for (std::string& name : *list) change(&name);
  }
  change(w->mutable_pivot_name());
  change(w->mutable_pivot_for_pred_name());
  change(w->mutable_pivot_for_body_name());
  change(w->mutable_maximum_iterations_name());
  ChangeNames(w->mutable_values_def(), change);
  ChangeNames(w->mutable_nested_contexts(), change);
  return change(w->mutable_context_name());
}

// The names in one entry of a collection of VariableDefs, SaverDefs or contexts through `change`;
// the entries of others stay as they are. Whether the entry belongs here.
template <typename Change>
absl::StatusOr<bool> ChangeEntry(const std::string& collection, const Change& change,
                                 std::string* entry) {
  const auto as = [&](auto message, const char* what) -> absl::StatusOr<bool> {
    if (!message.ParseFromString(*entry)) {
      return DataLoss("collection '", collection, "' holds an entry that is no ", what);
    }
    bool inside = true;
    if constexpr (std::is_same_v<decltype(message), proto::CondContextDef> ||
                  std::is_same_v<decltype(message), proto::WhileContextDef>) {
      inside = ChangeNames(&message, change);
    } else {
      for (std::string* field : NamesIn(&message)) inside = change(field) && inside;
    }
    *entry = message.SerializeAsString();
    return inside;
  };
  if (HoldsVariableDefs(collection)) return as(proto::VariableDef(), "VariableDef");
  if (collection == kSavers) return as(proto::SaverDef(), "SaverDef");
  if (collection == kCondContext) return as(proto::CondContextDef(), "CondContextDef");
  if (collection == "while_context") return as(proto::WhileContextDef(), "WhileContextDef");
  return true;
}

std::string ScopeOf(absl::string_view name) {
  const size_t slash = name.rfind('/');
  return std::string(slash == absl::string_view::npos ? "" : name.substr(0, slash));
}

// The node of a tensor's, node's or control input's name.
std::string NodeOf(absl::string_view name) {
  name.remove_prefix(Mark(name).size());
  return std::string(name.substr(0, name.rfind(':')));
}

// Whether the op saves or restores: what tells a Saver's scope.
bool SavesOrRestores(const std::string& op) {
  static const char* const kOps[] = {"SaveV2",    "Save",    "SaveSlices",
                                     "RestoreV2", "Restore", "RestoreSlice"};
  return std::find(std::begin(kOps), std::end(kOps), op) != std::end(kOps);
}

// Removes the nodes of the Savers that aren't `def`'s.
void ClearExtraneousSavers(const proto::SaverDef* def, proto::GraphDef* graph) {
  std::set<std::string> scopes;
  for (const proto::NodeDef& n : graph->node()) {
    if (SavesOrRestores(n.op())) scopes.insert(ScopeOf(n.name()));
  }
  scopes.erase("");
  if (def) {
    scopes.erase(ScopeOf(NodeOf(def->save_tensor_name())));
    scopes.erase(ScopeOf(def->restore_op_name()));
  }
  const auto in_scope = [&](std::string name) {
    for (name = ScopeOf(name); !name.empty(); name = ScopeOf(name)) {
      if (scopes.count(name) > 0) return true;
    }
    return false;
  };
  std::map<std::string, const proto::NodeDef*> removed;
  std::vector<std::string> needed;
  for (const proto::NodeDef& n : graph->node()) {
    if (in_scope(n.name())) {
      removed[n.name()] = &n;
    } else {
      for (const std::string& in : n.input()) needed.push_back(NodeOf(in));
    }
  }
  while (!needed.empty()) {
    const auto it = removed.find(needed.back());
    needed.pop_back();
    if (it == removed.end()) continue;
    for (const std::string& in : it->second->input()) needed.push_back(NodeOf(in));
    removed.erase(it);
  }
  std::set<std::string> names;
  for (const auto& [name, node] : removed) names.insert(name);
  auto* nodes = graph->mutable_node();
  nodes->erase(std::remove_if(nodes->begin(), nodes->end(),
                              [&](const proto::NodeDef& n) { return names.count(n.name()) > 0; }),
               nodes->end());
}

// Leaves the nodes of the scope; gives the names of the inputs that they have from elsewhere.
std::vector<std::string> TakeScope(const std::string& scope, proto::GraphDef* graph) {
  std::vector<std::string> unbound;
  proto::GraphDef taken;
  for (proto::NodeDef& n : *graph->mutable_node()) {
    if (!Strip(scope, n.mutable_name())) continue;
    for (std::string& in : *n.mutable_input()) {
      if (Strip(scope, &in)) continue;
      const absl::string_view mark = Mark(in);
      in = absl::StrCat(mark, "$unbound_inputs_", absl::string_view(in).substr(mark.size()));
      if (std::find(unbound.begin(), unbound.end(), in) == unbound.end()) unbound.push_back(in);
    }
    const auto group = n.mutable_attr()->find("_class");
    if (group != n.mutable_attr()->end()) {
      auto* list = group->second.mutable_list()->mutable_s();
      list->erase(std::remove_if(list->begin(), list->end(),
                                 [&](std::string& s) { return !Strip(scope, &s); }),
                  list->end());
      if (list->empty()) n.mutable_attr()->erase("_class");
    }
    const auto frame = n.mutable_attr()->find("frame_name");
    if (frame != n.mutable_attr()->end()) Strip(scope, frame->second.mutable_s());
    *taken.add_node() = std::move(n);
  }
  graph->mutable_node()->Swap(taken.mutable_node());
  return unbound;
}

// What of a collection belongs to the scope.
absl::StatusOr<proto::CollectionDef> TakeScope(const std::string& scope, const std::string& name,
                                               const proto::CollectionDef& collection) {
  proto::CollectionDef taken;
  if (collection.has_node_list()) {
    taken.mutable_node_list();
    for (std::string v : collection.node_list().value()) {
      if (Strip(scope, &v)) taken.mutable_node_list()->add_value(v);
    }
  } else if (collection.has_bytes_list()) {
    taken.mutable_bytes_list();
    for (std::string v : collection.bytes_list().value()) {
      FERRY_ASSIGN_OR_RETURN(
          const bool inside,
          ChangeEntry(
              name, [&](std::string* field) { return Strip(scope, field); }, &v));
      if (inside) taken.mutable_bytes_list()->add_value(v);
    }
  } else {
    taken = collection;
  }
  return taken;
}

}  // namespace

namespace {

// The ops of the graph's nodes and of the functions that these call.
std::set<std::string> UsedOps(const proto::GraphDef& graph) {
  std::map<std::string, const proto::FunctionDef*> functions;
  for (const proto::FunctionDef& f : graph.library().function())
    functions[f.signature().name()] = &f;
  std::set<std::string> used;
  std::vector<const proto::FunctionDef*> called;
  const auto use = [&](const std::string& name) {
    const auto f = functions.find(name);
    if (used.insert(name).second && f != functions.end()) called.push_back(f->second);
  };
  const auto visit = [&](const auto& nodes) {
    for (const proto::NodeDef& n : nodes) {
      use(n.op());
      for (const auto& [attr, value] : n.attr()) {
        if (value.has_func()) use(value.func().name());
      }
    }
  };
  visit(graph.node());
  while (!called.empty()) {
    const proto::FunctionDef* f = called.back();
    called.pop_back();
    visit(f->node_def());
  }
  return used;
}

}  // namespace

void PrefixSaverDef(const std::string& scope, proto::SaverDef* def) {
  for (std::string* field : NamesIn(def)) *field = Prefixed(scope, *field);
}

absl::StatusOr<proto::MetaGraphDef> ExportMetaGraph(const Graph& graph,
                                                    const ExportOptions& options) {
  const std::string scope(absl::StripSuffix(options.export_scope, "/"));
  proto::MetaGraphDef meta;
  graph.ToGraphDef(meta.mutable_graph_def());
  for (proto::NodeDef& n : *meta.mutable_graph_def()->mutable_node()) {
    // The shapes that are known, where TensorFlow's importers look for them.
    const Node* node = graph.FindNode(n.name());
    if (node && node->info() && node->num_outputs() > 0) {
      std::vector<PartialShape> shapes;
      for (int i = 0; i < node->num_outputs(); ++i) shapes.push_back(node->output_shape(i));
      (*n.mutable_attr())["_output_shapes"] = MakeAttr(shapes);
    }
  }
  if (options.clear_extraneous_savers) {
    ClearExtraneousSavers(options.saver_def, meta.mutable_graph_def());
  }
  std::vector<std::string> unbound;
  if (!scope.empty()) unbound = TakeScope(scope, meta.mutable_graph_def());
  if (!scope.empty() && meta.graph_def().node().empty()) {
    return InvalidArgument("export_scope '", scope, "': the graph has no nodes in that scope");
  }
  auto strip = [&](proto::NodeDef* n) {
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
  for (proto::NodeDef& n : *meta.mutable_graph_def()->mutable_node()) strip(&n);
  for (proto::FunctionDef& f : *meta.mutable_graph_def()->mutable_library()->mutable_function()) {
    for (proto::NodeDef& n : *f.mutable_node_def()) strip(&n);
  }
  proto::MetaGraphDef::MetaInfoDef* info = meta.mutable_meta_info_def();
  for (const std::string& op : UsedOps(meta.graph_def())) {
    if (const OpInfo* i = FindOp(op)) *info->mutable_stripped_op_list()->add_op() = i->def;
  }
  for (const std::string& tag : options.tags) info->add_tags(tag);
  info->set_stripped_default_attrs(options.strip_default_attrs);
  if (options.saver_def) {
    proto::SaverDef def = *options.saver_def;
    bool inside = true;
    for (std::string* field : NamesIn(&def)) inside = Strip(scope, field) && inside;
    if (inside) *meta.mutable_saver_def() = def;
  }
  for (const auto& [name, collection] : graph.collections()) {
    if (options.collection_list &&
        std::find(options.collection_list->begin(), options.collection_list->end(), name) ==
            options.collection_list->end()) {
      continue;
    }
    proto::CollectionDef taken = collection;
    if (!scope.empty()) {
      FERRY_ASSIGN_OR_RETURN(taken, TakeScope(scope, name, collection));
    }
    if (options.clear_extraneous_savers && name == kSavers && taken.has_bytes_list()) {
      auto* savers = taken.mutable_bytes_list()->mutable_value();
      savers->erase(std::remove_if(savers->begin(), savers->end(),
                                   [&](const std::string& v) {
                                     proto::SaverDef def;
                                     return !options.saver_def || !def.ParseFromString(v) ||
                                            def.restore_op_name() !=
                                                options.saver_def->restore_op_name();
                                   }),
                    savers->end());
    }
    (*meta.mutable_collection_def())[name] = std::move(taken);
  }
  for (const std::string& input : unbound) {
    (*meta.mutable_collection_def())["unbound_inputs"].mutable_bytes_list()->add_value(input);
  }
  return meta;
}

absl::StatusOr<ImportedMetaGraph> ImportMetaGraph(const proto::MetaGraphDef& meta,
                                                  const ImportMetaOptions& options, Graph* graph) {
  ImportedMetaGraph imported;
  proto::GraphDef def = meta.graph_def();
  // Shapes are inferred here; old ones would go stale.
  for (proto::NodeDef& n : *def.mutable_node()) n.mutable_attr()->erase("_output_shapes");
  ImportOptions import;
  import.prefix = options.import_scope;
  import.input_map = options.input_map;
  import.return_elements = options.return_elements;
  import.clear_devices = options.clear_devices;
  import.uniquify_names = true;
  const std::string scope =
      options.import_scope.empty() || absl::EndsWith(options.import_scope, "/")
          ? std::string(absl::StripSuffix(options.import_scope, "/"))
          : graph->UniqueName(options.import_scope, /*mark_as_used=*/false);
  imported.scope = scope;
  FERRY_RETURN_IF_ERROR(ImportGraphDef(import, def, graph, &imported.nodes));

  for (const auto& [name, collection] : meta.collection_def()) {
    proto::CollectionDef& to = (*graph->mutable_collections())[name];
    proto::CollectionDef from = collection;
    if (!scope.empty() && from.has_node_list()) {
      for (std::string& v : *from.mutable_node_list()->mutable_value()) v = Prefixed(scope, v);
    }
    if (!scope.empty() && from.has_bytes_list()) {
      for (std::string& v : *from.mutable_bytes_list()->mutable_value()) {
        const auto prefix = [&](std::string* field) {
          *field = Prefixed(scope, *field);
          return true;
        };
        FERRY_RETURN_IF_ERROR(ChangeEntry(name, prefix, &v).status());
      }
    }
    if (to.kind_case() != proto::CollectionDef::KIND_NOT_SET &&
        to.kind_case() != from.kind_case()) {
      return InvalidArgument("collection '", name,
                             "' is of another kind in the graph than in the "
                             "meta graph");
    }
    // Imported twice, it is there twice, as in TensorFlow.
    to.MergeFrom(from);
  }
  if (meta.has_saver_def()) {
    imported.has_saver_def = true;
    imported.saver_def = meta.saver_def();
    PrefixSaverDef(scope, &imported.saver_def);
  }
  return imported;
}

absl::StatusOr<std::string> SerializeMetaGraph(const proto::MetaGraphDef& meta) {
  const size_t size = meta.ByteSizeLong();
  if (size + kMessageCrcBytes > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return InvalidArgument("the meta graph takes ", size,
                           " bytes; protocol buffers end at 2 GiB. "
                           "Keep large constants in variables, or save with write_meta_graph off");
  }
  return SerializeWithCrc(meta);
}

absl::Status WriteMetaGraph(FileSystem* fs, const std::string& path,
                            const proto::MetaGraphDef& meta, bool as_text) {
  std::string bytes;
  if (as_text) {
    if (!google::protobuf::TextFormat::PrintToString(meta, &bytes)) {
      return Internal("a meta graph can't be written as text");
    }
    bytes = TextCrcLine(bytes) + bytes;
  } else {
    FERRY_ASSIGN_OR_RETURN(bytes, SerializeMetaGraph(meta));
  }
  return ReplaceFile(fs, path, bytes);
}

absl::StatusOr<proto::MetaGraphDef> ParseMetaGraph(const std::string& bytes,
                                                   absl::string_view file_name) {
  FERRY_RETURN_IF_ERROR(CheckMessageCrc(bytes, file_name));
  if (!TextCrcMatches(bytes)) {
    return DataLoss(file_name, ": damaged: its contents don't match the crc in its first line");
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
