// FusedBatchNorm, V2 and V3, and their gradients. With n elements a channel:
//   y = (x - mean) / sqrt(variance + epsilon) * scale + offset
// In training, mean and variance are the batch's. batch_mean and batch_variance go to the moving
// averages: (1 - f) * old + f * new, with the factor f (where it is 1 nothing is needed of the old
// ones), the mean and the variance times n / (n - 1). The first two reserve spaces hold the mean
// and the variance for the gradient. In inference, mean and variance are given, and passed on.
#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <type_traits>

#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

using gpu::NormSizes;

// ---- Arguments ----

bool ChannelsFirst(const std::string& format) { return format == "NCHW" || format == "NCDHW"; }

absl::Status CheckRank(const std::string& format, int rank, const std::string& shape) {
  const bool five = format.size() == 5;
  if (rank == static_cast<int>(format.size())) return absl::OkStatus();
  if (rank == 4 || rank == 5) {
    return InvalidArgument("input must be ", five ? 5 : 4, "-dimensional for data format ", format,
                           ": ", shape);
  }
  return InvalidArgument("input must be 4 or 5-dimensional", shape);
}

// Of the forward op: x, scale, offset, mean, variance. Of the gradient: y_backprop, x, scale, and
// the first two reserve spaces. `averages`: whether mean and variance are needed.
absl::Status SizesOf(const KernelContext& c, bool gradient, const std::string& format,
                     bool is_training, bool averages, NormSizes* s) {
  const TensorShape& x = c.input(gradient ? 1 : 0).shape();
  FERRY_RETURN_IF_ERROR(CheckRank(format, x.rank(), x.DebugString()));
  const int channel = ChannelsFirst(format) ? 1 : x.rank() - 1;
  *s = NormSizes();
  s->channels = x.dim(channel);
  for (int i = 0; i < x.rank(); ++i) {
    if (i != channel) (i < channel ? s->outer : s->inner) *= x.dim(i);
  }
  if (gradient && c.input(0).shape() != x) {
    return InvalidArgument("x and y_backprop must have same shape, but x has shape ",
                           x.DebugString(), " and y_backprop has shape ",
                           c.input(0).shape().DebugString());
  }
  static constexpr const char* kNames[] = {"scale", "offset", "mean", "variance"};
  static constexpr const char* kGradNames[] = {"scale", "reserve_space_1", "reserve_space_2"};
  const int first = gradient ? 2 : 1;
  for (int i = first; i < 5; ++i) {
    const TensorShape& shape = c.input(i).shape();
    const char* const name = (gradient ? kGradNames : kNames)[i - first];
    const bool average = !gradient && i >= 3;
    if (shape.rank() != 1)
      return InvalidArgument(name, " must be 1-dimensional", shape.DebugString());
    if (shape.dim(0) == s->channels || (average && !averages)) continue;
    const char* const when = !average      ? ""
                             : is_training ? "When exponential_avg_factor != 1, "
                                           : "When is_training=false, ";
    return InvalidArgument(when, name,
                           " must have the same number of elements as the channels of x, got ",
                           shape.dim(0), " and ", s->channels);
  }
  return absl::OkStatus();
}

struct NormAttrs {
  std::string format;
  bool is_training = true;
  float epsilon = 0, factor = 1;
  bool averages() const { return !is_training || factor != 1; }
};
template <typename Context>
absl::StatusOr<NormAttrs> AttrsOf(const Context& c, bool gradient) {
  NormAttrs a;
  FERRY_ASSIGN_OR_RETURN(a.format, c.template Attr<std::string>("data_format"));
  FERRY_ASSIGN_OR_RETURN(a.is_training, c.template Attr<bool>("is_training"));
  FERRY_ASSIGN_OR_RETURN(a.epsilon, c.template Attr<float>("epsilon"));
  if (!gradient) {
    FERRY_ASSIGN_OR_RETURN(a.factor, c.template Attr<float>("exponential_avg_factor"));
  }
  return a;
}

// ---- Loops ----

constexpr int64_t kGrain = 1 << 14;  // Elements.
constexpr int64_t kBlock = 256;      // Elements of a channel that are summed in float.

