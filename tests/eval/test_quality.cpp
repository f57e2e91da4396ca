#include <cmath>
#include <gmock/gmock.h>
#include <numeric>

#include "core/error.h"
#include "core/rng.h"
#include "eval/quality.h"
#include "io/safetensors.h"
#include "runtime/interpreter.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

// --- The same quantities, the plainest way, in double

std::vector<double> log_softmax(std::span<const float> x) {
  const double top = static_cast<double>(*std::max_element(x.begin(), x.end()));
  double sum = 0;
  for (float v : x) sum += std::exp(static_cast<double>(v) - top);
  std::vector<double> out;
  for (float v : x) out.push_back(static_cast<double>(v) - top - std::log(sum));
  return out;
}

double plain_kl(std::span<const float> p, std::span<const float> q) {
  const auto lp = log_softmax(p), lq = log_softmax(q);
  double sum = 0;
  for (size_t i = 0; i < lp.size(); ++i) sum += std::exp(lp[i]) * (lp[i] - lq[i]);
  return sum;
}

struct Plain {
  std::vector<double> nll, kl, reverse;
  int64_t agreed = 0;
};

Plain plain(const Model& model, const Model* base, std::span<const int32_t> tokens, int64_t context) {
  Plain out;
  const auto step = static_cast<size_t>(context);
  for (size_t begin = 0; begin < tokens.size(); begin += step) {
    const auto window = tokens.subspan(begin, std::min(step, tokens.size() - begin));
    const SingleSequence batch(window, 0, static_cast<int64_t>(window.size()), false);
    const Tensor logits = interpret(model, batch), base_logits = base ? interpret(*base, batch) : Tensor();
    const auto cols = static_cast<size_t>(logits.cols());
    for (size_t i = 0; i + 1 < window.size(); ++i) {
      const auto row = logits.as<float>().subspan(i * cols, cols);
      out.nll.push_back(-log_softmax(row)[static_cast<size_t>(window[i + 1])]);
      if (!base) continue;
      const auto base_row = base_logits.as<float>().subspan(i * cols, cols);
      out.kl.push_back(plain_kl(base_row, row));
      out.reverse.push_back(plain_kl(row, base_row));
      out.agreed += std::max_element(row.begin(), row.end()) - row.begin() ==
                    std::max_element(base_row.begin(), base_row.end()) - base_row.begin();
    }
  }
  return out;
}

double mean(const std::vector<double>& x) {
  return std::accumulate(x.begin(), x.end(), 0.0) / static_cast<double>(x.size());
}
double standard_error(const std::vector<double>& x) {
  double squares = 0;
  for (double v : x) squares += (v - mean(x)) * (v - mean(x));
  const auto n = static_cast<double>(x.size());
  return std::sqrt(squares / (n - 1) / n);
}

// --- KL of two rows

std::vector<float> random_row(Rng& rng, size_t n, float scale) {
  std::vector<float> row(n);
  for (float& v : row) v = scale * rng.normal();
  return row;
}

TEST(KlDivergence, EqualsThePlainSum) {
  Rng rng(1);
  for (const size_t n : {1, 2, 15, 16, 17, 100, 4096})
    for (const float scale : {0.1f, 1.0f, 10.0f, 60.0f}) {
      const auto p = random_row(rng, n, scale), q = random_row(rng, n, scale);
      const double expected = plain_kl(p, q);
      EXPECT_NEAR(kl_divergence(p, q), expected, 1e-6 * (1 + expected)) << n << " " << scale;
    }
}

TEST(KlDivergence, ResolvesSmallDifferences) {
  Rng rng(2);
  const auto p = random_row(rng, 4096, 3);
  auto q = p;
  for (float& v : q) v += 0.01f * rng.normal();
  const double expected = plain_kl(p, q);
  ASSERT_LT(expected, 1e-4);
  EXPECT_NEAR(kl_divergence(p, q), expected, 0.002 * expected);
}

