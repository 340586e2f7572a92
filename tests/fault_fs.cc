// FaultFileSystem: see fault_fs.h.
#include "tests/fault_fs.h"

#include <algorithm>
#include <deque>
#include <random>

#include "absl/strings/match.h"
#include "absl/strings/str_split.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

std::vector<std::string> Components(const std::string& path) {
  std::vector<std::string> parts;
  for (absl::string_view part : absl::StrSplit(path, '/', absl::SkipEmpty())) {
    if (part != ".") parts.emplace_back(part);
  }
  return parts;
}

class HeldLock : public FileLock {
 public:
  explicit HeldLock(std::shared_ptr<Mutex> mu) : mu_(std::move(mu)) { mu_->Lock(); }
  ~HeldLock() override { mu_->Unlock(); }

 private:
  std::shared_ptr<Mutex> mu_;
};

}  // namespace

class FaultWritableFile : public WritableFile {
 public:
  FaultWritableFile(FaultFileSystem* fs, std::string path, int inode)
      : fs_(fs), path_(std::move(path)), inode_(inode) {}
  absl::Status Append(absl::string_view data) override {
    MutexLock lock(&fs_->mu_);
    if (sync_started_) return Internal("'", path_, "' grows between StartSync and Sync");
    const uint64_t end = fs_->disk_[inode_].bytes.size();
    return fs_->WriteBytes("append", path_, inode_, end, data);
  }
  // What a sync keeps isn't sure to be kept before Sync has returned.
  void StartSync() override { sync_started_ = true; }
  absl::Status Sync() override {
    MutexLock lock(&fs_->mu_);
    sync_started_ = false;
    if (sync_failed_) return Internal("a second sync of '", path_, "' after one failed");
    absl::Status status = fs_->SyncFile(path_, inode_);
    sync_failed_ = !status.ok();
    return status;
  }
  absl::Status Close() override {
    MutexLock lock(&fs_->mu_);
    return fs_->Count("close", path_);
  }

 private:
  FaultFileSystem* const fs_;
  const std::string path_;
  const int inode_;
  bool sync_started_ = false, sync_failed_ = false;
};

class FaultBlockWriter : public BlockWriter {
 public:
  FaultBlockWriter(FaultFileSystem* fs, std::string path, int inode)
      : fs_(fs), path_(std::move(path)), inode_(inode) {}
  size_t alignment() const override { return 4096; }

  absl::StatusOr<uint64_t> Write(const void* data, size_t size, uint64_t offset) override {
    if (reinterpret_cast<uintptr_t>(data) % 4096 != 0 || size % 4096 != 0 || offset % 4096 != 0) {
      return Internal("write of '", path_, "' isn't aligned: ", size, " bytes at ", offset);
    }
    MutexLock lock(&fs_->mu_);
    const absl::string_view bytes(static_cast<const char*>(data), size);
    in_flight_.push_back(
        {bytes, Crc32c(bytes), fs_->WriteBytes("write block", path_, inode_, offset, bytes)});
    return next_ticket_++;
  }

  absl::Status Wait(uint64_t ticket) override {
    if (in_flight_.empty() || ticket != next_ticket_ - in_flight_.size()) {
      return Internal("write ", ticket, " of '", path_, "' waited for out of order");
    }
    const InFlight w = in_flight_.front();
    in_flight_.pop_front();
    // The kernel may read the memory at any time until now.
    if (Crc32c(w.bytes) != w.crc) {
      return Internal("the memory of a write of '", path_, "' was changed while in flight");
    }
    return w.status;
  }

