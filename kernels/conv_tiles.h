// The inner loops of convolutions: products of small tiles whose sums stay in registers. They read
// images where they lie, so no matrix of all windows is ever written.
//
// A panel is 64 bytes wide: kPanel<T> neighbouring output channels, one after the other for each
// step of a sum. Sums run in order, so the tile's extent doesn't change a result.
#ifndef FERRY_KERNELS_CONV_TILES_H_
#define FERRY_KERNELS_CONV_TILES_H_

#include <cstddef>
#include <cstdint>

namespace ferry {

template <typename T>
inline constexpr int64_t kPanel = 64 / static_cast<int64_t>(sizeof(T));

// A piece of a window that lies in one run in memory.
struct Run {
  int64_t offset = 0, length = 0;  // In elements, from the window's base.
};

inline constexpr int kMostTileRows = 14, kMostTilePanels = 2;

// For r < rows, c < panels * kPanel:
//   out[r * out_step + c] = sum over the runs' elements, k counting them all, of
//                           a[r * step + offset + i] * panels[c / kPanel][k][c % kPanel]
// Panel number p begins at panels + p * panel_step.
template <typename T>
using GatherTile = void (*)(const T* a, ptrdiff_t step, const Run* runs, int64_t num_runs,
                            const T* panels, int64_t panel_step, T* out, int64_t out_step);

// For r < rows, p < panels, c < kPanel:
//   out[p * out_panel + r * kPanel + c] += sum over y < height, x < width of
//       a[y * a_row + x * a_step + r] * panels[p * panel_step + (y * width + x) * kPanel + c]
template <typename T>
using SpreadTile = void (*)(const T* a, int64_t a_row, ptrdiff_t a_step, int64_t height,
                            int64_t width, const T* panels, int64_t panel_step, T* out,
                            int64_t out_panel);

// The loops for this processor: tiles of up to `rows` by `panels`. The function for r rows and p
// panels is number [p - 1][r - 1].
template <typename T>
struct ConvTiles {
  int rows = 0, panels = 0;
  GatherTile<T> gather[kMostTilePanels][kMostTileRows];
  SpreadTile<T> spread[kMostTilePanels][kMostTileRows];
};
// T: float, double, uint32_t.
template <typename T>
const ConvTiles<T>& BestConvTiles();
// Those for any processor.
template <typename T>
const ConvTiles<T>& PlainConvTiles();

}  // namespace ferry

#endif  // FERRY_KERNELS_CONV_TILES_H_
