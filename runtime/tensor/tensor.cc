// Tensor, and the 16-bit floats: see tensor.h.
#include "runtime/tensor/tensor.h"

#include <algorithm>
#include <cmath>

#include "absl/strings/escaping.h"
#include "runtime/base/status.h"

namespace ferry {

absl::StatusOr<Tensor> Tensor::Allocate(DType dtype, const TensorShape& shape,
                                        Allocator* allocator) {
  const int64_t n = shape.num_elements();
  if (dtype == DType::kString) {
    FERRY_ASSIGN_OR_RETURN(BufferRef buffer, AllocateStrings(n));
    return Tensor(dtype, shape, std::move(buffer));
  }
  const size_t size = ElementSize(dtype);
  if (size == 0 || IsRef(dtype)) {
    return InvalidArgument("a tensor of dtype ", DTypeName(dtype), " has no memory of its own");
  }
  int64_t bytes;
  if (__builtin_mul_overflow(n, static_cast<int64_t>(size), &bytes)) {
    return ResourceExhausted("a ", DTypeName(dtype), " tensor of shape ", shape.DebugString(),
                             " is larger than any memory");
  }
  absl::StatusOr<BufferRef> buffer = allocator->Allocate(static_cast<size_t>(bytes));
  if (!buffer.ok()) {
    return Annotate(buffer.status(), absl::StrCat("allocating a ", DTypeName(dtype),
                                                  " tensor of shape ", shape.DebugString()));
  }
  return Tensor(dtype, shape, *std::move(buffer));
}

size_t Tensor::bytes() const {
  const size_t size = dtype_ == DType::kString ? sizeof(std::string) : ElementSize(dtype_);
  return static_cast<size_t>(num_elements()) * size;
}

absl::StatusOr<Tensor> Tensor::DeepCopy() const {
  if (!initialized()) return *this;
  FERRY_ASSIGN_OR_RETURN(Tensor copy, Allocate(dtype_, shape_));
  CopyElements(*this, &copy);
  return copy;
}

void CopyElements(const Tensor& from, Tensor* to) {
  assert(from.dtype() == to->dtype() && from.num_elements() == to->num_elements());
  if (from.dtype() == DType::kString) {
    const auto* s = from.data<std::string>();
    std::copy(s, s + from.num_elements(), to->data<std::string>());
  } else if (from.num_elements() > 0) {
    std::memcpy(to->raw(), from.raw(), from.bytes());
  }
}

namespace {

template <typename T>
void AppendNumbers(const Tensor& t, int64_t n, std::string* out) {
  for (int64_t i = 0; i < n; ++i) absl::StrAppend(out, " ", t.data<T>()[i]);
}

// T is the type of the two parts.
template <typename T>
void AppendComplexNumbers(const Tensor& t, int64_t n, std::string* out) {
  for (int64_t i = 0; i < n; ++i) {
    T parts[2];
    std::memcpy(parts, static_cast<const char*>(t.raw()) + static_cast<size_t>(i) * sizeof(parts),
                sizeof(parts));
    absl::StrAppend(out, " (", parts[0], ",", parts[1], ")");
  }
}

}  // namespace

std::string Tensor::DebugString(int most) const {
  std::string out = absl::StrCat(DTypeName(dtype_), " ", shape_.DebugString());
  if (!initialized()) return out;
  const int64_t n = std::min<int64_t>(most, num_elements());
  switch (dtype_) {
    case DType::kFloat: AppendNumbers<float>(*this, n, &out); break;
    case DType::kDouble: AppendNumbers<double>(*this, n, &out); break;
    case DType::kInt32: AppendNumbers<int32_t>(*this, n, &out); break;
    case DType::kInt64: AppendNumbers<int64_t>(*this, n, &out); break;
    case DType::kUint32: AppendNumbers<uint32_t>(*this, n, &out); break;
    case DType::kUint64: AppendNumbers<uint64_t>(*this, n, &out); break;
    case DType::kInt16: AppendNumbers<int16_t>(*this, n, &out); break;
    case DType::kUint16: AppendNumbers<uint16_t>(*this, n, &out); break;
    case DType::kBool: AppendNumbers<bool>(*this, n, &out); break;
    case DType::kComplex64:
      AppendComplexNumbers<float>(*this, n, &out);
      break;
    case DType::kComplex128:
      AppendComplexNumbers<double>(*this, n, &out);
      break;
    case DType::kInt8:
      for (int64_t i = 0; i < n; ++i) absl::StrAppend(&out, " ", int{data<int8_t>()[i]});
      break;
    case DType::kUint8:
      for (int64_t i = 0; i < n; ++i) absl::StrAppend(&out, " ", int{data<uint8_t>()[i]});
      break;
    case DType::kHalf:
      for (int64_t i = 0; i < n; ++i) absl::StrAppend(&out, " ", HalfToFloat(data<Half>()[i]));
      break;
    case DType::kBfloat16:
      for (int64_t i = 0; i < n; ++i) {
        absl::StrAppend(&out, " ", Bfloat16ToFloat(data<Bfloat16>()[i]));
      }
      break;
    case DType::kString:
      for (int64_t i = 0; i < n; ++i) {
        absl::StrAppend(&out, " \"", absl::CHexEscape(data<std::string>()[i]), "\"");
      }
      break;
    default: {
      const size_t size = ElementSize(dtype_);
      for (int64_t i = 0; i < n; ++i) {
        absl::StrAppend(
            &out, " 0x",
            absl::BytesToHexString(absl::string_view(
                static_cast<const char*>(data_) + static_cast<size_t>(i) * size, size)));
      }
    }
  }
  if (n < num_elements()) absl::StrAppend(&out, " ...");
  return out;
}

float HalfToFloat(Half h) {
  const uint32_t sign = (h.bits & 0x8000u) << 16;
  const uint32_t exponent = (h.bits >> 10) & 31, mantissa = h.bits & 0x3ff;
  if (exponent == 0) {
    const float f = std::ldexp(static_cast<float>(mantissa), -24);
    return sign ? -f : f;
  }
  const uint32_t bits =
      sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | (mantissa << 13);
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

Half FloatToHalf(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  const uint16_t sign = static_cast<uint16_t>((bits >> 16) & 0x8000u);
  bits &= 0x7fffffffu;
  if (bits > 0x7f800000u) return {static_cast<uint16_t>(sign | 0x7e00u)};  // NaN.
  if (bits >= 0x477ff000u) return {static_cast<uint16_t>(sign | 0x7c00u)};  // Rounds to infinity.
  if (bits < 0x38800000u) {  // Subnormal: the value in units of 2^-24, rounded to nearest even.
    float magnitude;
    std::memcpy(&magnitude, &bits, 4);
    return {static_cast<uint16_t>(
        sign | static_cast<uint16_t>(std::nearbyint(std::ldexp(magnitude, 24))))};
  }
  bits += 0xfffu + ((bits >> 13) & 1);
  return {static_cast<uint16_t>(sign | ((bits - 0x38000000u) >> 13))};
}

float Bfloat16ToFloat(Bfloat16 b) {
  const uint32_t bits = static_cast<uint32_t>(b.bits) << 16;
  float f;
  std::memcpy(&f, &bits, 4);
  return f;
}

Bfloat16 FloatToBfloat16(float f) {
  uint32_t bits;
  std::memcpy(&bits, &f, 4);
  if ((bits & 0x7fffffffu) > 0x7f800000u) {
    return {static_cast<uint16_t>((bits >> 16) | 0x40u)};
  }
  bits += 0x7fffu + ((bits >> 16) & 1);
  return {static_cast<uint16_t>(bits >> 16)};
}

}  // namespace ferry
