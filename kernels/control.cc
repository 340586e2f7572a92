// Ops that pass values on unchanged or not at all: constants, placeholders, Identity and its kin,
// conditionals (Switch, Merge and their forms on references), loops (Enter, Exit, NextIteration,
// LoopCond).
#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"
#include "runtime/tensor/tensor.h"

namespace ferry {
namespace {

// Registers K on the CPU for all dtypes and on GPUs for what their memory may hold under the type
// attribute `attr` (none: null). `host_memory`: what lies in the host's memory even there.
template <typename K>
bool RegisterPassing(const char* op, const char* attr, const char* host_memory = nullptr) {
  for (const DeviceType device : {DeviceType::kCpu, DeviceType::kGpu}) {
    KernelBuilder b(op);
    b.Device(device);
    if (attr && device == DeviceType::kGpu) {
      std::vector<DType> types = kGpuTypes;
      types.push_back(DType::kResource);  // Handles of the GPU's variables.
      b.Type(attr, std::move(types));
    }
    if (host_memory) b.HostMemory(host_memory);
    b.template Make<K>();
    const KernelBuilder::Registrar registrar(b);
  }
  return true;
}

// Output 0 has the shape of input 0 and, where that is known, its value as a shape.
absl::Status PassedOnShape(InferenceContext* c) {
  c->set_output(0, c->input(0));
  if (c->input(0).rank() == 1) {
    absl::StatusOr<PartialShape> value = c->ValueAsShape(0);
    if (value.ok()) c->set_output_value_as_shape(0, *std::move(value));
  }
  return absl::OkStatus();
}

absl::Status PassedOnGradient(GradientContext* c) {
  for (int i = 0; i < c->node()->num_inputs(); ++i) c->set_input_grad(i, c->grad(i));
  return absl::OkStatus();
}

// ---- Const ----

class ConstKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(value_, c.Attr<Tensor>("value"));
    if (value_.dtype() != c.output_types()[0]) {
      return InvalidArgument("the value of a constant declared as ", DTypeName(c.output_types()[0]),
                             " is ", DTypeName(value_.dtype()));
    }
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    c->SetOutput(0, value_);
    return absl::OkStatus();
  }
  Tensor value_;
};

FERRY_OP("Const")
    .Output("output: dtype")
    .Attr("value: tensor")
    .Attr("dtype: type")
    .Shape([](InferenceContext* c) -> absl::Status {
      auto value = c->attrs().find("value");
      if (value == c->attrs().end()) return absl::OkStatus();
      FERRY_ASSIGN_OR_RETURN(PartialShape shape, FromProto(value->second.tensor().tensor_shape()));
      c->set_output(0, std::move(shape));
      return absl::OkStatus();
    })
    .NotDifferentiable();
[[maybe_unused]] const bool constant = RegisterPassing<ConstKernel>("Const", "dtype", "output");

// ---- Placeholders ----

class PlaceholderKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    const std::string type = DTypeWord(c.output_types()[0]);
    absl::StatusOr<PartialShape> shape = c.Attr<PartialShape>("shape");
    message_ = absl::StrCat("You must feed a value for placeholder tensor '", c.node_name(),
                            "' with dtype ", type);
    if (shape.ok() && shape->known_rank()) {
      absl::StrAppend(&message_, " and shape ", shape->DebugString());
    }
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext*) const override { return InvalidArgument(message_); }
  std::string message_;
};

FERRY_OP("Placeholder")
    .Output("output: dtype")
    .Attr("dtype: type")
    .Attr("shape: shape = { unknown_rank: true }")
    .Shape(ExplicitShape)
    .NotDifferentiable();
FERRY_OP("PlaceholderV2")
    .Output("output: dtype")
    .Attr("dtype: type")
    .Attr("shape: shape")
    .Shape(ExplicitShape)
    .NotDifferentiable();
[[maybe_unused]] const bool placeholders =
    RegisterPassing<PlaceholderKernel>("Placeholder", "dtype", "output") &&
    RegisterPassing<PlaceholderKernel>("PlaceholderV2", "dtype", "output");

// ---- Identity and its kin ----

class IdentityKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    c->ForwardInput(0, 0);
    return absl::OkStatus();
  }
};

