// y = x W^T + bias for many rows of x, in bf16 tiles with f32 sums.
//
// A worker owns a run of 32-column strips of y. It takes them in blocks of 8, and k in passes of 256: the
// block's weights of a pass become bf16 tiles in its scratch, whatever their format, and meet all rows of x
// (512 at a time). Per strip and pass 16 KiB of weights stay in L1 while the packed x streams from L2; the
// partial sums lie in scratch too. Every element of y is summed in the order of k, in the tile unit's own
// order within 32 columns: a row's bits do not depend on the other rows or on the workers.
#include "kernels/amx/amx.h"
#include "kernels/amx/tiles.h"
#include "kernels/avx512/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/exp.inl"
#include "kernels/simd/linear.inl"
// clang-format on

namespace lathe::amx {
namespace {

constexpr int64_t columns = 32;  // columns of W in a tile

// 16 rows of 16 words, to 16 columns.
inline void transpose_words(__m512i (&r)[16]) {
  __m512i t[16];
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(r[2 * i], r[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(r[2 * i], r[2 * i + 1]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    r[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    r[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    r[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
#pragma GCC unroll 4
  for (int i = 0; i < 4; ++i) {
    t[i] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0x88);
    t[i + 4] = _mm512_shuffle_i32x4(r[i], r[i + 4], 0xdd);
    t[i + 8] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0x88);
    t[i + 12] = _mm512_shuffle_i32x4(r[i + 8], r[i + 12], 0xdd);
  }
#pragma GCC unroll 8
  for (int i = 0; i < 8; ++i) {
    r[i] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0x88);
    r[i + 8] = _mm512_shuffle_i32x4(t[i], t[i + 8], 0xdd);
  }
}

// 32 elements of a row as bf16, of which `n` exist.
inline __m512i as_bf16(const BF16* p, int64_t n) {
  return _mm512_maskz_loadu_epi16(n >= columns ? ~0u : n <= 0 ? 0u : (1u << n) - 1, p);
}
inline __m512i as_bf16(const float* p, int64_t n) {
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load_n(p + 16, n - 16), load_n(p, n)));
}
inline __m512i as_bf16(const F16* p, int64_t n) {
  const __m512i h = _mm512_maskz_loadu_epi16(n >= columns ? ~0u : n <= 0 ? 0u : (1u << n) - 1, p);
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_cvtph_ps(_mm512_extracti64x4_epi64(h, 1)),
                                                       _mm512_cvtph_ps(_mm512_castsi512_si256(h))));
}

// Weights of one strip (32 rows of W) and `depth` tiles of columns from `begin`, as tiles: for each 32
// columns the tile of the first 16 rows, then that of the others.
template <class T>
struct RowMajor {
  const T* elements;
  int64_t n, k;
  explicit RowMajor(const LinearArgs& a) : elements(static_cast<const T*>(a.codes)), n(a.n), k(a.k) {}

  void expand(int64_t strip, int64_t begin, int64_t depth, char* out) const {
    for (int64_t half = 0; half < 2; ++half) {
      const int64_t top = strip * pair + half * tile_side;
      for (int64_t t = 0; t < depth; ++t) {
        const int64_t column = begin + t * columns;
        __m512i rows[16];
        for (int64_t r = 0; r < 16; ++r)
          rows[r] =
              top + r < n ? as_bf16(elements + (top + r) * k + column, k - column) : _mm512_setzero_si512();
        transpose_words(rows);
        for (int64_t r = 0; r < 16; ++r)
          _mm512_store_si512(out + (2 * t + half) * tile_bytes + r * 64, rows[r]);
      }
    }
  }
};

// Panels of 32 rows (quant/packings/x86.cpp), in any format of simd/linear.inl.
template <class Format>
struct Panels {
  Format format;
  int64_t k;
  explicit Panels(const LinearArgs& a) : format(a), k(a.k) {}

