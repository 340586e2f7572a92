// The state file: see checkpoint_state.h.
#include "saver/checkpoint_state.h"

#include <google/protobuf/io/tokenizer.h>
#include <google/protobuf/text_format.h>

#include <filesystem>
#include <map>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/base/status.h"
#include "saver/bundle_writer.h"
#include "saver/log.h"
#include "saver/text_crc.h"

namespace ferry {
namespace {

constexpr absl::string_view kMetricMark = "# ferry metric: ";
constexpr absl::string_view kProtectedMark = "# ferry protected: ";

class FirstError : public google::protobuf::io::ErrorCollector {
 public:
  void AddError(int line, int column, const std::string& words) override {
    if (message.empty()) message = absl::StrCat(line + 1, ":", column + 1, ": ", words);
  }
  std::string message;
};

// How `path` reads from within `dir`. Both are taken from the working directory where relative.
std::string RelativeTo(const std::string& path, const std::string& dir) {
  const std::string relative =
      std::filesystem::absolute(path).lexically_normal().lexically_relative(
          std::filesystem::absolute(dir.empty() ? "." : dir).lexically_normal());
  return relative.empty() ? path : relative;
}

}  // namespace

std::string SerializeCheckpointState(const proto::CheckpointState& state,
                                     const CheckpointNotes& notes) {
  std::string text;
  google::protobuf::TextFormat::PrintToString(state, &text);
  std::string lines;
  for (const auto& [path, metric] : notes.metrics) {
    absl::StrAppend(&lines, absl::StrFormat("%s%.17g \"%s\"\n", kMetricMark, metric,
                                            absl::Utf8SafeCEscape(path)));
  }
  for (const std::string& path : notes.protected_paths) {
    absl::StrAppend(&lines, kProtectedMark, "\"", absl::Utf8SafeCEscape(path), "\"\n");
  }
  text = lines + text;
  return TextCrcLine(text) + text;
}

absl::StatusOr<proto::CheckpointState> ParseCheckpointState(const std::string& text,
                                                            const std::string& file,
                                                            CheckpointNotes* notes) {
  if (!TextCrcMatches(text)) {
    return DataLoss("the state file '", file,
                    "' is damaged: its contents don't match the crc in its first line");
  }
  google::protobuf::TextFormat::Parser parser;
  FirstError error;
  parser.RecordErrorsTo(&error);
  proto::CheckpointState state;
  if (!parser.ParseFromString(text, &state)) {
    return DataLoss("the state file '", file, "' can't be parsed: ", error.message);
  }
  if (state.model_checkpoint_path().empty()) {
    return DataLoss("Invalid checkpoint state loaded from '", file,
                    "': it has no model_checkpoint_path");
  }
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!notes || !absl::StartsWith(line, "#")) continue;
    const bool metric = absl::ConsumePrefix(&line, kMetricMark);
    if (!metric && !absl::ConsumePrefix(&line, kProtectedMark)) continue;
    const size_t quote = line.find('"');
    double value = 0;
    std::string path;
    if (quote == absl::string_view::npos || line.size() < quote + 2 || line.back() != '"' ||
        (metric && !absl::SimpleAtod(line.substr(0, quote), &value)) ||
        !absl::CUnescape(line.substr(quote + 1, line.size() - quote - 2), &path)) {
      return DataLoss("the state file '", file, "' has a note that can't be read: ", line);
    }
    if (metric) {
      notes->metrics[path] = value;
    } else {
      notes->protected_paths.insert(path);
    }
  }
  return state;
}

absl::StatusOr<proto::CheckpointState> GetCheckpointState(FileSystem* fs, const std::string& dir,
                                                          const std::string& latest_filename,
                                                          CheckpointNotes* notes) {
  const std::string path = JoinPath(dir, latest_filename);
  FERRY_ASSIGN_OR_RETURN(const std::string text, ReadFile(fs, path));
  CheckpointNotes written;
  FERRY_ASSIGN_OR_RETURN(proto::CheckpointState state, ParseCheckpointState(text, path, &written));
  state.set_model_checkpoint_path(JoinPath(dir, state.model_checkpoint_path()));
  for (std::string& p : *state.mutable_all_model_checkpoint_paths()) p = JoinPath(dir, p);
  if (notes) {
    *notes = CheckpointNotes();
    for (const auto& [p, metric] : written.metrics) notes->metrics[JoinPath(dir, p)] = metric;
    for (const std::string& p : written.protected_paths) {
      notes->protected_paths.insert(JoinPath(dir, p));
    }
  }
  return state;
}

std::string FindCheckpoint(FileSystem* fs, const std::string& dir, const std::string& prefix) {
  if (CheckpointExists(fs, prefix)) return prefix;
  const std::string beside = JoinPath(dir, BaseName(prefix));
  return CheckpointExists(fs, beside) ? beside : "";
}

bool CheckpointExists(FileSystem* fs, const std::string& prefix) {
  if (fs->Exists(IndexFileName(prefix))) return true;
  const absl::StatusOr<FileInfo> v1 = fs->Stat(prefix);
  return v1.ok() && !v1->is_directory;
}

