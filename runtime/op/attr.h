// Reading and writing the attributes of nodes: AttrValue messages on one side, C++ types on the
// other.
//
//   FERRY_ASSIGN_OR_RETURN(bool t, GetAttr<bool>(attrs, "transpose_a"));
//   (*attrs)["T"] = MakeAttr(DType::kFloat);
//
// T may be: bool, int64_t, float, std::string, DType, PartialShape, TensorShape (must be fully
// known), Tensor, and std::vector of bool, int64_t, float, std::string, DType, PartialShape;
// int32_t reads an int that fits.
#ifndef FERRY_RUNTIME_OP_ATTR_H_
#define FERRY_RUNTIME_OP_ATTR_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "google/protobuf/map.h"
#include "proto/attr_value.pb.h"
#include "runtime/op/partial_shape.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

using AttrMap = google::protobuf::Map<std::string, proto::AttrValue>;

proto::AttrValue MakeAttr(bool v);
proto::AttrValue MakeAttr(int64_t v);
inline proto::AttrValue MakeAttr(int v) { return MakeAttr(static_cast<int64_t>(v)); }
proto::AttrValue MakeAttr(float v);
proto::AttrValue MakeAttr(const std::string& v);
inline proto::AttrValue MakeAttr(const char* v) { return MakeAttr(std::string(v)); }
proto::AttrValue MakeAttr(DType v);
proto::AttrValue MakeAttr(const PartialShape& v);
proto::AttrValue MakeAttr(const TensorShape& v);
proto::AttrValue MakeAttr(const Tensor& v);  // Compact encodings as TensorFlow's.
proto::AttrValue MakeAttr(const std::vector<bool>& v);
proto::AttrValue MakeAttr(const std::vector<int64_t>& v);
proto::AttrValue MakeAttr(const std::vector<float>& v);
proto::AttrValue MakeAttr(const std::vector<std::string>& v);
proto::AttrValue MakeAttr(const std::vector<DType>& v);
proto::AttrValue MakeAttr(const std::vector<PartialShape>& v);

// InvalidArgument when the attribute holds another kind of value; NotFound when there is none of
// that name.
template <typename T>
absl::StatusOr<T> GetAttr(const AttrMap& attrs, const std::string& name);

// "int", "type", "list(string)" …, as op definitions spell it; "list()" for a list without
// elements, "nothing" for a message without a value.
std::string AttrKind(const proto::AttrValue& value);
// Whether an attribute defined with `kind` may have the value: a list without elements is of every
// list kind.
bool IsOfKind(const proto::AttrValue& value, absl::string_view kind);

// Shapes and tensors in messages.
void ToProto(const PartialShape& shape, proto::TensorShapeProto* out);
absl::StatusOr<PartialShape> FromProto(const proto::TensorShapeProto& shape);
// Writes as TensorFlow's make_tensor_proto does: tensor_content for more than one element of the
// integers of a byte or more and the floats, else the typed field (single elements, bool, complex,
// string, and the integers below a byte).
void ToProto(const Tensor& tensor, proto::TensorProto* out);
// Reads every encoding: tensor_content, typed fields, and those shorter than the shape (the last
// value repeats; none at all means zeros). InvalidArgument for more values than elements, a wrong
// content size, a dtype without elements. ResourceExhausted for a shape beyond the allocator's
// limit.
absl::StatusOr<Tensor> FromProto(const proto::TensorProto& tensor);

}  // namespace ferry

#endif  // FERRY_RUNTIME_OP_ATTR_H_
