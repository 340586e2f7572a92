// What is to be known of element types: sizes, names, the C++ types that hold them.
#ifndef FERRY_RUNTIME_TENSOR_DTYPE_H_
#define FERRY_RUNTIME_TENSOR_DTYPE_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "runtime/tensor/element_type.h"

namespace ferry {

// Bytes of one element; 0 for string, resource, variant and numbers that are no type. int4 and
// uint4 take the low four bits of one byte each, int2 and uint2 the low two.
size_t ElementSize(DType t);
bool IsKnown(DType t);     // One of DType's enumerators, or a reference to one.
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
