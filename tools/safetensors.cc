// The .safetensors format: see safetensors.h.
#include "tools/safetensors.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <set>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "nlohmann/json.hpp"
#include "runtime/base/status.h"
#include "saver/atomic_file.h"

namespace ferry {
namespace {

using Json = nlohmann::json;

// The library's own limit.
constexpr uint64_t kMostHeader = 100'000'000;
constexpr size_t kLengthSize = 8;
constexpr char kMetadata[] = "__metadata__";

struct Type {
  const char* name;
  DType dtype;
};

// In the order in which tensors of these types lie in a file.
constexpr Type kTypes[] = {
    {"U64", DType::kUint64},         {"I64", DType::kInt64},     {"F64", DType::kDouble},
    {"C64", DType::kComplex64},      {"F32", DType::kFloat},     {"U32", DType::kUint32},
    {"I32", DType::kInt32},          {"BF16", DType::kBfloat16}, {"F16", DType::kHalf},
    {"U16", DType::kUint16},         {"I16", DType::kInt16},     {"F8_E4M3", DType::kFloat8E4m3fn},
    {"F8_E5M2", DType::kFloat8E5m2}, {"I8", DType::kInt8},       {"U8", DType::kUint8},
    {"BOOL", DType::kBool}};

const Type* FindType(DType dtype) {
  const auto* const t = std::find_if(std::begin(kTypes), std::end(kTypes),
                                     [&](const Type& type) { return type.dtype == dtype; });
  return t == std::end(kTypes) ? nullptr : t;
}

struct Listed {
  std::string name, type;
  std::vector<uint64_t> shape, offsets;
  bool has_type = false, has_shape = false, has_offsets = false;
};

// Takes the header as it is parsed, so that memory isn't spent on what no header has.
class HeaderReader : public Json::json_sax_t {
 public:
  explicit HeaderReader(std::vector<Listed>* listed) : listed_(listed) {}
  const std::string& problem() const { return problem_; }

  bool start_object(size_t) override {
    if (list_ != nullptr || ++depth_ > 2) return Bad("an object where none belongs");
    if (depth_ == 2) {
      metadata_ = key_ == kMetadata;
      if (!metadata_) {
        listed_->emplace_back();
        listed_->back().name = key_;
      }
    }
    expects_ = Expects::kNothing;
    return true;
  }
  bool end_object() override {
    if (depth_-- == 2 && !metadata_) {
      const Listed& t = listed_->back();
      if (!t.has_type || !t.has_shape || !t.has_offsets) {
        return Bad(absl::StrCat("'", t.name, "' lacks dtype, shape or data_offsets"));
      }
    }
    if (depth_ == 1) metadata_ = false;
    return true;
  }
  bool key(Json::string_t& key) override {
    if (depth_ == 1) {
      key_ = std::move(key);
      if (!names_.insert(key_).second) return Bad(absl::StrCat("'", key_, "' is there twice"));
      expects_ = Expects::kObject;
      return true;
    }
    if (metadata_) {
      expects_ = Expects::kText;
      return true;
    }
    Listed& t = listed_->back();
    bool* seen = nullptr;
    if (key == "dtype") {
      seen = &t.has_type;
      expects_ = Expects::kType;
    } else if (key == "shape" || key == "data_offsets") {
      seen = key == "shape" ? &t.has_shape : &t.has_offsets;
      next_list_ = key == "shape" ? &t.shape : &t.offsets;
      expects_ = Expects::kList;
    } else {
      return Bad(absl::StrCat("'", t.name, "' has a field '", key.substr(0, 80), "'"));
    }
    if (*seen) return Bad(absl::StrCat("'", t.name, "' has '", key, "' twice"));
    *seen = true;
    return true;
  }
  bool string(Json::string_t& value) override {
    if (list_ != nullptr) return Bad("a string among numbers");
    if (expects_ == Expects::kType) {
      listed_->back().type = std::move(value);
    } else if (expects_ != Expects::kText) {
      return Bad("a string where none belongs");
    }
    expects_ = Expects::kNothing;
    return true;
  }
  bool start_array(size_t) override {
    if (list_ != nullptr || expects_ != Expects::kList) return Bad("a list where none belongs");
    list_ = next_list_;
    return true;
  }
  bool end_array() override {
    list_ = nullptr;
    expects_ = Expects::kNothing;
    return true;
  }
  bool number_unsigned(Json::number_unsigned_t n) override {
    if (list_ == nullptr) return Bad("a number where none belongs");
    list_->push_back(n);
    return true;
  }
  bool number_integer(Json::number_integer_t) override { return Bad("a negative number"); }
  bool number_float(Json::number_float_t, const Json::string_t&) override {
    return Bad("a number that isn't whole, or too large");
  }
  bool null() override { return Bad("a null"); }
  bool boolean(bool) override { return Bad("a truth value"); }
  bool binary(Json::binary_t&) override { return Bad("bytes"); }
  bool parse_error(size_t at, const std::string&, const Json::exception&) override {
    return Bad(absl::StrCat("no JSON at its byte ", at));
  }

