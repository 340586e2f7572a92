// Freezing: see freeze.h.
#include "saver/freeze.h"

#include <algorithm>
#include <limits>
#include <map>
#include <set>
#include <utility>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/strings/match.h"
#include "absl/strings/strip.h"
#include "google/protobuf/io/coded_stream.h"
#include "google/protobuf/io/zero_copy_stream_impl_lite.h"
#include "google/protobuf/text_format.h"
#include "runtime/base/status.h"
#include "runtime/op/attr.h"
#include "saver/atomic_file.h"
#include "saver/bundle_reader.h"
#include "saver/log.h"
#include "saver/tensor_slice.h"

namespace ferry {
namespace {

constexpr uint64_t kMostBytes = std::numeric_limits<int32_t>::max();

bool IsRefVariable(const proto::NodeDef& n) {
  return n.op() == "VariableV2" || n.op() == "Variable";
}
bool IsVariable(const proto::NodeDef& n) { return IsRefVariable(n) || n.op() == "VarHandleOp"; }

// "^a" -> "a", "a:1" -> "a".
std::string NodeName(absl::string_view input) {
  absl::ConsumePrefix(&input, "^");
  const size_t colon = input.find(':');
  return std::string(colon == absl::string_view::npos ? input : input.substr(0, colon));
}

// The names of the nodes that `n` is to be colocated with.
std::vector<std::string> ColocatedWith(const proto::NodeDef& n) {
  std::vector<std::string> names;
  const auto it = n.attr().find("_class");
  if (it == n.attr().end()) return names;
  for (const std::string& group : it->second.list().s()) {
    absl::string_view name = group;
    if (absl::ConsumePrefix(&name, "loc:@")) names.emplace_back(name);
  }
  return names;
}

DType DTypeAttr(const proto::NodeDef& n, const std::string& name) {
  const auto it = n.attr().find(name);
  return it == n.attr().end() ? DType::kInvalid : static_cast<DType>(it->second.type());
}

absl::Status TooLarge(uint64_t bytes) {
  return InvalidArgument(
      "the frozen graph would take ", bytes,
      " bytes; protocol buffers end at 2 GiB. Keep the "
      "variables in a checkpoint (a SavedModel has both), freeze for fewer outputs, or leave large "
      "variables out by variable_names_blacklist");
}

// What an op that passes its input on is called for values; "" for other ops.
std::string PassesOn(const std::string& op) {
  static const std::map<std::string, std::string>& ops =
      *new std::map<std::string, std::string>{{"Enter", "Enter"},
                                              {"Exit", "Exit"},
                                              {"Identity", "Identity"},
                                              {"Merge", "Merge"},
                                              {"NextIteration", "NextIteration"},
                                              {"Switch", "Switch"},
                                              {"_SwitchN", "_SwitchN"},
                                              {"RefEnter", "Enter"},
                                              {"RefExit", "Exit"},
                                              {"RefIdentity", "Identity"},
                                              {"RefMerge", "Merge"},
                                              {"RefNextIteration", "NextIteration"},
                                              {"RefSwitch", "Switch"}};
  const auto it = ops.find(op);
  return it == ops.end() ? "" : it->second;
}

// Whether `op` takes a reference (or a handle) at `input` in order to change the variable: those
// of the family Assign, Scatter and Apply.
bool Writes(const std::string& op, int input) {
  if (absl::StartsWith(op, "Assign") || absl::StartsWith(op, "Scatter") ||
      absl::StartsWith(op, "ResourceScatter") || absl::EndsWith(op, "StridedSliceAssign")) {
    return input == 0;
  }
  // All but the last few inputs of an optimizer's op are variables; what follows them are values,
  // which may well be read from variables. The first input is the one that is trained.
  return (absl::StartsWith(op, "Apply") || absl::StartsWith(op, "ResourceApply") ||
          absl::StartsWith(op, "SparseApply") || absl::StartsWith(op, "ResourceSparseApply") ||
          op == "CountUpTo" || op == "ResourceCountUpTo" || op == "DestroyTemporaryVariable" ||
          op == "DestroyResourceOp") &&
         input == 0;
}

// Puts values in place of variables. The nodes of `graph` change where they are.
class Freezer {
 public:
  explicit Freezer(proto::GraphDef* graph) : graph_(graph) {
    for (int i = 0; i < graph->node_size(); ++i) {
      const proto::NodeDef& n = graph->node(i);
      by_name_[n.name()] = i;
      for (int k = 0; k < n.input_size(); ++k) {
        if (!absl::StartsWith(n.input(k), "^")) {
          consumers_[NodeName(n.input(k))].push_back({i, k});
        }
      }
    }
  }

