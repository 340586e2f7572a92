// Diagonals of matrices: MatrixBandPart, MatrixDiag, MatrixDiagPart and MatrixSetDiag with their V2
// and V3, which take bands of diagonals, and Diag and DiagPart, which take tensors of any rank.
//
// Of a matrix, diagonal k holds the elements whose column is their row plus k. A band of diagonals
// is packed as a matrix with a row a diagonal, the uppermost first; rows that are shorter than the
// longest are padded on the side that the attribute "align" says.
#include <algorithm>
#include <optional>
#include <string>
#include <type_traits>

#include "kernels/array.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// Which diagonals, and how they are packed.
struct Band {
  int64_t lower = 0, upper = 0;
  // Whether the rows of diagonals above (below) the main one begin at the left.
  bool left_above = true, left_below = true;

  int64_t count() const { return upper - lower + 1; }
  int64_t LongestIn(int64_t rows, int64_t columns) const {
    return std::min(rows + std::min<int64_t>(upper, 0), columns - std::max<int64_t>(lower, 0));
  }
  // Where element (row, column) of a rows * columns matrix lies in its packed band, whose rows have
  // `longest` elements; -1 if outside the band.
  int64_t Place(int64_t row, int64_t column, int64_t rows, int64_t columns, int64_t longest) const {
    const int64_t k = column - row;
    if (k < lower || k > upper) return -1;
    const int64_t length =
        std::min(rows + std::min<int64_t>(k, 0), columns - std::max<int64_t>(k, 0));
    const bool left = (k >= 0 && left_above) || (k <= 0 && left_below);
    return (upper - k) * longest + column - std::max<int64_t>(k, 0) + (left ? 0 : longest - length);
  }
};

void SetAlign(const std::string& align, Band* band) {
  band->left_above = align == "LEFT_RIGHT" || align == "LEFT_LEFT";
  band->left_below = align == "RIGHT_LEFT" || align == "LEFT_LEFT";
}

// `k`: a number, or the lowest and the highest of the diagonals.
absl::Status SetDiagonals(absl::Span<const int64_t> k, Band* band) {
  if (k.empty() || k.size() > 2) {
    return InvalidArgument("diag_index must have only one or two elements, received ", k.size(),
                           " elements.");
  }
  band->lower = k.front();
  band->upper = k.back();
  if (band->lower > band->upper) {
    return InvalidArgument("lower_diag_index must not be larger than upper_diag_index: ",
                           band->lower, " > ", band->upper);
  }
  return absl::OkStatus();
}

// That the diagonals lie in a rows * columns matrix.
absl::Status CheckBand(const Band& band, int64_t rows, int64_t columns) {
  if (!((-rows < band.lower && band.lower < columns) || band.lower == 0)) {
    return InvalidArgument("lower_diag_index is out of bound: ", band.lower, " It must be between ",
                           -rows, " and ", columns);
  }
  if (!((-rows < band.upper && band.upper < columns) || band.upper == 0)) {
    return InvalidArgument("upper_diag_index is out of bound: ", band.upper, " It must be between ",
                           -rows, " and ", columns);
  }
  return absl::OkStatus();
}

// The sizes of the matrix that MatrixDiag makes of diagonals of at most `longest` elements; -1 asks
// for the least that will do.
absl::Status MatrixSizes(const Band& band, int64_t longest, int64_t* rows, int64_t* columns) {
  const int64_t least_rows = longest - std::min<int64_t>(band.upper, 0);
  const int64_t least_columns = longest + std::max<int64_t>(band.lower, 0);
  if (*rows != -1 && *rows < least_rows) {
    return InvalidArgument("The number of rows is too small: ", *rows, " of ", least_rows);
  }
  if (*columns != -1 && *columns < least_columns) {
    return InvalidArgument("The number of columns is too small: ", *columns, " of ", least_columns);
  }
  if (*rows == -1 && *columns == -1) {
    *rows = *columns = std::max(least_rows, least_columns);
  } else if (*rows == -1) {
    *rows = least_rows;
  } else if (*columns == -1) {
    *columns = least_columns;
  }
  if (*rows != least_rows && *columns != least_columns) {
    return InvalidArgument(
        "The number of rows or columns is not consistent with the specified d_lower, d_upper, and "
        "diagonal.");
  }
  return absl::OkStatus();
}

