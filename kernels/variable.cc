// Variables: the nodes that hold one (VariableV2, a reference; VarHandleOp, a handle), reading one,
// and assignment in its forms. All writes go through the Variable with its mutex held, so that a
// save that is under way hears of them first. To a kernel a reference and a handle are the same.
#include "runtime/op/variable.h"

#include <atomic>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

#include "kernels/accumulate.h"
#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "runtime/base/mutex.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
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

FERRY_OP("VarHandleOp")
    .Output("resource: resource")
    .Attr("container: string = ''")
    .Attr("shared_name: string = ''")
    .Attr("debug_name: string = ''")
    .Attr("dtype: type")
    .Attr("shape: shape")
    .Attr("allowed_devices: list(string) = []")
    .Stateful()
    .NotDifferentiable()
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->Attr<PartialShape>("shape"));
      c->set_output_handle_shape(std::move(shape));
      return ScalarShape(c);
    });
FERRY_KERNEL("VarHandleOp").Device(DeviceType::kCpu).Make<VariableKernel>();
FERRY_KERNEL("VarHandleOp")
    .Device(DeviceType::kGpu)
    .Type("dtype", kGpuTypes)
    .Make<VariableKernel>();

// ---- Reading ----

// Where nothing changes the variable while its value is in use, plans don't call this and let the
// value be the variable's memory.
class ReadVariableKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& now = c->input(0);
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, now.shape()));
    return c->Copy(now, out);
  }
};

FERRY_OP("ReadVariableOp")
    .Input("resource: resource")
    .Output("value: dtype")
    .Attr("dtype: type")
    .Stateful()
    .Shape([](InferenceContext* c) -> absl::Status {
      c->set_output(0, c->input_handle_shape(0));
      return absl::OkStatus();
    })
    .Gradient([](GradientContext* c) -> absl::Status {
      // What optimizers ask for: the gradient of the handle is that of the value.
      c->set_input_grad(0, c->grad(0));
      return absl::OkStatus();
    });
FERRY_KERNEL("ReadVariableOp").Device(DeviceType::kCpu).Make<ReadVariableKernel>();
FERRY_KERNEL("ReadVariableOp")
    .Device(DeviceType::kGpu)
    .Type("dtype", kGpuTypes)
    .Make<ReadVariableKernel>();

class VariableShapeKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const TensorShape& shape = c->input(0).shape();
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, {shape.rank()}));
    for (int i = 0; i < shape.rank(); ++i) {
      const int64_t d = shape.dim(i);
      if (out->dtype() == DType::kInt64) {
        out->data<int64_t>()[i] = d;
      } else if (d <= std::numeric_limits<int32_t>::max()) {
        out->data<int32_t>()[i] = static_cast<int32_t>(d);
      } else {
        return InvalidArgument("out_type = int32 cannot hold dimension ", i, ", ", d);
      }
    }
    return absl::OkStatus();
  }
};

FERRY_OP("VariableShape")
    .Input("input: resource")
    .Output("output: out_type")
    .Attr("out_type: {int32, int64} = int32")
    .Stateful()
    .NotDifferentiable()
    .Shape([](InferenceContext* c) -> absl::Status {
      const PartialShape& shape = c->input_handle_shape(0);
      c->set_output(0, {shape.known_rank() ? shape.rank() : PartialShape::kUnknown});
      c->set_output_value_as_shape(0, shape);
      return absl::OkStatus();
    });
FERRY_KERNEL("VariableShape").Device(DeviceType::kCpu).Make<VariableShapeKernel>();
FERRY_KERNEL("VariableShape")
    .Device(DeviceType::kGpu)
    .HostMemory("output")
    .NotReplayable()
    .Make<VariableShapeKernel>();

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

FERRY_OP("VarIsInitializedOp")
    .Input("resource: resource")
    .Output("is_initialized: bool")
    .Stateful()
    .AllowsUninitializedInput()
    .Shape(ScalarShape)
    .NotDifferentiable();
FERRY_KERNEL("VarIsInitializedOp")
    .Device(DeviceType::kCpu)
    .Make<IsVariableInitializedKernel>();
FERRY_KERNEL("VarIsInitializedOp")
    .Device(DeviceType::kGpu)
    .HostMemory("is_initialized")
    .NotReplayable()
    .Make<IsVariableInitializedKernel>();

// Gives the variable's memory back: it is uninitialised then, as one that was never assigned.
class DestroyResourceKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(ignore_lookup_error_, c.Attr<bool>("ignore_lookup_error"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    Variable* const v = c->variable(0);
    MutexLock lock(&v->mu());
    if (v->initialized()) {
      v->Adopt(Tensor());
    } else if (!ignore_lookup_error_) {
      return NotFound("Resource ", v->name(), " does not exist.");
    }
    return absl::OkStatus();
  }
  bool ignore_lookup_error_ = true;
};

