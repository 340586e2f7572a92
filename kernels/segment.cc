// Reductions of rows by segment: UnsortedSegmentSum, -Prod, -Max, -Min, whose ids may come in any
// order; SegmentSum, -Mean, -Prod, -Max, -Min, whose ids increase; SparseSegmentSum, -Mean, -SqrtN,
// which pick the rows by index first, and their gradients' ops: all rows, or only those picked.
#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/strings/str_cat.h"
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

constexpr int64_t kTaskBytes = 64 << 10;

// A reduction, and what it makes of no rows.
struct SumOf : accumulate::Add {
  using Step = accumulate::Add;
  template <typename T>
  static T Nothing() {
    return T(0);
  }
};
struct ProdOf : accumulate::Mul {
  using Step = accumulate::Mul;
  template <typename T>
  static T Nothing() {
    return T(1);
  }
};
struct MaxOf : accumulate::Max {
  using Step = accumulate::Max;
  template <typename T>
  static T Nothing() {
    return Eigen::NumTraits<T>::lowest();
  }
};
struct MinOf : accumulate::Min {
  using Step = accumulate::Min;
  template <typename T>
  static T Nothing() {
    return Eigen::NumTraits<T>::highest();
  }
};

// ---- UnsortedSegment… ----

template <typename T, typename F>
class UnsortedSegmentKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& data = c->input(0);
    const Tensor& ids = c->input(1);
    if (c->input(2).rank() != 0) {
      return InvalidArgument("num_segments should be a scalar, not shape ",
                             c->input(2).shape().DebugString());
    }
    const auto d = data.shape().dims(), k = ids.shape().dims();
    if (k.size() > d.size() || d.subspan(0, k.size()) != k) {
      return InvalidArgument(
          "data.shape = ", data.shape().DebugString(),
          " does not start with segment_ids.shape = ", ids.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const int64_t segments, c->InputAsInt(2));
    if (segments < 0) {
      return InvalidArgument("Input num_segments == ", segments, " must not be negative.");
    }
    Ints dims = {segments};
    dims.insert(dims.end(), d.begin() + static_cast<int64_t>(k.size()), d.end());
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    const int64_t n = ids.num_elements();
    // Without elements it doesn't matter where they would go.
    for (int64_t i = 0; i < n && data.num_elements() > 0 && !c->gpu(); ++i) {
      if (IntAt(ids, i) >= segments) {
        return InvalidArgument(ElementName("segment_ids", ids.shape(), i), " = ", IntAt(ids, i),
                               " is out of range [0, ", segments, ")");
      }
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (c->gpu()) {
      return ReduceRowsOnGpu(c, RowOpOf<typename F::Step>(), IndicesOf(ids, n, 1, &segments), data,
                             segments, out);
    }
    T* const to = out->data<T>();
    const T* const from = data.data<T>();
    std::fill_n(to, out->num_elements(), F::template Nothing<T>());
    if (data.num_elements() == 0) return absl::OkStatus();
    const int64_t inner = data.num_elements() / n;
    // Split by segments, so that each result is made in the order of the rows.
    const int64_t tasks =
        std::min<int64_t>(16, data.num_elements() * int64_t{sizeof(T)} / kTaskBytes + 1);
    c->ParallelFor(segments, (segments + tasks - 1) / tasks, [&](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t at = IntAt(ids, i);
        if (at < begin || at >= end) continue;  // Negative ones are dropped, as in TensorFlow.
        accumulate::Run<F>(to + at * inner, from + i * inner, inner);
      }
    });
    return absl::OkStatus();
  }
};

absl::Status UnsortedSegmentShape(InferenceContext* c) {
  const PartialShape &data = c->input(0), &ids = c->input(1);
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(2), 0).status());
  if (!data.known_rank() || !ids.known_rank()) return absl::OkStatus();
  if (ids.rank() > data.rank()) {
    return InvalidArgument("data.shape = ", data.DebugString(),
                           " does not start with segment_ids.shape = ", ids.DebugString());
  }
  PartialShape out = {c->ValueAsInt(2)};
  for (int i = ids.rank(); i < data.rank(); ++i) out.AddDim(data.dim(i));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// What the gradients of this family share: ids as numbers that pick rows of what the segments have,
