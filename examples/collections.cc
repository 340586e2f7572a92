// The five kinds of variables, and what a variable starts with when nobody says.
#include <cmath>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/variables.h"

namespace ferry::examples {
namespace {

// "([w],[],[],[w],[])": the global, local, model, trainable and moving average variables.
absl::StatusOr<std::string> Kinds(const Graph& graph) {
  std::vector<std::string> lists;
  for (const char* collection : {kGlobalVariables, kLocalVariables, kModelVariables,
                                 kTrainableVariables, kMovingAverageVariables}) {
    FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> all, VariablesOf(graph, collection));
    lists.push_back("[" + absl::StrJoin(all, ",", [](std::string* out, const VariableHandle& v) {
                      absl::StrAppend(out, v.name());
                    }) + "]");
  }
  return "(" + absl::StrJoin(lists, ",") + ")";
}

absl::Status Collections() {
  const struct {
    const char* what;
    bool trainable;
    std::vector<std::string> collections;
  } kinds[] = {
      {"as usual", true, {kGlobalVariables}},
      {"not trainable", false, {kGlobalVariables}},
      {"local", false, {kLocalVariables}},
      {"local and trainable", true, {kLocalVariables}},
      {"model", true, {kGlobalVariables, kModelVariables}},
      {"averaged", true, {kGlobalVariables, kMovingAverageVariables}},
      {"the user's own", false, {"mine"}},
  };
  for (const auto& kind : kinds) {
    Graph graph;
    const Scope root(&graph);
    VariableOptions options;
    options.trainable = kind.trainable;
    options.collections = kind.collections;
    GetVariable(root, "w", {2}, DType::kFloat, options);
    FERRY_RETURN_IF_ERROR(root.status());
    FERRY_ASSIGN_OR_RETURN(const std::string text, Kinds(graph));
    absl::PrintF("%s: %s\n", kind.what, text);
  }

  // Without an initializer: Glorot's uniform one, within sqrt(6 / (inputs + outputs)).
  Graph graph;
  graph.set_seed(1);
  const Scope root(&graph);
  const VariableHandle w = GetVariable(root, "w", {20, 30}, DType::kFloat);
  Node* const init = VariablesInitializer(root, {w});
  FERRY_RETURN_IF_ERROR(root.status());
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_ASSIGN_OR_RETURN(const Tensor value, Fetch(&session, "w"));
  float most = 0;
  for (const float x : value.span<float>()) most = std::max(most, std::abs(x));
  absl::PrintF("default initializer: |w| <= %.3f (bound %.3f)\n", most, std::sqrt(6.0 / 50));
  return absl::OkStatus();
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::Collections); }
