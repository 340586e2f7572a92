// CachingAllocator: see caching_allocator.h.
#include "runtime/device/caching_allocator.h"

#include <algorithm>
#include <limits>

#include "runtime/base/status.h"

namespace ferry {

size_t CachingAllocator::RoundUp(size_t bytes) {
  constexpr size_t kLeast = 512;
  size_t step = kLeast;
  while (step * 16 <= bytes && step < (size_t{1} << 60)) step *= 2;
  const size_t blocks = bytes / step + (bytes % step != 0);
  return std::max(blocks * step, kLeast);
}

CachingAllocator::Block* CachingAllocator::TakeCached(size_t size) {
  // The smallest block that fits, unless it is more than an eighth too large.
  auto it = cache_.lower_bound(size);
  while (it != cache_.end() && it->second.empty()) it = cache_.erase(it);
  if (it == cache_.end() || it->first - size > size / 8) return nullptr;
  Block* b = it->second.back();
  it->second.pop_back();
  stats_.cached -= static_cast<int64_t>(b->size);
  return b;
}

absl::StatusOr<CachingAllocator::Block*> CachingAllocator::TakeFresh(size_t size) {
  if (stats_.limit > 0 &&
      static_cast<int64_t>(size) > stats_.limit - stats_.in_use - stats_.cached) {
    return nullptr;
  }
  FERRY_ASSIGN_OR_RETURN(void* data, source_.allocate(size));
  if (!data) return nullptr;
  ++stats_.device_allocations;
  return new Block{this, data, size, ""};
}

absl::StatusOr<BufferRef> CachingAllocator::Allocate(size_t bytes) {
  if (bytes > static_cast<size_t>(std::numeric_limits<int64_t>::max()) / 2) {
    return ResourceExhausted("out of memory: ", bytes, " bytes asked for of ", place_);
  }
  const size_t size = RoundUp(bytes);
  MutexLock lock(&mu_);
  ++stats_.allocations;
  Block* b = TakeCached(size);
  if (!b) {
    FERRY_ASSIGN_OR_RETURN(b, TakeFresh(size));
    if (!b && stats_.cached > 0) {
      ++stats_.cache_flushes;
      FERRY_RETURN_IF_ERROR(FreeCacheLocked());
      FERRY_ASSIGN_OR_RETURN(b, TakeFresh(size));
    }
    if (!b) return OutOfMemory(bytes);
  }
  const std::string* tag = MemoryTag::current();
  b->tag = tag ? *tag : "";
  stats_.in_use += static_cast<int64_t>(b->size);
  stats_.most_in_use = std::max(stats_.most_in_use, stats_.in_use);
  used_.insert(b);
  if (source_.used) source_.used(b->data, bytes);
  return BufferRef(GpuDevice::MakeBuffer(b->data, bytes, &Release, b, gpu_));
}

void CachingAllocator::Release(Buffer* buffer) {
  Block* b = static_cast<Block*>(buffer->owner());
  GpuDevice::DeleteBuffer(buffer);
  CachingAllocator* a = b->owner;
  MutexLock lock(&a->mu_);
  a->used_.erase(b);
  if (a->source_.used) a->source_.used(b->data, 0);
  a->stats_.in_use -= static_cast<int64_t>(b->size);
  a->stats_.cached += static_cast<int64_t>(b->size);
  a->cache_[b->size].push_back(b);
}

int64_t CachingAllocator::bytes_in_use() const {
  MutexLock lock(&mu_);
  return stats_.in_use;
}

void CachingAllocator::set_limit(int64_t bytes) {
  MutexLock lock(&mu_);
  stats_.limit = bytes;
}

GpuMemoryStats CachingAllocator::stats() const {
  MutexLock lock(&mu_);
  return stats_;
}

absl::Status CachingAllocator::FreeCache() {
  MutexLock lock(&mu_);
  return FreeCacheLocked();
}

absl::Status CachingAllocator::FreeCacheLocked() {
  absl::Status status;
  for (auto& [size, blocks] : cache_) {
    for (Block* b : blocks) {
      KeepFirst(&status, source_.free(b->data));
      stats_.cached -= static_cast<int64_t>(b->size);
      delete b;
    }
  }
  cache_.clear();
  return status;
}

absl::Status CachingAllocator::OutOfMemory(size_t bytes) const {
  std::map<std::string, size_t> held;
  for (const Block* b : used_) held[b->tag] += b->size;
  std::vector<std::pair<size_t, std::string>> most;
  for (const auto& [tag, size] : held) most.emplace_back(size, tag);
  std::sort(most.rbegin(), most.rend());
  std::string holders;
  for (size_t i = 0; i < most.size() && i < 5; ++i) {
    absl::StrAppend(&holders, i ? ", " : "; most is held by ",
                    most[i].second.empty() ? "others" : most[i].second, " (", most[i].first, ")");
  }
  const std::string* tag = MemoryTag::current();
  return ResourceExhausted(
      "out of memory: ", bytes, " bytes asked for", tag ? absl::StrCat(" by ", *tag) : "", " of ",
      place_, ", of which ", stats_.in_use, " bytes are in use",
      stats_.limit > 0 ? absl::StrCat(" and ", stats_.limit, " are the limit") : "", holders);
}

}  // namespace ferry
