// AtomicFile: a file of any size that appears whole or not at all, and ReplaceFile for small ones.
// Both hold the directory's lock, since several programs may write the same file at the same time,
// and its temporary name is one.
#ifndef FERRY_SAVER_ATOMIC_FILE_H_
#define FERRY_SAVER_ATOMIC_FILE_H_

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/base/file_system.h"

namespace ferry {

// Grows under a temporary name (path + ".ferry-tmp") and takes its own, replacing what has it, when
// all of it is durable. Destroyed before that, it leaves nothing.
// The caller must not hold the directory's lock.
class AtomicFile {
 public:
  static absl::StatusOr<std::unique_ptr<AtomicFile>> Open(FileSystem* fs, const std::string& path);
  ~AtomicFile();
  AtomicFile(const AtomicFile&) = delete;
  AtomicFile& operator=(const AtomicFile&) = delete;
  absl::Status Append(absl::string_view bytes);
  uint64_t size() const { return size_; }
  absl::Status Commit();

 private:
  AtomicFile(FileSystem* fs, std::string path) : fs_(fs), path_(std::move(path)) {}
  FileSystem* const fs_;
  const std::string path_;
  std::unique_ptr<FileLock> lock_;
  std::unique_ptr<WritableFile> file_;
  uint64_t size_ = 0;
  bool committed_ = false;
};

// Keeps other programs' saves out of the directory; waits for them. Null where the file system has
// no locks, or the directory may be written but not opened: one goes on without.
absl::StatusOr<std::unique_ptr<FileLock>> LockDirectory(FileSystem* fs, const std::string& path);

// WriteFileAtomically under the directory's lock, which the caller must not hold.
absl::Status ReplaceFile(FileSystem* fs, const std::string& path, absl::string_view data);

}  // namespace ferry

#endif  // FERRY_SAVER_ATOMIC_FILE_H_
