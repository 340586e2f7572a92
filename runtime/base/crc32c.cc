// CRC-32C: see crc32c.h.
#include "runtime/base/crc32c.h"

#include <isa-l/crc.h>

#include <algorithm>
#include <cstring>

namespace ferry {
namespace {

// The polynomial with its bits reversed: bit 31 stands for x^0, bit 0 for x^31.
constexpr uint32_t kPolynomial = 0x82f63b78;

// a * b modulo the polynomial, over GF(2).
uint32_t Multiply(uint32_t a, uint32_t b) {
  uint32_t product = 0;
  for (uint32_t bit = uint32_t{1} << 31; bit != 0; bit >>= 1) {
    if (a & bit) product ^= b;
    b = (b >> 1) ^ (b & 1 ? kPolynomial : 0);  // Times x.
  }
  return product;
}

}  // namespace

uint32_t CombineCrc32c(uint32_t crc_a, uint32_t crc_b, uint64_t size_b) {
  // Behind n more bits a crc's register is multiplied by x^n; the inversions at both ends of the
  // two crcs cancel out.
  uint32_t power = uint32_t{1} << 23;  // x^8: one byte.
  for (uint64_t n = size_b; n != 0; n >>= 1) {
    if (n & 1) crc_a = Multiply(crc_a, power);
    power = Multiply(power, power);
  }
  return crc_a ^ crc_b;
}

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
