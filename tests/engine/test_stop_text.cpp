#include <algorithm>
#include <gtest/gtest.h>

#include "core/rng.h"
#include "engine/stop_text.h"

namespace lathe {
namespace {

TEST(StopText, ShowsWhatCannotBeAStop) {
  StopText text({"\n\nUser:", "END"});
  EXPECT_EQ(text.push("one"), "one");
  EXPECT_EQ(text.push("\n"), "");
  EXPECT_EQ(text.push("\nU"), "");
  EXPECT_EQ(text.push("ncle"), "\n\nUncle");
  EXPECT_EQ(text.push(" E"), " ");
  EXPECT_EQ(text.push("NDEND"), "");
  EXPECT_TRUE(text.stopped());
  EXPECT_EQ(text.matched(), "END");
  EXPECT_EQ(text.push("more"), "");
  EXPECT_EQ(text.finish(), "");
}

TEST(StopText, WhatWasHeldIsShownAtTheEnd) {
  StopText text({"abc"});
  EXPECT_EQ(text.push("xab"), "x");
  EXPECT_EQ(text.finish(), "ab");
  EXPECT_FALSE(text.stopped());
}

// Against the definition, whatever the pieces.
TEST(StopText, PiecesDoNotMatter) {
  Rng rng(3);
  int stopped = 0;
  for (int round = 0; round < 20'000; ++round) {
    const auto random = [&](uint64_t most) {
      std::string s(1 + rng.below(most), 'a');
      for (char& c : s) c = static_cast<char>('a' + rng.below(2));
      return s;
    };
    const std::string all = random(30);
    std::vector<std::string> stops;
    for (uint64_t i = rng.below(3); i > 0; --i) stops.push_back(random(5));

    size_t begin = std::string::npos;
    for (size_t end = 1; end <= all.size() && begin == std::string::npos; ++end)
      for (const std::string& stop : stops)
        if (std::string_view(all).substr(0, end).ends_with(stop)) begin = std::min(begin, end - stop.size());

    StopText text(stops);
    std::string shown;
    for (size_t i = 0, n; i < all.size(); i += n) {
      n = std::min<size_t>(1 + rng.below(8), all.size() - i);
      shown += text.push(std::string_view(all).substr(i, n));
    }
    shown += text.finish();
    ASSERT_EQ(shown, all.substr(0, begin)) << all;
    ASSERT_EQ(text.stopped(), begin != std::string::npos);
    stopped += text.stopped();
  }
  EXPECT_GT(stopped, 1000);
}

}  // namespace
}  // namespace lathe
