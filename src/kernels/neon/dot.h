// What the integer bodies in kernels/simd/ need beyond vec.h, for NEON without sdot.
//
//   dot(sums, w, x)        to each 32-bit sum, four products of bytes of w = operand(words of panel.int8) and
//                          signed bytes of x. The words store q + 128; operand() gives q + code_offset.
//   small_dot(...)         the same for a group of 32 columns whose bytes of w are 0 .. 15; small_total()
//                          of the last gives the sums.
#pragma once

#include "kernels/neon/vec.h"

namespace lathe {
namespace {

constexpr int32_t code_offset = 0;
using Operand = I;
inline Operand operand(I words) { return veorq_u32(words, vdupq_n_u32(0x80808080)); }
// Two products of |q| <= 128 and |x| <= 127 fit 16 bits.
inline I dot(I sums, Operand w, I x) {
  const int8x16_t a = vreinterpretq_s8_u32(w), b = vreinterpretq_s8_u32(x);
  const int16x8_t pairs = vpaddq_s16(vmull_s8(vget_low_s8(a), vget_low_s8(b)), vmull_high_s8(a, b));
  return vreinterpretq_u32_s32(vpadalq_s16(vreinterpretq_s32_u32(sums), pairs));
}

inline I small_dot(I sums, I w, I x) { return dot(sums, w, x); }
inline I small_total(I sums) { return sums; }

constexpr int most_streams = 16;              // sums of rows whose weights stream through registers
constexpr int dot_rows = 8, dot_vectors = 2;  // the tile of many rows: 16 sums of the 32 registers
constexpr int small_rows = 4;                 // most rows of int4 at once, and how many vectors with them
constexpr int small_vectors(int rows) { return rows == 1 ? 8 : rows == 2 ? 4 : 2; }

}  // namespace
}  // namespace lathe

#include "kernels/simd/plain_columns.inl"
