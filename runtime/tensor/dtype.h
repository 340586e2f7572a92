// Element types. The numbers are TensorFlow's (types.proto), so that they pass between files and
// memory unchanged.
#ifndef FERRY_RUNTIME_TENSOR_DTYPE_H_
#define FERRY_RUNTIME_TENSOR_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"

namespace ferry {

enum class DType : int32_t {
  kInvalid = 0,
  kFloat = 1,
  kDouble = 2,
  kInt32 = 3,
  kUint8 = 4,
  kInt16 = 5,
  kInt8 = 6,
  kString = 7,
  kComplex64 = 8,
  kInt64 = 9,
  kBool = 10,
  kQint8 = 11,
  kQuint8 = 12,
  kQint32 = 13,
  kBfloat16 = 14,
  kQint16 = 15,
  kQuint16 = 16,
  kUint16 = 17,
  kComplex128 = 18,
  kHalf = 19,
  kResource = 20,
  kVariant = 21,
  kUint32 = 22,
  kUint64 = 23,
  kFloat8E5m2 = 24,
  kFloat8E4m3fn = 25,
  kFloat8E4m3fnuz = 26,
  kFloat8E4m3b11fnuz = 27,
  kFloat8E5m2fnuz = 28,
  kInt4 = 29,
  kUint4 = 30,
  kInt2 = 31,
  kUint2 = 32,
};

// A reference to a variable of type t has the number t + 100.
constexpr bool IsRef(DType t) { return static_cast<int>(t) > 100; }
constexpr DType BaseType(DType t) {
  return IsRef(t) ? static_cast<DType>(static_cast<int>(t) - 100) : t;
}
constexpr DType RefType(DType t) { return static_cast<DType>(static_cast<int>(t) + 100); }

// Bytes of one element; 0 for string, resource, variant and numbers that are no type. int4 and
// uint4 take the low four bits of one byte each, int2 and uint2 the low two.
size_t ElementSize(DType t);
bool IsKnown(DType t);     // One of the enumerators above, or a reference to one.
bool IsFloating(DType t);  // half, bfloat16, float, double.
bool IsInteger(DType t);   // int8 to int64 and uint8 to uint64.

// "float32", "int64", "string", "float32_ref" …: TensorFlow's Python names.
std::string DTypeName(DType t);
// "float", "int64", "string": the words in TensorFlow's C++ messages.
std::string DTypeWord(DType t);
// "DT_FLOAT", "DT_INT64_REF": the enumerators' names.
std::string DTypeEnumName(DType t);
// From any of the three spellings; kInvalid if it is none.
DType DTypeFromName(absl::string_view name);

// Storage of the 16-bit floats where no arithmetic library is at hand. Kernels use Eigen's types,
// which have the same layout.
struct Half {
  uint16_t bits;
};
struct Bfloat16 {
  uint16_t bits;
};

// The type's number for a C++ type. Kernels add specialisations for Eigen's half and bfloat16.
template <typename T>
struct DTypeOf;
#define FERRY_DTYPE_OF(T, V)                  \
  template <>                                 \
  struct DTypeOf<T> {                         \
    static constexpr DType value = DType::V;  \
  }
FERRY_DTYPE_OF(float, kFloat);
FERRY_DTYPE_OF(double, kDouble);
FERRY_DTYPE_OF(int8_t, kInt8);
FERRY_DTYPE_OF(int16_t, kInt16);
FERRY_DTYPE_OF(int32_t, kInt32);
FERRY_DTYPE_OF(int64_t, kInt64);
FERRY_DTYPE_OF(uint8_t, kUint8);
FERRY_DTYPE_OF(uint16_t, kUint16);
FERRY_DTYPE_OF(uint32_t, kUint32);
FERRY_DTYPE_OF(uint64_t, kUint64);
FERRY_DTYPE_OF(bool, kBool);
FERRY_DTYPE_OF(std::string, kString);
FERRY_DTYPE_OF(Half, kHalf);
FERRY_DTYPE_OF(Bfloat16, kBfloat16);

}  // namespace ferry

#endif  // FERRY_RUNTIME_TENSOR_DTYPE_H_
