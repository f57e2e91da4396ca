// Two-level scales: a super-block's scales are one f16 unit times small integers (Numerics::super).
#pragma once

#include <span>

#include "quant/numerics.h"

namespace lathe {

// The multiples that GGUF's blocks of these numerics have bits for.
struct LevelRange {
  int lo, hi;
};
LevelRange level_range(const Numerics&);

// Finds unit and multiples in the range with unit * multiples[i] == scales[i] exactly; returns the
// unit. Where several units would do, the one with the largest multiples, which is the one that quantizers
// store. Error where none does.
float find_levels(std::span<const float> scales, LevelRange, int8_t* multiples);

}  // namespace lathe
