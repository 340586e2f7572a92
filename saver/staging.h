// StagingRing: the few aligned pieces of memory through which the bytes of a save pass on their
// way to the file, whatever the model's size.
//
//   variable ──copy and crc──▶ slot ──write──▶ file      (the next slot fills meanwhile)
//   variable on a GPU ──copy──▶ slot ──crc, write──▶ file
#ifndef FERRY_SAVER_STAGING_H_
#define FERRY_SAVER_STAGING_H_

#include <sys/mman.h>

#include <cstddef>
#include <cstdint>

#include "absl/status/statusor.h"
#include "runtime/base/status.h"
#include "runtime/device/gpu_device.h"

namespace ferry {

// Thread-compatible. Memory is taken from the system as it is first touched.
class StagingRing {
 public:
  static constexpr size_t kAlignment = size_t{64} << 10;  // Of every slot's address and size.
  static constexpr size_t kMostBytes = size_t{64} << 20;  // Of all slots together.
  // Enough in flight to keep a fast disk busy while a slot is filled.
  static constexpr int kUsualSlots = 16;
  static constexpr size_t kUsualSlotBytes = size_t{2} << 20;

  StagingRing() = default;
  StagingRing(const StagingRing&) = delete;
  StagingRing& operator=(const StagingRing&) = delete;
  ~StagingRing() { Free(); }

  // ResourceExhausted without memory; InvalidArgument for sizes beyond the limits above. `pinned`:
  // page-locked, for bytes of GPUs; a pinned ring stays so.
  absl::Status Init(int slots, size_t slot_bytes, bool pinned = false) {
    pinned = pinned || static_cast<bool>(pinned_);
    if (data_ && slots == slots_ && slot_bytes == slot_bytes_ &&
        pinned == static_cast<bool>(pinned_)) {
      return absl::OkStatus();
    }
    if (slots < 2 || slot_bytes < kAlignment || slot_bytes % kAlignment != 0 ||
        slot_bytes > kMostBytes / static_cast<size_t>(slots)) {
      return InvalidArgument("a staging ring of ", slots, " slots of ", slot_bytes,
                             " bytes: at least 2 slots of a multiple of ", kAlignment,
                             " bytes, at most ", kMostBytes, " in all");
    }
    Free();
    slots_ = slots;
    slot_bytes_ = slot_bytes;
    if (pinned) {
      FERRY_ASSIGN_OR_RETURN(pinned_, PinnedAllocator()->Allocate(size() + kAlignment));
      data_ = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(pinned_->data()) + kAlignment -
                                       1) / kAlignment * kAlignment);
      return absl::OkStatus();
    }
    void* p = mmap(nullptr, size() + kHugePage, PROT_READ | PROT_WRITE,
                   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (p == MAP_FAILED) {
      return ResourceExhausted("no memory for a staging ring of ", size(), " bytes");
    }
    mapped_ = p;
    data_ = reinterpret_cast<char*>((reinterpret_cast<uintptr_t>(p) + kHugePage - 1) / kHugePage *
                                    kHugePage);
    // A direct write has fewer pages to pin.
    madvise(data_, size(), MADV_HUGEPAGE);
    return absl::OkStatus();
  }

  int slots() const { return slots_; }
  size_t slot_bytes() const { return slot_bytes_; }
  size_t size() const { return static_cast<size_t>(slots_) * slot_bytes_; }
  char* slot(int i) const { return data_ + static_cast<size_t>(i) * slot_bytes_; }

 private:
  static constexpr size_t kHugePage = size_t{2} << 20;

  void Free() {
    if (mapped_) munmap(mapped_, size() + kHugePage);
    mapped_ = nullptr;
    data_ = nullptr;
    pinned_.reset();
  }

  int slots_ = 0;
  size_t slot_bytes_ = 0;
  void* mapped_ = nullptr;
  BufferRef pinned_;
  char* data_ = nullptr;
};

}  // namespace ferry

#endif  // FERRY_SAVER_STAGING_H_
