// Softmax and LogSoftmax over the last dimension, and the cross entropies of softmax with labels.
//
// With m the greatest logit of a row and s the sum of its exp(x - m):
//   softmax      y = exp(x - m) / s
//   log softmax  y = (x - m) - log s
//   cross entropy with labels p    loss = sum of p (log s - (x - m));  backprop = softmax - p
// half and bfloat16 are computed as float.
#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>

#include "absl/strings/str_join.h"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// Rows are worked on in blocks of about this many elements, which stay in the cache from one pass
// to the next; large inputs are split over threads at blocks.
constexpr int64_t kBlock = 4096;
int64_t BlockRows(int64_t columns) { return std::max<int64_t>(1, kBlock / columns); }

// Short rows in plain order; Eigen's vectors only pay for longer ones.
constexpr int64_t kShortRow = 16;

template <typename C>
C RowMax(const C* x, int64_t n) {
  if (n >= kShortRow) return ConstArray<C>(x, n).maxCoeff();
  C m = x[0];
  for (int64_t j = 1; j < n; ++j) m = x[j] > m ? x[j] : m;
  return m;
}

template <typename C>
C RowSum(const C* x, int64_t n) {
  if (n >= kShortRow) return ConstArray<C>(x, n).sum();
  C s = x[0];
  for (int64_t j = 1; j < n; ++j) s += x[j];
  return s;
}

// Writes x - m of each row to `shifted`, which may be `x`.
template <typename C>
void ShiftRows(const C* x, int64_t rows, int64_t columns, C* shifted) {
  for (int64_t r = 0; r < rows; ++r) {
    const C* const from = x + r * columns;
    C* const to = shifted + r * columns;
    const C m = RowMax(from, columns);
    for (int64_t j = 0; j < columns; ++j) to[j] = from[j] - m;
  }
}

// Vectors of exp run across the rows' ends, which short rows profit from.
template <typename C>
void Exp(const C* x, int64_t n, C* y) {
  MutableArray<C>(y, n) = ConstArray<C>(x, n).exp();
}

// Calls fn(begin row, end row, input as C, output as C) for blocks of rows, with 16-bit floats
// converted on the way in and out. `extra` elements of C a row are left to the caller, at the third
// pointer.
template <typename T, typename Fn>
absl::Status ForBlocks(KernelContext* c, int64_t rows, int64_t columns, int64_t extra, const T* x,
                       T* y, const Fn& fn) {
  using C = Wide<T>;
  constexpr bool kConvert = !std::is_same_v<C, T>;
  if (rows == 0 || columns == 0) return absl::OkStatus();
  const int64_t row_space = (kConvert ? columns : 0) + extra;
  C* space = nullptr;
  if (row_space > 0) {
    FERRY_ASSIGN_OR_RETURN(void* memory,
                           c->Scratch(static_cast<size_t>(rows * row_space) * sizeof(C)));
    space = static_cast<C*>(memory);
  }
  const int64_t block = BlockRows(columns);
  c->ParallelFor((rows + block - 1) / block, 4, [&](int64_t first, int64_t last) {
    for (int64_t b = first; b < last; ++b) {
      const int64_t begin = b * block, n = std::min(block, rows - begin);
      C* const extra_space = space + begin * row_space;
      if constexpr (kConvert) {
        C* const converted = extra_space + n * extra;
        MutableArray<C>(converted, n * columns) =
            ConstArray<T>(x + begin * columns, n * columns).template cast<C>();
        fn(begin, n, static_cast<const C*>(converted), converted, extra_space);
        MutableArray<T>(y + begin * columns, n * columns) =
            ConstArray<C>(converted, n * columns).template cast<T>();
      } else {
        fn(begin, n, x + begin * columns, y + begin * columns, extra_space);
      }
    }
  });
  return absl::OkStatus();
}

// ---- Softmax, LogSoftmax ----

absl::Status SoftmaxShape(InferenceContext* c) {
  if (c->input(0).rank() == 0) {
    return InvalidArgument("logits must have >= 1 dimension, got []");
  }
  return UnchangedShape(c);
}

