// Many small copies in one launch: a row of blocks of threads for each.
#include <cuda_runtime.h>

#include <algorithm>

#include "runtime/device/copy_pieces.h"

namespace ferry {
namespace {

constexpr int kThreads = 256;
constexpr uint64_t kBytesPerBlock = 16 << 10;

__global__ void __launch_bounds__(kThreads) CopyPiecesKernel(const CopyPiecesArgs pieces) {
  const CopyPiecesArgs::Piece piece = pieces.pieces[blockIdx.y];
  const char* from = static_cast<const char*>(piece.from);
  char* to = static_cast<char*>(piece.to);
  const uint64_t first = blockIdx.x * uint64_t{kThreads} + threadIdx.x;
  const uint64_t step = gridDim.x * uint64_t{kThreads};
  const uintptr_t places = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to);
  uint64_t done = 0;
  if (places % 16 == 0) {
    const uint64_t vectors = piece.bytes / 16;
    for (uint64_t i = first; i < vectors; i += step) {
      reinterpret_cast<uint4*>(to)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
    done = vectors * 16;
  } else if (places % 4 == 0) {
    const uint64_t words = piece.bytes / 4;
    for (uint64_t i = first; i < words; i += step) {
      reinterpret_cast<uint32_t*>(to)[i] = reinterpret_cast<const uint32_t*>(from)[i];
    }
    done = words * 4;
  }
  for (uint64_t i = done + first; i < piece.bytes; i += step) to[i] = from[i];
}

}  // namespace

int LaunchCopyPieces(void* stream, const CopyPiecesArgs& pieces, int count, uint64_t most_bytes) {
  const uint64_t rows = (most_bytes + kBytesPerBlock - 1) / kBytesPerBlock;
  const dim3 grid(static_cast<unsigned>(std::min<uint64_t>(std::max<uint64_t>(rows, 1), 1024)),
                  static_cast<unsigned>(count));
  CopyPiecesKernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(pieces);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace ferry
