// Attributes: see attr.h.
#include "runtime/op/attr.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "absl/strings/match.h"
#include "runtime/base/status.h"

namespace ferry {

using AttrValue = proto::AttrValue;
using ListValue = proto::AttrValue::ListValue;

std::string AttrKind(const AttrValue& v) {
  switch (v.value_case()) {
    case AttrValue::kS:
      return "string";
    case AttrValue::kI:
      return "int";
    case AttrValue::kF:
      return "float";
    case AttrValue::kB:
      return "bool";
    case AttrValue::kType:
      return "type";
    case AttrValue::kShape:
      return "shape";
    case AttrValue::kTensor:
      return "tensor";
    case AttrValue::kFunc:
      return "func";
    case AttrValue::kPlaceholder:
      return "placeholder";
    case AttrValue::VALUE_NOT_SET:
      return "nothing";
    case AttrValue::kList:
      break;
  }
  const ListValue& l = v.list();
  const std::pair<int, const char*> fields[] = {
      {l.s_size(), "string"},      {l.i_size(), "int"},     {l.f_size(), "float"},
      {l.b_size(), "bool"},        {l.type_size(), "type"}, {l.shape_size(), "shape"},
      {l.tensor_size(), "tensor"}, {l.func_size(), "func"}};
  std::string kinds;
  for (const auto& [size, word] : fields) {
    if (size > 0) absl::StrAppend(&kinds, kinds.empty() ? "" : ", ", word);
  }
  return absl::StrCat("list(", kinds, ")");
}

bool IsOfKind(const AttrValue& v, absl::string_view kind) {
  const std::string found = AttrKind(v);
  return found == kind || (found == "list()" && absl::StartsWith(kind, "list("));
}

namespace {

absl::Status CheckKind(const AttrValue& v, absl::string_view kind) {
  if (IsOfKind(v, kind)) return absl::OkStatus();
  return InvalidArgument("a value of kind ", kind, " was expected, found ", AttrKind(v));
}

absl::StatusOr<DType> ToDType(int number) {
  const DType t = static_cast<DType>(number);
  if (!IsKnown(t)) return InvalidArgument("unknown dtype number ", number);
  return t;
}

// One overload a type; the pointer only selects it.
absl::StatusOr<bool> Read(const AttrValue& v, bool*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "bool"));
  return v.b();
}
absl::StatusOr<int64_t> Read(const AttrValue& v, int64_t*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "int"));
  return v.i();
}
absl::StatusOr<int32_t> Read(const AttrValue& v, int32_t*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "int"));
  if (v.i() < std::numeric_limits<int32_t>::min() || v.i() > std::numeric_limits<int32_t>::max()) {
    return InvalidArgument("value ", v.i(), " doesn't fit int32");
  }
  return static_cast<int32_t>(v.i());
}
absl::StatusOr<float> Read(const AttrValue& v, float*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "float"));
  return v.f();
}
absl::StatusOr<std::string> Read(const AttrValue& v, std::string*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "string"));
  return v.s();
}
absl::StatusOr<DType> Read(const AttrValue& v, DType*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "type"));
  return ToDType(v.type());
}
absl::StatusOr<PartialShape> Read(const AttrValue& v, PartialShape*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "shape"));
  return FromProto(v.shape());
}
absl::StatusOr<TensorShape> Read(const AttrValue& v, TensorShape*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "shape"));
  FERRY_ASSIGN_OR_RETURN(PartialShape shape, FromProto(v.shape()));
  return shape.ToTensorShape();
}
absl::StatusOr<Tensor> Read(const AttrValue& v, Tensor*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "tensor"));
  return FromProto(v.tensor());
}
absl::StatusOr<std::vector<bool>> Read(const AttrValue& v, std::vector<bool>*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "list(bool)"));
  return std::vector<bool>(v.list().b().begin(), v.list().b().end());
}
absl::StatusOr<std::vector<int64_t>> Read(const AttrValue& v, std::vector<int64_t>*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "list(int)"));
  return std::vector<int64_t>(v.list().i().begin(), v.list().i().end());
}
absl::StatusOr<std::vector<float>> Read(const AttrValue& v, std::vector<float>*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "list(float)"));
  return std::vector<float>(v.list().f().begin(), v.list().f().end());
}
absl::StatusOr<std::vector<std::string>> Read(const AttrValue& v, std::vector<std::string>*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "list(string)"));
  return std::vector<std::string>(v.list().s().begin(), v.list().s().end());
}
absl::StatusOr<std::vector<DType>> Read(const AttrValue& v, std::vector<DType>*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "list(type)"));
  std::vector<DType> out;
  for (int number : v.list().type()) {
    FERRY_ASSIGN_OR_RETURN(DType t, ToDType(number));
    out.push_back(t);
  }
  return out;
}
absl::StatusOr<std::vector<PartialShape>> Read(const AttrValue& v, std::vector<PartialShape>*) {
  FERRY_RETURN_IF_ERROR(CheckKind(v, "list(shape)"));
  std::vector<PartialShape> out;
  for (const proto::TensorShapeProto& s : v.list().shape()) {
    FERRY_ASSIGN_OR_RETURN(PartialShape shape, FromProto(s));
    out.push_back(std::move(shape));
  }
  return out;
}

}  // namespace