  absl::Status Freeze(const std::string& variable, const Tensor& value) {
    proto::NodeDef* const n = graph_->mutable_node(by_name_.at(variable));
    const bool resource = n->op() == "VarHandleOp";
    n->Clear();
    n->set_name(variable);
    n->set_op("Const");
    (*n->mutable_attr())["dtype"] = MakeAttr(value.dtype());
    (*n->mutable_attr())["value"] = MakeAttr(value);
    bytes_ += n->attr().at("value").ByteSizeLong();
    if (bytes_ > kMostBytes) return TooLarge(bytes_);

    std::vector<std::string> changed = {variable};
    while (!changed.empty()) {
      const std::string source = std::move(changed.back());
      changed.pop_back();
      const auto it = consumers_.find(source);
      if (it == consumers_.end()) continue;
      for (const auto& [index, input] : it->second) {
        proto::NodeDef* const consumer = graph_->mutable_node(index);
        FERRY_ASSIGN_OR_RETURN(const bool passes,
                               Follow(consumer, input, variable, value.dtype(), resource));
        if (passes && passed_.insert({index, resource}).second) {
          changed.push_back(consumer->name());
        }
      }
    }
    return absl::OkStatus();
  }

  // The constants that Freeze needed besides.
  void AddNodes() {
    for (proto::NodeDef& n : added_) *graph_->add_node() = std::move(n);
  }

 private:
  // Adapts a node whose input is now the value of `variable`; whether it passes that on.
  absl::StatusOr<bool> Follow(proto::NodeDef* n, int input, const std::string& variable,
                              DType dtype, bool resource) {
    if (Writes(n->op(), input)) {
      return InvalidArgument("'", n->name(), "' (", n->op(), ") writes the variable '", variable,
                             "', and an output needs it: a frozen variable can't be written. "
                             "Choose outputs that don't train, or blacklist the variable");
    }
    const std::string plain = PassesOn(n->op());
    if (!plain.empty()) {
      // The other input of a Switch is its predicate.
      if (input > 0 && plain != "Merge") return false;
      n->set_op(plain);
      (*n->mutable_attr())["T"] = MakeAttr(dtype);
      n->mutable_attr()->erase("_output_shapes");
      return true;
    }
    if (!resource) return false;
    const proto::NodeDef old = *n;
    // Keeps the name and, of the attributes, the colocation.
    const auto become = [&](const char* op, int inputs) {
      n->Clear();
      n->set_name(old.name());
      n->set_op(op);
      for (int i = 0; i < std::min(inputs, old.input_size()); ++i) n->add_input(old.input(i));
      const auto colocation = old.attr().find("_class");
      if (colocation != old.attr().end()) (*n->mutable_attr())["_class"] = colocation->second;
    };
    if (old.op() == "ReadVariableOp") {
      become("Identity", 1);
      (*n->mutable_attr())["T"] = MakeAttr(dtype);
    } else if (old.op() == "ResourceGather") {
      const auto batch = old.attr().find("batch_dims");
      const int64_t batch_dims = batch == old.attr().end() ? 0 : batch->second.i();
      const DType indices = DTypeAttr(old, "Tindices");
      proto::NodeDef axis;
      axis.set_name(old.name() + "/axis");
      axis.set_op("Const");
      (*axis.mutable_attr())["dtype"] = MakeAttr(indices);
      (*axis.mutable_attr())["value"] = MakeAttr(
          indices == DType::kInt64 ? Tensor::Scalar<int64_t>(batch_dims)
                                   : Tensor::Scalar<int32_t>(static_cast<int32_t>(batch_dims)));
      if (by_name_.contains(axis.name())) {
        return InvalidArgument("'", old.name(), "' (ResourceGather) needs a constant '",
                               axis.name(), "', but there is another node of that name");
      }
      become("GatherV2", 2);
      n->add_input(axis.name());
      (*n->mutable_attr())["Tparams"] = MakeAttr(dtype);
      (*n->mutable_attr())["Tindices"] = MakeAttr(indices);
      (*n->mutable_attr())["Taxis"] = MakeAttr(indices);
      if (batch_dims != 0) (*n->mutable_attr())["batch_dims"] = MakeAttr(batch_dims);
      added_.push_back(std::move(axis));
    } else if (old.op() == "ResourceGatherNd") {
      become("GatherNd", 2);
      (*n->mutable_attr())["Tparams"] = MakeAttr(dtype);
      (*n->mutable_attr())["Tindices"] = MakeAttr(DTypeAttr(old, "Tindices"));
    } else {
      return InvalidArgument("'", n->name(), "' (", n->op(), ") takes the handle of the variable '",
                             variable, "', and an output needs it: it can't be frozen");
    }
    return false;
  }

