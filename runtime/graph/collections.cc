// Collections as MetaGraphDef holds them.
#include "runtime/graph/collections.h"

#include <algorithm>

#include "runtime/base/status.h"

namespace ferry {
namespace {

using proto::CollectionDef;

absl::Status WrongKind(const std::string& collection, const char* expected) {
  return FailedPrecondition("collection '", collection, "' is not a list of ", expected);
}

bool Fits(const CollectionDef& def, CollectionDef::KindCase kind) {
  return def.kind_case() == kind || def.kind_case() == CollectionDef::KIND_NOT_SET;
}

}  // namespace

bool HoldsVariableDefs(absl::string_view collection) {
  static const absl::string_view kNames[] = {  // No constexpr: ubsan looks at the pointers.
      kGlobalVariables,        kTrainableVariables, kLocalVariables,   kModelVariables,
      kMovingAverageVariables, kGlobalStep,         "metric_variables"};
  return std::find(std::begin(kNames), std::end(kNames), collection) != std::end(kNames);
}

absl::Status AddVariableToCollection(Graph* graph, const std::string& collection,
                                     const proto::VariableDef& def) {
  CollectionDef& c = (*graph->mutable_collections())[collection];
  if (!HoldsVariableDefs(collection) && Fits(c, CollectionDef::kNodeList)) {
    c.mutable_node_list()->add_value(def.variable_name());
    return absl::OkStatus();
  }
  if (!Fits(c, CollectionDef::kBytesList)) return WrongKind(collection, "bytes");
  c.mutable_bytes_list()->add_value(def.SerializeAsString());
  return absl::OkStatus();
}

absl::StatusOr<std::vector<proto::VariableDef>> GetVariableCollection(
    const Graph& graph, const std::string& collection) {
  std::vector<proto::VariableDef> defs;
  auto it = graph.collections().find(collection);
  if (it == graph.collections().end()) return defs;
  if (!Fits(it->second, CollectionDef::kBytesList)) return WrongKind(collection, "bytes");
  for (const std::string& bytes : it->second.bytes_list().value()) {
    if (!defs.emplace_back().ParseFromString(bytes)) {
      return InvalidArgument("collection '", collection, "': entry ", defs.size() - 1,
                             " is not a VariableDef");
    }
  }
  return defs;
}

absl::Status AddNodeToCollection(Graph* graph, const std::string& collection,
                                 const std::string& name) {
  CollectionDef& c = (*graph->mutable_collections())[collection];
  if (!Fits(c, CollectionDef::kNodeList)) return WrongKind(collection, "nodes");
  auto* values = c.mutable_node_list()->mutable_value();
  if (std::find(values->begin(), values->end(), name) == values->end()) *values->Add() = name;
  return absl::OkStatus();
}

absl::StatusOr<std::vector<std::string>> GetNodeCollection(const Graph& graph,
                                                           const std::string& collection) {
  auto it = graph.collections().find(collection);
  if (it == graph.collections().end()) return std::vector<std::string>();
  if (!Fits(it->second, CollectionDef::kNodeList)) return WrongKind(collection, "nodes");
  const auto& values = it->second.node_list().value();
  return std::vector<std::string>(values.begin(), values.end());
}

}  // namespace ferry
