// FileSystem::Posix(): the files of the operating system (Linux).
//
// Large writes go out in the first of these ways that the system and the file's own file system
// accept; what is refused, when it is opened or at the first write, moves on to the next:
//
//   io_uring on O_DIRECT  ->  pwrite on O_DIRECT  ->  pwrite through the page cache
#include <dirent.h>
#include <fcntl.h>
#include <liburing.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <deque>
#include <optional>

#include "absl/strings/escaping.h"
#include "runtime/base/file_system.h"
#include "runtime/base/mutex.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

absl::Status ErrnoStatus(absl::string_view operation, const std::string& path, int error) {
  char words[128];
  // The GNU strerror_r returns the text, which need not lie in `words`.
  const bool nul = path.find('\0') != std::string::npos;
  const std::string message =
      absl::StrCat(operation, " '", nul ? absl::CHexEscape(path) : path,
                   "': ", nul ? "a NUL byte in the name" : strerror_r(error, words, sizeof(words)));
  switch (error) {
    case ENOENT:
      return absl::NotFoundError(message);
    case EACCES:
    case EPERM:
    case EROFS:
      return absl::PermissionDeniedError(message);
    case ENOSPC:
    case EDQUOT:
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case EFBIG:
      return absl::ResourceExhaustedError(message);
    case EEXIST:
      return absl::AlreadyExistsError(message);
    case ENOTDIR:
    case EISDIR:
    case ENOTEMPTY:
    case EBUSY:
      return absl::FailedPreconditionError(message);
    case EINVAL:
    case ENAMETOOLONG:
    case ELOOP:
      return absl::InvalidArgumentError(message);
    case EIO:
    case EAGAIN:
    case ESTALE:
      return absl::UnavailableError(message);
    default:
      return absl::InternalError(message);
  }
}

// Whether the error says "not this way here" rather than "it failed".
bool Refused(int error) {
  return error == EINVAL || error == ENOSYS || error == EPERM || error == ENOMEM ||
         error == EOPNOTSUPP;
}

template <typename Call>
auto RetryInterrupted(Call call) -> decltype(call()) {
  decltype(call()) result;
  do {
    result = call();
  } while (result < 0 && errno == EINTR);
  return result;
}

// The system would take the name up to its first NUL byte for another one's.
bool IsName(const std::string& path) {
  if (path.find('\0') == std::string::npos) return true;
  errno = EINVAL;
  return false;
}

int Open(const std::string& path, int flags) {
  if (!IsName(path)) return -1;
  return RetryInterrupted([&] { return open(path.c_str(), flags | O_CLOEXEC, 0666); });
}

// Returns 0 or the error. A disk that is full may take a part first.
int PwriteAll(int fd, const char* data, size_t size, uint64_t offset) {
  while (size > 0) {
    const ssize_t n =
        RetryInterrupted([&] { return pwrite(fd, data, size, static_cast<off_t>(offset)); });
    if (n < 0) return errno;
    if (n == 0) return ENOSPC;
    data += n;
    size -= static_cast<size_t>(n);
    offset += static_cast<uint64_t>(n);
  }
  return 0;
}

// The descriptor's owner. The kernel frees the number even when close reports EINTR.
class Descriptor {
 public:
  explicit Descriptor(int fd) : fd_(fd) {}
  Descriptor(const Descriptor&) = delete;
  Descriptor& operator=(const Descriptor&) = delete;
  ~Descriptor() { Close(); }
  int get() const { return fd_; }
  int Close() {  // 0 or the error.
    if (fd_ < 0) return 0;
    const int fd = std::exchange(fd_, -1);
    return close(fd) == 0 || errno == EINTR ? 0 : errno;
  }

 private:
  int fd_;
};