// What the three ops share: V1 has the main diagonal only, V3 the attribute "align".
class BandKernel : public Kernel {
 protected:
  absl::Status Init(const KernelConstruction& c) override {
    if (c.attrs().count("align") == 0) return absl::OkStatus();
    FERRY_ASSIGN_OR_RETURN(const std::string align, c.Attr<std::string>("align"));
    SetAlign(align, &band_);
    return absl::OkStatus();
  }
  // With the diagonals that input i names, if the op has it.
  absl::StatusOr<Band> BandOf(KernelContext* c, int i) const {
    Band band = band_;
    if (c->num_inputs() > i) {
      if (c->input(i).rank() > 1) {
        return InvalidArgument("diag_index must be a scalar or vector, received shape: ",
                               c->input(i).shape().DebugString());
      }
      FERRY_ASSIGN_OR_RETURN(const Ints k, c->InputAsInts(i));
      FERRY_RETURN_IF_ERROR(SetDiagonals(k, &band));
    }
    return band;
  }

 private:
  Band band_;
};

// ---- MatrixDiag ----

class MatrixDiagKernel : public BandKernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& diagonal = c->input(0);
    if (diagonal.rank() < 1) {
      return InvalidArgument("diagonal must be at least 1-dim, received shape: ",
                             diagonal.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const Band band, BandOf(c, 1));
    int64_t rows = -1, columns = -1;
    if (c->num_inputs() > 1) {
      for (int i = 2; i < 5; ++i) {
        static const char* const kNames[] = {"num_rows", "num_cols", "padding_value"};
        if (c->input(i).num_elements() != 1) {
          return InvalidArgument(kNames[i - 2], " must be a scalar, received shape: ",
                                 c->input(i).shape().DebugString());
        }
      }
      FERRY_ASSIGN_OR_RETURN(rows, c->InputAsInt(2));
      FERRY_ASSIGN_OR_RETURN(columns, c->InputAsInt(3));
    }
    const int rank = diagonal.rank();
    if (band.count() > 1 && (rank < 2 || diagonal.dim(rank - 2) != band.count())) {
      return InvalidArgument(
          "The number of diagonals provided in the input does not match the lower_diag_index and "
          "upper_diag_index range: ",
          diagonal.shape().DebugString(), " for ", band.count());
    }
    const int64_t longest = diagonal.dim(rank - 1);
    FERRY_RETURN_IF_ERROR(MatrixSizes(band, longest, &rows, &columns));
    const auto dims = diagonal.shape().dims();
    Ints sizes(dims.begin(), dims.end() - (band.count() > 1 ? 2 : 1));
    const int64_t matrices = Product(sizes);
    sizes.push_back(rows);
    sizes.push_back(columns);
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(sizes));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    return ForWidth(out->dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T padding = c->num_inputs() > 1 ? *static_cast<const T*>(c->input(4).raw()) : T();
      const T* from = static_cast<const T*>(diagonal.raw());
      T* to = static_cast<T*>(out->raw());
      for (int64_t m = 0; m < matrices; ++m, from += band.count() * longest) {
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t k = 0; k < columns; ++k, ++to) {
            const int64_t at = band.Place(r, k, rows, columns, longest);
            *to = at < 0 ? padding : from[at];
          }
        }
      }
    });
  }
};

// What is known of the band that input i names; V1 ops have the main diagonal.
absl::StatusOr<std::optional<Band>> KnownBand(InferenceContext* c, int i) {
  Band band;
  if (c->num_inputs() <= i) return std::optional<Band>(band);
  FERRY_RETURN_IF_ERROR(c->WithRankAtMost(c->input(i), 1).status());
  const std::optional<Ints> k = KnownInts(c, i);
  if (!k) return std::optional<Band>();
  FERRY_RETURN_IF_ERROR(SetDiagonals(*k, &band));
  return std::optional<Band>(band);
}

