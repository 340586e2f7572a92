// InTopK and InTopKV2: whether each row's target is among its k greatest predictions.
#include <cmath>

#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

absl::Status InTopKShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(PartialShape predictions, c->WithRank(c->input(0), 2));
  FERRY_ASSIGN_OR_RETURN(PartialShape targets, c->WithRank(c->input(1), 1));
  FERRY_ASSIGN_OR_RETURN(PartialShape rows,
                         PartialShape::Merge(PartialShape({predictions.dim(0)}), targets));
  c->set_output(0, std::move(rows));
  return absl::OkStatus();
}

absl::Status CheckShapes(const Tensor& predictions, const Tensor& targets) {
  if (predictions.rank() != 2) {
    return InvalidArgument("predictions must be 2-dimensional, found shape ",
                           predictions.shape().DebugString());
  }
  if (targets.rank() != 1) {
    return InvalidArgument("targets must be 1-dimensional, found shape ",
                           targets.shape().DebugString());
  }
  if (predictions.dim(0) != targets.dim(0)) {
    return InvalidArgument("First dimension of predictions ", predictions.dim(0),
                           " must match length of targets ", targets.dim(0));
  }
  return absl::OkStatus();
}

// Ties with the target count as not above it. A prediction that isn't finite makes its row false,
// and so does a target out of range.
class InTopKKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    if (c.op() == "InTopKV2") return absl::OkStatus();
    FERRY_ASSIGN_OR_RETURN(k_, c.Attr<int64_t>("k"));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor &predictions = c->input(0), &targets = c->input(1);
    int64_t k = k_;
    if (c->num_inputs() == 3) {
      FERRY_ASSIGN_OR_RETURN(k, c->InputAsInt(2));
    }
    FERRY_RETURN_IF_ERROR(CheckShapes(predictions, targets));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, targets.shape()));
    const int64_t classes = predictions.dim(1);
    for (int64_t r = 0; r < predictions.dim(0); ++r) {
      const int64_t target = targets.dtype() == DType::kInt32 ? targets.data<int32_t>()[r]
                                                              : targets.data<int64_t>()[r];
      const float* const row = predictions.data<float>() + r * classes;
      bool valid = target >= 0 && target < classes;
      int64_t above = 0;
      for (int64_t j = 0; j < classes && valid; ++j) {
        valid = std::isfinite(row[j]);
        above += row[j] > row[target];
      }
      out->data<bool>()[r] = valid && above < k;
    }
    return absl::OkStatus();
  }

 private:
  int64_t k_ = 0;
};

FERRY_OP("InTopK")
    .Input("predictions: float")
    .Input("targets: T")
    .Output("precision: bool")
    .Attr("k: int")
    .Attr("T: {int32, int64} = DT_INT32")
    .Shape(InTopKShape)
    .NotDifferentiable();

FERRY_OP("InTopKV2")
    .Input("predictions: float")
    .Input("targets: T")
    .Input("k: T")
    .Output("precision: bool")
    .Attr("T: {int32, int64} = DT_INT32")
    .Shape(InTopKShape)
    .NotDifferentiable();

FERRY_KERNEL("InTopK").Make<InTopKKernel>();
FERRY_KERNEL("InTopKV2").HostMemory("k").Make<InTopKKernel>();

}  // namespace

// For in_top_k.cu.
bool gpu::CheckInTopK(Call* c) {
  const KernelContext* context = HostSide::Context(c);
  return HostSide::Note(c, CheckShapes(context->input(0), context->input(1)));
}

}  // namespace ferry
