// FusedKernel: see fusion.h.
#include "runtime/session/fusion.h"

#include <algorithm>
#include <utility>

#include "absl/container/inlined_vector.h"
#include "runtime/base/status.h"
#include "runtime/op/shape_inference.h"

namespace ferry {
namespace {

// Bytes of each result between ops: all of them stay in a first cache of 32 KiB.
constexpr size_t kBlockBytes = 2048;

// One op over whole tensors that broadcast to the shape of `z`.
void ComputeOne(const ElementLoop& loop, const Tensor& x, const Tensor* y, Tensor* z) {
  const size_t size = ElementSize(loop.type);
  char* to = static_cast<char*>(z->raw());
  if (loop.unary != nullptr) {
    loop.unary(x.raw(), to, z->num_elements());
    return;
  }
  // Elements from one index to the next along each dimension; 0 where it is broadcast.
  const int rank = z->rank();
  const auto strides = [rank](const Tensor& t) {
    absl::InlinedVector<int64_t, 8> all(static_cast<size_t>(rank), 0);
    int64_t stride = 1;
    for (int d = t.rank() - 1; d >= 0; --d) {
      if (t.dim(d) != 1) all[static_cast<size_t>(d + rank - t.rank())] = stride;
      stride *= t.dim(d);
    }
    return all;
  };
  const auto xs = strides(x), ys = strides(*y);
  const int64_t row = rank == 0 ? 1 : z->dim(rank - 1);
  const int x_step = rank == 0 ? 0 : static_cast<int>(xs.back());
  const int y_step = rank == 0 ? 0 : static_cast<int>(ys.back());
  absl::InlinedVector<int64_t, 8> index(static_cast<size_t>(rank), 0);
  int64_t at_x = 0, at_y = 0;
  for (int64_t done = 0; done < z->num_elements(); done += row) {
    const auto at = [size](const Tensor& t, int64_t i) {
      return static_cast<const char*>(t.raw()) + static_cast<size_t>(i) * size;
    };
    loop.binary(at(x, at_x), x_step, at(*y, at_y), y_step, to + static_cast<size_t>(done) * size,
                row);
    for (int d = rank - 2; d >= 0; --d) {
      const size_t k = static_cast<size_t>(d);
      at_x += xs[k];
      at_y += ys[k];
      if (++index[k] < z->dim(d)) break;
      at_x -= xs[k] * index[k];
      at_y -= ys[k] * index[k];
      index[k] = 0;
    }
  }
}

// How an input's elements are walked through beside the output's.
enum class Walk { kFull, kScalar, kRows, kOther };

Walk WalkOf(const TensorShape& input, const TensorShape& output) {
  if (input == output) return Walk::kFull;
  if (input.num_elements() == 1 && input.rank() <= output.rank()) return Walk::kScalar;
  int skip = 0;  // Dimensions of 1 in front.
  while (skip < input.rank() && input.dim(skip) == 1) ++skip;
  const int kept = input.rank() - skip;
  if (input.rank() > output.rank()) return Walk::kOther;
  for (int d = 0; d < kept; ++d) {
    if (input.dim(skip + d) != output.dim(output.rank() - kept + d)) return Walk::kOther;
  }
  return Walk::kRows;
}

}  // namespace

FusedKernel::FusedKernel(std::vector<FusedOp> ops)
    : ops_(std::move(ops)), size_(ElementSize(ops_.back().loop.type)) {
  grain_ = ops_.front().loop.grain;
  for (const FusedOp& op : ops_) grain_ = std::min(grain_, op.loop.grain);
}

bool FusedKernel::Fits(const PartialShape& input, const PartialShape& output) {
  if (!input.known_rank() || !output.known_rank() || input.rank() > output.rank()) return false;
  int skip = 0;
  while (skip < input.rank() && input.dim(skip) == 1) ++skip;
  for (int d = skip; d < input.rank(); ++d) {
    if (input.dim(d) != output.dim(output.rank() - input.rank() + d)) return false;
  }
  // Dimensions that aren't known may differ, and most likely don't where all others are the same.
  return skip == input.rank() || input.fully_defined() || input == output;
}

absl::Status FusedKernel::Compute(KernelContext* c) const {
  const TensorShape* shape = &c->input(0).shape();
  for (int i = 1; i < c->num_inputs(); ++i) {
    const TensorShape& s = c->input(i).shape();
    if (s.rank() > shape->rank() ||
        (s.rank() == shape->rank() && s.num_elements() > shape->num_elements())) {
      shape = &s;
    }
  }
  struct Input {
    const char* at;
    Walk walk;
  };
  absl::InlinedVector<Input, 8> inputs;
  int64_t row = shape->num_elements();  // Elements after which what walks by rows starts again.
  bool rows = false;
  for (int i = 0; i < c->num_inputs(); ++i) {
    const Tensor& t = c->input(i);
    const Walk walk = WalkOf(t.shape(), *shape);
    if (walk == Walk::kOther) return ComputeEach(c);
    if (walk == Walk::kRows) {
      if (rows && row != t.num_elements()) return ComputeEach(c);
      rows = true;
      row = t.num_elements();
    }
    inputs.push_back({static_cast<const char*>(t.raw()), walk});
  }
  // Every result has the output's shape.
  const auto is_full = [&](const FusedOperand& o) {
    return !o.is_input || inputs[static_cast<size_t>(o.index)].walk == Walk::kFull;
  };
  for (const FusedOp& op : ops_) {
    const bool x = is_full(op.x), y = op.loop.inputs == 2 && is_full(op.y);
    if (op.loop.same_shape ? !(x && y) : !(x || y)) return ComputeEach(c);
  }
  // The shape may be an input's whose memory the output takes.
  const TensorShape whole = *shape;
  FERRY_ASSIGN_OR_RETURN(Tensor * z, c->AllocateOutput(0, whole));
  char* const out = static_cast<char*>(z->raw());
  const int64_t block = static_cast<int64_t>(kBlockBytes / size_);
  c->ParallelFor(z->num_elements(), grain_, [&](int64_t begin, int64_t end) {
    alignas(64) char results[kMaxOps][kBlockBytes];
    for (int64_t i = begin, n; i < end; i += n) {
      const int64_t in_row = i % row;
      n = std::min({block, end - i, row - in_row});
      const auto where = [&](const FusedOperand& o) -> const void* {
        if (!o.is_input) return results[o.index];
        const Input& in = inputs[static_cast<size_t>(o.index)];
        const int64_t from = in.walk == Walk::kFull ? i : in.walk == Walk::kRows ? in_row : 0;
        return in.at + static_cast<size_t>(from) * size_;
      };
      const auto step = [&](const FusedOperand& o) {
        return !o.is_input || inputs[static_cast<size_t>(o.index)].walk != Walk::kScalar ? 1 : 0;
      };
      for (size_t k = 0; k < ops_.size(); ++k) {
        const FusedOp& op = ops_[k];
        void* const to = k + 1 == ops_.size() ? out + static_cast<size_t>(i) * size_ : results[k];
        if (op.loop.unary != nullptr) {
          op.loop.unary(where(op.x), to, n);
        } else {
          op.loop.binary(where(op.x), step(op.x), where(op.y), step(op.y), to, n);
        }
      }
    }
  });
  return absl::OkStatus();
}

// Op by op, for other shapes: rare, since such nodes aren't fused where it can be told.
absl::Status FusedKernel::ComputeEach(KernelContext* c) const {
  std::vector<Tensor> results(ops_.size());
  for (size_t k = 0; k < ops_.size(); ++k) {
    const FusedOp& op = ops_[k];
    const auto value = [&](const FusedOperand& o) -> const Tensor& {
      return o.is_input ? c->input(o.index) : results[static_cast<size_t>(o.index)];
    };
    const Tensor& x = value(op.x);
    TensorShape shape = x.shape();
    if (op.loop.inputs == 2) {
      const TensorShape& other = value(op.y).shape();
      if (op.loop.same_shape && shape != other) {
        return InvalidArgument("Inputs must have the same size and shape: ", shape.DebugString(),
                               " vs. ", other.DebugString());
      }
      FERRY_ASSIGN_OR_RETURN(shape, BroadcastShapes(shape, other));
    }
    FERRY_ASSIGN_OR_RETURN(results[k], Tensor::Allocate(op.loop.type, shape));
    if (shape.num_elements() > 0) {
      ComputeOne(op.loop, x, op.loop.inputs == 2 ? &value(op.y) : nullptr, &results[k]);
    }
  }
  c->SetOutput(0, results.back());
  return absl::OkStatus();
}

}  // namespace ferry
