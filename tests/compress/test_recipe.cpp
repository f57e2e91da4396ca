#include <gmock/gmock.h>

#include "compress/recipe.h"
#include "core/error.h"
#include "golden_models.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::HasSubstr;
using testing::ThrowsMessage;

TEST(Recipe, RoundTripsThroughYaml) {
  const Model m = golden_model("llama3");
  Assignment a = assign_all(m, Numerics::integer(4, 32, true),
                            {.head = true, .embeddings = false, .keep = {"*.layers.1.mlp.down_proj"}});
  a["model.layers.0.self_attn.v_proj.weight"] = Numerics::integer(8, 0, false, DType::f16);
  const Recipe recipe{.model = "a model: \"1\"",
                      .source_hash = "12e4",
                      .result_hash = "00ff",
                      .seed = 18446744073709551615u,
                      .steps = {{"quantize", quantize_step(m, {a, ScaleSearch::absmax})}}};
  const std::string yaml = to_yaml(recipe);
  const Recipe again = parse_recipe(yaml, "recipe.yaml");
  EXPECT_EQ(again.model, recipe.model);
  EXPECT_EQ(again.source_hash, recipe.source_hash);
  EXPECT_EQ(again.result_hash, recipe.result_hash);
  EXPECT_EQ(again.seed, recipe.seed);
  ASSERT_EQ(again.steps.size(), 1u);
  EXPECT_EQ(again.steps, recipe.steps) << yaml;
  const QuantizeStep step = parse_quantize_step(again.steps[0].second, m, "recipe.yaml");
  EXPECT_EQ(step.assignment, a);
  EXPECT_EQ(step.scales, ScaleRule(ScaleSearch::absmax));
  EXPECT_EQ(to_yaml(again), yaml);
}

TEST(QuantizeStep, ListsOnlyExceptions) {
  const Model m = golden_model("llama3");
  const auto n = Numerics::integer(4, 32, true);
  EXPECT_FALSE(quantize_step(m, {assign_all(m, n, {})}).contains("modules"));
  const Json head = quantize_step(m, {assign_all(m, n, {.head = true, .embeddings = false, .keep = {}})});
  EXPECT_EQ(head["modules"].size(), 1u);
  EXPECT_EQ(head["modules"]["lm_head"]["bits"], 4);
  const Json kept =
      quantize_step(m, {assign_all(m, n, {.head = false, .embeddings = false, .keep = {"*.q_proj"}})});
  EXPECT_EQ(kept["modules"].size(), 2u);
  EXPECT_EQ(kept["modules"]["model.layers.0.self_attn.q_proj"], "keep");
}

TEST(QuantizeStep, EveryAssignmentSurvives) {
  for (const char* family : {"llama3", "llama3.2"}) {
    const Model m = golden_model(family);
    Assignment few;
    few["model.embed_tokens.weight"] = Numerics::integer(8, 0, true);
    few["model.layers.0.mlp.up_proj.weight"] = Numerics::integer(5, 16, false, DType::f32);
    few["model.layers.0.mlp.gate_proj.weight"] = Numerics::fp8_block(DType::f16);
    few["model.layers.0.self_attn.q_proj.weight"] = Numerics::mxfp4();
    few["model.layers.0.self_attn.k_proj.weight"] = Numerics::fp8_tensor(DType::f32);
    few["model.layers.0.self_attn.v_proj.weight"] = parse_scheme("w4a8", 32, true, DType::f16);
    for (const Assignment& a :
         {Assignment{}, few,
          assign_all(m, Numerics::integer(8, 0, false), {.head = true, .embeddings = true, .keep = {}})})
      EXPECT_EQ(parse_quantize_step(quantize_step(m, {a}), m, "x").assignment, a) << family;
  }
}

// Where there are MX blocks it is written down, whatever it is.
TEST(QuantizeStep, RecordsTheRuleOfMxExponents) {
  const Model m = golden_model("llama3");
  const Assignment mx = assign_all(m, Numerics::mxfp4(), {});
  EXPECT_FALSE(quantize_step(m, {assign_all(m, Numerics::nvfp4(), {})}).contains("mx_rule"));
  EXPECT_EQ(quantize_step(m, {mx})["mx_rule"], "search");
  for (size_t i = 0; i < std::size(mx_rule_names); ++i) {
    const ScaleRule scales(ScaleSearch::absmax, static_cast<MxRule>(i));
    const Json step = quantize_step(m, {mx, scales});
    EXPECT_EQ(step["mx_rule"], mx_rule_names[i]);
    EXPECT_EQ(parse_quantize_step(step, m, "x").scales, scales);
  }
}