absl::Status MatrixDiagShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const PartialShape diagonal, c->WithRankAtLeast(c->input(0), 1));
  FERRY_ASSIGN_OR_RETURN(const std::optional<Band> band, KnownBand(c, 1));
  std::optional<int64_t> rows = -1, columns = -1;
  if (c->num_inputs() > 1) {
    rows = KnownInt(c, 2);
    columns = KnownInt(c, 3);
  }
  if (!diagonal.known_rank() || !band) return absl::OkStatus();
  const int own = band->count() > 1 ? 2 : 1;
  if (diagonal.rank() < own) {
    return InvalidArgument("diagonal must be at least ", own,
                           "-dim, received shape: ", diagonal.DebugString());
  }
  PartialShape out = PartialShape::Scalar();
  for (int i = 0; i < diagonal.rank() - own; ++i) out.AddDim(diagonal.dim(i));
  const int64_t longest = diagonal.dim(-1);
  if (rows && columns && longest != PartialShape::kUnknown) {
    FERRY_RETURN_IF_ERROR(MatrixSizes(*band, longest, &*rows, &*columns));
    out.AddDim(*rows);
    out.AddDim(*columns);
  } else {
    out.AddDim(PartialShape::kUnknown);
    out.AddDim(PartialShape::kUnknown);
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// ---- MatrixDiagPart ----

class MatrixDiagPartKernel : public BandKernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    if (in.rank() < 2) {
      return InvalidArgument("input must be at least 2-dim, received shape: ",
                             in.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const Band band, BandOf(c, 1));
    if (c->num_inputs() > 2 && c->input(2).num_elements() != 1) {
      return InvalidArgument("padding_value must be a scalar, received shape: ",
                             c->input(2).shape().DebugString());
    }
    const int64_t rows = in.dim(in.rank() - 2), columns = in.dim(in.rank() - 1);
    FERRY_RETURN_IF_ERROR(CheckBand(band, rows, columns));
    const int64_t longest = band.LongestIn(rows, columns);
    const auto dims = in.shape().dims();
    Ints sizes(dims.begin(), dims.end() - 2);
    const int64_t matrices = Product(sizes);
    if (band.count() > 1) sizes.push_back(band.count());
    sizes.push_back(longest);
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(sizes));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    return ForWidth(out->dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T padding = c->num_inputs() > 2 ? *static_cast<const T*>(c->input(2).raw()) : T();
      const T* from = static_cast<const T*>(in.raw());
      T* to = static_cast<T*>(out->raw());
      std::fill_n(to, out->num_elements(), padding);
      for (int64_t m = 0; m < matrices; ++m, to += band.count() * longest) {
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t k = 0; k < columns; ++k, ++from) {
            const int64_t at = band.Place(r, k, rows, columns, longest);
            if (at >= 0) to[at] = *from;
          }
        }
      }
    });
  }
};

