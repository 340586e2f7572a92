// What stacks, TensorArrays and lists of tensors share: values that they hold beyond the step that
// brought them, and arithmetic on those. All in host memory.
#ifndef FERRY_KERNELS_HELD_VALUES_H_
#define FERRY_KERNELS_HELD_VALUES_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/op/partial_shape.h"
#include "runtime/tensor/object.h"

namespace ferry {

// A value of a Run that outlives its step.
struct HeldValue {
  Tensor tensor;
  Variable* variable = nullptr;  // A variable's handle.
};

// Elements that an array or a list may have: a bound on what one op can ask for, since an element
// takes memory even where it has no value.
inline constexpr int64_t kMaxHeldValues = int64_t{1} << 22;

// Lets go of the values and objects, of which some may hold such themselves, and so on to any
// depth: for the destructors of objects that hold others, so that these don't call each other.
void Release(std::vector<HeldValue> values, std::vector<ObjectRef> objects = {});

// Input i, of the type that the op declares, to be held. Shares its memory, which the executor then
// leaves alone, unless that is a variable's.
absl::StatusOr<HeldValue> HoldInput(KernelContext* c, int i, DType declared);

// Makes it output i.
void GiveOutput(KernelContext* c, int i, const HeldValue& value);

// Zeros, or empty strings.
absl::StatusOr<Tensor> ZeroTensor(DType dtype, const TensorShape& shape);

// a + b in new memory. REQUIRES: of one dtype and shape. Unimplemented for dtypes without sums.
absl::StatusOr<Tensor> AddTensors(const Tensor& a, const Tensor& b);

// Copies n elements between tensors of one dtype: from[from_at …] to to[to_at …].
void CopyRange(const Tensor& from, int64_t from_at, int64_t n, Tensor* to, int64_t to_at);

// The object of handle or variant input i; InvalidArgument "input i is no <what>".
template <typename T>
absl::StatusOr<std::shared_ptr<T>> ObjectInput(KernelContext* c, int i, const char* what) {
  std::shared_ptr<T> object = c->variable(i) ? nullptr : ObjectIn<T>(c->input(i));
  if (!object) return InvalidArgument("input ", i, " is no ", what);
  return object;
}

// `shape` with a dimension of n in front.
absl::StatusOr<TensorShape> WithRows(int64_t n, const TensorShape& shape);
// What is left of `shape` without its first dimension. REQUIRES: rank() > 0.
TensorShape WithoutRows(const TensorShape& shape);

}  // namespace ferry

#endif  // FERRY_KERNELS_HELD_VALUES_H_
