#include <algorithm>
#include <charconv>

#include "core/error.h"
#include "core/keys.h"
#include "core/log.h"
#include "io/quant_methods.h"
#include "io/writer.h"

namespace lathe {
namespace {

struct Format {
  std::string_view name, packing;
};
constexpr Format formats[] = {{"pack-quantized", "ct.pack32"},      {"int-quantized", "ct.int8"},
                              {"float-quantized", "ct.fp8"},        {"naive-quantized", "ct.fp8"},
                              {"nvfp4-pack-quantized", "ct.nvfp4"}, {"mxfp4-pack-quantized", "ct.mxfp4"},
                              {"mxfp8-quantized", "ct.mxfp8"}};
constexpr std::string_view supported =
    "pack-quantized, int-quantized, float-quantized, nvfp4-pack-quantized, mxfp4-pack-quantized or "
    "mxfp8-quantized weights";

// The schema from 0.5 to 0.20, and what transformers adds when it saves a config. Unread ones, where no value
// is the only one, say how numbers were found, are loaded, or what tensors say themselves: none depends on
// them.
constexpr KnownKey config_keys[] = {"config_groups",
                                    "quant_method",
                                    "format",
                                    "quantization_status",
                                    "version",
                                    "ignore",
                                    "kv_cache_scheme",
                                    "sparsity_config",
                                    "transform_config",  // models/hadamard.h
                                    {"moe_sparsity_config", "null"},
                                    "global_compression_ratio",
                                    "run_compressed",
                                    "dequantize",
                                    "use_optimized_inference"};
constexpr KnownKey group_keys[] = {
    "targets", "weights", "input_activations", {"output_activations", "null"}, "format"};
constexpr KnownKey args_keys[] = {"num_bits",    "type",     "symmetric",       "strategy",
                                  "group_size",  "dynamic",  "block_structure", "actorder",
                                  "scale_dtype", "zp_dtype", "observer",        "observer_kwargs"};
constexpr KnownKey sparsity_keys[] = {
    "format", "targets", "ignore", "global_sparsity", "sparsity_structure", "registry_requires_subclass"};

const Packing& packing_of(const std::string& format, std::string_view where) {
  for (const Format& f : formats)
    if (f.name == format) return packing(f.packing);
  throw input_error(where, fmt::format("format {}", supported), fmt::format("'{}'", printable(format)));
}

int group_size(const Json& weights, const std::string& where) {
  const int64_t size = get_int_or(weights, "group_size", where, -1, 1 << 20, -1);
  // Without a strategy the group size tells: none would be one scale for the tensor, -1 one for each channel.
  const std::string inferred = find(weights, "group_size") == nullptr ? "tensor"
                               : size > 0                             ? "group"
                                                                      : "channel";
  const std::string strategy = get_string_or(weights, "strategy", where, inferred);
  if (strategy == "channel") return 0;
  if (strategy != "group")
    throw input_error(where, "strategy channel or group", fmt::format("'{}'", printable(strategy)));
  if (size <= 0)
    throw input_error(fmt::format("{}: group_size", where), "a positive number", fmt::format("{}", size));
  return static_cast<int>(size);
}

// How QuantizationArgs say activations: "dynamic" is true, false, or "local" where scales of groups are found
// at run time and one that multiplies them is not.
struct ActivationArgs {
  Activations numerics;
  std::string_view type;
  int bits;
  std::string_view strategy, dynamic;
  int group;                    // 0: none
  std::string_view scale = {};  // scale_dtype, where the format of scales is not the model's own
};
constexpr ActivationArgs activation_args[] = {
    {Activations::int8_per_row, "int", 8, "token", "true", 0},
    {Activations::int8_static, "int", 8, "tensor", "false", 0},
    {Activations::fp8_per_row, "float", 8, "token", "true", 0},
    {Activations::fp8_static, "float", 8, "tensor", "false", 0},
    {Activations::fp8_groups, "float", 8, "group", "true", 128},
    {Activations::mxfp8, "float", 8, "group", "true", 32, "torch.uint8"},
    {Activations::nvfp4, "float", 4, "tensor_group", "local", 16, "torch.float8_e4m3fn"},
    {Activations::mxfp4, "float", 4, "group", "true", 32, "torch.uint8"},
};

// What the runtime computes: int8 with a scale per token found at run time or one per tensor that the file
// has, and floats as the table says. Other floats stay as they are, with a warning; other integers are none.
Activations parse_activations(const Json& group, const std::string& where) {
  const Json* given = find(group, "input_activations");
  if (!given) return Activations::as_they_are;
  const std::string at = where + ".input_activations";
  check_args(*given, at);
  const std::string type = get_string_or(*given, "type", at, "int"),
                    strategy = get_string_or(*given, "strategy", at, "token");
  const int64_t bits = get_int_or(*given, "num_bits", at, 1, 32, 8),
                size = get_int_or(*given, "group_size", at, -1, 1 << 20, 0);
  const Json* found = find(*given, "dynamic");
  const std::string dynamic = !found               ? "false"
                              : found->is_string() ? found->get<std::string>()
                                                   : found->dump();
  if (get_bool_or(*given, "symmetric", at, true))
    for (const ActivationArgs& a : activation_args)
      if (a.type == type && a.bits == bits && a.strategy == strategy && a.dynamic == dynamic &&
          (a.group == 0 || a.group == size))
        return a.numerics;
  if (type != "float")
    throw input_error(at, "symmetric int8, dynamic per token or static per tensor, floats or null",
                      printable(given->dump(), 80));
  warn(
      "{}: floats of {} bits, strategy {}, groups of {}, dynamic {}, are not computed; activations stay as "
      "they are, which is more exact",
      at, bits, printable(strategy), size, printable(dynamic));
  return Activations::as_they_are;
}

bool input_as_is(const Json& group, const Numerics& numerics) {
  return find(group, "input_activations") && !numerics.rounds_activations();
}

// Of modules whose weights stay as they are: attentions, whose queries, keys and values are to be rounded.
void parse_activations_alone(const Json& group, const std::string& where) {
  const Json* given = find(group, "input_activations");
  if (!given) return;
  const std::string at = where + ".input_activations";
  check_args(*given, at);
  if (get_string_or(*given, "type", at, "int") != "float")
    throw input_error(where, "weights beside input_activations of integers", "none");
  warn(
      "{}: floats beside weights that are not quantized are not computed; activations stay as they are, "
      "which is more exact",
      at);
}

// Weights of "type": "float". Scales are bf16 until a checkpoint says otherwise.
Numerics parse_floats(const Json& weights, const Packing& packing, const std::string& at) {
  const bool eight = packing.name == "ct.fp8" || packing.name == "ct.mxfp8";
  const int64_t bits = get_int(weights, "num_bits", at, 2, 8);
  if (bits != (eight ? 8 : 4))
    throw input_error(at, fmt::format("num_bits {} in {}", eight ? 8 : 4, packing.name),
                      fmt::format("{}", bits));
  if (!get_bool_or(weights, "symmetric", at, true)) throw input_error(at, "symmetric floats", "asymmetric");
  const std::string strategy = get_string_or(weights, "strategy", at, "tensor");
  const auto require = [&](std::string_view wanted, int64_t group) {
    const int64_t size = get_int_or(weights, "group_size", at, -1, 1 << 20, group);
    if (strategy != wanted || size != group)
      throw input_error(at, fmt::format("strategy {} and group_size {}", wanted, group),
                        fmt::format("'{}' and {}", printable(strategy), size));
  };
  if (packing.name == "ct.nvfp4") return require("tensor_group", 16), Numerics::nvfp4();
  if (packing.name == "ct.mxfp4") return require("group", 32), Numerics::mxfp4();
  if (packing.name == "ct.mxfp8") return require("group", 32), Numerics::mxfp8();
  if (strategy == "tensor") return Numerics::fp8_tensor();
  if (strategy == "block") {
    const Json* block = find(weights, "block_structure");
    if (block && *block == "128x128") return Numerics::fp8_block();  // as older versions wrote it
    if (!block) throw input_error(at, "block_structure", "none");
    const auto [rows, cols] = block_size(*block, at + ".block_structure");
    return Numerics::grid(Numerics::Kind::e4m3, cols, DType::bf16, rows);
  }
  if (strategy != "channel" && strategy != "group")
    throw input_error(at, "strategy tensor, channel, group or block",
                      fmt::format("'{}'", printable(strategy)));
  return Numerics::grid(Numerics::Kind::e4m3, group_size(weights, at), DType::bf16);
}

QuantScheme parse_scheme(const Json& group, const std::string& global_format, const std::string& where) {
  QuantScheme scheme;
  const Json& weights = group.at("weights");
  const std::string at = where + ".weights";
  check_args(weights, at);
  if (const Json* dynamic = find(weights, "dynamic"); dynamic && *dynamic != false)
    throw input_error(at, "dynamic false", printable(dynamic->dump(), 40));
  const std::string type = get_string_or(weights, "type", at, "int");
  scheme.packing = &packing_of(get_string_or(group, "format", where, global_format), where);
  const bool floats = scheme.packing->name != "ct.pack32" && scheme.packing->name != "ct.int8";
  if (type != (floats ? "float" : "int"))
    throw input_error(at, fmt::format("type {}", floats ? "float" : "int"),
                      fmt::format("'{}'", printable(type)));
  if (floats) {
    scheme.numerics = parse_floats(weights, *scheme.packing, at).over(parse_activations(group, where));
    scheme.input_as_is = input_as_is(group, scheme.numerics);
    return scheme;
  }
  scheme.numerics = Numerics::integer(static_cast<int>(get_int(weights, "num_bits", at, 2, 8)),
                                      group_size(weights, at), !get_bool_or(weights, "symmetric", at, true));
  Numerics& n = scheme.numerics;
  n.activations = parse_activations(group, where);
  scheme.input_as_is = input_as_is(group, n);
  if (scheme.packing->name == "ct.int8") n.bits = 8;  // fewer are a part of these: codes mean the same
  const Json* order = find(weights, "actorder");
  constexpr std::string_view orders[] = {"weight", "static", "group", "dynamic"};  // weight_g_idx tells which
  if (order && !order->is_boolean() &&
      !(order->is_string() && std::ranges::count(orders, order->get<std::string>())))
    throw input_error(at, "actorder null, a bool, 'weight' or 'group'", printable(order->dump(), 40));
  return scheme;
}

// Until 0.17, codes of 3, 5, 6 and 7 bits did not cross words. Files that do not say are taken for new ones.
bool before_streams(std::string_view version) {
  int numbers[2] = {0, 0};
  const char *at = version.data(), *end = at + version.size();
  for (int& n : numbers) {
    const auto [next, error] = std::from_chars(at, end, n);
    if (error != std::errc{}) return false;
    at = next == end ? end : next + 1;
  }
  return numbers[0] == 0 && numbers[1] < 18;
}

// A transform_config is for who makes the graph: models/hadamard.h.
void refuse_sparsity(const Json& q, std::string_view where) {
  const Json* sparsity = find(q, "sparsity_config");
  if (sparsity) {
    check_keys(*sparsity, sparsity_keys, fmt::format("{}.sparsity_config", where));
    const std::string format = get_string_or(*sparsity, "format", where, "dense");
    if (format != "dense")
      throw input_error(where, "no sparsity_config", fmt::format("format '{}'", printable(format)));
  }
}

}  // namespace

void check_args(const Json& args, const std::string& where) { check_keys(args, args_keys, where); }

void parse_compressed_tensors(const Json& q, const std::string& where, QuantConfig& out) {
  check_keys(q, config_keys, where);
  check_names(q, "ignore", where);
  const Json* groups = find(q, "config_groups");
  if (!groups || !groups->is_object())
    throw input_error(where, "config_groups, an object", groups ? groups->type_name() : "none");
  const std::string status = get_string_or(q, "quantization_status", where, "compressed");
  if (status != "compressed")
    throw input_error(where, "quantization_status compressed", fmt::format("'{}'", printable(status)));
  refuse_sparsity(q, where);
  if (const Json* cache = find(q, "kv_cache_scheme"))
    out.set_cache(parse_cache_scheme(*cache, where + ".kv_cache_scheme"));

  const std::string format = get_string_or(q, "format", where, "none");
  const bool whole_words = before_streams(get_string_or(q, "version", where, ""));
  for (const auto& [name, group] : groups->items()) {
    const std::string at = fmt::format("{}: config_groups.{}", where, printable(name));
    check_keys(group, group_keys, at);
    if (!find(group, "weights")) {
      parse_activations_alone(group, at);
      continue;
    }
    QuantScheme scheme = parse_scheme(group, format, at);
    scheme.name = name;
    if (whole_words && scheme.packing->name == "ct.pack32" && 32 % scheme.numerics.bits != 0)
      scheme.packing = &packing("ct.words32");
    const size_t index = out.add(std::move(scheme));
    const Json* targets = find(group, "targets");
    if (!targets || !targets->is_array())
      throw input_error(at, "targets, an array of strings", targets ? targets->type_name() : "none");
    for (const Json& target : *targets) {
      if (!target.is_string()) throw input_error(at + ": targets", "strings", target.type_name());
      const std::string text = target.get<std::string>();
      if (text.starts_with("re:")) {
        out.target_pattern(text.substr(3), index, at);
      } else {
        if (text.find('.') == std::string::npos)
          out.target_class(index);  // "Linear"; and "lm_head", which is a module path too
        out.target_module(text, index);
      }
    }
  }
}

std::string module_of(std::string_view entry) {
  constexpr std::string_view suffix = ".weight";
  if (!entry.ends_with(suffix)) fail("'{}' is not the weight of a module: it cannot be quantized", entry);
  return std::string(entry.substr(0, entry.size() - suffix.size()));
}

namespace {

// Entries that share a config group differ in nothing that the group says.
bool same_group(const PlannedEntry& a, const PlannedEntry& b) {
  Numerics same = b.numerics;
  same.dtype = a.numerics.dtype;  // tensors say which
  return a.packing == b.packing && a.numerics == same;
}

std::string_view format_of(const PlannedEntry& entry) {
  for (const Format& f : formats)
    if (entry.packing->name == f.packing) return f.name;
  fail("{}: packing {} has no name in compressed-tensors", entry.name, entry.packing->name);
}

Json activations_json(const PlannedEntry& entry) {
  const Numerics& n = entry.numerics;
  if (!n.rounds_activations()) return nullptr;
  const auto* const a = std::ranges::find(activation_args, n.activations, &ActivationArgs::numerics);
  if (a == std::end(activation_args))
    throw input_error(entry.name, "activations that compressed-tensors has", to_string(n),
                      "quantize the model to another scheme");
  Json out = {{"actorder", nullptr},
              {"block_structure", nullptr},
              {"dynamic", a->dynamic == "local" ? Json("local") : Json(a->dynamic == "true")},
              {"group_size", a->group > 0 ? Json(a->group) : Json(nullptr)},
              {"num_bits", a->bits},
              {"observer", n.has_input_scale() ? Json("minmax") : Json(nullptr)},
              {"observer_kwargs", Json::object()},
              {"strategy", a->strategy},
              {"symmetric", true},
              {"type", a->type}};
  if (!a->scale.empty()) out["scale_dtype"] = a->scale;  // only newer versions know it
  return out;
}

// All keys of the schema that every version since 0.9 knows: its classes forbid others.
Json group_json(const PlannedEntry& first, std::vector<std::string> targets) {
  const Numerics& n = first.numerics;
  const bool block = n.block_rows > 1, tensor = n.block_rows == 0;
  const std::string_view strategy = tensor     ? "tensor"
                                    : block    ? "block"
                                    : n.global ? "tensor_group"
                                    : n.group  ? "group"
                                               : "channel";
  Json weights = {{"actorder", n.act_order ? Json("group") : Json(nullptr)},
                  {"block_structure", block ? Json::array({n.block_rows, n.group}) : Json(nullptr)},
                  {"dynamic", false},
                  {"group_size", n.group == 0 || block ? Json(nullptr) : Json(n.group)},
                  {"num_bits", n.bits},
                  {"observer", "minmax"},
                  {"observer_kwargs", Json::object()},
                  {"strategy", strategy},
                  {"symmetric", n.offset == Numerics::Offset::none},
                  {"type", n.is_grid() ? "float" : "int"}};
  // Keys that only newer versions know, where the scheme needs them.
  if (n.dtype == DType::f8e8m0) weights["scale_dtype"] = "torch.uint8";
  if (n.dtype == DType::f8e4m3) weights["scale_dtype"] = "torch.float8_e4m3fn";
  return {{"format", format_of(first)},
          {"input_activations", activations_json(first)},
          {"output_activations", nullptr},
          {"targets", std::move(targets)},
          {"weights", weights}};
}

}  // namespace

Json quantization_config(const std::vector<PlannedEntry>& entries, const Json& transforms,
                         const CacheScheme& cache) {
  const auto any = [&](std::string_view prefix) {
    return std::ranges::any_of(entries,
                               [&](const PlannedEntry& e) { return e.packing->name.starts_with(prefix); });
  };
  if (!transforms.empty() && (any("bnb.") || any("modelopt.")))
    throw input_error("online Hadamard transforms", "weights in a format of compressed-tensors",
                      "others, whose config has no place for transforms", "choose another scheme");
  if (any("bnb.") && cache.rounds())
    throw input_error("scales of keys and values", "weights in a format of compressed-tensors",
                      "nf4, whose config has no place for them", "choose another scheme");
  if (any("bnb.")) return bitsandbytes_config(entries);
  if (any("modelopt.")) return modelopt_config(entries, cache);
  struct Group {
    const PlannedEntry* first;
    std::vector<std::string> targets;
  };
  std::vector<Group> groups;
  for (const PlannedEntry& entry : entries) {
    if (entry.numerics.is_dense()) continue;
    auto it = std::find_if(groups.begin(), groups.end(),
                           [&](const Group& g) { return same_group(*g.first, entry); });
    if (it == groups.end()) it = groups.insert(groups.end(), {&entry, {}});
    it->targets.push_back(module_of(entry.name));
  }
  if (groups.empty() && transforms.empty() && !cache.rounds()) return nullptr;

  Json config_groups = Json::object();
  bool mixed = false;
  for (size_t i = 0; i < groups.size(); ++i) {
    mixed = mixed || format_of(*groups[i].first) != format_of(*groups[0].first);
    config_groups[fmt::format("group_{}", i)] = group_json(*groups[i].first, std::move(groups[i].targets));
  }
  return {{"config_groups", std::move(config_groups)},
          {"format", groups.empty() ? "dense"
                     : mixed        ? "mixed-precision"
                                    : format_of(*groups[0].first)},
          {"global_compression_ratio", nullptr},
          {"ignore", Json::array()},  // every target is named, so nothing else is touched
          {"kv_cache_scheme", cache_scheme_json(cache)},
          {"quant_method", "compressed-tensors"},
          {"quantization_status", "compressed"},
          {"sparsity_config", Json::object()},
          {"transform_config", transforms},
          {"version", "0.18.0"}};
}

}  // namespace lathe
