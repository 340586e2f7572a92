// Training that goes on where it was stopped: the latest checkpoint of the folder if there is one,
// the initial values otherwise, and a save every 100 steps. Only W and b are trained.
#include "absl/strings/str_format.h"
#include "examples/example.h"
#include "runtime/base/status.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/variables.h"
#include "saver/checkpoint_state.h"
#include "saver/saver.h"

namespace ferry::examples {
namespace {

// One start of the program: y = x * W + b is fitted to y = 2x + 1, for `steps` steps.
absl::Status Start(int steps) {
  Graph graph;
  const Scope root(&graph);
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat);
  const Output y = ops::Placeholder(root.WithOpName("y"), DType::kFloat);
  const VariableHandle W = MakeVariable(root, "W", Tensor::Scalar<float>(0));
  const VariableHandle b = MakeVariable(root, "b", Tensor::Scalar<float>(0));
  VariableOptions fixed;
  fixed.trainable = false;
  const VariableHandle scale = MakeVariable(root, "scale", Tensor::Scalar<float>(1), fixed);
  const VariableHandle step = GetOrCreateGlobalStep(root);
  const Output guess =
      ops::Mul(root, ops::AddV2(root, ops::Mul(root, x, W.read), b.read), scale.read);
  const Output cost = ops::ReduceMean(root.WithOpName("cost"),
                                      ops::Square(root, ops::Sub(root, guess, y)));
  GradientDescentOptimizer optimizer(0.05);
  MinimizeOptions minimize;
  minimize.global_step = step;
  minimize.var_list = {W, b};
  Node* const train = optimizer.Minimize(root, cost, minimize);
  Node* const init = GlobalVariablesInitializer(root);
  FERRY_RETURN_IF_ERROR(root.status());

  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<Saver> saver, Saver::Create(&graph));
  Session session(&graph);
  FERRY_ASSIGN_OR_RETURN(const std::string latest,
                         LatestCheckpoint(FileSystem::Posix(), "checkpoints"));
  if (latest.empty()) {
    FERRY_RETURN_IF_ERROR(session.Run({}, {}, {init->name()}, nullptr));
  } else {
    FERRY_RETURN_IF_ERROR(saver->Restore(&session, latest));
    absl::PrintF("Model restored...\n");
    FERRY_RETURN_IF_ERROR(
        saver->RecoverFromState(FileSystem::Posix(), "checkpoints"));
  }
  const std::vector<std::pair<std::string, Tensor>> data = {{"x", Tensor::Of<float>({0, 1, 2, 3})},
                                                            {"y", Tensor::Of<float>({1, 3, 5, 7})}};
  for (int i = 0; i < steps; ++i) {
    std::vector<Tensor> out;
    FERRY_RETURN_IF_ERROR(session.Run(data, {}, {train->name()}, &out));
    FERRY_ASSIGN_OR_RETURN(const Tensor now, Fetch(&session, step.read.name()));
    if (now.scalar<int64_t>() % 100 != 0) continue;
    SaveOptions options;
    options.global_step = now.scalar<int64_t>();
    FERRY_ASSIGN_OR_RETURN(const std::string path,
                           saver->Save(&session, "checkpoints/model.ckpt", options));
    absl::PrintF("Model saved in path:  %s\n", path);
  }
  FERRY_ASSIGN_OR_RETURN(const Tensor w, Fetch(&session, "W"));
  FERRY_ASSIGN_OR_RETURN(const Tensor c, Fetch(&session, "b"));
  absl::PrintF("W %.2f b %.2f\n", w.scalar<float>(), c.scalar<float>());
  return absl::OkStatus();
}

absl::Status ResumeLoop() {
  FERRY_RETURN_IF_ERROR(Start(250));  // Stopped between two saves: 50 steps are lost.
  return Start(200);
}

}  // namespace
}  // namespace ferry::examples

int main() { return ferry::examples::Main(ferry::examples::ResumeLoop); }
