// A saved graph is imported, fed with new values, and extended: (w1 + w2) * bias, times two.
#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/variables.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

absl::Status SaveIt() {
  Graph graph;
  const Scope root(&graph);
  const Output w1 = ops::Placeholder(root.WithOpName("w1"), DType::kFloat);
  const Output w2 = ops::Placeholder(root.WithOpName("w2"), DType::kFloat);
  const VariableHandle bias = MakeVariable(root, "bias", Tensor::Scalar<float>(2));
  ops::Mul(root.WithOpName("op_to_restore"), ops::AddV2(root, w1, w2), bias.read);
  Node* const init = GlobalVariablesInitializer(root);
  FERRY_RETURN_IF_ERROR(root.status());
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
  FERRY_ASSIGN_OR_RETURN(const Tensor before,
                         Fetch(&session, "op_to_restore:0", {{"w1:0", Tensor::Scalar<float>(4)},
                                                             {"w2:0", Tensor::Scalar<float>(8)}}));
  absl::PrintF("before saving: %s\n", Text(before));
  SaveOptions options;
  options.global_step = 1000;
  return saver->Save(&session, "feeding/my_test_model", options).status();
}

absl::Status Feeding() {
  FERRY_RETURN_IF_ERROR(SaveIt());
  Graph graph;
  FERRY_ASSIGN_OR_RETURN(
      const std::unique_ptr<Saver> saver,
      ImportMetaGraphFile(FileSystem::Posix(), "feeding/my_test_model-1000.meta", {}, &graph));
  Session session(&graph);
  FERRY_RETURN_IF_ERROR(saver->Restore(&session, "feeding/my_test_model-1000"));
  FERRY_ASSIGN_OR_RETURN(const Tensor bias, Fetch(&session, "bias:0"));
  absl::PrintF("bias:0 %s, shape %s\n", Text(bias), bias.shape().DebugString());

  const std::vector<std::pair<std::string, Tensor>> feeds = {{"w1:0", Tensor::Scalar<float>(13)},
                                                             {"w2:0", Tensor::Scalar<float>(17)}};
  FERRY_ASSIGN_OR_RETURN(const Tensor result, Fetch(&session, "op_to_restore:0", feeds));
  absl::PrintF("with 13 and 17: %s\n", Text(result));

  // New nodes go on from the restored ones.
  const Scope root(&graph);
  FERRY_ASSIGN_OR_RETURN(const Output restored, graph.FindOutput("op_to_restore:0"));
  const Output twice = ops::Mul(root.WithOpName("twice"), restored, ops::Const(root, 2.0f));
  FERRY_RETURN_IF_ERROR(root.status());
  FERRY_ASSIGN_OR_RETURN(const Tensor extended, Fetch(&session, twice.name(), feeds));
  absl::PrintF("times 2: %s\n", Text(extended));
  return absl::OkStatus();
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::Feeding); }
