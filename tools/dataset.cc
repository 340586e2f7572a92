// Reads labelled pictures: see dataset.h.
#include "tools/dataset.h"

#include <zlib.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "runtime/base/status.h"
#include "tools/embedded_digits.h"

namespace ferry {
namespace {

constexpr int kDigitFeatures = 64;
constexpr int kDigitMax = 16;
constexpr int kDigitClasses = 10;

constexpr uint64_t kNoLimit = std::numeric_limits<uint64_t>::max();

bool IsGzip(absl::string_view contents) { return absl::StartsWith(contents, "\x1f\x8b"); }

// The first `limit` bytes of what `contents` says, once unpacked if it is gzipped. Only when all of
// it was unpacked are gzip's checks done.
absl::StatusOr<std::string> Unpack(absl::string_view name, absl::string_view contents,
                                   uint64_t limit) {
  if (!IsGzip(contents)) return std::string(contents.substr(0, limit));
  z_stream stream = {};
  if (inflateInit2(&stream, 15 + 16) != Z_OK) return ResourceExhausted("zlib: no memory");
  struct Ender {
    z_stream* stream;
    ~Ender() { inflateEnd(stream); }
  } ender{&stream};
  std::string out;
  uint64_t read = 0;  // Of contents, by the members that ended.
  while (true) {
    const uint64_t left = contents.size() - read;
    const uint64_t given = std::min<uint64_t>(left, 1 << 30);
    stream.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(contents.data() + read));
    stream.avail_in = static_cast<uInt>(given);
    char block[32 << 10];
    stream.next_out = reinterpret_cast<Bytef*>(block);
    stream.avail_out = sizeof(block);
    const int result = inflate(&stream, Z_NO_FLUSH);
    read += given - stream.avail_in;
    out.append(block, sizeof(block) - stream.avail_out);
    if (out.size() >= limit) {
      out.resize(limit);
      return out;
    }
    if (result == Z_STREAM_END) {
      const absl::string_view rest = contents.substr(read);
      if (rest.empty()) return out;
      if (!IsGzip(rest)) {
        return InvalidArgument("'", name, "': ", rest.size(), " bytes follow the gzipped data");
      }
      inflateReset(&stream);  // Members that follow one another are one file.
    } else if (result == Z_BUF_ERROR ||
               (result == Z_OK && read == contents.size() && stream.avail_out != 0)) {
      return DataLoss("'", name, "': the gzipped data is cut short after ", contents.size(),
                      " bytes");
    } else if (result != Z_OK) {
      return DataLoss("'", name, "': the gzipped data is damaged near byte ", read, ": ",
                      stream.msg != nullptr ? stream.msg : zError(result));
    }
  }
}

uint32_t BigEndian32(absl::string_view bytes) {
  uint32_t value = 0;
  for (int i = 0; i < 4; ++i) value = value << 8 | static_cast<uint8_t>(bytes[i]);
  return value;
}

// An array of bytes, as an IDX file holds it: two zero bytes, the type (8: unsigned bytes), the
// rank, each dimension as a big-endian uint32, the elements.
struct Idx {
  std::string path;
  std::vector<uint64_t> dims;
  std::string file;  // The elements are what follows `start`.
  size_t start = 0;
  absl::string_view elements() const { return absl::string_view(file).substr(start); }
};

absl::StatusOr<Idx> ReadIdx(FileSystem* fs, const std::string& path, int rank) {
  FERRY_ASSIGN_OR_RETURN(const std::string contents, ReadFile(fs, path));
  Idx idx;
  idx.path = path;
  idx.start = 4 + 4 * rank;
  FERRY_ASSIGN_OR_RETURN(const std::string header, Unpack(path, contents, idx.start));
  const uint32_t expected_magic = 0x800 + rank;
  if (header.size() >= 4 && BigEndian32(header) != expected_magic) {
    return InvalidArgument("'", path, "': expected the magic number ", expected_magic,
                           " of an IDX file of bytes with ", rank,
                           rank == 1 ? " dimension" : " dimensions", ", found ",
                           BigEndian32(header));
  }
  if (header.size() < idx.start) {
    return DataLoss("'", path, "': expected an IDX header of ", idx.start, " bytes, found ",
                    header.size());
  }
  uint64_t size = 1;
  for (int i = 0; i < rank; ++i) {
    const uint64_t dim = BigEndian32(absl::string_view(header).substr(4 + 4 * i));
    if (dim == 0) return InvalidArgument("'", path, "': dimension ", i, " is 0");
    if (size > (uint64_t{1} << 62) / dim) {
      return InvalidArgument("'", path, "': the dimensions' product overflows");
    }
    size *= dim;
    idx.dims.push_back(dim);
  }
  // One byte more than there should be tells of a file that is too long.
  FERRY_ASSIGN_OR_RETURN(idx.file, Unpack(path, contents, idx.start + size + 1));
  const uint64_t found = idx.file.size() - idx.start;
  if (found < size) {
    return DataLoss("'", path, "': its header promises ", size, " bytes of data, found ", found);
  }
  if (found > size) {
    return InvalidArgument("'", path, "': its header promises ", size,
                           " bytes of data, but more follow");
  }
  return idx;
}

// The one of MNIST's files whose name begins with `name` ("train-images"); `rank` as in its name.
absl::StatusOr<Idx> ReadMnistFile(FileSystem* fs, const std::string& directory,
                                  absl::string_view name, int rank) {
  std::string tried;
  for (const char* const separator : {"-", "."}) {
    for (const char* const ending : {"", ".gz"}) {
      const std::string base = absl::StrCat(name, separator, "idx", rank, "-ubyte", ending);
      const std::string path = JoinPath(directory, base);
      absl::StatusOr<Idx> idx = ReadIdx(fs, path, rank);
      if (!absl::IsNotFound(idx.status())) return idx;
      absl::StrAppend(&tried, tried.empty() ? "" : ", ", base);
    }
  }
  return NotFound("'", directory, "' holds none of ", tried);
}

// Fills one part; sets the dataset's num_features and num_classes when `part` is the first.
absl::Status AddMnistPart(const Idx& images, const Idx& labels, Dataset* data, Examples* part) {
  if (images.dims[0] != labels.dims[0]) {
    return InvalidArgument("'", images.path, "' holds ", images.dims[0], " pictures, but '",
                           labels.path, "' ", labels.dims[0], " labels");
  }
  const int64_t num_features = static_cast<int64_t>(images.dims[1] * images.dims[2]);
  if (data->num_features == 0) data->num_features = num_features;
  if (num_features != data->num_features) {
    return InvalidArgument("'", images.path, "': the pictures have ", num_features,
                           " pixels, but those of the training file have ", data->num_features);
  }
  part->features.reserve(images.elements().size());
  for (const char pixel : images.elements()) {
    part->features.push_back(static_cast<float>(static_cast<uint8_t>(pixel)) / 255);
  }
  part->labels.reserve(labels.elements().size());
  for (const char label : labels.elements()) part->labels.push_back(static_cast<uint8_t>(label));
  const int64_t classes = 1 + *std::max_element(part->labels.begin(), part->labels.end());
  if (part == &data->train) data->num_classes = classes;
  if (classes > data->num_classes) {
    return InvalidArgument("'", labels.path, "': the label ", classes - 1,
                           " isn't among the training labels, which end at ",
                           data->num_classes - 1);
  }
  return absl::OkStatus();
}

absl::StatusOr<Dataset> LoadMnist(FileSystem* fs, const std::string& directory) {
  Dataset data;
  data.name = "MNIST";
  for (Examples* const part : {&data.train, &data.test}) {
    const std::string name = part == &data.train ? "train" : "t10k";
    FERRY_ASSIGN_OR_RETURN(const Idx images, ReadMnistFile(fs, directory, name + "-images", 3));
    FERRY_ASSIGN_OR_RETURN(const Idx labels, ReadMnistFile(fs, directory, name + "-labels", 1));
    FERRY_RETURN_IF_ERROR(AddMnistPart(images, labels, &data, part));
  }
  return data;
}

}  // namespace

