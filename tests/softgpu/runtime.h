// The process' software GPU: its devices, handles and threads, and what every call does first and
// last. The calls themselves are in api_*.cc.
#ifndef FERRY_TESTS_SOFTGPU_RUNTIME_H_
#define FERRY_TESTS_SOFTGPU_RUNTIME_H_

#include <driver_types.h>
#include <vector_types.h>

#include <cstdint>
#include <iterator>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "tests/softgpu/executor.h"
#include "tests/softgpu/memory.h"
#include "tests/softgpu/queue.h"
#include "tests/softgpu/settings.h"
#include "tests/softgpu/timeline.h"

namespace softgpu {

// What a thread has of its own. Nothing to destroy, since destructors of other thread-local objects
// may call CUDA.
struct ThreadState {
  int number = -1;
  int device = 0;
  cudaError_t last_error = cudaSuccess;
  double clock = 0;  // Simulated microseconds.
  bool in_host_function = false;
  // Of launches that are being made, one within the arguments of another.
  struct Configuration {
    dim3 grid;
    dim3 block;
    size_t shared = 0;
    cudaStream_t stream = nullptr;
  };
  static constexpr int kMostConfigurations = 8;
  Configuration configurations[kMostConfigurations];
  int num_configurations = 0;
};
ThreadState& CurrentThread();

struct Stream;

// Streams that are being captured into one graph.
struct Capture {
  uint64_t id;
  cudaStreamCaptureMode mode;
  int thread;
  Stream* origin;
  bool broken = false;  // By a call that can't be captured.
  std::shared_ptr<Graph> graph = std::make_shared<Graph>();
};

struct Stream {
  Queue* queue;
  int device;
  unsigned flags = 0;
  int priority = 0;
  std::shared_ptr<Capture> capture;
  std::set<int> capture_after;  // The nodes that the next one depends on.
  int queries = 0;              // Since work was queued, that said "not ready".
};

struct Event {
  int device;
  bool timing;
  OperationPtr operation;  // Null: never recorded.
  std::weak_ptr<Capture> capture;
  std::set<int> capture_after;
  int queries = 0;  // Since it was recorded, that said "not ready".
};

struct GraphExec {
  std::shared_ptr<Graph> graph;
  OperationPtr last;  // The end of the last launch.
};

// Live handles of one kind. A handle is a number that is never used twice and that host code can't
// dereference.
template <typename Handle, typename T>
class Handles {
 public:
  Handle Add(std::unique_ptr<T> object) {
    const uintptr_t handle = next_ += 16;
    objects_[handle] = std::move(object);
    return reinterpret_cast<Handle>(handle);
  }
  T* Find(Handle handle) const {
    const auto it = objects_.find(reinterpret_cast<uintptr_t>(handle));
    return it == objects_.end() ? nullptr : it->second.get();
  }
  void Remove(Handle handle) { objects_.erase(reinterpret_cast<uintptr_t>(handle)); }
  template <typename Which>
  void RemoveIf(Which which) {
    for (auto it = objects_.begin(); it != objects_.end();) {
      it = which(*it->second) ? objects_.erase(it) : std::next(it);
    }
  }
  const std::map<uintptr_t, std::unique_ptr<T>>& objects() const { return objects_; }

 private:
  std::map<uintptr_t, std::unique_ptr<T>> objects_;
  uintptr_t next_ = 0x1000;
};

struct Device {
  cudaError_t lost = cudaSuccess;
  Stream default_stream;
  std::set<int> peers;
};

// A fat binary that the program registered.
struct Binary {
  const void* wrapper;
  std::unique_ptr<Module> module;  // Read when first needed.
  std::string error;               // Why it couldn't be.
};

struct Function {
  Binary* binary;
  std::string name;  // Mangled.
  const Kernel* kernel = nullptr;
  int dynamic_shared_limit = -1;  // Bytes; -1: never set.
};

struct Variable {
  Binary* binary;
  std::string name;
  size_t bytes;
};

// What programs and libraries registered when they were loaded. Apart from the runtime, which is
// made by the first call that needs it: a process may fork before.
struct Registry {
  static Registry& Get();

  std::mutex mu;
  std::vector<std::unique_ptr<Binary>> binaries;
  std::map<const void*, Function> functions;  // By the host's stand-in.
  std::map<const void*, Variable> variables;
};

class Runtime {
 public:
  static Runtime& Get();
  // Null before the first Get.
  static Runtime* Existing();

