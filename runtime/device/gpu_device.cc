// What all GPU platforms share: see gpu_device.h.
#include "runtime/device/gpu_device.h"

#include "runtime/base/status.h"

namespace ferry {

thread_local const std::string* MemoryTag::current_ = nullptr;

GpuEvent::~GpuEvent() {
  if (handle_) device_->ReleaseEvent(handle_);
}

namespace {
GpuPlatform* platform = nullptr;
}  // namespace

void RegisterGpuPlatform(const GpuPlatform& p) { platform = new GpuPlatform(p); }

absl::StatusOr<std::vector<GpuDevice*>> GpuDevices() {
  if (!platform) {
    return Unavailable("no GPU can be used: this program was built without the CUDA toolkit; "
                       "install the toolkit (nvcc) and build again");
  }
  return platform->devices();
}

Allocator* PinnedAllocator() {
  if (!platform || !platform->devices().ok()) return nullptr;
  return platform->pinned();
}

}  // namespace ferry
