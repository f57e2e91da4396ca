// The few vector operations that the bodies in kernels/simd/ are written in, for AVX-512 (F, BW, DQ, VL).
// Everything is in an anonymous namespace: each object file keeps its own copy (see kernels/share.h).
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernels/avx512/transpose.h"

namespace lathe {
namespace {

using V = __m512;   // `lanes` floats
using I = __m512i;  // as many 32-bit integers
constexpr int lanes = 16;
constexpr int tile_rows = 6, tile_vectors = 4;  // a tile of the matrix product: 24 of the 32 registers
constexpr int most_fused = 8;    // rows of x that one pass over weights in registers serves, and
constexpr int fused_limit = 16;  // rows up to which such passes beat unpacking weights into scratch

inline V zero() { return _mm512_setzero_ps(); }
inline V set(float f) { return _mm512_set1_ps(f); }
inline V load(const float* p) { return _mm512_loadu_ps(p); }
inline void store(float* p, V v) { _mm512_storeu_ps(p, v); }
inline V add(V a, V b) { return _mm512_add_ps(a, b); }
inline V sub(V a, V b) { return _mm512_sub_ps(a, b); }
inline V mul(V a, V b) { return _mm512_mul_ps(a, b); }
inline V div(V a, V b) { return _mm512_div_ps(a, b); }
inline V max(V a, V b) { return _mm512_max_ps(a, b); }  // b where either is NaN
inline V min(V a, V b) { return _mm512_min_ps(a, b); }
inline V larger(V a, V b) { return _mm512_max_ps(a, b); }  // a where a > b, else b: never a NaN of a
inline V where_at_least(V a, V b, V value) {               // value where a >= b, else 0
  return _mm512_maskz_mov_ps(_mm512_cmp_ps_mask(a, b, _CMP_GE_OQ), value);
}
inline V abs(V v) { return _mm512_abs_ps(v); }
inline V fma(V a, V b, V c) { return _mm512_fmadd_ps(a, b, c); }  // a * b + c
inline float sum(V v) { return _mm512_reduce_add_ps(v); }
inline float largest(V v) { return _mm512_reduce_max_ps(v); }

// The first n lanes (n may be more than there are, or none); the others are 0, or left alone, and their
// memory is not touched.
inline __mmask16 first(int64_t n) {
  return static_cast<__mmask16>(n >= lanes ? 0xffff : n <= 0 ? 0 : (1u << n) - 1);
}
inline V load_n(const float* p, int64_t n) { return _mm512_maskz_loadu_ps(first(n), p); }
inline void store_n(float* p, V v, int64_t n) { _mm512_mask_storeu_ps(p, first(n), v); }

struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
inline V load_as_f32(const float* p) { return load(p); }
inline V load_as_f32(const BF16* p) {
  const __m256i h = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16));
}
inline V load_as_f32(const F16* p) {
  return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)));
}
inline V load_as_f32(const int8_t* p) {
  return _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))));
}

// 8-bit floats: e4m3 of weights and scales, and e8m0, which is the exponent of a scale.
struct E4M3 {
  uint8_t bits;
};
struct E8M0 {
  uint8_t bits;
};
// 1/256 of the values: an e4m3 with the bits of its exponent and fraction in place is that f16, subnormals
// included.
inline V load_256ths(const E4M3* p) {
  const __m256i halves = _mm256_cvtepi8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm512_cvtph_ps(
      _mm256_and_si256(_mm256_slli_epi16(halves, 7), _mm256_set1_epi16(static_cast<short>(0xbf80))));
}
// The same of 16 from `lane` of 32: those of both lanes share all but the last step.
inline V load_256ths(const E4M3* panel, int lane) {
  const I halves =
      _mm512_slli_epi16(_mm512_cvtepi8_epi16(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(panel))), 7);
  const I bits = _mm512_and_si512(halves, _mm512_set1_epi16(static_cast<short>(0xbf80)));
  return _mm512_cvtph_ps(lane == 0 ? _mm512_castsi512_si256(bits) : _mm512_extracti64x4_epi64(bits, 1));
}
inline V load_as_f32(const E4M3* p) { return mul(load_256ths(p), set(256)); }
inline V load_as_f32(const E8M0* p) {
  const I e = _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
  return _mm512_castsi512_ps(_mm512_max_epi32(_mm512_slli_epi32(e, 23), _mm512_set1_epi32(0x00400000)));
}

// Words of two bf16: the low ones, the high ones.
inline V low_bf16(V words) { return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_castps_si512(words), 16)); }
inline V high_bf16(V words) {
  return _mm512_castsi512_ps(
      _mm512_and_si512(_mm512_castps_si512(words), _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
}

inline I load_words(const void* p) { return _mm512_loadu_si512(p); }
inline I load_bytes(const uint8_t* p) {  // one to a word
  return _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline void store_words(int32_t* p, I words) { _mm512_storeu_si512(p, words); }
inline I set_words(int32_t word) { return _mm512_set1_epi32(word); }
inline I broadcast_word(const char* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return set_words(word);
}
inline I add_words(I a, I b) { return _mm512_add_epi32(a, b); }
inline int32_t sum_words(I words) { return _mm512_reduce_add_epi32(words); }
inline V words_to_f32(I words) { return _mm512_cvtepi32_ps(words); }
inline I round_to_words(V v) { return _mm512_cvtps_epi32(v); }  // to nearest, ties to even
inline void store_bytes(char* p, I words) {                     // of integers that fit
  _mm_storeu_si128(reinterpret_cast<__m128i*>(p), _mm512_cvtsepi32_epi8(words));
}
// The low or high four bits of every byte.
inline I low_nibbles(I words) { return _mm512_and_si512(words, _mm512_set1_epi8(15)); }
inline I high_nibbles(I words) { return low_nibbles(_mm512_srli_epi16(words, 4)); }

template <int bits>
inline I shift_right(I words) {
  return _mm512_srli_epi32(words, bits);
}

// Sixteen floats, found by the low four bits of each word; sixteen bytes, by each byte (0 .. 15).
struct FloatTable {
  V values;
  explicit FloatTable(const float* p) : values(load(p)) {}
  V operator[](I words) const { return _mm512_permutexvar_ps(words, values); }
};
struct ByteTable {
  I bytes;
  explicit ByteTable(const uint8_t* p)
      : bytes(_mm512_broadcast_i32x4(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))) {}
  I operator[](I nibbles) const { return _mm512_shuffle_epi8(bytes, nibbles); }
};

// Every lane's neighbour `apart` away: that whose number differs in this bit.
template <int apart>
inline V swap_lanes(V v) {
  if constexpr (apart < 4)
    return _mm512_permute_ps(v, apart == 1 ? 0xb1 : 0x4e);
  else
    return _mm512_shuffle_f32x4(v, v, apart == 4 ? 0xb1 : 0x4e);
}

// Floats in [1, 2) whose mantissas are the bits of each word under `mask` after a shift to the left
// (negative: right).
template <int shift, int mask>
inline V mantissa(I words) {
  if constexpr (shift >= 0)
    words = _mm512_slli_epi32(words, shift);
  else
    words = _mm512_srli_epi32(words, -shift);
  const I one = _mm512_set1_epi32(0x3f800000);
  return _mm512_castsi512_ps(
      _mm512_ternarylogic_epi32(words, _mm512_set1_epi32(mask), one, 0xea));  // (w & mask) | one
}

inline V round_to_integer(V v) {
  return _mm512_roundscale_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
inline V times_power_of_two(V v, V n) { return _mm512_scalef_ps(v, n); }

}  // namespace
}  // namespace lathe