  std::mutex mu;  // Guards all that follows.
  Settings settings;
  Timeline timeline;
  Memory memory;
  Queues queues;
  std::vector<Device> devices;
  Handles<cudaStream_t, Stream> streams;
  Handles<cudaEvent_t, Event> events;
  Handles<cudaGraph_t, Graph> graphs;
  Handles<cudaGraphExec_t, GraphExec> graph_execs;
  uint64_t captures = 0;
  int blas_handles = 0;
  std::vector<std::string> reports;  // All so far.

  // Tells what a check found: prints it, and ends the process if the settings say so. Otherwise
  // the caller makes an error of it.
  void Tell(std::string text);
  // A use of something that this GPU doesn't know, by name.
  cudaError_t Refuse(const std::string& what);
  // The device's sticky error.
  cudaError_t Lose(int device, const Report& report, int error);

  // The stream behind a handle, which may be the default one of the thread's device; null after
  // telling so when there is none.
  Stream* FindStream(cudaStream_t handle);
  Event* FindEvent(cudaEvent_t handle);

  // Counts a piece of work; what its device must be lost with when it runs, or cudaSuccess.
  cudaError_t FaultOf(const Work& work);
  // Queues work on a stream, or adds it to the graph that the stream is captured into.
  cudaError_t Queue(Stream* stream, std::shared_ptr<const Work> work);
  // Marks the end of what the stream has; also the legacy default stream's rule.
  OperationPtr Mark(Stream* stream, std::vector<OperationPtr> after);
  // What the next operation of a stream must wait for by the legacy default stream's rule: that
  // stream and those created without cudaStreamNonBlocking wait for each other.
  std::vector<OperationPtr> ImpliedWaits(Stream* stream);

  // Waits for an operation, or for all of a device (-1: all devices), in simulated time too. The
  // sticky error that came of it.
  cudaError_t Wait(std::unique_lock<std::mutex>* lock, int device, const OperationPtr& operation);
  cudaError_t WaitAll(std::unique_lock<std::mutex>* lock, int device);

  // The answer of cudaEventQuery and cudaStreamQuery. It is "not ready" while the operation has not
  // ended by the thread's clock, but not forever: some queries later it waits.
  cudaError_t Query(std::unique_lock<std::mutex>* lock, int device, const OperationPtr& operation,
                    int* queries);

  // Ends captures that a call which can't be captured would disturb, with the error for it.
  cudaError_t CheckUnsafeInCapture();
  cudaError_t BreakCapture(Stream* stream, cudaError_t error);

  // The kernel behind a host stand-in; null with the error.
  Function* FindFunction(const void* host, cudaError_t* error);
  // The address of a variable on the current device.
  cudaError_t FindVariable(const void* host, uint64_t* address, size_t* bytes);
  // The binary's module; null with its error set.
  Module* ModuleOf(Binary* binary);

  // What is left of devices' and pinned memory, streams, events and graphs: a line each.
  std::string Leaks() const;

 private:
  Runtime();
  void WaitedUntil(double time);
  cudaError_t CheckDefaultStream(Stream* stream);
};

// The frame of every call: lock, clock, faults, sticky errors, last error. `body` gets the runtime,
// this thread's state and the lock.
enum class CallKind {
  kPlain,      // Neither fails nor counts.
  kInner,      // A part of a call that was counted.
  kDevice,     // Fails when the thread's device is lost.
  kRelease,    // Runs even then, and when a fault strikes: what it releases is released.
  kAnyDevice,  // Doesn't look at the device.
};
template <typename Body>
cudaError_t Call(const char* name, CallKind kind, Body body) noexcept {
  Runtime& runtime = Runtime::Get();
  ThreadState& thread = CurrentThread();
  std::unique_lock<std::mutex> lock(runtime.mu);
  thread.clock += runtime.settings.model.call_us;
  cudaError_t error = cudaSuccess;
  if (thread.in_host_function) {
    runtime.Tell(std::string(name) + " was called by a host function, which must not use CUDA");
    error = cudaErrorNotPermitted;
  }
  if (error == cudaSuccess && kind != CallKind::kPlain && kind != CallKind::kInner) {
    error = runtime.settings.faults.OnCall(name);
  }
  cudaError_t sticky = cudaSuccess;
  if (kind != CallKind::kPlain && kind != CallKind::kAnyDevice) {
    sticky = runtime.devices.empty() ? cudaErrorNoDevice : runtime.devices[thread.device].lost;
  }
  if (kind == CallKind::kRelease) {
    const cudaError_t own = body(&runtime, &thread, &lock);
    if (error == cudaSuccess) error = own;
  } else if (error == cudaSuccess && sticky == cudaSuccess) {
    error = body(&runtime, &thread, &lock);
  }
  if (error == cudaSuccess) error = sticky;
  if (error != cudaSuccess && kind != CallKind::kPlain) thread.last_error = error;
  return error;
}

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_RUNTIME_H_