  proto::GraphDef* const graph_;
  absl::flat_hash_map<std::string, int> by_name_;
  absl::flat_hash_map<std::string, std::vector<std::pair<int, int>>> consumers_;
  // Nodes that pass a value on, and whether as a handle: what follows them was looked at.
  absl::flat_hash_set<std::pair<int, bool>> passed_;
  std::vector<proto::NodeDef> added_;
  uint64_t bytes_ = 0;
};

// Cuts out what the outputs need and freezes it with the values that `values` gives for the
// variables it is called with, in their order.
absl::StatusOr<proto::GraphDef> FreezeWith(
    const proto::GraphDef& graph, const std::vector<std::string>& output_names,
    const FreezeOptions& options,
    absl::FunctionRef<absl::Status(const std::vector<const proto::NodeDef*>& variables,
                                   absl::FunctionRef<absl::Status(size_t, const Tensor&)> take)>
        values) {
  FERRY_ASSIGN_OR_RETURN(proto::GraphDef out, ExtractSubGraph(graph, output_names));
  const auto listed = [](const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
  };
  const auto& only = options.variable_names_whitelist;
  std::vector<proto::NodeDef> variables;
  uint64_t bytes = 0;
  for (const proto::NodeDef& n : out.node()) {
    if (!IsVariable(n) || (only && !listed(*only, n.name())) ||
        listed(options.variable_names_blacklist, n.name())) {
      continue;
    }
    variables.push_back(n);
    // What is too large by the shapes that are known needn't be fetched.
    const auto shape = n.attr().find("shape");
    const absl::StatusOr<PartialShape> known =
        shape == n.attr().end() ? PartialShape() : FromProto(shape->second.shape());
    if (known.ok() && known->fully_defined()) {
      const uint64_t size =
          static_cast<uint64_t>(known->num_elements()) * ElementSize(DTypeAttr(n, "dtype"));
      if (size > kMostBytes || (bytes += size) > kMostBytes) return TooLarge(std::max(size, bytes));
    }
  }
  std::vector<const proto::NodeDef*> pointers;
  for (const proto::NodeDef& n : variables) pointers.push_back(&n);
  Freezer freezer(&out);
  FERRY_RETURN_IF_ERROR(values(pointers, [&](size_t i, const Tensor& value) -> absl::Status {
    if (value.dtype() != DTypeAttr(variables[i], "dtype")) {
      return InvalidArgument("variable '", variables[i].name(), "' is of ",
                             DTypeName(DTypeAttr(variables[i], "dtype")), ", its value of ",
                             DTypeName(value.dtype()));
    }
    return freezer.Freeze(variables[i].name(), value);
  }));
  freezer.AddNodes();
  const uint64_t size = out.ByteSizeLong();
  if (size > kMostBytes) return TooLarge(size);
  LogInfo("Froze ", variables.size(), " variables.");
  LogInfo("Converted ", variables.size(), " variables to const ops.");
  return out;
}

// What a saver restores into one variable.
struct Restored {
  std::string key, slice;
};

// Looks at the nodes by which the SaverDef restores: the variables' names to what is read into
// them. What isn't of the form RestoreV2 → (Identity | Reshape)* → Assign is left out.
std::map<std::string, Restored> RestoredVariables(const proto::MetaGraphDef& meta) {
  std::map<std::string, Restored> found;
  absl::flat_hash_map<std::string, const proto::NodeDef*> nodes;
  for (const proto::NodeDef& n : meta.graph_def().node()) nodes[n.name()] = &n;
  const auto find = [&](const std::string& input) -> const proto::NodeDef* {
    const auto it = nodes.find(NodeName(input));
    return it == nodes.end() ? nullptr : it->second;
  };
  // Through what passes values on, a few nodes at most.
  constexpr int kMostPassed = 100;
  const auto origin = [&](std::string input) {
    for (int i = 0; i < kMostPassed; ++i) {
      const proto::NodeDef* const n = find(input);
      if (n == nullptr || (n->op() != "Identity" && n->op() != "Reshape") || n->input_size() == 0) {
        break;
      }
      input = n->input(0);
    }
    return input;
  };
  absl::flat_hash_map<const proto::NodeDef*, absl::StatusOr<Tensor>> constants;
  // The element of the constant vector of strings at `input`.
  const auto element = [&](const proto::NodeDef& restore, int input,
                           int at) -> absl::StatusOr<std::string> {
    const proto::NodeDef* const n =
        restore.input_size() > input ? find(restore.input(input)) : nullptr;
    if (n == nullptr || n->op() != "Const") return NotFound("no constant");
    const auto [known, fresh] = constants.try_emplace(n, absl::UnknownError(""));
    if (fresh) known->second = GetAttr<Tensor>(n->attr(), "value");
    if (!known->second.ok()) return known->second.status();
    const Tensor& t = *known->second;
    if (t.dtype() != DType::kString || at >= t.num_elements()) return NotFound("no such element");
    return t.data<std::string>()[at];
  };

  std::vector<std::string> stack = {meta.saver_def().restore_op_name()};
  absl::flat_hash_set<std::string> seen;
  while (!stack.empty()) {
    const proto::NodeDef* const n = find(stack.back());
    stack.pop_back();
    if (n == nullptr || !seen.insert(n->name()).second) continue;
    for (const std::string& in : n->input()) {
      if (absl::StartsWith(in, "^")) stack.push_back(in);
    }
    if ((n->op() != "Assign" && n->op() != "AssignVariableOp") || n->input_size() < 2) continue;
    const std::string value = origin(n->input(1));
    const proto::NodeDef* const restore = find(value);
    if (restore == nullptr || !absl::StartsWith(restore->op(), "Restore")) continue;
    const auto parsed = ParseTensorName(value);
    if (!parsed.ok()) continue;
    const absl::StatusOr<std::string> key = element(*restore, 1, parsed->second);
    if (!key.ok()) continue;
    const absl::StatusOr<std::string> slice = element(*restore, 2, parsed->second);
    found[NodeName(n->input(0))] = {*key, slice.ok() ? *slice : ""};
  }
  return found;
}

}  // namespace

absl::StatusOr<proto::GraphDef> ConvertVariablesToConstants(
    Session* session, const proto::GraphDef& graph, const std::vector<std::string>& output_names,
    const FreezeOptions& options) {
  return FreezeWith(
      graph, output_names, options, [&](const auto& variables, auto take) -> absl::Status {
        std::vector<std::string> fetches;
        for (const proto::NodeDef* v : variables) {
          if (IsRefVariable(*v)) {
            fetches.push_back(v->name() + ":0");
            continue;
          }
          Node* const handle = session->graph()->FindNode(v->name());
          if (handle == nullptr)
            return NotFound("variable '", v->name(), "' is not in the session");
          const auto reads = [&](const Node* n) {
            return n->op() == "ReadVariableOp" && n->input(0).node == handle;
          };
          const auto& consumers = handle->consumers();
          const auto read = std::find_if(consumers.begin(), consumers.end(), reads);
          if (read == consumers.end()) {
            return FailedPrecondition("nothing in the session's graph reads the variable '",
                                      v->name(), "': it needs a ReadVariableOp to be frozen");
          }
          fetches.push_back((*read)->name() + ":0");
        }
        std::vector<Tensor> fetched;
        if (!fetches.empty()) FERRY_RETURN_IF_ERROR(session->Run({}, fetches, {}, &fetched));
        for (size_t i = 0; i < fetched.size(); ++i) {
          FERRY_RETURN_IF_ERROR(take(i, fetched[i]));
          fetched[i] = Tensor();
        }
        return absl::OkStatus();
      });
}

absl::StatusOr<proto::GraphDef> ConvertVariablesToConstants(
    Session* session, const std::vector<std::string>& output_names, const FreezeOptions& options) {
  proto::GraphDef graph;
  session->graph()->ToGraphDef(&graph);
  return ConvertVariablesToConstants(session, graph, output_names, options);
}

absl::StatusOr<proto::GraphDef> FreezeCheckpoint(FileSystem* fs, const proto::MetaGraphDef& meta,
                                                 const std::string& prefix,
                                                 const std::vector<std::string>& output_names,
                                                 const FreezeOptions& options) {
  const std::map<std::string, Restored> restored = RestoredVariables(meta);
  return FreezeWith(
      meta.graph_def(), output_names, options,
      [&](const auto& variables, auto take) -> absl::Status {
        if (variables.empty()) return absl::OkStatus();
        FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<BundleReader> reader,
                               BundleReader::Open(fs, prefix));
        for (size_t i = 0; i < variables.size(); ++i) {
          const proto::NodeDef& v = *variables[i];
          const auto it = restored.find(v.name());
          const Restored from = it == restored.end() ? Restored{v.name(), ""} : it->second;
          FERRY_ASSIGN_OR_RETURN(const BundleReader::Entry* const entry, reader->Lookup(from.key));
          const DType dtype = DTypeAttr(v, "dtype");
          if (entry->dtype != dtype) {
            return InvalidArgument("tensor_name = ", from.key, "; expected dtype ",
                                   DTypeWord(dtype), " does not equal original dtype ",
                                   DTypeWord(entry->dtype), " (checkpoint ", prefix, ")");
          }
          Tensor value;
          if (from.slice.empty()) {
            FERRY_ASSIGN_OR_RETURN(value, reader->Read(from.key));
          } else {
            FERRY_ASSIGN_OR_RETURN(const ShapeAndSlice part, ParseShapeAndSlice(from.slice));
            FERRY_ASSIGN_OR_RETURN(value, reader->ReadSlice(from.key, part.slice));
          }
          const auto shape = v.attr().find("shape");
          if (shape != v.attr().end()) {
            FERRY_ASSIGN_OR_RETURN(const PartialShape declared, FromProto(shape->second.shape()));
            if (!declared.CompatibleWith(PartialShape(value.shape()))) {
              // A saver with `reshape` restores other shapes of as many elements.
              if (!declared.fully_defined() ||
                  declared.num_elements() != value.shape().num_elements()) {
                return InvalidArgument(
                    "Assign requires shapes of both tensors to match. lhs shape= ",
                    declared.DebugString(), " rhs shape= ", value.shape().DebugString(),
                    " (variable '", v.name(), "', '", from.key, "' in checkpoint ", prefix, ")");
              }
              FERRY_ASSIGN_OR_RETURN(const TensorShape to, declared.ToTensorShape());
              value = value.WithShape(to);
            }
          }
          FERRY_RETURN_IF_ERROR(take(i, value));
        }
        return absl::OkStatus();
      });
}

