// `ferry train`: trains a multilayer perceptron on digits, saves in the background, and goes on
// from the newest checkpoint when it is started again.
#ifndef FERRY_TOOLS_TRAIN_H_
#define FERRY_TOOLS_TRAIN_H_

#include <atomic>
#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/file_system.h"
#include "runtime/graph/graph.h"
#include "tools/dataset.h"

namespace ferry {

struct TrainOptions {
  std::string model_dir;
  int64_t steps = 2000;  // Up to this global step, over all starts.
  int64_t batch_size = 32;
  std::vector<int64_t> hidden = {128, 64};
  std::string optimizer = "adam";  // adam, sgd or momentum.
  double learning_rate = 0;        // 0: the optimizer's usual one.
  int64_t save_checkpoints_steps = 200;
  int64_t keep_checkpoint_max = 5;
  int64_t summary_steps = 50;
  // When a save is due while another is under way: wait for it, or skip this one.
  bool skip_busy_saves = false;
  std::string data;  // Empty: the built-in digits.
  int64_t seed = 1;  // Of the initial values and of the order of the data.
  int threads = 0;
  std::string device = "auto";  // As SessionOptions::device.
  bool show_progress = false;  // A bar on standard error.
  // Set from outside (a signal handler): save, and end.
  const std::atomic<bool>* stop = nullptr;
};

struct TrainReport {
  int64_t first_step = 0;  // Where this start began: 0, or the checkpoint's step.
  int64_t last_step = 0;
  bool stopped = false;    // By TrainOptions::stop.
  double loss = 0;         // Of the last step.
  double train_accuracy = 0, test_accuracy = 0;
  double steps_per_second = 0;  // Of this start, saves included.
  int64_t saves = 0, skipped_saves = 0;
  std::string device;          // What it ran on.
  std::string checkpoint;      // The last one's prefix.
  std::string event_file, graph_file, chart_file;
};

// InvalidArgument for options out of range, Unavailable/NotFound and so on for files; the message
// says what to do.
absl::StatusOr<TrainReport> Train(FileSystem* fs, const TrainOptions& options);

// The model that Train builds: placeholders "x" [?, features] and "y" [?], "loss", "accuracy" and
// "train_op" in `graph`.
absl::Status BuildClassifier(const TrainOptions& options, int64_t features, int64_t classes,
                             Graph* graph);

// The rows of a batch: every epoch is a permutation of its own, and the batch of a step is a
// function of the seed and the step alone, so a resumed run sees the data that it would have seen.
class BatchOrder {
 public:
  BatchOrder(int64_t rows, int64_t batch_size, int64_t seed)
      : rows_(rows), batch_size_(batch_size), seed_(seed) {}
  // The rows of step `step` (the first is 0). The span is valid until the next call.
  const std::vector<int64_t>& Rows(int64_t step);

 private:
  const int64_t rows_, batch_size_, seed_;
  int64_t epoch_ = -1;
  std::vector<int64_t> permutation_, batch_;
};

}  // namespace ferry

#endif  // FERRY_TOOLS_TRAIN_H_
