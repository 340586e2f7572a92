// MonitoredSession, the search for the latest good checkpoint, signals.
#include "saver/training.h"

#include <csignal>
#include <limits>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/status.h"
#include "saver/checkpoint_reader.h"
#include "saver/checkpoint_state.h"
#include "saver/log.h"

namespace ferry {
namespace {

// A step that makes no session last is given up after so many.
constexpr int kMaxRecoveries = 10;

// The checkpoints of a directory, newest first: those that the state file lists, or without one
// those that are there. `state_error` gets what is wrong with the state file.
absl::StatusOr<std::vector<std::string>> Candidates(FileSystem* fs, const std::string& dir,
                                                    const std::string& basename,
                                                    absl::Status* state_error) {
  std::vector<std::string> newest_first;
  auto add = [&](const std::string& prefix) {
    for (const std::string& p : newest_first) {
      if (p == prefix) return;
    }
    newest_first.push_back(prefix);
  };
  absl::StatusOr<std::string> latest = FindLatestCheckpoint(fs, dir);
  if (latest.ok()) add(*latest);
  absl::StatusOr<proto::CheckpointState> state = GetCheckpointState(fs, dir);
  if (state.ok()) {
    const auto& paths = state->all_model_checkpoint_paths();
    for (auto it = paths.rbegin(); it != paths.rend(); ++it) {
      // Of a directory that was moved.
      const std::string here = JoinPath(dir, BaseName(*it));
      if (CheckpointExists(fs, *it)) {
        add(*it);
      } else if (CheckpointExists(fs, here)) {
        add(here);
      }
    }
  }
  if (latest.ok()) return newest_first;
  *state_error = absl::IsNotFound(latest.status()) ? absl::OkStatus() : latest.status();
  // A first save may have been killed before it wrote the state file; or it was removed.
  absl::StatusOr<std::vector<std::string>> found = ListCheckpoints(fs, JoinPath(dir, basename));
  if (found.ok()) {
    for (auto it = found->rbegin(); it != found->rend(); ++it) add(*it);
  } else if (!absl::IsNotFound(found.status())) {
    return found.status();
  }
  return newest_first;
}

absl::Status DamageOf(const VerifyReport& report) {
  return report.damage.empty() ? absl::OkStatus() : report.damage[0];
}

}  // namespace

absl::StatusOr<std::string> FindLatestGoodCheckpoint(
    FileSystem* fs, const std::string& dir, const std::string& basename,
    std::vector<std::pair<std::string, absl::Status>>* skipped) {
  absl::Status state_error;
  FERRY_ASSIGN_OR_RETURN(const std::vector<std::string> candidates,
                         Candidates(fs, dir, basename, &state_error));
  absl::Status first = state_error;
  if (!state_error.ok() && skipped) skipped->emplace_back("", state_error);
  for (const std::string& prefix : candidates) {
    const absl::Status damage = DamageOf(VerifyCheckpoint(fs, prefix));
    if (damage.ok()) return prefix;
    KeepFirst(&first, damage);
    if (skipped) skipped->emplace_back(prefix, damage);
  }
  if (first.ok()) return std::string();
  return DataLoss("no checkpoint in '", dir, "' is sound: ", first.message());
}

MonitoredSession::MonitoredSession(Graph* graph, MonitoredSessionOptions options)
    : graph_(graph),
      options_(std::move(options)),
      fs_(options_.session.file_system ? options_.session.file_system : FileSystem::Posix()) {}

absl::StatusOr<std::unique_ptr<MonitoredSession>> MonitoredSession::Create(
    Graph* graph, MonitoredSessionOptions options) {
  std::unique_ptr<MonitoredSession> m(new MonitoredSession(graph, std::move(options)));
  m->failed_ = true;  // Until all is there.
  for (const auto& hook : m->options_.hooks) {
    if (hook == nullptr) return InvalidArgument("a hook of the training is null");
  }
  for (const auto& hook : m->options_.hooks) FERRY_RETURN_IF_ERROR(hook->Begin(m.get()));
  FERRY_ASSIGN_OR_RETURN(m->global_step_, GetGlobalStep(*graph));
  FERRY_RETURN_IF_ERROR(m->CreateSession());
  m->failed_ = false;
  return m;
}

MonitoredSession::~MonitoredSession() {
  if (!closed_) EndSession();
}

void MonitoredSession::EndSession() {
  if (session_ != nullptr) {
    for (const auto& hook : options_.hooks) hook->SessionEnds(this);
    if (options_.scaffold.saver != nullptr) {
      const absl::Status saved = options_.scaffold.saver->WaitForPending();
      if (!saved.ok()) Log(absl::StrCat("a background save failed: ", saved.ToString()));
    }
  }
  read_step_ = Session::Callable();
  session_.reset();
}

void MonitoredSession::Log(const std::string& line) const {
  if (options_.log) {
    options_.log(line);
  } else {
    LogInfo(line);
  }
}

absl::StatusOr<Saver*> MonitoredSession::saver() {
  std::shared_ptr<Saver>& saver = options_.scaffold.saver;
  if (saver == nullptr) {
    FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> made, Saver::Create(graph_));
    saver = std::move(made);
  }
  return saver.get();
}

