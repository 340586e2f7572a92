// `ferry convert`: see convert.h.
#include "tools/convert.h"

#include <cstring>
#include <map>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"
#include "saver/bundle_writer.h"
#include "saver/checkpoint_reader.h"
#include "tools/npz.h"
#include "tools/safetensors.h"

namespace ferry {
namespace {

class CheckpointSource : public TensorSource {
 public:
  absl::Status Open(FileSystem* fs, const std::string& path) {
    fs_ = fs;
    FERRY_ASSIGN_OR_RETURN(reader_, CheckpointReader::Open(fs, path));
    for (const BundleReader::Entry& e : reader_->bundle().entries()) {
      FERRY_RETURN_IF_ERROR(reader_->bundle().Check(e));
      Entry entry;
      entry.name = e.name;
      entry.dtype = e.dtype;
      entry.shape = e.shape;
      entries_.push_back(std::move(entry));
    }
    return absl::OkStatus();
  }

  absl::Status Read(size_t i, uint64_t offset, size_t n, char* dst) override {
    const BundleReader::Entry& entry = reader_->bundle().entries()[i];
    if (!BundleReader::CanReadInto(entry)) {
      if (offset == 0) {
        FERRY_ASSIGN_OR_RETURN(whole_, reader_->GetTensor(entry.name));
      }
      std::memcpy(dst, static_cast<const char*>(whole_.raw()) + offset, n);
      if (offset + n == whole_.bytes()) whole_ = Tensor();
      return absl::OkStatus();
    }
    FERRY_ASSIGN_OR_RETURN(const RandomAccessFile* const file, Shard(entry.shard));
    FERRY_RETURN_IF_ERROR(file->Read(entry.offset + offset, n, dst));
    crc_ = ExtendCrc32c(offset == 0 ? 0 : crc_, dst, n);
    if (offset + n == entry.size && crc_ != entry.crc) {
      return DataLoss("TensorBundle at ", reader_->prefix(), " shard ", entry.shard, " (",
                      entry.size, " bytes): Checksum does not match: stored ", entry.crc,
                      " vs. calculated on the restored bytes ", crc_, " (tensor '", entry.name,
                      "')");
    }
    return absl::OkStatus();
  }

  absl::StatusOr<Tensor> ReadTensor(size_t i) override {
    return reader_->GetTensor(entries_[i].name);
  }

 private:
  absl::StatusOr<const RandomAccessFile*> Shard(int shard) {
    std::unique_ptr<RandomAccessFile>& file = shards_[shard];
    if (!file) {
      FERRY_ASSIGN_OR_RETURN(
          file, fs_->OpenForRead(DataFileName(reader_->prefix(), shard, reader_->num_shards())));
    }
    return file.get();
  }

  FileSystem* fs_ = nullptr;
  std::unique_ptr<CheckpointReader> reader_;
  std::map<int, std::unique_ptr<RandomAccessFile>> shards_;
  uint32_t crc_ = 0;  // Of the tensor that is read, so far.
  Tensor whole_;
};

// One tensor of a source, as a checkpoint's writer asks for it.
class PieceSource : public ByteSource {
 public:
  PieceSource(TensorSource* source, size_t i, const std::function<void(size_t)>& read)
      : source_(source), i_(i), read_(read) {}
  absl::Status Copy(uint64_t offset, size_t n, char* dst, uint32_t* crc) override {
    FERRY_RETURN_IF_ERROR(source_->Read(i_, offset, n, dst));
    if (source_->entries()[i_].dtype == DType::kBool) {
      for (size_t k = 0; k < n; ++k) dst[k] = dst[k] != 0;
    }
    *crc = ExtendCrc32c(*crc, dst, n);
    read_(n);
    return absl::OkStatus();
  }

 private:
  TensorSource* const source_;
  const size_t i_;
  const std::function<void(size_t)>& read_;
};

absl::Status WriteCheckpoint(FileSystem* fs, const std::string& prefix, TensorSource* source,
                             const TensorProgress& progress) {
  if (prefix.empty() || absl::EndsWith(prefix, "/")) {
    return InvalidArgument("'", prefix,
                           "': expected a checkpoint's prefix, such as dir/model.ckpt");
  }
  const absl::StatusOr<FileInfo> info = fs->Stat(prefix);
  if (info.ok() && info->is_directory) {
    return InvalidArgument("'", prefix,
                           "' is a directory; expected a checkpoint's prefix, such as ",
                           JoinPath(prefix, "model.ckpt"));
  }
  if (source->entries().empty()) {
    return InvalidArgument("'", prefix, "': there are no tensors to save");
  }
  uint64_t all = 0, done = 0;
  for (const TensorSource::Entry& e : source->entries()) all += e.bytes();
  const std::function<void(size_t)> count = [&](size_t n) {
    done += n;
    if (progress) progress(done, all);
  };
  BundleWriterOptions options;
  options.block.expected_bytes = all;
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<BundleWriter> writer,
                         BundleWriter::Open(fs, prefix, options));
  for (size_t i = 0; i < source->entries().size(); ++i) {
    const TensorSource::Entry& e = source->entries()[i];
    if (e.dtype == DType::kString) {
      FERRY_ASSIGN_OR_RETURN(const Tensor t, source->ReadTensor(i));
      FERRY_RETURN_IF_ERROR(writer->Add(e.name, t));
      continue;
    }
    PieceSource pieces(source, i, count);
    FERRY_RETURN_IF_ERROR(writer->Add(e.name, e.dtype, e.shape, &pieces));
  }
  FERRY_RETURN_IF_ERROR(writer->FinishData());
  return writer->Commit();
}

}  // namespace

TensorFileKind KindOfTensorFile(const std::string& path) {
  if (absl::EndsWith(path, ".safetensors")) return TensorFileKind::kSafetensors;
  if (absl::EndsWith(path, ".npz")) return TensorFileKind::kNpz;
  return TensorFileKind::kCheckpoint;
}

absl::StatusOr<std::unique_ptr<TensorSource>> OpenTensors(FileSystem* fs, const std::string& path) {
  switch (KindOfTensorFile(path)) {
    case TensorFileKind::kSafetensors:
      return OpenSafetensors(fs, path);
    case TensorFileKind::kNpz:
      return OpenNpz(fs, path);
    case TensorFileKind::kCheckpoint:
      break;
  }
  auto source = std::make_unique<CheckpointSource>();
  FERRY_RETURN_IF_ERROR(source->Open(fs, path));
  return source;
}

absl::StatusOr<ConvertReport> ConvertTensors(FileSystem* fs, const std::string& from,
                                             const std::string& to,
                                             const TensorProgress& progress) {
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<TensorSource> source, OpenTensors(fs, from));
  const TensorFileKind kind = KindOfTensorFile(to);
  ConvertReport report;
  for (const TensorSource::Entry& e : source->entries()) {
    ++report.tensors;
    report.parameters += e.shape.num_elements();
    report.bytes += e.bytes();
    if (kind == TensorFileKind::kNpz && e.dtype == DType::kBfloat16) ++report.widened;
  }
  switch (kind) {
    case TensorFileKind::kSafetensors:
      FERRY_RETURN_IF_ERROR(WriteSafetensors(fs, to, source.get(), progress));
      break;
    case TensorFileKind::kNpz:
      FERRY_RETURN_IF_ERROR(WriteNpz(fs, to, source.get(), progress));
      break;
    case TensorFileKind::kCheckpoint:
      FERRY_RETURN_IF_ERROR(WriteCheckpoint(fs, to, source.get(), progress));
      break;
  }
  return report;
}

}  // namespace ferry
