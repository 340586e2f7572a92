// FileSystem: the one seam through which the project touches files. The real one is
// FileSystem::Posix(); tests put in one that records, replays or fails (tests/fault_fs.h).
//
// Paths are UTF-8 or any bytes without NUL. Errors carry the operation, the path and the system's
// words: NotFound (ENOENT), PermissionDenied (EACCES, EPERM, EROFS), ResourceExhausted (ENOSPC,
// EDQUOT, EMFILE …), AlreadyExists, FailedPrecondition (ENOTDIR, EISDIR, ENOTEMPTY),
// InvalidArgument (EINVAL, ENAMETOOLONG), else Unavailable or Internal. EINTR and short transfers
// are handled inside.
#ifndef FERRY_RUNTIME_BASE_FILE_SYSTEM_H_
#define FERRY_RUNTIME_BASE_FILE_SYSTEM_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/types/span.h"

namespace ferry {

// A file that grows at its end. Not thread-safe. Destroying it without Close closes the file
// without a word; what was not synced may be lost with the power.
class WritableFile {
 public:
  virtual ~WritableFile() = default;
  virtual absl::Status Append(absl::string_view data) = 0;
  // Begins what the next call, Sync, waits for. When the syncs of several files are under way at
  // once, they share the work of the file system's journal.
  virtual void StartSync() {}
  // Everything appended so far is on stable storage. Never called again after it failed: the
  // file is to be given up (a second fsync would report success for data that is gone).
  virtual absl::Status Sync() = 0;
  virtual absl::Status Close() = 0;
};

// Writes large aligned blocks at given places, several in flight. What a save streams through.
// Not thread-safe, except that the memory handed in is read by the kernel meanwhile.
class BlockWriter {
 public:
  virtual ~BlockWriter() = default;  // Waits for what is in flight.
  // What offsets, lengths and addresses passed to Write must be multiples of (a power of two).
  virtual size_t alignment() const = 0;
  // Starts writing data[0, size) at `offset`; `data` stays untouched until Wait(ticket) returned.
  // Tickets count up from 0.
  virtual absl::StatusOr<uint64_t> Write(const void* data, size_t size, uint64_t offset) = 0;
  // The outcome of that write. Each ticket is waited for once, in order.
  virtual absl::Status Wait(uint64_t ticket) = 0;
  // REQUIRES: nothing in flight. The last block was padded to the alignment; this cuts it.
  virtual absl::Status SetLength(uint64_t length) = 0;
  // REQUIRES: nothing in flight. Syncs the file and closes it.
  virtual absl::Status Finish() = 0;
  // "io_uring O_DIRECT", "pwrite" …: how it writes, for reports.
  virtual const char* method() const = 0;
};

// Thread-safe.
class RandomAccessFile {
 public:
  virtual ~RandomAccessFile() = default;
  virtual uint64_t size() const = 0;  // When it was opened.
  // Reads exactly `n` bytes at `offset`; OutOfRange when the file ends before.
  virtual absl::Status Read(uint64_t offset, size_t n, void* out) const = 0;
};

// Held until destroyed.
class FileLock {
 public:
  virtual ~FileLock() = default;
};

struct FileInfo {
  uint64_t size = 0;
  int64_t mtime_ns = 0;  // Since the epoch.
  bool is_directory = false;
};

struct BlockWriterOptions {
  // How many writes may be in flight.
  int depth = 4;
  // Roughly the bytes that will be written, if known: their place on the disk is reserved, so that
  // writes needn't wait for each other to extend the file.
  uint64_t expected_bytes = 0;
  // Which ways are tried, in this order, each falling to the next when the system refuses it
  // (EINVAL, ENOSYS, EPERM, ENOMEM, EOPNOTSUPP). Tests force the later ones.
  bool try_direct = true;    // O_DIRECT.
  bool try_io_uring = true;  // Otherwise pwrite.
};

// Thread-safe.
class FileSystem {
 public:
  virtual ~FileSystem() = default;
  static FileSystem* Posix();  // One for the process.

