#include "models/kv_cache.h"

#include <algorithm>
#include <cmath>

#include "core/error.h"
#include "core/log.h"
#include "models/hadamard.h"

namespace lathe {
namespace {

std::vector<NodeId> attentions_of(const Graph& graph) {
  std::vector<NodeId> out;
  for (const NodeId id : graph.order())
    if (std::holds_alternative<op::Attention>(graph.node(id).op)) out.push_back(id);
  return out;
}

const op::Attention& attention_at(const Graph& graph, NodeId id) {
  return std::get<op::Attention>(graph.node(id).op);
}

// So many scales as the checkpoint has of this name; 0: none.
int scales_in(const Checkpoint& checkpoint, const std::string& name, int kv_heads) {
  const Entry* entry = checkpoint.find(name);
  if (!entry) return 0;
  const int64_t n = elements(entry->shape);
  if (n != 1 && n != kv_heads)
    throw input_error(fmt::format("{}: tensor '{}'", entry->file, printable(name)),
                      fmt::format("one scale, or one for each of {} key heads", kv_heads),
                      to_string(entry->shape));
  return static_cast<int>(n);
}

}  // namespace

std::string k_scale_of(const Node& attention) { return scope_of(attention) + ".k_scale"; }
std::string v_scale_of(const Node& attention) { return scope_of(attention) + ".v_scale"; }

NodeId set_cache(Graph& graph, NodeId attention, const CacheScheme& scheme) {
  Node node = graph.node(attention);
  auto& a = std::get<op::Attention>(node.op);
  if (a.cache.has_scales()) node.params.resize(node.params.size() - 2);
  a.cache = scheme;
  if (scheme.has_scales()) node.params.insert(node.params.end(), {k_scale_of(node), v_scale_of(node)});
  const ValueId before = node.outputs[0];
  const int64_t cols[] = {graph.value(before).cols};
  node.outputs.clear();
  const ValueId after = graph.insert(attention, std::move(node), cols);
  graph.replace(before, after);
  graph.prune();
  return graph.value(after).producer;
}

void add_cache(Model& model, const Checkpoint& checkpoint) {
  CacheScheme scheme = checkpoint.cache();
  if (!scheme.rounds()) return;
  std::vector<std::string> absent;
  for (const NodeId id : attentions_of(model.graph)) {
    const int heads = attention_at(model.graph, id).kv_heads;
    const std::string names[] = {k_scale_of(model.graph.node(id)), v_scale_of(model.graph.node(id))};
    const int found[] = {scales_in(checkpoint, names[0], heads), scales_in(checkpoint, names[1], heads)};
    if (scheme.has_scales())  // the tensors say which
      scheme.scales = std::max(found[0], found[1]) > 1 ? CacheScales::head : CacheScales::layer;
    set_cache(model.graph, id, scheme);
    const int scales = scheme.count(heads);
    for (size_t side = 0; scales > 0 && side < 2; ++side) {
      if (found[side] > 0) continue;
      const std::vector<float> ones(static_cast<size_t>(scales), 1.0f);
      model.weights[names[side]] = dense_weight(Tensor::of<float>(DType::f32, {scales}, ones));
      absent.push_back(names[side]);
    }
  }
  if (!absent.empty())
    warn("{}: keys and values are {} without {} of their scales ('{}' first): these are 1, as elsewhere",
         checkpoint.path().string(), to_string(scheme.numerics), absent.size(), absent.front());
}

bool is_cache_scale(const Graph& graph, std::string_view param) {
  if (!param.ends_with(".k_scale") && !param.ends_with(".v_scale")) return false;
  return std::ranges::any_of(attentions_of(graph), [&](NodeId id) {
    return attention_at(graph, id).cache.has_scales() && std::ranges::count(graph.node(id).params, param);
  });
}

void require_scales(const Weight& weight, std::string_view where) {
  for (const float value : read_all(weight))
    if (!std::isnormal(value) || value < 0)
      throw input_error(where, "finite scales above 0", fmt::format("{}", value),
                        "the checkpoint is damaged; export it again");
}

CacheScheme cache_scheme(const Graph& graph) {
  const std::vector<NodeId> attentions = attentions_of(graph);
  if (attentions.empty()) return {};
  const CacheScheme first = attention_at(graph, attentions.front()).cache;
  for (const NodeId id : attentions)
    if (const CacheScheme& other = attention_at(graph, id).cache; other != first)
      throw input_error(graph.node(id).name,
                        fmt::format("keys and values in {} with a scale for each {}, as in the first layer",
                                    to_string(first.numerics), to_string(first.scales)),
                        fmt::format("{}, {}", to_string(other.numerics), to_string(other.scales)));
  return first;
}

Model without_cache(const Model& model, std::string_view format) {
  Model out = model;
  CacheNumerics dropped = CacheNumerics::floats;
  for (const NodeId id : attentions_of(model.graph)) {
    const CacheScheme cache = attention_at(model.graph, id).cache;
    if (!cache.rounds()) continue;
    dropped = cache.numerics;
    out.weights.erase(k_scale_of(model.graph.node(id)));
    out.weights.erase(v_scale_of(model.graph.node(id)));
    set_cache(out.graph, id, {});
  }
  if (dropped != CacheNumerics::floats)
    warn("{} has no place for scales of keys and values, which this model has as {}: they are left out",
         format, to_string(dropped));
  return out;
}

}  // namespace lathe
