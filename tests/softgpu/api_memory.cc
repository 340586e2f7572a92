// The runtime's calls for memory: allocation, pinned host memory, copies, fills.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/softgpu/runtime.h"

namespace softgpu {
namespace {

using Lock = std::unique_lock<std::mutex>;

uint64_t Address(const void* pointer) { return reinterpret_cast<uint64_t>(pointer); }

double Microseconds(uint64_t bytes, double gbs) { return bytes / (gbs * 1e3); }

// Where one side of a copy lies: pageable and pinned host memory, or a device (its number).
constexpr int kPageable = -2;
constexpr int kPinned = -1;
int Place(const Runtime& runtime, const void* pointer) {
  Memory::Allocation allocation;
  if (runtime.memory.Find(Address(pointer), &allocation)) {
    return allocation.device == Memory::kHost ? kPinned : allocation.device;
  }
  const int device = runtime.memory.DeviceOf(Address(pointer));
  return device == Memory::kHost ? kPageable : device;
}

std::string PlaceName(int place) {
  if (place == kPageable) return "pageable host memory";
  return place == kPinned ? "pinned host memory" : "device " + std::to_string(place);
}

bool KindFits(cudaMemcpyKind kind, int to, int from) {
  switch (kind) {
    case cudaMemcpyHostToHost:
      return to < 0 && from < 0;
    case cudaMemcpyHostToDevice:
      return to >= 0 && from < 0;
    case cudaMemcpyDeviceToHost:
      return to < 0 && from >= 0;
    case cudaMemcpyDeviceToDevice:
      return to >= 0 && from >= 0;
    default:
      return kind == cudaMemcpyDefault;
  }
}

struct CopyCall {
  const char* function;
  void* to;
  const void* from;
  size_t bytes;
  cudaMemcpyKind kind;
  bool async;
};

// The copy's work but for what it does.
Work DescribeCopy(const Runtime& runtime, const CopyCall& call, int to, int from, double* us) {
  const DeviceModel& model = runtime.settings.model;
  Work work;
  work.bytes = call.bytes;
  work.name = std::string(call.function) + " of " + std::to_string(call.bytes) + " bytes from " +
              PlaceName(from) + " to " + PlaceName(to);
  if (to < 0 && from < 0) {
    work.kind = "h2h";
    work.device = CurrentThread().device;
    work.engine = Engine::kHost;
    *us = Microseconds(call.bytes, model.pageable_gbs);
  } else if (from < 0) {
    work.kind = "h2d";
    work.device = to;
    work.engine = Engine::kToDevice;
    *us = model.copy_latency_us + Microseconds(call.bytes, model.h2d_gbs);
  } else if (to < 0) {
    work.kind = "d2h";
    work.device = from;
    work.engine = Engine::kToHost;
    *us = model.copy_latency_us +
          Microseconds(call.bytes, to == kPinned ? model.d2h_gbs : model.pageable_gbs);
  } else if (to == from) {
    work.kind = "d2d";
    work.device = to;
    *us = model.kernel_latency_us + Microseconds(2 * call.bytes, model.memory_gbs);
  } else {
    work.kind = "peer";
    work.device = from;
    work.engine = Engine::kToHost;
    *us = model.copy_latency_us + Microseconds(call.bytes, model.peer_gbs);
  }
  if (to == kPinned) work.pinned_address = Address(call.to);
  if (from == kPinned) work.pinned_address = Address(call.from);
  return work;
}

cudaError_t Copy(Runtime* runtime, Lock* lock, Stream* stream, const CopyCall& call) {
  if (call.bytes == 0) return cudaSuccess;
  if (call.to == nullptr || call.from == nullptr) return cudaErrorInvalidValue;
  const int to = Place(*runtime, call.to);
  const int from = Place(*runtime, call.from);
  if (!KindFits(call.kind, to, from)) {
    runtime->Tell(std::string(call.function) + ": the copy is said to be of kind " +
                  std::to_string(call.kind) + ", but goes from " + PlaceName(from) + " to " +
                  PlaceName(to));
    return cudaErrorInvalidValue;
  }
  if (stream->capture != nullptr) {
    if (!call.async) return runtime->BreakCapture(stream, cudaErrorStreamCaptureUnsupported);
    if (to == kPageable || from == kPageable) {
      return runtime->Refuse(std::string(call.function) +
                             " of pageable host memory in a captured graph");
    }
  }

  double us;
  auto work = std::make_shared<Work>(DescribeCopy(*runtime, call, to, from, &us));
  // The host's bytes are read now where the memory is pageable, but when the queue runs where it
  // is pinned.
  std::shared_ptr<std::vector<uint8_t>> staged;
  if (from == kPageable && to >= 0) {
    if (!call.async && stream->queue->last != nullptr) {
      const cudaError_t error = runtime->Wait(lock, stream->device, stream->queue->last);
      if (error != cudaSuccess) return error;
    }
    const uint8_t* bytes = static_cast<const uint8_t*>(call.from);
    staged = std::make_shared<std::vector<uint8_t>>(bytes, bytes + call.bytes);
    CurrentThread().clock += Microseconds(call.bytes, runtime->settings.model.pageable_gbs);
  }
  // What the copy will bring isn't there yet: a host that reads too early shall see rubbish, unless
  // work that waits still needs what is there.
  if (to == kPinned && from >= 0 && stream->capture == nullptr &&
      runtime->settings.order != Order::kEager &&
      !runtime->queues.UsesPinned(Address(call.to), call.bytes)) {
    Memory::Allocation allocation;
    runtime->memory.Find(Address(call.to), &allocation);
    const uint64_t left = allocation.address + allocation.bytes - Address(call.to);
    std::memset(call.to, Memory::kPoison, std::min<uint64_t>(call.bytes, left));
  }
  Memory* const memory = &runtime->memory;
  work->run = [memory, call, staged, us, name = work->name](const Actor& actor,
                                                            double* microseconds) {
    *microseconds = us;
    const void* from = staged != nullptr ? staged->data() : call.from;
    return memory->Copy(actor, Address(call.to), Address(from), call.bytes, name);
  };
  const cudaError_t error = runtime->Queue(stream, std::move(work));
  if (error != cudaSuccess || stream->capture != nullptr) return error;
  // A copy to pageable memory is over when the call is; without Async, others too, save those that
  // no host memory takes part in or whose host memory was read already.
  const bool staged_only = to >= 0 && (from == kPageable || from >= 0);
  if (to == kPageable || (!call.async && !staged_only)) {
    return runtime->Wait(lock, stream->device, stream->queue->last);
  }
  return cudaSuccess;
}

cudaError_t Fill(const char* function, void* to, int value, size_t bytes, cudaStream_t handle) {
  return Call(function, CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
    Stream* stream = runtime->FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    if (bytes == 0) return cudaSuccess;
    const int place = Place(*runtime, to);
    if (place < 0) {
      runtime->Tell(std::string(function) + " of " + PlaceName(place));
      return cudaErrorInvalidValue;
    }
    auto work = std::make_shared<Work>();
    work->kind = "fill";
    work->name = std::string(function) + " of " + std::to_string(bytes) + " bytes";
    work->device = place;
    work->bytes = bytes;
    work->run = [runtime, to, value, bytes, name = work->name](const Actor& actor, double* us) {
      const DeviceModel& model = runtime->settings.model;
      *us = model.kernel_latency_us + Microseconds(bytes, model.memory_gbs);
      return runtime->memory.Fill(actor, Address(to), value, bytes, name);
    };
    return runtime->Queue(stream, std::move(work));
  });
}

cudaError_t CopyCallOf(const CopyCall& call, cudaStream_t handle) {
  return Call(call.function, CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock* lock) {
    Stream* stream = runtime->FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    return Copy(runtime, lock, stream, call);
  });
}

