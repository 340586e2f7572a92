// The GPUs of this machine through the CUDA runtime and cuBLAS.
#include <cublas_v2.h>
#include <cuda_runtime.h>
#include <dlfcn.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <memory>

#include "absl/strings/str_format.h"
#include "runtime/base/mutex.h"
#include "runtime/base/status.h"
#include "runtime/device/caching_allocator.h"
#include "runtime/device/copy_pieces.h"
#include "runtime/device/gpu_device.h"

namespace ferry {
namespace {

std::string CudaError(cudaError_t e) {
  return absl::StrCat(cudaGetErrorString(e), " (", cudaGetErrorName(e), ")");
}

// The answer of a query that isn't an error, but is kept as the last one.
bool NotReady(cudaError_t e) {
  if (e != cudaErrorNotReady) return false;
  cudaGetLastError();
  return true;
}

// Whether the error leaves the device's context of no more use.
bool IsFatal(cudaError_t e) {
  switch (e) {
    case cudaErrorIllegalAddress:
    case cudaErrorLaunchFailure:
    case cudaErrorLaunchTimeout:
    case cudaErrorHardwareStackError:
    case cudaErrorIllegalInstruction:
    case cudaErrorMisalignedAddress:
    case cudaErrorInvalidAddressSpace:
    case cudaErrorInvalidPc:
    case cudaErrorAssert:
    case cudaErrorECCUncorrectable:
    case cudaErrorNvlinkUncorrectable:
    case cudaErrorContained:
    case cudaErrorDevicesUnavailable:
    case cudaErrorUnknown:
      return true;
    default:
      return false;
  }
}

class CudaGraph : public GpuGraph {
 public:
  CudaGraph(cudaGraphExec_t exec, int nodes) : exec_(exec), nodes_(nodes) {}
  ~CudaGraph() override { cudaGraphExecDestroy(exec_); }
  int num_nodes() const override { return nodes_; }
  cudaGraphExec_t exec() const { return exec_; }

 private:
  const cudaGraphExec_t exec_;
  const int nodes_;
};

}  // namespace

// Lives as long as the process.
class CudaDevice : public GpuDevice {
 public:
  // `peers`: how many devices there are.
  absl::Status Init(int index, int peers) {
    index_ = index;
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    cudaDeviceProp prop;
    FERRY_RETURN_IF_ERROR(Check(cudaGetDeviceProperties(&prop, index), "cudaGetDeviceProperties"));
    multiprocessors_ = prop.multiProcessorCount;
    total_memory_ = static_cast<int64_t>(prop.totalGlobalMem);
    description_ = absl::StrFormat("%s, compute capability %d.%d, %.1f GiB", prop.name, prop.major,
                                   prop.minor,
                                   static_cast<double>(prop.totalGlobalMem) / (1 << 30));
    for (cudaStream_t& s : streams_) {
      FERRY_RETURN_IF_ERROR(
          Check(cudaStreamCreateWithFlags(&s, cudaStreamNonBlocking), "cudaStreamCreateWithFlags"));
    }
    FERRY_RETURN_IF_ERROR(Check(cudaStreamCreateWithFlags(&capture_, cudaStreamNonBlocking),
                                "cudaStreamCreateWithFlags"));
    for (int p = 0; p < peers; ++p) {
      int can = 0;
      if (p == index || cudaDeviceCanAccessPeer(&can, index, p) != cudaSuccess || !can) continue;
      // Without it copies between the two pass through the host: slower, and right.
      if (cudaDeviceEnablePeerAccess(p, 0) != cudaSuccess) cudaGetLastError();
    }
    allocator_ = std::make_unique<CachingAllocator>(
        "device", name() + "'s memory", this,
        CachingAllocator::Source{
            [this](size_t bytes) -> absl::StatusOr<void*> {
              FERRY_RETURN_IF_ERROR(MakeCurrent());
              void* p = nullptr;
              const cudaError_t e = cudaMalloc(&p, bytes);
              if (e == cudaErrorMemoryAllocation) {
                cudaGetLastError();
                return nullptr;
              }
              FERRY_RETURN_IF_ERROR(Check(e, "cudaMalloc"));
              return p;
            },
            [this](void* p) {
              FERRY_RETURN_IF_ERROR(MakeCurrent());
              return Check(cudaFree(p), "cudaFree");
            },
            TellChecker()});
    return absl::OkStatus();
  }

