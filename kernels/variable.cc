// Reference variables: the node that holds one, assignment in its forms, and updates of single
// rows. All writes go through the Variable with its mutex held, so that a save that is under way
// hears of them first.
#include "runtime/op/variable.h"

#include <atomic>
#include <cstring>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "runtime/base/mutex.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "runtime/tensor/tensor.h"

namespace ferry {
namespace {

// ---- The variable itself ----

class VariableKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(shape_, c.Attr<PartialShape>("shape"));
    FERRY_ASSIGN_OR_RETURN(dtype_, c.Attr<DType>("dtype"));
    FERRY_ASSIGN_OR_RETURN(name_, StoredName(c.attrs(), c.node_name()));
    // The older op can't tell a scalar's shape from an unknown one.
    if (c.op() == "Variable" && shape_.rank() == 0) shape_ = PartialShape();
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    Variable* v = variable_.load(std::memory_order_acquire);
    if (!v) {
      FERRY_ASSIGN_OR_RETURN(v,
                             c->run()->variables->LookupOrCreate(name_, dtype_, shape_, c->gpu()));
      variable_.store(v, std::memory_order_release);
    }
    c->SetOutputVariable(0, v);
    return absl::OkStatus();
  }
  std::string name_;
  DType dtype_ = DType::kInvalid;
  PartialShape shape_;
  // The session's store and this kernel live equally long.
  mutable std::atomic<Variable*> variable_{nullptr};
};

FERRY_OP("VariableV2")
    .Output("ref: Ref(dtype)")
    .Attr("shape: shape")
    .Attr("dtype: type")
    .Attr("container: string = ''")
    .Attr("shared_name: string = ''")
    .Stateful()
    .Shape(ExplicitShape);
FERRY_OP("Variable")
    .Output("ref: Ref(dtype)")
    .Attr("shape: shape")
    .Attr("dtype: type")
    .Attr("container: string = ''")
    .Attr("shared_name: string = ''")
    .Stateful()
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->Attr<PartialShape>("shape"));
      c->set_output(0, shape.rank() == 0 ? PartialShape() : shape);
      return absl::OkStatus();
    });
FERRY_KERNEL("VariableV2").Device(DeviceType::kCpu).Make<VariableKernel>();
FERRY_KERNEL("Variable").Device(DeviceType::kCpu).Make<VariableKernel>();
FERRY_KERNEL("VariableV2").Device(DeviceType::kGpu).Type("dtype", kGpuTypes).Make<VariableKernel>();
FERRY_KERNEL("Variable").Device(DeviceType::kGpu).Type("dtype", kGpuTypes).Make<VariableKernel>();

class IsVariableInitializedKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape()));
    out->data<bool>()[0] = c->variable(0)->initialized();
    return absl::OkStatus();
  }
};

FERRY_OP("IsVariableInitialized")
    .Input("ref: Ref(dtype)")
    .Output("is_initialized: bool")
    .Attr("dtype: type")
    .AllowsUninitializedInput()
    .Shape(ScalarShape)
    .NotDifferentiable();
FERRY_KERNEL("IsVariableInitialized")
    .Device(DeviceType::kCpu)
    .HostMemory("is_initialized")
    .Make<IsVariableInitializedKernel>();
FERRY_KERNEL("IsVariableInitialized")
    .Device(DeviceType::kGpu)
    .Type("dtype", kGpuTypes)
    .HostMemory("is_initialized")
    .NotReplayable()
    .Make<IsVariableInitializedKernel>();

// ---- Assign ----

class AssignKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(validate_shape_, c.Attr<bool>("validate_shape"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    Variable* v = c->variable(0);
    const Tensor& value = c->input(1);
    MutexLock lock(&v->mu());
    if (validate_shape_) FERRY_RETURN_IF_ERROR(v->CheckAssign(value.shape()));
    FERRY_ASSIGN_OR_RETURN(Tensor * to, v->TensorForOverwrite(value.shape()));
    if (to->raw() != value.raw()) FERRY_RETURN_IF_ERROR(c->Copy(value, to));
    v->Publish();
    c->SetOutputVariable(0, v);
    return absl::OkStatus();
  }
  bool validate_shape_ = true;
};

FERRY_OP("Assign")
    .Input("ref: Ref(T)")
    .Input("value: T")
    .Output("output_ref: Ref(T)")
    .Attr("T: type")
    .Attr("validate_shape: bool = true")
    .Attr("use_locking: bool = true")
    .AllowsUninitializedInput()
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(bool validate, c->Attr<bool>("validate_shape"));
      if (!validate) {
        c->set_output(0, c->input(1));
        return absl::OkStatus();
      }
      FERRY_ASSIGN_OR_RETURN(PartialShape both, PartialShape::Merge(c->input(0), c->input(1)));
      c->set_output(0, std::move(both));
      return absl::OkStatus();
    })
    .NotDifferentiable();
FERRY_KERNEL("Assign").Device(DeviceType::kCpu).Make<AssignKernel>();
// One that initialises its variable, or changes its shape, isn't replayed: plans look at where
// variables lie before they replay.
FERRY_KERNEL("Assign").Device(DeviceType::kGpu).Type("T", kGpuTypes).Make<AssignKernel>();

