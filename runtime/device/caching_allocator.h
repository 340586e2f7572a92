// CachingAllocator: keeps memory that was let go for the next request of about the same size,
// since asking a GPU's driver takes long and makes the device wait.
//
// A block is handed out again at once: that is right for memory whose users are all ordered by one
// stream (see gpu_device.h), and for pinned memory whose users wait for their copies.
#ifndef FERRY_RUNTIME_DEVICE_CACHING_ALLOCATOR_H_
#define FERRY_RUNTIME_DEVICE_CACHING_ALLOCATOR_H_

#include <functional>
#include <map>
#include <set>
#include <string>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "runtime/base/mutex.h"
#include "runtime/device/gpu_device.h"

namespace ferry {

// Thread-safe. Lives as long as the process.
class CachingAllocator : public Allocator {
 public:
  // Where blocks come from. Allocate gives null when there is no memory, an error when the device
  // is of no use.
  struct Source {
    std::function<absl::StatusOr<void*>(size_t bytes)> allocate;
    std::function<absl::Status(void*)> free;
    // For memory checkers, which see blocks alone; may be null. A block is used from now on for
    // `bytes`, and uninitialised; 0: it was let go.
    std::function<void(void*, size_t bytes)> used = nullptr;
  };
  // `gpu`: whose memory it is, null for pinned host memory. `place`, for messages:
  // "/job:…/device:GPU:0's memory".
  CachingAllocator(const char* name, std::string place, GpuDevice* gpu, Source source)
      : name_(name), place_(std::move(place)), gpu_(gpu), source_(std::move(source)) {}

  const char* name() const override { return name_; }
  // When memory is short, frees what is cached and tries once more.
  absl::StatusOr<BufferRef> Allocate(size_t bytes) override;
  int64_t bytes_in_use() const override;

  void set_limit(int64_t bytes);
  GpuMemoryStats stats() const;
  // Gives back what nobody uses.
  absl::Status FreeCache();

  // What a request takes: multiples of 512 bytes, and for larger ones of an eighth of the power of
  // two below, so that sizes that differ little share blocks.
  static size_t RoundUp(size_t bytes);

 private:
  struct Block {
    CachingAllocator* owner;
    void* data;
    size_t size;
    std::string tag;  // What it was allocated for.
  };
  static void Release(Buffer* b);
  Block* TakeCached(size_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::StatusOr<Block*> TakeFresh(size_t size) ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status FreeCacheLocked() ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);
  absl::Status OutOfMemory(size_t bytes) const ABSL_EXCLUSIVE_LOCKS_REQUIRED(mu_);

  const char* const name_;
  const std::string place_;
  GpuDevice* const gpu_;
  const Source source_;
  mutable Mutex mu_;
  std::map<size_t, std::vector<Block*>> cache_ ABSL_GUARDED_BY(mu_);  // By size.
  std::set<Block*> used_ ABSL_GUARDED_BY(mu_);
  GpuMemoryStats stats_ ABSL_GUARDED_BY(mu_);
};

}  // namespace ferry

#endif  // FERRY_RUNTIME_DEVICE_CACHING_ALLOCATOR_H_
