#include "quant/levels.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/float.h"

namespace lathe {
namespace {

// Products of an f16 number and 8 bits are exact in f32, and so are these tests.
bool fits(std::span<const float> scales, float unit, LevelRange range, int8_t* multiples) {
  for (size_t i = 0; i < scales.size(); ++i) {
    const float multiple = std::nearbyint(scales[i] / unit);
    if (!(multiple >= static_cast<float>(range.lo) && multiple <= static_cast<float>(range.hi))) return false;
    if (unit * multiple != scales[i]) return false;
    multiples[i] = static_cast<int8_t>(multiple);
  }
  return true;
}

}  // namespace

LevelRange level_range(const Numerics& n) {
  switch (n.bits) {
    case 2:
      return {0, 15};
    case 3:
      return {-32, 31};
    case 6:
      return {-128, 127};
    default:
      return {0, 63};
  }
}

float find_levels(std::span<const float> scales, LevelRange range, int8_t* multiples) {
  const float largest = *std::max_element(scales.begin(), scales.end(),
                                          [](float a, float b) { return std::fabs(a) < std::fabs(b); });
  if (largest == 0 && std::all_of(scales.begin(), scales.end(), [](float s) { return s == 0; })) {
    std::fill_n(multiples, scales.size(), int8_t{0});
    return 0;
  }
  for (int most = std::max(-range.lo, range.hi); most > 0; --most)
    for (const int multiple : {-most, most}) {
      if (multiple < range.lo || multiple > range.hi) continue;
      const float unit = f16_to_f32(f32_to_f16(largest / static_cast<float>(multiple)));
      if (unit * static_cast<float>(multiple) == largest && fits(scales, unit, range, multiples)) return unit;
    }
  fail("scales up to {} are not an f16 number times integers from {} to {}", largest, range.lo, range.hi);
}

}  // namespace lathe
