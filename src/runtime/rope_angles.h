// cos and sin of every position and frequency, in f32 as Hugging Face computes them.
#pragma once

#include <cmath>
#include <cstdint>
#include <span>

#include "graph/ops.h"

namespace lathe {

// cos, sin: [positions, head_dim / 2]
inline void rope_angles(const op::Rope& rope, std::span<const int32_t> positions, float* cos, float* sin) {
  for (int32_t position : positions)
    for (float frequency : rope.inv_freq) {
      const float angle = static_cast<float>(position) * frequency;
      *cos++ = std::cos(angle) * rope.scale;
      *sin++ = std::sin(angle) * rope.scale;
    }
}

}  // namespace lathe