absl::StatusOr<std::string> FindLatestCheckpoint(FileSystem* fs, const std::string& dir,
                                                 const std::string& latest_filename) {
  FERRY_ASSIGN_OR_RETURN(const proto::CheckpointState state,
                         GetCheckpointState(fs, dir, latest_filename));
  const std::string& path = state.model_checkpoint_path();
  const std::string found = FindCheckpoint(fs, dir, path);
  if (!found.empty()) return found;
  return DataLoss("Couldn't match files for checkpoint ", path, ", which '",
                  JoinPath(dir, latest_filename), "' names: '",
                  IndexFileName(JoinPath(dir, BaseName(path))), "' is missing");
}

absl::StatusOr<std::string> LatestCheckpoint(FileSystem* fs, const std::string& dir,
                                             const std::string& latest_filename) {
  absl::StatusOr<std::string> latest = FindLatestCheckpoint(fs, dir, latest_filename);
  if (absl::IsNotFound(latest.status())) return "";
  if (absl::IsDataLoss(latest.status())) {
    LogWarning(latest.status().message());
    return "";
  }
  return latest;
}

absl::StatusOr<std::vector<std::string>> ListCheckpoints(FileSystem* fs,
                                                         const std::string& prefix) {
  const std::string dir = DirName(prefix);
  FERRY_ASSIGN_OR_RETURN(const std::vector<std::string> files, fs->List(dir));
  std::map<int64_t, std::string> by_step;
  for (const std::string& file : files) {
    absl::string_view rest = file;
    int64_t step;
    if (absl::ConsumePrefix(&rest, BaseName(prefix) + "-") &&
        absl::ConsumeSuffix(&rest, ".index") && absl::SimpleAtoi(rest, &step) && step >= 0) {
      by_step[step] = absl::StrCat(prefix, "-", rest);
    }
  }
  std::vector<std::string> found;
  for (auto& [step, path] : by_step) found.push_back(std::move(path));
  return found;
}

absl::StatusOr<std::string> GenerateCheckpointState(
    const std::string& dir, const std::string& model_checkpoint_path,
    const std::vector<std::string>& all_paths, const std::vector<double>& all_timestamps,
    double last_preserved_timestamp, const std::string& latest_filename, bool save_relative_paths,
    const CheckpointNotes& notes) {
  if (latest_filename.empty() || BaseName(latest_filename) != latest_filename) {
    return InvalidArgument("'latest_filename' must not contain path components: '", latest_filename,
                           "'");
  }
  const std::string file = JoinPath(dir, latest_filename);
  proto::CheckpointState state;
  const bool absolute_dir = absl::StartsWith(dir, "/");
  const auto written = [&](const std::string& path) {
    const bool relative = save_relative_paths || (!absolute_dir && !absl::StartsWith(path, "/"));
    return relative ? RelativeTo(path, dir) : path;
  };
  state.set_model_checkpoint_path(written(model_checkpoint_path));
  for (const std::string& path : all_paths) state.add_all_model_checkpoint_paths(written(path));
  const bool add = all_paths.empty() || all_paths.back() != model_checkpoint_path;
  if (add) state.add_all_model_checkpoint_paths(state.model_checkpoint_path());
  if (!all_timestamps.empty() &&
      all_timestamps.size() != static_cast<size_t>(state.all_model_checkpoint_paths_size())) {
    return InvalidArgument("there are ", all_timestamps.size(), " timestamps for ",
                           state.all_model_checkpoint_paths_size(), " checkpoints in '", file, "'");
  }
  for (const double t : all_timestamps) state.add_all_model_checkpoint_timestamps(t);
  state.set_last_preserved_timestamp(last_preserved_timestamp);
  if (model_checkpoint_path == file || state.model_checkpoint_path() == latest_filename) {
    return InvalidArgument("Save path '", model_checkpoint_path,
                           "' conflicts with path used for checkpoint state. Please use a "
                           "different save path.");
  }
  CheckpointNotes here;
  for (const auto& [path, metric] : notes.metrics) here.metrics[written(path)] = metric;
  for (const std::string& path : notes.protected_paths) here.protected_paths.insert(written(path));
  return SerializeCheckpointState(state, here);
}

absl::Status UpdateCheckpointState(FileSystem* fs, const std::string& dir,
                                   const std::string& model_checkpoint_path,
                                   const std::vector<std::string>& all_paths,
                                   const std::vector<double>& all_timestamps,
                                   double last_preserved_timestamp,
                                   const std::string& latest_filename, bool save_relative_paths,
                                   const CheckpointNotes& notes) {
  FERRY_ASSIGN_OR_RETURN(const std::string text,
                         GenerateCheckpointState(dir, model_checkpoint_path, all_paths,
                                                 all_timestamps, last_preserved_timestamp,
                                                 latest_filename, save_relative_paths, notes));
  return WriteFileAtomically(fs, JoinPath(dir, latest_filename), text);
}

}  // namespace ferry
