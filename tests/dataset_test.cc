// Tests of the data readers: the built-in digits, MNIST's files, and all that can be wrong in them.
#include "tools/dataset.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <zlib.h>

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "tests/fault_fs.h"

namespace ferry {
namespace {

using ::testing::AllOf;
using ::testing::HasSubstr;

std::string Gzip(const std::string& data) {
  z_stream stream = {};
  EXPECT_EQ(deflateInit2(&stream, 6, Z_DEFLATED, 15 + 16, 8, Z_DEFAULT_STRATEGY), Z_OK);
  std::string out(deflateBound(&stream, data.size()), '\0');
  stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(data.data()));
  stream.avail_in = static_cast<uInt>(data.size());
  stream.next_out = reinterpret_cast<Bytef*>(&out[0]);
  stream.avail_out = static_cast<uInt>(out.size());
  EXPECT_EQ(deflate(&stream, Z_FINISH), Z_STREAM_END);
  out.resize(stream.total_out);
  deflateEnd(&stream);
  return out;
}

std::string Idx(const std::vector<uint32_t>& dims, const std::string& elements) {
  std::string out = {'\0', '\0', '\x08', static_cast<char>(dims.size())};
  for (const uint32_t dim : dims) {
    for (int shift = 24; shift >= 0; shift -= 8) out.push_back(static_cast<char>(dim >> shift));
  }
  return out + elements;
}

void ExpectError(const absl::StatusOr<Dataset>& data, absl::StatusCode code,
                 const std::vector<std::string>& words) {
  EXPECT_EQ(data.status().code(), code) << data.status();
  for (const std::string& word : words) {
    EXPECT_THAT(std::string(data.status().message()), HasSubstr(word));
  }
}

constexpr auto kInvalid = absl::StatusCode::kInvalidArgument;
constexpr auto kDataLoss = absl::StatusCode::kDataLoss;
constexpr auto kNotFound = absl::StatusCode::kNotFound;

TEST(DigitsTest, BuiltInOnesAreAllThere) {
  const absl::StatusOr<Dataset> data = BuiltInDigits();
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(data->num_features, 64);
  EXPECT_EQ(data->num_classes, 10);
  EXPECT_EQ(data->train.size(), 1438);
  EXPECT_EQ(data->test.size(), 359);
  EXPECT_EQ(data->train.features.size(), 1438 * 64);
  EXPECT_EQ(data->test.features.size(), 359 * 64);
  // The first lines' labels are 0 to 9; each fifth line is for testing.
  EXPECT_EQ(std::vector<int64_t>(data->train.labels.begin(), data->train.labels.begin() + 8),
            (std::vector<int64_t>{0, 1, 2, 3, 5, 6, 7, 8}));
  EXPECT_EQ(data->test.labels[0], 4);
  EXPECT_EQ(data->test.labels[1], 9);
  EXPECT_EQ(data->train.features[2], 5.0f / 16);
  EXPECT_EQ(data->train.features[3], 13.0f / 16);
  for (const float x : data->train.features) ASSERT_TRUE(x >= 0 && x <= 1) << x;
}

std::string Line(int pixel, int label) {
  std::string line;
  for (int i = 0; i < 64; ++i) absl::StrAppend(&line, pixel, ",");
  return absl::StrCat(line, label, "\n");
}

TEST(DigitsTest, ReadsPlainAndGzippedFiles) {
  FaultFileSystem fs;
  std::string text;
  for (int i = 0; i < 10; ++i) text += Line(i, i);
  fs.SetContents("/plain.csv", text);
  fs.SetContents("/packed", Gzip(text.substr(0, 300)) + Gzip(text.substr(300)));
  fs.SetContents("/dos.csv", [&] {
    std::string dos;
    for (const char c : text) dos += c == '\n' ? "\r\n" : std::string(1, c);
    return dos.substr(0, dos.size() - 2);  // No end of line at the file's end.
  }());
  for (const char* const path : {"/plain.csv", "/packed", "/dos.csv"}) {
    const absl::StatusOr<Dataset> data = LoadDataset(&fs, path);
    ASSERT_TRUE(data.ok()) << data.status();
    EXPECT_EQ(data->name, path);
    EXPECT_EQ(data->test.labels, (std::vector<int64_t>{4, 9}));
    EXPECT_EQ(data->train.features[64], 1.0f / 16);
  }
}

TEST(DigitsTest, SaysWhatIsWrongInALine) {
  const std::string good = Line(1, 1);
  const auto parse = [&](const std::string& line) {
    return ParseDigits("f.csv", good + line + good + good + good);
  };
  EXPECT_TRUE(parse(good).ok());
  ExpectError(parse(Line(17, 1)), kInvalid, {"'f.csv', line 2", "'17'", "column 1"});
  ExpectError(parse(Line(-1, 1)), kInvalid, {"line 2", "'-1'"});
  ExpectError(parse(Line(1, 10)), kInvalid, {"line 2", "'10'", "column 65"});
  ExpectError(parse("1,2,x\n"), kInvalid, {"line 2", "'x'", "column 3"});
  ExpectError(parse("1,2,3\n"), kInvalid, {"line 2", "65", "found 3"});
  ExpectError(parse("\n"), kInvalid, {"line 2"});
  ExpectError(parse("1," + good), kInvalid, {"line 2", "column 66"});
  ExpectError(ParseDigits("f.csv", ""), kInvalid, {"line 1"});
  ExpectError(ParseDigits("f.csv", good), kInvalid, {"at least 5 lines", "found 1"});
}

TEST(DigitsTest, NoticesDamagedGzip) {
  std::string text;
  for (int i = 0; i < 100; ++i) text += Line(i * 7 % 17, i % 10);
  const std::string packed = Gzip(text);
  ASSERT_TRUE(ParseDigits("f", packed).ok());
  for (size_t size = 2; size < packed.size(); ++size) {
    ExpectError(ParseDigits("f", packed.substr(0, size)), kDataLoss, {"'f'", "cut short"});
  }
  std::string changed = packed;
  changed[packed.size() - 6] ^= 1;  // In the crc.
  ExpectError(ParseDigits("f", changed), kDataLoss, {"'f'", "incorrect data check"});
  ExpectError(ParseDigits("f", packed + "xyz"), kInvalid, {"'f'", "3 bytes follow"});
}

// A directory /m with MNIST's files: three training pictures and two to test, of 2x3 pixels.
class MnistTest : public ::testing::Test {
 protected:
  MnistTest() {
    EXPECT_TRUE(fs_.CreateDir("/m").ok());
    fs_.SetContents("/m/train-images-idx3-ubyte", Idx({3, 2, 3}, std::string(17, '\0') + "\xff"));
    fs_.SetContents("/m/train-labels-idx1-ubyte", Idx({3}, {'\x02', '\x00', '\x01'}));
    fs_.SetContents("/m/t10k-images.idx3-ubyte.gz", Gzip(Idx({2, 2, 3}, std::string(12, '\x33'))));
    fs_.SetContents("/m/t10k-labels-idx1-ubyte.gz", Gzip(Idx({2}, {'\x01', '\x02'})));
  }
  void ExpectLoadError(absl::StatusCode code, const std::vector<std::string>& words) {
    ExpectError(LoadDataset(&fs_, "/m"), code, words);
  }
  FaultFileSystem fs_;
};

TEST_F(MnistTest, ReadsTheFourFiles) {
  for (const char* const path :
       {"/m", "/m/", "/m/train-labels-idx1-ubyte", "/m/t10k-images.idx3-ubyte.gz"}) {
    const absl::StatusOr<Dataset> data = LoadDataset(&fs_, path);
    ASSERT_TRUE(data.ok()) << data.status();
    EXPECT_EQ(data->name, "MNIST");
    EXPECT_EQ(data->num_features, 6);
    EXPECT_EQ(data->num_classes, 3);
    EXPECT_EQ(data->train.labels, (std::vector<int64_t>{2, 0, 1}));
    EXPECT_EQ(data->test.labels, (std::vector<int64_t>{1, 2}));
    ASSERT_EQ(data->train.features.size(), 18);
    EXPECT_EQ(data->train.features[0], 0);
    EXPECT_EQ(data->train.features[17], 1);
    ASSERT_EQ(data->test.features.size(), 12);
    EXPECT_EQ(data->test.features[0], 0.2f);
  }
}

TEST_F(MnistTest, NamesMissingFiles) {
  ASSERT_TRUE(fs_.Unlink("/m/t10k-labels-idx1-ubyte.gz").ok());
  ExpectLoadError(kNotFound, {"'/m'", "t10k-labels-idx1-ubyte,", "t10k-labels.idx1-ubyte.gz"});
  ExpectError(LoadDataset(&fs_, "/none"), kNotFound, {"'/none'"});
}

TEST_F(MnistTest, ChecksHeaders) {
  const std::string path = "/m/train-images-idx3-ubyte";
  fs_.SetContents(path, Idx({3}, "abc"));
  ExpectLoadError(kInvalid, {path, "magic number 2051", "3 dimensions", "found 2049"});
  fs_.SetContents(path, "P5 28 28 255");
  ExpectLoadError(kInvalid, {path, "magic number"});
  fs_.SetContents(path, Idx({3, 2}, "").substr(0, 2) + "\x08\x03\x01");
  ExpectLoadError(kDataLoss, {path, "header of 16 bytes", "found 5"});
  fs_.SetContents(path, "");
  ExpectLoadError(kDataLoss, {path, "found 0"});
  fs_.SetContents(path, Idx({3, 0, 3}, ""));
  ExpectLoadError(kInvalid, {path, "dimension 1 is 0"});
  fs_.SetContents(path, Idx({0xffffffff, 0xffffffff, 0xffffffff}, ""));
  ExpectLoadError(kInvalid, {path, "overflows"});
  // Promises of terabytes cost no memory.
  for (const bool packed : {false, true}) {
    const std::string huge = Idx({0xffffffff, 28, 28}, "abc");
    fs_.SetContents(path, packed ? Gzip(huge) : huge);
    ExpectLoadError(kDataLoss, {path, "promises 3367254359280 bytes", "found 3"});
  }
}

TEST_F(MnistTest, ChecksSizes) {
  const std::string path = "/m/train-images-idx3-ubyte";
  for (const bool packed : {false, true}) {
    const auto set = [&](const std::string& bytes) {
      fs_.SetContents(path, packed ? Gzip(bytes) : bytes);
    };
    set(Idx({3, 2, 3}, std::string(17, 'x')));
    ExpectLoadError(kDataLoss, {path, "promises 18", "found 17"});
    set(Idx({3, 2, 3}, std::string(19, 'x')));
    ExpectLoadError(kInvalid, {path, "promises 18", "more follow"});
    set(Idx({4, 2, 3}, std::string(24, 'x')));
    ExpectLoadError(kInvalid, {path, "4 pictures", "train-labels-idx1-ubyte' 3 labels"});
    set(Idx({3, 2, 2}, std::string(12, 'x')));
    ExpectLoadError(kInvalid, {"t10k-images.idx3-ubyte.gz", "6 pixels", "have 4"});
  }
}

TEST_F(MnistTest, ChecksLabelsAndGzip) {
  const std::string path = "/m/t10k-labels-idx1-ubyte.gz";
  fs_.SetContents(path, Gzip(Idx({2}, {'\x01', '\x03'})));
  ExpectLoadError(kInvalid, {path, "the label 3", "end at 2"});
  const std::string packed = Gzip(Idx({2}, {'\x01', '\x02'}));
  for (size_t size = 2; size < packed.size(); ++size) {
    fs_.SetContents(path, packed.substr(0, size));
    ExpectLoadError(kDataLoss, {path});
  }
  fs_.SetContents(path, packed + "x");
  ExpectLoadError(kInvalid, {path, "1 bytes follow"});
  std::string changed = packed;
  changed[changed.size() - 5] ^= 4;
  fs_.SetContents(path, changed);
  ExpectLoadError(kDataLoss, {path, "incorrect"});
}

}  // namespace
}  // namespace ferry
