// Rows of x as bf16: see Bf16Rows in kernels/simd/packed_rows.h.
#include "kernels/avx512bf16/avx512bf16.h"
#include "kernels/avx512bf16/pairs.h"
#include "kernels/simd/packed_rows.h"

namespace lathe::avx512bf16 {

size_t bf16_rows_bytes(int64_t m, int64_t k) { return static_cast<size_t>(Bf16Rows(m, k).bytes()); }

void pack_bf16_rows(const PackRowsArgs& a, const Share& share) noexcept {
  const Bf16Rows packed(a.m, a.k);
  const Range mine = part_of(a.m, share.worker, share.workers);
  for (int64_t row = mine.begin; row < mine.end; ++row) {
    const float* x = a.x + row * a.x_stride;
    char* out = static_cast<char*>(a.out) + row * packed.words * 4;
    for (int64_t c = 0; c < a.k; c += pair_columns) _mm512_store_si512(out + c * 2, to_bf16(x + c, a.k - c));
  }
}

}  // namespace lathe::avx512bf16
