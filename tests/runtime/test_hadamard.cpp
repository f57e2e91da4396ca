// Hadamard transforms at run time: plans against the interpreter, with a cache and without.
#include <cmath>
#include <gmock/gmock.h>

#include "runtime/interpreter.h"
#include "runtime/models.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

Model transformed(const char* family) { return with_hadamards(load(Checkpoint::open(golden(family)))); }

std::vector<int32_t> text(int n) {
  std::vector<int32_t> out(static_cast<size_t>(n));
  for (int i = 0; i < n; ++i) out[static_cast<size_t>(i)] = (7 + i * 5) % 101;
  return out;
}

class Hadamard : public testing::TestWithParam<const char*> {};

// Butterflies give the same bits everywhere: plans differ from the interpreter by as much as without them
// (test_parity.cpp), 2e-4 on these models.
TEST_P(Hadamard, PlansGiveWhatTheInterpreterGives) {
  const Model model = transformed(GetParam()), plain = load(Checkpoint::open(golden(GetParam())));
  const std::vector<int32_t> tokens = text(12);
  const auto batch = [&](bool cached) { return SingleSequence(tokens, 0, 12, cached, Phase::decode); };
  const Tensor expected = interpret(model, batch(false)), without = interpret(plain, batch(false));
  EXPECT_THAT(expected.as<float>(),
              testing::Not(testing::Pointwise(testing::FloatNear(0.01f), without.as<float>())));
  for (const IsaLevel& level : isa_levels())
    for (const bool cached : {false, true}) {
      SCOPED_TRACE(fmt::format("{} {}", level.name, cached));
      Plan plan = Plan::compile(
          model, {.threads = 2, .isa = level.features, .max_tokens = 12, .max_outputs = 12, .context = 16});
      const NodeId attention = plan.graph().find("model.layers.0.self_attn.attention");
      ASSERT_TRUE(std::holds_alternative<op::RopeAttention>(plan.graph().node(attention).op));
      EXPECT_THAT(plan.run(batch(cached)).as<float>(),
                  testing::Pointwise(testing::FloatNear(2e-4f), expected.as<float>()));
    }
}

// A row's bits do not depend on the rows beside it.
TEST_P(Hadamard, RowsAloneHaveTheBitsOfRowsTogether) {
  const Model model = transformed(GetParam());
  const std::vector<int32_t> tokens = text(9);
  const Target target{.threads = 2, .max_tokens = 12, .max_outputs = 12, .context = 16};
  Plan together = Plan::compile(model, target), alone = Plan::compile(model, target);
  const Tensor& all = together.run(SingleSequence(tokens, 0, 9, true, Phase::decode));
  const int64_t vocab = all.cols();
  for (int32_t i = 0; i < 9; ++i) {
    const std::vector<int32_t> one = {tokens[static_cast<size_t>(i)]};
    const Tensor& row = alone.run(SingleSequence(one, i, 1, true, Phase::decode));
    for (int64_t c = 0; c < vocab; ++c)
      ASSERT_EQ(row.as<float>()[static_cast<size_t>(c)], all.as<float>()[static_cast<size_t>(i * vocab + c)]);
  }
}

// Norms of queries and keys, tied heads, heads of 8; experts that no rewrite fuses.
INSTANTIATE_TEST_SUITE_P(Families, Hadamard, testing::Values("llama3", "qwen3", "smollm2", "qwen3_moe"));

}  // namespace
}  // namespace lathe
