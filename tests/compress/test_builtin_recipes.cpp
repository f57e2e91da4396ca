// The table of recipes: whole, consistent, and giving every model steps that it can take.
#include <gmock/gmock.h>

#include "compress/builtin_recipes.h"
#include "compress/method.h"
#include "core/error.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::ThrowsMessage;

const CalibrationText some_text{.path = "text", .sha256 = {}};

TEST(BuiltinRecipes, EveryRowNamesARecipeThatItCanRun) {
  const auto recipes = builtin_recipes();
  for (const RecipeRow& row : recipe_table()) {
    SCOPED_TRACE(fmt::format("{} {} {}", row.target, row.text, row.from));
    const auto found = std::ranges::find(recipes, row.recipe, &BuiltinRecipe::name);
    ASSERT_NE(found, recipes.end());
    EXPECT_TRUE(row.text || !parse_method(found->method).needs_text());
    EXPECT_TRUE(std::ranges::count(recipe_targets, row.target));
    EXPECT_THAT(std::string(row.reason), HasSubstr("KL"));
  }
  for (const BuiltinRecipe& r : recipes) {
    EXPECT_NO_THROW(parse_format(r.format, DType::bf16, "x"));
    EXPECT_NO_THROW(parse_format(r.head, DType::bf16, "x"));
    EXPECT_EQ(std::ranges::count(recipes, r.name, &BuiltinRecipe::name), 1);
  }
}

// Sizes without a gap: every target, with a text and without, has one row at any number of parameters.
TEST(BuiltinRecipes, EverySizeHasOneRow) {
  for (const std::string_view target : recipe_targets)
    for (const bool text : {false, true})
      for (const double n : {0.0, 1e6, 2.9e9, 3e9, 7e10, 1e13}) {
        const auto holds = [&](const RecipeRow& r) {
          return r.target == target && r.text == text && n >= r.from && n < r.below;
        };
        EXPECT_EQ(std::ranges::count_if(recipe_table(), holds), 1) << target << text << n;
      }
}

TEST(BuiltinRecipes, FitEveryModel) {
  for (const char* family : {"llama3", "llama3.2", "qwen2", "qwen3", "smollm2"}) {
    const Model m = load(Checkpoint::open(golden(family)));
    for (const BuiltinRecipe& r : builtin_recipes()) {
      SCOPED_TRACE(fmt::format("{} {}", family, r.name));
      const QuantizeStep step =
          parse_quantize_step(quantize_step(m, builtin_step(m, r.name, some_text)), m, "x");
      const Numerics wanted = *parse_format(r.format, scale_dtype(m.config), "x");
      for (const auto& [param, numerics] : step.assignment) {
        if (step.why.contains(param)) continue;  // the head
        EXPECT_EQ(numerics.bits, wanted.bits);
        EXPECT_LE(numerics.group, wanted.group);
        EXPECT_EQ(numerics.group == 0, wanted.group == 0);
      }
      EXPECT_EQ(step.why.size(), 1u);
    }
  }
}

TEST(BuiltinRecipes, AutoAsksForNoTextThatIsNotThere) {
  const Model m = load(Checkpoint::open(golden("llama3")));
  EXPECT_EQ(choose_recipe(m, "balanced", false).recipe, "int4-g32");
  EXPECT_EQ(choose_recipe(m, "balanced", true).recipe, "int4-g32-gptq");
  EXPECT_EQ(recipe_step(m, "auto", "size", {}).method, "rtn");
  EXPECT_EQ(recipe_step(m, "auto", "size", some_text).method, "gptq+drift");
  EXPECT_EQ(recipe_step(m, "w8a8", "size", {}).method, "rtn");
  EXPECT_THAT([&] { recipe_step(m, "int4-g32-gptq", "size", {}); },
              ThrowsMessage<InputError>(HasSubstr("a text, which recipe int4-g32-gptq looks at")));
  EXPECT_THAT([&] { recipe_step(m, "int9", "size", {}); },
              ThrowsMessage<InputError>(HasSubstr("auto or one of int8")));
  EXPECT_THAT([&] { recipe_step(m, "auto", "beauty", {}); },
              ThrowsMessage<InputError>(HasSubstr("'beauty'")));
}

}  // namespace
}  // namespace lathe
