// Cholesky, MatrixInverse, MatrixDeterminant, LogMatrixDeterminant, MatrixSolve and
// MatrixTriangularSolve: of each matrix in the two innermost dimensions.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "Eigen/Cholesky"
#include "Eigen/LU"
#include "kernels/array.h"
#include "kernels/types.h"
#include "runtime/base/mutex.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

template <typename T>
using Matrix = Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
template <typename T>
using ConstMap = Eigen::Map<const Matrix<T>>;
template <typename T>
using MutableMap = Eigen::Map<Matrix<T>>;

constexpr char kSingular[] = "Input matrix is not invertible.";

// How many matrices, and their sides.
struct Sides {
  int64_t count = 0, rows = 0, columns = 0;
};
absl::StatusOr<Sides> SidesOf(const Tensor& t, bool square) {
  if (t.rank() < 2) {
    return InvalidArgument("Input tensor 0 must have rank >= 2, found shape ",
                           t.shape().DebugString());
  }
  Sides s;
  s.rows = t.dim(t.rank() - 2);
  s.columns = t.dim(t.rank() - 1);
  if (square && s.rows != s.columns) {
    return InvalidArgument("Input matrix must be square, found shape ", t.shape().DebugString());
  }
  const auto dims = t.shape().dims();
  s.count = Product(dims.first(dims.size() - 2));
  return s;
}

// Runs fn(index) -> Status for each matrix, whose work is about side^3; the first error.
template <typename Fn>
absl::Status ForMatrices(KernelContext* c, const Sides& s, Fn fn) {
  const double work = std::pow(static_cast<double>(s.rows) + 1, 3);
  const int64_t grain = std::max<int64_t>(1, static_cast<int64_t>(16384 / work));
  Mutex mu;
  absl::Status first;
  int64_t at = std::numeric_limits<int64_t>::max();
  c->ParallelFor(s.count, grain, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      absl::Status status = fn(i);
      if (status.ok()) continue;
      MutexLock lock(&mu);
      if (i < at) {
        at = i;
        first = std::move(status);
      }
      return;
    }
  });
  return first;
}

Output MatMulOf(const Scope& s, Output a, Output b, bool adjoint_a, bool adjoint_b) {
  return NodeBuilder(s, "BatchMatMulV2")
      .Input(a)
      .Input(b)
      .Attr("adj_x", adjoint_a)
      .Attr("adj_y", adjoint_b)
      .BuildOutput();
}

// ---- Cholesky ----

// The lower triangle L with L L^T = x, of which the lower triangle alone is read. NaNs where there
// is none.
template <typename T>
class CholeskyKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const Sides s, SidesOf(c->input(0), true));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, c->input(0).shape()));
    const T* const from = c->input(0).data<T>();
    T* const to = out->data<T>();
    const int64_t n = s.rows;
    if (n == 0) return absl::OkStatus();
    return ForMatrices(c, s, [&](int64_t i) -> absl::Status {
      const Eigen::LLT<Matrix<T>, Eigen::Lower> llt(ConstMap<T>(from + i * n * n, n, n));
      MutableMap<T> l(to + i * n * n, n, n);
      if (llt.info() == Eigen::Success) {
        l = llt.matrixL();
      } else {
        l.setZero();
        l.template triangularView<Eigen::Lower>().fill(std::numeric_limits<T>::quiet_NaN());
      }
      return absl::OkStatus();
    });
  }
};

