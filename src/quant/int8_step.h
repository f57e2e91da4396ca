// The step of symmetric int8, m / 127, m the largest magnitude. Kernels include this.
#pragma once

namespace lathe {
namespace {  // each ISA's code has its own

// 127 / m; of an m below 2^-121 the largest float: infinity times the zeros beside it would be no number.
inline float inverse_of_step(float m) {
  constexpr float largest_float = 0x1.fffffep127f;
  const float inverse = m > 0 ? 127.0f / m : 0.0f;
  return inverse < largest_float ? inverse : largest_float;
}

}  // namespace
}  // namespace lathe
