// Moving whole dimensions: Transpose, ReverseV2, Tile.
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "kernels/array.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// ---- Transpose ----

// Makes the entries of `perm` non-negative, and checks that each dimension occurs once.
absl::Status ResolvePermutation(int64_t rank, Ints* perm) {
  if (static_cast<int64_t>(perm->size()) != rank) {
    return InvalidArgument("transpose expects a vector of size ", rank,
                           ". But input(1) is a vector of size ", perm->size());
  }
  std::vector<bool> seen(perm->size(), false);
  for (int64_t& d : *perm) {
    const int64_t asked = d;
    if (!NormalizeAxis(rank, &d)) {
      return InvalidArgument(asked, " is out of range [0 .. ", rank, ")");
    }
    seen[static_cast<size_t>(d)] = true;
  }
  for (size_t i = 0; i < seen.size(); ++i) {
    if (!seen[i]) return InvalidArgument(i, " is missing from {", absl::StrJoin(*perm, ","), "}.");
  }
  return absl::OkStatus();
}

class TransposeKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    if (c->input(1).rank() != 1) {
      return InvalidArgument("perm must be rank 1, got shape ", c->input(1).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Ints perm, c->InputAsInts(1));
    FERRY_RETURN_IF_ERROR(ResolvePermutation(x.rank(), &perm));
    Ints sizes;
    for (int64_t d : perm) sizes.push_back(x.dim(static_cast<int>(d)));
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(sizes));
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, shape));
    const Ints from = Strides(x.shape().dims()), to = Strides(sizes);
    absl::InlinedVector<CopyDim, 8> dims;
    for (size_t i = 0; i < perm.size(); ++i) {
      dims.push_back({sizes[i], from[static_cast<size_t>(perm[i])], to[i]});
    }
    return StridedCopy(c, x, 0, y, 0, dims);
  }
};

FERRY_OP("Transpose")
    .Input("x: T")
    .Input("perm: Tperm")
    .Output("y: T")
    .Attr("T: type")
    .Attr("Tperm: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape& x = c->input(0);
      FERRY_ASSIGN_OR_RETURN(PartialShape vector, c->WithRank(c->input(1), 1));
      std::optional<Ints> perm = KnownInts(c, 1);
      int64_t rank = x.known_rank() ? x.rank() : vector.dim(0);
      if (perm) rank = static_cast<int64_t>(perm->size());
      if (rank < 0 || rank > kMaxRank) return absl::OkStatus();
      PartialShape y = PartialShape::UnknownOfRank(static_cast<int>(rank));
      if (perm && x.known_rank()) {
        FERRY_RETURN_IF_ERROR(ResolvePermutation(x.rank(), &*perm));
        for (size_t i = 0; i < perm->size(); ++i) {
          y.set_dim(static_cast<int>(i), x.dim(static_cast<int>((*perm)[i])));
        }
      }
      c->set_output(0, std::move(y));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      Output back = NodeBuilder(c->scope(), "InvertPermutation").Input(c->input(1)).BuildOutput();
      c->set_input_grad(0, ops::Transpose(c->scope(), c->grad(0), back));
      return c->scope().status();
    });
[[maybe_unused]] const bool transpose =
    RegisterArrayKernel<TransposeKernel>("Transpose", {"perm"});

// ---- ReverseV2 ----

// Which dimensions `axes` names.
absl::StatusOr<std::vector<bool>> ResolveReverse(int64_t rank, absl::Span<const int64_t> axes) {
  std::vector<bool> reversed(static_cast<size_t>(rank), false);
  for (size_t i = 0; i < axes.size(); ++i) {
    int64_t axis = axes[i];
    if (!NormalizeAxis(rank, &axis)) {
      return InvalidArgument("'axis'[", i, "] = ", axes[i], " is out of valid range [", -rank, ", ",
                             rank - 1, "]");
    }
    if (reversed[static_cast<size_t>(axis)]) {
      return InvalidArgument("axis ", axis, " specified more than one time.");
    }
    reversed[static_cast<size_t>(axis)] = true;
  }
  return reversed;
}

class ReverseKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    if (c->input(1).rank() != 1) {
      return InvalidArgument("'dims' must be 1-dimension, not ", c->input(1).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Ints axes, c->InputAsInts(1));
    FERRY_ASSIGN_OR_RETURN(std::vector<bool> reversed, ResolveReverse(x.rank(), axes));
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, x.shape()));
    const Ints strides = Strides(x.shape().dims());
    absl::InlinedVector<CopyDim, 8> dims;
    int64_t offset = 0;
    for (size_t i = 0; i < strides.size(); ++i) {
      const int64_t size = x.dim(static_cast<int>(i));
      dims.push_back({size, reversed[i] ? -strides[i] : strides[i], strides[i]});
      if (reversed[i] && size > 0) offset += (size - 1) * strides[i];
    }
    return StridedCopy(c, x, offset, y, 0, dims);
  }
};

