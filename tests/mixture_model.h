// A mixture of experts made of a dense model: each expert is its MLP, moved a little, so that texts stay
// texts.
#pragma once

#include "core/rng.h"
#include "models/model.h"

namespace lathe::testing_support {

inline Model mixture_of(const Model& dense, int experts, int top_k, float moved = 0.2f) {
  Model m;
  m.config = dense.config;
  m.config["model_type"] = "mixtral";
  m.config["num_local_experts"] = experts;
  m.config["num_experts_per_tok"] = top_k;
  m.source = dense.source;
  m.graph = define(m.config);
  Rng rng(17);
  const auto random = [&](const Shape& shape, float size, const std::vector<float>& around) {
    std::vector<float> values(static_cast<size_t>(elements(shape)));
    for (size_t i = 0; i < values.size(); ++i)
      values[i] = (around.empty() ? 0 : around[i]) + size * rng.normal();
    return dense_weight(Tensor::of<float>(DType::f32, shape, values));
  };
  for (const auto& [name, shape] : m.graph.param_shapes()) {
    const size_t scope = name.find("block_sparse_moe.");
    if (scope == std::string::npos) {
      m.weights[name] = dense.weights.at(name);
    } else if (name.ends_with(".gate.weight")) {
      m.weights[name] = random(shape, 2 / std::sqrt(static_cast<float>(shape[1])), {});
    } else {
      const char* role = name.ends_with(".w1.weight")   ? "gate_proj"
                         : name.ends_with(".w3.weight") ? "up_proj"
                                                        : "down_proj";
      const std::vector<float> around =
          read_all(dense.weights.at(fmt::format("{}mlp.{}.weight", name.substr(0, scope), role)));
      double squares = 0;
      for (const float w : around) squares += static_cast<double>(w) * static_cast<double>(w);
      const double size = std::sqrt(squares / static_cast<double>(around.size()));
      m.weights[name] = random(shape, moved * static_cast<float>(size), around);
    }
  }
  return m;
}

}  // namespace lathe::testing_support
