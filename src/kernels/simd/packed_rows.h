// How rows of x lie when a kernel has them packed as tiles of 16 rows x 64 bytes of consecutive columns (32
// bf16, 64 int8), 1 KiB each. AMX loads a tile whole; vectors read four columns of a row at a time.
#pragma once

#include <stdint.h>

namespace lathe {
namespace {

constexpr int64_t tile_bytes = 1024, tile_side = 16;
constexpr int64_t pair = 2 * tile_side;   // rows and columns of one step over 2 x 2 tiles of results
constexpr int64_t depth_tiles = 8;        // tiles along k per pass: 16 KiB of weights stay in L1 for all rows
constexpr int64_t block_rows_most = 512;  // rows of activations per pass over a block of weights
constexpr int64_t block_strips = 8;       // 32-column strips per block

constexpr int64_t ceil_div(int64_t a, int64_t b) { return (a + b - 1) / b; }

// For each pass over k, for each 16 rows, its tiles. `steps`: columns in a tile.
struct PackedRows {
  int64_t row_tiles, depth;  // in tiles
  int64_t each;              // bytes of a tile
  PackedRows(int64_t m, int64_t k, int64_t steps, int64_t tile = tile_bytes)
      : row_tiles(ceil_div(m, tile_side)), depth(ceil_div(k, steps)), each(tile) {}
  int64_t passes() const { return ceil_div(depth, depth_tiles); }
  int64_t tiles_in(int64_t pass) const {
    const int64_t left = depth - pass * depth_tiles;
    return left < depth_tiles ? left : depth_tiles;
  }
  // Bytes from the start to the tiles of rows [16 * row_tile, ...) of a pass.
  int64_t at(int64_t pass, int64_t row_tile) const {
    return (pass * depth_tiles * row_tiles + row_tile * tiles_in(pass)) * each;
  }
  int64_t bytes() const { return row_tiles * depth * each; }
};

// int8 rows: the tiles, then per row its f32 scale and the i32 sum of its integers. Plain AVX2 has tiles of
// twice the size, four columns to 8 bytes: magnitudes, then what to xor weights with (avx2/dot.h).
struct Int8Rows {
  PackedRows tiles;
  Int8Rows(int64_t m, int64_t k, int64_t bytes_each = 1) : tiles(m, k, 64, bytes_each * tile_bytes) {}
  int64_t scales() const { return tiles.bytes(); }
  int64_t sums() const { return scales() + tiles.row_tiles * tile_side * 4; }
  int64_t bytes() const { return sums() + tiles.row_tiles * tile_side * 4; }
};

// Rows of bf16, two to a word, zeros after the last column. Rows are not a multiple of 4 KiB apart, so that
// those of a register tile do not meet in one set of the first-level cache.
struct Bf16Rows {
  int64_t rows, words;  // from one row to the next
  Bf16Rows(int64_t m, int64_t k) : rows(m), words((ceil_div(k, 32) + 1) * 16) {}
  int64_t bytes() const { return rows * words * 4; }
};

// int8 groups of 32 columns. [rows][groups][32] int8, then [rows][groups] f32 scales, then as many i32 sums
// of the integers, then [rows][groups][2] sums of their first and last 16. Of 8 columns those of even number
// come first, as masking a word of int4 codes uncovers them.
struct Int8Groups {
  static constexpr int64_t columns = 32;
  int64_t rows, count;
  Int8Groups(int64_t m, int64_t k) : rows(m), count(ceil_div(k, columns)) {}
  int64_t scales() const { return rows * count * columns; }
  int64_t sums() const { return scales() + rows * count * 4; }
  int64_t half_sums() const { return sums() + rows * count * 4; }
  int64_t bytes() const { return half_sums() + rows * count * 8; }
};

}  // namespace
}  // namespace lathe