AttrValue MakeAttr(bool v) {
  AttrValue a;
  a.set_b(v);
  return a;
}
AttrValue MakeAttr(int64_t v) {
  AttrValue a;
  a.set_i(v);
  return a;
}
AttrValue MakeAttr(float v) {
  AttrValue a;
  a.set_f(v);
  return a;
}
AttrValue MakeAttr(const std::string& v) {
  AttrValue a;
  a.set_s(v);
  return a;
}
AttrValue MakeAttr(DType v) {
  AttrValue a;
  a.set_type(static_cast<proto::DataType>(v));
  return a;
}
AttrValue MakeAttr(const PartialShape& v) {
  AttrValue a;
  ToProto(v, a.mutable_shape());
  return a;
}
AttrValue MakeAttr(const TensorShape& v) { return MakeAttr(PartialShape(v)); }
AttrValue MakeAttr(const Tensor& v) {
  AttrValue a;
  ToProto(v, a.mutable_tensor());
  return a;
}
AttrValue MakeAttr(const std::vector<bool>& v) {
  AttrValue a;
  ListValue* l = a.mutable_list();
  for (bool x : v) l->add_b(x);
  return a;
}
AttrValue MakeAttr(const std::vector<int64_t>& v) {
  AttrValue a;
  a.mutable_list()->mutable_i()->Add(v.begin(), v.end());
  return a;
}
AttrValue MakeAttr(const std::vector<float>& v) {
  AttrValue a;
  a.mutable_list()->mutable_f()->Add(v.begin(), v.end());
  return a;
}
AttrValue MakeAttr(const std::vector<std::string>& v) {
  AttrValue a;
  ListValue* l = a.mutable_list();
  for (const std::string& x : v) l->add_s(x);
  return a;
}
AttrValue MakeAttr(const std::vector<DType>& v) {
  AttrValue a;
  ListValue* l = a.mutable_list();
  for (DType x : v) l->add_type(static_cast<proto::DataType>(x));
  return a;
}
AttrValue MakeAttr(const std::vector<PartialShape>& v) {
  AttrValue a;
  ListValue* l = a.mutable_list();
  for (const PartialShape& x : v) ToProto(x, l->add_shape());
  return a;
}

template <typename T>
absl::StatusOr<T> GetAttr(const AttrMap& attrs, const std::string& name) {
  auto it = attrs.find(name);
  if (it == attrs.end()) return NotFound("there is no attribute '", name, "'");
  absl::StatusOr<T> value = Read(it->second, static_cast<T*>(nullptr));
  if (!value.ok()) return Annotate(value.status(), absl::StrCat("attribute '", name, "'"));
  return value;
}

template absl::StatusOr<bool> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<int64_t> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<int32_t> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<float> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<std::string> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<DType> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<PartialShape> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<TensorShape> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<Tensor> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<std::vector<bool>> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<std::vector<int64_t>> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<std::vector<float>> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<std::vector<std::string>> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<std::vector<DType>> GetAttr(const AttrMap&, const std::string&);
template absl::StatusOr<std::vector<PartialShape>> GetAttr(const AttrMap&, const std::string&);

void ToProto(const PartialShape& shape, proto::TensorShapeProto* out) {
  out->Clear();
  if (!shape.known_rank()) {
    out->set_unknown_rank(true);
    return;
  }
  for (int64_t d : shape.dims()) out->add_dim()->set_size(d);
}