// For each channel two sums over its elements, in `sums` and `others`: of what fn(element, channel)
// gives, a pair of floats. Sums of kBlock elements are float, the sums of those double, in an order
// that sizes alone decide.
template <typename Fn>
absl::Status SumChannels(KernelContext* c, const NormSizes& s, double* sums, double* others,
                         double* space, const Fn& fn) {
  std::fill_n(sums, s.channels, 0.0);
  std::fill_n(others, s.channels, 0.0);
  if (s.inner > 1) {
    const int64_t n = s.outer * s.inner;
    c->ParallelFor(s.channels, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, n)),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t k = begin; k < end; ++k) {
                       for (int64_t o = 0; o < s.outer; ++o) {
                         const int64_t at = (o * s.channels + k) * s.inner;
                         for (int64_t i = 0; i < s.inner; i += kBlock) {
                           float a = 0, b = 0;
                           for (int64_t j = i; j < std::min(s.inner, i + kBlock); ++j) {
                             fn(at + j, k, &a, &b);
                           }
                           sums[k] += static_cast<double>(a);
                           others[k] += static_cast<double>(b);
                         }
                       }
                     }
                   });
    return absl::OkStatus();
  }
  // Channels side by side: blocks of rows, each with sums for all channels.
  const int64_t rows = s.outer * s.inner, blocks = (rows + kBlock - 1) / kBlock;
  auto* const partial = reinterpret_cast<float*>(space);
  c->ParallelFor(blocks, std::max<int64_t>(1, kGrain / (kBlock * s.channels)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t u = begin; u < end; ++u) {
                     float* const a = partial + u * 2 * s.channels;
                     float* const b = a + s.channels;
                     std::fill_n(a, 2 * s.channels, 0.0f);
                     for (int64_t r = u * kBlock; r < std::min(rows, (u + 1) * kBlock); ++r) {
                       for (int64_t k = 0; k < s.channels; ++k) {
                         fn(r * s.channels + k, k, a + k, b + k);
                       }
                     }
                   }
                 });
  for (int64_t u = 0; u < blocks; ++u) {
    const float* const a = partial + u * 2 * s.channels;
    for (int64_t k = 0; k < s.channels; ++k) {
      sums[k] += static_cast<double>(a[k]);
      others[k] += static_cast<double>(a[s.channels + k]);
    }
  }
  return absl::OkStatus();
}
// The doubles of `space` that it needs.
int64_t SumSpace(const NormSizes& s) {
  if (s.inner > 1) return 0;
  return (s.outer * s.inner + kBlock - 1) / kBlock * s.channels;
}

// Calls fn(element, channel) for every element.
template <typename Fn>
void ForElements(KernelContext* c, const NormSizes& s, const Fn& fn) {
  const int64_t planes = s.inner > 1 ? s.outer * s.channels : s.outer;
  const int64_t size = s.inner > 1 ? s.inner : s.channels;
  c->ParallelFor(planes, std::max<int64_t>(1, kGrain / std::max<int64_t>(1, size)),
                 [&](int64_t begin, int64_t end) {
                   for (int64_t p = begin; p < end; ++p) {
                     const int64_t at = p * size;
                     if (s.inner > 1) {
                       const int64_t k = p % s.channels;
                       for (int64_t i = 0; i < size; ++i) fn(at + i, k);
                     } else {
                       for (int64_t k = 0; k < size; ++k) fn(at + k, k);
                     }
                   }
                 });
}

