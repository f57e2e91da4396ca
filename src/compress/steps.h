// Running a recipe's steps on a model in memory: what `quantize`, `rotate` and `run` have in common.
#pragma once

#include <functional>

#include "compress/method.h"
#include "compress/recipe.h"
#include "eval/dataset.h"

namespace lathe {

struct StepsOptions {
  fs::path work;  // for what a killed run leaves to the next one; empty: nothing
  int threads = 0;
  size_t activation_memory = size_t{1} << 29;
};

struct StepsResult {
  Assignment left;           // weights that save() can round as it streams: to nearest, one at a time
  ScaleRule scales;          // that they are rounded by
  bool transformed = false;  // weights are not comparable with those before, element by element
  std::vector<LayerReport> layers;
  Reasons why;  // parameters whose format a policy decided, or a promotion
};

// Edits the model; InputError, naming the step, when it cannot be done. Texts are read again from their paths
// and must have the hash that the recipe says, if it says one; it does afterwards. `source_hash` is asked for
// by steps that leave something to another run.
StepsResult run_steps(Model&, Recipe&, const Checkpoint& from,
                      const std::function<std::string()>& source_hash, const StepsOptions&);

// Refuses (InputError) to judge a model on the text that a step of its own recipe was calibrated on; a model
// without lathe/recipe.yaml passes. Text: eval/dataset.h.
void require_not_calibrated_on(const fs::path& model, const Text&, const Tokenizer&);

}  // namespace lathe
