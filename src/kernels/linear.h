// y = x W^T + bias for every weight format. Rows of the table are ordered best first; the last is the
// reference. Fast rows sum each element of y as one fma chain in the order of k: the same bits for any m,
// workers and ISA.
#pragma once

#include "kernels/share.h"

namespace lathe {

struct LinearArgs {
  const void *codes, *scales,
      *zeros;         // the weight's parts, in that order, as its packing lays them out, or null
  const float* x;     // [m, k], rows x_stride floats apart
  const float* bias;  // [n] or null
  float* y;           // [m, n], rows y_stride floats apart
  int64_t m, n, k;
  int64_t group;  // columns per scale; k when the whole row shares one
  int64_t x_stride, y_stride;
};

}  // namespace lathe
