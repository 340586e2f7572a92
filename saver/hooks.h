// The hooks that trainings are made of (see training.h), as tf.compat.v1.train has them.
#ifndef FERRY_SAVER_HOOKS_H_
#define FERRY_SAVER_HOOKS_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/session/session.h"
#include "saver/saver.h"
#include "saver/training.h"

namespace ferry {

// How often something is done: every so many steps, or seconds, or both; 0 is not at all. Always at
// the first step.
struct Every {
  int64_t steps = 0;
  double secs = 0;
};
class StepTimer {
 public:
  explicit StepTimer(Every every) : every_(every) {}
  // Whether it is time at this step. Never twice at one.
  bool Due(int64_t step) const;
  // It was done now. The seconds and steps since the last time; none at the first.
  std::optional<std::pair<double, int64_t>> Done(int64_t step);
  void Reset() { last_step_.reset(); }
  std::optional<int64_t> last_step() const { return last_step_; }

 private:
  const Every every_;
  std::optional<int64_t> last_step_;
  double last_time_ = 0;
};

// Ends the training at a step.
class StopAtStepHook : public SessionRunHook {
 public:
  // The last step of the model's life, over all starts. A model that is there already does no step.
  static StopAtStepHook LastStep(int64_t last_step) { return StopAtStepHook(last_step, -1); }
  // So many from where this start begins.
  static StopAtStepHook NumSteps(int64_t num_steps) { return StopAtStepHook(-1, num_steps); }

  absl::Status AfterCreateSession(MonitoredSession* m) override;
  absl::Status AfterRun(MonitoredSession* m, absl::Span<const Tensor> results) override;

 private:
  StopAtStepHook(int64_t last_step, int64_t num_steps)
      : last_step_(last_step), num_steps_(num_steps) {}
  int64_t last_step_;  // Negative until it is known.
  const int64_t num_steps_;
};

// Ends the training when `tensor` is NaN: with InvalidArgument "NaN loss during training.", or,
// when `fail` is off, as if it were asked to stop. A state after that isn't saved any more.
class NanTensorHook : public SessionRunHook {
 public:
  explicit NanTensorHook(std::string tensor, bool fail = true)
      : tensor_(std::move(tensor)), fail_(fail) {}
  absl::StatusOr<RunArgs> BeforeRun(MonitoredSession*) override;
  absl::Status AfterRun(MonitoredSession* m, absl::Span<const Tensor> results) override;

 private:
  const std::string tensor_;
  const bool fail_;
};

// What is told of CheckpointSaverHook's saves. An error ends the training.
class CheckpointSaverListener {
 public:
  virtual ~CheckpointSaverListener() = default;
  virtual absl::Status Begin() { return absl::OkStatus(); }
  virtual absl::Status BeforeSave(Session*, int64_t step) { return (void)step, absl::OkStatus(); }
  // The checkpoint of `step` is there, durably; training may be at a later step by now. True asks
  // to stop.
  virtual absl::StatusOr<bool> AfterSave(Session*, int64_t step) { return (void)step, false; }
  virtual absl::Status End(Session*, int64_t step) { return (void)step, absl::OkStatus(); }
};

struct CheckpointSaverOptions {
  std::string dir;
  // Steps count from 0, so that a resumed run saves at the same ones. Without either: 600 seconds.
  Every every;
  std::string basename = "model.ckpt";
  std::vector<std::shared_ptr<CheckpointSaverListener>> listeners;
  // A file graph.pbtxt, the graph in the event file of a new training, and a .meta beside each
  // checkpoint. With it off, event files aren't touched either.
  bool save_graph_def = true;
  // Training goes on while a save writes. Off: each Run waits for the save that follows it.
  bool in_background = true;
  // When a save is due while another is under way. The last one always waits.
  WhenBusy when_busy = WhenBusy::kWait;
  // Otherwise a variable with a NaN is an error, and the checkpoint before stays the latest.
  bool allow_nan = false;
};

// Saves with the session's saver: when a new training begins, every so often, and at the end.
// Errors of a background save are returned by the next Run.
class CheckpointSaverHook : public SessionRunHook {
 public:
  explicit CheckpointSaverHook(CheckpointSaverOptions options);
  absl::Status Begin(MonitoredSession* m) override;
  absl::Status AfterCreateSession(MonitoredSession* m) override;
  absl::Status AfterRun(MonitoredSession* m, absl::Span<const Tensor> results) override;
  absl::Status End(MonitoredSession* m) override;

  int64_t saves() const { return saves_; }            // Started.
  int64_t skipped_saves() const { return skipped_; }  // Due while another ran.

 private:
  absl::Status Save(MonitoredSession* m, int64_t step, bool last);
  // Tells listeners of a background save that ended; with `wait`, of the one under way.
  absl::Status Finish(MonitoredSession* m, bool wait);

