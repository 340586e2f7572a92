// `ferry train`: see train.h.
#include "tools/train.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <limits>
#include <numeric>
#include <set>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "fmt/format.h"
#include "runtime/base/status.h"
#include "runtime/device/gpu_device.h"
#include "runtime/graph/ops.h"
#include "runtime/graph/optimizer.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "saver/atomic_file.h"
#include "saver/checkpoint_reader.h"
#include "saver/checkpoint_state.h"
#include "saver/event_writer.h"
#include "saver/hooks.h"
#include "saver/saver.h"
#include "saver/training.h"
#include "tools/chart.h"

namespace ferry {
namespace {

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

// SplitMix64 (Steele, Lea and Flood, 2014): a small generator whose numbers are the same on every
// machine, which the standard library's distributions don't promise.
uint64_t Mix(uint64_t* state) {
  uint64_t z = (*state += 0x9e3779b97f4a7c15u);
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return z ^ (z >> 31);
}

absl::Status CheckOptions(const TrainOptions& o) {
  auto positive = [](const char* what, int64_t v) -> absl::Status {
    if (v >= 1) return absl::OkStatus();
    return InvalidArgument(what, " is ", v, "; it must be at least 1");
  };
  if (o.model_dir.empty()) return InvalidArgument("no model directory: pass --model_dir DIR");
  FERRY_RETURN_IF_ERROR(positive("--steps", o.steps));
  FERRY_RETURN_IF_ERROR(positive("--batch_size", o.batch_size));
  FERRY_RETURN_IF_ERROR(positive("--save_checkpoints_steps", o.save_checkpoints_steps));
  FERRY_RETURN_IF_ERROR(positive("--summary_steps", o.summary_steps));
  if (o.steps > std::numeric_limits<int64_t>::max() / o.batch_size - 1) {
    return InvalidArgument("--steps ", o.steps, " of --batch_size ", o.batch_size,
                           " are more examples than can be counted");
  }
  for (int64_t h : o.hidden) FERRY_RETURN_IF_ERROR(positive("a size in --hidden", h));
  if (o.keep_checkpoint_max < 0) return InvalidArgument("--keep_checkpoint_max is negative");
  if (!(o.learning_rate >= 0) || !std::isfinite(o.learning_rate)) {
    return InvalidArgument("--learning_rate must be a positive number");
  }
  if (o.optimizer != "adam" && o.optimizer != "sgd" && o.optimizer != "momentum") {
    return InvalidArgument("--optimizer is '", o.optimizer, "'; there are adam, sgd and momentum");
  }
  return absl::OkStatus();
}

// Writes "step 1200/2000  loss 0.0123  …" over and over in one line.
class Progress {
 public:
  explicit Progress(bool shown) : shown_(shown) {}
  ~Progress() {
    if (shown_ && drawn_) std::fputc('\n', stderr);
  }
  void Update(int64_t step, int64_t steps, double loss, double rate) {
    const double now = Seconds();
    if (!shown_ || (now - last_ < 0.1 && step != steps)) return;
    last_ = now;
    drawn_ = true;
    const int filled = static_cast<int>(30 * step / std::max<int64_t>(steps, 1));
    const std::string line =
        fmt::format("\r[{:-<30}] step {}/{}  loss {:.4f}  {:.0f} steps/s ",
                    std::string(static_cast<size_t>(filled), '#'), step, steps, loss, rate);
    std::fputs(line.c_str(), stderr);
    std::fflush(stderr);
  }

