// An adapter_config.json, a zero byte, and a safetensors file: nodes beside the layers of a small model, or
// InputError.
#include "models/adapter.h"

#include "core/error.h"
#include "directory.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace lathe;
  using namespace lathe::fuzzing;
  const auto input = halves(data, size);
  if (!input) return 0;
  put("adapter_config.json", input->first);
  put("adapter_model.safetensors", input->second);
  Model model;
  model.graph = define({{"model_type", "llama"},
                        {"hidden_size", 4},
                        {"num_hidden_layers", 1},
                        {"num_attention_heads", 2},
                        {"intermediate_size", 6},
                        {"vocab_size", 8}});
  try {
    add_adapter(model, directory(), 1);
    const auto shapes = model.graph.param_shapes();
    for (const auto& [name, weight] : model.weights)
      if (weight.shape != shapes.at(name)) __builtin_trap();
  } catch (const InputError&) {
  }
  return 0;
}
