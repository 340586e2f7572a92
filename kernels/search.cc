// Ops that look for elements or run along them: Where, Unique and its kin, ListDiff, Cumsum,
// Cumprod.
#include <algorithm>
#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/hash/hash.h"
#include "absl/strings/string_view.h"
#include "kernels/accumulate.h"
#include "kernels/array.h"
#include "kernels/row_ops.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// ---- Where ----

template <typename T>
class WhereKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    if (in.rank() == 0) return InvalidArgument("WhereOp : Unhandled input dimensions: 0");
    const absl::Span<const T> x = in.span<T>();
    const int64_t found = std::count_if(x.begin(), x.end(), [](const T& v) { return v != T(0); });
    const int rank = in.rank();
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make({found, rank}));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    int64_t* to = out->data<int64_t>();
    for (int64_t i = 0; i < in.num_elements(); ++i) {
      if (!(x[static_cast<size_t>(i)] != T(0))) continue;
      int64_t rest = i;
      for (int d = rank; d-- > 0;) {
        to[d] = rest % in.dim(d);
        rest /= in.dim(d);
      }
      to += rank;
    }
    return absl::OkStatus();
  }
};

FERRY_OP("Where")
    .Input("input: T")
    .Output("index: int64")
    .Attr(
        "T: {float, double, int32, uint8, int16, int8, complex64, int64, qint8, quint8, qint32, "
        "bfloat16, qint16, quint16, uint16, complex128, half, uint32, uint64, bool} = DT_BOOL")
    .Shape([](InferenceContext* c) -> absl::Status {
      c->set_output(0, {PartialShape::kUnknown, c->input(0).rank()});
      return absl::OkStatus();
    })
    .NotDifferentiable();

// ---- Unique ----

// The slices of a tensor along one axis, as things to look up: equal ones have one hash. With one
// element a slice it is a list of elements.
template <typename T>
class Slices {
 public:
  // The tensor seen as [outer, n, inner].
  Slices(const T* x, int64_t outer, int64_t n, int64_t inner)
      : x_(x), outer_(outer), n_(n), inner_(inner) {}

  size_t operator()(int64_t slice) const {  // The hash.
    size_t hash = 0;
    ForEach(slice, [&](const T& v) {
      hash = absl::HashOf(hash, KeyOf(v));
      return true;
    });
    return hash;
  }
  bool operator()(int64_t a, int64_t b) const {  // Whether they are equal.
    const int64_t ahead = (b - a) * inner_;
    return ForEach(a, [&](const T& v) { return KeyOf(v) == KeyOf(*(&v + ahead)); });
  }
  void Copy(int64_t slice, T* to, int64_t to_slice, int64_t to_n) const {
    for (int64_t o = 0; o < outer_; ++o) {
      std::copy_n(x_ + (o * n_ + slice) * inner_, inner_, to + (o * to_n + to_slice) * inner_);
    }
  }

 private:
  // Single 16-bit floats count as equal if their bits are (0 is not -0), as in TensorFlow.
  using Key = std::conditional_t<
      std::is_same_v<T, std::string>, absl::string_view,
      std::conditional_t<std::is_same_v<T, half> || std::is_same_v<T, bfloat16>, float, T>>;
  std::pair<Key, bool> KeyOf(const T& v) const {
    if constexpr (std::is_same_v<T, half> || std::is_same_v<T, bfloat16>) {
      const auto f = static_cast<float>(v);
      return {f, outer_ * inner_ == 1 && std::signbit(f)};
    } else {
      return {static_cast<Key>(v), false};
    }
  }
  // False as soon as fn is.
  template <typename Fn>
  bool ForEach(int64_t slice, Fn fn) const {
    for (int64_t o = 0; o < outer_; ++o) {
      const T* from = x_ + (o * n_ + slice) * inner_;
      for (int64_t i = 0; i < inner_; ++i) {
        if (!fn(from[i])) return false;
      }
    }
    return true;
  }
  const T* x_;
  int64_t outer_, n_, inner_;
};

void SetInt(Tensor* t, int64_t i, int64_t value) {
  if (t->dtype() == DType::kInt64) {
    t->data<int64_t>()[i] = value;
  } else {
    t->data<int32_t>()[i] = static_cast<int32_t>(value);
  }
}

