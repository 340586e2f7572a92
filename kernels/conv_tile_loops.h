// The loops behind conv_tiles.h, which conv_tiles.cc includes once for each size of vector
// register:
//   FERRY_TILE_NAMESPACE  where they go
//   FERRY_TILE_TARGET     the attribute of functions that may use such registers
//   FERRY_TILE_BYTES      the size, 32 or 64
// Nothing here calls a function, which would not have that attribute.

namespace ferry {
namespace FERRY_TILE_NAMESPACE {

template <typename T>
struct VectorOf {
  typedef T type __attribute__((vector_size(FERRY_TILE_BYTES)));
  // The same, wherever it lies and whatever else lies there.
  typedef T memory __attribute__((vector_size(FERRY_TILE_BYTES), aligned(alignof(T)), may_alias));
};

inline constexpr int kVectors = 64 / FERRY_TILE_BYTES;  // In a panel.

#define FERRY_UNROLL _Pragma("GCC unroll 16")

template <typename T, int kRows, int kPanels>
FERRY_TILE_TARGET void Gather(const T* a, ptrdiff_t step, const Run* runs, int64_t num_runs,
                              const T* panels, int64_t panel_step, T* out, int64_t out_step) {
  using V = typename VectorOf<T>::type;
  using M = typename VectorOf<T>::memory;
  constexpr int kWidth = FERRY_TILE_BYTES / static_cast<int>(sizeof(T));
  constexpr int kAcross = kPanels * kVectors;
  constexpr int kFours = (kRows + 3) / 4;
  V sums[kRows][kAcross];
  FERRY_UNROLL
  for (int r = 0; r < kRows; ++r) {
    FERRY_UNROLL
    for (int v = 0; v < kAcross; ++v) sums[r][v] = V{};
  }
  const T* b = panels;
  const ptrdiff_t step3 = step * 3;
  for (int64_t i = 0; i < num_runs; ++i) {
    // A pointer for four rows at a time: the others are within reach of addressing modes.
    const T* at[kFours];
    FERRY_UNROLL
    for (int q = 0; q < kFours; ++q) at[q] = a + runs[i].offset + step * 4 * q;
    for (int64_t k = runs[i].length; k > 0; --k) {
      V row[kAcross];
      FERRY_UNROLL
      for (int v = 0; v < kAcross; ++v) {
        row[v] =
            *reinterpret_cast<const M*>(b + (v / kVectors) * panel_step + (v % kVectors) * kWidth);
      }
      FERRY_UNROLL
      for (int r = 0; r < kRows; ++r) {
        const T* const p = at[r / 4];
        const T x = r % 4 == 0 ? p[0] : r % 4 == 1 ? p[step] : r % 4 == 2 ? p[step * 2] : p[step3];
        FERRY_UNROLL
        for (int v = 0; v < kAcross; ++v) sums[r][v] += x * row[v];
      }
      FERRY_UNROLL
      for (int q = 0; q < kFours; ++q) ++at[q];
      b += kPanel<T>;
    }
  }
  FERRY_UNROLL
  for (int r = 0; r < kRows; ++r) {
    FERRY_UNROLL
    for (int v = 0; v < kAcross; ++v) {
      *reinterpret_cast<M*>(out + r * out_step + v * kWidth) = sums[r][v];
    }
  }
}

template <typename T, int kRows, int kPanels>
FERRY_TILE_TARGET void Spread(const T* a, int64_t a_row, ptrdiff_t a_step, int64_t height,
                              int64_t width, const T* panels, int64_t panel_step, T* out,
                              int64_t out_panel) {
  using V = typename VectorOf<T>::type;
  using M = typename VectorOf<T>::memory;
  constexpr int kWidth = FERRY_TILE_BYTES / static_cast<int>(sizeof(T));
  constexpr int kAcross = kPanels * kVectors;
  V sums[kRows][kAcross];
  FERRY_UNROLL
  for (int r = 0; r < kRows; ++r) {
    FERRY_UNROLL
    for (int v = 0; v < kAcross; ++v) sums[r][v] = V{};
  }
  const T* b = panels;
  for (int64_t y = 0; y < height; ++y) {
    const T* p = a + y * a_row;
    for (int64_t x = 0; x < width; ++x) {
      V row[kAcross];
      FERRY_UNROLL
      for (int v = 0; v < kAcross; ++v) {
        row[v] =
            *reinterpret_cast<const M*>(b + (v / kVectors) * panel_step + (v % kVectors) * kWidth);
      }
      FERRY_UNROLL
      for (int r = 0; r < kRows; ++r) {
        FERRY_UNROLL
        for (int v = 0; v < kAcross; ++v) sums[r][v] += p[r] * row[v];
      }
      p += a_step;
      b += kPanel<T>;
    }
  }
  FERRY_UNROLL
  for (int r = 0; r < kRows; ++r) {
    FERRY_UNROLL
    for (int v = 0; v < kAcross; ++v) {
      M* const to = reinterpret_cast<M*>(out + (v / kVectors) * out_panel + r * kPanel<T> +
                                         (v % kVectors) * kWidth);
      *to += sums[r][v];
    }
  }
}

#undef FERRY_UNROLL

template <typename T, int kPanels, int... kRows>
void Fill(ConvTiles<T>* t, std::integer_sequence<int, kRows...>) {
  ((t->gather[kPanels - 1][kRows] = &Gather<T, kRows + 1, kPanels>,
    t->spread[kPanels - 1][kRows] = &Spread<T, kRows + 1, kPanels>),
   ...);
}

// As many rows and panels as there are registers for the sums: 28 of AVX-512's 32, 12 of AVX's 16.
template <typename T>
ConvTiles<T> Tiles() {
  constexpr int kRows = FERRY_TILE_BYTES == 64 ? 14 : 6;
  static_assert(kRows <= kMostTileRows);
  ConvTiles<T> t{};
  t.rows = kRows;
  t.panels = FERRY_TILE_BYTES == 64 ? 2 : 1;
  Fill<T, 1>(&t, std::make_integer_sequence<int, kRows>());
  if constexpr (FERRY_TILE_BYTES == 64) Fill<T, 2>(&t, std::make_integer_sequence<int, kRows>());
  return t;
}

}  // namespace FERRY_TILE_NAMESPACE
}  // namespace ferry

#undef FERRY_TILE_NAMESPACE
#undef FERRY_TILE_TARGET
#undef FERRY_TILE_BYTES
