// Rounding floats to integer codes: the one routine that every algorithm shares.
#pragma once

#include "quant/codes.h"

namespace lathe {

enum class ScaleSearch : uint8_t {
  absmax,  // scale from the largest magnitude (symmetric) or the range (asymmetric)
  mse,     // shrink that range step by step and keep, per group, the scale with the least squared error
};

// Round to nearest even, per group of a row. Scale rules are compressed-tensors': symmetric amax / ((2^b - 1)
// / 2), asymmetric (max - min) / (2^b - 1) with a range that includes 0 and an integer zero point. Scales are
// rounded to numerics.dtype before the codes are computed, so stored codes and scales give exactly what was
// measured. values: [rows, cols] finite floats (Error otherwise).
Codes round_to_nearest(const float* values, int64_t rows, int64_t cols, const Numerics&, ScaleSearch);

}  // namespace lathe
