// Ops on strings: StringJoin, by which a sharded Saver's graph names its temporary files.
#include <string>

#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// Element-wise; scalars join each element of the others, which have one shape.
class StringJoinKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(separator_, c.Attr<std::string>("separator"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    TensorShape shape;
    bool found = false;
    for (int i = 0; i < c->num_inputs(); ++i) {
      const TensorShape& s = c->input(i).shape();
      if (s.rank() == 0) continue;
      if (found && s != shape) {
        return InvalidArgument("Input shapes do not match: ", shape.DebugString(), " vs. ",
                               s.DebugString());
      }
      shape = s;
      found = true;
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    std::string* joined = out->data<std::string>();
    for (int64_t k = 0; k < shape.num_elements(); ++k) {
      joined[k].clear();
      for (int i = 0; i < c->num_inputs(); ++i) {
        if (i > 0) joined[k] += separator_;
        const Tensor& in = c->input(i);
        joined[k] += in.data<std::string>()[in.rank() == 0 ? 0 : k];
      }
    }
    return absl::OkStatus();
  }

  std::string separator_;
};

FERRY_OP("StringJoin")
    .Input("inputs: N * string")
    .Output("output: string")
    .Attr("N: int >= 0")
    .Attr("separator: string = ''")
    .NotDifferentiable()
    .Shape([](InferenceContext* c) -> absl::Status {
      PartialShape shape = PartialShape::Scalar();
      bool found = false;
      for (int i = 0; i < c->num_inputs(); ++i) {
        if (!c->input(i).known_rank()) {
          c->set_output(0, PartialShape());
          return absl::OkStatus();
        }
        if (c->input(i).rank() == 0) continue;
        if (!found) {
          shape = c->input(i);
        } else {
          FERRY_ASSIGN_OR_RETURN(shape, PartialShape::Merge(shape, c->input(i)));
        }
        found = true;
      }
      c->set_output(0, shape);
      return absl::OkStatus();
    });
FERRY_KERNEL("StringJoin").Device(DeviceType::kCpu).Make<StringJoinKernel>();

}  // namespace
}  // namespace ferry
