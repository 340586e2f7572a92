// GpuDevice: a GPU as the runtime and the Saver see it, without CUDA's headers.
//
//   compute    ──kernels──●──────────────────▶      one stream for all kernels of the device, so
//                 event   │                          that memory which is let go may be handed
//   to-host    ───────────●──copy──●──────▶          out again at once
//   to-device  ──copy──●             event
//
// Work is enqueued in the order of the calls and done later; no call waits for the device unless
// it says so. What one stream does before another is ordered by events. Memory from allocator()
// belongs to the compute stream's order: whoever uses it on another stream makes that stream wait
// for an event of the compute stream first, and the compute stream for an event after the use
// before the memory is let go (or keeps the buffer until the host saw that event).
#ifndef FERRY_RUNTIME_DEVICE_GPU_DEVICE_H_
#define FERRY_RUNTIME_DEVICE_GPU_DEVICE_H_

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/device/device.h"
#include "runtime/tensor/buffer.h"

namespace ferry {

class GpuDevice;

enum class GpuStream { kCompute, kToDevice, kToHost };

// A moment in a stream's work: what was enqueued before it was recorded. Movable; an empty one has
// always passed. Not thread-safe.
class GpuEvent {
 public:
  GpuEvent() = default;
  GpuEvent(GpuEvent&& o) noexcept
      : device_(std::exchange(o.device_, nullptr)), handle_(std::exchange(o.handle_, nullptr)) {}
  GpuEvent& operator=(GpuEvent&& o) noexcept {
    std::swap(device_, o.device_);
    std::swap(handle_, o.handle_);
    return *this;
  }
  ~GpuEvent();  // May be destroyed before it has passed.
  explicit operator bool() const { return handle_ != nullptr; }

 private:
  friend class GpuDevice;
  friend class CudaDevice;
  GpuDevice* device_ = nullptr;
  void* handle_ = nullptr;
};

// Steps of a plan, captured to be enqueued at once.
class GpuGraph {
 public:
  virtual ~GpuGraph() = default;
  virtual int num_nodes() const = 0;
};

struct GpuMemoryStats {
  int64_t in_use = 0;      // Bytes of buffers that are handed out, rounded up as they are kept.
  int64_t cached = 0;      // Held for the next request.
  int64_t most_in_use = 0;
  int64_t limit = 0;
  int64_t allocations = 0;         // Requests,
  int64_t device_allocations = 0;  // and how many of them had to ask the device.
  int64_t cache_flushes = 0;       // Times that the cache was freed to make room.
};

// Thread-safe. Once a call reported a fatal error (an illegal access, a lost device), status() and
// every later call return it: the device is of no more use to this process.
class GpuDevice {
 public:
  virtual ~GpuDevice() = default;
  virtual int index() const = 0;
  std::string name() const { return DeviceName(DeviceType::kGpu, index()); }
  // "NVIDIA H200, compute capability 9.0, 139.7 GiB".
  virtual std::string description() const = 0;
  virtual int64_t total_memory() const = 0;  // Bytes.
  virtual absl::Status status() const = 0;

  // The device's memory: cached, in the compute stream's order. ResourceExhausted names the bytes,
  // what asked (MemoryTag) and what holds most.
  virtual Allocator* allocator() = 0;
  // At most so many bytes, cached ones included; by default what the device has free at the start.
  virtual void set_memory_limit(int64_t bytes) = 0;
  virtual GpuMemoryStats memory_stats() const = 0;
  // Gives cached memory back to the device. Waits for the device.
  virtual absl::Status FreeCache() = 0;

  // Copies of `n` bytes. Host memory that isn't pinned makes a copy wait; pinned memory must not
  // change before an event after the copy has passed.
  virtual absl::Status CopyToDevice(GpuStream stream, void* to, const void* from, size_t n) = 0;
  virtual absl::Status CopyToHost(GpuStream stream, void* to, const void* from, size_t n) = 0;
  virtual absl::Status CopyOnDevice(GpuStream stream, void* to, const void* from, size_t n) = 0;
  // The same for kernels, on the stream that they enqueue on (KernelContext::gpu_stream).
  virtual absl::Status CopyOnDevice(void* native_stream, void* to, const void* from, size_t n) = 0;
  // From memory of `other` (ordered by its compute stream) to memory of this one.
  virtual absl::Status CopyFromPeer(void* to, GpuDevice* other, const void* from, size_t n) = 0;
  virtual absl::Status Fill(void* native_stream, void* to, int byte, size_t n) = 0;
  // Many copies within the device's memory, a launch for each 160 of them.
  struct Piece {
    void* to;
    const void* from;
    uint64_t bytes;
  };
  virtual absl::Status CopyPieces(GpuStream stream, const std::vector<Piece>& pieces) = 0;