  void expand(int64_t strip, int64_t begin, int64_t depth, char* out) const {
    alignas(64) float weights[columns * panel];
    const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                                23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
    for (int64_t t = 0; t < depth; ++t) {
      const int64_t first = begin + t * columns, end = first + columns < k ? first + columns : k;
      for (int64_t i = (end - first) * panel; i < columns * panel; i += lanes) store(weights + i, zero());
      walk<1>(
          format, strip, first, end, [&](int64_t column, int v, V w) __attribute__((always_inline)) {
            store(weights + (column - first) * panel + v * lanes, w);
          });
      for (int64_t half = 0; half < 2; ++half)
        for (int64_t r = 0; r < 16; ++r) {
          const float* at = weights + 2 * r * panel + half * tile_side;
          const __m512i both = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(load(at + panel), load(at)));
          _mm512_store_si512(out + (2 * t + half) * tile_bytes + r * 64,
                             _mm512_permutexvar_epi16(interleave, both));
        }
    }
  }
};

// Tiles 0 to 3 += rows times weights over `depth` tiles. The second row tile may be absent: it is read from
// the first.
inline void multiply_tiles(const char* x0, const char* x1, const char* w, int64_t depth) {
  for (int64_t t = 0; t < depth; ++t) {
    _tile_loadd(6, w + 2 * t * tile_bytes, 64);
    _tile_loadd(4, x0 + t * tile_bytes, 64);
    _tile_loadd(5, x1 + t * tile_bytes, 64);
    _tile_loadd(7, w + (2 * t + 1) * tile_bytes, 64);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(2, 5, 6);
    _tile_dpbf16ps(1, 4, 7);
    _tile_dpbf16ps(3, 5, 7);
  }
}

// Where `up` is given, half of a block's strips are the gate's and half the other weight's, of the same
// columns, and y = silu(gate) * up.
template <class Source>
void prefill(const LinearArgs& a, const LinearArgs* up, const Share& share) {
  const Tiles tiles;
  const Source source(a), other(up ? *up : a);
  const PackedRows x(a.m, a.k, columns);
  const auto* packed = static_cast<const char*>(a.packed_x);
  char* weights = static_cast<char*>(share.scratch);  // [strips, 2 * depth_tiles] tiles
  float* sums = reinterpret_cast<float*>(weights + block_strips * 2 * depth_tiles * tile_bytes);
  const Range mine = part_of(ceil_div(a.n, pair), share.worker, share.workers);
  const int64_t most_strips = up ? block_strips / 2 : block_strips;
  for (int64_t block = mine.begin; block < mine.end; block += most_strips) {
    const int64_t wide = mine.end - block < most_strips ? mine.end - block : most_strips,
                  strips = up ? 2 * wide : wide;
    for (int64_t top = 0; top < x.row_tiles; top += block_rows_most / tile_side) {
      const int64_t rest = x.row_tiles - top,
                    row_tiles = rest < block_rows_most / tile_side ? rest : block_rows_most / tile_side;
      const int64_t pairs = ceil_div(row_tiles, 2);
      const auto sums_of = [&](int64_t s, int64_t p) { return sums + (s * pairs + p) * pair * pair; };
      for (int64_t pass = 0; pass < x.passes(); ++pass) {
        const int64_t depth = x.tiles_in(pass), begin = pass * depth_tiles * columns;
        for (int64_t s = 0; s < strips; ++s)
          (s < wide ? source : other)
              .expand(block + s % wide, begin, depth, weights + s * 2 * depth_tiles * tile_bytes);
        for (int64_t s = 0; s < strips; ++s)
          for (int64_t p = 0; p < pairs; ++p) {
            float* c = sums_of(s, p);
            if (pass == 0)
              zero_results();
            else
              load_results(c);
            const char* x0 = packed + x.at(pass, top + 2 * p);
            const char* x1 = 2 * p + 1 < row_tiles ? packed + x.at(pass, top + 2 * p + 1) : x0;
            multiply_tiles(x0, x1, weights + s * 2 * depth_tiles * tile_bytes, depth);
            store_results(c);
          }
      }
      // [pair of row tiles][row half][column half][16][16] to rows of y.
      const int64_t rows =
          a.m - top * tile_side < row_tiles * tile_side ? a.m - top * tile_side : row_tiles * tile_side;
      for (int64_t s = 0; s < wide; ++s) {
        const int64_t column = (block + s) * pair;
        const V bias0 = a.bias ? load_n(a.bias + column, a.n - column) : zero(),
                bias1 = a.bias ? load_n(a.bias + column + 16, a.n - column - 16) : zero();
        for (int64_t r = 0; r < rows; ++r) {
          const int64_t at = r % pair / 16 * 512 + r % 16 * 16;
          const float* c = sums_of(s, r / pair) + at;
          float* y = a.y + (top * tile_side + r) * a.y_stride + column;
          V y0 = add(load(c), bias0), y1 = add(load(c + 256), bias1);
          if (up) {
            const float* u = sums_of(wide + s, r / pair) + at;
            y0 = mul(silu(y0), load(u));
            y1 = mul(silu(y1), load(u + 256));
          }
          store_n(y, y0, a.n - column);
          store_n(y + 16, y1, a.n - column - 16);
        }
      }
    }
  }
}

