#include "runtime/rewrites/rewrites.h"

namespace lathe {
namespace {

std::string scope_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

// The experts that end right before this one; null: none.
const Node* experts_before(const Graph& g, const Node& one) {
  const Node* before = made_for_one<op::Experts>(g, one.inputs[0]);
  if (!before || before->inputs[1] != one.inputs[1] || before->inputs[2] != one.inputs[2]) return nullptr;
  const auto &a = std::get<op::Experts>(before->op), &b = std::get<op::Experts>(one.op);
  const int next = a.first + static_cast<int>(before->params.size() / 3);
  return next == b.first && a.width == b.width ? before : nullptr;
}

}  // namespace

void fuse_experts(Graph& g) {
  const std::vector<NodeId> order(g.order().begin(), g.order().end());
  for (NodeId id : order) {
    const Node add = g.node(id);
    const auto* sum = std::get_if<op::AddRouted>(&add.op);
    const Node* down = sum ? linear_without_bias(g, add.inputs[2]) : nullptr;
    const Node* gated = down ? made_for_one<op::GatedLinear>(g, down->inputs[0]) : nullptr;
    const Node* take = gated ? made_for_one<op::TakeRouted>(g, gated->inputs[0]) : nullptr;
    const NodeId weights = take ? g.value(take->inputs[1]).producer : -1;
    const auto* route = weights < 0 ? nullptr : std::get_if<op::Route>(&g.node(weights).op);
    if (!route || take->inputs[1] != add.inputs[1] ||
        std::get<op::TakeRouted>(take->op).expert != sum->expert)
      continue;
    Node one{.id = -1,
             .op = op::Experts{sum->expert, route->top_k, g.value(gated->outputs[0]).cols},
             .name = scope_of(add.name),
             .inputs = {add.inputs[0], take->inputs[0], take->inputs[1]},
             .outputs = {},
             .params = {gated->params[0], gated->params[1], down->params[0]},
             .block = add.block};
    if (const Node* before = experts_before(g, one)) {
      std::get<op::Experts>(one.op).first = std::get<op::Experts>(before->op).first;
      one.name = scope_of(one.name);
      one.inputs[0] = before->inputs[0];
      one.params.insert(one.params.begin(), before->params.begin(), before->params.end());
    }
    const int64_t cols[] = {g.value(add.outputs[0]).cols};
    g.replace(add.outputs[0], g.insert(id, std::move(one), cols));
  }
  g.prune();
}

}  // namespace lathe
