// Groups of threads that work on one row together: 1, 2, 4 … 32 lanes of a warp, or a whole block
// of kThreads. How many is chosen by the row's length; threads of one block run the same loops, so
// that barriers and shuffles find everybody.
//
//   __shared__ Shared<float> shared;
//   const Group g(lanes);
//   for (int64_t r = g.FirstRow(); r < g.Rows(rows); r += g.RowStep()) {
//     float sum = 0;
//     if (r < rows) for (int64_t j = g.lane; j < columns; j += g.lanes) sum += x[r * columns + j];
//     sum = g.Combine(sum, SumF(), &shared);   // The same in every lane.
//   }
#ifndef FERRY_KERNELS_GPU_GROUP_CUH_
#define FERRY_KERNELS_GPU_GROUP_CUH_

#include "kernels/gpu.cuh"

namespace ferry {
namespace gpu {

inline constexpr int kWarps = kThreads / 32;

// For rows of `n` items.
inline int GroupLanes(int64_t n) {
  if (n > 2048) return kThreads;
  int lanes = 1;
  while (lanes < 32 && lanes * 4 < n) lanes *= 2;
  return lanes;
}
// Blocks of kThreads for `rows` groups.
inline unsigned GroupBlocks(const Call* c, int64_t rows, int lanes) {
  const int in_block = kThreads / lanes;
  return Blocks(c, (rows + in_block - 1) / in_block * kThreads);
}

__device__ inline float ShuffleXor(float v, int mask) {
  return __shfl_xor_sync(0xffffffffu, v, mask);
}
__device__ inline double ShuffleXor(double v, int mask) {
  return __shfl_xor_sync(0xffffffffu, v, mask);
}
__device__ inline int32_t ShuffleXor(int32_t v, int mask) {
  return __shfl_xor_sync(0xffffffffu, v, mask);
}
__device__ inline int64_t ShuffleXor(int64_t v, int mask) {
  return __shfl_xor_sync(0xffffffffu, static_cast<long long>(v), mask);  // NOLINT: CUDA's type.
}

// What a block's warps pass to each other.
template <typename Acc>
struct Shared {
  Acc v[kWarps];
};

struct Group {
  int lane, lanes;
  __device__ explicit Group(int lanes)
      : lane(static_cast<int>(threadIdx.x) & (lanes - 1)), lanes(lanes) {}

  // The group's rows; those of Rows(rows) that are beyond the last one are there for the barriers.
  __device__ int64_t FirstRow() const {
    return static_cast<int64_t>(blockIdx.x) * (kThreads / lanes) + threadIdx.x / lanes;
  }
  __device__ int64_t RowStep() const {
    return static_cast<int64_t>(gridDim.x) * (kThreads / lanes);
  }
  __device__ int64_t Rows(int64_t rows) const {
    const int in_block = kThreads / lanes;
    return (rows + in_block - 1) / in_block * in_block;
  }

  // All lanes' values combined in an order that is always the same. `f` is commutative; every
  // thread of the block calls this.
  template <typename Acc, typename F>
  __device__ Acc Combine(Acc v, const F& f, Shared<Acc>* shared) const {
    for (int mask = (lanes < 32 ? lanes : 32) / 2; mask > 0; mask /= 2) {
      v = f(v, ShuffleXor(v, mask));
    }
    if (lanes <= 32) return v;
    if (threadIdx.x % 32 == 0) shared->v[threadIdx.x / 32] = v;
    __syncthreads();
    v = shared->v[0];
    for (int w = 1; w < kWarps; ++w) v = f(v, shared->v[w]);
    __syncthreads();
    return v;
  }
};

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_GROUP_CUH_
