// Rounding a linear layer's input where its Numerics ask for it.
#pragma once

#include <cstdint>
#include <string_view>

#include "quant/activation_numerics.h"

namespace lathe {

// Columns that share a scale; 0: a whole row.
int64_t columns_per_scale(Activations);
// The largest magnitude over a given scale: 127, 448, and 6 * 448 of nvfp4, whose scales of blocks reach 448.
float largest_activation(Activations);
std::string_view to_string(Activations);  // "int8", "fp8", "fp8 static", "fp8 g128", "nvfp4", ...

// One row, in place where x == out; `given`: the scale that came with the model. What is rounded to is scale
// times the nearest code, ties to even codes, magnitudes beyond the largest cut off; a scale of 0 gives
// zeros, and NaN stays NaN. Scales, m being the largest magnitude of what shares one:
//
//   fp8     m / 448 (compressed-tensors' and DeepSeek's)
//   nvfp4   given * e4m3((m / 6) / given); compressed-tensors stores 1 / given
//   mx      2^mx_exponent(m)
//   int8    as round_row_to_int8
//
// Reference: vllm-project/compressed-tensors, quantization/lifecycle/forward.py and quantization/utils.
void round_row(Activations, const float* x, int64_t n, float* out, float given);

// int8_per_row, scale 0: out[i] = rint(x[i] * (127 / m)) * (m / 127), m = max |x| (127 / m at most the
// largest float); zeros stay zeros. int8_static: out[i] = rint(x[i] * (1 / scale)), cut to -127 .. 127, *
// scale. What kernels compute with integers.
void round_row_to_int8(const float* x, int64_t n, float* out, float scale = 0);

}  // namespace lathe
