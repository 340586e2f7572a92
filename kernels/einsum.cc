// Einsum of one or two tensors: "ij,jk->ik" multiplies matrices. A label is a character; labels
// that the output lacks are summed over, and a label twice in one tensor stands for its diagonal.
// "..." stands for any dimensions, which broadcast, aligned to the right.
#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/array.h"
#include "kernels/gemm.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// ---- The equation ----

// A character, or one of the dimensions that an ellipsis stands for: the last is kEllipsis, the one
// before kEllipsis + 1, and so on.
using Label = int;
using Labels = std::vector<Label>;
constexpr Label kEllipsis = 256;

struct Equation {
  std::vector<Labels> inputs;  // kEllipsis alone stands for all of an ellipsis' dimensions.
  Labels output;
};

bool Has(const Labels& labels, Label l) {
  return std::find(labels.begin(), labels.end(), l) != labels.end();
}

absl::StatusOr<Labels> LabelsOf(absl::string_view subscripts, const std::string& equation) {
  Labels labels;
  if (subscripts.size() > kMaxRank + 3) {  // With an ellipsis.
    return InvalidArgument("an einsum equation has subscripts of ", subscripts.size(),
                           " labels, more than a tensor has dimensions");
  }
  for (size_t i = 0; i < subscripts.size(); ++i) {
    if (subscripts[i] != '.') {
      labels.push_back(static_cast<unsigned char>(subscripts[i]));
      continue;
    }
    if (subscripts.substr(i, 3) != "..." || Has(labels, kEllipsis)) {
      return InvalidArgument(
          "Expected at most one ellipsis (...) and no other dots in the "
          "subscripts '",
          subscripts, "' of equation '", equation, "'");
    }
    labels.push_back(kEllipsis);
    i += 2;
  }
  return labels;
}

absl::StatusOr<Equation> Parse(const std::string& equation) {
  const std::vector<std::string> sides = absl::StrSplit(equation, "->");
  if (sides.size() != 2) {
    return InvalidArgument("Expecting exactly one '->' in einsum equation: ", equation);
  }
  Equation e;
  for (absl::string_view input : absl::StrSplit(sides[0], ',')) {
    FERRY_ASSIGN_OR_RETURN(Labels labels, LabelsOf(input, equation));
    e.inputs.push_back(std::move(labels));
  }
  if (e.inputs.size() > 2) {
    return InvalidArgument("Expecting 1 or 2 input subscripts in equation '", equation,
                           "' but got: ", e.inputs.size());
  }
  FERRY_ASSIGN_OR_RETURN(e.output, LabelsOf(sides[1], equation));
  for (const Label l : e.output) {
    if (l == kEllipsis || Has(e.inputs.front(), l) || Has(e.inputs.back(), l)) continue;
    return InvalidArgument("Einsum output subscripts for equation '", equation, "' has label '",
                           std::string(1, static_cast<char>(l)),
                           "' which is not present in the input subscripts");
  }
  return e;
}

absl::Status CheckCount(const Equation& e, const std::string& text, int64_t n) {
  if (static_cast<int64_t>(e.inputs.size()) == n) return absl::OkStatus();
  return InvalidArgument("Expected ", e.inputs.size(), " inputs for equation ", text,
                         " but got: ", n);
}

// The labels of all dimensions of a tensor of that rank.
absl::StatusOr<Labels> Expand(const Labels& labels, int rank) {
  const int named = static_cast<int>(labels.size()) - (Has(labels, kEllipsis) ? 1 : 0);
  if (Has(labels, kEllipsis) ? rank < named : rank != named) {
    return InvalidArgument("Shape must be ", Has(labels, kEllipsis) ? "at least " : "", "rank ",
                           named, " but is rank ", rank, ", for an input of the einsum equation");
  }
  Labels all;
  for (const Label l : labels) {
    if (l != kEllipsis) {
      all.push_back(l);
      continue;
    }
    for (int i = rank - named; i-- > 0;) all.push_back(kEllipsis + i);
  }
  return all;
}

