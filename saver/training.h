// The training loop, as tf.compat.v1.train.MonitoredTrainingSession gives it: a session that comes
// up initialised or restored, with hooks around each Run that save, record, log and stop.
//
//   MonitoredSessionOptions options;
//   options.checkpoint_dir = "/tmp/model";
//   options.hooks = {std::make_shared<StopAtStepHook>(StopAtStepHook::LastStep(1000))};
//   FERRY_ASSIGN_OR_RETURN(auto training, MonitoredTrainingSession(&graph, options));
//   while (!training->should_stop()) {
//     FERRY_RETURN_IF_ERROR(training->Run({{"x", batch}}, {}, {"train_op"}));
//   }
//   FERRY_RETURN_IF_ERROR(training->Close());  // The final save.
//
// The order of things:
//
//   Create   hooks' Begin (the graph may still grow) ─▶ session ─▶ restore of the latest good
//            checkpoint, or init_op and init_fn ─▶ local_init_op ─▶ ready? ─▶ AfterCreateSession
//   Run      BeforeRun of all hooks ─▶ one Session::Run of what the caller and they ask for
//            ─▶ AfterRun of all hooks
//   Close    End of all hooks
#ifndef FERRY_SAVER_TRAINING_H_
#define FERRY_SAVER_TRAINING_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "saver/event_writer.h"
#include "saver/saver.h"

namespace ferry {

class MonitoredSession;

// What a Run feeds, fetches and runs, by name.
struct RunArgs {
  std::vector<std::pair<std::string, Tensor>> feeds;
  std::vector<std::string> fetches;
  std::vector<std::string> targets;
};

// Something that is done around the Runs of a training. An error that a hook returns ends the
// training: the Run that called it returns it, and no hook's End is called any more. An error of
// End itself is Close's, and keeps no other hook from its End: the last save is not lost by it.
class SessionRunHook {
 public:
  virtual ~SessionRunHook() = default;
  // Before the session is made: nodes may be added to the graph.
  virtual absl::Status Begin(MonitoredSession*) { return absl::OkStatus(); }
  // Variables have their values. Called again when the session was made anew.
  virtual absl::Status AfterCreateSession(MonitoredSession*) { return absl::OkStatus(); }
  // What this hook wants of the coming Run.
  virtual absl::StatusOr<RunArgs> BeforeRun(MonitoredSession*) { return RunArgs(); }
  // `results`: what BeforeRun asked to fetch.
  virtual absl::Status AfterRun(MonitoredSession*, absl::Span<const Tensor>) {
    return absl::OkStatus();
  }
  // The training ended without an error; the session is still there.
  virtual absl::Status End(MonitoredSession*) { return absl::OkStatus(); }
  // The session goes, after End or an error: whatever uses it still has to end now.
  virtual void SessionEnds(MonitoredSession*) {}
};

// How a model comes up: tf.compat.v1.train.Scaffold. Names of nodes or tensors; what is empty has
// the default told here.
struct Scaffold {
  std::string init_op;  // The initializers of all global variables.
  std::vector<std::pair<std::string, Tensor>> init_feeds;
  // After init_op, when nothing was restored.
  std::function<absl::Status(Session*)> init_fn;
  std::string local_init_op;  // The initializers of all local variables; runs after a restore, too.
  // A vector of strings: what isn't ready. Default: the uninitialized global and local variables.
  std::string ready_op;
  std::string summary_op;        // For SummarySaverHook: the merged collection "summaries".
  std::shared_ptr<Saver> saver;  // One of all variables.
};

struct MonitoredSessionOptions {
  SessionOptions session;
  Scaffold scaffold;
  // Where checkpoints are restored from; empty: nowhere.
  std::string checkpoint_dir;
  std::string checkpoint_basename = "model.ckpt";
  std::vector<std::shared_ptr<SessionRunHook>> hooks;  // Called in this order.
  // Called with the error when the checkpoint `prefix` can't be restored, or the state file is
  // damaged (`prefix` is empty then). An error that it returns is Create's; OK goes on with the
  // checkpoint before. Null: goes on, and says so in the log, when the checkpoint's files are
  // damaged; when they are sound and don't fit the model that is an error.
  std::function<absl::Status(const absl::Status& error, const std::string& prefix)>
      on_restore_error;
  // When it becomes true, training is to stop: see StopSignals. Must outlive the session.
  const std::atomic<bool>* stop = nullptr;
  // Takes lines without an end of line. Null: the log (saver/log.h).
  std::function<void(const std::string&)> log;
};

// Not thread-safe.
class MonitoredSession {
 public:
  // `graph` must outlive it. Errors: those of hooks and initialisers; DataLoss when there are
  // checkpoints, but none that can be restored (starting over would throw work away);
  // FailedPrecondition "Init operations did not make model ready".
  static absl::StatusOr<std::unique_ptr<MonitoredSession>> Create(Graph* graph,
                                                                  MonitoredSessionOptions options);
  // Without a Close before, as after an error: no final save, no End.
  ~MonitoredSession();

