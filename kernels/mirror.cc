// Tensors that go on beyond their edges: MirrorPad and MirrorPadGrad, which reflect them there, and
// Roll, which goes on at the other edge.
#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/array.h"
#include "kernels/elementwise.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// For each dimension, where each of its places lies in another tensor: times that one's stride.
using Places = std::vector<std::vector<int64_t>>;

// Calls fn(i, other) for all elements of the tensor whose places these are, i in row-major order.
template <typename Fn>
void ForEachPlace(const Places& places, Fn fn) {
  Ints index(places.size(), 0);
  int64_t other = 0, n = 1;
  for (const auto& p : places) {
    n *= static_cast<int64_t>(p.size());
    if (n > 0) other += p[0];
  }
  for (int64_t i = 0; i < n; ++i) {
    fn(i, other);
    for (size_t d = places.size(); d-- > 0;) {
      other -= places[d][static_cast<size_t>(index[d])];
      if (++index[d] == static_cast<int64_t>(places[d].size())) index[d] = 0;
      other += places[d][static_cast<size_t>(index[d])];
      if (index[d] != 0) break;
    }
  }
}

// ---- MirrorPad, MirrorPadGrad ----

// By how much the edge's own element is left out of the reflection: 1 for REFLECT, 0 for SYMMETRIC.
absl::StatusOr<int64_t> OffsetOf(const std::string& mode) {
  if (mode == "REFLECT") return 1;
  if (mode == "SYMMETRIC") return 0;
  return InvalidArgument("mode must be either REFLECT or SYMMETRIC, not '", mode, "'");
}

// Where place i of a side lies that has `size` places inside, after `before` reflected ones.
int64_t Reflected(int64_t i, int64_t before, int64_t size, int64_t offset) {
  i -= before;
  if (i < 0) return -i - 1 + offset;
  if (i >= size) return 2 * size - 1 - offset - i;
  return i;
}

// Sizes with or, for the gradient, without the paddings; `paddings` has two columns.
absl::StatusOr<Ints> PaddedSizes(const TensorShape& shape, const Tensor& paddings, int64_t offset,
                                 bool gradient) {
  if (paddings.rank() != 2 || paddings.dim(1) != 2) {
    return InvalidArgument("paddings must be a matrix with 2 columns: ",
                           paddings.shape().DebugString());
  }
  if (paddings.dim(0) != shape.rank()) {
    return InvalidArgument("The first dimension of paddings must be the rank of inputs",
                           paddings.shape().DebugString(), ", ", shape.DebugString());
  }
  Ints sizes;
  for (int d = 0; d < shape.rank(); ++d) {
    const int64_t before = IntAt(paddings, 2 * d), after = IntAt(paddings, 2 * d + 1);
    if (before < 0 || after < 0) {
      return InvalidArgument("paddings must be non-negative: ", before, " ", after);
    }
    int64_t size = shape.dim(d);
    if (gradient) {
      int64_t total;
      if (__builtin_add_overflow(before, after, &total) || total >= size) {
        return InvalidArgument("Total paddings must be less than the input dimension size: ",
                               before, " and ", after, " were not less than ", size);
      }
      size -= total;
    }
    if (std::max(before, after) > size - offset) {
      return offset == 1
                 ? InvalidArgument("paddings must be less than the dimension size: ", before, ", ",
                                   after, " not less than ", size)
                 : InvalidArgument("paddings must be no greater than the dimension size: ", before,
                                   ", ", after, " greater than ", size);
    }
    sizes.push_back(gradient ? size : size + before + after);
  }
  return sizes;
}

// For a tensor of `inside` sizes and its paddings: where each place of the padded one lies in it.
Places ReflectedPlaces(absl::Span<const int64_t> inside, const Tensor& paddings, int64_t offset) {
  const Ints strides = Strides(inside);
  Places places(inside.size());
  for (size_t d = 0; d < inside.size(); ++d) {
    const auto at = static_cast<int64_t>(2 * d);
    const int64_t before = IntAt(paddings, at), all = inside[d] + before + IntAt(paddings, at + 1);
    for (int64_t i = 0; i < all; ++i) {
      places[d].push_back(Reflected(i, before, inside[d], offset) * strides[d]);
    }
  }
  return places;
}

class MirrorPadKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(const std::string mode, c.Attr<std::string>("mode"));
    FERRY_ASSIGN_OR_RETURN(offset_, OffsetOf(mode));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &in = c->input(0), &paddings = c->input(1);
    FERRY_ASSIGN_OR_RETURN(const Ints sizes, PaddedSizes(in.shape(), paddings, offset_, false));
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(sizes));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    const Places places = ReflectedPlaces(in.shape().dims(), paddings, offset_);
    return ForWidth(out->dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = static_cast<const T*>(in.raw());
      T* to = static_cast<T*>(out->raw());
      ForEachPlace(places, [=](int64_t i, int64_t other) { to[i] = from[other]; });
    });
  }
  int64_t offset_ = 0;
};

// Adds each place's gradient to that of the element that it reflects.
template <typename T>
class MirrorPadGradKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(const std::string mode, c.Attr<std::string>("mode"));
    FERRY_ASSIGN_OR_RETURN(offset_, OffsetOf(mode));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &dy = c->input(0), &paddings = c->input(1);
    FERRY_ASSIGN_OR_RETURN(const Ints sizes, PaddedSizes(dy.shape(), paddings, offset_, true));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape(sizes)));
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    const T* from = dy.data<T>();
    T* to = out->data<T>();
    ForEachPlace(ReflectedPlaces(sizes, paddings, offset_), [=](int64_t i, int64_t other) {
      to[other] = static_cast<T>(static_cast<Wrap<T>>(to[other]) + static_cast<Wrap<T>>(from[i]));
    });
    return absl::OkStatus();
  }
  int64_t offset_ = 0;
};

