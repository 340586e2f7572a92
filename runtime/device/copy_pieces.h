// The kernel that makes many small copies at once, for GpuDevice::CopyPieces.
#ifndef FERRY_RUNTIME_DEVICE_COPY_PIECES_H_
#define FERRY_RUNTIME_DEVICE_COPY_PIECES_H_

#include <cstdint>

namespace ferry {

// They travel as the kernel's parameters, which may take 4 KiB.
struct CopyPiecesArgs {
  static constexpr int kMost = 160;
  struct Piece {
    void* to;
    const void* from;
    uint64_t bytes;
  };
  Piece pieces[kMost];
};

// `stream` is a cudaStream_t, the result a cudaError_t. `most_bytes`: of the largest piece.
int LaunchCopyPieces(void* stream, const CopyPiecesArgs& pieces, int count, uint64_t most_bytes);

}  // namespace ferry

#endif  // FERRY_RUNTIME_DEVICE_COPY_PIECES_H_
