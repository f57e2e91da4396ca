// What the attributes of an attention say to its kernels. Rows, keys, values and work are the caller's.
#pragma once

#include "graph/ops.h"
#include "kernels/attention.h"

namespace lathe {

inline AttentionArgs attention_args(const op::Attention& a, const float* sinks) {
  AttentionArgs args{};
  args.q_stride = args.out_stride = static_cast<int64_t>(a.heads) * a.head_dim;
  args.heads = a.heads;
  args.kv_heads = a.kv_heads;
  args.head_dim = a.head_dim;
  args.window = a.window;
  args.causal = a.causal;
  args.scale = a.scale;
  args.soft_cap = a.soft_cap;
  args.sinks = a.sinks ? sinks : nullptr;
  return args;
}

}  // namespace lathe
