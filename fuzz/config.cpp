// Any bytes as a config.json: a graph, a quantization scheme for every module name, or InputError.
#include <algorithm>

#include "core/json.h"
#include "io/quant_config.h"
#include "models/model.h"

// Sizes are bounded by what models have (10,000 layers, 65,536 experts): too much to build for every input.
static bool is_small(const lathe::Json& config) {
  int64_t nodes = 1;
  for (const char* key : {"num_hidden_layers", "num_experts", "num_local_experts"})
    if (const lathe::Json n = config.value(key, lathe::Json()); n.is_number_integer())
      nodes *= std::clamp<int64_t>(n.get<int64_t>(), 1, 10'000);
  return nodes <= 100;
}

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  try {
    const Json config = parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    config.dump();
    if (config.is_object() && is_small(config)) try {
        define(config).param_shapes();
      } catch (const InputError&) {  // its quantization is looked at all the same
      }
    if (const auto schemes = QuantConfig::parse(config, "fuzz"))
      for (const char* module :
           {"model.layers.0.mlp.up_proj", "model.layers.11.self_attn.q_proj", "lm_head", ""})
        for (const QuantScheme* scheme : schemes->schemes_for(module))
          if (const Numerics& n = scheme->numerics;
              n.is_dense() || n.bits < 2 || n.bits > 8 || n.group < 0 || !scheme->packing)
            __builtin_trap();
  } catch (const InputError&) {
  }
  return 0;
}
