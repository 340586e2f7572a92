// What moving data on a GPU takes: launches that the kernels of array.cc, gather.cc and pad.cc call
// where their CPU form loops over elements. The .cu files put them into Array() at start-up, so
// that programs without CUDA code link. Like the CPU's they work by an element's width in bytes
// (1, 2, 4 or 8), not its dtype.
//
// All enqueue on the call's stream and return false after an error, which the call keeps.
#ifndef FERRY_KERNELS_GPU_ARRAY_H_
#define FERRY_KERNELS_GPU_ARRAY_H_

#include <cstdint>

#include "kernels/gpu.h"

namespace ferry {
namespace gpu {

// As CopyDim in array.h: sizes and strides in elements.
struct StridedDim {
  int64_t size, from, to;
};

// `rows` runs of `run` elements, `from_pitch` elements apart in one tensor and `to_pitch` in the
// other.
struct RunPiece {
  const void* from;
  void* to;
  int64_t run, from_pitch, to_pitch;
};

// A tensor of integers that say where rows lie: of shape [n, depth], each row an index into the
// first `depth` dimensions of a tensor, whose sizes are `dims`.
struct NdIndices {
  const void* data;
  DType dtype;  // uint8, int8, int16, int32 or int64.
  int64_t n, depth;
  const int64_t* dims;
};

// Row r of the result, r = (block, i) with i < n, is that of the `limit` rows of params from
// block * limit on which row block / outer * n + i of `indices` points to; zeros if it points
// outside.
struct GatherRows {
  NdIndices indices;
  int width;
  const void* params;
  void* out;
  int64_t rows, n, outer, limit, inner;
};

struct ArrayFunctions {
  // As StridedCopy in array.h, with dims normalised: no size 0 or 1, and neighbours merged.
  bool (*copy)(Call*, int width, const void* from, void* to, const StridedDim* dims, int rank);
  bool (*copy_runs)(Call*, int width, int64_t rows, const RunPiece* pieces, int count);

  bool (*gather)(Call*, const GatherRows&);
  // out[i / inner, indices[i], i % inner] = *on (in device memory) for the indices that are in
  // [0, dims[0]); out is [n / inner, dims[0], inner].
  bool (*mark)(Call*, int width, const NdIndices& indices, int64_t inner, const void* on,
               void* out);
  // out[k] = the sum of the rows of data [n, inner] whose index is k, for each k < rows that
  // occurs; others stay. Rows whose index points outside are left out. The order of the additions
  // depends on the indices alone.
  bool (*sum_rows)(Call*, DType dtype, const NdIndices& indices, const void* data, int64_t inner,
                   int64_t rows, void* out);
};
ArrayFunctions& Array();

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_ARRAY_H_
