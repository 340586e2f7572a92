// Ops that look for elements or run along them: Where, Unique, Cumsum.
#include <algorithm>
#include <limits>
#include <optional>
#include <string>
#include <type_traits>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/strings/string_view.h"
#include "kernels/array.h"
#include "kernels/row_ops.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// ---- Where ----

template <typename T>
class WhereKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
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

template <typename T>
class UniqueKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& in = c->input(0);
    if (in.rank() != 1) {
      return InvalidArgument("unique expects a 1D vector, found shape ", in.shape().DebugString());
    }
    const int64_t n = in.num_elements();
    if (c->output_type(1) == DType::kInt32 && n > std::numeric_limits<int32_t>::max()) {
      return InvalidArgument("unique does not support input tensors larger than ",
                             std::numeric_limits<int32_t>::max(), " elements");
    }
    const T* x = in.data<T>();
    FERRY_ASSIGN_OR_RETURN(Tensor * idx, c->AllocateOutput(1, in.shape()));
    absl::flat_hash_map<Key, int64_t> seen;
    std::vector<int64_t> firsts;
    for (int64_t i = 0; i < n; ++i) {
      const Key key = KeyOf(x[i]);
      int64_t at = static_cast<int64_t>(firsts.size());
      // A NaN equals nothing, itself neither, and is no key of a map.
      if (key == key) at = seen.try_emplace(key, at).first->second;
      if (at == static_cast<int64_t>(firsts.size())) firsts.push_back(i);
      if (idx->dtype() == DType::kInt64) {
        idx->data<int64_t>()[i] = at;
      } else {
        idx->data<int32_t>()[i] = static_cast<int32_t>(at);
      }
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, {static_cast<int64_t>(firsts.size())}));
    for (size_t i = 0; i < firsts.size(); ++i) y->data<T>()[i] = x[firsts[i]];
    return absl::OkStatus();
  }
  using Key = std::conditional_t<
      std::is_same_v<T, std::string>, absl::string_view,
      std::conditional_t<std::is_same_v<T, half> || std::is_same_v<T, bfloat16>, float, T>>;
  static Key KeyOf(const T& v) { return static_cast<Key>(v); }
};

FERRY_OP("Unique")
    .Input("x: T")
    .Output("y: T")
    .Output("idx: out_idx")
    .Attr("T: type")
    .Attr("out_idx: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape x, c->WithRank(c->input(0), 1));
      c->set_output(0, {PartialShape::kUnknown});
      c->set_output(1, std::move(x));
      return absl::OkStatus();
    })
    .NotDifferentiable();

// ---- Cumsum ----

template <typename T>
class CumsumKernel : public Kernel {
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
    if (c->gpu()) {
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
        T sum = T(0);
        for (int64_t i = 0; i < n; ++i, at += step) {
          const T next = Add(sum, from[at]);
          to[at] = exclusive_ ? sum : next;
          sum = next;
        }
      }
    });
    return absl::OkStatus();
  }
  static T Add(T a, T b) {
    if constexpr (std::is_integral_v<T>) {
      using U = std::make_unsigned_t<T>;
      return static_cast<T>(static_cast<U>(static_cast<U>(a) + static_cast<U>(b)));
    } else {
      return static_cast<T>(a + b);
    }
  }
  bool exclusive_ = false, reverse_ = false;
};

FERRY_OP("Cumsum")
    .Input("x: T")
    .Input("axis: Tidx")
    .Output("out: T")
    .Attr("exclusive: bool = false")
    .Attr("reverse: bool = false")
    .Attr("T: numbertype")
    .Attr("Tidx: {int32, int64} = DT_INT32")
    .Shape(UnchangedShape)
    .Gradient([](GradientContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const bool exclusive, c->Attr<bool>("exclusive"));
      FERRY_ASSIGN_OR_RETURN(const bool reverse, c->Attr<bool>("reverse"));
      c->set_input_grad(0, NodeBuilder(c->scope(), "Cumsum")
                               .Input(c->grad(0))
                               .Input(c->input(1))
                               .Attr("exclusive", exclusive)
                               .Attr("reverse", !reverse)
                               .BuildOutput());
      return c->scope().status();
    });

[[maybe_unused]] const bool registered =
    RegisterCpu<WhereKernel>(Join<NumberTypes, Types<bool>>(), "Where") &&
    RegisterCpu<UniqueKernel>(Join<NumberTypes, Types<bool, std::string>>(), "Unique") &&
    // On the host all the same: what optimizers make of indices has to be where the variable is.
    RegisterGpu<UniqueKernel>(Types<int32_t, int64_t>(), "Unique", "T", {}, {"x", "y", "idx"},
                              /*replayable=*/false) &&
    RegisterForBoth<CumsumKernel>(NumberTypes(), "Cumsum", "T", {}, {"axis"});

}  // namespace
}  // namespace ferry