// With P(x) the lower triangle of x, its diagonal halved:
// dx = sym(L^-T P(L^T dL) L^-1), sym(y) = (y + y^T) / 2   (S. P. Smith, 1995).
absl::Status CholeskyGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output l = c->output(0), dl = c->grad(0);
  const Output half = ScalarConst(s, l.dtype(), 0.5);
  const Output middle = MatMulOf(s, l, dl, true, false);
  const Output lower = NodeBuilder(s, "MatrixBandPart")
                           .Input(middle)
                           .Input(ops::Const<int64_t>(s, -1))
                           .Input(ops::Const<int64_t>(s, 0))
                           .BuildOutput();
  const Output diagonal = NodeBuilder(s, "MatrixDiagPart").Input(lower).BuildOutput();
  const Output p =
      NodeBuilder(s, "MatrixSetDiag").Input(lower).Input(ops::Mul(s, half, diagonal)).BuildOutput();
  const auto solve = [&](Output rhs) {  // L^-T rhs
    return NodeBuilder(s, "MatrixTriangularSolve")
        .Input(l)
        .Input(rhs)
        .Attr("adjoint", true)
        .BuildOutput();
  };
  const auto transposed = [&](Output x) {
    return NodeBuilder(s, "Einsum")
        .Input(std::vector<Output>{x})
        .Attr("equation", "...ij->...ji")
        .BuildOutput();
  };
  // L^-T P L^-1 = (L^-T (L^-T P)^T)^T
  const Output y = solve(transposed(solve(p)));
  c->set_input_grad(0, ops::Mul(s, half, ops::AddV2(s, y, transposed(y))));
  return s.status();
}

absl::Status SquareShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(PartialShape x, c->WithRankAtLeast(c->input(0), 2));
  if (x.known_rank()) {
    const int64_t rows = x.dim(x.rank() - 2), columns = x.dim(x.rank() - 1);
    if (rows >= 0 && columns >= 0 && rows != columns) {
      return InvalidArgument("Dimensions must be equal, but are ", rows, " and ", columns);
    }
  }
  c->set_output(0, std::move(x));
  return absl::OkStatus();
}

FERRY_OP("Cholesky")
    .Input("input: T")
    .Output("output: T")
    .Attr("T: {double, float, half}")
    .Shape(SquareShape)
    .Gradient(CholeskyGradient);

// ---- MatrixInverse ----

template <typename T>
class InverseKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(adjoint_, c.Attr<bool>("adjoint"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const Sides s, SidesOf(c->input(0), true));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, c->input(0).shape()));
    const T* const from = c->input(0).data<T>();
    T* const to = out->data<T>();
    const int64_t n = s.rows;
    if (n == 0) return absl::OkStatus();
    using W = Wide<T>;
    return ForMatrices(c, s, [&](int64_t i) -> absl::Status {
      const Matrix<W> x = ConstMap<T>(from + i * n * n, n, n).template cast<W>();
      const Eigen::PartialPivLU<Matrix<W>> lu(x);
      if (!(lu.matrixLU().diagonal().array().abs().minCoeff() > W(0))) {
        return InvalidArgument(kSingular);
      }
      const Matrix<W> inverse = lu.inverse();
      MutableMap<T> y(to + i * n * n, n, n);
      if (adjoint_) {
        y = inverse.transpose().template cast<T>();
      } else {
        y = inverse.template cast<T>();
      }
      return absl::OkStatus();
    });
  }

  bool adjoint_ = false;
};

FERRY_OP("MatrixInverse")
    .Input("input: T")
    .Output("output: T")
    .Attr("adjoint: bool = false")
    .Attr("T: {double, float, half}")
    .Shape(SquareShape)
    .Gradient([](GradientContext* c) -> absl::Status {
      // y = x^-1: dx = -y^T dy y^T; of the transposed of it: dx = -y dy^T y.
      const Scope& s = c->scope();
      FERRY_ASSIGN_OR_RETURN(const bool adjoint, c->Attr<bool>("adjoint"));
      const Output y = c->output(0), dy = c->grad(0);
      const Output dx = adjoint ? MatMulOf(s, MatMulOf(s, y, dy, false, true), y, false, false)
                                : MatMulOf(s, y, MatMulOf(s, dy, y, false, true), true, false);
      c->set_input_grad(0, ops::Neg(s, dx));
      return s.status();
    });

// ---- Determinants ----

