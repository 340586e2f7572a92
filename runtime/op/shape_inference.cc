// Shape functions and their context: see shape_inference.h.
#include "runtime/op/shape_inference.h"

#include <algorithm>
#include <utility>

#include "runtime/base/status.h"

namespace ferry {

InferenceContext::InferenceContext(const AttrMap* attrs, std::vector<PartialShape> inputs,
                                   std::vector<Tensor> values,
                                   std::vector<PartialShape> partial_values, int num_outputs)
    : attrs_(attrs),
      inputs_(std::move(inputs)),
      outputs_(static_cast<size_t>(num_outputs)),
      output_values_(static_cast<size_t>(num_outputs)),
      values_(std::move(values)),
      partial_values_(std::move(partial_values)) {
  values_.resize(inputs_.size());
  partial_values_.resize(inputs_.size());
  input_handles_.resize(inputs_.size());
}

absl::StatusOr<PartialShape> InferenceContext::ValueAsShape(int i) const {
  FERRY_ASSIGN_OR_RETURN(PartialShape vector, WithRank(inputs_[i], 1));
  const Tensor* v = value(i);
  if (!v) {
    if (partial_values_[i].known_rank()) return partial_values_[i];
    const int64_t rank = vector.dim(0);
    if (rank == PartialShape::kUnknown) return PartialShape();
    if (rank > kMaxRank) {
      return InvalidArgument("a shape of ", rank, " dimensions; at most ", kMaxRank,
                             " are supported");
    }
    return PartialShape::UnknownOfRank(static_cast<int>(rank));
  }
  if (v->rank() != 1) {
    return InvalidArgument("Shape must be rank 1 but is rank ", v->rank());
  }
  if (v->dtype() != DType::kInt32 && v->dtype() != DType::kInt64) {
    return InvalidArgument("a shape is int32 or int64, found ", DTypeName(v->dtype()));
  }
  const int64_t rank = v->num_elements();
  if (rank > kMaxRank) {
    return InvalidArgument("a shape of ", rank, " dimensions; at most ", kMaxRank,
                           " are supported");
  }
  PartialShape shape = PartialShape::Scalar();
  int64_t product = 1;
  for (int64_t k = 0; k < rank; ++k) {
    const int64_t d = v->dtype() == DType::kInt32 ? v->data<int32_t>()[k] : v->data<int64_t>()[k];
    if (d < PartialShape::kUnknown) {
      return InvalidArgument("Invalid value in tensor used for shape: ", d);
    }
    if (d > 0 && __builtin_mul_overflow(product, d, &product)) {
      return InvalidArgument("the tensor used for a shape asks for more elements than fit 63 bits");
    }
    shape.AddDim(d);
  }
  return shape;
}

int64_t InferenceContext::ValueAsInt(int i) const {
  const Tensor* v = value(i);
  if (!v && inputs_[i].rank() == 0 && partial_values_[i].rank() == 1) {
    return partial_values_[i].dim(0);
  }
  if (!v || v->num_elements() != 1) return PartialShape::kUnknown;
  switch (v->dtype()) {
    case DType::kInt32:
      return v->scalar<int32_t>();
    case DType::kInt64:
      return v->scalar<int64_t>();
    case DType::kInt16:
      return v->scalar<int16_t>();
    case DType::kUint8:
      return v->scalar<uint8_t>();
    case DType::kInt8:
      return v->scalar<int8_t>();
    default:
      return PartialShape::kUnknown;
  }
}

absl::StatusOr<PartialShape> InferenceContext::WithRank(const PartialShape& shape, int rank) const {
  if (!shape.known_rank()) return PartialShape::UnknownOfRank(rank);
  if (shape.rank() == rank) return shape;
  return InvalidArgument("Shape must be rank ", rank, " but is rank ", shape.rank());
}

absl::StatusOr<PartialShape> InferenceContext::WithRankAtLeast(const PartialShape& shape,
                                                               int rank) const {
  if (!shape.known_rank() || shape.rank() >= rank) return shape;
  return InvalidArgument("Shape must be at least rank ", rank, " but is rank ", shape.rank());
}

absl::StatusOr<PartialShape> InferenceContext::WithRankAtMost(const PartialShape& shape,
                                                              int rank) const {
  if (!shape.known_rank() || shape.rank() <= rank) return shape;
  return InvalidArgument("Shape must be at most rank ", rank, " but is rank ", shape.rank());
}

absl::StatusOr<PartialShape> BroadcastShapes(const PartialShape& a, const PartialShape& b) {
  if (!a.known_rank() || !b.known_rank()) return PartialShape();
  const int rank = std::max(a.rank(), b.rank());
  PartialShape out = PartialShape::UnknownOfRank(rank);
  for (int i = 0; i < rank; ++i) {
    // The shorter shape is taken as if it began with ones.
    const int ia = i - (rank - a.rank()), ib = i - (rank - b.rank());
    const int64_t da = ia < 0 ? 1 : a.dim(ia), db = ib < 0 ? 1 : b.dim(ib);
    if (da == db || db == 1) {
      out.set_dim(i, da);
    } else if (da == 1) {
      out.set_dim(i, db);
    } else if (da == PartialShape::kUnknown || db == PartialShape::kUnknown) {
      // The unknown size is 1 or the known one; either way the result has the known one.
      out.set_dim(i, std::max(da, db));
    } else {
      return InvalidArgument("Incompatible shapes: ", a.DebugString(), " vs. ", b.DebugString());
    }
  }
  return out;
}

absl::StatusOr<TensorShape> BroadcastShapes(const TensorShape& a, const TensorShape& b) {
  if (a == b) return a;
  const int rank = std::max(a.rank(), b.rank());
  absl::InlinedVector<int64_t, 8> dims(static_cast<size_t>(rank));
  for (int i = 0; i < rank; ++i) {
    const int ia = i - (rank - a.rank()), ib = i - (rank - b.rank());
    const int64_t da = ia < 0 ? 1 : a.dim(ia), db = ib < 0 ? 1 : b.dim(ib);
    if (da != db && da != 1 && db != 1) {
      return InvalidArgument("Incompatible shapes: ", a.DebugString(), " vs. ", b.DebugString());
    }
    dims[static_cast<size_t>(i)] = da == 1 ? db : da;
  }
  return TensorShape::Make(dims);
}

absl::Status UnchangedShape(InferenceContext* c) {
  c->set_output(0, c->input(0));
  return absl::OkStatus();
}

absl::Status ScalarShape(InferenceContext* c) {
  for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, PartialShape::Scalar());
  return absl::OkStatus();
}

absl::Status BroadcastShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(PartialShape out, BroadcastShapes(c->input(0), c->input(1)));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

absl::Status MergedShape(InferenceContext* c) {
  PartialShape merged;
  for (int i = 0; i < c->num_inputs(); ++i) {
    absl::StatusOr<PartialShape> next = PartialShape::Merge(merged, c->input(i));
    if (!next.ok()) return Annotate(next.status(), absl::StrCat("input ", i));
    merged = *std::move(next);
  }
  c->set_output(0, std::move(merged));
  return absl::OkStatus();
}

absl::Status UnknownShape(InferenceContext* c) {
  for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, PartialShape());
  return absl::OkStatus();
}

absl::Status ExplicitShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->Attr<PartialShape>("shape"));
  c->set_output(0, std::move(shape));
  return absl::OkStatus();
}

absl::Status NoOutputs(InferenceContext* c) {
  (void)c;
  return absl::OkStatus();
}

}  // namespace ferry