template <typename T>
class BatchNormKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(attrs_, AttrsOf(c, false));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    NormSizes s;
    FERRY_RETURN_IF_ERROR(
        SizesOf(*c, false, attrs_.format, attrs_.is_training, attrs_.averages(), &s));
    FERRY_ASSIGN_OR_RETURN(Tensor * y_out, c->AllocateOutput(0, c->input(0).shape()));
    float* out[4];  // batch_mean, batch_variance and the reserve spaces.
    for (int i = 0; i < 4; ++i) {
      FERRY_ASSIGN_OR_RETURN(Tensor * t, c->AllocateOutput(i + 1, TensorShape({s.channels})));
      out[i] = t->data<float>();
    }
    if (c->num_outputs() > 5) {
      FERRY_ASSIGN_OR_RETURN(Tensor * t, c->AllocateOutput(5, TensorShape()));
      *t->data<float>() = 0;
    }
    const T* const x = c->input(0).data<T>();
    const float* const scale = c->input(1).data<float>();
    const float* const offset = c->input(2).data<float>();
    const float* const old_mean = c->input(3).data<float>();
    const float* const old_variance = c->input(4).data<float>();
    const int64_t n = s.outer * s.inner, channels = s.channels;
    if (n == 0) {
      for (int i = 0; i < 4; ++i) {
        std::fill_n(out[i], channels, i < 2 ? std::numeric_limits<float>::quiet_NaN() : 0.0f);
      }
      return absl::OkStatus();
    }
    const int64_t space_size = 4 * channels + SumSpace(s);
    FERRY_ASSIGN_OR_RETURN(void* space,
                           c->Scratch(static_cast<size_t>(space_size) * sizeof(double)));
    double* const sums = static_cast<double*>(space);
    double* const others = sums + channels;
    float* const mean = reinterpret_cast<float*>(others + channels);
    float* const factor = mean + channels;
    float* const shift = factor + channels;
    if (attrs_.is_training) {
      double* const rest = others + 3 * channels;
      FERRY_RETURN_IF_ERROR(SumChannels(
          c, s, sums, others, rest,
          [x](int64_t i, int64_t, float* a, float*) { *a += static_cast<float>(x[i]); }));
      const double count = static_cast<double>(n);
      for (int64_t k = 0; k < channels; ++k) mean[k] = static_cast<float>(sums[k] / count);
      FERRY_RETURN_IF_ERROR(SumChannels(c, s, sums, others, rest,
                                        [x, mean](int64_t i, int64_t k, float* a, float* b) {
                                          const float d = static_cast<float>(x[i]) - mean[k];
                                          *a += d * d;
                                          *b += d;
                                        }));
      const double f = static_cast<double>(attrs_.factor);
      for (int64_t k = 0; k < channels; ++k) {
        // What rounding the mean left out of it is taken out of the squares, and out of y.
        const double rest_mean = others[k] / count;
        shift[k] = static_cast<float>(rest_mean);
        const double variance = std::max(0.0, sums[k] / count - rest_mean * rest_mean);
        const double unbiased = variance * count / std::max(1.0, count - 1);
        const double m = static_cast<double>(mean[k]);
        out[0][k] =
            static_cast<float>(f == 1 ? m : (1 - f) * static_cast<double>(old_mean[k]) + f * m);
        out[1][k] = static_cast<float>(
            f == 1 ? unbiased : (1 - f) * static_cast<double>(old_variance[k]) + f * unbiased);
        out[2][k] = mean[k];
        out[3][k] = static_cast<float>(variance);
      }
    } else {
      std::copy_n(old_mean, channels, mean);
      std::fill_n(shift, channels, 0.0f);
      std::copy_n(old_mean, channels, out[0]);
      std::copy_n(old_variance, channels, out[1]);
      std::fill_n(out[2], channels, 0.0f);
      std::fill_n(out[3], channels, 0.0f);
    }
    const float* const variance = attrs_.is_training ? out[3] : old_variance;
    for (int64_t k = 0; k < channels; ++k) {
      factor[k] = scale[k] / std::sqrt(variance[k] + attrs_.epsilon);
      shift[k] = offset[k] - shift[k] * factor[k];
    }
    T* const y = y_out->data<T>();
    ForElements(c, s, [=](int64_t i, int64_t k) {
      y[i] = static_cast<T>((static_cast<float>(x[i]) - mean[k]) * factor[k] + shift[k]);
    });
    return absl::OkStatus();
  }

 private:
  NormAttrs attrs_;
};

