// Work on rows that indices name, on a GPU.
//
// Rows that are named several times are met in the order of the indices, as on the CPU, so that
// results are the same each time: the indices are sorted first. An index out of range can't be told
// of from the device; its row is left out.
#ifndef FERRY_KERNELS_GPU_ROWS_CUH_
#define FERRY_KERNELS_GPU_ROWS_CUH_

#include <algorithm>
#include <limits>

#include "kernels/gpu_array.h"
#include "kernels/gpu_sort.cuh"

namespace ferry {
namespace gpu {

__device__ inline int64_t IndexAt(const void* p, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kInt32:
      return static_cast<const int32_t*>(p)[i];
    case DType::kInt64:
      return static_cast<const int64_t*>(p)[i];
    case DType::kInt16:
      return static_cast<const int16_t*>(p)[i];
    case DType::kUint16:
      return static_cast<const uint16_t*>(p)[i];
    case DType::kInt8:
      return static_cast<const int8_t*>(p)[i];
    default:
      return static_cast<const uint8_t*>(p)[i];
  }
}

// ---- Indices of several dimensions ----

inline constexpr int kMostDepth = 254;  // As many dimensions as a tensor may have.
struct Depths {
  int64_t dims[kMostDepth];
};

// out[i] = the row that the i-th index points to, `rows` if that is outside.
template <typename Out>
__global__ void __launch_bounds__(kThreads)
    FlattenKernel(const void* indices, DType dtype, int64_t n, int depth, const Depths depths,
                  int64_t rows, Out* out) {
  for (int64_t i = First(); i < n; i += Step()) {
    int64_t at = 0;
    bool inside = true;
    for (int d = 0; d < depth; ++d) {
      const int64_t dim = depths.dims[d], k = IndexAt(indices, dtype, i * depth + d);
      inside = inside && k >= 0 && k < dim;
      at = at * dim + k;
    }
    out[i] = static_cast<Out>(inside ? at : rows);
  }
}

template <typename Out>
bool Flatten(Call* c, const NdIndices& indices, int64_t rows, Out* out) {
  Depths depths = {};
  std::copy_n(indices.dims, indices.depth, depths.dims);
  FlattenKernel<Out><<<Blocks(c, indices.n), kThreads, 0, Stream(c)>>>(
      indices.data, indices.dtype, indices.n, static_cast<int>(indices.depth), depths, rows, out);
  return c->Launched("FlattenKernel");
}

// ---- Sorted rows ----

// n rows of `size` elements each that go to rows [0, `rows`), as a kernel's parameter. In device
// memory, in the order of where they go: number p is row From(p) and goes to row keys[p]. Keys of
// `rows` and above are to be left out; they come last.
struct Rows {
  const uint32_t* keys = nullptr;
  const uint32_t* positions = nullptr;  // Null: their own order.
  int64_t n = 0, rows = 0, size = 0;

  __device__ int64_t From(int64_t p) const { return positions ? positions[p] : p; }
  // Whether number p is the first, or the last, of those that go to a row that there is.
  __device__ bool Starts(int64_t p) const {
    return keys[p] < rows && (p == 0 || keys[p - 1] != keys[p]);
  }
  __device__ bool Ends(int64_t p) const {
    return keys[p] < rows && (p + 1 == n || keys[p + 1] != keys[p]);
  }
};

// What Rows can count.
inline bool CheckCounts(Call* c, int64_t n, int64_t rows) {
  const int64_t most = std::numeric_limits<int32_t>::max();
  return std::max(n, rows) <= most ||
         c->Fail(Error::kUnimplemented,
                 "more than 2^31 - 1 indices, or indices of more rows, on a GPU");
}

// The rows that the indices name, of which there are some. Takes the call's scratch memory; of it
// *more (if not null) is `more_bytes` for the caller, aligned to 256 bytes. False after an error.
inline bool SortRows(Call* c, const NdIndices& indices, int64_t rows, int64_t size, Rows* out,
                     int64_t more_bytes = 0, void** more = nullptr) {
  if (!CheckCounts(c, indices.n, rows)) return false;
  SortSpace sorted(indices.n);
  more_bytes = (more_bytes + 255) / 256 * 256;
  char* const space = static_cast<char*>(c->Scratch(more_bytes + sorted.bytes()));
  if (!space) return false;
  if (more) *more = space;
  sorted.Use(space + more_bytes);
  int bits = 1;
  while (rows >> bits > 0) ++bits;
  if (!Flatten(c, indices, rows, sorted.keys) || !SortPositions(c, bits, &sorted)) return false;
  *out = {sorted.keys, sorted.positions, indices.n, rows, size};
  return true;
}

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_ROWS_CUH_
