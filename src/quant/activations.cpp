#include "quant/activations.h"

#include <algorithm>
#include <cmath>

namespace lathe {

void round_row_to_int8(const float* x, int64_t n, float* out, float scale) {
  if (scale > 0) {
    const float by = 1.0f / scale;
    for (int64_t i = 0; i < n; ++i) out[i] = std::rint(std::clamp(x[i] * by, -127.0f, 127.0f)) * scale;
    return;
  }
  float most = 0;
  for (int64_t i = 0; i < n; ++i) most = std::max(most, std::fabs(x[i]));
  const float inverse = most > 0 ? 127.0f / most : 0;
  scale = most / 127.0f;
  for (int64_t i = 0; i < n; ++i) out[i] = std::rint(x[i] * inverse) * scale;
}

}  // namespace lathe
