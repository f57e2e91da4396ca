#include <algorithm>
#include <gtest/gtest.h>

#include "core/rng.h"
#include "eval/quality.h"
#include "search/decode_time.h"
#include "search/mixed.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

constexpr int64_t context = 16;

std::vector<int32_t> random_tokens(const Model& model, int64_t n, uint64_t seed) {
  Rng rng(seed);
  const auto vocab = static_cast<double>(model.weights.at("model.embed_tokens.weight").rows());
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int32_t& t : tokens) t = static_cast<int32_t>(vocab * rng.uniform());
  return tokens;
}

struct Measured {
  Model model = load(Checkpoint::open(golden("qwen3")));
  std::vector<Format> menu = {{"as is", {}},
                              {"int8", Numerics::integer(8, 0, false, DType::f32)},
                              {"int4 g32", Numerics::integer(4, 32, false, DType::f32)},
                              {"int2 g32", Numerics::integer(2, 32, false, DType::f32)}};
  std::vector<UnitCost> units;

  Measured() {
    MixedOptions options{.method = parse_method("gptq"), .sweep = {.work = {}, .fingerprint = {}}};
    options.sweep.context = options.window = context;
    const auto calibration = random_tokens(model, 64 * context, 1),
               scored = random_tokens(model, 8 * context, 2);
    units = measure_units(model, menu, calibration, scored, options);
  }
};

const Measured& measured() {
  static const Measured once;
  return once;
}

TEST(Mixed, FewerBitsCostMoreInEveryUnit) {
  const auto& [model, menu, units] = measured();
  const std::vector<Unit> found = find_units(model, menu);
  ASSERT_EQ(units.size(), found.size());
  for (size_t u = 0; u < units.size(); ++u) {
    const UnitCost& cost = units[u];
    EXPECT_EQ(cost.unit.name, found[u].name);
    ASSERT_EQ(cost.error.size(), cost.unit.formats.size()) << cost.unit.name;
    ASSERT_EQ(cost.cost.size(), cost.unit.formats.size()) << cost.unit.name;
    EXPECT_EQ(cost.error[0], 0) << "as it is";
    EXPECT_EQ(cost.cost[0], 0);
    EXPECT_TRUE(std::ranges::is_sorted(cost.error)) << cost.unit.name;  // the menu goes from 8 bits to 2
    EXPECT_GT(cost.kl, 0) << cost.unit.name;
    // The proxy is scaled so that it says what was measured where it was measured.
    ASSERT_GT(cost.reference, 0);
    EXPECT_DOUBLE_EQ(cost.cost[static_cast<size_t>(cost.reference)], cost.kl);
  }
}

TEST(Mixed, TheBestMixtureFitsAndMoreRoomNeverCostsMore) {
  const auto& [model, menu, units] = measured();
  EXPECT_FALSE(best_mixture(model, units, 100).has_value());
  double before = INFINITY;
  int made = 0;
  for (const double part : {0.15, 0.2, 0.3, 0.5, 1.0}) {
    const auto budget = static_cast<size_t>(part * static_cast<double>(model.bytes()));
    const auto mixture = best_mixture(model, units, budget);
    if (!mixture) continue;
    ++made;
    EXPECT_LE(mixture->bytes, budget);
    EXPECT_EQ(mixture->bytes, assigned_bytes(model, assignment(units, menu, mixture->choice)));
    EXPECT_LE(mixture->predicted_kl, before);
    before = mixture->predicted_kl;
  }
  EXPECT_GE(made, 3);
  EXPECT_EQ(before, 0) << "there is room for the model as it is";
}

UnitCost unit_cost(const std::string& name, int64_t weights, double kl) {
  return {.unit = {.name = name,
                   .params = {name + ".q.weight", name + ".k.weight"},
                   .table = false,
                   .weights = weights,
                   .formats = {},
                   .bytes = {}},
          .error = {},
          .reference = 1,
          .kl = kl,
          .cost = {}};
}

