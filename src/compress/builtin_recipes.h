// Recipes that come with Lathe, and a table of which one a model gets: by architecture, size and target.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "compress/recipe.h"

namespace lathe {

struct BuiltinRecipe {
  std::string_view name, format, method;  // format: of the linear layers, as parse_format()
  std::string_view head;                  // format of the head, or of the table that is one
};
std::span<const BuiltinRecipe> builtin_recipes();
std::vector<std::string> recipe_names();

// A row holds for models whose config's model_type matches, of `from` to less than `below` parameters.
struct RecipeRow {
  std::string_view architecture;  // a glob
  double from, below;             // parameters
  std::string_view target;        // of recipe_targets
  bool text;                      // a calibration text is there to look at
  std::string_view recipe;
  std::string_view reason;  // what was measured: docs/measurements.md
};
std::span<const RecipeRow> recipe_table();
inline constexpr std::string_view recipe_targets[] = {"quality", "balanced", "size", "speed"};

// The first row that holds. InputError when none does.
const RecipeRow& choose_recipe(const Model&, std::string_view target, bool text);
// The step that a recipe takes on this model: groups are halved until they divide every row. InputError on an
// unknown name, and when the method needs a text and there is none.
QuantizeStep builtin_step(const Model&, std::string_view recipe, const CalibrationText&);
// The same of a name or of "auto", which says what it chose, and why.
QuantizeStep recipe_step(const Model&, std::string_view name, std::string_view target,
                         const CalibrationText&);

}  // namespace lathe
