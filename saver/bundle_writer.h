// BundleWriter: writes a checkpoint in TensorFlow's V2 format, PREFIX.index and
// PREFIX.data-00000-of-00001, durably and so that at every moment the old checkpoint of that prefix
// or the new one is whole.
//
//   FERRY_ASSIGN_OR_RETURN(auto writer, BundleWriter::Open(fs, "model_dir/model.ckpt-100"));
//   FERRY_RETURN_IF_ERROR(writer->Add("w", w));          // in the order of the data file
//   FERRY_RETURN_IF_ERROR(writer->AddFile(…));           // what the checkpoint has beside it
//   FERRY_RETURN_IF_ERROR(writer->Commit());             // the index: the one commit point
//
// The order of what reaches the disk. A sync costs the disk's latency, and several at once hardly
// more than one, so there are three rounds of them:
//
//   data and files beside it under their own names, index and files that wait for the commit under
//   temporary ones: fsync of each and of the directory
//     ─▶ index's name ─▶ directory fsync
//     ─▶ names of files that wait for the commit ─▶ directory fsync ─▶ old data files unlinked
//
// Data that no index names is nobody's, so it needs no other name while it is written. What would
// replace a file gets a temporary name in any case, and takes the file's when it is synced.
//
// Over an existing checkpoint the data gets another number of shards in its names (an empty last
// one), so that the old index goes on naming the old data until it is replaced itself.
//
// A checkpoint may have several data files, each with a writer of its own that another thread may
// use: see BundleWriterOptions::more_shards.
//
// Format: an index is a LevelDB table (see table_reader.h). Its first key is "", with a
// BundleHeaderProto; each other key is a tensor's name, with a BundleEntryProto. A tensor saved in
// parts has an entry that lists them, and each part's bytes lie under SliceKey(name, part).
// Numbers lie in the data file as in memory. A string tensor is the varint64 length of each
// element, then the masked crc32c of these lengths (each taken as 4 little-endian bytes, 8 where a
// length needs more), then the elements' bytes; the entry's crc is taken over the lengths in that
// same form, the stored crc of them, and the bytes.
#ifndef FERRY_SAVER_BUNDLE_WRITER_H_
#define FERRY_SAVER_BUNDLE_WRITER_H_

#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "proto/tensor_bundle.pb.h"
#include "runtime/base/file_system.h"
#include "runtime/tensor/tensor.h"
#include "saver/staging.h"
#include "saver/tensor_slice.h"

namespace ferry {

// The end of every temporary name that this project gives; a clean-up may remove such files.
inline constexpr char kTemporarySuffix[] = ".ferry-tmp";

std::string IndexFileName(absl::string_view prefix);
std::string DataFileName(absl::string_view prefix, int shard, int num_shards);
// Takes "model.ckpt-5.data-00000-of-00002" apart; false if it is no such name.
bool ParseDataFileName(absl::string_view file, std::string* prefix, int* shard, int* num_shards);

// Where a tensor's bytes come from, asked for piece by piece from the beginning.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  // Copies bytes [offset, offset + n) to `dst` and extends `*crc` by the bytes at `dst`. Not called
  // for a source with a gpu().
  virtual absl::Status Copy(uint64_t offset, size_t n, char* dst, uint32_t* crc) = 0;
  // Told of each piece when it lies in the host's memory on its way to the file, in order. An error
  // ends the writing.
  virtual absl::Status Arrived(uint64_t offset, const char* bytes, size_t n) {
    (void)offset, (void)bytes, (void)n;
    return absl::OkStatus();
  }

  // The GPU in whose memory the bytes lie: then the writer brings them to the host itself, some
  // slots at a time, and the source has to live until FinishData.
  virtual GpuDevice* gpu() const { return nullptr; }
  // Where bytes [offset, offset + n) lie. Until Release, which follows from the same thread, they
  // stay as they are; copies that are enqueued on the to-host stream before that are right.
  virtual absl::StatusOr<const void*> Hold(uint64_t offset, size_t n) {
    (void)offset, (void)n;
    return absl::InternalError("not a GPU's");
  }
  virtual void Release(uint64_t offset, size_t n) { (void)offset, (void)n; }
};

