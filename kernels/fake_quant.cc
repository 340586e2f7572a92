// FakeQuantWithMinMaxArgs, -Vars and -VarsPerChannel, which round numbers to those that a quantised
// network can tell apart, and their gradients. The range from min to max is divided into 2^bits - 1
// steps (one fewer where it is narrow), after it was moved so that zero is one of its ends or falls
// on a step.
#include <algorithm>
#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/array.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/kernel.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// The steps, as attributes give them.
struct Levels {
  float lowest = 0, highest = 255;
};
absl::StatusOr<Levels> LevelsOf(const KernelConstruction& c) {
  FERRY_ASSIGN_OR_RETURN(const int64_t bits, c.Attr<int64_t>("num_bits"));
  FERRY_ASSIGN_OR_RETURN(const bool narrow, c.Attr<bool>("narrow_range"));
  if (bits < 2 || bits > 16) {
    return InvalidArgument("num_bits must be between 2 and 16 inclusive, found ", bits);
  }
  return Levels{narrow ? 1.0f : 0.0f, static_cast<float>((1 << bits) - 1)};
}

struct Range {
  float min, max, step;  // After the move.
  bool empty;            // Of zeros alone.

  Range(float low, float high, const Levels& levels) : empty(low == 0 && high == 0) {
    step = (high - low) / (levels.highest - levels.lowest);
    const float zero = levels.lowest - low / step;
    const float moved = zero < levels.lowest    ? levels.lowest
                        : zero > levels.highest ? levels.highest
                                                : std::round(zero);
    min = (levels.lowest - moved) * step;
    max = (levels.highest - moved) * step;
  }

  float Rounded(float x) const {
    if (empty) return 0;
    const float inverse = 1 / step;
    const float zero = std::floor(-min * inverse + 0.5f);
    const float inside = std::min(std::max(x, min), max);
    return std::floor((inside - min) * inverse - zero + 0.5f) * step;
  }
  bool Below(float x) const { return !empty && x < min; }
  bool Above(float x) const { return !empty && x > max; }
  bool Holds(float x) const { return empty || (x >= min && x <= max); }
};

enum class Limits { kArgs, kVars, kChannels };

const char* Name(Limits limits, bool gradient) {
  switch (limits) {
    case Limits::kArgs:
      return gradient ? "FakeQuantWithMinMaxArgsGradient" : "FakeQuantWithMinMaxArgs";
    case Limits::kVars:
      return gradient ? "FakeQuantWithMinMaxVarsGradient" : "FakeQuantWithMinMaxVars";
    case Limits::kChannels:
      return gradient ? "FakeQuantWithMinMaxVarsPerChannelGradient"
                      : "FakeQuantWithMinMaxVarsPerChannel";
  }
  return "";
}