// Rings are made and ended one at a time: liburing maps their memory by system calls that the
// thread sanitizer doesn't see, so it would take a ring at the address of an ended one for the same
// memory.
Mutex& RingMutex() {
  static Mutex* const mu = new Mutex;
  return *mu;
}
int InitRing(unsigned entries, io_uring* ring) {
  MutexLock lock(&RingMutex());
  return io_uring_queue_init(entries, ring, 0);
}
void ExitRing(io_uring* ring) {
  MutexLock lock(&RingMutex());
  io_uring_queue_exit(ring);
}

// An fsync that the kernel does meanwhile.
class BackgroundSync {
 public:
  BackgroundSync() = default;
  BackgroundSync(const BackgroundSync&) = delete;
  BackgroundSync& operator=(const BackgroundSync&) = delete;
  ~BackgroundSync() { Wait(); }

  // Where the kernel takes no such requests nothing is begun.
  void Start(int fd) {
    if (started_ || InitRing(1, &ring_) != 0) return;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    io_uring_prep_fsync(sqe, fd, 0);
    started_ = io_uring_submit(&ring_) == 1;
    if (!started_) ExitRing(&ring_);
  }
  // The outcome, 0 or the error; nothing if no fsync was done.
  std::optional<int> Wait() {
    if (!started_) return std::nullopt;
    io_uring_cqe* cqe = nullptr;
    const int n = RetryInterrupted([&] {
      const int result = io_uring_wait_cqe(&ring_, &cqe);
      if (result < 0) errno = -result;
      return result;
    });
    const int error = n < 0 ? -n : -cqe->res;
    started_ = false;
    ExitRing(&ring_);
    // Of these the kernel says that it has not called fsync.
    if (n == 0 && (error == EINVAL || error == ECANCELED || error == EOPNOTSUPP)) {
      return std::nullopt;
    }
    return error;
  }

 private:
  io_uring ring_;
  bool started_ = false;
};

class PosixWritableFile : public WritableFile {
 public:
  PosixWritableFile(std::string path, int fd) : path_(std::move(path)), fd_(fd) {}

  absl::Status Append(absl::string_view data) override {
    while (!data.empty()) {
      const ssize_t n =
          RetryInterrupted([&] { return write(fd_.get(), data.data(), data.size()); });
      if (n < 0) return ErrnoStatus("write", path_, errno);
      if (n == 0) return ErrnoStatus("write", path_, ENOSPC);
      data.remove_prefix(static_cast<size_t>(n));
    }
    return absl::OkStatus();
  }

  void StartSync() override {
    if (sync_failed_.ok()) background_.Start(fd_.get());
  }

  absl::Status Sync() override {
    if (!sync_failed_.ok()) return sync_failed_;
    std::optional<int> error = background_.Wait();
    if (!error) error = fsync(fd_.get()) == 0 ? 0 : errno;
    if (*error != 0) sync_failed_ = ErrnoStatus("fsync", path_, *error);
    return sync_failed_;
  }

  absl::Status Close() override {
    background_.Wait();
    const int error = fd_.Close();
    return error == 0 ? absl::OkStatus() : ErrnoStatus("close", path_, error);
  }

 private:
  const std::string path_;
  Descriptor fd_;
  BackgroundSync background_;
  absl::Status sync_failed_;
};

class PosixBlockWriter : public BlockWriter {
 public:
  PosixBlockWriter(std::string path, int fd, bool direct, size_t alignment,
                   const BlockWriterOptions& options)
      : path_(std::move(path)),
        fd_(fd),
        alignment_(alignment),
        depth_(static_cast<size_t>(std::max(1, options.depth))),
        direct_(direct) {
    ring_made_ = options.try_io_uring && InitRing(static_cast<unsigned>(depth_), &ring_) == 0;
    use_ring_ = ring_made_;
  }

  ~PosixBlockWriter() override {
    while (in_ring_ > 0 && ReapOne()) {
    }
    if (ring_made_) ExitRing(&ring_);
  }

  size_t alignment() const override { return alignment_; }

