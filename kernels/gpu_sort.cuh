// A stable sort of positions by 32-bit keys, for kernels that must meet equal indices in their
// order. A few are sorted by one block, which counts what comes before each; many by radix, four
// bits a pass: tiles count their digits, the counts are summed, and each tile puts its items where
// they belong.
#ifndef FERRY_KERNELS_GPU_SORT_CUH_
#define FERRY_KERNELS_GPU_SORT_CUH_

#include <utility>

#include "kernels/gpu_group.cuh"

namespace ferry {
namespace gpu {

inline constexpr int kDigits = 16;
inline constexpr int kFew = 1024;

// All n <= kFew keys, in one block of as many threads.
static __global__ void __launch_bounds__(kFew)
    SortFewKernel(const uint32_t* keys, int n, uint32_t* keys_out, uint32_t* positions_out) {
  __shared__ uint32_t all[kFew];
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) all[i] = keys[i];
  __syncthreads();
  if (i >= n) return;
  const uint32_t key = all[i];
  int at = 0;
  for (int k = 0; k < n; ++k) at += all[k] < key || (all[k] == key && k < i);
  keys_out[at] = key;
  positions_out[at] = static_cast<uint32_t>(i);
}

// counts[digit * tiles + tile]: how often each digit occurs in each kThreads keys.
static __global__ void __launch_bounds__(kThreads)
    CountDigitsKernel(const uint32_t* keys, int64_t n, int shift, uint32_t* counts, int64_t tiles) {
  __shared__ uint32_t count[kDigits];
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    if (threadIdx.x < kDigits) count[threadIdx.x] = 0;
    __syncthreads();
    const int64_t i = tile * kThreads + threadIdx.x;
    if (i < n) atomicAdd(&count[keys[i] >> shift & (kDigits - 1)], 1u);
    __syncthreads();
    if (threadIdx.x < kDigits) counts[threadIdx.x * tiles + tile] = count[threadIdx.x];
  }
}

// Makes each of `n` counts the sum of those before it. One block.
static __global__ void __launch_bounds__(kThreads) SumCountsKernel(uint32_t* counts, int64_t n) {
  __shared__ uint32_t sums[kThreads];
  const int t = static_cast<int>(threadIdx.x);
  const int64_t share = (n + kThreads - 1) / kThreads;
  const int64_t begin = t * share < n ? t * share : n;
  const int64_t end = begin + share < n ? begin + share : n;
  uint32_t sum = 0;
  for (int64_t i = begin; i < end; ++i) sum += counts[i];
  sums[t] = sum;
  __syncthreads();
  for (int step = 1; step < kThreads; step *= 2) {
    const uint32_t before = t >= step ? sums[t - step] : 0;
    __syncthreads();
    sums[t] += before;
    __syncthreads();
  }
  sum = sums[t] - sum;
  for (int64_t i = begin; i < end; ++i) {
    const uint32_t count = counts[i];
    counts[i] = sum;
    sum += count;
  }
}

// `positions` null: the first pass, where item i is at position i.
static __global__ void __launch_bounds__(kThreads)
    PlaceByDigitKernel(const uint32_t* keys, const uint32_t* positions, int64_t n, int shift,
                       const uint32_t* starts, int64_t tiles, uint32_t* keys_out,
                       uint32_t* positions_out) {
  __shared__ uint32_t count[kWarps][kDigits];
  const uint32_t lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int64_t tile = blockIdx.x; tile < tiles; tile += gridDim.x) {
    if (threadIdx.x < kWarps * kDigits) count[threadIdx.x / kDigits][threadIdx.x % kDigits] = 0;
    const int64_t i = tile * kThreads + threadIdx.x;
    const bool valid = i < n;
    const uint32_t key = valid ? keys[i] : 0;
    const uint32_t digit = key >> shift & (kDigits - 1);
    // The lanes that have the same digit.
    uint32_t peers = __ballot_sync(0xffffffffu, valid);
    for (int bit = 1; bit < kDigits; bit *= 2) {
      const uint32_t set = __ballot_sync(0xffffffffu, (digit & bit) != 0);
      peers &= digit & bit ? set : ~set;
    }
    uint32_t rank = __popc(peers & ((1u << lane) - 1));
    __syncthreads();
    if (valid && rank == 0) count[warp][digit] = __popc(peers);
    __syncthreads();
    for (uint32_t w = 0; w < warp; ++w) rank += count[w][digit];
    if (valid) {
      const uint32_t to = starts[digit * tiles + tile] + rank;
      keys_out[to] = key;
      positions_out[to] = positions ? positions[i] : static_cast<uint32_t>(i);
    }
    __syncthreads();
  }
}

// What SortPositions needs of memory, and what it gives.
struct SortSpace {
  explicit SortSpace(int64_t n) : n(n), tiles((n + kThreads - 1) / kThreads) {}
  int64_t bytes() const {
    return (4 * n + kDigits * tiles) * static_cast<int64_t>(sizeof(uint32_t));
  }
  // REQUIRES: `memory` has bytes().
  void Use(void* memory) {
    keys = static_cast<uint32_t*>(memory);
    positions = keys + n;
  }
  const int64_t n, tiles;
  uint32_t* keys = nullptr;       // To be filled with the keys; afterwards they are sorted.
  uint32_t* positions = nullptr;  // Afterwards: where each of the sorted keys was.
};

// Sorts by the keys' lowest `bits` bits, 1 to 32. 0 < n < 2^31.
inline bool SortPositions(Call* c, int bits, SortSpace* s) {
  uint32_t *keys = s->keys, *positions = s->positions;
  uint32_t *next_keys = positions + s->n, *next_positions = next_keys + s->n;
  uint32_t* const counts = next_positions + s->n;
  if (s->n <= kFew) {
    SortFewKernel<<<1, kFew, 0, Stream(c)>>>(keys, static_cast<int>(s->n), next_keys,
                                             next_positions);
    s->keys = next_keys;
    s->positions = next_positions;
    return c->Launched("SortFewKernel");
  }
  const unsigned blocks = Blocks(c, s->tiles * kThreads);
  for (int shift = 0; shift < bits; shift += 4) {
    CountDigitsKernel<<<blocks, kThreads, 0, Stream(c)>>>(keys, s->n, shift, counts, s->tiles);
    if (!c->Launched("CountDigitsKernel")) return false;
    SumCountsKernel<<<1, kThreads, 0, Stream(c)>>>(counts, kDigits * s->tiles);
    if (!c->Launched("SumCountsKernel")) return false;
    PlaceByDigitKernel<<<blocks, kThreads, 0, Stream(c)>>>(keys, shift == 0 ? nullptr : positions,
                                                           s->n, shift, counts, s->tiles, next_keys,
                                                           next_positions);
    if (!c->Launched("PlaceByDigitKernel")) return false;
    std::swap(keys, next_keys);
    std::swap(positions, next_positions);
  }
  s->keys = keys;
  s->positions = positions;
  return true;
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_SORT_CUH_