absl::StatusOr<int64_t> MonitoredSession::GlobalStep() {
  if (!global_step_) {
    return FailedPrecondition(
        "Global step should be created: the graph has no variable 'global_step' "
        "(GetOrCreateGlobalStep makes it)");
  }
  if (!step_known_) {
    std::vector<Tensor> out;
    FERRY_RETURN_IF_ERROR(read_step_.Run({}, &out));
    step_ = out[0].dtype() == DType::kInt32 ? out[0].scalar<int32_t>() : out[0].scalar<int64_t>();
    step_known_ = true;
  }
  return step_;
}

absl::StatusOr<FileWriter*> MonitoredSession::Writer(const std::string& dir) {
  const auto there = writers_.find(dir);
  if (there != writers_.end()) return there->second.get();
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<FileWriter> made, FileWriter::Open(fs_, dir));
  if (!restored_from_.empty()) FERRY_RETURN_IF_ERROR(TellOfStart(made.get()));
  return (writers_[dir] = std::move(made)).get();
}

absl::Status MonitoredSession::TellOfStart(FileWriter* writer) {
  if (!global_step_) return absl::OkStatus();
  FERRY_ASSIGN_OR_RETURN(const int64_t step, GlobalStep());
  proto::SessionLog log;
  log.set_status(proto::SessionLog::START);
  return writer->AddSessionLog(log, step + 1);
}

absl::Status MonitoredSession::CreateSession() {
  session_ = std::make_unique<Session>(graph_, options_.session);
  FERRY_RETURN_IF_ERROR(session_->status());
  restored_from_.clear();
  fell_back_ = step_known_ = false;
  if (!options_.checkpoint_dir.empty()) FERRY_RETURN_IF_ERROR(RestoreLatest());
  FERRY_RETURN_IF_ERROR(Initialize());
  if (global_step_) {
    FERRY_ASSIGN_OR_RETURN(read_step_,
                           session_->MakeCallable({{}, {global_step_.read.name()}, {}}));
    FERRY_ASSIGN_OR_RETURN(const int64_t step, GlobalStep());
    if (step < 0 || step == std::numeric_limits<int64_t>::max()) {
      return DataLoss(restored_from_.empty() ? "the model" : restored_from_,
                      ": its global_step is ", step);
    }
  }
  // Of a session that was made anew.
  for (const auto& [dir, writer] : writers_) FERRY_RETURN_IF_ERROR(TellOfStart(writer.get()));
  for (const auto& hook : options_.hooks) FERRY_RETURN_IF_ERROR(hook->AfterCreateSession(this));
  return absl::OkStatus();
}

