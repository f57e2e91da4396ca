#include "runtime/rewrites/rewrites.h"

namespace lathe {

void fuse_silu_mul(Graph& g) {
  const std::vector<NodeId> order(g.order().begin(), g.order().end());
  for (NodeId id : order) {
    const Node mul = g.node(id);
    if (!std::holds_alternative<op::Mul>(mul.op)) continue;
    for (size_t side : {0u, 1u}) {
      const ValueId gated = mul.inputs[side], other = mul.inputs[1 - side];
      const NodeId producer = g.value(gated).producer;
      if (producer < 0 || !std::holds_alternative<op::Silu>(g.node(producer).op) ||
          g.users(gated).size() != 1)
        continue;
      Node fused{.id = -1,
                 .op = op::SiluMul{},
                 .name = mul.name,
                 .inputs = {g.node(producer).inputs[0], other},
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