absl::Status MatrixDiagPartShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const PartialShape in, c->WithRankAtLeast(c->input(0), 2));
  FERRY_ASSIGN_OR_RETURN(const std::optional<Band> band, KnownBand(c, 1));
  if (!in.known_rank() || !band) return absl::OkStatus();
  PartialShape out = PartialShape::Scalar();
  for (int i = 0; i < in.rank() - 2; ++i) out.AddDim(in.dim(i));
  if (band->count() > 1) out.AddDim(band->count());
  const int64_t rows = in.dim(-2), columns = in.dim(-1);
  if (rows != PartialShape::kUnknown && columns != PartialShape::kUnknown) {
    FERRY_RETURN_IF_ERROR(CheckBand(*band, rows, columns));
    out.AddDim(band->LongestIn(rows, columns));
  } else {
    out.AddDim(PartialShape::kUnknown);
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// ---- MatrixSetDiag ----

class MatrixSetDiagKernel : public BandKernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor &in = c->input(0), &diagonal = c->input(1);
    if (in.rank() < 2) {
      return InvalidArgument("input must be at least 2-dim, received shape: ",
                             in.shape().DebugString());
    }
    if (diagonal.rank() < 1) {
      return InvalidArgument("diagonal must be at least 1-dim, received shape: ",
                             diagonal.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(const Band band, BandOf(c, 2));
    const int64_t rows = in.dim(in.rank() - 2), columns = in.dim(in.rank() - 1);
    FERRY_RETURN_IF_ERROR(CheckBand(band, rows, columns));
    const int64_t longest = band.LongestIn(rows, columns);
    const auto dims = in.shape().dims();
    Ints sizes(dims.begin(), dims.end() - 2);
    const int64_t matrices = Product(sizes);
    if (band.count() > 1) sizes.push_back(band.count());
    sizes.push_back(longest);
    FERRY_ASSIGN_OR_RETURN(const TensorShape expected, TensorShape::Make(sizes));
    if (diagonal.shape() != expected) {
      return InvalidArgument("diagonal must have the shape of those diagonals of the input, ",
                             expected.DebugString(), ", found ", diagonal.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    return ForWidth(out->dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = static_cast<const T*>(in.raw());
      const T* set = static_cast<const T*>(diagonal.raw());
      T* to = static_cast<T*>(out->raw());
      for (int64_t m = 0; m < matrices; ++m, set += band.count() * longest) {
        for (int64_t r = 0; r < rows; ++r) {
          for (int64_t k = 0; k < columns; ++k, ++from, ++to) {
            const int64_t at = band.Place(r, k, rows, columns, longest);
            *to = at < 0 ? *from : set[at];
          }
        }
      }
    });
  }
};

absl::Status MatrixSetDiagShape(InferenceContext* c) {
  FERRY_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(0), 2).status());
  FERRY_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(1), 1).status());
  FERRY_RETURN_IF_ERROR(KnownBand(c, 2).status());
  return UnchangedShape(c);
}

// ---- Definitions and gradients ----

// A node of the same version as the gradient's own: with inputs for k and, in MatrixDiagPart, the
// padding, from V2 on, and the attribute "align" in V3.
class SameVersion {
 public:
  explicit SameVersion(GradientContext* c, int k_input)
      : s_(c->scope()), banded_(c->node()->num_inputs() > k_input) {
    if (!banded_) return;
    k_ = c->input(k_input);
    const absl::StatusOr<std::string> align = c->Attr<std::string>("align");
    if (align.ok()) align_ = *align;
    version_ = align.ok() ? "V3" : "V2";
  }
  Output DiagPart(Output x) const {
    NodeBuilder b(s_, "MatrixDiagPart" + version_);
    b.Input(x);
    if (banded_) b.Input(k_).Input(Zero(x));
    return Done(&b);
  }
  Output SetDiag(Output x, Output diagonal) const {
    NodeBuilder b(s_, "MatrixSetDiag" + version_);
    b.Input(x).Input(diagonal);
    if (banded_) b.Input(k_);
    return Done(&b);
  }

 private:
  Output Zero(Output x) const {
    return ops::Cast(s_, ops::Const<int32_t>(s_, 0), BaseType(x.dtype()));
  }
  Output Done(NodeBuilder* b) const {
    if (!align_.empty()) b->Attr("align", align_);
    return b->BuildOutput();
  }
  const Scope& s_;
  bool banded_;
  Output k_;
  std::string version_, align_;
};

absl::Status MatrixDiagGradient(GradientContext* c) {
  c->set_input_grad(0, SameVersion(c, 1).DiagPart(c->grad(0)));
  return c->scope().status();
}
absl::Status MatrixDiagPartGradient(GradientContext* c) {
  const Output zeros = ops::ZerosLike(c->scope(), c->input(0));
  c->set_input_grad(0, SameVersion(c, 1).SetDiag(zeros, c->grad(0)));
  return c->scope().status();
}
absl::Status MatrixSetDiagGradient(GradientContext* c) {
  const SameVersion same(c, 2);
  const Output zeros = ops::ZerosLike(c->scope(), c->input(1));
  c->set_input_grad(0, same.SetDiag(c->grad(0), zeros));
  c->set_input_grad(1, same.DiagPart(c->grad(0)));
  return c->scope().status();
}

