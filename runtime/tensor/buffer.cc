// Buffer and the allocators: see buffer.h.
#include "runtime/tensor/buffer.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdlib>
#include <new>
#include <string>

#include "runtime/base/status.h"
#include "runtime/tensor/object.h"

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

namespace {

absl::Status CheckLimit(size_t bytes, int64_t in_use, int64_t limit) {
  const int64_t n = static_cast<int64_t>(bytes);
  if (n >= 0 && n <= limit && in_use <= limit - n) return absl::OkStatus();
  return ResourceExhausted("out of host memory: ", bytes, " bytes asked for, ", in_use,
                           " in use, limit ", limit);
}

}  // namespace

absl::Status HostAllocator::CheckFits(size_t bytes) const {
  return CheckLimit(bytes, bytes_in_use(), limit());
}

absl::Status HostAllocator::Reserve(size_t bytes) {
  // The count never goes beyond the limit, not even for a moment: another thread's request that
  // fits must not fail on account of one that doesn't.
  int64_t now = bytes_in_use();
  do {
    FERRY_RETURN_IF_ERROR(CheckLimit(bytes, now, limit()));
  } while (!in_use_.compare_exchange_weak(now, now + static_cast<int64_t>(bytes),
                                          std::memory_order_relaxed));
  return absl::OkStatus();
}

absl::StatusOr<BufferRef> HostAllocator::Allocate(size_t bytes) {
  FERRY_RETURN_IF_ERROR(Reserve(bytes));
  const size_t total = kHeader + (bytes + kHostAlignment - 1) / kHostAlignment * kHostAlignment;
  // Large blocks start at a huge page, and ask for such: fewer faults and TLB misses.
  constexpr size_t kHuge = size_t{2} << 20;
  const bool huge = total >= kHuge;
  void* p = nullptr;  // Unlike aligned_alloc, this takes sizes that are no multiples.
  if (posix_memalign(&p, huge ? kHuge : kHostAlignment, total) != 0) {
    Unreserve(bytes);
    return ResourceExhausted("out of host memory: the system has no ", bytes, " bytes; ",
                             bytes_in_use(), " in use");
  }
  if (huge) madvise(p, total / kHuge * kHuge, MADV_HUGEPAGE);
  return BufferRef(new (p) Buffer(static_cast<char*>(p) + kHeader, bytes, &Release, this));
}

void HostAllocator::Release(Buffer* b) {
  static_cast<HostAllocator*>(b->owner_)->Unreserve(b->capacity_);
  b->~Buffer();
  std::free(b);
}

// Buffers of C++ objects, which are destroyed with them.
class StringBufferMaker {
 public:
  template <typename T>
  static absl::StatusOr<BufferRef> Make(int64_t count, const char* what) {
    int64_t bytes;
    if (__builtin_mul_overflow(count, static_cast<int64_t>(sizeof(T)), &bytes)) {
      return ResourceExhausted(count, " ", what, " are more than any memory holds");
    }
    FERRY_RETURN_IF_ERROR(HostAllocator::Get()->Reserve(static_cast<size_t>(bytes)));
    // Without exceptions: the limit may lie above what the system has.
    T* elements = new (std::nothrow) T[static_cast<size_t>(count)];
    if (!elements) {
      HostAllocator::Get()->Unreserve(static_cast<size_t>(bytes));
      return ResourceExhausted("out of host memory: the system has no ", bytes, " bytes");
    }
    return BufferRef(new Buffer(elements, static_cast<size_t>(bytes), &Release<T>, nullptr));
  }

 private:
  template <typename T>
  static void Release(Buffer* b) {
    delete[] static_cast<T*>(b->data());
    HostAllocator::Get()->Unreserve(b->capacity());
    delete b;
  }
};

absl::StatusOr<BufferRef> AllocateStrings(int64_t count) {
  return StringBufferMaker::Make<std::string>(count, "strings");
}

absl::StatusOr<Tensor> AllocateObjects(DType dtype, const TensorShape& shape) {
  FERRY_ASSIGN_OR_RETURN(BufferRef buffer,
                         StringBufferMaker::Make<ObjectRef>(shape.num_elements(), "objects"));
  return Tensor::Over(dtype, shape, std::move(buffer));
}

}  // namespace ferry
