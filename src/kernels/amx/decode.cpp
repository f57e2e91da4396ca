// Few rows of x over bf16 weights: y = x W^T + bias in bf16 tiles, with x as it is. A float is the sum of
// three bf16, exactly: so each row of x becomes three rows of tiles (pack_bf16_parts), each product is exact
// in f32, and only sums round. Tiles read weights faster than memory brings them for any of 1 to 16 rows, so
// a batch costs little more than one row does: [8192 x 2048] 34.5 GB/s for 1 row, 28 for 16 (f32 vectors: 34
// and 9).
//
// The first parts have sums of their own and the others share theirs, in the tile unit's order over all of k;
// they meet at the end. A row's bits do not depend on the other rows or on the workers.
#include "kernels/amx/amx.h"
#include "kernels/amx/bf16_weights.h"

namespace lathe::amx {
namespace {

constexpr int64_t parts = 3;

// A row tile of x: for each 32 columns, for each part, `rows` rows of 64 bytes.
struct Parts {
  int64_t m, depth;
  Parts(int64_t rows, int64_t k) : m(rows), depth(ceil_div(k, columns)) {}
  int64_t row_tiles() const { return ceil_div(m, tile_side); }
  int64_t rows_in(int64_t tile) const { return m - tile * tile_side < 16 ? m - tile * tile_side : 16; }
  int64_t at(int64_t tile) const { return tile * tile_side * parts * depth * 64; }
  int64_t bytes() const { return m * parts * depth * 64; }
};

// The tiles of tiles.h, with `rows` rows of x.
struct PartTiles {
  explicit PartTiles(int64_t rows) {
    static constexpr auto configs = [] {
      struct {
        TileConfig of_rows[tile_side + 1];
      } all;
      for (int r = 0; r <= tile_side; ++r)
        for (int t = 0; t < 6; ++t) all.of_rows[r].rows[t] = static_cast<uint8_t>(r);
      return all;
    }();
    _tile_loadconfig(&configs.of_rows[rows]);
  }
  ~PartTiles() { _tile_release(); }
};

inline void multiply(const char* x, int64_t rows, const char* w, int64_t depth) {
  const int64_t part = rows * 64;
  for (int64_t t = 0; t < depth; ++t, x += parts * part, w += 2 * tile_bytes) {
    const auto ahead = [&](int quarter) __attribute__((always_inline)) {
#pragma GCC unroll 8
      for (int i = 0; i < 8; ++i) _mm_prefetch(w + read_ahead + (quarter * 8 + i) * 64, _MM_HINT_T0);
    };
    _tile_loadd(6, w, 64);
    ahead(0);
    _tile_loadd(4, x, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w + tile_bytes, 64);
    ahead(1);
    _tile_dpbf16ps(1, 4, 7);
    _tile_loadd(5, x + part, 64);
    _tile_dpbf16ps(2, 5, 6);
    ahead(2);
    _tile_dpbf16ps(3, 5, 7);
    _tile_loadd(4, x + 2 * part, 64);
    _tile_dpbf16ps(2, 4, 6);
    ahead(3);
    _tile_dpbf16ps(3, 4, 7);
  }
}

template <class Source>
void decode(const LinearArgs& a, const Share& share) {
  const Source source(a);
  const Parts x(a.m, a.k);
  char* weights = static_cast<char*>(share.scratch);                               // [2 * depth_tiles] tiles
  float* sums = reinterpret_cast<float*>(weights + 2 * depth_tiles * tile_bytes);  // [2, column half, 16, 16]
  const Range mine = part_of(ceil_div(a.n, pair), share.worker, share.workers);
  for (int64_t tile = 0; tile < x.row_tiles(); ++tile) {
    const int64_t rows = x.rows_in(tile);
    const PartTiles tiles(rows);
    for (int64_t strip = mine.begin; strip < mine.end; ++strip) {
      zero_results();
      const char* at = static_cast<const char*>(a.packed_x) + x.at(tile);
      for (int64_t t = 0; t < x.depth; t += depth_tiles) {
        const int64_t depth = x.depth - t < depth_tiles ? x.depth - t : depth_tiles;
        const char* w = weights;
        if constexpr (Source::expands)
          source.expand(strip, t * columns, depth, weights);
        else
          w = source.stored(strip, t / depth_tiles);
        multiply(at + t * parts * rows * 64, rows, w, depth);
      }
      store_results(sums);
      for (int64_t r = 0; r < rows; ++r)
        for (int64_t half = 0; half < 2; ++half) {
          const float* c = sums + half * 256 + r * 16;
          const int64_t column = strip * pair + half * tile_side, left = a.n - column;
          V y = add(load(c + 512), load(c));
          if (a.bias) y = add(y, load_n(a.bias + column, left));
          store_n(a.y + (tile * tile_side + r) * a.y_stride + column, y, left);
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
    const int64_t tile = row / tile_side, stride = packed.rows_in(tile) * 64;
    char* out = static_cast<char*>(a.out) + packed.at(tile) + row % tile_side * 64;
    const float* x = a.x + row * a.x_stride;
    for (int64_t t = 0; t < packed.depth; ++t) {
      const int64_t left = a.k - t * columns;
      V low = load_n(x + t * columns, left), high = load_n(x + t * columns + lanes, left - lanes);
      for (int64_t part = 0; part < parts; ++part, out += stride) {
        const auto rounded = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
        _mm512_store_si512(out, rounded);
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