cudaError_t AllocatePinned(void** pointer, size_t bytes, unsigned flags) {
  return Call("cudaHostAlloc", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState* thread, Lock*) {
                constexpr unsigned kKnown =
                    cudaHostAllocPortable | cudaHostAllocMapped | cudaHostAllocWriteCombined;
                if (flags & ~kKnown)
                  return runtime->Refuse("cudaHostAlloc with flags " + std::to_string(flags));
                const cudaError_t error = runtime->CheckUnsafeInCapture();
                if (error != cudaSuccess) return error;
                *pointer = nullptr;
                if (bytes == 0) return cudaSuccess;
                thread->clock += runtime->settings.model.pin_us;
                thread->clock += Microseconds(bytes, runtime->settings.model.pin_gbs);
                *pointer = runtime->memory.AllocatePinned(bytes);
                return *pointer == nullptr ? cudaErrorMemoryAllocation : cudaSuccess;
              });
}

// Where a symbol's bytes [offset, offset + count) lie on the thread's device.
cudaError_t FindSymbol(Runtime* runtime, const void* symbol, size_t count, size_t offset,
                       void** address) {
  uint64_t begin = 0;
  size_t bytes = 0;
  const cudaError_t error = runtime->FindVariable(symbol, &begin, &bytes);
  if (error != cudaSuccess) return error;
  if (offset > bytes || count > bytes - offset) return cudaErrorInvalidValue;
  *address = reinterpret_cast<void*>(begin + offset);
  return cudaSuccess;
}

