// What the integer bodies in kernels/simd/ need beyond vec.h, for plain AVX2.
//
//   dot(sums, w, x)        to each 32-bit sum, four products of bytes of w = operand(words of panel.int8) and
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

// W8A8 (w8a8.inl): q x = |x| (q ^ s) + |x| s, where s is 1 and flips all bits if x < 0, else 0. So x comes as
// magnitudes and what makes q ^ s of the stored q + 128, and its row's sum is that of the magnitudes of its
// negative numbers. Zen's vpsignb shares three units with the products and their sums, xor has a fourth: 1.33
// cycles for 32 products become 1.
constexpr int64_t column_bytes = 2;
constexpr int32_t sum_factor = 1;
struct FourColumns {
  I magnitude, flip;
};
inline FourColumns four_columns(const char* x) { return {broadcast_word(x), broadcast_word(x + 4)}; }
inline I panel_operand(I words) { return words; }
inline I dot(I sums, I w, FourColumns x) {
  const I pairs = _mm256_maddubs_epi16(x.magnitude, _mm256_xor_si256(w, x.flip));
  return add_words(sums, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

inline I small_dot(I pairs, I w, I x) {
  I sums = _mm256_add_epi16(pairs, _mm256_maddubs_epi16(w, x));
  // In this order: GCC 12 adds products up pairwise, for which 48 of them lie in memory.
  asm("" : "+x"(sums));
  return sums;
}
// Sums of codes u, which are q + 8, to those of q. (A shift, as no number then comes from a scalar register.)
inline I less_eights(I total, int32_t x_sum) {
  return _mm256_sub_epi32(total, _mm256_slli_epi32(set_words(x_sum), 3));
}
inline I small_total(I pairs) { return _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)); }

constexpr int most_streams = 8;               // sums of rows whose weights stream through registers
constexpr int dot_rows = 2, dot_vectors = 4;  // the tile of many rows: 8 sums of the 16 registers
constexpr int small_rows = 6;                 // most rows of int4 at once, and how many vectors with them
constexpr int small_vectors(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }

}  // namespace
}  // namespace lathe