TEST(KlDivergence, IsZeroOfEqualRowsAndNeverNegative) {
  Rng rng(3);
  for (int i = 0; i < 20; ++i) {
    const auto p = random_row(rng, 1000, 5);
    EXPECT_EQ(kl_divergence(p, p), 0);
    auto shifted = p;  // a constant on all logits changes no probability
    for (float& v : shifted) v += 0.5f;
    EXPECT_GE(kl_divergence(p, shifted), 0);
    EXPECT_NEAR(kl_divergence(p, shifted), 0, 1e-6);
  }
}

TEST(KlDivergence, SurvivesExtremeLogits) {
  const std::vector<float> p = {1000, -1000, 0}, q = {-1000, 1000, 0};
  EXPECT_NEAR(kl_divergence(p, q), 2000, 1e-3);
  EXPECT_THROW(kl_divergence(p, std::vector<float>{1, 2}), Error);
}

// --- evaluate

std::vector<int32_t> random_tokens(int64_t n, int64_t vocab) {
  Rng rng(4);
  std::vector<int32_t> tokens(static_cast<size_t>(n));
  for (int32_t& t : tokens) t = static_cast<int32_t>(rng.below(static_cast<uint64_t>(vocab)));
  return tokens;
}

Plan plan_of(const Model& model, int64_t context) {
  // The bounds here are those of f32 arithmetic: without bf16 products, which round the activations of
  // prompts.
  return Plan::compile(model, {.threads = 1,
                               .isa = allowed_features() & ~(isa_amx | isa_avx512bf16),
                               .max_tokens = context,
                               .max_outputs = context});
}

// Another model of the same shape: every matrix with some noise on it.
Model perturbed(Model model, float noise) {
  Rng rng(5);
  for (auto& [name, weight] : model.weights) {
    std::vector<float> values = read_all(weight);
    for (float& v : values) v += noise * rng.normal();
    weight = dense_weight(Tensor::of<float>(DType::f32, weight.shape, values));
  }
  return model;
}

Model golden_model(const std::string& family) { return load(Checkpoint::open(golden(family))); }

TEST(Evaluate, EqualsThePlainArithmeticOnAGoldenModel) {
  const Model base = golden_model("llama3"), moved = perturbed(base, 0.02f);
  const auto tokens = random_tokens(200, 128);  // windows of 48, and a shorter last one
  Plan plan = plan_of(moved, 48), base_plan = plan_of(base, 48);
  const Quality q = evaluate(plan, tokens, {.context = 48, .progress = {}}, &base_plan);
  const Plain expected = plain(moved, &base, tokens, 48);

  EXPECT_EQ(q.tokens, 200 - 5);
  EXPECT_EQ(q.tokens_compared, q.tokens);
  EXPECT_NEAR(q.nll, mean(expected.nll), 1e-5);
  EXPECT_NEAR(q.nll_stderr, standard_error(expected.nll), 1e-5);
  EXPECT_NEAR(q.perplexity, std::exp(mean(expected.nll)), 1e-5 * q.perplexity);
  EXPECT_NEAR(q.perplexity_stderr, q.perplexity * standard_error(expected.nll), 1e-5 * q.perplexity);
  ASSERT_GT(mean(expected.kl), 1e-4);
  EXPECT_NEAR(q.kl_mean, mean(expected.kl), 2e-3 * mean(expected.kl));
  EXPECT_NEAR(q.kl_stderr, standard_error(expected.kl), 2e-3 * mean(expected.kl));
  EXPECT_NEAR(q.kl_reverse_mean, mean(expected.reverse), 2e-3 * mean(expected.reverse));
  auto sorted = expected.kl;
  std::sort(sorted.begin(), sorted.end());
  EXPECT_NEAR(q.kl_p99, sorted[194 - 1],
              2e-3 * sorted[194 - 1]);  // ceil(0.99 * 195) = 194 values do not exceed it
  EXPECT_NEAR(q.top1_agreement, static_cast<double>(expected.agreed) / 195, 1e-9);
}