  int index() const override { return index_; }
  std::string description() const override { return description_; }
  int multiprocessors() const override { return multiprocessors_; }
  int64_t total_memory() const override { return total_memory_; }

  absl::Status status() const override {
    if (!lost_.load(std::memory_order_acquire)) return absl::OkStatus();
    MutexLock lock(&mu_);
    return status_;
  }

  Allocator* allocator() override { return allocator_.get(); }
  void set_memory_limit(int64_t bytes) override { allocator_->set_limit(bytes); }
  GpuMemoryStats memory_stats() const override { return allocator_->stats(); }
  absl::Status FreeCache() override {
    FERRY_RETURN_IF_ERROR(SynchronizeAll());
    return allocator_->FreeCache();
  }

  absl::Status CopyToDevice(GpuStream s, void* to, const void* from, size_t n) override {
    return Copy(s, to, from, n, cudaMemcpyHostToDevice);
  }
  absl::Status CopyToHost(GpuStream s, void* to, const void* from, size_t n) override {
    return Copy(s, to, from, n, cudaMemcpyDeviceToHost);
  }
  absl::Status CopyOnDevice(GpuStream s, void* to, const void* from, size_t n) override {
    return Copy(s, to, from, n, cudaMemcpyDeviceToDevice);
  }

  absl::Status CopyOnDevice(void* native_stream, void* to, const void* from, size_t n) override {
    if (n == 0) return absl::OkStatus();
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    return Check(cudaMemcpyAsync(to, from, n, cudaMemcpyDeviceToDevice,
                                 static_cast<cudaStream_t>(native_stream)),
                 "cudaMemcpyAsync");
  }

  absl::Status CopyFromPeer(void* to, GpuDevice* other, const void* from, size_t n) override {
    auto* peer = static_cast<CudaDevice*>(other);
    GpuEvent ready, done;
    FERRY_RETURN_IF_ERROR(peer->Record(GpuStream::kCompute, &ready));
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    const cudaStream_t mine = stream(GpuStream::kCompute);
    FERRY_RETURN_IF_ERROR(Check(cudaStreamWaitEvent(mine, event(ready), 0), "cudaStreamWaitEvent"));
    if (n > 0) {
      FERRY_RETURN_IF_ERROR(Check(cudaMemcpyPeerAsync(to, index_, from, peer->index_, n, mine),
                                  "cudaMemcpyPeerAsync"));
    }
    FERRY_RETURN_IF_ERROR(Record(GpuStream::kCompute, &done));
    FERRY_RETURN_IF_ERROR(peer->MakeCurrent());
    return peer->Check(cudaStreamWaitEvent(peer->stream(GpuStream::kCompute), event(done), 0),
                       "cudaStreamWaitEvent");
  }

  absl::Status Fill(void* native_stream, void* to, int byte, size_t n) override {
    if (n == 0) return absl::OkStatus();
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    return Check(cudaMemsetAsync(to, byte, n, static_cast<cudaStream_t>(native_stream)),
                 "cudaMemsetAsync");
  }

  absl::Status CopyPieces(GpuStream s, const std::vector<Piece>& pieces) override {
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    CopyPiecesArgs args;
    int count = 0;
    uint64_t most = 0;
    for (size_t i = 0; i < pieces.size(); ++i) {
      args.pieces[count++] = {pieces[i].to, pieces[i].from, pieces[i].bytes};
      most = std::max(most, pieces[i].bytes);
      if (count < CopyPiecesArgs::kMost && i + 1 < pieces.size()) continue;
      FERRY_RETURN_IF_ERROR(
          CheckCuda(LaunchCopyPieces(stream(s), args, count, most), "CopyPiecesKernel"));
      count = 0;
      most = 0;
    }
    return absl::OkStatus();
  }