struct BundleWriterOptions {
  // The staging memory. Null: the writer makes its own of the sizes below.
  StagingRing* ring = nullptr;
  int slots = StagingRing::kUsualSlots;
  size_t slot_bytes = StagingRing::kUsualSlotBytes;
  BlockWriterOptions block;  // `depth` is the ring's.
  // The caller holds the lock on the prefix's directory; otherwise the writer takes it until it
  // is destroyed.
  bool directory_locked = false;
  // The data files after the first: each gets a writer of its own, BundleWriter::shard(1), ….
  struct Shard {
    StagingRing* ring = nullptr;  // As above.
    uint64_t expected_bytes = 0;  // As in `block`.
  };
  std::vector<Shard> more_shards;
};

// Small files of one save, on their way to their names in one directory.
class NewFiles {
 public:
  explicit NewFiles(FileSystem* fs) : fs_(fs) {}
  NewFiles(const NewFiles&) = delete;
  NewFiles& operator=(const NewFiles&) = delete;
  ~NewFiles();  // Removes those of stages that weren't named.

  // Writes a file, under its own name when `in_place` and there is no such file, else under a
  // temporary one. `stage` tells when it is named.
  absl::Status Add(int stage, const std::string& path, absl::string_view contents, bool in_place);
  // Begins to bring all bytes to stable storage; waits until they are there.
  void StartSync();
  absl::Status Sync();
  // Names the files of that stage, in the order in which they came. From then on they stay.
  absl::Status Name(int stage);

 private:
  struct File {
    int stage;
    std::string path;
    std::string written_to;              // Until the stage is named.
    std::unique_ptr<WritableFile> file;  // Until it is synced.
  };
  FileSystem* const fs_;
  std::vector<File> files_;
};

// Not thread-safe; but each shard's writer may be used by a thread of its own until Commit. After
// an error every later call returns that error.
class BundleWriter {
 public:
  // Makes the prefix's directory if only that level is missing. NotFound "Parent directory of P
  // doesn't exist, can't save." if more is.
  static absl::StatusOr<std::unique_ptr<BundleWriter>> Open(
      FileSystem* fs, const std::string& prefix, const BundleWriterOptions& options = {});
  // Unless committed, removes the files that were made.
  ~BundleWriter();

  // The writer of data file k, owned by this one; 0 is this one. Only Add, AddSlice and FinishData
  // are for the others. A tensor in two shards is an error of Commit, parts of one may be spread.
  BundleWriter* shard(size_t k) { return k == 0 ? this : more_[k - 1].get(); }

  // InvalidArgument for a name added before, the empty name, and dtypes without a file form.
  absl::Status Add(const std::string& name, const Tensor& tensor);
  // A tensor of numbers from a source of num_elements * ElementSize bytes. A tensor above may lie
  // in a GPU's memory; what its compute stream was given by then is what is saved.
  absl::Status Add(const std::string& name, DType dtype, const TensorShape& shape,
                   ByteSource* source);
  // A part of the tensor `name` of shape `full_shape`; `tensor` has the part's shape. A slice that
  // is full in every dimension is the whole tensor.
  absl::Status AddSlice(const std::string& name, const TensorShape& full_shape,
                        const TensorSlice& slice, const Tensor& tensor);
  absl::Status AddSlice(const std::string& name, DType dtype, const TensorShape& full_shape,
                        const TensorSlice& slice, ByteSource* source);

  // A file in the prefix's directory that Commit gives its name: before the index, so that there is
  // no checkpoint without it, or once the index is durable. Its bytes go to the disk meanwhile.
  enum class Named { kBeforeCommit, kAfterCommit };
  absl::Status AddFile(const std::string& path, absl::string_view contents, Named when);

  // No more tensors after this; their bytes are on their way, but not durable.
  absl::Status FinishData();
  // All is durable.
  absl::Status Commit();

  // Whether the new checkpoint stands under its name. After a Commit that failed that may be so:
  // then it is whole, but isn't sure to outlive a power loss, or lacks files kAfterCommit.
  bool in_place() const { return index_renamed_; }
  uint64_t data_bytes() const { return offset_; }       // Of this shard.
  const char* write_method() const { return method_; }  // BlockWriter::method().

