// Copies of elements by strides, on a GPU: what Transpose, Slice, Tile, Pad, Concat and their like
// are made of.
#include <initializer_list>

#include "kernels/gpu.cuh"
#include "kernels/gpu_array.h"
#include "kernels/gpu_storage.cuh"

namespace ferry {
namespace gpu {
namespace {

// ---- Any strides: a thread an element of the result ----

// strides[0] are the source's, strides[1] the result's.
template <typename T, typename Index>
__global__ void __launch_bounds__(kThreads)
    StridedKernel(const T* from, T* to, int64_t n, const BroadcastView dims) {
  for (int64_t i = First(); i < n; i += Step()) {
    Index at[2];
    Locate<2, Index>(dims, static_cast<Index>(i), at);
    to[at[1]] = from[at[0]];
  }
}

bool LaunchStrided(Call* c, int width, const void* from, void* to, const StridedDim* dims,
                   int rank) {
  BroadcastView view = {};
  view.rank = rank;
  int64_t n = 1, reach[2] = {0, 0};
  for (int d = 0; d < rank; ++d) {
    view.dims[d] = dims[d].size;
    view.strides[0][d] = dims[d].from;
    view.strides[1][d] = dims[d].to;
    n *= dims[d].size;
    reach[0] += (dims[d].size - 1) * std::abs(dims[d].from);
    reach[1] += (dims[d].size - 1) * std::abs(dims[d].to);
  }
  const bool small =
      std::max({n, reach[0], reach[1]}) <= std::numeric_limits<int32_t>::max();
  const unsigned blocks = Blocks(c, n);
  WithElement(width, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    const T* f = static_cast<const T*>(from);
    T* t = static_cast<T*>(to);
    if (small) {
      StridedKernel<T, int32_t><<<blocks, kThreads, 0, Stream(c)>>>(f, t, n, view);
    } else {
      StridedKernel<T, int64_t><<<blocks, kThreads, 0, Stream(c)>>>(f, t, n, view);
    }
  });
  return c->Launched("StridedKernel");
}

// ---- Transposition, in tiles through shared memory so that both sides are read and written in
// ---- whole lines

constexpr int kTile = 32;
constexpr int kTileRows = kThreads / kTile;

// Along a matrix's rows the source is dense, along its columns the result; the dimensions around
// them are `outer`.
struct Matrices {
  int64_t rows, cols, cols_from, rows_to;
  int64_t row_tiles, col_tiles, tiles;
  int rank;
  StridedDim outer[kMaxDims];
};

template <typename T>
__global__ void __launch_bounds__(kThreads)
    TransposeKernel(const T* from, T* to, const Matrices m) {
  __shared__ T tile[kTile][kTile + 1];
  const int x = static_cast<int>(threadIdx.x) % kTile, y = static_cast<int>(threadIdx.x) / kTile;
  for (int64_t t = blockIdx.x; t < m.tiles; t += gridDim.x) {
    int64_t rest = t / m.col_tiles;
    const int64_t col0 = (t - rest * m.col_tiles) * kTile;
    const int64_t row0 = rest % m.row_tiles * kTile;
    rest /= m.row_tiles;
    const T* f = from + row0 + col0 * m.cols_from;
    T* o = to + row0 * m.rows_to + col0;
    for (int d = m.rank - 1; d >= 0; --d) {
      const int64_t i = rest % m.outer[d].size;
      rest /= m.outer[d].size;
      f += i * m.outer[d].from;
      o += i * m.outer[d].to;
    }
    for (int k = y; k < kTile; k += kTileRows) {
      if (row0 + x < m.rows && col0 + k < m.cols) tile[k][x] = f[x + k * m.cols_from];
    }
    __syncthreads();
    for (int k = y; k < kTile; k += kTileRows) {
      if (row0 + k < m.rows && col0 + x < m.cols) o[k * m.rows_to + x] = tile[x][k];
    }
    __syncthreads();  // Before the next tile is read.
  }
}

// `dense`: the dimension along which the source is dense; the last is the result's.
bool LaunchTranspose(Call* c, int width, const void* from, void* to, const StridedDim* dims,
                     int rank, int dense) {
  Matrices m = {};
  m.rows = dims[dense].size;
  m.rows_to = dims[dense].to;
  m.cols = dims[rank - 1].size;
  m.cols_from = dims[rank - 1].from;
  m.row_tiles = (m.rows + kTile - 1) / kTile;
  m.col_tiles = (m.cols + kTile - 1) / kTile;
  m.tiles = m.row_tiles * m.col_tiles;
  for (int d = 0; d < rank - 1; ++d) {
    if (d == dense) continue;
    m.outer[m.rank++] = dims[d];
    m.tiles *= dims[d].size;
  }
  const unsigned blocks = Blocks(c, m.tiles * kThreads);
  WithElement(width, [&](auto* type) {
    using T = std::remove_pointer_t<decltype(type)>;
    TransposeKernel<T><<<blocks, kThreads, 0, Stream(c)>>>(static_cast<const T*>(from),
                                                           static_cast<T*>(to), m);
  });
  return c->Launched("TransposeKernel");
}

// ---- One element, many times ----

// `to` is aligned to 16 bytes.
__global__ void __launch_bounds__(kThreads)
    FillKernel(const void* value, int width, unsigned char* to, int64_t bytes) {
  // The element repeated to 8 bytes.
  unsigned long long word;
  switch (width) {
    case 1:
      word = *static_cast<const uint8_t*>(value) * 0x0101010101010101ull;
      break;
    case 2:
      word = *static_cast<const uint16_t*>(value) * 0x0001000100010001ull;
      break;
    case 4:
      word = *static_cast<const uint32_t*>(value) * 0x0000000100000001ull;
      break;
    default:
      word = *static_cast<const unsigned long long*>(value);
  }
  const ulonglong2 both = make_ulonglong2(word, word);
  const int64_t vectors = bytes / 16;
  for (int64_t i = First(); i < vectors; i += Step()) reinterpret_cast<ulonglong2*>(to)[i] = both;
  for (int64_t i = vectors * 16 + First(); i < bytes; i += Step()) {
    to[i] = static_cast<unsigned char>(word >> (i % 8 * 8));
  }
}

// ---- The general copy ----

// The largest power of two up to 16 that divides all that was or-ed into `bits`.
int CommonWidth(uint64_t bits) {
  return static_cast<int>(std::min<uint64_t>(16, bits & (~bits + 1)));
}

bool Copy(Call* c, int width, const void* from, void* to, const StridedDim* all, int rank) {
  if (rank > kMaxDims) {
    for (int64_t i = 0; i < all[0].size; ++i) {
      if (!Copy(c, width, static_cast<const char*>(from) + i * all[0].from * width,
                static_cast<char*>(to) + i * all[0].to * width, all + 1, rank - 1)) {
        return false;
      }
    }
    return true;
  }
  StridedDim dims[kMaxDims];
  std::copy_n(all, rank, dims);
  int64_t bytes = width;
  for (int d = 0; d < rank; ++d) bytes *= dims[d].size;
  if (rank == 0 || (rank == 1 && dims[0].from == 1 && dims[0].to == 1)) {
    return c->Copy(to, from, bytes);
  }
  if (rank == 1 && dims[0].from == 0 && dims[0].to == 1 && Aligned(to)) {
    FillKernel<<<Blocks(c, (bytes + 15) / 16), kThreads, 0, Stream(c)>>>(
        from, width, static_cast<unsigned char*>(to), bytes);
    return c->Launched("FillKernel");
  }
  // Runs of neighbours are copied in elements as wide as alignment allows.
  if (dims[rank - 1].from == 1 && dims[rank - 1].to == 1) {
    uint64_t bits = reinterpret_cast<uintptr_t>(from) | reinterpret_cast<uintptr_t>(to) |
                    static_cast<uint64_t>(dims[rank - 1].size * width);
    for (int d = 0; d < rank - 1; ++d) {
      bits |= static_cast<uint64_t>(dims[d].from * width) |
              static_cast<uint64_t>(dims[d].to * width);
    }
    const int wide = CommonWidth(bits), factor = wide / width;
    for (int d = 0; d < rank - 1; ++d) {
      dims[d].from /= factor;
      dims[d].to /= factor;
    }
    dims[rank - 1].size /= factor;
    if (dims[rank - 1].size == 1) --rank;
    width = wide;
  }
  const StridedDim inner = dims[rank - 1];
  if (inner.to == 1 && inner.from != 1 && inner.from != 0) {
    constexpr int64_t kWorthATile = 8;
    for (int d = 0; d < rank - 1; ++d) {
      if (dims[d].from == 1 && dims[d].size >= kWorthATile && inner.size >= kWorthATile) {
        return LaunchTranspose(c, width, from, to, dims, rank, d);
      }
    }
  }
  return LaunchStrided(c, width, from, to, dims, rank);
}

// ---- Runs ----

constexpr int kMostPieces = 64;
struct Pieces {
  RunPiece pieces[kMostPieces];
};

// Each row of blocks copies one piece.
template <typename T, typename Index>
__global__ void __launch_bounds__(kThreads) RunsKernel(const Pieces all, int64_t rows) {
  const RunPiece& p = all.pieces[blockIdx.y];
  const T* from = static_cast<const T*>(p.from);
  T* to = static_cast<T*>(p.to);
  const Index run = static_cast<Index>(p.run), from_pitch = static_cast<Index>(p.from_pitch),
              to_pitch = static_cast<Index>(p.to_pitch);
  for (int64_t i = First(); i < rows * p.run; i += Step()) {
    const Index row = static_cast<Index>(i) / run, col = static_cast<Index>(i) - row * run;
    to[row * to_pitch + col] = from[row * from_pitch + col];
  }
}

bool CopyRuns(Call* c, int width, int64_t rows, const RunPiece* pieces, int count) {
  for (int done = 0; done < count;) {
    Pieces some = {};
    int n = 0;
    uint64_t bits = 0;
    int64_t most = 0, reach = 0;
    for (; n < kMostPieces && done < count; ++done) {
      const RunPiece& p = pieces[done];
      if (p.run == 0) continue;
      some.pieces[n++] = p;
      bits |= reinterpret_cast<uintptr_t>(p.from) | reinterpret_cast<uintptr_t>(p.to) |
              static_cast<uint64_t>(p.run * width);
      if (rows > 1) {
        bits |= static_cast<uint64_t>(p.from_pitch * width) |
                static_cast<uint64_t>(p.to_pitch * width);
      }
      most = std::max(most, rows * p.run);
      reach = std::max({reach, rows * p.from_pitch, rows * p.to_pitch, rows * p.run});
    }
    if (rows == 0 || n == 0) continue;
    if (n == 1 && rows == 1) {
      const RunPiece& p = some.pieces[0];
      if (!c->Copy(p.to, p.from, p.run * width)) return false;
      continue;
    }
    const int wide = CommonWidth(bits), factor = wide / width;
    for (int k = 0; k < n; ++k) {
      some.pieces[k].run /= factor;
      some.pieces[k].from_pitch /= factor;
      some.pieces[k].to_pitch /= factor;
    }
    const dim3 grid(Blocks(c, most / factor), static_cast<unsigned>(n));
    const bool small = reach <= std::numeric_limits<int32_t>::max();
    WithElement(wide, [&](auto* type) {
      using T = std::remove_pointer_t<decltype(type)>;
      if (small) {
        RunsKernel<T, int32_t><<<grid, kThreads, 0, Stream(c)>>>(some, rows);
      } else {
        RunsKernel<T, int64_t><<<grid, kThreads, 0, Stream(c)>>>(some, rows);
      }
    });
    if (!c->Launched("RunsKernel")) return false;
  }
  return true;
}

[[maybe_unused]] const bool registered = [] {
  Array().copy = &Copy;
  Array().copy_runs = &CopyRuns;
  return true;
}();

}  // namespace
}  // namespace gpu
}  // namespace ferry
