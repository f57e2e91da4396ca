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

}  // namespace lathe::amx
