// Relu, Relu6, LeakyRelu, Elu, Selu, Softplus, Softsign and their gradient ops.
#include <algorithm>
#include <cmath>

#include "kernels/constants.h"
#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/graph/ops.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// "Self-Normalizing Neural Networks" (Klambauer et al., 2017), equation 14.
constexpr double kSeluScale = 1.0507009873554804934193349852946;
constexpr double kSeluAlpha = 1.6732632423543772848170429916717;

#define FERRY_RELU_TYPES \
  "T: {float, double, int32, uint8, int16, int8, int64, bfloat16, uint16, half, uint32, uint64}"
#define FERRY_FLOAT_TYPES "T: {half, bfloat16, float, double}"

// A node of gradient op `name`, with the attribute alpha where the op at hand has one.
absl::StatusOr<Output> Grad(GradientContext* c, const char* name, Output dy, Output of) {
  NodeBuilder b(c->scope(), name);
  b.Input(dy).Input(of);
  if (c->node()->attrs().contains("alpha")) {
    FERRY_ASSIGN_OR_RETURN(float alpha, c->Attr<float>("alpha"));
    b.Attr("alpha", alpha);
  }
  const Output out = b.BuildOutput();
  FERRY_RETURN_IF_ERROR(c->scope().status());
  return out;
}

// The gradient of an activation is op `name` of dy and the activation's input, or its output.
GradientFn ByInput(const char* name) {
  return [name](GradientContext* c) -> absl::Status {
    FERRY_ASSIGN_OR_RETURN(Output dx, Grad(c, name, c->grad(0), c->input(0)));
    c->set_input_grad(0, dx);
    return absl::OkStatus();
  };
}
GradientFn ByOutput(const char* name) {
  return [name](GradientContext* c) -> absl::Status {
    FERRY_ASSIGN_OR_RETURN(Output dx, Grad(c, name, c->grad(0), c->output(0)));
    c->set_input_grad(0, dx);
    return absl::OkStatus();
  };
}

// z = dy * slope(x), with a slope that is constant piece by piece:  d(dy) = dz * slope(x),
// d(x) = 0
absl::Status PiecewiseGradient(GradientContext* c) {
  FERRY_ASSIGN_OR_RETURN(Output d, Grad(c, c->node()->op().c_str(), c->grad(0), c->input(1)));
  c->set_input_grad(0, d);
  c->set_input_grad(1, ops::ZerosLike(c->scope(), c->input(1)));
  return c->scope().status();
}

// z = dy * (y + k) where y < 0, dy * scale elsewhere:  d(dy) likewise from dz,
// d(y) = y < 0 ? dz * dy : 0
absl::Status EluGradGradient(GradientContext* c) {
  const Scope& s = c->scope();
  const Output dy = c->input(0), y = c->input(1), dz = c->grad(0);
  FERRY_ASSIGN_OR_RETURN(Output d, Grad(c, c->node()->op().c_str(), dz, y));
  c->set_input_grad(0, d);
  c->set_input_grad(1, ops::SelectV2(s, ops::Less(s, y, ConstLike(s, y, 0)), ops::Mul(s, dz, dy),
                                     ConstLike(s, dz, 0)));
  return s.status();
}

FERRY_OP("Relu")
    .Input("features: T")
    .Output("activations: T")
    .Attr(
        "T: {float, double, int32, uint8, int16, int8, int64, bfloat16, uint16, half, uint32, "
        "uint64, qint8}")
    .Shape(UnchangedShape)
    // y = max(x, 0):  dx = y > 0 ? dy : 0
    .Gradient(ByOutput("ReluGrad"));

FERRY_OP("Relu6")
    .Input("features: T")
    .Output("activations: T")
    .Attr(FERRY_RELU_TYPES)
    .Shape(UnchangedShape)
    // y = min(max(x, 0), 6):  dx = 0 < y < 6 ? dy : 0
    .Gradient(ByOutput("Relu6Grad"));

FERRY_OP("LeakyRelu")
    .Input("features: T")
    .Output("activations: T")
    .Attr("alpha: float = 0.2")
    .Attr("T: {half, bfloat16, float, double} = DT_FLOAT")
    .Shape(UnchangedShape)
    // y = x > 0 ? x : alpha * x:  dx = x > 0 ? dy : alpha * dy
    .Gradient(ByInput("LeakyReluGrad"));

FERRY_OP("Elu")
    .Input("features: T")
    .Output("activations: T")
    .Attr(FERRY_FLOAT_TYPES)
    .Shape(UnchangedShape)
    // y = x < 0 ? exp(x) - 1 : x:  dx = y < 0 ? dy * (y + 1) : dy
    .Gradient(ByOutput("EluGrad"));

