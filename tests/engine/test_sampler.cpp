#include <algorithm>
#include <cmath>
#include <gmock/gmock.h>
#include <limits>
#include <map>
#include <numeric>
#include <set>

#include "core/error.h"
#include "engine/sampler.h"

namespace lathe {
namespace {

std::map<int32_t, int> draw(const Sampling& s, const std::vector<float>& logits, int n,
                            uint32_t isa = allowed_features()) {
  Sampler sampler(s, isa);
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
  auto counts = draw({.temperature = 1, .top_p = 1}, logits, 20000);
  const double expected[] = {0.087, 0.644, 0.237, 0.032};
  for (int32_t i = 0; i < 4; ++i) EXPECT_NEAR(counts[i] / 20000.0, expected[i], 0.012) << i;
}

TEST(Sampler, TemperatureSharpens) {
  auto counts = draw({.temperature = 0.5, .top_p = 1}, logits, 20000);  // exp of 0, 4, 2, -2
  EXPECT_NEAR(counts[1] / 20000.0, 0.865, 0.012);
}

TEST(Sampler, CutsTheTail) {
  auto top_k = draw({.temperature = 1, .top_k = 2, .top_p = 1}, logits, 20000);
  EXPECT_EQ(top_k.size(), 2u);
  EXPECT_NEAR(top_k[1] / 20000.0, 0.731, 0.012);
  EXPECT_EQ(draw({.temperature = 1, .top_p = 0.6}, logits, 1000).size(), 1u);
  EXPECT_EQ(draw({.temperature = 1, .top_p = 0.7}, logits, 1000).size(), 2u);
  EXPECT_EQ(draw({.temperature = 1, .top_p = 0}, logits, 100).size(), 1u);
  EXPECT_EQ(draw({.temperature = 1, .top_k = 1, .top_p = 1}, logits, 100).size(), 1u);
  // 0.237 / 0.644 is 0.37, 0.087 / 0.644 is 0.135.
  EXPECT_EQ(draw({.temperature = 1, .top_p = 1, .min_p = 0.3}, logits, 1000).size(), 2u);
  EXPECT_EQ(draw({.temperature = 1, .top_p = 1, .min_p = 0.1}, logits, 1000).size(), 3u);
  EXPECT_EQ(draw({.temperature = 1, .top_p = 1, .min_p = 1}, logits, 100).size(), 1u);
}

TEST(Sampler, TellsWhatItDrewFrom) {
  Sampler sampler({.temperature = 1, .top_k = 2, .top_p = 1});
  sampler.pick(logits);
  EXPECT_NEAR(sampler.chance(1), 0.7311, 1e-4);  // 1 / (1 + 1 / e)
  EXPECT_NEAR(sampler.chance(2), 0.2689, 1e-4);
  EXPECT_EQ(sampler.chance(0), 0);
  const auto all = sampler.likeliest(5);
  ASSERT_EQ(all.size(), 2u);
  EXPECT_EQ(all[0].first, 1);
  EXPECT_EQ(all[1], std::pair(2, sampler.chance(2)));
  EXPECT_EQ(sampler.likeliest(1).size(), 1u);
  Sampler greedy({.temperature = 0});
  greedy.pick(logits);
  EXPECT_EQ(greedy.chance(1), 1);
  EXPECT_EQ(greedy.chance(2), 0);
}

TEST(Sampler, PenalizesWhatTheTextHolds) {
  Sampler sampler({.temperature = 0, .repetition_penalty = 4});
  EXPECT_EQ(sampler.pick(logits), 1);
  const int32_t twice[] = {1, 1, 999};  // counts once; beyond the vocabulary nothing
  sampler.see(twice);
  EXPECT_EQ(sampler.pick(logits), 2);               // 2 / 4 is below 1, and 2 / 16 would be too
  const std::vector<float> negative = {-1, -0.5f};  // the seen one becomes -2
  EXPECT_EQ(sampler.pick(negative), 0);
  EXPECT_EQ(draw({.temperature = 0, .repetition_penalty = 4}, logits, 1).begin()->first, 1) << "none is seen";
  const int32_t bad[] = {-1};
  EXPECT_THROW(sampler.see(bad), Error);
}

TEST(Sampler, PenaltiesOfWhatWasWrittenAndBiases) {
  Sampler once({.temperature = 0, .presence_penalty = 1.5});
  const int32_t prompt[] = {1};
  once.see(prompt);
  EXPECT_EQ(once.pick(logits), 1) << "the prompt was not written";
  once.wrote(1);
  EXPECT_EQ(once.pick(logits), 2);  // 2 - 1.5 is below 1
  once.wrote(2);
  EXPECT_EQ(once.pick(logits), 1);  // 0.5 and -0.5
  once.wrote(2);
  once.wrote(1);
  EXPECT_EQ(once.pick(logits), 1) << "presence counts once";
  Sampler often({.temperature = 0, .frequency_penalty = 0.6});
  often.wrote(1);
  EXPECT_EQ(often.pick(logits), 1);  // 1.4
  often.wrote(1);
  EXPECT_EQ(often.pick(logits), 2);  // 0.8
  often.wrote(999);                  // beyond the vocabulary
  EXPECT_EQ(often.pick(logits), 2);
  EXPECT_EQ(draw({.temperature = 0, .logit_bias = {{3, 3.5f}, {999, 1}}}, logits, 1).begin()->first, 3);
  Sampler both({.temperature = 0, .repetition_penalty = 2, .logit_bias = {{0, 3}}});
  EXPECT_EQ(both.pick(logits), 0);
  both.wrote(0);
  EXPECT_EQ(both.pick(logits), 1) << "the penalty divides what the bias made";
}

// softmax 0.087, 0.644, 0.237, 0.032: the entropy is 0.948 nats, the surprises 2.44, 0.44, 1.44, 3.44, so the
// distances 1.49, 0.51, 0.49, 2.49: token 2 is the most typical.
TEST(Sampler, KeepsTheTypical) {
  using Counts = std::map<int32_t, int>;
  EXPECT_EQ(draw({.temperature = 1, .top_p = 1, .typical_p = 0.2}, logits, 200), (Counts{{2, 200}}));
  Counts two = draw({.temperature = 1, .top_p = 1, .typical_p = 0.5}, logits, 20000);
  EXPECT_EQ(two.size(), 2u);
  EXPECT_NEAR(two[1] / 20000.0, 0.731, 0.012);
  EXPECT_EQ(draw({.temperature = 1, .top_p = 1, .typical_p = 0.9}, logits, 2000).size(), 3u);
  EXPECT_EQ(draw({.temperature = 1, .top_p = 1, .typical_p = 0}, logits, 200), (Counts{{2, 200}}));
  // Of what top_k left: of two, the entropy is 0.58, and 1 with 0.31 is nearer than 2 with 1.31.
  EXPECT_EQ(draw({.temperature = 1, .top_k = 2, .top_p = 1, .typical_p = 0.2}, logits, 200),
            (Counts{{1, 200}}));
}

TEST(Sampler, TheSeedDecides) {
  auto sequence = [](uint64_t seed) {
    Sampler s({.temperature = 1, .top_p = 1, .seed = seed});
    std::vector<int32_t> out;
    for (int i = 0; i < 50; ++i) out.push_back(s.pick(logits));
    return out;
  };
  EXPECT_EQ(sequence(7), sequence(7));
  EXPECT_NE(sequence(7), sequence(8));
}

// The tokens that may be drawn, by sorting: the meaning of the cuts.
std::set<int32_t> by_sorting(const Sampling& s, const std::vector<float>& x) {
  std::vector<int32_t> order(x.size());
  std::iota(order.begin(), order.end(), 0);
  std::erase_if(order, [&](int32_t i) { return std::isnan(x[static_cast<size_t>(i)]); });
  std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
    return x[static_cast<size_t>(a)] > x[static_cast<size_t>(b)];
  });
  const auto weight = [&](int32_t i) {
    return std::exp(static_cast<double>(x[static_cast<size_t>(i)] - x[static_cast<size_t>(order[0])]) /
                    s.temperature);
  };
  if (s.top_k > 0) order.resize(std::min(order.size(), static_cast<size_t>(s.top_k)));
  double total = 0, kept = 0;
  for (int32_t i : order) total += weight(i);
  std::set<int32_t> out;
  for (int32_t i : order) {
    if (!out.empty() && (kept >= s.top_p * total || weight(i) < s.min_p)) break;
    out.insert(i);
    kept += weight(i);
  }
  return out;
}

