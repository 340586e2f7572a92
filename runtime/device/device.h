// Device: where tensors lie and kernels run. The CPU is one; GPUs are in gpu_device.h.
#ifndef FERRY_RUNTIME_DEVICE_DEVICE_H_
#define FERRY_RUNTIME_DEVICE_DEVICE_H_

#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "runtime/tensor/buffer.h"

namespace ferry {

enum class DeviceType { kCpu, kGpu };
const char* DeviceTypeName(DeviceType t);  // "CPU", "GPU".

// What a device string asks for. TensorFlow's forms: "/job:localhost/replica:0/task:0/device:GPU:0"
// with any parts left out, and the short "/gpu:0", "/cpu:0".
struct DeviceSpec {
  bool has_type = false;
  DeviceType type = DeviceType::kCpu;
  int index = -1;  // -1: any.
  std::string job;
  int replica = -1, task = -1;
};
// InvalidArgument for a string of no such form.
absl::StatusOr<DeviceSpec> ParseDevice(absl::string_view device);
// "/job:localhost/replica:0/task:0/device:GPU:1".
std::string DeviceName(DeviceType type, int index);

}  // namespace ferry

#endif  // FERRY_RUNTIME_DEVICE_DEVICE_H_
