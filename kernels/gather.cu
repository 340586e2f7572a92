// Picking, marking and adding rows by index, on a GPU. An index that points outside can't be
// reported from there: it picks zeros, marks nothing and adds to nothing.
#include "kernels/gpu.cuh"
#include "kernels/gpu_array.h"
#include "kernels/gpu_storage.cuh"

namespace ferry {
namespace gpu {
namespace {

__device__ inline int64_t IndexAt(const void* p, DType dtype, int64_t i) {
  switch (dtype) {
    case DType::kInt32:
      return static_cast<const int32_t*>(p)[i];
    case DType::kInt64:
      return static_cast<const int64_t*>(p)[i];
    case DType::kInt16:
      return static_cast<const int16_t*>(p)[i];
    case DType::kInt8:
      return static_cast<const int8_t*>(p)[i];
    default:
      return static_cast<const uint8_t*>(p)[i];
  }
}

// ---- Indices of several dimensions ----

constexpr int kMostDepth = 254;  // As many dimensions as a tensor may have.
struct Depths {
  int64_t dims[kMostDepth];
};

// out[i] = the row that the i-th index points to, `rows` if that is outside.
__global__ void __launch_bounds__(kThreads)
    FlattenKernel(const void* indices, DType dtype, int64_t n, int depth, const Depths depths,
                  int64_t rows, int64_t* out) {
  for (int64_t i = First(); i < n; i += Step()) {
    int64_t at = 0;
    bool inside = true;
    for (int d = 0; d < depth; ++d) {
      const int64_t dim = depths.dims[d], k = IndexAt(indices, dtype, i * depth + d);
      inside = inside && k >= 0 && k < dim;
      at = at * dim + k;
    }
    out[i] = inside ? at : rows;
  }
}

bool Flatten(Call* c, const NdIndices& indices, int64_t rows, int64_t* out) {
  Depths depths = {};
  std::copy_n(indices.dims, indices.depth, depths.dims);
  FlattenKernel<<<Blocks(c, indices.n), kThreads, 0, Stream(c)>>>(
      indices.data, indices.dtype, indices.n, static_cast<int>(indices.depth), depths, rows, out);
  return c->Launched("FlattenKernel");
}

// ---- Gather ----

template <typename T, typename Index>
__global__ void __launch_bounds__(kThreads) GatherKernel(const GatherRows g) {
  const T* params = static_cast<const T*>(g.params);
  T* out = static_cast<T*>(g.out);
  const Index inner = static_cast<Index>(g.inner), n = static_cast<Index>(g.n),
              outer = static_cast<Index>(g.outer), limit = static_cast<Index>(g.limit);
  for (int64_t e = First(); e < g.rows * g.inner; e += Step()) {
    const Index row = static_cast<Index>(e) / inner, col = static_cast<Index>(e) - row * inner;
    const Index block = row / n, i = row - block * n;
    const int64_t k = IndexAt(g.indices.data, g.indices.dtype, block / outer * n + i);
    T value = {};
    if (k >= 0 && k < g.limit) value = params[(block * limit + static_cast<Index>(k)) * inner + col];
    out[e] = value;
  }
}

bool Gather(Call* c, const GatherRows& asked) {
  GatherRows g = asked;
  if (g.indices.depth != 1) {
    int64_t* flat = static_cast<int64_t*>(c->Scratch(g.indices.n * int64_t{sizeof(int64_t)}));
    if (!flat || !Flatten(c, g.indices, g.limit, flat)) return false;
    g.indices.data = flat;
    g.indices.dtype = DType::kInt64;
  }
  // Rows are copied in elements as wide as alignment allows.
  const uint64_t bits = reinterpret_cast<uintptr_t>(g.params) |
                        reinterpret_cast<uintptr_t>(g.out) |
                        static_cast<uint64_t>(g.inner * g.width);
  const int wide = static_cast<int>(std::min<uint64_t>(16, bits & (~bits + 1)));
  g.inner /= wide / g.width;
  const int64_t elements = g.rows * g.inner;
  const int64_t reach = std::max(elements, g.rows / g.n * g.limit * g.inner);
  const unsigned blocks = Blocks(c, elements);
  WithElement(wide, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    if (reach <= std::numeric_limits<int32_t>::max()) {
      GatherKernel<T, int32_t><<<blocks, kThreads, 0, Stream(c)>>>(g);
    } else {
      GatherKernel<T, int64_t><<<blocks, kThreads, 0, Stream(c)>>>(g);
    }
  });
  return c->Launched("GatherKernel");
}

// ---- Marks ----

template <typename T>
__global__ void __launch_bounds__(kThreads)
    MarkKernel(const void* indices, DType dtype, int64_t n, int64_t depth, int64_t inner,
               const T* on, T* out) {
  const T value = *on;
  for (int64_t i = First(); i < n; i += Step()) {
    const int64_t k = IndexAt(indices, dtype, i), block = i / inner;
    if (k >= 0 && k < depth) out[(block * depth + k) * inner + (i - block * inner)] = value;
  }
}

bool Mark(Call* c, int width, const NdIndices& indices, int64_t inner, const void* on, void* out) {
  WithElement(width, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    MarkKernel<T><<<Blocks(c, indices.n), kThreads, 0, Stream(c)>>>(
        indices.data, indices.dtype, indices.n, indices.dims[0], inner, static_cast<const T*>(on),
        static_cast<T*>(out));
  });
  return c->Launched("MarkKernel");
}

// ---- Sums of rows ----
//
// The rows are sorted by index, equal ones in their order, so that those of one sum are neighbours.
// Then kChunk neighbours at a time are added up; sums that reach over several chunks are put
// together at the end.

constexpr int kSortTile = 1024;  // Rows that one block sorts.
constexpr int kDigits = 256;     // Larger numbers of rows are sorted by a byte of the index a time.
constexpr int kChunk = 64;

// All n <= kSortTile rows, in one block.
__global__ void __launch_bounds__(kSortTile)
    SortTileKernel(const int64_t* keys, int n, int64_t* sorted, int64_t* from) {
  __shared__ int64_t all[kSortTile];
  const int i = static_cast<int>(threadIdx.x);
  if (i < n) all[i] = keys[i];
  __syncthreads();
  if (i >= n) return;
  const int64_t key = all[i];
  int at = 0;
  for (int k = 0; k < n; ++k) at += all[k] < key || (all[k] == key && k < i);
  sorted[at] = key;
  from[at] = i;
}

__device__ inline int Digit(int64_t key, int shift) {
  return static_cast<int>(key >> shift & (kDigits - 1));
}

// counts[digit * tiles + tile] = how many keys of the tile have that digit.
__global__ void __launch_bounds__(kSortTile)
    CountKernel(const int64_t* keys, int64_t n, int shift, int64_t* counts) {
  __shared__ int found[kDigits];
  if (threadIdx.x < kDigits) found[threadIdx.x] = 0;
  __syncthreads();
  const int64_t i = First();
  if (i < n) atomicAdd(&found[Digit(keys[i], shift)], 1);
  __syncthreads();
  if (threadIdx.x < kDigits) counts[int64_t{threadIdx.x} * gridDim.x + blockIdx.x] = found[threadIdx.x];
}

// Each count becomes the sum of those before it. One block.
__global__ void __launch_bounds__(kSortTile) ScanKernel(int64_t* counts, int64_t n) {
  __shared__ int64_t sums[kSortTile];
  int64_t before = 0;
  for (int64_t base = 0; base < n; base += kSortTile) {
    const int64_t i = base + threadIdx.x;
    const int64_t own = i < n ? counts[i] : 0;
    sums[threadIdx.x] = own;
    __syncthreads();
    for (unsigned step = 1; step < kSortTile; step *= 2) {
      const int64_t left = threadIdx.x >= step ? sums[threadIdx.x - step] : 0;
      __syncthreads();
      sums[threadIdx.x] += left;
      __syncthreads();
    }
    if (i < n) counts[i] = before + sums[threadIdx.x] - own;
    before += sums[kSortTile - 1];
    __syncthreads();
  }
}

// Moves each key behind those of smaller digits, of former tiles, and before it in its own tile.
// `from`: null for the rows' own order.
__global__ void __launch_bounds__(kSortTile)
    MoveKernel(const int64_t* keys, const int64_t* from, int64_t n, int shift,
               const int64_t* starts, int64_t* to_keys, int64_t* to_from) {
  __shared__ int digits[kSortTile];
  const int64_t i = First();
  const int own = static_cast<int>(threadIdx.x);
  if (i < n) digits[own] = Digit(keys[i], shift);
  __syncthreads();
  if (i >= n) return;
  const int digit = digits[own];
  int64_t at = starts[int64_t{digit} * gridDim.x + blockIdx.x];
  for (int k = 0; k < own; ++k) at += digits[k] == digit;
  to_keys[at] = keys[i];
  to_from[at] = from ? from[i] : i;
}

// A thread adds the rows of a chunk in one column. Sums that lie within the chunk go to `out`; that
// of the first rows, if it began before, to lead[chunk], and that of the last ones, if it goes on
// behind but begins here, to tail[chunk].
template <typename T>
__global__ void __launch_bounds__(kThreads)
    SumChunksKernel(const int64_t* keys, const int64_t* from, int64_t n, const T* data,
                    int64_t inner, int64_t rows, T* out, Wide<T>* lead, Wide<T>* tail) {
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  for (int64_t e = First(); e < chunks * inner; e += Step()) {
    const int64_t chunk = e / inner, col = e - chunk * inner;
    const int64_t begin = chunk * kChunk, end = begin + kChunk < n ? begin + kChunk : n;
    int64_t key = keys[begin];
    bool leads = begin > 0 && keys[begin - 1] == key;
    Wide<T> sum = 0;
    for (int64_t p = begin; p < end && key < rows; ++p) {
      const int64_t next = keys[p];
      if (next != key) {
        if (leads) {
          lead[e] = sum;
        } else {
          out[key * inner + col] = Narrow<T>(sum);
        }
        key = next;
        leads = false;
        sum = 0;
        if (key >= rows) break;
      }
      sum = static_cast<Wide<T>>(sum + Widen(data[from[p] * inner + col]));
    }
    if (key >= rows) continue;  // Rows that point outside come last.
    if (leads) {
      lead[e] = sum;
    } else if (end < n && keys[end] == key) {
      tail[e] = sum;
    } else {
      out[key * inner + col] = Narrow<T>(sum);
    }
  }
}

// Sums that begin in one chunk and end in another.
template <typename T>
__global__ void __launch_bounds__(kThreads)
    JoinChunksKernel(const int64_t* keys, int64_t n, int64_t inner, int64_t rows, T* out,
                     const Wide<T>* lead, const Wide<T>* tail) {
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  for (int64_t e = First(); e < (chunks - 1) * inner; e += Step()) {
    const int64_t chunk = e / inner, col = e - chunk * inner, end = (chunk + 1) * kChunk;
    const int64_t key = keys[end - 1];
    if (key >= rows || keys[end] != key) continue;
    if (chunk > 0 && keys[chunk * kChunk - 1] == key) continue;  // It began before.
    Wide<T> sum = tail[e];
    for (int64_t k = chunk + 1; k < chunks && keys[k * kChunk] == key; ++k) {
      sum = static_cast<Wide<T>>(sum + lead[k * inner + col]);
    }
    out[key * inner + col] = Narrow<T>(sum);
  }
}

template <typename T>
bool SumSorted(Call* c, const int64_t* keys, const int64_t* from, int64_t n, const void* data,
               int64_t inner, int64_t rows, void* out, void* partial) {
  const int64_t chunks = (n + kChunk - 1) / kChunk;
  Wide<T>* const lead = static_cast<Wide<T>*>(partial);
  Wide<T>* const tail = lead + chunks * inner;
  const unsigned blocks = Blocks(c, chunks * inner);
  SumChunksKernel<T><<<blocks, kThreads, 0, Stream(c)>>>(
      keys, from, n, static_cast<const T*>(data), inner, rows, static_cast<T*>(out), lead, tail);
  if (!c->Launched("SumChunksKernel")) return false;
  if (chunks == 1) return true;
  JoinChunksKernel<T><<<blocks, kThreads, 0, Stream(c)>>>(keys, n, inner, rows,
                                                          static_cast<T*>(out), lead, tail);
  return c->Launched("JoinChunksKernel");
}

bool SumRows(Call* c, DType dtype, const NdIndices& indices, const void* data, int64_t inner,
             int64_t rows, void* out) {
  const int64_t n = indices.n;
  if (n == 0 || inner == 0 || rows == 0) return true;
  const int64_t tiles = (n + kSortTile - 1) / kSortTile, chunks = (n + kChunk - 1) / kChunk;
  // Two of keys and of the rows' numbers, the counts, the chunks' sums.
  int64_t* scratch = static_cast<int64_t*>(c->Scratch(
      (4 * n + kDigits * tiles + 2 * chunks * inner) * int64_t{sizeof(int64_t)}));
  if (!scratch) return false;
  int64_t* keys[2] = {scratch, scratch + n};
  int64_t* from[2] = {scratch + 2 * n, scratch + 3 * n};
  int64_t* const counts = scratch + 4 * n;
  int64_t* const partial = counts + kDigits * tiles;
  if (!Flatten(c, indices, rows, keys[0])) return false;
  int now = 0;
  if (tiles == 1) {
    SortTileKernel<<<1, kSortTile, 0, Stream(c)>>>(keys[0], static_cast<int>(n), keys[1], from[1]);
    if (!c->Launched("SortTileKernel")) return false;
    now = 1;
  } else {
    const unsigned blocks = static_cast<unsigned>(tiles);
    for (int shift = 0; shift < 64 && rows >> shift != 0; shift += 8) {
      CountKernel<<<blocks, kSortTile, 0, Stream(c)>>>(keys[now], n, shift, counts);
      if (!c->Launched("CountKernel")) return false;
      ScanKernel<<<1, kSortTile, 0, Stream(c)>>>(counts, kDigits * tiles);
      if (!c->Launched("ScanKernel")) return false;
      MoveKernel<<<blocks, kSortTile, 0, Stream(c)>>>(keys[now], shift == 0 ? nullptr : from[now],
                                                      n, shift, counts, keys[1 - now],
                                                      from[1 - now]);
      if (!c->Launched("MoveKernel")) return false;
      now = 1 - now;
    }
  }
  const auto sum = [&](auto* type) {
    return SumSorted<std::remove_pointer_t<decltype(type)>>(c, keys[now], from[now], n, data,
                                                            inner, rows, out, partial);
  };
  switch (dtype) {
    case DType::kHalf:
      return sum(static_cast<half*>(nullptr));
    case DType::kBfloat16:
      return sum(static_cast<bfloat16*>(nullptr));
    case DType::kFloat:
      return sum(static_cast<float*>(nullptr));
    case DType::kDouble:
      return sum(static_cast<double*>(nullptr));
    case DType::kInt8:
    case DType::kUint8:
      return sum(static_cast<uint8_t*>(nullptr));
    case DType::kInt16:
    case DType::kUint16:
      return sum(static_cast<uint16_t*>(nullptr));
    case DType::kInt32:
    case DType::kUint32:
      return sum(static_cast<uint32_t*>(nullptr));
    case DType::kInt64:
    case DType::kUint64:
      return sum(static_cast<uint64_t*>(nullptr));
    default:
      return c->Fail(Error::kUnimplemented, "rows of this type can't be added on a GPU");
  }
}

[[maybe_unused]] const bool registered = [] {
  Array().gather = &Gather;
  Array().mark = &Mark;
  Array().sum_rows = &SumRows;
  return true;
}();

}  // namespace
}  // namespace gpu
}  // namespace ferry
