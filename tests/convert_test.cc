// Conversion between checkpoints, .safetensors and .npz: what others wrote, hostile files, and the
// promises of a write.
#include "tools/convert.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>

#include <cstring>
#include <random>

#include "absl/strings/str_cat.h"
#include "runtime/base/status.h"
#include "saver/bundle_writer.h"
#include "tests/fault_fs.h"
#include "tools/npy.h"
#include "tools/npz.h"
#include "tools/safetensors.h"

namespace ferry {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;

constexpr char kModels[] = "tests/testdata/models/";

class Convert : public ::testing::Test {
 protected:
  void SetUp() override {
    dir_ = ::testing::TempDir() + "convert.XXXXXX";
    ASSERT_NE(mkdtemp(&dir_[0]), nullptr);
  }
  std::string In(const std::string& name) const { return JoinPath(dir_, name); }
  std::string Contents(const std::string& path) { return ReadFile(fs_, path).value(); }
  void Write(const std::string& path, absl::string_view contents) {
    ASSERT_TRUE(WriteFileAtomically(fs_, path, contents).ok());
  }

  FileSystem* const fs_ = FileSystem::Posix();
  std::string dir_;
};

// One a tensor: name, dtype, shape, and a crc of the bytes.
std::vector<std::string> Describe(FileSystem* fs, const std::string& path) {
  const auto source = OpenTensors(fs, path);
  EXPECT_TRUE(source.ok()) << source.status();
  std::vector<std::string> out;
  if (!source.ok()) return out;
  for (size_t i = 0; i < (*source)->entries().size(); ++i) {
    const TensorSource::Entry& e = (*source)->entries()[i];
    const auto tensor = (*source)->ReadTensor(i);
    EXPECT_TRUE(tensor.ok()) << tensor.status();
    if (!tensor.ok()) continue;
    EXPECT_EQ(tensor->dtype(), e.dtype);
    out.push_back(absl::StrCat(e.name, ": ", tensor->DebugString(6)));
  }
  return out;
}

TEST_F(Convert, ReadsWhatNumPyWrote) {
  const auto expected =
      ElementsAre("big_endian: int32 [3] 1 -2 3", "bool: bool [2] 1 0", HasSubstr("complex64 [1] "),
                  "double: float64 [] 0.5", "empty: float32 [0,3]",
                  "fortran: float64 [2,3,4] 0 1 2 3 4 5 ...", HasSubstr("half: float16 [2] 1.5 -2"),
                  "int64: int64 [2] -9223372036854775808 9223372036854775807",
                  "int8: int8 [2,1] -128 127", "scope/float: float32 [2,3] 0 0.25 0.5 0.75 1 1.25",
                  "uint16: uint16 [1] 65535", "zeros: int32 [1000] 0 0 0 0 0 0 ...");
  EXPECT_THAT(Describe(fs_, absl::StrCat(kModels, "arrays.npz")), expected);
  EXPECT_THAT(Describe(fs_, absl::StrCat(kModels, "packed.npz")), expected);
}

TEST_F(Convert, SafetensorsComeOutAsTheyWere) {
  const std::string theirs = absl::StrCat(kModels, "arrays.safetensors");
  ASSERT_TRUE(ConvertTensors(fs_, theirs, In("model.ckpt")).ok());
  ASSERT_TRUE(ConvertTensors(fs_, In("model.ckpt"), In("ours.safetensors")).ok());
  EXPECT_EQ(Contents(In("ours.safetensors")), Contents(theirs));
  EXPECT_EQ(Describe(fs_, In("model.ckpt")), Describe(fs_, theirs));
}

TEST_F(Convert, EveryDirection) {
  const std::string names[] = {"a.npz", "a.safetensors", "a"};
  const std::string start = absl::StrCat(kModels, "packed.npz");
  const std::vector<std::string> expected = Describe(fs_, start);
  for (const std::string& from : names) {
    ASSERT_TRUE(ConvertTensors(fs_, start, In(from)).ok());
    EXPECT_EQ(Describe(fs_, In(from)), expected);
    for (const std::string& to : names) {
      const auto report = ConvertTensors(fs_, In(from), In("to_" + to));
      ASSERT_TRUE(report.ok()) << report.status();
      EXPECT_EQ(report->tensors, 12);
      EXPECT_EQ(report->widened, 0);
      EXPECT_EQ(Describe(fs_, In("to_" + to)), expected);
    }
  }
}

TEST_F(Convert, WidensForNumPy) {
  const auto report = ConvertTensors(fs_, absl::StrCat(kModels, "arrays.safetensors"), In("a.npz"));
  ASSERT_TRUE(report.ok()) << report.status();
  EXPECT_EQ(report->widened, 1);
  EXPECT_THAT(Describe(fs_, In("a.npz")), ::testing::Contains("bfloat16: float32 [2] 1.5 -3"));
}

TEST_F(Convert, Zip64) {
  const auto source = OpenTensors(fs_, absl::StrCat(kModels, "arrays.npz")).value();
  for (const uint64_t from : {0, 1, 200, 1000, 4500}) {
    NpzOptions options;
    options.zip64_from = from;
    ASSERT_TRUE(WriteNpz(fs_, In("a.npz"), source.get(), {}, options).ok());
    EXPECT_EQ(Describe(fs_, In("a.npz")), Describe(fs_, absl::StrCat(kModels, "arrays.npz")))
        << from;
  }
}

TEST_F(Convert, LargeTensorsComePieceByPiece) {
  // Sizes around those of the pieces.
  for (const int64_t size : {int64_t{kTensorPiece} - 1, int64_t{kTensorPiece},
                             int64_t{kTensorPiece} + 1, 3 * int64_t{kTensorPiece} + 12345}) {
    Tensor t = Tensor::Allocate(DType::kUint8, TensorShape({size})).value();
    for (int64_t i = 0; i < size; ++i) t.data<uint8_t>()[i] = static_cast<uint8_t>(i * i / 251);
    {
      auto writer = BundleWriter::Open(fs_, In("a")).value();
      ASSERT_TRUE(writer->Add("t", t).ok());
      ASSERT_TRUE(writer->FinishData().ok());
      ASSERT_TRUE(writer->Commit().ok());
    }
    uint64_t last = 0;
    for (const char* const name : {"a.npz", "a.safetensors", "b"}) {
      ASSERT_TRUE(ConvertTensors(fs_, In("a"), In(name), [&](uint64_t done, uint64_t all) {
                    EXPECT_LE(done, all);
                    last = all - done;
                  }).ok());
      EXPECT_EQ(last, 0u);
      const auto source = OpenTensors(fs_, In(name)).value();
      const Tensor back = source->ReadTensor(0).value();
      EXPECT_EQ(std::memcmp(back.raw(), t.raw(), t.bytes()), 0) << name << " " << size;
    }
  }
}

TEST_F(Convert, Names) {
  auto writer = BundleWriter::Open(fs_, In("a")).value();
  ASSERT_TRUE(writer->Add("not \xff text", Tensor::Scalar<float>(1)).ok());
  ASSERT_TRUE(writer->FinishData().ok());
  ASSERT_TRUE(writer->Commit().ok());
  for (const char* const name : {"a.npz", "a.safetensors"}) {
    const absl::Status status = ConvertTensors(fs_, In("a"), In(name)).status();
    EXPECT_EQ(status.code(), absl::StatusCode::kInvalidArgument);
    EXPECT_THAT(status.message(), HasSubstr("not \\xff text"));
    EXPECT_FALSE(fs_->Exists(In(name)));
  }
}

// Whatever a file says, reading it ends with tensors or an error that names it.
TEST_F(Convert, Mutations) {
  std::mt19937 random(8128);
  for (const char* const name : {"arrays.npz", "packed.npz", "arrays.safetensors"}) {
    const std::string good = Contents(absl::StrCat(kModels, name));
    const std::string path = absl::StrCat("/", name);
    FaultFileSystem memory;
    int refused = 0;
    for (int round = 0; round < 1500; ++round) {
      std::string bad = good;
      for (unsigned n = random() % 3 + 1; n > 0; --n) {
        // Where the headers are more often than elsewhere.
        const size_t at =
            random() % (random() % 2 ? bad.size() : std::min<size_t>(600, bad.size()));
        const size_t from_end = bad.size() - 1 - at;
        const size_t where = random() % 2 ? at : from_end;
        switch (random() % 4) {
          case 0:
            bad[where] = static_cast<char>(bad[where] ^ (1 << random() % 8));
            break;
          case 1:
            bad[where] = "\xff\x7f\x80\"{}[]:,09"[random() % 12];
            break;
          case 2:
            bad.erase(where, random() % 9);
            break;
          default:
            bad.insert(where, bad.substr(at, random() % 9));
            break;
        }
      }
      memory.SetContents(path, bad);
      const auto source = OpenTensors(&memory, path);
      absl::Status status = source.status();
      for (size_t i = 0; status.ok() && i < (*source)->entries().size(); ++i) {
        status = (*source)->ReadTensor(i).status();
      }
      if (status.ok()) continue;
      ++refused;
      EXPECT_THAT(status.message(), HasSubstr(path)) << round;
    }
    EXPECT_GT(refused, 300) << name;
  }
}

// A memory file system with the arrays in /from.npz and something older under the target's name.
std::unique_ptr<FaultFileSystem> WithOldFile(const std::string& target) {
  auto fs = std::make_unique<FaultFileSystem>();
  fs->SetContents("/from.npz",
                  ReadFile(FileSystem::Posix(), absl::StrCat(kModels, "arrays.npz")).value());
  EXPECT_TRUE(WriteFileAtomically(fs.get(), target, "old").ok());
  return fs;
}

TEST(ConvertFaults, EveryFailingCallLeavesTheOldFile) {
  for (const std::string target : {"/a.npz", "/a.safetensors"}) {
    for (int64_t n = 0;; ++n) {
      const auto fs = WithOldFile(target);
      fs->FailCall(n, absl::UnavailableError("no"));
      const absl::Status status = ConvertTensors(fs.get(), "/from.npz", target).status();
      fs->StopFailing();
      if (status.ok()) {
        EXPECT_GT(n, 20);
        break;
      }
      // Only the last sync comes after the new name.
      if (fs->Contents(target).value() != "old") {
        EXPECT_EQ(Describe(fs.get(), target).size(), 12u) << n << fs->LastFailure();
      }
      EXPECT_FALSE(fs->Exists(target + kTemporarySuffix)) << n << fs->LastFailure();
    }
  }
}

TEST(ConvertFaults, APowerLossLeavesTheOldFileOrTheNewOne) {
  for (const std::string target : {"/a.npz", "/a.safetensors"}) {
    const auto fs = WithOldFile(target);
    const size_t before = fs->num_ops();
    ASSERT_TRUE(ConvertTensors(fs.get(), "/from.npz", target).ok());
    for (size_t n = before; n <= fs->num_ops(); ++n) {
      for (const Surviving what : {Surviving::kSynced, Surviving::kNames, Surviving::kBytes,
                                   Surviving::kAll, Surviving::kAnyPart}) {
        const auto after = fs->AfterCrash(n, what, static_cast<uint32_t>(n));
        if (after->Contents(target).value() == "old") {
          EXPECT_LT(n, fs->num_ops());
          continue;
        }
        EXPECT_EQ(Describe(after.get(), target).size(), 12u) << n;
      }
    }
  }
}

TEST(Npy, ReadsWhatItWrites) {
  const std::string path = ::testing::TempDir() + "convert.npy";
  FileSystem* const fs = FileSystem::Posix();
  const Tensor t = Tensor::Of<int16_t>({1, -2, 3, 4, 5, 6}, TensorShape({3, 1, 2}));
  ASSERT_TRUE(WriteNpy(fs, path, t).ok());
  const auto back = ReadNpy(fs, path);
  ASSERT_TRUE(back.ok()) << back.status();
  EXPECT_EQ(back->DebugString(), t.DebugString());
  ASSERT_TRUE(WriteFileAtomically(fs, path, ReadFile(fs, path).value() + "x").ok());
  EXPECT_THAT(ReadNpy(fs, path).status().message(), HasSubstr("the file has 13"));
}

}  // namespace
}  // namespace ferry
