// The runtime's calls for devices, errors and versions.
#include <cuda_runtime_api.h>

#include <cstdio>
#include <cstring>
#include <map>
#include <string>

#include "tests/softgpu/device_limits.h"
#include "tests/softgpu/runtime.h"

namespace softgpu {
namespace {

using Lock = std::unique_lock<std::mutex>;

struct ErrorText {
  const char* name;
  const char* text;
};

// The errors that this GPU makes of itself, and those one may want to see as a fault.
const std::map<int, ErrorText>& ErrorTexts() {
  static const auto* const texts = new std::map<int, ErrorText>{
#define ERROR(name, text) \
  {                       \
    name, { #name, text } \
  }
      ERROR(cudaSuccess, "no error"),
      ERROR(cudaErrorInvalidValue, "invalid argument"),
      ERROR(cudaErrorMemoryAllocation, "out of memory"),
      ERROR(cudaErrorInitializationError, "initialization error"),
      ERROR(cudaErrorInvalidConfiguration, "invalid configuration argument"),
      ERROR(cudaErrorInvalidSymbol, "invalid device symbol"),
      ERROR(cudaErrorInvalidMemcpyDirection, "invalid copy direction for memcpy"),
      ERROR(cudaErrorInsufficientDriver,
            "CUDA driver version is insufficient for CUDA runtime version"),
      ERROR(cudaErrorMissingConfiguration, "__global__ function call is not configured"),
      ERROR(cudaErrorInvalidDeviceFunction, "invalid device function"),
      ERROR(cudaErrorNoDevice, "no CUDA-capable device is detected"),
      ERROR(cudaErrorInvalidDevice, "invalid device ordinal"),
      ERROR(cudaErrorNoKernelImageForDevice,
            "no kernel image is available for execution on the device"),
      ERROR(cudaErrorECCUncorrectable, "uncorrectable ECC error encountered"),
      ERROR(cudaErrorInvalidResourceHandle, "invalid resource handle"),
      ERROR(cudaErrorIllegalState, "the operation cannot be performed in the present state"),
      ERROR(cudaErrorNotReady, "device not ready"),
      ERROR(cudaErrorIllegalAddress, "an illegal memory access was encountered"),
      ERROR(cudaErrorLaunchOutOfResources, "too many resources requested for launch"),
      ERROR(cudaErrorLaunchTimeout, "the launch timed out and was terminated"),
      ERROR(cudaErrorPeerAccessAlreadyEnabled, "peer access is already enabled"),
      ERROR(cudaErrorPeerAccessNotEnabled, "peer access has not been enabled"),
      ERROR(cudaErrorAssert, "device-side assert triggered"),
      ERROR(cudaErrorHostMemoryAlreadyRegistered,
            "part or all of the requested memory range is already mapped"),
      ERROR(cudaErrorHostMemoryNotRegistered,
            "pointer does not correspond to a registered memory region"),
      ERROR(cudaErrorMisalignedAddress, "misaligned address"),
      ERROR(cudaErrorLaunchFailure, "unspecified launch failure"),
      ERROR(cudaErrorNotPermitted, "operation not permitted"),
      ERROR(cudaErrorNotSupported, "operation not supported"),
      ERROR(cudaErrorStreamCaptureUnsupported, "operation not permitted when stream is capturing"),
      ERROR(cudaErrorStreamCaptureInvalidated,
            "operation failed due to a previous error during capture"),
      ERROR(cudaErrorStreamCaptureMerge,
            "operation would result in a merge of separate capture sequences"),
      ERROR(cudaErrorStreamCaptureUnmatched,
            "capture was not ended in the same stream as it began"),
      ERROR(cudaErrorStreamCaptureUnjoined, "capturing stream has unjoined work"),
      ERROR(cudaErrorStreamCaptureIsolation,
            "dependency created on uncaptured work in another stream"),
      ERROR(cudaErrorStreamCaptureImplicit,
            "operation would make the legacy stream depend on a capturing blocking stream"),
      ERROR(cudaErrorStreamCaptureWrongThread,
            "attempt to terminate a thread-local capture sequence from another thread"),
      ERROR(cudaErrorCapturedEvent,
            "operation not permitted on an event last recorded in a capturing stream"),
      ERROR(cudaErrorUnknown, "unknown error"),
#undef ERROR
  };
  return *texts;
}

// A device's attribute; false for those that aren't known here.
bool Attribute(const Runtime& runtime, cudaDeviceAttr attribute, int device, int* value) {
  const std::map<int, int> values = {
      {cudaDevAttrMaxThreadsPerBlock, kMaxThreadsPerBlock},
      {cudaDevAttrMaxBlockDimX, kMaxThreadsPerBlock},
      {cudaDevAttrMaxBlockDimY, kMaxThreadsPerBlock},
      {cudaDevAttrMaxBlockDimZ, kMaxBlockZ},
      {cudaDevAttrMaxGridDimX, kMaxGridX},
      {cudaDevAttrMaxGridDimY, kMaxGridYZ},
      {cudaDevAttrMaxGridDimZ, kMaxGridYZ},
      {cudaDevAttrMaxSharedMemoryPerBlock, kSharedBytesPerBlock},
      {cudaDevAttrMaxSharedMemoryPerBlockOptin, kSharedBytesPerBlockOptIn},
      {cudaDevAttrMaxSharedMemoryPerMultiprocessor, kSharedBytesPerMultiprocessor},
      {cudaDevAttrReservedSharedMemoryPerBlock, 1 << 10},
      {cudaDevAttrTotalConstantMemory, 64 << 10},
      {cudaDevAttrWarpSize, 32},
      {cudaDevAttrMaxRegistersPerBlock, 64 << 10},
      {cudaDevAttrMaxRegistersPerMultiprocessor, 64 << 10},
      {cudaDevAttrClockRate, 1500000},
      {cudaDevAttrMemoryClockRate, 1200000},
      {cudaDevAttrGlobalMemoryBusWidth, 3072},
      {cudaDevAttrMultiProcessorCount, kMultiprocessors},
      {cudaDevAttrKernelExecTimeout, 0},
      {cudaDevAttrIntegrated, 0},
      {cudaDevAttrCanMapHostMemory, 1},
      {cudaDevAttrComputeMode, cudaComputeModeDefault},
      {cudaDevAttrConcurrentKernels, 1},
      {cudaDevAttrEccEnabled, 1},
      {cudaDevAttrPciBusId, device + 1},
      {cudaDevAttrPciDeviceId, 0},
      {cudaDevAttrPciDomainId, 0},
      {cudaDevAttrL2CacheSize, 40 << 20},
      {cudaDevAttrMaxThreadsPerMultiProcessor, kMaxThreadsPerMultiprocessor},
      {cudaDevAttrMaxBlocksPerMultiprocessor, kMaxBlocksPerMultiprocessor},
      {cudaDevAttrAsyncEngineCount, 2},
      {cudaDevAttrUnifiedAddressing, 1},
      {cudaDevAttrComputeCapabilityMajor, kCapabilityMajor},
      {cudaDevAttrComputeCapabilityMinor, kCapabilityMinor},
      {cudaDevAttrStreamPrioritiesSupported, 1},
      {cudaDevAttrManagedMemory, 0},
      {cudaDevAttrPageableMemoryAccess, 0},
      {cudaDevAttrConcurrentManagedAccess, 0},
      {cudaDevAttrCanUseHostPointerForRegisteredMem, 1},
      {cudaDevAttrHostRegisterSupported, 1},
      {cudaDevAttrCooperativeLaunch, 0},
      {cudaDevAttrMemoryPoolsSupported, 0},
  };
  const auto it = values.find(attribute);
  if (it == values.end() || device >= runtime.settings.devices) return false;
  *value = it->second;
  return true;
}

}  // namespace

extern "C" {

cudaError_t cudaGetDeviceCount(int* count) {
  return Call("cudaGetDeviceCount", CallKind::kAnyDevice,
              [&](Runtime* runtime, ThreadState*, Lock*) {
                *count = runtime->settings.devices;
                return *count == 0 ? cudaErrorNoDevice : cudaSuccess;
              });
}

cudaError_t cudaSetDevice(int device) {
  return Call("cudaSetDevice", CallKind::kAnyDevice,
              [&](Runtime* runtime, ThreadState* thread, Lock*) {
                if (device < 0 || device >= runtime->settings.devices)
                  return cudaErrorInvalidDevice;
                thread->device = device;
                return cudaSuccess;
              });
}

cudaError_t cudaGetDevice(int* device) {
  return Call("cudaGetDevice", CallKind::kAnyDevice, [&](Runtime*, ThreadState* thread, Lock*) {
    *device = thread->device;
    return cudaSuccess;
  });
}

cudaError_t cudaGetDeviceProperties(cudaDeviceProp* properties, int device) {
  return Call(
      "cudaGetDeviceProperties", CallKind::kAnyDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
        if (device < 0 || device >= runtime->settings.devices) return cudaErrorInvalidDevice;
        std::memset(properties, 0, sizeof(*properties));
        const auto get = [&](cudaDeviceAttr attribute) {
          int value = 0;
          Attribute(*runtime, attribute, device, &value);
          return value;
        };
        std::snprintf(properties->name, sizeof(properties->name), "%s", kDeviceName);
        properties->totalGlobalMem = runtime->settings.memory_bytes;
        properties->sharedMemPerBlock = kSharedBytesPerBlock;
        properties->regsPerBlock = get(cudaDevAttrMaxRegistersPerBlock);
        properties->warpSize = 32;
        properties->memPitch = 0x7fffffff;
        properties->maxThreadsPerBlock = kMaxThreadsPerBlock;
        properties->maxThreadsDim[0] = properties->maxThreadsDim[1] = kMaxThreadsPerBlock;
        properties->maxThreadsDim[2] = kMaxBlockZ;
        properties->maxGridSize[0] = kMaxGridX;
        properties->maxGridSize[1] = properties->maxGridSize[2] = kMaxGridYZ;
        properties->totalConstMem = get(cudaDevAttrTotalConstantMemory);
        properties->major = kCapabilityMajor;
        properties->minor = kCapabilityMinor;
        properties->textureAlignment = 512;
        properties->multiProcessorCount = kMultiprocessors;
        properties->canMapHostMemory = 1;
        properties->concurrentKernels = 1;
        properties->ECCEnabled = 1;
        properties->pciBusID = device + 1;
        properties->asyncEngineCount = 2;
        properties->unifiedAddressing = 1;
        properties->memoryBusWidth = get(cudaDevAttrGlobalMemoryBusWidth);
        properties->l2CacheSize = get(cudaDevAttrL2CacheSize);
        properties->maxThreadsPerMultiProcessor = kMaxThreadsPerMultiprocessor;
        properties->streamPrioritiesSupported = 1;
        properties->sharedMemPerMultiprocessor = kSharedBytesPerMultiprocessor;
        properties->regsPerMultiprocessor = get(cudaDevAttrMaxRegistersPerMultiprocessor);
        properties->canUseHostPointerForRegisteredMem = 1;
        properties->sharedMemPerBlockOptin = kSharedBytesPerBlockOptIn;
        properties->maxBlocksPerMultiProcessor = kMaxBlocksPerMultiprocessor;
        properties->reservedSharedMemPerBlock = get(cudaDevAttrReservedSharedMemoryPerBlock);
        properties->hostRegisterSupported = 1;
        return cudaSuccess;
      });
}

cudaError_t cudaDeviceGetAttribute(int* value, cudaDeviceAttr attribute, int device) {
  return Call(
      "cudaDeviceGetAttribute", CallKind::kAnyDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
        if (device < 0 || device >= runtime->settings.devices) return cudaErrorInvalidDevice;
        if (Attribute(*runtime, attribute, device, value)) return cudaSuccess;
        return runtime->Refuse("cudaDeviceGetAttribute of number " + std::to_string(attribute));
      });
}

cudaError_t cudaDeviceGetPCIBusId(char* text, int length, int device) {
  return Call("cudaDeviceGetPCIBusId", CallKind::kAnyDevice,
              [&](Runtime* runtime, ThreadState*, Lock*) {
                if (device < 0 || device >= runtime->settings.devices)
                  return cudaErrorInvalidDevice;
                std::snprintf(text, length, "0000:%02x:00.0", device + 1);
                return cudaSuccess;
              });
}

cudaError_t cudaDeviceGetStreamPriorityRange(int* least, int* greatest) {
  return Call("cudaDeviceGetStreamPriorityRange", CallKind::kDevice,
              [&](Runtime*, ThreadState*, Lock*) {
                if (least != nullptr) *least = 0;
                if (greatest != nullptr) *greatest = -5;
                return cudaSuccess;
              });
}

cudaError_t cudaDeviceSynchronize() {
  return Call("cudaDeviceSynchronize", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState* thread, Lock* lock) {
                const cudaError_t error = runtime->CheckUnsafeInCapture();
                return error != cudaSuccess ? error : runtime->WaitAll(lock, thread->device);
              });
}

