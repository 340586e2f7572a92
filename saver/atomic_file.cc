// AtomicFile: see atomic_file.h.
#include "saver/atomic_file.h"

#include "runtime/base/status.h"
#include "saver/bundle_writer.h"

namespace ferry {

absl::StatusOr<std::unique_ptr<AtomicFile>> AtomicFile::Open(FileSystem* fs,
                                                             const std::string& path) {
  std::unique_ptr<AtomicFile> file(new AtomicFile(fs, path));
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

}  // namespace ferry