template <bool kGradient>
absl::Status MirrorPadShape(InferenceContext* c) {
  const PartialShape& in = c->input(0);
  FERRY_ASSIGN_OR_RETURN(const PartialShape matrix, c->WithRank(c->input(1), 2));
  const int64_t rank = in.known_rank() ? in.rank() : matrix.dim(0);
  if (rank < 0 || rank > kMaxRank) return absl::OkStatus();
  PartialShape out = PartialShape::UnknownOfRank(static_cast<int>(rank));
  const Tensor* paddings = c->value(1);
  if (paddings && in.fully_defined()) {
    FERRY_ASSIGN_OR_RETURN(const std::string mode, c->Attr<std::string>("mode"));
    FERRY_ASSIGN_OR_RETURN(const int64_t offset, OffsetOf(mode));
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, in.ToTensorShape());
    FERRY_ASSIGN_OR_RETURN(const Ints sizes, PaddedSizes(shape, *paddings, offset, kGradient));
    out = PartialShape(sizes);
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// Each is the other's gradient.
absl::Status OtherWay(GradientContext* c, const char* op) {
  FERRY_ASSIGN_OR_RETURN(const std::string mode, c->Attr<std::string>("mode"));
  c->set_input_grad(0, NodeBuilder(c->scope(), op)
                           .Input(c->grad(0))
                           .Input(c->input(1))
                           .Attr("mode", mode)
                           .BuildOutput());
  return c->scope().status();
}

FERRY_OP("MirrorPad")
    .Input("input: T")
    .Input("paddings: Tpaddings")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Tpaddings: {int32, int64} = DT_INT32")
    .Attr("mode: {'REFLECT', 'SYMMETRIC'}")
    .Shape(MirrorPadShape<false>)
    .Gradient([](GradientContext* c) { return OtherWay(c, "MirrorPadGrad"); });
FERRY_OP("MirrorPadGrad")
    .Input("input: T")
    .Input("paddings: Tpaddings")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Tpaddings: {int32, int64} = DT_INT32")
    .Attr("mode: {'REFLECT', 'SYMMETRIC'}")
    .Shape(MirrorPadShape<true>)
    .Gradient([](GradientContext* c) { return OtherWay(c, "MirrorPad"); });
FERRY_KERNEL("MirrorPad").Make<MirrorPadKernel>();
[[maybe_unused]] const bool gradient =
    RegisterCpu<MirrorPadGradKernel>(NumberTypes(), "MirrorPadGrad");

// ---- Roll ----

// By how many places each dimension is rolled, of [0, its size).
absl::StatusOr<Ints> Shifts(const TensorShape& shape, const Tensor& shift, const Tensor& axis) {
  if (shape.rank() < 1) return InvalidArgument("input must be 1-D or higher");
  if (shift.rank() > 1 || axis.rank() > 1) {
    return InvalidArgument((shift.rank() > 1 ? "shift" : "axis"),
                           " must be a scalar or a 1-D vector. Found: ",
                           (shift.rank() > 1 ? shift : axis).shape().DebugString());
  }
  if (shift.shape() != axis.shape()) {
    return InvalidArgument("shift and axis must have the same size, found ",
                           shift.shape().DebugString(), " and ", axis.shape().DebugString());
  }
  Ints shifts(static_cast<size_t>(shape.rank()), 0);
  for (int64_t i = 0; i < axis.num_elements(); ++i) {
    int64_t at = IntAt(axis, i);
    if (!NormalizeAxis(shape.rank(), &at)) {
      return InvalidArgument("axis ", at, " is out of range");
    }
    const int64_t size = std::max<int64_t>(shape.dim(static_cast<int>(at)), 1);
    int64_t& sum = shifts[static_cast<size_t>(at)];
    sum = (sum + IntAt(shift, i) % size + size) % size;
  }
  return shifts;
}

class RollKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    FERRY_ASSIGN_OR_RETURN(const Ints shifts, Shifts(in.shape(), c->input(1), c->input(2)));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    if (out->num_elements() == 0) return absl::OkStatus();
    const Ints strides = Strides(in.shape().dims());
    Places places(strides.size());
    for (size_t d = 0; d < strides.size(); ++d) {
      const int64_t size = in.dim(static_cast<int>(d));
      for (int64_t i = 0; i < size; ++i) {
        places[d].push_back((i + size - shifts[d]) % size * strides[d]);
      }
    }
    return ForWidth(out->dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = static_cast<const T*>(in.raw());
      T* to = static_cast<T*>(out->raw());
      ForEachPlace(places, [=](int64_t i, int64_t other) { to[i] = from[other]; });
    });
  }
};

FERRY_OP("Roll")
    .Input("input: T")
    .Input("shift: Tshift")
    .Input("axis: Taxis")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Tshift: {int32, int64}")
    .Attr("Taxis: {int32, int64}")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape in, c->WithRankAtLeast(c->input(0), 1));
      for (int i = 1; i < 3; ++i) FERRY_RETURN_IF_ERROR(c->WithRankAtMost(c->input(i), 1).status());
      c->set_output(0, std::move(in));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      c->set_input_grad(0, NodeBuilder(s, "Roll")
                               .Input(c->grad(0))
                               .Input(ops::Neg(s, c->input(1)))
                               .Input(c->input(2))
                               .BuildOutput());
      return s.status();
    });
FERRY_KERNEL("Roll").Make<RollKernel>();

}  // namespace
}  // namespace ferry
