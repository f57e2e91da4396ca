// Any bytes as a config.json: a quantization scheme for every module name, or InputError.
#include "core/json.h"
#include "io/quant_config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  try {
    const Json config = parse_json({reinterpret_cast<const char*>(data), size}, "fuzz");
    config.dump();
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
