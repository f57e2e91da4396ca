#include "io/quant_config.h"

#include <algorithm>

#include "core/error.h"
#include "io/quant_methods.h"

namespace lathe {
namespace {

struct Method {
  std::string_view name;
  void (*parse)(const Json& method, const std::string& where, QuantConfig&);
};
constexpr Method methods[] = {{"compressed-tensors", parse_compressed_tensors},
                              {"gptq", parse_gptq},
                              {"awq", parse_awq},
                              {"modelopt", parse_modelopt},
                              {"fp8", parse_hf_fp8},
                              {"mxfp4", parse_hf_mxfp4},
                              {"bitsandbytes", parse_bitsandbytes}};

// Tools that describe themselves beside config.json, and the method that such a file means.
struct Companion {
  const char *file, *method;
};
constexpr Companion companions[] = {
    {"hf_quant_config.json", "modelopt"}, {"quantize_config.json", "gptq"}, {"quant_config.json", "awq"}};

constexpr size_t max_patterns = 64;

QuantConfig parse_method(const Json& q, const std::string& fallback, const std::string& where) {
  if (!q.is_object()) throw input_error(where, "an object", q.type_name());
  const std::string name = get_string_or(q, "quant_method", where, fallback);
  QuantConfig out;
  std::vector<std::string_view> known;
  for (const Method& method : methods) {
    known.push_back(method.name);
    if (method.name != name) continue;
    method.parse(q, where, out);
    return out;
  }
  throw input_error(where, fmt::format("quant_method {}", fmt::join(known, ", ")),
                    fmt::format("'{}'", printable(name)));
}

}  // namespace

const Json* find(const Json& object, const char* key) {
  auto it = object.find(key);
  return it == object.end() || it->is_null() ? nullptr : &*it;
}

void check_names(const Json& object, const char* key, const std::string& where) {
  const Json* names = find(object, key);
  if (!names ||
      (names->is_array() && std::ranges::all_of(*names, [](const Json& name) { return name.is_string(); })))
    return;
  throw input_error(fmt::format("{}: key '{}'", where, key), "an array of strings or null",
                    printable(names->dump(), 60));
}

bool QuantConfig::has_experts() const {
  return std::ranges::any_of(schemes_,
                             [](const QuantScheme& s) { return s.packing->name == "openai.mxfp4"; });
}

size_t QuantConfig::add(QuantScheme scheme) {
  schemes_.push_back(std::move(scheme));
  return schemes_.size() - 1;
}

void QuantConfig::target_module(const std::string& module, size_t scheme) { exact_.emplace(module, scheme); }
void QuantConfig::target_class(size_t scheme) { classes_.push_back(scheme); }
void QuantConfig::target_pattern(const std::string& text, size_t scheme, const std::string& where) {
  if (patterns_.size() == max_patterns)
    throw input_error(where, fmt::format("at most {} regular expressions", max_patterns), "more");
  patterns_.emplace_back(ModulePattern(text, where), scheme);
}

std::optional<QuantConfig> QuantConfig::parse(const Json& config, std::string_view file) {
  const char* key = find(config, "quantization_config") ? "quantization_config" : "compression_config";
  const Json* q = find(config, key);
  if (!q) return std::nullopt;
  const bool groups = q->is_object() && find(*q, "config_groups"),
             algorithm = q->is_object() && find(*q, "quant_algo");
  return parse_method(*q,
                      algorithm ? "modelopt"
                      : groups  ? "compressed-tensors"
                                : "none",
                      fmt::format("{}: {}", file, key));
}

std::optional<QuantConfig> QuantConfig::find_in(const fs::path& directory, const Json& config) {
  if (auto out = parse(config, (directory / "config.json").string())) return out;
  for (const Companion& companion : companions) {
    const fs::path file = directory / companion.file;
    std::error_code ignored;
    if (fs::exists(file, ignored)) return parse_method(read_json(file), companion.method, file.string());
  }
  return std::nullopt;
}

std::vector<const QuantScheme*> QuantConfig::schemes_for(std::string_view module) const {
  if (auto it = exact_.find(module); it != exact_.end()) return {&schemes_[it->second]};
  for (const auto& [pattern, index] : patterns_)
    if (pattern.matches(module)) return {&schemes_[index]};
  std::vector<const QuantScheme*> out;
  for (size_t index : classes_) out.push_back(&schemes_[index]);
  return out;
}

}  // namespace lathe
