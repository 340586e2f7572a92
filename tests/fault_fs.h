// FaultFileSystem: a file system in memory that records what is done to it, can be told to fail,
// and can give the states that a power loss may leave behind.
//
//   FaultFileSystem fs;
//   … write files …
//   for (size_t n = 0; n <= fs.num_ops(); ++n) {
//     std::unique_ptr<FaultFileSystem> after = fs.AfterCrash(n, Surviving::kSynced);
//     … what does a reader find in *after? …
//   }
//
// Its rules are the harshest that POSIX allows: fsync of a file keeps the file's bytes but not its
// name; a name's making, renaming or removal is kept by an fsync of the directory alone; what no
// fsync covered may survive in any part.
#ifndef FERRY_TESTS_FAULT_FS_H_
#define FERRY_TESTS_FAULT_FS_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "runtime/base/file_system.h"
#include "runtime/base/mutex.h"

namespace ferry {

// What is left of the unsynced part after the power went.
enum class Surviving {
  kSynced,   // Nothing of it.
  kNames,    // Directories as they were, but no unsynced bytes: renamed files are empty.
  kBytes,    // Files' bytes, but no unsynced names.
  kAll,      // All: the process was killed, the machine went on.
  kAnyPart,  // Some operations and not others, and torn writes, by a seed.
};

// Thread-safe. Paths are taken from "/"; a relative path counts from there too. "/" exists.
class FaultFileSystem : public FileSystem {
 public:
  FaultFileSystem();

  // The operations that changed something so far, in order, in words.
  size_t num_ops() const;
  std::string OpName(size_t i) const;
  // A new file system as it stands after the first `n` operations and a power loss.
  std::unique_ptr<FaultFileSystem> AfterCrash(size_t n, Surviving surviving,
                                              uint32_t seed = 0) const;

  // Calls of all kinds (reading ones, writes through open files, syncs, …) so far.
  int64_t calls() const;
  // The n-th call from now (0: the next) fails with `status` and has no effect, except that a
  // failed write leaves half of its bytes. With `all_later`, so do all calls after it.
  void FailCall(int64_t n, absl::Status status, bool all_later = false);
  void StopFailing();
  // The calls' kind and path, for messages.
  std::string LastFailure() const;

  // Without counting calls: a file's bytes, and replacing them for good (as if synced).
  absl::StatusOr<std::string> Contents(const std::string& path) const;
  void SetContents(const std::string& path, std::string bytes);

  absl::StatusOr<std::unique_ptr<WritableFile>> NewWritableFile(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<WritableFile>> NewAppendableFile(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<BlockWriter>> NewBlockWriter(
      const std::string& path, const BlockWriterOptions& options) override;
  absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(const std::string& path) override;
  absl::Status Rename(const std::string& from, const std::string& to) override;
  absl::Status Unlink(const std::string& path) override;
  absl::Status CreateDir(const std::string& path) override;
  absl::Status RemoveDir(const std::string& path) override;
  absl::Status SyncDir(const std::string& path) override;
  absl::StatusOr<FileInfo> Stat(const std::string& path) override;
  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override;
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) override;

 private:
  friend class FaultWritableFile;
  friend class FaultBlockWriter;
  friend class FaultRandomAccessFile;

  struct Inode {
    bool is_directory = false;
    std::string bytes;
    std::map<std::string, int> entries;
    int64_t mtime_ns = 0;
  };
  using Disk = std::map<int, Inode>;  // The root is inode 0.

  // One change. Bytes and names are changed by different kinds, since different syncs keep them.
  struct Op {
    enum Kind { kWrite, kTruncate, kNames, kSyncFile, kSyncDir } kind;
    int inode = 0;        // But for kNames.
    uint64_t offset = 0;  // kWrite; the new length for kTruncate.
    std::string bytes;    // kWrite.
    struct Entry {
      int directory;
      std::string name;
      int inode;  // -1: removed.
    };
    std::vector<Entry> entries;  // kNames: all take effect at once.
    int made_directory = -1;     // kNames: this inode is a new directory.
    std::string words;
  };

  static void Apply(const Op& op, Disk* disk);
  // All below: with mu_ held.
  absl::Status Count(absl::string_view kind, const std::string& path);
  void Do(Op op);
  // The inode, or -1.
  int Find(const std::string& path) const;
  // The directory's inode and the last name; NotFound when there is no such directory.
  absl::StatusOr<std::pair<int, std::string>> Parent(const std::string& path) const;
  absl::StatusOr<int> OpenForWriting(const std::string& path, bool truncate);
  absl::Status WriteBytes(absl::string_view kind, const std::string& path, int inode,
                          uint64_t offset, absl::string_view data);
  absl::Status SyncFile(const std::string& path, int inode);

  mutable Mutex mu_;
  Disk disk_;
  Disk initial_;  // What the record starts from.
  std::vector<Op> ops_;
  int next_inode_ = 1;
  int64_t clock_ns_ = 1000000000;
  int64_t calls_ = 0;
  int64_t fail_from_ = -1, fail_to_ = -1;  // Calls in [from, to) fail.
  absl::Status failure_;
  std::string last_failure_;
  std::map<std::string, std::shared_ptr<Mutex>> locks_;
};

}  // namespace ferry

#endif  // FERRY_TESTS_FAULT_FS_H_