absl::Status CheckLogits(const TensorShape& x) {
  if (x.rank() > 0) return absl::OkStatus();
  return InvalidArgument("logits must have >= 1 dimension, got ", x.DebugString());
}

template <typename T, bool kLog>
class SoftmaxKernelOf : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    using C = Wide<T>;
    const Tensor& x = c->input(0);
    FERRY_RETURN_IF_ERROR(CheckLogits(x.shape()));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, x.shape()));
    if (x.num_elements() == 0) return absl::OkStatus();
    const int64_t columns = x.dim(x.rank() - 1);
    return ForBlocks<T>(c, x.num_elements() / columns, columns, kLog ? columns : 0, x.data<T>(),
                        out->data<T>(),
                        [columns](int64_t, int64_t rows, const C* in, C* y, C* space) {
                          ShiftRows(in, rows, columns, y);
                          C* const e = kLog ? space : y;
                          Exp(y, rows * columns, e);
                          for (int64_t r = 0; r < rows; ++r) {
                            const C sum = RowSum(e + r * columns, columns);
                            C* const row = y + r * columns;
                            if (kLog) {
                              const C log_sum = std::log(sum);
                              for (int64_t j = 0; j < columns; ++j) row[j] -= log_sum;
                            } else {
                              const C inverse = C(1) / sum;
                              for (int64_t j = 0; j < columns; ++j) row[j] *= inverse;
                            }
                          }
                        });
  }
};

template <typename T>
using SoftmaxKernel = SoftmaxKernelOf<T, false>;
template <typename T>
using LogSoftmaxKernel = SoftmaxKernelOf<T, true>;

Output SumLast(const Scope& s, Output x) {
  return ops::Sum(s, x, ops::ConstVector<int32_t>(s, {-1}), /*keep_dims=*/true);
}

// y = softmax x:  dx = (dy - sum(dy y)) y
absl::Status SoftmaxGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output y = c->output(0), dy = c->grad(0);
  c->set_input_grad(0, ops::Mul(s, ops::Sub(s, dy, SumLast(s, ops::Mul(s, dy, y))), y));
  return s.status();
}

// y = log softmax x:  dx = dy - sum(dy) exp(y)
absl::Status LogSoftmaxGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output dy = c->grad(0);
  c->set_input_grad(0, ops::Sub(s, dy, ops::Mul(s, SumLast(s, dy), ops::Exp(s, c->output(0)))));
  return s.status();
}

FERRY_OP("Softmax")
    .Input("logits: T")
    .Output("softmax: T")
    .Attr("T: {half, bfloat16, float, double}")
    .Shape(SoftmaxShape)
    .Gradient(SoftmaxGradient);

FERRY_OP("LogSoftmax")
    .Input("logits: T")
    .Output("logsoftmax: T")
    .Attr("T: {half, bfloat16, float, double}")
    .Shape(SoftmaxShape)
    .Gradient(LogSoftmaxGradient);

// ---- Cross entropy with a distribution for each row ----

absl::Status NotBroadcastable(const std::string& logits, const std::string& labels) {
  return InvalidArgument("logits and labels must be broadcastable: logits_size=", logits,
                         " labels_size=", labels);
}
absl::Status NotMatrices() {
  return InvalidArgument(
      "logits and labels must be either 2-dimensional, or broadcasted to be 2-dimensional");
}

absl::Status CrossEntropyShape(InferenceContext* c) {
  const PartialShape &logits = c->input(0), &labels = c->input(1);
  absl::StatusOr<PartialShape> both = BroadcastShapes(logits, labels);
  if (!both.ok()) return NotBroadcastable(logits.DebugString(), labels.DebugString());
  if (both->known_rank() && both->rank() != 2) return NotMatrices();
  const bool known = both->known_rank();
  c->set_output(0, PartialShape({known ? both->dim(0) : PartialShape::kUnknown}));
  c->set_output(1, known ? *both : PartialShape::UnknownOfRank(2));
  return absl::OkStatus();
}

