// What the ops that move data share. They work by an element's width, not its dtype: one
// instantiation for 1, 2, 4, 8 and 16 bytes, and one for strings. Most of them are a StridedCopy
// with the right strides. On a GPU the same functions enqueue kernels (gpu_array.h), so that one
// class serves both devices.
#ifndef FERRY_KERNELS_ARRAY_H_
#define FERRY_KERNELS_ARRAY_H_

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/op/shape_inference.h"
#include "runtime/tensor/tensor.h"

namespace ferry {

using Ints = absl::InlinedVector<int64_t, 8>;

// An element of N bytes, whatever they mean.
template <int N>
struct alignas(N) Bytes {
  unsigned char bytes[N];
};

// Calls fn(T*) (a null pointer, for its type) with the T that has the width of `dtype`'s elements:
// Bytes<N> or std::string. Unimplemented for dtypes without elements.
template <typename Fn>
absl::Status ForWidth(DType dtype, Fn fn) {
  if (dtype == DType::kString) {
    fn(static_cast<std::string*>(nullptr));
    return absl::OkStatus();
  }
  switch (ElementSize(dtype)) {
    case 1:
      fn(static_cast<Bytes<1>*>(nullptr));
      return absl::OkStatus();
    case 2:
      fn(static_cast<Bytes<2>*>(nullptr));
      return absl::OkStatus();
    case 4:
      fn(static_cast<Bytes<4>*>(nullptr));
      return absl::OkStatus();
    case 8:
      fn(static_cast<Bytes<8>*>(nullptr));
      return absl::OkStatus();
    case 16:
      fn(static_cast<Bytes<16>*>(nullptr));
      return absl::OkStatus();
    default:
      return Unimplemented(DTypeName(dtype), " tensors have no elements to move");
  }
}

// One dimension of a StridedCopy: its size, and how many elements apart neighbours lie in either
// tensor. `from` may be 0 (repeat) or negative (backwards).
struct CopyDim {
  int64_t size, from, to;
};

// For each index within `dims`: to[to_offset + sum(index * dim.to)] = the same of `from`. Elements
// of `to` are written once each; the tensors don't overlap and have the same dtype. Splits large
// copies over the run's threads.
absl::Status StridedCopy(KernelContext* c, const Tensor& from, int64_t from_offset, Tensor* to,
                         int64_t to_offset, absl::Span<const CopyDim> dims);

// Part of a copy of rows: from each row of `from` a run of neighbours to a row of `to`. Places and
// the distances between rows are in elements.
struct CopyPart {
  const Tensor* from;
  int64_t from_offset, from_pitch;
  Tensor* to;
  int64_t to_offset, to_pitch;
  int64_t run;
};
// All parts, which have `rows` rows and the same dtype.
absl::Status CopyParts(KernelContext* c, int64_t rows, absl::Span<const CopyPart> parts);

// Sets all elements to that of the one-element tensor `value` / to zero (or empty strings).
absl::Status FillWith(KernelContext* c, const Tensor& value, Tensor* to);
absl::Status FillZero(KernelContext* c, Tensor* to);

// Registers K, which does its work through the functions above, on the CPU for all dtypes and on
// GPUs for what their memory may hold under the type attribute `attr`; `host_memory`: what it reads
// or writes itself.
template <typename K>
bool RegisterArrayKernel(const char* op, std::initializer_list<const char*> host_memory = {},
                         const char* attr = "T", bool replayable = true) {
  for (const DeviceType device : {DeviceType::kCpu, DeviceType::kGpu}) {
    KernelBuilder b(op);
    b.Device(device);
    if (device == DeviceType::kGpu) b.Type(attr, kGpuTypes);
    if (!replayable) b.NotReplayable();
    for (const char* arg : host_memory) b.HostMemory(arg);
    b.template Make<K>();
    const KernelBuilder::Registrar registrar(b);
  }
  return true;
}

// How many elements apart neighbours lie along each dimension of a dense tensor.
Ints Strides(absl::Span<const int64_t> dims);
// The product; REQUIRES that it fits.
int64_t Product(absl::Span<const int64_t> dims);

// The i-th input's elements (an integer scalar or vector) when they are known while the graph is
// built.
std::optional<Ints> KnownInts(const InferenceContext* c, int i);
std::optional<int64_t> KnownInt(const InferenceContext* c, int i);

// "indices[1,0]": how messages name element `flat` of a tensor of that shape; "indices" for a
// scalar.
std::string ElementName(absl::string_view tensor, const TensorShape& shape, int64_t flat);

// Element i of a tensor of int16, uint16, int32 or int64.
inline int64_t IntAt(const Tensor& t, int64_t i) {
  switch (t.dtype()) {
    case DType::kInt32:
      return t.data<int32_t>()[i];
    case DType::kInt64:
      return t.data<int64_t>()[i];
    case DType::kUint16:
      return t.data<uint16_t>()[i];
    default:
      return t.data<int16_t>()[i];
  }
}

// Checks that every element is in [0, limit): "indices[1] = 7 is not in [0, 3)".
absl::Status CheckIndices(const Tensor& indices, int64_t limit);

// An axis in [-rank, rank) as one in [0, rank); false if it is out of that range.
inline bool NormalizeAxis(int64_t rank, int64_t* axis) {
  if (*axis < -rank || *axis >= rank) return false;
  if (*axis < 0) *axis += rank;
  return true;
}

}  // namespace ferry

#endif  // FERRY_KERNELS_ARRAY_H_