  absl::StatusOr<uint64_t> Write(const void* data, size_t size, uint64_t offset) override {
    while (use_ring_ && in_ring_ >= depth_) {
      if (!ReapOne()) break;
    }
    const uint64_t ticket = first_ticket_ + writes_.size();
    writes_.push_back({static_cast<const char*>(data), size, offset});
    PendingWrite& w = writes_.back();
    if (!use_ring_ || !Submit(ticket, &w)) WritePlainly(&w);
    return ticket;
  }

  absl::Status Wait(uint64_t ticket) override {
    if (ticket != first_ticket_ || writes_.empty()) {
      return Internal("write ", ticket, " of '", path_, "' waited for out of order");
    }
    while (!writes_.front().done) {
      if (!ReapOne()) return Internal("io_uring lost a write of '", path_, "'");
    }
    const int error = writes_.front().error;
    writes_.pop_front();
    ++first_ticket_;
    return error == 0 ? absl::OkStatus() : ErrnoStatus("write", path_, error);
  }

  absl::Status SetLength(uint64_t length) override {
    if (!writes_.empty()) return Internal("'", path_, "' cut with writes in flight");
    if (RetryInterrupted([&] { return ftruncate(fd_.get(), static_cast<off_t>(length)); }) != 0) {
      return ErrnoStatus("ftruncate", path_, errno);
    }
    return absl::OkStatus();
  }

  absl::Status Finish() override {
    if (!writes_.empty()) return Internal("'", path_, "' finished with writes in flight");
    if (fsync(fd_.get()) != 0) return ErrnoStatus("fsync", path_, errno);
    const int error = fd_.Close();
    return error == 0 ? absl::OkStatus() : ErrnoStatus("close", path_, error);
  }

  const char* method() const override {
    if (use_ring_) return direct_ ? "io_uring O_DIRECT" : "io_uring";
    return direct_ ? "pwrite O_DIRECT" : "pwrite";
  }

 private:
  struct PendingWrite {
    const char* data;
    size_t size;
    uint64_t offset;
    bool done = false;
    int error = 0;
  };

  // False when the ring takes no more work; then nothing of it was submitted.
  bool Submit(uint64_t ticket, PendingWrite* w) {
    // The length of one request is an unsigned int.
    if (w->size > (size_t{1} << 30)) return false;
    io_uring_sqe* sqe = io_uring_get_sqe(&ring_);
    if (!sqe) return false;
    io_uring_prep_write(sqe, fd_.get(), w->data, static_cast<unsigned>(w->size), w->offset);
    io_uring_sqe_set_data64(sqe, ticket);
    int n;
    do {
      n = io_uring_submit(&ring_);
    } while (n == -EINTR || n == -EAGAIN || n == -EBUSY);
    if (n != 1) {
      // The entry stays in the queue unsubmitted, and would go out with a later one: no later
      // submission happens.
      use_ring_ = false;
      return false;
    }
    ++in_ring_;
    return true;
  }

  // Waits for one completion and finishes that write. False when the ring is broken.
  bool ReapOne() {
    if (in_ring_ == 0) return false;
    io_uring_cqe* cqe = nullptr;
    int n;
    do {
      n = io_uring_wait_cqe(&ring_, &cqe);
    } while (n == -EINTR || n == -EAGAIN);
    if (n != 0) return false;
    const uint64_t ticket = io_uring_cqe_get_data64(cqe);
    const int result = cqe->res;
    io_uring_cqe_seen(&ring_, cqe);
    --in_ring_;
    PendingWrite& w = writes_[static_cast<size_t>(ticket - first_ticket_)];
    if (result >= 0) {
      const size_t written = static_cast<size_t>(result);
      w.data += written;
      w.offset += written;
      w.size -= written;
      if (w.size > 0) {
        WritePlainly(&w);  // A short write: the rest, or the error that cut it.
      } else {
        w.done = true;
      }
    } else if (result == -EINTR || result == -EAGAIN) {
      WritePlainly(&w);
    } else if (Refused(-result)) {
      use_ring_ = false;
      WritePlainly(&w);
    } else {
      w.done = true;
      w.error = -result;
    }
    return true;
  }