TEST(Evaluate, KeptLogitsOfTheBaseGiveTheSameNumbers) {
  const Model base = golden_model("llama3"), moved = perturbed(base, 0.02f);
  const auto tokens = random_tokens(200, 128);
  Plan plan = plan_of(moved, 48), base_plan = plan_of(base, 48);
  const QualityOptions options{.context = 48, .progress = {}};
  const Quality run = evaluate(plan, tokens, options, &base_plan);
  const BaseLogits kept(base_plan, tokens, 48);
  const Quality looked_up = evaluate(plan, tokens, options, kept);
  EXPECT_EQ(looked_up.tokens_compared, run.tokens_compared);
  EXPECT_EQ(looked_up.nll, run.nll);
  EXPECT_EQ(looked_up.kl_mean, run.kl_mean);
  EXPECT_EQ(looked_up.kl_p99, run.kl_p99);
  EXPECT_EQ(looked_up.kl_reverse_mean, run.kl_reverse_mean);
  EXPECT_EQ(looked_up.top1_agreement, run.top1_agreement);
  EXPECT_THROW(evaluate(plan, random_tokens(300, 128), options, kept), Error);
}

TEST(Evaluate, AModelAgreesWithItself) {
  const Model model = golden_model("qwen3");
  Plan a = plan_of(model, 32), b = plan_of(model, 32);
  const Quality q = evaluate(a, random_tokens(100, 128), {.context = 32, .progress = {}}, &b);
  EXPECT_EQ(q.kl_mean, 0);
  EXPECT_EQ(q.kl_p99, 0);
  EXPECT_EQ(q.top1_agreement, 1);
}

TEST(Evaluate, AWindowsFirstTokenIsNotScored) {
  const Model model = golden_model("llama2");
  Plan plan = plan_of(model, 32);
  EXPECT_EQ(evaluate(plan, random_tokens(64, 128), {.context = 32, .progress = {}}).tokens, 62);
  EXPECT_EQ(evaluate(plan, random_tokens(65, 128), {.context = 32, .progress = {}}).tokens,
            62);  // a last window of one
  EXPECT_EQ(evaluate(plan, random_tokens(66, 128), {.context = 32, .progress = {}}).tokens, 63);
  EXPECT_EQ(evaluate(plan, random_tokens(2, 128), {.context = 32, .progress = {}}).tokens, 1);
  EXPECT_THROW(evaluate(plan, random_tokens(1, 128), {.context = 32, .progress = {}}), Error);
}

TEST(Evaluate, ScoresTheBuiltInModelLikeHuggingFace) {
  const SafetensorsFile file = SafetensorsFile::open(golden("builtin") / "golden.safetensors");
  const Tensor ids = file.load("text_ids"), nll = file.load("text_nll");
  const Model model = load(Checkpoint::open(source_dir() / "models/builtin"));
  Plan plan = plan_of(model, 256);
  EXPECT_NEAR(evaluate(plan, ids.as<int32_t>(), {.context = 256, .progress = {}}).nll,
              static_cast<double>(nll.as<float>()[0]), 2e-5);
}

TEST(KlDivergence, OfWhatIsNoNumberIsNone) {
  const std::vector<float> p = {1, 2, 3}, q = {1, NAN, 3};
  EXPECT_TRUE(std::isnan(kl_divergence(p, q)));
  EXPECT_TRUE(std::isnan(kl_divergence(q, p)));
}

TEST(Evaluate, RefusesLogitsThatAreNotFinite) {
  Model model = golden_model("llama2");
  Plan sound = plan_of(model, 32);
  auto& norm = model.weights.at("model.norm.weight");
  std::vector<float> values = read_all(norm);
  values[0] = NAN;
  norm = dense_weight(Tensor::of<float>(DType::f32, norm.shape, values));
  Plan plan = plan_of(model, 32);
  EXPECT_THROW(evaluate(plan, random_tokens(32, 128), {.context = 32, .progress = {}}), Error);
  EXPECT_THROW(evaluate(sound, random_tokens(32, 128), {.context = 32, .progress = {}}, &plan), Error);
  EXPECT_NO_THROW(evaluate(sound, random_tokens(32, 128), {.context = 32, .progress = {}}));
}

}  // namespace
}  // namespace lathe