// Releases all that the device has, and makes it good again.
cudaError_t cudaDeviceReset() {
  return Call(
      "cudaDeviceReset", CallKind::kAnyDevice, [&](Runtime* runtime, ThreadState* thread, Lock*) {
        const int device = thread->device;
        runtime->queues.Drop(device);
        for (const Memory::Allocation& allocation : runtime->memory.Live()) {
          if (allocation.device == device) runtime->memory.Free(allocation.address);
        }
        for (const auto& [handle, stream] : runtime->streams.objects()) {
          if (stream->device == device) runtime->queues.Destroy(stream->queue);
        }
        const auto of_device = [device](const auto& object) { return object.device == device; };
        runtime->streams.RemoveIf(of_device);
        runtime->events.RemoveIf(of_device);
        runtime->devices[device].lost = cudaSuccess;
        return cudaSuccess;
      });
}

cudaError_t cudaDeviceCanAccessPeer(int* can, int device, int peer) {
  return Call("cudaDeviceCanAccessPeer", CallKind::kAnyDevice,
              [&](Runtime* runtime, ThreadState*, Lock*) {
                const int devices = runtime->settings.devices;
                if (device < 0 || device >= devices || peer < 0 || peer >= devices) {
                  return cudaErrorInvalidDevice;
                }
                *can = device != peer;
                return cudaSuccess;
              });
}

