// Two ways to place scales and zero points without solving for the codes.
#pragma once

#include "compress/fit_grid.h"
#include "compress/sweep.h"

namespace lathe {

// NNCF's scale estimation: with the codes of a group fixed, the scale becomes the mean of |w| / |q - zero|,
// weighted by the mean size of each input channel; codes and scale in turn, from several starts, kept while
// the error of the group's outputs on the sampled inputs falls.
Codes estimate_scales(const float* w, int64_t rows, int64_t cols, const Numerics&, const InputStats&);

// Half-quadratic quantization (Badri and Shaji 2023, https://mobiusml.github.io/hqq_blog): least sum
// |w - Q(w)|^0.7; no text is needed. Published, it moves real zero points and leaves scales alone; files hold
// integers, to which 99.8 % of those round back, so scales move here too. No group becomes worse by its own
// norm than to nearest. InputError without zero points.
Codes half_quadratic(const float* w, int64_t rows, int64_t cols, const Numerics&);

}  // namespace lathe