  absl::Status Record(GpuStream s, GpuEvent* e) override {
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    if (!e->handle_ || e->device_ != this) {
      GpuEvent fresh;
      FERRY_RETURN_IF_ERROR(NewEvent(&fresh));
      *e = std::move(fresh);
    }
    return Check(cudaEventRecord(event(*e), stream(s)), "cudaEventRecord");
  }
  absl::Status Wait(GpuStream s, const GpuEvent& e) override {
    if (!e.handle_) return absl::OkStatus();
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    return Check(cudaStreamWaitEvent(stream(s), event(e), 0), "cudaStreamWaitEvent");
  }
  absl::Status Order(GpuStream earlier, GpuStream waiter) override {
    GpuEvent e;
    FERRY_RETURN_IF_ERROR(Record(earlier, &e));
    return Wait(waiter, e);
  }
  absl::Status Synchronize(const GpuEvent& e) override {
    if (!e.handle_) return status();
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    return Check(cudaEventSynchronize(event(e)), "cudaEventSynchronize");
  }
  absl::StatusOr<bool> Passed(const GpuEvent& e) override {
    if (!e.handle_) return true;
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    const cudaError_t error = cudaEventQuery(event(e));
    if (NotReady(error)) return false;
    FERRY_RETURN_IF_ERROR(Check(error, "cudaEventQuery"));
    return true;
  }
  absl::Status Poll() override {
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    const cudaError_t e = cudaStreamQuery(stream(GpuStream::kCompute));
    return NotReady(e) ? absl::OkStatus() : Check(e, "cudaStreamQuery");
  }
  absl::Status SynchronizeAll() override {
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    for (cudaStream_t s : streams_) {
      FERRY_RETURN_IF_ERROR(Check(cudaStreamSynchronize(s), "cudaStreamSynchronize"));
    }
    return absl::OkStatus();
  }

  void* native_stream(GpuStream s) override { return stream(s); }

  absl::StatusOr<void*> LockBlas(void* native_stream) override {
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    blas_mu_.Lock();
    absl::Status status = PrepareBlas(static_cast<cudaStream_t>(native_stream));
    if (status.ok()) return static_cast<void*>(blas_);
    blas_mu_.Unlock();
    return status;
  }
  void UnlockBlas() override { blas_mu_.Unlock(); }

  absl::Status MakeCurrent() override {
    // Nothing else in the process need use CUDA, but if it does it may have chosen another device.
    int current = -1;
    cudaError_t e = cudaGetDevice(&current);
    if (e == cudaSuccess && current != index_) e = cudaSetDevice(index_);
    if (e != cudaSuccess) return Check(e, "cudaSetDevice");
    return lost_.load(std::memory_order_acquire) ? status() : absl::OkStatus();
  }

  absl::Status CheckCuda(int error, const char* what) override {
    return Check(static_cast<cudaError_t>(error), what);
  }
  absl::Status CheckLaunch(const char* kernel) override {
    return Check(cudaGetLastError(), kernel);
  }
  absl::Status CheckBlas(int error, const char* what) override {
    const auto e = static_cast<cublasStatus_t>(error);
    if (e == CUBLAS_STATUS_SUCCESS) return absl::OkStatus();
    // What lies behind it, where CUDA knows.
    const cudaError_t cause = cudaPeekAtLastError();
    if (cause != cudaSuccess) return Check(cause, what);
    std::string text = absl::StrCat(name(), ": ", what, ": ", cublasGetStatusString(e));
    if (e == CUBLAS_STATUS_ALLOC_FAILED) return absl::ResourceExhaustedError(text);
    if (e == CUBLAS_STATUS_EXECUTION_FAILED || e == CUBLAS_STATUS_MAPPING_ERROR ||
        e == CUBLAS_STATUS_INTERNAL_ERROR) {
      return Lose(text);
    }
    return absl::InternalError(text);
  }

  absl::Status BeginCapture(void** stream) override {
    if (capturing_.exchange(true)) return FailedPrecondition(name(), ": a capture is under way");
    absl::Status status = MakeCurrent();
    if (status.ok()) {
      status = Check(cudaStreamBeginCapture(capture_, cudaStreamCaptureModeThreadLocal),
                     "cudaStreamBeginCapture");
    }
    if (!status.ok()) capturing_ = false;
    *stream = capture_;
    return status;
  }

  absl::StatusOr<std::unique_ptr<GpuGraph>> EndCapture() override {
    cudaGraph_t graph = nullptr;
    const cudaError_t ended = cudaStreamEndCapture(capture_, &graph);
    capturing_ = false;
    if (ended != cudaSuccess && graph) cudaGraphDestroy(graph);
    FERRY_RETURN_IF_ERROR(Check(ended, "cudaStreamEndCapture"));
    size_t nodes = 0;
    cudaGraphExec_t exec = nullptr;
    cudaError_t e = cudaGraphGetNodes(graph, nullptr, &nodes);
    if (e == cudaSuccess) e = cudaGraphInstantiate(&exec, graph, 0);
    cudaGraphDestroy(graph);
    FERRY_RETURN_IF_ERROR(Check(e, "cudaGraphInstantiate"));
    return std::unique_ptr<GpuGraph>(new CudaGraph(exec, static_cast<int>(nodes)));
  }

