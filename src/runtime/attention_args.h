// What the attributes of an attention say to its kernels. Rows, keys, values and work are the caller's.
#pragma once

#include <span>

#include "graph/ops.h"
#include "kernels/attention.h"

namespace lathe {

// Of rows that no cache holds: heads side by side, each token a block of its own after the sequence's first.
// Spans of keys lie together, so there heads follow each other.
inline KvLayout batch_rows(const op::Attention& a, KvType type, int64_t tokens) {
  const int64_t row = kv_row_bytes(type, a.head_dim), token = a.kv_heads * row;
  if (keys_in_spans(type)) return {type, tokens, row, tokens * row, row};
  return {type, tokens, token, row, token};
}

// The model's scale of a head's keys or values; 0: rows find their own, as where another type is asked for.
inline float kv_scale(std::span<const float> scales, int64_t head) {
  return scales.empty() ? 0 : scales[scales.size() == 1 ? 0 : static_cast<size_t>(head)];
}

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
