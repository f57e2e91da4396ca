#include "runtime/rewrites/rewrites.h"

namespace lathe {

void fuse_silu_mul(Graph& g) {
  const std::vector<NodeId> order(g.order().begin(), g.order().end());
  for (NodeId id : order) {
    const Node mul = g.node(id);
    if (!std::holds_alternative<op::Mul>(mul.op)) continue;
    for (size_t side : {0u, 1u}) {
      const Node* silu = made_for_one<op::Silu>(g, mul.inputs[side]);
      if (!silu) continue;
      Node fused{.id = -1,
                 .op = op::SiluMul{},
                 .name = mul.name,
                 .inputs = {silu->inputs[0], mul.inputs[1 - side]},
                 .outputs = {},
                 .params = {},
                 .block = mul.block};
      const int64_t cols[] = {g.value(mul.outputs[0]).cols};
      g.replace(mul.outputs[0], g.insert(id, std::move(fused), cols));
      break;
    }
  }
  g.prune();
}

}  // namespace lathe
