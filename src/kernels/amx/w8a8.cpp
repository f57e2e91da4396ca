// W8A8: int8 weights with a scale per row, int8 activations with a scale per token, in int8 tiles.
//
// The weights need no expansion: a panel of x86.int8 holds, for each 4 columns, 32 rows' words side by side,
// which is the order of a weight tile; they are stored as q + 128, so the product is signed times unsigned
// and the sum of the row's integers takes the 128 out again. Sums are exact, so every path gives the same
// bits.
//
// Up to 16 rows (decode): each strip's weights stream through the tiles once, bound by memory. More: blocks
// of strips and passes over k as in prefill.cpp.
#include "kernels/amx/amx.h"
#include "kernels/amx/tiles.h"
#include "kernels/avx512/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/exp.inl"
// clang-format on

namespace lathe::amx {
namespace {

constexpr int64_t word_row = 128;              // bytes of 4 columns of a panel
constexpr int64_t deep_tile = 2 * tile_bytes;  // bytes of 64 columns of a panel
constexpr int64_t read_ahead = 2048;

// 16 rows x 16 columns of exact sums to y.
template <class S>
struct Output {
  const LinearArgs& a;
  const float* row_scales;
  const int32_t* row_sums;

  Output(const LinearArgs& args, const Int8Rows& rows)
      : a(args),
        row_scales(reinterpret_cast<const float*>(static_cast<const char*>(args.packed_x) + rows.scales())),
        row_sums(reinterpret_cast<const int32_t*>(static_cast<const char*>(args.packed_x) + rows.sums())) {}

  void store(const int32_t* sums, int64_t row, int64_t column) const {
    const int64_t left = a.n - column, rows = a.m - row < tile_side ? a.m - row : tile_side;
    if (left <= 0) return;
    const V scale = load_as_f32(static_cast<const S*>(a.scales) + column);  // padded to whole panels
    const V bias = a.bias ? load_n(a.bias + column, left) : zero();
    for (int64_t r = 0; r < rows; ++r) {
      const V y = scaled(sums + r * 16, row + r, scale);
      store_n(a.y + (row + r) * a.y_stride + column, add(y, bias), left);
    }
  }
  void store_gated(const int32_t* gate, const int32_t* up, const LinearArgs& up_args, int64_t row,
                   int64_t column) const {
    const int64_t left = a.n - column, rows = a.m - row < tile_side ? a.m - row : tile_side;
    if (left <= 0) return;
    const V gate_scale = load_as_f32(static_cast<const S*>(a.scales) + column),
            up_scale = load_as_f32(static_cast<const S*>(up_args.scales) + column);
    for (int64_t r = 0; r < rows; ++r) {
      const V g = scaled(gate + r * 16, row + r, gate_scale), u = scaled(up + r * 16, row + r, up_scale);
      store_n(a.y + (row + r) * a.y_stride + column, mul(silu(g), u), left);
    }
  }

