// Moving averages: a shadow variable that follows v, and a Saver that puts it into v.
#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/moving_averages.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

constexpr char kPath[] = "moving_average/model.ckpt";

absl::Status Train() {
  Graph graph;
  const Scope root(&graph);
  const VariableHandle v = MakeVariable(root, "v", Tensor::Scalar<float>(0));
  ExponentialMovingAverage ema(0.99);
  Node* const maintain = ema.Apply(root, {v});
  ops::Assign(root.WithOpName("set"), v.ref, ops::Const<float>(root, 10));
  Node* const init = GlobalVariablesInitializer(root);
  FERRY_RETURN_IF_ERROR(root.status());
  FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> all, GlobalVariables(graph));
  for (const VariableHandle& variable : all) absl::PrintF("%s\n", variable.ref.name());

  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {"set"}, nullptr));
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {maintain->name()}, nullptr));
  FERRY_RETURN_IF_ERROR(saver->Save(&session, kPath).status());
  FERRY_ASSIGN_OR_RETURN(const Tensor now, Fetch(&session, "v"));
  FERRY_ASSIGN_OR_RETURN(const Tensor average, Fetch(&session, ema.average_name(v)));
  absl::PrintF("[%s, %s]\n", Text(now), Text(average));
  return absl::OkStatus();
}

// A program that knows v alone, and takes the average for it.
absl::Status Use(bool by_variables_to_restore) {
  Graph graph;
  const Scope root(&graph);
  const VariableHandle v = MakeVariable(root, "v", Tensor::Scalar<float>(0));
  SaverOptions options;
  if (by_variables_to_restore) {
    const ExponentialMovingAverage ema(0.99);
    FERRY_ASSIGN_OR_RETURN(options.var_map, ema.variables_to_restore(graph));
  } else {
    options.var_map = {{"v/ExponentialMovingAverage", v}};
  }
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph, options));
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(saver->Restore(&session, kPath));
  return Show(&session, by_variables_to_restore ? "v by variables_to_restore" : "v", "v");
}

absl::Status MovingAverage() {
  FERRY_RETURN_IF_ERROR(Train());
  FERRY_RETURN_IF_ERROR(Use(false));
  return Use(true);
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::MovingAverage); }