TEST(Recipe, RefusesWhatItDoesNotKnowAndNamesTheLine) {
  const struct {
    std::string yaml, message;
  } cases[] = {
      {"", "expected a mapping"},
      {"- 1", "expected a mapping"},
      {"lathe: 1\nmodel: [", "r.yaml: line"},
      {"lathe: 1\nmodel: m\nstep: []\n",
       "r.yaml: line 3: expected one of lathe, model, result_hash, seed, source_hash, steps, found key "
       "'step'"},
      {"lathe: 2\nmodel: m\nsteps: []\n", "expected lathe: 1, found lathe: 2"},
      {"lathe: 1\nmodel: m\n", "expected a model and a list of steps"},
      {"lathe: 1\nsteps: []\n", "expected a model and a list of steps"},
      {"lathe: 1\nmodel: {a: 1}\nsteps: []\n", "r.yaml: line 2: expected text as 'model'"},
      {"lathe: 1\nmodel: m\nseed: many\nsteps: []\n", "r.yaml: line 3: expected an integer as 'seed'"},
      {"lathe: 1\nmodel: m\nsteps:\n  - prune: {}\n",
       "r.yaml: line 4: expected one of kv_cache, quantize, rotate, found key 'prune'"},
      {"lathe: 1\nmodel: m\nsteps:\n  - 5\n", "r.yaml: line 4: expected a step"},
      {"lathe: 1\nmodel: m\nsteps:\n  - quantize:\n      default: keep\n      default: keep\n",
       "distinct keys"},
  };
  for (const auto& [yaml, message] : cases)
    EXPECT_THAT([&] { parse_recipe(yaml, "r.yaml"); }, ThrowsMessage<InputError>(HasSubstr(message))) << yaml;
}

TEST(QuantizeStep, RefusesWhatItDoesNotKnow) {
  const Model m = golden_model("llama3");
  const struct {
    const char *json, *message;
  } cases[] = {
      {R"({"method": "rtn"})", "key 'default'"},
      {R"({"default": "keep"})", "key 'method'"},
      {R"({"method": "gptqq", "default": "keep"})", "found 'gptqq'"},
      {R"({"method": "gptq+rtn", "default": "keep"})", "found 'gptq+rtn'"},
      {R"({"method": "gptq", "default": "keep"})", "key 'calibration' with method gptq"},
      {R"({"method": "gptq", "default": "keep", "calibration": {"txt": "a"}})", "found key 'txt'"},
      {R"({"method": "rtn", "default": "keep", "group": 3})", "found key 'group'"},
      {R"({"method": "rtn", "default": "keep", "scale_search": "best"})", "found 'best'"},
      {R"({"method": "rtn", "default": "mxfp4", "mx_rule": "round"})",
       "x: mx_rule: expected one of search, floor, even, ceil, rceil, found 'round'"},
      {R"({"method": "rtn", "default": {"bits": 9}})", "key 'bits'"},
      {R"({"method": "rtn", "default": {"bits": "4"}})", "key 'bits'"},
      {R"({"method": "rtn", "default": {"bits": 4, "scale": "f8e4m3"}})", "expected scale bf16, f16 or f32"},
      {R"({"method": "rtn", "default": {"bits": 4, "groups": 32}})", "found key 'groups'"},
      {R"({"method": "rtn", "default": {"bits": 4, "group": 64}})", "whole groups of 64"},
      {R"({"method": "rtn", "default": 4})", "expected an object"},
      {R"({"method": "rtn", "default": "keep", "modules": []})", "modules: expected a mapping"},
      {R"({"method": "rtn", "default": "keep", "modules": {"model.nothing": "keep"}})",
       "x: modules: model.nothing: expected a module of the model"},
      {R"({"method": "rtn", "default": "keep", "modules": {"model.norm": {"bits": 8}}})",
       "x: modules: model.norm: expected a module of the model"},
  };
  for (const auto& [json, message] : cases)
    EXPECT_THAT([&] { parse_quantize_step(Json::parse(json), m, "x"); },
                ThrowsMessage<InputError>(HasSubstr(message)))
        << json;
}

}  // namespace
}  // namespace lathe