absl::Status MonitoredSession::RestoreLatest() {
  absl::Status state_error;
  const std::string& dir = options_.checkpoint_dir;
  FERRY_ASSIGN_OR_RETURN(const std::vector<std::string> candidates,
                         Candidates(fs_, dir, options_.checkpoint_basename, &state_error));
  if (!state_error.ok()) {
    if (options_.on_restore_error) {
      FERRY_RETURN_IF_ERROR(options_.on_restore_error(state_error, ""));
    } else {
      Log(absl::StrCat(state_error.message(), ": looking for checkpoints in '", dir, "' instead"));
    }
  }
  if (candidates.empty()) {
    if (!state_error.ok()) {
      return DataLoss("no checkpoint in '", dir, "' can be restored: ", state_error.message());
    }
    return absl::OkStatus();
  }
  FERRY_ASSIGN_OR_RETURN(Saver * saver, this->saver());
  absl::Status first;
  for (const std::string& prefix : candidates) {
    const absl::Status restored = saver->Restore(session_.get(), prefix);
    if (restored.ok()) {
      // Retention goes on where it stopped, with the damaged ones in their places.
      if (GetCheckpointState(fs_, dir).ok()) {
        FERRY_RETURN_IF_ERROR(saver->RecoverFromState(fs_, dir));
      } else {
        FERRY_RETURN_IF_ERROR(saver->recover_last_checkpoints(
            fs_, std::vector<std::string>(candidates.rbegin(), candidates.rend())));
      }
      restored_from_ = prefix;
      if (fell_back_) Log(absl::StrCat("resuming from the checkpoint before: ", prefix));
      return absl::OkStatus();
    }
    KeepFirst(&first, restored);
    if (options_.on_restore_error) {
      FERRY_RETURN_IF_ERROR(options_.on_restore_error(restored, prefix));
    } else {
      const VerifyReport report = VerifyCheckpoint(fs_, prefix);
      if (report.damage.empty()) {
        return Annotate(restored, absl::StrCat("resuming from ", prefix,
                                               ", which is sound: is it of another model?"));
      }
      Log(absl::StrCat("checkpoint ", prefix,
                       " is damaged, and left as it is: ", report.damage[0].message()));
    }
    fell_back_ = true;
  }
  return DataLoss("no checkpoint in '", dir, "' can be restored: ", first.message());
}

absl::Status MonitoredSession::Initialize() {
  const Scaffold& scaffold = options_.scaffold;
  auto initializers = [&](const char* collection, std::vector<std::string>* names) -> absl::Status {
    FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> all, VariablesOf(*graph_, collection));
    for (const VariableHandle& v : all) names->push_back(v.initializer->name());
    return absl::OkStatus();
  };
  if (restored_from_.empty()) {
    std::vector<std::string> targets;
    if (scaffold.init_op.empty()) {
      FERRY_RETURN_IF_ERROR(initializers(kGlobalVariables, &targets));
    } else {
      targets.push_back(scaffold.init_op);
    }
    if (!targets.empty()) {
      FERRY_RETURN_IF_ERROR(session_->Run(scaffold.init_feeds, {}, targets, nullptr));
    }
    if (scaffold.init_fn) FERRY_RETURN_IF_ERROR(scaffold.init_fn(session_.get()));
  }
  std::vector<std::string> local;
  if (scaffold.local_init_op.empty()) {
    FERRY_RETURN_IF_ERROR(initializers(kLocalVariables, &local));
  } else {
    local.push_back(scaffold.local_init_op);
  }
  if (!local.empty()) FERRY_RETURN_IF_ERROR(session_->Run({}, {}, local, nullptr));
  return CheckReady();
}

absl::Status MonitoredSession::CheckReady() const {
  std::vector<std::string> missing;
  if (!options_.scaffold.ready_op.empty()) {
    std::vector<Tensor> out;
    FERRY_RETURN_IF_ERROR(session_->Run({}, {options_.scaffold.ready_op}, {}, &out));
    if (out[0].dtype() != DType::kString) {
      return InvalidArgument("ready_op '", options_.scaffold.ready_op, "' gives ",
                             DTypeName(out[0].dtype()), "; expected strings");
    }
    for (const std::string& name : out[0].span<std::string>()) missing.push_back(name);
  } else {
    for (const char* collection : {kGlobalVariables, kLocalVariables}) {
      FERRY_ASSIGN_OR_RETURN(const std::vector<VariableHandle> all,
                             VariablesOf(*graph_, collection));
      for (const VariableHandle& v : all) {
        FERRY_ASSIGN_OR_RETURN(const Variable* variable, session_->VariableOf(v.ref.node));
        if (!variable->initialized()) missing.push_back(v.name());
      }
    }
  }
  if (missing.empty()) return absl::OkStatus();
  return FailedPrecondition("Init operations did not make model ready. Variables not initialized: ",
                            absl::StrJoin(missing, ", "),
                            restored_from_.empty()
                                ? std::string()
                                : absl::StrCat(" (restored from ", restored_from_, ")"));
}

bool MonitoredSession::should_stop() const {
  return stop_requested_ || closed_ || failed_ ||
         (options_.stop != nullptr && options_.stop->load(std::memory_order_relaxed));
}

