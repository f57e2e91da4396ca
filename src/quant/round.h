// Rounding floats to codes: the one routine that every algorithm shares.
#pragma once

#include <string_view>

#include "quant/codes.h"

namespace lathe {

enum class ScaleSearch : uint8_t {
  absmax,  // scale from the largest magnitude (symmetric) or the range (asymmetric)
  mse,     // try scales around that one and keep, per group, the one with the least squared error
};

// The four rules in use for the exponent of an MX block whose largest magnitude is amax: scales are 2^e. All
// but ceil and rceil may let amax leave the grid and saturate. OCP's is floor; compressed-tensors' even;
// ModelOpt's rceil. by_search: absmax takes even, mse the better of floor and its successor, per block.
enum class MxRule : uint8_t { by_search, floor, even, ceil, rceil };
inline constexpr std::string_view mx_rule_names[] = {"search", "floor", "even", "ceil", "rceil"};
int mx_exponent(float amax, MxRule, Numerics::Kind);  // -127 .. 127; by_search: as even

// How scales are found: a rule for MX blocks leaves the search to all other formats.
struct ScaleRule {
  ScaleSearch search = ScaleSearch::mse;
  MxRule mx = MxRule::by_search;

  constexpr ScaleRule() = default;
  constexpr ScaleRule(ScaleSearch how, MxRule rule = MxRule::by_search) : search(how), mx(rule) {}
  bool operator==(const ScaleRule&) const = default;
};

// Round to nearest even, per group of a row. Scale rules are compressed-tensors': symmetric amax / ((2^b - 1)
// / 2), asymmetric (max - min) / (2^b - 1) with a range that includes 0 and an integer zero point, grids amax
// / largest_of_grid(). Scales are rounded to numerics.dtype before the codes are computed, so stored codes
// and scales give exactly what was measured. values: [rows, cols] finite floats (Error otherwise).
//
// Where numerics.scales_by_whole(), `largest` is the largest magnitude of the whole weight; negative: values
// are all of it. Where rows share scales, values begin at the first row of a block.
Codes round_to_nearest(const float* values, int64_t rows, int64_t cols, const Numerics&, ScaleRule,
                       float largest = -1);

// The code of a grid whose value is nearest; ties go to the even code (nf4: to the lower value), magnitudes
// beyond the grid to its largest. Negative numbers that round to 0 keep their sign.
int nearest_code(Numerics::Kind, float);

// NVFP4's scale of scales: scales then reach 448, which is the largest e4m3; with ScaleSearch::mse 256, so
// that a block of the largest weight can also choose to put it at 4 instead of 6
// (https://arxiv.org/abs/2512.02010). 1 where that would not be a finite positive number.
float global_scale(const Numerics&, ScaleSearch, float largest);

}  // namespace lathe
