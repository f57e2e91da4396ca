#include <set>

#include "runtime/rewrites/rewrites.h"

namespace lathe {
namespace {

// "a.q_proj", "a.k_proj" -> "a.q_proj+k_proj"
std::string joined(const std::string& name, const std::string& more) {
  return name + "+" + more.substr(more.rfind('.') + 1);
}

}  // namespace

void fuse_qkv(Graph& g) {
  const std::vector<NodeId> order(g.order().begin(), g.order().end());
  std::set<NodeId> fused;
  for (NodeId id : order) {
    const auto* linear = std::get_if<op::Linear>(&g.node(id).op);
    if (!linear || fused.contains(id)) continue;
    const bool bias = linear->bias;
    const Node first = g.node(id);
    std::vector<Node> parts;
    for (NodeId reader : g.users(first.inputs[0])) {
      const auto* other = std::get_if<op::Linear>(&g.node(reader).op);
      if (other && other->bias == bias) parts.push_back(g.node(reader));
    }
    if (parts.size() < 2) continue;
    Node multi{.id = -1,
               .op = op::MultiLinear{bias},
               .name = first.name,
               .inputs = first.inputs,
               .outputs = {},
               .params = {},
               .block = first.block};
    std::vector<int64_t> cols;
    for (size_t param = 0; param < first.params.size(); ++param)  // weights, then biases
      for (const Node& part : parts) multi.params.push_back(part.params[param]);
    for (const Node& part : parts) {
      if (part.id != id) multi.name = joined(multi.name, part.name);
      cols.push_back(g.value(part.outputs[0]).cols);
      fused.insert(part.id);
    }
    ValueId made = g.insert(id, std::move(multi), cols);
    for (const Node& part : parts) g.replace(part.outputs[0], made++);
  }
  g.prune();
}

}  // namespace lathe