  absl::Status SetLength(uint64_t length) override {
    MutexLock lock(&fs_->mu_);
    if (!in_flight_.empty()) return Internal("'", path_, "' cut with writes in flight");
    FERRY_RETURN_IF_ERROR(fs_->Count("truncate", path_));
    FaultFileSystem::Op op{FaultFileSystem::Op::kTruncate,  inode_, length, {}, {}, -1,
                           absl::StrCat("truncate ", path_)};
    fs_->Do(std::move(op));
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    MutexLock lock(&fs_->mu_);
    if (!in_flight_.empty()) return Internal("'", path_, "' finished with writes in flight");
    FERRY_RETURN_IF_ERROR(fs_->SyncFile(path_, inode_));
    return fs_->Count("close", path_);
  }
  const char* method() const override { return "memory"; }

 private:
  struct InFlight {
    absl::string_view bytes;
    uint32_t crc;
    absl::Status status;
  };
  FaultFileSystem* const fs_;
  const std::string path_;
  const int inode_;
  std::deque<InFlight> in_flight_;
  uint64_t next_ticket_ = 0;
};

class FaultRandomAccessFile : public RandomAccessFile {
 public:
  FaultRandomAccessFile(FaultFileSystem* fs, std::string path, int inode, uint64_t size)
      : fs_(fs), path_(std::move(path)), inode_(inode), size_(size) {}
  uint64_t size() const override { return size_; }
  absl::Status Read(uint64_t offset, size_t n, void* out) const override {
    MutexLock lock(&fs_->mu_);
    FERRY_RETURN_IF_ERROR(fs_->Count("read", path_));
    const std::string& bytes = fs_->disk_[inode_].bytes;
    if (offset > bytes.size() || n > bytes.size() - offset) {
      return OutOfRange("read '", path_, "': ", n, " bytes at ", offset,
                        " wanted, the file ends at ", bytes.size());
    }
    std::copy_n(bytes.data() + offset, n, static_cast<char*>(out));
    return absl::OkStatus();
  }

 private:
  FaultFileSystem* const fs_;
  const std::string path_;
  const int inode_;
  const uint64_t size_;
};

FaultFileSystem::FaultFileSystem() {
  disk_[0].is_directory = true;
  initial_ = disk_;
}

void FaultFileSystem::Apply(const Op& op, Disk* disk) {
  switch (op.kind) {
    case Op::kWrite: {
      std::string& bytes = (*disk)[op.inode].bytes;
      bytes.resize(std::max<size_t>(bytes.size(), op.offset + op.bytes.size()));
      std::copy(op.bytes.begin(), op.bytes.end(),
                bytes.begin() + static_cast<std::ptrdiff_t>(op.offset));
      break;
    }
    case Op::kTruncate:
      (*disk)[op.inode].bytes.resize(op.offset);
      break;
    case Op::kNames:
      if (op.made_directory >= 0) (*disk)[op.made_directory].is_directory = true;
      for (const Op::Entry& e : op.entries) {
        std::map<std::string, int>& entries = (*disk)[e.directory].entries;
        if (e.inode < 0) {
          entries.erase(e.name);
        } else {
          entries[e.name] = e.inode;
        }
      }
      break;
    case Op::kSyncFile:
    case Op::kSyncDir:
      break;
  }
}

