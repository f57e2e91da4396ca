// The contract of every architecture: the interpreter gives Hugging Face's logits, every plan gives the
// interpreter's.
#include <cmath>
#include <gmock/gmock.h>
#include <map>

#include "io/safetensors.h"
#include "runtime/interpreter.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

struct Case {
  std::string name;
  fs::path model;  // may be absent in a bare clone
};

void PrintTo(const Case& c, std::ostream* out) { *out << c.name; }

std::vector<Case> cases() {
  std::vector<Case> out;
  for (const char* family : {"llama2", "llama3", "llama3.1", "llama3.2", "mistral_v01", "mistral_nemo",
                             "qwen2", "qwen2.5", "qwen3", "smollm2", "tinyllama", "sharded",
                             "rope_parameters", "mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"})
    out.push_back({family, golden(family)});
  out.push_back({"builtin", source_dir() / "models" / "builtin"});
  out.push_back({"tinystories656k", shared_data("lm/tinystories656K_hf")});
  return out;
}

struct Golden {
  std::vector<int32_t> input_ids, prompt_ids, greedy_ids;
  std::vector<float> logits;
};

Golden read_golden(const std::string& name) {
  const SafetensorsFile file = SafetensorsFile::open(golden(name) / "golden.safetensors");
  auto ids = [&](const char* key) {
    const Tensor t = file.load(key);
    const auto s = t.as<int32_t>();
    return std::vector<int32_t>(s.begin(), s.end());
  };
  const Tensor logits = file.load("logits");
  const auto l = logits.as<float>();
  return {ids("input_ids"), ids("prompt_ids"), ids("greedy_ids"), {l.begin(), l.end()}};
}

float max_difference(std::span<const float> a, std::span<const float> b) {
  EXPECT_EQ(a.size(), b.size());
  float most = 0;
  for (size_t i = 0; i < std::min(a.size(), b.size()); ++i) {
    const float d = std::fabs(a[i] - b[i]);
    most = std::isnan(d) ? INFINITY : std::max(most, d);
  }
  return most;
}

// Two f32 evaluations of the same graph differ by rounding alone. Each sum of k terms in another order
// contributes a relative error of about sqrt(k) eps (random walk of k roundings): linears, and attention's of
// scores and of values over `rows` keys at most; any other op one rounding. They add up in quadrature along
// the longest path to a logit (per block one of q, k and v, o, gate or up, down; of experts one, as their
// weights sum to 1 at most), norms keep relative errors as they are, and 8 standard deviations leave no room
// for luck over some 10^5 logits.
float f32_tolerance(const Graph& g, int64_t rows, std::span<const float> logits) {
  std::map<ValueId, double> variances;
  for (NodeId id : g.order()) {
    const Node& node = g.node(id);
    double variance = 0;
    for (const ValueId input : node.inputs) variance = std::max(variance, variances[input]);
    if (std::holds_alternative<op::Linear>(node.op))
      variance += static_cast<double>(g.value(node.inputs[0]).cols);
    else if (const auto* a = std::get_if<op::Attention>(&node.op))
      variance += static_cast<double>(a->head_dim + rows);
    else
      variance += 1;
    for (const ValueId output : node.outputs) variances[output] = variance;
  }
  const double variance = variances[g.output()];
  float largest = 0;
  for (float l : logits) largest = std::max(largest, std::fabs(l));
  return static_cast<float>(8 * std::sqrt(variance) * 0x1p-24) * largest;
}

// Where prompts go through bf16 products, each linear also rounds x and w, and in tiles attention q, k, v and
// p: a term is off by two independent roundings of at most 2^-9 (2^-9 / sqrt(3) rms), and a sum of such terms
// is off by as much relative to itself. In quadrature over all of them, and 8 standard deviations.
float bf16_tolerance(const Graph& g, std::span<const float> logits) {
  double variance = 0;
  for (NodeId id : g.order()) {
    if (std::holds_alternative<op::Linear>(g.node(id).op)) variance += 2.0 / 3;
    if (std::holds_alternative<op::Attention>(g.node(id).op)) variance += 4.0 / 3;
  }
  float largest = 0;
  for (float l : logits) largest = std::max(largest, std::fabs(l));
  return static_cast<float>(8 * std::sqrt(variance) * 0x1p-9) * largest;
}

