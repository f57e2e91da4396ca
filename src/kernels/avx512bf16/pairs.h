// Floats as bf16, and two columns of them side by side in a word: what vdpbf16ps and tiles multiply.
#pragma once

#include <immintrin.h>
#include <stdint.h>

namespace lathe {
namespace {

// 16 words: bf16 of even[i] and odd[i] side by side.
inline __m512i as_pairs(__m512 even, __m512 odd) {
  const __m512i interleave = _mm512_set_epi16(31, 15, 30, 14, 29, 13, 28, 12, 27, 11, 26, 10, 25, 9, 24, 8,
                                              23, 7, 22, 6, 21, 5, 20, 4, 19, 3, 18, 2, 17, 1, 16, 0);
  return _mm512_permutexvar_epi16(interleave, reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(odd, even)));
}

constexpr int64_t pair_columns = 32;  // of x in a vector

// 32 floats of a row, of which `n` exist, as bf16.
inline __m512i to_bf16(const float* x, int64_t n) {
  if (n >= pair_columns)
    return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(_mm512_loadu_ps(x + 16), _mm512_loadu_ps(x)));
  const auto mask = n <= 0 ? 0u : (1u << n) - 1;
  const __m512 low = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask), x),
               high = _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> 16), x + 16);
  return reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
}

}  // namespace
}  // namespace lathe
