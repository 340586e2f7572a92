// Ops on sparse tensors, which are three tensors: the positions of their elements (a row of indices
// an element), the elements, and the dense shape. SparseTensorDenseMatMul, SparseFillEmptyRows and
// its gradient, SparseReshape, SparseReorder.
#include <algorithm>
#include <numeric>
#include <type_traits>
#include <utility>
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

// ---- SparseTensorDenseMatMul ----

// Matrices; `adjoint` of one takes its columns for rows.
template <typename T>
class SparseMatMulKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(adjoint_a_, c.Attr<bool>("adjoint_a"));
    FERRY_ASSIGN_OR_RETURN(adjoint_b_, c.Attr<bool>("adjoint_b"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor &at = c->input(0), &values = c->input(1), &b = c->input(3);
    if (b.rank() != 2) {
      return InvalidArgument("Tensor 'b' is not a matrix, found shape ", b.shape().DebugString());
    }
    if (c->input(2).rank() != 1) return InvalidArgument("Tensor 'a_shape' is not a vector");
    FERRY_ASSIGN_OR_RETURN(const TensorShape a, c->InputAsShape(2));
    if (a.rank() != 2) {
      return InvalidArgument("Tensor 'a_shape' must have 2 elements, found ", a.rank());
    }
    if (values.rank() != 1) return InvalidArgument("Tensor 'a_values' is not a vector");
    if (at.rank() != 2 || at.dim(1) != 2 || at.dim(0) != values.dim(0)) {
      return InvalidArgument("a_indices must be a matrix with a row of 2 for each of ",
                             values.dim(0), " a_values, found shape ", at.shape().DebugString());
    }
    const int64_t rows = a.dim(adjoint_a_ ? 1 : 0), inner = a.dim(adjoint_a_ ? 0 : 1);
    const int64_t columns = b.dim(adjoint_b_ ? 0 : 1);
    if (inner != b.dim(adjoint_b_ ? 1 : 0)) {
      return InvalidArgument(
          "Cannot multiply A and B because inner dimension does not match: ", inner, " vs. ",
          b.dim(adjoint_b_ ? 1 : 0), ".  Did you forget a transpose?  Dimensions of A: [", a.dim(0),
          ", ", a.dim(1), ").  Dimensions of B: ", b.shape().DebugString());
    }
    const int64_t n = values.dim(0);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = IntAt(at, 2 * i + (adjoint_a_ ? 1 : 0));
      const int64_t k = IntAt(at, 2 * i + (adjoint_a_ ? 0 : 1));
      if (k < 0 || k >= inner) {
        return InvalidArgument("k (", k, ") from index[", i, ",", adjoint_a_ ? 0 : 1,
                               "] out of bounds (>=", inner, ")");
      }
      if (row < 0 || row >= rows) {
        return InvalidArgument("m (", row, ") from index[", i, ",", adjoint_a_ ? 1 : 0,
                               "] out of bounds (>=", rows, ")");
      }
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make({rows, columns}));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    if (out->num_elements() == 0 || n == 0) return absl::OkStatus();
    // 16-bit floats are added up as floats.
    T* const to = out->data<T>();
    if constexpr (std::is_same_v<Sum, T>) {
      Multiply(c, at, values, b, columns, to);
    } else {
      FERRY_ASSIGN_OR_RETURN(void* const scratch,
                             c->Scratch(static_cast<size_t>(rows * columns) * sizeof(Sum)));
      Sum* const sums = static_cast<Sum*>(scratch);
      std::fill_n(sums, rows * columns, Sum(0));
      Multiply(c, at, values, b, columns, sums);
      for (int64_t i = 0; i < rows * columns; ++i) to[i] = static_cast<T>(sums[i]);
    }
    return absl::OkStatus();
  }

  // Threads share the columns, so that each sum is made in the elements' order.
  using Sum =
      std::conditional_t<(std::is_same_v<T, half> || std::is_same_v<T, bfloat16>), float, T>;
  void Multiply(KernelContext* c, const Tensor& at, const Tensor& values, const Tensor& b,
                int64_t columns, Sum* to) const {
    const int64_t n = values.dim(0), b_row = adjoint_b_ ? 1 : b.dim(1);
    const int64_t b_column = adjoint_b_ ? b.dim(1) : 1;
    const T* const from = b.data<T>();
    using Wrapping = std::conditional_t<std::is_same_v<T, int32_t>, uint32_t, Sum>;
    c->ParallelFor(columns, std::max<int64_t>(16, 16384 / n), [&](int64_t begin, int64_t end) {
      for (int64_t i = 0; i < n; ++i) {
        const int64_t row = IntAt(at, 2 * i + (adjoint_a_ ? 1 : 0));
        const int64_t k = IntAt(at, 2 * i + (adjoint_a_ ? 0 : 1));
        const Wrapping value = static_cast<Wrapping>(values.data<T>()[i]);
        Sum* const sums = to + row * columns;
        const T* const factors = from + k * b_row;
        if (b_column == 1) {
          for (int64_t j = begin; j < end; ++j) {
            sums[j] = static_cast<Sum>(static_cast<Wrapping>(sums[j]) +
                                       value * static_cast<Wrapping>(factors[j]));
          }
        } else {
          for (int64_t j = begin; j < end; ++j) {
            sums[j] = static_cast<Sum>(static_cast<Wrapping>(sums[j]) +
                                       value * static_cast<Wrapping>(factors[j * b_column]));
          }
        }
      }
    });
  }

  bool adjoint_a_ = false, adjoint_b_ = false;
};

