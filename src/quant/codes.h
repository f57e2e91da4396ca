// The hub between algorithms and packings: N algorithms produce Codes, M packings store them.
#pragma once

#include <vector>

#include "quant/numerics.h"

namespace lathe {

// Some rows of a weight matrix as numbers. Row-major.
struct Codes {
  Numerics numerics;
  int64_t rows = 0, cols = 0;
  std::vector<float> values;   // dense only:    [rows, cols]
  std::vector<int16_t> codes;  // otherwise:     [rows, cols]; int16 so that unsigned 8-bit codes fit too
  // Otherwise: [rows, groups], exactly representable in numerics.dtype when packed. Rows that share theirs
  // (numerics.block_rows) repeat them.
  std::vector<float> scales;
  std::vector<float> zeros;  // zero points or minima, [rows, groups]; empty when numerics.offset is none
  float global = 1;          // of the whole weight: numerics.global
  float input_scale = 0;     // of what the weight is multiplied with: numerics.has_input_scale()
  std::vector<int32_t> group_of = {};  // [cols], numerics.act_order: otherwise column k is in group k / group
  std::vector<float> columns = {};     // [cols], numerics.column_scales
};

// The meaning of the numbers: rows x cols floats, each one multiplication (and one subtraction) in f32, by
// f32(scale * global) where there is a global scale; another one with column scales.
void dequantize(const Codes&, float* out);

}  // namespace lathe
