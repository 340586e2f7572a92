// For .cc files that check arguments on behalf of the GPU kernels in the .cu files beside them, so
// that each check is written once, for every device. The function that a .cu file calls is declared
// in gpu_checks.h.
#ifndef FERRY_KERNELS_GPU_HOST_H_
#define FERRY_KERNELS_GPU_HOST_H_

#include "absl/status/status.h"
#include "kernels/gpu.h"
#include "runtime/op/kernel.h"

namespace ferry {
namespace gpu {

struct HostSide {
  static KernelContext* Context(const Call* c);
  // Keeps the call's first error; whether `status` is OK.
  static bool Note(Call* c, absl::Status status);
};

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_HOST_H_
