// What moving data and working on rows take on a GPU: launches that the kernels of array.cc,
// gather.cc, scatter.cc and their like call where their CPU form loops over elements. The .cu files
// put them into Array() at start-up, so that programs without CUDA code link. What only moves
// elements works by their width in bytes (1, 2, 4 or 8), not their dtype, as on the CPU.
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
  DType dtype;  // uint8, int8, uint16, int16, int32 or int64.
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

// What is done to an element of a row by one that comes to it; integers wrap around.
enum class RowOp { kReplace, kAdd, kSub, kMul, kDiv, kMin, kMax };

// to[indices[i]] = op(to[indices[i]], updates[i]) for rows of `inner` elements, one after the
// other. Indices that point outside the `rows` rows of `to` are left out.
struct CombineRows {
  RowOp op;
  DType dtype;  // A number, of kDiv a float; of kReplace any,
  int width;    // whose elements have so many bytes.
  NdIndices indices;
  const void* updates;
  bool scalar;  // There is one element, which goes everywhere.
  int64_t rows, inner;
  void* to;
};

// out[k] = the sum, product, minimum or maximum of the rows of data that go to row k, for each
// k < rows. The order of the arithmetic depends on where rows go alone. It starts with the first
// row, and no rows make 0 (products 1); if `from_limits` minima and maxima start with the greatest
// (lowest) finite number, which is also what no rows make.
struct ReduceRows {
  RowOp op;     // kAdd, kMul, kMin or kMax.
  DType dtype;  // A number.
  const void* data;
  int64_t rows, inner;
  void* out;
  bool from_limits = false;
  // Divides a sum of n rows, of a float type, by n or its root.
  enum Scale { kNone, kMean, kSqrtN } scale = kNone;
};

// Where rows go, in host memory, in increasing order: row from[i] of the data to row to[i].
// Numbers below 2^31.
struct HostRows {
  const uint32_t* to;
  const uint32_t* from;    // Null: i.
  const uint32_t* counts;  // Null, or each row is divided by counts[i] or its root, as `scale`
                           // says, and not the sum.
  int64_t n;
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

  bool (*combine_rows)(Call*, const CombineRows&);
  // Row i of data goes to where indices[i] points; to none if that is outside.
  bool (*reduce_rows)(Call*, const ReduceRows&, const NdIndices& indices);
  bool (*reduce_host_rows)(Call*, const ReduceRows&, const HostRows&);
  // to[rows[i]] = from[i] for n rows of `inner` elements; none is named twice. 0xffffffff: nowhere.
  // `rows` lies in device memory, as all here.
  bool (*place_rows)(Call*, int width, const uint32_t* rows, int64_t n, int64_t inner,
                     const void* from, void* to);
  // Copies n numbers of host memory to device memory as arguments of kernels: nothing waits, and
  // host memory may change when this returns.
  bool (*send)(Call*, const uint32_t* from, int64_t n, uint32_t* to);
  // y = the running sums of x [outer, n, inner] along its middle dimension.
  bool (*running_sums)(Call*, DType dtype, const void* x, int64_t outer, int64_t n, int64_t inner,
                       bool exclusive, bool reverse, void* y);
};
ArrayFunctions& Array();

}  // namespace gpu
}  // namespace ferry

#endif  // FERRY_KERNELS_GPU_ARRAY_H_
