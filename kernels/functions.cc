// The ops that call functions of the graph's library. They have no kernels: a session puts the
// functions' nodes in their place (runtime/session/functions.h). ToBool, which serves conditions
// that aren't bools, has one.
#include <vector>

#include "kernels/types.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// As the attribute says, if it says anything.
absl::Status DeclaredShapes(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const auto shapes, c->Attr<std::vector<PartialShape>>("output_shapes"));
  if (static_cast<int>(shapes.size()) != c->num_outputs()) return absl::OkStatus();
  for (int i = 0; i < c->num_outputs(); ++i) c->set_output(i, shapes[static_cast<size_t>(i)]);
  return absl::OkStatus();
}

FERRY_OP("PartitionedCall")
    .Input("args: Tin")
    .Output("output: Tout")
    .Attr("Tin: list(type) >= 0")
    .Attr("Tout: list(type) >= 0")
    .Attr("f: func")
    .Attr("config: string = ''")
    .Attr("config_proto: string = ''")
    .Attr("executor_type: string = ''")
    .Shape(UnknownShape);
FERRY_OP("StatefulPartitionedCall")
    .Input("args: Tin")
    .Output("output: Tout")
    .Attr("Tin: list(type) >= 0")
    .Attr("Tout: list(type) >= 0")
    .Attr("f: func")
    .Attr("config: string = ''")
    .Attr("config_proto: string = ''")
    .Attr("executor_type: string = ''")
    .Stateful()
    .Shape(UnknownShape);
FERRY_OP("StatelessIf")
    .Input("cond: Tcond")
    .Input("input: Tin")
    .Output("output: Tout")
    .Attr("Tcond: type")
    .Attr("Tin: list(type) >= 0")
    .Attr("Tout: list(type) >= 0")
    .Attr("then_branch: func")
    .Attr("else_branch: func")
    .Attr("output_shapes: list(shape) = []")
    .Shape(DeclaredShapes);
FERRY_OP("If")
    .Input("cond: Tcond")
    .Input("input: Tin")
    .Output("output: Tout")
    .Attr("Tcond: type")
    .Attr("Tin: list(type) >= 0")
    .Attr("Tout: list(type) >= 0")
    .Attr("then_branch: func")
    .Attr("else_branch: func")
    .Attr("output_shapes: list(shape) = []")
    .Stateful()
    .Shape(DeclaredShapes);
FERRY_OP("StatelessCase")
    .Input("branch_index: int32")
    .Input("input: Tin")
    .Output("output: Tout")
    .Attr("Tin: list(type) >= 0")
    .Attr("Tout: list(type) >= 0")
    .Attr("branches: list(func) >= 1")
    .Attr("output_shapes: list(shape) = []")
    .Shape(DeclaredShapes);
FERRY_OP("Case")
    .Input("branch_index: int32")
    .Input("input: Tin")
    .Output("output: Tout")
    .Attr("Tin: list(type) >= 0")
    .Attr("Tout: list(type) >= 0")
    .Attr("branches: list(func) >= 1")
    .Attr("output_shapes: list(shape) = []")
    .Stateful()
    .Shape(DeclaredShapes);
FERRY_OP("StatelessWhile")
    .Input("input: T")
    .Output("output: T")
    .Attr("T: list(type) >= 0")
    .Attr("cond: func")
    .Attr("body: func")
    .Attr("output_shapes: list(shape) = []")
    .Attr("parallel_iterations: int = 10")
    .Shape(DeclaredShapes);
FERRY_OP("While")
    .Input("input: T")
    .Output("output: T")
    .Attr("T: list(type) >= 0")
    .Attr("cond: func")
    .Attr("body: func")
    .Attr("output_shapes: list(shape) = []")
    .Attr("parallel_iterations: int = 10")
    .Stateful()
    .Shape(DeclaredShapes);

// Tells a variable that its readers share its memory, which is so here as long as nobody writes it.
FERRY_OP("DisableCopyOnRead")
    .Input("resource: resource")
    .AllowsUninitializedInput()
    .Stateful()
    .Shape(NoOutputs);

class DisableCopyOnReadKernel : public Kernel {
  absl::Status Compute(KernelContext*) const override { return absl::OkStatus(); }
};
[[maybe_unused]] const bool disable =
    [] {
      for (const DeviceType device : {DeviceType::kCpu, DeviceType::kGpu}) {
        KernelBuilder b("DisableCopyOnRead");
        b.Device(device).Make<DisableCopyOnReadKernel>();
        const KernelBuilder::Registrar registrar(b);
      }
      return true;
    }();

// A scalar is true if it isn't 0, or the empty string; other tensors if they have elements.
FERRY_OP("ToBool")
    .Input("input: T")
    .Output("output: bool")
    .Attr("T: type")
    .Shape(ScalarShape)
    .NotDifferentiable();

template <typename T>
class ToBoolKernel : public Kernel {
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    bool value = x.num_elements() > 0;
    if (x.rank() == 0) {
      if constexpr (std::is_same_v<T, std::string>) {
        value = !x.scalar<T>().empty();
      } else {
        value = x.scalar<T>() != static_cast<T>(0);
      }
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, TensorShape()));
    y->data<bool>()[0] = value;
    return absl::OkStatus();
  }
};
[[maybe_unused]] const bool registered =
    RegisterCpu<ToBoolKernel>(Join<NumberTypes, Types<bool, std::string>>(), "ToBool");

}  // namespace
}  // namespace ferry
