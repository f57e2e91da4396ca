// Formats by module: who decides, what is refused, and that such a model is saved, opened and run as any
// other.
#include <gmock/gmock.h>

#include "compress/recipe.h"
#include "compress/steps.h"
#include "core/error.h"
#include "golden_models.h"
#include "runtime/interpreter.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::AllOf;
using testing::HasSubstr;
using testing::ThrowsMessage;

// Scales of the type that the models' configs name.
const Numerics int8 = Numerics::integer(8, 0, false), int4 = Numerics::integer(4, 16, false);

struct Applied {
  Assignment assignment;
  Reasons why;
};
Applied applied(const Model& m, const std::vector<Policy>& policies, Fused fused = Fused::error,
                Assignment start = {}) {
  Reasons why = apply_policies(m, policies, fused, "p", start);
  return {std::move(start), std::move(why)};
}

TEST(Policy, IsAGlobAndAFormat) {
  EXPECT_EQ(parse_policy("*.mlp.*=w4a16:g32").glob, "*.mlp.*");
  EXPECT_EQ(parse_policy("*.mlp.*=w4a16:g32").format, "w4a16:g32");
  for (const char* bad : {"", "lm_head", "=bf16", "lm_head="})
    EXPECT_THAT([&] { parse_policy(bad); }, ThrowsMessage<InputError>(HasSubstr("GLOB=FORMAT"))) << bad;
}

TEST(Policy, FormatsAreSchemesWithGroupsAndZeroPoints) {
  const auto format = [](const char* text) { return parse_format(text, DType::f16, "x"); };
  EXPECT_EQ(format("keep"), std::nullopt);
  EXPECT_EQ(format("bf16"), Numerics::dense(DType::bf16));
  EXPECT_EQ(format("f32"), Numerics::dense(DType::f32));
  EXPECT_EQ(format("w8a16"), Numerics::integer(8, 0, false, DType::f16));
  EXPECT_EQ(format("w4a16"), Numerics::integer(4, 128, false, DType::f16));
  EXPECT_EQ(format("w3a16:g32:asym"), Numerics::integer(3, 32, true, DType::f16));
  EXPECT_EQ(format("w3a16:asym:g32"), format("w3a16:g32:asym"));
  EXPECT_EQ(format("w4a16:g0"), Numerics::integer(4, 0, false, DType::f16));
  EXPECT_EQ(format("w8a8"), Numerics::w8a8(DType::f16));
  EXPECT_EQ(format("nvfp4"), Numerics::nvfp4());
  for (const char* bad :
       {"", "w9a16", "w4a16:", "w4a16:32", "w4a16:g", "w4a16:g-1", "w4a16:g3x", "w4a16:g8:g8",
        "w4a16:asym:asym", "nvfp4:g16", "fp8:asym", "int4", "w4a16:g99999999999"})
    EXPECT_THAT([&] { format(bad); }, ThrowsMessage<InputError>(AllOf(HasSubstr("x: expected keep, bf16"),
                                                                      HasSubstr(fmt::format("'{}'", bad)))))
        << bad;
}

TEST(Policy, TheLastThatMatchesDecides) {
  const Model m = golden_model("llama3");  // bf16, a head of its own
  const Applied a = applied(
      m, {{"*", "w4a16:g16"}, {"model.embed_tokens", "keep"}, {"*.layers.1.*", "w8a16"}, {"lm_head", "f16"}});
  EXPECT_EQ(a.assignment.at("model.layers.0.mlp.up_proj.weight"), int4);
  EXPECT_EQ(a.assignment.at("model.layers.1.mlp.up_proj.weight"), int8);
  EXPECT_EQ(a.assignment.at("lm_head.weight"), Numerics::dense(DType::f16));
  EXPECT_FALSE(a.assignment.contains("model.embed_tokens.weight"));
  EXPECT_EQ(a.why.at("model.layers.0.mlp.up_proj.weight"), "policy '*=w4a16:g16'");
  EXPECT_EQ(a.why.at("model.layers.1.mlp.up_proj.weight"), "policy '*.layers.1.*=w8a16'");
  EXPECT_EQ(a.why.at("model.embed_tokens.weight"), "policy 'model.embed_tokens=keep'");
  // What a matrix is already is no change, and what none matches stays as it was assigned.
  const Applied b = applied(m, {{"lm_head", "bf16"}}, Fused::error,
                            {{"lm_head.weight", int4}, {"model.layers.0.mlp.down_proj.weight", int4}});
  EXPECT_EQ(b.assignment, (Assignment{{"model.layers.0.mlp.down_proj.weight", int4}}));
  EXPECT_EQ(b.why.size(), 1u);
}

