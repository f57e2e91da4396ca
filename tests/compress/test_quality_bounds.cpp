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

const Target target{.max_tokens = 256, .max_outputs = 256};

// The built-in model and what it says about part of the held-out text.
struct Base {
  const fs::path source = source_dir() / "models/builtin";
  const Checkpoint checkpoint = Checkpoint::open(source);
  const Tokenizer tokenizer = load_tokenizer(checkpoint);
  const Model model = load(checkpoint);
  Text text;
  Plan plan = Plan::compile(model, target);
  BaseLogits logits;
  double perplexity;

  explicit Base(int64_t tokens)
      : text(read_text(source / "heldout.txt", tokenizer, tokens)),
        logits(plan, text.tokens, 256),
        perplexity(evaluate(plan, text.tokens, {}).perplexity) {}
  Quality quality(const Model& changed) const {
    Plan other = Plan::compile(changed, target);
    return evaluate(other, text.tokens, {}, logits);
  }
};

// Relative rise of the perplexity.
struct Cost {
  double rise, kl;
};

Cost cost_of(const Base& base, const Numerics& numerics, bool head) {
  Model model = base.model;
  quantize(model, assign_all(model, numerics, {.head = head, .embeddings = false, .keep = {}}),
           ScaleSearch::mse);
  const Quality after = base.quality(model);
  return {after.perplexity / base.perplexity - 1, after.kl_mean};
}

TEST(QualityBounds, Int8PerChannelIsAllButFree) {
  const Base base(4096);
  for (const bool head : {false, true}) {
    const Cost cost = cost_of(base, Numerics::integer(8, 0, false), head);
    EXPECT_LE(cost.rise, 0.001) << head;
    EXPECT_LE(cost.kl, 0.001) << head;
  }
}

TEST(QualityBounds, Int8WeightsAndActivationsCostLittle) {
  const Cost cost = cost_of(Base(4096), Numerics::w8a8(), true);
  EXPECT_LE(cost.rise, 0.003);
  EXPECT_LE(cost.kl, 2e-3);
  EXPECT_GT(cost.kl, 1e-5);
}

TEST(QualityBounds, Int4InGroupsOf32CostsLittle) {
  const Cost cost = cost_of(Base(4096), Numerics::integer(4, 32, true), false);
  EXPECT_LE(cost.rise, 0.015);
  EXPECT_LE(cost.kl, 0.01);
  EXPECT_GT(cost.kl, 1e-4);  // something did change
}

// The order that methods must have on a text that none of them has seen: INT4 in groups of 128.
TEST(QualityBounds, CalibratedMethodsBeatPlainRounding) {
  const Base base(8192);
  const Text seen = read_text(base.source / "calibration.txt", base.tokenizer, 16384);
  require_held_out(seen, base.text);
  const Assignment a = assign_all(base.model, Numerics::integer(4, 128, false), {});
  Model plain = base.model;
  quantize(plain, a, ScaleSearch::absmax);
  const double kl = base.quality(plain).kl_mean;
  const auto kl_of = [&](const char* method) {
    Model model = base.model;
    quantize_calibrated(model, a, seen.tokens,
                        {.method = parse_method(method), .sweep = {.work = {}, .fingerprint = {}}});
    return base.quality(model).kl_mean;
  };
  EXPECT_LE(kl_of("importance"), 0.85 * kl);
  EXPECT_LE(kl_of("gptq"), 0.6 * kl);
}

// Each block rounded alone, on text that AWQ has not seen. Scales move within a block, so that one of a model
// that was rounded as a whole stands in for its original.
TEST(QualityBounds, AwqIsNoWorseThanPlainRoundingInAnyBlock) {
  const Base base(4096);
  const Text seen = read_text(base.source / "calibration.txt", base.tokenizer, 16384);
  require_held_out(seen, base.text);
  const Assignment assignment = assign_all(base.model, Numerics::integer(4, 128, false), {});
  Model plain = base.model, awq = base.model;
  quantize(plain, assignment, ScaleSearch::mse);
  quantize_calibrated(awq, assignment, seen.tokens,
                      {.method = parse_method("awq"), .sweep = {.work = {}, .fingerprint = {}}});
  for (int block = 0; block < 6; ++block) {
    const auto alone = [&](const Model& from) {
      Model model = base.model;
      for (auto& [name, weight] : model.weights)
        if (name.starts_with(fmt::format("model.layers.{}.", block))) weight = from.weights.at(name);
      return base.quality(model).kl_mean;
    };
    EXPECT_LE(alone(awq), alone(plain)) << block;
  }
}

}  // namespace
}  // namespace lathe