FERRY_OP("ReverseV2")
    .Input("tensor: T")
    .Input("axis: Tidx")
    .Output("output: T")
    .Attr("Tidx: {int32, int64} = DT_INT32")
    .Attr(
        "T: {uint8, int8, uint16, int16, int32, uint32, int64, uint64, bool, bfloat16, half, "
        "float, double, complex64, complex128, string}")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
      std::optional<Ints> axes = KnownInts(c, 1);
      if (axes && c->input(0).known_rank()) {
        FERRY_RETURN_IF_ERROR(ResolveReverse(c->input(0).rank(), *axes).status());
      }
      return UnchangedShape(c);
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(
          0,
          NodeBuilder(c->scope(), "ReverseV2").Input(c->grad(0)).Input(c->input(1)).BuildOutput());
      return c->scope().status();
    });
[[maybe_unused]] const bool reverse = RegisterArrayKernel<ReverseKernel>("ReverseV2", {"axis"});

// ---- Tile ----

absl::Status CheckMultiples(int64_t rank, absl::Span<const int64_t> multiples) {
  if (static_cast<int64_t>(multiples.size()) != rank) {
    return InvalidArgument("Expected multiples argument to be a vector of length ", rank,
                           " but got length ", multiples.size());
  }
  for (size_t i = 0; i < multiples.size(); ++i) {
    if (multiples[i] < 0) {
      return InvalidArgument("Expected multiples[", i, "] >= 0, but got ", multiples[i]);
    }
  }
  return absl::OkStatus();
}

class TileKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    if (c->input(1).rank() != 1) {
      return InvalidArgument("Expected multiples to be 1-D, but got shape ",
                             c->input(1).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Ints multiples, c->InputAsInts(1));
    FERRY_RETURN_IF_ERROR(CheckMultiples(x.rank(), multiples));
    Ints sizes;
    for (size_t i = 0; i < multiples.size(); ++i) {
      int64_t size;
      if (__builtin_mul_overflow(multiples[i], x.dim(static_cast<int>(i)), &size)) {
        return InvalidArgument("dimension ", i, " tiled ", multiples[i], " times overflows");
      }
      sizes.push_back(size);
    }
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(sizes));
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, shape));
    if (y->num_elements() == 0) return absl::OkStatus();
    // Each dimension of the result is two: the repetitions, which stay at the same place of the
    // input, and the input's own.
    const Ints from = Strides(x.shape().dims()), to = Strides(sizes);
    absl::InlinedVector<CopyDim, 8> dims;
    for (size_t i = 0; i < sizes.size(); ++i) {
      const int64_t size = x.dim(static_cast<int>(i));
      dims.push_back({multiples[i], 0, to[i] * size});
      dims.push_back({size, from[i], to[i]});
    }
    return StridedCopy(c, x, 0, y, 0, dims);
  }
};

FERRY_OP("Tile")
    .Input("input: T")
    .Input("multiples: Tmultiples")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Tmultiples: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape& x = c->input(0);
      FERRY_ASSIGN_OR_RETURN(PartialShape vector, c->WithRank(c->input(1), 1));
      std::optional<Ints> multiples = KnownInts(c, 1);
      if (!x.known_rank()) {
        const int64_t rank = vector.dim(0);
        if (rank >= 0 && rank <= kMaxRank) {
          c->set_output(0, PartialShape::UnknownOfRank(static_cast<int>(rank)));
        }
        return absl::OkStatus();
      }
      PartialShape y = PartialShape::UnknownOfRank(x.rank());
      if (multiples) {
        FERRY_RETURN_IF_ERROR(CheckMultiples(x.rank(), *multiples));
        for (int i = 0; i < x.rank(); ++i) {
          int64_t size;
          if (x.dim(i) != PartialShape::kUnknown &&
              !__builtin_mul_overflow((*multiples)[static_cast<size_t>(i)], x.dim(i), &size)) {
            y.set_dim(i, size);
          }
        }
      }
      c->set_output(0, std::move(y));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      // Seen with the repetitions as dimensions of their own, the gradient is a sum over those.
      const Scope& s = c->scope();
      FERRY_ASSIGN_OR_RETURN(const DType index, c->Attr<DType>("Tmultiples"));
      Output both = ops::Pack(s, {c->input(1), ops::Shape(s, c->input(0), index)}, /*axis=*/1);
      Output split = ops::Reshape(s, both, ops::ConstVector<int32_t>(s, {-1}));
      Output repeats =
          ops::Range(s, ops::Const<int32_t>(s, 0), ops::Size(s, split), ops::Const<int32_t>(s, 2));
      Output sum = ops::Sum(s, ops::Reshape(s, c->grad(0), split), repeats);
      // What was summed has the input's shape; this makes it known.
      c->set_input_grad(0, c->input(0).shape().fully_defined()
                               ? ops::Reshape(s, sum, ops::Shape(s, c->input(0)))
                               : sum);
      return s.status();
    });
[[maybe_unused]] const bool tile = RegisterArrayKernel<TileKernel>("Tile", {"multiples"});

}  // namespace
}  // namespace ferry
