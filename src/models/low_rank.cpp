#include "models/low_rank.h"

#include <algorithm>

#include "core/error.h"

namespace lathe {
namespace {

constexpr std::string_view suffix = ".low_rank", a_suffix = ".low_rank.a";

bool is_correction(const Node& node) {
  const auto* low = std::get_if<op::LowRank>(&node.op);
  return low && low->adapter == 0;
}

}  // namespace

void add_low_rank(Graph& graph, NodeId linear, const std::string& name, const op::LowRank& low) {
  const Node layer = graph.node(linear);
  ValueId y = layer.outputs[0];
  NodeId last = linear;
  for (bool more = true; more;) {
    more = false;
    for (const NodeId user : graph.users(y))
      if (const Node& node = graph.node(user);
          std::holds_alternative<op::LowRank>(node.op) && node.inputs[0] == y) {
        y = node.outputs[0];
        last = user;
        more = true;
        break;
      }
  }
  Node node{.id = -1,
            .op = low,
            .name = name,
            .inputs = {y, layer.inputs[0]},
            .outputs = {},
            .params = {name + ".a", name + ".b"},
            .block = layer.block};
  const auto next = std::find(graph.order().begin(), graph.order().end(), last) + 1;
  const int64_t cols[] = {graph.value(y).cols};
  const ValueId now = graph.insert(next == graph.order().end() ? -1 : *next, std::move(node), cols);
  graph.replace(y, now);
}

std::string correction_of(std::string_view module) { return std::string(module).append(suffix); }

void add_corrections(Graph& graph, const Checkpoint& checkpoint) {
  for (const Entry& entry : checkpoint.entries()) {
    if (!entry.name.ends_with(a_suffix)) continue;
    const std::string module = entry.name.substr(0, entry.name.size() - a_suffix.size()),
                      where = fmt::format("{}: tensor '{}'", entry.file, printable(entry.name));
    const NodeId linear = graph.find(module);
    if (linear < 0 || !std::holds_alternative<op::Linear>(graph.node(linear).op))
      throw input_error(where, "a linear layer of that name", "none");
    if (entry.shape.size() != 2 || entry.shape[0] < 1 || entry.shape[0] > most_rank)
      throw input_error(where, fmt::format("[1 to {}, columns of the layer]", most_rank),
                        to_string(entry.shape));
    add_low_rank(graph, linear, correction_of(module), {.rank = static_cast<int>(entry.shape[0])});
  }
}

bool is_correction(const Graph& graph, std::string_view param) {
  const size_t dot = param.rfind('.');
  const NodeId id = dot == std::string_view::npos ? -1 : graph.find(param.substr(0, dot));
  return id >= 0 && is_correction(graph.node(id));
}

int64_t correction_weights(const Graph& graph) {
  int64_t n = 0;
  for (const NodeId id : graph.order())
    if (const Node& node = graph.node(id); is_correction(node))
      n += std::get<op::LowRank>(node.op).rank *
           (graph.value(node.inputs[1]).cols + graph.value(node.outputs[0]).cols);
  return n;
}

void refuse_corrections(const Graph& graph, std::string_view why) {
  for (const NodeId id : graph.order())
    if (const Node& node = graph.node(id); is_correction(node))
      throw input_error(node.name, "layers without a low-rank correction", "one",
                        fmt::format("{}; quantize the original by a method without +rank", why));
}

}  // namespace lathe
