// The process' software GPU: see runtime.h.
#include "tests/softgpu/runtime.h"

#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <utility>

#include "tests/softgpu/fatbin.h"
#include "tests/softgpu/text.h"

namespace softgpu {
namespace {

// Queries that say "not ready" before one waits.
constexpr int kUnreadyQueries = 3;

Memory::Options MemoryOptions(const Settings& settings) {
  Memory::Options options;
  options.devices = std::max(settings.devices, 1);
  options.bytes_per_device = settings.memory_bytes;
  options.uninitialised = settings.check_init;
  options.races = settings.check_race;
  return options;
}

cudaError_t ErrorOf(const Report& report) {
  switch (report.kind) {
    case Report::kMisaligned:
      return cudaErrorMisalignedAddress;
    case Report::kBudget:
      return cudaErrorLaunchTimeout;
    case Report::kAssert:
      return cudaErrorAssert;
    case Report::kLaunch:
      return cudaErrorInvalidConfiguration;
    case Report::kBarrier:
    case Report::kUnsupported:
      return cudaErrorLaunchFailure;
    default:
      return cudaErrorIllegalAddress;
  }
}

}  // namespace

ThreadState& CurrentThread() {
  static std::atomic<int> threads{0};
  static thread_local ThreadState state;
  if (state.number < 0) state.number = threads++;
  return state;
}

Registry& Registry::Get() {
  static auto* const registry = new Registry;
  return *registry;
}

namespace {
std::atomic<Runtime*> existing{nullptr};
}  // namespace

Runtime& Runtime::Get() {
  // Never destroyed: a program's own destructors use it.
  static Runtime* const runtime = [] {
    existing = new Runtime;
    return existing.load();
  }();
  return *runtime;
}

Runtime* Runtime::Existing() { return existing; }

Runtime::Runtime()
    : settings(SettingsFromEnvironment()),
      memory(MemoryOptions(settings)),
      queues(
          &settings, &memory, &timeline, &mu,
          {[this](int device) { return devices[device].lost; },
           [this](int device, const Report& report, int error) { Lose(device, report, error); }}),
      devices(settings.devices) {
  if (!settings.timeline_path.empty() && !timeline.LogTo(settings.timeline_path)) {
    std::fprintf(stderr, "software GPU: can't write %s: %m\n", settings.timeline_path.c_str());
    _exit(kReportExitStatus);
  }
  for (int i = 0; i < settings.devices; ++i) {
    devices[i].default_stream.device = i;
    devices[i].default_stream.queue =
        queues.Create(i, "the default stream of device " + std::to_string(i));
  }
  memory.InstallFaultHandler();
}

void Runtime::Tell(std::string text) {
  const size_t name = text.find("_Z");
  if (name != std::string::npos) {
    const size_t end = std::min(text.find_first_of(" ,:;\n", name), text.size());
    text.replace(name, end - name, Demangle(text.substr(name, end - name)));
  }
  reports.push_back(text);
  std::fprintf(stderr, "software GPU: %s\n", text.c_str());
  if (settings.exit_on_report) {
    timeline.Flush();
    std::fflush(stdout);
    _exit(kReportExitStatus);
  }
}

cudaError_t Runtime::Refuse(const std::string& what) {
  Tell(what + " isn't supported by the software GPU");
  return cudaErrorNotSupported;
}

cudaError_t Runtime::Lose(int device, const Report& report, int error) {
  if (!report.ok()) Tell(report.text);
  cudaError_t& lost = devices[device].lost;
  if (lost == cudaSuccess) lost = report.ok() ? static_cast<cudaError_t>(error) : ErrorOf(report);
  return lost;
}

Stream* Runtime::FindStream(cudaStream_t handle) {
  if (handle == nullptr || handle == cudaStreamLegacy) {
    return &devices[CurrentThread().device].default_stream;
  }
  if (handle == cudaStreamPerThread) {
    Refuse("cudaStreamPerThread");
    return nullptr;
  }
  Stream* stream = streams.Find(handle);
  if (stream == nullptr) Tell("a stream is used that was destroyed or never created");
  return stream;
}

Event* Runtime::FindEvent(cudaEvent_t handle) {
  Event* event = events.Find(handle);
  if (event == nullptr) Tell("an event is used that was destroyed or never created");
  return event;
}

std::vector<OperationPtr> Runtime::ImpliedWaits(Stream* stream) {
  std::vector<OperationPtr> waits;
  const auto add = [&waits](const softgpu::Queue* queue) {
    if (queue->last != nullptr) waits.push_back(queue->last);
  };
  Stream* const standard = &devices[stream->device].default_stream;
  if (stream == standard) {
    for (const auto& [handle, other] : streams.objects()) {
      if (other->device == stream->device && !(other->flags & cudaStreamNonBlocking)) {
        add(other->queue);
      }
    }
  } else if (!(stream->flags & cudaStreamNonBlocking)) {
    add(standard->queue);
  }
  return waits;
}

cudaError_t Runtime::FaultOf(const Work& work) {
  if (work.host != nullptr || !work.counts) return cudaSuccess;
  return settings.faults.OnWork(/*kernel=*/std::string(work.kind) == "kernel");
}

cudaError_t Runtime::Queue(Stream* stream, std::shared_ptr<const Work> work) {
  ThreadState& thread = CurrentThread();
  if (work->counts) thread.clock += settings.model.queue_us;
  if (stream->capture != nullptr) {
    Capture& capture = *stream->capture;
    if (capture.broken) return cudaErrorStreamCaptureInvalidated;
    capture.graph->nodes.push_back(
        {std::move(work), {stream->capture_after.begin(), stream->capture_after.end()}});
    stream->capture_after = {static_cast<int>(capture.graph->nodes.size()) - 1};
    return cudaSuccess;
  }
  const cudaError_t error = CheckDefaultStream(stream);
  if (error != cudaSuccess) return error;
  const cudaError_t lose = FaultOf(*work);
  queues.Add(stream->queue, std::move(work), ImpliedWaits(stream), thread.clock, lose);
  stream->queries = 0;
  queues.Advance();
  return cudaSuccess;
}

OperationPtr Runtime::Mark(Stream* stream, std::vector<OperationPtr> after) {
  for (OperationPtr& other : ImpliedWaits(stream)) after.push_back(std::move(other));
  OperationPtr mark = queues.Add(stream->queue, nullptr, std::move(after), CurrentThread().clock);
  queues.Advance();
  return mark;
}

cudaError_t Runtime::Wait(std::unique_lock<std::mutex>* lock, int device,
                          const OperationPtr& operation) {
  queues.Wait(lock, operation);
  WaitedUntil(operation->end);
  return devices[device].lost;
}

cudaError_t Runtime::WaitAll(std::unique_lock<std::mutex>* lock, int device) {
  queues.WaitAll(lock, device);
  WaitedUntil(queues.End(device));
  return devices[device].lost;
}

void Runtime::WaitedUntil(double time) {
  ThreadState& thread = CurrentThread();
  const double start = thread.clock;
  thread.clock = std::max(thread.clock, time) + settings.model.sync_us;
  timeline.Log({start, thread.clock, -1, thread.number, Engine::kHost, "wait", 0, ""});
}

cudaError_t Runtime::Query(std::unique_lock<std::mutex>* lock, int device,
                           const OperationPtr& operation, int* queries) {
  queues.Advance();
  if (operation == nullptr) return cudaSuccess;
  const bool ended =
      operation->state == Operation::kDone && operation->end <= CurrentThread().clock;
  if (ended || ++*queries > kUnreadyQueries) return Wait(lock, device, operation);
  return cudaErrorNotReady;
}

cudaError_t Runtime::CheckDefaultStream(Stream* stream) {
  if (stream != &devices[stream->device].default_stream) return cudaSuccess;
  cudaError_t error = cudaSuccess;
  for (const auto& [handle, other] : streams.objects()) {
    if (other->capture != nullptr && !(other->flags & cudaStreamNonBlocking)) {
      other->capture->broken = true;
      error = cudaErrorStreamCaptureImplicit;
    }
  }
  return error;
}

cudaError_t Runtime::CheckUnsafeInCapture() {
  cudaError_t error = cudaSuccess;
  for (const auto& [handle, stream] : streams.objects()) {
    Capture* const capture = stream->capture.get();
    if (capture == nullptr || capture->mode == cudaStreamCaptureModeRelaxed) continue;
    if (capture->mode == cudaStreamCaptureModeThreadLocal &&
        capture->thread != CurrentThread().number) {
      continue;
    }
    capture->broken = true;
    error = cudaErrorStreamCaptureUnsupported;
  }
  return error;
}

cudaError_t Runtime::BreakCapture(Stream* stream, cudaError_t error) {
  stream->capture->broken = true;
  return error;
}

Function* Runtime::FindFunction(const void* host, cudaError_t* error) {
  Registry& registry = Registry::Get();
  std::lock_guard<std::mutex> lock(registry.mu);
  const auto it = registry.functions.find(host);
  if (it == registry.functions.end()) {
    *error = cudaErrorInvalidDeviceFunction;
    return nullptr;
  }
  Function& function = it->second;
  if (function.kernel == nullptr) {
    std::string text = function.binary->error;
    if (Module* module = ModuleOf(function.binary)) {
      function.kernel = module->FindKernel(function.name, &text);
    }
    if (function.kernel == nullptr) {
      Tell("kernel " + function.name + ": " + text);
      *error = cudaErrorInvalidDeviceFunction;
      return nullptr;
    }
  }
  return &function;
}

Module* Runtime::ModuleOf(Binary* binary) {
  if (binary->module == nullptr && binary->error.empty()) {
    std::string ptx;
    int arch = 0;
    if (!ReadPtx(binary->wrapper, &ptx, &arch, &binary->error)) {
      binary->error = "its fat binary can't be used: " + binary->error;
    } else {
      binary->module = Module::Parse(std::move(ptx), &binary->error);
    }
  }
  return binary->module.get();
}

cudaError_t Runtime::FindVariable(const void* host, uint64_t* address, size_t* bytes) {
  Registry& registry = Registry::Get();
  std::lock_guard<std::mutex> lock(registry.mu);
  const auto it = registry.variables.find(host);
  if (it == registry.variables.end()) return cudaErrorInvalidSymbol;
  Variable& variable = it->second;
  std::string text = variable.binary->error;
  Module* module = ModuleOf(variable.binary);
  uint64_t size = 0;
  if (module == nullptr || !module->FindVariable(variable.name, &memory, CurrentThread().device,
                                                 address, &size, &text)) {
    Tell("variable " + variable.name + ": " + text);
    return cudaErrorInvalidSymbol;
  }
  *bytes = size;
  return cudaSuccess;
}

std::string Runtime::Leaks() const {
  std::string text;
  for (const Memory::Allocation& a : memory.Live()) {
    text += std::to_string(a.bytes) + " bytes " +
            (a.device == Memory::kHost
                 ? std::string(a.registered ? "of registered" : "of pinned") + " host memory"
                 : "on device " + std::to_string(a.device)) +
            " (allocation " + std::to_string(a.number) + ")\n";
  }
  const auto count = [&text](size_t n, const char* what) {
    if (n != 0) text += std::to_string(n) + " " + what + "\n";
  };
  count(streams.objects().size(), "streams");
  count(events.objects().size(), "events");
  count(graphs.objects().size(), "graphs");
  count(graph_execs.objects().size(), "instantiated graphs");
  count(blas_handles, "cuBLAS handles");
  return text;
}

namespace {

// Runs after the program's own destructors.
__attribute__((destructor)) void AtExit() {
  Runtime* const runtime = Runtime::Existing();
  if (runtime == nullptr) return;
  std::unique_lock<std::mutex> lock(runtime->mu);
  runtime->timeline.LogTo("");
  if (!runtime->settings.check_leak) return;
  const std::string leaks = runtime->Leaks();
  if (!leaks.empty()) runtime->Tell("the program ends without releasing:\n" + leaks);
}

}  // namespace
}  // namespace softgpu
