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

namespace lathe {
namespace {

constexpr int64_t tile_bytes = 1024, tile_side = 16;
constexpr int64_t pair = 2 * tile_side;   // rows and columns of one step over tiles 0 to 3
constexpr int64_t depth_tiles = 8;        // tiles along k per pass: 16 KiB of weights stay in L1 for all rows
constexpr int64_t block_rows_most = 512;  // rows of activations per pass over a block of weights
constexpr int64_t block_strips = 8;       // 32-column strips per block

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

// 16 words of a row of a weight tile: bf16 of even[i] and odd[i] side by side.
inline __m512i as_pairs(__m512 even, __m512 odd) {
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                              23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(interleave, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even)));
}

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// Packed activations: for each pass over k, for each 16 rows, its tiles. `steps`: columns in a tile.
struct PackedRows {
  int64_t row_tiles, depth;  // in tiles
  PackedRows(int64_t m, int64_t k, int64_t steps)
      : row_tiles(ceil_div(m, tile_side)), depth(ceil_div(k, steps)) {}
  int64_t passes() const { return ceil_div(depth, depth_tiles); }
  int64_t tiles_in(int64_t pass) const {
    const int64_t left = depth - pass * depth_tiles;
    return left < depth_tiles ? left : depth_tiles;
  }
  // Bytes from the start to the tiles of rows [16 * row_tile, ...) of a pass.
  int64_t at(int64_t pass, int64_t row_tile) const {
    return (pass * depth_tiles * row_tiles + row_tile * tiles_in(pass)) * tile_bytes;
  }
  int64_t bytes() const { return row_tiles * depth * tile_bytes; }
};

// int8 rows: the tiles, then per row its f32 scale and the i32 sum of its integers.
struct Int8Rows {
  PackedRows tiles;
  Int8Rows(int64_t m, int64_t k) : tiles(m, k, 64) {}
  int64_t scales() const { return tiles.bytes(); }
  int64_t sums() const { return scales() + tiles.row_tiles * tile_side * 4; }
  int64_t bytes() const { return sums() + tiles.row_tiles * tile_side * 4; }
};

}  // namespace
}  // namespace lathe
