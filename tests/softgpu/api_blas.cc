// libcudart's side of blas_hook.h.
#include <algorithm>
#include <memory>
#include <string>
#include <utility>

#include "tests/softgpu/blas_hook.h"
#include "tests/softgpu/runtime.h"

namespace softgpu {
namespace {

class CheckedAccess final : public DeviceAccess {
 public:
  CheckedAccess(Memory* memory, const Actor& actor, int device, const std::string& name)
      : memory_(memory), actor_(actor), device_(device), name_(name) {}
  const Report& report() const { return report_; }

 private:
  void* Access(const void* device, size_t bytes, size_t count, size_t pitch, bool reads,
               bool writes) override {
    if (pitch == bytes) {
      bytes *= count;
      count = 1;
    }
    const uint64_t begin = reinterpret_cast<uint64_t>(device);
    void* first = nullptr;
    for (size_t i = 0; i < count; ++i) {
      for (softgpu::Access kind : {softgpu::Access::kRead, softgpu::Access::kWrite}) {
        if (kind == softgpu::Access::kRead ? !reads : !writes) continue;
        const uint64_t address = begin + i * pitch;
        void* const at = memory_->At(actor_, device_, address, bytes, kind);
        if (at == nullptr) {
          report_ = memory_->Explain(actor_, device_, address, bytes, kind, name_);
          return nullptr;
        }
        if (first == nullptr) first = at;
      }
    }
    return first;
  }

  Memory* const memory_;
  const Actor& actor_;
  const int device_;
  const std::string& name_;
  Report report_;
};

}  // namespace
}  // namespace softgpu

extern "C" {

cudaError_t __cudaSoftgpuBlasCall(const char* function) {
  return softgpu::Call(function, softgpu::CallKind::kDevice,
                       [](auto*, auto*, auto*) { return cudaSuccess; });
}

cudaError_t __cudaSoftgpuBlas(cudaStream_t handle, const softgpu::BlasWork& blas) {
  using namespace softgpu;  // NOLINT
  return Call("cublas", CallKind::kInner, [&](Runtime* runtime, ThreadState* thread, auto*) {
    Stream* stream = runtime->FindStream(handle);
    if (stream == nullptr || stream->device != thread->device) {
      return cudaErrorInvalidResourceHandle;
    }
    auto work = std::make_shared<Work>();
    work->kind = "blas";
    work->name = blas.name;
    work->device = thread->device;
    work->bytes = blas.bytes;
    work->run = [runtime, blas, device = thread->device](const Actor& actor, double* us) {
      const DeviceModel& model = runtime->settings.model;
      const double tflops = blas.element_bytes == 8   ? model.gemm_tflops_double
                            : blas.element_bytes == 2 ? model.gemm_tflops_half
                                                      : model.gemm_tflops;
      *us = model.kernel_latency_us +
            std::max(blas.tflop / tflops * 1e6, blas.bytes / (model.memory_gbs * 1e3));
      CheckedAccess access(&runtime->memory, actor, device, blas.name);
      blas.run(&access);
      return access.report();
    };
    return runtime->Queue(stream, std::move(work));
  });
}

void __cudaSoftgpuBlasHandles(int change) {
  softgpu::Runtime& runtime = softgpu::Runtime::Get();
  std::lock_guard<std::mutex> lock(runtime.mu);
  runtime.blas_handles += change;
}

void __cudaSoftgpuRefuse(const char* what) {
  softgpu::Runtime& runtime = softgpu::Runtime::Get();
  std::lock_guard<std::mutex> lock(runtime.mu);
  runtime.Refuse(what);
}

}  // extern "C"
