#include "io/compressed_tensors.h"

#define PCRE2_CODE_UNIT_WIDTH 8
#include <algorithm>
#include <pcre2.h>

#include "core/error.h"
#include "core/log.h"
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

const Json* find(const Json& object, const char* key) {
  auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

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

// Integers: only what the runtime computes, which is none, or symmetric int8 with a scale per token found at
// run time. Floats: none.
Numerics::Activations parse_activations(const Json& group, bool floats, const std::string& where) {
  const Json* given = find(group, "input_activations");
  if (!given) return Numerics::Activations::as_they_are;
  const std::string at = where + ".input_activations";
  if (!given->is_object()) throw input_error(at, "an object or null", given->type_name());
  const std::string type = get_string_or(*given, "type", at, "int"),
                    strategy = get_string_or(*given, "strategy", at, "token");
  const int64_t bits = get_int_or(*given, "num_bits", at, 1, 32, 8);
  if (floats && type == "float") {
    warn("{}: activations of {} bits are not computed; they stay as they are, which is more exact", at, bits);
    return Numerics::Activations::as_they_are;
  }
  const Json* dynamic = find(*given, "dynamic");
  if (type != "int" || bits != 8 || strategy != "token" || !get_bool_or(*given, "symmetric", at, true) ||
      !dynamic || *dynamic != true)
    throw input_error(at, "dynamic symmetric int8 per token, or null", printable(given->dump(), 80));
  return Numerics::Activations::int8_per_row;
}

// Rows and columns of a block that shares a scale.
std::pair<int, int> block_size(const Json& given, const std::string& where) {
  const bool pair = given.is_array() && given.size() == 2 &&
                    std::ranges::all_of(given, [](const Json& n) { return n.is_number_integer(); });
  const int64_t rows = pair ? given[0].get<int64_t>() : 0, cols = pair ? given[1].get<int64_t>() : 0;
  if (rows < 1 || cols < 1 || rows > 1 << 20 || cols > 1 << 20)
    throw input_error(where, "rows and columns of a block, [128, 128]", printable(given.dump(), 40));
  return {static_cast<int>(rows), static_cast<int>(cols)};
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

CtScheme parse_scheme(const Json& group, const std::string& global_format, const std::string& where) {
  CtScheme scheme;
  const Json& weights = group.at("weights");
  const std::string at = where + ".weights";
  const std::string type = get_string_or(weights, "type", at, "int");
  scheme.packing = &packing_of(get_string_or(group, "format", where, global_format), where);
  const bool floats = scheme.packing->name != "ct.pack32" && scheme.packing->name != "ct.int8";
  if (type != (floats ? "float" : "int"))
    throw input_error(at, fmt::format("type {}", floats ? "float" : "int"),
                      fmt::format("'{}'", printable(type)));
  if (floats) {
    scheme.numerics = parse_floats(weights, *scheme.packing, at);
    parse_activations(group, true, where);
    return scheme;
  }
  scheme.numerics = Numerics::integer(static_cast<int>(get_int(weights, "num_bits", at, 2, 8)),
                                      group_size(weights, at), !get_bool_or(weights, "symmetric", at, true));
  Numerics& n = scheme.numerics;
  n.activations = parse_activations(group, false, where);
  if (n.activations == Numerics::Activations::int8_per_row && n != Numerics::w8a8())
    throw input_error(where, "symmetric int8 weights per channel beside int8 activations",
                      fmt::format("{} bits, group {}{}", n.bits, n.group,
                                  n.offset == Numerics::Offset::none ? "" : ", asymmetric"));
  const Json* order = find(weights, "actorder");
  if (order && *order != "weight" && *order != "static" && *order != false)
    throw input_error(at, "actorder null or 'weight'", printable(order->dump(), 40),
                      "columns in activation order are not read");
  return scheme;
}

// quant_method "fp8" of transformers: blocks with weight_scale_inv, or one weight_scale.
CtScheme parse_hf_fp8(const Json& q, const std::string& where) {
  if (const std::string fmt = get_string_or(q, "fmt", where, "e4m3"); fmt != "e4m3")
    throw input_error(where, "fmt e4m3", fmt::format("'{}'", printable(fmt)));
  warn("{}: {} activations of 8 bits are not computed; they stay as they are, which is more exact", where,
       printable(get_string_or(q, "activation_scheme", where, "dynamic")));
  const Json* block = find(q, "weight_block_size");
  if (!block) return {"fp8", &packing("ct.fp8"), Numerics::fp8_tensor(DType::f32)};
  const auto [rows, cols] = block_size(*block, where + ".weight_block_size");
  return {"fp8", &packing("hf.fp8"), Numerics::grid(Numerics::Kind::e4m3, cols, DType::f32, rows)};
}

// quant_method "bitsandbytes": only nf4, whose group size is beside each weight.
CtScheme parse_bitsandbytes(const Json& q, const std::string& where) {
  const std::string type = get_string_or(q, "bnb_4bit_quant_type", where, "fp4");
  if (!get_bool_or(q, "load_in_4bit", where, false) || type != "nf4" ||
      get_bool_or(q, "bnb_4bit_use_double_quant", where, false))
    throw input_error(where, "load_in_4bit, bnb_4bit_quant_type nf4 and no double quantization",
                      printable(q.dump(), 200));
  return {"bitsandbytes", &packing("bnb.nf4"), Numerics::nf4()};
}

// Keys whose presence means that the weights alone do not tell the numbers.
void refuse_transforms(const Json& q, std::string_view where) {
  const Json* sparsity = find(q, "sparsity_config");
  if (sparsity && !sparsity->empty()) {
    const std::string format = get_string_or(*sparsity, "format", where, "dense");
    if (format != "dense")
      throw input_error(where, "no sparsity_config", fmt::format("format '{}'", printable(format)));
  }
  const Json* transforms = find(q, "transform_config");
  if (transforms && !transforms->empty())
    throw input_error(where, "no transform_config", "one; online transforms are not supported");
}

constexpr size_t max_patterns = 64, max_pattern_length = 1000;
constexpr uint32_t max_match_steps = 100'000;

}  // namespace

// Python's re.match through PCRE2: anchored at the start; steps are bounded because the pattern comes from a
// file.
struct CtConfig::Pattern {
  Pattern(const std::string& text, std::string_view where) {
    int error = 0;
    size_t offset = 0;
    if (text.size() <= max_pattern_length)
      code = pcre2_compile(reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), PCRE2_ANCHORED, &error,
                           &offset, nullptr);
    if (!code)
      throw input_error(where, "a regular expression after 're:'", fmt::format("'{}'", printable(text)));
    context = pcre2_match_context_create(nullptr);
    data = pcre2_match_data_create(1, nullptr);
    pcre2_set_match_limit(context, max_match_steps);
  }
  ~Pattern() {
    pcre2_match_data_free(data);
    pcre2_match_context_free(context);
    pcre2_code_free(code);
  }
  Pattern(const Pattern&) = delete;
  Pattern& operator=(const Pattern&) = delete;

  bool matches(std::string_view module) const {
    const int rc =
        pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(module.data()), module.size(), 0, 0, data, context);
    if (rc < 0 && rc != PCRE2_ERROR_NOMATCH)
      throw input_error("quantization_config: targets", "a regular expression that is quickly matched",
                        "one that is not");
    return rc >= 0;
  }

  pcre2_code* code = nullptr;
  pcre2_match_context* context = nullptr;
  pcre2_match_data* data = nullptr;
};

