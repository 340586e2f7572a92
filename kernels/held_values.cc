#include "kernels/held_values.h"

#include <algorithm>
#include <cstring>
#include <iterator>
#include <utility>

#include "absl/algorithm/container.h"
#include "kernels/accumulate.h"
#include "kernels/types.h"

namespace ferry {

void Release(std::vector<HeldValue> values, std::vector<ObjectRef> objects) {
  struct Pending {
    std::vector<HeldValue> values;
    std::vector<ObjectRef> objects;
  };
  // What the call that is furthest out has still to release.
  thread_local Pending* pending = nullptr;
  if (pending) {
    absl::c_move(values, std::back_inserter(pending->values));
    absl::c_move(objects, std::back_inserter(pending->objects));
    return;
  }
  Pending all{std::move(values), std::move(objects)};
  pending = &all;
  while (!all.values.empty() || !all.objects.empty()) {
    if (!all.values.empty()) {
      const HeldValue value = std::move(all.values.back());
      all.values.pop_back();
    } else {
      const ObjectRef object = std::move(all.objects.back());
      all.objects.pop_back();
    }
  }
  pending = nullptr;
}

absl::StatusOr<HeldValue> HoldInput(KernelContext* c, int i, DType declared) {
  HeldValue held;
  if (c->variable(i) && declared == DType::kResource) {
    held.variable = c->variable(i);
    return held;
  }
  held.tensor = c->input(i);
  // Pinned memory, in which a copy from a GPU arrives, isn't to be held for long.
  const bool pinned = ElementSize(held.tensor.dtype()) > 0 &&
                      held.tensor.buffer()->owner() != HostAllocator::Get();
  if (c->variable(i) || pinned) {
    FERRY_ASSIGN_OR_RETURN(held.tensor, held.tensor.DeepCopy());
  }
  return held;
}

void GiveOutput(KernelContext* c, int i, const HeldValue& value) {
  if (value.variable) {
    c->SetOutputVariable(i, value.variable);
  } else {
    c->SetOutput(i, value.tensor);
  }
}

absl::StatusOr<Tensor> ZeroTensor(DType dtype, const TensorShape& shape) {
  FERRY_ASSIGN_OR_RETURN(Tensor t, Tensor::Allocate(dtype, shape));
  if (dtype != DType::kString && t.bytes() > 0) std::memset(t.raw(), 0, t.bytes());
  return t;
}

namespace {

template <typename T>
bool Add(const Tensor& a, const Tensor& b, Tensor* sum) {
  if (a.dtype() != DTypeOf<T>::value) return false;
  const T* x = a.data<T>();
  const T* y = b.data<T>();
  T* to = sum->data<T>();
  for (int64_t i = 0; i < a.num_elements(); ++i) to[i] = accumulate::Add::Apply(x[i], y[i]);
  return true;
}

template <typename... Ts>
bool AddAny(Types<Ts...>, const Tensor& a, const Tensor& b, Tensor* sum) {
  return (Add<Ts>(a, b, sum) || ...);
}

}  // namespace

absl::StatusOr<Tensor> AddTensors(const Tensor& a, const Tensor& b) {
  FERRY_ASSIGN_OR_RETURN(Tensor sum, Tensor::Allocate(a.dtype(), a.shape()));
  if (!AddAny(NumberTypes(), a, b, &sum)) {
    return Unimplemented("no sums of ", DTypeName(a.dtype()), " values");
  }
  return sum;
}

void CopyRange(const Tensor& from, int64_t from_at, int64_t n, Tensor* to, int64_t to_at) {
  if (from.dtype() == DType::kString) {
    std::copy_n(from.data<std::string>() + from_at, n, to->data<std::string>() + to_at);
    return;
  }
  const size_t size = ElementSize(from.dtype());
  if (n == 0) return;
  std::memcpy(static_cast<char*>(to->raw()) + static_cast<size_t>(to_at) * size,
              static_cast<const char*>(from.raw()) + static_cast<size_t>(from_at) * size,
              static_cast<size_t>(n) * size);
}

absl::StatusOr<TensorShape> WithRows(int64_t n, const TensorShape& shape) {
  std::vector<int64_t> dims = {n};
  dims.insert(dims.end(), shape.dims().begin(), shape.dims().end());
  return TensorShape::Make(dims);
}

TensorShape WithoutRows(const TensorShape& shape) { return TensorShape(shape.dims().subspan(1)); }

}  // namespace ferry
