// BiasAdd, BiasAddV1 and BiasAddGrad: a vector added along the channels, which are the last
// dimension (NHWC) or the one after the batch (NCHW).
#include <algorithm>
#include <string>
#include <type_traits>

#include "absl/container/inlined_vector.h"
#include "kernels/reduce.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// Where the channels lie among `rank` dimensions.
int ChannelDim(bool channels_first, int rank) { return channels_first ? 1 : rank - 1; }

template <typename Context>
absl::StatusOr<bool> ChannelsFirst(const Context& c) {
  if (c.attrs().find("data_format") == c.attrs().end()) return false;  // BiasAddV1.
  FERRY_ASSIGN_OR_RETURN(std::string format, c.template Attr<std::string>("data_format"));
  return format == "NCHW";
}

absl::Status TooFewDimensions(const std::string& shape) {
  return InvalidArgument("Input tensor must be at least 2D: ", shape);
}
absl::Status NotAVector(const std::string& bias) {
  return InvalidArgument("Biases must be 1D: ", bias);
}
absl::Status SizesDiffer(bool channels_first, const std::string& bias, const std::string& value) {
  return InvalidArgument("Must provide as many biases as the ", channels_first ? "channel" : "last",
                         " dimension of the input tensor: ", bias, " vs. ", value);
}

absl::Status BiasAddShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const bool channels_first, ChannelsFirst(*c));
  const PartialShape &value = c->input(0), &bias = c->input(1);
  if (value.known_rank() && value.rank() < 2) return TooFewDimensions(value.DebugString());
  if (bias.known_rank() && bias.rank() != 1) return NotAVector(bias.DebugString());
  PartialShape out = value;
  if (value.known_rank() && bias.known_rank() && bias.dim(0) >= 0) {
    const int d = ChannelDim(channels_first, value.rank());
    if (value.dim(d) >= 0 && value.dim(d) != bias.dim(0)) {
      return SizesDiffer(channels_first, bias.DebugString(), value.DebugString());
    }
    out.set_dim(d, bias.dim(0));
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

absl::Status BiasAddGradShape(InferenceContext* c) {
  FERRY_ASSIGN_OR_RETURN(const bool channels_first, ChannelsFirst(*c));
  const PartialShape& dy = c->input(0);
  if (dy.known_rank() && dy.rank() < 2) return TooFewDimensions(dy.DebugString());
  c->set_output(0, PartialShape({dy.known_rank() ? dy.dim(ChannelDim(channels_first, dy.rank()))
                                                 : PartialShape::kUnknown}));
  return absl::OkStatus();
}

template <typename T>
class BiasAddKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(channels_first_, ChannelsFirst(c));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor &value = c->input(0), &bias = c->input(1);
    if (value.rank() < 2) return TooFewDimensions(value.shape().DebugString());
    if (bias.rank() != 1) return NotAVector(bias.shape().DebugString());
    const int d = ChannelDim(channels_first_, value.rank());
    const int64_t channels = bias.dim(0);
    if (value.dim(d) != channels) {
      return SizesDiffer(channels_first_, bias.shape().DebugString(), value.shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, value.shape()));
    if (value.num_elements() == 0) return absl::OkStatus();
    const U* const x = reinterpret_cast<const U*>(value.data<T>());
    const U* const b = reinterpret_cast<const U*>(bias.data<T>());
    U* const y = reinterpret_cast<U*>(out->data<T>());
    int64_t inner = 1;
    for (int i = d + 1; i < value.rank(); ++i) inner *= value.dim(i);
    if (inner == 1) {
      const int64_t rows = value.num_elements() / channels;
      // Few channels are repeated, so that there is more to add at a time.
      absl::InlinedVector<U, 2 * kFewChannels> repeated;
      const int64_t times =
          channels < kFewChannels ? std::min(rows, 2 * kFewChannels / channels) : 1;
      for (int64_t i = 0; times > 1 && i < times; ++i) {
        repeated.insert(repeated.end(), b, b + channels);
      }
      const U* const added = times > 1 ? repeated.data() : b;
      c->ParallelFor(rows, std::max<int64_t>(1, kGrain / channels),
                     [&](int64_t begin, int64_t end) {
                       for (int64_t r = begin; r < end; r += times) {
                         const int64_t n = std::min(times, end - r) * channels;
                         MutableArray<U>(y + r * channels, n) =
                             ConstArray<U>(x + r * channels, n) + ConstArray<U>(added, n);
                       }
                     });
    } else {
      const int64_t planes = value.num_elements() / inner;
      c->ParallelFor(planes, std::max<int64_t>(1, kGrain / inner), [&](int64_t begin, int64_t end) {
        for (int64_t p = begin; p < end; ++p) {
          MutableArray<U>(y + p * inner, inner) =
              ConstArray<U>(x + p * inner, inner) + b[p % channels];
        }
      });
    }
    return absl::OkStatus();
  }

 private:
  // Integers wrap around, so they are added unsigned.
  using U = typename std::conditional_t<std::is_integral_v<T>, std::make_unsigned<T>,
                                        std::common_type<T>>::type;
  static constexpr int64_t kGrain = 1 << 15;  // Elements.
  static constexpr int64_t kFewChannels = 64;
  bool channels_first_ = false;
};

