// Saver: saves a session's variables into TensorFlow checkpoints and restores them, as
// tf.compat.v1.train.Saver does, durably and without stopping training.
//
//   FERRY_ASSIGN_OR_RETURN(std::unique_ptr<Saver> saver, Saver::Create(&graph));
//   FERRY_ASSIGN_OR_RETURN(std::string path, saver->Save(&session, "dir/model.ckpt",
//                                                        {.global_step = 100}));
//   FERRY_RETURN_IF_ERROR(saver->Restore(&session, path));
//
// A save:
//
//   snapshot (the session's gate, a moment) ─▶ data through the staging ring; .meta, index, state
//     file beside it ─▶ all synced ─▶ the index is named ─▶ the state file `checkpoint` is named
//     ─▶ eviction of what retention no longer keeps
//
// The index's rename is what makes the checkpoint; before it the old one is whole, after it the
// new one is. Everything that was written is synced when Save returns OK.
#ifndef FERRY_SAVER_SAVER_H_
#define FERRY_SAVER_SAVER_H_

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/saver.pb.h"
#include "runtime/graph/graph.h"
#include "runtime/graph/variables.h"
#include "runtime/session/session.h"
#include "saver/meta_graph.h"
#include "saver/snapshot.h"

namespace ferry {

struct SaverOptions {
  // What is saved, under which name: a list gives each variable its own name, parts of a
  // partitioned one the whole's; in a map all parts come under one name. Empty: all saveable
  // variables, the collections "variables" and saveable objects of the graph.
  std::vector<VariableHandle> var_list;
  std::vector<std::pair<std::string, VariableHandle>> var_map;  // Instead of var_list.
  bool reshape = false;  // Restore into variables of another shape, same number of elements.
  // A data file for each device that variables ask for, written at the same time.
  bool sharded = false;
  int max_to_keep = 5;  // 0: all.
  double keep_checkpoint_every_n_hours = 10000;
  // Besides the newest, that many checkpoints stay whose SaveOptions::metric was the best.
  int keep_best = 0;
  bool lower_is_better = false;
  std::string name;  // Of the nodes' scope; "": "save".
  // Restore reads one variable after another, on one thread.
  bool restore_sequentially = false;
  // Create doesn't look at the graph's variables yet; Build() does.
  bool defer_build = false;
  bool allow_empty = false;  // No variables at all is fine; Save then writes the .meta alone.
  // The V1 format is read; that it can't be written is Unimplemented.
  proto::SaverDef::CheckpointFormatVersion write_version = proto::SaverDef::V2;
  bool pad_step_number = false;      // "model.ckpt-00000100".
  bool save_relative_paths = false;  // In the state file.
  std::string filename = "model";    // The default of the node save/filename.
  // Memory for old bytes of variables that training changes during a background save, at most.
  // Negative: as much as the variables take, but no more than a quarter of the machine's memory.
  int64_t shadow_pool_bytes = -1;
};

struct SaveOptions {
  std::optional<int64_t> global_step;  // "prefix-N".
  // Instead: N is this integer variable's value at the moment that is saved.
  VariableHandle global_step_variable;
  // How good this checkpoint is, for SaverOptions::keep_best. A NaN is as none.
  std::optional<double> metric;
  std::string latest_filename;  // Of the state file; "": "checkpoint".
  std::string meta_graph_suffix = "meta";
  bool write_meta_graph = true;
  bool write_state = true;
  bool strip_default_attrs = false;
  // Off: a NaN in a variable is FailedPrecondition, naming it, and there is no new checkpoint.
  bool allow_nan = true;
};

enum class WhenBusy { kWait, kSkip };

struct AsyncSaveOptions {
  // A save is due while another one runs: wait for that one to end, or leave this one out.
  WhenBusy when_busy = WhenBusy::kWait;
};

// What one save did.
struct SaveStats {
  int64_t bytes = 0;         // Of the variables.
  double seconds = 0;        // From the cut to the end, durable.
  std::string write_method;  // "io_uring O_DIRECT", ….
  SnapshotStats snapshot;
};

// Thread-safe. Saving and restoring don't change the graph, so that other threads may go on running
// it; nodes may not be added to it meanwhile. A graph gets save nodes only when a SaverDef is asked
// for, and Savers that would add the same ones share them.
class Saver {
 public:
  // `graph` must outlive the saver. InvalidArgument: "No variables to save", "At least two
  // variables have the same name: a", "The same saveable will be restored with two names: a".
  static absl::StatusOr<std::unique_ptr<Saver>> Create(Graph* graph,
                                                       const SaverOptions& options = {});
  // For a graph that was imported with this SaverDef, into a scope or without one.
  static absl::StatusOr<std::unique_ptr<Saver>> FromProto(Graph* graph, const proto::SaverDef& def,
                                                          const std::string& import_scope = "");
  // After defer_build, before the saver is used: takes the variables that the graph has now. Again
  // it does nothing. Errors as of Create.
  absl::Status Build();
  ~Saver();  // Waits for a save under way; its error, if nobody asked for it, is logged.
  Saver(const Saver&) = delete;
  Saver& operator=(const Saver&) = delete;

