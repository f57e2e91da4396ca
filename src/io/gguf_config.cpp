// GGUF metadata as a Hugging Face config: the one table that knows both vocabularies.
#include <algorithm>
#include <cmath>
#include <optional>
#include <simdjson.h>

#include "core/error.h"
#include "io/gguf.h"
#include "io/gguf_writer.h"

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

// Between how many rotations in the original context YaRN blends two frequencies. llama.cpp takes the usual
// bounds whatever a file says, and rounds the dimensions that have them to whole ones (config.json's
// truncate). gpt-oss does not round, and no key says so.
struct YarnBound {
  std::string_view hf, gguf;
  double usual;
};
constexpr YarnBound yarn_bounds[] = {{"beta_fast", "yarn_beta_fast", 32}, {"beta_slow", "yarn_beta_slow", 1}};

// Architectures with experts: what llama.cpp fixes for each, no key says.
struct ExpertFamily {
  std::string_view model_type, arch;
  std::string_view experts, width;  // of config.json: their number, and their width where it is said apart
  bool shared, head;                // a shared expert; whether the head may not be the embedding
  bool normalize, says_so;          // norm_topk_prob, and whether config.json has that key
  int64_t gating;                   // expert_gating_func: softmax of all logits, or of those chosen
};
constexpr ExpertFamily expert_families[] = {
    {"mixtral", "llama", "num_local_experts", {}, false, false, true, false, 1},
    {"qwen2_moe", "qwen2moe", "num_experts", "moe_intermediate_size", true, true, false, true, 1},
    {"qwen3_moe", "qwen3moe", "num_experts", "moe_intermediate_size", false, false, true, true, 1},
    {"olmoe", "olmoe", "num_experts", {}, false, true, false, true, 1},
    {"gpt_oss", "gpt-oss", "num_local_experts", "intermediate_size", false, true, true, false, 3},
};
constexpr Key shared_width_key = {"shared_expert_intermediate_size", "expert_shared_feed_forward_length",
                                  true},
              used_key = {"num_experts_per_tok", "expert_used_count", true};

// What else files have under their architecture's name: read below, or what no number depends on. Where
// `only` says a value, llama.cpp computes something else with another, and so it is with keys that are not
// here.
struct OtherKey {
  std::string_view gguf;
  std::optional<double> only = {};  // of a truth: 0 or 1
  std::string_view arch = {};       // of this one alone
};
constexpr OtherKey other_keys[] = {
    // read
    {"rope.dimension_count"},
    {"rope.scaling.type"},
    {"rope.scaling.factor"},
    {"rope.scaling.original_context_length"},
    {"attention.value_length"},
    {"attention.sliding_window_pattern", {}, "gpt-oss"},
    {"expert_gating_func"},
    {"expert_group_count"},
    {"expert_weights_scale"},
    {"expert_weights_norm"},
    // what tensors say themselves, other architectures' norms, and what was done to get here
    {"vocab_size"},
    {"attention.layer_norm_epsilon"},
    {"rope.scaling.finetuned"},
    {"expert_group_used_count"},  // of one group
    {"pooling_type"},
    {"tensor_data_layout"},
    // llama.cpp's own where no file says more
    {"attention.causal", 1},
    {"attention.scale", 0},
    {"attention.clamp_kqv", 0},
    {"attention.max_alibi_bias", 0},
    {"attn_logit_softcapping", 0},
    {"final_logit_softcapping", 0},
    {"router_logit_softcapping", 0},
    {"logit_scale", 1},
    {"residual_scale", 1},
    {"embedding_scale", 1},
    {"use_parallel_residual", 0},
    {"rope.scale_linear", 1},
    {"rope.scaling.attn_factor", 1},
    {"rope.scaling.yarn_attn_factor", 1},
    {"rope.scaling.yarn_ext_factor", 1},
    {"rope.scaling.yarn_log_multiplier", 0},
    {"expert_shared_count", 0},
    {"leading_dense_block_count", 0},
    {"moe_every_n_layers", 1},
    {"interleave_moe_layer_step", 1},
    {"nextn_predict_layers", 0},
};