// The shape that both are broadcast to.
absl::StatusOr<TensorShape> CrossEntropySizes(const TensorShape& logits,
                                              const TensorShape& labels) {
  TensorShape shape = logits;
  if (logits != labels) {
    absl::StatusOr<TensorShape> both = BroadcastShapes(logits, labels);
    if (!both.ok()) return NotBroadcastable(logits.DebugString(), labels.DebugString());
    shape = *std::move(both);
  }
  if (shape.rank() != 2) return NotMatrices();
  return shape;
}

template <typename T>
class CrossEntropyKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    using C = Wide<T>;
    const Tensor &x = c->input(0), &p = c->input(1);
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, CrossEntropySizes(x.shape(), p.shape()));
    const int64_t rows = shape.dim(0), columns = shape.dim(1);
    FERRY_ASSIGN_OR_RETURN(Tensor * loss_out, c->AllocateOutput(0, TensorShape({rows})));
    FERRY_ASSIGN_OR_RETURN(Tensor * backprop_out, c->AllocateOutput(1, shape));
    T* const loss = loss_out->data<T>();
    if (columns == 0) std::fill(loss, loss + rows, T(0));
    if (shape.num_elements() == 0) return absl::OkStatus();
    const T* const labels = p.data<T>();
    const Strides label_at(p.shape());
    T* const backprop = backprop_out->data<T>();
    const T* logits = x.data<T>();
    if (x.shape() != shape) {
      // Logits that are broadcast, which is rare, are first written out in full.
      const Strides logit_at(x.shape());
      for (int64_t r = 0; r < rows; ++r) {
        for (int64_t j = 0; j < columns; ++j) {
          backprop[r * columns + j] = logits[r * logit_at.row + j * logit_at.column];
        }
      }
      logits = backprop;
    }
    return ForBlocks<T>(c, rows, columns, columns, logits, backprop,
                        [&](int64_t begin, int64_t n, const C* in, C* e, C* shifted) {
                          ShiftRows(in, n, columns, shifted);
                          Exp(shifted, n * columns, e);
                          for (int64_t r = 0; r < n; ++r) {
                            C* const row = e + r * columns;
                            const C sum = RowSum(row, columns);
                            const C log_sum = std::log(sum), inverse = C(1) / sum;
                            const T* const label = labels + (begin + r) * label_at.row;
                            C total = C(0);
                            for (int64_t j = 0; j < columns; ++j) {
                              const C pj = static_cast<C>(label[j * label_at.column]);
                              total += pj * (log_sum - shifted[r * columns + j]);
                              row[j] = row[j] * inverse - pj;
                            }
                            loss[begin + r] = static_cast<T>(total);
                          }
                        });
  }

 private:
  // How far apart the rows and columns of a matrix lie that is broadcast: 0 where it is.
  struct Strides {
    int64_t row = 0, column = 0;
    explicit Strides(const TensorShape& s) {
      const int64_t columns = s.rank() >= 1 ? s.dim(s.rank() - 1) : 1;
      if (columns > 1) column = 1;
      if (s.rank() == 2 && s.dim(0) > 1) row = columns;
    }
  };
};

Output ExpandLast(const Scope& s, Output x) {
  const Scope sub = s.NewSubScope("ExpandDims");
  const Output last = ops::Const<int32_t>(sub.WithOpName("dim"), -1);
  return ops::ExpandDims(s.WithOpName(sub.prefix() + "/"), x, last);
}

// loss:      dx = dloss (softmax - p), which is dloss backprop
// backprop:  dx += (g - sum(g softmax)) softmax, for g the gradient of backprop
absl::Status LogitsGradient(GradientContext* c) {
  const Scope& s = c->scope();
  Output dx;
  if (c->grad(0).node != nullptr) {
    dx = ops::Mul(s.WithOpName("mul"), ExpandLast(s, c->grad(0)), c->output(1));
  }
  if (const Output g = c->grad(1); g.node != nullptr) {
    const Output y = ops::Softmax(s, c->input(0));
    const Output second = ops::Mul(s, ops::Sub(s, g, SumLast(s, ops::Mul(s, g, y))), y);
    dx = dx.node == nullptr ? second : ops::Add(s, dx, second);
  }
  c->set_input_grad(0, dx);
  return s.status();
}