TEST(Policy, ATableThatIsAlsoTheHeadGoesByBothNames) {
  for (const char* name : {"lm_head", "model.embed_tokens"})
    EXPECT_EQ(applied(golden_model("llama3.2"), {{name, "w8a16"}}).assignment.size(), 1u) << name;
}

TEST(Policy, AGlobThatMatchesNothingIsNamed) {
  for (const char* glob : {"*.mpl.*", "model.norm", "model.layers.0.input_layernorm", "*.weight"})
    EXPECT_THAT(
        [&] {
          applied(golden_model("llama3"), {{"lm_head", "w8a16"}, {glob, "w8a16"}});
        },
        ThrowsMessage<InputError>(HasSubstr(fmt::format("p: '{}': expected a glob", glob))))
        << glob;
}

TEST(Policy, LayersOfOneInputAgree) {
  const Model m = golden_model("llama3");
  const std::vector<Policy> up{{"*.mlp.*", "w4a16:g16"}, {"*.0.mlp.up_proj", "w8a16"}};
  EXPECT_THAT(
      [&] { applied(m, up); },
      ThrowsMessage<InputError>(AllOf(HasSubstr("p: model.layers.0.mlp.{gate,up}_proj"),
                                      HasSubstr("gate_proj int4 g16, model.layers.0.mlp.up_proj int8"))));
  const Applied promoted = applied(m, up, Fused::promote);
  EXPECT_EQ(promoted.assignment.at("model.layers.0.mlp.gate_proj.weight"), int8);
  EXPECT_EQ(promoted.assignment.at("model.layers.1.mlp.gate_proj.weight"), int4);
  EXPECT_EQ(promoted.assignment.at("model.layers.0.mlp.down_proj.weight"), int4);
  EXPECT_EQ(promoted.why.at("model.layers.0.mlp.gate_proj.weight"),
            "promoted with model.layers.0.mlp.up_proj, instead of int4 g16");
  EXPECT_EQ(applied(m, up, Fused::apart).assignment.at("model.layers.0.mlp.gate_proj.weight"), int4);
  // One that is kept is the widest: the others stay as they are too.
  const Applied kept =
      applied(m, {{"*.self_attn.?_proj", "w4a16:g16"}, {"*.1.self_attn.k_proj", "keep"}}, Fused::promote);
  for (const char* p : {"q", "k", "v"}) {
    EXPECT_TRUE(kept.assignment.contains(fmt::format("model.layers.0.self_attn.{}_proj.weight", p)));
    EXPECT_FALSE(kept.assignment.contains(fmt::format("model.layers.1.self_attn.{}_proj.weight", p)));
  }
  EXPECT_TRUE(kept.assignment.contains("model.layers.1.self_attn.o_proj.weight"));
}

TEST(Policy, GroupsHaveToDivideTheColumns) {
  EXPECT_THAT(
      [] {
        applied(golden_model("llama3"), {{"*.down_proj", "w4a16:g100"}});
      },
      ThrowsMessage<InputError>(HasSubstr("whole groups of 100")));
}

TEST(Policy, RoundTripsThroughARecipe) {
  const Model m = golden_model("llama3");
  const QuantizeStep step{.assignment = assign_all(m, int4, {}),
                          .policies = {{"*.layers.1.*", "w8a16"}, {"lm_head", "f16"}},
                          .fused = Fused::promote};
  const Json json = quantize_step(m, step);
  const QuantizeStep read = parse_quantize_step(json, m, "x");
  EXPECT_EQ(read.assignment, applied(m, step.policies, step.fused, step.assignment).assignment);
  EXPECT_EQ(read.fused, Fused::promote);
  EXPECT_EQ(read.why.size(), 8u);
  EXPECT_EQ(quantize_step(m, {.assignment = step.assignment, .policies = read.policies, .fused = read.fused}),
            json);
  const struct {
    const char *json, *message;
  } cases[] = {
      {R"({"method": "rtn", "default": "w4a17"})", "x: default: expected keep, bf16"},
      {R"({"method": "rtn", "default": "keep", "policy": ["lm_head"]})", "x: policy: expected a mapping"},
      {R"({"method": "rtn", "default": "keep", "policy": {"lm_head": 8}})", "lm_head"},
      {R"({"method": "rtn", "default": "keep", "policy": {"head": "w8a16"}})",
       "x: policy: 'head': expected a glob"},
      {R"({"method": "rtn", "default": "keep", "fused": "never"})", "x: fused: expected one of apart, error"},
      {R"({"method": "rtn", "default": "keep", "policy": {"*.q_proj": "w8a16"}})", "q_proj int8"},
  };
  for (const auto& [text, message] : cases)
    EXPECT_THAT([&] { parse_quantize_step(Json::parse(text), m, "x"); },
                ThrowsMessage<InputError>(HasSubstr(message)))
        << text;
}

