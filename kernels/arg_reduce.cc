// ArgMax and ArgMin: the position of the greatest or least value along one dimension.
#include <limits>
#include <string>
#include <type_traits>

#include "kernels/gpu_checks.h"
#include "kernels/gpu_host.h"
#include "kernels/types.h"
#include "runtime/base/status.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

absl::Status ArgShape(InferenceContext* c) {
  const PartialShape& x = c->input(0);
  FERRY_RETURN_IF_ERROR(c->WithRankAtMost(c->input(1), 1).status());
  if (!x.known_rank()) return UnknownShape(c);
  if (x.rank() == 0) {
    c->set_output(0, x);
    return absl::OkStatus();
  }
  if (c->value(1) == nullptr) {
    c->set_output(0, PartialShape::UnknownOfRank(x.rank() - 1));
    return absl::OkStatus();
  }
  const Tensor& v = *c->value(1);
  if (v.num_elements() != 1) {
    return InvalidArgument("dim must be a scalar, but received tensor of shape: ",
                           v.shape().DebugString());
  }
  int64_t axis = v.dtype() == DType::kInt64   ? v.scalar<int64_t>()
                 : v.dtype() == DType::kInt16 ? v.scalar<int16_t>()
                                              : v.scalar<int32_t>();
  if (axis < -x.rank() || axis >= x.rank()) {
    return InvalidArgument("Expected dimension in the range [", -x.rank(), ", ", x.rank(),
                           "), but got ", axis);
  }
  if (axis < 0) axis += x.rank();
  PartialShape out = PartialShape::Scalar();
  for (int d = 0; d < x.rank(); ++d) {
    if (d != axis) out.AddDim(x.dim(d));
  }
  c->set_output(0, std::move(out));
  return absl::OkStatus();
}

// The position of the first value that is better than all before it; NaN never is.
template <bool kMax, typename T>
int64_t FindBest(const T* x, int64_t n, int64_t stride) {
  using C = std::conditional_t<sizeof(T) == 2 && !std::is_integral_v<T>, float, T>;
  using Limits = std::numeric_limits<C>;
  C best = kMax ? (Limits::has_infinity ? -Limits::infinity() : Limits::lowest())
                : (Limits::has_infinity ? Limits::infinity() : Limits::max());
  int64_t at = 0;
  for (int64_t i = 0; i < n; ++i) {
    const C v = static_cast<C>(x[i * stride]);
    if (kMax ? v > best : v < best) {
      best = v;
      at = i;
    }
  }
  return at;
}

absl::Status FindSizes(const KernelContext& c, gpu::ArgSizes* sizes) {
  const Tensor& x = c.input(0);
  if (c.input(1).num_elements() != 1) {
    return InvalidArgument("dim must be a scalar, but received tensor of shape: ",
                           c.input(1).shape().DebugString());
  }
  FERRY_ASSIGN_OR_RETURN(int64_t axis, c.InputAsInt(1));
  if (axis < -x.rank() || axis >= x.rank()) {
    return InvalidArgument("Expected dimension in the range [", -x.rank(), ", ", x.rank(),
                           "), but got ", axis);
  }
  if (axis < 0) axis += x.rank();
  sizes->reduced = x.dim(static_cast<int>(axis));
  if (sizes->reduced == 0) {
    return InvalidArgument("Reduction axis ", axis, " is empty in shape ", x.shape().DebugString());
  }
  for (int d = 0; d < x.rank(); ++d) {
    if (d != axis) sizes->out.push_back(x.dim(d));
    if (d < axis) sizes->before *= x.dim(d);
    if (d > axis) sizes->after *= x.dim(d);
  }
  return absl::OkStatus();
}

template <typename T, bool kMax>
class ArgKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    const Tensor& x = c->input(0);
    gpu::ArgSizes sizes;
    FERRY_RETURN_IF_ERROR(FindSizes(*c, &sizes));
    FERRY_ASSIGN_OR_RETURN(const TensorShape shape, TensorShape::Make(sizes.out));
    FERRY_ASSIGN_OR_RETURN(Tensor * out, c->AllocateOutput(0, shape));
    const int64_t n = sizes.reduced, after = sizes.after;
    switch (c->output_type(0)) {
      case DType::kInt64:
        return Find<int64_t>(c, x, n, after, out);
      case DType::kInt32:
        return Find<int32_t>(c, x, n, after, out);
      case DType::kInt16:
        return Find<int16_t>(c, x, n, after, out);
      default:
        return Find<uint16_t>(c, x, n, after, out);
    }
  }

 private:
  template <typename Index>
  static absl::Status Find(KernelContext* c, const Tensor& x, int64_t n, int64_t after,
                           Tensor* out) {
    const T* const in = x.data<T>();
    Index* const to = out->data<Index>();
    c->ParallelFor(out->num_elements(), std::max<int64_t>(1, (1 << 14) / n),
                   [&](int64_t begin, int64_t end) {
                     for (int64_t i = begin; i < end; ++i) {
                       to[i] = static_cast<Index>(
                           FindBest<kMax>(in + i / after * n * after + i % after, n, after));
                     }
                   });
    return absl::OkStatus();
  }
};

template <typename T>
using ArgMaxKernel = ArgKernel<T, true>;
template <typename T>
using ArgMinKernel = ArgKernel<T, false>;

FERRY_OP("ArgMax")
    .Input("input: T")
    .Input("dimension: Tidx")
    .Output("output: output_type")
    .Attr(
        "T: {float, double, int32, uint8, int16, int8, int64, bfloat16, uint16, half, uint32, "
        "uint64, qint8, quint8, qint32, qint16, quint16, bool}")
    .Attr("Tidx: {int16, int32, int64} = DT_INT32")
    .Attr("output_type: {int16, uint16, int32, int64} = DT_INT64")
    .Shape(ArgShape)
    .NotDifferentiable();

FERRY_OP("ArgMin")
    .Input("input: T")
    .Input("dimension: Tidx")
    .Output("output: output_type")
    .Attr(
        "T: {float, double, int32, uint8, int16, int8, int64, bfloat16, uint16, half, uint32, "
        "uint64, qint8, quint8, qint32, qint16, quint16, bool}")
    .Attr("Tidx: {int32, int64} = DT_INT32")
    .Attr("output_type: {int32, int64} = DT_INT64")
    .Shape(ArgShape)
    .NotDifferentiable();

using ArgTypes = Join<NumberTypes, Types<bool>>;
const bool kRegistered = RegisterCpu<ArgMaxKernel>(ArgTypes(), "ArgMax", "T", {}, {"dimension"}) &&
                         RegisterCpu<ArgMinKernel>(ArgTypes(), "ArgMin", "T", {}, {"dimension"});

}  // namespace

// For arg_reduce.cu.
bool gpu::CheckArgReduce(Call* c, ArgSizes* out) {
  return HostSide::Note(c, FindSizes(*HostSide::Context(c), out));
}

}  // namespace ferry
