// The state file `checkpoint` in a model's directory: which checkpoints there are, and which is the
// latest. A CheckpointState in protobuf's text format, as TensorFlow writes and reads it, behind a
// comment line with the crc of what follows, which TensorFlow skips:
//
//   # ferry crc32c: 1b2c3d4e
//   # ferry metric: 0.25 "model.ckpt-100"      (notes of this project's savers, if there are any)
//   # ferry protected: "model.ckpt-100"
//   model_checkpoint_path: "model.ckpt-200"
//   all_model_checkpoint_paths: "model.ckpt-100"
//   all_model_checkpoint_paths: "model.ckpt-200"
#ifndef FERRY_SAVER_CHECKPOINT_STATE_H_
#define FERRY_SAVER_CHECKPOINT_STATE_H_

#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/checkpoint_state.pb.h"
#include "runtime/base/file_system.h"

namespace ferry {

inline constexpr char kStateFileName[] = "checkpoint";

// What a Saver notes of checkpoints, by their prefixes. They live in the state file, so that both
// change together; TensorFlow drops them when it writes that file.
struct CheckpointNotes {
  std::map<std::string, double> metrics;  // SaveOptions::metric.
  std::set<std::string> protected_paths;  // Saver::Protect.
};

// The state with relative paths joined to `dir`, and the notes. NotFound without a state file;
// DataLoss, naming the file, when its crc doesn't match, it can't be parsed, or names no
// checkpoint.
absl::StatusOr<proto::CheckpointState> GetCheckpointState(
    FileSystem* fs, const std::string& dir, const std::string& latest_filename = kStateFileName,
    CheckpointNotes* notes = nullptr);

// Where the checkpoint `prefix`, which a state file in `dir` names, is now: there, or, when the
// directory was moved, under the same name in `dir`. "" if neither.
std::string FindCheckpoint(FileSystem* fs, const std::string& dir, const std::string& prefix);

// Whether the files of the checkpoint `prefix` are there: an index, or a file of the V1 format.
bool CheckpointExists(FileSystem* fs, const std::string& prefix);

// The latest checkpoint's prefix. When its files aren't where the state says (the directory was
// moved), those of the same name beside the state file count. NotFound without a state file;
// DataLoss, naming the file, when it is damaged, or what it names has no files.
absl::StatusOr<std::string> FindLatestCheckpoint(
    FileSystem* fs, const std::string& dir, const std::string& latest_filename = kStateFileName);

// The same as TensorFlow's users know it: "" when there is no state file, and, said on standard
// error, when it is damaged or the files are gone. Errors of the file system otherwise.
absl::StatusOr<std::string> LatestCheckpoint(FileSystem* fs, const std::string& dir,
                                             const std::string& latest_filename = kStateFileName);

// The prefixes `prefix`-N whose index is there, by N: what a directory without a state file holds.
absl::StatusOr<std::vector<std::string>> ListCheckpoints(FileSystem* fs,
                                                         const std::string& prefix);

// The bytes of a state file `latest_filename` in `dir`. `all_paths` go from the oldest to the
// newest; the model path is added where it isn't their last. `all_timestamps` (seconds since 1970)
// are empty or as many as the paths. Paths stay as they are when `dir` is absolute, and are written
// relative to it when it isn't, or with `save_relative_paths`. InvalidArgument when the counts
// differ, or the state file's name has a directory in it or is the checkpoint's own.
absl::StatusOr<std::string> GenerateCheckpointState(
    const std::string& dir, const std::string& model_checkpoint_path,
    const std::vector<std::string>& all_paths, const std::vector<double>& all_timestamps = {},
    double last_preserved_timestamp = 0, const std::string& latest_filename = kStateFileName,
    bool save_relative_paths = false, const CheckpointNotes& notes = {});
// Replaces the state file durably by the same.
absl::Status UpdateCheckpointState(FileSystem* fs, const std::string& dir,
                                   const std::string& model_checkpoint_path,
                                   const std::vector<std::string>& all_paths,
                                   const std::vector<double>& all_timestamps = {},
                                   double last_preserved_timestamp = 0,
                                   const std::string& latest_filename = kStateFileName,
                                   bool save_relative_paths = false,
                                   const CheckpointNotes& notes = {});

// The bytes of a state file, and back; `file` is for messages.
std::string SerializeCheckpointState(const proto::CheckpointState& state,
                                     const CheckpointNotes& notes = {});
absl::StatusOr<proto::CheckpointState> ParseCheckpointState(const std::string& text,
                                                            const std::string& file,
                                                            CheckpointNotes* notes = nullptr);

}  // namespace ferry

#endif  // FERRY_SAVER_CHECKPOINT_STATE_H_