absl::StatusOr<PartialShape> FromProto(const proto::TensorShapeProto& shape) {
  if (shape.unknown_rank()) {
    if (shape.dim_size() > 0) {
      return InvalidArgument("a shape of unknown rank has ", shape.dim_size(), " dimensions");
    }
    return PartialShape();
  }
  if (shape.dim_size() > kMaxRank) {
    return InvalidArgument("a shape of ", shape.dim_size(), " dimensions; at most ", kMaxRank,
                           " are supported");
  }
  PartialShape out = PartialShape::Scalar();
  // The sizes that are known are bounded together, so that products of them never overflow.
  int64_t product = 1;
  for (const auto& d : shape.dim()) {
    if (d.size() < PartialShape::kUnknown) {
      return InvalidArgument("a shape has a dimension of size ", d.size(),
                             "; sizes are at least -1 (unknown)");
    }
    if (d.size() > 0 && __builtin_mul_overflow(product, d.size(), &product)) {
      return InvalidArgument("a shape has more elements than fit 63 bits");
    }
    out.AddDim(d.size());
  }
  return out;
}

// ---------------------------------------------------------------------------------------------
// Tensors.

namespace {

// The value of an element of int4, uint4, int2 or uint2, which is in the low bits of its byte.
int NarrowInt(DType t, uint8_t byte) {
  const int bits = t == DType::kInt4 || t == DType::kUint4 ? 4 : 2;
  const int sign = t == DType::kInt4 || t == DType::kInt2 ? 1 << (bits - 1) : 0;
  return ((byte & ((1 << bits) - 1)) ^ sign) - sign;
}

// Whether make_tensor_proto writes several elements of the type as tensor_content.
bool HasContentForm(DType t) {
  switch (t) {
    case DType::kBool:
    case DType::kString:
    case DType::kComplex64:
    case DType::kComplex128:
    case DType::kInt4:
    case DType::kUint4:
    case DType::kInt2:
    case DType::kUint2:
      return false;
    default:
      return true;
  }
}

template <typename T, typename Field>
void Write(const Tensor& t, Field* field, int64_t per_element = 1) {
  const T* p = static_cast<const T*>(t.raw());
  const int64_t n = t.num_elements() * per_element;
  field->Reserve(static_cast<int>(n));
  for (int64_t i = 0; i < n; ++i) field->Add(p[i]);
}

// The values of one typed field, the last one repeated until the tensor is full.
template <typename T, typename Field>
absl::StatusOr<Tensor> ReadValues(DType dtype, const TensorShape& shape, const Field& field,
                                  int per_element = 1) {
  const int64_t n = shape.num_elements(), have = field.size() / per_element;
  if (have > n || field.size() % per_element != 0) {
    return InvalidArgument("a ", DTypeName(dtype), " tensor of shape ", shape.DebugString(),
                           " has ", n, " elements, but the message holds ", field.size(), " values",
                           per_element > 1 ? " (two an element)" : "");
  }
  FERRY_ASSIGN_OR_RETURN(Tensor t, Tensor::Allocate(dtype, shape));
  T* p = static_cast<T*>(t.raw());
  const int64_t given = have * per_element;
  for (int64_t i = 0; i < given; ++i) p[i] = static_cast<T>(field[static_cast<int>(i)]);
  if (have == 0) {
    std::fill_n(p, n * per_element, T{});
  } else {
    for (int64_t i = given; i < n * per_element; ++i) p[i] = p[i - per_element];
  }
  return t;
}

absl::StatusOr<Tensor> ReadStrings(const TensorShape& shape, const proto::TensorProto& p) {
  const int64_t n = shape.num_elements(), have = p.string_val_size();
  if (have > n) {
    return InvalidArgument("a string tensor of shape ", shape.DebugString(), " has ", n,
                           " elements, but the message holds ", have, " values");
  }
  if (have > 0 && have < n) {
    // A small message must not become more memory than the allocator would hand out.
    int64_t bytes;
    const auto size = static_cast<int64_t>(p.string_val(static_cast<int>(have) - 1).size());
    if (__builtin_mul_overflow(n - have, size, &bytes)) {
      return ResourceExhausted("a string tensor of shape ", shape.DebugString(),
                               " is larger than any memory");
    }
    FERRY_RETURN_IF_ERROR(HostAllocator::Get()->CheckFits(static_cast<size_t>(bytes)));
  }
  FERRY_ASSIGN_OR_RETURN(Tensor t, Tensor::Allocate(DType::kString, shape));
  if (have == 0) return t;
  auto* s = t.data<std::string>();
  for (int64_t i = 0; i < n; ++i) {
    s[i] = p.string_val(static_cast<int>(std::min(i, have - 1)));
  }
  return t;
}

// Strings as tensor_content: their lengths as varints, then their bytes.
absl::StatusOr<Tensor> ReadStringContent(const TensorShape& shape, absl::string_view content) {
  const absl::Status wrong =
      InvalidArgument("tensor_content isn't the lengths and bytes of a string tensor of shape ",
                      shape.DebugString());
  const int64_t n = shape.num_elements();
  if (n > static_cast<int64_t>(content.size())) return wrong;  // Each length takes a byte or more.
  FERRY_ASSIGN_OR_RETURN(Tensor t, Tensor::Allocate(DType::kString, shape));
  std::vector<size_t> sizes(static_cast<size_t>(n));
  for (size_t& size : sizes) {
    int shift = 0;
    for (;;) {
      if (content.empty() || shift > 28) return wrong;
      const auto byte = static_cast<unsigned char>(content.front());
      content.remove_prefix(1);
      size |= static_cast<size_t>(byte & 127) << shift;
      if (byte < 128) break;
      shift += 7;
    }
  }
  for (int64_t i = 0; i < n; ++i) {
    const size_t size = sizes[static_cast<size_t>(i)];
    if (size > content.size()) return wrong;
    t.data<std::string>()[i] = std::string(content.substr(0, size));
    content.remove_prefix(size);
  }
  if (!content.empty()) return wrong;
  return t;
}

absl::StatusOr<Tensor> ReadContent(DType dtype, const TensorShape& shape,
                                   absl::string_view content) {
  int64_t bytes;
  if (__builtin_mul_overflow(shape.num_elements(), static_cast<int64_t>(ElementSize(dtype)),
                             &bytes) ||
      static_cast<uint64_t>(bytes) != content.size()) {
    return InvalidArgument("a ", DTypeName(dtype), " tensor of shape ", shape.DebugString(),
                           " has ", shape.num_elements(), " elements of ", ElementSize(dtype),
                           " bytes, but its tensor_content has ", content.size(), " bytes");
  }
  FERRY_ASSIGN_OR_RETURN(Tensor t, Tensor::Allocate(dtype, shape));
  if (dtype == DType::kBool) {  // A C++ bool must be 0 or 1.
    for (size_t i = 0; i < content.size(); ++i) t.data<bool>()[i] = content[i] != 0;
  } else {
    std::memcpy(t.raw(), content.data(), content.size());
  }
  return t;
}

}  // namespace

