// The few vector operations that the bodies in kernels/simd/ are written in, for NEON: 128 bits, part of
// every AArch64. Everything is in an anonymous namespace: each object file keeps its own copy (see
// kernels/share.h).
//
// The register counts below follow from 32 registers; nothing here was timed on an ARM machine.
#pragma once

#include <arm_neon.h>
#include <stdint.h>

namespace lathe {
namespace {

using V = float32x4_t;  // `lanes` floats
using I = uint32x4_t;   // as many 32-bit integers
constexpr int lanes = 4;
constexpr int tile_rows = 6, tile_vectors = 4;  // a tile of the matrix product: 24 of the 32 registers
constexpr int most_fused = 2;   // rows of x that one pass over weights in registers serves (8 sums each), and
constexpr int fused_limit = 2;  // rows up to which such passes beat unpacking weights into scratch

inline V zero() { return vdupq_n_f32(0); }
inline V set(float f) { return vdupq_n_f32(f); }
inline V load(const float* p) { return vld1q_f32(p); }
inline void store(float* p, V v) { vst1q_f32(p, v); }
inline V add(V a, V b) { return vaddq_f32(a, b); }
inline V sub(V a, V b) { return vsubq_f32(a, b); }
inline V mul(V a, V b) { return vmulq_f32(a, b); }
inline V div(V a, V b) { return vdivq_f32(a, b); }
inline V max(V a, V b) { return vmaxq_f32(a, b); }  // NaN where either is: what exp() needs of `b`
inline V min(V a, V b) { return vminq_f32(a, b); }
inline V larger(V a, V b) { return vbslq_f32(vcgtq_f32(a, b), a, b); }  // never a NaN of a
inline V where_at_least(V a, V b, V value) {                            // value where a >= b, else 0
  return vreinterpretq_f32_u32(vandq_u32(vcgeq_f32(a, b), vreinterpretq_u32_f32(value)));
}
inline V abs(V v) { return vabsq_f32(v); }
inline V fma(V a, V b, V c) { return vfmaq_f32(c, a, b); }  // a * b + c
inline float sum(V v) { return vaddvq_f32(v); }
inline float largest(V v) { return vmaxvq_f32(v); }

// The first n lanes (n may be more than there are, or none); the others are 0, or left alone, and their
// memory is not touched. NEON has no masked access: one lane at a time.
inline V load_n(const float* p, int64_t n) {
  if (n >= lanes) return load(p);
  V v = zero();
  if (n > 0) v = vld1q_lane_f32(p, v, 0);
  if (n > 1) v = vld1q_lane_f32(p + 1, v, 1);
  if (n > 2) v = vld1q_lane_f32(p + 2, v, 2);
  return v;
}
inline void store_n(float* p, V v, int64_t n) {
  if (n >= lanes) return store(p, v);
  if (n > 0) vst1q_lane_f32(p, v, 0);
  if (n > 1) vst1q_lane_f32(p + 1, v, 1);
  if (n > 2) vst1q_lane_f32(p + 2, v, 2);
}

struct BF16 {
  uint16_t bits;
};
struct F16 {
  uint16_t bits;
};
inline V load_as_f32(const float* p) { return load(p); }
inline V load_as_f32(const BF16* p) {
  return vreinterpretq_f32_u32(vshlq_n_u32(vmovl_u16(vld1_u16(&p->bits)), 16));
}
inline V load_as_f32(const F16* p) { return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p->bits))); }
inline V load_as_f32(const int8_t* p) {  // of four bytes and not the eight that vld1_s8 reads
  uint32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(bytes))))));
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
  uint32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  const int16x4_t halves = vget_low_s16(vmovl_s8(vreinterpret_s8_u32(vdup_n_u32(bytes))));
  return vcvt_f32_f16(
      vreinterpret_f16_u16(vand_u16(vreinterpret_u16_s16(vshl_n_s16(halves, 7)), vdup_n_u16(0xbf80))));
}
inline V load_256ths(const E4M3* panel, int lane) { return load_256ths(panel + lane); }
inline V load_as_f32(const E4M3* p) { return mul(load_256ths(p), set(256)); }
inline V load_as_f32(const E8M0* p) {
  uint32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  const I e = vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes)))));
  return vreinterpretq_f32_u32(vmaxq_u32(vshlq_n_u32(e, 23), vdupq_n_u32(0x00400000)));
}

// Words of two bf16: the low ones, the high ones.
inline V low_bf16(V words) { return vreinterpretq_f32_u32(vshlq_n_u32(vreinterpretq_u32_f32(words), 16)); }
inline V high_bf16(V words) {
  return vreinterpretq_f32_u32(vandq_u32(vreinterpretq_u32_f32(words), vdupq_n_u32(0xffff0000u)));
}

