#include "compress/recipe.h"

#include <algorithm>
#include <optional>
#include <set>

#include "compress/method.h"
#include "core/error.h"
#include "core/keys.h"
#include "core/yaml.h"
#include "quant/activations.h"

namespace lathe {
namespace {

constexpr int64_t format_version = 1;

// --- JSON -> YAML

void emit(YAML::Emitter& out, const Json& json) {
  if (json.is_object()) {
    out << YAML::BeginMap;
    for (const auto& [key, value] : json.items()) {
      out << YAML::Key << key << YAML::Value;
      emit(out, value);
    }
    out << YAML::EndMap;
  } else if (json.is_array()) {
    out << YAML::BeginSeq;
    for (const Json& value : json) emit(out, value);
    out << YAML::EndSeq;
  } else if (json.is_string()) {
    out << YAML::DoubleQuoted << json.get<std::string>();
  } else {
    out << json.dump();
  }
}

// --- the recipe

std::string text_of(const YAML::Node& root, const char* key, std::string_view where) {
  const YAML::Node node = root[key];
  if (!node) return {};
  if (!node.IsScalar())
    throw input_error(at_line(where, node.Mark()), fmt::format("text as '{}'", key), "something else");
  return node.Scalar();
}

template <class Integer>
Integer integer_of(const YAML::Node& root, const char* key, std::string_view where) {
  const YAML::Node node = root[key];
  Integer value = 0;
  if (node && !(node.IsScalar() && YAML::convert<Integer>::decode(node, value)))
    throw input_error(at_line(where, node.Mark()), fmt::format("an integer as '{}'", key), "something else");
  return value;
}

// --- the quantize step

constexpr std::string_view keep = "keep";

// Activations beside weights of integers; those beside floats are a part of their scheme.
struct Named {
  Activations numerics;
  std::string_view name;
};
constexpr Named beside_integers[] = {{Activations::as_they_are, keep},
                                     {Activations::int8_per_row, "int8"},
                                     {Activations::int8_static, "int8-static"},
                                     {Activations::fp8_per_row, "fp8"}};

std::string_view name_beside_integers(Activations to) {
  const auto* const named = std::ranges::find(beside_integers, to, &Named::numerics);
  if (named == std::end(beside_integers)) fail("a recipe has no name for integers over {}", to_string(to));
  return named->name;
}

Json to_json(const Numerics& n) {
  if (n.is_dense()) return dtype_name(n.dtype);
  if (n.is_grid()) {
    Json json = {{"scheme", scheme_of(n)}, {"scale", dtype_name(n.dtype)}};
    if (n.kind == Numerics::Kind::nf4) json["group"] = n.group;
    return json;
  }
  return {{"bits", n.bits},
          {"group", n.group},
          {"asymmetric", n.offset == Numerics::Offset::zero_point},
          {"scale", dtype_name(n.dtype)},
          {"activations", name_beside_integers(n.activations)}};
}

DType parse_scale(const std::string& name, std::string_view where) {
  for (DType d : {DType::bf16, DType::f16, DType::f32})
    if (dtype_name(d) == name) return d;
  throw input_error(where, "scale bf16, f16 or f32", fmt::format("'{}'", printable(name)));
}

// A mapping, or the command line's text. Null stands for "stays as it is".
std::optional<Numerics> read_format(const Json& json, DType type, std::string_view where) {
  if (json.is_string()) return parse_format(json.get<std::string>(), type, where);
  if (json.is_object() && json.contains("scheme")) {
    check_keys(json, {"scheme", "group", "scale"}, where);
    const std::string scheme = get_string(json, "scheme", where),
                      scale = get_string_or(json, "scale", where, "");
    const int group = static_cast<int>(get_int_or(json, "group", where, -1, 1 << 20, -1));
    for (const DType d : {DType::bf16, DType::f16, DType::f32}) {
      const Numerics n = parse_scheme(scheme, group, false, d);
      if (scale.empty() || scale == dtype_name(n.dtype)) return n;
    }
    throw input_error(where, fmt::format("a scale that {} has", printable(scheme)),
                      fmt::format("'{}'", printable(scale)));
  }
  check_keys(json, {"bits", "group", "asymmetric", "scale", "activations"}, where);
  const std::string activations = get_string_or(json, "activations", where, "keep");
  Numerics n = Numerics::integer(static_cast<int>(get_int(json, "bits", where, 2, 8)),
                                 static_cast<int>(get_int_or(json, "group", where, 0, 1 << 20, 0)),
                                 get_bool_or(json, "asymmetric", where, false),
                                 parse_scale(get_string_or(json, "scale", where, "bf16"), where));
  const auto* const named = std::ranges::find(beside_integers, activations, &Named::name);
  if (named == std::end(beside_integers))
    throw input_error(where, "activations keep, int8, int8-static or fp8",
                      fmt::format("'{}'", printable(activations)));
  n.activations = named->numerics;
  return n;
}

// What `default` speaks for: the linear layers other than the head.
std::set<std::string> default_params(const Model& model) {
  std::set<std::string> params;
  for (const auto& [name, numerics] : assign_all(model, Numerics::integer(8, 0, false), {}))
    params.insert(name);
  return params;
}

}  // namespace

std::string to_yaml(const Recipe& recipe) {
  Json steps = Json::array();
  for (const auto& [name, arguments] : recipe.steps) steps.push_back({{name, arguments}});
  Json json = {{"lathe", format_version}, {"model", recipe.model}};
  if (!recipe.source_hash.empty()) json["source_hash"] = recipe.source_hash;
  if (!recipe.result_hash.empty()) json["result_hash"] = recipe.result_hash;
  json["seed"] = recipe.seed;
  json["steps"] = std::move(steps);
  YAML::Emitter out;
  emit(out, json);
  return fmt::format("# Reproduce with: lathe run recipe.yaml -o DIRECTORY\n{}\n", out.c_str());
}

Recipe parse_recipe(std::string_view yaml, std::string_view where) {
  const YAML::Node root = parse_yaml(yaml, where);
  if (!root.IsMap()) throw input_error(where, "a mapping with model and steps", "something else");
  check_keys(root, {"lathe", "model", "source_hash", "result_hash", "seed", "steps"}, where);
  if (const auto version = integer_of<int64_t>(root, "lathe", where); version != format_version)
    throw input_error(where, fmt::format("lathe: {}", format_version), fmt::format("lathe: {}", version),
                      "another version of Lathe wrote this recipe");

  Recipe recipe;
  recipe.model = text_of(root, "model", where);
  recipe.source_hash = text_of(root, "source_hash", where);
  recipe.result_hash = text_of(root, "result_hash", where);
  recipe.seed = integer_of<uint64_t>(root, "seed", where);
  const YAML::Node steps = root["steps"];
  if (recipe.model.empty() || !steps || !steps.IsSequence())
    throw input_error(where, "a model and a list of steps", "none");
  for (const YAML::Node& step : steps) {
    if (!step.IsMap() || step.size() != 1)
      throw input_error(at_line(where, step.Mark()), "a step such as 'quantize: {...}'", "something else");
    check_keys(step, {"quantize", "rotate", "kv_cache"}, where);
    recipe.steps.emplace_back(step.begin()->first.Scalar(), to_json(step.begin()->second, where));
  }
  return recipe;
}

static Json text_json(const CalibrationText& text) {
  return {{"text", text.path},
          {"sha256", text.sha256},
          {"max_tokens", text.max_tokens},
          {"context", text.context}};
}

Json quantize_step(const Model& model, const QuantizeStep& q) {
  const std::set<std::string> base = default_params(model);
  auto format_of = [&](const std::string& param) -> Json {
    const auto it = q.assignment.find(param);
    return it == q.assignment.end() ? Json(keep) : to_json(it->second);
  };
  std::map<std::string, int> votes;
  for (const std::string& param : base) ++votes[format_of(param).dump()];
  const auto most = std::max_element(votes.begin(), votes.end(),
                                     [](const auto& a, const auto& b) { return a.second < b.second; });
  const Json common = most == votes.end() ? Json(keep) : Json::parse(most->first);

  Json modules = Json::object();
  for (const auto& [param, weight] : model.weights) {
    const Json format = format_of(param);
    if (format != (base.contains(param) ? common : Json(keep))) modules[module_path(param)] = format;
  }
  Json step = {{"method", q.method},
               {"scale_search", q.scales.search == ScaleSearch::mse ? "mse" : "absmax"},
               {"default", common}};
  if (!modules.empty()) step["modules"] = std::move(modules);
  if (!q.policies.empty()) {
    Json policy = Json::object();
    for (const Policy& p : q.policies) {
      policy.erase(p.glob);  // the last one counts, and where it stands
      policy[p.glob] = p.format;
    }
    step["policy"] = std::move(policy);
    step["fused"] = fused_names[static_cast<size_t>(q.fused)];
  }
  if (finds_input_scales(q.assignment) || q.observer != QuantizeStep{}.observer)
    step["observer"] = q.observer;
  if (has_mx_blocks(q.assignment) || q.scales.mx != MxRule::by_search)
    step["mx_rule"] = mx_rule_names[static_cast<size_t>(q.scales.mx)];
  if (!q.text.path.empty()) step["calibration"] = text_json(q.text);
  return step;
}

static CalibrationText parse_text(const Json& step, std::string_view where) {
  if (!step.contains("calibration")) return {};
  const Json& json = step["calibration"];
  const std::string here = fmt::format("{}: calibration", where);
  check_keys(json, {"text", "sha256", "max_tokens", "context"}, here);
  return {get_string(json, "text", here), get_string_or(json, "sha256", here, ""),
          get_int_or(json, "max_tokens", here, 0, INT64_MAX, 0),
          get_int_or(json, "context", here, 2, 1 << 20, 256)};
}

static std::vector<Policy> parse_policies(const Json& step, std::string_view where) {
  std::vector<Policy> policies;
  const Json json = step.value("policy", Json::object());
  if (!json.is_object())
    throw input_error(fmt::format("{}: policy", where), "a mapping of globs to formats",
                      printable(json.dump(), 60));
  for (const auto& [glob, format] : json.items()) policies.push_back({glob, get_string(json, glob, where)});
  return policies;
}

bool finds_input_scales(const Assignment& assignment) {
  return std::ranges::any_of(assignment, [](const auto& each) { return each.second.has_input_scale(); });
}

bool has_mx_blocks(const Assignment& assignment) {
  return std::ranges::any_of(assignment, [](const auto& each) { return each.second.dtype == DType::f8e8m0; });
}

MxRule parse_mx_rule(std::string_view name, std::string_view where) {
  const auto* const found = std::ranges::find(mx_rule_names, name);
  if (found == std::end(mx_rule_names))
    throw input_error(where, fmt::format("one of {}", fmt::join(mx_rule_names, ", ")),
                      fmt::format("'{}'", printable(name)));
  return static_cast<MxRule>(found - std::begin(mx_rule_names));
}

QuantizeStep parse_quantize_step(const Json& step, const Model& model, std::string_view where) {
  check_keys(step,
             {"method", "scale_search", "mx_rule", "default", "modules", "policy", "fused", "calibration",
              "observer"},
             where);
  const std::string method = get_string(step, "method", where);
  const std::string search = get_string_or(step, "scale_search", where, "mse");
  if (search != "mse" && search != "absmax")
    throw input_error(where, "scale_search mse or absmax", fmt::format("'{}'", printable(search)));
  if (!step.contains("default")) throw input_error(where, "key 'default'", "none");

  const DType scale = scale_dtype(model.config);
  Assignment assignment;
  if (const auto common = read_format(step["default"], scale, fmt::format("{}: default", where)))
    for (const std::string& param : default_params(model)) assignment[param] = *common;
  const Json modules = step.value("modules", Json::object());
  if (!modules.is_object())
    throw input_error(fmt::format("{}: modules", where), "a mapping", printable(modules.dump(), 60));
  for (const auto& [module, format] : modules.items()) {
    const std::string param = module + ".weight",
                      here = fmt::format("{}: modules: {}", where, printable(module));
    const auto weight = model.weights.find(param);
    if (weight == model.weights.end() || weight->second.shape.size() != 2)
      throw input_error(here, "a module of the model with a weight matrix", "none of that name");
    assignment.erase(param);
    if (const auto numerics = read_format(format, scale, here)) assignment[param] = *numerics;
  }
  std::vector<Policy> policies = parse_policies(step, where);
  const Fused fused =
      parse_fused(get_string_or(step, "fused", where, "error"), fmt::format("{}: fused", where));
  Reasons why = apply_policies(model, policies, fused, fmt::format("{}: policy", where), assignment);
  for (const auto& [param, numerics] : assignment)
    require_whole_groups(param, model.weights.at(param), numerics);
  const CalibrationText text = parse_text(step, where);
  const bool finds = finds_input_scales(assignment);
  if (text.path.empty() && (finds || parse_method(method).needs_text()))
    throw input_error(
        where, fmt::format("key 'calibration' with {}", finds ? "static activations" : "method " + method),
        "none");
  return {.assignment = std::move(assignment),
          .scales = {search == "mse" ? ScaleSearch::mse : ScaleSearch::absmax,
                     parse_mx_rule(get_string_or(step, "mx_rule", where, mx_rule_names[0]),
                                   fmt::format("{}: mx_rule", where))},
          .method = method,
          .text = text,
          .policies = std::move(policies),
          .fused = fused,
          .why = std::move(why),
          .observer = std::string(input_observer(get_string_or(step, "observer", where, "minmax")).name)};
}

// --- the kv_cache step

Json cache_step(const CacheStep& step) {
  return {{"numerics", to_string(step.numerics)}, {"calibration", text_json(step.text)}};
}

CacheStep parse_cache_step(const Json& step, std::string_view where) {
  check_keys(step, {"numerics", "calibration"}, where);
  const std::string name = get_string(step, "numerics", where);
  CacheStep out{.text = parse_text(step, where)};
  if (out.text.path.empty()) throw input_error(where, "key 'calibration'", "none");
  for (const CacheNumerics n : calibrated_cache_numerics)
    if (to_string(n) == name) return out.numerics = n, out;
  throw input_error(where, "numerics fp8, int8 or nvfp4", fmt::format("'{}'", printable(name)));
}

// --- the rotate step

Json rotate_step(const Rotations& r) {
  return {{"residual", r.residual}, {"heads", r.heads}, {"r3", r.keys}, {"r4", r.products}, {"seed", r.seed}};
}

Rotations parse_rotate_step(const Json& step, std::string_view where) {
  check_keys(step, {"residual", "heads", "r3", "r4", "seed"}, where);
  return {get_bool_or(step, "residual", where, true), get_bool_or(step, "heads", where, true),
          static_cast<uint64_t>(get_int_or(step, "seed", where, 0, INT64_MAX, 0)),
          get_bool_or(step, "r3", where, false), get_bool_or(step, "r4", where, false)};
}

}  // namespace lathe
