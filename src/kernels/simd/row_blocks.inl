// How the integer kernels of few rows (int4, lut4, k_quants) walk over rows of x and panels of W.
#pragma once

#include "kernels/simd/packed_rows.h"

namespace lathe {
namespace {

template <int n>
struct Number {
  static constexpr int value = n;
};

// Calls use(Number<R>, row) for tiles of at most `most` (up to 6) rows of [begin, end): 8 are 4 + 4, not 6
// + 2.
template <int most, class Use>
inline void each_tile(int64_t begin, int64_t end, const Use& use) {
  for (int64_t row = begin; row < end;) {
    const int64_t left = end - row, now = ceil_div(left, ceil_div(left, most));
    if (now == 1) use(Number<1>(), row);
    if (now == 2) use(Number<2>(), row);
    if constexpr (most > 2) {
      if (now == 3) use(Number<3>(), row);
      if (now == 4) use(Number<4>(), row);
    }
    if constexpr (most > 4) {
      if (now == 5) use(Number<5>(), row);
      if (now == 6) use(Number<6>(), row);
    }
    row += now;
  }
}

// So many rows are few: they meet each panel once, and each panel comes from memory once.
constexpr int64_t few_rows = 4 * small_rows, block_rows = 256 / small_rows * small_rows;

// Calls use(panel, begin, end): as many of more rows as stay in the second-level cache meet some panels,
// which stay there for the next rows.
template <class Use>
inline void each_block(Range panels, int64_t rows, int64_t row_bytes, const Use& use) {
  constexpr int64_t block_panels = 8, block_bytes = 256 << 10;
  const int64_t fit = block_bytes / row_bytes / small_rows * small_rows, most = fit < few_rows ? few_rows
                                                                                : fit < block_rows
                                                                                    ? fit
                                                                                    : block_rows;
  for (int64_t first = panels.begin; first < panels.end; first += block_panels)
    for (int64_t row = 0; row < rows; row += most)
      for (int64_t p = first; p < panels.end && p < first + block_panels; ++p)
        use(p, row, row + most < rows ? row + most : rows);
}

}  // namespace
}  // namespace lathe