  // Creates the file, or empties it. Like the two below, FailedPrecondition for a pipe, whose
  // opening might wait for ever.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> NewWritableFile(
      const std::string& path) = 0;
  // Opens at the end, creating the file if there is none.
  virtual absl::StatusOr<std::unique_ptr<WritableFile>> NewAppendableFile(
      const std::string& path) = 0;
  virtual absl::StatusOr<std::unique_ptr<BlockWriter>> NewBlockWriter(
      const std::string& path, const BlockWriterOptions& options) = 0;
  virtual absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(
      const std::string& path) = 0;

  // Replaces a file. FailedPrecondition where `to` is a device or a pipe, which it would destroy.
  virtual absl::Status Rename(const std::string& from, const std::string& to) = 0;
  virtual absl::Status Unlink(const std::string& path) = 0;
  // Makes one level. AlreadyExists if there is anything of that name.
  virtual absl::Status CreateDir(const std::string& path) = 0;
  virtual absl::Status RemoveDir(const std::string& path) = 0;
  // Makes the names in the directory durable.
  virtual absl::Status SyncDir(const std::string& path) = 0;

  virtual absl::StatusOr<FileInfo> Stat(const std::string& path) = 0;  // Follows links.
  // Names without "." and "..", sorted.
  virtual absl::StatusOr<std::vector<std::string>> List(const std::string& path) = 0;
  // An exclusive advisory lock among processes and threads on the directory `path`, or on the file
  // of that name, made if needed. Waits for it.
  virtual absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) = 0;

  // Made of the above.
  bool Exists(const std::string& path) { return Stat(path).ok(); }
};

// Passes every call on to another one: a base for those that change only some. As thread-safe as
// the other one.
class ForwardingFileSystem : public FileSystem {
 public:
  // `to` must outlive it.
  explicit ForwardingFileSystem(FileSystem* to = Posix()) : to_(to) {}

  absl::StatusOr<std::unique_ptr<WritableFile>> NewWritableFile(const std::string& path) override {
    return to_->NewWritableFile(path);
  }
  absl::StatusOr<std::unique_ptr<WritableFile>> NewAppendableFile(
      const std::string& path) override {
    return to_->NewAppendableFile(path);
  }
  absl::StatusOr<std::unique_ptr<BlockWriter>> NewBlockWriter(
      const std::string& path, const BlockWriterOptions& options) override {
    return to_->NewBlockWriter(path, options);
  }
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(const std::string& path) override {
    return to_->OpenForRead(path);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return to_->Rename(from, to);
  }
  absl::Status Unlink(const std::string& path) override { return to_->Unlink(path); }
  absl::Status CreateDir(const std::string& path) override { return to_->CreateDir(path); }
  absl::Status RemoveDir(const std::string& path) override { return to_->RemoveDir(path); }
  absl::Status SyncDir(const std::string& path) override { return to_->SyncDir(path); }
  absl::StatusOr<FileInfo> Stat(const std::string& path) override { return to_->Stat(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    return to_->List(path);
  }
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    return to_->Lock(path);
  }

 private:
  FileSystem* const to_;
};

absl::StatusOr<std::string> ReadFile(FileSystem* fs, const std::string& path);
// Writes `data` to a temporary name beside `path`, syncs it, renames it to `path` and syncs the
// directory: after a crash the file has its old contents or the new ones. The temporary name is
// `path` + ".ferry-tmp".
absl::Status WriteFileAtomically(FileSystem* fs, const std::string& path, absl::string_view data);

// Makes the directory `path` and those above it that are missing; each one made is durable.
absl::Status CreateDirs(FileSystem* fs, const std::string& path);

// "a/b" of "a/b/c", "." of "c", "/" of "/c".
std::string DirName(absl::string_view path);
std::string BaseName(absl::string_view path);
// `name` if it is absolute, else dir/name.
std::string JoinPath(absl::string_view dir, absl::string_view name);

}  // namespace ferry

#endif  // FERRY_RUNTIME_BASE_FILE_SYSTEM_H_
