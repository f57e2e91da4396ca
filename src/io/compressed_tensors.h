// config.json's quantization_config: the compressed-tensors schema, read and written, and what else names the
// numbers of a whole checkpoint.
// https://github.com/vllm-project/compressed-tensors (quantization/quant_config.py, quant_scheme.py,
// quant_args.py)
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "core/json.h"
#include "quant/packing.h"

namespace lathe {

// What one config group promises about the weights of its modules.
struct CtScheme {
  std::string name;                  // "group_0"
  const Packing* packing = nullptr;  // "ct.pack32" for pack-quantized, "ct.fp8" for float-quantized, ...
  Numerics numerics;  // but for the type of scales where the packing leaves that to the checkpoint
};

// The groups of a config, asked by module name.
class CtConfig {
 public:
  // Nothing when the config describes no quantization. Other quantization methods are read where their
  // checkpoints are the same idea: quant_method "fp8" (transformers; DeepSeek, Qwen) and "bitsandbytes" in
  // nf4. InputError naming what was found when it is any other scheme. Activations that a scheme wants as
  // floats of 8 or 4 bits stay as they are, with a warning.
  static std::optional<CtConfig> parse(const Json& config, std::string_view where);

  // The scheme for a module: an exact target wins over a regular expression, that over a class name. Several
  // when only class names match, because a checkpoint does not say which module is of which class; none when
  // nothing matches.
  std::vector<const CtScheme*> schemes_for(std::string_view module) const;

 private:
  struct Pattern;
  std::vector<CtScheme> schemes_;
  std::map<std::string, size_t, std::less<>> exact_;  // index into schemes_
  std::vector<std::pair<std::shared_ptr<const Pattern>, size_t>> patterns_;
  std::vector<size_t> classes_;
};

// "model.layers.0.mlp.up_proj" of "model.layers.0.mlp.up_proj.weight"; Error for any other name.
std::string module_of(std::string_view entry);

}  // namespace lathe