// and which of them do. Sorted ids are never negative.
class Segments {
 public:
  Segments(const Scope& s, Output ids, Output count) : s_(s), ids_(ids), count_(count) {
    if (ids_.dtype() == DType::kInt16) ids_ = ops::Cast(s, ids_, DType::kInt32);
    Output zeros = ops::ZerosLike(s, ids_);
    rows_ = ops::Maximum(s, ids_, zeros);
    kept_ = ops::GreaterEqual(s, ids_, zeros);
  }
  // For each row of the data what its segment has in `x`.
  Output Gather(Output x) const { return ops::GatherV2(s_, x, rows_, ops::Const<int32_t>(s_, 0)); }
  // Whether each row of `like` has a segment, with ones behind to broadcast against it.
  Output Kept(Output like) const {
    Output ones =
        ops::Fill(s_, ops::Pack(s_, {ops::Sub(s_, ops::Rank(s_, like), ops::Rank(s_, kept_))}),
                  ops::Const<int32_t>(s_, 1));
    return ops::Reshape(
        s_, kept_, ops::ConcatV2(s_, {ops::Shape(s_, kept_), ones}, ops::Const<int32_t>(s_, 0)));
  }
  // The same as Gather, zeros for the rows without a segment.
  Output GatherKept(Output x) const {
    Output rows = Gather(x);
    return ops::SelectV2(s_, Kept(rows), rows, ops::ZerosLike(s_, rows));
  }
  Output Reduce(const char* op, Output x) const {
    return NodeBuilder(s_, op).Input(x).Input(ids_).Input(count_).BuildOutput();
  }

 private:
  const Scope& s_;
  Output ids_, count_, rows_, kept_;
};

Segments SegmentsOf(GradientContext* c) {
  const Scope& s = c->scope();
  if (c->node()->num_inputs() > 2) return Segments(s, c->input(1), c->input(2));
  // Sorted ids: as many as there are rows in the result.
  Output count =
      ops::StridedSlice(s, ops::Shape(s, c->output(0)), ops::ConstVector<int32_t>(s, {0}),
                        ops::ConstVector<int32_t>(s, {1}), ops::ConstVector<int32_t>(s, {1}),
                        {/*begin=*/0, /*end=*/0, /*ellipsis=*/0, /*new_axis=*/0,
                         /*shrink_axis=*/1});
  return Segments(s, c->input(1), count);
}

absl::Status SumGradient(GradientContext* c) {
  c->set_input_grad(0, SegmentsOf(c).GatherKept(c->grad(0)));
  return c->scope().status();
}

// Rows that are as large (small) as the result share its gradient.
absl::Status ChoiceGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Segments segments = SegmentsOf(c);
  Output dy = c->grad(0), x = c->input(0);
  Output chosen = ops::Equal(s, x, segments.Gather(c->output(0)));
  chosen = ops::LogicalAnd(s, chosen, segments.Kept(chosen));
  Output count = segments.Reduce("UnsortedSegmentSum", ops::Cast(s, chosen, BaseType(dy.dtype())));
  Output shares = segments.Gather(ops::DivNoNan(s, dy, count));
  c->set_input_grad(0, ops::SelectV2(s, chosen, shares, ops::ZerosLike(s, shares)));
  return s.status();
}

// The product of the others of its segment: the result divided by the row itself; where that is 0,
// the product without the zeros, or 0 when there are two.
absl::Status ProdGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Segments segments = SegmentsOf(c);
  Output dy = c->grad(0), x = c->input(0);
  Output is_zero = ops::Equal(s, x, ops::ZerosLike(s, x));
  Output zeros = segments.Reduce("UnsortedSegmentSum", ops::Cast(s, is_zero, DType::kInt32));
  Output several = ops::Greater(s, zeros, ops::OnesLike(s, zeros));
  dy = ops::SelectV2(s, several, ops::ZerosLike(s, dy), dy);
  Output rest =
      segments.Reduce("UnsortedSegmentProd", ops::SelectV2(s, is_zero, ops::OnesLike(s, x), x));
  Output others = ops::SelectV2(s, is_zero, segments.Gather(rest),
                                ops::RealDiv(s, segments.Gather(c->output(0)), x));
  c->set_input_grad(0, ops::Mul(s, segments.GatherKept(dy), others));
  return s.status();
}