// dp = -dloss log softmax, less the gradient of backprop
absl::Status CrossEntropyGradient(GradientContext* c) {
  FERRY_RETURN_IF_ERROR(LogitsGradient(c));
  const Scope& s = c->scope();
  const Output x = c->input(0), p = c->input(1);
  Output dp;
  if (c->grad(0).node != nullptr) {
    dp = ops::Mul(s, ExpandLast(s, c->grad(0)), ops::Neg(s, ops::LogSoftmax(s, x)));
  }
  if (const Output g = c->grad(1); g.node != nullptr) {
    dp = dp.node == nullptr ? ops::Neg(s, g) : ops::Sub(s, dp, g);
  }
  const auto [dx_of_x, dp_of_p] = UnbroadcastGradients(s, x, p, c->input_grads()[0], dp);
  c->set_input_grad(0, dx_of_x);
  c->set_input_grad(1, dp_of_p);
  return s.status();
}

FERRY_OP("SoftmaxCrossEntropyWithLogits")
    .Input("features: T")
    .Input("labels: T")
    .Output("loss: T")
    .Output("backprop: T")
    .Attr("T: {half, bfloat16, float, double}")
    .Shape(CrossEntropyShape)
    .Gradient(CrossEntropyGradient);

// ---- Cross entropy with one class for each row ----

absl::Status CheckSparse(const std::string& logits, int logits_rank, const std::string& labels,
                         int labels_rank, int64_t logits_rows, int64_t labels_rows,
                         int64_t classes) {
  if (logits_rank >= 0 && logits_rank != 2) {
    return InvalidArgument("logits must be 2-D, but got shape ", logits);
  }
  if (labels_rank >= 0 && labels_rank != 1) {
    return InvalidArgument("labels must be 1-D, but got shape ", labels);
  }
  if (logits_rows >= 0 && labels_rows >= 0 && logits_rows != labels_rows) {
    return InvalidArgument(
        "logits and labels must have the same first dimension, got logits shape ", logits,
        " and labels shape ", labels);
  }
  if (classes == 0) {
    return InvalidArgument("Must have at least one class, but got logits shape ", logits);
  }
  return absl::OkStatus();
}

// Of a shape that may be unknown, or of another rank.
int64_t DimOrUnknown(const PartialShape& s, int i) {
  return s.rank() > i ? s.dim(i) : PartialShape::kUnknown;
}

absl::Status SparseCrossEntropyShape(InferenceContext* c) {
  const PartialShape &x = c->input(0), &labels = c->input(1);
  const int64_t rows_x = DimOrUnknown(x, 0), rows_labels = DimOrUnknown(labels, 0);
  FERRY_RETURN_IF_ERROR(CheckSparse(x.DebugString(), x.rank(), labels.DebugString(), labels.rank(),
                                    rows_x, rows_labels, DimOrUnknown(x, 1)));
  const int64_t rows = rows_x >= 0 ? rows_x : rows_labels;
  c->set_output(0, PartialShape({rows}));
  c->set_output(1, PartialShape({rows, DimOrUnknown(x, 1)}));
  return absl::OkStatus();
}

absl::Status CheckSparse(const Tensor& x, const Tensor& labels) {
  if (x.rank() == 2 && labels.rank() == 1 && x.dim(0) == labels.dim(0) && x.dim(1) != 0) {
    return absl::OkStatus();
  }
  return CheckSparse(x.shape().DebugString(), x.rank(), labels.shape().DebugString(), labels.rank(),
                     x.rank() > 0 ? x.dim(0) : -1, labels.rank() > 0 ? labels.dim(0) : -1,
                     x.rank() > 1 ? x.dim(1) : -1);
}

