// NumPy's .npy files: see npy.h.
#include "tools/npy.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/strip.h"
#include "runtime/base/status.h"
#include "saver/atomic_file.h"

namespace ferry {
namespace {

struct Type {
  DType dtype;
  char kind;
  size_t size;
};

constexpr Type kTypes[] = {
    {DType::kFloat, 'f', 4},     {DType::kDouble, 'f', 8},     {DType::kHalf, 'f', 2},
    {DType::kInt8, 'i', 1},      {DType::kInt16, 'i', 2},      {DType::kInt32, 'i', 4},
    {DType::kInt64, 'i', 8},     {DType::kUint8, 'u', 1},      {DType::kUint16, 'u', 2},
    {DType::kUint32, 'u', 4},    {DType::kUint64, 'u', 8},     {DType::kBool, 'b', 1},
    {DType::kComplex64, 'c', 8}, {DType::kComplex128, 'c', 16}};

constexpr char kMagic[] = "\x93NUMPY";
constexpr size_t kMagicSize = 6;

// The little of Python's syntax that headers have: a dictionary of strings, booleans, numbers and
// tuples. Each function takes what it names from the front, or takes nothing and returns false.
class Literal {
 public:
  explicit Literal(absl::string_view text) : rest_(text) {}

  bool Take(char c) {
    Skip();
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool String(std::string* out) {
    Skip();
    if (rest_.empty() || (rest_[0] != '\'' && rest_[0] != '"')) return false;
    const size_t end = rest_.find(rest_[0], 1);
    if (end == absl::string_view::npos) return false;
    *out = std::string(rest_.substr(1, end - 1));
    rest_.remove_prefix(end + 1);
    return !absl::StrContains(*out, '\\');
  }
  bool Bool(bool* out) {
    Skip();
    if (absl::ConsumePrefix(&rest_, "True")) {
      *out = true;
    } else if (absl::ConsumePrefix(&rest_, "False")) {
      *out = false;
    } else {
      return false;
    }
    return true;
  }
  bool Number(int64_t* out) {
    Skip();
    size_t n = 0;
    while (n < rest_.size() && absl::ascii_isdigit(static_cast<unsigned char>(rest_[n]))) ++n;
    if (!absl::SimpleAtoi(rest_.substr(0, n), out)) return false;
    rest_.remove_prefix(n);
    absl::ConsumePrefix(&rest_, "L");  // Python 2's long numbers.
    return true;
  }
  bool Tuple(std::vector<int64_t>* out) {
    if (!Take('(')) return false;
    out->clear();
    while (!Take(')')) {
      int64_t n;
      if (!Number(&n)) return false;
      out->push_back(n);
      if (Take(',')) continue;
      return Take(')');
    }
    return true;
  }
  bool AtEnd() {
    Skip();
    return rest_.empty();
  }

 private:
  void Skip() { rest_ = absl::StripLeadingAsciiWhitespace(rest_); }
  absl::string_view rest_;
};

}  // namespace

absl::StatusOr<std::string> MakeNpyHeader(DType dtype, const TensorShape& shape) {
  const auto* const type = std::find_if(std::begin(kTypes), std::end(kTypes),
                                        [&](const Type& t) { return t.dtype == dtype; });
  if (type == std::end(kTypes)) {
    return Unimplemented("a .npy file can't hold ", DTypeName(dtype), " elements");
  }
  std::string dims;
  for (int64_t d : shape.dims()) absl::StrAppend(&dims, d, ",");
  std::string header =
      absl::StrCat("{'descr': '", type->size == 1 ? "|" : "<", std::string(1, type->kind),
                   type->size, "', 'fortran_order': False, 'shape': (", dims, "), }");
  constexpr size_t kPreamble = 10;
  header.append(63 - (kPreamble + header.size()) % 64, ' ');
  header.push_back('\n');
  std::string out(kMagic, kMagicSize);
  out += std::string("\1\0", 2);
  out.push_back(static_cast<char>(header.size() & 255));
  out.push_back(static_cast<char>(header.size() >> 8));
  return out + header;
}

absl::StatusOr<NpyHeader> ParseNpyHeader(absl::string_view bytes) {
  if (!absl::StartsWith(bytes, absl::string_view(kMagic, kMagicSize)) ||
      bytes.size() < kMagicSize + 4) {
    return DataLoss("not a .npy array (it doesn't begin with NumPy's magic)");
  }
  const auto byte = [&](size_t i) { return static_cast<size_t>(static_cast<uint8_t>(bytes[i])); };
  const size_t version = byte(6);
  if (version < 1 || version > 3) {
    return Unimplemented("the .npy format's version ", version, " isn't known");
  }
  const size_t preamble = version == 1 ? 10 : 12;
  if (bytes.size() < preamble) return DataLoss("the .npy header is cut off");
  size_t length = byte(8) | byte(9) << 8;
  if (version > 1) length |= byte(10) << 16 | byte(11) << 24;
  if (preamble + length > kMostNpyHeader) {
    return DataLoss("the .npy header claims to be ", length, " bytes long");
  }
  if (bytes.size() < preamble + length) return DataLoss("the .npy header is cut off");

  NpyHeader header;
  header.size = preamble + length;
  const absl::string_view text = bytes.substr(preamble, length);
  const auto bad = [&] {
    return DataLoss("the .npy header can't be read: ",
                    absl::StripAsciiWhitespace(text.substr(0, 200)));
  };
  Literal literal(text);
  std::string descr;
  bool has_order = false, has_shape = false;
  if (!literal.Take('{')) return bad();
  while (!literal.Take('}')) {
    std::string key;
    if (!literal.String(&key) || !literal.Take(':')) return bad();
    if (key == "descr" && descr.empty()) {
      if (!literal.String(&descr)) {
        return Unimplemented("a .npy array of records (or a type that isn't known) can't be read: ",
                             absl::StripAsciiWhitespace(text.substr(0, 200)));
      }
    } else if (key == "fortran_order" && !has_order) {
      has_order = literal.Bool(&header.fortran_order);
      if (!has_order) return bad();
    } else if (key == "shape" && !has_shape) {
      std::vector<int64_t> dims;
      if (!literal.Tuple(&dims)) return bad();
      const absl::StatusOr<TensorShape> shape = TensorShape::Make(dims);
      if (!shape.ok()) return DataLoss("the .npy header: ", shape.status().message());
      header.shape = *shape;
      has_shape = true;
    } else {
      return bad();
    }
    if (literal.Take(',')) continue;
    if (literal.Take('}')) break;
    return bad();
  }
  if (!literal.AtEnd() || descr.empty() || !has_order || !has_shape) return bad();

  absl::string_view name = descr;
  if (absl::ConsumePrefix(&name, ">")) {
    header.big_endian = true;
  } else if (!absl::ConsumePrefix(&name, "<") && !absl::ConsumePrefix(&name, "|")) {
    absl::ConsumePrefix(&name, "=");
  }
  for (const Type& t : kTypes) {
    if (name == absl::StrCat(std::string(1, t.kind), t.size)) header.dtype = t.dtype;
  }
  if (header.dtype == DType::kInvalid) {
    return Unimplemented("NumPy's type '", descr,
                         "' has no counterpart here (objects, text and dates have none)");
  }
  const auto elements = static_cast<uint64_t>(header.shape.num_elements());
  uint64_t data;
  if (__builtin_mul_overflow(elements, ElementSize(header.dtype), &data)) {
    return DataLoss("the .npy header claims ", elements, " elements");
  }
  return header;
}

absl::StatusOr<Tensor> FromNpyData(const NpyHeader& header, absl::string_view data) {
  FERRY_ASSIGN_OR_RETURN(Tensor tensor, Tensor::Allocate(header.dtype, header.shape));
  const size_t width = ElementSize(header.dtype);
  auto* const to = static_cast<char*>(tensor.raw());
  const int rank = header.shape.rank();
  if (header.fortran_order && rank > 1 && header.shape.num_elements() > 0) {
    // Elements follow each other along the first dimension; where each goes is counted along.
    std::vector<int64_t> stride(static_cast<size_t>(rank), 1), at(static_cast<size_t>(rank), 0);
    for (int d = rank - 2; d >= 0; --d) {
      stride[static_cast<size_t>(d)] = stride[static_cast<size_t>(d) + 1] * header.shape.dim(d + 1);
    }
    int64_t index = 0;
    for (int64_t i = 0; i < header.shape.num_elements(); ++i) {
      std::memcpy(to + static_cast<size_t>(index) * width,
                  data.data() + static_cast<size_t>(i) * width, width);
      for (size_t d = 0; d < at.size(); ++d) {
        index += stride[d];
        if (++at[d] < header.shape.dim(static_cast<int>(d))) break;
        index -= stride[d] * at[d];
        at[d] = 0;
      }
    }
  } else if (tensor.bytes() > 0) {
    std::memcpy(to, data.data(), tensor.bytes());
  }
  if (header.big_endian) {
    const bool complex = header.dtype == DType::kComplex64 || header.dtype == DType::kComplex128;
    const size_t number = complex ? width / 2 : width;
    for (size_t i = 0; i < tensor.bytes(); i += number) std::reverse(to + i, to + i + number);
  }
  if (header.dtype == DType::kBool) {
    // Any byte may stand in a file; a bool has two values.
    for (size_t i = 0; i < tensor.bytes(); ++i) to[i] = to[i] != 0;
  }
  return tensor;
}

absl::StatusOr<std::string> ToNpy(const Tensor& tensor) {
  const bool widen = tensor.dtype() == DType::kBfloat16;
  FERRY_ASSIGN_OR_RETURN(std::string out,
                         MakeNpyHeader(widen ? DType::kFloat : tensor.dtype(), tensor.shape()));
  if (widen) {
    for (const Bfloat16 b : tensor.span<Bfloat16>()) {
      const float f = Bfloat16ToFloat(b);
      out.append(reinterpret_cast<const char*>(&f), 4);
    }
  } else {
    out.append(static_cast<const char*>(tensor.raw()), tensor.bytes());
  }
  return out;
}

absl::Status WriteNpy(FileSystem* fs, const std::string& path, const Tensor& tensor) {
  FERRY_ASSIGN_OR_RETURN(const std::string bytes, ToNpy(tensor));
  return ReplaceFile(fs, path, bytes);
}

absl::StatusOr<Tensor> ReadNpy(FileSystem* fs, const std::string& path) {
  FERRY_ASSIGN_OR_RETURN(const std::string bytes, ReadFile(fs, path));
  const auto named = [&](const absl::Status& s) {
    return Annotate(s, absl::StrCat("'", path, "'"));
  };
  const absl::StatusOr<NpyHeader> header =
      ParseNpyHeader(absl::string_view(bytes).substr(0, kMostNpyHeader));
  if (!header.ok()) return named(header.status());
  const absl::string_view data = absl::string_view(bytes).substr(header->size);
  const uint64_t expected =
      static_cast<uint64_t>(header->shape.num_elements()) * ElementSize(header->dtype);
  if (data.size() != expected) {
    return named(DataLoss("an array of ", header->shape.DebugString(), " needs ", expected,
                          " bytes after its header, the file has ", data.size()));
  }
  absl::StatusOr<Tensor> tensor = FromNpyData(*header, data);
  return tensor.ok() ? std::move(tensor) : named(tensor.status());
}

}  // namespace ferry