// Every token that sorting keeps is drawn, and no other. Few tokens stay, so that all of them come up: the
// least likely of 12 has at least 1 / 40 here, and 800 draws miss it with probability exp(-20).
TEST(Sampler, KeepsWhatSortingKeepsOnEveryLevel) {
  for (const IsaLevel& level : isa_levels()) {
    SCOPED_TRACE(level.name);
    for (const int64_t n : {1, 5, 33, 4097}) {
      std::vector<float> x(static_cast<size_t>(n), -30.0f);  // nothing beside the 12 below
      Rng rng(static_cast<uint64_t>(n));
      for (int i = 0; i < 12; ++i)  // in steps, so that no sum is near a cut, with equals among them
        x[static_cast<size_t>(rng.below(static_cast<uint64_t>(n)))] = 0.1f * static_cast<float>(rng.below(9));
      if (n > 100) x[50] = NAN;
      for (const Sampling& s : {Sampling{.temperature = 1, .top_k = 5, .top_p = 1},
                                Sampling{.temperature = 1, .top_k = 7, .top_p = 1},
                                Sampling{.temperature = 0.7, .top_k = 9, .top_p = 0.63},
                                Sampling{.temperature = 1, .top_p = 0.47},
                                Sampling{.temperature = 1, .top_k = 12, .top_p = 0.9, .min_p = 0.63}}) {
        const std::set<int32_t> expected = by_sorting(s, x);
        std::set<int32_t> got;
        for (const auto& [token, count] : draw(s, x, 800, level.features)) got.insert(token);
        EXPECT_EQ(got, expected) << n << " top_k " << s.top_k << " top_p " << s.top_p << " min_p " << s.min_p;
      }
    }
  }
}

