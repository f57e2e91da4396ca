// Rewrites change only speed: the interpreter gives the same numbers before and after. Each matches two or
// three nodes, but for take_rows_early, which moves one node at a time.
#pragma once

#include <span>
#include <string_view>

#include "graph/graph.h"

namespace lathe {

// take_rows(f(a, b)) -> f(take_rows(a), take_rows(b)) for every f that works row by row: after the last
// attention only the wanted rows are computed. For 1 output of a prompt that saves most of the last layer.
void take_rows_early(Graph&);
void fuse_silu_mul(Graph&);  // silu(a) * b                -> silu_mul(a, b)
void fuse_gate_up(Graph&);   // silu_mul(x Wg^T, x Wu^T)   -> gated_linear(x)
void fuse_add_norm(Graph&);  // s = a + b; rms_norm(s)     -> s, n = add_rms_norm(a, b)
void fuse_qkv(Graph&);       // x Wq^T, x Wk^T, x Wv^T     -> q, k, v = multi_linear(x): one parallel region
// attention(rope(q), rope(k), v) -> rope_attention(q, k, v): keys are rotated on their way into the cache; so
// with hadamard(rope(q)) and hadamard(rope(k))
void fuse_rope_attention(Graph&);

// The node that makes `v`, if its op is an O and exactly one node reads it; else null.
template <class O>
const Node* made_for_one(const Graph& g, ValueId v) {
  const NodeId producer = g.value(v).producer;
  if (producer < 0 || g.users(v).size() != 1 || v == g.output()) return nullptr;
  const Node& node = g.node(producer);
  return std::holds_alternative<O>(node.op) ? &node : nullptr;
}

struct Rewrite {
  std::string_view name;
  void (*apply)(Graph&);
};
// In this order: take_rows_early knows the ops of definitions only, and gate and up are no multi_linear.
inline constexpr Rewrite rewrites[] = {{"take_rows_early", take_rows_early},
                                       {"fuse_silu_mul", fuse_silu_mul},
                                       {"fuse_gate_up", fuse_gate_up},
                                       {"fuse_add_norm", fuse_add_norm},
                                       {"fuse_qkv", fuse_qkv},
                                       {"fuse_rope_attention", fuse_rope_attention}};

}  // namespace lathe
