// Updates of single rows of variables: ScatterUpdate, ScatterAdd, -Sub, -Mul, -Div, -Min, -Max, and
// the same on handles, ResourceScatterUpdate and so on.
#include <algorithm>
#include <cstring>
#include <string>
#include <type_traits>

#include "absl/strings/str_cat.h"
#include "kernels/accumulate.h"
#include "kernels/array.h"
#include "kernels/row_ops.h"
#include "kernels/types.h"
#include "runtime/base/mutex.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "runtime/op/variable.h"
#include "runtime/tensor/tensor.h"

namespace ferry {
namespace {

// Whether `updates` has the shape indices.shape + now.shape[1:], or is a scalar.
absl::Status CheckRows(const Tensor& now, const Tensor& indices, const Tensor& updates) {
  if (now.rank() < 1) {
    return InvalidArgument("params must be at least 1-D, got shape ", now.shape().DebugString());
  }
  const bool scalar = updates.rank() == 0;
  bool fits = scalar || updates.rank() == indices.rank() + now.rank() - 1;
  for (int i = 0; fits && !scalar && i < updates.rank(); ++i) {
    fits =
        updates.dim(i) == (i < indices.rank() ? indices.dim(i) : now.dim(i - indices.rank() + 1));
  }
  if (!fits) {
    return InvalidArgument(
        "Must have updates.shape = indices.shape + params.shape[1:] or "
        "updates.shape = [], got updates.shape ",
        updates.shape().DebugString(), ", indices.shape ", indices.shape().DebugString(),
        ", params.shape ", now.shape().DebugString());
  }
  return absl::OkStatus();
}

// Checks shapes and indices; a scalar update goes to every row.
template <typename RowFn>
absl::Status UpdateRows(KernelContext* c, Variable* v, RowFn row) {
  const Tensor& now = v->tensor();
  const Tensor& indices = c->input(1);
  const Tensor& updates = c->input(2);
  FERRY_RETURN_IF_ERROR(CheckRows(now, indices, updates));
  const bool scalar = updates.rank() == 0;
  const int64_t rows = now.dim(0), n = indices.num_elements();
  const bool wide = indices.dtype() == DType::kInt64;
  auto at = [&](int64_t i) -> int64_t {
    return wide ? indices.data<int64_t>()[i] : indices.data<int32_t>()[i];
  };
  for (int64_t i = 0; i < n; ++i) {
    if (at(i) < 0 || at(i) >= rows) {
      return InvalidArgument(ElementName("indices", indices.shape(), i), " = ", at(i),
                             " is not in [0, ", rows, ")");
    }
  }
  if (n > 0 && now.num_elements() > 0) {
    const int64_t size = now.num_elements() / rows;
    Tensor* to = v->MutableTensor();
    for (int64_t i = 0; i < n; ++i) row(to, at(i) * size, updates, scalar ? -1 : i * size, size);
  }
  return absl::OkStatus();
}

// The same; errors name the variable.
template <typename RowFn>
absl::Status ForEachRow(KernelContext* c, Variable* v, RowFn row) {
  return Annotate(UpdateRows(c, v, row), absl::StrCat("variable '", v->name(), "'"));
}

// The same on a GPU, where indices that lie outside are left out.
absl::Status UpdateRowsOnGpu(KernelContext* c, gpu::RowOp op, Variable* v) {
  const Tensor& indices = c->input(1);
  const Tensor& updates = c->input(2);
  FERRY_RETURN_IF_ERROR(Annotate(CheckRows(v->tensor(), indices, updates),
                                 absl::StrCat("variable '", v->name(), "'")));
  const int64_t n = indices.num_elements(), rows = v->tensor().dim(0);
  if (n > 0 && v->tensor().num_elements() > 0) {
    FERRY_RETURN_IF_ERROR(CombineRowsOnGpu(c, op, IndicesOf(indices, n, 1, &rows), updates,
                                           updates.rank() == 0, rows, v->MutableTensor()));
  }
  c->SetOutputVariable(0, v);
  return absl::OkStatus();
}

template <typename T, typename F>
class ScatterAccumulateKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    Variable* v = c->variable(0);
    MutexLock lock(&v->mu());
    if (c->gpu()) return UpdateRowsOnGpu(c, RowOpOf<F>(), v);
    if constexpr (std::is_same_v<F, accumulate::Div> && std::is_integral_v<T>) {
      const auto by = c->input(2).span<T>();
      if (std::find(by.begin(), by.end(), T(0)) != by.end()) {
        return InvalidArgument("Integer division by zero, of variable '", v->name(), "'");
      }
    }
    FERRY_RETURN_IF_ERROR(ForEachRow(
        c, v, [](Tensor* to, int64_t at, const Tensor& updates, int64_t from, int64_t size) {
          T* const out = to->data<T>() + at;
          if (from >= 0) {
            accumulate::Run<F>(out, updates.data<T>() + from, size);
          } else {
            const T by = *updates.data<T>();
            for (int64_t i = 0; i < size; ++i) out[i] = F::template Apply<T>(out[i], by);
          }
        }));
    c->SetOutputVariable(0, v);
    return absl::OkStatus();
  }
};
template <typename F>
struct Scatter {
  template <typename T>
  using Kernel = ScatterAccumulateKernel<T, F>;
};

class ScatterUpdateKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    Variable* v = c->variable(0);
    MutexLock lock(&v->mu());
    if (c->gpu()) return UpdateRowsOnGpu(c, gpu::RowOp::kReplace, v);
    FERRY_RETURN_IF_ERROR(ForEachRow(
        c, v, [](Tensor* to, int64_t at, const Tensor& updates, int64_t from, int64_t size) {
          if (to->dtype() == DType::kString) {
            for (int64_t i = 0; i < size; ++i) {
              to->data<std::string>()[at + i] =
                  updates.data<std::string>()[from < 0 ? 0 : from + i];
            }
            return;
          }
          const size_t width = ElementSize(to->dtype());
          char* out = static_cast<char*>(to->raw()) + static_cast<size_t>(at) * width;
          const char* in = static_cast<const char*>(updates.raw());
          if (from >= 0) {
            std::memcpy(out, in + static_cast<size_t>(from) * width,
                        static_cast<size_t>(size) * width);
          } else {
            for (int64_t i = 0; i < size; ++i) {
              std::memcpy(out + static_cast<size_t>(i) * width, in, width);
            }
          }
        }));
    c->SetOutputVariable(0, v);
    return absl::OkStatus();
  }
};

absl::Status ScatterShape(InferenceContext* c) {
  if (c->num_outputs() == 0) return c->WithRankAtLeast(c->input_handle_shape(0), 1).status();
  FERRY_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(0), 1).status());
  c->set_output(0, c->input(0));
  return absl::OkStatus();
}

// The op on references and on handles; `types`: what attribute T of the former may be.
bool DefineScatter(const std::string& name, const std::string& types) {
  for (const bool resource : {false, true}) {
    const std::string type = resource ? "dtype" : "T";
    const bool is_update = types == "type";
    OpBuilder b(absl::StrCat(resource ? "Resource" : "", name));
    b.Input(resource ? "resource: resource" : "ref: Ref(T)")
        .Input("indices: Tindices")
        .Input(absl::StrCat("updates: ", type));
    if (!resource) b.Output("output_ref: Ref(T)");
    b.Attr(absl::StrCat(type, ": ", resource && !is_update ? "numbertype" : types));
    b.Attr("Tindices: {int32, int64}");
    if (resource) {
      b.Stateful();
    } else {
      b.Attr(absl::StrCat("use_locking: bool = ", is_update ? "true" : "false"));
    }
    b.Shape(ScatterShape).NotDifferentiable();
    const OpBuilder::Registrar registrar(b);
  }
  return true;
}

// The GPU can't tell of a division by zero, which is an error for integers.
template <typename F>
bool RegisterScatter(const std::string& name, const std::string& types = "numbertype") {
  using GpuTypes = std::conditional_t<std::is_same_v<F, accumulate::Div>, FloatTypes, NumberTypes>;
  return DefineScatter(name, types) &&
         RegisterCpu<Scatter<F>::template Kernel>(NumberTypes(), name) &&
         RegisterGpu<Scatter<F>::template Kernel>(GpuTypes(), name) &&
         RegisterCpu<Scatter<F>::template Kernel>(NumberTypes(), "Resource" + name, "dtype") &&
         RegisterGpu<Scatter<F>::template Kernel>(GpuTypes(), "Resource" + name, "dtype");
}

constexpr char kOrdered[] = "{half, bfloat16, float, double, int32, int64}";
[[maybe_unused]] const bool registered =
    DefineScatter("ScatterUpdate", "type") &&
    RegisterArrayKernel<ScatterUpdateKernel>("ScatterUpdate") &&
    RegisterArrayKernel<ScatterUpdateKernel>("ResourceScatterUpdate", {}, "dtype") &&
    RegisterScatter<accumulate::Add>("ScatterAdd") &&
    RegisterScatter<accumulate::Sub>("ScatterSub") &&
    RegisterScatter<accumulate::Mul>("ScatterMul") &&
    RegisterScatter<accumulate::Div>("ScatterDiv") &&
    RegisterScatter<accumulate::Min>("ScatterMin", kOrdered) &&
    RegisterScatter<accumulate::Max>("ScatterMax", kOrdered);

}  // namespace
}  // namespace ferry
