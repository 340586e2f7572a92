// The clock of a modelled GPU, in microseconds since the process' first call.
//
// Each device has three engines that work beside each other: compute (kernels, fills, copies within
// a device, cuBLAS: one at a time), and copies to and from the device (one at a time each). A piece
// of work starts when it was queued, all it depends on has ended and its engine is free, and takes
// what DeviceModel says. Each host thread has a clock of its own, which calls advance by what they
// cost and which a wait sets to the end of what was waited for; what the host does between calls
// costs nothing, except what a test adds by SpendHostTime (see control.h).
//
// The order in which work really runs here (lazy, shuffled, …) doesn't matter for these times: work
// takes the first gap of its engine that is long enough.
#ifndef FERRY_TESTS_SOFTGPU_TIMELINE_H_
#define FERRY_TESTS_SOFTGPU_TIMELINE_H_

#include <cstdint>
#include <cstdio>
#include <map>
#include <string>
#include <utility>

namespace softgpu {

// The numbers of the modelled GPU and its machine: an upper-class card on PCIe 4 x16.
// GB/s are 1e9 bytes a second.
struct DeviceModel {
  double h2d_gbs = 24;          // Pinned host memory to the device.
  double d2h_gbs = 24;          // And back.
  double pageable_gbs = 6;      // Either way, when host memory isn't pinned.
  double peer_gbs = 20;         // Between devices.
  double memory_gbs = 900;      // The device's own memory, for kernels and fills.
  double ginstructions = 8000;  // 1e9 thread-instructions a second.
  double gemm_tflops = 15;      // Matrix products in float.
  double gemm_tflops_double = 0.5;
  double gemm_tflops_half = 60;  // In half and bfloat16.
  double kernel_latency_us = 2;  // The least that work on the compute engine takes.
  double copy_latency_us = 4;    // The same for a copy engine.
  double call_us = 0.2;          // The host's time for a call that does nothing costly,
  double queue_us = 2.5;         // for one that queues work,
  double sync_us = 5;            // for the return from a wait,
  double malloc_us = 80;         // for cudaMalloc and cudaFree,
  double pin_us = 50;            // and for cudaHostAlloc,
  double pin_gbs = 4;            // which also touches each page.

  // Replaces numbers by "name=value,…"; false when the text isn't understood.
  bool Set(const std::string& text);
};

enum class Engine { kCompute, kToDevice, kToHost, kHost };

// Not thread-safe.
class Timeline {
 public:
  ~Timeline();
  // Writes spans to a file from now on, as a JSON object a line: start, end (microseconds), device,
  // stream (a number; 0 the default stream), engine (compute, h2d, d2h, host), kind, bytes, name.
  // The empty path stops it. False with errno set when the file can't be made.
  bool LogTo(const std::string& path);

  // When work on an engine starts, that may from `ready` on and takes `duration`. The time is taken
  // then.
  double Place(int device, Engine engine, double ready, double duration);
  // No work placed later will be ready before `time`.
  void Forget(double time);

  struct Span {
    double start;
    double end;
    int device;  // -1: none.
    int stream;  // For the host: the thread.
    Engine engine;
    const char* kind;
    uint64_t bytes;
    std::string name;
  };
  void Log(const Span& span);
  // Writes out what is buffered.
  void Flush();

  // The latest end of all work so far.
  double latest() const { return latest_; }

 private:
  // By device and engine: the busy times, start to end.
  std::map<std::pair<int, int>, std::map<double, double>> busy_;
  double latest_ = 0;
  FILE* file_ = nullptr;
};

}  // namespace softgpu

#endif  // FERRY_TESTS_SOFTGPU_TIMELINE_H_
