// Gathers pieces of device memory into one block: a row of blocks of threads for each piece.
#include <cuda_runtime.h>

#include <algorithm>

#include "runtime/device/pack.h"

namespace ferry {
namespace {

constexpr int kThreads = 256;
constexpr uint64_t kBytesPerBlock = 16 << 10;

__global__ void __launch_bounds__(kThreads)
    PackKernel(char* __restrict__ to, const PackPieces pieces) {
  const PackPieces::Piece piece = pieces.pieces[blockIdx.y];
  const char* from = static_cast<const char*>(piece.from);
  char* out = to + piece.to_offset;
  const uint64_t first = blockIdx.x * uint64_t{kThreads} + threadIdx.x;
  const uint64_t step = gridDim.x * uint64_t{kThreads};
  const bool aligned =
      ((reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(out)) & 15) == 0;
  uint64_t done = 0;
  if (aligned) {
    const uint64_t vectors = piece.bytes / 16;
    for (uint64_t i = first; i < vectors; i += step) {
      reinterpret_cast<uint4*>(out)[i] = reinterpret_cast<const uint4*>(from)[i];
    }
    done = vectors * 16;
  }
  for (uint64_t i = done + first; i < piece.bytes; i += step) out[i] = from[i];
}

}  // namespace

int LaunchPack(void* stream, void* to, const PackPieces& pieces, int count, uint64_t most_bytes) {
  const uint64_t rows = (most_bytes + kBytesPerBlock - 1) / kBytesPerBlock;
  const dim3 grid(static_cast<unsigned>(std::min<uint64_t>(std::max<uint64_t>(rows, 1), 1024)),
                  static_cast<unsigned>(count));
  PackKernel<<<grid, kThreads, 0, static_cast<cudaStream_t>(stream)>>>(static_cast<char*>(to),
                                                                       pieces);
  return static_cast<int>(cudaGetLastError());
}

}  // namespace ferry
