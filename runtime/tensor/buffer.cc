#include "runtime/tensor/buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <string>

#include "runtime/base/status.h"

namespace ferry {
namespace {

// The Buffer object lies in front of its data, a cache line of its own, in one allocation.
constexpr size_t kHeader = kHostAlignment;
static_assert(sizeof(Buffer) <= kHeader, "the header must fit the alignment");

}  // namespace

HostAllocator::HostAllocator() {
  const int64_t pages = sysconf(_SC_PHYS_PAGES), page = sysconf(_SC_PAGESIZE);
  limit_ = pages > 0 && page > 0 ? pages / 10 * 9 * page : int64_t{1} << 40;
}

HostAllocator* HostAllocator::Get() {
  static HostAllocator* const allocator = new HostAllocator;
  return allocator;
}

absl::StatusOr<BufferRef> HostAllocator::Allocate(size_t bytes) {
  const int64_t limit = limit_.load(std::memory_order_relaxed);
  const int64_t n = static_cast<int64_t>(bytes);
  if (n < 0 || n > limit || in_use_.fetch_add(n, std::memory_order_relaxed) > limit - n) {
    if (n >= 0 && n <= limit) in_use_.fetch_sub(n, std::memory_order_relaxed);
    return ResourceExhausted("out of host memory: ", bytes, " bytes asked for, ", bytes_in_use(),
                             " in use, limit ", limit);
  }
  const size_t total = kHeader + (bytes + kHostAlignment - 1) / kHostAlignment * kHostAlignment;
  // Large blocks start at a huge page, and ask for such: fewer faults and TLB misses.
  constexpr size_t kHuge = size_t{2} << 20;
  void* p = std::aligned_alloc(kHostAlignment, total);
  if (!p) {
    in_use_.fetch_sub(n, std::memory_order_relaxed);
    return ResourceExhausted("out of host memory: ", bytes, " bytes asked for, ", bytes_in_use(),
                             " in use");
  }
  if (total >= 2 * kHuge) {
    const uintptr_t begin = (reinterpret_cast<uintptr_t>(p) + kHuge - 1) / kHuge * kHuge;
    const uintptr_t end = (reinterpret_cast<uintptr_t>(p) + total) / kHuge * kHuge;
    if (end > begin) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
  }
  return BufferRef(new (p) Buffer(static_cast<char*>(p) + kHeader, bytes, &Release, this));
}

void HostAllocator::Release(Buffer* b) {
  static_cast<HostAllocator*>(b->owner_)->in_use_.fetch_sub(static_cast<int64_t>(b->capacity_),
                                                            std::memory_order_relaxed);
  b->~Buffer();
  std::free(b);
}

class StringBufferMaker {
 public:
  static BufferRef Make(int64_t count) {
    auto* strings = new std::string[count];
    return BufferRef(new Buffer(strings, static_cast<size_t>(count) * sizeof(std::string),
                                &Release, nullptr));
  }
  static void Release(Buffer* b) {
    delete[] static_cast<std::string*>(b->data());
    delete b;
  }
};

absl::StatusOr<BufferRef> AllocateStrings(int64_t count) {
  // Holding the host allocator's word that this many bytes fit its limit is enough of a check.
  if (count > 1024) {
    absl::StatusOr<BufferRef> fits =
        HostAllocator::Get()->Allocate(static_cast<size_t>(count) * sizeof(std::string));
    if (!fits.ok()) return fits.status();
  }
  return StringBufferMaker::Make(count);
}

}  // namespace ferry
