// Trains a small model into the directory given, by the training loop's own hooks, with summary
// ops, moving averages and a save every 20 steps up to the step given, for training_test.py.
#include <cstdio>
#include <cstdlib>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "runtime/base/status.h"
#include "runtime/graph/moving_averages.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/summary.h"
#include "saver/hooks.h"
#include "saver/training.h"

namespace ferry {
namespace {

absl::Status Train(const std::string& dir, int64_t steps) {
  Graph graph;
  const Scope root(&graph);
  Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1, 2});
  Output y = ops::Placeholder(root.WithOpName("y"), DType::kFloat, {-1, 1});
  VariableOptions zeros;
  zeros.initializer = ZerosInitializer();
  const Scope layer = root.NewSubScope("layer");
  const VariableHandle w = GetVariable(layer, "w", {2, 1}, DType::kFloat, zeros);
  const VariableHandle b = GetVariable(layer, "b", {1}, DType::kFloat, zeros);
  Output out = ops::BiasAdd(layer, ops::MatMul(layer, x, w.read), b.read);
  Output loss =
      ops::ReduceMean(root.WithOpName("loss_value"), ops::SquaredDifference(root, out, y));
  summary::Scalar(root, "loss", loss);
  summary::Histogram(root, "layer/weights", w.read);
  MinimizeOptions minimize;
  minimize.global_step = GetOrCreateGlobalStep(root);
  Node* train = GradientDescentOptimizer(0.1).Minimize(root, loss, minimize);
  ExponentialMovingAverage ema(0.9, minimize.global_step.read);
  Node* all = ema.Apply(root.WithControlDependencies({train}));
  FERRY_RETURN_IF_ERROR(root.status());

  MonitoredSessionOptions options;
  options.session.device = "cpu";
  options.checkpoint_dir = dir;
  options.hooks = {std::make_shared<NanTensorHook>("loss_value"),
                   std::make_shared<StopAtStepHook>(StopAtStepHook::LastStep(steps))};
  TrainingDefaults defaults;
  defaults.save_checkpoint.steps = 20;
  defaults.save_summaries.steps = 10;
  defaults.log_step_count_steps = 10;
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<MonitoredSession> training,
                         MonitoredTrainingSession(&graph, options, defaults));
  // y = 2 a - b + 1.
  FERRY_ASSIGN_OR_RETURN(Tensor xs, Tensor::Allocate(DType::kFloat, {4, 2}));
  FERRY_ASSIGN_OR_RETURN(Tensor ys, Tensor::Allocate(DType::kFloat, {4, 1}));
  for (int i = 0; i < 4; ++i) {
    const float a = static_cast<float>(i / 2), c = static_cast<float>(i % 2);
    xs.data<float>()[2 * i] = a;
    xs.data<float>()[2 * i + 1] = c;
    ys.data<float>()[i] = 2 * a - c + 1;
  }
  while (!training->should_stop()) {
    FERRY_RETURN_IF_ERROR(training->Run({{"x", xs}, {"y", ys}}, {}, {all->name()}));
  }
  return training->Close();
}

}  // namespace
}  // namespace ferry

int main(int argc, char** argv) {
  if (argc != 3) {
    fprintf(stderr, "usage: %s DIR STEPS\n", argv[0]);
    return 2;
  }
  const absl::Status status = ferry::Train(argv[1], atoll(argv[2]));
  if (!status.ok()) fprintf(stderr, "%s\n", status.ToString().c_str());
  return status.ok() ? 0 : 1;
}
