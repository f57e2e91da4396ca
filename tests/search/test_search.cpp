#include <gtest/gtest.h>
#include <numeric>
#include <set>

#include "search/search.h"

namespace lathe {
namespace {

TEST(DrawWindows, AreWholeDistinctAndInOrder) {
  std::vector<int32_t> tokens(1003);
  std::iota(tokens.begin(), tokens.end(), 0);
  const auto drawn = draw_windows(tokens, 10, 200, 7);
  ASSERT_EQ(drawn.size(), 200u);
  std::set<int32_t> starts;
  for (size_t i = 0; i < drawn.size(); i += 10) {
    EXPECT_EQ(drawn[i] % 10, 0);
    for (size_t j = 1; j < 10; ++j) EXPECT_EQ(drawn[i + j], drawn[i] + static_cast<int32_t>(j));
    if (i > 0) {
      EXPECT_GT(drawn[i], drawn[i - 10]);
    }
  }
  EXPECT_EQ(drawn, draw_windows(tokens, 10, 200, 7));
  EXPECT_NE(drawn, draw_windows(tokens, 10, 200, 8));
}

TEST(DrawWindows, AShortTextIsUsedWhole) {
  std::vector<int32_t> tokens(57);
  std::iota(tokens.begin(), tokens.end(), 0);
  EXPECT_EQ(draw_windows(tokens, 10, 1000, 0), tokens);
  EXPECT_EQ(draw_windows(std::span(tokens).first(5), 10, 1000, 0).size(), 5u);
}

Trial trial(Trial::Kind kind, size_t bytes, double kl, Choice choice) {
  Trial t;
  t.kind = kind;
  t.bytes = bytes;
  t.search.kl_mean = kl;
  t.choice = std::move(choice);
  return t;
}

TEST(BeatenByUniform, NeedsNoMoreBytesAndNoMoreKl) {
  const std::vector<Trial> trials = {trial(Trial::Kind::uniform, 100, 0.1, {1}),
                                     trial(Trial::Kind::uniform, 200, 0.01, {2})};
  EXPECT_FALSE(beaten_by_uniform(trials, trial(Trial::Kind::mixed, 150, 0.05, {3})));
  EXPECT_TRUE(beaten_by_uniform(trials, trial(Trial::Kind::mixed, 150, 0.1, {3})));
  EXPECT_TRUE(beaten_by_uniform(trials, trial(Trial::Kind::mixed, 200, 0.02, {3})));
  EXPECT_FALSE(beaten_by_uniform(trials, trial(Trial::Kind::mixed, 90, 0.2, {3})));
  EXPECT_FALSE(beaten_by_uniform(trials, trials[0]));  // not by itself
}

}  // namespace
}  // namespace lathe