absl::Status SparseMatMulShape(InferenceContext* c) {
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(0), 2).status());
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
  FERRY_ASSIGN_OR_RETURN(const bool adjoint_a, c->Attr<bool>("adjoint_a"));
  FERRY_ASSIGN_OR_RETURN(const bool adjoint_b, c->Attr<bool>("adjoint_b"));
  FERRY_ASSIGN_OR_RETURN(PartialShape a, c->ValueAsShape(2));
  FERRY_ASSIGN_OR_RETURN(a, c->WithRank(a, 2));
  FERRY_ASSIGN_OR_RETURN(const PartialShape b, c->WithRank(c->input(3), 2));
  const auto of = [](const PartialShape& s, bool second) {
    return s.known_rank() ? s.dim(second ? 1 : 0) : PartialShape::kUnknown;
  };
  const int64_t inner_a = of(a, !adjoint_a), inner_b = of(b, adjoint_b);
  if (inner_a >= 0 && inner_b >= 0 && inner_a != inner_b) {
    return InvalidArgument("Dimensions must be equal, but are ", inner_a, " and ", inner_b);
  }
  c->set_output(0, {of(a, adjoint_a), of(b, !adjoint_b)});
  return absl::OkStatus();
}

// The product is linear in both: the elements' gradients are products of rows of dy and of b.
absl::Status SparseMatMulGradient(GradientContext* c) {
  const Scope& s = c->scope();
  FERRY_ASSIGN_OR_RETURN(const bool adjoint_a, c->Attr<bool>("adjoint_a"));
  FERRY_ASSIGN_OR_RETURN(const bool adjoint_b, c->Attr<bool>("adjoint_b"));
  const Output at = c->input(0), b = c->input(3), dy = c->grad(0);
  const auto transposed = [&s](Output x) {
    return ops::Transpose(s, x, ops::ConstVector<int32_t>(s, {1, 0}));
  };
  const Output db = NodeBuilder(s, "SparseTensorDenseMatMul")
                        .Input(at)
                        .Input(c->input(1))
                        .Input(c->input(2))
                        .Input(dy)
                        .Attr("adjoint_a", !adjoint_a)
                        .BuildOutput();
  c->set_input_grad(3, adjoint_b ? transposed(db) : db);
  const auto indices = [&](int column) {
    return ops::GatherV2(s, at, ops::Const<int32_t>(s, column), ops::Const<int32_t>(s, 1));
  };
  const auto rows = [&](Output of, int column) {
    return ops::GatherV2(s, of, indices(column), ops::Const<int32_t>(s, 0));
  };
  c->set_input_grad(1, ops::Sum(s,
                                ops::Mul(s, rows(dy, adjoint_a ? 1 : 0),
                                         rows(adjoint_b ? transposed(b) : b, adjoint_a ? 0 : 1)),
                                ops::ConstVector<int32_t>(s, {1})));
  return s.status();
}