  void WritePlainly(PendingWrite* w) {
    w->error = PwriteAll(fd_.get(), w->data, w->size, w->offset);
    if (direct_ && Refused(w->error)) {
      const int flags = fcntl(fd_.get(), F_GETFL);
      if (flags >= 0 && fcntl(fd_.get(), F_SETFL, flags & ~O_DIRECT) == 0) {
        direct_ = false;
        w->error = PwriteAll(fd_.get(), w->data, w->size, w->offset);
      }
    }
    w->done = true;
  }

  const std::string path_;
  Descriptor fd_;
  const size_t alignment_;
  const size_t depth_;
  bool direct_;
  bool ring_made_ = false;
  bool use_ring_ = false;
  io_uring ring_;
  size_t in_ring_ = 0;               // Submitted and not yet reaped.
  std::deque<PendingWrite> writes_;  // Not yet waited for; the front is first_ticket_'s.
  uint64_t first_ticket_ = 0;
};

class PosixRandomAccessFile : public RandomAccessFile {
 public:
  PosixRandomAccessFile(std::string path, int fd, uint64_t size)
      : path_(std::move(path)), fd_(fd), size_(size) {}

  uint64_t size() const override { return size_; }

  absl::Status Read(uint64_t offset, size_t n, void* out) const override {
    char* p = static_cast<char*>(out);
    size_t left = n;
    uint64_t at = offset;
    while (left > 0) {
      const ssize_t got =
          RetryInterrupted([&] { return pread(fd_.get(), p, left, static_cast<off_t>(at)); });
      if (got < 0) return ErrnoStatus("read", path_, errno);
      if (got == 0) {
        return OutOfRange("read '", path_, "': ", n, " bytes at ", offset,
                          " wanted, the file ends at ", at);
      }
      p += got;
      left -= static_cast<size_t>(got);
      at += static_cast<uint64_t>(got);
    }
    return absl::OkStatus();
  }

 private:
  const std::string path_;
  const Descriptor fd_;
  const uint64_t size_;
};

// flock belongs to the open file, so it also keeps out other threads of this process.
class PosixFileLock : public FileLock {
 public:
  explicit PosixFileLock(int fd) : fd_(fd) {}

 private:
  const Descriptor fd_;  // Closing it unlocks.
};

// Refuses a pipe, whose opening would wait for somebody who reads from it.
absl::Status CheckOpensAtOnce(const std::string& path) {
  struct stat st;
  if (stat(path.c_str(), &st) != 0 || !S_ISFIFO(st.st_mode)) return absl::OkStatus();
  return FailedPrecondition("open for writing '", path, "': it is a pipe, not a regular file");
}

// Refuses what a rename to `path` would destroy: a device, a pipe, and the links by which
// /dev/stdout and its kin name what a process has open. Of a directory the rename itself complains.
absl::Status CheckMayReplace(const std::string& path) {
  constexpr absl::string_view kOpenFiles = "/proc/";
  char target[kOpenFiles.size()];
  const ssize_t n = readlink(path.c_str(), target, sizeof(target));
  const bool open = n > 0 && absl::string_view(target, static_cast<size_t>(n)) == kOpenFiles;
  struct stat st;
  if (!open && (stat(path.c_str(), &st) != 0 || S_ISREG(st.st_mode) || S_ISDIR(st.st_mode))) {
    return absl::OkStatus();
  }
  return FailedPrecondition("'", path, "' is not a regular file, and is not replaced by one");
}

class PosixFileSystem : public FileSystem {
 public:
  absl::StatusOr<std::unique_ptr<WritableFile>> NewWritableFile(const std::string& path) override {
    return OpenWritable(path, O_TRUNC);
  }

