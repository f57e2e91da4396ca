// Rows of x as int8, and rounded: see kernels/simd/int8_rows.inl and rounded_rows.inl.
#include "kernels/avx2/avx2.h"
#include "kernels/avx2/vec.h"
// The body comes last: it is written in the vectors of vec.h.
// clang-format off
#include "kernels/simd/int8_rows.inl"
#include "kernels/simd/rounded_rows.inl"
// clang-format on

namespace lathe {
namespace {

// Four columns to 8 bytes: magnitudes, then 0x7f for negative ones and 0x80 for others (dot.h).
struct FlippedColumns {
  static constexpr int64_t bytes = 2;
  I negative = _mm256_setzero_si256();
  void put(char* row, int64_t column, I integers) {
    const I magnitude = _mm256_abs_epi32(integers), sign = _mm256_srai_epi32(integers, 31);
    negative = add_words(negative, _mm256_and_si256(magnitude, sign));
    const I halves = _mm256_permute4x64_epi64(_mm256_packs_epi32(magnitude, sign), 0xd8);
    // Columns 0-7 of the magnitudes, then of the signs: 0 or -1.
    const __m128i m = _mm_packus_epi16(_mm256_castsi256_si128(halves), _mm_setzero_si128());
    const __m128i s = _mm_packs_epi16(_mm256_extracti128_si256(halves, 1), _mm_setzero_si128());
    _mm_storeu_si128(reinterpret_cast<__m128i*>(row + column * bytes),
                     _mm_unpacklo_epi32(m, _mm_xor_si128(s, _mm_set1_epi8(-128))));
  }
  int32_t sum(int32_t) const { return sum_words(negative); }
};

}  // namespace
}  // namespace lathe

namespace lathe::avx2 {

void pack_int8_rows(const PackRowsArgs& a, const Share& s) noexcept { int8_rows(a, s); }
void pack_flipped_rows(const PackRowsArgs& a, const Share& s) noexcept { int8_rows<FlippedColumns>(a, s); }
void pack_int8_groups(const PackRowsArgs& a, const Share& s) noexcept { int8_groups(a, s); }
void pack_rounded_rows(const PackRowsArgs& a, const Share& s) noexcept { rounded_rows(a, s); }

}  // namespace lathe::avx2
