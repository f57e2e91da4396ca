// How the weights of a whole checkpoint are quantized: what config.json, or a tool's file beside it, says
// about each module. One function per quant_method: io/quant_methods.h.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "core/file.h"
#include "core/json.h"
#include "io/module_pattern.h"
#include "quant/cache_numerics.h"
#include "quant/packing.h"

namespace lathe {

// What a config promises about the weights of some modules. Their tensors settle what it leaves open: the
// type of scales, whether there are zero points that matter, which order columns have.
struct QuantScheme {
  std::string name;                  // "group_0", "gptq", "NVFP4"
  const Packing* packing = nullptr;  // "ct.pack32" for pack-quantized, "ct.fp8" for float-quantized, ...
  Numerics numerics;
  bool corrected = false;    // modules may have factors of low rank, to be added to their output
  bool input_as_is = false;  // activations are to be rounded, but are not: modules may have scales of them
};

class QuantConfig {
 public:
  // Nothing when the config describes no quantization. InputError naming what was found where Lathe does not
  // read it. Activations that a scheme wants as floats that Lathe does not round to stay as they are, with a
  // warning.
  static std::optional<QuantConfig> parse(const Json& config, std::string_view where);
  // The same of config.json; else of hf_quant_config.json (ModelOpt), quantize_config.json (AutoGPTQ) or
  // quant_config.json (AutoAWQ) in the directory.
  static std::optional<QuantConfig> find_in(const fs::path& directory, const Json& config);

  // The scheme for a module: an exact target wins over a regular expression, that over a class name. Several
  // when only class names match, because a checkpoint does not say which module is of which class; none when
  // nothing matches.
  std::vector<const QuantScheme*> schemes_for(std::string_view module) const;
  // Whether some are stacked experts, which have no ".weight" in their names (gpt-oss).
  bool has_experts() const;
  const CacheScheme& cache() const { return cache_; }
  // Whether tensors of scales for the KV cache are to be expected, also of numbers that Lathe does not have.
  bool has_cache_scales() const { return cache_scales_; }

  // For the functions that parse. A scheme's index; who it is for, patterns as Python's re.match.
  size_t add(QuantScheme);
  void target_module(const std::string& module, size_t scheme);
  void target_class(size_t scheme);
  void target_pattern(const std::string& text, size_t scheme, const std::string& where);
  void set_cache(const CacheScheme& cache) { cache_ = cache, cache_scales_ = true; }

 private:
  std::vector<QuantScheme> schemes_;
  std::map<std::string, size_t, std::less<>> exact_;  // index into schemes_
  std::vector<std::pair<ModulePattern, size_t>> patterns_;
  std::vector<size_t> classes_;
  CacheScheme cache_;
  bool cache_scales_ = false;
};

}  // namespace lathe