  absl::StatusOr<std::unique_ptr<WritableFile>> NewAppendableFile(
      const std::string& path) override {
    return OpenWritable(path, O_APPEND);
  }

  absl::StatusOr<std::unique_ptr<BlockWriter>> NewBlockWriter(
      const std::string& path, const BlockWriterOptions& options) override {
    constexpr int kFlags = O_WRONLY | O_CREAT | O_TRUNC;
    constexpr size_t kPage = 4096;
    FERRY_RETURN_IF_ERROR(CheckOpensAtOnce(path));
    int fd = options.try_direct ? Open(path, kFlags | O_DIRECT) : -1;
    bool direct = fd >= 0;
    size_t alignment = kPage;
    if (direct) {
      alignment = DirectAlignment(fd);
      if (alignment == 0) {
        direct = false;
        alignment = kPage;
        const int flags = fcntl(fd, F_GETFL);
        if (flags < 0 || fcntl(fd, F_SETFL, flags & ~O_DIRECT) != 0) {
          close(fd);
          fd = -1;
        }
      }
    }
    if (fd < 0) fd = Open(path, kFlags);
    if (fd < 0) return ErrnoStatus("open for writing", path, errno);
    std::unique_ptr<BlockWriter> writer(new PosixBlockWriter(path, fd, direct, alignment, options));
    // Through the page cache writes gain nothing by it, and some file systems pay by writing zeros.
    // One that can't reserve writes all the same; one that is full would only say so later.
    const uint64_t reserved = (options.expected_bytes + alignment - 1) / alignment * alignment;
    if (direct && reserved > 0 &&
        RetryInterrupted([&] { return fallocate(fd, 0, 0, static_cast<off_t>(reserved)); }) != 0 &&
        (errno == ENOSPC || errno == EDQUOT)) {
      return ErrnoStatus("reserve space for", path, errno);
    }
    return writer;
  }

  absl::StatusOr<std::unique_ptr<RandomAccessFile>> OpenForRead(const std::string& path) override {
    // Opening a pipe without O_NONBLOCK would wait for somebody who writes into it.
    const int fd = Open(path, O_RDONLY | O_NONBLOCK);
    if (fd < 0) return ErrnoStatus("open", path, errno);
    struct stat st;
    const int error = fstat(fd, &st) != 0 ? errno : S_ISDIR(st.st_mode) ? EISDIR : 0;
    if (error != 0 || !S_ISREG(st.st_mode)) {
      close(fd);
      if (error != 0) return ErrnoStatus("open", path, error);
      return FailedPrecondition("'", path, "' is not a regular file");
    }
    return std::unique_ptr<RandomAccessFile>(
        new PosixRandomAccessFile(path, fd, static_cast<uint64_t>(st.st_size)));
  }

  absl::Status Rename(const std::string& from, const std::string& to) override {
    if (!IsName(from)) return ErrnoStatus("rename", from, errno);
    FERRY_RETURN_IF_ERROR(CheckMayReplace(to));
    if (IsName(to) && rename(from.c_str(), to.c_str()) == 0) return absl::OkStatus();
    return ErrnoStatus(absl::StrCat("rename '", from, "' to"), to, errno);
  }

  absl::Status Unlink(const std::string& path) override {
    if (IsName(path) && unlink(path.c_str()) == 0) return absl::OkStatus();
    return ErrnoStatus("unlink", path, errno);
  }

  absl::Status CreateDir(const std::string& path) override {
    if (IsName(path) && mkdir(path.c_str(), 0777) == 0) return absl::OkStatus();
    return ErrnoStatus("mkdir", path, errno);
  }

  absl::Status RemoveDir(const std::string& path) override {
    if (IsName(path) && rmdir(path.c_str()) == 0) return absl::OkStatus();
    return ErrnoStatus("rmdir", path, errno);
  }