absl::Status CheckAxisShape(const PartialShape& axis) {
  if (axis.known_rank() && axis.rank() != 1) {
    return InvalidArgument("axis expects a 1D vector, found shape ", axis.DebugString());
  }
  if (axis.known_rank() && axis.dim(0) > 1) {
    return InvalidArgument("axis does not support input tensors larger than 1 elements, found ",
                           axis.dim(0));
  }
  return absl::OkStatus();
}

// Unique, and with an axis (input 1, of one element or none) UniqueV2; a third output counts.
template <typename T>
class UniqueKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    int64_t axis = 0;
    bool given = false;
    if (c->num_inputs() > 1) {
      FERRY_RETURN_IF_ERROR(CheckAxisShape(c->input(1).shape()));
      FERRY_ASSIGN_OR_RETURN(const Ints axes, c->InputAsInts(1));
      given = !axes.empty();
      if (given) axis = axes[0];
      if (given && !NormalizeAxis(in.rank(), &axis)) {
        return InvalidArgument("axis has to be between [0, ", in.rank(), "), found ", axis);
      }
    }
    if (!given && in.rank() != 1) {
      return InvalidArgument("unique expects a 1D vector, found shape ", in.shape().DebugString());
    }
    const int64_t n = in.dim(static_cast<int>(axis));
    if (c->output_type(1) == DType::kInt32 && n > std::numeric_limits<int32_t>::max()) {
      return InvalidArgument("unique does not support input tensors larger than ",
                             std::numeric_limits<int32_t>::max(), " elements");
    }
    const auto dims = in.shape().dims();
    const Slices<T> slices(in.data<T>(), Product(dims.subspan(0, static_cast<size_t>(axis))), n,
                           Product(dims.subspan(static_cast<size_t>(axis) + 1)));
    FERRY_ASSIGN_OR_RETURN(Tensor * idx, c->AllocateOutput(1, {n}));
    absl::flat_hash_map<int64_t, int64_t, Slices<T>, Slices<T>> seen(0, slices, slices);
    std::vector<int64_t> firsts, counts;
    for (int64_t i = 0; i < n; ++i) {
      int64_t at = static_cast<int64_t>(firsts.size());
      // A NaN equals nothing, itself neither, and is no key of a map.
      if (slices(i, i)) at = seen.try_emplace(i, at).first->second;
      if (at == static_cast<int64_t>(firsts.size())) {
        firsts.push_back(i);
        counts.push_back(0);
      }
      ++counts[static_cast<size_t>(at)];
      SetInt(idx, i, at);
    }
    const auto found = static_cast<int64_t>(firsts.size());
    Ints sizes(dims.begin(), dims.end());
    sizes[static_cast<size_t>(axis)] = found;
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, TensorShape(sizes)));
    for (int64_t i = 0; i < found; ++i) {
      slices.Copy(firsts[static_cast<size_t>(i)], y->data<T>(), i, found);
    }
    if (c->num_outputs() < 3) return absl::OkStatus();
    FERRY_ASSIGN_OR_RETURN(Tensor * count, c->AllocateOutput(2, {found}));
    for (int64_t i = 0; i < found; ++i) SetInt(count, i, counts[static_cast<size_t>(i)]);
    return absl::OkStatus();
  }
};

absl::Status UniqueShape(InferenceContext* c) {
  const bool takes_axis = c->num_inputs() > 1;
  std::optional<Ints> axis;
  if (takes_axis) {
    FERRY_RETURN_IF_ERROR(CheckAxisShape(c->input(1)));
    axis = KnownInts(c, 1);
  }
  PartialShape x = c->input(0), idx = {PartialShape::kUnknown};
  if (!takes_axis || (axis && axis->empty())) {
    FERRY_ASSIGN_OR_RETURN(idx, c->WithRank(x, 1));
    x = {PartialShape::kUnknown};
  } else if (axis && x.known_rank()) {
    int64_t at = axis->front();
    if (!NormalizeAxis(x.rank(), &at)) {
      return InvalidArgument("axis has to be between [0, ", x.rank(), "), found ", at);
    }
    idx = {x.dim(static_cast<int>(at))};
    x.set_dim(static_cast<int>(at), PartialShape::kUnknown);
  } else {
    x = x.known_rank() ? PartialShape::UnknownOfRank(x.rank()) : PartialShape();
  }
  c->set_output(0, std::move(x));
  c->set_output(1, std::move(idx));
  if (c->num_outputs() > 2) c->set_output(2, {PartialShape::kUnknown});
  return absl::OkStatus();
}

