// Rounding to the numbers of GGUF's blocks: scales with a sign, minima, and scales of two levels.
#pragma once

#include "quant/codes.h"

namespace lathe {

// Scales, minima and codes of least sum of importance[column] * (value - rounded)^2, as far as a search finds
// them. `importance`: a positive number per column (mean x^2 of what the layer reads), or null: all alike.
// Numerics are those of a GGUF block without zero points (f16 scales, or Numerics::k_quant); cols are whole
// groups, and super-blocks. values: [rows, cols] finite floats (Error otherwise).
Codes round_blocks(const float* values, int64_t rows, int64_t cols, const Numerics&,
                   const float* importance = nullptr);

}  // namespace lathe
