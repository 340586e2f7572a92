// BundleReader: reads a checkpoint in TensorFlow's V2 format (PREFIX.index and its data files; see
// bundle_writer.h) or, where there is no index, in the old V1 format (one file, PREFIX). It trusts
// no byte: every crc is checked, every size is held against the files before memory is taken, and
// memory taken is at most a constant times the files' size.
//
//   FERRY_ASSIGN_OR_RETURN(auto reader, BundleReader::Open(fs, "model_dir/model.ckpt-100"));
//   FERRY_ASSIGN_OR_RETURN(Tensor w, reader->Read("w"));
//
// Many tensors at once, straight into their memory, on all threads:
//
//   std::vector<BundleReader::Request> requests = {{entry, tensor.raw()}, …};
//   FERRY_RETURN_IF_ERROR(reader->ReadInto(requests, &pool));
#ifndef FERRY_SAVER_BUNDLE_READER_H_
#define FERRY_SAVER_BUNDLE_READER_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "absl/functional/function_ref.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "proto/tensor_bundle.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/base/mutex.h"
#include "runtime/base/thread_pool.h"
#include "runtime/tensor/tensor.h"
#include "saver/tensor_slice.h"

namespace ferry {

// Goes through an index: checks its table and header, then calls `fn` with each key and entry,
// whose fields are not checked. For those that rewrite indices; others use BundleReader.
absl::Status ReadIndex(
    FileSystem* fs, const std::string& prefix, int* num_shards,
    absl::FunctionRef<absl::Status(absl::string_view key, const proto::BundleEntryProto& entry)>
        fn);

class GpuUpload;

// Thread-safe once open.
class BundleReader {
 public:
  // One tensor, or one part of a tensor.
  struct Entry {
    std::string name;  // Of the tensor; of a part too.
    DType dtype = DType::kInvalid;
    TensorShape shape;  // Of the part, where it is one.
    int shard = 0;
    uint64_t offset = 0;
    uint64_t size = 0;     // In the file.
    uint32_t crc = 0;      // Not masked.
    absl::string_view v1;  // V1: the serialised SavedTensorSlices with the data.
    std::string problem;   // Why it can't be read; empty if it can.
    // A tensor that was saved in parts: what they cover and their entries. It has no bytes itself.
    std::vector<TensorSlice> slices;
    std::vector<Entry> parts;
  };

  // InvalidArgument "The passed save_path is not a valid checkpoint: P" when there is neither
  // P.index nor P. DataLoss, naming the file, for damage.
  static absl::StatusOr<std::unique_ptr<BundleReader>> Open(FileSystem* fs,
                                                            const std::string& prefix);

  const std::string& prefix() const { return prefix_; }
  bool is_v1() const { return is_v1_; }
  int num_shards() const { return num_shards_; }  // 0 for V1.
  // All tensors, in the byte order of their names.
  const std::vector<Entry>& entries() const { return entries_; }
  const Entry* Find(absl::string_view name) const;  // Null if there is none.
  // In a checkpoint that TensorFlow 2 saved from objects, what a variable of the name (as a Saver
  // would save it) is called there; "" if there is no such. DataLoss for a damaged table of them.
  absl::StatusOr<std::string> KeyOfObject(absl::string_view name) const;
  // All those names and keys, for as long as this reader lives.
  absl::StatusOr<const std::map<std::string, std::string>*> ObjectNames() const;
  // By its name, or that of an object. NotFound "Key w not found in checkpoint", and the nearest
  // names that it has.
  absl::StatusOr<const Entry*> Lookup(absl::string_view name) const;

  // A whole tensor, or a part of it, however it was saved. `pool` may be null.
  absl::StatusOr<Tensor> Read(absl::string_view name, ThreadPool* pool = nullptr) const;
  absl::StatusOr<Tensor> ReadSlice(absl::string_view name, const TensorSlice& slice,
                                   ThreadPool* pool = nullptr) const;

  // Without reading: whether the entry (and all its parts) can be read as the index and the data
  // files' sizes say. NotFound names a missing file; DataLoss a file that is too short.
  absl::Status Check(const Entry& entry) const;

  // Numbers that lie whole in a V2 checkpoint, straight into memory.
  struct Request {
    const Entry* entry;        // Neither strings nor parts; Check() was OK.
    void* out;                 // entry->size bytes. Null: only the crc is checked.
    absl::Status status = {};  // What became of it.
    GpuDevice* gpu = nullptr;  // In whose memory, from its allocator, `out` lies; null: the host's.
  };
  static bool CanReadInto(const Entry& entry) {
    return entry.dtype != DType::kString && entry.parts.empty() && entry.v1.empty();
  }
  // Reads all, even after errors; returns the first error. Bytes for GPUs go through pinned slots;
  // the GPUs' work that is enqueued later sees them. DataLoss "TensorBundle at P shard 0
  // (8 bytes): Checksum does not match" names the tensor.
  absl::Status ReadInto(absl::Span<Request> requests, ThreadPool* pool) const;

  // Reads every byte of every file and accounts for each: one error for each thing that is
  // damaged, none for a sound checkpoint. Bytes that no tensor owns are damage too.
  // `progress` may be called with the bytes of tensors that were read so far.
  std::vector<absl::Status> Verify(ThreadPool* pool,
                                   const std::function<void(uint64_t)>& progress = nullptr) const;

 private:
  struct Piece;

  BundleReader(FileSystem* fs, std::string prefix) : fs_(fs), prefix_(std::move(prefix)) {}
  absl::Status OpenV2(const std::string& index_path);
  absl::Status OpenV1();
  absl::Status TakeEntry(absl::string_view key, const proto::BundleEntryProto& proto,
                         Entry* entry) const;
  void FindOverlaps(std::vector<Entry*> entries) const;
  absl::StatusOr<const RandomAccessFile*> Shard(int shard) const;
  absl::Status CheckEntry(const Entry& entry) const;
  absl::StatusOr<Tensor> ReadEntry(const Entry& entry, ThreadPool* pool) const;
  absl::Status ReadStrings(const Entry& entry, Tensor* out) const;
  absl::Status ReadV1(const Entry& entry, Tensor* out) const;
  absl::Status ReadPiece(Piece* piece, GpuUpload* upload) const;
  absl::Status ReadPieceToGpus(Piece* piece, GpuUpload* upload) const;
  absl::Status BadChecksum(const Entry& entry, uint32_t found) const;

  FileSystem* const fs_;
  const std::string prefix_;
  bool is_v1_ = false;
  int num_shards_ = 0;
  std::vector<Entry> entries_;
  std::string v1_contents_;
  mutable Mutex mu_;
  mutable std::map<int, std::unique_ptr<RandomAccessFile>> shards_ ABSL_GUARDED_BY(mu_);
  // Once they were asked for; stays then.
  mutable std::optional<std::map<std::string, std::string>> object_names_ ABSL_GUARDED_BY(mu_);
};

// Copies the elements that the box at `from_start` in `from` and the box at `to_start` in `to`
// share: `size` long in each dimension. Tensors of one dtype and rank. Returns how many.
int64_t CopyBox(const Tensor& from, absl::Span<const int64_t> from_start, Tensor* to,
                absl::Span<const int64_t> to_start, absl::Span<const int64_t> size);

}  // namespace ferry

#endif  // FERRY_SAVER_BUNDLE_READER_H_
