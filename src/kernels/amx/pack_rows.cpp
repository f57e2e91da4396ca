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
  Range mine = part_of(a.m, share.worker, share.workers);
  if (mine.end == a.m) mine.end = packed.row_tiles * tile_side;  // the last tile's other rows are zeros
  for (int64_t row = mine.begin; row < mine.end; ++row)
    for (int64_t pass = 0; pass < packed.passes(); ++pass) {
      char* out = static_cast<char*>(a.out) + packed.at(pass, row / tile_side) + row % tile_side * 64;
      const float* x = a.x + row * a.x_stride + pass * depth_tiles * columns;
      for (int64_t t = 0; t < packed.tiles_in(pass); ++t) {
        const int64_t left = row < a.m ? a.k - (pass * depth_tiles + t) * columns : 0;
        _mm512_store_si512(out + t * tile_bytes, to_bf16(x + t * columns, left));
      }
    }
}

}  // namespace lathe::amx
