#include <gtest/gtest.h>

#include "kernels/tables.h"
#include "runtime/pack_model.h"
#include "runtime/plan.h"
#include "support.h"

namespace lathe {
namespace {

using namespace testing_support;

// 'qwen3' ties its head to the embedding: one matrix with two readers.
TEST(PackModel, LeavesPlansNothingToRepackAndChangesNoBit) {
  const std::vector<int32_t> tokens{1, 5, 9, 100, 7, 3, 64, 12, 99, 2};
  for (const char* family : {"llama3", "qwen3", "qwen2"})
    for (const IsaLevel& level : isa_levels()) {
      SCOPED_TRACE(std::string(family) + " " + std::string(level.name));
      const Model stored = load(Checkpoint::open(golden(family)));
      Model packed = stored;
      pack_model(packed, 2, level.features);
      size_t matrices = 0, repacked = 0;
      for (const auto& [name, w] : packed.weights) {
        const Weight& before = stored.weights.at(name);
        EXPECT_EQ(w.shape, before.shape);
        EXPECT_EQ(w.numerics, before.numerics);
        repacked += w.packing != before.packing;
        if (name.find("_proj.weight") == std::string::npos) continue;
        ++matrices;
        // What Plan::compile takes as it is.
        EXPECT_EQ(w.packing->name, choose_linear(w.numerics, w.rows(), w.cols(), level.features).packing)
            << name;
      }
      EXPECT_GT(matrices, 0u);
      EXPECT_EQ(packed.weights.at("model.embed_tokens.weight").packing,
                stored.weights.at("model.embed_tokens.weight").packing);
      if (level.features != 0) {
        EXPECT_GE(repacked, matrices) << "stored as no kernel of this level reads them";
      }
      const Target target{
          .threads = 2, .isa = level.features, .max_tokens = 16, .max_outputs = 16, .context = 32};
      const auto rows = [&](const Model& model) {
        Plan plan = Plan::compile(model, target);
        const auto found = plan.run(SingleSequence(tokens, 0, 10, true)).as<float>();
        return std::vector<float>(found.begin(), found.end());
      };
      EXPECT_EQ(rows(packed), rows(stored));
    }
}

}  // namespace
}  // namespace lathe