using Sizes = absl::flat_hash_map<Label, int64_t>;

// An equation as it applies to tensors of some ranks and sizes, which may be unknown (-1).
struct Applied {
  std::vector<Labels> inputs;
  Labels output;
  Sizes sizes;  // After broadcasting.
};

absl::StatusOr<Applied> Apply(const Equation& e, const std::vector<PartialShape>& shapes) {
  Applied a;
  int broadcast = 0;  // Dimensions of the longest ellipsis.
  for (size_t i = 0; i < shapes.size(); ++i) {
    FERRY_ASSIGN_OR_RETURN(Labels labels, Expand(e.inputs[i], shapes[i].rank()));
    for (size_t k = 0; k < labels.size(); ++k) {
      const int64_t size = shapes[i].dim(static_cast<int>(k));
      if (labels[k] >= kEllipsis) broadcast = std::max(broadcast, labels[k] - kEllipsis + 1);
      const auto [known, added] = a.sizes.try_emplace(labels[k], size);
      if (added || known->second == size) continue;
      // A size of 1 is broadcast; of it and an unknown one the result is unknown.
      const bool broadcasts = labels[k] >= kEllipsis;
      if (broadcasts && known->second == 1) {
        known->second = size;
      } else if (size < 0 || (broadcasts && size == 1)) {
        continue;
      } else if (known->second < 0) {
        known->second = size;
      } else {
        return InvalidArgument("Expected dimension ", known->second, " at axis ", k,
                               " of the input shaped ", shapes[i].DebugString(),
                               " but got dimension ", size);
      }
    }
    a.inputs.push_back(std::move(labels));
  }
  for (const Label l : e.output) {
    if (l != kEllipsis) {
      a.output.push_back(l);
      continue;
    }
    for (int i = broadcast; i-- > 0;) a.output.push_back(kEllipsis + i);
  }
  if (broadcast > 0 && !Has(e.output, kEllipsis)) {
    return InvalidArgument("Shape must be at most rank 0 but is rank ", broadcast,
                           " for an einsum equation without ellipsis (...) in the output "
                           "subscripts where input(s) have non-empty broadcasting shape");
  }
  return a;
}

// ---- Kernel ----

// Memory beside that of the outputs, which the products' own scratch memory leaves no room for.
absl::StatusOr<Tensor> Allocate(KernelContext* c, DType dtype, const Ints& dims) {
  FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(dims));
  return Tensor::Allocate(dtype, shape, c->run()->allocator);
}

Ints SizesOf(const Labels& labels, const Sizes& sizes) {
  Ints dims;
  for (const Label l : labels) dims.push_back(sizes.at(l));
  return dims;
}

// Sums each row of `inner` elements.
template <typename T>
void SumRows(KernelContext* c, int64_t rows, int64_t inner, const T* from, T* to) {
  using S = std::conditional_t<std::is_same_v<T, half> || std::is_same_v<T, bfloat16>, float,
                               std::conditional_t<std::is_integral_v<T>, uint64_t, T>>;
  c->ParallelFor(rows, std::max<int64_t>(1, 16384 / std::max<int64_t>(1, inner)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t i = begin; i < end; ++i) {
                     S sum = S(0);
                     for (int64_t k = 0; k < inner; ++k) sum += static_cast<S>(from[i * inner + k]);
                     to[i] = static_cast<T>(sum);
                   }
                 });
}