bool DefineUnique(const char* op, bool axis, bool counts) {
  OpBuilder b(op);
  b.Input("x: T");
  if (axis) b.Input("axis: Taxis");
  b.Output("y: T").Output("idx: out_idx");
  if (counts) b.Output("count: out_idx");
  b.Attr("T: type");
  if (axis) b.Attr("Taxis: {int32, int64} = DT_INT64");
  b.Attr("out_idx: {int32, int64} = DT_INT32").Shape(UniqueShape).NotDifferentiable();
  const OpBuilder::Registrar registrar(b);
  return RegisterCpu<UniqueKernel>(Join<NumberTypes, Types<bool, std::string>>(), op);
}

// ---- ListDiff ----

// The elements of x that y lacks, and their places.
template <typename T>
class ListDiffKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &x = c->input(0), &y = c->input(1);
    for (int i = 0; i < 2; ++i) {
      if (c->input(i).rank() != 1) {
        return InvalidArgument(i == 0 ? "x" : "y", " should be a 1D vector, found shape ",
                               c->input(i).shape().DebugString());
      }
    }
    // x and y as one list.
    std::vector<T> all;
    for (const Tensor* t : {&y, &x}) all.insert(all.end(), t->data<T>(), t->data<T>() + t->dim(0));
    const Slices<T> elements(all.data(), 1, static_cast<int64_t>(all.size()), 1);
    absl::flat_hash_set<int64_t, Slices<T>, Slices<T>> taken(0, elements, elements);
    for (int64_t i = 0; i < y.dim(0); ++i) {
      if (elements(i, i)) taken.insert(i);
    }
    std::vector<int64_t> left;
    for (int64_t i = 0; i < x.dim(0); ++i) {
      if (taken.count(y.dim(0) + i) == 0) left.push_back(i);
    }
    const auto n = static_cast<int64_t>(left.size());
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, {n}));
    FERRY_ASSIGN_OR_RETURN(Tensor * idx, c->AllocateOutput(1, {n}));
    for (int64_t i = 0; i < n; ++i) {
      out->data<T>()[i] = x.data<T>()[left[static_cast<size_t>(i)]];
      SetInt(idx, i, left[static_cast<size_t>(i)]);
    }
    return absl::OkStatus();
  }
};

FERRY_OP("ListDiff")
    .Input("x: T")
    .Input("y: T")
    .Output("out: T")
    .Output("idx: out_idx")
    .Attr("T: type")
    .Attr("out_idx: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      for (int i = 0; i < 2; ++i) {
        FERRY_RETURN_IF_ERROR(c->WithRank(c->input(i), 1).status());
        c->set_output(i, {PartialShape::kUnknown});
      }
      return absl::OkStatus();
    })
    .NotDifferentiable();

// ---- Cumsum, Cumprod ----

