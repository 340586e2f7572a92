// How many times this program allocated memory with operator new: what `ferry bench run` reports.
#ifndef FERRY_TOOLS_ALLOCATION_COUNT_H_
#define FERRY_TOOLS_ALLOCATION_COUNT_H_

#include <cstdint>

namespace ferry {

// Of the calling thread, so far.
int64_t AllocationCount();

}  // namespace ferry

#endif  // FERRY_TOOLS_ALLOCATION_COUNT_H_
