// What every command loads, transforms, measures and saves: a graph and its weights.
#pragma once

#include <map>
#include <string>

#include "core/json.h"
#include "graph/graph.h"
#include "io/checkpoint.h"
#include "quant/packing.h"

namespace lathe {

class Tokenizer;

struct Model {
  Graph graph;
  std::map<std::string, Weight, std::less<>>
      weights;      // by parameter name; every parameter of the graph is bound
  Json config;      // Hugging Face config, carried through to export
  fs::path source;  // tokenizer and templates are copied from here

  size_t bytes() const;         // of all weights as stored
  int64_t max_context() const;  // config's max_position_embeddings
};

// The directory of the built-in model for "builtin", otherwise the path itself. InputError when there is
// nothing.
fs::path resolve_model(const std::string& name);

// The graph of a config alone. InputError on an unknown model_type, listing those known.
Graph define(const Json& config);

// Picks the definition by config["model_type"] and binds parameters by name. InputError on missing, extra or
// misshapen tensors and on weights that are not finite.
Model load(const Checkpoint&);

// tokenizer.json beside the weights, or the vocabulary inside the GGUF. InputError when there is none.
Tokenizer load_tokenizer(const Checkpoint&);
// Token ids that end a text: generation_config.json's (one or a list), else config.json's.
std::vector<int32_t> stop_tokens(const Checkpoint&);

}  // namespace lathe
