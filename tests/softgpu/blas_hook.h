// What libcublas' stand-in asks of libcudart's: to queue its work and to check its accesses.
//
// They are two shared libraries, as NVIDIA's are; this is all that they share.
#ifndef FERRY_TESTS_SOFTGPU_BLAS_HOOK_H_
#define FERRY_TESTS_SOFTGPU_BLAS_HOOK_H_

#include <driver_types.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>

namespace softgpu {

// Checked access to device memory while a piece of work runs.
class DeviceAccess {
 public:
  // The bytes of `count` runs of `bytes` each, `pitch` bytes from one to the next, or null after a
  // check failed (then give up).
  const void* Read(const void* device, size_t bytes, size_t count = 1, size_t pitch = 0) {
    return Access(device, bytes, count, pitch, /*reads=*/true, /*writes=*/false);
  }
  void* Write(void* device, size_t bytes, size_t count, size_t pitch, bool reads_before) {
    return Access(device, bytes, count, pitch, reads_before, /*writes=*/true);
  }

 protected:
  ~DeviceAccess() = default;
  virtual void* Access(const void* device, size_t bytes, size_t count, size_t pitch, bool reads,
                       bool writes) = 0;
};

struct BlasWork {
  std::string name;       // For reports: "cublasSgemm_v2 of 3 x 5 x 4".
  double tflop = 0;       // 1e12 operations,
  int element_bytes = 4;  // on elements of this size,
  uint64_t bytes = 0;     // and the memory that they touch.
  std::function<void(DeviceAccess* access)> run;
};

}  // namespace softgpu

extern "C" {

// Queues it like a kernel on a stream of the thread's device.
cudaError_t __cudaSoftgpuBlas(cudaStream_t stream, const softgpu::BlasWork& work);
// To be called first in every call: counts it, and says what it has to fail with.
cudaError_t __cudaSoftgpuBlasCall(const char* function);
// Handles that were made (1) or destroyed (-1), for the report on what wasn't released.
void __cudaSoftgpuBlasHandles(int change);
// Tells of something that isn't supported.
void __cudaSoftgpuRefuse(const char* what);

}  // extern "C"

#endif  // FERRY_TESTS_SOFTGPU_BLAS_HOOK_H_
