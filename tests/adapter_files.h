// LoRA adapters of random numbers, in PEFT's files.
#pragma once

#include <fstream>

#include "core/rng.h"
#include "io/safetensors.h"
#include "models/model.h"

namespace lathe::testing_support {

constexpr int64_t adapter_rank = 3;
constexpr double adapter_alpha = 6;

struct Factor {
  std::string name;
  Shape shape;
  std::vector<float> values;
};

// A adapts so many layers of the model; B is not zero, as it is before training.
inline std::vector<Factor> adapter_factors(const Model& model, uint64_t seed,
                                           std::string_view ending = "_proj") {
  Rng rng(seed);
  std::vector<Factor> all;
  for (const NodeId id : model.graph.order()) {
    const Node& node = model.graph.node(id);
    if (!std::holds_alternative<op::Linear>(node.op) || !node.name.ends_with(ending)) continue;
    const int64_t in = model.graph.value(node.inputs[0]).cols, out = model.graph.value(node.outputs[0]).cols;
    for (const auto& [letter, shape] :
         {std::pair{"A", Shape{adapter_rank, in}}, {"B", Shape{out, adapter_rank}}}) {
      Factor f{"base_model.model." + node.name + ".lora_" + letter + ".weight", shape, {}};
      for (int64_t i = 0; i < elements(shape); ++i) f.values.push_back(rng.normal() * 0.05f);
      all.push_back(f);
    }
  }
  return all;
}

inline Json adapter_config() {
  return {{"peft_type", "LORA"},
          {"r", adapter_rank},
          {"lora_alpha", adapter_alpha},
          {"bias", "none"},
          {"target_modules", "x"}};
}

inline void write_adapter(const fs::path& directory, const std::vector<Factor>& all, const Json& config) {
  fs::create_directories(directory);
  std::ofstream(directory / "adapter_config.json") << config.dump();
  std::vector<SafetensorsWriter::Item> items;
  for (const Factor& f : all) items.push_back({f.name, DType::f32, f.shape});
  SafetensorsWriter out(directory / "adapter_model.safetensors", items);
  for (const Factor& f : all) {
    Tensor t = Tensor::zeros(DType::f32, f.shape);
    std::copy(f.values.begin(), f.values.end(), t.as_mutable<float>().begin());
    out.write(t);
  }
  out.finish();
}

}  // namespace lathe::testing_support