FERRY_OP("SparseTensorDenseMatMul")
    .Input("a_indices: Tindices")
    .Input("a_values: T")
    .Input("a_shape: int64")
    .Input("b: T")
    .Output("product: T")
    .Attr("T: type")
    .Attr("Tindices: {int32, int64} = DT_INT64")
    .Attr("adjoint_a: bool = false")
    .Attr("adjoint_b: bool = false")
    .Shape(SparseMatMulShape)
    .Gradient(SparseMatMulGradient);

const bool products =
    RegisterCpu<SparseMatMulKernel>(Join<FloatTypes, Types<int32_t>>(), "SparseTensorDenseMatMul");

// ---- SparseFillEmptyRows ----

// Puts the default, in column 0, into each row that has no element. Elements stay in their rows'
// order.
class FillEmptyRowsKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &at = c->input(0), &values = c->input(1), &by_default = c->input(3);
    if (c->input(2).rank() != 1 || c->input(2).num_elements() == 0) {
      return InvalidArgument("dense_shape must be a vector with elements, saw: ",
                             c->input(2).shape().DebugString());
    }
    if (at.rank() != 2) {
      return InvalidArgument("indices must be a matrix, saw: ", at.shape().DebugString());
    }
    if (values.rank() != 1) {
      return InvalidArgument("values must be a vector, saw: ", values.shape().DebugString());
    }
    const int64_t n = at.dim(0), rank = at.dim(1);
    if (values.dim(0) != n) {
      return InvalidArgument("The length of `values` (", values.dim(0),
                             ") must match the first dimension of `indices` (", n, ").");
    }
    if (c->input(2).dim(0) != rank) {
      return InvalidArgument("The length of `dense_shape` (", c->input(2).dim(0),
                             ") must match the second dimension of `indices` (", rank, ").");
    }
    if (by_default.rank() != 0) {
      return InvalidArgument("default_value must be a scalar, saw: ",
                             by_default.shape().DebugString());
    }
    const int64_t* const indices = at.data<int64_t>();
    const int64_t rows = c->input(2).data<int64_t>()[0];
    if (rows == 0 && n != 0) {
      return InvalidArgument(
          "Received SparseTensor with dense_shape[0] = 0 but indices.shape[0] = ", n);
    }
    if (rows < 0) return InvalidArgument("dense_shape[0] must not be negative, found ", rows);
    FERRY_ASSIGN_OR_RETURN(Tensor * empty, c->AllocateOutput(2, TensorShape{rows}));
    FERRY_ASSIGN_OR_RETURN(Tensor * reverse, c->AllocateOutput(3, TensorShape{n}));
    // Where each row's next element goes.
    std::vector<int64_t> next(static_cast<size_t>(rows), 0);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t row = indices[i * rank];
      if (row < 0 || row >= rows) {
        return InvalidArgument("indices(", i, ", 0) is invalid: ", row, " >= ", rows);
      }
      ++next[static_cast<size_t>(row)];
    }
    int64_t total = 0;
    for (int64_t row = 0; row < rows; ++row) {
      const int64_t count = next[static_cast<size_t>(row)];
      empty->data<bool>()[row] = count == 0;
      next[static_cast<size_t>(row)] = total;
      total += std::max<int64_t>(1, count);
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make({total, rank}));
    FERRY_ASSIGN_OR_RETURN(Tensor * positions, c->AllocateOutput(0, shape));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(1, TensorShape{total}));
    int64_t* const to = positions->data<int64_t>();
    for (int64_t row = 0; row < rows; ++row) {
      if (!empty->data<bool>()[row]) continue;
      int64_t* const place = to + next[static_cast<size_t>(row)] * rank;
      std::fill_n(place, rank, int64_t{0});
      place[0] = row;
    }
    for (int64_t i = 0; i < n; ++i) {
      const int64_t place = next[static_cast<size_t>(indices[i * rank])]++;
      std::copy_n(indices + i * rank, rank, to + place * rank);
      reverse->data<int64_t>()[i] = place;
    }
    return ForWidth(values.dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* const from = static_cast<const T*>(values.raw());
      T* const filled = static_cast<T*>(out->raw());
      std::fill_n(filled, total, *static_cast<const T*>(by_default.raw()));
      for (int64_t i = 0; i < n; ++i) filled[reverse->data<int64_t>()[i]] = from[i];
    });
  }
};

