// Rewrites change only speed: the interpreter gives the same numbers before and after. Each matches two or
// three nodes, but for take_rows_early, which moves one node at a time, and the four in a row of an expert.
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
// add_routed(base, w, linear(gated_linear(take_routed(x, w)))) -> experts(base, x, w), and those of one x and
// w in a row become one; so with silu_mul of two linear layers, where these have biases or that a limit.
void fuse_experts(Graph&);
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

inline const Node* linear_without_bias(const Graph& g, ValueId v) {
  const Node* node = made_for_one<op::Linear>(g, v);
  return node && !std::get<op::Linear>(node->op).bias ? node : nullptr;
}

struct Rewrite {
  std::string_view name;
  void (*apply)(Graph&);
};
// In this order: experts are one row-wise op before take_rows_early, and gate and up are no multi_linear.
inline constexpr Rewrite rewrites[] = {{"fuse_silu_mul", fuse_silu_mul},
                                       {"fuse_gate_up", fuse_gate_up},
                                       {"fuse_experts", fuse_experts},
                                       {"take_rows_early", take_rows_early},
                                       {"fuse_add_norm", fuse_add_norm},
                                       {"fuse_qkv", fuse_qkv},
                                       {"fuse_rope_attention", fuse_rope_attention}};

}  // namespace lathe
