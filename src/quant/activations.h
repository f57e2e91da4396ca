// Rounding a linear layer's input where its Numerics ask for it.
#pragma once

#include <cstdint>

namespace lathe {

// Numerics::Activations::int8_per_row of one row: out[i] = rint(x[i] * (127 / m)) * (m / 127), m = max |x|;
// zeros stay zeros. In place where x == out. What kernels compute with integers.
void round_row_to_int8(const float* x, int64_t n, float* out);

}  // namespace lathe
