// InitFromCheckpoint: see init_from_checkpoint.h.
#include "saver/init_from_checkpoint.h"

#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "saver/checkpoint_reader.h"
#include "saver/meta_graph.h"

namespace ferry {
namespace {

const char* const kCollections[] = {kGlobalVariables, kLocalVariables,         kModelVariables,
                                    kGlobalStep,      kMovingAverageVariables, kTrainableVariables};

// The graph's variables by the names under which checkpoints hold them; parts under the whole's.
absl::StatusOr<std::map<std::string, std::vector<VariableHandle>>> VariablesByName(
    const Graph& graph) {
  std::map<std::string, std::vector<VariableHandle>> by_name;
  std::set<const Node*> seen;
  for (const char* collection : kCollections) {
    FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> all, VariablesOf(graph, collection));
    for (const VariableHandle& v : all) {
      if (!seen.insert(v.ref.node).second) continue;
      by_name[v.slice ? v.slice->full_name() : v.name()].push_back(v);
    }
  }
  return by_name;
}

struct Start {
  std::string tensor;  // In the checkpoint.
  VariableHandle variable;
};

// One variable, or one part, against the tensor that it is to start with.
absl::Status Check(const CheckpointReader& reader, const Start& start) {
  const VariableHandle& v = start.variable;
  FERRY_ASSIGN_OR_RETURN(const BundleReader::Entry* entry, reader.bundle().Lookup(start.tensor));
  PartialShape shape = v.shape();
  if (v.slice) {
    shape = PartialShape(
        std::vector<int64_t>(v.slice->full_shape().begin(), v.slice->full_shape().end()));
  }
  if (!shape.CompatibleWith(PartialShape(entry->shape))) {
    return InvalidArgument("Shape of variable ", v.name(), " (", shape.DebugString(),
                           ") doesn't match with shape of tensor ", start.tensor, " (",
                           entry->shape.DebugString(), ") from checkpoint reader of ",
                           reader.prefix());
  }
  if (v.dtype() != entry->dtype) {
    return InvalidArgument("variable ", v.name(), " is ", DTypeName(v.dtype()), ", but tensor ",
                           start.tensor, " of ", reader.prefix(), " is ", DTypeName(entry->dtype));
  }
  if (v.initializer == nullptr || v.initializer->num_inputs() != 2) {
    return InvalidArgument("variable ", v.name(), " has no Assign as its initializer");
  }
  return absl::OkStatus();
}

// Adds the RestoreV2 and lets the variable's Assign take it.
absl::Status Redirect(const std::string& prefix, const Start& start, Graph* graph) {
  const VariableHandle& v = start.variable;
  const Scope root = Scope(graph).WithDevice("/device:CPU:0");
  const std::string name = graph->UniqueName("checkpoint_initializer");
  const auto constant = [&](const char* of, const Tensor& value) {
    return ops::Const(root.WithOpName(absl::StrCat(name, "/", of, "/")), value);
  };
  const std::string slice = v.slice ? SliceSpec(*v.slice) : "";
  const Output restored =
      NodeBuilder(root.WithOpName(name + "/"), "RestoreV2")
          .Input(constant("prefix", Tensor::Scalar<std::string>(prefix)))
          .Input(constant("tensor_names", Tensor::Of<std::string>({start.tensor})))
          .Input(constant("shape_and_slices", Tensor::Of<std::string>({slice})))
          .Attr("dtypes", std::vector<DType>{v.dtype()})
          .BuildOutput();
  FERRY_RETURN_IF_ERROR(root.status());
  FERRY_RETURN_IF_ERROR(graph->UpdateInput(v.initializer, 1, restored));
  for (const char* collection : kCollections) {
    const auto it = graph->mutable_collections()->find(collection);
    if (it == graph->mutable_collections()->end()) continue;
    for (std::string& bytes : *it->second.mutable_bytes_list()->mutable_value()) {
      proto::VariableDef def;
      if (!def.ParseFromString(bytes) || def.variable_name() != v.ref.name()) continue;
      def.set_initial_value_name(restored.name());
      def.SerializeToString(&bytes);
    }
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status InitFromCheckpoint(FileSystem* fs, const std::string& checkpoint,
                                const AssignmentMap& map, Graph* graph) {
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<CheckpointReader> reader,
                         CheckpointReader::Open(fs, checkpoint));
  FERRY_ASSIGN_OR_RETURN(const auto variables, VariablesByName(*graph));
  std::vector<Start> starts;
  for (const auto& [from, to] : map) {
    if (const VariableHandle* handle = std::get_if<VariableHandle>(&to)) {
      if (!*handle || handle->ref.node->graph() != graph) {
        return InvalidArgument("the variable for '", from, "' is empty, or of another graph");
      }
      starts.push_back({from, *handle});
      continue;
    }
    const std::string& name = std::get<std::string>(to);
    if (const auto it = variables.find(name); it != variables.end()) {
      for (const VariableHandle& part : it->second) starts.push_back({from, part});
      continue;
    }
    if (!absl::EndsWith(name, "/")) {
      return NotFound("variable '", name, "', to be initialised from '", from, "' of ",
                      reader->prefix(), ", is not in the graph");
    }
    if (!absl::EndsWith(from, "/")) {
      return InvalidArgument("Assignment map with scope only name ", name,
                             " should map to scope only ", from,
                             ". Should be 'scope/': 'other_scope/'.");
    }
    const std::string scope = name == "/" ? "" : name, source = from == "/" ? "" : from;
    bool any = false;
    for (const auto& [full, parts] : variables) {
      absl::string_view rest = full;
      if (!absl::ConsumePrefix(&rest, scope)) continue;
      any = true;
      for (const VariableHandle& part : parts) starts.push_back({absl::StrCat(source, rest), part});
    }
    if (!any) {
      return NotFound("there are no variables in the scope '", name, "', to be initialised from '",
                      from, "' of ", reader->prefix());
    }
  }
  for (const Start& start : starts) FERRY_RETURN_IF_ERROR(Check(*reader, start));
  for (const Start& start : starts) {
    FERRY_RETURN_IF_ERROR(Redirect(reader->prefix(), start, graph));
  }
  return absl::OkStatus();
}

}  // namespace ferry
