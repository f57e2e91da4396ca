#include "runtime/rewrites/rewrites.h"

namespace lathe {
void fuse_rope_attention(Graph& g) {
  const std::vector<NodeId> order(g.order().begin(), g.order().end());
  for (NodeId id : order) {
    const Node node = g.node(id);
    const auto* attention = std::get_if<op::Attention>(&node.op);
    if (!attention) continue;
    const Node *q = made_for_one<op::Rope>(g, node.inputs[0]), *k = made_for_one<op::Rope>(g, node.inputs[1]);
    if (!q || !k) continue;
    const auto &rope = std::get<op::Rope>(q->op), &other = std::get<op::Rope>(k->op);
    if (rope.inv_freq != other.inv_freq || rope.scale != other.scale || rope.head_dim != other.head_dim ||
        rope.head_dim != attention->head_dim)
      continue;
    Node fused{.id = -1,
               .op = op::RopeAttention{*attention, rope},
               .name = node.name,
               .inputs = {q->inputs[0], k->inputs[0], node.inputs[2]},
               .outputs = {},
               .params = node.params,
               .block = node.block};
    const int64_t cols[] = {g.value(node.outputs[0]).cols};
    g.replace(node.outputs[0], g.insert(id, std::move(fused), cols));
  }
  g.prune();
}

}  // namespace lathe