FERRY_OP("SparseFillEmptyRows")
    .Input("indices: int64")
    .Input("values: T")
    .Input("dense_shape: int64")
    .Input("default_value: T")
    .Output("output_indices: int64")
    .Output("output_values: T")
    .Output("empty_row_indicator: bool")
    .Output("reverse_index_map: int64")
    .Attr("T: type")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const PartialShape at, c->WithRank(c->input(0), 2));
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(2), 1).status());
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(3), 0).status());
      constexpr int64_t kUnknown = PartialShape::kUnknown;
      FERRY_ASSIGN_OR_RETURN(const PartialShape dense, c->ValueAsShape(2));
      c->set_output(0, {kUnknown, at.known_rank() ? at.dim(1) : kUnknown});
      c->set_output(1, {kUnknown});
      c->set_output(2, {dense.known_rank() && dense.rank() > 0 ? dense.dim(0) : kUnknown});
      c->set_output(3, {at.known_rank() ? at.dim(0) : kUnknown});
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      Node* const grad =
          NodeBuilder(s, "SparseFillEmptyRowsGrad").Input(c->output(3)).Input(c->grad(1)).Build();
      if (grad == nullptr) return s.status();
      c->set_input_grad(1, Output(grad, 0));
      c->set_input_grad(3, Output(grad, 1));
      return s.status();
    });

FERRY_KERNEL("SparseFillEmptyRows").Device(DeviceType::kCpu).Make<FillEmptyRowsKernel>();

// The gradient of each value is that of the place it went to; the default has the sum of the rest.
template <typename T>
class FillEmptyRowsGradKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &reverse = c->input(0), &grad = c->input(1);
    if (reverse.rank() != 1) {
      return InvalidArgument("reverse_index_map must be a vector, saw: ",
                             reverse.shape().DebugString());
    }
    if (grad.rank() != 1) {
      return InvalidArgument("grad_values must be a vector, saw: ", grad.shape().DebugString());
    }
    const int64_t n = reverse.dim(0), total = grad.dim(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * values, c->AllocateOutput(0, TensorShape{n}));
    FERRY_ASSIGN_OR_RETURN(Tensor * rest, c->AllocateOutput(1, TensorShape()));
    std::vector<char> seen(static_cast<size_t>(total), 0);
    for (int64_t i = 0; i < n; ++i) {
      const int64_t at = reverse.data<int64_t>()[i];
      if (at < 0 || at >= total) {
        return InvalidArgument("Elements in reverse index must be in [0, ", total, ") but got ",
                               at);
      }
      values->data<T>()[i] = grad.data<T>()[at];
      seen[static_cast<size_t>(at)] = 1;
    }
    T sum = T(0);
    for (int64_t i = 0; i < total; ++i) {
      if (!seen[static_cast<size_t>(i)]) sum = Add(sum, grad.data<T>()[i]);
    }
    *rest->data<T>() = sum;
    return absl::OkStatus();
  }

  static T Add(T a, T b) {
    if constexpr (std::is_integral_v<T>) {  // Wraps around.
      return static_cast<T>(static_cast<uint64_t>(a) + static_cast<uint64_t>(b));
    } else {
      return static_cast<T>(a + b);
    }
  }
};