// With r = 1 / sqrt(variance + epsilon), in training:
//   doffset = sum of dy;  dscale = r * sum of dy (x - mean)
//   dx = scale * r * (dy - doffset / n - (x - mean) * r * dscale / n)
// in inference, where mean and variance don't depend on x, dx = scale * r * dy.
template <typename T>
class BatchNormGradKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(attrs_, AttrsOf(c, true));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    NormSizes s;
    FERRY_RETURN_IF_ERROR(SizesOf(*c, true, attrs_.format, attrs_.is_training, true, &s));
    FERRY_ASSIGN_OR_RETURN(Tensor * dx_out, c->AllocateOutput(0, c->input(1).shape()));
    FERRY_ASSIGN_OR_RETURN(Tensor * dscale_out, c->AllocateOutput(1, TensorShape({s.channels})));
    FERRY_ASSIGN_OR_RETURN(Tensor * doffset_out, c->AllocateOutput(2, TensorShape({s.channels})));
    for (int i = 3; i < 5; ++i) {
      FERRY_RETURN_IF_ERROR(c->AllocateOutput(i, TensorShape({0})).status());
    }
    float* const dscale = dscale_out->data<float>();
    float* const doffset = doffset_out->data<float>();
    const int64_t n = s.outer * s.inner, channels = s.channels;
    if (n == 0) {
      std::fill_n(dscale, channels, 0.0f);
      std::fill_n(doffset, channels, 0.0f);
      return absl::OkStatus();
    }
    const T* const dy = c->input(0).data<T>();
    const T* const x = c->input(1).data<T>();
    const float* const scale = c->input(2).data<float>();
    const float* const mean = c->input(3).data<float>();
    const float* const variance = c->input(4).data<float>();
    const int64_t space_size = 4 * channels + SumSpace(s);
    FERRY_ASSIGN_OR_RETURN(void* space,
                           c->Scratch(static_cast<size_t>(space_size) * sizeof(double)));
    double* const sums = static_cast<double*>(space);
    double* const others = sums + channels;
    float* const factor = reinterpret_cast<float*>(others + channels);
    float* const slope = factor + channels;
    float* const shift = slope + channels;
    FERRY_RETURN_IF_ERROR(SumChannels(c, s, sums, others, others + 3 * channels,
                                      [dy, x, mean](int64_t i, int64_t k, float* a, float* b) {
                                        const float g = static_cast<float>(dy[i]);
                                        *a += g;
                                        *b += g * (static_cast<float>(x[i]) - mean[k]);
                                      }));
    for (int64_t k = 0; k < channels; ++k) {
      const double r = 1 / std::sqrt(static_cast<double>(variance[k] + attrs_.epsilon));
      doffset[k] = static_cast<float>(sums[k]);
      dscale[k] = static_cast<float>(r * others[k]);
      factor[k] = static_cast<float>(static_cast<double>(scale[k]) * r);
      const double count = static_cast<double>(n);
      shift[k] = attrs_.is_training ? static_cast<float>(sums[k] / count) : 0;
      slope[k] = attrs_.is_training ? static_cast<float>(r * r * others[k] / count) : 0;
    }
    T* const dx = dx_out->data<T>();
    if (attrs_.is_training) {
      ForElements(c, s, [=](int64_t i, int64_t k) {
        const float d = static_cast<float>(x[i]) - mean[k];
        dx[i] = static_cast<T>(factor[k] * (static_cast<float>(dy[i]) - shift[k] - d * slope[k]));
      });
    } else {
      ForElements(c, s, [=](int64_t i, int64_t k) {
        dx[i] = static_cast<T>(factor[k] * static_cast<float>(dy[i]));
      });
    }
    return absl::OkStatus();
  }

 private:
  NormAttrs attrs_;
};

// ---- Shapes ----