 private:
  enum class Expects { kNothing, kObject, kType, kList, kText };
  bool Bad(std::string what) {
    if (problem_.empty()) problem_ = std::move(what);
    return false;
  }

  std::vector<Listed>* const listed_;
  std::set<std::string> names_;
  int depth_ = 0;
  bool metadata_ = false;
  Expects expects_ = Expects::kNothing;
  std::string key_, problem_;
  std::vector<uint64_t>*list_ = nullptr, *next_list_ = nullptr;
};

class SafetensorsSource : public TensorSource {
 public:
  absl::Status Open(FileSystem* fs, const std::string& path) {
    path_ = path;
    FERRY_ASSIGN_OR_RETURN(file_, fs->OpenForRead(path));
    const uint64_t size = file_->size();
    unsigned char length_bytes[kLengthSize];
    if (size < kLengthSize) return Bad("too short for a header (", size, " bytes)");
    FERRY_RETURN_IF_ERROR(file_->Read(0, kLengthSize, length_bytes));
    uint64_t length = 0;
    for (size_t i = 0; i < kLengthSize; ++i) length |= uint64_t{length_bytes[i]} << (8 * i);
    if (length > kMostHeader || length > size - kLengthSize) {
      return Bad("its header claims ", length, " bytes, the file has ", size);
    }
    std::string header(static_cast<size_t>(length), '\0');
    FERRY_RETURN_IF_ERROR(file_->Read(kLengthSize, header.size(), &header[0]));
    if (header.empty() || header[0] != '{') return Bad("its header isn't a JSON object");

    std::vector<Listed> listed;
    HeaderReader reader(&listed);
    if (!Json::sax_parse(header, &reader)) return Bad("its header: ", reader.problem());
    std::sort(listed.begin(), listed.end(), [](const Listed& a, const Listed& b) {
      // Those that aren't a pair are found below.
      return a.offsets < b.offsets || (a.offsets == b.offsets && a.name < b.name);
    });
    uint64_t end = 0;
    std::vector<std::pair<Entry, uint64_t>> found;
    for (const Listed& t : listed) {
      if (t.offsets.size() != 2 || t.offsets[0] != end || t.offsets[1] < t.offsets[0]) {
        return Bad("tensor '", t.name, "' has the data_offsets [", absl::StrJoin(t.offsets, ","),
                   "], but what comes before it ends at ", end);
      }
      end = t.offsets[1];
      Entry e;
      e.name = t.name;
      const auto* const type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                            [&](const Type& k) { return t.type == k.name; });
      if (type == std::end(kTypes)) {
        return Unimplemented("'", path, "': tensor '", t.name, "' is of the type '", t.type,
                             "', which has no counterpart here");
      }
      e.dtype = type->dtype;
      std::vector<int64_t> dims;
      for (const uint64_t d : t.shape) {
        dims.push_back(d > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())
                           ? -1
                           : static_cast<int64_t>(d));
      }
      const absl::StatusOr<TensorShape> shape = TensorShape::Make(dims);
      if (!shape.ok()) {
        return Bad("tensor '", t.name, "' has the shape [", absl::StrJoin(t.shape, ","), "]");
      }
      e.shape = *shape;
      uint64_t bytes;
      if (__builtin_mul_overflow(static_cast<uint64_t>(shape->num_elements()), ElementSize(e.dtype),
                                 &bytes) ||
          bytes != t.offsets[1] - t.offsets[0]) {
        return Bad("tensor '", t.name, "' (", t.type, " ", shape->DebugString(), ") has ",
                   t.offsets[1] - t.offsets[0], " bytes");
      }
      found.emplace_back(std::move(e), t.offsets[0]);
    }
    const uint64_t data = size - kLengthSize - length;
    if (end != data) {
      return Bad("its tensors take ", end, " bytes, but there are ", data, " after its header");
    }
    std::sort(found.begin(), found.end(),
              [](const auto& a, const auto& b) { return a.first.name < b.first.name; });
    for (auto& [entry, begin] : found) {
      entries_.push_back(std::move(entry));
      begins_.push_back(kLengthSize + length + begin);
    }
    return absl::OkStatus();
  }

