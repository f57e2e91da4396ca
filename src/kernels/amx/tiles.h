// The AMX tile registers, as every kernel here uses them: eight tiles of 16 rows x 64 bytes.
//
// Tiles 0 to 3 accumulate 32 x 32 results, 4 and 5 hold 2 x 16 rows of activations, 6 and 7 hold 2 x 16
// columns of weights: four products (16 cycles each) per four loads. Operands that a kernel packs itself lie
// tile after tile, 1 KiB each:
//   activations   16 rows x 64 bytes of consecutive columns (32 bf16, 64 int8)
//   weights       16 steps of 4 bytes of consecutive columns x 16 rows of W (the "VNNI" order)
#pragma once

#include <immintrin.h>
#include <stdint.h>

#if defined(LATHE_EMULATE_TILES)
#include "kernels/amx/emulated_tiles.h"
#endif
#include "kernels/avx512bf16/pairs.h"
#include "kernels/simd/packed_rows.h"

namespace lathe {
namespace {

struct alignas(64) TileConfig {
  uint8_t palette = 1, start_row = 0, reserved[14] = {};
  uint16_t bytes_per_row[16] = {64, 64, 64, 64, 64, 64, 64, 64};
  uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};

// A thread's tiles, from here to the end of the scope. Released tiles cost nothing at a context switch.
struct Tiles {
  Tiles() {
    static constexpr TileConfig
        config;  // GCC 12 drops stores to a local one: its intrinsic reads 8 bytes only
    _tile_loadconfig(&config);
  }
  ~Tiles() { _tile_release(); }
};

inline void zero_results() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}
inline void load_results(const void* c) {
  const auto* at = static_cast<const char*>(c);
  _tile_loadd(0, at, 64);
  _tile_loadd(1, at + tile_bytes, 64);
  _tile_loadd(2, at + 2 * tile_bytes, 64);
  _tile_loadd(3, at + 3 * tile_bytes, 64);
}
// Tiles (row half, column half): 0 (0, 0), 1 (0, 1), 2 (1, 0), 3 (1, 1).
inline void store_results(void* c) {
  auto* at = static_cast<char*>(c);
  _tile_stored(0, at, 64);
  _tile_stored(1, at + tile_bytes, 64);
  _tile_stored(2, at + 2 * tile_bytes, 64);
  _tile_stored(3, at + 3 * tile_bytes, 64);
}

}  // namespace
}  // namespace lathe
