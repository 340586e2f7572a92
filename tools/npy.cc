#include "tools/npy.h"

#include "absl/strings/str_cat.h"
#include "runtime/base/status.h"

namespace ferry {
namespace {

const char* Descr(DType t) {
  switch (t) {
    case DType::kFloat: return "<f4";
    case DType::kDouble: return "<f8";
    case DType::kHalf: return "<f2";
    case DType::kBfloat16: return "<f4";
    case DType::kInt8: return "|i1";
    case DType::kInt16: return "<i2";
    case DType::kInt32: return "<i4";
    case DType::kInt64: return "<i8";
    case DType::kUint8: return "|u1";
    case DType::kUint16: return "<u2";
    case DType::kUint32: return "<u4";
    case DType::kUint64: return "<u8";
    case DType::kBool: return "|b1";
    case DType::kComplex64: return "<c8";
    case DType::kComplex128: return "<c16";
    default: return nullptr;
  }
}

}  // namespace

absl::StatusOr<std::string> ToNpy(const Tensor& tensor) {
  const char* descr = Descr(tensor.dtype());
  if (!descr) {
    return Unimplemented("a .npy file can't hold ", DTypeName(tensor.dtype()), " elements");
  }
  std::string shape;
  for (int64_t d : tensor.shape().dims()) absl::StrAppend(&shape, d, ",");
  std::string header =
      absl::StrCat("{'descr': '", descr, "', 'fortran_order': False, 'shape': (", shape, "), }");
  constexpr size_t kPreamble = 10;
  header.append(63 - (kPreamble + header.size()) % 64, ' ');
  header.push_back('\n');
  std::string out("\x93NUMPY\x01\x00", 8);
  out.push_back(static_cast<char>(header.size() & 255));
  out.push_back(static_cast<char>(header.size() >> 8));
  out += header;
  if (tensor.dtype() == DType::kBfloat16) {
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
  return WriteFileAtomically(fs, path, bytes);
}

}  // namespace ferry
