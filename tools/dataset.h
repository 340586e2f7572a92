// Labelled pictures to train on: the digits that are built into the program, files of the same
// form, and MNIST's IDX files (https://yann.lecun.com/exdb/mnist), each plain or gzipped.
//
//   FERRY_ASSIGN_OR_RETURN(const Dataset data, BuiltInDigits());
//   FERRY_ASSIGN_OR_RETURN(const Dataset mnist, LoadDataset(FileSystem::Posix(), "/data/mnist"));
#ifndef FERRY_TOOLS_DATASET_H_
#define FERRY_TOOLS_DATASET_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/base/file_system.h"

namespace ferry {

struct Examples {
  int64_t size() const { return static_cast<int64_t>(labels.size()); }
  std::vector<float> features;  // [size, Dataset::num_features], row by row, in [0, 1].
  std::vector<int64_t> labels;  // [size], in [0, Dataset::num_classes).
};

struct Dataset {
  std::string name;  // For reports: "digits", "MNIST" or the file.
  int64_t num_features = 0;
  int64_t num_classes = 0;
  Examples train, test;  // Neither is empty.
};

// The 1,797 digits of examples/data: 64 features, 10 classes; every fifth row is for testing, as
// the README there says.
absl::StatusOr<Dataset> BuiltInDigits();

// Reads `path`, which is one of
//   - a directory that holds MNIST's four files by their usual names (train-images-idx3-ubyte,
//     train-labels-idx1-ubyte, t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte; a dot before "idx"
//     is as good; with or without .gz), or one of those files, which stands for all four;
//   - a CSV file in the digits' form: 64 numbers of 0 to 16 and the label on each line.
// NotFound when a file is missing, InvalidArgument when one isn't in its form, DataLoss when it is
// cut short or gzip's checks fail; each names the file. Memory is a constant times the files'
// sizes (a gzipped byte can't hold more than 1,032).
absl::StatusOr<Dataset> LoadDataset(FileSystem* fs, const std::string& path);

// `contents` is the whole CSV file, plain or gzipped; `name` is for errors and Dataset::name.
absl::StatusOr<Dataset> ParseDigits(absl::string_view name, absl::string_view contents);

}  // namespace ferry

#endif  // FERRY_TOOLS_DATASET_H_
