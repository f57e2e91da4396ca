#include "compress/steps.h"

#include <algorithm>

#include "compress/cache_scales.h"
#include "core/cpu.h"
#include "core/hash.h"
#include "core/log.h"
#include "eval/dataset.h"
#include "eval/report.h"
#include "kernels/tables.h"
#include "models/kv_cache.h"
#include "runtime/kv_type.h"

namespace lathe {
namespace {

Text read_calibration(const CalibrationText& source, const Tokenizer& tokenizer) {
  Text text = read_text(source.path, tokenizer, source.max_tokens);
  if (!source.sha256.empty() && text.sha256 != source.sha256)
    throw input_error(source.path, fmt::format("the text with hash {}", source.sha256), text.sha256,
                      "the recipe was made with another text");
  return text;
}

// Matrices and vectors that a step left as f32 go back to the type that the model is in.
void back_to_own_type(Model& model, const Model& before) {
  const DType own = scale_dtype(model.config);
  for (auto& [name, weight] : model.weights) {
    const auto old = before.weights.find(name);
    const DType was =
        old == before.weights.end() || !old->second.numerics.is_dense() ? own : old->second.numerics.dtype;
    if (is_cache_scale(model.graph, name)) continue;
    if (weight.numerics == Numerics::dense(DType::f32) && was != DType::f32) weight = to_dense(weight, was);
  }
}

// InputError where no attention reads keys and values of these numbers: nobody would run the model.
void require_kernel(const Graph& graph, CacheNumerics numerics) {
  for (const NodeId id : graph.order())
    if (const auto* attention = std::get_if<op::Attention>(&graph.node(id).op)) {
      op::Attention with = *attention;
      with.cache.numerics = numerics;
      choose_attention(with.head_dim, kv_type_of(with), allowed_features());
    }
}

}  // namespace

StepsResult run_steps(Model& model, Recipe& recipe, const Checkpoint& from,
                      const std::function<std::string()>& source_hash, const StepsOptions& options) {
  const Model before = model;
  StepsResult result;
  for (size_t i = 0; i < recipe.steps.size(); ++i) {
    auto& [name, json] = recipe.steps[i];
    const std::string where = fmt::format("recipe: {}", name);
    if (name == "kv_cache") {
      const CacheStep step = parse_cache_step(json, where);
      require_kernel(model.graph, step.numerics);
      const Text text = read_calibration(step.text, load_tokenizer(from));
      json["calibration"]["sha256"] = text.sha256;
      calibrate_cache(
          model, step.numerics, text.tokens,
          {.context = std::min<int64_t>(step.text.context, model.max_context()), .threads = options.threads});
      continue;
    }
    const bool later = std::any_of(recipe.steps.begin() + static_cast<ptrdiff_t>(i), recipe.steps.end(),
                                   [](const auto& step) { return step.first == "kv_cache"; });
    // The scales that the model came with are of the keys and values that it had.
    const auto refuse_scales = [&](std::string_view by) {
      if (!later && cache_scheme(model.graph).has_scales())
        throw input_error(where, "a model without scales of keys and values, or --kv-cache to find new ones",
                          fmt::format("scales that {} would make wrong", by));
    };
    if (name == "rotate") {
      refuse_scales("a rotation");
      rotate(model, parse_rotate_step(json, where), options.threads);
      result.transformed = true;
      continue;
    }
    QuantizeStep step = parse_quantize_step(json, model, where);
    for (const auto& [param, why] : step.why) {
      if (why.starts_with("promoted")) warn("{}: {}", module_path(param), why);
      result.why.insert_or_assign(param, why);
    }
    const Method method = parse_method(step.method);
    if (method.equalize != Equalize::none) refuse_scales("method " + step.method);
    if (method.text == "rtn" && !finds_input_scales(step.assignment)) {
      result.scales = step.scales;
      for (const auto& [param, numerics] : step.assignment) result.left.insert_or_assign(param, numerics);
      continue;
    }
    // Floats are no method's business.
    std::erase_if(step.assignment, [&](const auto& each) {
      if (!each.second.is_dense()) return false;
      Weight& weight = model.weights.at(each.first);
      weight = to_dense(weight, each.second.dtype);
      return true;
    });
    std::vector<int32_t> tokens(static_cast<size_t>(step.text.context), 0);
    if (!step.text.path.empty()) {
      const Text text = read_calibration(step.text, load_tokenizer(from));
      tokens = text.tokens;
      json["calibration"]["sha256"] = text.sha256;
    }
    CalibrationOptions calibration{
        .method = method, .scales = step.scales, .observer = &input_observer(step.observer), .sweep = {}};
    calibration.sweep.context = std::min<int64_t>(step.text.context, model.max_context());
    calibration.sweep.work = options.work;
    calibration.sweep.memory = options.activation_memory;
    calibration.sweep.threads = options.threads;
    Json meaning = Json::array();
    for (size_t j = 0; j <= i; ++j) meaning.push_back({recipe.steps[j].first, recipe.steps[j].second});
    calibration.sweep.fingerprint =
        sha256(fmt::format("{} {} {} {}", source_hash(), version(), calibration.sweep.isa, meaning.dump()));
    std::vector<LayerReport> layers = quantize_calibrated(model, step.assignment, tokens, calibration);
    std::ranges::move(layers, std::back_inserter(result.layers));
    result.transformed = result.transformed || method.equalize != Equalize::none;
  }
  back_to_own_type(model, before);
  return result;
}

void require_not_calibrated_on(const fs::path& model, const Text& evaluation, const Tokenizer& tokenizer) {
  const fs::path path = model / "lathe" / "recipe.yaml";
  if (!fs::is_regular_file(path)) return;
  const Recipe recipe = parse_recipe(Mapping(path).text(), path.string());
  for (const auto& [name, json] : recipe.steps) {
    if (!json.contains("calibration")) continue;
    const std::string where = fmt::format("{}: {}: calibration", path.string(), name);
    const Json& source = json["calibration"];
    if (get_string_or(source, "sha256", where, "") == evaluation.sha256)
      throw input_error(evaluation.path, "a text held out from calibration",
                        "the one the model was calibrated on", "evaluate on another text");
    const fs::path text = get_string(source, "text", where);
    if (!fs::is_regular_file(text)) {
      warn("{}: the calibration text {} is not here; only its hash was compared", path.string(),
           text.string());
      continue;
    }
    require_held_out(read_text(text, tokenizer, get_int_or(source, "max_tokens", where, 0, INT64_MAX, 0)),
                     evaluation);
  }
}

}  // namespace lathe
