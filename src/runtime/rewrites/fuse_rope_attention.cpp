#include "runtime/rewrites/rewrites.h"

namespace lathe {
namespace {

// A value, or what a transform of that size made it from.
struct Source {
  ValueId value;
  int hadamard;
};

Source behind_hadamard(const Graph& g, ValueId v) {
  const Node* made = made_for_one<op::Hadamard>(g, v);
  return made ? Source{made->inputs[0], std::get<op::Hadamard>(made->op).size} : Source{v, 0};
}

}  // namespace

void fuse_rope_attention(Graph& g) {
  const std::vector<NodeId> order(g.order().begin(), g.order().end());
  for (NodeId id : order) {
    const Node node = g.node(id);
    const auto* attention = std::get_if<op::Attention>(&node.op);
    if (!attention) continue;
    const Source of_q = behind_hadamard(g, node.inputs[0]), of_k = behind_hadamard(g, node.inputs[1]);
    const Node *q = made_for_one<op::Rope>(g, of_q.value), *k = made_for_one<op::Rope>(g, of_k.value);
    if (!q || !k || of_q.hadamard != of_k.hadamard || of_q.hadamard > attention->head_dim) continue;
    const auto &rope = std::get<op::Rope>(q->op), &other = std::get<op::Rope>(k->op);
    if (rope.inv_freq != other.inv_freq || rope.scale != other.scale || rope.head_dim != other.head_dim ||
        rope.head_dim != attention->head_dim)
      continue;
    Node fused{.id = -1,
               .op = op::RopeAttention{*attention, rope, of_q.hadamard},
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