absl::Status NormShape(InferenceContext* c, bool gradient) {
  FERRY_ASSIGN_OR_RETURN(const NormAttrs attrs, AttrsOf(*c, gradient));
  PartialShape x = c->input(gradient ? 1 : 0);
  if (x.known_rank()) {
    FERRY_RETURN_IF_ERROR(CheckRank(attrs.format, x.rank(), x.DebugString()));
  } else {
    x = PartialShape::UnknownOfRank(static_cast<int>(attrs.format.size()));
  }
  if (gradient) {
    FERRY_ASSIGN_OR_RETURN(x, PartialShape::Merge(x, c->input(0)));
  }
  const int channel = ChannelsFirst(attrs.format) ? 1 : x.rank() - 1;
  PartialShape channels({x.dim(channel)});
  for (int i = gradient ? 2 : 1; i < 5; ++i) {
    FERRY_ASSIGN_OR_RETURN(PartialShape vector, c->WithRank(c->input(i), 1));
    if (gradient || i < 3 || attrs.averages()) {
      FERRY_ASSIGN_OR_RETURN(channels, PartialShape::Merge(channels, vector));
    }
  }
  x.set_dim(channel, channels.dim(0));
  c->set_output(0, x);
  for (int i = 1; i < 5; ++i) {
    c->set_output(i, gradient && i > 2 ? PartialShape({0}) : channels);
  }
  if (c->num_outputs() > 5) c->set_output(5, PartialShape::Scalar());
  return absl::OkStatus();
}
absl::Status ForwardShape(InferenceContext* c) { return NormShape(c, false); }
absl::Status GradShape(InferenceContext* c) { return NormShape(c, true); }

// ---- Gradients ----

// Through y alone: what becomes of the averages is nothing that is differentiated.
absl::Status NormGradient(GradientContext* c, const char* op) {
  if (c->grad(0).node == nullptr) return absl::OkStatus();
  FERRY_ASSIGN_OR_RETURN(const bool is_training, c->Attr<bool>("is_training"));
  NodeBuilder b(c->scope(), op);
  b.Input(c->grad(0)).Input(c->input(0)).Input(c->input(1));
  for (int i = 0; i < 2; ++i) b.Input(is_training ? c->output(3 + i) : c->input(3 + i));
  if (c->node()->num_outputs() > 5) b.Input(c->output(5));
  for (const char* name : {"epsilon", "data_format", "is_training"}) {
    b.AttrValue(name, c->node()->attrs().at(name));
  }
  Node* const n = b.Build();
  if (n == nullptr) return c->scope().status();
  for (int i = 0; i < 3; ++i) c->set_input_grad(i, Output(n, i));
  return absl::OkStatus();
}

#define FERRY_NORM_ATTRS(formats)                  \
  Attr("epsilon: float = 0.0001")                  \
      .Attr("exponential_avg_factor: float = 1.0") \
      .Attr("data_format: " formats " = 'NHWC'")   \
      .Attr("is_training: bool = true")
#define FERRY_NORM_GRAD_ATTRS(formats)           \
  Attr("epsilon: float = 0.0001")                \
      .Attr("data_format: " formats " = 'NHWC'") \
      .Attr("is_training: bool = true")
#define FERRY_TWO "{'NHWC', 'NCHW'}"
#define FERRY_FOUR "{'NHWC', 'NCHW', 'NDHWC', 'NCDHW'}"

FERRY_OP("FusedBatchNorm")
    .Input("x: T")
    .Input("scale: T")
    .Input("offset: T")
    .Input("mean: T")
    .Input("variance: T")
    .Output("y: T")
    .Output("batch_mean: T")
    .Output("batch_variance: T")
    .Output("reserve_space_1: T")
    .Output("reserve_space_2: T")
    .Attr("T: {float}")
    .FERRY_NORM_ATTRS(FERRY_TWO)
    .Shape(ForwardShape)
    .Gradient([](GradientContext* c) { return NormGradient(c, "FusedBatchNormGrad"); });

FERRY_OP("FusedBatchNormV2")
    .Input("x: T")
    .Input("scale: U")
    .Input("offset: U")
    .Input("mean: U")
    .Input("variance: U")
    .Output("y: T")
    .Output("batch_mean: U")
    .Output("batch_variance: U")
    .Output("reserve_space_1: U")
    .Output("reserve_space_2: U")
    .Attr("T: {half, bfloat16, float}")
    .Attr("U: {float}")
    .FERRY_NORM_ATTRS(FERRY_TWO)
    .Shape(ForwardShape)
    .Gradient([](GradientContext* c) { return NormGradient(c, "FusedBatchNormGradV2"); });

