// GpuUpload: see gpu_upload.h.
#include "saver/gpu_upload.h"

#include <algorithm>

#include "runtime/base/status.h"

namespace ferry {

absl::Status GpuUpload::Init(const std::vector<GpuDevice*>& gpus) {
  FERRY_RETURN_IF_ERROR(ring_.Init(StagingRing::kUsualSlots, kSlotBytes, true));
  gpus_ = gpus;
  slots_ = std::vector<Slot>(static_cast<size_t>(ring_.slots()));
  // The memory that bytes go to may have had other users.
  for (GpuDevice* gpu : gpus_) {
    FERRY_RETURN_IF_ERROR(gpu->Order(GpuStream::kCompute, GpuStream::kToDevice));
  }
  MutexLock lock(&mu_);
  for (int i = 0; i < ring_.slots(); ++i) free_.push_back(i);
  return absl::OkStatus();
}

absl::StatusOr<int> GpuUpload::Acquire() {
  int slot;
  {
    MutexLock lock(&mu_);
    while (free_.empty()) released_.Wait(&mu_);
    slot = free_.front();
    free_.erase(free_.begin());
  }
  absl::Status status;
  for (auto& [gpu, event] : slots_[static_cast<size_t>(slot)].sent) {
    KeepFirst(&status, gpu->Synchronize(event));
  }
  slots_[static_cast<size_t>(slot)].sent.clear();
  if (status.ok()) return slot;
  Release(slot);
  return status;
}

absl::Status GpuUpload::Send(int slot, GpuDevice* gpu, const std::vector<Piece>& pieces) {
  Slot& s = slots_[static_cast<size_t>(slot)];
  const char* const bytes = ring_.slot(slot);
  const auto enqueue = [&]() -> absl::Status {
    if (pieces.size() == 1) {
      return gpu->CopyToDevice(GpuStream::kToDevice, pieces[0].to, bytes + pieces[0].from,
                               pieces[0].n);
    }
    BufferRef& gathered = s.gathered[gpu];
    if (!gathered) {
      const std::string tag = "staging of a restore";
      const MemoryTag named(&tag);
      FERRY_ASSIGN_OR_RETURN(gathered, gpu->allocator()->Allocate(kSlotBytes));
      FERRY_RETURN_IF_ERROR(gpu->Order(GpuStream::kCompute, GpuStream::kToDevice));
    }
    size_t begin = kSlotBytes, end = 0;
    std::vector<GpuDevice::Piece> copies;
    for (const Piece& p : pieces) {
      begin = std::min(begin, p.from);
      end = std::max(end, p.from + p.n);
      copies.push_back({p.to, static_cast<const char*>(gathered->data()) + p.from, p.n});
    }
    FERRY_RETURN_IF_ERROR(gpu->CopyToDevice(GpuStream::kToDevice,
                                            static_cast<char*>(gathered->data()) + begin,
                                            bytes + begin, end - begin));
    return gpu->CopyPieces(GpuStream::kToDevice, copies);
  };
  absl::Status status = enqueue();
  s.sent.emplace_back(gpu, GpuEvent());
  KeepFirst(&status, gpu->Record(GpuStream::kToDevice, &s.sent.back().second));
  return status;
}

void GpuUpload::Release(int slot) {
  MutexLock lock(&mu_);
  free_.push_back(slot);
  released_.Signal();
}

absl::Status GpuUpload::Finish() {
  absl::Status status;
  for (Slot& s : slots_) {
    for (auto& [gpu, event] : s.sent) KeepFirst(&status, gpu->Synchronize(event));
    s.sent.clear();
  }
  for (GpuDevice* gpu : std::exchange(gpus_, {})) {
    KeepFirst(&status, gpu->Order(GpuStream::kToDevice, GpuStream::kCompute));
  }
  return status;
}

}  // namespace ferry