 private:
  const bool shown_;
  bool drawn_ = false;
  double last_ = 0;
};

// The curve over all starts of this model directory, from its event files.
absl::Status DrawChart(FileSystem* fs, const TrainOptions& options, const std::string& title,
                       const std::string& path) {
  FERRY_ASSIGN_OR_RETURN(std::vector<std::string> files, ListEventFiles(fs, options.model_dir));
  std::vector<ChartPoint> loss, accuracy, test;
  Chart chart;
  for (const std::string& file : files) {
    absl::StatusOr<EventFileContents> contents = ReadEvents(fs, file);
    if (!contents.ok()) continue;  // A damaged one leaves a gap in a picture, no more.
    bool first = true;
    for (const proto::Event& e : contents->events) {
      const double x = static_cast<double>(e.step());
      for (const proto::Summary::Value& v : e.summary().value()) {
        std::vector<ChartPoint>* points = v.tag() == "loss"            ? &loss
                                          : v.tag() == "accuracy"      ? &accuracy
                                          : v.tag() == "test_accuracy" ? &test
                                                                       : nullptr;
        if (!points) continue;
        if (first) {
          // What an earlier start recorded past its last checkpoint was done again here.
          first = false;
          if (!loss.empty()) chart.marks.push_back(x);
          for (auto* curve : {&loss, &accuracy, &test}) {
            while (!curve->empty() && curve->back().x >= x) curve->pop_back();
          }
        }
        points->push_back({x, v.simple_value()});
      }
    }
  }
  chart.title = title;
  chart.marks_label = "resumed";
  chart.panels.push_back({"loss", {{"training batch", loss, /*smooth=*/true}}, /*log_y=*/true});
  chart.panels.push_back(
      {"accuracy",
       {{"training batch", accuracy, /*smooth=*/true}, {"test set", test, false}},
       false});
  return ReplaceFile(fs, path, ChartToSvg(chart));
}

// Predictions over a whole data set, in one Run.
absl::StatusOr<double> Accuracy(Session* session, const Examples& examples, int64_t features) {
  FERRY_ASSIGN_OR_RETURN(Tensor x, Tensor::Allocate(DType::kFloat, {examples.size(), features}));
  std::copy(examples.features.begin(), examples.features.end(), x.data<float>());
  std::vector<Tensor> out;
  FERRY_RETURN_IF_ERROR(session->Run({{"x", x}, {"y", Tensor::Of<int64_t>(examples.labels)}},
                                     {"accuracy"}, {}, &out));
  return out[0].scalar<float>();
}

// Restoring reads what the model has; what only the checkpoint has would be missing from the next
// one, and the work in it lost.
absl::Status CheckNothingIsDropped(FileSystem* fs, const Graph& graph, const std::string& prefix) {
  FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> variables, GlobalVariables(graph));
  std::set<std::string> names;
  for (const VariableHandle& v : variables) names.insert(v.name());
  FERRY_ASSIGN_OR_RETURN(const auto reader, CheckpointReader::Open(fs, prefix));
  std::vector<std::string> dropped;
  for (const CheckpointReader::TensorInfo& t : reader->Tensors()) {
    if (names.count(t.name) == 0) dropped.push_back(absl::StrCat("'", t.name, "'"));
  }
  if (dropped.empty()) return absl::OkStatus();
  constexpr size_t kShown = 4;
  const size_t more = dropped.size() - std::min(dropped.size(), kShown);
  dropped.resize(dropped.size() - more);
  return InvalidArgument("resuming from ", prefix, ": it holds ", absl::StrJoin(dropped, ", "),
                         more > 0 ? absl::StrCat(" and ", more, " more") : "",
                         ", which this model lacks (of another --optimizer or --hidden: pass the "
                         "same again, or take another --model_dir)");
}

// Records loss and accuracy, shows progress, and stops at a loss that is no number.
class ProgressHook : public SessionRunHook {
 public:
  ProgressHook(const TrainOptions& options, const Examples& test, int64_t features,
               TrainReport* report)
      : options_(options),
        test_(test),
        features_(features),
        // The test set in between, about 40 times in a whole run.
        evaluation_steps_(std::max<int64_t>(options.summary_steps, options.steps / 40)),
        report_(report),
        progress_(options.show_progress) {}

