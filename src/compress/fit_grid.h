// Where the scale and zero point of a group go when errors of some columns cost more than those of others, as
// GPTQ, AWQ and the importance matrix need it. round_to_nearest() looks for the same grids (quant/grid.h)
// with equal costs; its search is narrower and looks at eight groups at once.
#pragma once

#include "quant/grid.h"
#include "quant/round.h"

namespace lathe {

// The grid of n values. absmax: from their range, by the rules of round_to_nearest. mse: of the least error
// sum importance[i] * (x[i] - Q(x[i]))^2 found by shrinking the range and refitting the scale; importance
// null: all equal. The scale is one that numerics.dtype stores.
Grid fit_grid(const float* x, const float* importance, int64_t n, const Numerics&, ScaleSearch);

// Rows to codes with fit_grid() per group. importance [cols] or null.
Codes round_weighted(const float* w, int64_t rows, int64_t cols, const Numerics&, const float* importance,
                     ScaleSearch = ScaleSearch::mse);

// Codes of a matrix without any yet.
Codes blank_codes(int64_t rows, int64_t cols, const Numerics&);

}  // namespace lathe