  const CheckpointSaverOptions options_;
  double last_time_ = 0;
  int64_t last_due_ = -1;    // The step at which a save was last due.
  int64_t saved_step_ = -1;  // Of the last one that was started.
  bool pending_ = false;     // That one isn't finished.
  int64_t saves_ = 0, skipped_ = 0;
};

// Records summary_op (the scaffold's, when it is empty) at the first step and every so often.
class SummarySaverHook : public SessionRunHook {
 public:
  SummarySaverHook(std::string dir, Every every, std::string summary_op = "")
      : dir_(std::move(dir)), summary_op_(std::move(summary_op)), timer_(every) {}
  absl::Status Begin(MonitoredSession* m) override;
  absl::StatusOr<RunArgs> BeforeRun(MonitoredSession* m) override;
  absl::Status AfterRun(MonitoredSession* m, absl::Span<const Tensor> results) override;
  absl::Status End(MonitoredSession* m) override;

 private:
  const std::string dir_;
  std::string summary_op_;
  StepTimer timer_;
  int64_t next_step_ = -1;
  bool asked_ = false;
};

// Logs, and records as "global_step/sec", how many steps a second were done.
class StepCounterHook : public SessionRunHook {
 public:
  // `dir` may be empty: only logs.
  explicit StepCounterHook(std::string dir = "", Every every = {100, 0})
      : dir_(std::move(dir)), timer_(every) {}
  absl::Status AfterCreateSession(MonitoredSession* m) override;
  absl::Status AfterRun(MonitoredSession* m, absl::Span<const Tensor> results) override;

 private:
  const std::string dir_;
  StepTimer timer_;
};

// Logs tensors, "loss = 0.5, accuracy = 0.9 (1.234 sec)", at the first Run and every so many Runs
// or seconds (not both), and with `at_end` also at the end.
class LoggingTensorHook : public SessionRunHook {
 public:
  using Formatter = std::function<std::string(const std::vector<std::pair<std::string, Tensor>>&)>;
  // Tensors by the tag under which they are logged.
  LoggingTensorHook(std::vector<std::pair<std::string, std::string>> tensors, Every every,
                    bool at_end = false, Formatter formatter = nullptr)
      : tensors_(std::move(tensors)),
        every_(every),
        timer_(every),
        at_end_(at_end),
        formatter_(std::move(formatter)) {}
  absl::Status Begin(MonitoredSession* m) override;
  absl::StatusOr<RunArgs> BeforeRun(MonitoredSession* m) override;
  absl::Status AfterRun(MonitoredSession* m, absl::Span<const Tensor> results) override;
  absl::Status End(MonitoredSession* m) override;

 private:
  RunArgs Args() const;
  void LogValues(MonitoredSession* m, absl::Span<const Tensor> values);

  const std::vector<std::pair<std::string, std::string>> tensors_;
  const Every every_;
  StepTimer timer_;
  const bool at_end_;
  const Formatter formatter_;
  int64_t runs_ = 0;
  bool asked_ = false;
};

// Fetches tensors when the training ended.
class FinalOpsHook : public SessionRunHook {
 public:
  explicit FinalOpsHook(RunArgs final_ops) : final_ops_(std::move(final_ops)) {}
  absl::Status End(MonitoredSession* m) override;
  const std::vector<Tensor>& values() const { return values_; }

 private:
  const RunArgs final_ops_;
  std::vector<Tensor> values_;
};

// Feeds what a function gives for each Run.
class FeedFnHook : public SessionRunHook {
 public:
  using FeedFn = std::function<absl::StatusOr<std::vector<std::pair<std::string, Tensor>>>()>;
  explicit FeedFnHook(FeedFn feed_fn) : feed_fn_(std::move(feed_fn)) {}
  absl::StatusOr<RunArgs> BeforeRun(MonitoredSession* m) override;

 private:
  const FeedFn feed_fn_;
};

// The hooks that tf.compat.v1.train.MonitoredTrainingSession adds to the user's, which come first.
struct TrainingDefaults {
  // Neither: 600 seconds. Negative: no checkpoints are saved.
  Every save_checkpoint;
  // Neither: 100 steps. Negative: none.
  Every save_summaries;
  int64_t log_step_count_steps = 100;  // 0: no step rate.
  std::string summary_dir;             // Empty: options.checkpoint_dir.
};
absl::StatusOr<std::unique_ptr<MonitoredSession>> MonitoredTrainingSession(
    Graph* graph, MonitoredSessionOptions options, const TrainingDefaults& defaults = {});

}  // namespace ferry

#endif  // FERRY_SAVER_HOOKS_H_
