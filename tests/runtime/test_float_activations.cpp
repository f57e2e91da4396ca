// Models whose linear layers round their input to floats of 8 or 4 bits.
#include <cmath>
#include <gmock/gmock.h>

#include "core/cpu.h"
#include "io/checkpoint.h"
#include "runtime/interpreter.h"
#include "runtime/models.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

constexpr std::string_view schemes[] = {"w8a8-fp8",   "w8a8-fp8-static", "w8a8-fp8-block", "w8a8-mxfp8",
                                        "w4a4-nvfp4", "w4a4-mxfp4",      "w4a8-fp8"};

// Every matrix, tables too, over rows as the scheme rounds them, or as they are.
Model in_scheme(std::string_view scheme, bool rounds) {
  const Numerics n = parse_scheme(scheme, scheme == "w4a8-fp8" ? 32 : -1, false, DType::f32);
  const std::string_view stored_as = n.is_integer()             ? "ct.pack32"
                                     : n.global                 ? "ct.nvfp4"
                                     : n.bits == 4              ? "ct.mxfp4"
                                     : n.dtype == DType::f8e8m0 ? "ct.mxfp8"
                                                                : "ct.fp8";
  return in_format(load(Checkpoint::open(golden("llama3"))), rounds ? n : n.weights_alone(), stored_as);
}

double distance(const std::vector<float>& a, const std::vector<float>& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += std::pow(static_cast<double>(a[i] - b[i]), 2);
  return std::sqrt(sum);
}

// Norms and attention (in decoding, which is f32 on every level; tiles take prompts in bf16) of a plan differ
// from the interpreter's by last bits, which may move an element of some layer's input across the middle
// between two codes. A part in a million of its size away from the middle, hardly one of the 20,000 elements
// here does; were there one, it would weigh 1 / sqrt(20,000) of what rounding all does to the logits, 0.7 %.
// So: a twentieth of that, and it is not nothing.
TEST(FloatActivations, PlansRoundAsTheInterpreterDoes) {
  const std::vector<int32_t> tokens = random_tokens(24, 3);
  const SingleSequence batch(tokens, 0, 24, false, Phase::decode);
  for (const std::string_view scheme : schemes) {
    const std::vector<float> alone = rows_of(interpret(in_scheme(scheme, false), batch));
    const Model model = in_scheme(scheme, true);
    const std::vector<float> expected = rows_of(interpret(model, batch));
    const double effect = distance(expected, alone);
    EXPECT_GT(effect, 1e-3 * distance(expected, std::vector<float>(expected.size()))) << scheme;
    for (const IsaLevel& level : isa_levels()) {
      SCOPED_TRACE(fmt::format("{} {}", scheme, level.name));
      Plan plan =
          Plan::compile(model, {.threads = 2, .isa = level.features, .max_tokens = 24, .max_outputs = 24});
      EXPECT_LT(distance(rows_of(plan.run(batch)), expected), 0.05 * effect);
      int64_t rounding = 0;
      for (const Plan::Choice& c : plan.choices()) {
        if (!c.decode_rows.starts_with("rounded to ")) continue;
        ++rounding;
        EXPECT_TRUE(c.emulated) << c.node;
        EXPECT_EQ(c.prompt_rows, c.decode_rows);
        EXPECT_EQ(level.features == 0, c.packing == "expand.f32") << c.kernel;
      }
      EXPECT_EQ(rounding, 7 * 2 + 1);  // of two blocks, and the head
    }
  }
}

// A row's scales are its own, or the model's: what runs beside it changes nothing.
TEST(FloatActivations, RowsHaveTheirBitsWhateverRunsBesideThem) {
  const std::vector<int32_t> tokens = random_tokens(17, 3);
  for (const std::string_view scheme : schemes) {
    const Model model = in_scheme(scheme, true);
    for (const IsaLevel& level : isa_levels()) {
      SCOPED_TRACE(fmt::format("{} {}", scheme, level.name));
      std::vector<std::vector<float>> runs;
      for (const int threads : {1, 2}) {
        Plan plan = Plan::compile(
            model,
            {.threads = threads, .isa = level.features, .max_tokens = 17, .max_outputs = 17, .context = 32});
        runs.push_back(rows_of(plan.run(SingleSequence(tokens, 0, 17, true))));
        std::vector<float> parts = rows_of(plan.run(SingleSequence({tokens.data(), 6}, 0, 6, true)));
        for (const auto& more : {rows_of(plan.run(SingleSequence({tokens.data() + 6, 10}, 6, 10, true))),
                                 rows_of(plan.run(SingleSequence({tokens.data() + 16, 1}, 16, 1, true)))})
          parts.insert(parts.end(), more.begin(), more.end());
        runs.push_back(std::move(parts));
      }
      for (size_t i = 1; i < runs.size(); ++i) EXPECT_EQ(runs[i], runs[0]) << i;
    }
  }
}

}  // namespace
}  // namespace lathe
