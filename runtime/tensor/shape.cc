// TensorShape: see shape.h.
#include "runtime/tensor/shape.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/status.h"

namespace ferry {

TensorShape::TensorShape(absl::Span<const int64_t> dims) : dims_(dims.begin(), dims.end()) {
  for (int64_t d : dims_) num_elements_ *= d;
}

absl::StatusOr<TensorShape> TensorShape::Make(absl::Span<const int64_t> dims) {
  if (dims.size() > kMaxRank) {
    return InvalidArgument("a shape of ", dims.size(), " dimensions; at most ", kMaxRank,
                           " are supported");
  }
  // A size of 0 makes the product 0, but the other sizes must be sane all the same: the product
  // of those that are not 0 is bounded too, so that strides never overflow.
  int64_t product = 1;
  for (int64_t d : dims) {
    if (d < 0) {
      return InvalidArgument("Dimension ", d, " must be >= 0 in shape [", absl::StrJoin(dims, ","),
                             "]");
    }
    if (d > 0 && __builtin_mul_overflow(product, d, &product)) {
      return InvalidArgument("shape [", absl::StrJoin(dims, ","),
                             "] has more elements than fit 63 bits");
    }
  }
  return TensorShape(dims);
}

void TensorShape::set_dim(int i, int64_t size) {
  dims_[i] = size;
  num_elements_ = 1;
  for (int64_t d : dims_) num_elements_ *= d;
}

void TensorShape::AddDim(int64_t size) {
  dims_.push_back(size);
  num_elements_ *= size;
}

std::string TensorShape::DebugString() const {
  return absl::StrCat("[", absl::StrJoin(dims_, ","), "]");
}

}  // namespace ferry