inline I load_words(const void* p) { return vreinterpretq_u32_u8(vld1q_u8(static_cast<const uint8_t*>(p))); }
inline I load_bytes(const uint8_t* p) {  // one to a word
  uint32_t bytes;
  __builtin_memcpy(&bytes, p, sizeof bytes);
  return vmovl_u16(vget_low_u16(vmovl_u8(vreinterpret_u8_u32(vdup_n_u32(bytes)))));
}
inline void store_words(int32_t* p, I words) { vst1q_s32(p, vreinterpretq_s32_u32(words)); }
inline I set_words(int32_t word) { return vreinterpretq_u32_s32(vdupq_n_s32(word)); }
inline I broadcast_word(const char* p) {
  int32_t word;
  __builtin_memcpy(&word, p, sizeof word);
  return set_words(word);
}
inline I add_words(I a, I b) { return vaddq_u32(a, b); }
inline int32_t sum_words(I words) { return vaddvq_s32(vreinterpretq_s32_u32(words)); }
inline V words_to_f32(I words) { return vcvtq_f32_s32(vreinterpretq_s32_u32(words)); }
inline I round_to_words(V v) { return vreinterpretq_u32_s32(vcvtnq_s32_f32(v)); }  // to nearest, ties to even
inline void store_bytes(char* p, I words) {                                        // of integers that fit
  const int16x4_t halves = vqmovn_s32(vreinterpretq_s32_u32(words));
  const uint32_t four = vget_lane_u32(vreinterpret_u32_s8(vqmovn_s16(vcombine_s16(halves, halves))), 0);
  __builtin_memcpy(p, &four, sizeof four);
}
// The low or high four bits of every byte.
inline I low_nibbles(I words) {
  return vreinterpretq_u32_u8(vandq_u8(vreinterpretq_u8_u32(words), vdupq_n_u8(15)));
}
inline I high_nibbles(I words) { return vreinterpretq_u32_u8(vshrq_n_u8(vreinterpretq_u8_u32(words), 4)); }

template <int bits>
inline I shift_right(I words) {
  if constexpr (bits == 0) return words;
  return vshrq_n_u32(words, bits == 0 ? 1 : bits);
}

// Sixteen floats, found by the low four bits of each word; sixteen bytes, by each byte (0 .. 15).
struct FloatTable {
  uint8x16x4_t bytes;
  explicit FloatTable(const float* p) {
    const auto* at = reinterpret_cast<const uint8_t*>(p);
    for (int i = 0; i < 4; ++i) bytes.val[i] = vld1q_u8(at + 16 * i);
  }
  V operator[](I words) const {
    const I first = vmulq_n_u32(vandq_u32(words, vdupq_n_u32(15)), 0x04040404);
    return vreinterpretq_f32_u8(
        vqtbl4q_u8(bytes, vreinterpretq_u8_u32(vorrq_u32(first, vdupq_n_u32(0x03020100)))));
  }
};
struct ByteTable {
  uint8x16_t bytes;
  explicit ByteTable(const uint8_t* p) : bytes(vld1q_u8(p)) {}
  I operator[](I nibbles) const {
    return vreinterpretq_u32_u8(vqtbl1q_u8(bytes, vreinterpretq_u8_u32(nibbles)));
  }
};

// Floats in [1, 2) whose mantissas are the bits of each word under `mask` after a shift to the left
// (negative: right).
template <int shift, int mask>
inline V mantissa(I words) {
  if constexpr (shift >= 0)
    words = vshlq_n_u32(words, shift);
  else
    words = vshrq_n_u32(words, -shift);
  return vreinterpretq_f32_u32(vbslq_u32(vdupq_n_u32(mask), words, vdupq_n_u32(0x3f800000)));
}

inline V round_to_integer(V v) { return vrndnq_f32(v); }
inline V times_power_of_two(V v, V n) {  // in two halves, so that n may leave the range of one exponent
  const int32x4_t whole = vcvtnq_s32_f32(n), half = vshrq_n_s32(whole, 1), bias = vdupq_n_s32(127);
  const int32x4_t rest = vsubq_s32(whole, half);
  const V a = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(half, bias), 23));
  const V b = vreinterpretq_f32_s32(vshlq_n_s32(vaddq_s32(rest, bias), 23));
  return mul(mul(v, a), b);
}

// Every lane's neighbour `apart` away: that whose number differs in this bit.
template <int apart>
inline V swap_lanes(V v) {
  return apart == 1 ? vrev64q_f32(v) : vextq_f32(v, v, 2);
}

// A square of floats: `square` rows of as many to columns `stride` apart.
constexpr int square = 4;
inline void transpose_square(const float* const rows[square], float* out, int64_t stride) {
  const V a = load(rows[0]), b = load(rows[1]), c = load(rows[2]), d = load(rows[3]);
  const float64x2_t ab = vreinterpretq_f64_f32(vtrn1q_f32(a, b)),  // a0 b0 a2 b2
      cd = vreinterpretq_f64_f32(vtrn1q_f32(c, d)),                // c0 d0 c2 d2
      ab_odd = vreinterpretq_f64_f32(vtrn2q_f32(a, b)),            // a1 b1 a3 b3
      cd_odd = vreinterpretq_f64_f32(vtrn2q_f32(c, d));            // c1 d1 c3 d3
  store(out, vreinterpretq_f32_f64(vtrn1q_f64(ab, cd)));
  store(out + stride, vreinterpretq_f32_f64(vtrn1q_f64(ab_odd, cd_odd)));
  store(out + 2 * stride, vreinterpretq_f32_f64(vtrn2q_f64(ab, cd)));
  store(out + 3 * stride, vreinterpretq_f32_f64(vtrn2q_f64(ab_odd, cd_odd)));
}

}  // namespace
}  // namespace lathe
