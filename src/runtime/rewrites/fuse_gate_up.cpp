#include "runtime/rewrites/rewrites.h"

namespace lathe {
void fuse_gate_up(Graph& g) {
  const std::vector<NodeId> order(g.order().begin(), g.order().end());
  for (NodeId id : order) {
    const Node mul = g.node(id);
    const auto* activation = std::get_if<op::SiluMul>(&mul.op);
    if (!activation || activation->limit > 0) continue;
    const Node *gate = linear_without_bias(g, mul.inputs[0]), *up = linear_without_bias(g, mul.inputs[1]);
    if (!gate || !up || gate->inputs != up->inputs) continue;
    Node fused{.id = -1,
               .op = op::GatedLinear{},
               .name = mul.name,
               .inputs = gate->inputs,
               .outputs = {},
               .params = {gate->params[0], up->params[0]},
               .block = mul.block};
    const int64_t cols[] = {g.value(mul.outputs[0]).cols};
    g.replace(mul.outputs[0], g.insert(id, std::move(fused), cols));
  }
  g.prune();
}

}  // namespace lathe
