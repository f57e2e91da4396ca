// Moving the size of a group's input channels into its weights, or out of them, where a FoldSite allows it:
// the function stays, the rounding errors change. AWQ (Lin et al. 2023) chooses for rounded weights,
// SmoothQuant (Xiao et al. 2022) for rounded weights and activations.
#pragma once

#include <string_view>
#include <vector>

#include "compress/fit_grid.h"
#include "compress/sweep.h"

namespace lathe {

enum class Equalize : uint8_t { none, awq, smooth };

// One layer of the group: what its weight will be rounded to.
struct EqualizedLayer {
  const float* w;  // [rows, cols]
  int64_t rows;
  Numerics numerics;
  int64_t rank = 0;  // of a low-rank correction that it will have; 0: none
};

struct Equalized {
  std::vector<float> divisors;        // of the input, per channel; empty: the input stays as it is
  double strength = 0;                // the exponent that was chosen, 0 to 1
  double error = 0, error_as_is = 0;  // of the group's outputs on the calibration text, mean squares summed
};

// awq: s = mean|x|^a / mean|w|^b; smooth: s = max|x|^a / max|w|^(1-a); exponents from a grid, the pair with
// the least error of the outputs of all layers together, as it is if none is better. A layer that will have a
// correction is compared with the one that SVDQuant begins with. Needs stats.hessian, and stats.sample
// where the layers round their inputs.
Equalized equalize(ThreadPool&, Equalize, const std::vector<EqualizedLayer>&, const InputStats&,
                   const FoldSite&);

// Divides the site's rows and multiplies the columns of the group's weights. A norm's vector keeps its type,
// and the divisors become what its rounded elements were really divided by; matrices become f32.
void fold(Model&, const FoldSite&, const InputGroup&, std::vector<float>& divisors);

}  // namespace lathe
