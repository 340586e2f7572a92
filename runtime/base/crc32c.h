// CRC-32C (Castagnoli), as TensorFlow's bundles, LevelDB's tables and record files use it, through
// ISA-L.
#ifndef FERRY_RUNTIME_BASE_CRC32C_H_
#define FERRY_RUNTIME_BASE_CRC32C_H_

#include <cstddef>
#include <cstdint>

#include "absl/strings/string_view.h"

namespace ferry {

// The crc of the concatenation of what `crc` was taken over and of data[0, n). Start with 0.
uint32_t ExtendCrc32c(uint32_t crc, const void* data, size_t n);

inline uint32_t Crc32c(absl::string_view data) {
  return ExtendCrc32c(0, data.data(), data.size());
}

// Copies `n` bytes from `src` to `dst` (no overlap) and extends the crc by the bytes that were
// read once and written: the crc is true of `dst` even when `src` changes meanwhile.
uint32_t CopyAndExtendCrc32c(uint32_t crc, void* dst, const void* src, size_t n);

// The crc of a followed by b, from the crcs of the two and b's length: parts of one thing can be
// checked by several threads.
uint32_t CombineCrc32c(uint32_t crc_a, uint32_t crc_b, uint64_t size_b);

// Formats store crcs masked, since the crc of bytes that hold their own crc is degenerate:
// rotated right by 15 bits plus a constant (LevelDB's table_format).
inline uint32_t MaskCrc32c(uint32_t crc) { return ((crc >> 15) | (crc << 17)) + 0xa282ead8u; }
inline uint32_t UnmaskCrc32c(uint32_t masked) {
  const uint32_t rot = masked - 0xa282ead8u;
  return (rot >> 17) | (rot << 15);
}

}  // namespace ferry

#endif  // FERRY_RUNTIME_BASE_CRC32C_H_