std::vector<Key> expert_keys(const ExpertFamily& family) {
  std::vector<Key> out = {{family.experts, "expert_count", true}, used_key};
  if (!family.width.empty()) out.push_back({family.width, "expert_feed_forward_length", true});
  if (family.shared) out.push_back(shared_width_key);
  return out;
}

bool is_read(std::string_view name) {
  const auto among = [&](const auto& table) { return std::ranges::count(table, name, &Key::gguf) > 0; };
  constexpr std::string_view scaling = "rope.scaling.";
  return among(integer_keys) || among(number_keys) ||
         std::ranges::any_of(expert_families,
                             [&](const auto& family) { return among(expert_keys(family)); }) ||
         (name.starts_with(scaling) &&
          std::ranges::count(yarn_bounds, name.substr(scaling.size()), &YarnBound::gguf) > 0);
}

// Every key under the architecture's name is one of those above.
void check_keys(const GgufFile& file, const std::string& arch, std::string_view where) {
  const std::string prefix = arch + ".";
  for (auto at = file.metadata.lower_bound(prefix);
       at != file.metadata.end() && at->first.starts_with(prefix); ++at) {
    const auto& [key, value] = *at;
    const std::string_view name = std::string_view(key).substr(prefix.size());
    if (is_read(name)) continue;
    const auto* const row = std::ranges::find_if(other_keys, [&](const OtherKey& other) {
      return other.gguf == name && (other.arch.empty() || other.arch == arch);
    });
    if (row == std::end(other_keys))
      throw input_error(where, "keys that Lathe knows", fmt::format("key '{}'", printable(key)),
                        "what a model computes may depend on it");
    if (!row->only) continue;
    const auto* truth = std::get_if<bool>(&value.value);
    const auto* integer = std::get_if<int64_t>(&value.value);
    const double found = truth     ? static_cast<double>(*truth)
                         : integer ? static_cast<double>(*integer)
                                   : file.number(key);
    if (found != *row->only)
      throw input_error(fmt::format("{}: key '{}'", where, printable(key)), fmt::format("{}", *row->only),
                        fmt::format("{}", found), "other models of this kind are not read");
  }
}

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

constexpr std::string_view gpt_oss = "gpt-oss";

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
  for (const YarnBound& bound : yarn_bounds)
    if (const std::string key = prefix + std::string(bound.gguf); type == "yarn" && file.has(key))
      scaling[std::string(bound.hf)] = positive(file, key, where);
  if (type == "yarn" && arch == gpt_oss) scaling["truncate"] = false;
  config["rope_scaling"] = std::move(scaling);
}

// Llama's files are Mixtral's where they count experts.
const ExpertFamily* expert_family(const GgufFile& file, const std::string& arch) {
  for (const ExpertFamily& family : expert_families)
    if (family.arch == arch &&
        (arch != "llama" || (file.has("llama.expert_count") && file.integer("llama.expert_count") > 0)))
      return &family;
  return nullptr;
}

void add_experts(Json& config, const GgufFile& file, const ExpertFamily& family, std::string_view where) {
  config["model_type"] = family.model_type;
  for (const Key& key : expert_keys(family))
    config[std::string(key.hf)] = bounded(file, fmt::format("{}.{}", family.arch, key.gguf), 1, where);
  if (family.says_so) config["norm_topk_prob"] = family.normalize;
  // What files may say besides must be what the architecture does.
  const auto require = [&](std::string_view name, const auto& usual, auto read) {
    const std::string key = fmt::format("{}.{}", family.arch, name);
    if (file.has(key) && read(key) != usual)
      throw input_error(fmt::format("{}: key '{}'", where, key), fmt::format("{}", usual),
                        fmt::format("{}", read(key)), "other models of this kind are not read");
  };
  const auto integer = [&](const std::string& key) { return file.integer(key); };
  require("expert_gating_func", family.gating, integer);
  require("expert_group_count", int64_t{1}, integer);
  require("expert_weights_scale", 1.0, [&](const std::string& key) { return file.number(key); });
  require("expert_weights_norm", family.normalize, [&](const std::string& key) { return file.truth(key); });
  if (family.arch != gpt_oss) return;
  config["sliding_window"] = bounded(file, fmt::format("{}.attention.sliding_window", gpt_oss), 1, where);
  require("attention.sliding_window_pattern", int64_t{2}, integer);  // every other layer has it
}

