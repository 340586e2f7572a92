// Objects: values that are no arrays of elements. A resource tensor is a handle of one: a stack, a
// TensorArray. The elements of variant tensors are such: lists of tensors.
//
//   FERRY_ASSIGN_OR_RETURN(Tensor handle, MakeHandle(std::make_shared<Stack>()));
//   auto stack = ObjectIn<Stack>(handle);   // Null if it is a handle of something else.
//
// Handles of variables are none of these: the executor knows them as Variable* (runtime/op).
#ifndef FERRY_RUNTIME_TENSOR_OBJECT_H_
#define FERRY_RUNTIME_TENSOR_OBJECT_H_

#include <memory>
#include <utility>

#include "absl/status/statusor.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

class Object {
 public:
  virtual ~Object() = default;
};
// An object lives as long as a tensor that holds it.
using ObjectRef = std::shared_ptr<Object>;

// A resource or variant tensor of empty references. ResourceExhausted as host memory's allocator
// says.
absl::StatusOr<Tensor> AllocateObjects(DType dtype, const TensorShape& shape);

// Its elements. REQUIRES: made by AllocateObjects.
inline ObjectRef* ObjectsOf(Tensor* t) { return static_cast<ObjectRef*>(t->raw()); }
inline const ObjectRef* ObjectsOf(const Tensor& t) {
  return static_cast<const ObjectRef*>(t.raw());
}

// A scalar tensor that holds the object.
inline absl::StatusOr<Tensor> MakeObjectTensor(DType dtype, ObjectRef object) {
  absl::StatusOr<Tensor> t = AllocateObjects(dtype, TensorShape());
  if (t.ok()) ObjectsOf(&*t)[0] = std::move(object);
  return t;
}
inline absl::StatusOr<Tensor> MakeHandle(ObjectRef object) {
  return MakeObjectTensor(DType::kResource, std::move(object));
}

// The object of a resource or variant tensor with one element; null if it is no T.
template <typename T>
std::shared_ptr<T> ObjectIn(const Tensor& t) {
  if ((t.dtype() != DType::kResource && t.dtype() != DType::kVariant) || !t.initialized() ||
      t.num_elements() != 1) {
    return nullptr;
  }
  return std::dynamic_pointer_cast<T>(ObjectsOf(t)[0]);
}

}  // namespace ferry

#endif  // FERRY_RUNTIME_TENSOR_OBJECT_H_