FERRY_OP("SparseFillEmptyRowsGrad")
    .Input("reverse_index_map: int64")
    .Input("grad_values: T")
    .Output("d_values: T")
    .Output("d_default_value: T")
    .Attr("T: type")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape reverse, c->WithRank(c->input(0), 1));
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
      c->set_output(0, std::move(reverse));
      c->set_output(1, PartialShape::Scalar());
      return absl::OkStatus();
    });

const bool fill_grads =
    RegisterCpu<FillEmptyRowsGradKernel>(NumberTypes(), "SparseFillEmptyRowsGrad");

// ---- SparseReshape ----

// The same elements in row-major order, at the positions that they have in the new shape.
class SparseReshapeKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& at = c->input(0);
    if (at.rank() != 2) {
      return InvalidArgument("Input indices should be a matrix but received shape ",
                             at.shape().DebugString());
    }
    for (int i : {1, 2}) {
      if (c->input(i).rank() != 1) {
        return InvalidArgument(i == 1 ? "Input" : "Target",
                               " shape should be a vector but received shape ",
                               c->input(i).shape().DebugString());
      }
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape from, c->InputAsShape(1));
    FERRY_ASSIGN_OR_RETURN(const auto asked, c->InputAsInts(2));
    const int64_t n = at.dim(0), from_rank = from.rank();
    if (at.dim(1) != from_rank) {
      return InvalidArgument("Input tensor rank must match input shape length: ", at.dim(1), " vs ",
                             from_rank);
    }
    Ints dims(asked.begin(), asked.end());
    int64_t unknown = -1, known = 1;
    for (size_t i = 0; i < dims.size(); ++i) {
      if (dims[i] == -1) {
        if (unknown >= 0) {
          return InvalidArgument("only one output dimension may be -1, not both ", unknown, " and ",
                                 i);
        }
        unknown = static_cast<int64_t>(i);
      } else if (dims[i] < 0) {
        return InvalidArgument("size ", i, " must be non-negative, not ", dims[i]);
      } else if (__builtin_mul_overflow(known, dims[i], &known)) {
        return InvalidArgument("the new shape has too many elements");
      }
    }
    const int64_t elements = from.num_elements();
    if (unknown >= 0) {
      if (known == 0) {
        return InvalidArgument(
            "reshape cannot infer the missing input size for an empty tensor unless all specified "
            "input sizes are non-zero");
      }
      dims[static_cast<size_t>(unknown)] = elements / known;
      if (elements % known != 0) {
        return InvalidArgument("Input to reshape is a SparseTensor with ", elements,
                               " dense values, but the requested shape requires a multiple of ",
                               known, ". input_shape=", from.DebugString());
      }
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape to, TensorShape::Make(dims));
    if (to.num_elements() != elements) {
      return InvalidArgument("Input to reshape is a tensor with ", elements,
                             " dense values, but the requested shape has ", to.num_elements(),
                             ". input_shape=", from.DebugString(),
                             " output_shape=", to.DebugString());
    }
    const int64_t to_rank = to.rank();
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make({n, to_rank}));
    FERRY_ASSIGN_OR_RETURN(Tensor * positions, c->AllocateOutput(0, shape));
    FERRY_ASSIGN_OR_RETURN(Tensor * dense, c->AllocateOutput(1, TensorShape{to_rank}));
    std::copy(dims.begin(), dims.end(), dense->data<int64_t>());
    const Ints strides = Strides(to.dims()), from_strides = Strides(from.dims());
    for (int64_t i = 0; i < n; ++i) {
      int64_t flat = 0;
      for (int64_t k = 0; k < from_rank; ++k) {
        const int64_t index = at.data<int64_t>()[i * from_rank + k];
        if (index < 0 || index >= from.dim(static_cast<int>(k))) {
          return InvalidArgument("indices[", i, ",", k, "] is out of bounds: ", index,
                                 " is not in [0, ", from.dim(static_cast<int>(k)), ")");
        }
        flat += index * from_strides[static_cast<size_t>(k)];
      }
      for (int64_t k = 0; k < to_rank; ++k) {
        const int64_t stride = strides[static_cast<size_t>(k)];
        positions->data<int64_t>()[i * to_rank + k] = flat / stride;
        flat %= stride;
      }
    }
    return absl::OkStatus();
  }
};

