// The software GPU's own calls, for tests; control.h finds them.
#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "tests/softgpu/runtime.h"

extern "C" {

// Null, or why it can't be.
const char* __cudaSoftgpuSet(const char* name, const char* value) {
  using namespace softgpu;  // NOLINT
  Runtime& runtime = Runtime::Get();
  std::lock_guard<std::mutex> lock(runtime.mu);
  static thread_local std::string error;
  error.clear();
  const std::string setting = name;
  if (setting == "REPORTS") {
    runtime.reports.clear();
  } else if (setting == "DEVICES" || setting == "MEMORY" || setting == "CHECKS") {
    error = setting + " can be set by the environment alone";
  } else if (ApplySetting(setting, value, &runtime.settings, &error)) {
    if (setting == "ORDER") runtime.queues.Seed(runtime.settings.seed);
    if (setting == "TIMELINE" && !runtime.timeline.LogTo(value)) {
      error = std::string("can't write ") + value;
    }
  }
  return error.empty() ? nullptr : error.c_str();
}

// Valid until the thread's next call.
const char* __cudaSoftgpuGet(const char* name) {
  using namespace softgpu;  // NOLINT
  Runtime& runtime = Runtime::Get();
  std::lock_guard<std::mutex> lock(runtime.mu);
  static thread_local std::string value;
  const std::string what = name;
  value.clear();
  if (what == "calls") {
    value = std::to_string(runtime.settings.faults.calls());
  } else if (what == "works") {
    value = std::to_string(runtime.settings.faults.works());
  } else if (what == "strikes") {
    value = std::to_string(runtime.settings.faults.strikes());
  } else if (what == "leaks") {
    value = runtime.Leaks();
  } else if (what == "reports") {
    for (const std::string& report : runtime.reports) value += report + "\n";
  } else if (what == "time") {
    value = std::to_string(runtime.timeline.latest());
  } else if (what == "host_time") {
    value = std::to_string(CurrentThread().clock);
  } else if (what == "pending") {
    value = std::to_string(runtime.queues.pending());
  } else {
    return nullptr;
  }
  return value.c_str();
}

void __cudaSoftgpuSpendHostTime(const char* name, double microseconds, uint64_t bytes) {
  using namespace softgpu;  // NOLINT
  Runtime& runtime = Runtime::Get();
  std::lock_guard<std::mutex> lock(runtime.mu);
  ThreadState& thread = CurrentThread();
  const double start = thread.clock;
  thread.clock += microseconds;
  runtime.timeline.Log(
      {start, thread.clock, -1, thread.number, Engine::kHost, "host", bytes, name});
}

// For programs with an allocator of their own; see docs/software-gpu.md. In the order of the
// stream: the block at `pointer`, which cudaMalloc gave, was handed out anew for `used` bytes, or
// let go if `used` is 0. False where no such block begins there.
int __cudaSoftgpuNarrow(void* pointer, size_t used, cudaStream_t handle) {
  using namespace softgpu;  // NOLINT
  const cudaError_t error = Call("narrow", CallKind::kInner, [&](Runtime* runtime, auto*, auto*) {
    const uint64_t address = reinterpret_cast<uint64_t>(pointer);
    Stream* stream = runtime->FindStream(handle);
    Memory::Allocation allocation;
    if (stream == nullptr || !runtime->memory.Find(address, &allocation) ||
        allocation.device == Memory::kHost || allocation.address != address ||
        used > allocation.bytes) {
      return cudaErrorInvalidValue;
    }
    if (stream->capture == nullptr && stream->queue->waiting.empty()) {
      runtime->memory.Narrow(address, used);
      return cudaSuccess;
    }
    auto work = std::make_shared<Work>();
    work->kind = "narrow";
    work->name = "use of " + std::to_string(used) + " bytes";
    work->device = allocation.device;
    work->engine = Engine::kHost;
    work->counts = false;
    work->run = [runtime, address, used](const Actor&, double*) {
      // It may have been freed meanwhile.
      runtime->memory.Narrow(address, used);
      return Report();
    };
    return runtime->Queue(stream, std::move(work));
  });
  return error == cudaSuccess;
}

}  // extern "C"