 private:
  V scaled(const int32_t* sums, int64_t row, V scale) const {
    const __m512i exact = _mm512_sub_epi32(_mm512_load_si512(sums), _mm512_set1_epi32(128 * row_sums[row]));
    return mul(mul(_mm512_cvtepi32_ps(exact), set(row_scales[row])), scale);
  }
};

// R rows by dot products in vectors, two strips at a time: plain loads on two streams keep more of the
// memory's bandwidth than tile loads do, or one stream (33 GB/s, 26 and 29).
template <int R, int strips, class S>
void vector_strips(const LinearArgs& a, const Int8Rows& rows, int64_t s) {
  const auto* x = static_cast<const char*>(a.packed_x);
  const Output<S> output(a, rows);
  const int64_t strip_bytes = rows.tiles.depth * deep_tile;
  const char* w = static_cast<const char*>(a.codes) + s * strip_bytes;
  __m512i sums[R][2 * strips];
#pragma GCC unroll 4
  for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
    for (int v = 0; v < 2 * strips; ++v) sums[r][v] = _mm512_setzero_si512();
  for (int64_t t = 0; t < rows.tiles.depth; ++t)
#pragma GCC unroll 4
    for (int64_t c = 0; c < 16; ++c) {
      __m512i words[2 * strips];
#pragma GCC unroll 4
      for (int v = 0; v < 2 * strips; ++v) {
        const char* at = w + v / 2 * strip_bytes + t * deep_tile + c * word_row + v % 2 * 64;
        _mm_prefetch(at + read_ahead, _MM_HINT_T0);
        words[v] = _mm512_loadu_si512(at);
      }
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        int32_t four;
        __builtin_memcpy(&four, x + t * tile_bytes + r * 64 + c * 4, 4);
#pragma GCC unroll 4
        for (int v = 0; v < 2 * strips; ++v)
          sums[r][v] = _mm512_dpbusd_epi32(sums[r][v], words[v], _mm512_set1_epi32(four));
      }
    }
  alignas(64) int32_t out[256];
  for (int v = 0; v < 2 * strips; ++v) {
    for (int r = 0; r < R; ++r) _mm512_store_si512(out + r * 16, sums[r][v]);
    output.store(out, 0, s * pair + v * tile_side);
  }
}

template <int R, class S>
void vector_rows(const LinearArgs& a, const Int8Rows& rows, Range strips) {
  int64_t s = strips.begin;
  for (; s + 2 <= strips.end; s += 2) vector_strips<R, 2, S>(a, rows, s);
  for (; s < strips.end; ++s) vector_strips<R, 1, S>(a, rows, s);
}

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

inline void multiply_tiles(const char* x0, const char* x1, const char* w, int64_t depth, const char* ahead) {
  for (int64_t t = 0; t < depth; ++t) {
    _mm_prefetch(ahead + t * 128, _MM_HINT_T1);
    _mm_prefetch(ahead + t * 128 + 64, _MM_HINT_T1);
    _tile_loadd(6, w + t * deep_tile, word_row);
    _tile_loadd(4, x0 + t * tile_bytes, 64);
    _tile_loadd(5, x1 + t * tile_bytes, 64);
    _tile_loadd(7, w + t * deep_tile + 64, word_row);
    _tile_dpbsud(0, 4, 6);
    _tile_dpbsud(2, 5, 6);
    _tile_dpbsud(1, 4, 7);
    _tile_dpbsud(3, 5, 7);
  }
}

// Where `up` is given, half of a block's strips are the gate's and half the other weight's, of the same
// columns.
template <class S>
void many_rows(const LinearArgs& a, const LinearArgs* up, const Int8Rows& rows, Range mine, void* scratch) {
  const PackedRows& x = rows.tiles;
  const auto* packed = static_cast<const char*>(a.packed_x);
  const Output<S> output(a, rows);
  auto* sums = static_cast<int32_t*>(scratch);
  constexpr int64_t most = block_rows_most / tile_side;
  const int64_t most_strips = up ? block_strips / 2 : block_strips;
  for (int64_t block = mine.begin; block < mine.end; block += most_strips) {
    const int64_t wide = mine.end - block < most_strips ? mine.end - block : most_strips,
                  strips = up ? 2 * wide : wide;
    const auto weights_of = [&](int64_t s, int64_t pass) {
      const auto* codes = static_cast<const char*>(s < wide ? a.codes : up->codes);
      return codes + ((block + s % wide) * x.depth + pass * depth_tiles) * deep_tile;
    };
    for (int64_t top = 0; top < x.row_tiles; top += most) {
      const int64_t row_tiles = x.row_tiles - top < most ? x.row_tiles - top : most,
                    pairs = ceil_div(row_tiles, 2);
      const auto sums_of = [&](int64_t s, int64_t p) { return sums + (s * pairs + p) * pair * pair; };
      for (int64_t pass = 0; pass < x.passes(); ++pass) {
        const int64_t depth = x.tiles_in(pass);
        for (int64_t s = 0; s < strips; ++s) {
          const char* w = weights_of(s, pass);
          // The weights that come next, spread over this strip's products.
          const char* next = s + 1 < strips          ? weights_of(s + 1, pass)
                             : pass + 1 < x.passes() ? weights_of(0, pass + 1)
                                                     : weights_of(0, 0) + wide * x.depth * deep_tile;
          const int64_t share = depth_tiles * deep_tile / pairs / 64 * 64;
          for (int64_t p = 0; p < pairs; ++p) {
            int32_t* c = sums_of(s, p);
            if (pass == 0)
              zero_results();
            else
              load_results(c);
            const char* x0 = packed + x.at(pass, top + 2 * p);
            const char* x1 = 2 * p + 1 < row_tiles ? packed + x.at(pass, top + 2 * p + 1) : x0;
            multiply_tiles(x0, x1, w, depth, next + p * share);
            store_results(c);
          }
        }
      }
      for (int64_t s = 0; s < wide; ++s)
        for (int64_t tile = 0; tile < row_tiles; ++tile)
          for (int64_t half = 0; half < 2; ++half) {
            const int64_t at = tile % 2 * 512 + half * 256, row = (top + tile) * tile_side,
                          column = (block + s) * pair + half * tile_side;
            if (up)
              output.store_gated(sums_of(s, tile / 2) + at, sums_of(wide + s, tile / 2) + at, *up, row,
                                 column);
            else
              output.store(sums_of(s, tile / 2) + at, row, column);
          }
    }
  }
}

template <class S>
void w8a8(const LinearArgs& a, const Share& share) {
  const Int8Rows rows(a.m, a.k);
  const Range mine = part_of(ceil_div(a.n, pair), share.worker, share.workers);
  if (a.m == 1) return vector_rows<1, S>(a, rows, mine);
  if (a.m == 2) return vector_rows<2, S>(a, rows, mine);
  if (a.m == 3) return vector_rows<3, S>(a, rows, mine);
  if (a.m == 4) return vector_rows<4, S>(a, rows, mine);
  const Tiles tiles;
  if (a.m <= tile_side)
    few_rows<S>(a, rows, mine);
  else
    many_rows<S>(a, nullptr, rows, mine, share.scratch);
}

template <class S>
void w8a8_gated(const GatedArgs& a, const Share& share) {
  const Tiles tiles;
  const Range mine = part_of(ceil_div(a.gate.n, pair), share.worker, share.workers);
  many_rows<S>(a.gate, &a.up, Int8Rows(a.gate.m, a.gate.k), mine, share.scratch);
}

}  // namespace

void w8a8_bf16(const LinearArgs& a, const Share& s) noexcept { w8a8<BF16>(a, s); }
void w8a8_f16(const LinearArgs& a, const Share& s) noexcept { w8a8<F16>(a, s); }
void w8a8_f32(const LinearArgs& a, const Share& s) noexcept { w8a8<float>(a, s); }
void w8a8_gated_bf16(const GatedArgs& a, const Share& s) noexcept { w8a8_gated<BF16>(a, s); }
void w8a8_gated_f16(const GatedArgs& a, const Share& s) noexcept { w8a8_gated<F16>(a, s); }
void w8a8_gated_f32(const GatedArgs& a, const Share& s) noexcept { w8a8_gated<float>(a, s); }

}  // namespace lathe::amx