template <typename T>
class EinsumKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(const std::string text, c.Attr<std::string>("equation"));
    FERRY_ASSIGN_OR_RETURN(equation_, Parse(text));
    FERRY_ASSIGN_OR_RETURN(const int64_t n, c.Attr<int64_t>("N"));
    return CheckCount(equation_, text, n);
  }

  absl::Status Compute(KernelContext* c) const override {
    std::vector<PartialShape> shapes;
    for (int i = 0; i < c->num_inputs(); ++i) {
      const auto dims = c->input(i).shape().dims();
      PartialShape shape = PartialShape::Scalar();
      for (const int64_t d : dims) shape.AddDim(d);
      shapes.push_back(std::move(shape));
    }
    FERRY_ASSIGN_OR_RETURN(Applied a, Apply(equation_, shapes));
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(SizesOf(a.output, a.sizes)));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    if (shape.num_elements() == 0) return absl::OkStatus();
    Labels kept;  // Of the output, each once.
    for (const Label l : a.output) {
      if (!Has(kept, l)) kept.push_back(l);
    }
    if (c->num_inputs() == 1) {
      FERRY_ASSIGN_OR_RETURN(const Tensor arranged, Arranged(c, c->input(0), a.inputs[0], kept));
      return Deal(c, a, arranged, kept, out);
    }
    return Multiply(c, a, kept, out);
  }

  absl::Status Multiply(KernelContext* c, const Applied& a, const Labels& kept, Tensor* out) const {
    // Those of both, those of one, and those of both that are summed over.
    Labels batch, free[2], inner, result;
    for (const Label l : kept) {
      const bool first = Has(a.inputs[0], l), second = Has(a.inputs[1], l);
      (l >= kEllipsis || (first && second) ? batch : free[first ? 0 : 1]).push_back(l);
    }
    for (const Label l : a.inputs[0]) {
      if (!Has(kept, l) && Has(a.inputs[1], l) && !Has(inner, l)) inner.push_back(l);
    }
    GemmShape g;
    g.m = Product(SizesOf(free[0], a.sizes));
    g.n = Product(SizesOf(free[1], a.sizes));
    g.k = Product(SizesOf(inner, a.sizes));
    Tensor factors[2];
    std::vector<int64_t> numbers[2];
    const Ints batches = SizesOf(batch, a.sizes);
    for (int i = 0; i < 2; ++i) {
      Labels own;  // Of the batch.
      for (const Label l : batch) {
        if (Has(a.inputs[static_cast<size_t>(i)], l)) own.push_back(l);
      }
      const auto order = [&](const Labels& middle, const Labels& last) {
        Labels all = own;
        all.insert(all.end(), middle.begin(), middle.end());
        all.insert(all.end(), last.begin(), last.end());
        return all;
      };
      const Labels &rows = i == 0 ? free[0] : inner, &columns = i == 0 ? inner : free[1];
      // As it lies, if a product of the transposed does.
      const bool transposed = a.inputs[static_cast<size_t>(i)] == order(columns, rows) &&
                              !(rows.empty() || columns.empty());
      (i == 0 ? g.transpose_a : g.transpose_b) = transposed;
      FERRY_ASSIGN_OR_RETURN(factors[i],
                             Arranged(c, c->input(i), a.inputs[static_cast<size_t>(i)],
                                      transposed ? order(columns, rows) : order(rows, columns)));
      numbers[i] = Numbers(factors[i], batch, own, batches);
    }
    result = batch;
    for (const Labels& f : free) result.insert(result.end(), f.begin(), f.end());
    const bool direct = result == a.output;
    Tensor product = *out;
    if (!direct) {
      FERRY_ASSIGN_OR_RETURN(product, Allocate(c, out->dtype(), SizesOf(result, a.sizes)));
    }
    FERRY_RETURN_IF_ERROR(
        BatchGemm<T>(c, g, Product(batches), numbers[0].empty() ? nullptr : numbers[0].data(),
                     numbers[1].empty() ? nullptr : numbers[1].data(), factors[0].data<T>(),
                     factors[1].data<T>(), product.data<T>()));
    return direct ? absl::OkStatus() : Deal(c, a, product, result, out);
  }

  // Which matrix of a factor each product takes; empty: one after the other.
  static std::vector<int64_t> Numbers(const Tensor& factor, const Labels& batch, const Labels& own,
                                      const Ints& batches) {
    Ints steps(batch.size(), 0);
    int64_t step = 1;
    bool plain = true;
    for (size_t k = batch.size(), left = own.size(); k-- > 0;) {
      const bool has = left > 0 && own[left - 1] == batch[k];
      const int64_t size = has ? factor.dim(static_cast<int>(--left)) : 1;
      if (size > 1) steps[k] = step;
      plain = plain && size == batches[k];
      step *= size;
    }
    std::vector<int64_t> numbers;
    if (plain) return numbers;
    const int64_t total = Product(batches);
    for (int64_t i = 0; i < total; ++i) {
      int64_t number = 0, rest = i;
      for (size_t k = batch.size(); k-- > 0; rest /= batches[k]) {
        number += rest % batches[k] * steps[k];
      }
      numbers.push_back(number);
    }
    return numbers;
  }

  // The tensor with its labels in that order: diagonals taken, the others summed over. Sizes are
  // its own, so that what is to be broadcast may still be 1. It may be the tensor itself.
  absl::StatusOr<Tensor> Arranged(KernelContext* c, const Tensor& from, const Labels& labels,
                                  const Labels& order) const {
    if (labels == order) return from;
    const auto dims = from.shape().dims();
    const Ints strides = Strides(dims);
    Labels all = order;
    for (const Label l : labels) {
      if (!Has(all, l)) all.push_back(l);
    }
    std::vector<CopyDim> copied;
    Ints sizes, kept;
    for (const Label l : all) {
      CopyDim d{1, 0, 0};
      for (size_t k = 0; k < labels.size(); ++k) {
        if (labels[k] != l) continue;
        d.size = dims[k];
        d.from += strides[k];
      }
      copied.push_back(d);
      sizes.push_back(d.size);
      if (copied.size() <= order.size()) kept.push_back(d.size);
    }
    const Ints to = Strides(sizes);
    for (size_t k = 0; k < to.size(); ++k) copied[k].to = to[k];
    Tensor arranged = from;
    if (labels != all) {
      FERRY_ASSIGN_OR_RETURN(arranged, Allocate(c, from.dtype(), sizes));
      FERRY_RETURN_IF_ERROR(StridedCopy(c, from, 0, &arranged, 0, copied));
    }
    if (all.size() == order.size()) return arranged;
    FERRY_ASSIGN_OR_RETURN(Tensor sums, Allocate(c, from.dtype(), kept));
    const int64_t rows = Product(kept);
    SumRows<T>(c, rows, rows == 0 ? 0 : Product(sizes) / rows, arranged.data<T>(), sums.data<T>());
    return sums;
  }

  // Copies the result, whose labels lie in that order, to where the output has them.
  static absl::Status Deal(KernelContext* c, const Applied& a, const Tensor& result,
                           const Labels& order, Tensor* out) {
    const Ints strides = Strides(out->shape().dims());
    const Ints from = Strides(result.shape().dims());
    std::vector<CopyDim> copied;
    for (size_t k = 0; k < order.size(); ++k) {
      CopyDim d{result.dim(static_cast<int>(k)), from[k], 0};
      for (size_t i = 0; i < a.output.size(); ++i) {
        if (a.output[i] == order[k]) d.to += strides[i];
      }
      copied.push_back(d);
    }
    if (order.size() != a.output.size()) FERRY_RETURN_IF_ERROR(FillZero(c, out));
    return StridedCopy(c, result, 0, out, 0, copied);
  }

  Equation equation_;
};

