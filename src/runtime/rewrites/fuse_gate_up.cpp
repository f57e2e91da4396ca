#include "runtime/rewrites/rewrites.h"

namespace lathe {
namespace {

// The node that makes `v`, if it is a linear layer without bias that nobody else reads.
const Node* only_linear(const Graph& g, ValueId v) {
  const NodeId producer = g.value(v).producer;
  if (producer < 0 || g.users(v).size() != 1 || v == g.output()) return nullptr;
  const Node& node = g.node(producer);
  const auto* linear = std::get_if<op::Linear>(&node.op);
  return linear && !linear->bias ? &node : nullptr;
}

}  // namespace

void fuse_gate_up(Graph& g) {
  const std::vector<NodeId> order(g.order().begin(), g.order().end());
  for (NodeId id : order) {
    const Node mul = g.node(id);
    if (!std::holds_alternative<op::SiluMul>(mul.op)) continue;
    const Node *gate = only_linear(g, mul.inputs[0]), *up = only_linear(g, mul.inputs[1]);
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