template <typename F>
struct Unsorted {
  template <typename T>
  using Kernel = UnsortedSegmentKernel<T, F>;
};

bool DefineUnsorted(const char* op, bool real, GradientFn gradient) {
  const bool sum = op == absl::string_view("UnsortedSegmentSum");
  OpBuilder b(op);
  b.Input("data: T")
      .Input("segment_ids: Tindices")
      .Input("num_segments: Tnumsegments")
      .Output("output: T")
      .Attr(real ? "T: realnumbertype" : "T: numbertype")
      .Attr(sum ? "Tindices: {int16, int32, int64}" : "Tindices: {int32, int64}")
      .Attr("Tnumsegments: {int32, int64} = DT_INT32")
      .Shape(UnsortedSegmentShape)
      .Gradient(std::move(gradient));
  const OpBuilder::Registrar registrar(b);
  return true;
}

template <typename F>
bool RegisterUnsorted(const char* op) {
  return RegisterForBoth<Unsorted<F>::template Kernel>(NumberTypes(), op, "T", {},
                                                       {"num_segments"});
}

[[maybe_unused]] const bool unsorted = DefineUnsorted("UnsortedSegmentSum", false, SumGradient) &&
                                       DefineUnsorted("UnsortedSegmentProd", false, ProdGradient) &&
                                       DefineUnsorted("UnsortedSegmentMax", true, ChoiceGradient) &&
                                       DefineUnsorted("UnsortedSegmentMin", true, ChoiceGradient) &&
                                       RegisterUnsorted<SumOf>("UnsortedSegmentSum") &&
                                       RegisterUnsorted<ProdOf>("UnsortedSegmentProd") &&
                                       RegisterUnsorted<MaxOf>("UnsortedSegmentMax") &&
                                       RegisterUnsorted<MinOf>("UnsortedSegmentMin");

// ---- Segment… ----

// How many segments sorted ids have: the last one's number and one.
absl::StatusOr<int64_t> CountSegments(const Tensor& ids) {
  const int64_t n = ids.num_elements();
  for (int64_t i = 0; i < n; ++i) {
    if (IntAt(ids, i) < 0) {
      return InvalidArgument("segment ids must be >= 0, found ", IntAt(ids, i));
    }
    if (i > 0 && IntAt(ids, i) < IntAt(ids, i - 1)) {
      return InvalidArgument(
          "segment ids are not increasing: ", ElementName("segment_ids", ids.shape(), i), " = ",
          IntAt(ids, i), " after ", IntAt(ids, i - 1));
    }
  }
  if (n == 0) return 0;
  int64_t segments;
  if (__builtin_add_overflow(IntAt(ids, n - 1), 1, &segments)) {
    return InvalidArgument("segment id ", IntAt(ids, n - 1), " is too large");
  }
  return segments;
}

// What is done with the sum of n rows at the end.
enum class Scale { kNone, kMean, kSqrtN };

// On a GPU ids and indices that say how large the result is, or that have to be checked, lie in
// host memory all the same: as what ReduceOnGpu takes.
using Numbers = std::vector<uint32_t>;
Numbers NumbersOf(const Tensor& t) {
  Numbers out(static_cast<size_t>(t.num_elements()));
  for (size_t i = 0; i < out.size(); ++i) {
    out[i] = static_cast<uint32_t>(IntAt(t, static_cast<int64_t>(i)));
  }
  return out;
}

