// The few vector operations that the bodies in kernels/simd/ are written in, for AVX2 with FMA and F16C.
// Everything is in an anonymous namespace: each object file keeps its own copy (see kernels/share.h).
#pragma once

#include <immintrin.h>
#include <stdint.h>

#include "kernels/avx2/transpose.h"

namespace lathe {
namespace {

using V = __m256;   // `lanes` floats
using I = __m256i;  // as many 32-bit integers
constexpr int lanes = 8;
constexpr int tile_rows = 3, tile_vectors = 4;  // a tile of the matrix product: 12 of the 16 registers
constexpr int most_fused = 2;   // rows of x that one pass over weights in registers serves, and
constexpr int fused_limit = 2;  // rows up to which such passes beat unpacking weights into scratch

inline V zero() { return _mm256_setzero_ps(); }
inline V set(float f) { return _mm256_set1_ps(f); }
inline V load(const float* p) { return _mm256_loadu_ps(p); }
inline void store(float* p, V v) { _mm256_storeu_ps(p, v); }
inline V add(V a, V b) { return _mm256_add_ps(a, b); }
inline V sub(V a, V b) { return _mm256_sub_ps(a, b); }
inline V mul(V a, V b) { return _mm256_mul_ps(a, b); }
inline V div(V a, V b) { return _mm256_div_ps(a, b); }
inline V max(V a, V b) { return _mm256_max_ps(a, b); }  // b where either is NaN
inline V min(V a, V b) { return _mm256_min_ps(a, b); }
inline V larger(V a, V b) { return _mm256_max_ps(a, b); }  // a where a > b, else b: never a NaN of a
inline V where_at_least(V a, V b, V value) {               // value where a >= b, else 0
  return _mm256_and_ps(_mm256_cmp_ps(a, b, _CMP_GE_OQ), value);
}
inline V abs(V v) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), v); }
inline V fma(V a, V b, V c) { return _mm256_fmadd_ps(a, b, c); }  // a * b + c
inline float sum(V v) {
  __m128 h = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  h = _mm_add_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_add_ss(h, _mm_movehdup_ps(h)));
}
inline float largest(V v) {
  __m128 h = _mm_max_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps(v, 1));
  h = _mm_max_ps(h, _mm_movehl_ps(h, h));
  return _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}

// The first n lanes (n may be more than there are, or none); the others are 0, or left alone, and their
// memory is not touched.
inline I first(int64_t n) {
  const int count = n >= lanes ? lanes : n <= 0 ? 0 : static_cast<int>(n);
  return _mm256_cmpgt_epi32(_mm256_set1_epi32(count), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
}
inline V load_n(const float* p, int64_t n) { return _mm256_maskload_ps(p, first(n)); }
inline void store_n(float* p, V v, int64_t n) {
  if (n >= lanes) return store(p, v);  // Zen takes a dozen cycles for a masked store
  _mm256_maskstore_ps(p, first(n), v);
}

struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
inline V load_as_f32(const float* p) { return load(p); }
inline V load_as_f32(const BF16* p) {
  const __m128i h = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}
inline V load_as_f32(const F16* p) {
  return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)));
}
inline V load_as_f32(const int8_t* p) {
  return _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p))));
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
  const __m128i halves = _mm_cvtepi8_epi16(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return _mm256_cvtph_ps(
      _mm_and_si128(_mm_slli_epi16(halves, 7), _mm_set1_epi16(static_cast<short>(0xbf80))));
}
// The same of 8 from `lane` of 32: two lanes share all but the last step.
inline V load_256ths(const E4M3* panel, int lane) {
  const auto* at = reinterpret_cast<const __m128i*>(panel + lane / 16 * 16);
  const I halves = _mm256_slli_epi16(_mm256_cvtepi8_epi16(_mm_loadu_si128(at)), 7);
  const I bits = _mm256_and_si256(halves, _mm256_set1_epi16(static_cast<short>(0xbf80)));
  return _mm256_cvtph_ps(lane % 16 == 0 ? _mm256_castsi256_si128(bits) : _mm256_extracti128_si256(bits, 1));
}
inline V load_as_f32(const E4M3* p) { return mul(load_256ths(p), set(256)); }
inline V load_as_f32(const E8M0* p) {
  const I e = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
  return _mm256_castsi256_ps(_mm256_max_epi32(_mm256_slli_epi32(e, 23), _mm256_set1_epi32(0x00400000)));
}

