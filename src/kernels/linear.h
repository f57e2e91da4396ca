// y = x W^T + bias for every weight format. Rows of the table are ordered best first; the last is the
// reference. Rows in f32 vectors sum each element of y as one fma chain in the order of k: the same bits for
// any m, workers and ISA. Those on tiles and integer dot products (amx/, avx512vnni/) say what theirs are.
#pragma once

#include "kernels/share.h"
#include "quant/activation_numerics.h"

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
  const void* packed_x = nullptr;  // x as the kernel's RowPacking stored it, where it wants one
};

// y = silu(x Wg^T) * (x Wu^T): two weights of one format and shape. `gate` carries x and y; of `up` only the
// weight is read. No biases.
struct GatedArgs {
  LinearArgs gate, up;
  void* packed_y = nullptr;  // where given, y is written there alone, as the rows that the kernel reads
                             // (RowPacking::gated_writes)
};

// Rows of x as a kernel wants them; made once for all the linear layers that read the same x.
struct PackRowsArgs {
  const float* x;  // [m, k], rows x_stride floats apart
  int64_t m, k, x_stride;
  void* out;        // 64-byte aligned
  float scale = 0;  // of all rows, where they are rounded with one; 0: each row's own
  Activations to = Activations::as_they_are;  // what RowPacking::any_numerics rounds to; others know
};

}  // namespace lathe