template <typename T>
class SparseCrossEntropyKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &x = c->input(0), &labels = c->input(1);
    FERRY_RETURN_IF_ERROR(CheckSparse(x, labels));
    return labels.dtype() == DType::kInt32 ? Run(c, x, labels.span<int32_t>())
                                           : Run(c, x, labels.span<int64_t>());
  }

 private:
  template <typename Label>
  static absl::Status Run(KernelContext* c, const Tensor& x, absl::Span<const Label> labels) {
    using C = Wide<T>;
    const int64_t rows = x.dim(0), columns = x.dim(1);
    for (const Label label : labels) {
      if (label < 0 || label >= columns) {
        return InvalidArgument("Received a label value of ", label,
                               " which is outside the valid range of [0, ", columns,
                               ").  Label values: ", absl::StrJoin(labels, " "));
      }
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * loss_out, c->AllocateOutput(0, TensorShape({rows})));
    FERRY_ASSIGN_OR_RETURN(Tensor * backprop_out, c->AllocateOutput(1, x.shape()));
    T* const loss = loss_out->data<T>();
    return ForBlocks<T>(c, rows, columns, 1, x.data<T>(), backprop_out->data<T>(),
                        [&](int64_t begin, int64_t n, const C* in, C* e, C* target) {
                          // What a row's label had, before the row is overwritten.
                          for (int64_t r = 0; r < n; ++r) {
                            const C* const row = in + r * columns;
                            const C m = RowMax(row, columns);
                            target[r] = row[labels[static_cast<size_t>(begin + r)]] - m;
                            C* const to = e + r * columns;
                            for (int64_t j = 0; j < columns; ++j) to[j] = row[j] - m;
                          }
                          Exp(e, n * columns, e);
                          for (int64_t r = 0; r < n; ++r) {
                            C* const row = e + r * columns;
                            const C sum = RowSum(row, columns);
                            const C inverse = C(1) / sum;
                            for (int64_t j = 0; j < columns; ++j) row[j] *= inverse;
                            row[labels[static_cast<size_t>(begin + r)]] -= C(1);
                            loss[begin + r] = static_cast<T>(std::log(sum) - target[r]);
                          }
                        });
  }
};

FERRY_OP("SparseSoftmaxCrossEntropyWithLogits")
    .Input("features: T")
    .Input("labels: Tlabels")
    .Output("loss: T")
    .Output("backprop: T")
    .Attr("T: {half, bfloat16, float, double}")
    .Attr("Tlabels: {int32, int64} = DT_INT64")
    .Shape(SparseCrossEntropyShape)
    .Gradient(LogitsGradient);

const bool kRegistered =
    RegisterCpu<SoftmaxKernel>(FloatTypes(), "Softmax", "T", {0}) &&
    RegisterCpu<LogSoftmaxKernel>(FloatTypes(), "LogSoftmax", "T", {0}) &&
    RegisterCpu<CrossEntropyKernel>(FloatTypes(), "SoftmaxCrossEntropyWithLogits") &&
    RegisterCpu<SparseCrossEntropyKernel>(FloatTypes(), "SparseSoftmaxCrossEntropyWithLogits");

}  // namespace

// ---- For softmax.cu ----

namespace gpu {

bool CheckSoftmax(Call* c) {
  return HostSide::Note(c, CheckLogits(HostSide::Context(c)->input(0).shape()));
}

bool CheckCrossEntropy(Call* c, int64_t* rows, int64_t* columns) {
  const KernelContext* context = HostSide::Context(c);
  absl::StatusOr<TensorShape> shape =
      CrossEntropySizes(context->input(0).shape(), context->input(1).shape());
  if (!shape.ok()) return HostSide::Note(c, shape.status());
  *rows = shape->dim(0);
  *columns = shape->dim(1);
  return true;
}

bool CheckSparseCrossEntropy(Call* c) {
  const KernelContext* context = HostSide::Context(c);
  return HostSide::Note(c, CheckSparse(context->input(0), context->input(1)));
}

}  // namespace gpu
}  // namespace ferry