// As gpu::ReduceRows and gpu::HostRows say; `from` and `counts` are empty where those have null.
absl::Status ReduceOnGpu(KernelContext* c, gpu::RowOp op, Scale scale, const Tensor& data,
                         const Numbers& to, const Numbers& from, const Numbers& counts,
                         int64_t rows, Tensor* out) {
  if (out->num_elements() == 0) return absl::OkStatus();
  if (data.dim(0) > std::numeric_limits<int32_t>::max()) {
    return Unimplemented("reducing some of ", data.dim(0), " rows on a GPU");
  }
  gpu::ReduceRows r = {op, data.dtype(), data.raw(), rows, out->num_elements() / rows, out->raw()};
  if (scale == Scale::kMean) r.scale = gpu::ReduceRows::kMean;
  if (scale == Scale::kSqrtN) r.scale = gpu::ReduceRows::kSqrtN;
  return gpu::LaunchOnGpu(c, [&](gpu::Call* call) {
    return gpu::Array().reduce_host_rows(
        call, r,
        {to.data(), from.empty() ? nullptr : from.data(), counts.empty() ? nullptr : counts.data(),
         static_cast<int64_t>(to.size())});
  });
}

// Floats of 16 bits are added up as floats.
template <typename T>
using SumType =
    std::conditional_t<std::is_same_v<T, half> || std::is_same_v<T, bfloat16>, float, T>;

template <typename T, typename F, Scale kScale>
class SegmentKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& data = c->input(0);
    const Tensor& ids = c->input(1);
    if (ids.rank() != 1) {
      return InvalidArgument("segment_ids should be a vector, found shape ",
                             ids.shape().DebugString());
    }
    if (data.rank() < 1 || data.dim(0) != ids.dim(0)) {
      return InvalidArgument("segment_ids should be the same size as dimension 0 of input, found ",
                             ids.shape().DebugString(), " for ", data.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const int64_t segments, CountSegments(ids));
    const auto d = data.shape().dims();
    Ints dims(d.begin(), d.end());
    dims[0] = segments;
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    const int64_t n = ids.num_elements(), inner = out->num_elements() / segments;
    if (c->gpu()) {
      return ReduceOnGpu(c, RowOpOf<typename F::Step>(), kScale, data, NumbersOf(ids), {}, {},
                         segments, out);
    }
    const T* const from = data.data<T>();
    T* const to = out->data<T>();
    // Segments without a row have 0, or 1 in products.
    const T none = std::is_same_v<F, ProdOf> ? T(1) : T(0);
    using S = SumType<T>;
    std::vector<S> sums(static_cast<size_t>(inner));
    for (int64_t i = 0, next = 0; i < n;) {
      const int64_t segment = IntAt(ids, i);
      std::fill(to + next * inner, to + segment * inner, none);
      next = segment + 1;
      std::copy_n(from + i * inner, inner, sums.begin());
      int64_t count = 1;
      for (++i; i < n && IntAt(ids, i) == segment; ++i, ++count) {
        for (int64_t k = 0; k < inner; ++k) {
          S& sum = sums[static_cast<size_t>(k)];
          sum = F::template Apply<S>(sum, static_cast<S>(from[i * inner + k]));
        }
      }
      for (int64_t k = 0; k < inner; ++k) {
        const S sum = sums[static_cast<size_t>(k)];
        if constexpr (kScale == Scale::kMean) {
          using Count = std::conditional_t<std::is_integral_v<S>, int64_t, S>;
          to[segment * inner + k] =
              static_cast<T>(static_cast<Count>(sum) / static_cast<Count>(count));
        } else {
          to[segment * inner + k] = static_cast<T>(sum);
        }
      }
    }
    return absl::OkStatus();
  }
};

absl::Status SegmentShape(InferenceContext* c) {
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
  FERRY_ASSIGN_OR_RETURN(PartialShape data, c->WithRankAtLeast(c->input(0), 1));
  if (!data.known_rank()) return absl::OkStatus();
  PartialShape out = {PartialShape::kUnknown};
  for (int i = 1; i < data.rank(); ++i) out.AddDim(data.dim(i));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

absl::Status MeanGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Segments segments = SegmentsOf(c);
  Output ones = ops::OnesLike(s, c->input(0));
  Output counts = segments.Reduce("UnsortedSegmentSum", ones);
  c->set_input_grad(0, segments.Gather(ops::DivNoNan(s, c->grad(0), counts)));
  return s.status();
}

