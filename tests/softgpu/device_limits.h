// What the software GPU says of itself: the limits of a middling modern GPU.
#ifndef FERRY_TESTS_SOFTGPU_DEVICE_LIMITS_H_
#define FERRY_TESTS_SOFTGPU_DEVICE_LIMITS_H_

namespace softgpu {

constexpr char kDeviceName[] = "Software GPU";
constexpr int kCapabilityMajor = 9;
constexpr int kCapabilityMinor = 0;
constexpr int kMultiprocessors = 60;
constexpr int kMaxThreadsPerBlock = 1024;
constexpr int kMaxBlockZ = 64;
constexpr int kMaxGridX = 0x7fffffff;
constexpr int kMaxGridYZ = 0xffff;
constexpr int kMaxThreadsPerMultiprocessor = 1536;
constexpr int kMaxBlocksPerMultiprocessor = 24;
constexpr int kSharedBytesPerBlock = 48 << 10;
constexpr int kSharedBytesPerBlockOptIn = 99 << 10;
constexpr int kSharedBytesPerMultiprocessor = 100 << 10;

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_DEVICE_LIMITS_H_
