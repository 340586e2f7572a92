// What kernels on images share in their indexing.
#ifndef FERRY_KERNELS_GPU_WINDOW_CUH_
#define FERRY_KERNELS_GPU_WINDOW_CUH_

#include "kernels/gpu.cuh"
#include "kernels/window.h"

namespace ferry {
namespace gpu {

// a / b, neither negative. Most fit 32 bits, for which a GPU divides several times faster.
__device__ inline int64_t Divide(int64_t a, int64_t b) {
  if (((a | b) >> 32) == 0) return static_cast<uint32_t>(a) / static_cast<uint32_t>(b);
  return a / b;
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_WINDOW_CUH_
