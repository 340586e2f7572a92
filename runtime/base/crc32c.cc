#include "runtime/base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <cstring>

namespace ferry {

uint32_t ExtendCrc32c(uint32_t crc, const void* data, size_t n) {
  // ISA-L's register isn't inverted at either end, and its length is an int.
  uint32_t reg = ~crc;
  const auto* p = static_cast<const unsigned char*>(data);
  constexpr size_t kMost = size_t{1} << 30;
  while (n > 0) {
    const size_t take = std::min(n, kMost);
    reg = crc32_iscsi(const_cast<unsigned char*>(p), static_cast<int>(take), reg);
    p += take;
    n -= take;
  }
  return ~reg;
}

uint32_t CopyAndExtendCrc32c(uint32_t crc, void* dst, const void* src, size_t n) {
  // Blocks that stay in the first-level cache between the copy and the crc: one pass over memory.
  constexpr size_t kBlock = 8 << 10;
  auto* d = static_cast<char*>(dst);
  const auto* s = static_cast<const char*>(src);
  while (n > 0) {
    const size_t take = std::min(n, kBlock);
    std::memcpy(d, s, take);
    crc = ExtendCrc32c(crc, d, take);
    d += take;
    s += take;
    n -= take;
  }
  return crc;
}

}  // namespace ferry
