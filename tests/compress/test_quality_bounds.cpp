// What compressing the built-in model may cost: the promise that formats, rounding and kernels keep together.
#include <gtest/gtest.h>

#include "compress/method.h"
#include "compress/quantize.h"
#include "eval/dataset.h"
#include "eval/quality.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

// Relative rise of the perplexity over part of the held-out text.
struct Cost {
  double rise, kl;
};

Cost cost_of(const Numerics& numerics, bool head) {
  const fs::path source = source_dir() / "models/builtin";
  const Checkpoint checkpoint = Checkpoint::open(source);
  const Model base = load(checkpoint);
  const Text text = read_text(source / "heldout.txt", load_tokenizer(checkpoint), 8192);
  Model model = base;
  quantize(model, assign_all(model, numerics, {.head = head, .embeddings = false, .keep = {}}),
           ScaleSearch::mse);
  const Target target{.max_tokens = 256, .max_outputs = 256};
  Plan base_plan = Plan::compile(base, target), plan = Plan::compile(model, target);
  const double before = evaluate(base_plan, text.tokens, {}).perplexity;
  const Quality after = evaluate(plan, text.tokens, {}, &base_plan);
  return {after.perplexity / before - 1, after.kl_mean};
}

TEST(QualityBounds, Int8PerChannelIsAllButFree) {
  for (const bool head : {false, true}) {
    const Cost cost = cost_of(Numerics::integer(8, 0, false), head);
    EXPECT_LE(cost.rise, 0.001) << head;
    EXPECT_LE(cost.kl, 0.001) << head;
  }
}

TEST(QualityBounds, Int8WeightsAndActivationsCostLittle) {
  const Cost cost = cost_of(Numerics::w8a8(), true);
  EXPECT_LE(cost.rise, 0.003);
  EXPECT_LE(cost.kl, 2e-3);
  EXPECT_GT(cost.kl, 1e-5);
}

TEST(QualityBounds, Int4InGroupsOf32CostsLittle) {
  const Cost cost = cost_of(Numerics::integer(4, 32, true), false);
  EXPECT_LE(cost.rise, 0.015);
  EXPECT_LE(cost.kl, 0.01);
  EXPECT_GT(cost.kl, 1e-4);  // something did change
}

// The order that methods must have on a text that none of them has seen: INT4 in groups of 128.
double kl_of(const char* method, const char* calibration) {
  const fs::path source = source_dir() / "models/builtin";
  const Checkpoint checkpoint = Checkpoint::open(source);
  const Model base = load(checkpoint);
  const Tokenizer tokenizer = load_tokenizer(checkpoint);
  const Text text = read_text(source / "heldout.txt", tokenizer, 8192),
             seen = read_text(source / calibration, tokenizer, 16384);
  require_held_out(seen, text);
  Model model = base;
  const Assignment a = assign_all(model, Numerics::integer(4, 128, false), {});
  if (std::string_view(method) == "plain")
    quantize(model, a, ScaleSearch::absmax);
  else
    quantize_calibrated(model, a, seen.tokens,
                        {.method = parse_method(method), .sweep = {.work = {}, .fingerprint = {}}});
  const Target target{.max_tokens = 256, .max_outputs = 256};
  Plan base_plan = Plan::compile(base, target), plan = Plan::compile(model, target);
  return evaluate(plan, text.tokens, {}, &base_plan).kl_mean;
}

TEST(QualityBounds, CalibratedMethodsBeatPlainRounding) {
  const double plain = kl_of("plain", "calibration.txt");
  EXPECT_LE(kl_of("importance", "calibration.txt"), 0.85 * plain);
  EXPECT_LE(kl_of("gptq", "calibration.txt"), 0.6 * plain);
}

// Each block rounded alone, on text that AWQ has not seen. Scales move within a block, so that one of a model
// that was rounded as a whole stands in for its original.
TEST(QualityBounds, AwqIsNoWorseThanPlainRoundingInAnyBlock) {
  const fs::path source = source_dir() / "models/builtin";
  const Checkpoint checkpoint = Checkpoint::open(source);
  const Model base = load(checkpoint);
  const Tokenizer tokenizer = load_tokenizer(checkpoint);
  const Text text = read_text(source / "heldout.txt", tokenizer, 8192),
             seen = read_text(source / "calibration.txt", tokenizer, 16384);
  const Target target{.max_tokens = 256, .max_outputs = 256};
  Plan base_plan = Plan::compile(base, target);
  const auto kl = [&](const Model& model) {
    Plan plan = Plan::compile(model, target);
    return evaluate(plan, text.tokens, {}, &base_plan).kl_mean;
  };
  const Assignment assignment = assign_all(base, Numerics::integer(4, 128, false), {});
  Model plain = base, awq = base;
  quantize(plain, assignment, ScaleSearch::mse);
  quantize_calibrated(awq, assignment, seen.tokens,
                      {.method = parse_method("awq"), .sweep = {.work = {}, .fingerprint = {}}});
  for (int block = 0; block < 6; ++block) {
    const auto alone = [&](const Model& from) {
      Model model = base;
      for (auto& [name, weight] : model.weights)
        if (name.starts_with(fmt::format("model.layers.{}.", block))) weight = from.weights.at(name);
      return kl(model);
    };
    EXPECT_LE(alone(awq), alone(plain)) << block;
  }
}

}  // namespace
}  // namespace lathe
