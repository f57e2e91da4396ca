// Turning a recipe into a model on disk: what `quantize` and `run` have in common.
#pragma once

#include <optional>

#include "cli/options.h"
#include "compress/compare.h"
#include "compress/forecast.h"
#include "compress/rotate.h"
#include "compress/steps.h"

namespace lathe {

// --r3 and --r4. What is folded into weights has an option of its own in each verb: `which` of "residual",
// "heads", "both" and "none".
void add_online_rotations(CLI::App& verb, Rotations&);
Rotations rotations_of(const std::string& which, const Rotations& online, uint64_t seed);

// What one matrix got.
struct ModuleRow {
  std::string module, before, after,
      why;  // why: "default", "as it is", or the policy or promotion that decided
};

struct Applied {
  Recipe recipe;  // with the hashes filled in
  std::vector<FormatRow> formats;
  std::vector<ModuleRow> modules;
  bool by_policy = false;                         // some policy or promotion decided
  std::vector<LayerReport> layers;                // of methods that look at a text
  std::optional<RoundingForecast> forecast;       // of what was rounded to nearest as it was written
  int64_t parameters_before = 0, parameters = 0;  // a rotation may untie the head: one table more
  size_t bytes_before = 0, bytes_after = 0;
  double seconds = 0;
};

// Runs the recipe's steps on `from`, writes `output` with lathe/recipe.yaml, opens what was written again and
// compares its hash. Error when a hash in the recipe differs from what was found: InputError for the
// source's.
Applied apply(Recipe, const OpenModel& from, const fs::path& output, int threads);

void print(const Applied&, const fs::path& output);
Json to_json(const Applied&, const fs::path& output);

}  // namespace lathe
