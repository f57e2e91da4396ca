#include "runtime/rewrites/rewrites.h"

namespace lathe {

void fuse_add_norm(Graph& g) {
  const std::vector<NodeId> order(g.order().begin(), g.order().end());
  for (NodeId id : order) {
    const Node add = g.node(id);
    if (!std::holds_alternative<op::Add>(add.op)) continue;
    for (NodeId reader : g.users(add.outputs[0])) {
      const Node norm = g.node(reader);
      const auto* attributes = std::get_if<op::RmsNorm>(&norm.op);
      if (!attributes || attributes->width != 0) continue;  // a per-head norm is another op
      Node fused{.id = -1,
                 .op = op::AddRmsNorm{attributes->eps},
                 .name = norm.name,
                 .inputs = add.inputs,
                 .outputs = {},
                 .params = norm.params,
                 .block = norm.block};
      const int64_t width = g.value(add.outputs[0]).cols, cols[] = {width, width};
      const ValueId sum = g.insert(id, std::move(fused), cols);
      g.replace(add.outputs[0], sum);
      g.replace(norm.outputs[0], sum + 1);
      break;
    }
  }
  g.prune();
}

}  // namespace lathe
