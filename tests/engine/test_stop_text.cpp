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

TEST(StopText, OnlyTheEndOfAStopStringHasToComeLate) {
  StopText text({"ab", "c"});
  EXPECT_EQ(text.push("xabca", false), "xabc");
  EXPECT_EQ(text.push("b c"), "");
  EXPECT_TRUE(text.stopped());
  EXPECT_EQ(text.matched(), "ab");
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

    std::vector<size_t> cuts;  // where pieces end
    for (size_t at = 0; at < all.size();) cuts.push_back(at = std::min(at + 1 + rng.below(8), all.size()));
    const size_t early = rng.below(2) ? cuts[rng.below(cuts.size())] : 0;

    size_t begin = std::string::npos;
    for (size_t end = early + 1; end <= all.size() && begin == std::string::npos; ++end)
      for (const std::string& stop : stops)
        if (std::string_view(all).substr(0, end).ends_with(stop)) begin = std::min(begin, end - stop.size());

    StopText text(stops);
    std::string shown;
    for (size_t i = 0; const size_t end : cuts) {
      shown += text.push(std::string_view(all).substr(i, end - i), end > early);
      i = end;
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
