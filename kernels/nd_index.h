// Indices into several dimensions at once: GatherNd, ScatterNd and what scatters into a tensor or a
// variable.
#ifndef FERRY_KERNELS_ND_INDEX_H_
#define FERRY_KERNELS_ND_INDEX_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/str_join.h"
#include "kernels/array.h"
#include "runtime/base/status.h"

namespace ferry {

// Where in a tensor of shape `shape` the i-th row of `indices` (whose last dimension is one index
// each) points, as the number of the slice; an error if outside, or -1 if such are to be ignored
// (the attribute bad_indices_policy is IGNORE).
class NdIndex {
 public:
  NdIndex(const Tensor& indices, const TensorShape& shape, bool ignore_bad)
      : indices_(indices),
        shape_(shape),
        depth_(indices.dim(indices.rank() - 1)),
        ignore_bad_(ignore_bad) {}
  absl::StatusOr<int64_t> At(int64_t i) const {
    int64_t at = 0;
    for (int64_t d = 0; d < depth_; ++d) {
      const int64_t dim = shape_.dim(static_cast<int>(d)), k = IntAt(indices_, i * depth_ + d);
      if (k < 0 || k >= dim) {
        if (ignore_bad_) return -1;
        Ints all;
        for (int64_t e = 0; e < depth_; ++e) all.push_back(IntAt(indices_, i * depth_ + e));
        TensorShape rows(
            indices_.shape().dims().subspan(0, static_cast<size_t>(indices_.rank() - 1)));
        return InvalidArgument(ElementName("indices", rows, i), " = [", absl::StrJoin(all, ", "),
                               "] does not index into shape ", shape_.DebugString());
      }
      at = at * dim + k;
    }
    return at;
  }

 private:
  const Tensor& indices_;
  const TensorShape& shape_;
  int64_t depth_;
  bool ignore_bad_;
};

// Reads the attribute bad_indices_policy.
inline absl::StatusOr<bool> IgnoresBadIndices(const KernelConstruction& c) {
  FERRY_ASSIGN_OR_RETURN(const std::string policy, c.Attr<std::string>("bad_indices_policy"));
  if (policy == "IGNORE") return true;
  if (policy.empty() || policy == "DEFAULT" || policy == "ERROR") return false;
  return InvalidArgument("bad_indices_policy is '', DEFAULT, ERROR or IGNORE, not '", policy, "'");
}

// Of updates for the slices of a tensor of `shape` that `indices` name: indices.shape[:-1] +
// shape[depth:]. How many slices there are, and of how many elements each.
struct NdUpdates {
  int64_t n = 0, inner = 0;
};
inline absl::StatusOr<NdUpdates> CheckNdUpdates(const Tensor& indices, const Tensor& updates,
                                                const TensorShape& shape) {
  // What a vector would mean, one index or one a row, differs between TensorFlow's own checks.
  if (indices.rank() < 2) {
    return InvalidArgument("indices must be at least a matrix, with an index a row; found shape ",
                           indices.shape().DebugString());
  }
  if (updates.rank() < 1) {
    return InvalidArgument("updates must have rank at least one, found a scalar");
  }
  const bool none = indices.num_elements() == 0, nothing = updates.num_elements() == 0;
  if ((none || nothing || shape.num_elements() == 0) && !(none && nothing)) {
    return InvalidArgument("Indices and updates specified for empty output.  indices shape: ",
                           indices.shape().DebugString(),
                           ", updates shape: ", updates.shape().DebugString(),
                           ", output: ", shape.DebugString());
  }
  const int64_t depth = indices.dim(indices.rank() - 1);
  if (depth > shape.rank()) {
    return InvalidArgument("index innermost dimension length must be <= rank of shape; saw: ",
                           depth, " vs. ", shape.rank());
  }
  const auto prefix = indices.shape().dims().subspan(0, static_cast<size_t>(indices.rank() - 1));
  const auto slice = shape.dims().subspan(static_cast<size_t>(depth));
  Ints dims(prefix.begin(), prefix.end());
  dims.insert(dims.end(), slice.begin(), slice.end());
  if (updates.shape().dims() != absl::MakeConstSpan(dims)) {
    return InvalidArgument("Must have updates.shape = indices.shape[:-1] + shape[depth:], [",
                           absl::StrJoin(dims, ","), "], got ", updates.shape().DebugString());
  }
  return NdUpdates{Product(prefix), Product(slice)};
}

}  // namespace ferry

#endif  // FERRY_KERNELS_ND_INDEX_H_
