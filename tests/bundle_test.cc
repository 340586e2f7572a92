// Tests checkpoint files: that what TensorFlow wrote is read value for value and written again byte
// for byte, that every damage is noticed and named, and that hostile files ask for no memory.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <leveldb/env.h>
#include <leveldb/options.h>
#include <leveldb/table_builder.h>

#include <functional>
#include <map>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "runtime/base/crc32c.h"
#include "runtime/base/status.h"
#include "saver/bundle_reader.h"
#include "saver/bundle_writer.h"
#include "saver/table_reader.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

using ::testing::HasSubstr;

constexpr char kBundles[] = "tests/testdata/bundles/";
constexpr char kIdentical[] = "tests/testdata/identical/";

std::string MustRead(const std::string& path) {
  absl::StatusOr<std::string> contents = ReadFile(FileSystem::Posix(), path);
  EXPECT_TRUE(contents.ok()) << contents.status();
  return contents.ok() ? *std::move(contents) : "";
}

// One line of a checkpoint's description (make_bundles.py says how they are written).
struct Expected {
  std::string name, dtype, shape, value;
};

std::string Unescape(absl::string_view text) {
  std::string out;
  for (size_t i = 0; i < text.size(); ++i) {
    if (text[i] == '%') {
      out += absl::HexStringToBytes(text.substr(i + 1, 2));
      i += 2;
    } else {
      out += text[i];
    }
  }
  return out;
}

std::vector<Expected> ReadManifest(const std::string& name) {
  std::vector<Expected> out;
  for (absl::string_view line :
       absl::StrSplit(MustRead(kBundles + name + ".txt"), '\n', absl::SkipEmpty())) {
    const std::vector<std::string> fields = absl::StrSplit(line, '\t');
    EXPECT_EQ(fields.size(), 4u) << line;
    out.push_back({Unescape(fields[0]), fields[1], fields[2], fields[3]});
  }
  EXPECT_FALSE(out.empty());
  return out;
}

std::string EncodeBytes(absl::string_view bytes) {
  if (bytes.size() <= 256) return absl::BytesToHexString(bytes);
  return absl::StrFormat("@%08x/%d", Crc32c(bytes), bytes.size());
}

std::string EncodeValue(const Tensor& t) {
  if (t.dtype() != DType::kString) {
    return EncodeBytes(absl::string_view(static_cast<const char*>(t.raw()), t.bytes()));
  }
  std::vector<std::string> elements;
  for (const std::string& s : t.span<std::string>()) elements.push_back(EncodeBytes(s));
  return absl::StrJoin(elements, ",");
}

// The checkpoint's files in a file system of their own, below "/".
void CopyFiles(const std::string& from, const std::string& prefix, FaultFileSystem* to) {
  const auto files = FileSystem::Posix()->List(from);
  ASSERT_TRUE(files.ok());
  for (const std::string& file : *files) {
    if (file == prefix || absl::StartsWith(file, prefix + ".")) {
      to->SetContents("/" + file, MustRead(from + file));
    }
  }
}

std::unique_ptr<BundleReader> MustOpen(FileSystem* fs, const std::string& prefix) {
  auto reader = BundleReader::Open(fs, prefix);
  EXPECT_TRUE(reader.ok()) << reader.status();
  return reader.ok() ? *std::move(reader) : nullptr;
}

class Golden : public ::testing::TestWithParam<const char*> {};
INSTANTIATE_TEST_SUITE_P(, Golden,
                         ::testing::Values("all_dtypes", "many", "names", "partitioned_1d",
                                           "partitioned_2d", "shapes", "sharded", "strings", "v1"),
                         [](const auto& info) { return info.param; });

TEST_P(Golden, IsReadValueForValue) {
  const auto reader = MustOpen(FileSystem::Posix(), std::string(kBundles) + GetParam());
  ASSERT_NE(reader, nullptr);
  const std::vector<Expected> expected = ReadManifest(GetParam());
  EXPECT_EQ(reader->entries().size(), expected.size());
  ThreadPool pool(2);
  for (const Expected& e : expected) {
    const auto t = reader->Read(e.name, &pool);
    ASSERT_TRUE(t.ok()) << t.status();
    EXPECT_EQ(DTypeWord(t->dtype()), e.dtype) << e.name;
    EXPECT_EQ(t->shape().DebugString(), e.shape) << e.name;
    EXPECT_EQ(EncodeValue(*t), e.value) << e.name;
    const BundleReader::Entry* entry = reader->Find(e.name);
    ASSERT_NE(entry, nullptr);
    EXPECT_EQ(entry->dtype, t->dtype());
    EXPECT_EQ(entry->shape, t->shape());
    EXPECT_TRUE(reader->Check(*entry).ok());
  }
  for (const absl::Status& damage : reader->Verify(&pool)) ADD_FAILURE() << damage;
}

TEST_P(Golden, ReadsManyAtOnce) {
  const auto reader = MustOpen(FileSystem::Posix(), std::string(kBundles) + GetParam());
  ASSERT_NE(reader, nullptr);
  std::vector<BundleReader::Request> requests;
  std::vector<Tensor> tensors;
  for (const BundleReader::Entry& entry : reader->entries()) {
    if (!BundleReader::CanReadInto(entry)) continue;
    tensors.push_back(*Tensor::Allocate(entry.dtype, entry.shape));
    requests.push_back({&entry, tensors.back().raw()});
  }
  ThreadPool pool(2);
  EXPECT_TRUE(reader->ReadInto(absl::MakeSpan(requests), &pool).ok());
  for (size_t i = 0; i < requests.size(); ++i) {
    const auto alone = reader->Read(requests[i].entry->name);
    ASSERT_TRUE(alone.ok());
    EXPECT_EQ(EncodeValue(tensors[i]), EncodeValue(*alone)) << requests[i].entry->name;
  }
}