std::optional<CtConfig> CtConfig::parse(const Json& config, std::string_view file) {
  const char* key = find(config, "quantization_config") ? "quantization_config" : "compression_config";
  const Json* q = find(config, key);
  if (!q) return std::nullopt;
  const std::string where = fmt::format("{}: {}", file, key);
  if (!q->is_object()) throw input_error(where, "an object", q->type_name());
  const Json* groups = find(*q, "config_groups");
  const std::string method = get_string_or(*q, "quant_method", where, groups ? "compressed-tensors" : "none");
  if (method == "fp8" || method == "bitsandbytes") {
    CtConfig out;
    out.schemes_.push_back(method == "fp8" ? parse_hf_fp8(*q, where) : parse_bitsandbytes(*q, where));
    out.classes_.push_back(0);
    return out;
  }
  if (method != "compressed-tensors")
    throw input_error(where, "quant_method compressed-tensors, fp8 or bitsandbytes",
                      fmt::format("'{}'", printable(method)),
                      fmt::format("supported are {} of compressed-tensors", supported));
  if (!groups || !groups->is_object())
    throw input_error(where, "config_groups, an object", groups ? groups->type_name() : "none");
  const std::string status = get_string_or(*q, "quantization_status", where, "compressed");
  if (status != "compressed")
    throw input_error(where, "quantization_status compressed", fmt::format("'{}'", printable(status)));
  refuse_transforms(*q, where);

  const std::string format = get_string_or(*q, "format", where, "none");
  CtConfig out;
  for (const auto& [name, group] : groups->items()) {
    const std::string at = fmt::format("{}: config_groups.{}", where, printable(name));
    if (!group.is_object()) throw input_error(at, "an object", group.type_name());
    if (!find(group, "weights")) continue;  // activations only
    const size_t index = out.schemes_.size();
    out.schemes_.push_back(parse_scheme(group, format, at));
    out.schemes_.back().name = name;
    const Json* targets = find(group, "targets");
    if (!targets || !targets->is_array())
      throw input_error(at, "targets, an array of strings", targets ? targets->type_name() : "none");
    for (const Json& target : *targets) {
      if (!target.is_string()) throw input_error(at + ": targets", "strings", target.type_name());
      const std::string text = target.get<std::string>();
      if (text.starts_with("re:")) {
        if (out.patterns_.size() == max_patterns)
          throw input_error(at, fmt::format("at most {} regular expressions", max_patterns), "more");
        out.patterns_.emplace_back(std::make_shared<const Pattern>(text.substr(3), at), index);
      } else if (text.find('.') == std::string::npos) {
        out.classes_.push_back(index);  // "Linear"; and "lm_head", which is a module path too
        out.exact_.emplace(text, index);
      } else {
        out.exact_.emplace(text, index);
      }
    }
  }
  return out;
}

