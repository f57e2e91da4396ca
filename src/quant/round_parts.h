// What rounding to integers (round.cpp) and to grids (round_grid.cpp) share.
#pragma once

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include "core/error.h"
#include "core/float.h"
#include "core/vector_clones.h"
#include "quant/round.h"

namespace lathe {

// round_to_nearest() for grids.
Codes round_to_grid(const float* values, int64_t rows, int64_t cols, const Numerics&, ScaleSearch,
                    float largest);

// The scale as it will be stored. Zero (a group of zeros, or an underflow) becomes compressed-tensors'
// epsilon of the type: any positive number would do. An overflow becomes the largest finite number.
inline float storable(float scale, DType dtype) {
  switch (dtype) {
    case DType::bf16: {
      const float s = bf16_to_f32(f32_to_bf16(scale));
      return s == 0 ? 0x1p-7f : std::isinf(s) ? 0x1.fep127f : s;
    }
    case DType::f16: {
      const float s = f16_to_f32(f32_to_f16(scale));
      return s == 0 ? 0x1p-10f : std::isinf(s) ? 65504.0f : s;
    }
    case DType::f32:
      return scale == 0          ? std::numeric_limits<float>::epsilon()
             : std::isinf(scale) ? std::numeric_limits<float>::max()
                                 : scale;
    default:
      fail("a scale cannot be stored as {}", dtype_name(dtype));
  }
}

// Round to nearest even for |x| < 2^22 without a call: adding 1.5 * 2^23 leaves no bits for a fraction.
LATHE_ALWAYS_INLINE float round_even(float x) { return (x + 12582912.0f) - 12582912.0f; }

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

inline bool all_finite(const float* x, int64_t n) {
  constexpr uint32_t exponent = 0x7f800000u;
  uint32_t bad = 0;
  for (int64_t i = 0; i < n; ++i) bad |= (std::bit_cast<uint32_t>(x[i]) & exponent) == exponent;
  return bad == 0;
}

}  // namespace lathe
