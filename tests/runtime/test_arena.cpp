#include <gtest/gtest.h>

#include "core/rng.h"
#include "runtime/arena.h"

namespace lathe {
namespace {

bool overlap(const Lifetime& a, size_t at_a, const Lifetime& b, size_t at_b) {
  const bool together = a.first <= b.last && b.first <= a.last;
  return together && at_a < at_b + b.bytes && at_b < at_a + a.bytes;
}

TEST(Arena, BuffersThatLiveTogetherNeverOverlap) {
  Rng rng(1);
  for (int round = 0; round < 300; ++round) {
    std::vector<Lifetime> lifetimes(1 + rng.below(40));
    size_t sum = 0;
    for (Lifetime& l : lifetimes) {
      l.first = static_cast<int>(rng.below(30));
      l.last = l.first + static_cast<int>(rng.below(8));
      l.bytes = 1 + rng.below(5000);
      sum += (l.bytes + 63) / 64 * 64;
    }
    const Placement p = place(lifetimes);
    EXPECT_LE(p.bytes, sum);
    for (size_t i = 0; i < lifetimes.size(); ++i) {
      EXPECT_EQ(p.offsets[i] % 64, 0u);
      EXPECT_LE(p.offsets[i] + lifetimes[i].bytes, p.bytes);
      for (size_t j = 0; j < i; ++j)
        EXPECT_FALSE(overlap(lifetimes[i], p.offsets[i], lifetimes[j], p.offsets[j])) << round;
    }
  }
}

TEST(Arena, BuffersThatNeverMeetShareMemory) {
  const Lifetime chain[] = {{0, 1, 1000}, {2, 3, 1000}, {4, 5, 1000}};
  EXPECT_EQ(place(chain).bytes, 1024u);
}

TEST(Arena, NothingNeedsNothing) { EXPECT_EQ(place({}).bytes, 0u); }

}  // namespace
}  // namespace lathe
