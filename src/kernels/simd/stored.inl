// bf16 weights row after row, as a checkpoint stores them: a format for simd/linear.inl. Squares of words
// (two columns of a row) are transposed as they are read, so the arithmetic, and every bit of y, is that of
// the same weights in panels or tiles. A plan reads weights so only until it has repacked them
// (Target::ready_at_once): 27 GB/s where panels reach 34, and 20 with prefetches, which the hardware's own
// beat on 32 rows at once.
#pragma once

#include "kernels/simd/linear.inl"

namespace lathe {
namespace {

static_assert(square == lanes);

struct Stored {
  static constexpr int step = 2 * square;
  struct Scale {};
  struct Codes {
    alignas(64) float words[square * lanes];  // a vector holds two columns of `lanes` rows
  };
  const BF16* elements;
  int64_t n, k, group;

  explicit Stored(const LinearArgs& a)
      : elements(static_cast<const BF16*>(a.codes)), n(a.n), k(a.k), group((a.k + step - 1) / step * step) {}
  Scale scale(int64_t, int64_t, int) const { return {}; }
  // Columns and rows that do not exist are 0.
  Codes codes(int64_t p, int64_t column, int lane) const {
    alignas(64) BF16 padded[square][step];
    const int64_t top = p * panel + lane;
    const float* rows[square];
    for (int r = 0; r < square; ++r) {
      const BF16* row = elements + (top + r) * k + column;
      if (top + r >= n || column + step > k) {
        const int64_t left = top + r >= n ? 0 : k - column;
        __builtin_memset(padded[r], 0, sizeof padded[r]);
        __builtin_memcpy(padded[r], row, static_cast<size_t>(left < step ? left : step) * sizeof(BF16));
        row = padded[r];
      }
      rows[r] = reinterpret_cast<const float*>(row);
    }
    Codes out;
    transpose_square(rows, out.words, lanes);
    return out;
  }
  template <int i>
  V weight(At<i>, const Codes& c, Scale) const {
    const V words = load(c.words + i / 2 * lanes);
    return i % 2 == 0 ? low_bf16(words) : high_bf16(words);
  }
  const void* stored(int64_t p, int64_t column) const { return elements + p * panel * k + column; }
};

}  // namespace
}  // namespace lathe
