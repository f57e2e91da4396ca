// Rounding a linear layer's input where its Numerics ask for it.
#pragma once

#include <cstdint>

namespace lathe {

// Numerics::Activations of one row. int8_per_row, scale 0: out[i] = rint(x[i] * (127 / m)) * (m / 127), m =
// max |x|; zeros stay zeros. int8_static: out[i] = rint(x[i] * (1 / scale)), cut to -127 .. 127, * scale. In
// place where x == out. What kernels compute with integers.
void round_row_to_int8(const float* x, int64_t n, float* out, float scale = 0);

}  // namespace lathe
