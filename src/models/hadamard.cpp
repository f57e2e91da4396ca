#include "models/hadamard.h"

#include "core/error.h"

namespace lathe {

std::string scope_of(const Node& attention) { return attention.name.substr(0, attention.name.rfind('.')); }

int hadamard_size(int64_t cols) { return static_cast<int>(cols & -cols); }

ValueId add_hadamard(Graph& graph, ValueId v, const std::string& name, int size) {
  const std::vector<NodeId> users = graph.users(v);
  const Node first = graph.node(users.at(0));
  const int64_t cols[] = {graph.value(v).cols};
  const ValueId turned = graph.insert(first.id,
                                      {.id = -1,
                                       .op = op::Hadamard{size},
                                       .name = name,
                                       .inputs = {v},
                                       .outputs = {},
                                       .params = {},
                                       .block = first.block},
                                      cols);
  graph.replace(v, turned);
  return turned;
}

Json transform_config(const Graph& graph) {
  struct Scheme {
    std::string_view name;
    int size;
    std::map<std::string_view, std::vector<std::string>> targets;  // by location
  };
  std::vector<Scheme> schemes;
  const auto targets = [&](std::string_view name, int size, std::string_view location) -> auto& {
    for (Scheme& s : schemes)
      if (s.name == name && s.size == size) return s.targets[location];
    return schemes.emplace_back(Scheme{name, size, {}}).targets[location];
  };
  for (const NodeId id : graph.order()) {
    const auto* h = std::get_if<op::Hadamard>(&graph.node(id).op);
    if (!h) continue;
    const ValueId turned = graph.node(id).outputs[0];
    for (const NodeId user : graph.users(turned)) {
      const Node& reader = graph.node(user);
      if (std::holds_alternative<op::Linear>(reader.op))
        targets("R4", h->size, "input").push_back(reader.name);
      else if (std::holds_alternative<op::Attention>(reader.op))
        targets("R3", h->size, turned == reader.inputs[0] ? "q_attn" : "k_cache").push_back(scope_of(reader));
    }
  }
  if (schemes.empty()) return Json::object();
  Json groups = Json::object();
  for (const Scheme& s : schemes) {
    Json apply = Json::array();
    for (const auto& [location, modules] : s.targets) {
      apply.push_back(
          {{"targets", modules}, {"location", location}, {"inverse", false}, {"ignore", Json::array()}});
      if (location == "input")  // folded already
        apply.push_back({{"targets", modules},
                         {"location", "weight_input"},
                         {"inverse", true},
                         {"ignore", Json::array()}});
    }
    std::string name(s.name);
    for (int i = 2; groups.contains(name); ++i) name = fmt::format("{}_{}", s.name, i);
    groups[name] = {{"type", "hadamard"},     {"apply", std::move(apply)}, {"randomize", false},
                    {"requires_grad", false}, {"head_dim", s.size},        {"precision", "torch.float32"}};
  }
  return {{"config_groups", std::move(groups)}};
}

void refuse_hadamards(const Graph& graph, std::string_view why) {
  for (const NodeId id : graph.order())
    if (const Node& node = graph.node(id); std::holds_alternative<op::Hadamard>(node.op))
      throw input_error(node.name, "a model without Hadamard transforms at run time", "one",
                        fmt::format("{}; rotate the original without --r3 and --r4", why));
}

}  // namespace lathe
