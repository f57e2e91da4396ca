// Activations as tiles: see tiles.h.
#include "kernels/amx/amx.h"
#include "kernels/amx/tiles.h"

namespace lathe::amx {
namespace {

constexpr int64_t columns = 32;  // bf16 in a row of a tile

// 32 floats of a row, of which `n` exist, as bf16.
inline __m512i to_bf16(const float* x, int64_t n) {
  if (n >= columns)
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x)));
  const auto mask = n <= 0 ? 0u : (1u << n) - 1;
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x),
               high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + 16);
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

// 16 floats, of which `n` exist.
inline __m512 load_columns(const float* x, int64_t n) {
  return _mm512_maskz_loadu_ps(static_cast<__mmask16>(n >= 16 ? 0xffff : n <= 0 ? 0 : (1u << n) - 1), x);
}

}  // namespace

size_t bf16_rows_bytes(int64_t m, int64_t k) {
  return static_cast<size_t>(PackedRows(m, k, columns).bytes());
}

void pack_bf16_rows(const PackRowsArgs& a, const Share& share) noexcept {
  const PackedRows packed(a.m, a.k, columns);
  const Range mine = part_of(packed.row_tiles, share.worker, share.workers);
  for (int64_t tile = mine.begin; tile < mine.end; ++tile)
    for (int64_t pass = 0; pass < packed.passes(); ++pass) {
      char* out = static_cast<char*>(a.out) + packed.at(pass, tile);
      for (int64_t r = 0; r < tile_side; ++r) {
        const int64_t row = tile * tile_side + r;
        const float* x = a.x + row * a.x_stride + pass * depth_tiles * columns;
        for (int64_t t = 0; t < packed.tiles_in(pass); ++t) {
          const int64_t left = row < a.m ? a.k - (pass * depth_tiles + t) * columns : 0;
          _mm512_store_si512(out + t * tile_bytes + r * 64, to_bf16(x + t * columns, left));
        }
      }
    }
}

size_t int8_rows_bytes(int64_t m, int64_t k) { return static_cast<size_t>(Int8Rows(m, k).bytes()); }

void pack_int8_rows(const PackRowsArgs& a, const Share& share) noexcept {
  const Int8Rows rows(a.m, a.k);
  const PackedRows& packed = rows.tiles;
  auto* out = static_cast<char*>(a.out);
  const Range mine = part_of(packed.row_tiles, share.worker, share.workers);
  for (int64_t tile = mine.begin; tile < mine.end; ++tile)
    for (int64_t r = 0; r < tile_side; ++r) {
      const int64_t row = tile * tile_side + r;
      const float* x = a.x + row * a.x_stride;
      if (row >= a.m) {
        for (int64_t t = 0; t < packed.depth; ++t)
          _mm512_store_si512(out + packed.at(t / depth_tiles, tile) + t % depth_tiles * tile_bytes + r * 64,
                             _mm512_setzero_si512());
        reinterpret_cast<float*>(out + rows.scales())[row] = 0;
        reinterpret_cast<int32_t*>(out + rows.sums())[row] = 0;
        continue;
      }
      const int64_t k = a.k;
      __m512 most = _mm512_setzero_ps();
      for (int64_t c = 0; c < k; c += 16)
        most = _mm512_max_ps(most, _mm512_abs_ps(load_columns(x + c, k - c)));
      const float largest = _mm512_reduce_max_ps(most);
      const __m512 inverse = _mm512_set1_ps(largest > 0 ? 127.0f / largest : 0.0f);
      __m512i sum = _mm512_setzero_si512();
      for (int64_t t = 0; t < packed.depth; ++t) {
        const int64_t pass = t / depth_tiles;
        char* to = out + packed.at(pass, tile) + t % depth_tiles * tile_bytes + r * 64;
        for (int64_t c = 0; c < 64; c += 16) {
          const int64_t column = t * 64 + c;
          const __m512i q = _mm512_cvtps_epi32(_mm512_mul_ps(load_columns(x + column, k - column), inverse));
          sum = _mm512_add_epi32(sum, q);
          _mm_store_si128(reinterpret_cast<__m128i*>(to + c), _mm512_cvtepi32_epi8(q));
        }
      }
      reinterpret_cast<float*>(out + rows.scales())[row] = largest / 127.0f;
      reinterpret_cast<int32_t*>(out + rows.sums())[row] = _mm512_reduce_add_epi32(sum);
    }
}

}  // namespace lathe::amx
