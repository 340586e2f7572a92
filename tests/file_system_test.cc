// Tests the FileSystem contract on the real files and on the tests' own file system, every way of
// writing blocks, and the states that the latter gives after a power loss.
#include "runtime/base/file_system.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <set>
#include <thread>

#include "runtime/base/mutex.h"
#include "runtime/base/status.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

std::string MakeTempDir() {
  const char* base = std::getenv("TEST_TMPDIR");
  std::string path = absl::StrCat(base ? base : "/tmp", "/fs_test.XXXXXX");
  EXPECT_NE(mkdtemp(&path[0]), nullptr);
  return path;
}

struct AlignedFree {
  void operator()(char* p) const { std::free(p); }
};
using AlignedMemory = std::unique_ptr<char, AlignedFree>;

AlignedMemory Aligned(size_t alignment, size_t size) {
  AlignedMemory p(static_cast<char*>(std::aligned_alloc(alignment, size)));
  for (size_t i = 0; i < size; ++i) p.get()[i] = static_cast<char>(i * 7 + i / 251);
  return p;
}

class FileSystemTest : public ::testing::TestWithParam<bool> {
 protected:
  FileSystemTest() {
    if (GetParam()) {
      fs_ = FileSystem::Posix();
      dir_ = MakeTempDir();
    } else {
      fs_ = &fault_;
      dir_ = "/d";
      EXPECT_TRUE(fs_->CreateDir(dir_).ok());
    }
  }
  std::string Path(const std::string& name) const { return dir_ + "/" + name; }

  FaultFileSystem fault_;
  FileSystem* fs_;
  std::string dir_;
};

INSTANTIATE_TEST_SUITE_P(, FileSystemTest, ::testing::Bool(),
                         [](const auto& info) { return info.param ? "Posix" : "Fault"; });

TEST_P(FileSystemTest, WritesAppendsReads) {
  auto file = fs_->NewWritableFile(Path("f"));
  ASSERT_TRUE(file.ok()) << file.status();
  EXPECT_TRUE((*file)->Append("abc").ok());
  EXPECT_TRUE((*file)->Append("").ok());
  EXPECT_TRUE((*file)->Append("def").ok());
  EXPECT_TRUE((*file)->Sync().ok());
  EXPECT_TRUE((*file)->Close().ok());
  file = fs_->NewAppendableFile(Path("f"));
  ASSERT_TRUE(file.ok());
  EXPECT_TRUE((*file)->Append("gh").ok());
  EXPECT_TRUE((*file)->Close().ok());
  EXPECT_EQ(*ReadFile(fs_, Path("f")), "abcdefgh");

  auto in = fs_->OpenForRead(Path("f"));
  ASSERT_TRUE(in.ok());
  EXPECT_EQ((*in)->size(), 8u);
  char out[4] = {};
  EXPECT_TRUE((*in)->Read(2, 4, out).ok());
  EXPECT_EQ(std::string(out, 4), "cdef");
  EXPECT_EQ((*in)->Read(5, 4, out).code(), absl::StatusCode::kOutOfRange);
  EXPECT_TRUE((*in)->Read(8, 0, out).ok());

  file = fs_->NewWritableFile(Path("f"));  // Empties it.
  EXPECT_TRUE((*file)->Close().ok());
  EXPECT_EQ(*ReadFile(fs_, Path("f")), "");
}