// ---- AssignAdd, AssignSub ----

// What arithmetic is done in: integers wrap around, so they are added unsigned.
template <typename T, bool = std::is_integral_v<T>>
struct Wrapping {
  using type = T;
};
template <typename T>
struct Wrapping<T, true> {
  using type = std::make_unsigned_t<T>;
};

template <typename T, int kSign>
void Accumulate(T* to, const T* from, int64_t n) {
  using W = typename Wrapping<T>::type;
  for (int64_t i = 0; i < n; ++i) {
    const W a = static_cast<W>(to[i]), b = static_cast<W>(from[i]);
    to[i] = static_cast<T>(kSign > 0 ? static_cast<W>(a + b) : static_cast<W>(a - b));
  }
}

// Of a variable whose mutex is held.
absl::Status CheckUpdate(const Variable& v, const Tensor& by) {
  const Tensor& now = v.tensor();
  if (now.shape() == by.shape()) return absl::OkStatus();
  return InvalidArgument("Parameters and update must be the same size: variable '", v.name(),
                         "' has shape ", now.shape().DebugString(), ", the update ",
                         by.shape().DebugString());
}

template <typename T, int kSign>
class AccumulateKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    Variable* v = c->variable(0);
    const Tensor& by = c->input(1);
    MutexLock lock(&v->mu());
    FERRY_RETURN_IF_ERROR(CheckUpdate(*v, by));
    Tensor* to = v->MutableTensor();
    T* out = to->data<T>();
    const T* in = by.data<T>();
    c->ParallelFor(by.num_elements(), 65536, [&](int64_t begin, int64_t end) {
      Accumulate<T, kSign>(out + begin, in + begin, end - begin);
    });
    c->SetOutputVariable(0, v);
    return absl::OkStatus();
  }
};
template <typename T>
using AssignAddKernel = AccumulateKernel<T, 1>;
template <typename T>
using AssignSubKernel = AccumulateKernel<T, -1>;

FERRY_OP("AssignAdd")
    .Input("ref: Ref(T)")
    .Input("value: T")
    .Output("output_ref: Ref(T)")
    .Attr("T: numbertype")
    .Attr("use_locking: bool = false")
    .Shape(MergedShape)
    .NotDifferentiable();
FERRY_OP("AssignSub")
    .Input("ref: Ref(T)")
    .Input("value: T")
    .Output("output_ref: Ref(T)")
    .Attr("T: numbertype")
    .Attr("use_locking: bool = false")
    .Shape(MergedShape)
    .NotDifferentiable();

// ---- Updates of rows ----

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
  FERRY_RETURN_IF_ERROR(c->WithRankAtLeast(c->input(0), 1).status());
  c->set_output(0, c->input(0));
  return absl::OkStatus();
}

FERRY_OP("ScatterUpdate")
    .Input("ref: Ref(T)")
    .Input("indices: Tindices")
    .Input("updates: T")
    .Output("output_ref: Ref(T)")
    .Attr("T: type")
    .Attr("Tindices: {int32, int64}")
    .Attr("use_locking: bool = true")
    .Shape(ScatterShape)
    .NotDifferentiable();
FERRY_OP("ScatterAdd")
    .Input("ref: Ref(T)")
    .Input("indices: Tindices")
    .Input("updates: T")
    .Output("output_ref: Ref(T)")
    .Attr("T: numbertype")
    .Attr("Tindices: {int32, int64}")
    .Attr("use_locking: bool = false")
    .Shape(ScatterShape)
    .NotDifferentiable();
FERRY_OP("ScatterSub")
    .Input("ref: Ref(T)")
    .Input("indices: Tindices")
    .Input("updates: T")
    .Output("output_ref: Ref(T)")
    .Attr("T: numbertype")
    .Attr("Tindices: {int32, int64}")
    .Attr("use_locking: bool = false")
    .Shape(ScatterShape)
    .NotDifferentiable();

FERRY_KERNEL("ScatterUpdate").Device(DeviceType::kCpu).Make<ScatterUpdateKernel>();

[[maybe_unused]] const bool registered =
    RegisterCpu<AssignAddKernel>(NumberTypes(), "AssignAdd") &&
    RegisterCpu<AssignSubKernel>(NumberTypes(), "AssignSub") &&
    RegisterCpu<ScatterAddKernel>(NumberTypes(), "ScatterAdd") &&
    RegisterCpu<ScatterSubKernel>(NumberTypes(), "ScatterSub");

}  // namespace

// ---- For variable.cu ----

namespace gpu {

bool CheckAccumulate(Call* c) {
  const KernelContext* context = HostSide::Context(c);
  return HostSide::Note(c, CheckUpdate(*context->variable(0), context->input(1)));
}

bool CheckScatter(Call* c) {
  const KernelContext* context = HostSide::Context(c);
  return HostSide::Note(c, CheckRows(context->input(0), context->input(1), context->input(2)));
}

}  // namespace gpu
}  // namespace ferry