struct Written {
  Model model;
  Reasons why;
  std::string format(const std::string& module) const {
    return to_string(model.weights.at(module + ".weight").numerics);
  }
};

// What was saved, opened again.
Written written(const char* family, const char* step, const TemporaryDirectory& dir) {
  const Checkpoint from = Checkpoint::open(golden(family));
  Model m = load(from);
  Recipe recipe{
      .model = "m", .source_hash = {}, .result_hash = {}, .steps = {{"quantize", Json::parse(step)}}};
  const StepsResult steps = run_steps(m, recipe, from, [] { return std::string(); }, {});
  const std::string hash = save(m, from, steps.left, steps.scales, dir.path());
  Written out{load(Checkpoint::open(dir.path())), steps.why};
  EXPECT_EQ(hash_of(out.model), hash);
  return out;
}

TEST(Policy, AMixedModelReloads) {
  const TemporaryDirectory dir;
  const Written w = written("qwen3", R"({"method": "rtn", "default": "w4a16:g16:asym", "policy": {
      "lm_head": "f16", "*.0.mlp.*": "fp8", "*.1.mlp.*": "w8a16", "*.o_proj": "w5a16:g8", "*.0.mlp.down_proj": "nvfp4",
      "*.1.self_attn.[qkv]_proj": "keep"}})",
                            dir);
  EXPECT_EQ(w.format("model.embed_tokens"), "f16");  // which is the head too
  EXPECT_EQ(w.format("model.layers.0.mlp.gate_proj"), "fp8");
  EXPECT_EQ(w.format("model.layers.0.mlp.down_proj"), "nvfp4");
  EXPECT_EQ(w.format("model.layers.1.mlp.up_proj"), "int8");
  EXPECT_EQ(w.format("model.layers.0.self_attn.o_proj"), "int5 g8");
  EXPECT_EQ(w.format("model.layers.0.self_attn.v_proj"), "int4 g16 asym");
  EXPECT_EQ(w.format("model.layers.1.self_attn.v_proj"), "bf16");
  EXPECT_EQ(w.why.at("model.layers.0.mlp.down_proj.weight"), "policy '*.0.mlp.down_proj=nvfp4'");
  EXPECT_FALSE(w.why.contains("model.layers.0.self_attn.v_proj.weight"));
}

// Decoding in formats whose kernels leave activations in f32: rounding of f32 sums alone is between the plan
// and the interpreter, as in the tests of parity.
TEST(Policy, AMixedModelRuns) {
  const TemporaryDirectory dir;
  const Model m = written("qwen3", R"({"method": "rtn", "default": "w8a16", "policy": {
      "lm_head": "f16", "*.0.mlp.*": "fp8", "*.1.mlp.*": "f32", "*.o_proj": "keep"}})",
                          dir)
                      .model;
  const std::vector<int32_t> tokens{5, 17, 3, 60, 8, 41, 22, 9, 33, 2};
  const auto values = [](const Tensor& t) {
    return std::vector<float>(t.as<float>().begin(), t.as<float>().end());
  };
  const SingleSequence decode(tokens, 0, std::ssize(tokens), true, Phase::decode);
  const std::vector<float> expected =
      values(interpret(m, SingleSequence(tokens, 0, std::ssize(tokens), false)));
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    Plan plan = Plan::compile(
        m, {.threads = 2, .isa = level.features, .max_tokens = 12, .max_outputs = 12, .context = 16});
    EXPECT_THAT(values(plan.run(decode)), testing::Pointwise(testing::FloatNear(3e-4f), expected));
  }
}

}  // namespace
}  // namespace lathe
