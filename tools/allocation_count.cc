// Counts allocations: see allocation_count.h.
#include "tools/allocation_count.h"

#include <cstdlib>
#include <new>

namespace {

thread_local int64_t count = 0;

}  // namespace

namespace ferry {

int64_t AllocationCount() { return count; }

}  // namespace ferry

#if !defined(__SANITIZE_ADDRESS__) && !defined(FERRY_TSAN)
__attribute__((noinline)) void* operator new(size_t n) {
  ++count;
  if (void* p = std::malloc(n)) return p;
  throw std::bad_alloc();
}
__attribute__((noinline)) void operator delete(void* p) noexcept { std::free(p); }
__attribute__((noinline)) void operator delete(void* p, size_t) noexcept { std::free(p); }
#endif