template <typename F, Scale kScale = Scale::kNone>
struct Sorted {
  template <typename T>
  using Kernel = SegmentKernel<T, F, kScale>;
};

template <typename F, Scale kScale = Scale::kNone>
bool RegisterSorted(const char* op, bool real, GradientFn gradient) {
  OpBuilder b(op);
  b.Input("data: T")
      .Input("segment_ids: Tindices")
      .Output("output: T")
      .Attr(real ? "T: realnumbertype" : "T: numbertype")
      .Attr("Tindices: {int32, int64}")
      .Shape(SegmentShape)
      .Gradient(std::move(gradient));
  const OpBuilder::Registrar registrar(b);
  // Means of integers are the CPU's.
  using GpuTypes = std::conditional_t<kScale == Scale::kNone, NumberTypes, FloatTypes>;
  return RegisterCpu<Sorted<F, kScale>::template Kernel>(NumberTypes(), op) &&
         RegisterGpu<Sorted<F, kScale>::template Kernel>(GpuTypes(), op, "T", {}, {"segment_ids"});
}

[[maybe_unused]] const bool sorted =
    RegisterSorted<SumOf>("SegmentSum", false, SumGradient) &&
    RegisterSorted<SumOf, Scale::kMean>("SegmentMean", false, MeanGradient) &&
    RegisterSorted<ProdOf>("SegmentProd", false, ProdGradient) &&
    RegisterSorted<MaxOf>("SegmentMax", true, ChoiceGradient) &&
    RegisterSorted<MinOf>("SegmentMin", true, ChoiceGradient);

// ---- SparseSegment… ----

absl::Status CheckSparse(const Tensor& data, const Tensor& indices, const Tensor& ids) {
  if (data.rank() < 1) return InvalidArgument("input must be at least a vector");
  if (indices.rank() != 1) {
    return InvalidArgument("indices should be a vector, found shape ",
                           indices.shape().DebugString());
  }
  if (ids.rank() != 1) {
    return InvalidArgument("segment_ids should be a vector, found shape ",
                           ids.shape().DebugString());
  }
  if (ids.dim(0) != indices.dim(0)) {
    return InvalidArgument("segment_ids and indices should have same size, found ", ids.dim(0),
                           " and ", indices.dim(0));
  }
  return absl::OkStatus();
}

template <typename S>
S ScaleOf(Scale scale, int64_t count) {
  switch (scale) {
    case Scale::kNone:
      return S(1);
    case Scale::kMean:
      return static_cast<S>(count);
    case Scale::kSqrtN:
      return static_cast<S>(std::sqrt(static_cast<double>(count)));
  }
  return S(1);
}