// PlaceholderWithDefault.
class DefaultKernel : public IdentityKernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(shape_, c.Attr<PartialShape>("shape"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    if (c->variable(0) == nullptr && !shape_.CompatibleWith(c->input(0).shape())) {
      return InvalidArgument("the default has shape ", c->input(0).shape().DebugString(),
                             ", which doesn't fit the shape ", shape_.DebugString());
    }
    return IdentityKernel::Compute(c);
  }

 private:
  PartialShape shape_;
};

// Its outputs own their memory: only one output of a node may alias an input.
class IdentityNKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    for (int i = 0; i < c->num_inputs(); ++i) {
      const DType type = c->output_type(i);
      if (type == DType::kResource && c->variable(i)) {
        c->SetOutputVariable(i, c->variable(i));
        continue;
      }
      if (type == DType::kResource || type == DType::kVariant) {
        c->SetOutput(i, c->input(i));  // What these hold never changes in place.
        continue;
      }
      FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(i, c->input(i).shape()));
      FERRY_RETURN_IF_ERROR(c->Copy(c->input(i), out));
    }
    return absl::OkStatus();
  }
};

class RefIdentityKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    c->SetOutputVariable(0, c->variable(0));
    return absl::OkStatus();
  }
};

FERRY_OP("Identity")
    .Input("input: T")
    .Output("output: T")
    .Attr("T: type")
    .Shape(PassedOnShape)
    .Gradient(PassedOnGradient)
    .AliasesInput(0);
FERRY_OP("StopGradient")
    .Input("input: T")
    .Output("output: T")
    .Attr("T: type")
    .Shape(PassedOnShape)
    .NotDifferentiable()
    .AliasesInput(0);
FERRY_OP("PreventGradient")
    .Input("input: T")
    .Output("output: T")
    .Attr("T: type")
    .Attr("message: string = ''")
    .Shape(PassedOnShape)
    .Gradient([](GradientContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(std::string why, c->Attr<std::string>("message"));
      return NotFound("Gradient explicitly disabled. Reason: ", why);
    })
    .AliasesInput(0);
FERRY_OP("PlaceholderWithDefault")
    .Input("input: dtype")
    .Output("output: dtype")
    .Attr("dtype: type")
    .Attr("shape: shape")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(PartialShape shape, c->Attr<PartialShape>("shape"));
      // The default must fit; what is fed may be anything that fits the attribute.
      FERRY_RETURN_IF_ERROR(PartialShape::Merge(c->input(0), shape).status());
      c->set_output(0, std::move(shape));
      return absl::OkStatus();
    })
    .Gradient(PassedOnGradient)
    .AliasesInput(0);
FERRY_OP("IdentityN")
    .Input("input: T")
    .Output("output: T")
    .Attr("T: list(type) >= 1")
    .Shape([](InferenceContext* c) -> absl::Status {
      for (int i = 0; i < c->num_inputs(); ++i) c->set_output(i, c->input(i));
      return absl::OkStatus();
    })
    .Gradient(PassedOnGradient);
FERRY_OP("RefIdentity")
    .Input("input: Ref(T)")
    .Output("output: Ref(T)")
    .Attr("T: type")
    .AllowsUninitializedInput()
    .Shape(UnchangedShape)
    .Gradient(PassedOnGradient);

[[maybe_unused]] const bool identities =
    RegisterPassing<IdentityKernel>("Identity", "T") &&
    RegisterPassing<IdentityKernel>("StopGradient", "T") &&
    RegisterPassing<IdentityKernel>("PreventGradient", "T") &&
    RegisterPassing<DefaultKernel>("PlaceholderWithDefault", "dtype") &&
    RegisterPassing<IdentityNKernel>("IdentityN", "T") &&
    RegisterPassing<RefIdentityKernel>("RefIdentity", "T");

// ---- NoOp, ControlTrigger ----

class NoOpKernel : public Kernel {
  absl::Status Compute(KernelContext*) const override { return absl::OkStatus(); }
};

FERRY_OP("NoOp").Shape(NoOutputs);
FERRY_OP("ControlTrigger").Shape(NoOutputs);
[[maybe_unused]] const bool nothing = RegisterPassing<NoOpKernel>("NoOp", nullptr) &&
                                      RegisterPassing<NoOpKernel>("ControlTrigger", nullptr);