TEST_P(FileSystemTest, NamesAndDirectories) {
  EXPECT_EQ(ReadFile(fs_, Path("none")).status().code(), absl::StatusCode::kNotFound);
  EXPECT_NE(std::string(ReadFile(fs_, Path("none")).status().message()).find(Path("none")),
            std::string::npos);
  EXPECT_TRUE(fs_->CreateDir(Path("sub")).ok());
  EXPECT_EQ(fs_->CreateDir(Path("sub")).code(), absl::StatusCode::kAlreadyExists);
  EXPECT_TRUE(WriteFileAtomically(fs_, Path("sub/b"), "bb").ok());
  EXPECT_TRUE(WriteFileAtomically(fs_, Path("sub/a"), "a").ok());
  EXPECT_TRUE(WriteFileAtomically(fs_, Path("sub/a"), "aaa").ok());
  EXPECT_EQ(*fs_->List(Path("sub")), (std::vector<std::string>{"a", "b"}));
  EXPECT_EQ(fs_->Stat(Path("sub/a"))->size, 3u);
  EXPECT_GT(fs_->Stat(Path("sub/a"))->mtime_ns, 0);
  EXPECT_TRUE(fs_->Stat(Path("sub"))->is_directory);
  EXPECT_FALSE(fs_->Exists(Path("sub/c")));
  EXPECT_EQ(fs_->RemoveDir(Path("sub")).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(fs_->OpenForRead(Path("sub")).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(fs_->Rename(Path("sub/a"), Path("sub/b")).ok());
  EXPECT_EQ(*ReadFile(fs_, Path("sub/b")), "aaa");
  EXPECT_EQ(fs_->Rename(Path("sub/a"), Path("x")).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(fs_->Unlink(Path("sub/b")).ok());
  EXPECT_EQ(fs_->Unlink(Path("sub/b")).code(), absl::StatusCode::kNotFound);
  EXPECT_TRUE(fs_->SyncDir(Path("sub")).ok());
  EXPECT_TRUE(fs_->RemoveDir(Path("sub")).ok());
  EXPECT_EQ(fs_->SyncDir(Path("sub")).code(), absl::StatusCode::kNotFound);
  EXPECT_EQ(fs_->NewWritableFile(Path("sub/x")).status().code(), absl::StatusCode::kNotFound);
}

TEST_P(FileSystemTest, CreateDirsMakesWhatIsMissing) {
  EXPECT_TRUE(CreateDirs(fs_, Path("a/b//c/")).ok());
  EXPECT_TRUE(CreateDirs(fs_, Path("a/b/c")).ok());
  EXPECT_TRUE(fs_->Stat(Path("a/b/c"))->is_directory);
  EXPECT_TRUE(WriteFileAtomically(fs_, Path("a/file"), "").ok());
  EXPECT_EQ(CreateDirs(fs_, Path("a/file")).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(CreateDirs(fs_, Path("a/file/b")).code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_TRUE(CreateDirs(fs_, "/").ok());
}

TEST_P(FileSystemTest, LockKeepsOthersOut) {
  Mutex mu;  // The thread sanitizer doesn't see a lock on a file.
  std::vector<int> order;
  auto lock = fs_->Lock(dir_);
  ASSERT_TRUE(lock.ok()) << lock.status();
  std::thread other([&] {
    auto second = fs_->Lock(dir_);
    EXPECT_TRUE(second.ok());
    MutexLock held(&mu);
    order.push_back(2);
  });
  std::this_thread::sleep_for(std::chrono::milliseconds(20));
  {
    MutexLock held(&mu);
    order.push_back(1);
  }
  lock->reset();
  other.join();
  EXPECT_EQ(order, (std::vector<int>{1, 2}));
  EXPECT_TRUE(fs_->Lock(Path("lockfile")).ok());
}

// Blocks of several sizes with several in flight, the last cut by the length.
void WriteBlocks(FileSystem* fs, const std::string& path, const BlockWriterOptions& options,
                 size_t shift, std::string* method) {
  auto writer = fs->NewBlockWriter(path, options);
  ASSERT_TRUE(writer.ok()) << writer.status();
  const size_t a = (*writer)->alignment();
  const size_t sizes[] = {a, 3 * a, 64 * a, a, 2 * a, 9 * a, 128 * a, a};
  size_t total = 0;
  for (size_t size : sizes) total += size;
  AlignedMemory memory = Aligned(a, total + a);
  const char* data = memory.get() + shift;
  size_t offset = 0;
  std::vector<uint64_t> tickets;
  for (size_t size : sizes) {
    auto ticket = (*writer)->Write(data + offset, size, offset);
    ASSERT_TRUE(ticket.ok()) << ticket.status();
    EXPECT_EQ(*ticket, tickets.size());
    tickets.push_back(*ticket);
    offset += size;
  }
  for (uint64_t ticket : tickets) EXPECT_TRUE((*writer)->Wait(ticket).ok());
  EXPECT_TRUE((*writer)->SetLength(total - 77).ok());
  EXPECT_TRUE((*writer)->Finish().ok());
  *method = (*writer)->method();
  EXPECT_EQ(*ReadFile(fs, path), std::string(data, total - 77));
}

TEST_P(FileSystemTest, BlockWriter) {
  std::string method;
  WriteBlocks(fs_, Path("blocks"), {}, 0, &method);
  EXPECT_EQ(fs_->NewBlockWriter(Path("no/such"), {}).status().code(), absl::StatusCode::kNotFound);
}

TEST(PosixBlockWriter, EveryWayWritesTheSame) {
  FileSystem* fs = FileSystem::Posix();
  const std::string dir = MakeTempDir();
  for (bool direct : {true, false}) {
    for (bool ring : {true, false}) {
      for (int depth : {1, 4}) {
        BlockWriterOptions options;
        options.try_direct = direct;
        options.try_io_uring = ring;
        options.depth = depth;
        std::string method;
        WriteBlocks(fs, dir + "/f", options, 0, &method);
        if (!ring) {
          EXPECT_EQ(method.find("io_uring"), std::string::npos) << method;
        }
        if (!direct) {
          EXPECT_EQ(method.find("O_DIRECT"), std::string::npos) << method;
        }
      }
    }
  }
}

TEST(PosixBlockWriter, RefusedWritesFallBack) {
  const std::string path = MakeTempDir() + "/f";
  std::string method;
  // O_DIRECT refuses memory at an odd address with EINVAL, in the ring and outside it.
  WriteBlocks(FileSystem::Posix(), path, {}, 1, &method);
  EXPECT_EQ(method.find("O_DIRECT"), std::string::npos) << method;
  BlockWriterOptions options;
  options.try_io_uring = false;
  WriteBlocks(FileSystem::Posix(), path, options, 1, &method);
  EXPECT_EQ(method, "pwrite");
  // A ring of this size is refused when it is set up.
  options.try_io_uring = true;
  options.depth = 1 << 24;
  WriteBlocks(FileSystem::Posix(), path, options, 0, &method);
  EXPECT_EQ(method.find("io_uring"), std::string::npos) << method;
}

TEST(PosixBlockWriter, FullDeviceIsAnError) {
  for (bool ring : {true, false}) {
    BlockWriterOptions options;
    options.try_io_uring = ring;
    auto writer = FileSystem::Posix()->NewBlockWriter("/dev/full", options);
    ASSERT_TRUE(writer.ok()) << writer.status();
    AlignedMemory memory = Aligned((*writer)->alignment(), (*writer)->alignment());
    auto ticket = (*writer)->Write(memory.get(), (*writer)->alignment(), 0);
    ASSERT_TRUE(ticket.ok());
    const absl::Status status = (*writer)->Wait(*ticket);
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted) << status;
    EXPECT_NE(std::string(status.message()).find("/dev/full"), std::string::npos);
  }
  auto file = FileSystem::Posix()->NewAppendableFile("/dev/full");
  ASSERT_TRUE(file.ok());
  EXPECT_EQ((*file)->Append("x").code(), absl::StatusCode::kResourceExhausted);
}

TEST(PosixBlockWriter, WaitsOutOfOrderAreRefused) {
  auto writer = FileSystem::Posix()->NewBlockWriter(MakeTempDir() + "/f", {});
  ASSERT_TRUE(writer.ok());
  EXPECT_EQ((*writer)->Wait(0).code(), absl::StatusCode::kInternal);
  AlignedMemory memory = Aligned((*writer)->alignment(), (*writer)->alignment());
  EXPECT_TRUE((*writer)->Write(memory.get(), (*writer)->alignment(), 0).ok());
  EXPECT_EQ((*writer)->SetLength(1).code(), absl::StatusCode::kInternal);
  EXPECT_EQ((*writer)->Finish().code(), absl::StatusCode::kInternal);
  EXPECT_TRUE((*writer)->Wait(0).ok());
}

TEST(PosixBlockWriter, ReservedSpaceDoesNotShow) {
  const std::string path = MakeTempDir() + "/f";
  for (const uint64_t expected : {uint64_t{1}, uint64_t{50000}, uint64_t{1} << 24}) {
    BlockWriterOptions options;
    options.expected_bytes = expected;
    std::string method;
    WriteBlocks(FileSystem::Posix(), path, options, 0, &method);
  }
}

TEST(PosixWritableFile, SyncsInTheBackground) {
  FileSystem* fs = FileSystem::Posix();
  const std::string dir = MakeTempDir();
  std::vector<std::unique_ptr<WritableFile>> files;
  for (int i = 0; i < 5; ++i) {
    files.push_back(*fs->NewWritableFile(absl::StrCat(dir, "/f", i)));
    ASSERT_TRUE(files.back()->Append("one").ok());
    files.back()->StartSync();
  }
  for (auto& file : files) {
    EXPECT_TRUE(file->Sync().ok());
    ASSERT_TRUE(file->Append("two").ok());
    EXPECT_TRUE(file->Sync().ok());
    ASSERT_TRUE(file->Append("three").ok());
    file->StartSync();
  }
  files[0].reset();
  EXPECT_TRUE(files[1]->Close().ok());
  files[2]->StartSync();
  EXPECT_TRUE(files[2]->Sync().ok());
  files.clear();
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(*ReadFile(fs, absl::StrCat(dir, "/f", i)), "onetwothree");
  }
  // What can't be synced says so either way.
  for (const bool start : {false, true}) {
    auto proc = fs->NewAppendableFile("/proc/self/comm");
    ASSERT_TRUE(proc.ok()) << proc.status();
    if (start) (*proc)->StartSync();
    EXPECT_EQ((*proc)->Sync().code(), absl::StatusCode::kInvalidArgument);
    EXPECT_FALSE((*proc)->Sync().ok()) << "tried again";
  }
}

TEST(PosixFileSystem, LeavesDevicesAndPipesAlone) {
  FileSystem* const fs = FileSystem::Posix();
  const std::string dir = MakeTempDir();
  const std::string pipe = dir + "/pipe", link = dir + "/link", output = dir + "/output";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  ASSERT_EQ(symlink("/dev/null", link.c_str()), 0);
  // As /dev/stdout is, here of a regular file.
  ASSERT_TRUE(WriteFileAtomically(fs, dir + "/file", "").ok());
  const int file = open((dir + "/file").c_str(), O_RDONLY);
  ASSERT_GE(file, 0);
  ASSERT_EQ(symlink(("/proc/self/fd/" + std::to_string(file)).c_str(), output.c_str()), 0);
  for (const std::string& path : {pipe, link, output}) {
    const absl::Status s = WriteFileAtomically(fs, path, "bytes");
    EXPECT_EQ(s.code(), absl::StatusCode::kFailedPrecondition) << s;
    EXPECT_NE(std::string(s.message()).find(path), std::string::npos) << s;
    EXPECT_FALSE(fs->Exists(path + ".ferry-tmp"));
    struct stat st;
    ASSERT_EQ(lstat(path.c_str(), &st), 0);
    EXPECT_TRUE(path == pipe ? S_ISFIFO(st.st_mode) : S_ISLNK(st.st_mode));
  }
  close(file);
  // A link of the user's own is replaced, not followed.
  const std::string own = dir + "/own";
  ASSERT_EQ(symlink("file", own.c_str()), 0);
  EXPECT_TRUE(WriteFileAtomically(fs, own, "bytes").ok());
  EXPECT_EQ(*ReadFile(fs, own), "bytes");
  EXPECT_EQ(*ReadFile(fs, dir + "/file"), "");
  // Nobody reads from it, so that opening it would wait for ever.
  EXPECT_EQ(fs->NewWritableFile(pipe).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(fs->NewAppendableFile(pipe).status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_EQ(fs->NewBlockWriter(pipe, {}).status().code(), absl::StatusCode::kFailedPrecondition);
}

// The system takes a name up to its first NUL byte, which would be another file.
TEST(PosixFileSystem, RefusesNulBytesInNames) {
  FileSystem* const fs = FileSystem::Posix();
  const std::string dir = MakeTempDir();
  const std::string there = dir + "/there";
  ASSERT_TRUE(WriteFileAtomically(fs, there, "bytes").ok());
  const std::string bad = there + std::string("\0.index", 7);
  const std::vector<absl::Status> all = {fs->NewWritableFile(bad).status(),
                                         fs->NewAppendableFile(bad).status(),
                                         fs->NewBlockWriter(bad, {}).status(),
                                         fs->OpenForRead(bad).status(),
                                         fs->Rename(bad, dir + "/x"),
                                         fs->Rename(there, bad),
                                         fs->Unlink(bad),
                                         fs->CreateDir(bad),
                                         fs->RemoveDir(bad),
                                         fs->SyncDir(bad),
                                         fs->Stat(bad).status(),
                                         fs->List(bad).status(),
                                         fs->Lock(bad).status()};
  for (const absl::Status& s : all) {
    EXPECT_TRUE(absl::IsInvalidArgument(s)) << s;
    EXPECT_NE(std::string(s.message()).find("there\\x00.index': a NUL byte in the name"),
              std::string::npos)
        << s;
  }
  EXPECT_EQ(*ReadFile(fs, there), "bytes");
}

TEST(Paths, SplitAndJoin) {
  EXPECT_EQ(DirName("a/b/c"), "a/b");
  EXPECT_EQ(DirName("c"), ".");
  EXPECT_EQ(DirName("/c"), "/");
  EXPECT_EQ(BaseName("a/b/c"), "c");
  EXPECT_EQ(BaseName("c"), "c");
  EXPECT_EQ(JoinPath("a", "b"), "a/b");
  EXPECT_EQ(JoinPath("a/", "b"), "a/b");
  EXPECT_EQ(JoinPath("a", "/b"), "/b");
  EXPECT_EQ(JoinPath("", "b"), "b");
}

std::string After(const FaultFileSystem& fs, size_t n, Surviving surviving) {
  auto after = fs.AfterCrash(n, surviving);
  const auto found = ReadFile(after.get(), "/f");
  return found.ok() ? *found : "(none)";
}

TEST(FaultFileSystem, CrashKeepsWhatWasSynced) {
  FaultFileSystem fs;
  auto file = fs.NewWritableFile("/f");
  ASSERT_TRUE((*file)->Append("one").ok());
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kSynced), "(none)");
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kNames), "");
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kBytes), "(none)");
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kAll), "one");
  ASSERT_TRUE((*file)->Sync().ok());
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kSynced), "(none)");
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kNames), "one");
  ASSERT_TRUE(fs.SyncDir("/").ok());
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kSynced), "one");
  ASSERT_TRUE((*file)->Append("two").ok());
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kSynced), "one");
  // A replacement whose bytes weren't synced before the rename.
  file = fs.NewWritableFile("/g");
  ASSERT_TRUE((*file)->Append("new").ok());
  ASSERT_TRUE(fs.Rename("/g", "/f").ok());
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kSynced), "one");
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kNames), "");
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kAll), "new");
  std::set<std::string> seen;
  for (uint32_t seed = 0; seed < 100; ++seed) {
    const auto found = ReadFile(fs.AfterCrash(fs.num_ops(), Surviving::kAnyPart, seed).get(), "/f");
    seen.insert(found.ok() ? *found : "(none)");
  }
  for (const char* state : {"one", "onetwo", "", "new", "ne"}) EXPECT_EQ(seen.count(state), 1u);
  EXPECT_EQ(seen.count("(none)"), 0u);
  EXPECT_EQ(After(fs, 0, Surviving::kAll), "(none)");
}

