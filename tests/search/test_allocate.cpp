#include <gtest/gtest.h>
#include <limits>

#include "core/rng.h"
#include "search/allocate.h"

namespace lathe {
namespace {

constexpr double infinity = std::numeric_limits<double>::infinity();
using Units = std::vector<std::vector<Item>>;

Item total(const Units& units, const std::vector<int>& choice) {
  Item sum;
  for (size_t u = 0; u < units.size(); ++u) {
    const Item& item = units[u].at(static_cast<size_t>(choice.at(u)));
    sum.bytes += item.bytes;
    sum.cost += item.cost;
  }
  return sum;
}

// Calls visit(total) for every combination.
template <class Visit>
void each_combination(const Units& units, Visit visit) {
  std::vector<int> choice(units.size(), 0);
  for (;;) {
    visit(total(units, choice));
    size_t u = 0;
    while (u < units.size() && ++choice[u] == static_cast<int>(units[u].size())) choice[u++] = 0;
    if (u == units.size()) return;
  }
}

Units random_units(Rng& rng) {
  Units units(1 + rng.below(6));
  for (auto& items : units) {
    items.resize(1 + rng.below(4));
    for (Item& item : items) item = {rng.below(60), static_cast<double>(rng.below(1000)) / 8};
  }
  return units;
}

TEST(Allocation, AgreesWithEveryCombination) {
  Rng rng(1);
  for (int instance = 0; instance < 300; ++instance) {
    const Units units = random_units(rng);
    const Allocation allocation(units);
    for (int probe = 0; probe < 5; ++probe) {
      const size_t bytes = rng.below(200);
      double least = infinity;
      each_combination(units,
                       [&](const Item& t) { least = t.bytes <= bytes ? std::min(least, t.cost) : least; });
      const auto within = allocation.within_bytes(bytes);
      ASSERT_EQ(within.has_value(), least < infinity);
      if (within) {
        EXPECT_LE(total(units, *within).bytes, bytes);
        EXPECT_DOUBLE_EQ(total(units, *within).cost, least);
      }

      const double cost = static_cast<double>(rng.below(4000)) / 8;
      size_t fewest = SIZE_MAX;
      each_combination(units,
                       [&](const Item& t) { fewest = t.cost <= cost ? std::min(fewest, t.bytes) : fewest; });
      const auto reaching = allocation.within_cost(cost);
      ASSERT_EQ(reaching.has_value(), fewest != SIZE_MAX);
      if (reaching) {
        EXPECT_LE(total(units, *reaching).cost, cost);
        EXPECT_EQ(total(units, *reaching).bytes, fewest);
      }
    }
  }
}

TEST(Allocation, ThinningKeepsBudgetsAndTheSmallest) {
  Rng rng(2);
  Units units(12);
  for (auto& items : units)
    for (int i = 0; i < 4; ++i) items.push_back({1000 + rng.below(100000), rng.uniform()});
  const Allocation exact(units, 1 << 20), thin(units, 64);
  size_t smallest = 0;
  for (const auto& items : units) {
    size_t least = SIZE_MAX;
    for (const Item& item : items) least = std::min(least, item.bytes);
    smallest += least;
  }
  EXPECT_FALSE(thin.within_bytes(smallest - 1));
  ASSERT_TRUE(thin.within_bytes(smallest));
  for (size_t budget = smallest; budget < smallest * 4; budget += smallest / 7) {
    const Item found = total(units, *thin.within_bytes(budget)),
               best = total(units, *exact.within_bytes(budget));
    EXPECT_LE(found.bytes, budget);
    EXPECT_GE(found.cost, best.cost);
    EXPECT_LE(found.cost, best.cost * 1.5 + 1e-9);
  }
}

TEST(Allocation, NoUnitsCostNothing) {
  const Allocation none({});
  EXPECT_TRUE(none.within_bytes(0)->empty());
  EXPECT_TRUE(none.within_cost(0)->empty());
  EXPECT_FALSE(none.within_cost(-1));
}

}  // namespace
}  // namespace lathe