TEST(IgnoreList, NamesTheModulesOfUnitsThatLoseMuchPerWeight) {
  const std::vector<UnitCost> units = {unit_cost("a", 10, 0.1), unit_cost("b", 10, 2.0),
                                       unit_cost("c", 10, 0.1), unit_cost("d", 200, 2.0),
                                       unit_cost("e", 20, 0.1)};
  EXPECT_EQ(ignore_list(units, 10), (std::vector<std::string>{"b.q", "b.k"}));  // 20 medians; d is one
  EXPECT_TRUE(ignore_list(units, 25).empty());
}

double kl_of(const Model& base, const Assignment& assignment, const std::vector<int32_t>& tokens) {
  Model model = base;
  quantize(model, assignment, ScaleSearch::mse, 1);
  const Target target{.threads = 1, .max_tokens = context, .max_outputs = context};
  Plan one = Plan::compile(base, target), other = Plan::compile(model, target);
  return evaluate(other, tokens, {.context = context, .progress = ""}, &one).kl_mean;
}

// One layer drowns the others: it is listed with what it is made from, and leaving those as they are gains
// what leaving more weights elsewhere does not.
TEST(IgnoreList, WhatItKeepsIsWhatPlainRoundingLoses) {
  const std::string loud = "model.layers.0.self_attn.o_proj";
  Model model = load(Checkpoint::open(golden("qwen3")));
  Weight& weight = model.weights.at(loud + ".weight");
  std::vector<float> values = read_all(weight);
  for (float& v : values) v *= 16;
  weight = dense_weight(Tensor::of<float>(DType::f32, weight.shape, values));
  const std::vector<Format> menu = {{"as is", {}}, {"int4 g32", Numerics::integer(4, 32, false, DType::f32)}};
  MixedOptions options{.method = parse_method("rtn"), .sweep = {.work = {}, .fingerprint = {}}};
  options.sweep.context = options.window = context;
  const std::vector<UnitCost> units = measure_units(model, menu, random_tokens(model, 16 * context, 3),
                                                    random_tokens(model, 16 * context, 4), options);
  const std::vector<std::string> ignored = ignore_list(units, 10);
  EXPECT_EQ(std::ranges::count(ignored, loud), 1);
  for (const std::string& module : ignored) EXPECT_EQ(module.find("layers.1"), std::string::npos) << module;

  const auto held_out = random_tokens(model, 16 * context, 5);
  const auto keeping = [&](const std::vector<std::string>& modules) {
    return kl_of(model,
                 assign_all(model, menu[1].numerics, {.head = true, .embeddings = true, .keep = modules}),
                 held_out);
  };
  const double plain = keeping({}), without = keeping(ignored);
  EXPECT_LT(without, 0.5 * plain);
  int64_t left = 0, elsewhere = 0;
  for (const auto& [name, w] : model.weights) {
    if (std::ranges::count(ignored, module_path(name)) > 0) left += elements(w.shape);
    if (name.find("layers.1.") != std::string::npos) elsewhere += elements(w.shape);
  }
  EXPECT_GE(elsewhere, left);
  EXPECT_GT(keeping({"*.layers.1.*"}), 2 * without);
}

// What only is looked up takes no time; what is multiplied takes some. How much is the machine's business.
TEST(DecodeSeconds, OfEveryFormatOfWhatIsMultiplied) {
  const auto& [model, menu, costs] = measured();
  const std::vector<Unit> units = find_units(model, menu);
  const auto seconds = decode_seconds(model, units, menu, 1);
  const bool own_head = model.graph.param_shapes().contains("lm_head.weight");
  ASSERT_EQ(seconds.size(), units.size());
  for (size_t u = 0; u < units.size(); ++u) {
    ASSERT_EQ(seconds[u].size(), units[u].formats.size());
    const bool looked_up = own_head && units[u].name == "model.embed_tokens";
    for (const double s : seconds[u]) EXPECT_EQ(s > 0, !looked_up) << units[u].name << " " << s;
  }
}

}  // namespace
}  // namespace lathe
