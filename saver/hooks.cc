// The hooks of training.h's loop.
#include "saver/hooks.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "google/protobuf/text_format.h"
#include "proto/graph.pb.h"
#include "runtime/base/status.h"
#include "runtime/graph/summary.h"
#include "saver/atomic_file.h"

namespace ferry {
namespace {

constexpr double kDefaultSaveSecs = 600;
constexpr int64_t kDefaultSummarySteps = 100;

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

bool Set(const Every& e) { return e.steps != 0 || e.secs != 0; }

// The shortest digits that are this float.
std::string FloatText(float x) {
  for (int digits = 6; digits < 9; ++digits) {
    std::string text = absl::StrFormat("%.*g", digits, x);
    float back = 0;
    if (absl::SimpleAtof(text, &back) && (back == x || std::isnan(x))) return text;
  }
  return absl::StrFormat("%.9g", x);
}

std::string ElementText(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::kFloat:
      return FloatText(t.data<float>()[i]);
    case DType::kDouble:
      return absl::StrFormat("%.*g", 15, t.data<double>()[i]);
    case DType::kHalf:
      return FloatText(HalfToFloat(static_cast<const Half*>(t.raw())[i]));
    case DType::kBfloat16:
      return FloatText(Bfloat16ToFloat(static_cast<const Bfloat16*>(t.raw())[i]));
    case DType::kInt32:
      return absl::StrCat(t.data<int32_t>()[i]);
    case DType::kInt64:
      return absl::StrCat(t.data<int64_t>()[i]);
    case DType::kBool:
      return t.data<bool>()[i] ? "True" : "False";
    case DType::kString:
      return t.data<std::string>()[i];
    default:
      return "?";
  }
}

// A scalar as it is; else "[1 2 3]", with dots for what is many.
std::string TensorText(const Tensor& t) {
  if (t.rank() == 0) return ElementText(t, 0);
  constexpr int64_t kMost = 16;
  std::string text = "[";
  for (int64_t i = 0; i < t.num_elements() && i < kMost; ++i) {
    absl::StrAppend(&text, i ? " " : "", ElementText(t, i));
  }
  absl::StrAppend(&text, t.num_elements() > kMost ? " ...]" : "]");
  if (t.rank() > 1) absl::StrAppend(&text, " of shape ", t.shape().DebugString());
  return text;
}

bool IsNan(const Tensor& t) {
  for (int64_t i = 0; i < t.num_elements(); ++i) {
    switch (t.dtype()) {
      case DType::kFloat:
        if (std::isnan(t.data<float>()[i])) return true;
        break;
      case DType::kDouble:
        if (std::isnan(t.data<double>()[i])) return true;
        break;
      case DType::kHalf:
        if (std::isnan(HalfToFloat(static_cast<const Half*>(t.raw())[i]))) return true;
        break;
      case DType::kBfloat16:
        if (std::isnan(Bfloat16ToFloat(static_cast<const Bfloat16*>(t.raw())[i]))) return true;
        break;
      default:
        return false;
    }
  }
  return false;
}

}  // namespace

bool StepTimer::Due(int64_t step) const {
  if (!last_step_) return true;
  if (*last_step_ == step) return false;
  if (every_.secs > 0 && Seconds() >= last_time_ + every_.secs) return true;
  return every_.steps > 0 && step - *last_step_ >= every_.steps;
}

std::optional<std::pair<double, int64_t>> StepTimer::Done(int64_t step) {
  const double now = Seconds();
  std::optional<std::pair<double, int64_t>> since;
  if (last_step_) since = {now - last_time_, step - *last_step_};
  last_time_ = now;
  last_step_ = step;
  return since;
}

// ---- StopAtStepHook ----
absl::Status StopAtStepHook::AfterCreateSession(MonitoredSession* m) {
  FERRY_ASSIGN_OR_RETURN(const int64_t step, m->GlobalStep());
  if (last_step_ < 0) {
    constexpr int64_t kMost = std::numeric_limits<int64_t>::max();
    last_step_ = num_steps_ > kMost - step ? kMost : step + num_steps_;
  }
  if (step >= last_step_) m->RequestStop();
  return absl::OkStatus();
}

absl::Status StopAtStepHook::AfterRun(MonitoredSession* m, absl::Span<const Tensor>) {
  FERRY_ASSIGN_OR_RETURN(const int64_t step, m->GlobalStep());
  if (step >= last_step_) m->RequestStop();
  return absl::OkStatus();
}