FERRY_OP("SparseReshape")
    .Input("input_indices: int64")
    .Input("input_shape: int64")
    .Input("new_shape: int64")
    .Output("output_indices: int64")
    .Output("output_shape: int64")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const PartialShape at, c->WithRank(c->input(0), 2));
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
      FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->WithRank(c->input(2), 1));
      c->set_output(0, {at.known_rank() ? at.dim(0) : PartialShape::kUnknown,
                        shape.known_rank() ? shape.dim(0) : PartialShape::kUnknown});
      c->set_output(1, std::move(shape));
      return absl::OkStatus();
    })
    .NotDifferentiable();

FERRY_KERNEL("SparseReshape").Device(DeviceType::kCpu).Make<SparseReshapeKernel>();

// ---- SparseReorder ----

// The elements in row-major order of their positions, whether or not these lie within the shape.
class SparseReorderKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &at = c->input(0), &values = c->input(1);
    if (at.rank() != 2) {
      return InvalidArgument("Input indices should be a matrix but received shape ",
                             at.shape().DebugString());
    }
    const int64_t n = at.dim(0), rank = at.dim(1);
    if (values.rank() != 1 || values.dim(0) != n) {
      return InvalidArgument("Input values should be a vector of ", n, " but received shape ",
                             values.shape().DebugString());
    }
    if (c->input(2).rank() != 1 || c->input(2).dim(0) != rank) {
      return InvalidArgument("Input shape should be a vector of ", rank, " but received shape ",
                             c->input(2).shape().DebugString());
    }
    const int64_t* const from = at.data<int64_t>();
    std::vector<int64_t> order(static_cast<size_t>(n));
    std::iota(order.begin(), order.end(), int64_t{0});
    std::stable_sort(order.begin(), order.end(), [&](int64_t a, int64_t b) {
      return std::lexicographical_compare(from + a * rank, from + (a + 1) * rank, from + b * rank,
                                          from + (b + 1) * rank);
    });
    FERRY_ASSIGN_OR_RETURN(Tensor * positions, c->AllocateOutput(0, at.shape()));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(1, values.shape()));
    for (int64_t i = 0; i < n; ++i) {
      std::copy_n(from + order[static_cast<size_t>(i)] * rank, rank,
                  positions->data<int64_t>() + i * rank);
    }
    return ForWidth(values.dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      for (int64_t i = 0; i < n; ++i) {
        static_cast<T*>(out->raw())[i] =
            static_cast<const T*>(values.raw())[order[static_cast<size_t>(i)]];
      }
    });
  }
};

FERRY_OP("SparseReorder")
    .Input("input_indices: int64")
    .Input("input_values: T")
    .Input("input_shape: int64")
    .Output("output_indices: int64")
    .Output("output_values: T")
    .Attr("T: type")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape at, c->WithRank(c->input(0), 2));
      FERRY_ASSIGN_OR_RETURN(PartialShape values, c->WithRank(c->input(1), 1));
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(2), 1).status());
      c->set_output(0, std::move(at));
      c->set_output(1, std::move(values));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      // The elements' numbers, reordered alike, tell where each came from.
      const Scope& s = c->scope();
      const Output size = ops::Size(s, c->input(1));
      const Output numbers =
          ops::Range(s, ops::Const<int32_t>(s, 0), size, ops::Const<int32_t>(s, 1));
      Node* const sorted = NodeBuilder(s, "SparseReorder")
                               .Input(c->input(0))
                               .Input(numbers)
                               .Input(c->input(2))
                               .Build();
      if (sorted == nullptr) return s.status();
      const Output back =
          NodeBuilder(s, "InvertPermutation").Input(Output(sorted, 1)).BuildOutput();
      c->set_input_grad(1, ops::GatherV2(s, c->grad(1), back, ops::Const<int32_t>(s, 0)));
      return s.status();
    });

FERRY_KERNEL("SparseReorder").Device(DeviceType::kCpu).Make<SparseReorderKernel>();

}  // namespace
}  // namespace ferry
