// AtomicFile: see atomic_file.h.
#include "saver/atomic_file.h"

#include "runtime/base/status.h"
#include "saver/bundle_writer.h"

namespace ferry {
namespace {

// The lock of the file's directory.
absl::StatusOr<std::unique_ptr<FileLock>> LockFor(FileSystem* fs, const std::string& path) {
  const std::string directory = DirName(path);
  const absl::StatusOr<FileInfo> info = fs->Stat(directory);
  // Locking would make a file of that name. What is wrong shows when the file is written.
  if (!info.ok() || !info->is_directory) return std::unique_ptr<FileLock>();
  return LockDirectory(fs, directory);
}

}  // namespace

absl::StatusOr<std::unique_ptr<AtomicFile>> AtomicFile::Open(FileSystem* fs,
                                                             const std::string& path) {
  std::unique_ptr<AtomicFile> file(new AtomicFile(fs, path));
  FERRY_ASSIGN_OR_RETURN(file->lock_, LockFor(fs, path));
  FERRY_ASSIGN_OR_RETURN(file->file_, fs->NewWritableFile(path + kTemporarySuffix));
  return file;
}

AtomicFile::~AtomicFile() {
  if (committed_ || !file_) return;
  file_.reset();
  fs_->Unlink(path_ + kTemporarySuffix).IgnoreError();  // What failed before is what is told.
}

absl::Status AtomicFile::Append(absl::string_view bytes) {
  size_ += bytes.size();
  return file_->Append(bytes);
}

absl::Status AtomicFile::Commit() {
  FERRY_RETURN_IF_ERROR(file_->Sync());
  FERRY_RETURN_IF_ERROR(file_->Close());
  FERRY_RETURN_IF_ERROR(fs_->Rename(path_ + kTemporarySuffix, path_));
  committed_ = true;
  return fs_->SyncDir(DirName(path_));
}

absl::StatusOr<std::unique_ptr<FileLock>> LockDirectory(FileSystem* fs, const std::string& path) {
  absl::StatusOr<std::unique_ptr<FileLock>> lock = fs->Lock(path);
  if (absl::IsUnimplemented(lock.status()) || absl::IsPermissionDenied(lock.status())) {
    return std::unique_ptr<FileLock>();
  }
  return lock;
}

absl::Status ReplaceFile(FileSystem* fs, const std::string& path, absl::string_view data) {
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<FileLock> lock, LockFor(fs, path));
  return WriteFileAtomically(fs, path, data);
}

}  // namespace ferry
