// lathe run: reproduce a recipe's model, byte for byte.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/apply.h"
#include "cli/verbs.h"
#include "core/file.h"

namespace lathe {
namespace {

struct Options {
  std::string recipe, output;
  int threads = 0;
  bool json = false;
};

void run_verb(const Options& o) {
  const Mapping file(o.recipe);
  const Recipe recipe = parse_recipe(file.text(), o.recipe);
  const Applied applied = apply(recipe, open_model(recipe.model), o.output, o.threads);
  o.json ? print_json(to_json(applied, o.output)) : print(applied, o.output);
}

}  // namespace

void add_run(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(app, "run", "Run a recipe and check that it gives the bytes it promises",
                            "/tmp/builtin-w4/lathe/recipe.yaml -o /tmp/again");
  verb.add_option("RECIPE", o->recipe, "A recipe.yaml; its model's path is relative to the current directory")
      ->required();
  add_output(verb, o->output);
  add_threads(verb, o->threads);
  add_json(verb, o->json);
  verb.callback([o] { run_verb(*o); });
}

}  // namespace lathe
