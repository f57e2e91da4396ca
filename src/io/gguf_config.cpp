// GGUF metadata as a Hugging Face config: the one table that knows both vocabularies.
#include <algorithm>
#include <cmath>
#include <simdjson.h>

#include "core/error.h"
#include "io/gguf.h"

namespace lathe {
namespace {

struct Key {
  std::string_view hf;
  std::string_view gguf;  // after "<architecture>."
  bool required;
};
constexpr Key integer_keys[] = {
    {"hidden_size", "embedding_length", true},
    {"num_hidden_layers", "block_count", true},
    {"intermediate_size", "feed_forward_length", true},
    {"num_attention_heads", "attention.head_count", true},
    {"num_key_value_heads", "attention.head_count_kv", false},
    {"head_dim", "attention.key_length", false},
    {"max_position_embeddings", "context_length", true},
    {"sliding_window", "attention.sliding_window", false},
};
constexpr Key number_keys[] = {
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", true},
    {"rope_theta", "rope.freq_base", false},
};
constexpr Key token_keys[] = {
    {"bos_token_id", "tokenizer.ggml.bos_token_id", false},
    {"eos_token_id", "tokenizer.ggml.eos_token_id", false},
    {"pad_token_id", "tokenizer.ggml.padding_token_id", false},
};

const GgufTensor* find_tensor(const GgufFile& file, std::string_view name) {
  auto it = std::find_if(file.tensors.begin(), file.tensors.end(),
                         [&](const GgufTensor& t) { return t.name == name; });
  return it == file.tensors.end() ? nullptr : &*it;
}

int64_t bounded(const GgufFile& file, const std::string& key, int64_t lo, std::string_view where) {
  const int64_t n = file.integer(key);
  if (n < lo || n > INT32_MAX)
    throw input_error(fmt::format("{}: key '{}'", where, key), fmt::format("{} to {}", lo, INT32_MAX),
                      fmt::format("{}", n));
  return n;
}

double positive(const GgufFile& file, const std::string& key, std::string_view where) {
  const double x = file.number(key);
  if (!std::isfinite(x) || x <= 0)
    throw input_error(fmt::format("{}: key '{}'", where, key), "a positive number", fmt::format("{}", x));
  return x;
}

int64_t vocab_size(const GgufFile& file, std::string_view where) {
  if (const GgufTensor* embedding = find_tensor(file, "token_embd.weight");
      embedding && embedding->shape.size() == 2)
    return embedding->shape[0];
  auto tokens = file.metadata.find("tokenizer.ggml.tokens");
  if (tokens != file.metadata.end())
    if (auto* list = std::get_if<std::vector<std::string>>(&tokens->second.value))
      return static_cast<int64_t>(list->size());
  throw input_error(where, "tensor 'token_embd.weight' or key 'tokenizer.ggml.tokens'", "neither");
}

// Linear and YaRN scaling are keys; Llama 3's is the tensor rope_freqs.weight, which whoever binds weights
// applies.
void add_rope_scaling(Json& config, const GgufFile& file, const std::string& arch, std::string_view where) {
  const std::string prefix = arch + ".rope.scaling.";
  if (!file.has(prefix + "type") || file.text(prefix + "type") == "none") return;
  const std::string& type = file.text(prefix + "type");
  if (type != "linear" && type != "yarn")
    throw input_error(fmt::format("{}: key '{}type'", where, prefix), "none, linear or yarn",
                      printable(type));
  Json scaling = {{"rope_type", type}, {"factor", positive(file, prefix + "factor", where)}};
  if (file.has(prefix + "original_context_length"))
    scaling["original_max_position_embeddings"] = bounded(file, prefix + "original_context_length", 1, where);
  config["rope_scaling"] = std::move(scaling);
}

}  // namespace

Json config_from_gguf(const GgufFile& file, std::string_view where) {
  const std::string& arch = file.text("general.architecture");
  if (!simdjson::validate_utf8(arch.data(), arch.size()))
    throw input_error(fmt::format("{}: key 'general.architecture'", where), "a name in UTF-8",
                      printable(arch));
  Json config;
  config["model_type"] = arch;
  for (const Key& key : integer_keys) {
    const std::string name = fmt::format("{}.{}", arch, key.gguf);
    if (key.required || file.has(name)) config[std::string(key.hf)] = bounded(file, name, 1, where);
  }
  for (const Key& key : number_keys) {
    const std::string name = fmt::format("{}.{}", arch, key.gguf);
    if (key.required || file.has(name)) config[std::string(key.hf)] = positive(file, name, where);
  }
  for (const Key& key : token_keys)
    if (const std::string name(key.gguf); file.has(name))
      config[std::string(key.hf)] = bounded(file, name, 0, where);

  const int64_t heads = config["num_attention_heads"].get<int64_t>(),
                hidden = config["hidden_size"].get<int64_t>();
  if (!config.contains("num_key_value_heads")) config["num_key_value_heads"] = heads;
  if (!config.contains("head_dim")) {
    if (hidden % heads != 0)
      throw input_error(fmt::format("{}: key '{}.embedding_length'", where, arch),
                        fmt::format("a multiple of {} heads", heads), fmt::format("{}", hidden));
    config["head_dim"] = hidden / heads;
  }
  if (const std::string rotary = arch + ".rope.dimension_count"; file.has(rotary)) {
    const int64_t n = bounded(file, rotary, 1, where), head_dim = config["head_dim"].get<int64_t>();
    if (n != head_dim)
      config["partial_rotary_factor"] = static_cast<double>(n) / static_cast<double>(head_dim);
  }
  if (!config.contains("rope_theta")) config["rope_theta"] = 10000.0;
  add_rope_scaling(config, file, arch, where);
  config["hidden_act"] = "silu";
  config["attention_bias"] = find_tensor(file, "blk.0.attn_q.bias") != nullptr;
  config["mlp_bias"] = find_tensor(file, "blk.0.ffn_up.bias") != nullptr;
  config["vocab_size"] = vocab_size(file, where);
  config["tie_word_embeddings"] = find_tensor(file, "output.weight") == nullptr;
  return config;
}

}  // namespace lathe
