// CheckpointReader: see checkpoint_reader.h.
#include "saver/checkpoint_reader.h"

#include "runtime/base/status.h"
#include "saver/bundle_writer.h"
#include "saver/checkpoint_state.h"
#include "saver/meta_graph.h"

namespace ferry {
namespace {

// The prefix that `path` stands for.
absl::StatusOr<std::string> FindPrefix(FileSystem* fs, const std::string& path) {
  const absl::StatusOr<FileInfo> info = fs->Stat(path);
  if (!info.ok() || !info->is_directory || CheckpointExists(fs, path)) return path;
  absl::StatusOr<std::string> latest = FindLatestCheckpoint(fs, path);
  if (!absl::IsNotFound(latest.status())) return latest;
  return NotFound("there is no checkpoint in the directory '", path, "': it has no state file '",
                  kStateFileName, "'");
}

}  // namespace

absl::StatusOr<std::unique_ptr<CheckpointReader>> CheckpointReader::Open(FileSystem* fs,
                                                                         const std::string& path) {
  FERRY_ASSIGN_OR_RETURN(const std::string prefix, FindPrefix(fs, path));
  const absl::StatusOr<FileInfo> index = fs->Stat(IndexFileName(prefix));
  FERRY_ASSIGN_OR_RETURN(std::unique_ptr<BundleReader> bundle, BundleReader::Open(fs, prefix));
  std::unique_ptr<CheckpointReader> reader(new CheckpointReader(fs, std::move(bundle)));
  if (index.ok()) reader->index_ = *index;
  return reader;
}

std::vector<CheckpointReader::TensorInfo> CheckpointReader::Tensors() const {
  std::vector<TensorInfo> out;
  for (const BundleReader::Entry& e : bundle_->entries()) {
    out.push_back({e.name, e.dtype, e.shape, e.crc});
  }
  return out;
}

std::map<std::string, TensorShape> CheckpointReader::GetVariableToShapeMap() const {
  std::map<std::string, TensorShape> out;
  for (const BundleReader::Entry& e : bundle_->entries()) out[e.name] = e.shape;
  return out;
}

std::map<std::string, DType> CheckpointReader::GetVariableToDTypeMap() const {
  std::map<std::string, DType> out;
  for (const BundleReader::Entry& e : bundle_->entries()) out[e.name] = e.dtype;
  return out;
}

bool CheckpointReader::HasTensor(absl::string_view name) const {
  if (bundle_->Find(name)) return true;
  const absl::StatusOr<std::string> key = bundle_->KeyOfObject(name);
  return key.ok() && !key->empty() && bundle_->Find(*key) != nullptr;
}

std::string CheckpointReader::DebugString() const {
  std::string out;
  for (const BundleReader::Entry& e : bundle_->entries()) {
    absl::StrAppend(&out, e.name, " (", DTypeEnumName(e.dtype), ") ", e.shape.DebugString(), "\n");
  }
  return out;
}

bool CheckpointReader::Changed() const {
  if (bundle_->is_v1()) return false;
  const absl::StatusOr<FileInfo> now = fs_->Stat(IndexFileName(prefix()));
  return !now.ok() || now->mtime_ns != index_.mtime_ns || now->size != index_.size;
}

VerifyReport VerifyCheckpoint(FileSystem* fs, const std::string& path, ThreadPool* pool,
                              const std::function<void(uint64_t, uint64_t)>& progress) {
  VerifyReport report;
  const absl::StatusOr<std::string> prefix = FindPrefix(fs, path);
  report.prefix = prefix.ok() ? *prefix : path;
  const absl::StatusOr<std::unique_ptr<CheckpointReader>> reader =
      prefix.ok() ? CheckpointReader::Open(fs, *prefix) : prefix.status();
  if (!reader.ok()) {
    report.damage.push_back(reader.status());
    return report;
  }
  const BundleReader& bundle = (*reader)->bundle();
  report.tensors = static_cast<int>(bundle.entries().size());
  for (const BundleReader::Entry& e : bundle.entries()) {
    if (e.parts.empty()) report.data_bytes += e.size;
    for (const BundleReader::Entry& part : e.parts) report.data_bytes += part.size;
  }
  std::function<void(uint64_t)> read;
  if (progress) read = [&](uint64_t done) { progress(done, report.data_bytes); };
  report.damage = bundle.Verify(pool, read);
  const std::string meta = report.prefix + ".meta";
  if (fs->Exists(meta)) {
    const absl::Status status = ReadMetaGraph(fs, meta).status();
    if (!status.ok()) report.damage.push_back(status);
  }
  return report;
}

}  // namespace ferry
