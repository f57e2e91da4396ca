// W8A8 for prompts: kernels/simd/w8a8.inl with the products of smmla. Its sums are exact, so the bits are
// those of every other ISA.
#include "kernels/neondot/dot.h"
#include "kernels/neoni8mm/neoni8mm.h"
// The body comes last: it is written in the vectors of vec.h and the products of dot.h.
// clang-format off
#include "kernels/simd/w8a8.inl"
// clang-format on

namespace lathe {
namespace {

// See VectorProduct of the body: a pass's product of two tiles of rows and a strip.
struct MatrixProduct {
  static constexpr int rows_at_once = 8, columns_at_once = 8;

  static void add(int32_t* c, bool first, const char* const (&x)[2], int64_t rows, const char* w,
                  int64_t words, const char* ahead) {
    for (int64_t line = 0; line < words; line += 8) __builtin_prefetch(ahead + line * 8, 0, 2);
    for (int64_t row = 0; row < rows; row += rows_at_once)
      for (int64_t column = 0; column < pair; column += columns_at_once)
        block(c + row / tile_side * 512 + column / tile_side * 256 + row % tile_side * tile_side +
                  column % tile_side,
              first, x[row / tile_side] + row % tile_side * 64, w + column * 4, words);
  }

 private:
  // Sums of two rows and two columns.
  static int32x4_t load_square(const int32_t* c) {
    return vcombine_s32(vld1_s32(c), vld1_s32(c + tile_side));
  }
  static void store_square(int32_t* c, int32x4_t sums) {
    vst1_s32(c, vget_low_s32(sums));
    vst1_s32(c + tile_side, vget_high_s32(sums));
  }
  // Eight columns of two rows of W from two words of four rows each: `low` of the first two, `high` of the
  // others.
  static int8x16_t low(uint32x4_t a, uint32x4_t b) { return vreinterpretq_s8_u32(vzip1q_u32(a, b)); }
  static int8x16_t high(uint32x4_t a, uint32x4_t b) { return vreinterpretq_s8_u32(vzip2q_u32(a, b)); }

  static void block(int32_t* c, bool first, const char* x, const char* w, int64_t words) {
    constexpr int R = rows_at_once / 2, C = columns_at_once / 2;
    int32x4_t sums[R][C];
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < C; ++v)
        sums[r][v] = first ? vdupq_n_s32(0) : load_square(c + 2 * r * tile_side + 2 * v);
    for (int64_t word = 0; word < words; word += 2) {
      const char* from = w + word / tile_words * deep_tile + word % tile_words * word_row;
      int8x16_t weights[C];
#pragma GCC unroll 2
      for (int half = 0; half < C / 2; ++half) {
        const Operand a = operand(load_words(from + half * 16));
        // Of an odd number of words the last has no other, and x no columns there.
        const Operand b = word + 1 < words ? operand(load_words(from + word_row + half * 16)) : a;
        weights[2 * half] = low(a, b);
        weights[2 * half + 1] = high(a, b);
      }
      const char* at = x + word / tile_words * tile_bytes + word % tile_words * 4;
#pragma GCC unroll 4
      for (int r = 0; r < R; ++r) {
        const auto* two = reinterpret_cast<const int8_t*>(at + 2 * r * 64);
        const int8x16_t rows = vcombine_s8(vld1_s8(two), vld1_s8(two + 64));
#pragma GCC unroll 4
        for (int v = 0; v < C; ++v) sums[r][v] = vmmlaq_s32(sums[r][v], rows, weights[v]);
      }
    }
#pragma GCC unroll 4
    for (int r = 0; r < R; ++r)
#pragma GCC unroll 4
      for (int v = 0; v < C; ++v) store_square(c + 2 * r * tile_side + 2 * v, sums[r][v]);
  }
};

template <class S>
void prompt(const LinearArgs& a, const Share& share) {
  many_rows<MatrixProduct, S>(a, nullptr, Int8Rows(a.m, a.k),
                              part_of(ceil_div(a.n, pair), share.worker, share.workers), share.scratch);
}

template <class S>
void gated_prompt(const GatedArgs& a, const Share& share) {
  many_rows<MatrixProduct, S>(a.gate, &a.up, Int8Rows(a.gate.m, a.gate.k),
                              part_of(ceil_div(a.gate.n, pair), share.worker, share.workers), share.scratch);
}

}  // namespace

namespace neoni8mm {

void w8a8_bf16(const LinearArgs& a, const Share& s) noexcept { prompt<BF16>(a, s); }
void w8a8_f16(const LinearArgs& a, const Share& s) noexcept { prompt<F16>(a, s); }
void w8a8_f32(const LinearArgs& a, const Share& s) noexcept { prompt<float>(a, s); }
void w8a8_gated_bf16(const GatedArgs& a, const Share& s) noexcept { gated_prompt<BF16>(a, s); }
void w8a8_gated_f16(const GatedArgs& a, const Share& s) noexcept { gated_prompt<F16>(a, s); }
void w8a8_gated_f32(const GatedArgs& a, const Share& s) noexcept { gated_prompt<float>(a, s); }

}  // namespace neoni8mm
}  // namespace lathe
