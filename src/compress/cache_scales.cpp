#include "compress/cache_scales.h"

#include <algorithm>
#include <cmath>
#include <map>

#include "core/error.h"
#include "core/progress.h"
#include "models/kv_cache.h"
#include "runtime/interpreter.h"

namespace lathe {
namespace {

struct Largest {
  float keys = 0, values = 0;
};

float largest(const Tensor& x) {
  float most = 0;
  for (const float f : x.as<float>()) most = std::max(most, std::fabs(f));
  return most;
}

struct CacheObserver : Observer {
  std::map<std::string, Largest> seen;  // by name of the attention
  void before(const Node& node, std::span<const Tensor> inputs) override {
    if (!std::holds_alternative<op::Attention>(node.op)) return;
    Largest& l = seen[node.name];
    l.keys = std::max(l.keys, largest(inputs[1]));
    l.values = std::max(l.values, largest(inputs[2]));
  }
};

// Everything that attentions need; not the head.
std::vector<NodeId> up_to_last_attention(const Graph& graph) {
  const auto order = graph.order();
  size_t end = 0;
  for (size_t i = 0; i < order.size(); ++i)
    if (std::holds_alternative<op::Attention>(graph.node(order[i]).op)) end = i + 1;
  return {order.begin(), order.begin() + static_cast<ptrdiff_t>(end)};
}

}  // namespace

void calibrate_cache(Model& model, CacheNumerics numerics, std::span<const int32_t> tokens,
                     const CacheCalibration& options) {
  if (tokens.empty()) throw input_error("calibration of keys and values", "a text of some tokens", "none");
  const auto each_attention = [&](auto&& visit) {
    const std::vector<NodeId> order(model.graph.order().begin(), model.graph.order().end());
    for (const NodeId id : order)
      if (std::holds_alternative<op::Attention>(model.graph.node(id).op)) visit(id);
  };
  each_attention([&](NodeId id) { set_cache(model.graph, id, {}); });

  CacheObserver observer;
  const std::vector<NodeId> nodes = up_to_last_attention(model.graph);
  Walker walker(model, options.isa, options.threads > 0 ? options.threads : physical_cores());
  Progress progress("keys and values", std::ssize(tokens));
  const auto context = static_cast<size_t>(options.context);
  for (size_t begin = 0; begin < tokens.size(); begin += context) {
    const auto window = tokens.subspan(begin, std::min(context, tokens.size() - begin));
    Walker::Values values;
    walker.run(SingleSequence(window, 0, 1, false), nodes, values, &observer);
    progress.advance(std::ssize(window));
  }

  each_attention([&](NodeId id) {
    const Node node = model.graph.node(set_cache(model.graph, id, {numerics}));
    const Largest& l = observer.seen.at(node.name);
    const auto bind = [&](const std::string& name, float most) {
      const float scale = most / largest_code(numerics), used[] = {std::isnormal(scale) ? scale : 1.0f};
      model.weights[name] = dense_weight(Tensor::of<float>(DType::f32, {1}, used));
    };
    bind(k_scale_of(node), l.keys);
    bind(v_scale_of(node), l.values);
  });
}

}  // namespace lathe
