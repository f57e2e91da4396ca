// What the integer bodies in kernels/simd/ need beyond vec.h, for AVX-VNNI (256 bits, no AVX-512).
//
//   dot(sums, w, x)        to each 32-bit sum, four products of bytes of w = operand(words of panel.int8) and
//                          signed bytes of x. The words store q + 128; operand() gives q + code_offset.
//   small_dot(...)         the same for a group of 32 columns whose bytes of w are 0 .. 15; small_total()
//                          of the last gives the sums.
#pragma once

#include "kernels/avx2/vec.h"

namespace lathe {
namespace {

constexpr int32_t code_offset = 128;  // vpdpbusd multiplies unsigned by signed bytes
using Operand = I;
inline Operand operand(I words) { return words; }
inline I dot(I sums, Operand w, I x) { return _mm256_dpbusd_avx_epi32(sums, w, x); }

inline I small_dot(I sums, I w, I x) { return dot(sums, w, x); }
inline I small_total(I sums) { return sums; }

constexpr int most_streams = 8;               // sums of rows whose weights stream through registers
constexpr int dot_rows = 4, dot_vectors = 2;  // the tile of many rows: 8 sums of the 16 registers
constexpr int small_rows = 6;                 // most rows of int4 at once, and how many vectors with them
constexpr int small_vectors(int rows) { return rows == 1 ? 4 : rows == 2 ? 2 : 1; }

}  // namespace
}  // namespace lathe

#include "kernels/simd/plain_columns.inl"
