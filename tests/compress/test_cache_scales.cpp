// Scales of keys and values from a text: what is found, written and read again.
#include <cmath>
#include <gmock/gmock.h>

#include "compress/cache_scales.h"
#include "compress/quantize.h"
#include "compress/steps.h"
#include "core/error.h"
#include "models/kv_cache.h"
#include "runtime/interpreter.h"
#include "support.h"

namespace lathe {
namespace {

using testing::HasSubstr;
using namespace testing_support;

std::vector<int32_t> text(int n) {
  std::vector<int32_t> out(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) out[static_cast<size_t>(i)] = (11 + i * 7) % 101;
  return out;
}

std::vector<float> logits(const Model& model) {
  const std::vector<int32_t> tokens = text(20);
  const Tensor t = interpret(model, SingleSequence(tokens, 0, 20, false));
  const auto s = t.as<float>();
  return {s.begin(), s.end()};
}

// The magnitudes of what attention reads: keys after their norm and rotation.
struct Magnitudes : Observer {
  std::map<std::string, float> keys, values;
  void after(const Node& node, std::span<const Tensor> outputs) override {
    auto& seen = node.name.ends_with("rope_k") ? keys : values;
    if (!node.name.ends_with("rope_k") && !node.name.ends_with("v_proj")) return;
    float& most = seen[node.name.substr(0, node.name.rfind('.'))];
    for (const float f : outputs[0].as<float>()) most = std::max(most, std::fabs(f));
  }
};

TEST(CacheScales, AreTheLargestMagnitudesOverTheLargestCode) {
  Model model = load(Checkpoint::open(golden("qwen3")));
  const std::vector<int32_t> tokens = text(50);
  Magnitudes plain;
  for (size_t begin = 0; begin < tokens.size(); begin += 16) {
    const auto window = std::span(tokens).subspan(begin, std::min<size_t>(16, tokens.size() - begin));
    interpret(model, SingleSequence(window, 0, 1, false), &plain);
  }
  ASSERT_EQ(plain.keys.size(), 2u);
  for (const CacheNumerics numerics : calibrated_cache_numerics) {
    calibrate_cache(model, numerics, tokens, {.context = 16, .threads = 2, .isa = 0});
    for (const auto& [scope, most] : plain.keys) {
      EXPECT_EQ(read_all(model.weights.at(scope + ".k_scale"))[0], most / largest_code(numerics)) << scope;
      EXPECT_EQ(read_all(model.weights.at(scope + ".v_scale"))[0],
                plain.values.at(scope) / largest_code(numerics));
    }
    EXPECT_EQ(cache_scheme(model.graph).numerics, numerics);
  }
  EXPECT_THROW(calibrate_cache(model, CacheNumerics::fp8, {}, {}), InputError);
}

TEST(CacheScales, AreReadAsTheyWereWritten) {
  const Checkpoint from = Checkpoint::open(golden("qwen3"));
  for (const CacheNumerics numerics : calibrated_cache_numerics) {
    SCOPED_TRACE(to_string(numerics));
    Model model = load(from);
    calibrate_cache(model, numerics, text(50), {.context = 16, .threads = 2});
    const TemporaryDirectory dir;
    const std::string hash = save(model, from, {}, ScaleSearch::mse, dir.path());
    const Model again = load(Checkpoint::open(dir.path()));
    EXPECT_EQ(hash_of(again), hash);
    EXPECT_EQ(to_string(again.graph), to_string(model.graph));
    for (const auto& [name, weight] : model.weights)
      EXPECT_EQ(read_all(again.weights.at(name)), read_all(weight)) << name;
    EXPECT_EQ(logits(again), logits(model));
    EXPECT_NE(logits(again), logits(load(from)));
  }
}

// The text of compressed-tensors' own: QuantizationArgs of a static scale for a tensor.
TEST(CacheScales, AreWrittenAsCompressedTensorsWritesThem) {
  const Checkpoint from = Checkpoint::open(golden("qwen3"));
  Model model = load(from);
  calibrate_cache(model, CacheNumerics::fp8, text(50), {.context = 16, .threads = 1});
  const TemporaryDirectory dir;
  save(model, from, assign_all(model, Numerics::integer(8, 0, false), {}), ScaleSearch::mse, dir.path());
  const Json q = read_json(dir / "config.json")["quantization_config"];
  EXPECT_EQ(q["kv_cache_scheme"], Json::parse(R"({"actorder":null,"block_structure":null,"dynamic":false,
      "group_size":null,"num_bits":8,"observer":"minmax","observer_kwargs":{},"strategy":"tensor",
      "symmetric":true,"type":"float"})"));
  EXPECT_EQ(q["config_groups"].size(), 1u);
  const Checkpoint written = Checkpoint::open(dir.path());
  const Entry* k = written.find("model.layers.1.self_attn.k_scale");
  ASSERT_NE(k, nullptr);
  EXPECT_EQ(k->numerics, Numerics::dense(DType::f32));
  EXPECT_EQ(k->shape, Shape{1});
}

TEST(CacheStep, IsReadAsItWasWritten) {
  const CacheStep step{CacheNumerics::int8,
                       {.path = "t.txt", .sha256 = "ab", .max_tokens = 7, .context = 32}};
  const Json json = cache_step(step);
  const CacheStep again = parse_cache_step(json, "recipe");
  EXPECT_EQ(again.numerics, step.numerics);
  EXPECT_EQ(again.text.path, "t.txt");
  EXPECT_EQ(again.text.max_tokens, 7);
  EXPECT_EQ(cache_step(again), json);
  for (const char* bad : {R"({"numerics":"floats","calibration":{"text":"t"}})", R"({"numerics":"fp8"})",
                          R"({"numerics":"fp8","calibration":{"text":"t"},"more":1})"})
    EXPECT_THROW(parse_cache_step(Json::parse(bad), "recipe"), InputError) << bad;
}

// A rotation of value heads makes other values: their scales would be wrong.
TEST(CacheStep, RotationsRefuseScalesOfWhatTheyRotate) {
  const Checkpoint from = Checkpoint::open(golden("qwen3"));
  Model model = load(from);
  calibrate_cache(model, CacheNumerics::fp8, text(50), {.context = 16, .threads = 1});
  Recipe recipe{.model = "m", .source_hash = {}, .result_hash = {}, .seed = 0, .steps = {}};
  recipe.steps.emplace_back("rotate", rotate_step({.residual = false, .heads = true, .seed = 1}));
  try {
    run_steps(model, recipe, from, [] { return std::string(); }, {});
    FAIL() << "accepted";
  } catch (const InputError& e) {
    EXPECT_THAT(e.what(), HasSubstr("--kv-cache"));
  }
}

}  // namespace
}  // namespace lathe
