// AtomicFile: a file of any size that appears whole or not at all. (For small ones there is
// WriteFileAtomically.)
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
  std::unique_ptr<WritableFile> file_;
  uint64_t size_ = 0;
  bool committed_ = false;
};

}  // namespace ferry

#endif  // FERRY_SAVER_ATOMIC_FILE_H_
