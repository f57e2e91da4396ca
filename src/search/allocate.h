// Which format for which unit: least predicted cost within a budget of bytes, for all budgets at once.
#pragma once

#include <cstdint>
#include <optional>
#include <vector>

namespace lathe {

// One way to store a unit.
struct Item {
  size_t bytes = 0;
  double cost = 0;
};

// A multiple-choice knapsack: one item per unit, costs and bytes add up. Solved by merging, unit after unit,
// the set of undominated (bytes, cost) sums. Exact while that set has at most `resolution` members; larger
// sets are thinned to `resolution` equal steps of bytes, which never breaks a budget and loses at most a
// step.
class Allocation {
 public:
  explicit Allocation(const std::vector<std::vector<Item>>& units, size_t resolution = 4096);

  // The item of each unit. Nothing when no choice is small or good enough.
  std::optional<std::vector<int>> within_bytes(size_t budget) const;  // the least cost
  std::optional<std::vector<int>> within_cost(double budget) const;   // the fewest bytes

 private:
  struct State {
    size_t bytes = 0;
    double cost = 0;
    int32_t parent = 0;  // state of the previous unit
    int32_t item = 0;
  };
  std::vector<int> backtrack(const State&) const;
  std::vector<std::vector<State>> fronts_;  // after each unit; bytes ascending, cost descending
};

}  // namespace lathe
