// PartialShape: what is known of a tensor's shape while a graph is built: nothing, the rank, or
// some sizes. It lives with the graph; running tensors have a TensorShape.
#ifndef FERRY_RUNTIME_OP_PARTIAL_SHAPE_H_
#define FERRY_RUNTIME_OP_PARTIAL_SHAPE_H_

#include <cstdint>
#include <initializer_list>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "runtime/tensor/shape.h"

namespace ferry {

class PartialShape {
 public:
  static constexpr int64_t kUnknown = -1;

  PartialShape() = default;  // Of unknown rank.
  // Sizes, kUnknown among them. A negative size other than kUnknown is taken as unknown.
  PartialShape(std::initializer_list<int64_t> dims)
      : PartialShape(absl::MakeConstSpan(dims.begin(), dims.size())) {}
  explicit PartialShape(absl::Span<const int64_t> dims);
  PartialShape(const TensorShape& shape);  // NOLINT: every TensorShape is a PartialShape.
  static PartialShape Scalar() { return PartialShape(absl::Span<const int64_t>()); }
  static PartialShape UnknownOfRank(int rank);

  bool known_rank() const { return known_rank_; }
  int rank() const { return known_rank_ ? static_cast<int>(dims_.size()) : -1; }
  // kUnknown when the size, or the rank, is unknown. Negative `i` counts from the end.
  int64_t dim(int i) const;
  absl::Span<const int64_t> dims() const { return dims_; }  // REQUIRES: known_rank().
  void set_dim(int i, int64_t size) { dims_[i] = size < 0 ? kUnknown : size; }
  void AddDim(int64_t size) { dims_.push_back(size < 0 ? kUnknown : size); }
  bool fully_defined() const;
  // kUnknown unless fully defined.
  int64_t num_elements() const;
  // REQUIRES: fully_defined(). Errors as TensorShape::Make.
  absl::StatusOr<TensorShape> ToTensorShape() const;

  // Whether some tensor shape fits both.
  bool CompatibleWith(const PartialShape& o) const;
  // What both together say; InvalidArgument when they contradict each other.
  static absl::StatusOr<PartialShape> Merge(const PartialShape& a, const PartialShape& b);

  std::string DebugString() const;  // "[?,3]", "<unknown>".

  friend bool operator==(const PartialShape& a, const PartialShape& b) {
    return a.known_rank_ == b.known_rank_ && a.dims_ == b.dims_;
  }
  friend bool operator!=(const PartialShape& a, const PartialShape& b) { return !(a == b); }

 private:
  bool known_rank_ = false;
  absl::InlinedVector<int64_t, 4> dims_;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_OP_PARTIAL_SHAPE_H_
