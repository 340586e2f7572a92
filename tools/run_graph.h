// `ferry run`: runs a graph from a file: restores or initialises its variables, feeds, fetches,
// saves.
#ifndef FERRY_TOOLS_RUN_GRAPH_H_
#define FERRY_TOOLS_RUN_GRAPH_H_

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "runtime/base/file_system.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

struct RunGraphOptions {
  // One of the three.
  std::string meta;               // A .meta file.
  std::string graph;              // A GraphDef, binary or text.
  std::string saved_model;        // A directory.
  std::vector<std::string> tags;  // Of the SavedModel's graph; empty: its only one, else "serve".
  // Whose names stand for tensors; "": "serving_default", if there is one.
  std::string signature;

  // A prefix, or a directory, whose latest checkpoint is taken.
  std::string checkpoint;
  // An op to run where there is no checkpoint: none is given, or it doesn't exist.
  std::string init;
  // Name -> FILE.npy or a literal: 3, [1, 2.5], [[true], [false]], "text", or bare text for
  // strings.
  std::vector<std::pair<std::string, std::string>> feeds;
  // Name -> file to write ("": none). None at all, nor targets: all outputs of the signature.
  std::vector<std::pair<std::string, std::string>> fetches;
  std::vector<std::string> targets;
  // Run the targets so often, then fetch without them; none: once, together.
  std::optional<int64_t> repeat;
  std::string save;  // A prefix to save the variables under, at the end.
  std::string device = "auto";
  int threads = 0;
  absl::Duration timeout = absl::InfiniteDuration();  // Of each Run.
};

struct RunGraphReport {
  struct Fetched {
    std::string name;  // As it was asked for.
    Tensor value;
    std::string file;  // Where it was written; "": nowhere.
  };
  std::vector<Fetched> fetches;
  std::string restored, saved;   // Prefixes, "" for none.
  int64_t runs = 0;              // Of the targets.
  double seconds = 0;            // That these took,
  double last_half_seconds = 0;  // and the last half of them (runs / 2, rounded down): without what
                                 // the first ones prepare.
};

// Errors name the file, the node or the feed.
absl::StatusOr<RunGraphReport> RunGraph(FileSystem* fs, const RunGraphOptions& options);

// The tensor that a literal stands for, of this dtype. InvalidArgument says what doesn't fit.
absl::StatusOr<Tensor> ParseLiteral(absl::string_view text, DType dtype);
// The same numbers in another type, as TensorFlow takes arrays that are fed. InvalidArgument for a
// number that the type doesn't hold (fractions and floats' precision apart from floats to floats),
// and between numbers, strings and booleans.
absl::StatusOr<Tensor> ConvertNumbers(const Tensor& from, DType dtype);

}  // namespace ferry

#endif  // FERRY_TOOLS_RUN_GRAPH_H_