// Writes what the reader finds again, in the order of the data file.
TEST_P(Golden, IsWrittenByteForByte) {
  const std::string name = GetParam();
  if (name == "v1") return;  // Read only.
  FaultFileSystem fs;
  CopyFiles(kBundles, name, &fs);
  const auto reader = MustOpen(&fs, "/" + name);
  ASSERT_NE(reader, nullptr);
  struct Item {
    const BundleReader::Entry* entry;
    const BundleReader::Entry* whole;
    const TensorSlice* slice;
  };
  std::vector<Item> items;
  for (const BundleReader::Entry& entry : reader->entries()) {
    if (entry.slices.empty()) items.push_back({&entry, &entry, nullptr});
    for (size_t i = 0; i < entry.parts.size(); ++i) {
      items.push_back({&entry.parts[i], &entry, &entry.slices[i]});
    }
  }
  std::stable_sort(items.begin(), items.end(), [](const Item& a, const Item& b) {
    return std::tie(a.entry->shard, a.entry->offset, a.entry->size) <
           std::tie(b.entry->shard, b.entry->offset, b.entry->size);
  });
  std::vector<std::string> parts;
  for (int shard = 0; shard < reader->num_shards(); ++shard) {
    parts.push_back(absl::StrCat("/out_temp/part-", shard));
    auto writer = BundleWriter::Open(&fs, parts.back());
    ASSERT_TRUE(writer.ok()) << writer.status();
    for (const Item& item : items) {
      if (item.entry->shard != shard) continue;
      const std::string& key = item.whole->name;
      if (item.slice) {
        const auto t = reader->ReadSlice(key, *item.slice);
        ASSERT_TRUE(t.ok()) << t.status();
        EXPECT_TRUE((*writer)->AddSlice(key, item.whole->shape, *item.slice, *t).ok());
      } else {
        const auto t = reader->Read(key);
        ASSERT_TRUE(t.ok()) << t.status();
        EXPECT_TRUE((*writer)->Add(key, *t).ok());
      }
    }
    const absl::Status status = (*writer)->Commit();
    ASSERT_TRUE(status.ok()) << status;
  }
  const absl::Status merged = MergeBundles(&fs, parts, "/out", true);
  ASSERT_TRUE(merged.ok()) << merged;
  EXPECT_TRUE(*fs.Contents("/out.index") == *fs.Contents("/" + name + ".index"));
  for (int shard = 0; shard < reader->num_shards(); ++shard) {
    EXPECT_TRUE(*fs.Contents(DataFileName("/out", shard, reader->num_shards())) ==
                *fs.Contents(DataFileName("/" + name, shard, reader->num_shards())));
  }
  EXPECT_FALSE(fs.Exists("/out_temp"));
}

template <typename T>
Tensor Numbers(DType dtype, const TensorShape& shape, const std::vector<T>& values) {
  Tensor t = *Tensor::Allocate(dtype, shape);
  EXPECT_EQ(t.bytes(), values.size() * sizeof(T));
  if (!values.empty()) std::memcpy(t.raw(), values.data(), t.bytes());
  return t;
}

// The tensors of identical/first, made from scratch.
std::vector<std::pair<std::string, Tensor>> FirstTensors() {
  std::vector<std::pair<std::string, Tensor>> out;
  out.emplace_back("a", Tensor::Of<float>({0, 0.5, 1, 1.5, 2}));
  out.emplace_back("b/c", Tensor::Of<int32_t>({-2000, -1000, 0, 1000, 2000, 3000}, {2, 3}));
  out.emplace_back("b/d", Tensor::Of<std::string>({"", "ferry", std::string(300, 'x')}));
  out.emplace_back("e", Tensor::Of<bool>({false, true, false, false}));
  out.emplace_back("f", Tensor::Scalar<double>(-0.125));
  out.emplace_back("g", Tensor::Of<int64_t>({}, {0, 2}));
  out.emplace_back("h", Tensor::Of<Half>({FloatToHalf(0.5), FloatToHalf(1.5), FloatToHalf(2.5)}));
  out.emplace_back("i", Tensor::Of<uint8_t>({0, 36, 72, 108, 144, 180, 216}));
  out.emplace_back("j/complex", Numbers<float>(DType::kComplex64, {2}, {1, -2, 2, -2}));
  out.emplace_back("k", Tensor::Of<Bfloat16>({FloatToBfloat16(-1), FloatToBfloat16(0),
                                              FloatToBfloat16(1), FloatToBfloat16(2)},
                                             {2, 2}));
  return out;
}

absl::Status WriteBundle(FileSystem* fs, const std::string& prefix,
                         const std::vector<std::pair<std::string, Tensor>>& tensors,
                         const BundleWriterOptions& options = {}) {
  FERRY_ASSIGN_OR_RETURN(auto writer, BundleWriter::Open(fs, prefix, options));
  for (const auto& [name, tensor] : tensors) FERRY_RETURN_IF_ERROR(writer->Add(name, tensor));
  return writer->Commit();
}

// A directory of its own for each use, in which nothing lies yet.
std::string TempDir() {
  std::string path = ::testing::TempDir() + "bundle_test.XXXXXX";
  EXPECT_NE(mkdtemp(&path[0]), nullptr);
  return path;
}

