// A step allocates nothing: what it needs was placed when the plan was compiled. (The reference's attention
// is plain loops over a vector of scores, and exempt.)
#include <gtest/gtest.h>
#include <memory>
#include <vector>

#include "core/cpu.h"
#include "quant/round.h"
#include "runtime/allocation.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

Model quantized(const Model& model, const Numerics& numerics) {
  Model out = model;
  for (auto& [name, weight] : out.weights)
    if (weight.shape.size() == 2) {
      const std::vector<float> rows = read_all(weight);
      const Codes codes =
          round_to_nearest(rows.data(), weight.rows(), weight.cols(), numerics, ScaleSearch::absmax);
      const char* stored_as = numerics.bits == 8 ? "ct.int8" : "ct.pack32";
      Weight packed = make_weight(numerics, packing(stored_as), weight.shape);
      packed.packing->pack(codes, 0, packed);
      weight = std::move(packed);
    }
  return out;
}

TEST(Allocation, IsCounted) {
  if (allocations() == 0) GTEST_SKIP() << "a sanitizer has its own operator new";
  const size_t before = allocations();
  auto kept = std::make_unique<std::vector<int>>(100);
  EXPECT_EQ(allocations(), before + 2);
}

TEST(Allocation, AStepAllocatesNothing) {
  if (allocations() == 0) GTEST_SKIP() << "a sanitizer has its own operator new";
  const Model dense = load(Checkpoint::open(golden("llama3"))),
              mixture = load(Checkpoint::open(golden("qwen2_moe")));
  const struct {
    const char* name;
    Model model;
  } models[] = {{"f32", dense},
                {"int8", quantized(dense, Numerics::integer(8, 0, false))},
                {"int4 g32 asym", quantized(dense, Numerics::integer(4, 32, true))},
                {"w8a8", quantized(dense, Numerics::w8a8())},
                {"experts", mixture},
                {"experts int4", quantized(mixture, Numerics::integer(4, 8, true))}};
  const std::vector<int32_t> prompt{1, 5, 9, 100, 7, 3, 64, 12, 99, 2};
  for (const auto& [name, model] : models)
    for (const IsaLevel& level : isa_levels()) {
      if (level.features == 0) continue;
      SCOPED_TRACE(std::string(name) + " " + std::string(level.name));
      Plan plan = Plan::compile(
          model, {.threads = 2, .isa = level.features, .max_tokens = 16, .max_outputs = 16, .context = 32});
      const SingleSequence first(prompt, 0, 10, true), chunk({prompt.data(), 4}, 10, 1, true),
          step({prompt.data(), 1}, 14, 1, true, Phase::decode),
          draft({prompt.data(), 3}, 15, 3, true, Phase::decode);
      const Batch batches[] = {first, chunk, step, draft};
      const size_t before = allocations();
      for (const Batch& b : batches) plan.run(b);
      EXPECT_EQ(allocations(), before);
    }
}

}  // namespace
}  // namespace lathe
