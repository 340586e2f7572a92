// TopK and TopKV2: the k greatest elements of each row, and their places.
#include <algorithm>
#include <cmath>
#include <numeric>
#include <optional>
#include <vector>

#include "kernels/array.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

absl::Status CheckK(int64_t k) {
  return k < 0 ? InvalidArgument("Need k >= 0, got ", k) : absl::OkStatus();
}
absl::Status CheckColumns(int64_t k, int64_t columns) {
  return columns < k
             ? InvalidArgument("input must have at least k columns. Had ", columns, ", needed ", k)
             : absl::OkStatus();
}

void SetInt(Tensor* t, int64_t i, int64_t value) {
  switch (t->dtype()) {
    case DType::kInt64:
      t->data<int64_t>()[i] = value;
      return;
    case DType::kInt32:
      t->data<int32_t>()[i] = static_cast<int32_t>(value);
      return;
    default:
      t->data<int16_t>()[i] = static_cast<int16_t>(value);
  }
}

// The greatest first, and of equal ones the first in its row; without "sorted" any order will do.
template <typename T>
class TopKKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    if (c.op() == "TopKV2") return absl::OkStatus();
    FERRY_ASSIGN_OR_RETURN(k_, c.Attr<int64_t>("k"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    int64_t k = k_;
    if (c->num_inputs() == 2) {
      const Tensor& given = c->input(1);
      if (given.rank() != 0) {
        return InvalidArgument("k must be scalar, got shape ", given.shape().DebugString());
      }
      k = IntAt(given, 0);
    }
    FERRY_RETURN_IF_ERROR(CheckK(k));
    if (in.rank() < 1) {
      return InvalidArgument("input must be >= 1-D, got shape ", in.shape().DebugString());
    }
    const int64_t columns = in.dim(in.rank() - 1);
    FERRY_RETURN_IF_ERROR(CheckColumns(k, columns));
    const auto dims = in.shape().dims();
    Ints sizes(dims.begin(), dims.end());
    sizes.back() = k;
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(sizes));
    FERRY_ASSIGN_OR_RETURN(Tensor * values, c->AllocateOutput(0, shape));
    FERRY_ASSIGN_OR_RETURN(Tensor * indices, c->AllocateOutput(1, shape));
    if (values->num_elements() == 0) return absl::OkStatus();
    const int64_t rows = in.num_elements() / columns;
    const T* from = in.data<T>();
    T* to = values->data<T>();
    c->ParallelFor(rows, std::max<int64_t>(1, 4096 / columns), [&](int64_t begin, int64_t end) {
      std::vector<int64_t> order(static_cast<size_t>(columns));
      for (int64_t r = begin; r < end; ++r) {
        const T* row = from + r * columns;
        std::iota(order.begin(), order.end(), 0);
        std::partial_sort(order.begin(), order.begin() + k, order.end(),
                          [row](int64_t a, int64_t b) { return Before(row, a, b); });
        for (int64_t i = 0; i < k; ++i) {
          const int64_t at = order[static_cast<size_t>(i)];
          to[r * k + i] = row[at];
          SetInt(indices, r * k + i, at);
        }
      }
    });
    return absl::OkStatus();
  }

 private:
  // A strict order whatever the elements are: a NaN comes after all numbers.
  static bool Before(const T* row, int64_t a, int64_t b) {
    if (row[a] > row[b]) return true;
    if (row[a] < row[b]) return false;
    const bool a_nan = row[a] != row[a], b_nan = row[b] != row[b];
    return a_nan != b_nan ? b_nan : a < b;
  }
  int64_t k_ = 0;
};

absl::Status TopKShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(PartialShape out, c->WithRankAtLeast(c->input(0), 1));
  std::optional<int64_t> k;
  if (c->num_inputs() == 2) {
    FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 0).status());
    if (c->value(1)) k = IntAt(*c->value(1), 0);
  } else {
    FERRY_ASSIGN_OR_RETURN(k, c->Attr<int64_t>("k"));
  }
  if (k) FERRY_RETURN_IF_ERROR(CheckK(*k));
  if (out.known_rank()) {
    const int64_t columns = out.dim(-1);
    if (k && columns != PartialShape::kUnknown) FERRY_RETURN_IF_ERROR(CheckColumns(*k, columns));
    out.set_dim(out.rank() - 1, k ? *k : PartialShape::kUnknown);
  }
  c->set_output(0, out);
  c->set_output(1, std::move(out));
  return absl::OkStatus();
}

// dy goes to the places that the values were taken from.
absl::Status TopKGradient(GradientContext* c) {
  const Scope& s = c->scope();
  if (c->grad(0).node == nullptr) return absl::OkStatus();
  const auto last = [&](Output shape) {  // Its last element, as a vector.
    return ops::StridedSlice(s, shape, ops::ConstVector<int32_t>(s, {-1}),
                             ops::ConstVector<int32_t>(s, {0}), ops::ConstVector<int32_t>(s, {1}),
                             {/*begin=*/0, /*end=*/1});
  };
  const auto scalar = [&](Output one) {
    return ops::Reshape(s, one, ops::ConstVector<int32_t>(s, {}));
  };
  const Output in_shape = ops::Shape(s, c->input(0)), out_shape = ops::Shape(s, c->output(0));
  const Output columns = scalar(last(in_shape));
  const Output zero = ops::Const<int32_t>(s, 0);
  const Output rows_of_k =
      ops::ConcatV2(s, {ops::ConstVector<int32_t>(s, {-1}), last(out_shape)}, zero);
  const Output places = ops::Reshape(s, ops::Cast(s, c->output(1), DType::kInt32), rows_of_k);
  const Output first = ops::Range(s, zero, ops::Size(s, c->input(0)),
                                  ops::Maximum(s, columns, ops::Const<int32_t>(s, 1)));
  const Output flat =
      ops::Reshape(s, ops::Add(s, places, ops::ExpandDims(s, first, ops::Const<int32_t>(s, -1))),
                   ops::ConstVector<int32_t>(s, {-1, 1}));
  const Output scattered =
      NodeBuilder(s, "ScatterNd")
          .Input(flat)
          .Input(ops::Reshape(s, c->grad(0), ops::ConstVector<int32_t>(s, {-1})))
          .Input(ops::Reshape(s, ops::Size(s, c->input(0)), ops::ConstVector<int32_t>(s, {1})))
          .BuildOutput();
  c->set_input_grad(0, ops::Reshape(s, scattered, in_shape));
  return s.status();
}

FERRY_OP("TopK")
    .Input("input: T")
    .Output("values: T")
    .Output("indices: int32")
    .Attr("k: int >= 0")
    .Attr("sorted: bool = true")
    .Attr("T: realnumbertype")
    .Shape(TopKShape)
    .Gradient(TopKGradient);
FERRY_OP("TopKV2")
    .Input("input: T")
    .Input("k: Tk")
    .Output("values: T")
    .Output("indices: index_type")
    .Attr("sorted: bool = true")
    .Attr("T: realnumbertype")
    .Attr("Tk: {int16, int32, int64} = DT_INT32")
    .Attr("index_type: {int16, int32, int64} = DT_INT32")
    .Shape(TopKShape)
    .Gradient(TopKGradient);

const bool registered = RegisterCpu<TopKKernel>(NumberTypes(), "TopK") &&
                        RegisterCpu<TopKKernel>(NumberTypes(), "TopKV2");

}  // namespace
}  // namespace ferry