FERRY_OP("Selu")
    .Input("features: T")
    .Output("activations: T")
    .Attr(FERRY_FLOAT_TYPES)
    .Shape(UnchangedShape)
    // y = scale * (x < 0 ? alpha * (exp(x) - 1) : x):
    // dx = y < 0 ? dy * (y + scale * alpha) : dy * scale
    .Gradient(ByOutput("SeluGrad"));

FERRY_OP("Softplus")
    .Input("features: T")
    .Output("activations: T")
    .Attr(FERRY_FLOAT_TYPES)
    .Shape(UnchangedShape)
    // y = log(1 + exp(x)):  dx = dy / (1 + exp(-x))
    .Gradient(ByInput("SoftplusGrad"));

FERRY_OP("Softsign")
    .Input("features: T")
    .Output("activations: T")
    .Attr(FERRY_FLOAT_TYPES)
    .Shape(UnchangedShape)
    // y = x / (1 + |x|):  dx = dy / (1 + |x|)^2
    .Gradient(ByInput("SoftsignGrad"));

FERRY_OP("ReluGrad")
    .Input("gradients: T")
    .Input("features: T")
    .Output("backprops: T")
    .Attr(FERRY_RELU_TYPES)
    .Shape(MergedShape)
    .Gradient(PiecewiseGradient);

FERRY_OP("Relu6Grad")
    .Input("gradients: T")
    .Input("features: T")
    .Output("backprops: T")
    .Attr(FERRY_RELU_TYPES)
    .Shape(MergedShape)
    .Gradient(PiecewiseGradient);

FERRY_OP("LeakyReluGrad")
    .Input("gradients: T")
    .Input("features: T")
    .Output("backprops: T")
    .Attr("alpha: float = 0.2")
    .Attr("T: {half, bfloat16, float, double} = DT_FLOAT")
    .Shape(MergedShape)
    .Gradient(PiecewiseGradient);

FERRY_OP("EluGrad")
    .Input("gradients: T")
    .Input("outputs: T")
    .Output("backprops: T")
    .Attr(FERRY_FLOAT_TYPES)
    .Shape(MergedShape)
    .Gradient(EluGradGradient);

FERRY_OP("SeluGrad")
    .Input("gradients: T")
    .Input("outputs: T")
    .Output("backprops: T")
    .Attr(FERRY_FLOAT_TYPES)
    .Shape(MergedShape)
    .Gradient(EluGradGradient);

FERRY_OP("SoftplusGrad")
    .Input("gradients: T")
    .Input("features: T")
    .Output("backprops: T")
    .Attr(FERRY_FLOAT_TYPES)
    .Shape(MergedShape)
    // z = dy / (1 + exp(-x)):  d(dy) = dz / (1 + exp(-x)),
    // d(x) = dz * dy / (exp(-x) + 2 + exp(x))
    .Gradient([](GradientContext* c) -> absl::Status {
      const Scope& s = c->scope();
      const Output dy = c->input(0), x = c->input(1), dz = c->grad(0);
      FERRY_ASSIGN_OR_RETURN(Output d, Grad(c, "SoftplusGrad", dz, x));
      c->set_input_grad(0, d);
      const Output wide = ops::AddV2(
          s, ops::AddV2(s, ops::Exp(s, ops::Neg(s, x)), ConstLike(s, x, 2)), ops::Exp(s, x));
      c->set_input_grad(1, ops::RealDiv(s, ops::Mul(s, dz, dy), wide));
      return s.status();
    });

FERRY_OP("SoftsignGrad")
    .Input("gradients: T")
    .Input("features: T")
    .Output("backprops: T")
    .Attr(FERRY_FLOAT_TYPES)
    .Shape(MergedShape);

// NaN stays NaN.
struct ReluF {
  template <typename T>
  static T Apply(T x) {
    return x < T(0) ? T(0) : x;
  }
};
struct Relu6F {
  template <typename T>
  static T Apply(T x) {
    const T y = x < T(0) ? T(0) : x;
    return y > T(6) ? T(6) : y;
  }
};
struct EluF {
  template <typename P>
  static P Apply(const P& x) {
    const P below = x.expm1();
    return (x < typename P::Scalar(0)).select(below, x);
  }
};
struct SeluF {
  template <typename P>
  static P Apply(const P& x) {
    using T = typename P::Scalar;
    const P below = x.expm1() * T(kSeluScale * kSeluAlpha);
    return (x < T(0)).select(below, x * T(kSeluScale));
  }
};
// log(1 + exp(x)) = max(x, 0) + log(1 + exp(-|x|)), which neither overflows nor cancels.
struct SoftplusF {
  template <typename P>
  static P Apply(const P& x) {
    using T = typename P::Scalar;
    const P tail = PackExp<P>(-x.abs());
    return (x < T(0)).select(P::Zero(), x) + tail.log1p();
  }
};
struct SoftsignF {
  template <typename T>
  static T Apply(T x) {
    return x / (T(1) + std::fabs(x));
  }
};