void ToProto(const Tensor& t, proto::TensorProto* out) {
  out->Clear();
  out->set_dtype(static_cast<proto::DataType>(t.dtype()));
  ToProto(PartialShape(t.shape()), out->mutable_tensor_shape());
  const int64_t n = t.num_elements();
  // A typed field holds fewer than 2^31 values; readers take content for all numbers.
  const bool too_many = n > std::numeric_limits<int>::max() / 2 && t.dtype() != DType::kString;
  if (n > 1 && (HasContentForm(t.dtype()) || too_many)) {
    out->set_tensor_content(t.raw(), t.bytes());
    return;
  }
  switch (t.dtype()) {
    case DType::kFloat:
      return Write<float>(t, out->mutable_float_val());
    case DType::kDouble:
      return Write<double>(t, out->mutable_double_val());
    case DType::kInt32:
    case DType::kQint32:
      return Write<int32_t>(t, out->mutable_int_val());
    case DType::kUint8:
    case DType::kQuint8:
      return Write<uint8_t>(t, out->mutable_int_val());
    case DType::kInt16:
    case DType::kQint16:
      return Write<int16_t>(t, out->mutable_int_val());
    case DType::kInt8:
    case DType::kQint8:
      return Write<int8_t>(t, out->mutable_int_val());
    case DType::kUint16:
    case DType::kQuint16:
      return Write<uint16_t>(t, out->mutable_int_val());
    case DType::kInt4:
    case DType::kUint4:
    case DType::kInt2:
    case DType::kUint2: {
      const auto* p = static_cast<const uint8_t*>(t.raw());
      for (int64_t i = 0; i < n; ++i) out->add_int_val(NarrowInt(t.dtype(), p[i]));
      return;
    }
    case DType::kInt64:
      return Write<int64_t>(t, out->mutable_int64_val());
    case DType::kUint32:
      return Write<uint32_t>(t, out->mutable_uint32_val());
    case DType::kUint64:
      return Write<uint64_t>(t, out->mutable_uint64_val());
    case DType::kBool:
      return Write<bool>(t, out->mutable_bool_val());
    case DType::kHalf:
    case DType::kBfloat16:
      return Write<uint16_t>(t, out->mutable_half_val());
    case DType::kComplex64:
      return Write<float>(t, out->mutable_scomplex_val(), 2);
    case DType::kComplex128:
      return Write<double>(t, out->mutable_dcomplex_val(), 2);
    case DType::kFloat8E5m2:
    case DType::kFloat8E4m3fn:
    case DType::kFloat8E4m3fnuz:
    case DType::kFloat8E4m3b11fnuz:
    case DType::kFloat8E5m2fnuz:
      if (n > 0) out->set_float8_val(t.raw(), t.bytes());
      return;
    case DType::kString:
      for (const std::string& s : t.span<std::string>()) out->add_string_val(s);
      return;
    case DType::kInvalid:
    case DType::kResource:
    case DType::kVariant:
      return;  // No tensor has these.
  }
}