// transformers >= 5 keeps rope_theta among the scaling's parameters (models/rope_tables.cpp).
Json rope_parameters(const Json& config) {
  for (const char* key : {"rope_parameters", "rope_scaling"})
    if (config.contains(key) && config[key].is_object()) return config[key];
  return Json::object();
}

// InputError where llama.cpp computes other frequencies.
void add_yarn(std::vector<GgufEntry>& out, const std::string& prefix, bool is_gpt_oss, const Json& scaling) {
  const auto refuse = [](std::string_view key, std::string_view expected, std::string_view found) {
    throw input_error(fmt::format("config.json: rope scaling: {}", key),
                      fmt::format("{}, as llama.cpp has it", expected), found);
  };
  for (const char* key : {"attention_factor", "mscale", "mscale_all_dim"})
    if (scaling.contains(key) && !scaling[key].is_null())
      refuse(key, "none", printable(scaling[key].dump(), 40));
  for (const YarnBound& bound : yarn_bounds) {
    if (!scaling.contains(bound.hf) || scaling[bound.hf].is_null()) continue;
    const double found = get_number(scaling, bound.hf, "config.json");
    if (found != bound.usual) refuse(bound.hf, fmt::format("{}", bound.usual), fmt::format("{}", found));
    out.push_back({prefix + std::string(bound.gguf), static_cast<float>(found)});
  }
  if (const bool truncate = get_bool_or(scaling, "truncate", "config.json", true); truncate == is_gpt_oss)
    throw input_error("config.json: rope scaling: truncate",
                      is_gpt_oss ? "false, as gpt-oss has it" : "true, as llama.cpp has it",
                      truncate ? "true" : "false");
}

void add_rope(std::vector<GgufEntry>& out, const std::string& arch, const Json& config) {
  const Json scaling = rope_parameters(config);
  const double theta = get_number_or(scaling, "rope_theta", "config.json",
                                     get_number_or(config, "rope_theta", "config.json", 10000.0));
  out.push_back({arch + ".rope.freq_base", static_cast<float>(theta)});
  const std::string kind = get_string_or(scaling, "rope_type", "config.json",
                                         get_string_or(scaling, "type", "config.json", "default"));
  if (kind != "linear" && kind != "yarn") {
    if (arch == gpt_oss && kind != "default")
      throw input_error("config.json: rope scaling", fmt::format("linear or yarn, as GGUF's {} has it", arch),
                        printable(kind));
    return;
  }
  const std::string prefix = arch + ".rope.scaling.";
  out.push_back({prefix + "type", kind});
  out.push_back({prefix + "factor", static_cast<float>(get_number(scaling, "factor", "config.json"))});
  if (kind == "yarn") add_yarn(out, prefix, arch == gpt_oss, scaling);
  if (scaling.contains("original_max_position_embeddings"))
    out.push_back({prefix + "original_context_length",
                   static_cast<uint32_t>(
                       get_int(scaling, "original_max_position_embeddings", "config.json", 1, INT32_MAX))});
}

// InputError where llama.cpp's architecture does something else than the model.
void require_family(const ExpertFamily& family, const Json& config) {
  const auto refuse = [&](std::string_view key, std::string_view expected, std::string_view found) {
    throw input_error(fmt::format("config.json: {}", key),
                      fmt::format("{}, as GGUF's {} has it", expected, family.arch), found);
  };
  if (family.head && get_bool_or(config, "tie_word_embeddings", "config.json", false))
    refuse("tie_word_embeddings", "false", "true");
  if (family.arch == gpt_oss) {
    for (const auto& [key, usual] : {std::pair{"swiglu_limit", 7.0}, std::pair{"swiglu_alpha", 1.702}})
      if (const double found = get_number_or(config, key, "config.json", usual); found != usual)
        refuse(key, fmt::format("{}", usual), fmt::format("{}", found));
    for (size_t i = 0; const Json& type : config.value("layer_types", Json::array()))
      if (type != (i++ % 2 ? "full_attention" : "sliding_attention"))
        refuse("layer_types", "sliding and full ones by turns",
               fmt::format("{} at {}", printable(type.dump(), 40), i - 1));
  }
  if (!family.says_so) return;
  if (const bool normalize = get_bool_or(config, "norm_topk_prob", "config.json", false);
      normalize != family.normalize)
    refuse("norm_topk_prob", family.normalize ? "true" : "false", normalize ? "true" : "false");
  if (const int64_t step = get_int_or(config, "decoder_sparse_step", "config.json", 1, INT32_MAX, 1);
      step != 1)
    refuse("decoder_sparse_step", "1: experts in every layer", fmt::format("{}", step));
  if (const Json& dense = config.value("mlp_only_layers", Json::array()); !dense.empty())
    refuse("mlp_only_layers", "none: experts in every layer", printable(dense.dump(), 40));
}

}  // namespace

