// W8A8 in int8 tiles: see kernels/simd/w8a8.inl. A panel of panel.int8 lies as weight tiles do. Up to 4 rows
// go through vectors (33 GB/s of weights, tiles 26), up to 16 through tiles that each strip's weights stream
// through once.
#include "kernels/amx/amx.h"
#include "kernels/amx/tiles.h"
#include "kernels/avx512vnni/dot.h"
// The body comes last: it is written in the vectors of vec.h and the products of dot.h.
// clang-format off
#include "kernels/simd/w8a8.inl"
// clang-format on

namespace lathe::amx {
namespace {

constexpr int64_t read_ahead = 2048;
constexpr int64_t few = 4;  // rows up to which vectors are faster

template <class S>
void few_rows(const LinearArgs& a, const Int8Rows& rows, Range strips) {
  const auto* x = static_cast<const char*>(a.packed_x);
  const Output<S> output(a, rows);
  alignas(64) int32_t sums[2][256];
  for (int64_t s = strips.begin; s < strips.end; ++s) {
    const char* w = static_cast<const char*>(a.codes) + s * rows.tiles.depth * deep_tile;
    _tile_zero(0);
    _tile_zero(1);
    for (int64_t t = 0; t < rows.tiles.depth; ++t) {  // one tile of rows: its passes lie one after the other
      for (int64_t b = 0; b < deep_tile; b += 64)
        _mm_prefetch(w + t * deep_tile + read_ahead + b, _MM_HINT_T1);
      _tile_loadd(4, x + t * tile_bytes, 64);
      _tile_loadd(6, w + t * deep_tile, word_row);
      _tile_loadd(7, w + t * deep_tile + 64, word_row);
      _tile_dpbsud(0, 4, 6);
      _tile_dpbsud(1, 4, 7);
    }
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    output.store(sums[0], 0, s * pair);
    output.store(sums[1], 0, s * pair + tile_side);
  }
}

struct TileProduct {
  static void add(int32_t* c, bool first, const char* const (&x)[2], int64_t, const char* w, int64_t words,
                  const char* ahead) {
    if (first)
      zero_results();
    else
      load_results(c);
    for (int64_t t = 0; t < words / tile_words; ++t) {
      _mm_prefetch(ahead + t * 128, _MM_HINT_T1);
      _mm_prefetch(ahead + t * 128 + 64, _MM_HINT_T1);
      _tile_loadd(6, w + t * deep_tile, word_row);
      _tile_loadd(4, x[0] + t * tile_bytes, 64);
      _tile_loadd(5, x[1] + t * tile_bytes, 64);
      _tile_loadd(7, w + t * deep_tile + 64, word_row);
      _tile_dpbsud(0, 4, 6);
      _tile_dpbsud(2, 5, 6);
      _tile_dpbsud(1, 4, 7);
      _tile_dpbsud(3, 5, 7);
    }
    store_results(c);
  }
};

template <class S>
void tiled(const LinearArgs& a, const Share& share) {
  const Int8Rows rows(a.m, a.k);
  const Range mine = part_of(ceil_div(a.n, pair), share.worker, share.workers);
  if (a.m <= few && stream<S>(a, rows, mine)) return;
  const Tiles tiles;
  if (a.m <= tile_side)
    few_rows<S>(a, rows, mine);
  else
    many_rows<TileProduct, S>(a, nullptr, rows, mine, share.scratch);
}

template <class S>
void tiled_gated(const GatedArgs& a, const Share& share) {
  const Tiles tiles;
  const Range mine = part_of(ceil_div(a.gate.n, pair), share.worker, share.workers);
  many_rows<TileProduct, S>(a.gate, &a.up, Int8Rows(a.gate.m, a.gate.k), mine, share.scratch);
}

}  // namespace

void w8a8_bf16(const LinearArgs& a, const Share& s) noexcept { tiled<BF16>(a, s); }
void w8a8_f16(const LinearArgs& a, const Share& s) noexcept { tiled<F16>(a, s); }
void w8a8_f32(const LinearArgs& a, const Share& s) noexcept { tiled<float>(a, s); }
void w8a8_gated_bf16(const GatedArgs& a, const Share& s) noexcept { tiled_gated<BF16>(a, s); }
void w8a8_gated_f16(const GatedArgs& a, const Share& s) noexcept { tiled_gated<F16>(a, s); }
void w8a8_gated_f32(const GatedArgs& a, const Share& s) noexcept { tiled_gated<float>(a, s); }

}  // namespace lathe::amx
