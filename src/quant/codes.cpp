#include "quant/codes.h"

#include <algorithm>

namespace lathe {

// Columns look up their group; integers with zero points or none, which is all that is stored so.
static void dequantize_scattered(const Codes& c, float* out) {
  const int64_t groups = c.numerics.groups(c.cols);
  for (int64_t row = 0; row < c.rows; ++row)
    for (int64_t col = 0; col < c.cols; ++col) {
      const auto at = static_cast<size_t>(row * groups + c.group_of[static_cast<size_t>(col)]);
      const float zero = c.zeros.empty() ? 0 : c.zeros[at];
      const auto i = static_cast<size_t>(row * c.cols + col);
      out[i] = c.scales[at] * (static_cast<float>(c.codes[i]) - zero);
    }
}

static void scale_columns(const Codes& c, float* out) {
  for (int64_t i = 0; i < c.rows * c.cols; ++i) out[i] *= c.columns[static_cast<size_t>(i % c.cols)];
}

void dequantize(const Codes& c, float* out) {
  if (c.numerics.is_dense()) {
    std::copy(c.values.begin(), c.values.end(), out);
    if (c.numerics.column_scales) scale_columns(c, out);
    return;
  }
  const int64_t groups = c.numerics.groups(c.cols), group = c.numerics.group == 0 ? c.cols : c.numerics.group;
  const std::span<const float> grid =
      c.numerics.is_grid() ? grid_values(c.numerics.kind) : std::span<const float>();
  if (c.numerics.act_order) {
    dequantize_scattered(c, out);
    if (c.numerics.column_scales) scale_columns(c, out);
    return;
  }
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
  if (c.numerics.column_scales) scale_columns(c, out);
}

}  // namespace lathe