TEST(BundleWriter, FirstSaveIsTensorFlowsByteForByte) {
  FaultFileSystem memory;
  for (FileSystem* fs : {static_cast<FileSystem*>(&memory), FileSystem::Posix()}) {
    const std::string prefix = fs == &memory ? "/dir/first" : TempDir() + "/first";
    const absl::Status status = WriteBundle(fs, prefix, FirstTensors());
    ASSERT_TRUE(status.ok()) << status;
    EXPECT_EQ(*ReadFile(fs, prefix + ".index"), MustRead(std::string(kIdentical) + "first.index"));
    EXPECT_EQ(*ReadFile(fs, prefix + ".data-00000-of-00001"),
              MustRead(std::string(kIdentical) + "first.data-00000-of-00001"));
    EXPECT_EQ(fs->List(DirName(prefix))->size(), 2u);
  }
}

TEST(BundleWriter, IndexOfSeveralBlocksIsTensorFlowsByteForByte) {
  FaultFileSystem fs;
  std::vector<std::pair<std::string, Tensor>> tensors;
  for (int i = 0; i < 7000; ++i) {
    tensors.emplace_back(absl::StrFormat("v%04d/w%04d/x%04d/y%04d/z%04d", i, i, i, i, i),
                         Tensor::Scalar<int32_t>(i));
  }
  ASSERT_TRUE(WriteBundle(&fs, "/blocks", tensors).ok());
  EXPECT_TRUE(*fs.Contents("/blocks.index") == MustRead(std::string(kIdentical) + "blocks.index"));
  const std::string data = *fs.Contents("/blocks.data-00000-of-00001");
  EXPECT_EQ(absl::StrFormat("%08x %d\n", Crc32c(data), data.size()),
            MustRead(std::string(kIdentical) + "blocks.crc"));
}

Tensor Pattern(int64_t n, uint32_t seed) {
  Tensor t = *Tensor::Allocate(DType::kUint32, {n});
  for (uint32_t& x : t.span<uint32_t>()) x = seed = seed * 1664525 + 1013904223;
  return t;
}

TEST(BundleWriter, BytesDependNeitherOnTheRingNorOnTheWayOfWriting) {
  const std::vector<std::pair<std::string, Tensor>> tensors = {
      {"big", Pattern(3 << 20, 1)},  // Three pieces of a parallel read.
      {"small", Pattern(5, 2)},
      {"strings", Tensor::Of<std::string>({std::string(300000, 'a'), "", "b"})},
      {"slot", Pattern(16384, 3)},
      {"zero", Pattern(0, 4)}};
  FileSystem* fs = FileSystem::Posix();
  const std::string dir = TempDir();
  std::string data, index;
  for (const auto& [slots, slot_bytes] :
       std::vector<std::pair<int, size_t>>{{2, 64 << 10}, {4, 1 << 20}, {3, 192 << 10}}) {
    for (int way = 0; way < 4; ++way) {
      BundleWriterOptions options;
      options.slots = slots;
      options.slot_bytes = slot_bytes;
      options.block.try_direct = way & 1;
      options.block.try_io_uring = way & 2;
      const std::string prefix = absl::StrCat(dir, "/ring", slots, way);
      const absl::Status status = WriteBundle(fs, prefix, tensors, options);
      ASSERT_TRUE(status.ok()) << status;
      if (data.empty()) {
        data = *ReadFile(fs, DataFileName(prefix, 0, 1));
        index = *ReadFile(fs, prefix + ".index");
      }
      EXPECT_TRUE(data == *ReadFile(fs, DataFileName(prefix, 0, 1)));
      EXPECT_EQ(index, *ReadFile(fs, prefix + ".index"));
      const auto reader = MustOpen(fs, prefix);
      for (const int threads : {1, 3}) {
        ThreadPool pool(threads);
        EXPECT_TRUE(reader->Verify(&pool).empty());
        for (const auto& [name, tensor] : tensors) {
          EXPECT_EQ(EncodeValue(*reader->Read(name, &pool)), EncodeValue(tensor)) << name;
        }
      }
    }
  }
  BundleWriterOptions options;
  options.slot_bytes = 100;
  EXPECT_EQ(BundleWriter::Open(fs, dir + "/bad", options).status().code(),
            absl::StatusCode::kInvalidArgument);
}

