// TensorSlice: see tensor_slice.h.
#include "saver/tensor_slice.h"

#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

// OrderedCode: encodings whose byte order is the order of the values.

// The number's bytes without leading zeros, the highest first, behind their count.
void AppendNumber(uint64_t value, std::string* out) {
  char bytes[8];
  int n = 0;
  for (; value != 0; value >>= 8) bytes[7 - n++] = static_cast<char>(value & 0xff);
  out->push_back(static_cast<char>(n));
  out->append(bytes + 8 - n, static_cast<size_t>(n));
}

// NUL and 0xff are followed by a byte that tells them from the end mark, NUL 0x01.
void AppendString(absl::string_view value, std::string* out) {
  for (const char c : value) {
    out->push_back(c);
    if (c == '\0') out->push_back('\xff');
    if (c == '\xff') out->push_back('\0');
  }
  out->append("\0\1", 2);
}

// n bytes hold 7 n bits of the number with its sign. The first bit is the sign's opposite; as many
// of the same follow as there are bytes behind the first, then one different bit.
void AppendSigned(int64_t value, std::string* out) {
  const bool negative = value < 0;
  const uint64_t magnitude =
      negative ? ~static_cast<uint64_t>(value) : static_cast<uint64_t>(value);
  int bits = 0;
  while (bits < 64 && magnitude >> bits != 0) ++bits;
  const int n = bits / 7 + 1;  // At most 10.
  char bytes[10];
  uint64_t rest = static_cast<uint64_t>(value);
  for (int i = 9; i >= 0; --i) {
    bytes[i] = i >= 2 ? static_cast<char>(rest & 0xff) : (negative ? '\xff' : '\0');
    if (i >= 2) rest >>= 8;
  }
  // n ones from the top, over one byte or two.
  const unsigned mask = (0xffffu << (16 - n)) & 0xffffu;
  char* begin = bytes + 10 - n;
  begin[0] = static_cast<char>(begin[0] ^ static_cast<char>(mask >> 8));
  if (n > 8) begin[1] = static_cast<char>(begin[1] ^ static_cast<char>(mask & 0xff));
  out->append(begin, static_cast<size_t>(n));
}

}  // namespace

std::string TensorSlice::DebugString() const {
  std::string out;
  for (const Extent& e : extents) {
    if (!out.empty()) out += ':';
    if (e.length == kFull) {
      out += '-';
    } else {
      absl::StrAppend(&out, e.start, ",", e.length);
    }
  }
  return out;
}

absl::StatusOr<TensorShape> SliceShape(const TensorSlice& slice, const TensorShape& full) {
  if (slice.rank() != full.rank()) {
    return InvalidArgument("slice ", slice.DebugString(), " has ", slice.rank(),
                           " dimensions, the tensor's shape is ", full.DebugString());
  }
  absl::InlinedVector<int64_t, 4> dims;
  for (int d = 0; d < full.rank(); ++d) {
    const TensorSlice::Extent& e = slice.extents[static_cast<size_t>(d)];
    if (e.length == TensorSlice::kFull) {
      dims.push_back(full.dim(d));
    } else if (e.start < 0 || e.length < 0 || e.start > full.dim(d) ||
               e.length > full.dim(d) - e.start) {
      return InvalidArgument("slice ", slice.DebugString(), " reaches outside dimension ", d,
                             " of shape ", full.DebugString());
    } else {
      dims.push_back(e.length);
    }
  }
  return TensorShape::Make(dims);
}

void ToProto(const TensorSlice& slice, proto::TensorSliceProto* out) {
  out->Clear();
  for (const TensorSlice::Extent& e : slice.extents) {
    proto::TensorSliceProto::Extent* extent = out->add_extent();
    if (e.length == TensorSlice::kFull) continue;
    extent->set_start(e.start);
    extent->set_length(e.length);
  }
}

absl::StatusOr<TensorSlice> FromProto(const proto::TensorSliceProto& slice) {
  TensorSlice out;
  for (const proto::TensorSliceProto::Extent& extent : slice.extent()) {
    const bool full =
        extent.has_length_hack_case() == proto::TensorSliceProto::Extent::HAS_LENGTH_HACK_NOT_SET;
    if (extent.start() < 0 || (full && extent.start() != 0) || (!full && extent.length() < 0)) {
      return InvalidArgument("a slice that starts at ", extent.start(), " with length ",
                             extent.length());
    }
    out.extents.push_back({extent.start(), full ? TensorSlice::kFull : extent.length()});
  }
  return out;
}

absl::StatusOr<ShapeAndSlice> ParseShapeAndSlice(absl::string_view text) {
  ShapeAndSlice out;
  if (text.empty()) return out;
  out.whole = false;
  const auto bad = [text] {
    return InvalidArgument("'", text, "' isn't a shape and slice such as \"5 3 0,3:-\"");
  };
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ' ');
  std::vector<int64_t> dims;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    int64_t dim;
    if (!absl::SimpleAtoi(parts[i], &dim)) return bad();
    dims.push_back(dim);
  }
  FERRY_ASSIGN_OR_RETURN(out.full_shape, TensorShape::Make(dims));
  if (!parts.back().empty() || !dims.empty()) {
    for (absl::string_view part : absl::StrSplit(parts.back(), ':')) {
      TensorSlice::Extent e;
      if (part != "-") {
        const std::pair<absl::string_view, absl::string_view> numbers =
            absl::StrSplit(part, absl::MaxSplits(',', 1));
        if (!absl::SimpleAtoi(numbers.first, &e.start) ||
            !absl::SimpleAtoi(numbers.second, &e.length) || e.start < 0 || e.length < 0) {
          return bad();
        }
      }
      out.slice.extents.push_back(e);
    }
  }
  FERRY_ASSIGN_OR_RETURN(out.shape, SliceShape(out.slice, out.full_shape));
  return out;
}

std::string SliceKey(absl::string_view name, const TensorSlice& slice) {
  std::string key;
  AppendNumber(0, &key);
  AppendString(name, &key);
  AppendNumber(static_cast<uint64_t>(slice.rank()), &key);
  for (const TensorSlice::Extent& e : slice.extents) {
    AppendSigned(e.start, &key);
    AppendSigned(e.length, &key);
  }
  return key;
}

}  // namespace ferry