cudaError_t CopyToSymbol(const char* function, const void* symbol, const void* from, size_t count,
                         size_t offset, cudaMemcpyKind kind, bool async, cudaStream_t handle) {
  return Call(function, CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock* lock) {
    Stream* stream = runtime->FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    void* to = nullptr;
    const cudaError_t error = FindSymbol(runtime, symbol, count, offset, &to);
    if (error != cudaSuccess) return error;
    return Copy(runtime, lock, stream, {function, to, from, count, kind, async});
  });
}

cudaError_t CopyFromSymbol(const char* function, void* to, const void* symbol, size_t count,
                           size_t offset, cudaMemcpyKind kind, bool async, cudaStream_t handle) {
  return Call(function, CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock* lock) {
    Stream* stream = runtime->FindStream(handle);
    if (stream == nullptr) return cudaErrorInvalidResourceHandle;
    void* from = nullptr;
    const cudaError_t error = FindSymbol(runtime, symbol, count, offset, &from);
    if (error != cudaSuccess) return error;
    return Copy(runtime, lock, stream, {function, to, from, count, kind, async});
  });
}

}  // namespace

extern "C" {

cudaError_t cudaMalloc(void** pointer, size_t bytes) {
  return Call("cudaMalloc", CallKind::kDevice, [&](Runtime* runtime, ThreadState* thread, Lock*) {
    const cudaError_t error = runtime->CheckUnsafeInCapture();
    if (error != cudaSuccess) return error;
    if (pointer == nullptr) return cudaErrorInvalidValue;
    *pointer = nullptr;
    if (bytes == 0) return cudaSuccess;
    thread->clock += runtime->settings.model.malloc_us;
    const uint64_t address = runtime->memory.Allocate(thread->device, bytes);
    *pointer = reinterpret_cast<void*>(address);
    return address == 0 ? cudaErrorMemoryAllocation : cudaSuccess;
  });
}

// As on a GPU, it waits for all the device's work first.
cudaError_t cudaFree(void* pointer) {
  return Call(
      "cudaFree", CallKind::kRelease, [&](Runtime* runtime, ThreadState* thread, Lock* lock) {
        if (pointer == nullptr) return cudaSuccess;
        const cudaError_t error = runtime->CheckUnsafeInCapture();
        if (error != cudaSuccess) return error;
        const int place = Place(*runtime, pointer);
        const cudaError_t lost = runtime->WaitAll(lock, place >= 0 ? place : thread->device);
        thread->clock += runtime->settings.model.malloc_us;
        if (place < 0 || !runtime->memory.Free(Address(pointer))) {
          runtime->Tell("cudaFree of " + runtime->memory.Describe(Address(pointer)) +
                        ", where no allocation begins that isn't freed");
          return cudaErrorInvalidValue;
        }
        return lost;
      });
}

cudaError_t cudaHostAlloc(void** pointer, size_t bytes, unsigned flags) {
  return AllocatePinned(pointer, bytes, flags);
}

cudaError_t cudaMallocHost(void** pointer, size_t bytes) {
  return AllocatePinned(pointer, bytes, cudaHostAllocDefault);
}

cudaError_t cudaFreeHost(void* pointer) {
  return Call("cudaFreeHost", CallKind::kRelease,
              [&](Runtime* runtime, ThreadState* thread, Lock* lock) {
                if (pointer == nullptr) return cudaSuccess;
                const cudaError_t error = runtime->CheckUnsafeInCapture();
                if (error != cudaSuccess) return error;
                const cudaError_t lost = runtime->WaitAll(lock, thread->device);
                if (!runtime->memory.FreePinned(pointer)) {
                  runtime->Tell("cudaFreeHost of " + runtime->memory.Describe(Address(pointer)) +
                                ", where no pinned memory begins that isn't freed");
                  return cudaErrorInvalidValue;
                }
                return lost;
              });
}

cudaError_t cudaHostRegister(void* pointer, size_t bytes, unsigned flags) {
  return Call("cudaHostRegister", CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
    constexpr unsigned kKnown =
        cudaHostRegisterPortable | cudaHostRegisterMapped | cudaHostRegisterReadOnly;
    if (flags & ~kKnown) {
      return runtime->Refuse("cudaHostRegister with flags " + std::to_string(flags));
    }
    const cudaError_t error = runtime->CheckUnsafeInCapture();
    if (error != cudaSuccess) return error;
    if (pointer == nullptr || bytes == 0) return cudaErrorInvalidValue;
    return runtime->memory.Register(pointer, bytes) ? cudaSuccess
                                                    : cudaErrorHostMemoryAlreadyRegistered;
  });
}

cudaError_t cudaHostUnregister(void* pointer) {
  return Call("cudaHostUnregister", CallKind::kRelease,
              [&](Runtime* runtime, ThreadState* thread, Lock* lock) {
                const cudaError_t lost = runtime->WaitAll(lock, thread->device);
                if (!runtime->memory.Unregister(pointer)) return cudaErrorHostMemoryNotRegistered;
                return lost;
              });
}

