#include "compress/edges.h"

#include <algorithm>
#include <fmt/format.h>
#include <map>
#include <numeric>

namespace lathe {
namespace {

const Node* producer(const Graph& g, ValueId v) {
  const NodeId id = g.value(v).producer;
  return id < 0 ? nullptr : &g.node(id);
}

bool is_correction(const Node& node) {
  const auto* low = std::get_if<op::LowRank>(&node.op);
  return low && low->adapter == 0;
}

// Every reader of the value is one of these nodes, or a correction of one of them.
bool read_only_by(const Graph& g, ValueId v, const std::vector<NodeId>& nodes) {
  const std::vector<NodeId> users = g.users(v);
  return v != g.output() && !users.empty() && std::ranges::all_of(users, [&](NodeId id) {
           return std::ranges::find(nodes, id) != nodes.end() || is_correction(g.node(id));
         });
}

std::vector<int32_t> identity(int64_t n) {
  std::vector<int32_t> rows(static_cast<size_t>(n));
  std::iota(rows.begin(), rows.end(), 0);
  return rows;
}

// The linear layer whose output is read by `reader` alone, itself or corrected.
struct PrivateLinear {
  const Node* linear = nullptr;
  const Node* correction = nullptr;
};
PrivateLinear private_linear(const Graph& g, ValueId v, const Node& reader) {
  const Node* made_by = producer(g, v);
  if (!made_by || g.users(v) != std::vector{reader.id} || v == g.output()) return {};
  if (std::holds_alternative<op::Linear>(made_by->op)) return {made_by, nullptr};
  if (!is_correction(*made_by)) return {};
  const PrivateLinear inner = private_linear(g, made_by->inputs[0], *made_by);
  return inner.correction ? PrivateLinear{} : PrivateLinear{inner.linear, made_by};
}

FoldSite rows_of(const PrivateLinear& made, std::vector<int32_t> row_of, int64_t rows) {
  const std::vector<std::string>& params = made.linear->params;
  return {params[0], params.size() > 1 ? params[1] : "", std::move(row_of), rows,
          made.correction ? made.correction->params[1] : ""};
}

}  // namespace

std::vector<InputGroup> input_groups(const Graph& g) {
  std::vector<InputGroup> groups;
  std::map<ValueId, size_t> group_of;
  for (const NodeId id : g.order()) {
    const Node& node = g.node(id);
    if (!std::holds_alternative<op::Linear>(node.op)) continue;
    const auto [at, fresh] = group_of.try_emplace(node.inputs[0], groups.size());
    if (fresh) groups.push_back({node.inputs[0], {}, node.block});
    groups[at->second].nodes.push_back(id);
  }
  return groups;
}

std::string joint_name(const std::vector<std::string>& modules) {
  if (modules.size() == 1) return modules[0];
  // What all share at the front, then at the back of what is left.
  const std::string& first = modules[0];
  const auto shared = [&](auto same) {
    size_t n = 0;
    while (std::ranges::all_of(modules, [&](const std::string& m) { return n < m.size() && same(m, n); }))
      ++n;
    return n;
  };
  const size_t head = shared([&](const std::string& m, size_t i) { return m[i] == first[i]; });
  const size_t tail = shared([&](const std::string& m, size_t i) {
    return i + head < m.size() && m[m.size() - 1 - i] == first[first.size() - 1 - i];
  });
  std::vector<std::string> middles;
  for (const std::string& m : modules) middles.push_back(m.substr(head, m.size() - head - tail));
  return fmt::format("{}{{{}}}{}", first.substr(0, head), fmt::join(middles, ","),
                     first.substr(first.size() - tail));
}

std::string joint_name(const Graph& g, const InputGroup& group) {
  std::vector<std::string> modules;
  for (const NodeId id : group.nodes) modules.push_back(g.node(id).name);
  return joint_name(modules);
}

std::optional<FoldSite> fold_site(const Graph& g, const InputGroup& group) {
  const Node* made_by = producer(g, group.input);
  if (!made_by || !read_only_by(g, group.input, group.nodes)) return std::nullopt;
  const int64_t cols = g.value(group.input).cols;
  if (const auto* norm = std::get_if<op::RmsNorm>(&made_by->op)) {
    if (norm->width != 0 && norm->width != cols) return std::nullopt;  // one vector for all heads
    return FoldSite{made_by->params[0], "", identity(cols), cols};
  }
  if (std::holds_alternative<op::Mul>(made_by->op)) {
    for (const ValueId v : {made_by->inputs[1], made_by->inputs[0]})
      if (const PrivateLinear made = private_linear(g, v, *made_by); made.linear)
        return rows_of(made, identity(cols), cols);
    return std::nullopt;
  }
  if (const auto* a = std::get_if<op::Attention>(&made_by->op)) {
    const PrivateLinear v = private_linear(g, made_by->inputs[2], *made_by);
    if (!v.linear) return std::nullopt;
    std::vector<int32_t> row_of;
    for (int h = 0; h < a->heads; ++h)
      for (int d = 0; d < a->head_dim; ++d) row_of.push_back(h / (a->heads / a->kv_heads) * a->head_dim + d);
    return rows_of(v, std::move(row_of), int64_t{a->kv_heads} * a->head_dim);
  }
  return std::nullopt;
}

}  // namespace lathe