struct ReluGradF {
  template <typename T>
  static T Apply(T dy, T x) {
    return x > T(0) ? dy : T(0);
  }
};
struct Relu6GradF {
  template <typename T>
  static T Apply(T dy, T x) {
    return (x > T(0)) & (x < T(6)) ? dy : T(0);
  }
};
struct EluGradF {
  template <typename T>
  static T Apply(T dy, T y) {
    return y < T(0) ? (y + T(1)) * dy : dy;
  }
};
struct SeluGradF {
  template <typename T>
  static T Apply(T dy, T y) {
    return dy * (y < T(0) ? y + T(kSeluScale * kSeluAlpha) : T(kSeluScale));
  }
};
struct SoftsignGradF {
  template <typename T>
  static T Apply(T dy, T x) {
    const T d = T(1) + std::fabs(x);
    return dy / (d * d);
  }
};

// dy / (1 + exp(-x)), pack by pack; the shapes are equal, so both steps are 1.
template <typename T>
bool SoftplusGradLoop(const void* dyv, int, const void* xv, int, void* zv, int64_t n) {
  const T* dy = static_cast<const T*>(dyv);
  const T* x = static_cast<const T*>(xv);
  T* z = static_cast<T*>(zv);
  Pack<T> d = Pack<T>::Zero(), v = Pack<T>::Zero();
  for (int64_t i = 0; i < n; i += Pack<T>::SizeAtCompileTime) {
    const int64_t m = std::min<int64_t>(n - i, Pack<T>::SizeAtCompileTime);
    std::copy_n(dy + i, m, d.data());
    std::copy_n(x + i, m, v.data());
    d /= (-v).exp() + T(1);
    std::copy_n(d.data(), m, z + i);
  }
  return true;
}

// LeakyRelu and LeakyReluGrad: `from` where the feature is positive, alpha * from elsewhere.
template <typename T, bool kGrad>
class LeakyKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    FERRY_ASSIGN_OR_RETURN(float alpha, c.Attr<float>("alpha"));
    alpha_ = static_cast<T>(alpha);
    return absl::OkStatus();
  }
  absl::Status Compute(KernelContext* c) const override {
    const TensorShape& shape = c->input(0).shape();
    if (kGrad && c->input(1).shape() != shape) {
      return InvalidArgument("Inputs must have the same size and shape: ", shape.DebugString(),
                             " vs. ", c->input(1).shape().DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    const T* from = c->input(0).data<T>();
    const T* feature = kGrad ? c->input(1).data<T>() : from;
    T* to = out->data<T>();
    c->ParallelFor(shape.num_elements(), kCheapGrain, [&](int64_t begin, int64_t end) {
      FERRY_INDEPENDENT
      for (int64_t i = begin; i < end; ++i) {
        to[i] = feature[i] > T(0) ? from[i] : from[i] * alpha_;
      }
    });
    return absl::OkStatus();
  }

 private:
  T alpha_;
};
template <typename T>
using LeakyReluKernel = LeakyKernel<T, false>;
template <typename T>
using LeakyReluGradKernel = LeakyKernel<T, true>;

template <typename... Ts>
bool RegisterSoftplusGrad(Types<Ts...>) {
  (RegisterBinaryFn("SoftplusGrad",
                    {&SoftplusGradLoop<Wide<Ts>>, DTypeOf<Ts>::value, DTypeOf<Ts>::value,
                     kCostlyGrain, nullptr, BinaryShapes::kSame}),
   ...);
  return true;
}

template <typename F, typename List>
bool RegisterGrad(List types, const char* op) {
  return RegisterBinary<F>(types, op, kCheapGrain, BinaryShapes::kSame);
}

const bool registered =
    RegisterUnary<ReluF>(NumberTypes(), "Relu") && RegisterUnary<Relu6F>(NumberTypes(), "Relu6") &&
    RegisterCpu<LeakyReluKernel>(FloatTypes(), "LeakyRelu", "T", {0}) &&
    RegisterPacked<EluF>(FloatTypes(), "Elu") && RegisterPacked<SeluF>(FloatTypes(), "Selu") &&
    RegisterPacked<SoftplusF>(FloatTypes(), "Softplus") &&
    RegisterUnary<SoftsignF>(FloatTypes(), "Softsign") &&
    RegisterGrad<ReluGradF>(NumberTypes(), "ReluGrad") &&
    RegisterGrad<Relu6GradF>(NumberTypes(), "Relu6Grad") &&
    RegisterCpu<LeakyReluGradKernel>(FloatTypes(), "LeakyReluGrad", "T", {0, 1}) &&
    RegisterGrad<EluGradF>(FloatTypes(), "EluGrad") &&
    RegisterGrad<SeluGradF>(FloatTypes(), "SeluGrad") && RegisterSoftplusGrad(FloatTypes()) &&
    RegisterGrad<SoftsignGradF>(FloatTypes(), "SoftsignGrad");

}  // namespace
}  // namespace ferry
