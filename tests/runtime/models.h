// Models to run plans on: in other formats than their files have, with Hadamard transforms, of random
// weights; and tokens for them.
#pragma once

#include <algorithm>

#include "core/rng.h"
#include "models/hadamard.h"
#include "models/model.h"
#include "quant/round.h"
#include "quant/round_blocks.h"

namespace lathe::testing_support {

inline std::vector<int32_t> random_tokens(size_t n, uint64_t seed) {
  Rng rng(seed);
  std::vector<int32_t> out(n);
  for (int32_t& t : out) t = static_cast<int32_t>(rng.below(128));
  return out;
}

// Rows of logits as copies: a plan's own memory is overwritten by the next run.
inline std::vector<float> rows_of(const Tensor& logits) {
  const auto s = logits.as<float>();
  return {s.begin(), s.end()};
}

// Every matrix rounded to `numerics` and stored so. Columns of act_order take turns among the groups; scales
// of columns are 1/2, 1 and 2.
inline Model in_format(const Model& model, const Numerics& numerics, std::string_view stored_as) {
  Numerics rounded_to = numerics;
  rounded_to.act_order = rounded_to.column_scales = false;
  Model out = model;
  for (auto& [name, weight] : out.weights) {
    if (weight.shape.size() != 2) continue;
    const std::vector<float> values = read_all(weight);
    Codes codes = unpack(weight, 0, weight.rows());
    if (stored_as.starts_with("gguf."))
      codes = round_blocks(values.data(), weight.rows(), weight.cols(), numerics);
    else if (!numerics.is_dense())
      codes = round_to_nearest(values.data(), weight.rows(), weight.cols(), rounded_to, ScaleSearch::absmax);
    codes.numerics = numerics;
    for (int32_t k = 0; k < codes.cols; ++k) {
      if (numerics.act_order) codes.group_of.push_back(k % static_cast<int32_t>(numerics.groups(codes.cols)));
      if (numerics.column_scales) codes.columns.push_back(k % 3 == 0 ? 0.5f : k % 3 == 1 ? 1.0f : 2.0f);
    }
    if (numerics.has_input_scale()) codes.input_scale = 1.0f / 64;
    Weight stored = make_weight(numerics, packing(stored_as), weight.shape);
    stored.packing->pack(codes, 0, stored);
    weight = std::move(stored);
  }
  return out;
}

// Normal f32 numbers, as small as sums over a row want them; vectors (norms, biases) near 1.
inline Model random_model(const Json& config) {
  Rng rng(1);
  Model model{define(config), {}, config, {}};
  for (const auto& [name, shape] : model.graph.param_shapes()) {
    Tensor t = Tensor::zeros(DType::f32, shape);
    const bool vector = shape.size() < 2;
    const float size = vector ? 0.1f : 1 / std::sqrt(static_cast<float>(shape.back()));
    for (float& f : t.as_mutable<float>()) f = (vector ? 1 : 0) + size * rng.normal();
    model.weights.emplace(name, dense_weight(std::move(t)));
  }
  return model;
}

// Queries and keys transformed, and the inputs of down_proj. What these layers then compute is another
// function, since no weight has the inverse.
inline Model with_hadamards(Model model) {
  const std::vector<NodeId> order(model.graph.order().begin(), model.graph.order().end());
  for (const NodeId id : order) {
    const Node node = model.graph.node(id);
    if (const auto* a = std::get_if<op::Attention>(&node.op))
      for (const size_t input : {0u, 1u})
        add_hadamard(model.graph, node.inputs[input], fmt::format("{}.{}", node.name, input),
                     hadamard_size(a->head_dim));
    if (node.name.ends_with("down_proj"))
      add_hadamard(model.graph, node.inputs[0], node.name + ".hadamard",
                   hadamard_size(model.graph.value(node.inputs[0]).cols));
  }
  return model;
}

}  // namespace lathe::testing_support
