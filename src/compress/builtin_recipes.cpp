#include "compress/builtin_recipes.h"

#include <algorithm>
#include <fnmatch.h>
#include <limits>

#include "compress/method.h"
#include "core/error.h"
#include "core/log.h"
#include "models/low_rank.h"

namespace lathe {
namespace {

constexpr BuiltinRecipe recipes[] = {
    {"int8", "w8a16", "rtn", "w8a16"},
    {"int8-gptq", "w8a16", "gptq", "w8a16"},
    {"w8a8", "w8a8", "rtn", "w8a16"},
    {"w8a8-smooth", "w8a8", "smooth", "w8a16"},
    {"int4-g32", "w4a16:g32:asym", "rtn", "w8a16"},
    {"int4-g32-importance", "w4a16:g32:asym", "importance", "w8a16"},
    {"int4-g32-gptq", "w4a16:g32:asym", "gptq+drift", "w8a16"},
    {"int4-g128", "w4a16:g128", "rtn", "w8a16"},
    {"int4-g128-importance", "w4a16:g128", "importance", "w8a16"},
    {"int4-g128-gptq", "w4a16:g128", "gptq+drift", "w8a16"},
};

// GPTQ's time grows with the cube of the width: 313 s measured for a 1B shape on two cores, half an hour for
// 7B extrapolated from one block of it. Beyond, it would be hours.
constexpr double large = 10e9, all = std::numeric_limits<double>::infinity();

// "Measured" below is docs/measurements.md: "Quality" (Q), "Methods and formats, one table" (M), "Serving"
// (S), "Memory and time of quantizing" (T). KL in nats per token against the model as it was: the built-in
// one, then TinyStories-656K. Architectures differ in no figure that there is: all quality is of llama's, and
// no real checkpoint above 6 M parameters was measured.
constexpr RecipeRow rows[] = {
    {"*", 0, large, "quality", true, "int8-gptq",
     "INT8 loses least of all formats, and GPTQ half of that: KL .00003 and .00021, rounding .00005 and "
     ".00035 (M); the table in INT8 adds .00007 (Q)"},
    {"*", large, all, "quality", true, "int8",
     "INT8 loses KL .00005 and .00035 (M); GPTQ would halve it, but takes half an hour for a 7B shape, "
     "extrapolated (T), and grows faster than the model"},
    {"*", 0, all, "quality", false, "int8", "INT8 loses least of all formats: KL .00005 and .00035 (M)"},
    {"*", 0, large, "balanced", true, "int4-g32-gptq",
     "of INT4 in groups of 32, gptq+drift loses least: KL .0218, .40 of plain rounding's .0548 (M)"},
    {"*", large, all, "balanced", true, "int4-g32-importance",
     "importance-weighted rounding loses KL .0474, .87 of plain rounding's, without a factorization (M); "
     "GPTQ takes half an hour for a 7B shape, extrapolated (T)"},
    {"*", 0, all, "balanced", false, "int4-g32",
     "of 4-bit formats without a text, INT4 in groups of 32 with zero points loses least: KL .0518; NVFP4 "
     ".0536, NF4 .0635, MXFP4 .1033 (M). With --calibration it would lose .0218"},
    {"*", 0, large, "size", true, "int4-g128-gptq",
     "gptq+drift at 4.1 bits loses KL .0047 and .0380, less than half of rounding's .0109 and .0916; INT3 "
     "loses .0192 and .1496, perplexity +2 and +13 % (M)"},
    {"*", large, all, "size", true, "int4-g128-importance",
     "importance-weighted rounding loses KL .0096 and .0876, .77 and .75 of plain rounding's (M); GPTQ "
     "takes half an hour for a 7B shape, extrapolated (T)"},
    {"*", 0, all, "size", false, "int4-g128",
     "INT4 in groups of 128 beside a table in INT8 is what `make demo` finds: 4.85 bits, KL .0098 (Q). "
     "With --calibration it would lose half"},
    {"*", 0, all, "speed", true, "w8a8-smooth",
     "W8A8 served 1,204 tokens/s where int4 g32 served 979 (S), at KL .0007 and .0016; smoothing is the "
     "best or near it (M)"},
    {"*", 0, all, "speed", false, "w8a8",
     "W8A8 served 1,204 tokens/s where int4 g32 served 979 (S), at KL .0008 and .0016 (M)"},
};

double parameters_of(const Model& model) {
  double n = 0;
  for (const auto& [name, weight] : model.weights)
    if (!is_correction(model.graph, name)) n += static_cast<double>(elements(weight.shape));
  return n;
}

// "w4a16:g128" where rows of 576 allow "w4a16:g64": one group for the whole model.
Numerics fitting(const Model& model, const Numerics& wanted) {
  Numerics n = wanted;
  for (const auto& [param, ignored] : assign_all(model, Numerics::integer(8, 0, false), {}))
    while (n.group > 8 && model.weights.at(param).cols() % n.group != 0) n.group /= 2;
  if (n.group != wanted.group) warn("groups of {} instead of {} divide all rows", n.group, wanted.group);
  return n;
}

}  // namespace

std::span<const BuiltinRecipe> builtin_recipes() { return recipes; }
std::span<const RecipeRow> recipe_table() { return rows; }

std::vector<std::string> recipe_names() {
  std::vector<std::string> names;
  for (const BuiltinRecipe& r : recipes) names.emplace_back(r.name);
  return names;
}

const RecipeRow& choose_recipe(const Model& model, std::string_view target, bool text) {
  const std::string type = get_string(model.config, "model_type", "config.json");
  const double n = parameters_of(model);
  const auto* const found = std::ranges::find_if(rows, [&](const RecipeRow& r) {
    return r.target == target && r.text == text && n >= r.from && n < r.below &&
           ::fnmatch(std::string(r.architecture).c_str(), type.c_str(), 0) == 0;
  });
  if (found == std::end(rows))
    throw input_error("target", fmt::format("one of {}", fmt::join(recipe_targets, ", ")),
                      fmt::format("'{}'", printable(target)));
  return *found;
}

QuantizeStep builtin_step(const Model& model, std::string_view name, const CalibrationText& text) {
  const auto* const recipe = std::ranges::find(recipes, name, &BuiltinRecipe::name);
  if (recipe == std::end(recipes))
    throw input_error("recipe", fmt::format("auto or one of {}", fmt::join(recipe_names(), ", ")),
                      fmt::format("'{}'", printable(name)));
  const bool reads = parse_method(recipe->method).needs_text();
  if (reads && text.path.empty())
    throw input_error("--calibration", fmt::format("a text, which recipe {} looks at", name), "none");
  const DType scale = scale_dtype(model.config);
  return {.assignment = assign_all(model, fitting(model, *parse_format(recipe->format, scale, "recipe")), {}),
          .method = std::string(recipe->method),
          .text = reads ? text : CalibrationText{},
          .policies = {{"lm_head", std::string(recipe->head)}}};
}

QuantizeStep recipe_step(const Model& model, std::string_view name, std::string_view target,
                         const CalibrationText& text) {
  if (name != "auto") return builtin_step(model, name, text);
  const RecipeRow& row = choose_recipe(model, target, !text.path.empty());
  info(
      "recipe {} for target {}: {} (docs/measurements.md; M: methods and formats, Q: quality, S: serving, T: "
      "time)",
      row.recipe, target, row.reason);
  return builtin_step(model, row.recipe, text);
}

}  // namespace lathe
