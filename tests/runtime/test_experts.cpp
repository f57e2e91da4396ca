// Mixtures of experts in plans: against the interpreter, and each row whatever runs beside it.
#include <cmath>
#include <gmock/gmock.h>
#include <numeric>

#include "io/safetensors.h"
#include "quant/round.h"
#include "runtime/expert_rows.h"
#include "runtime/interpreter.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;
using testing::ElementsAre;

TEST(ExpertRows, AreByExpertAndBackByRow) {
  // Four rows, three experts, of which the last two are asked for.
  const float weights[] = {0.5f, 0, 0.5f, 0, 0, 0, 0, 1, 2, 9, 3, 0};
  ExpertRows seen(4, 2, 2);
  for (int again = 0; again < 2; ++again) {
    seen.find(weights, 4, 3, 1, 2);
    EXPECT_THAT(seen.rows(), ElementsAre(2, 3, 0, 2));
    EXPECT_THAT(seen.weights(), ElementsAre(1, 3, 0.5f, 2));
    EXPECT_THAT(seen.first(), ElementsAre(0, 1, 1, 3, 4));
    EXPECT_THAT(seen.by_row(), ElementsAre(2, 0, 3, 1));
    EXPECT_EQ(seen.entries_of(0).end, 2);
    EXPECT_EQ(seen.entries_below(0, 3).end, 1);
    EXPECT_EQ(seen.entries_below(1, 0).end, 2);
  }
}

Weight rounded(const Weight& w, const Numerics& numerics) {
  const std::vector<float> rows = read_all(w);
  const Codes codes = round_to_nearest(rows.data(), w.rows(), w.cols(), numerics, ScaleSearch::absmax);
  const char* stored_as = numerics.rounds_activations() ? "ct.int8" : "ct.pack32";
  Weight packed = make_weight(numerics, packing(stored_as), w.shape);
  packed.packing->pack(codes, 0, packed);
  return packed;
}

struct Format {
  const char* name;
  const Numerics* gate;
  const Numerics* others;  // null: as stored
};

const Numerics int8 = Numerics::integer(8, 0, false), int4 = Numerics::integer(4, 8, true),
               w8a8 = Numerics::w8a8();
// Gate and up of one kind run as one kernel where there is one; of two kinds they want their rows apart.
const Format formats[] = {{"stored", nullptr, nullptr},
                          {"int8", &int8, &int8},
                          {"int4", &int4, &int4},
                          {"w8a8", &w8a8, &w8a8},
                          {"mixed", &w8a8, &int4}};

Model experts_in(const char* family, const Format& format) {
  Model model = load(Checkpoint::open(golden(family)));
  for (auto& [name, weight] : model.weights) {
    if (name.find("expert") == std::string::npos || name.find("_gate.") != std::string::npos ||
        !name.ends_with(".weight"))
      continue;
    const bool gate = name.find(".gate_proj") != std::string::npos || name.find(".w1") != std::string::npos;
    if (const Numerics* n = gate ? format.gate : format.others) weight = rounded(weight, *n);
  }
  return model;
}

std::vector<int32_t> text(int n, int from = 7) {
  std::vector<int32_t> out(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) out[static_cast<size_t>(i)] = (from + i * 5) % 101;
  return out;
}

std::vector<float> copied(const Tensor& logits) {
  const auto s = logits.as<float>();
  return {s.begin(), s.end()};
}

// Decoding on integer dot products rounds x to int8: its own test holds it (test_linear.cpp).
bool rounds_rows(const Plan& plan) {
  return std::ranges::any_of(plan.choices(),
                             [](const Plan::Choice& c) { return c.decode_rows == "int8 groups"; });
}

class Experts : public testing::TestWithParam<const char*> {};

// 2e-4, as of the families in f32 (test_parity.cpp); rows rounded to int8 amplify a last bit to a step now
// and then, and are compared with the interpreter at the same ISA, whose rows have the same bits.
TEST_P(Experts, PlansGiveWhatTheInterpreterGives) {
  const std::vector<int32_t> tokens = text(21);
  const SingleSequence batch(tokens, 0, 21, false, Phase::decode);
  for (const Format& format : formats) {
    if (format.gate == &w8a8) continue;
    const Model model = experts_in(GetParam(), format);
    const Tensor expected = interpret(model, batch);
    for (const IsaLevel& level : isa_levels()) {
      SCOPED_TRACE(fmt::format("{} {}", format.name, level.name));
      Plan plan =
          Plan::compile(model, {.threads = 2, .isa = level.features, .max_tokens = 21, .max_outputs = 21});
      const auto got = plan.run(batch).as<float>();
      const bool integers = format.gate == &int4 && rounds_rows(plan);
      EXPECT_THAT(got, testing::Pointwise(testing::FloatNear(integers ? 0.2f : 2e-4f), expected.as<float>()));
    }
  }
}

