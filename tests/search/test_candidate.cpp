#include <algorithm>
#include <gtest/gtest.h>

#include "search/candidate.h"
#include "search/mixed.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

Model open(const fs::path& path) { return load(Checkpoint::open(path)); }

TEST(Candidate, UnitsAreWhatReadsOneActivation) {
  const Model model = open(source_dir() / "models/builtin");
  const auto units = find_units(model, format_menu(DType::bf16));
  ASSERT_EQ(units.size(), 1u + 6 * 4);
  EXPECT_EQ(units[0].name, "model.embed_tokens");  // the tied head is the same parameter
  EXPECT_TRUE(units[0].table);
  EXPECT_EQ(units[1].name, "model.layers.0.self_attn.{q,k,v}_proj");
  EXPECT_EQ(units[1].params.size(), 3u);
  EXPECT_EQ(units[2].name, "model.layers.0.self_attn.o_proj");
  EXPECT_EQ(units[3].name, "model.layers.0.mlp.{gate,up}_proj");
  EXPECT_EQ(units[4].name, "model.layers.0.mlp.down_proj");
  EXPECT_FALSE(units[4].table);
}

TEST(Candidate, AnUntiedHeadIsAUnitOfItsOwn) {
  const Model model = open(golden("llama3"));
  const auto units = find_units(model, format_menu(DType::f32));
  const auto tables = std::ranges::count_if(units, [](const Unit& u) { return u.table; });
  EXPECT_EQ(tables, model.graph.param_shapes().contains("lm_head.weight") ? 2 : 1);
}

TEST(Candidate, GroupsMustDivideTheRows) {
  const Model model = open(golden("llama3"));  // hidden 64
  const auto menu = format_menu(DType::f32);
  for (const Unit& unit : find_units(model, menu))
    for (const int f : unit.formats)
      if (const int group = menu[static_cast<size_t>(f)].numerics.group; f > 0 && group > 0) {
        for (const std::string& p : unit.params)
          EXPECT_EQ(model.weights.at(p).cols() % group, 0) << unit.name;
      }
}

std::vector<std::string> names_of(const std::vector<Format>& menu) {
  std::vector<std::string> names;
  for (const Format& f : menu) names.push_back(f.name);
  return names;
}

// Every level above the reference has kernels for small floats; the reference expands them.
TEST(Candidate, SmallFloatsAreOnOfferWhereTheyRunNatively) {
  const std::vector<std::string> floats = {"fp8", "nvfp4", "mxfp4"};
  for (const IsaLevel& level : isa_levels()) {
    const std::vector<std::string> names = names_of(format_menu(DType::bf16, {.isa = level.features}));
    for (const std::string& f : floats)
      EXPECT_EQ(std::ranges::count(names, f), level.features == 0 ? 0 : 1) << level.name << " " << f;
  }
  const std::vector<std::string> all = names_of(format_menu(DType::bf16, {.isa = 0, .emulated = true}));
  for (const std::string& f : floats) EXPECT_EQ(std::ranges::count(all, f), 1) << f;
}

TEST(Candidate, MixturesHaveSmallFloatsWhereTheMethodRoundsToThem) {
  for (const auto& [method, rounds] : {std::pair{"gptq", true},
                                       {"rtn", true},
                                       {"gptq-descent+drift", true},
                                       {"importance", false},
                                       {"awq+gptq", false}}) {
    const auto names = names_of(mixed_menu(DType::bf16, parse_method(method), {.isa = 0, .emulated = true}));
    EXPECT_EQ(std::ranges::count(names, "nvfp4"), rounds ? 1 : 0) << method;
  }
}

TEST(Candidate, BytesAreThoseOfTheQuantizedModel) {
  const Model model = open(source_dir() / "models/builtin");
  const auto menu = format_menu(DType::bf16);
  const auto units = find_units(model, menu);
  for (const bool tables : {false, true})
    for (int f = 1; f < static_cast<int>(menu.size()); ++f) {
      const Choice choice = uniform(units, f, tables);
      ASSERT_FALSE(choice.empty());
      const Assignment formats = assignment(units, menu, choice);
      EXPECT_EQ(stored_bytes(model, units, choice), assigned_bytes(model, formats));
      EXPECT_EQ(formats, assign_all(model, menu[static_cast<size_t>(f)].numerics,
                                    {.head = tables, .embeddings = tables, .keep = {}}));
    }
  EXPECT_EQ(stored_bytes(model, units, Choice(units.size(), 0)), model.bytes());
}

}  // namespace
}  // namespace lathe