template <typename T, Scale kScale>
class SparseSegmentKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& data = c->input(0);
    const Tensor& indices = c->input(1);
    const Tensor& ids = c->input(2);
    FERRY_RETURN_IF_ERROR(CheckSparse(data, indices, ids));
    FERRY_ASSIGN_OR_RETURN(int64_t segments, CountSegments(ids));
    if (c->num_inputs() > 3) {
      if (c->input(3).rank() != 0) {
        return InvalidArgument("num_segments should be a scalar, not shape ",
                               c->input(3).shape().DebugString());
      }
      FERRY_ASSIGN_OR_RETURN(const int64_t asked, c->InputAsInt(3));
      if (asked < segments) {
        return InvalidArgument("segment ids must be < num_segments, found ", segments - 1,
                               " with num_segments ", asked);
      }
      segments = asked;
    }
    const int64_t n = ids.num_elements(), rows = data.dim(0);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = IntAt(indices, i);
      if (at < 0 || at >= rows) {
        return InvalidArgument("indices[", i, "] == ", at, " out of range [0, ", rows, ")");
      }
    }
    const auto d = data.shape().dims();
    Ints dims(d.begin(), d.end());
    dims[0] = segments;
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (c->gpu()) {
      return ReduceOnGpu(c, gpu::RowOp::kAdd, kScale, data, NumbersOf(ids), NumbersOf(indices), {},
                         segments, out);
    }
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    if (out->num_elements() == 0) return absl::OkStatus();
    const int64_t inner = out->num_elements() / segments;
    const T* const from = data.data<T>();
    T* const to = out->data<T>();
    using S = SumType<T>;
    std::vector<S> sums(static_cast<size_t>(inner));
    for (int64_t i = 0; i < n;) {
      const int64_t segment = IntAt(ids, i);
      std::fill(sums.begin(), sums.end(), S(0));
      int64_t count = 0;
      for (; i < n && IntAt(ids, i) == segment; ++i, ++count) {
        const T* const row = from + IntAt(indices, i) * inner;
        for (int64_t k = 0; k < inner; ++k) {
          S& sum = sums[static_cast<size_t>(k)];
          sum = accumulate::Add::Apply<S>(sum, static_cast<S>(row[k]));
        }
      }
      for (int64_t k = 0; k < inner; ++k) {
        const S sum = sums[static_cast<size_t>(k)];
        to[segment * inner + k] =
            static_cast<T>(kScale == Scale::kNone ? sum : sum / ScaleOf<S>(kScale, count));
      }
    }
    return absl::OkStatus();
  }
};

// Of the ops for gradients, which have an input for the number of rows: how many rows each segment
// picks.
absl::StatusOr<std::vector<int64_t>> CountPicked(const KernelContext& c) {
  const Tensor &indices = c.input(1), &ids = c.input(2);
  if (c.input(3).rank() != 0) {
    return InvalidArgument("output_dim0 should be a scalar, not shape ",
                           c.input(3).shape().DebugString());
  }
  FERRY_ASSIGN_OR_RETURN(const int64_t rows, c.InputAsInt(3));
  if (rows < 0) return InvalidArgument("output_dim0 must not be negative, found ", rows);
  const int64_t segments = c.input(0).dim(0);
  std::vector<int64_t> counts(static_cast<size_t>(segments), 0);
  for (int64_t i = 0; i < ids.num_elements(); ++i) {
    const int64_t segment = IntAt(ids, i), at = IntAt(indices, i);
    if (segment < 0 || segment >= segments) {
      return InvalidArgument("Segment id ", segment, " out of range [0, ", segments, ")");
    }
    if (at < 0 || at >= rows) {
      return InvalidArgument("Index ", at, " out of range [0, ", rows, ")");
    }
    ++counts[static_cast<size_t>(segment)];
  }
  return counts;
}

// Adds to row row_of(i) of `to` the row of `grad` that ids[i] names, divided by its scale.
template <typename T, typename RowOf>
void AddPicked(const Tensor& grad, const Tensor& ids, Scale scaled,
               const std::vector<int64_t>& counts, int64_t inner, T* to, RowOf row_of) {
  const T* const from = grad.data<T>();
  using S = SumType<T>;
  for (int64_t i = 0; i < ids.num_elements(); ++i) {
    const int64_t segment = IntAt(ids, i);
    const S scale = ScaleOf<S>(scaled, counts[static_cast<size_t>(segment)]);
    T* const row = to + row_of(i) * inner;
    for (int64_t k = 0; k < inner; ++k) {
      row[k] = static_cast<T>(static_cast<S>(row[k]) +
                              static_cast<S>(from[segment * inner + k]) / scale);
    }
  }
}

