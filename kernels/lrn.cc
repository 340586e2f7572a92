// LRN and LRNGrad, normalisation by neighbouring channels (the last dimension), after section 3.3
// of "ImageNet Classification with Deep Convolutional Neural Networks" (Krizhevsky et al., 2012).
// With the sum over the channels j at most depth_radius away from k:
//   norm_k = bias + alpha * sum of x_j^2;  y_k = x_k * norm_k^-beta
//   dx_k = dy_k * norm_k^-beta - 2 alpha beta x_k * sum of dy_j y_j / norm_j
// half and bfloat16 are computed as float.
#include <algorithm>
#include <cmath>
#include <limits>

#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

absl::Status CheckArguments(const KernelContext& c, bool gradient) {
  const TensorShape& x = c.input(0).shape();
  if (x.rank() != 4) {
    return InvalidArgument(gradient ? "inputs" : "in", " must be 4-dimensional, got ",
                           x.DebugString());
  }
  if (gradient && (c.input(1).shape() != x || c.input(2).shape() != x)) {
    return InvalidArgument(
        "input_grads, input_image, and out_image should have the same shape: ", x.DebugString(),
        ", ", c.input(1).shape().DebugString(), ", ", c.input(2).shape().DebugString());
  }
  return absl::OkStatus();
}

// Sums of the numbers at most `radius` away from each.
void SumNeighbours(const float* x, int64_t n, int64_t radius, float* sums) {
  for (int64_t k = 0; k < n; ++k) {
    const int64_t begin = k > radius ? k - radius : 0;
    const int64_t end = n - k > radius ? k + radius + 1 : n;
    float sum = 0;
    for (int64_t j = begin; j < end; ++j) sum += x[j];
    sums[k] = sum;
  }
}

template <typename T, bool kGrad>
class LrnKernelOf : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(radius_, c.Attr<int64_t>("depth_radius"));
    FERRY_ASSIGN_OR_RETURN(bias_, c.Attr<float>("bias"));
    FERRY_ASSIGN_OR_RETURN(alpha_, c.Attr<float>("alpha"));
    FERRY_ASSIGN_OR_RETURN(beta_, c.Attr<float>("beta"));
    if (radius_ < 0 || radius_ > std::numeric_limits<int>::max()) {
      return InvalidArgument("depth_radius = ", radius_, " larger than int max");
    }
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    FERRY_RETURN_IF_ERROR(CheckArguments(*c, kGrad));
    const TensorShape& shape = c->input(0).shape();
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    const int64_t depth = shape.dim(3);
    if (shape.num_elements() == 0) return absl::OkStatus();
    const T* const x = c->input(kGrad ? 1 : 0).data<T>();
    const T* const dy = kGrad ? c->input(0).data<T>() : nullptr;
    const T* const y = kGrad ? c->input(2).data<T>() : nullptr;
    T* const to = out->data<T>();
    const int64_t rows = shape.num_elements() / depth;
    const int64_t grain = std::max<int64_t>(1, 4096 / depth);
    // For each block of rows: a row of numbers to sum, and one of sums.
    FERRY_ASSIGN_OR_RETURN(
        void* memory,
        c->Scratch(static_cast<size_t>((rows + grain - 1) / grain * 3 * depth) * sizeof(float)));
    c->ParallelFor(rows, grain, [&](int64_t begin, int64_t end) {
      float* const terms = static_cast<float*>(memory) + begin / grain * 3 * depth;
      float* const norms = terms + depth;
      float* const sums = norms + depth;
      for (int64_t r = begin; r < end; ++r) {
        const T* const in = x + r * depth;
        T* const result = to + r * depth;
        for (int64_t k = 0; k < depth; ++k) {
          const float v = static_cast<float>(in[k]);
          terms[k] = v * v;
        }
        SumNeighbours(terms, depth, radius_, norms);
        for (int64_t k = 0; k < depth; ++k) norms[k] = bias_ + alpha_ * norms[k];
        if constexpr (kGrad) {
          for (int64_t k = 0; k < depth; ++k) {
            terms[k] = static_cast<float>(dy[r * depth + k]) *
                       static_cast<float>(y[r * depth + k]) / norms[k];
          }
          SumNeighbours(terms, depth, radius_, sums);
          for (int64_t k = 0; k < depth; ++k) {
            result[k] =
                static_cast<T>(static_cast<float>(dy[r * depth + k]) * std::pow(norms[k], -beta_) -
                               2 * alpha_ * beta_ * static_cast<float>(in[k]) * sums[k]);
          }
        } else {
          for (int64_t k = 0; k < depth; ++k) {
            result[k] = static_cast<T>(static_cast<float>(in[k]) * std::pow(norms[k], -beta_));
          }
        }
      }
    });
    return absl::OkStatus();
  }

 private:
  int64_t radius_ = 0;
  float bias_ = 0, alpha_ = 0, beta_ = 0;
};
template <typename T>
using LrnKernel = LrnKernelOf<T, false>;
template <typename T>
using LrnGradKernel = LrnKernelOf<T, true>;

absl::Status LrnShape(InferenceContext* c) {
  PartialShape shape;
  for (int i = 0; i < c->num_inputs(); ++i) {
    FERRY_ASSIGN_OR_RETURN(PartialShape in, c->WithRank(c->input(i), 4));
    FERRY_ASSIGN_OR_RETURN(shape, PartialShape::Merge(shape, in));
  }
  c->set_output(0, std::move(shape));
  return absl::OkStatus();
}

#define FERRY_LRN_ATTRS           \
  Attr("depth_radius: int = 5")   \
      .Attr("bias: float = 1.0")  \
      .Attr("alpha: float = 1.0") \
      .Attr("beta: float = 0.5")  \
      .Attr("T: {half, bfloat16, float} = DT_FLOAT")

FERRY_OP("LRN")
    .Input("input: T")
    .Output("output: T")
    .FERRY_LRN_ATTRS.Shape(LrnShape)
    .Gradient([](GradientContext* c) -> absl::Status {
      NodeBuilder b(c->scope(), "LRNGrad");
      b.Input(c->grad(0)).Input(c->input(0)).Input(c->output(0));
      for (const char* name : {"depth_radius", "bias", "alpha", "beta"}) {
        b.AttrValue(name, c->node()->attrs().at(name));
      }
      c->set_input_grad(0, b.BuildOutput());
      return c->scope().status();
    });

FERRY_OP("LRNGrad")
    .Input("input_grads: T")
    .Input("input_image: T")
    .Input("output_image: T")
    .Output("output: T")
    .FERRY_LRN_ATTRS.Shape(LrnShape);

using LrnTypes = Types<half, bfloat16, float>;
const bool registered =
    RegisterCpu<LrnKernel>(LrnTypes(), "LRN") && RegisterCpu<LrnGradKernel>(LrnTypes(), "LRNGrad");

}  // namespace

namespace gpu {

bool CheckLrn(Call* c, bool gradient) {
  return HostSide::Note(c, CheckArguments(*HostSide::Context(c), gradient));
}

}  // namespace gpu
}  // namespace ferry