// ---- NanTensorHook ----
absl::StatusOr<RunArgs> NanTensorHook::BeforeRun(MonitoredSession*) {
  RunArgs args;
  args.fetches = {tensor_};
  return args;
}

absl::Status NanTensorHook::AfterRun(MonitoredSession* m, absl::Span<const Tensor> results) {
  if (!IsNan(results[0])) return absl::OkStatus();
  m->RequestStopDiverged();
  const absl::StatusOr<int64_t> step = m->GlobalStep();
  const std::string where =
      absl::StrCat("'", tensor_, "'", step.ok() ? absl::StrCat(" at step ", *step) : "");
  if (fail_)
    return InvalidArgument("NaN loss during training. Model diverged with ", where, " = NaN");
  m->Log(absl::StrCat("Model diverged with loss = NaN: ", where, ". Training stops"));
  return absl::OkStatus();
}

// ---- CheckpointSaverHook ----
CheckpointSaverHook::CheckpointSaverHook(CheckpointSaverOptions options)
    : options_([&] {
        if (!Set(options.every)) options.every.secs = kDefaultSaveSecs;
        return std::move(options);
      }()) {}

absl::Status CheckpointSaverHook::Begin(MonitoredSession*) {
  if (options_.dir.empty()) return InvalidArgument("CheckpointSaverHook without a directory");
  for (const auto& l : options_.listeners) {
    if (l == nullptr) return InvalidArgument("a listener of CheckpointSaverHook is null");
    FERRY_RETURN_IF_ERROR(l->Begin());
  }
  return absl::OkStatus();
}

absl::Status CheckpointSaverHook::AfterCreateSession(MonitoredSession* m) {
  pending_ = false;
  FERRY_ASSIGN_OR_RETURN(const int64_t step, m->GlobalStep());
  if (options_.save_graph_def) {
    FERRY_ASSIGN_OR_RETURN(FileWriter * events, m->Writer(options_.dir));
    proto::GraphDef def;
    m->graph()->ToGraphDef(&def);
    if (m->restored_from().empty()) FERRY_RETURN_IF_ERROR(events->AddGraph(*m->graph()));
    std::string text;
    google::protobuf::TextFormat::PrintToString(def, &text);
    FERRY_RETURN_IF_ERROR(
        ReplaceFile(m->file_system(), JoinPath(options_.dir, "graph.pbtxt"), text));
  }
  last_time_ = Seconds();
  last_due_ = step;
  // What was restored is there already; but the state file is to name a checkpoint that is good.
  if (!m->restored_from().empty() && !m->fell_back() &&
      DirName(m->restored_from()) == DirName(JoinPath(options_.dir, options_.basename))) {
    saved_step_ = step;
    return absl::OkStatus();
  }
  return Save(m, step, /*last=*/false);
}

absl::Status CheckpointSaverHook::AfterRun(MonitoredSession* m, absl::Span<const Tensor>) {
  FERRY_RETURN_IF_ERROR(Finish(m, /*wait=*/false));
  FERRY_ASSIGN_OR_RETURN(const int64_t step, m->GlobalStep());
  if (step == last_due_ || m->diverged()) return absl::OkStatus();
  const Every& every = options_.every;
  const bool due = (every.secs > 0 && Seconds() >= last_time_ + every.secs) ||
                   (every.steps > 0 && step / every.steps > last_due_ / every.steps);
  if (!due) return absl::OkStatus();
  last_due_ = step;
  last_time_ = Seconds();
  return Save(m, step, /*last=*/false);
}

absl::Status CheckpointSaverHook::Save(MonitoredSession* m, int64_t step, bool last) {
  FERRY_ASSIGN_OR_RETURN(Saver * saver, m->saver());
  const bool skip = !last && options_.when_busy == WhenBusy::kSkip;
  if (skip && saver->busy()) {
    ++skipped_;
    return absl::OkStatus();
  }
  FERRY_RETURN_IF_ERROR(Finish(m, /*wait=*/true));
  for (const auto& l : options_.listeners) FERRY_RETURN_IF_ERROR(l->BeforeSave(m->session(), step));
  // What was recorded up to a checkpoint is in the file when a resumed run reads it.
  if (options_.save_graph_def) {
    FERRY_ASSIGN_OR_RETURN(FileWriter * events, m->Writer(options_.dir));
    FERRY_RETURN_IF_ERROR(events->Flush());
  }
  SaveOptions save;
  save.global_step = step;
  save.write_meta_graph = options_.save_graph_def;
  save.allow_nan = options_.allow_nan;
  FERRY_RETURN_IF_ERROR(
      saver->SaveAsync(m->session(), JoinPath(options_.dir, options_.basename), save).status());
  ++saves_;
  saved_step_ = step;
  pending_ = true;
  return options_.in_background ? absl::OkStatus() : Finish(m, /*wait=*/true);
}