std::vector<int32_t> greedy(Plan& plan, const std::vector<int32_t>& prompt, size_t n) {
  std::vector<int32_t> out;
  std::vector<int32_t> step = prompt;
  int32_t position = 0;
  while (out.size() < n) {
    // All rows decode, the prompt's too: f32 activations on every level.
    const Tensor& logits = plan.run(SingleSequence(step, position, 1, true, Phase::decode));
    const auto row = logits.as<float>();
    out.push_back(static_cast<int32_t>(std::max_element(row.begin(), row.end()) - row.begin()));
    position += static_cast<int32_t>(step.size());
    step = {out.back()};
  }
  return out;
}

class Parity : public testing::TestWithParam<Case> {};

TEST_P(Parity, InterpreterGivesHuggingFaceLogits) {
  SKIP_WITHOUT(GetParam().model);
  const Golden g = read_golden(GetParam().name);
  const Model model = load(Checkpoint::open(GetParam().model));
  const Tensor logits =
      interpret(model, SingleSequence(g.input_ids, 0, static_cast<int64_t>(g.input_ids.size()), false));
  const float difference = max_difference(logits.as<float>(), g.logits);
  RecordProperty("max_difference", std::to_string(difference));
  EXPECT_LE(difference,
            f32_tolerance(model.graph, static_cast<int64_t>(g.input_ids.size()), logits.as<float>()));
}

TEST_P(Parity, PlanGivesTheInterpretersLogitsOnEveryIsa) {
  SKIP_WITHOUT(GetParam().model);
  const Golden g = read_golden(GetParam().name);
  const Model model = load(Checkpoint::open(GetParam().model));
  const auto rows = static_cast<int64_t>(g.input_ids.size());
  const SingleSequence batch(g.input_ids, 0, rows, false);
  const Tensor expected = interpret(model, batch);
  const float tolerance = f32_tolerance(model.graph, rows, expected.as<float>());
  EXPECT_LT(tolerance, 2e-3f);  // the derivation must stay a real bound
  for (const IsaLevel& level : isa_levels()) {
    Plan plan =
        Plan::compile(model, {.threads = 2, .isa = level.features, .max_tokens = rows, .max_outputs = rows});
    const float difference = max_difference(plan.run(batch).as<float>(), expected.as<float>());
    RecordProperty(std::string(level.name), fmt::format("{} of {}", difference, tolerance));
    const bool bf16 = level.features & isa_avx512bf16;  // tiles have it too
    EXPECT_LE(difference, bf16 ? bf16_tolerance(model.graph, expected.as<float>()) : tolerance) << level.name;
    const SingleSequence decoded(g.input_ids, 0, rows, false, Phase::decode);
    EXPECT_LE(max_difference(plan.run(decoded).as<float>(), expected.as<float>()), tolerance) << level.name;
  }
}

TEST_P(Parity, GreedyTextIsHuggingFaceTextOnEveryIsa) {
  SKIP_WITHOUT(GetParam().model);
  const Golden g = read_golden(GetParam().name);
  const Model model = load(Checkpoint::open(GetParam().model));
  for (const IsaLevel& level : isa_levels()) {
    Plan plan = Plan::compile(
        model, {.threads = 2, .isa = level.features, .max_tokens = 64, .max_outputs = 1, .context = 128});
    EXPECT_EQ(greedy(plan, g.prompt_ids, g.greedy_ids.size()), g.greedy_ids) << level.name;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, Parity, testing::ValuesIn(cases()), [](const auto& tested) {
  std::string name = tested.param.name;
  for (char& c : name)
    if (!isalnum(c)) c = '_';
  return name;
});

}  // namespace
}  // namespace lathe