absl::StatusOr<proto::GraphDef> ExtractSubGraph(const proto::GraphDef& graph,
                                                const std::vector<std::string>& output_names) {
  absl::flat_hash_map<std::string, int> by_name;
  for (int i = 0; i < graph.node_size(); ++i) by_name[graph.node(i).name()] = i;
  std::vector<bool> needed(static_cast<size_t>(graph.node_size()), false);
  std::vector<int> stack;
  for (const std::string& name : output_names) {
    const auto it = by_name.find(name);
    if (it == by_name.end()) return InvalidArgument(name, " is not in graph");
    stack.push_back(it->second);
  }
  while (!stack.empty()) {
    const int at = stack.back();
    stack.pop_back();
    if (needed[static_cast<size_t>(at)]) continue;
    needed[static_cast<size_t>(at)] = true;
    const proto::NodeDef& n = graph.node(at);
    for (const std::string& input : n.input()) {
      const auto it = by_name.find(NodeName(input));
      if (it == by_name.end()) {
        return InvalidArgument("node '", n.name(), "': input '", input, "' is not in graph");
      }
      stack.push_back(it->second);
    }
    for (const std::string& other : ColocatedWith(n)) {
      const auto it = by_name.find(other);
      if (it != by_name.end()) stack.push_back(it->second);
    }
  }
  proto::GraphDef out;
  for (int i = 0; i < graph.node_size(); ++i) {
    if (needed[static_cast<size_t>(i)]) *out.add_node() = graph.node(i);
  }
  *out.mutable_library() = graph.library();
  *out.mutable_versions() = graph.versions();
  return out;
}

