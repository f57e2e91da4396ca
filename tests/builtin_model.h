// The built-in model, loaded once per test program.
#pragma once

#include "models/model.h"
#include "text/tokenizer.h"

namespace lathe::testing_support {

struct Builtin {
  Checkpoint checkpoint = Checkpoint::open(resolve_model("builtin"));
  Model model = load(checkpoint);
  Tokenizer tokenizer = load_tokenizer(checkpoint);
};
inline const Builtin& builtin() {
  static const Builtin loaded;
  return loaded;
}

// Its first blocks as a model: for what is to be true of every block, in less time.
inline Model first_blocks_of(const Model& whole, int blocks) {
  Model m;
  m.config = whole.config;
  m.config["num_hidden_layers"] = blocks;
  m.source = whole.source;
  m.graph = define(m.config);
  for (const auto& [name, shape] : m.graph.param_shapes()) m.weights[name] = whole.weights.at(name);
  return m;
}

}  // namespace lathe::testing_support