TEST(BundleWriter, RefusesWhatCanNotBeRead) {
  FaultFileSystem fs;
  const Tensor t = Tensor::Scalar<float>(1);
  const auto add = [&](const auto& fn) {
    auto writer = BundleWriter::Open(&fs, "/p");
    EXPECT_TRUE(writer.ok());
    const absl::Status status = fn(writer->get());
    EXPECT_EQ((*writer)->Commit(), status);  // And stays broken.
    return status;
  };
  EXPECT_THAT(std::string(add([&](BundleWriter* w) {
                            EXPECT_TRUE(w->Add("twice", t).ok());
                            return w->Add("twice", t);
                          }).message()),
              HasSubstr("'twice'"));
  EXPECT_EQ(add([&](BundleWriter* w) { return w->Add("", t); }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(add([&](BundleWriter* w) { return w->Add("x", Tensor()); }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(add([&](BundleWriter* w) {
              const TensorSlice slice = ParseShapeAndSlice("4 0,2")->slice;
              return w->AddSlice("s", {4}, slice, Pattern(3, 0));
            }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(add([&](BundleWriter* w) {
              const TensorSlice slice = ParseShapeAndSlice("4 0,2")->slice;
              EXPECT_TRUE(w->AddSlice("s", {4}, slice, Pattern(2, 0)).ok());
              return w->AddSlice("s", {5}, slice, Pattern(2, 0));
            }).code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(fs.List("/")->size(), 0u) << "failed saves leave nothing";

  EXPECT_EQ(BundleWriter::Open(&fs, "/no/such/p").status(),
            absl::NotFoundError("Parent directory of /no/such/p doesn't exist, can't save."));
  EXPECT_EQ(BundleWriter::Open(&fs, "/dir/").status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_TRUE(BundleWriter::Open(&fs, "/made/p").ok());
}

TEST(BundleWriter, OverAnExistingPrefixTheOldStaysUntilTheIndex) {
  FaultFileSystem fs;
  const auto value = [&] {
    const auto reader = MustOpen(&fs, "/p");
    EXPECT_TRUE(reader->Verify(nullptr).empty());
    return reader->Read("x")->scalar<float>();
  };
  ASSERT_TRUE(WriteBundle(&fs, "/p", {{"x", Tensor::Scalar<float>(0)}}).ok());
  for (int i = 1; i < 5; ++i) {
    {
      auto writer = BundleWriter::Open(&fs, "/p");
      ASSERT_TRUE(writer.ok());
      ASSERT_TRUE((*writer)->Add("x", Tensor::Scalar<float>(100)).ok());
      ASSERT_TRUE((*writer)->FinishData().ok());
      EXPECT_EQ(value(), i - 1);
    }  // Abandoned.
    EXPECT_EQ(value(), i - 1);
    ASSERT_TRUE(WriteBundle(&fs, "/p", {{"x", Tensor::Scalar<float>(i)}}).ok());
    EXPECT_EQ(value(), i);
    EXPECT_EQ(fs.List("/")->size(), i % 2 == 1 ? 3u : 2u);
    EXPECT_EQ(MustOpen(&fs, "/p")->num_shards(), i % 2 == 1 ? 2 : 1);
  }
}

class LocksFail : public ForwardingFileSystem {
 public:
  LocksFail(FileSystem* to, absl::Status status)
      : ForwardingFileSystem(to), status_(std::move(status)) {}
  absl::StatusOr<std::unique_ptr<FileLock>> Lock(const std::string&) override { return status_; }

 private:
  const absl::Status status_;
};

TEST(BundleWriter, GoesOnWhereThereAreNoLocksButNotWhenOneFails) {
  const std::vector<std::pair<std::string, Tensor>> tensors = {{"x", Tensor::Scalar<float>(1)}};
  for (const absl::Status& status :
       {absl::UnimplementedError("no locks"), absl::PermissionDeniedError("not to be opened"),
        absl::UnavailableError("the disk is on fire")}) {
    const bool goes_on = !absl::IsUnavailable(status);
    FaultFileSystem fs;
    ASSERT_TRUE(WriteBundle(&fs, "/part", tensors).ok());
    LocksFail locks(&fs, status);
    const absl::Status saved = WriteBundle(&locks, "/p", tensors);
    EXPECT_EQ(saved, goes_on ? absl::OkStatus() : status);
    const absl::Status merged = MergeBundles(&locks, {"/part"}, "/whole", false);
    EXPECT_EQ(merged, goes_on ? absl::OkStatus() : status);
    EXPECT_EQ(MustOpen(&fs, goes_on ? "/whole" : "/part")->Read("x")->scalar<float>(), 1);
  }
}

TEST(BundleReader, ReadsSlicesAcrossParts) {
  FileSystem* fs = FileSystem::Posix();
  const auto slice_of = [](const std::string& text) { return ParseShapeAndSlice(text)->slice; };
  const auto one = MustOpen(fs, std::string(kBundles) + "partitioned_1d");
  auto t = one->ReadSlice("rows", slice_of("7 3 1,5:1,2"));
  ASSERT_TRUE(t.ok()) << t.status();
  EXPECT_THAT(t->span<float>(), ::testing::ElementsAre(4, 5, 7, 8, 10, 11, 13, 14, 16, 17));
  EXPECT_EQ(t->shape(), (TensorShape{5, 2}));
  t = one->ReadSlice("cols", slice_of("4 10 2,1:0,10"));
  ASSERT_TRUE(t.ok()) << t.status();
  EXPECT_THAT(t->span<double>(), ::testing::ElementsAre(20, 21, 22, 23, 24, 25, 26, 27, 28, 29));
  t = one->ReadSlice("vec", slice_of("11 5,2"));
  EXPECT_THAT(t->span<int64_t>(), ::testing::ElementsAre(5, 6));
  t = one->ReadSlice("vec", slice_of("11 3,0"));
  EXPECT_EQ(t->num_elements(), 0);
  t = one->ReadSlice("whole", slice_of("2 1,1"));  // Saved whole.
  EXPECT_THAT(t->span<float>(), ::testing::ElementsAre(2));

  const auto two = MustOpen(fs, std::string(kBundles) + "partitioned_2d");
  t = two->ReadSlice("tiles", slice_of("4 6 0,2:1,4"));
  ASSERT_TRUE(t.ok()) << t.status();
  EXPECT_THAT(t->span<float>(), ::testing::ElementsAre(1, 2, 3, 4, 7, 8, 9, 10));
  t = two->ReadSlice("cube", slice_of("2 3 4 1,1:1,2:3,1"));
  EXPECT_THAT(t->span<int32_t>(), ::testing::ElementsAre(19, 23));
  EXPECT_EQ(two->ReadSlice("cube", slice_of("2 3 -:-")).status().code(),
            absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(two->ReadSlice("cube", slice_of("2 3 9 -:-:8,1")).status().code(),
            absl::StatusCode::kInvalidArgument);

  const auto v1 = MustOpen(fs, std::string(kBundles) + "v1");
  t = v1->ReadSlice("p", slice_of("5 2 2,2:1,1"));
  ASSERT_TRUE(t.ok()) << t.status();
  EXPECT_THAT(t->span<float>(), ::testing::ElementsAre(5, 7));
}

TEST(TensorSlice, TextAndKeys) {
  EXPECT_TRUE(ParseShapeAndSlice("")->whole);
  const auto parsed = ParseShapeAndSlice("5 3 0,3:-");
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->full_shape, (TensorShape{5, 3}));
  EXPECT_EQ(parsed->shape, (TensorShape{3, 3}));
  EXPECT_EQ(parsed->slice.DebugString(), "0,3:-");
  EXPECT_FALSE(parsed->slice.is_full());
  EXPECT_TRUE(ParseShapeAndSlice("5 -")->slice.is_full());
  for (const char* bad : {"5", "5 3 0,3", "5 0,6", "5 4,2", "5 -1,2", "x 0,1", "5 0;1", "-5 -",
                          "5 1,", "5 ,1", " ", "5 0,3:-"}) {
    EXPECT_FALSE(ParseShapeAndSlice(bad).ok()) << bad;
  }
  // Numbers of every length, as TensorFlow's OrderedCode writes them.
  TensorSlice s;
  s.extents = {{0, 63}, {64, 8191}, {8192, TensorSlice::kFull}, {int64_t{1} << 62, INT64_MAX}};
  EXPECT_EQ(absl::BytesToHexString(SliceKey(absl::string_view("a\0\xff", 3), s)),
            "00"
            "6100ffff00"
            "0001"
            "0104"
            "80bf"
            "c040"
            "dfff"
            "e02000"
            "7f"
            "ffc04000000000000000"
            "ffc07fffffffffffffff");
}

TEST(BundleReader, NamesWhatIsWrong) {
  FaultFileSystem fs;
  ASSERT_TRUE(WriteBundle(&fs, "/m/ckpt",
                          {{"dense/kernel", Tensor::Scalar<float>(1)},
                           {"dense/bias", Tensor::Scalar<float>(2)},
                           {"other", Tensor::Scalar<float>(3)}})
                  .ok());
  const auto open = [&](const std::string& prefix) {
    return BundleReader::Open(&fs, prefix).status();
  };
  EXPECT_EQ(open("/m/none"),
            absl::InvalidArgumentError("The passed save_path is not a valid checkpoint: /m/none"));
  EXPECT_EQ(open("/m").code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(open("/m/ckpt.index").message()), HasSubstr("pass the prefix '/m/ckpt'"));
  EXPECT_THAT(std::string(open("/m/ckpt.data-00000-of-00001").message()),
              HasSubstr("pass the prefix '/m/ckpt'"));

  const auto reader = MustOpen(&fs, "/m/ckpt");
  const absl::Status missing = reader->Read("dense/kernle").status();
  EXPECT_EQ(missing.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(missing.message()),
              HasSubstr("Key dense/kernle not found in checkpoint"));
  EXPECT_THAT(std::string(missing.message()), HasSubstr("'dense/kernel'"));
  EXPECT_THAT(std::string(missing.message()), ::testing::Not(HasSubstr("'other'")));
  EXPECT_THAT(std::string(reader->Read("kernel").status().message()), HasSubstr("'dense/kernel'"));

  ASSERT_TRUE(fs.Unlink("/m/ckpt.data-00000-of-00001").ok());
  const absl::Status lost = MustOpen(&fs, "/m/ckpt")->Read("other").status();
  EXPECT_EQ(lost.code(), absl::StatusCode::kNotFound);
  EXPECT_THAT(std::string(lost.message()), HasSubstr("/m/ckpt.data-00000-of-00001"));
}

// Whether damage is noticed when the checkpoint is opened and verified; and that no read gives
// another value than the true one.
bool Notices(FileSystem* fs, const std::string& prefix,
             const std::vector<std::pair<std::string, Tensor>>& truth) {
  const auto reader = BundleReader::Open(fs, prefix);
  if (!reader.ok()) {
    EXPECT_FALSE(reader.status().message().empty());
    return true;
  }
  for (const auto& [name, tensor] : truth) {
    const auto t = (*reader)->Read(name);
    if (t.ok()) {
      EXPECT_EQ(EncodeValue(*t), EncodeValue(tensor)) << name;
    }
  }
  return !(*reader)->Verify(nullptr).empty();
}

TEST(Damage, EveryByteOfIndexAndDataIsGuarded) {
  FaultFileSystem fs;
  CopyFiles(kIdentical, "first", &fs);
  const auto truth = FirstTensors();
  EXPECT_FALSE(Notices(&fs, "/first", truth));
  for (const std::string file : {"/first.index", "/first.data-00000-of-00001"}) {
    const std::string good = *fs.Contents(file);
    for (size_t i = 0; i < good.size(); ++i) {
      for (const int flip : {1, 0x80, 0xff}) {
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ flip);
        fs.SetContents(file, bad);
        EXPECT_TRUE(Notices(&fs, "/first", truth)) << file << " byte " << i << " ^ " << flip;
      }
      fs.SetContents(file, good.substr(0, i));
      EXPECT_TRUE(Notices(&fs, "/first", truth)) << file << " cut at " << i;
    }
    fs.SetContents(file, good + std::string(1, '\0'));
    EXPECT_TRUE(Notices(&fs, "/first", truth)) << file << " with a byte more";
    fs.SetContents(file, good);
  }
  EXPECT_FALSE(Notices(&fs, "/first", truth));
}

TEST(Damage, EveryByteOfAV1FileIsGuarded) {
  FaultFileSystem fs;
  CopyFiles(kBundles, "v1", &fs);
  std::vector<std::pair<std::string, Tensor>> truth;
  const auto reader = MustOpen(&fs, "/v1");
  for (const auto& entry : reader->entries()) {
    truth.emplace_back(entry.name, *reader->Read(entry.name));
  }
  const std::string good = *fs.Contents("/v1");
  for (size_t i = 0; i < good.size(); ++i) {
    std::string bad = good;
    bad[i] ^= 4;
    fs.SetContents("/v1", bad);
    EXPECT_TRUE(Notices(&fs, "/v1", truth)) << i;
    fs.SetContents("/v1", good.substr(0, i));
    EXPECT_TRUE(Notices(&fs, "/v1", truth)) << i;
  }
}

TEST(Damage, IsNamedAsTensorFlowNamesIt) {
  FaultFileSystem fs;
  CopyFiles(kIdentical, "first", &fs);
  const std::string index = *fs.Contents("/first.index");
  const std::string data = *fs.Contents("/first.data-00000-of-00001");
  const auto open = [&](const std::string& contents) {
    fs.SetContents("/first.index", contents);
    const absl::Status status = BundleReader::Open(&fs, "/first").status();
    EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
    EXPECT_THAT(std::string(status.message()), HasSubstr("/first.index"));
    return std::string(status.message());
  };
  EXPECT_THAT(open(""), HasSubstr("file is too short to be an sstable"));
  EXPECT_THAT(open(index.substr(0, index.size() - 1)),
              HasSubstr("not an sstable (bad magic number)"));
  std::string bad = index;
  bad[20] ^= 1;
  EXPECT_THAT(open(bad), HasSubstr("block checksum mismatch"));
  fs.SetContents("/first.index", index);

  bad = data;
  bad[3] ^= 1;
  fs.SetContents("/first.data-00000-of-00001", bad);
  absl::Status status = MustOpen(&fs, "/first")->Read("a").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(
      std::string(status.message()),
      HasSubstr("TensorBundle at /first shard 0 (20 bytes): Checksum does not match: stored "));
  EXPECT_THAT(std::string(status.message()), HasSubstr(" vs. calculated on the restored bytes "));
  EXPECT_THAT(std::string(status.message()), HasSubstr("tensor 'a'"));
  EXPECT_TRUE(MustOpen(&fs, "/first")->Read("b/c").ok()) << "what isn't damaged can be read";
  EXPECT_EQ(MustOpen(&fs, "/first")->Verify(nullptr).size(), 1u);

  fs.SetContents("/first.data-00000-of-00001", data.substr(0, 30));
  status = MustOpen(&fs, "/first")->Read("b/c").status();
  EXPECT_EQ(status.code(), absl::StatusCode::kDataLoss);
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("has 30 bytes, but tensor 'b/c' needs 24 at 20"));
}

TEST(Damage, SwappedAndMissingShardsAreNoticed) {
  FaultFileSystem fs;
  CopyFiles(kBundles, "sharded", &fs);
  const std::string zero = *fs.Contents(DataFileName("/sharded", 0, 3));
  const std::string one = *fs.Contents(DataFileName("/sharded", 1, 3));
  fs.SetContents(DataFileName("/sharded", 0, 3), one);
  fs.SetContents(DataFileName("/sharded", 1, 3), zero);
  EXPECT_TRUE(Notices(&fs, "/sharded", {}));
  EXPECT_FALSE(MustOpen(&fs, "/sharded")->Read("s0").ok());
  EXPECT_TRUE(MustOpen(&fs, "/sharded")->Read("s2").ok());
  fs.SetContents(DataFileName("/sharded", 0, 3), zero);
  fs.SetContents(DataFileName("/sharded", 1, 3), one);
  EXPECT_FALSE(Notices(&fs, "/sharded", {}));
  ASSERT_TRUE(fs.Unlink(DataFileName("/sharded", 2, 3)).ok());
  const auto damage = MustOpen(&fs, "/sharded")->Verify(nullptr);
  ASSERT_EQ(damage.size(), 1u);
  EXPECT_THAT(std::string(damage[0].message()), HasSubstr(DataFileName("/sharded", 2, 3)));
}

// ---- Indices that are well-formed tables but ask for what can't be ----

class Sink : public leveldb::WritableFile {
 public:
  leveldb::Status Append(const leveldb::Slice& data) override {
    contents.append(data.data(), data.size());
    return leveldb::Status::OK();
  }
  leveldb::Status Close() override { return leveldb::Status::OK(); }
  leveldb::Status Flush() override { return leveldb::Status::OK(); }
  leveldb::Status Sync() override { return leveldb::Status::OK(); }
  std::string contents;
};

std::string Table(const std::map<std::string, std::string>& entries, int restart_interval = 16,
                  bool compress = false) {
  leveldb::Options options;
  options.block_size = 256 << 10;
  options.compression = compress ? leveldb::kSnappyCompression : leveldb::kNoCompression;
  options.block_restart_interval = restart_interval;
  Sink sink;
  leveldb::TableBuilder builder(options, &sink);
  for (const auto& [key, value] : entries) builder.Add(key, value);
  EXPECT_TRUE(builder.Finish().ok());
  return sink.contents;
}

class Hostile : public ::testing::Test {
 protected:
  Hostile() {
    header_.set_num_shards(1);
    header_.mutable_version()->set_producer(1);
    fs_.SetContents(DataFileName("/h", 0, 1), std::string(64, 'd'));
    // A wrong request is seen as a request for memory.
    HostAllocator::Get()->set_limit(HostAllocator::Get()->bytes_in_use() + (1 << 20));
  }
  ~Hostile() override { HostAllocator::Get()->set_limit(int64_t{1} << 40); }

  proto::BundleEntryProto* Entry(const std::string& key, DType dtype, std::vector<int64_t> dims,
                                 int64_t offset, int64_t size) {
    proto::BundleEntryProto* e = &entries_[key];
    e->set_dtype(static_cast<proto::DataType>(dtype));
    for (const int64_t dim : dims) e->mutable_shape()->add_dim()->set_size(dim);
    e->set_offset(offset);
    e->set_size(size);
    e->set_crc32c(MaskCrc32c(Crc32c(
        std::string(static_cast<size_t>(std::max<int64_t>(0, std::min<int64_t>(size, 64))), 'd'))));
    return e;
  }
  // What reading every tensor and verifying says first; never a wish for more memory.
  absl::Status Outcome() {
    std::map<std::string, std::string> raw = {{"", header_.SerializeAsString()}};
    for (const auto& [key, entry] : entries_) raw[key] = entry.SerializeAsString();
    fs_.SetContents("/h.index", Table(raw));
    FERRY_ASSIGN_OR_RETURN(const auto reader, BundleReader::Open(&fs_, "/h"));
    absl::Status first;
    for (const auto& entry : reader->entries()) {
      const absl::Status status = reader->Read(entry.name).status();
      EXPECT_NE(status.code(), absl::StatusCode::kResourceExhausted) << status;
      KeepFirst(&first, status);
      TensorSlice slice;
      for (int i = 0; i < entry.shape.rank(); ++i) slice.extents.push_back({0, 1});
      EXPECT_NE(reader->ReadSlice(entry.name, slice).status().code(),
                absl::StatusCode::kResourceExhausted);
    }
    EXPECT_TRUE(first.ok() || !reader->Verify(nullptr).empty());
    return first;
  }

  FaultFileSystem fs_;
  proto::BundleHeaderProto header_;
  std::map<std::string, proto::BundleEntryProto> entries_;
};

TEST_F(Hostile, ASoundOneIsRead) {
  Entry("x", DType::kUint8, {8, 8}, 0, 64);
  const absl::Status status = Outcome();
  EXPECT_TRUE(status.ok()) << status;
}

TEST_F(Hostile, EntriesThatMakeNoSense) {
  constexpr int64_t kHuge = int64_t{1} << 50;
  const std::vector<std::function<void()>> cases = {
      [this] { Entry("x", DType::kFloat, {kHuge}, 0, 4 * kHuge); },
      [this] { Entry("x", DType::kFloat, {kHuge}, 0, 64); },
      [this] {
        Entry("x", DType::kFloat, {1 << 30, 1 << 30, 1 << 30}, 0, 64);
      },
      [this] { Entry("x", DType::kFloat, {-1}, 0, 64); },
      [this] { Entry("x", DType::kFloat, std::vector<int64_t>(300, 1), 0, 4); },
      [this] { Entry("x", DType::kString, {kHuge}, 0, 64); },
      [this] { Entry("x", DType::kString, {kHuge}, 0, kHuge + 4); },
      [this] { Entry("x", DType::kString, {60}, 0, 64); },
      [this] { Entry("x", DType::kString, {}, 0, 3); },
      [this] { Entry("x", DType::kString, {61}, 0, 64); },
      [this] { Entry("x", DType::kFloat, {16}, -8, 64); },
      [this] { Entry("x", DType::kFloat, {16}, INT64_MAX - 8, 64); },
      [this] { Entry("x", DType::kFloat, {16}, 8, 64); },
      [this] { Entry("x", DType::kFloat, {16}, 0, -64); },
      [this] { Entry("x", DType::kUint8, {16}, 0, 64); },
      [this] { Entry("x", DType::kResource, {16}, 0, 64); },
      [this] { Entry("x", static_cast<DType>(101), {16}, 0, 64); },
      [this] { Entry("x", static_cast<DType>(77), {16}, 0, 64); },
      [this] { Entry("x", DType::kUint8, {64}, 0, 64)->set_shard_id(1); },
      [this] { Entry("x", DType::kUint8, {64}, 0, 64)->set_shard_id(-1); },
      [this] { Entry("x", DType::kUint8, {64}, 0, 64)->mutable_shape()->set_unknown_rank(true); },
      [this] {  // Two tensors of the same bytes.
        Entry("x", DType::kUint8, {64}, 0, 64);
        Entry("y", DType::kUint8, {64}, 0, 64);
      },
      [this] {  // A part that isn't there.
        ToProto(ParseShapeAndSlice("4 0,2")->slice,
                Entry("x", DType::kUint8, {4}, 0, 0)->add_slices());
      },
      [this] {  // Parts that don't make up the whole.
        const TensorSlice part = ParseShapeAndSlice("64 0,2")->slice;
        ToProto(part, Entry("x", DType::kUint8, {kHuge}, 0, 0)->add_slices());
        Entry(SliceKey("x", part), DType::kUint8, {2}, 0, 2);
      },
      [this] {  // The same part again and again.
        const TensorSlice part = ParseShapeAndSlice("64 0,32")->slice;
        auto* e = Entry("x", DType::kUint8, {64}, 0, 0);
        ToProto(part, e->add_slices());
        ToProto(part, e->add_slices());
        Entry(SliceKey("x", part), DType::kUint8, {32}, 0, 32);
      },
      [this] {  // Parts that overlap and leave a gap.
        auto* e = Entry("x", DType::kUint8, {64}, 0, 0);
        int64_t offset = 0;
        for (const char* text : {"64 0,32", "64 16,32"}) {
          const TensorSlice part = ParseShapeAndSlice(text)->slice;
          ToProto(part, e->add_slices());
          Entry(SliceKey("x", part), DType::kUint8, {32}, offset, 32);
          offset += 32;
        }
      },
      [this] {  // A tensor that is its own part.
        auto* e = Entry("x", DType::kUint8, {}, 0, 0);
        e->add_slices();
        entries_[SliceKey("x", {})] = *e;
      },
      [this] {  // A part of another type.
        const TensorSlice part = ParseShapeAndSlice("64 0,64")->slice;
        ToProto(part, Entry("x", DType::kUint8, {64}, 0, 0)->add_slices());
        Entry(SliceKey("x", part), DType::kInt8, {64}, 0, 64);
      },
      [this] { header_.set_num_shards(0); },
      [this] { header_.set_num_shards(-3); },
      [this] { header_.set_endianness(proto::BundleHeaderProto::BIG); },
      [this] { header_.mutable_version()->set_min_consumer(2); },
      [this] { header_.mutable_version()->add_bad_consumers(1); },
  };
  for (size_t i = 0; i < cases.size(); ++i) {
    entries_.clear();
    header_.Clear();
    header_.set_num_shards(1);
    cases[i]();
    const absl::Status status = Outcome();
    EXPECT_FALSE(status.ok()) << i;
    EXPECT_TRUE(absl::IsDataLoss(status) || absl::IsUnimplemented(status) ||
                absl::IsNotFound(status))
        << i << ": " << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr("/h")) << i;
  }
}

TEST_F(Hostile, MoreShardsThanFiles) {
  header_.set_num_shards(INT32_MAX);
  Entry("x", DType::kUint8, {64}, 0, 64);
  EXPECT_TRUE(absl::IsNotFound(Outcome()));
}

TEST_F(Hostile, StringsWithBadLengths) {
  const auto with_data = [this](const std::string& data, int64_t elements) {
    fs_.SetContents(DataFileName("/h", 0, 1), data);
    entries_.clear();
    Entry("x", DType::kString, {elements}, 0, static_cast<int64_t>(data.size()))
        ->set_crc32c(MaskCrc32c(Crc32c(data)));
    return Outcome();
  };
  for (const std::string& data :
       {std::string("\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 10) + "crc4",  // 2^64 - 1 bytes.
        std::string("\x05") + "crc4abc", std::string("\x80\x00", 2) + "crc4",
        std::string("\x02") + "crc4ab", std::string("\x80\x80\x80\x80\x80\x80", 6)}) {
    EXPECT_TRUE(absl::IsDataLoss(with_data(data, 1))) << absl::CHexEscape(data);
  }
}

TEST_F(Hostile, TablesThatLie) {
  const std::string value(100, 'v');
  std::map<std::string, std::string> entries = {{"", header_.SerializeAsString()}};
  for (int i = 0; i < 3000; ++i) entries[std::string(5000, 'k') + absl::StrFormat("%05d", i)] = "";
  // Keys that share 5,000 bytes each with the one before ask for 15 MB from a file of 100 KB.
  const std::string shared = Table(entries, 1 << 20);
  EXPECT_LT(shared.size(), 100u << 10);
  fs_.SetContents("/h.index", shared);
  EXPECT_TRUE(absl::IsDataLoss(BundleReader::Open(&fs_, "/h").status()));
  fs_.SetContents("/h.index", Table(entries, 16, true));
  const absl::Status compressed = BundleReader::Open(&fs_, "/h").status();
  EXPECT_FALSE(compressed.ok());
  fs_.SetContents("/h.index", Table({}));
  EXPECT_TRUE(absl::IsDataLoss(BundleReader::Open(&fs_, "/h").status()));
  fs_.SetContents("/h.index", Table({{"a", "b"}}));
  EXPECT_TRUE(absl::IsDataLoss(BundleReader::Open(&fs_, "/h").status()));

  // Any change, with the crcs made right again: errors or the same tensors, never a crash.
  Entry("x", DType::kUint8, {64}, 0, 64);
  Entry("xyz", DType::kUint8, {0}, 64, 0);
  ASSERT_TRUE(Outcome().ok());
  const std::string good = *fs_.Contents("/h.index");
  absl::string_view footer(good);
  footer.remove_prefix(good.size() - 48);
  uint64_t meta_offset, meta_size, index_offset, index_size;
  ASSERT_TRUE(ConsumeVarint(&footer, &meta_offset) && ConsumeVarint(&footer, &meta_size) &&
              ConsumeVarint(&footer, &index_offset) && ConsumeVarint(&footer, &index_size));
  const std::vector<std::pair<size_t, size_t>> blocks = {
      {0, meta_offset - 5}, {meta_offset, meta_size}, {index_offset, index_size}};
  for (const auto& [offset, size] : blocks) {
    for (size_t i = offset; i <= offset + size; ++i) {
      for (int x = 1; x < 256; ++x) {
        std::string bad = good;
        bad[i] = static_cast<char>(bad[i] ^ x);
        std::string crc;
        AppendFixed32(MaskCrc32c(Crc32c(absl::string_view(bad).substr(offset, size + 1))), &crc);
        bad.replace(offset + size + 1, 4, crc);
        fs_.SetContents("/h.index", bad);
        const auto reader = BundleReader::Open(&fs_, "/h");
        if (!reader.ok()) continue;
        for (const auto& entry : (*reader)->entries()) {
          EXPECT_NE((*reader)->Read(entry.name).status().code(),
                    absl::StatusCode::kResourceExhausted);
        }
      }
    }
  }
}

TEST(Crc32c, PartsCombine) {
  std::string data;
  for (int i = 0; i < 3000; ++i) data.push_back(static_cast<char>(i * i >> 3));
  for (const size_t cut :
       {size_t{0}, size_t{1}, size_t{7}, size_t{1024}, size_t{2999}, data.size()}) {
    const absl::string_view a = absl::string_view(data).substr(0, cut);
    const absl::string_view b = absl::string_view(data).substr(cut);
    EXPECT_EQ(CombineCrc32c(Crc32c(a), Crc32c(b), b.size()), Crc32c(data)) << cut;
  }
  EXPECT_EQ(Crc32c("123456789"), 0xe3069283u);
}

}  // namespace
}  // namespace ferry