std::vector<const CtScheme*> CtConfig::schemes_for(std::string_view module) const {
  if (auto it = exact_.find(module); it != exact_.end()) return {&schemes_[it->second]};
  for (const auto& [pattern, index] : patterns_)
    if (pattern->matches(module)) return {&schemes_[index]};
  std::vector<const CtScheme*> out;
  for (size_t index : classes_) out.push_back(&schemes_[index]);
  return out;
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

// All keys of the schema that every version since 0.9 knows: its classes forbid others.
Json group_json(const PlannedEntry& first, std::vector<std::string> targets) {
  const Numerics& n = first.numerics;
  const bool block = n.block_rows > 1, tensor = n.block_rows == 0;
  const std::string_view strategy = tensor     ? "tensor"
                                    : block    ? "block"
                                    : n.global ? "tensor_group"
                                    : n.group  ? "group"
                                               : "channel";
  Json weights = {{"actorder", nullptr},
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
  Json activations = nullptr;
  if (n.activations == Numerics::Activations::int8_per_row)
    activations = {{"actorder", nullptr},
                   {"block_structure", nullptr},
                   {"dynamic", true},
                   {"group_size", nullptr},
                   {"num_bits", 8},
                   {"observer", nullptr},
                   {"observer_kwargs", Json::object()},
                   {"strategy", "token"},
                   {"symmetric", true},
                   {"type", "int"}};
  return {{"format", format_of(first)},
          {"input_activations", std::move(activations)},
          {"output_activations", nullptr},
          {"targets", std::move(targets)},
          {"weights", weights}};
}

}  // namespace

// The schema of transformers' BitsAndBytesConfig. It has no room for a second format.
Json bitsandbytes_config(const std::vector<PlannedEntry>& entries) {
  Json dense = Json::array();
  for (const PlannedEntry& entry : entries) {
    if (!entry.numerics.is_dense() && entry.packing->name != "bnb.nf4")
      throw input_error(entry.name, "nf4 for every quantized weight beside another one in nf4",
                        to_string(entry.numerics),
                        "bitsandbytes' format, the only one with nf4, holds no other numbers");
    if (entry.numerics.is_dense() && entry.shape.size() == 2) dense.push_back(module_of(entry.name));
  }
  return {{"quant_method", "bitsandbytes"},
          {"load_in_4bit", true},
          {"load_in_8bit", false},
          {"bnb_4bit_quant_type", "nf4"},
          {"bnb_4bit_use_double_quant", false},
          {"bnb_4bit_compute_dtype", "bfloat16"},
          {"bnb_4bit_quant_storage", "uint8"},
          {"llm_int8_skip_modules", std::move(dense)}};
}

Json quantization_config(const std::vector<PlannedEntry>& entries) {
  if (std::ranges::any_of(entries, [](const PlannedEntry& e) { return e.packing->name == "bnb.nf4"; }))
    return bitsandbytes_config(entries);
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
  if (groups.empty()) return nullptr;

  Json config_groups = Json::object();
  bool mixed = false;
  for (size_t i = 0; i < groups.size(); ++i) {
    mixed = mixed || format_of(*groups[i].first) != format_of(*groups[0].first);
    config_groups[fmt::format("group_{}", i)] = group_json(*groups[i].first, std::move(groups[i].targets));
  }
  return {{"config_groups", std::move(config_groups)},
          {"format", mixed ? "mixed-precision" : format_of(*groups[0].first)},
          {"global_compression_ratio", nullptr},
          {"ignore", Json::array()},  // every target is named, so nothing else is touched
          {"kv_cache_scheme", nullptr},
          {"quant_method", "compressed-tensors"},
          {"quantization_status", "compressed"},
          {"sparsity_config", Json::object()},
          {"transform_config", Json::object()},
          {"version", "0.18.0"}};
}

}  // namespace lathe
