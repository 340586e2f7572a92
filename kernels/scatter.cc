// Updates of single rows of variables: ScatterUpdate, ScatterAdd, ScatterSub, and the same on
// handles, ResourceScatterUpdate and so on. The GPU's kernels are in variable.cu.
#include <cstring>
#include <string>

#include "absl/strings/str_cat.h"
#include "kernels/accumulate.h"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
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
absl::Status ForEachRow(KernelContext* c, Variable* v, RowFn row) {
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
      return InvalidArgument("indices", TensorShape(indices.shape()).rank() == 0 ? "" : "[",
                             indices.rank() == 0 ? "" : absl::StrCat(i, "]"), " = ", at(i),
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

template <typename T, int kSign>
class ScatterAccumulateKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    Variable* v = c->variable(0);
    MutexLock lock(&v->mu());
    FERRY_RETURN_IF_ERROR(ForEachRow(
        c, v, [](Tensor* to, int64_t at, const Tensor& updates, int64_t from, int64_t size) {
          if (from >= 0) {
            Accumulate<T, kSign>(to->data<T>() + at, updates.data<T>() + from, size);
          } else {
            for (int64_t i = 0; i < size; ++i) {
              Accumulate<T, kSign>(to->data<T>() + at + i, updates.data<T>(), 1);
            }
          }
        }));
    c->SetOutputVariable(0, v);
    return absl::OkStatus();
  }
};
template <typename T>
using ScatterAddKernel = ScatterAccumulateKernel<T, 1>;
template <typename T>
using ScatterSubKernel = ScatterAccumulateKernel<T, -1>;

class ScatterUpdateKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    Variable* v = c->variable(0);
    MutexLock lock(&v->mu());
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

// ScatterUpdate, ScatterAdd and ScatterSub on references and on handles.
bool DefineScatter(const std::string& name, bool is_update) {
  for (const bool resource : {false, true}) {
    const std::string type = resource ? "dtype" : "T";
    OpBuilder b(absl::StrCat(resource ? "Resource" : "", name));
    b.Input(resource ? "resource: resource" : "ref: Ref(T)")
        .Input("indices: Tindices")
        .Input(absl::StrCat("updates: ", type));
    if (!resource) b.Output("output_ref: Ref(T)");
    b.Attr(absl::StrCat(type, is_update ? ": type" : ": numbertype"));
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

FERRY_KERNEL("ScatterUpdate").Device(DeviceType::kCpu).Make<ScatterUpdateKernel>();
FERRY_KERNEL("ResourceScatterUpdate").Device(DeviceType::kCpu).Make<ScatterUpdateKernel>();

[[maybe_unused]] const bool registered =
    DefineScatter("ScatterUpdate", true) && DefineScatter("ScatterAdd", false) &&
    DefineScatter("ScatterSub", false) &&
    RegisterCpu<ScatterAddKernel>(NumberTypes(), "ScatterAdd") &&
    RegisterCpu<ScatterSubKernel>(NumberTypes(), "ScatterSub") &&
    RegisterCpu<ScatterAddKernel>(NumberTypes(), "ResourceScatterAdd", "dtype") &&
    RegisterCpu<ScatterSubKernel>(NumberTypes(), "ResourceScatterSub", "dtype");

}  // namespace

// For variable.cu.
bool gpu::CheckScatter(Call* c) {
  const KernelContext* context = HostSide::Context(c);
  return HostSide::Note(c, CheckRows(context->input(0), context->input(1), context->input(2)));
}

}  // namespace ferry