Json config_from_gguf(const GgufFile& file, std::string_view where) {
  const std::string& arch = file.text("general.architecture");
  if (!simdjson::validate_utf8(arch.data(), arch.size()))
    throw input_error(fmt::format("{}: key 'general.architecture'", where), "a name in UTF-8",
                      printable(arch));
  check_keys(file, arch, where);
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
  if (const ExpertFamily* family = expert_family(file, arch)) add_experts(config, file, *family, where);
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
  if (const std::string values = arch + ".attention.value_length"; file.has(values))
    if (const int64_t n = bounded(file, values, 1, where); n != config["head_dim"].get<int64_t>())
      throw input_error(fmt::format("{}: key '{}'", where, values),
                        fmt::format("{}, as keys have", config["head_dim"].get<int64_t>()),
                        fmt::format("{}", n));
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

std::vector<GgufEntry> metadata_from_config(const Json& config) {
  const std::string type = get_string(config, "model_type", "config.json");
  const auto family = std::ranges::find(expert_families, type, &ExpertFamily::model_type);
  const bool experts = family != std::end(expert_families);
  // As llama.cpp's converter has it.
  const std::string arch = type == "mistral" ? "llama" : experts ? std::string(family->arch) : type;
  if (!experts && arch != "llama" && arch != "qwen2" && arch != "qwen3")
    throw input_error("config.json: model_type",
                      "llama, mistral, qwen2, qwen3, mixtral, qwen2_moe, qwen3_moe, olmoe or gpt_oss",
                      printable(type));
  if (experts) require_family(*family, config);
  const auto count = [&](std::string_view key, int64_t fallback) {
    return get_int_or(config, key, "config.json", 1, INT32_MAX, fallback);
  };
  const int64_t heads = get_int(config, "num_attention_heads", "config.json", 1, INT32_MAX),
                hidden = get_int(config, "hidden_size", "config.json", 1, INT32_MAX);
  Json filled = config;  // what Hugging Face may leave out
  filled["num_key_value_heads"] = count("num_key_value_heads", heads);
  filled["head_dim"] = count("head_dim", std::max<int64_t>(1, hidden / heads));
  filled["max_position_embeddings"] = count("max_position_embeddings", 2048);
  filled["rms_norm_eps"] = get_number_or(config, "rms_norm_eps", "config.json", 1e-6);
  filled.erase("sliding_window");  // of these architectures llama.cpp has one in gpt-oss alone
  if (arch == gpt_oss) filled["sliding_window"] = count("sliding_window", 128);

  std::vector<GgufEntry> out = {{"general.architecture", arch}};
  std::vector<Key> keys(std::begin(integer_keys), std::end(integer_keys));
  if (experts) std::ranges::copy(expert_keys(*family), std::back_inserter(keys));
  for (const Key& key : keys)
    if (const std::string name(key.hf); key.required || filled.contains(name))
      out.push_back({fmt::format("{}.{}", arch, key.gguf),
                     static_cast<uint32_t>(get_int(filled, name, "config.json", 1, INT32_MAX))});
  const auto head_dim = static_cast<uint32_t>(filled["head_dim"].get<int64_t>());
  out.push_back({arch + ".attention.value_length", head_dim});
  out.push_back({arch + ".rope.dimension_count", head_dim});
  out.push_back({arch + ".vocab_size",
                 static_cast<uint32_t>(get_int(config, "vocab_size", "config.json", 1, INT32_MAX))});
  out.push_back({arch + ".attention.layer_norm_rms_epsilon", filled["rms_norm_eps"].get<float>()});
  add_rope(out, arch, config);
  return out;
}

}  // namespace lathe
