// Convolutions and their gradients on the CPU, for kernels that have checked their arguments.
#ifndef FERRY_KERNELS_CONV_LOOPS_H_
#define FERRY_KERNELS_CONV_LOOPS_H_

#include "absl/status/status.h"
#include "kernels/window.h"
#include "runtime/op/kernel.h"

namespace ferry {

// T: half, bfloat16 (computed as float, rounded once), float, double, int32_t (wraps around).
// Images lie as s.channels_first says, filters as [y, x, filter_depth, out_depth]; no tensor has
// zero elements. Work is split over the pool. Results of the first two don't depend on the number
// of threads, those of the third on sizes and that number. Uses the context's scratch memory: per
// thread a band of an image, and the filter once, or, of the third, once or more.
// ResourceExhausted where padding or dilation makes a band too large.

// y = x * filter.
template <typename T>
absl::Status Convolve(KernelContext* c, const ConvSizes& s, const T* x, const T* filter, T* y);
// dx from dy.
template <typename T>
absl::Status ConvolveBack(KernelContext* c, const ConvSizes& s, const T* filter, const T* dy,
                          T* dx);
// The filter's gradient from x and dy.
template <typename T>
absl::Status ConvolveFilter(KernelContext* c, const ConvSizes& s, const T* x, const T* dy,
                            T* dfilter);

}  // namespace ferry

#endif  // FERRY_KERNELS_CONV_LOOPS_H_
