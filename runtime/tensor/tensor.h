// Tensor: a dtype, a shape, and a counted reference to a buffer. Copying a Tensor shares the
// buffer; DeepCopy doesn't.
//
//   FERRY_ASSIGN_OR_RETURN(Tensor t, Tensor::Allocate(DType::kFloat, {2, 3}));
//   t.data<float>()[0] = 1;
//   Tensor s = Tensor::Scalar<int32_t>(7);
//   Tensor v = Tensor::Of<float>({1, 2, 3});          // shape [3]
#ifndef FERRY_RUNTIME_TENSOR_TENSOR_H_
#define FERRY_RUNTIME_TENSOR_TENSOR_H_

#include <cassert>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/tensor/buffer.h"
#include "runtime/tensor/dtype.h"
#include "runtime/tensor/shape.h"

namespace ferry {

// Thread-compatible; distinct Tensors that share a buffer may be read from many threads.
class Tensor {
 public:
  Tensor() = default;  // Of no type, without memory.

  // Host memory unless an allocator is given; uninitialised (strings: empty). String tensors lie
  // in host memory always. ResourceExhausted as the allocator says; InvalidArgument for a dtype
  // without elements of its own (resource, variant).
  static absl::StatusOr<Tensor> Allocate(DType dtype, const TensorShape& shape,
                                         Allocator* allocator = HostAllocator::Get());

  // A tensor over memory that `buffer` keeps. REQUIRES: the capacity suffices.
  static Tensor Over(DType dtype, const TensorShape& shape, BufferRef buffer) {
    return Tensor(dtype, shape, std::move(buffer));
  }

  // For a program's own small values: these end the program when memory is out.
  template <typename T>
  static Tensor Scalar(T value) {
    return Of<T>({std::move(value)}, TensorShape());
  }
  template <typename T>
  static Tensor Of(const std::vector<T>& values) {
    return Of<T>(values, TensorShape({static_cast<int64_t>(values.size())}));
  }
  // REQUIRES: shape.num_elements() == values.size().
  template <typename T>
  static Tensor Of(const std::vector<T>& values, const TensorShape& shape) {
    assert(shape.num_elements() == static_cast<int64_t>(values.size()));
    Tensor t = *Allocate(DTypeOf<T>::value, shape);
    T* p = t.data<T>();
    for (size_t i = 0; i < values.size(); ++i) p[i] = values[i];
    return t;
  }

  DType dtype() const { return dtype_; }
  const TensorShape& shape() const { return shape_; }
  int rank() const { return shape_.rank(); }
  int64_t dim(int i) const { return shape_.dim(i); }
  int64_t num_elements() const { return shape_.num_elements(); }
  // num_elements() * ElementSize(); for strings sizeof(std::string) an element.
  size_t bytes() const;
  // Whether there is memory behind it.
  bool initialized() const { return static_cast<bool>(buffer_); }

  // REQUIRES: dtype() is T's (checked in debug builds), initialized().
  template <typename T>
  T* data() {
    assert(dtype_ == DTypeOf<T>::value);
    return static_cast<T*>(data_);
  }
  template <typename T>
  const T* data() const {
    assert(dtype_ == DTypeOf<T>::value);
    return static_cast<const T*>(data_);
  }
  template <typename T>
  absl::Span<const T> span() const {
    return absl::MakeConstSpan(data<T>(), static_cast<size_t>(num_elements()));
  }
  template <typename T>
  absl::Span<T> span() {
    return absl::MakeSpan(data<T>(), static_cast<size_t>(num_elements()));
  }
  // REQUIRES: rank 0 or one element.
  template <typename T>
  const T& scalar() const {
    return data<T>()[0];
  }
  void* raw() { return data_; }
  const void* raw() const { return data_; }

  const BufferRef& buffer() const { return buffer_; }
  bool SharesBufferWith(const Tensor& o) const {
    return buffer_ && buffer_.get() == o.buffer_.get();
  }

  // The same memory seen under another shape. REQUIRES: the same number of elements.
  Tensor WithShape(const TensorShape& shape) const { return Tensor(dtype_, shape, buffer_); }
  // The same memory seen as another dtype of the same element size.
  Tensor WithDType(DType dtype) const { return Tensor(dtype, shape_, buffer_); }
  // REQUIRES: as WithShape; keeps the buffer without touching its count.
  void set_shape(const TensorShape& shape) {
    if (shape_ != shape) shape_ = shape;
  }

  // A tensor with memory of its own and equal contents (host tensors only).
  absl::StatusOr<Tensor> DeepCopy() const;

  // At most `most` elements: "float32 [2,3] 1 2 3 …". Host tensors only.
  std::string DebugString(int most = 8) const;

 private:
  Tensor(DType dtype, const TensorShape& shape, BufferRef buffer)
      : dtype_(dtype),
        shape_(shape),
        buffer_(std::move(buffer)),
        data_(buffer_ ? buffer_->data() : nullptr) {}

  DType dtype_ = DType::kInvalid;
  TensorShape shape_;
  BufferRef buffer_;
  void* data_ = nullptr;
};

// Copies the elements of `from` over those of `to` (host tensors). REQUIRES: the same dtype and
// number of elements.
void CopyElements(const Tensor& from, Tensor* to);

// Float value <-> storage of the 16-bit floats, rounding to nearest even.
float HalfToFloat(Half h);
Half FloatToHalf(float f);
float Bfloat16ToFloat(Bfloat16 b);
Bfloat16 FloatToBfloat16(float f);

}  // namespace ferry

#endif  // FERRY_RUNTIME_TENSOR_TENSOR_H_
