// Estimator: a model, told once, that trains, evaluates and predicts in a directory, as
// tf.estimator.Estimator does. A thin layer over training.h's loop.
//
//   Estimator estimator(model_fn, {.model_dir = "/tmp/model"});
//   FERRY_RETURN_IF_ERROR(estimator.Train(train_input, {.max_steps = 1000}));
//   FERRY_ASSIGN_OR_RETURN(auto metrics, estimator.Evaluate(test_input));   // metrics["accuracy"]
//   FERRY_RETURN_IF_ERROR(estimator.Predict(input, [](const auto& predictions) { … }));
#ifndef FERRY_SAVER_ESTIMATOR_H_
#define FERRY_SAVER_ESTIMATOR_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/graph/metrics.h"
#include "runtime/graph/scope.h"
#include "runtime/session/session.h"
#include "saver/hooks.h"
#include "saver/training.h"

namespace ferry {

enum class ModeKeys { kTrain, kEval, kPredict };

// Examples, along the first dimension of each tensor.
struct Batch {
  std::map<std::string, Tensor> features;
  Tensor labels;  // Not needed to predict.
};
// Gives the next batch; false at the end of the data.
using BatchSource = std::function<absl::StatusOr<bool>(Batch* batch)>;
// Begins the data; called once for each Train, Evaluate or Predict.
using InputFn = std::function<absl::StatusOr<BatchSource>()>;
// A batch over and over, or so many times.
InputFn RepeatBatch(Batch batch, int64_t times = -1);

struct EstimatorSpec {
  std::map<std::string, Output> predictions;      // For kPredict.
  Output loss;                                    // A scalar, for kTrain and kEval.
  Node* train_op = nullptr;                       // For kTrain.
  std::map<std::string, Metric> eval_metric_ops;  // For kEval, besides the mean loss.
  std::vector<std::shared_ptr<SessionRunHook>> training_hooks, evaluation_hooks;
  Scaffold scaffold;
};

// Builds the model. `features` are placeholders named after the features, of the first batch's
// dtypes and shapes with the first dimension open; `labels` is one named "labels", or empty. The
// graph has its global step already.
using ModelFn = std::function<absl::StatusOr<EstimatorSpec>(
    const Scope& root, const std::map<std::string, Output>& features, Output labels,
    ModeKeys mode)>;

struct RunConfig {
  std::string model_dir;
  Every save_checkpoints;  // Neither: 600 seconds.
  int64_t save_summary_steps = 100;
  int64_t log_step_count_steps = 100;
  int keep_checkpoint_max = 5;
  std::optional<int64_t> random_seed;
  SessionOptions session;
  std::function<void(const std::string&)> log;  // As MonitoredSessionOptions::log.
};

struct TrainSpec {
  // At most one. Neither: until the data ends.
  int64_t steps = 0;      // From where this call begins.
  int64_t max_steps = 0;  // Over all calls.
  std::vector<std::shared_ptr<SessionRunHook>> hooks;
  const std::atomic<bool>* stop = nullptr;  // As MonitoredSessionOptions::stop.
};

struct EvalSpec {
  int64_t steps = 0;  // Batches; 0: until the data ends.
  std::vector<std::shared_ptr<SessionRunHook>> hooks;
  std::string checkpoint_path;  // Empty: the latest.
  std::string name;             // Results are recorded in model_dir/eval, or eval_<name>.
};

// Thread-compatible.
class Estimator {
 public:
  Estimator(ModelFn model_fn, RunConfig config)
      : model_fn_(std::move(model_fn)), config_(std::move(config)) {}

  // Goes on from the latest checkpoint, and saves at the end. A NaN loss ends it with an error.
  absl::Status Train(const InputFn& input, const TrainSpec& spec = {});
  // The metrics over the data, "loss" (the mean over batches) and "global_step". NotFound "Could
  // not find trained model" without a checkpoint.
  absl::StatusOr<std::map<std::string, double>> Evaluate(const InputFn& input,
                                                         const EvalSpec& spec = {});
  // Calls `consume` with the predictions of each batch.
  absl::Status Predict(
      const InputFn& input,
      const std::function<absl::Status(const std::map<std::string, Tensor>&)>& consume,
      const std::string& checkpoint_path = "");

  // Writes the model for predicting, with the latest checkpoint's values, as a SavedModel into a
  // new directory of `export_dir_base`, named after the time in seconds since 1970; returns its
  // path. `example` tells the features' names, dtypes and shapes, the first dimension open. The
  // signature "serving_default" takes the features and gives the predictions.
  absl::StatusOr<std::string> ExportSavedModel(const std::string& export_dir_base,
                                               const Batch& example,
                                               const std::string& checkpoint_path = "");

  // Its prefix; "" if there is none.
  absl::StatusOr<std::string> LatestCheckpoint() const;
  const std::string& model_dir() const { return config_.model_dir; }

 private:
  struct Model;
  absl::Status Build(const InputFn& input, ModeKeys mode, Model* model) const;
  absl::Status RestoreInto(const std::string& checkpoint_path, Model* model) const;
  FileSystem* file_system() const;

  const ModelFn model_fn_;
  const RunConfig config_;
};

}  // namespace ferry

#endif  // FERRY_SAVER_ESTIMATOR_H_