absl::StatusOr<Tensor> FromProto(const proto::TensorProto& p) {
  FERRY_ASSIGN_OR_RETURN(DType dtype, ToDType(p.dtype()));
  if (IsRef(dtype) || (ElementSize(dtype) == 0 && dtype != DType::kString)) {
    return InvalidArgument("a tensor of dtype ", DTypeName(dtype), " has no elements to read");
  }
  FERRY_ASSIGN_OR_RETURN(PartialShape partial, FromProto(p.tensor_shape()));
  FERRY_ASSIGN_OR_RETURN(TensorShape shape, partial.ToTensorShape());
  if (!p.tensor_content().empty()) {
    return dtype == DType::kString ? ReadStringContent(shape, p.tensor_content())
                                   : ReadContent(dtype, shape, p.tensor_content());
  }
  switch (dtype) {
    case DType::kFloat:
      return ReadValues<float>(dtype, shape, p.float_val());
    case DType::kDouble:
      return ReadValues<double>(dtype, shape, p.double_val());
    case DType::kInt32:
    case DType::kQint32:
      return ReadValues<int32_t>(dtype, shape, p.int_val());
    case DType::kUint8:
    case DType::kQuint8:
    case DType::kInt8:
    case DType::kQint8:
      return ReadValues<uint8_t>(dtype, shape, p.int_val());
    case DType::kInt16:
    case DType::kQint16:
    case DType::kUint16:
    case DType::kQuint16:
      return ReadValues<uint16_t>(dtype, shape, p.int_val());
    case DType::kInt4:
    case DType::kUint4:
    case DType::kInt2:
    case DType::kUint2: {
      FERRY_ASSIGN_OR_RETURN(Tensor t, ReadValues<uint8_t>(dtype, shape, p.int_val()));
      auto* bytes = static_cast<uint8_t*>(t.raw());
      // As they lie in TensorFlow's memory: with the sign extended.
      for (int64_t i = 0; i < t.num_elements(); ++i) {
        bytes[i] = static_cast<uint8_t>(NarrowInt(dtype, bytes[i]));
      }
      return t;
    }
    case DType::kInt64:
      return ReadValues<int64_t>(dtype, shape, p.int64_val());
    case DType::kUint32:
      return ReadValues<uint32_t>(dtype, shape, p.uint32_val());
    case DType::kUint64:
      return ReadValues<uint64_t>(dtype, shape, p.uint64_val());
    case DType::kBool:
      return ReadValues<bool>(dtype, shape, p.bool_val());
    case DType::kHalf:
    case DType::kBfloat16:
      return ReadValues<uint16_t>(dtype, shape, p.half_val());
    case DType::kComplex64:
      return ReadValues<float>(dtype, shape, p.scomplex_val(), 2);
    case DType::kComplex128:
      return ReadValues<double>(dtype, shape, p.dcomplex_val(), 2);
    case DType::kFloat8E5m2:
    case DType::kFloat8E4m3fn:
    case DType::kFloat8E4m3fnuz:
    case DType::kFloat8E4m3b11fnuz:
    case DType::kFloat8E5m2fnuz:
      return ReadValues<uint8_t>(dtype, shape, p.float8_val());
    case DType::kString:
      return ReadStrings(shape, p);
    case DType::kInvalid:
    case DType::kResource:
    case DType::kVariant:
      break;
  }
  return InvalidArgument("a tensor of dtype ", DTypeName(dtype), " has no elements to read");
}

}  // namespace ferry