// Versions 1, 2 and 3 of an op; `inputs` are those that came with V2.
template <typename K>
bool Define(const std::string& op, std::initializer_list<const char*> v1,
            std::initializer_list<const char*> v2, const char* output, const ShapeFn& shape,
            const GradientFn& gradient) {
  for (const int version : {1, 2, 3}) {
    const std::string name = version == 1 ? op : op + "V" + std::to_string(version);
    OpBuilder b(name);
    for (const char* input : v1) b.Input(input);
    if (version > 1) {
      for (const char* input : v2) b.Input(input);
    }
    b.Output(output).Attr("T: type").Shape(shape).Gradient(gradient);
    if (version == 3) {
      b.Attr("align: {'LEFT_RIGHT', 'RIGHT_LEFT', 'LEFT_LEFT', 'RIGHT_RIGHT'} = 'RIGHT_LEFT'");
    }
    const OpBuilder::Registrar registrar(b);
    const KernelBuilder::Registrar kernel(
        KernelBuilder(name).Type("T", kGpuTypes).template Make<K>());
  }
  return true;
}

const bool defined =
    Define<MatrixDiagKernel>("MatrixDiag", {"diagonal: T"},
                             {"k: int32", "num_rows: int32", "num_cols: int32", "padding_value: T"},
                             "output: T", MatrixDiagShape, MatrixDiagGradient) &&
    Define<MatrixDiagPartKernel>("MatrixDiagPart", {"input: T"}, {"k: int32", "padding_value: T"},
                                 "diagonal: T", MatrixDiagPartShape, MatrixDiagPartGradient) &&
    Define<MatrixSetDiagKernel>("MatrixSetDiag", {"input: T", "diagonal: T"}, {"k: int32"},
                                "output: T", MatrixSetDiagShape, MatrixSetDiagGradient);

// ---- MatrixBandPart ----

class MatrixBandPartKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    if (in.rank() < 2) {
      return InvalidArgument("input must be at least 2-dim, received shape: ",
                             in.shape().DebugString());
    }
    const int64_t rows = in.dim(in.rank() - 2), columns = in.dim(in.rank() - 1);
    static const char* const kNames[] = {"num_lower", "num_upper"};
    for (int i = 1; i < 3; ++i) {
      if (c->input(i).rank() != 0) {
        return InvalidArgument(kNames[i - 1], " must be scalar, got shape ",
                               c->input(i).shape().DebugString());
      }
    }
    FERRY_ASSIGN_OR_RETURN(const int64_t lower, c->InputAsInt(1));
    FERRY_ASSIGN_OR_RETURN(const int64_t upper, c->InputAsInt(2));
    if (lower > rows) {
      return InvalidArgument("num_lower must be negative or less or equal to number of rows (",
                             rows, ") got: ", lower);
    }
    if (upper > columns) {
      return InvalidArgument("num_upper must be negative or less or equal to number of columns (",
                             columns, ") got: ", upper);
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, in.shape()));
    return ForWidth(out->dtype(), [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      const T* from = static_cast<const T*>(in.raw());
      T* to = static_cast<T*>(out->raw());
      const int64_t lines = columns == 0 ? 0 : in.num_elements() / columns;
      for (int64_t line = 0; line < lines; ++line) {
        const int64_t r = line % rows;
        for (int64_t k = 0; k < columns; ++k, ++from, ++to) {
          const bool inside = (lower < 0 || r - k <= lower) && (upper < 0 || k - r <= upper);
          *to = inside ? *from : T();
        }
      }
    });
  }
};

