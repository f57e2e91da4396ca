// lathe sensitivity: what each part of a model costs and saves in each format, and the best mixture within a
// size.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/options.h"
#include "cli/verbs.h"
#include "compress/recipe.h"
#include "core/file.h"
#include "core/log.h"
#include "eval/dataset.h"
#include "search/constraints.h"
#include "search/decode_time.h"
#include "search/mixed.h"

namespace lathe {
namespace {

struct Options {
  std::string model, recipe, method = "gptq";
  CalibrationText text;
  std::vector<std::string> budgets;
  int64_t search_tokens = 8192;
  int threads = 0;
  double ignore = 10;
  bool emulated = false, json = false;
};

// Per unit and format of it.
using Times = std::vector<std::vector<double>>;

void print(const std::vector<UnitCost>& units, const std::vector<Format>& menu, const Times& seconds) {
  fmt::print(
      "{:<42} {:>9}  {:<13} {:>10} {:>10}   predicted KL (us saved per token) in int8 g32, int4 g128, int3 "
      "g128, int2 g64\n",
      "unit", "weights", "substituted", "error", "KL");
  for (size_t i = 0; i < units.size(); ++i) {
    const UnitCost& u = units[i];
    const auto at = [&](const char* name) {
      for (size_t f = 0; f < u.unit.formats.size(); ++f)
        if (menu[static_cast<size_t>(u.unit.formats[f])].name == name)
          return fmt::format("{:.2e} ({:.0f})", u.cost[f], 1e6 * (seconds[i][0] - seconds[i][f]));
      return std::string("-");
    };
    const auto r = static_cast<size_t>(u.reference);
    fmt::print("{:<42} {:>9}  {:<13} {:>9.3f}% {:>10.6f}   {} {} {} {}\n", u.unit.name,
               human_count(static_cast<double>(u.unit.weights)),
               menu[static_cast<size_t>(u.unit.formats[r])].name, 100 * u.error[r], u.kl, at("int8 g32"),
               at("int4 g128"), at("int3 g128"), at("int2 g64"));
  }
}

Json to_json(const std::vector<UnitCost>& units, const std::vector<Format>& menu, const Times& seconds) {
  Json rows = Json::array();
  for (size_t i = 0; i < units.size(); ++i) {
    const UnitCost& u = units[i];
    Json formats = Json::array();
    for (size_t f = 0; f < u.unit.formats.size(); ++f)
      formats.push_back({{"format", menu[static_cast<size_t>(u.unit.formats[f])].name},
                         {"bytes", u.unit.bytes[f]},
                         {"output_error", u.error[f]},
                         {"predicted_kl", u.cost[f]},
                         {"decode_seconds", seconds[i][f]},
                         {"decode_seconds_saved", seconds[i][0] - seconds[i][f]}});
    rows.push_back(
        {{"unit", u.unit.name},
         {"weights", u.unit.weights},
         {"substituted", menu[static_cast<size_t>(u.unit.formats[static_cast<size_t>(u.reference)])].name},
         {"kl", u.kl},
         {"formats", std::move(formats)}});
  }
  return rows;
}

void sensitivity_verb(const Options& o) {
  const OpenModel opened = open_model(o.model);
  const Tokenizer tokenizer = load_tokenizer(opened.checkpoint);
  // Statistics and scores come from different parts of the text.
  const auto [calibration, scored] = split_text(o.text.path, tokenizer, 0.75);
  const auto first = [](const std::vector<int32_t>& t, int64_t n) {
    return std::span(t).first(n > 0 ? std::min(t.size(), static_cast<size_t>(n)) : t.size());
  };
  const Method method = parse_method(o.method);
  if (method.rank > 0)  // its bytes would be beside those that --max-bytes counts
    throw input_error("--method", "one without a correction: bytes of each format are compared", o.method);
  if (method.equalize != Equalize::none || method.drift || method.bias)
    warn("layers are measured with {} alone; the rest of {} is for `lathe run` of the recipe",
         method.rounding->name, o.method);
  const std::vector<Format> menu =
      mixed_menu(scale_dtype(opened.model.config), method, {.emulated = o.emulated});
  MixedOptions options{.method = method, .sweep = {.work = {}, .fingerprint = {}}};
  options.sweep.threads = o.threads;
  options.sweep.context = options.window = std::min(o.text.context, opened.model.max_context());
  const std::vector<UnitCost> units =
      measure_units(opened.model, menu, first(calibration.tokens, o.text.max_tokens),
                    first(scored.tokens, o.search_tokens), options);
  const Times seconds = decode_seconds(opened.model, find_units(opened.model, menu), menu, o.threads);

  Json json = {{"model", o.model}, {"method", o.method}, {"units", to_json(units, menu, seconds)}};
  const std::vector<std::string> ignore = ignore_list(units, o.ignore);
  json["ignore"] = ignore;
  json["mixtures"] = Json::array();
  for (const std::string& text : o.budgets) {
    const auto mixture = best_mixture(opened.model, units, parse_bytes(text, "--max-bytes"));
    if (!mixture)
      throw input_error("--max-bytes", "more than the smallest mixture takes", text,
                        "the smallest is of 2-bit units");
    Recipe recipe{.model = o.model, .source_hash = hash_of(opened.model), .result_hash = {}, .steps = {}};
    recipe.steps.emplace_back(
        "quantize", quantize_step(opened.model, {.assignment = assignment(units, menu, mixture->choice),
                                                 .method = o.method,
                                                 .text = o.text}));
    const std::string path = o.budgets.size() == 1 ? o.recipe : fmt::format("{}.{}.yaml", o.recipe, text);
    if (!o.recipe.empty()) write_file_atomically(path, to_yaml(recipe));
    json["mixtures"].push_back({{"max_bytes", text},
                                {"bytes", mixture->bytes},
                                {"predicted_kl", mixture->predicted_kl},
                                {"recipe", o.recipe.empty() ? "" : path}});
  }
  if (o.json) return print_json(json);
  print(units, menu, seconds);
  fmt::print("more than {} times as sensitive per weight as the median: {}{}\n", o.ignore,
             ignore.empty() ? "none" : "--keep ", fmt::join(ignore, " --keep "));
  for (const Json& m : json["mixtures"])
    fmt::print("within {}: {} bytes, predicted KL {:.6f} {}\n", m["max_bytes"].get<std::string>(),
               m["bytes"].get<size_t>(), m["predicted_kl"].get<double>(), m["recipe"].get<std::string>());
}

}  // namespace

void add_sensitivity(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(
      app, "sensitivity",
      "Measure what each unit of layers costs and saves in each format, and write the recipe of the best "
      "mixture within a size",
      "builtin --calibration notes.txt --max-bytes 3.5MB --recipe mixed.yaml");
  add_model(verb, o->model);
  verb.add_option("--calibration", o->text.path,
                  "UTF-8 text: three quarters for statistics, the rest for scores")
      ->required();
  verb.add_option("--calibration-tokens", o->text.max_tokens, "Tokens of statistics; 0: all")
      ->check(CLI::NonNegativeNumber);
  verb.add_option("--search-tokens", o->search_tokens, "Tokens that a substitution is scored on")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  verb.add_option("--context", o->text.context, "Tokens of a sequence")
      ->check(CLI::Range(2, 1 << 20))
      ->capture_default_str();
  verb.add_option("--method", o->method, "How layers are rounded: " + method_names())->capture_default_str();
  verb.add_option("--max-bytes", o->budgets,
                  "The size that a mixture may have, all weights counted; may be repeated");
  verb.add_option("--recipe", o->recipe,
                  "Where the mixture's recipe is written (with several sizes, a name for each)");
  verb.add_option(
          "--ignore-above", o->ignore,
          "Modules this many times as sensitive per weight as the median are listed, for quantize --keep")
      ->capture_default_str();
  verb.add_flag(
      "--emulated", o->emulated,
      "Also offer small floats that no kernel of this machine reads: they would run expanded to f32");
  add_threads(verb, o->threads);
  add_json(verb, o->json);
  verb.callback([o] { sensitivity_verb(*o); });
}

}  // namespace lathe
