// Few rows of x over bf16 weights: y = x W^T + bias in bf16 tiles, with x as it is. A float is the sum of
// three bf16, exactly: so each row of x becomes three rows of tiles (pack_bf16_parts), each product is exact
// in f32, and only sums round. Tiles read weights faster than memory brings them for any of 1 to 16 rows, so
// a batch costs little more than one row does.
//
// The parts of all rows lie one below the other, so that five rows of x are one tile: a tile unit that is
// shared or slowed (2 of 6 TFLOP/s were seen) then still outruns memory. Every part has sums of its own, in
// the tile unit's order over all of k; they meet at the end. A row's bits do not depend on the other rows or
// on the workers.
#include "kernels/amx/amx.h"
#include "kernels/amx/bf16_weights.h"

namespace lathe::amx {
namespace {

constexpr int64_t parts = 3;

// 16 rows of x, or the last of fewer: their parts, in as few tiles of equally many rows as hold them. For
// each 32 columns, for each tile, its rows of 64 bytes.
struct Block {
  int64_t rows, tiles, tile_rows;
  explicit Block(int64_t r)
      : rows(r), tiles(ceil_div(r * parts, tile_side)), tile_rows(ceil_div(r * parts, tiles)) {}
  int64_t step() const { return tiles * tile_rows * 64; }  // bytes of 32 columns
  // Row `r`'s part: the tile, and the row in it.
  int64_t tile_of(int64_t r, int64_t part) const { return (r * parts + part) / tile_rows; }
  int64_t row_of(int64_t r, int64_t part) const { return (r * parts + part) % tile_rows; }
};

// All rows of x, block after block.
struct Parts {
  int64_t m, depth;
  Parts(int64_t rows, int64_t k) : m(rows), depth(ceil_div(k, columns)) {}
  int64_t blocks() const { return ceil_div(m, tile_side); }
  Block block(int64_t b) const {
    return Block(m - b * tile_side < tile_side ? m - b * tile_side : tile_side);
  }
  int64_t at(int64_t b) const { return b * Block(tile_side).step() * depth; }
  int64_t bytes() const { return m == 0 ? 0 : at(blocks() - 1) + block(blocks() - 1).step() * depth; }
};

// The tiles of results and of x have `rows` rows: all but the two of weights.
struct PartTiles {
  PartTiles(int64_t rows, bool three) {
    struct Configs {
      TileConfig of_rows[2][tile_side + 1];
    };
    static constexpr auto configs = [] {
      Configs all;
      for (int more = 0; more < 2; ++more)
        for (int r = 0; r <= tile_side; ++r)
          for (int t = 0; t < 8; ++t)
            if (t < 6 || (more == 1 && t == 7)) all.of_rows[more][r].rows[t] = static_cast<uint8_t>(r);
      return all;
    }();
    _tile_loadconfig(&configs.of_rows[three][rows]);
  }
  ~PartTiles() { _tile_release(); }
};

// Steps of 32 columns, of which a step's weights are two tiles: results in 0 and 1 for the first tile of x,
// in 2 and 3 for the second, in 4 and 5 for the third.
inline void ahead(const char* w, int quarter) {
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) _mm_prefetch(w + read_ahead + (quarter * 8 + i) * 64, _MM_HINT_T0);
}
inline void multiply_one(const char* x, int64_t step, const char* w, int64_t depth) {
  for (int64_t t = 0; t < depth; ++t, x += step, w += 2 * tile_bytes) {
    _tile_loadd(6, w, 64);
    ahead(w, 0);
    _tile_loadd(4, x, 64);
    ahead(w, 1);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w + tile_bytes, 64);
    ahead(w, 2);
    _tile_dpbf16ps(1, 4, 7);
    ahead(w, 3);
  }
}
inline void multiply_two(const char* x, int64_t step, const char* w, int64_t depth) {
  for (int64_t t = 0; t < depth; ++t, x += step, w += 2 * tile_bytes) {
    _tile_loadd(6, w, 64);
    ahead(w, 0);
    _tile_loadd(4, x, 64);
    _tile_dpbf16ps(0, 4, 6);
    ahead(w, 1);
    _tile_loadd(7, w + tile_bytes, 64);
    _tile_dpbf16ps(1, 4, 7);
    ahead(w, 2);
    _tile_loadd(5, x + step / 2, 64);
    _tile_dpbf16ps(2, 5, 6);
    ahead(w, 3);
    _tile_dpbf16ps(3, 5, 7);
  }
}
inline void multiply_three(const char* x, int64_t step, const char* w, int64_t depth) {
  for (int64_t t = 0; t < depth; ++t, x += step, w += 2 * tile_bytes) {
    _tile_loadd(6, w, 64);
    ahead(w, 0);
    _tile_loadd(7, x, 64);
    _tile_dpbf16ps(0, 7, 6);
    _tile_loadd(7, x + step / 3, 64);
    ahead(w, 1);
    _tile_dpbf16ps(2, 7, 6);
    _tile_loadd(7, x + step / 3 * 2, 64);
    _tile_dpbf16ps(4, 7, 6);
    _tile_loadd(6, w + tile_bytes, 64);
    ahead(w, 2);
    _tile_dpbf16ps(5, 7, 6);
    _tile_loadd(7, x + step / 3, 64);
    _tile_dpbf16ps(3, 7, 6);
    ahead(w, 3);
    _tile_loadd(7, x, 64);
    _tile_dpbf16ps(1, 7, 6);
  }
}

