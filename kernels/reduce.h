// Reductions over any set of dimensions, for the kernels that need them.
#ifndef FERRY_KERNELS_REDUCE_H_
#define FERRY_KERNELS_REDUCE_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "runtime/op/kernel.h"

namespace ferry {

enum class Reduction { kSum, kMean, kProd, kMax, kMin, kAll, kAny };

// Reduces `in`, dense with these sizes, over the dimensions whose `reduced` is true (as many as
// sizes), into `out`, which has the elements of the others and doesn't overlap `in`.
//
// half and bfloat16 are reduced as float, integers as 64-bit numbers (sums and products wrap
// around), and rounded or cut to size once at the end. Max and Min of a NaN are NaN. Over no
// elements: 0, 1, the least or greatest value, true, false; the mean is NaN, or 0 of integers.
// The order of additions depends on sizes alone.
//
// kAll and kAny serve bool, the others the numbers. Uses the context's scratch memory.
template <typename T>
absl::Status Reduce(KernelContext* c, Reduction kind, absl::Span<const int64_t> sizes,
                    absl::Span<const bool> reduced, const T* in, T* out);

}  // namespace ferry

#endif  // FERRY_KERNELS_REDUCE_H_