static_assert(block_strips * (2 * depth_tiles * tile_bytes + block_rows_most * pair * 4) <=
              static_cast<int64_t>(kernel_scratch_bytes));

}  // namespace

void prefill_f32(const LinearArgs& a, const Share& s) noexcept { prefill<RowMajor<float>>(a, nullptr, s); }
void gated_f32(const GatedArgs& a, const Share& s) noexcept { prefill<RowMajor<float>>(a.gate, &a.up, s); }
void prefill_bf16(const LinearArgs& a, const Share& s) noexcept { prefill<RowMajor<BF16>>(a, nullptr, s); }
void gated_bf16(const GatedArgs& a, const Share& s) noexcept { prefill<RowMajor<BF16>>(a.gate, &a.up, s); }
void prefill_f16(const LinearArgs& a, const Share& s) noexcept { prefill<RowMajor<F16>>(a, nullptr, s); }
void gated_f16(const GatedArgs& a, const Share& s) noexcept { prefill<RowMajor<F16>>(a.gate, &a.up, s); }
void prefill_int4_bf16(const LinearArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<4, BF16, Rule::affine>>>(a, nullptr, s);
}
void gated_int4_bf16(const GatedArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<4, BF16, Rule::affine>>>(a.gate, &a.up, s);
}
void prefill_int4_f16(const LinearArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<4, F16, Rule::affine>>>(a, nullptr, s);
}
void gated_int4_f16(const GatedArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<4, F16, Rule::affine>>>(a.gate, &a.up, s);
}
void prefill_int4_f32(const LinearArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<4, float, Rule::shifted>>>(a, nullptr, s);
}
void gated_int4_f32(const GatedArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<4, float, Rule::shifted>>>(a.gate, &a.up, s);
}
void prefill_int4_min(const LinearArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<4, float, Rule::minimum>>>(a, nullptr, s);
}
void gated_int4_min(const GatedArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<4, float, Rule::minimum>>>(a.gate, &a.up, s);
}
void prefill_int8_bf16(const LinearArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<8, BF16, Rule::affine>>>(a, nullptr, s);
}
void gated_int8_bf16(const GatedArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<8, BF16, Rule::affine>>>(a.gate, &a.up, s);
}
void prefill_int8_f16(const LinearArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<8, F16, Rule::affine>>>(a, nullptr, s);
}
void gated_int8_f16(const GatedArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<8, F16, Rule::affine>>>(a.gate, &a.up, s);
}
void prefill_int8_f32(const LinearArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<8, float, Rule::shifted>>>(a, nullptr, s);
}
void gated_int8_f32(const GatedArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<8, float, Rule::shifted>>>(a.gate, &a.up, s);
}
void prefill_int8_min(const LinearArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<8, float, Rule::minimum>>>(a, nullptr, s);
}
void gated_int8_min(const GatedArgs& a, const Share& s) noexcept {
  prefill<Panels<Integer<8, float, Rule::minimum>>>(a.gate, &a.up, s);
}

}  // namespace lathe::amx
