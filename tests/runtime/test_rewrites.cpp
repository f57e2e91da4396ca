#include <gmock/gmock.h>

#include "models/model.h"
#include "runtime/interpreter.h"
#include "runtime/rewrites/rewrites.h"
#include "support.h"

namespace lathe {
namespace {

using testing::HasSubstr;
using testing::Not;
using namespace testing_support;

TEST(Rewrites, FusedGraphMatchesTheGoldenFile) {
  Graph g = define(read_json(golden("qwen3") / "config.json"));
  for (const Rewrite& r : rewrites) r.apply(g);
  expect_golden(golden("graph/qwen3.fused.txt"), to_string(g));
}

TEST(Rewrites, ChangeNoBitOfTheInterpretersLogits) {
  for (const char* family : {"llama3", "qwen3", "smollm2"}) {
    Model model = load(Checkpoint::open(golden(family)));
    const std::vector<int32_t> tokens{1, 5, 9, 100, 7, 3};
    const SingleSequence batch(tokens, 0, 3, false);
    const Tensor before = interpret(model, batch);
    for (const Rewrite& r : rewrites) r.apply(model.graph);
    const Tensor after = interpret(model, batch);
    EXPECT_THAT(after.as<float>(), testing::ElementsAreArray(before.as<float>())) << family;
  }
}

TEST(Rewrites, PerHeadNormsAndSharedGatesAreLeftAlone) {
  Graph g = define(read_json(golden("qwen3") / "config.json"));
  fuse_add_norm(g);
  EXPECT_THAT(to_string(g), HasSubstr("rms_norm model.layers.0.self_attn.q_norm"));
  fuse_silu_mul(g);
  EXPECT_THAT(to_string(g), Not(HasSubstr("= silu ")));
}

}  // namespace
}  // namespace lathe
