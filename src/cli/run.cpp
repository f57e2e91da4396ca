// lathe run: reproduce a recipe's model, byte for byte.
#include <CLI/CLI.hpp>
#include <memory>
#include <optional>

#include "cli/apply.h"
#include "cli/verbs.h"
#include "compress/builtin_recipes.h"
#include "core/error.h"
#include "core/file.h"

namespace lathe {
namespace {

struct Options {
  std::string recipe, output, model;
  std::optional<std::string> target;
  CalibrationText text;
  int threads = 0;
  bool json = false;
};

// "auto" is no file: a recipe is made for the model, and written beside it like any other.
Recipe automatic(const Options& o, const OpenModel& from) {
  Recipe recipe{.model = o.model, .source_hash = {}, .result_hash = {}, .steps = {}};
  const QuantizeStep step = recipe_step(from.model, o.recipe, o.target.value_or("balanced"), o.text);
  recipe.steps.emplace_back("quantize", quantize_step(from.model, step));
  return recipe;
}

void run_verb(const Options& o) {
  const bool made = o.recipe == "auto";
  if (made == o.model.empty())
    throw input_error("--model", made ? "a model with recipe auto" : "none: the recipe names its model",
                      made ? "none" : o.model);
  if (!made && (!o.text.path.empty() || o.target))
    throw input_error(o.target ? "--target" : "--calibration", "none: the recipe says all of it", "one",
                      "they are for recipe auto");
  const Recipe read = made ? Recipe{.model = o.model, .source_hash = {}, .result_hash = {}, .steps = {}}
                           : parse_recipe(Mapping(o.recipe).text(), o.recipe);
  const OpenModel from = open_model(read.model);
  const Applied applied = apply(made ? automatic(o, from) : read, from, o.output, o.threads);
  o.json ? print_json(to_json(applied, o.output)) : print(applied, o.output);
}

}  // namespace

void add_run(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(app, "run", "Run a recipe and check that it gives the bytes it promises",
                            "/tmp/builtin-w4/lathe/recipe.yaml -o /tmp/again");
  verb.add_option(
          "RECIPE,--recipe", o->recipe,
          "A recipe.yaml, whose model's path is relative to the current directory; or auto: the built-in\n"
          "recipe for --model, as `quantize --recipe auto` takes it")
      ->required();
  verb.add_option("--model", o->model, "The model, with auto");
  verb.add_option("--calibration", o->text.path, "With auto: UTF-8 text that the method may look at");
  std::vector<std::string> targets(std::begin(recipe_targets), std::end(recipe_targets));
  verb.add_option("--target", o->target, "With auto: what it looks for; default: balanced")
      ->check(CLI::IsMember(targets));
  add_output(verb, o->output);
  add_threads(verb, o->threads);
  add_json(verb, o->json);
  verb.callback([o] { run_verb(*o); });
}

}  // namespace lathe
