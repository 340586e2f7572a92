// Dtypes' sizes and names: see dtype.h.
#include "runtime/tensor/dtype.h"

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"

namespace ferry {
namespace {

struct Info {
  DType type;
  const char* python;
  const char* word;
  const char* enumerator;
  size_t size;
};

constexpr Info kInfo[] = {
    {DType::kFloat, "float32", "float", "DT_FLOAT", 4},
    {DType::kDouble, "float64", "double", "DT_DOUBLE", 8},
    {DType::kInt32, "int32", "int32", "DT_INT32", 4},
    {DType::kUint8, "uint8", "uint8", "DT_UINT8", 1},
    {DType::kInt16, "int16", "int16", "DT_INT16", 2},
    {DType::kInt8, "int8", "int8", "DT_INT8", 1},
    {DType::kString, "string", "string", "DT_STRING", 0},
    {DType::kComplex64, "complex64", "complex64", "DT_COMPLEX64", 8},
    {DType::kInt64, "int64", "int64", "DT_INT64", 8},
    {DType::kBool, "bool", "bool", "DT_BOOL", 1},
    {DType::kQint8, "qint8", "qint8", "DT_QINT8", 1},
    {DType::kQuint8, "quint8", "quint8", "DT_QUINT8", 1},
    {DType::kQint32, "qint32", "qint32", "DT_QINT32", 4},
    {DType::kBfloat16, "bfloat16", "bfloat16", "DT_BFLOAT16", 2},
    {DType::kQint16, "qint16", "qint16", "DT_QINT16", 2},
    {DType::kQuint16, "quint16", "quint16", "DT_QUINT16", 2},
    {DType::kUint16, "uint16", "uint16", "DT_UINT16", 2},
    {DType::kComplex128, "complex128", "complex128", "DT_COMPLEX128", 16},
    {DType::kHalf, "float16", "half", "DT_HALF", 2},
    {DType::kResource, "resource", "resource", "DT_RESOURCE", 0},
    {DType::kVariant, "variant", "variant", "DT_VARIANT", 0},
    {DType::kUint32, "uint32", "uint32", "DT_UINT32", 4},
    {DType::kUint64, "uint64", "uint64", "DT_UINT64", 8},
    {DType::kFloat8E5m2, "float8_e5m2", "float8_e5m2", "DT_FLOAT8_E5M2", 1},
    {DType::kFloat8E4m3fn, "float8_e4m3fn", "float8_e4m3fn", "DT_FLOAT8_E4M3FN", 1},
    {DType::kFloat8E4m3fnuz, "float8_e4m3fnuz", "float8_e4m3fnuz", "DT_FLOAT8_E4M3FNUZ", 1},
    {DType::kFloat8E4m3b11fnuz, "float8_e4m3b11fnuz", "float8_e4m3b11fnuz",
     "DT_FLOAT8_E4M3B11FNUZ", 1},
    {DType::kFloat8E5m2fnuz, "float8_e5m2fnuz", "float8_e5m2fnuz", "DT_FLOAT8_E5M2FNUZ", 1},
    {DType::kInt4, "int4", "int4", "DT_INT4", 1},
    {DType::kUint4, "uint4", "uint4", "DT_UINT4", 1},
    {DType::kInt2, "int2", "int2", "DT_INT2", 1},
    {DType::kUint2, "uint2", "uint2", "DT_UINT2", 1},
};

const Info* Find(DType t) {
  for (const Info& i : kInfo) {
    if (i.type == t) return &i;
  }
  return nullptr;
}

}  // namespace

size_t ElementSize(DType t) {
  const Info* i = Find(BaseType(t));
  return i ? i->size : 0;
}

bool IsKnown(DType t) { return Find(BaseType(t)) != nullptr; }

bool IsFloating(DType t) {
  return t == DType::kFloat || t == DType::kDouble || t == DType::kHalf || t == DType::kBfloat16;
}

bool IsInteger(DType t) {
  switch (t) {
    case DType::kInt8:
    case DType::kInt16:
    case DType::kInt32:
    case DType::kInt64:
    case DType::kUint8:
    case DType::kUint16:
    case DType::kUint32:
    case DType::kUint64:
      return true;
    default:
      return false;
  }
}

std::string DTypeName(DType t) {
  const Info* i = Find(BaseType(t));
  if (!i) return absl::StrCat("dtype ", static_cast<int>(t));
  return absl::StrCat(i->python, IsRef(t) ? "_ref" : "");
}

std::string DTypeWord(DType t) {
  const Info* i = Find(BaseType(t));
  if (!i) return absl::StrCat("dtype ", static_cast<int>(t));
  return absl::StrCat(i->word, IsRef(t) ? "_ref" : "");
}

std::string DTypeEnumName(DType t) {
  const Info* i = Find(BaseType(t));
  if (!i) return absl::StrCat("DT_", static_cast<int>(t));
  return absl::StrCat(i->enumerator, IsRef(t) ? "_REF" : "");
}

DType DTypeFromName(absl::string_view name) {
  bool ref = false;
  if (absl::EndsWith(name, "_ref") || absl::EndsWith(name, "_REF")) {
    ref = true;
    name.remove_suffix(4);
  }
  for (const Info& i : kInfo) {
    if (name == i.python || name == i.word || name == i.enumerator) {
      return ref ? RefType(i.type) : i.type;
    }
  }
  return DType::kInvalid;
}

}  // namespace ferry