// Each row of the gradient, divided by its segment's scale, added to where the segment's rows were
// taken from.
template <typename T, Scale kScale>
class SparseSegmentGradKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& grad = c->input(0);
    const Tensor& indices = c->input(1);
    const Tensor& ids = c->input(2);
    FERRY_RETURN_IF_ERROR(CheckSparse(grad, indices, ids));
    FERRY_ASSIGN_OR_RETURN(const std::vector<int64_t> counts, CountPicked(*c));
    FERRY_ASSIGN_OR_RETURN(const int64_t rows, c->InputAsInt(3));
    const auto d = grad.shape().dims();
    Ints dims(d.begin(), d.end());
    dims[0] = rows;
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (c->gpu()) return AddOnGpu(c, grad, NumbersOf(indices), NumbersOf(ids), counts, rows, out);
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    if (out->num_elements() == 0) return absl::OkStatus();
    AddPicked<T>(grad, ids, kScale, counts, out->num_elements() / rows, out->data<T>(),
                 [&](int64_t i) { return IntAt(indices, i); });
    return absl::OkStatus();
  }

  // counts[id]: how many rows segment `id` has.
  static absl::Status AddOnGpu(KernelContext* c, const Tensor& grad, const Numbers& indices,
                               const Numbers& ids, const std::vector<int64_t>& counts, int64_t rows,
                               Tensor* out) {
    std::vector<size_t> order(indices.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return indices[a] < indices[b]; });
    Numbers to, from, shares;
    for (const size_t i : order) {
      to.push_back(indices[i]);
      from.push_back(ids[i]);
      if (kScale != Scale::kNone) shares.push_back(static_cast<uint32_t>(counts[ids[i]]));
    }
    return ReduceOnGpu(c, gpu::RowOp::kAdd, kScale, grad, to, from, shares, rows, out);
  }
};

// The same for the rows that were taken alone: output 1 says in order which those are.
template <typename T, Scale kScale>
class SparseSegmentRowsGradKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& grad = c->input(0);
    const Tensor& indices = c->input(1);
    const Tensor& ids = c->input(2);
    FERRY_RETURN_IF_ERROR(CheckSparse(grad, indices, ids));
    FERRY_ASSIGN_OR_RETURN(const std::vector<int64_t> counts, CountPicked(*c));
    const int64_t n = ids.num_elements();
    std::vector<int64_t> picked(static_cast<size_t>(n));
    for (int64_t i = 0; i < n; ++i) picked[static_cast<size_t>(i)] = IntAt(indices, i);
    std::sort(picked.begin(), picked.end());
    picked.erase(std::unique(picked.begin(), picked.end()), picked.end());
    const auto d = grad.shape().dims();
    Ints dims(d.begin(), d.end());
    dims[0] = static_cast<int64_t>(picked.size());
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    FERRY_ASSIGN_OR_RETURN(Tensor * which, c->AllocateOutput(1, TensorShape{dims[0]}));
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    for (size_t i = 0; i < picked.size(); ++i) {
      if (which->dtype() == DType::kInt32) {
        which->data<int32_t>()[i] = static_cast<int32_t>(picked[i]);
      } else {
        which->data<int64_t>()[i] = picked[i];
      }
    }
    if (out->num_elements() == 0) return absl::OkStatus();
    AddPicked<T>(
        grad, ids, kScale, counts, out->num_elements() / dims[0], out->data<T>(), [&](int64_t i) {
          return std::lower_bound(picked.begin(), picked.end(), IntAt(indices, i)) - picked.begin();
        });
    return absl::OkStatus();
  }
};

template <Scale kScale>
struct Picked {
  template <typename T>
  using Kernel = SparseSegmentKernel<T, kScale>;
  template <typename T>
  using Grad = SparseSegmentGradKernel<T, kScale>;
  template <typename T>
  using RowsGrad = SparseSegmentRowsGradKernel<T, kScale>;
};

absl::Status SparseSegmentShape(InferenceContext* c) {
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(2), 1).status());
  FERRY_ASSIGN_OR_RETURN(PartialShape data, c->WithRankAtLeast(c->input(0), 1));
  if (!data.known_rank()) return absl::OkStatus();
  PartialShape out = {PartialShape::kUnknown};
  if (c->num_inputs() > 3) {
    FERRY_RETURN_IF_ERROR(c->WithRank(c->input(3), 0).status());
    out = {c->ValueAsInt(3)};
  }
  for (int i = 1; i < data.rank(); ++i) out.AddDim(data.dim(i));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