FERRY_OP("MatrixBandPart")
    .Input("input: T")
    .Input("num_lower: Tindex")
    .Input("num_upper: Tindex")
    .Output("band: T")
    .Attr("T: type")
    .Attr("Tindex: {int32, int64} = DT_INT64")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(0), 2).status());
      for (int i = 1; i < 3; ++i) FERRY_RETURN_IF_ERROR(c->WithRank(c->input(i), 0).status());
      return UnchangedShape(c);
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(0, NodeBuilder(c->scope(), "MatrixBandPart")
                               .Input(c->grad(0))
                               .Input(c->input(1))
                               .Input(c->input(2))
                               .BuildOutput());
      return c->scope().status();
    });
FERRY_KERNEL("MatrixBandPart").Type("T", kGpuTypes).Make<MatrixBandPartKernel>();

// ---- Diag, DiagPart ----

// out[i, i] = x[i], where i stands for all of x's indices; and back.
class DiagKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    if (x.rank() < 1) return InvalidArgument("Input must be at least rank 1, got 0");
    const auto dims = x.shape().dims();
    Ints sizes(dims.begin(), dims.end());
    sizes.insert(sizes.end(), dims.begin(), dims.end());
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(sizes));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    FERRY_RETURN_IF_ERROR(FillZero(c, out));
    const int64_t n = x.num_elements();
    const CopyDim line = {n, 1, n + 1};
    return StridedCopy(c, x, 0, out, 0, absl::MakeConstSpan(&line, 1));
  }
};

absl::Status CheckHalves(absl::Span<const int64_t> dims) {
  const size_t half = dims.size() / 2;
  if (dims.size() % 2 != 0) {
    return InvalidArgument("The rank of the tensor should be even, got rank ", dims.size());
  }
  for (size_t i = 0; i < half; ++i) {
    if (dims[i] != dims[i + half] && dims[i] >= 0 && dims[i + half] >= 0) {
      return InvalidArgument("Invalid shape: dimensions ", i, " and ", i + half,
                             " do not match: ", dims[i], " and ", dims[i + half]);
    }
  }
  return absl::OkStatus();
}

class DiagPartKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    const auto dims = x.shape().dims();
    FERRY_RETURN_IF_ERROR(CheckHalves(dims));
    const TensorShape shape(dims.subspan(0, dims.size() / 2));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    const int64_t n = shape.num_elements();
    const CopyDim line = {n, n + 1, 1};
    return StridedCopy(c, x, 0, out, 0, absl::MakeConstSpan(&line, 1));
  }
};

#define FERRY_DIAG_TYPES "T: {bfloat16, half, float, double, int32, int64, complex64, complex128}"

FERRY_OP("Diag")
    .Input("diagonal: T")
    .Output("output: T")
    .Attr(FERRY_DIAG_TYPES)
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape out, c->WithRankAtLeast(c->input(0), 1));
      if (out.known_rank()) {
        const int rank = out.rank();
        for (int i = 0; i < rank; ++i) out.AddDim(out.dim(i));
      }
      c->set_output(0, std::move(out));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(0, NodeBuilder(c->scope(), "DiagPart").Input(c->grad(0)).BuildOutput());
      return c->scope().status();
    });
FERRY_OP("DiagPart")
    .Input("input: T")
    .Output("diagonal: T")
    .Attr(FERRY_DIAG_TYPES)
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape& in = c->input(0);
      if (!in.known_rank()) return absl::OkStatus();
      FERRY_RETURN_IF_ERROR(CheckHalves(in.dims()));
      PartialShape out = PartialShape::Scalar();
      for (int i = 0; i < in.rank() / 2; ++i) {
        out.AddDim(std::max(in.dim(i), in.dim(i + in.rank() / 2)));
      }
      c->set_output(0, std::move(out));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(0, NodeBuilder(c->scope(), "Diag").Input(c->grad(0)).BuildOutput());
      return c->scope().status();
    });
FERRY_KERNEL("Diag")
    .Type("T", {DType::kHalf, DType::kFloat, DType::kDouble, DType::kInt32, DType::kInt64})
    .Make<DiagKernel>();
FERRY_KERNEL("DiagPart")
    .Type("T", {DType::kHalf, DType::kFloat, DType::kDouble, DType::kInt32, DType::kInt64})
    .Make<DiagPartKernel>();

}  // namespace
}  // namespace ferry
