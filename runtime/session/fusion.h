// Fusion: a tree of element-wise nodes as one kernel, which goes through the elements block by
// block, so that what lies between the nodes stays in the first cache.
//
// Each node's own loop computes, in the nodes' order, so results are those of the nodes, bit for
// bit.
#ifndef FERRY_RUNTIME_SESSION_FUSION_H_
#define FERRY_RUNTIME_SESSION_FUSION_H_

#include <vector>

#include "runtime/op/kernel.h"
#include "runtime/op/partial_shape.h"

namespace ferry {

// An operand: an input of the fused kernel, or the result of an op before.
struct FusedOperand {
  bool is_input = false;
  int index = 0;
};

struct FusedOp {
  ElementLoop loop;
  FusedOperand x, y;  // `y` for loops of two inputs.
};

class FusedKernel : public Kernel {
 public:
  static constexpr size_t kMaxOps = 16;

  // The last op's result is the output. REQUIRES: 1 to kMaxOps ops, all of one type.
  explicit FusedKernel(std::vector<FusedOp> ops);

  // Whether an input of shape `input` is one that makes for the fast way when the output has shape
  // `output`, as far as that can be told: it has the same shape, or one element, or that of the
  // output's last dimensions.
  static bool Fits(const PartialShape& input, const PartialShape& output);

  // Fast where each input is as Fits says; right for all that broadcast. InvalidArgument for those
  // that don't.
  absl::Status Compute(KernelContext* c) const override;

 private:
  absl::Status ComputeEach(KernelContext* c) const;

  const std::vector<FusedOp> ops_;
  size_t size_;  // Of an element.
  int64_t grain_;
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_SESSION_FUSION_H_