template <typename T>
class BiasAddGradKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(channels_first_, ChannelsFirst(c));
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const Tensor& dy = c->input(0);
    if (dy.rank() < 2) return TooFewDimensions(dy.shape().DebugString());
    const size_t d = static_cast<size_t>(ChannelDim(channels_first_, dy.rank()));
    absl::InlinedVector<bool, 8> reduced(static_cast<size_t>(dy.rank()), true);
    reduced[d] = false;
    FERRY_ASSIGN_OR_RETURN(Tensor * out,
                           c->AllocateOutput(0, TensorShape({dy.dim(static_cast<int>(d))})));
    return Reduce<T>(c, Reduction::kSum, dy.shape().dims(), reduced, dy.data<T>(), out->data<T>());
  }

 private:
  bool channels_first_ = false;
};

// y = x + b:  dx = dy;  db = sum of dy over all but the channels
absl::Status BiasAddGradient(GradientContext* c) {
  FERRY_ASSIGN_OR_RETURN(const bool channels_first, ChannelsFirst(*c->node()));
  c->set_input_grad(0, c->grad(0));
  c->set_input_grad(1, NodeBuilder(c->scope(), "BiasAddGrad")
                           .Input(c->grad(0))
                           .Attr("data_format", channels_first ? "NCHW" : "NHWC")
                           .BuildOutput());
  return c->scope().status();
}

// db = sum of dy:  the derivative by dy is that of db, once for each dy
absl::Status BiasAddGradGradient(GradientContext* c) {
  const Scope& s = c->scope();
  FERRY_ASSIGN_OR_RETURN(const bool channels_first, ChannelsFirst(*c->node()));
  Output g = c->grad(0);
  if (channels_first) {
    const int rank = c->input(0).shape().rank();
    if (rank < 0) {
      return Unimplemented(
          "the gradient of BiasAddGrad (NCHW) needs an input of known rank; node '",
          c->node()->name(), "' has none");
    }
    for (int i = 2; i < rank; ++i) g = ops::ExpandDims(s, g, ops::Const<int32_t>(s, -1));
  }
  c->set_input_grad(0, ops::BroadcastTo(s, g, ShapeOf(s, c->input(0))));
  return s.status();
}

constexpr const char* kTypes =
    "T: {float, double, int32, uint8, int16, int8, complex64, int64, qint8, quint8, qint32, "
    "bfloat16, qint16, quint16, uint16, complex128, half, uint32, uint64}";

FERRY_OP("BiasAdd")
    .Input("value: T")
    .Input("bias: T")
    .Output("output: T")
    .Attr(kTypes)
    .Attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
    .Shape(BiasAddShape)
    .Gradient(BiasAddGradient);

FERRY_OP("BiasAddV1")
    .Input("value: T")
    .Input("bias: T")
    .Output("output: T")
    .Attr(kTypes)
    .Shape(BiasAddShape)
    .Gradient(BiasAddGradient);

FERRY_OP("BiasAddGrad")
    .Input("out_backprop: T")
    .Output("output: T")
    .Attr(kTypes)
    .Attr("data_format: {'NHWC', 'NCHW'} = 'NHWC'")
    .Shape(BiasAddGradShape)
    .Gradient(BiasAddGradGradient);

const bool kRegistered = RegisterCpu<BiasAddKernel>(NumberTypes(), "BiasAdd", "T", {0}) &&
                         RegisterCpu<BiasAddKernel>(NumberTypes(), "BiasAddV1", "T", {0}) &&
                         RegisterCpu<BiasAddGradKernel>(NumberTypes(), "BiasAddGrad");

}  // namespace
}  // namespace ferry