 private:
  BundleWriter(FileSystem* fs, std::string prefix)
      : fs_(fs), prefix_(std::move(prefix)), files_(fs) {}
  absl::Status Start(const BundleWriterOptions& options);
  absl::Status OpenData(const BundleWriterOptions& options);
  absl::Status FinishWrites();  // All bytes are in the file, whose length is right.
  absl::Status Do(absl::Status status);  // Remembers the first error.
  absl::StatusOr<proto::BundleEntryProto*> NewEntry(const std::string& key, DType dtype,
                                                    const TensorShape& shape);
  absl::Status NoteSlice(const std::string& name, DType dtype, const TensorShape& full_shape,
                         const TensorSlice& slice, TensorShape* shape);
  absl::Status AppendStrings(const Tensor& tensor, proto::BundleEntryProto* entry);
  absl::Status AppendSource(ByteSource* source, uint64_t size, proto::BundleEntryProto* entry);
  absl::Status AppendFromGpu(ByteSource* source, uint64_t size, proto::BundleEntryProto* entry);
  absl::Status Append(absl::string_view bytes, uint32_t* crc);
  // Starts the write of the current slot's first `size` bytes and moves to the next slot.
  absl::Status WriteSlot(size_t size);

  FileSystem* const fs_;
  const std::string prefix_;
  std::unique_ptr<FileLock> lock_;
  absl::Status status_;
  // In the names of this save's files; those beyond the writers' are empty.
  int num_shards_ = 1;
  int shard_ = 0;                                    // Whose bytes these are.
  std::vector<std::unique_ptr<BundleWriter>> more_;  // The writers of the other shards.
  std::unique_ptr<BlockWriter> file_;
  const char* method_ = "";
  StagingRing own_ring_;
  StagingRing* ring_ = nullptr;
  int slot_ = 0;              // The one being filled,
  size_t filled_ = 0;         // so far,
  uint64_t slot_offset_ = 0;  // and where it goes in the file.
  uint64_t writes_ = 0, waited_ = 0;

  // Bytes on their way from a GPU to a slot, and slots whose bytes are (oldest first): their crcs
  // are taken, and they are written, once they have come.
  struct GpuCrc {
    uint32_t crc = 0;
    uint64_t left = 0;
    proto::BundleEntryProto* entry = nullptr;
  };
  struct GpuPiece {
    ByteSource* source;
    uint64_t offset;
    size_t n;
    size_t at;  // In the slot.
    GpuCrc* crc;
  };
  struct Filling {
    int slot = 0;
    size_t size = 0;
    uint64_t file_offset = 0;
    std::vector<GpuPiece> pieces;
    std::vector<std::pair<GpuDevice*, GpuEvent>> copied;
  };
  absl::Status CopyFromGpus(Filling* f);
  absl::Status CopyFromGpu(GpuDevice* gpu, Filling* f);
  absl::Status FinishOldest();
  absl::Status Write(int slot, size_t size, uint64_t file_offset);
  std::vector<GpuPiece> pieces_;  // Of the slot being filled.
  std::deque<Filling> arriving_;
  std::deque<GpuCrc> crcs_;
  std::vector<std::unique_ptr<ByteSource>> own_sources_;
  std::map<std::pair<GpuDevice*, int>, BufferRef> packed_;  // Where a slot's small pieces gather.
  uint64_t offset_ = 0;  // Bytes of tensors so far.
  std::map<std::string, proto::BundleEntryProto> entries_;
  bool data_finished_ = false, has_last_stage_ = false, index_renamed_ = false;
  std::vector<std::string> made_;  // Data files, to remove when the save fails.
  NewFiles files_;
};

// Makes one checkpoint of several (the parts of a sharded save): moves their data files to
// `prefix`'s names and writes one index, with the same commit protocol, then removes the parts'
// index files and, with `delete_old_dirs`, their directories where nothing is left. InvalidArgument
// when two parts hold the same tensor (parts of one tensor may be spread).
absl::Status MergeBundles(FileSystem* fs, const std::vector<std::string>& parts,
                          const std::string& prefix, bool delete_old_dirs,
                          bool directory_locked = false);

}  // namespace ferry

#endif  // FERRY_SAVER_BUNDLE_WRITER_H_
