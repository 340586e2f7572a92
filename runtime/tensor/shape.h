// TensorShape: the sizes of a tensor's dimensions, all known. PartialShape (for graphs) is in
// runtime/op/partial_shape.h.
#ifndef FERRY_RUNTIME_TENSOR_SHAPE_H_
#define FERRY_RUNTIME_TENSOR_SHAPE_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"

namespace ferry {

// As in TensorFlow.
inline constexpr int kMaxRank = 254;

// Invariant: every size is >= 0 and their product fits int64_t, so num_elements() never
// overflows. Shapes from outside (files, feeds, tensors used as shapes) come through Make.
class TensorShape {
 public:
  TensorShape() = default;  // A scalar.
  // For sizes that the program itself chose; REQUIRES what Make checks.
  TensorShape(std::initializer_list<int64_t> dims)
      : TensorShape(absl::MakeConstSpan(dims.begin(), dims.size())) {}
  explicit TensorShape(absl::Span<const int64_t> dims);

  // InvalidArgument: a negative size, more than kMaxRank dimensions, or too many elements.
  static absl::StatusOr<TensorShape> Make(absl::Span<const int64_t> dims);

  int rank() const { return static_cast<int>(dims_.size()); }
  int64_t dim(int i) const { return dims_[i]; }
  absl::Span<const int64_t> dims() const { return dims_; }
  int64_t num_elements() const { return num_elements_; }

  // REQUIRES: the product still fits.
  void set_dim(int i, int64_t size);
  void AddDim(int64_t size);

  std::string DebugString() const;  // "[2,3]"; "[]" for a scalar.

  friend bool operator==(const TensorShape& a, const TensorShape& b) {
    return a.num_elements_ == b.num_elements_ && a.dims_ == b.dims_;
  }
  friend bool operator!=(const TensorShape& a, const TensorShape& b) { return !(a == b); }

 private:
  absl::InlinedVector<int64_t, 4> dims_;
  int64_t num_elements_ = 1;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_TENSOR_SHAPE_H_
