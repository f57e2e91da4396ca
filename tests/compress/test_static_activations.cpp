// Static scales of activations: found by calibration, stored, read back, used by every plan.
#include <cmath>
#include <gmock/gmock.h>

#include "compress/method.h"
#include "compress/recipe.h"
#include "core/error.h"
#include "runtime/interpreter.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

std::vector<int32_t> tokens_of(int64_t n) {
  std::vector<int32_t> tokens;
  for (int64_t i = 0; i < n; ++i) tokens.push_back(static_cast<int32_t>(i * i * 31 % 127));
  return tokens;
}

std::vector<float> logits(const Model& model) {
  const std::vector<int32_t> tokens = tokens_of(24);
  const Tensor out = interpret(model, SingleSequence(tokens, 0, 24, false));
  return {out.as<float>().begin(), out.as<float>().end()};
}

Model calibrated(const char* method, const char* observer,
                 const Numerics& numerics = Numerics::w8a8_static()) {
  Model model = load(Checkpoint::open(golden("qwen2")));
  const Assignment assignment = assign_all(model, numerics, {.head = true, .keep = {}});
  CalibrationOptions options{
      .method = parse_method(method), .observer = &input_observer(observer), .sweep = {}};
  options.sweep.context = 32;
  options.sweep.threads = 2;
  quantize_calibrated(model, assignment, tokens_of(256), options);
  return model;
}

TEST(StaticActivations, MinmaxReachesTheLargestInput) {
  const Model model = calibrated("rtn", "minmax");
  // The first layers read what the embedding and a norm make of tokens. The embedding is the head too, so it
  // was rounded before the text went through the blocks.
  Model plain = load(Checkpoint::open(golden("qwen2")));
  plain.weights.at("model.embed_tokens.weight") = model.weights.at("model.embed_tokens.weight");
  struct Largest : Observer {
    float most = 0;
    void before(const Node& node, std::span<const Tensor> inputs) override {
      if (node.name != "model.layers.0.self_attn.q_proj") return;
      for (const float v : inputs[0].as<float>()) most = std::max(most, std::fabs(v));
    }
  } largest;
  const std::vector<int32_t> tokens = tokens_of(256);
  for (size_t begin = 0; begin < tokens.size(); begin += 32)
    interpret(plain, SingleSequence(std::span(tokens).subspan(begin, 32), 0, 1, false), &largest);
  const float scale = input_scale(model.weights.at("model.layers.0.self_attn.q_proj.weight"));
  EXPECT_NEAR(scale, largest.most / 127, scale / 256);  // stored in bf16
  // Layers that read one input have one scale.
  EXPECT_EQ(scale, input_scale(model.weights.at("model.layers.0.self_attn.v_proj.weight")));
}

// FP8 and NVFP4 with activations: the largest input is the largest number, 448, or 6 times the largest scale
// of a block, 448.
TEST(StaticActivations, OfFloatsReachTheLargestInputToo) {
  const auto scale_of = [](const Numerics& n) {
    const Model model = calibrated("rtn", "minmax", n);
    const float scale = input_scale(model.weights.at("model.layers.0.self_attn.q_proj.weight"));
    EXPECT_EQ(scale, input_scale(model.weights.at("model.layers.0.self_attn.k_proj.weight")));
    return scale;
  };
  // The text reaches the first layers through tables and norms alone. Tied to the head, the table is rounded,
  // each time to other numbers: by no more than 6 % of a number in e4m3, half of one in e2m1, 1/254 in int8.
  const float largest = scale_of(Numerics::w8a8_static(DType::f32)) * 127;
  EXPECT_NEAR(scale_of(Numerics::fp8_tensor(DType::f32).over(Activations::fp8_static)) * 448 / largest, 1,
              0.1);
  EXPECT_NEAR(scale_of(Numerics::nvfp4().over(Activations::nvfp4)) * 6 * 448 / largest, 1, 0.5);
}