template <typename T>
class DeterminantKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    log_ = c.op() == "LogMatrixDeterminant";
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const Sides s, SidesOf(c->input(0), true));
    const auto dims = c->input(0).shape().dims();
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(dims.first(dims.size() - 2)));
    FERRY_ASSIGN_OR_RETURN(Tensor * first, c->AllocateOutput(0, shape));
    Tensor* second = nullptr;
    if (log_) {
      FERRY_ASSIGN_OR_RETURN(second, c->AllocateOutput(1, shape));
    }
    const T* const from = c->input(0).data<T>();
    const int64_t n = s.rows;
    return ForMatrices(c, s, [&](int64_t i) -> absl::Status {
      T sign = T(1), log = T(0);
      if (n > 0) {
        const Eigen::PartialPivLU<Matrix<T>> lu(ConstMap<T>(from + i * n * n, n, n));
        sign = static_cast<T>(lu.permutationP().determinant());
        for (int64_t k = 0; k < n; ++k) {
          const T pivot = lu.matrixLU()(k, k);
          sign = pivot > T(0) ? sign : pivot < T(0) ? -sign : pivot * T(0);
          log += std::log(std::abs(pivot));
        }
      }
      if (log_) {
        first->data<T>()[i] = sign;
        second->data<T>()[i] = log;
      } else {
        first->data<T>()[i] = sign * std::exp(log);
      }
      return absl::OkStatus();
    });
  }

  bool log_ = false;
};

absl::Status DeterminantShape(InferenceContext* c, int outputs) {
  FERRY_RETURN_IF_ERROR(SquareShape(c));
  const PartialShape x = c->output(0);
  PartialShape out;
  if (x.known_rank()) {
    out = PartialShape::Scalar();
    for (int i = 0; i + 2 < x.rank(); ++i) out.AddDim(x.dim(i));
  }
  for (int i = 0; i < outputs; ++i) c->set_output(i, out);
  return absl::OkStatus();
}

// Of log |det x|: x^-T, times the factor.
Output TimesInverse(const Scope& s, Output x, Output factor) {
  const Output inverse =
      NodeBuilder(s, "MatrixInverse").Input(x).Attr("adjoint", true).BuildOutput();
  const auto end = [&s](int32_t i) { return ops::Const<int32_t>(s, i); };
  return ops::Mul(s, ops::ExpandDims(s, ops::ExpandDims(s, factor, end(-1)), end(-1)), inverse);
}

FERRY_OP("MatrixDeterminant")
    .Input("input: T")
    .Output("output: T")
    .Attr("T: {half, float, double}")
    .Shape([](InferenceContext* c) { return DeterminantShape(c, 1); })
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      c->set_input_grad(0, TimesInverse(s, c->input(0), ops::Mul(s, c->grad(0), c->output(0))));
      return s.status();
    });

FERRY_OP("LogMatrixDeterminant")
    .Input("input: T")
    .Output("sign: T")
    .Output("log_abs_determinant: T")
    .Attr("T: {half, float, double}")
    .Shape([](InferenceContext* c) { return DeterminantShape(c, 2); })
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(0, TimesInverse(c->scope(), c->input(0), c->grad(1)));
      return c->scope().status();
    });

// ---- MatrixSolve, MatrixTriangularSolve ----

// The matrix that each result takes of an operand whose outer dimensions broadcast.
struct Places {
  std::vector<int64_t> a, b;
};
Places PlacesOf(const TensorShape& shape, const TensorShape& a, const TensorShape& b) {
  Places places;
  const int outer = shape.rank() - 2;
  int64_t count = 1;
  for (int k = 0; k < outer; ++k) count *= shape.dim(k);
  for (int64_t i = 0; i < count; ++i) {
    int64_t rest = i, step_a = 1, step_b = 1, at_a = 0, at_b = 0;
    for (int k = outer - 1; k >= 0; --k) {
      const int64_t index = rest % shape.dim(k);
      rest /= shape.dim(k);
      const auto move = [&](const TensorShape& of, int64_t* step, int64_t* at) {
        const int dim = k - (outer - (of.rank() - 2));
        if (dim < 0) return;
        if (of.dim(dim) > 1) *at += index * *step;
        *step *= of.dim(dim);
      };
      move(a, &step_a, &at_a);
      move(b, &step_b, &at_b);
    }
    places.a.push_back(at_a);
    places.b.push_back(at_b);
  }
  return places;
}