// Words of two bf16: the low ones, the high ones.
inline V low_bf16(V words) { return _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_castps_si256(words), 16)); }
inline V high_bf16(V words) {
  return _mm256_castsi256_ps(
      _mm256_and_si256(_mm256_castps_si256(words), _mm256_set1_epi32(static_cast<int>(0xffff0000u))));
}

inline I load_words(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline I load_bytes(const uint8_t* p) {  // one to a word
  return _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
}
inline void store_words(int32_t* p, I words) { _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), words); }
inline I set_words(int32_t word) { return _mm256_set1_epi32(word); }
inline I broadcast_word(const char* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return set_words(word);
}
inline I add_words(I a, I b) { return _mm256_add_epi32(a, b); }
inline int32_t sum_words(I words) {
  __m128i h = _mm_add_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  h = _mm_add_epi32(h, _mm_shuffle_epi32(h, 0x4e));
  return _mm_cvtsi128_si32(_mm_add_epi32(h, _mm_shuffle_epi32(h, 0xb1)));
}
inline V words_to_f32(I words) { return _mm256_cvtepi32_ps(words); }
inline I round_to_words(V v) { return _mm256_cvtps_epi32(v); }  // to nearest, ties to even
inline void store_bytes(char* p, I words) {                     // of integers that fit
  const __m128i halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256(words, 1));
  _mm_storel_epi64(reinterpret_cast<__m128i*>(p), _mm_packs_epi16(halves, halves));
}
// The low or high four bits of every byte.
inline I low_nibbles(I words) { return _mm256_and_si256(words, _mm256_set1_epi8(15)); }
inline I high_nibbles(I words) { return low_nibbles(_mm256_srli_epi16(words, 4)); }

template <int bits>
inline I shift_right(I words) {
  return _mm256_srli_epi32(words, bits);
}

// Sixteen floats, found by the low four bits of each word; sixteen bytes, by each byte (0 .. 15).
struct FloatTable {
  V low, high;
  explicit FloatTable(const float* p) : low(load(p)), high(load(p + lanes)) {}
  V operator[](I words) const {
    const V fourth_bit = _mm256_castsi256_ps(_mm256_slli_epi32(words, 28));
    return _mm256_blendv_ps(_mm256_permutevar8x32_ps(low, words), _mm256_permutevar8x32_ps(high, words),
                            fourth_bit);
  }
};
struct ByteTable {
  I bytes;
  explicit ByteTable(const uint8_t* p)
      : bytes(_mm256_broadcastsi128_si256(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p)))) {}
  I operator[](I nibbles) const { return _mm256_shuffle_epi8(bytes, nibbles); }
};

// Every lane's neighbour `apart` away: that whose number differs in this bit.
template <int apart>
inline V swap_lanes(V v) {
  if constexpr (apart < 4)
    return _mm256_permute_ps(v, apart == 1 ? 0xb1 : 0x4e);
  else
    return _mm256_permute2f128_ps(v, v, 1);
}

// Floats in [1, 2) whose mantissas are the bits of each word under `mask` after a shift to the left
// (negative: right).
template <int shift, int mask>
inline V mantissa(I words) {
  if constexpr (shift >= 0)
    words = _mm256_slli_epi32(words, shift);
  else
    words = _mm256_srli_epi32(words, -shift);
  const I one = _mm256_set1_epi32(0x3f800000);
  return _mm256_castsi256_ps(_mm256_or_si256(_mm256_and_si256(words, _mm256_set1_epi32(mask)), one));
}

inline V round_to_integer(V v) { return _mm256_round_ps(v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC); }
inline V times_power_of_two(V v, V n) {  // in two halves, so that n may leave the range of one exponent
  const I whole = _mm256_cvtps_epi32(n), half = _mm256_srai_epi32(whole, 1), bias = _mm256_set1_epi32(127);
  const I rest = _mm256_sub_epi32(whole, half);
  const V a = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(half, bias), 23));
  const V b = _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_add_epi32(rest, bias), 23));
  return mul(mul(v, a), b);
}

}  // namespace
}  // namespace lathe
