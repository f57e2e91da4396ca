#include <optional>

#include "runtime/rewrites/rewrites.h"

namespace lathe {
namespace {

std::string scope_of(const std::string& name) { return name.substr(0, name.rfind('.')); }

// The experts that end right before this one; null: none.
const Node* experts_before(const Graph& g, const Node& one) {
  const Node* before = made_for_one<op::Experts>(g, one.inputs[0]);
  if (!before || before->inputs[1] != one.inputs[1] || before->inputs[2] != one.inputs[2]) return nullptr;
  const auto &a = std::get<op::Experts>(before->op), &b = std::get<op::Experts>(one.op);
  const int next = a.first + static_cast<int>(before->params.size() / a.params_each());
  const bool alike = a.width == b.width && a.bias == b.bias && a.activation.limit == b.activation.limit &&
                     a.activation.alpha == b.activation.alpha;
  return next == b.first && alike ? before : nullptr;
}

// The rows that an expert sees, which only `readers` of its layers read; null: something else.
const Node* taken(const Graph& g, ValueId x, size_t readers) {
  const NodeId made_by = g.value(x).producer;
  if (made_by < 0 || g.users(x).size() != readers) return nullptr;
  return std::holds_alternative<op::TakeRouted>(g.node(made_by).op) ? &g.node(made_by) : nullptr;
}

// Gate and up of an expert, and what is made of both.
struct Gated {
  const Node* take;  // never null
  std::vector<std::string> weights, biases;
  op::SiluMul activation;
};
std::optional<Gated> gated(const Graph& g, ValueId v) {
  if (const Node* one = made_for_one<op::GatedLinear>(g, v)) {
    const Node* take = taken(g, one->inputs[0], 1);
    return take ? std::optional(Gated{take, one->params, {}, {}}) : std::nullopt;
  }
  const Node* mul = made_for_one<op::SiluMul>(g, v);
  const Node* gate = mul ? made_for_one<op::Linear>(g, mul->inputs[0]) : nullptr;
  const Node* up = mul ? made_for_one<op::Linear>(g, mul->inputs[1]) : nullptr;
  if (!gate || !up || gate->inputs != up->inputs || gate->params.size() != up->params.size()) return {};
  const Node* take = taken(g, gate->inputs[0], 2);
  if (!take) return {};
  Gated out{take, {gate->params[0], up->params[0]}, {}, std::get<op::SiluMul>(mul->op)};
  if (gate->params.size() > 1) out.biases = {gate->params[1], up->params[1]};
  return out;
}

// The parameters of `one` behind those of `before`: matrices, then biases.
std::vector<std::string> joined(const std::vector<std::string>& before, const std::vector<std::string>& one,
                                bool bias) {
  std::vector<std::string> out;
  const auto append = [&](const std::vector<std::string>& from, bool biases) {
    const auto half = from.begin() + std::ssize(from) / (bias ? 2 : 1);
    out.insert(out.end(), biases ? half : from.begin(), biases ? from.end() : half);
  };
  for (const bool biases : {false, true})
    for (const auto* from : {&before, &one}) append(*from, biases);
  return out;
}

}  // namespace

void fuse_experts(Graph& g) {
  const std::vector<NodeId> order(g.order().begin(), g.order().end());
  for (NodeId id : order) {
    const Node add = g.node(id);
    const auto* sum = std::get_if<op::AddRouted>(&add.op);
    const Node* down = sum ? made_for_one<op::Linear>(g, add.inputs[2]) : nullptr;
    const auto both = down ? gated(g, down->inputs[0]) : std::nullopt;
    if (!both || both->biases.empty() == std::get<op::Linear>(down->op).bias) continue;
    const Node* take = both->take;
    const NodeId weights = g.value(take->inputs[1]).producer;
    const auto* route = weights < 0 ? nullptr : std::get_if<op::Route>(&g.node(weights).op);
    if (!route || take->inputs[1] != add.inputs[1] ||
        std::get<op::TakeRouted>(take->op).expert != sum->expert)
      continue;
    Node one{.id = -1,
             .op = op::Experts{sum->expert, route->top_k, g.value(down->inputs[0]).cols,
                               !both->biases.empty(), both->activation},
             .name = scope_of(add.name),
             .inputs = {add.inputs[0], take->inputs[0], take->inputs[1]},
             .outputs = {},
             .params = both->weights,
             .block = add.block};
    one.params.push_back(down->params[0]);
    one.params.insert(one.params.end(), both->biases.begin(), both->biases.end());
    if (!both->biases.empty()) one.params.push_back(down->params[1]);
    if (const Node* before = experts_before(g, one)) {
      std::get<op::Experts>(one.op).first = std::get<op::Experts>(before->op).first;
      one.name = scope_of(one.name);
      one.inputs[0] = before->inputs[0];
      one.params = joined(before->params, one.params, !both->biases.empty());
    }
    const int64_t cols[] = {g.value(add.outputs[0]).cols};
    g.replace(add.outputs[0], g.insert(id, std::move(one), cols));
  }
  g.prune();
}

}  // namespace lathe
