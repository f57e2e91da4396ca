// What the integer bodies in kernels/simd/ need beyond vec.h, for plain AVX2.
//
//   dot(sums, w, x)        to each 32-bit sum, four products of bytes of w = operand(words of x86.int8) and
//                          signed bytes of x. The words store q + 128; operand() gives q + code_offset.
//   small_dot(...)         the same for a group of 32 columns whose bytes of w are 0 .. 15; small_total()
//                          of the last gives the sums.
//
// vpmaddubsw adds two products of an unsigned and a signed byte in 16 bits and saturates, so it only sees
// pairs that cannot: |q| <= 128 and |x| <= 127 make at most 32,512; eight pairs with codes up to 15, 30,480.
#pragma once

#include "kernels/avx2/vec.h"

namespace lathe {
namespace {

constexpr int32_t code_offset = 0;
struct Operand {
  I q, magnitude;
};
inline Operand operand(I words) {
  const I q = _mm256_xor_si256(words, _mm256_set1_epi8(-128));
  return {q, _mm256_abs_epi8(q)};  // of -128: 128 as an unsigned byte
}
inline I dot(I sums, Operand w, I x) {
  const I pairs = _mm256_maddubs_epi16(w.magnitude, _mm256_sign_epi8(x, w.q));
  return add_words(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

inline I small_dot(I pairs, I w, I x) { return _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w, x)); }
inline I small_total(I pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

constexpr int most_streams = 8;               // sums of rows whose weights stream through registers
constexpr int dot_rows = 4, dot_vectors = 2;  // the tile of many rows: 8 sums of the 16 registers
constexpr int small_rows = 6;                 // most rows of int4 at once, and how many vectors with them
constexpr int small_vectors(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }

}  // namespace
}  // namespace lathe
