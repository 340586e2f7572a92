// Two variables, counted up and down, saved, and restored in a program of its own: both, and one of
// them alone.
#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

VariableHandle Zeros(const Scope& s, const std::string& name, int64_t size) {
  VariableOptions options;
  options.initializer = ZerosInitializer();
  return GetVariable(s, name, {size}, DType::kFloat, options);
}

absl::Status SaveThem() {
  Graph graph;
  const Scope root(&graph);
  const VariableHandle v1 = Zeros(root, "v1", 3), v2 = Zeros(root, "v2", 5);
  const Output up = ops::Assign(root, v1.ref, ops::AddV2(root, v1.read, ops::Const(root, 1.0f)));
  const Output down = ops::Assign(root, v2.ref, ops::Sub(root, v2.read, ops::Const(root, 1.0f)));
  Node* const init = GlobalVariablesInitializer(root);
  FERRY_RETURN_IF_ERROR(root.status());
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {up.node->name(), down.node->name()}, nullptr));
  FERRY_ASSIGN_OR_RETURN(const std::string path, saver->Save(&session, "counters/model.ckpt"));
  absl::PrintF("Model saved in path: %s\n", path);
  return absl::OkStatus();
}

absl::Status RestoreBoth() {
  Graph graph;
  const Scope root(&graph);
  Zeros(root, "v1", 3), Zeros(root, "v2", 5);
  FERRY_RETURN_IF_ERROR(root.status());
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(saver->Restore(&session, "counters/model.ckpt"));
  absl::PrintF("Model restored.\n");
  FERRY_RETURN_IF_ERROR(Show(&session, "v1", "v1"));
  return Show(&session, "v2", "v2");
}

absl::Status RestoreOne() {
  Graph graph;
  const Scope root(&graph);
  const VariableHandle v1 = Zeros(root, "v1", 3), v2 = Zeros(root, "v2", 5);
  FERRY_RETURN_IF_ERROR(root.status());
  SaverOptions only;
  only.var_map = {{"v2", v2}};
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph, only));
  Session session(&graph);
  // The Saver restores v2 alone; v1 is for the program to initialise.
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {v1.initializer->name()}, nullptr));
  FERRY_RETURN_IF_ERROR(saver->Restore(&session, "counters/model.ckpt"));
  FERRY_RETURN_IF_ERROR(Show(&session, "v1", "v1"));
  return Show(&session, "v2", "v2");
}

absl::Status Counters() {
  FERRY_RETURN_IF_ERROR(SaveThem());
  FERRY_RETURN_IF_ERROR(RestoreBoth());
  return RestoreOne();
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::Counters); }
