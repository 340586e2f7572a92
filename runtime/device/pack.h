// The kernel that gathers pieces of memory into one, for GpuDevice::Pack.
#ifndef FERRY_RUNTIME_DEVICE_PACK_H_
#define FERRY_RUNTIME_DEVICE_PACK_H_

#include <cstdint>

namespace ferry {

// They travel as the kernel's parameters, which may take 4 KiB.
struct PackPieces {
  static constexpr int kMost = 160;
  struct Piece {
    const void* from;
    uint64_t to_offset;
    uint64_t bytes;
  };
  Piece pieces[kMost];
};

// `stream` is a cudaStream_t, the result a cudaError_t.
int LaunchPack(void* stream, void* to, const PackPieces& pieces, int count, uint64_t most_bytes);

}  // namespace ferry

#endif  // FERRY_RUNTIME_DEVICE_PACK_H_