  void AbandonCapture() override {
    cudaGraph_t graph = nullptr;
    if (cudaStreamEndCapture(capture_, &graph) != cudaSuccess) cudaGetLastError();
    if (graph) cudaGraphDestroy(graph);
    capturing_ = false;
  }

  absl::Status Launch(GpuGraph* graph) override {
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    return Check(cudaGraphLaunch(static_cast<CudaGraph*>(graph)->exec(),
                                 stream(GpuStream::kCompute)),
                 "cudaGraphLaunch");
  }

 private:
  // Where the CUDA library is the software GPU (docs/software-gpu.md), it learns of the uses of
  // blocks, in the compute stream's order; else null.
  std::function<void(void*, size_t)> TellChecker() {
    using Narrow = int(void* block, size_t used, cudaStream_t stream);
    auto* const narrow = reinterpret_cast<Narrow*>(dlsym(RTLD_DEFAULT, "__cudaSoftgpuNarrow"));
    if (!narrow) return nullptr;
    return [this, narrow](void* block, size_t used) {
      narrow(block, used, stream(GpuStream::kCompute));
    };
  }

  cudaStream_t stream(GpuStream s) const { return streams_[static_cast<int>(s)]; }
  static cudaEvent_t event(const GpuEvent& e) { return static_cast<cudaEvent_t>(e.handle_); }

  absl::Status Copy(GpuStream s, void* to, const void* from, size_t n, cudaMemcpyKind kind) {
    if (n == 0) return absl::OkStatus();
    FERRY_RETURN_IF_ERROR(MakeCurrent());
    return Check(cudaMemcpyAsync(to, from, n, kind, stream(s)), "cudaMemcpyAsync");
  }

  absl::Status NewEvent(GpuEvent* e) {
    {
      MutexLock lock(&mu_);
      if (!events_.empty()) {
        e->handle_ = events_.back();
        events_.pop_back();
      }
    }
    if (!e->handle_) {
      cudaEvent_t fresh;
      FERRY_RETURN_IF_ERROR(Check(cudaEventCreateWithFlags(&fresh, cudaEventDisableTiming),
                                  "cudaEventCreateWithFlags"));
      e->handle_ = fresh;
    }
    e->device_ = this;
    return absl::OkStatus();
  }
  void ReleaseEvent(void* handle) override {
    MutexLock lock(&mu_);
    events_.push_back(static_cast<cudaEvent_t>(handle));
  }

  absl::Status PrepareBlas(cudaStream_t stream) ABSL_EXCLUSIVE_LOCKS_REQUIRED(blas_mu_) {
    if (!blas_) {
      // Memory that cuBLAS would take by itself, where a capture forbids that.
      constexpr size_t kWorkspace = size_t{8} << 20;
      const std::string tag = "cuBLAS' workspace";
      const MemoryTag named(&tag);
      FERRY_ASSIGN_OR_RETURN(blas_workspace_, allocator_->Allocate(kWorkspace));
      cublasHandle_t handle = nullptr;
      FERRY_RETURN_IF_ERROR(CheckBlas(cublasCreate(&handle), "cublasCreate"));
      // No TF32, and 16-bit products are summed as float until they are complete.
      constexpr auto kMath = static_cast<cublasMath_t>(
          CUBLAS_DEFAULT_MATH | CUBLAS_MATH_DISALLOW_REDUCED_PRECISION_REDUCTION);
      absl::Status status = CheckBlas(cublasSetMathMode(handle, kMath), "cublasSetMathMode");
      if (!status.ok()) {
        cublasDestroy(handle);
        return status;
      }
      blas_ = handle;
    }
    if (blas_stream_ == stream) return absl::OkStatus();
    blas_stream_ = nullptr;
    FERRY_RETURN_IF_ERROR(CheckBlas(cublasSetStream(blas_, stream), "cublasSetStream"));
    // Setting the stream resets the workspace.
    FERRY_RETURN_IF_ERROR(CheckBlas(
        cublasSetWorkspace(blas_, blas_workspace_->data(), blas_workspace_->capacity()),
        "cublasSetWorkspace"));
    blas_stream_ = stream;
    return absl::OkStatus();
  }