// llama.cpp's repeat_last_n: prompt and text alike, each token while it is among the last so many.
TEST(Sampler, PenaltiesMayCountAmongTheLastTokensOnly) {
  const std::vector<float> x = {5, 4.5, 4, 0};
  const auto greedy = [&](Sampling s, const std::vector<int32_t>& past) {
    s.temperature = 0;
    Sampler sampler(s);
    sampler.see(past);
    return sampler.pick(x);
  };
  for (const Sampling& s : {Sampling{.repetition_penalty = 2, .penalty_window = 3},
                            Sampling{.presence_penalty = 2, .penalty_window = 3},
                            Sampling{.frequency_penalty = 2, .penalty_window = 3}}) {
    EXPECT_EQ(greedy(s, {0, 1, 3}), 2);
    EXPECT_EQ(greedy(s, {0, 1, 3, 3}), 0) << "it was four tokens ago";
    EXPECT_EQ(greedy(s, {0, 1, 3, 0}), 2) << "it came again";
  }
  EXPECT_EQ(greedy({.repetition_penalty = 2, .penalty_window = 0}, {0, 0}), 0);
  EXPECT_EQ(greedy({.frequency_penalty = .3, .penalty_window = 8}, {0}), 0);
  EXPECT_EQ(greedy({.frequency_penalty = .3, .penalty_window = 8}, {0, 0}), 1) << "twice is worse";
  Sampler sampler({.temperature = 0, .presence_penalty = 2, .penalty_window = 1});
  std::vector<int32_t> text;
  for (int i = 0; i < 6; ++i) {
    text.push_back(sampler.pick(x));
    sampler.wrote(text.back());
  }
  EXPECT_EQ(text, (std::vector<int32_t>{0, 1, 0, 1, 0, 1}));
}

TEST(Sampler, EqualsOnTheBorderStayByTheirIds) {
  const std::vector<float> same(9000, 1.5f);
  for (const IsaLevel& level : isa_levels()) {
    const auto three = draw({.temperature = 1, .top_k = 3, .top_p = 1}, same, 60, level.features);
    EXPECT_EQ(three.size(), 3u);
    EXPECT_EQ(three.rbegin()->first, 2);
    const auto part = draw({.temperature = 1, .top_p = 0.001}, same, 300, level.features);
    EXPECT_EQ(part.size(), 9u) << "9 of 9000";
    EXPECT_EQ(part.rbegin()->first, 8);
  }
}

TEST(Sampler, RefusesLogitsWithoutALargest) {
  const float infinity = std::numeric_limits<float>::infinity();
  for (const std::vector<float>& bad : {std::vector<float>{}, {NAN, NAN}, {-infinity}, {0, infinity}})
    for (const double temperature : {0.0, 1.0})
      EXPECT_THROW(Sampler({.temperature = temperature}).pick(bad), Error);
  EXPECT_EQ(draw({.temperature = 1}, {NAN, -infinity, 3, NAN}, 50), (std::map<int32_t, int>{{2, 50}}));
}

}  // namespace
}  // namespace lathe