template <class Source>
void decode(const LinearArgs& a, const Share& share) {
  const Source source(a);
  const Parts x(a.m, a.k);
  char* weights = static_cast<char*>(share.scratch);                               // [2 * depth_tiles] tiles
  float* sums = reinterpret_cast<float*>(weights + 2 * depth_tiles * tile_bytes);  // [3, 2, 16, 16]
  const Range mine = part_of(ceil_div(a.n, pair), share.worker, share.workers);
  for (int64_t b = 0; b < x.blocks(); ++b) {
    const Block block = x.block(b);
    const PartTiles tiles(block.tile_rows, block.tiles == 3);
    for (int64_t strip = mine.begin; strip < mine.end; ++strip) {
      zero_results();
      _tile_zero(4);
      _tile_zero(5);
      const char* at = static_cast<const char*>(a.packed_x) + x.at(b);
      for (int64_t t = 0; t < x.depth; t += depth_tiles, at += depth_tiles * block.step()) {
        const int64_t depth = x.depth - t < depth_tiles ? x.depth - t : depth_tiles;
        const char* w = weights;
        if constexpr (Source::expands)
          source.expand(strip, t * columns, depth, weights);
        else
          w = source.stored(strip, t / depth_tiles);
        if (block.tiles == 1) multiply_one(at, block.step(), w, depth);
        if (block.tiles == 2) multiply_two(at, block.step(), w, depth);
        if (block.tiles == 3) multiply_three(at, block.step(), w, depth);
      }
      store_results(sums);
      _tile_stored(4, sums + 4 * 256, 64);
      _tile_stored(5, sums + 5 * 256, 64);
      for (int64_t r = 0; r < block.rows; ++r)
        for (int64_t half = 0; half < 2; ++half) {
          const auto part = [&](int64_t p) {
            return load(sums + (block.tile_of(r, p) * 2 + half) * 256 + block.row_of(r, p) * 16);
          };
          const int64_t column = strip * pair + half * tile_side, left = a.n - column;
          V y = add(add(part(2), part(1)), part(0));
          if (a.bias) y = add(y, load_n(a.bias + column, left));
          store_n(a.y + (b * tile_side + r) * a.y_stride + column, y, left);
        }
    }
  }
}

}  // namespace

size_t bf16_parts_bytes(int64_t m, int64_t k) { return static_cast<size_t>(Parts(m, k).bytes()); }

void pack_bf16_parts(const PackRowsArgs& a, const Share& share) noexcept {
  const Parts packed(a.m, a.k);
  const Range mine = part_of(a.m, share.worker, share.workers);
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    const Block block = packed.block(row / tile_side);
    char* out = static_cast<char*>(a.out) + packed.at(row / tile_side);
    const float* x = a.x + row * a.x_stride;
    for (int64_t t = 0; t < packed.depth; ++t, out += block.step()) {
      const int64_t left = a.k - t * columns;
      V low = load_n(x + t * columns, left), high = load_n(x + t * columns + lanes, left - lanes);
      for (int64_t part = 0; part < parts; ++part) {
        const auto rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
        _mm512_store_si512(out + (row % tile_side * parts + part) * 64, rounded);
        const auto as_floats = [](__m256i bf16) {
          return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bf16), 16));
        };
        low = sub(low, as_floats(_mm512_castsi512_si256(rounded)));
        high = sub(high, as_floats(_mm512_extracti64x4_epi64(rounded, 1)));
      }
    }
  }
}

void decode_bf16(const LinearArgs& a, const Share& s) noexcept { decode<Tiled>(a, s); }
void decode_stored(const LinearArgs& a, const Share& s) noexcept { decode<Panels<Stored>>(a, s); }

}  // namespace lathe::amx
