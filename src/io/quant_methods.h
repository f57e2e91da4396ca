// One function for each quant_method of a config.json, which fills in what the method says about weights, and
// those that write one. InputError where a config wants what Lathe does not read.
#pragma once

#include "io/quant_config.h"

namespace lathe {

struct PlannedEntry;

// compressed-tensors: https://github.com/vllm-project/compressed-tensors (quantization/quant_config.py,
// quant_scheme.py, quant_args.py).
void parse_compressed_tensors(const Json& method, const std::string& where, QuantConfig&);
// "gptq" (AutoGPTQ, GPTQModel) and "awq" (AutoAWQ).
void parse_gptq(const Json& method, const std::string& where, QuantConfig&);
void parse_awq(const Json& method, const std::string& where, QuantConfig&);
// "modelopt": the quantization of hf_quant_config.json, or what config.json has of it.
void parse_modelopt(const Json& method, const std::string& where, QuantConfig&);
// transformers' own: "fp8" (DeepSeek, Qwen), "bitsandbytes" in nf4, "mxfp4" (gpt-oss).
void parse_hf_fp8(const Json& method, const std::string& where, QuantConfig&);
void parse_bitsandbytes(const Json& method, const std::string& where, QuantConfig&);
void parse_hf_mxfp4(const Json& method, const std::string& where, QuantConfig&);

Json bitsandbytes_config(const std::vector<PlannedEntry>&);
Json modelopt_config(const std::vector<PlannedEntry>&, const CacheScheme&);

// kv_cache_scheme of compressed-tensors, which ModelOpt's config.json has too. Numbers that Lathe does not
// have are floats, with a warning. And the way back: null of floats.
CacheScheme parse_cache_scheme(const Json& scheme, const std::string& where);
Json cache_scheme_json(const CacheScheme&);

// What several of them read.
const Json* find(const Json& object, const char* key);  // null where it is absent or null
// A list of names, null or absent: of modules that stay as they are, for one. Which those are the tensors
// say.
void check_names(const Json& object, const char* key, const std::string& where);
// compressed-tensors' QuantizationArgs, of weights, of activations or of a cache: no unknown keys.
void check_args(const Json& args, const std::string& where);
// Rows and columns of a block that shares a scale.
std::pair<int, int> block_size(const Json& given, const std::string& where);

}  // namespace lathe