// ---- Switch, Merge ----

absl::StatusOr<int> Branch(KernelContext* c) {
  const Tensor& pred = c->input(1);
  if (pred.num_elements() != 1) {
    return InvalidArgument("The second input must be a scalar, but it has shape ",
                           pred.shape().DebugString());
  }
  return pred.scalar<bool>() ? 1 : 0;
}

class SwitchKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const int taken, Branch(c));
    c->ForwardInput(0, taken);
    c->SetOutputAlive(taken);
    c->SetOutputDead(1 - taken);
    return absl::OkStatus();
  }
};

class RefSwitchKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const int taken, Branch(c));
    c->SetOutputVariable(taken, c->variable(0));
    c->SetOutputAlive(taken);
    c->SetOutputDead(1 - taken);
    return absl::OkStatus();
  }
};

template <bool kRef>
class MergeKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    int taken = -1;
    for (int i = 0; i < c->num_inputs() && taken < 0; ++i) {
      if (!c->input_dead(i)) taken = i;
    }
    if (taken < 0) {
      c->SetOutputDead(0);
      c->SetOutputDead(1);
      return absl::OkStatus();
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * index, c->AllocateOutput(1, TensorShape()));
    index->data<int32_t>()[0] = taken;
    if (kRef) {
      c->SetOutputVariable(0, c->variable(taken));
    } else {
      c->ForwardInput(taken, 0);
    }
    c->SetOutputAlive(0);
    c->SetOutputAlive(1);
    return absl::OkStatus();
  }
};

absl::Status SwitchShape(InferenceContext* c) {
  FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 0).status());
  c->set_output(0, c->input(0));
  c->set_output(1, c->input(0));
  return absl::OkStatus();
}

// What all inputs have in common; the index is a scalar.
absl::Status MergeShape(InferenceContext* c) {
  PartialShape common = c->input(0);
  for (int i = 1; i < c->num_inputs(); ++i) {
    const PartialShape& in = c->input(i);
    if (!in.known_rank() || in.rank() != common.rank()) {
      common = PartialShape();
      break;
    }
    for (int d = 0; d < in.rank(); ++d) {
      if (in.dim(d) != common.dim(d)) common.set_dim(d, PartialShape::kUnknown);
    }
  }
  c->set_output(0, std::move(common));
  c->set_output(1, PartialShape::Scalar());
  return absl::OkStatus();
}

// The branch that wasn't taken is dead, and so is its gradient: a Merge passes on the other. Where
// no gradient flows into a branch its share is zeros.
absl::Status SwitchGradient(GradientContext* c) {
  std::vector<Output> grads;
  for (int i = 0; i < 2; ++i) {
    grads.push_back(c->grad(i).node
                        ? c->grad(i)
                        : NodeBuilder(c->scope(), "ZerosLike").Input(c->output(i)).BuildOutput());
  }
  c->set_input_grad(0, NodeBuilder(c->scope(), "Merge").Input(grads).BuildOutput());
  return c->scope().status();
}

// The gradient goes to the input that was taken; those of the others are dead.
absl::Status MergeGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const int n = c->node()->num_inputs();
  for (int i = 0; i < n; ++i) {
    Output index = NodeBuilder(s, "Const")
                       .Attr("value", Tensor::Scalar<int32_t>(i))
                       .Attr("dtype", DType::kInt32)
                       .BuildOutput();
    Output taken = NodeBuilder(s, "Equal").Input(c->output(1)).Input(index).BuildOutput();
    Node* to = NodeBuilder(s, "Switch").Input(c->grad(0)).Input(taken).Build();
    if (!to) return s.status();
    c->set_input_grad(i, Output(to, 1));
    if (n == 2) {
      c->set_input_grad(1, Output(to, 0));
      break;
    }
  }
  return s.status();
}

FERRY_OP("Switch")
    .Input("data: T")
    .Input("pred: bool")
    .Output("output_false: T")
    .Output("output_true: T")
    .Attr("T: type")
    .Shape(SwitchShape)
    .Gradient(SwitchGradient);
