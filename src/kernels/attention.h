// Causal grouped-query attention of one sequence over contiguous keys and values, with online softmax.
#pragma once

#include "kernels/share.h"

namespace lathe {

// Query row i has position `first + i` and sees key j iff j <= first + i and (window == 0 or first + i - j <
// window). q: [rows, heads * head_dim]; key j of key head h is at k + j * kv_stride + h * kv_head_stride, and
// so are values; keys >= first + rows. f32; strides in floats. A head h reads key head h / (heads /
// kv_heads).
struct AttentionArgs {
  const float *q, *k, *v;
  float* out;  // [rows, heads * head_dim]
  int64_t rows, keys, first;
  int64_t q_stride, kv_stride, kv_head_stride, out_stride;
  int64_t heads, kv_heads, head_dim, window;
  float scale;
};

}  // namespace lathe