  absl::Status AfterCreateSession(MonitoredSession* m) override {
    FERRY_ASSIGN_OR_RETURN(report_->first_step, m->GlobalStep());
    report_->last_step = report_->first_step;
    report_->checkpoint = m->restored_from();
    if (!report_->checkpoint.empty()) {
      FERRY_RETURN_IF_ERROR(
          CheckNothingIsDropped(m->file_system(), *m->graph(), report_->checkpoint));
    }
    const GpuDevice* gpu = m->session()->gpu();
    report_->device = gpu ? absl::StrCat(gpu->name(), " (", gpu->description(), ")")
                          : DeviceName(DeviceType::kCpu, 0);
    if (!report_->checkpoint.empty()) {
      m->Log(absl::StrCat("resumed from ", report_->checkpoint, " at step ", report_->first_step));
    }
    FERRY_ASSIGN_OR_RETURN(FileWriter * events, m->Writer(options_.model_dir));
    report_->event_file = events->path();
    start_ = Seconds();
    return absl::OkStatus();
  }

  absl::StatusOr<RunArgs> BeforeRun(MonitoredSession*) override {
    RunArgs args;
    args.fetches = {"loss", "accuracy"};
    return args;
  }

  absl::Status AfterRun(MonitoredSession* m, absl::Span<const Tensor> results) override {
    FERRY_ASSIGN_OR_RETURN(const int64_t step, m->GlobalStep());
    report_->last_step = step;
    const float loss = results[0].scalar<float>();
    report_->loss = loss;
    if (!std::isfinite(loss)) {
      FERRY_ASSIGN_OR_RETURN(Saver * saver, m->saver());
      FERRY_RETURN_IF_ERROR(saver->WaitForPending());
      return FailedPrecondition("the loss is ", loss, " at step ", step,
                                ": nothing more was saved. The last checkpoint in ",
                                options_.model_dir, " is sound; try a smaller --learning_rate");
    }
    const bool last = step >= options_.steps;
    if (step % options_.summary_steps == 0 || last) {
      FERRY_ASSIGN_OR_RETURN(FileWriter * events, m->Writer(options_.model_dir));
      FERRY_RETURN_IF_ERROR(events->AddScalar("loss", loss, step));
      FERRY_RETURN_IF_ERROR(events->AddScalar("accuracy", results[1].scalar<float>(), step));
      progress_.Update(step, options_.steps, loss,
                       static_cast<double>(step - report_->first_step) / (Seconds() - start_));
    }
    if (step % evaluation_steps_ == 0 && !last) {
      FERRY_ASSIGN_OR_RETURN(const double accuracy, Accuracy(m->session(), test_, features_));
      FERRY_ASSIGN_OR_RETURN(FileWriter * events, m->Writer(options_.model_dir));
      FERRY_RETURN_IF_ERROR(events->AddScalar("test_accuracy", static_cast<float>(accuracy), step));
    }
    return absl::OkStatus();
  }

  double start() const { return start_; }

 private:
  const TrainOptions& options_;
  const Examples& test_;
  const int64_t features_, evaluation_steps_;
  TrainReport* const report_;
  Progress progress_;
  double start_ = 0;
};

// What is said of the model when the last checkpoint is there.
class ReportHook : public SessionRunHook {
 public:
  ReportHook(const TrainOptions& options, const Dataset& data, const ProgressHook* progress,
             TrainReport* report)
      : options_(options), data_(data), progress_(progress), report_(report) {}

  absl::Status End(MonitoredSession* m) override {
    TrainReport& r = *report_;
    r.steps_per_second = static_cast<double>(r.last_step - r.first_step) /
                         std::max(Seconds() - progress_->start(), 1e-9);
    FERRY_ASSIGN_OR_RETURN(Saver * saver, m->saver());
    if (!saver->last_checkpoints().empty()) r.checkpoint = saver->last_checkpoints().back();
    FERRY_ASSIGN_OR_RETURN(r.train_accuracy,
                           Accuracy(m->session(), data_.train, data_.num_features));
    FERRY_ASSIGN_OR_RETURN(r.test_accuracy, Accuracy(m->session(), data_.test, data_.num_features));
    FERRY_ASSIGN_OR_RETURN(FileWriter * events, m->Writer(options_.model_dir));
    return events->AddScalar("test_accuracy", static_cast<float>(r.test_accuracy), r.last_step);
  }

