// lathe rotate: fold orthogonal rotations into the weights, so that rounding finds no outliers.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/apply.h"
#include "cli/verbs.h"

namespace lathe {
namespace {

struct Options {
  std::string model, output, only = "both";
  int threads = 0;
  uint64_t seed = 0;
  bool json = false;
};

void rotate_verb(const Options& o) {
  const Recipe recipe{.model = o.model,
                      .source_hash = {},
                      .result_hash = {},
                      .seed = o.seed,
                      .steps = {{"rotate", rotate_step({o.only != "heads", o.only != "residual", o.seed})}}};
  const Applied applied = apply(recipe, open_model(o.model), o.output, o.threads);
  o.json ? print_json(to_json(applied, o.output)) : print(applied, o.output);
}

}  // namespace

void add_rotate(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb =
      add_verb(app, "rotate",
               "Turn the residual stream and the value heads of a model, folded into its weights: the "
               "function stays, up to rounding in the model's own type; outliers do not",
               "builtin -o /tmp/builtin-rotated");
  add_model(verb, o->model);
  add_output(verb, o->output);
  verb.add_option("--only", o->only, "Only the residual stream, only the value heads, or both")
      ->check(CLI::IsMember({"residual", "heads", "both"}))
      ->capture_default_str();
  add_threads(verb, o->threads);
  add_seed(verb, o->seed);
  add_json(verb, o->json);
  verb.callback([o] { rotate_verb(*o); });
}

}  // namespace lathe