absl::Status EinsumShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const std::string text, c->Attr<std::string>("equation"));
  FERRY_ASSIGN_OR_RETURN(const Equation e, Parse(text));
  FERRY_RETURN_IF_ERROR(CheckCount(e, text, c->num_inputs()));
  std::vector<PartialShape> shapes;
  for (int i = 0; i < c->num_inputs(); ++i) {
    if (!c->input(i).known_rank()) {
      if (!Has(e.output, kEllipsis)) {
        c->set_output(0, PartialShape::UnknownOfRank(static_cast<int>(e.output.size())));
      }
      return absl::OkStatus();
    }
    shapes.push_back(c->input(i));
  }
  FERRY_ASSIGN_OR_RETURN(const Applied a, Apply(e, shapes));
  PartialShape out = PartialShape::Scalar();
  for (const Label l : a.output) out.AddDim(a.sizes.at(l));
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// ---- Gradient ----

std::string Text(const Labels& labels) {
  std::string text;
  for (const Label l : labels) {
    absl::StrAppend(&text, l == kEllipsis ? "..." : std::string(1, static_cast<char>(l)));
  }
  return text;
}

// d/dx of an einsum is one of dy and the other input: the output's labels go in and x's come out.
// Those that were summed over in x alone are put in and repeated.
absl::Status EinsumGradient(GradientContext* c) {
  const Scope& s = c->scope();
  FERRY_ASSIGN_OR_RETURN(const std::string text, c->Attr<std::string>("equation"));
  FERRY_ASSIGN_OR_RETURN(const Equation e, Parse(text));
  const size_t n = e.inputs.size();
  std::vector<Labels> all = e.inputs;
  all.push_back(e.output);
  for (const Labels& labels : all) {
    for (size_t k = 0; k < labels.size(); ++k) {
      if (labels[k] == kEllipsis && k > 0) {
        return Unimplemented("the gradient of the einsum equation '", text,
                             "', whose ellipsis isn't in front");
      }
      if (std::count(labels.begin(), labels.end(), labels[k]) > 1) {
        return Unimplemented("the gradient of the einsum equation '", text,
                             "', in which a tensor has a label twice");
      }
    }
  }
  std::vector<Output> grads;
  for (size_t i = 0; i < n; ++i) {
    const Output x = c->input(static_cast<int>(i));
    Labels kept;
    std::vector<int> lost;
    const bool spread = Has(e.output, kEllipsis) && !Has(e.inputs[i], kEllipsis);
    if (spread) kept.push_back(kEllipsis);
    for (size_t k = 0; k < e.inputs[i].size(); ++k) {
      const Label l = e.inputs[i][k];
      if (l == kEllipsis || Has(e.output, l) || (n == 2 && Has(e.inputs[1 - i], l))) {
        kept.push_back(l);
      } else {
        lost.push_back(static_cast<int>(k) - static_cast<int>(e.inputs[i].size()));
      }
    }
    std::vector<Output> in = {c->grad(0)};
    std::string equation = Text(e.output);
    if (n == 2) {
      in.push_back(c->input(static_cast<int>(1 - i)));
      absl::StrAppend(&equation, ",", Text(e.inputs[1 - i]));
    }
    Output g = NodeBuilder(s, "Einsum")
                   .Input(in)
                   .Attr("equation", absl::StrCat(equation, "->", Text(kept)))
                   .BuildOutput();
    // From the end, where each finds its place.
    for (size_t k = 0; k < lost.size(); ++k) {
      g = ops::ExpandDims(s, g, ops::Const<int32_t>(s, lost[lost.size() - 1 - k]));
    }
    if (!lost.empty()) {
      // To the shape of x; in front g may have more, or more than 1, of an ellipsis.
      const Output stretched = NodeBuilder(s, "BroadcastArgs")
                                   .Input(ops::Shape(s, g))
                                   .Input(ops::Shape(s, x))
                                   .BuildOutput();
      g = ops::BroadcastTo(s, g, stretched);
    }
    if (Has(e.output, kEllipsis)) g = UnbroadcastGradients(s, x, g, g, g).first;
    c->set_input_grad(static_cast<int>(i), g);
  }
  return s.status();
}

FERRY_OP("Einsum")
    .Input("inputs: N * T")
    .Output("output: T")
    .Attr("equation: string")
    .Attr("N: int >= 1")
    .Attr("T: type")
    .Shape(EinsumShape)
    .Gradient(EinsumGradient);

const bool registered =
    RegisterCpu<EinsumKernel>(Join<FloatTypes, Types<int32_t, int64_t>>(), "Einsum");

}  // namespace
}  // namespace ferry
