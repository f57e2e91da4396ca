// What rounding to integers (round.cpp) and to grids (round_grid.cpp) share.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/float.h"
#include "core/vector_clones.h"
#include "quant/grid.h"
#include "quant/round.h"

namespace lathe {

// round_to_nearest() for grids.
Codes round_to_grid(const float* values, int64_t rows, int64_t cols, const Numerics&, ScaleRule,
                    float largest);

// Sixteen running values: independent chains that a compiler keeps in vector registers of any width, joined
// in an order that does not depend on that width.
constexpr int lanes = 16;
struct Sum {
  float lane[lanes] = {};
  LATHE_ALWAYS_INLINE float total() const {
    float quarter[4];
    for (int j = 0; j < 4; ++j) quarter[j] = (lane[j] + lane[j + 4]) + (lane[j + 8] + lane[j + 12]);
    return (quarter[0] + quarter[1]) + (quarter[2] + quarter[3]);
  }
};

// step(lane, element) for every element of a group.
template <class Step>
LATHE_ALWAYS_INLINE void for_lanes(const float* x, int64_t n, Step step) {
  int64_t i = 0;
  for (; i + lanes <= n; i += lanes)
    for (int j = 0; j < lanes; ++j) step(j, x[i + j]);
  for (int j = 0; i + j < n; ++j) step(j, x[i + j]);
}

}  // namespace lathe
