// BroadcastTo, BroadcastArgs and BroadcastGradientArgs.
#include <algorithm>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "absl/strings/str_join.h"
#include "kernels/broadcast.h"
#include "kernels/elementwise.h"
#include "kernels/storage.h"
#include "runtime/graph/gradients.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

FERRY_OP("BroadcastTo")
    .Input("input: T")
    .Input("shape: Tidx")
    .Output("output: T")
    .Attr("T: type")
    .Attr("Tidx: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      FERRY_RETURN_IF_ERROR(c->WithRank(c->input(1), 1).status());
      FERRY_ASSIGN_OR_RETURN(PartialShape out, c->ValueAsShape(1));
      FERRY_RETURN_IF_ERROR(BroadcastShapes(c->input(0), out).status());
      c->set_output(0, out);
      return absl::OkStatus();
    })
    // y = x, repeated:  dx = dy summed over the repeated axes
    .Gradient([](GradientContext* c) -> absl::Status {
      c->set_input_grad(
          0,
          UnbroadcastGradients(c->scope(), c->input(0), c->output(0), c->grad(0), Output()).first);
      return c->scope().status();
    });

FERRY_OP("BroadcastGradientArgs")
    .Input("s0: T")
    .Input("s1: T")
    .Output("r0: T")
    .Output("r1: T")
    .Attr("T: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      for (int i = 0; i < 2; ++i) {
        FERRY_RETURN_IF_ERROR(c->WithRank(c->input(i), 1).status());
        c->set_output(i, PartialShape::UnknownOfRank(1));
      }
      return absl::OkStatus();
    })
    .NotDifferentiable();

FERRY_OP("BroadcastArgs")
    .Input("s0: T")
    .Input("s1: T")
    .Output("r0: T")
    .Attr("T: {int32, int64} = DT_INT32")
    .Shape([](InferenceContext* c) -> absl::Status {
      int64_t rank = 0;
      for (int i = 0; i < 2; ++i) {
        FERRY_ASSIGN_OR_RETURN(const PartialShape s, c->WithRank(c->input(i), 1));
        rank = rank < 0 || s.dim(0) < 0 ? PartialShape::kUnknown : std::max(rank, s.dim(0));
      }
      c->set_output(0, {rank});
      return absl::OkStatus();
    })
    .NotDifferentiable();

template <typename S>
class BroadcastToKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    const TensorShape& from = c->input(0).shape();
    FERRY_ASSIGN_OR_RETURN(TensorShape shape, c->InputAsShape(1));
    absl::StatusOr<TensorShape> fit = BroadcastShapes(from, shape);
    if (!fit.ok() || *fit != shape) {
      return InvalidArgument("Incompatible shapes: ", from.DebugString(), " vs. ",
                             shape.DebugString());
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, shape));
    const S* in = static_cast<const S*>(c->input(0).raw());
    S* out = static_cast<S*>(y->raw());
    const Broadcast walk(shape, {&from});
    const bool copies = walk.step(0) == 1;
    c->ParallelFor(shape.num_elements(), kCheapGrain, [&](int64_t begin, int64_t end) {
      walk.ForEachRun(begin, end, [&](int64_t at, const int64_t* first, int64_t n) {
        if (copies) {
          std::copy_n(in + first[0], n, out + at);
        } else {
          std::fill_n(out + at, n, in[first[0]]);
        }
      });
    });
    return absl::OkStatus();
  }
};

// The shape that two shapes broadcast to.
template <typename T>
class BroadcastArgsKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    TensorShape shape;
    for (int k = 0; k < 2; ++k) {
      if (c->input(k).rank() != 1) {
        return InvalidArgument("In[", k, "] must be a vector, found shape ",
                               c->input(k).shape().DebugString());
      }
      FERRY_ASSIGN_OR_RETURN(const TensorShape s, c->InputAsShape(k));
      FERRY_ASSIGN_OR_RETURN(shape, BroadcastShapes(shape, s));
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * r, c->AllocateOutput(0, TensorShape({shape.rank()})));
    std::copy(shape.dims().begin(), shape.dims().end(), r->data<T>());
    return absl::OkStatus();
  }
};

// The axes over which the gradient of each operand is summed: where it has no dimension, or one of
// size 1.
template <typename T>
class BroadcastGradientArgsKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    for (int k = 0; k < 2; ++k) {
      if (c->input(k).rank() != 1) {
        return InvalidArgument("a shape must be a vector, found shape ",
                               c->input(k).shape().DebugString());
      }
    }
    const absl::Span<const T> s[2] = {c->input(0).span<T>(), c->input(1).span<T>()};
    const int64_t rank = std::max(s[0].size(), s[1].size());
    absl::InlinedVector<T, 8> axes[2];
    for (int64_t d = 0; s[0] != s[1] && d < rank; ++d) {
      T size[2];
      for (int k = 0; k < 2; ++k) {
        const int64_t own = d - (rank - static_cast<int64_t>(s[k].size()));
        size[k] = own < 0 ? 1 : s[k][own];
      }
      if (size[0] != size[1] && size[0] != 1 && size[1] != 1) {
        return InvalidArgument("Incompatible shapes: [", absl::StrJoin(s[0], ","), "] vs. [",
                               absl::StrJoin(s[1], ","), "]");
      }
      for (int k = 0; k < 2; ++k) {
        if (size[k] == 1) axes[k].push_back(static_cast<T>(d));
      }
    }
    for (int k = 0; k < 2; ++k) {
      FERRY_ASSIGN_OR_RETURN(
          Tensor * r, c->AllocateOutput(k, TensorShape({static_cast<int64_t>(axes[k].size())})));
      std::copy(axes[k].begin(), axes[k].end(), r->data<T>());
    }
    return absl::OkStatus();
  }
};

// Shapes lie in host memory wherever the node is.
template <typename T>
bool RegisterBroadcastGradientArgs() {
  for (const DeviceType device : {DeviceType::kCpu, DeviceType::kGpu}) {
    KernelBuilder b("BroadcastGradientArgs");
    b.Device(device).Type<T>("T");
    for (const char* arg : {"s0", "s1", "r0", "r1"}) b.HostMemory(arg);
    b.Make<BroadcastGradientArgsKernel<T>>();
    const KernelBuilder::Registrar registrar(b);
  }
  return true;
}

const bool registered =
    RegisterByStorage<BroadcastToKernel>("BroadcastTo") &&
    RegisterBroadcastGradientArgs<int32_t>() && RegisterBroadcastGradientArgs<int64_t>() &&
    RegisterCpu<BroadcastArgsKernel>(Types<int32_t, int64_t>(), "BroadcastArgs");

}  // namespace
}  // namespace ferry