std::unique_ptr<FaultFileSystem> FaultFileSystem::AfterCrash(size_t n, Surviving surviving,
                                                             uint32_t seed) const {
  MutexLock lock(&mu_);
  auto after = std::make_unique<FaultFileSystem>();
  Disk disk = initial_;
  std::vector<const Op*> unsynced;
  for (size_t i = 0; i < n; ++i) {
    const Op& op = ops_[i];
    if (op.kind != Op::kSyncFile && op.kind != Op::kSyncDir) {
      unsynced.push_back(&op);
      continue;
    }
    const auto kept_by_sync = [&op](const Op* o) {
      if (op.kind == Op::kSyncFile) return o->kind != Op::kNames && o->inode == op.inode;
      if (o->kind != Op::kNames) return false;
      return std::any_of(o->entries.begin(), o->entries.end(),
                         [&op](const Op::Entry& e) { return e.directory == op.inode; });
    };
    std::vector<const Op*> rest;
    for (const Op* o : unsynced) {
      if (kept_by_sync(o)) {
        Apply(*o, &disk);
      } else {
        rest.push_back(o);
      }
    }
    unsynced.swap(rest);
  }
  std::mt19937 random(seed);
  for (const Op* o : unsynced) {
    const bool names = o->kind == Op::kNames;
    switch (surviving) {
      case Surviving::kSynced:
        break;
      case Surviving::kNames:
        if (names) Apply(*o, &disk);
        break;
      case Surviving::kBytes:
        if (!names) Apply(*o, &disk);
        break;
      case Surviving::kAll:
        Apply(*o, &disk);
        break;
      case Surviving::kAnyPart:
        if (o->kind == Op::kWrite && o->bytes.size() > 1 && random() % 3 == 0) {
          Op torn = *o;
          torn.bytes.resize(1 + random() % (torn.bytes.size() - 1));
          Apply(torn, &disk);
        } else if (random() % 2 == 0) {
          Apply(*o, &disk);
        }
        break;
    }
  }
  // A directory or file whose name was lost is gone with all that is in it.
  Disk reached;
  std::vector<int> todo = {0};
  while (!todo.empty()) {
    const int inode = todo.back();
    todo.pop_back();
    const Inode& found = reached[inode] = disk[inode];
    for (const auto& [name, child] : found.entries) todo.push_back(child);
  }
  after->disk_ = reached;
  after->initial_ = std::move(reached);
  after->next_inode_ = next_inode_;
  after->clock_ns_ = clock_ns_;
  return after;
}

size_t FaultFileSystem::num_ops() const {
  MutexLock lock(&mu_);
  return ops_.size();
}

std::string FaultFileSystem::OpName(size_t i) const {
  MutexLock lock(&mu_);
  return ops_[i].words;
}

int64_t FaultFileSystem::calls() const {
  MutexLock lock(&mu_);
  return calls_;
}

void FaultFileSystem::FailCall(int64_t n, absl::Status status, bool all_later) {
  MutexLock lock(&mu_);
  fail_from_ = calls_ + n;
  fail_to_ = all_later ? INT64_MAX : fail_from_ + 1;
  failure_ = std::move(status);
}

void FaultFileSystem::StopFailing() {
  MutexLock lock(&mu_);
  fail_from_ = fail_to_ = -1;
}

std::string FaultFileSystem::LastFailure() const {
  MutexLock lock(&mu_);
  return last_failure_;
}

absl::StatusOr<std::string> FaultFileSystem::Contents(const std::string& path) const {
  MutexLock lock(&mu_);
  const int inode = Find(path);
  if (inode < 0) return NotFound("no '", path, "'");
  return disk_.at(inode).bytes;
}

void FaultFileSystem::SetContents(const std::string& path, std::string bytes) {
  MutexLock lock(&mu_);
  const absl::StatusOr<int> inode = OpenForWriting(path, true);
  if (!inode.ok()) return;
  Do({Op::kWrite, *inode, 0, std::move(bytes), {}, -1, "set " + path});
  Do({Op::kSyncFile, *inode, 0, {}, {}, -1, "set " + path});
  Do({Op::kSyncDir, Parent(path)->first, 0, {}, {}, -1, "set " + path});
}

absl::Status FaultFileSystem::Count(absl::string_view kind, const std::string& path) {
  const int64_t call = calls_++;
  if (call < fail_from_ || call >= fail_to_) return absl::OkStatus();
  last_failure_ = absl::StrCat(kind, " ", path);
  return Annotate(failure_, last_failure_);
}

void FaultFileSystem::Do(Op op) {
  Apply(op, &disk_);
  clock_ns_ += 1000000;
  if (op.kind == Op::kWrite || op.kind == Op::kTruncate) disk_[op.inode].mtime_ns = clock_ns_;
  ops_.push_back(std::move(op));
}