FERRY_OP("DestroyResourceOp")
    .Input("resource: resource")
    .Attr("ignore_lookup_error: bool = true")
    .Stateful()
    .AllowsUninitializedInput()
    .Shape(NoOutputs)
    .NotDifferentiable();
FERRY_KERNEL("DestroyResourceOp").Device(DeviceType::kCpu).Make<DestroyResourceKernel>();
FERRY_KERNEL("DestroyResourceOp")
    .Device(DeviceType::kGpu)
    .NotReplayable()
    .Make<DestroyResourceKernel>();

// ---- Assign ----

class AssignKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(validate_shape_, c.Attr<bool>("validate_shape"));
    resource_ = c.op() == "AssignVariableOp";
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    Variable* v = c->variable(0);
    const Tensor& value = c->input(1);
    MutexLock lock(&v->mu());
    if (value.dtype() != v->dtype()) {
      return InvalidArgument("Trying to assign variable with wrong dtype. Expected ",
                             DTypeWord(v->dtype()), " got ", DTypeWord(value.dtype()),
                             " (variable '", v->name(), "')");
    }
    if (validate_shape_) {
      FERRY_RETURN_IF_ERROR(v->CheckAssign(value.shape()));
    } else if (resource_) {
      FERRY_RETURN_IF_ERROR(v->CheckDeclared(value.shape()));
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * to, v->TensorForOverwrite(value.shape()));
    if (to->raw() != value.raw()) FERRY_RETURN_IF_ERROR(c->Copy(value, to));
    v->Publish();
    c->SetOutputVariable(0, v);
    return absl::OkStatus();
  }
  bool validate_shape_ = true, resource_ = false;
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

// The shape that was declared is merged with the value's, so that what can't fit is told early.
absl::Status ValueFitsHandle(InferenceContext* c) {
  return PartialShape::Merge(c->input_handle_shape(0), c->input(1)).status();
}

FERRY_OP("AssignVariableOp")
    .Input("resource: resource")
    .Input("value: dtype")
    .Attr("dtype: type")
    .Attr("validate_shape: bool = false")
    .Stateful()
    .AllowsUninitializedInput()
    .Shape(ValueFitsHandle)
    .NotDifferentiable();
FERRY_KERNEL("AssignVariableOp").Device(DeviceType::kCpu).Make<AssignKernel>();
FERRY_KERNEL("AssignVariableOp")
    .Device(DeviceType::kGpu)
    .Type("dtype", kGpuTypes)
    .Make<AssignKernel>();

// ---- AssignAdd, AssignSub ----

// Of a variable whose mutex is held.
absl::Status CheckUpdate(const Variable& v, const Tensor& by) {
  const Tensor& now = v.tensor();
  if (now.shape() == by.shape()) return absl::OkStatus();
  return InvalidArgument("Parameters and update must be the same size: variable '", v.name(),
                         "' has shape ", now.shape().DebugString(), ", the update ",
                         by.shape().DebugString());
}

template <typename T, typename F>
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
      accumulate::Run<F>(out + begin, in + begin, end - begin);
    });
    c->SetOutputVariable(0, v);
    return absl::OkStatus();
  }
};
template <typename T>
using AssignAddKernel = AccumulateKernel<T, accumulate::Add>;
template <typename T>
using AssignSubKernel = AccumulateKernel<T, accumulate::Sub>;

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
FERRY_OP("AssignAddVariableOp")
    .Input("resource: resource")
    .Input("value: dtype")
    .Attr("dtype: type")
    .Stateful()
    .Shape(ValueFitsHandle)
    .NotDifferentiable();
FERRY_OP("AssignSubVariableOp")
    .Input("resource: resource")
    .Input("value: dtype")
    .Attr("dtype: type")
    .Stateful()
    .Shape(ValueFitsHandle)
    .NotDifferentiable();

[[maybe_unused]] const bool registered =
    RegisterCpu<AssignAddKernel>(NumberTypes(), "AssignAdd") &&
    RegisterCpu<AssignSubKernel>(NumberTypes(), "AssignSub") &&
    RegisterCpu<AssignAddKernel>(NumberTypes(), "AssignAddVariableOp", "dtype") &&
    RegisterCpu<AssignSubKernel>(NumberTypes(), "AssignSubVariableOp", "dtype");

}  // namespace

// For variable.cu.
bool gpu::CheckAccumulate(Call* c) {
  const KernelContext* context = HostSide::Context(c);
  return HostSide::Note(c, CheckUpdate(*context->variable(0), context->input(1)));
}

}  // namespace ferry
