// BundleWriter: see bundle_writer.h.
#include "saver/bundle_writer.h"

#include <leveldb/env.h>
#include <leveldb/options.h>
#include <leveldb/table_builder.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_format.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"
#include "runtime/op/attr.h"
#include "saver/atomic_file.h"
#include "saver/bundle_reader.h"
#include "saver/table_reader.h"

namespace ferry {
namespace {

// What TableBuilder writes to: a string.
class StringSink : public leveldb::WritableFile {
 public:
  leveldb::Status Append(const leveldb::Slice& data) override {
    contents.append(data.data(), data.size());
    return leveldb::Status::OK();
  }
  leveldb::Status Close() override { return leveldb::Status::OK(); }
  leveldb::Status Flush() override { return leveldb::Status::OK(); }
  leveldb::Status Sync() override { return leveldb::Status::OK(); }

  std::string contents;
};

absl::StatusOr<std::string> BuildIndex(
    int num_shards, const std::map<std::string, proto::BundleEntryProto>& entries) {
  leveldb::Options options;
  options.block_size = 256 << 10;
  options.compression = leveldb::kNoCompression;
  options.block_restart_interval = 16;
  StringSink sink;
  leveldb::TableBuilder builder(options, &sink);
  proto::BundleHeaderProto header;
  header.set_num_shards(num_shards);
  header.set_endianness(proto::BundleHeaderProto::LITTLE);
  header.mutable_version()->set_producer(1);
  std::string value;
  header.SerializeToString(&value);
  builder.Add("", value);
  for (const auto& [key, entry] : entries) {
    entry.SerializeToString(&value);
    builder.Add(key, value);
  }
  const leveldb::Status status = builder.Finish();
  if (!status.ok()) return Internal("building the index: ", status.ToString());
  return std::move(sink.contents);
}

// When a file of a save is named; each stage is durable before the next begins.
enum Stage : int { kBesideIndex, kIndex, kAfterIndex };

// Gives all synced files their names. The index is in place from the moment that `*renamed` is
// true.
absl::Status CommitFiles(FileSystem* fs, const std::string& directory, bool has_last_stage,
                         NewFiles* files, bool* renamed) {
  FERRY_RETURN_IF_ERROR(files->Name(kBesideIndex));
  FERRY_RETURN_IF_ERROR(fs->SyncDir(directory));
  FERRY_RETURN_IF_ERROR(files->Name(kIndex));
  *renamed = true;
  FERRY_RETURN_IF_ERROR(fs->SyncDir(directory));
  if (!has_last_stage) return absl::OkStatus();
  FERRY_RETURN_IF_ERROR(files->Name(kAfterIndex));
  return fs->SyncDir(directory);
}

// The numbers of shards that data files of this prefix have in their names.
absl::StatusOr<std::set<int>> ShardCounts(FileSystem* fs, const std::string& prefix) {
  FERRY_ASSIGN_OR_RETURN(std::vector<std::string> files, fs->List(DirName(prefix)));
  const std::string base = BaseName(prefix);
  std::set<int> counts;
  for (const std::string& file : files) {
    std::string of;
    int shard, count;
    if (ParseDataFileName(file, &of, &shard, &count) && of == base) counts.insert(count);
  }
  return counts;
}

// How many shards the files of a save of `needed` are to name: another number than those of a
// checkpoint that stands there under the same prefix.
absl::StatusOr<int> ChooseShards(FileSystem* fs, const std::string& prefix, int needed,
                                 bool* existed) {
  // Only who knows that there is no index may write over data of that name.
  const absl::Status found = fs->Stat(IndexFileName(prefix)).status();
  *existed = found.ok();
  if (absl::IsNotFound(found)) return needed;
  FERRY_RETURN_IF_ERROR(found);
  FERRY_ASSIGN_OR_RETURN(const std::set<int> taken, ShardCounts(fs, prefix));
  int count = needed;
  while (taken.count(count) > 0) ++count;
  return count;
}

// Unlinks data files of the prefix that name another number of shards. What can't be removed now
// is left for the next save.
void RemoveOtherShards(FileSystem* fs, const std::string& prefix, int num_shards) {
  const absl::StatusOr<std::set<int>> counts = ShardCounts(fs, prefix);
  if (!counts.ok()) return;
  for (const int count : *counts) {
    if (count == num_shards) continue;
    for (int shard = 0; shard < count; ++shard) {
      const absl::Status status = fs->Unlink(DataFileName(prefix, shard, count));
      if (!status.ok() && !absl::IsNotFound(status)) return;
    }
  }
}

// The name of a data file that no index refers to. What a killed save left there goes: emptying it
// would reach through a hard link.
absl::StatusOr<std::string> ClaimDataFile(FileSystem* fs, const std::string& prefix, int shard,
                                          int num_shards) {
  std::string path = DataFileName(prefix, shard, num_shards);
  const absl::Status removed = fs->Unlink(path);
  if (!removed.ok() && !absl::IsNotFound(removed)) return removed;
  return path;
}

void RemoveFiles(FileSystem* fs, const std::vector<std::string>& files) {
  for (const std::string& file : files) fs->Unlink(file).IgnoreError();
}

absl::Status EnsureDirectory(FileSystem* fs, const std::string& prefix) {
  if (BaseName(prefix).empty()) {
    return InvalidArgument("'", prefix, "' names a directory, not a checkpoint in it");
  }
  const std::string directory = DirName(prefix);
  const absl::StatusOr<FileInfo> found = fs->Stat(directory);
  if (found.ok()) {
    if (found->is_directory) return absl::OkStatus();
    return FailedPrecondition("'", directory, "' isn't a directory, can't save '", prefix, "'");
  }
  if (!absl::IsNotFound(found.status())) return found.status();
  const absl::Status made = fs->CreateDir(directory);
  if (absl::IsNotFound(made)) {
    return NotFound("Parent directory of ", prefix, " doesn't exist, can't save.");
  }
  if (!made.ok() && !absl::IsAlreadyExists(made)) return made;
  return fs->SyncDir(DirName(directory));
}

// Adds an entry of another shard's to those of a checkpoint; where it lists parts, to those that
// are known.
absl::StatusOr<proto::BundleEntryProto*> MergeEntry(
    const std::string& key, const proto::BundleEntryProto& entry,
    std::map<std::string, proto::BundleEntryProto>* merged) {
  const auto [it, fresh] = merged->try_emplace(key, entry);
  proto::BundleEntryProto* there = &it->second;
  if (fresh) return there;
  if (entry.slices_size() == 0 && there->slices_size() == 0) {
    return InvalidArgument("tensor '", key, "' is in two shards");
  }
  if (entry.slices_size() == 0 || there->slices_size() == 0 || there->dtype() != entry.dtype() ||
      there->shape().SerializeAsString() != entry.shape().SerializeAsString()) {
    return InvalidArgument("the parts of tensor '", key, "' differ in dtype or shape");
  }
  there->mutable_slices()->MergeFrom(entry.slices());
  return there;
}

// The length as the crc of a string tensor's lengths sees it.
uint32_t ExtendByLength(uint32_t crc, uint64_t length) {
  char bytes[8];
  for (int i = 0; i < 8; ++i) bytes[i] = static_cast<char>(length >> (8 * i));
  return ExtendCrc32c(crc, bytes, length <= UINT32_MAX ? 4 : 8);
}

}  // namespace

std::string IndexFileName(absl::string_view prefix) { return absl::StrCat(prefix, ".index"); }

std::string DataFileName(absl::string_view prefix, int shard, int num_shards) {
  return absl::StrFormat("%s.data-%05d-of-%05d", prefix, shard, num_shards);
}

bool ParseDataFileName(absl::string_view file, std::string* prefix, int* shard, int* num_shards) {
  const size_t data = file.rfind(".data-");
  if (data == absl::string_view::npos) return false;
  const absl::string_view numbers = file.substr(data + 6);
  const size_t of = numbers.find("-of-");
  if (of == absl::string_view::npos || !absl::SimpleAtoi(numbers.substr(0, of), shard) ||
      !absl::SimpleAtoi(numbers.substr(of + 4), num_shards)) {
    return false;
  }
  *prefix = std::string(file.substr(0, data));
  // Only the form that is written counts: no signs, spaces, or other widths.
  return *shard >= 0 && *shard < *num_shards && file == DataFileName(*prefix, *shard, *num_shards);
}

NewFiles::~NewFiles() {
  for (File& f : files_) {
    f.file.reset();
    if (!f.written_to.empty()) fs_->Unlink(f.written_to).IgnoreError();
  }
}

absl::Status NewFiles::Add(int stage, const std::string& path, absl::string_view contents,
                           bool in_place) {
  in_place = in_place && absl::IsNotFound(fs_->Stat(path).status());
  files_.push_back({stage, path, in_place ? path : path + kTemporarySuffix, nullptr});
  File& f = files_.back();
  FERRY_ASSIGN_OR_RETURN(f.file, fs_->NewWritableFile(f.written_to));
  FERRY_RETURN_IF_ERROR(f.file->Append(contents));
  // So many bytes take a while; the sync of few ones waits for the others' and goes with them.
  constexpr size_t kMany = size_t{1} << 20;
  if (contents.size() >= kMany) f.file->StartSync();
  return absl::OkStatus();
}

void NewFiles::StartSync() {
  for (File& f : files_) {
    if (f.file) f.file->StartSync();
  }
}

absl::Status NewFiles::Sync() {
  for (File& f : files_) {
    if (!f.file) continue;
    FERRY_RETURN_IF_ERROR(f.file->Sync());
    FERRY_RETURN_IF_ERROR(f.file->Close());
    f.file.reset();
  }
  return absl::OkStatus();
}

absl::Status NewFiles::Name(int stage) {
  for (File& f : files_) {
    if (f.stage != stage) continue;
    if (f.written_to != f.path) FERRY_RETURN_IF_ERROR(fs_->Rename(f.written_to, f.path));
    f.written_to.clear();
  }
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<BundleWriter>> BundleWriter::Open(
    FileSystem* fs, const std::string& prefix, const BundleWriterOptions& options) {
  std::unique_ptr<BundleWriter> writer(new BundleWriter(fs, prefix));
  FERRY_RETURN_IF_ERROR(writer->Start(options));
  return writer;
}

absl::Status BundleWriter::Start(const BundleWriterOptions& options) {
  FERRY_RETURN_IF_ERROR(EnsureDirectory(fs_, prefix_));
  if (!options.directory_locked) {
    FERRY_ASSIGN_OR_RETURN(lock_, LockDirectory(fs_, DirName(prefix_)));
  }
  const int needed = 1 + static_cast<int>(options.more_shards.size());
  bool existed = false;
  FERRY_ASSIGN_OR_RETURN(num_shards_, ChooseShards(fs_, prefix_, needed, &existed));
  FERRY_RETURN_IF_ERROR(OpenData(options));
  for (const BundleWriterOptions::Shard& shard : options.more_shards) {
    more_.push_back(std::unique_ptr<BundleWriter>(new BundleWriter(fs_, prefix_)));
    more_.back()->shard_ = static_cast<int>(more_.size());
    more_.back()->num_shards_ = num_shards_;
    BundleWriterOptions its = options;
    its.ring = shard.ring;
    its.block.expected_bytes = shard.expected_bytes;
    FERRY_RETURN_IF_ERROR(more_.back()->OpenData(its));
  }
  return absl::OkStatus();
}

absl::Status BundleWriter::OpenData(const BundleWriterOptions& options) {
  ring_ = options.ring ? options.ring : &own_ring_;
  if (!options.ring) FERRY_RETURN_IF_ERROR(own_ring_.Init(options.slots, options.slot_bytes));
  BlockWriterOptions block = options.block;
  block.depth = ring_->slots();
  FERRY_ASSIGN_OR_RETURN(const std::string data, ClaimDataFile(fs_, prefix_, shard_, num_shards_));
  made_.push_back(data);
  FERRY_ASSIGN_OR_RETURN(file_, fs_->NewBlockWriter(data, block));
  method_ = file_->method();
  return absl::OkStatus();
}

BundleWriter::~BundleWriter() {
  more_.clear();  // While the directory is locked.
  for (const Filling& f : arriving_) {
    for (const auto& [gpu, copied] : f.copied) gpu->Synchronize(copied).IgnoreError();
  }
  file_.reset();  // Waits for writes that are in flight.
  if (!index_renamed_) RemoveFiles(fs_, made_);
}

absl::Status BundleWriter::Do(absl::Status status) {
  KeepFirst(&status_, std::move(status));
  return status_;
}

absl::StatusOr<proto::BundleEntryProto*> BundleWriter::NewEntry(const std::string& key, DType dtype,
                                                                const TensorShape& shape) {
  if (data_finished_) return Internal("a tensor was added after the data was finished");
  if (key.empty()) return InvalidArgument("a tensor in a checkpoint needs a name");
  if (dtype != DType::kString && (ElementSize(dtype) == 0 || IsRef(dtype))) {
    return InvalidArgument("tensor '", key, "' of dtype ", DTypeName(dtype), " can't be saved");
  }
  const auto [it, fresh] = entries_.try_emplace(key);
  if (!fresh) return InvalidArgument("two tensors are to be saved under the name '", key, "'");
  proto::BundleEntryProto* entry = &it->second;
  entry->set_dtype(static_cast<proto::DataType>(dtype));
  entry->mutable_shape();  // Present for a scalar too.
  for (const int64_t dim : shape.dims()) entry->mutable_shape()->add_dim()->set_size(dim);
  entry->set_offset(static_cast<int64_t>(offset_));
  entry->set_shard_id(shard_);
  return entry;
}

namespace {

// A tensor in a GPU's memory, as it is when all that was enqueued by now is done.
class GpuTensorSource : public ByteSource {
 public:
  explicit GpuTensorSource(Tensor tensor) : tensor_(std::move(tensor)) {}
  absl::Status Copy(uint64_t, size_t, char*, uint32_t*) override {
    return Internal("a GPU's tensor");
  }
  GpuDevice* gpu() const override { return tensor_.buffer()->gpu(); }
  absl::StatusOr<const void*> Hold(uint64_t offset, size_t) override {
    if (!ordered_) FERRY_RETURN_IF_ERROR(gpu()->Order(GpuStream::kCompute, GpuStream::kToHost));
    ordered_ = true;
    return static_cast<const void*>(static_cast<const char*>(tensor_.raw()) + offset);
  }

 private:
  const Tensor tensor_;
  bool ordered_ = false;
};

}  // namespace

absl::Status BundleWriter::Add(const std::string& name, const Tensor& tensor) {
  FERRY_RETURN_IF_ERROR(status_);
  class Memory : public ByteSource {
   public:
    explicit Memory(const Tensor& t) : bytes_(static_cast<const char*>(t.raw())) {}
    absl::Status Copy(uint64_t offset, size_t n, char* dst, uint32_t* crc) override {
      *crc = CopyAndExtendCrc32c(*crc, dst, bytes_ + offset, n);
      return absl::OkStatus();
    }

   private:
    const char* bytes_;
  };
  if (!tensor.initialized()) return Do(InvalidArgument("tensor '", name, "' has no contents"));
  if (tensor.buffer()->gpu()) {
    own_sources_.push_back(std::make_unique<GpuTensorSource>(tensor));
    return Add(name, tensor.dtype(), tensor.shape(), own_sources_.back().get());
  }
  if (tensor.dtype() != DType::kString) {
    Memory source(tensor);
    return Add(name, tensor.dtype(), tensor.shape(), &source);
  }
  const auto entry = NewEntry(name, tensor.dtype(), tensor.shape());
  return Do(entry.ok() ? AppendStrings(tensor, *entry) : entry.status());
}

absl::Status BundleWriter::Add(const std::string& name, DType dtype, const TensorShape& shape,
                               ByteSource* source) {
  FERRY_RETURN_IF_ERROR(status_);
  const auto entry = NewEntry(name, dtype, shape);
  if (!entry.ok()) return Do(entry.status());
  const uint64_t size = static_cast<uint64_t>(shape.num_elements()) * ElementSize(dtype);
  return Do(AppendSource(source, size, *entry));
}

absl::Status BundleWriter::NoteSlice(const std::string& name, DType dtype,
                                     const TensorShape& full_shape, const TensorSlice& slice,
                                     TensorShape* shape) {
  FERRY_ASSIGN_OR_RETURN(*shape, SliceShape(slice, full_shape));
  auto it = entries_.find(name);
  if (it == entries_.end()) {
    FERRY_ASSIGN_OR_RETURN(proto::BundleEntryProto * entry, NewEntry(name, dtype, full_shape));
    entry->clear_offset();  // Its bytes lie with the parts.
    entry->clear_shard_id();
    it = entries_.find(name);
  }
  proto::BundleEntryProto* entry = &it->second;
  bool same = entry->dtype() == static_cast<proto::DataType>(dtype) &&
              entry->shape().dim_size() == full_shape.rank() &&
              (entry->slices_size() > 0 || entry->size() == 0);
  for (int d = 0; same && d < full_shape.rank(); ++d) {
    same = entry->shape().dim(d).size() == full_shape.dim(d);
  }
  if (!same) {
    return InvalidArgument("the parts of tensor '", name,
                           "' differ in dtype or full shape: ", DTypeName(dtype), " ",
                           full_shape.DebugString());
  }
  ToProto(slice, entry->add_slices());
  return absl::OkStatus();
}

absl::Status BundleWriter::AddSlice(const std::string& name, const TensorShape& full_shape,
                                    const TensorSlice& slice, const Tensor& tensor) {
  FERRY_RETURN_IF_ERROR(status_);
  if (slice.is_full()) return Add(name, tensor);
  TensorShape shape;
  FERRY_RETURN_IF_ERROR(Do(NoteSlice(name, tensor.dtype(), full_shape, slice, &shape)));
  if (tensor.shape() != shape) {
    return Do(InvalidArgument("the part ", slice.DebugString(), " of tensor '", name,
                              "' has shape ", shape.DebugString(), ", found ",
                              tensor.shape().DebugString()));
  }
  return Add(SliceKey(name, slice), tensor);
}

absl::Status BundleWriter::AddSlice(const std::string& name, DType dtype,
                                    const TensorShape& full_shape, const TensorSlice& slice,
                                    ByteSource* source) {
  FERRY_RETURN_IF_ERROR(status_);
  if (slice.is_full()) return Add(name, dtype, full_shape, source);
  TensorShape shape;
  FERRY_RETURN_IF_ERROR(Do(NoteSlice(name, dtype, full_shape, slice, &shape)));
  return Add(SliceKey(name, slice), dtype, shape, source);
}

namespace {

// From this size on a piece is copied by itself; smaller ones are gathered on the GPU first.
constexpr size_t kLargePiece = size_t{64} << 10;

}  // namespace

absl::Status BundleWriter::AppendFromGpu(ByteSource* source, uint64_t size,
                                         proto::BundleEntryProto* entry) {
  entry->set_size(static_cast<int64_t>(size));
  entry->set_crc32c(MaskCrc32c(0));
  if (size == 0) return absl::OkStatus();
  crcs_.push_back({0, size, entry});
  for (uint64_t done = 0; done < size;) {
    const size_t n = std::min<uint64_t>(size - done, ring_->slot_bytes() - filled_);
    pieces_.push_back({source, done, n, filled_, &crcs_.back()});
    done += n;
    offset_ += n;
    filled_ += n;
    if (filled_ == ring_->slot_bytes()) FERRY_RETURN_IF_ERROR(WriteSlot(filled_));
  }
  return absl::OkStatus();
}

absl::Status BundleWriter::CopyFromGpus(Filling* f) {
  std::vector<GpuDevice*> gpus;
  for (const GpuPiece& p : f->pieces) {
    GpuDevice* const gpu = p.source->gpu();
    if (std::find(gpus.begin(), gpus.end(), gpu) == gpus.end()) gpus.push_back(gpu);
  }
  for (GpuDevice* gpu : gpus) FERRY_RETURN_IF_ERROR(CopyFromGpu(gpu, f));
  return absl::OkStatus();
}

// Enqueues the copies of one GPU's pieces. Neighbouring small ones are gathered in the GPU's
// memory, laid out as in the slot, and come in one copy.
absl::Status BundleWriter::CopyFromGpu(GpuDevice* gpu, Filling* f) {
  std::vector<const GpuPiece*> held;
  absl::Status status;
  const auto enqueue = [&]() -> absl::Status {
    char* const slot = ring_->slot(f->slot);
    std::vector<GpuDevice::Piece> small;
    size_t begin = 0, end = 0;  // Of the run of small pieces, in the slot.
    BufferRef& packed = packed_[{gpu, f->slot}];
    const auto flush = [&]() -> absl::Status {
      if (small.empty()) return absl::OkStatus();
      if (small.size() == 1) {
        FERRY_RETURN_IF_ERROR(
            gpu->CopyToHost(GpuStream::kToHost, slot + begin, small[0].from, end - begin));
      } else {
        FERRY_RETURN_IF_ERROR(gpu->CopyPieces(GpuStream::kToHost, small));
        FERRY_RETURN_IF_ERROR(gpu->CopyToHost(GpuStream::kToHost, slot + begin,
                                              static_cast<char*>(packed->data()) + begin,
                                              end - begin));
      }
      small.clear();
      return absl::OkStatus();
    };
    for (const GpuPiece& p : f->pieces) {
      if (p.source->gpu() != gpu) continue;
      FERRY_ASSIGN_OR_RETURN(const void* from, p.source->Hold(p.offset, p.n));
      held.push_back(&p);
      if (p.n >= kLargePiece) {
        FERRY_RETURN_IF_ERROR(flush());
        FERRY_RETURN_IF_ERROR(gpu->CopyToHost(GpuStream::kToHost, slot + p.at, from, p.n));
        continue;
      }
      if (!packed) {
        const std::string tag = "staging of a save";
        const MemoryTag named(&tag);
        FERRY_ASSIGN_OR_RETURN(packed, gpu->allocator()->Allocate(ring_->slot_bytes()));
        FERRY_RETURN_IF_ERROR(gpu->Order(GpuStream::kCompute, GpuStream::kToHost));
      }
      if (!small.empty() && end != p.at) FERRY_RETURN_IF_ERROR(flush());
      if (small.empty()) begin = p.at;
      small.push_back({static_cast<char*>(packed->data()) + p.at, from, p.n});
      end = p.at + p.n;
    }
    FERRY_RETURN_IF_ERROR(flush());
    f->copied.emplace_back(gpu, GpuEvent());
    return gpu->Record(GpuStream::kToHost, &f->copied.back().second);
  };
  status = enqueue();
  // What was enqueued nobody will wait for otherwise, and its slot is about to be used again.
  if (!status.ok()) gpu->SynchronizeAll().IgnoreError();
  for (const GpuPiece* p : held) p->source->Release(p->offset, p->n);
  return status;
}

absl::Status BundleWriter::FinishOldest() {
  Filling f = std::move(arriving_.front());
  arriving_.pop_front();
  for (const auto& [gpu, copied] : f.copied) FERRY_RETURN_IF_ERROR(gpu->Synchronize(copied));
  for (const GpuPiece& p : f.pieces) {
    GpuCrc* const crc = p.crc;
    crc->crc = ExtendCrc32c(crc->crc, ring_->slot(f.slot) + p.at, p.n);
    crc->left -= p.n;
    if (crc->left == 0) crc->entry->set_crc32c(MaskCrc32c(crc->crc));
    FERRY_RETURN_IF_ERROR(p.source->Arrived(p.offset, ring_->slot(f.slot) + p.at, p.n));
  }
  return Write(f.slot, f.size, f.file_offset);
}

absl::Status BundleWriter::AppendSource(ByteSource* source, uint64_t size,
                                        proto::BundleEntryProto* entry) {
  if (source->gpu()) return AppendFromGpu(source, size, entry);
  uint32_t crc = 0;
  for (uint64_t done = 0; done < size;) {
    const size_t n = std::min<uint64_t>(size - done, ring_->slot_bytes() - filled_);
    char* const to = ring_->slot(slot_) + filled_;
    FERRY_RETURN_IF_ERROR(source->Copy(done, n, to, &crc));
    FERRY_RETURN_IF_ERROR(source->Arrived(done, to, n));
    done += n;
    offset_ += n;
    filled_ += n;
    if (filled_ == ring_->slot_bytes()) FERRY_RETURN_IF_ERROR(WriteSlot(filled_));
  }
  entry->set_size(static_cast<int64_t>(size));
  entry->set_crc32c(MaskCrc32c(crc));
  return absl::OkStatus();
}

absl::Status BundleWriter::Append(absl::string_view bytes, uint32_t* crc) {
  while (!bytes.empty()) {
    const size_t n = std::min(bytes.size(), ring_->slot_bytes() - filled_);
    *crc = CopyAndExtendCrc32c(*crc, ring_->slot(slot_) + filled_, bytes.data(), n);
    bytes.remove_prefix(n);
    offset_ += n;
    filled_ += n;
    if (filled_ == ring_->slot_bytes()) FERRY_RETURN_IF_ERROR(WriteSlot(filled_));
  }
  return absl::OkStatus();
}

absl::Status BundleWriter::AppendStrings(const Tensor& tensor, proto::BundleEntryProto* entry) {
  const uint64_t begin = offset_;
  uint32_t crc = 0, unused = 0;
  std::string lengths;
  for (const std::string& element : tensor.span<std::string>()) {
    AppendVarint(element.size(), &lengths);
    crc = ExtendByLength(crc, element.size());
    if (lengths.size() >= size_t{64} << 10) {  // However many elements there are.
      FERRY_RETURN_IF_ERROR(Append(lengths, &unused));
      lengths.clear();
    }
  }
  FERRY_RETURN_IF_ERROR(Append(lengths, &unused));
  std::string stored;
  AppendFixed32(MaskCrc32c(crc), &stored);
  FERRY_RETURN_IF_ERROR(Append(stored, &crc));
  for (const std::string& element : tensor.span<std::string>()) {
    FERRY_RETURN_IF_ERROR(Append(element, &crc));
  }
  entry->set_size(static_cast<int64_t>(offset_ - begin));
  entry->set_crc32c(MaskCrc32c(crc));
  return absl::OkStatus();
}

absl::Status BundleWriter::WriteSlot(size_t size) {
  const int slot = slot_;
  const uint64_t file_offset = slot_offset_;
  slot_offset_ += size;
  filled_ = 0;
  slot_ = (slot_ + 1) % ring_->slots();
  if (pieces_.empty()) {
    // Slots are written in order: the next one to be filled is then the one that was written first.
    while (!arriving_.empty()) FERRY_RETURN_IF_ERROR(FinishOldest());
    FERRY_RETURN_IF_ERROR(Write(slot, size, file_offset));
  } else {
    Filling f;
    f.slot = slot;
    f.size = size;
    f.file_offset = file_offset;
    f.pieces = std::exchange(pieces_, {});
    FERRY_RETURN_IF_ERROR(CopyFromGpus(&f));
    arriving_.push_back(std::move(f));
    // Half of the slots fill while the others are written.
    while (static_cast<int>(arriving_.size()) > ring_->slots() / 2) {
      FERRY_RETURN_IF_ERROR(FinishOldest());
    }
  }
  // The next slot is free once the write that it held is done.
  if (writes_ - waited_ + arriving_.size() == static_cast<uint64_t>(ring_->slots())) {
    FERRY_RETURN_IF_ERROR(file_->Wait(waited_++));
  }
  return absl::OkStatus();
}

absl::Status BundleWriter::Write(int slot, size_t size, uint64_t file_offset) {
  FERRY_RETURN_IF_ERROR(file_->Write(ring_->slot(slot), size, file_offset).status());
  ++writes_;
  return absl::OkStatus();
}

absl::Status BundleWriter::AddFile(const std::string& path, absl::string_view contents,
                                   Named when) {
  FERRY_RETURN_IF_ERROR(status_);
  has_last_stage_ |= when == Named::kAfterCommit;
  const bool before = when == Named::kBeforeCommit;
  return Do(files_.Add(before ? kBesideIndex : kAfterIndex, path, contents, before));
}

absl::Status BundleWriter::FinishData() {
  FERRY_RETURN_IF_ERROR(status_);
  if (data_finished_) return absl::OkStatus();
  data_finished_ = true;
  const auto finish = [this]() -> absl::Status {
    if (filled_ > 0) {
      const size_t alignment = file_->alignment();
      const size_t padded = (filled_ + alignment - 1) / alignment * alignment;
      std::memset(ring_->slot(slot_) + filled_, 0, padded - filled_);
      FERRY_RETURN_IF_ERROR(WriteSlot(padded));
    }
    while (!arriving_.empty()) FERRY_RETURN_IF_ERROR(FinishOldest());
    return absl::OkStatus();
  };
  return Do(finish());
}

absl::Status BundleWriter::FinishWrites() {
  while (waited_ < writes_) FERRY_RETURN_IF_ERROR(file_->Wait(waited_++));
  return file_->SetLength(offset_);
}

absl::Status BundleWriter::Commit() {
  FERRY_RETURN_IF_ERROR(FinishData());
  for (const auto& w : more_) FERRY_RETURN_IF_ERROR(Do(w->FinishData()));
  const auto commit = [this]() -> absl::Status {
    std::map<std::string, proto::BundleEntryProto> merged = std::move(entries_);
    for (const auto& w : more_) {
      for (const auto& [key, entry] : w->entries_) {
        FERRY_RETURN_IF_ERROR(MergeEntry(key, entry, &merged).status());
      }
    }
    FERRY_ASSIGN_OR_RETURN(const std::string index, BuildIndex(num_shards_, merged));
    for (int shard = 1 + static_cast<int>(more_.size()); shard < num_shards_; ++shard) {
      FERRY_ASSIGN_OR_RETURN(const std::string empty,
                             ClaimDataFile(fs_, prefix_, shard, num_shards_));
      made_.push_back(empty);
      FERRY_RETURN_IF_ERROR(files_.Add(kBesideIndex, empty, "", true));
    }
    FERRY_RETURN_IF_ERROR(files_.Add(kIndex, IndexFileName(prefix_), index, false));
    // Whatever changes a file's length comes before the first sync, so that there is one commit of
    // the file system's journal for all of them.
    FERRY_RETURN_IF_ERROR(FinishWrites());
    for (const auto& w : more_) FERRY_RETURN_IF_ERROR(w->FinishWrites());
    files_.StartSync();
    FERRY_RETURN_IF_ERROR(file_->Finish());
    for (const auto& w : more_) FERRY_RETURN_IF_ERROR(w->file_->Finish());
    method_ = file_->method();
    FERRY_RETURN_IF_ERROR(files_.Sync());
    return CommitFiles(fs_, DirName(prefix_), has_last_stage_, &files_, &index_renamed_);
  };
  const absl::Status committed = Do(commit());
  for (const auto& w : more_) w->index_renamed_ = index_renamed_;
  FERRY_RETURN_IF_ERROR(committed);
  // The old ones, and those that a killed save has left.
  RemoveOtherShards(fs_, prefix_, num_shards_);
  return absl::OkStatus();
}

absl::Status MergeBundles(FileSystem* fs, const std::vector<std::string>& parts,
                          const std::string& prefix, bool delete_old_dirs, bool directory_locked) {
  FERRY_RETURN_IF_ERROR(EnsureDirectory(fs, prefix));
  std::unique_ptr<FileLock> lock;
  if (!directory_locked) {
    FERRY_ASSIGN_OR_RETURN(lock, LockDirectory(fs, DirName(prefix)));
  }
  // Read all indices before anything moves. A data file that no entry refers to is left out.
  std::map<std::string, proto::BundleEntryProto> merged;
  std::vector<std::string> data_files;
  for (const std::string& part : parts) {
    std::map<int, int> shard_of;  // In the part -> in the merged checkpoint.
    int part_shards = 0;
    FERRY_RETURN_IF_ERROR(ReadIndex(
        fs, part, &part_shards, [&](absl::string_view key, const proto::BundleEntryProto& entry) {
          const absl::StatusOr<proto::BundleEntryProto*> added =
              MergeEntry(std::string(key), entry, &merged);
          if (!added.ok()) return Annotate(added.status(), absl::StrCat("merging '", part, "'"));
          if (entry.slices_size() > 0) return absl::OkStatus();
          const auto [shard, first_use] =
              shard_of.try_emplace(entry.shard_id(), static_cast<int>(data_files.size()));
          if (first_use) data_files.push_back(DataFileName(part, entry.shard_id(), part_shards));
          (*added)->set_shard_id(shard->second);
          return absl::OkStatus();
        }));
  }
  bool existed = false;
  const int needed = std::max<int>(1, static_cast<int>(data_files.size()));
  FERRY_ASSIGN_OR_RETURN(const int num_shards, ChooseShards(fs, prefix, needed, &existed));

  std::vector<std::string> made;
  bool renamed = false;
  const auto move = [&]() -> absl::Status {
    NewFiles files(fs);
    for (int i = static_cast<int>(data_files.size()); i < num_shards; ++i) {
      FERRY_ASSIGN_OR_RETURN(const std::string empty, ClaimDataFile(fs, prefix, i, num_shards));
      made.push_back(empty);
      FERRY_RETURN_IF_ERROR(files.Add(kBesideIndex, empty, "", true));
    }
    FERRY_ASSIGN_OR_RETURN(const std::string index, BuildIndex(num_shards, merged));
    FERRY_RETURN_IF_ERROR(files.Add(kIndex, IndexFileName(prefix), index, false));
    files.StartSync();
    FERRY_RETURN_IF_ERROR(files.Sync());
    for (size_t i = 0; i < data_files.size(); ++i) {
      const std::string path = DataFileName(prefix, static_cast<int>(i), num_shards);
      FERRY_RETURN_IF_ERROR(fs->Rename(data_files[i], path));
      made.push_back(path);
    }
    return CommitFiles(fs, DirName(prefix), false, &files, &renamed);
  };
  const absl::Status status = move();
  if (!status.ok()) {
    if (!renamed) RemoveFiles(fs, made);
    return status;
  }
  if (existed) RemoveOtherShards(fs, prefix, num_shards);
  std::set<std::string> directories;
  for (const std::string& part : parts) {
    fs->Unlink(IndexFileName(part)).IgnoreError();
    RemoveOtherShards(fs, part, 0);  // The empty ones that are left.
    directories.insert(DirName(part));
  }
  if (delete_old_dirs) {
    for (const std::string& directory : directories) {
      if (directory != DirName(prefix)) fs->RemoveDir(directory).IgnoreError();
    }
  }
  return absl::OkStatus();
}

}  // namespace ferry