 private:
  const TrainOptions& options_;
  const Dataset& data_;
  const ProgressHook* const progress_;
  TrainReport* const report_;
};

// A checkpoint that is there must be used: starting over, or from an older one, would throw work
// away unless the user wants that.
absl::Status RestoreError(const TrainOptions& options, const absl::Status& error,
                          const std::string& prefix) {
  const std::string state = JoinPath(options.model_dir, kStateFileName);
  if (prefix.empty()) {
    return Annotate(
        error, absl::StrCat("looking for a checkpoint to resume from (without the file '", state,
                            "' training resumes from the last checkpoint that is there)"));
  }
  return Annotate(error, absl::StrCat("resuming from ", prefix,
                                      " (of another model: take another --model_dir; damaged: "
                                      "remove its files and '",
                                      state, "' to resume from the one before)"));
}

}  // namespace

const std::vector<int64_t>& BatchOrder::Rows(int64_t step) {
  batch_.clear();
  for (int64_t i = 0; i < batch_size_; ++i) {
    const int64_t at = step * batch_size_ + i;
    if (at / rows_ != epoch_) {
      epoch_ = at / rows_;
      permutation_.resize(static_cast<size_t>(rows_));
      std::iota(permutation_.begin(), permutation_.end(), 0);
      uint64_t state =
          static_cast<uint64_t>(seed_) * 0x2545f4914f6cdd1du + static_cast<uint64_t>(epoch_);
      for (size_t k = permutation_.size(); k > 1; --k) {
        std::swap(permutation_[k - 1], permutation_[Mix(&state) % k]);
      }
    }
    batch_.push_back(permutation_[static_cast<size_t>(at % rows_)]);
  }
  return batch_;
}

absl::Status BuildClassifier(const TrainOptions& options, int64_t features, int64_t classes,
                             Graph* graph) {
  graph->set_seed(options.seed);
  const Scope root(graph);
  const Output x = ops::Placeholder(root.WithOpName("x"), DType::kFloat, {-1, features});
  const Output y = ops::Placeholder(root.WithOpName("y"), DType::kInt64, {-1});
  auto layer = [&](const std::string& name, Output in, int64_t from, int64_t to) {
    const Scope s = root.NewSubScope(name);
    // Keeps the variance of the activations (He et al., "Delving deep into rectifiers", 2015).
    VariableOptions weights;
    weights.initializer = TruncatedNormalInitializer(0, std::sqrt(2.0 / static_cast<double>(from)));
    VariableOptions biases;
    biases.initializer = ZerosInitializer();
    const VariableHandle w = GetVariable(s, "weights", {from, to}, DType::kFloat, weights);
    const VariableHandle b = GetVariable(s, "biases", {to}, DType::kFloat, biases);
    return ops::BiasAdd(s, ops::MatMul(s, in, w.read), b.read);
  };
  Output h = x;
  int64_t width = features;
  for (size_t i = 0; i < options.hidden.size(); ++i) {
    h = ops::Relu(root, layer(fmt::format("hidden{}", i + 1), h, width, options.hidden[i]));
    width = options.hidden[i];
  }
  const Output logits =
      ops::Identity(root.WithOpName("scores"), layer("logits", h, width, classes));
  const Output loss = ops::Identity(
      root.WithOpName("loss"),
      ops::ReduceMean(root, ops::SparseSoftmaxCrossEntropyWithLogits(root, logits, y).loss));
  const Output correct =
      ops::Equal(root, ops::ArgMax(root, logits, ops::Const<int32_t>(root, 1)), y);
  ops::Identity(root.WithOpName("accuracy"),
                ops::ReduceMean(root, ops::Cast(root, correct, DType::kFloat)));

  MinimizeOptions minimize;
  minimize.global_step = GetOrCreateGlobalStep(root);
  minimize.name = "train_op";
  const double rate = options.learning_rate;
  if (options.optimizer == "adam") {
    AdamOptimizer(rate > 0 ? rate : 1e-3).Minimize(root, loss, minimize);
  } else if (options.optimizer == "momentum") {
    MomentumOptimizer(rate > 0 ? rate : 1e-2, 0.9).Minimize(root, loss, minimize);
  } else {
    GradientDescentOptimizer(rate > 0 ? rate : 1e-1).Minimize(root, loss, minimize);
  }
  GlobalVariablesInitializer(root);
  return root.status();
}

