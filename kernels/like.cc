// ZerosLike, OnesLike.
#include <algorithm>
#include <cstring>

#include "kernels/elementwise.h"
#include "runtime/op/op_def.h"

namespace ferry {
namespace {

FERRY_OP("ZerosLike")
    .Input("x: T")
    .Output("y: T")
    .Attr("T: type")
    .Shape(UnchangedShape)
    .NotDifferentiable();

FERRY_OP("OnesLike")
    .Input("x: T")
    .Output("y: T")
    .Attr(
        "T: {bfloat16, half, float, double, int8, uint8, int16, uint16, int32, uint32, int64, "
        "uint64, complex64, complex128, bool}")
    .Shape(UnchangedShape)
    .NotDifferentiable();

// All bits zero are 0, false and, as allocated, the empty string.
template <typename T>
class ZerosLikeKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, c->input(0).shape()));
    if constexpr (!std::is_same_v<T, std::string>) {
      T* out = y->data<T>();
      c->ParallelFor(y->num_elements(), kCheapGrain, [&](int64_t begin, int64_t end) {
        std::memset(static_cast<void*>(out + begin), 0,
                    static_cast<size_t>(end - begin) * sizeof(T));
      });
    }
    return absl::OkStatus();
  }
};

template <typename T>
class OnesLikeKernel : public Kernel {
 public:
  absl::Status Compute(KernelContext* c) const override {
    FERRY_ASSIGN_OR_RETURN(Tensor * y, c->AllocateOutput(0, c->input(0).shape()));
    T* out = y->data<T>();
    c->ParallelFor(y->num_elements(), kCheapGrain, [&](int64_t begin, int64_t end) {
      std::fill(out + begin, out + end, static_cast<T>(1));
    });
    return absl::OkStatus();
  }
};

using Plain = Join<NumberTypes, Types<bool>>;
const bool registered =
    RegisterCpu<ZerosLikeKernel>(Join<Plain, Types<std::string>>(), "ZerosLike", "T", {0}) &&
    RegisterCpu<OnesLikeKernel>(Plain(), "OnesLike", "T", {0});

}  // namespace
}  // namespace ferry