// Each element with those before it along the axis.
template <typename T, typename F>
class ScanKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(exclusive_, c.Attr<bool>("exclusive"));
    FERRY_ASSIGN_OR_RETURN(reverse_, c.Attr<bool>("reverse"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    if (c->input(1).num_elements() != 1) {
      return InvalidArgument("ScanOp: axis must be a scalar, not ",
                             c->input(1).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(int64_t axis, c->InputAsInt(1));
    const int64_t asked = axis;
    if (!NormalizeAxis(x.rank(), &axis)) {
      return InvalidArgument("ScanOp: Expected scan axis in the range [", -x.rank(), ", ", x.rank(),
                             "), but got ", asked);
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, x.shape()));
    if (x.num_elements() == 0) return absl::OkStatus();
    const auto dims = x.shape().dims();
    const int64_t n = dims[static_cast<size_t>(axis)];
    const int64_t inner = Product(dims.subspan(static_cast<size_t>(axis) + 1));
    const int64_t lines = x.num_elements() / n;
    if (c->gpu()) {  // Sums only.
      return gpu::LaunchOnGpu(c, [&](gpu::Call* call) {
        return gpu::Array().running_sums(call, x.dtype(), x.raw(), lines / inner, n, inner,
                                         exclusive_, reverse_, y->raw());
      });
    }
    const T* from = x.data<T>();
    T* to = y->data<T>();
    c->ParallelFor(lines, std::max<int64_t>(1, 8192 / n), [&](int64_t begin, int64_t end) {
      for (int64_t line = begin; line < end; ++line) {
        int64_t at = line / inner * n * inner + line % inner;
        int64_t step = inner;
        if (reverse_) {
          at += (n - 1) * inner;
          step = -inner;
        }
        T sum = T(F::kNeutral);
        for (int64_t i = 0; i < n; ++i, at += step) {
          const T next = F::Apply(sum, from[at]);
          to[at] = exclusive_ ? sum : next;
          sum = next;
        }
      }
    });
    return absl::OkStatus();
  }
  bool exclusive_ = false, reverse_ = false;
};

struct SumOf : accumulate::Add {
  static constexpr int kNeutral = 0;
};
struct ProdOf : accumulate::Mul {
  static constexpr int kNeutral = 1;
};
template <typename T>
using CumsumKernel = ScanKernel<T, SumOf>;
template <typename T>
using CumprodKernel = ScanKernel<T, ProdOf>;

// The sum of what comes from an element on, or up to it where `reverse`.
absl::StatusOr<Output> SumBack(GradientContext* c, Output x) {
  FERRY_ASSIGN_OR_RETURN(const bool exclusive, c->Attr<bool>("exclusive"));
  FERRY_ASSIGN_OR_RETURN(const bool reverse, c->Attr<bool>("reverse"));
  return NodeBuilder(c->scope(), "Cumsum")
      .Input(x)
      .Input(c->input(1))
      .Attr("exclusive", exclusive)
      .Attr("reverse", !reverse)
      .BuildOutput();
}

bool DefineScan(const char* op, GradientFn gradient) {
  OpBuilder b(op);
  b.Input("x: T")
      .Input("axis: Tidx")
      .Output("out: T")
      .Attr("exclusive: bool = false")
      .Attr("reverse: bool = false")
      .Attr("T: numbertype")
      .Attr("Tidx: {int32, int64} = DT_INT32")
      .Shape(UnchangedShape)
      .Gradient(std::move(gradient));
  const OpBuilder::Registrar registrar(b);
  return true;
}

[[maybe_unused]] const bool registered =
    RegisterCpu<WhereKernel>(Join<NumberTypes, Types<bool>>(), "Where") &&
    DefineUnique("Unique", /*axis=*/false, /*counts=*/false) &&
    // On the host all the same: what optimizers make of indices has to be where the variable is.
    RegisterGpu<UniqueKernel>(Types<int32_t, int64_t>(), "Unique", "T", {}, {"x", "y", "idx"},
                              /*replayable=*/false) &&
    DefineUnique("UniqueV2", /*axis=*/true, /*counts=*/false) &&
    DefineUnique("UniqueWithCounts", /*axis=*/false, /*counts=*/true) &&
    DefineUnique("UniqueWithCountsV2", /*axis=*/true, /*counts=*/true) &&
    RegisterCpu<ListDiffKernel>(Join<NumberTypes, Types<std::string>>(), "ListDiff") &&
    DefineScan("Cumsum",
               [](GradientContext* c) -> absl::Status {
                 FERRY_ASSIGN_OR_RETURN(Output dx, SumBack(c, c->grad(0)));
                 c->set_input_grad(0, dx);
                 return c->scope().status();
               }) &&
    DefineScan("Cumprod",
               // An element's share of each product is that product divided by it; where that is
               // 0 the gradient is taken as 0, as in TensorFlow.
               [](GradientContext* c) -> absl::Status {
                 const Scope& s = c->scope();
                 FERRY_ASSIGN_OR_RETURN(Output sum,
                                        SumBack(c, ops::Mul(s, c->output(0), c->grad(0))));
                 c->set_input_grad(0, ops::DivNoNan(s, sum, c->input(0)));
                 return s.status();
               }) &&
    RegisterForBoth<CumsumKernel>(NumberTypes(), "Cumsum", "T", {}, {"axis"}) &&
    RegisterCpu<CumprodKernel>(NumberTypes(), "Cumprod", "T", {}, {"axis"});

}  // namespace
}  // namespace ferry