absl::Status RowsGradShape(InferenceContext* c) {
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(2), 1).status());
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(3), 0).status());
  FERRY_ASSIGN_OR_RETURN(const PartialShape grad, c->WithRankAtLeast(c->input(0), 1));
  c->set_output(1, {PartialShape::kUnknown});
  if (!grad.known_rank()) return absl::OkStatus();
  PartialShape out = {PartialShape::kUnknown};
  for (int i = 1; i < grad.rank(); ++i) out.AddDim(grad.dim(i));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// SparseSegment<name>, the same WithNumSegments, SparseSegment<name>Grad and its version 2.
template <Scale kScale>
bool RegisterPicked(const std::string& name) {
  const std::string base = "SparseSegment" + name, grad = base + "Grad";
  for (const bool counted : {false, true}) {
    const std::string op = base + (counted ? "WithNumSegments" : "");
    OpBuilder b(op);
    b.Input("data: T").Input("indices: Tidx").Input("segment_ids: Tsegmentids");
    if (counted) b.Input("num_segments: Tnumsegments");
    b.Output("output: T")
        .Attr(kScale == Scale::kNone ? "T: realnumbertype" : "T: {bfloat16, half, float, double}")
        .Attr("Tidx: {int32, int64} = DT_INT32");
    if (counted) b.Attr("Tnumsegments: {int32, int64} = DT_INT32");
    b.Attr("Tsegmentids: {int32, int64} = DT_INT32")
        .Attr("sparse_gradient: bool = false")
        .Shape(SparseSegmentShape)
        .Gradient([grad](GradientContext* c) -> absl::Status {
          const Scope& s = c->scope();
          const auto one = [&s](int32_t i) { return ops::ConstVector<int32_t>(s, {i}); };
          Output rows = ops::StridedSlice(s, ops::Shape(s, c->input(0)), one(0), one(1), one(1),
                                          {/*begin=*/0, /*end=*/0, /*ellipsis=*/0,
                                           /*new_axis=*/0, /*shrink_axis=*/1});
          c->set_input_grad(0, NodeBuilder(s, grad)
                                   .Input(c->grad(0))
                                   .Input(c->input(1))
                                   .Input(c->input(2))
                                   .Input(rows)
                                   .BuildOutput());
          return s.status();
        });
    const OpBuilder::Registrar registrar(b);
    using AllTypes = std::conditional_t<kScale == Scale::kNone, NumberTypes, FloatTypes>;
    RegisterForBoth<Picked<kScale>::template Kernel>(AllTypes(), op, "T", {},
                                                     {"indices", "segment_ids", "num_segments"});
  }
  for (const bool rows : {false, true}) {
    OpBuilder b(grad + (rows ? "V2" : ""));
    b.Input("grad: T").Input("indices: Tidx").Input("segment_ids: Tsegmentids");
    b.Input(rows ? "dense_output_dim0: int32" : "output_dim0: int32").Output("output: T");
    if (rows) b.Output("sorted_unique_indices: Tidx");
    b.Attr("T: {bfloat16, half, float, double}")
        .Attr("Tidx: {int32, int64} = DT_INT32")
        .Attr("Tsegmentids: {int32, int64} = DT_INT32")
        .Shape(rows ? RowsGradShape : SparseSegmentShape);
    const OpBuilder::Registrar registrar(b);
  }
  return RegisterForBoth<Picked<kScale>::template Grad>(
             FloatTypes(), grad, "T", {}, {"indices", "segment_ids", "output_dim0"}) &&
         RegisterCpu<Picked<kScale>::template RowsGrad>(FloatTypes(), grad + "V2");
}

[[maybe_unused]] const bool picked = RegisterPicked<Scale::kNone>("Sum") &&
                                     RegisterPicked<Scale::kMean>("Mean") &&
                                     RegisterPicked<Scale::kSqrtN>("SqrtN");

}  // namespace
}  // namespace ferry
