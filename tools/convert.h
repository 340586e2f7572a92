// `ferry convert`: tensors from one kind of file into another: checkpoints, .safetensors, .npz.
#ifndef FERRY_TOOLS_CONVERT_H_
#define FERRY_TOOLS_CONVERT_H_

#include <cstdint>
#include <memory>
#include <string>

#include "absl/status/statusor.h"
#include "tools/tensor_file.h"

namespace ferry {

enum class TensorFileKind { kCheckpoint, kSafetensors, kNpz };
// By the name's ending: .safetensors, .npz; anything else is a checkpoint's prefix.
TensorFileKind KindOfTensorFile(const std::string& path);

// Opens any of them, a checkpoint by its prefix, or by its directory (the latest one).
absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensors(FileSystem* fs, const std::string& path);

struct ConvertReport {
  int tensors = 0;
  int64_t parameters = 0;  // Elements in all.
  uint64_t bytes = 0;      // Of the elements, as they were read.
  int widened = 0;         // bfloat16 tensors that became float32, for NumPy.
};

// Writes the tensors of `from` to `to`, durably and atomically, a few MiB at a time (strings, parts
// and V1 checkpoints a tensor at a time). Errors leave `to` as it was, and name the file and the
// tensors whose types it can't hold.
absl::StatusOr<ConvertReport> ConvertTensors(FileSystem* fs, const std::string& from,
                                             const std::string& to,
                                             const TensorProgress& progress = {});

}  // namespace ferry

#endif  // FERRY_TOOLS_CONVERT_H_
