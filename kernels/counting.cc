// Bincount, DenseBincount: how often each number occurs, or the sum of the weights where it does;
// HistogramFixedWidth; and SparseToDense.
#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>

#include "absl/strings/str_join.h"
#include "kernels/array.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// ---- Bincount, DenseBincount ----

// Of each row of a matrix, or of all elements of another tensor. Numbers from `size` on are left
// out.
template <typename T>
class BincountKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    dense_ = c.op() == "DenseBincount";
    if (dense_) {
      FERRY_ASSIGN_OR_RETURN(binary_, c.Attr<bool>("binary_output"));
    }
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor &in = c->input(0), &weights = c->input(2);
    if (c->input(1).rank() != 0) {
      return InvalidArgument("size must be a scalar, found shape ",
                             c->input(1).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const int64_t size, c->InputAsInt(1));
    if (size < 0) return InvalidArgument("size (", size, ") must be non-negative");
    if (dense_ && in.rank() > 2) {
      return InvalidArgument("input must be at most rank 2, found shape ",
                             in.shape().DebugString());
    }
    if (weights.num_elements() != 0 &&
        (dense_ ? weights.shape() != in.shape() : weights.num_elements() != in.num_elements())) {
      return InvalidArgument(
          "Input indices and weights must have the same size, or weights none: found ",
          in.shape().DebugString(), " and ", weights.shape().DebugString());
    }
    const bool by_row = dense_ && in.rank() == 2;
    const int64_t rows = by_row ? in.dim(0) : 1;
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape,
                           by_row ? TensorShape::Make({rows, size}) : TensorShape::Make({size}));
    const int64_t n = in.num_elements();
    for (int64_t i = 0; i < n; ++i) {
      if (IntAt(in, i) < 0) {
        return InvalidArgument("Input arr must be non-negative! found ", IntAt(in, i));
      }
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    T* const bins = out->data<T>();
    const T* const weight = weights.num_elements() == 0 ? nullptr : weights.data<T>();
    for (int64_t i = 0; i < n; ++i) {
      const int64_t value = IntAt(in, i);
      if (value >= size) continue;
      T& bin = bins[i / (n / rows) * size + value];
      bin = binary_ ? T(1) : static_cast<T>(bin + (weight ? weight[i] : T(1)));
    }
    return absl::OkStatus();
  }
  bool dense_ = false, binary_ = false;
};

FERRY_OP("Bincount")
    .Input("arr: int32")
    .Input("size: int32")
    .Input("weights: T")
    .Output("bins: T")
    .Attr("T: {int32, int64, float, double}")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 0).status());
      const std::optional<int64_t> size = KnownInt(c, 1);
      if (size && *size < 0) {
        return InvalidArgument("size (", *size, ") must be non-negative");
      }
      c->set_output(0, {size ? *size : PartialShape::kUnknown});
      return absl::OkStatus();
    })
    .NotDifferentiable();

FERRY_OP("DenseBincount")
    .Input("input: Tidx")
    .Input("size: Tidx")
    .Input("weights: T")
    .Output("output: T")
    .Attr("Tidx: {int32, int64}")
    .Attr("T: {int32, int64, float, double}")
    .Attr("binary_output: bool = false")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const PartialShape in, c->WithRankAtMost(c->input(0), 2));
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 0).status());
      const std::optional<int64_t> size = KnownInt(c, 1);
      if (size && *size < 0) {
        return InvalidArgument("size (", *size, ") must be non-negative");
      }
      if (!in.known_rank()) return absl::OkStatus();
      PartialShape out = PartialShape::Scalar();
      if (in.rank() == 2) out.AddDim(in.dim(0));
      out.AddDim(size ? *size : PartialShape::kUnknown);
      c->set_output(0, std::move(out));
      return absl::OkStatus();
    })
    .NotDifferentiable();

const bool bincount =
    RegisterCpu<BincountKernel>(Types<int32_t, int64_t, float, double>(), "Bincount") &&
    RegisterCpu<BincountKernel>(Types<int32_t, int64_t, float, double>(), "DenseBincount");

// ---- HistogramFixedWidth ----

// How many values fall into each of bins of equal width; those outside count for the first or last.
template <typename T>
class HistogramKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &values = c->input(0), &range = c->input(1);
    if (range.rank() != 1 || range.dim(0) != 2) {
      return InvalidArgument("value_range should be a vector of 2 elements, but got shape ",
                             range.shape().DebugString());
    }
    if (c->input(2).rank() != 0) {
      return InvalidArgument("nbins should be a scalar, but got shape ",
                             c->input(2).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const int64_t bins, c->InputAsInt(2));
    if (bins <= 0)
      return InvalidArgument("nbins should be a positive number, but got '", bins, "'");
    const T low = range.data<T>()[0], high = range.data<T>()[1];
    if (!(low < high)) {
      return InvalidArgument(
          "value_range should satisfy value_range[0] < value_range[1], but got '[",
          static_cast<double>(low), ", ", static_cast<double>(high), "]'");
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape{bins}));
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    const double step =
        (static_cast<double>(high) - static_cast<double>(low)) / static_cast<double>(bins);
    for (int64_t i = 0; i < values.num_elements(); ++i) {
      const T value = values.data<T>()[i];
      const double at = (static_cast<double>(value) - static_cast<double>(low)) / step;
      const int64_t bin = !(value > low)    ? 0
                          : !(value < high) ? bins - 1
                                            : std::min(bins - 1, static_cast<int64_t>(at));
      if (out->dtype() == DType::kInt32) {
        ++out->data<int32_t>()[bin];
      } else {
        ++out->data<int64_t>()[bin];
      }
    }
    return absl::OkStatus();
  }
};

