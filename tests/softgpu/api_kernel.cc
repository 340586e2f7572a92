// The runtime's calls for code: what programs register when they start, and launches.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "tests/softgpu/device_limits.h"
#include "tests/softgpu/runtime.h"
#include "tests/softgpu/text.h"

namespace softgpu {
namespace {

using Lock = std::unique_lock<std::mutex>;

Dim3 ToDim3(dim3 d) { return {d.x, d.y, d.z}; }

// The most dynamic shared memory that a block may have.
size_t DynamicLimit(const Function& function) {
  const int shared = static_cast<int>(function.kernel->static_shared_bytes);
  return std::max(0, function.dynamic_shared_limit < 0 ? kSharedBytesPerBlock - shared
                                                       : function.dynamic_shared_limit);
}

// Whether a GPU would run it.
bool CanLaunch(const Function& function, dim3 grid, dim3 block, size_t shared) {
  const uint64_t threads = ToDim3(block).count();
  return threads > 0 &&
         threads <= std::min<uint64_t>(kMaxThreadsPerBlock, function.kernel->max_threads) &&
         block.z <= kMaxBlockZ && ToDim3(grid).count() > 0 && grid.x <= kMaxGridX &&
         grid.y <= kMaxGridYZ && grid.z <= kMaxGridYZ && shared <= DynamicLimit(function);
}

cudaError_t LaunchKernel(const void* host, dim3 grid, dim3 block, void** arguments, size_t shared,
                         cudaStream_t handle) {
  return Call(
      "cudaLaunchKernel", CallKind::kDevice, [&](Runtime* runtime, ThreadState* thread, Lock*) {
        Stream* stream = runtime->FindStream(handle);
        if (stream == nullptr || stream->device != thread->device) {
          return cudaErrorInvalidResourceHandle;
        }
        cudaError_t error = cudaSuccess;
        const Function* function = runtime->FindFunction(host, &error);
        if (function == nullptr) return error;
        if (!CanLaunch(*function, grid, block, shared)) return cudaErrorInvalidConfiguration;
        const Kernel& kernel = *function->kernel;
        auto parameters = std::make_shared<std::vector<uint8_t>>(kernel.param_bytes);
        for (size_t i = 0; i < kernel.params.size(); ++i) {
          std::memcpy(parameters->data() + kernel.params[i].offset, arguments[i],
                      kernel.params[i].bytes);
        }
        Launch launch;
        launch.module = function->binary->module.get();
        launch.kernel = function->kernel;
        launch.grid = ToDim3(grid);
        launch.block = ToDim3(block);
        launch.dynamic_shared_bytes = static_cast<uint32_t>(shared);
        launch.device = thread->device;
        auto work = std::make_shared<Work>();
        work->kind = "kernel";
        work->name = Demangle(kernel.name);
        work->device = thread->device;
        work->run = [runtime, launch, parameters](const Actor& actor, double* us) {
          Launch now = launch;
          now.params = parameters->data();
          now.budget = runtime->settings.budget;
          Counts counts;
          Report report = Execute(&runtime->memory, actor, now, &counts);
          const DeviceModel& model = runtime->settings.model;
          *us = model.kernel_latency_us +
                std::max(counts.instructions / (model.ginstructions * 1e3),
                         (counts.bytes_read + counts.bytes_written) / (model.memory_gbs * 1e3));
          return report;
        };
        return runtime->Queue(stream, std::move(work));
      });
}

cudaError_t Occupancy(int* blocks, const void* host, int threads, size_t shared) {
  return Call("cudaOccupancyMaxActiveBlocksPerMultiprocessor", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState*, Lock*) {
                cudaError_t error = cudaSuccess;
                const Function* function = runtime->FindFunction(host, &error);
                if (function == nullptr) return error;
                if (threads <= 0) return cudaErrorInvalidValue;
                *blocks = 0;
                if (!CanLaunch(*function, dim3(1), dim3(threads), shared)) return cudaSuccess;
                *blocks = std::min(kMaxThreadsPerMultiprocessor / ((threads + 31) / 32 * 32),
                                   kMaxBlocksPerMultiprocessor);
                const size_t each = shared + function->kernel->static_shared_bytes + (1 << 10);
                *blocks = std::min(*blocks, static_cast<int>(kSharedBytesPerMultiprocessor / each));
                return cudaSuccess;
              });
}

}  // namespace

