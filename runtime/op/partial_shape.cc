// PartialShape: see partial_shape.h.
#include "runtime/op/partial_shape.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "runtime/base/status.h"

namespace ferry {

PartialShape::PartialShape(absl::Span<const int64_t> dims)
    : known_rank_(true), dims_(dims.begin(), dims.end()) {
  for (int64_t& d : dims_) {
    if (d < 0) d = kUnknown;
  }
}

PartialShape::PartialShape(const TensorShape& shape)
    : known_rank_(true), dims_(shape.dims().begin(), shape.dims().end()) {}

PartialShape PartialShape::UnknownOfRank(int rank) {
  PartialShape s;
  s.known_rank_ = true;
  s.dims_.assign(static_cast<size_t>(rank), kUnknown);
  return s;
}

int64_t PartialShape::dim(int i) const {
  if (!known_rank_) return kUnknown;
  if (i < 0) i += rank();
  return i >= 0 && i < rank() ? dims_[static_cast<size_t>(i)] : kUnknown;
}

bool PartialShape::fully_defined() const {
  if (!known_rank_) return false;
  for (int64_t d : dims_) {
    if (d == kUnknown) return false;
  }
  return true;
}

int64_t PartialShape::num_elements() const {
  if (!fully_defined()) return kUnknown;
  int64_t product = 1;
  bool overflow = false;
  for (int64_t d : dims_) {
    if (d == 0) return 0;
    overflow = overflow || __builtin_mul_overflow(product, d, &product);
  }
  return overflow ? kUnknown : product;
}

absl::StatusOr<TensorShape> PartialShape::ToTensorShape() const {
  if (!fully_defined()) {
    return InvalidArgument("shape ", DebugString(), " is not fully defined");
  }
  return TensorShape::Make(dims_);
}

bool PartialShape::CompatibleWith(const PartialShape& o) const {
  if (!known_rank_ || !o.known_rank_) return true;
  if (dims_.size() != o.dims_.size()) return false;
  for (size_t i = 0; i < dims_.size(); ++i) {
    if (dims_[i] != kUnknown && o.dims_[i] != kUnknown && dims_[i] != o.dims_[i]) return false;
  }
  return true;
}

absl::StatusOr<PartialShape> PartialShape::Merge(const PartialShape& a, const PartialShape& b) {
  if (!a.known_rank_) return b;
  if (!b.known_rank_) return a;
  if (a.dims_.size() != b.dims_.size()) {
    return InvalidArgument("Shapes must be equal rank, but are ", a.rank(), " and ", b.rank(),
                           ". Shapes are ", a.DebugString(), " and ", b.DebugString(), ".");
  }
  PartialShape merged = a;
  for (size_t i = 0; i < a.dims_.size(); ++i) {
    if (a.dims_[i] == kUnknown) {
      merged.dims_[i] = b.dims_[i];
    } else if (b.dims_[i] != kUnknown && b.dims_[i] != a.dims_[i]) {
      return InvalidArgument("Dimension ", i, " in both shapes must be equal, but are ", a.dims_[i],
                             " and ", b.dims_[i], ". Shapes are ", a.DebugString(), " and ",
                             b.DebugString(), ".");
    }
  }
  return merged;
}

std::string PartialShape::DebugString() const {
  if (!known_rank_) return "<unknown>";
  return absl::StrCat("[",
                      absl::StrJoin(dims_, ",",
                                    [](std::string* out, int64_t d) {
                                      if (d == kUnknown) {
                                        out->push_back('?');
                                      } else {
                                        absl::StrAppend(out, d);
                                      }
                                    }),
                      "]");
}

}  // namespace ferry
