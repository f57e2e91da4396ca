#include <gtest/gtest.h>
#include <map>

#include "cli/sample.h"

namespace lathe {
namespace {

std::map<int32_t, int> draw(const Sampling& s, const std::vector<float>& logits, int n) {
  Sampler sampler(s);
  std::map<int32_t, int> counts;
  for (int i = 0; i < n; ++i) ++counts[sampler.pick(logits)];
  return counts;
}

const std::vector<float> logits = {0, 2, 1, -1};  // softmax: 0.087, 0.644, 0.237, 0.032

TEST(Sampler, ZeroTemperatureTakesTheMostLikelyAndTheFirstOfEquals) {
  EXPECT_EQ(draw({.temperature = 0}, logits, 10), (std::map<int32_t, int>{{1, 10}}));
  EXPECT_EQ(draw({.temperature = 0}, {1, 3, 3}, 10), (std::map<int32_t, int>{{1, 10}}));
}

TEST(Sampler, FollowsTheProbabilities) {
  auto counts = draw({.temperature = 1, .top_k = 0, .top_p = 1}, logits, 20000);
  const double expected[] = {0.087, 0.644, 0.237, 0.032};
  for (int32_t i = 0; i < 4; ++i) EXPECT_NEAR(counts[i] / 20000.0, expected[i], 0.012) << i;
}

TEST(Sampler, TemperatureSharpens) {
  auto counts = draw({.temperature = 0.5, .top_k = 0, .top_p = 1}, logits, 20000);  // exp of 0, 4, 2, -2
  EXPECT_NEAR(counts[1] / 20000.0, 0.865, 0.012);
}

TEST(Sampler, TopKAndTopPCutTheTail) {
  auto top_k = draw({.temperature = 1, .top_k = 2, .top_p = 1}, logits, 20000);
  EXPECT_EQ(top_k.size(), 2u);
  EXPECT_NEAR(top_k[1] / 20000.0, 0.731, 0.012);
  EXPECT_EQ(draw({.temperature = 1, .top_k = 0, .top_p = 0.6}, logits, 1000).size(), 1u);
  EXPECT_EQ(draw({.temperature = 1, .top_k = 0, .top_p = 0.7}, logits, 1000).size(), 2u);
  EXPECT_EQ(draw({.temperature = 1, .top_k = 0, .top_p = 0}, logits, 100).size(), 1u);
  EXPECT_EQ(draw({.temperature = 1, .top_k = 1, .top_p = 1}, logits, 100).size(), 1u);
}

TEST(Sampler, TheSeedDecides) {
  auto sequence = [](uint64_t seed) {
    Sampler s({.temperature = 1, .top_k = 0, .top_p = 1, .seed = seed});
    std::vector<int32_t> out;
    for (int i = 0; i < 50; ++i) out.push_back(s.pick(logits));
    return out;
  };
  EXPECT_EQ(sequence(7), sequence(7));
  EXPECT_NE(sequence(7), sequence(8));
}

}  // namespace
}  // namespace lathe
