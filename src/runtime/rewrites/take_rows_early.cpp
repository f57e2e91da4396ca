#include <algorithm>

#include "runtime/rewrites/rewrites.h"

namespace lathe {
namespace {

// Each row of the output depends on that row of the inputs alone.
bool row_wise(const Op& op) {
  return std::holds_alternative<op::Linear>(op) || std::holds_alternative<op::RmsNorm>(op) ||
         std::holds_alternative<op::Add>(op) || std::holds_alternative<op::Mul>(op) ||
         std::holds_alternative<op::Silu>(op) || std::holds_alternative<op::SiluMul>(op) ||
         std::holds_alternative<op::GatedLinear>(op) || std::holds_alternative<op::Route>(op) ||
         std::holds_alternative<op::Experts>(op) || std::holds_alternative<op::LowRank>(op) ||
         std::holds_alternative<op::Hadamard>(op);
}

bool only_taken(const Graph& g, ValueId v) {
  const std::vector<NodeId> users = g.users(v);
  return !users.empty() && v != g.output() && std::all_of(users.begin(), users.end(), [&](NodeId id) {
    return std::holds_alternative<op::TakeRows>(g.node(id).op);
  });
}

// The wanted rows of `v`, taken right after it is made, so that every later reader may share them.
ValueId take(Graph& g, std::map<ValueId, ValueId>& taken, ValueId v) {
  const auto [it, fresh] = taken.try_emplace(v, -1);
  if (!fresh) return it->second;
  const Node& from = g.node(g.value(v).producer);
  const auto next = std::find(g.order().begin(), g.order().end(), from.id) + 1;
  const int64_t cols[] = {g.value(v).cols};
  return it->second = g.insert(next == g.order().end() ? -1 : *next,
                               {.id = -1,
                                .op = op::TakeRows{},
                                .name = from.name + ".take_rows",
                                .inputs = {v},
                                .outputs = {},
                                .params = {},
                                .block = from.block},
                               cols);
}

}  // namespace

void take_rows_early(Graph& g) {
  std::map<ValueId, ValueId> taken;
  const std::vector<NodeId> order(g.order().rbegin(), g.order().rend());
  for (NodeId id : order) {
    Node node = g.node(id);
    if (!row_wise(node.op) || !only_taken(g, node.outputs[0])) continue;
    const ValueId all = node.outputs[0];
    const std::vector<NodeId> takers = g.users(all);
    for (ValueId& input : node.inputs) input = take(g, taken, input);
    const int64_t cols[] = {g.value(all).cols};
    const ValueId wanted = g.insert(id, std::move(node), cols);
    for (NodeId taker : takers) g.replace(g.node(taker).outputs[0], wanted);
    g.prune();
  }
}

}  // namespace lathe
