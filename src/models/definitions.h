// The architectures that Lathe knows. A definition turns a config into a graph and knows nothing else.
#pragma once

#include <span>
#include <string_view>
#include <vector>

#include "core/json.h"
#include "graph/graph.h"

namespace lathe {

struct Architecture {
  std::string_view model_type;  // config.json's
  Graph (*define)(const Json& config);
};
std::span<const Architecture> architectures();

Graph llama(const Json& config);  // models/llama.cpp: llama, mistral, qwen, and those of them with experts

// models/rope_tables.cpp: every scaling scheme becomes a table of inverse frequencies, [head_dim / 2].
struct RopeTable {
  std::vector<float> inv_freq;
  float scale = 1;  // of cos and sin
};
RopeTable rope_table(const Json& config, int head_dim);

// A number of a config as the float that kernels see. InputError where that is not above 0 and finite.
float positive(double number, std::string_view where);

}  // namespace lathe
