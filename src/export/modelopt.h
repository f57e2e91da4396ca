// A quantized model as ModelOpt exports one, for TensorRT-LLM, vLLM and SGLang.
#pragma once

#include <cstdint>
#include <map>
#include <string>

#include "core/file.h"
#include "models/model.h"

namespace lathe {

struct ModelOptSummary {
  size_t bytes = 0;                      // of all weights
  std::map<std::string, int64_t> forms;  // matrices by their numbers
};

// Writes config.json, hf_quant_config.json, weights and the tokenizer's files to `directory`, one weight at a
// time. Nothing is rounded: FP8 (per tensor, per channel, in blocks), NVFP4 and symmetric INT4 in groups keep
// their numbers bit for bit. With activations they are called FP8, FP8_PER_CHANNEL_PER_TOKEN, NVFP4, ...;
// weights alone in NVFP4 W4A16_NVFP4, and in FP8 per tensor FP8 without input_scale.
// InputError naming the tensor for other numbers, and where nothing is quantized.
ModelOptSummary export_modelopt(const Model&, const Checkpoint& from, const fs::path& directory);

}  // namespace lathe