template <typename T, bool kTriangular>
class SolveKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(adjoint_, c.Attr<bool>("adjoint"));
    if (kTriangular) {
      FERRY_ASSIGN_OR_RETURN(lower_, c.Attr<bool>("lower"));
    }
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor &a = c->input(0), &b = c->input(1);
    FERRY_ASSIGN_OR_RETURN(Sides s, SidesOf(a, true));
    FERRY_ASSIGN_OR_RETURN(const Sides right, SidesOf(b, false));
    if (right.rows != s.rows) {
      return InvalidArgument("Input matrix and rhs are incompatible: ", a.shape().DebugString(),
                             " vs. ", b.shape().DebugString());
    }
    const auto outer = [](const Tensor& t) {
      const auto dims = t.shape().dims();
      return TensorShape::Make(dims.first(dims.size() - 2));
    };
    FERRY_ASSIGN_OR_RETURN(const TensorShape outer_a, outer(a));
    FERRY_ASSIGN_OR_RETURN(const TensorShape outer_b, outer(b));
    if (!kTriangular && outer_a != outer_b) {
      return InvalidArgument("Outer dimensions must agree: ", a.shape().DebugString(), " vs. ",
                             b.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const TensorShape both, BroadcastShapes(outer_a, outer_b));
    Ints dims(both.dims().begin(), both.dims().end());
    dims.push_back(s.rows);
    dims.push_back(right.columns);
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(dims));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (shape.num_elements() == 0) return absl::OkStatus();
    const Places places = PlacesOf(shape, a.shape(), b.shape());
    s.count = both.num_elements();
    const int64_t n = s.rows, m = right.columns;
    return ForMatrices(c, s, [&](int64_t i) -> absl::Status {
      const ConstMap<T> left(a.data<T>() + places.a[static_cast<size_t>(i)] * n * n, n, n);
      const ConstMap<T> rhs(b.data<T>() + places.b[static_cast<size_t>(i)] * n * m, n, m);
      MutableMap<T> x(out->data<T>() + i * n * m, n, m);
      return Solve(left, rhs, &x);
    });
  }

  absl::Status Solve(const ConstMap<T>& a, const ConstMap<T>& b, MutableMap<T>* x) const {
    if constexpr (kTriangular) {
      *x = b;
      if (lower_ && adjoint_)
        a.template triangularView<Eigen::Lower>().transpose().solveInPlace(*x);
      if (lower_ && !adjoint_) a.template triangularView<Eigen::Lower>().solveInPlace(*x);
      if (!lower_ && adjoint_)
        a.template triangularView<Eigen::Upper>().transpose().solveInPlace(*x);
      if (!lower_ && !adjoint_) a.template triangularView<Eigen::Upper>().solveInPlace(*x);
      return absl::OkStatus();
    } else {
      const Eigen::PartialPivLU<Matrix<T>> lu(adjoint_ ? Matrix<T>(a.transpose()) : Matrix<T>(a));
      if (!(lu.matrixLU().diagonal().array().abs().minCoeff() > T(0))) {
        return InvalidArgument(kSingular);
      }
      *x = lu.solve(b);
      return absl::OkStatus();
    }
  }

  bool adjoint_ = false, lower_ = true;
};
template <typename T>
using MatrixSolveKernel = SolveKernel<T, false>;
template <typename T>
using TriangularSolveKernel = SolveKernel<T, true>;