proto::GraphDef RemoveTrainingNodes(const proto::GraphDef& graph,
                                    const std::vector<std::string>& protected_nodes) {
  const absl::flat_hash_set<std::string> kept(protected_nodes.begin(), protected_nodes.end());
  absl::flat_hash_set<std::string> removed;
  for (const proto::NodeDef& n : graph.node()) {
    if (n.op() == "CheckNumerics" && !kept.contains(n.name())) removed.insert(n.name());
  }
  // What takes a removed node's output takes that node's input instead; so do control edges' ends.
  absl::flat_hash_map<std::string, std::string> replaced;
  absl::flat_hash_set<std::string> controls, controlled, colocated;
  for (const proto::NodeDef& n : graph.node()) {
    if (removed.contains(n.name())) {
      if (n.input_size() > 0) replaced[n.name()] = n.input(0);
      continue;
    }
    for (const std::string& input : n.input()) {
      if (!absl::StartsWith(input, "^")) continue;
      if (removed.contains(input.substr(1))) continue;
      controls.insert(input.substr(1));
      controlled.insert(n.name());
    }
    for (const std::string& other : ColocatedWith(n)) colocated.insert(other);
  }
  for (const proto::NodeDef& n : graph.node()) {
    if ((n.op() == "Identity" || n.op() == "StopGradient") && n.input_size() > 0 &&
        !kept.contains(n.name()) && !colocated.contains(n.name()) &&
        !controlled.contains(n.name()) && !controls.contains(n.name())) {
      replaced[n.name()] = n.input(0);
      removed.insert(n.name());
    }
  }
  proto::GraphDef out;
  for (const proto::NodeDef& n : graph.node()) {
    if (removed.contains(n.name())) continue;
    proto::NodeDef* const to = out.add_node();
    *to = n;
    to->clear_input();
    for (std::string input : n.input()) {
      if (absl::StartsWith(input, "^")) {
        if (!removed.contains(input.substr(1))) to->add_input(input);
        continue;
      }
      const auto first = replaced.find(NodeName(input));
      for (size_t i = 0; i <= replaced.size(); ++i) {
        const auto it = replaced.find(NodeName(input));
        if (it == replaced.end()) break;
        input = it->second;
      }
      if (first != replaced.end()) first->second = input;  // The way is short from now on.
      to->add_input(input);
    }
  }
  *out.mutable_library() = graph.library();
  *out.mutable_versions() = graph.versions();
  return out;
}

