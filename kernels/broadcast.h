// Broadcasting: how up to three operands are read while an output is written in row-major order.
//
// Neighbouring dimensions along which the same operands are broadcast are one, so that [8,4,5] with
// [4,5] is 8 runs of 20 elements. Within a run an operand advances by one element a step, or stays.
#ifndef FERRY_KERNELS_BROADCAST_H_
#define FERRY_KERNELS_BROADCAST_H_

#include <cstdint>

#include "absl/container/inlined_vector.h"
#include "absl/functional/function_ref.h"
#include "absl/types/span.h"
#include "runtime/tensor/shape.h"

namespace ferry {

// Immutable, so thread-safe.
class Broadcast {
 public:
  static constexpr int kMaxOperands = 3;

  // REQUIRES: at most kMaxOperands, each of which broadcasts to `out` by NumPy's rules.
  Broadcast(const TensorShape& out, absl::Span<const TensorShape* const> operands);

  // Whether operand k advances within a run: its step, 0 or 1.
  int step(int k) const { return static_cast<int>(groups_.front().stride[k]); }

  // Cuts the output's elements [begin, end) into runs, in order; for each calls
  // fn(position in the output, first element in each operand, length).
  using RunFn = absl::FunctionRef<void(int64_t at, const int64_t* from, int64_t n)>;
  void ForEachRun(int64_t begin, int64_t end, RunFn fn) const;

 private:
  struct Group {
    int64_t size;
    int64_t stride[kMaxOperands];  // In elements; 0 where the operand is broadcast.
  };
  absl::InlinedVector<Group, 4> groups_;  // Innermost first; never empty.
  int operands_;
};

}  // namespace ferry

#endif  // FERRY_KERNELS_BROADCAST_H_
