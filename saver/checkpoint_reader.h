// CheckpointReader: looks into a checkpoint, by names, as TensorFlow's tf.train.load_checkpoint
// does.
//
//   FERRY_ASSIGN_OR_RETURN(auto reader, CheckpointReader::Open(fs, "model_dir"));  // or a prefix
//   for (const CheckpointReader::TensorInfo& t : reader->Tensors()) …
//   FERRY_ASSIGN_OR_RETURN(Tensor w, reader->GetTensor("w"));
#ifndef FERRY_SAVER_CHECKPOINT_READER_H_
#define FERRY_SAVER_CHECKPOINT_READER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/file_system.h"
#include "runtime/tensor/tensor.h"
#include "saver/bundle_reader.h"

namespace ferry {

// Thread-safe. It reads what it found when it was opened: after a save over the same prefix reads
// fail rather than mix the two (see Changed()).
class CheckpointReader {
 public:
  struct TensorInfo {
    std::string name;
    DType dtype;
    TensorShape shape;
    uint32_t crc32c;  // Not masked; of a tensor in parts or a V1 file 0.
  };

  // `path` is a prefix, or a directory, whose latest checkpoint is taken. Errors as
  // BundleReader::Open; NotFound for a directory without a state file, DataLoss for one whose state
  // file is damaged; InvalidArgument, which says to pass the prefix, for the name of one of a
  // checkpoint's files.
  static absl::StatusOr<std::unique_ptr<CheckpointReader>> Open(FileSystem* fs,
                                                                const std::string& path);

  const std::string& prefix() const { return bundle_->prefix(); }
  int num_shards() const { return bundle_->num_shards(); }
  // By name.
  std::vector<TensorInfo> Tensors() const;
  std::map<std::string, TensorShape> GetVariableToShapeMap() const;
  std::map<std::string, DType> GetVariableToDTypeMap() const;
  // These two, in a checkpoint that TensorFlow 2 saved from objects, take the variables' names as
  // well as their keys.
  bool HasTensor(absl::string_view name) const;
  // NotFound "Key w not found in checkpoint".
  absl::StatusOr<Tensor> GetTensor(absl::string_view name) const { return bundle_->Read(name); }
  // A line a tensor, by name: "v0 (DT_FLOAT) [2,3]".
  std::string DebugString() const;
  // Whether the prefix was written again since Open: its index isn't the file that it was.
  bool Changed() const;

  const BundleReader& bundle() const { return *bundle_; }

 private:
  CheckpointReader(FileSystem* fs, std::unique_ptr<BundleReader> bundle)
      : fs_(fs), bundle_(std::move(bundle)) {}
  FileSystem* const fs_;
  const std::unique_ptr<BundleReader> bundle_;
  FileInfo index_;
};

// What `ferry verify` says of a checkpoint.
struct VerifyReport {
  std::string prefix;
  int tensors = 0;
  uint64_t data_bytes = 0;           // Of the tensors.
  std::vector<absl::Status> damage;  // One for each thing that is wrong; none: all is sound.
};

// Reads every byte of the checkpoint's files (a prefix, or a directory's latest), its `.meta` too
// where there is one. What can't be opened at all is damage as well.
// `progress` may be called with the bytes of tensors read so far and in all.
VerifyReport VerifyCheckpoint(FileSystem* fs, const std::string& path, ThreadPool* pool = nullptr,
                              const std::function<void(uint64_t, uint64_t)>& progress = nullptr);

}  // namespace ferry

#endif  // FERRY_SAVER_CHECKPOINT_READER_H_
