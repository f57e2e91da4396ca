// Rewrites change only speed: the interpreter gives the same numbers before and after. Each matches two or
// three nodes.
#pragma once

#include <span>
#include <string_view>

#include "graph/graph.h"

namespace lathe {

void fuse_silu_mul(Graph&);  // silu(a) * b                -> silu_mul(a, b)
void fuse_gate_up(Graph&);   // silu_mul(x Wg^T, x Wu^T)   -> gated_linear(x)
void fuse_add_norm(Graph&);  // s = a + b; rms_norm(s)     -> s, n = add_rms_norm(a, b)

struct Rewrite {
  std::string_view name;
  void (*apply)(Graph&);
};
inline constexpr Rewrite rewrites[] = {
    {"fuse_silu_mul", fuse_silu_mul}, {"fuse_gate_up", fuse_gate_up}, {"fuse_add_norm", fuse_add_norm}};

}  // namespace lathe