TEST_P(Experts, RowsHaveTheirBitsWhateverRunsBesideThem) {
  const std::vector<int32_t> a = text(19), b = text(14, 40);
  const Target target{.threads = 2, .max_tokens = 40, .max_outputs = 40, .slots = 2, .context = 40};
  for (const IsaLevel& level : isa_levels())
    for (const Format& format : formats) {
      SCOPED_TRACE(fmt::format("{} {}", format.name, level.name));
      Target here = target;
      here.isa = level.features;
      const Model model = experts_in(GetParam(), format);
      Plan alone = Plan::compile(model, here), together = Plan::compile(model, here);
      here.threads = 1;
      Plan one_thread = Plan::compile(model, here);
      std::vector<float> expected;
      for (const auto* tokens : {&a, &b}) {  // prompts in two chunks, then two rows that decode
        const auto n = static_cast<int32_t>(tokens->size()) - 2;
        std::vector<float> last;
        for (Plan* plan : {&alone, &one_thread}) {
          std::vector<float> rows = copied(plan->run(SingleSequence({tokens->data(), 5}, 0, 5, true)));
          for (const auto& more :
               {copied(plan->run(
                    SingleSequence({tokens->data() + 5, static_cast<size_t>(n) - 5}, 5, n - 5, true))),
                copied(plan->run(SingleSequence({tokens->data() + n, 1}, n, 1, true, Phase::decode))),
                copied(
                    plan->run(SingleSequence({tokens->data() + n + 1, 1}, n + 1, 1, true, Phase::decode)))})
            rows.insert(rows.end(), more.begin(), more.end());
          if (plan == &one_thread) {
            EXPECT_EQ(rows, last);
          }
          last = rows;
        }
        expected.insert(expected.end(), last.begin(), last.end());
      }
      // Both prompts whole in one step, then both decode two rows each.
      std::vector<float> got[2];
      const auto step = [&](bool prompts) {
        std::vector<int32_t> tokens, positions, starts{0}, outputs;
        for (const auto* t : {&a, &b}) {
          const auto n = static_cast<int32_t>(t->size()) - 2;
          for (int32_t p = prompts ? 0 : n; p < (prompts ? n : n + 2); ++p) {
            tokens.push_back((*t)[static_cast<size_t>(p)]);
            positions.push_back(p);
          }
          starts.push_back(static_cast<int32_t>(tokens.size()));
        }
        outputs.resize(tokens.size());
        std::iota(outputs.begin(), outputs.end(), 0);
        const std::vector<int32_t> slots{1, 0};
        const Tensor& logits = together.run({.tokens = tokens,
                                             .positions = positions,
                                             .starts = starts,
                                             .slots = slots,
                                             .outputs = outputs,
                                             .prompts = prompts ? 2 : 0});
        const auto rows = logits.as<float>();
        for (size_t s : {0u, 1u})
          got[s].insert(got[s].end(), rows.begin() + starts[s] * logits.cols(),
                        rows.begin() + starts[s + 1] * logits.cols());
      };
      step(true);
      step(false);
      got[0].insert(got[0].end(), got[1].begin(), got[1].end());
      EXPECT_EQ(got[0], expected);
    }
}

INSTANTIATE_TEST_SUITE_P(Families, Experts,
                         testing::Values("mixtral", "qwen2_moe", "qwen3_moe", "olmoe", "gpt_oss"));

// gpt-oss' own blocks against Hugging Face's reading of them.
TEST(GptOss, BlocksOfMxfp4AreRead) {
  const Model model = load(Checkpoint::open(golden("gpt_oss_mxfp4")));
  const Weight& up = model.weights.at("model.layers.1.mlp.experts.3.up_proj.weight");
  EXPECT_EQ(up.numerics, Numerics::mxfp4());
  EXPECT_EQ(up.packing->name, "openai.mxfp4");
  EXPECT_FALSE(up.parts[0].strides.empty());  // a view of the file
  const SafetensorsFile file = SafetensorsFile::open(golden("gpt_oss_mxfp4") / "golden.safetensors");
  const Tensor ids = file.load("input_ids"), logits = file.load("logits");
  const auto rows = ids.as<int32_t>();
  const auto n = std::ssize(rows);
  const SingleSequence batch({rows.begin(), rows.end()}, 0, n, false, Phase::decode);
  const Tensor expected = interpret(model, batch);
  const auto largest = [](std::span<const float> a, std::span<const float> b) {
    float most = 0;
    for (size_t i = 0; i < a.size(); ++i) most = std::max(most, std::fabs(a[i] - b[i]));
    return std::to_string(most);
  };
  EXPECT_THAT(expected.as<float>(), testing::Pointwise(testing::FloatNear(2e-4f), logits.as<float>()));
  RecordProperty("max_difference", largest(expected.as<float>(), logits.as<float>()));
  for (const IsaLevel& level : isa_levels()) {
    Plan plan =
        Plan::compile(model, {.threads = 2, .isa = level.features, .max_tokens = n, .max_outputs = n});
    const auto got = plan.run(batch).as<float>();
    EXPECT_THAT(
        got, testing::Pointwise(testing::FloatNear(rounds_rows(plan) ? 0.2f : 2e-4f), expected.as<float>()))
        << level.name;
    RecordProperty(std::string(level.name), largest(got, expected.as<float>()));
  }
}

}  // namespace
}  // namespace lathe