absl::Status CheckpointSaverHook::Finish(MonitoredSession* m, bool wait) {
  if (!pending_) return absl::OkStatus();
  FERRY_ASSIGN_OR_RETURN(Saver * saver, m->saver());
  if (!wait && saver->busy()) return absl::OkStatus();
  pending_ = false;
  FERRY_RETURN_IF_ERROR(saver->WaitForPending());
  if (options_.save_graph_def) {
    FERRY_ASSIGN_OR_RETURN(FileWriter * events, m->Writer(options_.dir));
    proto::SessionLog log;
    log.set_status(proto::SessionLog::CHECKPOINT);
    log.set_checkpoint_path(JoinPath(options_.dir, options_.basename));
    FERRY_RETURN_IF_ERROR(events->AddSessionLog(log, saved_step_));
  }
  for (const auto& l : options_.listeners) {
    FERRY_ASSIGN_OR_RETURN(const bool stop, l->AfterSave(m->session(), saved_step_));
    if (stop) {
      m->Log("A CheckpointSaverListener requested that training be stopped.");
      m->RequestStop();
    }
  }
  return absl::OkStatus();
}

absl::Status CheckpointSaverHook::End(MonitoredSession* m) {
  FERRY_RETURN_IF_ERROR(Finish(m, /*wait=*/true));
  FERRY_ASSIGN_OR_RETURN(const int64_t step, m->GlobalStep());
  if (m->diverged() && !options_.allow_nan) {
    m->Log(absl::StrCat("the state of step ", step, " has diverged, and is not saved"));
  } else if (saved_step_ != step) {
    FERRY_RETURN_IF_ERROR(Save(m, step, /*last=*/true));
    FERRY_RETURN_IF_ERROR(Finish(m, /*wait=*/true));
  }
  for (const auto& l : options_.listeners) FERRY_RETURN_IF_ERROR(l->End(m->session(), step));
  return absl::OkStatus();
}

// ---- SummarySaverHook ----
absl::Status SummarySaverHook::Begin(MonitoredSession* m) {
  next_step_ = -1;
  timer_.Reset();
  if (summary_op_.empty()) summary_op_ = m->scaffold().summary_op;
  if (summary_op_.empty()) {
    const Scope root(m->graph());
    const Output merged = summary::MergeAll(root);
    FERRY_RETURN_IF_ERROR(root.status());
    if (merged.node != nullptr) summary_op_ = merged.name();
  }
  return absl::OkStatus();
}

absl::StatusOr<RunArgs> SummarySaverHook::BeforeRun(MonitoredSession*) {
  RunArgs args;
  asked_ = !summary_op_.empty() && (next_step_ < 0 || timer_.Due(next_step_));
  if (asked_) args.fetches = {summary_op_};
  return args;
}

absl::Status SummarySaverHook::AfterRun(MonitoredSession* m, absl::Span<const Tensor> results) {
  FERRY_ASSIGN_OR_RETURN(const int64_t step, m->GlobalStep());
  next_step_ = step + 1;
  if (!asked_) return absl::OkStatus();
  timer_.Done(step);
  FERRY_ASSIGN_OR_RETURN(FileWriter * events, m->Writer(dir_));
  if (results[0].dtype() != DType::kString || results[0].num_elements() != 1) {
    return InvalidArgument("summary_op '", summary_op_, "' gives ", DTypeName(results[0].dtype()),
                           results[0].shape().DebugString(), "; expected one string");
  }
  return events->AddSummary(results[0].data<std::string>()[0], step);
}

absl::Status SummarySaverHook::End(MonitoredSession* m) {
  if (next_step_ < 0) return absl::OkStatus();
  FERRY_ASSIGN_OR_RETURN(FileWriter * events, m->Writer(dir_));
  return events->Flush();
}

// ---- StepCounterHook ----
absl::Status StepCounterHook::AfterCreateSession(MonitoredSession* m) {
  timer_.Reset();
  return m->GlobalStep().status();
}