cudaError_t cudaHostGetDevicePointer(void** device, void* host, unsigned flags) {
  return Call("cudaHostGetDevicePointer", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState*, Lock*) {
                if (flags != 0 || Place(*runtime, host) != kPinned) return cudaErrorInvalidValue;
                *device = host;
                return cudaSuccess;
              });
}

cudaError_t cudaPointerGetAttributes(cudaPointerAttributes* attributes, const void* pointer) {
  return Call("cudaPointerGetAttributes", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState* thread, Lock*) {
                std::memset(attributes, 0, sizeof(*attributes));
                Memory::Allocation allocation;
                attributes->device = -2;
                attributes->type = cudaMemoryTypeUnregistered;
                void* const same = const_cast<void*>(pointer);
                attributes->hostPointer = same;
                if (runtime->memory.Find(Address(pointer), &allocation)) {
                  const bool host = allocation.device == Memory::kHost;
                  attributes->type = host ? cudaMemoryTypeHost : cudaMemoryTypeDevice;
                  attributes->device = host ? thread->device : allocation.device;
                  attributes->devicePointer = same;
                  attributes->hostPointer = host ? same : nullptr;
                }
                return cudaSuccess;
              });
}

cudaError_t cudaMemGetInfo(size_t* free, size_t* total) {
  return Call("cudaMemGetInfo", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState* thread, Lock*) {
                *total = runtime->settings.memory_bytes;
                *free = *total - std::min<size_t>(*total, runtime->memory.used(thread->device));
                return cudaSuccess;
              });
}

cudaError_t cudaMemcpy(void* to, const void* from, size_t bytes, cudaMemcpyKind kind) {
  return CopyCallOf({"cudaMemcpy", to, from, bytes, kind, false}, nullptr);
}

cudaError_t cudaMemcpyAsync(void* to, const void* from, size_t bytes, cudaMemcpyKind kind,
                            cudaStream_t stream) {
  return CopyCallOf({"cudaMemcpyAsync", to, from, bytes, kind, true}, stream);
}

cudaError_t cudaMemcpyPeer(void* to, int, const void* from, int, size_t bytes) {
  return CopyCallOf({"cudaMemcpyPeer", to, from, bytes, cudaMemcpyDeviceToDevice, false}, nullptr);
}

cudaError_t cudaMemcpyPeerAsync(void* to, int, const void* from, int, size_t bytes,
                                cudaStream_t stream) {
  return CopyCallOf({"cudaMemcpyPeerAsync", to, from, bytes, cudaMemcpyDeviceToDevice, true},
                    stream);
}

cudaError_t cudaMemcpyToSymbol(const void* symbol, const void* from, size_t count, size_t offset,
                               cudaMemcpyKind kind) {
  return CopyToSymbol("cudaMemcpyToSymbol", symbol, from, count, offset, kind, false, nullptr);
}

cudaError_t cudaMemcpyToSymbolAsync(const void* symbol, const void* from, size_t count,
                                    size_t offset, cudaMemcpyKind kind, cudaStream_t stream) {
  return CopyToSymbol("cudaMemcpyToSymbolAsync", symbol, from, count, offset, kind, true, stream);
}

cudaError_t cudaMemcpyFromSymbol(void* to, const void* symbol, size_t count, size_t offset,
                                 cudaMemcpyKind kind) {
  return CopyFromSymbol("cudaMemcpyFromSymbol", to, symbol, count, offset, kind, false, nullptr);
}

cudaError_t cudaMemcpyFromSymbolAsync(void* to, const void* symbol, size_t count, size_t offset,
                                      cudaMemcpyKind kind, cudaStream_t stream) {
  return CopyFromSymbol("cudaMemcpyFromSymbolAsync", to, symbol, count, offset, kind, true, stream);
}

cudaError_t cudaGetSymbolAddress(void** address, const void* symbol) {
  return Call("cudaGetSymbolAddress", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState*, Lock*) {
                return FindSymbol(runtime, symbol, 0, 0, address);
              });
}

cudaError_t cudaGetSymbolSize(size_t* bytes, const void* symbol) {
  return Call("cudaGetSymbolSize", CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
    uint64_t address = 0;
    return runtime->FindVariable(symbol, &address, bytes);
  });
}

cudaError_t cudaMemset(void* to, int value, size_t bytes) {
  return Fill("cudaMemset", to, value, bytes, nullptr);
}

cudaError_t cudaMemsetAsync(void* to, int value, size_t bytes, cudaStream_t stream) {
  return Fill("cudaMemsetAsync", to, value, bytes, stream);
}

}  // extern "C"
}  // namespace softgpu
