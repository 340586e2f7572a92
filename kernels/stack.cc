// Stacks: where a loop leaves values for the loop of its gradient, which takes them in reverse. A
// stack lives in one Run.
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "kernels/held_values.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// Used by one thread at a time: the steps of one Run.
struct Stack : Object {
  ~Stack() override { Release(std::move(values)); }

  std::string name;
  DType dtype = DType::kInvalid;
  int64_t max_size = -1;  // Negative: none.
  bool closed = false;
  std::vector<HeldValue> values;
};

absl::Status CheckOpen(const Stack& s) {
  return s.closed ? InvalidArgument("Stack[", s.name, "] has already been closed.")
                  : absl::OkStatus();
}

class StackKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(dtype_, c.Attr<DType>("elem_type"));
    FERRY_ASSIGN_OR_RETURN(name_, c.Attr<std::string>("stack_name"));
    if (name_.empty()) name_ = c.node_name();
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    if (c->input(0).rank() != 0) {
      return InvalidArgument("Stack size must be a scalar, but had shape: ",
                             c->input(0).shape().DebugString());
    }
    auto stack = std::make_shared<Stack>();
    stack->name = name_;
    stack->dtype = dtype_;
    FERRY_ASSIGN_OR_RETURN(stack->max_size, c->InputAsInt(0));
    FERRY_ASSIGN_OR_RETURN(Tensor handle, MakeHandle(std::move(stack)));
    c->SetOutput(0, handle);
    return absl::OkStatus();
  }
  DType dtype_ = DType::kInvalid;
  std::string name_;
};

class StackPushKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    dtype_ = c.input_types()[1];
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto stack, ObjectInput<Stack>(c, 0, "stack"));
    FERRY_RETURN_IF_ERROR(CheckOpen(*stack));
    if (dtype_ != stack->dtype) {
      return InvalidArgument("Must have type ", DTypeWord(stack->dtype), " but got ",
                             DTypeWord(dtype_));
    }
    const int64_t size = static_cast<int64_t>(stack->values.size());
    if (stack->max_size >= 0 && size >= stack->max_size) {
      return InvalidArgument("Stack[", stack->name, "] overflowed its max_size (", stack->max_size,
                             ")");
    }
    FERRY_ASSIGN_OR_RETURN(HeldValue value, HoldInput(c, 1, dtype_));
    stack->values.push_back(std::move(value));
    if (dtype_ == DType::kResource && c->variable(1)) {
      c->SetOutputVariable(0, c->variable(1));
    } else {
      c->ForwardInput(1, 0);
    }
    return absl::OkStatus();
  }
  DType dtype_ = DType::kInvalid;
};

class StackPopKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    dtype_ = c.output_types()[0];
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto stack, ObjectInput<Stack>(c, 0, "stack"));
    FERRY_RETURN_IF_ERROR(CheckOpen(*stack));
    if (dtype_ != stack->dtype) {
      return InvalidArgument("Must have type ", DTypeWord(stack->dtype), " but got ",
                             DTypeWord(dtype_));
    }
    if (stack->values.empty()) {
      return InvalidArgument("Stack[", stack->name, "] is empty when calling Pop().");
    }
    GiveOutput(c, 0, stack->values.back());
    stack->values.pop_back();
    return absl::OkStatus();
  }
  DType dtype_ = DType::kInvalid;
};

class StackCloseKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto stack, ObjectInput<Stack>(c, 0, "stack"));
    stack->closed = true;
    stack->values.clear();
    return absl::OkStatus();
  }
};

FERRY_OP("StackV2")
    .Input("max_size: int32")
    .Output("handle: resource")
    .Attr("elem_type: type")
    .Attr("stack_name: string = ''")
    .Stateful()
    // As TensorFlow says, whose handles of stacks once were two strings.
    .Shape([](InferenceContext* c) -> absl::Status {
      c->set_output(0, {2});
      return absl::OkStatus();
    })
    .NotDifferentiable();
FERRY_OP("StackPushV2")
    .Input("handle: resource")
    .Input("elem: T")
    .Output("output: T")
    .Attr("T: type")
    .Attr("swap_memory: bool = false")
    .Stateful()
    .Shape([](InferenceContext* c) -> absl::Status {
      c->set_output(0, c->input(1));
      return absl::OkStatus();
    })
    .AliasesInput(1);
FERRY_OP("StackPopV2")
    .Input("handle: resource")
    .Output("elem: elem_type")
    .Attr("elem_type: type")
    .Stateful()
    .Shape(UnknownShape);
FERRY_OP("StackCloseV2").Input("handle: resource").Stateful().Shape(NoOutputs);

FERRY_KERNEL("StackV2").Device(DeviceType::kCpu).Make<StackKernel>();
FERRY_KERNEL("StackPushV2").Device(DeviceType::kCpu).Make<StackPushKernel>();
FERRY_KERNEL("StackPopV2").Device(DeviceType::kCpu).Make<StackPopKernel>();
FERRY_KERNEL("StackCloseV2").Device(DeviceType::kCpu).Make<StackCloseKernel>();

}  // namespace
}  // namespace ferry