absl::StatusOr<TrainReport> Train(FileSystem* fs, const TrainOptions& options) {
  FERRY_RETURN_IF_ERROR(CheckOptions(options));
  absl::StatusOr<Dataset> data =
      options.data.empty() ? BuiltInDigits() : LoadDataset(fs, options.data);
  if (!data.ok()) return data.status();
  Graph graph;
  FERRY_RETURN_IF_ERROR(BuildClassifier(options, data->num_features, data->num_classes, &graph));

  SaverOptions saver_options;
  saver_options.max_to_keep = static_cast<int>(
      std::min<int64_t>(options.keep_checkpoint_max, std::numeric_limits<int>::max()));
  // A copy of the directory must not go on to read, and to evict from, the one it was copied from.
  saver_options.save_relative_paths = true;
  MonitoredSessionOptions session;
  FERRY_ASSIGN_OR_RETURN(session.scaffold.saver, Saver::Create(&graph, saver_options));
  session.scaffold.init_op = "init";
  session.session.threads = options.threads;
  session.session.file_system = fs;
  session.session.device = options.device;
  session.checkpoint_dir = options.model_dir;
  session.stop = options.stop;
  session.log = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  session.on_restore_error = [&](const absl::Status& error, const std::string& prefix) {
    return RestoreError(options, error, prefix);
  };

  // Before anything is written.
  FERRY_ASSIGN_OR_RETURN(Tensor x,
                         Tensor::Allocate(DType::kFloat, {options.batch_size, data->num_features}));
  FERRY_ASSIGN_OR_RETURN(Tensor y, Tensor::Allocate(DType::kInt64, {options.batch_size}));
  TrainReport report;
  CheckpointSaverOptions saving;
  saving.dir = options.model_dir;
  saving.every.steps = options.save_checkpoints_steps;
  saving.when_busy = options.skip_busy_saves ? WhenBusy::kSkip : WhenBusy::kWait;
  const auto saves = std::make_shared<CheckpointSaverHook>(saving);
  const auto progress =
      std::make_shared<ProgressHook>(options, data->test, data->num_features, &report);
  session.hooks = {progress, saves,
                   std::make_shared<StopAtStepHook>(StopAtStepHook::LastStep(options.steps)),
                   std::make_shared<ReportHook>(options, *data, progress.get(), &report)};
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<MonitoredSession> training,
                         MonitoredSession::Create(&graph, session));
  report.graph_file = JoinPath(options.model_dir, "graph.pbtxt");

  BatchOrder order(data->train.size(), options.batch_size, options.seed);
  while (!training->should_stop()) {
    const std::vector<int64_t>& rows = order.Rows(report.last_step);
    const size_t d = static_cast<size_t>(data->num_features);
    for (size_t i = 0; i < rows.size(); ++i) {
      const size_t row = static_cast<size_t>(rows[i]);
      std::copy_n(data->train.features.data() + row * d, d, x.data<float>() + i * d);
      y.data<int64_t>()[i] = data->train.labels[row];
    }
    FERRY_RETURN_IF_ERROR(training->Run({{"x", x}, {"y", y}}, {}, {"train_op"}));
  }
  report.stopped = report.last_step < options.steps;
  FERRY_RETURN_IF_ERROR(training->Close());
  report.saves = saves->saves();
  report.skipped_saves = saves->skipped_saves();
  report.chart_file = JoinPath(options.model_dir, "training.svg");
  FERRY_RETURN_IF_ERROR(
      DrawChart(fs, options, absl::StrCat("ferry train: ", data->name), report.chart_file));
  return report;
}

}  // namespace ferry
