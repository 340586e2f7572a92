// TensorSlice: a rectangular part of a tensor, as checkpoints store variables that were saved in
// parts, and as SaveV2 and RestoreV2 are told of them.
#ifndef FERRY_SAVER_TENSOR_SLICE_H_
#define FERRY_SAVER_TENSOR_SLICE_H_

#include <cstdint>
#include <string>

#include "absl/container/inlined_vector.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "proto/tensor_slice.pb.h"
#include "runtime/tensor/shape.h"

namespace ferry {

// For each dimension where the part begins and how long it is; length kFull means all of it, with
// start 0. The empty list stands for a scalar.
struct TensorSlice {
  static constexpr int64_t kFull = -1;
  struct Extent {
    int64_t start = 0;
    int64_t length = kFull;
    friend bool operator==(const Extent& a, const Extent& b) {
      return a.start == b.start && a.length == b.length;
    }
  };
  absl::InlinedVector<Extent, 4> extents;

  int rank() const { return static_cast<int>(extents.size()); }
  bool is_full() const {  // Every dimension written as full.
    for (const Extent& e : extents) {
      if (e.length != kFull) return false;
    }
    return true;
  }

  // "0,3:-": start,length or - for each dimension; "" for a scalar.
  std::string DebugString() const;

  friend bool operator==(const TensorSlice& a, const TensorSlice& b) {
    return a.extents == b.extents;
  }
};

// The part's own shape. InvalidArgument when the slice doesn't lie in a tensor of shape `full`.
absl::StatusOr<TensorShape> SliceShape(const TensorSlice& slice, const TensorShape& full);

void ToProto(const TensorSlice& slice, proto::TensorSliceProto* out);
// InvalidArgument for a negative start or length.
absl::StatusOr<TensorSlice> FromProto(const proto::TensorSliceProto& slice);

// What shape_and_slice of SaveV2 and RestoreV2 says: "" is a whole tensor; "5 3 0,3:-" a part of a
// tensor of shape [5,3].
struct ShapeAndSlice {
  bool whole = true;  // Then the rest is unused.
  TensorShape full_shape;
  TensorSlice slice;
  TensorShape shape;  // The part's.
};
absl::StatusOr<ShapeAndSlice> ParseShapeAndSlice(absl::string_view text);

// The key under which the bytes of a part lie in a checkpoint's index. It sorts before all names
// that don't begin with a NUL. Format: TensorFlow's OrderedCode of 0, the name, the rank and each
// start and length.
std::string SliceKey(absl::string_view name, const TensorSlice& slice);

}  // namespace ferry

#endif  // FERRY_SAVER_TENSOR_SLICE_H_
