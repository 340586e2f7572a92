// The tables of conv_tiles.h: one for registers of 32 bytes (which compilers make of smaller ones
// where a processor has none), one for the 64 bytes of AVX-512, chosen when the program runs.
#include "kernels/conv_tiles.h"

#include <utility>

#define FERRY_TILE_NAMESPACE tiles32
#define FERRY_TILE_TARGET
#define FERRY_TILE_BYTES 32
#include "kernels/conv_tile_loops.h"

#ifdef __x86_64__
#define FERRY_TILE_NAMESPACE tiles64
#define FERRY_TILE_TARGET __attribute__((target("avx512f")))
#define FERRY_TILE_BYTES 64
#include "kernels/conv_tile_loops.h"
#endif

namespace ferry {

template <typename T>
const ConvTiles<T>& BestConvTiles() {
#ifdef __x86_64__
  static const ConvTiles<T> wide = tiles64::Tiles<T>();
  if (__builtin_cpu_supports("avx512f")) return wide;
#endif
  return PlainConvTiles<T>();
}
template <typename T>
const ConvTiles<T>& PlainConvTiles() {
  static const ConvTiles<T> plain = tiles32::Tiles<T>();
  return plain;
}

#define FERRY_TILES(T)                          \
  template const ConvTiles<T>& BestConvTiles(); \
  template const ConvTiles<T>& PlainConvTiles();
FERRY_TILES(float)
FERRY_TILES(double)
FERRY_TILES(uint32_t)
#undef FERRY_TILES

}  // namespace ferry
