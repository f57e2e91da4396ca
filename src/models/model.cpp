#include "models/model.h"

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <exception>
#include <set>

#include "core/cpu.h"
#include "core/error.h"
#include "core/float.h"
#include "core/thread_pool.h"
#include "models/definitions.h"
#include "models/hadamard.h"
#include "models/kv_cache.h"
#include "models/low_rank.h"
#include "models/names.h"

namespace lathe {
namespace {

constexpr Architecture known[] = {
    {"llama", llama},     {"mistral", llama},   {"qwen2", llama}, {"qwen3", llama},   {"mixtral", llama},
    {"qwen2_moe", llama}, {"qwen3_moe", llama}, {"olmoe", llama}, {"gpt_oss", llama},
};

// Tensors that checkpoints carry and no definition reads: precomputed rope tables and causal masks.
bool is_buffer(std::string_view name) {
  return name.ends_with("rotary_emb.inv_freq") || name.ends_with("self_attn.masked_bias") ||
         name == "rope_freqs.weight";
}

// Exponent all ones means infinity or NaN in every IEEE-like format. Returns the element's index, -1 when all
// are finite. The strips' loop has no exit and stays in T, so it vectorizes (about 10 GB/s: a start-up cost).
template <class T>
int64_t find_all_ones(std::span<const T> codes, T exponent) {
  constexpr size_t strip = 4096;
  for (size_t begin = 0; begin < codes.size(); begin += strip) {
    const size_t end = std::min(codes.size(), begin + strip);
    T found = 0;
    for (size_t i = begin; i < end; ++i)
      found |= static_cast<T>(codes[i] & exponent) == exponent ? static_cast<T>(~T{0}) : T{0};
    for (size_t i = begin; found && i < end; ++i)
      if (static_cast<T>(codes[i] & exponent) == exponent) return static_cast<int64_t>(i);
  }
  return -1;
}

int64_t find_nonfinite(const Tensor& t) {
  switch (t.dtype) {
    case DType::f32:
      return find_all_ones<uint32_t>(t.as<uint32_t>(), 0x7f800000u);
    case DType::bf16:
      return find_all_ones<uint16_t>(t.as<uint16_t>(), 0x7f80u);
    case DType::f16:
      return find_all_ones<uint16_t>(t.as<uint16_t>(), 0x7c00u);
    case DType::f8e4m3:
      return find_all_ones<uint8_t>(t.as<uint8_t>(), 0x7fu);
    case DType::f8e5m2:
      return find_all_ones<uint8_t>(t.as<uint8_t>(), 0x7cu);
    case DType::f8e8m0:
      return find_all_ones<uint8_t>(t.as<uint8_t>(), 0xffu);
    default:
      return -1;
  }
}

void require_finite(const Weight& weight, const Entry& entry) {
  if (weight.packing->nonfinite)
    if (const int64_t at = weight.packing->nonfinite(weight); at >= 0)
      throw input_error(fmt::format("{}: tensor '{}'", entry.file, entry.name), "finite scales",
                        fmt::format("NaN or infinity in block {}", at),
                        "the checkpoint is damaged; export it again");
  for (const Tensor& part : weight.parts)
    if (const int64_t at = find_nonfinite(part); at >= 0)
      throw input_error(fmt::format("{}: tensor '{}'", entry.file, entry.name), "finite numbers",
                        fmt::format("NaN or infinity at element {}", at),
                        "the checkpoint is damaged; export it again");
}

struct Loaded {
  Weight weight;
  const Entry* entry;
};

// On all cores, as it reads every byte. Of several damaged tensors the first is named.
void require_finite(const std::vector<Loaded>& loaded) {
  ThreadPool pool(physical_cores());
  std::vector<std::exception_ptr> failures(loaded.size());
  for_each_item(pool, std::ssize(loaded), [&](int64_t item) {
    const auto i = static_cast<size_t>(item);
    try {
      require_finite(loaded[i].weight, *loaded[i].entry);
    } catch (...) {
      failures[i] = std::current_exception();
    }
  });
  for (const std::exception_ptr& failure : failures)
    if (failure) std::rethrow_exception(failure);
}

// Llama 3.1 in GGUF: its frequency scaling is a tensor of divisors instead of config keys.
Json with_rope_factors(const Checkpoint& checkpoint) {
  Json config = checkpoint.config();
  if (checkpoint.is_gguf() && checkpoint.find("rope_freqs.weight"))
    config["rope_scaling"] = {{"rope_type", "divisors"},
                              {"divisors", read_all(checkpoint.load("rope_freqs.weight"))}};
  return config;
}

}  // namespace

std::span<const Architecture> architectures() { return known; }

size_t Model::bytes() const {
  size_t sum = 0;
  for (const auto& [name, weight] : weights) sum += weight.bytes();
  return sum;
}

int64_t Model::max_context() const {
  return get_int_or(config, "max_position_embeddings", "config.json", 1, INT32_MAX, 2048);
}

Graph define(const Json& config) {
  const std::string type = get_string(config, "model_type", "config.json");
  for (const Architecture& a : known)
    if (a.model_type == type) return a.define(config);
  std::vector<std::string_view> names;
  for (const Architecture& a : known) names.push_back(a.model_type);
  throw input_error("config.json: model_type", fmt::format("one of {}", fmt::join(names, ", ")),
                    fmt::format("'{}'", printable(type)));
}

Model load(const Checkpoint& checkpoint) {
  Model model;
  model.config = with_rope_factors(checkpoint);
  model.source = checkpoint.path();
  model.graph = define(model.config);
  const std::map<std::string, int> transforms = add_transforms(model.graph, model.config);
  add_corrections(model.graph, checkpoint);
  add_cache(model, checkpoint);
  auto bindings = bind_names(checkpoint);

  const auto shapes = model.graph.param_shapes();
  std::set<std::string_view> used;
  std::vector<Loaded> loaded;
  std::set<std::string_view> looked_at;  // entries: some are several parameters
  for (const auto& [name, shape] : shapes) {
    if (model.weights.contains(name)) continue;  // a scale of the cache that nothing stores
    auto it = bindings.find(name);
    // Tied models whose writer kept the head and dropped the embedding: one table all the same.
    if (it == bindings.end() && name == "model.embed_tokens.weight" && !shapes.contains("lm_head.weight"))
      it = bindings.find("lm_head.weight");
    if (it == bindings.end())
      throw input_error(checkpoint.path().string(),
                        fmt::format("tensor '{}' of shape {}", name, to_string(shape)), "none",
                        "the checkpoint is incomplete or config.json describes another model");
    const Entry& entry = *checkpoint.find(it->second.stored);
    if ((it->second.shape.empty() ? entry.shape : it->second.shape) != shape)
      throw input_error(fmt::format("{}: tensor '{}'", entry.file, entry.name),
                        fmt::format("shape {} as config.json implies", to_string(shape)),
                        to_string(entry.shape));
    if (entry.numerics.is_dense() && !is_float(entry.numerics.dtype))
      throw input_error(fmt::format("{}: tensor '{}'", entry.file, entry.name),
                        "floats or a quantized format that Lathe reads",
                        fmt::format("{} elements", dtype_name(entry.numerics.dtype)));
    Weight weight = checkpoint.load(entry.name);
    if (looked_at.insert(entry.name).second) loaded.push_back({weight, &entry});
    if (is_cache_scale(model.graph, name))
      require_scales(weight, fmt::format("{}: tensor '{}'", entry.file, entry.name));
    model.weights.emplace(name, it->second.transform ? it->second.transform(weight) : std::move(weight));
    used.insert(it->first);
  }
  require_finite(loaded);
  for (const auto& [name, binding] : bindings) {
    const bool tied_head =
        name == "lm_head.weight" && !shapes.contains(name);  // a second copy of the embedding
    if (used.contains(name) || is_buffer(name) || tied_head) continue;
    const Entry& entry = *checkpoint.find(binding.stored);
    if (const auto transform = transforms.find(name); transform != transforms.end()) {
      require_sylvester(checkpoint.load(entry.name), transform->second,
                        fmt::format("{}: tensor '{}'", entry.file, entry.name));
      continue;
    }
    throw input_error(fmt::format("{}: tensor '{}'", entry.file, printable(entry.name)),
                      "only tensors that the model reads",
                      fmt::format("one of shape {} that it does not", to_string(entry.shape)),
                      "config.json describes another model, or this architecture variant is not supported");
  }
  return model;
}

fs::path resolve_model(const std::string& name) {
  if (name != "builtin") {
    if (!fs::exists(name))
      throw input_error(name, "a model directory, a .gguf file or 'builtin'", "nothing there");
    return name;
  }
  const char* override_path = std::getenv("LATHE_BUILTIN");
  for (const fs::path& candidate : {fs::path(override_path ? override_path : ""), fs::path("models/builtin"),
                                    fs::path(LATHE_BUILTIN_DIR)})
    if (!candidate.empty() && fs::exists(candidate / "config.json")) return candidate;
  throw input_error("builtin", fmt::format("the built-in model in models/builtin or {}", LATHE_BUILTIN_DIR),
                    "nothing there", "run from the source tree or set LATHE_BUILTIN");
}

std::vector<int32_t> stop_tokens(const Checkpoint& checkpoint) {
  std::vector<int32_t> out;
  auto collect = [&](const Json& config, const std::string& where) {
    if (!config.is_object() || !config.contains("eos_token_id") || config["eos_token_id"].is_null()) return;
    const Json& ids = config["eos_token_id"];
    for (const Json& id : ids.is_array() ? ids : Json::array({ids}))
      out.push_back(
          static_cast<int32_t>(get_int(Json{{"eos_token_id", id}}, "eos_token_id", where, 0, INT32_MAX)));
  };
  const fs::path generation = checkpoint.path() / "generation_config.json";
  if (!checkpoint.is_gguf() && fs::exists(generation)) collect(read_json(generation), generation.string());
  if (out.empty()) collect(checkpoint.config(), "config.json");
  return out;
}

}  // namespace lathe