extern "C" {

void** __cudaRegisterFatBinary(void* wrapper) {
  Registry& registry = Registry::Get();
  std::lock_guard<std::mutex> lock(registry.mu);
  registry.binaries.push_back(std::make_unique<Binary>());
  registry.binaries.back()->wrapper = wrapper;
  return reinterpret_cast<void**>(registry.binaries.back().get());
}

void __cudaRegisterFatBinaryEnd(void**) {}

// Called when the process ends, or a library is unloaded: its kernels are no longer used.
void __cudaUnregisterFatBinary(void**) {}

void __cudaRegisterFunction(void** binary, const char* host, char*, const char* name, int, uint3*,
                            uint3*, dim3*, dim3*, int*) {
  Function function;
  function.binary = reinterpret_cast<Binary*>(binary);
  function.name = name;
  Registry& registry = Registry::Get();
  std::lock_guard<std::mutex> lock(registry.mu);
  registry.functions[host] = std::move(function);
}

void __cudaRegisterVar(void** binary, char* host, char*, const char* name, int, size_t bytes, int,
                       int) {
  Registry& registry = Registry::Get();
  std::lock_guard<std::mutex> lock(registry.mu);
  registry.variables[host] = {reinterpret_cast<Binary*>(binary), name, bytes};
}

void __cudaRegisterManagedVar(void**, void**, char*, const char* name, int, size_t, int, int) {
  Runtime& runtime = Runtime::Get();
  std::lock_guard<std::mutex> lock(runtime.mu);
  runtime.Refuse(std::string("__managed__ variable ") + name);
}

unsigned __cudaPushCallConfiguration(dim3 grid, dim3 block, size_t shared, CUstream_st* stream) {
  ThreadState& thread = CurrentThread();
  if (thread.num_configurations == ThreadState::kMostConfigurations) return 1;
  thread.configurations[thread.num_configurations++] = {grid, block, shared, stream};
  return 0;
}

cudaError_t __cudaPopCallConfiguration(dim3* grid, dim3* block, size_t* shared, void* stream) {
  ThreadState& thread = CurrentThread();
  if (thread.num_configurations == 0) return cudaErrorMissingConfiguration;
  const ThreadState::Configuration& last = thread.configurations[--thread.num_configurations];
  *grid = last.grid;
  *block = last.block;
  *shared = last.shared;
  *static_cast<cudaStream_t*>(stream) = last.stream;
  return cudaSuccess;
}

// The host's stand-in is the handle.
cudaError_t __cudaGetKernel(cudaKernel_t* kernel, const void* host) {
  *kernel = reinterpret_cast<cudaKernel_t>(const_cast<void*>(host));
  return cudaSuccess;
}

cudaError_t __cudaLaunchKernel(cudaKernel_t kernel, dim3 grid, dim3 block, void** arguments,
                               size_t shared, cudaStream_t stream) {
  return LaunchKernel(kernel, grid, block, arguments, shared, stream);
}

cudaError_t cudaLaunchKernel(const void* function, dim3 grid, dim3 block, void** arguments,
                             size_t shared, cudaStream_t stream) {
  return LaunchKernel(function, grid, block, arguments, shared, stream);
}

cudaError_t cudaFuncGetAttributes(cudaFuncAttributes* attributes, const void* host) {
  return Call("cudaFuncGetAttributes", CallKind::kDevice,
              [&](Runtime* runtime, ThreadState*, Lock*) {
                cudaError_t error = cudaSuccess;
                const Function* function = runtime->FindFunction(host, &error);
                if (function == nullptr) return error;
                std::memset(attributes, 0, sizeof(*attributes));
                attributes->sharedSizeBytes = function->kernel->static_shared_bytes;
                attributes->localSizeBytes = function->kernel->local_bytes;
                attributes->maxThreadsPerBlock = static_cast<int>(
                    std::min<uint32_t>(kMaxThreadsPerBlock, function->kernel->max_threads));
                attributes->numRegs =
                    static_cast<int>(std::min<uint32_t>(255, function->kernel->registers));
                attributes->ptxVersion = attributes->binaryVersion =
                    10 * kCapabilityMajor + kCapabilityMinor;
                attributes->maxDynamicSharedSizeBytes = static_cast<int>(DynamicLimit(*function));
                return cudaSuccess;
              });
}

cudaError_t cudaFuncSetAttribute(const void* host, cudaFuncAttribute attribute, int value) {
  return Call(
      "cudaFuncSetAttribute", CallKind::kDevice, [&](Runtime* runtime, ThreadState*, Lock*) {
        cudaError_t error = cudaSuccess;
        Function* function = runtime->FindFunction(host, &error);
        if (function == nullptr) return error;
        if (attribute == cudaFuncAttributePreferredSharedMemoryCarveout) return cudaSuccess;
        if (attribute != cudaFuncAttributeMaxDynamicSharedMemorySize) {
          return runtime->Refuse("cudaFuncSetAttribute of number " + std::to_string(attribute));
        }
        const int room =
            kSharedBytesPerBlockOptIn - static_cast<int>(function->kernel->static_shared_bytes);
        if (value < 0 || value > room) return cudaErrorInvalidValue;
        function->dynamic_shared_limit = value;
        return cudaSuccess;
      });
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessor(int* blocks, const void* function,
                                                          int threads, size_t shared) {
  return Occupancy(blocks, function, threads, shared);
}

cudaError_t cudaOccupancyMaxActiveBlocksPerMultiprocessorWithFlags(int* blocks,
                                                                   const void* function,
                                                                   int threads, size_t shared,
                                                                   unsigned) {
  return Occupancy(blocks, function, threads, shared);
}

}  // extern "C"
}  // namespace softgpu