  // One step. `outputs` (may be null) are the caller's fetches; passing the last ones again saves
  // memory. When the Run fails with Unavailable or Aborted, and there is a checkpoint_dir, the
  // session is made anew from its latest checkpoint and the step runs there. Any other error, and
  // those of hooks, end the training. InvalidArgument when two feed one tensor.
  absl::Status Run(const std::vector<std::pair<std::string, Tensor>>& feeds,
                   const std::vector<std::string>& fetches, const std::vector<std::string>& targets,
                   std::vector<Tensor>* outputs = nullptr);
  bool should_stop() const;
  // Ends the hooks and writers. What they had to say (a background save's error, too) is here. A
  // second call does nothing.
  absl::Status Close();

  // ---- For hooks ----
  Graph* graph() const { return graph_; }
  Session* session() const { return session_.get(); }  // Null in Begin.
  FileSystem* file_system() const { return fs_; }
  const Scaffold& scaffold() const { return options_.scaffold; }
  const MonitoredSessionOptions& options() const { return options_; }
  // The scaffold's, or one of all variables, made at the first call.
  absl::StatusOr<Saver*> saver();
  void RequestStop() { stop_requested_ = true; }
  // Stops, and says that the state isn't worth saving.
  void RequestStopDiverged() { stop_requested_ = diverged_ = true; }
  bool diverged() const { return diverged_; }
  // The global step as it is now. FailedPrecondition when the graph has none.
  absl::StatusOr<int64_t> GlobalStep();
  // The checkpoint that this session came from; empty for a new one.
  const std::string& restored_from() const { return restored_from_; }
  // Whether that was not the newest one, which is damaged.
  bool fell_back() const { return fell_back_; }
  // One event file for each directory, made at the first call; hooks share it. When the session was
  // restored it begins by telling TensorBoard to forget later steps that were recorded before.
  absl::StatusOr<FileWriter*> Writer(const std::string& dir);
  void Log(const std::string& line) const;

 private:
  MonitoredSession(Graph* graph, MonitoredSessionOptions options);
  absl::Status CreateSession();
  absl::Status Initialize();
  absl::Status CheckReady() const;
  // Restores the newest checkpoint that can be; leaves restored_from_ empty when there is none.
  absl::Status RestoreLatest();
  // Has TensorBoard forget what was recorded of later steps than this session begins at.
  absl::Status TellOfStart(FileWriter* writer);
  absl::Status RunOnce(const RunArgs& asked, std::vector<Tensor>* outputs, bool* lost);
  void EndSession();

  Graph* const graph_;
  MonitoredSessionOptions options_;
  FileSystem* const fs_;
  VariableHandle global_step_;
  std::map<std::string, std::unique_ptr<FileWriter>> writers_;
  std::unique_ptr<Session> session_;
  Session::Callable read_step_;
  bool step_known_ = false;
  int64_t step_ = 0;
  std::string restored_from_;
  bool fell_back_ = false, stop_requested_ = false, diverged_ = false, failed_ = false;
  bool closed_ = false;
  std::vector<Tensor> results_;  // Of the last Run.
};

// The latest checkpoint of a directory that is sound, with all files read; empty when there are
// none at all. `skipped` (may be null) gets those that are newer and damaged, newest first, each
// with the reason. DataLoss when there are only damaged ones.
absl::StatusOr<std::string> FindLatestGoodCheckpoint(
    FileSystem* fs, const std::string& dir, const std::string& basename = "model.ckpt",
    std::vector<std::pair<std::string, absl::Status>>* skipped = nullptr);

// While it lives, SIGTERM and SIGINT set a flag, so that training saves and ends; a second one ends
// the process at once. One at a time in a process.
class StopSignals {
 public:
  StopSignals();
  ~StopSignals();  // Puts back what the signals did before.
  StopSignals(const StopSignals&) = delete;
  StopSignals& operator=(const StopSignals&) = delete;
  const std::atomic<bool>* flag() const;
};

}  // namespace ferry

#endif  // FERRY_SAVER_TRAINING_H_