template <Limits kLimits, bool kGradient>
class FakeQuantKernel : public Kernel {
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(levels_, LevelsOf(c));
    if (kLimits != Limits::kArgs) return absl::OkStatus();
    FERRY_ASSIGN_OR_RETURN(min_, c.Attr<float>("min"));
    FERRY_ASSIGN_OR_RETURN(max_, c.Attr<float>("max"));
    if (min_ < max_) return absl::OkStatus();
    return InvalidArgument("min has to be smaller than max, was: ", min_, " >= ", max_);
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(kGradient ? 1 : 0);
    if (kGradient && c->input(0).shape() != x.shape()) {
      return InvalidArgument("gradient and input must be the same size: ",
                             c->input(0).shape().DebugString(), " vs. ", x.shape().DebugString());
    }
    if (kLimits == Limits::kChannels && x.rank() == 0) {
      return InvalidArgument("Input must have at least one dimension, the channels'");
    }
    const int64_t channels = kLimits == Limits::kChannels ? x.dim(x.rank() - 1) : 1;
    std::vector<Range> ranges;
    if (kLimits == Limits::kArgs) {
      ranges.emplace_back(min_, max_, levels_);
    } else {
      const int first = kGradient ? 2 : 1;
      for (const int i : {first, first + 1}) {
        const bool fits = kLimits == Limits::kVars ? c->input(i).rank() == 0
                                                   : c->input(i).shape() == TensorShape{channels};
        if (fits) continue;
        return InvalidArgument(i == first ? "min" : "max", " must ",
                               kLimits == Limits::kVars ? std::string("be a scalar")
                                                        : absl::StrCat("have a value for each of ",
                                                                       channels, " channels"),
                               ", found shape ", c->input(i).shape().DebugString());
      }
      for (int64_t k = 0; k < channels; ++k) {
        ranges.emplace_back(c->input(first).data<float>()[k], c->input(first + 1).data<float>()[k],
                            levels_);
      }
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, x.shape()));
    const float* const from = x.data<float>();
    const float* const grad = c->input(0).data<float>();
    float* const to = out->data<float>();
    const int64_t rows = channels == 0 ? 0 : x.num_elements() / channels;
    c->ParallelFor(
        rows, std::max<int64_t>(1, 8192 / std::max<int64_t>(1, channels)),
        [&](int64_t begin, int64_t end) {
          for (int64_t i = begin * channels; i < end * channels; ++i) {
            const Range& range = ranges[static_cast<size_t>(i % channels)];
            to[i] = !kGradient ? range.Rounded(from[i]) : range.Holds(from[i]) ? grad[i] : 0;
          }
        });
    if (!kGradient || kLimits == Limits::kArgs) return absl::OkStatus();
    // What lies outside moves with the end that it is cut to.
    for (const int end : {1, 2}) {
      FERRY_ASSIGN_OR_RETURN(Tensor * sums, c->AllocateOutput(end, c->input(end + 1).shape()));
      for (int64_t k = 0; k < channels; ++k) {
        const Range& range = ranges[static_cast<size_t>(k)];
        double sum = 0;
        for (int64_t i = k; i < x.num_elements(); i += channels) {
          if (end == 1 ? range.Below(from[i]) : range.Above(from[i])) {
            sum += static_cast<double>(grad[i]);
          }
        }
        sums->data<float>()[k] = static_cast<float>(sum);
      }
    }
    return absl::OkStatus();
  }

  Levels levels_;
  float min_ = 0, max_ = 0;
};

template <Limits kLimits>
absl::Status FakeQuantGradient(GradientContext* c) {
  NodeBuilder b(c->scope(), Name(kLimits, true));
  b.Input(c->grad(0));
  for (int i = 0; i < c->node()->num_inputs(); ++i) b.Input(c->input(i));
  for (const char* const name : {"min", "max", "num_bits", "narrow_range"}) {
    const auto it = c->node()->attrs().find(name);
    if (it != c->node()->attrs().end()) b.AttrValue(name, it->second);
  }
  Node* const grad = b.Build();
  if (grad == nullptr) return c->scope().status();
  for (int i = 0; i < c->node()->num_inputs(); ++i) c->set_input_grad(i, Output(grad, i));
  return c->scope().status();
}

template <Limits kLimits>
bool Register() {
  for (const bool gradient : {false, true}) {
    OpBuilder b(Name(kLimits, gradient));
    if (gradient) b.Input("gradients: float");
    b.Input("inputs: float");
    if (kLimits != Limits::kArgs) b.Input("min: float").Input("max: float");
    if (!gradient) {
      b.Output("outputs: float").Gradient(FakeQuantGradient<kLimits>);
    } else if (kLimits == Limits::kArgs) {
      b.Output("backprops: float");
    } else {
      b.Output("backprops_wrt_input: float")
          .Output("backprop_wrt_min: float")
          .Output("backprop_wrt_max: float");
    }
    if (kLimits == Limits::kArgs) b.Attr("min: float = -6.0").Attr("max: float = 6.0");
    b.Attr("num_bits: int = 8").Attr("narrow_range: bool = false");
    b.Shape([gradient](InferenceContext* c) -> absl::Status {
      c->set_output(0, c->input(gradient ? 1 : 0));
      if (gradient && kLimits != Limits::kArgs) {
        c->set_output(1, c->input(2));
        c->set_output(2, c->input(3));
      }
      return absl::OkStatus();
    });
    const OpBuilder::Registrar op(b);
    KernelBuilder k(Name(kLimits, gradient));
    k.Device(DeviceType::kCpu);
    if (gradient) {
      k.Make<FakeQuantKernel<kLimits, true>>();
    } else {
      k.Make<FakeQuantKernel<kLimits, false>>();
    }
    const KernelBuilder::Registrar kernel(k);
  }
  return true;
}

[[maybe_unused]] const bool registered =
    Register<Limits::kArgs>() && Register<Limits::kVars>() && Register<Limits::kChannels>();

}  // namespace
}  // namespace ferry
