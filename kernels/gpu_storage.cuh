// Elements by their width alone, for kernels that only move them.
#ifndef FERRY_KERNELS_GPU_STORAGE_CUH_
#define FERRY_KERNELS_GPU_STORAGE_CUH_

#include "kernels/gpu.cuh"

namespace ferry {
namespace gpu {

// Calls fn(T*) (a null pointer, for its type) with a T of 1, 2, 4, 8 or 16 bytes.
template <typename Fn>
void WithElement(int width, Fn fn) {
  switch (width) {
    case 1:
      return fn(static_cast<uint8_t*>(nullptr));
    case 2:
      return fn(static_cast<uint16_t*>(nullptr));
    case 4:
      return fn(static_cast<uint32_t*>(nullptr));
    case 8:
      return fn(static_cast<uint2*>(nullptr));
    default:
      return fn(static_cast<uint4*>(nullptr));
  }
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_STORAGE_CUH_