TEST(StaticActivations, EntropyIsOfIntegers) {
  EXPECT_THROW(calibrated("rtn", "entropy", Numerics::fp8_tensor().over(Activations::fp8_static)),
               InputError);
}

TEST(StaticActivations, AreNearTheModelAndComeBackFromDiskBitForBit) {
  const Checkpoint from = Checkpoint::open(golden("qwen2"));
  const std::vector<float> base = logits(load(from));
  double size = 0;
  for (const float v : base) size += static_cast<double>(v) * static_cast<double>(v);
  for (const InputObserver& observer : input_observers()) {
    SCOPED_TRACE(observer.name);
    const Model model = calibrated("smooth+gptq", std::string(observer.name).c_str());
    const std::vector<float> now = logits(model);
    double error = 0;
    for (size_t i = 0; i < now.size(); ++i) error += std::pow(static_cast<double>(now[i] - base[i]), 2);
    EXPECT_LT(error, 0.01 * size);
    const TemporaryDirectory directory;
    save(model, from, {}, ScaleSearch::mse, directory.path(), 1);
    EXPECT_EQ(logits(load(Checkpoint::open(directory.path()))), now);
  }
}

TEST(StaticActivations, BesideOtherWeightsComeBackFromDiskBitForBit) {
  const Checkpoint from = Checkpoint::open(golden("qwen2"));
  for (const Numerics& n :
       {Numerics::integer(4, 32, true).over(Activations::int8_static),
        Numerics::fp8_tensor().over(Activations::fp8_static), Numerics::nvfp4().over(Activations::nvfp4)})
    for (const char* observer : {"minmax", "moving-average", "percentile", "mse"}) {
      SCOPED_TRACE(fmt::format("{} {}", to_string(n), observer));
      const Model model = calibrated("gptq", observer, n);
      const std::vector<float> now = logits(model);
      const TemporaryDirectory directory;
      save(model, from, {}, ScaleSearch::mse, directory.path(), 1);
      EXPECT_EQ(logits(load(Checkpoint::open(directory.path()))), now);
    }
}

class StaticPlan : public testing::TestWithParam<Numerics> {};

TEST_P(StaticPlan, RoundsAsTheInterpreterDoes) {
  const Model model = calibrated("rtn", "percentile", GetParam());
  const std::vector<int32_t> tokens = tokens_of(24);
  const std::vector<float> expected = logits(model);
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    Plan plan =
        Plan::compile(model, {.threads = 2, .isa = level.features, .max_tokens = 24, .max_outputs = 24});
    const auto out = plan.run(SingleSequence(tokens, 0, 24, false, Phase::decode)).as<float>();
    ASSERT_EQ(out.size(), expected.size());
    // Sums of int8 weights are exact, those of int4 are of floats; attention (which in decoding is f32 on
    // every level) and norms differ by roundings, which may move an element of some layer's input across the
    // middle between two integers: one step of 1/127 of its range.
    for (size_t i = 0; i < out.size(); ++i) ASSERT_NEAR(out[i], expected[i], 2e-2f) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Int8, StaticPlan,
                         testing::Values(Numerics::w8a8_static(),
                                         Numerics::integer(4, 32, true).over(Activations::int8_static)));

TEST(StaticActivations, NeedACalibrationTextAndAScale) {
  Model model = load(Checkpoint::open(golden("qwen2")));
  const Assignment assignment = assign_all(model, Numerics::w8a8_static(), {});
  EXPECT_THROW(quantize(model, assignment, ScaleSearch::mse, 1), Error);
  const Json step = quantize_step(model, {.assignment = assignment});
  EXPECT_THROW(parse_quantize_step(step, model, "recipe"), InputError);  // no text
  Model broken = calibrated("rtn", "minmax");
  Weight& w = broken.weights.at("model.layers.0.mlp.up_proj.weight");
  w.parts.back().as_mutable<uint16_t>()[0] = 0;
  EXPECT_THROW(logits(broken), InputError);
}

}  // namespace
}  // namespace lathe