absl::StatusOr<Dataset> ParseDigits(absl::string_view name, absl::string_view contents) {
  FERRY_ASSIGN_OR_RETURN(const std::string text, Unpack(name, contents, kNoLimit));
  Dataset data;
  data.name = std::string(name);
  data.num_features = kDigitFeatures;
  data.num_classes = kDigitClasses;
  int64_t row = 0;
  for (absl::string_view line : absl::StrSplit(absl::StripSuffix(text, "\n"), '\n')) {
    line = absl::StripSuffix(line, "\r");
    Examples& part = row % 5 == 4 ? data.test : data.train;
    ++row;
    int column = 0;
    for (const absl::string_view field : absl::StrSplit(line, ',')) {
      int value;
      const int limit = column < kDigitFeatures ? kDigitMax : kDigitClasses - 1;
      if (column > kDigitFeatures || !absl::SimpleAtoi(field, &value) || value < 0 ||
          value > limit) {
        return InvalidArgument(
            "'", name, "', line ", row, ": expected ", kDigitFeatures, " numbers of 0 to ",
            kDigitMax, " and a label of 0 to ", kDigitClasses - 1, ", found '",
            absl::Utf8SafeCHexEscape(field.substr(0, 20)), "' in column ", column + 1);
      }
      if (column < kDigitFeatures) {
        part.features.push_back(static_cast<float>(value) / kDigitMax);
      } else {
        part.labels.push_back(value);
      }
      ++column;
    }
    if (column != kDigitFeatures + 1) {
      return InvalidArgument("'", name, "', line ", row, ": expected ", kDigitFeatures + 1,
                             " columns, found ", column);
    }
  }
  if (data.test.size() == 0) {
    return InvalidArgument("'", name, "': expected at least 5 lines, found ", row);
  }
  return data;
}

absl::StatusOr<Dataset> BuiltInDigits() {
  return ParseDigits("digits",
                     {reinterpret_cast<const char*>(kEmbeddedDigits), kEmbeddedDigitsSize});
}

absl::StatusOr<Dataset> LoadDataset(FileSystem* fs, const std::string& path) {
  FERRY_ASSIGN_OR_RETURN(const FileInfo info, fs->Stat(path));
  if (info.is_directory) return LoadMnist(fs, path);
  const std::string base = BaseName(path);
  for (const char* const name : {"train-images", "train-labels", "t10k-images", "t10k-labels"}) {
    if (absl::StartsWith(base, name)) return LoadMnist(fs, DirName(path));
  }
  FERRY_ASSIGN_OR_RETURN(const std::string contents, ReadFile(fs, path));
  return ParseDigits(path, contents);
}

}  // namespace ferry