  absl::Status Check(cudaError_t e, const char* what) {
    if (e == cudaSuccess) return absl::OkStatus();
    cudaGetLastError();  // Errors that aren't fatal stay until somebody takes note of them.
    std::string text = absl::StrCat(name(), ": ", what, ": ", CudaError(e));
    if (e == cudaErrorMemoryAllocation) return absl::ResourceExhaustedError(text);
    if (IsFatal(e)) return Lose(text);
    return absl::InternalError(text);
  }

  absl::Status Lose(const std::string& text) {
    MutexLock lock(&mu_);
    if (status_.ok()) {
      status_ = absl::UnavailableError(
          text + "; the device is lost to this process, with all that it held");
      lost_.store(true, std::memory_order_release);
    }
    return status_;
  }

  int index_ = 0;
  int multiprocessors_ = 1;
  int64_t total_memory_ = 0;
  std::string description_;
  cudaStream_t streams_[3] = {};
  cudaStream_t capture_ = nullptr;
  std::atomic<bool> capturing_{false};
  std::unique_ptr<CachingAllocator> allocator_;
  Mutex blas_mu_;
  cublasHandle_t blas_ ABSL_GUARDED_BY(blas_mu_) = nullptr;
  cudaStream_t blas_stream_ ABSL_GUARDED_BY(blas_mu_) = nullptr;
  BufferRef blas_workspace_ ABSL_GUARDED_BY(blas_mu_);
  std::atomic<bool> lost_{false};
  mutable Mutex mu_;
  absl::Status status_ ABSL_GUARDED_BY(mu_);
  std::vector<cudaEvent_t> events_ ABSL_GUARDED_BY(mu_);
};

namespace {

absl::StatusOr<std::vector<GpuDevice*>> FindDevices() {
  int count = 0;
  const cudaError_t e = cudaGetDeviceCount(&count);
  if (e != cudaSuccess) {
    cudaGetLastError();
    if (e == cudaErrorInsufficientDriver || e == cudaErrorStubLibrary) {
      int runtime = 0, driver = 0;
      cudaRuntimeGetVersion(&runtime);
      cudaDriverGetVersion(&driver);
      return Unavailable("no GPU can be used: ",
                         driver == 0 ? std::string("there is no NVIDIA driver (libcuda.so.1)")
                                     : absl::StrFormat("the NVIDIA driver is for CUDA %d.%d, this "
                                                       "program for CUDA %d.%d",
                                                       driver / 1000, driver % 1000 / 10,
                                                       runtime / 1000, runtime % 1000 / 10));
    }
    if (e == cudaErrorNoDevice) return Unavailable("no GPU can be used: there is none");
    return Unavailable("no GPU can be used: ", CudaError(e));
  }
  if (count == 0) return Unavailable("no GPU can be used: there is none");
  std::vector<GpuDevice*> devices;
  for (int i = 0; i < count; ++i) {
    auto device = std::make_unique<CudaDevice>();
    absl::Status status = device->Init(i, count);
    if (!status.ok()) return Annotate(status, "no GPU can be used");
    devices.push_back(device.release());
  }
  return devices;
}

const absl::StatusOr<std::vector<GpuDevice*>>& Devices() {
  static const auto* const devices = new absl::StatusOr<std::vector<GpuDevice*>>(FindDevices());
  return *devices;
}

Allocator* Pinned() {
  static auto* const allocator = new CachingAllocator(
      "pinned", "pinned host memory", nullptr,
      CachingAllocator::Source{
          [](size_t bytes) -> absl::StatusOr<void*> {
            void* p = nullptr;
            const cudaError_t e = cudaHostAlloc(&p, bytes, cudaHostAllocPortable);
            if (e == cudaSuccess) return p;
            cudaGetLastError();
            if (e == cudaErrorMemoryAllocation) return nullptr;
            return Unavailable("cudaHostAlloc: ", CudaError(e));
          },
          [](void* p) {
            const cudaError_t e = cudaFreeHost(p);
            if (e == cudaSuccess) return absl::OkStatus();
            cudaGetLastError();
            return Unavailable("cudaFreeHost: ", CudaError(e));
          }});
  return allocator;
}

[[maybe_unused]] const bool registered = [] {
  RegisterGpuPlatform({[] { return Devices(); }, &Pinned});
  return true;
}();

}  // namespace
}  // namespace ferry
