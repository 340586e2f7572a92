// Optionals: values that may be missing. The gradients of conditionals within functional loops
// carry what only one branch computes in such.
#include <memory>
#include <utility>
#include <vector>

#include "kernels/held_values.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

struct Optional : Object {
  ~Optional() override { Release(std::move(components)); }

  bool has_value = false;
  std::vector<HeldValue> components;
};

class OptionalFromValueKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    types_ = c.input_types();
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    auto optional = std::make_shared<Optional>();
    optional->has_value = true;
    for (int i = 0; i < c->num_inputs(); ++i) {
      FERRY_ASSIGN_OR_RETURN(HeldValue value, HoldInput(c, i, types_[static_cast<size_t>(i)]));
      optional->components.push_back(std::move(value));
    }
    FERRY_ASSIGN_OR_RETURN(Tensor t, MakeObjectTensor(DType::kVariant, std::move(optional)));
    c->SetOutput(0, t);
    return absl::OkStatus();
  }
  std::vector<DType> types_;
};

class OptionalNoneKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(Tensor t,
                           MakeObjectTensor(DType::kVariant, std::make_shared<Optional>()));
    c->SetOutput(0, t);
    return absl::OkStatus();
  }
};

class OptionalHasValueKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto optional, ObjectInput<Optional>(c, 0, "optional"));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, TensorShape()));
    out->data<bool>()[0] = optional->has_value;
    return absl::OkStatus();
  }
};

class OptionalGetValueKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    types_ = c.output_types();
    FERRY_ASSIGN_OR_RETURN(shapes_, c.Attr<std::vector<PartialShape>>("output_shapes"));
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(const auto optional, ObjectInput<Optional>(c, 0, "optional"));
    if (!optional->has_value) return InvalidArgument("The given optional does not have a value.");
    if (optional->components.size() != types_.size()) {
      return InvalidArgument("The given optional has ", optional->components.size(),
                             " components, expected ", types_.size());
    }
    for (size_t i = 0; i < types_.size(); ++i) {
      const HeldValue& value = optional->components[i];
      const DType type = value.variable ? DType::kResource : value.tensor.dtype();
      if (type != types_[i]) {
        return InvalidArgument("The given optional does not match the expected type for component ",
                               i, ". Expected: ", DTypeWord(types_[i]),
                               ", actual: ", DTypeWord(type), ".");
      }
      if (!value.variable && i < shapes_.size() &&
          !shapes_[i].CompatibleWith(value.tensor.shape())) {
        return InvalidArgument(
            "The given optional does not match the expected shape for component ", i,
            ". Expected: ", shapes_[i].DebugString(),
            ", actual: ", value.tensor.shape().DebugString(), ".");
      }
      GiveOutput(c, static_cast<int>(i), value);
    }
    return absl::OkStatus();
  }
  std::vector<DType> types_;
  std::vector<PartialShape> shapes_;
};

FERRY_OP("OptionalFromValue")
    .Input("components: Toutput_types")
    .Output("optional: variant")
    .Attr("Toutput_types: list(type) >= 1")
    .Shape(ScalarShape)
    .NotDifferentiable();
FERRY_OP("OptionalNone").Output("optional: variant").Shape(ScalarShape).NotDifferentiable();
FERRY_OP("OptionalHasValue")
    .Input("optional: variant")
    .Output("has_value: bool")
    .Shape(ScalarShape)
    .NotDifferentiable();
FERRY_OP("OptionalGetValue")
    .Input("optional: variant")
    .Output("components: output_types")
    .Attr("output_types: list(type) >= 1")
    .Attr("output_shapes: list(shape) >= 1")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_ASSIGN_OR_RETURN(const auto shapes,
                             c->Attr<std::vector<PartialShape>>("output_shapes"));
      if (static_cast<int>(shapes.size()) != c->num_outputs()) {
        return InvalidArgument(
            "`output_types` and `output_shapes` must be the same length, but are ",
            c->num_outputs(), " and ", shapes.size());
      }
      for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, shapes[static_cast<size_t>(i)]);
      return absl::OkStatus();
    })
    .NotDifferentiable();

FERRY_KERNEL("OptionalFromValue").Device(DeviceType::kCpu).Make<OptionalFromValueKernel>();
FERRY_KERNEL("OptionalNone").Device(DeviceType::kCpu).Make<OptionalNoneKernel>();
FERRY_KERNEL("OptionalHasValue").Device(DeviceType::kCpu).Make<OptionalHasValueKernel>();
FERRY_KERNEL("OptionalGetValue").Device(DeviceType::kCpu).Make<OptionalGetValueKernel>();

}  // namespace
}  // namespace ferry