absl::Status WriteGraphDef(FileSystem* fs, const std::string& path, const proto::GraphDef& graph) {
  const uint64_t size = graph.ByteSizeLong();
  if (size > kMostBytes) return TooLarge(size);
  std::string bytes;
  {
    google::protobuf::io::StringOutputStream stream(&bytes);
    google::protobuf::io::CodedOutputStream coded(&stream);
    coded.SetSerializationDeterministic(true);
    if (!graph.SerializeToCodedStream(&coded)) {
      return InvalidArgument("'", path, "': the graph can't be serialised");
    }
  }
  return ReplaceFile(fs, path, bytes);
}

absl::StatusOr<std::string> WriteGraph(FileSystem* fs, const proto::GraphDef& graph,
                                       const std::string& dir, const std::string& name,
                                       bool as_text) {
  const std::string path = JoinPath(dir, name);
  FERRY_RETURN_IF_ERROR(CreateDirs(fs, dir));
  if (as_text) {
    std::string text;
    google::protobuf::TextFormat::PrintToString(graph, &text);
    FERRY_RETURN_IF_ERROR(ReplaceFile(fs, path, text));
  } else {
    FERRY_RETURN_IF_ERROR(WriteGraphDef(fs, path, graph));
  }
  return path;
}

}  // namespace ferry
