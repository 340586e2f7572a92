// AddN, AccumulateNV2: the sum of any number of tensors of one shape.
#include <algorithm>
#include <string>
#include <vector>

#include "absl/container/inlined_vector.h"
#include "kernels/elementwise.h"
#include "runtime/graph/gradients.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

// y = x_0 + x_1 + …:  dx_i = dy
absl::Status AddNGradient(GradientContext* c) {
  for (int i = 0; i < c->node()->num_inputs(); ++i) c->set_input_grad(i, c->grad(0));
  return absl::OkStatus();
}

FERRY_OP("AddN")
    .Input("inputs: N * T")
    .Output("sum: T")
    .Attr("N: int >= 1")
    .Attr(
        "T: {float, double, int32, uint8, int16, int8, complex64, int64, qint8, quint8, qint32, "
        "bfloat16, qint16, quint16, uint16, complex128, half, uint32, uint64, variant}")
    .Commutative()
    .Aggregate()
    .Shape(MergedShape)
    .Gradient(AddNGradient);

FERRY_OP("AccumulateNV2")
    .Input("inputs: N * T")
    .Output("sum: T")
    .Attr("N: int >= 1")
    .Attr("T: numbertype")
    .Attr("shape: shape")
    .Commutative()
    .Aggregate()
    .Shape(MergedShape)
    .Gradient(AddNGradient);

// Sums block by block, from the first input to the last; 16-bit floats in float, rounded once. A
// block of the output, which may be the first input's memory, is written when all inputs' blocks
// have been read.
template <typename T>
class AddNKernel : public Kernel {
 public:
  absl::Status Init(const KernelConstruction& c) override {
    name_ = c.node_name();
    op_ = c.op();
    return absl::OkStatus();
  }

  absl::Status Compute(KernelContext* c) const override {
    const TensorShape& shape = c->input(0).shape();
    absl::InlinedVector<const T*, 8> in;
    for (int k = 0; k < c->num_inputs(); ++k) {
      if (c->input(k).shape() != shape) {
        return InvalidArgument("Inputs to operation ", name_, " of type ", op_,
                               " must have the same size and shape. Input 0: ", shape.DebugString(),
                               " != input ", k, ": ", c->input(k).shape().DebugString());
      }
      in.push_back(c->input(k).data<T>());
    }
    FERRY_ASSIGN_OR_RETURN(Tensor * sum, c->AllocateOutput(0, shape));
    T* out = sum->data<T>();
    const int64_t grain = std::max<int64_t>(kBlock, kCheapGrain / c->num_inputs());
    c->ParallelFor(shape.num_elements(), grain, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; i += kBlock) {
        SumBlock(in, i, std::min(kBlock, end - i), out);
      }
    });
    return absl::OkStatus();
  }

 private:
  static constexpr int64_t kBlock = 2048;
  using Sum = Wide<T>;

  static Sum Plus(Sum a, Sum b) {
    return static_cast<Sum>(static_cast<Wrap<Sum>>(a) + static_cast<Wrap<Sum>>(b));
  }

  static void SumBlock(absl::Span<const T* const> in, int64_t at, int64_t n, T* out) {
    const T* first = in.front() + at;
    const T* last = in.back() + at;
    T* z = out + at;
    if (in.size() == 1) {
      if (z != first) std::copy_n(first, n, z);
      return;
    }
    if (in.size() == 2) {
      FERRY_INDEPENDENT
      for (int64_t i = 0; i < n; ++i) {
        z[i] = static_cast<T>(Plus(static_cast<Sum>(first[i]), static_cast<Sum>(last[i])));
      }
      return;
    }
    alignas(64) Sum sum[kBlock];
    for (int64_t i = 0; i < n; ++i) sum[i] = static_cast<Sum>(first[i]);
    for (size_t k = 1; k + 1 < in.size(); ++k) {
      const T* x = in[k] + at;
      for (int64_t i = 0; i < n; ++i) sum[i] = Plus(sum[i], static_cast<Sum>(x[i]));
    }
    FERRY_INDEPENDENT
    for (int64_t i = 0; i < n; ++i) {
      z[i] = static_cast<T>(Plus(sum[i], static_cast<Sum>(last[i])));
    }
  }

  std::string name_, op_;
};

const bool registered = RegisterCpu<AddNKernel>(NumberTypes(), "AddN", "T", {0}) &&
                        RegisterCpu<AddNKernel>(NumberTypes(), "AccumulateNV2", "T", {0});

}  // namespace
}  // namespace ferry
