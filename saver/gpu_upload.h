// GpuUpload: the way of a restore's bytes to GPUs, through a ring of pinned slots.
//
//   file ──read, crc──▶ slot ──copy──▶ variable's memory       (other slots fill meanwhile)
//                              └─▶ gathered ──▶ many small variables, in one launch
#ifndef FERRY_SAVER_GPU_UPLOAD_H_
#define FERRY_SAVER_GPU_UPLOAD_H_

#include <map>
#include <utility>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "runtime/base/mutex.h"
#include "runtime/device/gpu_device.h"
#include "saver/staging.h"

namespace ferry {

// Several threads fill slots at once.
class GpuUpload {
 public:
  GpuUpload() = default;
  ~GpuUpload() { Finish().IgnoreError(); }
  GpuUpload(const GpuUpload&) = delete;
  GpuUpload& operator=(const GpuUpload&) = delete;

  // Before the first slot. `gpus`: those that bytes will go to.
  absl::Status Init(const std::vector<GpuDevice*>& gpus);
  static constexpr size_t kSlotBytes = StagingRing::kUsualSlotBytes;

  // A slot for the caller alone; waits for one whose bytes have gone.
  absl::StatusOr<int> Acquire();
  char* slot(int i) const { return ring_.slot(i); }
  // Bytes [from, from + n) of the slot belong at `to`.
  struct Piece {
    size_t from;
    size_t n;
    void* to;
  };
  // Enqueues copies of pieces to `gpu`'s memory.
  absl::Status Send(int slot, GpuDevice* gpu, const std::vector<Piece>& pieces);
  // The caller has sent what it wanted.
  void Release(int slot);

  // Waits until all bytes have gone; the GPUs' coming work sees them.
  absl::Status Finish();

 private:
  struct Slot {
    std::vector<std::pair<GpuDevice*, GpuEvent>> sent;
    std::map<GpuDevice*, BufferRef> gathered;
  };
  StagingRing ring_;
  std::vector<GpuDevice*> gpus_;
  std::vector<Slot> slots_;  // Each its holder's.
  Mutex mu_;
  CondVar released_;
  std::vector<int> free_ ABSL_GUARDED_BY(mu_);  // The one that was released first comes first.
};

}  // namespace ferry

#endif  // FERRY_SAVER_GPU_UPLOAD_H_