int FaultFileSystem::Find(const std::string& path) const {
  int inode = 0;
  for (const std::string& part : Components(path)) {
    const Inode& directory = disk_.at(inode);
    const auto it = directory.entries.find(part);
    if (it == directory.entries.end()) return -1;
    inode = it->second;
  }
  return inode;
}

absl::StatusOr<std::pair<int, std::string>> FaultFileSystem::Parent(const std::string& path) const {
  std::vector<std::string> parts = Components(path);
  if (parts.empty()) return FailedPrecondition("'", path, "' is the root");
  const std::string name = parts.back();
  const int inode = Find(DirName(path));
  if (inode < 0) return NotFound("no directory for '", path, "'");
  if (!disk_.at(inode).is_directory) return FailedPrecondition("not a directory: '", path, "'");
  return std::make_pair(inode, name);
}

absl::StatusOr<int> FaultFileSystem::OpenForWriting(const std::string& path, bool truncate) {
  FERRY_ASSIGN_OR_RETURN(auto parent, Parent(path));
  int inode = Find(path);
  if (inode < 0) {
    inode = next_inode_++;
    disk_[inode].mtime_ns = clock_ns_;
    Do({Op::kNames, 0, 0, {}, {{parent.first, parent.second, inode}}, -1, "create " + path});
  } else if (disk_[inode].is_directory) {
    return FailedPrecondition("'", path, "' is a directory");
  } else if (truncate) {
    Do({Op::kTruncate, inode, 0, {}, {}, -1, "empty " + path});
  }
  return inode;
}

absl::Status FaultFileSystem::WriteBytes(absl::string_view kind, const std::string& path, int inode,
                                         uint64_t offset, absl::string_view data) {
  absl::Status status = Count(kind, path);
  if (!status.ok()) data = data.substr(0, data.size() / 2);
  Do({Op::kWrite,
      inode,
      offset,
      std::string(data),
      {},
      -1,
      absl::StrCat(kind, " ", path, " ", data.size(), " bytes at ", offset)});
  return status;
}

absl::Status FaultFileSystem::SyncFile(const std::string& path, int inode) {
  FERRY_RETURN_IF_ERROR(Count("sync", path));
  Do({Op::kSyncFile, inode, 0, {}, {}, -1, "sync " + path});
  return absl::OkStatus();
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultFileSystem::NewWritableFile(
    const std::string& path) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("open for writing", path));
  FERRY_ASSIGN_OR_RETURN(int inode, OpenForWriting(path, true));
  return std::unique_ptr<WritableFile>(new FaultWritableFile(this, path, inode));
}

absl::StatusOr<std::unique_ptr<WritableFile>> FaultFileSystem::NewAppendableFile(
    const std::string& path) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("open for appending", path));
  FERRY_ASSIGN_OR_RETURN(int inode, OpenForWriting(path, false));
  return std::unique_ptr<WritableFile>(new FaultWritableFile(this, path, inode));
}

absl::StatusOr<std::unique_ptr<BlockWriter>> FaultFileSystem::NewBlockWriter(
    const std::string& path, const BlockWriterOptions&) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("open for blocks", path));
  FERRY_ASSIGN_OR_RETURN(int inode, OpenForWriting(path, true));
  return std::unique_ptr<BlockWriter>(new FaultBlockWriter(this, path, inode));
}

absl::StatusOr<std::unique_ptr<RandomAccessFile>> FaultFileSystem::OpenForRead(
    const std::string& path) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("open", path));
  const int inode = Find(path);
  if (inode < 0) return NotFound("open '", path, "': no such file");
  if (disk_[inode].is_directory) return FailedPrecondition("open '", path, "': a directory");
  return std::unique_ptr<RandomAccessFile>(
      new FaultRandomAccessFile(this, path, inode, disk_[inode].bytes.size()));
}