  absl::Status SyncDir(const std::string& path) override {
    Descriptor fd(Open(path, O_RDONLY | O_DIRECTORY));
    if (fd.get() < 0) return ErrnoStatus("open directory", path, errno);
    // Some file systems (network, FUSE) have nothing to sync in a directory and say EINVAL.
    if (fsync(fd.get()) != 0 && errno != EINVAL) {
      return ErrnoStatus("fsync directory", path, errno);
    }
    return absl::OkStatus();
  }

  absl::StatusOr<FileInfo> Stat(const std::string& path) override {
    struct stat st;
    if (!IsName(path) || stat(path.c_str(), &st) != 0) return ErrnoStatus("stat", path, errno);
    FileInfo info;
    info.size = static_cast<uint64_t>(st.st_size);
    info.mtime_ns = int64_t{st.st_mtim.tv_sec} * 1000000000 + st.st_mtim.tv_nsec;
    info.is_directory = S_ISDIR(st.st_mode);
    return info;
  }

  absl::StatusOr<std::vector<std::string>> List(const std::string& path) override {
    DIR* dir = IsName(path) ? opendir(path.c_str()) : nullptr;
    if (!dir) return ErrnoStatus("list", path, errno);
    std::vector<std::string> names;
    errno = 0;
    while (const dirent* entry = readdir(dir)) {
      const absl::string_view name = entry->d_name;
      if (name != "." && name != "..") names.emplace_back(name);
      errno = 0;
    }
    const int error = errno;
    closedir(dir);
    if (error != 0) return ErrnoStatus("list", path, error);
    std::sort(names.begin(), names.end());
    return names;
  }

  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string& path) override {
    int fd = Open(path, O_RDWR | O_CREAT);
    if (fd < 0 && errno == EISDIR) fd = Open(path, O_RDONLY | O_DIRECTORY);
    if (fd < 0) return ErrnoStatus("open to lock", path, errno);
    std::unique_ptr<FileLock> lock(new PosixFileLock(fd));
    if (RetryInterrupted([&] { return flock(fd, LOCK_EX); }) != 0) {
      const bool none =
          errno == ENOLCK || errno == EOPNOTSUPP || errno == ENOSYS || errno == EINVAL;
      const absl::Status failed = ErrnoStatus("lock", path, errno);
      return none ? absl::UnimplementedError(failed.message()) : failed;
    }
    return lock;
  }

 private:
  static absl::StatusOr<std::unique_ptr<WritableFile>> OpenWritable(const std::string& path,
                                                                    int flag) {
    FERRY_RETURN_IF_ERROR(CheckOpensAtOnce(path));
    const int fd = Open(path, O_WRONLY | O_CREAT | flag);
    if (fd < 0) return ErrnoStatus("open for writing", path, errno);
    return std::unique_ptr<WritableFile>(new PosixWritableFile(path, fd));
  }

  // What O_DIRECT wants offsets, lengths and addresses to be multiples of; 0 where it isn't
  // supported on this file.
  static size_t DirectAlignment(int fd) {
    size_t alignment = 0;
#ifdef STATX_DIOALIGN
    struct statx stx;
    if (statx(fd, "", AT_EMPTY_PATH, STATX_DIOALIGN, &stx) == 0 &&
        (stx.stx_mask & STATX_DIOALIGN)) {
      if (stx.stx_dio_offset_align == 0) return 0;
      alignment = std::max(stx.stx_dio_offset_align, stx.stx_dio_mem_align);
    }
#endif
    struct stat st;
    if (alignment == 0 && fstat(fd, &st) == 0) alignment = static_cast<size_t>(st.st_blksize);
    // Whole pages in any case: what is written in smaller pieces is no faster.
    alignment = std::max<size_t>(alignment, 4096);
    const bool power_of_two = (alignment & (alignment - 1)) == 0;
    return power_of_two && alignment <= (size_t{64} << 10) ? alignment : 0;
  }
};

}  // namespace

FileSystem* FileSystem::Posix() {
  static PosixFileSystem* const fs = new PosixFileSystem;
  return fs;
}

}  // namespace ferry
