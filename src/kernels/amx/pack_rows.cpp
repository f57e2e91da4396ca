// Activations as tiles: see tiles.h.
#include "kernels/amx/amx.h"
#include "kernels/amx/tiles.h"

namespace lathe::amx {

constexpr int64_t columns = pair_columns;  // bf16 in a row of a tile

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