absl::Status FaultFileSystem::Rename(const std::string& from, const std::string& to) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("rename to", to));
  const int inode = Find(from);
  if (inode < 0) return NotFound("rename '", from, "': no such file");
  FERRY_ASSIGN_OR_RETURN(auto source, Parent(from));
  FERRY_ASSIGN_OR_RETURN(auto target, Parent(to));
  const int old = Find(to);
  if (old >= 0 && disk_[old].is_directory) return FailedPrecondition("'", to, "' is a directory");
  Do({Op::kNames,
      0,
      0,
      {},
      {{source.first, source.second, -1}, {target.first, target.second, inode}},
      -1,
      absl::StrCat("rename ", from, " to ", to)});
  return absl::OkStatus();
}

absl::Status FaultFileSystem::Unlink(const std::string& path) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("unlink", path));
  const int inode = Find(path);
  if (inode < 0) return NotFound("unlink '", path, "': no such file");
  if (disk_[inode].is_directory) return FailedPrecondition("unlink '", path, "': a directory");
  FERRY_ASSIGN_OR_RETURN(auto parent, Parent(path));
  Do({Op::kNames, 0, 0, {}, {{parent.first, parent.second, -1}}, -1, "unlink " + path});
  return absl::OkStatus();
}

absl::Status FaultFileSystem::CreateDir(const std::string& path) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("mkdir", path));
  if (Find(path) >= 0) return AlreadyExists("mkdir '", path, "': it exists");
  FERRY_ASSIGN_OR_RETURN(auto parent, Parent(path));
  const int inode = next_inode_++;
  Do({Op::kNames, 0, 0, {}, {{parent.first, parent.second, inode}}, inode, "mkdir " + path});
  return absl::OkStatus();
}

absl::Status FaultFileSystem::RemoveDir(const std::string& path) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("rmdir", path));
  const int inode = Find(path);
  if (inode < 0) return NotFound("rmdir '", path, "': no such directory");
  if (!disk_[inode].is_directory || !disk_[inode].entries.empty()) {
    return FailedPrecondition("rmdir '", path, "': not an empty directory");
  }
  FERRY_ASSIGN_OR_RETURN(auto parent, Parent(path));
  Do({Op::kNames, 0, 0, {}, {{parent.first, parent.second, -1}}, -1, "rmdir " + path});
  return absl::OkStatus();
}

absl::Status FaultFileSystem::SyncDir(const std::string& path) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("sync directory", path));
  const int inode = Find(path);
  if (inode < 0 || !disk_[inode].is_directory) return NotFound("no directory '", path, "'");
  Do({Op::kSyncDir, inode, 0, {}, {}, -1, "sync directory " + path});
  return absl::OkStatus();
}

absl::StatusOr<FileInfo> FaultFileSystem::Stat(const std::string& path) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("stat", path));
  const int inode = Find(path);
  if (inode < 0) return NotFound("stat '", path, "': no such file");
  const Inode& found = disk_[inode];
  FileInfo info;
  info.size = found.bytes.size();
  info.mtime_ns = found.mtime_ns;
  info.is_directory = found.is_directory;
  return info;
}

absl::StatusOr<std::vector<std::string>> FaultFileSystem::List(const std::string& path) {
  MutexLock lock(&mu_);
  FERRY_RETURN_IF_ERROR(Count("list", path));
  const int inode = Find(path);
  if (inode < 0 || !disk_[inode].is_directory) return NotFound("list '", path, "'");
  std::vector<std::string> names;
  for (const auto& [name, child] : disk_[inode].entries) names.push_back(name);
  return names;
}

absl::StatusOr<std::unique_ptr<FileLock>> FaultFileSystem::Lock(const std::string& path) {
  std::shared_ptr<Mutex> mu;
  {
    MutexLock lock(&mu_);
    FERRY_RETURN_IF_ERROR(Count("lock", path));
    const int inode = Find(path);
    std::shared_ptr<Mutex>& found = locks_[inode >= 0 ? absl::StrCat(inode) : path];
    if (!found) found = std::make_shared<Mutex>();
    mu = found;
  }
  return std::unique_ptr<FileLock>(new HeldLock(std::move(mu)));
}

}  // namespace ferry
