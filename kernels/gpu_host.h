// For .cc files that check arguments on behalf of the GPU kernels in the .cu files beside them, so
// that each check is written once, for every device. Either the .cu file has the kernel and calls a
// check that is declared in gpu_checks.h, or the .cc file has it and enqueues what the .cu file put
// into a table (gpu_array.h).
#ifndef FERRY_KERNELS_GPU_HOST_H_
#define FERRY_KERNELS_GPU_HOST_H_

#include "absl/functional/function_ref.h"
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

// Makes the kernel's device the thread's current one and calls `launch`; the error that it noted
// with the call if it returns false. REQUIRES: c->gpu().
absl::Status LaunchOnGpu(KernelContext* c, absl::FunctionRef<bool(Call*)> launch);

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_HOST_H_
