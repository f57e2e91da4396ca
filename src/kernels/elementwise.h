// Row-wise ops around the matrix products. All f32; rows are `stride` floats apart. In place where in == out.
#pragma once

#include "kernels/share.h"

namespace lathe {

struct RmsNormArgs {        // out = x * rsqrt(mean(x^2) + eps) * weight over runs of `width` columns
  const float *x, *weight;  // weight: [width]
  float* out;
  int64_t rows, cols, width, x_stride, out_stride;
  float eps;
};
struct AddRmsNormArgs {  // sum = a + b; out = rms_norm(sum)
  const float *a, *b, *weight;
  float *sum, *out;
  int64_t rows, cols, stride;
  float eps;
};
struct RopeArgs {  // half-split rotation; cos/sin: [rows, head_dim / 2], already scaled
  const float *x, *cos, *sin;
  float* out;
  int64_t rows, cols, head_dim, x_stride, out_stride;
};
struct LowRankArgs {  // out = base + scale * (x A^T) B^T; a: [rank, k], b: [rank, n], B transposed
  const float *x, *a, *b, *base;
  float* out;
  int64_t rows, k, n, rank, x_stride, out_stride;  // base as out; rank: at most most_low_rank
  float scale;
};
inline constexpr int64_t most_low_rank = 1024;
struct HadamardArgs {  // out = x H on runs of `size` columns, a power of two
  const float* x;
  float* out;
  int64_t rows, cols, size, x_stride, out_stride;
};
struct TakeColumnsArgs {  // out[k] = x[from[k]] * scales[k], k < cols; null: from k, times 1. Not in place.
  const float* x;
  const int32_t* from;
  const float* scales;
  float* out;
  int64_t rows, cols, x_stride, out_stride;
};
struct BinaryArgs {  // add, mul, silu_mul; silu reads a only
  const float *a, *b;
  float* out;
  int64_t rows, cols, a_stride, b_stride, out_stride;
};

}  // namespace lathe
