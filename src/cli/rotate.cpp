// lathe rotate: fold orthogonal rotations into the weights, and have the runtime execute others, so that
// rounding finds no outliers.
#include <CLI/CLI.hpp>
#include <memory>

#include "cli/apply.h"
#include "cli/verbs.h"
#include "core/error.h"

namespace lathe {
namespace {

struct Options {
  std::string model, output, only = "both";
  int threads = 0;
  uint64_t seed = 0;
  bool json = false;
  Rotations online;
};

void rotate_verb(const Options& o) {
  const Rotations rotations = rotations_of(o.only, o.online, o.seed);
  if (!rotations.any())
    throw input_error("--only none", "--r3, --r4 or both beside it", "neither: nothing would be rotated");
  const Recipe recipe{.model = o.model,
                      .source_hash = {},
                      .result_hash = {},
                      .seed = o.seed,
                      .steps = {{"rotate", rotate_step(rotations)}}};
  const Applied applied = apply(recipe, open_model(o.model), o.output, o.threads);
  o.json ? print_json(to_json(applied, o.output)) : print(applied, o.output);
}

}  // namespace

void add_rotate(CLI::App& app) {
  auto o = std::make_shared<Options>();
  CLI::App& verb = add_verb(
      app, "rotate",
      "Turn the residual stream and the value heads of a model, folded into its weights: the "
      "function stays, up to rounding in the model's own type; outliers do not. --r3 and --r4 add what "
      "the runtime executes",
      "builtin --r3 --r4 -o /tmp/builtin-rotated");
  add_model(verb, o->model);
  add_output(verb, o->output);
  verb.add_option("--only", o->only,
                  "Folded into the weights: the residual stream (R1), the value heads (R2), both, or none")
      ->check(CLI::IsMember({"residual", "heads", "both", "none"}))
      ->capture_default_str();
  add_online_rotations(verb, o->online);
  add_threads(verb, o->threads);
  add_seed(verb, o->seed);
  add_json(verb, o->json);
  verb.callback([o] { rotate_verb(*o); });
}

}  // namespace lathe