absl::Status StepCounterHook::AfterRun(MonitoredSession* m, absl::Span<const Tensor>) {
  FERRY_ASSIGN_OR_RETURN(const int64_t step, m->GlobalStep());
  if (!timer_.Due(step)) return absl::OkStatus();
  const auto since = timer_.Done(step);
  if (!since) return absl::OkStatus();
  const double rate = static_cast<double>(since->second) / std::max(since->first, 1e-9);
  if (!dir_.empty()) {
    FERRY_ASSIGN_OR_RETURN(FileWriter * events, m->Writer(dir_));
    FERRY_RETURN_IF_ERROR(events->AddScalar("global_step/sec", static_cast<float>(rate), step));
  }
  m->Log(absl::StrFormat("global_step/sec: %g", rate));
  return absl::OkStatus();
}

// ---- LoggingTensorHook ----
absl::Status LoggingTensorHook::Begin(MonitoredSession*) {
  if (every_.steps < 0 || every_.secs < 0 || (every_.steps > 0 && every_.secs > 0) ||
      (!Set(every_) && !at_end_)) {
    return InvalidArgument(
        "either at_end and/or exactly one of every_n_iter and every_n_secs must "
        "be provided: there are ",
        every_.steps, " and ", every_.secs);
  }
  timer_.Reset();
  runs_ = 0;
  return absl::OkStatus();
}

RunArgs LoggingTensorHook::Args() const {
  RunArgs args;
  for (const auto& [tag, tensor] : tensors_) args.fetches.push_back(tensor);
  return args;
}

absl::StatusOr<RunArgs> LoggingTensorHook::BeforeRun(MonitoredSession*) {
  asked_ = Set(every_) && timer_.Due(runs_);
  return asked_ ? Args() : RunArgs();
}

void LoggingTensorHook::LogValues(MonitoredSession* m, absl::Span<const Tensor> values) {
  std::vector<std::pair<std::string, Tensor>> all;
  for (size_t i = 0; i < values.size(); ++i) all.emplace_back(tensors_[i].first, values[i]);
  const auto since = timer_.Done(runs_);
  if (formatter_) {
    m->Log(formatter_(all));
    return;
  }
  std::string line;
  for (const auto& [tag, value] : all) {
    absl::StrAppend(&line, line.empty() ? "" : ", ", tag, " = ", TensorText(value));
  }
  if (since) absl::StrAppendFormat(&line, " (%.3f sec)", since->first);
  m->Log(line);
}

absl::Status LoggingTensorHook::AfterRun(MonitoredSession* m, absl::Span<const Tensor> results) {
  if (asked_) LogValues(m, results);
  ++runs_;
  return absl::OkStatus();
}

absl::Status LoggingTensorHook::End(MonitoredSession* m) {
  if (!at_end_) return absl::OkStatus();
  std::vector<Tensor> values;
  FERRY_RETURN_IF_ERROR(m->session()->Run({}, Args().fetches, {}, &values));
  LogValues(m, values);
  return absl::OkStatus();
}

// ---- FinalOpsHook, FeedFnHook ----
absl::Status FinalOpsHook::End(MonitoredSession* m) {
  return m->session()->Run(final_ops_.feeds, final_ops_.fetches, final_ops_.targets, &values_);
}

absl::StatusOr<RunArgs> FeedFnHook::BeforeRun(MonitoredSession*) {
  RunArgs args;
  FERRY_ASSIGN_OR_RETURN(args.feeds, feed_fn_());
  return args;
}

// ---- MonitoredTrainingSession ----
absl::StatusOr<std::unique_ptr<MonitoredSession>> MonitoredTrainingSession(
    Graph* graph, MonitoredSessionOptions options, const TrainingDefaults& defaults) {
  const std::string summaries =
      defaults.summary_dir.empty() ? options.checkpoint_dir : defaults.summary_dir;
  if (!summaries.empty()) {
    if (defaults.log_step_count_steps > 0) {
      options.hooks.push_back(
          std::make_shared<StepCounterHook>(summaries, Every{defaults.log_step_count_steps, 0}));
    }
    Every every = defaults.save_summaries;
    if (!Set(every)) every.steps = kDefaultSummarySteps;
    if (every.steps > 0 || every.secs > 0) {
      options.hooks.push_back(std::make_shared<SummarySaverHook>(summaries, every));
    }
  }
  const Every& every = defaults.save_checkpoint;
  if (!options.checkpoint_dir.empty() && every.steps >= 0 && every.secs >= 0) {
    CheckpointSaverOptions save;
    save.dir = options.checkpoint_dir;
    save.basename = options.checkpoint_basename;
    save.every = every;
    options.hooks.push_back(std::make_shared<CheckpointSaverHook>(std::move(save)));
  }
  return MonitoredSession::Create(graph, std::move(options));
}

}  // namespace ferry