cudaError_t cudaDeviceEnablePeerAccess(int peer, unsigned flags) {
  return Call("cudaDeviceEnablePeerAccess", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState* thread, Lock*) {
                if (peer < 0 || peer >= runtime->settings.devices || peer == thread->device) {
                  return cudaErrorInvalidDevice;
                }
                if (flags != 0) return cudaErrorInvalidValue;
                if (!runtime->devices[thread->device].peers.insert(peer).second) {
                  return cudaErrorPeerAccessAlreadyEnabled;
                }
                runtime->memory.EnablePeer(thread->device, peer);
                return cudaSuccess;
              });
}

cudaError_t cudaRuntimeGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaDriverGetVersion(int* version) {
  *version = CUDART_VERSION;
  return cudaSuccess;
}

cudaError_t cudaGetLastError() {
  return Call(
      "cudaGetLastError", CallKind::kPlain, [&](Runtime* runtime, ThreadState* thread, Lock*) {
        cudaError_t error = thread->last_error;
        thread->last_error = cudaSuccess;
        if (!runtime->devices.empty() && runtime->devices[thread->device].lost != cudaSuccess) {
          error = runtime->devices[thread->device].lost;
        }
        return error;
      });
}

cudaError_t cudaPeekAtLastError() {
  return Call(
      "cudaPeekAtLastError", CallKind::kPlain, [&](Runtime* runtime, ThreadState* thread, Lock*) {
        if (!runtime->devices.empty() && runtime->devices[thread->device].lost != cudaSuccess) {
          return runtime->devices[thread->device].lost;
        }
        return thread->last_error;
      });
}

const char* cudaGetErrorName(cudaError_t error) {
  const auto it = ErrorTexts().find(error);
  return it == ErrorTexts().end() ? "unrecognized error code" : it->second.name;
}

const char* cudaGetErrorString(cudaError_t error) {
  const auto it = ErrorTexts().find(error);
  return it == ErrorTexts().end() ? "unrecognized error code" : it->second.text;
}

cudaError_t cudaProfilerStart() { return cudaSuccess; }
cudaError_t cudaProfilerStop() { return cudaSuccess; }

}  // extern "C"
}  // namespace softgpu