  absl::Status Read(size_t i, uint64_t offset, size_t n, char* dst) override {
    return file_->Read(begins_[i] + offset, n, dst);
  }

 private:
  template <typename... Parts>
  absl::Status Bad(const Parts&... parts) const {
    return DataLoss("'", path_, "': not a sound .safetensors file: ", parts...);
  }

  std::string path_;
  std::unique_ptr<RandomAccessFile> file_;
  std::vector<uint64_t> begins_;
};

}  // namespace

absl::StatusOr<std::unique_ptr<TensorSource>> OpenSafetensors(FileSystem* fs,
                                                              const std::string& path) {
  auto source = std::make_unique<SafetensorsSource>();
  FERRY_RETURN_IF_ERROR(source->Open(fs, path));
  return source;
}

absl::Status WriteSafetensors(FileSystem* fs, const std::string& path, TensorSource* source,
                              const TensorProgress& progress) {
  std::vector<size_t> order;
  std::vector<std::string> refused;
  for (size_t i = 0; i < source->entries().size(); ++i) {
    const TensorSource::Entry& e = source->entries()[i];
    order.push_back(i);
    if (!FindType(e.dtype)) refused.push_back(absl::StrCat(e.name, " (", DTypeName(e.dtype), ")"));
    if (e.name == kMetadata || !IsUtf8(e.name)) {
      return InvalidArgument("'", path, "': a .safetensors file can't hold the name '",
                             absl::CHexEscape(e.name), "'",
                             e.name == kMetadata ? "" : ", which isn't UTF-8");
    }
  }
  if (!refused.empty()) {
    return Unimplemented("'", path, "': a .safetensors file can't hold these tensors' types: ",
                         absl::StrJoin(refused, ", "));
  }
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const auto rank = [&](size_t i) { return FindType(source->entries()[i].dtype); };
    return rank(a) != rank(b) ? rank(a) < rank(b)
                              : source->entries()[a].name < source->entries()[b].name;
  });
  std::string header = "{";
  uint64_t end = 0;
  for (const size_t i : order) {
    const TensorSource::Entry& e = source->entries()[i];
    absl::StrAppend(&header, header.size() > 1 ? "," : "", Json(e.name).dump(), ":{\"dtype\":\"",
                    FindType(e.dtype)->name, "\",\"shape\":[", absl::StrJoin(e.shape.dims(), ","),
                    "],\"data_offsets\":[", end, ",", end + e.bytes(), "]}");
    end += e.bytes();
  }
  header += "}";
  header.append((kLengthSize - header.size() % kLengthSize) % kLengthSize, ' ');
  if (header.size() > kMostHeader) {
    return InvalidArgument("'", path, "': the names of ", order.size(),
                           " tensors make a header beyond the format's ", kMostHeader, " bytes");
  }
  FERRY_ASSIGN_OR_RETURN(const std::unique_ptr<AtomicFile> file, AtomicFile::Open(fs, path));
  std::string length;
  for (size_t i = 0; i < kLengthSize; ++i) {
    length.push_back(static_cast<char>(uint64_t{header.size()} >> (8 * i)));
  }
  FERRY_RETURN_IF_ERROR(file->Append(length + header));
  uint64_t done = 0;
  for (const size_t i : order) {
    FERRY_RETURN_IF_ERROR(ForEachPiece(source, i, [&](absl::string_view piece) {
      done += piece.size();
      if (progress) progress(done, end);
      return file->Append(piece);
    }));
  }
  return file->Commit();
}

}  // namespace ferry
