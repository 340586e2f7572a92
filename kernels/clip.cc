// ClipByValue.
#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

FERRY_OP("ClipByValue")
    .Input("t: T")
    .Input("clip_value_min: T")
    .Input("clip_value_max: T")
    .Output("output: T")
    .Attr(
        "T: {float, double, int32, uint8, int16, int8, complex64, int64, qint8, quint8, qint32, "
        "bfloat16, qint16, quint16, uint16, complex128, half, uint32, uint64}")
    .Shape(UnchangedShape)
    // y = min(max(t, low), high):  where t < low, dlow = dy; where t > high, dhigh = dy; elsewhere
    // dt = dy
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output t = c->input(0), low = c->input(1), high = c->input(2), dy = c->grad(0);
      const Output zeros = ops::ZerosLike(s, dy);
      const Output below = ops::Less(s, t, low), above = ops::Greater(s, t, high);
      c->set_input_grad(0, ops::Select(s, ops::LogicalOr(s, below, above), zeros, dy));
      c->set_input_grad(
          1, UnbroadcastGradients(s, low, t, ops::Select(s, below, dy, zeros), Output()).first);
      c->set_input_grad(
          2, UnbroadcastGradients(s, high, t, ops::Select(s, above, dy, zeros), Output()).first);
      return s.status();
    });

template <typename T>
class ClipKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    const TensorShape& shape = c->input(0).shape();
    int64_t step[3] = {1, 0, 0};
    for (int k = 1; k < 3; ++k) {
      const TensorShape& limit = c->input(k).shape();
      if (limit == shape) {
        step[k] = 1;
      } else if (limit.num_elements() != 1) {
        return InvalidArgument(
            "clip_value_min and clip_value_max must be either of the same shape as input, or a "
            "scalar. input shape: ",
            shape.DebugString(), ", ", k == 1 ? "clip_value_min" : "clip_value_max",
            " shape: ", limit.DebugString());
      }
    }
    const T* low = c->input(1).data<T>();
    const T* high = c->input(2).data<T>();
    const T* t = c->input(0).data<T>();
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    T* z = out->data<T>();
    c->ParallelFor(shape.num_elements(), kCheapGrain, [&](int64_t begin, int64_t end) {
      if (step[1] == 0 && step[2] == 0) {
        const T least = *low, most = *high;
        FERRY_INDEPENDENT
        for (int64_t i = begin; i < end; ++i) z[i] = Clip(t[i], least, most);
      } else {
        for (int64_t i = begin; i < end; ++i) {
          z[i] = Clip(t[i], low[i * step[1]], high[i * step[2]]);
        }
      }
    });
    return absl::OkStatus();
  }

 private:
  // NaN stays NaN.
  static T Clip(T x, T least, T most) {
    const T y = x < least ? least : x;
    return most < y ? most : y;
  }
};

const bool registered = RegisterCpu<ClipKernel>(NumberTypes(), "ClipByValue", "T", {0});

}  // namespace
}  // namespace ferry
