// Element types. The numbers are TensorFlow's (types.proto), so that they pass between files and
// memory unchanged. Apart from dtype.h for .cu files, which see no other library.
#ifndef FERRY_RUNTIME_TENSOR_ELEMENT_TYPE_H_
#define FERRY_RUNTIME_TENSOR_ELEMENT_TYPE_H_

#include <cstdint>

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

}  // namespace ferry

#endif  // FERRY_RUNTIME_TENSOR_ELEMENT_TYPE_H_
