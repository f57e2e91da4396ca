// Which numbers a linear layer rounds its input to before it multiplies. No more than the names: kernels
// include this; quant/activations.h says what they mean.
#pragma once

#include <cstdint>

namespace lathe {

// x = scale * code. Integers of 8 bits, one scale for a row or one that comes with the model. The floats of
// quant/numerics.h: e4m3 with a scale for a row, one that comes with the model, or one for each 128 columns;
// NVFP4, e2m1 with an e4m3 scale for each 16 columns times one that comes with the model; MXFP4 and MXFP8,
// e2m1 and e4m3 with a power of two for each 32 columns, whose exponent is found by MxRule::even
// (compressed-tensors) or MxRule::rceil (ModelOpt's MXFP8).
enum class Activations : uint8_t {
  as_they_are,
  int8_per_row,
  int8_static,
  fp8_per_row,
  fp8_static,
  fp8_groups,
  nvfp4,
  mxfp4,
  mxfp8,
  mxfp8_rceil
};

// Whether the scale, of all rows, comes with the model.
constexpr bool scale_is_given(Activations a) {
  return a == Activations::int8_static || a == Activations::fp8_static || a == Activations::nvfp4;
}

}  // namespace lathe