  // Returns the prefix that was written; "" from a saver without variables. When it failed, the
  // previous checkpoint is as it was. FailedPrecondition before Build().
  absl::StatusOr<std::string> Save(Session* session, const std::string& prefix,
                                   const SaveOptions& options = {});
  // Takes the snapshot and returns; the rest happens on a thread of the saver's. False when it was
  // skipped. An error of an earlier background save that nobody has been told of is returned here,
  // and no save is started. The session must outlive the save.
  absl::StatusOr<bool> SaveAsync(Session* session, const std::string& prefix,
                                 const SaveOptions& options = {},
                                 const AsyncSaveOptions& async = {});
  // Waits for the background save; its error, told once.
  absl::Status WaitForPending();
  bool busy() const;
  SaveStats last_stats() const;  // Of the last save that succeeded.

  // Reads all of the saver's variables from the checkpoint, or, after an error, none.
  absl::Status Restore(Session* session, const std::string& prefix);

  // Paths that this saver wrote or was told of and retention still keeps, oldest first.
  std::vector<std::string> last_checkpoints() const;
  // As in TensorFlow, checkpoints that come without a time are never deleted: use the next one.
  void set_last_checkpoints(const std::vector<std::string>& paths);
  // With their times in seconds since 1970, from which keep_checkpoint_every_n_hours counts.
  void set_last_checkpoints_with_time(const std::vector<std::pair<std::string, double>>& paths);
  // Those of `paths` that exist, with the times of their files.
  absl::Status recover_last_checkpoints(FileSystem* fs, const std::vector<std::string>& paths);
  // The same with what the directory's state file lists, with the times, the metrics and the
  // protection that stand there: what a resumed run calls, so that retention goes on where it
  // stopped. Files that were moved together with their state file are found beside it. Where the
  // clock is behind the state's, what is listed is never deleted.
  absl::Status RecoverFromState(FileSystem* fs, const std::string& dir,
                                const std::string& latest_filename = "");

  // A protected checkpoint isn't evicted, and stays listed. The state file tells a resumed run of
  // it from the next save on.
  void Protect(const std::string& prefix);
  void Unprotect(const std::string& prefix);
  // Those of last_checkpoints() that have a metric, the best first.
  std::vector<std::pair<std::string, double>> best_checkpoints() const;

  // Adds the save nodes to the graph, unless it has them. (What Save writes has them anyway.)
  absl::StatusOr<proto::SaverDef> as_saver_def();
  // The same, and the graph with them.
  absl::StatusOr<proto::MetaGraphDef> export_meta_graph(const ExportOptions& options = {});
  const std::vector<SaveItem>& items() const;

 private:
  struct Rep;
  explicit Saver(std::unique_ptr<Rep> rep);
  std::unique_ptr<Rep> rep_;
};

// tf.train.import_meta_graph: imports a `.meta` file and makes the Saver that it describes, or else
// one of all variables that there are; null when there are none (with an import_scope, none there).
absl::StatusOr<std::unique_ptr<Saver>> ImportMetaGraphFile(FileSystem* fs, const std::string& path,
                                                           const ImportMetaOptions& options,
                                                           Graph* graph,
                                                           ImportedMetaGraph* imported = nullptr);

}  // namespace ferry

#endif  // FERRY_SAVER_SAVER_H_