FERRY_OP("HistogramFixedWidth")
    .Input("values: T")
    .Input("value_range: T")
    .Input("nbins: int32")
    .Output("out: dtype")
    .Attr("T: {int32, int64, float, double}")
    .Attr("dtype: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(2), 0).status());
      const std::optional<int64_t> bins = KnownInt(c, 2);
      c->set_output(0, {bins && *bins > 0 ? *bins : PartialShape::kUnknown});
      return absl::OkStatus();
    })
    .NotDifferentiable();

const bool histogram =
    RegisterCpu<HistogramKernel>(Types<int32_t, int64_t, float, double>(), "HistogramFixedWidth");

// ---- SparseToDense ----

class SparseToDenseKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(validate_, c.Attr<bool>("validate_indices"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor &indices = c->input(0), &values = c->input(2), &rest = c->input(3);
    if (indices.rank() > 2) {
      return InvalidArgument("sparse_indices should be a scalar, vector, or matrix, got shape ",
                             indices.shape().DebugString());
    }
    if (c->input(1).rank() != 1) {
      return InvalidArgument("output_shape must be rank 1, got shape ",
                             c->input(1).shape().DebugString());
    }
    const int64_t n = indices.rank() > 0 ? indices.dim(0) : 1;
    const int64_t depth = indices.rank() > 1 ? indices.dim(1) : 1;
    if (c->input(1).dim(0) != depth) {
      return InvalidArgument("output_shape has incorrect number of elements: ", c->input(1).dim(0),
                             " should be: ", depth);
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, c->InputAsShape(1));
    if (values.rank() != 0 && (values.rank() != 1 || values.dim(0) != n)) {
      return InvalidArgument("sparse_values has incorrect shape ", values.shape().DebugString(),
                             ", should be [] or [", n, "]");
    }
    if (rest.rank() != 0) return InvalidArgument("default_value should be a scalar.");
    Ints places;
    for (int64_t i = 0; i < n; ++i) {
      int64_t at = 0;
      for (int64_t d = 0; d < depth; ++d) {
        const int64_t index = IntAt(indices, i * depth + d), size = shape.dim(static_cast<int>(d));
        if (index < 0 || index >= size) {
          return validate_
                     ? InvalidArgument(Row(indices, i, depth),
                                       " is out of bounds: need 0 <= index < ", shape.DebugString())
                     : InvalidArgument("Indices are not valid (out of bounds).  Shape: ",
                                       shape.DebugString());
        }
        at = at * size + index;
      }
      if (validate_ && i > 0 && at <= places.back()) {
        return InvalidArgument(Row(indices, i, depth), at == places.back()
                                                           ? " is repeated"
                                                           : " is out of order. Many sparse ops "
                                                             "require sorted indices.");
      }
      places.push_back(at);
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (out->num_elements() == 0) return absl::OkStatus();
    FERRY_RETURN_IF_ERROR(FillWith(c, rest, out));
    return ForWidth(out->dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = static_cast<const T*>(values.raw());
      for (size_t i = 0; i < places.size(); ++i) {
        static_cast<T*>(out->raw())[places[i]] = from[values.rank() == 0 ? 0 : i];
      }
    });
  }
  // "indices[1] = [0,2]"
  static std::string Row(const Tensor& indices, int64_t i, int64_t depth) {
    Ints row;
    for (int64_t d = 0; d < depth; ++d) row.push_back(IntAt(indices, i * depth + d));
    return absl::StrCat("indices[", i, "] = [", absl::StrJoin(row, ","), "]");
  }
  bool validate_ = true;
};

FERRY_OP("SparseToDense")
    .Input("sparse_indices: Tindices")
    .Input("output_shape: Tindices")
    .Input("sparse_values: T")
    .Input("default_value: T")
    .Output("dense: T")
    .Attr("validate_indices: bool = true")
    .Attr("T: type")
    .Attr("Tindices: {int32, int64}")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape out, c->ValueAsShape(1));
      c->set_output(0, std::move(out));
      return absl::OkStatus();
    })
    // The values get the gradients from their places, the default value all others.
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      Output indices = c->input(0), dy = c->grad(0);
      // A scalar or vector of indices as a matrix.
      const Output depth = ops::Size(s, c->input(1));
      indices = ops::Reshape(s, indices, ops::Pack(s, {ops::Const<int32_t>(s, -1), depth}));
      const Output taken = NodeBuilder(s, "GatherNd").Input(dy).Input(indices).BuildOutput();
      const Output all = ops::ReduceSum(s, taken);
      c->set_input_grad(3, ops::Sub(s, ops::ReduceSum(s, dy), all));
      const PartialShape& values = c->input(2).shape();
      if (values.known_rank() && values.rank() == 0) {
        c->set_input_grad(2, all);
      } else {
        c->set_input_grad(2, ops::Reshape(s, taken, ops::Shape(s, c->input(2))));
      }
      return s.status();
    });
FERRY_KERNEL("SparseToDense")
    .Type("T", {DType::kHalf, DType::kBfloat16, DType::kFloat, DType::kDouble, DType::kInt8,
                DType::kInt16, DType::kInt32, DType::kInt64, DType::kUint8, DType::kUint16,
                DType::kUint32, DType::kUint64, DType::kBool, DType::kString})
    .Make<SparseToDenseKernel>();

}  // namespace
}  // namespace ferry