FERRY_OP("FusedBatchNormV3")
    .Input("x: T")
    .Input("scale: U")
    .Input("offset: U")
    .Input("mean: U")
    .Input("variance: U")
    .Output("y: T")
    .Output("batch_mean: U")
    .Output("batch_variance: U")
    .Output("reserve_space_1: U")
    .Output("reserve_space_2: U")
    .Output("reserve_space_3: U")
    .Attr("T: {half, bfloat16, float}")
    .Attr("U: {bfloat16, float}")
    .FERRY_NORM_ATTRS(FERRY_FOUR)
    .Shape(ForwardShape)
    .Gradient([](GradientContext* c) { return NormGradient(c, "FusedBatchNormGradV3"); });

FERRY_OP("FusedBatchNormGrad")
    .Input("y_backprop: T")
    .Input("x: T")
    .Input("scale: T")
    .Input("reserve_space_1: T")
    .Input("reserve_space_2: T")
    .Output("x_backprop: T")
    .Output("scale_backprop: T")
    .Output("offset_backprop: T")
    .Output("reserve_space_3: T")
    .Output("reserve_space_4: T")
    .Attr("T: {float}")
    .FERRY_NORM_GRAD_ATTRS(FERRY_TWO)
    .Shape(GradShape);

FERRY_OP("FusedBatchNormGradV2")
    .Input("y_backprop: T")
    .Input("x: T")
    .Input("scale: float")
    .Input("reserve_space_1: U")
    .Input("reserve_space_2: U")
    .Output("x_backprop: T")
    .Output("scale_backprop: U")
    .Output("offset_backprop: U")
    .Output("reserve_space_3: U")
    .Output("reserve_space_4: U")
    .Attr("T: {half, bfloat16, float}")
    .Attr("U: {float}")
    .FERRY_NORM_GRAD_ATTRS(FERRY_TWO)
    .Shape(GradShape);

FERRY_OP("FusedBatchNormGradV3")
    .Input("y_backprop: T")
    .Input("x: T")
    .Input("scale: float")
    .Input("reserve_space_1: U")
    .Input("reserve_space_2: U")
    .Input("reserve_space_3: U")
    .Output("x_backprop: T")
    .Output("scale_backprop: U")
    .Output("offset_backprop: U")
    .Output("reserve_space_4: U")
    .Output("reserve_space_5: U")
    .Attr("T: {half, bfloat16, float}")
    .Attr("U: {float}")
    .FERRY_NORM_GRAD_ATTRS(FERRY_FOUR)
    .Shape(GradShape);

// U is float in all kernels.
template <template <typename> class K, typename... Ts>
bool RegisterNorm(Types<Ts...>, const char* op) {
  (
      [&] {
        KernelBuilder b(op);
        b.Device(DeviceType::kCpu).Type<Ts>("T").template Type<float>("U").template Make<K<Ts>>();
        KernelBuilder::Registrar registrar(b);
        (void)registrar;
      }(),
      ...);
  return true;
}
using NormTypes = Types<half, bfloat16, float>;
const bool registered = RegisterCpu<BatchNormKernel>(Types<float>(), "FusedBatchNorm") &&
                        RegisterCpu<BatchNormGradKernel>(Types<float>(), "FusedBatchNormGrad") &&
                        RegisterNorm<BatchNormKernel>(NormTypes(), "FusedBatchNormV2") &&
                        RegisterNorm<BatchNormKernel>(NormTypes(), "FusedBatchNormV3") &&
                        RegisterNorm<BatchNormGradKernel>(NormTypes(), "FusedBatchNormGradV2") &&
                        RegisterNorm<BatchNormGradKernel>(NormTypes(), "FusedBatchNormGradV3");

}  // namespace

// ---- For batch_norm.cu ----

namespace gpu {

bool CheckBatchNorm(Call* c, bool gradient, const std::string& data_format, bool is_training,
                    float exponential_avg_factor, NormSizes* out) {
  return HostSide::Note(c, SizesOf(*HostSide::Context(c), gradient, data_format, is_training,
                                   !is_training || exponential_avg_factor != 1, out));
}

}  // namespace gpu
}  // namespace ferry