TEST(FaultFileSystem, ASyncKeepsNothingBeforeItIsWaitedFor) {
  FaultFileSystem fs;
  auto file = fs.NewWritableFile("/f");
  ASSERT_TRUE(fs.SyncDir("/").ok());
  ASSERT_TRUE((*file)->Append("one").ok());
  (*file)->StartSync();
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kSynced), "");
  EXPECT_EQ((*file)->Append("two").code(), absl::StatusCode::kInternal);
  ASSERT_TRUE((*file)->Sync().ok());
  EXPECT_EQ(After(fs, fs.num_ops(), Surviving::kSynced), "one");
  EXPECT_TRUE((*file)->Append("two").ok());
}

TEST(FaultFileSystem, AtomicWriteHasOldOrNewContents) {
  FaultFileSystem fs;
  ASSERT_TRUE(WriteFileAtomically(&fs, "/f", "old").ok());
  const size_t begin = fs.num_ops();
  ASSERT_TRUE(WriteFileAtomically(&fs, "/f", "new").ok());
  for (size_t n = begin; n <= fs.num_ops(); ++n) {
    for (Surviving s :
         {Surviving::kSynced, Surviving::kNames, Surviving::kBytes, Surviving::kAll}) {
      const std::string found = After(fs, n, s);
      EXPECT_TRUE(found == "old" || found == "new") << found << " after " << n;
      if (n == fs.num_ops()) {
        EXPECT_EQ(found, "new");
      }
    }
  }
}