  // Sets *event (new, or used before on this device) to what `stream` has been given so far.
  virtual absl::Status Record(GpuStream stream, GpuEvent* event) = 0;
  // Work enqueued on `stream` from now on waits for the event.
  virtual absl::Status Wait(GpuStream stream, const GpuEvent& event) = 0;
  // `waiter`'s coming work waits for what `earlier` was given so far.
  virtual absl::Status Order(GpuStream earlier, GpuStream waiter) = 0;
  // The calling thread waits for the event; what failed on the device meanwhile is told.
  virtual absl::Status Synchronize(const GpuEvent& event) = 0;
  virtual absl::StatusOr<bool> Passed(const GpuEvent& event) = 0;
  // Tells, without waiting, of errors of work that is done by now.
  virtual absl::Status Poll() = 0;
  // Waits for all streams.
  virtual absl::Status SynchronizeAll() = 0;

  // For kernels: cudaStream_t and cublasHandle_t. The handle is for one thread at a time: lock and
  // unlock it around its use; its stream is set to `stream`.
  virtual void* native_stream(GpuStream stream) = 0;
  virtual absl::StatusOr<void*> LockBlas(void* native_stream) = 0;
  virtual void UnlockBlas() = 0;
  // Makes this device the calling thread's current one; before launching anything.
  virtual absl::Status MakeCurrent() = 0;
  // After a launch or another CUDA or cuBLAS call by a kernel: 0, or an error of cudaError_t
  // (cublasStatus_t) as a Status that names `what`.
  virtual absl::Status CheckCuda(int error, const char* what) = 0;
  virtual absl::Status CheckBlas(int status, const char* what) = 0;
  virtual absl::Status CheckLaunch(const char* kernel) = 0;
  virtual int multiprocessors() const = 0;

  // Capturing: kernels enqueued on *stream (a stream of its own) between the two calls, by this
  // thread, become a graph. One capture at a time; FailedPrecondition while there is another.
  virtual absl::Status BeginCapture(void** stream) = 0;
  virtual absl::StatusOr<std::unique_ptr<GpuGraph>> EndCapture() = 0;
  // Ends a capture and drops what was captured.
  virtual void AbandonCapture() = 0;
  // Enqueues it on the compute stream. The graph outlives its work.
  virtual absl::Status Launch(GpuGraph* graph) = 0;

 protected:
  friend class CachingAllocator;
  friend class GpuEvent;
  static Buffer* MakeBuffer(void* data, size_t capacity, void (*release)(Buffer*), void* owner,
                            GpuDevice* gpu) {
    return new Buffer(data, capacity, release, owner, gpu);
  }
  static void DeleteBuffer(Buffer* b) { delete b; }
  virtual void ReleaseEvent(void* handle) = 0;
};

// The process's GPUs, found at the first call; they live as long as the process. An error says what
// is missing: CUDA in this build, the driver, a device.
absl::StatusOr<std::vector<GpuDevice*>> GpuDevices();

// Page-locked host memory, from which and to which copies run beside other work. Null when there
// is no GPU.
Allocator* PinnedAllocator();

// Names what the calling thread allocates device memory for, for messages. `name` is borrowed.
class MemoryTag {
 public:
  explicit MemoryTag(const std::string* name) : former_(current_) { current_ = name; }
  ~MemoryTag() { current_ = former_; }
  MemoryTag(const MemoryTag&) = delete;
  MemoryTag& operator=(const MemoryTag&) = delete;
  static const std::string* current() { return current_; }
  static void set(const std::string* name) { current_ = name; }

 private:
  const std::string* const former_;
  static thread_local const std::string* current_;
};

// How the CUDA implementation, where it is linked in, makes itself known.
struct GpuPlatform {
  absl::StatusOr<std::vector<GpuDevice*>> (*devices)();
  Allocator* (*pinned)();
};
void RegisterGpuPlatform(const GpuPlatform& platform);

}  // namespace ferry

#endif  // FERRY_RUNTIME_DEVICE_GPU_DEVICE_H_
