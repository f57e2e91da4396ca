#include "quant/codes.h"

#include <algorithm>

namespace lathe {

void dequantize(const Codes& c, float* out) {
  if (c.numerics.is_dense()) {
    std::copy(c.values.begin(), c.values.end(), out);
    return;
  }
  const int64_t groups = c.numerics.groups(c.cols), group = c.numerics.group == 0 ? c.cols : c.numerics.group;
  const std::span<const float> grid =
      c.numerics.is_grid() ? grid_values(c.numerics.kind) : std::span<const float>();
  for (int64_t row = 0; row < c.rows; ++row)
    for (int64_t g = 0; g < groups; ++g) {
      const size_t at = static_cast<size_t>(row * groups + g);
      // One formula for the three offsets: a zero point acts before the multiplication, a minimum after it.
      const float scale = c.scales[at];
      const float zero = c.numerics.offset == Numerics::Offset::zero_point ? c.zeros[at] : 0;
      const float minimum = c.numerics.offset == Numerics::Offset::minimum ? c.zeros[at] : 0;
      const int64_t begin = row * c.cols + g * group, end = row * c.cols + std::min(c.cols, (g + 1) * group);
      if (c.numerics.is_grid()) {
        const float whole = scale * c.global;
        for (int64_t i = begin; i < end; ++i)
          out[i] = whole * grid[static_cast<size_t>(c.codes[static_cast<size_t>(i)])];
        continue;
      }
      for (int64_t i = begin; i < end; ++i)
        out[i] = scale * (static_cast<float>(c.codes[static_cast<size_t>(i)]) - zero) - minimum;
    }
}

}  // namespace lathe