TEST(FaultFileSystem, EveryFailingCallLeavesOldContentsAndNoTemporary) {
  int failures = 0;
  for (int64_t n = 0;; ++n) {
    FaultFileSystem fs;
    ASSERT_TRUE(WriteFileAtomically(&fs, "/f", "old").ok());
    fs.FailCall(n, absl::ResourceExhaustedError("disk full"));
    const absl::Status status = WriteFileAtomically(&fs, "/f", "new");
    if (status.ok()) break;
    ++failures;
    EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
    fs.StopFailing();
    EXPECT_FALSE(fs.Exists("/f.ferry-tmp")) << fs.LastFailure();
    const std::string found = *ReadFile(&fs, "/f");
    EXPECT_TRUE(found == "old" || found == "new") << fs.LastFailure();
  }
  EXPECT_EQ(failures, 6);  // Open, append, sync, close, rename, sync of the directory.
}

TEST(FaultFileSystem, BlockWriterSeesMemoryThatChangesInFlight) {
  FaultFileSystem fs;
  auto writer = fs.NewBlockWriter("/f", {});
  AlignedMemory memory = Aligned(4096, 4096);
  ASSERT_TRUE((*writer)->Write(memory.get(), 4096, 0).ok());
  memory.get()[5] ^= 1;
  EXPECT_EQ((*writer)->Wait(0).code(), absl::StatusCode::kInternal);
}

}  // namespace
}  // namespace ferry
