// hf_quant_config.json of ModelOpt, and what of it stands in config.json.
// https://github.com/NVIDIA/Model-Optimizer (modelopt/torch/export/quant_utils.py, convert_hf_config.py)
#include <algorithm>

#include "core/error.h"
#include "core/keys.h"
#include "core/log.h"
#include "io/compressed_tensors.h"
#include "io/quant_methods.h"
#include "io/writer.h"

namespace lathe {
namespace {

struct Algorithm {
  std::string_view name, packing;
  Numerics numerics;  // with column scales where pre_quant_scale may be
  bool writes;        // the row that these numbers are written as
};
using enum Activations;
// Of rows with one name the first is read; bind.cpp leaves activations as they are where a file lacks their
// scale.
const Algorithm algorithms[] = {
    {"FP8", "modelopt.fp8", Numerics::fp8_tensor(DType::f32).over(fp8_static), true},
    {"FP8", "modelopt.fp8", Numerics::fp8_tensor(DType::f32), true},
    {"FP8_PER_CHANNEL_PER_TOKEN", "modelopt.fp8", Numerics::fp8(DType::f32).over(fp8_per_row), true},
    {"FP8_PB_WO", "modelopt.fp8", Numerics::fp8_block(DType::f32), true},
    {"fp8_pb_wo", "modelopt.fp8", Numerics::fp8_block(DType::f32), false},  // as some versions wrote it
    {"NVFP4", "modelopt.nvfp4", Numerics::nvfp4().over(nvfp4), true},
    {"W4A16_NVFP4", "modelopt.nvfp4", Numerics::nvfp4(), true},
    {"W4A8_NVFP4_FP8", "modelopt.nvfp4", Numerics::nvfp4().over(fp8_static), true},
    {"NVFP4_AWQ", "modelopt.nvfp4", Numerics::nvfp4().over(nvfp4).with_column_scales(), true},
    {"NVFP4_SVD", "modelopt.nvfp4", Numerics::nvfp4().over(nvfp4).with_column_scales(), false},
    {"W4A16_AWQ", "modelopt.int4", Numerics::integer(4, 128, false).with_column_scales(), true},
    // int4 numbers that are rounded to fp8, by weight_scale_2, on the way to a product of fp8.
    {"W4A8_AWQ", "modelopt.int4", Numerics::integer(4, 128, false).over(fp8_static).with_column_scales(),
     true},
    {"W8A16", "modelopt.int8", Numerics::integer(8, 0, false, DType::f32), true},
    {"W8A8_SQ_PER_CHANNEL", "modelopt.int8", Numerics::w8a8_static(DType::f32).with_column_scales(), true},
    {"W4A8_MXFP4_FP8", "modelopt.mxfp4", Numerics::mxfp4().over(fp8_static), false},
    {"MXFP8", "ct.mxfp8", Numerics::mxfp8().over(mxfp8_rceil), false},
};

// Of hf_quant_config.json, of what is inside it, and of config.json, which has that too, said again as groups
// of compressed-tensors. Which modules are excluded, which have pre_quant_scale or factors: their tensors
// say.
constexpr KnownKey file_keys[] = {"producer", "quantization", "quant_method"};
constexpr KnownKey quantization_keys[] = {"quant_algo",      "quantized_layers", "kv_cache_quant_algo",
                                          "kv_cache_scheme", "group_size",       "quant_method",
                                          "exclude_modules", "ignore",           "has_zero_point",
                                          "pre_quant_scale", "lora_rank",        "config_groups",
                                          "producer"};
constexpr KnownKey layer_keys[] = {"quant_algo", "group_size", "has_zero_point", "pre_quant_scale",
                                   "lora_rank"};

// `q` is a whole config, or an entry of quantized_layers.
QuantScheme scheme_of(const Json& q, const std::string& where) {
  const std::string name = get_string(q, "quant_algo", where);
  std::vector<std::string_view> known = {"MIXED_PRECISION"};
  for (const Algorithm& a : algorithms) {
    if (known.back() != a.name) known.push_back(a.name);
    if (a.name != name) continue;
    QuantScheme out{name, &packing(a.packing), a.numerics, name == "NVFP4_SVD"};
    const int64_t group = get_int_or(q, "group_size", where, 0, 1 << 20, a.numerics.group);
    if (a.packing == "modelopt.int4")
      out.numerics.group = static_cast<int>(group);
    else if (a.numerics.group > 0 && a.numerics.block_rows == 1 && group != a.numerics.group)
      throw input_error(where, fmt::format("group_size {} of {}", a.numerics.group, name),
                        std::to_string(group));
    if (a.packing == "modelopt.int4" && group == 0) throw input_error(where, "a positive group_size", "0");
    if (get_bool_or(q, "has_zero_point", where, false))
      throw input_error(where, "has_zero_point false", "true");
    return out;
  }
  throw input_error(where, fmt::format("quant_algo {}", fmt::join(known, ", ")),
                    fmt::format("'{}'", printable(name)));
}

const Algorithm& written_as(const PlannedEntry& entry) {
  for (const Algorithm& a : algorithms) {
    Numerics n = entry.numerics;
    if (n.is_integer()) n.dtype = a.numerics.dtype, n.column_scales = a.numerics.column_scales;
    if (a.packing == "modelopt.int4") n.group = a.numerics.group;
    if (a.writes && a.packing == entry.packing->name && n == a.numerics) return a;
  }
  throw input_error(
      fmt::format("tensor '{}'", entry.name), "weights and activations of one algorithm of ModelOpt",
      to_string(entry.numerics),
      "quantize the model to fp8-tensor, fp8-block, nvfp4, w4a16, w8a16, or with activations to "
      "w8a8-static, w8a8-fp8, w8a8-fp8-static or w4a4-nvfp4");
}

Json algorithm_json(const PlannedEntry& entry) {
  Json out = {{"quant_algo", written_as(entry).name}};
  if (entry.numerics.group > 0 && entry.numerics.block_rows == 1) out["group_size"] = entry.numerics.group;
  if (entry.packing->name == "modelopt.int4" || (entry.numerics.global && entry.numerics.column_scales)) {
    out["has_zero_point"] = false;
    out["pre_quant_scale"] = entry.numerics.column_scales;
  }
  return out;
}

// kv_cache_quant_algo.
struct CacheAlgorithm {
  std::string_view name;
  CacheNumerics numerics;
};
constexpr CacheAlgorithm cache_algorithms[] = {
    {"FP8", CacheNumerics::fp8}, {"INT8", CacheNumerics::int8}, {"NVFP4", CacheNumerics::nvfp4}};

CacheScheme parse_cache_algorithm(const std::string& name, const std::string& where) {
  for (const CacheAlgorithm& a : cache_algorithms)
    if (a.name == name) return {a.numerics};
  if (name != "NVFP4_AFFINE")
    throw input_error(where, "kv_cache_quant_algo FP8, INT8, NVFP4 or NVFP4_AFFINE",
                      fmt::format("'{}'", printable(name)));
  warn("{}: kv_cache_quant_algo {} is not computed; keys and values stay as they are, which is more exact",
       where, printable(name));
  return {};
}

}  // namespace

void parse_modelopt(const Json& given, const std::string& where, QuantConfig& out) {
  const Json* inside = find(given, "quantization");
  const Json& q = inside ? *inside : given;
  if (inside) check_keys(given, file_keys, where);
  check_keys(q, quantization_keys, inside ? where + ": quantization" : where);
  for (const char* key : {"exclude_modules", "ignore"}) check_names(q, key, where);
  const Json* cache = find(q, "kv_cache_quant_algo");
  if (cache)
    out.set_cache(parse_cache_algorithm(get_string(q, "kv_cache_quant_algo", where), where));
  else if (const Json* scheme = find(q, "kv_cache_scheme"))  // an algorithm's name where it is not FP8
    out.set_cache(scheme->is_string() ? parse_cache_algorithm(scheme->get<std::string>(), where)
                                      : parse_cache_scheme(*scheme, where + ".kv_cache_scheme"));

  if (out.has_cache_scales() && !find(q, "quant_algo")) return;  // the cache alone
  if (get_string(q, "quant_algo", where) != "MIXED_PRECISION") {
    out.target_class(out.add(scheme_of(q, where)));
  } else {
    const Json* layers = find(q, "quantized_layers");
    if (!layers || !layers->is_object())
      throw input_error(where, "quantized_layers, an object", layers ? layers->type_name() : "none");
    for (const auto& [module, layer] : layers->items()) {
      const std::string at = fmt::format("{}: quantized_layers '{}'", where, printable(module));
      check_keys(layer, layer_keys, at);
      out.target_module(module, out.add(scheme_of(layer, at)));
    }
  }
}

// One algorithm and what is excluded from it, or each layer by name. The same keys are those of config.json.
Json modelopt_config(const std::vector<PlannedEntry>& entries, const CacheScheme& cache) {
  Json layers = Json::object(), excluded = Json::array(), first;
  bool mixed = false;
  for (const PlannedEntry& entry : entries) {
    if (entry.numerics.is_dense()) {
      if (entry.shape.size() == 2 && !entry.name.ends_with("embed_tokens.weight"))
        excluded.push_back(module_of(entry.name));
      continue;
    }
    Json layer = algorithm_json(entry);
    if (first.is_null()) first = layer;
    mixed = mixed || layer != first;
    layers[module_of(entry.name)] = std::move(layer);
  }
  Json out = {{"quant_method", "modelopt"}, {"kv_cache_quant_algo", nullptr}};
  for (const CacheAlgorithm& a : cache_algorithms)
    if (a.numerics == cache.numerics) out["kv_cache_quant_algo"] = a.name;
  if (mixed) {
    out["quant_algo"] = "MIXED_PRECISION";
    out["quantized_layers"] = std::move(layers);
  } else {
    out.update(first);
    out["exclude_modules"] = std::move(excluded);
  }
  return out;
}

}  // namespace lathe
