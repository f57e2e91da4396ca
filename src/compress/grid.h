// The integers of one group: where its scale and zero point go, when errors of some columns cost more than
// those of others. round_to_nearest is the same with equal costs; GPTQ, AWQ and the importance matrix need
// this.
#pragma once

#include "core/vector_clones.h"
#include "quant/round.h"

namespace lathe {

// w = scale * (q - zero), q an integer in [lo, hi].
struct Grid {
  float scale = 1, zero = 0, lo = 0, hi = 0;

  LATHE_ALWAYS_INLINE float code(float x) const {
    const float q = x / scale + zero;
    const float within = q < lo ? lo : (q > hi ? hi : q);
    return (within + 12582912.0f) - 12582912.0f;  // to nearest even: 1.5 * 2^23 leaves no bits for a fraction
  }
  LATHE_ALWAYS_INLINE float value(float code) const { return scale * (code - zero); }
};

// The grid of n values. absmax: from their range, by the rules of round_to_nearest. mse: of the least error
// sum importance[i] * (x[i] - Q(x[i]))^2 found by shrinking the range and refitting the scale; importance
// null: all equal. The scale is one that numerics.dtype stores.
Grid fit_grid(const float* x, const float* importance, int64_t n, const Numerics&, ScaleSearch);
// The same range, another scale: what numerics.dtype stores next to it.
float storable_scale(float scale, DType);

// Rows to codes with fit_grid() per group. importance [cols] or null.
Codes round_weighted(const float* w, int64_t rows, int64_t cols, const Numerics&, const float* importance,
                     ScaleSearch = ScaleSearch::mse);

// Codes of a matrix without any yet.
Codes blank_codes(int64_t rows, int64_t cols, const Numerics&);

}  // namespace lathe