absl::Status MonitoredSession::Run(const std::vector<std::pair<std::string, Tensor>>& feeds,
                                   const std::vector<std::string>& fetches,
                                   const std::vector<std::string>& targets,
                                   std::vector<Tensor>* outputs) {
  if (closed_ || failed_) {
    return FailedPrecondition("Run called even after should_stop requested: the training ",
                              closed_ ? "is closed" : "ended with an error");
  }
  const RunArgs asked{feeds, fetches, targets};
  for (int tries = 0;; ++tries) {
    bool lost = false;
    absl::Status status = RunOnce(asked, outputs, &lost);
    if (status.ok()) return status;
    if (lost && !options_.checkpoint_dir.empty() && tries < kMaxRecoveries) {
      Log(absl::StrCat("the session is lost, and made anew from the latest checkpoint: ",
                       status.ToString()));
      EndSession();
      status = CreateSession();
      if (status.ok()) continue;
    }
    failed_ = true;
    return status;
  }
}

absl::Status MonitoredSession::RunOnce(const RunArgs& asked, std::vector<Tensor>* outputs,
                                       bool* lost) {
  RunArgs all = asked;
  std::vector<size_t> counts;
  for (const auto& hook : options_.hooks) {
    FERRY_ASSIGN_OR_RETURN(const RunArgs more, hook->BeforeRun(this));
    for (const auto& feed : more.feeds) {
      for (const auto& other : all.feeds) {
        if (other.first == feed.first) {
          return InvalidArgument("Same tensor is fed by two: '", feed.first,
                                 "' by a hook, and by another or by the caller of Run");
        }
      }
      all.feeds.push_back(feed);
    }
    all.fetches.insert(all.fetches.end(), more.fetches.begin(), more.fetches.end());
    all.targets.insert(all.targets.end(), more.targets.begin(), more.targets.end());
    counts.push_back(more.fetches.size());
  }
  // The memory of the last results is used again.
  results_.resize(all.fetches.size());
  const size_t own = asked.fetches.size();
  if (outputs != nullptr) {
    outputs->resize(own);
    for (size_t i = 0; i < own; ++i) results_[i] = std::move((*outputs)[i]);
  }
  step_known_ = false;
  const absl::Status status = session_->Run(all.feeds, all.fetches, all.targets, &results_);
  if (!status.ok()) {
    *lost = absl::IsUnavailable(status) || absl::IsAborted(status);
    return status;
  }
  if (outputs != nullptr) {
    for (size_t i = 0; i < own; ++i) (*outputs)[i] = std::move(results_[i]);
  }
  size_t at = own;
  for (size_t i = 0; i < options_.hooks.size(); ++i) {
    const absl::Span<const Tensor> results(results_.data() + at, counts[i]);
    FERRY_RETURN_IF_ERROR(options_.hooks[i]->AfterRun(this, results));
    at += counts[i];
  }
  return absl::OkStatus();
}

absl::Status MonitoredSession::Close() {
  if (closed_) return absl::OkStatus();
  absl::Status status;
  if (!failed_) {
    for (const auto& hook : options_.hooks) KeepFirst(&status, hook->End(this));
  }
  if (options_.scaffold.saver != nullptr) {
    KeepFirst(&status, options_.scaffold.saver->WaitForPending());
  }
  for (const auto& [dir, writer] : writers_) KeepFirst(&status, writer->Close());
  EndSession();
  closed_ = true;
  return status;
}

// ---- Signals ----
namespace {

std::atomic<bool> stop_asked{false};
static_assert(std::atomic<bool>::is_always_lock_free, "a signal handler sets it");
struct sigaction old_term, old_int;

extern "C" void OnStopSignal(int number) {
  if (stop_asked.exchange(true)) {
    // The second one does what it does by default.
    signal(number, SIG_DFL);
    raise(number);
  }
}

}  // namespace

StopSignals::StopSignals() {
  stop_asked.store(false);
  struct sigaction action {};
  action.sa_handler = OnStopSignal;
  action.sa_flags = SA_RESTART;
  sigemptyset(&action.sa_mask);
  sigaction(SIGTERM, &action, &old_term);
  sigaction(SIGINT, &action, &old_int);
}

StopSignals::~StopSignals() {
  sigaction(SIGTERM, &old_term, nullptr);
  sigaction(SIGINT, &old_int, nullptr);
}

const std::atomic<bool>* StopSignals::flag() const { return &stop_asked; }

}  // namespace ferry