absl::Status SolveShape(InferenceContext* c, bool broadcasts) {
  FERRY_ASSIGN_OR_RETURN(const PartialShape a, c->WithRankAtLeast(c->input(0), 2));
  FERRY_ASSIGN_OR_RETURN(const PartialShape b, c->WithRankAtLeast(c->input(1), 2));
  if (!a.known_rank() || !b.known_rank()) return absl::OkStatus();
  const auto outer = [](const PartialShape& s) {
    PartialShape out = PartialShape::Scalar();
    for (int i = 0; i + 2 < s.rank(); ++i) out.AddDim(s.dim(i));
    return out;
  };
  PartialShape out = outer(b);
  if (broadcasts) {
    FERRY_ASSIGN_OR_RETURN(out, BroadcastShapes(outer(a), outer(b)));
  }
  int64_t side = -1;
  for (const int64_t d : {a.dim(a.rank() - 1), a.dim(a.rank() - 2), b.dim(b.rank() - 2)}) {
    if (side >= 0 && d >= 0 && side != d) {
      return InvalidArgument("Dimensions must be equal, but are ", side, " and ", d);
    }
    side = std::max(side, d);
  }
  out.AddDim(side);
  out.AddDim(b.dim(b.rank() - 1));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// a x = b: db = a^-T dx, da = -db x^T; or the transposed of that, with a^T for a.
absl::Status SolveGradient(GradientContext* c, bool triangular) {
  const Scope& s = c->scope();
  FERRY_ASSIGN_OR_RETURN(const bool adjoint, c->Attr<bool>("adjoint"));
  const Output a = c->input(0), x = c->output(0);
  NodeBuilder solve(s, c->node()->op());
  solve.Input(a).Input(c->grad(0)).Attr("adjoint", !adjoint);
  bool lower = true;
  if (triangular) {
    FERRY_ASSIGN_OR_RETURN(lower, c->Attr<bool>("lower"));
    solve.Attr("lower", lower);
  }
  const Output db = solve.BuildOutput();
  Output da =
      ops::Neg(s, adjoint ? MatMulOf(s, x, db, false, true) : MatMulOf(s, db, x, false, true));
  if (triangular) {
    da = NodeBuilder(s, "MatrixBandPart")
             .Input(da)
             .Input(ops::Const<int64_t>(s, lower ? -1 : 0))
             .Input(ops::Const<int64_t>(s, lower ? 0 : -1))
             .BuildOutput();
    // The innermost two sizes of db are those of b, and of da those of a.
    c->set_input_grad(0, UnbroadcastGradients(s, a, da, da, da).first);
    c->set_input_grad(1, UnbroadcastGradients(s, c->input(1), db, db, db).first);
    return s.status();
  }
  c->set_input_grad(0, da);
  c->set_input_grad(1, db);
  return s.status();
}

FERRY_OP("MatrixSolve")
    .Input("matrix: T")
    .Input("rhs: T")
    .Output("output: T")
    .Attr("adjoint: bool = false")
    .Attr("T: {double, float, half}")
    .Shape([](InferenceContext* c) { return SolveShape(c, false); })
    .Gradient([](GradientContext* c) { return SolveGradient(c, false); });

FERRY_OP("MatrixTriangularSolve")
    .Input("matrix: T")
    .Input("rhs: T")
    .Output("output: T")
    .Attr("lower: bool = true")
    .Attr("adjoint: bool = false")
    .Attr("T: {bfloat16, double, float, half}")
    .Shape([](InferenceContext* c) { return SolveShape(c, true); })
    .Gradient([](GradientContext* c) { return SolveGradient(c, true); });

using Reals = Types<float, double>;
const bool registered = RegisterCpu<CholeskyKernel>(Reals(), "Cholesky") &&
                        RegisterCpu<InverseKernel>(Types<half, float, double>(), "MatrixInverse") &&
                        RegisterCpu<DeterminantKernel>(Reals(), "MatrixDeterminant") &&
                        RegisterCpu<DeterminantKernel>(Reals(), "LogMatrixDeterminant") &&
                        RegisterCpu<MatrixSolveKernel>(Reals(), "MatrixSolve") &&
                        RegisterCpu<TriangularSolveKernel>(Reals(), "MatrixTriangularSolve");

}  // namespace
}  // namespace ferry
