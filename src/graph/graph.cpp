#include "graph/graph.h"

#include <algorithm>
#include <set>

#include "core/error.h"

namespace lathe {

std::string_view op_name(const Op& op) {
  return std::visit(overloaded{
                        [](const op::Embedding&) { return "embedding"; },
                        [](const op::Linear&) { return "linear"; },
                        [](const op::RmsNorm&) { return "rms_norm"; },
                        [](const op::Rope&) { return "rope"; },
                        [](const op::Silu&) { return "silu"; },
                        [](const op::Add&) { return "add"; },
                        [](const op::Mul&) { return "mul"; },
                        [](const op::TakeRows&) { return "take_rows"; },
                        [](const op::Attention&) { return "attention"; },
                        [](const op::Route&) { return "route"; },
                        [](const op::TakeRouted&) { return "take_routed"; },
                        [](const op::AddRouted&) { return "add_routed"; },
                        [](const op::LowRank&) { return "low_rank"; },
                        [](const op::Hadamard&) { return "hadamard"; },
                        [](const op::SiluMul&) { return "silu_mul"; },
                        [](const op::GatedLinear&) { return "gated_linear"; },
                        [](const op::AddRmsNorm&) { return "add_rms_norm"; },
                        [](const op::MultiLinear&) { return "multi_linear"; },
                        [](const op::Experts&) { return "experts"; },
                        [](const op::RopeAttention&) { return "rope_attention"; },
                    },
                    op);
}

Graph::Graph() : values_(1), readers_(1) {}

const Node& Graph::node(NodeId id) const {
  auto it = nodes_.find(id);
  if (it == nodes_.end()) fail("graph: no node {}", id);
  return it->second;
}

const ValueInfo& Graph::value(ValueId id) const {
  if (id < 0 || static_cast<size_t>(id) >= values_.size()) fail("graph: no value %{}", id);
  return values_[static_cast<size_t>(id)];
}

std::vector<NodeId> Graph::users(ValueId value) const {
  const std::vector<NodeId>& readers = readers_.at(static_cast<size_t>(value));
  if (readers.size() < 2) return readers;
  const std::set<NodeId> wanted(readers.begin(), readers.end());
  std::vector<NodeId> out;
  for (NodeId id : order_)
    if (wanted.contains(id)) out.push_back(id);
  return out;
}

NodeId Graph::find(std::string_view name) const {
  for (NodeId id : order_)
    if (nodes_.at(id).name == name) return id;
  return -1;
}

ValueId Graph::insert(NodeId before, Node node, std::span<const int64_t> cols) {
  const auto at = before < 0 ? order_.end() : std::find(order_.begin(), order_.end(), before);
  if (before >= 0 && at == order_.end()) fail("graph: insert before node {}, which is not there", before);
  if (node.inputs.empty() || cols.empty()) fail("graph: node '{}' needs an input and an output", node.name);
  for (ValueId input : node.inputs) {
    const NodeId producer = value(input).producer;
    if (producer >= 0 && std::find(order_.begin(), at, producer) == at)
      fail("graph: node '{}' reads %{}, which is made later", node.name, input);
  }
  ValueInfo made = value(node.inputs[0]);
  if (std::holds_alternative<op::TakeRows>(node.op)) made.rows = Rows::outputs;
  if (std::holds_alternative<op::TakeRouted>(node.op)) {
    made.rows = Rows::routed;
    made.taken = static_cast<ValueId>(values_.size());
  }
  made.producer = node.id = next_++;
  node.outputs.clear();
  for (int64_t c : cols) {
    node.outputs.push_back(static_cast<ValueId>(values_.size()));
    made.cols = c;
    values_.push_back(made);
    readers_.emplace_back();
  }
  for (const ValueId input : std::set<ValueId>(node.inputs.begin(), node.inputs.end()))
    readers_[static_cast<size_t>(input)].push_back(node.id);
  const ValueId first = node.outputs[0];
  order_.insert(at, node.id);
  nodes_.emplace(node.id, std::move(node));
  return first;
}

void Graph::replace(ValueId old_value, ValueId new_value) {
  if (output_ == old_value) output_ = new_value;
  if (old_value == new_value) return;
  std::vector<NodeId>&from = readers_.at(static_cast<size_t>(old_value)),
  &to = readers_.at(static_cast<size_t>(new_value));
  std::erase_if(from, [&](NodeId id) {
    if (id == value(new_value).producer) return false;
    std::vector<ValueId>& inputs = nodes_.at(id).inputs;
    std::replace(inputs.begin(), inputs.end(), old_value, new_value);
    if (std::find(to.begin(), to.end(), id) == to.end()) to.push_back(id);
    return true;
  });
}

void Graph::prune() {
  std::set<ValueId> needed{output_};
  std::vector<NodeId> kept;
  for (auto it = order_.rbegin(); it != order_.rend(); ++it) {
    const Node& node = nodes_.at(*it);
    const bool live =
        std::any_of(node.outputs.begin(), node.outputs.end(), [&](ValueId v) { return needed.contains(v); });
    if (live) {
      needed.insert(node.inputs.begin(), node.inputs.end());
      kept.push_back(*it);
    } else {
      for (const ValueId input : node.inputs) std::erase(readers_[static_cast<size_t>(input)], *it);
      nodes_.erase(*it);
    }
  }
  order_.assign(kept.rbegin(), kept.rend());
}

std::map<std::string, std::vector<int64_t>, std::less<>> Graph::param_shapes() const {
  std::map<std::string, std::vector<int64_t>, std::less<>> shapes;
  auto declare = [&](const Node& node, size_t index, std::vector<int64_t> shape) {
    const std::string& name = node.params.at(index);
    auto [it, fresh] = shapes.emplace(name, shape);
    if (!fresh && it->second != shape) fail("graph: parameter '{}' is read in two shapes", name);
  };
  auto attention = [&](const Node& node, const op::Attention& a) {
    if (a.sinks) declare(node, 0, {a.heads});
    for (size_t i = 0; a.cache.has_scales() && i < 2; ++i)
      declare(node, node.params.size() - 2 + i, {a.cache.count(a.kv_heads)});
  };
  for (NodeId id : order_) {
    const Node& node = nodes_.at(id);
    const int64_t in = value(node.inputs[0]).cols, out = value(node.outputs[0]).cols;
    std::visit(overloaded{
                   [&](const op::Embedding& e) {
                     declare(node, 0, {e.vocab, out});
                   },
                   [&](const op::Linear& linear) {
                     declare(node, 0, {out, in});
                     if (linear.bias) declare(node, 1, {out});
                   },
                   [&](const op::MultiLinear& linear) {
                     const size_t n = node.outputs.size();
                     for (size_t i = 0; i < n; ++i) {
                       const int64_t rows = value(node.outputs[i]).cols;
                       declare(node, i, {rows, in});
                       if (linear.bias) declare(node, n + i, {rows});
                     }
                   },
                   [&](const op::GatedLinear&) {
                     for (size_t i : {0u, 1u}) declare(node, i, {out, in});
                   },
                   [&](const op::Experts& experts) {
                     const size_t matrices = experts.matrices(node.params.size());
                     for (size_t i = 0; i < matrices; i += 3) {
                       for (size_t matrix : {i, i + 1})
                         declare(node, matrix, {experts.width, value(node.inputs[1]).cols});
                       declare(node, i + 2, {out, experts.width});
                       for (size_t j = i; experts.bias && j < i + 3; ++j)
                         declare(node, matrices + j, {j == i + 2 ? out : experts.width});
                     }
                   },
                   [&](const op::RmsNorm& norm) { declare(node, 0, {norm.width ? norm.width : in}); },
                   [&](const op::AddRmsNorm&) { declare(node, 0, {in}); },
                   [&](const op::LowRank& low) {
                     declare(node, 0, {low.rank, value(node.inputs[1]).cols});
                     declare(node, 1, {out, low.rank});
                   },
                   [&](const op::Attention& a) { attention(node, a); },
                   [&](const op::RopeAttention& a) { attention(node, a.attention); },
                   [](const op::Rope&) {},
                   [](const op::Silu&) {},
                   [](const op::Add&) {},
                   [](const op::Mul&) {},
                   [](const op::SiluMul&) {},
                   [](const op::Hadamard&) {},
                   [](const op::TakeRows&) {},
                   [](const op::Route&) {},
                   [](const op::TakeRouted&) {},
                   [](const op::AddRouted&) {},
               },
               node.op);
  }
  return shapes;
}

}  // namespace lathe