FERRY_OP("RefSwitch")
    .Input("data: Ref(T)")
    .Input("pred: bool")
    .Output("output_false: Ref(T)")
    .Output("output_true: Ref(T)")
    .Attr("T: type")
    .AllowsUninitializedInput()
    .Shape(SwitchShape)
    .Gradient(SwitchGradient);
FERRY_OP("Merge")
    .Input("inputs: N * T")
    .Output("output: T")
    .Output("value_index: int32")
    .Attr("T: type")
    .Attr("N: int >= 1")
    .Shape(MergeShape)
    .Gradient(MergeGradient);
FERRY_OP("RefMerge")
    .Input("inputs: Ref(N * T)")
    .Output("output: Ref(T)")
    .Output("value_index: int32")
    .Attr("T: type")
    .Attr("N: int >= 1")
    .Shape(MergeShape)
    .Gradient(MergeGradient);

[[maybe_unused]] const bool branches =
    RegisterPassing<SwitchKernel>("Switch", "T", "pred") &&
    RegisterPassing<RefSwitchKernel>("RefSwitch", "T", "pred") &&
    RegisterPassing<MergeKernel<false>>("Merge", "T", "value_index") &&
    RegisterPassing<MergeKernel<true>>("RefMerge", "T", "value_index");

// ---- Loops ----
// Plans take these apart (runtime/session/frames.h): their kernels serve outside of a loop, where
// only LoopCond has a meaning, and tell where values lie.

// What enters changes from one iteration to the next, unless it is constant.
absl::Status EnterShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const bool constant, c->Attr<bool>("is_constant"));
  c->set_output(0, constant ? c->input(0) : PartialShape());
  return absl::OkStatus();
}

FERRY_OP("Enter")
    .Input("data: T")
    .Output("output: T")
    .Attr("T: type")
    .Attr("frame_name: string")
    .Attr("is_constant: bool = false")
    .Attr("parallel_iterations: int = 10")
    .Shape(EnterShape)
    .AliasesInput(0);
FERRY_OP("RefEnter")
    .Input("data: Ref(T)")
    .Output("output: Ref(T)")
    .Attr("T: type")
    .Attr("frame_name: string")
    .Attr("is_constant: bool = false")
    .Attr("parallel_iterations: int = 10")
    .AllowsUninitializedInput()
    .Shape(UnchangedShape)
    .AliasesInput(0);
FERRY_OP("Exit")
    .Input("data: T")
    .Output("output: T")
    .Attr("T: type")
    .Shape(UnchangedShape)
    .AliasesInput(0);
FERRY_OP("RefExit")
    .Input("data: Ref(T)")
    .Output("output: Ref(T)")
    .Attr("T: type")
    .AllowsUninitializedInput()
    .Shape(UnchangedShape)
    .AliasesInput(0);
FERRY_OP("NextIteration")
    .Input("data: T")
    .Output("output: T")
    .Attr("T: type")
    .Shape(UnchangedShape)
    .AliasesInput(0);
FERRY_OP("RefNextIteration")
    .Input("data: Ref(T)")
    .Output("output: Ref(T)")
    .Attr("T: type")
    .AllowsUninitializedInput()
    .Shape(UnchangedShape)
    .AliasesInput(0);
FERRY_OP("LoopCond")
    .Input("input: bool")
    .Output("output: bool")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(0), 0).status());
      c->set_output(0, PartialShape::Scalar());
      return absl::OkStatus();
    })
    .NotDifferentiable()
    .AliasesInput(0);

FERRY_KERNEL("LoopCond")
    .Device(DeviceType::kCpu)
    .Make<IdentityKernel>();
FERRY_KERNEL("LoopCond")
    .Device(DeviceType::kGpu)
    .HostMemory("input")
    .HostMemory("output")
    .Make<IdentityKernel>();
[[maybe_unused]] const bool loops =
    RegisterPassing<IdentityKernel>("Enter", "T") && RegisterPassing<IdentityKernel>("Exit", "T") &&
    RegisterPassing<IdentityKernel>("NextIteration", "T") &&
    RegisterPassing<RefIdentityKernel>("RefEnter", "T") &&
    RegisterPassing<RefIdentityKernel>("RefExit", "T") &&
    RegisterPassing<RefIdentityKernel>("RefNextIteration", "T");

}  // namespace
}  // namespace ferry
